"""What choosing costs:

`python benchmarks/acquisition.py` prints it and rewrites its part of benchmarks/RESULTS.md

All figures are ratios of times measured in one run, against other libraries where they are
installed: pip install 'fastai_al[parity]'.
`--device cuda` runs on a GPU (without the other libraries), `--only scores kcenter` some of the
parts."""

import argparse
import subprocess
import sys
import warnings
from pathlib import Path

from results import once, write_section

warnings.filterwarnings('ignore')  # of other packages

import torch  # noqa: E402

from fastai_al.acquisition.batchbald import batchbald  # noqa: E402
from fastai_al.acquisition.candidates import Candidates  # noqa: E402, F401 (of the scripts below)
from fastai_al.acquisition.clusters import badge  # noqa: E402
from fastai_al.acquisition.coverage import kcenter, uncertainty_herding  # noqa: E402
from fastai_al.acquisition.information import joint_information  # noqa: E402
from fastai_al.acquisition.scores import bald, entropy  # noqa: E402
from fastai_al.core.memory import rows_in_memory  # noqa: E402

ROOT = Path(__file__).parents[1]


def draws(n: int, k: int, c: int = 10, seed: int = 0, device: str = 'cpu') -> torch.Tensor:
    "Draws of a classifier that is sure of most items: log_probs [n, k, c]"
    g = torch.Generator(device).manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g, device=device)

    doubt = torch.rand(n, 1, 1, generator=g, device=device) ** 3
    return (4 * (1 - doubt) * normal(n, 1, c) + 2 * doubt * normal(n, k, c)).log_softmax(-1)


def row(what: str, measured: str, limit: str = '', note: str = '') -> str:
    return f'| {what} | {measured} | {limit} | {note} |'


def seconds(f, runs: int = 3) -> float:
    def synced():
        f()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return min(once(synced) for _ in range(runs))


def scores(device: str) -> list[str]:
    x = draws(100_000, 100, device=device)
    one, rows = seconds(x.exp), []
    own = {f.__name__: seconds(lambda: f(x)) for f in (bald, entropy)}
    for name, t in own.items():
        rows.append(
            row(
                f'{name} of [100,000, 100, 10]',
                f'{t / one:.2f} times `x.exp()`',
                'at most 2',
                f'`x.exp()` {one:.2f} s',
            )
        )
    if device != 'cpu':
        return rows
    try:
        from baal.active.heuristics.heuristics import BALD
        from batchbald_redux.batchbald import get_bald_batch
    except ImportError:
        return rows + [
            row(
                'against Baal and batchbald_redux',
                'not measured',
                '',
                "they are not installed: pip install 'fastai_al[parity]'",
            )
        ]
    stacked = x[:20_000].exp().permute(0, 2, 1).contiguous().numpy()
    theirs, redux = (
        seconds(lambda: BALD().compute_score(stacked), 2),
        once(lambda: get_bald_batch(x[:20_000], 10, dtype=torch.float32)),
    )
    mine = seconds(lambda: bald(x[:20_000]))
    return rows + [
        row(
            'bald of [20,000, 100, 10]: Baal, batchbald_redux',
            f'{theirs / mine:.1f}, {redux / mine:.0f} times as long',
            'at least 1',
            f'ours {mine:.2f} s',
        )
    ]


PEAK = r"""
import re, sys; sys.path.insert(0, 'benchmarks')
from pathlib import Path
from acquisition import *
def peak():  # MB
    status = Path('/proc/self/status').read_text()
    return int(re.search(r'VmHWM:\s+(\d+)', status)[1]) / 1024
def reset(): Path('/proc/self/clear_refs').write_text('5')
"""


def _peak(code: str) -> float:
    "Megabytes printed by a process of its own"
    return float(
        subprocess.run(
            [sys.executable, '-c', PEAK + code],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        ).stdout.split()[-1]
    )


def batches(device: str) -> list[str]:
    rows = []
    for k in (20, 100):
        x = draws(10_000, k, device=device)
        chosen = batchbald(x, 10)
        mine = seconds(lambda: batchbald(x, 10))
        what = f'BatchBALD, N=10,000, n=10, C=10, K={k}'
        worth = joint_information(x[chosen.indices.to(device)], 20_000, seed=7)
        if device != 'cpu':
            rows.append(row(what, f'{mine:.2f} s', '', f'information {worth:.3f}'))
            continue
        used = _peak(
            f'x = draws(10_000, {k}); batchbald(x[:100], 3); reset(); before = peak(); '
            'batchbald(x, 10); print(peak() - before)'
        )
        try:
            from batchbald_redux.batchbald import get_batchbald_batch
        except ImportError:
            rows.append(
                row(
                    what,
                    f'{mine:.2f} s',
                    '',
                    "batchbald_redux is not installed: pip install 'fastai_al[parity]'",
                )
            )
            continue
        found = []
        other = once(
            lambda: found.append(
                get_batchbald_batch(x, 10, num_samples=10_000, dtype=torch.float32)
            )
        )
        theirs = joint_information(x[torch.tensor(found[0].indices)], 20_000, seed=7)
        rows.append(
            row(
                f'{what}: batchbald_redux, 10,000 samples',
                f'{other / mine:.0f} times as long',
                'at least 20',
                f'{other:.0f} s, {mine:.2f} s',
            )
        )
        rows.append(
            row(
                f'{what}: joint information, ours and theirs',
                f'{worth:.3f} and {theirs:.3f}',
                'no less',
                f'log K is {torch.tensor(float(k)).log():.3f}',
            )
        )
        rows.append(row(f'{what}: memory above the draws', f'{used:.0f} MB', 'at most 300'))
    return rows


STREAM = r"""
import time
batchbald(draws(200, 20), 3); bald(draws(10_000, 20))
reset(); before = peak()
kept = Candidates(max_items=batchbald.max_items)  # as `learn.acquire` keeps them
scoring = rest = 0.
for i in range(100):
    x = draws(10_000, 20, seed=i)
    a = time.perf_counter(); s = bald(x); b = time.perf_counter()
    kept.add(x, s, torch.arange(len(x)) + 10_000 * i)
    scoring, rest = scoring + b - a, rest + time.perf_counter() - b
a = time.perf_counter()
chosen = batchbald(kept.rows, 10, kept.scores, best_excluded=kept.best_excluded)
select, how = time.perf_counter() - a, chosen.info
print(peak() - before, scoring, rest, select, how['certified'], how['filled'], len(kept))
"""


def stream(device: str) -> list[str]:
    "A million items, of which the candidates are kept; the median of five runs"
    if device != 'cpu':
        return []

    def share(out):
        return (float(out[2]) + float(out[3])) / float(out[1])

    runs = sorted(
        [
            subprocess.run(
                [sys.executable, '-c', PEAK + STREAM],
                capture_output=True,
                text=True,
                check=True,
                cwd=ROOT,
            ).stdout.split()[-7:]
            for _ in range(5)
        ],
        key=share,
    )
    out = runs[2]
    memory, scoring, rest, select = map(float, out[:4])
    return [
        row(
            'BatchBALD of a stream of 1,000,000 (K=20, C=10, n=10): time beyond BALD',
            f'{share(out):.0%} of it',
            'below 20%',
            f'median of 5 runs ({share(runs[0]):.0%} to {share(runs[-1]):.0%}): BALD '
            f'{scoring:.2f} s, keeping {rest:.3f} s, choosing {select:.3f} s',
        ),
        row(
            'the same: memory above the imports and one batch',
            f'{memory:.0f} MB',
            'below 1000',
            f'{int(out[6]):,} candidates',
        ),
        row(
            'the same: certified',
            'yes' if out[4] == 'True' else 'no',
            'yes',
            f'{out[5]} of 10 filled by PowerBALD, since the others exhaust what 20 draws can '
            'distinguish',
        ),
    ]


def _farthest_first(x: torch.Tensor, first: int, n: int) -> list[int]:
    "The picks after the first, in double precision"
    x, least, picks = x.double(), torch.full((len(x),), float('inf'), dtype=torch.double), [first]
    for _ in range(n - 1):
        least = torch.minimum(least, (x - x[picks[-1]]).square().sum(1))
        picks.append(int(least.argmax()))
    return picks[1:]


def centres(device: str) -> list[str]:
    g = torch.Generator(device).manual_seed(0)
    x = torch.randn(100_000, 512, generator=g, device=device).relu_()
    large = once(lambda: kcenter(x, 1000))
    rows = [row('k-center, N=100,000, 512 features, n=1,000', f'{large:.1f} s')]
    if device != 'cpu':
        return rows
    try:
        from skactiveml.pool import CoreSet
    except ImportError:
        return rows + [
            row(
                'against scikit-activeml',
                'not measured',
                '',
                "it is not installed: pip install 'fastai_al[parity]'",
            )
        ]
    some, n = x[:30_000], 300
    first = int(kcenter(some, 1).indices[0])
    y = torch.full((len(some),), float('nan')).index_fill(0, torch.tensor([first]), 0.0).numpy()
    found = []
    other = once(
        lambda: found.append(CoreSet(random_state=0).query(some.numpy(), y, batch_size=n - 1))
    )
    mine = kcenter(some, n).indices[1:].tolist()
    t = seconds(lambda: kcenter(some, n), 2)
    exact = _farthest_first(some, first, n)
    same, right = (sum(a == b for a, b in zip(picks, exact)) for picks in (found[0].tolist(), mine))
    return rows + [
        row(
            'k-center, N=30,000, 512 features, n=300: scikit-activeml',
            f'{other / t:.0f} times as long',
            'at least 5',
            f'{other:.1f} s, {t:.2f} s',
        ),
        row(
            'the same: picks that are those of a plain loop in double precision',
            f'{right} of {n - 1}',
            'all',
            f'scikit-activeml: {same}',
        ),
    ]


def gradients(device: str) -> list[str]:
    n, d, c, m = 50_000, 512, 10, 100
    g = torch.Generator(device).manual_seed(0)
    features, probs = (
        torch.randn(n, d, generator=g, device=device).relu_(),
        torch.randn(n, c, generator=g, device=device).mul_(2).softmax(-1),
    )
    t = seconds(lambda: badge(probs, features, m), 2)

    def plain():
        delta = probs - torch.nn.functional.one_hot(probs.argmax(1), c)
        built = (delta[:, :, None] * features[:, None]).flatten(1)
        norms, pick = built.square().sum(1), 0
        least = torch.full((n,), float('inf'), device=device)
        for _ in range(m):
            least = torch.minimum(
                least, (norms + norms[pick] - 2 * (built @ built[pick])).clamp_(min=0)
            )
            pick = int(torch.multinomial(least, 1))

    other = once(plain)
    return [
        row(
            'BADGE, N=50,000, 512 features, C=10, n=100: plain k-means++ on the built matrix',
            f'{other / t:.0f} times as long',
            'at least 10',
            f'{other:.1f} s, {t:.2f} s',
        )
    ]


def herding(device: str) -> list[str]:
    g = torch.Generator(device).manual_seed(0)
    x, margin = (
        torch.randn(35_000, 512, generator=g, device=device).relu_(),
        -torch.rand(35_000, generator=g, device=device),
    )
    t = once(lambda: uncertainty_herding(x, margin, 100))
    rows = [row('uncertainty herding, N=35,000, 512 features, n=100', f'{t:.1f} s')]
    if device != 'cpu':
        return rows
    used = _peak(
        'x = torch.randn(35_000, 512).relu_(); m = -torch.rand(35_000); '
        'uncertainty_herding(x[:500], m[:500], 3); reset(); before = peak()\n'
        'uncertainty_herding(x, m, 10); print(peak() - before)'
    )
    block = 4 * rows_in_memory(1) / 2**20
    return rows + [
        row(
            'the same, n=10: memory above the features',
            f'{used:.0f} MB',
            f'a copy of the features (68 MB) and {block:.0f} MB a block',
            f'all pairs would take {35_000**2 * 4 / 1e9:.1f} GB',
        )
    ]


PARTS = dict(
    scores=scores,
    batchbald=batches,
    stream=stream,
    kcenter=centres,
    badge=gradients,
    herding=herding,
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--only', nargs='+', choices=PARTS, default=list(PARTS))
    args = parser.parse_args()
    title, rows = 'Acquisition' + (' on a GPU' if args.device != 'cpu' else ''), []
    for i, part in enumerate(
        args.only, 1
    ):  # written after each part, so that nothing measured is lost
        rows += PARTS[part](args.device)
        only = '' if args.only[:i] == list(PARTS) else f' --only {" ".join(args.only[:i])}'
        write_section(
            title,
            f'acquisition.py{" --device " + args.device if args.device != "cpu" else ""}{only}',
            rows,
            '| what | measured | limit | |',
        )


if __name__ == '__main__':
    main()
