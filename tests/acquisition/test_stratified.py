"Shares for classes: what is kept of a picture, who gets which pick, and how much is random"

import functools
from collections import Counter

import numpy as np
import pytest
import torch
from fastai.losses import CrossEntropyLossFlat

import fastai_al.inference.predict  # noqa: F401 (it adds methods)
from conftest import pixels_learner
from fastai_al.acquire.strategies import strategy_of
from fastai_al.acquisition.scores import entropy
from fastai_al.acquisition.selection import find_selector
from fastai_al.acquisition.stratified import (
    _turns,
    clasp_pe,
    class_scores,
    class_shares,
    class_stratified,
    foreground_aware,
    foreground_random,
)
from fastai_al.posterior.dropout import MCDropout


def maps(n: int = 5, seed: int = 0):
    return torch.randn(n, 4, 6, 3, generator=torch.Generator().manual_seed(seed)).mul(3).softmax(-1)


def test_scores_and_shares_against_loops():
    probs, seen = maps(), torch.rand(5, 4, 6) > 0.4
    seen[2] = False
    for where in (None, seen):
        scores, shares = class_scores(probs, where), class_shares(probs, where)
        for i in range(5):
            pixels = [
                probs[i, y, x]
                for y in range(4)
                for x in range(6)
                if where is None or where[i, y, x]
            ]
            each = (
                torch.stack([-(p * p.log()).sum() * p for p in pixels]).mean(0)
                if pixels
                else torch.zeros(3)
            )
            told = (
                torch.stack([torch.eye(3)[p.argmax()] for p in pixels]).mean(0)
                if pixels
                else torch.zeros(3)
            )
            torch.testing.assert_close(scores[i], each)
            torch.testing.assert_close(shares[i], told)
    torch.testing.assert_close(
        class_scores(probs).sum(1), entropy(probs.log()[:, None]).mean((1, 2)).float()
    )


@pytest.mark.parametrize(
    'n, share, classes, counts',
    [
        (9, 2 / 3, [1, 2], {1: 3, 2: 3, None: 3}),
        (4, 1, [1, 2], {1: 2, 2: 2}),
        (4, 0, [1, 2], {None: 4}),
        (5, 0.6, [], {None: 5}),
        (6, 0.5, [1], {1: 3, None: 3}),
    ],
)
def test_turns(n, share, classes, counts):
    turns = _turns(n, share, classes, torch.Generator().manual_seed(1))
    assert Counter(turns) == counts
    if len(counts) > 1:
        assert len(set(turns[: len(counts)])) == len(counts)  # they alternate


def test_what_can_not_be_divided_is_drawn_at_random():
    found = [Counter(_turns(4, 1, [1, 2, 3], torch.Generator().manual_seed(s))) for s in range(60)]
    assert all(sorted(c.values()) == [1, 1, 2] for c in found) and {
        max(c, key=c.get) for c in found
    } == {1, 2, 3}


def test_without_random_sampling_each_class_gets_its_best():
    each = torch.rand(40, 3, generator=torch.Generator().manual_seed(0)) ** 2
    batch = class_stratified(beta=1e6)(each.sum(1), each, 9)
    for stratum, rank in (('1', each[:, 1]), ('2', each[:, 2]), ('all', each.sum(1))):
        mine = [int(i) for i, s in zip(batch.indices, batch.columns['stratum']) if s == stratum]
        others = set(batch.indices.tolist()) - set(mine)
        assert (
            len(mine) == 3
            and mine == [i for i in rank.argsort(descending=True).tolist() if i not in others][:3]
        )
        torch.testing.assert_close(
            batch.gains[[list(batch.indices).index(i) for i in mine]], rank[mine].double()
        )


def test_randomness_falls_from_round_to_round():
    each = torch.rand(200, 2, generator=torch.Generator().manual_seed(0))
    best = set(each.sum(1).topk(20).indices.tolist()) | set(each[:, 1].topk(20).indices.tolist())
    hits = [
        np.mean(
            [
                len(best & set(clasp_pe(each.sum(1), each, 20, seed=s, round=r).indices.tolist()))
                for s in range(20)
            ]
        )
        for r in (0, 3, 6, 20)
    ]
    assert hits == sorted(hits) and hits[0] < 10 and hits[-1] > 19
    assert [clasp_pe(each.sum(1), each, 2, round=r).info['beta'] for r in (0, 1, 3, 7, 2000)] == [
        1,
        2,
        8,
        100,
        100,
    ]


def test_items_with_nothing_come_last():
    each = torch.zeros(20, 2)
    each[:5] = 1
    assert set(clasp_pe(each.sum(1), each, 5).indices.tolist()) == set(range(5))
    shares = torch.tensor([[1.0, 0.0]] * 16 + [[0.5, 0.5]] * 4)
    assert (
        set(foreground_random(shares, 6).indices[:4].tolist()) == {16, 17, 18, 19}
        and len(set(foreground_random(shares, 20).indices.tolist())) == 20
    )


def test_foreground_random_is_uniform_over_classes_and_within():
    shares = torch.zeros(30, 3)
    shares[:24, 1] = shares[24:28, 2] = 1  # 24 show class 1, 4 show class 2, 2 nothing
    counts = torch.zeros(30)
    for s in range(3000):
        counts[foreground_aware(share=1)(shares, 1, seed=s).indices] += 1
    assert abs(counts[:24].sum() / 3000 - 0.5) < 0.04 and counts[28:].sum() == 0
    assert (counts[:24] - 3000 / 48).abs().max() < 40 and (
        counts[24:28] - 3000 / 8
    ).abs().max() < 80


@pytest.mark.parametrize(
    'make, message',
    [
        (lambda: class_stratified(share=1.5), 'share=1.5'),
        (lambda: class_stratified(beta=0), 'beta=0'),
        (lambda: class_stratified(growth=0.5), 'growth=0.5'),
        (lambda: class_stratified(background='sky'), "background='sky'"),
        (lambda: foreground_aware(-1), 'share=-1'),
        (lambda: strategy_of(class_stratified), 'makes selectors'),
        (lambda: strategy_of(foreground_aware), 'makes selectors'),
        (lambda: strategy_of('clasp_pe', values=True), 'predicts values'),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    'by',
    [
        'clasp_pe',
        'foreground_random',
        class_stratified(background=None),
        functools.partial(clasp_pe, round=9),
    ],
)
def test_pictures_are_scored_alike_in_any_batch_size_and_order(by):
    learn = pixels_learner(cbs=MCDropout(k=4))
    with learn.no_bar():
        one, other = (
            learn.acquire(6, learn.dls.test_dl(range(40), bs=7), by=by, seed=5),
            learn.acquire(6, learn.dls.test_dl(range(39, -1, -1), bs=16), by=by, seed=5),
        )
    assert (
        one.uids == other.uids
        and set(one.columns['stratum']) <= {'0', '1', '2', 'all'}
        and (one.maps is None) == (find_selector(by).score is None)
    )


def test_a_class_that_the_loss_ignores_counts_for_nothing():
    learn = pixels_learner(cbs=MCDropout(k=4))
    dl = learn.dls.test_dl(range(12))
    learn.loss_func = CrossEntropyLossFlat(axis=1, ignore_index=2)
    with learn.no_bar():
        query = learn.acquire(12, dl, by=foreground_aware(share=1), seed=5)
        probs = learn.draws(dl).collect().log_probs.exp().mean(1)
    assert (
        set(query.columns['stratum']) <= {'1', '2'}
        and (class_shares(probs, probs.argmax(-1) != 2)[:, 2] == 0).all()
    )
