"""Pools whose items are rows of an array: batches are cut out of it at once, and nothing is made
item by item"""

from collections.abc import Callable

import torch
from fastai.basics import Learner
from fastai.data.block import CategoryBlock, DataBlock, TransformBlock
from fastai.data.core import TfmdDL
from torch import Tensor, nn

from fastai_al.all import ActiveLearner, MCDropout, Pool


def array_pool(labels: list) -> Pool:
    "A pool of places in an array, every item labelled: the truth of a simulation"
    import pandas as pd

    names = [f'{i:05}' for i in range(len(labels))]
    return Pool.from_df(pd.DataFrame({'name': names, 'label': labels}), 'name', 'label')


def cutting(x: Tensor, targets_of: Callable, draws: int | None = None) -> type:
    """A DataLoader class that cuts batches out of `x`, whose targets are `targets_of(rows of the
    pool)`; with `draws`, an epoch is that many items drawn with replacement"""

    class Cutting(TfmdDL):
        def do_item(self, i):
            return i or 0

        def do_batch(self, b):
            if getattr(self, '_of', None) is not self.dataset:
                self._read()
            return (
                (x[self._places[b]], self._targets[b])
                if len(self.dataset.tls) > 1
                else (x[self._places[b]],)
            )

        def _read(self):
            rows = self.dataset.items
            self._of, self._places = self.dataset, torch.tensor(rows.index.astype(int).to_numpy())
            if len(self.dataset.tls) > 1:
                self._targets = targets_of(rows)

        def get_idxs(self):
            "Items are drawn anew each epoch"
            if draws is None or not self.shuffle:
                return super().get_idxs()
            return self.rng.choices(range(len(self.dataset)), k=draws)

        def __len__(self):
            return super().__len__() if draws is None or not self.shuffle else -(-draws // self.bs)

    return Cutting


def array_learner(
    x: Tensor,
    vocab: list,
    model: Callable,
    k: int | None = 50,
    bs: int = 64,
    draws: int | None = None,
    **kwargs,
) -> Callable:
    """What `simulate` makes learners with: pool -> Learner of a new `model()`, with `k` draws of
    dropout; None: plain predictions"""
    from fastai.losses import CrossEntropyLossFlat
    from fastai.metrics import accuracy

    place = {c: i for i, c in enumerate(vocab)}
    block = DataBlock(
        (TransformBlock(), CategoryBlock(vocab=vocab)),
        get_x=lambda row: 0,
        dl_type=cutting(x, lambda rows: torch.tensor([place[y] for y in rows.label]), draws),
    )

    def make(pool):
        dls = pool.dataloaders(block, bs=bs, val_bs=2048, num_workers=0, **kwargs)
        return Learner(
            dls,
            model(),
            CrossEntropyLossFlat(),
            metrics=accuracy,
            cbs=MCDropout(k=k) if k else None,
        )

    return make


def whole(dl) -> tuple[tuple, Tensor]:
    "Inputs and targets of all items of a DataLoader, in order"
    batches = [b for b in dl.new(shuffle=False, drop_last=False, bs=2048)]
    *inputs, targets = [torch.cat(part) for part in zip(*batches)]
    return tuple(t.as_subclass(Tensor) for t in inputs), targets.as_subclass(Tensor)


def warmed(step: int, steps: int) -> float:
    """The share of the highest learning rate at a step: it rises for a quarter of them and falls
    to 0"""
    return min((step + 1) / (steps / 4), (steps - step) / (0.75 * steps))


def train_in_epochs(
    learn,
    groups: list[dict],  # of parameters, the highest learning rate of each as `most`
    steps: int,
    bs: int,
    wd: float,
    changed: Callable = lambda x, y: (x, y),  # a batch of inputs and targets -> what is learnt from
):
    """Steps of AdamW on what is labelled, epoch by epoch; the learning rates rise for a quarter of
    the steps and fall to 0"""
    (x,), y = whole(learn.dls.train)
    model, places = learn.model, torch.empty(0, dtype=torch.long)
    opt = torch.optim.AdamW(groups, weight_decay=wd)
    model.train()
    for step in range(steps):
        while len(places) < bs:
            places = torch.cat([places, torch.randperm(len(y))])
        some, places = places[:bs], places[bs:]
        xb, yb = changed(x[some], y[some])
        for group in opt.param_groups:
            group['lr'] = group['most'] * warmed(step, steps)
        loss = nn.functional.cross_entropy(model(xb), yb)
        opt.zero_grad()
        loss.backward()
        opt.step()


def train_steps(steps: int, lr: float, wd: float, bs: int = 256) -> Callable:
    """A fit of so many steps of AdamW on what is labelled, all of it at once where it is no more
    than `bs`; the learning rate rises for a quarter of them and falls to 0"""

    def fit(learn: ActiveLearner):
        xs, y = whole(learn.dls.train)
        opt = torch.optim.AdamW(learn.model.parameters(), lr, weight_decay=wd, fused=True)
        values, y = y.is_floating_point(), y.flatten()
        y = y if values else y.long()
        learn.model.train()
        for step in range(steps):
            opt.param_groups[0]['lr'] = lr * warmed(step, steps)
            some = torch.randperm(len(y))[:bs] if len(y) > bs else slice(None)
            out = learn.model(*[x[some] for x in xs])
            loss = (
                nn.functional.mse_loss(out.flatten(), y[some])
                if values
                else nn.functional.cross_entropy(out, y[some])
            )
            opt.zero_grad()
            loss.backward()
            opt.step()

    return fit


def linear_head(inputs: int, classes: int, p: float = 0.5) -> nn.Module:
    return nn.Sequential(nn.Dropout(p), nn.Linear(inputs, classes))


def mlp(inputs: int, classes: int, hidden: int = 128, p: float = 0.25) -> nn.Module:
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.ReLU(),
        nn.Dropout(p),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Dropout(p),
        nn.Linear(hidden, classes),
    )


def accuracy_on(x: Tensor, y: Tensor) -> Callable:
    "Measure: accuracy of the plain network on items that are no part of the pool"

    def measure(learn: ActiveLearner) -> dict:
        learn.model.eval()
        with torch.inference_mode():
            right = [
                (learn.model(xb).argmax(1) == yb) for xb, yb in zip(x.split(1000), y.split(1000))
            ]
        return dict(test_accuracy=float(torch.cat(right).float().mean()))

    return measure
