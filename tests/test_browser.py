"The annotator in a real JupyterLab with a real kernel, in headless Chromium. Pictures of it are kept in `_screenshots`: look at them after a change"
import os
import random
import signal
import statistics

import pytest

from fastai_al.ledger import Ledger
from jupyter import CHROMIUM, jupyter_lab, opened, run_cell, snapshot, write_notebook

pytest.importorskip('playwright')
pytest.importorskip('anywidget')
pytest.importorskip('jupyterlab')
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason='no Chromium on this machine: apt-get install chromium')]

PAYLOAD = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
SETUP = '''
import os
import numpy as np
from PIL import Image
from pathlib import Path
from fastai_al.pool import Pool
from fastai_al.annotate.annotator import Annotator
root = Path('pictures'); root.mkdir(exist_ok=True)
for i in range(200):
    if not (root/f'{i:03}.png').exists(): Image.fromarray((np.hypot(*np.mgrid[-20:44, -30:34])[..., None] * [3, 2, i % 5]).clip(0, 255).astype(np.uint8)).save(root/f'{i:03}.png')
pool, names = Pool.from_folder(root, db='labels.db'), [f'{i:03}.png' for i in range(200)]
Path('pid').write_text(str(os.getpid()))
'''


@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp('lab')
    with jupyter_lab(folder) as address: yield address, folder


def shown(page, place):
    try: page.wait_for_selector(f'.fal[data-place="{place}"]:not([data-pending])', timeout=20_000)
    except Exception as e: raise AssertionError(f'Item {place} does not show; the page says: {page.locator(".fal-status").inner_text()}') from e


def said(folder, db='labels.db'): return [(e.uid, e.kind, e.label) for e in Ledger(folder/db).since() if e.kind != 'add']


def start(page, cell=1):
    run_cell(page, 0)
    run_cell(page, cell)
    page.wait_for_selector('.fal[data-place], .fal[data-ended]', timeout=60_000)
    page.wait_for_function("document.querySelector('.fal').contains(document.activeElement)")     # without touching the mouse


def test_two_hundred_keys_in_a_row(lab):
    address, folder = lab
    classes = ['ant', 'bee', 'cat', PAYLOAD]
    write_notebook(folder/'row.ipynb', [SETUP, f"Annotator(pool, names, by='anna', classes={classes!r})"])
    keys = random.Random(0).choices('1234', k=200)
    with opened(address, 'row.ipynb') as page:
        start(page)
        page.evaluate("""() => { const root = document.querySelector('.fal'); window.took = []
            root.addEventListener('keydown', () => { window.pressed = performance.now() }, true)
            new MutationObserver(() => { if (root.dataset.place !== undefined || root.dataset.ended) window.took.push(performance.now() - window.pressed) }).observe(root, {attributes: true, attributeFilter: ['data-place', 'data-ended']}) }""")
        for i, key in enumerate(keys[:100]):                  # as a person does: the next key when the next item shows
            shown(page, i)
            page.keyboard.press(key)
        page.wait_for_selector('.fal[data-place="100"]')
        took = [t for t in page.evaluate('window.took') if t > 0]
        for key in keys[100:]: page.keyboard.press(key)       # faster than anybody types, and than items are fetched
        page.wait_for_selector('.fal[data-ended]', timeout=60_000)
        snapshot(page, 'two_hundred')
        assert page.evaluate('window.hacked') is None
        assert page.abroad == []
    assert said(folder) == [(f'{i:03}.png', 'label', classes[int(k) - 1]) for i, k in enumerate(keys)]
    assert statistics.median(took) < 100, statistics.median(took)       # milliseconds from the key to the next item


def test_a_killed_kernel_loses_nothing(lab):
    address, folder = lab
    asked = "Annotator(pool, names[:5], by='ben', classes=['cat', 'dog', 'fox'], guesses={'001.png': 'fox', '002.png': 'dog'})"
    write_notebook(folder/'killed.ipynb', [SETUP.replace('labels.db', 'killed.db'), asked])
    with opened(address, 'killed.ipynb') as page:
        start(page)
        page.keyboard.press('d')                                               # the letter that 'dog' shows
        shown(page, 1)
        page.locator('.fal-class', has_text='cat').click()                     # the mouse
        shown(page, 2)
        page.keyboard.press('Backspace')
        shown(page, 1)
        page.keyboard.press('a')                                               # the guess, a fox
        shown(page, 2)
        page.keyboard.press('f')
        page.wait_for_selector('.fal-command[aria-pressed=true]')
        page.keyboard.press('x')                                               # no dog: which one?
        page.wait_for_selector('.fal-struck')
        page.keyboard.press('h')
        snapshot(page, 'help')
        os.kill(int((folder/'pid').read_text()), signal.SIGKILL)
        page.keyboard.press('1')
        page.wait_for_selector('.fal-alarm', timeout=10_000)                   # not saved, and it says so
        snapshot(page, 'kernel_gone')
    expected = [('000.png', 'label', 'dog'), ('001.png', 'label', 'cat'), ('001.png', 'retract', None), ('001.png', 'label', 'fox'), ('002.png', 'flag', True)]
    assert said(folder, 'killed.db') == expected
    with opened(address, 'killed.ipynb') as page:                              # with a new kernel
        start(page)
        shown(page, 2)
        page.keyboard.press('Backspace')                                       # an undo reaches back over the restart
        page.wait_for_selector('.fal:not([data-pending])')
        page.keyboard.press('ArrowLeft')
        shown(page, 1)
        page.keyboard.press('ArrowRight')
        shown(page, 2)
        for i, key in enumerate([' ', 'i', '3'], 3):
            page.keyboard.press(key)
            shown(page, i) if i < 5 else page.wait_for_selector('.fal[data-ended]')
    assert said(folder, 'killed.db') == expected + [('002.png', 'flag', False), ('002.png', 'skip', None), ('003.png', 'ignore', None), ('004.png', 'label', 'fox')]


def drag(page, a, b):
    box = page.locator('.fal-canvas').bounding_box()
    at = lambda p: (box['x'] + p[0] * box['width'], box['y'] + p[1] * box['height'])
    page.mouse.move(*at(a)); page.mouse.down(); page.mouse.move(*at(b), steps=5); page.mouse.up()


def test_every_kind_of_answer(lab):
    address, folder = lab
    cells = [SETUP.replace('labels.db', 'kinds.db') + f"texts = Pool([{PAYLOAD!r}, 'Good morning.'], db='texts.db'); rows = __import__('pandas').DataFrame(dict(patient=['a', 'b'], note=[{PAYLOAD!r}, 'well'])); rows = Pool.from_df(rows, 'patient', db='rows.db')",
             "Annotator(pool, names[:2], kind='boxes', classes=['cell', 'dot'])", "Annotator(Pool.from_folder(root, db='masks.db'), names[:2], kind='mask', classes=['ground', 'cell'])",
             "Annotator(texts, list(texts.unlabelled.index), kind='text')", "Annotator(rows, ['a', 'b'], kind='value')", "Annotator(Pool(['b'], db='several.db'), ['b'], kind='labels', classes=['old', 'ill', 'new'], by='cleo')",
             "Annotator(texts, ['Good morning.'], kind='class', classes=[f'class {i}' for i in range(30)] + ['zebra'], by='cleo')"]
    write_notebook(folder/'kinds.ipynb', cells)
    def finished():
        page.wait_for_selector('.fal[data-ended]')
    def ask(i):
        page.evaluate("document.querySelectorAll('.fal').forEach(e => e.remove())")
        run_cell(page, i)
        shown(page, 0)
        page.wait_for_function("document.querySelector('.fal').contains(document.activeElement)")
    with opened(address, 'kinds.ipynb') as page:
        start(page)
        page.keyboard.press('2')
        drag(page, (.25, .25), (.75, .5))
        snapshot(page, 'boxes')
        page.keyboard.press('Enter')
        shown(page, 1)
        drag(page, (.5, .5), (.9, .9))
        page.keyboard.press('Delete')
        page.keyboard.press('Enter')
        finished()
        ask(2)
        drag(page, (.2, .5), (.8, .5))
        snapshot(page, 'mask')
        page.keyboard.press('Enter')
        shown(page, 1)
        drag(page, (.2, .5), (.8, .5))
        page.keyboard.press('Backspace')               # the stroke goes
        page.keyboard.press('Enter')
        finished()
        ask(3)
        assert page.locator('.fal-stage').inner_text() == PAYLOAD
        page.keyboard.type('h i: a fax')                # letters of commands are letters here
        page.keyboard.press('Enter')
        shown(page, 1)
        page.keyboard.type('Hello')
        page.keyboard.press('Enter')
        finished()
        ask(4)
        assert PAYLOAD in page.locator('.fal-stage').inner_text()
        snapshot(page, 'row')
        page.keyboard.type('-1.5e2')
        page.keyboard.press('Enter')
        shown(page, 1)
        page.keyboard.press('i')
        finished()
        ask(5)
        for key in ('1', '3', '1', 'Enter'): page.keyboard.press(key)
        finished()
        ask(6)
        page.keyboard.press('z')
        page.wait_for_selector('.fal-first')
        snapshot(page, 'search')
        page.keyboard.press('Enter')
        finished()
        assert page.evaluate('window.hacked') is None
        assert page.abroad == []
    ((_, _, boxes), (_, _, none)), ((_, _, painted), (_, _, bare)) = said(folder, 'kinds.db'), said(folder, 'masks.db')
    assert boxes['labels'] == ['dot'] and boxes['boxes'][0] == pytest.approx([16, 16, 48, 32], abs=.6)
    assert none == {'boxes': [], 'labels': []}
    from PIL import Image
    mask = Image.open(folder/'pictures'/painted)
    assert mask.size == (64, 64) and mask.getpixel((32, 32)) == 1 and mask.getpixel((32, 10)) == 0
    assert Image.open(folder/'pictures'/bare).getextrema() == (0, 0)
    assert said(folder, 'texts.db') == [(PAYLOAD, 'label', 'h i: a fax'), ('Good morning.', 'label', 'Hello'), ('Good morning.', 'label', 'zebra')]
    assert said(folder, 'rows.db') == [('a', 'label', -150.), ('b', 'ignore', None)]
    assert said(folder, 'several.db') == [('b', 'label', ['new'])]
