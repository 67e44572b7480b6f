"""The learning curve and what it will come to: exact curves, coverage, targets that are reached,
or never, and scores that make no curve"""

import math

import numpy as np
import pandas as pd
import pytest

from conftest import class_of, pool_learner, small_pool
from fastai_al.active_learner import ActiveLearner
from fastai_al.loop.forecast import Forecast, _density, forecast

SIZES = np.arange(1, 11) * 30.0


def law(n, a=3.0, b=0.6, c=0.05):
    return a * np.asarray(n, dtype=float) ** -b + c


def noisy(seed: int = 0, sd: float = 0.01, curves: int | None = None):
    return (
        law(SIZES)[:, None] + sd * np.random.default_rng(seed).normal(size=(10, curves or 1))
        if curves
        else law(SIZES) + sd * np.random.default_rng(seed).normal(size=10)
    )


@pytest.mark.parametrize(
    'a, b, c, target', [(3, 0.6, 0.05, 0.1), (1, 0.3, 0, 0.15), (8, 1.1, 0.1, 0.12)]
)
def test_an_exact_curve_is_recovered(a, b, c, target):
    found, truly = (
        forecast(SIZES, law(SIZES, a, b, c), target, higher_is_better=False),
        (a / (target - c)) ** (1 / b),
    )
    assert (
        found.interval[0] - 1 <= truly <= found.interval[1]
        and abs(found.labels / truly - 1) < 0.1
        and found.interval[1] / found.interval[0] < 1.25
    )
    np.testing.assert_allclose(found.at([100, 600]).middle, law([100, 600], a, b, c), atol=2e-3)
    assert found.share_reaching > 0.99 and found.labels_to_add == max(0, found.labels - 300)


def test_the_density_is_the_likelihood_with_size_and_noise_integrated_out():
    "against sums over a fine grid of sizes and noises"
    x, errors, weights = (
        np.array([0.2, 0.4, 0.6, 0.8, 1.0]),
        np.array([0.5, 0.36, 0.33, 0.27, 0.26]),
        np.array([1.0, 2, 3, 4, 5]),
    )
    b, c = np.array([0.3, 0.9]), np.array([0.0, 0.1, 0.2])
    sizes, sds = (
        np.linspace(0, 2, 4001)[:, None],
        np.exp(np.linspace(np.log(1e-3), np.log(30), 600))[None],
    )
    naive = np.zeros((2, 3))
    for i in range(2):
        for j in range(3):
            rest = (weights * (errors - c[j] - sizes * x ** -b[i]) ** 2).sum(1)[:, None]
            naive[i, j] = np.log(
                (np.exp(-0.5 * rest / sds**2) ** 0.5 * sds**-2.5).sum()
            )  # five rounds, each for half of one; d sd / sd
    found = _density(x, errors, weights, b, c)[0]
    np.testing.assert_allclose(found - found[0, 0], naive - naive[0, 0], atol=0.02)


def test_the_name_of_the_metric_gives_the_direction_of_a_forecast():
    for name in ('error_rate', 'BrierScore', 'cross_entropy'):
        found = forecast(SIZES, noisy(), 0.1, metric=name)
        assert (
            not found.higher_is_better
            and found.best == 0
            and np.array_equal(
                found.curves, forecast(SIZES, noisy(), 0.1, higher_is_better=False).curves
            )
        )
    assert (
        forecast(SIZES, 1 - noisy(), 0.9, metric='accuracy').higher_is_better
        and forecast(SIZES, 1 - noisy(), 0.9).higher_is_better
    )
    with pytest.raises(ValueError, match='Is a higher foo better'):
        forecast(SIZES, noisy(), 0.1, metric='foo')
    assert not forecast(SIZES, noisy(), 0.1, metric='foo', higher_is_better=False).higher_is_better


def test_rising_and_falling_scores_give_the_same():
    up, down = (
        forecast(SIZES, 1 - noisy(), 0.9),
        forecast(SIZES, noisy(), 0.1, higher_is_better=False),
    )
    percent = forecast(SIZES, 100 - 100 * noisy(), 90, best=100)
    np.testing.assert_allclose(up.needed_by_curve, down.needed_by_curve, rtol=1e-6)
    np.testing.assert_allclose(
        up.at(500).to_numpy(), 1 - down.at(500).to_numpy()[:, ::-1], atol=2e-3
    )
    assert abs(percent.labels / up.labels - 1) < 0.02


def test_the_interval_holds_the_truth():
    random, of_score, of_labels = np.random.default_rng(0), [], []
    for seed in range(60):
        b, c, first = random.uniform(0.15, 1.2), random.uniform(0, 0.15), random.uniform(0.2, 0.5)
        errors = lambda n: (first - c) * (np.asarray(n) / 30) ** -b + c
        found = forecast(
            SIZES,
            errors(SIZES) + 0.01 * random.normal(size=10),
            errors(600),
            higher_is_better=False,
            seed=seed,
        )
        row = found.at(600).iloc[0]
        of_score.append(row.low <= errors(600) <= row.high)
        of_labels.append(found.interval[0] - 1 <= 600 <= found.interval[1])
    assert np.mean(of_score) >= 0.8 and np.mean(of_labels) >= 0.8


def test_intervals_grow_with_distance_noise_and_level():
    found = forecast(SIZES, noisy(), 0.1, higher_is_better=False)
    widths = (found.at([150, 300, 600, 1200]).high - found.at([150, 300, 600, 1200]).low).tolist()
    assert widths[0] < widths[1] < widths[2] < widths[3]

    def width(**kwargs):
        return np.ptp(
            forecast(SIZES, noisy(sd=kwargs.pop('sd', 0.01)), 0.1, higher_is_better=False, **kwargs)
            .at(600)
            .iloc[0]
        )

    assert width(sd=0.003) < width() < width(sd=0.03) and width(confidence=0.5) < width() < width(
        confidence=0.95
    )


def test_what_is_never_reached():
    found = forecast(SIZES, noisy(sd=0.001), 0.01, higher_is_better=False, metric='error_rate')
    assert (
        math.isinf(found.labels)
        and math.isinf(found.labels_to_add)
        and found.share_reaching < 0.05
        and 'is not expected' in repr(found)
        and 'Error rate 0.01' in repr(found)
    )
    maybe = forecast(SIZES, noisy(sd=0.004), 0.07, higher_is_better=False)
    assert (
        0.5 < maybe.share_reaching < 1
        and math.isfinite(maybe.labels)
        and ('may never' in repr(maybe) or f'{maybe.interval[1]:,.0f}' in repr(maybe))
    )
    far = forecast(
        SIZES, law(SIZES, 1, 0.05, 0), law(300 * 110, 1, 0.05, 0), higher_is_better=False
    )  # reached, beyond a hundred times the labels
    assert (
        far.share_reaching < 0.9
        and (far.needed_by_curve[np.isfinite(far.needed_by_curve)] <= 100 * 300).all()
    )


def test_what_is_reached_already():
    found = forecast(SIZES, noisy(), 0.3, higher_is_better=False)
    assert found.labels_to_add == 0 and found.labels < 300 and 'reached already' in repr(found)


def test_a_flat_curve_never_reaches_a_target():
    found = forecast(
        SIZES, 0.3 + 0.01 * np.random.default_rng(0).normal(size=10), 0.1, higher_is_better=False
    )
    assert found.share_reaching < 0.5 and abs(found.at(600).middle.iloc[0] - 0.3) < 0.03


def test_several_curves_are_more_informative_than_one():
    some = noisy(curves=6, sd=0.02)
    one, six = (
        forecast(SIZES, some[:, 0], 0.1, higher_is_better=False),
        forecast(SIZES, pd.DataFrame(some, index=SIZES), 0.1, higher_is_better=False),
    )
    assert np.ptp(six.at(600).iloc[0]) < np.ptp(one.at(600).iloc[0]) and six.scores.shape == (10, 6)
    shifted = law(SIZES)[:, None] + np.linspace(
        -0.05, 0.05, 6
    )  # seeds that differ by more than their noise
    assert (
        np.ptp(forecast(SIZES, shifted, 0.1, higher_is_better=False).at(600).iloc[0])
        > np.ptp(forecast(SIZES, law(SIZES), 0.1, higher_is_better=False).at(600).iloc[0]) + 0.01
    )


def test_curves_with_gaps_and_rounds_in_any_order():
    some = noisy(curves=3)
    some[[1, 4, 7], [0, 1, 2]] = np.nan
    found = forecast(SIZES[::-1], some[::-1], 0.1, higher_is_better=False)
    np.testing.assert_array_equal(
        found.curves, forecast(SIZES, some, 0.1, higher_is_better=False).curves
    )
    assert np.isfinite(found.curves).all()
    apart = np.full(
        (20, 2), np.nan
    )  # seeds that were never measured with the same number of labels
    apart[:10, 0], apart[10:, 1] = noisy(0), noisy(1)
    assert forecast([*SIZES, *SIZES + 7], apart, 0.1, higher_is_better=False).share_reaching > 0.5
    twice = forecast([*SIZES, 300.0], [*noisy(), noisy()[-1]], 0.1, higher_is_better=False)
    np.testing.assert_array_equal(
        twice.curves, forecast(SIZES, noisy(), 0.1, higher_is_better=False).curves
    )


def test_late_rounds_weigh_more():
    early, late = noisy(sd=0), noisy(sd=0)
    early[0] += 0.03
    late[-1] += 0.03
    moved = [
        abs(forecast(SIZES, s, 0.1, higher_is_better=False).at(300).middle.iloc[0] - law(300))
        for s in (early, late)
    ]
    assert moved[0] < moved[1] / 2


def test_the_same_seed_gives_the_same_and_nobody_elses_is_touched():
    before = np.random.get_state()[1].copy()
    one, same, other = (
        forecast(SIZES, noisy(), 0.1, higher_is_better=False, seed=s) for s in (1, 1, 2)
    )
    assert (
        (one.curves == same.curves).all()
        and (one.curves != other.curves).any()
        and (np.random.get_state()[1] == before).all()
    )
    assert abs(one.labels / other.labels - 1) < 0.1


@pytest.mark.parametrize(
    'arguments, kwargs, message',
    [
        ((SIZES[:4], law(SIZES[:4]), 0.1), {}, 'needs 5'),
        (([10] * 8, [0.5] * 8, 0.1), {}, '1 different'),
        (([], [], 0.1), {}, '0 different'),
        ((SIZES, [np.nan] * 10, 0.1), {}, '0 different'),
        ((SIZES, law(SIZES)[:5], 0.1), {}, r'scores of shape \[5\]'),
        ((SIZES, np.zeros((10, 2, 2)), 0.1), {}, r'\[10, 2, 2\]'),
        ((SIZES - 30, law(SIZES), 0.1), {}, 'above 0'),
        ((SIZES, [np.inf, *law(SIZES)[1:]], 0.1), {}, 'infinite'),
        ((SIZES, law(SIZES), 1.2), {}, 'best=1'),
        ((SIZES, law(SIZES), math.nan), {}, 'not a number'),
        ((SIZES, 100 * law(SIZES), 0.9), {}, 'Give best='),
        ((SIZES, [1.0] * 10, 0.9), {}, 'nothing to forecast'),
        ((SIZES, law(SIZES), 0.1), dict(confidence=1), 'confidence=1'),
        ((SIZES, -law(SIZES), 0.1), dict(higher_is_better=False), 'better than best=0'),
    ],
)
def test_bad_input(arguments, kwargs, message):
    with pytest.raises(ValueError, match=message):
        forecast(*arguments, **kwargs)


def test_bad_numbers_of_labels():
    for bad in (0, -5, math.nan, [10, math.inf]):
        with pytest.raises(ValueError, match='above 0'):
            forecast(SIZES, noisy(), 0.1, higher_is_better=False).at(bad)


@pytest.mark.parametrize('target', [0.3, 0.1, 0.06, 0.01])
def test_it_can_be_drawn(target):
    import matplotlib.pyplot as plt

    for scores in (noisy(), noisy(curves=3)):
        found = forecast(SIZES, scores, target, higher_is_better=False, metric='error_rate')
        ax = found.plot()
        assert ax.get_ylabel() == 'error rate' and ax.get_xlim()[1] >= 600
        plt.close(ax.figure)


def test_of_a_campaign():
    pool = small_pool(n=120, labelled=10, held=30)
    learn = ActiveLearner(pool_learner(pool), pool)
    with learn.no_bar(), learn.no_logging():
        with pytest.raises(ValueError, match='have no accuracy'):
            learn.forecast(0.9)
        for i in range(6):
            learn.fit(2, 1e-2)
            if i == 3:
                with pytest.raises(ValueError, match='needs 5'):
                    learn.forecast(0.95)
            if i == 5:
                break
            query = learn.acquire(8, by='random')
            learn.label(query, [class_of(u) for u in query.uids])
    history, found, loss = (
        learn.history,
        learn.forecast(0.95),
        learn.forecast(0.05, 'valid_loss', confidence=0.5),
    )
    assert (
        isinstance(found, Forecast)
        and found.scores[0].tolist() == history.accuracy.tolist()
        and found.scores.index.tolist() == history.labelled.tolist() == [10, 18, 26, 34, 42, 50]
    )
    assert (
        found.higher_is_better
        and found.best == 1
        and found.metric == 'accuracy'
        and not loss.higher_is_better
        and loss.best == 0
        and loss.confidence == 0.5
    )
    with pytest.raises(ValueError, match="metric='dice'"):
        learn.forecast(0.9, 'dice')
