"Selectors that cover the pool, against loops over all items; and what must hold for any input"

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from fastai_al.acquisition import coverage
from fastai_al.acquisition.coverage import (
    kcenter,
    max_herding,
    probcover,
    typiclust,
    uncertainty_herding,
)
from fastai_al.acquisition.selection import SELECTORS, find_selector

STRATEGIES = ('kcenter', 'typiclust', 'probcover', 'max_herding', 'uncertainty_herding')
SOFT = (max_herding, uncertainty_herding)


def normal(n, d=5, seed=0, dtype=torch.float32):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(
        dtype
    )


def choose(strategy, x, n, labelled=None, **kwargs):
    "Any of the selectors; scores, where it takes them, belong to the item's features"
    scores = (
        [-(x.double().sum(1).sin() ** 2).to(x.dtype)]
        if 'scores' in SELECTORS[strategy].needs
        else []
    )
    return SELECTORS[strategy](x, *scores, n, labelled, **kwargs)


def unit(x):
    x = np.asarray(x, np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def table(x, y):
    return np.sqrt(((x[:, None] - y[None]) ** 2).sum(-1))


def slow_kcenter(x, n, labelled=None):
    x = np.asarray(x, np.float64)
    picks, gains = [], []
    near = (
        table(x, np.asarray(labelled, np.float64)).min(1)
        if labelled is not None and len(labelled)
        else None
    )
    for _ in range(n):
        if near is None:
            middle = ((x - x.mean(0)) ** 2).sum(1)
            i = int(
                np.flatnonzero(middle <= middle.min() * 1.00001)[0]
            )  # of two items, both are the middle
            gain, near = table(x, x[[i]]).max(), np.full(len(x), np.inf)
        else:
            left = np.where(np.isin(np.arange(len(x)), picks), -1, near)
            i, gain = int(left.argmax()), left.max()
        picks.append(i)
        gains.append(gain)
        near = np.minimum(near, table(x, x[[i]])[:, 0])
    return picks, gains, near


def slow_cover(k, u, n, c):
    "Greedy cover for a table of kernels; equal gains go to the first item"
    picks, gains = [], []
    for _ in range(n):
        gain = (np.maximum(k - c, 0) * u).sum(1)
        gain[picks] = -1
        i = int(np.flatnonzero(gain >= gain.max() - 1e-9)[0])
        picks.append(i)
        gains.append(gain[i])
        c = np.maximum(c, k[i])
    return picks, gains, c


# k-center


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(1, 60),
    share=st.floats(0, 1),
    labels=st.integers(0, 6),
    d=st.integers(1, 8),
    seed=st.integers(0, 999),
    double=st.booleans(),
)
def test_kcenter_is_the_greedy_loop(size, share, labels, d, seed, double):
    x, labelled = (
        normal(size, d, seed, torch.float64 if double else torch.float32),
        normal(labels, d, seed + 1),
    )
    n = max(1, round(share * size))
    found = kcenter(x, n, labelled if labels else None)
    picks, gains, near = slow_kcenter(x, n, labelled)
    assert found.indices.tolist() == picks
    np.testing.assert_allclose(found.gains, gains, rtol=1e-4, atol=1e-6)
    assert found.info['radius'] == pytest.approx(near.max() if n < size else 0, rel=1e-4, abs=1e-6)
    assert (found.gains.diff() <= 1e-6).all()


def test_kcenter_with_more_labelled_items_than_it_compares_first():
    x, labelled = normal(400, 3), torch.cat([normal(300, 3, 1) * 0.05, normal(50, 3, 2)])
    found = kcenter(x, 40, labelled)
    assert (found.indices.tolist(), found.info['filled']) == (slow_kcenter(x, 40, labelled)[0], 0)


def test_kcenter_far_from_the_origin_and_at_any_scale():
    x = normal(200, 20)
    far = x + 1000
    assert kcenter(far, 50).indices.tolist() == slow_kcenter(far, 50)[0]
    for scale in (1e-6, 1e6):
        assert kcenter(x * scale, 50).indices.tolist() == kcenter(x, 50).indices.tolist()


def test_kcenter_sees_small_distances_beside_large_ones():
    x = torch.tensor([[0.0], [0.001], [0.003], [0.007], [1000.0], [-1000.0], [500.0]])
    found = kcenter(x, 7, x[:1] * 0)
    assert found.indices.tolist() == [4, 5, 6, 3, 2, 1, 0]
    np.testing.assert_allclose(found.gains, [1000, 1000, 500, 0.007, 0.003, 0.001, 0], rtol=1e-3)


def test_kcenter_takes_copies_last_and_in_order():
    x = normal(10, 30) * 5 + 3
    found = kcenter(x.repeat(3, 1), 15)
    assert (
        sorted(i % 10 for i in found.indices.tolist()[:10]) == list(range(10))
        and (found.gains[:10] > 0).all()
    )
    assert (found.gains[10:] == 0).all() and found.info == dict(radius=0, filled=5)
    left = [i for i in range(30) if i not in found.indices[:10].tolist()]
    assert found.indices[10:].tolist() == left[:5]
    assert kcenter(x, 3, x).gains.tolist() == [0, 0, 0]


def test_kcenter_compares_few_items():
    seen = []

    class Counted(coverage._Centres):
        def refresh(self, rows, max_centres=None):
            seen.append(len(rows))
            return super().refresh(rows, max_centres)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coverage, '_Centres', Counted)
        kcenter(normal(20_000, 32), 50)
    assert sum(seen[1:]) < 20_000  # of a million


def test_kcenter_compares_few_labelled_items(monkeypatch):
    pairs, squared = [], coverage._squared
    monkeypatch.setattr(
        coverage, '_squared', lambda x, y: (pairs.append(len(x) * len(y)), squared(x, y))[1]
    )
    kcenter(normal(3000, 4), 10, normal(3000, 4, 1))
    assert sum(pairs) < 3000 * 3000 / 2


# TypiClust


def slow_typiclust(x, labelled, of, n):
    "Clusters by labels, then size; small ones last; one from each in turn by typicality"
    here, known = of[len(labelled) :], of[: len(labelled)]
    clusters = sorted(
        set(here.tolist()),
        key=lambda c: ((of == c).sum() <= 5, (known == c).sum(), -(of == c).sum(), c),
    )
    typical = np.zeros(len(x))
    for c in clusters:
        rows = np.flatnonzero(here == c)
        for i in rows:
            others = np.sort(table(x[[i]], x[rows[rows != i]])[0])[
                : max(1, min(20, len(rows) // 2))
            ]
            typical[i] = 1 / (others.mean() + 1e-5) if len(others) else 0
    queues = {c: sorted(np.flatnonzero(here == c), key=lambda i: -typical[i]) for c in clusters}
    picks = []
    for small in (False, True):
        group = [c for c in clusters if ((of == c).sum() <= 5) == small]
        while any(queues[c] for c in group):
            picks += [int(queues[c].pop(0)) for c in group if queues[c]]
    return picks[:n], typical


@pytest.mark.parametrize('n', (1, 4, 12, 70, 90))
@pytest.mark.parametrize('labels', (0, 5))
def test_typiclust_is_the_algorithm_of_the_paper(n, labels):
    x, labelled = (
        normal(90, 4) + 3 * normal(4, 4, 1).repeat_interleave(torch.tensor([40, 25, 15, 10]), 0),
        normal(labels, 4, 2) + 3 * normal(4, 4, 1)[0],
    )
    found = typiclust(x, n, labelled, seed=3)
    a, b = coverage._both(x, labelled)
    of = coverage._clusters(torch.cat([b, a]), min(labels + n, 500), 3).numpy()
    picks, typical = slow_typiclust(unit(x), labelled, of, n)
    assert of[labels:][found.indices.numpy()].tolist() == of[labels:][picks].tolist()
    np.testing.assert_allclose(
        typical[found.indices.numpy()], typical[picks], rtol=1e-3
    )  # two items alone are equally typical
    np.testing.assert_allclose(found.gains, typical[picks], rtol=2e-3)


def test_typiclust_prefers_clusters_without_labels_and_leaves_outliers():
    centres = 10 * torch.eye(6)
    x = torch.cat([centres[i] + normal(30 + i, 6, i) for i in range(5)] + [centres[5:]])
    found = typiclust(x, 3, torch.cat([centres[:3], centres[:1]]) + 0.1)
    groups = torch.arange(5).repeat_interleave(torch.arange(30, 35)).tolist() + [5]
    assert {groups[i] for i in found.indices.tolist()[:2]} == {3, 4}  # no label
    assert 5 not in [groups[i] for i in found.indices.tolist()]


def test_typiclust_leaves_the_random_state_alone_and_belongs_to_its_seed():
    x = normal(300)
    np.random.seed(5)
    before = np.random.get_state()[1].copy()
    picks = [typiclust(x, 10, seed=s).indices.tolist() for s in (0, 0, 1)]
    assert picks[0] == picks[1] != picks[2] and (np.random.get_state()[1] == before).all()


# ProbCover


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(1, 50),
    share=st.floats(0, 1),
    labels=st.integers(0, 4),
    radius=st.floats(0.2, 1.6),
    seed=st.integers(0, 999),
)
def test_probcover_is_the_greedy_loop(size, share, labels, radius, seed):
    x, labelled, n = normal(size, 4, seed), normal(labels, 4, seed + 1), max(1, round(share * size))
    found = probcover(x, n, labelled if labels else None, radius=radius)
    a, b = unit(x), unit(labelled)
    within = table(a, a) <= radius
    covered = (table(a, b) <= radius).any(1) if labels else np.zeros(size, bool)
    picks, gains, _ = slow_cover(within.astype(float), 1.0, n, covered.astype(float))
    useful = sum(g > 0 for g in gains)
    assert found.indices.tolist()[:useful] == picks[:useful]
    assert found.gains.tolist() == gains[:useful] + [0] * (n - useful)
    assert found.info['filled'] == n - useful and found.info['covered'] * size == pytest.approx(
        covered.sum() + sum(gains)
    )


def test_probcover_goes_on_with_smaller_balls():
    x = normal(60, 4)
    first = probcover(x, 60, radius=1.2)
    useful = 60 - first.info['filled']
    assert 1 < useful < 20
    again = probcover(
        x, 40, x[first.indices[:useful]], radius=0.6
    )  # what is chosen covers at half the radius
    smaller = int((again.gains > 0).sum())
    assert (
        smaller > 5
        and first.indices[useful : useful + smaller].tolist() == again.indices[:smaller].tolist()
    )


def test_probcover_radius_follows_the_data():
    centres = 10 * torch.eye(8)
    x = torch.cat([centres[i] + normal(50, 8, i) for i in range(8)])
    found = probcover(x, 8)
    assert 0.1 < found.info['radius'] < 1 and found.info['covered'] > 0.6
    assert sorted(i // 50 for i in found.indices.tolist()) == list(range(8))
    assert probcover(x * 7, 8).info['radius'] == pytest.approx(
        found.info['radius'], rel=1e-3
    )  # directions only
    assert probcover(x, 30).info['radius'] < found.info['radius']
    assert probcover(x, 390).info['radius'] > 0.01  # nearly all clusters are single items


# Herding


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(2, 50),
    share=st.floats(0, 0.8),
    labels=st.integers(0, 4),
    radius=st.floats(0.2, 2),
    seed=st.integers(0, 999),
    double=st.booleans(),
)
def test_herding_is_the_greedy_loop(size, share, labels, radius, seed, double):
    dtype = torch.float64 if double else torch.float32
    x, labelled, n = (
        normal(size, 4, seed, dtype),
        normal(labels, 4, seed + 1, dtype),
        max(1, round(share * size)),
    )
    margin = -torch.rand(size, generator=torch.Generator().manual_seed(seed)).to(dtype)
    a, b = unit(x), unit(labelled)
    k = np.exp(-((table(a, a) / radius) ** 2))
    c = np.exp(-((table(a, b) / radius) ** 2)).max(1) if labels else np.zeros(size)
    for u, found in (
        (np.ones(size), max_herding(x, n, labelled, radius=radius)),
        (1 + margin.numpy(), uncertainty_herding(x, margin, n, labelled, radius=radius)),
    ):
        picks, gains, covered = slow_cover(k, u, n, c)
        assert found.indices.tolist() == picks or np.allclose(
            found.gains * size, gains, rtol=1e-4
        )  # up to ties
        np.testing.assert_allclose(found.gains * size, gains, rtol=1e-3, atol=1e-4)
        assert found.info['coverage'] == pytest.approx((u * covered).sum() / u.sum(), rel=1e-4)
        assert (found.gains.diff() <= 1e-6).all()


def test_the_radius_is_the_least_distance_between_labelled_items_or_the_tenth_of_all_pairs():
    x, labelled = normal(100), normal(6, seed=1)
    d = table(unit(labelled), unit(labelled))
    for strategy in ('max_herding', 'uncertainty_herding'):
        assert choose(strategy, x, 3, labelled).info['radius'] == pytest.approx(
            d[d > 1e-9].min(), rel=1e-4
        )
        assert choose(strategy, x, 3, labelled[[0, 1, 1, 2, 3, 4, 5, 5]]).info[
            'radius'
        ] == pytest.approx(d[d > 1e-9].min(), rel=1e-4)  # copies don't count
        assert choose(strategy, x, 3, labelled * torch.rand(6, 1)).info['radius'] == pytest.approx(
            d[d > 1e-9].min(), rel=1e-4
        )
        pairs = table(unit(x), unit(x))
        guess = np.quantile(pairs[pairs > 0], 0.1)
        for few in (None, labelled[:0], labelled[:1], labelled[[0, 0, 0]]):
            assert choose(strategy, x, 3, few).info['radius'] == pytest.approx(guess, rel=0.05)
        assert choose(strategy, x, 3, torch.cat([labelled, labelled + 1e-5])).info[
            'radius'
        ] == pytest.approx(d[d > 1e-9].min(), rel=1e-4)
        assert choose(strategy, x, 3, torch.cat([labelled, labelled + 0.008])).info[
            'radius'
        ] == pytest.approx(guess, rel=1e-4)  # not the .008


def trained(apart: float, per: int = 40, d: int = 16):
    """Features as a trained network makes them: five classes of candidates, and of the first two
    classes labelled items that lie within `apart` of one another"""
    centres = torch.eye(d)[:5]
    x = centres.repeat_interleave(per, 0) + 0.08 * normal(5 * per, d)
    return x, centres[:2].repeat_interleave(4, 0) + apart / d**0.5 * normal(8, d, 1)


@pytest.mark.parametrize('apart', (0.3, 0.03, 3e-3, 3e-4))
@pytest.mark.parametrize('strategy', ('max_herding', 'uncertainty_herding'))
def test_labelled_items_on_nearly_one_point_do_not_shrink_the_radius(strategy, apart):
    "The network has seen these and has pulled them together; the pool is as wide as before"
    x, labelled = trained(apart)
    found = (
        choose(strategy, x, 3, labelled)
        if strategy == 'max_herding'
        else uncertainty_herding(x, torch.full((200,), -0.2), 3, labelled)
    )
    pairs = table(unit(x), unit(x))
    assert found.info['radius'] >= np.quantile(pairs[pairs > 0], 0.1) * 0.999
    assert sorted(i // 40 for i in found.indices.tolist()) == [
        2,
        3,
        4,
    ]  # each class without labels once


def test_the_tenth_of_all_pairs_of_a_large_pool_is_that_of_its_items_in_any_order():
    x = torch.cat([normal(1500, 8) + 3, 0.3 * normal(1500, 8, 1) - 3])
    a, _ = coverage._both(x, None)
    pairs = torch.pdist(a.double())
    order = torch.randperm(3000, generator=torch.Generator().manual_seed(2))
    found = [coverage._tenth(a, seed) for seed in range(5)]
    np.testing.assert_allclose(found, pairs.quantile(0.1).item(), rtol=0.06)
    assert (
        coverage._tenth(a[order], 3) == pytest.approx(found[3], rel=1e-6) and len(set(found)) == 5
    )
    assert (
        max_herding(x, 12, seed=1).indices.tolist()
        == order[max_herding(x[order], 12, seed=1).indices].tolist()
    )
    copies = a[:500].repeat(2, 1)
    assert coverage._tenth(copies, 0) == pytest.approx(
        coverage._tenth(a[:500], 0), rel=0.05
    )  # copies are no pairs


@pytest.mark.parametrize('strategy', ('max_herding', 'uncertainty_herding', 'probcover'))
def test_features_that_share_a_direction_are_distinguished(strategy):
    """As behind a ReLU, or in a network that has hardly learned anything: all unit vectors lie
    close together, and their differences count as much as before"""
    noise = normal(300, 32)

    def batch_of(spread):
        return SELECTORS[strategy](
            1 + spread * noise.double(),
            *([torch.full((300,), -0.5).double()] if 'scores' in SELECTORS[strategy].needs else []),
            8,
        )

    wide = batch_of(1e-2)
    for spread in (1e-3, 1e-4, 1e-5):
        found = batch_of(spread)
        assert found.info['filled'] == 0 and found.info['radius'] == pytest.approx(
            wide.info['radius'] * spread / 1e-2, rel=0.05
        )
        assert len(set(found.indices.tolist()) & set(wide.indices.tolist())) >= 5
        share = 'covered' if strategy == 'probcover' else 'coverage'
        assert (
            found.info[share] == pytest.approx(wide.info[share], abs=0.05)
            and found.info[share] > 0.2
        )


def test_certainty_everywhere_is_filled_by_the_plain_cover():
    x, labelled = normal(80), normal(5, seed=1)
    found, plain = (
        uncertainty_herding(x, -torch.ones(80), 10, labelled),
        max_herding(x, 10, labelled),
    )
    assert found.indices.tolist() == plain.indices.tolist() and found.gains.abs().max() == 0
    assert found.info['filled'] == 10 and plain.info['filled'] == 0
    some = -torch.ones(80)
    some[7] = -0.5
    found = uncertainty_herding(x, some, 10, labelled, radius=0.05)
    assert (
        found.indices[0] == 7
        and found.info['filled'] == 9
        and found.info['coverage'] == pytest.approx(1)
    )


def test_unsure_items_draw_the_picks():
    x, u = normal(400), torch.full((400,), -1.0)
    u[:50] = -0.1
    picks = uncertainty_herding(x, u, 20, radius=0.3).indices
    assert (
        (picks < 50).float().mean()
        > 0.9
        > 0.5
        > (max_herding(x, 20, radius=0.3).indices < 50).float().mean()
    )


# What holds for all of them


@pytest.mark.parametrize('strategy', STRATEGIES)
class TestAll:
    @settings(max_examples=12, deadline=None)
    @given(
        size=st.integers(1, 40),
        share=st.floats(0, 1),
        labels=st.one_of(st.none(), st.integers(0, 5)),
        kinds=st.integers(1, 40),
        seed=st.integers(0, 99),
        double=st.booleans(),
    )
    def test_exactly_n_distinct_items(self, strategy, size, share, labels, kinds, seed, double):
        dtype = torch.float64 if double else torch.float32
        x = normal(min(kinds, size), 3, seed, dtype)[
            torch.randint(min(kinds, size), (size,), generator=torch.Generator().manual_seed(seed))
        ]  # with copies
        labelled, n = (
            None if labels is None else normal(labels, 3, seed + 1, dtype),
            max(1, round(share * size)),
        )
        before = x.clone()
        found = choose(strategy, x, n, labelled, seed=seed)
        assert (
            len(found) == n == len(set(found.indices.tolist()))
            and 0 <= found.indices.min()
            and found.indices.max() < size
        )
        assert (
            len(found.gains) == n
            and found.gains.isfinite().all()
            and (found.gains >= 0).all()
            and torch.equal(x, before)
        )
        json.dumps(found.info)
        again = choose(strategy, x, n, labelled, seed=seed)
        assert (
            torch.equal(found.indices, again.indices)
            and torch.equal(found.gains, again.gains)
            and found.info == again.info
        )

    @pytest.mark.parametrize('value', (0.0, 1.0, 1e5))
    @pytest.mark.parametrize('labels', (0, 1, 3))
    def test_all_items_equal(self, strategy, value, labels):
        x = torch.full((30, 4), value)
        found = choose(strategy, x, 30, x[:labels])
        assert sorted(found.indices.tolist()) == list(range(30)) and found.gains.isfinite().all()
        if strategy != 'typiclust':
            assert found.indices.tolist() == list(range(30))

    def test_one_item(self, strategy):
        for labelled in (None, normal(0, 3), normal(1, 3), normal(2, 3)):
            assert choose(strategy, normal(1, 3), 1, labelled).indices.tolist() == [0]

    def test_no_labelled_items_is_as_none(self, strategy):
        a, b = choose(strategy, normal(50), 9), choose(strategy, normal(50), 9, normal(0))
        assert a.indices.tolist() == b.indices.tolist() and a.info == b.info

    def test_the_start_of_a_batch_does_not_hang_on_its_end(self, strategy):
        x, labelled = normal(80), normal(5, seed=1)
        fixed = dict(radius=0.5) if strategy == 'probcover' else {}
        if strategy == 'typiclust':
            pytest.skip('it makes as many clusters as there will be labels')
        assert (
            choose(strategy, x, 20, labelled, **fixed).indices[:7].tolist()
            == choose(strategy, x, 7, labelled, **fixed).indices.tolist()
        )

    def test_what_is_labelled_is_not_chosen_again(self, strategy):
        x = torch.cat([normal(10, 8, seed=i) * 0.1 + 3 * normal(5, 8, seed=9)[i] for i in range(5)])
        picks = choose(strategy, x, 3, x[[0, 10]]).indices
        assert (
            not set(picks.tolist()) & set(range(20)) and len({i // 10 for i in picks.tolist()}) == 3
        )

    def test_in_any_order(self, strategy):
        if strategy == 'typiclust':
            pytest.skip('k-means begins at random rows')
        x, labelled, order = (
            normal(120, 6),
            normal(7, 6, 1),
            torch.randperm(120, generator=torch.Generator().manual_seed(1)),
        )
        fixed = dict(radius=0.6) if strategy == 'probcover' else {}
        a, b = (
            choose(strategy, x, 10, labelled, **fixed),
            choose(strategy, x[order], 10, labelled.flip(0), **fixed),
        )
        if strategy == 'probcover':
            assert a.gains[0] == b.gains[0]  # ties are many, and go to the first
        else:
            assert a.indices.tolist() == order[b.indices].tolist()

    def test_in_any_precision(self, strategy):
        x, labelled = normal(100, 6).half(), normal(4, 6, 1).half()  # exact in all four
        picks = [
            choose(strategy, x.to(t), 8, labelled.to(t)).indices.tolist()
            for t in (torch.float16, torch.float32, torch.float64)
        ]
        picks.append(choose(strategy, x.double(), 8, labelled.float()).indices.tolist())
        assert picks[1] == picks[2] == picks[3]
        assert (
            len(picks[0]) == 8 if strategy == 'uncertainty_herding' else picks[0] == picks[1]
        )  # its scores are halves too

    def test_in_pieces_of_any_size(self, strategy, monkeypatch):
        x, labelled = normal(45, 6), normal(11, 6, 1)
        whole = choose(strategy, x, 12, labelled)
        for size in (9, 50, 400):
            monkeypatch.setattr(
                coverage, 'rows_in_cache', lambda numbers, device='cpu': max(1, size // numbers)
            )
            found = choose(strategy, x, 12, labelled)
            assert found.indices.tolist() == whole.indices.tolist()
            np.testing.assert_allclose(found.gains, whole.gains, rtol=1e-4)

    def test_never_a_table_of_all_pairs(self, strategy, monkeypatch):
        monkeypatch.setattr(
            coverage, 'rows_in_cache', lambda numbers, device='cpu': max(1, 2**16 // numbers)
        )
        largest = 0

        class Watch(TorchDispatchMode):
            def __torch_dispatch__(self, function, types, args=(), kwargs=None):
                nonlocal largest
                out = function(*args, **(kwargs or {}))
                if isinstance(out, torch.Tensor):
                    largest = max(largest, out.numel())
                return out

        with Watch():
            choose(strategy, normal(3000, 8), 10, normal(200, 8, 1))
        assert 3000 < largest < 3000**2 / 20

    def test_errors_name_the_cause(self, strategy):
        with pytest.raises(ValueError, match='1 to 5'):
            choose(strategy, normal(5), 6)
        with pytest.raises(ValueError, match='NaN or infinite for 1 of 5'):
            choose(strategy, normal(5).index_fill(0, torch.tensor([2]), torch.nan), 2)
        if strategy in ('kcenter', 'typiclust'):
            return
        for radius in (0, -1.0, float('nan'), float('inf')):
            with pytest.raises(ValueError, match=f'{strategy}: radius={radius!r}'):
                choose(strategy, normal(5), 2, radius=radius)

    def test_it_declares_what_it_needs(self, strategy):
        found = find_selector(strategy)
        assert found.needs == (
            'features',
            *(['scores'] if strategy == 'uncertainty_herding' else []),
            'labelled_features',
        )
        assert found.score == ('margin' if strategy == 'uncertainty_herding' else None)

    @pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
    def test_on_a_gpu(self, strategy):
        x, labelled = normal(3000, 16, dtype=torch.float64), normal(30, 16, 1, torch.float64)
        a, b = choose(strategy, x, 20, labelled), choose(strategy, x.cuda(), 20, labelled.cuda())
        assert a.indices.tolist() == b.indices.tolist() and b.indices.device.type == 'cpu'
        np.testing.assert_allclose(a.gains, b.gains, rtol=1e-6)


@pytest.mark.parametrize('scores', (torch.full((9,), 0.5), torch.full((9,), -2.0)))
def test_scores_that_are_no_margin(scores):
    with pytest.raises(ValueError, match='from -1 .sure. to 0'):
        uncertainty_herding(normal(9), scores, 3)


def test_the_radius_does_not_depend_on_the_rounding_of_copies():
    x = torch.nn.functional.normalize(torch.randn(40, 6))
    noise = 3e-8 * torch.randn(15, 6)  # as between two batch sizes
    exact, rounded = (
        probcover(torch.cat([x, x[:15] + shift]), 6).info['radius'] for shift in (0 * noise, noise)
    )
    assert rounded == pytest.approx(exact, rel=1e-5)
