"One temperature for all draws: the best there is, everywhere the learner predicts and nowhere else"

import math
import warnings

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from fastai.basics import Callback, CrossEntropyLossFlat, Learner, set_seed
from fastai.learner import load_learner
from torch import nn

from conftest import (
    assert_same,
    class_of,
    classes_learner,
    everything,
    labels_learner,
    mlp,
    pixels_learner,
    plain_dls,
    pool_learner,
    small_pool,
)
from contracts import values_learner
from fastai_al import FastaiALWarning
from fastai_al.all import ActiveLearner, Pool
from fastai_al.core.rng import key_of
from fastai_al.evaluation.calibrate import (
    Sites,
    Temperature,
    fit_temperature,
    labelled_sites,
    mean_nll,
    tempered,
)
from fastai_al.posterior.base import Point
from fastai_al.posterior.dropout import MCDropout
from fastai_al.posterior.laplace import LastLayerLaplace
from fastai_al.tasks.base import Task, as_task
from fastai_al.triage.calibration import _reserve, calibration_part
from fastai_al.triage.holdout import current_holdout


def quiet(learn, f, *args, **kwargs):
    with learn.no_bar(), learn.no_logging():
        return f(*args, **kwargs)


def fitted(make, epochs=20, **kwargs):
    torch.manual_seed(0)
    learn = make(**kwargs)
    quiet(learn, learn.fit, epochs, 1e-2)
    return learn


MAKERS = dict(classes=classes_learner, labels=labels_learner, pixels=pixels_learner)


def sites_of(s=2000, k=1, c=4, scale=1.0, seed=0):
    g = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(s, k, c, generator=g)
    y = torch.multinomial(logits.softmax(-1).mean(1), 1, generator=g)[:, 0]
    return Sites((scale * logits).log_softmax(-1), y)


@pytest.mark.parametrize('scale', [0.4, 1, 5])
def test_a_known_scale_is_found_and_nothing_is_better(scale):
    sites = sites_of(10_000, scale=scale)
    t = fit_temperature(sites)
    assert t == pytest.approx(scale, rel=0.05)
    for k, s in ((1, sites), (5, sites_of(k=5, scale=scale))):
        t = fit_temperature(s)
        others = [
            mean_nll(s, math.exp(x))
            for x in torch.linspace(math.log(0.05), math.log(20), 60).tolist()
        ]
        assert mean_nll(s, t) <= min(others) + 1e-6, k


def test_likelihood_is_that_of_the_mean(monkeypatch):
    s = sites_of(300, k=3)
    expected = F.nll_loss((2 * s.log_probs).softmax(-1).mean(1).log(), s.targets)
    assert mean_nll(s, 0.5) == pytest.approx(float(expected), rel=1e-5)
    assert mean_nll(s) == pytest.approx(
        float(F.nll_loss(s.log_probs.exp().mean(1).log(), s.targets)), rel=1e-5
    )
    torch.testing.assert_close(
        tempered(tempered(s.log_probs, 3.0), 1 / 3), s.log_probs, rtol=1e-4, atol=1e-4
    )
    assert tempered(s.log_probs, 1) is s.log_probs


@pytest.mark.parametrize('name', MAKERS)
def test_draws_are_those_of_divided_logits_and_the_rest_is_untouched(name):
    learn = fitted(MAKERS[name], epochs=3, cbs=MCDropout(k=4))
    dl = learn.dls.valid
    before, loss = (
        quiet(learn, lambda: learn.draws(dl).collect().log_probs),
        quiet(learn, learn.validate)[0],
    )
    with learn.no_bar():
        was = everything(learn)
        t = learn.calibrate()
        assert t.t != 1 and list(learn.cbs)[-1] is t
        learn.remove_cb(t)
        now = everything(learn)
    assert_same(now, was)
    learn.add_cb(t)
    logits, targets = quiet(learn, lambda: learn.get_preds(act=nn.Identity()))
    torch.testing.assert_close(
        quiet(learn, lambda: learn.draws(dl).collect().log_probs),
        tempered(before, t.t),
        rtol=1e-4,
        atol=1e-5,
    )
    assert (
        quiet(learn, learn.validate)[0]
        == pytest.approx(float(learn.loss_func(logits, targets)), rel=1e-4)
        != loss
    )
    flat = before.flatten(2, -2).transpose(1, 2).flatten(0, 1) if before.ndim > 3 else before
    y = torch.stack([torch.as_tensor(o[1]).long() for o in learn.dls.valid_ds]).flatten()
    every = Sites(flat, y)
    assert all(
        mean_nll(every, t.t) <= mean_nll(every, t.t * f) + 1e-7
        for f in (0.5, 0.9, 0.99, 1, 1.01, 1.1, 2)
    )
    learn.remove_cb(t)
    assert torch.equal(quiet(learn, lambda: learn.draws(dl).collect().log_probs), before)


def test_repeated_and_failed_calls():
    learn = fitted(classes_learner, 40, cbs=MCDropout(k=4))
    first = quiet(learn, learn.calibrate)
    second = quiet(learn, learn.calibrate)
    assert second is not first and [cb for cb in learn.cbs if isinstance(cb, Temperature)] == [
        second
    ] == [learn.temperature]
    assert second.t == pytest.approx(first.t, rel=2e-3)
    n = len(learn.cbs)
    with pytest.raises(ValueError, match='no labels'):
        quiet(learn, learn.calibrate, learn.dls.test_dl([1, 2, 3]))
    assert len(learn.cbs) == n and learn.temperature is second
    point = quiet(learn, learn.calibrate, posterior=Point())
    assert point.t != pytest.approx(second.t, rel=1e-2)


def test_training_is_unchanged_and_warns_that_the_temperature_is_stale(tmp_path):
    def run(*cbs):
        set_seed(1)
        learn = classes_learner(cbs=cbs)
        set_seed(2)
        quiet(learn, learn.fit, 2, 1e-2)
        return [p.detach().clone() for p in learn.model.parameters()]

    with pytest.warns(FastaiALWarning, match='before this training'):
        with_one = run(Temperature(7.0))
    assert all(torch.equal(a, b) for a, b in zip(with_one, run()))
    learn = classes_learner(cbs=Temperature(7.0), path=tmp_path)  # for what lr_find saves
    with warnings.catch_warnings():
        warnings.simplefilter('error', FastaiALWarning)
        (
            quiet(learn, learn.validate),
            quiet(learn, learn.get_preds),
            quiet(learn, learn.lr_find, num_it=5, show_plot=False, suggest_funcs=()),
        )


def test_export_keeps_it(tmp_path):
    learn = classes_learner(cbs=[Temperature(3.0), MCDropout(k=3)], path=tmp_path)
    logits = quiet(learn, lambda: learn.get_preds(act=nn.Identity()))[0]
    learn.export('model.pkl')
    again = load_learner(tmp_path / 'model.pkl')
    torch.testing.assert_close(
        quiet(again, lambda: again.get_preds(dl=learn.dls.valid, act=nn.Identity()))[0], logits
    )
    assert again.temperature.t == 3
    with pytest.raises((ValueError, IndexError)):
        quiet(again, again.calibrate)
    assert again.temperature.t == 3


def test_log_probabilities_sum_to_1_again():
    torch.manual_seed(0)
    learn = Learner(
        plain_dls(), nn.Sequential(mlp(), nn.LogSoftmax(-1)), nn.NLLLoss(), cbs=MCDropout(k=3)
    )
    quiet(learn, learn.fit, 3, 1e-2)
    plain = quiet(learn, lambda: learn.get_preds(act=nn.Identity()))[0]
    t = quiet(learn, learn.calibrate)
    assert t.axis == 1
    said, y = quiet(learn, lambda: learn.get_preds(act=nn.Identity()))
    torch.testing.assert_close(said.exp().sum(1), torch.ones(len(said)))
    torch.testing.assert_close(said, (plain / t.t).log_softmax(1))
    assert quiet(learn, learn.validate)[0] == pytest.approx(
        float(F.nll_loss((plain / t.t).log_softmax(1), y)), rel=1e-4
    )
    like = Learner(learn.dls, learn.model, CrossEntropyLossFlat(), cbs=MCDropout(k=3))
    assert quiet(like, like.calibrate).t == pytest.approx(t.t, rel=1e-3)


def test_an_ignored_class_does_not_count():
    learn = fitted(pixels_learner, 5)
    y_of = learn.dls.valid_ds.tls[1].tfms.fs[0]

    def some(i):
        y = y_of(i).clone()
        y[0] = 1 - y[0]  # wrong, and ignored below
        return y

    def hidden(i):
        y = y_of(i).clone()
        y[0] = 255
        return y

    from fastai.data.core import Datasets

    from conftest import PixelsOf

    def dl_of(y):
        return (
            Datasets(list(range(20, 40)), [[PixelsOf()], [y]], splits=[[0], list(range(20))])
            .dataloaders(bs=8, num_workers=0)
            .valid
        )

    learn.loss_func = CrossEntropyLossFlat(axis=1, ignore_index=255)
    t = quiet(learn, learn.calibrate, dl_of(hidden)).t
    kept = quiet(learn, labelled_sites, learn, dl_of(hidden))
    assert len(kept) == 20 * 12
    with pytest.raises(ValueError, match='class 255'):
        quiet(
            learn,
            learn.calibrate,
            dl_of(hidden),
            task=Task('classes', as_task(None, learn).draws_of),
        )
    assert quiet(learn, learn.calibrate, dl_of(some)).t > 1.05 * t
    with pytest.raises(ValueError, match='No site'):
        quiet(learn, learn.calibrate, dl_of(lambda i: torch.full((4, 4), 255)))


def test_a_sample_of_sites_is_even_and_the_same_in_any_batches():
    learn = pixels_learner(cbs=MCDropout(k=2))
    whole = quiet(learn, labelled_sites, learn, learn.dls.valid)
    assert len(whole) == 20 * 16

    def rows(sites):
        return sorted(
            map(
                tuple,
                torch.cat([sites.log_probs.flatten(1), sites.targets[:, None]], 1)
                .mul(1e3)
                .round()
                .tolist(),
            )
        )

    some = quiet(learn, labelled_sites, learn, learn.dls.valid, max_sites=100)
    other = quiet(
        learn, labelled_sites, learn, learn.dls.valid.new(bs=3, shuffle=True), max_sites=100
    )
    assert (
        40 <= len(some) <= 100 and rows(some) == rows(other) and set(rows(some)) <= set(rows(whole))
    )
    sizes = [
        len(quiet(learn, labelled_sites, learn, learn.dls.valid, max_sites=m))
        for m in (320, 319, 200, 50, 10)
    ]
    assert (
        sizes[0] == 320
        and sizes == sorted(sizes, reverse=True)
        and all(len_ <= m for len_, m in zip(sizes, (320, 319, 200, 50, 10)))
    )


def test_what_has_no_temperature():
    learn = values_learner(cbs=MCDropout(k=3))
    with pytest.raises(ValueError, match='predicts values'):
        quiet(learn, learn.calibrate)
    learn = classes_learner()
    with pytest.raises(ValueError, match="'given' does not tell"):
        quiet(learn, learn.calibrate, task=lambda out: out.log_softmax(-1))
    for t in (0, -1, float('nan'), float('inf'), '2', True):
        with pytest.raises(ValueError, match='above 0'):
            Temperature(t)
    learn.model = nn.Linear(6, 3, bias=False)
    with torch.no_grad():
        learn.model.weight.copy_(F.pad(1e3 * torch.eye(3), (0, 3)))
    with pytest.raises(ValueError, match='too few mistakes'):
        quiet(learn, learn.calibrate)
    assert not any(isinstance(cb, Temperature) for cb in learn.cbs)


def test_it_comes_after_callbacks_that_pick_the_logits():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp()

        def forward(self, x):
            return self.net(x), x

    class Pick(Callback):
        def after_pred(self):
            self.learn.pred = self.pred[0]

    learn = classes_learner(Two(), cbs=[Temperature(2.0), Pick()])
    logits = quiet(learn, lambda: learn.get_preds(act=nn.Identity()))[0]
    learn.remove_cbs(Temperature)
    torch.testing.assert_close(
        2 * logits, quiet(learn, lambda: learn.get_preds(act=nn.Identity()))[0]
    )
    bad = classes_learner(Two(), cbs=Temperature(2.0))
    with pytest.raises(TypeError, match='returns tuple'):
        quiet(bad, bad.get_preds)


def test_weights_drawn_by_laplace_are_those_without_a_temperature():
    pytest.importorskip('laplace')
    learn = fitted(classes_learner, 5, cbs=LastLayerLaplace(k=3))
    before = quiet(learn, lambda: learn.draws(learn.dls.valid).collect().log_probs)
    t = quiet(learn, learn.calibrate)
    torch.testing.assert_close(
        quiet(learn, lambda: learn.draws(learn.dls.valid).collect().log_probs),
        tempered(before, t.t),
        rtol=1e-4,
        atol=1e-4,
    )
    assert t in learn.cbs and learn.temperature is t


# with a pool: a part of the hold-out


def active(held=120, db=':memory:', **kwargs):
    pool = small_pool(300, 60, held, db=db)
    learn = ActiveLearner(pool_learner(pool, **kwargs), pool)
    quiet(learn, learn.fit, 6, 1e-2)
    return learn


@pytest.mark.filterwarnings('ignore:Of the .* held-out items below')  # of a small model
def test_a_triage_after_calibrate_has_holdout_items_of_its_own():
    learn = active()
    pool = learn.pool
    t = quiet(learn, learn.calibrate)
    part = calibration_part(pool)
    assert (
        len(part) == 40
        and set(part) < set(pool.holdout.index)
        and t.fitted_on == set(part)
        and not t.on_validation
    )
    found = quiet(learn, learn.triage, 0.5)  # no warning: tests turn one into an error
    assert found.certificates['all'].holdout == 80 and 'BROKEN' not in found.report()
    assert (
        '40 of the 120 hold-out items are reserved for calibrate() and not used by this '
        'triage.' in found.report()
    )
    everyone = learn.dls.test_dl(pool.holdout, with_labels=True)
    with pytest.warns(FastaiALWarning, match='calibrate used the hold-out'):
        quiet(learn, learn.triage, 0.5, holdout=everyone)


def test_the_part_is_drawn_once_and_survives_a_restart(tmp_path):
    learn = active(db=tmp_path / 'a.db')
    first = quiet(learn, learn.calibrate)
    part = calibration_part(learn.pool)
    again = quiet(learn, learn.calibrate)
    assert calibration_part(learn.pool) == part and again.t == pytest.approx(first.t, rel=2e-3)
    more = learn.pool.draw_holdout(30, seed=1)  # drawn later: all for the triage
    learn.pool.label(more, [class_of(u) for u in more])
    learn.pool.close()
    pool = Pool.open(tmp_path / 'a.db')
    assert calibration_part(pool) == part
    new = ActiveLearner(pool_learner(pool), pool)
    new.model.load_state_dict(learn.model.state_dict())
    quiet(new, new.calibrate, posterior=Point())
    assert calibration_part(pool) == part and new.temperature.fitted_on == set(part)
    held = current_holdout(new.learn, pool)
    assert set(held.dataset.items.index) == set(pool.holdout.index) - set(part)
    pool.close()


def test_the_part_is_drawn_uniformly():
    counts = [0, 0]
    for seed in range(40):
        pool = Pool(range(seed * 1000, seed * 1000 + 60))
        held = pool.draw_holdout(30)
        part = _reserve(pool)
        assert len(part) == 10
        for i, half in enumerate((held[:15], held[15:])):
            counts[i] += len(set(part) & set(half))
    assert sum(counts) == 400 and abs(counts[0] - 200) < 4 * 10
    other = Pool(reversed(range(60)))
    assert set(_reserve(Pool(range(60)))) == set() == set(_reserve(other))  # there is no hold-out
    other.draw_holdout(30), (first := Pool(range(60))).draw_holdout(30)
    assert set(_reserve(first)) == set(_reserve(other))
    large = Pool(range(2000))
    large.draw_holdout(1500)
    assert len(_reserve(large)) == 200


def test_a_holdout_that_is_too_small_to_be_split_warns_with_numbers():
    learn = active(held=75)
    with pytest.warns(FastaiALWarning, match='fitted on only 25 labelled items.* 50 are left'):
        quiet(learn, learn.calibrate)
    pool = small_pool(100, 30, 0)
    pool.draw_holdout(30)
    with pytest.warns(FastaiALWarning, match='Nothing validates'):
        learn = ActiveLearner(pool_learner(pool), pool)
    with pytest.raises(ValueError, match='None of the 30 hold-out items is labelled'):
        quiet(learn, learn.calibrate)
    assert calibration_part(pool) == []
    rest = sorted(pool.holdout.index, key=lambda u: key_of(u, 'calibrate'))[10:]
    pool.label(rest, [class_of(u) for u in rest])
    with pytest.raises(ValueError, match='None of the 10 hold-out items that are reserved'):
        quiet(learn, learn.calibrate)


def test_other_items_to_calibrate_on_leave_the_holdout_whole():
    learn = active()
    items = range(10**4, 10**4 + 60)
    rows = pd.DataFrame(
        dict(item=items, label=[class_of(i) for i in items]),
        index=pd.Index(map(str, items), name='uid'),
    )
    quiet(learn, learn.calibrate, learn.dls.test_dl(rows, with_labels=True))
    assert (
        calibration_part(learn.pool) == []
        and current_holdout(learn.learn, learn.pool) is learn.dls.valid
    )
    quiet(
        learn, learn.learn.calibrate
    )  # the plain learner's: all of its validation set, and the triage warns
    assert calibration_part(learn.pool) == [] and learn.temperature.on_validation


def test_at_the_edge_of_the_range():
    sites = Sites(torch.tensor([[[5.0, 0.0]], [[0.0, 5.0]]]).log_softmax(-1), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match='too few mistakes'):
        fit_temperature(sites)
    assert fit_temperature(sites, allow_edge=True) == pytest.approx(0.05)
