"The same tensors into `bmdal_reg`, the library of LCMD's author, give the same batches"

import numpy as np
import pytest
import torch

pytest.importorskip(
    'bmdal_reg', reason='parity with bmdal_reg needs it: pip install bmdal_reg dill'
)
if not hasattr(np, 'Inf'):
    np.Inf = np.inf  # it was written for NumPy 1

from bmdal_reg.bmdal.feature_data import TensorFeatureData
from bmdal_reg.bmdal.feature_maps import IdentityFeatureMap
from bmdal_reg.bmdal.features import Features
from bmdal_reg.bmdal.selection import (
    LargestClusterMaxDistSelectionMethod,
    MaxDetFeatureSpaceSelectionMethod,
    MaxDetSelectionMethod,
)

from fastai_al.acquisition.covariance import lcmd, logdet, nngp

seeds = pytest.mark.parametrize('seed', range(5))


def drawn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def theirs(x):
    return Features(IdentityFeatureMap(n_features=x.shape[1]), TensorFeatureData(x))


def deviations(values):
    return ((values - values.mean(1, keepdim=True)) / values.shape[1] ** 0.5).flatten(
        1
    )  # whose products are covariances over draws


def batch_of(method, pool, known, n, **kwargs):
    return (
        method(pool_features=theirs(pool), train_features=theirs(known), verbosity=0, **kwargs)
        .select(n)
        .tolist()
    )


@seeds
@pytest.mark.parametrize('method', [MaxDetSelectionMethod, MaxDetFeatureSpaceSelectionMethod])
def test_logdet_is_maxdet(seed, method):
    values = drawn(300, 20, 3, seed=seed)
    phi = deviations(values)
    assert logdet(values, 40, noise=0.25).indices.tolist() == batch_of(
        method, phi, phi[:1], 40, noise_sigma=0.5
    )


@seeds
def test_nngp_is_maxdet_with_the_training_set(seed):
    values, labelled = drawn(300, 20, 3, seed=seed), drawn(50, 20, 3, seed=seed + 100)
    expected = batch_of(
        MaxDetSelectionMethod,
        deviations(values),
        deviations(labelled),
        40,
        sel_with_train=True,
        noise_sigma=0.5,
    )
    assert nngp(values, 40, labelled, noise=0.25).indices.tolist() == expected


@seeds
@pytest.mark.parametrize('known', [1, 30])
def test_lcmd(seed, known):
    features, labelled = drawn(500, 8, seed=seed), drawn(known, 8, seed=seed + 100)
    assert lcmd(features, 60, labelled).indices.tolist() == batch_of(
        LargestClusterMaxDistSelectionMethod, features, labelled, 60, sel_with_train=True
    )


@seeds
def test_lcmd_with_nothing_labelled(seed):
    features = drawn(500, 8, seed=seed)
    assert lcmd(features, 60).indices.tolist() == batch_of(
        LargestClusterMaxDistSelectionMethod, features, features[:1], 60, sel_with_train=False
    )


def test_where_nothing_is_left_theirs_fills_up_at_random_and_ours_in_order():
    "We differ on purpose: a batch does not depend on a global random state"
    features = torch.ones(6, 3).double()
    assert lcmd(features, 6, features[:1]).indices.tolist() == list(range(6))
    assert sorted(
        batch_of(
            LargestClusterMaxDistSelectionMethod, features, features[:1], 6, sel_with_train=True
        )
    ) == list(range(6))
