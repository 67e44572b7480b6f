"""Tests of differences, corrections and intervals: against scipy, against counting, and against
their own level"""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fastai_al.lab.compare import (
    holm,
    mean_interval,
    median_interval,
    paired_permutation,
    penalty_matrix,
    seeds_needed,
)


@pytest.mark.parametrize('m', [1, 2, 3, 5, 8, 12])
@pytest.mark.parametrize('digits', [0, 1, 6])  # ties and zeros where there are few digits
def test_the_exact_test_is_that_of_scipy(m, digits):
    differences = np.random.default_rng(m).normal(0.5, 1, m).round(digits)
    if m == 1:
        assert paired_permutation(differences) == 1
    else:
        assert paired_permutation(differences) == pytest.approx(
            stats.permutation_test(
                (differences,), np.mean, permutation_type='samples', n_resamples=np.inf
            ).pvalue
        )


def test_by_counting():
    values = [3, 1, 0, -2, 4]  # whole numbers: nothing is rounded
    flips = [
        abs(sum(s * v for s, v in zip(signs, values)))
        for signs in itertools.product([1, -1], repeat=5)
    ]
    assert paired_permutation(values) == sum(f >= 6 for f in flips) / 32


def test_equal_sums_are_equal_whatever_their_last_digits():
    assert paired_permutation([0.1, 0.2, -0.3]) == paired_permutation([1, 2, -3]) == 1
    for scale in (1e-9, 1, 1e9):
        assert paired_permutation(
            np.array([0.1, 0.1, 0.1, 0.3, -0.2]) * scale
        ) == paired_permutation([1, 1, 1, 3, -2])
    assert paired_permutation([0] * 5) == paired_permutation([0] * 30) == 1


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=9), st.randoms())
def test_neither_order_nor_direction_nor_unit_matter(values, random):
    p = paired_permutation(values)
    shuffled = random.sample(values, len(values))
    assert (
        p
        == paired_permutation(shuffled)
        == paired_permutation([-v for v in values])
        == paired_permutation([0.1 * v for v in values])
    )
    assert 2 / 2 ** len(values) <= p <= 1 and (p * 2 ** len(values)) % 1 == 0


def test_beyond_fourteen_a_sample_of_the_signs_stands_for_all():
    values = np.random.default_rng(3).normal(0.45, 1, 16)
    every = np.abs((1 - 2 * (np.arange(2**16)[:, None] >> np.arange(16) & 1)) @ values)
    exact = (every >= abs(values.sum()) - 1e-9).mean()
    assert (
        paired_permutation(values)
        == paired_permutation(values)
        == pytest.approx(exact, abs=4 * math.sqrt(exact / 20_000))
    )
    assert paired_permutation(np.ones(40)) == 1 / 20_000  # never zero


def test_it_is_wrong_no_oftener_than_guaranteed():
    rng = np.random.default_rng(0)
    for m, draw in ((6, rng.normal), (8, rng.laplace), (15, rng.standard_cauchy)):
        p = np.array([paired_permutation(draw(size=m)) for _ in range(600)])
        for level in (0.05, 0.2, 0.5):
            assert (p <= level).mean() <= level + 3 * math.sqrt(level * (1 - level) / 600)


@pytest.mark.parametrize('values', [[], [1, np.nan], [np.inf], 3.0, [[1, 2]]])
def test_what_can_not_be_tested(values):
    with pytest.raises(ValueError):
        paired_permutation(values)


@pytest.mark.parametrize(
    'p, corrected',
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.02], [0.02]),
        ([], []),
        ([0.5, 0.5, 0.5], [1, 1, 1]),
        ([0.01, 0.01, 0.04], [0.03, 0.03, 0.04]),
        ([0.04, 0.001], [0.04, 0.002]),
        ([0.02, 0.018], [0.036, 0.036]),
    ],
)
def test_holm_by_hand(p, corrected):
    np.testing.assert_allclose(holm(p), corrected)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_by_its_definition(p):
    corrected, order = holm(p), sorted(range(len(p)), key=lambda i: p[i])
    for rank, i in enumerate(order):
        assert corrected[i] == min(1, max((len(p) - r) * p[order[r]] for r in range(rank + 1)))
    assert (corrected >= p).all() and (
        corrected <= np.minimum(1, len(p) * np.array(p)) + 1e-15
    ).all()


def test_what_is_no_p_value():
    for bad in ([np.nan], [1.2], [-0.1], [[0.1]], 0.1):
        with pytest.raises(ValueError, match='0 to 1'):
            holm(bad)


@pytest.mark.parametrize('rules', range(1, 12))
def test_seeds_needed_are_the_fewest_that_can_show_anything(rules):
    m = seeds_needed(rules)
    best = lambda m: holm([paired_permutation(np.ones(m))] + [1.0] * (rules - 1))[0]
    assert best(m) <= 0.05 < best(m - 1)
    assert (
        seeds_needed(1, 0.25) == 3 and seeds_needed(1, 0.5) == 2
    )  # where 2/2^m is the level itself
    for bad in ((0, 0.05), (1, 0), (1, 1)):
        with pytest.raises(ValueError):
            seeds_needed(*bad)


@pytest.mark.parametrize('m', [3, 5, 10, 20])
def test_the_interval_of_a_mean_holds_it_and_better_than_a_bootstrap(m):
    x = np.random.default_rng(m).normal(size=(800, m))
    low, high = mean_interval(x)
    for i in (0, 1):
        np.testing.assert_allclose(
            (low[i], high[i]), stats.t.interval(0.95, m - 1, x[i].mean(), stats.sem(x[i]))
        )
    held = ((low <= 0) & (0 <= high)).mean()
    resampled = np.random.default_rng(0).integers(m, size=(299, m))
    low, high = np.quantile(x[:400][:, resampled].mean(-1), (0.025, 0.975), axis=1)
    assert abs(held - 0.95) < 0.025 and held > ((low <= 0) & (0 <= high)).mean()


def test_one_number_has_no_interval_and_equal_ones_a_point():
    assert (
        np.isnan(mean_interval([0.5])).all()
        and np.isnan(mean_interval(np.ones((4, 1)))).all()
        and mean_interval([2, 2, 2]) == (2, 2)
    )
    with pytest.raises(ValueError, match='at least one'):
        mean_interval([])


@pytest.mark.parametrize('m', [1, 2, 5, 6, 7, 9, 12, 25])
def test_the_interval_of_a_median_is_the_narrowest_that_holds_it(m):
    low, high = median_interval(range(m))
    misses = lambda k: stats.binom.cdf(k, m, 0.5)  # the median lies below the value in place k
    assert low + high == m - 1 and (low == 0 or misses(low) <= 0.025) and (misses(low + 1) > 0.025)
    x = np.random.default_rng(m).normal(size=(1000, m))
    held = np.mean([a <= 0 <= b for a, b in map(median_interval, x)])
    assert abs(held - (1 - 2 * misses(low))) < 0.05 and (m < 6 or held > 0.93)


def test_infinite_values_are_values():
    assert median_interval([40, math.inf, 50]) == (40, math.inf) and median_interval(
        [math.inf] * 7
    ) == (math.inf, math.inf)
    for bad in ([], [1, math.nan], [[1, 2]]):
        with pytest.raises(ValueError):
            median_interval(bad)


def test_penalties_against_tests_of_scipy():
    rng = np.random.default_rng(0)
    settings = [rng.normal(size=(4, 5, L)) + 0.8 * np.arange(4)[:, None, None] for L in (3, 7)]
    expected = np.zeros((4, 4))
    for s, i, j in itertools.product(settings, range(4), range(4)):
        for c in range(s.shape[2]):
            t = stats.ttest_rel(s[i, :, c], s[j, :, c]).statistic if i != j else 0
            assert (t > 2.776) == (
                i != j and t > 0 and stats.ttest_rel(s[i, :, c], s[j, :, c]).pvalue < 0.05
            )
            expected[i, j] += (t > 2.776) / s.shape[2]
    got = penalty_matrix(*settings)
    np.testing.assert_allclose(got, expected)
    assert (
        0 < got.sum()
        and got.max() <= 2
        and not np.diag(got).any()
        and not ((got > 1) & (got.T > 1)).any()
    )


def test_penalties_of_equal_missing_and_certain_differences():
    same = np.tile(np.random.default_rng(0).normal(size=(1, 5, 3)), (3, 1, 1))
    assert (
        not penalty_matrix(same).any()
        and not penalty_matrix(
            same + np.array([0, 0.1, 0])[:, None, None] - np.array([0, 0.1, 0])[:, None, None]
        ).any()
    )
    better = same + np.array([0, 0.25, 0])[:, None, None]  # always by as much: no spread at all
    np.testing.assert_array_equal(penalty_matrix(better), [[0, 0, 0], [1, 0, 1], [0, 0, 0]])
    better[1, 0, 0] = np.nan
    np.testing.assert_allclose(penalty_matrix(better)[1], [2 / 3, 0, 2 / 3])
    for bad in (
        [],
        [np.zeros((3, 4))],
        [np.zeros((3, 1, 4))],
        [np.zeros((3, 2, 0))],
        [np.zeros((3, 2, 2)), np.zeros((2, 2, 2))],
    ):
        with pytest.raises(ValueError, match='strategies, seeds, label counts'):
            penalty_matrix(*bad)
