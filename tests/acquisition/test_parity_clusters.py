"BADGE and CLUE against scikit-activeml, stochastic batches against Baal: the same tensors in"

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch.nn.functional import one_hot

from fastai_al.acquisition.clusters import _plus_plus, _Products, badge, clue
from fastai_al.acquisition.stochastic import stochastic

G = torch.Generator().manual_seed(0)
PROBS = (2 * torch.randn(60, 4, generator=G, dtype=torch.double)).softmax(1)
FEATURES = torch.randn(60, 6, generator=G, dtype=torch.double)


# ---- scikit-activeml


def peer(probs, features):
    "A fitted classifier of scikit-activeml with given predictions"
    base = pytest.importorskip('skactiveml.base', reason='scikit-activeml is not installed')

    class Fixed(base.SkactivemlClassifier):
        def fit(self, X, y, sample_weight=None):
            return self

        def predict_proba(self, X):
            return probs.numpy(), features.numpy()

    return Fixed(classes=list(range(probs.shape[1])))


def query_of(strategy, probs, features, n):
    X = np.arange(len(probs), dtype=float)[:, None]
    return strategy.query(
        X,
        np.full(len(X), np.nan),
        peer(probs, features),
        False,
        batch_size=n,
        return_utilities=True,
    )


@pytest.mark.parametrize('seed', range(4))
def test_badge_has_the_chances_of_scikit_activeml(seed):
    """Up to one thing: there the zero vector counts as a centre from the second pick on (the
    squared lengths of the first step are kept as distances),
    here, as in the authors' code, it does not. With that centre added the distances are the same at
    each step."""
    pool = pytest.importorskip('skactiveml.pool', reason='scikit-activeml is not installed')
    picks, utilities = query_of(pool.Badge(random_state=seed), PROBS, FEATURES, 12)
    products = _Products(PROBS - one_hot(PROBS.argmax(1), 4), FEATURES)
    assert badge(PROBS, FEATURES, 1).indices.item() == picks[0]
    np.testing.assert_allclose(utilities[0], products.norms / products.norms.sum(), atol=1e-12)
    for step in range(1, 12):
        ours = torch.minimum(products.to_nearest(None, torch.tensor(picks[:step])), products.norms)
        left = [i for i in range(60) if i not in picks[:step]]
        np.testing.assert_allclose(utilities[step][left], (ours / ours.sum())[left], atol=1e-12)


def test_badge_draws_second_picks_as_often():
    pool = pytest.importorskip('skactiveml.pool', reason='scikit-activeml is not installed')
    probs = torch.cat(
        [PROBS[:8], torch.eye(4, dtype=torch.double)[:1]]
    )  # a zero gradient brings the zero vector in as a second centre on our side too
    products = _Products(probs - one_hot(probs.argmax(1), 4), FEATURES[:9])
    first, zero = badge(probs, FEATURES[:9], 1).indices.item(), 8
    third = np.zeros(9)
    for seed in range(1500):
        picks = _plus_plus(
            products, torch.ones(9).double(), first, 3, torch.Generator().manual_seed(seed)
        )[0].tolist()
        if picks[1] == zero:
            third[picks[2]] += 1
    _, utilities = query_of(pool.Badge(random_state=0), probs, FEATURES[:9], 2)
    left = [i for i in range(8) if i != first]
    assert (
        third.sum() > 60 and chisquare(third[left], third.sum() * utilities[1][left]).pvalue > 1e-3
    )


def test_clue_finds_the_same_items_where_clusters_are_plain():
    pool = pytest.importorskip('skactiveml.pool', reason='scikit-activeml is not installed')
    g = torch.Generator().manual_seed(1)
    features = 20 * torch.eye(6, dtype=torch.double)[torch.arange(120) % 6] + torch.randn(
        120, 6, generator=g, dtype=torch.double
    )
    probs = torch.randn(120, 4, generator=g, dtype=torch.double).softmax(1)
    doubt = torch.special.entr(probs).sum(1)
    picks, _ = query_of(
        pool.Clue(random_state=0, cluster_algo_dict=dict(random_state=0, n_init=10)),
        probs,
        features,
        6,
    )
    assert set(clue(features, doubt, 6).indices.tolist()) == set(picks.tolist())


def test_clue_covers_doubt_as_well():
    """On points without plain clusters the two end in different optima; over ten starts they are
    equally good"""
    pool = pytest.importorskip('skactiveml.pool', reason='scikit-activeml is not installed')
    g = torch.Generator().manual_seed(2)
    features, probs = (
        torch.randn(400, 5, generator=g, dtype=torch.double),
        torch.randn(400, 3, generator=g, dtype=torch.double).softmax(1),
    )
    doubt = torch.special.entr(probs).sum(1)

    def left(picks):
        return (doubt * (torch.cdist(features, features[picks]) ** 2).amin(1)).sum().item()

    ours = np.mean([left(clue(features, doubt, 15, seed=s).indices) for s in range(10)])
    peers = [pool.Clue(random_state=s, cluster_algo_dict=dict(random_state=s)) for s in range(10)]
    theirs = np.mean(
        [left(torch.as_tensor(query_of(peer_, probs, features, 15)[0])) for peer_ in peers]
    )
    assert ours == pytest.approx(theirs, rel=0.05)


# ---- Baal


@pytest.mark.parametrize(
    'kind, name',
    [('power', 'PowerSampling'), ('softmax', 'GibbsSampling'), ('softrank', 'RankBasedSampling')],
)
@pytest.mark.parametrize('temperature', [0.5, 1.0, 2.0])
def test_first_picks_have_the_chances_of_baal(kind, name, temperature):
    "Its temperature is one over our beta. Ties share the mean of their ranks in both"
    peer = pytest.importorskip('baal.active.heuristics.stochastics', reason='Baal is not installed')
    scores = torch.tensor([0.5, 2, 1, 1, 0.4, 1.5], dtype=torch.double)
    expected = getattr(peer, name)(None, 1, temperature)._make_distribution(scores.numpy().copy())
    ours, strategy_ = np.full(6, np.nan), stochastic('bald', kind, 1 / temperature)
    for seed in range(600):
        chosen = strategy_(scores, 1, seed=seed)
        ours[chosen.indices.item()] = chosen.columns['probability'].item()
    seen = ~np.isnan(ours)
    assert seen.sum() >= 5
    np.testing.assert_allclose(ours[seen], expected[seen], rtol=1e-12)


def test_where_positive_scores_are_too_few_we_still_take_them_first():
    """Baal then draws uniformly from all items, and may leave out the only ones that are worth
    something"""
    pytest.importorskip('baal.active.heuristics.stochastics', reason='Baal is not installed')
    for seed in range(50):
        assert stochastic('bald')(torch.tensor([0.0, 0, 0, 3, 0]), 2, seed=seed).indices[0] == 3
