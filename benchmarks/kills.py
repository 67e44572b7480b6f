"""Whether a killed process loses an answer:

`python benchmarks/kills.py` prints it and rewrites its part of benchmarks/RESULTS.md

Three processes write to one ledger. Again and again one of them is killed (SIGKILL), at a random
moment of its opening, writing or closing, and another begins in its place. Every answer whose call
had returned must be in the file afterwards, and at most one more for each kill."""

import argparse
import multiprocessing
import os
import random
import signal
import sqlite3
import tempfile
import time
from pathlib import Path

from fastai_al.pool.pool import Pool
from results import write_section

WRITERS, ITEMS = 3, 300


def write(send, db: Path, writer: int, life: int):
    """Answer one item after another, with a number that no other answer has, and send each when
    it has returned"""
    draw = random.Random(f'{writer} {life}')
    while True:  # now and then the pool is closed, which writes the log into the file
        pool = Pool.open(db)
        for _ in range(draw.randint(1, 40)):
            uid, number = str(draw.randrange(ITEMS)), draw.getrandbits(60)
            answer = draw.choice((pool.label, pool.label, pool.label, pool.ignore, pool.skip))
            if answer == pool.label:
                pool.label(uid, number, annotator=f'writer {writer}')
            else:
                answer(uid, annotator=f'writer {writer}', note=number)
            send(number)
        pool.close()


class Writer:
    "One of the processes that write, and what it has sent"

    def __init__(self, db: Path, place: int, life: int):
        self.answers, there = multiprocessing.Pipe(duplex=False)
        self.process = multiprocessing.get_context('fork').Process(
            target=write, args=(there.send, db, place, life), daemon=True
        )
        self.process.start()
        there.close()

    def kill(self) -> list[int]:
        "End the process at once; the numbers of the answers that had returned"
        os.kill(self.process.pid, signal.SIGKILL)
        sent = []
        try:
            while True:
                sent.append(self.answers.recv())
        except (EOFError, OSError):
            self.process.join()
        return sent


def numbers_in(db: Path) -> list[int]:
    "The numbers of all answers in the file"
    events = Pool.open(db).ledger.since()
    return [e.label if e.kind == 'label' else e.note for e in events if e.kind != 'add']


def is_sound(db: Path) -> bool:
    with sqlite3.connect(db, timeout=60) as file:
        return file.execute('PRAGMA integrity_check').fetchone()[0] == 'ok'


def kills(n: int, seed: int = 0) -> dict[str, int]:
    "Kill a writer `n` times"
    draw, returned, damaged = random.Random(seed), [], 0
    with tempfile.TemporaryDirectory() as folder:
        db = Path(folder) / 'labels.db'
        Pool(range(ITEMS), db=db).close()
        writers = [Writer(db, place, 0) for place in range(WRITERS)]
        for life in range(1, n + 1):
            time.sleep(draw.choice((0, 0.005, 0.02, 0.1)) * draw.random() + 0.01)
            place = draw.randrange(WRITERS)
            returned += writers[place].kill()
            writers[place] = Writer(db, place, life)
            if life % 50 == 0:
                damaged += not is_sound(db)
                print(f'\r{life} of {n} killed, {len(returned):,} answers', end='', flush=True)
        for writer in writers:
            returned += writer.kill()
        print()
        kept = numbers_in(db)
        damaged += not is_sound(db)
    return dict(
        kills=n + WRITERS,
        returned=len(returned),
        lost=len({*returned} - {*kept}),
        twice=len(kept) - len({*kept}),
        unreported=len({*kept} - {*returned}),
        damaged=damaged,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--kills', type=int, default=1000)
    found = kills(parser.parse_args().kills)
    limits = dict(
        lost='must be 0',
        twice='must be 0',
        damaged='must be 0',
        unreported='at most one for each kill',
    )
    words = dict(
        kills='processes killed',
        returned='answers whose call had returned',
        lost='of these lost',
        twice='answers written twice',
        unreported='answers written whose call had not returned',
        damaged='checks of the file that failed',
    )
    write_section(
        'Killed processes',
        'kills.py',
        [f'| {words[k]} | {v:,} | {limits.get(k, "")} |' for k, v in found.items()],
    )
    if found['lost'] or found['twice'] or found['damaged'] or found['unreported'] > found['kills']:
        raise SystemExit(1)


if __name__ == '__main__':
    main()
