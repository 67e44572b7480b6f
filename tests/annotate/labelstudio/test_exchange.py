"What Label Studio reads and writes: exact cases, round trips, and what others may have put in"

import base64
import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from fastai_al.acquire.query import Query
from fastai_al.annotate.labelstudio.controls import labelling_config, words_of
from fastai_al.annotate.labelstudio.exchange import from_label_studio, to_label_studio
from fastai_al.annotate.labelstudio.reading import label_of
from fastai_al.annotate.labelstudio.receive import receive
from fastai_al.annotate.labelstudio.rle import decode_rle, encode_rle
from fastai_al.annotate.labelstudio.tasks import (
    _clusters_of,
    check_links,
    embedded,
    file_of,
    item_type,
    picture_size,
    predictions_of,
    task_of,
    terms_of,
)
from fastai_al.annotate.labelstudio.writing import result_of
from fastai_al.pool.pool import Pool

TEXT = st.text(st.characters(blacklist_categories=('Cs', 'Cc', 'Cn')), min_size=1).filter(str.strip)
CLASSES = st.lists(TEXT, min_size=1, max_size=5, unique=True)


def query_of(uids, predictions):
    return Query(
        list(uids),
        list(uids),
        list(range(len(uids))),
        np.linspace(-3, -9, len(uids)),
        list(predictions),
        dict(acquisition='bald', pool=len(uids)),
    )


def annotation(i=1, who=1, result=None, **more):
    return (
        dict(
            id=i,
            completed_by=who,
            result=result or [],
            was_cancelled=False,
            updated_at=f'2026-01-01T10:00:{i:02d}Z',
        )
        | more
    )


def task(uid, *annotations):
    return dict(data=dict(uid=uid), annotations=list(annotations))


# ---- Configurations


@settings(max_examples=60, deadline=None)
@given(CLASSES, st.sampled_from(['class', 'labels', 'boxes', 'mask']))
def test_classes_in_a_configuration_are_what_they_were(classes, kind):
    tree = ET.fromstring(labelling_config(kind, classes))
    assert [o.get('value') for o in tree.iter() if o.tag in ('Choice', 'Label')] == list(
        words_of(classes)
    ) and list(words_of(classes).values()) == classes
    assert {o.tag for o in tree.iter()} <= {
        'View',
        'Image',
        'Choices',
        'Choice',
        'RectangleLabels',
        'BrushLabels',
        'Label',
    }
    assert labelling_config(kind, [*classes, 'name="item"']).count('name="item"') == 1
    assert not any(
        w[i + 1 : i + 2].isalnum() for w in words_of(classes) for i, c in enumerate(w) if c == '$'
    )  # no variables


@pytest.mark.parametrize(
    'kind, item, tags',
    [
        ('value', 'table', ['View', 'Table', 'Number']),
        ('text', 'text', ['View', 'Text', 'TextArea']),
        ('class', 'text', ['View', 'Text', 'Choices', 'Choice']),
    ],
)
def test_a_configuration(kind, item, tags):
    tree = ET.fromstring(labelling_config(kind, ['a'], item))
    assert (
        [o.tag for o in tree.iter()] == tags
        and tree[0].attrib == dict(name='item', value=f'${item}')
        and tree[1].get('toName') == 'item'
    )


@pytest.mark.parametrize(
    'classes, error',
    [
        ([], 'needs the classes'),
        (None, 'needs the classes'),
        (['a', ' '], 'can not be shown'),
        (['\ud800'], 'can not be shown'),
        ([2, '2'], 'Several classes'),
        (['a', 'a'], 'Several classes'),
    ],
)
def test_invalid_classes_are_refused(classes, error):
    with pytest.raises(ValueError, match=error):
        labelling_config('class', classes)


# ---- Labels


def test_results_are_those_of_the_documentation():
    assert result_of('a', 'class', ['a', 'b']) == [
        dict(from_name='label', to_name='item', type='choices', value=dict(choices=['a']))
    ]
    assert (
        result_of(['b', 'a'], 'labels', ['a', 'b'])[0]['value'] == dict(choices=['b', 'a'])
        and result_of([], 'labels', ['a']) == []
    )
    assert result_of(2, 'value')[0] | dict(value=0) == dict(
        from_name='label', to_name='item', type='number', value=0
    ) and result_of(2, 'value')[0]['value'] == dict(number=2.0)
    assert result_of('x', 'text')[0]['type'] == 'textarea' and result_of('x', 'text')[0][
        'value'
    ] == dict(text=['x'])
    box = result_of(
        dict(boxes=[[20, 10, 60, 20]], labels=['b']), 'boxes', ['a', 'b'], size=(200, 50)
    )[0]
    assert box == dict(
        from_name='label',
        to_name='item',
        type='rectanglelabels',
        original_width=200,
        original_height=50,
        image_rotation=0,
        value=dict(x=10.0, y=20.0, width=20.0, height=20.0, rotation=0, rectanglelabels=['b']),
    )


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_there_and_back(data):
    classes = data.draw(CLASSES)
    one = st.sampled_from(classes)
    label = data.draw(st.lists(one, unique=True))
    assert label_of(result_of(label, 'labels', classes), 'labels', classes) == label
    assert (
        label_of(json.loads(json.dumps(result_of(label[0], 'class', classes))), 'class', classes)
        == label[0]
        if label
        else True
    )
    width, height = data.draw(st.tuples(st.integers(1, 5000), st.integers(1, 5000)))
    corner = st.tuples(st.integers(0, width - 1), st.integers(0, height - 1))
    boxes = [
        [x, y, data.draw(st.integers(x + 1, width)), data.draw(st.integers(y + 1, height))]
        for x, y in data.draw(st.lists(corner, max_size=3))
    ]
    label = dict(boxes=boxes, labels=[data.draw(one) for _ in boxes])
    assert (
        label_of(
            json.loads(json.dumps(result_of(label, 'boxes', classes, (width, height)))),
            'boxes',
            classes,
        )
        == label
    )
    number = data.draw(st.floats(allow_nan=False, allow_infinity=False))
    assert label_of(result_of(number, 'value'), 'value') == number


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 0.01, 0.5, 0.99, 1]),
)
def test_masks_there_and_back(height, width, seed, share):
    mask = np.random.default_rng(seed).random((height, width)) < share
    code = encode_rle(mask)
    assert all(0 <= b < 256 for b in code)
    np.testing.assert_array_equal(decode_rle(code, height, width), mask)
    classes = np.random.default_rng(seed).integers(0, 4, (height, width), dtype=np.uint8)
    if height * width and classes.any():
        np.testing.assert_array_equal(
            label_of(result_of(classes, 'mask', list('abcd')), 'mask', list('abcd')), classes
        )


def test_runs_as_they_are_written():
    bits = ''.join(f'{b:08b}' for b in encode_rle(np.array([[True, True, False]])))
    head = f'{12:032b}001110010001101111111'
    assert (
        bits.startswith(head + '10011111111111' + '10001100000000')
        and len(bits) - len(head) - 28 < 8
    )
    long = np.ones((1, 40000), dtype=bool)  # 160,000 numbers: two runs of 65,536, and the rest
    assert ''.join(f'{b:08b}' for b in encode_rle(long)).count('111' + '1' * 16 + '1' * 8) == 2
    np.testing.assert_array_equal(decode_rle(encode_rle(long), 1, 40000), long)


@pytest.mark.parametrize(
    'spoil',
    [
        lambda c: c[:-2],
        lambda c: c[:5],
        lambda c: [],
        lambda c: [300] + c,
        lambda c: [-1] + c,
        lambda c: ['a'] + c,
        lambda c: c[:-1] + [c[-1] + 0.5],
        lambda c: None,
        lambda c: [255, 255, 255, 255] + c[4:],
        lambda c: [0, 0, 0, 0] + c[4:],
    ],
)
def test_codes_that_are_none(spoil):
    with pytest.raises(ValueError, match='no answer of kind'):
        label_of(
            [
                dict(
                    result_of(np.array([[1, 0], [0, 1]]), 'mask', ['a', 'b'])[0],
                    value=dict(format='rle', rle=spoil(encode_rle(np.eye(2))), brushlabels=['b']),
                )
            ],
            'mask',
            ['a', 'b'],
        )


def test_later_strokes_lie_over_earlier_ones_and_sizes_must_agree():
    all_b, one_c = (
        result_of(np.ones((2, 3), int), 'mask', ['a', 'b', 'c']),
        result_of(np.array([[2, 0, 0], [0, 0, 0]]), 'mask', ['a', 'b', 'c']),
    )
    assert (
        label_of(all_b + one_c, 'mask', ['a', 'b', 'c']).tolist() == [[2, 1, 1], [1, 1, 1]]
        and label_of(one_c + all_b, 'mask', ['a', 'b', 'c']).max() == 1
    )
    assert label_of([], 'mask', ['a', 'b'], size=(3, 2)).tolist() == [[0, 0, 0], [0, 0, 0]]
    for result, size in ((all_b, (2, 3)), ([], None)):
        with pytest.raises(ValueError, match='sizes of one picture'):
            label_of(result, 'mask', ['a', 'b', 'c'], size=size)
    with pytest.raises(ValueError, match='1 to 256 classes'):
        label_of([], 'mask', range(257))


CHOICE, BOX = (
    result_of('a', 'class', ['a'])[0],
    result_of(dict(boxes=[[1, 1, 2, 2]], labels=['a']), 'boxes', ['a'], (4, 4))[0],
)


@pytest.mark.parametrize(
    'kind, result',
    [
        ('class', []),
        ('class', None),
        ('class', 'text'),
        ('class', [None]),
        ('class', [CHOICE, CHOICE]),
        ('class', [CHOICE | dict(value=dict(choices=['b']))]),
        ('class', [CHOICE | dict(value=dict(choices=[]))]),
        ('class', [CHOICE | dict(from_name='mood'), CHOICE | dict(from_name='kind')]),
        ('class', [CHOICE | dict(from_name=None)]),
        ('class', [CHOICE | dict(value=None)]),
        ('class', [CHOICE | dict(value=dict(choices=[{}]))]),
        ('value', [CHOICE]),
        *[
            ('value', [dict(from_name='label', type='number', value=dict(number=v))])
            for v in ('7', None, float('nan'), float('inf'), True, [1, 2])
        ],
        ('text', []),
        *[
            ('boxes', [BOX | more])
            for more in (
                dict(original_width=0),
                dict(original_width='4'),
                dict(original_height=None),
                dict(original_width=10**9),
                dict(value=BOX['value'] | dict(rotation=5)),
                dict(value=BOX['value'] | dict(width=0)),
                dict(value=BOX['value'] | dict(x=float('nan'))),
                dict(value=BOX['value'] | dict(rectanglelabels=[])),
                dict(value=BOX['value'] | dict(x=200)),
            )
        ],
    ],
)
def test_results_that_are_no_answer(kind, result):
    with pytest.raises(ValueError, match='no answer of kind'):
        label_of(result, kind, ['a'])


def test_the_control_may_have_any_name():
    mood = CHOICE | dict(from_name='mood')
    assert (
        label_of([mood], 'class', ['a'])
        == label_of([mood], 'class', ['a'], control='mood')
        == label_of([CHOICE, mood | dict(value=dict(choices=['b']))], 'class', ['a'])
        == 'a'
    )  # ours is the one that we made
    with pytest.raises(ValueError, match='0 classes where one is needed'):
        label_of([mood], 'class', ['a'], control='label')


def test_boxes_are_kept_in_the_picture():
    assert label_of([BOX | dict(value=BOX['value'] | dict(x=-1e-9, width=120.0))], 'boxes', ['a'])[
        'boxes'
    ] == [[0.0, 1.0, 4.0, 2.0]]


def test_words_become_classes_again():
    assert label_of(
        result_of('$7', 'class', ['$7', 7]), 'class', ['$7', 7]
    ) == '$7' and '$7' not in str(result_of('$7', 'class', ['$7', 7]))
    back = label_of(result_of(7, 'class', ['$7', 7]), 'class', ['$7', 7])
    assert back == 7 and type(back) is int and label_of(result_of(7, 'class', [7]), 'class') == '7'


# ---- Tasks


def test_items_are_distinguished(tmp_path):
    Image.new('L', (2, 2)).save(tmp_path / 'a.png')
    frame = pd.DataFrame(
        dict(
            id=['x'],
            image=['a.png'],
            age=[np.int64(3)],
            born=[pd.Timestamp('2020-01-01')],
            note=['<i>'],
            gap=[float('nan')],
        )
    )
    assert (
        item_type(Pool([tmp_path / 'a.png'])) == item_type(Pool.from_df(frame, 'image')) == 'image'
        and item_type(Pool(['hello'])) == 'text'
        and item_type(Pool([3])) == 'table'
    )
    row = task_of(Pool.from_df(frame, ['age', 'born', 'note', 'gap'], uid='id'), 'x', 'table')
    assert json.loads(json.dumps(row, allow_nan=False)) == dict(
        data=dict(uid='x', table=dict(age=3, born='2020-01-01 00:00:00', note='<i>', gap=None))
    )
    assert task_of(Pool([3]), '3', 'table') == dict(data=dict(uid='3', table=dict(item=3)))


def test_pictures_that_browsers_would_turn_or_not_show(tmp_path):
    stripes = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6) * 10)
    exif = Image.Exif()
    exif[0x0112] = 6
    stripes.save(tmp_path / 'turned.png', exif=exif)
    stripes.save(tmp_path / 'a.tif')
    stripes.save(tmp_path / 'plain.png')
    pool = Pool.from_folder(tmp_path)

    def shown(uid):
        return Image.open(io.BytesIO(base64.b64decode(embedded(pool, uid).split(',')[1])))

    for uid in ('turned.png', 'a.tif', 'plain.png'):
        picture = shown(uid)
        assert picture.format == 'PNG' and picture.getexif().get(0x0112, 1) == 1
        np.testing.assert_array_equal(np.array(picture.convert('L')), np.array(stripes))
    assert (
        base64.b64decode(embedded(pool, 'plain.png').split(',')[1])
        == (tmp_path / 'plain.png').read_bytes()
    )


def test_no_path_leaves_the_root(tmp_path):
    root, out = tmp_path / 'root', tmp_path / 'out'
    for folder in (root, out):
        folder.mkdir()
    Image.new('L', (2, 2)).save(out / 'x.png')
    check_links(root)
    (root / 'folder').symlink_to(out)
    pool = Pool.from_df(
        pd.DataFrame(
            dict(image=['folder/x.png', '../out/x.png', str(out / 'x.png'), 'gone.png', '.png'])
        ),
        'image',
        root=root,
    )
    for uid in ('folder/x.png', '../out/x.png', str(out / 'x.png')):
        with pytest.raises(PermissionError, match='does not lie under the root'):
            file_of(pool, uid)
    with pytest.raises(FileNotFoundError, match='There is no file'):
        file_of(pool, 'gone.png')
    with pytest.raises(ValueError, match='would be served'):
        check_links(root)
    with pytest.raises(ValueError, match='has no root'):
        file_of(Pool([out / 'x.png']), str(out / 'x.png'))


def test_the_file_of_an_item_is_found_from_the_current_folder_or_the_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('root').mkdir()
    Image.new('L', (5, 4)).save('root/x.png')
    for items in ([Path('root/x.png')], [tmp_path / 'root' / 'x.png'], ['x.png']):
        pool = Pool(items, root='root')
        assert file_of(pool, 'x.png') == (tmp_path / 'root' / 'x.png').resolve() and picture_size(
            pool, 'x.png'
        ) == (5, 4)


# ---- Predictions


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 500))
def test_scores_rise_within_bounds(n):
    scores = [
        p['score']
        for p in predictions_of(query_of([str(i) for i in range(n)], [None] * n), 'class', ['a'])
    ]
    assert 0 < scores[0] and scores[-1] < 1 and all(a < b for a, b in zip(scores, scores[1:]))


def test_predictions_that_fit_the_kind_of_answer():
    size_of = lambda uid: (4, 4)
    for kind, prediction, told in [
        ('class', 'b', True),
        ('class', None, False),
        ('class', ['b'], False),
        ('labels', ['a', 'b'], True),
        ('labels', [], False),
        ('value', np.float32(0.5), True),
        ('value', [1.0, 2.0], False),
        ('value', float('nan'), False),
        ('mask', None, False),
        ('text', 'x', True),
        ('boxes', dict(boxes=[[0, 0, 1, 1]], labels=['a']), True),
        ('boxes', ['a'], False),
    ]:
        p = predictions_of(query_of(['u'], [prediction]), kind, ['a', 'b'], size_of=size_of)[0]
        assert bool(p['result']) == told, (kind, prediction)
        json.dumps(p, allow_nan=False)
    with pytest.raises(ValueError, match="'cow' is none of the classes"):
        predictions_of(query_of(['u'], ['cow']), 'class', ['a'])


def test_clusters():
    assert (
        _clusters_of(['b', 'a', None], 'class', ['a', 'b']) == [1, 0, 2]
        and _clusters_of([['b', 'a'], []], 'labels', ['a', 'b']) == [1, 2]
        and _clusters_of([0.5], 'value', None) == [None]
    )
    assert [
        p['cluster']
        for p in predictions_of(query_of('uv', [1.0, 2.0]), 'value', clusters=np.array([5, 3]))
    ] == [5, 3]
    with pytest.raises(ValueError, match='3 clusters for 2'):
        predictions_of(query_of('uv', 'aa'), 'class', ['a'], clusters=[1, 2, 3])


@pytest.mark.parametrize(
    'labels, predictions, classes, kind',
    [
        (['a', None], [], ['a'], 'class'),
        ([None, None], [3], [3, 4], 'class'),
        ([2.5, None], [], None, 'value'),
        ([None, None], [None, 0.5], None, 'value'),
        ([['a'], None], [], ['a'], 'labels'),
        ([dict(boxes=[], labels=[]), None], [], ['a'], 'boxes'),
        (['m/a.png', None], [], ['a'], 'mask'),
        ([None, None], [['a']], ['a'], 'labels'),
        ([None, None], [dict(boxes=[], labels=[])], ['a'], 'boxes'),
    ],
)
def test_kinds(labels, predictions, classes, kind):
    assert terms_of(
        Pool(['u', 'v'], labels),
        query_of('uv'[: len(predictions)], predictions),
        None,
        classes,
        'image',
    ) == (kind, classes)


def test_classes_are_the_vocabulary():
    pool = Pool(['u'])
    pool.set_vocab(['#na#', 'a', 'b'])
    for kind, classes, terms in [
        ('boxes', None, ('boxes', ['a', 'b'])),
        ('class', ['b'], ('class', ['b'])),
        ('value', None, ('value', None)),
        (None, None, ('class', ['a', 'b'])),
        (None, ['c'], ('class', ['c'])),
    ]:
        assert terms_of(pool, query_of('u', 'a'), kind, classes, 'image') == terms
    with pytest.raises(ValueError, match='the classes are not known'):
        terms_of(Pool(['u']), None, 'class', None, 'text')
    with pytest.raises(ValueError, match='the classes are not known'):
        terms_of(
            Pool(['u']), query_of('u', ['a']), None, None, 'text'
        )  # of a prediction one is known, and not the others
    with pytest.raises(ValueError, match='the classes are not known'):
        terms_of(Pool(['u', 'v'], ['m/a.png', None]), None, None, None, 'image')
    with pytest.raises(ValueError, match='The classes are not known'):
        terms_of(Pool(['u']), None, None, None, 'text')
    with pytest.raises(ValueError, match='is drawn on pictures'):
        terms_of(pool, None, 'mask', None, 'text')


# ---- Answers


def recorded(pool):
    return [(e.uid, e.kind, e.label, e.source) for e in pool.ledger.since() if e.kind != 'add']


def test_what_is_not_valid_does_not_take_the_others_with_it():
    pool = Pool(['u', 'v', 'w'])
    pool.set_vocab(['a', 'b'])
    tasks = [
        task('u', annotation(1, 1, result_of('a', 'class', ['a']))),
        task('stranger', annotation(2, 1), annotation(9, 1)),
        task(
            'v',
            annotation(3, 1, result_of('cow', 'class', ['cow'])),
            annotation(4, 2, was_cancelled=True),
        ),
        task('w', annotation(5, 1, result_of('b', 'class', ['b']))),
    ]
    pulled = receive(pool, tasks, 'class', ['a', 'b'], {1: 'anna'})
    assert recorded(pool) == [
        ('u', 'label', 'a', 'anna'),
        ('v', 'skip', None, 'user 2'),
        ('w', 'label', 'b', 'anna'),
    ]
    assert (
        (pulled.labels, pulled.skips, pulled.annotators, pulled.unknown)
        == (2, 1, {'anna': 2, 'user 2': 1}, ['stranger'])
        and [r[:2] for r in pulled.refused] == [('v', 'anna')]
        and "'cow' is none" in pulled.refused[0][2]
    )
    assert (
        '2 labels and 1 skips' in repr(pulled)
        and "'stranger'" in repr(pulled)
        and 'cow' in repr(pulled)
    )
    again = receive(pool, tasks, 'class', ['a', 'b'])  # and by whom is not known this time
    assert (again.labels, again.skips, len(recorded(pool)), len(again.refused)) == (0, 0, 3, 1)


def test_the_pool_has_the_last_word():
    pool = Pool(['u', 'v'])
    pool.set_vocab(['a'])
    assert (
        receive(
            pool, [task('u', annotation(1, 1, result_of('b', 'class', ['b'])))], 'class', ['a', 'b']
        )
        .refused[0][2]
        .startswith("'b' (str), the label for 'u', is not in the vocabulary")
    )
    mixed = Pool(['u', 'v'])  # labels of two types: the first one decides
    pulled = receive(
        mixed,
        [
            task('u', annotation(1, 1, result_of('a', 'class', ['a', 1]))),
            task('v', annotation(2, 1, result_of(1, 'class', ['a', 1]))),
        ],
        'class',
        ['a', 1],
    )
    assert recorded(mixed) == [('u', 'label', 'a', 'user 1')] and 'a number' in pulled.refused[0][2]


def test_edits_and_touches():
    pool, a, b = Pool(['u']), result_of('a', 'class', ['a']), result_of('b', 'class', ['b'])

    def pull(*annotations):
        return receive(pool, [task('u', *annotations)], 'class', ['a', 'b'], {1: 'anna', 2: 'ben'})

    pull(annotation(1, 1, a))
    assert pull(annotation(1, 1, a, updated_at='2026-02-01T10:00:00Z')).labels == 0  # starred, say
    assert (
        pull(annotation(1, 1, b, updated_at='2026-02-02T10:00:00Z'), annotation(2, 2, a)).labels
        == 2
    )
    assert pull(annotation(1, 1, was_cancelled=True, updated_at='2026-02-03T10:00:00Z')).skips == 1
    assert recorded(pool) == [
        ('u', 'label', 'a', 'anna'),
        ('u', 'label', 'a', 'ben'),
        ('u', 'label', 'b', 'anna'),
        ('u', 'skip', None, 'anna'),
    ] and pool.labelled['label'].tolist() == ['a']
    pool.retract('u', annotator='ben')  # here, not there: it is not recorded again
    assert pull(annotation(2, 2, a)).labels == 0


def test_the_oldest_answer_comes_first_and_keeps_its_time():
    pool = Pool(['u'])
    receive(
        pool,
        [
            task(
                'u',
                annotation(
                    1,
                    1,
                    result_of('b', 'class', ['b']),
                    updated_at='2026-03-01T00:00:00.500000Z',
                    lead_time=4,
                ),
                annotation(
                    2,
                    1,
                    result_of('a', 'class', ['a']),
                    updated_at='2026-02-01T00:00:00Z',
                    lead_time='x',
                ),
            )
        ],
        'class',
        ['a', 'b'],
    )
    events = [e for e in pool.ledger.since() if e.kind == 'label']
    assert [(e.label, e.seconds, e.at) for e in events] == [
        ('a', None, 1769904000.0),
        ('b', 4.0, 1772323200.5),
    ] and pool.labelled['label'].tolist() == ['b']
    assert events[1].note == dict(annotation=1, updated='2026-03-01T00:00:00.500000Z')


@pytest.mark.parametrize(
    'who, by',
    [
        (1, 'anna'),
        (3, 'user 3'),
        (None, 'user None'),
        (dict(id=5, email='e@x', username='u'), 'e@x'),
        (dict(id=5, username='u'), 'u'),
        (dict(id=1), 'anna'),
        ('given', 'user given'),
        ('triage 1', 'user triage 1'),
    ],
)
def test_names(who, by):
    pool = Pool(['u'])
    receive(
        pool,
        [task('u', annotation(1, who, result_of('a', 'class', ['a'])))],
        'class',
        ['a'],
        {1: 'anna'},
    )
    assert recorded(pool)[0][3] == by


def test_masks_are_files_under_the_root(tmp_path):
    (tmp_path / 'sub').mkdir()
    Image.new('L', (5, 4)).save(tmp_path / 'sub' / 'ä b.png')
    pool, mask = Pool.from_folder(tmp_path), np.array([[0, 0, 1, 2, 2]] * 4)

    def pull(i, mask, **more):
        return receive(
            pool,
            [
                task(
                    'sub/ä b.png',
                    annotation(
                        i,
                        1,
                        result_of(mask, 'mask', ['g', 'c', 'd']) if mask is not None else [],
                        **more,
                    ),
                )
            ],
            'mask',
            ['g', 'c', 'd'],
        )

    assert pull(1, mask).labels == 1 and pull(1, mask).labels == 0
    path = recorded(pool)[0][2]
    assert (
        path.startswith('.masks/sub/ä b.png.')
        and np.array(Image.open(tmp_path / path)).tolist() == mask.tolist()
        and Image.open(tmp_path / path).mode == 'L'
    )
    assert (
        pull(2, np.zeros_like(mask)).labels == 1
        and len(list((tmp_path / '.masks').rglob('*.png'))) == 2
    )  # nothing painted: all of the first class
    assert (
        pull(3, np.ones((9, 9), int)).refused[0][2].startswith('This is no answer')
        and len(Pool.from_folder(tmp_path)) == 1
    )
    for masks in ('../out', tmp_path.parent):
        with pytest.raises(ValueError, match='is not under root'):
            receive(pool, [], 'mask', ['g'], masks=masks)
    with pytest.raises(ValueError, match='no folder for masks'):
        receive(Pool(['u']), [], 'mask', ['g'])


@pytest.mark.parametrize(
    'tasks',
    [
        dict(a=1),
        [1],
        [dict(annotations=[])],
        [dict(data=dict(uid='u'), annotations=[3])],
        [dict(data=None, annotations=[dict()])],
        None,
    ],
)
def test_what_is_no_export(tasks, tmp_path):
    (tmp_path / 'e.json').write_text(json.dumps(tasks))
    pool = Pool(['u'])
    if tasks == [dict(annotations=[])]:
        assert from_label_studio(pool, tmp_path / 'e.json', 'text').labels == 0
        return
    with pytest.raises(ValueError, match='not JSON-MIN'):
        from_label_studio(pool, tmp_path / 'e.json', 'text')
    assert recorded(pool) == []


def test_files(tmp_path):
    pool, query = Pool([f't{i}' for i in range(3)]), query_of(['t2', 't0'], ['b', 'a'])
    pool.set_vocab(['a', 'b'])
    to_label_studio(pool, query, tmp_path / 'q.json')
    tasks = json.loads((tmp_path / 'q.json').read_text())
    assert (
        [t['data'] for t in tasks] == [dict(uid='t2', text='t2'), dict(uid='t0', text='t0')]
        and (tmp_path / 'q.xml').read_text() == labelling_config('class', ['a', 'b'], 'text')
        and len(list(tmp_path.iterdir())) == 2
    )
    for t, label in zip(tasks, 'ab'):
        t['annotations'] = [annotation(3, 1, result_of(label, 'class', ['a', 'b']))]
    (tmp_path / 'e.json').write_text(json.dumps(tasks))
    assert from_label_studio(pool, tmp_path / 'e.json', 'class').labels == 2 and recorded(pool) == [
        ('t2', 'label', 'a', 'user 1'),
        ('t0', 'label', 'b', 'user 1'),
    ]
    (tmp_path / 'e.json').write_text('nothing')
    with pytest.raises(ValueError, match='is no JSON'):
        from_label_studio(pool, tmp_path / 'e.json')
    with pytest.raises(ValueError, match='is not known'):
        to_label_studio(pool, query, tmp_path / 'q.json', kind='colour')


def test_no_pull_by_halves(monkeypatch):
    pool = Pool(['u', 'v'])

    def full(events, settings=None):
        raise OSError('the disk is full')

    monkeypatch.setattr(pool.ledger, 'append', full)
    tasks = [task(u, annotation(i, 1, result_of('a', 'class', ['a']))) for i, u in enumerate('uv')]
    with pytest.raises(OSError):
        receive(pool, tasks, 'class', ['a'])
    monkeypatch.undo()
    assert recorded(pool) == [] and receive(pool, tasks, 'class', ['a']).labels == 2


WHERE = b'48.858 2.294 at home'


def photo(file, size=(64, 48), mode='RGB', **kwargs):
    exif = Image.Exif()
    exif[0x010F] = WHERE.decode()
    if file.suffix != '.tif':
        exif[0x8825] = {0x001D: WHERE.decode()}  # GPS
    pixels = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(file, exif=exif, **kwargs)


def sent(pool, uid):
    return base64.b64decode(embedded(pool, uid).split(',')[1])


@pytest.mark.parametrize(
    'name, options',
    [
        ('a.jpg', dict(comment=WHERE, xmp=WHERE)),
        ('a.jpg', dict(progressive=True, comment=WHERE)),
        ('a.jpg', dict(mode='L', comment=WHERE)),
        ('a.jpg', dict(mode='CMYK', comment=WHERE)),
        (
            'a.jpg',
            dict(
                icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes(),
                comment=WHERE,
            ),
        ),
        ('a.png', {}),
        ('a.png', dict(mode='RGBA')),
        ('a.webp', dict(xmp=WHERE, lossless=True)),
        ('a.tif', {}),
        ('a.gif', dict(mode='P', comment=WHERE)),
    ],
)
def test_metadata_of_a_file_is_not_embedded(tmp_path, name, options):
    if name == 'a.png':
        options['pnginfo'] = (texts := PngInfo())
        texts.add_text('Comment', WHERE.decode())
        texts.add_itxt('XML:com.adobe.xmp', WHERE.decode(), zip=False)
    photo(tmp_path / name, **options)
    with open(tmp_path / name, 'ab') as f:
        f.write(WHERE)  # as some cameras do
    assert (tmp_path / name).read_bytes().count(WHERE) > 1
    data = sent(Pool.from_folder(tmp_path), name)
    assert WHERE not in data
    with Image.open(tmp_path / name) as before, Image.open(io.BytesIO(data)) as after:
        assert not after.getexif() and ('icc_profile' in after.info) == (
            'icc_profile' in before.info
        )
        np.testing.assert_array_equal(
            np.asarray(before if after.mode == before.mode else before.convert('RGB')),
            np.asarray(after),
        )


def test_a_picture_without_anything_else_is_sent_as_it_lies(tmp_path):
    Image.new('RGB', (9, 7), 'red').save(tmp_path / 'a.jpg')
    Image.new('RGBA', (9, 7), 'red').save(tmp_path / 'a.png')
    pool = Pool.from_folder(tmp_path)
    for uid in ('a.jpg', 'a.png'):
        assert sent(pool, uid) == (tmp_path / uid).read_bytes()


def test_pictures_that_move_still_do(tmp_path):
    frames = [Image.new('L', (9, 7), shade) for shade in (0, 100, 200)]
    frames[0].save(
        tmp_path / 'a.gif',
        save_all=True,
        append_images=frames[1:],
        duration=100,
        loop=0,
        comment=WHERE,
    )
    data = sent(Pool.from_folder(tmp_path), 'a.gif')
    with Image.open(io.BytesIO(data)) as moves:
        assert moves.n_frames == 3 and WHERE not in data


def test_a_jpeg_that_breaks_off_is_sent_as_far_as_it_goes(tmp_path):
    photo(tmp_path / 'a.jpg', comment=WHERE)
    whole = (tmp_path / 'a.jpg').read_bytes()
    for end in (len(whole) - 2, len(whole) - 200, len(whole) // 2):
        (tmp_path / 'a.jpg').write_bytes(whole[:end])
        data = sent(Pool.from_folder(tmp_path), 'a.jpg')
        assert (
            WHERE not in data
            and data[-2:] == b'\xff\xd9'
            and Image.open(io.BytesIO(data)).size == (64, 48)
        )
