"""Studies that take hours, campaign by campaign:

`python benchmarks/studies.py --only transfer --seeds 10 --minutes 60` goes on where the last call
stopped

Each finished campaign is appended to benchmarks/curves/NAME.csv and is not run again; a long one
that was cut off goes on from its ledger in `--work`.
What is there is tabulated in RESULTS.md, with the number of seeds, and drawn for the docs;
`--table` does this alone.
Files are read from `--data`. All seeds of a campaign's setting share initial labels and hold-out
between the strategies."""

import argparse
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from results import PICTURES, write_section

HERE = Path(__file__).parent


class TimeUp(Exception):
    "The minutes are over"


@dataclass
class Clock:
    "Raises `TimeUp` between rounds, once the minutes are over"

    end: float = float('inf')

    def check(self):
        if time.monotonic() > self.end:
            raise TimeUp


@dataclass
class Setting:
    "A pool, a learner and a budget, on which strategies are compared"

    name: str
    strategies: list
    # () -> what `simulate` needs besides those below: make_learner (draws -> pool -> Learner),
    # pool, fit; and measure, until where there are any
    load: Callable
    campaign: dict  # n, rounds, initial, holdout
    k: int | None = 50  # draws; None: plain predictions
    long: bool = False  # keep the ledger of a campaign that is cut off
    run: Callable | None = None  # in place of `one_campaign`, for what `simulate` can not run


@dataclass
class Study:
    name: str
    settings: Callable  # data folder, work folder -> [Setting]
    table: Callable  # Study, curves -> writes sections and pictures
    seeds: int = 10

    @property
    def csv(self) -> Path:
        return HERE / 'curves' / f'{self.name}.csv'

    def curves(self) -> pd.DataFrame:
        "What has been run: one row a setting, strategy, seed and round"
        return (
            pd.read_csv(self.csv)
            if self.csv.exists()
            else pd.DataFrame(columns=['setting', 'by', 'seed', 'round', 'labelled'])
        )


def run_study(
    study: Study,
    data: Path,
    work: Path,
    seeds: int,
    clock: Clock,
    strategies: list | None = None,
    named: str = '',
):
    "Seed by seed and strategy by strategy, so that whole pairs come first"
    settings, loaded, done = study.settings(data, work), {}, set()
    old = study.curves()
    if len(old):
        done = set(old[['setting', 'by', 'seed']].itertuples(index=False, name=None))
    for seed in range(seeds):
        for setting in [s for s in settings if named in s.name]:
            for strategy in [
                r for r in setting.strategies if strategies is None or r in strategies
            ]:
                if (setting.name, strategy, seed) in done:
                    continue
                clock.check()
                if setting.name not in loaded:
                    loaded[setting.name] = setting.load()
                start = time.perf_counter()
                rows = (setting.run or one_campaign)(
                    setting, loaded[setting.name], strategy, seed, work / study.name, clock
                )
                rows = pd.concat(
                    [
                        pd.DataFrame(
                            dict(setting=setting.name, by=strategy, seed=seed), rows.index
                        ),
                        rows.drop(columns=['by', 'seed'], errors='ignore'),
                    ],
                    axis=1,
                )
                keep(study, rows)
                shutil.rmtree(
                    work / study.name / setting.name / f'{strategy}-{seed}', ignore_errors=True
                )
                print(
                    f'{study.name}: {setting.name}, {strategy}, seed {seed}: '
                    f'{rows.labelled.iloc[-1]} labels, {rows[metric_of(rows)].iloc[-1]:.3f}, '
                    f'{time.perf_counter() - start:.0f} s',
                    flush=True,
                )


def campaigns_of(
    setting: Setting, loaded: dict, strategy: str | Callable, seed: int, work: Path, clock: Clock
):
    "A strategy and a seed; `Campaigns`"
    from fastai_al.lab.simulate import simulate

    folder = work / setting.name / f'{getattr(strategy, "__name__", strategy)}-{seed}'
    make, fit = loaded['make_learner'], loaded['fit']
    others = {name: loaded[name] for name in ('measure', 'until') if name in loaded} | (
        dict(folder=folder) if setting.long else {}
    )

    def timed_fit(learn):
        clock.check()
        fit(learn)

    with quiet():
        return simulate(
            make(setting.k),
            loaded['pool'],
            by=[strategy],
            seeds=[seed],
            fit=timed_fit,
            **setting.campaign,
            **others,
        )


def one_campaign(
    setting: Setting, loaded: dict, strategy: str, seed: int, work: Path, clock: Clock
) -> pd.DataFrame:
    return campaigns_of(setting, loaded, strategy, seed, work, clock).rounds


class quiet:
    "No progress bars, no warnings of what the studies know"

    def __enter__(self):
        import warnings

        from fastai_al.lab import simulate as lab

        self.caught = warnings.catch_warnings()
        self.caught.__enter__()
        warnings.simplefilter('ignore')
        self.bar, lab.progress_bar = lab.progress_bar, Silent

    def __exit__(self, *_):
        from fastai_al.lab import simulate as lab

        lab.progress_bar = self.bar
        self.caught.__exit__(None, None, None)


class Silent:
    "In place of fastprogress's bar"

    comment = ''

    def __init__(self, items, *_, **__):
        self.items = items

    def __iter__(self):
        return iter(self.items)

    def update(self, *_):
        pass

    def on_iter_end(self, *_):
        pass


SECONDS = ('fit_seconds', 'acquire_seconds')
FEWEST = 5  # seeds that a strategy is tested with at all: of fewer, no result is unlikely


def keep(study: Study, rows: pd.DataFrame):
    "Add a campaign to the curves"
    rows = rows.drop(
        columns=[c for c in ('information', 'max_information', 'cost', 'stopped') if c in rows]
    )
    for c in rows.select_dtypes('float'):
        rows[c] = rows[c].round(2 if c in SECONDS else 4)
    study.csv.parent.mkdir(exist_ok=True)
    part = study.csv.with_suffix('.part')
    pd.concat([study.curves(), rows] if study.csv.exists() else [rows]).to_csv(part, index=False)
    part.rename(study.csv)


# What is reported of curves


def metric_of(curves: pd.DataFrame) -> str:
    return next(c for c in ('test_accuracy', 'accuracy', 'r2_score', 'dice') if c in curves)


def areas(curves: pd.DataFrame) -> pd.DataFrame:
    """The mean metric over the rounds; one row a setting and seed, one column a strategy; only
    pairs that are whole"""
    metric = metric_of(curves)
    return curves.groupby(['setting', 'seed', 'by'])[metric].mean().unstack()


def permuted(gaps: np.ndarray) -> float:
    """Two-sided p-value that paired differences have no sign of their own: all 2^N sign flips up
    to N=12, else 20,000 of them"""
    gaps, n = np.asarray(gaps, float), len(gaps)
    if n <= 12:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        signs = np.concatenate(
            [np.ones((1, n)), np.random.default_rng(0).choice([-1, 1], (20000, n))]
        )
    return float((np.abs(signs @ gaps) >= abs(gaps.sum()) - 1e-12).mean())


def holm(ps: list[float]) -> np.ndarray:
    "p-values adjusted for as many tests (Holm 1979)"
    ps = np.asarray(ps, float)
    order, adjusted = np.argsort(ps), np.empty(len(ps))
    adjusted[order] = np.minimum(
        1, np.maximum.accumulate(ps[order] * (len(ps) - np.arange(len(ps))))
    )
    return adjusted


def penalties(area: pd.DataFrame, level: float = 0.05) -> pd.DataFrame:
    """In which share of the settings does the strategy of a row beat that of a column, by a
    permutation test? As in Ash et al. 2020, https://arxiv.org/abs/1906.03671. Strategies
    with fewer than `FEWEST` seeds are left out"""
    seeds = area.groupby('setting').count().min()
    strategies, settings = (
        [r for r in area if seeds[r] >= FEWEST],
        area.index.get_level_values('setting').unique(),
    )
    found = pd.DataFrame(0.0, strategies, strategies)
    for setting in settings:
        here = area.loc[setting]
        for a in strategies:
            for b in strategies:
                gaps = (here[a] - here[b]).dropna().to_numpy() if a != b else np.zeros(0)
                if gaps.sum() > 0 and permuted(gaps) <= level:
                    found.loc[a, b] += 1 / len(settings)
    return found


def labels_to(curves: pd.DataFrame, target: float) -> pd.DataFrame:
    """Labels of the first measured round at or above `target`, infinite where there is none; one
    row a seed, one column a strategy"""
    metric = metric_of(curves)
    first = curves[curves[metric] >= target].groupby(['seed', 'by']).labelled.min()
    return (
        curves.groupby(['seed', 'by'])
        .labelled.min()
        .mul(np.inf)
        .add(first, fill_value=0)
        .where(lambda s: ~s.index.isin(first.index), first)
        .unstack()
    )


def quartiles(values: pd.Series) -> str:
    "Median [lower and upper quartile], `never` where it is infinite"
    values = values.dropna()

    def quantile(q):
        at = np.quantile(values, q, method='inverted_cdf') if q != 0.5 else np.median(values)
        return f'{at:.0f}' if np.isfinite(at) else 'never'

    return f'{quantile(0.5)} [{quantile(0.25)} to {quantile(0.75)}]' if len(values) else ''


def strategy_table(study: Study, curves: pd.DataFrame, setting: str, title: str, columns: int = 6):
    "A section: the mean metric after some rounds, area and paired test against random"
    here, area = curves[curves.setting == setting], areas(curves).loc[setting]
    metric = metric_of(here)
    shown = sorted(here.labelled.unique())
    shown = [
        shown[i] for i in sorted(set(np.linspace(0, len(shown) - 1, columns).round().astype(int)))
    ]
    if 'random' not in area:
        return  # nothing to compare with yet
    gaps = {r: (area[r] - area['random']).dropna() for r in area if area[r].notna().any()}
    strategies = sorted(gaps, key=lambda r: -gaps[r].mean())
    tested = [r for r in strategies if r != 'random' and len(gaps[r]) >= FEWEST]
    adjusted = dict(zip(tested, holm([permuted(gaps[r]) for r in tested])))
    means = here.groupby(['by', 'labelled'])[metric].mean()
    rows = [
        f'| {r} | {area[r].notna().sum()} | '
        + ' | '.join(f'{means[r, at]:.3f}' for at in shown)
        + f' | {area[r].mean():.3f} | '
        + (
            f'{gaps[r].mean():+.4f}, ahead in {(gaps[r] > 0).sum()} of {len(gaps[r])} | '
            f'{f"{adjusted[r]:.3f}" if r in adjusted else ""} |'
            if r != 'random'
            else '| |'
        )
        for r in strategies
    ]
    write_section(
        title,
        f'studies.py --only {study.name}',
        rows,
        f'| {metric} with | seeds | '
        + ' | '.join(map(str, shown))
        + ' | mean of all rounds | against random, the same seeds | p (Holm) |',
    )


def picture(study: Study, curves: pd.DataFrame, titles: dict):
    "A panel a setting: mean curves of the strategies that have enough seeds, with a standard error"
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    metric, strategies = metric_of(curves), list(curves.by.unique())
    names = [s for s in titles if s in set(curves.setting)]
    if not names:
        return
    across = min(3, len(names))
    fig, axs = plt.subplots(
        -(-len(names) // across),
        across,
        figsize=(5.2 * across, 3.8 * -(-len(names) // across)),
        squeeze=False,
        layout='constrained',
    )
    for ax in axs.flat[len(names) :]:
        ax.set_axis_off()
    for ax, name in zip(axs.flat, names):
        here = curves[curves.setting == name]
        for i, strategy in enumerate(strategies):
            mine = here[here.by == strategy]
            if mine.seed.nunique() < min(FEWEST, here.seed.nunique()):
                continue
            going = mine.pivot(
                index='labelled', columns='seed', values=metric
            ).ffill()  # a campaign that reached its end stays there
            found = going.agg(['mean', 'sem'], axis=1)
            colour = 'k' if strategy == 'random' else plt.get_cmap('tab20')(i % 20)
            ax.plot(
                found.index,
                found['mean'],
                color=colour,
                lw=2 if strategy in ('random', 'auto') else 1.2,
                ls='--' if strategy == 'random' else '-',
                label=strategy,
            )
            ax.fill_between(
                found.index,
                found['mean'] - found['sem'],
                found['mean'] + found['sem'],
                color=colour,
                alpha=0.12,
                lw=0,
            )
        ax.set(
            title=f'{titles[name]} ({here.seed.nunique()} seeds)',
            xlabel='labels',
            ylabel=metric.replace('_', ' '),
        )
        ax.grid(alpha=0.2)
    axs.flat[0].legend(fontsize=7, ncol=2)
    fig.savefig(PICTURES / f'study_{study.name}.png', dpi=90)
    plt.close(fig)


# transfer: which strategy is best on features of a frozen network, with few labels?

STRATEGIES = [
    'random',
    'auto',
    'uncertainty_herding',
    'typiclust',
    'max_herding',
    'probcover',
    'badge',
    'margin',
    'entropy',
    'bald',
    'batchbald',
    'power_bald',
    'kcenter',
]
PHOTOS = {
    'flowers': 'Flowers: 2,500 photos of 5 kinds, 700 of them held out',
    'imagenette': 'Imagenette: 2,500 photos of 10 classes, 700 of them held out',
}


def some(x: np.ndarray, y: list, n: int) -> tuple[np.ndarray, list]:
    "`n` items, the same ones each time"
    places = np.random.default_rng(0).permutation(len(y))[:n]
    return x[places], [y[i] for i in places]


def on_arrays(read: Callable, n: int, model: Callable, fit: Callable) -> dict:
    "What a setting loads: learners on rows of an array"
    import torch

    from arrays import array_learner, array_pool

    x, y = some(*read(), n)
    vocab = sorted(set(y))
    return dict(
        make_learner=lambda k: array_learner(
            torch.tensor(x), vocab, lambda: model(x.shape[1], len(vocab)), k
        ),
        pool=array_pool(y),
        fit=fit,
    )


def load_head(read: Callable, n: int) -> dict:
    "Dropout and one linear layer"
    from arrays import linear_head, train_steps

    return on_arrays(read, n, linear_head, train_steps(50, 3e-2, 0.1))


def load_mlp(read: Callable, n: int) -> dict:
    "Two hidden layers with dropout"
    from arrays import mlp, train_steps

    return on_arrays(read, n, mlp, train_steps(60, 1e-2, 0.01))


def transfer(data: Path, work: Path) -> list[Setting]:
    import sets

    sizes = {
        'flowers': dict(n=10, rounds=8, initial=10, holdout=700),
        'imagenette': dict(n=20, rounds=8, initial=10, holdout=700),
    }
    return [
        Setting(
            name,
            STRATEGIES,
            lambda name=name: load_head(lambda: getattr(sets, name)(data, work), 2500),
            campaign,
        )
        for name, campaign in sizes.items()
    ]


def photo_tables(study: Study, curves: pd.DataFrame, titles: dict, what: str):
    "A table and a panel of the picture for each set of photos"
    for name, title in titles.items():
        if name in set(curves.setting):
            strategy_table(study, curves, name, f'{what}. {title}')
    picture(study, curves, {name: title.split(':')[0] for name, title in titles.items()})


def transfer_table(study: Study, curves: pd.DataFrame):
    photo_tables(study, curves, PHOTOS, 'Frozen features, few labels')
    matrix(study, curves, 'Frozen features, few labels: pairwise comparison')


def matrix(study: Study, curves: pd.DataFrame, title: str):
    "The penalty matrix"
    found = penalties(areas(curves))
    if not len(found):
        return
    order = found.sum().sort_values().index
    rows = [
        f'| {a} | ' + ' | '.join('' if a == b else f'{found.loc[a, b]:.2f}' for b in order) + ' |'
        for a in order
    ]
    rows.append(
        '| **beaten, in all** | ' + ' | '.join(f'{found[b].sum():.2f}' for b in order) + ' |'
    )
    write_section(
        title,
        f'studies.py --only {study.name}',
        rows,
        '| share of settings in which this strategy beats | ' + ' | '.join(order) + ' |',
    )


# finetune: fewer of the same photos, where the last stages of the network learn too

TUNED = ['random', 'auto', 'typiclust', 'margin', 'badge', 'batchbald']
TUNED_PHOTOS = {
    'flowers': 'Flowers: 1,500 photos of 5 kinds, 500 of them held out',
    'imagenette': 'Imagenette: 1,500 photos of 10 classes, 500 of them held out',
}


def load_tuned(name: str, data: Path) -> dict:
    """EfficientNet-Lite0 on photos of 96 pixels a side, its last two stages and what follows
    them trained with the head"""
    import torch

    import sets
    from arrays import array_learner, array_pool
    from networks import FineTuned, fine_tune

    x, y = sets.photos(name, data, 1500)
    vocab, pictures = sorted(set(y)), torch.tensor(x)
    return dict(
        make_learner=lambda k: array_learner(
            pictures,
            vocab,
            lambda: FineTuned(
                sets.lite0(), 1280, len(vocab), ('blocks.5', 'blocks.6', 'conv_head', 'bn2')
            ),
            k,
        ),
        pool=array_pool(y),
        fit=fine_tune(),
    )


def finetune(data: Path, work: Path) -> list[Setting]:
    return [
        Setting(
            name,
            TUNED,
            lambda name=name: load_tuned(name, data),
            dict(n=n, rounds=5, initial=10, holdout=500),
            k=50,
            long=True,
        )
        for name, n in (('flowers', 10), ('imagenette', 20))
    ]


def finetune_table(study: Study, curves: pd.DataFrame):
    photo_tables(study, curves, TUNED_PHOTOS, 'Fine-tuned networks, few labels')


# auto_safe: is the default ever worse than chance?

BUDGETS = {
    'low': (2, 10, 5),
    'middle': (10, 25, 4),
    'high': (110, 50, 3),
}  # first labels a class, labels a round, rounds


def load_adult(data: Path, n: int) -> dict:
    import sets
    from arrays import train_steps
    from fastai_al.all import Pool
    from networks import adult_learner

    df, cats, conts = sets.adult(data, n)
    return dict(
        make_learner=lambda k: lambda pool: adult_learner(pool, cats, conts, k),
        pool=Pool.from_df(df, cats + conts, 'income', uid='row'),
        fit=train_steps(60, 1e-2, 0.2),
    )


def load_housing(data: Path, n: int) -> dict:
    import sets
    from arrays import train_steps
    from fastai_al.all import Pool
    from networks import housing_learner

    df, cats, conts = sets.housing(data)
    some = df.sample(n, random_state=0).assign(row=[f'r{i}' for i in range(n)])
    return dict(
        make_learner=lambda k: lambda pool: housing_learner(pool, cats, conts, k),
        pool=Pool.from_df(some, conts + cats, 'median_house_value', uid='row'),
        fit=train_steps(100, 1e-2, 0.01),
    )


def auto_safe(data: Path, work: Path) -> list[Setting]:
    """All data sets and budgets; 1,000 items to choose from where they are enough for the
    budget, else 2,000, and 500 held out"""
    import sets

    def head(name):
        return lambda n: load_head(lambda: getattr(sets, name)(data, work), n)

    def text(name):
        return lambda n: load_mlp(lambda: sets.texts(name, data), n)

    loads = {
        'flowers': (head('flowers'), 5),
        'imagenette': (head('imagenette'), 10),
        'cifar10': (head('cifar10'), 10),
        'mnist': (lambda n: load_mlp(lambda: sets.mnist(data, work), n), 10),
        'sms_spam': (text('sms_spam'), 2),
        'trec6': (text('trec6'), 6),
        'subj': (text('subj'), 2),
        'sst2': (text('sst2'), 2),
        'adult': (lambda n: load_adult(data, n), 2),
        'housing': (lambda n: load_housing(data, n), 5),
    }
    settings = []
    for budget, (each, n, rounds) in BUDGETS.items():
        for name, (load, classes) in loads.items():
            campaign = dict(n=n, rounds=rounds, initial=max(10, each * classes), holdout=500)
            size = 1500 if campaign['initial'] + n * rounds < 1000 else 2500
            strategies = ['auto', 'random'] + (
                ['batchbald'] if budget == 'low' and name not in ('adult', 'housing') else []
            )
            settings.append(
                Setting(
                    f'{name}, {budget}',
                    strategies,
                    lambda load=load, size=size: load(size),
                    campaign,
                    k=50 if budget == 'low' else 20,
                )
            )
    return settings


def auto_table(study: Study, curves: pd.DataFrame):
    """One row a setting: the paired difference of the default and chance; and of BatchBALD,
    which `auto` stood for in small batches before this study"""
    curves = curves.assign(
        score=curves[[c for c in ('accuracy', 'r2_score') if c in curves]].bfill(axis=1).iloc[:, 0]
    )
    area, rows, found = curves.groupby(['setting', 'seed', 'by']).score.mean().unstack(), [], []
    for name in dict.fromkeys(curves.setting):
        for strategy in ('auto', 'batchbald'):
            pairs = (
                area.loc[name][[strategy, 'random']].dropna() if strategy in area else area.iloc[:0]
            )
            if len(pairs) > 1:
                found.append(
                    (name, strategy, pairs, permuted((pairs[strategy] - pairs.random).to_numpy()))
                )
    adjusted = {
        id(pairs): p
        for strategy in ('auto', 'batchbald')
        for (_, _, pairs, _), p in zip(
            [f for f in found if f[1] == strategy], holm([f[3] for f in found if f[1] == strategy])
        )
    }
    for name, strategy, pairs, p in found:
        gaps, labels = pairs[strategy] - pairs.random, curves[curves.setting == name].labelled
        verdict = '' if adjusted[id(pairs)] > 0.05 else 'better' if gaps.mean() > 0 else 'worse'
        rows.append(
            f'| {name} | {strategy} | {labels.min()} to {labels.max()} | {len(gaps)} | '
            f'{pairs[strategy].mean():.3f} | {pairs.random.mean():.3f} | {gaps.mean():+.4f} | '
            f'{(gaps > 0).sum()} of {len(gaps)} | '
            f'{p:.3f} | {adjusted[id(pairs)]:.3f} | {verdict} |'
        )
    for strategy in ('auto', 'batchbald'):
        means = [
            (pairs[strategy] - pairs.random).mean() for _, r, pairs, _ in found if r == strategy
        ]
        if means:
            rows.append(
                f'| **all settings above** | {strategy} | | | | | {np.mean(means):+.4f} | '
                f'{sum(m > 0 for m in means)} of {len(means)} settings | '
                f'{permuted(np.array(means)):.3f} | | |'
            )
    write_section(
        'Is `auto` ever worse than random? Mean over the rounds of accuracy (housing: R²); low: '
        '50 draws, else 20',
        f'studies.py --only {study.name}',
        rows,
        '| data and budget | strategy | labels | seeds | with it | random | difference | ahead | '
        'p | p (Holm, over the settings) | |',
    )


# nuclei: does a strategy save masks?

MASKS = ['random', 'clasp_pe', 'max_herding, frozen', 'bald', 'foreground_random', 'entropy']


def nuclei(data: Path, work: Path) -> list[Setting]:
    def load():
        import nuclei

        return nuclei.load(data, work)

    def campaign(setting, loaded, strategy, seed, work, clock):
        from nuclei import strategy_of

        return one_campaign(setting, loaded, strategy_of(strategy, loaded), seed, work, clock)

    return [
        Setting(
            'nuclei', MASKS, load, dict(n=4, rounds=6, initial=4, holdout=150), k=5, run=campaign
        ),
        Setting(
            'nearly all labelled',
            ['random'],
            load,
            dict(n=4, rounds=1, initial=506, holdout=150),
            k=5,
            run=campaign,
        ),
    ]


def nuclei_table(study: Study, curves: pd.DataFrame):
    strategy_table(
        study,
        curves,
        'nuclei',
        'Nuclei (segmentation): 664 pictures at 64 px, 150 held out; 150 steps a fit, however '
        'much is labelled',
    )
    strategy_table(
        study,
        curves,
        'nearly all labelled',
        'Nuclei, nearly all of them labelled: the possible gain',
        2,
    )
    picture(study, curves, {'nuclei': 'Nuclei'})


# fewest: how few labels are enough?

ARMS = {
    'typiclust': 'typical items of clusters, later too',
    'max_herding': 'items that stand for many, later too',
    'uncertainty_herding': 'typical items, later unsure ones that stand for many',
    'random': 'at random',
}


def fewest(data: Path, work: Path) -> list[Setting]:
    import fewest as few

    def load():
        return dict(np.load(data / 'mnist.npz'))

    def strokes(setting, z, strategy, seed, work, clock):
        return few.campaign(strategy, seed, z, clock)

    def pixels(setting, z, strategy, seed, work, clock):
        return few.campaign(strategy, seed, z, clock, features_of=lambda x: x.flatten(1))

    return [
        Setting('strokes', list(ARMS), load, {}, run=strokes),
        Setting('pixels', ['typiclust', 'random'], load, {}, run=pixels),
    ]


def fewest_table(study: Study, curves: pd.DataFrame):
    rows = []
    for setting, what in (
        ('strokes', 'strokes of upright digits'),
        ('pixels', 'pixels as they are'),
    ):
        here = curves[curves.setting == setting]
        for strategy in [r for r in ARMS if r in set(here.by)]:
            mine = here[here.by == strategy]
            reached, last = labels_to(mine, 0.95)[strategy], mine.groupby('seed').tail(1)
            rows.append(
                f'| {what} | {strategy}: {ARMS[strategy]} | {mine.seed.nunique()} | '
                f'{quartiles(reached)} | {labels_of(reached)} | '
                f'{last.test_accuracy.median():.4f} | {last.pseudo_right.median():.4f} | '
                f'{mine.acquire_seconds.mean():.1f} | {mine.fit_seconds.mean():.0f} |'
            )
    write_section(
        'As few labels as possible: MNIST to 95% on the 10,000 test digits, 10,000 unlabelled '
        'digits drawn by each seed',
        f'studies.py --only {study.name}',
        rows,
        '| neighbours by | queried | seeds | labels in all, median [quartiles] | each seed | '
        'test accuracy then, median | of the pseudo-labels right | seconds to ask | to train and '
        'measure |',
    )


def labels_of(values: pd.Series) -> str:
    return ', '.join(f'{v:.0f}' if np.isfinite(v) else 'never' for v in values)


# batchbald and repeated: the experiments of the BatchBALD paper

PAPER = dict(n=10, rounds=28, initial=20, holdout=1024)


def digits_of(z: dict, places: np.ndarray, seed: int, noise: float = 0.0):
    """Pictures of MNIST with mean 0 and standard deviation 1, and noise on request;
    [N, 1, 28, 28]"""
    import torch

    x = (torch.tensor(z['x_train'][places])[:, None].float() / 255 - 0.1307) / 0.3081
    return (
        x + noise * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
        if noise
        else x
    )


def reaching(measure: Callable, target: float) -> tuple[Callable, Callable]:
    "A measure, and the criterion that it has reached `target`"
    last = {}

    def measured(learn):
        last.update(measure(learn))
        return dict(last)

    def reached(learn):
        return f'{target:.0%} on the test set' if last['test_accuracy'] >= target else None

    return measured, reached


def as_in_paper(x, y: list, z: dict, clock: Clock) -> dict:
    "The paper's network and training on these pictures, until 95% of the test digits are right"
    import torch

    from arrays import accuracy_on, array_learner, array_pool
    from networks import as_in_the_paper, paper_cnn

    test = (torch.tensor(z['x_test'])[:, None].float() / 255 - 0.1307) / 0.3081
    measure, until = reaching(accuracy_on(test, torch.tensor(z['y_test'].astype(int))), 0.95)
    return dict(
        make_learner=lambda k: array_learner(x, list(range(10)), paper_cnn, k),
        pool=array_pool(y),
        fit=as_in_the_paper(between=clock.check),
        measure=measure,
        until=until,
    )


def strokes_of(pictures: np.ndarray):
    "What the study of few labels knows of digits before any label; [N, 288]"
    import torch

    from fewest import strokes, upright

    return strokes(upright(torch.tensor(pictures)[:, None].float() / 255))


def components_of(pictures: np.ndarray):
    "50 principal components of the pixels: nothing that is known of digits"
    from sklearn.decomposition import PCA

    return PCA(50, random_state=0).fit_transform(
        pictures.reshape(len(pictures), -1) / np.float32(255)
    )


OWN = {'uncertainty_herding, strokes': strokes_of, 'uncertainty_herding, components': components_of}


def mnist_campaign(setting, z, strategy, seed, work, clock) -> pd.DataFrame:
    "10,000 digits to ask for and 1,024 to validate on, drawn by the seed"
    from fastai_al.all import on_features

    places = np.random.default_rng(seed).permutation(len(z['y_train']))[: 10000 + PAPER['holdout']]
    loaded = as_in_paper(
        digits_of(z, places, seed), z['y_train'][places].astype(int).tolist(), z, clock
    )
    by, _, name = strategy.partition(', ')
    if name:
        strategy = on_features(
            by,
            pd.DataFrame(
                np.asarray(OWN[strategy](z['x_train'][places])), index=loaded['pool'].labelled.index
            ),
            name,
        )
    return one_campaign(setting, loaded, strategy, seed, work, clock)


def batchbald(data: Path, work: Path) -> list[Setting]:
    def load():
        return dict(np.load(data / 'mnist.npz'))

    return [
        Setting(
            'MNIST',
            ['batchbald', 'random', 'auto', 'uncertainty_herding', 'power_bald', 'bald'],
            load,
            PAPER,
            k=100,
            long=True,
            run=mnist_campaign,
        ),
        Setting(
            'MNIST, plain predictions',
            list(OWN),
            load,
            PAPER,
            k=None,
            long=True,
            run=mnist_campaign,
        ),
    ]


def paper_rows(curves: pd.DataFrame) -> list[str]:
    rows = []
    for setting in curves.setting.unique():
        for strategy in curves[curves.setting == setting].by.unique():
            mine = curves[(curves.setting == setting) & (curves.by == strategy)]
            at90, at95 = (labels_to(mine, t)[strategy] for t in (0.9, 0.95))
            rows.append(
                f'| {setting} | {strategy} | {mine.seed.nunique()} | {quartiles(at90)} | '
                f'{quartiles(at95)} | {labels_of(at90)} | {labels_of(at95)} | '
                f'{mine.fit_seconds.mean():.0f} | {mine.acquire_seconds.mean():.0f} |'
            )
    return rows


PAPER_HEAD = (
    '| pool | strategy | seeds | labels to 90%, median [quartiles] | to 95% | to 90%, each '
    'seed | to 95%, each seed | seconds to train and validate | to ask |'
)


def batchbald_table(study: Study, curves: pd.DataFrame):
    write_section(
        'BatchBALD on MNIST: the network and training of its paper, n=10, 100 draws; 10,000 '
        'digits drawn by each seed, 20 random first labels, labels of the 1,024 to validate on '
        'not counted',
        f'studies.py --only {study.name}',
        paper_rows(curves),
        PAPER_HEAD,
    )
    picture(study, curves.assign(setting='MNIST'), {'MNIST': 'MNIST'})


def repeated_places(z: dict, seed: int) -> np.ndarray:
    return np.repeat(
        np.random.default_rng(seed).permutation(len(z['y_train']))[:3674], 3
    )  # 11,022: 9,998 to ask for


def repeated_campaign(setting, z, strategy, seed, work, clock) -> pd.DataFrame:
    """3,674 digits, each three times under noise of its own; a digit and its copy may be on
    either side of the hold-out, which ends training and is no test"""
    places = repeated_places(z, seed)
    found = campaigns_of(
        setting,
        as_in_paper(
            digits_of(z, places, seed, 0.1), z['y_train'][places].astype(int).tolist(), z, clock
        ),
        strategy,
        seed,
        work,
        clock,
    )
    events = next(iter(found.pools.values())).history
    asked = events[events.kind == 'acquire']
    picks = pd.DataFrame(
        dict(
            setting=setting.name,
            by=strategy,
            seed=seed,
            round=asked['round'],
            place=asked.uid.astype(int),
        )
    )
    path = HERE / 'curves' / 'repeated_picks.csv'
    path.parent.mkdir(exist_ok=True)
    picks.to_csv(path, mode='a', header=not path.exists(), index=False)
    return found.rounds


def repeated(data: Path, work: Path) -> list[Setting]:
    def load():
        return dict(np.load(data / 'mnist.npz'))

    return [
        Setting(
            'three times, K=10',
            ['batchbald', 'bald', 'random'],
            load,
            PAPER,
            k=10,
            long=True,
            run=repeated_campaign,
        ),
        Setting(
            'three times, K=50',
            ['batchbald', 'bald'],
            load,
            PAPER,
            k=50,
            long=True,
            run=repeated_campaign,
        ),
    ]


def copies(picks: pd.DataFrame) -> pd.Series:
    """The share of the items queried in a round that are copies of others in it; one
    value a setting and strategy"""
    each = (
        picks.assign(digit=picks.place // 3)
        .groupby(['setting', 'by', 'seed', 'round'])
        .digit.agg(lambda d: d.duplicated().mean())
    )
    return each.groupby(['setting', 'by'], sort=False).mean()


def repeated_table(study: Study, curves: pd.DataFrame):
    picks = pd.read_csv(HERE / 'curves' / 'repeated_picks.csv')
    share = copies(picks)
    rows = [
        f'{row} {share.get((setting, strategy), float("nan")):.0%} |'
        for row, (setting, strategy) in zip(
            paper_rows(curves),
            dict.fromkeys(curves[['setting', 'by']].itertuples(index=False, name=None)),
        )
    ]
    write_section(
        'Repeated MNIST: 3,674 digits three times under noise of .1, n=10, otherwise as on MNIST',
        f'studies.py --only {study.name}',
        rows,
        PAPER_HEAD + ' of a batch, copies in it |',
    )
    picture(study, curves, {name: name for name in curves.setting.unique()})


def show_picks(data: Path, rounds: int = 3):
    """The first queries of the first seed, a row of ten a round, beside each other for
    the strategies"""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    z, picks = np.load(data / 'mnist.npz'), pd.read_csv(HERE / 'curves' / 'repeated_picks.csv')
    x = z['x_train'][repeated_places(dict(y_train=z['y_train']), 0)]
    groups = [
        (key, some) for key, some in picks[picks.seed == 0].groupby(['setting', 'by'], sort=False)
    ]
    fig, axs = plt.subplots(
        len(groups),
        1,
        figsize=(6, 1.05 * rounds * len(groups) * 0.62),
        squeeze=False,
        layout='constrained',
    )
    for ax, (key, some) in zip(axs[:, 0], groups):
        first = some[some['round'].isin(sorted(some['round'].unique())[:rounds])]
        ax.imshow(
            np.concatenate(
                [
                    np.concatenate(list(x[group.place.to_numpy()]), 1)
                    for _, group in first.groupby('round')
                ]
            ),
            cmap='gray_r',
        )
        ax.set_title(f'{key[1]}, {key[0]}: the first {rounds} batches', fontsize=8)
        ax.set_axis_off()
    fig.savefig(PICTURES / 'study_repeated_picks.png', dpi=90)
    plt.close(fig)


# radius: does herding work on features of the network under training?


def radius(data: Path, work: Path) -> list[Setting]:
    import radius as here

    def campaign(setting, loaded, strategy, seed, work, clock):
        return one_campaign(setting, loaded, here.strategy_of(strategy), seed, work, clock)

    plan = dict(n=30, rounds=3, initial=10, holdout=1000)
    return [
        Setting(
            name, here.STRATEGIES, lambda load=load: load(data, work), plan, k=None, run=campaign
        )
        for name, load in here.LOADS.items()
    ]


def radius_table(study: Study, curves: pd.DataFrame):
    import radius as here

    here.table(study, curves)


STUDIES = {
    s.name: s
    for s in (
        Study('transfer', transfer, transfer_table),
        Study('finetune', finetune, finetune_table, 5),
        Study('auto_safe', auto_safe, auto_table),
        Study('nuclei', nuclei, nuclei_table),
        Study('fewest', fewest, fewest_table, 6),
        Study('batchbald', batchbald, batchbald_table, 6),
        Study('repeated', repeated, repeated_table, 3),
        Study('radius', radius, radius_table),
    )
}


def main(argv: list | None = None):
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--only', nargs='+', choices=list(STUDIES), default=list(STUDIES))
    p.add_argument(
        '--seeds', type=int, help='campaigns a strategy (default: as many as the study asks for)'
    )
    p.add_argument('--strategies', nargs='+', help='run only these')
    p.add_argument('--setting', default='', help='run only those with this in their name')
    p.add_argument(
        '--minutes', type=float, default=float('inf'), help='stop after so many, between rounds'
    )
    p.add_argument(
        '--table',
        action='store_true',
        help='run nothing; write the sections from the curves that are there',
    )
    p.add_argument(
        '--data',
        type=Path,
        default=HERE.parents[1] / 'shared' / 'data',
        help='the folder of the data sets',
    )
    p.add_argument(
        '--work',
        type=Path,
        default=HERE / '.work',
        help='what takes long to make, and the ledgers of campaigns that were cut off',
    )
    args = p.parse_args(argv)
    import torch

    torch.set_num_threads(1)
    clock = Clock(time.monotonic() + 60 * args.minutes)
    for study in map(STUDIES.get, args.only):
        try:
            if not args.table:
                run_study(
                    study,
                    args.data,
                    args.work,
                    args.seeds or study.seeds,
                    clock,
                    args.strategies,
                    args.setting,
                )
        except TimeUp:
            print(f'{study.name}: time is up; the same command goes on from here')
        if study.csv.exists():
            study.table(study, study.curves())
        if study.name == 'repeated' and study.csv.exists():
            show_picks(args.data)


if __name__ == '__main__':
    main()
