"What the model sees, and how a training set grows"

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.basics import (
    CategoryBlock,
    ColReader,
    DataBlock,
    MultiCategoryBlock,
    RegressionBlock,
    TransformBlock,
    rmse,
)
from fastai.collab import collab_learner
from fastai.tabular.all import (
    Categorify,
    FillMissing,
    FillStrategy,
    Normalize,
    tabular_config,
    tabular_learner,
)

import fastai_al.inference.predict  # noqa: F401  # gives `Learner` its `predict_proba`
from conftest import BLOCK, XOf, class_of, small_pool
from fastai_al import FastaiALWarning
from fastai_al.active_learner import ActiveLearner
from fastai_al.pool.loaders import set_training_items
from fastai_al.pool.pool import Pool
from fastai_al.posterior.dropout import MCDropout
from fastai_al.posterior.ensemble import DeepEnsemble


def test_labelled_items_train_and_the_holdout_validates():
    pool = small_pool()
    dls = pool.dataloaders(BLOCK, bs=8, num_workers=0)
    assert set(dls.train_ds.items.index) == set(pool.labelled.index) and set(
        dls.valid_ds.items.index
    ) == set(pool.holdout.index)
    for (x, y), uid in zip(dls.train_ds, dls.train_ds.items.index):
        assert torch.equal(x, XOf()(int(uid))) and y == class_of(uid)


def test_no_label_is_left_out_of_an_epoch():
    for n in (8, 9, 12, 17, 20):
        dls = small_pool(labelled=n).dataloaders(BLOCK, bs=8, num_workers=0)
        seen = sum(len(y) for _, y in dls.train)
        assert seen == (n - 1 if n > 8 and n % 8 == 1 else n)


def test_pseudo_labels_train_on_request():
    pool = small_pool()
    uids = pool.unlabelled.index[:5]
    pool.add_pseudo(uids, [0] * 5)
    assert len(pool.dataloaders(BLOCK, bs=8, num_workers=0).train_ds) == 20
    assert len(pool.dataloaders(BLOCK, bs=8, pseudo=True, num_workers=0).train_ds) == 25


def epochs(dls, n: int = 200):
    return (
        np.bincount(
            [i for _ in range(n) for i in dls.train.get_idxs()], minlength=len(dls.train_ds)
        )
        / n
    )


def test_pseudo_labels_come_as_often_as_they_weigh():
    pool = small_pool()
    uids = list(pool.unlabelled.index[:20])
    pool.add_pseudo(uids, [0] * 20, scores=[0.25] * 10 + [1.0] * 10)
    for pseudo, some, rest in ((0.5, 0.5, 0.5), ('confidence', 0.25, 1.0)):
        dls = pool.dataloaders(BLOCK, bs=8, pseudo=pseudo, num_workers=0)
        came = epochs(dls)
        assert len(dls.train) == 5 and sum(len(y) for _, y in dls.train) == 40
        assert np.allclose(
            came[:20], 40 / (20 + 10 * some + 10 * rest), atol=0.13
        )  # each person's label as often as the others of them
        assert np.allclose(came[20:30] / came[:20].mean(), some, atol=0.13) and np.allclose(
            came[30:] / came[:20].mean(), rest, atol=0.13
        )
        assert all(set(range(20)) <= set(dls.train.get_idxs()) for _ in range(20))
        with_all = dls.train.new(shuffle=False)
        assert list(with_all.get_idxs()) == list(range(40))  # who reads them all reads each once
        pool.label(uids[0], 1)
        assert (
            pool.grow(dls) == 0 and epochs(dls)[list(dls.train_ds.items.index).index(uids[0])] >= 1
        )  # a person has spoken
        set_training_items(dls, dls.train_ds.items.iloc[:10])
        assert sorted(dls.train.get_idxs()) == list(range(10))
        pool.retract(uids[0], annotator='person')


def test_rows_of_a_table_are_weighed():
    df = pd.DataFrame(
        dict(name=[f'r{i}' for i in range(30)], x=np.arange(30.0), y=[0, 1] * 5 + [None] * 20)
    )
    pool = Pool.from_df(df, ['x'], 'y', uid='name')
    pool.add_pseudo([f'r{i}' for i in range(10, 20)], [0] * 10)
    with pytest.warns(FastaiALWarning, match='Nothing validates'):
        dls = pool.tabular_dataloaders(
            CategoryBlock(vocab=[0, 1]), [Normalize], [], ['x'], bs=5, pseudo=0.2, num_workers=0
        )
    came = epochs(dls)
    assert np.allclose(came[10:] / came[:10].mean(), 0.2, atol=0.06)


@pytest.mark.parametrize('pseudo', [-1, 0.0, 1.5, 'sure', None])
def test_weights_that_are_none(pseudo):
    with pytest.raises(ValueError, match='pseudo='):
        small_pool().dataloaders(BLOCK, bs=8, pseudo=pseudo, num_workers=0)


def test_a_pseudo_label_without_confidence_is_named():
    pool = small_pool()
    pool.add_pseudo([pool.unlabelled.index[0]], [0])
    with pytest.raises(ValueError, match='has no confidence'):
        pool.dataloaders(BLOCK, bs=8, pseudo='confidence', num_workers=0)


def test_the_block_of_the_user_is_not_changed():
    block = DataBlock((TransformBlock, CategoryBlock), get_x=XOf())
    with pytest.warns(FastaiALWarning, match='names no classes'):
        small_pool().dataloaders(block, bs=8, num_workers=0)
    assert block.type_tfms[1][0].vocab is None and block.get_y is None


def test_rows_of_a_frame_reach_the_blocks_own_getters():
    df = pd.DataFrame(
        dict(name=list('abcdef'), a=range(6), b=range(10, 16), y=[0, 1, 0, 1, None, None])
    )
    pool = Pool.from_df(df, 'name', 'y')
    block = DataBlock(
        (TransformBlock, TransformBlock, CategoryBlock(vocab=[0, 1])),
        n_inp=2,
        get_x=[ColReader('a'), ColReader('b')],
    )
    with pytest.warns(FastaiALWarning, match='Nothing validates'):
        dls = pool.dataloaders(block, bs=2, num_workers=0)
    assert [tuple(map(int, row)) for row in dls.train_ds] == [
        (0, 10, 0),
        (1, 11, 1),
        (2, 12, 0),
        (3, 13, 1),
    ]


def test_several_labels_and_numbers():
    pool = Pool(range(6), [['a'], ['a', 'b'], [], ['b'], None, None])
    block = DataBlock((TransformBlock, MultiCategoryBlock(vocab=['a', 'b'])), get_x=XOf())
    with pytest.warns(FastaiALWarning):
        dls = pool.dataloaders(block, bs=4, num_workers=0)
    assert [y.tolist() for _, y in dls.train_ds] == [[1, 0], [1, 1], [0, 0], [0, 1]]
    numbers = Pool(range(6), [0.5, 1, 2, 3, None, None])
    with pytest.warns(FastaiALWarning):
        dls = numbers.dataloaders(
            DataBlock((TransformBlock, RegressionBlock), get_x=XOf()), bs=4, num_workers=0
        )
    assert [float(y) for _, y in dls.train_ds] == [0.5, 1, 2, 3] and numbers.vocab is None


def workers(n=80, labelled=12):
    rng = np.random.default_rng(0)
    df = pd.DataFrame(
        dict(
            name=[f'w{i}' for i in range(n)],
            age=rng.normal(40, 9, n),
            work=rng.choice(['field', 'desk', 'road'], n),
        )
    )
    df.loc[::9, 'age'], df.loc[n - 1, 'work'] = np.nan, 'sea'  # a category of the last row alone
    truth = {w.name: 20 + 10.0 * (w.work == 'desk') for w in df.itertuples(index=False)}
    pool = Pool.from_df(df, 'name')
    held = pool.draw_holdout(10)
    for uids in (held, [u for u in pool.unlabelled.index if u != f'w{n - 1}'][:labelled]):
        pool.label(uids, [truth[u] for u in uids])
    return pool, df, truth


COLUMNS = dict(
    procs=[Categorify, FillMissing, Normalize], cat_names=['work'], cont_names=['age'], bs=6
)


def test_rows_of_a_table_grow_through_the_procs_of_the_first():
    pool, df, truth = workers()
    dls = pool.tabular_dataloaders(RegressionBlock, **COLUMNS)
    age = df.age.fillna(df.age.median())
    assert dls.means['age'] == pytest.approx(age.mean(), rel=1e-3) and list(
        dls.classes['work']
    ) == ['#na#', 'desk', 'field', 'road', 'sea']
    more = pool.unlabelled.index[-3:]
    assert 'w79' in more
    pool.label(more, [truth[u] for u in more])
    before = dls.valid_ds
    assert (
        pool.grow(dls) == 3
        and dls.valid_ds is before
        and (len(dls.train_ds), len(dls.valid_ds)) == (15, 10)
    )
    seen = {}
    for cat, cont, y in dls.train:
        for c, x, value in zip(cat, cont, y):
            seen[round(float(x), 4), int(c[0])] = float(value)

    def row(i):
        return round(float((age[i] - dls.means['age']) / dls.stds['age']), 4), dls.classes[
            'work'
        ].o2i[df.work[i]]

    expected = {row(int(u[1:])): truth[u] for u in pool.labelled.index}
    assert len(seen) == len(expected) and all(
        seen[min(seen, key=lambda k: (k[1] != c, abs(k[0] - x)))] == y
        for (x, c), y in expected.items()
    )
    cat, cont = dls.test_dl(df[:5].drop(columns='name')).one_batch()
    assert cat[0].tolist() == [row(0)[1], 2]  # the age was missing, and is marked so


def test_classes_of_a_table_and_rounds():
    pool, df, truth = workers()
    classes = {u: 'high' if y > 20 else 'low' for u, y in truth.items()}
    pool = Pool.from_df(df, 'name')
    for uids in (pool.draw_holdout(10), pool.sample(12)):
        pool.label(uids, [classes[u] for u in uids])
    dls = pool.tabular_dataloaders(CategoryBlock(vocab=['low', 'high']), **COLUMNS)
    assert list(dls.vocab) == ['high', 'low'] and sorted(pool.vocab) == ['high', 'low']
    learn = ActiveLearner(
        tabular_learner(dls, layers=[16], config=tabular_config(ps=0.2), cbs=MCDropout(k=4)), pool
    )
    with learn.learn.no_bar(), learn.learn.no_logging():
        learn.fit(1)
        query = learn.acquire(4)
        assert set(query.uids) <= set(df.name) - set(pool.labelled.index) and set(
            query.predictions
        ) <= {'low', 'high'}
        assert (
            learn.label(query, lambda uids: [classes[u] for u in uids]) == 4
            and len(learn.learn.dls.train_ds) == 16
        )
        learn.fit(1)
    with pytest.raises(ValueError, match='vocabulary'):
        pool.label(pool.unlabelled.index[0], 'middling')


def test_categories_that_are_numbers():
    df = pd.DataFrame(
        dict(
            id=range(40),
            share=[0.1, 0.2, 0.3, 0.4] * 10,
            code=[20000001.0, 20000002.0, np.nan, 20000003.0] * 10,
        )
    )
    pool = Pool.from_df(df, item=['share', 'code'], uid='id')
    pool.label(pool.sample(20, seed=3), ['a', 'b'] * 10)
    with pytest.warns(FastaiALWarning):
        dls = pool.tabular_dataloaders(
            CategoryBlock(vocab=['a', 'b']), [Categorify], ['share', 'code'], bs=8
        )
    assert set(dls.train_ds.items.share) == {1, 2, 3, 4} and set(dls.train_ds.items.code) == {
        0,
        1,
        2,
        3,
    }


@pytest.mark.parametrize(
    'change, error, said',
    [
        (dict(y_block=None), TypeError, 'one target'),
        (dict(y_block=MultiCategoryBlock(vocab=['a'])), TypeError, 'one target'),
        (dict(cont_names=['age', 'work']), ValueError, 'not numeric'),
        (dict(procs=[Normalize]), ValueError, 'Categorify'),
        (dict(cat_names='hat'), ValueError, "'hat'"),
    ],
)
def test_bad_columns_and_targets_of_a_table(change, error, said):
    pool, _, _ = workers()
    with pytest.raises(error, match=said):
        pool.tabular_dataloaders(**{'y_block': RegressionBlock, **COLUMNS, **change})
    words = Pool.from_df(pool.rows, 'name')
    words.label(words.sample(12), ['tall', 'small'] * 6)
    with pytest.raises(ValueError, match="'tall'|'small'"), pytest.warns(FastaiALWarning):
        words.tabular_dataloaders(RegressionBlock, **COLUMNS)


def table_rounds(tmp_path, procs, **gap):
    """A learner of a table without gaps, whose pool has got two rows since, the first of them
    with a gap or what `gap` says"""
    rng, db = np.random.default_rng(0), tmp_path / 'table.db'
    df = pd.DataFrame(
        dict(
            name=[f'w{i}' for i in range(50)],
            age=rng.normal(40, 9, 50),
            size=rng.integers(0, 9, 50),
            work=['desk', 'field'] * 25,
        )
    )
    pool = Pool.from_df(df, 'name', db=db)
    for uids in (pool.draw_holdout(10), pool.sample(12)):
        pool.label(uids, ['low', 'high'] * (len(uids) // 2))
    dls = pool.tabular_dataloaders(
        CategoryBlock(vocab=['low', 'high']), procs, ['work'], ['age', 'size'], bs=6
    )
    learn = ActiveLearner(
        tabular_learner(dls, layers=[16], config=tabular_config(ps=0.2), cbs=MCDropout(k=4)), pool
    )
    more = pd.DataFrame(
        dict(name=['n0', 'n1'], age=[30.0, 50.0], size=[1.0, 2.0], work='desk')
    ).assign(**gap)
    Pool.from_df(pd.concat([df, more]), 'name', db=db).close()
    return learn, pool, more


GAPS = dict(age=[np.nan, 50.0]), dict(size=[None, 2.0]), dict(age=[None, 50.0], size=[np.nan, 2.0])


@pytest.mark.parametrize('by', ['bald', 'random', 'max_herding', 'auto'])
@pytest.mark.parametrize('gap', [*GAPS, dict(size=[None, None])])
@pytest.mark.filterwarnings('ignore:.*joined the pool after its hold-out:fastai_al.FastaiALWarning')
def test_gaps_in_rows_that_join_later_are_filled(tmp_path, gap, by):
    learn, pool, more = table_rounds(tmp_path, [Categorify, FillMissing, Normalize], **gap)
    with learn.learn.no_bar(), learn.learn.no_logging():
        learn.fit(1)
        assert set(learn.acquire(30, by=by).uids) == {*pool.unlabelled.index} >= {'n0', 'n1'}
        assert {'n0', 'n1'} <= {*learn.triage(0.9, delta=0.5).frame.index}
        assert learn.predict_proba(learn.dls.test_dl(pool.unlabelled)).probs.isfinite().all()
        assert learn.predict(more.iloc[0])[2].isfinite().all()
        learn.label(['n0', 'n1'], ['low', 'high'])
        learn.fit(1)
    assert not len(pool.unreadable(learn.dls)) and np.isfinite(learn.recorder.values[-1][0])
    filled = learn.dls.train_ds.items.loc['n0', next(iter(gap))]
    column = pool.rows[next(iter(gap))]
    median = column.drop(['n0', 'n1']).median()
    assert filled == pytest.approx(
        (median - learn.dls.means[column.name]) / learn.dls.stds[column.name], abs=1e-4
    )


def test_a_fill_of_the_users_own_fills_what_joins_later(tmp_path):
    fill = FillMissing(fill_strategy=FillStrategy.constant, fill_vals=dict(age=7.0))
    learn, pool, _ = table_rounds(
        tmp_path, [Categorify, fill], age=[np.nan, 50.0], size=[None, 2.0]
    )
    rows = learn.dls.test_dl(pool.unlabelled).dataset.items.loc['n0']
    assert rows['age'] == 7 and rows['size'] == pool.rows['size'].drop(['n0', 'n1']).median()


@pytest.mark.parametrize('by', ['bald', 'random', 'max_herding', 'auto'])
@pytest.mark.parametrize(
    'gap, said',
    [
        (GAPS[0], "nan in 'age'"),
        (GAPS[1], "nan in 'size'"),
        (GAPS[2], "nan in 'age', nan in 'size'"),
    ],
)
@pytest.mark.filterwarnings('ignore:.*joined the pool after its hold-out:fastai_al.FastaiALWarning')
def test_rows_with_gaps_that_nothing_fills_are_named_and_can_be_skipped(tmp_path, gap, said, by):
    learn, pool, _ = table_rounds(tmp_path, [Categorify, Normalize], **gap)
    named = f"'n0' cannot be read, ValueError: it holds {said}.*skip=True"
    with learn.learn.no_bar(), learn.learn.no_logging():
        learn.fit(1)
        for ask in (
            lambda: learn.acquire(30, by=by),
            lambda: learn.triage(0.9, delta=0.5),
            lambda: learn.predict_proba(learn.dls.test_dl(pool.unlabelled)),
        ):
            with pytest.raises(ValueError, match=named):
                ask()
        assert (
            list(pool.unreadable(learn.dls).index) == ['n0']
            and said in pool.unreadable(learn.dls)['n0']
        )
        assert 'n0' not in learn.triage(0.9, delta=0.5, skip=True).frame.index
        query = learn.acquire(29, by=by, skip=True)
    assert 'n1' in query.uids and list(query.skipped) == ['n0'] and said in query.skipped['n0']
    assert list(pool.ignored.index) == ['n0'] and len(set(query.uids)) == 29
    with pytest.warns(
        FastaiALWarning, match=f"1 training rows lack a number, 'n0': it holds {said}"
    ):
        learn.label(['n0', 'n1'], ['low', 'high'])


def test_an_infinite_number_is_none_that_can_be_filled():
    df = pd.DataFrame(dict(name=[f'w{i}' for i in range(20)], age=[np.inf, *np.arange(19.0)]))
    pool = Pool.from_df(df, 'name')
    pool.label([f'w{i}' for i in range(8, 16)], ['low', 'high'] * 4)
    with pytest.warns(FastaiALWarning, match='Nothing validates'):
        dls = pool.tabular_dataloaders(
            CategoryBlock(vocab=['low', 'high']), [FillMissing], cont_names=['age'], bs=4
        )
    assert dict(pool.unreadable(dls)) == dict(w0="ValueError: it holds inf in 'age'")
    with (
        tabular_learner(dls, layers=[8]).no_bar() as learn,
        pytest.raises(ValueError, match="'w0' cannot be read.*inf in 'age'"),
    ):
        learn.acquire(2, learn.dls.test_dl(pool.unlabelled), by='entropy')


def test_a_model_that_is_NaN_itself_makes_no_row_unreadable(tmp_path):
    learn, pool, _ = table_rounds(tmp_path, [Categorify, Normalize], **GAPS[0])
    with torch.no_grad():
        next(learn.model.layers.parameters()).fill_(float('nan'))
    with learn.learn.no_bar(), pytest.raises(ValueError, match='The model predicts NaN for'):
        learn.acquire(3, by='bald', skip=True)
    assert not len(pool.ignored)


def ratings():
    "A pool in which each of 9 users may be asked about each of 12 films, and what they would say"
    df = pd.DataFrame(
        [dict(pair=f'{u}-{f}', user=f'u{u}', film=f) for u in range(9) for f in range(12)]
    )
    return Pool.from_df(df, ['user', 'film'], uid='pair'), {
        p: float(1 + len(p) % 2 + int(f) % 3) for p, f in zip(df.pair, df.film)
    }


@pytest.mark.parametrize('use_nn', [False, True])
def test_ratings_are_queried_and_grow(use_nn):
    pool, stars = ratings()
    for uids in (pool.draw_holdout(20), pool.sample(12)):
        pool.label(uids, [stars[u] for u in uids])
    dls = pool.collab_dataloaders(bs=6, num_workers=0)
    assert {name: len(found) for name, found in dls.classes.items()} == {
        'user': 10,
        'film': 13,
    }  # those who have rated nothing too

    def make():
        return collab_learner(
            dls, n_factors=3, use_nn=use_nn, layers=[8], y_range=(0, 6), metrics=rmse
        )

    members = [make() for _ in range(3)]
    learn = ActiveLearner(members[0], pool)
    learn.add_cb(DeepEnsemble(members))
    with learn.learn.no_bar(), learn.learn.no_logging():
        learn.fit(1)
        query = learn.acquire(5, by='predictive_variance')
        assert (query.info['task'], learn.acquire(2).info['acquisition']) == (
            'values',
            'lcmd' if use_nn else 'gaussian_bald',
        )
        assert (
            learn.label(query, lambda uids: [stars[u] for u in uids]) == 5
            and len(dls.train_ds) == 17
        )
        learn.fit(1)
    seen = {(u, f): y for x, ys in dls.train for (u, f), y in zip(x.tolist(), ys[:, 0].tolist())}
    of = {
        p: (dls.classes['user'].o2i[row.user], dls.classes['film'].o2i[row.film])
        for p, row in pool.labelled.iterrows()
    }
    assert seen == {of[p]: stars[p] for p in pool.labelled.index}


@pytest.mark.parametrize('names', [dict(user_name='film'), dict(item_name='year')])
def test_ratings_of_strange_columns(names):
    pool, stars = ratings()
    pool.label(pool.sample(12), [3.0] * 12)
    with pytest.raises(ValueError, match='need a column of users.*Pass user_name= and'):
        pool.collab_dataloaders(**names)


def test_bad_tables():
    pool, _, _ = workers()
    with pytest.raises(ValueError, match="'hat'"):
        pool.tabular_dataloaders(RegressionBlock, cat_names=['hat'])
    with pytest.raises(ValueError, match='Pass some of'):
        pool.tabular_dataloaders(RegressionBlock)
    with pytest.raises(ValueError, match='labelled yet'):
        Pool.from_df(pd.DataFrame(dict(name=['a', 'b'], x=[1.0, 2.0])), 'name').tabular_dataloaders(
            RegressionBlock, cont_names=['x']
        )


@pytest.mark.parametrize(
    'make, error, says',
    [
        (lambda: small_pool(labelled=0).dataloaders(BLOCK), ValueError, 'labelled yet'),
        (lambda: small_pool(labelled=1).dataloaders(BLOCK), ValueError, 'too few'),
        (lambda: small_pool().dataloaders('block'), TypeError, 'DataBlock'),
        (
            lambda: Pool(range(4), [0, 1, 2, 9]).dataloaders(BLOCK, bs=2),
            ValueError,
            r"\[9\] of \['3'\]",
        ),
    ],
)
@pytest.mark.filterwarnings('ignore::fastai_al.FastaiALWarning')
def test_what_can_not_be_trained_on_is_refused(make, error, says):
    with pytest.raises(error, match=says):
        make()


def test_warnings_where_training_can_honestly_go_on():
    with pytest.warns(FastaiALWarning, match='bs=64 is above the 20'):
        small_pool().dataloaders(BLOCK, num_workers=0)
    pool = small_pool()
    pool.retract(pool.holdout.index[:3])
    with pytest.warns(FastaiALWarning, match='3 of the 10 hold-out'):
        pool.dataloaders(BLOCK, bs=8, num_workers=0)


def test_a_class_outside_the_vocabulary_is_refused_from_then_on(tmp_path):
    pool = small_pool(db=tmp_path / 'a.db')
    pool.dataloaders(BLOCK, bs=8, num_workers=0)
    for p in (pool, Pool.open(tmp_path / 'a.db')):
        with pytest.raises(ValueError, match='vocabulary'):
            p.label(p.unlabelled.index[0], 7)


def test_growing_keeps_what_need_not_be_rebuilt():
    pool = small_pool()
    dls = pool.dataloaders(BLOCK, bs=8, num_workers=0)
    valid, tfms = dls.valid, [id(f) for tl in dls.train_ds.tls for f in tl.tfms.fs]
    uids = pool.sample(5)
    pool.label(uids, [class_of(u) for u in uids])
    assert pool.grow(dls) == 5 and dls.valid is valid
    assert [id(f) for tl in dls.train_ds.tls for f in tl.tfms.fs] == tfms
    assert dls.train.shuffle and set(uids) < set(dls.train_ds.items.index)
    pool.retract(uids)
    assert pool.grow(dls) == -5


def test_a_corrected_label_is_the_one_trained_on():
    pool = small_pool()
    dls = pool.dataloaders(BLOCK, bs=8, num_workers=0)
    uid = pool.labelled.index[0]
    pool.label(uid, (class_of(uid) + 1) % 3)
    pool.grow(dls)
    assert dls.train_ds[list(dls.train_ds.items.index).index(uid)][1] == (class_of(uid) + 1) % 3


def test_only_fastai_datasets_can_grow():
    class Other:
        train_ds = [1]

    with pytest.raises(TypeError, match='Datasets'):
        set_training_items(Other(), pd.DataFrame())
