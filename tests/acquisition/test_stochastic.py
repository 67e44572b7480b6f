"Stochastic batches against exact probabilities, and least distances against a naive loop"

import functools
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, rankdata

from fastai_al.acquisition.scores import entropy
from fastai_al.acquisition.selection import SELECTORS, find_selector
from fastai_al.acquisition.stochastic import (
    min_gap,
    power_bald,
    softmax_bald,
    softrank_bald,
    stochastic,
)

KINDS = ['power', 'softmax', 'softrank']
SCORES = torch.tensor([0.5, 2.0, 1.0, 1.0, 0.1])


def weights(scores, kind, beta):
    "What chances are proportional to, written another way"
    scores = np.asarray(scores, dtype=float)
    return dict(
        power=lambda: scores**beta,
        softmax=lambda: np.exp(beta * scores),
        softrank=lambda: rankdata(-scores) ** -beta,
    )[kind]()


def chance_of(order, w):
    "The probability of each pick of an order among those that were left"
    left, q = np.ones(len(w), bool), []
    for i in order:
        q.append(w[i] / w[left].sum())
        left[i] = False
    return np.array(q)


# ---- the draw


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('beta', [0.5, 1, 3])
def test_first_and_second_picks_come_as_often_as_they_should(kind, beta):
    strategy, times = stochastic('entropy', kind, beta), 700
    expected = {
        pair: chance_of(pair, weights(SCORES, kind, beta)).prod()
        for pair in itertools.permutations(range(5), 2)
    }
    assert sum(expected.values()) == pytest.approx(1)
    seen = dict.fromkeys(expected, 0)
    for seed in range(times):
        seen[tuple(strategy(SCORES, 2, seed=seed).indices.tolist())] += 1
    p, counts = np.array(list(expected.values())), np.array(list(seen.values()))
    likely = p * times >= 5
    p, counts = (
        np.append(p[likely], p[~likely].sum() + 1e-12),
        np.append(counts[likely], counts[~likely].sum()),
    )
    expected_counts = (times + 1e-12 * len(p)) * p / p.sum()
    assert chisquare(counts + 1e-12, expected_counts).pvalue > 1e-3


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@given(st.integers(1, 40), st.floats(0.1, 8), st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_the_probability_of_each_pick(kind, dtype, n, beta, seed):
    scores = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=dtype) + 0.01
    chosen = stochastic('entropy', kind, beta)(scores, n, seed=seed)
    assert sorted(chosen.indices.tolist()) == list(range(n))
    np.testing.assert_allclose(
        chosen.columns['probability'],
        chance_of(chosen.indices.tolist(), weights(scores, kind, beta)),
        rtol=1e-9,
    )
    assert chosen.columns['probability'][-1] == 1 and chosen.info == dict(beta=beta)
    assert torch.equal(chosen.gains, scores.double()[chosen.indices])


@pytest.mark.parametrize('kind', KINDS)
def test_a_longer_batch_starts_as_a_shorter_one(kind):
    scores = torch.rand(60)
    all_, some = (
        stochastic('entropy', kind)(scores, 60, seed=3),
        stochastic('entropy', kind)(scores, 9, seed=3),
    )
    assert torch.equal(all_.indices[:9], some.indices)
    torch.testing.assert_close(all_.columns['probability'][:9], some.columns['probability'])


@pytest.mark.parametrize('size, m', [(4, 2), (4, 3), (5, 2), (3, 3)])
@pytest.mark.parametrize('kind', KINDS)
def test_the_probabilities_make_an_unbiased_loss(size, m, kind):
    """Over every order that can come up, with the chance that it reports for itself: total 1,
    and the mean estimate is the mean loss"""
    scores, losses = torch.tensor([2.0, 0.5, 1, 1, 0.3])[:size], np.array([4.0, 1, 0, 7, 2])[:size]
    strategy, seen, seed = stochastic('entropy', kind), {}, 0
    while len(seen) < len(list(itertools.permutations(range(size), m))):
        chosen = strategy(scores, m, seed=seed)
        seen[tuple(chosen.indices.tolist())] = chosen.columns['probability'].numpy()
        seed += 1
        assert seed < 5000
    k = np.arange(1, m + 1)

    def lure(order, q):
        v = (
            np.ones(m)
            if m == size
            else 1 + (size - m) / (size - k) * (1 / ((size - k + 1) * q) - 1)
        )
        return (v * losses[list(order)]).mean()

    assert sum(q.prod() for q in seen.values()) == pytest.approx(1)
    assert sum(q.prod() * lure(order, q) for order, q in seen.items()) == pytest.approx(
        losses.mean()
    )


def test_zero_scores_come_last_and_evenly_under_power():
    scores, firsts, times = torch.tensor([0.0, 1, 0, 2, 0]), np.zeros(5), 900
    for seed in range(times):
        chosen = power_bald(scores, 5, seed=seed)
        assert set(chosen.indices[:2].tolist()) == {1, 3}
        first = chosen.indices[0].item()
        torch.testing.assert_close(
            chosen.columns['probability'],
            torch.tensor([scores[first].item() / 3, 1, 1 / 3, 1 / 2, 1], dtype=torch.double),
        )
        firsts[chosen.indices[2]] += 1
    assert chisquare(firsts[[0, 2, 4]]).pvalue > 1e-3
    assert len(set(power_bald(torch.zeros(9), 4).indices.tolist())) == 4
    np.testing.assert_allclose(
        power_bald(torch.zeros(9), 3).columns['probability'], [1 / 9, 1 / 8, 1 / 7]
    )


def test_copies_have_equal_chances():
    scores = torch.tensor([1.0, 5, 5, 5, 0])
    for strategy in (power_bald, softmax_bald, softrank_bald):
        first = {
            (chosen := strategy(scores, 1, seed=seed)).indices.item(): chosen.columns[
                'probability'
            ].item()
            for seed in range(300)
        }
        assert first[1] == pytest.approx(first[2]) == pytest.approx(first[3])
    assert first[1] == pytest.approx((1 / 2) / (3 / 2 + 1 / 4 + 1 / 5))  # ranks 2, 2, 2, 4, 5
    rounded = scores * (1 + 3e-7 * torch.rand(5))
    assert (
        softrank_bald(rounded, 5, seed=1).columns['probability'].tolist()
        == softrank_bald(scores, 5, seed=1).columns['probability'].tolist()
    )


@pytest.mark.parametrize(
    'scores',
    [torch.tensor([1e4, 0.0, -1e4, 5]), torch.tensor([1e-30, 1e-38, 1e30, 1]), torch.tensor([7.0])],
)
def test_extreme_scores_give_no_nan(scores):
    for kind in KINDS:
        if kind == 'power' and scores.min() < 0:
            continue
        for beta in (0.01, 50):
            chosen = stochastic('bald', kind, beta)(scores, len(scores))
            q = chosen.columns['probability']
            assert (
                sorted(chosen.indices.tolist()) == list(range(len(scores)))
                and (q >= 0).all()
                and (q <= 1).all()
                and q[-1] == 1
            )


def test_a_sharp_strategy_takes_the_top():
    scores = torch.rand(50)
    for kind in KINDS:
        assert (
            stochastic('bald', kind, 1e6)(scores, 10).indices.tolist()
            == scores.topk(10).indices.tolist()
        )


def test_power_refuses_negative_scores_and_forgives_rounding():
    with pytest.raises(
        ValueError, match="2 of 3 are negative, down to -0.5.*kind='softmax' or kind='softrank'"
    ):
        power_bald(torch.tensor([-0.5, 1, -0.1]), 1)
    assert power_bald(torch.tensor([-1e-8, 1]), 2).indices.tolist() == [1, 0]
    for kind in ('softmax', 'softrank'):
        assert len(stochastic('margin', kind)(-torch.rand(20), 5)) == 5


def test_errors_name_the_remedy():
    with pytest.raises(ValueError, match='power, softmax, softrank'):
        stochastic('bald', 'gibbs')
    with pytest.raises(ValueError, match='no acquisition function'):
        stochastic('nonsense')
    for beta in (0, -1, float('inf'), float('nan')):
        with pytest.raises(ValueError, match='positive and finite'):
            stochastic('bald', beta=beta)
    with pytest.raises(ValueError, match='NaN'):
        power_bald(torch.tensor([1.0, torch.nan]), 1)
    with pytest.raises(ValueError, match='1 to 3'):
        power_bald(torch.ones(3), 4)


# ---- selectors that are made


def test_what_is_made_is_a_selector_and_does_not_take_a_name():
    before = dict(SELECTORS)
    sharp, new = stochastic('bald', beta=9), stochastic(entropy, 'softrank')
    assert (
        SELECTORS == before
        and SELECTORS['power_bald'] is power_bald
        and sharp.__name__ == 'power_bald'
        and new.__name__ == 'softrank_entropy'
    )
    made = sharp.needs, sharp.score, sharp.min_draws, sharp.max_items
    assert made == (('scores',), 'bald', 2, None)
    assert (new.score, new.min_draws) == (entropy, 1) and stochastic(
        lambda log_probs: 0
    ).score is not None
    assert find_selector(sharp) is sharp and find_selector(functools.partial(sharp)).needs == (
        'scores',
    )
    for name, strategy in (
        ('power_bald', power_bald),
        ('softmax_bald', softmax_bald),
        ('softrank_bald', softrank_bald),
    ):
        assert find_selector(name) is strategy


def test_seeds():
    scores = torch.rand(100)
    assert torch.equal(
        power_bald(scores, 10, seed=1).indices, power_bald(scores, 10, seed=1).indices
    )
    assert len({tuple(power_bald(scores, 10, seed=s).indices.tolist()) for s in range(6)}) == 6


# ---- a least distance


def naive_min_gap(scores, positions, n, gap):
    chosen, kept = [], []
    while len(chosen) < n:
        free = [
            i
            for i in range(len(scores))
            if i not in chosen and all(abs(positions[i] - positions[j]) >= gap for j in chosen)
        ]
        if free:
            chosen.append(max(free, key=lambda i: (scores[i], -i)))
            kept.append(gap)
        else:
            gap = gap / 2 if gap > 1e-9 else 0.0
    return chosen, kept


@given(
    st.integers(1, 30),
    st.integers(1, 60),
    st.sampled_from([0.5, 1, 3, 10, 25]),
    st.integers(0, 10**6),
)
@settings(max_examples=120, deadline=None)
def test_least_distance_against_a_naive_loop(size, spread, gap, seed):
    g = torch.Generator().manual_seed(seed)
    positions = torch.randint(
        spread, (size,), generator=g
    )  # in any order, some of them more than once
    scores = torch.randint(6, (size,), generator=g).double() - 3  # ties
    for n in {1, (size + 1) // 2, size}:
        chosen, kept = naive_min_gap(scores.tolist(), positions.tolist(), n, float(gap))
        selection = min_gap(gap=gap)(scores, positions, n)
        assert selection.indices.tolist() == chosen
        assert selection.columns['gap'].tolist() == kept and selection.info == dict(gap=kept[-1])
        assert torch.equal(selection.gains, scores[selection.indices])


@pytest.mark.parametrize('dtype', [torch.uint8, torch.int64, torch.float32])
def test_positions_of_any_type(dtype):
    assert min_gap(gap=4)(torch.arange(20.0), torch.arange(20).to(dtype), 4).indices.tolist() == [
        19,
        15,
        11,
        7,
    ]


def test_large_positions_keep_their_distance():
    positions = 2**40 + torch.arange(20)
    assert min_gap(gap=4)(torch.arange(20.0), positions, 3).indices.tolist() == [19, 15, 11]


def test_the_gap_of_frames_at_one_place_ends_at_0():
    selection = min_gap()(torch.arange(6.0), torch.zeros(6), 3)
    assert (
        selection.indices.tolist() == [5, 4, 3]
        and selection.columns['gap'].tolist() == [10, 0, 0]
        and selection.info == dict(gap=0)
    )


def test_min_gap_is_a_selector():
    before = dict(SELECTORS)
    made = min_gap('bald', 3)
    assert (made.needs, made.score, made.min_draws, made.__name__) == (
        ('scores', 'positions', 'labelled_positions'),
        'bald',
        2,
        'min_gap_bald',
    )
    assert SELECTORS == before and find_selector('min_gap').__name__ == 'min_gap_entropy'
    for gap in (0, -3, float('nan'), float('inf')):
        with pytest.raises(ValueError, match='positive number of places'):
            min_gap(gap=gap)
    with pytest.raises(ValueError, match='different lengths'):
        made(torch.rand(5), torch.arange(6), 2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
def test_a_gpu_picks_alike():
    scores, positions = torch.rand(300), torch.randperm(300)
    for strategy in (power_bald, softmax_bald, softrank_bald):
        assert torch.equal(strategy(scores, 20).indices, strategy(scores.cuda(), 20).indices)
    assert torch.equal(
        min_gap()(scores, positions, 40).indices,
        min_gap()(scores.cuda(), positions.cuda(), 40).indices,
    )
