"""What makes a draw another network in another batch: masks by place, padding, randomness, batch
statistics; and wrapped models"""

import contextlib
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastai.basics import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.vision.all import DataLoaders
from torch import nn

import fastai_al.inference.predict  # noqa: F401 (it adds methods)
from conftest import assert_same, classes_learner, everything, features_of, mlp
from fastai_al.inference.passes import pool_pass
from fastai_al.posterior.base import Point
from fastai_al.posterior.dropconnect import MCDropConnect
from fastai_al.posterior.dropout import MCDropout
from fastai_al.posterior.ensemble import DeepEnsemble
from fastai_al.posterior.laplace import LastLayerLaplace
from fastai_al.posterior.masks import position_numbers
from fastai_al.posterior.runner import Runner


def run(model, posterior, x):
    model.eval()
    with torch.no_grad(), posterior.ready(model):
        return Runner(model, posterior)(x.clone())[0]


def learner_of(model, **kwargs):
    learn = classes_learner(model, **kwargs)
    learn.remove_cb(learn.progress)
    return learn


def draws(learn, posterior):
    return learn.draws(learn.dls.valid, posterior).collect().log_probs


# Masks by place


def test_an_entry_has_its_number_whatever_the_sizes_of_the_axes():
    whole = position_numbers((3, 7, 9), torch.device('cpu')).view(3, 7, 9)
    assert len(whole.unique()) == whole.numel()
    for shape in ((3, 5, 4), (2, 7, 1), (1, 1, 9), (3, 1, 1)):
        part = position_numbers(shape, torch.device('cpu')).view(shape)
        assert torch.equal(part, whole[tuple(slice(n) for n in shape)])
        part = position_numbers(shape, torch.device('cpu'), from_end=True).view(shape)
        assert torch.equal(part, whole[tuple(slice(n) for n in shape)].flip(0, 1, 2))
    assert torch.equal(position_numbers((1, 6), torch.device('cpu')), torch.arange(6))


def test_numbers_of_a_large_mask_differ():
    for shape in ((12, 300, 300), (2000, 800), (5, 4, 300, 100)):
        assert len(position_numbers(shape, torch.device('cpu')).unique()) == np.prod(shape)


@pytest.mark.parametrize(
    'drop, axes',
    [
        (nn.Dropout(0.5), '[B, L, D]'),
        (nn.Dropout(0.5), '[B, C, L]'),
        (nn.Dropout1d(0.5), '[B, C, L]'),
        (nn.AlphaDropout(0.5), '[B, L, D]'),
    ],
)
def test_dropout_of_a_longer_sequence_begins_as_that_of_a_shorter_one(drop, axes):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop, self.w = drop, nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.drop(x * self.w)

    model, posterior, x = Net(), MCDropout(k=4), torch.rand(2, 6, 12) + 1
    whole = run(model, posterior, x)
    assert whole.std(1).max() > 0.1
    if axes == '[B, L, D]':
        torch.testing.assert_close(run(model, posterior, x[:, :4]), whole[:, :, :4])
    else:
        torch.testing.assert_close(run(model, posterior, x[..., :7]), whole[..., :7])


# Padding


class Attends(nn.Module):
    """A transformer that leaves out padding, by whichever attention; rotary-like: it knows no
    absolute positions"""

    def __init__(self, attention='layer'):
        super().__init__()
        self.emb, self.out, self.attention = nn.Embedding(12, 8), nn.Linear(8, 3), attention
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, batch_first=True)
        self.qkv, self.drop = nn.Linear(8, 24), nn.Dropout(0.3)

    def forward(self, ids):
        x, padding = self.drop(self.emb(ids)), ids == 0
        if self.attention == 'layer':
            x = self.layer(x, src_key_padding_mask=padding)
        else:
            q, k, v = self.qkv(x).view(*x.shape[:2], 3, 2, 4).permute(2, 0, 3, 1, 4)
            weights = (
                (q @ k.transpose(-1, -2)).masked_fill(padding[:, None, None], -1e9).softmax(-1)
            )
            x = x + (F.dropout(weights, 0.3, self.training) @ v).transpose(1, 2).flatten(2)
        keep = ~padding[..., None]
        return self.out((x * keep).sum(1) / keep.sum(1))


class PaddingShows(Attends):
    "Averages over padding too"

    def forward(self, ids):
        return self.out(self.drop(self.emb(ids)).mean(1))


def words(i):
    return torch.randint(1, 12, (2 + 3 * i % 11,), generator=torch.Generator().manual_seed(i % 20))


def padder(side):
    def collate(items):
        longest = max(len(ids) for ids in items)
        return (
            torch.stack(
                [
                    F.pad(
                        ids, (0, longest - len(ids)) if side == 'right' else (longest - len(ids), 0)
                    )
                    for ids in items
                ]
            ),
        )

    return collate


def texts_learner(model, side='right', bs=8):
    dl = torch.utils.data.DataLoader([words(i) for i in range(24)], bs, collate_fn=padder(side))
    learn = Learner(DataLoaders(dl, dl), model, CrossEntropyLossFlat())
    learn.remove_cbs([cb for cb in learn.cbs if type(cb).__name__ == 'ProgressCallback'])
    return learn


@pytest.mark.parametrize('attention', ['layer', 'own'])
@pytest.mark.parametrize('side', ['right', 'left'])
def test_a_text_has_the_same_draws_however_its_batch_is_padded(side, attention):
    torch.manual_seed(1)
    learn = texts_learner(Attends(attention), side)

    def drawn(bs, order=range(24)):
        dl = torch.utils.data.DataLoader([words(i) for i in order], bs, collate_fn=padder(side))
        return torch.cat([b.outputs for b in pool_pass(learn, dl, MCDropout(k=4))])

    once = drawn(24)
    assert once.std(1).min(0).values.max() > 1e-3
    for bs in (1, 3, 8):
        torch.testing.assert_close(drawn(bs), once, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(drawn(5, range(23, -1, -1)).flip(0), once, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(once[20:], once[:4], rtol=1e-4, atol=1e-5) if all(
        torch.equal(words(20 + i), words(i)) for i in range(4)
    ) else None


def test_a_model_whose_draws_depend_on_padding_is_refused_and_its_plain_prediction_warned_of():
    learn = texts_learner(PaddingShows())
    with pytest.raises(ValueError, match='how far its batch is padded, first in .*PaddingShows'):
        learn.draws(learn.dls.valid, MCDropout(k=3)).collect()
    with pytest.warns(UserWarning, match='how far its batch is padded'):
        learn.draws(learn.dls.valid, Point()).collect()


def test_looking_for_padding_reads_nothing_where_none_is_and_survives_what_it_can_not_read():
    reads = []

    class Rows:
        def __len__(self):
            return 12

        def __getitem__(self, i):
            reads.append(i)
            return features_of(i)

    learn = learner_of(mlp())
    list(pool_pass(learn, torch.utils.data.DataLoader(Rows(), 4), MCDropout(k=2)))
    assert reads == list(range(12))

    class Broken(list):
        def __getitem__(self, i):
            if i in (12, 13):
                raise OSError('gone')
            return super().__getitem__(i)

    learn, skipped = texts_learner(Attends()), {}
    dl = torch.utils.data.DataLoader(
        Broken(words(i) for i in range(24)), 4, collate_fn=padder('right')
    )
    assert sum(
        len(b.indices) for b in pool_pass(learn, dl, MCDropout(k=2), skipped=skipped)
    ) == 22 and list(skipped) == ['12', '13']


# Randomness of a forward's own


def torchs(x):
    return torch.randn(1)


def torchs_rand(x):
    return torch.rand(1)


def numpys(x):
    return float(np.random.rand())


def pythons(x):
    return random.random()


class Noisy(nn.Module):
    "Adds noise that a whole batch shares"

    def __init__(self, noise, when=lambda x: True):
        super().__init__()
        self.noise, self.when, self.lin = noise, when, nn.Linear(6, 6)

    def forward(self, x):
        return self.lin(x) + (self.noise(x) if self.when(x) else 0)


def noisy(noise, **kwargs):
    return nn.Sequential(
        nn.Dropout(0.2), nn.Sequential(nn.Linear(6, 6), Noisy(noise, **kwargs)), nn.Linear(6, 3)
    )


@pytest.mark.parametrize('noise', [torchs, torchs_rand, numpys, pythons])
@pytest.mark.parametrize('posterior', [Point(), MCDropout(k=3), MCDropConnect(k=3)])
def test_random_numbers_that_no_posterior_controls_are_refused_and_the_module_named(
    noise, posterior
):
    learn = learner_of(noisy(noise))
    before = everything(learn)
    with pytest.raises(ValueError, match=r"'1.1' \(Noisy\) consumes random numbers"):
        draws(learn, posterior)
    assert_same(everything(learn), before)


@pytest.mark.parametrize('noise', [torchs, numpys, pythons])
def test_random_numbers_in_a_later_batch_are_refused_too(noise):
    calls = []
    learn = learner_of(noisy(noise, when=lambda x: len(x) > 4 and bool((x.abs() > 100).any())))
    rows = torch.utils.data.DataLoader(
        [features_of(i) + (2e3 if i == 17 else 0) for i in range(24)], 6
    )
    with pytest.raises(ValueError, match=r"'1.1' \(Noisy\) consumes random numbers"):
        for batch in pool_pass(learn, rows, MCDropout(k=3)):
            calls.append(batch.indices)
    assert calls == [[*range(6)], [*range(6, 12)]]


def test_a_random_number_that_changes_nothing_is_no_randomness():
    class LayerDrop(nn.Module):
        "As Hugging Face's speech models drop layers"

        def __init__(self, p):
            super().__init__()
            self.p, self.lin = p, nn.Linear(6, 6)

        def forward(self, x):
            if (torch.rand([]) < self.p) and self.training:
                return x
            return self.lin(x)

    learn = learner_of(nn.Sequential(nn.Dropout(0.3), LayerDrop(0.0), nn.Linear(6, 3)))
    assert draws(learn, MCDropout(k=3)).std(1).max() > 1e-3
    with pytest.raises(ValueError, match="'1' .LayerDrop. is random in training"):
        draws(
            learner_of(nn.Sequential(nn.Dropout(0.3), LayerDrop(0.5), nn.Linear(6, 3))),
            MCDropout(k=3),
        )


def test_random_numbers_of_a_generator_of_its_own_are_found():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.rng, self.lin = np.random.default_rng(0), nn.Linear(6, 3)

        def forward(self, x):
            return self.lin(x) + self.rng.random()

    for posterior in (Point(), MCDropConnect(k=3)):
        with pytest.raises(ValueError, match='Own, the model itself'):
            draws(learner_of(Own()), posterior)


def test_a_callback_that_consumes_random_numbers_is_refused():
    from fastai.basics import Callback

    class Jitter(Callback):
        def before_batch(self):
            self.learn.xb = tuple(x + torch.randn_like(x[:1]) for x in self.xb)

    learn = learner_of(mlp())
    learn.add_cb(Jitter())
    with pytest.raises(ValueError, match='callback consumes random numbers.*Jitter'):
        draws(learn, MCDropout(k=3))


# Networks that look at their batch


class Centred(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(6, 6)

    def forward(self, x):
        return self.lin(x - x.mean(0))


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(6, 6)

    def forward(self, x):
        return F.dropout(self.lin(x), 0.5, self.training) if x.mean() > 0 else self.lin(x)


class Softmaxed(nn.Module):
    def forward(self, x):
        return x * x.softmax(0)


@pytest.mark.parametrize('posterior', [Point(), MCDropout(k=3), MCDropConnect(k=3)])
@pytest.mark.parametrize(
    'layer',
    [lambda: nn.BatchNorm1d(6, track_running_stats=False), Centred, Softmaxed, Branches],
    ids=['batch norm', 'mean', 'softmax', 'branch'],
)
def test_networks_that_depend_on_their_batch_are_refused_and_the_module_named(layer, posterior):
    if layer is Branches and not isinstance(posterior, MCDropout):
        return  # without dropout both branches are one
    learn = learner_of(nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.3), layer(), nn.Linear(6, 3)))
    with pytest.raises(
        ValueError,
        match=r"depends on the other items of its batch, first in '2' "
        r'\((BatchNorm1d|Centred|Softmaxed|Branches)\)',
    ):
        draws(learn, posterior)


class Squeezes(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.3), nn.Linear(8, 3))

    def forward(self, x):
        return self.net(x).squeeze()


def test_a_model_that_takes_no_single_item_is_not_refused():
    assert draws(learner_of(Squeezes()), MCDropout(k=3)).shape == (20, 3, 3)


# Dropout that draws could leave out


class Stochastic(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, training):
        return x * (torch.rand_like(x) > 0.5) * 2 if training else x

    @staticmethod
    def backward(ctx, g):
        return g, None


class Custom(nn.Module):
    def forward(self, x):
        return Stochastic.apply(x, self.training)


class Fused(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(1, 3)

    def forward(self, x):
        q, k, v = self.qkv(x[..., None])[:, None].unbind(-1)
        return (
            x
            + F.scaled_dot_product_attention(
                q[..., None], k[..., None], v[..., None], dropout_p=0.5 if self.training else 0
            )[:, 0, :, 0]
        )


class Scripted(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(6, 6)

    def forward(self, x):
        return F.dropout(self.lin(x), 0.5, self.training)


def scripted(module):
    return torch.jit.script(module)


@pytest.mark.parametrize(
    'make, says',
    [
        (Custom, r"'2' \(Custom\) is random in training"),
        (Fused, r"'2' \(Fused\) is random in training"),
        (lambda: scripted(Scripted()), r"'2' \(Scripted\) is random in training"),
        (lambda: scripted(nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5))), "'2.1' is scripted"),
    ],
    ids=['autograd', 'fused attention', 'scripted function', 'scripted module'],
)
def test_dropout_that_can_not_be_reached_is_refused_and_named(make, says):
    learn = learner_of(nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.3), make(), nn.Linear(6, 3)))
    before = everything(learn)
    with pytest.raises(ValueError, match=says):
        draws(learn, MCDropout(k=3))
    assert_same(everything(learn), before)
    assert draws(learn, MCDropout(k=3, layers='1')).std(1).max() > 1e-3  # the one that is meant


def test_drop_path_that_is_not_scaled_stays_so():
    from timm.layers import DropPath

    class Net(nn.Module):
        def __init__(self, **kwargs):
            super().__init__()
            self.drop, self.w = DropPath(0.5, **kwargs), nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.drop(x * self.w)

    x = torch.ones(2, 5)
    assert run(Net(scale_by_keep=False), MCDropout(k=30), x).unique().tolist() == [0, 1]
    assert run(Net(), MCDropout(k=30), x).unique().tolist() == [0, 2]
    assert run(
        Net(scale_by_keep=False), MCDropout(k=30), torch.ones(2, 1, 4, 4)
    ).unique().tolist() == [0, 1]


@pytest.mark.parametrize(
    'call',
    [
        lambda m, x: m.drop(input=x),
        lambda m, x: F.dropout(input=x, p=0.5, training=m.training),
        lambda m, x: torch.dropout(x, 0.5, m.training),
        lambda m, x: torch.dropout(x, p=0.5, train=m.training),
        lambda m, x: torch.dropout_(x * 1, 0.5, m.training),
        lambda m, x: F.dropout(x, 0.5, m.training, True),
    ],
)
def test_every_way_to_call_a_dropout(call):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin, self.drop = nn.Linear(6, 50), nn.Dropout(0.5)

        def forward(self, x):
            return call(self, self.lin(x))

    out = run(Net(), MCDropout(k=5), torch.randn(3, 6))
    assert 0.3 < (out == 0).float().mean() < 0.7 and torch.equal(out[0] == 0, out[2] == 0)


def test_functions_keep_their_masks_when_another_module_is_skipped():
    class Part(nn.Module):
        def forward(self, x):
            return F.dropout(x, 0.5, self.training)

    class Net(nn.Module):
        "As a mixture of experts, which calls only those that an item asks for"

        def __init__(self):
            super().__init__()
            self.a, self.b, self.w = Part(), Part(), nn.Parameter(torch.ones(1))

        def forward(self, x):
            x, few = x * self.w, x[:, 0] > 0
            if few.any():
                x = torch.where(few[:, None], self.a(x), x)
            return self.b(x)

    x = torch.ones(4, 40)
    x[0] = -1
    whole = run(Net(), MCDropout(k=3), x)
    torch.testing.assert_close(run(Net(), MCDropout(k=3), x[:1]), whole[:1])


class Unused(nn.Module):
    "Throws away what its dropout returns, which works in place"

    def __init__(self, residual=False):
        super().__init__()
        self.lin, self.drop, self.out, self.residual = (
            nn.Linear(6, 20),
            nn.Dropout(0.5, inplace=True),
            nn.Linear(20, 3),
            residual,
        )

    def forward(self, x):
        h = torch.relu(self.lin(x))
        y = self.drop(h)
        return self.out(h + y if self.residual else h)


@pytest.mark.parametrize('residual', [False, True])
def test_dropout_in_place_works_in_place_where_that_matters(residual):
    model, x, posterior = Unused(residual).eval(), torch.randn(5, 6), MCDropout(k=6)
    found = run(model, posterior, x)

    class Honest(Unused):
        def forward(self, x):
            h = self.drop(torch.relu(self.lin(x)))
            return self.out(h + h if self.residual else h)

    honest = Honest(residual)
    honest.load_state_dict(model.state_dict())
    assert found.std(1).max() > 1e-3
    torch.testing.assert_close(found, run(honest, posterior, x))


def test_dropout_in_place_that_is_used_as_any_other_still_runs_at_once():
    model, posterior = (
        nn.Sequential(
            nn.Linear(6, 300), nn.Linear(300, 20), nn.Dropout(0.5, inplace=True), nn.Linear(20, 3)
        ).eval(),
        MCDropout(k=6),
    )
    with torch.no_grad(), posterior.ready(model):
        runner = Runner(model, posterior)
        runner(torch.randn(8, 6))
    assert runner.plan.vmap


class Ignored(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin, self.drop = nn.Linear(6, 3), nn.Dropout(0.5)

    def forward(self, x):
        self.drop(x)
        return self.lin(x)


@pytest.mark.parametrize(
    'model',
    [lambda: nn.Sequential(nn.Linear(6, 20), nn.Dropout(1.0), nn.Linear(20, 3)), Ignored],
    ids=['p=1', 'unused'],
)
def test_draws_that_are_all_the_same_are_an_error(model):
    with pytest.raises(ValueError, match='All 4 draws are the same network'):
        draws(learner_of(model()), MCDropout(k=4))
    assert draws(learner_of(model()), Point()).shape == (20, 1, 3)


# Wrapped models

WRAPPERS = {
    'compiled': lambda m: torch.compile(m),
    'compiled in place': lambda m: (m.compile(), m)[1],
    'parallel': nn.DataParallel,
}


@pytest.mark.parametrize('wrap', WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize(
    'make',
    [
        lambda l: Point(),
        lambda l: MCDropout(k=3),
        lambda l: MCDropout(k=3, layers=-1),
        lambda l: MCDropout(k=3, layers='3'),
        lambda l: MCDropConnect(k=3),
        lambda l: LastLayerLaplace(3),
        lambda l: DeepEnsemble([l, l.model, mlp()]),
    ],
    ids=['point', 'dropout', 'last dropout', 'by name', 'DropConnect', 'Laplace', 'ensemble'],
)
def test_a_wrapped_model_has_the_draws_of_the_one_inside(wrap, make):
    torch.manual_seed(0)
    plain, wrapped = mlp(), mlp()
    wrapped.load_state_dict(plain.state_dict())
    torch.manual_seed(1)
    expected = draws(learn := learner_of(plain), make(learn))
    learn = learner_of(wrap(wrapped))
    before = everything(learn)
    torch.manual_seed(1)
    torch.testing.assert_close(draws(learn, make(learn)), expected)
    assert_same(everything(learn), before)


@pytest.mark.parametrize('wrap', WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize('by', ['auto', 'kcenter', 'badge'])
def test_a_wrapped_model_gives_features(wrap, by):
    plain, wrapped = mlp(), mlp()
    wrapped.load_state_dict(plain.state_dict())
    queries = []
    for model in (plain, wrap(wrapped)):
        learn = learner_of(model, cbs=MCDropout(k=3))
        queries.append(learn.acquire(4, learn.dls.test_dl(range(30)), by=by).uids)
    assert queries[0] == queries[1]


def test_swag_gathered_in_parallel_draws_for_the_model_alone():
    from contracts import gathered_swag

    learn = learner_of(nn.DataParallel(mlp()))
    swag = gathered_swag(learn, k=3)
    learn.model = learn.model.module
    assert draws(learn, swag).std(1).max() > 1e-4


def test_a_compiled_function_inside_a_model_is_run_as_it_was_written():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.out = mlp(20), nn.Linear(20, 3)

        def forward(self, x):
            return self.out(torch.compile(lambda h: torch.relu(h) + 1)(self.net(x)))

    torch.compile(lambda x: x)
    assert draws(learner_of(Net()), MCDropout(k=3)).std(1).max() > 1e-4


def test_a_scripted_model_predicts_and_refuses_draws():
    model = torch.jit.script(mlp())
    learn = learner_of(model)
    model.train()
    before = [m.training for m in model.modules()]
    assert draws(learn, Point()).shape == (20, 1, 3)
    for posterior in (MCDropout(k=3), MCDropConnect(k=3), DeepEnsemble([model, model])):
        with pytest.raises(ValueError, match='scripted|MCDropConnect masks'):
            draws(learn, posterior)
        assert [m.training for m in model.modules()] == before


@pytest.mark.parametrize(
    'posterior', [Point(), MCDropout(k=3), MCDropConnect(k=3), LastLayerLaplace(3)]
)
def test_a_layer_without_weights_yet_is_refused_and_left_so(posterior):
    learn = learner_of(nn.Sequential(nn.LazyLinear(16), nn.Dropout(0.3), nn.LazyLinear(3)))
    with pytest.raises(ValueError, match=r"'0' \(LazyLinear\) has no weights yet"):
        draws(learn, posterior)
    assert type(learn.model[0]) is nn.LazyLinear and learn.model[0].has_uninitialized_params()
    with contextlib.suppress(Exception):
        learn.model(learn.dls.one_batch()[0])
    assert draws(learn, MCDropout(k=3)).shape == (20, 3, 3)
