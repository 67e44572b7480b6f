"""Draw the packages and who imports whom, as the code has it

python tools/architecture.py           # write nbs/files/architecture.svg
python tools/architecture.py --check   # fail if it is out of step with the imports
"""

import ast
import sys
from argparse import ArgumentParser
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE, PICTURE = ROOT / 'fastai_al', ROOT / 'nbs' / 'files' / 'architecture.svg'
# package -> its question, and what it passes on, in the order in which they are drawn
ABOUT = {
    'core': ('Random numbers, checks, order of items', 'keys, exact restoring'),
    'pool': ('What is known of each item?', 'items and labels'),
    'posterior': ('Which networks are plausible?', 'tensors of draw k'),
    'tasks': ('What do outputs mean?', 'log_probs or values'),
    'acquisition': ('Which labels inform most?', 'scores, Selection'),
    'inference': ('What is predicted for each item?', 'Batch, features'),
    'acquire': ('Which items, in which order?', 'Query'),
    'evaluation': ('Can the uncertainty be trusted?', 'metrics per item'),
    'triage': ('Which items may be pseudo-labelled?', 'Triage, Certificate'),
    'loop': ('How do rounds follow, and when to stop?', 'rounds, estimates'),
    'annotate': ('How does a label get back?', 'labels'),
    'lab': ('Would this have saved labels?', 'verdict'),
    'active_learner': ('All of it in one class', 'ActiveLearner'),
}
WIDTH, HEIGHT, ROW, EDGE = 224, 62, 96, 12  # of a box; from row to row; around the picture


def imports() -> dict[str, set[str]]:
    "The other packages from which each package imports"
    found: dict[str, set[str]] = {name: set() for name in ABOUT}
    for file in PACKAGE.rglob('*.py'):
        parts = file.relative_to(PACKAGE).with_suffix('').parts
        if parts[0] not in ABOUT:
            continue
        for node in ast.walk(ast.parse(file.read_text('utf-8'))):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = parts[: len(parts) - node.level]
                there = (*base, *(node.module or '').split('.'))[0]
                if there in ABOUT and there != parts[0]:
                    found[parts[0]].add(there)
    return found


def below(name: str, found: dict) -> set[str]:
    "All packages that one rests on, through others too"
    return set().union(found[name], *(below(other, found) for other in found[name]))


def reduced(found: dict) -> dict[str, list[str]]:
    "The imports that do not follow from others"
    return {
        name: [o for o in ABOUT if o in there and not any(o in below(p, found) for p in there)]
        for name, there in found.items()
    }


def feedback(start: tuple, end: tuple) -> str:
    "The way of the labels, from a box back to another"
    x, y, u, v = start[0], start[1] + HEIGHT / 2, end[0] + WIDTH / 4, end[1] + HEIGHT
    return (
        f'<path d="M{x:g} {y:g}H{u + 40:g}Q{u:g} {y:g} {u:g} {y - 40:g}V{v:g}" fill="none" '
        'stroke="#2f6fb0" stroke-dasharray="5 4" marker-end="url(#end)"/>'
        f'<text x="{u + 60:g}" y="{y - 8:g}" fill="#2f6fb0">labels</text>'
    )


def drawn() -> str:
    "The picture"
    found = reduced(imports())
    depth: dict[str, int] = {}
    while len(depth) < len(found):
        for name, there in found.items():
            if all(o in depth for o in there):
                depth[name] = max((depth[o] + 1 for o in there), default=0)
    rows = [[n for n in ABOUT if depth[n] == i] for i in range(max(depth.values()) + 1)]
    widest = max(map(len, rows))
    width = widest * (WIDTH + 20) - 20 + 2 * EDGE
    at = {}
    for i, row in enumerate(rows):
        left = (width - len(row) * (WIDTH + 20) + 20) / 2
        at |= {name: (left + j * (WIDTH + 20), EDGE + i * ROW) for j, name in enumerate(row)}
    height = (len(rows) - 1) * ROW + HEIGHT + 2 * EDGE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" font-size="12">',
        '<title>Packages of fastai_al: an arrow leads to a package that imports</title>',
        '<defs><marker id="end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="#57606a"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for name, there in found.items():
        x, y = at[name]
        for other in there:
            u, v = at[other]
            start, end = (u + WIDTH / 2, v + HEIGHT), (x + WIDTH / 2, y)
            if depth[name] - depth[other] > 1:  # beside the row between them
                end = (x if u < x else x + WIDTH, y + HEIGHT / 2)
                turn = f'{start[0]:g} {end[1]:g} {start[0]:g} {end[1]:g}'
            else:
                middle = (start[1] + end[1]) / 2
                turn = f'{start[0]:g} {middle:g} {end[0]:g} {middle:g}'
            parts.append(
                f'<path d="M{start[0]:g} {start[1]:g}C{turn} {end[0]:g} {end[1]:g}" fill="none" '
                'stroke="#57606a" marker-end="url(#end)"/>'
            )
    parts.append(feedback(at['annotate'], at['pool']))
    for name, (x, y) in at.items():
        question, gives = ABOUT[name]
        middle = x + WIDTH / 2
        parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="#eef4fb" '
            f'stroke="#2f6fb0"/><text text-anchor="middle" fill="#1f2328">'
            f'<tspan x="{middle:g}" y="{y + 18:g}" font-weight="bold" font-size="14">{name}</tspan>'
            f'<tspan x="{middle:g}" y="{y + 36:g}" font-size="11">{escape(question)}</tspan>'
            f'<tspan x="{middle:g}" y="{y + 53:g}" font-size="11" fill="#2f6fb0">'
            f'{escape(gives)}</tspan></text>'
        )
    return '\n'.join([*parts, '</svg>', ''])


if __name__ == '__main__':
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--check', action='store_true', help='write nothing, fail if out of step')
    picture = drawn()
    if not parser.parse_args().check:
        PICTURE.write_text(picture, 'utf-8')
    elif not PICTURE.exists() or PICTURE.read_text('utf-8') != picture:
        sys.exit(f'{PICTURE.name} is out of step with the imports: run tools/architecture.py')
