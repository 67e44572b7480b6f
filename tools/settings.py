"""Copy from settings.ini what other files must repeat

python tools/settings.py    # `python tools/notebooks.py` runs it too

`setup.py` reads the version, the requirements and the extras from settings.ini itself. nbdev, ruff,
mypy, GitHub and `import fastai_al` can't, so these lines are written: the metadata and the Python
versions in pyproject.toml, `__version__`, CITATION.cff and the matrix of the workflow.
"""

import json
import re
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def settings() -> dict[str, str]:
    "What settings.ini says"
    config = ConfigParser(delimiters=['='])
    config.read(ROOT / 'settings.ini', encoding='utf-8')
    return dict(config['DEFAULT'])


def newest_release() -> tuple[str, str]:
    "The version and the date of the newest section of CHANGELOG.md that has a date"
    text = (ROOT / 'CHANGELOG.md').read_text('utf-8')
    found = re.search(r'^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)$', text, re.M)
    if not found:
        raise SystemExit('CHANGELOG.md has no section such as "## [0.14.0] - 2026-12-01".')
    return found[1], found[2]


def lines(said: dict[str, str]) -> dict[str, dict[str, str]]:
    "file -> the beginning of a line -> what follows it"
    lowest, pythons = said['min_python'], said['pythons'].split()
    released, date = newest_release()
    return {
        'pyproject.toml': {
            'name = ': json.dumps(said['lib_name']),
            'description = ': json.dumps(said['description']),
            'requires-python = ': json.dumps(f'>={lowest}'),
            'license = ': json.dumps(said['license']),
            'authors = ': f'[{{name = {json.dumps(said["author"])}}}]',
            'keywords = ': json.dumps(said['keywords'].split()),
            'target-version = ': json.dumps(f'py{lowest.replace(".", "")}'),
            'python_version = ': json.dumps(lowest),
        },
        f'{said["lib_name"]}/__init__.py': {'__version__ = ': repr(said['version'])},
        'CITATION.cff': {
            'title: ': json.dumps(f'{said["lib_name"]}: {said["description"]}'),
            'version: ': released,  # a development version is not cited
            'date-released: ': date,
            'license: ': said['license'],
        },
        '.github/workflows/ci.yml': {'        python: ': json.dumps(pythons)},
    }


def with_lines(text: str, wanted: dict[str, str], path: str) -> str:
    "`text` with each line that begins so ended so"
    for begin, end in wanted.items():
        text, found = re.subn(
            f'^{re.escape(begin)}.*$', lambda _, line=begin + end: line, text, flags=re.M
        )
        if found != 1:
            raise SystemExit(f'{path} has {found} lines that begin with {begin!r}, not one.')
    return text


def with_classifiers(text: str, pythons: list[str]) -> str:
    "pyproject.toml with one classifier for each supported Python"
    begin = '    "Programming Language :: Python :: 3.'
    kept = [line for line in text.split('\n') if not line.startswith(begin)]
    at = kept.index('    "Programming Language :: Python :: 3 :: Only",') + 1
    each = [f'    "Programming Language :: Python :: {python}",' for python in pythons]
    return '\n'.join([*kept[:at], *each, *kept[at:]])


def copies() -> dict[Path, str]:
    "file -> its text with what settings.ini says"
    said = settings()
    texts = {
        ROOT / path: with_lines((ROOT / path).read_text('utf-8'), wanted, path)
        for path, wanted in lines(said).items()
    }
    project = ROOT / 'pyproject.toml'
    texts[project] = with_classifiers(texts[project], said['pythons'].split())
    return texts


if __name__ == '__main__':
    for path, text in copies().items():
        if path.read_text('utf-8') != text:
            path.write_text(text, 'utf-8')
            print(f'{path.relative_to(ROOT)} is in step with settings.ini again')
