"""What each task is asked and says: classes, labels, pixels, values; and the reducers of sites,
against loops"""

import functools
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from fastai.basics import DataLoaders, Learner
from fastai.collab import CollabDataLoaders, collab_learner
from fastai.data.block import RegressionBlock
from fastai.losses import CrossEntropyLossFlat, L1LossFlat, MSELossFlat
from fastai.tabular.all import (
    Categorify,
    FillMissing,
    Normalize,
    TabularDataLoaders,
    tabular_config,
    tabular_learner,
)
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fastai_al.inference.predict  # noqa: F401  # gives `Learner` its `draws`
from conftest import PixelsOf, as_pool, features_of, labels_learner, mlp, pixels_learner, plain_dls
from contracts import values_learner
from fastai_al.acquisition.reducers import (
    REDUCERS,
    boundary,
    pooled,
    reduce_scores,
    top_fraction,
    with_reducer,
)
from fastai_al.acquisition.regression import gaussian_bald
from fastai_al.acquisition.scores import bald, entropy, local_divergence, random
from fastai_al.evaluation.per_item import measure_items
from fastai_al.inference.passes import pool_pass
from fastai_al.posterior.dropout import MCDropout
from fastai_al.tasks.base import Task


def trained(learn):
    with learn.no_bar(), learn.no_logging():
        learn.fit(2, 1e-2)
    return learn


def quiet(learn, *args, **kwargs):
    with learn.no_bar():
        return learn.acquire(*args, **kwargs)


def drawn(learn, dl, posterior=None):
    with learn.no_bar():
        return torch.cat([b.outputs for b in pool_pass(learn, dl, posterior)])


# Values


def test_the_mean_is_the_prediction_and_the_strategy_is_for_values():
    learn = trained(values_learner(cbs=MCDropout(k=7)))
    dl = learn.dls.test_dl(range(30))
    query = quiet(learn, 5, dl)
    assert (query.info['task'], query.info['acquisition'], query.info['information']) == (
        'values',
        'lcmd',
        None,
    ) and 'values' in query.info['why']
    torch.testing.assert_close(
        torch.tensor(query.predictions), drawn(learn, dl)[query.indices].mean(1)
    )
    assert quiet(learn, 1, dl).info['acquisition'] == 'gaussian_bald'
    assert query.to_df().prediction.map(len).eq(2).all()


def test_the_noise_of_a_measurement_is_what_draws_do_not_explain():
    learn = trained(values_learner(cbs=MCDropout(k=7)))
    dl = learn.dls.test_dl(range(30))
    values, held = drawn(learn, dl), drawn(learn, learn.dls.valid)
    targets = torch.stack([features_of(i)[:2] for i in range(20, 40)])
    errors, spread = (targets - held.mean(1)).square().mean(0), held.var(1, correction=0).mean(0)
    expected = gaussian_bald(values, noise_variance=torch.maximum(errors - spread, 0.01 * errors))
    query = quiet(learn, 30, dl, by='gaussian_bald')
    np.testing.assert_allclose(query.scores, expected[query.indices], rtol=1e-4)


@pytest.mark.parametrize(
    'by',
    [
        'entropy',
        'bald',
        'epig',
        'badge',
        'batchbald',
        'margin',
        'cluster_margin',
        'bait',
        'uncertainty_herding',
        'power_bald',
        'clue',
    ],
)
def test_strategies_for_classes_are_refused_before_any_work(by):
    learn = values_learner(cbs=MCDropout(k=3))
    learn.model.forward = lambda *x: pytest.fail('the model was called')
    with pytest.raises(ValueError, match='predicts values.*gaussian_bald'):
        quiet(learn, 2, as_pool(learn), by=by)


@pytest.mark.parametrize(
    'by',
    [
        'predictive_variance',
        'gaussian_bald',
        'lcmd',
        'logdet',
        'nngp',
        'kcenter',
        'max_herding',
        'typiclust',
        'probcover',
        'random',
    ],
)
def test_strategies_for_values(by):
    learn = trained(values_learner(cbs=MCDropout(k=5)))
    query = quiet(learn, 4, learn.dls.test_dl(range(40, 80)), by=by)
    assert len(set(query.uids)) == 4 and np.isfinite(query.scores).all()


def test_values_without_draws_need_features_or_a_posterior():
    learn = trained(Learner(plain_dls(y=lambda i: features_of(i)[:1]), mlp(1), L1LossFlat()))
    assert quiet(learn, 3, as_pool(learn)).info['acquisition'] == 'lcmd'
    with pytest.raises(ValueError, match='MCDropout'):
        quiet(learn, 3, as_pool(learn), by='predictive_variance')
    with pytest.raises(ValueError, match='learn.draws'), learn.no_bar():
        learn.predict_proba()
    assert learn.draws(learn.dls.valid).collect().values.shape == (20, 1, 1)


def test_a_task_may_be_given():
    learn = values_learner(cbs=MCDropout(k=3))
    learn.loss_func = lambda out, y: (out - y).abs().mean()
    with pytest.raises(ValueError, match='values=True'):
        quiet(learn, 2, as_pool(learn))
    query = quiet(
        learn,
        2,
        as_pool(learn),
        by='predictive_variance',
        task=Task('temperature', lambda out: out[..., :1], values=True),
    )
    assert query.info['task'] == 'temperature' and all(
        isinstance(p, float) for p in query.predictions
    )
    with pytest.raises(TypeError, match='no task'):
        quiet(learn, 2, as_pool(learn), task='values')


def table(n: int = 120) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    df = pd.DataFrame(
        dict(
            age=rng.normal(40, 9, n),
            work=rng.choice(['field', 'desk', 'road'], n),
            pay=rng.normal(0, 1, n),
        )
    )
    df.loc[::17, 'age'] = np.nan
    return df.assign(rich=np.where(df.pay > 0, 'yes', 'no'), worth=df.pay * 3 + 5)


@pytest.mark.parametrize(
    'target, block, said', [('rich', None, 'classes'), ('worth', RegressionBlock(), 'values')]
)
def test_rows_of_a_table(target, block, said, capsys, monkeypatch):
    monkeypatch.setattr(
        pd.DataFrame, '__repr__', pd.DataFrame.to_string
    )  # all columns, however wide the screen
    df = table()
    dls = TabularDataLoaders.from_df(
        df[:60],
        procs=[Categorify, FillMissing, Normalize],
        cat_names=['work'],
        cont_names=['age', 'pay'],
        y_names=target,
        y_block=block,
        bs=16,
        valid_idx=list(range(40, 60)),
        num_workers=0,
    )
    learn = trained(
        tabular_learner(dls, layers=[16], config=tabular_config(ps=0.2), cbs=MCDropout(k=5))
    )
    dl = dls.test_dl(df[60:])
    query = quiet(learn, 6, dl)
    assert (
        query.info['task'] == said
        and query.info['acquisition'] == ('margin' if said == 'classes' else 'lcmd')
        and len(set(query.uids)) == 6
        and set(map(int, query.uids)) <= set(range(60, 120))
    )
    assert isinstance(query.predictions[0], float if said == 'values' else str)
    query.show()
    shown = capsys.readouterr().out
    assert (
        all(word in shown for word in (*query.uids, *df.work[[int(u) for u in query.uids]]))
        and f'{df.pay[int(query.uids[0])]:.6f}'[:4] in shown
    )


def test_rows_of_a_table_that_share_a_name_are_shown_once_each(capsys, monkeypatch):
    monkeypatch.setattr(pd.DataFrame, '__repr__', pd.DataFrame.to_string)
    df = table()
    dls = TabularDataLoaders.from_df(
        df[:60],
        procs=[Categorify, FillMissing, Normalize],
        cat_names=['work'],
        cont_names=['age', 'pay'],
        y_names='rich',
        bs=16,
        valid_idx=list(range(40, 60)),
        num_workers=0,
    )
    learn = trained(
        tabular_learner(dls, layers=[16], config=tabular_config(ps=0.2), cbs=MCDropout(k=5))
    )
    quiet(learn, 6, dls.test_dl(pd.concat([df[60:65], df[60:65]])), by='entropy').show()
    assert (
        len(capsys.readouterr().out.rstrip().splitlines()) == 2 + 6
    )  # a line of columns, one of the index, one a pick


def test_ratings_of_collaborative_filtering():
    rng = np.random.default_rng(0)
    ratings = pd.DataFrame(
        dict(
            user=rng.integers(0, 9, 200),
            film=rng.integers(0, 12, 200),
            stars=rng.integers(1, 6, 200).astype(float),
        )
    )
    learn = collab_learner(
        CollabDataLoaders.from_df(ratings, bs=32, num_workers=0),
        use_nn=True,
        layers=[16],
        y_range=(0, 5.5),
        config=tabular_config(ps=0.3),
        cbs=MCDropout(k=5),
    )
    query = quiet(trained(learn), 4, as_pool(learn), by='predictive_variance')
    assert query.info['task'] == 'values' and all(0 < p < 5.5 for p in query.predictions)


# Labels


def test_labels_are_named_and_reduced():
    learn = trained(labels_learner(cbs=MCDropout(k=6)))
    dl = learn.dls.test_dl(range(40))
    log_probs = drawn(learn, dl)
    assert quiet(learn, 5, dl).info['acquisition'] == 'max_herding'
    query = quiet(learn, 40, dl, by='bald')
    assert (query.info['acquisition'], query.info['reduce'], query.info['task']) == (
        'bald',
        'mean',
        'labels',
    )
    np.testing.assert_allclose(
        query.scores, bald(log_probs).mean(1)[query.indices], rtol=1e-4, atol=1e-7
    )
    present = log_probs.exp().mean(1)[..., 1] > 0.5
    assert query.predictions == [present[i].nonzero()[:, 0].tolist() for i in query.indices]
    most = quiet(learn, 40, dl, by='entropy', reduce='maximum')
    np.testing.assert_allclose(most.scores, entropy(log_probs).amax(1)[most.indices], rtol=1e-4)


def test_rare_labels_count_for_more():
    learn = trained(labels_learner(cbs=MCDropout(k=6)))
    dl = learn.dls.test_dl(range(40))
    weights = 1 / np.mean([features_of(i)[:3].numpy() > 0 for i in range(20)], 0)
    query = quiet(learn, 40, dl, by='entropy', reduce='rarity')
    expected = (entropy(drawn(learn, dl)).numpy() * weights).sum(1) / weights.sum()
    np.testing.assert_allclose(query.scores, expected[query.indices], rtol=1e-4)


# Pixels


def test_maps_of_what_was_chosen():
    learn = trained(pixels_learner(cbs=MCDropout(k=6)))
    dl = learn.dls.test_dl(range(40))
    query = quiet(learn, 5, dl, by='bald', reduce=top_fraction(0.25))
    maps = bald(drawn(learn, dl))[query.indices]
    torch.testing.assert_close(query.maps, maps.float(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(query.scores, maps.flatten(1).topk(4).values.mean(1), rtol=1e-4)
    assert query.info['reduce'] == 'top_fraction(0.25)' and query.predictions == [None] * 5


def test_a_class_that_the_loss_ignores_counts_for_nothing():
    learn = pixels_learner(cbs=MCDropout(k=6))
    learn.loss_func = CrossEntropyLossFlat(axis=1, ignore_index=1)
    dl = learn.dls.test_dl(range(40))
    log_probs = drawn(learn, dl)
    seen = log_probs.exp().mean(1).argmax(-1) != 1
    assert 0 < seen.float().mean() < 1
    query = quiet(learn, 40, dl, by='entropy')
    expected = (entropy(log_probs) * seen).flatten(1).sum(1) / seen.flatten(1).sum(1).clamp(min=1)
    some = seen.flatten(1).any(1)
    expected[~some] = expected[some].min()
    np.testing.assert_allclose(query.scores, expected[query.indices], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    'reduce',
    [
        'mean',
        'total',
        'maximum',
        'per_class',
        top_fraction(),
        boundary(1),
        pooled(2),
        lambda scores: scores.flatten(1).amax(1),
    ],
)
def test_an_item_of_which_nothing_counts_comes_last(reduce):
    "Also where scores are below 0, and sites that do not count are infinite"
    scores, probs, seen = sites(shape=(4, 4))
    found = reduce_scores(
        reduce, (scores - 2).masked_fill(~seen, torch.inf), probs=probs, mask=seen
    )
    assert found[-1] == -torch.inf and found[:-1].isfinite().all() and (found[:-1] < 0).all()
    learn = pixels_learner(cbs=MCDropout(k=3))
    learn.loss_func = CrossEntropyLossFlat(axis=1, ignore_index=1)
    with torch.no_grad():
        learn.model.body[-1].bias.copy_(torch.tensor([0.0, 0.2, 0.0]))
    dl = learn.dls.test_dl(range(60))
    unseen = (drawn(learn, dl).exp().mean(1).argmax(-1) == 1).flatten(1).all(1)
    query = quiet(learn, 60, dl, by='margin', reduce=reduce)
    assert np.isfinite(query.scores).all()
    if unseen.any():
        assert set(query.indices[-int(unseen.sum()) :]) == set(unseen.nonzero()[:, 0].tolist())


def test_top_fraction_of_round_shares_and_of_nan():
    for q, size, k in ((0.3, 50, 15), (0.6, 25, 15), (0.54, 50, 27), (0.1, 5, 1), (1, 7, 7)):
        scores = torch.rand(1, size)
        assert reduce_scores(top_fraction(q), scores).item() == pytest.approx(
            scores[0].topk(k).values.mean().item()
        )
    assert reduce_scores(top_fraction(0.1), torch.tensor([[math.nan] + [1.0] * 9])).isnan().all()


def test_what_the_user_binds_is_taken():
    learn = trained(values_learner(cbs=MCDropout(k=5)))
    dl = learn.dls.test_dl(range(30))
    query = quiet(learn, 30, dl, by=functools.partial(gaussian_bald, noise_variance=0.5))
    np.testing.assert_allclose(
        query.scores, gaussian_bald(drawn(learn, dl), noise_variance=0.5)[query.indices], rtol=1e-4
    )
    many = labels_learner(cbs=MCDropout(k=5))
    query = quiet(
        many,
        30,
        many.dls.test_dl(range(30)),
        by='entropy',
        reduce=functools.partial(REDUCERS['rarity'], prevalence=torch.tensor([1.0, 1.0, 1e-3])),
    )
    rare = entropy(drawn(many, many.dls.test_dl(range(30))))[:, 2]
    assert np.corrcoef(query.scores, rare[query.indices])[0, 1] > 0.99


def test_maps_are_the_scores_that_were_used():
    learn = trained(pixels_learner(cbs=MCDropout(k=6)))
    dl = learn.dls.test_dl(range(40))

    def keyed(log_probs, keys):
        return entropy(log_probs) + keys[:, None, None] % 7

    for by in ('random', 'epig', 'margin', keyed):
        query = quiet(learn, 3, dl, by=by)
        np.testing.assert_allclose(query.maps.mean((1, 2)), query.scores, rtol=1e-4, atol=1e-6)
    assert quiet(learn, 3, dl, by='kcenter', features=learn.model.body[-1]).maps is None


def test_noise_of_other_learners():
    learn = values_learner(cbs=MCDropout(k=5))
    data = TensorDataset(torch.randn(40, 6), torch.randn(40, 2))
    plain = Learner(
        DataLoaders(DataLoader(data, batch_size=8), DataLoader(data, batch_size=8)),
        learn.model,
        MSELossFlat(),
        cbs=MCDropout(k=5),
    )
    assert (
        len(
            quiet(
                plain, 3, DataLoader(TensorDataset(*data.tensors), batch_size=8), by='gaussian_bald'
            )
        )
        == 3
    )
    for bad, said in (
        (torch.randn(40, 1), r'targets \[8, 1\] for predictions \[8, 2\]'),
        (torch.full((40, 2), math.nan), 'NaN'),
    ):
        dl = DataLoader(TensorDataset(torch.randn(40, 6), bad), batch_size=8)
        with pytest.raises(ValueError, match=said):
            quiet(
                Learner(DataLoaders(dl, dl), learn.model, MSELossFlat(), cbs=MCDropout(k=5)),
                3,
                DataLoader(TensorDataset(*dl.dataset.tensors), batch_size=8),
                by='gaussian_bald',
            )
    with pytest.raises(ValueError, match='share of the training set'):
        quiet(pixels_learner(cbs=MCDropout(k=3)), 3, as_pool(learn), by='entropy', reduce='rarity')


def test_targets_are_collected():
    learn = values_learner(cbs=MCDropout(k=3))
    with learn.no_bar():
        found = learn.draws(learn.dls.valid).collect()
    torch.testing.assert_close(
        found.targets[0], torch.stack([features_of(i)[:2] for i in range(20, 40)])
    )


def test_bad_reducers():
    learn = pixels_learner(cbs=MCDropout(k=3))
    for reduce, said in (
        ('median', 'no reducer'),
        (top_fraction, 'makes reducers'),
        (lambda scores: scores, 'one score an item'),
        (lambda scores: 3, 'one score an item'),
    ):
        with pytest.raises(ValueError, match=said):
            quiet(learn, 2, as_pool(learn), reduce=reduce)
    with pytest.raises(ValueError, match='no reducer'):
        quiet(learn, 2, as_pool(learn), reduce=['mean'])
    with pytest.raises(ValueError, match='alpha=2'):
        quiet(learn, 2, as_pool(learn)).show(alpha=2)
    assert reduce_scores('mean', torch.empty(0, 4, 4)).shape == (0,) and reduce_scores(
        'mean', torch.ones(2, 300, 300).half(), mask=torch.ones(2, 300, 300) > 0
    ).tolist() == [1, 1]
    for make in (
        lambda: top_fraction(0),
        lambda: top_fraction(1.5),
        lambda: boundary(0),
        lambda: pooled(0),
        lambda: pooled(2.5),
    ):
        with pytest.raises(ValueError):
            make()


# Reducers against loops


def sites(b=5, shape=(6, 7), c=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    scores, probs = (
        torch.rand(b, *shape, generator=g),
        (3 * torch.randn(b, *shape, c, generator=g)).softmax(-1),
    )
    seen = torch.rand(b, *shape, generator=g) > 0.3
    seen[-1] = False  # an item of which nothing counts
    return scores, probs, seen


UNSEEN = -math.inf


def naive(how, scores, probs, seen):
    found = []
    for s, p, w in zip(scores.numpy(), probs.numpy(), seen.numpy()):
        classes, values = p.argmax(-1), sorted(s[w], reverse=True)
        border = np.zeros(classes.shape, bool)
        for place in np.ndindex(classes.shape):
            near = tuple(slice(max(0, i - 1), i + 2) for i in place)
            border[place] = len(np.unique(classes[near])) > 1

        def mean(where):
            return s[where].mean() if where.any() else 0

        if not w.any():
            found.append(UNSEEN)
            continue
        found.append(
            {
                'mean': lambda: mean(w),
                'total': lambda: sum(values),
                'maximum': lambda: max(values, default=0),
                'top': lambda: np.mean(values[: math.ceil(0.2 * len(values))]) if values else 0,
                'per_class': lambda: (
                    np.mean([mean(w & (classes == c)) for c in np.unique(classes[w])])
                    if w.any()
                    else 0
                ),
                'inside': lambda: mean(w & ~border) if (w & ~border).any() else mean(w),
                'border': lambda: mean(w & border) if (w & border).any() else mean(w),
            }[how]()
        )
    return found


HOW = {
    'mean': 'mean',
    'total': 'total',
    'maximum': 'maximum',
    'top': top_fraction(0.2),
    'per_class': 'per_class',
    'inside': boundary(1),
    'border': boundary(1, only=True),
}


@pytest.mark.parametrize('shape', [(9,), (6, 7), (3, 4, 5)], ids=str)
@pytest.mark.parametrize('how', HOW)
def test_reducers_against_loops(how, shape):
    for seed in range(3):
        scores, probs, seen = sites(shape=shape, seed=seed)
        np.testing.assert_allclose(
            reduce_scores(HOW[how], scores, probs=probs, mask=seen),
            naive(how, scores, probs, seen),
            rtol=1e-5,
            atol=1e-7,
        )
        everything = torch.ones_like(seen)
        np.testing.assert_allclose(
            reduce_scores(HOW[how], scores, probs=probs),
            naive(how, scores, probs, everything),
            rtol=1e-5,
            atol=1e-7,
        )


def test_a_strategy_with_a_reducer_of_its_own():
    learn = trained(labels_learner(cbs=MCDropout(k=6)))
    dl, rule = learn.dls.test_dl(range(40)), with_reducer('entropy', 'maximum')
    own, named = quiet(learn, 9, dl, by=rule), quiet(learn, 9, dl, by='entropy', reduce='maximum')
    assert own.indices == named.indices != quiet(learn, 9, dl, by='entropy').indices
    assert (own.info['acquisition'], own.info['reduce']) == ('entropy, maximum', 'maximum')
    frame, _ = measure_items(learn, dl, by=[rule, 'entropy'], metric=False)
    np.testing.assert_allclose(frame['entropy, maximum'].iloc[own.indices], own.scores, rtol=1e-4)
    assert (frame['entropy, maximum'] > frame['entropy']).all()
    rare = with_reducer('entropy', 'rarity')  # asks for the shares of the training set
    assert (
        quiet(learn, 9, dl, by=rare).indices
        == quiet(learn, 9, dl, by='entropy', reduce='rarity').indices
    )
    one = with_reducer(random, 'total')
    assert one.min_draws == 0 and len(quiet(learn, 3, dl, by=one)) == 3
    for by, reduce, said in (
        ('batchbald', 'mean', 'no acquisition function'),
        ('auto', 'mean', 'no acquisition function'),
        ('bald', 'median', 'no reducer'),
        ('bald', top_fraction, 'makes reducers'),
    ):
        with pytest.raises(ValueError, match=said):
            with_reducer(by, reduce)


def test_every_reducer_is_tried():
    assert set(REDUCERS) == {*HOW} - {'top', 'inside', 'border'} | {'rarity'}


def test_pooled_is_the_mean_of_the_largest():
    scores = torch.rand(3, 5, 7)
    windows = [
        scores[:, i : i + 2, j : j + 2].flatten(1).amax(1)
        for i in range(0, 5, 2)
        for j in range(0, 7, 2)
    ]
    torch.testing.assert_close(reduce_scores(pooled(2), scores), torch.stack(windows).mean(0))
    torch.testing.assert_close(reduce_scores(pooled(100), scores), scores.flatten(1).amax(1))


@pytest.mark.parametrize('window', [1, 3, 5])
def test_local_divergence_against_a_loop(window):
    log_probs = (2 * torch.randn(2, 3, 5, 6, 4)).log_softmax(-1)
    p, half = log_probs.exp().mean(1).numpy(), window // 2

    def H(p):
        return -(p * np.log(p)).sum(-1)

    for place, found in np.ndenumerate(local_divergence(log_probs, window=window).numpy()):
        b, i, j = place
        around = p[b, max(0, i - half) : i + half + 1, max(0, j - half) : j + half + 1].reshape(
            -1, 4
        )
        assert found == pytest.approx(H(around.mean(0)) - H(around).mean(), abs=1e-5)
    with pytest.raises(ValueError, match='odd'):
        local_divergence(log_probs, window=2)


def test_the_overlay_is_drawn_over_the_picture():
    from fastai.data.core import Datasets
    from fastai.vision.core import TensorImage

    dsets = Datasets(
        list(range(12)),
        [
            [lambda i: TensorImage(PixelsOf()(i).expand(3, 4, 4).clone())],
            [lambda i: (PixelsOf()(i) > 0).long()],
        ],
        splits=[range(6), range(6, 12)],
    )
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Dropout2d(0.3), nn.Conv2d(8, 2, 1))
    learn = Learner(
        dsets.dataloaders(bs=4, num_workers=0),
        net,
        CrossEntropyLossFlat(axis=1),
        cbs=MCDropout(k=4),
    )
    query = quiet(learn, 3, as_pool(learn))
    query.show()
    drawn_over = [ax.images for ax in plt.gcf().axes if ax.images]
    assert [len(images) for images in drawn_over] == [2, 2, 2]
    np.testing.assert_allclose(drawn_over[0][1].get_array(), query.maps[0])
    query.show(alpha=0)
    assert [len(ax.images) for ax in plt.gcf().axes if ax.images] == [1, 1, 1]
    plt.close('all')
