"The ledger loses nothing and half-writes nothing"

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest

from conftest import forked
from fastai_al import FastaiALWarning
from fastai_al.pool import files, layout
from fastai_al.pool import ledger as ledger_module
from fastai_al.pool.ledger import KINDS, Event, Ledger
from fastai_al.pool.pool import Pool


@pytest.fixture
def db(tmp_path):
    return tmp_path / 'labels.db'


def test_an_event_comes_back_as_it_went_in(db):
    event = Event(
        'ö/1.jpg',
        'label',
        {'boxes': [[1, 2.5]], 'text': '"\'日本'},
        'anna',
        3,
        0.25,
        1.5,
        1e9,
        ['x', None],
    )
    Ledger(db).append([event])
    back = Ledger(db).since()[0]
    assert back == Event(**{**vars(event), 'id': 1})


@pytest.mark.parametrize('kind', KINDS)
def test_every_kind_can_be_written(kind):
    ledger = Ledger()
    ledger.append([Event('a', kind)])
    assert ledger.since()[0].kind == kind


@pytest.mark.parametrize(
    'bad',
    [
        Event('a', 'guess'),
        Event(None, 'label'),
        Event('a', 'label', label=object()),
        Event('a', 'label', label=float('nan')),
    ],
)
def test_all_or_nothing(db, bad):
    ledger = Ledger(db)
    ledger.append([Event('a', 'add')])
    with pytest.raises(Exception):  # noqa: B017  of SQLite, of JSON
        ledger.append([Event('b', 'add'), bad, Event('c', 'add')])
    assert [e.uid for e in ledger.since()] == ['a']
    ledger.append([Event('d', 'add')])
    assert [e.uid for e in Ledger(db).since()] == ['a', 'd']


def test_nothing_can_be_changed_or_erased(db):
    Ledger(db).append([Event('a', 'add')])
    raw = sqlite3.connect(db)
    for statement in ("UPDATE events SET uid = 'b'", 'DELETE FROM events'):
        with pytest.raises(sqlite3.DatabaseError, match='append-only'):
            raw.execute(statement)


def test_a_file_of_another_program_is_left_alone(tmp_path):
    other, text = tmp_path / 'other.db', tmp_path / 'notes.txt'
    raw = sqlite3.connect(other)
    raw.execute('CREATE TABLE mine (x)')
    raw.commit()
    raw.close()
    text.write_text('hello ' * 1000)
    for path in (other, text):
        content = path.read_bytes()
        with pytest.raises(ValueError, match='not a ledger'):
            Ledger(path)
        if path is text:
            assert path.read_bytes() == content
    assert sqlite3.connect(other).execute('SELECT name FROM sqlite_master').fetchall() == [
        ('mine',)
    ]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='no folder'):
        Ledger(tmp_path / 'nowhere' / 'labels.db')


def test_a_busy_ledger_says_so_and_writes_nothing(db):
    holder, waiting = Ledger(db), Ledger(db, timeout=0.05)
    holder.db.execute('BEGIN IMMEDIATE')
    with pytest.raises(TimeoutError, match='nothing was written'):
        waiting.append([Event('a', 'add')])
    with pytest.raises(TimeoutError):
        Ledger(db, timeout=0.05)
    holder.db.execute('ROLLBACK')
    waiting.append([Event('a', 'add')])
    assert len(holder.since()) == 1


def test_wal_where_it_works_and_the_older_journal_on_a_network(db, monkeypatch):
    near = Ledger(db)
    assert near.db.execute('PRAGMA journal_mode').fetchone()[0] == 'wal'
    monkeypatch.setattr(files, 'file_system', lambda path: 'nfs4')
    far = Ledger(db.with_name('far.db'))
    assert far.db.execute('PRAGMA journal_mode').fetchone()[0] == 'delete'
    far.append([Event('a', 'add')])
    assert len(Ledger(db.with_name('far.db')).since()) == 1


def test_threads_of_one_process_lose_nothing(db):
    pool = Pool(range(400), db=db)

    def work(k):
        for i in range(100 * k, 100 * k + 100):
            pool.label(i, 'x', annotator=f'thread {k}')

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(pool.labelled) == 400 == len(Pool.open(db).labelled)


def test_a_folder_is_no_ledger(tmp_path):
    with pytest.raises(ValueError, match='is a folder'):
        Ledger(tmp_path)


class Process:
    "Another process, which begins its work on a signal and sends what it has done"

    def __init__(self, work, *args):
        self.here, there = multiprocessing.Pipe()
        self.child = forked().Process(target=self._run, args=(work, there, *args))
        self.child.start()
        there.close()

    def _run(self, work, there, *args):
        self.here.close()
        if there.recv() == 'go':
            work(there.send, *args)

    def go(self):
        self.here.send('go')

    def done(self, kill=False) -> list:
        "What it has sent when it is at its end"
        if kill:
            os.kill(self.child.pid, signal.SIGKILL)
        sent = []
        try:
            while True:
                sent.append(self.here.recv())
        except (EOFError, OSError):
            self.child.join(60)
        assert kill or self.child.exitcode == 0
        return sent


def label_some(send, db, start, stop):
    pool = Pool.open(db)
    for i in range(start, stop):
        pool.label(str(i), i % 3, annotator=f'process {start}')
        send(i)
        time.sleep(0.002)  # as a person would, so that others have their turn


def test_a_killed_process_loses_no_label_whose_call_had_returned(db):
    Pool(range(3000), db=db).close()
    said = 0
    for life in range(3):
        process = Process(label_some, db, 1000 * life, 1000 * life + 1000)
        process.go()
        time.sleep(0.5 + 0.07 * life)
        returned = process.done(kill=True)
        pool = Pool.open(db)
        labelled = pool.labelled['label']
        assert returned and all(labelled[str(i)] == i % 3 for i in returned)
        assert len(labelled) - said in (
            len(returned),
            len(returned) + 1,
        )  # one may have been written and not yet reported
        said = len(labelled)
        assert pool.ledger.db.execute('PRAGMA integrity_check').fetchone()[0] == 'ok'
        pool.close()


def test_two_processes_label_at_once(db):
    Pool(range(400), db=db).close()
    both = [Process(label_some, db, 0, 200), Process(label_some, db, 200, 400)]
    for p in both:
        p.go()
    for p in both:
        assert len(p.done()) == 200
    pool = Pool.open(db)
    assert (
        len(pool.labelled) == 400
        and (pool.labelled['label'] == [int(u) % 3 for u in pool.labelled.index]).all()
    )
    switches = (
        pool.history.query("kind == 'label'")
        .source.ne(pool.history.query("kind == 'label'").source.shift())
        .sum()
    )
    assert switches > 2, 'they did not write at the same time, so this tested nothing'


def test_a_copy_takes_the_place_of_a_ledger_that_others_have_open(tmp_path):
    there = Ledger(tmp_path / 'a.db')
    there.append(
        [Event(f'old {i}', 'add') for i in range(50)]
    )  # in a file beside it, until it is closed
    new = Ledger()
    new.append([Event('new', 'add')])
    new.copy_to(tmp_path / 'a.db')
    copy = Ledger(tmp_path / 'a.db')
    assert [e.uid for e in copy.since()] == ['new']
    there.close()
    copy.append([Event('later', 'add')])
    copy.close()
    again = Ledger(tmp_path / 'a.db')
    assert [e.uid for e in again.since()] == ['new', 'later'] and again.db.execute(
        'PRAGMA integrity_check'
    ).fetchone() == ('ok',)
    again.close()


def test_a_ledger_is_not_copied_onto_itself_or_into_nowhere(tmp_path):
    ledger = Ledger(tmp_path / 'a.db')
    with pytest.raises(ValueError, match='itself'):
        ledger.copy_to(tmp_path / '.' / 'a.db')
    with pytest.raises(FileNotFoundError, match='no folder'):
        ledger.copy_to(tmp_path / 'none' / 'a.db')
    ledger.close()


# When answers were given


def order_of(ledger):
    return [
        e.label
        for e in sorted((e for e in ledger.since() if e.kind == 'label'), key=lambda e: e.order)
    ]


def test_an_answer_that_arrives_late_is_older_than_one_that_was_given_since(db):
    pool = Pool(['a'], db=db)
    pool.label('a', 'new', annotator='anna')
    pool.write([Event('a', 'label', 'old', 'anna', at=1.7e9)])
    assert pool.labelled['label'].iloc[0] == 'new' == Pool.open(db).labelled['label'].iloc[
        0
    ] and order_of(pool.ledger) == ['old', 'new']
    pool.label('a', 'newest', annotator='anna')
    assert pool.labelled['label'].iloc[0] == 'newest'


def test_a_correction_counts_though_the_clock_was_set_back_or_that_of_another_machine_is_ahead(
    db, monkeypatch
):
    here, there = Pool(['a'], db=db), Pool.open(db)
    monkeypatch.setattr(time, 'time', lambda: 2e9)
    there.label('a', 'ahead', annotator='anna')
    monkeypatch.setattr(time, 'time', lambda: 1.9e9)
    here.label('a', 'corrected', annotator='anna')
    assert (
        here.labelled['label'].iloc[0]
        == 'corrected'
        == there.labelled['label'].iloc[0]
        == Pool.open(db).labelled['label'].iloc[0]
    )
    monkeypatch.setattr(time, 'time', lambda: 2.1e9)
    here.ledger.append(
        [Event('a', 'label', 'from the future', 'anna', at=9e9)]
    )  # by a clock that is wrong
    assert here.ledger.since()[-1].at == 2.1e9
    here.label('a', 'last', annotator='anna')
    assert here.labelled['label'].iloc[0] == 'last'


def test_the_beginning_of_1970_is_a_time_and_what_is_no_number_is_not():
    ledger = Ledger()
    ledger.append([Event('a', 'label', 'x', at=0.0)])
    assert ledger.since()[0].at == 0
    for bad in (float('nan'), float('inf')):
        with pytest.raises(ValueError, match='no time'):
            ledger.append([Event('a', 'label', 'x', at=bad)])
    assert len(ledger.since()) == 1


@pytest.mark.parametrize('at', [-9.3e9, -62135596801.0, -1e300])
def test_a_time_that_pandas_has_none_for_is_refused(at):
    pool = Pool(['a', 'b'])
    with pytest.raises(ValueError, match='before the year 1678'):
        pool.write([Event('b', 'label', 'x', 'anna'), Event('a', 'label', 'x', 'anna', at=at)])
    assert not len(pool.labelled) and len(pool.history) == 2


def test_such_a_time_that_is_there_already_is_not_known(db):
    "Older versions took it"
    Pool(['a', 'b', 'c'], db=db).close()
    raw = sqlite3.connect(db)
    raw.executemany(
        "INSERT INTO events (uid, kind, label, by, round, at) VALUES (?, ?, ?, 'anna', 0, ?)",
        [('a', 'label', '"x"', -1e11), ('b', 'label', '"y"', 1e9), ('c', 'flag', 'true', 9.3e9)],
    )
    raw.commit()
    raw.close()
    pool = Pool.open(db)
    assert (
        pool.labelled['at'].isna().tolist() == [True, False]
        and pool.labelled.loc['b', 'at'].year == 2001
    )
    assert pool.history['at'].isna().sum() == 2 and pool.flagged['at'].isna().all()
    pool.label('c', 'z')
    assert pool.labelled.loc['c', 'label'] == 'z'


def test_the_last_second_that_is_taken_can_be_shown():
    pool = Pool(['a', 'b'])
    pool.write(
        [
            Event('a', 'label', 'x', 'anna', at=-ledger_module.MAX_SECONDS),
            Event('b', 'label', 'x', 'anna', at=1e18),
        ]
    )
    assert (
        pool.labelled['at'].dt.year.tolist() == [1677, time.gmtime().tm_year]
        and pool.history['at'].notna().all()
    )


# The one file


def gone(path):
    path.unlink()


def replaced(path):
    path.with_name('other').write_bytes(path.read_bytes())
    path.with_name('other').replace(path)


def moved(path):
    path.rename(path.with_name('elsewhere.db'))


@pytest.mark.parametrize('happens', [gone, replaced, moved])
@pytest.mark.parametrize(
    'say',
    [
        lambda p: p.label('b', 'y'),
        lambda p: p.retract('a'),
        lambda p: p.set_vocab(['x', 'y']),
        lambda p: p.draw_holdout(1),
    ],
)
def test_nothing_is_acknowledged_when_the_file_is_gone_or_another(tmp_path, happens, say):
    pool = Pool(['a', 'b', 'c'], db=tmp_path / 'a.db')
    pool.label('a', 'x')
    happens(tmp_path / 'a.db')
    with pytest.raises(OSError, match='deleted, moved or replaced.*copy_to'):
        say(pool)
    assert dict(pool.labelled['label']) == {'a': 'x'} and pool.vocab is None
    pool.copy_to(tmp_path / 'saved.db')
    assert dict(Pool.open(tmp_path / 'saved.db').labelled['label']) == {'a': 'x'}


# Content that another program puts into the file


def another_pool(db):
    Pool(['a', 'b', 'c'], dict(c='other'), db=db).close()


def a_longer_one(db):
    Pool([str(i) for i in range(100)], {'5': 'other'}, db=db).close()


def an_empty_one(db):
    Pool(['z'], db=db).close()


def no_ledger(db):
    db.write_text('hello ' * 2000)


def nothing(db):
    db.touch()


def an_older_copy(db):
    raw = sqlite3.connect(db.with_name('a.db').as_uri() + '?mode=ro', uri=True)
    copy = sqlite3.connect(db)
    raw.backup(copy)
    copy.execute('PRAGMA journal_mode = DELETE')
    copy.execute('DROP TRIGGER no_delete')
    copy.execute('DELETE FROM events WHERE id = (SELECT max(id) FROM events)')
    copy.execute('UPDATE sqlite_sequence SET seq = seq - 1')
    copy.commit()
    copy.close()
    raw.close()


def a_copy_that_went_on_elsewhere(db):
    raw = sqlite3.connect(db.with_name('a.db').as_uri() + '?mode=ro', uri=True)
    copy = sqlite3.connect(db)
    raw.backup(copy)
    copy.close()
    raw.close()
    pool = Pool.open(db)
    pool.label('c', 'elsewhere')
    pool.close()


OTHERS = [
    another_pool,
    a_longer_one,
    an_empty_one,
    no_ledger,
    nothing,
    an_older_copy,
    a_copy_that_went_on_elsewhere,
]


def label_and_leave(send, db):
    pool = Pool.open(db)
    pool.label('b', 'y')
    pool.close()  # the last one that has the file open deletes the log


@pytest.mark.parametrize(
    'look',
    [
        lambda pool: Pool.open(pool.ledger.path).close(),
        lambda pool: Pool(['a'], db=pool.ledger.path),
    ],
)
def test_looking_at_the_file_drops_no_lock(db, look, monkeypatch):
    monkeypatch.setattr(ledger_module, '_IDLE', 1e9)
    other = Process(label_and_leave, db)
    pool = Pool(['a', 'b', 'c'], db=db)
    look(pool)
    other.go()
    other.done()
    pool.label('c', 'z')
    third = subprocess.run(
        [
            sys.executable,
            '-W',
            'ignore',
            '-c',
            'import sys; from fastai_al.pool.pool import Pool; '
            'print(*Pool.open(sys.argv[1]).labelled.index)',
            str(db),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    assert third.stdout.split() == ['b', 'c'], 'what was written went to a log that nobody can find'


def test_another_working_directory_is_no_other_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pool = Pool(['a', 'b'], db='a.db')
    (tmp_path / 'sub').mkdir()
    monkeypatch.chdir(tmp_path / 'sub')
    pool.label('a', 'x')
    assert len(Pool.open('../a.db').labelled) == 1


def labels_in_the_file_alone(db, to):
    to.write_bytes(db.read_bytes())  # as a program does that knows nothing of the log
    try:
        pool = Pool.open(to)
    except ValueError:
        return 0  # not even the items
    try:
        return len(pool.labelled)
    finally:
        pool.close()


def test_the_file_alone_holds_everything_when_idle_and_when_closed(db, monkeypatch):
    monkeypatch.setattr(ledger_module, '_IDLE', 0.05)
    pool, other = Pool(range(50), db=db), None
    for i in range(20):
        pool.label(i, 'x')
    for _ in range(100):
        time.sleep(0.05)
        if labels_in_the_file_alone(db, db.with_name('copy.db')) == 20:
            break
    else:
        pytest.fail('the log was not written into the file')
    monkeypatch.setattr(ledger_module, '_IDLE', 1e9)
    other = Pool.open(db)
    for i in range(20, 40):
        other.label(i, 'x')
    other.close()
    assert (
        labels_in_the_file_alone(db, db.with_name('copy.db')) == 40
    )  # though the first one has it open still
    pool.close()
    assert not db.with_name('labels.db-wal').exists()


def test_the_log_is_written_again_after_each_pause_and_by_no_thread_that_stays(db, monkeypatch):
    monkeypatch.setattr(ledger_module, '_IDLE', 0.02)
    ledger = Ledger(db)
    for n in range(3):
        ledger.append([Event(str(n), 'add')])
        assert ledger._waiter is not None
        for _ in range(200):
            if ledger._waiter is None:
                break
            time.sleep(0.02)
        assert ledger._waiter is None and db.read_bytes().count(f'{n}add'.encode()) == 1
    ledger.append([Event('last', 'add')])
    waiter = ledger._waiter
    ledger.close()
    waiter.join(5)
    assert not waiter.is_alive()


def test_a_pool_that_is_never_closed_leaves_one_whole_file(tmp_path):
    code = (
        'import sys; from fastai_al.pool.pool import Pool; pool = Pool(range(5), db=sys.argv[1]); '
        "pool.label(1, 'x')"
    )
    subprocess.run([sys.executable, '-W', 'ignore', '-c', code, str(tmp_path / 'a.db')], check=True)
    assert [p.name for p in tmp_path.iterdir()] == ['a.db'] and len(
        Pool.open(tmp_path / 'a.db').labelled
    ) == 1


def test_a_closed_pool_raises_an_error_and_may_be_closed_again(db):
    pool = Pool(['a'], db=db)
    pool.close()
    pool.close()
    for do in (
        lambda: pool.ledger.append([Event('a', 'label', 'x')]),
        lambda: pool.label('a', 'x'),
        lambda: pool.labelled,
        lambda: pool.history,
        pool.counts,
        lambda: pool.sample(1),
        lambda: pool.copy_to(db.with_name('b.db')),
        lambda: pool.forget(uids='a'),
        pool.ledger.settings,
        pool.ledger.uids,
        pool.ledger.checkpoint,
        pool.ledger.since,
        lambda: pool.ledger['x'],
    ):
        with pytest.raises(
            ValueError, match=r"is closed. Open the pool again with Pool.open\('.*labels.db'\)"
        ):
            do()
    gone = Pool(['a'])
    gone.close()
    with pytest.raises(ValueError, match='in memory and is lost; create the pool again'):
        gone.label('a', 'x')


def test_a_copy_of_a_pool_in_use_opens_elsewhere_and_finds_its_files(tmp_path):
    for name in ('images', 'far/away'):
        (tmp_path / name).mkdir(parents=True)
    for i in range(3):
        (tmp_path / 'images' / f'{i}.png').touch()
    pool = Pool.from_folder(tmp_path / 'images', db=tmp_path / 'a.db')
    pool.label('0.png', 'x')
    pool.copy_to(tmp_path / 'far/away/b.db')
    pool.label('1.png', 'x')
    copy = Pool.open(tmp_path / 'far/away/b.db')
    assert list(copy.labelled.index) == ['0.png'] and copy.unlabelled['item'].iloc[0].is_file()
    assert [p.name for p in (tmp_path / 'far/away').glob('b.db*') if p.suffix == '.db'] == [
        'b.db'
    ] and len(pool.labelled) == 2


# Files that are something else, or of another version


def strange_log(path):
    "A database of another program, killed while all of its content was in its log"
    first = sqlite3.connect(path.with_name('first.db'))
    first.execute('PRAGMA journal_mode = WAL')
    first.execute('CREATE TABLE mine (x)')
    first.commit()
    for part in ('', '-wal'):
        path.with_name(path.name + part).write_bytes(path.with_name('first.db' + part).read_bytes())
    first.close()


def strange_tables(path):
    raw = sqlite3.connect(path)
    raw.execute('CREATE TABLE mine (x)')
    raw.commit()
    raw.close()


def strange_id(path):
    raw = sqlite3.connect(path)
    raw.execute('PRAGMA application_id = 7')
    raw.commit()
    raw.close()


@pytest.mark.parametrize(
    'make', [strange_log, strange_tables, strange_id, lambda path: path.write_text('hello ' * 1000)]
)
def test_a_strange_file_is_not_touched(tmp_path, make):
    path = tmp_path / 'mine.db'
    make(path)
    before = {
        p.name: p.read_bytes() for p in tmp_path.glob('mine.db*') if not p.name.endswith('-shm')
    }
    with pytest.raises(ValueError, match='not a ledger'):
        Ledger(path)
    assert {
        p.name: p.read_bytes() for p in tmp_path.glob('mine.db*') if not p.name.endswith('-shm')
    } == before


def test_an_empty_file_or_database_becomes_a_ledger(tmp_path):
    (tmp_path / 'a.db').touch()
    raw = sqlite3.connect(tmp_path / 'b.db')
    raw.execute('PRAGMA journal_mode = WAL')  # what 0.11.0 leaves when it is killed first of all
    raw.close()
    for name in ('a.db', 'b.db'):
        ledger = Ledger(tmp_path / name)
        ledger.append([Event('a', 'add')])
        assert len(ledger.since()) == 1


def test_a_ledger_that_0_11_0_left_in_its_log_is_one(tmp_path):
    old = tmp_path / 'old.db'
    raw = sqlite3.connect(old, isolation_level=None)
    raw.execute('PRAGMA journal_mode = WAL')
    for line in sqlite3.connect(LEDGER_0_11_0).iterdump():
        raw.execute(line)
    raw.execute(f'PRAGMA application_id = {layout.APPLICATION_ID}')
    for part in ('', '-wal'):
        (tmp_path / f'killed.db{part}').write_bytes((tmp_path / f'old.db{part}').read_bytes())
    assert (tmp_path / 'killed.db').read_bytes()[68:72] == bytes(4)
    assert len(Pool.open(tmp_path / 'killed.db').labelled) == 4


LEDGER_0_11_0 = Path(__file__).parent / 'ledger-0.11.0.sqlite'


def test_a_ledger_of_0_11_0_opens_and_gives_the_same_states(tmp_path):
    db = tmp_path / 'old.db'
    db.write_bytes(LEDGER_0_11_0.read_bytes())
    for _ in range(2):  # brought up to date, and as it is then
        pool = Pool.open(db)
        assert pool.counts() == dict(
            labelled=4, unlabelled=2, pseudo=1, ignored=1, holdout=2, test=0
        )
        labels = dict(pool.labelled['label'])
        assert labels == {'b': 'dog', 'c': 'cat', 'i': 'cat', 'j': 'dog'}, (
            'c was corrected after the clock was set back; of i an answer of 2023 was pulled '
            "after today's"
        )
        assert (
            dict(pool.holdout['label'].dropna()) == {'f': 'dog'}
            and list(pool.holdout.index) == ['f', 'g']
            and list(pool.unlabelled.index) == ['a', 'h']
        )
        assert (
            dict(pool.pseudo['label']) == {'d': 'cat'}
            and list(pool.ignored['note']) == ['blurred']
            and list(pool.flagged['note']) == ['two animals']
        )
        assert (
            pool.round == 1
            and pool.vocab == ['cat', 'dog']
            and pool.ledger['labelstudio']['project'] == 3
            and len(pool.history) == 29
        )
        assert pool.ledger.db.execute('PRAGMA user_version').fetchone() == (layout.VERSION,)
        at = pool.history['at'].loc[28:]
        assert list(at.dt.year) == [2023, 2025]  # times from elsewhere stay
        with pytest.raises(sqlite3.DatabaseError, match='append-only'):
            pool.ledger.db.execute('DELETE FROM events')
        pool.close()


def test_an_upgrade_is_done_whole_or_not_at_all(tmp_path, monkeypatch):
    db = tmp_path / 'old.db'
    db.write_bytes(LEDGER_0_11_0.read_bytes())

    def cut(db):
        layout._restamp(db)
        raise KeyboardInterrupt

    monkeypatch.setattr(layout, '_UPGRADES', (cut,))
    with pytest.raises(KeyboardInterrupt):
        Pool.open(db)
    assert db.read_bytes() == LEDGER_0_11_0.read_bytes()


def test_a_ledger_of_a_newer_version_is_refused_and_left_alone(db):
    Pool(['a'], db=db).close()
    raw = sqlite3.connect(db)
    raw.execute('PRAGMA journal_mode = DELETE')
    raw.execute(f'PRAGMA user_version = {layout.VERSION + 1}')
    raw.close()
    content = db.read_bytes()
    with pytest.raises(ValueError, match=f'newer version.*format {layout.VERSION + 1}.*Upgrade'):
        Pool.open(db)
    with pytest.raises(ValueError, match='newer version'):
        Pool(['a'], db=db)
    assert db.read_bytes() == content


# Several processes at the very beginning


def make(send, db):
    Pool(range(300), {str(i): 'x' for i in range(20)}, db=db)


def test_several_processes_make_the_same_new_pool(db):
    makers = [Process(make, db) for _ in range(4)]
    for p in makers:
        p.go()
    for p in makers:
        p.done()
    pool = Pool.open(db)
    assert pool.counts()['labelled'] == 20 and len(pool) == 300 and len(pool.history) == 320


def test_a_pool_that_is_cut_short_while_it_is_made_is_not_there(db, monkeypatch):
    def cut(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(Ledger, '_now', cut)
        with pytest.raises(KeyboardInterrupt):
            Pool(['a', 'b'], ['x', None], db=db)
    with pytest.raises(ValueError, match='no pool yet'):
        Pool.open(db)
    assert Pool(['a', 'b'], ['x', None], db=db).counts()['labelled'] == 1


def test_three_processes_label_and_are_killed_and_lose_nothing_that_had_returned(db):
    Pool(range(3000), db=db).close()
    three = [Process(label_some, db, 1000 * k, 1000 * k + 1000) for k in range(3)]
    for p in three:
        p.go()
    returned = {}
    for p in three:
        time.sleep(0.2)
        returned |= {str(i): i % 3 for i in p.done(kill=True)}
    labelled = dict(Pool.open(db).labelled['label'])
    assert returned and labelled.items() >= returned.items() and len(labelled) - len(returned) <= 3


# To forget


def bytes_of(db):
    return b''.join(p.read_bytes() for p in db.parent.iterdir())


def fill(db):
    pool = Pool([f'item number {i}' for i in range(300)], db=db)
    uids = list(pool.unlabelled.index)
    for by, k in (('Annabelle', 0), ('Benedikt', 1)):
        for u in uids[k::2][:100]:
            pool.label(u, 'cat', annotator=by, note={'told by': by})
    pool.flag(uids[3], annotator='Annabelle', note='ask Annabelle')
    pool.skip(uids[299], annotator='Annabelle')
    pool.ledger['seen'] = {'people': ['Annabelle', 'Benedikt'], uids[7]: 1}
    return pool, uids


def test_nothing_of_a_person_is_left_in_the_file(db):
    pool, uids = fill(db)
    other = Pool.open(db)
    assert len(other.labelled) == 200 and b'Annabelle' in bytes_of(db)
    pool.label(uids[0], 'dog', annotator='Benedikt', note='Annabelle')
    n = len(pool.history)
    assert pool.forget(annotator='Annabelle') == 102
    assert b'Annabelle' not in bytes_of(db).replace(
        b'ask Annabelle', b''
    ) and b'Benedikt' in bytes_of(db)
    for p in (pool, other, Pool.open(db)):
        assert (
            len(p.labelled) == 101
            and set(p.labelled['source']) == {'Benedikt'}
            and len(p.flagged) == 0
            and len(p) == 300
            and len(p.history) == n - 102
        )
    assert pool.ledger['seen'] == {'people': ['Benedikt'], uids[7]: 1}
    with pytest.raises(sqlite3.DatabaseError, match='append-only'):
        pool.ledger.db.execute('DELETE FROM events')
    other.label(uids[0], 'cat', annotator='Cleo')
    assert len(pool.history) == n - 101 and pool.ledger.db.execute(
        'PRAGMA integrity_check'
    ).fetchone() == ('ok',)


def test_nothing_of_items_is_left_in_the_file(db):
    pool, uids = fill(db)
    other, gone = Pool.open(db), [uids[7], uids[8], uids[250]]
    assert pool.forget(uids=gone) == 5
    for u in gone:
        assert (
            f'{u}"'.encode() not in bytes_of(db)
            and f'{u}label'.encode() not in bytes_of(db)
            and u not in pool.ledger.uids()
        )
    for p in (pool, other, Pool.open(db)):
        assert (
            len(p) == 297
            and len(p.labelled) == 198
            and not {*gone} & {*p.unlabelled.index, *p.labelled.index}
        )
        with pytest.raises(KeyError, match='knows no'):
            p.label(gone[0], 'cat')
    assert pool.ledger['seen'] == {'people': ['Annabelle', 'Benedikt']}


def test_what_can_not_be_forgotten_is_named(db):
    pool, uids = fill(db)
    n = len(pool.history)
    for wrong, error, says in (
        (dict(), ValueError, 'Pass either uids= '),
        (dict(uids=uids[:1], annotator='Annabelle'), ValueError, 'Pass either uids= '),
        (dict(annotator='Nobody'), ValueError, "'Annabelle', 'Benedikt'"),
        (dict(uids=['?']), KeyError, 'knows no'),
    ):
        with pytest.raises(error, match=says):
            pool.forget(**wrong)
    assert len(pool.history) == n


def test_a_rewrite_that_is_cut_short_is_done_when_the_file_is_opened(db, monkeypatch):
    pool, _ = fill(db)
    with monkeypatch.context() as m:
        m.setattr(Ledger, '_erase', lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pool.forget(annotator='Annabelle')
    assert b'Annabelle' in bytes_of(db)  # in the log still
    assert len(Pool.open(db).labelled) == 100 and b'Annabelle' not in bytes_of(db).replace(
        b'ask Annabelle', b''
    )


def test_a_pool_in_memory_forgets_too():
    pool = Pool(['a', 'b', 'c'], dict(a='x', b='y'))
    pool.label('a', 'y', annotator='anna')
    pool.forget(annotator='anna')
    assert dict(pool.labelled['label']) == dict(a='x', b='y')
    pool.forget(uids='a')
    assert len(pool) == 2 and dict(pool.labelled['label']) == dict(b='y')


JOURNALS = {'the log': None, 'the rollback journal': 'nfs4'}  # of a local disk, of a network drive


@pytest.fixture(params=JOURNALS)
def journal(request, monkeypatch):
    kind = JOURNALS[request.param]
    if kind:
        monkeypatch.setattr(files, 'file_system', lambda path: kind)
    return 'DELETE' if kind else 'WAL'


def long_story(db):
    """Thousands of events, and settings that were written again and again, so that pages are
    freed with names in them"""
    pool = Pool([f'item number {i}' for i in range(400)], db=db)
    uids = list(pool.unlabelled.index)
    for k in range(8):
        for by in ('Annabelle', 'Benedikt'):
            pool.label(
                uids[50 * k : 50 * k + 50], ['cat'] * 50, annotator=by, note={'told by': [by] * 40}
            )
    for n in (3000, 10, 2000, 0):
        pool.ledger['seen'] = ['Annabelle', uids[3]] * n
    return pool, uids


@pytest.mark.parametrize('others', [0, 1])
def test_no_byte_of_a_person_or_an_item_is_left(db, journal, others):
    pool, uids = long_story(db)
    open_too = [Pool.open(db) for _ in range(others)]
    for other in open_too:
        other.label(uids[5], 'dog', annotator='Annabelle', note='from the other one')
    assert pool.ledger.db.execute('PRAGMA journal_mode').fetchone()[0].upper() == journal
    assert b'Annabelle' in bytes_of(db) and f'{uids[3]}"'.encode() in bytes_of(db)
    assert pool.forget(annotator='Annabelle') == 400 + others and pool.forget(uids=uids[3]) == 2
    assert b'Annabelle' not in bytes_of(db) and b'Benedikt' in bytes_of(db)
    assert f'{uids[3]}"'.encode() not in bytes_of(db) and uids[3] not in {
        e.uid for e in pool.ledger.since()
    }
    assert {f.name for f in db.parent.iterdir()} <= {
        db.name,
        *(f'{db.name}{part}' for part in ('-wal', '-shm', '-journal')),
    }
    for p in open_too:
        p.label(uids[6], 'dog', annotator='Cleo')
        assert len(p) == 399 and b'Annabelle' not in bytes_of(db)
    pool.close()
    assert b'Annabelle' not in bytes_of(db)


def test_pages_that_were_freed_before_are_overwritten_too(db, journal):
    pool, uids = long_story(db)
    pool.ledger.db.execute('PRAGMA secure_delete = ON')
    pool.label(uids[0], 'dog', annotator='Cleo')
    pool.ledger.checkpoint()
    assert (
        db.read_bytes().count(b'Annabelle') > 1000
    )  # most of them in pages that nothing uses any more
    pool.forget(annotator='Annabelle')
    assert b'Annabelle' not in bytes_of(db) and pool.ledger.db.execute(
        'PRAGMA freelist_count'
    ).fetchone() == (0,)


def test_bytes_that_a_reader_keeps_are_reported_and_erased_later(db, journal):
    pool, uids = long_story(db)
    pool.ledger.timeout = 0.2
    pool.ledger.db.execute('PRAGMA busy_timeout = 200')
    reader = sqlite3.connect(db, isolation_level=None)
    reader.execute('BEGIN')
    reader.execute('SELECT count(*) FROM events').fetchone()
    with pytest.raises(
        TimeoutError, match='bytes are still there' if journal == 'WAL' else 'nothing was written'
    ):
        pool.forget(annotator='Annabelle')
    reader.close()
    if journal == 'DELETE':
        pool.forget(annotator='Annabelle')  # the reader kept it from being begun
    assert 'Annabelle' not in set(Pool.open(db).history['source']) and b'Annabelle' not in bytes_of(
        db
    )


def test_a_concurrent_reader_is_reported_as_such(db, journal, monkeypatch):
    pool, uids = long_story(db)
    pool.ledger.db.execute('PRAGMA busy_timeout = 200')
    erase, reader = Ledger._erase, sqlite3.connect(db, isolation_level=None)

    def read_and_erase(self):
        reader.execute('BEGIN')
        reader.execute('SELECT count(*) FROM events').fetchone()
        erase(self)

    with monkeypatch.context() as m:
        m.setattr(Ledger, '_erase', read_and_erase)
        with pytest.raises(
            TimeoutError, match='The events are deleted, but another process is reading'
        ):
            pool.forget(annotator='Annabelle')
    reader.close()
    Pool.open(db)
    assert b'Annabelle' not in bytes_of(db)


def test_names_are_forgotten_wherever_they_stand_by_themselves(db):
    pool, uids = fill(db)
    pool.ledger['Annabelle'] = 'her settings'
    pool.ledger['deep'] = [
        {'who': {'Annabelle': 1, 'first': 'Annabelle', 'all': [['Annabelle', 'Benedikt']]}}
    ]
    pool.label(
        uids[1], 'cat', annotator='Benedikt', note={'seen': [{'by': 'Annabelle'}], 'of': uids[7]}
    )
    pool.record_acquisition(uids[:2], by='Annabelle')
    pool.forget(annotator='Annabelle')
    pool.forget(uids=uids[7])
    assert (
        pool.ledger['deep'] == [{'who': {'first': None, 'all': [['Benedikt']]}}]
        and 'Annabelle' not in pool.ledger.settings()
    )
    assert [e.note for e in pool.ledger.since() if e.uid == uids[1]][-2] == {
        'seen': [{'by': None}],
        'of': None,
    }
    assert [e.source for e in pool.ledger.since(kinds=['acquire'])] == [
        None,
        None,
    ] and b'Annabelle' not in bytes_of(db)


def test_what_only_looks_like_a_name_stays(db):
    "A class, a column, a guess and another item's row may read like a person or an item"
    frame = pd.DataFrame(
        dict(text=['cat', 'dog', 'label', 'bird'], seen_by=['anna', 'cat', 'dog', 'cat'])
    )
    pool = Pool.from_df(frame, 'text', db=db)
    pool.set_vocab(['cat', 'dog', 'label', 'anna'])
    pool.label('dog', 'cat', annotator='Ben', note={'guess': 'cat', 'shown': True})
    pool.label('bird', 'dog', annotator='cat')
    pool.record_acquisition(['dog'], by='anna', note=dict(acquisition='cat', k=1))
    for what in (dict(uids='label'), dict(uids='cat'), dict(annotator='cat')):
        with pytest.warns(FastaiALWarning, match='can still be read'):
            pool.forget(**what)
    again = Pool.open(db)
    for p in (pool, again):
        assert (
            p.vocab == ['cat', 'dog', 'label', 'anna']
            and p.label_column == 'label'
            and list(p.rows['seen_by']) == ['cat', 'cat']
        )
        assert dict(p.labelled['label']) == {'dog': 'cat'} and list(p.labelled['note']) == [
            {'guess': 'cat', 'shown': True}
        ]
        assert [e.note for e in p.ledger.since(kinds=['acquire'])] == [dict(acquisition='cat', k=1)]


def test_names_in_longer_texts_are_counted(db):
    pool, uids = fill(db)
    pool.label(uids[1], 'cat', annotator='Benedikt', note='Annabelle said dog')
    pool.label(uids[2], 'Annabelle', annotator='Benedikt')
    pool.flag(uids[5], annotator='Benedikt', note={'why': 'Annabelleish'})  # another word
    pool.ledger['path'] = '/home/Annabelle/data'
    with pytest.warns(
        FastaiALWarning,
        match=r"'Annabelle' can still be read in 3 events and settings of .*pool.history",
    ):
        pool.forget(annotator='Annabelle')
    assert b'Annabelle said dog' in bytes_of(db) and 'Annabelle' not in set(pool.history['source'])


def test_lists_side_by_side_stay_so(db):
    pool, uids = fill(db)
    uids = uids[200:]
    pool.ledger['stop set of 3'] = uids[:3]
    pool.ledger['stopping: Some()'] = [dict(seen=['a', 'b', 'a'])]
    pool.record_draw(['active_test', 3], uids[:3], 300, scores=[0.1, 0.2, 0.3])
    pool.forget(uids=uids[1])
    assert pool.ledger['stop set of 3'] == [uids[0], None, uids[2]] and pool.ledger[
        'stopping: Some()'
    ][0]['seen'] == ['a', 'b', 'a']
    with pytest.warns(
        FastaiALWarning, match='1 of the 3 items that this call drew before are no longer'
    ):
        past = pool.recall_draw(['active_test', 3])
    assert (
        past['uids'] == [uids[0], uids[2]]
        and past['drawn'] == [uids[0], None, uids[2]]
        and past['scores'] == [0.1, 0.2, 0.3]
    )
