"""Do the guarantees of triage hold, and how much do they allow? `python benchmarks/triage.py`
prints it and rewrites its parts of benchmarks/RESULTS.md

`--only` names some of the studies. Files are read from `--data`."""

from pathlib import Path

import numpy as np

from results import run_studies, write_section

SEEDS = 5


class Picture:
    "Reads the picture of a row, whose name is its place in an array"

    def __init__(self, pictures: np.ndarray):
        self.pictures = pictures

    def __call__(self, row):
        import torch

        return torch.as_tensor(self.pictures[int(row['name'])], dtype=torch.float32)[None] / 255


def digits(data: Path, n: int) -> tuple[np.ndarray, np.ndarray]:
    "The first pictures of MNIST and their labels"
    z = np.load(data / 'mnist.npz')
    return z['x_train'][:n], z['y_train'][:n].astype(int)


def rows_of(places):
    "A frame of places in the array of pictures"
    import pandas as pd

    return pd.DataFrame(
        {'name': [f'{i:05}' for i in places]},
        index=pd.Index([f'{i:05}' for i in places], name='uid'),
    )


def pool_of(labels: np.ndarray):
    "A pool of places in an array, without labels"
    from fastai_al.all import Pool

    return Pool.from_df(rows_of(range(len(labels))), 'name')


def cnn():
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, 16, 5, 2, 2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 5, 2, 2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(32 * 49, 64),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(64, 10),
    )


def learner_of(pool, pictures: np.ndarray, k: int = 10, **kwargs):
    from fastai.vision.all import (
        CategoryBlock,
        CrossEntropyLossFlat,
        DataBlock,
        Learner,
        TransformBlock,
        accuracy,
    )

    from fastai_al.all import ActiveLearner, MCDropout

    block = DataBlock(
        (TransformBlock(), CategoryBlock(vocab=list(range(10)))), get_x=Picture(pictures)
    )
    return ActiveLearner(
        Learner(
            pool.dataloaders(block, bs=32, val_bs=512, num_workers=0, **kwargs),
            cnn(),
            CrossEntropyLossFlat(),
            metrics=accuracy,
            cbs=MCDropout(k=k),
        ),
        pool,
    )


def fit(learn, steps: int = 300):
    from fastai_al.all import SkipValidation

    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(max(1, steps // len(learn.dls.train)), 3e-3, cbs=SkipValidation())


def trained(
    data: Path,
    seed: int,
    pool_size: int,
    others: np.ndarray | None = None,
    first: int = 200,
    holdout: int = 300,
):
    """A learner of `first` labels, with a hold-out; all pictures, `others` behind those of the
    pool; and the labels"""
    from fastai.basics import set_seed

    pictures, labels = digits(data, pool_size)
    if others is not None:
        pictures = np.concatenate([pictures, others])
    pool = pool_of(labels)
    for uids in (pool.draw_holdout(holdout, seed), pool.sample(first, seed)):
        pool.label(uids, [int(labels[int(u)]) for u in uids])
    set_seed(seed)
    learn = learner_of(pool, pictures)
    fit(learn)
    return learn, pictures, labels


def guarantee(data: Path):
    "How often is a guarantee broken, and how much of the pool labelled? One model, many hold-outs"
    from scipy.stats import binomtest

    from fastai_al.all import certify_pool, certify_pseudo, measure_items

    error, delta, trials, size = 0.05, 0.1, 1000, 20000
    learn, pictures, labels = trained(data, 0, size)
    known = set(learn.pool.labelled.index)
    dl = learn.dls.test_dl(learn.pool.rows[[u not in known for u in learn.pool.rows.index]])
    with learn.no_bar():
        frame, _ = measure_items(learn.learn, dl, by='least_confidence', metric=False)
    u, e = (
        frame.least_confidence.to_numpy(),
        (frame.prediction.to_numpy() != labels[[int(i) for i in frame.index]]).astype(float),
    )

    def of_pool(t):
        return (e * (u < t)).mean()

    def of_own(t):
        return e[u < t].mean() if (u < t).any() else 0.0

    def by_eye(u, e):
        "The largest threshold with at most `error` among what is below it, on the hold-out"
        order = np.argsort(u, kind='stable')
        fine = np.cumsum(e[order]) / np.arange(1, len(e) + 1) <= error
        last = fine.nonzero()[0].max(initial=-1)
        return u[order][last + 1] if last + 1 < len(u) else np.inf

    methods = {
        'certified, of the pool': (
            lambda u, e: certify_pool(u, e, error, delta).threshold,
            of_pool,
        ),
        'certified, of pseudo-labels': (
            lambda u, e: certify_pseudo(u, e, error, delta).threshold,
            of_own,
        ),
        'naive threshold on the hold-out, of pseudo-labels': (by_eye, of_own),
        'confidence of .95, unchecked, of pseudo-labels': (lambda u, e: error, of_own),
        "the surest three quarters (ranked as by Baal's Certainty), unchecked, of pseudo-labels": (
            lambda _, e: np.quantile(u, 0.75),
            of_own,
        ),
    }
    order, n = np.argsort(u, kind='stable'), np.arange(1, len(u) + 1)
    grid, wrong = u[order], np.cumsum(e[order])
    best = {
        name: (fine.nonzero()[0].max(initial=-1) + 1) / len(u)
        for name, fine in (
            ('of the pool', wrong / len(u) <= error),
            ('of pseudo-labels', wrong / n <= error),
        )
    }
    rows = []
    for m in (300, 1000, 3000):
        rng = np.random.default_rng(m)
        found = {name: [] for name in methods}
        for _ in range(trials):
            held = rng.choice(len(u), m, replace=False)
            for name, (method, _) in methods.items():
                found[name].append(method(u[held], e[held]))
        for name, (_, risk) in methods.items():
            broken = sum(risk(t) > error for t in found[name])
            low, high = binomtest(broken, trials).proportion_ci()
            coverage = np.mean([np.searchsorted(grid, t) / len(u) for t in found[name]])
            rows.append(
                f'| {name} | {m} | {broken / trials:.1%} ({low:.1%} to {high:.1%}) | '
                f'{coverage:.3f} | {coverage / best[name.split(", ")[-1]]:.1%} |'
            )
    write_section(
        f'Guarantee of triage: at most {error:.0%} wrong, delta {delta:.0%}; MNIST, {len(u):,} '
        f'items, a CNN of 200 labels ({1 - e.mean():.3f} accuracy), {trials:,} hold-outs',
        'triage.py --only guarantee',
        rows,
        '| threshold | held out | guarantee broken (95% interval; certified: at most 10%) | '
        'labelled by the model | of what an oracle would label |',
    )


def picks(data: Path):
    """Does the guarantee hold for hold-outs that were drawn for a test, and how much less does a
    label of theirs certify? One model, many draws"""
    from scipy.stats import binomtest

    from fastai_al.all import Picks, certify_picks, certify_pool, draw_by_probability, measure_items

    error, delta, trials, size = 0.05, 0.1, 500, 20000
    learn, _, labels = trained(data, 0, size)
    dl = learn.dls.test_dl(learn.pool.unlabelled)
    with learn.no_bar():
        frame, _ = measure_items(learn.learn, dl, by='least_confidence', metric=False)
    u, e = (
        frame.least_confidence.to_numpy(),
        (frame.prediction.to_numpy() != labels[[int(i) for i in frame.index]]).astype(float),
    )
    best, rows = (
        (np.cumsum(e[np.argsort(u, kind='stable')]) / len(u) <= error).nonzero()[0].max() / len(u),
        [],
    )
    for m in (300, 1000):
        found = {}
        for seed in range(trials):
            for floor in (0.1, 0.3, 0.5, 1.0):
                at, q = draw_by_probability(np.sqrt(u), m, floor, seed)
                found.setdefault(f'drawn for a test, uniform_share={floor:g}', []).append(
                    certify_picks(u[at], e[at], Picks(q, len(u), floor), error, delta).threshold
                )
            found.setdefault('drawn uniformly, `certify_pool`', []).append(
                certify_pool(u[at], e[at], error, delta).threshold
            )  # the last draw is uniform
        for name, thresholds in found.items():
            broken, coverage = (
                sum((e * (u < t)).mean() > error for t in thresholds),
                np.mean([(u < t).mean() for t in thresholds]),
            )
            low, high = binomtest(broken, trials).proportion_ci()
            rows.append(
                f'| {name} | {m} | {broken / trials:.1%} ({low:.1%} to {high:.1%}) | '
                f'{coverage:.3f} | {coverage / best:.1%} |'
            )
    write_section(
        f'Guarantee of test items: at most {error:.0%} wrong, delta {delta:.0%}; MNIST, {len(u):,} '
        f'items, a CNN of 200 labels ({1 - e.mean():.3f} accuracy), {trials:,} draws by the root '
        'of the expected loss',
        'triage.py --only picks',
        rows,
        '| held out | items | guarantee broken (95% interval; at most 10%) | labelled by the model '
        '| of what an oracle would label |',
    )


def outliers(data: Path):
    "Are other pictures distinguished from digits? MNIST model, pool mixed with CIFAR-10 in grey"
    from sklearn.metrics import roc_auc_score

    from fastai_al.all import OUTLIER_SCORES, Point, measure_items
    from fastai_al.tasks.base import as_task
    from fastai_al.triage.ignored import outlier_score_of
    from sets import unpacked

    z = np.load(data / 'cifar10_jpg.npz')
    at, jpg = z['test_off'], z['test_jpg']
    other = np.stack(
        [np.asarray(unpacked(jpg, at, i).convert('L').resize((28, 28))) for i in range(2000)]
    )
    found = {}
    for seed in range(SEEDS):
        learn, pictures, labels = trained(data, seed, 6000, other)
        places = [*map(int, learn.pool.sample(2000, seed + 100)), *range(6000, 8000)]
        strange = np.array(places) >= 6000
        with learn.no_bar():
            rows, features = measure_items(
                learn.learn,
                learn.dls.test_dl(rows_of(places)),
                Point(),
                by='entropy',
                metric=False,
                features=True,
            )
            for name, score in OUTLIER_SCORES.items():
                found.setdefault(name, []).append(
                    roc_auc_score(
                        strange,
                        outlier_score_of(learn.learn, score, as_task(None, learn.learn), True)(
                            features
                        ),
                    )
                )
        found.setdefault('entropy (for comparison)', []).append(
            roc_auc_score(strange, rows.entropy)
        )
    rows = [
        f'| {name} | {np.mean(a):.3f} | {min(a):.3f} to {max(a):.3f} |' for name, a in found.items()
    ]
    write_section(
        'Outliers: 2,000 digits and 2,000 pictures of CIFAR-10 in grey, a CNN of 200 digits, 5 '
        'seeds',
        'triage.py --only outliers',
        rows,
        '| score | mean AUROC | lowest and highest |',
    )


def work(data: Path):
    "Does training on pseudo-labels help? 200 labels and 300 held out of 10,000 digits"
    from fastai.basics import set_seed

    z = np.load(data / 'mnist.npz')
    found, wrong = {}, {}

    def arm(name: str, pool, pictures, **kwargs):
        set_seed(seed)
        learn = learner_of(pool, pictures, **kwargs)
        fit(learn, 1500)
        with learn.no_bar():
            scores, _ = learn.get_preds(dl=learn.dls.test_dl(rows_of(range(10000, 20000))))
        found.setdefault(name, []).append(float((scores.argmax(1).numpy() == z['y_test']).mean()))

    for seed in range(SEEDS):
        learn, pictures, labels = trained(data, seed, 10000, z['x_test'])
        pool = learn.pool
        arm('200 labels', pool, pictures)
        with learn.no_bar():
            rows = learn.triage(error=0.02).frame
        for name, some in {
            'and certified pseudo-labels (2% of the pool)': rows[rows.decision == 'pseudo'],
            'and pseudo-labels of a confidence of .95, a guess': rows[rows.uncertainty < 0.05],
            'and all pseudo-labels': rows,
        }.items():
            pseudo = list(some.index), some.label.tolist()
            wrong.setdefault(name, []).append(
                (len(some), np.mean([y != labels[int(u)] for u, y in zip(*pseudo)]))
            )
            pool.add_pseudo(*pseudo)
            arm(name, pool, pictures, pseudo=True)
            pool.retract(pseudo[0], annotator='model')
        more = pool_of(labels)
        uids = [*pool.labelled.index, *pool.holdout.index]
        more.label(uids, [int(labels[int(u)]) for u in uids])
        arm('500 labels, those of the hold-out among them, without a guarantee', more, pictures)
    rows = [
        f'| {name} | {np.mean(a):.4f} | {", ".join(f"{v:.4f}" for v in a)} | '
        + (
            f'{np.mean([n for n, _ in wrong[name]]):,.0f} | '
            f'{np.mean([w for _, w in wrong[name]]):.2%} |'
            if name in wrong
            else ' | |'
        )
        for name, a in found.items()
    ]
    write_section(
        'Work of pseudo-labels: 10,000 digits of MNIST, 300 held out, accuracy on the 10,000 test '
        'digits, 5 seeds',
        'triage.py --only work',
        rows,
        '| trained on | mean accuracy | each seed | pseudo-labels | wrong |',
    )


def deferral(data: Path):
    "Do model and expert together do better than either alone?"
    import deferral

    write_section(
        'Deferral: 2,000 digits of MNIST, an expert who is always right about 0 to 4 and guesses '
        'at the rest, 5 seeds; settings chosen after others had failed',
        'triage.py --only deferral',
        deferral.deferral(data),
        deferral.HEAD,
    )


ACQUIRED = 0, 300, 700, 1200


def by_uncertainty(error: float, delta: float, trials: int, size: int, m: int) -> dict:
    """Wrong labels of certified thresholds, through `certify_pool`: where the population is all
    that the hold-out was drawn from, where it is what acquisition left, and where it has no
    limit"""
    from fastai_al.all import certify_pool

    rng, found = np.random.default_rng(0), {}
    for _ in range(trials):
        u = rng.random(size)
        wrong = (rng.random(size) < 0.5 * u).astype(float)
        others = m + np.argsort(-u[m:])
        for n in ACQUIRED:
            left = others[n:]
            for name, population in {
                'all that the hold-out was drawn from': size,
                'no limit (0.11.0)': None,
                'what acquisition left (a trap)': m + len(left),
            }.items():
                t = certify_pool(u[:m], wrong[:m], error, delta, population=population).threshold
                most = error * (len(left) if population == m + len(left) else size - m)
                found.setdefault((name, n), []).append(
                    [
                        (wrong[m:] * (u[m:] < t)).sum() > most,
                        (wrong[left] * (u[left] < t)).sum() > most,
                        (u[left] < t).sum(),
                    ]
                )
    return found


def library_run(seed: int, error: float, delta: float, size: int, m: int) -> dict:
    """The same through the whole library, for one pool.

    Labels are noisy, so that a model is wrong where it is unsure and no training mends it"""
    import pandas as pd
    import torch
    from fastai.basics import set_seed
    from fastai.tabular.all import CategoryBlock, CrossEntropyLossFlat, Learner

    from fastai_al.all import ActiveLearner, Pool, SkipValidation, measure_items

    class Linear(torch.nn.Linear):
        def forward(self, _, x):
            return super().forward(x)

    rng, columns = np.random.default_rng(seed), list('abcd')
    rows = pd.DataFrame(
        rng.normal(size=(size, 4)),
        columns=columns,
        index=pd.Index([f'{i:05}' for i in range(size)], name='uid'),
    )
    y = pd.Series((1 / (1 + np.exp(-2 * rows.a)) > rng.random(size)).astype(int), rows.index)
    pool = Pool.from_df(rows, columns, uid='index')
    held = pool.draw_holdout(m, seed)
    for uids in (held, pool.sample(100, seed)):
        pool.label(uids, y[uids].tolist())
    set_seed(seed)
    learn = ActiveLearner(
        Learner(
            pool.tabular_dataloaders(
                CategoryBlock(vocab=[0, 1]), cont_names=columns, bs=50, val_bs=2000, num_workers=0
            ),
            Linear(4, 2),
            CrossEntropyLossFlat(),
        ),
        pool,
    )
    found, before = {}, 0
    with learn.no_bar(), learn.no_logging():
        learn.fit(10, 0.1, cbs=SkipValidation())
        for n in ACQUIRED:
            if n:
                learn.label(learn.acquire(n - before, by='least_confidence'), y.to_dict())
                learn.fit(2, 0.02, cbs=SkipValidation())
            before, triage = n, learn.triage(error, delta=delta, outliers=None, ambiguous=0)
            others, _ = measure_items(
                learn.learn, learn.dls.test_dl(rows.drop(held)), by='least_confidence', metric=False
            )
            below, left = (
                others.least_confidence < triage.certificates['all'].threshold,
                others.index.isin(triage.frame.index),
            )
            wrong = others.prediction != y[others.index]
            found[n] = [
                (wrong & below).sum() > error * (size - m),
                (wrong & below & left).sum() > error * (size - m),
                (below & left).sum(),
            ]
    return found


def population(data: Path):
    """Does acquisition between the draw of the hold-out and the triage break the guarantee?
    Items that the model is least certain of are acquired"""
    import warnings

    from scipy.stats import binomtest, hypergeom

    from fastai_al.all import FastaiALWarning

    error, delta, size, m, trials, runs = 0.1, 0.05, 2000, 300, 4000, 150
    found = {
        ('`certify_pool`', *key): rows
        for key, rows in by_uncertainty(error, delta, trials, size, m).items()
    }
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', FastaiALWarning)
        together = [library_run(seed, error, delta, size, m) for seed in range(runs)]
    for n in ACQUIRED:
        found['Pool, ActiveLearner, triage', 'all that the hold-out was drawn from', n] = [
            run[n] for run in together
        ]
    rows = []
    for (through, name, n), seen in found.items():
        broken, among_left, below = np.array(seen).T
        what = among_left if 'trap' in name else broken
        low, high = binomtest(int(what.sum()), len(seen)).proportion_ci()
        rows.append(
            f'| {through} | {name} | {n:,} | {what.mean():.1%} ({low:.1%} to {high:.1%}) | '
            f'{among_left.mean():.1%} | {below.mean():,.0f} | {len(seen):,} |'
        )
    at = max(
        x
        for x in range(m)
        if hypergeom.cdf(x, size, x + int(error * (size - m) + 1e-9) + 1, m) <= delta
    )
    exact = hypergeom.cdf(at, size, at + int(error * (size - m) + 1e-9) + 1, m)
    write_section(
        f'Population of a guarantee: at most {error:.0%} of the {size - m:,} items that were not '
        f'held out get a wrong label, delta {delta:.0%}; {m} of {size:,} items held out, then the '
        f'most uncertain of the others acquired (exact: {exact:.1%} broken)',
        'triage.py --only population',
        rows,
        '| through | population | acquired | guarantee broken (95% interval) | more wrong labels '
        'than that among the items left | labels below the threshold among the items left | runs |',
    )


def patterns(n: int, m: int, error: float, delta: float) -> dict:
    """Which items are wrong, by their order from certain to uncertain: the least favourable number
    of wrong items, and others"""
    from scipy.stats import hypergeom

    k, i, rng = int(error * n + 1e-9), np.arange(n), np.random.default_rng(0)
    found = {
        'everything wrong': i >= 0,
        'nothing wrong': i < 0,
        'wrong in twice the error, anywhere': rng.random(n) < 2 * error,
        'wrong in just above the error, anywhere': rng.random(n) < 1.1 * error,
        'rising to 50% wrong': rng.random(n) < i / (2 * n),
        'right, then wrong from the middle on': i >= n // 2,
    }
    allowed = [x for x in range(m) if hypergeom.cdf(x, n, k + 1 + x, m) <= delta]
    if allowed and k + 1 + allowed[-1] <= n:
        found['least favourable of all items'] = rng.permutation(n) < k + 1 + allowed[-1]
    half = n // 2  # the same for the pseudo-labels below the middle; everything wrong above it
    below, most = m * half // n, int(error * (half - m * half // n) + 1e-9)
    allowed = [x for x in range(below) if hypergeom.cdf(x, half, most + 1 + x, below) <= delta / 3]
    if allowed and most + 1 + allowed[-1] <= half:
        few = rng.permutation(half) < most + 1 + allowed[-1]
        found['least favourable of pseudo-labels'] = np.append(few, np.ones(n - half, bool))
    return found


def broken_by(rule: str, wrong: np.ndarray, m: int, error: float, delta: float, runs: int):
    "Of many audits of one pool: broken or not, share of wrong pseudo-labels, labels"
    from fastai_al.triage.exact import AUDIT_RULES
    from fastai_al.triage.looks import sequential_counts

    n, rng, found = len(wrong), np.random.default_rng(1), []
    looks = tuple(sorted({max(1, m * j // 30) for j in range(1, 31)}))
    allowed = sequential_counts(looks, n, error, delta, m) if rule == 'looks' else ()
    for _ in range(runs):
        order = rng.choice(n, m, replace=False)
        count = 0
        if rule == 'looks':
            for size, most in zip(looks, allowed):
                at = np.sort(order[:size][wrong[order[:size]]])
                count = max(count, 0 if most < 0 else at[most] if len(at) > most else n)
        else:
            audited = np.sort(order)
            count = AUDIT_RULES[rule](audited, wrong[audited], n, error, delta)
        by_model = np.arange(n) < count
        if rule != 'looks':
            by_model[order] = False
        labels, bad = by_model.sum(), (by_model & wrong).sum()
        among = n if rule in ('pool', 'looks') else labels
        found.append([bad > error * among + 1e-9, bad / max(labels, 1), labels])
    return np.array(found, dtype=float).mean(0)


def exact(data: Path):
    "Are audits at the boundary broken as often as their formula says, and nowhere more often?"
    from scipy.stats import hypergeom

    from fastai_al.triage.bounds import max_count, wrong_allowed

    error, runs, rows = 0.05, 2000, []
    for delta, n, m in [
        (0.05, 400, 100),
        (0.05, 2000, 300),
        (0.1, 60, 40),
        (0.1, 15, 10),
    ]:
        k = int(max_count(error, n))
        x = wrong_allowed(m, n, k, delta)
        level = hypergeom.cdf(x, n, k + 1 + x, m) if 0 <= x and k + 1 + x <= n else 0.0
        for rule in ('pool', 'pseudo', 'expected', 'looks'):
            for name, wrong in patterns(n, m, error, delta).items():
                broken, share, labels = broken_by(rule, wrong, m, error, delta, runs)
                given = f'{level:.3f}' if rule == 'pool' and name.endswith('all items') else ''
                rows.append(
                    f'| {rule} | {n:,} | {m:,} | {delta:g} | {name} | {broken:.4f} | {given} | '
                    f'{share:.4f} | {labels:,.0f} |'
                )
    write_section(
        f'Audits: error {error:.0%}, {runs:,} audits for each certificate, size and pattern; '
        'looks: 30 of each audit, broken at any',
        'triage.py --only exact',
        rows,
        '| certificate | items | audited | delta | which items are wrong | broken | level by the '
        'formula | mean share wrong of the pseudo-labels (expected: at most the error) | '
        'pseudo-labels |',
    )


def all_pools(rule: str, n: int, m: int, error: float, delta: float) -> float:
    "The largest share of audits that break the guarantee, of all patterns of wrong items"
    from itertools import combinations

    from fastai_al.triage.exact import AUDIT_RULES

    audits = np.array(list(combinations(range(n), m)))
    powers = 2 ** np.arange(m)
    counts = np.array(
        [
            [AUDIT_RULES[rule](a, (code & powers) > 0, n, error, delta) for code in range(2**m)]
            for a in audits
        ]
    )
    worst, free = 0.0, np.ones((len(audits), n), dtype=bool)
    free[np.arange(len(audits))[:, None], audits] = False
    for pattern in range(2**n):
        wrong = (pattern >> np.arange(n)) & 1
        count = counts[np.arange(len(audits)), wrong[audits] @ powers]
        by_model = free & (np.arange(n) < count[:, None])
        labels = n if rule == 'pool' else by_model.sum(1)
        worst = max(worst, ((by_model @ wrong) > error * labels + 1e-9).mean())
    return float(worst)


def enumerated(data: Path):
    "The guarantees of audits in all pools of 9 items"
    rows = []
    for m in (4, 6):
        for error in (0.2, 0.45):
            for delta in (0.1, 0.3, 0.6):
                worst = [all_pools(rule, 9, m, error, delta) for rule in ('pool', 'pseudo')]
                rows.append(f'| {m} | {error:g} | {delta:g} | {worst[0]:.4f} | {worst[1]:.4f} |')
    write_section(
        'Audits: all patterns of wrong items and all audits of 9 items',
        'triage.py --only enumerated',
        rows,
        '| audited | error | delta | broken at worst, of all items | broken at worst, of '
        'pseudo-labels |',
    )


def audited_run(seed: int, guarantee: str, error: float, delta: float, size: int, m: int) -> list:
    """Several rounds through the whole library: train, audit, decide, record, acquire.

    Labels are noisy, so that a model is wrong where it is unsure and no training mends it"""
    import pandas as pd
    import torch
    from fastai.basics import set_seed
    from fastai.tabular.all import CategoryBlock, CrossEntropyLossFlat, Learner

    from fastai_al.all import ActiveLearner, Pool, SkipValidation

    class Linear(torch.nn.Linear):
        def forward(self, _, x):
            return super().forward(x)

    rng, columns = np.random.default_rng(seed), list('abcd')
    rows = pd.DataFrame(
        rng.normal(size=(size, 4)),
        columns=columns,
        index=pd.Index([f'{i:05}' for i in range(size)], name='uid'),
    )
    y = pd.Series((1 / (1 + np.exp(-3 * rows.a)) > rng.random(size)).astype(int), rows.index)
    pool = Pool.from_df(rows, columns, uid='index')
    first = pool.sample(100, seed)
    pool.label(first, y[first].tolist())
    set_seed(seed)
    block = CategoryBlock(vocab=[0, 1])
    dls = pool.tabular_dataloaders(block, cont_names=columns, bs=50, val_bs=2000, num_workers=0)
    learn = ActiveLearner(Learner(dls, Linear(4, 2), CrossEntropyLossFlat()), pool)
    found = []
    with learn.no_bar(), learn.no_logging():
        learn.fit(10, 0.1, cbs=SkipValidation())
        for _ in range(4):
            triage = learn.triage(
                error, delta=delta, guarantee=guarantee, audit=m, ask=y.to_dict(), ambiguous=0
            )
            pool.apply(triage)
            given = triage.frame[triage.frame.decision == 'pseudo']
            wrong = (given.label.astype(int) != y[given.index]).sum()
            among = triage.info['population'] if guarantee == 'pool' else max(len(given), 1)
            found.append([wrong > error * among + 1e-9, len(given), wrong])
            learn.label(learn.acquire(100, by='least_confidence'), y.to_dict())
            learn.fit(2, 0.02, cbs=SkipValidation())
    return found


def audits(data: Path):
    "Audits through the whole library, with acquisition between the looks"
    import warnings

    from scipy.stats import binomtest

    from fastai_al.all import FastaiALWarning

    error, delta, size, m, runs, rows = 0.1, 0.1, 3000, 150, 60, []
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', FastaiALWarning)
        for guarantee in ('pseudo', 'pool', 'expected'):
            found = np.array(
                [audited_run(seed, guarantee, error, delta, size, m) for seed in range(runs)]
            )
            for r in range(found.shape[1]):
                broken, labels, wrong = found[:, r].T
                low, high = binomtest(int(broken.sum()), runs).proportion_ci()
                rows.append(
                    f'| {guarantee} | {r + 1} | {broken.mean():.1%} ({low:.1%} to {high:.1%}) | '
                    f'{labels.mean():,.0f} | {(wrong / np.maximum(labels, 1)).mean():.3f} |'
                )
    write_section(
        f'Audits through the whole library: {size:,} noisy items, a linear model, {m} audited in '
        f'each of 4 rounds, 100 acquired between; error {error:.0%}, delta {delta:.0%}, '
        f'{runs} runs',
        'triage.py --only audits',
        rows,
        '| guarantee | round | broken (95% interval) | pseudo-labels | mean share wrong of them |',
    )


STUDIES = dict(
    guarantee=guarantee,
    picks=picks,
    population=population,
    exact=exact,
    enumerated=enumerated,
    audits=audits,
    outliers=outliers,
    work=work,
    deferral=deferral,
)


if __name__ == '__main__':
    run_studies(STUDIES, __doc__)
