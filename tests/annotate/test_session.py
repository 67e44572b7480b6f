"""What a person may answer, how an item looks to them, and a sitting: against garbage, hostile
files, failing disks and other people"""

import io
import json
import math
import sys
import tempfile
import time

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.data.block import CategoryBlock, DataBlock
from fastai.vision.core import PILImageBW
from fastai.vision.data import ImageBlock
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fastai_al.annotate.question import Question, other_classes, question_of, to_label, to_places
from fastai_al.annotate.session import Session
from fastai_al.annotate.views import View, Views, image_view, path_inside
from fastai_al.pool.ledger import Event
from fastai_al.pool.pool import Pool

ASKED = {
    'class': Question('class', ('cat', 'dog', 7)),
    'labels': Question('labels', ('old', 'red', 'round')),
    'value': Question('value'),
    'boxes': Question('boxes', ('cell', 'dust')),
    'mask': Question('mask', ('sky', 'sea')),
    'text': Question('text'),
}
GARBAGE = [
    None,
    True,
    False,
    -1,
    3,
    10**400,
    -(10**5000),
    1.0,
    0.5,
    math.nan,
    math.inf,
    '',
    ' \n',
    '0',
    'cat',
    '\ud800',
    [],
    {},
    [[]],
    [[0]],
    [None],
    [True],
    [-1],
    ['0'],
    [0, 9],
    [math.nan],
    {'0': 1},
    {'boxes': []},
    {'labels': []},
    {'boxes': {}, 'labels': {}},
    {'boxes': '', 'labels': ''},
    {'boxes': [[0, 0, 1, 1]], 'labels': []},
    {'boxes': [], 'labels': [0]},
    {'boxes': [[0, 0, 1]], 'labels': [0]},
    {'boxes': [[0, 0, math.nan, 1]], 'labels': [0]},
    {'boxes': [[0, 0, 10**400, 1]], 'labels': [0]},
    {'boxes': [[0, 0, '1', 1]], 'labels': [0]},
    {'boxes': [[0, 0, True, 1]], 'labels': [0]},
    {'boxes': [[1, 1, 1, 5]], 'labels': [0]},
    {'boxes': [[0, 0, 1, 1]], 'labels': [True]},
    {'boxes': [[0, 0, 1, 1]], 'labels': [[0]]},
    {'boxes': [None], 'labels': [None]},
]
MEANT = {
    ('labels', '[]'),
    ('value', '-1'),
    ('value', '3'),
    ('value', '1.0'),
    ('value', '0.5'),
    ('mask', "'0'"),
    ('mask', "'cat'"),
    ('text', "'0'"),
    ('text', "'cat'"),
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda o: (
        st.lists(o, max_size=4)
        | st.dictionaries(st.sampled_from(['boxes', 'labels', 'x']), o, max_size=3)
    ),
    max_leaves=12,
)


def is_label(question: Question, label) -> bool:
    "Written once more, from the other side: may this stand in the ledger as an answer?"
    json.dumps(label, allow_nan=False, ensure_ascii=False).encode()
    if question.kind == 'class':
        return label in question.classes
    if question.kind == 'labels':
        return label == [c for c in question.classes if c in label]
    if question.kind == 'value':
        return type(label) is float
    if question.kind == 'boxes':
        whole = len(label['boxes']) == len(label['labels']) and set(label['labels']) <= set(
            question.classes
        )
        return whole and all(0 <= l < r <= 20 and 0 <= t < b <= 10 for l, t, r, b in label['boxes'])
    return bool(label.strip())


@pytest.mark.parametrize('kind', ASKED)
@pytest.mark.parametrize('said', GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_a_value_error(kind, said):
    if (
        not isinstance(said, int)
        and (kind, repr(said)) in MEANT
        or said in (-1, 3)
        and kind == 'value'
    ):
        assert is_label(ASKED[kind], to_label(ASKED[kind], said, (20, 10)))
    else:
        with pytest.raises(ValueError, match='.') as error:
            to_label(ASKED[kind], said, (20, 10))
        assert len(str(error.value)) < 300


@given(st.sampled_from(list(ASKED)), JSON)
@settings(max_examples=150, deadline=None)
def test_anything_is_a_label_or_a_value_error(kind, said):
    try:
        label = to_label(ASKED[kind], said, (20, 10))
    except ValueError:
        return
    assert is_label(ASKED[kind], label)


@given(st.sampled_from(list(ASKED)), JSON)
@settings(max_examples=150, deadline=None)
def test_any_label_has_places_or_none(kind, label):
    places = to_places(ASKED[kind], label)
    if places is not None:
        assert is_label(ASKED[kind], to_label(ASKED[kind], places)) or kind == 'boxes'


corners = st.tuples(st.floats(0, 9), st.floats(0, 4), st.floats(10, 20), st.floats(5, 10)).map(list)
LABELS = {
    'class': st.sampled_from(['cat', 'dog', 7]),
    'labels': st.sets(st.sampled_from([0, 1, 2])).map(
        lambda s: [('old', 'red', 'round')[i] for i in sorted(s)]
    ),
    'value': st.floats(allow_nan=False, allow_infinity=False),
    'text': st.text(st.characters(codec='utf-8'), min_size=1).filter(str.strip),
    'mask': st.just('masks/1.png'),
    'boxes': st.lists(st.tuples(corners, st.sampled_from(['cell', 'dust']))).map(
        lambda both: {'boxes': [b for b, _ in both], 'labels': [c for _, c in both]}
    ),
}


@given(st.data())
@settings(max_examples=120, deadline=None)
def test_a_label_survives_its_way_to_the_browser(data):
    kind = data.draw(st.sampled_from(list(ASKED)))
    label = data.draw(LABELS[kind])
    sent = json.loads(json.dumps(to_places(ASKED[kind], label)))
    assert to_label(ASKED[kind], sent, (20, 10)) == label


@pytest.mark.parametrize(
    'kind, label',
    [
        ('class', 'hen'),
        ('class', ['cat']),
        ('class', None),
        ('labels', ['hen']),
        ('labels', 'old'),
        ('labels', {'old': 1}),
        ('value', 'x'),
        ('value', True),
        ('value', 10**400),
        ('boxes', []),
        ('boxes', {'boxes': []}),
        ('boxes', {'boxes': [[0, 0, 1, 1]], 'labels': []}),
        ('boxes', {'boxes': [[0, 0, 1, 1]], 'labels': ['hen']}),
        ('text', 3),
        ('mask', None),
    ],
)
def test_what_is_no_answer_has_no_places(kind, label):
    assert to_places(ASKED[kind], label) is None


@given(st.sampled_from(list(ASKED)), JSON)
@settings(max_examples=150, deadline=None)
def test_other_classes_are_what_keeps_a_label_from_having_places(kind, label):
    extra = other_classes(ASKED[kind], label)
    json.dumps([extra, to_places(ASKED[kind], label, extra)])
    if (
        kind == 'labels'
        and isinstance(label, list)
        and all(isinstance(c, (str, int, float)) and c == c for c in label)
    ):
        assert len(to_places(ASKED[kind], label, extra)) == len(label)


def test_a_string_is_no_list_of_its_letters():
    assert to_places(Question('labels', ('a', 'b')), 'ab') is None


@pytest.mark.parametrize(
    'classes, why',
    [
        ((), 'Pass them'),
        ('cat', 'one string'),
        ((1, '1'), 'twice'),
        ((1, 1.0), 'twice'),
        ((True, 1), 'twice'),
        ((None,), 'cannot be a class'),
        (([1],), 'cannot be a class'),
        ((math.nan,), 'cannot be a class'),
    ],
)
def test_odd_classes_are_refused(classes, why):
    with pytest.raises(ValueError, match=why):
        Question('class', classes)
    if classes != ():
        with pytest.raises(ValueError, match=why):
            question_of(Pool(['a']), classes=classes)


def test_the_question_follows_from_labels_of_boxes_with_mixed_names():
    boxes = [{'boxes': [[0, 0, 1, 1]], 'labels': [c]} for c in ('b', 1)]
    assert question_of(Pool(['1', '2'], boxes)) == Question('boxes', (1, 'b'))
    assert question_of(Pool(['1', '2'], [True, False])).classes == (False, True)
    assert question_of(Pool(['1'], ['1.png']), kind='mask', classes=iter(['sky'])).classes == (
        'sky',
    )
    assert question_of(Pool(['1'], ['a']), kind='text').classes == ()


# views


def shown(view: View) -> Image.Image:
    return Image.open(io.BytesIO(view.image))


@pytest.mark.parametrize(
    'mode',
    ['1', 'L', 'P', 'LA', 'PA', 'RGB', 'RGBA', 'CMYK', 'YCbCr', 'HSV', 'I', 'F', 'I;16', 'I;16B'],
)
def test_each_mode_of_a_picture_is_shown(mode):
    view = image_view(Image.new(mode, (7, 5)))
    assert (view.kind, view.mime, view.size, shown(view).size) == (
        'image',
        'image/png',
        (7, 5),
        (7, 5),
    )
    assert shown(view).mode in ('L', 'RGB')
    json.dumps(view.message())


def test_16_bits_are_stretched_and_not_cut_off():
    steps = np.linspace(1000, 40000, 12).astype(np.uint16).reshape(3, 4)
    seen = np.asarray(shown(image_view(Image.fromarray(steps)))).astype(int)
    assert (seen.min(), seen.max()) == (0, 255) and (np.diff(seen.ravel()) > 0).all()


@pytest.mark.parametrize(
    'pixels, expected',
    [
        ([[math.nan, 0.0], [1.0, 0.5]], [[0, 0], [255, 128]]),
        ([[math.nan] * 2] * 2, [[0, 0]] * 2),
        ([[math.inf, 0.0], [2.0, -math.inf]], [[255, 0], [255, 0]]),
        ([[5.0, 5.0], [5.0, 5.0]], [[0, 0], [0, 0]]),
        ([[True, False]], [[255, 0]]),
        ([[-1, 0, 1]], [[0, 128, 255]]),
    ],
)
def test_arrays_of_any_range(pixels, expected):
    for make in (np.array, torch.tensor):
        assert np.asarray(shown(image_view(make(pixels)))).tolist() == expected


def test_tensors_of_any_kind():
    for tensor in (
        torch.rand(3, 5, 6, requires_grad=True),
        torch.rand(1, 5, 6).bfloat16(),
        torch.rand(5, 6, 3).half(),
        torch.randint(0, 255, (5, 6)),
    ):
        assert image_view(tensor).size == (6, 5)


@pytest.mark.parametrize(
    'nothing',
    [
        np.zeros((0, 4)),
        np.zeros((4, 4, 0)),
        np.zeros(4),
        np.zeros((2, 3, 4, 5)),
        np.zeros((4, 4, 4)),
        np.array([['a', 'b']]),
        np.array([[None]]),
        np.zeros((2, 2), complex),
        None,
        3,
        b'GIF',
        Image.new('L', (0, 5)),
        Image.new('RGBA', (3, 0)),
    ],
    ids=lambda o: str(getattr(o, 'shape', o))[:20],
)
def test_no_picture_is_a_value_error(nothing):
    with pytest.raises(ValueError):
        image_view(nothing)


def test_pixels_and_nothing_else_arrive(tmp_path):
    picture, exif = Image.new('RGB', (6, 4), (9, 9, 9)), Image.Exif()
    exif[274], exif[270] = 6, 'SECRET'  # turned by a quarter; a description
    for suffix, told in (
        ('jpg', dict(comment=b'SECRET', icc_profile=b'SECRET' * 9)),
        ('png', dict(transparency=(9, 9, 9), icc_profile=b'SECRET' * 9)),
    ):
        picture.save(tmp_path / f'1.{suffix}', exif=exif, **told)
        with Image.open(tmp_path / f'1.{suffix}') as opened:
            before = dict(opened.info)
            view = image_view(opened)
            assert before and opened.info == before  # what was given stays as it was
        assert (
            set(shown(view).info) <= {'jfif', 'jfif_version', 'jfif_density', 'jfif_unit'}
            and b'SECRET' not in view.image
        )
        assert (view.size, shown(view).getexif()) == ((6, 4), {})
    large = Image.new('RGB', (2000, 600))
    large.info = dict(comment=b'SECRET', exif=exif.tobytes())
    assert b'SECRET' not in image_view(large).image


def test_hostile_paths_and_links(tmp_path):
    root, secret = tmp_path / 'root', tmp_path / 'secret.png'
    (root / 'sub').mkdir(parents=True)
    for file in (secret, root / 'sub' / '1.png'):
        Image.new('L', (3, 3)).save(file)
    (root / 'out.png').symlink_to(secret)
    (root / 'up').symlink_to(tmp_path)
    (root / 'fine.png').symlink_to(root / 'sub' / '1.png')
    (root / 'loop.png').symlink_to(root / 'loop.png')
    (tmp_path / 'root2').mkdir()
    hostile = [
        '../secret.png',
        str(secret),
        'out.png',
        'up/secret.png',
        'sub/../../secret.png',
        '../root2/1.png',
        'a\0b.png',
        '../root/../secret.PNG',
    ]
    views = Views(Pool([*hostile, 'fine.png', 'sub/1.png', 'loop.png'], root=root))
    for name in hostile:
        with pytest.raises(PermissionError):
            views(name)
    for name in ('fine.png', 'sub/1.png'):
        assert views(name).size == (3, 3)
    with pytest.raises(OSError):
        views('loop.png')
    assert path_inside(root, 'sub/../sub/1.png') == (root / 'sub' / '1.png').resolve()
    assert Views(Pool([str(secret)]))(str(secret)).kind == 'text'


def test_a_learners_blocks_do_not_open_what_lies_outside(tmp_path):
    root = tmp_path / 'root'
    root.mkdir()
    for i in range(4):
        Image.new('RGB', (6, 4), (i, i, i)).save(root / f'{i}.png')
    Image.new('L', (3, 3)).save(tmp_path / 'secret.png')
    pool = Pool.from_folder(root)
    pool.draw_holdout(1)
    pool.label([f'{i}.png' for i in range(4)], ['a', 'b', 'a', 'b'])
    dls = pool.dataloaders(
        DataBlock((ImageBlock(PILImageBW), CategoryBlock(vocab=['a', 'b']))), bs=2, num_workers=0
    )
    before = torch.random.get_rng_state()
    view = Views(pool, dls)('2.png')
    assert (view.size, shown(view).mode, shown(view).getpixel((0, 0))) == (
        (6, 4),
        'L',
        2,
    ) and torch.equal(before, torch.random.get_rng_state())
    with pytest.raises(PermissionError):
        Views(Pool(['../secret.png'], root=root), dls)('../secret.png')


def test_a_script_is_a_text():
    script = '<script>alert(1)</script><img src=x onerror="alert(2)">'
    assert json.loads(json.dumps(Views(Pool([script]))(script).message()))['text'] == script
    rows = Views(Pool.from_df(pd.DataFrame({'a': ['1'], '<b>': [script]}), 'a'))('1').message()[
        'rows'
    ]
    assert ('<b>', script) in rows


def test_values_of_a_row_as_they_are_read():
    frame = pd.DataFrame(
        dict(
            name=['x'],
            whole=[1234567.0],
            part=[1 / 3],
            none=[None],
            nan=[math.nan],
            huge=[1e300],
            yes=[True],
            long=['a' * 5000],
            many=[[1, 2]],
        )
    )
    told = dict(Views(Pool.from_df(frame, 'name'))('x').rows)
    assert {k: v for k, v in told.items() if k != 'long'} == dict(
        name='x',
        whole='1234567',
        part='0.333333',
        none='None',
        nan='nan',
        huge='1e+300',
        yes='True',
        many='[1, 2]',
    )
    assert len(told['long']) == 2001
    assert (
        Views(Pool.from_df(frame, 'name'), show=lambda row: View('text', text='mine'))('x').text
        == 'mine'
    )


# sittings

NAMES = [f'{i}.jpg' for i in range(4)]
ACTS = st.lists(
    st.tuples(
        st.sampled_from(['anna', 'ben']),
        st.integers(0, 3),
        st.sampled_from(['label', 'label', 'ignore', 'skip', 'flag', 'undo', 'undo', 'reopen']),
        st.sampled_from(['cat', 'dog']),
    ),
    max_size=25,
)


class Model:
    "The answers of one person, as a list of the states before each of them"

    def __init__(self):
        self.now, self.flags, self.past = {}, set(), []

    def say(self, place, kind, label):
        self.past.append((place, dict(self.now), set(self.flags)))
        if kind == 'flag':
            self.flags ^= {place}
        else:
            self.now[place] = kind, label if kind == 'label' else None

    def undo(self):
        if not self.past:
            return None
        place, self.now, self.flags = self.past.pop()
        return place


def seen(session: Session) -> tuple[dict, set]:
    said = {i: session.answer(i) for i in range(len(session))}
    return {i: (e.kind, e.label) for i, e in said.items() if e}, {
        i for i in range(len(session)) if session.flagged(i)
    }


@given(ACTS)
@settings(max_examples=50, deadline=None)
def test_undo_is_a_stack_also_over_a_restart(acts):
    with tempfile.TemporaryDirectory() as folder:
        pool = Pool(NAMES, db=f'{folder}/labels.db')
        pool.ledger.db.execute('PRAGMA synchronous = OFF')  # of a test, for speed
        sessions, models = (
            {by: make(by) for by in ('anna', 'ben')}
            for make in (lambda by: Session(pool, NAMES, by), lambda by: Model())
        )
        for by, place, act, label in acts:
            if act == 'undo':
                assert sessions[by].undo() == models[by].undo()
            elif act == 'reopen':
                pool.close()
                pool = Pool(NAMES, db=f'{folder}/labels.db')
                sessions = {by: Session(pool, NAMES, by) for by in sessions}
            else:
                sessions[by].record(place, act, label)
                models[by].say(place, act, label)
            for who in sessions:
                assert seen(sessions[who]) == (models[who].now, models[who].flags)
            kinds = [k for k, _ in models[by].now.values()]
            assert sessions[by].progress() == dict(
                of=4,
                done=len(kinds),
                flag=len(models[by].flags),
                **{k: kinds.count(k) for k in ('label', 'skip', 'ignore')},
            )
            free = [i % 4 for i in range(place + 1, place + 5) if i % 4 not in models[by].now]
            assert sessions[by].next_open(place) == (free[0] if free else None)
        pool.close()


def test_lists_that_overlap_undo_their_own_words():
    pool = Pool(NAMES)
    all_of, some = Session(pool, NAMES, 'anna'), Session(pool, NAMES[:2], 'anna')
    for i in range(3):
        all_of.record(i, 'label', 'cat')
    assert some.undo() == 1  # though item 2 was the last of all
    for session in (all_of, Session(pool, NAMES, 'anna')):
        assert session.answer(2).label == 'cat'
    assert [Session(pool, NAMES, 'anna').undo(), all_of.undo(), some.undo(), all_of.undo()] == [
        2,
        0,
        None,
        None,
    ]
    assert pool.counts()['unlabelled'] == 4


def test_what_others_retract_stays_retracted():
    pool = Pool(NAMES)
    anna, ben = Session(pool, NAMES, 'anna'), Session(pool, NAMES, 'ben')
    anna.record(1, 'label', 'hen')
    anna.record(0, 'label', 'cat')
    anna.record(0, 'label', 'dog')
    anna.record(0, 'flag')
    ben.record(0, 'label', 'fox')
    pool.retract(NAMES[0], annotator='ben')
    assert (ben.answer(0), anna.answer(0).label, ben.undo()) == (None, 'dog', None)
    pool.retract(NAMES[0])
    assert (anna.answer(0), anna.flagged(0)) == (None, True)
    assert [anna.undo(), anna.flagged(0), anna.answer(0), anna.undo(), anna.undo()] == [
        0,
        False,
        None,
        1,
        None,
    ]


def imported(pool, uid, label, at, by='anna'):
    pool.write([Event(uid, 'label', label, by, at=at)])


@pytest.mark.parametrize('restart', [False, True])
def test_an_answer_that_arrives_late_is_not_taken_for_the_last_word(tmp_path, restart):
    pool = Pool(NAMES, db=tmp_path / 'a.db')
    anna = Session(pool, NAMES, 'anna')
    anna.record(0, 'label', 'cat')
    anna.record(1, 'label', 'dog')
    anna.progress()
    imported(
        Pool.open(tmp_path / 'a.db'), NAMES[0], 'old', 1e9
    )  # by another process, of the same person and item
    imported(Pool.open(tmp_path / 'a.db'), NAMES[2], 'old', 1.1e9)
    if restart:
        anna = Session(Pool.open(tmp_path / 'a.db'), NAMES, 'anna')
    assert (anna.undo(), anna.answer(1), anna.answer(0).label, anna.answer(2).label) == (
        1,
        None,
        'cat',
        'old',
    )
    assert (anna.undo(), anna.answer(0).label, anna.answer(2).label) == (0, 'old', 'old')
    assert (anna.undo(), anna.answer(2), anna.answer(0).label) == (2, None, 'old')
    assert (anna.undo(), anna.answer(0), anna.undo()) == (0, None, None)


@pytest.mark.parametrize('restart', [False, True])
def test_an_undo_took_back_what_was_there_then(tmp_path, restart):
    pool = Pool(NAMES, db=tmp_path / 'a.db')
    anna = Session(pool, NAMES, 'anna')
    anna.record(0, 'label', 'cat')
    anna.record(0, 'label', 'dog')
    dog = pool.ledger.since()[-1].at
    time.sleep(0.01)
    assert (anna.undo(), anna.answer(0).label) == (0, 'cat')
    undone = pool.ledger.since()[-1].at
    imported(
        pool, NAMES[0], 'between', dog + 0.8 * (undone - dog)
    )  # dated before the undo, and arrived after it
    imported(pool, NAMES[1], 'hen', dog + 0.4 * (undone - dog))
    imported(pool, NAMES[0], 'ben', None, by='ben')
    if restart:
        anna = Session(pool, NAMES, 'anna')
    assert (
        anna.answer(0).label,
        anna.undo(),
        anna.answer(0).label,
        anna.undo(),
        anna.undo(),
        anna.undo(),
    ) == ('cat', 0, 'cat', 1, 0, None)
    assert pool.labelled['label'].tolist() == ['ben'] and pool.labelled['source'].tolist() == [
        'ben'
    ]


def test_answers_given_outside_the_session_are_on_the_stack():
    pool = Pool(NAMES)
    anna = Session(pool, NAMES, 'anna')
    pool.label(NAMES[:2], ['cat', 'dog'], annotator='anna', note='by mail')
    pool.label(NAMES[1], 'hen', annotator='anna')
    assert anna.undo() == 1
    assert (anna.answer(1).label, anna.answer(1).note) == ('dog', {'note': 'by mail', 'undo': True})


def test_a_review_takes_back_only_itself():
    pool = Pool(NAMES)
    first = Session(pool, NAMES, 'anna')
    first.record(0, 'label', 'cat', note={'guess': 'dog'})
    again = Session(pool, NAMES, 'anna', review=True)
    assert (again.undo(), first.answer(0).label, again.progress()['done'], again.next_open()) == (
        None,
        'cat',
        0,
        0,
    )
    again.record(0, 'label', 'dog')
    assert (again.answer(0).note, again.progress()['done'], again.next_open()) == (
        {'review': True},
        1,
        1,
    )
    restarted = Session(pool, NAMES, 'anna', review=True)
    assert (restarted.undo(), restarted.answer(0), restarted.undo(), first.answer(0).note) == (
        0,
        None,
        None,
        {'guess': 'dog', 'undo': True},
    )
    assert first.undo() == 0 and first.answer(0) is None


def test_a_flag_that_is_up_again_says_why():
    pool = Pool(NAMES)
    anna = Session(pool, NAMES, 'anna')
    anna.record(0, 'flag', note={'why': 'blurred'})
    anna.record(0, 'flag')
    assert not anna.flagged(0) and anna.undo() == 0
    assert pool.flagged['note'].iloc[0]['why'] == 'blurred'


@pytest.mark.parametrize(
    'written', [False, True]
)  # the disk fails before the word is written; after it, before it is known here
@pytest.mark.parametrize('act', ['say', 'undo'])
def test_a_ledger_that_fails_half_way(monkeypatch, act, written):
    pool = Pool(NAMES)
    anna = Session(pool, NAMES, 'anna')
    anna.record(0, 'label', 'cat')
    anna.record(1, 'label', 'dog')
    append, events = pool.ledger.append, len(pool.ledger.since())

    def failing(some, settings=None):
        if written:
            append(some)
        raise TimeoutError('Another process has been writing')

    with monkeypatch.context() as patch:
        patch.setattr(pool.ledger, 'append', failing)
        with pytest.raises(TimeoutError):
            anna.record(2, 'label', 'hen') if act == 'say' else anna.undo()
    assert len(pool.ledger.since()) == events + written
    said = {0: 'cat', 1: 'dog'}
    if written:
        said = said | {2: 'hen'} if act == 'say' else {0: 'cat'}
    for session in (anna, Session(pool, NAMES, 'anna')):
        assert {i: y for i, (_, y) in seen(session)[0].items()} == said
    assert [anna.undo() for _ in range(len(said) + 1)] == [*sorted(said, reverse=True), None]
    assert pool.counts()['unlabelled'] == 4


@pytest.mark.parametrize(
    'place, kind, rest, error',
    [
        (0, 'label', dict(label='fox'), ValueError),
        (0, 'label', dict(label=1), ValueError),
        (0, 'label', {}, TypeError),
        (0, 'label', dict(label=math.nan), Exception),
        (0, 'guess', {}, ValueError),
        (0, ['label'], {}, ValueError),
        (-1, 'skip', {}, IndexError),
        (4, 'skip', {}, IndexError),
        (True, 'skip', {}, IndexError),
        ('0', 'skip', {}, IndexError),
        (None, 'flag', {}, IndexError),
        (0.0, 'skip', {}, IndexError),
        (0, 'skip', dict(seconds='soon'), ValueError),
        (0, 'skip', dict(note='why'), ValueError),
        (0, 'skip', dict(note={'undo': True}), ValueError),
        (0, 'label', dict(label='cat', note={'review': True}), ValueError),
    ],
)
def test_invalid_answers_are_not_written(place, kind, rest, error):
    pool = Pool(NAMES)
    pool.set_vocab(['cat', 'dog'])
    anna, events = Session(pool, NAMES, 'anna'), len(pool.ledger.since())
    with pytest.raises(error):
        anna.record(place, kind, **rest)
    assert len(pool.ledger.since()) == events and anna.undo() is None and anna.next_open() == 0


def test_odd_sittings_are_refused():
    pool = Pool(NAMES)
    for by in ('', None, 3):
        with pytest.raises(ValueError, match='name of the person'):
            Session(pool, NAMES, by)
    with pytest.raises(ValueError, match='list is empty'):
        Session(pool, [])
    with pytest.raises(KeyError):
        Session(pool, ['9.jpg'])
    with pytest.raises(ValueError, match='more than once'):
        Session(pool, [NAMES[0]] * 2)


def test_a_label_of_numpys_own_and_one_item():
    pool = Pool(range(3))
    one = Session(pool, [1], 'anna')
    assert one.record(0, 'label', np.int64(2)).label == 2
    assert (
        one.current_label(0),
        one.next_open(),
        one.next_open(-9),
        one.next_open(9),
        repr(one),
    ) == (
        2,
        None,
        None,
        None,
        "Session of 'anna': 1 of 1 items are done",
    )
    assert one.record(0, 'skip', label='ignored here').label is None and one.in_holdout(0) is False


def calls_of(f) -> int:
    "How many functions are called, the built-in ones too"
    n = [0]
    sys.setprofile(lambda frame, event, arg: n.__setitem__(0, n[0] + (event in ('call', 'c_call'))))
    try:
        f()
    finally:
        sys.setprofile(None)
    return n[0]


def test_the_ledger_is_read_once_for_each_call(monkeypatch):
    pool = Pool(range(3_000))
    anna, looks, sync = Session(pool, range(3_000), 'anna'), [], pool.sync
    pool.label([str(i) for i in range(2_999)], ['cat'] * 2_999, annotator='anna')
    monkeypatch.setattr(pool, 'sync', lambda: looks.append(1) or sync())
    for ask in (
        anna.progress,
        anna.next_open,
        lambda: anna.answer(3),
        lambda: anna.current_label(3),
        lambda: anna.flagged(3),
    ):
        looks.clear()
        assert calls_of(ask) < 30 * 3_000 and len(looks) == 1
    assert anna.next_open() == 2_999
    pool.retract([str(i) for i in range(2_999)])
    assert (
        calls_of(lambda: anna.undo()) < 100 * 3_000 and anna.undo() is None
    )  # not the square of the number of items
