"""settings.ini, pyproject.toml and the package agree; imports run one way and cost nothing
before they are needed"""

import ast
import json
import re
import subprocess
import sys
import tomllib
from configparser import ConfigParser
from pathlib import Path

import pytest

import fastai_al

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='module')
def settings():
    config = ConfigParser(delimiters=['='])
    config.read(ROOT / 'settings.ini')
    return config['DEFAULT']


@pytest.fixture(scope='module')
def project():
    return tomllib.loads((ROOT / 'pyproject.toml').read_text())


def test_settings_and_pyproject_hold_each_other(settings, project):
    p = project['project']
    assert (
        p['name'] == settings['lib_name']
        and p['description'] == settings['description']
        and p['license'] == settings['license']
    )
    assert (
        p['requires-python'] == '>=' + settings['min_python']
        and p['keywords'] == settings['keywords'].split()
    )
    assert p['authors'] == [{'name': settings['author']}]
    assert (
        set(p['dynamic']) == {'version', 'dependencies', 'optional-dependencies'}
        and 'nbdev' in project['tool']
    )
    assert fastai_al.__version__ == settings['version']
    assert f'## {settings["version"]}' in (ROOT / 'CHANGELOG.md').read_text()


def test_setup_passes_on_what_settings_say(settings):
    told = subprocess.run(
        [sys.executable, '-W', 'ignore', 'setup.py', '--version'],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert told[-1] == settings['version']


def test_importing_the_package_imports_neither_fastai_nor_torch():
    code = (
        "import sys, fastai_al; sys.exit(any(m in sys.modules for m in ('torch', 'fastai', "
        "'numpy', 'pandas')))"
    )
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0


def test_the_low_level_needs_torch_alone():
    code = (
        'import sys, fastai_al.acquisition.scores, fastai_al.acquisition.information, '
        "fastai_al.triage.outliers, fastai_al.triage.certify, fastai_al.evaluation.shift; sys.exit('fastai' in sys.modules)"
    )
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0


# The way of the data, from its beginning to its end: a module may import from those before it
ORDER = [
    '__init__',
    'rng',
    'chunks',
    'ledger',
    'answers',
    'items',
    'states',
    'pool',
    'agreement',
    'oracle',
    'loaders',
    'reading',
    'masks',
    'posterior.base',
    'posterior.trial',
    'posterior.thin',
    'posterior.runner',
    'posterior.dropout',
    'posterior.dropconnect',
    'posterior.ensemble',
    'posterior.swag',
    'posterior.laplace',
    'posterior.bayes',
    'posterior.tta',
    'acquisition.registry',
    'acquisition.scores',
    'acquisition.information',
    'acquisition.regression',
    'acquisition.selection',
    'acquisition.candidates',
    'acquisition.stochastic',
    'acquisition.batchbald',
    'acquisition.coverage',
    'acquisition.clusters',
    'acquisition.covariance',
    'acquisition.sites',
    'acquisition.strata',
    'overlap',
    'tasks',
    'detection',
    'query',
    'names',
    'features',
    'passes',
    'collect',
    'acquire',
    'predict',
    'toy',
    'measure',
    'outliers',
    'shift',
    'reliability',
    'calibrate',
    'interpret',
    'certify',
    'representative',
    'triage',
    'acts',
    'promise',
    'learner',
    'suspects',
    'evaluate',
    'annotate.question',
    'annotate.views',
    'annotate.session',
    'annotate.guesses',
    'annotate.annotator',
    'annotate.labelstudio_results',
    'annotate.labelstudio_tasks',
    'annotate.labelstudio_format',
    'annotate.labelstudio',
    'defer',
    'stopping',
    'forecast',
    'compare',
    'campaigns',
    'play',
    'lab',
    'report',
    '__main__',
    'all',
]


def modules():
    for f in sorted((ROOT / 'fastai_al').rglob('*.py')):
        name = '.'.join(f.relative_to(ROOT / 'fastai_al').with_suffix('').parts)
        if f.name != '_modidx.py' and f.read_text().strip():
            yield name, f


def imports_of(name, f):
    for node in ast.walk(ast.parse(f.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = name.split('.')[: -node.level] if name != '__init__' else []
            yield '.'.join([*base, *(node.module or '__init__').split('.')])
        elif isinstance(node, ast.Import):
            yield from (
                a.name.removeprefix('fastai_al.')
                for a in node.names
                if a.name.startswith('fastai_al.')
            )


@pytest.mark.parametrize('name, f', modules(), ids=[m for m, _ in modules()])
def test_imports_run_one_way(name, f):
    assert name in ORDER, f'say in ORDER where {name} belongs on the way of the data'
    for other in imports_of(name, f):
        assert ORDER.index(other) < ORDER.index(name), f'{name} imports {other}'


def test_sql_is_in_one_place():
    assert [m for m, f in modules() if 'sqlite3' in f.read_text()] == ['ledger']


def test_one_function_warns():
    assert [m for m, f in modules() if 'warnings.warn' in f.read_text()] == ['__init__']


def test_one_function_grows_a_training_set():
    assert [
        (m, len(re.findall(r'\._new\(', f.read_text())))
        for m, f in modules()
        if '._new(' in f.read_text()
    ] == [('loaders', 1)]


@pytest.mark.parametrize('notebook', sorted((ROOT / 'nbs').glob('*.ipynb')), ids=lambda f: f.name)
def test_saved_outputs_name_no_machine_and_hold_no_bars(notebook):
    outputs = json.dumps(
        [c.get('outputs') for c in json.loads(notebook.read_text())['cells']], ensure_ascii=False
    )
    for bad in ('site-packages', '/tmp/', '/home/', '/root/', '█', 'Traceback'):
        assert bad not in outputs, bad
