"""How few labels are enough? Digits, with what the unlabelled ones show: which are typical, and
which lie beside each other

Nothing here has seen a label but those that are counted, and there is no hold-out. What is known
before of digits: that they may be slanted, and that the
directions of strokes matter more than where exactly they run. The setting `pixels` does without
both. How neighbours are found was tried out on the first 10,000 digits with
all their labels, and again on three of the seeds."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

# of what an item believes comes from its neighbours, the rest from its own label (Zhou et al. 2003)
SHARE = 0.99


def upright(x: Tensor) -> Tensor:
    """Pictures [N, 1, 28, 28] moved to the middle and sheared until rows have their centres of
    mass above each other"""
    at, mass = torch.arange(28.0), x.sum((1, 2, 3))
    down, across = x[:, 0].sum(2), x[:, 0].sum(1)
    cy, cx = (down * at).sum(1) / mass, (across * at).sum(1) / mass
    dy, dx = at - cy[:, None], at - cx[:, None]
    slant = torch.einsum('nij,ni,nj->n', x[:, 0], dy, dx) / (down * dy**2).sum(1)
    how, one = torch.zeros(len(x), 2, 3), torch.ones(len(x))
    how[:, 0] = torch.stack([one, slant, (cx - 13.5) / 14], 1)
    how[:, 1] = torch.stack([0 * one, one, (cy - 13.5) / 14], 1)
    return F.grid_sample(x, F.affine_grid(how, x.shape, align_corners=False), align_corners=False)


def strokes(x: Tensor, bins: int = 8) -> Tensor:
    """How much of each direction there is in overlapping windows of 8 x 8 pixels, of unit length
    [N, 288]: histograms of gradients (Dalal & Triggs 2005)"""
    sobel = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])[None, None]
    gx, gy = F.conv2d(x, sobel, padding=1), F.conv2d(x, sobel.transpose(2, 3), padding=1)
    length, angle = (gx**2 + gy**2).sqrt(), torch.atan2(gy, gx) % (2 * np.pi) / (2 * np.pi) * bins
    low = angle.floor()
    found = (
        torch.zeros(len(x), bins, 28, 28)
        .scatter_(1, low.long() % bins, length * (1 - angle + low))
        .scatter_add_(1, (low.long() + 1) % bins, length * (angle - low))
    )
    return F.normalize(F.avg_pool2d(found, 8, 4).flatten(1).sqrt(), dim=1)


def neighbours(features: Tensor, k: int = 8):
    """The graph of the `k` nearest neighbours of each item, either way, normalised by degrees;
    sparse [N, N]"""
    from scipy import sparse

    n, x = len(features), F.normalize(features, dim=1)
    near = torch.cat([(rows @ x.T).topk(k + 1).indices[:, 1:] for rows in x.split(1000)])
    graph = sparse.csr_matrix(
        (np.ones(n * k), (np.repeat(np.arange(n), k), near.flatten().numpy())), (n, n)
    )
    graph = graph.maximum(graph.T)
    scale = sparse.diags(np.asarray(graph.sum(1)).ravel() ** -0.5)
    return (scale @ graph @ scale).tocsr().astype(np.float32)


def spread(graph, places: list, labels: list, classes: int = 10, steps: int = 60) -> np.ndarray:
    """What each item believes after labels have been passed on along the graph; [N, C], rows sum
    to 1 (Zhou et al. 2003, Learning with local and global consistency)"""
    own = np.zeros((graph.shape[0], classes), dtype=np.float32)
    own[places, labels] = 1
    own /= np.maximum(own.sum(0), 1)  # a class with more labels is not a larger class
    found = own.copy()
    for _ in range(steps):
        found = SHARE * (graph @ found) + (1 - SHARE) * own
    found += 1e-12
    return found / found.sum(1, keepdims=True)


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 24, 5, 2, 2),
        nn.ReLU(),
        nn.Conv2d(24, 48, 5, 2, 2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(48 * 49, 64),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(64, 10),
    )


def shifted(x: Tensor, most: int = 2) -> Tensor:
    "A batch, moved by up to so many pixels"
    return x.roll(torch.randint(-most, most + 1, (2,)).tolist(), (2, 3))


def train(learn, steps: int = 300, bs: int = 64, between: Callable = lambda: None):
    "On labels and pseudo-labels alike, by one cycle of AdamW"
    from arrays import whole

    (x,), y = whole(learn.dls.train)
    model, opt = learn.model, torch.optim.AdamW(learn.model.parameters(), 3e-3, weight_decay=0.01)
    cycle = torch.optim.lr_scheduler.OneCycleLR(opt, 3e-3, total_steps=steps)
    model.train()
    for step in range(steps):
        some = torch.randint(len(y), (bs,))
        loss = F.cross_entropy(model(shifted(x[some])), y[some])
        opt.zero_grad()
        loss.backward()
        opt.step()
        cycle.step()
        if step % 50 == 0:
            between()


def ask(
    strategy: str, n: int, features: Tensor, known: list, prediction: np.ndarray | None, seed: int
) -> list[int]:
    """Places of the next items to label: by typical or representative ones as long as nothing is
    believed, then by `strategy`"""
    from fastai_al.all import max_herding, typiclust, uncertainty_herding

    rest = np.setdiff1d(np.arange(len(features)), known)
    if strategy == 'random':
        return (
            np.random.default_rng(1000 * seed + len(known)).choice(rest, n, replace=False).tolist()
        )
    given = dict(
        features=features[rest],
        labelled_features=features[known] if known else None,
        n=n,
        seed=seed,
    )
    if strategy == 'uncertainty_herding' and prediction is not None:
        top = np.sort(prediction[rest], 1)[:, -2:]
        chosen = uncertainty_herding(**given, scores=torch.tensor(top[:, 0] - top[:, 1]))
    else:
        chosen = {
            'typiclust': typiclust,
            'max_herding': max_herding,
            'uncertainty_herding': typiclust,
        }[strategy](**given)
    return rest[chosen.indices.numpy()].tolist()


BUDGETS = 10, 12, 14, 16, 18, 20, 25, 30, 40, 50, 75, 100


def campaign(
    strategy: str,
    seed: int,
    z: dict,
    clock,
    *,
    size: int = 10000,
    target: float = 0.95,
    features_of: Callable = lambda x: strokes(upright(x)),
) -> pd.DataFrame:
    """10,000 digits drawn by the seed; ask, pass labels on, train on what is believed, measure
    on the 10,000 test digits; until `target` is reached. One row a round"""
    import time

    from fastai.basics import set_seed

    from arrays import accuracy_on, array_learner, array_pool
    from fastai_al.all import ActiveLearner

    places = np.random.default_rng(seed).permutation(len(z['y_train']))[:size]
    x, truth = (
        torch.tensor(z['x_train'][places])[:, None].float() / 255,
        z['y_train'][places].astype(int),
    )
    features = features_of(x)
    graph, measure = (
        neighbours(features),
        accuracy_on(
            torch.tensor(z['x_test'])[:, None].float() / 255, torch.tensor(z['y_test'].astype(int))
        ),
    )
    hidden, names, prediction, rows, known = (
        array_pool([None] * size),
        [f'{i:05}' for i in range(size)],
        None,
        [],
        [],
    )
    for round, budget in enumerate(BUDGETS):
        clock.check()
        start = time.perf_counter()
        new = ask(strategy, budget - len(known), features, known, prediction, seed)
        if known:
            hidden.retract(list(hidden.pseudo.index), annotator='model')
        hidden.label([names[i] for i in new], [int(truth[i]) for i in new], annotator='oracle')
        known += new
        asked = time.perf_counter() - start
        prediction = spread(graph, known, truth[known].tolist())
        others = np.setdiff1d(np.arange(size), known)
        hidden.add_pseudo([names[i] for i in others], prediction[others].argmax(1).tolist())
        set_seed(1000 * seed + round)
        learn = ActiveLearner(
            array_learner(x, list(range(10)), network, pseudo=True)(hidden), hidden
        )
        train(learn, between=clock.check)
        rows.append(
            dict(
                round=round,
                labelled=len(known),
                pseudo_right=float((prediction[others].argmax(1) == truth[others]).mean()),
                **measure(learn),
                acquire_seconds=asked,
                fit_seconds=time.perf_counter() - start - asked,
            )
        )
        if rows[-1]['test_accuracy'] >= target:
            break
    return pd.DataFrame(rows)
