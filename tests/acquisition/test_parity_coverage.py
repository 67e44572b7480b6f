"The same items as scikit-activeml, where both are given the same to choose from"

import numpy as np
import pytest
import torch

pool = pytest.importorskip(
    'skactiveml.pool', reason='scikit-activeml is not installed: nothing to compare with'
)
from sklearn.cluster import KMeans

from fastai_al.acquisition import coverage
from fastai_al.acquisition.coverage import kcenter, max_herding, probcover, typiclust


def problem(n=400, d=16, labels=6, seed=0, dtype=torch.float32, groups=8):
    g = torch.Generator().manual_seed(seed)
    x = 3 * torch.randn(groups, d, generator=g)[
        torch.randint(groups, (n + labels,), generator=g)
    ] + torch.randn(n + labels, d, generator=g)
    return x[labels:].to(dtype), x[:labels].to(dtype)


def together(x, labelled, normalise=False):
    "Labelled items first, as scikit-activeml takes them, and targets that say which they are"
    both = torch.cat([labelled, x]).numpy()
    if normalise:
        both = both / np.linalg.norm(both, axis=1, keepdims=True)
    return both, np.r_[np.arange(len(labelled)) % 2, np.full(len(x), np.nan)].astype(float)


def query_of(strategy, x, labelled, n, normalise=False, **kwargs):
    both, y = together(x, labelled, normalise)
    indices, utilities = strategy.query(both, y, batch_size=n, return_utilities=True, **kwargs)
    return (indices - len(labelled)).tolist(), np.array([u[i] for u, i in zip(utilities, indices)])


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('dtype', (torch.float32, torch.float64))
def test_kcenter_is_core_set(seed, dtype):
    x, labelled = problem(600, 32, 1 + 5 * seed, seed, dtype)
    found = kcenter(x, 80, labelled)
    indices, utilities = query_of(pool.CoreSet(random_state=0), x, labelled, 80)
    assert found.indices.tolist() == indices
    np.testing.assert_allclose(found.gains, utilities, rtol=1e-4)


def test_kcenter_without_labels_is_core_set_after_its_first_pick():
    """They draw the first item at random, so two seeds give two batches; ours is the one nearest
    to the mean"""
    x, _ = problem(500, 8)
    found = kcenter(x, 40)
    first, rest = int(found.indices[0]), torch.arange(500) != found.indices[0]
    indices, _ = query_of(pool.CoreSet(random_state=0), x[rest], x[[first]], 39)
    assert found.indices[1:].tolist() == rest.nonzero()[indices, 0].tolist()


@pytest.mark.parametrize('seed', range(4))
def test_typiclust(seed):
    """The same k-means under both, and clusters large enough that three differences in details
    do not show

    They keep clusters of five or fewer, look at all neighbours of a cluster below 20 (we: at half
    of it, as the authors' code), and give no second item of a cluster."""
    g = torch.Generator().manual_seed(seed)
    of = torch.arange(7).repeat_interleave(torch.arange(50, 120, 10))
    x = 8 * torch.eye(8)[of] + torch.randn(len(of), 8, generator=g)
    labelled = 8 * torch.eye(8)[:3] + torch.randn(3, 8, generator=g)
    found = typiclust(x, 4, labelled, seed=seed)
    a, b = coverage._both(x, labelled)
    ours = coverage._clusters(torch.cat([b, a]), 7, seed)
    free = [int((ours == c).sum()) for c in set(ours.tolist()) - set(ours[:3].tolist())]
    assert (
        len(free) >= 4 and len(set(free)) == len(free) and sorted(free)[-4] > 40
    )  # enough to choose from, no ties
    both, y = together(x, labelled)
    strategy = pool.TypiClust(
        random_state=seed,
        cluster_algo=KMeans,
        cluster_algo_dict=dict(n_init=1, random_state=seed),
        k=20,
    )
    indices, utilities = strategy.query(
        torch.cat([b, a]).numpy(), y, batch_size=4, return_utilities=True
    )
    assert found.indices.tolist() == (indices - 3).tolist()
    # they divide the sum over 20 others and the item itself, at distance 0, by 20; and guard
    # against 0 by another small number
    np.testing.assert_allclose(found.gains, [u[i] for u, i in zip(utilities, indices)], rtol=1e-3)


@pytest.mark.parametrize('labels', (1, 10))
@pytest.mark.parametrize('radius', (0.3, 0.6, 0.9))
def test_probcover(labels, radius):
    """One item at a time, since they draw among equals at random and we take the first: ours is
    always one of their best, with the same count"""
    x, labelled = problem(300, 8, labels, 1)
    found = probcover(x, 12, labelled, radius=radius)
    for i, (pick, gain) in enumerate(zip(found.indices.tolist(), found.gains.tolist())):
        if gain == 0:
            break  # all is covered; they go on with any item, we with smaller balls
        chosen = found.indices[:i]
        both, y = together(x, labelled, normalise=True)
        y[labels + chosen.numpy()] = 0
        _, utilities = pool.ProbCover(deltas=[radius], random_state=0).query(
            both, y, return_utilities=True
        )
        assert gain == np.nanmax(utilities[0]) == utilities[0][labels + pick]
    assert i > 1


def test_our_radius_covers_more_than_theirs():
    """Their grid of radii starts at .2 and asks for pure balls, in as many clusters as classes
    were seen; ours asks for balls that the batch can cover the pool with"""
    x, labelled = problem(300, 8, 10, 1)
    both, y = together(x, labelled, normalise=True)
    strategy = pool.ProbCover(n_classes=8, random_state=0)
    strategy.query(both, y, batch_size=10)
    ours, theirs = (
        probcover(x, 10, labelled),
        probcover(x, 10, labelled, radius=float(strategy.delta_max_)),
    )
    assert ours.info['radius'] != pytest.approx(theirs.info['radius'])
    assert 0.6 < ours.info['covered'] < 1


@pytest.mark.parametrize('labels', (0, 1, 12))
@pytest.mark.parametrize('radius', (0.2, 0.7, 1.5))
def test_max_herding(labels, radius):
    """Their kernel is exp(-gamma d^2), with gamma = 1 / D unless set; ours exp(-d^2 /
    radius^2), as in the authors' code"""
    x, labelled = problem(500, 8, labels, 2)
    found = max_herding(x, 30, labelled, radius=radius)
    indices, utilities = query_of(
        pool.MaxHerding(random_state=0, metric_dict=dict(gamma=radius**-2)), x, labelled, 30
    )
    assert found.indices.tolist() == indices
    np.testing.assert_allclose(found.gains, utilities, rtol=1e-3, atol=1e-7)
