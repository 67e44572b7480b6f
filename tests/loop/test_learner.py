"Rounds: ask, label, grow, start cold, go on weeks later"

import pickletools
import warnings
import zipfile

import fastai.callback.schedule  # noqa: F401 (it adds `lr_find`)
import numpy as np
import pandas as pd
import pytest
import torch
from fastai.basics import (
    CategoryBlock,
    DataBlock,
    L,
    Learner,
    Transform,
    TransformBlock,
    accuracy,
    load_learner,
    set_seed,
)
from fastai.losses import CrossEntropyLossFlat
from fastai.vision.all import ImageBlock, PILImageBW
from PIL import Image

from conftest import (
    BLOCK,
    XOf,
    as_pool,
    assert_same,
    class_of,
    classes_learner,
    everything,
    mlp,
    pool_learner,
    small_pool,
)
from fastai_al import FastaiALWarning
from fastai_al.active_learner import ActiveLearner
from fastai_al.evaluation.calibrate import Temperature
from fastai_al.lab.campaign import SkipValidation
from fastai_al.lab.next_round import SimulateMixin
from fastai_al.lab.simulate import simulate
from fastai_al.loop.active_test import ActiveTestMixin
from fastai_al.loop.forecast import ForecastMixin
from fastai_al.loop.learner import AcquireCallback, AcquireMixin, TriageMixin
from fastai_al.loop.stopping import StabilisingPredictions
from fastai_al.pool.pool import Pool
from fastai_al.posterior.dropout import MCDropout


def oracle(uids):
    return [class_of(u) for u in uids]


@pytest.fixture
def learn():
    pool = small_pool()
    learn = ActiveLearner(pool_learner(pool), pool)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
        yield learn


def test_a_round(learn):
    query = learn.acquire(5)
    assert set(query.uids) <= set(learn.pool.unlabelled.index) and learn.pool.round == 1
    assert learn.label(query, oracle) == 5
    assert len(learn.dls.train_ds) == 25 and dict(learn.pool.labelled.loc[query.uids, 'label']) == {
        u: class_of(u) for u in query.uids
    }
    events = learn.pool.history.query("kind == 'acquire'")
    assert (
        list(events.uid) == query.uids
        and np.allclose(events.score.astype(float), query.scores)
        and set(events.source) == {query.info['acquisition']} == {'uncertainty_herding'}
    )
    assert not set(learn.acquire(5).uids) & set(query.uids)


def test_acquire_leaves_the_learner_as_it_was(learn):
    before = everything(learn.learn)
    learn.acquire(5)
    assert_same(everything(learn.learn), before)


def test_the_query_does_not_depend_on_the_order_of_the_pool():
    def queried(items):
        pool = Pool(items)
        for uids in (pool.draw_holdout(10), pool.sample(20)):
            pool.label(uids, oracle(uids))
        set_seed(3)
        learn = ActiveLearner(pool_learner(pool), pool)
        learn.learn.model.load_state_dict(weights)
        with learn.no_bar():
            return learn.acquire(6).uids

    weights = mlp().state_dict()
    assert queried(range(60)) == queried(range(59, -1, -1))


@pytest.mark.parametrize(
    'labels, n',
    [
        (lambda q: oracle(q.uids), 4),
        (lambda q: dict(zip(q.uids, oracle(q.uids))), 4),
        (lambda q: oracle, 4),
        (lambda q: [None, *oracle(q.uids[1:])], 3),
        (lambda q: {q.uids[2]: 0}, 1),
        (lambda q: lambda uids: [None] * 4, 0),
    ],
)
def test_answers_may_come_in_many_ways(learn, labels, n):
    query = learn.acquire(4)
    assert learn.label(query, labels(query)) == n and len(learn.dls.train_ds) == 20 + n


def test_answers_may_be_keyed_by_what_a_person_would_write(learn):
    query = learn.acquire(4)
    assert learn.label(query, {int(u): class_of(u) for u in query.uids}) == 4
    with pytest.raises(ValueError, match='None of the labels'):
        learn.label(learn.acquire(2), {'nobody': 0})
    assert learn.label(pd.DataFrame(index=query.uids[:2]), [0, 1]) == 2


@pytest.mark.parametrize(
    'labels, error',
    [
        ([0, 1], ValueError),
        ([0, 1, 2, 9], ValueError),
        ([0, 1, 2, 'x'], ValueError),
        ([0, 1, 2, object()], TypeError),
    ],
)
def test_bad_answers_write_nothing(learn, labels, error):
    query = learn.acquire(4)
    n = len(learn.pool.history)
    with pytest.raises(error):
        learn.label(query, labels)
    assert len(learn.pool.history) == n and len(learn.dls.train_ds) == 20


def test_labels_from_elsewhere_are_taken_up(learn):
    learn.pool.label(learn.pool.unlabelled.index[:3], [0, 1, 2])
    assert learn.grow() == 3 and len(learn.dls.train_ds) == 23


def test_reset_is_a_cold_start():
    pool = small_pool()
    learn = ActiveLearner(pool_learner(pool), pool)
    before = {n: t.clone() for n, t in learn.model.state_dict().items()}

    def fitted():
        set_seed(5)
        learn.dls.train.rng.seed(5)
        with learn.no_bar(), learn.no_logging():
            learn.reset().fit(2)
        return learn.model.state_dict()['0.weight'].clone()

    one = fitted()
    assert not torch.equal(one, before['0.weight']) and torch.equal(one, fitted())
    learn.reset()
    for n, t in learn.model.state_dict().items():
        assert torch.equal(t, before[n])
    assert learn.opt is None


def test_it_is_a_learner(learn):
    learn.lr = 0.5
    assert learn.learn.lr == 0.5 and 'lr' not in vars(learn)
    assert len(learn.get_preds()) == 2 and learn.loss_func is learn.learn.loss_func
    assert (
        learn.acquire(2, as_pool(learn)).info['pool'] == 10 and learn.pool.round == 0
    )  # any other DataLoader is no round


def test_methods_that_return_the_learner_return_this_one(learn):
    assert learn.to_fp32() is learn and learn.add_cb(MCDropout(k=2)) is learn


def test_pseudo_labels_stay_in_the_training_set():
    pool = small_pool()
    pool.add_pseudo(pool.unlabelled.index[:7], [0] * 7)
    learn = ActiveLearner(
        Learner(
            pool.dataloaders(BLOCK, bs=8, pseudo=True, num_workers=0),
            mlp(),
            metrics=accuracy,
            cbs=MCDropout(k=3),
        ),
        pool,
    )
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
        learn.label(learn.acquire(3), oracle)
    assert len(learn.dls.train_ds) == 30


def test_a_metric_that_is_no_number_does_not_cost_the_query(learn):
    learn.recorder.values[-1] = L([0.5, float('inf'), np.array([1.0, 2.0])])
    assert len(learn.acquire(3)) == 3
    assert learn.history.iloc[0][['train_loss', 'valid_loss', 'accuracy']].tolist() == [
        0.5,
        None,
        None,
    ]


def test_reset_brings_back_what_was_frozen():
    pool = small_pool()
    learner = pool_learner(pool)
    for p in learner.model[0].parameters():
        p.requires_grad_(False)
    learn = ActiveLearner(learner, pool)
    for p in learner.model.parameters():
        p.requires_grad_(True)
    learn.reset()
    assert [p.requires_grad for p in learner.model.parameters()] == [
        False,
        False,
        True,
        True,
        True,
        True,
    ]


def test_an_export_leaves_the_ledger_at_home(learn, tmp_path):
    from fastai.learner import load_learner

    learn.add_cb(AcquireCallback(3, pool=learn.pool, oracle=oracle))
    learn.export(tmp_path / 'x.pkl')
    assert len(load_learner(tmp_path / 'x.pkl').predict(3)) == 3


def test_history_lists_the_rounds_and_survives(tmp_path):
    pool = small_pool(db=tmp_path / 'a.db')
    learn = ActiveLearner(pool_learner(pool), pool)
    with learn.no_bar(), learn.no_logging():
        for _ in range(2):
            learn.fit(1)
            learn.label(learn.acquire(5), oracle)
        learn.fit(1)
    told = learn.history
    assert (
        list(told['labelled']) == [20, 25, 30]
        and list(told['acquired'].iloc[:2]) == [5, 5]
        and told['accuracy'].notna().all()
    )
    pool.close()
    again = Pool.open(tmp_path / 'a.db')
    resumed = ActiveLearner(pool_learner(again), again).history
    pd.testing.assert_frame_equal(
        resumed.iloc[:2][['labelled', 'accuracy']], told.iloc[:2][['labelled', 'accuracy']]
    )
    assert list(resumed['labelled']) == [20, 25, 30]


@pytest.mark.parametrize(
    'make, error, says',
    [
        (lambda: ActiveLearner('learner', small_pool()), TypeError, 'is not a fastai Learner'),
        (lambda: ActiveLearner(classes_learner(), small_pool()), ValueError, 'pool.dataloaders'),
        (
            lambda: ActiveLearner(pool_learner(small_pool()), Pool(['other'])),
            ValueError,
            'another pool',
        ),
        (lambda: AcquireCallback(0, pool=small_pool(), oracle=oracle), ValueError, 'n=0'),
        (
            lambda: AcquireCallback(3, every=0, pool=small_pool(), oracle=oracle),
            ValueError,
            'every=0',
        ),
    ],
)
def test_what_can_not_be_wrapped_is_refused(make, error, says):
    with pytest.raises(error, match=says):
        make()


def test_an_empty_pool_has_nothing_left_to_query(learn):
    rest = learn.pool.unlabelled.index
    learn.pool.label(rest, oracle(rest))
    with pytest.raises(ValueError, match='No unlabelled item is left'):
        learn.acquire(1)
    with pytest.raises(ValueError, match='to choose from is'):
        learn.pool.retract(rest[:2]) or learn.acquire(3)


# Inside fit


def test_the_callback_queries_between_epochs_and_trains_on(learn):
    asking = AcquireCallback(4, every=2, pool=learn.pool, oracle=oracle, by='entropy')
    learn.fit(5, cbs=asking)
    assert (
        [q.info['pool'] for q in asking.queries] == [30, 26]
        and len(learn.dls.train_ds) == 28
        and learn.pool.round == 2
    )
    assert len(learn.recorder.values) == 5 and callable(learn.learn.acquire)


def test_the_callback_makes_no_query_during_lr_find(learn):
    asking = AcquireCallback(4, pool=learn.pool, oracle=oracle)
    learn.add_cb(asking)
    learn.lr_find(num_it=8, show_plot=False)
    assert not asking.queries and learn.pool.round == 0


def test_the_callback_takes_what_is_left_and_then_stops(learn):
    asking = AcquireCallback(25, pool=learn.pool, oracle={str(i): class_of(i) for i in range(60)})
    learn.fit(4, cbs=asking)
    assert [len(q) for q in asking.queries] == [25, 5] and not len(learn.pool.unlabelled)


def test_a_failing_oracle_loses_no_earlier_answer(learn):
    calls = []

    def tired(uids):
        calls.append(uids)
        if len(calls) == 2:
            raise RuntimeError('gone home')
        return oracle(uids)

    with pytest.raises(RuntimeError, match='gone home'):
        learn.fit(4, cbs=AcquireCallback(4, pool=learn.pool, oracle=tired))
    assert len(learn.pool.labelled) == 24 and len(learn.dls.train_ds) == 24


def test_what_can_not_be_read_is_ignored_with_the_reason():
    class Lost(XOf):
        def __call__(self, i):
            if int(i) in (3, 50):
                raise FileNotFoundError(f'picture {i} is gone')
            return super().__call__(i)

    pool = Pool(range(60))
    readable = [i for i in range(60) if i not in (3, 50)]
    pool.label(readable[:20], [class_of(u) for u in readable[:20]])
    with pytest.warns(FastaiALWarning, match='Nothing validates'):
        dls = pool.dataloaders(
            DataBlock((TransformBlock, CategoryBlock(vocab=[0, 1, 2])), get_x=Lost()),
            bs=8,
            num_workers=0,
        )
    learn = ActiveLearner(Learner(dls, mlp(), CrossEntropyLossFlat(), cbs=MCDropout(k=4)), pool)
    with learn.no_bar():
        with pytest.raises(
            ValueError,
            match=r'cannot be read, FileNotFoundError: picture.*moved: Pool.open\(db, '
            r'root=folder\)',
        ):
            learn.acquire(5)
        assert pool.round == 0 and not len(pool.ignored)
        query = learn.acquire(5, skip=True)
        assert (
            set(query.skipped) == {'3', '50'} == set(pool.ignored.index)
            and pool.ignored.source.unique() == ['reader']
            and 'picture 3 is gone' in pool.ignored.note['3']
        )
        assert not learn.acquire(5, skip=True).skipped


def test_answers_may_be_named_by_any_path_of_the_item(tmp_path):
    for i in range(8):
        Image.new('L', (4, 4), 30 * i).save(tmp_path / f'{i}.png')
    pool = Pool.from_folder(tmp_path)
    pool.label(['0.png', '1.png', '2.png', '3.png'], ['a', 'b'] * 2)
    with pytest.warns(FastaiALWarning, match='Nothing validates'):
        dls = pool.dataloaders(
            DataBlock((ImageBlock(PILImageBW), CategoryBlock(vocab=['a', 'b']))),
            bs=2,
            num_workers=0,
        )
    learn = ActiveLearner(Learner(dls, mlp(), CrossEntropyLossFlat()), pool)
    assert (
        learn.label(
            ['4.png', '5.png', '6.png'],
            {'4.png': 'a', str(tmp_path / '5.png'): 'b', tmp_path / '6.png': 'a'},
        )
        == 3
    )
    assert dict(pool.labelled.label[-3:]) == {'4.png': 'a', '5.png': 'b', '6.png': 'a'}


def test_a_missing_mask_is_found_and_ignored(tmp_path):
    class Mask(Transform):
        def encodes(self, path: str):
            return torch.tensor(int((tmp_path / path).read_text()))

    (tmp_path / 'm').write_text('1')
    pool = Pool(range(10), ['m', 'm', 'gone', 'm'] + [None] * 6)
    with pytest.warns(FastaiALWarning):
        dls = pool.dataloaders(
            DataBlock((TransformBlock, TransformBlock(type_tfms=Mask())), get_x=XOf()),
            bs=2,
            num_workers=0,
        )
    assert list(pool.unreadable(dls).index) == ['2'] and len(pool.labelled) == 4
    assert 'FileNotFoundError' in pool.unreadable(dls, ignore=True)['2'] and list(
        pool.labelled.index
    ) == ['0', '1', '3']
    assert (
        pool.grow(dls) == -1 and sum(len(y) for _, y in dls.train) == 2
    )  # three make a batch of one, which is dropped


# What an exported learner names: from the first published version on these have to stay
CALLBACKS = {
    'fastai_al.evaluation.calibrate Temperature',
    'fastai_al.loop.learner AcquireCallback',
    'fastai_al.loop.rounds RoundsCallback',
    'fastai_al.posterior.dropout MCDropout',
    'fastai_al.triage.assumptions RecordTrackers',
}
READERS = {'fastai_al.pool.readers ReadItem', 'fastai_al.pool.readers ReadLabel'}


def names_in(file) -> set:
    "The classes and functions of this library that a file of torch.save names"
    with zipfile.ZipFile(file) as parts:
        (name,) = [n for n in parts.namelist() if n.endswith('data.pkl')]
        code, said = list(pickletools.genops(parts.read(name))), set()
    texts = []
    for op, value, _ in code:
        if op.name == 'GLOBAL':
            said.add(value)
        elif op.name == 'STACK_GLOBAL':
            said.add(' '.join(texts[-2:]))
        elif 'UNICODE' in op.name:
            texts.append(value)
    return {n for n in said if n.startswith('fastai_al')}


def test_an_exported_learner_is_loaded_by_the_names_of_this_version(tmp_path):
    pool = small_pool()
    learn = ActiveLearner(pool_learner(pool), pool)
    learn.add_cb(AcquireCallback(2, pool=pool, oracle=oracle))
    with learn.no_bar(), learn.no_logging():
        learn.fit(2)
        learn.add_cb(Temperature(1.5))
        before = learn.get_preds(dl=learn.dls.test_dl(pool.rows.iloc[:5]))[0]
    learn.export(tmp_path / 'learner.pkl')
    assert names_in(tmp_path / 'learner.pkl') == CALLBACKS | READERS
    loaded = load_learner(tmp_path / 'learner.pkl')
    assert type(loaded) is type(learn.learn)
    with loaded.no_bar():
        after = loaded.get_preds(dl=loaded.dls.test_dl(pool.rows.iloc[:5]))[0]
    assert torch.equal(before, after)
    assert {f'{type(cb).__module__} {type(cb).__name__}' for cb in loaded.cbs} >= CALLBACKS
    assert loaded.rounds.pool is None  # a ledger stays at home


# Mixins in a Learner class of one's own


class Small(ForecastMixin, ActiveTestMixin, TriageMixin, AcquireMixin, Learner):
    "A learner with four mixins, and a method of its own"

    def twice(self):
        return self.fit(1) or self.fit(1)


class Simulated(SimulateMixin, Learner):
    pass


def small_learner(cls=Small, pool=None):
    pool = pool or small_pool()
    return cls(*_parts(pool), metrics=accuracy, pool=pool)


def _parts(pool):
    made = pool_learner(pool)
    return made.dls, made.model, made.loss_func


def test_a_learner_class_of_ones_own_takes_mixins():
    learn = small_learner()
    assert isinstance(learn, Learner) and not hasattr(learn, 'report')
    weights = {k: v.clone() for k, v in learn.model.state_dict().items()}
    with learn.no_bar(), learn.no_logging():
        learn.twice()
        query = learn.acquire(4)
        assert learn.pool.round == 1 and learn.acquire(4).uids == query.uids
        assert learn.label(query, oracle) == 4
        learn.twice()
        assert learn.history['labelled'].tolist()[1] == learn.history['labelled'].tolist()[0] + 4
        test = learn.active_test(6)
        learn.label(test, oracle)
        assert learn.test_loss().labels == 6
        assert StabilisingPredictions()(learn) is None
        with pytest.raises(ValueError, match='needs 5'):
            learn.forecast(0.9)
    assert learn.reset() is learn
    assert all(torch.equal(v, weights[k]) for k, v in learn.model.state_dict().items())


def test_mixins_give_what_the_wrapper_gives():
    own, wrapped = small_learner(), ActiveLearner(pool_learner(pool := small_pool()), pool)
    found = []
    for learn in (own, wrapped):
        with learn.no_bar(), learn.no_logging():
            set_seed(0)
            learn.reset()
            for p in learn.model.parameters():
                torch.nn.init.constant_(p, 0.1)
            query = learn.acquire(5, by='entropy')
            triage = learn.triage(0.9)
            found.append((query.uids, list(query.scores), triage.frame.decision.to_dict()))
    assert found[0] == found[1]


def test_calibration_with_a_mixin_is_that_of_the_pool():
    learn = small_learner()
    with learn.no_bar(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        learn.calibrate()
        assert learn.pool.ledger['calibration']
        learn.calibrate(learn.dls.valid)


def test_an_exported_learner_with_mixins_leaves_the_pool_out(tmp_path):
    learn = small_learner()
    learn.path = tmp_path
    learn.export('x.pkl')
    loaded = load_learner(tmp_path / 'x.pkl')
    assert type(loaded) is Small and 'pool' not in vars(loaded)
    assert learn.pool is not None and '_initial' in vars(learn)


def test_a_simulation_goes_on_in_a_learner_class_of_ones_own():
    def fit(learn):
        learn.fit(1, cbs=SkipValidation())

    known = Pool(range(60), [class_of(i) for i in range(60)])
    args = dict(by='random', n=4, rounds=1, seeds=1, initial=12, holdout=12, fit=fit)
    campaigns = simulate(lambda pool: small_learner(Simulated, pool), known, **args)
    learn = Simulated.from_simulation(campaigns, pool := small_pool())
    assert type(learn) is Simulated and learn.pool is pool
    with learn.no_bar(), learn.no_logging():
        assert len(learn.next_round()) == 4
    with pytest.raises(TypeError, match='make_learner returned a Learner, not a Simulated'):
        Simulated.from_simulation(simulate(pool_learner, known, **args), small_pool())


def test_a_learner_with_mixins_checks_its_pool():
    with pytest.raises(ValueError, match='pool'):
        Small(*_parts(small_pool()), pool=Pool(range(10)))
