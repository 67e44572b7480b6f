"""Exports that Label Studio's SDK and converter made, read back to the values that the tool
shows; and what is malformed, which writes nothing"""

import base64
import copy
import io
import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from fastai_al import FastaiALWarning
from fastai_al.acquire.query import Query
from fastai_al.annotate.labelstudio.controls import controls_of
from fastai_al.annotate.labelstudio.exchange import from_label_studio
from fastai_al.annotate.labelstudio.reading import label_of
from fastai_al.annotate.labelstudio.receive import receive
from fastai_al.annotate.labelstudio.tasks import (
    address_of,
    embedded,
    orientation_of,
    picture_size,
    predictions_of,
    turns,
)
from fastai_al.annotate.labelstudio.turning import back, turned_box, turned_mask, turned_size
from fastai_al.annotate.labelstudio.writing import result_of
from fastai_al.pool.pool import Pool
from labelstudio_exports import BLOB, CONFIG, FOLDER, HEIGHT, WIDTH

EXPORTS = json.loads((FOLDER / 'exports.json').read_text())
NAMES = ['plain.png', 'other.png', 'turned.jpg', 'upside_down.jpg']
CAT = [4.0, 6.0, 14.0, 21.0]  # 10% and 20% of 40 x 30 pixels, 25% wide and 50% high


def picture(orientation: int = 1, size: tuple = (WIDTH, HEIGHT)) -> Image.Image:
    image = Image.fromarray(
        np.arange(size[0] * size[1], dtype=np.uint16).reshape(size[::-1]).astype(np.uint8)
    )
    exif = image.getexif()
    exif[0x0112] = orientation
    image.info['exif'] = exif.tobytes()
    return image


def save(path, orientation=1, **kwargs):
    (image := picture(orientation, **kwargs)).save(path, exif=image.info['exif'])


@pytest.fixture
def pool(tmp_path):
    for name, orientation in zip(NAMES, (1, 1, 6, 3)):
        save(tmp_path / name, orientation)
    return Pool.from_folder(tmp_path)


def read(pool, name, kind, classes=('cat', 'dog'), **kwargs):
    "What the pool holds afterwards, and the report"
    tasks = EXPORTS[name] if isinstance(name, str) else name
    (pool.root / 'export.json').write_text(json.dumps(tasks))
    pulled = from_label_studio(
        pool,
        pool.root / 'export.json',
        kind,
        classes and list(classes),
        people={1: 'anna', 2: 'ben', 3: 'cleo'},
        **kwargs,
    )
    n = len(pool.history)
    again = from_label_studio(
        pool,
        pool.root / 'export.json',
        kind,
        classes and list(classes),
        people={1: 'anna', 2: 'ben', 3: 'cleo'},
        **kwargs,
    )
    assert (again.labels, again.skips, len(pool.history)) == (0, 0, n)  # each once
    return recorded(pool), pulled


def recorded(pool):
    return [
        (e.uid, e.source, e.label if e.kind == 'label' else e.kind)
        for e in pool.ledger.since()
        if e.kind in ('label', 'skip')
    ]


def boxes(*boxes, labels=None):
    return dict(boxes=list(boxes), labels=labels or ['cat'] * len(boxes))


@pytest.mark.parametrize(
    'name, kind, classes, answers',
    [
        ('choices', 'class', ('cat', 'dog'), [('anna', 'cat'), ('ben', 'dog'), ('cleo', 'skip')]),
        ('several_choices', 'labels', ('old', 'ill'), [('anna', ['old', 'ill'])]),
        ('numbers', 'value', None, [('anna', 2.5)]),
        ('stars', 'value', None, [('anna', 4.0)]),
        ('texts', 'text', None, [('anna', 'a <b>cat</b>\nasleep')]),
        ('rectangles', 'boxes', ('cat', 'dog'), [('anna', boxes(CAT, CAT, labels=['cat', 'dog']))]),
        (
            'quarter_turns',
            'boxes',
            ('cat', 'dog'),
            [
                (
                    'anna',
                    boxes(
                        [20.0, 15.0, 30.0, 21.0],
                        [14.0, 15.0, 20.0, 25.0],
                        [10.0, 9.0, 20.0, 15.0],
                        [20.0, 5.0, 26.0, 15.0],
                    ),
                )
            ],
        ),
        (
            'relations',
            'boxes',
            ('cat', 'dog'),
            [('anna', boxes(CAT, [0.0, 6.0, 4.0, 16.0], labels=['cat', 'dog']))],
        ),  # the second was turned by 90 degrees around its corner, out of the picture in part
        (
            'turned_view',
            'boxes',
            ('cat', 'dog'),
            [('anna', boxes(CAT))],
        ),  # Label Studio turns the view alone, as was tried in a browser
        ('by_the_api', 'boxes', ('cat', 'dog'), [('user None', boxes(CAT))]),
        ('coco', 'boxes', ('cat', 'dog'), [('user None', boxes(CAT, labels=['dog']))]),
    ],
)
def test_what_the_tool_shows_is_what_is_read(pool, name, kind, classes, answers):
    got, pulled = read(pool, name, kind, classes)
    assert got == [('plain.png', *a) for a in answers] and (pulled.refused, pulled.unknown) == (
        [],
        [],
    )
    assert pulled.passed == ({'relations': 1} if name == 'relations' else {})


def test_strokes_are_read(pool):
    ((_, _, path),), pulled = read(pool, 'brushes', 'mask', ('ground', 'fur', 'eye'))
    expected = BLOB.astype(np.uint8)
    expected[:, :9] *= 2
    np.testing.assert_array_equal(np.asarray(Image.open(pool.root / path)), expected)
    assert pulled.refused == []


@pytest.mark.parametrize(
    'name, kind, classes, why',
    [
        ('slanted', 'boxes', ('cat', 'dog'), 'a box turned by 30.0 degrees'),
        ('polygons', 'boxes', ('cat', 'dog'), "polygonlabels of 'outline' can not be kept"),
        ('ellipses', 'boxes', ('cat', 'dog'), "ellipselabels of 'ring' can not be kept"),
        ('polygons', 'mask', ('ground', 'cat'), "polygonlabels of 'outline'"),
        ('rectangles', 'mask', ('ground', 'cat'), "rectanglelabels of 'bbox'"),
        ('brushes', 'boxes', ('cat', 'dog'), "brushlabels of 'brush'"),
        ('rectangles', 'labels', ('cat', 'dog'), "rectanglelabels of 'bbox'"),
        ('choices', 'boxes', ('cat', 'dog'), "choices of 'animal'"),
        ('choices', 'class', ('cow',), "'cat' is none of the classes"),
        ('several_choices', 'class', ('old', 'ill'), '2 classes where one is needed'),
        ('stars', 'text', None, "rating of 'stars'"),
    ],
)
def test_what_is_not_of_this_kind_is_refused_by_name_and_never_read_as_nothing(
    pool, name, kind, classes, why
):
    got, pulled = read(pool, name, kind, classes)
    assert (
        [g for g in got if g[2] != 'skip'] == []
        and pulled.labels == 0
        and why in pulled.refused[0][2]
        and pulled.refused[0][:2] == ('plain.png', 'anna')
    )
    assert not (pool.root / '.masks').exists()


def test_nothing_drawn_is_not_all_passed_over(pool):
    assert read(pool, 'nothing_drawn', 'boxes')[0] == [
        ('plain.png', 'anna', boxes()),
        ('other.png', 'anna', boxes(CAT)),
    ]


def test_several_controls(pool):
    got, pulled = read(pool, 'several_controls', 'boxes')
    assert got == [('plain.png', 'anna', boxes(CAT)), ('other.png', 'anna', boxes())]
    assert (
        [r[:2] for r in pulled.refused] == [('plain.png', 'ben')]
        and "polygonlabels of 'outline' can not be kept as such, and would be lost: to pass over "
        "them, control='bbox'"
        in pulled.refused[0][2]
    )
    assert pulled.passed == {
        "choices of 'animal'": 2,
        "number of 'weight'": 1,
    } and "Ignored: 2 choices of 'animal', 1 number of 'weight'" in repr(pulled)
    got, pulled = read(pool, 'several_controls', 'boxes', control='bbox')  # as the refusal says
    assert got[-1] == ('plain.png', 'ben', boxes(CAT, labels=['dog'])) and pulled.passed == {
        "polygonlabels of 'outline'": 1
    }
    got, pulled = read(
        Pool.from_folder(pool.root), 'several_controls', 'class'
    )  # no class was chosen in one of them
    assert (
        got == [('plain.png', 'anna', 'dog'), ('other.png', 'anna', 'cat')]
        and [r[:2] for r in pulled.refused] == [('plain.png', 'ben')]
        and '0 classes' in pulled.refused[0][2]
    )


def test_two_controls_of_one_kind_need_a_word(pool):
    with pytest.raises(
        ValueError, match="'animal', 'signs'. Name the one with the labels: control='animal'"
    ):
        read(pool, 'two_choices', 'labels', ('old', 'ill'))
    assert recorded(pool) == []
    with pytest.raises(
        ValueError,
        match="No control 'sings' gives answers of kind 'labels'. Give one of 'animal', 'signs'",
    ):
        read(pool, 'two_choices', 'labels', control='sings')
    got, _ = read(pool, 'two_choices', 'labels', ('old', 'ill'), control='signs')
    assert got == [('plain.png', 'anna', ['old']), ('other.png', 'anna', ['ill'])]
    assert (
        controls_of(CONFIG, 'class') == {'animal', 'signs'}
        and controls_of(CONFIG, 'boxes') == {'bbox'}
        and controls_of(CONFIG, 'value') == {'weight', 'stars'}
        and controls_of('<', 'boxes') == set()
    )
    tasks = [
        dict(data=dict(uid='plain.png'), annotations=[dict(id=1, result=[])])
    ]  # nothing is drawn yet, and the configuration alone shows the control
    assert receive(Pool.from_folder(pool.root), tasks, 'boxes', ['cat'], config=CONFIG).labels == 1


def test_a_control_that_is_not_there_is_an_error_and_no_empty_answer(pool):
    for name in ('polygons', 'rectangles'):
        with pytest.raises(ValueError, match="control 'bbxo'.*'(outline|bbox)'"):
            read(pool, name, 'boxes', control='bbxo')
    assert recorded(pool) == []


def test_an_answer_about_a_region_is_none_about_the_item(pool):
    tasks = copy.deepcopy(EXPORTS['rectangles'])
    drawn = tasks[0]['annotations'][0]['result']
    breed = dict(
        id=drawn[0]['id'],
        from_name='breed',
        to_name='photo',
        type='choices',
        value=dict(x=10, y=20, width=25, height=50, choices=['cat']),
    )
    drawn.append(breed)
    assert 'belong to a region' in read(pool, tasks, 'class', control='breed')[1].refused[0][2]
    assert (
        "rectanglelabels of 'bbox' can not be kept as such"
        in read(pool, tasks, 'class')[1].refused[0][2]
    )
    assert recorded(pool) == []
    got, pulled = read(pool, tasks, 'boxes')
    assert got == [
        ('plain.png', 'anna', boxes(CAT, CAT, labels=['cat', 'dog']))
    ] and pulled.passed == {"choices of 'breed'": 1}


def test_annotations_without_numbers_are_distinguished(pool):
    got, _ = read(pool, 'without_numbers', 'class')
    assert got == [
        ('other.png', 'user None', 'cat'),
        ('other.png', 'user None, annotation 2', 'dog'),
        ('plain.png', 'anna', 'cat'),
        ('plain.png', 'ben', 'dog'),
    ]  # those without a time first
    tasks = copy.deepcopy(EXPORTS['without_numbers'])
    tasks[0]['annotations'][1]['result'][0]['value']['choices'] = ['cat']  # a second thought
    got, pulled = read(pool, tasks, 'class')
    assert pulled.labels == 1 and got[-1] == ('plain.png', 'ben', 'cat')


@pytest.mark.parametrize(
    'updated, created, at',
    [
        ('2026-01-01T10:00:00Z', None, 1767261600.0),
        ('2026-01-01T10:00:00', None, 1767261600.0),
        ('2026-01-01T12:00:00+02:00', None, 1767261600.0),
        (None, '2026-01-01T10:00:00Z', 1767261600.0),
        ('9999-12-31T23:59:59Z', None, None),
        ('0001-01-01T00:00:00', None, None),
        ('soon', None, None),
        (20260101, None, None),
    ],
)
def test_times_are_utc_and_none_is_beyond_what_a_frame_can_hold(updated, created, at):
    pool, before = Pool(['plain.png', 'other.png']), time.time()
    annotation = EXPORTS['choices'][0]['annotations'][0] | dict(
        updated_at=updated, created_at=created
    )
    receive(pool, [dict(data=dict(uid='plain.png'), annotations=[annotation])], 'class')
    event = pool.ledger.since()[-1]
    assert event.at == at if at else event.at >= before
    assert pool.labelled['at'].notna().all()


def test_old_formats_say_what_to_export(pool):
    for name, why in (
        ('json_min', 'is JSON-MIN.*take Export and there JSON'),
        ('completions', 'before 1.0.*completions.*take Export and there JSON'),
    ):
        with pytest.raises(ValueError, match=why):
            read(pool, name, 'class')
    tasks = [{k: v for k, v in t.items() if k != 'annotations'} for t in EXPORTS['choices']]
    with pytest.raises(ValueError, match='tasks to import, none of which has been annotated'):
        read(pool, tasks, 'class')
    for other in ({}, dict(images=[], annotations=[]), 'text', 3, [3], [[]]):
        with pytest.raises(ValueError, match='no export.*take Export and there JSON'):
            read(pool, [other] if isinstance(other, (str, int)) else other, 'class')
    assert recorded(pool) == []


def test_tasks_without_a_uid_are_nobodys(tmp_path):
    pool = Pool(['None', 'a', 'True'])
    task = dict(annotations=EXPORTS['choices'][0]['annotations'])
    pulled = receive(
        pool,
        [
            task | dict(data=data)
            for data in (dict(text='a'), dict(uid=None), dict(uid=['a']), dict(uid=True))
        ],
        'class',
    )
    assert recorded(pool) == [] and pulled.unknown == [None] and 'without a `uid`' in repr(pulled)


# ---- The picture that was drawn on


def test_boxes_are_compared_with_the_picture(pool):
    got, pulled = read(pool, 'another_picture', 'boxes')
    assert (
        got == []
        and [r[2].split(': ')[2].split(',')[0] for r in pulled.refused]
        == [
            'it was drawn on 400 x 30 pixels',
            'it was drawn on 400 x 300 pixels',
            'it was drawn on 30 x 40 pixels',
        ]
        and 'the file shows 40 x 30' in pulled.refused[0][2]
    )


def test_a_picture_that_is_not_there_is_reported(pool):
    (pool.root / 'plain.png').unlink()
    with pytest.warns(FastaiALWarning, match="'plain.png'.*sizes were not checked"):
        assert receive(pool, EXPORTS['rectangles'], 'boxes', ['cat', 'dog']).labels == 1
    assert (
        receive(pool, EXPORTS['by_the_api'], 'boxes', ['cat', 'dog'])
        .refused[0][2]
        .count('0 sizes of one picture')
        == 1
    )


def test_a_picture_without_a_root_is_compared_too(tmp_path):
    save(tmp_path / 'plain.png')
    pool = Pool([tmp_path / 'plain.png'], uids=['plain.png'])
    assert picture_size(pool, 'plain.png') == (WIDTH, HEIGHT)
    assert len(receive(pool, EXPORTS['another_picture'], 'boxes', ['cat', 'dog']).refused) == 3


def test_boxes_drawn_on_a_picture_that_browsers_turn_lie_on_its_file(pool):
    got, _ = read(pool, 'turned_by_exif', 'boxes')
    shown = [3.0, 8.0, 10.5, 28.0]  # of 30 x 40 pixels
    assert got == [
        ('turned.jpg', 'anna', boxes([8.0, 19.5, 28.0, 27.0])),
        ('upside_down.jpg', 'anna', boxes([26.0, 9.0, 36.0, 24.0])),
    ]
    assert turned_box(got[0][2]['boxes'][0], (WIDTH, HEIGHT), 6) == shown
    ((_, _, path),), _ = read(
        Pool.from_folder(pool.root), 'strokes_turned_by_exif', 'mask', ('ground', 'fur')
    )
    np.testing.assert_array_equal(np.asarray(Image.open(pool.root / path)), BLOB)


@pytest.mark.parametrize('orientation', range(1, 9))
def test_turning_is_pillows(orientation):
    mask = np.zeros((6, 9), dtype=np.uint8)
    mask[1:3, 2:7] = 1
    seen = np.asarray(ImageOps.exif_transpose(_with_orientation(mask, orientation)))
    np.testing.assert_array_equal(turned_mask(mask, orientation), seen)
    rows, columns = np.nonzero(seen)
    assert (
        turned_box([2, 1, 7, 3], (9, 6), orientation)
        == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        and turned_size((9, 6), orientation) == seen.shape[::-1]
    )
    undone = back(orientation)
    np.testing.assert_array_equal(turned_mask(seen, undone), mask)
    label = boxes([2.0, 1.0, 7.0, 3.0])
    assert (
        label_of(
            result_of(label, 'boxes', ['cat'], (9, 6), orientation),
            'boxes',
            ['cat'],
            (9, 6),
            orientation,
        )
        == label
    )
    np.testing.assert_array_equal(
        label_of(
            result_of(mask, 'mask', ['a', 'b'], None, orientation),
            'mask',
            ['a', 'b'],
            (9, 6),
            orientation,
        ),
        mask,
    )
    entry = result_of(label, 'boxes', ['cat'], (9, 6), orientation)[0]
    assert (entry['original_width'], entry['original_height']) == seen.shape[::-1]


def _with_orientation(pixels: np.ndarray, orientation: int) -> Image.Image:
    written, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(written, 'PNG', exif=exif)
    return Image.open(io.BytesIO(written.getvalue()))


def test_what_was_shown_decides_how_it_was_turned(pool):
    url = address_of(pool, 'embed')('turned.jpg')
    own = (
        'data:image/jpeg;base64,'
        + base64.b64encode((pool.root / 'turned.jpg').read_bytes()).decode()
    )
    assert [
        orientation_of(pool, 'turned.jpg', dict(image=v))
        for v in (url, own, '/data/local-files/?d=x', 'data:image/png;base64,??')
    ] == [1, 6, 6, 6] and orientation_of(pool, 'plain.png') == 1
    label = boxes([8.0, 19.5, 28.0, 27.0])
    for data in (dict(image=url), dict(image=own)):  # of either the same box comes back
        task = dict(
            data=dict(uid='turned.jpg') | data,
            annotations=[
                dict(
                    id=1,
                    completed_by=1,
                    result=result_of(
                        label,
                        'boxes',
                        ['cat'],
                        (WIDTH, HEIGHT),
                        orientation_of(pool, 'turned.jpg', data),
                    ),
                )
            ],
        )
        assert (
            receive(other := Pool.from_folder(pool.root), [task], 'boxes', ['cat']).labels == 1
            and recorded(other)[0][2] == label
        )
    stripped = dict(
        data=dict(uid='turned.jpg', image='https://x.org/1'),
        annotations=[
            dict(id=1, completed_by=1, result=result_of(label, 'boxes', ['cat'], (WIDTH, HEIGHT)))
        ],
    )  # served without its EXIF, so its size decides
    assert receive(pool, [stripped], 'boxes', ['cat']).labels == 1 and recorded(pool)[0][2] == label


@pytest.mark.parametrize(
    'images, size',
    [
        ('embed', (WIDTH, HEIGHT)),
        ('local', (HEIGHT, WIDTH)),
        (lambda uid: 'https://x.org/1', (HEIGHT, WIDTH)),
    ],
)
def test_predictions_lie_on_the_picture_as_it_is_shown(pool, images, size):
    label = boxes([8.0, 19.5, 28.0, 27.0])
    query = Query(
        ['turned.jpg'],
        ['turned.jpg'],
        [0],
        np.array([1.0]),
        [label],
        dict(acquisition='bald', pool=1),
    )
    entry = predictions_of(
        query,
        'boxes',
        ['cat'],
        size_of=lambda uid: picture_size(pool, uid),
        turn_of=turns(pool, images),
    )[0]['result'][0]
    assert (entry['original_width'], entry['original_height']) == size
    x, y, w, h = (
        entry['value'][k] / 100 * size[k in ('y', 'height')] for k in ('x', 'y', 'width', 'height')
    )
    assert np.allclose(
        [x, y, x + w, y + h], label['boxes'][0] if images == 'embed' else [3.0, 8.0, 10.5, 28.0]
    )


@pytest.mark.parametrize(
    'mode, suffix', [('I;16', 'png'), ('I;16', 'tif'), ('I', 'tif'), ('F', 'tif')]
)
def test_pictures_of_more_than_8_bits_are_embedded_as_the_annotator_shows_them(
    tmp_path, mode, suffix
):
    deep = np.linspace(0, 4095, 48).reshape(6, 8)
    Image.fromarray(
        deep.astype(dict(zip(('I;16', 'I', 'F'), (np.uint16, np.int32, np.float32)))[mode])
    ).save(tmp_path / f'a.{suffix}')
    url = embedded(Pool.from_folder(tmp_path), f'a.{suffix}')
    seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(',')[1])))).astype(int)
    np.testing.assert_allclose(seen, deep / 4095 * 255, atol=1)


# ---- Malformed exports


def _paths(thing, at=()):
    yield at
    for k, v in (
        thing.items()
        if isinstance(thing, dict)
        else enumerate(thing)
        if isinstance(thing, list)
        else ()
    ):
        yield from _paths(v, (*at, k))


KINDS_OF = dict(
    choices='class',
    several_choices='labels',
    numbers='value',
    texts='text',
    rectangles='boxes',
    quarter_turns='boxes',
    brushes='mask',
    several_controls='boxes',
    relations='boxes',
    turned_by_exif='boxes',
    without_numbers='class',
)
ODD = st.sampled_from(
    [
        None,
        True,
        False,
        0,
        -1,
        3,
        1e308,
        float('nan'),
        float('inf'),
        10**30,
        '',
        'x',
        'cat',
        [],
        {},
        [[]],
        [None],
        {'a': []},
        ['cat', 'cat'],
        '2026-13-45T99:99:99Z',
        '9999-12-31T23:59:59.999999Z',
        '0001-01-01T00:00:00',
    ]
)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('pictures')
    for name, orientation in zip(NAMES, (1, 1, 6, 3)):
        save(folder / name, orientation)
    return folder


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(sorted(KINDS_OF)),
    st.lists(
        st.tuples(st.integers(0, 10**6), st.one_of(ODD, st.just('delete'))), min_size=1, max_size=3
    ),
)
def test_a_malformed_export_writes_what_is_valid_or_an_error_that_says_why(folder, name, spoils):
    tasks, kind = copy.deepcopy(EXPORTS[name]), KINDS_OF[name]
    for place, value in spoils:
        places = [p for p in _paths(tasks) if p]
        if not places:
            break
        *where, key = places[place % len(places)]
        at = tasks
        for k in where:
            at = at[k]
        if value == 'delete':
            del at[key]
        else:
            at[key] = copy.deepcopy(value)
    pool, classes = (
        Pool.from_folder(folder),
        None
        if kind in ('value', 'text')
        else ['old', 'ill']
        if kind == 'labels'
        else ['fur', 'eye']
        if kind == 'mask'
        else ['cat', 'dog'],
    )
    try:
        pulled = receive(pool, tasks, kind, classes)
    except ValueError as e:
        assert len(str(e)) > 20 and recorded(pool) == []
        return
    got = recorded(pool)
    assert (
        pulled.labels + pulled.skips == len(got)
        and all(w for _, _, w in pulled.refused)
        and repr(pulled)
    )
    for uid, by, label in got:
        if label == 'skip':
            continue
        assert isinstance(by, str) and json.dumps(label, allow_nan=False)
        if kind == 'boxes':
            w, h = picture_size(pool, uid)
            assert (
                len(label['boxes']) == len(label['labels'])
                and all(0 <= l < r <= w and 0 <= t < b <= h for l, t, r, b in label['boxes'])
                and set(label['labels']) <= {'cat', 'dog'}
            )
        if kind == 'class':
            assert label in classes
        if kind == 'value':
            assert np.isfinite(label)
    n = len(pool.history)
    assert receive(pool, tasks, kind, classes).labels == 0 and len(pool.history) == n
