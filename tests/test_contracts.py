"""The contracts of the design, for every strategy, posterior, task and stopping criterion that is
registered"""

import functools
import inspect
import itertools
import math
import pickle
import random

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.basics import Callback, set_seed
from fastai.callback.fp16 import MixedPrecision
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from conftest import (
    as_pool,
    assert_same,
    classes_learner,
    everything,
    features_of,
    pool_learner,
    small_pool,
)
from contracts import (
    CASES,
    CLASS_OF,
    POSTERIORS,
    TASKS,
    assert_same_query,
    items_dl,
    noisy,
    reading_learner,
    rounding_errors,
    why_unsuitable,
)
from fastai_al.acquire.collector import Collector
from fastai_al.acquire.strategies import strategy_of
from fastai_al.acquisition.candidates import Candidates
from fastai_al.acquisition.catalogue import catalogue
from fastai_al.acquisition.registry import ACQUISITION, parameters_of, score, takes_values
from fastai_al.acquisition.selection import SELECTORS, TIE_TOLERANCE, tied_ranks
from fastai_al.acquisition.stochastic import min_gap, stochastic
from fastai_al.active_learner import ActiveLearner
from fastai_al.core.protocols import Criterion as CriterionProtocol
from fastai_al.core.protocols import Posterior as PosteriorProtocol
from fastai_al.core.protocols import Strategy as StrategyProtocol
from fastai_al.core.protocols import Task as TaskProtocol
from fastai_al.inference.passes import pool_pass
from fastai_al.loop.stopping import criteria as registered_criteria
from fastai_al.posterior.base import Point, Posterior
from fastai_al.posterior.base import posteriors as registered_posteriors
from fastai_al.posterior.dropout import MCDropout
from fastai_al.posterior.ensemble import EnsembleBase
from fastai_al.tasks.base import as_task, task_of
from fastai_al.tasks.base import tasks as registered_tasks

posteriors = pytest.mark.parametrize('posterior, make_learner', POSTERIORS.values(), ids=POSTERIORS)
tasks = pytest.mark.parametrize('make_learner', TASKS.values(), ids=TASKS)
strategies = pytest.mark.parametrize('by', sorted(catalogue()))
functions = pytest.mark.parametrize('by', sorted(catalogue().keys() & ACQUISITION.keys()))
criteria = pytest.mark.parametrize(
    'criterion', registered_criteria().values(), ids=registered_criteria()
)


def quiet(learn):
    return learn.no_bar()


def trained(make_learner, **kwargs):
    learn = make_learner(**kwargs)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    return learn


# Everything that is registered is tried


def test_all_that_is_registered_is_in_the_suite():
    assert {*CLASS_OF.values()} == {*registered_posteriors().values()} >= {*CASES}
    assert {*registered_tasks()} <= {*TASKS}
    assert {*ACQUISITION} <= {*catalogue()} >= {*SELECTORS}


@strategies
def test_a_strategy_offers_what_the_protocol_requires(by):
    assert isinstance(strategy_of(by, values=takes_values_alone(by)), StrategyProtocol)
    assert inspect.getdoc(catalogue()[by]), 'a strategy has a docstring'


def takes_values_alone(by: str) -> bool:
    rule = catalogue()[by]
    return takes_values(by) if by in ACQUISITION else 'values' in rule.needs


@posteriors
def test_a_posterior_offers_what_the_protocol_requires(posterior, make_learner):
    learn = trained(make_learner)
    found = posterior(learn)
    assert isinstance(found, PosteriorProtocol)
    assert found.k >= 1 and found.networks >= 1
    assert type(found).__doc__, 'a posterior has a docstring'


@tasks
def test_a_task_offers_what_the_protocol_requires(make_learner):
    learn = make_learner()
    task = task_of(learn)
    assert isinstance(task, TaskProtocol) and task.name
    batch = next(draws for draws in pool_pass(learn, items_dl(learn, range(5), bs=5), Point()))
    assert batch.outputs.ndim >= 3 and not batch.outputs.isnan().any()
    if not task.values:  # log-probabilities over the last axis
        sums = batch.outputs.exp().sum(-1)
        torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-3)


# 1. Same draws for every item


def draws_of(learn, items, posterior, bs):
    with quiet(learn):
        batches = list(pool_pass(learn, items_dl(learn, items, bs=bs), posterior))
    read = [i for batch in batches for i in batch.indices]  # texts come by their length
    return torch.cat([batch.outputs for batch in batches])[np.argsort(read)]


def check_same_draws(learn, posterior):
    items = list(range(20)) + [3, 3, 11]  # some of them again, in other batches
    once = draws_of(learn, items, posterior, 23)
    for bs in (1, 4, 7):
        torch.testing.assert_close(
            draws_of(learn, items, posterior, bs), once, rtol=1e-4, atol=1e-5
        )
    torch.testing.assert_close(
        draws_of(learn, items[::-1], posterior, 4).flip(0), once, rtol=1e-4, atol=1e-5
    )
    for twin, of in ((20, 3), (21, 3), (22, 11)):
        torch.testing.assert_close(once[twin], once[of], rtol=1e-4, atol=1e-5)
    if posterior.k > 1:
        assert once.exp().std(1).max() > 1e-3, 'all draws are alike'


@posteriors
def test_equal_items_have_equal_draws(posterior, make_learner):
    learn = trained(make_learner)
    check_same_draws(learn, posterior(learn))


@pytest.mark.parametrize('side', ['left', 'right'])
@pytest.mark.parametrize(
    'name', [name for name in POSTERIORS if name != 'TTA']
)  # which needs items with random transforms
def test_equal_items_have_equal_draws_however_they_are_padded(name, side):
    learn = trained(reading_learner, side=side, cbs=CLASS_OF[name].contract_cbs())
    check_same_draws(learn, POSTERIORS[name][0](learn))


def last_linear(learn):
    return [m for m in learn.model.modules() if isinstance(m, torch.nn.Linear)][-1]


@pytest.mark.parametrize(
    'noise',
    [lambda: torch.randn(1), lambda: float(np.random.randn()), random.random],
    ids=['torch', 'NumPy', 'Python'],
)
@posteriors
def test_a_forward_that_consumes_random_numbers_is_refused(posterior, make_learner, noise):
    learn = trained(make_learner)
    chosen = posterior(learn)
    last_linear(learn).register_forward_hook(lambda m, args, out: out + noise())
    with pytest.raises(ValueError, match='consumes random numbers'):
        draws_of(learn, range(20), chosen, 8)


@posteriors
def test_a_model_that_depends_on_its_batch_is_refused(posterior, make_learner):
    learn = trained(make_learner)
    chosen = posterior(learn)
    last_linear(learn).register_forward_hook(lambda m, args, out: out - out.mean(0))
    with pytest.raises(ValueError, match='depends on the other items of its batch'):
        draws_of(learn, range(20), chosen, 8)


@tasks
def test_equal_items_have_equal_draws_in_every_task(make_learner):
    check_same_draws(trained(make_learner), MCDropout(k=4))


@posteriors
def test_the_seed_makes_the_draws(posterior, make_learner):
    learn = trained(make_learner)
    one, again, other = [
        draws_of(learn, range(5), p, 5)
        for p in (posterior(learn), posterior(learn), reseeded(posterior(learn)))
    ]
    assert torch.equal(one, again)
    if not isinstance(posterior(learn), (Point, EnsembleBase)):
        assert not torch.allclose(one, other)


def reseeded(posterior):
    posterior.seed += 1
    return posterior


# 2. Nothing is left behind


class Breaks(Callback):
    "Raises in the second batch; counts outside of itself, for its own state is put back"

    def __init__(self, error, event):
        self.error, self.event, self.hits = error, event, itertools.count(1)

    def _hit(self):
        if next(self.hits) == 2:
            raise self.error

    def before_batch(self):
        self.event == 'before_batch' and self._hit()

    def after_pred(self):
        self.event == 'after_pred' and self._hit()


def with_posterior(posterior, make_learner):
    "A trained learner with its posterior among the callbacks, once"
    learn = trained(make_learner)
    if not any(isinstance(cb, Posterior) for cb in learn.cbs):
        learn.add_cb(posterior(learn))
    return learn


@posteriors
def test_nothing_is_left_behind(posterior, make_learner):
    learn = with_posterior(posterior, make_learner)
    dl = learn.dls.test_dl(range(30), bs=8)
    before = everything(learn)
    learn.acquire(3, dl)
    assert_same(everything(learn), before)


@tasks
def test_nothing_is_left_behind_in_every_task(make_learner):
    learn = trained(make_learner, cbs=MCDropout(k=3))
    learn.model.train()
    dl = items_dl(learn, range(20))
    before = everything(learn)
    learn.acquire(3, dl)
    assert_same(everything(learn), before)


@pytest.mark.parametrize('event', ['before_batch', 'after_pred'])
@pytest.mark.parametrize(
    'error', [RuntimeError('broken'), KeyboardInterrupt()], ids=['error', 'interrupt']
)
@posteriors
def test_nothing_is_left_behind_by_a_failure(posterior, make_learner, error, event):
    learn = with_posterior(posterior, make_learner)
    learn.add_cb(Breaks(error, event))
    dl = learn.dls.test_dl(range(30), bs=8)
    learn.model.train()
    before = everything(learn)
    with pytest.raises(type(error)):
        learn.acquire(3, dl)
    assert_same(everything(learn), before)
    learn.remove_cb(Breaks)
    assert len(learn.acquire(3, dl)) == 3


def test_between_batches_the_learner_is_as_it_was():
    learn = trained(classes_learner, cbs=MCDropout(k=3))
    dl = learn.dls.test_dl(range(30), bs=8)
    before = everything(learn)
    draws = pool_pass(learn, dl)
    for i, _ in enumerate(draws):
        assert_same(everything(learn), before)
        if i == 1:
            break
    draws.close()
    assert_same(everything(learn), before)


# 3. Inside training too


class AcquireIn(Callback):
    "Acquires at an event of training"

    def __init__(self, event, dl=None, by='auto'):
        self.event, self.on, self.by, self.queries = event, dl, by, []

    def _go(self):
        if len(self.queries) < 2:
            self.queries.append(self.learn.acquire(3, self.on or as_pool(self.learn), self.by))

    def after_epoch(self):
        self.event == 'after_epoch' and self._go()

    def after_validate(self):
        self.event == 'after_validate' and self._go()

    def after_batch(self):
        self.event == 'after_batch' and self.learn.training and self._go()


@pytest.mark.parametrize('event', ['after_epoch', 'after_validate', 'after_batch'])
@pytest.mark.parametrize('fp16', [False, True], ids=['fp32', 'fp16'])
@tasks
def test_inside_fit(make_learner, event, fp16):
    cb = AcquireIn(event)
    learn = make_learner(cbs=[MCDropout(k=3), cb] + ([MixedPrecision()] if fp16 else []))
    learn.fit(2)
    assert [len(q) for q in cb.queries] == [3, 3]
    assert len(learn.recorder.values) == 2


def test_training_goes_on_as_if_nothing_had_happened():
    def weights(*cbs):
        set_seed(1)
        learn = classes_learner(cbs=[MCDropout(k=3), *cbs])
        with learn.no_logging():
            learn.fit(3, 1e-2)
        return learn.model.state_dict()

    asked, alone = weights(AcquireIn('after_batch')), weights()
    for name in alone:
        assert torch.equal(asked[name], alone[name]), name


@pytest.mark.parametrize('fp16', [False, True], ids=['fp32', 'fp16'])
def test_outside_fit(fp16):
    learn = classes_learner(cbs=MCDropout(k=3))
    if fp16:
        learn.to_fp16()
    assert len(learn.acquire(3, as_pool(learn))) == 3
    with learn.no_bar():
        assert len(learn.acquire(3, as_pool(learn))) == 3


# 5. Reproducible

SLOW = (
    'boxes',
    'positions',
    'texts',
)  # a detector takes a second for a pool of toys: two functions have to do


@pytest.mark.parametrize(
    'name, by',
    [
        (name, by)
        for name in TASKS
        for by in sorted(ACQUISITION)
        if name not in SLOW or by in ('bald', 'local_divergence')
    ],
)
def test_the_query_does_not_depend_on_how_the_pool_is_read_nor_on_rounding(name, by):
    make_learner = TASKS[name]
    learn = trained(make_learner, cbs=MCDropout(k=6))
    items, kwargs = list(range(50)), dict(by=by, seed=1)
    if said := why_unsuitable(make_learner, by):
        with pytest.raises(ValueError, match=said):
            learn.acquire(9, items_dl(learn, items), by=by)
        return
    with quiet(learn):
        first = learn.acquire(50, items_dl(learn, items, bs=64), **kwargs)
        errors = rounding_errors(learn, items, first, **kwargs)
        for order, bs, workers in (
            (items, 7, 0),
            (items[::-1], 16, 0),
            (sorted(items, key=lambda i: hash((i, 5))), 5, 0),
            (items, 16, 2),
        ):
            assert_same_query(
                learn.acquire(50, items_dl(learn, order, bs=bs, num_workers=workers), **kwargs),
                first,
                errors,
            )
        for seed in 9, 10:  # as another processor would round
            assert_same_query(
                learn.acquire(
                    50,
                    items_dl(learn, items, bs=16),
                    task=noisy(as_task(None, learn), seed, 5e-7),
                    **kwargs,
                ),
                first,
                errors,
            )
        assert learn.acquire(9, items_dl(learn, items, bs=64), **kwargs).uids == first.uids[:9]
    assert (np.diff(first.scores) <= TIE_TOLERANCE * np.abs(first.scores[:-1])).all()
    if by not in ('variation_ratio', 'vote_entropy'):  # they take few values
        assert (
            max(errors.values()) < 1e-2 * np.ptp(first.scores) or by == 'random'
        )  # so that most of the order counts


SIZES = 10 ** -np.linspace(0.5, 6, 12)  # of scores, from the largest


def _draws(by: str) -> torch.Tensor:
    "Twelve items whose scores by a function fall with SIZES: log_probs or values [12, 16, ..., C]"
    sizes, around = torch.tensor(SIZES)[:, None, None], torch.randn(1, 16, 3, dtype=torch.double)
    if takes_values(by):
        return 1e6 * sizes * around[..., :2] + 5.0  # variances from 1e12 to 1e-1
    if by == 'margin':
        return (
            torch.cat([0.45 + sizes / 2, 0.45 - sizes / 2, torch.full_like(sizes, 0.1)], 2)
            .flip(0)
            .log()
            .expand(-1, 16, -1)
        )
    if by in ('variation_ratio', 'vote_entropy'):
        return torch.stack(
            [
                torch.where(
                    (torch.arange(16) < v)[:, None],
                    torch.tensor([0.0, 2.0, 0.0]),
                    torch.tensor([2.0, 0.0, 0.0]),
                )
                for v in (8, 7, 6, 5, 4, 3, 2, 1, 0)
            ]
        ).log_softmax(-1)
    if by == 'local_divergence':
        return (
            torch.stack([sizes * around[:, :1], -sizes * around[:, :1]], 2)
            .expand(-1, 16, -1, -1)
            .log_softmax(-1)
        )
    if ACQUISITION[by].min_draws > 1:  # compares draws
        return (
            torch.tensor([1.0, 0.0, -1.0]) + sizes * (around - around.mean(1, keepdim=True))
        ).log_softmax(-1)
    return (
        torch.cat([1 - sizes, 0.6 * sizes, 0.4 * sizes], 2).log().expand(-1, 16, -1)
    )  # sure of the first class


@functions
def test_scores_of_all_sizes_are_ordered_rightly(by):
    draws = _draws(by).float()
    n = len(draws)
    more = (
        dict(
            target_log_probs=(torch.tensor([1.0, 0.0, -1.0]) + torch.randn(5, 16, 3)).log_softmax(
                -1
            )
        )
        if 'target_log_probs' in parameters_of(by)
        else {}
    )
    for order in (torch.arange(n), torch.arange(n).flip(0), torch.randperm(n)):
        collector = Collector(by, n, str, seed=3, values=takes_values(by), **more)
        for places in order.split(5):
            collector.add(places.tolist(), draws[places])
        chosen = collector.choose(n)
        found = order[chosen.indices].tolist()
        if by == 'random':
            assert (np.diff(chosen.gains) <= 0).all()
        else:
            assert found == list(range(n))


OUTLIERS = st.one_of(
    st.floats(-10, 10),
    st.sampled_from([0.0, -0.0, 1.0, 1 + 1e-9, math.inf, -math.inf, 5e-324]),
    st.builds(
        lambda x, e, sign: sign * x * 10.0**e,
        st.floats(1, 10),
        st.integers(-12, 12),
        st.sampled_from([-1, 1]),
    ),
)


def _in_order(scores, order):
    "Is no score behind another that is above it by more than rounding?"
    ordered = np.asarray(scores, dtype=float)[order]
    with np.errstate(invalid='ignore'):
        best_behind = np.maximum.accumulate(ordered[::-1])[::-1]
    return all(a >= b or b - a <= TIE_TOLERANCE * abs(b) for a, b in zip(ordered, best_behind))


@given(st.lists(OUTLIERS, min_size=1, max_size=30), st.integers(0, 10**6))
@settings(max_examples=150, deadline=None)
def test_scores_far_apart_are_ordered_rightly_by_every_path(scores, seed):
    "Through a score, and through each selector that uses scores alone"
    random = np.random.RandomState(seed)
    n, order = len(scores), random.permutation(len(scores))

    def by_place(draws):
        return draws[:, 0, 0]

    def collected(by, which):
        collector = Collector(by, n, str, seed=seed, values=True)
        for places in np.array_split(which, 3):
            if len(places):
                collector.add(
                    places.tolist(),
                    torch.tensor(np.asarray(scores)[places], dtype=torch.double)[
                        :, None, None
                    ].expand(-1, 2, 1),
                )
        chosen = collector.choose(n)
        return collector.dataset_indices[chosen.indices.numpy()].tolist(), chosen

    picks, _ = collected(by_place, order)
    assert sorted(picks) == list(range(n)) and _in_order(scores, picks)
    assert picks == collected(by_place, np.arange(n))[0]  # in whatever order the pool is
    if not np.isfinite(scores).all():
        return  # selectors refuse what is infinite
    picks, _ = collected(min_gap(by_place, 0.5), order)
    assert _in_order(scores, picks)
    picks, chosen = collected(stochastic(by_place, 'softrank'), order)
    ranks = rankdata(tied_ranks(np.asarray(scores)))[picks]
    left = np.cumsum(1 / ranks[::-1])[::-1]
    np.testing.assert_allclose(chosen.columns['probability'], 1 / ranks / left, rtol=1e-9)
    assert _in_order(scores, np.argsort(rankdata(tied_ranks(np.asarray(scores))), kind='stable'))


@given(
    st.one_of(
        st.lists(OUTLIERS, min_size=9, max_size=60),
        st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=30, max_size=60),
    ),
    st.integers(0, 10**6),
)
@settings(max_examples=100, deadline=None)
def test_candidates_are_the_best_whatever_their_size_and_order(scores, seed):
    random, scores = np.random.RandomState(seed), np.asarray(scores)
    kept = []
    for _ in range(3):
        order = torch.from_numpy(random.permutation(len(scores)))
        candidates = Candidates(max_items=8)
        for places in order.split(7):
            candidates.add(
                places[:, None].float(), torch.from_numpy(scores)[places], places, 100 - places
            )
        kept.append((sorted(candidates.indices.tolist()), candidates.best_excluded))
        assert set(candidates.rows[:, 0].tolist()) == set(candidates.indices.tolist())
    best = sorted(range(len(scores)), key=lambda i: (-scores[i], 100 - i))[
        : 6 if len(scores) > 8 else 8
    ]
    assert kept == [(sorted(best), max(scores[i] for i in range(len(scores)) if i not in best))] * 3


@pytest.mark.parametrize('by', sorted(SELECTORS))
def test_a_batch_does_not_depend_on_rounding(by):
    "Noise in draws and in features, larger than that of single precision"
    learn = trained(classes_learner, cbs=MCDropout(k=6))
    frame = pd.DataFrame(torch.stack([features_of(i) for i in range(50)]).numpy())

    def queried(seed, size):
        noise = 1 + size * np.random.RandomState(seed).randn(*frame.shape)
        task = as_task(None, learn)
        return learn.acquire(
            9,
            learn.dls.test_dl(range(50), bs=16),
            by=by,
            seed=1,
            task=noisy(task, seed, size) if size else task,
            features=frame * noise if 'features' in SELECTORS[by].needs else True,
        )

    with quiet(learn):
        first = queried(0, 0.0)
        for seed in range(3):
            assert queried(seed, 1e-6).uids == first.uids


def test_ties_are_broken_by_names_and_seed():
    learn = classes_learner()

    def same(log_probs):
        return torch.zeros(len(log_probs))

    with quiet(learn):
        one = learn.acquire(9, learn.dls.test_dl(range(50)), by=same, seed=1)
        back = learn.acquire(9, learn.dls.test_dl(range(49, -1, -1)), by=same, seed=1)
        other = learn.acquire(9, learn.dls.test_dl(range(50)), by=same, seed=2)
    assert one.uids == back.uids != other.uids


# 6. Recorded, not guessed


@functions
def test_a_query_records_how_it_was_made(by):
    make_learner = next(
        TASKS[name]
        for name in ('classes', 'pixels', 'values')
        if not why_unsuitable(TASKS[name], by)
    )
    learn = trained(make_learner, cbs=MCDropout(k=6, seed=4))
    info = learn.acquire(4, learn.dls.test_dl(range(30)), by=by, seed=7).info
    assert (info['acquisition'], info['k'], info['seed'], info['pool'], info['candidates']) == (
        by,
        6,
        7,
        30,
        30,
    )
    assert 'seed=4' in info['posterior'] and info['seconds'] > 0
    if not why_unsuitable(classes_learner, by):
        assert 0 <= info['information'] <= info['max_information'] == pytest.approx(np.log(6))


# The shape rule


@functions
@pytest.mark.parametrize('sites', [(), (4,), (3, 5)], ids=['no sites', 'labels', 'pixels'])
def test_the_shape_rule(by, sites):
    log_probs = torch.randn(7, 6, *sites, 4).log_softmax(-1)
    if by == 'local_divergence' and not sites:
        return  # it looks at neighbours
    more = dict(keys=torch.arange(7), seed=0, target_log_probs=torch.randn(3, 6, 4).log_softmax(-1))
    scores = score(by, log_probs, **more)
    assert scores.shape == (7, *sites) and scores.isfinite().all()
    if by == 'random':
        return  # a random number looks at no prediction
    order, classes = torch.randperm(6), torch.randperm(4)
    moved = more | dict(target_log_probs=more['target_log_probs'][:, order][..., classes])
    torch.testing.assert_close(
        score(by, log_probs[:, order][..., classes], **moved), scores
    )  # draws have no order, nor have classes
    torch.testing.assert_close(
        score(by, log_probs[3:5], **more), scores[3:5]
    )  # nor does an item look at others
    torch.testing.assert_close(
        score(by, log_probs.double(), **more), scores.double(), rtol=1e-4, atol=1e-5
    )


@functions
def test_bad_draws_are_refused(by):
    f = (
        ACQUISITION[by]
        if 'target_log_probs' not in parameters_of(by)
        else functools.partial(ACQUISITION[by], target_log_probs=torch.full((1, 3, 2), 0.5).log())
    )
    for bad in (torch.zeros(5, 3, 2, dtype=torch.long), [1.0, 2.0], np.zeros((5, 3, 2))):
        with pytest.raises(TypeError, match='floating-point'):
            f(bad)
    for bad in (torch.zeros(5, 3), torch.zeros(5, 0, 3), torch.zeros(5, 3, 0)):
        with pytest.raises(ValueError, match='log_probs|values|draws'):
            f(bad)


# When to stop


def active(**kwargs) -> ActiveLearner:
    pool = small_pool(**kwargs)
    learn = ActiveLearner(pool_learner(pool), pool)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    return learn


def reason_of(criterion, learn):
    with learn.no_bar(), learn.no_logging():
        return criterion(learn)


@criteria
def test_a_criterion_gives_a_reason_in_words_or_none(criterion):
    learn, made = active(), criterion.contract_example()
    assert isinstance(made, criterion) and callable(made)
    assert CriterionProtocol and type(made).__name__ in repr(made)
    reason = reason_of(made, learn)
    assert reason is None or isinstance(reason, str) and len(reason) > 10
    assert reason_of(made, learn) == reason, 'two calls in one round differ'
    assert inspect.getdoc(criterion), 'a criterion has a docstring'


@criteria
def test_a_criterion_changes_neither_the_learner_nor_the_labels(criterion):
    learn, made = active(), criterion.contract_example()
    labelled, events = learn.pool.labelled, len(learn.pool.history)
    with learn.no_bar(), learn.no_logging():
        before = everything(learn.learn)
        made(learn)
        assert_same(everything(learn.learn), before)
    pd.testing.assert_frame_equal(learn.pool.labelled, labelled)
    assert len(learn.pool.history) == events


@criteria
def test_a_criterion_remembers_nothing_outside_the_ledger(criterion):
    "So that a loop can go on in another process"
    learn, made = active(), criterion.contract_example()
    first = reason_of(made, learn)
    again = pickle.loads(pickle.dumps(made))
    assert again == made and repr(again) == repr(made)
    assert reason_of(again, learn) == first


@criteria
def test_criteria_are_joined(criterion):
    learn, made = active(), criterion.contract_example()
    assert reason_of(made | (lambda learn: 'enough'), learn).endswith('enough')
    assert reason_of(made & (lambda learn: None), learn) is None


@criteria
def test_a_criterion_wants_an_active_learner(criterion):
    with pytest.raises(TypeError, match='ActiveLearner'):
        criterion.contract_example()(classes_learner())
