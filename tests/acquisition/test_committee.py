import math

import numpy as np
import pytest
import torch

from fastai_al.acquisition.committee import max_kl, vote_entropy
from fastai_al.acquisition.contract import StrategyContract
from fastai_al.acquisition.scores import bald, entropy


class TestVoteEntropy(StrategyContract):
    strategy = vote_entropy
    paper = 'https://doi.org/10.1016/B978-1-55860-377-6.50027-X'

    def reference(self, log_probs):
        result = []
        for item in log_probs.tolist():
            votes = [max(range(len(draw)), key=draw.__getitem__) for draw in item]
            shares = [votes.count(c) / len(votes) for c in {*votes}]
            result.append(-sum(s * math.log(s) for s in shares))
        return result


class TestMaxKL(StrategyContract):
    strategy = max_kl
    paper = 'https://arxiv.org/abs/1805.00979'

    def reference(self, log_probs):
        result = []
        for item in log_probs.exp().numpy():
            mean = item.mean(0)
            result.append(max(sum(p * math.log(p / m) for p, m in zip(d, mean)) for d in item))
        return result


class Committee:
    "What modAL asks of a committee, from draws"

    def __init__(self, probs: np.ndarray):
        self.probs, self.classes_ = probs, range(probs.shape[-1])

    def __len__(self):
        return self.probs.shape[1]

    def __iter__(self):
        return iter(range(len(self)))

    def vote(self, X):
        return self.probs.argmax(-1)

    def vote_proba(self, X):
        return self.probs

    def predict_proba(self, X):
        return self.probs.mean(1)


def test_measures_equal_those_of_modal():
    disagreement = pytest.importorskip('modAL.disagreement')
    log_probs = (3 * torch.randn(50, 7, 4).double()).log_softmax(-1)
    committee, X = Committee(log_probs.exp().numpy()), np.zeros((50, 1))
    for ours, theirs in (
        (vote_entropy, disagreement.vote_entropy),
        (max_kl, disagreement.KL_max_disagreement),
        (entropy, disagreement.consensus_entropy),
    ):
        np.testing.assert_allclose(ours(log_probs), theirs(committee, X), rtol=1e-9, atol=1e-12)


def test_the_largest_divergence_is_at_least_the_mean():
    log_probs = (3 * torch.randn(40, 5, 3, dtype=torch.double)).log_softmax(-1)
    assert (max_kl(log_probs) >= bald(log_probs) - 1e-12).all()
    assert max_kl(log_probs).max() <= math.log(5) + 1e-12


def test_impossible_classes_and_sites():
    certain = torch.tensor([[[0.0, -math.inf, -math.inf], [-math.inf, 0.0, -math.inf]]])
    assert max_kl(certain).item() == pytest.approx(math.log(2))
    assert vote_entropy(certain).item() == pytest.approx(math.log(2))
    sites = (2 * torch.randn(3, 4, 2, 5, 3, dtype=torch.double)).log_softmax(-1)
    for f in (max_kl, vote_entropy):
        whole = f(sites)
        assert whole.shape == (3, 2, 5)
        torch.testing.assert_close(whole[:, 1, 2], f(sites[:, :, 1, 2]))
