"""Same draws, and nothing left behind, on every architecture, under every posterior that fits
it; and draws that are those of the whole network"""

import pytest
import torch
from fastai.callback.schedule import *  # gives `Learner` its schedules
from fastai.torch_core import to_device

from architectures import ARCHITECTURES, N
from conftest import assert_same
from contracts import ensemble, gathered_swag
from fastai_al.inference.passes import pool_pass
from fastai_al.posterior.base import Posterior
from fastai_al.posterior.bayes import BayesByBackprop, make_bayesian
from fastai_al.posterior.dropconnect import MCDropConnect
from fastai_al.posterior.dropout import MCDropout
from fastai_al.posterior.laplace import LastLayerLaplace
from fastai_al.posterior.plan import Plan
from fastai_al.posterior.runner import Runner
from fastai_al.posterior.tta import TTA

architectures = pytest.mark.parametrize('make, dl', ARCHITECTURES.values(), ids=ARCHITECTURES)


def bayes(learn) -> Posterior:
    make_bayesian(learn.model, std=0.1)
    return BayesByBackprop(k=3)


# name -> (posterior for a learner, architectures it does not fit)
POSTERIORS = {
    'MCDropout': (lambda learn: MCDropout(k=3), ()),
    'DropConnect': (lambda learn: MCDropConnect(k=3), ()),
    'ensemble': (ensemble, ()),
    'SWAG': (lambda learn: gathered_swag(learn, k=2), ()),
    'Laplace': (lambda learn: LastLayerLaplace(k=3), ('U-Net',)),  # ends in a convolution
    'Bayes by backprop': (bayes, ()),
    'TTA': (
        lambda learn: TTA(k=3),
        set(ARCHITECTURES) - {'resnet18', 'timm in vision_learner'},
    ),  # no random transforms
}


@pytest.fixture
def learn(make):
    torch.manual_seed(0)
    learn = make()
    learn.model.eval()
    for m in (
        learn.model.modules()
    ):  # so that an untrained network does not answer the same for everything
        if isinstance(m, torch.nn.modules.batchnorm._BatchNorm):
            m.running_mean.normal_(0, 0.1)
            m.running_var.uniform_(0.5, 1)
    with learn.no_bar():
        yield learn


def draws_of(learn, loader, posterior):
    found = {}
    for batch in pool_pass(learn, loader, posterior):
        found |= dict(zip(batch.indices, batch.log_probs))
    return torch.stack([found[i] for i in range(len(found))])


def holdings(model):
    return dict(
        state={name: t.clone() for name, t in model.state_dict().items()},
        modules=[(name, type(m), m.training, sorted(vars(m))) for name, m in model.named_modules()],
        parameters=[id(p) for p in model.parameters()],
    )


@pytest.mark.parametrize('name', POSTERIORS)
@architectures
def test_equal_items_have_equal_draws(make, dl, name, learn, request):
    make_posterior, why_unsuitable = POSTERIORS[name]
    architecture = next(a for a, (m, _) in ARCHITECTURES.items() if m is make)
    posterior = make_posterior(learn)
    items = [0, 5, 9, N, 2, 7, 4, N + 5]  # the fourth is the first again, the last the second
    if architecture in why_unsuitable:
        with pytest.raises(ValueError):
            draws_of(learn, dl(learn, items, 8), posterior)
        return
    before = holdings(learn.model)
    once = draws_of(learn, dl(learn, items, 8), posterior)
    assert_same(holdings(learn.model), before)
    assert once.exp().std(1).max() > 1e-4, 'all draws are alike'
    for a, b in ((0, 3), (1, 7)):
        torch.testing.assert_close(once[a], once[b], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(
        draws_of(learn, dl(learn, items, 3), posterior), once, rtol=1e-3, atol=1e-4
    )
    torch.testing.assert_close(
        draws_of(learn, dl(learn, items[::-1], 4), posterior).flip(0), once, rtol=1e-3, atol=1e-4
    )


class Forced(Runner):
    "One of the three ways, whatever would be best"

    def _make_plan(self, xb):
        return self.way


@architectures
def test_every_way_of_running_gives_the_draws_of_the_whole_network(make, dl, learn):
    posterior, model = MCDropout(k=4, seed=1), learn.model.to(learn.dls.device)
    xb = to_device(
        learn._split(dl(learn, [0, 5, 9, 2], 4).one_batch()) or learn.xb, learn.dls.device
    )

    def scores(out):
        return out[0] if isinstance(out, tuple) else out

    def run(plan):
        with torch.no_grad(), posterior.ready(model):
            runner = Forced(model, posterior, finish=scores)
            runner.way = plan
            return runner(*xb)[0]

    whole = run(Plan(False))
    assert whole.std(1).max() > 1e-4
    thin = run(
        Plan(False, skip=True)
    )  # falls back where a function can't take a thin tensor (fastai's TensorBase in the U-Net)
    torch.testing.assert_close(thin, whole, rtol=1e-4, atol=1e-5)
    recurrent = any(
        isinstance(m, torch.nn.RNNBase) for m in model.modules()
    )  # torch has no batching rule for an LSTM
    if not recurrent:
        torch.testing.assert_close(
            run(Plan(True, pair_bytes=1000, draw_bytes=8)), whole, rtol=1e-4, atol=1e-5
        )
    with torch.no_grad(), posterior.ready(model):
        runner = Runner(model, posterior, finish=scores)
        torch.testing.assert_close(runner(*xb)[0], whole, rtol=1e-4, atol=1e-5)
