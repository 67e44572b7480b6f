"""The same tensors into batchbald_redux and Baal: the same scores out, and batches that are
worth as much"""

import gc

import numpy as np
import pytest
import torch
from test_batchbald import problem

from fastai_al.acquisition.batchbald import batchbald
from fastai_al.acquisition.information import joint_information
from fastai_al.acquisition.scores import bald, entropy, margin

redux = pytest.importorskip(
    'batchbald_redux.batchbald',
    reason="batchbald_redux is not installed: pip install 'fastai_al[parity]'",
)
heuristics = pytest.importorskip(
    'baal.active.heuristics.heuristics',
    reason="Baal is not installed: pip install 'fastai_al[parity]'",
)


def test_bald_is_theirs():
    log_probs = problem(200, 20, 6, dtype=torch.float64)
    theirs = redux.get_bald_batch(log_probs, 10, dtype=torch.double)
    ours = bald(log_probs).topk(10)
    assert ours.indices.tolist() == list(theirs.indices)
    np.testing.assert_allclose(ours.values, theirs.scores, atol=1e-10)
    stacked = log_probs.exp().permute(0, 2, 1).numpy()  # Baal: [N, C, K]
    np.testing.assert_allclose(bald(log_probs), heuristics.BALD().compute_score(stacked), atol=1e-4)
    np.testing.assert_allclose(
        entropy(log_probs),
        heuristics.Entropy().compute_score(log_probs.exp().mean(1).numpy()),
        atol=1e-4,
    )
    theirs = heuristics.Margin().compute_score(
        log_probs.exp().mean(1).numpy()
    )  # there, lower is better
    np.testing.assert_allclose(-margin(log_probs), theirs, atol=1e-4)


@pytest.mark.parametrize('seed', range(3))
def test_the_exact_part_of_batchbald_is_theirs(seed):
    log_probs = problem(60, 15, 3, 3.0, seed, torch.float64)
    theirs = redux.get_batchbald_batch(log_probs, 5, num_samples=100_000, dtype=torch.double)
    ours = batchbald(log_probs, 5)
    assert ours.indices.tolist() == list(theirs.indices)
    # theirs reports the joint information after each pick less nothing; ours what each pick added
    np.testing.assert_allclose(np.cumsum(ours.gains), theirs.scores, atol=1e-4)


def test_the_sampled_part_is_worth_as_much_at_equal_samples(monkeypatch):
    "Judged by an independent estimate from many samples, over 20 problems"
    monkeypatch.setattr(gc, 'collect', lambda *_: 0)  # what takes them most of the time
    ours, theirs = [], []
    for seed in range(20):
        log_probs = problem(50, 30, 5, 1.5, seed, torch.float64)
        torch.manual_seed(seed)
        other = redux.get_batchbald_batch(
            log_probs, 7, num_samples=1000, dtype=torch.double
        ).indices
        own = batchbald(log_probs.float(), 7, samples=1000, seed=seed)
        for found, batch in ((ours, own.indices), (theirs, other)):
            found.append(joint_information(log_probs[batch], 20_000, seed=99))
    difference = np.array(ours) - theirs
    assert difference.mean() > -0.002 and difference.min() > -0.03, difference


def test_where_they_break_ours_does_not():
    "A class with probability 0: NaN there and the batch [0, 1, 2]; float32 at the 42nd pick"
    log_probs = problem(50, 10, 4, 3.0)
    log_probs[7] = torch.nn.functional.one_hot(torch.arange(10) % 4, 4).float().log()
    assert batchbald(log_probs, 3).indices[0] == 7
    assert batchbald(problem(60, 200, 3, 5.0), 45).gains.isfinite().all()


def test_baal_picks_in_reverse_and_one_too_many_ours_does_not():
    log_probs = problem(40, 12, 3, 3.0, dtype=torch.float64)
    assert (
        len(batchbald(log_probs, 4)) == 4
        and bald(log_probs)[batchbald(log_probs, 4).indices[0]] == bald(log_probs).max()
    )
