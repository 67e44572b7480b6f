"Scores for regression against numpy loops, and their properties"

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fastai_al.acquisition import registry
from fastai_al.acquisition.registry import find_acquisition, parameters_of, score
from fastai_al.acquisition.regression import (
    gaussian_bald,
    heteroscedastic_bald,
    predictive_variance,
)


def naive_variance(V):
    return sum(np.mean((V[:, d] - V[:, d].mean()) ** 2) for d in range(V.shape[1]))


def naive_bald(V, S):
    "One item: means [K, D] and noise variances [K, D]"
    return sum(
        0.5
        * (
            math.log(np.mean((V[:, d] - V[:, d].mean()) ** 2) + S[:, d].mean())
            - np.mean([math.log(s) for s in S[:, d]])
        )
        for d in range(V.shape[1])
    )


def drawn(*shape, seed=0, dtype=torch.double):
    return torch.randn(
        *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double
    ).to(dtype)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
@pytest.mark.parametrize('sites', [(), (4,), (2, 3)], ids=['no sites', 'labels', 'pixels'])
def test_against_a_naive_loop(sites, dtype):
    values, noise = (
        3 * drawn(6, 5, *sites, 2, dtype=dtype) + 7,
        drawn(6, 5, *sites, 2, seed=1, dtype=dtype).exp(),
    )
    flat = lambda t: t.double().movedim(1, -2).reshape(-1, 5, 2).numpy()
    shape = (6, *sites)
    for got, expected in (
        (predictive_variance(values), [naive_variance(V) for V in flat(values)]),
        (
            heteroscedastic_bald(values, noise),
            [naive_bald(V, S) for V, S in zip(flat(values), flat(noise))],
        ),
        (gaussian_bald(values, 0.3), [naive_bald(V, np.full(V.shape, 0.3)) for V in flat(values)]),
        (
            gaussian_bald(values, torch.tensor([0.25, 2.0])),
            [naive_bald(V, np.tile([0.25, 2.0], (5, 1))) for V in flat(values)],
        ),
    ):
        assert got.shape == shape and got.dtype == torch.double
        np.testing.assert_allclose(got.flatten(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    'shape',
    [(1, 1, 1, 2), (6, 1, 1, 2), (1, 5, 1, 1), (6, 5, 3, 2), (1, 1, 3, 1), (5, 3, 2), (3, 2), (2,)],
)
def test_noise_broadcasts(shape):
    values, noise = drawn(6, 5, 3, 2), drawn(*shape, seed=1).exp()
    torch.testing.assert_close(
        heteroscedastic_bald(values, noise), heteroscedastic_bald(values, noise.expand(6, 5, 3, 2))
    )
    torch.testing.assert_close(
        heteroscedastic_bald(values, torch.tensor([0.5, 2.0])),
        gaussian_bald(values, torch.tensor([0.5, 2.0])),
    )


def test_noise_of_many_items_does_not_depend_on_the_pieces(monkeypatch):
    values, noise = drawn(50, 5, 3), torch.tensor([0.1, 1.0, 10.0])
    whole = gaussian_bald(values, noise)
    monkeypatch.setattr(registry, 'rows_in_cache', lambda *_: 7)
    torch.testing.assert_close(gaussian_bald(values, noise), whole)


@pytest.mark.parametrize(
    'noise',
    [torch.ones(6, 5, 3), torch.ones(2), torch.ones(6), torch.ones(1, 3)],
    ids=['all', 'two', 'items', 'row'],
)
def test_gaussian_bald_refuses_noise_of_items(noise):
    with pytest.raises(ValueError, match='heteroscedastic_bald'):
        gaussian_bald(drawn(6, 5, 3), noise)


@pytest.mark.parametrize('noise', [0.0, -1.0, math.nan, torch.tensor([1.0, 0.0])])
def test_noise_has_to_be_positive(noise):
    with pytest.raises(ValueError, match='above 0'):
        gaussian_bald(drawn(6, 5, 2), noise)


@given(
    st.integers(1, 5),
    st.integers(2, 20),
    st.integers(1, 4),
    st.floats(1e-3, 1e3),
    st.floats(1e-3, 1e3),
    st.integers(0, 10**6),
)
@settings(max_examples=60, deadline=None)
def test_properties(b, k, d, scale, noise, seed):
    values = drawn(b, k, d, seed=seed)
    variance, nats = predictive_variance(values), gaussian_bald(values, noise)
    assert (variance >= 0).all() and (nats >= 0).all() and variance.shape == nats.shape == (b,)
    torch.testing.assert_close(predictive_variance(scale * values - 4), scale**2 * variance)
    torch.testing.assert_close(
        gaussian_bald(scale * values - 4, scale**2 * noise), nats
    )  # nats have no unit
    torch.testing.assert_close(
        gaussian_bald(values[:, torch.randperm(k)], noise), nats
    )  # draws have no order
    torch.testing.assert_close(
        gaussian_bald(values[..., torch.randperm(d)], noise), nats
    )  # nor outputs
    assert (gaussian_bald(values, 2 * noise) <= nats).all() and (
        gaussian_bald(values, noise / 2) >= nats
    ).all()
    if d == 1:
        assert torch.equal(nats.argsort(), variance.argsort())


def test_equal_draws_have_no_information_and_small_variances_are_not_lost():
    values = drawn(4, 1, 2).expand(-1, 9, -1)
    assert predictive_variance(values).max() < 1e-30 and gaussian_bald(values).max() < 1e-30
    assert (
        heteroscedastic_bald(values, torch.linspace(1, 2, 9)[None, :, None].expand(4, 9, 2)).min()
        > 0.01
    )  # but noise on which draws differ does
    small = torch.tensor([[[0.0], [2e-5]]])  # float32, variance 1e-10
    assert gaussian_bald(small).item() == pytest.approx(5e-11, rel=1e-4)


def test_bad_draws_are_refused():
    for f in (predictive_variance, gaussian_bald):
        with pytest.raises(ValueError, match='MCDropout'):
            f(drawn(3, 1, 2))
        with pytest.raises(ValueError, match='NaN'):
            f(drawn(3, 4, 2).index_fill(0, torch.tensor([1]), math.nan))
        with pytest.raises(ValueError, match='values'):
            f(drawn(3, 4))


def test_they_have_names_and_are_given_probabilities():
    log_probs = drawn(5, 4, 3).log_softmax(-1)
    assert find_acquisition('gaussian_bald') is gaussian_bald
    assert parameters_of(gaussian_bald)[0] == parameters_of(predictive_variance)[0] == 'values'
    torch.testing.assert_close(
        score('predictive_variance', log_probs), predictive_variance(log_probs.exp())
    )
    mean_and_log_variance = drawn(5, 4, 2).log_softmax(-1)
    got = score(
        lambda values: heteroscedastic_bald(values[..., :1], values[..., 1:].exp()),
        mean_and_log_variance,
    )
    torch.testing.assert_close(
        got,
        heteroscedastic_bald(
            *(
                f(x)
                for f, x in zip((lambda t: t, torch.exp), mean_and_log_variance.exp().split(1, -1))
            )
        ),
    )


def test_gaussian_bald_is_an_upper_bound_that_is_exact_for_gaussian_draws():
    """The draws' prediction is a mixture; of all densities of one variance the Gaussian has the
    largest entropy, so the formula is never below the information of the mixture"""
    noise, x = 0.25, np.linspace(-30, 30, 20_001)

    def exactly(means):
        density = np.mean(
            [np.exp(-((x - m) ** 2) / 2 / noise) / math.sqrt(2 * math.pi * noise) for m in means], 0
        )
        mixture = -(density * np.log(density + 1e-300)).sum() * (x[1] - x[0])
        return mixture - 0.5 * math.log(2 * math.pi * math.e * noise)

    def ours(means):
        return gaussian_bald(torch.tensor(means)[None, :, None], noise).item()

    for means in ([-4.0, 4.0], [-1.0, 0.0, 3.0], np.random.default_rng(0).normal(size=7).tolist()):
        assert 0 < exactly(means) <= ours(means) + 1e-6
    assert ours([-4.0, 4.0]) > 2 * exactly([-4.0, 4.0])  # two opinions far apart: log 2, no more
    quantiles = stats.norm.ppf((np.arange(2000) + 0.5) / 2000).tolist()
    assert ours(quantiles) == pytest.approx(exactly(quantiles), rel=0.01)
    assert ours(quantiles) == pytest.approx(0.5 * math.log(1 + 1 / noise), rel=0.01)
