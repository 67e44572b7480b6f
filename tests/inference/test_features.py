"Features of the model's layers, and of one's own"

import functools
import tempfile

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.basics import Transform
from torch import nn

import fastai_al.inference.predict  # noqa: F401 (it adds methods)
import fastai_al.lab.next_round  # noqa: F401 (it adds methods)
import fastai_al.triage.decide  # noqa: F401 (it adds methods)
import fastai_al.triage.result  # noqa: F401 (it adds methods)
from conftest import (
    as_pool,
    assert_same,
    class_of,
    classes_learner,
    everything,
    features_of,
    mlp,
    pixels_learner,
    pool_learner,
    small_pool,
)
from fastai_al import FastaiALWarning
from fastai_al.acquire.cold_start import typical_items
from fastai_al.acquire.strategies import on_features
from fastai_al.acquisition.coverage import kcenter, max_herding, uncertainty_herding
from fastai_al.acquisition.scores import margin
from fastai_al.active_learner import ActiveLearner
from fastai_al.core.rng import key_of
from fastai_al.lab.simulate import simulate
from fastai_al.pool.pool import Pool
from fastai_al.posterior.base import Point
from fastai_al.posterior.dropout import MCDropout

FRAME = pd.DataFrame(np.random.default_rng(0).normal(size=(70, 4)))
ROWS = torch.tensor(FRAME.to_numpy()).float()


def quiet(learn, *args, **kwargs):
    with learn.no_bar():
        return learn.acquire(*args, **kwargs)


def counted(learn) -> list:
    "How many rows each call of the model has, from now on"
    calls = []
    learn.model.register_forward_hook(lambda m, args, out: calls.append(len(args[0])))
    return calls


# A layer's


def test_a_layer_gives_its_output_and_the_last_linear_one_its_input():
    learn = classes_learner(mlp(), cbs=MCDropout(k=3))
    dl, x = learn.dls.test_dl(range(30)), torch.stack([features_of(i) for i in range(30)])

    def of(layer):
        with learn.no_bar():
            return learn.draws(dl, features=layer).collect().features

    linear = [m for m in learn.model.modules() if isinstance(m, nn.Linear)]
    learn.model.eval()
    with torch.no_grad():
        first = linear[0](x)
    torch.testing.assert_close(of(linear[0]), first)
    with torch.no_grad():
        torch.testing.assert_close(linear[-1](of(True)), learn.model(x))


def test_of_maps_it_is_their_means():
    learn = pixels_learner(cbs=MCDropout(k=3))
    dl = as_pool(learn)
    conv = next(m for m in learn.model.modules() if isinstance(m, nn.Conv2d))
    caught = []
    hook = conv.register_forward_hook(lambda m, args, out: caught.append(out))
    with learn.no_bar(), torch.no_grad():
        learn.model.eval()
        for b in dl.new(shuffle=False):
            learn.model(b[0])
        hook.remove()
        found = learn.draws(dl, features=conv).collect().features
    torch.testing.assert_close(found, torch.cat(caught).mean((2, 3)).as_subclass(torch.Tensor))


def test_a_layer_without_a_tensor_is_named():
    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.pair, self.head = Pair(), mlp()

        def forward(self, x):
            return self.head(self.pair(x)[0])

    learn = classes_learner(Model())
    with pytest.raises(TypeError, match=r'features=Pair\(...\) is a layer that returns tuple'):
        quiet(learn, 3, as_pool(learn), by='kcenter', features=learn.model.pair)


# One's own


@pytest.mark.parametrize('posterior', [MCDropout(k=3), Point()])
def test_a_strategy_uses_the_rows_of_a_frame(posterior):
    learn = classes_learner(mlp(), cbs=posterior)
    trained, asked = [int(i) for i in learn.dls.train_ds.items], [*range(40, 70)]
    dl = learn.dls.test_dl(asked)
    query = quiet(learn, 6, dl, by='kcenter', features=FRAME)
    assert (
        query.indices == kcenter(ROWS[asked], 6, ROWS[trained]).indices.tolist()
        and query.info['features'] == '4 columns of a frame'
    )
    assert query.uids != quiet(learn, 6, dl, by='kcenter').uids
    again = quiet(learn, 6, dl, by='kcenter', features=FRAME.sample(frac=1, random_state=1))
    carried = quiet(learn, 6, dl, by=functools.partial(on_features('kcenter', FRAME)))
    assert query.uids == again.uids == carried.uids
    with learn.no_bar():
        scores = margin(learn.draws(dl).collect().log_probs)
    query = quiet(learn, 6, dl, by='uncertainty_herding', features=FRAME)
    assert (
        query.indices == uncertainty_herding(ROWS[asked], scores, 6, ROWS[trained]).indices.tolist()
    )
    with learn.no_bar():
        torch.testing.assert_close(learn.draws(dl, features=FRAME).collect().features, ROWS[asked])


def test_nothing_is_read_for_a_strategy_that_uses_only_the_frame():
    learn = classes_learner(mlp(), cbs=MCDropout(k=3))
    read = []

    def get(i):
        read.append(int(i))
        return features_of(i)

    dl, calls = learn.dls.test_dl(range(60), bs=10), counted(learn)
    dl.dataset.tls[0].tfms.fs[0] = Transform(get)
    query = quiet(learn, 4, dl, by='max_herding', features=FRAME)
    assert (
        set(map(str, read)) == set(query.uids) and sum(calls) < 40
    )  # a trial and the chosen items, not the pool
    read.clear()
    by_chance = quiet(learn, 4, dl, by='random', features=FRAME)
    assert set(map(str, read)) == set(by_chance.uids) and 'features' not in by_chance.info


@pytest.mark.parametrize('by', ['max_herding', 'uncertainty_herding', 'badge'])
def test_what_can_not_be_read_is_left_out(by):
    learn = classes_learner(mlp(), cbs=MCDropout(k=3))

    def broken(*bad):
        def get(i):
            if int(i) in bad:
                raise OSError('no picture')
            return features_of(i)

        dl = learn.dls.test_dl(range(60), bs=7)
        dl.dataset.tls[0].tfms.fs[0] = Transform(get)
        return dl

    first = quiet(learn, 4, broken(), by=by, features=FRAME)
    bad = [int(u) for u in first.uids[:2]]
    query = quiet(learn, 4, broken(*bad), by=by, features=FRAME, skip=True)
    assert query.uids == quiet(
        learn, 4, learn.dls.test_dl([i for i in range(60) if i not in bad]), by=by, features=FRAME
    ).uids and set(query.skipped) == set(map(str, bad))
    with pytest.raises(ValueError, match=f"'{bad[0]}' cannot be read|'{bad[1]}' cannot be read"):
        quiet(learn, 4, broken(*bad), by=by, features=FRAME)


def test_auto_works_for_a_model_without_linear_layers():
    learn = pixels_learner(cbs=MCDropout(k=3))
    names = [str(i) for i in learn.dls.train_ds.items] + [str(i) for i in learn.dls.valid_ds.items]
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(len(names), 3)), names)
    assert len(quiet(learn, 3, as_pool(learn), by='max_herding', features=frame)) == 3
    with pytest.raises(ValueError, match='no linear layer'):
        quiet(learn, 3, as_pool(learn), by='max_herding')


def bad(**kwargs):
    return FRAME.assign(**kwargs)


@pytest.mark.parametrize(
    'frame, error, says',
    [
        (FRAME[:50], ValueError, "no row for 10 of 60 items, '50' among them"),
        (FRAME[5:], ValueError, 'no row for 5 of'),
        (
            FRAME.set_axis([f'{i}.png' for i in range(70)]),
            ValueError,
            "its index begins with \\['0.png'",
        ),
        (pd.concat([FRAME, FRAME[3:4]]), ValueError, "several rows for '3'"),
        (bad(word='x'), TypeError, "the column 'word' that holds no numbers"),
        (FRAME[[]], TypeError, 'no columns'),
        (bad(gap=[np.nan, *range(69)]), ValueError, "NaN, .* for '0'"),
        (FRAME[:0], ValueError, 'no row for'),
        (bad(far=1e300), ValueError, "beyond single precision for '"),
        (bad(gap=pd.array([None, *range(69)], dtype='Int64')), ValueError, "NaN, .* for '0'"),
        (bad(turn=1j), TypeError, "the column 'turn'"),
        (FRAME.set_axis(pd.MultiIndex.from_product([range(7), range(10)])), TypeError, '2 levels'),
        (FRAME.to_numpy(), TypeError, 'ndarray'),
        (FRAME[0], TypeError, 'Series'),
        (None, TypeError, 'NoneType'),
        (torch.nn.Linear(2, 2), TypeError, 'a layer of another model'),
    ],
)
@pytest.mark.parametrize('by', ['kcenter', 'uncertainty_herding', 'badge'])
def test_a_frame_that_does_not_fit_is_refused(frame, error, says, by):
    learn = classes_learner(mlp(), cbs=MCDropout(k=3))
    calls, dl = counted(learn), learn.dls.test_dl(range(60))
    with learn.no_bar():
        before = everything(learn)
        with pytest.raises(error, match=says):
            learn.acquire(3, dl, by=by, features=frame)
        assert_same(everything(learn), before)
    if 'NaN' not in says and 'single' not in says:
        assert not calls


def test_rows_of_other_items_do_no_harm():
    learn = classes_learner(mlp(), cbs=MCDropout(k=3))
    more = pd.concat([FRAME, FRAME[:2].set_axis(['x', 'x']), FRAME[:1].set_axis(['y']) * np.nan])
    assert (
        quiet(learn, 4, learn.dls.test_dl(range(60)), by='kcenter', features=more).uids
        == quiet(learn, 4, learn.dls.test_dl(range(60)), by='kcenter', features=FRAME).uids
    )


def test_labelled_items_without_names_are_not_taken_for_others():
    learn = classes_learner(mlp(), cbs=MCDropout(k=3))
    x, y = torch.randn(30, 4), torch.randint(3, (30,))
    train, pool = (
        torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x[some], y[some]), batch_size=5)
        for some in (slice(10), slice(10, 30))
    )
    for by in ('kcenter', 'uncertainty_herding'):
        with pytest.raises(ValueError, match='The labelled items have no names'):
            learn.acquire(3, pool, by=by, labelled=train, features=FRAME)
    with pytest.raises(ValueError, match='no row for 40 of 40 labelled items|labelled items'):
        learn.acquire(3, learn.dls.test_dl(range(60, 70)), by='kcenter', features=FRAME[60:])


def test_two_frames_are_one_too_many():
    learn = classes_learner(mlp(), cbs=MCDropout(k=3))
    with pytest.raises(ValueError, match='brings features of its own'):
        learn.acquire(3, as_pool(learn), by=on_features('kcenter', FRAME), features=FRAME * 2)


@pytest.mark.parametrize(
    'by, frame, error, says',
    [
        ('bald', FRAME, ValueError, 'no selector that looks at features. Give one of badge,'),
        ('batchbald', FRAME, ValueError, 'no selector'),
        ('auto', FRAME, ValueError, 'no selector'),
        ('kcenter', FRAME.to_numpy(), TypeError, 'a ndarray, not a data frame'),
        ('kcentre', FRAME, ValueError, 'no selector'),
    ],
)
def test_a_strategy_on_features_needs_both(by, frame, error, says):
    with pytest.raises(error, match=says):
        on_features(by, frame)


def test_the_frame_stays_with_the_strategy_through_rounds_and_simulations():
    pool = small_pool()
    frame = FRAME[:60].set_axis(map(str, range(60)))
    learn, rule = ActiveLearner(pool_learner(pool), pool), on_features('kcenter', frame, 'noise')
    query = quiet(learn, 5, by=rule)
    unlabelled = [int(u) for u in pool.rows.index if u in set(learn.pool.unlabelled.index)]
    assert query.uids == quiet(learn, 5, by='kcenter', features=frame).uids and set(
        query.uids
    ) <= set(map(str, unlabelled))
    assert set(pool.history.query('kind == "acquire"').source) == {'kcenter, noise', 'kcenter'}
    truth = Pool(range(60), [class_of(i) for i in range(60)])
    options = dict(n=4, rounds=2, seeds=2, initial=12, holdout=12, fit=lambda learn: learn.fit(1))
    by = [rule, on_features(max_herding, frame), 'kcenter']
    one, two = [simulate(pool_learner, truth, by=by, jobs=jobs, **options) for jobs in (1, 2)]
    untimed = [c for c in one.rounds if 'seconds' not in c]
    pd.testing.assert_frame_equal(one.rounds[untimed], two.rounds[untimed])
    labelled = [
        tuple(sorted(one.pools[name, 0].labelled.index))
        for name in ('kcenter, noise', 'max_herding, own features', 'kcenter')
    ]
    assert len(set(labelled)) == 3
    with tempfile.TemporaryDirectory() as folder:
        first = simulate(pool_learner, truth, by=rule, folder=folder, **options)
        pd.testing.assert_frame_equal(
            simulate(pool_learner, truth, by=rule, folder=folder, **options).rounds, first.rounds
        )
        with pytest.raises(ValueError, match='have other settings: features'):
            simulate(
                pool_learner,
                truth,
                by=on_features('kcenter', frame * 2, 'noise'),
                folder=folder,
                **options,
            )
    people = ActiveLearner.from_simulation(one, pool, by=rule)
    with people.no_bar(), people.no_logging():
        assert people.next_round().info['acquisition'] == 'kcenter, noise'


def test_triage_finds_strange_items_by_own_features():
    pool = small_pool(200, 60, 60)
    learn = ActiveLearner(pool_learner(pool), pool)
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(200, 3)) + 5, map(str, range(200)))
    odd = list(pool.unlabelled.index[:10])
    frame.loc[odd] = -20
    with learn.no_bar(), pytest.warns(FastaiALWarning, match='so no pseudo-labels are given'):
        found = learn.triage(
            0.5, features=frame, outlier_rate=0.2
        )  # of a model that was not trained
    strange = found.frame.why.str.contains('outlier')  # some of them are audited
    assert set(odd) <= set(found.frame.index[strange]) and strange.sum() < 15
    with learn.no_bar(), pytest.raises(ValueError, match="outliers='energy' needs weight"):
        learn.triage(0.5, features=frame, outliers='energy')


# The first labels


def test_typical_items_are_those_of_the_selector_in_whatever_order_the_pool_is():
    frame = FRAME.set_axis(map(str, range(70)))
    pool, turned = Pool(range(70)), Pool(range(69, -1, -1))
    chosen = pool.typical(6, frame)
    assert chosen == typical_items(pool, 6, frame)
    assert (
        chosen == turned.typical(6, frame.sample(frac=1, random_state=2)) and len(set(chosen)) == 6
    )
    order = sorted(frame.index, key=lambda u: key_of(u, 0))
    assert chosen == [order[i] for i in max_herding(ROWS[[int(u) for u in order]], 6).indices]
    assert (
        pool.typical(6, frame, by='kcenter') != chosen
        and len(pool.typical(70, frame, 'typiclust')) == 70
    )
    pool.label(chosen, [0] * 6)
    left = [u for u in order if u not in chosen]
    assert pool.typical(2, frame) == [
        left[i]
        for i in max_herding(
            ROWS[[int(u) for u in left]], 2, ROWS[[int(u) for u in pool.labelled.index]]
        ).indices
    ]
    assert pool.counts()['labelled'] == 6 and pool.round == 0
    turned.label(chosen[::-1], [0] * 6)
    for by in ('typiclust', 'probcover', 'kcenter'):
        assert pool.typical(8, frame, by) == turned.typical(8, frame, by)


@pytest.mark.parametrize(
    'n, by, says',
    [
        (0, 'kcenter', 'n=0'),
        (71, 'kcenter', 'Pass 1 to 70'),
        (True, 'kcenter', 'n=True'),
        (2.0, 'kcenter', 'n=2.0'),
        (3, 'badge', 'no selector that looks at features alone. Give one of kcenter'),
        (3, 'auto', 'no selector'),
        (3, 'uncertainty_herding', 'alone'),
    ],
)
def test_typical_refuses(n, by, says):
    with pytest.raises(TypeError, match='a ndarray, not a data frame'):
        Pool(range(70)).typical(3, FRAME.to_numpy())
    with pytest.raises(ValueError, match=says):
        Pool(range(70)).typical(n, FRAME, by)
