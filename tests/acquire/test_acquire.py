"The pool pass and `Learner.acquire`: what they read, what they say, and what they refuse"

import functools
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.basics import Datasets, Learner, MSELossFlat, Transform
from fastai.callback.core import Callback
from fastai.data.core import TfmdDL
from fastai.data.load import SkipItemException
from torch import nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    SubsetRandomSampler,
    TensorDataset,
)

import fastai_al.inference.predict  # noqa: F401 (it adds methods)
from conftest import (
    as_pool,
    assert_same,
    class_of,
    classes_learner,
    everything,
    features_of,
    labels_learner,
    mlp,
    pixels_learner,
    pool_learner,
)
from fastai_al import FastaiALWarning
from fastai_al.acquire.collector import rank
from fastai_al.acquisition.registry import ACQUISITION, acquisition
from fastai_al.acquisition.stochastic import min_gap, stochastic
from fastai_al.active_learner import ActiveLearner
from fastai_al.core.preserve import preserved
from fastai_al.core.rng import key_of
from fastai_al.inference.passes import pool_pass
from fastai_al.pool.pool import Pool
from fastai_al.posterior.base import Point
from fastai_al.posterior.dropout import MCDropout


@pytest.fixture
def learn():
    learn = classes_learner(cbs=MCDropout(k=5))
    with learn.no_bar(), learn.no_logging():
        learn.fit(2)
    with learn.no_bar():
        yield learn


def plain_entropy(learn, items):
    with torch.no_grad():
        p = learn.model.eval()(torch.stack([features_of(i) for i in items])).softmax(-1)
    return -(p * p.log()).sum(-1).numpy()


def test_scores_are_those_of_the_items(learn):
    items = list(range(40))
    query = learn.acquire(40, learn.dls.test_dl(items, bs=7), by='entropy', posterior=Point())
    exact = plain_entropy(learn, items)
    assert sorted(query.items) == items and [query.items[0], query.items[-1]] == [
        int(exact.argmax()),
        int(exact.argmin()),
    ]
    np.testing.assert_allclose(query.scores, exact[query.indices], rtol=1e-4)
    with torch.no_grad():
        predicted = learn.model(torch.stack([features_of(i) for i in query.items])).argmax(-1)
    assert query.predictions == predicted.tolist()


@pytest.mark.parametrize(
    'make',
    [
        lambda ds: DataLoader(ds, batch_size=7),
        lambda ds: DataLoader(ds, batch_size=7, shuffle=True, drop_last=True),
        lambda ds: DataLoader(ds, batch_sampler=[[2, 1, 0], list(range(39, 2, -1))]),
        lambda ds: TfmdDL(ds, bs=7, shuffle=True, drop_last=True, num_workers=0),
    ],
    ids=['torch', 'torch shuffled', 'torch batches', 'fastai shuffled'],
)
def test_every_kind_of_dataloader_gives_each_item_once(learn, make):
    ds = TensorDataset(torch.stack([features_of(i) for i in range(40)]))
    query = learn.acquire(40, make(ds), by='entropy', posterior=Point())
    np.testing.assert_allclose(
        query.scores, plain_entropy(learn, range(40))[query.indices], rtol=1e-4
    )
    assert sorted(query.indices) == list(range(40))


def test_a_sampler_that_chooses_is_respected(learn):
    ds = TensorDataset(torch.stack([features_of(i) for i in range(40)]))
    query = learn.acquire(
        5, DataLoader(ds, batch_size=4, sampler=SubsetRandomSampler([3, 30, 7, 21, 9]))
    )
    assert sorted(query.indices) == [3, 7, 9, 21, 30]


def test_only_what_the_dataloader_reads_counts_as_the_pool(learn):
    ds = TensorDataset(torch.stack([features_of(i) for i in range(40)]))
    few = DataLoader(ds, batch_size=8, sampler=SubsetRandomSampler([1, 5, 7]))
    assert learn.acquire(3, few).info['pool'] == 3
    with pytest.raises(ValueError, match='to choose from is 3'):
        learn.acquire(10, few)
    weighted = DataLoader(
        ds, batch_size=8, sampler=torch.utils.data.WeightedRandomSampler([1.0] * 40, 5)
    )
    assert (
        learn.acquire(2, weighted).uids == learn.acquire(2, weighted).uids
        and learn.acquire(2, weighted).info['pool'] == 40
    )
    assert (
        learn.acquire(
            2, DataLoader([(features_of(i)[None],) for i in range(5)], batch_size=None)
        ).info['pool']
        == 5
    )


@pytest.mark.parametrize(
    'beside',
    [lambda x: None, lambda x: x.mean(), lambda x: 1.0, lambda x: x],
    ids=['None', 'scalar', 'number', 'tensor'],
)
@pytest.mark.parametrize('first', [nn.Identity(), nn.Dropout(0.2)], ids=['vmap', 'loop'])
def test_a_callback_may_pick_the_scores_of_several_outputs(learn, beside, first):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.m = nn.Sequential(first, mlp())

        def forward(self, x):
            y = self.m(x)
            return y, beside(y)

    class Pick(Callback):
        def after_pred(self):
            self.learn.pred = self.pred[0]

    two = Learner(learn.dls, Two(), nn.CrossEntropyLoss(), cbs=[MCDropout(k=4), Pick()])
    with two.no_bar():
        assert len(two.acquire(3, as_pool(learn))) == 3


def test_rows_that_are_no_items_are_refused(learn):
    class Longer(nn.Module):
        def __init__(self):
            super().__init__()
            self.m = mlp()

        def forward(self, x):
            return self.m(x).repeat(3, 1)

    with pytest.raises(ValueError, match='3 rows for a batch of 1 items'):
        Learner(learn.dls, Longer(), nn.CrossEntropyLoss()).acquire(1, as_pool(learn))


def test_predictions_are_of_the_last_vocabulary(learn):
    learn.dls.vocab = [['xxunk', 'a', 'b'], ['neg', 'so', 'pos']]
    assert set(learn.acquire(10, as_pool(learn)).predictions) <= {'neg', 'so', 'pos'}


def test_training_sets_are_read_without_augmentation():
    class Shift(Transform):
        split_idx = 0

        def encodes(self, x: torch.Tensor):
            return x + 100

    dls = Datasets(
        list(range(30)), [[features_of, Shift()], [class_of]], splits=[range(20), range(20, 30)]
    ).dataloaders(bs=8, num_workers=0)
    learn = Learner(dls, mlp(), nn.CrossEntropyLoss())
    with learn.no_bar(), pytest.warns(FastaiALWarning, match='items of the training set'):
        query = learn.acquire(20, dls.train, by='entropy')
    np.testing.assert_allclose(
        query.scores, plain_entropy(learn, range(30))[query.indices], rtol=1e-4
    )
    assert dls.train.dataset.split_idx == 0


def test_names_come_from_where_they_are(learn):

    class Named(Dataset):
        def __init__(self, items):
            self.items = items

        def __len__(self):
            return 4

        def __getitem__(self, i):
            return (features_of(i),)

    for items, names in (
        ([Path('a/1'), Path('b'), Path('c'), Path('d')], {'a/1', 'b', 'c', 'd'}),
        (list('wxyz'), set('wxyz')),
        ([7, 8, 9, 10], {'7', '8', '9', '10'}),
        (pd.DataFrame(dict(a=[1, 2, 3, 4]), index=list('wxyz')), set('wxyz')),
        (pd.DataFrame(dict(a=[1, 2, 3, 4])), set('0123')),
        (pd.DataFrame(dict(a=range(9)))[5:], set('5678')),
        ([[0]] * 4, set('0123')),
    ):
        assert set(learn.acquire(4, DataLoader(Named(items), batch_size=2)).uids) == names


def test_features_and_draws_come_in_step(learn):
    dl = learn.dls.test_dl(range(20), bs=6)
    for draws in pool_pass(learn, dl, features=True):
        exact = learn.model[:-1](torch.stack([features_of(i) for i in draws.indices]))
        torch.testing.assert_close(draws.features, exact, rtol=1e-4, atol=1e-5)
        assert draws.log_probs.shape == (len(draws.indices), 5, 3)
    with pytest.raises(ValueError, match='features='):
        next(
            pool_pass(
                Learner(
                    learn.dls,
                    nn.Sequential(nn.Dropout(0.5), nn.Conv1d(1, 1, 1)),
                    nn.CrossEntropyLoss(),
                ),
                dl,
                MCDropout(2),
                features=True,
            )
        )


def test_a_callback_may_shape_inputs_and_predictions(learn):
    class Half(Callback):
        def before_batch(self):
            self.learn.xb = (self.xb[0] / 2,)

        def after_pred(self):
            self.learn.pred = self.pred[..., :2]

    learn.add_cb(Half())
    shapes = {d.log_probs.shape[1:] for d in pool_pass(learn, learn.dls.test_dl(range(5)))}
    assert shapes == {(5, 2)}


def test_a_posterior_given_outranks_the_learners_own(learn):
    assert learn.acquire(2, as_pool(learn)).info['posterior'] == 'MCDropout(k=5, seed=0)'
    assert learn.acquire(2, as_pool(learn), posterior=Point()).info['k'] == 1
    assert (
        learn.acquire(2, as_pool(learn), posterior=MCDropout(k=9, seed=2)).info['posterior']
        == 'MCDropout(k=9, seed=2)'
    )


def test_auto_reports_what_it_chose_and_why(learn):
    info = learn.acquire(2, as_pool(learn)).info
    assert info['acquisition'] == 'uncertainty_herding' and '7 labels a class' in info['why']
    assert (
        learn.acquire(2, as_pool(learn), posterior=MCDropout(60)).info['acquisition']
        == 'uncertainty_herding'
    )
    pixels, labels = pixels_learner(cbs=MCDropout(3)), labels_learner(cbs=MCDropout(3))
    info = pixels.acquire(2, as_pool(pixels)).info
    assert info['acquisition'] == 'clasp_pe' and 'a share' in info['why']
    info = labels.acquire(2, as_pool(labels)).info
    assert info['acquisition'] == 'max_herding' and 'several labels' in info['why']
    labels.model = nn.Conv1d(6, 3, 1)  # no linear layer
    labels.model.forward = lambda x: type(labels.model).forward(labels.model, x[..., None])[..., 0]
    info = labels.acquire(2, as_pool(labels), posterior=Point()).info
    assert info['acquisition'] == 'entropy' and 'one draw' in info['why']


class NaN(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Linear(6, 3)
        self.d = nn.Dropout(0.5)

    def forward(self, x):
        return self.d(self.w(x)) + torch.where(x[:, :1] > 1, float('nan'), 0.0)


class Skips(Dataset):
    items = list('abcd')

    def __len__(self):
        return 4

    def __getitem__(self, i):
        if i == 2:
            raise SkipItemException()
        return (features_of(i),)


@pytest.mark.parametrize(
    'go, error, says',
    [
        (lambda l: l.acquire(0, as_pool(l)), ValueError, 'n=0'),
        (lambda l: l.acquire(-2, as_pool(l)), ValueError, 'Give a whole number, 1 to 20'),
        (lambda l: l.acquire(21, as_pool(l)), ValueError, 'to choose from is 20'),
        (lambda l: l.acquire(2.5, as_pool(l)), ValueError, 'n=2.5'),
        (lambda l: l.acquire(1, TfmdDL([], bs=2, num_workers=0)), ValueError, 'it is empty'),
        (lambda l: l.acquire(1, DataLoader([])), ValueError, 'it is empty'),
        (lambda l: l.acquire(1, as_pool(l), by='bold'), ValueError, 'no acquisition function'),
        (lambda l: l.acquire(1, as_pool(l), by=stochastic), ValueError, 'makes selectors'),
        (lambda l: l.acquire(1, as_pool(l), by=min_gap), ValueError, 'makes selectors'),
        (lambda l: l.acquire(1, as_pool(l), posterior='MC'), TypeError, 'is not a Posterior'),
        (lambda l: l.acquire(1, as_pool(l), by='bald', posterior=Point()), ValueError, 'MCDropout'),
        (lambda l: l.acquire(1, 'photos'), TypeError, 'DataLoader'),
        (
            lambda l: l.acquire(1, as_pool(l), by=lambda lp: lp.sum((1, 2)) * float('nan')),
            ValueError,
            'NaN',
        ),
        (
            lambda l: Learner(l.dls, NaN(), nn.CrossEntropyLoss(), cbs=MCDropout(2)).acquire(
                1, as_pool(l)
            ),
            ValueError,
            'predicts NaN',
        ),
        (
            lambda l: Learner(l.dls, mlp(p=0), nn.CrossEntropyLoss(), cbs=MCDropout(2)).acquire(
                1, as_pool(l)
            ),
            ValueError,
            'finds no dropout',
        ),
        (lambda l: Learner(l.dls, mlp(), nn.CTCLoss()).acquire(1, as_pool(l)), ValueError, 'task='),
        (
            lambda l: l.acquire(1, TfmdDL(Skips(), bs=2, num_workers=0)),
            ValueError,
            'skipped 1 of 4',
        ),
    ],
)
def test_what_is_refused_and_why(learn, go, error, says):
    with pytest.raises(error, match=says):
        go(learn)
    assert len(learn.acquire(1, as_pool(learn))) == 1


def test_a_stream_is_refused(learn):
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([torch.zeros(6)])

        def __len__(self):
            return 1

    with pytest.raises(TypeError, match='stream'):
        learn.acquire(1, DataLoader(Stream()))


def test_one_item_and_all_items(learn):
    assert learn.acquire(1, learn.dls.test_dl([3])).uids == ['3']
    assert len(learn.acquire(20, as_pool(learn))) == 20


def test_a_task_of_ones_own(learn):
    learn.loss_func = MSELossFlat()
    query = learn.acquire(3, as_pool(learn), task=lambda out: out.log_softmax(-1))
    assert query.info['task'] == 'given' and len(query) == 3


def test_sites_are_averaged():
    learn = pixels_learner(cbs=MCDropout(k=4))
    with learn.no_bar():
        query = learn.acquire(20, as_pool(learn), by='entropy', posterior=Point())
        maps = torch.cat([d.log_probs for d in pool_pass(learn, learn.dls.valid, Point())])[:, 0]
    exact = torch.special.entr(maps.exp()).sum(-1).mean((1, 2))
    np.testing.assert_allclose(query.scores, exact[query.indices], rtol=1e-4)
    assert query.predictions == [None] * 20 and query.info['information'] is None


@pytest.mark.parametrize(
    'scores, best',
    [
        ([1, 3, 2], [1, 2, 0]),
        ([-np.inf, np.inf, 0], [1, 2, 0]),
        ([1.0, 1 + 1e-9, 1.0], None),
        ([0, 0, 0], None),
        ([1e12, 1, 2], [0, 2, 1]),
        ([-1e12, 1e-9, 2e-9], [2, 1, 0]),
        ([1e-300, 3e-300, 2e-300], [1, 2, 0]),
        ([np.inf] * 3, None),
    ],
)
def test_rank(scores, best):
    scores, keys = np.array(scores, float), np.array([7, 3, 5])
    order = rank(scores, keys)
    assert list(order) == (best or [1, 2, 0])
    assert list(keys[order]) == list(keys[::-1][rank(scores[::-1].copy(), keys[::-1])])


def test_one_outlier_leaves_the_order_of_the_others():
    assert rank(np.array([3.0, 1.0, 2.0, 1e6, 5.0]), np.array([5, 1, 3, 0, 9])).tolist() == [
        3,
        4,
        0,
        2,
        1,
    ]


def test_an_item_far_from_all_others_leaves_their_order():
    "A regression with one row times 30,000"

    class Row:
        def __call__(self, i):
            return features_of(i) * (30_000 if i == 33 else 1)

    dls = Datasets(
        list(range(60)),
        [[Row()], [lambda i: features_of(i)[:1]]],
        splits=[range(10), range(10, 60)],
    ).dataloaders(bs=8, num_workers=0)
    learn = Learner(
        dls,
        nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 1)),
        MSELossFlat(),
        cbs=MCDropout(k=20),
    )
    with learn.no_bar():
        pool = dls.test_dl(range(10, 60))
        variance = (
            torch.cat([batch.values for batch in pool_pass(learn, pool)])
            .double()
            .var(1, correction=0)[:, 0]
        )
        for by in ('predictive_variance', 'gaussian_bald'):
            assert (
                learn.acquire(50, pool, by=by).indices == variance.argsort(descending=True).tolist()
            )
    assert variance.argmax() == 23 and variance.max() > 1e6 * variance.median()


def test_scores_keep_all_their_digits(learn):
    "Scores of one's own in double precision, which single precision would take for one"
    small = functools.partial(_by_place, lambda i: 5.0 + 1e-5 * i)
    assert learn.acquire(10, learn.dls.test_dl(range(10)), by=small).uids == [
        str(i) for i in range(9, -1, -1)
    ]
    large = functools.partial(_by_place, lambda i: 1e12 if i == 3 else float(i))
    assert learn.acquire(10, learn.dls.test_dl(range(10)), by=large).uids == [
        '3',
        '9',
        '8',
        '7',
        '6',
        '5',
        '4',
        '2',
        '1',
        '0',
    ]


def _by_place(score_of, log_probs, keys):
    "Scores that belong to the first ten items by their names"
    places = {key_of(str(i)): i for i in range(10)}
    return torch.tensor([score_of(places[key]) for key in keys.tolist()], dtype=torch.double)


# A strategy that fits


@pytest.mark.parametrize(
    'by',
    [
        'predictive_variance',
        'gaussian_bald',
        stochastic('predictive_variance'),
        min_gap('gaussian_bald'),
    ],
)
def test_strategies_for_values_are_refused_where_classes_are_predicted(learn, by):
    with pytest.raises(ValueError, match='predicts classes: choose by bald or mean_std'):
        learn.acquire(2, as_pool(learn), by=by)
    assert (
        len(learn.acquire(2, as_pool(learn), by='logdet')) == 2
    )  # the covariance of probabilities


@pytest.mark.parametrize(
    'by, near',
    [
        ('bold', 'bald'),
        ('entropi', 'entropy'),
        ('k_center', 'kcenter'),
        ('batch_bald', 'batchbald'),
        ('xyz', None),
    ],
)
def test_an_unknown_strategy_names_the_nearest_and_those_of_the_task(learn, by, near):
    with pytest.raises(ValueError) as e:
        learn.acquire(2, as_pool(learn), by=by)
    said = str(e.value)
    assert (
        (f'Did you mean {near!r}?' in said) == bool(near)
        and 'predicts classes: ' in said
        and 'badge' in said
        and 'predictive_variance' not in said
    )
    learn.loss_func = MSELossFlat()
    with pytest.raises(ValueError, match='predicts values: ') as e:
        learn.acquire(2, as_pool(learn), by=by)
    assert 'gaussian_bald' in str(e.value) and 'entropy' not in str(e.value).split('values: ')[1]


# Information on demand


def test_joint_information_is_computed_where_it_is_cheap_and_else_on_demand(learn, monkeypatch):
    few = learn.acquire(3, as_pool(learn), by='entropy')
    assert (
        0
        < few.info['information']
        == few.joint_information()
        <= few.info['max_information']
        == math.log(5)
    )
    monkeypatch.setattr('fastai_al.acquire.details.MAX_COST', 1e4)
    many = learn.acquire(3, as_pool(learn), by='entropy')
    assert (
        many.info['information'] is None
        and many.info['max_information'] == math.log(5)
        and many.uids == few.uids
    )
    assert many.joint_information() == few.info['information']
    monkeypatch.setattr('fastai_al.acquire.details.joint_information', None)  # not asked
    assert learn.acquire(3, as_pool(learn), by='batchbald').info['information'] > 0
    with pytest.raises(ValueError, match='k=1.*several draws'):
        learn.acquire(3, as_pool(learn), by='entropy', posterior=Point()).joint_information()
    pixels = pixels_learner(cbs=MCDropout(3))
    with pytest.raises(ValueError, match='joint information needs'):
        pixels.acquire(2, as_pool(pixels), by='entropy').joint_information()


# A least distance to what is labelled


@pytest.fixture
def film():
    "A hundred frames, of which the 50th and others of the first 20 are labelled"
    pool = Pool(range(100))
    pool.label(['50', '0', '5'], [class_of(i) for i in (50, 0, 5)])
    learn = ActiveLearner(pool_learner(pool), pool)
    with learn.no_bar():
        yield learn


def _nearest(uids, others):
    return min(abs(int(a) - int(b)) for a in uids for b in others if a != b)


@pytest.mark.filterwarnings('ignore::fastai_al.FastaiALWarning')
def test_labelled_frames_keep_others_at_a_distance(film):
    for n in (1, 5):
        query = film.acquire(n, by=min_gap('entropy', 10))
        assert _nearest(query.uids, ['50', '0', '5']) >= 10 and query.info['gap'] == 10
        if n > 1:
            assert _nearest(query.uids, query.uids) >= 10
    film.label(query, [class_of(int(u)) for u in query.uids])
    again = film.acquire(1, by=min_gap('entropy', 10))
    assert (
        _nearest(again.uids, ['50', '0', '5', *query.uids]) == again.info['gap']
        or _nearest(again.uids, ['50', '0', '5', *query.uids]) >= 10
    )


@pytest.mark.filterwarnings('ignore::fastai_al.FastaiALWarning')
def test_the_place_of_a_labelled_frame_stays_empty(film):
    "Frames 49 and 51 are two apart, though 50 is no longer among the unlabelled ones"
    query = film.acquire(97, by=min_gap('entropy', 2))
    wide = [u for u, gap in zip(query.uids, query.columns['gap']) if gap == 2]
    assert _nearest(wide, wide) == 2 and not {'49', '51', '1', '4', '6'} & set(wide)


def test_without_a_pool_the_data_set_gives_places_or_the_query_warns():
    learn = classes_learner()  # items 0 to 19 are labelled
    with learn.no_bar():
        query = learn.acquire(1, learn.dls.test_dl(range(40)), by=min_gap('entropy', 10))
        assert query.uids[0] in map(str, range(29, 40))
        with pytest.warns(
            FastaiALWarning, match="20 of 20 labelled items, for example '0'.*sequence=names"
        ):
            learn.acquire(1, learn.dls.test_dl(range(20, 40)), by='min_gap')
        query = learn.acquire(1, learn.dls.test_dl(range(20, 40)), by='min_gap', sequence=range(40))
        assert query.uids[0] in map(str, range(29, 40))
        for sequence, says in (
            (range(30), "lacks 10 items of the pool, for example '30'"),
            ([*range(40), 3], '1 names are in it more than once'),
        ):
            with pytest.raises(ValueError, match=says):
                learn.acquire(1, learn.dls.test_dl(range(20, 40)), by='min_gap', sequence=sequence)
        unnamed = DataLoader(TensorDataset(torch.randn(30, 6)), 8)
        with pytest.warns(FastaiALWarning, match='20 of 20 labelled items'):
            assert len(learn.acquire(3, unnamed, by='min_gap')) == 3


def test_a_query_shows_itself(learn, monkeypatch):
    query = learn.acquire(3, as_pool(learn))
    assert (
        list(query.to_df().columns)
        == ['score', 'prediction', 'index', 'stands_for', 'nearer']
        + ['second', 'confidence', 'margin', 'why']
        and 'MCDropout' in query._repr_html_()
        and len(query) == 3
    )
    shown = []
    monkeypatch.setattr('IPython.display.display', shown.append)
    query.show()
    assert len(shown) == 1 and len(shown[0]) == 3 or not shown


RESIDENT = r"""
import re, sys, torch
from pathlib import Path
from torch import nn
from fastai.basics import DataLoaders, Learner
from fastai.data.core import TfmdDL
import fastai_al.acquire.acquire  # noqa: F401 (it adds methods)
from fastai_al.posterior.dropout import MCDropout

class Items:
    def __init__(self, n): self.n = n
    def __len__(self): return self.n
    def __getitem__(self, i): return (torch.full((8,), i / self.n),)

def peak():   # MB
    return int(re.search(r'VmHWM:\s+(\d+)', Path('/proc/self/status').read_text())[1]) / 1024
torch.set_num_threads(1)
dl = TfmdDL(Items(int(sys.argv[1])), bs=1000, num_workers=0)
net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(.5), nn.Linear(32, 10))
learn = Learner(DataLoaders(dl, dl), net, nn.CrossEntropyLoss(), cbs=MCDropout(k=20))
Path('/proc/self/clear_refs').write_text('5')   # forget the peak that the imports had
before = peak()
with learn.no_bar(): learn.acquire(20, dl)
print(peak() - before)
"""


class Counting(nn.Module):
    "Counts its calls, and sums what it has seen, in buffers of several kinds"

    def __init__(self):
        super().__init__()
        for name, b in dict(
            calls=torch.tensor(0), seen=torch.zeros(2, 3), least=torch.full((3,), math.nan)
        ).items():
            self.register_buffer(name, b)

    def forward(self, x):
        self.calls += 1
        self.seen += x.sum()
        self.least[0] = x.min()
        return x


def test_buffers_that_change_in_a_pass_are_put_back():
    learn = classes_learner(nn.Sequential(Counting(), mlp()))
    state = {name: b.clone() for name, b in learn.model.named_buffers()}
    for _ in pool_pass(learn, learn.dls.valid, MCDropout(k=3)):
        for name, b in learn.model.named_buffers():
            torch.testing.assert_close(b, state[name], rtol=0, atol=0, equal_nan=True)
    assert (
        learn.model[0].calls == 0
        and learn.model(torch.ones(2, 6)) is not None
        and learn.model[0].calls == 1
    )


def test_a_learner_is_put_back_whatever_became_of_its_buffers():
    learn = classes_learner(nn.Sequential(Counting(), mlp()))
    was = torch.get_rng_state()
    with pytest.raises(KeyError, match='the real error'), preserved(learn):
        learn.model[0].seen.resize_(7)
        learn.model[0].least.data = torch.zeros(5)
        learn.model.eval()
        learn.foo = 1
        torch.rand(3)
        learn.cbs.items = tuple(learn.cbs.items)
        raise KeyError('the real error')
    assert (
        learn.model[0].seen.tolist() == [[0.0] * 3] * 2
        and learn.model[0].least.shape == (3,)
        and learn.model.training
        and not hasattr(learn, 'foo')
    )
    assert torch.equal(torch.get_rng_state(), was)


def resident(n):
    return float(
        subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', RESIDENT, str(n)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )


@pytest.mark.skipif(sys.platform != 'linux', reason='Linux tells the peak of memory')
def test_memory_does_not_grow_with_the_pool():
    """MB of resident memory that a pass adds, with 10 thousand items and with 120 thousand,
    whose draws are 88 MB more"""
    assert resident(120_000) - resident(10_000) < 50


class Broken:
    "Getter that fails for some items"

    def __init__(self, *bad):
        self.bad = bad

    def __call__(self, i):
        if int(i) in self.bad:
            raise OSError(f'no picture in {i}')
        return features_of(i)


def broken_dl(learn, *bad, n: int = 40, **kwargs):
    dl = learn.dls.test_dl(list(range(n)), **kwargs)
    dl.dataset.tls[0].tfms.fs[0] = Transform(Broken(*bad))
    return dl


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('bad', [[0], [39], [8, 9, 17], range(0, 40, 2), range(39)])
def test_what_can_not_be_read_is_left_out_and_reported(bad, workers):
    learn = classes_learner(mlp(), cbs=MCDropout(k=4))
    rest = [i for i in range(40) if i not in bad]
    with learn.no_bar():
        dl = broken_dl(learn, *bad, num_workers=workers)  # a new DataLoader draws a random number
        before = everything(learn)
        query = learn.acquire(len(rest), dl, by='bald', skip=True)
        assert_same(everything(learn), before)
        whole = learn.acquire(len(rest), learn.dls.test_dl(rest), by='bald')
    assert (
        query.skipped == {str(i): f'OSError: no picture in {i}' for i in bad}
        and query.uids == whole.uids
        and query.info['pool'] == len(rest)
    )
    np.testing.assert_allclose(query.scores, whole.scores, rtol=1e-5)


@pytest.mark.parametrize(
    'by',
    [
        'auto',
        'epig',
        'kcenter',
        'batchbald',
        'power_bald',
        'entropy',
        'badge',
        'clasp_pe',
        'foreground_random',
    ],
)
def test_every_kind_of_strategy_can_skip(by):
    learn = classes_learner(mlp(), cbs=MCDropout(k=4))
    with learn.no_bar():
        query = learn.acquire(3, broken_dl(learn, 0, 1, 20), by=by, skip=True, seed=2)
        whole = learn.acquire(
            3, learn.dls.test_dl([i for i in range(40) if i not in (0, 1, 20)]), by=by, seed=2
        )
    assert query.uids == whole.uids and set(query.skipped) == {'0', '1', '20'}


class Read(Broken):
    "Getter that records which items it read"

    def __init__(self, *bad):
        super().__init__(*bad)
        self.asked = []

    def __call__(self, i):
        self.asked.append(int(i))
        return super().__call__(i)


def read_by(by, *bad, **kwargs):
    """A query, the items that were read for it in order, and how often the network was called,
    one draw of one item at a time"""
    learn, calls = classes_learner(mlp(), cbs=MCDropout(k=7, draw_batch=1)), []
    learn.model.register_forward_hook(lambda *_: calls.append(1))
    with learn.no_bar():
        dl = learn.dls.test_dl(list(range(40)), bs=40)
        dl.dataset.tls[0].tfms.fs[0] = Transform(getter := Read(*bad))
        query = learn.acquire(3, dl, by=by, **kwargs)
    return query, getter.asked, len(calls)


def test_random_sampling_reads_only_what_it_selects():
    query, asked, _ = read_by('random', seed=2)
    assert (
        set(asked) == set(query.indices)
        and query.info['pool'] == query.info['candidates'] == 40
        and query.info['k'] == 7
    )
    keys = torch.tensor([key_of(str(i), 2) for i in range(40)])
    assert (
        query.indices
        == ACQUISITION['random'](torch.zeros(40, 1, 1), keys=keys, seed=2)
        .argsort(descending=True)[:3]
        .tolist()
    )
    first, second, third = query.indices
    skipping, asked, _ = read_by('random', first, third, seed=2, skip=True)
    assert (
        skipping.indices[0] == second
        and set(skipping.skipped) == {str(first), str(third)}
        and len(set(asked)) == 5
        and skipping.info['pool'] == 38
    )
    other, _, _ = read_by(
        'random', *set(range(40)) - set(query.indices), seed=2
    )  # what it does not take may be broken
    assert other.indices == query.indices
    with pytest.raises(ValueError, match=f"'{first}' cannot be read.*skip=True"):
        read_by('random', first, seed=2)
    with pytest.raises(ValueError, match='n=3, but only 2 of 40 items can be read'):
        read_by('random', *range(38), seed=2, skip=True)


@pytest.mark.parametrize(
    'by, draws',
    [
        ('kcenter', False),
        ('typiclust', False),
        ('max_herding', False),
        ('probcover', False),
        ('random', False),
        (stochastic('random'), False),
        ('bald', True),
        ('badge', True),
        ('entropy', True),
    ],
)
def test_a_strategy_that_needs_no_draws_gets_none(by, draws):
    query, _, calls = read_by(by)
    assert (
        len(query.predictions) == 3 and (calls > 40 * 7) == draws
    )  # the predictions of what was taken are means over draws, always


@pytest.mark.parametrize(
    'n, bad, skip, by, message',
    [
        (3, [17], False, 'bald', "'17' cannot be read, OSError: no picture in 17.*skip=True"),
        (5, range(36), True, 'bald', 'n=5, but only 4 of 40 items can be read'),
        (5, range(40), True, 'bald', 'only 0 of 40'),
        (5, range(40), True, 'random', 'only 0 of 40'),
        (5, range(40), True, 'auto', 'None of the 40'),
    ],
)
def test_what_can_not_be_read_is_named(n, bad, skip, by, message):
    learn = classes_learner(mlp(), cbs=MCDropout(k=4))
    with learn.no_bar():
        dl = broken_dl(learn, *bad)
        before = everything(learn)
        with pytest.raises(ValueError, match=message):
            learn.acquire(n, dl, by=by, skip=skip)
        assert_same(everything(learn), before)


def test_an_error_that_is_no_items_is_the_batchs_own():
    learn = classes_learner(mlp(), cbs=MCDropout(k=4))

    def fails(b):
        raise ArithmeticError('in the batch')

    with pytest.raises(ArithmeticError, match='in the batch'), learn.no_bar():
        learn.acquire(
            3, learn.dls.test_dl(list(range(20)), before_batch=[fails]), by='bald', skip=True
        )


def test_draws_and_a_pytorch_loader_skip():
    learn = classes_learner(mlp(), cbs=MCDropout(k=4))

    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return 20

        def __getitem__(self, i):
            return (Broken(3, 4, 19)(i),)

    with learn.no_bar():
        draws = learn.draws(torch.utils.data.DataLoader(Rows(), 8), skip=True)
        found = draws.collect()
        assert (
            found.indices
            == [i for i in range(20) if i not in (3, 4, 19)]
            == draws.collect().indices
        )
        with pytest.raises(ValueError, match="'3' cannot be read"):
            learn.draws(torch.utils.data.DataLoader(Rows(), 8)).collect()
    assert set(draws.skipped) == {'3', '4', '19'}


def test_a_model_without_parameters():
    learn = classes_learner(nn.Sequential(nn.Flatten(), nn.Dropout(0.5)))
    with learn.no_bar():
        query = learn.acquire(
            2, learn.dls.test_dl(list(range(5))), by='bald', posterior=MCDropout(3)
        )
    assert len(set(query.uids)) == 2 and (query.scores > 0).all()


def test_a_strategy_of_ones_own_that_needs_no_draws(learn):
    try:

        @acquisition(min_draws=0)
        def by_key(log_probs, *, keys=None):
            return keys.double() / 2**63

        query = learn.acquire(3, learn.dls.test_dl(list(range(20))), by='by_key')
    finally:
        ACQUISITION.pop('by_key', None)
    keys = [key_of(str(i)) for i in range(20)]
    assert query.indices == sorted(range(20), key=lambda i: -keys[i])[:3]
