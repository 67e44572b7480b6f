"""Contracts of the rounds: every label is in the next fit, a metric is filed under the labels it
was trained on, and cells can be run twice"""

import os
import subprocess
import sys

import fastai.callback.schedule  # noqa: F401 (it adds `lr_find`)
import numpy as np
import pandas as pd
import pytest
import torch
from fastai.basics import (
    Callback,
    CategoryBlock,
    DataBlock,
    Learner,
    TransformBlock,
    accuracy,
    load_learner,
    set_seed,  # noqa: F401 (of the cells)
)
from fastai.losses import CrossEntropyLossFlat

import fastai_al.acquire.cold_start  # noqa: F401 (it adds methods)
import test_server
from conftest import (
    assert_same,
    class_of,
    classes_learner,
    everything,
    features_of,
    mlp,
    pool_learner,
    small_pool,
)
from fastai_al import FastaiALWarning
from fastai_al.active_learner import ActiveLearner
from fastai_al.loop.learner import AcquireCallback
from fastai_al.loop.rounds import RoundsCallback
from fastai_al.pool.oracle import Oracle
from fastai_al.pool.pool import Pool
from fastai_al.posterior.dropout import MCDropout
from test_annotator import Page

NAMES = [f'text {i}' for i in range(60)]
VOCAB = ['a', 'b', 'c']


def number(uid):
    return int(str(uid).split()[-1])


def letter(uid):
    return VOCAB[class_of(number(uid))]


def answer(uids):
    return {u: letter(u) for u in uids}


class XOfName:
    "Getter of the features of a name"

    def __call__(self, name):
        return features_of(number(name))


BLOCK = DataBlock((TransformBlock, CategoryBlock(vocab=VOCAB)), get_x=XOfName())


def named_pool(db, **kwargs) -> Pool:
    pool = Pool(NAMES, db=db, **kwargs)
    for uids in (pool.draw_holdout(10), pool.sample(20)):
        pool.label(uids, answer(uids))
    return pool


def learner_of(pool, **kwargs) -> ActiveLearner:
    dls = pool.dataloaders(BLOCK, bs=8, num_workers=0, **kwargs)
    learn = ActiveLearner(
        Learner(dls, mlp(), CrossEntropyLossFlat(), metrics=accuracy, cbs=MCDropout(k=4)), pool
    )
    learn.remove_cbs([cb for cb in learn.cbs if type(cb).__name__ == 'ProgressCallback'])
    learn.logger = lambda row: None
    return learn


@pytest.fixture
def learn(tmp_path):
    learn = learner_of(named_pool(tmp_path / 'labels.db'))
    learn.fit(1)
    yield learn
    learn.pool.close()


def trained_on(learn) -> set:
    return set(learn.dls.train_ds.items.index)


def now(learn) -> pd.Series:
    return learn.history.iloc[-1]


# Every label is in the next fit


def by_another_pool(learn, uids, monkeypatch):
    other = Pool.open(learn.pool.ledger.path)
    other.label(uids, answer(uids), annotator='anna')
    other.close()


def by_label_studio(learn, uids, monkeypatch):
    monkeypatch.setattr(test_server, 'CLASSES', VOCAB)
    server = test_server.Server()
    ls = test_server.connected(server, monkeypatch)
    ls.push(learn.pool, test_server.query_of(uids, map(letter, uids)), title='Letters')
    for u in uids:
        server.annotate(u, 1, letter(u))
    assert ls.pull(learn.pool).labels == len(uids)


def by_annotator(learn, uids, monkeypatch):
    page = Page(learn.annotate(uids, annotator='anna'))
    for place, u in enumerate(uids):
        page.say(place, 'label', VOCAB.index(letter(u)))


def by_callback(learn, uids, monkeypatch):
    "A fit that asks once, at the end of its first epoch of two"

    def chosen(log_probs, keys):
        return torch.tensor([float(k in wanted) for k in keys.tolist()])

    from fastai_al.core.rng import key_of

    wanted = {key_of(u, 0) for u in uids}
    learn.fit(2, cbs=AcquireCallback(len(uids), pool=learn.pool, oracle=answer(NAMES), by=chosen))


ROADS = {
    'pool.label': lambda learn, uids, monkeypatch: learn.pool.label(uids, answer(uids)),
    'another pool on the same file': by_another_pool,
    'learn.label': lambda learn, uids, monkeypatch: learn.label(uids, answer(uids)),
    'AcquireCallback': by_callback,
    'an oracle': lambda learn, uids, monkeypatch: Oracle.from_labels(answer(NAMES)).answer(
        learn.pool, uids
    ),
    'Label Studio': by_label_studio,
    'annotate': by_annotator,
}
roads = pytest.mark.parametrize('road', ROADS.values(), ids=ROADS)


@roads
@pytest.mark.parametrize(
    'fit',
    [
        lambda learn: learn.fit(1),
        lambda learn: learn.fine_tune(1),
        lambda learn: learn.fit_one_cycle(1),
        lambda learn: learn.learn.fit(1),
    ],
    ids=['fit', 'fine_tune', 'fit_one_cycle', "the learner's own fit"],
)
def test_a_label_is_in_the_next_fit_and_its_metric_under_the_right_number(
    learn, road, fit, monkeypatch
):
    before, uids = now(learn), sorted(learn.pool.unlabelled.index)[:5]
    road(learn, uids, monkeypatch)
    assert set(learn.pool.labelled.index) >= set(uids)
    if road is not by_callback:  # nothing was trained since
        assert now(learn)['labelled'] == 20 and now(learn)['accuracy'] == before['accuracy']
    fit(learn)
    assert trained_on(learn) == set(learn.pool.labelled.index) and len(trained_on(learn)) == 25
    row = now(learn)
    assert row['labelled'] == 25 and row['accuracy'] == pytest.approx(learn.validate()[1])


def test_what_is_retracted_ignored_or_corrected_is_in_the_next_fit_too(learn):
    gone, ignored, corrected = sorted(trained_on(learn))[:3]
    learn.pool.retract(gone)
    learn.pool.ignore(ignored)
    other = VOCAB[(VOCAB.index(letter(corrected)) + 1) % 3]
    learn.pool.label(corrected, other)
    learn.fit(1)
    assert (
        trained_on(learn) == set(learn.pool.labelled.index)
        and not {gone, ignored} & trained_on(learn)
        and now(learn)['labelled'] == 18
    )
    assert learn.dls.train_ds.items.loc[corrected, 'label'] == other
    assert learn.dls.train_ds[list(learn.dls.train_ds.items.index).index(corrected)][
        1
    ] == VOCAB.index(other)


def test_pseudo_labels_are_in_the_next_fit_where_the_learner_trains_on_them_and_count_as_no_labels(
    tmp_path,
):
    pool = named_pool(tmp_path / 'a.db')
    learn, plain = learner_of(pool, pseudo=True), learner_of(pool)
    pool.add_pseudo(uids := sorted(pool.unlabelled.index)[:7], [letter(u) for u in uids])
    for one in (learn, plain):
        one.fit(1)
    assert (
        trained_on(learn) == trained_on(plain) | set(uids)
        and now(learn)['labelled'] == now(plain)['labelled'] == 20
    )
    pool.retract(uids[:2], annotator='model')
    learn.fit(1)
    assert trained_on(learn) == trained_on(plain) | set(uids[2:])


def test_an_applied_and_a_revoked_triage_are_in_the_next_fit():
    pool = small_pool(400, 100, 120)
    from conftest import BLOCK

    learn = ActiveLearner(
        Learner(
            pool.dataloaders(BLOCK, bs=8, num_workers=0, pseudo=True),
            mlp(),
            CrossEntropyLossFlat(),
            metrics=accuracy,
            cbs=MCDropout(k=6),
        ),
        pool,
    )
    with learn.no_bar(), learn.no_logging():
        learn.fit(6, 1e-2)
        act = pool.apply(learn.triage(0.3, guarantee='pool'))
        assert len(pool.pseudo)
        learn.fit(1)
        assert (
            trained_on(learn) == {*pool.labelled.index, *pool.pseudo.index}
            and now(learn)['labelled'] == 100
        )
        pool.revoke(act)
        learn.fit(1)
    assert trained_on(learn) == set(pool.labelled.index)


def test_a_search_for_a_learning_rate_sees_the_next_labels_and_a_prediction_changes_nothing(
    learn,
):
    learn.pool.label(uids := sorted(learn.pool.unlabelled.index)[:5], answer(uids))
    train = learn.dls.train
    learn.validate()
    learn.get_preds()
    learn.get_preds(dl=learn.dls.valid)
    assert learn.dls.train is train
    learn.lr_find(num_it=8, show_plot=False)
    assert trained_on(learn) == set(learn.pool.labelled.index)


def test_a_fit_without_the_bar_of_epochs_is_a_fit(learn):
    learn.pool.label(uids := sorted(learn.pool.unlabelled.index)[:5], answer(uids))
    with learn.no_mbar():
        learn.fit(1)
    assert len(trained_on(learn)) == now(learn)['labelled'] == 25


def test_a_fit_without_news_leaves_the_loader_as_it_is(learn):
    train = learn.dls.train
    learn.fit(1)
    assert learn.dls.train is train


def test_an_export_takes_no_pool_along_and_still_trains(learn, tmp_path):
    learn.learn.path = tmp_path
    learn.export('x.pkl')
    assert (
        len(learn.pool.ledger.path)
        and learn.pool.ledger.path.encode() not in (tmp_path / 'x.pkl').read_bytes()
    )
    again = load_learner(tmp_path / 'x.pkl')
    assert all(
        cb.pool is None and cb.fitted is None for cb in again.cbs if isinstance(cb, RoundsCallback)
    )
    assert torch.allclose(again.predict(NAMES[3])[2], learn.predict(NAMES[3])[2])
    again.dls = learn.dls
    learn.pool.label(uids := sorted(learn.pool.unlabelled.index)[:5], answer(uids))
    with again.no_bar(), again.no_logging():
        again.fit(1)
    assert len(learn.dls.train_ds) == 20


def test_wrapping_again_ties_the_learner_once(learn):
    again = ActiveLearner(learn.learn, learn.pool)
    assert (
        sum(isinstance(cb, RoundsCallback) for cb in learn.cbs) == 1
        and now(again)['labelled'] == 20
        and now(again)['accuracy'] == now(learn)['accuracy']
    )


# History


class Stops(Callback):
    "Interrupts the fit in the middle of an epoch"

    def __init__(self, at):
        self.at = at

    def after_batch(self):
        if self.training and self.epoch == self.at:
            raise KeyboardInterrupt()


def test_history_over_several_fits_a_search_and_a_cold_start(learn):
    first = now(learn)['accuracy']
    learn.lr_find(num_it=8, show_plot=False)
    assert (
        now(learn)['labelled'] == 20
        and now(learn)['accuracy'] == first
        and now(learn)['train_loss'] < 10
    )
    learn.validate()
    assert now(learn)['accuracy'] == first
    learn.label(uids := sorted(learn.pool.unlabelled.index)[:5], answer(uids))
    assert now(learn)['labelled'] == 20
    learn.fit(1)
    learn.fit(2)
    assert now(learn)['labelled'] == 25
    query = learn.acquire(3)
    assert (
        learn.history.loc[0, 'labelled'] == 25
        and learn.history.loc[0, 'accuracy'] == now(learn)['accuracy']
    )
    learn.label(query, answer(query.uids))
    learn.reset()
    assert (
        now(learn)['labelled'] == 28
        and pd.isna(now(learn).get('accuracy'))
        and learn.history.loc[0, 'labelled'] == 25
    )
    learn.lr_find(num_it=8, show_plot=False)
    assert pd.isna(now(learn).get('accuracy')) and pd.isna(now(learn).get('train_loss'))


@pytest.mark.parametrize('at', [0, 1])
def test_history_after_an_interrupted_fit(learn, at):
    learn.pool.label(uids := sorted(learn.pool.unlabelled.index)[:5], answer(uids))
    with pytest.raises(KeyboardInterrupt):
        learn.fit(3, cbs=Stops(at))
    row = now(learn)
    assert row['labelled'] == 25 and ('accuracy' in row and not pd.isna(row['accuracy'])) == (
        at == 1
    )  # the first epoch has ended, or none has


def test_history_of_a_fit_that_grew_and_was_interrupted_after(learn):
    with pytest.raises(KeyboardInterrupt):
        learn.fit(3, cbs=[AcquireCallback(5, pool=learn.pool, oracle=answer(NAMES)), Stops(1)])
    assert (
        len(trained_on(learn)) == 25
        and now(learn)['labelled'] == 20
        and now(learn)['accuracy'] == learn.recorder.values[0][2]
    )


def test_history_inside_a_fit_that_grows(learn):
    learn.fit(3, cbs=AcquireCallback(5, pool=learn.pool, oracle=answer(NAMES)))
    assert learn.history['labelled'].tolist() == [20, 25, 30]
    assert learn.history['accuracy'].tolist() == [row[2] for row in learn.recorder.values]


def test_history_of_a_fit_before_the_learner_was_wrapped(tmp_path):
    pool = small_pool()
    learner = pool_learner(pool)
    with learner.no_bar(), learner.no_logging():
        learner.fit(1)
    learn = ActiveLearner(learner, pool)
    assert now(learn)['labelled'] == 20 and now(learn)['accuracy'] == learner.recorder.values[-1][2]
    pool.label('1' if '1' in pool.unlabelled.index else pool.unlabelled.index[0], 0)
    assert now(learn)['labelled'] == 20


# Cells can be run twice

FRAME = pd.DataFrame(np.stack([features_of(i).numpy() for i in range(60)]), index=NAMES)
DRAWS = {
    'hold_out': lambda learn, pool, seed=5: pool.draw_holdout(6, seed),
    'a share': lambda learn, pool, seed=5: pool.draw_holdout(0.2, seed),
    'sample': lambda learn, pool, **kw: pool.sample(6, **kw),
    'typical': lambda learn, pool, **kw: pool.typical(6, FRAME, **kw),
    'active_test': lambda learn, pool, **kw: learn.active_test(6, **kw).uids,
}
draws = pytest.mark.parametrize('draw', DRAWS.values(), ids=DRAWS)


@draws
def test_an_identical_draw_returns_the_same_items(learn, draw):
    pool = learn.pool
    first, history = draw(learn, pool), len(pool.history)
    assert draw(learn, pool) == first and len(pool.history) == history
    pool.label(first, answer(first))
    again = Pool(NAMES, db=pool.ledger.path)
    history, counts = len(pool.history), pool.counts()
    assert (
        draw(ActiveLearner(learn.learn, again), again) == first
    )  # after a restart, without a word
    again.label(first, answer(first))
    assert len(pool.history) == history and pool.counts() == counts
    again.close()


@draws
def test_another_seed_draws_others(learn, draw):
    first = draw(learn, learn.pool)
    learn.pool.label(first, answer(first))
    more = draw(learn, learn.pool, seed=1)
    assert not set(more) & set(first) and len(more) in (
        len(first),
        5,
    )  # the share is of what is unlabelled
    learn.pool.label(more, answer(more))
    with pytest.warns(FastaiALWarning, match='already have an answer. Pass another seed='):
        assert draw(learn, learn.pool) == first
    with pytest.warns(FastaiALWarning, match='already have an answer. Pass another seed='):
        assert draw(learn, learn.pool, seed=1) == more


class Thing:
    "An item that the ledger can not keep, so that the user has to bring it again"

    def __init__(self, name):
        self.name = name

    def __str__(self):
        return self.name


@draws
def test_a_draw_whose_items_are_gone(tmp_path, draw):
    def session(names):
        pool = Pool([Thing(n) for n in names], uids=names, db=tmp_path / 'things.db')
        if not len(pool.labelled):
            pool.label(NAMES[:20], answer(NAMES[:20]))
        with pytest.warns(FastaiALWarning, match='Nothing validates'):
            return learner_of(pool)

    learn = session(NAMES)
    first = draw(learn, learn.pool)
    learn.pool.close()
    fewer = session([n for n in NAMES if n != first[2]])
    with pytest.warns(FastaiALWarning, match=f'1 of the {len(first)} items'):
        assert draw(fewer, fewer.pool) == [u for u in first if u != first[2]]
    fewer.pool.close()
    others = session([n for n in NAMES if n not in first])
    assert not set(draw(others, others.pool)) & set(
        first
    )  # nothing of it is left, so it is drawn anew
    others.pool.close()


def test_a_draw_is_not_taken_for_another():
    pool = Pool(NAMES)
    held = pool.draw_holdout(5)
    pool.label(held, answer(held))
    some = pool.sample(5)
    assert (
        not set(held) & set(some) and pool.sample(4) == some[:4] and pool.typical(5, FRAME) != some
    )
    flipped = pd.DataFrame(FRAME.to_numpy()[::-1].copy(), index=NAMES)
    assert pool.typical(5, FRAME) != pool.typical(5, flipped) and pool.typical(
        5, FRAME, 'kcenter'
    ) != pool.typical(5, FRAME)
    noisy = FRAME.sample(frac=1, random_state=0) * (1 + 1e-7)  # embeddings made again
    pool.label(first := pool.typical(5, FRAME), answer(first))
    with pytest.warns(FastaiALWarning):
        assert pool.typical(5, noisy) == first


def test_a_refused_draw_is_not_remembered():
    pool = Pool(NAMES[:3])
    for n in (4, 0, -1, True, 'x', None):
        with pytest.raises(ValueError):
            pool.sample(n)
    for n in (0.0, 1.5, 4):
        with pytest.raises(ValueError):
            pool.draw_holdout(n)
    assert len(pool.draw_holdout(1)) == 1 and len(pool.sample(2)) == 2


def test_the_ledger_knows_of_how_many_items_a_draw_was():
    pool = Pool(NAMES)
    pool.draw_holdout(np.int64(10)), pool.draw_holdout(5, seed=np.int64(3))
    assert [
        v['population'] for k, v in sorted(pool.ledger.settings().items()) if k.startswith('draw')
    ] == [60, 50]
    assert pool.draw_holdout(10) == pool.draw_holdout(np.int64(10))


def test_another_number_of_holdout_items_is_added_and_warns():
    pool = Pool(NAMES)
    first = pool.draw_holdout(10)
    with pytest.warns(FastaiALWarning, match='these 12 items are added'):
        second = pool.draw_holdout(12)
    assert (
        not set(first) & set(second)
        and len(pool.holdout) == 22
        and pool.draw_holdout(12) == second
        and pool.draw_holdout(10) == first
    )
    pool.draw_holdout(3, seed=1)


def test_an_answer_given_again_is_written_once():
    pool = Pool(NAMES)
    pool.label(NAMES[:3], ['a', 'b', 'c'], annotator='anna', seconds=2.0, note='x')
    n = len(pool.history)
    pool.label(NAMES[:3], ['a', 'b', 'c'], annotator='anna')
    pool.label(NAMES[0], 'a', annotator='anna', seconds=2.0, note='x')
    pool.ignore(NAMES[3])
    pool.ignore(NAMES[3])
    pool.add_pseudo(NAMES[4], 'a', scores=[0.5])
    pool.add_pseudo(NAMES[4], 'a', scores=[0.5])
    assert len(pool.history) == n + 2
    for again in (
        lambda: pool.label(NAMES[0], 'b', annotator='anna'),
        lambda: pool.label(NAMES[1], 'b', annotator='ben'),
        lambda: pool.label(NAMES[1], 'b', annotator='anna'),
        lambda: pool.label(NAMES[2], 'c', annotator='anna', seconds=3.0),
        lambda: pool.label(NAMES[2], 'c', annotator='anna', note='y'),
        lambda: pool.add_pseudo(NAMES[4], 'a', scores=[0.6]),
    ):
        n = len(pool.history)
        again()
        assert len(pool.history) == n + 1
    pool.label('text 9', 'a')
    pool.ignore('text 9', annotator='reader')
    pool.label('text 9', 'a')
    assert (
        'text 9' in pool.labelled.index
    )  # labelled again after another's label, so it counts again
    numbers = Pool(['x'])
    numbers.label('x', 1)
    numbers.label('x', 1.5)
    numbers.label('x', 1)
    assert numbers.labelled.label.tolist() == [1] and len(numbers.history) == 4


# Queries


def test_the_same_query_again_is_no_new_round(learn):
    query, before = learn.acquire(5), everything(learn.learn)
    again = learn.acquire(5)
    assert (
        again.uids == query.uids
        and np.array_equal(again.scores, query.scores)
        and learn.pool.round == 1
    )
    assert_same(everything(learn.learn), before)
    learn.pool.flag(query.uids[0])
    learn.pool.skip(query.uids[1])
    assert learn.acquire(5).uids == query.uids and learn.pool.round == 1
    for other in (
        dict(n=4),
        dict(n=5, by='entropy'),
        dict(n=5, seed=1),
        dict(n=5, posterior=MCDropout(k=9)),
    ):
        round = learn.pool.round
        learn.acquire(**other)
        assert (
            learn.pool.round == round + 1
            and learn.acquire(**other)
            and learn.pool.round == round + (1 if 'posterior' not in other else 1)
        )


def test_functions_of_the_same_name_are_not_the_same_query(learn):
    def rule(sign):
        return lambda log_probs: sign * log_probs.exp().mean(1).max(-1).values

    up, down = rule(1), rule(-1)
    first, second = learn.acquire(5, by=up), learn.acquire(5, by=down)
    assert first.uids != second.uids and learn.pool.round == 2
    assert learn.acquire(5, by=down).uids == second.uids and learn.pool.round == 2


@pytest.mark.parametrize(
    'change',
    [
        lambda learn, q: learn.label(q, answer(q.uids)),
        lambda learn, q: learn.pool.label(q.uids[0], 'a'),
        lambda learn, q: learn.pool.ignore(q.uids[0]),
        lambda learn, q: learn.fit(1),
        lambda learn, q: learn.pool.retract(sorted(trained_on(learn))[0]),
    ],
    ids=['all labelled', 'one labelled', 'ignored', 'fit', 'retracted'],
)
def test_after_a_change_it_is_a_new_round(learn, change):
    query = learn.acquire(5)
    change(learn, query)
    learn.acquire(5)
    assert learn.pool.round == 2


def test_an_open_query_survives_a_restart_and_an_answered_one_makes_way(learn):
    query = learn.acquire(5)

    def restarted():
        torch.manual_seed(7)  # other weights
        again = learner_of(Pool(NAMES, db=learn.pool.ledger.path))
        again.fit(1)
        return again

    again = restarted()
    same = again.acquire(5)
    assert (
        same.uids == query.uids
        and np.allclose(same.scores, query.scores)
        and again.pool.round == 1
        and set(same.predictions) <= set(VOCAB)
    )
    assert (
        same.info['acquisition'] == query.info['acquisition']
        and len(same.dl.dataset) == 5
        and [o['item'] for o in same.items] == query.uids
    )
    assert again.acquire(5, by='entropy').uids and again.pool.round == 2
    again.pool.close()
    third = restarted()
    third.label(third.acquire(5, by='entropy'), answer)
    assert (
        third.pool.round == 2
        and not set(third.acquire(5, by='entropy').uids) & set(third.pool.labelled.index)
        and third.pool.round == 3
    )
    third.pool.close()


def test_a_query_of_a_named_round_can_be_repeated_at_any_time(learn):
    first = learn.acquire(5, round=0)
    learn.label(first, answer(first.uids))
    learn.fit(1)
    second = learn.acquire(4, round=1)
    learn.label(second, answer(second.uids))
    learn.fit(1)
    assert (
        learn.acquire(5, round=0).uids == first.uids
        and learn.acquire(4, round=1).uids == second.uids
        and learn.pool.round == 2
    )
    with pytest.raises(ValueError, match='Round 0 was queried with other arguments'):
        learn.acquire(6, round=0)
    with pytest.raises(ValueError, match='Give 0 to 2'):
        learn.acquire(5, round=3)
    with pytest.raises(ValueError, match='Give 0 to 2'):
        learn.acquire(5, round=-1)


CELLS = """
from test_rounds import *
def cells(db, seed):
    "A notebook, from the top: every cell once"
    set_seed(seed)
    pool = Pool(NAMES, db=db)
    held = pool.draw_holdout(10)
    pool.label(held, answer(held))
    first = pool.sample(12)
    pool.label(first, answer(first))
    chosen = pool.typical(8, FRAME)
    pool.label(chosen, answer(chosen))
    learn = learner_of(pool)
    learn.fit(1)
    tested = learn.active_test(5)
    pool.label(tested, answer(tested.uids))
    query = learn.acquire(5, round=0)
    learn.label(query, answer)
    learn.fit(1)
    second = learn.acquire(4, round=1)
    learn.label(second, answer(second.uids))
    learn.fit(1)
    open_ = learn.acquire(3)
    found = dict(held=held, first=first, chosen=chosen, tested=tested.uids, query=query.uids,
        second=second.uids, open=open_.uids, events=len(pool.history), counts=str(pool.counts()))
    pool.close()
    return found
"""


def notebook():
    exec(CELLS.replace('from test_rounds import *', ''), globals(), space := {})
    return space['cells']


def test_running_the_cells_again_leaves_everything_as_it_was(tmp_path):
    cells = notebook()
    first = cells(tmp_path / 'labels.db', 1)
    assert cells(tmp_path / 'labels.db', 2) == first


def test_plain_calls_of_an_earlier_run_return_its_queries_and_go_on_from_there(tmp_path):
    def cells(rounds):
        pool = named_pool(tmp_path / 'again.db')
        learn, found = learner_of(pool), []
        for _ in range(rounds):
            learn.fit(1)
            query = learn.acquire(5, by='entropy')
            assert learn.acquire(5, by='entropy').uids == query.uids  # the same cell once more
            learn.label(query, answer(query.uids))
            found.append(query.uids)
        assert pool.round == rounds and len(pool.labelled) == 20 + 5 * rounds
        return found

    first = cells(3)
    for rounds in (3, 5):
        with pytest.warns(
            FastaiALWarning,
            match='query of round 0: 5 of its 5 items have an answer.*pass round=3',
        ):
            assert cells(rounds)[:3] == first


def test_rounds_without_a_fit_are_repeated_too(tmp_path):
    def cells():
        learn = learner_of(named_pool(tmp_path / 'again.db'))
        found = []
        for _ in range(3):
            query = learn.acquire(4, by='random')
            learn.label(query, answer(query.uids))
            found.append(query.uids)
        return found

    first = cells()
    with pytest.warns(FastaiALWarning, match='query of round 0'):
        assert cells() == first


def test_a_further_round_is_named_or_requested_with_other_arguments(tmp_path):
    def begin():
        learn = learner_of(named_pool(tmp_path / 'again.db'))
        learn.fit(1)
        return learn

    learn = begin()
    query = learn.acquire(5, by='entropy')
    learn.label(query, answer(query.uids))
    again = begin()
    further = again.acquire(5, by='entropy', round=1)
    assert again.pool.round == 2 and not {*further.uids} & {*query.uids}
    other = begin()
    assert (
        len(other.acquire(6, by='entropy')) == 6 and other.pool.round == 3
    )  # another call than that of round 0


@pytest.mark.slow
def test_running_the_cells_in_another_process_leaves_everything_as_it_was(tmp_path):
    first = notebook()(tmp_path / 'labels.db', 1)
    run = f'import os, sys\n{CELLS}\nprint(cells(sys.argv[1], 3), file=open(sys.argv[2], "w"))'
    here = os.environ | dict(PYTHONPATH=os.pathsep.join(p for p in sys.path if p))
    subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', run, tmp_path / 'labels.db', tmp_path / 'out'],
        check=True,
        env=here,
    )
    assert (tmp_path / 'out').read_text().strip() == str(first)


# A learner and the pool that it belongs to


class Asks(Callback):
    "What a user writes: asks inside fit"

    def __init__(self, **kwargs):
        self.kwargs, self.queries = kwargs, []

    def after_epoch(self):
        self.queries.append(self.learn.acquire(5, **self.kwargs))


def test_a_plain_callback_queries_items_of_the_pool(learn):
    cb, unlabelled = Asks(by='entropy'), set(learn.pool.unlabelled.index)
    learn.fit(2, cbs=cb)
    assert (
        [len(q) for q in cb.queries] == [5, 5]
        and set(cb.queries[0].uids) <= unlabelled
        and learn.pool.round == 2
    )
    events = learn.pool.history.query("kind == 'acquire'")
    assert events.uid.tolist() == [u for q in cb.queries for u in q.uids] and learn.history[
        'labelled'
    ].tolist() == [20, 20, 20]
    assert (
        learn.learn.acquire(5, by='entropy').uids
        == learn.acquire(5, by='entropy').uids
        == cb.queries[1].uids
    )


def test_without_a_pool_the_error_names_what_is_missing():
    learner = classes_learner()
    with pytest.raises(TypeError, match=r'dl=.*AcquireCallback'):
        learner.acquire(5)
    with (
        pytest.raises(TypeError, match=r'dl=.*AcquireCallback'),
        learner.no_bar(),
        learner.no_logging(),
    ):
        learner.fit(1, cbs=Asks())


def test_a_pool_that_never_called_the_training_items_labelled_is_refused(learn):
    other = Pool(NAMES)
    with pytest.raises(
        ValueError,
        match='trains on 20 items, and 20 of them have never been labelled.*db=.*pool.dataloaders',
    ):
        ActiveLearner(learn.learn, other)
    other.label(some := sorted(trained_on(learn))[:15], answer(some))
    with pytest.raises(ValueError, match='and 5 of them'):
        ActiveLearner(learn.learn, other)
    with pytest.raises(ValueError, match='and 5 of them'):
        other.grow(learn.dls)
    with pytest.raises(ValueError, match='and 5 of them'):
        learn.fit(2, cbs=AcquireCallback(2, pool=other, oracle=answer(NAMES)))
    assert len(trained_on(learn)) == 20
    reopened = Pool.open(learn.pool.ledger.path)
    assert ActiveLearner(learn.learn, reopened).grow() == 0
    reopened.close()


def test_items_retracted_since_the_loaders_were_made_still_belong_to_the_pool(tmp_path):
    pool = named_pool(tmp_path / 'a.db')
    dls = pool.dataloaders(BLOCK, bs=8, num_workers=0)
    pool.ignore(first := sorted(dls.train_ds.items.index)[0])
    pool.retract(second := sorted(dls.train_ds.items.index)[1])
    learn = ActiveLearner(Learner(dls, mlp(), CrossEntropyLossFlat(), cbs=MCDropout(k=4)), pool)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    assert len(trained_on(learn)) == 18 and not {first, second} & trained_on(learn)


def test_a_class_that_the_learner_lacks_is_refused_before_anything_is_written(learn):
    pool = learn.pool
    pool.set_vocab([*VOCAB, 'd'])  # as other DataLoaders of this pool do
    uids, n = sorted(pool.unlabelled.index)[:2], len(pool.history)
    with pytest.raises(
        ValueError,
        match="'d', the label of .* is not among the classes of this learner.*pool.dataloaders",
    ):
        learn.label(uids, ['d', 'd'])
    assert len(pool.history) == n
    pool.label(uids, ['d', 'd'])
    with pytest.raises(ValueError, match="'d', the label of"):
        learn.grow()
    with pytest.raises(ValueError, match="'d', the label of"):
        learn.fit(1)
    assert len(trained_on(learn)) == 20
    pool.label(uids, ['a', 'b'])
    learn.fit(1)
    assert len(trained_on(learn)) == 22


def test_answers_in_memory_warn_once(tmp_path):
    learn = learner_of(named_pool(':memory:'))
    with pytest.warns(FastaiALWarning, match="lost when this process ends.*db='labels.db'"):
        learn.annotate(sorted(learn.pool.unlabelled.index)[:2])
    learn.annotate(sorted(learn.pool.unlabelled.index)[:2])
    kept = learner_of(named_pool(tmp_path / 'a.db'))
    kept.annotate(sorted(kept.pool.unlabelled.index)[:2])
