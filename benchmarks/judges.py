"""Do we beat what others have published, on their data? `python benchmarks/judges.py` prints it
and rewrites its parts of benchmarks/RESULTS.md

`--only` names some of the studies. Files are read from `--data`."""

import math
from bisect import bisect_left
from pathlib import Path

import numpy as np

from results import run_studies, write_section

ERROR = DELTA = 0.05
RUNS = 400
PAC = dict(misinfo=500, stance=500, imagenetv2=1000, imagenet=5000)  # draws, as published


def exceeds(losses: np.ndarray, error: float, delta: float) -> bool:
    """Is the upper confidence bound of the mean of `losses`, 0 or 1, above `error`?

    The predictable plug-in bets of Waudby-Smith and Ramdas (2024), https://arxiv.org/abs/2010.09686,
    against means of at least `error`; bets are cut at .75 of the largest safe one"""
    n = len(losses)
    before = np.arange(1, n + 1)
    mean = (0.5 + losses.cumsum()) / (1 + before)
    variance = (0.25 + ((losses - mean) ** 2).cumsum()) / (1 + before)
    bets = np.sqrt(2 * math.log(2 / delta) / (n * np.append(0.25, variance[:-1])))
    wealth = np.log1p(-np.minimum(bets, 0.75 / (1 - error)) * (losses - error)).cumsum()
    return not (wealth >= math.log(1 / delta)).any()


def pac_labels(u: np.ndarray, wrong: np.ndarray, draws: np.ndarray) -> tuple[float, float]:
    """PAC labels (Candès, Ilyas and Zrnic 2025, https://arxiv.org/abs/2506.10908) without
    asymptotics: items drawn with replacement are labelled, and those at least as uncertain as the
    largest threshold whose bound is small enough. Saved labels, and the error rate"""
    thresholds = np.sort(u)
    last = bisect_left(
        range(len(u)),
        True,
        key=lambda i: exceeds(wrong[draws] * (u[draws] < thresholds[i]), ERROR, DELTA),
    )
    by_model = u < thresholds[last - 1]
    by_model[draws] = False
    return by_model.mean(), (wrong * by_model).mean()


def pac(data: Path):
    "Share of expert labels saved, beside PAC labels, in paired runs"
    import pandas as pd
    from scipy.stats import binomtest, wilcoxon

    from fastai_al.all import certify_audit

    rows = []
    for name, m in PAC.items():
        frame = pd.read_csv(data / f'pac_{name}.csv.gz')
        wrong = (frame.Y != frame.Yhat).to_numpy().astype(float)
        u, n = 1 - frame.confidence.to_numpy(), len(frame)
        saved, errors = [], []
        for run in range(RUNS):
            rng = np.random.default_rng(run)
            without_ties = u + 1e-5 * rng.normal(size=n)  # as in their code
            theirs = pac_labels(without_ties, wrong, rng.choice(n, m))
            audited = rng.choice(n, m, replace=False)
            ours = [theirs]
            for guarantee in ('pool', 'pseudo'):
                certificate = certify_audit(
                    u, audited, wrong[audited], ERROR, DELTA, guarantee=guarantee, seed=run
                )
                by_model = certificate.certified.copy()
                by_model[audited] = False
                among = n if guarantee == 'pool' else max(by_model.sum(), 1)
                ours.append((by_model.mean(), (wrong * by_model).sum() / among))
            saved.append([s for s, _ in ours])
            errors.append([e for _, e in ours])
        saved, broken = np.array(saved), np.array(errors) > ERROR + 1e-12
        better = (saved[:, 1] > saved[:, 0]).mean()
        p = wilcoxon(saved[:, 1], saved[:, 0], alternative='greater').pvalue
        total = wrong[np.argsort(u, kind='stable')].cumsum()
        best = (total <= ERROR * n).mean()
        own = np.flatnonzero(total <= ERROR * np.arange(1, n + 1)).max(initial=-1) + 1
        cells = [f'{100 * s:.1f}%' for s in saved.mean(0)]
        intervals = []
        for b in broken.T:
            low, high = binomtest(int(b.sum()), RUNS).proportion_ci()
            intervals.append(f'{b.mean():.1%} ({low:.1%} to {high:.1%})')
        rows.append(
            f'| {name} | {n:,} | {m:,} | {cells[0]} | **{cells[1]}** | {100 * best:.1f}% | '
            f'{better:.1%}, p = {p:.1g} | {intervals[0]} | {intervals[1]} | {cells[2]} | '
            f'{100 * own / n:.1f}% | {intervals[2]} |'
        )
    write_section(
        f'Judge: PAC labels. Share of expert labels saved, error = delta = {ERROR:.0%}, {RUNS} '
        'paired runs',
        'judges.py --only pac',
        rows,
        "| data | items | audited (theirs: draws) | theirs, betting | audit, `guarantee='pool'` | "
        'oracle without an audit | runs in which ours saves more | broken: theirs | broken: ours '
        "(95% interval) | audit, `guarantee='pseudo'` | its oracle | broken, of pseudo-labels |",
    )


STUDIES = dict(pac=pac)


if __name__ == '__main__':
    run_studies(STUDIES, __doc__)
