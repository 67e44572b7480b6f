"What the benchmarks share: a stopwatch, the machine in words, and a section of RESULTS.md each"

import argparse
import datetime
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

RESULTS = Path(__file__).parent / 'RESULTS.md'
PICTURES = Path(__file__).parents[1] / 'nbs' / 'files'  # where the docs find them


def seconds(f, repeats: int = 3) -> float:
    "The median of a few runs after one that does not count"
    f()
    return sorted(once(f) for _ in range(repeats))[repeats // 2]


def once(f) -> float:
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def machine() -> str:
    "Date and machine in words"
    import torch

    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else 'no accelerator'
    return (
        f'{datetime.date.today()}, {os.cpu_count()} cores ({platform.machine()}), {memory:.0f} '
        f'GiB, {gpu}, Python {platform.python_version()}, torch {torch.__version__}'
    )


def write_section(title: str, script: str, rows: list[str], head: str = '| what | measured | |'):
    "Print a table and put it in place of the section's last one"
    columns = head.count('|') - 1
    text = '\n'.join(
        [
            f'## {title}',
            '',
            f'`python benchmarks/{script}`, {machine()}.',
            '',
            head,
            '|' + '---|' * columns,
            *rows,
            '',
        ]
    )
    parts = (
        RESULTS.read_text().split('\n## ')
        if RESULTS.exists()
        else ['# Results\n\nWritten by the commands named; never by hand.\n']
    )
    here = [i for i, p in enumerate(parts) if p.startswith(title + '\n')] or [len(parts)]
    parts[here[0] : here[0] + 1] = [text.removeprefix('## ')]
    RESULTS.write_text('\n## '.join(p.rstrip() + '\n' for p in parts))
    print(text)


def run_studies(studies: dict[str, Callable], doc: str):
    """What a script of studies does when it is called: all of them, or those named, on the data
    in a folder"""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument('--only', nargs='+', choices=list(studies), default=list(studies))
    parser.add_argument(
        '--data',
        type=Path,
        default=Path(__file__).parents[2] / 'shared' / 'data',
        help='the folder of the data sets',
    )
    args = parser.parse_args()
    for name in args.only:
        studies[name](args.data)
