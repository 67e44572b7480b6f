"""What an audit certifies: every audit of tiny pools, the boundary, any number of looks, and
what is no pool at all"""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import binomtest, hypergeom

from fastai_al.triage.certify import STARTS, certify_pool
from fastai_al.triage.exact import AUDIT_RULES, certify_audit, min_audit, uncertainty_ranks
from fastai_al.triage.looks import certify_looks, sequential_counts, spent_share


def counts_of(rule, n, m, error, delta):
    "(audited places, which of them are wrong) -> the number of certified items; all of them"
    return {
        (audited, wrong): AUDIT_RULES[rule](
            np.array(audited), np.array(wrong, dtype=bool), n, error, delta
        )
        for audited in itertools.combinations(range(n), m)
        for wrong in itertools.product((False, True), repeat=m)
    }


def outcomes(rule, n, m, error, delta):
    "For each pattern of wrong items: wrong labels and labels of each audit"
    found = counts_of(rule, n, m, error, delta)
    audits = list(itertools.combinations(range(n), m))
    for pattern in itertools.product((False, True), repeat=n):
        results = []
        for audited in audits:
            count = found[audited, tuple(pattern[i] for i in audited)]
            by_model = [i for i in range(count) if i not in audited]
            results.append((sum(pattern[i] for i in by_model), len(by_model)))
        yield pattern, np.array(results)


TINY = [(8, 4, 0.3, 0.3), (9, 3, 0.25, 0.45), (8, 5, 0.15, 0.2), (7, 7, 0.2, 0.1)]


@pytest.mark.parametrize('n, m, error, delta', TINY)
def test_of_all_items_by_all_audits_of_all_pools(n, m, error, delta):
    "Broken as often as the formula says where that is possible, and nowhere more often"
    k = math.floor(error * n)
    worst, levels = 0.0, {0.0}
    for x in range(m + 1):
        level = hypergeom.cdf(x, n, k + 1 + x, m) if k + 1 + x <= n else 0.0
        levels |= {level} if level <= delta else set()
    for _, results in outcomes('pool', n, m, error, delta):
        worst = max(worst, (results[:, 0] > k).mean())
    assert worst == pytest.approx(max(levels))


@pytest.mark.parametrize(
    'starts, n, m, error, delta',
    [
        (3, 8, 5, 0.45, 0.6),
        (3, 9, 6, 0.45, 0.9),
        (1, 8, 5, 0.2, 0.55),
        (1, 8, 5, 0.45, 0.2),
        (1, 9, 4, 0.3, 0.45),
    ],
)
def test_of_pseudo_labels_by_all_audits_of_all_pools(monkeypatch, starts, n, m, error, delta):
    "One starting point alone uses up to delta"
    monkeypatch.setattr('fastai_al.triage.exact.STARTS', STARTS[:starts])
    worst, labelled = 0.0, 0
    for _, results in outcomes('pseudo', n, m, error, delta):
        wrong, labels = results.T
        worst = max(worst, (wrong > error * labels + 1e-9).mean())
        labelled += labels.sum()
    assert (delta / 3 if starts == 1 else 0) < worst <= delta and labelled


@pytest.mark.parametrize('n, m, error', [(8, 4, 0.3), (8, 5, 0.25), (8, 5, 0.5)])
def test_on_average_by_all_audits_of_all_pools(n, m, error):
    worst, single = 0.0, 0.0
    for _, results in outcomes('expected', n, m, error, 0.0):
        share = results[:, 0] / np.maximum(results[:, 1], 1)
        worst, single = max(worst, share.mean()), max(single, (share > error).mean())
    assert error / 3 < worst <= error + 1e-9 < single  # single runs exceed it


@pytest.mark.parametrize('n, m, error, delta', [(400, 100, 0.05, 0.1), (2000, 300, 0.05, 0.05)])
def test_at_the_least_favourable_number_of_wrong_items(n, m, error, delta):
    k, runs, rng = int(error * n), 1000, np.random.default_rng(0)
    x = max(x for x in range(m) if hypergeom.cdf(x, n, k + 1 + x, m) <= delta)
    level = hypergeom.cdf(x, n, k + 1 + x, m)
    wrong, broken = np.zeros(n), 0
    wrong[: k + 1 + x] = 1
    rng.shuffle(wrong)
    for _ in range(runs):
        audited = np.sort(rng.choice(n, m, replace=False))
        count = AUDIT_RULES['pool'](audited, wrong[audited] > 0, n, error, delta)
        broken += wrong[:count].sum() - wrong[audited[audited < count]].sum() > k
    assert binomtest(broken, runs, level).pvalue > 1e-3 and level > delta / 3


@pytest.mark.parametrize('guarantee', AUDIT_RULES)
def test_pools_that_are_none(guarantee):
    n, rng = 300, np.random.default_rng(0)
    u = rng.random(n)
    at = rng.choice(n, 100, replace=False)

    def of(wrong, u=u, at=at, error=0.05):
        return certify_audit(u, at, wrong[at], error, guarantee=guarantee)

    right = of(np.zeros(n))
    assert right.certified.all() and right.labels == 200 and right.threshold == math.inf
    hopeless = of(np.ones(n))
    if guarantee == 'pool':  # a few wrong labels are no large share of the pool
        assert hopeless.labels <= hopeless.max_wrong == 15 and hopeless.exceeds_error
    else:
        assert not hopeless.holds and hopeless.labels == 0
        assert 'a larger audit of them is not likely' in str(hopeless)
        assert hopeless.needed == math.inf
    everything = of(np.ones(n), at=np.arange(n))  # all is audited: nothing is left to label
    assert everything.labels == 0
    small = of(np.zeros(n), error=0.001)  # not one of 300 may be wrong
    assert small.labels == 0 or guarantee == 'pool' and small.max_wrong == 0
    nobody = certify_audit(u, [], [], 0.05, guarantee=guarantee)
    assert not nobody.holds and nobody.holdout == 0
    few = certify_audit(u, at[:20], np.zeros(20), 0.05, guarantee=guarantee)
    enough = certify_audit(u, at, np.zeros(100), 0.05, guarantee=guarantee)
    assert enough.holds and (few.holds or 20 < few.needed <= 120), few


def test_an_audit_of_everything_certifies_what_is_right():
    "Nothing is left to the model, so no label of its can be wrong"
    certificate = certify_audit(range(10), range(10), [0, 1] * 5, 0.2, guarantee='pool')
    assert certificate.labels == 0 and certificate.population == certificate.holdout == 10


@pytest.mark.parametrize('u', ['constant', 'two', 'reversed'])
@pytest.mark.parametrize('guarantee', ['pool', 'pseudo'])
def test_confidences_that_say_little_break_nothing(u, guarantee):
    n, m, runs, rng, broken, labels = 500, 150, 150, np.random.default_rng(1), 0, 0
    wrong = (rng.random(n) < np.linspace(0, 0.4, n)).astype(float)
    u = dict(constant=np.zeros(n), two=(np.arange(n) > 250) * 1.0, reversed=-np.arange(n))[u]
    for run in range(runs):
        at = rng.choice(n, m, replace=False)
        c = certify_audit(u, at, wrong[at], 0.1, 0.1, guarantee=guarantee, seed=run)
        by_model = c.certified.copy()
        by_model[at] = False
        assert by_model.sum() == c.labels
        broken, labels = broken + ((wrong * by_model).sum() > c.max_wrong), labels + c.labels
    assert binomtest(broken, runs, 0.1, alternative='greater').pvalue > 1e-3
    assert labels or guarantee == 'pseudo' or isinstance(u, str)


def test_ties_are_broken_by_the_seed_alone():
    u = [1, 0, 1, 0, 1]
    assert all({*uncertainty_ranks(u, s)[[1, 3]]} == {0, 1} for s in range(5))
    assert len({tuple(uncertainty_ranks(u, s)) for s in range(20)}) > 5
    assert (uncertainty_ranks(u, 3) == uncertainty_ranks(u, 3)).all()
    c = certify_audit(np.zeros(100), range(50), [0, 1] * 25, 0.02, 0.5, guarantee='pool')
    assert 0 < c.certified.sum() < 100 and c.threshold == 0  # some of the equal ones


def test_audits_certify_more_than_holdouts():
    rng = np.random.default_rng(0)
    u = rng.random(2000)
    wrong = (rng.random(2000) < 0.4 * u**3).astype(float)
    at = rng.choice(2000, 500, replace=False)
    c = certify_audit(u, at, wrong[at], 0.05, guarantee='pool')
    held = certify_pool(u[at], wrong[at], 0.05, population=2000)
    assert c.holds and c.threshold > held.threshold
    assert 'at most 100 of 2,000 items' in str(c) and '500 audited' in str(c)
    pseudo = certify_audit(u, at, wrong[at], 0.05)
    assert 0 < pseudo.labels < c.labels and f'of {pseudo.labels:,} pseudo-labels' in str(pseudo)
    expected = certify_audit(u, at, wrong[at], 0.05, guarantee='expected')
    assert expected.labels >= pseudo.labels and 'A single run can exceed it' in str(expected)


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(audited=[0, 0, 1]), 'distinct positions'),
        (dict(audited=[0, 1, 10]), 'distinct positions'),
        (dict(audited=[0.0, 1.0, 2.0]), 'distinct positions'),
        (dict(loss=[0, 0.5, 1]), 'right or wrong'),
        (dict(loss=[0, 1]), '3 uncertainties but 2 losses'),
        (dict(error=5), 'error=5'),
        (dict(guarantee='always'), 'none of'),
        (dict(uncertainty=[math.nan] * 10, audited=[], loss=[]), 'NaN'),
    ],
)
def test_what_is_no_audit(change, message):
    given = dict(uncertainty=range(10), audited=[0, 1, 2], loss=[0, 0, 0], error=0.1) | change
    with pytest.raises(ValueError, match=message):
        certify_audit(**given)


def test_the_smallest_audit_is_the_smallest():
    for guarantee, n in itertools.product(AUDIT_RULES, (90, 2000)):
        m = min_audit(0.05, 0.05, n, guarantee)
        assert AUDIT_RULES[guarantee](np.arange(m), np.zeros(m, bool), n, 0.05, 0.05) == n
    assert min_audit(0.05, population=2000, guarantee='pool') > 1 and min_audit(0.3) < 20


def all_orders(n, wrong):
    "Numbers of wrong items among the first 0 to n drawn, in all orders"
    for places in itertools.combinations(range(n), wrong):
        yield np.append(0, np.isin(np.arange(n), places).cumsum())


@pytest.mark.parametrize('looks', [(8,), (2, 4, 6, 8), (1, 2, 3, 4, 5, 6, 7, 8)])
@pytest.mark.parametrize('delta', [0.1, 0.4])
def test_looks_by_all_orders(looks, delta):
    "The least favourable pool has one wrong item too many; some look certifies it at random"
    n, error = 12, 0.3
    allowed = sequential_counts(looks, n, error, delta, 8)
    orders = list(all_orders(n, int(error * n) + 1))
    certified = np.mean([any(o[m] <= x for m, x in zip(looks, allowed)) for o in orders])
    assert certified <= delta + 1e-12
    assert certified > delta / 7 or delta == 0.1


def test_looks_allow_what_was_computed_before():
    looks = tuple(range(100, 3001, 100))
    allowed = dict(zip(looks, sequential_counts(looks, 1_000_000, 0.05, 0.1, 3000)))
    assert (allowed[300], allowed[1000]) == (7, 35) and 124 <= allowed[3000] <= 129
    assert spent_share(3000, 3000) == 1 and spent_share(0, 3000) == 0


def test_peeking_at_30_looks():
    n, runs, rng, broken = 3000, 200, np.random.default_rng(2), 0
    looks = list(range(20, 601, 20))
    wrong = (rng.random(n) < 0.4 * np.linspace(0, 1, n)).astype(float)
    for _ in range(runs):
        order = rng.permutation(n)[:600]
        c = certify_looks(np.arange(n), order, wrong[order], 0.1, 0.1, looks=looks, max_audit=600)
        broken += wrong[c.certified].sum() > 0.1 * n
    assert binomtest(broken, runs, 0.1, alternative='greater').pvalue > 1e-3 and c.looks == 30


def test_a_look_must_be_one_of_the_looks():
    given = dict(uncertainty=range(10), audited=[0, 1, 2], loss=[0] * 3, error=0.5)
    for looks, most in (([1, 2], 5), ([2, 1, 3], 5), ([], 5)):
        with pytest.raises(ValueError, match='looks='):
            certify_looks(**given, looks=looks, max_audit=most)
    for most in (2, 11):
        with pytest.raises(ValueError, match='max_audit='):
            certify_looks(**given, looks=[3], max_audit=most)
