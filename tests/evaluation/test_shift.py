"""Does the hold-out represent the items to decide? No false alarms, whatever was acquired; other
kinds of items are noticed; nothing is left behind"""

import functools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.basics import CategoryBlock, DataBlock, Learner, TransformBlock
from fastai.losses import CrossEntropyLossFlat
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from conftest import (
    assert_same,
    class_of,
    everything,
    features_of,
    labels_learner,
    mlp,
    pixels_learner,
    plain_dls,
)
from contracts import values_learner
from fastai_al import FastaiALWarning
from fastai_al.active_learner import ActiveLearner
from fastai_al.evaluation.shift import _statistics, two_sample
from fastai_al.pool.pool import Pool
from fastai_al.posterior.base import Point
from fastai_al.tasks.base import as_task
from fastai_al.triage import representative as module
from fastai_al.triage.representative import (
    ALPHA,
    Shift,
    _groups,
    temporary_weights,
    untrained_weights,
)

# the test


def brute(x, m):
    "The p-value of the squared distance between means, from all ways to choose `m` of the rows"
    from itertools import combinations

    x = x - x.mean(0)
    found = [(x[list(c)].sum(0) ** 2).sum() for c in combinations(range(len(x)), m)]
    return np.mean([f >= found[0] - 1e-12 for f in found])


def test_the_permutation_test_agrees_with_all_permutations():
    for seed in range(3):
        x = np.random.default_rng(seed).normal(size=(9, 2))
        t = _statistics([x - x.mean(0)], 4, 20000, 0)[:, 0]
        assert np.mean(t >= t[0]) == pytest.approx(brute(x, 4), abs=0.02)


@pytest.mark.parametrize('name', ['normal', 'ties', 'heavy', 'small', 'wide'])
def test_the_level_is_kept(name):
    g, runs, rejected, alpha = np.random.default_rng(1), 400, 0, 0.1
    for run in range(runs):
        m, n, d = dict(small=(4, 9, 3), wide=(15, 40, 600)).get(name, (30, 80, 6))
        x = g.normal(size=(m + n, d))
        if name == 'ties':
            x = g.integers(0, 2, (m + n, d))
        if name == 'heavy':
            x = g.standard_cauchy((m + n, d)) ** 3
        said = np.eye(3)[g.integers(0, 3, m + n)]
        rejected += (
            two_sample(x[:m], x[m:], (said[:m], said[m:]), permutations=99, seed=run) <= alpha
        )
        if name == 'wide' and run == 30:
            runs = run + 1
            break
    assert rejected / runs <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / runs)
    if name == 'normal':
        assert rejected / runs > alpha / 3


def test_what_differs_is_found():
    g = np.random.default_rng(0)
    a, b = g.normal(size=(150, 20)), g.normal(size=(400, 20))
    same, class_ = np.zeros((150, 3)) + [1, 0, 0], np.zeros((400, 3)) + [1, 0, 0]
    class_[:100] = [0, 1, 0]
    assert two_sample(a, b) > 0.01
    assert two_sample(a, b + 0.5 * (np.arange(20) < 3)) <= 0.001  # the mean of some
    assert two_sample(a, 1.5 * b) <= 0.001  # only the spread
    assert two_sample(a, b, (same, class_)) <= 0.001  # only what is predicted
    assert two_sample(1e9 * a**3, 1e9 * b**3) == pytest.approx(two_sample(a, b), abs=1e-12)  # ranks


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_p_values_are_p_values(m, n, seed):
    x = np.random.default_rng(seed).normal(size=(m + n, 3)).round()
    p = two_sample(x[:m], x[m:], permutations=49)
    assert 1 / 50 <= p <= 1 and two_sample(x[:m], x[m:], permutations=49) == p


def test_samples_that_can_not_be_compared():
    x = np.ones((5, 2))
    assert two_sample(x, x) == 1
    for first, second in ((x, x[:, :1]), (x, x[:0]), (x[0], x)):
        with pytest.raises(ValueError, match='Pass two matrices'):
            two_sample(first, second)
    with pytest.raises(ValueError, match='1 of 10 rows of Features contain NaN'):
        two_sample(x, np.where(np.arange(10).reshape(5, 2) == 3, np.nan, 1))


# through a pool


def embeddings(n: int, shift=0.0) -> pd.DataFrame:
    rows = np.stack([features_of(i).numpy() for i in range(n)])
    return pd.DataFrame(rows + shift, index=[str(i) for i in range(n)])


def acquired(pool, n, rows):
    "Ask for what lies nearest to a border, and label it"
    if not n:
        return
    left = pool.unlabelled.index
    values = np.sort(rows.loc[left].to_numpy()[:, :3], 1)
    uids = list(left[np.argsort(values[:, -1] - values[:, -2])[:n]])
    pool.record_acquisition(uids)
    pool.label(uids, [class_of(u) for u in uids])


class Reads:
    "A DataLoader of which only the names of its items are wanted"

    def __init__(self, items):
        self.dataset = type('Named', (), dict(items=items))


@pytest.mark.parametrize('n', [0, 150, 320])
def test_acquisition_sets_off_no_alarm(n, monkeypatch):
    """400 items, 60 of them held out; up to all others but 20 are acquired by uncertainty before
    the comparison"""
    monkeypatch.setattr(module, 'two_sample', functools.partial(two_sample, permutations=199))
    rows, runs, p, leftovers = embeddings(400), 50, [], []
    for seed in range(runs):
        pool = Pool(range(400))
        held = pool.draw_holdout(60, seed)
        pool.label(held, [class_of(u) for u in held])
        acquired(pool, n, rows)
        dl, holdout = Reads(pool.unlabelled), Reads(pool.holdout)
        found = module.shift_in_pool(None, dl, holdout, rows, None, pool=pool, first=({}, True))
        p.append(found.comparisons[0][1])
        assert (
            found.features == 'features='
            and '340 others' in found.comparisons[0][0]
            and len(found.comparisons) == 1
        )
        leftovers.append(
            two_sample(rows.loc[held], rows.loc[pool.unlabelled.index], permutations=199)
        )
    for alpha in (0.02, 0.1):
        assert np.mean(np.array(p) <= alpha) <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / runs)
    if n == 320:
        assert np.mean(np.array(leftovers) <= 0.02) > 0.3  # what would have been compared otherwise


STRANGE = 10**6  # items from here on are of another kind


class Mixed:
    "Getter of six numbers, which are spread out and shifted for items of another kind"

    def __call__(self, i):
        return features_of(i) if int(i) < STRANGE else 2 * features_of(i) + 1.5


MIXED = DataBlock((TransformBlock, CategoryBlock(vocab=[0, 1, 2])), get_x=Mixed())


def active(
    items=range(400), held=100, labelled=60, db=':memory:', fit=10, p=0.3, **kwargs
) -> ActiveLearner:
    pool = Pool(items, db=db)
    for uids in (pool.draw_holdout(held), pool.sample(labelled)):
        pool.label(uids, [class_of(u) for u in uids])
    learn = ActiveLearner(
        Learner(
            pool.dataloaders(MIXED, bs=16, num_workers=0),
            mlp(p=p),
            CrossEntropyLossFlat(),
            **kwargs,
        ),
        pool,
    )
    learn.remove_cb(learn.progress)
    with learn.no_logging():
        learn.fit(fit, 1e-2)
    return learn


def other_holdout(learn, n=150, start=10**5):
    "A labelled hold-out of items that are not in the pool"
    items = range(start, start + n)
    rows = pd.DataFrame(
        dict(item=items, label=[class_of(i) for i in items]),
        index=pd.Index(map(str, items), name='uid'),
    )
    return learn.dls.test_dl(rows, with_labels=True)


def mixed(share, n=400):
    return [*range(int(n * (1 - share))), *range(STRANGE, STRANGE + n - int(n * (1 - share)))]


@pytest.mark.parametrize('share', [0.3, 1.0])
def test_a_pool_of_another_kind_is_noticed_and_nothing_is_pseudo_labelled(share):
    learn = active(mixed(share))
    held = other_holdout(learn)
    before = everything(learn.learn)
    with pytest.warns(
        FastaiALWarning,
        match='The 150 hold-out items differ from the other 400 items .* despite_shift=True',
    ):
        found = learn.triage(0.6, holdout=held)
    assert_same(everything(learn.learn), before)
    assert (
        'BROKEN: the 150 hold-out items differ from' in found.report()
        and found.counts()['pseudo'] == 0
        and len(found) == 240
    )
    assert found.frame.why.str.contains(
        'withheld, since the hold-out differs from these items: certain'
    ).any()
    asked = found.frame.decision == 'annotate'
    assert asked[: asked.sum()].all() and (found.frame.score[asked].diff().dropna() <= 0).all()
    with pytest.warns(FastaiALWarning, match='differ from the other'):
        insisted = learn.triage(0.6, holdout=held, despite_shift=True)
    assert insisted.counts()['pseudo'] > 20 and 'BROKEN' in insisted.report()


def test_a_pool_of_the_same_kind_is_not():
    learn = active()
    found = learn.triage(0.6, holdout=other_holdout(learn))
    assert (
        'no significant difference, by features of the model before its training; the other 400 '
        'items: p '
        '= '
        in found.report()
        and found.counts()['pseudo'] > 20
    )
    own = learn.triage(0.6)
    assert (
        'the 300 others that it was drawn from: p = ' in own.report()
        and 'BROKEN' not in own.report()
    )


@pytest.mark.filterwarnings('ignore:Of the .* hold-out items below')  # of a model that knows little
def test_items_that_joined_later_are_compared_by_themselves(tmp_path):
    active(db=tmp_path / 'a.db').pool.close()
    for kind, items in (('same', range(1000, 1080)), ('other', range(STRANGE, STRANGE + 80))):
        (tmp_path / 'b.db').unlink(missing_ok=True)
        active(db=tmp_path / 'b.db').pool.close()
        pool = Pool([*range(400), *items], db=tmp_path / 'b.db')
        learn = ActiveLearner(
            Learner(pool.dataloaders(MIXED, bs=16, num_workers=0), mlp(), CrossEntropyLossFlat()),
            pool,
        )
        learn.remove_cb(learn.progress)
        pool.label(list(map(str, items))[:20], [0] * 20)  # some of them have a label already
        with pytest.warns(FastaiALWarning) as told:
            found = learn.triage(0.6)
        assert 'the 80 that joined the pool later: p = ' in found.report()
        assert any(
            'differ from the 80 that joined the pool later' in str(w.message) for w in told
        ) == (kind == 'other')
        older = learn.triage(
            0.6, learn.dls.test_dl(pool.unlabelled.drop([str(i) for i in items][20:]))
        )
        assert 'BROKEN' not in older.report() and 'joined' not in older.report()
        pool.close()


def test_items_that_are_not_of_the_pool_are_compared_by_themselves():
    learn = active()

    def of(items):
        return learn.dls.test_dl(
            pd.DataFrame(dict(item=items), index=pd.Index(map(str, items), name='uid'))
        )

    assert (
        'the 60 that are not in the pool: p = ' in learn.triage(0.6, of(range(7000, 7060))).report()
    )
    with pytest.warns(FastaiALWarning, match='differ from the 60 that are not in the pool'):
        learn.triage(0.6, of(range(STRANGE, STRANGE + 60)))


@pytest.mark.filterwarnings('ignore:Of the .* hold-out items below')  # of a model that knows little
def test_the_same_comparison_is_made_once_and_has_one_result(tmp_path, monkeypatch):
    learn, calls = active(db=tmp_path / 'a.db'), []
    monkeypatch.setattr(
        module, 'two_sample', lambda *args: calls.append(1) or two_sample(*args, permutations=199)
    )

    def lines(l, **kwargs):
        return [
            a for a in l.triage(0.6, delta=0.3, rounds=8, **kwargs).assumptions if 'represents' in a
        ]

    first = lines(learn)
    learn.acquire(30, by='entropy')
    query = learn.pool.unlabelled.index[:30]
    learn.label(list(query), [class_of(u) for u in query])
    with learn.no_logging():
        learn.fit(1)
    assert lines(learn, seed=5) == first and len(calls) == 1
    learn.pool.close()
    pool = Pool.open(tmp_path / 'a.db')
    torch.manual_seed(7)
    again = ActiveLearner(
        Learner(pool.dataloaders(MIXED, bs=16, num_workers=0), mlp(), CrossEntropyLossFlat()), pool
    )
    again.remove_cb(again.progress)
    assert lines(again) == first and len(calls) == 1
    assert (
        lines(again, features=embeddings(400)) != first and len(calls) == 2
    )  # other features, another comparison, at a smaller level
    levels = [
        module.shift_in_pool(
            again.learn,
            again.dls.test_dl(pool.unlabelled),
            again.dls.valid,
            f,
            as_task(None, again.learn),
            pool=pool,
            first=(again._initial, None),
        ).comparisons[0][2]
        for f in (True, embeddings(400), True)
    ]
    assert levels == [ALPHA / 2, ALPHA / 6, ALPHA / 2] and len(calls) == 2
    pool.close()


def test_what_the_holdout_was_drawn_from():
    pool = Pool(range(12), labels={'0': 1, '1': 1})
    pool.record_acquisition(['2', '3'])
    pool.label(['2'], [0])  # asked for before the draw, and labelled
    with pytest.warns(FastaiALWarning, match='after 1 rounds'):
        held = pool.draw_holdout(3, seed=1)
    rest = {str(i) for i in range(3, 12)} - set(held)
    (
        pool.label([min(rest)], [2]),
        pool.ignore(max(rest)),
        pool.label(held[:2], [0, 1]),
        pool.ignore(held[2]),
    )
    decide = list(pool.unlabelled.index)
    assert _groups(pool, set(held), decide) == [
        ('the 6 others that it was drawn from', [rest])
    ]  # also what was labelled or ignored since
    assert _groups(pool, set(held[:2]), decide) == [
        ('the 7 others that it was drawn from', [rest | {held[2]}])
    ]
    assert _groups(pool, {'90', '91'}, decide) == [
        ('the other 12 items', [{str(i) for i in range(2, 12)}, {str(i) for i in range(12)}])
    ]
    assert _groups(pool, {'90'}, ['80']) == [('the other 1 items', [{'80'}, {'80'}])]
    assert _groups(pool, set(held), ['80']) == [('the 1 that are not in the pool', [{'80'}])]


def test_a_model_that_has_seen_labels_gives_no_features():
    learn = active(fit=40, p=0.0)  # nearly all of its training items are right
    assert 'features of the model before its training' in learn.triage(0.6).report()
    fitted = ActiveLearner(learn.learn, learn.pool)  # the recorder shows it
    assert fitted._trained is True
    loaded = Learner(learn.dls, mlp(p=0.0), CrossEntropyLossFlat())
    loaded.model.load_state_dict(learn.model.state_dict())
    loaded = ActiveLearner(loaded, learn.pool)  # only what it predicts does
    assert loaded._trained is False
    for one in (fitted, loaded):
        weights, by = module._unbiased_weights(
            one.learn, as_task(None, one.learn), one._initial, one._trained
        )
        assert by == 'features of an untrained network' and not torch.equal(
            weights['0.weight'], one._initial['0.weight']
        )
    learn.model.add_module('more', nn.Linear(2, 2))
    assert (
        module._unbiased_weights(learn.learn, as_task(None, learn.learn), learn._initial, False)[1]
        == 'features of an untrained network'
    )


def test_untrained_weights_are_those_of_no_training_and_the_same_each_time():
    model = mlp()
    a = untrained_weights(model)
    with torch.no_grad():
        [p.add_(1) for p in model.parameters()]
    model[1].running_mean.add_(3)
    b = untrained_weights(model)
    assert a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)
    assert (
        a['1.running_mean'].eq(0).all()
        and a['1.weight'].eq(1).all()
        and a['4.bias'].eq(0).all()
        and 0.3 < a['0.weight'].std() < 0.9
    )


@pytest.mark.parametrize('error', [None, ValueError, KeyboardInterrupt])
def test_the_model_has_its_own_tensors_again(error):
    learn = active(fit=1)
    before, data = everything(learn.learn), [p.data_ptr() for p in learn.model.parameters()]
    try:
        with temporary_weights(learn.learn, untrained_weights(learn.model)):
            assert not torch.equal(next(learn.model.parameters()), before['parameters']['0.weight'])
            learn.model[1].num_batches_tracked.add_(1)
            if error:
                raise error('stop')
    except (ValueError, KeyboardInterrupt):
        pass
    assert_same(everything(learn.learn), before)
    assert [p.data_ptr() for p in learn.model.parameters()] == data


@pytest.mark.parametrize('error', [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_behind_when_the_comparison_fails(error, monkeypatch):
    learn = active(fit=1)
    before = everything(learn.learn)

    def fail(*args):
        raise error('stop')

    monkeypatch.setattr(module, '_predictions', fail)
    with pytest.raises(error):
        learn.triage(0.6)
    assert_same(everything(learn.learn), before)
    assert learn.pool.ledger['shift'] is None
    monkeypatch.undo()
    assert 'no significant difference' in learn.triage(0.6).report()


def test_the_graph_of_a_fit_survives():
    learn = active(fit=1)
    x = torch.stack([features_of(i) for i in range(8)]).to(next(learn.model.parameters()).device)
    loss = learn.model(x).square().sum()
    with temporary_weights(learn.learn, learn._initial):
        pass
    loss.backward()  # would fail had the weights been changed in place


# any learner


@pytest.mark.filterwarnings('ignore:Of the .* hold-out items below')  # of a model that knows little
def test_without_a_pool_only_a_frame_of_features_can_be_compared():
    dls = plain_dls(n=200)
    learn = Learner(dls, mlp(), CrossEntropyLossFlat())
    rows = pd.DataFrame(
        np.stack([features_of(i).numpy() for i in range(600)]), index=[str(i) for i in range(600)]
    )
    with learn.no_bar():
        assert (
            "not checked: the model's own features depend on the labels"
            in learn.triage(0.6, dls.test_dl(range(300, 400))).report()
        )
        assert (
            'no significant difference, by features=; the 100 items to decide: p = '
            in learn.triage(0.6, dls.test_dl(range(300, 400)), features=rows).report()
        )
        biased = [i for i in range(200, 600) if rows.loc[str(i), 0] > 0.3]
        with pytest.warns(FastaiALWarning, match='differ from the .* items to decide'):
            found = learn.triage(0.6, dls.test_dl(biased), features=rows)
        assert found.counts()['pseudo'] == 0
        assert (
            'not checked: features= has no row for 100'
            in learn.triage(
                0.6,
                dls.test_dl(range(300, 400)),
                features=rows.drop([str(i) for i in range(100)]),
                outliers=None,
            ).report()
        )


def test_without_a_pool_acquisition_sets_off_no_alarm(monkeypatch):
    """What is left after acquisition differs; together with what was acquired and is trained on
    it does not"""
    monkeypatch.setattr(module, 'two_sample', functools.partial(two_sample, permutations=199))
    rows, runs, p = embeddings(300), 50, []
    for seed in range(runs):
        order = np.random.default_rng(seed).permutation(300)
        held, rest = order[:60], order[60:]
        by_margin = rest[
            np.argsort(np.diff(np.sort(rows.to_numpy()[rest], 1)[:, -2:], axis=1)[:, 0])
        ]
        learn = type(
            'L', (), dict(dls=type('D', (), dict(train_ds=Reads(by_margin[:160].tolist()).dataset)))
        )
        p.append(
            module.shift_by_features(
                learn, Reads(by_margin[160:].tolist()), Reads(held.tolist()), rows, None
            ).comparisons[0][1]
        )
    assert np.mean(np.array(p) <= 0.1) <= 0.1 + 3 * math.sqrt(0.09 / runs)


@pytest.mark.parametrize(
    'make', [labels_learner, pixels_learner, values_learner], ids=lambda f: f.__name__
)
def test_every_task_has_numbers_to_compare(make):
    learn = make()
    with learn.no_bar():
        for batch in module.pool_pass(learn, learn.dls.valid, Point()):
            said = module._predictions(batch, as_task(None, learn))
    assert said.ndim == 2 and len(said) == len(batch.indices) and said.isfinite().all()
    if make is pixels_learner:
        assert torch.allclose(said.sum(1), torch.ones(len(said)).double())


def test_a_holdout_drawn_with_other_probabilities_is_not_compared():
    learn = active()
    query = learn.active_test(60, posterior=Point())
    learn.pool.label(query.uids, [class_of(u) for u in query.uids])
    assert (
        'not checked: its items were drawn with different probabilities'
        in learn.triage(0.5, **learn.test_holdout()).report()
    )


def test_a_shift_in_words():
    quiet, loud = (
        Shift(300, [('the 9 others', 0.4, 0.005)], 'features='),
        Shift(
            300,
            [('the 9 others', 0.4, 0.005), ('the 5 that joined the pool later', 0.0001, 0.001)],
            'features=',
        ),
    )
    assert not quiet.differs and not Shift(unchecked='so').differs and loud.differs
    assert (
        str(loud)
        == 'BROKEN: the 300 hold-out items differ from the 5 that joined the pool later (by '
        'features=; the 9 others: p = 0.4; the 5 that joined the pool later: p = 0.0001), so they '
        'do not represent the items to decide.'
    )
    assert 'not checked: so' in str(Shift(unchecked='so'))
