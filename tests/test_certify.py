"Certified thresholds: exact cases, promises that hold over many hold-outs, and what can promise nothing"
import math

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from fastai_al.certify import _hoeffding_bentkus, certify_pool, certify_pseudo, least_error, least_held_out


def test_the_pool_threshold_is_the_item_that_breaks_the_promise():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        u, wrong = rng.random(200), rng.random(200) < .08
        found = certify_pool(u, wrong, .05, .1)
        allowed = max(x for x in range(200) if binom.cdf(x, 200, .05) <= .1)
        assert found.threshold == np.sort(u[wrong])[allowed]
        assert (found.below, found.wrong) == ((u < found.threshold).sum(), allowed)


def test_every_threshold_of_pseudo_labels_was_tested():
    rng = np.random.default_rng(1)
    u = rng.random(600)
    wrong = rng.random(600) < .3 * u**2
    grid = np.quantile(rng.random(5000), np.arange(1, 50) / 50)
    found = certify_pseudo(u, wrong, .05, .1, grid=grid)
    assert found.holds and found.threshold in grid
    assert binom.cdf(wrong[u < found.threshold].sum(), found.below, .05) <= .1 / 3
    enough = [t for t in [*grid, np.inf] if (u < t).sum() >= found.needed]
    start = max(t for t in (enough[int(share * len(enough))] for share in (0, 1/3, 2/3)) if t <= found.threshold)      # the run that led there has no gap
    for t in grid[(grid >= start) & (grid <= found.threshold)]: assert binom.cdf(wrong[u < t].sum(), (u < t).sum(), .05) <= .1 / 3


@pytest.mark.parametrize('certify', [certify_pool, certify_pseudo])
@pytest.mark.parametrize('m', [150, 600])
@pytest.mark.parametrize('kind', ['wrong', 'lost'])
def test_promises_hold(certify, m, kind):
    "Of 800 hold-outs at most a share delta breaks the promise, on a distribution whose errors are known: P(wrong | u) = .4 u"
    rng, broken, delta, error = np.random.default_rng(m), 0, .1, .1
    for _ in range(800):
        u = rng.random(m)
        loss = (rng.random(m) < .4 * u).astype(float) if kind == 'wrong' else rng.beta(2, 2, m) * .8 * u
        t = min(certify(u, loss, error, delta).threshold, 1)
        broken += (t > -math.inf) and (.2 * t**2 if certify is certify_pool else .2 * t) > error + 1e-12
    assert binomtest(broken, 800, delta, alternative='greater').pvalue > .001


def test_ties_and_equal_items():
    assert certify_pool(np.zeros(100), np.zeros(100), .05).threshold == math.inf
    assert not certify_pool(np.zeros(100), np.arange(100) < 9, .05).holds        # none is below the other
    u = np.repeat([0., 1.], [80, 20])
    found = certify_pool(u, u == 1, .05)
    assert found.threshold == 1 and found.below == 80
    order = np.random.default_rng(0).permutation(100)
    assert certify_pool(u[order], (u == 1)[order], .05) == found


def test_too_few_are_told_how_many_are_needed():
    found = certify_pool(np.arange(120.), np.zeros(120), .01)
    assert not found.holds and found.needed == least_held_out(.01) == 299 and '299 are needed' in str(found) and '120 labelled' in str(found)
    assert certify_pool(np.arange(299.), np.zeros(299), .01).threshold == math.inf
    assert not certify_pool(np.arange(298.), np.zeros(298), .01).holds
    assert not certify_pool(np.arange(120.), np.zeros(120), least_error(120) - 1e-9).holds and certify_pool(np.arange(120.), np.zeros(120), least_error(120) + 1e-9).holds
    assert 'wrong too often' in str(certify_pseudo(np.arange(500.), np.ones(500), .05))
    for certify in (certify_pool, certify_pseudo): assert not certify([], [], .05).holds
    assert not certify_pseudo(np.arange(60.), np.zeros(60), .05).holds and certify_pseudo(np.arange(85.), np.zeros(85), .05).holds


def test_the_bound_of_losses_between_is_never_below_that_of_errors():
    for n in (10, 100, 1000):
        for error in (.02, .2):
            for x in range(0, n, max(1, n // 7)): assert _hoeffding_bentkus(np.float64(x), n, error) >= min(1, binom.cdf(x, n, error)) - 1e-12


@pytest.mark.parametrize('change, says', [
    (dict(error=0), 'error=0 is a share'), (dict(error=1.), 'between 0 and 1'), (dict(error=True), 'error=True'), (dict(delta=-.1), 'delta=-0.1'), (dict(delta=2), 'delta=2'),
    (dict(loss=[0, 2.]), 'from 0 to 1'), (dict(loss=[0, -1.]), 'from 0 to 1'), (dict(loss=[0]), '2 uncertainties but 1 losses'), (dict(uncertainty=[0, np.nan]), 'NaN'), (dict(loss=[np.nan, 0]), 'NaN')])
@pytest.mark.parametrize('certify', [certify_pool, certify_pseudo])
def test_what_can_not_be_certified_is_an_error(certify, change, says):
    with pytest.raises(ValueError, match=says): certify(**{**dict(uncertainty=[.1, .2], loss=[0, 1], error=.05), **change})
