"""The round trip with Label Studio: against a stand-in that loses connections, and (`-m server`)
against the real server"""

import copy
import http.cookiejar
import itertools
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from types import SimpleNamespace as Box

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import labelstudio_exports
from fastai_al.acquire.query import Query
from fastai_al.annotate.labelstudio import connection
from fastai_al.annotate.labelstudio import server as labelstudio
from fastai_al.annotate.labelstudio.controls import labelling_config
from fastai_al.annotate.labelstudio.exchange import from_label_studio, to_label_studio
from fastai_al.annotate.labelstudio.reading import label_of
from fastai_al.annotate.labelstudio.receive import receive
from fastai_al.annotate.labelstudio.server import SETTING, LabelStudio, _chunks
from fastai_al.annotate.labelstudio.writing import result_of
from fastai_al.lab.report import write_report
from fastai_al.lab.results import Campaigns
from fastai_al.pool.pool import Pool

TOKEN = 'f00dfeed' * 5
CLASSES = ['cat', '$5', '<b>"dog" & co</b>', '7']


def query_of(uids, predictions):
    return Query(
        list(uids),
        list(uids),
        list(range(len(uids))),
        np.linspace(-3, -9, len(uids)),
        list(predictions),
        dict(acquisition='bald', pool=len(uids)),
    )


def class_of(uid) -> object:
    return CLASSES[int(str(uid).split()[-1]) % len(CLASSES)]


def text_pool(n: int = 6, **kwargs) -> Pool:
    pool = Pool([f'text {i}' for i in range(n)], **kwargs)
    pool.set_vocab(CLASSES)
    return pool


def recorded(pool: Pool) -> list:
    return [
        (e.uid, e.kind, e.label, e.source, e.seconds)
        for e in pool.ledger.since()
        if e.kind in ('label', 'skip')
    ]


class Refused(Exception):
    "As the SDK's ApiError: what it prints holds headers"

    def __init__(self, status, body):
        super().__init__(f'set-cookie: sessionid=secret, authorization: Token {TOKEN}')
        self.status_code, self.body = status, body


class Server:
    """What a server remembers, and how it fails: at call number `at`, before or after it has
    handled the request"""

    def __init__(self, at: int = 0, after: bool = False):
        self.at, self.after, self.calls, self.clock = at, after, 0, itertools.count(1)
        self.projects, self.tasks, self.predictions, self.annotations, self.storages, self.ids = (
            {},
            {},
            {},
            {},
            {},
            itertools.count(1),
        )

    def call(self, do):
        def counted(*args, **kwargs):
            self.calls += 1
            if self.calls == self.at and not self.after:
                raise ConnectionResetError(f'lost with {TOKEN}')
            answer = do(*args, **kwargs)
            if self.calls == self.at:
                raise ConnectionResetError(f'lost with {TOKEN}')
            return copy.deepcopy(answer)

        return counted

    def client(self):
        c = self.call
        return Box(
            projects=Box(
                list=c(lambda: list(self.projects.values())),
                get=c(self.get),
                create=c(self.create),
                update=c(self.update),
                import_tasks=c(self.import_tasks),
                import_predictions=c(self.import_predictions),
                exports=Box(download_sync=c(self.export)),
            ),
            tasks=Box(
                list=c(
                    lambda project, **kw: [t for t in self.tasks.values() if t.project == project]
                )
            ),
            predictions=Box(
                list=c(
                    lambda project: [p for p in self.predictions.values() if p.project == project]
                ),
                update=c(self.update_prediction),
            ),
            annotations=Box(get=c(self.annotation)),
            users=Box(
                list=c(
                    lambda: [
                        Box(id=1, email='anna@x.org', username=''),
                        Box(id=2, email='', username='ben'),
                    ]
                )
            ),
            import_storage=Box(
                local=Box(
                    list=c(
                        lambda project: [s for s in self.storages.values() if s.project == project]
                    ),
                    create=c(self.serve),
                )
            ),
        )

    def get(self, id):
        if id not in self.projects:
            raise Refused(404, dict(detail='No Project matches'))
        return self.projects[id]

    def create(self, request_options=None, **kw):
        self.projects[p.id] = (p := Box(id=next(self.ids), model_version=None, **kw))
        return p

    def update(self, id, **kw):
        if 'model_version' in kw and kw['model_version'] not in {
            p.model_version for p in self.predictions.values() if p.project == id
        }:
            raise Refused(400, dict(detail='Validation error', validation_errors='no such version'))
        vars(self.get(id)).update(kw)

    def predict(self, project, task, p):
        self.predictions[i] = Box(
            id=(i := next(self.ids)),
            project=project,
            task=task,
            cluster=None,
            **{k: p[k] for k in ('model_version', 'score', 'result')},
        )

    def import_tasks(self, id, request, **kw):
        made = []
        for r in json.loads(json.dumps(request)):
            self.tasks[t.id] = (t := Box(id=next(self.ids), project=id, data=r['data']))
            made.append(t.id)
            for p in r['predictions']:
                self.predict(id, t.id, p)
        return Box(task_ids=made)

    def import_predictions(self, id, request, **kw):
        for p in json.loads(json.dumps(request)):
            self.predict(id, p['task'], p)

    def update_prediction(self, id, **kw):
        vars(self.predictions[id]).update(kw)

    def serve(self, request_options=None, **kw):
        self.storages[s.id] = (s := Box(id=next(self.ids), **kw))

    def annotate(self, uid, who, label=None, was_cancelled=False, edit=None):
        task = next(t for t in self.tasks.values() if t.data['uid'] == uid)
        i = edit or next(self.ids)
        self.annotations[i] = dict(
            id=i,
            task=task.id,
            completed_by=who,
            was_cancelled=was_cancelled,
            lead_time=1.5,
            updated_at=f'2026-01-01T10:{next(self.clock):02d}:00Z',
            result=[] if was_cancelled else result_of(label, 'class', CLASSES),
        )
        return i

    def annotation(self, id):
        if id not in self.annotations:
            raise Refused(404, dict(detail='No Annotation matches'))
        return self.annotations[id]

    def export(self, id, export_type):
        done = [
            dict(id=t.id, data=t.data, annotations=a)
            for t in self.tasks.values()
            if t.project == id
            and (a := [a for a in self.annotations.values() if a['task'] == t.id])
        ]
        text = json.dumps(done).encode()
        return [text[:100], text[100:]]

    def state(self):
        "Without numbers, which depend on the way"
        uid = {t.id: t.data['uid'] for t in self.tasks.values()}
        return dict(
            projects=[(p.title, p.label_config, p.model_version) for p in self.projects.values()],
            tasks=sorted(t.data['uid'] for t in self.tasks.values()),
            predictions=sorted(
                (uid[p.task], p.model_version, p.score, p.cluster, str(p.result))
                for p in self.predictions.values()
            ),
            storages=[s.path for s in self.storages.values()],
        )


def connected(server, monkeypatch, url='http://127.0.0.1:8080') -> LabelStudio:
    monkeypatch.setattr(connection, 'connect', lambda url, token: server.client())
    return LabelStudio(url, TOKEN)


def again(call):
    "What a person does whose connection was lost; how often it was"
    for lost in itertools.count():
        try:
            return call(), lost
        except ConnectionError as e:
            assert 'call again' in str(e) and TOKEN not in str(e)


def whole_story(server, monkeypatch, pool):
    ls, lost = connected(server, monkeypatch), 0
    first, second = (
        query_of(['text 4', 'text 1', 'text 0'], ['7', '$5', 'cat']),
        query_of(['text 2', 'text 4'], ['cat', 'cat']),
    )
    pool.record_acquisition(first)
    lost += again(lambda: ls.push(pool, first))[1]
    edited = server.annotate('text 4', 1, '7')
    server.annotate('text 4', 2, '$5')
    server.annotate('text 1', 2, was_cancelled=True)
    lost += again(lambda: ls.pull(pool))[1]
    pool.record_acquisition(second)
    lost += again(lambda: ls.push(pool, second))[1]
    server.annotate('text 4', 1, 'cat', edit=edited)
    server.annotate('text 2', 1, '<b>"dog" & co</b>')
    lost += again(lambda: ls.pull(pool))[1]
    return lost


STORY = [
    ('text 4', 'label', '7', 'anna@x.org', 1.5),
    ('text 4', 'label', '$5', 'ben', 1.5),
    ('text 1', 'skip', None, 'ben', 1.5),
    ('text 4', 'label', 'cat', 'anna@x.org', 1.5),
    ('text 2', 'label', '<b>"dog" & co</b>', 'anna@x.org', 1.5),
]


def test_the_story(monkeypatch):
    server, pool = Server(), text_pool()
    assert whole_story(server, monkeypatch, pool) == 0 and recorded(pool) == STORY
    state = server.state()
    assert state['tasks'] == ['text 0', 'text 1', 'text 2', 'text 4'] and [
        p[2] for p in state['projects']
    ] == ['round 2']
    assert [(u, v, s, c) for u, v, s, c, _ in state['predictions']] == [
        ('text 0', 'round 1', 0.75, 0),
        ('text 1', 'round 1', 0.5, 1),
        ('text 2', 'round 2', 1 / 3, None),
        ('text 4', 'round 1', 0.25, 3),
        ('text 4', 'round 2', 2 / 3, None),
    ]


@pytest.mark.parametrize('after', [False, True])
def test_a_connection_lost_at_every_call(after, monkeypatch):
    reference = Server()
    whole_story(reference, monkeypatch, text_pool())
    for at in range(1, reference.calls + 1):
        server, pool = Server(at, after), text_pool()
        assert whole_story(server, monkeypatch, pool) == 1, at
        assert recorded(pool) == STORY and server.state() == reference.state(), at


def test_calling_again_changes_nothing(monkeypatch):
    server, pool, query = Server(), text_pool(), query_of(['text 4', 'text 1'], ['cat', '7'])
    ls = connected(server, monkeypatch)
    address = ls.push(pool, query, title='Letters')
    before = server.state()
    assert (
        ls.push(pool, query) == address == f'{ls.url}/projects/1/data' and server.state() == before
    )
    server.annotate('text 4', 1, 'cat')
    assert ls.pull(pool).annotators == {'anna@x.org': 1}
    n = len(pool.history)
    assert (ls.pull(pool).labels, len(pool.history)) == (0, n)
    other = query_of(['text 1', 'text 4'], ['cat', '7'])  # of the same round, in another order
    ls.push(pool, other)
    assert [(u, s, c) for u, _, s, c, _ in server.state()['predictions']] == [
        ('text 1', 1 / 3, 0),
        ('text 4', 2 / 3, 3),
    ]


def standing(pool: Pool) -> dict:
    pool.sync()
    return {
        (u, by): e.label
        for u, s in pool.states().items()
        for recorded in (s.answers, s.skips)
        for by, e in recorded.items()
    }


def answered(monkeypatch, *answers, server=None):
    """A pool, a connection and a server on which people have answered; the numbers of their
    annotations"""
    server, pool = server or Server(), text_pool()
    ls = connected(server, monkeypatch)
    ls.push(pool, query_of(['text 4', 'text 1', 'text 0'], ['7', '$5', 'cat']))
    numbers = [
        server.annotate(*a) if a[2] else server.annotate(*a[:2], was_cancelled=True)
        for a in answers
    ]
    ls.pull(pool)
    return pool, ls, server, numbers


def test_an_annotation_that_is_deleted_is_taken_back_once(monkeypatch):
    pool, ls, server, (first, skip, other) = answered(
        monkeypatch, ('text 4', 1, '7'), ('text 1', 2, None), ('text 4', 2, '$5')
    )
    del server.annotations[first], server.annotations[skip]
    pulled = ls.pull(pool)
    assert (pulled.labels, pulled.skips, pulled.retracted) == (
        0,
        0,
        2,
    ) and '2 answers were retracted' in repr(pulled)
    assert standing(pool) == {('text 4', 'ben'): '$5'}
    last = pool.ledger.since()[-2:]
    assert {(e.uid, e.kind, e.source, e.note['annotation'], e.note['deleted']) for e in last} == {
        ('text 4', 'retract', 'anna@x.org', first, True),
        ('text 1', 'retract', 'ben', skip, True),
    }
    n, calls = len(pool.history), server.calls
    assert (
        ls.pull(pool).retracted == 0 and len(pool.history) == n and server.calls - calls == 3
    )  # nothing more is requested if nothing is missing
    server.annotate('text 4', 1, 'cat')
    assert ls.pull(pool).labels == 1 and standing(pool) == {
        ('text 4', 'ben'): '$5',
        ('text 4', 'anna@x.org'): 'cat',
    }


def test_another_annotation_of_the_same_person_counts_again(monkeypatch):
    pool, ls, server, (first, second, third) = answered(
        monkeypatch, ('text 4', 1, '7'), ('text 4', 1, 'cat'), ('text 4', 1, '$5')
    )
    assert standing(pool) == {('text 4', 'anna@x.org'): '$5'}
    del server.annotations[third]
    assert ls.pull(pool).retracted == 1 and standing(pool) == {('text 4', 'anna@x.org'): 'cat'}
    n = len(pool.history)
    assert ls.pull(pool).retracted == 0 and len(pool.history) == n
    del server.annotations[first]  # it does not stand: nothing to take back
    assert ls.pull(pool).retracted == 0 and len(pool.history) == n
    del server.annotations[second]
    assert ls.pull(pool).retracted == 1 and standing(pool) == {}


def test_only_what_was_pulled_from_this_project_and_was_deleted_is_taken_back(
    monkeypatch, tmp_path
):
    pool, ls, server, (first, second) = answered(
        monkeypatch, ('text 4', 1, '7'), ('text 1', 1, 'cat')
    )
    pool.label(['text 0'], ['cat'], annotator='anna@x.org')  # here
    pool.label(['text 1'], ['7'], annotator='anna@x.org')  # here, and later than there
    del server.annotations[second]
    assert ls.pull(pool).retracted == 0 and len(standing(pool)) == 3
    (tmp_path / 'part.json').write_text('[]')
    assert (
        from_label_studio(pool, tmp_path / 'part.json', 'class', CLASSES).retracted == 0
    )  # of an export that somebody made
    hidden = server.annotations.pop(first)
    export, server.annotations[first] = server.export, hidden
    server.export = lambda id, export_type: [b'[]']  # an export without what is there
    assert connected(server, monkeypatch).pull(pool).retracted == 0
    server.export = export
    del server.annotations[first]
    task = next(t for t in server.tasks.values() if t.data['uid'] == 'text 4')
    del server.tasks[task.id]  # the whole task: somebody tidied up
    ls = connected(server, monkeypatch)
    assert ls.pull(pool).retracted == 0 and standing(pool)['text 4', 'anna@x.org'] == '7'
    pool.ledger[SETTING] = {}  # another project: what came from the first one stays
    ls.push(pool, query_of(['text 4'], ['cat']))
    assert ls.pull(pool).retracted == 0 and standing(pool)['text 4', 'anna@x.org'] == '7'


def test_answers_pulled_before_projects_were_noted_stay(monkeypatch):
    pool, ls, server, _ = answered(monkeypatch)
    number = server.annotate('text 4', 1, '7')
    pool.label(
        ['text 4'],
        ['7'],
        annotator='anna@x.org',
        note=dict(annotation=number, updated=server.annotations[number]['updated_at']),
    )
    n = len(pool.history)
    assert ls.pull(pool).labels == 0 and len(pool.history) == n  # known
    del server.annotations[number]
    assert ls.pull(pool).retracted == 0 and len(pool.history) == n


@pytest.mark.parametrize('after', [False, True])
def test_a_connection_lost_while_deletions_are_looked_for(after, monkeypatch):
    for at in range(1, 8):
        pool, ls, server, (first, second) = answered(
            monkeypatch, ('text 4', 1, '7'), ('text 1', 2, 'cat')
        )
        del server.annotations[first], server.annotations[second]
        server.at, server.after = server.calls + at, after
        pulled, lost = again(lambda: ls.pull(pool))
        assert (
            lost == (at <= (4 if after else 6))
            and standing(pool) == {}
            and sum(e.kind == 'retract' for e in pool.ledger.since()) == 2
        ), at


def test_the_token_appears_nowhere(monkeypatch, tmp_path, caplog):
    caplog.set_level('DEBUG')
    pool, server = text_pool(db=tmp_path / 'labels.db'), Server(at=4)
    ls = connected(server, monkeypatch)
    with pytest.raises(ConnectionError) as lost:
        ls.push(pool, query_of(['text 4'], ['cat']))
    server.get = lambda id: (_ for _ in ()).throw(
        Refused(401, dict(detail=f'Invalid token {TOKEN}'))
    )
    ls = connected(server, monkeypatch)
    with pytest.raises(PermissionError, match='copy it again') as refused:
        ls.push(pool, query_of(['text 4'], ['cat']))
    everything = [
        str(lost.value),
        str(refused.value),
        repr(ls),
        repr(vars(ls)),
        caplog.text,
        str(pool.ledger[SETTING]),
    ] + [p.read_bytes().decode('latin-1') for p in tmp_path.iterdir()]
    assert not any(TOKEN in text or 'sessionid' in text for text in everything)
    for e in (lost.value, refused.value):
        assert e.__cause__ is None and e.__suppress_context__


@pytest.mark.parametrize('token', ['', ' ', 'to\nken', 'tökén'])
def test_tokens_that_none_has(token):
    with pytest.raises(ValueError, match='The token is empty or holds') as e:
        LabelStudio('http://127.0.0.1:1', token)
    assert not token.strip() or token not in str(e.value)


def test_the_sdk_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'label_studio_sdk', None)
    with pytest.raises(ImportError, match=r"pip install 'fastai_al\[labelstudio\]'"):
        LabelStudio('http://127.0.0.1:1', TOKEN)


def test_a_project_that_is_gone_or_another(monkeypatch):
    server, pool, query = Server(), text_pool(), query_of(['text 4'], ['cat'])
    ls = connected(server, monkeypatch)
    with pytest.raises(LookupError, match='Nothing of this pool has been pushed'):
        ls.pull(pool)
    ls.push(pool, query)
    other = Server()
    connected(other, monkeypatch).push(text_pool(), query)
    with pytest.raises(ValueError, match='is another'):
        connected(other, monkeypatch, 'http://elsewhere').push(pool, query)
    moved = connected(
        server, monkeypatch, 'http://127.0.0.1:9090'
    )  # the same server at another port
    moved.push(pool, query)
    assert pool.ledger[SETTING]['url'] == moved.url and len(server.projects) == 1
    server.projects.clear()
    for call in (lambda: moved.push(pool, query), lambda: moved.pull(pool)):
        with pytest.raises(LookupError, match='is not on http://127.0.0.1:9090 any more'):
            call()
    pool.ledger[SETTING] = {}
    moved.push(pool, query)
    assert len(server.projects) == 1


def test_classes_may_grow_and_what_people_arranged_stays(monkeypatch):
    server, pool, query = Server(), text_pool(), query_of(['text 4'], ['cat'])
    ls = connected(server, monkeypatch)
    ls.push(pool, query)
    project = next(iter(server.projects.values()))
    project.label_config = arranged = project.label_config.replace(
        '<View>', '<View><Header value="Hello"/>'
    )
    ls.push(pool, query)
    assert project.label_config == arranged
    ls.push(pool, query, classes=[*CLASSES, 'cow'])
    assert (
        project.label_config == labelling_config('class', [*CLASSES, 'cow'], 'text')
        and pool.ledger[SETTING]['classes'][-1] == 'cow'
    )
    with pytest.raises(ValueError, match="asks for 'class'"):
        ls.push(pool, query, kind='text')


def test_a_control_that_people_renamed_is_read_and_left_as_it_is(monkeypatch):
    server, pool, query = Server(), text_pool(), query_of(['text 4'], ['cat'])
    ls = connected(server, monkeypatch)
    ls.push(pool, query)
    project = next(iter(server.projects.values()))
    project.label_config = renamed = project.label_config.replace(
        'name="label"', 'name="mood"'
    ).replace('</View>', '<TextArea name="why" toName="item"/></View>')
    ls.push(pool, query)
    assert project.label_config == renamed
    answer = result_of('7', 'class', CLASSES)[0] | dict(from_name='mood')
    number = server.annotate('text 4', 1, '7')
    server.annotations[number]['result'] = [
        answer,
        dict(from_name='why', to_name='item', type='textarea', value=dict(text=['looks like one'])),
    ]
    pulled = ls.pull(pool)
    assert (
        [e[2] for e in recorded(pool)] == ['7']
        and pulled.refused == []
        and pulled.passed == {"textarea of 'why'": 1}
    )
    project.label_config = renamed.replace(
        '<TextArea name="why" toName="item"/>',
        '<Choices name="other" toName="item"><Choice value="7"/></Choices>',
    )
    with pytest.raises(ValueError, match="control='mood'"):
        ls.pull(pool)
    assert ls.pull(pool, control='mood').labels == 0 and len(recorded(pool)) == 1


def test_classes_of_masks_keep_their_places(monkeypatch, tmp_path):
    Image.new('L', (4, 4)).save(tmp_path / 'a.png')
    pool, ls = Pool([tmp_path / 'a.png'], root=tmp_path), connected(Server(), monkeypatch)
    query = query_of(['a.png'], [None])
    ls.push(pool, query, 'mask', ['ground', 'cell'])
    ls.push(pool, query)
    ls.push(pool, query, classes=['ground', 'cell', 'edge'])
    with pytest.raises(ValueError, match='masks hold the numbers of classes'):
        ls.push(pool, query, classes=['cell', 'ground', 'edge'])
    assert pool.ledger[SETTING]['classes'] == ['ground', 'cell', 'edge']


def test_bad_pushes_make_nothing(monkeypatch, tmp_path):
    server, pool = Server(), text_pool()
    ls = connected(server, monkeypatch)
    Image.new('L', (4, 4)).save(tmp_path / 'out.png')
    (tmp_path / 'root').mkdir()
    (tmp_path / 'root' / 'in.png').symlink_to(tmp_path / 'out.png')
    (tmp_path / 'root' / 'no.png').write_text('no picture')
    pictures = Pool(
        [tmp_path / 'root' / 'no.png', 'in.png'], root=tmp_path / 'root', uids=['no.png', 'in.png']
    )
    for call, error in [
        (lambda: ls.push(pool, query_of([], [])), 'empty'),
        (lambda: ls.push(pool, query_of(['text 1'], ['cow'])), 'none of the classes'),
        (lambda: ls.push(pool, query_of(['text 1'], ['cat']), clusters=[1, 2]), '2 clusters for 1'),
        (lambda: ls.push(pool, query_of(['text 1'], ['cat']), 'boxes'), 'drawn on pictures'),
        (
            lambda: ls.push(pictures, query_of(['in.png'], ['cat']), classes=['cat']),
            'does not lie under the root',
        ),
        (
            lambda: ls.push(
                pictures, query_of(['in.png'], ['cat']), classes=['cat'], images='local'
            ),
            'does not lie under the root',
        ),
        (
            lambda: ls.push(pictures, query_of(['no.png'], ['cat']), classes=['cat']),
            'can not be read as a picture',
        ),
        (
            lambda: ls.push(
                pictures, query_of(['no.png'], ['cat']), classes=['cat'], images='local'
            ),
            'would be served',
        ),
        (
            lambda: ls.push(pictures, query_of(['no.png'], ['cat']), classes=['cat'], images='ftp'),
            "images='ftp' is not known",
        ),
    ]:
        with pytest.raises((ValueError, PermissionError), match=error):
            call()
    with pytest.raises(KeyError, match='knows no'):
        ls.push(pool, query_of(['text 99'], ['cat']))
    assert server.calls == 0 and pool.ledger[SETTING] is None and pictures.ledger[SETTING] is None


def test_local_pictures_have_one_storage(monkeypatch, tmp_path):
    Image.new('L', (4, 4)).save(tmp_path / 'a b.png')
    server, pool = Server(), Pool([tmp_path / 'a b.png'], root=tmp_path)
    ls = connected(server, monkeypatch)
    for _ in range(2):
        ls.push(pool, query_of(['a b.png'], ['cat']), classes=['cat', 'dog'], images='local')
    assert (
        server.state()['storages'] == [str(tmp_path)]
        and next(iter(server.tasks.values())).data['image']
        == f'/data/local-files/?d={tmp_path.name}/a%20b.png'
    )
    server, pool = Server(), Pool([tmp_path / 'a b.png'], root=tmp_path)
    connected(server, monkeypatch).push(
        pool,
        query_of(['a b.png'], ['cat']),
        classes=['cat', 'dog'],
        images=lambda uid: f'https://x.org/{uid}',
    )
    assert (
        next(iter(server.tasks.values())).data == dict(uid='a b.png', image='https://x.org/a b.png')
        and not server.storages
    )


def test_large_imports_go_in_parts(monkeypatch):
    monkeypatch.setattr(labelstudio, '_CHUNK', 50)
    tasks = [dict(data=dict(uid=str(i), text='x' * (i * 10))) for i in range(7)]
    parts = list(_chunks(iter(tasks)))
    assert (
        [t for part in parts for t in part] == tasks
        and all(parts)
        and len(parts) > 3
        and list(_chunks(iter([]))) == []
    )


# ---- The real server


def _environment() -> Path:
    """The folder of an environment that holds Label Studio, kept for the next time;
    LABEL_STUDIO_VENV says where"""
    folder = Path(
        os.environ.get('LABEL_STUDIO_VENV')
        or Path(tempfile.gettempdir()) / f'label-studio-{sys.version_info[0]}.{sys.version_info[1]}'
    )
    if not (folder / 'bin' / 'label-studio').exists():
        subprocess.run([sys.executable, '-m', 'venv', folder], check=True)
        wanted, pip = (
            'label-studio>=1.23,<1.24',
            [folder / 'bin' / 'python', '-m', 'pip', 'install', '-q'],
        )
        # half a minute where pip alone takes three; it does not read pip's settings, so it may find
        # no index
        subprocess.run([*pip, 'uv'], check=True)
        by_uv = subprocess.run(
            [
                folder / 'bin' / 'uv',
                'pip',
                'install',
                '-q',
                '--python',
                folder / 'bin' / 'python',
                wanted,
            ],
            capture_output=True,
        )
        if by_uv.returncode:
            subprocess.run([*pip, wanted], check=True)
    return folder


def _page(opener, url, data=None) -> bytes:
    with opener.open(
        urllib.request.Request(
            url, urllib.parse.urlencode(data).encode() if data else None, {'Referer': url}
        )
    ) as answer:
        return answer.read()


def _sign_up(url: str, email: str, invite: str) -> str:
    "Another annotator's token"
    jar = http.cookiejar.CookieJar()
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
    _page(opener, f'{url}/user/signup/')
    csrf = next(c.value for c in jar if c.name == 'csrftoken')
    _page(
        opener,
        f'{url}/user/signup/?token={invite}',
        dict(email=email, password='long enough 7', csrfmiddlewaretoken=csrf),
    )
    return json.loads(_page(opener, f'{url}/api/current-user/token'))['token']


@pytest.fixture(scope='module')
def server(tmp_path_factory):
    "A server with two people, for the length of this module; it and all it has started end with it"
    venv, data = _environment(), tmp_path_factory.mktemp('labelstudio')
    packages = str(next((venv / 'lib').glob('python*/site-packages')))
    for name in ('files', 'data'):
        (data / name).mkdir()
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    own = dict(
        HOME=str(data),
        LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED='true',
        LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT=str(data / 'files'),
        COLLECT_ANALYTICS='false',
        LATEST_VERSION_CHECK='false',
    )
    kept = {k: v for k, v in os.environ.items() if k not in ('PYTHONPATH', 'PYTHONWARNINGS')}
    command = [
        venv / 'bin' / 'label-studio',
        'start',
        '--no-browser',
        '--internal-host',
        '127.0.0.1',
        '--port',
        str(port),
        '--data-dir',
        data / 'data',
        '--username',
        'anna@x.org',
        '--password',
        'long enough 7',
        '--user-token',
        TOKEN,
        '--enable-legacy-api-token',
    ]
    with open(data / 'log', 'wb') as log:
        process = subprocess.Popen(
            command, env=kept | own, stdout=log, stderr=log, cwd=data, start_new_session=True
        )
    try:
        url, until = f'http://127.0.0.1:{port}', time.time() + 300
        while True:
            try:
                urllib.request.urlopen(f'{url}/health', timeout=5)
                break
            except OSError:
                assert process.poll() is None and time.time() < until, (data / 'log').read_text()[
                    -3000:
                ]
                time.sleep(0.5)
        sys.path.append(
            packages
        )  # at the end, so that the SDK is found there and nothing else is taken from there
        from label_studio_sdk import LabelStudio as Client

        anna = Client(base_url=url, api_key=TOKEN)
        with urllib.request.urlopen(
            urllib.request.Request(f'{url}/api/invite', headers={'Authorization': f'Token {TOKEN}'})
        ) as answer:
            invite = json.loads(answer.read())['token']
        token = _sign_up(url, 'ben@x.org', invite)
        yield Box(
            url=url,
            anna=anna,
            ben=Client(base_url=url, api_key=token),
            token=token,
            files=data / 'files',
            log=data / 'log',
        )
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        if packages in sys.path:
            sys.path.remove(packages)


def tasks_in(client, pool: Pool) -> dict:
    return {
        t.data['uid']: t
        for t in client.tasks.list(
            project=pool.ledger[SETTING]['project'], fields='all', page_size=500
        )
    }


def next_task(server, client_token: str, pool: Pool) -> str:
    project = pool.ledger[SETTING]['project']
    request = urllib.request.Request(
        f'{server.url}/api/projects/{project}/next',
        headers={'Authorization': f'Token {client_token}'},
    )
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read())['data']['uid']


@pytest.mark.server
def test_round_trip_with_a_server(server, tmp_path):
    pool = text_pool(260, db=tmp_path / 'labels.db')
    ls, uids = LabelStudio(server.url, TOKEN), [f'text {i}' for i in range(260)]
    first = query_of(uids[:200], map(class_of, uids[:200]))
    pool.record_acquisition(first)
    began = time.time()
    ls.push(pool, first, title='Letters & "more"')
    print(f'push of 200: {time.time() - began:.0f} s')
    tasks = tasks_in(server.anna, pool)
    assert sorted(tasks) == sorted(uids[:200])
    p = tasks['text 1'].predictions[0]
    assert (p.model_version, p.score, p.cluster, label_of(p.result, 'class', CLASSES)) == (
        'round 1',
        2 / 201,
        1,
        '$5',
    )

    served, answers = [], {}
    for _ in range(
        8
    ):  # one person alone: the first of each cluster, and again, in the order of the query
        uid = next_task(server, TOKEN, pool)
        served.append(uid)
        server.anna.annotations.create(
            id=tasks[uid].id, result=result_of(class_of(uid), 'class', CLASSES), lead_time=2.5
        )
        answers[uid, 'anna@x.org'] = class_of(uid)
    assert (
        sorted(served[:4]) == uids[:4] and sorted(served[4:]) == uids[4:8] and served[0] == 'text 0'
    )
    for uid in uids[8:60]:
        server.anna.annotations.create(
            id=tasks[uid].id, result=result_of(class_of(uid), 'class', CLASSES), lead_time=2.5
        )
        answers[uid, 'anna@x.org'] = class_of(uid)
    for i, uid in enumerate(uids[50:90]):
        skip = i % 4 == 0
        server.ben.annotations.create(
            id=tasks[uid].id,
            result=[] if skip else result_of('cat', 'class', CLASSES),
            was_cancelled=skip,
            lead_time=1.0,
        )
        answers[uid, 'ben@x.org'] = None if skip else 'cat'

    def stands():
        return {
            (u, by): e.label if e.kind == 'label' else None
            for u in uids
            for recorded in (pool.state(u).answers, pool.state(u).skips)
            for by, e in recorded.items()
        }

    pulled = ls.pull(pool)
    assert (pulled.labels, pulled.skips, pulled.annotators, pulled.unknown, pulled.refused) == (
        90,
        10,
        {'anna@x.org': 60, 'ben@x.org': 40},
        [],
        [],
    )
    assert stands() == answers and {
        e.seconds for e in pool.ledger.since() if e.source == 'anna@x.org'
    } == {2.5}
    n = len(pool.history)
    assert ls.pull(pool).labels == 0 and len(pool.history) == n

    second = query_of(uids[190:260][::-1], ['cat'] * 70)  # ten are there already, and now come last
    pool.record_acquisition(second)
    ls.push(pool, second)
    tasks = tasks_in(server.anna, pool)
    assert sorted(tasks) == sorted(uids) and [
        sorted(p.model_version for p in tasks[u].predictions)
        for u in ('text 0', 'text 195', 'text 250')
    ] == [['round 1'], ['round 1', 'round 2'], ['round 2']]
    assert next_task(server, TOKEN, pool) in second.uids
    edited = (
        tasks['text 3'].annotations[0]['id']
        if isinstance(tasks['text 3'].annotations[0], dict)
        else tasks['text 3'].annotations[0].id
    )
    server.anna.annotations.update(edited, result=result_of('cat', 'class', CLASSES))
    server.ben.annotations.create(
        id=tasks['text 250'].id, result=result_of('7', 'class', CLASSES), lead_time=1.0
    )
    server.anna.projects.import_tasks(
        id=pool.ledger[SETTING]['project'], request=[dict(data=dict(uid='stranger', text='x'))]
    )
    server.anna.annotations.create(
        id=tasks_in(server.anna, pool)['stranger'].id, result=result_of('cat', 'class', CLASSES)
    )
    pulled = ls.pull(pool)
    answers |= {('text 3', 'anna@x.org'): 'cat', ('text 250', 'ben@x.org'): '7'}
    assert (
        (pulled.labels, pulled.skips, pulled.unknown) == (2, 0, ['stranger'])
        and stands() == answers
        and len(pool.history) == n + 70 + 2
    )
    numbers = {
        (e.uid, e.source): e.note['annotation']
        for e in pool.ledger.since()
        if isinstance(e.note, dict) and 'annotation' in e.note
    }
    for key in (('text 3', 'anna@x.org'), ('text 250', 'ben@x.org')):
        server.anna.annotations.delete(numbers[key])
    server.anna.tasks.delete(tasks['text 5'].id)  # a task that goes takes no answer with it
    pulled = ls.pull(pool)
    for key in (('text 3', 'anna@x.org'), ('text 250', 'ben@x.org')):
        del answers[key]
    assert (
        (pulled.labels, pulled.retracted) == (0, 2)
        and stands() == answers
        and ls.pull(pool).retracted == 0
    )
    assert not any(TOKEN.encode() in f.read_bytes() for f in tmp_path.iterdir())


@pytest.mark.server
def test_order_before_and_after_a_second_push(server):
    pool, ls = (
        text_pool(8),
        LabelStudio(server.url, server.anna.tokens.create().token),
    )  # a personal access token
    uids = [f'text {i}' for i in range(8)]
    for order in uids[:6], [uids[k] for k in (4, 7, 2, 6)]:
        query = query_of(order, ['cat'] * len(order))
        pool.record_acquisition(query)
        ls.push(pool, query)
        tasks = tasks_in(server.anna, pool)
        for uid in order[:2]:  # of the second round in its order, though round one says otherwise
            assert next_task(server, TOKEN, pool) == uid
            server.anna.annotations.create(
                id=tasks[uid].id, result=result_of('cat', 'class', CLASSES)
            )
    assert [next_task(server, token, pool) for token in (TOKEN, server.token)] == order[
        2:
    ]  # two people at once


@pytest.mark.server
def test_every_kind_of_answer_with_a_server(server, tmp_path):
    root = server.files / 'kinds'
    root.mkdir()
    Image.fromarray(np.arange(40 * 64, dtype=np.uint8).reshape(40, 64)).save(root / 'a b.png')
    ls, names = (
        LabelStudio(server.url, TOKEN),
        ['ground', '<cell> & "co"', '$5', 'x name="label" toName="it\'s"'],
    )
    mask = np.zeros((40, 64), dtype=np.uint8)
    mask[3:9, 5:60], mask[20:, :9] = 1, 2
    boxes = dict(boxes=[[1, 2, 31, 40], [0, 0, 64, 7]], labels=['$5', 'ground'])
    for kind, label, classes in [
        ('class', '<cell> & "co"', names),
        ('labels', ['$5', 'ground'], names),
        ('labels', [], names),
        ('value', -2.5, None),
        ('text', 'a <b>word</b>\nor two', None),
        ('boxes', boxes, names),
        ('mask', mask, names),
    ]:
        pool = Pool([root / 'a b.png'], root=root)
        ls.push(pool, query_of(['a b.png'], [None if kind == 'mask' else label]), kind, classes)
        task = tasks_in(server.anna, pool)['a b.png']
        if kind != 'mask' and label:
            assert label_of(task.predictions[0].result, kind, classes) == label
        server.anna.annotations.create(
            id=task.id, result=result_of(label, kind, classes, size=(64, 40))
        )
        pulled = ls.pull(pool)
        got = next(e.label for e in pool.ledger.since() if e.kind == 'label')
        assert not pulled.refused and pulled.labels == 1
        if kind == 'mask':
            np.testing.assert_array_equal(np.array(Image.open(root / got)), mask)
        else:
            assert got == label, kind


@pytest.mark.server
def test_local_files_with_a_server(server):
    root = server.files / 'pictures'
    (root / 'sub').mkdir(parents=True)
    for name in ('sub/ä b&c#1.png', 'x.png'):
        Image.new('L', (8, 6), 77).save(root / name)
    Image.new('L', (8, 6), 77).save(server.files / 'secret.png')
    pool, ls = Pool.from_folder(root), LabelStudio(server.url, TOKEN)
    for _ in range(2):
        ls.push(
            pool,
            query_of(['sub/ä b&c#1.png', 'x.png'], ['cat', 'dog']),
            'class',
            ['cat', 'dog'],
            images='local',
        )

    def status(path, token=TOKEN):
        try:
            return urllib.request.urlopen(
                urllib.request.Request(
                    server.url + path, headers={'Authorization': f'Token {token}'} if token else {}
                )
            ).read()
        except urllib.error.HTTPError as e:
            return e.code

    tasks = tasks_in(server.anna, pool)
    assert len(tasks) == 2
    for uid, task in tasks.items():
        assert status(task.data['image']) == (root / uid).read_bytes()
    for path in ('secret.png', 'pictures/../secret.png', '../data/label_studio.sqlite3'):
        assert status(f'/data/local-files/?d={path}') in (400, 403, 404, 500), (
            path
        )  # 500: its own guard against paths that climb
    assert status(tasks['x.png'].data['image'], None) in (401, 403)
    outside = server.files.parent / 'elsewhere'
    outside.mkdir()
    Image.new('L', (8, 6), 77).save(outside / 'x.png')
    with pytest.raises(RuntimeError, match='LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT='):
        ls.push(
            Pool.from_folder(outside),
            query_of(['x.png'], ['cat']),
            'class',
            ['cat', 'dog'],
            images='local',
        )


@pytest.mark.server
def test_files_with_a_server(server, tmp_path):
    pool = text_pool()
    to_label_studio(pool, query_of(['text 4', 'text 1'], ['cat', '7']), tmp_path / 'tasks.json')
    project = server.anna.projects.create(
        title='by hand', label_config=(tmp_path / 'tasks.xml').read_text()
    )
    ids = server.anna.projects.import_tasks(
        id=project.id,
        request=json.loads((tmp_path / 'tasks.json').read_text()),
        return_task_ids=True,
    ).task_ids
    server.anna.annotations.create(id=ids[0], result=result_of('$5', 'class', CLASSES))
    (tmp_path / 'export.json').write_bytes(
        b''.join(server.anna.projects.exports.download_sync(project.id, export_type='JSON'))
    )
    assert (
        from_label_studio(pool, tmp_path / 'export.json', 'class', people={1: 'anna@x.org'}).labels
        == 1
    )
    assert [(e[0], e[2], e[3]) for e in recorded(pool)] == [('text 4', '$5', 'anna@x.org')]


@pytest.mark.server
def test_errors_of_a_server(server, caplog):
    caplog.set_level('DEBUG')
    pool, query = text_pool(), query_of(['text 4'], ['cat'])
    with pytest.raises(PermissionError, match='rejects this token') as refused:
        LabelStudio(server.url, 'b' * 40).push(pool, query)
    with pytest.raises(ConnectionError, match='could not be reached') as lost:
        LabelStudio('http://127.0.0.1:1', TOKEN).push(pool, query)
    ls = LabelStudio(server.url, TOKEN)
    ls.push(pool, query)
    server.anna.projects.delete(pool.ledger[SETTING]['project'])
    with pytest.raises(LookupError, match='any more') as gone:
        ls.pull(pool)
    pool.ledger[SETTING] = {}
    ls.push(pool, query)
    texts = [str(e.value) for e in (refused, lost, gone)] + [
        repr(ls),
        repr(vars(ls)),
        str(pool.ledger[SETTING]),
    ]
    assert not any('sessionid' in t for t in texts)
    assert not any(
        TOKEN in t or 'b' * 40 in t for t in texts + [r.getMessage() for r in caplog.records]
    )


@pytest.mark.server
def test_exports_are_those_of_the_sdk(server):
    assert json.loads(json.dumps(labelstudio_exports.everything())) == json.loads(
        (labelstudio_exports.FOLDER / 'exports.json').read_text()
    )


@pytest.mark.server
@pytest.mark.parametrize(
    'name, kind, control',
    [
        ('choices', 'class', None),
        ('several_choices', 'labels', None),
        ('numbers', 'value', None),
        ('stars', 'value', None),
        ('texts', 'text', None),
        ('rectangles', 'boxes', None),
        ('quarter_turns', 'boxes', None),
        ('brushes', 'mask', None),
        ('several_controls', 'boxes', 'bbox'),
        ('two_choices', 'labels', 'signs'),
        ('relations', 'boxes', None),
        ('turned_by_exif', 'boxes', None),
        ('turned_view', 'boxes', None),
        ('by_the_api', 'boxes', None),
        ('nothing_drawn', 'boxes', None),
        ('slanted', 'boxes', None),
        ('polygons', 'boxes', None),
        ('ellipses', 'boxes', None),
        ('without_numbers', 'class', None),
    ],
)
def test_what_others_set_up_with_a_server(server, tmp_path, name, kind, control):
    """The same answers as from the file, once they have been through a server, whose people and
    numbers are others"""
    exports = json.loads((labelstudio_exports.FOLDER / 'exports.json').read_text())[name]
    for uid, turn in (
        ('plain.png', 1),
        ('other.png', 1),
        ('turned.jpg', 6),
        ('upside_down.jpg', 3),
    ):
        exif = Image.Exif()
        exif[0x0112] = turn
        Image.new('L', (labelstudio_exports.WIDTH, labelstudio_exports.HEIGHT)).save(
            tmp_path / uid, exif=exif
        )
    project = server.anna.projects.create(title=name, label_config=labelstudio_exports.CONFIG)
    tasks = [
        dict(
            data=t['data'],
            annotations=[
                {k: v for k, v in a.items() if k in ('result', 'was_cancelled', 'lead_time')}
                for a in t['annotations']
            ],
        )
        for t in exports
    ]
    server.anna.projects.import_tasks(id=project.id, request=tasks)

    def export(kind):
        return json.loads(
            b''.join(server.anna.projects.exports.download_sync(project.id, export_type=kind))
        )

    classes = dict(labels=['old', 'ill'], mask=['ground', 'fur', 'eye']).get(
        kind, None if kind in ('value', 'text') else ['cat', 'dog']
    )

    def read(tasks):
        pool = Pool.from_folder(tmp_path)
        pulled = receive(pool, tasks, kind, classes, control=control)
        return sorted(
            [
                (e.uid, e.kind, str(e.label))
                for e in pool.ledger.since()
                if e.kind in ('label', 'skip')
            ]
        ), sorted(r[2] for r in pulled.refused)

    assert read(export('JSON')) == read(exports) and read(exports) != ([], [])
    with pytest.raises(ValueError, match='is JSON-MIN'):
        read(export('JSON_MIN'))


@pytest.mark.server
def test_brushes_as_the_sdk_writes_them(server):
    from label_studio_sdk.converter import brush

    from fastai_al.annotate.labelstudio.rle import decode_rle, encode_rle

    rng = np.random.default_rng(0)
    for shape, share in [
        ((7, 5), 0.5),
        ((64, 64), 0.02),
        ((300, 400), 0),
        ((300, 400), 1),
        ((1, 1), 1),
    ]:
        mask = rng.random(shape) < share
        theirs, ours = brush.mask2rle(mask.astype(np.uint8) * 255), encode_rle(mask)
        np.testing.assert_array_equal(decode_rle(theirs, *shape), mask)
        np.testing.assert_array_equal(brush.decode_rle(ours).reshape(*shape, 4)[..., 3] > 0, mask)
        assert ours == theirs[: len(ours)] and not any(theirs[len(ours) :])


def chain(e):
    "An error and all that it came from, whatever a traceback shows of it"
    while e is not None:
        yield e
        e = e.__cause__ or e.__context__


def pieces(text, n=8):
    return any(TOKEN[i : i + n] in text for i in range(len(TOKEN) - n + 1))


@pytest.mark.parametrize(
    'refusal',
    [
        Refused(401, dict(detail=f'Invalid token {TOKEN}')),
        Refused(500, 'x' * 480 + TOKEN),
        Refused(502, 'x' * 280 + TOKEN),
        Refused(400, dict(validation_errors=['y' * 470 + TOKEN])),
        Refused(404, TOKEN),
        RuntimeError(f'{"z" * 290}{TOKEN}'),
        ConnectionResetError(f'lost with {TOKEN}'),
    ],
    ids=lambda e: f'{type(e).__name__} {getattr(e, "status_code", "")}',
)
@pytest.mark.parametrize(
    'call', ['list', 'get', 'create', 'import_tasks', 'import_predictions', 'export', 'connect']
)
def test_no_part_of_the_token_is_in_an_error_or_in_what_it_came_from(
    call, refusal, monkeypatch, tmp_path, caplog, capfd
):
    caplog.set_level('DEBUG')
    server, pool, query = (
        Server(),
        text_pool(db=tmp_path / 'labels.db'),
        query_of(['text 4'], ['cat']),
    )

    def fail(*args, **kwargs):
        raise refusal

    if call in ('get', 'export'):
        connected(server, monkeypatch).push(pool, query)
    client = server.client()
    if call == 'export':
        client.projects.exports.download_sync = fail
    elif call != 'connect':
        setattr(client.projects, call, fail)
    monkeypatch.setattr(
        connection, 'connect', fail if call == 'connect' else lambda url, token: client
    )
    with pytest.raises(Exception) as e:
        ls = LabelStudio('http://127.0.0.1:8080', TOKEN)
        ls.pull(pool) if call == 'export' else ls.push(pool, query)
        pool.record_acquisition(query)
        ls.push(pool, query)  # what is only requested the second time
    for one in chain(e.value):
        assert (
            one is not refusal
            and not pieces(''.join(traceback.format_exception_only(one)))
            and 'sessionid' not in str(one)
        )
    pool.close()
    everything = [
        caplog.text,
        *capfd.readouterr(),
        *(p.read_bytes().decode('latin-1') for p in tmp_path.iterdir()),
    ]
    assert not any(pieces(text) for text in everything)


def test_a_connection_is_neither_pickled_nor_copied(monkeypatch):
    ls = connected(Server(), monkeypatch)
    for call in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match='holds a token.*Create it where it is needed'):
            call(ls)


def test_a_report_and_a_file_of_tasks_know_no_token(monkeypatch, tmp_path):
    server, pool, query = (
        Server(),
        text_pool(db=tmp_path / 'labels.db'),
        query_of(['text 4'], ['cat']),
    )
    ls = connected(server, monkeypatch)
    ls.push(pool, query)
    server.annotate('text 4', 1, 'cat')
    pulled = ls.pull(pool)
    to_label_studio(pool, query, tmp_path / 'tasks.json')
    pool.copy_to(tmp_path / 'copy.db')
    rows = pd.DataFrame(
        [
            dict(by='random', seed=0, round=r, labelled=2 + r, accuracy=0.5, valid_loss=1.0)
            for r in range(2)
        ]
    )
    write_report(
        Campaigns(rows, {('random', 0): pool}, {'text 4': 'cat'}, dict(server=ls, pulled=pulled)),
        tmp_path / 'report.html',
    )
    assert not any(
        pieces(p.read_bytes().decode('latin-1')) for p in tmp_path.iterdir()
    ) and not pieces(repr((ls, pulled, pool, vars(ls))))
