import functools

import numpy as np
import pytest
import torch

from conftest import classes_learner
from fastai_al.acquisition.information import epig
from fastai_al.acquisition.mixed import _counts, mix
from fastai_al.acquisition.scores import bald, margin
from fastai_al.acquisition.selection import Selection, selector
from fastai_al.core.rng import generator
from fastai_al.posterior.dropout import MCDropout


def inputs(n=40, k=6, c=3, d=4):
    log_probs = (2 * torch.randn(n, k, c)).log_softmax(-1)
    return dict(
        log_probs=log_probs, features=torch.randn(n, d), labelled_features=torch.randn(5, d)
    )


@pytest.mark.parametrize('shares', [[1, 1], [0.5, 0.3, 0.2], [10, 1], [1e-3, 1, 2, 0.7]])
@pytest.mark.parametrize('n', [1, 2, 7])
def test_counts_sum_to_n_and_are_right_on_average(shares, n):
    counts = np.array([_counts(shares, n, generator('counts', seed)) for seed in range(2000)])
    assert (counts.sum(1) == n).all() and (counts >= 0).all()
    exact = n * np.array(shares) / sum(shares)
    assert (np.abs(counts - exact) < 1).all()
    assert np.abs(counts.mean(0) - exact).max() < 4 * 0.5 / 2000**0.5


def test_each_strategy_chooses_among_what_is_left():
    given = inputs()
    by = mix({'bald': 4, 'kcenter': 4, 'margin': 4})
    assert {*by.needs} == {'log_probs', 'features', 'labelled_features'} and by.min_draws == 2
    chosen = by(**given, n=12)
    first = bald(given['log_probs']).topk(4).indices.tolist()
    assert chosen.indices[:4].tolist() == first
    left = [i for i in range(40) if i not in first]
    kcenter = mix({'kcenter': 1, 'typiclust': 1e-9})(
        features=given['features'][left], labelled_features=given['labelled_features'], n=4
    )
    assert chosen.indices[4:8].tolist() == [left[i] for i in kcenter.indices]
    left = [i for i in left if i not in chosen.indices[4:8].tolist()]
    last = margin(given['log_probs'][left]).topk(4).indices
    assert chosen.indices[8:].tolist() == [left[i] for i in last]
    assert chosen.columns['strategy'] == ['bald'] * 4 + ['kcenter'] * 4 + ['margin'] * 4


def test_the_whole_pool_and_one_item():
    given = inputs(6)
    by = mix({'bald': 1, 'entropy': 1, 'random': 1})
    assert sorted(by(log_probs=given['log_probs'], n=6).indices.tolist()) == list(range(6))
    drawn = [by(log_probs=given['log_probs'], n=1, seed=s) for s in range(60)]
    assert {d.columns['strategy'][0] for d in drawn} == {'bald', 'entropy', 'random'}


def test_one_score_is_collected_in_the_pass_and_several_from_draws():
    assert mix({'margin': 1, 'random': 1}).needs == ('scores',)
    assert 'log_probs' in mix({'margin': 1, 'bald': 1}).needs
    assert mix({'kcenter': 1, 'random': 1}).min_draws == 0


@pytest.mark.parametrize(
    'shares, match',
    [
        ({}, 'two strategies'),
        (['margin', 'random'], 'two strategies'),
        ({'margin': 1, 'random': -1}, 'above 0'),
        ({'margin': 1, 'random': True}, 'above 0'),
        ({'margin': 1, 'random': float('nan')}, 'above 0'),
        ({'margin': 1, 'rondom': 1}, "Did you mean 'random'"),
        ({'margin': 1, epig: 1}, 'epig needs target_log_probs'),
    ],
)
def test_bad_shares(shares, match):
    with pytest.raises(ValueError, match=match):
        mix(shares)


def test_acquire_reports_which_strategy_chose_an_item(tmp_path):
    learn = classes_learner(cbs=MCDropout(k=6))
    pool = learn.dls.test_dl(range(10, 60))
    by = mix({'margin': 0.5, 'typiclust': 0.3, 'random': 0.2})
    query = learn.acquire(10, pool, by=by)
    assert query.info['acquisition'] == 'mix(0.5 margin + 0.3 typiclust + 0.2 random)'
    assert query.to_df().strategy.tolist() == ['margin'] * 5 + ['typiclust'] * 3 + ['random'] * 2
    assert query.uids[:5] == learn.acquire(5, pool, by='margin').uids
    assert learn.acquire(10, learn.dls.test_dl(range(59, 9, -1), bs=7), by=by).uids == query.uids
    assert (
        learn.acquire(10, pool, by=mix({'epig': 1, 'random': 1}))
        .info['acquisition']
        .startswith('mix')
    )


def test_selectors_with_settings_and_rounds():
    @functools.partial(selector, score='entropy')
    def by_round(scores, n, *, seed=0, round=0):
        return Selection(torch.arange(n), scores[:n] + round)

    try:
        chosen = mix({by_round: 1, 'random': 1})(scores=torch.zeros(10), n=4, round=3)
        assert chosen.gains[:2].tolist() == [3, 3]
    finally:
        from fastai_al.acquisition.selection import SELECTORS

        del SELECTORS['by_round']
