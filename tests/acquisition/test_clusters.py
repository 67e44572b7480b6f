"BADGE, Cluster-Margin and CLUE against naive loops, exact probabilities, and at the edges"

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from sklearn.cluster import AgglomerativeClustering, KMeans
from torch.nn.functional import one_hot

from fastai_al.acquisition import clusters
from fastai_al.acquisition.clusters import (
    _average_linkage,
    _plus_plus,
    _Products,
    _weighted_means,
    badge,
    clue,
    cluster_margin,
)
from fastai_al.acquisition.selection import SELECTORS


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def pool(n, d=5, c=4, seed=0, dtype=torch.float32, sharpness=3.0):
    g = seeded(seed)
    probs = (sharpness * torch.randn(n, c, generator=g, dtype=torch.double)).softmax(1)
    return (
        probs.to(dtype),
        torch.randn(n, d, generator=g, dtype=torch.double).to(dtype),
        torch.rand(n, generator=g, dtype=torch.double).to(dtype),
    )


def batch(name, probs, features, scores, n, **kwargs):
    return (
        badge(probs, features, n, **kwargs)
        if name == 'badge'
        else SELECTORS[name](features, scores, n, **kwargs)
    )


def built(probs, features):
    "The gradients that the library does not build"
    deltas = probs.double() - one_hot(probs.argmax(1), probs.shape[1])
    return (deltas[:, :, None] * features.double()[:, None]).flatten(1)


NAMES = ['badge', 'cluster_margin', 'clue']


# ---- squared distances without the product


@pytest.mark.parametrize('dtype, close', [(torch.float32, 1e-4), (torch.float64, 1e-11)])
@pytest.mark.parametrize('piece', [1, 7, 1000])
def test_distances_are_those_of_the_outer_products(dtype, close, piece, monkeypatch):
    monkeypatch.setattr(clusters, 'rows_in_cache', lambda *args: piece)
    probs, features, _ = pool(50, dtype=dtype)
    products = _Products(probs - one_hot(probs.argmax(1), 4), features)
    gradients, centres = built(probs, features), torch.tensor([3, 17, 44])
    exact = (
        torch.cdist(gradients, gradients[centres], compute_mode='donot_use_mm_for_euclid_dist') ** 2
    ).amin(1)
    rows = torch.tensor([5, 5, 3, 49])
    torch.testing.assert_close(
        products.to_nearest(None, centres).double(), exact, rtol=close, atol=close
    )
    torch.testing.assert_close(
        products.to_nearest(rows, centres).double(), exact[rows], rtol=close, atol=close
    )


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('d', [1, 2, 8, 300, 2048])
@pytest.mark.parametrize('kind', ['normal', 'positive', 'far from 0'])
def test_copies_are_at_distance_0(dtype, d, kind):
    probs, features, _ = pool(120, d=d, c=7, dtype=dtype)
    features = (
        dict(normal=features, positive=features.relu() + 0.1)[kind]
        if kind != 'far from 0'
        else features + 30
    )
    products = _Products(*(t.repeat(2, 1) for t in (probs - one_hot(probs.argmax(1), 7), features)))
    assert (products.to_nearest(None, torch.arange(120, 240))[:120] == 0).all()
    others = products.to_nearest(None, torch.arange(120, 180))
    assert (others[60:120] > 0).all() or d == 1


def test_features_whose_squares_overflow_are_named():
    probs, features, _ = pool(20)
    with pytest.raises(ValueError, match='scale them down'):
        badge(probs, features * 1e19, 3)
    assert len(set(badge(probs.double(), features.double() * 1e19, 3).indices.tolist())) == 3


# ---- the draw is that of k-means++, however old the distances are


def chances(distances, weights, first, n):
    "Exact probability of each order of n - 1 further picks"
    table = {}
    for order in itertools.permutations([i for i in range(len(weights)) if i != first], n - 1):
        p, chosen = 1.0, [first]
        for i in order:
            mass = weights * distances[:, chosen].min(1)
            p *= mass[i] / mass.sum()
            chosen.append(i)
        table[order] = p
    return table


@pytest.mark.parametrize('pending, weighted', [(1, False), (2, True), (64, False), (64, True)])
def test_orders_come_as_often_as_k_means_plus_plus_says(pending, weighted):
    probs, features, weights = pool(6, d=3, c=3, seed=2)
    weights = weights + 0.1 if weighted else torch.ones(6)
    gradients = built(probs, features).numpy()
    expected = chances(
        ((gradients[:, None] - gradients) ** 2).sum(-1), weights.double().numpy(), 1, 4
    )
    products, times, seen = (
        _Products(probs - one_hot(probs.argmax(1), 3), features),
        700,
        dict.fromkeys(expected, 0),
    )
    for seed in range(times):
        seen[
            tuple(
                _plus_plus(products, weights, 1, 4, seeded(seed), pending=pending)[0][1:].tolist()
            )
        ] += 1
    p, counts = np.array(list(expected.values())), np.array(list(seen.values()))
    likely = p * times >= 5
    p, counts = (
        np.append(p[likely], p[~likely].sum()),
        np.append(counts[likely], counts[~likely].sum()),
    )
    assert chisquare(counts, times * p / p.sum()).pvalue > 1e-3


def test_an_outlier_that_spoils_old_distances():
    "After it is taken, nearly all proposals fail, and the distances are renewed"
    x = torch.tensor([0.0, 1, 2, 3, 1e6])[:, None].double()
    seen = np.zeros(5)
    for seed in range(300):
        chosen = _plus_plus(
            _Products(torch.ones(5, 1).double(), x), torch.ones(5).double(), 0, 3, seeded(seed)
        )[0]
        assert chosen[1] == 4
        seen[chosen[2]] += 1
    assert (
        seen[0] == seen[4] == 0
        and chisquare(seen[1:4], 300 * np.array([1, 4, 9]) / 14).pvalue > 1e-3
    )


def test_items_of_no_weight_are_no_centres_while_others_are_left():
    x, weights = torch.arange(8.0)[:, None], torch.tensor([1.0, 0, 1, 0, 1, 0, 0, 0])
    for seed in range(50):
        chosen, gains, filled = _plus_plus(
            _Products(torch.ones(8, 1), x), weights, 0, 5, seeded(seed)
        )
        assert (
            set(chosen[:3].tolist()) == {0, 2, 4} and len(set(chosen.tolist())) == 5 and filled == 2
        )
        assert (gains[:2] > 0).all() and (gains[2:] == 0).all()


@pytest.mark.parametrize('pending', [1, 3, 64])
def test_distinct_also_where_a_device_rounds_coarsely(pending, monkeypatch):
    "Matrix products in reduced precision leave something between an item and itself"
    exact = _Products.to_nearest
    monkeypatch.setattr(
        _Products, 'to_nearest', lambda self, rows, centres: exact(self, rows, centres) + 0.5
    )
    for seed in range(20):
        chosen, _, _ = _plus_plus(
            _Products(torch.ones(12, 1), torch.rand(12, 2)),
            torch.ones(12),
            0,
            12,
            seeded(seed),
            pending=pending,
        )
        assert sorted(chosen.tolist()) == list(range(12))


# ---- BADGE


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('seed', range(4))
def test_gains_of_badge_are_squared_distances_to_what_came_before(dtype, seed):
    probs, features, _ = pool(400, dtype=dtype, seed=seed)
    chosen = badge(probs, features, 100, seed=seed)
    gradients = built(probs, features)[chosen.indices]
    exact = [(gradients[0] ** 2).sum()] + [
        ((gradients[:i] - gradients[i]) ** 2).sum(1).min() for i in range(1, 100)
    ]
    torch.testing.assert_close(chosen.gains, torch.stack(exact), rtol=1e-3, atol=1e-4)
    assert chosen.indices[0] == built(probs, features).norm(dim=1).argmax() and not chosen.info


def test_single_and_double_precision_pick_alike():
    probs, features, _ = pool(300, dtype=torch.float64)
    assert (
        badge(probs, features, 20).indices.tolist()
        == badge(probs.float(), features.float(), 20).indices.tolist()
    )


@given(st.integers(1, 40), st.integers(2, 6), st.integers(0, 10**6), st.floats(0, 50))
@settings(max_examples=40, deadline=None)
def test_the_scale_of_features_does_not_matter(n, c, seed, sharpness):
    probs, features, scores = pool(n, c=c, seed=seed, sharpness=sharpness)
    for name in NAMES:
        assert (
            batch(name, probs, features, scores, (n + 1) // 2).indices.tolist()
            == batch(name, probs, features * 8, scores, (n + 1) // 2).indices.tolist()
        )


def test_badge_spreads_over_kinds():
    "Five kinds of uncertain items and copies of each: five picks, five kinds"
    kind = torch.arange(100) % 5
    features, probs = torch.eye(5)[kind] * 3, torch.full((100, 4), 0.25)
    for seed in range(10):
        chosen = badge(probs, features, 7, seed=seed)
        assert (
            set(kind[chosen.indices[:5]].tolist()) == set(range(5))
            and len(set(chosen.indices.tolist())) == 7
        )
        assert chosen.info == dict(filled=2) and (chosen.gains[5:] == 0).all()


def test_of_certain_items_one_at_most_is_taken_before_others():
    "Their gradients are 0, so all of them are copies of one another"
    probs, features, _ = pool(30)
    probs[10:] = torch.eye(4)[0]
    for seed in range(5):
        chosen = badge(probs, features, 14, seed=seed)
        assert set(range(10)) <= set(chosen.indices[:11].tolist()) and chosen.info == dict(filled=3)


# ---- Cluster-Margin


def naive_cluster_margin(features, scores, n):
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[: 10 * n]
    unit = features[order] / np.linalg.norm(features[order], axis=1, keepdims=True)
    labels = (
        AgglomerativeClustering(max(1, len(order) // 10), linkage='average').fit_predict(unit)
        if len(order) > 1
        else [0]
    )
    groups = {}
    for item, label in zip(order, labels):
        groups.setdefault(label, []).append(item)
    groups, chosen = (
        sorted(groups.values(), key=lambda group: (len(group), order.index(group[0]))),
        [],
    )
    while len(chosen) < n:
        for group in groups:
            if group and len(chosen) < n:
                chosen.append(group.pop(0))
    return chosen


@pytest.mark.parametrize(
    'size, n', [(200, 10), (200, 20), (200, 50), (30, 29), (12, 12), (500, 7), (1, 1), (11, 1)]
)
@pytest.mark.parametrize('seed', range(3))
def test_cluster_margin_against_a_naive_loop(size, n, seed):
    _, features, scores = pool(size, seed=seed, dtype=torch.float64)
    chosen = cluster_margin(features, scores, n)
    assert chosen.indices.tolist() == naive_cluster_margin(features.numpy(), scores.numpy(), n)
    assert torch.equal(chosen.gains, scores[chosen.indices])


def test_what_is_rare_among_the_uncertain_comes_first():
    kind = torch.tensor([0] * 70 + [1] * 25 + [2] * 4 + [3])
    features = torch.eye(4)[kind] + 0.01 * torch.rand(100, 4, generator=seeded(0))
    chosen = cluster_margin(features, -torch.arange(100.0), 10)
    assert chosen.columns['cluster_size'].tolist() == sorted(
        chosen.columns['cluster_size'].tolist()
    )
    assert (
        {95, 99} <= set(chosen.indices.tolist())
        and chosen.columns['cluster_size'][0] == 1
        and set(kind[chosen.indices].tolist()) == {0, 1, 2, 3}
    )


def test_many_candidates_follow_some_of_them(monkeypatch):
    kind = torch.arange(600) % 12
    x = torch.eye(12)[kind] + 0.02 * torch.randn(600, 12, generator=seeded(1))
    exact = _average_linkage(x, 12, seeded(0))
    monkeypatch.setattr(clusters, '_LEAVES', 150)
    for seed in range(3):
        of = _average_linkage(x, 12, seeded(seed))
        assert (
            len(of) == 600 and len(set(zip(exact, of))) == len(set(of)) == 12
        )  # the same groups under other numbers
    few = cluster_margin(x, torch.rand(600, generator=seeded(2)), 400)
    assert len(set(few.indices.tolist())) == 400


# ---- CLUE


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('n', [1, 5, 30])
def test_centroids_are_those_of_scikit_learn_from_the_same_start(dtype, n, monkeypatch):
    _, features, weights = pool(500, dtype=dtype)
    start = torch.randperm(500, generator=seeded(3))[:n]
    monkeypatch.setattr(clusters, '_plus_plus', lambda *args: (start, None, 0))
    means, mass = _weighted_means(features, weights, n, seeded(0), steps=20)
    x, w = features.double().numpy(), weights.double().numpy()
    peer = KMeans(n, init=x[start.numpy()], n_init=1, max_iter=20, tol=1e-4).fit(x, sample_weight=w)
    np.testing.assert_allclose(
        means, peer.cluster_centers_, atol=1e-4 if dtype == torch.float32 else 1e-10
    )
    assert mass.sum().item() == pytest.approx(weights.double().sum().item(), rel=1e-5)


def test_clue_takes_the_nearest_items_that_are_left():
    _, features, scores = pool(200)
    chosen = clue(features, scores, 25)
    centred = features - features.mean(0)
    means, mass = _weighted_means(centred, scores / scores.max(), 25, clusters.generator('clue', 0))
    naive = []
    for c in mass.argsort(descending=True, stable=True):
        far = ((centred - means[c]) ** 2).sum(1)
        far[naive] = torch.inf
        naive.append(int(far.argmin()))
    assert chosen.indices.tolist() == naive and (chosen.gains.diff() <= 0).all()
    assert chosen.gains.sum().item() == pytest.approx(scores.sum().item(), rel=1e-5)


def test_one_centroid_is_the_weighted_mean():
    _, features, scores = pool(80)
    mean = (features * scores[:, None]).sum(0) / scores.sum()
    assert clue(features, scores, 1).indices.item() == (features - mean).norm(dim=1).argmin()


def test_doubt_moves_the_centroids():
    x = torch.cat([torch.linspace(0, 1, 50), torch.linspace(9, 10, 50)])[:, None]
    sure_of_the_far = torch.cat([torch.ones(50), torch.full((50,), 1e-6)])
    assert sum(i >= 50 for i in clue(x, torch.ones(100), 2).indices) == 1
    assert all(i < 50 for i in clue(x, sure_of_the_far, 2).indices)


def test_clue_and_scores_that_are_no_weights():
    _, features, scores = pool(40)
    with pytest.raises(ValueError, match='entropy, least_confidence or bald'):
        clue(features, scores - 1, 4)
    rounding = scores.clone()
    rounding[3] = -1e-7
    assert len(set(clue(features, rounding, 4).indices.tolist())) == 4
    for none in (torch.zeros(40), torch.full((40,), -1e-8)):
        assert clue(features, none, 4).gains.sum() == pytest.approx(40)  # plain k-means


# ---- edges that all share


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('dtype', [torch.float16, torch.float32, torch.float64])
def test_always_n_distinct_in_the_same_order(name, dtype):
    probs, features, scores = pool(37, dtype=dtype)
    for n in (1, 2, 20, 36, 37, np.int64(5)):
        chosen = batch(name, probs, features, scores, n, seed=7)
        assert (
            len(chosen) == len(chosen.gains) == len(set(chosen.indices.tolist())) == n
            and chosen.gains.isfinite().all()
        )
        assert all(len(column) == n for column in chosen.columns.values())
        again = batch(name, probs, features, scores, n, seed=7)
        assert torch.equal(again.indices, chosen.indices) and torch.equal(again.gains, chosen.gains)


def same(n):
    return torch.full((n, 3), 1 / 3), torch.ones(n, 2), torch.full((n,), 0.5)


EDGES = dict(
    one=pool(1),
    two=pool(2),
    all_equal=same(25),
    zero_features=(pool(25)[0], torch.zeros(25, 3), pool(25)[2]),
    certain=(torch.eye(4)[torch.arange(25) % 4], pool(25)[1], torch.zeros(25)),
    copies=tuple(t.repeat_interleave(5, 0) for t in pool(5)),
    tiny=(pool(25)[0], pool(25)[1] * 1e-30, pool(25)[2] * 1e-30),
    large=(pool(25)[0], pool(25)[1] * 1e12, pool(25)[2]),
    one_feature=pool(25, d=1),
    one_outlier=(pool(25)[0], torch.cat([pool(24)[1], torch.full((1, 5), 1e7)]), pool(25)[2]),
)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('edge', EDGES)
def test_edges(name, edge):
    size = len(EDGES[edge][0])
    for n in {1, (size + 1) // 2, size}:
        for seed in (0, 1):
            chosen = batch(name, *EDGES[edge], n, seed=seed)
            assert (
                len(set(chosen.indices.tolist())) == len(chosen) == n
                and 0 <= min(chosen.indices)
                and max(chosen.indices) < size
            )
            assert not chosen.gains.isnan().any()


@given(st.integers(1, 30), st.integers(1, 4), st.integers(1, 3), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_few_distinct_points(n, kinds, d, seed):
    g = seeded(seed)
    at = torch.randint(kinds, (n,), generator=g)
    probs, features, scores = (t[at] for t in pool(kinds, d=d, seed=seed))
    for name in NAMES:
        chosen = batch(name, probs, features, scores, n, seed=seed)
        assert sorted(chosen.indices.tolist()) == list(range(n))
    chosen = badge(probs, features, n, seed=seed)
    spread = n - chosen.info.get('filled', 0)
    assert (
        spread <= len(set(at.tolist())) and len(set(at[chosen.indices[:spread]].tolist())) == spread
    )  # no kind twice before the fill


def test_another_seed_another_batch():
    probs, features, scores = pool(200)
    assert len({tuple(badge(probs, features, 10, seed=s).indices.tolist()) for s in range(5)}) == 5
    assert (
        len({tuple(sorted(clue(features, scores, 10, seed=s).indices.tolist())) for s in range(5)})
        > 1
    )


def test_inputs_are_left_alone():
    for name in NAMES:
        given_, before = pool(50), pool(50)
        batch(name, *given_, 10)
        assert all(torch.equal(a, b) for a, b in zip(given_, before))


def test_they_are_registered_and_say_what_they_need():
    assert [SELECTORS[name].needs for name in NAMES] == [
        ('probs', 'features'),
        ('features', 'scores'),
        ('features', 'scores'),
    ]
    assert [SELECTORS[name].score for name in NAMES] == [None, 'margin', 'entropy']


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
@pytest.mark.parametrize('name', NAMES)
def test_a_gpu_picks_alike(name):
    probs, features, scores = pool(500, dtype=torch.float64)
    a, b = (
        batch(name, probs, features, scores, 30),
        batch(name, probs.cuda(), features.cuda(), scores.cuda(), 30),
    )
    assert torch.equal(a.indices, b.indices) and not b.indices.is_cuda
    torch.testing.assert_close(a.gains, b.gains)
