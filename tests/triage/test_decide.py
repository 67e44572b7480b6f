"""Triage: decisions and why, every task, what is guaranteed and by which hold-out, the ledger, and
what can not be guaranteed"""

import contextlib
import inspect
import math
import warnings
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from fastai.basics import (
    Callback,
    DataBlock,
    Learner,
    RegressionBlock,
    TransformBlock,
    load_learner,
    set_seed,
)
from fastai.callback.tracker import EarlyStoppingCallback
from fastai.losses import CrossEntropyLossFlat, MSELossFlat
from fastai.vision.all import ImageBlock, MaskBlock, PILImageBW, Resize, ResizeMethod
from PIL import Image
from scipy.stats import binom
from torch import nn
from torch.utils.data import Subset

from conftest import (
    BLOCK,
    assert_same,
    class_of,
    everything,
    features_of,
    labels_learner,
    mlp,
    pictures_learner,
    pixels_learner,
    plain_dls,
    pool_learner,
    small_pool,
)
from fastai_al import FastaiALWarning
from fastai_al.active_learner import ActiveLearner
from fastai_al.evaluation.per_item import measure_items
from fastai_al.inference.passes import pool_pass
from fastai_al.pool.ledger import Event
from fastai_al.pool.pool import Pool
from fastai_al.pool.status import States
from fastai_al.posterior.base import Point
from fastai_al.posterior.dropout import MCDropout
from fastai_al.triage.apply import operations_of
from fastai_al.triage.bounds import min_holdout
from fastai_al.triage.certify import certify_pool, certify_pseudo
from fastai_al.triage.picks import Picks
from fastai_al.triage.result import Triage


def fitted(learn, epochs: int = 6):
    with learn.no_bar(), learn.no_logging():
        learn.fit(epochs, 1e-2)
    return learn


@pytest.fixture(scope='module')
def weights():
    set_seed(0)
    pool = small_pool(400, 100, 120)
    return fitted(pool_learner(pool)).model.state_dict()


@pytest.fixture
def learn(weights):
    pool = small_pool(400, 100, 120)
    learn = ActiveLearner(pool_learner(pool), pool)
    learn.model.load_state_dict(weights)
    with learn.no_bar(), learn.no_logging():
        yield learn


def test_each_item_is_decided_once_and_the_table_says_why(learn):
    with learn.no_bar():
        before = everything(learn.learn)
        found = learn.triage(0.1)
        assert_same(everything(learn.learn), before)
    frame = found.to_df()
    assert (
        set(frame.index) == set(learn.pool.unlabelled.index)
        and len(found) == len(frame) == 180
        and sum(found.counts().values()) == 180
    )
    held, _ = measure_items(learn.learn, learn.dls.valid, by='least_confidence')
    c = certify_pool(held.least_confidence, held.performance < 1, 0.1, population=400)
    assert found.certificates == {'all': c} and c.holds
    strange = frame.why.str.contains('outlier')
    assert (
        (frame.decision == 'pseudo') == ((frame.uncertainty < c.threshold) & ~strange)
    ).all() and 20 < found.counts()['pseudo'] < 180
    for decision, word in (
        ('pseudo', 'certain: least_confidence'),
        ('annotate', 'uncertain|check'),
        ('ignore', 'outlier|ambiguous'),
    ):
        assert frame.why[frame.decision == decision].str.match(word).all()
    asked = frame[frame.decision == 'annotate']
    assert (asked.score.diff().dropna() <= 1e-9).all() and frame.uncertainty[
        frame.decision == 'pseudo'
    ].is_monotonic_increasing
    alone, _ = measure_items(
        learn.learn,
        learn.dls.test_dl(learn.pool.unlabelled.loc[asked.index]),
        by='epistemic',
        metric=False,
    )
    assert np.allclose(asked.score, alone.epistemic, atol=1e-6)
    assert (
        'at most 28 of 280 items (0.1) get a wrong label' in found.report()
        and 'checked' in found.report()
    )


def test_nothing_is_written_before_it_is_applied_and_an_operation_is_revoked_as_one(learn):
    pool = learn.pool
    before = len(pool.history)
    found = learn.triage(0.1, ambiguous=0.3)
    assert len(pool.history) == before
    counts = found.counts()
    act = pool.apply(found)
    assert (
        act == 'triage 1'
        and pool.counts()['pseudo'] == counts['pseudo']
        and pool.counts()['ignored'] == counts['ignore']
        and pool.counts()['unlabelled'] == counts['annotate']
    )
    said = pool.pseudo
    assert (
        (said.label == found.to_df().label[said.index]).all()
        and set(said.source) == {act}
        and said.note.iloc[0]['error'] == 0.1
        and 'certain' in said.note.iloc[0]['why']
    )
    assert (
        pool.revoke() == counts['pseudo'] + counts['ignore'] and pool.counts()['unlabelled'] == 180
    )
    with pytest.raises(ValueError, match="operation='triage 7' is not an applied triage"):
        pool.revoke('triage 7')


def test_a_later_triage_takes_the_place_of_an_earlier_one_until_it_is_revoked(learn):
    pool = learn.pool
    first = pool.apply(learn.triage(0.1, rounds=3))
    before = pool.pseudo
    person = before.index[0]
    pool.label(person, (class_of(person) + 1) % 3, annotator='anna')
    again = learn.triage(0.05, rounds=3)
    assert (
        person not in again.frame.index and len(again) == 179
    )  # those that the first has decided are decided anew
    assert pool.apply(again) == 'triage 2'
    assert pool.counts()['pseudo'] == again.counts()['pseudo'] < len(before) - 1 and set(
        pool.pseudo.source
    ) <= {'triage 2'}
    assert pool.labelled.label[person] == (class_of(person) + 1) % 3
    pool.revoke('triage 2')
    after = pool.pseudo
    assert (
        set(after.source) == {first}
        and set(after.index) == set(before.index) - {person}
        and (after.label == before.label[after.index]).all()
        and person in pool.labelled.index
    )
    pool.revoke()
    assert pool.counts()['pseudo'] == 0 and pool.counts()['ignored'] == 0
    with pytest.raises(ValueError, match='none'):
        pool.revoke()
    assert pool.apply(learn.triage(0.1, rounds=3)) == 'triage 3'  # names are not used again


def test_an_empty_operation_is_an_operation(learn):
    first = learn.pool.apply(learn.triage(0.1, rounds=2))
    nothing = learn.triage(0.001, rounds=2, outliers=None, ambiguous=0)
    assert nothing.counts()['annotate'] == len(nothing)
    act = learn.pool.apply(nothing)
    assert (
        learn.pool.counts()['pseudo'] == 0
        and learn.pool.revoke(act) == 0
        and learn.pool.counts()['pseudo'] > 0
        and set(learn.pool.pseudo.source) == {first}
    )


def test_a_ledger_that_is_opened_again_knows_its_operations(tmp_path, weights):
    pool = small_pool(400, 100, 120, db=tmp_path / 'labels.db')
    learn = ActiveLearner(pool_learner(pool), pool)
    learn.model.load_state_dict(weights)
    with learn.no_bar():
        act = pool.apply(learn.triage(0.1))
    pool.close()
    again = Pool.open(tmp_path / 'labels.db')
    assert (
        set(again.pseudo.source) == {act}
        and again.revoke() > 0
        and again.counts()['unlabelled'] == 180
    )


def test_a_holdout_serves_so_many_triages(learn):
    learn.pool.apply(learn.triage(0.1))
    with pytest.warns(FastaiALWarning, match='has already certified 1 triage'):
        learn.triage(0.1)
    learn.triage(0.1, delta=0.2, rounds=2)


def test_the_guarantee_does_not_cover_what_was_acquired_before_the_holdout_was_drawn(weights):
    def learner(pool):
        learn = ActiveLearner(pool_learner(pool), pool)
        learn.model.load_state_dict(weights)
        return learn

    def acquired(pool, n):
        query = learner(pool).acquire(n, by='entropy')
        pool.label(query.uids, [class_of(u) for u in query.uids])

    def held(pool, n):
        with (
            pytest.warns(FastaiALWarning, match='drawn after')
            if pool.round
            else contextlib.nullcontext()
        ):
            uids = pool.draw_holdout(n, seed=1)
        pool.label(uids, [class_of(u) for u in uids])

    late = small_pool(400, 100, 0)
    with pytest.warns(FastaiALWarning, match='Nothing validates'):
        acquired(late, 60)
    held(late, 120)
    with learner(late).no_bar():
        report = learner(late).triage(0.1).report()
    assert 'was drawn after 60 items had been acquired' in report and 'BROKEN' not in report
    assert (
        'uniformly from 240 items' in report and 'at most 12 of 120 items (0.1)' in report
    )  # of 400 items 160 had a label when it was drawn
    parts = small_pool(400, 100, 60)
    acquired(parts, 60)
    held(parts, 60)
    with learner(parts).no_bar():
        with pytest.warns(
            FastaiALWarning, match='60 items were acquired between two draws of the hold-out'
        ):
            found = learner(parts).triage(0.1)
    assert 'BROKEN: the hold-out was drawn in parts' in found.report()
    asked = small_pool(400, 100, 60)  # what was queried and never answered can still be drawn
    learner(asked).acquire(60, by='entropy')
    held(asked, 60)
    with learner(asked).no_bar():
        assert 'BROKEN' not in learner(asked).triage(0.1).report()


def test_delta_is_counted_once_for_each_triage_and_also_when_it_is_revoked(learn):
    found = learn.triage(0.1)
    learn.pool.apply(found)
    learn.pool.revoke()
    learn.pool.apply(found)  # the same one again
    with pytest.warns(
        FastaiALWarning,
        match='has already certified 1 triage, which used 0.05 of delta, and this one uses 0.025.*'
        'request '
        'a larger delta',
    ):
        learn.triage(0.1, rounds=2)
    with pytest.warns(FastaiALWarning, match='rounds=2 or more'):
        learn.triage(0.1, delta=0.1)
    learn.triage(0.1, delta=0.1, rounds=2)
    assert learn.pool.pseudo.note.iloc[0]['rounds'] == 1


def test_what_an_interrupt_leaves_of_an_operation(learn, monkeypatch):
    found, pool = learn.triage(0.1), learn.pool
    write = pool.ledger.append

    def interrupted(*args):
        write(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(pool.ledger, 'append', interrupted)
    with pytest.raises(KeyboardInterrupt):
        pool.apply(found)
    monkeypatch.undo()
    assert operations_of(pool)['standing'] == ['triage 1'] and set(pool.pseudo.source) == {
        'triage 1'
    }  # both were written


def test_revoking_operations_from_the_middle(learn):
    pool = learn.pool
    one, two, three = (
        pool.apply(learn.triage(error, delta=0.3, rounds=3)) for error in (0.1, 0.08, 0.1)
    )
    pool.revoke(two)
    pool.revoke(three)
    assert (
        set(pool.pseudo.source) == {one}
        and pool.counts()['pseudo'] > 20
        and pool.revoke() > 20
        and pool.counts()['pseudo'] == 0
    )


def test_a_temperature_that_was_set_on_the_holdout_warns(learn):
    held = learn.dls.test_dl(learn.pool.holdout, with_labels=True)
    learn.calibrate(held)
    with pytest.warns(FastaiALWarning, match='calibrate used the hold-out'):
        assert 'BROKEN: calibrate' in learn.triage(0.1).report()
    part = learn.pool.holdout
    learn.calibrate(learn.dls.test_dl(part[:60], with_labels=True))
    learn.triage(
        0.1, holdout=learn.dls.test_dl(part[60:], with_labels=True)
    )  # no warning: others set it


def test_what_a_triage_of_another_kind_guarantees(learn):
    assert (
        'No item is called an outlier' not in learn.triage(0.1, features=False).report()
    )  # asked for: the model has a linear layer
    assert (
        'is a share of the pool'
        not in learn.triage(0.3, guarantee='pseudo').report() + learn.triage(0.001).report()
    )
    assert 'Items predicted as 1: With' in learn.triage(0.3, per_class=True).report()
    found = certify_pseudo(np.arange(300) / 300, np.zeros(300), 0.01)
    assert (
        not found.holds
        and certify_pseudo(
            np.arange(300) / 300, np.zeros(300), math.ceil(found.min_error * 1e4) / 1e4
        ).holds
        and f'an error of at least {math.ceil(found.min_error * 1e4) / 1e4:.4g}' in str(found)
    )
    for call in (lambda: learn.pool.apply('x'), lambda: learn.triage(0.1, holdout=[1, 2])):
        with pytest.raises(TypeError):
            call()
    for bad in (None, [0.05], '.1'):
        with pytest.raises(ValueError, match='is not a share'):
            learn.triage(bad)


def test_items_that_joined_after_the_holdout_was_drawn_are_reported(tmp_path, weights):
    small_pool(400, 100, 120, db=tmp_path / 'labels.db').close()
    pool = Pool(range(420), db=tmp_path / 'labels.db')  # twenty new ones
    learn = ActiveLearner(pool_learner(pool), pool)
    learn.model.load_state_dict(weights)
    with learn.no_bar():
        with pytest.warns(
            FastaiALWarning,
            match='20 of the items to decide joined the pool after its hold-out was drawn, '
            "for example '4\\d\\d'",
        ):
            found = learn.triage(0.1)
        assert (
            'BROKEN: 20 of these items joined the pool after' in found.report()
            and 'of 280 items are 28' in found.report()
        )
        older = learn.triage(
            0.1, learn.dls.test_dl(pool.unlabelled.drop([str(i) for i in range(400, 420)]))
        )  # no warning
        assert len(older) == 180 and 'BROKEN' not in older.report()
        test = learn.active_test(150)
        pool.label(test.uids, [class_of(u) for u in test.uids])
        assert (
            'BROKEN' not in learn.triage(0.1, **learn.test_holdout()).report()
        )  # these were drawn from all of them


def test_a_persons_label_outranks_what_a_triage_ignores_later(learn):
    found = learn.triage(0.1, ambiguous=0.4)
    uid = found.frame.index[found.frame.decision == 'ignore'][0]
    learn.pool.apply(found)
    learn.pool.label(uid, 1, annotator='anna')
    learn.pool.ledger.append(
        [Event(uid, 'ignore', source='triage 9')]
    )  # another process, in the meantime
    assert learn.pool.labelled.label[uid] == 1


def test_holdouts_count_with_the_labels_that_they_have_now(learn):
    before = learn.triage(0.1).certificates['all']
    held = list(learn.pool.holdout.index)
    learn.pool.label(held, [(class_of(u) + 1) % 3 for u in held], annotator='person')
    with pytest.warns(
        FastaiALWarning,
        match='Of the 5 hold-out items below the threshold, 100.0% are wrong, significantly more '
        'than error=0.1, so no pseudo-labels are given.*guarantee=.pseudo',
    ):
        found = learn.triage(0.1)
    after = found.certificates['all']
    assert (
        after.holdout == before.holdout == 120
        and after.below == 5 < before.below
        and after.exceeds_error
        and not before.exceeds_error
    )  # each of the first is wrong now
    assert (
        found.counts()['pseudo'] == 0
        and 'so no pseudo-labels are given' in found.report()
        and found.frame.why.str.contains('not pseudo-labelled: .* is below the certified').any()
    )


def test_a_holdout_that_is_labelled_in_part_certifies_nothing():
    pool = small_pool(200, 60, 0)
    held = pool.draw_holdout(60)
    pool.label(held[:40], [class_of(u) for u in held[:40]])
    with pytest.warns(FastaiALWarning, match='do not validate'):
        learn = ActiveLearner(pool_learner(pool), pool)
    fitted(learn)
    part = learn.dls.test_dl(pool.holdout.loc[held[:40]], with_labels=True)
    with learn.no_bar():
        for kwargs in ({}, dict(holdout=part)):
            with pytest.raises(
                ValueError,
                match=f'20 of the 60 hold-out items are not labelled yet, for example '
                f"'{held[40]}'.*unanswered='wrong'",
            ):
                learn.triage(0.6, **kwargs)
        as_wrong = [
            learn.triage(0.6, unanswered='wrong', **kwargs).certificates['all']
            for kwargs in ({}, dict(holdout=part))
        ]
        frame = pd.concat(
            [
                measure_items(learn.learn, part, by='least_confidence')[0],
                measure_items(
                    learn.learn,
                    learn.dls.test_dl(pool.rows.loc[held[40:]]),
                    by='least_confidence',
                    metric=False,
                )[0].assign(performance=0.0),
            ]
        )
        assert (
            as_wrong
            == [certify_pool(frame.least_confidence, frame.performance < 1, 0.6, population=140)]
            * 2
        )
        pool.label(held[40:], [class_of(u) for u in held[40:]])
        assert (
            learn.triage(0.6).info['unanswered'] == 0
            and learn.triage(0.6).certificates['all'].wrong < as_wrong[0].wrong
        )
        with pytest.raises(ValueError, match="unanswered='skip' has to be 'wrong'"):
            learn.triage(0.6, unanswered='skip')


def odd(u) -> bool:
    "Is this an item that nobody can label?"
    return features_of(u)[5] > 0.7


def ignored_in(learn, road: str) -> list[str]:
    """The odd ones of the hold-out, which a person, several ways of saying it, has left without
    a label"""
    pool = learn.pool
    strange = [u for u in pool.holdout.index if odd(u)]
    pool.retract(strange)
    if road == 'ignored':
        pool.ignore(strange, annotator='Ada')
    elif road == 'skipped':
        pool.skip(strange, annotator='Ada')
    elif road == 'by the reader':
        pool.ignore(strange, annotator='reader', note='can not be read')
    else:
        pool.ignore(strange[::2]), pool.skip(strange[1::2], annotator='Ada')
    return strange


@pytest.mark.parametrize('road', ['ignored', 'skipped', 'by the reader', 'both'])
def test_holdout_items_that_nobody_could_label_count_as_wrong(learn, road):
    certain = learn.triage(0.2).certificates['all']
    strange = ignored_in(learn, road)
    assert 20 < len(strange) < 40
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', FastaiALWarning)
        found = learn.triage(0.2)
    held, _ = measure_items(
        learn.learn,
        learn.dls.test_dl(
            learn.pool.rows.loc[[e.uid for e in learn.pool.ledger.since() if e.kind == 'holdout']]
        ),
        by='least_confidence',
        metric=False,
    )
    wrong = [u in strange or held.prediction[u] != class_of(u) for u in held.index]
    expected = certify_pool(held.least_confidence, wrong, 0.2, population=400)
    assert (
        found.certificates['all'] == expected
        and expected.threshold < certain.threshold
        and found.info['unanswered'] == len(strange)
    )
    assert f'{len(strange)} of the 120 hold-out items have no label' in found.report()
    assert (
        'With 120 hold-out items' in found.report()
        and 'The 120 hold-out items were drawn at one time, uniformly from 400 items'
        in found.report()
    )
    with warnings.catch_warnings():
        warnings.simplefilter(
            'ignore', FastaiALWarning
        )  # 'not labelled yet', of those that were skipped
        dls = learn.pool.dataloaders(BLOCK, bs=8, num_workers=0)
    assert not set(strange) & {*dls.valid_ds.items.index, *dls.train_ds.items.index} and len(
        dls.valid_ds
    ) == 120 - len(strange)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', FastaiALWarning)
        own = learn.triage(0.2, holdout=dls.valid).certificates['all']
        with pytest.raises(
            ValueError,
            match=f'{len(strange)} items of holdout= have no label in the pool any more',
        ):
            learn.triage(0.2, holdout=learn.dls.valid)  # made before
        learn.pool.label(strange, [class_of(u) for u in strange], annotator='Ada')
    assert own == expected and learn.triage(0.2).certificates['all'] == certain


def test_items_with_retracted_answers_are_queried_again(learn):
    u = learn.pool.holdout.index[3]
    learn.pool.retract([u])
    learn.pool.flag([u], annotator='Ada')
    with pytest.raises(
        ValueError, match=f"1 of the 120 hold-out items are not labelled yet, for example '{u}'"
    ):
        learn.triage(0.1)
    learn.pool.ignore([u])
    assert learn.triage(0.1).info['unanswered'] == 1
    learn.pool.retract([u])
    assert learn.triage(0.1, unanswered='wrong').info['unanswered'] == 1
    for u in learn.pool.holdout.index:
        learn.pool.ignore([u])
    with pytest.raises(ValueError, match='None of the 120 hold-out items has a label'):
        learn.triage(0.1)


def test_a_part_of_the_holdout_counts_all_that_was_ignored(learn):
    strange = ignored_in(learn, 'ignored')
    part = learn.pool.holdout[40:]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', FastaiALWarning)
        found = learn.triage(0.3, holdout=learn.dls.test_dl(part, with_labels=True))
    assert (
        found.info['unanswered'] == len(strange)
        and found.certificates['all'].holdout == len(part) + len(strange)
        and found.certificates['all'].total == 400 - len(part) - len(strange)
    )


def test_holdout_items_that_can_not_be_read_count_as_wrong_everywhere(tmp_path):
    learn = pictures_learner(tmp_path, ResizeMethod.Squish)
    one, other = learn.pool.holdout.index[:2]
    with learn.no_bar():
        before = learn.triage(0.95, delta=0.5).certificates['all']
    (tmp_path / 'a' / one).write_text('no picture')
    with learn.no_bar():
        with pytest.raises(ValueError, match='cannot be read'):
            learn.triage(0.95, delta=0.5)
        after = learn.triage(0.95, delta=0.5, skip=True)
        learn.pool.ignore([one])
        ignored = learn.triage(0.95, delta=0.5)  # people who saw it could not label it
    for found in (after, ignored):
        c = found.certificates['all']
        assert (
            (c.holdout, c.unlabelled, c.total) == (9, 1, before.total)
            and found.info['unanswered'] == found.info['unread'] == 1
            and 'the 1 that can not be read' in found.report()
        )
    (tmp_path / 'a' / other).write_text('no picture')
    learn.pool.ignore([other])
    with (
        learn.no_bar(),
        pytest.warns(FastaiALWarning, match='The mean loss of the .* more than error'),
    ):
        assert (
            learn.triage(0.95, delta=0.5).certificates['all'].unlabelled == 2
        )  # all that were ignored


def test_a_holdout_with_missing_items_certifies_nothing(learn):
    gone = learn.pool.holdout.index[0]
    pool = Pool([u for u in learn.pool.rows.index if u != gone])
    pool.write([replace(e, id=None) for e in learn.pool.ledger.since() if e.kind != 'add'])
    with pytest.raises(
        ValueError,
        match=f"1 of the 120 hold-out items are not in this pool any more, for example '{gone}'",
    ):
        ActiveLearner(pool_learner(pool), pool).triage(0.1)


def test_the_guarantee_covers_all_items_that_the_holdout_was_drawn_from(learn):
    query = learn.acquire(100, by='entropy')
    learn.pool.label(query, [class_of(u) for u in query.uids])
    found = learn.triage(0.1)
    held, _ = measure_items(learn.learn, learn.dls.valid, by='least_confidence')
    assert len(found) == 80 and found.certificates['all'] == certify_pool(
        held.least_confidence, held.performance < 1, 0.1, population=400
    )
    assert (
        'at most 28 of 280 items (0.1) get a wrong label' in found.report()
        and 'uniformly from 400 items' in found.report()
        and 'for the 80 that are decided here no smaller number is guaranteed' in found.report()
    )
    learn.pool.apply(found)
    assert learn.pool.history.note.iloc[-1]['population'] == 400
    left = learn.dls.test_dl(learn.pool.rows.loc[found.frame.index])
    other = learn.learn.triage(0.1, left)  # without a pool it is not known from how many
    assert (
        other.certificates['all'] == certify_pool(held.least_confidence, held.performance < 1, 0.1)
        and 'The guarantee is an expectation' in other.report()
    )
    assert learn.learn.triage(0.1, left, population=400).certificates == found.certificates
    with pytest.raises(
        ValueError,
        match='population=100 has to be the number of items that the 120 hold-out items were drawn '
        'from',
    ):
        learn.learn.triage(0.1, left, population=100)
    with pytest.raises(TypeError, match='unanswered=str is not a DataLoader'):
        learn.learn.triage(0.1, left, unanswered='wrong')


def older(pool):
    "The same ledger as version 0.11.0 wrote it"
    past = Pool(pool.rows.index)
    past.write(
        [
            replace(e, id=None, note=None) if e.kind == 'holdout' else replace(e, id=None)
            for e in pool.ledger.since()
            if e.kind != 'add'
        ]
    )
    return past


def test_older_ledgers_record_how_many_items_a_holdout_was_drawn_from():
    pool = small_pool(400, 100, 0)
    pool.ignore(pool.sample(7)), pool.add_pseudo(pool.sample(5, seed=3), [0] * 5)
    held = pool.draw_holdout(100)
    pool.label(held, [class_of(u) for u in held])
    assert (
        pool.history.note[pool.history.kind == 'holdout'].tolist() == [dict(population=288)] * 100
    )
    learners = [ActiveLearner(pool_learner(p), p) for p in (pool, older(pool))]
    for learn in learners:
        with learn.no_bar(), pytest.warns(FastaiALWarning) as told:
            found = learn.triage(0.5)
        assert found.info['population'] == 288 and found.certificates['all'].total == 188
        assert (
            any(
                '5 of the items to decide were pseudo-labelled or ignored when the hold-out '
                'was drawn' in str(w.message)
                for w in told
            )
            and 'BROKEN: 5 of these items were not among' in found.report()
        )


def test_a_holdout_drawn_in_parts_represents_what_the_first_was_drawn_from(tmp_path, weights):
    def learner(pool):
        learn = ActiveLearner(pool_learner(pool), pool)
        learn.model.load_state_dict(weights)
        return learn

    new = small_pool(400, 100, 60, db=tmp_path / 'a.db')
    for pool in (new, older(new)):
        pool.label(second := pool.draw_holdout(60, seed=1), [class_of(u) for u in second])
        learn = learner(pool)
        with learn.no_bar():
            found = learn.triage(0.1)
            assert (
                found.certificates['all'].total == 280
                and found.certificates['all'].holdout == 120
                and 'BROKEN' not in found.report()
            )
            part = learn.triage(
                0.1, holdout=learn.dls.test_dl(pool.holdout.loc[second], with_labels=True)
            )
            assert part.certificates['all'].total == 400 - 60 - 100 - 60
    (
        learn.pool.apply(found),
        learn.pool.label(
            third := learn.pool.draw_holdout(20, seed=2), [class_of(u) for u in third]
        ),
    )
    with (
        learn.no_bar(),
        pytest.warns(FastaiALWarning, match='or decided by a triage between two draws'),
    ):
        assert (
            'BROKEN: the hold-out was drawn in parts'
            in learn.triage(0.1, delta=0.2, rounds=4).report()
        )
    joined = Pool(range(420), db=tmp_path / 'a.db')
    joined.label(third := joined.draw_holdout(20, seed=2), [class_of(u) for u in third])
    learn = learner(joined)
    with (
        learn.no_bar(),
        pytest.warns(
            FastaiALWarning,
            match='20 items joined the pool between two draws of the hold-out, '
            "for example '4\\d\\d'",
        ),
    ):
        assert (
            'BROKEN: the hold-out was drawn in parts, and 20 items joined'
            in learn.triage(0.1).report()
        )


def mislabelled(learn, wrong) -> object:
    "The hold-out, with false labels where `wrong` says so of its rows"
    held, _ = measure_items(learn.learn, learn.dls.valid, by='least_confidence')
    rows = learn.pool.holdout
    rows['label'] = [
        (held.prediction[u] + 1) % 3 if w else held.prediction[u]
        for u, w in zip(held.index, wrong(held))
    ]
    return learn.dls.test_dl(rows, with_labels=True)


def test_labels_of_a_class_that_misleads_are_not_given(learn):
    "The few surest of what a model calls 1 are a small share of it, and as wrong as all of it"
    holdout = mislabelled(learn, lambda held: held.prediction == 1)
    with pytest.warns(
        FastaiALWarning,
        match='hold-out items predicted as 1 below the threshold, 100.0% are wrong,'
        ' significantly more '
        'than error=0.5, so no pseudo-labels are given',
    ):
        found = learn.learn.triage(
            0.5, learn.dls.test_dl(learn.pool.unlabelled), holdout=holdout, per_class=True
        )
    said = found.frame[found.frame.decision == 'pseudo']
    assert (
        found.certificates['1'].exceeds_error
        and not found.certificates['0'].exceeds_error
        and set(said.label) == {0, 2}
        and 'predicted as 1 below the threshold' in found.report()
    )


def test_labels_that_test_items_show_to_mislead_are_not_given(learn):
    N, m = 400, 120
    holdout, dl = (
        mislabelled(learn, lambda held: held.least_confidence < 1),
        learn.dls.test_dl(learn.pool.unlabelled),
    )
    picked = Picks(1 / (N - np.arange(m)), N, 1.0)
    with pytest.warns(
        FastaiALWarning,
        match='an estimated 100.0% are wrong, significantly more than error=0.2.*Train on more '
        'labels.$',
    ):
        found = learn.learn.triage(0.2, dl, holdout=holdout, picks=picked)
    assert (
        found.certificates['all'].holds
        and found.certificates['all'].exceeds_error
        and found.counts()['pseudo'] == 0
    )
    right = learn.learn.triage(
        0.2, dl, holdout=mislabelled(learn, lambda held: held.least_confidence < 0), picks=picked
    )
    assert right.counts()['pseudo'] > 100 and not right.info['warnings']
    with pytest.raises(ValueError, match='Leave out population= and unanswered='):
        learn.learn.triage(0.2, dl, holdout=holdout, picks=picked, population=N)


@pytest.mark.parametrize(
    'ranks, below, given',
    [([5, 12, 19, 26, 33, 40, 41], 40, True), ([1, 2, 3, 4, 5, 6, 7], 6, False)],
)
def test_too_many_errors_below_the_threshold_warn_and_if_significant_give_no_labels(
    learn, ranks, below, given
):
    """Six wrong held-out items may be below the threshold: of 40 they may be chance, of six they
    are none"""
    dl, holdout = (
        learn.dls.test_dl(learn.pool.unlabelled),
        mislabelled(learn, lambda held: held.least_confidence.rank().isin(ranks)),
    )
    with pytest.warns(FastaiALWarning, match='more than error=0.1') as told:
        found = learn.learn.triage(0.1, dl, holdout=holdout)
    c = found.certificates['all']
    assert (
        (c.below, c.wrong, c.mean_loss) == (below, 6, 6 / below)
        and c.p_value == pytest.approx(binom.sf(5, below, 0.1))
        and c.exceeds_error != given
    )
    assert (
        (found.counts()['pseudo'] > 0) == given
        and ('so no pseudo-labels' in str(told[0].message)) != given
        and str(told[0].message) in found.report()
    )


def test_an_older_triage_does_not_take_the_place_of_a_newer_one(learn):
    pool = learn.pool
    older, newer = (
        learn.triage(0.1, delta=0.1, rounds=4),
        learn.triage(0.1, delta=0.1, rounds=4, ambiguous=0.3),
    )
    first = pool.apply(older)
    assert (
        pool.apply(newer) == 'triage 2' and pool.apply(newer) == 'triage 3'
    )  # the newer one of the two, and itself once more
    with pytest.raises(
        ValueError,
        match=r'180 of these items were decided by triage 2, triage 3, which were made after this '
        r"triage.*pool.revoke\('triage 3'\)",
    ):
        pool.apply(older)
    assert operations_of(pool)['standing'] == [first, 'triage 2', 'triage 3']
    for act in ('triage 3', 'triage 2'):
        pool.revoke(act)
    assert pool.apply(older) == 'triage 4'
    pool.revoke('triage 4'), pool.revoke(first)
    one, other = (
        learn.triage(0.1, learn.dls.test_dl(pool.unlabelled.iloc[:40]), delta=0.4, rounds=8),
        learn.triage(0.1, learn.dls.test_dl(pool.unlabelled.iloc[40:]), delta=0.4, rounds=8),
    )
    pool.apply(other), pool.apply(one)  # of other items: in any order


def test_a_newer_triage_that_leaves_all_to_a_person_stands_too(learn):
    pool, older = learn.pool, learn.triage(0.1, delta=0.1, rounds=4)
    strict = learn.triage(0.001, delta=0.1, rounds=4, outliers=None, ambiguous=0)
    pool.apply(older), pool.apply(strict)
    assert pool.counts()['pseudo'] == 0 and len(pool.unlabelled) == 180
    with pytest.raises(
        ValueError, match='180 of these items were decided by triage 2, which was made'
    ):
        pool.apply(older)
    pool.revoke('triage 1')
    assert pool.counts()['pseudo'] == 0


@pytest.mark.parametrize('seed', range(12))
def test_what_counts_is_what_the_last_unrevoked_operation_decided(learn, seed):
    "Acts, revocations, and what people say and take back, in any order, beside a list of the same"
    rng, pool, template = np.random.default_rng(seed), Pool(range(30)), learn.triage(0.3, delta=0.5)
    uids, standing, person = [str(i) for i in range(30)], {}, {}
    for step in range(15):
        what = rng.random()
        if what < 0.5:
            some = [u for u in uids if rng.random() < 0.6]
            rows = [
                dict(
                    decision=rng.choice(['pseudo', 'annotate', 'ignore']),
                    label=int(rng.integers(3)),
                    confidence=0.5,
                    why='so',
                )
                for _ in some
            ]
            act = pool.apply(
                replace(
                    template,
                    frame=pd.DataFrame(
                        rows, index=some, columns=['decision', 'label', 'confidence', 'why']
                    ),
                    pool=pool,
                    key=str(step),
                    at=float(step),
                )
            )
            standing[act] = {
                u: (r['decision'], r['label']) for u, r in zip(some, rows) if u not in person
            }
        elif what < 0.8 and standing:
            act = rng.choice(list(standing))
            pool.revoke(act)
            del standing[act]
        elif what < 0.9:
            u = rng.choice(uids)
            pool.label([u], [1], annotator='Ada')
            person[u] = 1
        elif len(pool.pseudo):
            u = rng.choice(list(pool.pseudo.index))
            pool.retract([u])
            for decided in standing.values():
                decided.pop(u, None)
        for u in uids:
            want = (
                ('label', 1)
                if u in person
                else next(
                    (decided[u] for decided in reversed(standing.values()) if u in decided),
                    ('annotate', None),
                )
            )
            status = pool.state(u).status
            assert (
                status
                == dict(label='labelled', pseudo='pseudo', annotate='unlabelled', ignore='ignored')[
                    want[0]
                ]
            )
            if want[0] == 'pseudo':
                assert pool.pseudo.label[u] == want[1]


def test_another_holdout_has_a_delta_of_its_own(learn):
    learn.pool.apply(learn.triage(0.1))
    strangers = range(900, 1050)
    with pytest.warns(FastaiALWarning, match='has already certified 1 triage'):
        learn.triage(0.1)
    other = learn.dls.test_dl(
        pd.DataFrame(
            dict(item=strangers, label=[class_of(i) for i in strangers]),
            index=pd.Index(map(str, strangers), name='uid'),
        ),
        with_labels=True,
    )
    found = learn.triage(0.1, holdout=other)  # no warning
    assert found.certificates['all'].holdout == 150
    learn.pool.apply(found)
    with pytest.warns(
        FastaiALWarning, match='has already certified 1 triage, which used 0.05'
    ) as told:
        learn.triage(0.1, holdout=other)
    ours = [w for w in told if w.category is FastaiALWarning]  # pandas 2.0 warns too
    assert [w.filename for w in ours] == [__file__]  # the line that led to it


def test_a_target_that_is_not_known_is_no_right_answer():
    dls = plain_dls(y=lambda i: features_of(i)[:1] * (float('nan') if i == 25 else 1))
    learn = Learner(dls, mlp(1, 0.1), MSELossFlat(), cbs=MCDropout(k=4))
    with (
        learn.no_bar(),
        pytest.raises(
            ValueError,
            match='The performance on 1 of the 20 hold-out items is NaN or infinite, '
            'for example on .25.',
        ),
    ):
        learn.triage(0.1, dls.test_dl(range(50, 60)), tolerance=0.5)


def test_pseudo_labels_of_values_weigh_by_their_confidence():
    df = pd.DataFrame(
        dict(
            row=[f'r{i}' for i in range(260)],
            a=[float(features_of(i)[0]) for i in range(260)],
            b=[float(features_of(i)[1]) for i in range(260)],
        )
    )
    pool = Pool.from_df(df.assign(y=None), ['a', 'b'], 'y', uid='row')
    truth = dict(zip(df.row, df.a - df.b))
    pool.label(pool.draw_holdout(80), truth), pool.label(pool.sample(40), truth)
    block = DataBlock(
        (TransformBlock(), RegressionBlock()),
        get_x=lambda row: torch.tensor([row.a, row.b], dtype=torch.float32),
    )
    net = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 1))
    learn = ActiveLearner(
        Learner(
            pool.dataloaders(block, bs=8, num_workers=0), net, MSELossFlat(), cbs=MCDropout(k=6)
        ),
        pool,
    )
    fitted(learn)
    with learn.no_bar():
        found = learn.triage(0.6, tolerance=0.5)
        assert (
            found.counts()['pseudo'] > 20
            and 0 < found.frame.confidence.min() < found.frame.confidence.max() <= 1
        )
        assert found.certificates['all'].holds
    pool.apply(found)
    assert (
        len(pool.dataloaders(block, bs=8, num_workers=0, pseudo='confidence').train_ds)
        == 40 + found.counts()['pseudo']
    )


def test_what_is_trained_on_is_not_decided(learn):
    act = learn.pool.apply(learn.triage(0.1))
    both = ActiveLearner(
        Learner(
            learn.pool.dataloaders(BLOCK, bs=8, pseudo=True, num_workers=0),
            mlp(),
            CrossEntropyLossFlat(),
            cbs=MCDropout(k=6),
        ),
        learn.pool,
    )
    both.model.load_state_dict(learn.model.state_dict())
    with both.no_bar():
        found = both.triage(0.1, delta=0.1, rounds=2)
        assert not set(found.frame.index) & set(both.dls.train_ds.items.index) and set(
            learn.pool.pseudo.source
        ) == {act}
        assert (
            f'The pool has {len(learn.pool.pseudo)} other pseudo-labels' in found.report()
            and 'other pseudo-labels' not in learn.triage(0.1, delta=0.1, rounds=2).report()
        )
        with pytest.raises(ValueError, match='items to decide are trained on'):
            both.triage(0.1, both.dls.test_dl(learn.pool.pseudo))
        with pytest.raises(ValueError, match='items to decide are in the hold-out'):
            both.triage(0.1, both.dls.test_dl(learn.pool.holdout))


def test_a_triage_is_for_its_own_pool(learn):
    found = learn.triage(0.1)
    with pytest.raises(ValueError, match='is of another pool'):
        small_pool(400, 0, 0).apply(found)
    unnamed = learn.learn.triage(
        0.1,
        learn.dls.test_dl(learn.pool.unlabelled).new(
            Subset(learn.dls.test_dl(learn.pool.unlabelled).dataset, range(30))
        ),
    )
    with pytest.raises(ValueError, match='items without uids'):
        learn.pool.apply(unnamed)


def test_in_the_middle_of_training(learn):
    class Decide(Callback):
        def after_epoch(self):
            before = everything(self.learn)
            found.append(self.learn.triage(0.3, dl))
            assert_same(everything(self.learn), before)

    dl, found = learn.dls.test_dl(learn.pool.unlabelled), []
    learn.fit(1, cbs=Decide())
    assert_same(
        found[0].frame.drop(columns='index').to_dict('list'),
        learn.learn.triage(0.3, dl).frame.drop(columns='index').to_dict('list'),
    )


def test_an_exported_learner_trains_and_decides(learn, tmp_path):
    learn.learn.path = tmp_path
    learn.export('model.pkl')
    again = load_learner(tmp_path / 'model.pkl')
    again.dls = learn.dls
    with again.no_bar(), again.no_logging():
        again.fit(1)
        assert again.triage(0.3, learn.dls.test_dl(learn.pool.unlabelled)).counts()


def test_masks_are_written_beside_and_never_over_pictures(tmp_path):
    learn = pictures_learner(tmp_path, ResizeMethod.Squish)
    before = {f: f.read_bytes() for f in tmp_path.rglob('*.png')}
    with learn.no_bar():
        found = learn.triage(0.95, delta=0.5)
        assert found.counts()['pseudo'] > 10
        found.save_masks(tmp_path / 'said')
        learn.pool.apply(found)
    assert {f: f.read_bytes() for f in before} == before and len(
        list((tmp_path / 'said').rglob('*.png'))
    ) == found.counts()['pseudo']
    learn.grow()
    assert (
        len(
            learn.pool.dataloaders(
                DataBlock(
                    (ImageBlock(PILImageBW), MaskBlock(codes=['no', 'yes'])),
                    item_tfms=Resize(8, ResizeMethod.Squish),
                ),
                bs=5,
                pseudo=True,
                num_workers=0,
            )
            .one_batch()[1]
            .shape
        )
        == 3
    )


def test_pseudo_masks_are_drawn_before_they_are_written(tmp_path):
    learn = pictures_learner(tmp_path, ResizeMethod.Squish)
    with learn.no_bar():
        found = learn.triage(0.95, delta=0.5)
        found.show('pseudo', max_n=2)
    fig = plt.gcf()
    assert len([ax for ax in fig.axes if ax.images]) == 2 and [
        line.get_text() for line in fig.legends[0].get_texts()
    ] == ['predicted']
    plt.close('all')


def test_masks_of_a_crop_and_of_other_weights_are_refused(tmp_path):
    learn = pictures_learner(tmp_path, ResizeMethod.Crop)
    with learn.no_bar(), learn.no_logging():
        found = learn.triage(0.95, delta=0.5)
        with pytest.raises(ValueError, match='was cropped or padded'):
            found.save_masks(tmp_path / 'said')
        learn.fit(1)
        with pytest.raises(ValueError, match='was trained after this triage'):
            found.save_masks(tmp_path / 'said')


def test_masks_of_relative_pictures_are_checked_and_named_below_the_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def relative(folder):
        return Pool(sorted(folder.rglob('*.png')), root=folder)

    learn = pictures_learner(Path('crop'), ResizeMethod.Crop, pool_of=relative)
    with learn.no_bar(), pytest.raises(ValueError, match='was cropped or padded'):
        learn.triage(0.9, delta=0.5).save_masks(Path('crop/said'))
    learn = pictures_learner(Path('squish'), ResizeMethod.Squish, pool_of=relative)
    for folder, named in (('squish/a/said', 'said/im'), ('elsewhere', f'{tmp_path}/elsewhere/im')):
        with learn.no_bar():
            (found := learn.triage(0.9, delta=0.5)).save_masks(Path(folder))
        labels = found.frame.label[found.frame.decision == 'pseudo']
        assert (
            len(labels) > 10
            and labels.str.startswith(named).all()
            and all((learn.pool.root / label).is_file() for label in labels)
        )


def test_what_can_not_be_read_is_left_out(tmp_path):
    learn = pictures_learner(tmp_path, ResizeMethod.Squish)
    bad = learn.pool.unlabelled.index[3]
    (tmp_path / 'a' / bad).write_text('no picture')
    with learn.no_bar():
        with pytest.raises(ValueError, match='cannot be read'):
            learn.triage(0.95, delta=0.5)
        found = learn.triage(0.95, delta=0.5, skip=True)
    assert list(found.skipped) == [bad] and len(found) == 19
    (tmp_path / 'a' / bad).write_bytes(
        (tmp_path / 'a' / learn.pool.unlabelled.index[0]).read_bytes()
    )
    learn.pool.label(
        [bad], [str(tmp_path / 'mask' / '00.png')], annotator='Ada'
    )  # mended, and looked at by a person
    found.save_masks(tmp_path / 'said')
    learn.pool.apply(found)
    assert bad in learn.pool.labelled.index and bad not in learn.pool.ignored.index


def test_labels_of_people_in_the_meantime_are_kept(learn):
    found = learn.triage(0.1)
    mine, theirs = found.frame.index[found.frame.decision == 'pseudo'][:2]
    learn.pool.label(mine, 0, annotator='anna')
    learn.pool.ignore(theirs, annotator='anna')
    learn.pool.apply(found)
    assert (
        learn.pool.labelled.label[mine] == 0
        and theirs in learn.pool.ignored.index
        and learn.pool.ignored.source[theirs] == 'anna'
    )


def test_training_takes_pseudo_labels_up(learn):
    found = learn.triage(0.1)
    learn.pool.apply(found)
    dls = learn.pool.dataloaders(BLOCK, bs=8, pseudo=True, num_workers=0)
    assert len(dls.train_ds) == 100 + len(learn.pool.pseudo)
    assert learn.grow() == 0  # this learner was not made to
    sure = learn.pool.dataloaders(BLOCK, bs=8, pseudo='confidence', num_workers=0)
    assert np.allclose(
        sure.train.shuffle_fn.weights[100:],
        1 - found.frame.uncertainty[sure.train_ds.items.index[100:]],
        atol=1e-6,
    )


def test_a_crash_in_the_middle_of_writing_writes_nothing(learn, monkeypatch):
    found, before = learn.triage(0.1), learn.pool.counts()
    monkeypatch.setattr(
        learn.pool.ledger,
        'append',
        lambda events, settings=None: (_ for _ in ()).throw(OSError('disk full')),
    )
    with pytest.raises(OSError):
        learn.pool.apply(found)
    assert learn.pool.counts() == before and operations_of(learn.pool)['made'] == 0


def values_learner(**kwargs):
    dls = plain_dls(y=lambda i: features_of(i)[:1], n=300)
    return fitted(Learner(dls, mlp(1, 0.1), MSELossFlat(), cbs=MCDropout(k=8), **kwargs))


def test_values_within_a_tolerance():
    learn = values_learner()
    dl = learn.dls.test_dl(list(range(700, 760)))
    with learn.no_bar():
        found = learn.triage(0.1, dl, tolerance=0.8)
        assert (
            found.certificates['all'].holds
            and found.info['uncertainty'] == 'epistemic'
            and found.counts()['pseudo'] > 0
        )
        off = [
            abs(found.frame.label[u] - float(features_of(int(u))[0])) > 0.8
            for u in found.frame.index[found.frame.decision == 'pseudo']
        ]
        assert np.mean(off) < 0.25
        held, _ = measure_items(
            learn,
            learn.dls.valid,
            metric=lambda mean, target: -(mean - target.reshape(mean.shape)).abs().amax(1),
        )
        right, rows = held.performance.to_numpy() >= -0.8, found.to_df()
        assert (
            rows.confidence.between(0, 1).all()
            and rows.sort_values('uncertainty').confidence.is_monotonic_decreasing
        )  # the surer, the likelier
        assert rows.confidence.mean() == pytest.approx(right.mean(), abs=0.15)
        assert learn.triage(0.1, dl, guarantee='pseudo', tolerance=1e-6).counts()['pseudo'] == 0
        with pytest.raises(ValueError, match='tolerance=None'):
            learn.triage(0.1, dl)
        with pytest.raises(ValueError, match='per_class=True needs one class'):
            learn.triage(0.1, dl, tolerance=0.5, per_class=True)
        assert (
            learn.triage(
                0.1, dl, metric=lambda mean, y: torch.zeros(len(mean)), guarantee='pseudo'
            ).counts()['pseudo']
            == 0
        )
        with pytest.raises(ValueError, match='tolerance=True'):
            learn.triage(0.1, dl, tolerance=True)


def test_labels_are_wrong_if_one_of_them_is():
    learn = fitted(labels_learner(cbs=MCDropout(k=4)))
    dl = learn.dls.test_dl(list(range(50, 60)))
    with learn.no_bar():
        held, _ = measure_items(learn, learn.dls.valid, by='total')
        found = learn.triage(0.9, dl)
    assert (
        found.certificates['all'] == certify_pool(held.total, held.performance < 1, 0.9)
        and found.certificates['all'].total is None
    )
    names = [tuple(t) for t in held.target]
    alike = learn.dls.valid.new(
        Subset(
            learn.dls.valid_ds,
            np.flatnonzero([n == max(names, key=names.count) for n in names]).tolist(),
        )
    )
    with learn.no_bar(), pytest.raises(ValueError, match='hold-out items have one label'):
        learn.triage(0.4, dl, holdout=alike)


def test_masks_by_their_overlap(tmp_path):
    learn = pixels_learner(cbs=MCDropout(k=4))
    dl = learn.dls.test_dl(list(range(50, 60)))
    with learn.no_bar():
        found = learn.triage(0.95, dl, delta=0.3)
        assert (
            found.info['outliers'] is None
            and found.certificates['all'].binary is False
            and found.counts()['pseudo'] == 10
        )
        pool = Pool(range(50, 60))
        with pytest.raises(ValueError, match='per_class=True needs one class'):
            learn.triage(0.95, dl, delta=0.3, per_class=True)
        with pytest.raises(ValueError, match='save_masks'):
            pool.apply(found)
        found.save_masks(tmp_path)
    pool.apply(found)
    said = np.asarray(Image.open(pool.pseudo.label['53']))
    with learn.no_bar():
        truth = next(batch for batch in pool_pass(learn, dl, indices=[3])).log_probs.exp().mean(1)
    assert (said == truth[0].argmax(-1).numpy()).all()


def test_per_class_shares_delta(learn):
    found = learn.triage(0.2, per_class=True)
    assert sorted(found.certificates) == ['0', '1', '2'] and {
        c.delta for c in found.certificates.values()
    } == {0.05 / 3}
    held, _ = measure_items(learn.learn, learn.dls.valid, by='least_confidence')
    for name, c in found.certificates.items():
        mine = held[held.prediction.map(str) == name]
        asked = (found.frame.label.map(str) == name) & ~found.frame.why.str.contains('outlier')
        looked_at = (
            len(mine) + asked.sum()
        )  # the rest of the 400 items the model may call so too, or not
        assert c == certify_pool(
            mine.least_confidence,
            mine.performance < 1,
            0.2,
            0.05 / 3,
            population=(
                looked_at,
                looked_at + 280 - (~found.frame.why.str.contains('outlier')).sum(),
            ),
        )


def test_rounds_share_delta_and_pseudo_is_the_other_guarantee(learn):
    assert learn.triage(0.2, rounds=5).certificates['all'].delta == 0.01
    found = learn.triage(0.45, guarantee='pseudo')
    assert (
        found.certificates['all'].guarantee == 'pseudo'
        and 'a pseudo-label of an item drawn like the hold-out is wrong with '
        'probability at most 0.45'
        in found.report()
        and 'The guarantee is an expectation' in found.report()
    )


def test_outliers_are_ignored_and_some_of_them_looked_at():
    class Stretched:
        def __call__(self, i):
            return features_of(i) * (30 if int(i) >= 1000 else 1)

    dls = plain_dls(Stretched(), n=300)
    learn = fitted(Learner(dls, mlp(), CrossEntropyLossFlat(), cbs=MCDropout(k=4)))
    dl = dls.test_dl([*range(500, 560), *range(1000, 1040)])
    with learn.no_bar():
        for name in ('mahalanobis', 'relative_mahalanobis'):
            found = learn.triage(0.2, dl, outliers=name, check_ignored=0.1, ambiguous=0)
            strange = found.frame[found.frame.why.str.contains('outlier')]
            assert len(strange) >= 35 and (strange.index.astype(int) >= 1000).mean() > 0.85, name
            looked_at = strange[strange.decision == 'annotate']
            assert (
                len(looked_at) == int(np.ceil(0.1 * len(strange)))
                and looked_at.why.str.startswith('check').all()
            )
        none = learn.triage(0.2, dl, outliers=None, ambiguous=0)
        assert none.counts()['ignore'] == 0 and none.frame.outlier.isna().all()


def test_the_ambiguous_are_those_that_draws_agree_to_be_unsure_of(learn):
    found = learn.triage(0.02, ambiguous=0.4, outliers=None, check_ignored=0)
    frame, _ = measure_items(learn.learn, learn.dls.test_dl(learn.pool.unlabelled), metric=False)
    unclear = (frame.aleatoric >= frame.aleatoric.quantile(0.6)) & (
        frame.epistemic < frame.epistemic.median()
    )
    assert (
        set(found.frame.index[found.frame.decision == 'ignore']) == set(frame.index[unclear])
        and unclear.any()
    )
    assert (
        learn.triage(0.02, posterior=Point(), ambiguous=0.4, outliers=None).counts()['ignore'] == 0
    )  # one draw agrees with itself


def test_a_holdout_that_selected_the_model_warns(learn):
    assert (
        'checked: no callback did, since the ActiveLearner was made' in learn.triage(0.1).report()
        and 'does not record it' not in learn.triage(0.1).report()
    )
    learn.fit(1, cbs=EarlyStoppingCallback(patience=5))
    with pytest.warns(
        FastaiALWarning, match='EarlyStoppingCallback used the hold-out of this triage'
    ):
        found = learn.triage(0.1)
    assert 'BROKEN' in found.report()
    learn.reset()
    fitted(learn, 2)
    assert 'no callback did' in learn.triage(0.5).report()
    with pytest.warns(
        FastaiALWarning, match='calibrate used the hold-out .* Calibrate on other labelled items'
    ):
        learn.learn.calibrate()
        learn.triage(0.5)


def test_too_few_holdout_items_guarantee_nothing_and_the_report_says_so(learn):
    found = learn.triage(0.01)
    assert (
        found.counts()['pseudo'] == 0
        and f'{min_holdout(0.01, 0.05, 400)} are needed' in found.report()
        and found.frame.why.str.contains('no threshold is certified').any()
    )


def test_holdouts_that_guarantee_nothing_are_errors(learn):
    with pytest.raises(ValueError, match='are trained on'):
        learn.triage(0.1, holdout=learn.dls.train.new(shuffle=False))
    query = learn.acquire(40)
    learn.pool.label(query, [class_of(u) for u in query.uids])
    with pytest.raises(ValueError, match='were acquired by a strategy'):
        learn.triage(
            0.1, holdout=learn.dls.test_dl(learn.pool.labelled.loc[query.uids], with_labels=True)
        )
    one = [u for u in learn.pool.holdout.index if class_of(u) == 1]
    with pytest.raises(ValueError, match='have one label, 1'):
        learn.triage(0.1, holdout=learn.dls.test_dl(learn.pool.holdout.loc[one], with_labels=True))
    with pytest.raises(ValueError, match='have no labels'):
        learn.triage(0.1, holdout=learn.dls.test_dl(learn.pool.holdout))


def test_no_draw_holdout():
    pool = small_pool(60, 20, 0)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        learn = ActiveLearner(pool_learner(pool), pool)
    with learn.no_bar(), pytest.raises(ValueError, match='There is no hold-out'):
        learn.triage(0.1)


@pytest.mark.parametrize(
    'options, says',
    [
        (dict(error=0), 'error=0 is not a share'),
        (dict(error=1), 'error=1'),
        (dict(error=0.1, delta=0), 'delta=0'),
        (dict(error=0.1, guarantee='both'), "guarantee='both' is none of 'pool', 'pseudo'"),
        (dict(error=0.1, check_ignored=1.5), 'check_ignored=1.5'),
        (dict(error=0.1, ambiguous=-1), 'ambiguous=-1'),
        (dict(error=0.1, outlier_rate=0), 'outlier_rate=0'),
        (dict(error=0.1, rounds=0), 'rounds=0'),
        (dict(error=0.1, tolerance=0.5), 'is for values'),
        (dict(error=0.1, outliers='odd'), 'no outlier score'),
        (dict(error=0.1, metric='iou'), "metric='iou' is not known"),
        (dict(error='.1'), "error='.1'"),
        (dict(error=0.1, metric='loss'), 'is not between 0 and 1'),
        (dict(error=0.1, metric=len, tolerance=0.1), 'Both metric= and tolerance=0.1'),
        (dict(error=0.1, uncertainty='surprise'), 'no acquisition function'),
    ],
)
def test_bad_input_is_an_error_and_leaves_nothing(learn, options, says):
    before = everything(learn.learn), len(learn.pool.history)
    with pytest.raises(ValueError, match=says):
        learn.triage(**options)
    assert_same((everything(learn.learn), len(learn.pool.history)), before)


def test_items_without_names_are_not_mistaken_for_others(learn):
    held = learn.dls.valid.new(Subset(learn.dls.valid_ds, range(80)))
    found = learn.learn.triage(0.2, learn.dls.test_dl(learn.pool.unlabelled), holdout=held)
    assert 'not checked' in found.report() and found.certificates['all'].holdout == 80


def test_one_item_and_none(learn):
    assert len(learn.triage(0.2, learn.dls.test_dl(learn.pool.unlabelled.head(1)))) == 1
    learn.pool.label(list(learn.pool.unlabelled.index), [0] * 180)
    with pytest.raises(ValueError, match='Nothing is left to decide'):
        learn.triage(0.2)


def test_pictures(learn):
    import matplotlib.pyplot as plt

    found = learn.triage(0.1)
    ax = found.plot()
    assert [t.get_text().split(' ')[0] for t in ax.get_legend().get_texts()] == [
        'pseudo',
        'annotate',
        'ignore',
        'certified',
    ] and ax.get_xlabel() == 'uncertainty (least_confidence)'
    assert '<li>' in found._repr_html_() and repr(found).startswith('Triage of 180 items')
    with pytest.raises(ValueError, match="decision='keep'"):
        found.show('keep')
    plt.close('all')


def test_batch_size_and_order_of_the_pool_do_not_matter(learn):
    frame = learn.pool.unlabelled
    one = learn.learn.triage(0.1, learn.dls.test_dl(frame)).frame
    other = learn.learn.triage(0.1, learn.dls.test_dl(frame.iloc[::-1], bs=7)).frame
    assert (one.decision.sort_index() == other.decision.sort_index()).mean() > 0.97 and (
        one.decision == 'pseudo'
    ).sum() == (other.decision == 'pseudo').sum()


def test_a_triage_can_be_written_in_pandas(learn):
    assert isinstance(learn.triage(0.1), Triage) and isinstance(
        learn.triage(0.1).to_df(), pd.DataFrame
    )


def test_what_is_left_to_decide_depends_on_what_was_ignored(monkeypatch):
    pool = Pool(range(3000), {'0': 'x'})
    pool.draw_holdout(10)
    pool.write(
        [
            Event('5', 'ignore', source='triage 1'),
            Event('6', 'ignore', source='Ada'),
            Event('7', 'pseudo', 'x', 'triage 1'),
            Event('8', 'ignore', source='triage 1'),
            Event('8', 'ignore', source='Ada'),
            Event('9', 'ignore', source='triage 2'),
        ]
    )
    pool.retract('9', annotator='triage 2')
    expected = [
        u for u in map(str, range(3000)) if u not in {'0', '6', '8'} | set(pool.holdout.index)
    ]
    assert pool.triageable() == expected
    counted, missing = [], States.__missing__
    monkeypatch.setattr(
        States, '__missing__', lambda self, uid: counted.append(uid) or missing(self, uid)
    )
    assert pool.triageable() == expected and not counted  # items without answers are not read


def test_both_triages_take_their_arguments_in_one_order():
    names = [list(inspect.signature(of.triage).parameters) for of in (Learner, ActiveLearner)]
    assert names[0][1:9] == names[1][1:9] and names[0][1:4] == ['error', 'dl', 'delta']
