"""Check everything, and write down what came out

python tools/everything.py                  # all steps, for hours on two cores
python tools/everything.py format lint      # some of them

Each step is a command; what it says is kept in `_checks/`. `benchmarks/CHECKS.md` has a row a step:
its outcome, seconds, date and commit. A step that is not run keeps its last row. Steps go on after
one that fails; the exit status says whether any did.
"""

import datetime
import hashlib
import os
import subprocess
import sys
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
CHECKS, LOGS = ROOT / 'benchmarks' / 'CHECKS.md', ROOT / '_checks'
PYTHON = sys.executable
HEAD = '| step | what is checked | outcome | seconds | date | commit | last line |'


def generated() -> dict[Path, str]:
    "What notebooks and modules hold"
    files = [*(ROOT / 'fastai_al').rglob('*.py'), *(ROOT / 'nbs').rglob('*.ipynb')]
    return {f: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


class Step(NamedTuple):
    what: str
    command: tuple[str, ...]
    unchanged: Callable[[], dict] | None = None  # what the command must leave as it was


def pytest(*args: str) -> tuple[str, ...]:
    return (PYTHON, '-m', 'pytest', *args)


def benchmark(script: str, *args: str) -> tuple[str, ...]:
    return (PYTHON, f'benchmarks/{script}.py', *args)


STEPS = dict(
    format=Step('the code is formatted', ('ruff', 'format', '--check')),
    lint=Step('the code is linted', ('ruff', 'check')),
    types=Step('types', ('mypy',)),
    words=Step('no old word is left', (PYTHON, 'tools/words.py')),
    export=Step(
        'modules say what notebooks say', (PYTHON, 'tools/notebooks.py'), unchanged=generated
    ),
    tests=Step('tests', pytest('-n', '2')),
    fuzz=Step('thousands of random sequences', pytest('-m', 'fuzz')),
    server=Step('a real server of Label Studio', pytest('-m', 'server')),
    browser=Step('the annotator in a real browser', pytest('-m', 'browser')),
    notebooks=Step('all notebooks run', ('nbdev-test', '--n-workers', '2')),
    docs=Step('docs, links, README', (PYTHON, 'tools/docs.py', '--check')),
    kills=Step('no answer is lost to a killed process', benchmark('kills')),
    spine=Step('what draws, passes and the ledger cost', benchmark('spine')),
    memory=Step('memory of segmentation', benchmark('tasks', '--only', 'memory')),
    acquisition=Step('acquisition against its limits', benchmark('acquisition')),
)


class Outcome(NamedTuple):
    passed: bool
    seconds: float
    last: str  # line of what was said


def last_line(said: str) -> str:
    "The last line that says something, fit for a table and without this machine's folders"
    lines = [line.strip(' =') for line in said.splitlines() if line.strip(' =')]
    text = lines[-1].replace(str(ROOT), '.') if lines else ''
    return text.replace('|', '/')[:100]


def run(name: str, step: Step) -> Outcome:
    "Run the command of a step; what it says goes to its log"
    LOGS.mkdir(exist_ok=True)
    before = step.unchanged() if step.unchanged else None
    settings = dict(PYTHONWARNINGS='ignore', MPLBACKEND='agg')
    start = time.perf_counter()
    try:
        done = subprocess.run(
            step.command,
            cwd=ROOT,
            env=os.environ | settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    except FileNotFoundError:
        return Outcome(False, 0.0, f'{step.command[0]} is not installed')
    seconds = time.perf_counter() - start
    (LOGS / f'{name}.log').write_text(done.stdout, 'utf-8')
    if step.unchanged and (after := step.unchanged()) != before:
        other = sorted(f.name for f in {*before, *after} if before.get(f) != after.get(f))
        return Outcome(False, seconds, f'changed: {", ".join(other)}'[:100])
    return Outcome(done.returncode == 0, seconds, last_line(done.stdout))


def commit() -> str:
    "The commit that is checked, with a + where files differ from it"
    at = subprocess.run(('git', 'rev-parse', '--short', 'HEAD'), cwd=ROOT, capture_output=True)
    dirty = subprocess.run(('git', 'diff', '--quiet', 'HEAD'), cwd=ROOT)
    return at.stdout.decode().strip() + ('+' if dirty.returncode else '')


def rows_of(text: str) -> dict[str, str]:
    "step -> its row in a table that was written before"
    lines = [line for line in text.splitlines() if line.startswith('| ')]
    rows = {line.split('|')[1].strip(): line for line in lines}
    return {name: row for name, row in rows.items() if name in STEPS}


def write(rows: dict[str, str]):
    "The table, in the order of the steps"
    text = '# Checks\n\nWritten by `python tools/everything.py`; never by hand. A + after a commit:'
    text += ' some files differed from it.\n\n'
    table = [HEAD, '|' + '---|' * (HEAD.count('|') - 1), *(rows[n] for n in STEPS if n in rows)]
    CHECKS.write_text(text + '\n'.join(table) + '\n', 'utf-8')


def main(names: list[str]) -> bool:
    "Run steps and write each down as soon as it has ended; whether all passed"
    rows = rows_of(CHECKS.read_text('utf-8')) if CHECKS.exists() else {}
    passed, at = True, commit()
    for name in names:
        step = STEPS[name]
        print(f'{name}: {" ".join(step.command)}', flush=True)
        found = run(name, step)
        outcome = 'passed' if found.passed else 'FAILED'
        print(f'{name}: {outcome} in {found.seconds:.0f}s, {found.last}', flush=True)
        cells = [
            name,
            step.what,
            outcome,
            f'{found.seconds:.0f}',
            f'{datetime.date.today()}',
            at,
            found.last,
        ]
        rows[name] = f'| {" | ".join(cells)} |'
        write(rows)
        passed = passed and found.passed
    return passed


if __name__ == '__main__':
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument(
        'steps', nargs='*', metavar='step', help=f'one of {", ".join(STEPS)}; default: all'
    )
    wanted = parser.parse_args().steps or list(STEPS)
    if unknown := [name for name in wanted if name not in STEPS]:
        parser.error(f'no step is called {", ".join(unknown)}: name some of {", ".join(STEPS)}')
    sys.exit(0 if main(wanted) else 1)
