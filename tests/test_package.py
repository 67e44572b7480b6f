"""settings.ini, pyproject.toml and the package agree; imports run one way and cost nothing
before they are needed"""

import ast
import json
import re
import runpy
import subprocess
import sys
import tomllib
from configparser import ConfigParser
from pathlib import Path

import pytest

import fastai_al

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / 'fastai_al'


def settings_now():
    "What settings.ini says"
    config = ConfigParser(delimiters=['='])
    config.read(ROOT / 'settings.ini', encoding='utf-8')
    return config['DEFAULT']


@pytest.fixture(scope='module')
def settings():
    return settings_now()


@pytest.fixture(scope='module')
def project():
    return tomllib.loads((ROOT / 'pyproject.toml').read_text('utf-8'))


def requirements(settings):
    "extra -> its requirements; those of the package itself under the empty name"
    extras = {
        key.removesuffix('_requirements'): value.split()
        for key, value in settings.items()
        if key.endswith('_requirements')
    }
    return {'': settings['requirements'].split(), **extras}


def floors(settings):
    "project -> the lowest version that some requirement admits"
    found = {}
    for texts in requirements(settings).values():
        for text in texts:
            name, _, version = text.split(';')[0].partition('>=')
            found.setdefault(name.lower().replace('_', '-'), set()).add(version.split(',')[0])
    return found


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


def test_nothing_that_repeats_settings_is_out_of_step():
    script = runpy.run_path(str(ROOT / 'tools' / 'settings.py'))
    for file, text in script['copies']().items():
        assert file.read_text('utf-8') == text, f'run python tools/notebooks.py: {file.name}'


def test_the_supported_pythons_begin_with_the_lowest(settings, project):
    pythons = settings['pythons'].split()
    assert pythons[0] == settings['min_python']
    named = [c.split(' :: ')[-1] for c in project['project']['classifiers']]
    assert [n for n in named if re.fullmatch(r'3\.\d+', n)] == pythons
    assert f'Python {pythons[0]} or later' in (ROOT / 'README.md').read_text('utf-8')
    for file in (ROOT / '.github' / 'workflows').glob('*.yml'):  # of the matrix and of its jobs
        used = re.findall(r"python(?:-version)?: '(3\.\d+)'", file.read_text('utf-8'))
        assert used and min(used, key=lambda v: int(v[2:])) == pythons[0]


def test_each_requirement_has_one_lowest_version(settings):
    several = {name: v for name, v in floors(settings).items() if len(v) > 1}
    assert not several
    assert all(
        '>=' in text or text == 'dill' for r in requirements(settings).values() for text in r
    )


def test_the_lowest_versions_are_those_that_were_tried(settings):
    tried = dict(
        line.split('==')
        for line in (ROOT / 'tools' / 'floors.txt').read_text('utf-8').splitlines()
        if line and not line.startswith('#')
    )
    lowest = floors({'requirements': settings['requirements']})
    for key in ('laplace_requirements', 'widgets_requirements'):
        lowest |= floors({'requirements': settings[key]})
    for name, (version,) in lowest.items():
        tested = tried[name].split('.')
        assert tested[: version.count('.') + 1] == version.split('.'), f'{name} {version}'
        assert not any(int(part) for part in tested[version.count('.') + 1 :]), f'{name} {version}'


def test_every_import_is_required(settings):
    """A module that is not needed by an extra comes from a requirement, or with fastai or torch"""
    with_fastai = set('fastai fastcore fasttransform fastprogress torchvision PIL sklearn'.split())
    with_torch = {'filelock'}
    with_notebooks = {'IPython', 'ipywidgets', 'traitlets'}
    known = {n.replace('-', '_') for n in floors(settings)} | with_fastai | with_notebooks
    known |= {*sys.stdlib_module_names, 'fastai_al'} | with_torch
    renamed = {'label_studio_sdk', 'laplace'}
    for name, f in modules():
        tree = ast.parse(f.read_text('utf-8'))
        for node in ast.walk(tree):
            found = []
            if isinstance(node, ast.Import):
                found = [a.name for a in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found = [node.module]
            strange = {i.split('.')[0] for i in found} - known - renamed
            assert not strange, f'{name} imports {strange}'


def released():
    "(version, date) of each release in CHANGELOG.md, newest first"
    text = (ROOT / 'CHANGELOG.md').read_text('utf-8')
    return re.findall(r'^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)$', text, re.M)


def test_the_changelog_keeps_a_changelog():
    "In the form of keepachangelog.com"
    text = (ROOT / 'CHANGELOG.md').read_text('utf-8')
    assert re.search(r'^# Changelog\n', text) and re.findall(r'^## .*$', text, re.M)[0] == (
        '## [Unreleased]'
    )
    versions = [[int(part) for part in version.split('.')] for version, _ in released()]
    dates = [date for _, date in released()]
    assert versions == sorted(versions, reverse=True) and dates == sorted(dates, reverse=True)
    assert len(versions) == len(re.findall(r'^## ', text, re.M)) - 1
    kinds = {'Added', 'Changed', 'Deprecated', 'Removed', 'Fixed', 'Security'}
    assert {*re.findall(r'^### (.*)$', text, re.M)} <= kinds
    for section in re.split(r'^## ', text, flags=re.M)[1:]:
        named = re.findall(r'^### (.*)$', section, re.M)
        assert len(named) == len({*named}), section.split('\n')[0]


def test_the_version_is_the_newest_release_or_the_next_development_version(settings):
    version = settings['version']
    (newest, date), *_ = released()
    if version != newest:
        after, dev, number = version.partition('.dev')
        assert dev and number.isdigit(), f'{version} has no dated section in CHANGELOG.md'
        assert [int(p) for p in after.split('.')] > [int(p) for p in newest.split('.')]
    citation = (ROOT / 'CITATION.cff').read_text('utf-8')
    assert f'\nversion: {newest}\n' in citation and f'\ndate-released: {date}\n' in citation


def test_setup_passes_on_what_settings_say(settings):
    reported = subprocess.run(
        [sys.executable, '-W', 'ignore', 'setup.py', '--version'],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert reported[-1] == settings['version']


@pytest.mark.parametrize(
    'kind', [DeprecationWarning, PendingDeprecationWarning, FutureWarning], ids=lambda k: k.__name__
)
def test_what_is_deprecated_is_an_error_in_our_modules_and_nowhere_else(kind):
    code = f'import warnings; warnings.warn("old", {kind.__name__})'
    for name in ('fastai_al.pool.pool', 'fastai_al'):
        with pytest.raises(kind, match='old'):
            exec(code, {'__name__': name})
    for name in ('fastai.learner', 'fastai_also'):
        exec(code, {'__name__': name})


def test_importing_the_package_imports_neither_fastai_nor_torch():
    code = (
        "import sys, fastai_al; sys.exit(any(m in sys.modules for m in ('torch', 'fastai', "
        "'numpy', 'pandas')))"
    )
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0


def test_the_low_level_needs_torch_alone():
    code = (
        'import sys, fastai_al.acquisition.scores, fastai_al.acquisition.information, '
        'fastai_al.triage.outliers, fastai_al.triage.certify, fastai_al.evaluation.shift; '
        "sys.exit('fastai' in sys.modules)"
    )
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0


# The way of the data, from its ground up: a package imports only from packages of earlier rows
FLOORS = [
    ['core'],
    ['tasks'],
    ['pool', 'posterior', 'acquisition'],
    ['inference', 'training'],
    ['acquire', 'toy'],
    ['evaluation'],
    ['triage'],
    ['loop'],
    ['annotate', 'stream'],
    ['lab'],
    ['active_learner'],
    ['all', '__main__'],
]
FLOOR = {name: i for i, names in enumerate(FLOORS) for name in names}
WITHOUT_FASTAI = (
    'acquisition',
    'triage.bounds',
    'triage.certify',
    'triage.exact',
    'triage.looks',
    'triage.guarantees',
    'triage.picks',
    'triage.outliers',
    'evaluation.overlap',
    'evaluation.reliability',
    'evaluation.shift',
    'loop.lure',
    'lab.compare',
)
WITHOUT_POOL = 'inference', 'acquire', 'evaluation'
EXCEPT = ('acquire.cold_start', 'acquire.duplicates', 'acquire.embeddings')  # methods of a pool


def modules():
    for f in sorted((ROOT / 'fastai_al').rglob('*.py')):
        name = '.'.join(f.relative_to(ROOT / 'fastai_al').with_suffix('').parts)
        if f.name != '_modidx.py' and f.read_text().strip():
            yield name, f


def imports_of(name, f):
    "Modules of the package that a module imports; without those that only its annotations need"
    tree = ast.parse(f.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == 'TYPE_CHECKING':
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = name.split('.')[: -node.level] if name != '__init__' else []
            module = '.'.join([*base, *(node.module or '').split('.')]).strip('.')
            inner = [f'{module}.{a.name}'.strip('.') for a in node.names]
            yield from {
                i if (PACKAGE / f'{i.replace(".", "/")}.py').exists() else module or '__init__'
                for i in inner
            }
        elif isinstance(node, ast.Import):
            yield from (
                a.name.removeprefix('fastai_al.')
                for a in node.names
                if a.name.startswith('fastai_al.')
            )


EACH_MODULE = pytest.mark.parametrize('name, f', list(modules()), ids=[m for m, _ in modules()])


def within(name, packages):
    return any(name == p or name.startswith(p + '.') for p in packages)


@EACH_MODULE
def test_imports_run_one_way(name, f):
    package = name.split('.')[0]
    if name == '__init__':
        assert not list(imports_of(name, f))
        return
    assert package in FLOOR, f'say in FLOORS where {package} stands on the way of the data'
    for other in imports_of(name, f):
        there = other.split('.')[0]
        if there not in ('__init__', package):
            assert FLOOR[there] < FLOOR[package], f'{name} imports {other}'


def test_no_module_imports_itself_through_others():
    names = {m for m, _ in modules()}
    graph = {m: {*imports_of(m, f)} & names for m, f in modules()}
    while graph:
        ground = {m for m, others in graph.items() if not others & {*graph}}
        assert ground, f'these import each other in a circle: {sorted(graph)}'
        graph = {m: others for m, others in graph.items() if m not in ground}


@EACH_MODULE
def test_tensors_and_numbers_need_no_fastai(name, f):
    if within(name, WITHOUT_FASTAI):
        assert not re.search(r'^\s*(from|import) fastai\b', f.read_text(), re.M)
        ground = ('__init__', 'core.rng', 'core.memory', 'core.checks', 'core.discovery')
        ground += WITHOUT_FASTAI
        for other in imports_of(name, f):
            assert within(other, ground), f'{name} imports {other}'


@EACH_MODULE
def test_only_what_works_on_pools_imports_the_pool(name, f):
    if within(name, WITHOUT_POOL) and name not in EXCEPT:
        assert not [other for other in imports_of(name, f) if within(other, ['pool'])]


def test_sql_is_where_the_ledger_is():
    ledger = ['pool.erasing', 'pool.files', 'pool.layout', 'pool.ledger']
    assert [m for m, f in modules() if 'sqlite3' in f.read_text()] == ledger


def test_one_function_warns():
    assert [m for m, f in modules() if 'warnings.warn' in f.read_text()] == ['__init__']


def test_one_function_grows_a_training_set():
    assert [
        (m, len(re.findall(r'\._new\(', f.read_text())))
        for m, f in modules()
        if '._new(' in f.read_text()
    ] == [('pool.loaders', 1)]


@pytest.mark.parametrize('notebook', sorted((ROOT / 'nbs').rglob('*.ipynb')), ids=lambda f: f.name)
def test_saved_outputs_name_no_machine_and_hold_no_bars(notebook):
    outputs = json.dumps(
        [c.get('outputs') for c in json.loads(notebook.read_text())['cells']], ensure_ascii=False
    )
    for bad in ('site-packages', '/tmp/', '/home/', '/root/', '█', 'Traceback'):
        assert bad not in outputs, bad


# Names with an underscore that belong to others, who give no public one for it
OF_OTHERS = {
    'torch': {
        '_parameters',
        '_buffers',
        '_modules',
        '_non_persistent_buffers_set',
        '_version',
        '_cdata',
        '_make_wrapper_subclass',
        '_C',
        '_ConvNd',
        '_BatchNorm',
        '_NormBase',
    },
    'fastai': {'_new', '_split', '_set_device'},
    'Python': {'_getframe'},
}


def defined_in(tree):
    "Names that a module defines: functions, classes, variables and attributes of its objects"
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def is_private(name):
    return name.startswith('_') and not name.startswith('__')


@EACH_MODULE
def test_private_names_stay_in_their_module(name, f):
    """A class may use what the classes it is made from keep to themselves: `self._x`, `cls._x`"""
    tree = ast.parse(f.read_text())
    own = {*defined_in(tree)}.union(*OF_OTHERS.values())
    strange = [
        f'{node.lineno}: {ast.unparse(node)}'
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and is_private(node.attr)
        and node.attr not in own
        and not (isinstance(node.value, ast.Name) and node.value.id in ('self', 'cls'))
    ]
    strange += [
        f'{node.lineno}: from {"." * node.level}{node.module} import {a.name}'
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
        for a in node.names
        if is_private(a.name)
    ]
    assert not strange, f'give these a public name, where {name} needs them: {strange}'


TESTS = ROOT / 'tests'


def test_tests_stand_in_the_folders_of_their_packages():
    "What concerns the whole project stands on top, beside what the tests share"
    folders = {f.parent.relative_to(TESTS) for f in TESTS.rglob('test_*.py')}
    for folder in folders:
        assert (PACKAGE / folder / '__init__.py').exists(), f'there is no package {folder}'
    packages = {f.parent.relative_to(PACKAGE) for f in PACKAGE.rglob('__init__.py')}
    assert folders == packages, f'without tests: {sorted(map(str, packages - folders))}'


def test_test_files_have_names_of_their_own():
    "pytest imports them by their names alone"
    names = [f.name for f in TESTS.rglob('test_*.py')]
    assert len(names) == len({*names})


MAX_FUNCTION, MAX_FILE = 60, 450  # lines, docstrings left out


def without_docstrings(node):
    "Lines of a module or function, its docstrings left out"
    lines = node.body[-1].end_lineno if isinstance(node, ast.Module) else node.end_lineno
    count = lines - getattr(node, 'lineno', 1) + 1
    for part in ast.walk(node):
        if isinstance(part, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(
            part
        ):
            count -= part.body[0].end_lineno - part.body[0].lineno + 1
    return count


@EACH_MODULE
def test_functions_and_files_are_short(name, f):
    tree = ast.parse(f.read_text())
    assert without_docstrings(tree) <= MAX_FILE
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    long = {n.name: k for n in functions if (k := without_docstrings(n)) > MAX_FUNCTION}
    assert not long, f'split these along their ideas: {long}'
