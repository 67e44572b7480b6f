"""Audits through the ledger: drawn, answered, used once, recorded; by learners and by frames"""

import numpy as np
import pandas as pd
import pytest
from fastai.basics import set_seed

import fastai_al.triage.predictions  # noqa: F401 (gives `Pool` its `triage`)
from conftest import class_of, pool_learner, small_pool
from fastai_al import FastaiALWarning
from fastai_al.active_learner import ActiveLearner
from fastai_al.pool.oracle import Oracle
from fastai_al.pool.pool import Pool
from fastai_al.pool.state import majority
from fastai_al.triage.audits import audit_of
from fastai_al.triage.guarantees import COMBINATIONS, check_guarantee, guarantee_table


def truth_of(uid):
    return 'odd' if int(uid) % 2 else 'even'


def ask(uids):
    return [truth_of(u) for u in uids]


def never(uids):
    raise AssertionError(f'asked for {uids}')


def predicted(n=800, wrong=0.3, seed=0):
    "Predictions that are wrong as often as their confidences say, up to a share of `wrong`"
    rng = np.random.default_rng(seed)
    unsure = rng.random(n) ** 2 * wrong
    flip = rng.random(n) < unsure
    labels = [truth_of(i) if not f else truth_of(i + 1) for i, f in enumerate(flip)]
    return pd.DataFrame(dict(label=labels, confidence=1 - unsure), index=[str(i) for i in range(n)])


@pytest.fixture
def pool():
    return Pool(range(800))


def test_labels_of_a_frame_are_certified_and_recorded(pool):
    frame = predicted(wrong=0.1)
    found = pool.triage(frame, 0.1, audit=200, ask=ask)
    counts, certificate = found.counts(), found.certificates['all']
    assert len(found) == 600 and pool.counts()['labelled'] == 200 and counts['pseudo'] > 100
    wrong = [found.frame.label[u] != truth_of(u) for u in found.frame.index]
    pseudo = found.frame.decision == 'pseudo'
    assert certificate.labels == counts['pseudo'] and certificate.guarantee == 'pseudo'
    assert sum(w and p for w, p in zip(wrong, pseudo)) <= certificate.max_wrong
    assert (frame.label[found.frame.index] == found.frame.label).all()
    for words in ('drawn uniformly from the 800', 'this decision only', 'without a mistake'):
        assert words in found.report()
    assert pool.apply(found) == 'triage 1' and pool.counts()['pseudo'] == counts['pseudo']
    with pytest.raises(ValueError, match=r'triage\.frame'):
        found.show('pseudo')
    found.plot()
    assert pool.revoke() == counts['pseudo'] and pool.counts()['labelled'] == 200
    assert pool.apply(found) == 'triage 2'  # the same decision, after it was taken back


def test_the_same_call_asks_nobody_again_and_records_nothing_again(pool):
    frame = predicted()
    first = pool.triage(frame, 0.05, audit=150, ask=ask)
    pool.apply(first)
    before = len(pool.history)
    again = pool.triage(frame.sample(frac=1, random_state=0), 0.05, audit=150, ask=never)
    assert again.certificates == first.certificates and pool.apply(again) == 'triage 1'
    assert len(pool.history) == before and pool.ledger['audits'] == 1


def test_one_audit_certifies_one_decision(pool):
    frame = predicted()
    pool.triage(frame, 0.05, audit=150, ask=ask)
    for other in (dict(error=0.1), dict(error=0.05, guarantee='pool'), dict(error=0.05, delta=0.2)):
        with pytest.raises(ValueError, match='one decision only'):
            pool.triage(frame, audit=150, ask=ask, **other)
    with pytest.raises(ValueError, match='its size was fixed'):
        pool.triage(frame, 0.05, audit=200, ask=ask)
    more = pool.triage(frame, 0.1, audit=150, ask=ask, seed=1)  # another audit, of other items
    assert not {*audit_of(pool, 1).uids} & {*audit_of(pool, 2).uids} and len(more) == 500
    assert '2 audits' in more.report() and '0.9' in more.report()


def test_a_changed_frame_gets_another_audit(pool):
    frame = predicted()
    with pytest.raises(ValueError, match='150 of the 150 audited items have no answer'):
        pool.triage(frame, 0.05, audit=150)
    pool.label(pool.audit_to_label()[:50], [truth_of(u) for u in pool.audit_to_label()[:50]])
    tuned = frame.assign(label=[truth_of(u) for u in frame.index])  # by the answers seen
    with pytest.warns(FastaiALWarning, match='drawn for other predictions'):
        found = pool.triage(tuned, 0.05, audit=150, ask=ask)
    assert found.info['audit'] == 2 and len(found) == 600
    assert not {*audit_of(pool, 1).uids[:50]} & {*audit_of(pool, 2).uids}


def test_people_may_answer_between_two_calls(pool, tmp_path):
    pool, frame = Pool(range(800), db=tmp_path / 'labels.db'), predicted()
    for _ in range(2):
        with pytest.raises(ValueError, match=r'pool\.audit_to_label'):
            pool.triage(frame, 0.05, audit=100)
    to_label = pool.audit_to_label()
    pool.label(to_label[:60], ask(to_label[:60]))

    def interrupted(uids):
        pool.label(uids[:20], ask(uids[:20]))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pool.triage(frame, 0.05, audit=100, ask=interrupted)
    pool = Pool.open(tmp_path / 'labels.db')
    assert pool.audit_to_label() == to_label[80:]
    asked = []
    found = pool.triage(frame, 0.05, audit=100, ask=lambda uids: asked.extend(uids) or ask(uids))
    assert asked == to_label[80:] and found.certificates['all'].holdout == 100
    assert not pool.audit_to_label()


def test_what_nobody_can_label_counts_as_wrong(pool):
    frame = predicted(wrong=0.0)
    pool.triage(frame, 0.05, audit=100, ask=ask)
    other = Pool(range(800))
    with pytest.raises(ValueError, match='have no answer'):
        other.triage(frame, 0.05, audit=100)
    some = other.audit_to_label()
    other.ignore(some[:30])
    other.skip(some[30:60], annotator='anna')
    rest = {u: truth_of(u) for u in some[60:90]}
    with pytest.raises(ValueError, match='10 of the 100'):  # a mapping may get more entries
        other.triage(frame, 0.05, audit=100, ask=rest)
    found = other.triage(frame, 0.05, audit=100, ask=lambda uids: [None] * len(uids))
    certificate = found.certificates['all']
    assert certificate.wrong == 0 and not certificate.holds and found.counts()['pseudo'] == 0
    assert 'could label 70' in found.report() and 'no threshold can be' in found.report()


def test_people_may_disagree():
    pool = Pool(range(800), vote=lambda votes: None if len(votes) == 2 else majority(votes))
    frame = predicted(wrong=0.0)
    with pytest.raises(ValueError, match='have no answer'):
        pool.triage(frame, 0.05, audit=100)
    some = pool.audit_to_label()
    pool.label(some, ask(some), annotator='anna')
    pool.label(some[:2], [truth_of(some[0]), truth_of(int(some[1]) + 1)], annotator='ben')
    first = pool.triage(frame, 0.05, audit=100)
    assert '1 audited items have different labels by different people' in first.report()
    assert 'could label 2' in first.report()  # the vote of this pool leaves them open
    pool.label(some[:2], [truth_of(u) for u in some[:2]], annotator='carl')
    with pytest.raises(ValueError, match='have changed'):
        pool.apply(first)
    second = pool.triage(frame, 0.05, audit=100)
    assert second.certificates['all'].labels > first.certificates['all'].labels
    assert pool.apply(second) == 'triage 1'


@pytest.mark.parametrize(
    'change, error, message',
    [
        (lambda f: f.assign(confidence=np.nan), ValueError, 'NaN'),
        (lambda f: f.assign(confidence='sure'), ValueError, 'not all numbers'),
        (lambda f: f.assign(label=None), ValueError, 'no label'),
        (lambda f: f.drop(columns='label'), ValueError, "no column 'label'"),
        (lambda f: pd.concat([f, f]), ValueError, 'more than once'),
        (lambda f: f.set_axis([f'x{u}' for u in f.index]), KeyError, 'x0'),
        (lambda f: f.iloc[:0], ValueError, 'Nobody has to decide'),
        (lambda f: f.iloc[:50], ValueError, '50 items to decide'),
        (lambda f: f.label, TypeError, 'data frame'),
        (lambda f: {'one': f, 'two': f.confidence}, TypeError, 'two is Series'),
    ],
)
def test_what_is_no_prediction(pool, change, error, message):
    with pytest.raises(error, match=message):
        pool.triage(change(predicted()), 0.05, audit=100, ask=never)
    assert pool.ledger['audits'] is None and len(pool.history) == 800


def test_labels_outside_the_vocabulary_are_refused():
    pool = Pool(range(800))
    pool.set_vocab(['odd', 'even'])
    with pytest.raises(ValueError, match='prime'):
        pool.triage(predicted().assign(label='prime'), 0.05, ask=never)


@pytest.mark.parametrize('confidence', ['constant', 'reversed'])
def test_confidences_that_say_nothing_certify_nothing_wrong(pool, confidence):
    frame = predicted(wrong=0.8)
    frame['confidence'] = 1.0 if confidence == 'constant' else -frame.confidence
    found = pool.triage(frame, 0.05, audit=200, ask=ask)
    assert found.counts()['pseudo'] == 0


def test_items_in_a_column_and_items_that_have_labels(pool):
    pool.label(['3', '4'], ['odd', 'even'])
    frame = predicted().rename_axis('item').reset_index()
    found = pool.triage(frame, 0.05, audit=100, ask=ask)
    assert len(found) == 698 and found.info['population'] == 798


def test_several_predictors_are_routed_by_what_they_know(pool):
    "Each is right about its own half, and its confidence is in a unit of its own"
    rng, index = np.random.default_rng(0), [str(i) for i in range(800)]
    truth = np.array(ask(index))
    frames = {}
    for name, half in (('small', np.arange(800) < 400), ('large', np.arange(800) >= 400)):
        right = half | (rng.random(800) < 0.5)
        labels = np.where(right, truth, np.where(truth == 'odd', 'even', 'odd'))
        frames[name] = pd.DataFrame(
            dict(label=labels, confidence=1000 * half + rng.random(800)), index=index
        )
    frames['small'] = frames['small'].iloc[:700]  # it need not know all items
    alone = [pool_of_one(f) for f in frames.values()]
    found = pool.triage(frames, 0.05, audit=200, ask=ask)
    assert found.counts()['pseudo'] > 450 > 1.2 * max(alone) > 0
    assert '50 of the audited items chose' in found.report()
    assert found.certificates['all'].holdout == 150
    assert pool.apply(found) == 'triage 1'


def pool_of_one(frame):
    return Pool(range(800)).triage(frame, 0.05, audit=200, ask=ask).counts()['pseudo']


def test_an_oracle_answers_under_its_names(pool):
    oracle = Oracle.from_labels({str(i): truth_of(i) for i in range(800)}, abstain=0.1)
    found = pool.triage(predicted(), 0.1, audit=200, ask=oracle)
    assert 5 < found.info['unanswered'] < 40
    assert {*pool.labelled.source} == {'oracle'} if 'source' in pool.labelled else True


# -- by a learner


@pytest.fixture(scope='module')
def weights():
    set_seed(0)
    pool = small_pool(620, 200, 20)
    learn = pool_learner(pool)
    with learn.no_bar(), learn.no_logging():
        learn.fit(6, 1e-2)
    return learn.model.state_dict()


def classes(uids):
    return [class_of(u) for u in uids]


@pytest.fixture
def learn(weights):
    pool = small_pool(620, 200, 20)
    learn = ActiveLearner(pool_learner(pool), pool)
    learn.model.load_state_dict(weights)
    with learn.no_bar(), learn.no_logging():
        yield learn


def test_the_labels_of_an_audit_train_the_next_model(learn):
    pool = learn.pool
    found = learn.triage(0.2, audit=100, ask=classes)
    assert found.info['guarantee'] == 'pseudo' and len(found) == 300
    again = learn.triage(0.2, audit=100, ask=never)
    assert again.certificates == found.certificates and again.counts()['pseudo'] > 0
    assert pool.apply(found) == 'triage 1' == pool.apply(again)
    learn.fit(1, 1e-3)
    assert len(learn.dls.train_ds) == 300 and {*audit_of(pool, 1).uids} <= {
        *learn.dls.train_ds.items.index
    }
    more = learn.triage(0.2, audit=100, ask=classes)
    assert more.info['audit'] == 2 and len(more) == 200
    assert {*audit_of(pool, 2).uids} <= {*found.frame.index}
    assert pool.apply(more) == 'triage 2'


def test_a_model_that_was_trained_during_an_audit_gets_another(learn):
    with pytest.raises(ValueError, match='audit_to_label'):
        learn.triage(0.2, audit=100)
    some = learn.pool.audit_to_label()[:40]
    learn.label(some, classes(some))
    learn.fit(1, 1e-3)
    with pytest.warns(FastaiALWarning, match='certified nothing'):
        found = learn.triage(0.2, audit=100, ask=classes)
    assert found.info['audit'] == 2 and len(found) == 260


def test_measuring_in_another_way_is_another_decision(learn):
    learn.triage(0.2, audit=100, ask=classes)
    with pytest.raises(ValueError, match='least_confidence'):
        learn.triage(0.2, audit=100, ask=classes, uncertainty='entropy')


def test_a_growing_audit_may_be_looked_at(learn):
    sizes, found = (60, 100, 160), []
    for n in sizes:
        found.append(learn.triage(0.3, audit=n, max_audit=160, ask=classes))
        learn.pool.apply(found[-1])
    certificates = [f.certificates['all'] for f in found]
    assert [c.looks for c in certificates] == [1, 2, 3] and certificates[2].holds
    assert all(c.guarantee == 'pool' and c.total == 400 for c in certificates)
    assert [len(f) for f in found] == [400 - n for n in sizes]
    assert 'There' in found[2].report() or '3 looks' in found[2].report()
    with pytest.raises(ValueError, match='have changed'):
        learn.pool.apply(found[0])
    with pytest.raises(ValueError, match='its size was fixed'):
        learn.triage(0.3, audit=60, max_audit=160, ask=never)


def test_items_of_a_dataloader(learn):
    uids = list(learn.pool.unlabelled.index)
    dl = learn.dls.test_dl(learn.pool.rows.loc[uids[:150]])
    found = learn.triage(0.3, dl, audit=100, ask=classes)
    assert {*found.frame.index} < {*uids[:150]} and found.info['population'] == 150
    closed = learn.dls.test_dl(learn.pool.rows.iloc[:20].loc[learn.pool.labelled.index[:2]])
    with pytest.raises(ValueError, match='labelled, held out or trained on'):
        learn.triage(0.3, closed, audit=2, ask=never, seed=1)


@pytest.mark.parametrize(
    'given, message',
    [
        (dict(audit=100, rounds=2), 'rounds='),
        (dict(audit=100, per_class=True), 'per_class='),
        (dict(audit=100, outliers='energy'), 'outliers='),
        (dict(audit=100, population=500), 'population='),
        (dict(audit=100, unanswered='wrong'), 'unanswered='),
        (dict(audit=100, guarantee='always'), 'none of'),
        (dict(audit=100, max_audit=200, guarantee='pseudo'), 'growing audit'),
        (dict(audit=100, max_audit=50), 'max_audit=50'),
        (dict(audit=0), 'audit=0'),
        (dict(audit=True), 'audit=True'),
        (dict(audit=401), '400 items to decide'),
        (dict(ask=never), 'audit= is missing'),
        (dict(guarantee='expected'), 'audit=300'),
        (dict(audit=100, delta=2), 'delta=2'),
    ],
)
def test_what_is_not_in_the_table(learn, given, message):
    with pytest.raises(ValueError, match=message):
        learn.triage(0.2, **dict(ask=never) | given if 'audit' in given else given)
    assert learn.pool.ledger['audits'] is None


def test_the_table_is_what_is_checked():
    for sample in ('holdout', 'picks', 'audit', 'growing audit'):
        for guarantee in ('pool', 'pseudo', 'expected'):
            known = any((c.sample, c.guarantee) == (sample, guarantee) for c in COMBINATIONS)
            if known:
                check_guarantee(sample, guarantee)
                continue
            with pytest.raises(ValueError, match='Pass one of these'):
                check_guarantee(sample, guarantee)
    assert len(guarantee_table()) == len(COMBINATIONS)
