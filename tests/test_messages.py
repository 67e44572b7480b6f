"""Errors and warnings are sentences that name cause, value and remedy"""

import ast
from pathlib import Path

import pytest

from messages import problems

PACKAGE = Path(__file__).parents[1] / 'fastai_al'


def text_of(node):
    "A message as it stands in the code, with `{5}` for what is filled in; None: made elsewhere"
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return ''.join(v.value if isinstance(v, ast.Constant) else '{5}' for v in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = text_of(node.left), text_of(node.right)
        return None if left is None and right is None else (left or '{5}') + (right or '{5}')
    return None


def raised(f):
    "(line, message, whether it is an error) of a module"
    for node in ast.walk(ast.parse(f.read_text('utf-8'))):
        call, error = None, False
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            call, error = node.exc, True
        elif isinstance(node, ast.Call) and getattr(node.func, 'id', None) == 'warn':
            call = node
        if call is not None and call.args and (text := text_of(call.args[0])) is not None:
            name = ast.unparse(call.func)
            if name not in ('KeyError', 'StopIteration', 'AttributeError'):
                yield node.lineno, text, error


FRAGMENTS = {  # what is not shown by itself -> why
    'annotate/labelstudio/reading.py': 'reasons why an answer is refused, part of one warning',
    'annotate/labelstudio/rle.py': 'reasons why an answer is refused, part of one warning',
    'posterior/skipping.py': 'signals that channels can not be skipped; nobody sees them',
}
MODULES = sorted(
    f
    for f in PACKAGE.rglob('*.py')
    if f.name != '_modidx.py' and str(f.relative_to(PACKAGE)) not in FRAGMENTS
)


@pytest.mark.parametrize('f', MODULES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_messages_in_the_code(f):
    wrong = [
        f'{line}: {text!r}: {p}' for line, text, error in raised(f) for p in problems(text, error and not text.endswith(('{5}', '{5}.')))
    ]
    assert not wrong, '\n'.join(wrong)
