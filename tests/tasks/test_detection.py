"""Detectors in a Learner: the same boxes and losses as torchvision alone, boxes matched between
draws, growth, and what is refused"""

import itertools

import numpy as np
import pytest
import torch
from fastai.basics import DataBlock
from fastai.vision.all import BBoxLblBlock
from torch import nn
from torchvision.models.detection import (
    RetinaNet,
    fasterrcnn_mobilenet_v3_large_320_fpn,
    ssdlite320_mobilenet_v3_large,
)
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import box_iou

import fastai_al.inference.predict  # noqa: F401  # gives `Learner` its `draws`
from conftest import as_pool, assert_same, plain_dls
from detectors import BOXES, box_of, boxes_dls, boxes_learner, small_fcos
from fastai_al import FastaiALWarning
from fastai_al.acquisition.scores import bald, entropy
from fastai_al.active_learner import ActiveLearner
from fastai_al.pool.pool import Pool
from fastai_al.posterior.base import Point
from fastai_al.posterior.dropout import MCDropout
from fastai_al.tasks.detection import (
    Detector,
    TrainDetector,
    _to_targets,
    detection_learner,
    match_boxes,
)


def quiet(learn):
    return learn.no_bar()


def test_boxes_are_those_of_torchvision():
    learn = boxes_learner()
    with quiet(learn):
        found, (boxes, labels) = learn.get_preds()
    learn.model.eval()
    with torch.no_grad():
        alone = learn.model.model(
            [learn.dls.valid_ds[i][0].as_subclass(torch.Tensor) for i in range(10)]
        )
    for rows, one in zip(found, alone):
        n = len(one['scores'])
        torch.testing.assert_close(rows[:n, :4] * 48, one['boxes'], rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(rows[:n, 5], one['scores'], rtol=1e-4, atol=1e-5)
        assert torch.equal(rows[:n, 4].long(), one['labels']) and (rows[n:] == 0).all()
    corners = torch.tensor([box_of(i)[0] for i in range(10, 20)]) / 48
    assert np.mean([box_iou(c[None], f[:1, :4]).item() for c, f in zip(corners, found)]) > 0.5


def test_targets_are_in_pixels_and_without_padding():
    x, boxes, labels = (
        torch.zeros(2, 3, 48, 96),
        torch.tensor([[[-1.0, -1, 1, 1], [0, 0, 0.5, 0.5]], [[-0.5, 0, 0, 1], [0, 0, 0, 0]]]),
        torch.tensor([[1, 2], [1, 0]]),
    )
    one, other = _to_targets(x, boxes, labels)
    assert (
        one['boxes'].tolist() == [[0, 0, 96, 48], [48, 24, 72, 36]]
        and one['labels'].tolist() == [1, 2]
        and other['boxes'].tolist() == [[24, 24, 48, 48]]
    )


def test_the_loss_of_validation_is_the_detectors_own_and_changes_nothing():
    learn = boxes_learner(cbs=MCDropout(k=3))
    batch = learn.dls.valid.one_batch()
    learn.model.eval()
    before = {name: t.clone() for name, t in learn.model.state_dict().items()}
    with torch.no_grad():
        one, again = learn.model.loss(*batch), learn.model.loss(*batch)
    assert one == again > 0 and not any(m.training for m in learn.model.modules())
    assert_same(dict(learn.model.state_dict()), before)
    model = learn.model.model
    model.training = True  # its own flag alone: no dropout, running statistics
    with torch.no_grad():
        told = sum(
            model([x for x in batch[0].as_subclass(torch.Tensor)], _to_targets(*batch)).values()
        )
    model.training = False
    torch.testing.assert_close(one, told)
    with quiet(learn):
        whole = learn.validate()[0]
    with torch.no_grad():
        by_hand = sum(learn.model.loss(*b).item() * len(b[0]) for b in learn.dls.valid) / 10
    assert whole == pytest.approx(by_hand, rel=1e-4)


def naive_match(outputs, classes, iou):
    """Loops: the best box left stands for a thing; each draw's best box that overlaps with it
    most is its word"""
    k, n, _ = outputs.shape
    boxes = sorted(
        ((d, *row.tolist()) for d in range(k) for row in outputs[d] if row[5] > 0),
        key=lambda b: -b[6],
    )
    overlap = lambda a, b: box_iou(torch.tensor([a]), torch.tensor([b])).item()
    things = []
    for b in boxes:
        if all(overlap(b[1:5], t) <= iou for t in things):
            things.append(b[1:5])
    things = things[:n]
    probs = torch.zeros(k, n, classes)
    probs[..., 0] = 1
    said = set()
    for b in boxes:
        where = [overlap(b[1:5], t) for t in things]
        t = int(np.argmax(where))
        if where[t] < iou or (b[0], t) in said:
            continue
        said.add((b[0], t))
        probs[b[0], t] = 0
        probs[b[0], t, 0], probs[b[0], t, int(b[5])] = 1 - b[6], b[6]
    return probs


@pytest.mark.parametrize('seed, n', itertools.product(range(8), [3, 12]))
def test_matching_against_loops(seed, n):
    g = torch.Generator().manual_seed(seed)
    corner, side = (
        torch.rand(4, n, 2, generator=g) * 0.5,
        0.2 + 0.4 * torch.rand(4, n, 2, generator=g),
    )
    outputs = torch.cat(
        [
            corner,
            corner + side,
            torch.randint(1, 4, (4, n, 1), generator=g).float(),
            torch.rand(4, n, 1, generator=g),
        ],
        -1,
    )
    outputs[torch.rand(4, n, generator=g) < 0.3] = 0
    log_probs = match_boxes(outputs[None], 4, 0.5)
    assert log_probs.shape == (1, 4, n, 4)
    torch.testing.assert_close(log_probs[0].exp(), naive_match(outputs, 4, 0.5))


def test_no_boxes_and_one_draw():
    nothing = match_boxes(torch.zeros(2, 3, 5, 6), 3)
    assert (nothing.exp()[..., 0] == 1).all() and (bald(nothing) == 0).all()
    one = torch.zeros(1, 1, 5, 6)
    one[0, 0, 0] = torch.tensor([0, 0, 1, 1, 2, 0.5])
    torch.testing.assert_close(
        entropy(match_boxes(one, 3))[0].float(),
        torch.tensor([np.log(2.0), 0, 0, 0, 0], dtype=torch.float32),
    )


def test_order_of_draws_and_boxes_does_not_matter():
    g = torch.Generator().manual_seed(0)
    corner = torch.rand(3, 6, 2, generator=g) * 0.6
    outputs = torch.cat(
        [corner, corner + 0.3, torch.ones(3, 6, 1), torch.rand(3, 6, 1, generator=g)], -1
    )
    once = match_boxes(outputs[None], 2)[0]
    torch.testing.assert_close(
        match_boxes(outputs[None, :, torch.randperm(6, generator=g)], 2)[0], once
    )
    torch.testing.assert_close(match_boxes(outputs[None, [2, 0, 1]], 2)[0], once[[2, 0, 1]])


def retina():
    body = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU(), nn.Dropout2d(0.2))
    body.out_channels = 8
    return RetinaNet(
        body,
        2,
        min_size=48,
        max_size=48,
        anchor_generator=AnchorGenerator(((16,),), ((1.0,),)),
        score_thresh=0.0,
        detections_per_img=10,
    )


@pytest.mark.parametrize(
    'make',
    [
        retina,
        lambda: fasterrcnn_mobilenet_v3_large_320_fpn(
            weights=None,
            weights_backbone=None,
            num_classes=2,
            min_size=48,
            max_size=48,
            box_score_thresh=0.0,
        ),
        lambda: ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=2),
    ],
    ids=['RetinaNet', 'Faster R-CNN', 'SSD'],
)
def test_the_other_detectors_train_validate_and_predict(make):
    learn = detection_learner(boxes_dls(8), make(), max_boxes=7)
    with quiet(learn), learn.no_logging():
        learn.fit(1, 1e-4)
        assert learn.get_preds()[0].shape == (4, 7, 6) and np.isfinite(learn.validate()[0])
        assert len(learn.acquire(2, as_pool(learn), posterior=Point(), by='entropy')) == 2


def test_positions_of_retina_net_lie_on_the_picture():
    learn = detection_learner(boxes_dls(8), retina(), dense=True, cbs=MCDropout(k=3))
    with quiet(learn):
        query = learn.acquire(2, as_pool(learn), by='local_divergence')
    assert query.maps.shape == (2, 12, 12)  # 48 pixels by steps of 4, without the padding to 64
    with torch.no_grad():
        torch.testing.assert_close(
            learn.model.eval()(learn.dls.valid.one_batch()[0]).exp().sum(1), torch.ones(4, 12, 12)
        )


def test_a_pool_of_boxes_grows():
    pool = Pool(range(30))
    label = lambda uids: {u: dict(boxes=box_of(u), labels=['square']) for u in uids}
    for uids in (pool.draw_holdout(6), pool.sample(8)):
        pool.label(uids, label(uids))
    empty = pool.sample(1, seed=9)
    pool.label(empty, [dict(boxes=[], labels=[])])
    dls = pool.dataloaders(DataBlock(BOXES, n_inp=1), bs=4, num_workers=0)
    learn = ActiveLearner(detection_learner(dls, small_fcos(), cbs=MCDropout(k=3)), pool)
    with quiet(learn), learn.no_logging():
        learn.fit(1)
        query = learn.acquire(4, reduce='total')
        learn.label(query, label(query.uids))
        assert len(learn.dls.train_ds) == 13 and (learn.dls.train.one_batch()[1].shape[2] == 4)
        learn.fit(1)
    assert pool.vocab == ['#na#', 'square']
    rest = pool.sample(1)
    with pytest.raises(ValueError, match="'circle'.*vocabulary"):
        pool.label(rest, [dict(boxes=[[1, 2, 3, 4]], labels=['circle'])])
    with pytest.raises(TypeError, match='an object'):
        pool.label(rest, ['square'])


def test_classes_of_boxes_that_no_block_names_are_those_labelled():
    pool = Pool(range(4), [dict(boxes=box_of(i), labels=['square']) for i in range(3)] + [None])
    with (
        pytest.warns(FastaiALWarning, match='Nothing validates'),
        pytest.warns(FastaiALWarning, match="1 classes labelled so far: 'square'.*BBoxLblBlock"),
    ):
        dls = pool.dataloaders(DataBlock((*BOXES[:2], BBoxLblBlock), n_inp=1), bs=2, num_workers=0)
    assert list(dls.vocab) == ['#na#', 'square']


def test_what_is_refused():
    with pytest.raises(TypeError, match='Linear is none of torchvision'):
        Detector(nn.Linear(2, 2))
    with pytest.raises(TypeError, match='RetinaNet or FCOS'):
        Detector(
            ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=2),
            dense=True,
        )
    with pytest.raises(ValueError, match='no classes of boxes'):
        detection_learner(plain_dls(), small_fcos())


def test_draws_of_labelled_pictures():
    learn = boxes_learner(cbs=MCDropout(k=3))
    with quiet(learn):
        draws = learn.draws(learn.dls.valid).collect()
    assert draws.log_probs.shape == (10, 3, 100, 2) and any(
        isinstance(cb, TrainDetector) for cb in learn.cbs
    )


@pytest.mark.filterwarnings('ignore::fastai_al.FastaiALWarning')
def test_boxes_are_targets_and_the_error_says_so():
    pool = Pool(range(4), [dict(boxes=box_of(i), labels=['square']) for i in range(3)] + [None])
    with pytest.raises(ValueError, match='n_inp=2 inputs.*pass n_inp=1 to DataBlock'):
        pool.dataloaders(DataBlock(BOXES), bs=2, num_workers=0)


@pytest.mark.parametrize('make', [retina, small_fcos], ids=['RetinaNet', 'FCOS'])
def test_dropout_in_the_heads_gives_draws(make):
    torch.manual_seed(0)
    model = make()
    for p in model.head.parameters():
        p.data *= 10 if p.ndim > 1 else 1  # untrained heads change by less than rounding
    layers = model.backbone._modules
    layers |= {k: nn.Identity() for k, m in layers.items() if isinstance(m, nn.Dropout2d)}
    learn = detection_learner(boxes_dls(8), model, dropout=0.3, max_boxes=5, cbs=MCDropout(k=3))
    added = [m for m in learn.model.modules() if isinstance(m, nn.Dropout2d)]
    assert [m.p for m in added] == [0.3, 0.3]
    with quiet(learn):
        assert np.isfinite(learn.acquire(2, as_pool(learn), 'bald').scores).all()
        maps = detection_learner(boxes_dls(8), model, dense=True, cbs=MCDropout(k=3))
        outputs = maps.draws(as_pool(maps)).collect().outputs
    assert not torch.equal(outputs[:, 0], outputs[:, 1])


@pytest.mark.parametrize('name', ['box_head', 'module_list'])
def test_dropout_of_the_other_detectors(name):
    if name == 'box_head':
        model = fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None)
        old = model.roi_heads.box_head
        detection_learner(boxes_dls(8), model, dropout=0.2)
        assert model.roi_heads.box_head[0] is old and model.roi_heads.box_head[1].p == 0.2
        return
    model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
    old = list(model.head.classification_head.module_list)
    detection_learner(boxes_dls(8), model, dropout=0.2)
    for head in (model.head.classification_head, model.head.regression_head):
        assert all(isinstance(m[0], nn.Dropout2d) for m in head.module_list)
    assert [m[1] for m in model.head.classification_head.module_list] == old


def test_dropout_is_a_probability():
    for wrong in (1, -0.1, 2):
        with pytest.raises(ValueError, match='at least 0 and below 1'):
            detection_learner(boxes_dls(8), small_fcos(), dropout=wrong)


def test_random_needs_no_posterior_that_suits_the_model():
    model = small_fcos()
    model.backbone[3] = nn.Identity()  # no dropout
    learn = detection_learner(boxes_dls(8), model, max_boxes=5, cbs=MCDropout(k=3))
    with quiet(learn):
        query = learn.acquire(2, as_pool(learn), 'random')
        assert query.uids == learn.acquire(2, as_pool(learn), 'random', Point()).uids
        assert 'MCDropout' in query.info['why'] and query.info['posterior'] == 'Point()'
        with pytest.raises(ValueError, match='finds no dropout'):
            learn.acquire(2, as_pool(learn), 'entropy')


def test_a_box_of_nothing_is_no_box():
    rows = torch.tensor([[[[0, 0, 1, 1, 0, 0.9], [0, 0, 1, 1, 1, 0.6]]]])
    probs = match_boxes(rows, 2).exp()
    torch.testing.assert_close(probs.sum(-1), torch.ones(1, 1, 2))
    torch.testing.assert_close(probs[0, 0, 0], torch.tensor([0.4, 0.6]))
