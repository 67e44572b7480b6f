"""The page that is read after a simulation: everything in it, nothing run, whatever the items
and labels are"""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from fastai_al import __main__ as cli
from fastai_al.lab.page import without_folders
from fastai_al.lab.queried import _classes, first_queried
from fastai_al.lab.report import write_report
from fastai_al.lab.results import Campaigns
from fastai_al.pool.pool import Pool

matplotlib.use('Agg')
EVIL = '<img src=x onerror=alert(1)>$x_1$'


def rounds(strategies=('bald', 'random'), seeds=2, **columns):
    rows = [
        dict(
            by=by,
            seed=s,
            round=r,
            labelled=10 + 5 * r,
            valid_loss=1.0,
            accuracy=0.5 + 0.1 * r + 0.02 * r * (by == 'bald') + 0.01 * s,
            fit_seconds=2.0,
            acquire_seconds=0.5,
        )
        for by in strategies
        for s in range(seeds)
        for r in range(3)
    ]
    return pd.DataFrame(rows).assign(**columns)


def campaigns_of(make_pool, truth, strategies=('bald', 'random'), seeds=2, **columns):
    "Campaigns in which each strategy queried five items in each of two rounds"
    pools, uids = {}, list(truth)
    for i, by in enumerate(strategies):
        for seed in range(seeds):
            pool = pools[by, seed] = make_pool()
            for r in range(2):
                pool.record_acquisition(
                    [uids[(7 * i + 3 * seed + 5 * r + j) % len(uids)] for j in range(5)],
                    range(5, 0, -1),
                    by=by,
                )
    return Campaigns(rounds(strategies, seeds, **columns), pools, truth, dict(n=5, rounds=2))


def pictures(tmp_path, n=20, size=(9, 7)):
    files = [tmp_path / f'{i}.png' for i in range(n)]
    for f in files:
        Image.fromarray(np.random.randint(0, 255, (*size[::-1], 3), dtype=np.uint8)).save(f)
    return files


class Read(HTMLParser):
    "Tags, attributes and words of a page"

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.words = [], [], ''
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags, self.attributes = (
            [*self.tags, tag],
            self.attributes + [name for name, _ in attrs],
        )

    def handle_data(self, data):
        self.words += data + ' '


def read(campaigns, tmp_path, **kwargs):
    return Read(campaigns.report(tmp_path / 'r.html', **kwargs).read_text())


def test_a_page_of_pictures(tmp_path):
    files = pictures(tmp_path)
    campaigns = campaigns_of(
        lambda: Pool(files, root=tmp_path),
        {f.name: i % 3 for i, f in enumerate(files)},
        information=1.5,
        max_information=3.0,
        cost=7.0,
    )
    page = read(campaigns, tmp_path, how={'model': 'a tree'})
    for part in (
        'Results',
        'Pairwise comparison',
        'First query of each strategy',
        'Which classes were queried',
        'Joint information of each batch',
        'Time',
        'Settings',
        'too few for a significant result',
        'a tree',
        'rounds',
        'bald 1.50',
        'seconds of the oracle',
    ):
        assert part in page.words, part
    assert page.tags.count('img') == 3 + 2 * 5 and not {'script', 'link', 'iframe'} & set(page.tags)
    for said in campaigns.verdict():
        assert said in page.words


@pytest.mark.parametrize('strategies', [(EVIL, 'random'), ('bald', 'random')])
def test_nothing_of_others_is_run(tmp_path, strategies):
    texts = pd.DataFrame(
        dict(text=[f'{EVIL} {i}' for i in range(20)], id=[f'{EVIL}{i}' for i in range(20)])
    )
    campaigns = campaigns_of(
        lambda: Pool.from_df(texts, item='text', uid='id'),
        {f'{EVIL}{i}': [EVIL, r'$\frac{'][i % 2] for i in range(20)},
        strategies,
    )
    campaigns.settings = {EVIL: EVIL}
    campaigns.rounds['stopped'] = EVIL
    path = write_report(campaigns, tmp_path / 'r.html', title=EVIL, how={EVIL + '2': EVIL})
    page = Read(path.read_text())
    assert (
        'onerror' not in page.attributes
        and EVIL in page.words
        and '<script' not in path.read_text()
    )
    assert page.tags.count('img') == 2  # plots only
    assert f'{EVIL} 3' in page.words and not re.search(r'src="(?!data:)', path.read_text())


def test_rows_of_a_table_and_labels_of_several_classes(tmp_path):
    table = pd.DataFrame({f'c{i}': np.arange(40) + 0.25 for i in range(9)})
    truth = {str(i): [['a', 'b'], ['c'], []][i % 3] for i in range(40)}
    page = read(
        campaigns_of(
            lambda: Pool(table, item=list(table), uids=[str(i) for i in range(40)]), truth
        ),
        tmp_path,
    )
    assert (
        'c5: 3.25' in page.words
        and 'c6' not in page.words
        and 'a, b' in page.words
        and 'Which classes' in page.words
    )


def test_numbers_are_drawn_as_they_are_spread(tmp_path):
    pool = lambda: Pool([f'text {i}' for i in range(40)], uids=[str(i) for i in range(40)])
    page = read(
        campaigns_of(pool, {str(i): [1 / 3, np.nan][i == 30] + i for i in range(40)}), tmp_path
    )
    assert (
        'Which values' in page.words and '0.333333 ' in page.words and '0.3333333' not in page.words
    )
    assert (
        'Which classes'
        in read(campaigns_of(pool, {str(i): float(i % 3) for i in range(40)}), tmp_path).words
    )


def test_many_classes_and_labels_that_are_none(tmp_path):
    pool = lambda: Pool([f'text {i}' for i in range(90)], uids=[str(i) for i in range(90)])
    assert (
        '20 most frequent of 30 classes. Queried at least once: bald 13, random 13'
        in read(campaigns_of(pool, {str(i): f'class {i % 30}' for i in range(90)}), tmp_path).words
    )
    for label in (
        lambda i: f'mask{i}.png',
        lambda i: dict(box=[1, 2]),
        lambda i: [[1, 2, 3, 4]],
        lambda i: np.zeros(3),
        lambda i: [],
    ):
        assert (
            'Which'
            not in read(campaigns_of(pool, {str(i): label(i) for i in range(90)}), tmp_path).words
        )
    assert (
        _classes(True) == ['True'] and _classes(('a', 'b')) == ['a', 'b'] and _classes(None) is None
    )


def test_a_file_that_is_gone_holds_up_no_other(tmp_path):
    files = pictures(tmp_path)
    campaigns = campaigns_of(lambda: Pool(files, root=tmp_path), {f.name: 0 for f in files})
    files[0].unlink()
    files[1].write_bytes(b'no picture')
    page = read(campaigns, tmp_path)
    assert page.words.count(' can not be shown ') == 2 and page.tags.count('img') == 2 + 2 * 5 - 2


def test_why_items_can_not_be_shown_is_a_sentence(tmp_path):
    files = pictures(tmp_path)
    campaigns = campaigns_of(lambda: Pool(files, root=tmp_path), {f.name: 0 for f in files})
    files[0].unlink()
    files[1].write_bytes(EVIL.encode())
    page = read(campaigns, tmp_path)
    assert (
        "2 of 5 items can not be shown. The first is '0.png': FileNotFoundError: " in page.words
    )  # of bald; random asked for others
    assert page.words.count('items can not be shown') == 1
    for f in files:
        f.unlink(missing_ok=True)
    assert read(campaigns, tmp_path).words.count('5 of 5 items can not be shown') == 2


def shown_pictures(page):
    "The items' pictures that a page carries, decoded"
    rows = re.findall(r'<div class="items">(.*?)</div>', page, re.DOTALL)
    data = [re.findall(r'src="data:image/png;base64,([^"]+)"', row) for row in rows]
    return [[np.asarray(Image.open(io.BytesIO(base64.b64decode(d)))) for d in row] for row in data]


@pytest.mark.parametrize('absolute', (False, True), ids=('relative', 'absolute'))
def test_the_page_of_the_command_shows_its_digits(tmp_path, monkeypatch, absolute):
    "Into a folder that is named from the current one, as the first command of the README does"
    monkeypatch.chdir(tmp_path)
    out = tmp_path / 'al_digits' if absolute else Path('al_digits')
    short = '--rounds 1 --seeds 1 --steps 3 --n 4 --jobs 1 --by bald,random'.split()
    cli.main([*short, '--out', str(out)])
    page = Path('al_digits/report.html').read_text()
    rows = shown_pictures(page)
    assert 'can not be shown' not in page and [len(row) for row in rows] == [4, 4]
    digits = {(x * 255 / 16).astype(np.uint8).tobytes() for x in load_digits().images}
    assert all(picture.tobytes() in digits for row in rows for picture in row)


@pytest.mark.parametrize('away', (False, True))
def test_relative_items_and_a_relative_root(tmp_path, monkeypatch, away):
    """Paths from the current folder, strings from the root; nested, and with the root above the
    current folder"""
    folder = tmp_path / 'here' / 'photos'
    folder.mkdir(parents=True)
    names = [f.name for f in pictures(folder)]
    monkeypatch.chdir(tmp_path / 'here')
    root = Path('..') if away else Path('photos')
    items = [Path('photos') / name for name in names]
    for pool in (
        lambda: Pool(items, root=root),
        lambda: Pool([f'here/photos/{n}' if away else n for n in names], root=root),
    ):
        page = campaigns_page(pool, tmp_path)
        assert 'can not be shown' not in page and [len(row) for row in shown_pictures(page)] == [
            5,
            5,
        ]


def campaigns_page(make_pool, tmp_path):
    truth = {u: 0 for u in make_pool().rows.index}
    return campaigns_of(make_pool, truth).report(tmp_path / 'r.html').read_text()


def test_without_pools_seeds_or_seconds(tmp_path):
    page = read(Campaigns(rounds(), {}, {}), tmp_path)
    assert (
        'queried' not in page.words and 'Settings' not in page.words and page.tags.count('img') == 1
    )
    bare = rounds(seeds=1)[['by', 'seed', 'round', 'labelled', 'accuracy']]
    page = read(Campaigns(bare, {}, {}), tmp_path)
    assert 'Pairwise comparison' not in page.words and 'Time' not in page.words
    assert (
        'nothing to compare with'
        in read(Campaigns(bare[bare['by'] == 'bald'], {}, {}), tmp_path).words
    )
    read(Campaigns(bare.assign(accuracy=np.nan), {}, {}), tmp_path)
    assert len(first_queried(Campaigns(bare, {}, {}), 'bald')) == 0


def test_seven_strategies(tmp_path):
    strategies = [*(f'strategy{i}' for i in range(6)), 'random']
    pool = lambda: Pool([f'text {i}' for i in range(30)], uids=[str(i) for i in range(30)])
    page = read(
        campaigns_of(pool, {str(i): i % 12 for i in range(30)}, strategies, seeds=3), tmp_path
    )
    assert page.tags.count('h3') == 7 and page.tags.count('figure') == 35


def test_what_was_queried_first():
    truth = {str(i): i % 2 for i in range(20)}
    campaigns = campaigns_of(
        lambda: Pool([f'text {i}' for i in range(20)], uids=list(truth)), truth
    )
    asked = first_queried(campaigns, 'random', 3)
    assert (
        list(asked.uid) == ['7', '8', '9']
        and list(asked.score) == [5, 4, 3]
        and list(asked.label) == [1, 0, 1]
    )


def test_nothing_is_left_drawn(tmp_path):
    import matplotlib.pyplot as plt

    plt.close('all')
    files = pictures(tmp_path)
    read(
        campaigns_of(
            lambda: Pool(files, root=tmp_path),
            {f.name: dict(box=1) for f in files},
            information=1.0,
            max_information=2.0,
        ),
        tmp_path,
    )
    assert not plt.get_fignums()


SECRET = b'48.858 2.294 at home'


def with_metadata(file, size=(40, 30)):
    "A photo as a telephone writes it: where, when, and with what"
    exif = Image.Exif()
    exif[0x010F], exif[0x8825] = SECRET.decode(), {0x001D: SECRET.decode()}  # the maker, GPS
    Image.fromarray(np.random.randint(0, 255, (*size[::-1], 3), dtype=np.uint8)).save(
        file, exif=exif, comment=SECRET
    )
    assert SECRET in file.read_bytes()


def bytes_in(page: str) -> bytes:
    "The page, and what its pictures hold"
    return page.encode() + b''.join(
        base64.b64decode(found) for found in re.findall(r'base64,([^"]+)"', page)
    )


def test_pictures_in_a_page_keep_nothing_of_their_files(tmp_path):
    files = [tmp_path / f'photo-{i}.jpg' for i in range(20)]
    for f in files:
        with_metadata(f)
    campaigns = campaigns_of(
        lambda: Pool(files, root=tmp_path), {f.name: 'ab'[i % 2] for i, f in enumerate(files)}
    )
    for names in (True, False):
        everything = bytes_in(campaigns.report(tmp_path / 'r.html', names=names).read_text())
        assert (
            everything.count(b'<figure><img') == 10
            and SECRET not in everything
            and b'photo-' not in everything
            and str(tmp_path).encode() not in everything
        )


def test_no_folder_of_the_machine_is_in_a_page(tmp_path):
    folder = tmp_path / 'of anna'
    folder.mkdir()
    files = [folder / f'photo-{i}.png' for i in range(20)]
    for f in files[1:]:
        Image.new('L', (8, 8)).save(f)
    (folder / 'photo-1.png').write_text('no picture')
    pools = [
        lambda: Pool(files, root=folder),
        lambda: Pool(files),
        lambda: Pool.from_df(
            pd.DataFrame(dict(sound=[str(f.with_suffix('.wav')) for f in files], x=0)),
            'x',
            uid='sound',
        ),
        lambda: Pool([str(f.with_suffix('.wav')) for f in files]),
    ]
    for make in pools:
        campaigns = campaigns_of(make, dict.fromkeys(make().rows.index, 'a'))
        words = campaigns.report(tmp_path / 'r.html').read_text()
        assert 'of anna' not in words and str(tmp_path) not in words and 'photo-' in words
        without = campaigns.report(tmp_path / 'r.html', names=False).read_text()
        assert 'of anna' not in without and (
            'photo-' not in without or make is pools[3]
        )  # there the text itself is the item
    assert 'can not be shown. The first is' in words or 'photo-0.wav' in words


def test_masks_are_not_named_either(tmp_path):
    files = pictures(tmp_path)
    campaigns = campaigns_of(
        lambda: Pool(files, root=tmp_path), {f.name: f'.masks/{f.name}.0123.png' for f in files}
    )
    assert '.masks' not in campaigns.report(tmp_path / 'r.html', names=False).read_text()


def test_people_are_numbered_where_no_names_are_shown(tmp_path):
    def answered():
        pool = Pool([f'text {i}' for i in range(20)])
        pool.label('text 0', 'a', annotator='Annabelle Smith')
        pool.label('text 0', 'b', annotator='Annabelle')
        return pool

    campaigns = campaigns_of(answered, {f'text {i}': 'ab'[i % 2] for i in range(20)})
    campaigns.settings['oracle'] = (
        'Oracle of 20 items: Annabelle (noise .1), Annabelle Smith (noise .2)'
    )
    shown = read(campaigns, tmp_path).words
    hidden = read(campaigns, tmp_path, names=False).words
    assert (
        'Annabelle Smith' in shown
        and 'Annabelle' not in hidden
        and 'annotator 2 (noise .1), annotator 1 (noise .2)' in hidden
    )


@pytest.mark.parametrize(
    'text, there',
    [
        (
            "FileNotFoundError: [Errno 2] No such file or directory: '/home/anna/my data/x.png'",
            "FileNotFoundError: [Errno 2] No such file or directory: 'x.png'",
        ),
        (r"cannot open 'C:\Users\anna\x.png'", "cannot open 'x.png'"),
        (r"cannot open '\\server\share\x.png'", "cannot open 'x.png'"),
        ('1/2 of a/b.png, see https://x.org/a/b', '1/2 of a/b.png, see https://x.org/a/b'),
    ],
)
def test_a_message_without_folders(text, there):
    assert without_folders(text) == there
