"""The architectures that draws are checked on, each as a learner with dropout and a function
from item numbers to a DataLoader"""

import warnings

import numpy as np
import pandas as pd
import torch
from fastai.basics import (
    Categorize,
    CategoryBlock,
    ColReader,
    DataBlock,
    DataLoaders,
    Datasets,
    Learner,
)
from fastai.losses import CrossEntropyLossFlat
from fastai.tabular.all import (
    Categorify,
    FillMissing,
    Normalize,
    TabularDataLoaders,
    tabular_config,
    tabular_learner,
)
from fastai.text.all import (
    AWD_LSTM,
    BaseTokenizer,
    TextBlock,
    awd_lstm_clas_config,
    text_classifier_learner,
)
from fastai.vision.all import (
    TensorImage,
    TensorMask,
    aug_transforms,
    resnet18,
    unet_learner,
    vision_learner,
)
from torch import nn

from conftest import classes_learner, plain_dls
from contracts import Encoder, TwoBranches

N = 24  # different items; item 24 is a copy of item 0


def picture(i: int, side: int = 32, channels: int = 3) -> TensorImage:
    return TensorImage(
        torch.rand(channels, side, side, generator=torch.Generator().manual_seed(int(i) % N))
    )


class Picture:
    def __init__(self, side=32, channels=3):
        self.side, self.channels = side, channels

    def __call__(self, i):
        return picture(i, self.side, self.channels)


def class_of(i: int) -> int:
    return int(i) % 3


def mask_of(i: int) -> TensorMask:
    return TensorMask((picture(i)[0] > 0.5).long())


def image_dls(
    side=32, channels=3, target=(class_of, Categorize(vocab=[0, 1, 2])), **kwargs
) -> DataLoaders:
    return Datasets(
        list(range(N)), [[Picture(side, channels)], list(target)], splits=[range(16), range(16, N)]
    ).dataloaders(bs=8, num_workers=0, **kwargs)


class BatchBALDNet(nn.Module):
    "The network of the BatchBALD paper, with dropout from the first layer on"

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 32, 5),
            nn.Dropout2d(),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(32, 64, 5),
            nn.Dropout2d(),
            nn.MaxPool2d(2),
            nn.ReLU(),
        )
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(1024, 128), nn.Dropout(), nn.ReLU(), nn.Linear(128, 3)
        )

    def forward(self, x):
        return self.head(self.body(x))


def resnet(**kwargs):
    return vision_learner(
        image_dls(after_batch=aug_transforms(size=32)),
        resnet18,
        pretrained=False,
        n_out=3,
        normalize=False,
        **kwargs,
    )


def timm_model(**kwargs):
    return vision_learner(
        image_dls(after_batch=aug_transforms(size=32)),
        'mobilenetv3_small_050',
        pretrained=False,
        n_out=3,
        normalize=False,
        drop_path_rate=0.2,
        **kwargs,
    )


def timm_functional(**kwargs):
    "A whole model of timm, whose last dropout is a function"
    import timm

    return Learner(
        image_dls(),
        timm.create_model('resnet10t', num_classes=3, drop_rate=0.3, drop_path_rate=0.1),
        CrossEntropyLossFlat(),
        **kwargs,
    )


def batchbald(**kwargs):
    return Learner(image_dls(28, 1), BatchBALDNet(), CrossEntropyLossFlat(), **kwargs)


def unet(**kwargs):
    learn = unet_learner(
        image_dls(target=(mask_of,)),
        resnet18,
        pretrained=False,
        n_out=2,
        normalize=False,
        loss_func=CrossEntropyLossFlat(axis=1),
        **kwargs,
    )
    learn.model.layers.insert(len(learn.model.layers) - 2, nn.Dropout2d(0.3))
    return learn


def rows() -> pd.DataFrame:
    random = np.random.RandomState(0)
    return pd.DataFrame(
        dict(
            a=random.randn(N),
            b=random.randn(N),
            c=random.choice(list('xyz'), N),
            y=[class_of(i) for i in range(N)],
        )
    )


def tabular(**kwargs):
    dls = TabularDataLoaders.from_df(
        rows(),
        procs=[Categorify, FillMissing, Normalize],
        cat_names=['c'],
        cont_names=['a', 'b'],
        y_names='y',
        y_block=CategoryBlock(vocab=[0, 1, 2]),
        bs=8,
        valid_idx=range(16, N),
        num_workers=0,
    )
    return tabular_learner(
        dls,
        layers=[20, 10],
        config=tabular_config(ps=[0.2, 0.2], embed_p=0.2, y_range=None),
        n_out=3,
        **kwargs,
    )


def texts() -> pd.DataFrame:
    random = np.random.RandomState(0)  # up to three chunks of 72 tokens
    return pd.DataFrame(
        dict(
            text=[
                ' '.join(
                    random.choice(list('abcdefgh'), random.choice([5, 30, 60, 71, 80, 140, 180]))
                )
                for _ in range(N)
            ],
            label=[class_of(i) for i in range(N)],
        )
    )


def text(**kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of pandas, from inside fastai
        dls = DataBlock(
            (TextBlock.from_df('text', tok=BaseTokenizer()), CategoryBlock(vocab=[0, 1, 2])),
            get_x=ColReader('text'),
            get_y=ColReader('label'),
        ).dataloaders(texts(), bs=8, num_workers=0)
    config = {**awd_lstm_clas_config, 'emb_sz': 12, 'n_hid': 16, 'n_layers': 2}
    return text_classifier_learner(dls, AWD_LSTM, config=config, pretrained=False, **kwargs)


def frame_dl(make):
    def dl(learn, items, bs):
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            return learn.dls.test_dl(
                make().iloc[[i % N for i in items]].reset_index(drop=True), bs=bs
            )

    return dl


def number_dl(learn, items, bs):
    return learn.dls.test_dl(list(items), bs=bs)


# name -> (learner, DataLoader of item numbers)
ARCHITECTURES = {
    'resnet18': (resnet, number_dl),
    'timm in vision_learner': (timm_model, number_dl),
    'timm with functional dropout': (timm_functional, number_dl),
    'BatchBALD network': (batchbald, number_dl),
    'U-Net': (unet, number_dl),
    'tabular': (tabular, frame_dl(rows)),
    'AWD-LSTM': (text, frame_dl(texts)),
    'transformer': (
        lambda **kw: Learner(plain_dls(), Encoder(), CrossEntropyLossFlat(), **kw),
        lambda learn, items, bs: learn.dls.test_dl([i % N for i in items], bs=bs),
    ),
    'two branches': (
        lambda **kw: classes_learner(TwoBranches(), **kw),
        lambda learn, items, bs: learn.dls.test_dl([i % N for i in items], bs=bs),
    ),
}
