"Can the uncertainty be trusted: regions, figures, pictures and sentences, for each task"

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from fastai.basics import CategoryBlock, DataBlock, Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.vision.all import ImageBlock, PILImage, ResizeMethod
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import nn

from conftest import (
    assert_same,
    classes_learner,
    everything,
    labels_learner,
    pictures_learner,
    pixels_learner,
    pool_learner,
    small_pool,
)
from contracts import values_learner
from fastai_al.acquire.gallery import draw_outline
from fastai_al.active_learner import ActiveLearner
from fastai_al.evaluation.calibrate import Temperature
from fastai_al.evaluation.interpret import UncertaintyInterpretation
from fastai_al.evaluation.per_item import masks_of
from fastai_al.evaluation.regions import REGIONS, performance_limits, regions_of
from fastai_al.evaluation.reliability import adaptive_ece, augrc, e_aurc
from fastai_al.inference.passes import pool_pass
from fastai_al.posterior.base import Point
from fastai_al.posterior.dropout import MCDropout

MAKERS = dict(
    classes=classes_learner, labels=labels_learner, pixels=pixels_learner, values=values_learner
)
METRICS = dict(classes='correct', labels='correct', pixels='iou', values='absolute_error')


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close('all')


def look(learn, *args, **kwargs):
    with learn.no_bar(), learn.no_logging():
        return UncertaintyInterpretation.from_learner(learn, *args, **kwargs)


def trained(name, epochs=4, k=6):
    learn = MAKERS[name](cbs=MCDropout(k=k))
    with learn.no_bar(), learn.no_logging():
        learn.fit(epochs, 1e-2)
    return learn


def made(u, p, metric='correct', right=None, values=False, **columns):
    "An interpretation of numbers"
    frame = pd.DataFrame(
        dict(
            index=range(len(u)), prediction='cat', target='cat', total=u, performance=p, **columns
        ),
        index=pd.Index([f'i{i}' for i in range(len(u))], name='uid'),
    )
    frame['performance'] = frame.performance.astype(float)
    confidences = {} if right is None else {'current': right}
    return UncertaintyInterpretation(
        None,
        None,
        Point(),
        frame,
        ['total', *columns],
        metric,
        values,
        performance_limits(frame.performance.to_numpy()),
        confidences,
    )


@pytest.mark.parametrize('name', MAKERS)
def test_each_task_from_learner_to_sentences_and_nothing_is_left(name):
    learn = trained(name)
    with learn.no_bar():
        before = everything(learn)
        interp = UncertaintyInterpretation.from_learner(learn)
        df, table, said = interp.to_df(), interp.correlation(), interp.summary()
        interp.plot_regions(), interp.plot_risk_coverage()
        if name != 'values':
            interp.plot_reliability()
        compared = interp.compare([learn.mc_dropout, MCDropout(k=3, seed=2)])
        compared.plot()
        assert_same(everything(learn), before)
    uncertainties = ['epistemic'] if name == 'values' else ['total', 'aleatoric', 'epistemic']
    assert (
        list(df.columns)
        == ['index', 'prediction', 'target', *uncertainties, 'performance', 'region']
        and len(df) == len(interp) == 20
    )
    assert (
        list(table.index) == uncertainties
        and set(df.region) <= set(REGIONS)
        and interp.metric == METRICS[name]
    )
    assert 'too few' in said and '20 items' in said
    assert (interp.losses >= 0).all() and (name == 'values' or (interp.losses <= 1).all())
    first = compared.table.loc[repr(learn.mc_dropout)]
    u = interp.frame[uncertainties[0]].to_numpy()
    assert first.augrc == pytest.approx(augrc(u, interp.losses)) and first.e_aurc == pytest.approx(
        e_aurc(u, interp.losses)
    )
    assert np.isnan(first.adaptive_ece) == (name == 'values') and len(compared.table) == 2
    if name in ('classes', 'labels'):
        share = [
            np.mean([(c in p) == (c in t) for c in range(3)]) if name == 'labels' else p == t
            for p, t in zip(df.prediction, df.target)
        ]
        np.testing.assert_allclose(df.performance, share, atol=1e-6)
        assert interp.confidences['current'][1].mean() == pytest.approx(df.performance.mean())
    if name == 'values':
        np.testing.assert_allclose(
            df.performance,
            [-np.abs(np.subtract(p, t)).mean() for p, t in zip(df.prediction, df.target)],
            atol=1e-5,
        )
    if name == 'pixels':
        assert len(interp.confidences['current'][0]) == 20 * 16


def test_regions_cover_all_items_and_follow_both_orders():
    rng = np.random.default_rng(0)
    u, p = rng.random(300), rng.random(300)
    r = regions_of(u, p)
    (u1, u2), (low, high) = np.quantile(u, [1 / 3, 2 / 3]), performance_limits(p)
    for name, there in dict(
        a=(u >= u2) & (p < (low + high) / 2),
        b=(u >= u2) & (p >= (low + high) / 2),
        c=(u > u1) & (u < u2),
        d=(u <= u1) & (p > low) & (p < high),
        e=(u <= u1) & (p >= high),
        f=(u <= u1) & (p <= low),
    ).items():
        assert ((r == name) == there).all() and there.any(), name
    assert (regions_of(10 * u + 3, p) == r).all()


def test_what_can_not_be_interpreted():
    learn = classes_learner(cbs=MCDropout(k=4))
    interp = look(learn)
    with pytest.raises(TypeError, match='is a single posterior'):
        interp.compare(Point())
    for bad in (0.5, (0.1, 0.2, 0.3), 'ab'):
        with pytest.raises(ValueError, match='two numbers'):
            UncertaintyInterpretation.from_learner(learn, limits=bad)
    with pytest.raises(ValueError, match='names no uncertainty'):
        UncertaintyInterpretation.from_learner(learn, by=[])
    with pytest.raises(ValueError, match='no reducer'):
        UncertaintyInterpretation.from_learner(learn, reduce='foo')


def test_limits():
    assert (
        performance_limits(np.array([1.0, 1, 1]))
        == performance_limits(np.array([0.0, 0]))
        == (1 / 3, 2 / 3)
    )
    assert set(regions_of(np.arange(9), np.ones(9))) == {'b', 'c', 'e'} and set(
        regions_of(np.arange(9), np.zeros(9))
    ) == {'a', 'c', 'f'}
    assert performance_limits(np.linspace(-3, 0, 301)) == pytest.approx((-2, -1))
    assert performance_limits(np.array([0.5] * 9 + [0.2])) == pytest.approx((0.3, 0.4))
    assert set(regions_of(np.arange(9), np.full(9, 0.4))) == {
        'b',
        'c',
        'd',
    }  # all alike, and neither good nor bad
    assert set(regions_of([0] * 8 + [1], np.ones(9))) == {'e', 'b'} and set(
        regions_of([2] * 5, [0, 1, 0, 1, 1])
    ) == {'c'}
    assert (
        ''.join(regions_of(np.arange(9), [0.2, 0.5, 0.8, 0, 0, 0, 0.3, 0.5, 0.6], (0.2, 0.8)))
        == 'fdecccabb'
    )  # the limits are low and high
    with pytest.raises(ValueError, match='not ascending'):
        regions_of(np.arange(3), np.arange(3), (0.8, 0.2))


def test_rows_of_a_region():
    interp = made(np.arange(9) / 10, [1, 0, 1, 0, 1, 0, 1, 0, 1])
    assert (
        list(interp.region('e')['index']) == [0, 2]
        and list(interp.region('b')['index']) == [8, 6]
        and list(interp.region('f')['index']) == [1]
    )
    with pytest.raises(ValueError, match="region 'g'"):
        interp.region('g')
    with pytest.raises(ValueError, match='No item is in region .d.'):
        interp.as_query('d')


def test_loss_and_wrong():
    assert list(made([1, 2, 3], [0, 1, 1]).losses) == [1, 0, 0] and list(
        made([1, 2, 3], [-2, 0, -1], 'absolute_error').losses
    ) == [2, 0, 1]
    assert list(made([1, 2], [0, 0], 'absolute_error').losses) == [0, 0] and list(
        made([1, 2], [20.0, 30.0], 'psnr').losses
    ) == [-20, -30]
    assert made([1, 2], [0.25, 1.0], 'own').losses.tolist() == [0.75, 0]
    assert made([1, 2, 3], [0, 1, 1]).wrong().tolist() == [True, False, False]
    assert made([1, 2, 3, 4], [0.1, 0.2, 0.3, 0.4], 'iou').wrong().tolist() == [
        True,
        True,
        False,
        False,
    ]
    assert made([1, 2, 3, 4], [0.1, 0.2, 0.3, 0.4], 'iou').wrong(0.15).tolist() == [
        True,
        False,
        False,
        False,
    ]
    assert made([1, 2, 3, 4], [0.1, 0.1, 0.1, 0.4], 'iou').wrong().tolist() == [
        True,
        True,
        True,
        False,
    ]
    rng = np.random.default_rng(0)
    interp = made(rng.random(50), rng.random(50), 'iou')
    assert interp.error_auroc(below=0.3) == pytest.approx(
        roc_auc_score(interp.frame.performance < 0.3, interp.frame.total)
    )


def test_sentences():
    rng = np.random.default_rng(0)
    u = rng.random(400)
    good = made(u, rng.random(400) > u**2, right=(1 - u / 2, rng.random(400) < 1 - u / 2)).summary()
    assert (
        'can be trusted to find errors' in good
        and '400 items' in good
        and 'confidence is calibrated' in good
        and 'show_region' in good
    )
    useless = made(u, rng.random(400) > 0.3).summary()
    assert (
        'can not be trusted' in useless
        and 'which includes 0' in useless
        and 'be trusted to find' not in useless
    )
    for seed in range(1, 5):  # the interval decides, not the sign of the value
        p = np.random.default_rng(seed).random(400) > 0.3
        interp = made(u, p)
        t = interp.correlation().loc['total']
        assert t.spearman_low < 0 < t.spearman_high and 'can not be trusted' in interp.summary()
    assert 'is misleading' in made(1 - u, rng.random(400) > u**2).summary()
    weak = made(u, rng.random(400) > 0.3 + 0.25 * u).summary()
    assert 'but weakly' in weak
    assert 'too few for a conclusion: label at least 30' in made(u[:29], u[:29] > 0.5).summary()
    assert (
        'Only 2 of them are wrong' in made(u, np.arange(400) > 1).summary()
        and 'Only 400 of them are wrong and 0 right' in made(u, np.zeros(400)).summary()
    )
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        # pandas 2.0 calls it, and numpy 1.25 warns
        warnings.filterwarnings('ignore', 'np.find_common_type', DeprecationWarning)
        assert 'is the same for all' in made(np.ones(400), rng.random(400) > 0.3).summary()
    for gap, words in ((0.2, 'overconfident by 0.2'), (-0.2, 'underconfident by 0.2')):
        said = made(
            u,
            rng.random(400) > u**2,
            right=(np.full(400, 0.7), (np.arange(400) % 10 < 10 * (0.7 - gap) - 0.5).astype(float)),
        ).summary()
        assert words in said and 'learn.calibrate()' in said
    errors = made(u, -u * rng.random(400), 'absolute_error', values=True).summary()
    assert (
        'can be trusted' in errors
        and 'confidence' not in errors
        and 'absolute error (unit of the target)' in errors
    )


def test_what_was_labelled_before_calibration_is_known_after_it():
    learn = trained('pixels')
    before = look(learn)
    learn.add_cb(Temperature(2.5))
    after = look(learn)
    np.testing.assert_allclose(
        after.confidences['before calibration'][0], before.confidences['current'][0], atol=1e-4
    )
    assert (
        after.confidences['current'][0].mean() < after.confidences['before calibration'][0].mean()
        and 'before calibration' not in before.confidences
    )
    labels = [line.get_label() for line in after.plot_reliability().lines]
    assert (
        labels[1].startswith('before calibration: adaptive ECE')
        and labels[2]
        == f'after calibration: adaptive ECE {adaptive_ece(*after.confidences["current"]):.3f}'
    )


def test_pictures_hold_what_they_say():
    rng = np.random.default_rng(0)
    u = rng.random(60)
    interp = made(u, rng.random(60) > u, epistemic=rng.random(60))
    ax = interp.plot_regions()
    shares = interp.regions().value_counts(normalize=True)
    said = [t.get_text() for t in ax.get_legend().get_texts()]
    assert len(said) == 6 and all(
        f'{shares.get(name, 0):.1%}' in t and REGIONS[name][0] in t
        for name, t in zip('abcdef', said)
    )
    assert (
        sum(
            len(c.get_offsets())
            for c in ax.collections
            if hasattr(c, 'get_offsets') and c.get_label()[0] in 'abcdef'
        )
        == 60
    )
    assert 'nats' in ax.get_xlabel()
    curves = interp.plot_risk_coverage()
    assert [l.get_label().split(':')[0] for l in curves.lines] == [
        'total',
        'epistemic',
        'perfect order',
        'random order',
    ] and f'AUGRC {augrc(u, interp.losses):.3g}' in curves.lines[0].get_label()
    assert (
        interp.plot_risk_coverage('epistemic', ax=plt.subplots()[1])
        .lines[0]
        .get_label()
        .startswith('epistemic')
    )
    with pytest.raises(ValueError, match='Only metric= can read'):
        interp.plot_reliability()
    with pytest.raises(ValueError, match='have no confidence'):
        made([1, 2, 3], [-1, -2, -3], 'loss', values=True).plot_reliability()
    for few in (
        made([1.0], [1.0]),
        made([1.0, 1.0], [0, 0]),
        made([1.0, 2.0], [-1.0, -3.0], 'loss', values=True),
    ):
        few.plot_regions(), few.plot_risk_coverage()


def test_own_metrics_other_uncertainties_and_bad_ones():
    learn = trained('classes')
    interp = look(
        learn,
        by=['total', 'margin'],
        metric=lambda mean, target: mean.gather(1, target[:, None].long())[:, 0],
        limits=(0.2, 0.9),
    )
    assert (
        interp.names == ['total', 'margin']
        and interp.limits == (0.2, 0.9)
        and list(interp.correlation('margin').index) == ['margin']
    )
    with pytest.raises(ValueError, match='is nan'):
        look(learn, metric=lambda mean, target: mean[:, 0] * float('nan'))
    with pytest.raises(ValueError, match='have no labels'):
        look(learn, learn.dls.test_dl([1, 2, 3]))
    with pytest.raises(ValueError, match='There is no posterior'):
        interp.compare([])
    with pytest.raises(ValueError, match='have the same name'):
        interp.compare([Point(), Point()])
    with learn.no_bar():
        assert list(interp.compare(dict(one=Point(), other=Point())).table.index) == [
            'one',
            'other',
        ]
    with pytest.raises(ValueError, match="'bald' was not measured"):
        interp.plot_regions(by='bald')


def test_an_active_learner_uses_its_own_holdout():
    pool = small_pool()
    active = ActiveLearner(pool_learner(pool), pool)
    interp = look(active)
    assert len(interp) == 10 and set(interp.frame.index) == set(pool.holdout.index.astype(str))


def test_pictures_of_a_region(tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(24):
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(
            tmp_path / f'{"ab"[i % 2]}{i}.png'
        )
    block = DataBlock(
        (ImageBlock, CategoryBlock),
        get_items=lambda p: sorted(p.glob('*.png')),
        get_y=lambda f: f.name[0],
        splitter=lambda items: ([0, 1, 12, 13], [*range(2, 12), *range(14, 24)]),
    )
    learn = Learner(
        block.dataloaders(tmp_path, bs=4, num_workers=0),
        nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(192, 2)),
        CrossEntropyLossFlat(),
        cbs=MCDropout(k=4),
    )
    interp = look(learn)
    for name in interp.regions().unique():
        rows = interp.region(name)
        interp.show_region(name, max_n=3)
        titles = [ax.get_title() for ax in plt.gcf().axes if ax.images]
        assert len(titles) == min(3, len(rows))
        for title, (uid, row) in zip(titles, rows.iterrows()):
            file, known = title.split('\n')
            assert uid.endswith(file.removeprefix('…')) and len(file) > len('b23.png')
            assert known == f'{row.total:.3g} · {row.prediction}, true: {row.target}'
        shown, true = (
            plt.gcf().axes[0].images[0].get_array(),
            np.asarray(PILImage.create(rows.index[0])),
        )
        assert (
            np.abs(
                np.asarray(shown, float) - (true if np.asarray(shown).max() > 1 else true / 255)
            ).max()
            < 3
        )
        assert interp.as_query(name).uids == list(rows.index)


def test_borders_of_masks(tmp_path):
    active = pictures_learner(tmp_path, ResizeMethod.Squish)
    interp = look(active)
    name = interp.regions().iloc[0]
    places = interp.region(name)['index'].tolist()
    with active.no_bar():
        masks = masks_of(active.learn, active.dls.valid, indices=places)
        interp.show_region(name, max_n=2)
    truth = [np.asarray(Image.open(active.pool.holdout.label.iloc[i])) for i in places]
    assert (
        [m.shape for m in masks['true']]
        == [(8, 8)] * len(places)
        == [m.shape for m in masks['predicted']]
    )
    for mask, true in zip(masks['true'], truth):
        np.testing.assert_array_equal(
            mask, np.asarray(Image.fromarray(true).resize((8, 8), Image.NEAREST))
        )
    belief = (
        next(iter(pool_pass(active.learn, active.dls.valid, MCDropout(k=3), indices=places[:1])))
        .log_probs.exp()
        .mean(1)[0]
    )
    np.testing.assert_array_equal(masks['predicted'][0], belief.argmax(-1))
    fig = plt.gcf()
    assert [line.get_text() for line in fig.legends[0].get_texts()] == ['true', 'predicted']
    drawn = [ax for ax in fig.axes if ax.images]
    assert (
        len(drawn) == min(2, len(places))
        and masks_of(trained('classes', 1), trained('classes', 1).dls.valid) == {}
    )


def test_a_border_lies_between_the_classes():
    ax = plt.subplots()[1]
    ax.imshow(np.zeros((16, 32)))
    mask = np.zeros((8, 16), int)
    mask[:, 4:], mask[:, 12:] = 1, 255  # a picture of twice the size: borders at 7.5 and 23.5
    draw_outline(ax, mask, color='k', ls='-', lw=1)
    at = sorted(
        {
            float(x)
            for c in ax.collections
            for path in c.get_paths()
            for x in path.vertices[:, 0].round(6)
        }
    )
    assert at == [7.5, 23.5]


def test_rows_of_a_table(monkeypatch):
    from fastai.tabular.all import (
        Categorify,
        Normalize,
        TabularDataLoaders,
        tabular_config,
        tabular_learner,
    )

    rng = np.random.default_rng(0)
    df = pd.DataFrame(
        dict(a=rng.normal(size=60), b=rng.choice(['x', 'y'], 60)),
        index=[f'r{i}' for i in range(60)],
    )
    df['y'] = np.where(df.a + rng.normal(size=60) > 0, 'pos', 'neg')
    dls = TabularDataLoaders.from_df(
        df,
        procs=[Categorify, Normalize],
        cat_names=['b'],
        cont_names=['a'],
        y_names='y',
        y_block=CategoryBlock(),
        valid_idx=list(range(20)),
        bs=8,
    )
    interp = look(
        tabular_learner(dls, layers=[8], config=tabular_config(ps=0.3), cbs=MCDropout(k=3))
    )
    assert list(interp.frame.index) == list(df.index[:20]) and list(interp.frame.target) == list(
        df.y[:20]
    )
    np.testing.assert_array_equal(
        interp.frame.performance, interp.frame.prediction == interp.frame.target
    )
    shown = []
    monkeypatch.setattr('IPython.display.display', shown.append)
    name = interp.regions().iloc[0]
    interp.show_region(name)
    assert list(shown[0].index) == list(interp.region(name).index)[:12]
    np.testing.assert_allclose(shown[0].a, df.a[shown[0].index], atol=1e-5)


def test_confidence_of_a_handful_is_not_judged():
    rng = np.random.default_rng(0)
    u = rng.random(60)
    said = made(
        u, rng.random(60) > u**2, right=(np.full(60, 0.9), (np.arange(60) % 10 < 8).astype(float))
    ).summary()
    assert 'too few to say whether' in said and 'Its confidence is calibrated' not in said
