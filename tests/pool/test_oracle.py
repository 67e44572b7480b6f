"""Who answers in place of a person: how often they are wrong, that it hangs on nothing but seed,
name and uid, and what is recorded"""

import math

import numpy as np
import pandas as pd
import pytest

from conftest import class_of, pool_learner, small_pool
from fastai_al.active_learner import ActiveLearner
from fastai_al.loop.learner import AcquireCallback
from fastai_al.pool.oracle import Oracle
from fastai_al.pool.pool import Pool

N = 2000
UIDS = [str(i) for i in range(N)]
TRUTH = {u: 'abc'[i % 3] for i, u in enumerate(UIDS)}


def near(count: float, n: int, p: float) -> bool:
    return abs(count - n * p) <= 4 * math.sqrt(n * p * (1 - p)) + 1e-9


def wrong(oracle, truth=TRUTH):
    return [u for u, y in zip(truth, oracle(list(truth))) if y != truth[u]]


@pytest.mark.parametrize('noise', [0, 0.1, 0.5, 1.0])
def test_a_share_is_wrong_and_any_other_class_as_likely(noise):
    oracle = Oracle.from_labels(TRUTH, noise)
    off = wrong(oracle)
    assert near(len(off), N, noise)
    said = dict(zip(UIDS, oracle(UIDS)))
    for true in 'abc':
        for other in set('abc') - {true}:
            assert near(
                sum(TRUTH[u] == true and said[u] == other for u in UIDS),
                sum(y == true for y in TRUTH.values()),
                noise / 2,
            )


def test_more_noise_adds_mistakes_and_other_seeds_and_names_make_others():
    some, more = (set(wrong(Oracle.from_labels(TRUTH, noise))) for noise in (0.1, 0.3))
    assert some < more
    for other in (
        Oracle.from_labels(TRUTH, 0.1, seed=1),
        Oracle.from_labels(TRUTH, 0.1, annotators='Ada'),
    ):
        assert near(len(some & set(wrong(other))), N, 0.01)


@pytest.mark.parametrize(
    'table',
    [
        {'a': {'a': 0.5, 'b': 0.5}, 'b': {'b': 0.9, 'c': 0.1}, 'c': {'c': 1.0}},
        pd.DataFrame(
            [[0.5, 0.5, 0], [0, 0.9, 0.1], [0, 0, 1]], index=list('abc'), columns=list('abc')
        ),
    ],
)
def test_a_table_of_confusions(table):
    said = dict(zip(UIDS, Oracle.from_labels(TRUTH, table)(UIDS)))
    counts = pd.crosstab(pd.Series(TRUTH), pd.Series(said))
    for (true, other), p in {
        ('a', 'b'): 0.5,
        ('a', 'c'): 0,
        ('b', 'a'): 0,
        ('b', 'c'): 0.1,
        ('c', 'a'): 0,
        ('c', 'b'): 0,
    }.items():
        assert near(counts.loc[true, other], counts.loc[true].sum(), p)


def test_no_answer_for_a_share_and_the_other_answers_stay():
    plain, shy = (
        Oracle.from_labels(TRUTH, 0.2)(UIDS),
        Oracle.from_labels(TRUTH, 0.2, abstain=0.25)(UIDS),
    )
    assert near(shy.count(None), N, 0.25) and all(b in (a, None) for a, b in zip(plain, shy))
    assert near(
        sum(a != TRUTH[u] and b is None for a, b, u in zip(plain, shy, UIDS)), N, 0.05
    )  # mistakes and gaps have nothing to do with each other


def test_answers_hang_on_seed_name_and_uid_alone():
    oracle = Oracle.from_labels(TRUTH, 0.4, 0.2, annotators=['Ada', 'Bo'])
    said = oracle(UIDS)
    assert (
        oracle(UIDS[::-1])[::-1] == said
        and oracle(UIDS[7:9]) == said[7:9]
        and oracle(['7', '7']) == [said[7]] * 2
    )
    fewer = Oracle.from_labels({u: TRUTH[u] for u in UIDS[::-2]}, 0.4, 0.2, annotators=['Bo'])
    assert all(fewer.answer_of('Bo', u) == oracle.answer_of('Bo', u) for u in UIDS[1::2])
    assert (
        len(
            {
                Oracle.from_labels({'x': 'a', 'y': 'b', 'z': 'c'}, 0.5, seed=s)(['x'])[0]
                for s in range(30)
            }
        )
        == 3
    )


def test_skills_and_the_majority():
    oracle = Oracle.from_labels(
        TRUTH, noise=0.3, annotators={'good': 0.95, 'bad': 0.4, 'usual': None}
    )
    for name, p in dict(good=0.05, bad=0.6, usual=0.3).items():
        assert near(sum(oracle.answer_of(name, u) != TRUTH[u] for u in UIDS), N, p)
    crowd = Oracle.from_labels({u: i % 2 for i, u in enumerate(UIDS)}, noise=0.2, annotators=3)
    assert near(len(wrong(crowd, crowd.truth)), N, 3 * 0.04 * 0.8 + 0.008) and list(
        crowd.noise
    ) == ['oracle 1', 'oracle 2', 'oracle 3']


def test_lists_of_labels_flip_one_by_one():
    truth = {u: [c for c in 'abc' if (i >> 'abc'.index(c)) & 1] for i, u in enumerate(UIDS)}
    oracle = Oracle.from_labels(truth, 0.2)
    said = oracle(UIDS)
    flips = np.array([[(c in y) != (c in truth[u]) for c in 'abc'] for u, y in zip(UIDS, said)])
    assert (
        all(near(n, N, 0.2) for n in flips.sum(0))
        and near((flips[:, 0] & flips[:, 1]).sum(), N, 0.04)
        and all(y == sorted(set(y)) for y in said)
    )
    assert Oracle.from_labels({'x': ['b', 'a']})(['x']) == [['b', 'a']] and Oracle.from_labels(
        {'x': ['b', 'a']}, 1.0, classes=['a', 'b', 'c']
    )(['x']) == [['c']]


def test_numbers_are_off_by_something_normal():
    truth = {u: float(i) for i, u in enumerate(UIDS)}
    off = np.array(Oracle.from_labels(truth, 3.0)(UIDS)) - np.arange(N)
    assert (
        abs(off.mean()) < 4 * 3 / N**0.5
        and abs(off.std() - 3) < 0.2
        and near((np.abs(off) < 3).sum(), N, 0.6827)
    )
    three = np.array(Oracle.from_labels(truth, 3.0, annotators=3)(UIDS)) - np.arange(N)
    assert abs(three.std() - 3**0.5) < 0.12 and Oracle.from_labels(truth)(['5']) == [5.0]


def test_the_truth_may_be_a_pool_a_series_or_keyed_by_numbers():
    pool = Pool(range(4))
    pool.draw_holdout(1)
    pool.label(range(4), ['a', 'b', 'a', 'b'], annotator='Di')
    pool.label('3', 'a', annotator='Ada')
    pool.label('3', 'a', annotator='Bo')
    for truth in (pool, pd.Series(['a', 'b', 'a', 'a']), {0: 'a', 1: 'b', 2: 'a', 3: 'a'}):
        assert Oracle.from_labels(truth)(['3', '1']) == ['a', 'b']
    numbers = Oracle.from_labels(pd.Series([3, 4]))(['0'])
    assert numbers == [3] and type(numbers[0]) is int
    with pytest.raises(ValueError, match="1 of 5 items have no true label: '4'"):
        Oracle.from_labels(Pool(range(5), ['a', 'b', 'a', 'b', None]))


@pytest.mark.parametrize(
    'labels, kwargs, message',
    [
        ({}, {}, 'empty'),
        ({'x': None}, {}, 'no true label'),
        ({'x': 'a', 'y': 'b'}, dict(noise=1.1), 'noise=1.1'),
        ({'x': 'a', 'y': 'b'}, dict(noise=-0.1), 'noise=-0.1'),
        ({'x': 'a', 'y': 'b'}, dict(noise=math.nan), 'noise=nan'),
        ({'x': 'a', 'y': 'b'}, dict(abstain=2), 'abstain=2'),
        ({'x': 'a', 'y': 'b'}, dict(abstain=True), 'abstain=True'),
        ({'x': 'a', 'y': 'b'}, dict(annotators=0), 'annotators=0'),
        ({'x': 'a', 'y': 'b'}, dict(annotators=['A', 'A']), 'distinct names'),
        ({'x': 'a', 'y': 'b'}, dict(annotators=[]), 'distinct names'),
        ({'x': 'a', 'y': 'b'}, dict(annotators={'A': 1.5}), 'skill of A=1.5'),
        ({'x': 'a', 'y': 'b'}, dict(annotators={'A': 0.5}, noise=0.1), 'Leave it out'),
        ({'x': 1.5}, dict(annotators={'A': 0.5}), 'the probability of a correct class, but'),
        ({'x': 'a'}, dict(noise=0.1), 'only class'),
        ({'x': 'a', 'y': 'b'}, dict(noise={'a': {'a': 1.0}}), "no row for the class 'b'"),
        ({'x': 'a'}, dict(noise={'a': {'a': 0.5, 'b': 0.4}}), 'sum to 0.9'),
        ({'x': 'a'}, dict(noise={'a': {'a': 1.5, 'b': -0.5}}), 'sum to 1'),
        ({'x': 1.5}, dict(noise=-1), 'standard deviation'),
        ({'x': 1.5}, dict(noise=math.inf), 'standard deviation'),
        ({'x': ['a']}, dict(noise={'a': {'a': 1.0}}), 'not single classes'),
        ({'x': {'boxes': [], 'labels': []}}, dict(noise=0.1), 'no noise model'),
        ({'x': 'a'}, dict(classes=['b']), "'a' is a label in the truth"),
        ({'x': 'a'}, dict(cost=-1), 'cost'),
        ({'x': 'a'}, dict(cost={'y': 1}), 'cost'),
        ({'x': 'a', 0: 'a', '0': 'b'}, {}, 'more than once'),
    ],
)
def test_bad_settings(labels, kwargs, message):
    with pytest.raises(ValueError, match=message):
        Oracle.from_labels(labels, **kwargs)


def test_what_is_not_known_is_named():
    oracle = Oracle.from_labels(TRUTH)
    with pytest.raises(KeyError, match="no label of 'nobody'"):
        oracle(['1', 'nobody'])
    with pytest.raises(KeyError, match='no annotator'):
        oracle.answer_of('Ada', '1')
    with pytest.raises(TypeError, match='list'):
        Oracle.from_labels(['a'])


def test_each_annotator_is_written_down_once():
    pool = Pool(range(30))
    oracle = Oracle.from_labels(
        TRUTH, 0.3, 0.3, annotators=['Ada', 'Bo'], cost={u: 1.0 + int(u) for u in UIDS}
    )
    uids = ['4', '2', '9', '17', '5', '11']
    assert (
        oracle.answer(pool, uids[:3]) == sum(y is not None for y in oracle(uids[:3]))
        and pool.label('5', 'c', annotator='Ada') is None
    )
    n = oracle.answer(pool, uids)
    events = [e for e in pool.ledger.since() if e.kind in ('label', 'skip')]
    own = [e for e in events if (e.uid, e.source) != ('5', 'Ada')]
    assert len(events) == 12 and {(e.uid, e.source): e.label for e in own} == {
        (u, b): oracle.answer_of(b, u)
        for u in uids
        for b in ('Ada', 'Bo')
        if (u, b) != ('5', 'Ada')
    }
    assert all(
        (e.kind == 'skip') == (e.label is None) and e.seconds == 1 + int(e.uid) for e in own
    ) and {e.kind for e in own} == {'label', 'skip'}
    assert n == sum(any(e.kind == 'label' for e in pool._states[u].answers.values()) for u in uids)
    before = len(pool.history)
    assert oracle.answer(pool, uids) == n and len(pool.history) == before
    assert (
        oracle.spent(pool) == sum(e.seconds for e in own) == 2 * sum(1 + int(u) for u in uids) - 6
    )


def test_nothing_is_written_where_anything_is_wrong():
    pool = Pool(range(30), {'0': 'a'})
    pool.set_vocab(['a', 'b'])
    before = len(pool.history)
    with pytest.raises(ValueError, match='vocabulary'):
        Oracle.from_labels(TRUTH, annotators=2).answer(pool, ['1', '2'])
    with pytest.raises(KeyError, match='no label of'):
        Oracle.from_labels({'1': 'a'}).answer(pool, ['1', '2'])
    with pytest.raises(KeyError, match='pool knows no'):
        Oracle.from_labels(TRUTH).answer(pool, ['1', '31'])
    with pytest.raises(ValueError, match='cost'):
        Oracle.from_labels(TRUTH, cost=lambda u: -1.0).answer(pool, ['1'])
    assert len(pool.history) == before and Oracle.from_labels(TRUTH).answer(pool, []) == 0


def test_a_cost_may_be_a_function_and_nothing_costs_nothing():
    pool = Pool(range(3))
    Oracle.from_labels(TRUTH, cost=lambda u: 2 * int(u), annotators='Ada').answer(pool, ['1', '2'])
    Oracle.from_labels(TRUTH, annotators='Bo').answer(pool, ['1'])
    assert [s for s in pool.history.query("source == 'Ada'").seconds] == [
        2,
        4,
    ] and pool.history.query("source == 'Bo'").seconds.isna().all()


def test_a_learner_queries_every_annotator():
    pool = small_pool()
    learn = ActiveLearner(pool_learner(pool), pool)
    oracle = Oracle.from_labels(
        {str(i): class_of(i) for i in range(60)}, annotators=3, noise=0.2, classes=[0, 1, 2]
    )
    with learn.no_bar(), learn.no_logging():
        query = learn.acquire(5)
        assert learn.label(query, oracle) == 5 and len(learn.dls.train_ds) == 25
        assert set(pool.labelled.loc[query.uids, 'source']) == {
            'oracle 1, oracle 2, oracle 3'
        } and pool.labelled.loc[query.uids, 'label'].tolist() == oracle(query.uids)
        with pytest.raises(ValueError, match='leave out annotator, note'):
            learn.label(learn.acquire(2), oracle, annotator='me', note='x')
        learn.fit(2, cbs=AcquireCallback(4, pool=pool, oracle=oracle, by='entropy'))
    assert (
        len(learn.dls.train_ds) == 29
        and (pool.history['source'] == 'oracle 3').sum() == 9
        and pool.agreement().items == 9
    )
