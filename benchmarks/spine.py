"""What the spine costs: `python benchmarks/spine.py` prints it and rewrites its part of benchmarks/RESULTS.md

Each figure is a ratio against a limit measured in the same run, or memory; absolute times are beside it for orientation."""
import argparse
import subprocess
import sys
import tempfile
import time

from results import seconds, write_section

def cost_of_draws() -> list[str]:
    "Draws of head dropout against one plain pass over the same batch"
    import torch
    from fastai.vision.all import create_body, create_head, resnet18
    from torch import nn
    from fastai_al.posterior.dropout import MCDropout
    from fastai_al.posterior.runner import Runner
    model, x = nn.Sequential(create_body(resnet18(weights=None)), create_head(512, 10)).eval(), torch.randn(16, 3, 224, 224)
    rows = []
    with torch.no_grad():
        once = seconds(lambda: model(x))
        for k in (100, 1000):
            posterior = MCDropout(k)
            with posterior.ready(model):
                runner = Runner(model, posterior)
                many = seconds(lambda: runner(x))
            rows.append(f'| {k} draws of head dropout, resnet18, 16 images at 224 px | {many / once:.2f} passes | one pass {once:.2f} s |')
    return rows


PASS = r'''
import re, sys, torch
from pathlib import Path
from fastai.basics import DataLoaders, Learner
from fastai.data.core import TfmdDL
import fastai_al.acquire
from fastai_al.posterior.dropout import MCDropout
class Items:
    def __init__(self, n): self.n = n
    def __len__(self): return self.n
    def __getitem__(self, i): return (torch.full((8,), i / self.n),)
torch.set_num_threads(1)
dl = TfmdDL(Items(int(sys.argv[1])), bs=1000, num_workers=0)
net = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Dropout(.5), torch.nn.Linear(32, 10))
learn = Learner(DataLoaders(dl, dl), net, torch.nn.CrossEntropyLoss(), cbs=MCDropout(k=20))
def peak(): return int(re.search(r'VmHWM:\s+(\d+)', Path('/proc/self/status').read_text())[1]) / 1024   # MB
Path('/proc/self/clear_refs').write_text('5')   # forget the peak that the imports had
before = peak()
with learn.no_bar(): learn.acquire(20, dl)
print(peak() - before)
'''


def memory_of_a_pass() -> list[str]:
    "Peak resident memory that a pass adds, for a small pool and for one twenty times as large"
    small, large = [float(subprocess.run([sys.executable, '-W', 'ignore', '-c', PASS, str(n)], capture_output=True, text=True, check=True).stdout)
                    for n in (10_000, 200_000)]
    return [f'| memory of a pass over 200,000 items beyond that over 10,000 | {large - small:.0f} MB | limit 100 MB; the passes add {small:.0f} and {large:.0f} MB |']


def cost_of_the_ledger() -> list[str]:
    "One-label calls that are on the disk when they return, and questions to a large pool"
    from fastai_al.pool import Pool
    with tempfile.TemporaryDirectory() as folder:
        pool = Pool(range(2000), db=f'{folder}/labels.db')
        start = time.perf_counter()
        for i in range(300): pool.label(i, 1)
        each = (time.perf_counter() - start) / 300
        pool.close()
    pool = Pool(range(100_000), [i % 10 if i < 50_000 else None for i in range(100_000)])
    ask = seconds(lambda: (pool._frames.clear(), pool.labelled))
    return [f'| a label, safe on the disk | {each * 1000:.1f} ms | {1 / each:.0f} calls a second |',
            f'| `pool.labelled`, 50,000 of 100,000 items labelled | {ask:.2f} s | |']


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    write_section('The spine', 'spine.py', [*cost_of_draws(), *memory_of_a_pass(), *cost_of_the_ledger()])


if __name__ == '__main__': main()
