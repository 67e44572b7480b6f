"The runner of draws and Monte-Carlo dropout"

import itertools

import pytest
import torch
from fastai.vision.all import create_body, create_head, resnet18
from torch import nn
from torch.func import functional_call

from conftest import mlp
from contracts import Encoder, TwoBranches
from fastai_al.posterior.base import Point, Posterior
from fastai_al.posterior.catching import dropout_modules
from fastai_al.posterior.dropout import MCDropout
from fastai_al.posterior.plan import Plan
from fastai_al.posterior.runner import Runner


def run(model, x, posterior, **kwargs):
    with torch.no_grad(), posterior.ready(model):
        return Runner(model, posterior, **kwargs)(x)


def one_by_one(model, x, posterior):
    "Whole-network repetition under the same masks"
    with torch.no_grad(), posterior.ready(model):
        outs = []
        for k in range(posterior.k):
            with posterior.calling():
                outs.append(functional_call(model, posterior.tensors(k), (x,)))
    return torch.stack(outs, 1)


@pytest.mark.parametrize(
    'make, shape',
    [
        (mlp, (9, 6)),
        (TwoBranches, (9, 6)),
        (Encoder, (9, 6)),
        (lambda: nn.Sequential(nn.Dropout(0.4), mlp()), (9, 6)),
        (
            lambda: nn.Sequential(create_body(resnet18(weights=None)), create_head(512, 4)),
            (3, 3, 32, 32),
        ),
        (
            lambda: nn.Sequential(
                nn.Conv2d(1, 4, 3),
                nn.Dropout2d(0.3),
                nn.ReLU(),
                nn.Conv2d(4, 2, 3),
                nn.Dropout(0.2),
            ),
            (5, 1, 8, 8),
        ),
        (
            lambda: nn.Sequential(
                nn.Conv1d(2, 4, 3), nn.Dropout1d(0.3), nn.FeatureAlphaDropout(0.2)
            ),
            (5, 2, 8),
        ),
        (
            lambda: nn.Sequential(
                nn.Linear(6, 8), nn.SELU(), nn.AlphaDropout(0.3), nn.Linear(8, 2)
            ),
            (5, 6),
        ),
    ],
    ids=['mlp', 'branches', 'encoder', 'first', 'resnet', 'conv', 'conv1d', 'alpha'],
)
@pytest.mark.parametrize('draw_batch', [None, 1, 8])
def test_the_runner_agrees_with_whole_network_repetition(make, shape, draw_batch):
    model, x = make().eval(), torch.randn(shape)
    exact = one_by_one(model, x, MCDropout(k=6))
    out, _ = run(model, x, MCDropout(k=6, draw_batch=draw_batch))
    torch.testing.assert_close(out, exact, rtol=1e-4, atol=1e-5)
    assert out.std(1).max() > 1e-3


@pytest.mark.parametrize(
    'cls, shape',
    [
        (nn.Dropout, (4000, 5)),
        (nn.Dropout1d, (200, 25, 4)),
        (nn.Dropout2d, (100, 50, 2, 2)),
        (nn.Dropout3d, (50, 50, 2, 2, 2)),
        (nn.AlphaDropout, (400, 50)),
        (nn.FeatureAlphaDropout, (100, 50, 3)),
    ],
)
def test_masks_have_the_mean_and_spread_of_the_modules_own(cls, shape):
    torch.manual_seed(1)
    x, module = torch.randn(1, *shape[1:]).expand(2, *shape[1:]).clone(), cls(0.3)
    model = nn.Sequential(
        nn.Linear(shape[1], shape[1]) if len(shape) == 2 else nn.Identity(), module
    )
    model.register_parameter('p', nn.Parameter(torch.zeros(1)))
    model.eval()
    ours, _ = run(model, x, MCDropout(k=4000))
    inside = model[0](x).detach()
    model.train()
    theirs = torch.stack([module(inside) for _ in range(4000)], 1)
    torch.testing.assert_close(ours.mean(1), theirs.mean(1), rtol=0, atol=0.15)
    torch.testing.assert_close(ours.std(1), theirs.std(1), rtol=0, atol=0.15)


def test_bald_of_dropout_agrees_with_every_mask_enumerated():
    from fastai_al.acquisition.scores import bald

    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Dropout(0.5), nn.Linear(5, 3)).eval()
    x = torch.randn(7, 6)
    masks = torch.tensor(list(itertools.product([0.0, 2.0], repeat=5)))
    with torch.no_grad():
        exact = torch.stack([model[3](model[1](model[0](x)) * m) for m in masks], 1).log_softmax(-1)
    ours = run(model, x, MCDropout(k=8000))[0].log_softmax(-1)
    torch.testing.assert_close(bald(ours), bald(exact), rtol=0, atol=0.01)


def test_a_module_used_twice_gets_two_masks():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop, self.w = nn.Dropout(0.5), nn.Parameter(torch.ones(1))

        def forward(self, x):
            return torch.stack([self.drop(x * self.w), self.drop(x * self.w)], 1)

    out, _ = run(Twice().eval(), torch.ones(2, 50), MCDropout(k=3))
    assert not torch.equal(out[:, :, 0], out[:, :, 1])
    assert torch.equal(out[0], out[1])


def test_p_of_one_drops_everything_and_p_of_zero_is_no_dropout():
    assert (
        one_by_one(
            nn.Sequential(nn.Linear(2, 2), nn.Dropout(1.0)).eval(),
            torch.randn(3, 2),
            MCDropout(k=2),
        )
        .abs()
        .max()
        == 0
    )
    assert list(dropout_modules(nn.Sequential(nn.Dropout(0), nn.Dropout(0.1)))) == ['1']


def test_features_are_those_of_the_plain_network():
    for model in (mlp().eval(), nn.Sequential(nn.Dropout(0.4), mlp()).eval()):
        inner = model[-1] if isinstance(model[-1], nn.Sequential) else model
        x = torch.randn(9, 6)
        _, features = run(model, x, MCDropout(k=4, draw_batch=10), features=inner[-1])
        with torch.no_grad():
            torch.testing.assert_close(features, inner[:-1](x), rtol=1e-4, atol=1e-5)
        assert not inner[-1]._forward_hooks


def test_skipped_channels_work_in_channels_last_and_change_nothing():
    class Seeing(nn.Conv2d):
        def forward(self, x):
            seen.append(x.stride()[1] == 1)
            return super().forward(x)

    model = nn.Sequential(
        Seeing(3, 32, 3),
        nn.Dropout2d(0.5),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.Dropout2d(0.5),
        nn.Flatten(),
        nn.Linear(64 * 28**2, 3),
    ).eval()
    x = torch.randn(8, 3, 32, 32)
    posterior, seen = MCDropout(k=6), []
    with torch.no_grad(), posterior.ready(model):
        runner = Runner(model, posterior)
        out = runner(x)[0]
        assert runner.plan.skip and seen[-1] and x.is_contiguous()
        expected = torch.stack([runner._call(runner._tensors(k), (x,))[0] for k in range(6)], 1)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


def test_what_can_not_take_channels_last_still_skips_channels():
    class Viewing(nn.Module):
        def __init__(self, read):
            super().__init__()
            self.read, self.net, self.lin = (
                read,
                nn.Sequential(
                    nn.Conv2d(3, 32, 3),
                    nn.Dropout2d(0.5),
                    nn.ReLU(),
                    nn.Conv2d(32, 64, 3),
                    nn.Dropout2d(0.5),
                ),
                nn.Linear(64 * 28**2, 3),
            )

        def forward(self, x):
            return self.lin(self.net(self.read(x)).flatten(1))

    x = torch.randn(8, 3, 32, 32)
    for read in (
        lambda x: x.view(len(x), -1).view(x.shape),
        lambda x: torch.as_strided(x, x.shape, (3 * 32**2, 32**2, 32, 1)),
    ):
        model, posterior = Viewing(read).eval(), MCDropout(k=6)
        with torch.no_grad(), posterior.ready(model):
            runner = Runner(model, posterior)
            out = runner(x)[0]
            expected = torch.stack([runner._call(runner._tensors(k), (x,))[0] for k in range(6)], 1)
        assert runner.plan.skip
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


def test_vmap_where_it_pays_and_a_loop_elsewhere():
    def plan(model, x):
        posterior = MCDropout(k=10)
        with torch.no_grad(), posterior.ready(model):
            runner = Runner(model, posterior)
            runner(x)
        return runner.plan

    body = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    pictures, numbers = torch.randn(8, 3, 32, 32), torch.randn(4, 6)
    assert plan(nn.Sequential(body, nn.Dropout(0.5), nn.Linear(32, 2)).eval(), pictures).vmap
    found = plan(nn.Sequential(nn.Dropout(0.5), body).eval(), pictures)
    assert not found.vmap and not found.skip
    found = plan(
        nn.Sequential(
            nn.Conv2d(3, 32, 3),
            nn.Dropout2d(0.5),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3),
            nn.Dropout2d(0.5),
        ).eval(),
        pictures,
    )
    assert found.skip and not found.vmap and found.cost < 0.5
    assert plan(
        nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 4)).eval(), numbers
    ).vmap  # so small that calls are what costs

    class WithLSTM(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop, self.lstm = nn.Dropout(0.5), nn.LSTM(6, 3, batch_first=True)

        def forward(self, x):
            return self.lstm(self.drop(x))[0]

    found = plan(WithLSTM().eval(), torch.randn(4, 5, 6))
    assert not found.vmap and 'no vmap' in found.why


def test_memory_of_draws_is_bounded():
    sizes = []

    class Watching(nn.Module):
        def forward(self, x):
            sizes.append(x.shape)
            return x

    model = nn.Sequential(
        nn.Linear(6, 300), nn.Linear(300, 300), nn.Linear(300, 8), nn.Dropout(0.5), nn.Linear(8, 2)
    ).eval()
    posterior = MCDropout(k=20, draw_batch=40)
    with torch.no_grad(), posterior.ready(model):
        runner = Runner(model, posterior)
        chunks, together = [], runner._together
        runner._together = lambda draws, xb, *a: (
            chunks.append(len(draws) * len(xb[0])),
            together(draws, xb, *a),
        )[1]
        runner(torch.randn(33, 6))
    assert runner.plan.vmap and max(chunks) <= 40 and sum(chunks) == 33 * 20


@pytest.mark.parametrize(
    'make',
    [
        lambda: MCDropout(k=0),
        lambda: MCDropout(k=-1),
        lambda: MCDropout(k=2.5),
        lambda: MCDropout(draw_batch=0),
    ],
)
def test_bad_numbers_are_refused(make):
    with pytest.raises(ValueError):
        make()


def test_a_model_without_dropout_names_the_remedies():
    with pytest.raises(ValueError, match='tabular_config'):
        run(nn.Linear(2, 2), torch.randn(1, 2), MCDropout())


def test_a_model_whose_draws_differ_between_equal_items_is_refused():
    class Noise(nn.Module):
        def __init__(self):
            super().__init__()
            self.d = nn.Dropout(0.5)

        def forward(self, x):
            return self.d(x) + torch.randn_like(x)

    model = nn.Sequential(nn.Linear(4, 50), Noise())
    with pytest.raises(ValueError, match='two different outputs'):
        run(model, torch.randn(3, 4), MCDropout(k=2))


def test_an_exception_inside_leaves_the_model_alone():
    model = TwoBranches().eval()
    before = [(n, type(m), sorted(vars(m))) for n, m in model.named_modules()]
    with pytest.raises(RuntimeError):
        with MCDropout(k=2).ready(model):
            raise RuntimeError
    assert [(n, type(m), sorted(vars(m))) for n, m in model.named_modules()] == before


def test_a_posterior_is_one_small_class():
    class Members(Posterior):
        "Two whole networks"

        def __init__(self, states):
            super().__init__(k=len(states))
            self.states = states

        def tensors(self, k):
            return self.states[k]

    nets = [mlp().eval() for _ in range(2)]
    out, _ = run(nets[0], torch.ones(3, 6), Members([n.state_dict() for n in nets]))
    with torch.no_grad():
        for k in range(2):
            torch.testing.assert_close(out[:, k], nets[k](torch.ones(3, 6)))
    assert repr(Point()) == 'Point()'


def test_a_small_first_batch_does_not_make_the_others_small():
    model, sizes = nn.Sequential(nn.Dropout(0.3), nn.Linear(6, 3)).eval(), []
    model[1].register_forward_pre_hook(lambda m, args: sizes.append(len(args[0])))
    posterior = MCDropout(k=4)
    with torch.no_grad(), posterior.ready(model):
        runner = Runner(model, posterior)
        runner.plan = Plan(vmap=False)
        for n in (1, 50):
            runner(torch.randn(n, 6))
    assert sizes == [1] * 4 + [50] * 4
