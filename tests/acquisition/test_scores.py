"Acquisition functions against numpy loops, and their properties"

import inspect
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile

from fastai_al.acquisition import information
from fastai_al.acquisition.information import epig, joint_information
from fastai_al.acquisition.registry import ACQUISITION, acquisition, find_acquisition, score
from fastai_al.acquisition.scores import (
    bald,
    entropy,
    least_confidence,
    margin,
    random,
    variation_ratio,
)
from fastai_al.core.rng import key_of


def H(p):
    return -sum(v * math.log(v) for v in p if v > 0)


NAIVE = {  # one item: draws [K][C] -> score
    'entropy': lambda P: H(np.mean(P, 0)),
    'least_confidence': lambda P: sum(sorted(np.mean(P, 0))[:-1]),
    'margin': lambda P: -(sorted(np.mean(P, 0))[-1] - sorted(np.mean(P, 0))[-2]),
    'variation_ratio': lambda P: 1 - np.bincount([int(np.argmax(p)) for p in P]).max() / len(P),
    'expected_entropy': lambda P: np.mean([H(p) for p in P]),
    'mean_std': lambda P: np.std(P, 0).mean(),
    'bald': lambda P: H(np.mean(P, 0)) - np.mean([H(p) for p in P]),
}


@pytest.mark.parametrize('name', NAIVE)
@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
def test_against_a_naive_loop(name, dtype):
    log_probs = (4 * torch.randn(40, 7, 5, dtype=dtype)).log_softmax(-1)
    exact = [NAIVE[name](P) for P in log_probs.double().exp().numpy()]
    np.testing.assert_allclose(
        ACQUISITION[name](log_probs), exact, rtol=1e-9, atol=1e-13
    )  # also of draws in single precision


def test_every_function_has_a_naive_twin_or_uses_no_input():
    assert {*ACQUISITION} >= {
        *NAIVE,
        'random',
        'epig',
        'predictive_variance',
        'gaussian_bald',
        'local_divergence',
    }  # the last four have tests of their own
    for f in ACQUISITION.values():
        assert f.__module__.startswith('fastai_al.acquisition.'), 'registered by a test'


def test_certain_draws_give_no_nan():
    log_probs = torch.tensor(
        [[[0.0, -math.inf], [-math.inf, 0.0]], [[0.0, -math.inf], [0.0, -math.inf]]]
    )
    assert bald(log_probs).tolist() == pytest.approx([math.log(2), 0]) and entropy(
        log_probs
    ).tolist() == pytest.approx([math.log(2), 0])
    for f in (least_confidence, margin, variation_ratio):
        assert f(log_probs).isfinite().all()


@given(
    st.integers(1, 6),
    st.integers(2, 30),
    st.integers(2, 12),
    st.floats(0, 60),
    st.integers(0, 10**6),
)
@settings(max_examples=80, deadline=None)
def test_bounds(b, k, c, sharpness, seed):
    log_probs = (
        sharpness * torch.randn(b, k, c, generator=torch.Generator().manual_seed(seed))
    ).log_softmax(-1)
    scores, tolerance = bald(log_probs), 1e-5
    assert (
        (scores >= 0).all()
        and (scores <= min(math.log(k), math.log(c)) + tolerance).all()
        and (scores <= entropy(log_probs) + tolerance).all()
    )
    assert (entropy(log_probs) <= math.log(c) + tolerance).all()
    assert (variation_ratio(log_probs) <= 1 - 1 / min(k, c) + tolerance).all()
    same = log_probs[:, :1].expand(-1, k, -1)
    assert bald(same).abs().max() < tolerance and variation_ratio(same).abs().max() < tolerance


def test_probabilities_of_the_check_are_returned_on_request():
    @acquisition
    def first_class(log_probs, probs):
        return probs[:, 0, 0]  # a view

    try:
        log_probs = torch.randn(3000, 20, 30).log_softmax(-1)  # several pieces
        torch.testing.assert_close(first_class(log_probs), log_probs[:, 0, 0].double().exp())
        assert (
            list(inspect.signature(first_class).parameters)
            == list(inspect.signature(bald).parameters)
            == ['log_probs']
        )
        assert not bald(log_probs[:5].requires_grad_()).requires_grad
    finally:
        del ACQUISITION['first_class']


def test_bfloat16_draws_of_many_classes():
    for c in (57, 100, 1000):
        torch.testing.assert_close(
            entropy(torch.zeros(3, 2, c).log_softmax(-1).bfloat16()),
            torch.full((3,), math.log(c), dtype=torch.double),
            rtol=0.03,
            atol=0,
        )


def test_bald_of_one_draw_is_refused():
    with pytest.raises(ValueError, match='MCDropout'):
        bald(torch.zeros(3, 1, 2))


def test_random_belongs_to_the_item_and_the_seed():
    log_probs, keys = (
        torch.full((1000, 1, 2), -math.log(2)),
        torch.tensor([key_of(i) for i in range(1000)]),
    )
    one = random(log_probs, keys=keys, seed=1)
    assert torch.equal(
        one.flip(0), random(log_probs, keys=keys.flip(0), seed=1)
    ) and not torch.equal(one, random(log_probs, keys=keys, seed=2))
    assert abs(one.mean() - 0.5) < 0.04 and one.unique().numel() > 990


def test_names_and_functions_mean_the_same():
    log_probs = torch.randn(5, 4, 3).log_softmax(-1)
    assert find_acquisition('bald') is bald and find_acquisition(bald) is bald
    assert torch.equal(score('bald', log_probs), score(bald, log_probs))
    with pytest.raises(ValueError, match='Known: bald'):
        find_acquisition('bold')
    for bad in (
        lambda lp: lp.sum(),
        lambda lp: 3,
        lambda lp: lp.mean((1, 2)).tolist(),
        lambda lp: lp,
    ):
        with pytest.raises(ValueError, match='one score an item'):
            score(bad, log_probs)


# Joint information


def exact_joint(log_probs):
    P = log_probs.double().exp().numpy()  # [n, K, C]
    n, k, c = P.shape
    joint = np.ones((k, 1))
    for item in P:
        joint = (joint[:, :, None] * item[:, None, :]).reshape(k, -1)
    return H(joint.mean(0)) - np.mean([H(row) for row in joint])


@pytest.mark.parametrize('n', [1, 2, 3, 4])
def test_joint_information_agrees_with_enumeration(n):
    log_probs = (3 * torch.randn(n, 6, 3)).log_softmax(-1)
    assert joint_information(log_probs, 200_000) == pytest.approx(exact_joint(log_probs), abs=0.01)


def test_joint_information_of_a_repeated_item_saturates_below_log_k():
    draws = torch.eye(4).mul(8).log_softmax(-1)  # each draw sure of another class
    once, often = joint_information(draws[None]), joint_information(draws[None].expand(30, -1, -1))
    assert once < often <= math.log(4) + 1e-9 and often == pytest.approx(math.log(4), abs=1e-3)


# Scores as exact as the draws


def divergence(P):
    return np.mean(
        [
            math.fsum(
                float(p) * (math.log(p) - math.log(m)) for p, m in zip(row, np.mean(P, 0)) if p > 0
            )
            for row in P
        ]
    )


@pytest.mark.parametrize('size', [1.0, 1e-1, 1e-2, 1e-3, 1e-4])
def test_small_bald_is_known_to_as_many_digits_as_the_draws(size):
    """Draws that differ by `size`, in single precision: their BALD is about size² / 2, far below
    the rounding error of an entropy"""
    log_probs = (torch.randn(30, 1, 3) + size * torch.randn(30, 20, 3)).log_softmax(-1)
    exact = [divergence(P) for P in log_probs.double().exp().numpy()]
    np.testing.assert_allclose(bald(log_probs), exact, rtol=1e-6, atol=1e-15)


@given(st.floats(1e-4, 3), st.integers(2, 20), st.integers(2, 8), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_rounding_of_outputs_moves_bald_by_little(size, k, c, seed):
    "The error that the notebook states: of outputs that are off by e at most, e sqrt(8 BALD) + e²"
    g, e = torch.Generator().manual_seed(seed), 1e-6
    logits = torch.randn(10, 1, c, generator=g) + size * torch.randn(10, k, c, generator=g)
    moved = logits + e * (2 * torch.rand(logits.shape, generator=g) - 1)
    exact, other = bald(logits.double().log_softmax(-1)), bald(moved.log_softmax(-1))
    assert ((other - exact).abs() <= 2 * e * (8 * exact).sqrt() + 4 * e**2).all()


def test_tiny_scores_of_sure_predictions_keep_their_size():
    e = 10.0 ** -torch.arange(1, 12)
    log_probs = torch.stack([(1 - e).log(), (0.6 * e).log(), (0.4 * e).log()], -1)[:, None].expand(
        -1, 4, -1
    )
    np.testing.assert_allclose(least_confidence(log_probs), e, rtol=1e-5)


def naive_epig(x, t):
    "One item and one target after the other, every pair of classes"

    def one(P, Q):
        joint = np.einsum('kc,kd->cd', P, Q) / len(P)
        return H(P.mean(0)) + H(Q.mean(0)) - H(joint.flatten())

    return [
        np.mean([one(P, Q) for Q in t.double().exp().numpy()]) for P in x.double().exp().numpy()
    ]


@pytest.mark.parametrize('size', [0.3, 3, 9])
def test_epig_of_many_classes_is_short_by_a_millionth_of_bald(monkeypatch, size):
    monkeypatch.setattr(information, '_MANY', 0)
    x, t = ((size * torch.randn(n, 8, 60, dtype=torch.double)).log_softmax(-1) for n in (4, 3))
    short = naive_epig(x, t) - epig(x, t).numpy()
    assert (
        np.abs(short)
        <= 1e-6 * (bald(x) + bald(t).mean()).numpy() + 1e-6 * np.array(naive_epig(x, t))
    ).all()
    agreed = x[:, :1].expand(-1, 8, -1)
    assert epig(agreed, t).abs().max() < 1e-9 and epig(x, agreed).abs().max() < 1e-9


def test_epig_of_a_thousand_classes_ends_and_stays_small():
    x = torch.randn(8, 10, 1000).log_softmax(-1)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        scores = epig(x, x[:5])
    assert ((scores > 0.03) & (scores < 0.5)).all()
    assert (
        max(event.self_cpu_memory_usage for event in seen.events()) < 8e6
    )  # a table of one item's classes by the targets' would take 20 MB
