"""`help()` shows what a user needs: every public name and each of its parameters is described, and
the examples in docstrings run"""

import doctest
import inspect
import pkgutil
from importlib import import_module

import pytest
from fastai.learner import Learner
from fastcore.docscrape import NumpyDocString

import fastai_al.all as everything
import fastai_al.annotate.labelstudio as labelstudio
from fastai_al.all import Pool

PARTS = [
    import_module(m.name)
    for m in pkgutil.iter_modules(labelstudio.__path__, 'fastai_al.annotate.labelstudio.')
]  # a package of helpers
PLACES = {n: m for m in [*PARTS, everything] for n in m.__all__}
PATCHED = [
    (f'Learner.{name}', f)
    for name, f in vars(Learner).items()
    if inspect.isfunction(f) and f.__module__.startswith('fastai_al.') and name[0] != '_'
]


def ours(o):
    return (getattr(o, '__module__', None) or '').startswith('fastai_al')


def members(cls):
    "Public methods of a class, its own and those of its parents in this package"
    for name in dir(cls):
        f = inspect.getattr_static(cls, name)
        f = f.__func__ if isinstance(f, (classmethod, staticmethod)) else f
        if name[0] != '_' and inspect.isfunction(f) and ours(f):
            yield f.__qualname__, f


def documented():
    found = dict(PATCHED)
    for name, place in PLACES.items():
        o = getattr(place, name)
        if inspect.isclass(o):
            found[name] = o
            found |= members(o)
        elif inspect.isroutine(o) or (callable(o) and hasattr(o, '__wrapped__')):
            found[name] = o
    return sorted(found.items())


DOCUMENTED = documented()
EACH = pytest.mark.parametrize('name, o', DOCUMENTED, ids=[n for n, _ in DOCUMENTED])


def parsed(o):
    return NumpyDocString(inspect.getdoc(o) or '')


def parameters_of(o):
    "Names of the parameters that a caller may give"
    if inspect.isclass(o) and issubclass(o, BaseException):
        return []
    try:
        found = inspect.signature(o).parameters.values()
    except ValueError:
        return []
    skip = 'self', 'cls', 'args', 'kwargs'
    own = set(inspect.signature(inspect.unwrap(o) if not inspect.isclass(o) else o).parameters)
    return [p.name for p in found if p.name not in skip and p.name in own and p.name[0] != '_']


@EACH
def test_there_is_a_first_line(name, o):
    doc = (inspect.getdoc(o) or '').strip()
    assert doc and doc != (object.__init__.__doc__ or ''), f'{name} has no docstring'
    first = doc.split('\n\n')[0]
    assert first[-1] in '.:', f'{name}: the first paragraph does not end like a sentence: {first!r}'
    assert first[0].isupper() or first[0] in '`$[', f'{name}: {first!r}'


@EACH
def test_each_parameter_is_described(name, o):
    found = {k.strip('*'): v for k, v in parsed(o)['Parameters'].items()}
    names = [n.strip() for k in found for n in k.split(',')]
    text = {n.strip(): ' '.join(v.desc) for k, v in found.items() for n in k.split(',')}
    missing = [p for p in parameters_of(o) if p not in names or not text[p].strip()]
    assert not missing, f'{name} does not describe {missing}'
    unknown = [n for n in names if n not in inspect.signature(o).parameters and n != 'kwargs']
    assert not unknown or inspect.isclass(o), f'{name} describes {unknown}, which it does not take'


@EACH
def test_examples_run(name, o):
    if '>>>' in (inspect.getdoc(o) or ''):
        globs = vars(everything) | dict(Pool=Pool)
        test = doctest.DocTestParser().get_doctest(inspect.getdoc(o), dict(globs), name, None, 0)
        out = []
        result = doctest.DocTestRunner(
            optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        ).run(test, out=out.append)
        assert not result.failed, ''.join(out)
