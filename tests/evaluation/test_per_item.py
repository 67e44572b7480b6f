"Uncertainty and performance of each item: exact values, every task, and what can not be measured"

import numpy as np
import pytest
import torch
from fastai.basics import Learner
from fastai.losses import CrossEntropyLossFlat, MSELossFlat

from conftest import (
    assert_same,
    classes_learner,
    everything,
    labels_learner,
    mlp,
    pixels_learner,
    plain_dls,
)
from fastai_al.evaluation.overlap import iou
from fastai_al.evaluation.per_item import (
    correct,
    measure_items,
    minus_loss,
    performance,
    uncertainty,
)
from fastai_al.inference.passes import Batch
from fastai_al.posterior.base import Point
from fastai_al.posterior.dropout import MCDropout
from fastai_al.tasks.base import Task, as_values, over_classes


def values_learner(**kwargs):
    return Learner(
        plain_dls(y=lambda i: torch.tensor([float(i), 2.0])), mlp(2), MSELossFlat(), **kwargs
    )


LEARNERS = dict(
    classes=(classes_learner, 'correct'),
    labels=(labels_learner, 'correct'),
    pixels=(pixels_learner, 'iou'),
    values=(values_learner, 'absolute_error'),
)


@pytest.mark.parametrize('task', LEARNERS)
def test_every_task_is_measured_and_left_alone(task):
    make, _ = LEARNERS[task]
    learn = make(cbs=MCDropout(k=4))
    with learn.no_bar():
        before = everything(learn)
        frame, features = measure_items(learn, learn.dls.valid, features=task != 'pixels')
        assert_same(everything(learn), before)
    assert (
        len(frame) == 20
        and frame['index'].tolist() == list(range(20))
        and frame.performance.notna().all()
        and frame.index.is_unique
    )
    if task == 'values':
        assert list(frame.columns) == [
            'index',
            'prediction',
            'target',
            'epistemic',
            'performance',
        ] and frame.target.iloc[3] == [23.0, 2.0]
    else:
        assert np.allclose(frame.total, frame.aleatoric + frame.epistemic, atol=1e-5)
    if task == 'pixels':
        assert features is None and frame.prediction.isna().all()
    else:
        assert features.shape == (20, 16)


def test_performance_against_loops():
    log_probs = torch.randn(5, 3, 4, 6, 3, generator=torch.Generator().manual_seed(0)).log_softmax(
        -1
    )
    target = torch.randint(4, (5, 4, 6), generator=torch.Generator().manual_seed(1))
    target[4] = 3
    batch, task = (
        Batch(list(range(5)), log_probs, None, targets=(target,)),
        Task('classes', over_classes, ignored=3),
    )
    mean = log_probs.exp().mean(1)
    for i in range(4):
        seen = [(y, x) for y in range(4) for x in range(6) if target[i, y, x] != 3]
        right = [float(mean[i, y, x].argmax() == target[i, y, x]) for y, x in seen]
        said = [float(mean[i, y, x, target[i, y, x]].log()) for y, x in seen]
        assert float(performance(batch, task, 'correct')[i]) == pytest.approx(
            np.mean(right)
        ) and float(performance(batch, task, 'loss')[i]) == pytest.approx(np.mean(said), rel=1e-5)
    assert torch.equal(performance(batch, task), iou(mean.argmax(-1), target, ignored=3))
    assert (
        performance(batch, task, 'correct')[4] == 0 == performance(batch, task, 'loss')[4]
    )  # nothing counts


def test_values_are_off_by_the_mean_over_outputs():
    values = torch.tensor([[[1.0, 5.0], [3.0, 5.0]]])
    task = Task('values', as_values, values=True)
    batch = Batch([0], values, None, task, (torch.tensor([0.0]), torch.tensor([[1.0]])))
    assert (
        performance(batch, task).item() == -3.0 and performance(batch, task, 'loss').item() == -10.0
    )
    assert uncertainty(batch, 'epistemic', task).item() == 1.0


def test_a_function_of_the_users_own_sees_mean_and_target():
    learn = classes_learner(cbs=MCDropout(k=4))
    with learn.no_bar():
        frame, _ = measure_items(
            learn,
            learn.dls.valid,
            metric=lambda mean, y: mean.gather(1, y[:, None])[:, 0],
            by=['margin', 'total'],
        )
        plain, _ = measure_items(learn, learn.dls.valid, metric='loss')
    assert np.allclose(np.log(frame.performance), plain.performance, atol=1e-5) and {
        'margin',
        'total',
    } <= set(frame.columns)


def test_batch_size_and_order_do_not_matter():
    learn = classes_learner(cbs=MCDropout(k=4))
    with learn.no_bar():
        one, _ = measure_items(learn, learn.dls.valid)
        other, _ = measure_items(learn, learn.dls.valid.new(bs=3))
    assert (
        np.allclose(one.total, other.total, atol=1e-6)
        and one.index.equals(other.index)
        and one.prediction.tolist() == other.prediction.tolist()
    )


def test_one_draw_has_a_total_and_no_kinds():
    learn = classes_learner()
    with learn.no_bar():
        assert 'epistemic' not in measure_items(learn, learn.dls.valid)[0]
        with pytest.raises(ValueError, match='compares draws'):
            measure_items(learn, learn.dls.valid, by='epistemic')


@pytest.mark.parametrize(
    'make, options, says',
    [
        (values_learner, {}, 'A single sample of a predicted value has no variance'),
        (
            values_learner,
            dict(posterior=MCDropout(k=3), by='total'),
            'noise of the target is not known',
        ),
        (
            classes_learner,
            dict(metric='iou'),
            'not known for classes. Pass one of correct, loss',
        ),
        (classes_learner, dict(metric=lambda mean, y: mean), r'returned \[8, 3\] for 8 items'),
        (classes_learner, dict(by='surprise'), 'no acquisition function'),
        (values_learner, dict(posterior=MCDropout(k=3), metric='correct'), 'absolute_error, loss'),
    ],
)
def test_what_can_not_be_measured_is_an_error(make, options, says):
    learn = make()
    with learn.no_bar(), pytest.raises(ValueError, match=says):
        measure_items(learn, learn.dls.valid, **options)


def test_items_without_labels():
    learn = classes_learner(cbs=MCDropout(k=3))
    dl = learn.dls.test_dl(list(range(30, 35)))
    with learn.no_bar():
        with pytest.raises(ValueError, match='have no labels'):
            measure_items(learn, dl)
        assert len(measure_items(learn, dl, metric=False)[0]) == 5
        one = learn.dls.test_dl([33])
        assert len(measure_items(learn, one, metric=False, posterior=Point())[0]) == 1
    other = Learner(plain_dls(y=lambda i: torch.zeros(2)), mlp(3), CrossEntropyLossFlat())
    with other.no_bar(), pytest.raises(ValueError, match='do not fit predictions'):
        measure_items(other, other.dls.valid)


def test_exact_scores():
    mean = torch.tensor([[[0.6, 0.4], [0.1, 0.9]]])
    assert correct(mean, torch.tensor([[0, 0]])).item() == 0.5
    assert minus_loss(mean, torch.tensor([[0, 5]]), ignored=5).item() == pytest.approx(np.log(0.6))
    assert minus_loss(torch.tensor([[0.0, 1.0]]), torch.tensor([0])).isfinite().all()
