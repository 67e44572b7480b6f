"""Everything that has to keep the contracts of the design.

Strategies, posteriors, tasks and stopping criteria join by being registered in the package. What
is listed here are further cases of those that the package has: other models, other settings."""

import dataclasses
import functools
import warnings

import numpy as np
import pandas as pd
import torch
from fastai.basics import CategoryBlock, ColReader, DataBlock, Learner
from fastai.collab import CollabDataLoaders, collab_learner
from fastai.losses import CrossEntropyLossFlat, MSELossFlat
from fastai.tabular.all import (
    Categorify,
    Normalize,
    TabularDataLoaders,
    tabular_config,
    tabular_learner,
)
from fastai.text.all import (
    AWD_LSTM,
    BaseTokenizer,
    TextBlock,
    awd_lstm_clas_config,
    text_classifier_learner,
)
from fastai.vision.augment import RandTransform
from torch import nn

from conftest import (
    class_of,
    classes_learner,
    features_of,
    labels_learner,
    mlp,
    pixels_learner,
    plain_dls,
)
from detectors import boxes_learner
from fastai_al.acquisition.registry import parameters_of, takes_values
from fastai_al.acquisition.selection import TIE_TOLERANCE
from fastai_al.posterior.base import Point, posteriors
from fastai_al.posterior.bayes import BayesByBackprop
from fastai_al.posterior.dropconnect import MCDropConnect
from fastai_al.posterior.dropout import MCDropout
from fastai_al.posterior.ensemble import DeepEnsemble, SnapshotEnsemble
from fastai_al.posterior.laplace import LastLayerLaplace
from fastai_al.posterior.swag import SWAG
from fastai_al.posterior.tta import TTA
from fastai_al.tasks.base import Task, as_task, tasks


class TwoBranches(nn.Module):
    "Dropout in two branches and around a residual, one module used twice"

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.drop, self.out = (
            nn.Linear(6, 8),
            nn.Linear(6, 8),
            nn.Linear(8, 8),
            nn.Dropout(0.4),
            nn.Linear(8, 3),
        )

    def forward(self, x):
        h = self.drop(torch.relu(self.a(x))) + self.b(x)
        return self.out(h + self.drop(self.c(h)))


class Encoder(nn.Module):
    "A small transformer over the six features"

    def __init__(self):
        super().__init__()
        self.layers = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(4, 2, 8, dropout=0.3, batch_first=True),
            2,
            enable_nested_tensor=False,
        )
        self.inp, self.out = nn.Linear(1, 4), nn.Linear(24, 3)

    def forward(self, x):
        return self.out(self.layers(self.inp(x[..., None])).flatten(1))


class Brighter(RandTransform):
    "Multiplies each item by a random number"

    def encodes(self, x: torch.Tensor):
        return (
            x * (0.5 + torch.rand(len(x), *[1] * (x.ndim - 1), device=x.device))
            if x.is_floating_point()
            else x
        )


def augmented_learner(**kwargs):
    return Learner(plain_dls(after_batch=[Brighter()]), mlp(), CrossEntropyLossFlat(), **kwargs)


def wandered(learn, gather):
    "`gather()` while the weights of `learn` wander around where they are, the same way each time"
    state = {name: t.clone() for name, t in learn.model.state_dict().items()}
    for i in range(5):
        g = torch.Generator().manual_seed(i)
        with torch.no_grad():
            for name, p in learn.model.named_parameters():
                p.copy_(state[name] + 0.1 * torch.randn(p.shape, generator=g).to(p.device))
        gather()
    learn.model.load_state_dict(state)


def gathered_swag(learn, k: int = 5, **kwargs):
    swag = SWAG(k=k, seed=3, rank=3, **kwargs)
    swag.learn = learn
    wandered(learn, swag._gather)
    return swag


def snapshots(learn):
    cb = SnapshotEnsemble(3)
    cb.learn = learn
    wandered(learn, cb._gather)
    return cb


def ensemble(learn):
    members = []
    wandered(
        learn,
        lambda: members.append({name: t.clone() for name, t in learn.model.state_dict().items()}),
    )
    return DeepEnsemble(members)


def with_callbacks(cls: type, **kwargs):
    "A learner with the callbacks that a posterior needs during training, besides those asked for"
    cbs = kwargs.pop('cbs', [])
    cbs = [*cbs] if isinstance(cbs, (list, tuple)) else [cbs]
    return classes_learner(cbs=[*cls.contract_cbs(), *cbs], **kwargs)


# Cases by class and name: a function that makes the posterior for a trained learner, and one that
# makes a learner for it. A posterior without cases here has one of its own, `contract_example`
CASES: dict[type, dict[str, tuple]] = {
    Point: {'point': (lambda learn: Point(), classes_learner)},
    MCDropout: {
        'dropout in the head (vmap)': (
            lambda learn: MCDropout(k=5, seed=3),
            lambda **kw: classes_learner(mlp(), **kw),
        ),
        'dropout in the head, in small chunks': (
            lambda learn: MCDropout(k=5, seed=3, draw_batch=7),
            lambda **kw: classes_learner(mlp(), **kw),
        ),
        'dropout first': (
            lambda learn: MCDropout(k=5, seed=3),
            lambda **kw: classes_learner(nn.Sequential(nn.Dropout(0.2), mlp()), **kw),
        ),
        'dropout in two branches': (
            lambda learn: MCDropout(k=5, seed=3),
            lambda **kw: classes_learner(TwoBranches(), **kw),
        ),
        'dropout in a transformer': (
            lambda learn: MCDropout(k=5, seed=3),
            lambda **kw: classes_learner(Encoder(), **kw),
        ),
        'dropout, the last one': (
            lambda learn: MCDropout(k=5, seed=3, layers=-1),
            lambda **kw: classes_learner(nn.Sequential(nn.Dropout(0.2), mlp()), **kw),
        ),
    },
    MCDropConnect: {
        'DropConnect': (lambda learn: MCDropConnect(k=5, seed=3), classes_learner),
    },
    DeepEnsemble: {
        'ensemble': (ensemble, classes_learner),
    },
    SnapshotEnsemble: {
        'snapshots': (snapshots, classes_learner),
    },
    SWAG: {
        'SWAG': (gathered_swag, classes_learner),
    },
    LastLayerLaplace: {
        'Laplace': (lambda learn: LastLayerLaplace(k=5, seed=3), classes_learner),
    },
    BayesByBackprop: {
        'Bayes by backprop': (
            BayesByBackprop.contract_example,
            functools.partial(with_callbacks, BayesByBackprop),
        ),
    },
    TTA: {
        'TTA': (lambda learn: TTA(k=5, seed=3), augmented_learner),
    },
}


def cases_of(cls: type) -> dict[str, tuple]:
    "The cases of a registered posterior"
    own = cls.contract_example, functools.partial(with_callbacks, cls)
    return CASES.get(cls) or {cls.__name__: own}


POSTERIORS = {name: case for cls in posteriors().values() for name, case in cases_of(cls).items()}
CLASS_OF = {name: cls for cls in posteriors().values() for name in cases_of(cls)}


class Reads(nn.Module):
    "Scores for numbers of words, where 0 is padding"

    def __init__(self):
        super().__init__()
        self.emb, self.drop, self.a, self.out = (
            nn.Embedding(20, 8),
            nn.Dropout(0.3),
            nn.Linear(8, 16),
            nn.Linear(16, 3),
        )

    def forward(self, ids):
        keep = (ids != 0)[..., None]
        return self.out(
            self.drop(torch.relu(self.a((self.drop(self.emb(ids)) * keep).sum(1) / keep.sum(1))))
        )


class WordsOf:
    "Getter of an item's words, three to eleven of them"

    def __call__(self, i):
        return torch.randint(
            1, 20, (3 + int(i) % 9,), generator=torch.Generator().manual_seed(int(i))
        )


def padded(samples: list, side: str) -> list:
    longest = max(len(x) for x, *_ in samples)
    return [
        (
            nn.functional.pad(
                x, (longest - len(x), 0) if side == 'left' else (0, longest - len(x))
            ),
            *y,
        )
        for x, *y in samples
    ]


def reading_learner(side: str, **kwargs):
    "A learner whose items are padded at the left or at the right"
    return Learner(
        plain_dls(WordsOf(), before_batch=[functools.partial(padded, side=side)]),
        Reads(),
        CrossEntropyLossFlat(),
        **kwargs,
    )


def values_learner(**kwargs):
    return Learner(plain_dls(y=lambda i: features_of(i)[:2]), mlp(2), MSELossFlat(), **kwargs)


def _frame() -> pd.DataFrame:
    "Sixty rows: texts of five to ninety words, numbers and a word, ratings"
    random = np.random.RandomState(0)
    return pd.DataFrame(
        dict(
            text=[
                ' '.join(random.choice(list('abcdefgh'), random.choice([5, 7, 20, 90])))
                for _ in range(60)
            ],
            a=random.randn(60),
            b=random.randn(60),
            c=random.choice(list('xyz'), 60),
            user=[f'u{i % 7}' for i in range(60)],
            film=[f'f{i % 11}' for i in range(60)],
            rating=random.rand(60).astype(np.float32),
            y=[class_of(i) for i in range(60)],
        )
    )


def _of_frame(dls, frame: pd.DataFrame):
    dls.frame = frame
    return dls


def text_learner(**kwargs):
    frame = _frame()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of pandas, from inside fastai
        dls = DataBlock(
            (TextBlock.from_df('text', tok=BaseTokenizer()), CategoryBlock(vocab=[0, 1, 2])),
            get_x=ColReader('text'),
            get_y=ColReader('y'),
        ).dataloaders(frame, bs=10, num_workers=0)
    return text_classifier_learner(
        _of_frame(dls, frame),
        AWD_LSTM,
        config={**awd_lstm_clas_config, 'emb_sz': 6, 'n_hid': 8, 'n_layers': 2},
        pretrained=False,
        **kwargs,
    )


def rows_learner(**kwargs):
    frame = _frame()
    dls = TabularDataLoaders.from_df(
        frame,
        procs=[Categorify, Normalize],
        cat_names=['c'],
        cont_names=['a', 'b'],
        y_names='y',
        y_block=CategoryBlock(vocab=[0, 1, 2]),
        bs=10,
        valid_idx=range(40, 60),
        num_workers=0,
    )
    learn = tabular_learner(
        _of_frame(dls, frame),
        layers=[20, 10],
        config=tabular_config(ps=[0.3, 0.3], embed_p=0.2),
        n_out=3,
        **kwargs,
    )
    with torch.no_grad():
        learn.model.layers[-1][0].weight.mul_(
            20
        )  # sure of something, so that scores differ by more than rounding
    return learn


def ratings_learner(**kwargs):
    frame = _frame()
    dls = CollabDataLoaders.from_df(
        frame,
        user_name='user',
        item_name='film',
        rating_name='rating',
        bs=10,
        seed=0,
        num_workers=0,
    )
    return collab_learner(
        _of_frame(dls, frame),
        use_nn=True,
        layers=[12],
        config=tabular_config(ps=0.3, embed_p=0.2),
        y_range=(0, 1.1),
        **kwargs,
    )


def example_learner(loss: type, **kwargs):
    "A learner of a registered task, as its `contract_example` describes it"
    example = loss.contract_example
    return Learner(
        plain_dls(y=lambda i: example.target(features_of(i))),
        mlp(example.outputs),
        loss(),
        **kwargs,
    )


# name -> a function that makes a learner with dropout
TASKS = {
    'classes': classes_learner,
    'pixels': pixels_learner,
    'labels': labels_learner,
    'values': values_learner,
    'boxes': boxes_learner,
    'positions': functools.partial(boxes_learner, dense=True),
    'texts': text_learner,
    'rows': rows_learner,
    'ratings': ratings_learner,
    **{name: functools.partial(example_learner, loss) for name, loss in tasks().items()},
}


def items_dl(learn, items, **kwargs):
    "A DataLoader of items by their numbers"
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of pandas, from inside fastai
        return learn.dls.test_dl(
            list(items) if not hasattr(learn.dls, 'frame') else learn.dls.frame.iloc[list(items)],
            **kwargs,
        )


def noisy(task: Task, seed: int, size: float = 1e-6) -> Task:
    """A task whose draws are off by rounding noise:

    `size` of themselves, and of 1 at least where they are log-probabilities"""
    g = torch.Generator().manual_seed(seed)

    def draws_of(outputs):
        draws = task.draws_of(outputs)
        noise = size * torch.randn(draws.shape, generator=g)
        return (
            draws * (1 + noise)
            if task.values
            else (draws + noise * draws.abs().clamp(1, 100)).log_softmax(-1)
        )

    return dataclasses.replace(task, draws_of=draws_of)


def rounding_errors(learn, items, first, **kwargs) -> dict:
    """The rounding error of each score of `first`, a query of all items: what rounding noise of
    a millionth in the draws makes of it; uid -> error"""
    errors = dict.fromkeys(first.uids, 0.0)
    for seed in range(6):  # so many, and five times the largest: at random all may be small
        other = learn.acquire(
            len(first),
            items_dl(learn, items, bs=16),
            task=noisy(as_task(None, learn), seed),
            **kwargs,
        )
        scores = dict(zip(other.uids, other.scores))
        for uid, score in zip(first.uids, first.scores):
            errors[uid] = max(errors[uid], 5 * abs(scores[uid] - score))
    return errors


def assert_same_query(again, first, errors: dict):
    "Two queries of all items are the same, up to items whose scores differ by rounding"
    scores = dict(zip(first.uids, first.scores))
    assert sorted(again.uids) == sorted(first.uids)
    for uid, score in zip(again.uids, again.scores):
        assert abs(score - scores[uid]) <= errors[uid] + TIE_TOLERANCE * abs(score), uid
    for a, b in zip(again.uids, first.uids):
        assert abs(scores[a] - scores[b]) <= errors[a] + errors[b] + TIE_TOLERANCE * max(
            abs(scores[a]), abs(scores[b])
        ), f'{a} in the place of {b}'


def predicts_values(make_learner) -> bool:
    "Does a learner of `TASKS` predict values, and no classes?"
    if isinstance(make_learner, functools.partial) and make_learner.func is example_learner:
        return make_learner.args[0].task.values
    return make_learner in (values_learner, ratings_learner)


def has_sites(make_learner) -> bool:
    "Has an item of a learner of `TASKS` several predictions?"
    if isinstance(make_learner, functools.partial) and make_learner.func is example_learner:
        loss = make_learner.args[0]
        return loss.task.draws_of(torch.zeros(1, 2, loss.contract_example.outputs)).ndim > 3
    return make_learner not in (classes_learner, text_learner, rows_learner)


def why_unsuitable(make_learner, by: str) -> str:
    "What the error says where a strategy does not fit a task; '' where it does"
    of_values = predicts_values(make_learner)
    if of_values and parameters_of(by)[0] == 'log_probs':
        return 'predicts values'
    if not of_values and takes_values(by):
        return 'predicts classes: choose by bald'
    return 'neighbouring sites' if by == 'local_divergence' and not has_sites(make_learner) else ''
