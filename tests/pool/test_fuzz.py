"""Random sequences of what may happen to a pool, against a plain model of it; and faults put
into the code on purpose, each of which they find"""

import inspect
import json
import os
import shutil
import tempfile
import textwrap
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import fastai_al.pool.draw
import fastai_al.pool.ledger
import fastai_al.pool.pool
import fastai_al.pool.state
import fastai_al.pool.status
import fastai_al.triage.apply
from fastai_al.pool.ledger import Event, Ledger
from fastai_al.pool.pool import Pool
from fastai_al.pool.state import ItemState, majority
from fastai_al.pool.status import Reader
from fastai_al.triage.result import Triage

pytestmark = pytest.mark.filterwarnings('ignore::fastai_al.FastaiALWarning')
PEOPLE, LABELS, START = ('anna', 'ben', 'cleo'), (['x'], ['x', 'y'], ['y', 'x'], ['z']), 1.8e9

MEMORY = '/dev/shm' if Path('/dev/shm').is_dir() else None  # a folder in memory, where there is one


def agreed(votes):
    return votes[0][1] if len({json.dumps(sorted(y)) for _, y in votes}) == 1 else None


class Clock:
    "The time of the machine, which can be set"

    def __init__(self):
        self.now = START

    def time(self):
        return self.now

    def monotonic(self):
        return self.now


class Model:
    "What a pool should say, worked out from the list of all events each time"

    def __init__(self, clock, vote):
        self.clock, self.vote, self.items, self.events, self.written, self.round, self.acts = (
            clock,
            vote,
            [],
            [],
            0,
            0,
            0,
        )

    def add_items(self, uids):
        self.items += uids
        self.written += len(uids)

    def say(self, kind, uid, by=None, label=None, at=None, why=None):
        now = max([self.clock.now, *(e['at'] for e in self.events), self.made])
        self.written += 1
        self.events.append(
            dict(
                kind=kind,
                uid=uid,
                by=by,
                label=label,
                at=now if at is None else min(at, now),
                why=why,
                number=self.written,
            )
        )

    def answer(self, kind, uid, by, label=None):
        "An answer, unless it is the one that counts already"
        said = self.counts_as(uid)
        if said is None or (said['kind'], said['by'], said['label']) != (kind, by, label):
            self.say(kind, uid, by, label)

    made = START  # when the newest item was added

    def standing(self, uid, answers=('label', 'pseudo', 'ignore')):
        "The answers that stand, oldest first: by whom -> event"
        found = {}
        for e in sorted(
            (e for e in self.events if e['uid'] == uid), key=lambda e: (e['at'], e['number'])
        ):
            if e['kind'] == 'retract':
                found = (
                    {} if e['by'] is None else {by: a for by, a in found.items() if by != e['by']}
                )
            elif e['kind'] in ('label', 'pseudo', 'ignore', 'skip'):
                found = {by: a for by, a in found.items() if by != e['by']} | {e['by']: e}
        return {by: a for by, a in found.items() if a['kind'] in answers}

    def flags(self, uid):
        up = {}
        for e in self.events:
            if e['uid'] == uid and e['kind'] == 'flag':
                up[e['by']] = e['label']
        return {by for by, is_up in up.items() if is_up}

    def counts_as(self, uid):
        "The answer that counts"
        answers = list(self.standing(uid).values())
        people = [
            a
            for a in answers
            if a['kind'] != 'pseudo'
            and not (a['kind'] == 'ignore' and a['by'].startswith('triage '))
        ]
        return (people or answers or [None])[-1]

    def label(self, uid):
        said = self.counts_as(uid)
        if said is None or said['kind'] == 'ignore':
            return None
        if said['kind'] == 'pseudo':
            return said['label']
        votes = [(a['by'], a['label']) for a in self.standing(uid).values() if a['kind'] == 'label']
        if self.vote is agreed:
            return agreed(votes)
        n = [sum(sorted(a) == sorted(b) for _, b in votes) for _, a in votes]
        return [y for (_, y), m in zip(votes, n) if m == max(n)][-1]

    def status(self, uid):
        said, held = (
            self.counts_as(uid),
            any(e['uid'] == uid and e['kind'] == 'holdout' for e in self.events),
        )
        if said and said['kind'] == 'ignore':
            return 'ignored'
        if held:
            return 'holdout'
        if said is None or said['kind'] == 'label' and self.label(uid) is None:
            return 'unlabelled'
        return {'label': 'labelled', 'pseudo': 'pseudo'}[said['kind']]

    def with_status(self, status):
        return [u for u in self.items if self.status(u) == status]

    def decided(self):
        "uid -> which triage decided what of it, without what a person took back"
        found = {}
        for e in self.events:
            said = found.setdefault(e['uid'], {})
            if e['why']:
                said[e['by']] = e
            elif e['kind'] == 'retract' and e['by'] is None:
                said.clear()
        return found


def check(pool: Pool, model: Model, whole: bool = False):
    statuses = 'labelled', 'unlabelled', 'pseudo', 'ignored', 'holdout'
    expected = {s: model.with_status(s) for s in statuses}
    assert pool.counts() == {s: len(expected.get(s, ())) for s in (*statuses, 'test')} and len(
        pool
    ) == len(model.items)
    assert list(pool.unlabelled.index) == expected['unlabelled']
    assert dict(pool.labelled['label']) == {u: model.label(u) for u in expected['labelled']}
    assert pool.round == model.round
    if not whole:
        return
    for s in statuses:
        frame = getattr(pool, s)
        assert list(frame.index) == expected[s]
        if s == 'unlabelled':
            continue
        assert [y if isinstance(y, list) else None for y in frame['label']] == [
            model.label(u) for u in expected[s]
        ]
        assert [set((by or '').split(', ')) - {''} for by in frame['source']] == [
            set(model.standing(u)) for u in expected[s]
        ]
    assert list(pool.flagged.index) == [u for u in model.items if model.flags(u)]
    assert sorted(
        (e.uid, e.kind) for e in pool.ledger.since() if e.kind not in ('add', 'acquire')
    ) == sorted((e['uid'], e['kind']) for e in model.events)


class World:
    "A ledger, two pools that have it open, and the model"

    def __init__(self, folder, vote, clock):
        self.folder, self.vote, self.clock, self.copies = Path(folder), vote, clock, 0
        self.model, self.db = Model(clock, vote), self.folder / '0.db'
        self.pools = [self.quick(Pool([f'i{n}' for n in range(4)], db=self.db, vote=vote)), None]
        self.model.add_items([f'i{n}' for n in range(4)])
        self.second_writer(0, 0, 0)

    def quick(self, pool):
        pool.ledger.db.execute('PRAGMA synchronous = OFF')  # no power is cut here
        return pool

    def uid(self, a):
        return self.model.items[a % len(self.model.items)] if self.model.items else None

    def pool(self, c):
        return self.pools[c % 2]

    def second_writer(self, a, b, c):
        self.pools[1] = self.quick(Pool.open(self.db, vote=self.vote))

    def set_clock(self, a, b, c):
        self.clock.now += [5.0, 60.0, 3600.0, -30.0, -7200.0, 0.0][a % 6]

    def answer(self, a, b, c):
        by, label = PEOPLE[b % 3], LABELS[(a + b) % 4]
        self.pool(c).label(self.uid(a), label, annotator=by)
        self.model.answer('label', self.uid(a), by, label)

    def vote_on(self, a, b, c):
        "All people answer one item"
        for i in range(3):
            self.answer(a + len(self.model.items) * i * (1 + b % 2), b + i, c)

    def say(self, kind):
        def work(a, b, c):
            getattr(self.pool(c), kind)(self.uid(a), annotator=PEOPLE[b % 3])
            said = self.model.answer if kind == 'ignore' else self.model.say
            said(kind, self.uid(a), PEOPLE[b % 3], True if kind == 'flag' else None)

        return work

    def unflag(self, a, b, c):
        self.pool(c).flag(self.uid(a), annotator=PEOPLE[b % 3], up=False)
        self.model.say('flag', self.uid(a), PEOPLE[b % 3], False)

    def retract(self, a, b, c):
        uid, by = self.uid(a), (*PEOPLE, None)[b % 4]
        there = self.model.standing(uid, ('label', 'pseudo', 'ignore', 'skip'))
        if there and by is None or by in there:
            self.pool(c).retract(uid, annotator=by)
            self.model.say('retract', uid, by)
        else:
            with pytest.raises(ValueError, match='no answer'):
                self.pool(c).retract(uid, annotator=by)

    def pseudo(self, a, b, c):
        uid, label = self.uid(a), LABELS[b % 4]
        if self.model.status(uid) in ('unlabelled', 'pseudo') and self.model.counts_as(uid) in (
            None,
            *(x for x in self.model.standing(uid).values() if x['kind'] == 'pseudo'),
        ):
            self.pool(c).add_pseudo(uid, label)
            self.model.answer('pseudo', uid, 'model', label)
        else:
            with pytest.raises(ValueError, match='only unlabelled'):
                self.pool(c).add_pseudo(uid, label)

    def draw_holdout(self, a, b, c):
        free = self.model.with_status('unlabelled')
        if not free:
            return
        n = 1 + a % min(2, len(free))
        self.copies += 1
        for uid in (held := self.pool(c).draw_holdout(n, seed=self.copies)):
            self.model.say('holdout', uid, f'seed {self.copies}')
        assert len(set(held)) == n and {*held} <= {*free}

    def sample(self, a, b, c):
        free = self.model.with_status('unlabelled')
        self.copies += 1
        if free:
            assert {*self.pool(c).sample(1 + a % len(free), seed=self.copies)} <= {*free}

    def acquire(self, a, b, c):
        self.pool(c).record_acquisition([self.uid(a)], [0.5], by='bald')
        self.model.round += 1
        self.model.written += 1
        self.model.made = max(
            [self.clock.now, self.model.made, *(e['at'] for e in self.model.events)]
        )

    def pull(self, a, b, c):
        "An answer from elsewhere, given at another time"
        at, by, label = (
            self.clock.now - [0.0, 30.0, 3600.0, 1e6, -500.0][b % 5],
            PEOPLE[a % 3],
            LABELS[c % 4],
        )
        kind = 'skip' if a % 5 == 0 else 'label'
        self.pool(c).write(
            [
                Event(
                    self.uid(a),
                    kind,
                    label if kind == 'label' else None,
                    by,
                    at=at,
                    note=dict(annotation=a),
                )
            ]
        )
        self.model.say(kind, self.uid(a), by, label, at)
        assert self.pool(c).ledger.since()[-1].at == self.model.events[-1]['at'], (
            'an answer is never from the future'
        )

    def apply(self, a, b, c):
        "A triage decides some of the items that are open"
        model, decisions = self.model, ('pseudo', 'ignore', 'annotate')
        rows = [(u, decisions[(a + i) % 3]) for i, u in enumerate(model.items) if (a + i + b) % 2]
        if not rows:
            return
        triage = object.__new__(Triage)
        frame = pd.DataFrame(
            [
                dict(
                    decision=d,
                    label=LABELS[b % 4] if d == 'pseudo' else None,
                    confidence=0.9,
                    why='as it is',
                )
                for _, d in rows
            ],
            index=pd.Index([u for u, _ in rows], name='uid'),
        )
        vars(triage).update(
            frame=frame,
            info=dict(
                named=True,
                guarantee='pool',
                error=0.1,
                delta=0.05,
                rounds=1,
                population=None,
                holdout_id='holdout',
            ),
            pool=None,
            skipped={},
            key=str(model.acts),
            at=1e12,
            certificates={},
            assumptions=[],
        )
        act = self.pool(c).apply(triage)
        model.acts += 1
        assert act == f'triage {model.acts}'

        def by_operation(uid):
            return [by for by in model.standing(uid) if by.startswith('triage ')]

        def is_open(uid):
            said = model.counts_as(uid)
            if model.status(uid) == 'ignored':
                return said['by'] in by_operation(uid)
            return model.status(uid) in ('unlabelled', 'pseudo') and (
                said is None or said['kind'] == 'pseudo'
            )

        rows = [(u, d) for u, d in rows if is_open(u)]
        for one, by in [(u, by) for u, _ in rows for by in by_operation(u)]:
            model.say('retract', one, by)
        for u, d in rows:
            model.say(
                {'annotate': 'retract'}.get(d, d),
                u,
                act,
                LABELS[b % 4] if d == 'pseudo' else None,
                why=d,
            )
        self.acts = [*getattr(self, 'acts', ()), act]

    def revoke(self, a, b, c):
        acts, model = getattr(self, 'acts', []), self.model
        if not acts:
            return
        act, decided = acts[b % len(acts)], model.decided()
        self.pool(c).revoke(act)
        others = [other for other in acts if other != act]
        for u in [
            u for u, said in decided.items() if act in said
        ]:  # in any order: these are of different items
            before = [decided[u][other] for other in acts if other in decided[u] and other != act][
                -1:
            ]
            stood = set(model.standing(u))
            if act in stood:
                model.say('retract', u, act)
            for e in before:
                if e['kind'] != 'retract' and e['by'] not in stood:
                    model.say(e['kind'], u, e['by'], e['label'], why=e['why'])
        self.acts = others
        model.events[:] = [dict(e, number=i) for i, e in enumerate(model.events)]

    def grow(self, a, b, c):
        "The same cell again, with one more item"
        self.copies += 1
        new = f'new {self.copies}'
        self.model.made = max(
            [self.clock.now, self.model.made, *(e['at'] for e in self.model.events)]
        )
        self.pools[c % 2] = self.quick(Pool([*self.model.items, new], db=self.db, vote=self.vote))
        self.model.add_items([new])

    def reopen(self, a, b, c):
        for pool in self.pools:
            pool.close()
        self.pools = [self.quick(Pool.open(self.db, vote=self.vote)) for _ in range(2)]

    def go_on_with(self, db):
        for pool in self.pools:
            pool.close()
        self.db = db
        self.pools = [self.quick(Pool.open(db, vote=self.vote)) for _ in range(2)]

    def as_killed(self):
        "The files as they are on the disk now"
        self.copies += 1
        for part in ('', '-wal'):
            if Path(f'{self.db}{part}').exists():
                shutil.copy(f'{self.db}{part}', f'{self.folder / str(self.copies)}.db{part}')
        return self.folder / f'{self.copies}.db'

    def kill(self, a, b, c):
        self.go_on_with(self.as_killed())

    def kill_in_the_middle(self, a, b, c):
        left = []

        def events():
            for n in range(3):
                if n == a % 3:
                    left.append(self.as_killed())
                yield Event(self.uid(n), 'label', ['z'], 'anna')
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            self.pool(c).ledger.append(events(), dict(half='written'))
        check(self.pool(c), self.model)
        self.go_on_with(left[0])
        assert self.pools[0].ledger['half'] is None

    def copy(self, a, b, c):
        self.copies += 1
        self.pool(c).copy_to(self.folder / f'{self.copies}.db')
        self.go_on_with(self.folder / f'{self.copies}.db')

    def forget_item(self, a, b, c):
        model, uid = self.model, self.uid(a)
        if len(model.items) < 4:
            return  # some stay
        self.pool(c).forget(uids=uid)
        model.items.remove(uid)
        model.events = [e for e in model.events if e['uid'] != uid]
        model.round = max(
            (e.round for e in self.pool(c).ledger.since() if e.kind == 'acquire'), default=0
        )

    def forget_person(self, a, b, c):
        by, model = PEOPLE[b % 3], self.model
        if not any(e['by'] == by for e in model.events):
            return
        self.pool(c).forget(annotator=by)
        model.events = [e for e in model.events if e['by'] != by]


STEPS = (
    *['answer'] * 8,
    'vote_on',
    'vote_on',
    *['pull'] * 3,
    'skip',
    'ignore',
    'flag',
    'unflag',
    'retract',
    'retract',
    'pseudo',
    'draw_holdout',
    'sample',
    'acquire',
    'apply',
    'apply',
    'revoke',
    'grow',
    'reopen',
    'second_writer',
    'kill',
    'kill_in_the_middle',
    'copy',
    'set_clock',
    'set_clock',
    'forget_item',
    'forget_person',
)
number = st.integers(0, 59)
sequences = st.lists(
    st.tuples(st.sampled_from(STEPS), number, number, number), min_size=1, max_size=25
)


def run(steps, vote):
    clock = Clock()
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder, pytest.MonkeyPatch.context() as m:
        m.setattr(fastai_al.pool.ledger, 'time', clock)
        m.setattr(Ledger, '_wait', lambda self: None)  # no thread beside these steps
        world = World(folder, vote, clock)
        try:
            for step, a, b, c in steps:
                (world.say(step) if step in ('skip', 'ignore', 'flag') else getattr(world, step))(
                    a, b, c
                )
                check(world.pool(c), world.model)
            for pool in (*world.pools, again := Pool.open(world.db, vote=vote)):
                check(pool, world.model, whole=True)
            again.close()
        finally:
            for pool in world.pools:
                pool.close()


VOTES = dict(majority=majority, agreed=agreed)
LAX = dict(deadline=None, suppress_health_check=list(HealthCheck))


@settings(max_examples=200, **LAX)
@given(sequences, st.sampled_from(['majority', 'agreed']))
def test_a_pool_agrees_with_a_plain_model(steps, vote):
    run(steps, VOTES[vote])


@pytest.mark.fuzz
@settings(max_examples=int(os.environ.get('FUZZ', 2000)), **LAX)
@given(sequences, st.sampled_from(['majority', 'agreed']))
def test_a_pool_agrees_with_a_plain_model_thousands_of_times(steps, vote):
    run(steps, VOTES[vote])


# Faults that are put into the code: (where, name, what is there, what is put in its place)
MUTANTS = {
    'answers count in the order of arrival': (
        ItemState,
        'add',
        'late = bool(self.events) and event.order < self.events[-1].order',
        'late = False',
    ),
    'a clock that is set back is believed': (
        Ledger,
        '_now',
        'return max(time.time(), self._latest[1])',
        'return time.time()',
    ),
    'a time in the future is believed': (
        fastai_al.pool.ledger,
        '_past',
        'return min(at, now)',
        'return at',
    ),
    'half of an append is written': (Ledger, 'append', 'with self.transaction():', 'if True:'),
    'a skip leaves the answer standing': (
        ItemState,
        '_follow',
        'self.answers.pop(event.source, None)',
        "event.kind == 'skip' or self.answers.pop(event.source, None)",
    ),
    'a retraction of all takes back nothing': (
        ItemState,
        '_follow',
        'event.source not in (None, b)',
        'event.source != b',
    ),
    'of equal votes the first wins': (
        fastai_al.pool.state,
        'majority',
        'zip(reversed(votes), reversed(keys))',
        'zip(votes, said)',
    ),
    'the order of labels counts': (
        fastai_al.pool.state,
        'canonical_label',
        'frozenset(parts) if classes else tuple(parts)',
        'tuple(parts)',
    ),
    'a frame is kept that an item has left': (
        Reader,
        '_update_statuses',
        '(STATUSES[self._codes[place]], status)',
        '(status,)',
    ),
    'rounds of another process are not heard of': (
        Reader,
        '_apply',
        'self.round = max(self.round, row[4])',
        'pass',
    ),
    'what another process erased stays known': (
        Reader,
        'sync',
        "if self.ledger['erased'] != self._erased",
        'if False',
    ),
    'items that join lose what was said of them': (
        Reader,
        '_index_rows',
        'self._touched |= self._states.keys()',
        'pass',
    ),
    'no vote leaves an item unresolved': (
        Reader,
        '_status',
        "'unresolved' if voted and is_missing(state.label(self.vote)) else state.status",
        'state.status',
    ),
    'what is revoked uncovers nothing': (
        Pool,
        'revoke',
        'if operation in states[u].answers]',
        'if False]',
    ),
}


@contextmanager
def mutated(where, name, old, new):
    there = inspect.getattr_static(where, name)
    source = textwrap.dedent(inspect.getsource(there)).removeprefix('@patch\n')
    assert source.count(old) == 1, f'{old!r} is not in {name}: say what its fault would be now'
    module = inspect.getmodule(there)
    space = dict(vars(module))
    exec(source.replace(old, new), space)
    if where is module:  # other modules have it by name
        places = [
            m
            for m in (
                fastai_al.pool.state,
                fastai_al.pool.ledger,
                fastai_al.pool.pool,
                fastai_al.pool.status,
                inspect.getmodule(run),
            )
            if vars(m).get(name) is there
        ]
    else:
        places = [where]
    with pytest.MonkeyPatch.context() as m:
        for place in places:
            m.setattr(place, name, space[name])
        if name == 'majority':
            m.setitem(VOTES, 'majority', space[name])
        yield


@pytest.mark.parametrize('what', MUTANTS)
def test_each_fault_is_found_within_200_sequences(what):
    tried = []

    @settings(max_examples=200, database=None, phases=[Phase.generate], derandomize=True, **LAX)
    @given(sequences, st.sampled_from(['majority', 'agreed']))
    def search(steps, vote):
        tried.append((steps, vote))
        run(steps, VOTES[vote])

    with mutated(*MUTANTS[what]), pytest.raises(Exception):  # noqa: B017  whatever it breaks
        search()
    steps, vote = tried[-1]
    run(steps, VOTES[vote])  # it is the fault that was found
