"""What a newcomer meets: errors that name the nearest name, results that show themselves in a
notebook, plots that do not print their address, and results that can be pickled"""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.basics import CategoryBlock, CrossEntropyLossFlat, DataBlock, Learner, TransformBlock
from IPython.core.interactiveshell import InteractiveShell
from matplotlib import pyplot as plt

from conftest import BLOCK, XOf, classes_learner, mlp, small_pool
from fastai_al.active_learner import ActiveLearner
from fastai_al.core.display import DisplayedText, WrittenFile, quiet
from fastai_al.evaluation.compare_posteriors import Comparison
from fastai_al.evaluation.interpret import UncertaintyInterpretation
from fastai_al.evaluation.regions import performance_limits
from fastai_al.evaluation.reliability import reliability_bins
from fastai_al.inference.predict import Prediction
from fastai_al.lab.results import Campaigns
from fastai_al.loop.forecast import forecast
from fastai_al.pool.pool import Pool
from fastai_al.posterior.base import Point
from fastai_al.posterior.dropout import MCDropout
from fastai_al.triage.result import Triage

HOSTILE = '<script>alert("x")</script>'


@pytest.fixture(scope='module')
def learn():
    pool = small_pool(200, 30, 60)
    learner = Learner(
        pool.dataloaders(BLOCK, bs=8, num_workers=0),
        mlp(),
        CrossEntropyLossFlat(),
        cbs=MCDropout(k=3),
    )
    learner.remove_cbs([cb for cb in learner.cbs if cb.name == 'progress'])
    return ActiveLearner(learner, pool)


@pytest.fixture(scope='module')
def triage(learn):
    return learn.triage(0.9)


def interpretation(n=120, right=None, names='i'):
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.4, 1, n)
    right = (rng.random(n) < confidence).astype(float) if right is None else right
    frame = pd.DataFrame(
        dict(
            index=range(n),
            prediction=HOSTILE,
            target='b',
            total=1 - confidence,
            performance=right,
        ),
        index=pd.Index([f'{names}{i}' for i in range(n)], name='uid'),
    )
    limits = performance_limits(frame.performance.to_numpy())
    found = {'current': (confidence, right)}
    return UncertaintyInterpretation(
        None, None, Point(), frame, ['total'], 'correct', False, limits, found
    )


def campaigns(by='bald'):
    rows = [
        dict(by=name, seed=seed, round=i, labelled=20 + 10 * i, accuracy=0.5 + i / 10 + seed / 99)
        for name in (by, 'random')
        for seed in range(3)
        for i in range(3)
    ]
    return Campaigns(pd.DataFrame(rows), {}, {})


# Names


def test_attributes_that_are_missing_name_the_class_and_the_nearest_name(learn):
    pool = learn.pool
    query = learn.acquire(2, by='entropy', round=pool.round)
    for owner, wrong, near in (
        (pool, 'unlabeld', 'unlabeled'),
        (pool, 'drawholdout', 'draw_holdout'),
        (query, 'predicitons', 'predictions'),
        (learn, 'aquire', 'acquire'),
        (learn, 'anotate', 'annotate'),
        (learn, 'fit_onecycle', 'fit_one_cycle'),
    ):
        message = f"^{type(owner).__name__} has no attribute '{wrong}'. Did you mean '{near}'\\?$"
        with pytest.raises(AttributeError, match=message):
            getattr(owner, wrong)
        assert not hasattr(owner, wrong)
    with pytest.raises(AttributeError, match="^ActiveLearner has no attribute 'zzzzzz'.$"):
        _ = learn.zzzzzz
    assert learn.model is learn.learn.model and learn.loss_func is learn.learn.loss_func


def test_the_error_of_a_property_is_its_own():
    class Odd(Pool):
        @property
        def broken(self):
            return self.rows.no_such_column

    with pytest.raises(AttributeError, match='no_such_column'):
        _ = Odd(['a']).broken


def test_american_spelling_and_parentheses():
    pool = small_pool()
    pd.testing.assert_frame_equal(pd.DataFrame(pool.labeled), pd.DataFrame(pool.labelled))
    pd.testing.assert_frame_equal(pd.DataFrame(pool.unlabeled), pd.DataFrame(pool.unlabelled))
    for name in ('unlabelled', 'labelled', 'holdout', 'history', 'flagged'):
        frame = getattr(pool, name)
        assert isinstance(frame, pd.DataFrame) and not callable(frame)
        assert type(frame.head()) is pd.DataFrame  # what pandas makes of it
        assert type(pickle.loads(pickle.dumps(frame))) is type(frame)
        with pytest.raises(TypeError, match='a property, without parentheses'):
            frame()


@pytest.mark.parametrize(
    'call, message',
    [
        (lambda learn: learn.acquire(1, by='entropi'), "Did you mean 'entropy'"),
        (lambda learn: learn.acquire(1, by='Bald'), "Did you mean 'bald'"),
        (lambda learn: learn.acquire(1, by='entropy', reduce='maximun'), "Did you mean 'maximum'"),
        (lambda learn: Pool.from_df(pd.DataFrame(dict(file=['a'])), 'fiel'), "Did you mean 'file'"),
        (lambda learn: learn.pool.label(['100'], [11]), 'To train on a new class'),
        (lambda learn: learn.pool.label(['item 100'], [1]), r'The pool knows no .item 100.'),
        (lambda learn: learn.triage(0.5, outliers='mahalanobi'), "Did you mean 'mahalanobis'"),
    ],
)
def test_names_that_are_unknown_get_the_nearest_one(learn, call, message):
    with pytest.raises((ValueError, KeyError), match=message):
        call(learn)


def test_a_class_that_is_misspelt():
    pool = Pool(['a', 'b'])
    pool.set_vocab(['cat', 'dog'])
    with pytest.raises(ValueError, match=r"'Cta'.*Did you mean 'cat'\? To train on a new class"):
        pool.label('a', 'Cta')


# In a notebook


def shown(value):
    "What a notebook shows of a value: type -> text"
    return InteractiveShell.instance().display_formatter.format(value)[0]


def test_plots_are_quiet_and_give_what_they_drew(triage):
    interp, ax = interpretation(), plt.subplots()[1]
    plots = [
        interp.plot_regions,
        interp.plot_risk_coverage,
        interp.plot_reliability,
        Comparison(None, dict(one=interp), 'total').plot,
        campaigns().plot,
        triage.plot,
        forecast([10, 20, 40, 80, 160], [0.5, 0.4, 0.3, 0.25, 0.2], 0.1, metric='error_rate').plot,
    ]
    for plot in plots:
        found = plot()
        assert isinstance(found, plt.Axes) and shown(found) == {}, plot
        assert plot(ax=ax) is ax
    plt.close('all')


def test_a_figure_is_shown_once(monkeypatch):
    shows = []
    monkeypatch.setattr('IPython.display.display', shows.append)
    figure = quiet(plt.figure())
    assert shown(figure) == {} and not shows  # another backend has a window
    monkeypatch.setattr('matplotlib.get_backend', lambda: 'inline')
    for times in (1, 2):
        assert shown(figure) == {} and len(shows) == times
        assert figure.number not in plt.get_fignums()  # what a notebook shows after the cell
    assert pickle.loads(pickle.dumps(figure)) is not figure


def test_results_show_themselves_and_run_nothing(learn, triage, tmp_path):
    learn.model.eval()
    prediction = learn.predict_proba()
    prediction.predictions[0] = HOSTILE
    table = pd.DataFrame({HOSTILE: [0.5]}, index=pd.Index([HOSTILE], name='posterior'))
    triage = pickle.loads(pickle.dumps(triage))
    triage.assumptions.append(HOSTILE)
    for value in (
        prediction,
        campaigns(HOSTILE),
        Comparison(table, {}, 'total'),
        DisplayedText(HOSTILE),
        WrittenFile(tmp_path / 'a<script>.html'),
        triage,
        triage.report(),
    ):
        html = shown(value)['text/html']
        assert '<script>' not in html and '&lt;script&gt;' in html, value


def test_conclusions_are_texts_without_quotes(triage):
    said = interpretation().summary()
    assert isinstance(said, str) and shown(said)['text/plain'] == said
    assert shown(said)['text/html'].startswith('<p>')
    report = triage.report()
    assert shown(report)['text/html'].count('<p>') == len(report.splitlines())
    assert pickle.loads(pickle.dumps(said)) == said


def test_a_report_is_a_link(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = campaigns().report('out of 100%.html')
    assert isinstance(file, Path) and file.is_file() and file == Path('out of 100%.html')
    assert 'href="out%20of%20100%25.html"' in shown(file)['text/html']
    assert 'href="out.html"' in WrittenFile(tmp_path / 'out.html')._repr_html_()
    assert type(pickle.loads(pickle.dumps(file))) is WrittenFile


def test_campaigns_are_shown_with_their_verdict():
    html = shown(campaigns())['text/html']
    assert 'bald does not differ' in html and '<table' in html
    assert repr(campaigns()) == 'Campaigns of bald, random: 3 seeds, 20 to 40 labels'
    unknown = Campaigns(campaigns().rounds.rename(columns=dict(accuracy='my_number')), {}, {})
    assert 'higher_is_better' in shown(unknown)['text/html']  # an error would hide the result


def test_predictions_as_a_frame():
    learn = classes_learner(cbs=MCDropout(k=4))
    with learn.no_bar():
        found = learn.predict_proba()
    df = found.to_df()
    assert df.index.tolist() == [str(i) for i in learn.dls.valid_ds.items]
    names = ['p(0)', 'p(1)', 'p(2)']
    np.testing.assert_allclose(df[names].to_numpy(), found.probs.numpy())
    assert df.prediction.tolist() == found.probs.argmax(1).tolist()
    np.testing.assert_allclose(df.total, df.aleatoric + df.epistemic, atol=1e-6)
    alone = Prediction(found.probs, found.total, found.aleatoric, found.epistemic).to_df()
    assert alone.index.tolist() == list(range(len(df))) and 'p(0)' in alone
    again = pickle.loads(pickle.dumps(found))
    pd.testing.assert_frame_equal(again.to_df(), df)
    masks = torch.rand(2, 3, 4, 5).softmax(-1)
    pixels = Prediction(masks, *[masks[..., 0]] * 3).to_df()
    assert pixels.total.tolist() == pytest.approx(masks[..., 0].mean((1, 2)).tolist())
    assert pixels.prediction.isna().all()


# Pickles


def test_results_can_be_pickled(triage):
    again = pickle.loads(pickle.dumps(triage))
    assert isinstance(again, Triage) and again.counts() == triage.counts()
    pd.testing.assert_frame_equal(again.to_df(), triage.to_df())
    assert again.report() == triage.report() and again.key == triage.key
    assert len(again.plot().patches) and triage.learn is not None
    with pytest.raises(ValueError, match='because this triage was pickled'):
        again.show('annotate')
    one = campaigns()
    other = pickle.loads(pickle.dumps(one))
    assert other.verdict() == one.verdict()
    found = forecast([10, 20, 40, 80, 160], [0.5, 0.4, 0.3, 0.25, 0.2], 0.1, metric='error_rate')
    assert str(pickle.loads(pickle.dumps(found))) == str(found)


# Many classes, few items


@pytest.mark.parametrize('n, bins', [(20, 1), (120, 4), (10_000, 15)])
def test_a_reliability_diagram_has_intervals(n, bins):
    interp = interpretation(n)
    ax = interp.plot_reliability()
    (line,) = [one for one in ax.lines if one.get_marker() != 'None']
    assert len(line.get_xdata()) == bins and line.get_linestyle() == 'None'
    (intervals,) = ax.collections
    assert len(intervals.get_segments()) == bins
    predicted, true, sizes = reliability_bins(*interp.confidences['current'], bins)
    from scipy.stats import binomtest

    for segment, x, y, size in zip(intervals.get_segments(), predicted, true, sizes):
        ci = binomtest(round(y * size), int(size)).proportion_ci(0.95)
        assert segment[:, 0].tolist() == [x, x]
        assert segment[:, 1].tolist() == pytest.approx([ci.low, ci.high])
        assert ax.get_ylim()[0] <= ci.low
    assert len(interp.plot_reliability(bins=7).lines[1].get_xdata()) == 7
    plt.close('all')


@pytest.fixture(scope='module')
def thousand():
    classes = [f'class {i:03}' for i in range(1000)]
    pool = Pool(range(80))
    pool.label([str(i) for i in range(20)], [classes[i] for i in range(20)])
    held = pool.draw_holdout(20)
    pool.label(held, [classes[int(u)] for u in held])
    block = DataBlock((TransformBlock, CategoryBlock(vocab=classes)), get_x=XOf())
    learner = Learner(
        pool.dataloaders(block, bs=8, num_workers=0),
        mlp(1000),
        CrossEntropyLossFlat(),
        cbs=MCDropout(k=3),
    )
    learner.remove_cbs([cb for cb in learner.cbs if cb.name == 'progress'])
    return ActiveLearner(learner, pool)


@pytest.mark.parametrize('by', ['auto', 'bald', 'badge', 'class_stratified'])
def test_a_thousand_classes_in_a_query(thousand, by):
    from fastai_al.acquisition.stratified import class_stratified

    rule = class_stratified() if by == 'class_stratified' else by
    query = thousand.acquire(3, by=rule, round=thousand.pool.round)
    assert len(query) == 3 and 'margin' in query.columns['why'][0]
    assert len(query._repr_html_()) < 20_000


def test_a_thousand_classes_in_labels_errors_and_figures(thousand):
    with pytest.raises(ValueError, match=r"Did you mean 'class \d42'|'class 42\d'") as error:
        thousand.pool.label('30', 'clas 42')
    assert len(str(error.value)) < 800
    assert len(shown(thousand.predict_proba())['text/html']) < 40_000
    interp = UncertaintyInterpretation.from_learner(thousand.learn)
    assert interp.summary() and len(repr(interp)) < 1000
    for ax in (interp.plot_regions(), interp.plot_risk_coverage(), interp.plot_reliability()):
        ax.figure.canvas.draw()
        assert len(ax.figure.axes) == 1 and len(ax.get_legend().get_texts()) < 10
    plt.close('all')


def test_a_thousand_thresholds_in_a_figure(triage):
    (one,) = triage.certificates.values()
    rng = np.random.default_rng(0)
    many = {f'class {i}': replace(one, threshold=rng.uniform(0.2, 1)) for i in range(1000)}
    few = replace(triage, certificates=dict(list(many.items())[:5])).plot()
    assert len(few.texts) == 5
    ax = replace(triage, certificates=many).plot()
    assert not ax.texts and len(ax.get_legend().get_texts()) == 4
    plt.close('all')
