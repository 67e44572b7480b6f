"""Does `python -m fastai_al` prove a gain, or was it lucky with its seeds?

    python benchmarks/first_contact.py             # ten other blocks of seeds, then the table
    python benchmarks/first_contact.py --table     # the table alone
    python benchmarks/first_contact.py --pictures  # the two pictures at the top of README.md

The command compares strategies over a fixed number of seeds, from 0 on. Here the same comparison
runs once for each of ten other blocks of as many seeds. Each block is appended to
benchmarks/curves/first_contact.csv and is not run again. It fails if `auto` is not proven to be
better than random sampling in at least eight blocks."""

import argparse
import contextlib
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from fastai_al.__main__ import compare, parser
from results import PICTURES, write_section

FILE = Path(__file__).parent / 'curves' / 'first_contact.csv'
BLOCKS, NEEDED = range(1, 11), 8


def run_block(block: int, jobs: int) -> pd.DataFrame:
    "The comparison of the command with other seeds: one row for each strategy"
    with tempfile.TemporaryDirectory() as folder:
        args = parser().parse_args(['--out', f'{folder}/out', '--jobs', str(jobs)])
        start = time.perf_counter()
        campaigns, _ = compare(args, first=block * args.seeds)
        table, gains = campaigns.summary(), campaigns.gains()
    print('\n'.join(campaigns.verdict()), flush=True)
    mean = f'mean {campaigns.metric}'
    rows = [
        dict(
            block=block,
            first_seed=block * args.seeds,
            seeds=args.seeds,
            by=by,
            mean=table.loc[by, mean],
            random=table.loc['random', mean],
            gain=table.loc[by, 'gain'],
            ahead=int((gains[by] > 0).sum()),
            p=table.loc[by, 'p'],
        )
        for by in campaigns.strategies
        if by != 'random'
    ]
    print(f'block {block}: {time.perf_counter() - start:.0f} s', flush=True)
    return pd.DataFrame(rows)


def proven(rows: pd.DataFrame) -> pd.Series:
    "Is a strategy significantly better than random sampling?"
    return (rows['p'] <= 0.05) & (rows['gain'] > 0)


def tabulate(blocks: pd.DataFrame) -> int:
    "Write the section of RESULTS.md; return the number of blocks in which `auto` is proven"
    lines, counts = [], {}
    for by, rows in blocks.groupby('by', sort=False):
        counts[by] = int(proven(rows).sum())
        for row in rows.itertuples():
            last = row.first_seed + row.seeds - 1
            lines.append(
                f'| {row.first_seed} to {last} | {by} | {row.mean:.3f} | {row.random:.3f} | '
                f'{row.gain:+.3f} | {row.ahead} of {row.seeds} | {row.p:.3f} |'
            )
        lines.append(
            f'| all blocks | {by} | {rows["mean"].mean():.3f} | {rows["random"].mean():.3f} | '
            f'{rows["gain"].mean():+.3f} | proven in {counts[by]} of {len(rows)} blocks | |'
        )
    write_section(
        'First contact: `python -m fastai_al` on ten other blocks of seeds; mean balanced accuracy '
        'over the rounds, p corrected for two strategies',
        'first_contact.py',
        lines,
        '| seeds | strategy | mean | of random | gain | ahead | p |',
    )
    return counts.get('auto', 0)


def draw_query():
    "What the first snippet of README.md draws"
    readme = (PICTURES.parents[1] / 'README.md').read_text('utf-8')
    snippet = re.search(r'^``` ?python\n(.*?)^```$', readme, re.M | re.S)
    assert snippet, 'README.md has no snippet'
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        exec(snippet[1].replace('learn.acquire(12)', 'figure = learn.acquire(12)'), names := {})
    names['figure'].savefig(PICTURES / 'readme_query.png', dpi=80)


def draw_curves(jobs: int):
    "The learning curves of the command, with the seeds that it uses"
    with tempfile.TemporaryDirectory() as folder:
        args = parser().parse_args(['--out', f'{folder}/out', '--jobs', str(jobs)])
        _, out = compare(args)
        shutil.copy(out / 'curves.png', PICTURES / 'readme_curves.png')


if __name__ == '__main__':
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument('--table', action='store_true', help='only tabulate what was run')
    options.add_argument('--pictures', action='store_true', help='only draw the pictures')
    options.add_argument('--jobs', type=int, default=-1, help='processes; -1: one for each core')
    given = options.parse_args()
    if given.pictures:
        draw_query()
        draw_curves(given.jobs)
        sys.exit()
    blocks = pd.read_csv(FILE) if FILE.exists() else pd.DataFrame({'block': []})
    for block in [] if given.table else BLOCKS:
        if block not in set(blocks['block']):
            blocks = pd.concat([blocks, run_block(block, given.jobs)], ignore_index=True)
            blocks.to_csv(FILE, index=False)
    found = tabulate(blocks)
    if found < NEEDED:
        sys.exit(f'auto is proven in {found} of {len(BLOCKS)} blocks; it should be {NEEDED}.')
