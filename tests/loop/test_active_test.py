"""Evaluation with few labels: unbiased by enumeration and by simulation, the ledger keeps it,
and nothing is changed or looked at that should not be"""

import math
import warnings
from itertools import permutations

import numpy as np
import pytest
import torch
from fastai.basics import (
    DataBlock,
    Learner,
    MultiCategoryBlock,
    RegressionBlock,
    Transform,
    TransformBlock,
)
from fastai.losses import BCEWithLogitsLossFlat, MSELossFlat

import fastai_al.inference.predict  # noqa: F401 (it adds `predict_proba`)
from conftest import (
    XOf,
    assert_same,
    class_of,
    everything,
    features_of,
    mlp,
    pool_learner,
    small_pool,
)
from fastai_al import FastaiALWarning
from fastai_al.active_learner import ActiveLearner
from fastai_al.evaluation.per_item import measure_items
from fastai_al.loop.drawn_tests import drawn_tests
from fastai_al.loop.lure import draw_by_probability, estimate_of_parts, lure, lure_weights
from fastai_al.pool.ledger import Ledger
from fastai_al.pool.pool import Pool
from fastai_al.posterior.base import Point
from fastai_al.posterior.dropout import MCDropout
from fastai_al.triage.picks import Picks, certify_picks


def active(**kwargs) -> ActiveLearner:
    pool = small_pool(**kwargs)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        learn = ActiveLearner(pool_learner(pool), pool)
    learn.remove_cb(learn.progress) if hasattr(learn, 'progress') else None
    return learn


def label(learn, uids):
    learn.pool.label(list(uids), [class_of(u) for u in uids])


def chances(score, floor, left):
    return (1 - floor) * score[left] / score[left].sum() + floor / len(left)


def paths(score, M, floor):
    "Every sequence of picks with its probability and that of each pick"
    for picks in permutations(range(len(score)), M):
        left, q = list(range(len(score))), []
        for i in picks:
            q.append(chances(score, floor, left)[left.index(i)])
            left.remove(i)
        yield list(picks), np.array(q)


@pytest.mark.parametrize('N, M', [(4, 1), (4, 2), (5, 3), (4, 4)])
def test_unbiased_by_enumeration(N, M):
    g = np.random.default_rng(N + M)
    losses, score = g.exponential(size=N), g.random(N)
    total = right = plain = square = spread = 0.0
    for picks, q in paths(score, M, 0.2):
        found = lure(losses[picks], q, N)
        total, right, plain = (
            total + q.prod(),
            right + q.prod() * found.value,
            plain + q.prod() * found.plain_mean,
        )
        square, spread = (
            square + q.prod() * found.value**2,
            spread + q.prod() * np.nan_to_num(found.se) ** 2,
        )
    assert total == pytest.approx(1) and right == pytest.approx(losses.mean(), rel=1e-12)
    if M < N:
        assert abs(plain - losses.mean()) > 0.01 and square - right**2 > 1e-4
    else:
        assert (
            plain == pytest.approx(right)
            and square - right**2 == pytest.approx(0, abs=1e-12)
            and spread == 0
        )


def test_the_terms_are_unbiased_and_sum_to_the_estimate():
    from fastai_al.loop.lure import _unbiased_terms

    losses, score = np.array([3.0, 0.0, 1.0, 8.0, 2.0]), np.array([2.0, 1.0, 3.0, 4.0, 1.0])
    mean = 0.0
    for picks, q in paths(score, 3, 0.1):
        terms, w = _unbiased_terms(losses[picks], q, 5)
        assert w.sum() == pytest.approx(1) and w @ terms == pytest.approx(
            lure_weights(q, 5) @ losses[picks] / 3
        )
        mean = mean + q.prod() * terms
    np.testing.assert_allclose(mean, losses.mean())


def test_weights():
    np.testing.assert_allclose(lure_weights(1 / (50 - np.arange(20)), 50), 1)
    np.testing.assert_allclose(lure_weights([0.9, 0.05, 1.0], 3), 1)
    for seed in range(5):
        q = draw_by_probability(
            np.random.default_rng(seed).random(200) ** 8, 120, uniform_share=0.25, seed=seed
        )[1]
        assert 0 <= lure_weights(q, 200).min() and lure_weights(q, 200).max() <= 4


def test_items_are_drawn_with_the_reported_probabilities():
    score, seen = np.array([5.0, 1.0, 0.0, 2.0]), {}
    want = {tuple(p): q for p, q in paths(score, 2, 0.2)}
    for seed in range(3000):
        picks, q = draw_by_probability(score, 2, uniform_share=0.2, seed=seed)
        np.testing.assert_allclose(q, want[tuple(picks)])
        seen[tuple(picks)] = seen.get(tuple(picks), 0) + 1
    for path, q in want.items():
        p = q.prod()
        assert abs(seen.get(path, 0) - 3000 * p) < 4.5 * math.sqrt(3000 * p * (1 - p))


def test_draws_at_the_edges():
    assert draw_by_probability([3.0], 1)[1].tolist() == [1]
    np.testing.assert_allclose(draw_by_probability([0.0, 0.0, 0.0], 3)[1], [1 / 3, 1 / 2, 1])
    picks, q = draw_by_probability([1e308, 1e308, 1e-308], 3)
    assert sorted(picks) == [0, 1, 2] and np.isfinite(q).all()
    assert (
        draw_by_probability(np.arange(9.0), 5, seed=3)[0]
        == draw_by_probability(np.arange(9.0), 5, seed=3)[0]
    ).all()
    assert len({tuple(draw_by_probability(np.arange(9.0), 5, seed=s)[0]) for s in range(20)}) > 10


@pytest.mark.parametrize(
    'call, says',
    [
        (lambda: draw_by_probability([], 1), 'Add items first'),
        (lambda: draw_by_probability([1.0, np.nan], 1), 'NaN'),
        (lambda: draw_by_probability([1.0, -1.0], 1), 'none below 0'),
        (lambda: draw_by_probability([[1.0]], 1), r'\[1, 1\]'),
        (lambda: draw_by_probability([1.0], 2), 'from 1 to 1'),
        (lambda: draw_by_probability([1.0], True), 'n=True'),
        (lambda: draw_by_probability([1.0], 1, uniform_share=0), 'uniform_share=0'),
        (lambda: draw_by_probability([1.0], 1, uniform_share=1.5), 'uniform_share=1.5'),
        (lambda: lure_weights([], 3), 'M of 1 or more'),
        (lambda: lure_weights([0.0], 3), 'above 0'),
        (lambda: lure_weights([1.2], 3), 'at most 1'),
        (lambda: lure_weights([np.nan], 3), 'above 0'),
        (lambda: lure_weights([0.5, 0.5], 1), '2 or more'),
        (lambda: lure_weights([0.5], 3.0), 'whole number'),
        (lambda: lure([1.0, 2.0], [0.5], 3), 'do not fit 1 probabilities'),
        (lambda: lure([np.inf], [0.5], 3), 'finite'),
        (lambda: lure([np.nan], [0.5], 3), 'All 1 losses'),
        (lambda: lure([1.0], [0.5], 3, confidence=95), 'confidence=95'),
    ],
)
def test_bad_input(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def campaigns(losses, score, M, n, floor=0.1):
    return [
        lure(losses[p], q, len(losses))
        for p, q in (draw_by_probability(score, M, floor, seed) for seed in range(n))
    ]


def test_unbiased_by_simulation_and_better_than_uniform():
    g = np.random.default_rng(0)
    losses = g.exponential(size=150) ** 1.5
    found, even = campaigns(losses, losses, 25, 2000), campaigns(losses, np.ones(150), 25, 800)
    values, plain, uniform = (
        np.array(o)
        for o in ([e.value for e in found], [e.plain_mean for e in found], [e.value for e in even])
    )
    for some in (values, uniform):
        assert abs(some.mean() - losses.mean()) < 3 * some.std() / len(some) ** 0.5
    assert plain.mean() - losses.mean() > 20 * plain.std() / 2000**0.5
    assert values.var() < 0.2 * uniform.var()
    theory = losses.var(ddof=1) * (150 - 25) / (150 * 25)
    assert uniform.var() == pytest.approx(theory, rel=0.2)  # that of a mean of a finite population
    for some, true in ((found, values.var()), (even, uniform.var())):
        assert np.mean([e.se**2 for e in some]) == pytest.approx(true, rel=0.2)
    assert np.mean([e.low <= losses.mean() <= e.high for e in even]) > 0.85
    assert (
        np.median([e.efficiency for e in even]) == pytest.approx(1, rel=0.1)
        and np.median([e.efficiency for e in found]) > 3
    )


def test_scores_that_mislead_leave_it_unbiased():
    g = np.random.default_rng(1)
    losses = g.exponential(size=60)
    values = np.array([e.value for e in campaigns(losses, 1 / (losses + 0.1), 20, 1000, floor=0.2)])
    assert abs(values.mean() - losses.mean()) < 3 * values.std() / 1000**0.5


def test_what_nobody_can_label():
    g = np.random.default_rng(2)
    losses = g.exponential(size=200)
    losses[g.random(200) < 0.3] = np.nan
    score = np.nan_to_num(losses, nan=2.0) + 0.2
    found = campaigns(losses, score, 60, 400)
    values, truth = np.array([e.value for e in found]), np.nanmean(losses)
    assert abs(values.mean() - truth) < 0.03 * truth and all(
        e.unanswered + e.labels == 60 for e in found
    )
    assert np.mean([e.se**2 for e in found]) == pytest.approx(values.var(), rel=0.25)


def test_several_populations_are_weighed_by_their_picks():
    one, two = ([1.0, 3.0], [0.1, 0.2], 20), ([4.0], [0.5], 10)
    arrays = [(np.array(l), np.array(q), n) for l, q, n in (one, two)]
    both = estimate_of_parts(arrays, 0.95)
    assert (
        both.value == pytest.approx((2 * lure(*one).value + lure(*two).value) / 3)
        and both.populations == (20, 10)
        and both.labels == 3
    )
    assert both.se > 0 and both.low < both.value < both.high
    g = np.random.default_rng(4)
    losses = g.exponential(size=80)
    values, ses = [], []
    for seed in range(
        400
    ):  # the second population is what is left of the first, and is drawn from as another one
        p, q = draw_by_probability(losses, 10, seed=seed)
        rest = np.delete(losses, p)
        p2, q2 = draw_by_probability(rest, 20, seed=1000 + seed)
        e = estimate_of_parts([(losses[p], q, 80), (rest[p2], q2, 70)], 0.95)
        values.append(e.value - (losses.mean() / 3 + rest.mean() * 2 / 3))
        ses.append(e.se**2)
    assert abs(np.mean(values)) < 3 * np.std(values) / 400**0.5


def test_intervals_are_open_where_nothing_is_known():
    for e in (lure([0.0, 0.0, 0.0], [0.1, 0.2, 0.1], 20), lure([2.0], [0.1], 20)):
        assert (
            math.isnan(e.se)
            and math.isnan(e.low)
            and math.isnan(e.high)
            and 'interval unknown' in repr(e)
        )
    assert lure([2.0], [1.0], 1).se == 0 and lure([2.0, -1.0], [0.3, 0.3], 9).low < 0
    assert (
        lure([2.0, 0.0, 1.0], [0.3, 0.3, 0.2], 9, confidence=0.5).high
        < lure([2.0, 0.0, 1.0], [0.3, 0.3, 0.2], 9).high
    )


def test_a_test_in_the_pool():
    learn = active()
    pool, before = learn.pool, everything(learn.learn)
    held, trained, population = (
        set(pool.holdout.index),
        set(pool.labelled.index),
        set(pool.unlabelled.index),
    )
    query = learn.active_test(8)
    assert_same(everything(learn.learn), before)
    assert (
        set(pool.test.index) == set(query.uids) <= population
        and len(query) == 8
        and query.predictions == [None] * 8
    )
    assert pool.counts() == dict(
        labelled=20, unlabelled=22, pseudo=0, ignored=0, holdout=10, test=8
    ) and '8 test' in repr(pool)
    assert (
        pool.round == 0
        and pool.test.label.isna().all()
        and all(0 < p <= 1 for p in query.to_df().probability)
    )
    label(learn, query.uids)
    assert (
        set(pool.labelled.index) == trained
        and set(pool.holdout.index) == held
        and learn.grow() == 0
    )
    before = everything(learn.learn)
    found = learn.test_loss()
    assert_same(everything(learn.learn), before)
    belief = learn.learn.predict_proba(learn.dls.test_dl(pool.test.loc[query.uids]))
    losses = -belief.probs[range(8), [class_of(u) for u in query.uids]].log().numpy()
    want = lure(losses, query.columns['probability'], 30)
    assert (
        found.value == pytest.approx(want.value, rel=1e-5)
        and found.se == pytest.approx(want.se, rel=1e-4)
        and found.populations == (30,)
    )
    wrong = learn.test_loss('correct')
    assert wrong.name == 'error' and wrong.plain_mean == np.mean(
        [int(p.argmax()) != class_of(u) for p, u in zip(belief.probs, query.uids)]
    )
    own = learn.test_loss(lambda mean, target: 3 * torch.ones(len(mean)))
    assert own.plain_mean == 3 and learn.test_loss(posterior=Point()).value != found.value
    assert not set(learn.acquire(5, by='entropy').uids) & set(query.uids)


def test_hidden_labels_are_not_looked_at():
    class Never(dict):
        def __missing__(self, key):
            raise AssertionError('a label was asked for')

    learn = active()
    learn.active_test(5)
    with pytest.raises(ValueError, match='none is labelled before'):
        learn.test_loss()
    other = active()
    label(other, other.pool.holdout.index)
    assert list(other.active_test(5).uids) == list(
        learn.pool.test.loc[[e.uid for e in learn.pool.ledger.since() if e.kind == 'test']].index
    )


def test_all_items_drawn_is_the_plain_mean():
    learn = active()
    label(learn, learn.active_test(11).uids)
    label(learn, learn.active_test(19, seed=5).uids)
    found = learn.test_loss()
    assert (
        found.populations == (30,)
        and found.value == pytest.approx(found.plain_mean)
        and found.se == 0
        and len(learn.pool.unlabelled) == 0
    )
    with pytest.raises(ValueError, match='Add items first'):
        learn.active_test(1)


def test_a_second_call_goes_on_or_begins_another_population():
    learn = active()
    first, second = learn.active_test(5), learn.active_test(5, seed=1)
    assert not set(first.uids) & set(second.uids)
    assert [len(d.uids) for d in drawn_tests(learn.pool)] == [10]
    label(learn, [*first.uids, *second.uids])
    whole = learn.test_loss()
    assert whole.populations == (30,)
    asked = learn.acquire(4, by='random')
    label(learn, asked.uids)
    third = learn.active_test(5, seed=2)
    label(learn, third.uids)
    found = learn.test_loss()
    assert found.populations == (30, 16) and found.labels == 15
    last = lure(_losses_of(learn, third.uids), third.columns['probability'], 16)
    assert found.value == pytest.approx((10 * whole.value + 5 * last.value) / 15, rel=1e-5)


def _losses_of(learn, uids):
    probs = learn.learn.predict_proba(learn.dls.test_dl(learn.pool.test.loc[list(uids)])).probs
    return -probs[range(len(uids)), [class_of(u) for u in uids]].log().numpy()


def test_open_picks_end_what_can_be_used():
    learn = active()
    uids = learn.active_test(6).uids
    with pytest.raises(ValueError, match='6 of the 6 test items have no label yet'):
        learn.test_loss()
    label(learn, [uids[0], uids[1], uids[2], uids[4]])
    with pytest.warns(FastaiALWarning, match='2 of the 6 test items'):
        found = learn.test_loss()
    q = np.array([e.score for e in learn.pool.ledger.since() if e.kind == 'test'])
    assert found.labels == 3 and found.value == pytest.approx(
        lure(_losses_of(learn, uids[:3]), q[:3], 30).value, rel=1e-5
    )
    learn.pool.skip(uids[3], annotator='Ada')
    learn.pool.ignore(uids[5], annotator='Ada')
    with pytest.warns(FastaiALWarning, match='2 of 6 test items could not be labelled by anybody'):
        found = learn.test_loss()
    assert (found.labels, found.unanswered) == (4, 2) and learn.pool.counts()['test'] == 5
    learn.pool.retract(uids[0])
    with pytest.raises(ValueError, match='none is labelled before'):
        learn.test_loss()
    label(learn, [uids[0], uids[3], uids[5]])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert learn.test_loss().labels == 6


def agreed(votes):
    return votes[0][1] if len({y for _, y in votes}) == 1 else None


def test_picks_on_which_people_do_not_agree_are_open():
    learn = active(vote=agreed)
    pool, uids = learn.pool, learn.active_test(6).uids
    label(learn, uids)
    whole = learn.test_loss()
    pool.label(uids[3], (class_of(uids[3]) + 1) % 3, annotator='Ada')
    assert pool.test.loc[uids[3], 'label'] is None
    with pytest.warns(
        FastaiALWarning,
        match=f"1 of the 6 test items have no label yet, '{uids[3]}' first. The estimate uses "
        'the 3',
    ):
        found = learn.test_loss()
    assert found.labels == 3 and math.isfinite(found.value)
    with pytest.warns(
        FastaiALWarning,
        match=f"3 of the 6 test items drawn last are not used, because '{uids[3]}' has no label "
        'yet',
    ):
        part = learn.test_holdout()
    assert len(part['holdout'].dataset) == 3
    pool.label(uids[0], (class_of(uids[0]) + 1) % 3, annotator='Ada')
    with pytest.raises(
        ValueError,
        match='2 of the 6 test items have no label yet, and none is labelled before '
        f"'{uids[0]}', the first of them",
    ):
        learn.test_loss()
    with pytest.raises(ValueError, match='Label pool.test in the order'):
        learn.test_holdout()
    pool.retract([uids[0], uids[3]], annotator='Ada')
    assert learn.test_loss() == whole


def test_the_ledger_keeps_it(tmp_path):
    learn = active(db=tmp_path / 'a.db')
    uids = learn.active_test(7).uids
    learn.pool.close()  # killed between pick and label
    pool = Pool.open(tmp_path / 'a.db')
    assert (
        set(pool.test.index) == set(uids)
        and [e.uid for e in pool.ledger.since() if e.kind == 'test'] == uids
    )
    pool.label(uids, [class_of(u) for u in uids])
    here = ActiveLearner(learn.learn, pool)
    value = here.test_loss()
    pool.close()
    again = ActiveLearner(learn.learn, Pool.open(tmp_path / 'a.db'))
    assert (
        again.test_loss() == value
        and again.active_test(3)
        and drawn_tests(again.pool)[0].population == 30
        and len(drawn_tests(again.pool)) == 1
    )
    again.pool.close()


def test_a_write_that_fails_leaves_no_half_test(monkeypatch):
    learn = active()
    monkeypatch.setattr(
        Ledger,
        'append',
        lambda self, events, settings=None: (_ for _ in ()).throw(OSError('disk full')),
    )
    with pytest.raises(OSError):
        learn.active_test(5)
    monkeypatch.undo()
    assert len(learn.pool.test) == 0 and len(learn.pool.unlabelled) == 30


def test_an_older_ledger_learns_of_tests(tmp_path):
    import sqlite3

    from fastai_al.pool import layout

    old = sqlite3.connect(tmp_path / 'old.db', isolation_level=None)
    old.executescript(
        layout.CREATE_TABLES.replace(", 'test'", '').replace(
            f'user_version = {layout.VERSION}', 'user_version = 0'
        )
    )
    old.close()
    learn = active(db=tmp_path / 'old.db')
    assert len(learn.active_test(3)) == 3
    learn.pool.close()


def test_the_order_of_the_pool_and_the_seed():
    learn, other = active(), active()
    other.pool.rows = other.pool.rows[::-1]
    other.pool._frames = {}
    assert (
        other.active_test(6, posterior=Point()).uids == learn.active_test(6, posterior=Point()).uids
    )
    assert active().active_test(6, seed=1, posterior=Point()).uids != learn.pool.test.index.tolist()


def test_the_holdout_stays_uniform():
    learn = active()
    query = learn.active_test(6)
    label(learn, query.uids)
    with pytest.warns(FastaiALWarning, match='after a test set of 6 items'):
        learn.pool.draw_holdout(3, seed=1)
    with pytest.raises(ValueError, match='selected for a test'):
        learn.triage(0.3, holdout=learn.dls.test_dl(learn.pool.test, with_labels=True))
    with pytest.raises(ValueError, match='is test, and only unlabelled'):
        learn.pool.add_pseudo(query.uids[0], 0)
    assert not set(learn.pool.triageable()) & set(query.uids)


def test_items_that_were_trained_on_measure_nothing():
    from fastai_al.pool.loaders import set_training_items
    from fastai_al.pool.rows import item_rows

    learn = active()
    uids = learn.active_test(6).uids
    label(learn, uids)
    import pandas as pd

    set_training_items(
        learn.dls, item_rows(learn.pool, pd.concat([learn.pool.labelled, learn.pool.test]))
    )
    with pytest.raises(ValueError, match='6 of these 6 test items are in the training set'):
        learn.test_loss()


def test_errors():
    learn = active()
    with pytest.raises(ValueError, match='No test items'):
        learn.test_loss()
    with pytest.raises(ValueError, match='from 1 to 30'):
        learn.active_test(31)
    with pytest.raises(ValueError, match='n=0'):
        learn.active_test(0)
    with pytest.raises(ValueError, match="metric='f1'"):
        learn.active_test(3, 'f1')
    with pytest.raises(ValueError, match='uniform_share=0'):
        learn.active_test(3, uniform_share=0)
    assert len(learn.pool.test) == 0
    label(learn, learn.active_test(3).uids)
    with pytest.raises(ValueError, match="metric='f1'"):
        learn.test_loss('f1')
    with pytest.raises(ValueError, match='is NaN or infinite'):
        learn.test_loss(lambda mean, y: torch.full((len(mean),), torch.nan))
    with pytest.raises(ValueError, match='confidence=2'):
        learn.test_loss(confidence=2)


def other_learner(block, loss, truth, out):
    pool = Pool(range(40))
    for uids in (pool.draw_holdout(5), pool.sample(15)):
        pool.label(uids, [truth(u) for u in uids])
    return ActiveLearner(
        Learner(pool.dataloaders(block, bs=8, num_workers=0), mlp(out), loss, cbs=MCDropout(k=8)),
        pool,
    )


def test_lists_of_labels():
    truth = lambda u: [c for c, x in zip('abc', features_of(u)) if x > 0]
    learn = other_learner(
        DataBlock((TransformBlock, MultiCategoryBlock(vocab=['a', 'b', 'c'])), get_x=XOf()),
        BCEWithLogitsLossFlat(),
        truth,
        3,
    )
    with learn.no_bar():
        uids = learn.active_test(8).uids
    learn.pool.label(uids, [truth(u) for u in uids])
    with learn.no_bar():
        assert 0 < learn.test_loss().value < 3 and 0 <= learn.test_loss('correct').plain_mean <= 1


def test_values():
    truth = lambda u: float(features_of(u)[0])
    learn = other_learner(
        DataBlock((TransformBlock, RegressionBlock(n_out=1)), get_x=XOf()), MSELossFlat(), truth, 1
    )
    with pytest.raises(ValueError, match='no variance'):
        learn.active_test(8, posterior=Point())
    with learn.no_bar():
        uids = learn.active_test(8, 'absolute_error').uids
    learn.pool.label(uids, [truth(u) for u in uids])
    with learn.no_bar():
        belief = torch.cat(
            [
                b.values.mean(1)[:, 0].cpu()
                for b in learn.learn.draws(learn.dls.test_dl(learn.pool.test.loc[uids]))
            ]
        )
        assert learn.test_loss('absolute_error').plain_mean == pytest.approx(
            np.mean([abs(p - truth(u)) for p, u in zip(belief.tolist(), uids)]), rel=1e-4
        )


@pytest.mark.parametrize('N, M', [(5, 2), (6, 3), (6, 4)])
def test_the_variance_of_uniform_draws_by_enumeration(N, M):
    losses = np.random.default_rng(N).exponential(size=N)
    found = [lure(losses[p], q, N) for p, q in paths(np.ones(N), M, 0.1)]
    true = losses.var(ddof=1) * (N - M) / (N * M)
    assert np.var([e.value for e in found]) == pytest.approx(true)
    assert np.mean([np.nan_to_num(e.se) ** 2 for e in found]) == pytest.approx(true, rel=0.15)


def test_each_call_has_random_numbers_of_its_own():
    apart = []
    for seed in range(4):
        learn = active()
        places = []
        for metric in ('loss', 'correct'):
            names = sorted(learn.pool.unlabelled.index)
            places.append(
                names.index(
                    learn.active_test(
                        1, metric, uniform_share=1.0, seed=seed, posterior=Point()
                    ).uids[0]
                )
                / len(names)
            )
        apart.append(abs(places[0] - places[1]))
    assert max(apart) > 0.1


# test items as the hold-out of a triage


def test_test_items_hold_the_guarantee_of_a_triage():
    learn = active()
    with pytest.raises(ValueError, match='No test items were drawn'):
        learn.test_holdout()
    query = learn.active_test(14, uniform_share=0.6)
    with pytest.raises(ValueError, match=f"the first, '{query.uids[0]}', has no label"):
        learn.test_holdout()
    label(learn, [u for i, u in enumerate(query.uids) if i not in (3, 12)])
    learn.pool.skip(query.uids[3], annotator='Ada')
    with pytest.warns(FastaiALWarning) as said:
        found = learn.test_holdout()
    assert [str(w.message)[:40] for w in said] == [
        '2 of the 14 test items drawn last are no',
        '1 of the test items could not be labelle',
    ]
    used = [u for i, u in enumerate(query.uids[:12]) if i != 3]
    picked = found['picks']
    assert (
        list(found['holdout'].dataset.items.index) == used
        and picked.known == [i != 3 for i in range(12)]
        and (picked.population, picked.uniform_share) == (30, [0.6] * 12)
        and list(picked.uids) == query.uids[:12]
    )
    assert picked.q.tolist() == query.to_df().probability.tolist()[:12]
    before = everything(learn)
    with pytest.warns(
        FastaiALWarning,
        match='Of the 7 hold-out items below the threshold, an estimated .* more than error=0.7',
    ):
        triage = learn.triage(0.7, delta=0.5, **found)
    assert_same(everything(learn), before)
    held = measure_items(learn.learn, found['holdout'], by='least_confidence')[0]
    assert list(held.index) == used
    expected = certify_picks(held.least_confidence, 1 - held.performance, picked, 0.7, 0.5)
    assert triage.certificates == {'all': expected} and expected.holdout == 11
    said = triage.report()
    assert (
        'drawn with the given probabilities, from 30 items' in said
        and '0.7 of 30 items are 21' in said
        and 'No item is called an outlier' in said
        and triage.frame.outlier.isna().all()
    )
    assert set(triage.frame.index) == set(learn.pool.unlabelled.index)


def without(pool, uid):
    other = Pool([u for u in pool.rows.index if u != uid])
    other.write([e for e in pool.ledger.since() if e.kind != 'add' and e.uid != uid])
    return other


def test_a_guarantee_does_not_cover_what_was_added_later(tmp_path):
    learn = active(db=tmp_path / 'a.db')
    label(learn, learn.active_test(6).uids)
    items = list(learn.pool.rows.index)
    learn.pool.close()
    pool = Pool([*items, '900', '901'], db=tmp_path / 'a.db')
    found = ActiveLearner(learn.learn, pool).test_holdout()
    assert {'900', '901'} < set(pool.unlabelled.index) and set(
        found['dl'].dataset.items.index
    ) == set(pool.unlabelled.index) - {'900', '901'}
    pool.close()


def test_a_guarantee_covers_what_the_test_items_were_drawn_from():
    learn = active()
    label(learn, query := learn.active_test(6, uniform_share=1.0).uids)
    label(learn, more := learn.active_test(4).uids)  # of the same population, with another floor
    taken = list(learn.pool.unlabelled.index)[:5]
    label(learn, taken)
    found = learn.test_holdout()
    assert (
        found['picks'].uniform_share == [1.0] * 6 + [0.5] * 4
        and list(found['holdout'].dataset.items.index) == query + more
    )
    assert (
        set(found['dl'].dataset.items.index) == set(learn.pool.unlabelled.index)
        and len(found['dl'].dataset) == 15
    )
    with pytest.raises(
        ValueError, match='drawn from 30 unlabelled items, but only 29 of this pool were'
    ):
        ActiveLearner(learn.learn, without(learn.pool, '17')).test_holdout()
    label(learn, learn.pool.unlabelled.index)
    with pytest.raises(ValueError, match='Nothing is left to decide of the 30'):
        learn.test_holdout()


def test_what_was_decided_before_the_draw_is_not_decided_by_it():
    learn = active()
    pseudo = list(learn.pool.unlabelled.index)[:10]
    triage = learn.triage(0.9, delta=0.5)
    triage.frame = triage.frame.loc[pseudo].assign(decision='pseudo')
    learn.pool.apply(triage)
    label(learn, learn.active_test(5).uids)
    assert set(learn.test_holdout()['dl'].dataset.items.index) == set(
        learn.pool.unlabelled.index
    ) and not set(pseudo) & set(learn.pool.unlabelled.index)


def test_a_test_item_that_can_not_be_read_counts_as_wrong():
    learn = active()
    label(learn, uids := learn.active_test(6).uids)
    found = learn.test_holdout()
    plain = found['holdout'].dataset.tls[0].tfms.fs[0]

    def read(row):
        if row.name == uids[2]:
            raise OSError('no such file')
        return plain(row)

    found['holdout'].dataset.tls[0].tfms.fs[0] = Transform(read)
    assert learn.triage(0.5, **found, skip=True).certificates['all'].unlabelled == 1


def test_a_triage_knows_how_test_items_were_drawn():
    learn = active()
    uids = learn.active_test(6).uids
    label(learn, uids)
    found = learn.test_holdout()
    assert found['picks'].known == [True] * 6
    for error, match, kwargs in (
        (ValueError, 'test_holdout', dict(holdout=found['holdout'])),
        (ValueError, "guarantee='pool'", found | dict(guarantee='pseudo')),
        (ValueError, 'without per_class', found | dict(per_class=True)),
        (ValueError, 'Pass that DataLoader too', dict(picks=found['picks'])),
        (TypeError, 'picks=list', found | dict(picks=[0.1])),
        (ValueError, 'test_holdout', found | dict(picks=Picks(found['picks'].q, 30, 0.1))),
        (
            ValueError,
            'differ at position 0',
            found
            | dict(holdout=learn.dls.test_dl(learn.pool.test.loc[uids[::-1]], with_labels=True)),
        ),
    ):
        with pytest.raises(error, match=match):
            learn.triage(0.5, **kwargs)


# intervals


def overconfident(N: int = 2000, classes: int = 5, scale: float = 5.0, seed: int = 0):
    """Errors of a model whose logits are `scale` times too large, and the scores by which items
    are drawn"""
    g = np.random.default_rng(seed)
    z = 2 * g.normal(size=(N, classes))
    p, said = (np.exp(s * z) / np.exp(s * z).sum(1, keepdims=True) for s in (1.0, scale))
    y = np.array([g.choice(classes, p=row) for row in p])
    return (said.argmax(1) != y).astype(float), np.sqrt(1 - said.max(1))


@pytest.mark.parametrize('M', [25, 100])
def test_betting_intervals_cover_the_error_of_an_overconfident_model(M):
    errors, scores = overconfident()
    runs, covered, plain, width = 150, 0, 0, 0.0
    for seed in range(runs):
        at, q = draw_by_probability(scores, M, seed=seed)
        found, usual = (
            lure(errors[at], q, len(errors), uniform_share=0.5),
            lure(errors[at], q, len(errors)),
        )
        few, chance = draw_by_probability(scores, M, 0.1, seed)
        before = lure(errors[few], chance, len(errors))
        assert (
            found.betting
            and not usual.betting
            and found.value == usual.value
            and 0 <= found.low <= found.value <= found.high
        )
        covered += found.low <= errors.mean() <= found.high
        plain += before.low <= errors.mean() <= before.high
        width += (found.high - found.low) / runs
    assert covered / runs >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / runs)
    assert (
        plain / runs < 0.93 and width < {25: 0.6, 100: 0.35}[M]
    )  # so there is something to mend, and the remedy still has an effect


@pytest.mark.parametrize(
    'N, M, losses',
    [
        (5, 3, [0, 0, 1, 1, 1]),
        (6, 4, [0, 0, 0, 0, 0, 1]),
        (4, 4, [0.2, 0.9, 0, 1]),
        (5, 2, [1, 1, 1, 1, 1]),
        (5, 3, [0, 0, 0, 0, 0]),
    ],
)
def test_betting_intervals_miss_no_more_often_than_stated_by_enumeration(N, M, losses):
    losses, missed = np.array(losses, dtype=float), 0.0
    for picks, q in paths(np.arange(1.0, N + 1), M, 0.3):
        found = lure(losses[picks], q, N, 0.5, uniform_share=0.3)
        missed += q.prod() * (not found.low - 1e-9 <= losses.mean() <= found.high + 1e-9)
        seen = losses[picks].sum() / N
        assert (
            min(seen, found.value) - 1e-9 <= found.low
            and found.high <= max(seen + (N - M) / N, found.value) + 1e-9
        )  # no more than what is left can be different
    assert missed <= 0.5


def test_a_betting_interval_needs_losses_from_0_to_1_and_a_share_that_was_kept():
    q = np.full(3, 0.1)
    with pytest.raises(ValueError, match='Losses from 0 to 2 have no betting interval'):
        lure([0, 1, 2], q, 10, uniform_share=0.5)
    with pytest.raises(ValueError, match='uniform_share=0.99'):
        lure([0, 1, 1], [0.1, 0.05, 0.2], 10, uniform_share=0.99)
    one = lure([0.0], [0.1], 10, uniform_share=1.0)
    assert math.isnan(one.se) and one.low == 0 < one.high < 1 and 'to' in repr(one)
    exact = lure([0, 1, 0, 0], 1 / np.arange(4, 0, -1), 4, uniform_share=1.0)
    assert exact.low == pytest.approx(0.25) and exact.high == pytest.approx(0.25)
    known, lost = (
        lure([0, 1, 0, 1], [0.1, 1 / 9, 1 / 8, 1 / 7], 10, uniform_share=0.5),
        lure([0, 1, 0, np.nan], [0.1, 1 / 9, 1 / 8, 1 / 7], 10, uniform_share=0.5),
    )
    assert lost.low <= known.low and lost.high == pytest.approx(
        known.high
    )  # what nobody can label may be wrong or right


def test_several_populations_share_the_confidence():
    q, e = 1 / (100 - np.arange(40)), np.tile([0.0, 0, 0, 1], 10)
    one, two = (
        estimate_of_parts([(e, q, 100)], 0.95, uniform_shares=[1.0]),
        estimate_of_parts([(e, q, 100), (e, q, 100)], 0.95, uniform_shares=[1.0, 1.0]),
    )
    wider = estimate_of_parts([(e, q, 100)], 0.975, uniform_shares=[1.0])
    assert two.value == pytest.approx(one.value) and two.low < one.low and two.high > one.high
    assert two.high == pytest.approx(wider.high)


def test_the_kind_of_interval_and_the_sharpness_of_the_model_are_reported():
    learn = active(n=200, labelled=20, held=60)
    with torch.no_grad():
        learn.model[-1].weight.mul_(60)
    query = learn.active_test(30, 'correct', posterior=Point())
    assert query.info['floor'] == 0.5 and query.info['temperature'] > 3
    label(learn, query.uids)
    error, loss = learn.test_loss('correct', posterior=Point()), learn.test_loss(posterior=Point())
    assert error.betting and not loss.betting and error.low < error.value < error.high
    unlabelled = learn.learn.predict_proba(
        learn.dls.test_dl(learn.pool.rows.loc[query.uids]), Point()
    ).probs
    from fastai_al.evaluation.calibrate import tempered

    expected = (
        1 - tempered(unlabelled.clamp(min=1e-38).log(), query.info['temperature']).exp().amax(1)
    ).sqrt()
    np.testing.assert_allclose(query.scores, expected, atol=1e-3)


def test_the_error_through_the_whole_library_is_covered():
    learn, truth = active(n=150, labelled=12, held=0), {str(i): class_of(i) for i in range(150)}
    with torch.no_grad():
        learn.model[-1].weight.mul_(60)
    wrong = (
        learn.learn.predict_proba(learn.dls.test_dl(learn.pool.unlabelled.sort_index()), Point())
        .probs.argmax(1)
        .tolist()
    )
    error = np.mean(
        [w != truth[u] for w, u in zip(wrong, learn.pool.unlabelled.sort_index().index)]
    )
    first, runs, covered = learn.pool.labelled.index, 15, 0
    for seed in range(runs):
        pool = Pool(range(150))
        pool.label(list(first), [truth[u] for u in first])
        again = ActiveLearner(learn.learn, pool)
        again.pool.label(
            uids := again.active_test(25, 'correct', Point(), seed=seed).uids,
            [truth[u] for u in uids],
        )
        found = again.test_loss('correct', Point())
        covered += found.low <= error <= found.high
    assert covered / runs >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / runs)
