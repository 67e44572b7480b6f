"Does uncertainty go with error: against loops, brute force over orders, scikit-learn and scipy"

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from fastai_al import FastaiALWarning
from fastai_al.evaluation.reliability import (
    adaptive_ece,
    augrc,
    aurc,
    correlation,
    e_aurc,
    error_auroc,
    reliability_bins,
    risk_coverage,
)

PAIRED = [risk_coverage, aurc, e_aurc, augrc, error_auroc, adaptive_ece, reliability_bins]
small = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=6)


def orders(u):
    "All orders in which rising uncertainty leaves the items"
    return [
        o
        for o in itertools.permutations(range(len(u)))
        if all(u[a] <= u[b] for a, b in zip(o, o[1:]))
    ]


@given(small)
@settings(max_examples=60, deadline=None)
def test_ties_are_the_mean_over_all_orders(items):
    u, loss = map(np.array, zip(*items))
    n = len(u)
    curves = np.array([[loss[list(o[:i])].mean() for i in range(1, n + 1)] for o in orders(u)])
    coverage, risk = risk_coverage(u, loss)
    np.testing.assert_allclose(coverage, np.arange(1, n + 1) / n)
    np.testing.assert_allclose(risk, curves.mean(0), atol=1e-12)
    sums = [sum(loss[list(o[:i])].sum() for i in range(1, n + 1)) / n**2 for o in orders(u)]
    assert augrc(u, loss) == pytest.approx(np.mean(sums))
    best = min(
        np.mean([loss[list(o[:i])].mean() for i in range(1, n + 1)])
        for o in itertools.permutations(range(n))
    )
    assert (
        e_aurc(u, loss) == pytest.approx(aurc(u, loss) - best, abs=1e-12)
        and e_aurc(u, loss) >= -1e-12
    )


@given(small, st.randoms())
@settings(max_examples=40, deadline=None)
def test_neither_the_order_of_items_nor_the_scale_of_uncertainty_counts(items, random):
    shuffled = list(items)
    random.shuffle(shuffled)
    for f in (aurc, augrc, e_aurc):
        assert f(*zip(*items)) == pytest.approx(f(*zip(*shuffled)), abs=1e-12)
        assert f(*zip(*items)) == pytest.approx(
            f([10 * np.exp(u) for u, _ in items], [l for _, l in items]), abs=1e-12
        )
    c, ok = zip(*[(u / 3, l / 4) for u, l in items])
    c2, ok2 = zip(*[(u / 3, l / 4) for u, l in shuffled])
    for bins in (1, 2, 15):
        assert adaptive_ece(c, ok, bins) == pytest.approx(adaptive_ece(c2, ok2, bins), abs=1e-12)


def test_figures_by_hand():
    u, loss = [0.1, 0.2, 0.3, 0.4], [1, 0, 0, 1]
    np.testing.assert_allclose(risk_coverage(u, loss)[1], [1, 1 / 2, 1 / 3, 1 / 2])
    assert aurc(u, loss) == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert augrc(u, loss) == pytest.approx((1 + 1 + 1 + 2) / 16)
    assert e_aurc(u, loss) == pytest.approx(
        (1 + 1 / 2 + 1 / 3 + 1 / 2) / 4 - (0 + 0 + 1 / 3 + 1 / 2) / 4
    )
    assert aurc([1], [3.0]) == 3 and augrc([1], [3.0]) == 3 and e_aurc([1], [3.0]) == 0


@pytest.mark.parametrize('r', [0.05, 0.5, 0.9])
def test_the_perfect_order_tends_to_the_formula(r):
    wrong = np.arange(200_000) < 200_000 * r
    assert aurc(wrong, wrong) == pytest.approx(r + (1 - r) * np.log(1 - r), abs=1e-4)
    assert e_aurc(wrong, wrong) == 0


@pytest.mark.parametrize('levels', [2, 5, 1000])
def test_auroc_is_that_of_scikit_learn_and_gives_augrc(levels):
    rng = np.random.default_rng(levels)
    for _ in range(20):
        u, wrong = rng.integers(0, levels, 60), rng.random(60) < 0.3
        a, r = error_auroc(u, wrong), wrong.mean()
        assert a == pytest.approx(roc_auc_score(wrong, u), abs=1e-12)
        assert augrc(u, wrong) == pytest.approx(
            (1 - a) * r * (1 - r) + r * r / 2 + r / 120, abs=1e-12
        )


def test_what_has_no_answer_is_nan_with_a_reason():
    with pytest.warns(FastaiALWarning, match='0 of 2 items are wrong'):
        assert np.isnan(error_auroc([1, 2], [0, 0]))
    with pytest.warns(FastaiALWarning, match='2 of 2 items are wrong'):
        assert np.isnan(error_auroc([1, 2], [1, 1]))
    with pytest.warns(FastaiALWarning, match='uncertainty is 1 for all 3'):
        assert np.isnan(correlation([1, 1, 1], [1, 2, 3])).all()
    with pytest.warns(FastaiALWarning, match='performance is 0 for all 3'):
        assert np.isnan(correlation([1, 2, 3], [0, 0, 0])).all()


@pytest.mark.parametrize(
    'method, reference', [('spearman', stats.spearmanr), ('pearson', stats.pearsonr)]
)
def test_correlation_against_scipy(method, reference):
    rng = np.random.default_rng(3)
    u = rng.integers(0, 10, 80)
    p = (rng.random(80) < 1 / (1 + np.exp(u - 5))).astype(float)
    value, low, high = correlation(u, p, method)
    assert value == pytest.approx(reference(u, p)[0], abs=1e-12)
    draws = np.random.default_rng(0).integers(80, size=(1000, 80))
    assert [low, high] == pytest.approx(
        np.quantile([reference(u[i], p[i])[0] for i in draws], [0.025, 0.975]), abs=1e-9
    )
    wide = correlation(u, p, method, confidence=0.99)
    assert wide[1] < low < value < high < wide[2]


def test_the_interval_covers_the_truth_about_as_often_as_stated():
    rng, hits = np.random.default_rng(0), 0
    for i in range(100):
        a = rng.normal(size=60)
        _, low, high = correlation(
            a, -0.6 * a + 0.8 * rng.normal(size=60), 'pearson', n_boot=300, seed=i
        )
        hits += low <= -0.6 <= high
    assert 86 <= hits <= 100


def test_correlation_is_seeded_and_leaves_numpy_alone():
    rng = np.random.default_rng(0)
    u, p = rng.normal(size=(2, 50))
    np.random.seed(5)
    before = np.random.get_state()[1].copy()
    assert correlation(u, p) == correlation(u, p) != correlation(u, p, seed=1)
    assert (np.random.get_state()[1] == before).all()
    assert correlation(u, -3 * u + 2, 'pearson')[1:] == pytest.approx((-1, -1)) and correlation(
        u, u**3
    )[0] == pytest.approx(1)


def test_resamples_of_equal_items_are_left_out():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert np.isfinite(correlation([1, 2, 3, 4], [0, 0, 0, 1])).all()


def test_bins_have_equal_mass_and_the_error_is_a_loop():
    rng = np.random.default_rng(0)
    c, ok = rng.random(103), rng.random(103) < 0.5
    said, true, items = reliability_bins(c, ok)
    assert (
        items.sum() == 103
        and set(items) == {6, 7}
        and len(items) == 15
        and (np.diff(said) > 0).all()
    )
    order, start, total = np.argsort(c), 0, 0
    for size in items:
        some = order[start : start + size]
        total += abs(c[some].mean() - ok[some].mean()) * size
        start += size
    assert adaptive_ece(c, ok) == pytest.approx(total / 103)
    assert adaptive_ece(c, ok, bins=1) == pytest.approx(abs(c.mean() - ok.mean()))
    assert adaptive_ece([0.7], [1]) == pytest.approx(0.3)


@pytest.mark.parametrize('f', PAIRED + [correlation], ids=lambda f: f.__name__)
def test_bad_input(f):
    with pytest.raises(ValueError, match='of items is 0'):
        f([], [])
    with pytest.raises(ValueError, match='differ in length.* 4.* 3'):
        f([0, 1, 0, 1], [0, 1, 1])
    with pytest.raises(ValueError, match='nan for 1 of 4'):
        f([0, float('nan'), 1, 1], [0, 1, 0, 1])
    with pytest.raises(ValueError, match='nan for 1 of 4'):
        f([0, 0, 1, 1], [0, 1, float('nan'), 1])
    with pytest.raises(ValueError, match=r'shape \[4, 1\]'):
        f(np.zeros((4, 1)), np.zeros(4))


def test_more_bad_input():
    with pytest.raises(ValueError, match='method='):
        correlation([1, 2, 3], [1, 2, 3], 'kendall')
    with pytest.raises(ValueError, match='confidence=95'):
        correlation([1, 2, 3], [1, 2, 3], confidence=95)
    with pytest.raises(ValueError, match='n_boot=0'):
        correlation([1, 2, 3], [1, 2, 3], n_boot=0)
    with pytest.raises(ValueError, match='of items is 2, and at least 3 are needed'):
        correlation([1, 2], [1, 2])
    with pytest.raises(ValueError, match='correct runs from 0 to 2'):
        adaptive_ece([0.5, 0.5], [0, 2])
    for bins in (0, 2.5, True):
        with pytest.raises(ValueError, match='bins='):
            adaptive_ece([0.5], [1], bins)
