"""Do model and expert together do better than either alone? The part of the study of triage that
is about deferral"""

from itertools import product
from pathlib import Path

HEAD = (
    '| the model sees | loss | model alone | expert alone | together, own choice | share asked '
    '| at least the better one in | together, asked above a score chosen on 1,000 others | at '
    'least the better one in |'
)
TEST, SEEDS, RATE = 2000, 5, 1e-2
WORLDS = {
    '4,000 bad copies': dict(n=4000, noise=1.0, epochs=4),
    '400 good pictures': dict(n=400, noise=0.0, epochs=30),
}  # noise: standard deviation, where white is 1


def _expert(y, rng):
    "Always right about 0 to 4; guesses at the rest"
    import numpy as np

    return np.where(y <= 4, y, rng.integers(10, size=len(y)))


def _digits(data: Path, n: int, noise: float, seed: int):
    "Pictures, classes and what the expert says, of a part to train on and another to test on"
    import numpy as np
    import torch

    rng, files = np.random.default_rng(seed), np.load(data / 'mnist.npz')
    for part, size in (('train', n), ('test', TEST)):
        rows = rng.permutation(len(files[f'y_{part}']))[:size]
        y = files[f'y_{part}'][rows].astype(int)
        x = files[f'x_{part}'][rows, None] / 255
        yield (
            torch.tensor(x + noise * rng.standard_normal(x.shape), dtype=torch.float32),
            torch.tensor(y),
            torch.tensor(_expert(y, rng)),
        )


def _run(loss, parts: list, epochs: int, seed: int) -> list[float]:
    """Accuracy on 2,000 test pictures of the model, the expert and both together, and the share
    asked; of the second half of them that of the model, the expert, and of both where the first
    half has answers whom to ask"""
    from fastai.basics import DataLoader, DataLoaders, Learner, set_seed
    from torch import nn

    from fastai_al.triage.defer import add_defer_output, defer_curve

    set_seed(seed)
    model = nn.Sequential(nn.Conv2d(1, 6, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 8 * 8, 10))
    train, test = ([tuple(row) for row in zip(*part)] for part in parts)
    dls = DataLoaders(
        DataLoader(train, bs=100, shuffle=True, num_workers=0),
        DataLoader(test, bs=1000, num_workers=0),
    )
    dls.n_inp = 1
    learn = Learner(dls, add_defer_output(model), loss)
    with learn.no_bar(), learn.no_logging():
        learn.fit(epochs, RATE)
        answers = learn.defer()

    def right(answers, together):
        return [
            float((column == answers.label).mean())
            for column in (answers.prediction, answers.expert, together)
        ]

    first, second = answers.iloc[: TEST // 2], answers.iloc[TEST // 2 :]
    curve = defer_curve(first.score, first.prediction == first.label, first.expert == first.label)
    least = curve.score[curve.accuracy.idxmax()]
    return (
        right(answers, answers.expert.where(answers.defer, answers.prediction))
        + [answers.defer.mean()]
        + right(second, second.expert.where(second.score >= least, second.prediction))
    )


def deferral(data: Path) -> list[str]:
    """Rows of a table: a tiny CNN on digits, and an expert who knows half of them; mean and
    standard deviation over seeds"""
    import numpy as np

    from fastai_al.tasks.deferral import DeferLoss, DeferOneVsAll

    rows = []
    for (name, world), loss in product(WORLDS.items(), (DeferLoss(), DeferOneVsAll())):
        found = np.array(
            [
                _run(
                    loss,
                    list(_digits(data, world['n'], world['noise'], seed)),
                    world['epochs'],
                    seed,
                )
                for seed in range(SEEDS)
            ]
        )
        wins, chosen = [int((found[:, at] >= found[:, at - 2 : at].max(1)).sum()) for at in (2, 6)]
        row = ' | '.join(
            f'{m:.3f} ± {s:.3f}' for m, s in zip(found[:, :3].mean(0), found[:, :3].std(0, ddof=1))
        )
        rows.append(
            f'| {name} | {loss!r} | {row} | {found[:, 3].mean():.2f} | {wins} of {SEEDS} seeds | '
            f'{found[:, 6].mean():.3f} | {chosen} of {SEEDS} seeds |'
        )
    return rows
