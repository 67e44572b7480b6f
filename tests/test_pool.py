"What is known of each item, and what may be said of it"
import csv
import os
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings, strategies as st

from fastai_al import FastaiALWarning
from fastai_al.answers import ItemState, majority
from fastai_al.items import _read_csv
from fastai_al.ledger import Event
from fastai_al.pool import Pool

DF = pd.DataFrame(dict(image=['1.jpg', '2.jpg', '3.jpg', '4.jpg'], camera=[1, 2, 1, 2], label=['cat', None, 'dog', np.nan]))


# Where items come from

def test_from_df_takes_missing_labels_for_not_yet():
    pool = Pool.from_df(DF, 'image', 'label')
    assert dict(pool.labelled['label']) == {'1.jpg': 'cat', '3.jpg': 'dog'}
    assert list(pool.unlabelled.index) == ['2.jpg', '4.jpg'] and list(pool.unlabelled['camera']) == [2, 2]


def test_the_users_frame_is_not_touched():
    df = DF.copy()
    pool = Pool.from_df(df, 'image', 'label')
    pool.label('2.jpg', 'cat')
    pool.labelled['camera'] = 7
    pd.testing.assert_frame_equal(df, DF)
    assert 7 not in list(pool.labelled['camera'])


@pytest.mark.parametrize('column, types', [([3, None, 4], int), (['a', None, 'b'], str), ([.5, None, 1.25], float), ([True, None, False], bool)])
def test_labels_keep_their_type_beside_missing_ones(column, types):
    pool = Pool.from_df(pd.DataFrame(dict(x=['a', 'b', 'c'], y=column)), 'x', 'y')
    assert [type(v) for v in pool.labelled['y']] == [types] * 2 and list(pool.labelled['y']) == [column[0], column[2]]


def test_from_csv_keeps_whole_numbers_and_finds_files(tmp_path):
    (tmp_path/'a.png').touch()
    (tmp_path/'t.csv').write_text('image,digit\na.png,3\nb.png,\n')
    pool = Pool.from_csv(tmp_path/'t.csv', 'image', 'digit')
    assert pool.labelled['digit'].iloc[0] == 3 and pool.root == tmp_path.resolve()


def csv_pool(tmp_path, text, *args, **kwargs):
    (tmp_path/'t.csv').write_text(text)
    return Pool.from_csv(tmp_path/'t.csv', *args, **kwargs)


def test_only_an_empty_field_of_a_csv_is_missing(tmp_path):
    words = ['None', 'NA', 'null', 'nan', 'N/A', 'n/a', 'NULL', 'NaN', '<NA>', '#N/A', '-nan', 'True', ' ']
    pool = csv_pool(tmp_path, 'name,type\n' + ''.join(f'{w},{w}\n' for w in words) + 'empty,\nquoted,""\n', 'name', 'type')
    assert dict(pool.labelled['type']) == {w: w for w in words} and list(pool.unlabelled.index) == ['empty', 'quoted']


@pytest.mark.parametrize('item, uid, ids', [('id', None, ['007', '7', '1.50', '1.5', '1e3', 'None', '+1']), ('x', 'id', ['007', '7', '1.0', '0', '00', 'null', ' 1']), (['x', 'y'], 'id', ['01', '1', '001'])])
def test_ids_in_a_csv_stay_text(tmp_path, item, uid, ids):
    rows = ''.join(f'{one},{i},{i / 2}\n' for i, one in enumerate(ids))
    pool = csv_pool(tmp_path, f'id,x,y\n{rows}', item, uid=uid)
    assert list(pool.unlabelled.index) == ids and pool.unlabelled['x'].tolist() == list(range(len(ids)))
    for column, index in (('id', 'id'), ('id', 0), ('', 0)): assert list(csv_pool(tmp_path, f'{column},x,y\n{rows}', 'x', uid='index', index_col=index).unlabelled.index) == ids


def test_an_item_that_names_itself_stays_a_number_where_it_reads_the_same(tmp_path):
    for texts, items in ((['7', '10', '-3'], [7, 10, -3]), (['0.5', '2.0'], [.5, 2.]), (['07', '10'], ['07', '10']), (['12345678901234567890123', '1'], ['12345678901234567890123', '1'])):
        pool = csv_pool(tmp_path, 'x\n' + '\n'.join(texts) + '\n', 'x')
        assert list(pool.unlabelled.index) == texts and pool.unlabelled['x'].tolist() == items


@pytest.mark.parametrize('column, labels', [(['3', '', '4'], [3, 4]), (['1.50', '2', ''], [1.5, 2.]), (['True', 'false', ''], [True, False]), (['01', '1', '10'], ['01', '1', '10']), (['0.5', '0', '-0.25'], [.5, 0., -.25]), (['9007199254740993', '', '1'], [9007199254740993, 1]), (['99999999999999999999999', '1', ''], ['99999999999999999999999', '1']), (['a', '7', ''], ['a', '7'])])
def test_labels_in_a_csv_are_numbers_unless_leading_zeros_would_go(tmp_path, column, labels):
    got = csv_pool(tmp_path, 'x,y\n' + ''.join(f'i{i},{c}\n' for i, c in enumerate(column)), 'x', 'y').labelled['y'].tolist()
    assert got == labels and [type(g) for g in got] == [type(v) for v in labels]


def test_options_of_read_csv_pass_through(tmp_path):
    pool = csv_pool(tmp_path, 'x;y;z\na;1,5;?\nb;NA;3\nNA;-;4\n', 'x', 'y', sep=';', decimal=',', na_values=dict(y=['NA', '-']), timeout=3)
    assert dict(pool.labelled['y']) == {'a': 1.5} and list(pool.unlabelled.index) == ['b', 'NA'] and pool.ledger.timeout == 3
    assert pool.unlabelled['z'].tolist() == ['3', '4']
    assert dict(csv_pool(tmp_path, 'x,y\na,?\nb,3\nc,\n', 'x', 'y', na_values='?').labelled['y']) == {'b': 3}
    assert dict(csv_pool(tmp_path, 'x,y\na,07\nb,3\n', 'x', 'y', dtype=dict(y=int)).labelled['y']) == {'a': 7, 'b': 3}
    assert list(csv_pool(tmp_path, 'x,y\na,NA\nb,dog\n', 'x', 'y', keep_default_na=True).labelled.index) == ['b']
    assert dict(csv_pool(tmp_path, 'x  y\na  NA\nb  dog\n', 'x', 'y', sep=r'\s+').labelled['y']) == {'a': 'NA', 'b': 'dog'}
    text = csv_pool(tmp_path, 'x,y\n1,07\n2,3\n', 'x', 'y', dtype=str)
    assert dict(text.labelled['y']) == {'1': '07', '2': '3'} and text.labelled['x'].tolist() == ['1', '2']
    with pytest.raises(TypeError, match='chunksize'): csv_pool(tmp_path, 'x,y\na,1\n', 'x', 'y', chunksize=3)


def test_a_word_among_numbers_of_a_csv_is_reported(tmp_path):
    text = 'x,y,z\na,1.5,2\nb,NA,3\nc,nan,null\n'
    with pytest.warns(FastaiALWarning, match="'y' holds numbers and 'NA'.*na_values"), pytest.warns(FastaiALWarning, match="'z' holds numbers and 'null'"): pool = csv_pool(tmp_path, text, 'x', 'y')
    assert pool.labelled['y'].tolist() == ['1.5', 'NA', 'nan']
    assert csv_pool(tmp_path, text, 'x', 'y', na_values=['NA', 'nan', 'null']).labelled['y'].tolist() == [1.5]
    csv_pool(tmp_path, 'x,y,z\n1,NA,\n2,EU,3\nNA,NA,4\n', 'x', 'y')      # names and classes alone


def test_a_large_csv_has_one_type_a_column(tmp_path):
    (tmp_path/'t.csv').write_text('x,y,z\n' + ''.join(f'{i},1,2\n' for i in range(300_000)) + 'last,cat,dog\n')      # more than pandas reads in one go
    frame = _read_csv(tmp_path/'t.csv', 'x', ['y'], {})
    assert [set(map(type, frame[c])) for c in 'xyz'] == [{str}] * 3


TEXT = st.text(st.characters(blacklist_categories=('Cs', 'Cc')), min_size=1)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(TEXT, TEXT, max_size=6))
def test_text_comes_back_from_a_csv_as_it_was(types):
    types |= {'another name': 'a word'}
    with tempfile.TemporaryDirectory() as folder:
        with open(f'{folder}/t.csv', 'w', newline='', encoding='utf-8') as file: csv.writer(file, quoting=csv.QUOTE_ALL).writerows([('name', 'type'), *types.items()])
        assert dict(Pool.from_csv(f'{folder}/t.csv', 'name', 'type').labelled['type']) == types


def test_a_file_name_that_is_no_utf8_takes_no_other_with_it(tmp_path):
    for name in (b'a.png', b'b\xff.png'): Path(os.fsdecode(os.fsencode(tmp_path) + b'/' + name)).touch()
    with pytest.warns(FastaiALWarning, match=r"1 files have names that are no UTF-8, 'b\\udcff.png'"): pool = Pool.from_folder(tmp_path, db=tmp_path/'l.db')
    assert list(pool.unlabelled.index) == ['a.png']


def test_from_folder_names_files_by_their_path_in_it(tmp_path):
    for name in ('cat/1.png', 'dog/2.JPG', 'dog/notes.txt', '.hidden/3.png'):
        (tmp_path/name).parent.mkdir(exist_ok=True); (tmp_path/name).touch()
    pool = Pool.from_folder(tmp_path, label=lambda f: f.parent.name)
    assert dict(pool.labelled['label']) == {'cat/1.png': 'cat', 'dog/2.JPG': 'dog'}
    assert pool.labelled['item'].iloc[0] == tmp_path.resolve()/'cat/1.png'


@pytest.mark.parametrize('make, error, says', [
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
    (lambda t: Pool.from_folder(t/'nowhere'), FileNotFoundError, 'no folder'),
    (lambda t: Pool.open(t/'nowhere.db'), FileNotFoundError, 'no ledger'),
    (lambda t: Pool(['a'], {'b': 'cat'}), KeyError, 'knows no'),
    (lambda t: Pool.from_df(DF, 'image'), ValueError, "label='label'"),
    (lambda t: Pool.from_df(DF, 'label', 'label'), ValueError, 'can not be'),
    (lambda t: Pool.from_df(DF.assign(image=['a', None, 'c', 'd']), 'image', 'label'), ValueError, '1 items have no uid'),
    (lambda t: Pool(['a', 'b'], ['cat', 7]), TypeError, 'a number'),
])
def test_bad_items_are_refused(tmp_path, make, error, says):
    with pytest.raises(error, match=says): make(tmp_path)


def test_names_of_columns_do_not_clash_with_ours():
    df = pd.DataFrame(dict(image=['a', 'b'], by=['cat', 'dog'], at=[1, 2], note=['x', 'y']))
    pool = Pool.from_df(df, 'image', 'by')
    assert list(pool.labelled['by']) == ['cat', 'dog'] and list(pool.labelled['at']) == [1, 2] and list(pool.labelled['note']) == ['x', 'y']


def test_whole_number_uids_stay_whole_beside_gaps_elsewhere():
    assert list(Pool.from_df(pd.DataFrame(dict(id=[1., 2.])), 'id').unlabelled.index) == ['1', '2']


def test_a_long_text_is_no_file(tmp_path):
    pd.DataFrame(dict(text=['long ' * 100, 'short'])).to_csv(tmp_path/'t.csv', index=False)
    assert Pool.from_csv(tmp_path/'t.csv', 'text').root is None


def test_time_stamps_are_converted_together(monkeypatch):
    pool, calls, convert = Pool(range(50), [0] * 50), [], pd.to_datetime
    monkeypatch.setattr(pd, 'to_datetime', lambda *a, **kw: calls.append(a) or convert(*a, **kw))
    assert len(pool.labelled) == 50 and len(calls) == 1


def test_an_empty_pool_is_a_pool():
    pool = Pool([])
    assert len(pool) == 0 and len(pool.unlabelled) == 0 and 'empty' in repr(pool)
    with pytest.raises(ValueError, match='0 unlabelled'): pool.hold_out(1)


# What may be said

@pytest.fixture
def pool(): return Pool.from_df(DF, 'image', 'label')


@pytest.mark.parametrize('say, error, says', [
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
    (lambda p: p.retract('1.jpg', by='anna'), ValueError, "by 'anna'"),
    (lambda p: p.add_pseudo(['2.jpg', '1.jpg'], ['cat', 'cat']), ValueError, 'labelled'),
    (lambda p: p.ignore('9.jpg'), KeyError, 'knows no'),
    (lambda p: p.hold_out(3), ValueError, '2 unlabelled'),
    (lambda p: p.hold_out(0), ValueError, '1 to 2'),
    (lambda p: p.sample(-1), ValueError, '1 to 2'),
])
def test_what_may_not_be_said_leaves_no_trace(pool, say, error, says):
    before = pool.history
    with pytest.raises(error, match=says): say(pool)
    pd.testing.assert_frame_equal(pool.history, before)


def test_the_vocabulary_is_kept(pool):
    pool._set_vocab(['cat', 'dog', 'cow'])
    pool.label('2.jpg', 'cow')
    with pytest.raises(ValueError, match="'hen'.*vocabulary"): pool.label('4.jpg', 'hen')
    with pytest.raises(ValueError, match='hen'): pool.label('4.jpg', ['cat', 'hen'])


@pytest.mark.parametrize('label, kept', [(np.int64(3), 3), (np.float32(.5), .5), (torch.tensor(2), 2), (np.array([1, 2]), [1, 2]), (('a', 'b'), ['a', 'b']),
                                         (Path('m/1.png'), 'm/1.png'), ({'x': np.int64(1)}, {'x': 1}), (np.bool_(True), True)])
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


def test_retracting_a_model_keeps_what_a_person_said_since(pool):
    pool.add_pseudo(['2.jpg', '4.jpg'], ['dog', 'dog'], by='triage 1')
    pool.label('2.jpg', 'cat')
    pool.retract(['2.jpg', '4.jpg'], by='triage 1')
    assert pool.labelled.loc['2.jpg', 'label'] == 'cat' and pool.counts()['unlabelled'] == 1


def test_a_vote_of_ones_own():
    pool = Pool(['a'], vote=lambda votes: sorted(label for _, label in votes)[0])
    for by, label in (('anna', 'b'), ('ben', 'b'), ('cleo', 'a')): pool.label('a', label, by=by)
    assert pool.labelled['label'].iloc[0] == 'a'


@given(st.lists(st.tuples(st.sampled_from(['label', 'pseudo', 'ignore', 'retract', 'holdout']), st.sampled_from(['anna', 'ben', None]), st.sampled_from('xyz'))))
@settings(max_examples=300, deadline=None)
def test_the_state_follows_from_the_events_as_a_naive_reading_says(events):
    state, stands, held = ItemState(), [], False
    for kind, by, label in events:
        state.add(Event('a', kind, label, by))
        if kind == 'holdout': held = True
        elif kind == 'retract': stands = [] if by is None else [e for e in stands if e[1] != by]
        else: stands = [e for e in stands if e[1] != by] + [(kind, by, label)]
    people = [e for e in stands if e[0] != 'pseudo']
    last = (people or stands or [(None,)])[-1][0]
    assert state.status == ('ignored' if last == 'ignore' else 'holdout' if held else {None: 'unlabelled', 'label': 'labelled', 'pseudo': 'pseudo'}[last])
    votes = [e[2] for e in people if e[0] == 'label']
    if last == 'label': assert votes.count(state.label(majority)) == max(votes.count(v) for v in votes)
    if last == 'pseudo': assert state.label(majority) == stands[-1][2]


# Draws from the pool

def test_a_draw_does_not_depend_on_order_and_is_uniform():
    names = [f'{i}.jpg' for i in range(50)]
    assert Pool(names).sample(7, seed=3) == Pool(names[::-1]).sample(7, seed=3)
    drawn = np.bincount([int(u[:-4]) for seed in range(2000) for u in Pool.sample(_Static(names), 5, seed)], minlength=50)
    assert abs(drawn - 200).max() < 70, 'five standard deviations of a fair draw'


class _Static:
    "Just enough of a pool to draw from, fast"
    def __init__(self, names): self.unlabelled = pd.DataFrame(index=names)


def test_what_is_held_out_is_never_asked_for_or_trained_on():
    pool = Pool(range(20))
    held = pool.hold_out(.25)
    pool.label(held, ['x'] * 5)
    assert len(held) == 5 and not set(held) & set(pool.unlabelled.index) and not len(pool.labelled)
    with pytest.raises(ValueError, match='holdout'): pool.add_pseudo(held[0], 'x')
    pool.ignore(held[1])
    assert len(pool.holdout) == 4 and len(pool.ignored) == 1


def test_a_late_hold_out_warns():
    pool = Pool(range(20))
    pool.acquired(['3'], [1.])
    with pytest.warns(FastaiALWarning, match='after 1 rounds'): pool.hold_out(3)


# Weeks later

def test_open_finds_everything_again(tmp_path):
    pool = Pool.from_df(DF, 'image', 'label', db=tmp_path/'a.db')
    held, = pool.hold_out(1)
    other, = {'2.jpg', '4.jpg'} - {held}
    pool.acquired([other], [.5], by='bald')
    pool.label(other, 'cat', by='anna', seconds=2.)
    again = Pool.open(tmp_path/'a.db')
    for what in ('labelled', 'unlabelled', 'holdout', 'history'): pd.testing.assert_frame_equal(getattr(again, what), getattr(pool, what), check_dtype=False)
    assert again.round == 1


def test_files_and_ledger_may_move_together(tmp_path):
    (tmp_path/'old'/'images').mkdir(parents=True)
    (tmp_path/'old'/'images'/'1.png').touch()
    Pool.from_folder(tmp_path/'old'/'images', db=tmp_path/'old'/'a.db').close()
    (tmp_path/'old').rename(tmp_path/'new')
    assert Pool.open(tmp_path/'new'/'a.db').unlabelled['item'].iloc[0].is_file()


def test_the_same_cell_again_changes_nothing_and_a_new_label_in_the_frame_counts(tmp_path):
    make = lambda df: Pool.from_df(df, 'image', 'label', db=tmp_path/'a.db')
    pool = make(DF)
    pool.retract('1.jpg')
    n = len(pool.history)
    assert len(make(DF).history) == n and '1.jpg' in make(DF).unlabelled.index
    filled = DF.assign(label=['cat', 'cow', 'dog', None])
    assert make(filled).labelled.loc['2.jpg', 'label'] == 'cow' and len(make(filled).history) == n + 1


def test_items_that_json_can_not_keep_have_to_be_brought_again(tmp_path):
    arrays = [np.zeros(3), np.ones(3)]
    Pool(arrays, uids=['a', 'b'], db=tmp_path/'a.db').label('b', 1)
    with pytest.raises(ValueError, match='same items'): Pool.open(tmp_path/'a.db')
    again = Pool(arrays, uids=['a', 'b'], db=tmp_path/'a.db')
    assert list(again.labelled.index) == ['b'] and again.labelled['item'].iloc[0].sum() == 3


def test_another_pools_ledger_is_refused(tmp_path):
    Pool.from_df(DF, 'image', 'label', db=tmp_path/'a.db')
    with pytest.raises(ValueError, match='another pool'): Pool.from_df(DF, 'camera', 'label', uid='image', db=tmp_path/'a.db')
