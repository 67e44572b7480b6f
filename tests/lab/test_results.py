"Conclusions follow from the numbers of campaigns, and claim nothing that is not significant"

import math
import pickle
import re

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy.integrate import trapezoid

from fastai_al.lab.compare import holm, paired_permutation
from fastai_al.lab.curves import labels_to_reach
from fastai_al.lab.results import Campaigns

matplotlib.use('Agg')


def made_up(curves, metric='accuracy', first=20, step=10, **kwargs):
    "Campaigns from strategy -> a list of curves, one a seed"
    rows = [
        dict(
            by=by,
            seed=s,
            round=r,
            labelled=first + step * r,
            valid_loss=1.0,
            **{metric: v},
            fit_seconds=1.0,
            acquire_seconds=1.0,
        )
        for by, seeds in curves.items()
        for s, values in enumerate(seeds)
        for r, v in enumerate(values)
    ]
    return Campaigns(pd.DataFrame(rows), {}, {}, **kwargs)


def drawn(rng, rules: int, seeds: int, rounds: int = 8, gain: float = 0.0):
    """Curves that share the luck of their seed, and waver slowly on their own, `[strategies, seeds,
    rounds]`; the first strategy is better by `gain`"""
    luck, noise = rng.normal(0, 0.05, (1, seeds, 1)), rng.normal(0, 0.01, (rules, seeds, rounds))
    for r in range(1, rounds):
        noise[..., r] += 0.9 * noise[..., r - 1]
    return (
        0.9
        - 0.4 * np.exp(-0.4 * np.arange(rounds))
        + luck
        + noise
        + gain * (np.arange(rules) == 0)[:, None, None]
    )


def named(values):
    return {
        name: curves.tolist()
        for name, curves in zip([*(f'rule{i}' for i in range(len(values) - 1)), 'random'], values)
    }


# Who is called better


@pytest.mark.parametrize('seeds', [5, 6, 10])
@pytest.mark.parametrize('rules', [2, 3, 5])
def test_useless_strategies_are_not_called_better_or_worse(seeds, rules):
    rng, alarms = np.random.default_rng(seeds * 10 + rules), []
    for _ in range(500):
        areas = drawn(rng, rules, seeds).mean(2)
        alarms.append(min(holm([paired_permutation(a - areas[-1]) for a in areas[:-1]])) <= 0.05)
    assert np.mean(alarms) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 500)
    if seeds == 5:
        assert not any(alarms)  # five can show nothing


def test_nor_by_the_words_and_the_table():
    rng, campaigns, alarms, looked = (
        np.random.default_rng(0),
        made_up(named(drawn(np.random.default_rng(0), 4, 10))),
        0,
        0,
    )
    for i in range(500):
        values = drawn(rng, 4, 10)
        areas = trapezoid(values) / 7
        alarm = min(holm([paired_permutation(a - areas[-1]) for a in areas[:-1]])) <= 0.05
        alarms += alarm
        if (
            i < 6 or alarm and looked < 6
        ):  # words and table are slower: look at some, and at those that matter
            looked += alarm
            campaigns.rounds['accuracy'] = values.ravel()
            words = ' '.join(campaigns.verdict())
            assert (
                alarm
                == ('better than' in words or 'worse than' in words)
                == (campaigns.summary()['p'].min() <= 0.05)
            )
            assert campaigns.best() == 'random' or alarm
    assert looked and 0.01 < alarms / 500 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 500)


def test_what_is_better_is_found():
    rng, found, campaigns = (
        np.random.default_rng(1),
        0,
        made_up(named(drawn(np.random.default_rng(0), 3, 10))),
    )
    for _ in range(25):
        campaigns.rounds['accuracy'] = drawn(
            rng, 3, 10, gain=0.04
        ).ravel()  # less than the luck of a seed
        found += campaigns.best() == 'rule0'
    assert found >= 22
    for gain, how in ((0.1, 'better'), (-0.1, 'worse')):
        campaigns.rounds['accuracy'] = drawn(rng, 3, 10, gain=gain).ravel()
        assert campaigns.verdict()[0].startswith(f'rule0 did {how} than random') and (
            campaigns.best() == 'rule0'
        ) == (gain > 0)


def test_few_seeds_prove_nothing_however_large_the_difference():
    for seeds, rules in ((1, 2), (2, 2), (5, 2), (6, 3), (7, 5)):
        campaigns = made_up(
            {f'r{i}': [[0.5, 0.9, 0.95]] * seeds for i in range(rules - 1)}
            | {'random': [[0.5, 0.6, 0.7]] * seeds}
        )
        said = ' '.join(campaigns.verdict())
        assert (
            'better than' not in said
            and 'not significant' in said
            and 'too few for a significant result' in said
            and campaigns.best() == 'random'
        )
        needed = int(re.search(r'at least (\d+) seeds', said)[1])
        enough = made_up(
            {
                f'r{i}': [[0.5, 0.9, 0.95]] * needed if not i else [[0.5, 0.6, 0.7]] * needed
                for i in range(rules - 1)
            }
            | {'random': [[0.5, 0.6, 0.7]] * needed}
        )
        assert (
            'r0 did better than random' in enough.verdict()[0]
            and 'too few' not in ' '.join(enough.verdict()[:2])
            and enough.best() == 'r0'
        )


# Curves and areas


def test_areas_by_hand():
    rows = [
        ('a', 0, 0, 10, 0.2),
        ('a', 0, 1, 20, 0.4),
        ('a', 0, 2, 40, 0.8),
        ('a', 1, 0, 10, 0.5),
        ('a', 1, 1, 30, 0.7),
        ('random', 0, 0, 15, 0.3),
        ('random', 0, 1, 35, 0.5),
        ('random', 1, 0, 10, 0.1),
        ('random', 1, 1, 30, 0.5),
    ]
    campaigns = Campaigns(
        pd.DataFrame(rows, columns=['by', 'seed', 'round', 'labelled', 'f1']), {}, {}
    )
    assert campaigns.metric == 'f1'  # from 15 to 30 labels: the range that all have
    expected = [[((0.3 + 0.4) / 2 * 5 + (0.4 + 0.6) / 2 * 10) / 15, 0.625], [0.375, 0.35]]
    np.testing.assert_allclose(campaigns.areas(), expected)
    table = campaigns.summary()
    assert table.loc['a', 'gain'] == pytest.approx(np.mean(np.subtract(*expected))) and table.loc[
        'a', 'final f1'
    ] == pytest.approx(0.75)
    assert 'from 15 to 30 labels' in campaigns.verdict()[0] and 'fit seconds' not in table
    pd.testing.assert_frame_equal(
        campaigns.curve('a'),
        pd.DataFrame(
            {0: [0.2, 0.4, 0.6, 0.8], 1: [0.5, 0.6, 0.7, np.nan]},
            index=pd.Index([10, 20, 30, 40], name='labelled'),
        ).rename_axis(columns='seed'),
    )
    with pytest.raises(KeyError, match="'bald'.*'random'"):
        campaigns.curve('bald')


def test_rounds_of_as_many_labels_count_once_and_their_order_not_at_all():
    campaigns = made_up({'bald': [[0.5, 0.6, 0.7]], 'random': [[0.5, 0.6, 0.7]]})
    again = campaigns.rounds.query('by == "bald" and round == 2').assign(round=3, accuracy=0.9)
    more = Campaigns(pd.concat([campaigns.rounds, again]).sample(frac=1, random_state=0), {}, {})
    assert (
        more.curve('bald')[0].tolist() == [0.5, 0.6, 0.9]
        and more.summary().loc['bald', 'final accuracy'] == 0.9
    )
    assert more.areas().loc['bald', 0] == pytest.approx(0.65)


def test_campaigns_that_share_no_labels_or_a_single_count():
    rows = made_up({'bald': [[0.5, 0.6]], 'random': [[0.5, 0.6]]}).rounds
    apart = Campaigns(
        rows.assign(labelled=rows['labelled'] + 50 * (rows['by'] == 'random')), {}, {}
    )
    assert (
        apart.areas().isna().all(axis=None)
        and 'can not be compared' in apart.verdict()[0]
        and 'share no number of labels' in apart.verdict()[-1]
    )
    touching = Campaigns(
        rows.assign(labelled=rows['labelled'] + 10 * (rows['by'] == 'random')), {}, {}
    )
    np.testing.assert_allclose(touching.areas(), [[0.6], [0.5]])
    assert 'at 30 labels' in touching.verdict()[0]
    assert touching.plot() is not None and apart.plot() is not None
    plt.close('all')


def test_numbers_that_are_missing_are_left_out_and_reported():
    for bad in (np.nan, np.inf):
        curves = {
            'bald': [[0.5, 0.7, 0.9]] * 7 + [[0.5, bad, 0.9]],
            'random': [[0.5, 0.6, 0.7]] * 8,
        }
        campaigns = made_up(curves)
        table, said = campaigns.summary(), campaigns.verdict()
        assert (
            table['seeds'].to_dict() == {'bald': 7, 'random': 8}
            and table.loc['bald', 'gain'] == pytest.approx(0.1)
            and table.loc['bald', 'p'] == 2 / 2**7
        )
        assert (
            'ahead in 7 of 7 seeds' in said[0]
            and '1 of 8 seeds of bald' in said[-1]
            and 'nan' not in ' '.join(said)
        )
        campaigns.plot(), campaigns.penalties(), campaigns.table()
    nothing = made_up({'bald': [[np.nan] * 3] * 3, 'random': [[0.5, 0.6, 0.7]] * 3})
    assert (
        'can not be compared' in nothing.verdict()[0]
        and nothing.best() == 'random'
        and nothing.summary().loc['bald', 'reached'] == 0
    )
    empty = made_up({'bald': [[np.nan] * 3] * 3, 'random': [[np.nan] * 3] * 3})
    assert (
        math.isnan(empty.target())
        and 'can not be compared' in empty.verdict()[0]
        and 'nan' not in ' '.join(empty.verdict())
    )
    assert empty.table().loc['bald', 'mean accuracy'] == '–'
    plt.close('all')


def test_one_strategy_or_no_random_arm_is_compared_with_nothing():
    for curves in (
        {'bald': [[0.5, 0.9]]},
        {'bald': [[0.5, 0.9]] * 9, 'margin': [[0.5, 0.6]] * 9},
        {'random': [[0.5, 0.9]] * 3},
    ):
        campaigns = made_up(curves)
        said = campaigns.verdict()
        assert (
            len(said) == 1
            and 'nothing to compare with' in said[0]
            and '0.900' in said[0]
            and campaigns.best() == 'random'
        )
        assert not {'p', 'gain', 'labels saved'} & set(campaigns.summary()) and len(
            campaigns.table()
        ) == len(curves)
    assert (
        made_up({'bald': [[0.5, 0.9]] * 9, 'margin': [[0.5, 0.6]] * 9})
        .penalties()
        .loc['bald', 'margin']
        == 0.5
    )


@pytest.mark.parametrize(
    'name', ['valid_loss', 'error_rate', 'my_loss', 'brier', 'RMSE', 'top5_error']
)
def test_a_falling_metric_is_better_when_lower(name):
    campaigns = made_up(
        {'bald': [[0.5, 0.3, 0.1]] * 6, 'random': [[0.5, 0.4, 0.3]] * 6},
        metric='other' if name == 'valid_loss' else name,
    )
    if name == 'valid_loss':
        campaigns.rounds['valid_loss'], campaigns.metric = campaigns.rounds['other'], 'valid_loss'
    assert campaigns.metric == name and not campaigns.higher_is_better and campaigns.target() == 0.3
    table = campaigns.summary()
    assert table['labels to target'].to_dict() == {'bald': 30, 'random': 40} and table.loc[
        'bald', 'gain'
    ] == pytest.approx(0.1)
    assert (
        'better than' in campaigns.verdict()[0]
        and campaigns.best() == 'bald'
        and campaigns.penalties().loc['bald', 'random'] == pytest.approx(2 / 3)
    )


def test_a_metric_without_a_known_direction_is_an_error():
    campaigns = made_up(
        {'bald': [[0.5, 0.3, 0.1]] * 6, 'random': [[0.5, 0.4, 0.3]] * 6}, metric='foo'
    )
    for look in (
        campaigns.verdict,
        campaigns.summary,
        campaigns.best,
        campaigns.plot,
        campaigns.penalties,
        campaigns.target,
    ):
        with pytest.raises(
            ValueError, match='Is a higher foo better.*set campaigns.higher_is_better'
        ):
            look()
    plt.close('all')
    for up, best in ((False, 'bald'), (True, 'random')):
        campaigns.higher_is_better = up
        assert (
            campaigns.higher_is_better is up
            and campaigns.best() == best
            and f'{"worse" if up else "better"} than' in campaigns.verdict()[0]
        )
    campaigns.metric = 'valid_loss'
    assert not campaigns.higher_is_better  # what holds for `foo` does not hold for another
    campaigns.metric = 'foo'
    assert campaigns.higher_is_better and pickle.loads(pickle.dumps(campaigns)).higher_is_better


def test_the_metric_is_the_first_measured_and_can_be_set():
    rounds = made_up({'bald': [[0.5, 0.9]], 'random': [[0.5, 0.7]]}).rounds.assign(
        cost=1.0, information=2.0, max_information=3.0, stopped=None
    )
    assert (
        Campaigns(rounds, {}, {}).metric == 'accuracy'
        and Campaigns(rounds.drop(columns='accuracy'), {}, {}).metric == 'valid_loss'
    )
    measured = rounds.assign(test_f1=0.1)[
        ['by', 'seed', 'round', 'labelled', 'valid_loss', 'test_f1', 'accuracy', 'fit_seconds']
    ]
    assert (
        Campaigns(measured, {}, {}).metric == 'test_f1'
        and 'mean accuracy' in Campaigns(measured, {}, {}, metric='accuracy').summary()
    )
    with pytest.raises(KeyError, match="'bold'.*accuracy"):
        Campaigns(measured, {}, {}, metric='bold').summary()
    for bad in (rounds.drop(columns='seed'), rounds[:0]):
        with pytest.raises(ValueError, match='one row for each strategy, seed and round'):
            Campaigns(bad, {}, {})
    assert Campaigns(rounds, {}, {}).settings == {} and Campaigns(
        rounds, {}, {}, dict(n=3)
    ).settings == dict(n=3)


# Labels


def test_labels_saved_by_hand():
    campaigns = made_up({'bald': [[0.5, 0.7, 0.9]], 'random': [[0.5, 0.6, 0.7]]})
    assert campaigns.target() == 0.7
    table = campaigns.summary()
    assert (
        table['labels to target'].to_dict() == {'bald': 30, 'random': 40}
        and table.loc['bald', 'labels saved'] == 10
    )
    assert '10 labels saved (25%)' in ' '.join(campaigns.verdict())
    worse = made_up({'bald': [[0.5, 0.6, 0.7]], 'random': [[0.5, 0.7, 0.9]]})
    assert 'none saved, 10 more' in ' '.join(worse.verdict())


def test_campaigns_that_do_not_get_there():
    campaigns = made_up(
        {
            'bald': [[0.5, 0.7, 0.9], [0.5, 0.7, 0.9], [0.5, 0.6, 0.7]],
            'random': [[0.5, 0.6, 0.7], [0.5, 0.8, 0.9], [0.5, 0.6, 0.7]],
        }
    )
    table = campaigns.summary(target=0.8)
    assert table['reached'].to_dict() == {'bald': 2, 'random': 1} and table[
        'labels to target'
    ].to_dict() == {'bald': 35, 'random': math.inf}
    assert table.loc['random', 'labels to target low'] == 30 and math.isinf(
        table.loc['bald', 'labels to target high']
    )
    assert table.loc[
        'bald', ['labels saved', 'labels saved low', 'labels saved high']
    ].tolist() == [0, -5, 5]  # 40-35, 30-35 and neither
    shown, said = campaigns.table(0.8), ' '.join(campaigns.verdict(0.8))
    assert (
        shown.loc['random', 'labels to target'] == 'not reached (30 to ∞)'
        and shown['reached'].tolist() == ['2 of 3', '1 of 3']
        and shown.loc['bald', 'labels saved'] == '0 (-5 to 5)'
    )
    assert (
        'random did not reach it in half of its campaigns or more' in said
        and 'none saved, -5 to 5' in said
    )
    assert (
        'Neither bald nor random reached accuracy 0.990' in ' '.join(campaigns.verdict(0.99))
        and campaigns.summary(0.99)['reached'].sum() == 0
    )
    assert campaigns.table(0.99).loc['bald', 'labels to target'] == 'not reached'


def test_what_is_saved_is_at_least_what_random_had_left():
    campaigns = made_up({'bald': [[0.5, 0.9, 0.9]] * 6, 'random': [[0.5, 0.6, 0.7]] * 6})
    assert campaigns.summary(0.8).loc[
        'bald', 'labels saved'
    ] == 40 - 27.5 and 'at least 12 labels saved' in ' '.join(campaigns.verdict(0.8))
    short = campaigns.rounds[(campaigns.rounds['by'] == 'bald') | (campaigns.rounds['round'] < 2)]
    assert (
        Campaigns(short, {}, {}).summary(0.8).loc['bald', 'labels saved'] == 30 - 27.5
    )  # random stopped at 30


def test_the_target_is_one_that_most_campaigns_reach():
    rng = np.random.default_rng(0)
    for seeds in (1, 2, 3, 4, 5, 10):
        campaigns = made_up(named(drawn(rng, 3, seeds)))
        table = campaigns.summary()
        assert (table['reached'] >= 0.75 * seeds).all() and np.isfinite(
            table['labels to target']
        ).all()
        campaigns.rounds['accuracy'] *= -1
        campaigns.rounds = campaigns.rounds.rename(columns=dict(accuracy='my_loss'))
        campaigns.metric = 'my_loss'
        pd.testing.assert_series_equal(
            campaigns.summary()['labels to target'], table['labels to target']
        )


def test_cost_to_the_target():
    campaigns = made_up({'bald': [[0.5, 0.7, 0.9]] * 3, 'random': [[0.5, 0.6, 0.7]] * 3})
    campaigns.rounds['cost'] = campaigns.rounds['labelled'] * 2.0 + 5
    assert campaigns.summary()['cost to target'].to_dict() == {
        'bald': 65,
        'random': 85,
    } and campaigns.summary(0.9)['cost to target'].to_dict() == {'bald': 85, 'random': math.inf}


@pytest.mark.parametrize(
    'target, labels',
    [(0.4, 20), (0.5, 20), (0.65, 35), (0.8, 60), (0.81, math.inf), (math.nan, math.inf)],
)
def test_labels_to_reach(target, labels):
    curve = pd.Series([0.5, 0.6, 0.7, 0.8], index=[20, 30, 40, 60])
    assert labels_to_reach(curve, target) == pytest.approx(labels)
    assert labels_to_reach(-curve, -target, higher_is_better=False) == pytest.approx(labels)


def test_labels_to_reach_across_holes():
    curve = pd.Series([np.nan, 0.5, np.nan, 0.9, 0.4], index=[10, 20, 30, 40, 50])
    assert (
        labels_to_reach(curve, 0.5) == 20
        and labels_to_reach(curve, 0.8) == 40
        and labels_to_reach(curve, 0.95) == math.inf
        and labels_to_reach(curve[:0], 0.5) == math.inf
    )


# The table, the penalties, the picture


def test_what_is_shown_is_what_is_so():
    campaigns = made_up(named(drawn(np.random.default_rng(4), 3, 9, gain=0.1)))
    table, shown = campaigns.summary(), campaigns.table()
    assert (
        list(shown.index) == list(table.index)
        and not any(c.endswith((' low', ' high')) for c in shown)
        and shown.loc['random', 'p'] == '–'
    )
    first = [float(v) for v in re.findall(r'[\d.]+', shown.loc['rule0', 'mean accuracy'])]
    np.testing.assert_allclose(
        first,
        table.loc['rule0', ['mean accuracy', 'mean accuracy low', 'mean accuracy high']].astype(
            float
        ),
        atol=6e-4,
    )
    assert (
        f'{table.loc["rule0", "gain"]:.3f}' == shown.loc['rule0', 'gain']
        and shown.loc['rule0', 'gain'] in campaigns.verdict()[0]
    )
    assert (
        float(shown.loc['rule0', 'p']) >= table.loc['rule0', 'p']
    )  # rounded up: what is above .05 is not shown as .05
    tiny = made_up({'bald': [[0.0005, 0.0003]] * 2, 'random': [[0.0005, 0.0004]] * 2}, metric='mse')
    assert '0.000400 against 0.000450' in tiny.verdict()[0]
    equal = made_up({'bald': [[0.5, 0.6]] * 9, 'random': [[0.5, 0.6]] * 9})
    assert (
        'no difference' in equal.verdict()[0]
        and 'none saved' in equal.verdict()[1]
        and equal.summary().loc['bald', 'p'] == 1
    )


def test_penalties_of_campaigns():
    values = drawn(np.random.default_rng(0), 3, 8, gain=0.1)
    campaigns = made_up(named(values))
    frame = campaigns.penalties()
    assert (
        list(frame.columns) == campaigns.strategies
        and list(frame.index) == [*campaigns.strategies, 'mean']
        and frame.loc['rule0', 'random'] == 1
        and frame.loc['random', 'rule0'] == 0
    )
    np.testing.assert_allclose(frame.loc['mean'], frame.iloc[:-1].mean())
    flipped = made_up(
        dict(reversed(list(named(values).items())))
    )  # the same strategies in another order
    np.testing.assert_allclose(campaigns.penalties(flipped), 2 * frame)
    with pytest.raises(ValueError, match='same strategies'):
        campaigns.penalties(made_up({'bald': [[0.5, 0.6]] * 3, 'random': [[0.5, 0.6]] * 3}))
    with pytest.raises(ValueError, match='two seeds or more'):
        made_up({'bald': [[0.5, 0.6]], 'random': [[0.5, 0.6]]}).penalties()


@pytest.mark.parametrize('seeds, bands, lines', [(3, 0, 8), (6, 2, 2)])
def test_the_picture(seeds, bands, lines):
    ax = made_up(named(drawn(np.random.default_rng(0), 2, seeds))).plot()
    assert len(ax.collections) == bands and len(ax.lines) == lines + 1  # and the target
    ax.figure.canvas.draw()
    plt.close('all')


def test_names_are_drawn_as_they_are():
    ax = made_up({r'$\frac{x$': [[0.5, 0.6]], 'random': [[0.5, 0.6]]}).plot()
    ax.figure.canvas.draw()
    assert ax.get_legend().get_texts()[0].get_text() == r'$\frac{x$'
    plt.close('all')


def test_looking_changes_nothing():
    campaigns = made_up(named(drawn(np.random.default_rng(0), 3, 4)))
    before, state = campaigns.rounds.copy(), np.random.get_state()[1].copy()
    (
        campaigns.summary(),
        campaigns.table(),
        campaigns.verdict(),
        campaigns.penalties(),
        campaigns.best(),
        campaigns.plot(),
    )
    pd.testing.assert_frame_equal(campaigns.rounds, before)
    assert (np.random.get_state()[1] == state).all()
    plt.close('all')


def test_a_strategy_whose_name_begins_with_an_underscore_is_in_the_legend():
    legend = made_up({'_own': [[0.5, 0.6]], 'random': [[0.5, 0.7]]}).plot().get_legend()
    assert [t.get_text().strip() for t in legend.get_texts()] == ['_own', 'random']
    plt.close('all')


def test_a_forecast_uses_the_curve_of_the_strategy():
    law = lambda n: 0.95 - 3 * n**-0.6
    curve = [law(20 + 10 * r) for r in range(8)]
    campaigns = made_up({'bald': [curve] * 2, 'random': [[0.5] * 8] * 2})
    found = campaigns.forecast('bald', 0.85)
    assert (
        found.labels == pytest.approx((3 / 0.1) ** (1 / 0.6), rel=0.1)
        and found.interval[0] <= found.labels <= found.interval[1]
    )
    assert campaigns.forecast('random', 0.85).labels == math.inf
