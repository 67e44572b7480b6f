"""The pages on architecture and words agree with the code"""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = next(p for p in Path(__file__).resolve().parents if (p / 'settings.ini').exists())
PACKAGE, NOTEBOOKS = ROOT / 'fastai_al', ROOT / 'nbs'


def text_of(notebook: Path) -> str:
    cells = json.loads(notebook.read_text('utf-8'))['cells']
    return '\n\n'.join(''.join(c['source']) for c in cells if c['cell_type'] == 'markdown')


def names_in(file: Path) -> set[str]:
    "Functions, classes and methods that a module defines"
    tree = ast.parse(file.read_text('utf-8'))
    found = {n.name for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    for owner in tree.body:
        if isinstance(owner, ast.ClassDef):
            methods = (n for n in owner.body if isinstance(n, ast.FunctionDef))
            found |= {f'{owner.name}.{n.name}' for n in methods}
    return found


STEPS = re.findall(
    r'^\| `([\w.]+)` \| `([\w/]+\.py)` \|', text_of(NOTEBOOKS / 'architecture.ipynb'), re.M
)


def test_the_walks_are_there():
    text = text_of(NOTEBOOKS / 'architecture.ipynb')
    assert len(re.findall('^## From ', text, re.M)) == 3 and len(STEPS) > 25
    tables = [row for row in text.splitlines() if '.py` |' in row]
    assert len(tables) == len(STEPS)  # each row has been read


@pytest.mark.parametrize('name, file', STEPS, ids=[f'{f}:{n}' for n, f in STEPS])
def test_what_the_walks_name_exists(name, file):
    assert name in names_in(PACKAGE / file)


def test_the_picture_is_that_of_the_imports():
    done = subprocess.run(
        [sys.executable, ROOT / 'tools' / 'architecture.py', '--check'],
        capture_output=True,
        text=True,
    )
    assert not done.returncode, done.stderr


def test_the_picture_has_every_package():
    picture = (NOTEBOOKS / 'files' / 'architecture.svg').read_text('utf-8')
    for package in (p.parent.name for p in PACKAGE.glob('*/__init__.py')):
        assert f'>{package}</tspan>' in picture, f'describe {package} in tools/architecture.py'


TERMS = re.findall('^### (.+)$', text_of(NOTEBOOKS / 'glossary.ipynb'), re.M)


def test_each_word_is_defined_once():
    assert len(TERMS) > 30 and len({t.lower() for t in TERMS}) == len(TERMS)


def test_links_to_the_glossary_lead_to_a_word():
    known = {re.sub(r'[^\w-]+', '-', t.lower()).strip('-') for t in TERMS}
    linked = 0
    for notebook in NOTEBOOKS.rglob('*.ipynb'):
        for anchor in re.findall(r'glossary\.ipynb#([\w-]+)', text_of(notebook)):
            assert anchor in known, f'{notebook.name}: {anchor}'
            linked += 1
    assert linked >= 6
