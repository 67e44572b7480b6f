"Selectors by covariance against numpy loops with all matrices written out, and their properties"

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastai_al.acquisition import covariance
from fastai_al.acquisition.covariance import bait, lcmd, logdet, nngp
from fastai_al.acquisition.registry import find_acquisition
from fastai_al.acquisition.selection import SELECTORS


def drawn(*shape, seed=0, dtype=torch.double):
    return torch.randn(
        *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double
    ).to(dtype)


def smooth(n, k=8, d=2, seed=0, dtype=torch.double):
    return (
        (drawn(n, 3, seed=seed) @ drawn(3, k * d, seed=99) + 0.1 * drawn(n, k * d, seed=seed + 1))
        .view(n, k, d)
        .to(dtype)
    )


def probs_of(n, c=3, seed=0, dtype=torch.double):
    return (2 * drawn(n, c, seed=seed)).softmax(1).to(dtype)


# Naive: one candidate at a time, matrices in full


def kernel(values):
    v = values.double().numpy()
    v = v - v.mean(1, keepdims=True)
    return np.einsum('ikd,jkd->ij', v, v) / v.shape[1]


def naive_logdet(values, n, noise):
    K, batch, gains, now = kernel(values), [], [], 0.0
    for _ in range(n):
        best = (-math.inf, None)
        for i in set(range(len(K))) - set(batch):
            A = [*batch, i]
            best = max(
                best, (0.5 * np.linalg.slogdet(np.eye(len(A)) + K[np.ix_(A, A)] / noise)[1], -i)
            )
        batch.append(-best[1])
        gains.append(best[0] - now)
        now = best[0]
    return batch, gains


def naive_nngp(values, n, labelled, noise):
    K, batch, gains = kernel(torch.cat([values, labelled])), [], []
    known = list(range(len(values), len(K)))
    for _ in range(n):

        def left(i):
            return K[i, i] - (
                K[i, known]
                @ np.linalg.solve(K[np.ix_(known, known)] + noise * np.eye(len(known)), K[known, i])
                if known
                else 0
            )

        gain, i = max((left(i), -i) for i in set(range(len(values))) - set(batch))
        batch.append(-i)
        known.append(-i)
        gains.append(gain)
    return batch, gains


def naive_lcmd(features, n, labelled):
    x, centres, batch, gains = (
        features.double().numpy(),
        [f for f in labelled.double().numpy()],
        [],
        [],
    )
    for _ in range(n):
        rest = [i for i in range(len(x)) if i not in batch]
        if not centres:
            i = max(rest, key=lambda i: (np.sum(x[i] ** 2), -i))
            gains.append(np.linalg.norm(x[i]))
        else:
            d = [[np.sum((x[i] - c) ** 2) for c in centres] for i in range(len(x))]
            of = [int(np.argmin(row)) for row in d]
            sums = [sum(min(d[i]) for i in rest if of[i] == c) for c in range(len(centres))]
            i = max(
                (i for i in rest if of[i] == int(np.argmax(sums))), key=lambda i: (min(d[i]), -i)
            )
            gains.append(min(d[i]) ** 0.5)
        batch.append(i)
        centres.append(x[i])
    return batch, gains


def fisher(p, f, labels=10):
    "Sum over the most probable labels of the outer products of the gradients that they would cause"
    g = lambda y: np.kron(np.eye(len(p))[y] - p, f)
    return sum(p[y] * np.outer(g(y), g(y)) for y in np.argsort(-p)[:labels])


def naive_bait(probs, features, n, labelled_probs, labelled_features):
    I = [fisher(p, f) for p, f in zip(probs.double().numpy(), features.double().numpy())]
    L = [
        fisher(p, f)
        for p, f in zip(labelled_probs.double().numpy(), labelled_features.double().numpy())
    ]
    U = np.mean([*I, *L], 0)
    start = np.trace(U) / len(U) * np.eye(len(U)) + sum(L)

    def trace(batch):
        return np.trace(np.linalg.solve(start + sum((I[i] for i in batch), 0 * U), U))

    batch = []
    for _ in range(min(2 * n, len(I))):
        batch.append(min(set(range(len(I))) - set(batch), key=lambda i: (trace([*batch, i]), i)))
    while len(batch) > n:
        batch.remove(min(batch, key=lambda i: trace([j for j in batch if j != i])))
    return batch, [trace(batch[:i]) - trace(batch[: i + 1]) for i in range(n)]


def same(selection, naive, **tolerance):
    assert selection.indices.tolist() == naive[0]
    np.testing.assert_allclose(selection.gains, naive[1], **tolerance)


dtypes = pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
seeds = pytest.mark.parametrize('seed', range(3))


@dtypes
@seeds
def test_logdet_is_exhaustive_greedy(seed, dtype):
    values = smooth(30, seed=seed, dtype=dtype)
    same(logdet(values, 8, noise=0.2), naive_logdet(values, 8, 0.2), rtol=1e-7)
    noise = 0.01 * np.trace(kernel(values)) / 30
    batch = logdet(values, 8)
    same(batch, naive_logdet(values, 8, noise), rtol=1e-6)
    assert batch.info['noise'] == pytest.approx(noise) and batch.info[
        'information'
    ] == pytest.approx(batch.gains.sum().item())


def test_logdet_beyond_the_directions_that_draws_span():
    values = drawn(25, 3, 1)  # two directions; the decomposition is folded after six rows
    same(logdet(values, 20, noise=0.1), naive_logdet(values, 20, 0.1), rtol=1e-7)


def test_logdet_of_many_items_includes_all_that_matter():
    values = smooth(700, 20, 3)
    K, noise, batch = kernel(values), 0.05, []
    left = np.diag(K).copy()
    L = np.zeros((700, 30))
    for t in range(30):  # pivoted Cholesky of the whole matrix
        left[batch] = -1
        i = int(left.argmax())
        L[:, t] = (K[:, i] + noise * (np.arange(700) == i) - L @ L[i]) / math.sqrt(left[i] + noise)
        left -= L[:, t] ** 2
        batch.append(i)
    assert logdet(values, 30, noise=noise).indices.tolist() == batch


@dtypes
@seeds
@pytest.mark.parametrize('known', [0, 1, 7, 60])  # 60 labelled items and 16 directions
def test_nngp_is_a_gaussian_process(known, seed, dtype):
    values, labelled = (
        smooth(25, seed=seed, dtype=dtype),
        smooth(known, seed=seed + 50, dtype=dtype),
    )
    same(nngp(values, 6, labelled, noise=0.3), naive_nngp(values, 6, labelled, 0.3), rtol=1e-6)
    if not known:
        assert nngp(values, 6).indices.tolist() == logdet(values, 6).indices.tolist()


def test_nngp_takes_labelled_items_in_any_order_and_blocks():
    values, labelled = smooth(25), smooth(300, seed=5)  # two blocks, folded
    one, other = nngp(values, 3, labelled, noise=0.1), nngp(values, 3, labelled.flip(0), noise=0.1)
    same(one, naive_nngp(values, 3, labelled, 0.1), rtol=1e-6)
    same(other, (one.indices.tolist(), one.gains), rtol=1e-8)


def test_picks_are_labels_that_come_later():
    values = smooth(40)
    ten = logdet(values, 10, noise=0.1)
    rest = [i for i in range(40) if i not in ten.indices[:4].tolist()]
    batch = nngp(values[rest], 6, values[ten.indices[:4]], noise=0.1)
    assert [rest[i] for i in batch.indices.tolist()] == ten.indices[4:].tolist()


@dtypes
@seeds
@pytest.mark.parametrize('known', [0, 1, 5])
def test_lcmd_is_its_definition(known, seed, dtype):
    features, labelled = (
        drawn(40, 3, seed=seed, dtype=dtype),
        drawn(known, 3, seed=seed + 50, dtype=dtype),
    )
    same(lcmd(features, 12, labelled), naive_lcmd(features, 12, labelled), rtol=1e-5)
    if not known:
        assert lcmd(features, 12).indices.tolist() == lcmd(features, 12, labelled).indices.tolist()


def test_lcmd_measures_small_distances_far_from_0():
    features, labelled = (
        1e3 + 0.1 * drawn(60, 4, dtype=torch.float32),
        1e3 + 0.1 * drawn(3, 4, seed=7, dtype=torch.float32),
    )
    batch, (indices, gains) = lcmd(features, 10, labelled), naive_lcmd(features, 10, labelled)
    assert batch.indices.tolist() == indices
    np.testing.assert_allclose(batch.gains, gains, rtol=1e-5)


@seeds
@dtypes
def test_lcmd_on_a_grid_takes_the_first_of_equals(seed, dtype):
    grid = torch.cartesian_prod(torch.arange(5), torch.arange(5)).to(dtype)[
        torch.randperm(25, generator=torch.Generator().manual_seed(seed))
    ]
    same(lcmd(grid[1:], 24, grid[:1]), naive_lcmd(grid[1:], 24, grid[:1]), rtol=1e-5)
    line = torch.tensor([[1.0], [2.0], [3.0], [3.0], [-1.0]], dtype=dtype)
    assert lcmd(line, 5, torch.zeros(1, 1, dtype=dtype)).indices.tolist() == [2, 0, 4, 1, 3]


def test_lcmd_copies_of_labelled_items_share_a_cluster(monkeypatch):
    nearest, seen = covariance._nearest, []
    monkeypatch.setattr(
        covariance, '_nearest', lambda x, centres: seen.append(len(centres)) or nearest(x, centres)
    )
    features, labelled = drawn(40, 3), drawn(4, 3, seed=7)
    one = lcmd(features, 10, labelled)
    for copies in (labelled.repeat(3, 1), labelled[[0, 0, 0, 1, 2, 3]], labelled.flip(0)):
        assert lcmd(features, 10, copies).indices.tolist() == one.indices.tolist()
    assert (
        seen == [4] * 4
    )  # products with copies can differ in their last bit, so copies are taken out before


@dtypes
@seeds
@pytest.mark.parametrize('known', [0, 1, 6])
def test_bait_is_forward_and_backward_greedy(known, seed, dtype):
    given = probs_of(14, seed=seed, dtype=dtype), drawn(14, 2, seed=seed + 20, dtype=dtype)
    labelled = (
        probs_of(known, seed=seed + 40, dtype=dtype),
        drawn(known, 2, seed=seed + 60, dtype=dtype),
    )
    batch = bait(*given, 4, *labelled)
    same(batch, naive_bait(*given, 4, *labelled), rtol=1e-6)
    assert batch.info['trace'] - batch.info['trace_after'] == pytest.approx(
        batch.gains.sum().item()
    )
    if not known:
        assert bait(*given, 4).indices.tolist() == batch.indices.tolist()


def test_bait_uses_the_ten_most_probable_labels():
    given, labelled = (probs_of(6, 11), drawn(6, 2)), (probs_of(2, 11, seed=7), drawn(2, 2, seed=8))
    batch = bait(*given, 2, *labelled)
    assert batch.info['labels'] == 10
    same(batch, naive_bait(*given, 2, *labelled), rtol=1e-6)
    p = probs_of(5, 4)
    roots = covariance._roots(p)
    torch.testing.assert_close(roots @ roots.mT, p.diag_embed() - p[:, :, None] * p[:, None])


def test_bait_reduces_wide_features(monkeypatch):
    probs, low, labelled_probs, labelled_low = (
        probs_of(30),
        drawn(30, 3),
        probs_of(4, seed=7),
        drawn(4, 3, seed=8),
    )
    turn = torch.linalg.qr(drawn(20, 20)).Q[:3]  # three dimensions that lie somewhere in twenty
    small = bait(probs, low, 5, labelled_probs, labelled_low)
    monkeypatch.setattr(covariance, '_WIDTH', 9)
    for seed in (0, 1):
        batch = bait(probs, low @ turn, 5, labelled_probs, labelled_low @ turn, seed=seed)
        assert batch.info['components'] == 3 and batch.info['share'] == pytest.approx(1)
        same(batch, (small.indices.tolist(), small.gains), rtol=1e-6)
    noisy = bait(probs, low @ turn + 0.3 * drawn(30, 20, seed=3), 5)
    assert 0.5 < noisy.info['share'] < 1


def test_principal_components():
    parts = [drawn(200, 40) * torch.linspace(5, 0.1, 40), drawn(9, 40, seed=1)]
    basis, share = covariance._principal(parts, 5, 0)
    values = torch.linalg.eigvalsh(torch.cat(parts).T @ torch.cat(parts))
    torch.testing.assert_close(basis.T @ basis, torch.eye(5).double())
    assert share == pytest.approx((values[-5:].sum() / values.sum()).item(), rel=0.02)
    assert sum((part @ basis).square().sum() for part in parts) / sum(
        part.square().sum() for part in parts
    ) == pytest.approx(share)
    assert covariance._principal([torch.zeros(4, 6)], 2, 0)[1] == 1


def test_bait_needs_both_or_none():
    probs, features = probs_of(5), drawn(5, 2)
    with pytest.raises(ValueError, match='of the same items'):
        bait(probs, features, 2, probs)
    with pytest.raises(
        ValueError, match='different lengths: 3 labelled_probs, 5 labelled_features'
    ):
        bait(probs, features, 2, probs[:3], features)
    with pytest.raises(ValueError, match='too many'):
        bait(torch.full((3, 2000), 1 / 2000), drawn(3, 2), 1)


# What holds for all of them


def run(name, size, n, seed=0, known=4, dtype=torch.double, order=None, at=0):
    "A selector on random candidates"
    order = torch.arange(size) if order is None else order
    values, probs, features = (
        smooth(size, seed=at, dtype=dtype)[order],
        probs_of(size, seed=at, dtype=dtype)[order],
        drawn(size, 3, seed=at + 1, dtype=dtype)[order],
    )
    labelled = (
        smooth(known, seed=7, dtype=dtype),
        probs_of(known, seed=7, dtype=dtype),
        drawn(known, 3, seed=8, dtype=dtype),
    )
    return dict(
        logdet=lambda: logdet(values, n, seed=seed),
        nngp=lambda: nngp(values, n, labelled[0], seed=seed),
        lcmd=lambda: lcmd(features, n, labelled[2], seed=seed),
        bait=lambda: bait(probs, features, n, labelled[1], labelled[2], seed=seed),
    )[name]()


def valid(selection, size, n):
    assert len(selection) == n == len(set(selection.indices.tolist())) == len(selection.gains)
    assert (
        0 <= selection.indices.min()
        and selection.indices.max() < size
        and selection.gains.isfinite().all()
    )


names = pytest.mark.parametrize('name', ['logdet', 'nngp', 'lcmd', 'bait'])


@names
@given(st.integers(1, 25), st.data())
@settings(max_examples=25, deadline=None)
def test_exactly_n_distinct_items(name, size, data):
    n, known, at = (
        data.draw(st.integers(1, size)),
        data.draw(st.integers(0, 5)),
        data.draw(st.integers(0, 10**6)),
    )
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    batch = run(name, size, n, known=known, at=at, dtype=dtype)
    valid(batch, size, n)
    assert (batch.gains >= -1e-9).all()
    if name in ('logdet', 'nngp'):
        assert (batch.gains.diff() <= 1e-9 * batch.gains[0]).all()  # what items add shrinks


@names
@seeds
def test_the_same_again_whatever_the_order_seed_and_precision(name, seed):
    one = run(name, 60, 9, at=seed)
    for other in (
        run(name, 60, 9, at=seed),
        run(name, 60, 9, at=seed, seed=5),
        run(name, 60, 9, at=seed, dtype=torch.float32),
    ):
        assert other.indices.tolist() == one.indices.tolist()
    order = torch.randperm(60)
    assert order[run(name, 60, 9, at=seed, order=order).indices].tolist() == one.indices.tolist()
    assert (
        run(name, 60, 4, at=seed).indices.tolist() == one.indices[:4].tolist() or name == 'bait'
    )  # a smaller batch is its beginning, but for pruning


@names
def test_a_copy_of_a_pick_waits_for_what_is_new(name):
    first = run(name, 60, 1).indices.item()
    batch = run(name, 60, 4, order=torch.cat([torch.arange(60), torch.tensor([first])]))
    assert first in batch.indices.tolist() and 60 not in batch.indices.tolist()


@names
@pytest.mark.parametrize('known', [0, 3])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_equal_items_come_in_their_order(name, known, dtype):
    batch = run(name, 1, 1, known=known, dtype=dtype)
    assert batch.indices.tolist() == [0]
    batch = run(name, 9, 9, known=known, dtype=dtype, order=torch.full((9,), 2))
    assert batch.indices.tolist() == list(range(9))


@pytest.mark.parametrize('known', [0, 3])
@pytest.mark.parametrize('fill', [0.0, 5.0])
def test_nothing_to_distinguish(known, fill):
    values, features, certain = (
        torch.full((7, 4, 2), fill),
        torch.full((7, 3), fill),
        torch.eye(3)[[0] * 7],
    )
    for batch in (
        logdet(values, 7),
        nngp(values, 7, values[:known]),
        lcmd(features, 7, features[:known]),
        bait(certain, features, 7, certain[:known], features[:known]),
    ):
        valid(batch, 7, 7)
        assert batch.indices.tolist() == list(range(7)) and batch.gains[1:].abs().max() < 1e-9


def test_items_of_no_variance_come_last():
    values, features = smooth(10), drawn(10, 3)
    values[[1, 4]] = 3.0
    assert (
        set(logdet(values, 10).indices[-2:].tolist())
        == set(nngp(values, 10, smooth(3, seed=9)).indices[-2:].tolist())
        == {1, 4}
    )
    certain = probs_of(10)
    certain[[1, 4]] = torch.tensor([0.0, 1, 0]).double()
    assert not {1, 4} & set(bait(certain, features, 8).indices.tolist())


def test_outliers_are_no_trouble():
    probs, features = probs_of(50), drawn(50, 3)
    features[7] *= 1e8
    batch = bait(probs, features, 25)
    valid(batch, 50, 25)
    assert batch.indices[0] == 7 and (batch.gains >= 0).all()
    assert lcmd(features, 25, features[:2]).indices[0] == 7
    valid(lcmd(features.half().clamp(-6e4, 6e4), 25), 50, 25)


@pytest.mark.parametrize('noise', [1e-12, 1e-30])
def test_little_noise_is_no_trouble(noise):
    values = smooth(40)[torch.arange(80) % 40]  # every item twice
    for batch in (
        logdet(values, 80, noise=noise),
        nngp(values, 80, values[:40].repeat(8, 1, 1), noise=noise),
    ):
        valid(batch, 80, 80)


@pytest.mark.parametrize('noise', [0, -1.0, math.nan])
def test_noise_has_to_be_positive(noise):
    for f in (logdet, nngp):
        with pytest.raises(ValueError, match='above 0'):
            f(smooth(5), 2, noise=noise)


@given(st.floats(1e-4, 1e4), st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_units_do_not_matter(scale, seed):
    values, features, probs = (
        smooth(20, seed=seed),
        drawn(20, 3, seed=seed),
        probs_of(20, seed=seed),
    )
    for plain, scaled, power in (
        (logdet(values, 6), logdet(scale * values + 3, 6), 0),
        (nngp(values, 6, values[:3]), nngp(scale * values, 6, scale * values[:3]), 2),
        (lcmd(features, 6, features[:3]), lcmd(scale * features, 6, scale * features[:3]), 1),
        (bait(probs, features, 6), bait(probs, scale * features, 6), 0),
    ):
        same(scaled, (plain.indices.tolist(), plain.gains * scale**power), rtol=1e-5)


def test_labels_help():
    "More labelled items leave less variance, and less error"
    values, probs, features = smooth(30), probs_of(30), drawn(30, 3)
    assert (
        nngp(values[10:], 5, values[:10], noise=0.1).gains
        < nngp(values[10:], 5, values[:2], noise=0.1).gains
    ).all()
    none, some = (
        bait(probs, features, 5),
        bait(probs[10:], features[10:], 5, probs[:10], features[:10]),
    )
    assert some.info['trace'] < none.info['trace'] and none.info['trace_after'] < none.info['trace']


def test_what_they_need():
    assert {name: SELECTORS[name].needs for name in ('logdet', 'nngp', 'lcmd', 'bait')} == dict(
        logdet=('values',),
        nngp=('values', 'labelled_values'),
        lcmd=('features', 'labelled_features'),
        bait=('probs', 'features', 'labelled_probs', 'labelled_features'),
    )
    assert find_acquisition(logdet.score).min_draws == logdet.min_draws == nngp.min_draws == 2
    with pytest.raises(ValueError, match='MCDropout'):
        logdet(torch.zeros(3, 1, 2), 1)
