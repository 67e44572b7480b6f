"""Errors and warnings are sentences that name cause, value and remedy"""

import ast
from pathlib import Path

import pytest

from messages import problems

PACKAGE = Path(__file__).parents[1] / 'fastai_al'


# Exceptions that the package catches itself, so that nobody reads their messages
CAUGHT = 'KeyError', 'StopIteration', 'AttributeError', 'ChangedInPlace'
# Errors that begin or end with an argument, which holds the remedy
REMEDY_IN_ARGUMENT = {'{5} of the {5} {5}, for example {5}. {5}'}


def texts_of(node, known=()):
    """Messages as they stand in the code, with `{5}` for what is filled in, unless it is in
    `known`, the constants of the module; empty: made elsewhere"""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.FormattedValue):
        return [dict(known).get(ast.unparse(node.value), '{5}')]
    if isinstance(node, ast.JoinedStr):
        return [''.join(text for v in node.values for text in texts_of(v, known))]
    if isinstance(node, ast.IfExp):
        return texts_of(node.body, known) + texts_of(node.orelse, known)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = texts_of(node.left, known), texts_of(node.right, known)
        if left or right:
            return [a + b for a in left or ['{5}'] for b in right or ['{5}']]
    return []


def constants_of(tree):
    "Strings that a module names, by their names"
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            if isinstance(node.value.value, str):
                yield ast.unparse(node.targets[0]), node.value.value


def raised(f):
    "(line, message, whether it is an error) of a module"
    tree = ast.parse(f.read_text('utf-8'))
    known = dict(constants_of(tree))
    for node in ast.walk(tree):
        call, error = None, False
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            call, error = node.exc, True
        elif isinstance(node, ast.Call) and getattr(node.func, 'id', None) == 'warn':
            call = node
        if call is None or not call.args:
            continue
        if ast.unparse(call.func) not in CAUGHT:
            yield from ((node.lineno, text, error) for text in texts_of(call.args[0], known))


# Modules that raise reasons why an answer is refused, which `label_of` puts into its sentence
REASONS = 'annotate/labelstudio/reading.py', 'annotate/labelstudio/rle.py'
MODULES = sorted(f for f in PACKAGE.rglob('*.py') if f.name != '_modidx.py')


@pytest.mark.parametrize('f', MODULES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_messages_in_the_code(f):
    reasons = f.relative_to(PACKAGE).as_posix() in REASONS
    wrong = [
        f'{line}: {text!r}: {p}'
        for line, text, error in raised(f)
        if not (reasons and not text[:1].isupper())
        for p in problems(text, error and text not in REMEDY_IN_ARGUMENT)
    ]
    assert not wrong, '\n'.join(wrong)
