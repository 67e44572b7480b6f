"""A strategy, a posterior, a task and a stopping criterion are added by the steps of the pages: one
file each with one registration, and the contract suites find them"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = next(p for p in Path(__file__).resolve().parents if (p / 'settings.ini').exists())
PAGES = ROOT / 'nbs' / 'contributing'
# the template -> the package it belongs to, and the name by which the suites find what it adds
ADDED = dict(
    strategy=('acquisition', 'my_strategy'),
    posterior=('posterior', 'MyPosterior'),
    task=('tasks', 'MyLoss'),
    criterion=('loop', 'MyCriterion'),
)
COPY = re.compile(r'^cp (templates/\w+\.ipynb) (nbs/\w+/\w+\.ipynb)$', re.M)


# what a clone would not have
LEFT_OUT = (
    '.git',
    '.venv',
    '_*s',
    '_proc',
    '__pycache__',
    '.*_cache',
    '.hypothesis',
    'build',
    '*.db',
)


def run(project: Path, *command: str) -> subprocess.CompletedProcess:
    "Run a command of a page in a project"
    env = os.environ | dict(PYTHONPATH=str(project), PYTHONWARNINGS='ignore', MPLBACKEND='agg')
    env['PATH'] = f'{Path(sys.executable).parent}{os.pathsep}{env["PATH"]}'
    env.pop('PYTEST_ADDOPTS', None)
    return subprocess.run(command, cwd=project, env=env, capture_output=True, text=True)


def export(project: Path):
    done = run(project, sys.executable, 'tools/notebooks.py')
    assert not done.returncode, done.stdout + done.stderr


def tried(project: Path, names: str, *options: str) -> subprocess.CompletedProcess:
    "The contract suites, of what is called by names"
    suites = [str(f) for f in (project / 'tests').rglob('test_*.py') if f.name in SUITES]
    return run(project, sys.executable, '-m', 'pytest', *options, *suites, '-k', names)


SUITES = 'test_contracts.py', 'test_selection.py'


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    "A copy of the project, with something added from each template by the step of its page"
    copy = tmp_path_factory.mktemp('copy') / 'fastai_al'
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*LEFT_OUT))
    steps = [m for page in sorted(PAGES.glob('*.ipynb')) for m in COPY.findall(steps_of(page))]
    assert {Path(source).stem for source, _ in steps} == {*ADDED}
    for source, to in steps:
        shutil.copy(copy / source, copy / to)
    before = {*copy.rglob('*.py')}
    export(copy)
    made = {f.relative_to(copy).as_posix() for f in {*copy.rglob('*.py')} - before}
    assert len(made) == len(ADDED), made  # one module each, and nothing else was written by hand
    return copy


def steps_of(page: Path) -> str:
    "The text of a page"
    cells = json.loads(page.read_text('utf-8'))['cells']
    return '\n'.join(''.join(c['source']) for c in cells)


def test_what_the_templates_add_is_in_the_suites_and_passes(project):
    names = ' or '.join(name for _, name in ADDED.values())
    done = tried(project, names, '-vv')
    assert not done.returncode, done.stdout[-5000:]
    for _, name in ADDED.values():
        found = re.findall(rf'::(\w+)\[[^\]]*{name}[^\]]*\] PASSED', done.stdout)
        assert len({*found}) >= 5, f'{name}: {found}'


def test_the_templates_check_themselves(project):
    done = run(project, 'nbdev-test', 'nbs', '--file-glob', '20_my_*.ipynb', '--n-workers', '0')
    assert not done.returncode, done.stdout[-3000:] + done.stderr[-3000:]


def test_a_user_finds_them(project):
    code = (
        'from fastai_al.all import MyPosterior, MyLoss, MyCriterion\n'
        'from fastai_al.acquire.strategies import strategy_of\n'
        "assert strategy_of('my_strategy').selector.score == 'entropy'"
    )
    done = run(project, sys.executable, '-c', code)
    assert not done.returncode, done.stderr


# What is broken in which module, and the test that finds it
BROKEN = {
    'test_exactly_n_distinct_ones_in_order_of_choice': (
        'acquisition/my_strategy.py',
        'places = kept[chosen]',
        'places = kept[[chosen[0]] * n]',  # the same item several times
    ),
    'test_equal_items_have_equal_draws': (
        'posterior/my_posterior.py',
        'torch.randn(w.shape',
        '0 * torch.randn(w.shape',  # all draws are alike
    ),
    'test_a_task_offers_what_the_protocol_requires': (
        'tasks/my_task.py',
        'return reached + F.pad(stay, (0, 1))',
        'return reached',  # does not sum to 1
    ),
    'test_a_criterion_gives_a_reason_in_words_or_none': (
        'loop/my_criterion.py',
        'return None',
        'return 0.0',  # no words
    ),
}


def test_what_is_broken_fails(project):
    before = {}
    for module, right, wrong in BROKEN.values():
        file = project / 'fastai_al' / module
        before[file] = file.read_text('utf-8')
        assert right in before[file]
        file.write_text(before[file].replace(right, wrong), 'utf-8')
    try:
        names = [name for _, name in ADDED.values()]
        done = tried(project, f'({" or ".join(names)}) and ({" or ".join(BROKEN)})', '-vv')
    finally:
        for file, code in before.items():
            file.write_text(code, 'utf-8')
    for test, name in zip(BROKEN, names):
        found = re.search(rf'::{test}\[[^\]]*{name}[^\]]*\] FAILED', done.stdout)
        assert found, done.stdout[-3000:]
