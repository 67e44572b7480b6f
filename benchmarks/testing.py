"""How exact are active tests, and do their intervals cover? `python benchmarks/testing.py`
prints it and rewrites its part of benchmarks/RESULTS.md

Files are read from `--data`."""

from pathlib import Path

import numpy as np

from results import run_studies, write_section
from triage import digits

SIZE, RUNS = 3000, 200


def believed(
    pictures: np.ndarray, labels: np.ndarray, sureness: float
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of a logistic model of 200 digits, whose logits are multiplied by
    `sureness`, for the others; and their labels"""
    from sklearn.linear_model import LogisticRegression

    x = pictures.reshape(len(pictures), -1)[:, ::3] / 255
    model = LogisticRegression(C=0.1, max_iter=200).fit(x[:200], labels[:200])
    z = sureness * model.decision_function(x[200:])
    z = np.exp(z - z.max(1, keepdims=True))
    return z / z.sum(1, keepdims=True), labels[200:]


def intervals(data: Path):
    "Coverage and width at 95%, and root-mean-square error beside uniform draws"
    from fastai_al.all import draw_by_probability, lure

    rows = []
    for name, sureness in (('as it is', 1.0), ('four times too sure', 4.0)):
        p, y = believed(*digits(data, SIZE + 200), sureness)
        wrong = (p.argmax(1) != y).astype(float)
        plain, calm = (
            np.sqrt(1 - (p ** (1 / t) / (p ** (1 / t)).sum(1, keepdims=True)).max(1))
            for t in (1.0, sureness)
        )
        ways = {
            'floor .1, as before': (plain, 0.1),
            'floor .5': (plain, 0.5),
            'uniform': (plain, 1.0),
        } | ({'floor .5, tempered': (calm, 0.5)} if sureness > 1 else {})
        for M in (25, 100):
            for way, (scores, floor) in ways.items():
                found = [
                    lure(wrong[at], q, SIZE, uniform_share=floor)
                    for at, q in (
                        draw_by_probability(scores, M, floor, seed) for seed in range(RUNS)
                    )
                ]
                usual = [
                    lure(wrong[at], q, SIZE)
                    for at, q in (
                        draw_by_probability(scores, M, floor, seed) for seed in range(RUNS)
                    )
                ]

                def row(some):
                    return (
                        f'{np.mean([e.low <= wrong.mean() <= e.high for e in some]):.3f} | '
                        f'{np.nanmean([e.high - e.low for e in some]):.3f}'
                    )

                rows.append(
                    f'| {name} ({wrong.mean():.3f} wrong) | {M} | {way} | '
                    f'{np.sqrt(np.mean([(e.value - wrong.mean()) ** 2 for e in found])):.4f} | '
                    f'{row(usual)} | {row(found)} |'
                )
    write_section(
        f'Active tests of the share that is wrong: {SIZE:,} digits of MNIST, a logistic model of '
        f'200, {RUNS} draws each',
        'testing.py',
        rows,
        '| model | labels | drawn with | root-mean-square error | coverage of the t interval | '
        'its width | coverage of the betting interval | its width |',
    )


if __name__ == '__main__':
    run_studies(dict(intervals=intervals), __doc__)
