"The ledger loses nothing and half-writes nothing"
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

import fastai_al.ledger as ledger_module
from fastai_al.ledger import KINDS, Event, Ledger
from fastai_al.pool import Pool


@pytest.fixture
def db(tmp_path): return tmp_path/'labels.db'


def test_an_event_comes_back_as_it_went_in(db):
    event = Event('ö/1.jpg', 'label', {'boxes': [[1, 2.5]], 'text': '"\'日本'}, 'anna', 3, .25, 1.5, 1e9, ['x', None])
    Ledger(db).append([event])
    back = Ledger(db).since()[0]
    assert back == Event(**{**vars(event), 'id': 1})


@pytest.mark.parametrize('kind', KINDS)
def test_every_kind_can_be_written(kind):
    ledger = Ledger()
    ledger.append([Event('a', kind)])
    assert ledger.since()[0].kind == kind


@pytest.mark.parametrize('bad', [Event('a', 'guess'), Event(None, 'label'), Event('a', 'label', label=object()), Event('a', 'label', label=float('nan'))])
def test_all_or_nothing(db, bad):
    ledger = Ledger(db)
    ledger.append([Event('a', 'add')])
    with pytest.raises(Exception): ledger.append([Event('b', 'add'), bad, Event('c', 'add')])
    assert [e.uid for e in ledger.since()] == ['a']
    ledger.append([Event('d', 'add')])
    assert [e.uid for e in Ledger(db).since()] == ['a', 'd']


def test_nothing_can_be_changed_or_erased(db):
    Ledger(db).append([Event('a', 'add')])
    raw = sqlite3.connect(db)
    for statement in ("UPDATE events SET uid = 'b'", 'DELETE FROM events'):
        with pytest.raises(sqlite3.DatabaseError, match='append-only'): raw.execute(statement)


def test_a_file_of_another_program_is_left_alone(tmp_path):
    other, text = tmp_path/'other.db', tmp_path/'notes.txt'
    raw = sqlite3.connect(other)
    raw.execute('CREATE TABLE mine (x)')
    raw.commit(); raw.close()
    text.write_text('hello ' * 1000)
    for path in (other, text):
        content = path.read_bytes()
        with pytest.raises(ValueError, match='not a ledger'): Ledger(path)
        if path is text: assert path.read_bytes() == content
    assert sqlite3.connect(other).execute('SELECT name FROM sqlite_master').fetchall() == [('mine',)]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='no folder'): Ledger(tmp_path/'nowhere'/'labels.db')


def test_a_busy_ledger_says_so_and_writes_nothing(db):
    holder, waiting = Ledger(db), Ledger(db, timeout=.05)
    holder.db.execute('BEGIN IMMEDIATE')
    with pytest.raises(TimeoutError, match='nothing was written'): waiting.append([Event('a', 'add')])
    with pytest.raises(TimeoutError): Ledger(db, timeout=.05)
    holder.db.execute('ROLLBACK')
    waiting.append([Event('a', 'add')])
    assert len(holder.since()) == 1


def test_wal_where_it_works_and_the_older_journal_on_a_network(db, monkeypatch):
    near = Ledger(db)
    assert near.db.execute('PRAGMA journal_mode').fetchone()[0] == 'wal'
    monkeypatch.setattr(ledger_module, '_file_system', lambda path: 'nfs4')
    far = Ledger(db.with_name('far.db'))
    assert far.db.execute('PRAGMA journal_mode').fetchone()[0] == 'delete'
    far.append([Event('a', 'add')])
    assert len(Ledger(db.with_name('far.db')).since()) == 1


def test_threads_of_one_process_lose_nothing(db):
    pool = Pool(range(400), db=db)
    def work(k):
        for i in range(100*k, 100*k + 100): pool.label(i, 'x', by=f'thread {k}')
    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert len(pool.labelled) == 400 == len(Pool.open(db).labelled)


def test_a_folder_is_no_ledger(tmp_path):
    with pytest.raises(ValueError, match='is a folder'): Ledger(tmp_path)


LABELLER = '''
import sys, time
from fastai_al.pool import Pool
pool, start, stop = Pool.open(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
print('ready', flush=True)
sys.stdin.readline()
for i in range(start, stop):
    pool.label(str(i), i % 3, by=f'process {start}')
    print(i, flush=True)
    time.sleep(.002)      # as a person would, so that others have their turn
'''


def labeller(db, start, stop):
    process = subprocess.Popen([sys.executable, '-W', 'ignore', '-c', LABELLER, str(db), str(start), str(stop)], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == 'ready\n'
    return process


def go(process):
    process.stdin.write('go\n'); process.stdin.flush()


def test_a_killed_process_loses_no_label_whose_call_had_returned(db):
    Pool(range(3000), db=db).close()
    said = 0
    for life in range(3):
        process = labeller(db, 1000*life, 1000*life + 1000)
        go(process)
        time.sleep(.05 + .07 * life)
        os.kill(process.pid, signal.SIGKILL)
        returned = [int(line) for line in process.stdout.read().split()]
        process.wait()
        pool = Pool.open(db)
        labelled = pool.labelled['label']
        assert returned and all(labelled[str(i)] == i % 3 for i in returned)
        assert len(labelled) - said in (len(returned), len(returned) + 1)   # one may have been written and not yet told
        said = len(labelled)
        assert pool.ledger.db.execute('PRAGMA integrity_check').fetchone()[0] == 'ok'
        pool.close()


def test_two_processes_label_at_once(db):
    Pool(range(400), db=db).close()
    both = [labeller(db, 0, 200), labeller(db, 200, 400)]
    for p in both: go(p)
    for p in both: assert p.communicate(timeout=60)[0].count('\n') == 200 and p.returncode == 0
    pool = Pool.open(db)
    assert len(pool.labelled) == 400 and (pool.labelled['label'] == [int(u) % 3 for u in pool.labelled.index]).all()
    switches = pool.history.query("kind == 'label'").by.ne(pool.history.query("kind == 'label'").by.shift()).sum()
    assert switches > 2, 'they did not write at the same time, so this tested nothing'


def test_a_copy_takes_the_place_of_a_ledger_that_others_have_open(tmp_path):
    there = Ledger(tmp_path/'a.db')
    there.append([Event(f'old {i}', 'add') for i in range(50)])     # in a file beside it, until it is closed
    new = Ledger()
    new.append([Event('new', 'add')])
    new.copy_to(tmp_path/'a.db')
    copy = Ledger(tmp_path/'a.db')
    assert [e.uid for e in copy.since()] == ['new']
    there.close()
    copy.append([Event('later', 'add')])
    copy.close()
    again = Ledger(tmp_path/'a.db')
    assert [e.uid for e in again.since()] == ['new', 'later'] and again.db.execute('PRAGMA integrity_check').fetchone() == ('ok',)
    again.close()


def test_a_ledger_is_not_copied_onto_itself_or_into_nowhere(tmp_path):
    ledger = Ledger(tmp_path/'a.db')
    with pytest.raises(ValueError, match='itself'): ledger.copy_to(tmp_path/'.'/'a.db')
    with pytest.raises(FileNotFoundError, match='no folder'): ledger.copy_to(tmp_path/'none'/'a.db')
    ledger.close()
