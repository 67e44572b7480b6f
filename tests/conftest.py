"""What the tests share: items without files, small learners, and a picture of everything a
learner holds"""

import os

os.environ.setdefault(
    'OMP_NUM_THREADS', '1'
)  # before torch: small models are no faster with more, and workers do not fight over cores

import copy
import multiprocessing
import random

import numpy as np
import pytest
import torch
from fastai.basics import (
    CategoryBlock,
    DataBlock,
    Learner,
    TransformBlock,
    accuracy,
)
from fastai.data.core import DataLoaders, Datasets
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat
from fastai.vision.all import ImageBlock, MaskBlock, PILImageBW, Resize
from hypothesis import settings
from PIL import Image
from torch import nn

from fastai_al.active_learner import ActiveLearner
from fastai_al.core.preserve import preserved_random_states
from fastai_al.pool.pool import Pool
from fastai_al.posterior.dropout import MCDropout

settings.register_profile('ci', derandomize=True)  # elsewhere new examples are tried in each run
if os.environ.get('CI'):
    settings.load_profile('ci')
torch.backends.cudnn.allow_tf32 = (
    False  # on a GPU: differences are ours, not those of rounded products
)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


def forked():
    "Processes that begin as copies of this one; the test is skipped where there are none"
    if 'fork' not in multiprocessing.get_all_start_methods():
        pytest.skip('Windows has no processes that are copies of another one')
    return multiprocessing.get_context('fork')


def features_of(i: int) -> torch.Tensor:
    "Six numbers that belong to item `i`"
    return torch.randn(6, generator=torch.Generator().manual_seed(int(i)))


def class_of(i: int) -> int:
    return int(features_of(i)[:3].argmax())


class XOf:
    "Getter of an item's features"

    def __call__(self, i):
        return features_of(i)


class PixelsOf:
    "Getter of an item's 4 x 4 picture"

    def __call__(self, i):
        return features_of(i)[:4, None] * torch.linspace(0.5, 1.5, 4)[None]


BLOCK = DataBlock((TransformBlock, CategoryBlock(vocab=[0, 1, 2])), get_x=XOf())


def small_pool(n: int = 60, labelled: int = 20, held: int = 10, **kwargs) -> Pool:
    pool = Pool(range(n), **kwargs)
    for uids in ([pool.draw_holdout(held)] if held else []) + (
        [pool.sample(labelled)] if labelled else []
    ):
        pool.label(uids, [class_of(u) for u in uids])
    return pool


def mlp(out: int = 3, p: float = 0.3) -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(p), nn.Linear(16, out)
    )


def pool_learner(pool: Pool, **kwargs) -> Learner:
    return Learner(
        pool.dataloaders(BLOCK, bs=8, num_workers=0),
        mlp(),
        CrossEntropyLossFlat(),
        metrics=accuracy,
        cbs=MCDropout(k=6),
        **kwargs,
    )


class Segmenter(nn.Module):
    "Classes for each pixel of a 4 x 4 picture"

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout2d(0.3),
            nn.Conv2d(8, 3, 1),
        )

    def forward(self, x):
        return self.body(x[:, None])


def plain_dls(x=XOf(), y=class_of, n: int = 40, **kwargs) -> DataLoaders:
    "DataLoaders over item numbers, without a pool"
    return Datasets(
        list(range(n)), [[x], [y]], splits=[list(range(n // 2)), list(range(n // 2, n))]
    ).dataloaders(bs=8, num_workers=0, **kwargs)


def as_pool(learn: Learner):
    "The validation items without their labels, as a pool to choose from"
    with preserved_random_states():
        return learn.dls.test_dl(learn.dls.valid_ds.items)


def classes_learner(model=None, **kwargs):
    return Learner(plain_dls(), model or mlp(), CrossEntropyLossFlat(), metrics=accuracy, **kwargs)


def pixels_learner(**kwargs):
    dls = plain_dls(PixelsOf(), lambda i: (PixelsOf()(i) > 0).long())
    return Learner(dls, Segmenter(), CrossEntropyLossFlat(axis=1), **kwargs)


def labels_learner(**kwargs):
    return Learner(
        plain_dls(y=lambda i: (features_of(i)[:3] > 0).float()),
        mlp(),
        BCEWithLogitsLossFlat(),
        **kwargs,
    )


def pictures_learner(folder, method, size=(24, 8), pool_of=Pool.from_folder):
    "Wide pictures with masks, seen as squares"
    for i in range(40):
        x = (
            (torch.rand(size[1], size[0], generator=torch.Generator().manual_seed(i)) * 255)
            .byte()
            .numpy()
        )
        for kind, picture in (('a/im', x), ('mask', (x > 127).astype(np.uint8))):
            file = folder / kind / f'{i:02}.png'
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(file)
    pool = pool_of(folder / 'a')
    for uids in (pool.draw_holdout(10), pool.sample(10)):
        pool.label(uids, [str(folder / 'mask' / u.split('/')[-1]) for u in uids])
    block = DataBlock(
        (ImageBlock(PILImageBW), MaskBlock(codes=['no', 'yes'])), item_tfms=Resize(8, method)
    )
    return ActiveLearner(
        Learner(
            pool.dataloaders(block, bs=5, num_workers=0),
            nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.Dropout2d(0.2), nn.Conv2d(8, 2, 1)),
            CrossEntropyLossFlat(axis=1),
            cbs=MCDropout(k=3),
        ),
        pool,
    )


def everything(learn) -> dict:
    "All that a pool pass must leave as it was"

    def plain(o):
        return {
            k: (
                copy.copy(v.items)
                if hasattr(v, 'items') and isinstance(getattr(v, 'items', None), list)
                else copy.copy(v)
                if isinstance(v, (list, dict))
                else v
            )
            for k, v in vars(o).items()
        }

    return dict(
        parameters={n: p.detach().clone() for n, p in learn.model.named_parameters()},
        buffers={n: b.clone() for n, b in learn.model.named_buffers()},
        modules=[
            (n, type(m), m.training, sorted(vars(m)), list(m._forward_hooks))
            for n, m in learn.model.named_modules()
        ],
        learner=plain(learn),
        callbacks=[(type(cb), plain(cb)) for cb in learn.cbs],
        dls=[
            (
                id(dl),
                id(dl.dataset),
                dl.dataset.split_idx,
                dl.bs,
                dl.rng.getstate(),
                dl.after_batch.split_idx,
            )
            for dl in learn.dls.loaders
        ],
        random=(torch.get_rng_state(), str(np.random.get_state()), random.getstate()),
        fast_path=torch.backends.mha.get_fastpath_enabled(),
        grad=torch.is_grad_enabled(),
    )


def assert_same(now, before, path=''):
    "Equal in every part, tensors bit for bit; objects the same ones"
    assert type(now) is type(before), path
    if isinstance(before, torch.Tensor):
        assert torch.equal(now, before), path
    elif isinstance(before, dict):
        assert now.keys() == before.keys(), f'{path}: {set(now) ^ set(before)}'
        for k in before:
            assert_same(now[k], before[k], f'{path}.{k}')
    elif isinstance(before, (list, tuple)):
        assert len(now) == len(before), path
        for i, (a, b) in enumerate(zip(now, before)):
            assert_same(a, b, f'{path}[{i}]')
    elif isinstance(before, (int, float, str, bool, type(None))):
        assert now == before or now != now and before != before, path
    else:
        assert now is before or now == before, path
