"""When it is enough: reasons and numbers, what counts as a round, what is kept in the ledger,
and labels that nobody may look at"""

import pickle
import re
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import sklearn.metrics as skm
import torch
from fastai import metrics
from fastai.basics import (
    CategoryBlock,
    DataBlock,
    Learner,
    MSELossFlat,
    MultiCategoryBlock,
    RegressionBlock,
    TransformBlock,
)
from fastai.callback.progress import ProgressCallback
from fastai.learner import AvgMetric
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat
from fastai.torch_core import set_seed
from sklearn.metrics import cohen_kappa_score

import fastai_al.inference.predict  # noqa: F401 (it adds methods)
from conftest import (
    PixelsOf,
    Segmenter,
    XOf,
    assert_same,
    class_of,
    everything,
    features_of,
    mlp,
    pool_learner,
    small_pool,
)
from fastai_al import FastaiALWarning
from fastai_al.active_learner import ActiveLearner
from fastai_al.loop import stopping
from fastai_al.loop.metrics import (
    _direction_by_name,
    is_higher_better,
    is_higher_better_for,
    metric_of,
)
from fastai_al.loop.stopping import (
    AllOf,
    AnyOf,
    Budget,
    Plateau,
    StabilisingPredictions,
    UncertaintyLeft,
    _agreement,
)
from fastai_al.pool.draw import shuffled_unlabelled
from fastai_al.pool.oracle import Oracle
from fastai_al.pool.pool import Pool
from fastai_al.posterior.dropout import MCDropout

ALL = [
    StabilisingPredictions(rounds=1, threshold=0.01),
    Plateau(rounds=1),
    Budget(labels=30),
    UncertaintyLeft(below=5.0),
]


def active(**kwargs) -> ActiveLearner:
    pool = small_pool(**kwargs)
    learn = ActiveLearner(pool_learner(pool), pool)
    learn.remove_cbs([cb for cb in learn.cbs if isinstance(cb, ProgressCallback)])
    return learn


def nudge(learn, by: float = 1.0):
    "Another model, as a fit would leave it"
    with torch.no_grad():
        for p in learn.model.parameters():
            p += by * torch.randn_like(p)


def next_round(learn, n: int = 4, truth=class_of, fit: bool = True):
    query = shuffled_unlabelled(learn.pool, n, 3)[:n]
    learn.label(query, [truth(u) for u in query])
    if fit:
        nudge(learn)


def yes(reason):
    return lambda learn: reason


# Composing


def test_any_and_all():
    learn, no = active(), lambda learn: None

    def of(criterion):
        return criterion(learn)

    budget = Budget(labels=1)
    told = of(budget)
    assert (
        of(budget | no) == of(no | budget) == told == 'the budget is spent: 30 labels given, of 1'
    )
    assert (
        of(budget & no) is None and of(no & budget) is None and of(Budget(labels=999) | no) is None
    )
    assert (
        of(budget & yes('b')) == of(budget | yes('b')) == f'{told}; b'
        and of(yes('b') & budget) == f'b; {told}'
    )
    assert of(Budget(labels=999) & no | yes('c')) == 'c' and of((budget | no) & no) is None


def test_how_they_are_written():
    a, b, c = Budget(labels=1), Budget(seconds=2.0), UncertaintyLeft(0.5)
    assert (
        repr(a | b) == 'Budget(labels=1, seconds=None) | Budget(labels=None, seconds=2.0)'
        and type(a | b) is AnyOf
        and type(a & b) is AllOf
    )
    assert len((a | b | c).parts) == 3 and repr((a | b) & c) == f'({a!r} | {b!r}) & {c!r}'
    assert (
        repr(UncertaintyLeft(0.5, by=class_of))
        == 'UncertaintyLeft(below=0.5, by=class_of, items=2000)'
    )
    for criterion in (a | b & c, *ALL):
        assert pickle.loads(pickle.dumps(criterion)) == criterion


def test_each_part_is_called_each_time():
    asked = []

    def part(name, said):
        return lambda learn: asked.append(name) or said

    learn = active()
    (Budget(labels=1) | part('a', 'yes') | part('b', None))(learn)
    (part('c', None) & Budget(labels=999) & part('d', None))(learn)
    assert asked == ['a', 'b', 'c', 'd']


def test_what_is_no_criterion():
    learn = active()
    for bad in (3, None, 'stop'):
        with pytest.raises(TypeError, match='no stopping criterion'):
            Budget(labels=1) | bad
    with pytest.raises(TypeError, match='returned True'):
        (Budget(labels=1) | yes(True))(learn)
    with pytest.raises(TypeError, match='Pass an ActiveLearner'):
        Budget(labels=1)(learn.learn)


@pytest.mark.parametrize(
    'make, message',
    [
        (lambda: Budget(), 'no limit'),
        (lambda: Budget(labels=0), 'labels=0'),
        (lambda: Budget(labels=2.5), 'labels=2.5'),
        (lambda: Budget(seconds=-1), 'seconds=-1'),
        (lambda: Plateau(rounds=0), 'rounds=0'),
        (lambda: Plateau(rounds=True), 'rounds=True'),
        (lambda: Plateau(min_gain=-0.1), 'min_gain=-0.1'),
        (lambda: Plateau(min_gain=float('nan')), 'min_gain=nan'),
        (lambda: Plateau(higher_is_better='down'), "higher_is_better='down'"),
        (lambda: StabilisingPredictions(threshold=0), 'threshold=0'),
        (lambda: StabilisingPredictions(threshold=1.1), 'threshold=1.1'),
        (lambda: StabilisingPredictions(items=0), 'items=0'),
        (lambda: UncertaintyLeft(float('nan')), 'below=nan'),
        (lambda: UncertaintyLeft(1, items=-3), 'items=-3'),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# All of them


@pytest.mark.parametrize(
    'criterion', [*ALL, ALL[0] & ALL[1] & ALL[2] | ALL[3]], ids=lambda c: type(c).__name__
)
def test_nothing_is_left_behind(criterion):
    learn = active()
    learn.fit(1)
    criterion(learn)
    next_round(learn)
    before, weights = everything(learn.learn), [p.clone() for p in learn.model.parameters()]
    criterion(learn)
    assert_same(everything(learn.learn), before)
    assert all(torch.equal(a, b) for a, b in zip(learn.model.parameters(), weights))


@pytest.mark.parametrize('criterion', ALL, ids=lambda c: type(c).__name__)
def test_labels_that_were_not_queried_are_not_read(criterion, monkeypatch):
    learn, read = active(), []
    true_test_dl = type(learn.dls).test_dl

    def test_dl(self, items, *args, with_labels=False, **kwargs):
        read.append((set(items.index), 'label' in items, with_labels))
        return true_test_dl(self, items, *args, with_labels=with_labels, **kwargs)

    monkeypatch.setattr(type(learn.dls), 'test_dl', test_dl)
    for _ in range(2):
        criterion(learn)
        next_round(learn)
    held = set(learn.pool.holdout.index)
    assert all(not labels and not said for items, labels, said in read)
    assert all(not items & held for items, _, _ in read) and bool(read) == isinstance(
        criterion, (StabilisingPredictions, UncertaintyLeft)
    )


def test_labels_of_items_that_were_not_queried_change_no_decision():
    def campaign(truth):
        set_seed(0)
        pool = Pool(range(60))
        for uids in (pool.draw_holdout(10), pool.sample(12)):
            pool.label(uids, [truth[u] for u in uids])
        learn, said = ActiveLearner(pool_learner(pool), pool), []
        with learn.no_bar(), learn.no_logging():
            for round in range(4):
                set_seed(round)
                learn.fit(1, 1e-2)
                said.append(
                    [
                        c(learn)
                        for c in (
                            StabilisingPredictions(0.3, rounds=1),
                            Plateau(rounds=1),
                            Budget(labels=30),
                            UncertaintyLeft(1.05),
                        )
                    ]
                )
                query = learn.acquire(4, by='entropy')
                learn.label(query, [truth[u] for u in query.uids])
        return said, set(pool.labelled.index) | set(pool.holdout.index)

    truth = {str(i): class_of(i) for i in range(60)}
    said, asked = campaign(truth)
    other = {u: y if u in asked else (y + 1) % 3 for u, y in truth.items()}
    assert (
        other != truth
        and campaign(other)[0] == said
        and sum(r is not None for row in said for r in row) >= 3
    )


# What counts as a round


@pytest.fixture
def numbers(monkeypatch):
    "Let `Plateau` see these numbers"
    given = []
    monkeypatch.setattr(stopping, '_validated', lambda learn, name: given.pop(0))
    return given


def test_a_round_counts_once(numbers):
    learn, plateau = active(), Plateau(rounds=1)
    numbers += [0.5, 0.4, 0.3]
    assert (
        plateau(learn) is None and plateau(learn) is None and len(numbers) == 2
    )  # asked twice: looked once
    nudge(learn)
    assert (
        plateau(learn) is None and plateau(learn) is None
    )  # trained on with the same labels: the same round
    next_round(learn, fit=False)
    assert (
        plateau(learn) is None and len(numbers) == 1
    )  # more labels, not trained yet: nothing new to see
    nudge(learn)
    assert (
        plateau(learn)
        == plateau(learn)
        == 'accuracy has not improved by more than 0 for 1 rounds: best 0.4 before, '
        '0.3 since'
    )


def test_a_corrected_label_is_a_new_round(numbers):
    learn, plateau = active(), Plateau(rounds=1)
    numbers += [0.5, 0.5]
    plateau(learn)
    uid = learn.pool.labelled.index[0]
    learn.label([uid], [(class_of(uid) + 1) % 3])
    nudge(learn)
    assert plateau(learn) is not None


def test_other_settings_have_a_memory_of_their_own(numbers):
    learn = active()
    numbers += [0.5, 0.5, 0.5]
    one, two = Plateau(rounds=1), Plateau(rounds=1, min_gain=0.1)
    one(learn)
    next_round(learn)
    assert (
        two(learn) is None
        and one(learn) is not None
        and two(learn) is None
        and len(
            [
                k
                for (k,) in learn.pool.ledger.db.execute('SELECT key FROM settings')
                if k.startswith('stopping')
            ]
        )
        == 2
    )


def test_criteria_hold_nothing_and_may_be_shared(numbers):
    plateau, first, second = Plateau(rounds=1), active(), active()
    numbers += [0.5, 0.9, 0.5, 0.95]
    plateau(first)
    assert plateau(second) is None
    next_round(first)
    next_round(second)
    assert plateau(first) is not None and plateau(second) is None


def test_a_loop_goes_on_in_another_process(tmp_path):
    def session():
        pool = (
            Pool.open(tmp_path / 'labels.db')
            if (tmp_path / 'labels.db').exists()
            else small_pool(db=tmp_path / 'labels.db')
        )
        torch.manual_seed(0)
        return ActiveLearner(pool_learner(pool), pool)

    criterion = StabilisingPredictions(threshold=0.99, rounds=1)
    learn = session()
    with learn.no_bar():
        assert criterion(learn) is None
    query = learn.pool.sample(4)
    learn.label(query, [class_of(u) for u in query])
    learn.pool.close()
    learn = session()
    with torch.no_grad():
        next(learn.model.parameters()).mul_(1 + 1e-6)
    with learn.no_bar():
        said = criterion(learn)
    assert (
        said == 'predictions have settled: the last 2 models agree on 50 items, kappa 1.0000 on '
        'average, at least 0.99'
    )


# StabilisingPredictions


def test_kappas_are_those_of_scikit_learn():
    random = np.random.default_rng(0)
    task, a, b = (
        SimpleNamespace(name='classes', values=False),
        *random.integers(3, size=(2, 50)).tolist(),
    )
    assert (
        _agreement(task, a, b)
        == _agreement(task, [*a, None, 1], [*b, 1, None])
        == pytest.approx(cohen_kappa_score(a, b))
    )
    labels, values = (
        SimpleNamespace(name='labels', values=False),
        SimpleNamespace(name='values', values=True),
    )
    a, b = random.integers(2, size=(50, 3)), random.integers(2, size=(50, 3))
    lists = [[[c for c in 'xyz' if row['xyz'.index(c)]] for row in m] for m in (a, b)]
    assert _agreement(labels, *lists) == pytest.approx(
        np.mean([cohen_kappa_score(a[:, i], b[:, i]) for i in range(3)])
    )
    assert _agreement(values, [1.0, 2, 3], [1.0, 2, 3]) == 1 and _agreement(
        values, [[1.0, 5.0], [2.0, 6.0]], [[1.0, 6.0], [2.0, 5.0]]
    ) == pytest.approx(0)
    assert np.isnan(_agreement(values, [1.0, 1], [1.0, 1])) and np.isnan(
        _agreement(task, [1, 1], [1, 1])
    )


@pytest.fixture
def words(monkeypatch):
    "Let the models say this, one after the other"
    given = []
    monkeypatch.setattr(stopping, '_predicted', lambda learn, uids: given.pop(0))
    return given


def test_the_mean_of_the_last_rounds_counts(words):
    learn, one, other = active(), [0, 1, 2, 0, 1, 2] * 5, [0, 1, 2, 0, 1, 1] * 5
    words += [other[::-1], one, other, one, one]
    kappa = cohen_kappa_score(one, other)
    criteria, said = StabilisingPredictions(threshold=(kappa + 1) / 2 - 1e-9, rounds=2), []
    for i in range(5):
        said.append(criteria(learn))
        if i < 4:
            next_round(learn)
    assert (
        said[:4] == [None] * 4
        and f'the last 3 models agree on 50 items, kappa {(kappa + 1) / 2:.4f}' in said[4]
    )


def test_models_that_say_one_class_alone_do_not_stop_it(words):
    learn = active()
    words += [[1] * 50, [1] * 50]
    assert StabilisingPredictions(rounds=1)(learn) is None
    next_round(learn)
    assert StabilisingPredictions(rounds=1)(learn) is None


def test_the_stop_set_is_drawn_once_without_the_draw_holdout():
    learn, criterion = active(n=200, labelled=20), StabilisingPredictions(items=30)
    pool = learn.pool
    pool.ignore(gone := pool.sample(20, seed=9))
    criterion(learn)
    chosen = pool.ledger['stop set of 30']
    assert len(chosen) == len(set(chosen)) == 30 and not set(chosen) & {*pool.holdout.index, *gone}
    assert set(chosen) & set(pool.unlabelled.index) and set(chosen) != set(pool.sample(30))
    next_round(learn, 40)
    criterion(learn)
    assert pool.ledger['stop set of 30'] == chosen and set(chosen) & set(pool.labelled.index)
    swapped = Pool(range(199, -1, -1))
    swapped.draw_holdout(10)
    fresh = active(n=200, labelled=20)
    assert stopping._stop_set(fresh, 30) == stopping._stop_set(
        SimpleNamespace(pool=swapped), 30
    )  # whatever the order, and whatever is labelled


@pytest.mark.parametrize(
    'block, loss, label, measure',
    [
        (
            MultiCategoryBlock(vocab=[0, 1, 2]),
            BCEWithLogitsLossFlat(),
            lambda u: [c for c in range(3) if features_of(u)[c] > 0],
            'kappa',
        ),
        (
            RegressionBlock(n_out=3),
            MSELossFlat(),
            lambda u: features_of(u)[:3].tolist(),
            'concordance',
        ),
    ],
)
def test_labels_and_numbers(block, loss, label, measure):
    pool = Pool(range(60))
    for uids in (pool.draw_holdout(10), pool.sample(30)):
        pool.label(uids, [label(u) for u in uids])
    dls = pool.dataloaders(DataBlock((TransformBlock, block), get_x=XOf()), bs=8, num_workers=0)
    learn = ActiveLearner(Learner(dls, mlp(), loss, cbs=MCDropout(k=4)), pool)
    with learn.no_bar(), learn.no_logging():
        learn.fit(3, 1e-2)
        criterion = StabilisingPredictions(rounds=1, threshold=0.9)
        assert criterion(learn) is None
        pool.label(uids := pool.sample(2), [label(u) for u in uids])
        learn.grow()
        nudge(learn, 1e-5)
        assert f'{measure} ' in criterion(learn)
        nudge(learn, 3.0)
        assert criterion(learn) is None
        rule = 'predictive_variance' if measure == 'concordance' else 'entropy'
        assert (
            UncertaintyLeft(below=1e6, by=rule)(learn) is not None
            and UncertaintyLeft(below=0.0, by=rule)(learn) is None
        )
        assert Plateau(rounds=1)(learn) is None


def test_pixels_are_an_honest_error():
    pool = small_pool()
    dls = pool.dataloaders(
        DataBlock((TransformBlock, CategoryBlock(vocab=[0, 1, 2])), get_x=PixelsOf()),
        bs=8,
        num_workers=0,
    )
    learn = ActiveLearner(
        Learner(dls, Segmenter(), CrossEntropyLossFlat(axis=1), cbs=MCDropout(k=4)), pool
    )
    with learn.no_bar():
        with pytest.raises(ValueError, match='each pixel or box'):
            StabilisingPredictions()(learn)
        assert UncertaintyLeft(below=1.2)(learn) is not None


# Plateau


@pytest.mark.parametrize(
    'values, rounds, least, stop',
    [
        ([0.5, 0.6, 0.6], 1, 0, True),
        ([0.5, 0.6, 0.61], 1, 0, False),
        ([0.5, 0.6, 0.61], 1, 0.02, True),
        ([0.5, 0.6, 0.61, 0.62, 0.63], 3, 0.02, False),
        ([0.5, 0.6, 0.61, 0.61, 0.615], 3, 0.02, True),
        ([0.6, 0.5, 0.5, 0.5], 3, 0, True),
        ([0.6, 0.5, 0.5], 3, 0, False),
        ([0.6, 0.5, 0.5, 0.7], 3, 0, False),
        ([0.5], 1, 0, False),
    ],
)
@pytest.mark.parametrize('metric', ['accuracy', 'valid_loss'])
def test_plateau(numbers, values, rounds, least, stop, metric):
    learn = active()
    numbers += [v if is_higher_better(metric) else 1 - v for v in values]
    for i in range(len(values)):
        if i:
            next_round(learn, 2)
        said = Plateau(metric, rounds=rounds, min_gain=least)(learn)
        assert i == len(values) - 1 or said is None or values[:3] == [0.5, 0.6, 0.6]
    assert bool(said) == stop


def test_plateau_reads_the_holdout_as_it_is_now():
    learn = active()
    expected = learn.validate()[1]
    Plateau(rounds=1)(learn)
    assert learn.pool.ledger[f'stopping: {Plateau(rounds=1)}'][-1]['seen'] == pytest.approx(
        expected
    )
    held = learn.pool.holdout.index
    learn.pool.label(list(held), [(class_of(u) + 1) % 3 for u in held])
    nudge(learn, 1e-7)
    Plateau(rounds=1)(learn)
    assert learn.pool.ledger[f'stopping: {Plateau(rounds=1)}'][-1]['seen'] != pytest.approx(
        expected
    )


def test_plateau_without_a_holdout_or_metric():
    with pytest.warns(FastaiALWarning, match='Nothing validates'):
        learn = active(held=0)
    with pytest.raises(ValueError, match='pool.draw_holdout'):
        Plateau()(learn)
    with pytest.raises(
        ValueError, match="metric='dice': this learner measures accuracy, valid_loss"
    ):
        Plateau('dice')(active())
    broken = active()
    with torch.no_grad():
        broken.model[-1].bias.fill_(float('nan'))
    with pytest.raises(ValueError, match='valid_loss is nan'):
        Plateau('valid_loss')(broken)


def test_which_metric_and_which_way():
    learn = active()
    assert metric_of(learn, None) == 'accuracy' and metric_of(learn, 'valid_loss') == 'valid_loss'
    learn.learn.metrics = []
    assert metric_of(learn, None) == 'valid_loss'
    up = (
        'accuracy',
        'f1_score',
        'dice',
        'iou',
        'roc_auc_score',
        'r2_score',
        'minus_absolute_error',
        'neg_mean_squared_error',
        'matthews_corrcoef',
    )
    down = (
        'valid_loss',
        'error_rate',
        'mse',
        'mae',
        '_rmse',
        '_exp_rmspe',
        'msle',
        'perplexity',
        'hamming_loss',
        'mean_absolute_error',
        'brier_score_loss',
    )
    assert all(map(is_higher_better, up)) and not any(map(is_higher_better, down))


UP = (
    'valid_acc',
    'meanIoU',
    'mIoU',
    'AP50',
    'mAP',
    'ROCAUC',
    'F1Score',
    'top-5 accuracy',
    'log_likelihood',
    'negative_predictive_value',
    'true_negative_rate',
    'distance_correlation',
    'error_auroc',
    'd2_absolute_error_score',
    'recall_at_fpr',
    'minus_loss',
    'neg_log_loss',
    'BLEU',
    'pearsonr',
    'explained_variance',
    'one_minus_error',
    'accuracy_on_errors',
)
DOWN = (
    'cross_entropy',
    'BrierScore',
    'wer',
    'CER',
    'hausdorff_distance',
    'HD95',
    'nll',
    'neg_log_likelihood',
    'dice_loss',
    'false_positive_rate',
    'fpr_at_95_tpr',
    'KLDivergence',
    'mean_poisson_deviance',
    'NLLLoss',
    'number_of_errors',
    'accuracy_gap',
    '1-accuracy',
    '1 - dice',
    'minus_accuracy',
    'davies_bouldin_score',
    'crps',
    'accuracy_std',
)
UNKNOWN = (
    'score',
    'my_score',
    'lossless',
    'epochs',
    'seconds',
    'labels_to_accuracy',
    'time_to_loss',
    'energy_score',
    '_',
    '',
    '§',
    'minus',
    'neg_x',
    'opt_f',
)


def test_the_name_of_a_metric_gives_its_direction_or_is_an_error():
    assert (
        [m for m in UP if not is_higher_better(m)] == [m for m in DOWN if is_higher_better(m)] == []
    )
    for name in UNKNOWN:
        with pytest.raises(
            ValueError, match=f'Is a higher {re.escape(name)} better.*higher_is_better=True'
        ):
            is_higher_better(name)


def test_scores_of_scikit_learn_have_the_direction_of_its_scorers():
    scorers = {name: skm.get_scorer(name) for name in skm.get_scorer_names()}
    said = {
        name: (
            _direction_by_name(name),
            _direction_by_name(scorer._score_func.__name__),
            scorer._sign > 0,
        )
        for name, scorer in scorers.items()
    }
    assert {name for name, (own, *_) in said.items() if own is None} <= {
        'fowlkes_mallows_score',
        'v_measure_score',
    }
    for name, (own, function, up) in said.items():
        assert own in (True, None) and function in (up, None), name


def test_metrics_of_fastai_go_their_way():
    down = {
        'rmse',
        'exp_rmspe',
        'perplexity',
        'error_rate',
        'BrierScore',
        'HammingLoss',
        'BrierScoreMulti',
        'HammingLossMulti',
        'mse',
        'mae',
        'msle',
        'Perplexity',
    }
    tools = {'AccumMetric', 'skm_to_fastai', 'optim_metric', 'LossMetric', 'LossMetrics'}
    for name in set(metrics.__all__) - tools:
        made = getattr(metrics, name)
        if name[0].isupper():
            made = made(2) if name.startswith('FBeta') else made()
        assert is_higher_better(made) == (name not in down), name


def test_a_metric_that_knows_its_direction_is_believed():
    def foo(inp, targ):
        return inp.mean()

    for wrap in (
        lambda f: f,
        AvgMetric,
        lambda f: AvgMetric(partial(f)),
        lambda f: metrics.AccumMetric(f, name='accuracy'),
    ):
        foo.higher_is_better = False
        assert is_higher_better(wrap(foo)) is False
        foo.higher_is_better = None
    with pytest.raises(ValueError, match='higher foo better'):
        is_higher_better(AvgMetric(foo))
    assert not is_higher_better(
        metrics.skm_to_fastai(skm.brier_score_loss, name='mine')
    )  # the function's name says it
    with pytest.raises(ValueError, match='higher accuracy better.*contradict'):
        is_higher_better(metrics.skm_to_fastai(skm.brier_score_loss, name='accuracy'))
    learn = active()
    learn.learn.metrics = [foo, metrics.error_rate]
    assert not is_higher_better_for(learn, 'error_rate') and not is_higher_better_for(
        learn, 'valid_loss'
    )
    foo.higher_is_better = True
    assert is_higher_better_for(learn, 'foo')


def test_a_plateau_of_a_metric_without_a_known_direction_is_refused_at_once(numbers):
    def foo(inp, targ):
        return inp.mean()

    learn = active()
    learn.learn.metrics = [foo]
    with pytest.raises(ValueError, match='Is a higher foo better'):
        Plateau()(learn)
    assert not any('Plateau' in key for key in learn.pool.ledger.settings())
    numbers += [0.5, 0.4, 0.3]
    down = [Plateau(rounds=1, higher_is_better=up) for up in (False, True)]
    said = []
    for i in range(3):
        if i:
            next_round(learn, 2)
        said.append(down[0](learn))
    assert said == [None] * 3 and pickle.loads(pickle.dumps(down[0])) == down[0] != down[1]
    numbers[:] = [0.5, 0.4]
    learn = active()
    learn.learn.metrics = [foo]
    assert down[1](learn) is None
    next_round(learn, 2)
    assert 'has not improved' in down[1](learn)


# Budget and UncertaintyLeft


def test_what_a_budget_counts():
    pool = Pool(range(60), {i: class_of(i) for i in range(5)})  # came with the data: not paid for
    held, some = pool.draw_holdout(10), pool.sample(20)
    pool.label(held, [class_of(u) for u in held], seconds=2)
    pool.label(some, [class_of(u) for u in some], annotator='anna', seconds=3)
    pool.label(
        some[:5], [class_of(u) for u in some[:5]], annotator='bob', seconds=1
    )  # another person's answers
    pool.label(some[0], class_of(some[0]), annotator='anna', seconds=4)  # the same answer once more
    pool.retract(some[1], annotator='anna')
    pool.skip(pool.sample(2), annotator='anna', seconds=5)
    pool.add_pseudo(uids := pool.sample(3), [class_of(u) for u in uids])
    learn = ActiveLearner(pool_learner(pool), pool)
    assert (
        Budget(labels=36)(learn) is None
        and Budget(labels=35)(learn) == 'the budget is spent: 35 labels given, of 35'
    )
    total = 10 * 2 + 20 * 3 + 5 * 1 + 4 + 2 * 5
    assert (
        Budget(seconds=total + 0.5)(learn) is None
        and Budget(seconds=total)(learn)
        == f'the budget is spent: {total} seconds spent, of {total}'
    )
    assert (
        Budget(labels=35, seconds=1e9)(learn) is not None
        and Budget(labels=30, seconds=10)(learn).count('of') == 2
        and Budget(labels=99, seconds=1)(learn).count('of') == 1
    )


def test_a_budget_of_seconds_that_nobody_counts_warns():
    learn = active()
    assert Budget(seconds=5)(learn) is None  # the first labels may have none
    query = learn.acquire(3, by='random')
    learn.label(query, [class_of(u) for u in query.uids])
    with pytest.warns(FastaiALWarning, match='never spent'):
        assert Budget(seconds=5)(learn) is None
    oracle = Oracle.from_labels({str(i): class_of(i) for i in range(60)}, cost=2.0)
    learn.label(learn.acquire(3, by='random'), oracle)
    assert Budget(seconds=6)(learn) is not None


def test_uncertainty_left_is_the_mean_over_unlabelled_items():
    learn = active()
    with torch.no_grad():
        mean = learn.predict_proba(learn.dls.test_dl(learn.pool.unlabelled)).total.mean().item()
    assert UncertaintyLeft(mean * (1 - 1e-5))(learn) is None
    assert (
        UncertaintyLeft(mean * (1 + 1e-5))(learn)
        == f'little uncertainty is left: entropy {mean:.4g} on average over 30 unlabelled items, '
        f'below {mean * (1 + 1e-5):g}'
    )
    some = (
        learn.predict_proba(learn.dls.test_dl(learn.pool.unlabelled.loc[learn.pool.sample(7)]))
        .epistemic.mean()
        .item()
    )
    assert (
        UncertaintyLeft(some * 1.0001, 'epistemic', items=7)(learn) is not None
        and UncertaintyLeft(some * 0.9999, 'epistemic', items=7)(learn) is None
    )
    left = list(learn.pool.unlabelled.index)
    learn.label(left, [class_of(u) for u in left])
    assert UncertaintyLeft(0.1)(learn) == 'no unlabelled item is left'
