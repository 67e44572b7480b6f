"""What is strange, and how many of it: outlier scores against scikit-learn and by hand, p-values
and the false discovery rate by simulation"""

import functools
import inspect
import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.covariance import EmpiricalCovariance, ledoit_wolf
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from torch.nn.functional import linear, normalize

from fastai_al.acquisition.registry import parameters_of
from fastai_al.triage import outliers
from fastai_al.triage.outliers import (
    OUTLIER_SCORES,
    benjamini_hochberg,
    conformal_pvalues,
    energy,
    find_outlier_score,
    knn_distance,
    mahalanobis,
    relative_mahalanobis,
)

everyone = pytest.mark.parametrize('by', OUTLIER_SCORES)


def made(
    n: int = 40, m: int = 90, d: int = 6, c: int = 3, seed: int = 0, dtype=torch.float64
) -> dict:
    "Features of items and of reference items of some classes that spread unequally, and a layer"
    g = torch.Generator().manual_seed(seed)

    def normal(*size):
        return torch.randn(*size, generator=g, dtype=torch.float64)

    means, mix, labels = (
        3 * normal(c, d),
        torch.eye(d) + 0.5 * normal(d, d) / d**0.5,
        torch.arange(m) % c,
    )
    given = dict(
        features=2 * normal(n, d),
        reference=means[labels] + normal(m, d) @ mix,
        weight=means - means.mean(0),
        bias=normal(c),
    )
    return {name: value.to(dtype) for name, value in given.items()} | dict(labels=labels)


def scored(by, given: dict, **changed) -> torch.Tensor:
    return find_outlier_score(by)(
        **{
            name: value
            for name, value in (given | changed).items()
            if name in parameters_of(find_outlier_score(by))
        }
    )


def within(given: dict) -> tuple[np.ndarray, np.ndarray]:
    "Class means, and how each reference item differs from its own"
    rows, labels = given['reference'].double().numpy(), given['labels'].numpy()
    means = np.stack([rows[labels == c].mean(0) for c in np.unique(labels)])
    return means, rows - means[labels]


def squared(features: torch.Tensor, means: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    "Least squared distances, one item and class at a time"
    return np.array(
        [
            min((x - m) @ np.linalg.solve(covariance, x - m) for m in means)
            for x in features.double().numpy()
        ]
    )


# Parity, and by hand


@pytest.mark.parametrize('k', [1, 3, 90])
def test_neighbours_are_those_of_scikit_learn(k):
    given = made()
    nearest = NearestNeighbors(n_neighbors=k, algorithm='brute').fit(normalize(given['reference']))
    np.testing.assert_allclose(
        scored('knn_distance', given, k=k),
        nearest.kneighbors(normalize(given['features']))[0][:, -1],
        atol=1e-12,
    )


def test_a_copy_is_at_no_distance_also_in_single_precision():
    rows = torch.randn(300, 64)
    assert (
        knn_distance(rows, rows, k=1).max() < 1e-6
        and knn_distance(rows, torch.cat([rows, 5 * rows]), k=2).max() < 1e-6
    )


def test_energy_by_hand():
    found = energy(
        torch.tensor([[1.0, 2], [0, 0]]),
        torch.tensor([[1.0, 0], [0, -1], [1, 1]]),
        torch.tensor([0.0, 1, -1]),
    )
    torch.testing.assert_close(
        found, -torch.tensor([math.e + math.exp(-1) + math.e**2, 1 + math.e + math.exp(-1)]).log()
    )
    torch.testing.assert_close(
        energy(torch.tensor([[1e4, 0.0]]), torch.eye(2), None), torch.tensor([-1e4])
    )  # no overflow
    assert (energy(torch.randn(9, 4), torch.zeros(5, 4), None) + math.log(5)).abs().max() < 1e-6


@pytest.mark.parametrize('m, d', [(90, 6), (12, 40), (7, 1), (4, 4)])
def test_mahalanobis_is_that_of_the_covariance_shrunk_by_scikit_learn(m, d):
    given = made(m=m, d=d, n=12)
    means, spread = within(given)
    covariance, rho = ledoit_wolf(spread, assume_centered=True)
    assert d == 1 or 0 < rho < 1
    np.testing.assert_allclose(
        scored('mahalanobis', given), squared(given['features'], means, covariance), rtol=1e-8
    )
    one = given['reference'].numpy().mean(0)
    between = (means - one)[given['labels']]
    alone = squared(given['features'], one[None], covariance + between.T @ between / m)
    np.testing.assert_allclose(
        scored('relative_mahalanobis', given),
        squared(given['features'], means, covariance) - alone,
        rtol=1e-7,
        atol=1e-7,
    )


def test_with_many_items_nothing_is_shrunk():
    given = made(m=30_000, d=3)
    means, spread = within(given)
    fitted = EmpiricalCovariance(assume_centered=True).fit(spread)
    x = given['features'].numpy()
    plain = np.min([fitted.mahalanobis(x - m) for m in means], 0)
    np.testing.assert_allclose(scored('mahalanobis', given), plain, rtol=5e-3)
    everything = EmpiricalCovariance().fit(given['reference'].numpy())
    np.testing.assert_allclose(
        scored('relative_mahalanobis', given),
        plain - everything.mahalanobis(x),
        rtol=2e-2,
        atol=2e-2,
    )


def test_mahalanobis_by_hand():
    reference = torch.tensor(
        [[1.0, 0], [-1, 0], [0, 1], [0, -1]]
    )  # covariance 1/2 I, which shrinking leaves as it is
    items = torch.tensor([[3.0, 0], [3, 4], [0, 0]])
    torch.testing.assert_close(
        mahalanobis(items, reference, torch.zeros(4, dtype=torch.long)), torch.tensor([18.0, 50, 0])
    )
    both, labels = torch.cat([reference, reference + 10]), torch.arange(8) // 4
    torch.testing.assert_close(mahalanobis(items, both, labels), torch.tensor([18.0, 50, 0]))
    torch.testing.assert_close(
        mahalanobis(items + 10, both, labels + 5), torch.tensor([18.0, 50, 0])
    )  # classes need not begin at 0
    # all together: mean (5, 5), covariance 1/2 I + 25 (1 1; 1 1), whose eigenvalues are 50.5 along
    # (1, 1) and .5 across
    torch.testing.assert_close(
        relative_mahalanobis(items, both, labels),
        torch.tensor([18.0, 50, 0]) - torch.tensor([24.5 / 50.5 + 9, 4.5 / 50.5 + 1, 50 / 50.5]),
    )


def test_vim_as_the_paper_writes_it():
    given = made(d=8, m=200)
    x, rows, w, b = [given[name].numpy() for name in ('features', 'reference', 'weight', 'bias')]
    origin = -np.linalg.pinv(w) @ b
    values, vectors = np.linalg.eigh(
        EmpiricalCovariance(assume_centered=True).fit(rows - origin).covariance_
    )
    for dim in (None, 0, 3, 7):
        rest = vectors[:, np.argsort(-values)[4 if dim is None else dim :]]
        alpha = (rows @ w.T + b).max(1).mean() / np.linalg.norm(
            (rows - origin) @ rest, axis=1
        ).mean()
        expected = alpha * np.linalg.norm((x - origin) @ rest, axis=1) - np.log(
            np.exp(x @ w.T + b).sum(1)
        )
        np.testing.assert_allclose(scored('vim', given, dim=dim), expected, rtol=1e-9)


@pytest.mark.parametrize(
    'width, items, dim',
    [
        (2048, 4000, 1000),
        (1501, 2000, 1000),
        (1500, 2000, 512),
        (768, 1000, 512),
        (767, 1000, 383),
        (2, 9, 1),
        (1, 9, 0),
        (2048, 300, 200),
        (64, 30, 20),
        (64, 2, 1),
        (64, 1, 0),
    ],
)
def test_the_default_dimension_is_that_of_the_paper_while_there_are_items(
    width, items, dim, monkeypatch
):
    # the eigenvalues alone decide: those of `items` independent rows
    monkeypatch.setattr(
        torch.linalg,
        'eigh',
        lambda moments: (torch.arange(width) >= width - items, torch.empty(width, width)),
    )
    assert outliers._residual_space(torch.ones(items, width), None).shape == (width, width - dim)


# Properties


@everyone
def test_scores_are_of_one_shape_and_of_each_item_alone(by, monkeypatch):
    given = made(dtype=torch.float32)
    scores = scored(by, given)
    assert (
        scores.shape == (40,)
        and scores.dtype == torch.float32
        and scores.isfinite().all()
        and not scores.requires_grad
    )
    assert list(inspect.signature(OUTLIER_SCORES[by]).parameters)[0] == 'features'
    order = torch.randperm(40)
    torch.testing.assert_close(
        scored(by, given, features=given['features'][order]), scores[order], rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(
        scored(by, given, features=given['features'][7:8]), scores[7:8], rtol=1e-4, atol=1e-4
    )
    assert scored(by, given, features=given['features'][:0]).shape == (0,)
    monkeypatch.setattr(outliers, 'rows_in_memory', lambda numbers, device: 7)
    torch.testing.assert_close(scored(by, given), scores, rtol=1e-4, atol=1e-4)


@everyone
def test_what_is_far_from_everything_is_strange(by):
    g, given = torch.Generator().manual_seed(0), made(d=30, m=200, c=4)
    means, spread = within(given)
    reference = given['reference'] = torch.as_tensor(means)[given['labels']] + torch.randn(
        200, 30, generator=g, dtype=torch.float64
    )
    given['weight'], given['bias'] = (
        torch.as_tensor(means - means.mean(0)) / 9,
        torch.zeros(4).double(),
    )
    fresh = reference[:100] + torch.randn(100, 30, generator=g)
    far = 3 * torch.randn(100, 30, generator=g, dtype=torch.float64) + torch.as_tensor(
        means.mean(0)
    )
    assert (
        roc_auc_score([0] * 100 + [1] * 100, scored(by, given, features=torch.cat([fresh, far])))
        > 0.9
    )


def test_neighbours_do_not_see_the_scale():
    given = made(dtype=torch.float32)
    scores = scored('knn_distance', given)
    for scale in (1e-30, 1e-3, 1e30):
        torch.testing.assert_close(
            scored('knn_distance', given, features=given['features'] * scale), scores
        )
        torch.testing.assert_close(
            scored('knn_distance', given, reference=given['reference'] * scale), scores
        )
    assert (
        0 <= scores.min()
        and scores.max() <= 2
        and knn_distance(torch.zeros(1, 6), given['reference']).item() == 1
    )  # zeros have no direction


def moved(given: dict, by: torch.Tensor) -> dict:
    return given | {name: given[name] @ by + 7 for name in ('features', 'reference')}


@pytest.mark.parametrize('by', ['mahalanobis', 'relative_mahalanobis'])
def test_gaussians_do_not_see_affine_maps(by):
    turn = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q
    for m in (90, 5):  # shifts, rotations and changes of scale always
        torch.testing.assert_close(
            scored(by, moved(made(m=m), 0.01 * turn)), scored(by, made(m=m)), rtol=1e-7, atol=1e-7
        )
    skew = torch.eye(6, dtype=torch.float64) + 0.4 * torch.randn(6, 6, dtype=torch.float64)
    many = made(m=50_000)  # all others where nothing is shrunk any more
    torch.testing.assert_close(
        scored(by, moved(many, skew)), scored(by, many), rtol=2e-2, atol=2e-2
    )
    assert (
        scored(by, moved(many, skew) | dict(features=many['features'])) - scored(by, many)
    ).abs().max() > 1


def test_what_never_varied_is_strange_and_finite():
    given = made(d=5)
    given['features'], given['reference'] = [
        torch.cat([given[name], torch.zeros(len(given[name]), 3)], 1)
        for name in ('features', 'reference')
    ]  # dead units
    asleep, woken = given['features'], given['features'] + torch.tensor([0.0] * 5 + [3] * 3)
    scores = scored('mahalanobis', given, features=woken)
    assert scores.isfinite().all() and (scores > scored('mahalanobis', given) + 100).all()
    torch.testing.assert_close(
        scored('relative_mahalanobis', given, features=woken),
        scored('relative_mahalanobis', given, features=asleep),
    )  # which looks at classes
    far = torch.randn(99, 8, dtype=torch.float64) * 1e4
    assert (
        scored('relative_mahalanobis', given, features=far) > 0
    ).all()  # the Gaussian of all is nowhere the narrower one


@everyone
@pytest.mark.parametrize('m, d', [(4, 3), (4, 50), (3, 9), (6, 6)])
def test_few_reference_items(by, m, d):
    given = made(m=m, d=d, dtype=torch.float32) | dict(labels=(torch.arange(m) > 1).long(), k=2)
    given['weight'], given['bias'] = given['reference'][:2], None
    scores = scored(by, given)
    assert scores.isfinite().all() and scores.unique().numel() == 40


def test_two_items_of_one_class_are_enough_for_mahalanobis():
    scores = mahalanobis(
        torch.tensor([[3.0, 0, 0], [0, 1, 0]]),
        torch.tensor([[1.0, 0, 0], [-1, 0, 0]]),
        torch.zeros(2).long(),
    )
    assert scores.isfinite().all() and scores[1] > 1e4 * scores[0]  # nothing ever went that way


@pytest.mark.parametrize('by', ['knn_distance', 'energy', 'vim'])
def test_one_reference_item_is_enough(by):
    given = made(m=1) | dict(k=1)
    given['weight'], given['bias'] = (
        torch.cat([given['reference'], -given['reference']]),
        torch.zeros(2).double(),
    )
    assert scored(by, given).isfinite().all()


@everyone
@pytest.mark.parametrize('dtype, most', [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_half_precision_is_taken_to_float32(by, dtype, most):
    given = made(dtype=dtype)
    scores = scored(by, given)
    wide = {
        name: value.float() if value.is_floating_point() else value for name, value in given.items()
    }
    assert scores.dtype == torch.float32 and torch.equal(scores, scored(by, wide))
    exact = scored(by, made())
    assert ((scores - exact).abs() / exact.std()).max() < 20 * most


@everyone
def test_mixed_precision_gradients_and_subclasses_change_nothing(by):
    class Features(torch.Tensor):
        pass

    given = made(dtype=torch.float32)
    scores = scored(by, given)
    parameters = {name: torch.nn.Parameter(given[name]) for name in ('weight', 'bias')}
    with torch.autocast('cpu', torch.bfloat16):
        again = scored(by, given, features=given['features'].as_subclass(Features), **parameters)
    assert torch.equal(again, scores) and type(again) is torch.Tensor and not again.requires_grad


@everyone
def test_what_is_given_stays_as_it_was(by):
    given = made(dtype=torch.float32)
    before, state = (
        {name: value.clone() for name, value in given.items()},
        torch.random.get_rng_state(),
    )
    scored(by, given)
    assert all(torch.equal(before[name], given[name]) for name in given) and torch.equal(
        torch.random.get_rng_state(), state
    )


@everyone
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
def test_on_a_gpu(by):
    given = made(dtype=torch.float32)
    scores = scored(by, given, features=given['features'].cuda())
    assert scores.is_cuda
    torch.testing.assert_close(scores.cpu(), scored(by, given), rtol=1e-3, atol=1e-3)
    assert (
        conformal_pvalues(scores, scores[:9].cpu()).is_cuda
        and benjamini_hochberg(conformal_pvalues(scores, scores[:9]), 0.1).is_cuda
    )


# Names


def test_names():
    assert all(
        find_outlier_score(name) is function and function.__name__ == name
        for name, function in OUTLIER_SCORES.items()
    )
    mine = lambda features: features[:, 0]
    assert find_outlier_score(mine) is mine and find_outlier_score(
        functools.partial(knn_distance, k=3)
    ).keywords == {'k': 3}
    needs = {
        name: set(parameters_of(function)) & {'reference', 'labels', 'weight', 'bias'}
        for name, function in OUTLIER_SCORES.items()
    }
    assert needs == {
        'knn_distance': {'reference'},
        'energy': {'weight', 'bias'},
        'mahalanobis': {'reference', 'labels'},
        'relative_mahalanobis': {'reference', 'labels'},
        'vim': {'reference', 'weight', 'bias'},
    }
    with pytest.raises(
        ValueError,
        match="'knn'. Known: knn_distance, energy, mahalanobis, relative_mahalanobis, vim",
    ):
        find_outlier_score('knn')
    with pytest.raises(TypeError, match='no outlier score 3'):
        find_outlier_score(3)


# Bad input


def bad(**changed):
    return changed


@everyone
@pytest.mark.parametrize(
    'changed, error, message',
    [
        (
            bad(features=torch.full((4, 6), float('nan'))),
            ValueError,
            r'4 of 4 rows of features are NaN.*for example \[0, 1, 2\]',
        ),
        (bad(features=torch.full((4, 6), float('inf'))), ValueError, 'overflows above 65504'),
        (bad(features=torch.rand(6)), ValueError, r'not \[6\]. Pass features\[None\] for one item'),
        (bad(features=torch.rand(4, 6, 2, 2)), ValueError, 'the mean over the sites'),
        (bad(features=torch.rand(4, 0)), ValueError, r'not \[4, 0\]'),
        (bad(features=torch.ones(4, 6).long()), TypeError, 'not torch.int64'),
        (bad(features=np.ones((4, 6))), TypeError, 'not ndarray'),
        (
            bad(features=torch.rand(4, 5)),
            ValueError,
            r'features \[4, 5\] and (reference \[90, 6\]|weight \[3, 6\]) differ in width',
        ),
    ],
)
def test_bad_features(by, changed, error, message):
    with pytest.raises(error, match=f'^{by}: .*{message}'):
        scored(by, made(), **changed)


@pytest.mark.parametrize(
    'by, changed, error, message',
    [
        ('knn_distance', bad(reference=torch.rand(0, 6)), ValueError, 'reference is empty'),
        (
            'knn_distance',
            bad(reference=torch.tensor([[1.0, 2, 3, 4, 5, math.nan]])),
            ValueError,
            '1 of 1 rows of reference',
        ),
        ('knn_distance', bad(k=91), ValueError, 'k=91, and there are 90 reference items'),
        ('knn_distance', bad(k=0), ValueError, 'k=0'),
        ('knn_distance', bad(k=2.5), ValueError, 'k=2.5'),
        (
            'mahalanobis',
            bad(labels=torch.zeros(8).long()),
            ValueError,
            r'labels has to be a tensor \[90\].*not \[8\]',
        ),
        ('mahalanobis', bad(labels=torch.zeros(90)), TypeError, r'labels.long\(\)'),
        (
            'mahalanobis',
            bad(labels=torch.arange(90)),
            ValueError,
            '90 reference items do not differ within their 90 classes',
        ),
        (
            'mahalanobis',
            bad(reference=(torch.arange(90) % 3)[:, None] / 3 + torch.rand(6, dtype=torch.float64)),
            ValueError,
            'do not differ within their 3 classes',
        ),
        (
            'relative_mahalanobis',
            bad(reference=torch.full((90, 6), 0.1)),
            ValueError,
            '^relative_mahalanobis: .* do not differ within their 3 classes',
        ),
        (
            'relative_mahalanobis',
            bad(labels=torch.full((90,), 4)),
            ValueError,
            'all 90 reference items are of class 4.*Use mahalanobis',
        ),
        (
            'mahalanobis',
            bad(reference=torch.rand(1, 6), labels=torch.zeros(1).long()),
            ValueError,
            'or use knn_distance',
        ),
        ('energy', bad(weight=torch.rand(0, 6)), ValueError, 'weight is empty'),
        ('energy', bad(weight=torch.full((3, 6), math.nan)), ValueError, '3 of 3 rows of weight'),
        ('energy', bad(bias=torch.rand(4)), ValueError, r'bias has to be a tensor \[3\]'),
        ('energy', bad(bias=0.5), ValueError, 'not float'),
        (
            'vim',
            bad(bias=torch.tensor([1.0, math.inf, math.nan])),
            ValueError,
            '2 of 3 numbers of bias are NaN',
        ),
        (
            'vim',
            bad(dim=6),
            ValueError,
            'dim=6, and the 90 reference items span 6 dimensions of 6. Pass a whole number from 0 '
            'to 5',
        ),
        ('vim', bad(dim=-1), ValueError, 'dim=-1'),
        ('vim', bad(dim=1.5), ValueError, 'dim=1.5'),
        (
            'vim',
            bad(bias=torch.full((3,), -1e3)),
            ValueError,
            r'largest logit of reference items is -.*Centre the layer',
        ),
        (
            'vim',
            bad(reference=torch.zeros(3, 6), bias=None),
            ValueError,
            'the logits of all 3 reference items are 0',
        ),
    ],
)
def test_bad_company(by, changed, error, message):
    with pytest.raises(error, match=message):
        scored(by, made(), **changed)


def test_centring_the_layer_is_a_remedy():
    given = made() | dict(bias=torch.full((3,), -1e3).double())
    given |= dict(
        weight=given['weight'] - given['weight'].mean(0), bias=given['bias'] - given['bias'].mean()
    )
    assert scored('vim', given).isfinite().all()
    logits = linear(made()['reference'], given['weight'], given['bias'])
    assert (logits.amax(1) >= 0).all()  # the largest is at least their mean, which is 0


def test_the_origin_is_no_rounding():
    given = made()  # the rows of the layer sum to 0
    bent = given | dict(weight=given['weight'] + 1e-7 * torch.randn(3, 6, dtype=torch.float64))
    torch.testing.assert_close(scored('vim', bent), scored('vim', given), rtol=1e-4, atol=1e-4)


def test_missing_company_is_named():
    with pytest.raises(TypeError, match="'reference'"):
        knn_distance(torch.rand(3, 2))
    with pytest.raises(TypeError, match="'bias'"):
        energy(torch.rand(3, 2), torch.rand(2, 2))


# p-values


def test_pvalues_against_a_loop_ties_counted():
    scores, holdout = torch.randint(20, (200,)).float(), torch.randint(20, (31,)).float()
    expected = [(1 + sum(h >= s for h in holdout.tolist())) / 32 for s in scores.tolist()]
    np.testing.assert_allclose(conformal_pvalues(scores, holdout), expected, rtol=1e-15)
    assert conformal_pvalues(scores, holdout).dtype == torch.float64
    assert torch.equal(
        conformal_pvalues(scores, holdout.double()),
        conformal_pvalues(scores.double(), holdout.half()),
    )
    assert conformal_pvalues(torch.tensor([math.inf, -math.inf]), torch.rand(3)).tolist() == [
        0.25,
        1,
    ]
    assert conformal_pvalues(torch.rand(0), torch.rand(3)).shape == (0,) and conformal_pvalues(
        torch.zeros(1), torch.ones(1)
    ).tolist() == [1]


@pytest.mark.parametrize('ties', [False, True])
def test_pvalues_of_exchangeable_scores_are_at_least_uniform(ties):
    g, trials, m = torch.Generator().manual_seed(0), 4000, 19
    scores = torch.randn(trials, m + 1, generator=g)
    if ties:
        scores = scores.round()
    found = torch.stack([conformal_pvalues(*row.split([1, m]))[0] for row in scores])
    for level in (0.05, 0.1, 0.25, 0.5, 0.75, 1.0):
        hits = int((found <= level + 1e-12).sum())
        assert (
            stats.binomtest(
                hits, trials, level, alternative='greater' if ties else 'two-sided'
            ).pvalue
            > 1e-3
        ), (level, hits / trials)  # without ties just uniform


@pytest.mark.parametrize('rate', [0.01, 0.1, 0.37, 0.9])
def test_rejections_are_those_of_scipy(rate):
    for seed in range(60):
        g = np.random.default_rng(seed)
        p = g.uniform(size=g.integers(1, 80)) ** g.uniform(0.5, 5)
        if seed % 2:
            p = np.ceil(p * 17) / 17  # ties
        assert (
            benjamini_hochberg(torch.tensor(p), rate).tolist()
            == (stats.false_discovery_control(p) <= rate * (1 + 1e-12)).tolist()
        )


def test_rejections_by_hand():
    p = torch.tensor([0.04, 0.001, 0.03, 0.9])
    assert benjamini_hochberg(p, 0.1).tolist() == [True, True, True, False] and benjamini_hochberg(
        p, 0.05
    ).tolist() == [False, True, False, False]
    assert (
        not benjamini_hochberg(p[3:], 0.5).any()
        and benjamini_hochberg(p[:0], 0.5).shape == (0,)
        and benjamini_hochberg(p[1:2], 0.5).all()
    )
    assert (
        benjamini_hochberg(torch.ones(9), 0.99).sum() == 0
        and benjamini_hochberg(torch.zeros(9), 0.01).all()
    )


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
def test_the_edge_itself_is_rejected_despite_rounding(dtype):
    for n in range(1, 60):
        for rate in (0.05, 0.1, 0.3):
            p = torch.tensor(
                [rate * i / n for i in range(1, n + 1)], dtype=dtype
            )  # each on its own edge
            assert (
                benjamini_hochberg(p, rate).all() and not benjamini_hochberg(p * 1.001, rate).any()
            )


def test_the_false_discovery_rate_is_kept_with_one_holdout_for_all():
    g, rate, shares, power = torch.Generator().manual_seed(0), 0.2, [], []
    for _ in range(400):
        strange = torch.arange(100) < 30
        scores, holdout = (
            torch.randn(100, generator=g) + 2.5 * strange,
            torch.randn(200, generator=g),
        )
        found = benjamini_hochberg(conformal_pvalues(scores, holdout), rate)
        shares.append(((found & ~strange).sum() / found.sum().clamp(min=1)).item())
        power.append((found & strange).sum().item() / 30)
    noise = np.std(shares) / len(shares) ** 0.5
    assert (
        rate * 0.7 - 0.04 < np.mean(shares) < rate * 0.7 + 3 * noise and np.mean(power) > 0.5
    )  # .7 of the pool being ordinary


@pytest.mark.parametrize(
    'call, error, message',
    [
        (lambda: conformal_pvalues(torch.rand(3), torch.rand(0)), ValueError, 'holdout is empty'),
        (
            lambda: conformal_pvalues(torch.tensor([1.0, math.nan]), torch.rand(2)),
            ValueError,
            r'1 of 2 scores are NaN, for example \[1\]',
        ),
        (
            lambda: conformal_pvalues(torch.rand(2), torch.tensor([math.nan])),
            ValueError,
            '1 of 1 holdout are NaN',
        ),
        (
            lambda: conformal_pvalues(torch.rand(2, 3), torch.rand(2)),
            TypeError,
            r'not torch.float32 \[2, 3\]',
        ),
        (lambda: conformal_pvalues([0.5], torch.rand(2)), TypeError, 'not list'),
        (lambda: conformal_pvalues(torch.ones(2).long(), torch.rand(2)), TypeError, 'int64'),
        (lambda: benjamini_hochberg(torch.rand(3), 0), ValueError, 'rate=0 is not a share'),
        (lambda: benjamini_hochberg(torch.rand(3), 1), ValueError, 'rate=1'),
        (lambda: benjamini_hochberg(torch.rand(3), math.nan), ValueError, 'rate=nan'),
        (lambda: benjamini_hochberg(torch.rand(3), -0.1), ValueError, 'rate=-0.1'),
        (
            lambda: benjamini_hochberg(torch.tensor([0.5, 1.5]), 0.1),
            ValueError,
            'from 0.5 to 1.5.*conformal_pvalues',
        ),
        (lambda: benjamini_hochberg(torch.tensor([-0.5]), 0.1), ValueError, 'from -0.5'),
        (
            lambda: benjamini_hochberg(torch.tensor([math.nan]), 0.1),
            ValueError,
            '1 of 1 pvalues are NaN',
        ),
    ],
)
def test_bad_numbers(call, error, message):
    with pytest.raises(error, match=message):
        call()
