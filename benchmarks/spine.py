"""What the spine costs:

`python benchmarks/spine.py` prints it and rewrites its parts of benchmarks/RESULTS.md

`--only ledger` measures the ledger alone, by which that part of the results is written.

Each figure is a ratio against a limit measured in the same run, or memory; absolute times are
beside it for orientation."""

import argparse
import json
import math
import subprocess
import sys

from results import seconds, write_section


def cost_of_draws() -> list[str]:
    "Draws of head dropout against one plain pass over the same batch"
    import torch
    from fastai.vision.all import create_body, create_head, resnet18
    from torch import nn

    from fastai_al.posterior.dropout import MCDropout
    from fastai_al.posterior.runner import Runner

    model, x = (
        nn.Sequential(create_body(resnet18(weights=None)), create_head(512, 10)).eval(),
        torch.randn(16, 3, 224, 224),
    )
    rows = []
    with torch.no_grad():
        once = seconds(lambda: model(x))
        for k in (100, 1000):
            posterior = MCDropout(k)
            with posterior.ready(model):
                runner = Runner(model, posterior)
                many = seconds(lambda: runner(x))
            rows.append(
                f'| {k} draws of head dropout, resnet18, 16 images at 224 px | {many / once:.2f} '
                f'passes | one pass {once:.2f} s |'
            )
    return rows


PASS = r"""
import re, sys, torch
from pathlib import Path
from fastai.basics import DataLoaders, Learner
from fastai.data.core import TfmdDL
from fastai_al.all import MCDropout
class Items:
    def __init__(self, n): self.n = n
    def __len__(self): return self.n
    def __getitem__(self, i): return (torch.full((8,), i / self.n),)
torch.set_num_threads(1)
dl = TfmdDL(Items(int(sys.argv[1])), bs=1000, num_workers=0)
layers = torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Dropout(.5), torch.nn.Linear(32, 10)
net = torch.nn.Sequential(*layers)
learn = Learner(DataLoaders(dl, dl), net, torch.nn.CrossEntropyLoss(), cbs=MCDropout(k=20))
def peak():  # MB
    status = Path('/proc/self/status').read_text()
    return int(re.search(r'VmHWM:\s+(\d+)', status)[1]) / 1024
Path('/proc/self/clear_refs').write_text('5')   # forget the peak that the imports had
before = peak()
with learn.no_bar(): learn.acquire(20, dl)
print(peak() - before)
"""


def memory_of_a_pass() -> list[str]:
    "Peak resident memory that a pass adds, for a small pool and for one twenty times as large"
    small, large = [
        float(
            subprocess.run(
                [sys.executable, '-W', 'ignore', '-c', PASS, str(n)],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for n in (10_000, 200_000)
    ]
    return [
        f'| memory of a pass over 200,000 items beyond that over 10,000 | {large - small:.0f} MB '
        f'| limit 100 MB; the passes add {small:.0f} and {large:.0f} MB |'
    ]


LEDGER = r"""
import json, re, sys, tempfile, time
from pathlib import Path
from fastai_al.pool.pool import Pool
n, found = int(sys.argv[1]), {}
def peak():  # MB
    status = Path('/proc/self/status').read_text()
    return int(re.search(r'VmHWM:\s+(\d+)', status)[1]) / 1024
def timed(name, f, times=1):
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(times): last = f()
    found[name] = (time.process_time() - cpu) / times
    found[name + ', wall'] = (time.perf_counter() - wall) / times
    return last
names = [f'{i:07}.jpg' for i in range(n)]
left = iter(names)
with tempfile.TemporaryDirectory() as folder:
    db = f'{folder}/labels.db'
    Path('/proc/self/clear_refs').write_text('5')   # forget the peak that the imports had
    before = peak()
    pool = timed('create', lambda: Pool(names, db=db))
    found['memory'] = peak() - before
    pool.close()
    pool = timed('open', lambda: Pool.open(db))
    for what in ('unlabelled', 'counts', 'repr'):
        ask = dict(
            unlabelled=lambda: pool.unlabelled,
            counts=lambda: pool.counts(),
            repr=lambda: repr(pool),
        )[what]
        ask()
        pool.label(next(left), 'x')
        timed(what, ask)
    timed('label', lambda: pool.label(next(left), 'x'), 300)
    pool.close()
print(json.dumps(found))
"""
SIZES = 10_000, 100_000, 1_000_000
LIMITS = dict(
    create='at most 20 s',
    memory='at most 600 MB',
    open='at most 10 s',
    unlabelled='at most 1 s',
    counts='at most 1 s',
    repr='at most 1 s',
    label='below 5 ms',
)
WHAT = dict(
    create='`Pool(...)` of names, with a file',
    memory='its memory above the imports',
    open='`Pool.open`',
    unlabelled='`pool.unlabelled`, after a label',
    counts='`pool.counts()`, after a label',
    repr='`repr(pool)`, after a label',
    label='`pool.label` of one item',
)


def cost_of_the_ledger() -> list[str]:
    """What a pool costs by its number of items: seconds of the processor, apart from the disk,
    and the exponent of growth"""
    runs = [
        json.loads(
            subprocess.run(
                [sys.executable, '-W', 'ignore', '-c', LEDGER, str(n)],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for n in SIZES
    ]
    rows = []
    for key, what in WHAT.items():
        values = [run[key] for run in runs]
        unit, scale = (
            ('MB', 1)
            if key == 'memory'
            else ('s', 1)
            if key in ('create', 'open')
            else ('ms', 1000)
        )
        ratio = values[-1] / values[0]
        wall = (
            '' if key == 'memory' else f'{runs[-1][key + ", wall"] * scale:.3g} {unit} by the clock'
        )
        rows.append(
            f'| {what} | '
            + ' | '.join(f'{v * scale:.3g} {unit}' for v in values)
            + f' | {ratio:.3g} times | {math.log(ratio) / math.log(SIZES[-1] / SIZES[0]):.2f} | '
            f'{LIMITS[key]} | {wall} |'
        )
    return rows


PARTS = dict(
    spine=lambda: write_section('The spine', 'spine.py', [*cost_of_draws(), *memory_of_a_pass()]),
    ledger=lambda: write_section(
        'The ledger',
        'spine.py --only ledger',
        cost_of_the_ledger(),
        '| processor time of | '
        + ' | '.join(f'{n:,} items' for n in SIZES)
        + ' | growth | exponent | limit at 1,000,000 | |',
    ),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--only', nargs='+', choices=list(PARTS), default=list(PARTS))
    for part in parser.parse_args().only:
        PARTS[part]()


if __name__ == '__main__':
    main()
