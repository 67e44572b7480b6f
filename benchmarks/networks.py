"Networks of the studies, and how they are trained"

import copy
from collections.abc import Callable

import torch
from torch import nn

from arrays import train_in_epochs, whole


def paper_cnn() -> nn.Module:
    """The network of the BatchBALD paper (https://arxiv.org/abs/1906.08158).

    There dropout comes before pooling and ReLU; a mask of whole channels passes

    through both unchanged, and after them there is less to mask"""
    return nn.Sequential(
        nn.Conv2d(1, 32, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Dropout2d(0.5),
        nn.Conv2d(32, 64, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Dropout2d(0.5),
        nn.Flatten(),
        nn.Linear(1024, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, 10),
    )


def as_in_the_paper(
    draws: int = 5056,
    bs: int = 64,
    epochs: int = 30,
    patience: int = 3,
    between: Callable = lambda: None,
) -> Callable:
    """A fit:

    Adam at 1e-3, epochs of `draws` items drawn with replacement, until the accuracy on the hold-out
    has not risen for `patience` of them; the best weights. `between` is called after each"""

    def fit(learn):
        (x,), y = whole(learn.dls.train)
        (xv,), yv = whole(learn.dls.valid)
        model = learn.model.to(memory_format=torch.channels_last)  # trains faster so
        opt, best, waited = torch.optim.Adam(model.parameters(), 1e-3), -1.0, 0
        for _ in range(epochs):
            model.train()
            for places in torch.randint(len(y), (draws,)).split(bs):
                loss = nn.functional.cross_entropy(model(x[places]), y[places])
                opt.zero_grad()
                loss.backward()
                opt.step()
            model.eval()
            with torch.inference_mode():
                reached = (
                    torch.cat([model(b).argmax(1) for b in xv.split(512)])
                    .eq(yv)
                    .float()
                    .mean()
                    .item()
                )
            if reached > best:
                best, waited, weights = reached, 0, copy.deepcopy(model.state_dict())
            else:
                waited += 1
            if waited == patience:
                break
            between()
        model.load_state_dict(weights)

    return fit


class FineTuned(nn.Module):
    """A trained network without its head, dropout and a new head, for pictures in bytes.

    Of the network learn the parameters whose names begin with one of `tuned`; its batch norms stay
    as they are"""

    def __init__(self, body: nn.Module, features: int, classes: int, tuned: tuple, p: float = 0.5):
        super().__init__()
        self.body, self.head = body, nn.Sequential(nn.Dropout(p), nn.Linear(features, classes))
        for name, parameter in body.named_parameters():
            parameter.requires_grad_(name.startswith(tuned))

    def forward(self, x):
        return self.head(self.body(x.float() / 127.5 - 1))

    def train(self, mode: bool = True):
        super().train(mode)
        for m in self.body.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.eval()
        return self


def fine_tune(
    steps: int = 40, bs: int = 20, body_lr: float = 2e-4, head_lr: float = 3e-3, wd: float = 0.05
) -> Callable:
    """A fit: steps of AdamW on batches of what is labelled, half of them mirrored, epoch by
    epoch; the learning rates rise for a quarter of the steps and fall to 0"""

    def mirrored(x, y):
        half = torch.rand(bs) < 0.5
        return torch.where(half[:, None, None, None], x.flip(-1), x), y

    def fit(learn):
        model = learn.model.to(memory_format=torch.channels_last)  # trains faster so
        groups = [
            dict(params=[p for p in model.body.parameters() if p.requires_grad], most=body_lr),
            dict(params=model.head.parameters(), most=head_lr),
        ]
        train_in_epochs(learn, groups, steps, bs, wd, mirrored)

    return fit


class UNet(nn.Module):
    "A small U-Net; all its dropout comes after the encoder"

    def __init__(self, channels: tuple = (12, 24, 48), p: float = 0.2):
        super().__init__()
        self.down = nn.ModuleList(_twice(i, o) for i, o in zip((3, *channels), channels))
        self.up = nn.ModuleList(
            _twice(channels[i] + channels[i - 1], channels[i - 1])
            for i in range(len(channels) - 1, 0, -1)
        )
        self.deep, self.out = (
            nn.Dropout2d(p),
            nn.Sequential(nn.Dropout2d(p), nn.Conv2d(channels[0], 2, 1)),
        )

    def forward(self, x):
        found = []
        for i, block in enumerate(self.down):
            x = block(nn.functional.max_pool2d(x, 2) if i else x)
            found.append(x)
        x = self.deep(x)
        for block, skip in zip(self.up, found[-2::-1]):
            x = block(
                torch.cat([nn.functional.interpolate(x, scale_factor=2, mode='nearest'), skip], 1)
            )
        return self.out(x)


def _twice(i: int, o: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(i, o, 3, padding=1, bias=False),
        nn.BatchNorm2d(o),
        nn.ReLU(),
        nn.Conv2d(o, o, 3, padding=1, bias=False),
        nn.BatchNorm2d(o),
        nn.ReLU(),
    )


def segmenting(steps: int = 150, bs: int = 8, lr: float = 2e-3, wd: float = 0.01) -> Callable:
    """A fit: as many steps of AdamW however much is labelled, epoch by epoch, each batch
    mirrored and turned at random; the learning rate rises for a quarter of the steps and falls
    to 0"""

    def turned(x, y):
        mirrored, turns = bool(torch.rand(()) < 0.5), int(torch.randint(4, ()))
        xb, yb = (torch.rot90(t.flip(-1) if mirrored else t, turns, (-2, -1)) for t in (x, y))
        return xb, yb

    def fit(learn):
        model = learn.model.to(memory_format=torch.channels_last)  # trains faster so
        train_in_epochs(learn, [dict(params=model.parameters(), most=lr)], steps, bs, wd, turned)

    return fit


def housing_learner(pool, cats: list, conts: list, k: int = 20):
    "Two layers with a little dropout for the values of houses, and their R²"
    from fastai.tabular.all import R2Score, RegressionBlock, tabular_config

    return _table_learner(
        pool, RegressionBlock, cats, conts, tabular_config(ps=0.05, y_range=(0, 5.5)), R2Score(), k
    )


def adult_learner(pool, cats: list, conts: list, k: int = 20):
    "Two layers with dropout for incomes above and below 50,000, and their accuracy"
    from fastai.tabular.all import CategoryBlock, accuracy, tabular_config

    block, config = CategoryBlock(vocab=['<=50K', '>50K']), tabular_config(ps=0.2, embed_p=0.05)
    return _table_learner(pool, block, cats, conts, config, accuracy, k)


def _table_learner(pool, block, cats: list, conts: list, config: dict, metric, k: int):
    from fastai.tabular.all import Categorify, FillMissing, Normalize, tabular_learner

    from fastai_al.all import MCDropout

    dls = pool.tabular_dataloaders(
        block,
        [Categorify, FillMissing, Normalize],
        cats,
        conts,
        bs=16,
        val_bs=2048,
        num_workers=0,
    )
    return tabular_learner(
        dls,
        layers=[64, 32],
        config=config,
        metrics=metric,
        cbs=MCDropout(k=k) if k else None,
    )
