"""Does the default radius of `max_herding` and `uncertainty_herding` work on features of the
network that is being trained?

Three pools: photos, with the last convolution of a pretrained network fine-tuned in each round;
digits, with a small CNN trained from scratch in each round; and rows of a
table, with a small fully connected network. The strategies see the input of the network's last
layer and plain predictions. Up to version 0.11.0 the radius was the
least distance between two labelled items. No setting was chosen by its result."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

BEFORE = ', least distance'  # in the name of a strategy with the radius of version 0.11.0
STRATEGIES = [
    'random',
    *(
        strategy + old
        for strategy in ('max_herding', 'uncertainty_herding')
        for old in (BEFORE, '')
    ),
]


def least_distance(
    features: Tensor,  # [N, D], the candidates
    labelled: Tensor | None,  # [L, D]
) -> float | None:
    """The radius of version 0.11.0: the least distance between two labelled items of unit length
    that are not copies, .01 at least. None with fewer than two"""
    if labelled is None or len(labelled) < 2:
        return None
    y = normalize(labelled.double())
    apart = torch.pdist(y)
    apart = apart[apart > 2e-3]
    return max(apart.min().item(), 0.01) if len(apart) else None


def with_radius(strategy: Callable, radius: Callable, suffix: str) -> Callable:
    """The selector `strategy` with a radius of its own: a function of the candidates' and the
    labelled items' features"""

    @functools.wraps(strategy)
    def chosen(features, *args, labelled_features=None, **kwargs):
        return strategy(
            features,
            *args,
            labelled_features=labelled_features,
            radius=radius(features, labelled_features),
            **kwargs,
        )

    chosen.__name__ = chosen.__qualname__ = strategy.__name__ + suffix
    return chosen


def strategy_of(name: str) -> str | Callable:
    "`name` itself, or the selector with the radius of version 0.11.0"
    from fastai_al.acquisition.selection import SELECTORS

    return (
        with_radius(SELECTORS[name.removesuffix(BEFORE)], least_distance, BEFORE)
        if name.endswith(BEFORE)
        else name
    )


def before_last(x: np.ndarray) -> np.ndarray:
    """Photos in bytes [N, 3, H, W] as the input of EfficientNet-Lite0's last convolution, [N,
    320, h, w]: what is frozen is computed once"""
    from sets import lite0

    net = lite0()
    frozen = nn.Sequential(net.conv_stem, net.bn1, *net.blocks)
    with torch.inference_mode():
        return (
            torch.cat([frozen(b.float() / 127.5 - 1) for b in torch.tensor(x).split(64)])
            .half()
            .numpy()
        )


class LastConvolution(nn.Module):
    """The last convolution of EfficientNet-Lite0, the mean of its 1,280 maps, dropout and a new
    head; the statistics of its batch norm stay as they are"""

    def __init__(self, classes: int, p: float = 0.2):
        super().__init__()
        from sets import lite0

        net = lite0()
        self.body = nn.Sequential(net.conv_head, net.bn2, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Sequential(nn.Dropout(p), nn.Linear(1280, classes))

    def forward(self, x):
        return self.head(self.body(x.float()))

    def train(self, mode: bool = True):
        super().train(mode)
        self.body.eval()
        return self


def small_cnn() -> nn.Module:
    "Two convolutions and a hidden layer of 64 features for digits"
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 49, 64),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(64, 10),
    )


def train(
    steps: int = 60, bs: int = 32, lr: float = 3e-3, body_lr: float | None = None, wd: float = 0.01
) -> Callable:
    """A fit: steps of AdamW, epoch by epoch; the learning rates rise for a quarter of them and
    fall to 0"""
    from arrays import train_in_epochs

    def fit(learn):
        model = learn.model
        groups = (
            [dict(params=model.parameters(), most=lr)]
            if body_lr is None
            else [
                dict(params=model.body.parameters(), most=body_lr),
                dict(params=model.head.parameters(), most=lr),
            ]
        )
        train_in_epochs(learn, groups, steps, bs, wd)

    return fit


def flowers(data: Path, work: Path, n: int = 3000) -> dict:
    "3,000 photos of 96 pixels a side; the network's last convolution is trained with the head"
    import sets
    from arrays import array_learner, array_pool

    x, y = sets.photos('flowers', data, n)
    vocab, maps = (
        sorted(set(y)),
        torch.tensor(sets.kept(work / f'flowers_{n}_before_last.npy', lambda: before_last(x))),
    )
    return dict(
        make_learner=lambda k: array_learner(maps, vocab, lambda: LastConvolution(len(vocab)), k),
        pool=array_pool(y),
        fit=train(body_lr=3e-4),
    )


def adult(data: Path, work: Path, n: int = 3000) -> dict:
    "3,000 rows; embeddings and two hidden layers from scratch"
    from studies import load_adult

    return load_adult(data, n)


def digits(data: Path, work: Path, n: int = 3000) -> dict:
    "3,000 digits; a small CNN from scratch"
    from arrays import array_learner, array_pool

    z = np.load(data / 'mnist.npz')
    x, y = (
        torch.tensor(z['x_train'][:n])[:, None].float() / 255,
        z['y_train'][:n].astype(int).tolist(),
    )
    return dict(
        make_learner=lambda k: array_learner(x, list(range(10)), small_cnn, k),
        pool=array_pool(y),
        fit=train(100),
    )


LOADS = {'flowers': flowers, 'MNIST': digits, 'Adult': adult}
TITLES = {
    'flowers': 'flowers, last convolution of EfficientNet-Lite0 fine-tuned',
    'MNIST': 'MNIST, small CNN',
    'Adult': 'Adult, small MLP',
}


def tested(area, pairs: list[tuple]) -> dict:
    """`(setting, a, b) ->` the mean gap over the seeds, in how many a is ahead, how many there
    are, and the p-value of a Wilcoxon test, Holm's correction over all `pairs`"""
    from scipy.stats import wilcoxon

    from studies import FEWEST, holm

    gaps = {
        pair: (area.loc[pair[0]][pair[1]] - area.loc[pair[0]][pair[2]]).dropna().to_numpy()
        for pair in pairs
    }
    gaps = {pair: gap for pair, gap in gaps.items() if len(gap) >= FEWEST}
    ps = holm([wilcoxon(gap).pvalue if gap.any() else 1.0 for gap in gaps.values()])
    return {
        pair: (gap.mean(), (gap > 0).sum(), len(gap), p) for (pair, gap), p in zip(gaps.items(), ps)
    }


def table(study, curves):
    """A section: accuracy after each round, and each strategy against random sampling and
    against its old radius"""
    from results import write_section
    from studies import areas

    area, labels = areas(curves), sorted(curves.labelled.unique())
    settings = [s for s in LOADS if s in set(curves.setting)]
    random = tested(
        area,
        [
            (s, strategy, 'random')
            for s in settings
            for strategy in STRATEGIES[1:]
            if strategy in area
        ],
    )
    before = tested(
        area,
        [
            (s, strategy, strategy + BEFORE)
            for s in settings
            for strategy in STRATEGIES[2::2]
            if {strategy, strategy + BEFORE} <= set(area)
        ],
    )

    def difference(found):
        return (
            '|'
            if found is None
            else f'{found[0]:+.4f}, ahead in {found[1]} of {found[2]} | {found[3]:.3f}'
        )

    rows = []
    for s in settings:
        means = curves[curves.setting == s].groupby(['by', 'labelled']).accuracy.mean()
        for strategy in [r for r in STRATEGIES if r in area and area.loc[s][r].notna().any()]:
            rows.append(
                f'| {TITLES[s]} | {strategy} | {area.loc[s][strategy].notna().sum()} | '
                + ' | '.join(f'{means[strategy, at]:.3f}' for at in labels)
                + f' | {area.loc[s][strategy].mean():.3f} | '
                f'{difference(random.get((s, strategy, "random")))} | '
                f'{difference(before.get((s, strategy, strategy + BEFORE)))} |'
            )
    write_section(
        'The radius of herding on features of the network under training: 3,000 items, 1,000 of '
        'them held out',
        f'studies.py --only {study.name}',
        rows,
        '| data | strategy | seeds | '
        + ' | '.join(map(str, labels))
        + ' labels | mean of all rounds | against random, the same seeds | p (Wilcoxon, Holm) | '
        'against the least distance | p (Wilcoxon, Holm) |',
    )
