"""Certified thresholds: exact cases, guarantees that hold over many hold-outs, and what can
guarantee nothing"""

import itertools
import math
import warnings

import numpy as np
import pytest
from scipy.stats import binom, binomtest, hypergeom

from fastai_al.triage.bounds import (
    hoeffding_bentkus,
    max_total_loss,
    min_error,
    min_holdout,
)
from fastai_al.triage.certify import certify_pool, certify_pseudo
from fastai_al.triage.picks import Picks, _excess_of_picks, _wealth, certify_picks


def test_the_pool_threshold_is_the_item_that_breaks_the_guarantee():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        u, wrong = rng.random(200), rng.random(200) < 0.08
        found = certify_pool(u, wrong, 0.05, 0.1)
        allowed = max(x for x in range(200) if binom.cdf(x, 200, 0.05) <= 0.1)
        assert found.threshold == np.sort(u[wrong])[allowed]
        assert (found.below, found.wrong) == ((u < found.threshold).sum(), allowed)


def test_every_threshold_of_pseudo_labels_was_tested():
    rng = np.random.default_rng(1)
    u = rng.random(600)
    wrong = rng.random(600) < 0.3 * u**2
    grid = np.quantile(rng.random(5000), np.arange(1, 50) / 50)
    found = certify_pseudo(u, wrong, 0.05, 0.1, grid=grid)
    assert found.holds and found.threshold in grid
    assert binom.cdf(wrong[u < found.threshold].sum(), found.below, 0.05) <= 0.1 / 3
    enough = [t for t in [*grid, np.inf] if (u < t).sum() >= found.min_holdout]
    start = max(
        t
        for t in (enough[int(share * len(enough))] for share in (0, 1 / 3, 2 / 3))
        if t <= found.threshold
    )  # the run that led there has no gap
    for t in grid[(grid >= start) & (grid <= found.threshold)]:
        assert binom.cdf(wrong[u < t].sum(), (u < t).sum(), 0.05) <= 0.1 / 3


@pytest.mark.parametrize('certify', [certify_pool, certify_pseudo])
@pytest.mark.parametrize('m', [150, 600])
@pytest.mark.parametrize('kind', ['wrong', 'lost'])
def test_guarantees_hold(certify, m, kind):
    """Of 800 hold-outs at most a share delta breaks the guarantee, on a distribution whose errors
    are known: P(wrong | u) = .4 u"""
    rng, broken, delta, error = np.random.default_rng(m), 0, 0.1, 0.1
    for _ in range(800):
        u = rng.random(m)
        loss = (
            (rng.random(m) < 0.4 * u).astype(float)
            if kind == 'wrong'
            else rng.beta(2, 2, m) * 0.8 * u
        )
        t = min(certify(u, loss, error, delta).threshold, 1)
        broken += (t > -math.inf) and (
            0.2 * t**2 if certify is certify_pool else 0.2 * t
        ) > error + 1e-12
    assert binomtest(broken, 800, delta, alternative='greater').pvalue > 0.001


def test_ties_and_equal_items():
    assert certify_pool(np.zeros(100), np.zeros(100), 0.05).threshold == math.inf
    assert not certify_pool(
        np.zeros(100), np.arange(100) < 9, 0.05
    ).holds  # none is below the other
    u = np.repeat([0.0, 1.0], [80, 20])
    found = certify_pool(u, u == 1, 0.05)
    assert found.threshold == 1 and found.below == 80
    order = np.random.default_rng(0).permutation(100)
    assert certify_pool(u[order], (u == 1)[order], 0.05) == found


def test_too_few_report_how_many_are_needed():
    found = certify_pool(np.arange(120.0), np.zeros(120), 0.01)
    assert (
        not found.holds
        and found.min_holdout == min_holdout(0.01) == 299
        and '299 are needed' in str(found)
        and '120 labelled' in str(found)
    )
    assert certify_pool(np.arange(299.0), np.zeros(299), 0.01).threshold == math.inf
    assert not certify_pool(np.arange(298.0), np.zeros(298), 0.01).holds
    assert (
        not certify_pool(np.arange(120.0), np.zeros(120), min_error(120) - 1e-9).holds
        and certify_pool(np.arange(120.0), np.zeros(120), min_error(120) + 1e-9).holds
    )
    assert 'wrong too often' in str(certify_pseudo(np.arange(500.0), np.ones(500), 0.05))
    for certify in (certify_pool, certify_pseudo):
        assert not certify([], [], 0.05).holds
    assert (
        not certify_pseudo(np.arange(60.0), np.zeros(60), 0.05).holds
        and certify_pseudo(np.arange(85.0), np.zeros(85), 0.05).holds
    )


@pytest.mark.parametrize('certify', [certify_pool, certify_pseudo])
@pytest.mark.parametrize('m', [20, 60, 300])
def test_the_least_error_is_the_one_that_can_be_certified(certify, m):
    "Of pseudo-labels too, where each of three starts has a third of delta"
    least = certify(np.arange(float(m)), np.ones(m), 0.5).min_error
    assert certify(np.arange(float(m)), np.zeros(m), least + 1e-9).holds
    assert not certify(np.arange(float(m)), np.zeros(m), least - 1e-9).holds


def test_the_bound_of_losses_between_is_never_below_that_of_errors():
    for n in (10, 100, 1000):
        for error in (0.02, 0.2):
            for x in range(0, n, max(1, n // 7)):
                assert (
                    hoeffding_bentkus(np.float64(x), n, error)
                    >= min(1, binom.cdf(x, n, error)) - 1e-12
                )


@pytest.mark.parametrize(
    'change, says',
    [
        (dict(error=0), 'error=0 is not a share'),
        (dict(error=1.0), 'between 0 and 1'),
        (dict(error=True), 'error=True'),
        (dict(delta=-0.1), 'delta=-0.1'),
        (dict(delta=2), 'delta=2'),
        (dict(loss=[0, 2.0]), 'between 0 and 1, and these are from 0 to 2'),
        (dict(loss=[0, -1.0]), 'between 0 and 1, and these are from -1 to 0'),
        (dict(loss=[0]), '2 uncertainties but 1 losses'),
        (dict(uncertainty=[0, np.nan]), 'NaN'),
        (dict(loss=[np.nan, 0]), 'NaN'),
    ],
)
@pytest.mark.parametrize('certify', [certify_pool, certify_pseudo])
def test_what_can_not_be_certified_is_an_error(certify, change, says):
    with pytest.raises(ValueError, match=says):
        certify(**{**dict(uncertainty=[0.1, 0.2], loss=[0, 1], error=0.05), **change})


# a population of so many items


def others(N: int, m: int, error: float) -> int:
    return math.floor(error * (N - m) + 1e-9)


@pytest.mark.parametrize(
    'u', [np.arange(7.0), np.array([0, 0, 0, 1, 1, 2, 2.0])], ids=['apart', 'ties']
)
@pytest.mark.parametrize('values', [(0, 1), (0, 0.4, 1)], ids=['wrong', 'lost'])
def test_every_holdout_of_every_small_population(u, values):
    """Of all hold-outs of a population at most a share delta certifies a threshold below which
    others lose more than was guaranteed; whatever the losses are"""
    N = 7 if len(values) == 2 else 5
    u, worst = u[:N], 0
    for m, error, delta in ((3, 0.3, 0.2), (2, 0.6, 0.3), (4, 0.1, 0.3)):
        for losses in itertools.product(values, repeat=N):
            e, broken, n = np.array(losses, dtype=float), 0, 0
            for held in itertools.combinations(range(N), m):
                out, at = np.ones(N, dtype=bool), list(held)
                out[at] = False
                t = certify_pool(u[at], e[at], error, delta, population=N).threshold
                broken, n = broken + ((e * (u < t))[out].sum() > error * (N - m) + 1e-9), n + 1
            assert broken / n <= delta, (m, error, delta, losses)
            worst = max(worst, broken / n)
    assert worst > 0.1 or len(values) > 2  # it could have failed


@pytest.mark.parametrize(
    'N, m, error, delta',
    [
        (2000, 300, 0.1, 0.05),
        (600, 300, 0.1, 0.05),
        (400, 300, 0.1, 0.05),
        (100, 50, 0.1, 0.05),
        (400, 100, 0.05, 0.1),
        (100, 50, 0.1, 0.05),
        (10**6, 1000, 0.05, 0.1),
        (30, 10, 0.5, 1e-4),
    ],
)
def test_a_count_is_exact(N, m, error, delta):
    """The share of hold-outs that break it, where everything is wrong, is the hypergeometric
    one; one wrong item more would be too many"""
    allowed, k = max_total_loss(m, error, delta, N, N, True), others(N, m, error)
    broken = [hypergeom.cdf(x, N, x + k + 1, m) for x in (allowed, allowed + 1)]
    assert (allowed < 0 or broken[0] <= delta) and broken[1] > delta
    e = np.ones(m)
    found = certify_pool(np.arange(m), e, error, delta, population=N)
    assert found.threshold == (allowed if allowed > 0 else -math.inf) and (
        not found.holds or (found.below, found.total) == (allowed, N - m)
    )
    assert max_total_loss(m, error, delta, N, N, False) <= allowed + 1  # of losses no more


def test_what_was_acquired_is_counted():
    """300 of 2,000 items held out, then the most uncertain of the others acquired.

    Of what the hold-out was drawn from the count is kept, and not needlessly far; of what is left
    it would be broken"""
    N, m, error, delta, runs, rng = 2000, 300, 0.1, 0.05, 400, np.random.default_rng(5)
    broken, of_left = [], {n: 0 for n in (0, 300, 700, 1200)}
    for _ in range(runs):
        u = rng.random(N)
        e = (rng.random(N) < 0.5 * u).astype(float)
        t, rest = (
            certify_pool(u[:m], e[:m], error, delta, population=N).threshold,
            m + np.argsort(-u[m:]),
        )
        broken.append((e[m:] * (u[m:] < t)).sum() > error * (N - m))
        for n in of_left:
            left = rest[n:]
            assert broken[-1] or (e[left] * (u[left] < t)).sum() <= error * (N - m)
            t_left = certify_pool(u[:m], e[:m], error, delta, population=m + len(left)).threshold
            of_left[n] += (e[left] * (u[left] < t_left)).sum() > error * len(left)
    exact = hypergeom.cdf(20, N, 20 + others(N, m, error) + 1, m)
    se = math.sqrt(delta * (1 - delta) / runs)
    assert delta / 3 <= np.mean(broken) <= delta + 3 * se and abs(np.mean(broken) - exact) < 3 * se
    assert (
        of_left[0] == sum(broken) and of_left[300] > 2 * delta * runs and of_left[700] > 0.25 * runs
    )  # the trap


@pytest.mark.parametrize('N, m', [(600, 300), (400, 300)])
def test_a_count_of_a_small_population_is_kept_where_an_expectation_is_not(N, m):
    rng, broken = np.random.default_rng(1), np.zeros(2)
    for _ in range(1000):
        u, e = rng.random(N), (rng.random(N) < 0.25).astype(float)
        for i, population in enumerate((N, None)):
            broken[i] += (
                e[m:]
                * (u[m:] < certify_pool(u[:m], e[:m], 0.1, 0.05, population=population).threshold)
            ).sum() > 0.1 * (N - m)
    se = math.sqrt(0.05 * 0.95 / 1000)
    assert 0.05 / 3 <= broken[0] / 1000 <= 0.05 + 3 * se and broken[1] / 1000 > 0.05 + 3 * se


def test_losses_between_are_counted_too():
    rng, broken, N, m, delta = np.random.default_rng(2), 0, 500, 200, 0.1
    for _ in range(500):
        u, e = rng.random(N), rng.choice([0, 0.5, 1], N, p=[0.7, 0.1, 0.2])
        broken += (
            e[m:] * (u[m:] < certify_pool(u[:m], e[:m], 0.1, delta, population=N).threshold)
        ).sum() > 0.1 * (N - m)
    assert binomtest(broken, 500, delta, alternative='greater').pvalue > 0.001
    for N, m in ((2000, 300), (500, 200)):
        assert (
            0.8 * max_total_loss(m, 0.1, 0.05, N, N, True)
            <= max_total_loss(m, 0.1, 0.05, N, N, False)
            <= max_total_loss(m, 0.1, 0.05, N, N, True) + 1
        )


def test_a_population_of_unknown_size_is_the_worst_of_those_that_it_may_be():
    for m, error, delta, low, high in (
        (40, 0.1, 0.05, 40, 300),
        (30, 0.2, 0.02, 50, 90),
        (100, 0.05, 0.1, 120, 150),
        (10, 0.3, 0.2, 10, 40),
    ):
        for binary in (True, False):
            assert max_total_loss(m, error, delta, low, high, binary) == min(
                max_total_loss(m, error, delta, N, N, binary)
                for N in range(max(low, m + 1), high + 1)
            )
    found = certify_pool(np.arange(60), np.arange(60) > 50, 0.2, population=(100, 200))
    assert found.total == (
        40,
        140,
    ) and 'at most 0.2 of the other 40 to 140 items get a wrong label' in str(found)


def test_the_ends_of_a_population():
    u = np.arange(50.0)
    assert certify_pool(u, np.ones(50), 0.1, population=50).threshold == math.inf  # nobody is left
    assert certify_pool(u, np.ones(50), 0.1, population=50).exceeds_error
    few = certify_pool(u, np.zeros(50), 0.01, population=100)  # less than one item may be wrong
    assert (
        not few.holds
        and few.min_holdout == 95
        and '95 are needed' in str(few)
        and not certify_pool(np.arange(94.0), np.zeros(94), 0.01, population=100).holds
    )
    assert certify_pool(np.arange(95.0), np.zeros(95), 0.01, population=100).threshold == math.inf
    assert (
        not certify_pool(u, np.ones(50), 0.1, 1e-9, population=1000).holds
        and not certify_pool([], [], 0.1, population=10).holds
    )
    assert (
        certify_pool(np.zeros(200), np.zeros(200), 0.1, 1e-9, population=10**7).threshold
        == math.inf
    )
    assert not certify_pool(
        np.zeros(200), np.arange(200) < 30, 0.1, population=1000
    ).holds  # all are as sure as the wrong ones
    for m in (60, 79, 80, 92, 117):
        least = min_error(m, 0.05, 118)
        assert certify_pool(np.arange(m), np.zeros(m), least + 1e-6, population=118).holds and (
            least == 0
            or not certify_pool(np.arange(m), np.zeros(m), least - 1e-6, population=118).holds
        )
    assert [min_holdout(0.05, 0.05, N) for N in (118, 10**6)] == [74, 59] and min_holdout(
        0.05, 0.05, 118, 79
    ) == 92  # 79 of 118 are fewer others, and one of them fewer may be wrong
    for bad in (49, 50.5, True, 'all', (40, 60)):
        with pytest.raises(
            ValueError, match='to be the number of items that the 50 hold-out items were drawn from'
        ):
            certify_pool(u, np.zeros(50), 0.1, population=bad)


@pytest.mark.parametrize('population', [None, 2000])
def test_unlabelled_holdout_items_are_wrong_everywhere(population):
    u, e = np.arange(300) / 300, (np.arange(300) % 15 == 7).astype(float)
    known, without = (
        certify_pool(u, e, 0.1, population=population),
        certify_pool(u, e, 0.1, population=population, unlabelled=6),
    )
    as_wrong = certify_pool(
        np.append(np.full(6, -1.0), u), np.append(np.ones(6), e), 0.1, population=population
    )
    assert (
        without.threshold == as_wrong.threshold < known.threshold
        and (without.holdout, without.unlabelled) == (300, 6)
        and '6 more have no label' in str(without)
    )
    assert not certify_pool(u, e, 0.1, population=population, unlabelled=40).holds and (
        without.mean_loss,
        without.p_value,
    ) == (as_wrong.mean_loss, as_wrong.p_value)


def test_what_is_guaranteed_is_reported_as_it_is():
    u, e = np.arange(300) / 300, (np.arange(300) > 290).astype(float)
    count, expected, pseudo = (
        certify_pool(u, e, 0.1, population=2000),
        certify_pool(u, e, 0.1),
        certify_pseudo(u, e, 0.1),
    )
    assert (
        count.claim == 'at most 170 of 1,700 items (0.1) get a wrong label'
        and count.claim in str(count)
        and 'delta 0.05' in str(count)
    )
    assert (
        expected.claim
        == 'an item drawn like the hold-out gets a wrong pseudo-label with probability at most 0.1'
    )
    assert (
        pseudo.claim == 'a pseudo-label of an item drawn like the hold-out is wrong with '
        'probability at most 0.1'
    )
    assert (
        certify_pool(u, e / 2, 0.1, population=2000).claim
        == 'the losses of the pseudo-labels sum to at most 170 of 1,700 items (0.1)'
    )
    uniform = certify_picks(u, 0 * e, Picks(1 / (2000 - np.arange(300)), 2000, 1.0), 0.1)
    assert (
        uniform.total == 2000
        and uniform.claim == 'at most 200 of 2,000 items (0.1) get a wrong label'
    )


def test_significantly_more_errors_below_the_threshold():
    u, e = np.arange(300.0), np.zeros(300)
    e[:10] = e[40:] = 1
    found = certify_pool(u, e, 0.1)
    assert (
        (found.below, found.wrong) == (51, 21)
        and found.mean_loss == 21 / 51
        and found.p_value == pytest.approx(binom.sf(20, 51, 0.1))
        and found.exceeds_error
    )
    assert (
        not certify_pool(u, (u % 11 == 5).astype(float), 0.1).exceeds_error
        and not certify_pool(u, np.ones(300), 0.01).exceeds_error
    )  # nothing is certified
    lost = certify_pool(u, e * 0.9, 0.1)
    assert (
        lost.mean_loss == pytest.approx(lost.wrong / lost.below)
        and lost.exceeds_error
        and lost.p_value >= binom.sf(math.ceil(lost.wrong) - 1, lost.below, 0.1)
    )


def test_picks_with_significantly_more_errors():
    """Weighted by how rarely they are drawn: a strategy that prefers errors makes nothing look
    wrong that is not"""
    rng, N, M, floor, error = np.random.default_rng(0), 400, 150, 0.3, 0.1
    for share, few, many in ((0.1, 0, 0.05), (0.3, 0.9, 1)):
        found = []
        for _ in range(100):
            u = rng.random(N)
            below, e = u < 0.5, np.ones(N)
            e[below] = rng.permutation(np.arange(below.sum()) < round(share * below.sum()))
            at, q = drawn(rng, e + 0.1, M, floor)
            found.append(
                _excess_of_picks(np.where(below[at], e[at], np.nan), q, Picks(q, N, floor), error)
            )
        assert (
            few <= np.mean([p < 0.05 for _, p in found]) <= many
            and abs(np.mean([s for s, _ in found]) - share) < 0.06
        )
    assert _excess_of_picks(np.full(M, np.nan), q, Picks(q, N, floor), error) == (0, 1)


# items drawn with known probabilities


def drawn(rng, scores, n, floor):
    left, picks, q = np.arange(len(scores)), [], []
    for _ in range(n):
        p = (
            scores[left] / scores[left].sum()
            if scores[left].sum()
            else np.full(len(left), 1 / len(left))
        )
        p = (1 - floor) * p + floor / len(left)
        at = rng.choice(len(left), p=p)
        picks.append(left[at])
        q.append(p[at])
        left = np.delete(left, at)
    return np.array(picks), np.array(q)


def test_every_draw_of_a_tiny_population_keeps_the_guarantee():
    """All orders of three picks out of five, with their probabilities: the share of draws that
    guarantee too much is at most delta, and wealth is worth at most 1 in the mean"""
    u, wrong, scores, floor, error, delta = (
        np.array([0.1, 0.2, 0.3, 0.4, 0.5]),
        np.array([0, 1, 0, 1, 0.0]),
        np.array([3, 1, 2, 0, 4.0]),
        0.5,
        0.3,
        0.5,
    )
    broken = worth = total = 0.0
    for order in itertools.permutations(range(5), 3):
        left, q, chance = list(range(5)), [], 1.0
        for i in order:
            s = scores[left]
            q.append(
                (1 - floor) * scores[i] / s.sum() + floor / len(left) if s.sum() else 1 / len(left)
            )
            chance, left = chance * q[-1], [j for j in left if j != i]
        picks, at = Picks(q, 5, floor), list(order)
        t = certify_picks(u[at], wrong[at], picks, error, delta).threshold
        broken += chance * ((wrong * (u < t)).mean() > error)
        worth += (
            chance * _wealth(wrong[at], np.array(q), picks, 0.4 + 1e-9)[-1]
        )  # two of five are wrong: the game is fair
        total += chance
    assert total == pytest.approx(1) and broken <= delta and worth == pytest.approx(1)


@pytest.mark.parametrize('likes', ['errors', 'the sure', 'the unsure'])
@pytest.mark.parametrize('kind', ['wrong', 'lost'])
def test_guarantees_of_picks_hold(likes, kind):
    rng, broken, delta, error, N = np.random.default_rng(3), 0, 0.1, 0.1, 400
    for _ in range(200):
        u = rng.random(N)
        loss = (
            (rng.random(N) < 0.35 * (u < 0.7)).astype(float)
            if kind == 'wrong'
            else rng.beta(2, 2, N) * 0.5 * (u < 0.7)
        )
        at, q = drawn(rng, {'errors': loss, 'the sure': 1 - u, 'the unsure': u}[likes], 150, 0.4)
        t = certify_picks(u[at], loss[at], Picks(q, N, 0.4), error, delta).threshold
        broken += (loss * (u < t)).mean() > error
    assert binomtest(broken, 200, delta, alternative='greater').pvalue > 0.001


def test_the_largest_threshold_that_wealth_reaches():
    rng = np.random.default_rng(4)
    u, wrong = rng.random(3000), (rng.random(3000) < 0.3).astype(float)
    wrong *= u > 0.5
    at, q = drawn(rng, u, 500, 0.5)
    picks = Picks(q, 3000, 0.5)
    found = certify_picks(u[at], wrong[at], picks, 0.05)
    enough = [
        t
        for t in [*np.sort(u[at]), np.inf]
        if _wealth(wrong[at] * (u[at] < t), q, picks, 0.05).max() >= 1 / 0.05
    ]
    assert (
        found.threshold == max(enough) < 1
        and enough == sorted(enough)
        and (found.below, found.wrong)
        == ((u[at] < found.threshold).sum(), wrong[at][u[at] < found.threshold].sum())
    )


def test_what_nobody_can_label_counts_as_wrong_everywhere():
    u, q = np.arange(200) / 200, np.full(200, 0.5) * 2 / (1000 - np.arange(200))
    all_known = certify_picks(u, np.zeros(200), Picks(q, 1000, 1.0), 0.05)
    known = np.arange(200) % 40 != 7
    some = certify_picks(u[known], np.zeros(known.sum()), Picks(q, 1000, 1.0, known), 0.05)
    assert all_known.threshold == math.inf and not some.holds
    losses = np.where(known, 0.0, 1.0)
    assert (
        certify_picks(u, losses, Picks(q, 1000, 1.0), 0.05).threshold >= some.threshold
        and some.holdout == known.sum()
    )


def test_uniform_picks_guarantee_about_what_uniform_items_do():
    u, wrong, N = np.arange(600) / 600, np.zeros(600), 100_000
    wrong[[400, 420, 430, 460, 470, 480]] = 1
    order = np.random.default_rng(0).permutation(600)
    picks = Picks(1 / (N - np.arange(600)), N, 1.0)
    a, b = certify_pool(u, wrong, 0.02), certify_picks(u[order], wrong[order], picks, 0.02)
    assert 0.6 < b.threshold <= a.threshold + 0.1 and b.binary and b.guarantee == 'pool'
    few = certify_picks(u[:50], wrong[:50], Picks(picks.q[:50], N, 1.0), 0.02)
    assert (
        not few.holds
        and f'{few.min_holdout} are needed' in str(few)
        and 150 < few.min_holdout < 300
        and few.min_error > 0.04
    )
    zeros = np.arange(float(few.min_holdout))
    assert (
        certify_picks(zeros, 0 * zeros, Picks(1 / (N - zeros), N, 1.0), 0.02).holds
        and not certify_picks(
            zeros[1:], 0 * zeros[1:], Picks(1 / (N - zeros[1:] + 1), N, 1.0), 0.02
        ).holds
    )
    assert not certify_picks([], [], Picks([], N, 0.1), 0.05).holds


@pytest.mark.parametrize(
    'change, says',
    [
        (dict(uniform_share=0), 'uniform_share=0 has to be above 0'),
        (dict(uniform_share=1.5), 'at most 1'),
        (dict(population=1), 'population=1 .* at least 2'),
        (dict(population=2.5), 'population=2.5'),
        (dict(q=[0.1, 0.0001]), 'Pick 1 had a probability of 0.0001 among 9 items'),
        (dict(q=[0.1, 1.1]), 'Pick 1'),
        (dict(q=[np.nan, 0.1]), 'Pick 0'),
        (dict(known=[True]), 'known= has the length 1'),
        (dict(uniform_share=[0.5]), 'uniform_share= has the length 1'),
        (dict(uniform_share=[0.5, 0]), 'above 0'),
        (dict(known=[True, False]), '2 uncertainties, and 1 picks'),
    ],
)
def test_picks_that_can_not_be(change, says):
    with pytest.raises(ValueError, match=says):
        certify_picks(
            [0.1, 0.2],
            [0, 1],
            Picks(**{**dict(q=[0.1, 0.1], population=10, uniform_share=0.5), **change}),
            0.05,
        )


def test_each_pick_has_a_floor_of_its_own():
    N, m = 10_000, np.arange(420)
    uniform = 1 / (N - m)
    u = m / 420
    fine = certify_picks(u[:400], 0 * u[:400], Picks(uniform[:400], N, 0.5), 0.05)
    more = certify_picks(u, 0 * u, Picks(uniform, N, np.where(m < 400, 0.5, 0.1)), 0.05)
    assert (
        fine.threshold == more.threshold == math.inf
        and not certify_picks(u, 0 * u, Picks(uniform, N, 0.1), 0.05).holds
    )
    assert certify_picks(u, 0 * u, Picks(uniform, N, np.full(420, 0.5)), 0.05) == certify_picks(
        u, 0 * u, Picks(uniform, N, 0.5), 0.05
    )


def test_why_nothing_is_certified_is_reported_as_it_is():
    u, uniform = np.arange(200) / 200, 1 / (1480 - np.arange(200))
    known = np.arange(200) >= 4
    without = certify_picks(u[known], 0 * u[known], Picks(uniform, 1480, 1.0, known), 0.02)
    assert (
        not without.holds
        and '4 more have no label' in str(without)
        and 'Label the others' in str(without)
        and 'too often' not in str(without)
    )
    small = certify_picks(u[:20], 0 * u[:20], Picks(1 / (20 - np.arange(20)), 20, 0.1), 0.05)
    assert (
        not small.holds
        and small.min_holdout == math.inf
        and 'in so small a population' in str(small)
    )
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert certify_picks([], [], Picks([], 1_000_000, 0.5), 0.05).min_holdout < 200
