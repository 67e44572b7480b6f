"""What a round costs with and without known features:

`python benchmarks/rounds.py` prints it and rewrites its part of benchmarks/RESULTS.md

All times are from one run, as ratios to a plain pass over the same items."""

import argparse
import tempfile
import warnings
from pathlib import Path

import numpy as np

from results import once, seconds, write_section

warnings.filterwarnings('ignore')  # of other packages


def photos(folder: Path, n: int) -> dict[str, str]:
    "Files of noise, 96 px; uid -> class"
    from PIL import Image

    random = np.random.default_rng(0)
    answers = {}
    for i in range(n):
        pixels = random.integers(0, 255, (96, 96, 3), dtype='uint8')
        Image.fromarray(pixels).save(folder / f'{i:05}.jpg')
        answers[f'{i:05}.jpg'] = f'class {i % 10}'
    return answers


def learner_of(pool, answers: dict[str, str]):
    "A ResNet whose body is frozen, with random weights: what is learnt does not matter here"
    from fastai.callback.training import BnFreeze
    from fastai.vision.all import CategoryBlock, DataBlock, ImageBlock, accuracy, vision_learner
    from torchvision.models import resnet18

    from fastai_al.all import ActiveLearner, MCDropout

    block = DataBlock((ImageBlock, CategoryBlock(vocab=sorted(set(answers.values())))))
    dls = pool.dataloaders(block, bs=32, num_workers=0)
    learn = vision_learner(
        dls,
        resnet18,
        pretrained=False,
        metrics=accuracy,
        train_bn=False,
        cbs=[BnFreeze, MCDropout(k=20)],
    )
    learn.freeze()
    return ActiveLearner(learn, pool)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--n', type=int, default=2000, help='items in the pool')
    n = parser.parse_args().n
    from fastai_al.all import Pool

    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / 'photos'
        folder.mkdir()
        answers = photos(folder, n)
        times = {}
        for kind, db in (('kept', Path(name) / 'labels.db'), ('not kept', ':memory:')):
            pool = Pool.from_folder(folder, db=db)
            pool.label(pool.draw_holdout(20), answers)
            pool.label(pool.sample(40), answers)
            learn = learner_of(pool, answers)
            with learn.no_bar(), learn.no_logging():
                dl = learn.dls.test_dl(pool.unlabelled)
                plain = seconds(lambda: learn.get_preds(dl=dl), 1)
                first = once(lambda: learn.acquire(10, dl, by='bald'))
                later = seconds(lambda: learn.acquire(10, dl, by='bald'), 3)
            times[kind] = plain, first, later
            pool.close()
        for kind, (plain, first, later) in times.items():
            for what, t in (('first', first), ('later', later)):
                rows.append(
                    f'| features {kind}: the {what} query, BALD of 20 draws '
                    f'| {t / plain:.2f} passes | {t:.2f} s; a plain pass {plain:.2f} s |'
                )
    write_section(
        f'Rounds: {n:,} pictures of 96 px, a frozen ResNet-18 and a head with dropout',
        'rounds.py',
        rows,
    )


if __name__ == '__main__':
    main()
