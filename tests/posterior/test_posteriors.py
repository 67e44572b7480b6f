"Each posterior by itself: what it refuses, what it gathers in training, and exact small cases"

import pickle
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fastai.basics import Callback, CancelFitException, Learner, MSELossFlat
from fastai.callback.schedule import *  # gives `Learner` its schedules
from fastai.losses import CrossEntropyLossFlat
from fastai.torch_core import set_seed
from fastai.vision.augment import RandTransform
from torch import nn

import fastai_al.inference.predict  # noqa: F401 (it adds methods)
from conftest import as_pool, classes_learner, labels_learner, mlp, pixels_learner, plain_dls
from contracts import augmented_learner, gathered_swag
from fastai_al.acquisition.scores import bald
from fastai_al.inference.passes import pool_pass
from fastai_al.posterior.base import Point, Posterior
from fastai_al.posterior.bayes import (
    BayesByBackprop,
    BayesConv2d,
    BayesLinear,
    bayesian_layers,
    make_bayesian,
)
from fastai_al.posterior.dropconnect import MCDropConnect
from fastai_al.posterior.dropout import MCDropout
from fastai_al.posterior.ensemble import DeepEnsemble, SnapshotEnsemble, fit_ensemble
from fastai_al.posterior.laplace import LastLayerLaplace
from fastai_al.posterior.plan import Plan
from fastai_al.posterior.runner import Runner
from fastai_al.posterior.swag import SWAG
from fastai_al.posterior.tta import TTA


def fitted(learn, *args, **kwargs):
    with learn.no_bar(), learn.no_logging():
        learn.fit(*args, **kwargs)
    return learn


def draws(learn, posterior=None):
    with learn.no_bar():
        return learn.draws(learn.dls.valid, posterior).collect().log_probs


# Bad input


@pytest.mark.parametrize(
    'make, says',
    [
        (lambda: MCDropout(0), 'k=0'),
        (lambda: MCDropConnect(k=0), 'k=0'),
        (lambda: SWAG(k=0), 'k=0'),
        (lambda: LastLayerLaplace(0), 'k=0'),
        (lambda: TTA(0), 'k=0'),
        (lambda: BayesByBackprop(k=True), 'k=True'),
        (lambda: MCDropConnect(p=0), 'p=0'),
        (lambda: MCDropConnect(p=1.5), 'p=1.5'),
        (lambda: SWAG(start=1), 'start=1'),
        (lambda: SWAG(rank=1), 'rank=1'),
        (lambda: SWAG(scale=-1), 'scale=-1'),
        (lambda: SnapshotEnsemble(0), 'cycles=0'),
        (lambda: DeepEnsemble([]), 'no members'),
        (lambda: LastLayerLaplace(structure='block'), "structure='block'"),
        (lambda: LastLayerLaplace(prior_precision=0), 'prior_precision=0'),
        (lambda: BayesByBackprop(beta=0), 'beta=0'),
        (lambda: fit_ensemble(classes_learner, 0, fitted), 'k=0'),
        (lambda: MCDropout(draw_batch=0), 'draw_batch=0'),
    ],
)
def test_bad_numbers_are_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()


class NoPass(Callback):
    "Fails the test when the model is shown a batch of the pool"

    def __init__(self, size):
        self.size = size

    def before_batch(self):
        assert len(self.x) != self.size, 'work was done before the error'


@pytest.mark.parametrize(
    'make_learner, posterior, says',
    [
        (classes_learner, SWAG(k=2), 'gathered 0'),
        (classes_learner, SnapshotEnsemble(2), 'no snapshots'),
        (classes_learner, BayesByBackprop(2), 'not Bayesian'),
        (classes_learner, DeepEnsemble([nn.Linear(6, 3)]), 'another architecture'),
        (classes_learner, TTA(2), 'no random transforms'),
        (classes_learner, DeepEnsemble([mlp(out=4)]), 'another architecture'),
        (pixels_learner, LastLayerLaplace(2), 'no nn.Linear'),
        (labels_learner, LastLayerLaplace(2), 'CrossEntropy'),
        (
            lambda: classes_learner(nn.Sequential(mlp(), nn.Softplus())),
            LastLayerLaplace(2),
            'last layer is linear',
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(make_learner, posterior, says):
    learn = make_learner()
    learn.add_cb(NoPass(7))
    with learn.no_bar(), pytest.raises(ValueError, match=says):
        learn.acquire(2, learn.dls.test_dl(range(14), bs=7), posterior=posterior)


def test_other_vocabularies_are_refused():
    def learner(vocab):
        from fastai.basics import Categorize, Datasets

        dls = Datasets(
            list(range(12)),
            [[lambda i: torch.ones(6) * i], [lambda i: vocab[i % 3], Categorize(vocab=vocab)]],
            splits=[range(6), range(6, 12)],
        ).dataloaders(bs=6)
        return Learner(dls, mlp(), CrossEntropyLossFlat())

    cats, dogs = learner(['a', 'b', 'c']), learner(['a', 'b', 'd'])
    with pytest.raises(ValueError, match='different vocabularies'):
        DeepEnsemble([cats, dogs])
    with dogs.no_bar(), pytest.raises(ValueError, match='vocabulary'):
        dogs.acquire(1, as_pool(dogs), posterior=DeepEnsemble([cats, cats]))


def test_a_learner_without_randomness_names_the_remedies():
    learn = classes_learner(mlp(p=0))
    with pytest.raises(ValueError, match='cbs=MCDropout.*LastLayerLaplace'):
        learn.acquire(2, as_pool(learn), by='bald')
    with learn.no_bar(), pytest.raises(ValueError, match='Add dropout.*LastLayerLaplace'):
        learn.acquire(2, as_pool(learn), posterior=MCDropout())


def test_a_draw_of_an_unknown_tensor_is_refused():
    class Strange(Posterior):
        def tensors(self, k):
            return {'nowhere': torch.ones(1)}

    with pytest.raises(ValueError, match='nowhere'):
        draws(classes_learner(), Strange(2))


# What training gathers


def test_swag_equals_a_naive_recomputation():
    class Keep(Callback):
        order = 1

        def __init__(self):
            self.seen = []

        def after_train(self):
            self.seen.append(self.learn.model[0].weight.detach().clone())

    swag, keep = SWAG(start=0.25, rank=3, k=4), Keep()
    fitted(classes_learner(cbs=[swag, keep]), 8, 1e-2)
    seen = torch.stack(keep.seen[2:])
    assert swag.count == 6 and len(swag.deviations) == 3
    torch.testing.assert_close(swag.mean['0.weight'], seen.mean(0))
    torch.testing.assert_close(swag.square['0.weight'], (seen**2).mean(0))
    for d, i in zip(swag.deviations, (3, 4, 5)):
        torch.testing.assert_close(
            d['0.weight'], seen[i] - seen[: i + 1].mean(0), rtol=1e-4, atol=1e-6
        )


def test_swag_with_scale_zero_is_the_mean_with_renewed_batch_norms():
    learn = classes_learner()
    swag = gathered_swag(learn, scale=0.0)
    found = draws(learn, swag)
    model = mlp().to(learn.dls.device)
    model.load_state_dict(learn.model.state_dict() | swag.mean)
    norm = model[1]
    norm.reset_running_stats()
    norm.momentum = None
    with torch.no_grad():
        norm.train()
        model[3].eval()
        for xb, _ in learn.dls.train.new(shuffle=False, drop_last=False):
            model(xb)
        model.eval()
        expected = torch.cat([model(xb) for xb, _ in learn.dls.valid]).log_softmax(-1).cpu()
    for k in range(swag.k):
        torch.testing.assert_close(found[:, k], expected, rtol=1e-4, atol=1e-5)


def test_swag_keeps_frozen_weights():
    swag = SWAG(start=0, rank=2, k=3)
    learn = classes_learner(cbs=swag)
    for p in learn.model[0].parameters():
        p.requires_grad_(False)
    fitted(learn, 3)
    assert '0.weight' not in swag.mean and '4.weight' in swag.mean
    assert draws(learn).std(1).max() > 1e-4


def test_validation_forgets_nothing_that_training_gathered():
    swag, snapshots = SWAG(), SnapshotEnsemble(2)
    learn = fitted(classes_learner(cbs=[swag, snapshots]), 4)
    members = list(snapshots.members)
    learn.validate()
    assert (
        swag.count == 2
        and len(snapshots.members) == 2
        and all(a is b for a, b in zip(snapshots.members, members))
    )
    fitted(learn, 8)
    assert (
        swag.count == 4 and len(snapshots.members) == 2 and snapshots.members[0] is not members[0]
    )


def test_snapshots_are_weights_at_the_ends_of_cycles():
    rates, weights = [], []

    class Watch(Callback):
        order = 62

        def before_batch(self):
            if self.training:
                rates.append(self.opt.hypers[-1]['lr'])
                weights.append(self.learn.model[0].weight.detach().clone())

    cb = SnapshotEnsemble(3)
    learn = fitted(classes_learner(cbs=[cb, Watch()]), 6, 1e-2)
    batches = len(rates) // 3
    assert cb.k == 3 and rates[0] == rates[batches] == rates[2 * batches] == 1e-2
    assert rates[batches - 1] < 2e-3
    for member, i in zip(cb.members, (batches, 2 * batches)):
        assert torch.equal(member['0.weight'].cpu(), weights[i].cpu())
    assert (
        torch.equal(cb.members[2]['0.weight'].cpu(), learn.model[0].weight.cpu())
        and learn.opt.hypers[-1]['lr'] == 1e-2
    )
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(2)
    assert cb.k == 1  # one cycle, one snapshot: and the next fit begins anew


def test_lr_find_gathers_nothing():
    swag, snapshots = SWAG(start=0, rank=2), SnapshotEnsemble(1)
    learn = fitted(classes_learner(cbs=[swag, snapshots]), 3)
    before = swag.count, [m['0.weight'] for m in snapshots.members]
    with learn.no_bar(), learn.no_logging():
        learn.lr_find(show_plot=False)
    assert (swag.count, [m['0.weight'] for m in snapshots.members])[0] == before[
        0
    ] and snapshots.members[0]['0.weight'] is before[1][0]


def test_bayes_by_backprop_learns_and_shrinks_where_data_is():
    set_seed(0)
    learn = classes_learner(
        nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)),
        cbs=BayesByBackprop(k=10, std=0.1),
    )
    assert len(bayesian_layers(learn.model)) == 2 and len(list(learn.model.parameters())) == 8
    before = [m.weight_rho.detach().clone() for m in bayesian_layers(learn.model).values()]
    fitted(learn, 20, 1e-2)
    assert all(
        not torch.equal(m.weight_rho.cpu(), b.cpu())
        for m, b in zip(bayesian_layers(learn.model).values(), before)
    )
    assert learn.recorder.values[-1][0] < learn.recorder.values[0][0]


def test_bayes_by_backprop_may_join_a_trained_learner():
    learn = fitted(classes_learner(), 1, 1e-2)
    weight = learn.model[0].weight.detach().clone()
    learn.add_cb(BayesByBackprop(k=3))
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 0.0)
    assert torch.equal(learn.model[0].weight, weight) and len(learn.opt.all_params()) == len(
        list(learn.model.parameters())
    )


def test_a_fit_that_is_cancelled_leaves_a_usable_posterior():
    class Stop(Callback):
        order = 80

        def after_epoch(self):
            if self.epoch == 3:
                raise CancelFitException

    learn = fitted(classes_learner(cbs=[SWAG(start=0, rank=2, k=3), Stop()]), 10)
    assert learn.swag.count == 4 and draws(learn).shape[1] == 3


@pytest.mark.parametrize(
    'make',
    [
        lambda l: MCDropout(3),
        gathered_swag,
        lambda l: MCDropConnect(3),
        lambda l: LastLayerLaplace(3),
        lambda l: BayesByBackprop(3),
        lambda l: DeepEnsemble([l, l]),
    ],
    ids=['MCDropout', 'SWAG', 'DropConnect', 'Laplace', 'BayesByBackprop', 'ensemble'],
)
def test_posteriors_can_be_pickled_with_their_model(make):
    learn = classes_learner()
    posterior = make(learn)
    learn.add_cb(posterior)
    if isinstance(posterior, BayesByBackprop):
        fitted(learn, 1)
    expected = draws(learn)
    posterior.learn = None
    model, again = pickle.loads(pickle.dumps((learn.model, posterior)))
    other = Learner(learn.dls, model, CrossEntropyLossFlat())
    torch.testing.assert_close(draws(other, again), expected)


# Exact small cases


def test_bald_of_dropconnect_agrees_with_every_mask():
    import itertools

    model, x = nn.Linear(4, 2, bias=False).eval(), torch.randn(5, 4)
    masks = torch.tensor(list(itertools.product([0.0, 1.0], repeat=8))).view(-1, 2, 4)
    with torch.no_grad(), MCDropConnect(k=8000, p=0.5).ready(model):
        exact = torch.einsum('bd,mcd->bmc', x, masks * model.weight * 2).log_softmax(-1)
    posterior = MCDropConnect(k=8000, p=0.5)
    with torch.no_grad(), posterior.ready(model):
        ours = Runner(model, posterior)(x)[0].log_softmax(-1)
    torch.testing.assert_close(bald(ours), bald(exact), rtol=0, atol=0.015)


def test_bald_of_a_gaussian_last_layer_agrees_with_the_integral():
    "Logistic regression with one weight: the integral over it, by quadrature"
    layer, x = nn.Linear(1, 2, bias=False).eval(), torch.tensor([[0.3], [1.0], [3.0]])

    class Gaussian(Posterior):
        def tensors(self, k):
            w = 0.5 + torch.randn(1, generator=torch.Generator().manual_seed(k))
            return {'weight': torch.stack([w, 0 * w])}

    with torch.no_grad():
        ours = Runner(layer, Gaussian(20_000))(x)[0].log_softmax(-1)
    z, weights = np.polynomial.hermite_e.hermegauss(80)
    w, weights = torch.tensor(0.5 + z).float(), torch.tensor(weights / weights.sum()).float()
    p = torch.sigmoid(x * w)  # [3, 80]

    def entropy(p):
        return torch.special.entr(p) + torch.special.entr(1 - p)

    exact = entropy(p @ weights) - entropy(p) @ weights
    torch.testing.assert_close(bald(ours).float(), exact, rtol=0, atol=0.01)


def test_a_linear_gaussian_model_agrees_with_its_closed_form():
    """Bayesian linear regression: predictive mean, and the information of a label about the
    weights, 1/2 log(1 + x'Sx / noise)"""
    torch.manual_seed(0)
    x, noise = torch.randn(20, 3), 0.25
    y = x @ torch.tensor([1.0, -2.0, 0.5]) + noise**0.5 * torch.randn(20)
    covariance = torch.linalg.inv(x.T @ x / noise + torch.eye(3))
    mean, root = covariance @ x.T @ y / noise, torch.linalg.cholesky(covariance)

    class Exact(Posterior):
        def tensors(self, k):
            return {
                'weight': (
                    mean + root @ torch.randn(3, generator=torch.Generator().manual_seed(k))
                )[None]
            }

    new = 3 * torch.randn(6, 3)
    with torch.no_grad():
        outputs = Runner(nn.Linear(3, 1, bias=False), Exact(20_000))(new)[0][..., 0]
    torch.testing.assert_close(outputs.mean(1), new @ mean, rtol=0, atol=0.02)
    information = 0.5 * (1 + torch.einsum('bi,ij,bj->b', new, covariance, new) / noise).log()
    torch.testing.assert_close(
        0.5 * (1 + outputs.var(1) / noise).log(), information, rtol=0.02, atol=0
    )


def test_laplace_of_regression_through_a_learner():
    set_seed(0)
    dls = plain_dls(
        y=lambda i: float(torch.randn(6, generator=torch.Generator().manual_seed(i)).sum())
    )
    learn = fitted(Learner(dls, nn.Linear(6, 1), MSELossFlat()), 40, 3e-2)
    with learn.no_bar():
        batches = list(
            pool_pass(
                learn, learn.dls.valid, LastLayerLaplace(50, structure='full'), task=lambda out: out
            )
        )
    assert torch.cat([b.log_probs for b in batches]).std(1).mean() > 1e-4


# Memory


class OutOfMemory(nn.Module):
    "Refuses more than a few items, or item-draw pairs, at once"

    def __init__(self, most):
        super().__init__()
        self.most, self.seen, self.drop, self.out = most, [], nn.Dropout(0.5), nn.Linear(6, 2)

    def forward(self, x):
        self.seen.append(len(x))
        if len(x) > self.most:
            raise torch.cuda.OutOfMemoryError('CUDA out of memory')
        return self.out(self.drop(x))


@pytest.mark.parametrize('vmap', [True, False])
def test_out_of_memory_halves_what_is_done_at_once(vmap):
    model, x, posterior = OutOfMemory(3).eval(), torch.randn(16, 6), MCDropout(4)
    with torch.no_grad(), posterior.ready(model):

        class Forced(Runner):
            def _make_plan(self, xb):
                return Plan(vmap, pair_bytes=1)

        runner = Forced(model, posterior)
        out = runner(x)[0]
        again = runner(x)[0]
        assert max(model.seen[-4:]) <= 3  # what was learnt is kept
        model.most = 99
        torch.testing.assert_close(out, Runner(model, posterior)(x)[0])
        torch.testing.assert_close(out, again)


def test_out_of_memory_of_a_single_item_is_an_error():
    model, posterior = OutOfMemory(0).eval(), MCDropout(2)

    class Forced(Runner):
        def _make_plan(self, xb):
            return Plan(False)

    with torch.no_grad(), posterior.ready(model), pytest.raises(torch.cuda.OutOfMemoryError):
        Forced(model, posterior)(torch.randn(4, 6))


def test_tta_reads_in_workers_where_only_batches_are_random():
    learn = augmented_learner()
    one = draws(learn, TTA(3))
    with learn.no_bar():
        two = learn.draws(learn.dls.valid.new(num_workers=2), TTA(3)).collect().log_probs
    torch.testing.assert_close(one, two)
    assert one.std(1).max() > 1e-3 and torch.isfinite(draws(learn, Point())).all()


class Shifted(RandTransform):
    "Adds a random number to an item, from Python's, NumPy's and torch's generators"

    def encodes(self, x: torch.Tensor):
        return x + (random.random() + np.random.rand() + torch.rand(1)) * (x.ndim > 0)


def test_tta_of_random_item_transforms():
    learn = Learner(plain_dls(after_item=[Shifted()]), mlp(), CrossEntropyLossFlat())
    one, other = (
        learn.dls.test_dl([0, 1, 2, 3, 0, 5], bs=6),
        learn.dls.test_dl([5, 0, 3, 2, 1, 0], bs=4),
    )
    state = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    with learn.no_bar():
        once = learn.draws(one, TTA(4)).collect().log_probs
        again = learn.draws(other, TTA(4)).collect().log_probs.flip(0)
    torch.testing.assert_close(once, again, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(once[0], once[4], rtol=1e-4, atol=1e-5)
    assert once.std(1).max() > 1e-3
    assert (
        random.getstate() == state[0]
        and (np.random.get_state()[1] == state[1]).all()
        and torch.equal(torch.get_rng_state(), state[2])
    )


def test_swag_draws_have_the_moments_of_its_formula():
    class Weight(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(3))

    learn, gathered = SimpleNamespace(model=Weight()), torch.randn(6, 3)
    for rank in (4, 0):
        swag = SWAG(k=4000, rank=rank)
        swag.learn = learn
        for w in gathered:
            learn.model.w.data.copy_(w)
            swag._gather()
        found = torch.stack([swag.sample(k)['w'] for k in range(4000)])
        deviations = torch.stack([w - gathered[: i + 1].mean(0) for i, w in enumerate(gathered)])[
            -4:
        ]
        variance = gathered.var(0, unbiased=False).diag()
        expected = variance / 2 + deviations.T @ deviations / 6 if rank else variance
        torch.testing.assert_close(found.mean(0), gathered.mean(0), rtol=0, atol=0.08)
        torch.testing.assert_close(
            found.T.cov(), expected, rtol=0, atol=0.1 * float(expected.diag().max())
        )


# What the papers say, in small exact cases


@pytest.mark.parametrize('layer', [nn.Linear(4, 3), nn.Conv2d(2, 3, 2)])
def test_a_bayesian_layer_has_the_divergence_and_the_outputs_of_its_gaussians(layer):
    """The divergence is that of `torch.distributions`; the outputs of training have the moments
    that sampled weights would give"""
    torch.manual_seed(0)
    model = nn.Sequential(layer)
    make_bayesian(model, std=0.3)
    layer = model[0]
    assert isinstance(layer, (BayesLinear, BayesConv2d))
    with torch.no_grad():
        layer.weight_rho += torch.randn_like(layer.weight_rho)
    of = [torch.distributions.Normal(getattr(layer, n), layer.std(n)) for n in layer.gaussians()]
    prior = torch.distributions.Normal(0.0, 0.7)
    expected = sum(torch.distributions.kl_divergence(g, prior).sum() for g in of)
    torch.testing.assert_close(layer.kl(0.7), expected)
    x = torch.randn(1, 4) if isinstance(layer, nn.Linear) else torch.randn(1, 2, 3, 3)
    with torch.no_grad():
        ours = torch.cat([layer.train()(x) for _ in range(4000)])
        by_weights = torch.cat(
            [
                torch.func.functional_call(
                    layer.eval(), {n: g.sample() for n, g in zip(layer.gaussians(), of)}, x
                )
                for _ in range(4000)
            ]
        )
    for moment in (torch.mean, torch.std):
        torch.testing.assert_close(moment(ours, 0), moment(by_weights, 0), rtol=0.1, atol=0.12)


def test_the_loss_of_bayes_by_backprop_is_that_of_the_data_and_a_share_of_the_divergence():
    bayes = BayesByBackprop(beta=0.5, prior_std=0.7)
    learn, seen = classes_learner(cbs=bayes), []

    class Watch(Callback):
        order = 100

        def after_loss(self):
            if self.training:
                kl = sum(m.kl(0.7) for m in bayesian_layers(self.learn.model).values())
                share = self.learn.loss_grad - self.learn.loss
                seen.append((share.item(), 0.5 * kl.item() / len(self.dls.train_ds)))

    learn.add_cb(Watch())
    fitted(learn, 1)
    assert seen
    np.testing.assert_allclose(*zip(*seen), rtol=1e-4)


def test_the_draws_of_an_ensemble_are_its_members():
    learn = classes_learner()
    members = [mlp() for _ in range(3)]
    found = draws(learn, DeepEnsemble(members))
    with torch.no_grad():
        for k, member in enumerate(members):
            member.eval().to(learn.dls.device)
            expected = torch.cat([member(xb) for xb, _ in learn.dls.valid]).log_softmax(-1).cpu()
            torch.testing.assert_close(found[:, k], expected)


def test_the_covariance_of_a_laplace_draw_is_the_inverse_curvature():
    """A classifier without a hidden layer: the precision is the sum of
    (diag p - pp') (x) xx' over the training set, and the prior"""
    pytest.importorskip('laplace', reason='laplace-torch is not installed')
    from fastai_al.posterior.laplace import _sample_layer

    torch.manual_seed(0)
    layer, x = nn.Linear(2, 2, bias=False), torch.randn(60, 2)
    y = (x[:, 0] + torch.randn(60) > 0).long()
    posterior = LastLayerLaplace(k=3000, structure='full', prior_precision=2.0)
    weights = _sample_layer(layer, x, y, 'classification', posterior)[0].flatten(1)
    p = layer(x).detach().softmax(1)
    precision = 2.0 * torch.eye(4)
    for row, q in zip(x, p):
        precision += torch.kron(q.diag() - q[:, None] * q, row[:, None] * row)
    covariance = torch.linalg.inv(precision)
    scale = float(covariance.diag().max())
    torch.testing.assert_close(weights.T.cov(), covariance, rtol=0, atol=0.1 * scale)
    torch.testing.assert_close(
        weights.mean(0), layer.weight.detach().flatten(), rtol=0, atol=0.1 * scale**0.5
    )
