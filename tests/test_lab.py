"Simulated campaigns, their verdict and their report"
import math

import numpy as np
import pandas as pd
import pytest
from conftest import class_of, pool_learner

from fastai_al import __main__ as cli
from fastai_al.campaigns import Campaigns, labels_to_reach
from fastai_al.lab import SkipValidation, simulate
from fastai_al.pool import Pool
from fastai_al.report import asked_first, write_report


def truth(n=60): return Pool(range(n), [class_of(i) for i in range(n)])


def play(**kwargs):
    kwargs = dict(by=['bald', 'random'], n=4, rounds=2, seeds=2, initial=12, hold_out=12, fit=lambda learn: learn.fit(2, cbs=SkipValidation())) | kwargs
    return simulate(pool_learner, truth(), **kwargs)


@pytest.fixture(scope='module')
def campaigns(): return play()


def test_rules_start_from_the_same_place_and_part(campaigns):
    rows = campaigns.rounds
    assert len(rows) == 2 * 2 * 3 and list(rows['labelled'].unique()) == [12, 16, 20]
    first = rows.query('round == 0').pivot(index='seed', columns='by', values='valid_loss')
    assert (first['bald'] == first['random']).all() and first['bald'].nunique() == 2
    for seed in range(2):
        a, b = campaigns.pools['bald', seed], campaigns.pools['random', seed]
        assert set(a.holdout.index) == set(b.holdout.index) and set(a.labelled.index) != set(b.labelled.index)


def test_the_same_call_gives_the_same_campaigns(campaigns):
    again = play()
    untimed = [c for c in campaigns.rounds if 'seconds' not in c]
    pd.testing.assert_frame_equal(again.rounds[untimed], campaigns.rounds[untimed])


def test_only_labels_that_were_asked_for_are_known(campaigns):
    for pool in campaigns.pools.values():
        assert pool.counts() == dict(labelled=20, unlabelled=28, pseudo=0, ignored=0, holdout=12, test=0)
        assert all(y == class_of(u) for u, y in pool.labelled['label'].items())


def made_up(curves):
    rows = [dict(by=by, seed=s, round=r, labelled=20 + 10*r, valid_loss=1., accuracy=v, fit_seconds=1., acquire_seconds=1.)
            for by, seeds in curves.items() for s, values in enumerate(seeds) for r, v in enumerate(values)]
    return Campaigns(pd.DataFrame(rows), {}, {})


@pytest.mark.parametrize('bald, says', [([.5, .9, .95], 'better than'), ([.4, .5, .6], 'worse than')])
def test_the_verdict_is_what_the_numbers_say(bald, says):
    said = ' '.join(made_up({'bald': [bald, bald], 'random': [[.5, .6, .7]] * 2}).verdict())
    assert says in said and 'proves nothing' in said
    mixed = ' '.join(made_up({'bald': [[.5, .9], [.5, .5]], 'random': [[.5, .7]] * 2}).verdict())
    assert 'about as well as' in mixed


def test_a_falling_metric_is_better_when_lower():
    campaigns = made_up({'bald': [[.5, .3, .1]] * 2, 'random': [[.5, .4, .3]] * 2})
    campaigns.rounds = campaigns.rounds.rename(columns=dict(accuracy='error_rate'))
    assert 'better than' in campaigns.verdict()[0] and campaigns.target() == .3
    assert campaigns.summary()['labels to target'].to_dict() == {'bald': 30, 'random': 40}


def test_labels_saved_by_hand():
    campaigns = made_up({'bald': [[.5, .7, .9]], 'random': [[.5, .6, .7]]})
    assert campaigns.target() == .7
    assert campaigns.summary()['labels to target'].to_dict() == {'bald': 30, 'random': 40}
    assert '10 labels saved (25%)' in ' '.join(campaigns.verdict())


@pytest.mark.parametrize('target, labels', [(.4, 20), (.5, 20), (.65, 35), (.8, 60), (.81, math.inf)])
def test_labels_to_reach(target, labels):
    curve = pd.Series([.5, .6, .7, .8], index=[20, 30, 40, 60])
    assert labels_to_reach(curve, target) == pytest.approx(labels)
    assert labels_to_reach(-curve, -target, rising=False) == pytest.approx(labels)


@pytest.mark.parametrize('kwargs, error, says', [
    (dict(by=['bold']), ValueError, 'no acquisition'), (dict(rounds=50), ValueError, 'fewer rounds'), (dict(by=['bald', 'bald']), ValueError, 'one name')])
def test_what_can_not_be_played_is_refused(kwargs, error, says):
    with pytest.raises(error, match=says): play(**kwargs)


def test_hidden_answers_are_needed_and_ledgers_are_not_overwritten(tmp_path):
    pool = Pool(range(60), [*[class_of(i) for i in range(59)], None])
    with pytest.raises(ValueError, match='a label for every item'): simulate(pool_learner, pool, fit=lambda l: None)
    (tmp_path/'bald-0.db').touch()
    with pytest.raises(FileExistsError, match='another folder'): play(folder=tmp_path)


def test_the_report_is_one_page_that_runs_nothing(campaigns, tmp_path):
    evil = '<img src=x onerror=alert(1)>$x_1$'
    odd = Campaigns(campaigns.rounds.assign(by=campaigns.rounds['by'].replace('bald', evil)), {(evil if b == 'bald' else b, s): p for (b, s), p in campaigns.pools.items()},
                    {u: evil for u in campaigns.truth})
    page = write_report(odd, tmp_path/'r.html', how={evil: evil}).read_text()
    assert evil not in page and '&lt;img src=x' in page
    assert 'src="http' not in page and '<script' not in page and '<link' not in page
    assert 'data:image/png;base64' in page and 'In numbers' in page


def test_the_report_shows_what_was_asked_first(campaigns):
    asked = asked_first(campaigns, 'bald', 3)
    events = campaigns.pools['bald', 0].history.query("kind == 'acquire' and round == 1")
    assert list(asked.uid) == list(events.uid[:3]) and list(asked.label) == [class_of(u) for u in asked.uid]


# The command line

QUICK = ['--rounds', '1', '--seeds', '1', '--steps', '3']


def test_campaigns_on_images_of_ones_own(tmp_path, capsys):
    from PIL import Image
    for i in range(60):
        f = tmp_path/'images'/['cat', 'dog'][i % 2]/f'{i}.png'
        f.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.randint(0, 255, (20, 30, 3), dtype=np.uint8)).save(f)
    table = pd.DataFrame(dict(image=[f'{["cat", "dog"][i % 2]}/{i}.png' for i in range(60)], label=[['cat', 'dog'][i % 2] if i else None for i in range(60)]))
    table.to_csv(tmp_path/'images'/'table.csv', index=False)
    one = cli.main([*QUICK, '--data', str(tmp_path/'images'), '--size', '16', '--out', str(tmp_path/'out')])
    two = cli.main([*QUICK, '--data', str(tmp_path/'images'/'table.csv'), '--size', '16', '--by', 'margin,random', '--out', str(tmp_path/'out')])
    assert two.name == 'out-2' and (one/'report.html').is_file() and set(pd.read_csv(two/'curves.csv')['by']) == {'margin', 'random'}
    assert '1 of 60 images have no label' in capsys.readouterr().out
    assert len(Pool.open(one/'ledgers'/'bald-0.db').labelled) == 30


def test_help_names_what_can_be_set(capsys):
    with pytest.raises(SystemExit): cli.main(['--help'])
    said = capsys.readouterr().out
    for word in ('--data', '--by', '--rounds', '--seeds', '--out', 'bald'): assert word in said


def test_bad_arguments_leave_no_folder(tmp_path):
    with pytest.raises(ValueError, match='no acquisition'): cli.main([*QUICK, '--by', 'bold', '--out', str(tmp_path/'out')])
    with pytest.raises(FileNotFoundError, match='nowhere'): cli.main([*QUICK, '--data', str(tmp_path/'nowhere'), '--out', str(tmp_path/'out')])
    for bad in (['--rounds', '0'], ['--initial', '1'], ['--hold-out', '0'], ['--k', '1']):
        with pytest.raises(ValueError, match=bad[0]): cli.main([*QUICK, *bad, '--out', str(tmp_path/'out')])
    assert not list(tmp_path.iterdir())
