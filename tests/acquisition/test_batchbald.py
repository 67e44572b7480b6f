"BatchBALD against exhaustive greedy, against enumeration, and in the corners"

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastai_al.acquisition import batchbald as module
from fastai_al.acquisition.batchbald import FIRST_CANDIDATES, SATURATED, Labellings, batchbald
from fastai_al.acquisition.information import epig, joint_information
from fastai_al.acquisition.scores import bald


def problem(n, k, c, sharpness=2.0, seed=0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    shared = 2 * torch.randn(n, 1, c, generator=g, dtype=torch.float64)
    return (
        (
            shared
            + sharpness
            * torch.rand(n, 1, 1, generator=g, dtype=torch.float64)
            * torch.randn(n, k, c, generator=g, dtype=torch.float64)
        )
        .log_softmax(-1)
        .to(dtype)
    )


def exact_joint(log_probs):
    "Information of all labels of these items, by enumeration; float64"
    P = log_probs.double().exp().numpy()
    joint = np.ones((P.shape[1], 1))
    for item in P:
        joint = (joint[:, :, None] * item[:, None, :]).reshape(P.shape[1], -1)

    def H(p):
        return -(p[p > 0] * np.log(p[p > 0])).sum()

    return H(joint.mean(0)) - np.mean([H(row) for row in joint])


def exhaustive(log_probs, n):
    """Greedy, every item looked at for every pick: the picks, and the joint information after
    each of these"""
    picks, path = [], []
    for _ in range(n):
        values = [
            -1 if i in picks else exact_joint(log_probs[picks + [i]]) for i in range(len(log_probs))
        ]
        picks.append(int(np.argmax(values)))
        path.append(max(values))
    return picks, path


@given(
    st.integers(5, 25),
    st.integers(2, 12),
    st.integers(2, 4),
    st.floats(0.3, 8),
    st.integers(0, 10**6),
)
@settings(max_examples=40, deadline=None)
def test_the_batch_of_exhaustive_greedy(size, k, c, sharpness, seed):
    log_probs = problem(size, k, c, sharpness, seed)
    chosen = batchbald(log_probs, 4)
    exact = 4 - chosen.info['filled']
    picks, path = exhaustive(log_probs, 4)
    found = [exact_joint(log_probs[chosen.indices[: i + 1]]) for i in range(exact)]
    np.testing.assert_allclose(found, path[:exact], atol=2e-5)  # the same ones, ties aside
    np.testing.assert_allclose(np.cumsum(chosen.gains[:exact]), path[:exact], atol=1e-4)
    assert chosen.info['information'] == pytest.approx(found[-1] if exact else 0, abs=1e-4)
    assert (chosen.gains.diff() < 1e-5).all()


def test_lazy_computes_a_part_of_the_gains_of_greedy_and_certifies():
    log_probs = problem(3000, 30, 4, 4.0)
    log_probs[200:] = problem(2800, 30, 4, 0.3, seed=1)
    whole = batchbald(log_probs, 5)
    assert (
        whole.info['evaluations'] < 0.2 * whole.info['of_evaluations'] and whole.info['certified']
    )
    scores = bald(log_probs)
    kept = scores.topk(400).indices
    part = batchbald(log_probs[kept], 5, best_excluded=scores.sort().values[-401].item())
    assert part.info['certified'] and kept[part.indices].tolist() == whole.indices.tolist()
    few = scores.topk(6).indices
    assert not batchbald(log_probs[few], 5, best_excluded=scores.sort().values[-7].item()).info[
        'certified'
    ]


def test_what_is_certified_is_the_batch_of_the_whole_pool_or_nearly_all_its_information():
    equal = spent = 0
    for seed in range(60):
        log_probs = problem(120, 12, 3, 3.0 if seed < 40 else 9.0, seed)
        scores = bald(log_probs)
        keep = 40 + 2 * seed if seed < 40 else 30
        kept, left_out = scores.topk(keep).indices, scores.sort().values[-keep - 1].item()
        part = batchbald(log_probs[kept], 4, best_excluded=left_out)
        exact = 4 - part.info['filled']
        together = exact_joint(log_probs[kept[part.indices[:exact]]])
        proven = exact == 4 and part.gains[-1] >= left_out
        assert part.info['certified'] == (
            proven or part.info['information'] >= (1 - SATURATED) * math.log(12)
        )
        if proven:
            equal += 1
            assert together == pytest.approx(
                exact_joint(log_probs[batchbald(log_probs, 4).indices]), abs=2e-5
            )
        elif part.info['certified']:
            spent += 1
            assert (
                together > (1 - SATURATED) * math.log(12) - 1e-4
            )  # no batch has more information than log K
    assert equal > 10 and spent > 5


def test_candidates_that_agree_certify_nothing_of_those_that_were_left_out():
    log_probs = problem(40, 8, 3, 4.0)
    log_probs[1:] = log_probs[1:, :1]  # one item has information, on the others all draws agree
    chosen = batchbald(log_probs, 3, best_excluded=0.01)
    assert chosen.gains[0] > 0.01 and chosen.info['filled'] == 2 and not chosen.info['certified']
    assert (
        batchbald(log_probs, 3).info['certified']
        and batchbald(log_probs, 1, best_excluded=0.01).info['certified']
    )


@given(
    st.integers(2, 30),
    st.integers(2, 6),
    st.floats(0.1, 30),
    st.integers(0, 6),
    st.sampled_from([300, 2000]),
    st.integers(0, 10**6),
)
@settings(max_examples=60, deadline=None)
def test_merged_labellings_bound_gains(k, c, sharpness, picked, samples, seed):
    log_probs = problem(60, k, c, sharpness, seed)
    so_far = Labellings(k, samples, seed)
    for item in log_probs[:picked]:
        so_far.extend(item)
    gains, bounds = so_far.gains(log_probs), so_far.bounds(log_probs)
    assert (bounds * (1 + 1e-5) + 1e-5 >= gains).all()  # as they are used: float32
    if so_far.exact:
        assert (bounds <= bald(log_probs) * (1 + 1e-5) + 1e-5).all()
    assert so_far.merged[0].sum().item() == pytest.approx(
        so_far.weights.sum().item(), rel=1e-5
    ) and len(so_far.merged[0]) <= len(so_far.weights)


@pytest.mark.parametrize('k, samples, seed', [(1000, 2000, 1269), (500, 1000, 9063)])
def test_labels_that_are_impossible_are_not_imagined(k, samples, seed):
    log_probs = problem(12, k, 4, 3.0)
    log_probs[:, :, 0] = -math.inf
    log_probs = log_probs.log_softmax(-1)
    chosen = batchbald(log_probs, 8, samples=samples, seed=seed)
    assert (
        math.isfinite(chosen.info['information'])
        and not chosen.info['filled']
        and (chosen.gains > 0).all()
    )
    so_far = Labellings(2, 4)
    for value in (0.0, 1.0 - 2**-24):  # the least and the largest number that can be drawn
        u = torch.full((2, 2), value)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, 'rand', lambda *size, generator=None: u.clone())
            evidence = so_far._imagined(
                torch.tensor([[0.0, 0.5, 0.5, 0.0], [0.0, 0.0, 1.0, 0.0]]).log()
            )
        assert (
            evidence.view(2, 2, 2)[0, :, 0].isfinite().all()
            and evidence.view(2, 2, 2)[1, :, 1].isfinite().all()
        )


def test_what_is_certified_holds_up_to_two_standard_errors():
    broken = certified = 0
    for seed in range(30):
        log_probs = problem(300, 20, 2, 2.0, seed)
        chosen = batchbald(log_probs, 100, seed=seed)
        if not chosen.info['filled'] or not chosen.info['certified']:
            continue
        picked = log_probs[chosen.indices[: 100 - chosen.info['filled']]]
        certified += 1
        broken += joint_information(picked, 20_000, seed=1) < (1 - SATURATED) * math.log(20)
    assert certified > 20 and broken <= 3  # without them: 9 of 30


def test_few_candidates_pass_the_bounds():
    log_probs = problem(4000, 20, 10, 6.0)
    chosen = batchbald(log_probs, 8)
    assert (
        chosen.info['filled'] and chosen.info['evaluations'] < 0.05 * chosen.info['of_evaluations']
    )


def test_those_with_the_highest_scores_are_looked_at_first_and_all_where_they_do_not_do(
    monkeypatch,
):
    looked_at = []

    def greedily(log_probs, *args):
        looked_at.append(len(log_probs))
        return original(log_probs, *args)

    original = module._greedily
    monkeypatch.setattr(module, '_greedily', greedily)
    log_probs = problem(3000, 30, 4, 4.0)
    scores = bald(log_probs)
    few, all_of_them = batchbald(log_probs, 2), original(log_probs, 2, scores, -math.inf, 2000, 0)
    assert (
        looked_at == [FIRST_CANDIDATES]
        and few.indices.tolist() == all_of_them[0]
        and few.info['certified']
    )
    twins = torch.cat(
        [log_probs[scores.argmax()].expand(FIRST_CANDIDATES, -1, -1), log_probs]
    )  # the best are all the same, and have little information together
    looked_at.clear()
    chosen, picks = batchbald(twins, 6), original(twins, 6, bald(twins), -math.inf, 2000, 0)[0]
    assert looked_at == [FIRST_CANDIDATES, len(twins)] and chosen.indices.tolist() == picks
    looked_at.clear()
    assert len(
        set(batchbald(problem(1100, 3, 2, 4.0), FIRST_CANDIDATES + 50).indices.tolist())
    ) == FIRST_CANDIDATES + 50 and looked_at == [1100]
    equal = batchbald(log_probs[:1].expand(2000, -1, -1), 10)
    assert equal.info['evaluations'] <= equal.info['of_evaluations']
    with pytest.raises(ValueError, match='samples=0'):
        batchbald(log_probs, 2, samples=0)


@pytest.mark.parametrize('k, c, n', [(1000, 100, 50), (100, 10, 50), (20, 2, 50), (2, 2, 10)])
def test_many_draws_many_classes_many_picks_in_float32(k, c, n):
    log_probs = problem(80, k, c, 6.0)
    chosen = batchbald(log_probs, n, seed=1)
    assert (
        len(set(chosen.indices.tolist())) == n
        and chosen.gains.isfinite().all()
        and (chosen.gains >= 0).all()
    )
    assert 0 < chosen.info['information'] <= math.log(k) + 1e-6
    independent = joint_information(
        log_probs[chosen.indices[: n - chosen.info['filled']]], 20_000, seed=9
    )
    assert chosen.info['information'] == pytest.approx(independent, abs=0.1)


def test_confident_draws_and_impossible_classes():
    log_probs = (60 * torch.randn(50, 8, 5)).log_softmax(-1)
    log_probs[:20] = torch.nn.functional.one_hot(torch.randint(5, (20, 8)), 5).float().log()
    chosen = batchbald(log_probs, 6)
    assert len(set(chosen.indices.tolist())) == 6 and chosen.info['information'] > 0.95 * math.log(
        8
    )


def test_samples_that_cannot_distinguish_further_items_warn():
    log_probs = problem(60, 4, 3, 20.0)
    chosen = batchbald(log_probs, 20)
    assert (
        chosen.info['filled'] > 10
        and 'More draws' in chosen.info['why filled']
        and chosen.info['information'] > (1 - SATURATED) * math.log(4)
    )
    agree = batchbald(log_probs[:, :1].expand(-1, 4, -1).clone(), 5)
    assert agree.info['filled'] == 5 and agree.info['information'] == pytest.approx(0, abs=1e-5)


def test_copies_are_not_taken():
    log_probs = problem(40, 50, 3, 1.0)
    best = log_probs[bald(log_probs).argmax()]
    together = torch.cat([log_probs, best.expand(10, -1, -1)])
    copies = (together == best).flatten(1).all(1)
    assert (
        copies[bald(together).topk(6).indices].all()
        and copies[batchbald(together, 6).indices].sum() <= 2
    )


def test_labellings_agree_with_enumeration_before_and_after_sampling_begins():
    log_probs = problem(9, 6, 3, 3.0)
    so_far = Labellings(6, 6000)
    for i in range(8):
        gains = so_far.gains(log_probs[8:])
        expected = exact_joint(log_probs[list(range(i)) + [8]]) - (
            exact_joint(log_probs[:i]) if i else 0
        )
        assert gains.item() == pytest.approx(
            expected, abs=1e-5 if so_far.exact else max(0.01, 4 * so_far.error(log_probs[8]))
        )
        so_far.extend(log_probs[i])
        assert math.log(6) - so_far.remaining == pytest.approx(
            exact_joint(log_probs[: i + 1]), abs=1e-5 if so_far.exact else 0.02
        )
    assert not so_far.exact


def test_imagined_labels_have_the_frequencies_of_the_draws():
    item = problem(1, 5, 4, 3.0)[0]
    so_far = Labellings(5, 5000)
    found = so_far._imagined(item).view(5, 1000, 5)
    for k in range(5):
        for c in range(4):
            share = (found[k, :, k] == item[k, c]).float().mean().item()
            assert share == pytest.approx(
                item[k, c].exp().item(), abs=2e-3
            )  # a Latin hypercube: off by one in a thousand


# EPIG


def test_epig_is_the_mean_information_between_labels():
    log_probs, targets = (
        problem(7, 6, 3, seed=1, dtype=torch.float64),
        problem(5, 6, 3, seed=2, dtype=torch.float64),
    )
    P, T = log_probs.exp().numpy(), targets.exp().numpy()

    def information(p, t):
        joint = sum(np.outer(p[k], t[k]) for k in range(6)) / 6
        return (joint * np.log(joint / np.outer(joint.sum(1), joint.sum(0)))).sum()

    expected = [np.mean([information(p, t) for t in T]) for p in P]
    np.testing.assert_allclose(epig(log_probs, targets), expected, atol=1e-12)
    assert (
        epig(log_probs, targets) <= bald(log_probs) + 1e-12
    ).all()  # a label can't have more information about labels than about the model


def test_epig_in_pieces_and_with_sites(monkeypatch):
    from fastai_al.acquisition import information

    log_probs, targets = problem(6, 5, 3).view(3, 2, 5, 3).transpose(1, 2), problem(4, 5, 3, seed=3)
    whole = epig(log_probs, targets)
    assert whole.shape == (3, 2)
    for i, j in itertools.product(range(3), range(2)):
        torch.testing.assert_close(whole[i, j], epig(log_probs[i : i + 1, :, j], targets)[0])
    monkeypatch.setattr(information, 'rows_in_cache', lambda *_: 1)
    torch.testing.assert_close(epig(log_probs, targets), whole)
