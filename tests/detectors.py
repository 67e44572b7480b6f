"A small detector and pictures with a bright square each"

import functools

import torch
from fastai.basics import DataBlock, IndexSplitter, Transform, TransformBlock
from fastai.vision.all import BBoxBlock, BBoxLblBlock, TensorImage
from torch import nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator

from fastai_al.pool.readers import pad_boxes
from fastai_al.tasks.detection import detection_learner


def box_of(i: int) -> list:
    x, y = 4 + 3 * (int(i) % 7), 4 + 2 * (int(i) % 9)
    return [[x, y, x + 16, y + 16]]


class Squares(Transform):
    "The picture with this number: 48 x 48 pixels"

    def encodes(self, i: int):
        x, y, right, bottom = box_of(i)[0]
        image = 0.1 * torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(int(i)))
        image[:, y:bottom, x:right] += 0.8
        return TensorImage(image)


BOXES = TransformBlock(type_tfms=Squares()), BBoxBlock, BBoxLblBlock(vocab=['square'])


def boxes_dls(n: int = 20):
    block = DataBlock(
        BOXES,
        n_inp=1,
        get_items=lambda n: list(range(n)),
        getters=[lambda i: i, box_of, lambda i: ['square']],
        splitter=IndexSplitter(range(n // 2, n)),
    )
    return block.dataloaders(n, bs=4, num_workers=0, before_batch=pad_boxes)


def small_fcos(classes: int = 2) -> nn.Module:
    def conv(i, o, stride):
        return nn.Sequential(nn.Conv2d(i, o, 3, stride, 1), nn.BatchNorm2d(o), nn.ReLU())

    body = nn.Sequential(conv(3, 8, 2), conv(8, 16, 2), conv(16, 32, 2), nn.Dropout2d(0.1))
    body.out_channels = 32
    model = FCOS(
        body,
        classes,
        min_size=48,
        max_size=48,
        anchor_generator=AnchorGenerator(((8,),), ((1.0,),)),
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
    )
    model.head.classification_head.conv = model.head.regression_head.conv = nn.Identity()
    return model


@functools.cache
def trained_weights() -> dict:
    "A detector that knows squares"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        learn = detection_learner(boxes_dls(), small_fcos())
        with learn.no_bar(), learn.no_logging():
            learn.fit_one_cycle(30, 1e-2)
    return learn.model.state_dict()


def boxes_learner(dense: bool = False, **kwargs):
    learn = detection_learner(boxes_dls(), small_fcos(), dense=dense, **kwargs)
    learn.model.load_state_dict(trained_weights())
    return learn
