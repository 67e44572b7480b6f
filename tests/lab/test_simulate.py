"Simulated campaigns, their verdict and their report"

import os
import subprocess
import sys
import time
import tomllib
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.basics import CrossEntropyLossFlat, Learner, accuracy

import fastai_al.lab
from conftest import BLOCK, class_of, forked, mlp, pool_learner, small_pool
from fastai_al import FastaiALWarning
from fastai_al import __main__ as cli
from fastai_al.acquire.strategies import strategy_of
from fastai_al.acquisition.catalogue import catalogue
from fastai_al.active_learner import ActiveLearner
from fastai_al.lab.campaign import SkipValidation
from fastai_al.lab.results import Campaigns
from fastai_al.lab.simulate import simulate
from fastai_al.loop.stopping import Budget, StabilisingPredictions
from fastai_al.pool.ledger import Ledger
from fastai_al.pool.oracle import Oracle
from fastai_al.pool.pool import Pool

ROOT = Path(__file__).parents[2]


def truth(n=60):
    return Pool(range(n), [class_of(i) for i in range(n)])


def run(**kwargs):
    kwargs = (
        dict(
            by=['bald', 'random'],
            n=4,
            rounds=2,
            seeds=2,
            initial=12,
            holdout=12,
            fit=lambda learn: learn.fit(2, cbs=SkipValidation()),
        )
        | kwargs
    )
    return simulate(pool_learner, truth(), **kwargs)


@pytest.fixture(scope='module')
def campaigns():
    return run()


def test_strategies_start_from_the_same_place_and_part(campaigns):
    rows = campaigns.rounds
    assert len(rows) == 2 * 2 * 3 and list(rows['labelled'].unique()) == [12, 16, 20]
    first = rows.query('round == 0').pivot(index='seed', columns='by', values='valid_loss')
    assert (first['bald'] == first['random']).all() and first['bald'].nunique() == 2
    for seed in range(2):
        a, b = campaigns.pools['bald', seed], campaigns.pools['random', seed]
        assert set(a.holdout.index) == set(b.holdout.index) and set(a.labelled.index) != set(
            b.labelled.index
        )


def test_the_same_call_gives_the_same_campaigns(campaigns):
    again = run()
    untimed = [c for c in campaigns.rounds if 'seconds' not in c]
    pd.testing.assert_frame_equal(again.rounds[untimed], campaigns.rounds[untimed])


def test_only_queried_labels_are_known(campaigns):
    for pool in campaigns.pools.values():
        assert pool.counts() == dict(
            labelled=20, unlabelled=28, pseudo=0, ignored=0, holdout=12, test=0
        )
        assert all(y == class_of(u) for u, y in pool.labelled['label'].items())


@pytest.mark.parametrize(
    'kwargs, error, says',
    [
        (dict(by=['bold']), ValueError, 'no acquisition'),
        (dict(rounds=50), ValueError, 'fewer rounds'),
        (dict(by=['bald', 'bald']), ValueError, 'repeats a name'),
        (dict(seeds=0), ValueError, 'seeds'),
        (dict(seeds=[1, 1]), ValueError, 'different seeds'),
        (dict(jobs=0), ValueError, 'jobs=0'),
        (dict(by=[]), ValueError, 'repeats a name'),
    ],
)
def test_invalid_simulations_are_refused(kwargs, error, says):
    with pytest.raises(error, match=says):
        run(**kwargs)


def test_items_without_a_label_are_not_simulated():
    pool = Pool(range(60), [*[class_of(i) for i in range(40)], *[None] * 20])
    pool.label(pool.draw_holdout(8), [0] * 8)
    campaigns = simulate(
        pool_learner,
        pool,
        by='random',
        n=4,
        rounds=1,
        seeds=1,
        initial=8,
        holdout=8,
        fit=lambda learn: None,
    )
    assert len(campaigns.truth) == 48 and set(campaigns.truth) == set(pool.labelled.index) | set(
        pool.holdout.index
    )


# Going on where it stopped


def untimed(campaigns):
    return campaigns.rounds[[c for c in campaigns.rounds if 'seconds' not in c]]


def resume(folder=None, rounds=3, fit=lambda learn: learn.fit(1, cbs=SkipValidation()), **kwargs):
    return run(
        **dict(by=['bald', 'random'], seeds=[3], rounds=rounds, fit=fit, folder=folder) | kwargs
    )


def assert_same_campaigns(a, b):
    pd.testing.assert_frame_equal(untimed(a), untimed(b), check_exact=True)
    for key in b.pools:
        assert [(e.uid, e.kind, e.label, e.score) for e in a.pools[key].ledger.since()] == [
            (e.uid, e.kind, e.label, e.score) for e in b.pools[key].ledger.since()
        ]


@pytest.mark.parametrize('warm', [False, True])
def test_a_killed_process_goes_on_as_if_nothing_had_been(tmp_path, warm):
    whole, times = resume(warm=warm), 0
    for wanted in (1, 3, 6):  # rounds of eight that are kept before it is killed
        process = forked().Process(target=resume, args=(tmp_path,), kwargs=dict(warm=warm))
        process.start()
        while process.is_alive() and kept(tmp_path) < wanted:
            time.sleep(0.002)
        time.sleep(0.01 * wanted)  # somewhere inside the next round
        times += process.is_alive()
        process.kill()
        process.join()
        assert kept(tmp_path) >= wanted
    assert times >= 2
    assert_same_campaigns(resume(tmp_path, warm=warm), whole)
    assert not [f for f in tmp_path.iterdir() if 'playing' in f.name and 'random' in f.name]


def test_what_a_crash_left_of_a_finished_campaign_is_removed(tmp_path):
    "It may be killed after its last round, before it has tidied up"
    whole = resume(tmp_path)
    done = next(f.stem for f in tmp_path.glob('random-*.db'))
    (tmp_path / f'.{done}-playing-abc').mkdir()
    assert_same_campaigns(resume(tmp_path), whole)
    assert not [f for f in tmp_path.iterdir() if 'playing' in f.name]


def kept(folder) -> int:
    "How many rounds are on the disk"
    count = 0
    for f in folder.glob('*.db'):
        try:
            ledger = Ledger(f)
        except OSError:
            continue  # a campaign that ends is just putting its ledger in place
        count += len((ledger['campaign'] or {'rows': []})['rows'])
        ledger.close()
    return count


@pytest.mark.parametrize('warm', [False, True])
@pytest.mark.parametrize('stop_at', [0, 2, 5])
def test_an_interrupted_training_goes_on(tmp_path, warm, stop_at):
    fits = []

    def fit(learn):
        fits.append(len(learn.dls.train_ds))
        learn.fit(1, cbs=SkipValidation())
        if len(fits) == stop_at + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resume(tmp_path, fit=fit, warm=warm)
    again = resume(tmp_path, fit=fit, warm=warm)
    assert len(fits) == 9  # eight rounds, and one of them twice
    assert_same_campaigns(again, resume(warm=warm))


def test_more_rounds_seeds_and_strategies_add_up(tmp_path):
    fits = []

    def fit(learn):
        fits.append(1)
        learn.fit(1, cbs=SkipValidation())

    resume(tmp_path, rounds=1, fit=fit)
    longer = resume(tmp_path, rounds=3, fit=fit)
    assert len(fits) == 4 + 6  # the last round of two campaigns queried nothing, so it is run again
    assert_same_campaigns(longer, resume(rounds=3))
    assert_same_campaigns(resume(tmp_path, rounds=1, fit=fit), resume(rounds=1))
    resume(tmp_path, seeds=[3, 4], by=['bald', 'random', 'entropy'], fit=fit)
    assert len(fits) == 10 + 4 + 2 * 4 + 4
    assert_same_campaigns(resume(tmp_path, rounds=3, fit=fit), longer) and len(fits) == 26


def test_what_a_criterion_remembers_is_not_lost(tmp_path):
    until, fits = StabilisingPredictions(threshold=1e-9, rounds=2) & Budget(labels=24), []

    def fit(learn):
        fits.append(1)
        learn.fit(1, cbs=SkipValidation())
        if len(fits) == 2:
            raise KeyboardInterrupt

    whole = resume(until=until, by='random', rounds=6)
    with pytest.raises(KeyboardInterrupt):
        resume(tmp_path, until=until, by='random', rounds=6, fit=fit)
    again = resume(tmp_path, until=until, by='random', rounds=6, fit=fit)
    assert_same_campaigns(again, whole)
    assert len(whole.rounds) == 3 and 'kappa' in again.rounds['stopped'].iloc[-1]


@pytest.mark.parametrize(
    'other, says',
    [
        (dict(n=3), 'n was 4 and is 3'),
        (dict(initial=10), 'initial was 12'),
        (dict(holdout=10), 'holdout'),
        (dict(warm=True), 'warm'),
    ],
)
def test_campaigns_of_another_kind_are_not_gone_on_with(tmp_path, other, says):
    resume(tmp_path, rounds=1)
    with pytest.raises(ValueError, match=says):
        resume(tmp_path, rounds=1, **other)
    moved = Pool(range(60), [class_of(i) if i else (class_of(0) + 1) % 3 for i in range(60)])
    with pytest.raises(ValueError, match='data was'):
        simulate(
            pool_learner,
            moved,
            by='bald',
            seeds=[3],
            n=4,
            rounds=1,
            initial=12,
            holdout=12,
            fit=lambda learn: None,
            folder=tmp_path,
        )


def test_a_ledger_of_something_else_is_left_alone(tmp_path):
    Pool(range(3), db=tmp_path / 'bald-3.db').close()
    with pytest.raises(ValueError, match='not the ledger of a simulated'):
        resume(tmp_path)


def test_warm_campaigns_take_more_rounds(tmp_path):
    resume(tmp_path, rounds=1, warm=True)
    assert_same_campaigns(resume(tmp_path, rounds=3, warm=True), resume(rounds=3, warm=True))


def test_what_is_frozen_comes_back_with_warm_weights(tmp_path):
    fits = []

    def fit(learn):
        fits.append(1)
        if len(learn.dls.train_ds) == 12:
            for p in learn.model[0].parameters():
                p.requires_grad_(False)
        learn.fit(1, 1e-2, cbs=SkipValidation())
        if len(fits) == 7:
            raise KeyboardInterrupt

    whole = resume(by='random', rounds=4, warm=True, fit=fit)
    with pytest.raises(KeyboardInterrupt):
        resume(tmp_path, by='random', rounds=4, warm=True, fit=fit)
    assert_same_campaigns(resume(tmp_path, by='random', rounds=4, warm=True, fit=fit), whole)


def test_what_make_learner_writes_down_is_not_written_twice(tmp_path):
    fits = []

    def make_learner(pool):
        pool.add_pseudo(list(pool.unlabelled.index[:5]), [0] * 5)
        return Learner(
            pool.dataloaders(BLOCK, bs=8, num_workers=0, pseudo=0.5),
            mlp(),
            CrossEntropyLossFlat(),
            metrics=accuracy,
        )

    def fit(learn):
        fits.append(1)
        learn.fit(1, cbs=SkipValidation())
        if len(fits) == 6:
            raise KeyboardInterrupt

    kwargs = dict(by='random', n=4, rounds=3, seeds=1, initial=12, holdout=12, fit=fit)
    whole = simulate(make_learner, truth(), **kwargs)
    with pytest.raises(KeyboardInterrupt):
        simulate(make_learner, truth(), **kwargs, folder=tmp_path)
    assert_same_campaigns(simulate(make_learner, truth(), **kwargs, folder=tmp_path), whole)


def test_strategies_with_similar_names_have_ledgers_of_their_own(tmp_path):
    def one(log_probs):
        return log_probs.exp().amax(-1).mean(1)

    def other(log_probs):
        return -log_probs.exp().amax(-1).mean(1)

    one.__name__, other.__name__ = 'a/b', 'a_b'
    assert_same_campaigns(
        resume(tmp_path, by=[one, other], rounds=1), resume(by=[one, other], rounds=1)
    )


@pytest.mark.parametrize(
    'other',
    [
        dict(cost=2.0),
        dict(noise=0.3334),
        dict(truth={str(i): (class_of(i) + (i == 7)) % 3 for i in range(60)}),
    ],
)
def test_another_oracle_is_another_campaign(tmp_path, other):
    known = dict(truth=truth(), cost=1.0, noise=0.3333)
    resume(tmp_path, by='random', rounds=1, oracle=Oracle.from_labels(**known))
    resume(tmp_path, by='random', rounds=1, oracle=Oracle.from_labels(**known), fit=None)
    with pytest.raises(ValueError, match='answers was'):
        resume(tmp_path, by='random', rounds=1, oracle=Oracle.from_labels(**known | other))


def test_a_criterion_is_known_again_wherever_it_lies_in_memory(tmp_path):
    class Never:
        def __call__(self, learn):
            return None

    resume(tmp_path, by='random', rounds=1, until=Never())
    kept_alive = [Never() for _ in range(9)]
    resume(tmp_path, by='random', rounds=1, until=kept_alive[-1], fit=None)


def test_two_processes_do_not_run_the_same_campaign_at_once(tmp_path):
    said = []

    def fit(learn):
        if not said:
            said.append('')
            with pytest.raises(TimeoutError, match='Another process is running random with seed 3'):
                resume(tmp_path, by='random', rounds=1)
            resume(tmp_path, by='random', rounds=1, seeds=[4])  # another campaign
        learn.fit(1, cbs=SkipValidation())

    assert len(resume(tmp_path, by='random', rounds=1, fit=fit).rounds) == 2
    assert sorted(f.name for f in tmp_path.iterdir()) == ['random-3.db', 'random-4.db']


def test_numbers_of_numpy_are_numbers(tmp_path):
    whole = resume(seeds=[0, 1], rounds=1, by='random')
    numpy = dict(n=np.int64(4), rounds=np.int64(1), initial=np.int32(12), by='random')
    for i, more in enumerate(
        [
            dict(seeds=np.arange(2), holdout=np.int64(12)),
            dict(seeds=np.int64(2), holdout=np.float32(0.2)),
            dict(seeds=(0, 1)),
        ]
    ):
        assert_same_campaigns(resume(tmp_path / f'{i}', **numpy | more), whole)


@pytest.mark.parametrize(
    'kwargs, says',
    [
        (dict(seeds=[1.5]), 'seeds=1.5'),
        (dict(seeds='ab'), "seeds='a'"),
        (dict(n=4.0), 'n=4.0'),
        (dict(rounds=True), 'rounds=True'),
        (dict(holdout=0), 'holdout'),
        (dict(holdout=0.001), 'holdout'),
        (dict(holdout=-3), 'holdout'),
    ],
)
def test_invalid_numbers_are_refused_before_any_work(kwargs, says):
    with pytest.raises(ValueError, match=says):
        run(**dict(fit=None) | kwargs)


SIDE_BY_SIDE = """
import sys
sys.path.insert(0, {tests!r})
from conftest import pool_learner
# a method that is there only where this was imported
from fastai.callback.schedule import fit_one_cycle
from fastai_al.lab.simulate import simulate
from fastai_al.lab.campaign import SkipValidation
from test_simulate import truth
from fastai_al.acquisition.registry import acquisition
@acquisition
def own_rule(log_probs): return -log_probs.exp().amax(-1).mean(1)
def fit(learn): learn.fit_one_cycle(1, cbs=SkipValidation())
few = dict(n=4, rounds=1, seeds=2, initial=12, holdout=12)
campaigns = simulate(
    pool_learner, truth(), by=['bald', 'own_rule'], fit=fit, jobs=2, folder={folder!r}, **few
)
campaigns.rounds.to_pickle({folder!r} + '/rounds.pkl')
"""


def test_side_by_side_is_the_same(tmp_path):
    script = SIDE_BY_SIDE.format(
        tests=str(Path(__file__).parent), folder=str(tmp_path)
    )  # with functions of a script, as those of a notebook are
    subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', script],
        check=True,
        stdout=subprocess.DEVNULL,
        env=os.environ | dict(PYTHONPATH=os.pathsep.join(p for p in sys.path if p)),
    )
    together = pd.read_pickle(tmp_path / 'rounds.pkl')

    def own_rule(log_probs):
        return -log_probs.exp().amax(-1).mean(1)

    alone = untimed(
        run(
            by=['bald', own_rule],
            rounds=1,
            fit=lambda learn: learn.fit_one_cycle(1, cbs=SkipValidation()),
        )
    )
    pd.testing.assert_frame_equal(alone, together[list(alone)], check_exact=True)


# What a campaign is made of


def test_warm_goes_on_from_the_last_weights():
    norms = []

    def fit(learn):
        norms.append(sum(p.norm().item() for p in learn.model.parameters()))
        learn.fit(1, cbs=SkipValidation())

    resume(by='random', fit=fit, rounds=2)
    assert norms[0] == norms[1] == norms[2]
    norms.clear()
    resume(by='random', fit=fit, rounds=2, warm=True)
    assert len(set(norms)) == 3


def test_an_oracle_answers_what_is_trained_on_and_no_draw_holdout():
    truth_ = truth()
    oracle = Oracle.from_labels(truth_, noise=1.0, abstain=0.3, cost=2.0, annotators=2)
    campaigns = run(by='random', seeds=1, oracle=oracle)
    pool, rows = campaigns.pools['random', 0], campaigns.rounds
    assert (
        all(y == class_of(u) for u, y in pool.holdout['label'].items()) and len(pool.holdout) == 12
    )
    assert (
        all(y != class_of(u) for u, y in pool.labelled['label'].items())
        and 5 < len(pool.labelled) < 20
    )
    assert len(pool.labelled) + len(pool.ignored) == 20  # nothing is asked for twice
    assert rows['labelled'].iloc[-1] == len(pool.labelled) and rows['cost'].iloc[-1] == 2.0 * 2 * 20
    assert (
        'cost' not in run(by='random', seeds=1, rounds=1, oracle=Oracle.from_labels(truth_)).rounds
    )
    with pytest.raises(ValueError, match='labelled 0 of the first 5 items.*initial='):
        run(
            by='random',
            seeds=1,
            rounds=1,
            initial=5,
            oracle=Oracle.from_labels(truth_, abstain=1.0),
        )


def test_a_campaign_ends_at_its_stopping_criterion(tmp_path):
    def enough(learn):
        return f'{len(learn.pool.labelled)} labels' if len(learn.pool.labelled) >= 16 else None

    campaigns = resume(tmp_path, until=enough)
    assert (
        list(campaigns.rounds['stopped'].fillna('')) == ['', '16 labels'] * 2
        and campaigns.pools['bald', 3].counts()['labelled'] == 16
    )
    assert_same_campaigns(
        resume(tmp_path, until=enough, fit=None), campaigns
    )  # trains nothing more


def test_what_is_measured_stands_before_the_metrics():
    rows = run(
        by='random',
        seeds=1,
        rounds=1,
        measure=lambda learn: dict(test_accuracy=torch.tensor(0.5), not_finite=float('nan')),
    ).rounds
    assert (
        list(rows)[3:8] == ['labelled', 'valid_loss', 'test_accuracy', 'not_finite', 'accuracy']
        and (rows['test_accuracy'] == 0.5).all()
        and rows['not_finite'].isna().all()
    )


@pytest.mark.parametrize(
    'found, error, says',
    [
        (None, TypeError, 'dict'),
        (dict(labelled=7), ValueError, "'labelled'"),
        (dict(by='me'), ValueError, "'by'"),
        (dict(place=7), ValueError, "'place'"),
        (dict(accuracy=0.5), ValueError, "'accuracy'"),
        (dict(a=torch.ones(2)), TypeError, 'one number'),
        (dict(a=object()), TypeError, 'one number'),
    ],
)
def test_what_has_no_place_in_a_row_is_refused(found, error, says):
    with pytest.raises(error, match=says):
        run(by='random', seeds=1, rounds=1, measure=lambda learn: found)


@pytest.mark.parametrize('said', [True, '', 0])
def test_a_criterion_returns_a_reason_or_none(said):
    with pytest.raises(TypeError, match='reason to stop'):
        run(by='random', seeds=1, rounds=1, until=lambda learn: said)


def test_a_campaign_sees_only_labels_that_it_has_queried():
    "Other labels of what is never asked for change nothing"
    one = run(by='bald', seeds=1)
    asked = set(one.pools['bald', 0].labelled.index) | set(one.pools['bald', 0].holdout.index)
    other = simulate(
        pool_learner,
        Pool(
            range(60),
            [class_of(i) if str(i) in asked else (class_of(i) + 1) % 3 for i in range(60)],
        ),
        by='bald',
        n=4,
        rounds=2,
        seeds=1,
        initial=12,
        holdout=12,
        fit=lambda learn: learn.fit(2, cbs=SkipValidation()),
    )
    pd.testing.assert_frame_equal(untimed(other), untimed(one), check_exact=True)


def test_from_simulation_to_people(campaigns):
    def pool():
        return small_pool(labelled=30)

    learn = ActiveLearner.from_simulation(campaigns, pool())
    query = learn.next_round()
    assert (
        len(query) == 4 and query.info['acquisition'] == campaigns.best() and learn.pool.round == 1
    )
    learn.label(query, [class_of(u) for u in query.uids])
    assert len(learn.next_round()) == 4 and len(learn.dls.train_ds) == 34 and learn.pool.round == 2
    assert (
        ActiveLearner.from_simulation(campaigns, pool(), by='margin')
        .next_round()
        .info['acquisition']
        == 'margin'
    )
    with pytest.raises(ValueError, match='from_simulation'):
        ActiveLearner(pool_learner(p := pool()), p).next_round()
    with pytest.raises(ValueError, match='simulate'):
        ActiveLearner.from_simulation(Campaigns(campaigns.rounds, {}, {}), pool())


def test_people_continue_with_a_strategy_of_their_own():
    def own(log_probs):
        return -log_probs.exp().amax(-1).mean(1)

    campaigns = run(by=[own, 'random'], seeds=1, rounds=1)
    campaigns.best = lambda: 'own'
    assert (
        ActiveLearner.from_simulation(campaigns, small_pool(labelled=30))
        .next_round()
        .info['acquisition']
        == 'own'
    )


def test_people_see_when_to_stop():
    campaigns = run(
        by='random',
        seeds=1,
        rounds=1,
        until=lambda learn: 'enough is enough' if len(learn.pool.labelled) > 20 else None,
    )
    learn = ActiveLearner.from_simulation(campaigns, small_pool(labelled=30))
    with pytest.warns(FastaiALWarning, match='enough is enough'):
        assert len(learn.next_round()) == 4


# The command line

QUICK = '--rounds 1 --seeds 1 --steps 3 --n 10 --jobs 1'.split()


def test_campaigns_on_images_of_ones_own(tmp_path, capsys):
    from PIL import Image

    for i in range(60):
        f = tmp_path / 'images' / ['cat', 'dog'][i % 2] / f'{i}.png'
        f.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.randint(0, 255, (20, 30, 3), dtype=np.uint8)).save(f)
    table = pd.DataFrame(
        dict(
            image=[f'{["cat", "dog"][i % 2]}/{i}.png' for i in range(60)],
            label=[['cat', 'dog'][i % 2] if i else None for i in range(60)],
        )
    )
    table.to_csv(tmp_path / 'images' / 'table.csv', index=False)
    one = cli.main(
        [*QUICK, '--data', str(tmp_path / 'images'), '--size', '16', '--out', str(tmp_path / 'out')]
    )
    two = cli.main(
        [
            *QUICK,
            '--data',
            str(tmp_path / 'images' / 'table.csv'),
            '--size',
            '16',
            '--by',
            'margin, random',
            '--out',
            str(tmp_path / 'out'),
        ]
    )
    assert (
        two.name == 'out-2'
        and (one / 'report.html').is_file()
        and set(pd.read_csv(two / 'curves.csv')['by']) == {'margin', 'random'}
    )
    assert '1 of 60 images have no label' in capsys.readouterr().out
    assert len(Pool.open(one / 'ledgers' / 'bald-0.db').labelled) == 30


def test_help_names_what_can_be_set(capsys):
    with pytest.raises(SystemExit):
        cli.main(['--help'])
    said = capsys.readouterr().out
    for word in ('--data', '--by', '--rounds', '--seeds', '--out', 'bald', 'fastai_al report'):
        assert word in said


def test_by_offers_and_explains_every_strategy_for_classes():
    listed = cli.strategies()
    for name in catalogue():
        assert (name in listed) == ('classes' in _kinds(name)), name
    assert {'auto', 'random', 'uncertainty_herding', 'badge'} <= {*listed}
    assert all(len(text) > 20 for text in listed.values())


def _kinds(name):
    try:
        return strategy_of(name).kinds
    except ValueError:
        return ('values',)


def test_report_leads_to_the_report_of_a_real_project(monkeypatch):
    project = types.ModuleType('fastai_al.lab.project')
    project.main = lambda argv: Path(*argv)
    monkeypatch.setitem(sys.modules, 'fastai_al.lab.project', project)
    monkeypatch.setattr(fastai_al.lab, 'project', project, raising=False)
    assert cli.main(['report', 'labels.db']) == Path('labels.db')


def test_the_command_is_installed_and_ends_with_a_line(monkeypatch):
    scripts = tomllib.loads((ROOT / 'pyproject.toml').read_text('utf-8'))['project']['scripts']
    assert scripts == {'fastai_al': 'fastai_al.__main__:command'}
    monkeypatch.setattr(sys, 'argv', ['fastai_al', '--rounds', '0'])
    with pytest.raises(SystemExit, match='fastai_al: --rounds 0 is too low. Give 1 or more.'):
        cli.command()


def test_bad_arguments_leave_no_folder(tmp_path):
    with pytest.raises(ValueError, match='no acquisition'):
        cli.main([*QUICK, '--by', 'bold', '--out', str(tmp_path / 'out')])
    with pytest.raises(FileNotFoundError, match='nowhere'):
        cli.main([*QUICK, '--data', str(tmp_path / 'nowhere'), '--out', str(tmp_path / 'out')])
    for bad in (['--rounds', '0'], ['--initial', '1'], ['--holdout', '0'], ['--k', '1']):
        with pytest.raises(ValueError, match=bad[0]):
            cli.main([*QUICK, *bad, '--out', str(tmp_path / 'out')])
    assert not list(tmp_path.iterdir())
