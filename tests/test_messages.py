"""Errors and warnings are sentences that name cause, value and remedy"""

import ast
from pathlib import Path

import pytest

from messages import problems

PACKAGE = Path(__file__).parents[1] / 'fastai_al'


# Fragments that other messages embed, and why they are no sentences themselves
FRAGMENTS = {
    '{5} of the {5} {5}, for example {5}. {5}': 'triage/request.py: the remedy is an argument',
}


def texts_of(node):
    "Messages as they stand in the code, with `{5}` for what is filled in; empty: made elsewhere"
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        return [''.join(v.value if isinstance(v, ast.Constant) else '{5}' for v in node.values)]
    if isinstance(node, ast.IfExp):
        return texts_of(node.body) + texts_of(node.orelse)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = texts_of(node.left), texts_of(node.right)
        if left or right:
            return [a + b for a in left or ['{5}'] for b in right or ['{5}']]
    return []


def raised(f):
    "(line, message, whether it is an error) of a module"
    for node in ast.walk(ast.parse(f.read_text('utf-8'))):
        call, error = None, False
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            call, error = node.exc, True
        elif isinstance(node, ast.Call) and getattr(node.func, 'id', None) == 'warn':
            call = node
        if call is None or not call.args:
            continue
        if ast.unparse(call.func) not in ('KeyError', 'StopIteration', 'AttributeError'):
            for text in texts_of(call.args[0]):
                if text not in FRAGMENTS:
                    yield node.lineno, text, error


MODULES_OF_FRAGMENTS = {  # what is not shown by itself -> why
    'annotate/labelstudio/reading.py': 'reasons why an answer is refused, part of one warning',
    'annotate/labelstudio/rle.py': 'reasons why an answer is refused, part of one warning',
    'posterior/skipping.py': 'signals that channels can not be skipped; nobody sees them',
}
MODULES = sorted(
    f
    for f in PACKAGE.rglob('*.py')
    if f.name != '_modidx.py' and str(f.relative_to(PACKAGE)) not in MODULES_OF_FRAGMENTS
)


@pytest.mark.parametrize('f', MODULES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_messages_in_the_code(f):
    unfinished = ('{5}', '{5}.')  # the end is made elsewhere
    wrong = [
        f'{line}: {text!r}: {p}'
        for line, text, error in raised(f)
        for p in problems(text, error and not text.endswith(unfinished))
    ]
    assert not wrong, '\n'.join(wrong)
