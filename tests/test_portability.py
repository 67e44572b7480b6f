"What is true on Linux must be so on Windows and macOS, and a ledger may move between them"

import ast
import builtins
import multiprocessing
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import pandas as pd
import pytest
from fastai.data.block import CategoryBlock, DataBlock
from fastai.learner import Learner
from fastai.vision.data import ImageBlock
from PIL import Image
from torch import nn

import fastai_al
from fastai_al import FastaiALWarning
from fastai_al.annotate.labelstudio.exchange import from_label_studio
from fastai_al.core.batches import in_order
from fastai_al.lab.results import Campaigns
from fastai_al.lab.simulate import simulate
from fastai_al.pool import files
from fastai_al.pool.events import Event
from fastai_al.pool.files import (
    NETWORK_FILE_SYSTEMS,
    _mounts_of_linux,
    _mounts_of_macos,
    _on_share,
    exclusive_lock,
    file_system,
    sqlite_uri,
)
from fastai_al.pool.ledger import Ledger
from fastai_al.pool.masks import mask_label, read_mask, write_mask
from fastai_al.pool.pool import Pool
from fastai_al.pool.sources import check_one_file_each, file_at, uid_of

SPAWN = multiprocessing.get_context('spawn')


# Processes that begin anew


def label_some(db, uids):
    pool = Pool.open(db)
    for u in uids:
        pool.label(u, 'cat', annotator='another process')
    pool.close()


def test_processes_that_begin_anew_write_to_one_ledger(tmp_path):
    db = tmp_path / 'labels.db'
    pool = Pool(range(40), db=db)
    others = [
        SPAWN.Process(target=label_some, args=(str(db), [str(i) for i in range(k, 40, 3)]))
        for k in range(2)
    ]
    for p in others:
        p.start()
    for u in range(2, 40, 3):
        pool.label(u, 'dog', annotator='this one')
    for p in others:
        p.join(120)
    assert [p.exitcode for p in others] == [0, 0] and pool.counts()['labelled'] == 40
    assert pool.ledger.db.execute('PRAGMA integrity_check').fetchone() == ('ok',)


def picture_pool(tmp_path, n=12, **kwargs):
    for i in range(n):
        Image.new('RGB', (8, 8), (20 * i, 0, 0)).save(tmp_path / f'{i:02}.png')
    pool = Pool.from_folder(tmp_path, **kwargs)
    pool.label(pool.sample(8), list('abababab'))
    held = pool.draw_holdout(2)
    pool.label(held, ['a', 'b'])
    return pool


def test_workers_that_begin_anew_read_what_this_process_reads(tmp_path):
    pool = picture_pool(tmp_path, db=tmp_path / 'labels.db')
    dls = pool.dataloaders(
        DataBlock((ImageBlock, CategoryBlock(vocab=['a', 'b']))), bs=4, num_workers=0
    )
    Learner(dls, nn.Sequential(nn.Flatten(), nn.Linear(192, 2)))
    dl = dls.test_dl(pool.rows)
    here = [b[0].cpu().numpy() for b in in_order(dl, list(range(5, -1, -1)))[0]]
    new, places = in_order(dl, list(range(5, -1, -1)))
    new.fake_l.num_workers = 1
    method = multiprocessing.get_start_method()
    multiprocessing.set_start_method('spawn', force=True)  # as on Windows and macOS
    try:
        there = [b[0].cpu().numpy() for b in new]
    finally:
        multiprocessing.set_start_method(method, force=True)
    assert places == [5, 4, 3, 2, 1, 0]
    np.testing.assert_array_equal(np.concatenate(there), np.concatenate(here))


# Files that are open: Windows neither deletes nor replaces them


@pytest.fixture
def windows(monkeypatch):
    "Files that this process has open can be neither deleted nor replaced"
    if not os.path.isdir('/proc/self/fd'):
        pytest.skip('which files are open is told by /proc')

    def is_open(path):
        return any(
            os.path.realpath(f'/proc/self/fd/{fd}') == os.path.realpath(path)
            for fd in os.listdir('/proc/self/fd')
        )

    def guarded(real, of):
        def refusing(*args, **kwargs):
            for path in of(*args):
                if is_open(path):
                    raise PermissionError(
                        13,
                        'The process cannot access the file because it is being used by another '
                        'process',
                        str(path),
                    )
            return real(*args, **kwargs)

        return refusing

    for name, of in dict(
        unlink=lambda p: [p],
        remove=lambda p: [p],
        replace=lambda a, b: [a, b],
        rename=lambda a, b: [a, b],
    ).items():
        monkeypatch.setattr(os, name, guarded(getattr(os, name), of))


def test_the_guard_guards(windows, tmp_path):
    with open(tmp_path / 'a', 'w'):
        for call in (
            lambda: (tmp_path / 'a').unlink(),
            lambda: os.replace(tmp_path / 'a', tmp_path / 'b'),
            lambda: (tmp_path / 'a').replace(tmp_path / 'b'),
        ):
            with pytest.raises(PermissionError):
                call()
    (tmp_path / 'a').unlink()


def test_the_life_of_a_ledger_where_open_files_stay(windows, tmp_path):
    pool = Pool(range(20), db=tmp_path / 'labels.db')
    other = Pool.open(tmp_path / 'labels.db')
    for u in range(10):
        pool.label(u, 'cat', annotator='Annabelle')
    pool.copy_to(tmp_path / 'copy.db')
    pool.copy_to(tmp_path / 'copy.db')  # in place of the first
    assert pool.forget(annotator='Annabelle') == 10 and len(other.labelled) == 0
    copy = Pool.open(tmp_path / 'copy.db')
    with pytest.raises(PermissionError, match='could not be replaced.*Close what has it open'):
        pool.copy_to(tmp_path / 'copy.db')
    assert (
        len(copy.labelled) == 10
        and len(Pool.open(tmp_path / 'copy.db').labelled) == 10
        and not (tmp_path / 'copy.db.new').exists()
    )
    for p in (pool, other, copy):
        p.close()
    (tmp_path / 'labels.db').unlink()  # nobody has it open any more


def test_one_at_a_time_where_open_files_stay(windows, tmp_path):
    lock = tmp_path / '.lock'
    with exclusive_lock(lock, 'playing'):
        with pytest.raises(TimeoutError, match='Another process is playing'):
            with exclusive_lock(lock, 'playing'):
                pass
        assert lock.exists()
    assert not lock.exists()
    with exclusive_lock(lock, 'playing'):
        pass


def learner_of(pool):
    dls = pool.dataloaders(
        DataBlock((ImageBlock, CategoryBlock(vocab=['a', 'b']))), bs=2, num_workers=0
    )
    return Learner(dls, nn.Sequential(nn.Flatten(), nn.Linear(192, 2)))


def run(pool, folder, by, **kwargs):
    return simulate(
        learner_of,
        pool,
        by,
        n=2,
        rounds=1,
        seeds=1,
        initial=2,
        holdout=2,
        fit=lambda learn: learn.fit(1),
        folder=folder,
        **kwargs,
    )


def pictures_of_two(tmp_path):
    (tmp_path / 'pictures').mkdir()
    for i in range(12):
        Image.new('RGB', (8, 8), (20 * i, 0, 0)).save(tmp_path / 'pictures' / f'{i:02}.png')
    pool = Pool.from_folder(tmp_path / 'pictures')
    pool.label(list(pool.unlabelled.index), ['a', 'b'] * 6)
    return pool


def test_a_campaign_where_open_files_stay(windows, tmp_path):
    campaigns = run(pictures_of_two(tmp_path), tmp_path / 'campaigns', 'random')
    assert isinstance(campaigns, Campaigns) and [
        f.name for f in (tmp_path / 'campaigns').iterdir()
    ] == ['random-0.db']


def test_strategies_whose_files_would_be_one(tmp_path):
    def Random(log_probs):
        return log_probs[:, 0, 0]

    pool = pictures_of_two(tmp_path)
    run(pool, tmp_path / 'campaigns', 'random')
    for by in (['random', Random], [Random]):
        with pytest.raises(ValueError, match='differ only in case.*Rename the strategy'):
            run(pool, tmp_path / 'campaigns', by)
    assert [f.name for f in (tmp_path / 'campaigns').iterdir()] == ['random-0.db']


def test_a_mask_that_is_looked_at_can_be_written_again(windows, tmp_path):
    mask = np.eye(5, dtype=np.uint8)
    path = write_mask(mask, 'a.png', tmp_path)
    with open(path, 'rb'):
        assert write_mask(mask, 'a.png', tmp_path) == path
    path.write_bytes(b'not it')
    assert write_mask(mask, 'a.png', tmp_path) == path and read_mask(
        path.name, tmp_path, tmp_path
    ).shape == (5, 5)


# What systems differ in


def test_a_system_without_proc_and_fcntl(monkeypatch, tmp_path):
    real, imported = Path.read_bytes, builtins.__import__

    def read_bytes(self):
        if self.parts[:2] == ('/', 'proc'):
            raise FileNotFoundError(self)
        return real(self)

    def without(name, *args, **kwargs):
        if name in ('fcntl', 'resource', 'pwd', 'grp', 'termios'):
            raise ImportError(name)
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(Path, 'read_bytes', read_bytes)
    monkeypatch.setattr(builtins, '__import__', without)
    monkeypatch.delattr(os, 'sysconf')
    assert file_system(tmp_path / 'labels.db') == ''
    pool = picture_pool(tmp_path, db=tmp_path / 'labels.db')
    pool.forget(uids=pool.unlabelled.index[0])
    pool.copy_to(tmp_path / 'copy.db')
    assert len(Pool.open(tmp_path / 'copy.db')) == 11 and pool.ledger.db.execute(
        'PRAGMA journal_mode'
    ).fetchone() == ('wal',)


def test_the_package_needs_nothing_that_only_one_system_has():
    for f in Path(fastai_al.__file__).parent.rglob('*.py'):
        code = f.read_text(encoding='utf-8')
        assert not re.findall(
            r'^\s*(?:import|from) (?:fcntl|resource|pwd|grp|termios|msvcrt|winreg|signal)\b',
            code,
            re.MULTILINE,
        ), f
        texts = [ast.unparse(call) for call in ast.walk(ast.parse(code)) if _is_of_text(call)]
        assert all('encoding=' in call for call in texts), (f, texts)  # systems differ in it


def _is_of_text(node):
    "Does this code read or write a file as text?"
    if not isinstance(node, ast.Call):
        return False
    if isinstance(node.func, ast.Attribute):
        return node.func.attr in ('read_text', 'write_text')
    modes = [ast.unparse(o) for o in node.args[1:2]]
    return ast.unparse(node.func) == 'open' and not any("b'" in mode for mode in modes)


MOUNTS = r"""
/dev/sda1 / ext4 rw 0 0
//server/share /mnt/my\040share cifs rw 0 0
/dev/sdb /mnt/my ext4 rw 0 0
/dev/sdc /data ext4 rw 0 0
server:/data /data nfs4 rw 0 0
"""
MACOS = """
/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)
//anna@server/data on /Volumes/data of all (smbfs, nodev, nosuid, mounted by anna)
map auto_home on /System/Volumes/Data/home (autofs, automounted, nobrowse)
"""


@pytest.mark.parametrize(
    'read, listed, path, network',
    [
        (_mounts_of_linux, MOUNTS, '/mnt/my share/x/labels.db', True),
        (_mounts_of_linux, MOUNTS, '/mnt/my/labels.db', False),
        (_mounts_of_linux, MOUNTS, '/data/labels.db', True),
        (_mounts_of_linux, MOUNTS, '/home/labels.db', False),
        (_mounts_of_macos, MACOS, '/Volumes/data of all/labels.db', True),
        (_mounts_of_macos, MACOS, '/Users/anna/labels.db', False),
    ],
)
def test_network_drives_are_recognised_by_what_is_mounted(monkeypatch, read, listed, path, network):
    monkeypatch.setattr(files, '_mounts', lambda: read(listed))
    monkeypatch.setattr(Path, 'resolve', lambda self: self)
    assert bool(NETWORK_FILE_SYSTEMS.search(file_system(Path(path)))) == network


def test_names_of_mounts_in_any_encoding(monkeypatch, tmp_path):
    real = Path.read_bytes
    monkeypatch.setattr(
        Path,
        'read_bytes',
        lambda self: (
            b'/dev/sda1 / ext4 rw 0 0\n//s/t /mnt/caf\xe9 cifs rw 0 0\n'
            if self == Path('/proc/mounts')
            else real(self)
        ),
    )
    assert file_system(tmp_path / 'labels.db') == 'ext4'
    Ledger(tmp_path / 'labels.db')


@pytest.mark.parametrize(
    'path, share',
    [
        ('C:/data/labels.db', False),
        ('//server/share/labels.db', True),
        (r'\\?\C:\data\labels.db', False),
        (r'\\?\UNC\server\share\labels.db', True),
        (r'\\.\C:\labels.db', False),
        ('labels.db', False),
    ],
)
def test_network_drives_of_windows(path, share):
    assert _on_share(PureWindowsPath(path)) == share


@pytest.mark.parametrize(
    'path, uri',
    [
        (PureWindowsPath('C:/a b/ä?.db'), 'file:///C%3A/a%20b/%C3%A4%3F.db'),
        (PureWindowsPath('//server/share/a.db'), 'file:////server/share/a.db'),
        (PurePosixPath('/a#b.db'), 'file:///a%23b.db'),
    ],
)
def test_addresses_that_sqlite_takes(path, uri):
    assert sqlite_uri(path) == uri


def test_sqlite_takes_them(tmp_path):
    for name in ('a b.db', 'ä?#%.db'):
        sqlite3.connect(tmp_path / name).execute('CREATE TABLE t (x)').connection.close()
        assert sqlite3.connect(f'{sqlite_uri(tmp_path / name)}?mode=ro', uri=True).execute(
            'SELECT name FROM sqlite_master'
        ).fetchone() == ('t',)


# Names


def test_uids_have_the_same_slashes_everywhere(monkeypatch):
    from fastai_al.pool import sources as items

    class WindowsPath(PureWindowsPath):
        def resolve(self):
            return self

    monkeypatch.setattr(items, 'Path', PureWindowsPath)
    assert (
        uid_of(WindowsPath(r'sub\a.jpg')) == 'sub/a.jpg'
        and uid_of(WindowsPath(r'C:\pool\sub\a.jpg'), WindowsPath(r'c:\Pool')) == 'sub/a.jpg'
    )
    with pytest.raises(ValueError, match='does not lie under'):
        uid_of(WindowsPath(r'D:\pool\a.jpg'), WindowsPath(r'C:\pool'))


def test_a_ledger_that_was_made_on_windows_finds_its_pictures(tmp_path):
    (tmp_path / 'sub').mkdir()
    for name in ('a', 'b'):
        Image.new('RGB', (8, 8)).save(tmp_path / 'sub' / f'{name}.png')
    db = tmp_path / 'labels.db'
    ledger = Ledger(db)
    ledger.append(
        [Event(rf'sub\{n}.png', 'add', note={'file': rf'sub\{n}.png'}) for n in 'ab'],
        dict(pool=dict(item='file', label='label', root='.', kept=True)),
    )
    ledger.close()
    pool = Pool.open(db)
    pool.label([r'sub\a.png', r'sub\b.png'], ['x', 'y'])
    with pytest.warns(FastaiALWarning, match='Nothing validates'):
        dls = pool.dataloaders(
            DataBlock((ImageBlock, CategoryBlock(vocab=['x', 'y']))), bs=2, num_workers=0
        )
    assert len(dls.train_ds[0]) == 2 and not len(pool.unreadable(dls))
    assert pool._picture_size(r'sub\a.png') == (8, 8)


def test_a_csv_that_was_made_on_windows_finds_its_pictures(tmp_path):
    (tmp_path / 'sub').mkdir()
    Image.new('L', (3, 3)).save(tmp_path / 'sub' / 'a.png')
    pd.DataFrame(dict(file=[r'sub\a.png', r'sub\gone.png'])).to_csv(
        tmp_path / 'items.csv', index=False
    )
    pool = Pool.from_csv(tmp_path / 'items.csv', 'file')
    assert pool.root == tmp_path and file_at(r'sub\a.png', tmp_path) == tmp_path / 'sub' / 'a.png'
    (tmp_path / r'b\c.png').write_bytes(b'')  # a backslash may be part of a name here
    assert file_at(r'b\c.png', tmp_path) == tmp_path / r'b\c.png'


@pytest.mark.parametrize(
    'uid',
    [
        'a:b.png',
        'what?.png',
        'a*b',
        'con',
        'sub/AUX.png',
        'nul.tar.gz',
        'lpt1',
        r'sub\a.png',
        'C:/a.png',
        'a|b',
        '"a"',
        '<a>',
        'line\nbreak',
        'sub./a.png',
        'sub /a.png',
        '../a',
        '/a',
        '..',
    ],
)
def test_masks_have_names_that_every_system_takes(uid, tmp_path):
    path = write_mask(np.eye(3, dtype=np.uint8), uid, tmp_path / 'masks')
    for part in path.relative_to(tmp_path).parts:
        assert not set('<>:"|?*\\') & set(part) and part == part.rstrip('. ') and part.isprintable()
        assert part.split('.')[0].lower() not in {
            'con',
            'prn',
            'aux',
            'nul',
            *(f'{n}{i}' for n in ('com', 'lpt') for i in range(10)),
        }
    label = mask_label(path, tmp_path)
    assert '\\' not in label and read_mask(label, tmp_path, tmp_path / 'masks').shape == (3, 3)


@pytest.mark.parametrize(
    'uid',
    [
        'a.png',
        'sub/a b.png',
        'ä/日本.png',
        'console.png',
        'auxiliary/x',
        'com.png',
        '.hidden/x.png',
    ],
)
def test_masks_keep_names_that_every_system_takes(uid, tmp_path):
    assert mask_label(write_mask(np.eye(3), uid, tmp_path), tmp_path).startswith(uid)


def test_masks_of_items_whose_names_differ_in_capital_letters_stay_apart(tmp_path):
    one, two = (
        write_mask(m, uid, tmp_path)
        for m, uid in ((np.eye(3), 'A.png'), (np.zeros((3, 3)), 'a.png'))
    )
    assert one.name.casefold() != two.name.casefold()


@pytest.mark.parametrize('names', [('A.png', 'a.png'), ('caf\u00e9.png', 'cafe\u0301.png')])
def test_two_items_that_are_one_file(tmp_path, names):
    Image.new('RGB', (8, 8)).save(tmp_path / names[0])
    os.link(tmp_path / names[0], tmp_path / names[1])  # as such a disk shows it
    pool = Pool(list(names), root=tmp_path, db=tmp_path / 'labels.db')
    pool.label(list(names), ['x', 'y'])
    with (
        pytest.warns(FastaiALWarning, match='Nothing validates'),
        pytest.raises(ValueError, match='two items and one file.*Rename one'),
    ):
        pool.dataloaders(DataBlock((ImageBlock, CategoryBlock(vocab=['x', 'y']))), bs=2)
    os.unlink(tmp_path / names[1])
    Image.new('RGB', (8, 8)).save(tmp_path / names[1])
    check_one_file_each(pool.rows['item'], tmp_path)


def test_folders_are_listed_in_one_order_everywhere(tmp_path, monkeypatch):
    for name in ('b.png', 'B.png', 'a.png', 'A/z.png', 'a/z.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new('L', (2, 2)).save(tmp_path / name)
    expected = ['A/z.png', 'B.png', 'a.png', 'a/z.png', 'b.png']
    assert sorted(Pool.from_folder(tmp_path).rows.index, key=lambda u: tuple(u.split('/'))) == list(
        Pool.from_folder(tmp_path).rows.index
    )
    monkeypatch.setattr(
        type(tmp_path), '__lt__', lambda a, b: str(a).lower() < str(b).lower()
    )  # as paths of Windows
    assert list(Pool.from_folder(tmp_path).rows.index) == sorted(
        expected, key=lambda u: tuple(u.split('/'))
    )


def test_a_file_that_notepad_saved(tmp_path):
    pool = Pool(['text 0'])
    (tmp_path / 'export.json').write_text('[]', encoding='utf-8-sig')
    assert from_label_studio(pool, tmp_path / 'export.json', 'class', ['ä']).labels == 0


def test_texts_are_utf_8_whatever_the_system_prefers(tmp_path):
    code = (
        'import sys\nfrom fastai_al.pool.pool import Pool\n'
        'from fastai_al.acquire.query import Query\n'
        'from fastai_al.annotate.labelstudio.exchange import to_label_studio\nimport numpy as np\n'
        "p = Pool(['\\u65e5'], db=sys.argv[1] + '/l.db')\np.label(['\\u65e5'], ['\\u00e4'])\n"
        "to_label_studio(p, Query(['\\u65e5'], ['\\u65e5'], [0], np.zeros(1), [None], "
        "dict(acquisition='x', pool=1)), sys.argv[1] + '/t.json', 'class', ['\\u00e4'])\n"
    )
    subprocess.run(
        [sys.executable, '-X', 'utf8=0', '-c', code, str(tmp_path)],
        check=True,
        env=os.environ | dict(LC_ALL='C', PYTHONCOERCECLOCALE='0'),
    )
    assert 'ä' in (tmp_path / 't.xml').read_text(encoding='utf-8') and dict(
        Pool.open(tmp_path / 'l.db').labelled['label']
    ) == {'日': 'ä'}
