"""Learning to defer: the losses by hand and at their optimum, the expert's labels from the
ledger, scores and curves"""

import itertools
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.basics import (
    CategoryBlock,
    DataBlock,
    Learner,
    MultiCategoryBlock,
    RegressionBlock,
    TransformBlock,
)
from fastai.vision.all import ImageBlock
from torch import nn

from conftest import BLOCK, XOf, assert_same, class_of, classes_learner, everything, mlp
from fastai_al import FastaiALWarning
from fastai_al.active_learner import ActiveLearner
from fastai_al.pool.pool import Pool
from fastai_al.posterior.base import Point
from fastai_al.posterior.dropout import MCDropout
from fastai_al.tasks.base import task_of
from fastai_al.tasks.deferral import (
    DeferLoss,
    DeferOneVsAll,
    defer_scores,
    model_accuracy,
    system_accuracy,
)
from fastai_al.triage.defer import add_defer_output, defer_curve, plot_defer_curve

LOSSES = [DeferLoss(), DeferLoss(alpha=0.3), DeferOneVsAll()]
OUTPUTS = torch.tensor(
    [[np.log(2), 0.0, np.log(3)], [0.0, np.log(3), np.log(4)], [np.log(2), 0.0, 5.0]],
    dtype=torch.float64,
)
Y, EXPERT = torch.tensor([0, 0, 1]), torch.tensor([0, 1, -1])  # right, wrong, not asked


def anna_says(i: int) -> int:
    return class_of(i) if int(i) % 2 else (class_of(i) + 1) % 3


def reported_pool(
    n: int = 70, labelled: int = 30, held: int = 12, annas: int = 20, **kwargs
) -> Pool:
    pool = Pool(range(n), **kwargs)
    parts = [(pool.draw_holdout(held), held)] if held else []
    for uids, few in [*parts, (pool.sample(labelled), annas)]:
        pool.label(uids, [class_of(u) for u in uids], annotator='bob')
        pool.label(uids[:few], [anna_says(u) for u in uids[:few]], annotator='anna')
    return pool


def defer_learner(pool: Pool | None = None, loss=None, **kwargs) -> Learner:
    dls = (pool or reported_pool()).defer_dataloaders(BLOCK, 'anna', bs=8, num_workers=0)
    return Learner(
        dls,
        add_defer_output(mlp()),
        loss or DeferLoss(),
        metrics=[model_accuracy, system_accuracy],
        **kwargs,
    )


def rows_of(dataset) -> dict:
    "uid -> class, label of the expert"
    return {uid: (int(y), int(said)) for uid, (_, y, said) in zip(dataset.items.index, dataset)}


def with_reduction(loss, reduction):
    loss = pickle.loads(pickle.dumps(loss))
    loss.reduction = reduction
    return loss


# The losses


@pytest.mark.parametrize('alpha', [1.0, 0.5, 0.0])
def test_cross_entropy_by_hand(alpha):
    found = with_reduction(DeferLoss(alpha), 'none')(
        OUTPUTS, Y, EXPERT
    )  # softmax: 2/6 1/6 3/6, then 1/8 3/8 4/8; the classes alone: 2/3 1/3
    torch.testing.assert_close(
        found,
        torch.tensor(
            [-alpha * np.log(1 / 3) - np.log(1 / 2), -np.log(1 / 8), -np.log(1 / 3)],
            dtype=torch.float64,
        ),
    )


def test_one_vs_all_by_hand():
    found = with_reduction(DeferOneVsAll(), 'none')(
        OUTPUTS, Y, EXPERT
    )  # sigmoids: 2/3 1/2 3/4, then 1/2 3/4 4/5; the classes alone: 2/3 1/2
    want = [
        np.log(3 / 2) + np.log(2) + np.log(4 / 3),
        np.log(2) + np.log(4) + np.log(5),
        np.log(3) + np.log(2),
    ]
    torch.testing.assert_close(found, torch.tensor(want, dtype=torch.float64))


@pytest.mark.parametrize('loss', LOSSES, ids=repr)
def test_reductions_and_precision(loss):
    each = with_reduction(loss, 'none')(OUTPUTS, Y, EXPERT)
    torch.testing.assert_close(with_reduction(loss, 'sum')(OUTPUTS, Y, EXPERT), each.sum())
    torch.testing.assert_close(loss(OUTPUTS, Y, EXPERT), each.mean())
    half = loss(OUTPUTS.half(), Y.int(), EXPERT.int())
    assert half.dtype == torch.float32 and abs(half - each.mean()) < 0.01
    with pytest.raises(ValueError, match="reduction='max'"):
        with_reduction(loss, 'max')(OUTPUTS, Y, EXPERT)


@pytest.mark.parametrize('loss', LOSSES, ids=repr)
def test_gradients(loss):
    outputs = (1.3 * OUTPUTS).requires_grad_()  # at OUTPUTS one of the gradients is 0
    assert torch.autograd.gradcheck(lambda o: loss(o, Y, EXPERT), outputs)
    loss(outputs, Y, EXPERT).backward()
    assert (
        outputs.grad[2, 2] == 0
        and outputs.grad[2, :2].abs().min() > 0
        and outputs.grad[:2].abs().min() > 0
    )  # not asked: the classes alone


def world(kinds: int = 40, classes: int = 3):
    "P(y | x) and P(the expert is right | x, y) of `kinds` items"
    g = torch.Generator().manual_seed(3)
    truth = torch.rand(kinds, classes, generator=g, dtype=torch.float64).pow(3) + 0.01
    return truth / truth.sum(1, keepdim=True), torch.rand(
        kinds, classes, generator=g, dtype=torch.float64
    )


def population(loss, outputs, truth, knows):
    "The expected loss of each kind of item; a wrong answer is the next class"
    loss, (kinds, classes), total = with_reduction(loss, 'none'), truth.shape, 0
    for y, hit in itertools.product(range(classes), (True, False)):
        chance = truth[:, y] * (knows[:, y] if hit else 1 - knows[:, y])
        total = total + chance * loss(
            outputs, torch.full((kinds,), y), torch.full((kinds,), y if hit else (y + 1) % classes)
        )
    return total


@pytest.mark.parametrize('loss', [DeferLoss(), DeferOneVsAll()], ids=repr)
def test_the_optimum_is_the_best_decision(loss):
    truth, knows = world()
    right = (truth * knows).sum(1)
    probs = torch.cat([truth, right[:, None]], 1)
    optimum = (probs.log() if isinstance(loss, DeferLoss) else probs.logit()).requires_grad_()
    population(loss, optimum, truth, knows).sum().backward()
    assert optimum.grad.abs().max() < 1e-12
    assert (
        population(loss, optimum + 0.1 * torch.randn(optimum.shape), truth, knows)
        > population(loss, optimum, truth, knows)
    ).all()
    said = loss.activation(optimum.detach())
    ask = right > truth.amax(1)
    assert (
        5 < ask.sum() < 35
        and ((defer_scores(said) > 0) == ask).all()
        and (loss.decodes(said) == truth.argmax(1)).all()
    )
    for found, want in zip(loss.probabilities(said), (truth, right)):
        torch.testing.assert_close(found, want)


@pytest.mark.parametrize('alpha', [0.25, 2.0])
def test_alpha_leaves_the_probability_of_the_expert(alpha):
    truth, knows = world()
    right, loss = (truth * knows).sum(1), DeferLoss(alpha)
    optimum = (
        torch.cat([truth * (alpha * knows + 1 - knows), right[:, None]], 1).log().requires_grad_()
    )
    population(loss, optimum, truth, knows).sum().backward()
    assert optimum.grad.abs().max() < 1e-12
    torch.testing.assert_close(loss.probabilities(loss.activation(optimum.detach()))[1], right)


def test_predictions_stay_probabilities():
    classes, right = DeferLoss().probabilities(torch.tensor([[0.1, 0.1, 0.8], [0.0, 0.0, 1.0]]))
    torch.testing.assert_close(classes, torch.tensor([[0.5, 0.5], [0, 0]]))
    assert right.tolist() == [1, 1]


@pytest.mark.parametrize('loss', LOSSES, ids=repr)
def test_the_task_is_of_the_classes(loss):
    learn = classes_learner()
    learn.loss_func = loss
    outputs = torch.randn(5, 4, 7)
    found = task_of(learn).draws_of(outputs)
    probs = loss.probabilities(loss.activation(outputs))[0]
    torch.testing.assert_close(found.exp(), probs / probs.sum(-1, keepdim=True))


@pytest.mark.parametrize('loss', LOSSES, ids=repr)
@pytest.mark.parametrize(
    'outputs, y, expert, error, message',
    [
        (OUTPUTS, Y, None, ValueError, 'two targets'),
        (OUTPUTS, Y[:2], EXPERT, ValueError, r'\[3, 3\], classes \[2\]'),
        (OUTPUTS[0], Y, EXPERT, ValueError, r'Outputs \[3\]'),
        (OUTPUTS[:0], Y[:0], EXPERT[:0], ValueError, 'at least 1'),
        (OUTPUTS, torch.tensor([0, 1, 2]), EXPERT, ValueError, 'add_defer_output'),
        (OUTPUTS, Y, torch.tensor([0, 2, -1]), ValueError, 'from -1 to 2'),
        (OUTPUTS, Y, torch.tensor([0, 1, -2]), ValueError, 'from -2 to 1'),
        (OUTPUTS, torch.tensor([0, -1, 0]), EXPERT, ValueError, 'from -1 to 0'),
        (OUTPUTS, Y.float(), EXPERT, TypeError, 'float32'),
    ],
)
def test_bad_targets(loss, outputs, y, expert, error, message):
    with pytest.raises(error, match=message):
        loss(outputs, y, expert)


@pytest.mark.parametrize('alpha', [-0.1, float('nan'), float('inf')])
def test_bad_alpha(alpha):
    with pytest.raises(ValueError, match='alpha='):
        DeferLoss(alpha)


# The model


@pytest.mark.parametrize('bias', [True, False])
def test_one_more_output(bias):
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3, bias=bias), nn.Softplus())
    last, x, state = model[2], torch.randn(5, 4), torch.get_rng_state()
    before = model[:3](x)
    last.weight.requires_grad_(False)
    assert (
        add_defer_output(model) is model
        and model[2] is last
        and last.out_features == 4
        and not last.weight.requires_grad
    )
    torch.testing.assert_close(model[:3](x), torch.cat([before, torch.zeros(5, 1)], 1))
    assert torch.equal(torch.get_rng_state(), state)


def test_models_that_get_no_output():
    tied = nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 3))
    tied[1].weight = tied[0].weight
    for model, message in (
        (nn.Conv2d(1, 1, 1), 'Conv2d has no nn.Linear'),
        (tied, 'tied'),
        (nn.LazyLinear(3), 'not initialized'),
        (nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), 'parametrized'),
    ):
        with pytest.raises(ValueError, match=message):
            add_defer_output(model)


# The ledger


def test_truth_is_what_the_others_say():
    pool = Pool(range(10))

    def say(by, **labels):
        for uid, label in labels.items():
            pool.label(uid[1:], label, annotator=by)

    say('bob', i0=0, i1=1, i2=2, i3=0)
    say('eve', i1=2, i2=2, i3=1)
    say('anna', i0=1, i1=1, i2=0, i4=2, i5=0)
    say('carl', i3=0)
    pool.retract('0', annotator='anna')
    with pytest.warns(FastaiALWarning) as told:
        dls = pool.defer_dataloaders(BLOCK, 'anna', bs=4, num_workers=0)
    assert any(
        "2 labelled items, and 0 of the hold-out, are left out: only 'anna' has labelled them"
        in str(w.message)
        for w in told
    )
    assert rows_of(dls.train_ds) == {
        '0': (0, -1),
        '1': (2, 1),
        '2': (2, 0),
        '3': (0, -1),
    }  # of two who disagree the last one counts, never anna
    assert pool.labelled.label['1'] == 1  # with anna two of three say so
    with warnings.catch_warnings(action='ignore'):
        other = pool.defer_dataloaders(BLOCK, 'eve', bs=4, num_workers=0)
    assert rows_of(other.train_ds) == {
        '0': (0, -1),
        '1': (1, 2),
        '2': (0, 2),
        '3': (0, 1),
        '4': (2, -1),
        '5': (0, -1),
    }


def test_the_holdout_validates_likewise():
    pool = reported_pool(labelled=20, annas=20, held=0)
    held = pool.draw_holdout(6)
    for uid in held[:2]:
        pool.label(uid, class_of(uid), annotator='bob')
    pool.label(held[1:3], [anna_says(u) for u in held[1:3]], annotator='anna')
    with pytest.warns(FastaiALWarning) as told:
        dls = pool.defer_dataloaders(BLOCK, 'anna', bs=8, num_workers=0)
    said = [str(w.message) for w in told]
    assert any('0 labelled items, and 1 of the hold-out' in s for s in said) and any(
        '3 of the 5 hold-out' in s for s in said
    )
    assert rows_of(dls.valid_ds) == {
        held[0]: (class_of(held[0]), -1),
        held[1]: (class_of(held[1]), anna_says(held[1])),
    }
    pool.retract(held[1], annotator='anna')
    with pytest.warns(FastaiALWarning) as told:
        pool.defer_dataloaders(BLOCK, 'anna', bs=8, num_workers=0)
    assert any("No validation item is labelled by 'anna'" in str(w.message) for w in told)


def test_who_is_no_expert():
    pool = reported_pool()
    with pytest.raises(
        ValueError, match="'Anna' is right can not be learned.*42 by 'bob', 32 by 'anna'"
    ):
        pool.defer_dataloaders(BLOCK, 'Anna')
    alone = Pool(range(5), [0, 1, None, None, None])
    with pytest.raises(ValueError, match="No training item is labelled both.*2 by 'given'"):
        alone.defer_dataloaders(BLOCK, 'given')
    with pytest.raises(ValueError, match='so far: none'):
        Pool(range(5)).defer_dataloaders(BLOCK, 'anna')
    apart = Pool(range(6), [0, 1, 2, None, None, None])
    apart.label([3, 4], [0, 1], annotator='anna')
    with pytest.raises(ValueError, match="3 by 'given', 2 by 'anna'"):
        apart.defer_dataloaders(BLOCK, 'anna')


@pytest.mark.parametrize(
    'block',
    [
        DataBlock((TransformBlock, RegressionBlock), get_x=XOf()),
        DataBlock((TransformBlock, MultiCategoryBlock), get_x=XOf()),
        DataBlock((TransformBlock, CategoryBlock, CategoryBlock), get_x=XOf(), n_inp=1),
        'block',
    ],
)
def test_blocks_without_one_class(block):
    with pytest.raises(TypeError, match='one target|takes a DataBlock'):
        reported_pool().defer_dataloaders(block, 'anna')


def test_classes_that_only_the_expert_names():
    pool = Pool(range(6), ['a', 'b', 'a', 'b', None, None])
    pool.label([0, 1], ['c', 'b'], annotator='anna')
    with pytest.warns(FastaiALWarning) as told:
        dls = pool.defer_dataloaders(
            DataBlock((TransformBlock, CategoryBlock), get_x=XOf()), 'anna', bs=4, num_workers=0
        )
    assert (
        any('names no classes' in str(w.message) for w in told)
        and list(dls.vocab) == ['a', 'b', 'c']
        and dls.c == 3
        and rows_of(dls.train_ds)['0'] == (0, 2)
    )
    fresh = Pool(range(6), ['a', 'b', 'a', 'b', None, None])
    fresh.label([0, 1], ['c', 'b'], annotator='anna')
    with (
        pytest.raises(ValueError, match="labels \\['c'\\] of \\['0'\\]"),
        warnings.catch_warnings(action='ignore'),
    ):
        fresh.defer_dataloaders(
            DataBlock((TransformBlock, CategoryBlock(vocab=['a', 'b'])), get_x=XOf()), 'anna'
        )


def test_the_block_is_left_alone():
    block = DataBlock((TransformBlock, CategoryBlock(vocab=[0, 1, 2])), get_x=XOf())
    reported_pool().defer_dataloaders(block, 'anna', bs=8)
    assert len(block.type_tfms) == len(block.getters) == 2


def test_growing():
    pool = reported_pool()
    learn = ActiveLearner(defer_learner(pool), pool)
    before = rows_of(learn.dls.train_ds)
    new = pool.sample(3, seed=1)
    pool.label(new[:2], [class_of(u) for u in new[:2]], annotator='bob')
    pool.label(new[1:], [anna_says(u) for u in new[1:]], annotator='anna')
    with pytest.warns(FastaiALWarning, match='1 labelled items'):
        assert learn.grow() == 2
    assert rows_of(learn.dls.train_ds) == before | {
        new[0]: (class_of(new[0]), -1),
        new[1]: (class_of(new[1]), anna_says(new[1])),
    }
    x, y, expert = learn.dls.one_batch()
    assert y.shape == expert.shape and len(learn.dls.valid_ds) == 12


def test_growing_refuses_before_it_changes():
    pool = reported_pool()
    dls = pool.defer_dataloaders(BLOCK, 'anna', bs=8, num_workers=0)
    before = dls.train_ds
    pool.retract([u for u in pool.states() if 'anna' in pool.state(u).answers], annotator='anna')
    with pytest.raises(ValueError, match="by 'bob'"):
        pool.grow(dls)
    assert dls.train_ds is before


def test_what_can_not_be_read():
    pool = reported_pool()
    pool.label(pool.sample(1, seed=4), [0], annotator='anna')
    with warnings.catch_warnings(action='ignore'):
        dls = pool.defer_dataloaders(BLOCK, 'anna', bs=8, num_workers=0)
        assert len(pool.unreadable(dls, ignore=True)) == 0


# With a learner


@pytest.mark.parametrize('loss', [DeferLoss(), DeferOneVsAll()], ids=repr)
def test_fastai_understands_the_losses(loss, tmp_path):
    learn = defer_learner(loss=loss)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-2)
        values = learn.recorder.values[-1]
        probs, targets, decoded, losses = learn.get_preds(with_decoded=True, with_loss=True)
        outputs, _ = learn.get_preds(act=lambda o: o)
    assert learn.loss_func.reduction == 'mean' and losses.shape == (12,) and probs.shape == (12, 4)
    torch.testing.assert_close(losses, with_reduction(loss, 'none')(outputs, *targets))
    torch.testing.assert_close(probs, loss.activation(outputs))
    assert (decoded == outputs[:, :3].argmax(1)).all()
    assert list(values)[1:] == pytest.approx(
        [
            losses.mean().item(),
            model_accuracy(outputs, *targets).item(),
            system_accuracy(outputs, *targets).item(),
        ],
        abs=1e-5,
    )
    learn.export(tmp_path / 'learner.pkl')


def test_a_batch_is_shown_with_both_labels(tmp_path):
    from PIL import Image

    for i in range(6):
        Image.new('RGB', (8, 8)).save(tmp_path / f'{i}.png')
    pool = Pool.from_folder(tmp_path, label=lambda f: int(f.stem) % 3)
    pool.label(['0.png', '1.png'], [2, 1], annotator='anna')
    with warnings.catch_warnings(action='ignore'):
        dls = pool.defer_dataloaders(
            DataBlock((ImageBlock, CategoryBlock(vocab=[0, 1, 2]))), 'anna', bs=6, num_workers=0
        )
    ctxs = (
        dls.train.show_batch(max_n=6, show=True)
        or __import__('matplotlib.pyplot').pyplot.gcf().axes
    )
    titles = sorted(ax.get_title() for ax in ctxs)
    assert titles[:2] == ['0\nanna: 2', '0\nno label by anna'] and titles[2] == '1\nanna: 1'


@pytest.mark.parametrize('loss', [DeferLoss(), DeferOneVsAll()], ids=repr)
def test_defer_says_who_should_answer(loss):
    learn = defer_learner(loss=loss)
    with learn.no_bar(), learn.no_logging():
        learn.fit(2, 1e-2)
        said = learn.defer()
        probs, (y, expert) = learn.get_preds()
    assert list(said.index) == list(learn.dls.valid_ds.items.index) and said.index.name == 'uid'
    np.testing.assert_allclose(said.score, defer_scores(probs), atol=1e-6)
    assert (
        (said.defer == (said.score > 0)).all()
        and said.prediction.tolist() == probs[:, :3].argmax(1).tolist()
        and said.label.tolist() == y.tolist()
    )
    assert [-1 if e is None else int(e) for e in said.expert] == expert.tolist()
    assert (
        said.defer == (said.expert_right > said.probability)
    ).all() and said.expert_right.between(0, 1).all()


def test_defer_on_new_items_and_over_draws():
    pool = reported_pool()
    learn = defer_learner(pool, cbs=MCDropout(k=6))
    with learn.no_bar():
        dl = learn.dls.test_dl(pool.unlabelled, bs=5)
        drawn, point, again = (
            learn.defer(dl),
            learn.defer(dl, Point()),
            learn.defer(learn.dls.test_dl(pool.unlabelled, bs=9)),
        )
        draws = learn.draws(dl, task=lambda o: o).collect().log_probs
    pd.testing.assert_frame_equal(drawn, again)
    assert list(drawn.columns) == [
        'prediction',
        'probability',
        'expert_right',
        'score',
        'defer',
    ] and list(drawn.index) == list(pool.unlabelled.index)
    np.testing.assert_allclose(drawn.score, defer_scores(draws.softmax(-1).mean(1)), atol=1e-6)
    assert np.abs(drawn.score - point.score).max() > 1e-4


def test_nothing_is_left_behind():
    learn = defer_learner(cbs=MCDropout(k=3))
    learn.model.train()
    with learn.no_bar():
        before = everything(learn)
        assert len(learn.defer()) == len(learn.defer(learn.dls.valid)) == 12
        assert_same(everything(learn), before)
        learn.model[-1].weight.data[3] = float('inf')
        before = everything(learn)
        with pytest.raises(ValueError, match='predicts NaN'):
            learn.defer()
        assert_same(everything(learn), before)


def test_without_an_output_for_asking():
    with pytest.raises(ValueError, match='no output for deferring'):
        classes_learner().defer()


@pytest.mark.parametrize('by', ['auto', 'bald', 'margin', 'batchbald'])
def test_queries_ignore_the_output_for_deferring(by):
    pool = reported_pool()
    learn = ActiveLearner(defer_learner(pool, cbs=MCDropout(k=5)), pool)
    with learn.no_bar():
        query = learn.acquire(3, by=by)
        draws = learn.draws(learn.dls.test_dl(pool.unlabelled)).collect()
    assert (
        len(query.uids) == 3
        and set(query.predictions) <= {0, 1, 2}
        and draws.log_probs.shape[1:] == (5, 3)
    )
    torch.testing.assert_close(draws.log_probs.exp().sum(-1), torch.ones(len(pool.unlabelled), 5))


# Scores, metrics and curves


def test_scores():
    torch.testing.assert_close(
        defer_scores(torch.tensor([[0.5, 0.2, 0.3], [0.1, 0.2, 0.7], [0.4, 0.2, 0.4]])),
        torch.tensor([-0.2, 0.5, 0.0]),
    )
    assert defer_scores([[0.0, 1.0]]).tolist() == [1.0]
    for bad, message in (
        (OUTPUTS, '1.09861 is not a probability'),
        (torch.tensor([[0.1, float('nan')]]), 'nan'),
        (torch.rand(3), r'\[3\]'),
        (torch.rand(3, 1), r'\[3, 1\]'),
    ):
        with pytest.raises(ValueError, match=message):
            defer_scores(bad)


def test_metrics():
    outputs = torch.tensor([[2.0, 0, 1], [0, 1, 3], [0, 1, 3], [0, 1, 3], [1, 0, 1]])
    y, expert = torch.tensor([0, 0, 1, 1, 0]), torch.tensor([1, 0, 0, -1, 1])
    assert model_accuracy(outputs, y, expert) == torch.tensor(
        0.8
    )  # of the second the model is wrong
    assert system_accuracy(outputs, y, expert) == torch.tensor(
        0.8
    )  # anna is right of it and wrong of the third; nobody asks where they are equal


def naive_curve(scores, model, expert):
    order = np.argsort(-np.asarray(scores))
    return [
        np.mean([expert[i] if i in order[:k] else model[i] for i in range(len(order))])
        for k in range(len(order) + 1)
    ]


def test_curves_against_a_loop():
    rng = np.random.default_rng(0)
    for n in (1, 2, 30):
        scores, model, expert = rng.permutation(n) / n, rng.random(n) < 0.6, rng.random(n) < 0.5
        curve = defer_curve(scores, model, expert)
        np.testing.assert_allclose(curve.accuracy, naive_curve(scores, model, expert))
        np.testing.assert_allclose(curve.deferred, np.arange(n + 1) / n)
        np.testing.assert_allclose(curve.best, naive_curve(expert * 1.0 - model, model, expert))
        assert (curve.best >= curve.accuracy - 1e-12).all() and curve.best.max() == pytest.approx(
            (model | expert).mean()
        )
        assert (
            curve.score[0] == np.inf
            and (curve.score.iloc[1:].values == np.sort(scores)[::-1]).all()
        )


def test_a_curve_by_hand():
    curve = defer_curve(
        torch.tensor([0.9, 0.5, 0.1, -0.3]), [0, 1, 1, 0], [True, False, True, True]
    )
    assert curve.accuracy.tolist() == [0.5, 0.75, 0.5, 0.5, 0.75] and curve.best.tolist() == [
        0.5,
        0.75,
        1,
        1,
        0.75,
    ]


def test_equal_scores_do_not_depend_on_the_order():
    rng = np.random.default_rng(1)
    scores, model, expert = rng.integers(4, size=40), rng.random(40) < 0.5, rng.random(40) < 0.5
    p = rng.permutation(40)
    pd.testing.assert_frame_equal(
        defer_curve(scores, model, expert), defer_curve(scores[p], model[p], expert[p])
    )
    np.testing.assert_allclose(
        defer_curve(np.zeros(40), model, expert).accuracy,
        np.linspace(model.mean(), expert.mean(), 41),
    )


@pytest.mark.parametrize(
    'scores, model, expert, message',
    [
        ([], [], [], 'at least 1'),
        ([1.0, 2.0], [1, 0], [1], r'expert_right \[1\]'),
        ([1.0, np.nan], [1, 0], [1, 1], '1 of 2 scores are NaN'),
        ([1.0], [2], [1], 'model_right contains 2'),
        ([1.0], [1], [np.nan], 'expert_right contains nan'),
        ([[1.0]], [[1]], [[1]], r'scores \[1, 1\]'),
    ],
)
def test_bad_curves(scores, model, expert, message):
    with pytest.raises(ValueError, match=message):
        defer_curve(scores, model, expert)


def test_the_plot_names_all_four():
    import matplotlib.pyplot as plt

    ax = plot_defer_curve(defer_curve([0.9, 0.5, 0.1, -0.3], [0, 1, 1, 0], [1, 0, 1, 1]))
    assert [t.get_text() for t in ax.get_legend().get_texts()] == [
        'best possible order',
        'by score',
        'random order',
        'model alone 0.500',
        'expert alone 0.750',
        'score above 0: 0.500, 75% deferred',
    ]
    plt.close(ax.figure)
