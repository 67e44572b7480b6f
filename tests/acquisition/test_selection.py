"What every selector keeps to, by being registered"

import functools
import inspect
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import as_pool, assert_same, classes_learner, everything, pixels_learner
from fastai_al.acquisition.candidates import Candidates
from fastai_al.acquisition.catalogue import catalogue
from fastai_al.acquisition.contract import example_inputs
from fastai_al.acquisition.registry import ACQUISITION, score
from fastai_al.acquisition.selection import NEEDS, SELECTORS, LazyGreedy, find_selector
from fastai_al.posterior.base import Point
from fastai_al.posterior.dropout import MCDropout

assert catalogue().keys() >= {*SELECTORS}  # all modules of strategies are known by now
selectors = pytest.mark.parametrize('by', sorted(SELECTORS))
EXPECTED = {
    'badge',
    'bait',
    'batchbald',
    'clasp_pe',
    'clue',
    'cluster_margin',
    'foreground_random',
    'kcenter',
    'lcmd',
    'logdet',
    'max_herding',
    'min_gap',
    'nngp',
    'power_bald',
    'probcover',
    'softmax_bald',
    'softrank_bald',
    'typiclust',
    'uncertainty_herding',
}


def inputs(by: str, n: int, labelled: int = 4, **kwargs) -> dict:
    "Something of everything a selector may need, of `n` items"
    return example_inputs(SELECTORS[by], n, labelled, **kwargs)


def test_all_are_there():
    assert {*SELECTORS} >= EXPECTED
    for s in SELECTORS.values():
        assert s.__module__.startswith('fastai_al.acquisition.'), 'registered by a test'
        assert set(s.needs) <= NEEDS and {'n', 'seed'} <= set(s.options)


@selectors
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_exactly_n_distinct_ones_in_order_of_choice(by, dtype):
    for size, labelled in ((1, 4), (2, 0), (9, 1), (40, 4)):
        given = inputs(by, size, labelled, dtype=dtype)
        for n in {1, max(1, size // 2), size}:
            chosen = SELECTORS[by](**given, n=n, seed=1)
            assert (
                len(chosen) == n == len(set(chosen.indices.tolist()))
                and 0 <= chosen.indices.min() <= chosen.indices.max() < size
            )
            assert chosen.gains.shape == (n,) and not chosen.gains.isnan().any()
            assert all(len(column) == n for column in chosen.columns.values())


@selectors
def test_the_same_seed_gives_the_same_batch_and_inputs_stay_as_they_are(by):
    given = inputs(by, 40)
    before = {name: t.clone() for name, t in given.items()}
    state = torch.get_rng_state(), str(np.random.get_state())
    one, again = SELECTORS[by](**given, n=9, seed=3), SELECTORS[by](**given, n=9, seed=3)
    assert torch.equal(one.indices, again.indices) and torch.equal(one.gains, again.gains)
    assert_same(given, before)
    assert torch.equal(torch.get_rng_state(), state[0]) and str(np.random.get_state()) == state[1]


@selectors
def test_items_that_are_all_alike(by):
    given = {
        name: t[:1].expand(12, *t.shape[1:]).clone() if not name.startswith('labelled_') else t
        for name, t in inputs(by, 12).items()
    }
    chosen = SELECTORS[by](**given, n=7)
    assert len(set(chosen.indices.tolist())) == 7 and not chosen.gains.isnan().any()


@selectors
def test_features_and_draws_without_any_spread(by):
    given = inputs(by, 12)
    for name, t in given.items():
        if 'features' in name:
            t.zero_()
        if 'log_probs' in name:
            t.fill_(-math.log(3))
        if 'probs' == name.removeprefix('labelled_'):
            t.fill_(1 / 3)
        if 'values' in name or 'scores' in name:
            t.zero_()
    assert len(set(SELECTORS[by](**given, n=5).indices.tolist())) == 5


@selectors
def test_certain_predictions(by):
    given = inputs(by, 12)
    certain = torch.nn.functional.one_hot(torch.arange(16) % 3, 3).float()
    for name in set(given) & {'log_probs', 'probs', 'values', 'labelled_probs', 'labelled_values'}:
        rows = certain[12:] if name.startswith('labelled_') else certain[:12]
        given[name] = (
            rows
            if 'probs' == name.removeprefix('labelled_')
            else rows[:, None].expand(-1, 6, -1).clone()
        )
        if name == 'log_probs':
            given[name] = given[name].log()
    if 'scores' in given:
        given['scores'] = score(SELECTORS[by].score, certain[:12, None].expand(-1, 6, -1).log())
    assert len(set(SELECTORS[by](**given, n=5).indices.tolist())) == 5


@selectors
def test_half_precision_is_raised_to_single(by):
    given = {
        name: t.half() if 'log_probs' != name and t.is_floating_point() else t
        for name, t in inputs(by, 12).items()
    }
    chosen, expected = (
        SELECTORS[by](**rows, n=5)
        for rows in (
            given,
            {name: t.float() if t.is_floating_point() else t for name, t in given.items()},
        )
    )
    assert chosen.indices.tolist() == expected.indices.tolist() and torch.equal(
        chosen.gains, expected.gains
    )


BAD = {
    'too many': (lambda given: given, 13),
    'none': (lambda given: given, 0),
    'half an item': (lambda given: given, 2.5),
    'no items': (
        lambda given: {
            name: t[:0] if not name.startswith('labelled_') else t for name, t in given.items()
        },
        1,
    ),
    'NaN': (
        lambda given: {
            name: t.index_fill(0, torch.tensor([3]), math.nan) if t.is_floating_point() else t
            for name, t in given.items()
        },
        2,
    ),
    'infinite': (
        lambda given: {
            name: t.index_fill(0, torch.tensor([3]), math.inf) if t.is_floating_point() else t
            for name, t in given.items()
        },
        2,
    ),
    'integers': (
        lambda given: {
            name: t.long() * 0 if t.is_floating_point() else t for name, t in given.items()
        },
        2,
    ),
    'lists': (lambda given: {name: t.tolist() for name, t in given.items()}, 2),
    'one axis too many': (lambda given: {name: t[..., None] for name, t in given.items()}, 2),
}


@selectors
@pytest.mark.parametrize('what', BAD)
def test_bad_input_is_an_error_that_names_the_selector(by, what):
    change, n = BAD[what]
    with pytest.raises((ValueError, TypeError), match=SELECTORS[by].__name__):
        SELECTORS[by](**change(inputs(by, 12)), n=n)


@selectors
def test_parts_of_different_lengths(by):
    given = inputs(by, 12)
    parts = [name for name in given if not name.startswith('labelled_')]
    if len(parts) < 2:
        pytest.skip('it needs one thing only')
    with pytest.raises(
        ValueError, match='different lengths: .*12 .*11|different lengths: .*11 .*12'
    ):
        SELECTORS[by](**given | {parts[0]: given[parts[0]][:11]}, n=2)


@pytest.mark.parametrize(
    'by', sorted(name for name, s in SELECTORS.items() if {'log_probs', 'values'} & set(s.needs))
)
def test_one_draw_has_nothing_to_compare(by):
    given = {name: t[:, :1] if t.ndim == 3 else t for name, t in inputs(by, 12).items()}
    with pytest.raises(ValueError, match='MCDropout'):
        SELECTORS[by](**given, n=2)


@selectors
def test_numbers_whose_squares_are_infinite(by):
    given = {
        name: t * 1e30 if 'features' in name or 'values' in name else t
        for name, t in inputs(by, 12).items()
    }
    try:
        assert len(set(SELECTORS[by](**given, n=5).indices.tolist())) == 5
    except ValueError as e:
        assert by in str(e)


@pytest.mark.parametrize('by', sorted({**SELECTORS, **ACQUISITION}))
@given(data=st.data())
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_garbage_gives_an_answer_or_an_error_of_ours(by, data):
    function = SELECTORS.get(by) or ACQUISITION[by]
    parameters = [
        p
        for p in inspect.signature(function).parameters
        if p in NEEDS or p in ('log_probs', 'values', 'target_log_probs')
    ]
    n = data.draw(st.integers(-1, 8), label='n')
    size, k, c = (data.draw(st.integers(0, 6)) for _ in range(3))
    given = {}
    for name in parameters:
        shape = data.draw(
            st.sampled_from(
                [(size,), (size, c), (size, k, c), (size, k, 2, c), (size + 1, k, c), ()]
            )
        )
        kind = data.draw(
            st.sampled_from(
                ['normal', 'log_probs', 'log_probs', 'huge', 'nan', 'int', 'none', 'half']
            )
        )
        t = torch.randn(shape)
        given[name] = dict(
            normal=t,
            log_probs=t.log_softmax(-1) if t.ndim and t.numel() else t,
            huge=t * 1e30,
            nan=t / 0 * 0,
            int=t.long(),
            none=None,
            half=t.half(),
        )[kind]
    try:
        found = function(**given, **(dict(n=n) if by in SELECTORS else {}))
    except (ValueError, TypeError) as e:
        assert 'fastai_al' in ''.join(
            str(frame.path) for frame in pytest.ExceptionInfo.from_exception(e).traceback[-1:]
        ) or 'argument' in str(e), repr(e)
    else:
        if by in SELECTORS:
            assert len(set(found.indices.tolist())) == n
        else:
            assert not found.isnan().any()


# Inside acquire


def learner(**kwargs):
    learn = classes_learner(**kwargs)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    return learn


@selectors
def test_acquire_collects_what_a_selector_needs_and_leaves_nothing_behind(by):
    learn = learner(cbs=MCDropout(k=6))
    dl = learn.dls.test_dl(range(50), bs=16)
    with learn.no_bar():
        before = everything(learn)
        query = learn.acquire(9, dl, by=by, seed=1)
        assert_same(everything(learn), before)
    assert (
        len(set(query.uids)) == 9
        and query.info['acquisition'] == by
        and query.info['candidates'] == 50
    )
    assert query.to_df().shape[0] == 9 and len(query.predictions) == 9


@selectors
def test_the_query_does_not_depend_on_how_the_pool_is_read(by):
    learn = learner(cbs=MCDropout(k=6))
    items = list(range(50))
    with learn.no_bar():
        first = learn.acquire(9, learn.dls.test_dl(items, bs=64), by=by, seed=1)
        orders = (items, 7), (items[::-1], 16), (sorted(items, key=lambda i: hash((i, 5))), 5)
        for order, bs in (
            orders if by != 'min_gap' else orders[:1]
        ):  # there, the order is what counts
            again = learn.acquire(9, learn.dls.test_dl(order, bs=bs), by=by, seed=1)
            assert again.uids == first.uids
            np.testing.assert_allclose(again.scores, first.scores, rtol=1e-3, atol=1e-5)


@selectors
def test_draws_that_a_selector_needs_are_required_before_any_work(by):
    learn = learner()
    if SELECTORS[by].min_draws < 2:
        assert (
            len(learn.acquire(3, as_pool(learn), by=by, posterior=Point(), sequence=range(40))) == 3
        )
    else:
        with pytest.raises(ValueError, match='MCDropout'):
            learn.acquire(3, as_pool(learn), by=by, posterior=Point())


def test_pictures_can_be_chosen_by_features_and_by_scores():
    learn = pixels_learner(cbs=MCDropout(k=4))
    assert len(learn.acquire(3, as_pool(learn), by='power_bald')) == 3
    assert len(learn.acquire(3, as_pool(learn), by='kcenter', features=learn.model.body[0])) == 3
    for by in ('batchbald', 'badge', 'logdet'):
        with pytest.raises(ValueError, match='one prediction an item|no linear layer'):
            learn.acquire(3, as_pool(learn), by=by)


def test_epig_takes_targets_from_a_dataloader_or_the_pool():
    learn = learner(cbs=MCDropout(k=6))
    pool, target = learn.dls.test_dl(range(100, 150)), learn.dls.test_dl(range(10))
    one, other = learn.acquire(9, pool, by='epig', target=target), learn.acquire(9, pool, by='epig')
    assert one.uids != other.uids
    assert (
        one.uids
        == learn.acquire(9, pool, by='epig', target=learn.dls.test_dl(range(9, -1, -1), bs=3)).uids
    )


def test_memory_limits_candidates():
    learn = learner(cbs=MCDropout(k=6))
    pool = learn.dls.test_dl(range(50), bs=8)
    few = learn.acquire(3, pool, by='batchbald', memory=16 * 6 * 3 * 4)
    assert few.info['candidates'] <= 16 and few.info['pool'] == 50
    if few.info['certified']:
        assert few.uids == learn.acquire(3, pool, by='batchbald').uids
    with pytest.raises(ValueError, match='memory'):
        learn.acquire(30, pool, by='batchbald', memory=16 * 6 * 3 * 4)


# Candidates and lazy greedy


@given(st.integers(1, 200), st.integers(8, 60), st.integers(1, 50), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_candidates_are_the_best(size, room, bs, seed):
    g = torch.Generator().manual_seed(seed)
    rows, scores = (
        torch.randn(size, 3, generator=g),
        torch.randint(0, 40, (size,), generator=g).float(),
    )  # with ties
    kept = Candidates(room * 12)
    for i in range(0, size, bs):
        kept.add(rows[i : i + bs], scores[i : i + bs], torch.arange(size)[i : i + bs])
    assert len(kept) <= room and (len(kept) == size or len(kept) >= room * 3 // 4)
    assert (
        torch.equal(kept.rows, rows[kept.indices])
        and torch.equal(kept.scores, scores[kept.indices])
        and len(set(kept.indices.tolist())) == len(kept)
    )
    dropped = scores[[i for i in range(size) if i not in set(kept.indices.tolist())]]
    assert kept.best_excluded == (dropped.max().item() if len(dropped) else -math.inf)
    if len(dropped):
        assert kept.scores.min() >= dropped.max()


def test_candidates_by_number_unless_memory_is_named(monkeypatch):
    rows, scores = torch.randn(100, 3), torch.rand(100)
    by_number, by_memory = Candidates(max_items=20), Candidates(40 * 12, max_items=20)
    for kept in (by_number, by_memory):
        kept.add(rows, scores, torch.arange(100))
    assert 15 <= len(by_number) <= 20 and 30 <= len(by_memory) <= 40
    last = Candidates(max_items=20)  # those that count for nothing come last
    last.add(rows[:0], scores[:0], torch.arange(0))
    last.add(
        rows[:15].half(), torch.where(scores[:15] > 0.5, scores[:15], -math.inf), torch.arange(15)
    )
    assert (
        len(last) == 15 and last.best_excluded == -math.inf and last.scores.dtype == torch.float32
    )
    last.add(
        rows[15:].half(),
        torch.where(scores[15:] > 0.5, scores[15:], -math.inf),
        torch.arange(15, 100),
    )
    assert (
        last.scores.min() >= last.best_excluded > 0.5
        and last.best_excluded == scores.sort(descending=True)[0][len(last)]
    )
    learn = learner(cbs=MCDropout(k=6))
    pool = learn.dls.test_dl(range(120), bs=16)
    assert learn.acquire(3, pool, by='batchbald').info['candidates'] == 120
    monkeypatch.setitem(SELECTORS, 'batchbald', replace(SELECTORS['batchbald'], max_items=40))
    assert learn.acquire(30, pool, by='batchbald').info['candidates'] == 120  # 32 a pick
    monkeypatch.setattr('fastai_al.acquire.collector.CANDIDATES_PER_PICK', 4)
    assert len(learn.acquire(30, pool, by='batchbald')) == 30
    assert (
        learn.acquire(3, pool, by='batchbald').info['candidates'] <= 40
        and learn.acquire(3, pool, by='batchbald', memory=2**20).info['candidates'] == 120
    )


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_lazy_greedy_is_greedy(size, n, seed):
    n, g = min(n, size), torch.Generator().manual_seed(seed)
    covers = torch.rand(size, 30, generator=g) < 0.2
    left, greedy = (
        torch.ones(30),
        LazyGreedy(covers.sum(1).float(), lambda i: (covers[i] * left).sum(1), block=3),
    )
    taken = []
    for _ in range(n):
        gains = (covers * left).sum(1).index_fill(0, torch.tensor(taken, dtype=torch.long), -1)
        pick, gain = greedy.next()
        assert pick == int(gains.argmax()) and gain == gains.max()
        taken.append(pick)
        left = left * ~covers[pick]


def test_settings_of_a_selector_by_partial():
    by = functools.partial(SELECTORS['batchbald'], samples=300)
    assert find_selector(by).needs == SELECTORS['batchbald'].needs
    learn = learner(cbs=MCDropout(k=6))
    query = learn.acquire(3, as_pool(learn), by=by)
    assert len(query) == 3 and query.info['acquisition'] == 'batchbald'
