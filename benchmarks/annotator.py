"""How many keys and seconds does a label take in the annotator?

`python benchmarks/annotator.py` prints it and rewrites its part of benchmarks/RESULTS.md;
`--before folder` names a checkout of an earlier version, to compare with

A script labels in a real JupyterLab, in headless Chromium. It presses the fewest keys that it
finds on the screen: a digit if the class shows one, else letters until the class is the first
match. The seconds are those of the panel, from the first key of an item until the next item
shows; the script does not think. For a person the keystroke-level model of Card, Moran and Newell
(1980) is added: 0.2 s for a key, 1.1 s to point with the mouse, 0.1 s for each press or release
of its button."""

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / 'tests'))
from jupyter import finish_cell, jupyter_lab, opened, run_cell, write_notebook
from results import write_section

KEY, POINT, BUTTON = 0.2, 1.1, 0.1  # seconds of a person
ITEMS = 12
SETUP = """
import numpy as np
from PIL import Image
from pathlib import Path
from fastai_al.pool.pool import Pool
from fastai_al.annotate.annotator import Annotator
root = Path('pictures'); root.mkdir(exist_ok=True)
names = [f'{i:03}.png' for i in range(12)]
for i, name in enumerate(names):
    rings = np.hypot(*np.mgrid[-20:44, -30:34])[..., None] * [3, 2, i % 5]
    Image.fromarray(rings.clip(0, 255).astype(np.uint8)).save(root / name)
ask = lambda kind, **kw: Annotator(Pool(names, root=root), names, kind=kind, **kw)
"""
SYLLABLES = 'ba co di fe ga ho ju ka lo mi ne po qui ra su ti vo wa xe zu'.split()


def class_names(n: int) -> list[str]:
    "Names of three syllables, in the order of the alphabet"
    draw, names = random.Random(n), set()
    while len(names) < n:
        names.add(''.join(draw.choices(SYLLABLES, k=3)).capitalize())
    return sorted(names)


def wanted(names: list[str]) -> list[str]:
    "The classes of the items: some are frequent, as in most data (Zipf)"
    draw = random.Random(1)
    shuffled = draw.sample(names, len(names))
    return draw.choices(shuffled, [1 / (i + 1) for i in range(len(names))], k=ITEMS)


class Person:
    "Presses and points, and counts it"

    def __init__(self, page):
        self.page, self.keys, self.points, self.buttons = page, 0, 0, 0

    def press(self, *keys: str):
        for key in keys:
            self.page.keyboard.press(key)
            self.keys += 1

    def drag(self, a: tuple, b: tuple):
        "Drag from a to b, in shares of the image; a click if they are equal"
        box = self.page.locator('.fal-canvas').bounding_box()
        at = lambda p: (box['x'] + p[0] * box['width'], box['y'] + p[1] * box['height'])
        self.page.mouse.move(*at(a))
        self.page.mouse.down()
        if a != b:
            self.page.mouse.move(*at(b), steps=3)
        self.page.mouse.up()
        self.points += 1 + (a != b)
        self.buttons += 2

    def choose(self, name: str):
        "Choose a class by its digit, else by its name"
        button = self.page.locator('.fal-class').filter(has_text=name).first
        digits = [k for k in button.locator('.fal-key').all_inner_texts() if k.isdigit()]
        if digits and button.is_visible():
            return self.press(digits[0])
        if self.page.evaluate("document.activeElement.className !== 'fal-search'"):
            self.press('/')  # before 0.15, letters were commands
        for letter in name.lower():
            self.press(letter)
            first = self.page.locator('.fal-first:visible')
            if first.count() and first.first.inner_text().split('\n')[0] == name:
                break
        self.press('Enter')


BOX = "{'boxes': [[8, 8, 40, 40]], 'labels': ['cell']}"


def tasks(corners_move: bool) -> dict:
    "What is done: how the panel is made, and the answer to item i"
    some, many = class_names(60), class_names(1000)
    of_some, of_many = wanted(some), wanted(many)

    def class_of(names):
        return lambda person, i: person.choose(names[i])

    def correct(person, i):
        person.drag((0.3, 0.3), (0.3, 0.3))
        if corners_move:
            person.drag((40 / 64, 40 / 64), (50 / 64, 52 / 64))
        else:
            person.press('Delete')
            person.drag((8 / 64, 8 / 64), (50 / 64, 52 / 64))
        person.press('Enter')

    def two_boxes(person, i):
        person.drag((0.1, 0.1), (0.4, 0.5))
        person.drag((0.5, 0.5), (0.9, 0.9))
        person.press('Enter')

    def paint(person, i):
        person.drag((0.2, 0.5), (0.8, 0.5))
        person.press('Enter')

    return {
        'one of 3 classes': (
            "ask('class', classes=['cat', 'dog', 'fox'])",
            lambda p, i: p.press('2'),
        ),
        'the guess is right': (
            "ask('class', classes=['cat', 'dog'], guesses=dict.fromkeys(names, 'cat'))",
            lambda p, i: p.press('a'),
        ),
        'one of 60 classes': (f"ask('class', classes={some})", class_of(of_some)),
        'one of 1,000 classes': (f"ask('class', classes={many})", class_of(of_many)),
        'two labels of 8': (
            "ask('labels', classes=list('abcdefgh'))",
            lambda p, i: p.press('2', '5', 'Enter'),
        ),
        'a number': ("ask('value')", lambda p, i: p.press(*'12.5', 'Enter')),
        'a word': ("ask('text')", lambda p, i: p.press(*'good', 'Enter')),
        'two boxes': ("ask('boxes', classes=['cell', 'dot'])", two_boxes),
        "a model's box corrected": (
            f"ask('boxes', classes=['cell', 'dot'], guesses=dict.fromkeys(names, {BOX}))",
            correct,
        ),
        'a mask of one stroke': ("ask('mask', classes=['ground', 'cell'])", paint),
    }


def label(page, answer) -> tuple[Person, float]:
    "Answer all items; what was pressed, and the median seconds of an item"
    person, took = Person(page), []
    for i in range(ITEMS):
        page.wait_for_selector(f'.fal[data-place="{i}"]:not([data-pending])', timeout=30_000)
        start = time.perf_counter()
        answer(person, i)
        there = f'[data-place="{i + 1}"]:not([data-pending])' if i + 1 < ITEMS else '[data-ended]'
        page.wait_for_selector('.fal' + there, timeout=30_000)
        took.append(time.perf_counter() - start)
    return person, statistics.median(took)


def measure(code: Path | None) -> dict[str, tuple[float, float, float, float]]:
    "For each task: keys, pointer actions, seconds of the panel and of the model, for a label"
    if code is not None:
        os.environ['PYTHONPATH'] = str(code)
    new = code is None or (code / 'fastai_al' / 'annotate' / 'panel').exists()
    found, jobs = {}, tasks(corners_move=new)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write_notebook(folder / 'b.ipynb', [SETUP, *(cell for cell, _ in jobs.values())])
        with jupyter_lab(folder) as address, opened(address, 'b.ipynb') as page:
            finish_cell(page, 0)
            for cell, (name, (_, answer)) in enumerate(jobs.items(), 1):
                page.evaluate("document.querySelectorAll('.fal').forEach(e => e.remove())")
                run_cell(page, cell)
                page.wait_for_selector('.fal[data-place="0"]', timeout=180_000)
                page.wait_for_function(
                    "document.querySelector('.fal').contains(document.activeElement)"
                )
                page.wait_for_timeout(1200)  # until the notebook has scrolled
                person, seconds = label(page, answer)
                model = KEY * person.keys + POINT * person.points + BUTTON * person.buttons
                found[name] = (
                    person.keys / ITEMS,
                    person.points / ITEMS,
                    seconds,
                    model / ITEMS,
                )
    return found


def rows(now: dict, before: dict | None) -> list[str]:
    "The lines of the table"

    def cells(keys, points, took, model):
        pointed = f', {points:.2g} points' if points else ''
        return f' {keys:.3g} keys{pointed} | {took:.2f} s | {model:.1f} s |'

    return [
        f'| {name} |' + (cells(*before[name]) if before else ' | | |') + cells(*found)
        for name, found in now.items()
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--before', type=Path, help='a checkout of an earlier version')
    args = parser.parse_args()
    now = measure(Path(__file__).resolve().parents[1])
    before = measure(args.before.resolve()) if args.before else None
    write_section(
        'The annotator: keys and seconds for a label',
        'annotator.py --before 0.14.0' if before else 'annotator.py',
        rows(now, before),
        '| answer | 0.14.0 | panel | person | now | panel | person |',
    )


if __name__ == '__main__':
    main()
