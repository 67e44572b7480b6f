"""Both reports in headless Chromium, at the widths of a desktop and a phone: no broken picture, no
overlapping title, no missing glyph, no error, and nothing is loaded.

Pictures of them are kept in `_screenshots`: look at them after a change"""

import contextlib

import matplotlib
import numpy as np
import pytest
from test_project import project, query, triaged
from test_report import EVIL, campaigns_of, pictures

from fastai_al.pool.pool import Pool
from jupyter import CHROMIUM, snapshot

pytest.importorskip('playwright')
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None, reason='no Chromium on this machine: apt-get install chromium'
    ),
]
matplotlib.use('Agg')
NAMES = ['猫', 'חתול שחור', 'قطة', 'γάτα', 'Straßenköter', EVIL, 'a' * 80]


def own_project(folder):
    "A project of pictures with names from all over the world"
    files = pictures(folder, 60, (32, 24))
    for i, name in enumerate(['猫の写真', 'חתול', 'a' * 90]):
        files[i] = files[i].rename(folder / f'{name}.png')
    pool = Pool(files, root=folder, db=folder / 'labels.db')
    pool.label(pool.draw_holdout(20), [NAMES[i % 3] for i in range(20)], annotator='anna')
    for r in range(6):
        accuracy = [0.3, 0.45, 0.6, 0.7, 0.75, 0.8][r]
        uids = query(
            pool, 5, by=NAMES[1] if r == 2 else 'badge', labelled=5 + 5 * r, accuracy=accuracy
        )
        pool.label(uids, [NAMES[(r + i) % 7] for i in range(5)], annotator=NAMES[r], seconds=3)
    pool.label(uids, [NAMES[(r + i) % 6] for i in range(5)], annotator=NAMES[0], seconds=4)
    pool.record_acquisition(pool.rows.index[:9], range(9, 0, -1), by='badge')
    return pool


@pytest.fixture(scope='module')
def reports(tmp_path_factory):
    "The two reports: of a project, and of a simulation"
    folder = tmp_path_factory.mktemp('reports')
    pool = own_project(folder)
    pool.report(folder / 'project.html', title=f'Katzen: {NAMES[1]} {NAMES[0]}', target=0.9)
    files = sorted(folder.glob('*.png'))
    truth = {f.name: NAMES[i % 7] for i, f in enumerate(files)}
    campaigns_of(
        lambda: Pool(files, root=folder), truth, (NAMES[0], NAMES[1], 'random'), seeds=3
    ).report(folder / 'simulation.html')
    triaged(project()).report(folder / 'triage.html')
    return folder


@contextlib.contextmanager
def shown(file, width):
    "A page with the report, and what it complained of or asked for"
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=CHROMIUM, args=['--no-sandbox', '--disable-dev-shm-usage']
        )
        try:
            page = browser.new_page(viewport=dict(width=width, height=900))
            page.complaints = []
            page.on('console', lambda m: page.complaints.append(m.text))
            page.on('pageerror', lambda e: page.complaints.append(str(e)))
            page.on('request', lambda r: page.complaints.append(r.url[:80]))
            page.goto(file.as_uri())
            yield page
        finally:
            browser.close()


# texts that lie over each other, among those of the page and of its tables
OVERLAPS = """() => {
    const boxes = [...document.querySelectorAll('h1, h2, h3, p, table, figure, li, .bar')]
        .filter(e => !e.querySelector('p, table, figure, li') && !e.closest('table table'))
        .map(e => [e, e.getBoundingClientRect()]).filter(([e, b]) => b.width && b.height)
    const over = []
    for (const [i, [a, p]] of boxes.entries()) for (const [b, q] of boxes.slice(i + 1)) {
        if (a.contains(b) || b.contains(a)) continue
        const w = Math.min(p.right, q.right) - Math.max(p.left, q.left)
        const h = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top)
        if (w > 1 && h > 1) over.push([a, b].map(e => e.textContent.slice(0, 40)))
    }
    return over }"""
# texts of a plot that lie over each other, when it is drawn as it is on the page
IN_PLOTS = """async () => {
    const over = []
    for (const img of document.images) {
        if (!img.src.startsWith('data:image/svg')) continue
        const holder = document.createElement('div')
        const bytes = Uint8Array.from(atob(img.src.split(',')[1]), c => c.charCodeAt(0))
        holder.innerHTML = new TextDecoder().decode(bytes).replace(/^[^]*?<svg/, '<svg')
        document.body.append(holder)
        const level = t => !/rotate.-?[1-9]/.test(t.getAttribute('transform'))
        const texts = [...holder.querySelectorAll('text')].filter(level)
        const boxes = texts.map(t => [t, t.getBoundingClientRect()])
        for (const [i, [a, p]] of boxes.entries()) for (const [b, q] of boxes.slice(i + 1)) {
            const w = Math.min(p.right, q.right) - Math.max(p.left, q.left)
            const h = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top)
            if (w > 2 && h > 4) over.push([a.textContent, b.textContent])
        }
        if (!texts.length) over.push('a plot without text: its letters are drawn')
        holder.remove()
    }
    return over }"""
# letters that are drawn as the same box as one that no font has
MISSING = """(names) => {
    const canvas = document.createElement('canvas'), context = canvas.getContext('2d')
    const drawn = c => {
        context.clearRect(0, 0, 300, 150); context.font = '40px system-ui, sans-serif'
        context.fillText(c, 20, 60); return canvas.toDataURL() }
    const none = drawn('\\u{10ffff}')
    return [...new Set(names.join(''))].filter(c => c.trim() && drawn(c) === none) }"""


@pytest.mark.parametrize('width', (1280, 390))
@pytest.mark.parametrize('name', ('project', 'simulation', 'triage'))
def test_a_report_is_whole(reports, name, width):
    with shown(reports / f'{name}.html', width) as page:
        broken = 'e => e.filter(i => !i.complete || !i.naturalWidth).length'
        assert page.locator('img').count() and page.eval_on_selector_all('img', broken) == 0
        assert page.evaluate('document.documentElement.scrollWidth') <= width, 'it scrolls sideways'
        assert page.evaluate(OVERLAPS) == []
        assert page.evaluate('window.hacked') is None
        text = page.locator('body').inner_text()
        assert '\ufffd' not in text and 'nan' not in text.split()
        page.screenshot(full_page=True, path=reports / f'{name}_{width}.png')
        assert [c for c in page.complaints if not c.startswith(('file:', 'data:'))] == []
        snapshot(page, f'report_{name}_{width}', 'body')
        if width == 1280:
            assert page.evaluate(IN_PLOTS) == []


def test_names_have_glyphs_where_the_machine_has_a_font(reports):
    with shown(reports / 'project.html', 1280) as page:
        missing = page.evaluate(MISSING, NAMES)
        here = page.locator('bdi', has_text=NAMES[1]).first
        assert here.evaluate('e => getComputedStyle(e).unicodeBidi') == 'isolate'
    fonts = {c for c in missing if ord(c) < 0x2E80}
    assert not fonts, f'the fonts of this machine lack {fonts}'
    assert np.isfinite(len(missing))
