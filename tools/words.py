"""List words that the project no longer uses, with what to write instead

python tools/words.py             # the package, its notebooks, tests, benchmarks and documents
python tools/words.py fastai_al/pool nbs/pool

Names are looked up in code (functions, classes, arguments, variables, attributes), phrases in
docstrings, messages, comments and Markdown. Of tests and benchmarks it reads the names of functions
and classes, docstrings and comments. The exit status says whether any is left. What is on disk
(columns of the ledger, keys of its notes) keeps its name: it stands in strings.
"""

import ast
import io
import json
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLACES = (
    'fastai_al',
    'nbs',
    'templates',
    'tests',
    'benchmarks',
    'README.md',
    'CONTRIBUTING.md',
)
NEVER = '_modidx.py', '_proc', '_docs', '.ipynb_checkpoints'

NAMES = dict(  # a part of a name, between underscores -> what to write
    told='reported, or what the thing is',
    tell='warn, or what it does',
    said='answer, latest, or what the thing is',
    asked='requested, query, or what the thing is',
    found='result, or what the thing is',
    promise='guarantee',
    promised='guaranteed',
    belief='prediction, probability',
    beliefs='predictions, probabilities',
    lot='shuffled, random',
    thin='skipped',
    thinned='skipped',
    played='run, simulated',
    plays='runs',
    play='run',
    act='operation',
    acts='operations',
)
WHOLE_NAMES = dict(
    hold_out='holdout or draw_holdout',
    held_out='holdout',
    Draws='Batch',
    Belief='Prediction',
    level='alpha or confidence',
    floor='uniform_share',
    most='max_items, or what the thing is',
    least='min_error, minimum, or what the thing is',
)
ON_DISK = {
    'pool/draw.py': 'hold_out',
    'triage/apply.py': 'held_out',
    'triage/holdout.py': 'held_out',
}
PHRASES = {  # in prose -> what to write
    r'teach(es)? the most|would teach|teaches? (it|a model|the model)': 'most informative',
    r'play(s|ed|ing)? (a )?campaigns?|campaigns? (is|are|was|were) played': 'run experiments',
    r'\bwhoever answers\b': 'your labelling function',
    r'\bpromis(e|es|ed|ing)\b': 'guarantee',
    r'\bby lot\b': 'at random',
    r'\bread off\b': 'inferred from',
    r'\bas ever\b': 'as usual',
    r'\b(a|one|the same|each|every) looks?\b|\blooks? at (a|an|the) items?\b': 'pass, prediction',
    r'\b(left|less) to chance\b|\b(drawn|chosen|picked|labelled) by chance\b': 'random sampling',
    r'\bthinned\b|\bthin channels\b': 'channels skipped',
    r'\bdraws are spent\b|\bspent draws\b': "the samples can't distinguish further items",
    r'\bdear\b': 'expensive',
    r'\bbeliefs?\b': 'prediction, probability',
    r'\b(is|are|was|were|be|being) (told|said) (of|to be|so)\b': 'reported, recorded',
    r'\bwhat (is|was|has been|had been) (said|told|asked)\b': 'answers, reports, requests',
    r'\bwrit(e|es|ing|ten) (it |them |this |each )?down\b': 'record',
    r'\bgo(es)? by\b': 'use',
    r'\bof which nothing is known\b': 'unlabelled, unknown',
    r'\bhold_out|held_out\b': 'holdout',
    r'\brules?\b(?= (asks?|chooses?|takes?|needs?|that asks?|for `by))': 'strategy',
}
IN_TESTS = {  # as well, in tests and benchmarks
    r'\b(?<!shape )(?<!batching )(?<!decision )rules?\b(?! out)': 'strategy, criterion',
    r'\b(told|tells?)\b': 'reports, shows, distinguishes',
    r'\bsaid\b': 'reported, labelled',
    r'\bwhoever\b': 'a person, a caller',
    r'\bstrangers?\b': 'items of another pool, other classes',
    r'\bby chance\b': 'at random',
}
PROSE = [(re.compile(p, re.I), new) for p, new in PHRASES.items()]
TESTS_PROSE = PROSE + [(re.compile(p, re.I), new) for p, new in IN_TESTS.items()]


def names_in(tree: ast.AST) -> Iterator[tuple[int, str, bool]]:
    "(line, name, whether it is an argument) of what code defines"
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
            yield node.lineno, node.name, True
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg, True
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id, False
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr, True


def old_name(name: str, argument: bool) -> str | None:
    "What to write in place of a name; None where it may stay"
    if argument and name in WHOLE_NAMES:
        return WHOLE_NAMES[name]
    parts = name.strip('_').lower().split('_')
    return next((NAMES[p] for p in parts if p in NAMES), None)


def prose_of(source: str) -> Iterator[tuple[int, str]]:
    "Comments and strings of code"
    middle = getattr(tokenize, 'FSTRING_MIDDLE', None)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING, middle):
            for i, line in enumerate(token.string.split('\n')):
                yield token.start[0] + i, line


def docstrings_of(tree: ast.AST) -> Iterator[tuple[int, str]]:
    kinds = ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef
    for node in ast.walk(tree):
        if isinstance(node, kinds) and (text := ast.get_docstring(node, clean=False)):
            for i, line in enumerate(text.split('\n')):
                yield node.body[0].lineno + i, line


def in_prose(lines: Iterator[tuple[int, str]], patterns=PROSE) -> Iterator[tuple[int, str, str]]:
    for number, line in lines:
        for pattern, new in patterns:
            if match := pattern.search(line):
                yield number, match[0], new


def in_code(source: str) -> Iterator[tuple[int, str, str]]:
    lines = ('pass' if line.startswith(('%', '!')) else line for line in source.split('\n'))
    source = '\n'.join(lines)
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a cell magic
        return
    for number, name, argument in names_in(tree):
        if (new := old_name(name, argument)) is not None:
            yield number, name, new
    yield from in_prose(prose_of(source))


def in_tests(source: str) -> Iterator[tuple[int, str, str]]:
    "Names of functions and classes, docstrings and comments"
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            name = node.name.replace('_found', '')  # as a verb: `test_the_file_is_found`
            if (new := old_name(name, True)) is not None:
                yield node.lineno, node.name, new
    yield from in_prose(docstrings_of(tree), TESTS_PROSE)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield from in_prose(iter([(token.start[0], token.string)]), TESTS_PROSE)


def left_in(file: Path) -> Iterator[tuple[str, str, str]]:
    "(place, old word, what to write) of a file"
    if file.suffix == '.py':
        read = in_tests if {'tests', 'benchmarks'} & set(file.parts) else in_code
        yield from ((f'{file}:{n}', *rest) for n, *rest in read(file.read_text('utf-8')))
    elif file.suffix == '.ipynb':
        for i, cell in enumerate(json.loads(file.read_text('utf-8'))['cells']):
            source = ''.join(cell['source'])
            if '#| export' in source or '#|export' in source:
                continue  # the module is checked
            lines = enumerate(source.split('\n'), 1)
            code = cell['cell_type'] == 'code'
            for n, *rest in in_code(source) if code else in_prose(lines):
                yield (f'{file}: cell {i}, line {n}', *rest)
    else:
        lines = enumerate(file.read_text('utf-8').split('\n'), 1)
        patterns = TESTS_PROSE if 'benchmarks' in file.parts else PROSE
        yield from ((f'{file}:{n}', *rest) for n, *rest in in_prose(lines, patterns))


def files_of(places: list[str]) -> Iterator[Path]:
    for place in places:
        path = Path(place)
        found = sorted(path.rglob('*')) if path.is_dir() else [path]
        for file in found:
            if file.suffix in ('.py', '.ipynb', '.md') and not set(NEVER) & set(file.parts):
                yield file


def main(places: list[str]) -> int:
    count = 0
    for file in files_of(places):
        kept = next((word for end, word in ON_DISK.items() if str(file).endswith(end)), None)
        for place, old, new in left_in(file):
            if old == kept:
                continue
            print(f'{place}: {old!r} -> {new}')
            count += 1
    print(f'{count} old words are left' if count else 'No old word is left')
    return int(count > 0)


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:] or [str(ROOT / p) for p in PLACES]))
