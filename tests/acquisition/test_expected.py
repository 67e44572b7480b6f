import pytest
import torch
import torch.nn.functional as F

from conftest import classes_learner
from fastai_al.acquisition import expected
from fastai_al.acquisition.contract import StrategyContract
from fastai_al.acquisition.expected import (
    expected_error_reduction,
    expected_gradient_length,
    expected_saving,
)
from fastai_al.acquisition.information import epig
from fastai_al.posterior.dropout import MCDropout


def by_reweighting(log_probs, target_log_probs, costs):
    "The saving of each item, by new predictions for each label that it may have"
    result = []
    for item in log_probs.exp():
        total = 0.0
        for target in target_log_probs.exp():
            total += (costs @ target.mean(0)).min().item()
            for y in range(item.shape[1]):
                p = item[:, y].mean()
                weights = item[:, y] / item[:, y].sum()
                total -= (p * (costs @ (weights @ target)).min()).item()
        result.append(total / len(target_log_probs))
    return torch.tensor(result, dtype=torch.double)


def expected_lengths(probs, features):
    "By automatic differentiation of the loss of each label"
    lengths = []
    for p, f in zip(probs, features):
        logits, total = p.log().requires_grad_(), 0.0
        for c in range(len(p)):
            loss = F.cross_entropy(logits[None], torch.tensor([c]))
            (gradient,) = torch.autograd.grad(loss, logits)
            total += (
                p[c].item() * torch.outer(gradient, torch.cat([f, f.new_ones(1)])).norm().item()
            )
        lengths.append(total)
    return torch.tensor(lengths, dtype=torch.double)


def test_lengths_equal_those_by_autograd():
    probs, features = torch.randn(9, 4).double().softmax(-1), torch.randn(9, 5).double()
    chosen = expected_gradient_length(probs, features, 9)
    expected = expected_lengths(probs, features)
    torch.testing.assert_close(chosen.gains, expected[chosen.indices], rtol=1e-9, atol=1e-12)
    assert (chosen.gains.diff() <= 0).all()


class TestGradientLength(StrategyContract):
    strategy = expected_gradient_length
    paper = 'https://papers.nips.cc/paper/3252-multiple-instance-active-learning'

    def reference(self, probs, features, n):
        return expected_lengths(probs, features).topk(n).indices


class TestErrorReduction(StrategyContract):
    strategy = expected_error_reduction
    paper = 'https://mlanthology.org/icml/2001/roy2001icml-optimal/'
    tolerance = 1e-8

    def reference(self, log_probs, target_log_probs):
        c = log_probs.shape[-1]
        return by_reweighting(log_probs, target_log_probs, 1 - torch.eye(c, dtype=torch.double))


@pytest.mark.parametrize('actions', [1, 2, 5])
def test_savings_equal_those_by_reweighting_draws(actions):
    x = (3 * torch.randn(9, 11, 3, dtype=torch.double)).log_softmax(-1)
    t = (3 * torch.randn(6, 11, 3, dtype=torch.double)).log_softmax(-1)
    costs = torch.rand(actions, 3, dtype=torch.double) + 10 * (
        1 - torch.eye(5, 3).double()[:actions]
    )
    saving = expected_saving(costs)(x, t)
    torch.testing.assert_close(saving, by_reweighting(x, t, costs), rtol=0, atol=1e-7)
    assert (saving >= 0).all() and (saving.max() > 1e-6) == (actions > 1)


def test_in_pieces_of_items_and_of_targets(monkeypatch):
    x = (3 * torch.randn(9, 5, 4, dtype=torch.double)).log_softmax(-1)
    whole = expected_error_reduction(x, x)
    monkeypatch.setattr(expected, 'rows_in_cache', lambda *args: 2)
    monkeypatch.setattr(expected, '_PAIRS', 4 * 4 * 3)
    torch.testing.assert_close(expected_error_reduction(x, x), whole)
    sites = x.view(3, 3, 5, 4).transpose(1, 2)
    torch.testing.assert_close(expected_error_reduction(sites, x), whole.view(3, 3))


def test_items_that_change_no_decision_are_ordered_by_their_information():
    t = torch.tensor([[[0.99, 0.01], [0.98, 0.02]]]).log().double()
    x = torch.tensor([[[0.9, 0.1], [0.8, 0.2]], [[0.9, 0.1], [0.2, 0.8]]]).log().double()
    scores = expected_error_reduction(x, t)
    assert scores.max() < 1e-9 and scores[1] > scores[0] > 0
    assert (epig(x, t).argsort() == scores.argsort()).all()


def test_the_cost_of_a_person_limits_the_saving():
    x = torch.tensor([[[0.9, 0.1], [0.1, 0.9]]]).log().double()
    alone = expected_saving([[0, 10], [10, 0]])(x, x)
    with_person = expected_saving([[0, 10], [10, 0], [1, 1]])(x, x)
    assert 0 <= with_person < alone


@pytest.mark.parametrize('costs', [[[0, float('nan')]], [0, 1], [[]], [[float('inf'), 1]]])
def test_costs_are_checked(costs):
    with pytest.raises(ValueError, match='matrix of finite numbers'):
        expected_saving(costs)


def test_wrong_targets_and_numbers_of_classes():
    x = torch.randn(3, 4, 3).log_softmax(-1)
    with pytest.raises(ValueError, match='2 columns for 3 classes'):
        expected_saving([[0, 1], [1, 0]])(x, x)
    with pytest.raises(ValueError, match='same 4 draws and 3 classes'):
        expected_error_reduction(x, x[:, :2])
    with pytest.raises(ValueError, match='same 4 draws and 3 classes'):
        expected_error_reduction(x, torch.randn(3, 4, 2).log_softmax(-1))


def test_acquire_takes_costs_and_targets():
    learn = classes_learner(cbs=MCDropout(k=6))
    pool = learn.dls.test_dl(range(10, 40))
    by = expected_saving([[0, 10, 1], [1, 0, 1], [1, 1, 0]])
    query = learn.acquire(5, pool, by=by)
    assert query.info['acquisition'] == 'expected_saving' and len(query.uids) == 5
    assert learn.acquire(5, pool, by=by).uids == query.uids
    assert len(learn.acquire(4, pool, by='expected_gradient_length').uids) == 4
