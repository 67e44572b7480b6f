"""The frame of the studies: what was run once is not run again, and the tables show what the curves
show"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / 'benchmarks'
if not BENCHMARKS.exists():
    pytest.skip('the benchmarks are not installed', allow_module_level=True)
sys.path.insert(0, str(BENCHMARKS))
import arrays  # noqa: E402
import fewest  # noqa: E402
import studies  # noqa: E402


def blobs(n=120):
    y = np.arange(n) % 3
    return torch.tensor(
        np.random.default_rng(0).normal(size=(n, 4)) + 2 * np.eye(3, 4)[y]
    ).float(), y.tolist()


class Interrupted(studies.Clock):
    "Time is up at the `most`-th check"

    def __init__(self, most):
        self.left = most

    def check(self):
        self.left -= 1
        if self.left < 0:
            raise studies.TimeUp


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setattr(studies, 'HERE', tmp_path)
    monkeypatch.setattr('results.RESULTS', tmp_path / 'RESULTS.md')
    fits = []

    def load():
        x, y = blobs()
        train = arrays.train_steps(10, 1e-2, 0.01)

        def fit(learn):
            fits.append(len(learn.dls.train_ds))
            train(learn)

        return dict(
            make_learner=lambda k: arrays.array_learner(
                x, [0, 1, 2], lambda: arrays.mlp(4, 3, 8), k
            ),
            pool=arrays.array_pool(y),
            fit=fit,
        )

    def table(study, curves):
        studies.strategy_table(study, curves, 'blobs', 'Blobs')

    made = studies.Study(
        'blobs',
        lambda data, work: [
            studies.Setting(
                'blobs',
                ['random', 'margin'],
                load,
                dict(n=5, rounds=2, initial=6, holdout=30),
                k=3,
                long=True,
            )
        ],
        table,
        2,
    )
    made.fits = fits
    return made


def run_study(study, tmp_path, clock=None, seeds=2, name='work'):
    studies.run_study(study, tmp_path, tmp_path / name, seeds, clock or studies.Clock())


def test_a_study_goes_on_where_it_stopped(study, tmp_path):
    with pytest.raises(studies.TimeUp):
        run_study(
            study, tmp_path, Interrupted(7)
        )  # one check a campaign and one a fit: in the second campaign's third round
    assert len(study.curves()) == 3 and study.fits == [6, 11, 16, 6, 11]
    run_study(study, tmp_path)
    assert study.fits[5:] == [
        16,
        *[6, 11, 16] * 2,
    ]  # the round that was cut off, and two campaigns more
    curves_so_far = study.curves()
    assert list(curves_so_far.groupby(['by', 'seed']).size()) == [3] * 4 and not list(
        (tmp_path / 'work').rglob('*.db')
    )
    run_study(study, tmp_path)
    assert len(study.fits) == 12
    study.csv.unlink()
    run_study(study, tmp_path, name='another')
    pd.testing.assert_frame_equal(
        study.curves().drop(columns=list(studies.SECONDS)),
        curves_so_far.drop(columns=list(studies.SECONDS)),
    )


def test_strategies_start_alike_and_the_table_counts_seeds(study, tmp_path):
    run_study(study, tmp_path)
    first = study.curves().query('round == 0').pivot(index='seed', columns='by', values='accuracy')
    assert (first.random == first.margin).all()
    study.table(study, study.curves())
    said = (tmp_path / 'RESULTS.md').read_text()
    assert '| random | 2 |' in said and '| margin | 2 |' in said and 'ahead in' in said


def test_permutations_and_holm():
    assert (
        studies.permuted([1, 2, 3, 4]) == 2 / 16
        and studies.permuted([1, -1]) == 1
        and studies.permuted([0, 0, 0]) == 1
    )
    assert studies.permuted(np.ones(20)) < 1e-3
    np.testing.assert_allclose(studies.holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])


def curves(**values):
    return pd.DataFrame(
        [
            dict(setting='a', by=by, seed=s, round=r, labelled=10 + 5 * r, accuracy=v)
            for by, seeds in values.items()
            for s, rows in enumerate(seeds)
            for r, v in enumerate(rows)
        ]
    )


def test_labels_to_a_target_are_those_of_a_measured_round():
    found = studies.labels_to(
        curves(
            bald=[[0.5, 0.91, 0.8], [0.95, 0.2, 0.2]], random=[[0.5, 0.6, 0.7], [0.1, 0.2, 0.9]]
        ),
        0.9,
    )
    assert found.bald.tolist() == [15, 10] and found.random.tolist() == [np.inf, 20]
    assert (
        studies.quartiles(found.bald) == '12 [10 to 15]'
        and studies.quartiles(found.random) == 'never [20 to never]'
    )


def test_who_beats_whom():
    better = [[v, v] for v in np.linspace(0.8, 0.9, 6)]
    found = studies.penalties(
        studies.areas(curves(a=better, b=[[v - 0.1, v - 0.1] for v, _ in better], c=better))
    )
    assert found.loc['a', 'b'] == 1 and found.loc['b', 'a'] == 0 and found.loc['a', 'c'] == 0


def test_batches_are_rows_of_the_array():
    x, y = blobs()
    pool = arrays.array_pool([None] * len(y))
    held = [int(u) for u in pool.draw_holdout(2)]
    used = [i for i in range(len(y)) if i not in held][:2]
    for some in (held, used):
        pool.label([f'{i:05}' for i in some], [y[i] for i in some])
    learn = arrays.array_learner(x, [0, 1, 2], lambda: arrays.mlp(4, 3, 8), 3, bs=2, draws=9)(pool)
    batches = list(learn.dls.train)
    assert sum(len(b) for b, _ in batches) == 9 and len(learn.dls.train) == 5
    (xs,), ys = arrays.whole(learn.dls.train)
    assert {(tuple(a.tolist()), int(b)) for a, b in zip(xs, ys)} == {
        (tuple(x[i].tolist()), y[i]) for i in used
    }
    unlabelled = learn.dls.test_dl(pool.unlabelled)
    torch.testing.assert_close(
        torch.cat([b for (b,) in unlabelled]), x[[i for i in range(len(y)) if i not in held + used]]
    )


def test_fine_tuning_leaves_what_is_frozen():
    from torch import nn

    from networks import FineTuned, fine_tune

    y = [i % 2 for i in range(40)]
    x = (torch.rand(40, 3, 8, 8) * 60 + 150 * torch.tensor(y)[:, None, None, None]).byte()
    pool = arrays.array_pool(y)

    def body():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 4, 3),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )

    with pytest.warns(UserWarning):
        learn = arrays.array_learner(x, [0, 1], lambda: FineTuned(body(), 4, 2, ('3.',)), 5)(pool)
    before = {name: t.clone() for name, t in learn.model.state_dict().items()}
    fine_tune(60, 10, 1e-2, 1e-1)(learn)
    changed = {
        name for name, t in learn.model.state_dict().items() if not torch.equal(t, before[name])
    }
    assert changed == {'body.3.weight', 'body.3.bias', 'head.1.weight', 'head.1.bias'}
    assert arrays.accuracy_on(x, torch.tensor(y))(learn)['test_accuracy'] > 0.9


def test_labels_are_passed_on_among_neighbours():
    points = torch.cat(
        [torch.eye(3)[0] + 0.01 * torch.randn(10, 3), torch.eye(3)[1] + 0.01 * torch.randn(10, 3)]
    )
    probs = fewest.spread(fewest.neighbours(points, 3), [0, 15], [4, 7])
    np.testing.assert_allclose(probs.sum(1), 1, rtol=1e-5)
    assert (probs.argmax(1) == np.repeat([4, 7], 10)).all()


def test_a_slanted_stroke_is_made_upright():
    x = torch.zeros(1, 1, 28, 28)
    for i in range(6, 22):
        x[0, 0, i, i - 2 : i] = 1
    rows = fewest.upright(x)[0, 0]
    centres = (rows * torch.arange(28.0)).sum(1)[8:20] / rows.sum(1)[8:20]
    assert centres.max() - centres.min() < 1 and abs(centres.mean() - 13.5) < 0.6
    assert fewest.strokes(x).norm(dim=1).item() == pytest.approx(1)


def test_plain_predictions_need_no_draws():
    x, y = blobs()
    pool = arrays.array_pool(y)
    with pytest.warns(match='Nothing validates'):
        learners = [
            arrays.array_learner(x, [0, 1, 2], lambda: arrays.mlp(4, 3, 8), k)(pool)
            for k in (None, 3)
        ]
    assert [
        learn.acquire(2, learn.dls.test_dl(pool.labelled), by='margin').info['k']
        for learn in learners
    ] == [1, 3]


def test_features_that_need_no_labels():
    pictures = np.random.default_rng(0).integers(0, 256, (60, 28, 28)).astype(np.uint8)
    found = {name: np.asarray(make(pictures)) for name, make in studies.OWN.items()}
    assert {name: f.shape for name, f in found.items()} == {
        'uncertainty_herding, strokes': (60, 288),
        'uncertainty_herding, components': (60, 50),
    }
    for f in found.values():
        assert np.isfinite(f).all() and f.std(0).min() > 0


def test_masks_of_arrays_are_learned_and_queried():
    "A bright square is what there is to find"
    import nuclei
    from networks import UNet, segmenting

    x, y = torch.randn(30, 3, 16, 16) / 5, torch.zeros(30, 16, 16, dtype=torch.long)
    for i in range(30):
        y[i, i % 8 : i % 8 + 6, 4:11] = 1
        x[i] += 2 * y[i]
    torch.manual_seed(0)
    pool = arrays.array_pool(list(range(30)))
    with pytest.warns(match='Nothing validates'):
        learn = nuclei.learners(x, y, lambda: UNet((4, 8)), 3)(pool)
    places, (xb, yb) = (
        learn.dls.train.dataset.items.index.astype(int),
        next(iter(learn.dls.train.new(shuffle=False))),
    )
    assert torch.equal(xb, x[places[:8]]) and torch.equal(yb, y[places[:8]])
    segmenting(60)(learn)
    found = learn.model.eval()(x).argmax(1)
    assert (2 * (found * y).sum() / (found.sum() + y.sum())) > 0.8
    query = learn.acquire(3, learn.dls.test_dl(pool.labelled), by='clasp_pe')
    assert query.info['k'] == 3 and len(query) == 3
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(30, 5)), index=pool.labelled.index)
    assert (
        nuclei.strategy_of('bald', dict(frozen=frame)) == 'bald'
        and nuclei.strategy_of('kcenter, frozen', dict(frozen=frame)).__name__ == 'kcenter, frozen'
    )


def test_herding_before_and_after():
    "The same strategy with the radius of version 0.11.0, and tests over the seeds"
    import radius
    from fastai_al.acquisition.coverage import max_herding

    x, y = (
        torch.randn(60, 5),
        torch.tensor(
            [
                [0.0, 0, 1, 0, 0],
                [0, 0, 1, 0, 0],
                [0, 0, 1, 0.01, 0],
                [0, 0, 0, 3, 0],
                [0, 1, 0, 0, 0],
            ]
        ),
    )
    assert (
        radius.least_distance(x, y) == pytest.approx(0.01, rel=1e-3)
        and radius.least_distance(x, y[:1]) is None
        and radius.least_distance(x, None) is None
    )
    chosen = [radius.strategy_of(f'max_herding{radius.BEFORE}'), max_herding]
    found = [strategy(x, n=3, labelled_features=y).info['radius'] for strategy in chosen]
    assert (
        found[0] == pytest.approx(0.01, rel=1e-3)
        and found[1] > 0.3
        and chosen[0].__name__ == 'max_herding, least distance'
        and radius.strategy_of('random') == 'random'
    )
    before, after = f'max_herding{radius.BEFORE}', 'max_herding'
    rows = pd.concat(
        [
            curves(**{after: [[v, v + 0.1] for v in np.linspace(0.5, 0.6, 10)]}),
            curves(
                **{before: [[v - 0.01 * i, v] for i, v in enumerate(np.linspace(0.5, 0.6, 10))]}
            ),
        ]
    )
    tests = radius.tested(studies.areas(rows), [('a', after, before), ('a', before, after)])
    assert tests['a', after, before][1:3] == (10, 10) and tests['a', after, before][
        3
    ] == pytest.approx(2 * 2 / 2**10)  # all ten ahead; two tests
    assert tests['a', before, after][0] == -tests['a', after, before][0]


def test_the_section_on_the_radius(tmp_path, monkeypatch):
    import radius

    monkeypatch.setattr('results.RESULTS', tmp_path / 'RESULTS.md')
    rows = curves(
        **{
            strategy: [[0.5 + 0.02 * i + 0.001 * s, 0.6 + 0.02 * i] for s in range(6)]
            for i, strategy in enumerate(radius.STRATEGIES)
        }
    ).assign(setting='MNIST')
    radius.table(studies.STUDIES['radius'], rows)
    said = (tmp_path / 'RESULTS.md').read_text()
    assert (
        said.count('| MNIST, small CNN |') == 5
        and '+0.0200, ahead in 6 of 6' in said
        and '10 | 15 labels' in said
    )
    columns = {line.count('|') for line in said.splitlines() if line.startswith('|')}
    assert len(columns) == 1  # each row has a cell for each column


def test_the_networks_of_the_study_of_the_radius(tmp_path):
    import radius

    x = torch.rand(12, 1, 28, 28)
    with pytest.warns(UserWarning):
        learn = arrays.array_learner(x, list(range(10)), radius.small_cnn, None)(
            arrays.array_pool([i % 10 for i in range(12)])
        )
    before = [p.clone() for p in learn.model.parameters()]
    radius.train(40, 8)(learn)
    assert all(not torch.equal(p, b) for p, b in zip(learn.model.parameters(), before))
    assert (learn.model.eval()(x).argmax(1) == torch.arange(12) % 10).float().mean() > 0.5
