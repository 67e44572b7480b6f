"Ways in which draws could be wrong without a word, or something be left behind: each was one once"

from dataclasses import dataclass

import pytest
import torch
from fastai.basics import Learner, load_learner
from fastai.callback.hook import hook_output
from fastai.losses import CrossEntropyLossFlat
from fastai.text.models.awdlstm import RNNDropout
from fastai.vision.augment import Brightness, Flip
from fastai.vision.core import TensorImage
from torch import nn

import fastai_al.inference.predict  # noqa: F401 (it adds methods)
from conftest import as_pool, classes_learner, labels_learner, pixels_learner, plain_dls
from contracts import gathered_swag, values_learner
from fastai_al import FastaiALWarning
from fastai_al.acquisition.selection import SELECTORS
from fastai_al.active_learner import ActiveLearner
from fastai_al.evaluation.interpret import UncertaintyInterpretation
from fastai_al.posterior.base import Point, Posterior
from fastai_al.posterior.bayes import BayesByBackprop
from fastai_al.posterior.dropconnect import MCDropConnect
from fastai_al.posterior.dropout import MCDropout
from fastai_al.posterior.ensemble import DeepEnsemble, fit_ensemble
from fastai_al.posterior.laplace import LastLayerLaplace
from fastai_al.posterior.runner import Runner
from fastai_al.posterior.tta import TTA


def run(model, posterior, x):
    model.eval()
    with torch.no_grad(), posterior.ready(model):
        return Runner(model, posterior)(x.clone())[0]


def whole(model, posterior, x):
    "The whole network, with fresh inputs for each draw"
    model.eval()
    outs = []
    with torch.no_grad(), posterior.ready(model):
        runner = Runner(model, posterior)
        for k in range(posterior.k):
            outs.append(runner._call(runner._tensors(k), (x.clone(),))[0])
    return torch.stack(outs, 1)


def conv(c):
    return nn.Conv2d(c, c, 3, padding=1)


class InPlaceBlock(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.net = nn.Sequential(nn.Dropout2d(0.3), conv(c), nn.ReLU(), nn.Dropout2d(0.3), conv(c))

    def forward(self, x):
        x += self.net(x)
        return x


class Gate(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.drop, self.conv, self.pool = nn.Dropout2d(0.4), conv(c), nn.AdaptiveAvgPool2d(1)

    def forward(self, x):
        h = torch.relu(x)
        return h.mul_(self.pool(self.conv(self.drop(h))).sigmoid())


class PreActivation(nn.Module):
    "A residual whose input is looked at whole and thin"

    def __init__(self, c):
        super().__init__()
        self.c, self.d = (
            nn.ModuleList([conv(c) for _ in range(3)]),
            nn.ModuleList([nn.Dropout2d(0.5) for _ in range(2)]),
        )

    def forward(self, x):
        h = self.d[1](self.c[1](torch.relu(self.d[0](self.c[0](x)))))
        r = self.c[2](torch.relu(h))
        return h + r


class Clamped(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.a, self.b, self.drop = conv(c), conv(c), nn.Dropout2d(0.5)

    def forward(self, x):
        h = self.drop(self.a(x))
        y = self.b(h)
        h.clamp_(min=0.05)
        return self.b(h) + y


def with_head(block, c=32):
    return nn.Sequential(
        nn.Conv2d(3, c, 3, padding=1),
        nn.ReLU(),
        block(c),
        block(c),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(c, 4),
    )


@pytest.mark.parametrize('block', [InPlaceBlock, Gate, PreActivation, Clamped])
@pytest.mark.parametrize('blank', [False, True], ids=['', 'first item blank'])
def test_blocks_that_work_in_place(block, blank):
    torch.manual_seed(0)
    model, x, posterior = with_head(block), torch.randn(8, 3, 12, 12), MCDropout(6, seed=1)
    if blank:
        x[0] = 0
        for m in model.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.zeros_(m.bias)
    torch.testing.assert_close(
        run(model, posterior, x), whole(model, posterior, x), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    'posterior',
    [MCDropConnect(5), MCDropout(5), MCDropout(5, draw_batch=2)],
    ids=['loop', 'vmap', 'chunks'],
)
@pytest.mark.parametrize('small', [True, False])
def test_a_model_that_changes_its_input(posterior, small, monkeypatch):
    if not small:
        monkeypatch.setattr(Runner, 'small', {})

    class Normalised(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(
                nn.Flatten(), nn.Linear(48, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 4)
            )

        def forward(self, x):
            x.sub_(0.5).div_(0.25)
            return self.net(x)

    model, x = Normalised(), torch.rand(4, 3, 4, 4)
    torch.testing.assert_close(
        run(model, posterior, x), whole(model, posterior, x), rtol=1e-4, atol=1e-5
    )


def test_a_sequence_as_long_as_it_is_wide():
    class Text(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.conv, self.conv2, self.drop, self.lin = (
                nn.Dropout1d(0.5),
                nn.Conv1d(16, 64, 3, padding=1),
                nn.Conv1d(64, 16, 3, padding=1),
                RNNDropout(0.5),
                nn.Linear(16, 3),
            )

        def forward(self, x):
            return self.lin(
                self.drop(torch.relu(self.conv2(self.first(self.conv(x)))).transpose(1, 2))
            ).mean(1)

    model, posterior = Text().eval(), MCDropout(6)
    with torch.no_grad(), posterior.ready(model):
        runner = Runner(model, posterior)
        for length in (20, 16):
            x = torch.randn(5, 16, length)
            expected = torch.stack([runner._call(runner._tensors(k), (x,))[0] for k in range(6)], 1)
            torch.testing.assert_close(runner(x)[0], expected, rtol=1e-4, atol=1e-5)


def test_outputs_that_can_not_be_compared_skip_no_channels():
    @dataclass
    class Out:
        scores: torch.Tensor

    class Boxed(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = with_head(PreActivation)

        def forward(self, x):
            return Out(self.net(x))

    model, posterior, x = Boxed().eval(), MCDropout(4), torch.randn(6, 3, 12, 12)
    with torch.no_grad(), posterior.ready(model):
        runner = Runner(model, posterior, finish=lambda out: out.scores)
        out = runner(x)[0]
    assert not runner.plan.skip
    assert out.std(1).max() > 1e-4


class Caches(nn.Module):
    "Keeps what it has made of its weights, as some of timm's do"

    def __init__(self):
        super().__init__()
        self.w, self.kept = nn.Parameter(torch.randn(6, 3)), {}

    def train(self, mode=True):
        if mode:
            self.kept = {}
        return super().train(mode)

    def forward(self, x):
        if 'w' not in self.kept:
            self.kept['w'] = self.w.softmax(0)
        return x @ self.kept['w']


def test_caches_of_weights_do_not_outlive_a_draw():
    members = [Caches().eval() for _ in range(3)]
    learn = classes_learner(members[0])
    with learn.no_bar():
        learn.validate()  # fills the cache
        found = learn.draws(learn.dls.valid, DeepEnsemble(members)).collect().log_probs
    with torch.no_grad():
        for k, m in enumerate(members):
            m.to(learn.dls.device).kept = {}
            expected = torch.cat([m(xb) for xb, _ in learn.dls.valid]).log_softmax(-1).cpu()
            torch.testing.assert_close(found[:, k], expected)


@pytest.mark.parametrize(
    'make', [gathered_swag, lambda learn: LastLayerLaplace(4)], ids=['SWAG', 'Laplace']
)
def test_two_passes_side_by_side(make, monkeypatch):
    monkeypatch.setattr(Runner, 'max_kept_bytes', 0)
    learn = classes_learner()
    posterior = make(learn)
    with learn.no_bar():
        alone = [b.log_probs for b in learn.draws(learn.dls.valid, posterior)]
        a, b = (
            iter(learn.draws(learn.dls.valid, posterior)),
            iter(learn.draws(learn.dls.valid, posterior)),
        )
        first = [next(a).log_probs, next(b).log_probs]
        rest = [d.log_probs for d in a]
        others = [d.log_probs for d in b]
    for found in ([first[0], *rest], [first[1], *others]):
        for x, y in zip(found, alone):
            torch.testing.assert_close(x, y)
    assert not {'_computed_once', '_renewed', '_draws', '_passes'} & vars(posterior).keys()


def test_a_reset_of_the_models_own_is_not_called():
    class Resets(nn.Sequential):
        def reset(self):
            raise AssertionError('called')

    learn = classes_learner(Resets(nn.Linear(6, 16), nn.Dropout(0.3), nn.Linear(16, 3)))
    with learn.no_bar():
        learn.acquire(3, as_pool(learn), posterior=MCDropout(3))


def test_hooks_hold_what_they_held(tmp_path):
    class Hooked(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 3)
            self.h = hook_output(self.a)

        def forward(self, x):
            return self.b(torch.relu(self.a(x))) + self.h.stored[:, :3]

    learn = classes_learner(Hooked())
    with learn.no_bar():
        learn.validate()
    before = learn.model.h.stored
    with learn.no_bar():
        learn.acquire(2, as_pool(learn), posterior=MCDropConnect(k=3))
    assert learn.model.h.stored is before


def test_no_posterior_hides_a_method_of_the_learner():
    for cls in Posterior.__subclasses__() + DeepEnsemble.__mro__[1].__subclasses__():
        from fastai.torch_core import class2attr

        name = cls.__dict__.get('name') or class2attr(cls, 'Callback')
        assert not isinstance(name, str) or not hasattr(Learner, name), cls


def test_tta_of_pixels_must_not_move_them():
    from conftest import PixelsOf, Segmenter

    def picture(i):
        return TensorImage(PixelsOf()(i)[None].expand(3, 4, 4).sigmoid())

    class Pictures(Segmenter):
        def forward(self, x):
            return self.body(x[:, :1])

    def learner(tfm):
        dls = plain_dls(picture, lambda i: (PixelsOf()(i) > 0).long(), after_batch=[tfm])
        return Learner(dls, Pictures(), CrossEntropyLossFlat(axis=1))

    moving, shining = learner(Flip()), learner(Brightness(max_lighting=0.5, p=1.0))
    with moving.no_bar(), pytest.raises(ValueError, match='move pixels'):
        moving.acquire(2, as_pool(moving), posterior=TTA(6))
    with shining.no_bar():
        assert len(shining.acquire(2, as_pool(shining), posterior=TTA(6))) == 2


def test_augmentations_that_change_nothing_are_an_error():
    from fastai.vision.augment import RandTransform

    class Nothing(RandTransform):
        def encodes(self, x: torch.Tensor):
            return x

    learn = Learner(plain_dls(after_batch=[Nothing()]), nn.Linear(6, 3), CrossEntropyLossFlat())
    with learn.no_bar(), pytest.raises(ValueError, match='leave a whole batch unchanged'):
        learn.acquire(2, as_pool(learn), posterior=TTA(3))


def test_what_vmap_can_not_take_in_a_later_batch_is_looped():
    class Picky(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.out = nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.4)), nn.Linear(16, 3)

        def forward(self, x):
            h = self.net(x)
            if len(x) == 4 and bool(h.sum() > 1e9):
                h = h + 1
            return self.out(h)

    model, posterior = Picky().eval(), MCDropout(5)
    with torch.no_grad(), posterior.ready(model):
        runner = Runner(model, posterior)
        runner(torch.randn(8, 6))
        assert runner.plan.vmap
        x = torch.randn(4, 6)
        out = runner(x)[0]
        assert not runner.plan.vmap
    torch.testing.assert_close(out, whole(model, posterior, x))


def test_an_output_that_only_resembles_a_batch():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.logvar = (
                nn.Sequential(nn.Linear(6, 8), nn.Dropout(), nn.Linear(8, 3)),
                nn.Parameter(torch.tensor([0.0, 1.0])),
            )

        def forward(self, x):
            return self.net(x), self.logvar

    assert run(Two(), MCDropout(4), torch.randn(5, 6))[0].shape == (5, 4, 3)


@pytest.mark.parametrize(
    'make, error, says',
    [
        (lambda: DeepEnsemble(classes_learner()), TypeError, 'a list'),
        (lambda: DeepEnsemble(['a.pth']), TypeError, "'a.pth' is not a member"),
        (lambda: BayesByBackprop(std=float('inf')), ValueError, 'std=inf'),
        (lambda: MCDropout(draw_batch=2.5), ValueError, 'draw_batch=2.5'),
        (lambda: LastLayerLaplace(prior_precision=float('nan')), ValueError, 'prior_precision=nan'),
    ],
)
def test_more_bad_input(make, error, says):
    with pytest.raises(error, match=says):
        make()


def test_the_same_learner_twice_is_no_ensemble():
    learn = classes_learner()
    with pytest.raises(ValueError, match='the same learner twice'):
        fit_ensemble(lambda: learn, 2, lambda l: None)


def test_no_layers_is_an_error():
    learn = classes_learner()
    with learn.no_bar():
        for layers, says in (([], 'no layer'), (True, 'layers='), ('head', 'not a module')):
            with pytest.raises(ValueError, match=says):
                learn.acquire(1, as_pool(learn), posterior=MCDropout(3, layers=layers))


def test_numbers_of_numpy_are_numbers():
    import numpy as np

    assert MCDropout(np.int64(3)).k == 3


def test_a_model_that_became_bayesian_after_it_was_wrapped_can_not_be_reset():
    from conftest import BLOCK, mlp, small_pool

    pool = small_pool()
    learn = ActiveLearner(
        Learner(pool.dataloaders(BLOCK, bs=8, num_workers=0), mlp(), CrossEntropyLossFlat()), pool
    )
    learn.add_cb(BayesByBackprop(2))
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    with pytest.raises(ValueError, match='Give a callback that changes the model'):
        learn.reset()


# Items, labels and posteriors that are not there, or not what is meant


@pytest.fixture
def loaded(tmp_path):
    "An exported learner: its training and validation sets are empty"
    learn = classes_learner(cbs=MCDropout(k=4))
    learn.path = tmp_path
    learn.export('x.pkl')
    again = load_learner(tmp_path / 'x.pkl')
    with again.no_bar():
        yield again


def test_auto_without_labelled_items_takes_a_strategy_that_needs_none(loaded):
    dl = loaded.dls.test_dl(range(15))
    found = loaded.acquire(3, dl)
    assert found.info['acquisition'] == 'bald' and 'has no labelled items' in found.info['why']
    assert loaded.acquire(3, dl, posterior=Point()).info['acquisition'] == 'margin'
    given = loaded.acquire(3, dl, labelled=loaded.dls.test_dl(range(20, 40)))
    assert (
        given.info['acquisition'] == 'uncertainty_herding'
        and '7 labels a class' in given.info['why']
    )


def test_auto_without_labelled_items_where_values_or_labels_are_predicted(tmp_path):
    for i, (make, posterior, name) in enumerate(
        [
            (values_learner, None, 'predictive_variance'),
            (values_learner, Point(), 'random'),
            (labels_learner, None, 'bald'),
            (pixels_learner, None, 'clasp_pe'),
        ]
    ):
        learn = make(cbs=MCDropout(k=4))
        learn.path = tmp_path
        learn.export(f'{i}.pkl')
        again = load_learner(tmp_path / f'{i}.pkl')
        for n in (1, 3):
            with again.no_bar():
                assert (
                    again.acquire(n, again.dls.test_dl(range(15)), posterior=posterior).info[
                        'acquisition'
                    ]
                    == name
                )


@pytest.mark.parametrize(
    'by',
    [
        name
        for name, rule in sorted(SELECTORS.items())
        if any(need.startswith('labelled_') and need != 'labelled_positions' for need in rule.needs)
    ],
)
def test_strategies_that_need_labelled_items_name_the_argument(loaded, by):
    with pytest.raises(ValueError, match='labelled=learn.dls.test_dl'):
        loaded.acquire(3, loaded.dls.test_dl(range(15)), by=by)
    known = loaded.dls.test_dl(range(20, 40))
    assert len(loaded.acquire(3, loaded.dls.test_dl(range(15)), by=by, labelled=known)) == 3


@pytest.mark.parametrize(
    'ask',
    [
        lambda l: l.calibrate(),
        lambda l: l.predict_proba(),
        lambda l: UncertaintyInterpretation.from_learner(l),
    ],
    ids=['calibrate', 'predict_proba', 'from_learner'],
)
def test_what_needs_a_validation_set_names_what_is_missing(loaded, ask):
    with pytest.raises(
        ValueError,
        match=r'no validation set \(an exported one has none\).*dl=learn.dls.test_dl\(items\)',
    ):
        ask(loaded)


def test_the_noise_and_the_prevalence_of_an_exported_learner_are_required(tmp_path):
    values, labels = values_learner(cbs=MCDropout(k=4)), labels_learner(cbs=MCDropout(k=4))
    for learn, ask, says in (
        (values, dict(by='gaussian_bald'), 'noise_variance='),
        (labels, dict(by='entropy', reduce='rarity'), 'prevalence='),
    ):
        learn.path = tmp_path
        learn.export('x.pkl')
        again = load_learner(tmp_path / 'x.pkl')
        with again.no_bar(), pytest.raises(ValueError, match=says):
            again.acquire(3, again.dls.test_dl(range(15)), **ask)


def test_labelled_items_are_not_ranked_in_silence():
    learn = classes_learner(cbs=MCDropout(k=3))
    with learn.no_bar():
        for dl, name in (
            (learn.dls.train, 'training'),
            (learn.dls.valid, 'validation'),
            (learn.dls.valid.new(shuffle=True), 'validation'),
        ):
            with pytest.warns(FastaiALWarning, match=f'items of the {name} set.*test_dl'):
                assert len(learn.acquire(3, dl, by='entropy')) == 3
        assert len(learn.acquire(3, learn.dls.test_dl(learn.dls.valid_ds.items), by='entropy')) == 3


def test_a_query_without_a_posterior_records_it():
    learn = classes_learner()
    with learn.no_bar():
        dl = learn.dls.test_dl(range(20))
        for by in ('entropy', 'margin', 'uncertainty_herding', 'auto'):
            assert 'no posterior' in learn.acquire(3, dl, by=by).info['why']
        for by in ('random', 'kcenter'):
            assert learn.acquire(3, dl, by=by).info['why'] is None  # these look at no prediction
        assert (
            learn.acquire(3, dl, by='entropy', posterior=Point()).info['why'] is None
        )  # it was asked for
        learn.add_cb(MCDropout(k=3))
        assert learn.acquire(3, dl, by='entropy').info['why'] is None


def test_of_two_posteriors_none_is_taken_in_silence():
    learn = classes_learner(cbs=[MCDropout(k=3), MCDropConnect(k=5)])
    with learn.no_bar():
        dl = learn.dls.test_dl(range(20))
        for ask in (
            lambda: learn.acquire(3, dl),
            lambda: learn.predict_proba(dl),
            lambda: learn.draws(dl).collect(),
            lambda: learn.calibrate(),
        ):
            with pytest.raises(
                ValueError,
                match=r'2 posteriors among its callbacks, MCDropout\(k=3, seed=0\), '
                r'MCDropConnect\(k=5.*posterior=',
            ):
                ask()
        assert learn.acquire(3, dl, posterior=learn.cbs[-1]).info['k'] == 5
        learn.remove_cb(MCDropConnect)
        assert learn.acquire(3, dl).info['k'] == 3
