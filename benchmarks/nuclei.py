"""Nuclei (dsb2018, CC0) as arrays: pictures and masks of 64 pixels a side, a small U-Net for
them, and features that no label has touched"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fastai.basics import Learner
from fastai.data.block import DataBlock, TransformBlock
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import Dice

from arrays import array_pool, cutting
from fastai_al.all import MCDropout, on_features
from networks import UNet, segmenting
from sets import frozen, kept, pictures, standardised, unpacked

FROZEN = ', frozen'  # in the name of a strategy that uses features of EfficientNet-Lite0


def masks(packed: np.ndarray, offsets: np.ndarray, size: int) -> np.ndarray:
    "1 in a nucleus, else 0; [N, size, size]"
    from PIL import Image, ImageOps

    def read(i):
        return np.asarray(
            ImageOps.fit(
                unpacked(packed, offsets, i).convert('L'), (size, size), Image.Resampling.NEAREST
            )
        )

    return np.stack([read(i) for i in range(len(offsets) - 1)]) > 0


def load(data: Path, work: Path, size: int = 64) -> dict:
    "What `simulate` needs, and the frame of frozen features beside it"
    z = np.load(data / 'dsb2018_nuclei_256.npz')
    everything = range(len(z['img_off']) - 1)
    x = torch.tensor(pictures(z['img_jpg'], z['img_off'], everything, size)).float() / 127.5 - 1
    y = torch.tensor(masks(z['mask_png'], z['mask_off'], size)).long()
    features = standardised(
        kept(work / 'nuclei_lite0.npy', lambda: frozen(z['img_jpg'], z['img_off'], everything))
    )
    pool = array_pool(list(everything))
    return dict(
        make_learner=lambda k: learners(x, y, UNet, k),
        pool=pool,
        fit=segmenting(),
        frozen=pd.DataFrame(features, index=pool.labelled.index),
    )


def learners(x: torch.Tensor, y: torch.Tensor, model: Callable, k: int) -> Callable:
    """What `simulate` makes learners with: pool -> Learner of a new `model()`, with `k` draws of
    dropout"""
    block = DataBlock(
        (TransformBlock(), TransformBlock()),
        get_x=lambda row: 0,
        dl_type=cutting(x, lambda rows: y[torch.tensor(rows.index.astype(int).to_numpy())]),
    )

    def make(pool):
        return Learner(
            pool.dataloaders(block, bs=8, val_bs=64, num_workers=0),
            model(),
            CrossEntropyLossFlat(axis=1),
            metrics=Dice(),
            cbs=MCDropout(k=k),
        )

    return make


def strategy_of(name: str, loaded: dict):
    "The strategy that a name stands for"
    return (
        on_features(name.removesuffix(FROZEN), loaded['frozen'], 'frozen')
        if name.endswith(FROZEN)
        else name
    )
