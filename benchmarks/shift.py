"""Does a comparison of the hold-out notice a shift, and nothing else? `python
benchmarks/shift.py` prints it and rewrites its parts of benchmarks/RESULTS.md

`--only` names some of the studies. Files are read from `--data`."""

import warnings
from pathlib import Path

import numpy as np

from results import run_studies, write_section
from triage import cnn, digits, fit, learner_of, pool_of

POOL, HELD, FIRST = 2000, 300, 200
KINDS = {
    '30% are pictures of CIFAR-10 in grey': 0.3,
    '10% are': 0.1,
    'three classes only': 'few',
    'noise of .3': 'noise',
    'noise of .1': 'noise.1',
    'all rotated by 20 degrees': 'rotated',
    '30% rotated by 20 degrees': 'rotated.3',
}


def first_features(pictures: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What the network of the studies sees and says before any training: features [N, 64] and
    classes [N, 10]"""
    import torch

    torch.manual_seed(seed)
    net = cnn().eval()
    with torch.no_grad():
        features = net[:9](torch.as_tensor(pictures, dtype=torch.float32)[:, None] / 255)
    return features.numpy(), np.eye(10)[net[9](features).argmax(1).numpy()]


def margins(pictures: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    "How sure a logistic model of 200 labels is"
    from sklearn.linear_model import LogisticRegression

    x = pictures.reshape(len(pictures), -1)[:, ::4] / 255
    first = np.random.default_rng(seed).permutation(len(x))[:FIRST]
    p = np.sort(
        LogisticRegression(max_iter=100, tol=1e-2).fit(x[first], labels[first]).predict_proba(x), 1
    )
    return p[:, -1] - p[:, -2]


def null(data: Path):
    "How often is there an alarm without a shift, after items were acquired by uncertainty?"
    from scipy.stats import binomtest

    from fastai_al.all import two_sample

    pictures, labels = digits(data, 20000)
    taken, alphas, runs = (0, 300, 700, 1200), (0.005, 0.01, 0.05), 120
    found = {(n, with_): [] for n in taken for with_ in (True, False)}
    for seed in range(runs):
        g = np.random.default_rng(seed)
        at = g.permutation(len(pictures))[:POOL]
        features, predictions = first_features(pictures[at], seed)
        sure = margins(pictures[at], labels[at], seed) if seed < 12 else None
        p = two_sample(
            features[:HELD], features[HELD:], (predictions[:HELD], predictions[HELD:]), 999, seed
        )
        for n in taken:
            found[n, True].append(
                p
            )  # acquired ones are among the others: the same comparison whatever was acquired
            if sure is None:
                continue
            left = HELD + np.argsort(sure[HELD:])[n:]
            found[n, False].append(
                two_sample(
                    features[:HELD],
                    features[left],
                    (predictions[:HELD], predictions[left]),
                    999,
                    seed,
                )
            )

    def row(name, p):
        shares = ' | '.join(f'{np.mean(np.array(p) <= a):.1%}' for a in alphas)
        low, high = binomtest(int((np.array(p) <= alphas[0]).sum()), len(p)).proportion_ci()
        return f'| {name} | {len(p)} | {shares} | {low:.1%} to {high:.1%} |'

    rows = [
        row(
            f'all others, acquired or not; 0 to {taken[-1]:,} of them were acquired', found[0, True]
        )
    ]
    rows += [
        row(f'the items that are left after {n:,} were acquired', found[n, False]) for n in taken
    ]
    write_section(
        f'Shift, no shift: a hold-out of {HELD} of {POOL:,} digits of MNIST, features of an '
        'untrained CNN',
        'shift.py --only null',
        rows,
        '| compared with | pools | p <= '
        + ' | p <= '.join(f'{a:g}' for a in alphas)
        + f' | 95% interval for {alphas[0]:g} |',
    )


def library(data: Path):
    """The same through the whole library: a network trained on 200 labels and on what it
    acquires by entropy"""
    from fastai.basics import set_seed

    pictures, labels = digits(data, 20000)
    taken, runs, found = (0, 300, 700, 1200), 20, {}
    for seed in range(runs):
        at = np.random.default_rng(seed).permutation(len(pictures))[:POOL]
        here, truth = pictures[at], labels[at]
        pool = pool_of(truth)
        for uids in (pool.draw_holdout(HELD, seed), pool.sample(FIRST, seed)):
            pool.label(uids, [int(truth[int(u)]) for u in uids])
        set_seed(seed)
        learn = learner_of(pool, here, k=3)
        done = 0
        for n in taken:
            if n > done:
                query = learn.acquire(n - done, by='entropy')
                learn.label(query, [int(truth[int(u)]) for u in query.uids])
            fit(learn, 40)
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                with learn.no_bar():
                    shift = learn.triage(error=0.1, outliers=None).info['shift']
            found.setdefault(n, []).append((shift.differs, shift.comparisons[0][1]))
            done = n
    rows = [
        f'| {n:,} | {sum(a for a, _ in some)} of {runs} | {np.min([p for _, p in some]):.3f} | '
        f'{np.median([p for _, p in some]):.2f} |'
        for n, some in found.items()
    ]
    write_section(
        f'Shift, no shift, through the whole library: {runs} pools of {POOL:,} digits, {HELD} '
        f'held out, {FIRST} first labels, a CNN',
        'shift.py --only library',
        rows,
        '| acquired by entropy before the triage | alarms | least p | median p |',
    )


def power(data: Path):
    "How often is a shift noticed?"
    from PIL import Image

    from fastai_al.all import two_sample
    from fastai_al.triage.representative import ALPHA
    from sets import unpacked

    z = np.load(data / 'cifar10_jpg.npz')
    grey = np.stack(
        [
            np.asarray(unpacked(z['test_jpg'], z['test_off'], i).convert('L').resize((28, 28)))
            for i in range(1000)
        ]
    )
    pictures, labels = digits(data, 20000)

    def rotated(some):
        return np.stack([np.asarray(Image.fromarray(a).rotate(20)) for a in some])

    def of(kind, some, g):
        "The items to decide, of another kind"
        if isinstance(kind, float):
            return np.concatenate(
                [
                    some[int(kind * len(some)) :],
                    grey[g.permutation(len(grey))[: int(kind * len(some))]],
                ]
            )
        if kind == 'few':
            return pictures[
                g.permutation(np.flatnonzero(np.isin(labels, g.permutation(10)[:3])))[: len(some)]
            ]
        if kind.startswith('noise'):
            return (
                some + g.normal(0, (0.1 if kind.endswith('.1') else 0.3) * 255, some.shape)
            ).clip(0, 255)
        return (
            rotated(some)
            if kind == 'rotated'
            else np.concatenate([rotated(some[: len(some) * 3 // 10]), some[len(some) * 3 // 10 :]])
        )

    rows = []
    for name, kind in KINDS.items():
        shares = []
        for held in (100, 300):
            alarms = 0
            for seed in range(25):
                g = np.random.default_rng(seed)
                at = g.permutation(len(pictures))
                mine, others = pictures[at[:held]], of(kind, pictures[at[held : held + 1000]], g)
                features, predictions = first_features(np.concatenate([mine, others]), seed)
                alarms += (
                    two_sample(
                        features[:held],
                        features[held:],
                        (predictions[:held], predictions[held:]),
                        999,
                        seed,
                    )
                    <= ALPHA / 2
                )
            shares.append(f'{alarms / 25:.0%}')
        rows.append(f'| {name} | ' + ' | '.join(shares) + ' |')
    write_section(
        'Shift noticed: hold-outs of MNIST against 1,000 items of another kind, features of an '
        'untrained CNN, 25 pools each, alarm at p <= .005',
        'shift.py --only power',
        rows,
        '| the items to decide | 100 held out | 300 held out |',
    )


STUDIES = dict(null=null, library=library, power=power)


if __name__ == '__main__':
    run_studies(STUDIES, __doc__)
