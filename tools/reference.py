"""How the documentation shows a function or a class: its signature, and its docstring's sections
as lists, so that a page says what `help()` says"""

import inspect
import re
import warnings
from collections.abc import Iterable

from fastcore.docscrape import NumpyDocString
from nbdev.showdoc import BasicMarkdownRenderer

LISTS = 'Parameters', 'Returns', 'Yields', 'Raises', 'Attributes'
TEXTS = 'Notes', 'References', 'Examples'
MODULES = re.compile(r'\b(?:[A-Za-z_]\w*\.)+(?=[A-Za-z_])')  # before the name of a type
WIDTH = 88


def text_of(part: str | Iterable[str]) -> str:
    return part if isinstance(part, str) else '\n'.join(part)


def entry(section: str, name: str, kind: str, text: str) -> str:
    "A line of a list: `name` (type): what it is"
    if section in ('Returns', 'Yields', 'Raises'):
        head = f'`{kind or name}`'
    else:
        head = f'`{name}`' + (f' ({kind})' if kind else '')
    return f'- {head}: {text}' if text else f'- {head}'


def entries(section: str, found) -> list[str]:
    rows = (
        found.values()
        if hasattr(found, 'values')
        else found
        if isinstance(found, list)
        else [found]
    )
    lines = []
    for row in rows:
        text = ' '.join(line.strip() for line in row.desc)
        lines.append(entry(section, row.name, row.type, text))
    return lines


def sections(doc: str) -> str:
    "A docstring in numpy's style as Markdown"
    parsed = NumpyDocString(doc)
    parts = [text_of(parsed['Summary']), text_of(parsed['Extended'])]
    for section in LISTS:
        if parsed[section]:
            parts.append(f'**{section}**\n\n' + '\n'.join(entries(section, parsed[section])))
    for section in TEXTS:
        text = text_of(parsed[section] or '')
        if section == 'Examples' and text:
            text = f'```python\n{text}\n```'
        if text:
            parts.append(f'**{section}**\n\n{text}')
    return '\n\n'.join(p for p in parts if p.strip())


def signature(name: str, sym) -> str:
    "A signature with short names of types, on one line or with a line for each parameter"
    try:
        found = inspect.signature(sym)
    except (ValueError, TypeError):
        return f'{name}(...)'
    parameters = [MODULES.sub('', str(p)) for p in found.parameters.values()]
    kinds = [p.kind for p in found.parameters.values()]
    if inspect.Parameter.KEYWORD_ONLY in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
        parameters.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), '*')
    if parameters and re.match(r'(self|cls)\b', parameters[0]):
        parameters = parameters[1:]
    returns = (
        ''
        if found.return_annotation is found.empty
        else inspect.formatannotation(found.return_annotation)
    )
    tail = f' -> {MODULES.sub("", returns)}' if returns else ''
    line = f'{name}({", ".join(parameters)}){tail}'
    if len(line) <= WIDTH:
        return line
    return f'{name}(\n' + ''.join(f'    {p},\n' for p in parameters) + f'){tail}'


class Reference(BasicMarkdownRenderer):
    "nbdev's own heading and link to the source, with our signature and sections"

    def __init__(self, *args, **kwargs):
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # nbdev can't read comments of every signature
            super().__init__(*args, **kwargs)

    def _repr_markdown_(self):
        head = super()._repr_markdown_().partition('```python\n')[0]
        doc = inspect.getdoc(self.sym) or ''
        if inspect.isclass(self.sym) and doc == inspect.getdoc(object):
            doc = ''
        return f'{head}```python\n{signature(self.nm, self.sym)}\n```\n\n{sections(doc)}'
