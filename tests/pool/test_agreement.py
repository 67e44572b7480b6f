"Do people agree: reference values, what chance gives, answers of each kind, and what is left out"

import math

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from fastai_al.pool.agreement import (
    cohen_kappa,
    concordance,
    fleiss_kappa,
    label_kind,
    pair_agreement,
)
from fastai_al.pool.pool import Pool
from fastai_al.pool.state import TRIAGE_PREFIX

FLEISS = [
    [0, 0, 0, 0, 14],
    [0, 2, 6, 4, 2],
    [0, 0, 3, 5, 6],
    [0, 3, 9, 2, 0],
    [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0],
    [3, 2, 6, 3, 0],
    [2, 5, 3, 2, 2],
    [6, 5, 2, 1, 0],
    [0, 2, 2, 3, 7],
]


def answered_by(**people):
    pool = Pool(range(max(map(len, people.values()))))
    for by, labels in people.items():
        uids = [i for i, y in enumerate(labels) if y is not None]
        pool.label(uids, [labels[i] for i in uids], annotator=by)
    return pool


def test_the_table_of_ten_items_fourteen_people_and_five_classes():
    assert round(fleiss_kappa(FLEISS), 3) == 0.210
    assert np.allclose(
        pair_agreement(FLEISS),
        [1, 0.253, 0.308, 0.440, 0.330, 0.462, 0.242, 0.176, 0.286, 0.286],
        atol=0.001,
    )


@pytest.mark.parametrize(
    'table, kappa',
    [([[20, 5], [10, 15]], 0.40), ([[45, 15], [25, 15]], 0.1304), ([[25, 35], [5, 35]], 0.2593)],
)
def test_tables_of_two_people(table, kappa):
    pairs = [(i, j) for i in range(2) for j in range(2) for _ in range(table[i][j])]
    assert cohen_kappa(*zip(*pairs)) == pytest.approx(kappa, abs=5e-5)


def test_cohen_is_scikit_learns_whatever_the_classes_are_called():
    g = np.random.default_rng(0)
    a, b = g.integers(0, 4, 60), g.integers(0, 4, 60)
    names = ['x', 3, True, 'z']
    assert cohen_kappa([names[i] for i in a], [names[i] for i in b]) == pytest.approx(
        cohen_kappa_score(a, b)
    )


def test_random_answers_give_zero_and_the_order_of_items_people_and_classes_does_not_matter():
    g = np.random.default_rng(0)
    said = g.choice(3, p=[0.7, 0.2, 0.1], size=(4000, 5))
    counts = (said[:, :, None] == np.arange(3)).sum(1)
    assert abs(fleiss_kappa(counts)) < 0.02 and abs(cohen_kappa(said[:, 0], said[:, 1])) < 0.05
    assert fleiss_kappa(counts[::-1, ::-1]) == pytest.approx(fleiss_kappa(counts))
    assert fleiss_kappa([[4, 0, 0], [0, 2, 0], [0, 0, 3]]) == 1


def test_items_with_different_numbers_of_answers():
    p = (
        1 + 1 / 2 + 2 / 3
    ) / 3  # each item counts the same for how common a class is, as in Gwet's package irrCAC
    chance = p**2 + (1 - p) ** 2
    assert fleiss_kappa([[2, 0], [1, 1], [2, 1], [0, 1]]) == pytest.approx(
        (4 / 9 - chance) / (1 - chance)
    )


@pytest.mark.parametrize('counts', [[[2, 0], [3, 0]], [[0, 2]]])
def test_one_class_alone_is_not_defined(counts):
    assert math.isnan(fleiss_kappa(counts)) and math.isnan(cohen_kappa(['a'], ['a']))
    assert cohen_kappa(['a', 'a'], ['a', 'b']) == 0


@pytest.mark.parametrize(
    'f, message',
    [
        (lambda: fleiss_kappa([1, 2]), 'items, classes'),
        (lambda: fleiss_kappa([[0.5, 1.5]]), 'whole numbers'),
        (lambda: fleiss_kappa([[-1, 3]]), 'whole numbers'),
        (lambda: fleiss_kappa([[math.nan, 2]]), 'whole numbers'),
        (lambda: fleiss_kappa([[1, 0], [0, 1]]), 'second annotator'),
        (lambda: fleiss_kappa(np.zeros((0, 2))), 'two answers'),
        (lambda: cohen_kappa([], []), '0 answers'),
        (lambda: cohen_kappa(['a'], [None]), 'missing'),
        (lambda: concordance([1, 2], [1]), 'numbers|Numbers'),
        (lambda: concordance([1.0, math.nan], [1.0, 2.0]), 'missing'),
    ],
)
def test_bad_input(f, message):
    with pytest.raises(ValueError, match=message):
        f()


def test_concordance_by_its_definition():
    g = np.random.default_rng(0)
    a = g.normal(size=50)
    b = 0.8 * a + 0.3 + 0.2 * g.normal(size=50)
    assert concordance(a, b) == pytest.approx(
        2
        * np.corrcoef(a, b)[0, 1]
        * a.std()
        * b.std()
        / (a.var() + b.var() + (a.mean() - b.mean()) ** 2)
    )
    assert concordance(a, -a) == pytest.approx(-1, abs=0.05) and concordance(a, a) == pytest.approx(
        1
    )


def test_a_pool_of_three_people():
    pool = answered_by(
        Ada=['a', 'b', 'a', 'a', None, 'c'],
        Bo=['a', 'b', 'b', None, None, 'c'],
        Cy=['a', 'a', 'b', 'a', 'b', None],
    )
    found = pool.agreement()
    assert (found.kind, found.items, list(found.disagreements.index)) == ('classes', 5, ['1', '2'])
    assert found.overall == pytest.approx(
        fleiss_kappa([[3, 0, 0], [1, 2, 0], [1, 2, 0], [2, 0, 0], [0, 0, 2]])
    )
    rows = found.pairs.set_index(['a', 'b'])
    assert rows['items'].to_dict() == {('Ada', 'Bo'): 4, ('Ada', 'Cy'): 4, ('Bo', 'Cy'): 3}
    assert rows.observed['Ada', 'Bo'] == 0.75 and rows.kappa['Ada', 'Cy'] == pytest.approx(
        cohen_kappa('abaa', 'aaba')
    )
    assert found.classes.answers.to_dict() == {'a': 7, 'b': 4, 'c': 2}
    assert found.classes.kappa['c'] == pytest.approx(
        fleiss_kappa([[3, 0], [3, 0], [3, 0], [2, 0], [0, 2]])
    )
    assert found.disagreements.loc['1'].to_dict() == dict(Ada='b', Bo='b', Cy='a')


def test_only_labels_that_stand_and_only_those_of_people():
    pool = answered_by(Ada=['a', 'a', 'b', 'b'], Bo=['b', 'a', 'b', 'a'])
    pool.label('0', 'a', annotator='Bo')  # thinks better of it
    pool.retract('3', annotator='Bo')
    pool.skip('2', annotator='Cy')
    pool.ignore('1', annotator=f'{TRIAGE_PREFIX}1')
    pool.label('3', 'a', annotator='Di')
    pool.retract('3')
    pool.add_pseudo(['3'], ['a'], source='one model')
    pool.add_pseudo(['3'], ['b'], source='another')
    found = pool.agreement()
    assert (
        found.items == 3
        and not len(found.disagreements)
        and found.overall == 1
        and set(found.pairs.a) | set(found.pairs.b) == {'Ada', 'Bo'}
    )


def test_holdout_items_and_labels_of_the_data_count():
    pool = Pool(range(4), ['a', 'b', 'a', None])
    pool.draw_holdout(1)
    pool.label(range(4), ['a', 'b', 'b', 'a'], annotator='Ada')
    found = pool.agreement()
    assert found.pairs[['a', 'b', 'items']].values.tolist() == [['Ada', 'given', 3]]


def test_lists_of_labels():
    pool = answered_by(Ada=[['x', 'y'], [], ['y'], ['x']], Bo=[['y', 'x'], ['y'], ['y'], ['x']])
    found = pool.agreement()
    each = [cohen_kappa([1, 0, 0, 1], [1, 0, 0, 1]), cohen_kappa([1, 0, 1, 0], [1, 1, 1, 0])]
    assert (
        found.kind == 'labels'
        and list(found.disagreements.index) == ['1']
        and found.pairs.kappa[0] == pytest.approx(np.mean(each))
    )
    assert (
        found.pairs.observed[0] == 7 / 8
        and list(found.classes.index) == ['x', 'y']
        and found.overall == pytest.approx(found.classes.kappa.mean())
    )
    empty = answered_by(Ada=[[], []], Bo=[[], []]).agreement()
    assert (
        math.isnan(empty.overall)
        and math.isnan(empty.pairs.kappa[0])
        and 'not defined' in repr(empty)
    )


def test_numbers_and_what_has_no_measure():
    found = answered_by(Ada=[1.0, 2.0, 3.5], Bo=[1.0, 2.5, 3.0], Cy=[None, 4.0, None]).agreement()
    assert (
        found.kind == 'values'
        and list(found.disagreements.index) == ['1', '2']
        and found.pairs.difference[0] == pytest.approx(1 / 3)
    )
    assert (
        found.pairs['items'].tolist() == [3, 1, 1]
        and found.pairs.concordance[1] == 0
        and found.overall == pytest.approx(3 * found.pairs.concordance[0] / 5)
    )
    boxes = [{'boxes': [[0, 0, 1, 1]], 'labels': ['a']}, {'labels': [], 'boxes': []}]
    found = answered_by(Ada=boxes, Bo=[boxes[0], boxes[0]]).agreement()
    assert (found.kind, found.overall, list(found.pairs.columns)) == (
        'other',
        0.5,
        ['a', 'b', 'items', 'observed'],
    )
    assert (
        answered_by(Ada=['m/1.png', 'm/2.png'], Bo=['n/1.png', 'm/2.png']).agreement().kind
        == 'other'
    )


def test_whole_numbers_and_named_numbers_are_classes():
    assert (
        label_kind([1, 2]) == 'classes'
        and label_kind([1, 2.5]) == 'values'
        and label_kind([1, 2.5], [1, 2.5]) == 'classes'
        and label_kind(['a', ['b']]) == 'other'
    )


def test_what_is_shown_is_escaped():
    found = answered_by(**{'<b>Ada</b>': ['<i>a</i>', 'b'], 'Bo': ['b', 'b']}).agreement()
    shown = found._repr_html_()
    assert (
        '<b>Ada' not in shown
        and '<i>a' not in shown
        and '&lt;i&gt;a' in shown
        and '2 people on 2 items' in repr(found)
    )


@pytest.mark.parametrize('people', [dict(Ada=['a', None], Bo=[None, 'b']), dict(Ada=['a', 'b'])])
def test_nothing_in_common(people):
    with pytest.raises(ValueError, match="two people; 'Ada'.* labelled 2 of 2.*annotator="):
        answered_by(**people).agreement()
    with pytest.raises(ValueError, match='nobody labelled 0 of 3'):
        Pool(range(3)).agreement()


def test_equal_answers_agree_whatever_their_order_or_number_type():
    boxes = [
        {'boxes': [[0, 0, 1, 1], [2, 2, 3, 3]], 'labels': ['a', 'b']},
        {'labels': ['b', 'a'], 'boxes': [[2.0, 2, 3, 3], [0, 0, 1, 1]]},
    ]
    for one, other, kind in (
        (1, 1.0, 'classes'),
        (*boxes, 'other'),
        (['x', 'y'], ['y', 'x'], 'labels'),
        ({'x': 1, 'y': [2]}, {'y': [2.0], 'x': 1}, 'other'),
    ):
        found = answered_by(Ada=[one, one], Bo=[other, one]).agreement()
        assert (found.kind, found.pairs.observed[0], len(found.disagreements)) == (kind, 1, 0)
    swapped = [boxes[0], dict(boxes[0], labels=['b', 'a'])]
    assert answered_by(Ada=[swapped[0]], Bo=[swapped[1]]).agreement().overall == 0


def test_lists_of_numbers_are_points_unless_the_vocabulary_names_them():
    pool = answered_by(Ada=[[3, 4], [3]], Bo=[[4, 3], [3]])
    assert (pool.agreement().kind, pool.agreement().overall) == ('other', 0.5)
    pool.set_vocab([3, 4])
    assert (pool.agreement().kind, len(pool.agreement().disagreements)) == ('labels', 0)


def test_tables_without_names():
    pool = Pool([f'patient {i}' for i in range(4)])
    for by in ('Zoe', 'Anna', 'Ben'):
        for i in range(4):
            pool.label(f'patient {i}', 'ab'[(i * len(by)) % 2], annotator=by)
    shown, hidden = pool.agreement(), pool.agreement(names=False)
    said = (
        repr(hidden)
        + hidden._repr_html_()
        + ''.join(t.to_csv() for t in (hidden.pairs, hidden.classes, hidden.disagreements))
    )
    assert (
        not any(name in said for name in ('Zoe', 'Anna', 'Ben', 'patient'))
        and 'annotator 1' in said
        and 'item 2' in said
    )
    assert (hidden.overall, hidden.items) == (shown.overall, shown.items)
    called = dict(zip(('Zoe', 'Anna', 'Ben'), ('annotator 1', 'annotator 2', 'annotator 3')))
    assert {frozenset(map(called.get, (r.a, r.b))): r.kappa for r in shown.pairs.itertuples()} == {
        frozenset((r.a, r.b)): r.kappa for r in hidden.pairs.itertuples()
    }
    assert {tuple(row[by] for by in called) for _, row in shown.disagreements.iterrows()} == {
        tuple(row[by] for by in called.values()) for _, row in hidden.disagreements.iterrows()
    }
