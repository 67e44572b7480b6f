"What is known of each item, and which answers it accepts"

import csv
import json
import os
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.basics import CategoryBlock, DataBlock, TransformBlock
from fastai.vision.all import ImageBlock
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from conftest import XOf
from fastai_al import FastaiALWarning
from fastai_al.pool.draw import shuffled_unlabelled
from fastai_al.pool.ledger import Event
from fastai_al.pool.pool import Pool
from fastai_al.pool.sources import _read_csv
from fastai_al.pool.state import ItemState, majority

DF = pd.DataFrame(
    dict(
        image=['1.jpg', '2.jpg', '3.jpg', '4.jpg'],
        camera=[1, 2, 1, 2],
        label=['cat', None, 'dog', np.nan],
    )
)


# Where items come from


def test_from_df_takes_missing_labels_for_not_yet():
    pool = Pool.from_df(DF, 'image', 'label')
    assert dict(pool.labelled['label']) == {'1.jpg': 'cat', '3.jpg': 'dog'}
    assert list(pool.unlabelled.index) == ['2.jpg', '4.jpg'] and list(
        pool.unlabelled['camera']
    ) == [2, 2]


def test_the_users_frame_is_not_touched():
    df = DF.copy()
    pool = Pool.from_df(df, 'image', 'label')
    pool.label('2.jpg', 'cat')
    pool.labelled['camera'] = 7
    pd.testing.assert_frame_equal(df, DF)
    assert 7 not in list(pool.labelled['camera'])


@pytest.mark.parametrize(
    'column, types',
    [
        ([3, None, 4], int),
        (['a', None, 'b'], str),
        ([0.5, None, 1.25], float),
        ([True, None, False], bool),
    ],
)
def test_labels_keep_their_type_beside_missing_ones(column, types):
    pool = Pool.from_df(pd.DataFrame(dict(x=['a', 'b', 'c'], y=column)), 'x', 'y')
    assert [type(v) for v in pool.labelled['y']] == [types] * 2 and list(pool.labelled['y']) == [
        column[0],
        column[2],
    ]


def test_from_csv_keeps_whole_numbers_and_finds_files(tmp_path):
    (tmp_path / 'a.png').touch()
    (tmp_path / 't.csv').write_text('image,digit\na.png,3\nb.png,\n')
    pool = Pool.from_csv(tmp_path / 't.csv', 'image', 'digit')
    assert pool.labelled['digit'].iloc[0] == 3 and pool.root == tmp_path.resolve()


def csv_pool(tmp_path, text, *args, **kwargs):
    (tmp_path / 't.csv').write_text(text)
    return Pool.from_csv(tmp_path / 't.csv', *args, **kwargs)


def test_only_an_empty_field_of_a_csv_is_missing(tmp_path):
    words = [
        'None',
        'NA',
        'null',
        'nan',
        'N/A',
        'n/a',
        'NULL',
        'NaN',
        '<NA>',
        '#N/A',
        '-nan',
        'True',
        ' ',
    ]
    pool = csv_pool(
        tmp_path,
        'name,type\n' + ''.join(f'{w},{w}\n' for w in words) + 'empty,\nquoted,""\n',
        'name',
        'type',
    )
    assert dict(pool.labelled['type']) == {w: w for w in words} and list(pool.unlabelled.index) == [
        'empty',
        'quoted',
    ]


@pytest.mark.parametrize(
    'item, uid, ids',
    [
        ('id', None, ['007', '7', '1.50', '1.5', '1e3', 'None', '+1']),
        ('x', 'id', ['007', '7', '1.0', '0', '00', 'null', ' 1']),
        (['x', 'y'], 'id', ['01', '1', '001']),
    ],
)
def test_ids_in_a_csv_stay_text(tmp_path, item, uid, ids):
    rows = ''.join(f'{one},{i},{i / 2}\n' for i, one in enumerate(ids))
    pool = csv_pool(tmp_path, f'id,x,y\n{rows}', item, uid=uid)
    assert list(pool.unlabelled.index) == ids and pool.unlabelled['x'].tolist() == list(
        range(len(ids))
    )
    for column, index in (('id', 'id'), ('id', 0), ('', 0)):
        assert (
            list(
                csv_pool(
                    tmp_path, f'{column},x,y\n{rows}', 'x', uid='index', index_col=index
                ).unlabelled.index
            )
            == ids
        )


def test_an_item_that_names_itself_stays_a_number_where_it_reads_the_same(tmp_path):
    for texts, items in (
        (['7', '10', '-3'], [7, 10, -3]),
        (['0.5', '2.0'], [0.5, 2.0]),
        (['07', '10'], ['07', '10']),
        (['12345678901234567890123', '1'], ['12345678901234567890123', '1']),
    ):
        pool = csv_pool(tmp_path, 'x\n' + '\n'.join(texts) + '\n', 'x')
        assert list(pool.unlabelled.index) == texts and pool.unlabelled['x'].tolist() == items


@pytest.mark.parametrize(
    'column, labels',
    [
        (['3', '', '4'], [3, 4]),
        (['1.50', '2', ''], [1.5, 2.0]),
        (['True', 'false', ''], [True, False]),
        (['01', '1', '10'], ['01', '1', '10']),
        (['0.5', '0', '-0.25'], [0.5, 0.0, -0.25]),
        (['9007199254740993', '', '1'], [9007199254740993, 1]),
        (['99999999999999999999999', '1', ''], ['99999999999999999999999', '1']),
        (['a', '7', ''], ['a', '7']),
    ],
)
def test_labels_in_a_csv_are_numbers_unless_leading_zeros_would_go(tmp_path, column, labels):
    got = (
        csv_pool(tmp_path, 'x,y\n' + ''.join(f'i{i},{c}\n' for i, c in enumerate(column)), 'x', 'y')
        .labelled['y']
        .tolist()
    )
    assert got == labels and [type(g) for g in got] == [type(v) for v in labels]


def test_options_of_read_csv_pass_through(tmp_path):
    pool = csv_pool(
        tmp_path,
        'x;y;z\na;1,5;?\nb;NA;3\nNA;-;4\n',
        'x',
        'y',
        sep=';',
        decimal=',',
        na_values=dict(y=['NA', '-']),
        timeout=3,
    )
    assert (
        dict(pool.labelled['y']) == {'a': 1.5}
        and list(pool.unlabelled.index) == ['b', 'NA']
        and pool.ledger.timeout == 3
    )
    assert pool.unlabelled['z'].tolist() == ['3', '4']
    assert dict(
        csv_pool(tmp_path, 'x,y\na,?\nb,3\nc,\n', 'x', 'y', na_values='?').labelled['y']
    ) == {'b': 3}
    assert dict(
        csv_pool(tmp_path, 'x,y\na,07\nb,3\n', 'x', 'y', dtype=dict(y=int)).labelled['y']
    ) == {'a': 7, 'b': 3}
    assert list(
        csv_pool(tmp_path, 'x,y\na,NA\nb,dog\n', 'x', 'y', keep_default_na=True).labelled.index
    ) == ['b']
    assert dict(
        csv_pool(tmp_path, 'x  y\na  NA\nb  dog\n', 'x', 'y', sep=r'\s+').labelled['y']
    ) == {'a': 'NA', 'b': 'dog'}
    text = csv_pool(tmp_path, 'x,y\n1,07\n2,3\n', 'x', 'y', dtype=str)
    assert dict(text.labelled['y']) == {'1': '07', '2': '3'} and text.labelled['x'].tolist() == [
        '1',
        '2',
    ]
    with pytest.raises(TypeError, match='chunksize'):
        csv_pool(tmp_path, 'x,y\na,1\n', 'x', 'y', chunksize=3)


def test_a_word_among_numbers_of_a_csv_is_reported(tmp_path):
    text = 'x,y,z\na,1.5,2\nb,NA,3\nc,nan,null\n'
    with (
        pytest.warns(FastaiALWarning, match="'y' contains numbers and 'NA'.*na_values"),
        pytest.warns(FastaiALWarning, match="'z' contains numbers and 'null'"),
    ):
        pool = csv_pool(tmp_path, text, 'x', 'y')
    assert pool.labelled['y'].tolist() == ['1.5', 'NA', 'nan']
    assert csv_pool(tmp_path, text, 'x', 'y', na_values=['NA', 'nan', 'null']).labelled[
        'y'
    ].tolist() == [1.5]
    csv_pool(tmp_path, 'x,y,z\n1,NA,\n2,EU,3\nNA,NA,4\n', 'x', 'y')  # names and classes alone


def test_a_large_csv_has_one_type_a_column(tmp_path):
    (tmp_path / 't.csv').write_text(
        'x,y,z\n' + ''.join(f'{i},1,2\n' for i in range(300_000)) + 'last,cat,dog\n'
    )  # more than pandas reads in one go
    frame = _read_csv(tmp_path / 't.csv', 'x', ['y'], {})
    assert [set(map(type, frame[c])) for c in 'xyz'] == [{str}] * 3


TEXT = st.text(st.characters(blacklist_categories=('Cs', 'Cc')), min_size=1)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(TEXT, TEXT, max_size=6))
def test_text_comes_back_from_a_csv_as_it_was(types):
    types |= {'another name': 'a word'}
    with tempfile.TemporaryDirectory() as folder:
        with open(f'{folder}/t.csv', 'w', newline='', encoding='utf-8') as file:
            csv.writer(file, quoting=csv.QUOTE_ALL).writerows([('name', 'type'), *types.items()])
        assert dict(Pool.from_csv(f'{folder}/t.csv', 'name', 'type').labelled['type']) == types


def test_a_file_name_that_is_no_utf8_takes_no_other_with_it(tmp_path):
    for name in (b'a.png', b'b\xff.png'):
        Path(os.fsdecode(os.fsencode(tmp_path) + b'/' + name)).touch()
    with pytest.warns(
        FastaiALWarning,
        match=r"1 files are left out because UTF-8 can not encode their names: b'b.xff.png'",
    ):
        pool = Pool.from_folder(tmp_path, db=tmp_path / 'l.db')
    assert list(pool.unlabelled.index) == ['a.png']


def test_from_folder_names_files_by_their_path_in_it(tmp_path):
    for name in ('cat/1.png', 'dog/2.JPG', 'dog/notes.txt', '.hidden/3.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    pool = Pool.from_folder(tmp_path, label=lambda f: f.parent.name)
    assert dict(pool.labelled['label']) == {'cat/1.png': 'cat', 'dog/2.JPG': 'dog'}
    assert pool.labelled['item'].iloc[0] == tmp_path.resolve() / 'cat/1.png'


@pytest.mark.parametrize(
    'make, error, says',
    [
        (lambda t: Pool.from_df(DF, 'picture'), ValueError, 'no column'),
        (lambda t: Pool.from_df(DF, 'image', 'klass'), ValueError, 'no column'),
        (lambda t: Pool.from_df(DF, 'camera', 'label'), ValueError, 'uid='),
        (lambda t: Pool.from_df(DF, ['image', 'camera'], 'label'), ValueError, 'uid='),
        (lambda t: Pool(['a', 'a']), ValueError, 'several items'),
        (lambda t: Pool([np.zeros(2)]), ValueError, 'uids='),
        (lambda t: Pool(['a', 'b'], ['x']), ValueError, '1 labels'),
        (lambda t: Pool([np.zeros(2)], uids=['a', 'b']), ValueError, '2 uids'),
        (lambda t: Pool([Path('/elsewhere/1.png')], root=t), ValueError, 'root='),
        (lambda t: Pool.from_folder(t), ValueError, 'No file'),
        (lambda t: Pool.from_folder(t / 'nowhere'), FileNotFoundError, 'no folder'),
        (lambda t: Pool.open(t / 'nowhere.db'), FileNotFoundError, 'no ledger'),
        (lambda t: Pool(['a'], {'b': 'cat'}), KeyError, 'knows no'),
        (lambda t: Pool.from_df(DF, 'image'), ValueError, "label='label'"),
        (lambda t: Pool.from_df(DF, 'label', 'label'), ValueError, 'can not be'),
        (
            lambda t: Pool.from_df(DF.assign(image=['a', None, 'c', 'd']), 'image', 'label'),
            ValueError,
            '1 items have no uid',
        ),
        (lambda t: Pool(['a', 'b'], ['cat', 7]), TypeError, 'a number'),
    ],
)
def test_bad_items_are_refused(tmp_path, make, error, says):
    with pytest.raises(error, match=says):
        make(tmp_path)


def test_names_of_columns_do_not_clash_with_ours():
    df = pd.DataFrame(dict(image=['a', 'b'], by=['cat', 'dog'], at=[1, 2], note=['x', 'y']))
    pool = Pool.from_df(df, 'image', 'by')
    assert (
        list(pool.labelled['by']) == ['cat', 'dog']
        and list(pool.labelled['at']) == [1, 2]
        and list(pool.labelled['note']) == ['x', 'y']
    )


def test_whole_number_uids_stay_whole_beside_gaps_elsewhere():
    assert list(Pool.from_df(pd.DataFrame(dict(id=[1.0, 2.0])), 'id').unlabelled.index) == [
        '1',
        '2',
    ]


def test_a_long_text_is_no_file(tmp_path):
    pd.DataFrame(dict(text=['long ' * 100, 'short'])).to_csv(tmp_path / 't.csv', index=False)
    assert Pool.from_csv(tmp_path / 't.csv', 'text').root is None


def test_time_stamps_are_converted_together(monkeypatch):
    pool, calls, convert = Pool(range(50), [0] * 50), [], pd.to_datetime
    monkeypatch.setattr(pd, 'to_datetime', lambda *a, **kw: calls.append(a) or convert(*a, **kw))
    assert len(pool.labelled) == 50 and len(calls) == 1


def test_an_empty_pool_is_a_pool():
    pool = Pool([])
    assert len(pool) == 0 and len(pool.unlabelled) == 0 and 'empty' in repr(pool)
    with pytest.raises(ValueError, match='0 unlabelled'):
        pool.draw_holdout(1)


# Which answers are accepted


@pytest.fixture
def pool():
    return Pool.from_df(DF, 'image', 'label')


@pytest.mark.parametrize(
    'say, error, says',
    [
        (lambda p: p.label(['1.jpg', '9.jpg'], ['cat', 'cat']), KeyError, "'9.jpg'"),
        (lambda p: p.label(['1.jpg', '2.jpg'], ['cat', 3]), TypeError, 'a number'),
        (lambda p: p.label('2.jpg', None), TypeError, 'ignore'),
        (lambda p: p.label('2.jpg', float('nan')), TypeError, 'no label'),
        (lambda p: p.label('2.jpg', object()), TypeError, 'no label'),
        (lambda p: p.label('2.jpg', ['a', float('inf')]), TypeError, 'JSON'),
        (lambda p: p.label(['1.jpg', '2.jpg'], ['cat']), ValueError, 'one for each'),
        (lambda p: p.label(['1.jpg', '2.jpg'], 'cat'), ValueError, 'one for each'),
        (lambda p: p.label(['1.jpg', '1.jpg'], ['cat', 'dog']), ValueError, 'more than once'),
        (lambda p: p.label(['1.jpg', '2.jpg'], {'1.jpg': 'cat'}), ValueError, 'No label for'),
        (lambda p: p.retract(['1.jpg', '2.jpg']), ValueError, 'no answer'),
        (lambda p: p.retract('1.jpg', annotator='anna'), ValueError, "by 'anna'"),
        (lambda p: p.add_pseudo(['2.jpg', '1.jpg'], ['cat', 'cat']), ValueError, 'labelled'),
        (lambda p: p.ignore('9.jpg'), KeyError, 'knows no'),
        (lambda p: p.draw_holdout(3), ValueError, '2 unlabelled'),
        (lambda p: p.draw_holdout(0), ValueError, '1 to 2'),
        (lambda p: p.sample(-1), ValueError, '1 to 2'),
    ],
)
def test_refused_answers_leave_no_trace(pool, say, error, says):
    before = pool.history
    with pytest.raises(error, match=says):
        say(pool)
    pd.testing.assert_frame_equal(pool.history, before)


def test_the_vocabulary_is_kept(pool):
    pool.set_vocab(['cat', 'dog', 'cow'])
    pool.label('2.jpg', 'cow')
    with pytest.raises(ValueError, match="'hen'.*vocabulary"):
        pool.label('4.jpg', 'hen')
    with pytest.raises(ValueError, match='hen'):
        pool.label('4.jpg', ['cat', 'hen'])


@pytest.mark.parametrize(
    'label, kept',
    [
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (torch.tensor(2), 2),
        (np.array([1, 2]), [1, 2]),
        (('a', 'b'), ['a', 'b']),
        (Path('m/1.png'), 'm/1.png'),
        ({'x': np.int64(1)}, {'x': 1}),
        (np.bool_(True), True),
    ],
)
def test_labels_become_json(label, kept):
    pool = Pool(['a'])
    pool.label('a', label)
    said = pool.labelled['label'].iloc[0]
    assert said == kept and type(said) is type(kept)


def test_uids_may_come_in_many_ways(pool):
    pool.label(pool.unlabelled, ['cat', 'dog'])
    pool.retract(pool.labelled.index)
    pool.label({'1.jpg': 'cat'}.keys(), ['cat'])
    pool.label(np.array(['2.jpg']), pd.Series(['dog']))
    assert pool.counts()['labelled'] == 2


def test_labels_in_a_series_go_by_its_index():
    pool = Pool(['a', 'b'])
    pool.label(['a', 'b'], pd.Series({'b': 'B', 'a': 'A'}))
    assert dict(pool.labelled['label']) == dict(a='A', b='B')


def test_a_persons_answer_outranks_a_models_in_either_order(pool):
    pool.add_pseudo('2.jpg', 'dog')
    pool.label('2.jpg', 'cat')
    assert pool.labelled.loc['2.jpg', 'label'] == 'cat' and not len(pool.pseudo)


def test_retracting_a_model_keeps_later_labels_of_people(pool):
    pool.add_pseudo(['2.jpg', '4.jpg'], ['dog', 'dog'], source='triage 1')
    pool.label('2.jpg', 'cat')
    pool.retract(['2.jpg', '4.jpg'], annotator='triage 1')
    assert pool.labelled.loc['2.jpg', 'label'] == 'cat' and pool.counts()['unlabelled'] == 1


def test_a_vote_of_ones_own():
    pool = Pool(['a'], vote=lambda votes: sorted(label for _, label in votes)[0])
    for by, label in (('anna', 'b'), ('ben', 'b'), ('cleo', 'a')):
        pool.label('a', label, annotator=by)
    assert pool.labelled['label'].iloc[0] == 'a'


@given(
    st.lists(
        st.tuples(
            st.sampled_from(['label', 'pseudo', 'ignore', 'retract', 'holdout']),
            st.sampled_from(['anna', 'ben', None]),
            st.sampled_from('xyz'),
        )
    )
)
@settings(max_examples=300, deadline=None)
def test_the_state_follows_from_the_events_as_in_a_naive_reading(events):
    state, stands, held = ItemState(), [], False
    for kind, by, label in events:
        state.add(Event('a', kind, label, by))
        if kind == 'holdout':
            held = True
        elif kind == 'retract':
            stands = [] if by is None else [e for e in stands if e[1] != by]
        else:
            stands = [e for e in stands if e[1] != by] + [(kind, by, label)]
    people = [e for e in stands if e[0] != 'pseudo']
    last = (people or stands or [(None,)])[-1][0]
    assert state.status == (
        'ignored'
        if last == 'ignore'
        else 'holdout'
        if held
        else {None: 'unlabelled', 'label': 'labelled', 'pseudo': 'pseudo'}[last]
    )
    votes = [e[2] for e in people if e[0] == 'label']
    if last == 'label':
        assert votes.count(state.label(majority)) == max(votes.count(v) for v in votes)
    if last == 'pseudo':
        assert state.label(majority) == stands[-1][2]


# Draws from the pool


def test_a_draw_does_not_depend_on_order_and_is_uniform():
    names = [f'{i}.jpg' for i in range(50)]
    assert Pool(names).sample(7, seed=3) == Pool(names[::-1]).sample(7, seed=3)
    drawn = np.bincount(
        [
            int(u[:-4])
            for seed in range(2000)
            for u in shuffled_unlabelled(_Static(names), 5, seed)[:5]
        ],
        minlength=50,
    )
    assert abs(drawn - 200).max() < 70, 'five standard deviations of a fair draw'


class _Static:
    "Just enough of a pool to draw from, fast"

    def __init__(self, names):
        self.unlabelled = pd.DataFrame(index=names)


def test_the_holdout_is_never_queried_or_trained_on():
    pool = Pool(range(20))
    held = pool.draw_holdout(0.25)
    pool.label(held, ['x'] * 5)
    assert len(held) == 5 and not set(held) & set(pool.unlabelled.index) and not len(pool.labelled)
    with pytest.raises(ValueError, match='holdout'):
        pool.add_pseudo(held[0], 'x')
    pool.ignore(held[1])
    assert len(pool.holdout) == 4 and len(pool.ignored) == 1


def test_a_late_holdout_warns():
    pool = Pool(range(20))
    pool.record_acquisition(['3'], [1.0])
    with pytest.warns(FastaiALWarning, match='after 1 rounds'):
        pool.draw_holdout(3)


# Weeks later


def test_open_finds_everything_again(tmp_path):
    pool = Pool.from_df(DF, 'image', 'label', db=tmp_path / 'a.db')
    (held,) = pool.draw_holdout(1)
    (other,) = {'2.jpg', '4.jpg'} - {held}
    pool.record_acquisition([other], [0.5], by='bald')
    pool.label(other, 'cat', annotator='anna', seconds=2.0)
    again = Pool.open(tmp_path / 'a.db')
    for what in ('labelled', 'unlabelled', 'holdout', 'history'):
        pd.testing.assert_frame_equal(getattr(again, what), getattr(pool, what), check_dtype=False)
    assert again.round == 1


def test_files_and_ledger_may_move_together(tmp_path):
    (tmp_path / 'old' / 'images').mkdir(parents=True)
    (tmp_path / 'old' / 'images' / '1.png').touch()
    Pool.from_folder(tmp_path / 'old' / 'images', db=tmp_path / 'old' / 'a.db').close()
    (tmp_path / 'old').rename(tmp_path / 'new')
    assert Pool.open(tmp_path / 'new' / 'a.db').unlabelled['item'].iloc[0].is_file()


def test_the_same_cell_again_changes_nothing_and_a_new_label_in_the_frame_counts(tmp_path):
    make = lambda df: Pool.from_df(df, 'image', 'label', db=tmp_path / 'a.db')
    pool = make(DF)
    pool.retract('1.jpg')
    n = len(pool.history)
    assert len(make(DF).history) == n and '1.jpg' in make(DF).unlabelled.index
    filled = DF.assign(label=['cat', 'cow', 'dog', None])
    assert (
        make(filled).labelled.loc['2.jpg', 'label'] == 'cow' and len(make(filled).history) == n + 1
    )


def test_items_that_json_can_not_keep_have_to_be_brought_again(tmp_path):
    arrays = [np.zeros(3), np.ones(3)]
    Pool(arrays, uids=['a', 'b'], db=tmp_path / 'a.db').label('b', 1)
    with pytest.raises(ValueError, match='same items'):
        Pool.open(tmp_path / 'a.db')
    again = Pool(arrays, uids=['a', 'b'], db=tmp_path / 'a.db')
    assert list(again.labelled.index) == ['b'] and again.labelled['item'].iloc[0].sum() == 3


def test_another_pools_ledger_is_refused(tmp_path):
    Pool.from_df(DF, 'image', 'label', db=tmp_path / 'a.db')
    with pytest.raises(ValueError, match='another pool'):
        Pool.from_df(DF, 'camera', 'label', uid='image', db=tmp_path / 'a.db')


# Equal answers


@pytest.mark.parametrize(
    'votes, wins',
    [
        ([['x', 'y'], ['y', 'x'], ['z']], ['y', 'x']),
        ([1, 1.0, 2], 1),
        ([2, 1, 1.0], 1),
        ([True, True, False], True),
        (
            [
                {'boxes': [[0, 0, 1, 1], [2, 2, 3, 3]], 'labels': ['a', 'b']},
                {'labels': ['b', 'a'], 'boxes': [[2, 2, 3, 3.0], [0, 0, 1, 1]]},
                {'boxes': [], 'labels': []},
            ],
            'first',
        ),
        (
            [
                {'boxes': [[0, 0, 1, 1], [2, 2, 3, 3]], 'labels': ['a', 'b']},
                {'boxes': [[0, 0, 1, 1], [2, 2, 3, 3]], 'labels': ['b', 'a']},
                {'boxes': [], 'labels': []},
            ],
            'last',
        ),
        ([[3, 4], [4, 3], [3, 4.0]], [3, 4]),  # two numbers are a point: the second is another
        ([[0, 1, 1], [1, 1, 0], [0, 1, 1]], [0, 1, 1]),
        ([[[1, 2], [3, 4]], [[3, 4], [1, 2]], [[1, 2], [3, 4.0]]], [[1, 2], [3, 4]]),
    ],
)
def test_equal_answers_are_equal_whatever_their_order_or_number_type(votes, wins):
    pool = Pool(['a'])
    for i, y in enumerate(votes):
        pool.label('a', y, annotator=f'person {i}')
    assert pool.labelled['label'].iloc[0] == {'first': votes[1], 'last': votes[-1]}.get(
        str(wins), wins
    )


def test_a_list_of_numbers_is_of_classes_where_the_vocabulary_names_them():
    pool = Pool(['a'])
    for by, y in (('anna', [3, 4]), ('ben', [4, 3]), ('cleo', [3])):
        pool.label('a', y, annotator=by)
    assert pool.labelled['label'].iloc[0] == [3], 'three different points: the last one'
    pool.set_vocab([3, 4])
    pool.retract('a', annotator='cleo')
    pool.label('a', [3], annotator='cleo')
    assert pool.labelled['label'].iloc[0] == [4, 3]


def one_voice(votes):
    return votes[0][1] if len({json.dumps(y) for _, y in votes}) == 1 else None


def test_what_a_vote_leaves_open_is_unresolved_queried_again_and_not_trained_on(tmp_path):
    pool = Pool(range(60), vote=one_voice, db=tmp_path / 'a.db')
    held = pool.draw_holdout(0.2)
    assert not {'0', '1'} & {*held}
    pool.label(held, ['x'] * 12)
    pool.label(
        [u for u in map(str, range(60)) if u not in held][:20], ['x', 'y'] * 10, annotator='anna'
    )
    pool.label([0, 1], ['y', 'y'], annotator='ben')
    for p in (pool, Pool.open(tmp_path / 'a.db', vote=one_voice)):
        assert (
            list(p.unresolved.index) == ['0']
            and p.unresolved['source'].iloc[0] == 'anna, ben'
            and p.unresolved['label'].iloc[0] is None
        )
        assert (
            '0' in p.unlabelled.index
            and '0' not in p.labelled.index
            and p.counts()
            == dict(labelled=19, unlabelled=29, pseudo=0, ignored=0, holdout=12, test=0)
        )
        assert '29 unlabelled (1 of them unresolved), 12 holdout' in repr(p)
    dls = pool.dataloaders(
        DataBlock((TransformBlock, CategoryBlock(vocab=['x', 'y'])), get_x=XOf()),
        bs=4,
        num_workers=0,
    )
    assert len(dls.train_ds) == 19 and '0' not in dls.train_ds.items.index
    with pytest.raises(ValueError, match='only unlabelled'):
        pool.add_pseudo('0', 'x')
    pool.label('0', 'y', annotator='anna')
    assert (
        not len(pool.unresolved)
        and pool.labelled.loc['0', 'label'] == 'y'
        and 'unresolved' not in repr(pool)
    )


def test_a_vote_may_find_nothing_on_a_holdout_item():
    pool = Pool(range(4), vote=one_voice)
    (held,) = pool.draw_holdout(1)
    for by, y in (('anna', 'x'), ('ben', 'y')):
        pool.label(held, y, annotator=by)
    assert (
        pool.holdout['label'].isna().all()
        and not len(pool.unresolved)
        and pool.counts()['holdout'] == 1
    )


# What a label may not be


@pytest.mark.parametrize(
    'label, says',
    [
        (b'cat', 'decode'),
        (bytearray(b'cat'), 'decode'),
        (np.bytes_(b'cat'), 'decode'),
        (['x', b'y'], 'decode'),
        ({'x', 'y'}, 'sorted'),
        (frozenset('x'), 'sorted'),
        ({1: 'a', '1': 'b'}, 'keys that are strings'),
        ({'x': {2: 3}}, 'keys that are strings'),
        ({None: 'a'}, 'keys that are strings'),
        ('\udce9', 'JSON'),
        (['\ud800'], 'JSON'),
    ],
)
def test_what_would_become_something_else_is_refused(label, says):
    pool = Pool(['a', 'b'])
    with pytest.raises(TypeError, match=says):
        pool.label(['a', 'b'], [label, label])
    assert len(pool.history) == 2


@pytest.mark.parametrize(
    'boxes, labels, says',
    [
        ([[0, 0, 4, 4], [1, 1, 2, 2]], ['cat'], '2 boxes and 1 labels'),
        ([[0, 0, 4, 4]], None, 'no list of labels'),
        ([[4, 4, 0, 0]], ['cat'], 'reversed'),
        ([[0, 4, 4, 0]], ['cat'], 'reversed'),
        ([[0, 0, 0, 4]], ['cat'], 'no area'),
        ([[0, 0, 4]], ['cat'], 'four numbers'),
        ([[0, 0, 4, '4']], ['cat'], 'four numbers'),
        ([[0, 0, True, 4]], ['cat'], 'four numbers'),
        ('no', ['cat'], 'no list of boxes'),
        ([0, 0, 4, 4], ['a', 'b', 'c', 'd'], 'four numbers'),
        ([[0, 0, 30, 4]], ['cat'], '20 x 10'),
        ([[0, 0, 4, 12]], ['cat'], '20 x 10'),
        ([[-5, 0, 4, 4]], ['cat'], '20 x 10'),
    ],
)
def test_malformed_boxes_are_refused(tmp_path, boxes, labels, says):
    Image.new('L', (20, 10)).save(tmp_path / '1.png')
    pool = Pool.from_folder(tmp_path)
    with pytest.raises(ValueError, match=says):
        pool.label('1.png', {'boxes': boxes} | ({} if labels is None else {'labels': labels}))
    assert not len(pool.labelled)


def test_boxes_that_fit_are_taken(tmp_path):
    Image.new('L', (20, 10)).save(tmp_path / '1.png')
    good = [
        {'boxes': [], 'labels': []},
        {'boxes': [[0, 0, 20, 10]], 'labels': ['cat']},
        {'boxes': [[-0.001, 0, 20.0001, 10]], 'labels': ['cat']},
    ]
    for pool in (
        Pool.from_folder(tmp_path),
        Pool(['1.png']),
        Pool.from_df(pd.DataFrame(dict(f=['1.png'])), 'f', root=tmp_path),
    ):
        for y in good:
            pool.label('1.png', y)
        assert pool.labelled['label'].iloc[0] == good[-1]


# Errors that say what to do


def test_a_label_of_another_type_than_in_the_vocabulary_is_an_error():
    pool = Pool(['a'])
    pool.set_vocab([6, 7])
    with pytest.raises(ValueError, match=r"'7' \(str\).*Pass 7 \(int\), which is"):
        pool.label('a', '7')
    pool.set_vocab(['6', '7'])
    with pytest.raises(ValueError, match=r"7 \(int\).*Pass '7' \(str\), which is"):
        pool.label('a', 7)
    with pytest.raises(ValueError, match='new class'):
        pool.label('a', '8')


def test_items_may_be_named_by_their_full_path(tmp_path, monkeypatch):
    for name in ('x/1.png', 'x/2.png', '3.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    pool = Pool.from_folder(tmp_path)
    pool.label(str(tmp_path / 'x' / '1.png'), 'a')
    pool.label(tmp_path / 'x' / '2.png', 'b')
    pool.label([str(tmp_path / '3.png')], {tmp_path / '3.png': 'c'})
    assert dict(pool.labelled['label']) == {'x/1.png': 'a', 'x/2.png': 'b', '3.png': 'c'}
    monkeypatch.chdir(tmp_path / 'x')
    pool.label(['1.png', str(tmp_path / 'x' / '2.png')], {'1.png': 'd', '2.png': 'd'})
    assert dict(pool.labelled['label']) == {'x/1.png': 'd', 'x/2.png': 'd', '3.png': 'c'}
    with pytest.raises(KeyError, match='knows no'):
        pool.label('/elsewhere/1.png', 'a')
    with pytest.raises(ValueError, match='more than once'):
        pool.label(['x/1.png', str(tmp_path / 'x' / '1.png')], ['a', 'b'])


def test_labels_from_the_start_may_be_named_by_path(tmp_path):
    files = [tmp_path / f'{i}.png' for i in range(4)]
    for f in files:
        f.touch()
    labels = {files[0]: 'a', str(files[1]): 'b', '2.png': 'c'}
    assert dict(Pool(files, labels, root=tmp_path).labelled['label']) == {
        '0.png': 'a',
        '1.png': 'b',
        '2.png': 'c',
    }
    with pytest.raises(KeyError, match='knows no'):
        Pool(files, {tmp_path / 'none.png': 'a'}, root=tmp_path)
    with pytest.raises(ValueError, match="'0.png' has several labels"):
        Pool(files, {files[0]: 'a', '0.png': 'b'}, root=tmp_path)


@pytest.mark.filterwarnings('ignore:Nothing validates')
def test_labels_of_another_type_than_in_the_block_say_so():
    pool, block = (
        Pool(range(4), ['7', '8', '7', '8']),
        DataBlock((TransformBlock, CategoryBlock(vocab=[7, 8]))),
    )
    with pytest.raises(ValueError, match=r"'7' \(str\), a label of '0'.*but 7 \(int\) is"):
        pool.dataloaders(block, bs=2)


def test_files_that_have_moved_are_an_error(tmp_path):
    for i in range(6):
        (tmp_path / 'old').mkdir(exist_ok=True)
        Image.new('RGB', (4, 4)).save(tmp_path / 'old' / f'{i}.png')
    pool = Pool.from_folder(tmp_path / 'old', db=tmp_path / 'a.db')
    pool.label([*pool.draw_holdout(2), *pool.unlabelled.index], ['x', 'y'] * 3)
    pool.close()
    (tmp_path / 'old').rename(tmp_path / 'new')
    pool, block = (
        Pool.open(tmp_path / 'a.db'),
        DataBlock((ImageBlock, CategoryBlock(vocab=['x', 'y']))),
    )
    assert len(pool.labelled) == 4  # what is known can be read all the same
    with pytest.raises(FileNotFoundError, match=r'.png.*root='):
        pool.dataloaders(block, bs=2, num_workers=0)
    pool = Pool.open(tmp_path / 'a.db', root=tmp_path / 'new')
    assert pool.dataloaders(block, bs=2, num_workers=0).one_batch()[0].shape[0] == 2


def test_items_that_are_named_otherwise_are_found_again(tmp_path, monkeypatch):
    root, files = tmp_path / 'root', ['1.png', 'sub/2.png', '../3.png', 'link.png']
    (root / 'sub').mkdir(parents=True)
    for i, f in enumerate(files[:3]):
        Image.new('L', (4, 4), i).save(root / f)
    (root / 'link.png').symlink_to(root / 'sub' / '2.png')
    items = [root / f for f in files]
    Pool(items, uids=['one', 'two', 'three', 'link.png'], root=root, db=tmp_path / 'a.db').close()
    Pool(items[:2], root=root, db=tmp_path / 'a.db').close()  # under their own names
    pool = Pool.open(tmp_path / 'a.db')
    assert list(pool.unlabelled.index) == ['one', 'two', 'three', 'link.png', '1.png', 'sub/2.png']
    assert [f.resolve() for f in pool.unlabelled['item']] == [
        f.resolve() for f in [*items, *items[:2]]
    ] and all(isinstance(f, Path) for f in pool.unlabelled['item'])
    pool.label(['one', 'two'], ['x', 'y'])
    (tmp_path / 'root').rename(tmp_path / 'new')
    moved = Pool.open(tmp_path / 'a.db', root=tmp_path / 'new')
    assert [f.is_file() for f in moved.labelled['item']] == [True, True]
    monkeypatch.chdir(tmp_path / 'new')
    relative = Pool([Path('1.png')], uids=['one'], root='.', db=tmp_path / 'b.db')
    relative.close()
    assert Pool.open(tmp_path / 'b.db').unlabelled['item'].iloc[0] == tmp_path / 'new' / '1.png'
    Pool(
        [Path('1.png')], uids=['one'], db=tmp_path / 'c.db'
    ).close()  # without a root nobody knows from where
    with pytest.raises(ValueError, match='same items and uids'):
        Pool.open(tmp_path / 'c.db')


def test_plain_items_cost_no_more_room(tmp_path):
    for i in range(2):
        (tmp_path / f'{i}.png').touch()
    pool = Pool.from_folder(tmp_path, db=tmp_path / 'a.db')
    assert [e.note for e in pool.ledger.since(kinds=('add',))] == [None, None]


def test_a_file_name_that_is_no_text_is_left_out_and_named(tmp_path):
    (tmp_path / 'good.png').touch()
    with open(bytes(tmp_path) + b'/caf\xe9.png', 'w'):
        pass
    with pytest.warns(FastaiALWarning, match=r'caf.*Rename'):
        pool = Pool.from_folder(tmp_path, db=tmp_path / 'a.db')
    assert list(pool.unlabelled.index) == ['good.png']
    for make in (
        lambda **kw: Pool(['a', 'caf\udce9'], **kw),
        lambda **kw: Pool([0], uids=['\udce9'], **kw),
    ):
        for kw in (dict(), dict(db=tmp_path / 'b.db')):
            with pytest.raises(ValueError, match='UTF-8'):
                make(**kw)


# Late answers


@given(
    st.permutations(range(6)),
    st.lists(
        st.tuples(
            st.sampled_from(
                ['label', 'pseudo', 'ignore', 'skip', 'flag', 'retract', 'holdout', 'test']
            ),
            st.sampled_from(['anna', 'ben', None]),
            st.sampled_from('xyz'),
        ),
        min_size=6,
        max_size=6,
    ),
)
@settings(max_examples=300, deadline=None)
def test_the_state_is_the_same_in_whatever_order_events_arrive(order, said):
    events = [
        Event('a', kind, label, by, at=float(i // 2), id=i)
        for i, (kind, by, label) in enumerate(said)
    ]
    right, late = ItemState(), ItemState()
    for e in events:
        right.add(e)
    for i in order:
        late.add(events[i])
    assert (
        late == right
        and list(late.answers) == list(right.answers)
        and late.label(majority) == right.label(majority)
    )


# A pool of any size


def test_what_a_question_costs_depends_on_what_is_new(monkeypatch):
    pool, counted = Pool(range(5_000)), Counter()
    pool.label(0, 'x')
    pool.counts(), pool.unlabelled, repr(pool)
    status = ItemState.status.fget
    monkeypatch.setattr(
        ItemState, 'status', property(lambda self: counted.update(['status']) or status(self))
    )
    monkeypatch.setattr(pd, 'concat', None)
    for i in range(1, 6):
        pool.label(i, 'x')
    pool.counts(), pool.unlabelled, repr(pool), pool.labelled, pool.flagged
    assert counted['status'] <= 5 and len(pool._states) == 6


def test_frames_that_are_handed_out_are_the_users_own():
    pool = Pool(range(5), {'0': 'x'})
    for name in ('labelled', 'unlabelled', 'holdout'):
        frame = getattr(pool, name)
        frame['item'] = 7
        assert 7 not in list(getattr(pool, name)['item'])


def test_items_of_other_processes_join_and_numbers_stay_what_they_were(tmp_path):
    df = pd.DataFrame(dict(name=['a', 'b'], n=[1, 2], x=[0.5, None], flag=[True, False]))
    pool = Pool.from_df(df, 'name', db=tmp_path / 'a.db')
    again = Pool.open(tmp_path / 'a.db')
    assert again.unlabelled.dtypes.to_dict() == pool.unlabelled.dtypes.to_dict()
    Pool.from_df(
        pd.DataFrame(dict(name=['c'], n=[3], x=[1.0], flag=[True], more=['z'])),
        'name',
        db=tmp_path / 'a.db',
    )
    assert (
        len(again) == 3
        and list(again.unlabelled['n']) == [1, 2, 3]
        and again.unlabelled.loc['c', 'more'] == 'z'
    )
    later = Pool.open(tmp_path / 'a.db')
    assert list(later.unlabelled['n']) == [1, 2, 3] and later.unlabelled[
        'more'
    ].isna().tolist() == [True, True, False]
    infinite = Pool.from_df(
        pd.DataFrame(dict(name=['a'], x=[np.inf])), 'name', db=tmp_path / 'b.db'
    )  # JSON has no such number
    assert infinite.unlabelled['x'].iloc[0] == np.inf
    with pytest.raises(ValueError, match='same items'):
        Pool.open(tmp_path / 'b.db')
