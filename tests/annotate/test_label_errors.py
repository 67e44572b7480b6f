"""Which labels are likely wrong: the same as cleanlab, what was planted comes first, and nothing
is changed by looking"""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.basics import (
    CategoryBlock,
    DataBlock,
    Learner,
    MultiCategoryBlock,
    RegressionBlock,
    TransformBlock,
)
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat, MSELossFlat
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from torch import nn

from conftest import (
    BLOCK,
    PixelsOf,
    Segmenter,
    XOf,
    assert_same,
    class_of,
    classes_learner,
    everything,
    features_of,
    mlp,
)
from fastai_al import FastaiALWarning
from fastai_al.active_learner import ActiveLearner
from fastai_al.annotate.label_errors import (
    _folds,
    label_issues,
    label_quality,
    value_issues,
    value_quality,
)
from fastai_al.pool.oracle import Oracle
from fastai_al.pool.pool import Pool

LABELS = DataBlock((TransformBlock, MultiCategoryBlock(vocab=['a', 'b', 'c'])), get_x=XOf())
VALUE = DataBlock((TransformBlock, RegressionBlock(n_out=1)), get_x=XOf())


class Sees(nn.Module):
    "Predicts from the first features, and learns nothing"

    def __init__(self, out: int, scale: float = 4.0):
        super().__init__()
        self.weight, self.out = nn.Parameter(torch.tensor(scale)), out

    def forward(self, x):
        return x[:, : self.out] * self.weight


def noisy(n=200, c=4, seed=0, share=0.15):
    g = np.random.default_rng(seed)
    probs = g.dirichlet(np.full(c, 0.3), n)
    labels = np.array([g.choice(c, p=p) for p in probs])
    return np.where(g.random(n) < share, g.integers(0, c, n), labels), probs


def labelled(truth: dict, held: int = 10, **kwargs) -> Pool:
    pool = Pool(range(len(truth)), **kwargs)
    if held:
        pool.draw_holdout(held)
    pool.label(list(truth), truth, annotator='Ada')
    return pool


def quiet(pool, block, model, loss):
    return Learner(pool.dataloaders(block, bs=16, num_workers=0), model, loss)


@pytest.mark.parametrize('seed, c', [(0, 2), (1, 4), (2, 7)])
def test_as_cleanlab(seed, c):
    rank, filters = pytest.importorskip('cleanlab.rank'), pytest.importorskip('cleanlab.filter')
    labels, probs = noisy(c=c, seed=seed)
    np.testing.assert_allclose(
        label_quality(labels, probs), rank.get_label_quality_scores(labels, probs)
    )
    theirs = filters.find_label_issues(labels, probs, filter_by='confident_learning')
    assert (label_issues(labels, probs) == theirs).all() and 0 < theirs.sum() < len(theirs)


def test_as_cleanlab_where_probabilities_are_tied():
    filters = pytest.importorskip('cleanlab.filter')
    g = np.random.default_rng(0)
    probs = g.integers(1, 4, (300, 3)).astype(float)
    probs /= probs.sum(1, keepdims=True)
    labels = g.integers(0, 3, 300)
    assert (
        label_issues(labels, probs)
        == filters.find_label_issues(labels, probs, filter_by='confident_learning')
    ).all()


def test_lists_of_labels_as_cleanlab():
    scorer, filters = (
        pytest.importorskip('cleanlab.internal.multilabel_scorer'),
        pytest.importorskip('cleanlab.multilabel_classification.filter'),
    )
    g = np.random.default_rng(0)
    p = g.beta(0.4, 0.4, (150, 3))
    labels = (g.random((150, 3)) < p).astype(int)
    labels[::10] = 1 - labels[::10]
    both = np.stack([1 - p, p], -1)
    theirs = scorer.MultilabelScorer(aggregator=lambda s, **_: s.min(-1))(labels, p)
    np.testing.assert_allclose(label_quality(labels, both), theirs)
    each = filters.find_multilabel_issues_per_class(
        [np.flatnonzero(y).tolist() for y in labels], p, filter_by='confident_learning'
    )
    assert (label_issues(labels, both) == each.any(1)).all() and 0 < each.any(1).sum() < 150


def test_label_issues_by_hand():
    labels, probs = (
        [0, 0, 1, 1, 1],
        [[0.9, 0.1, 0], [0.1, 0.2, 0.7], [0.5, 0.5, 0], [0.2, 0.8, 0], [0.49, 0.51, 0]],
    )
    assert label_issues(labels, probs).tolist() == [
        False,
        False,
        False,
        False,
        False,
    ]  # nobody is labelled 2, so nobody is confidently one
    assert label_issues(
        [0, 0, 0, 1], [[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.4, 0.6]]
    ).tolist() == [False, False, True, False]
    assert not label_issues([0], [[0.1, 0.9]]).any()  # one item says nothing of another class


def test_both_forget_the_order_of_items_and_classes():
    labels, probs = noisy()
    order, classes = np.random.default_rng(1).permutation(200), np.array([2, 0, 3, 1])
    for f in (label_quality, label_issues):
        np.testing.assert_array_equal(f(labels[order], probs[order]), f(labels, probs)[order])
        np.testing.assert_array_equal(
            f(np.argsort(classes)[labels], probs[:, classes]), f(labels, probs)
        )


def test_values():
    g = np.random.default_rng(0)
    predicted = g.normal(size=4000)
    values = predicted + 0.5 * g.normal(size=4000)
    quality = value_quality(values, predicted)
    assert (
        abs((quality < 0.1).mean() - 0.1) < 0.02 and value_issues(values, predicted).mean() < 0.003
    )
    values[7] += 10
    assert (
        quality.argmin() != 7
        and value_quality(values, predicted).argmin() == 7
        and value_issues(values, predicted)[7]
    )
    np.testing.assert_allclose(
        value_quality(3 * values + 1, 3 * predicted + 1), value_quality(values, predicted)
    )
    two = value_quality(np.stack([values, predicted], 1), np.stack([predicted, predicted], 1))
    np.testing.assert_allclose(two, value_quality(values, predicted))


@pytest.mark.parametrize(
    'f, message',
    [
        (lambda: label_quality([], np.zeros((0, 2))), 'do not match'),
        (lambda: label_quality([0, 1], [[0.5, 0.5]]), 'do not match'),
        (lambda: label_quality([0], [[np.nan, 1]]), 'NaN'),
        (lambda: label_issues([0], [[3.0, -2.0]]), 'softmax'),
        (lambda: label_issues([2], [[0.5, 0.5]]), 'from 0 to 1'),
        (lambda: label_issues([0.5], [[0.5, 0.5]]), 'whole numbers'),
        (lambda: label_quality(['a'], [[0.5, 0.5]]), 'whole numbers'),
        (lambda: value_quality([1.0], [1.0, 2.0]), 'do not match'),
        (lambda: value_quality([np.nan], [1.0]), 'NaN'),
        (lambda: value_issues([], []), 'do not match'),
    ],
)
def test_bad_arrays(f, message):
    with pytest.raises(ValueError, match=message):
        f()


def planted(n: int = 80):
    truth = {str(i): class_of(i) for i in range(n)}
    wrong = ['3', '11', '40', '41', '66']
    return {u: (y + 1) % 3 if u in wrong else y for u, y in truth.items()}, wrong


def test_what_is_planted_comes_first_and_nothing_is_changed():
    labels, wrong = planted()
    pool = labelled(labels)
    learn = ActiveLearner(quiet(pool, BLOCK, Sees(3), CrossEntropyLossFlat()), pool)
    events = len(pool.history)
    with learn.no_bar():
        before = everything(learn.learn)
        with pytest.warns(FastaiALWarning, match='70 of these 80 items.*by heart'):
            found = pool.suspects(learn)
        assert_same(everything(learn.learn), before)
    assert (
        len(found) == 80
        and list(found.columns) == ['label', 'suggested', 'quality', 'likely_error', 'source']
        and found.index.name == 'uid'
        and '70 of these 80' in found.attrs['note']
    )
    assert (
        found.quality.is_monotonic_increasing
        and roc_auc_score(found.index.isin(wrong), -found.quality) > 0.98
        and found.loc[wrong, 'likely_error'].sum() >= 4
    )
    assert (
        all(found.suggested[u] == class_of(u) for u in found.index) and len(pool.history) == events
    )
    with learn.no_bar(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        pd.testing.assert_frame_equal(pool.suspects(learn, n=3), found.head(3))


def test_reviewed_items_are_left_out_unless_requested():
    labels, wrong = planted()
    pool = labelled(labels)
    learn = quiet(pool, BLOCK, Sees(3), CrossEntropyLossFlat())
    with learn.no_bar():
        probs = pool.out_of_sample(
            lambda p: quiet(p, BLOCK, Sees(3), CrossEntropyLossFlat()), lambda learn: None, folds=2
        )
    pool.label(wrong[0], class_of(wrong[0]), annotator='Bo', note={'review': True})
    pool.label(wrong[1], class_of(wrong[1]), annotator='Bo', note={'review': False})
    found = pool.suspects(probs=probs)
    assert (
        wrong[0] not in found.index
        and wrong[1] in found.index
        and found.source[wrong[1]] == 'Ada, Bo'
        and pool.suspects(probs=probs, reviewed=True).index.size == 80
    )
    pool.retract(wrong[0], annotator='Bo')
    assert wrong[0] in pool.suspects(probs=probs).index


def test_lists_and_values_of_a_pool():
    present = {str(i): [c for c, x in zip('abc', features_of(i)) if x > 0] for i in range(40)}
    said = present | {'5': [c for c in 'abc' if c not in present['5']]}
    pool = labelled(said)
    learn = quiet(pool, LABELS, Sees(3, 8.0), BCEWithLogitsLossFlat())
    with learn.no_bar(), pytest.warns(FastaiALWarning):
        found = pool.suspects(learn)
    assert (
        found.index[0] == '5'
        and found.likely_error['5']
        and found.suggested['5'] == present['5']
        and found.label['5'] == said['5']
    )
    sizes = {str(i): float(features_of(i)[0]) + 0.01 * (-1) ** i for i in range(40)}
    pool = labelled(sizes | {'7': 9.0})
    learn = quiet(pool, VALUE, Sees(1, 1.0), MSELossFlat())
    with learn.no_bar(), pytest.warns(FastaiALWarning):
        found = pool.suspects(learn)
    assert found.index[found.likely_error].tolist() == ['7'] and found.suggested[
        '7'
    ] == pytest.approx(float(features_of(7)[0]))


def test_each_item_is_judged_by_a_model_that_has_not_seen_it():
    pool = labelled(planted()[0])
    seen, before, random = [], len(pool.history), torch.get_rng_state()

    def make(shadow):
        learn = quiet(shadow, BLOCK, mlp(), CrossEntropyLossFlat())
        seen.append((set(learn.dls.train_ds.items.index), set(learn.dls.valid_ds.items.index)))
        return learn

    def once(seed=0):
        return pool.out_of_sample(make, lambda learn: learn.fit(1), folds=4, seed=seed)

    probs = once()
    assert (
        list(probs.columns) == [0, 1, 2]
        and set(probs.index) == set(pool.rows.index)
        and np.allclose(probs.sum(1), 1)
        and probs.index.is_unique
    )
    assert (
        len(seen) == 4
        and all(not train & held and len(train | held) == 80 for train, held in seen)
        and sorted(u for _, held in seen for u in held) == sorted(pool.rows.index)
    )
    assert (
        len(pool.history) == before
        and pool.counts()['holdout'] == 10
        and torch.equal(torch.get_rng_state(), random)
    )
    torch.manual_seed(9)
    pd.testing.assert_frame_equal(once(), probs)
    assert not np.allclose(once(seed=1), probs)
    known = pool.labelled.label
    assert _folds(known, 4, 0) == _folds(known[::-1], 4, 0) and all(
        abs((known[fold] == c).sum() - (known == c).sum() / 4) < 1
        for fold in _folds(known, 4, 0)
        for c in range(3)
    )


def test_digits_with_one_label_in_twenty_wrong():
    digits = load_digits()
    frame = pd.DataFrame(digits.data[:400] / 16, columns=[f'p{i}' for i in range(64)])
    truth = {str(i): int(y) for i, y in enumerate(digits.target[:400])}
    pool = Pool(frame, item=list(frame.columns), uids=[str(i) for i in range(400)])
    oracle = Oracle.from_labels(truth, noise=0.05, seed=3)
    oracle.answer(pool, list(truth))
    wrong = [u for u, y in zip(truth, oracle(list(truth))) if y != truth[u]]

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

        def forward(self, cat, cont):
            return self.net(cont)

    def make(p):
        return Learner(
            p.tabular_dataloaders(
                CategoryBlock(vocab=list(range(10))),
                [],
                cont_names=list(frame.columns),
                bs=32,
                num_workers=0,
            ),
            Net(),
            CrossEntropyLossFlat(),
        )

    found = pool.suspects(probs=pool.out_of_sample(make, lambda learn: learn.fit(8, 1e-2)))
    hit = found.index.isin(wrong)
    assert (
        roc_auc_score(hit, -found.quality) > 0.98
        and hit[: len(wrong)].mean() > 0.75
        and hit[found.likely_error].mean() > 0.7
    )


def frame_for(pool):
    return pd.DataFrame(np.full((80, 3), 1 / 3), index=pool.rows.index, columns=[0, 1, 2])


def test_bad_calls():
    pool = labelled(planted()[0])
    probs = frame_for(pool)
    assert (
        len(pool.suspects(probs=probs)) == 80 and not pool.suspects(probs=probs).likely_error.any()
    )
    for kwargs, message in [
        ({}, 'either a learner or probs='),
        (dict(learn=1, probs=probs), 'either a learner or probs='),
        (dict(probs=probs, n=0), 'n=0'),
        (dict(probs=probs, n=True), 'n=True'),
        (dict(probs=probs.replace(1 / 3, np.nan)), 'NaN'),
        (dict(probs=probs.drop(columns=2) * 1.5), 'not among the classes'),
        (dict(probs=probs * 2), 'sum to 1'),
        (dict(probs=pd.concat([probs, probs])), 'more than once'),
        (dict(probs=probs.head(1)), '1 of the 1'),
    ]:
        with pytest.raises(ValueError, match=message):
            pool.suspects(**kwargs)
    with pytest.raises(TypeError, match='one row per item'):
        pool.suspects(probs=[1])
    with pytest.raises(KeyError, match='pool knows no'):
        pool.suspects(probs=probs.rename(index={'0': 'x'}))
    for folds in (1, 81, 2.5, True):
        with pytest.raises(ValueError, match='folds='):
            pool.out_of_sample(None, None, folds=folds)
    with pytest.raises(ValueError, match='0 items of this pool have a label'):
        Pool(range(3)).suspects(probs=probs)
    with pytest.raises(ValueError, match='has to predict'):
        pool.out_of_sample(
            lambda p: quiet(pool, BLOCK, Sees(3), CrossEntropyLossFlat()), lambda learn: None
        )


def test_pixels_are_refused():
    pool = labelled(planted()[0])
    learn = quiet(
        pool,
        DataBlock((TransformBlock, CategoryBlock(vocab=[0, 1, 2])), get_x=PixelsOf()),
        Segmenter(),
        CrossEntropyLossFlat(axis=1),
    )
    with learn.no_bar(), pytest.raises(ValueError, match='4, 4. sites'):
        pool.suspects(learn)
    with pytest.raises(ValueError, match='not made from the pool'):
        pool.suspects(classes_learner())
    numbers = pd.DataFrame({'value': np.zeros(80)}, index=pool.rows.index)
    with pytest.raises(ValueError, match="'x', the label of some item, is not a number"):
        labelled({u: 'x' for u in pool.rows.index}).suspects(probs=numbers)
    with pytest.raises(ValueError, match='not among the classes'):
        labelled({u: {'boxes': [], 'labels': []} for u in pool.rows.index}).suspects(
            probs=frame_for(pool)
        )


def test_unlabelled_and_taken_back_items_are_no_suspects():
    labels, wrong = planted()
    pool = labelled(labels)
    probs = frame_for(pool)
    pool.retract(wrong[0])
    pool.ignore(wrong[1])
    assert set(pool.suspects(probs=probs).index) == set(labels) - set(wrong[:2])
    assert len(pool.suspects(probs=probs, n=500)) == 78
