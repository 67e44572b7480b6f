"""The errata and the fidelity page: everything has its row, and what a row names is there"""

import ast
import json
import re
from functools import lru_cache
from pathlib import Path

import pytest

import fastai_al.all as everything
from fastai_al.acquisition.catalogue import catalogue
from fastai_al.acquisition.reducers import REDUCERS
from fastai_al.loop.stopping import Criterion
from fastai_al.posterior.base import Posterior
from fastai_al.tasks.deferral import Deferral
from fastai_al.triage.outliers import OUTLIER_SCORES

ROOT = Path(__file__).resolve()
while not (ROOT / 'settings.ini').is_file():
    ROOT = ROOT.parent
PAGES = 'errata', 'fidelity'
TEST = re.compile(r'(test_\w+\.py)::(\w+)')
VERSION = re.compile(r'(?<![\d.])\d+\.\d+\.\d+(?![\d.])')


@lru_cache
def text(page: str) -> str:
    cells = json.loads((ROOT / 'nbs' / f'{page}.ipynb').read_text(encoding='utf-8'))['cells']
    return '\n\n'.join(''.join(c['source']) for c in cells if c['cell_type'] == 'markdown')


def rows(page: str) -> list[list[str]]:
    "The cells of each row of the tables of a page, without their headings"
    lines = [line for line in text(page).splitlines() if line.startswith('|')]
    found = [[c.strip() for c in re.split(r'(?<!\\)\|', line)[1:-1]] for line in lines]
    rules = {i for i, row in enumerate(found) if set(''.join(row)) <= {'-', ':', ' '}}
    return [row for i, row in enumerate(found) if i not in rules and i + 1 not in rules]


@lru_cache
def tests_by_file() -> dict[str, set[str]]:
    "The names of tests, by the name of their file, in whatever folder it is"
    found: dict[str, set[str]] = {}
    for file in (ROOT / 'tests').rglob('test_*.py'):
        tree = ast.parse(file.read_text(encoding='utf-8'))
        functions = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef))
        names = {f.name for f in functions if f.name.startswith('test_')}
        found.setdefault(file.name, set()).update(names)
    return found


def concrete(base: type) -> set[str]:
    "The names of public classes of the package that are a `base`"
    below = base.__subclasses__()
    names = {c.__name__ for c in below if c.__module__.startswith('fastai_al')}
    names |= {name for c in below for name in concrete(c)}
    return {name for name in names if not name.startswith('_')}


def certificates() -> set[str]:
    return {name for name in everything.__all__ if name.startswith('certify_')}


@pytest.mark.parametrize(
    'names',
    [
        lambda: set(catalogue()),
        lambda: set(REDUCERS),
        lambda: concrete(Posterior) - {'EnsembleBase'},  # what two ensembles share
        lambda: concrete(Criterion),
        lambda: concrete(Deferral),
        lambda: set(OUTLIER_SCORES),
        certificates,
    ],
    ids=[
        'strategies',
        'reducers',
        'posteriors',
        'criteria',
        'deferral',
        'outlier scores',
        'certificates',
    ],
)
def test_each_method_has_a_row_on_the_fidelity_page(names):
    named = [name for row in rows('fidelity') for name in re.findall(r'`([^`]+)`', row[0])]
    of_users = {name for name in names() if name in registered_by_tests()}
    missing = names() - of_users - set(named)
    assert len(names()) > 1
    assert not missing, f'without a row in nbs/fidelity.ipynb: {", ".join(sorted(missing))}'
    assert len(named) == len(set(named)), 'a method has two rows'


def registered_by_tests() -> set[str]:
    "Strategies that other tests of this session have registered"
    return {
        name
        for name, rule in catalogue().items()
        if not getattr(rule.function, '__module__', '').startswith('fastai_al')
    }


@pytest.mark.parametrize('page', PAGES)
def test_the_tests_that_a_page_names_exist(page):
    named, known = TEST.findall(text(page)), tests_by_file()
    assert len(named) > 40
    for file, name in named:
        elsewhere = [other for other in known if name in known[other]]
        assert name in known.get(file, ()), (
            f'nbs/{page}.ipynb names {file}::{name}, which is not there. '
            + (f'It is in {elsewhere[0]}.' if elsewhere else 'No test has that name.')
        )


@pytest.mark.parametrize('page', PAGES)
def test_each_row_is_whole(page):
    width = {'errata': 6, 'fidelity': 5}[page]
    for row in rows(page):
        assert len(row) == width and all(row), row
        assert TEST.search(row[-1]) or row[-1] == 'no test yet', row


def test_versions_of_the_errata_are_in_the_changelog():
    changes = (ROOT / 'CHANGELOG.md').read_text(encoding='utf-8')
    known = re.findall(r'^## \[?v?(\d+\.\d+\.\d+)', changes, re.M)  # newest first
    place = {version: i for i, version in enumerate(known)}
    assert len(known) > 10
    for row in rows('errata'):
        faulty, mended = VERSION.findall(row[2]), VERSION.findall(row[4])
        assert faulty and (mended or row[4] == 'not yet'), row
        strangers = set(VERSION.findall(' '.join(row))) - place.keys()
        assert not strangers, f'{strangers} has no heading in CHANGELOG.md: {row[0]}'
        if mended:
            assert place[mended[-1]] < place[faulty[-1]], f'mended before it was found: {row[0]}'


def test_the_pages_are_linked():
    index = (ROOT / 'nbs' / 'index.ipynb').read_text(encoding='utf-8')
    assert all(f'({page}.ipynb)' in index for page in PAGES)
    assert '(fidelity.ipynb)' in text('errata') and '(errata.ipynb)' in text('fidelity')
