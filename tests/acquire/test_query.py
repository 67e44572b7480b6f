"""A query behaves like a sequence, is copied, pickled and shown, and says why items were chosen"""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.basics import CategoryBlock, CrossEntropyLossFlat, DataBlock, Learner
from fastai.data.transforms import RandomSplitter
from fastai.vision.all import ImageBlock, PILImageBW
from matplotlib import pyplot as plt
from PIL import Image
from torch import nn

import fastai_al.inference.predict  # noqa: F401  # gives `Learner` its `predict_proba`
from conftest import BLOCK, as_pool, classes_learner, features_of, mlp, small_pool
from fastai_al.acquire import acquire, context, request
from fastai_al.acquire.query import Query
from fastai_al.active_learner import ActiveLearner
from fastai_al.pool.pool import Pool
from fastai_al.posterior.dropout import MCDropout

PLACES = [(slice(0, 2), [0, 1]), (slice(None, None, -2), [3, 1]), ([2, 0], [2, 0])]
PLACES += [(np.array([True, False, False, True]), [0, 3]), (slice(4, None), [])]


@pytest.fixture(scope='module')
def learn():
    torch.manual_seed(0)
    return classes_learner(cbs=MCDropout(k=5))


@pytest.fixture(scope='module')
def query(learn):
    with learn.no_bar():
        return learn.acquire(4, as_pool(learn), 'bald')


def pictures(folder, names):
    "Pictures with these names; the number of each is its brightness"
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((12, 16), 20 * i, np.uint8)).save(folder / name)
    return [folder / name for name in names]


def picture_learner(folder, **kwargs):
    "A learner without a pool, of pictures in two folders"
    files = pictures(folder, [f'{c}/{i}.png' for c in ('bright', 'dark') for i in range(6)])
    block = DataBlock(
        (ImageBlock(PILImageBW), CategoryBlock(vocab=['bright', 'dark'])),
        get_items=lambda _: files,
        get_y=lambda f: f.parent.name,
        splitter=RandomSplitter(0.3, seed=0),
    )
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.Dropout(0.3), nn.Linear(8, 2))
    dls = block.dataloaders(folder, bs=4, num_workers=0)
    return Learner(dls, net, CrossEntropyLossFlat(), path=folder, **kwargs)


def test_a_query_is_a_sequence_of_uids(query):
    assert list(query) == query.uids and query[1] == query.uids[1] and query[-1] == query.uids[-1]
    assert query.uids[2] in query and 'unknown' not in query
    with pytest.raises(IndexError):
        query[4]


@pytest.mark.parametrize('at, places', PLACES, ids=[str(at) for at, _ in PLACES])
def test_a_part_of_a_query_is_a_query(query, at, places):
    part = query[at]
    assert isinstance(part, Query) and part.uids == [query.uids[i] for i in places]
    some = bool(places)  # an empty frame knows no types
    pd.testing.assert_frame_equal(
        part.to_df(), query.to_df().iloc[places], check_dtype=some, check_index_type=some
    )
    assert torch.equal(part.draws, query.draws[places])
    assert part.indices == [query.indices[i] for i in places]
    assert [int(i) for i in part.dl.get_idxs()] == part.indices
    assert part.info['information'] is None and query.info['information'] is not None
    part.show()


def test_a_part_can_be_labelled():
    pool = small_pool()
    learn = ActiveLearner(
        Learner(pool.dataloaders(BLOCK, bs=8, num_workers=0), mlp(), CrossEntropyLossFlat()), pool
    )
    with learn.no_bar():
        query = learn.acquire(5, by='entropy')
    assert learn.label(query[:2], [0, 1]) == 2 and learn.label(query[3], 2) == 1
    assert {*query[:2], query[3]} <= {*pool.labelled.index}


def test_a_query_is_pickled_without_its_data_set(query):
    again = pickle.loads(pickle.dumps(query))
    assert again.dl is None and query.dl is not None and copy.copy(query).dl is query.dl
    assert again.uids == query.uids and again.info == query.info
    pd.testing.assert_frame_equal(again.to_df(), query.to_df())
    assert again[:2].uids == query.uids[:2]
    assert again.joint_information() == pytest.approx(query.joint_information())
    again.show()


def test_a_table_is_written_once(query, tmp_path):
    file = query.to_csv(tmp_path / 'query.csv')
    query.to_csv(file)  # the same again
    again = pd.read_csv(file, index_col='uid', dtype={'uid': str})
    assert again.index.tolist() == query.uids and again.why.tolist() == list(query.columns['why'])
    file.write_text(file.read_text() + 'a,label\n')
    with pytest.raises(FileExistsError, match='has other contents.*labels'):
        query.to_csv(file)
    assert file.read_text().endswith('a,label\n')


def test_files_are_copied_and_none_is_lost(tmp_path):
    learn = picture_learner(tmp_path / 'photos')
    files = pictures(tmp_path / 'new', ['a/1.png', 'b/1.png', 'b/A_1.png', 'c/2.png'])
    with learn.no_bar():
        query = learn.acquire(4, files, 'entropy')
    copies = query.copy_to(tmp_path / 'copies')
    assert list(copies) == query.uids and len({c.name.casefold() for c in copies.values()}) == 4
    for uid, copied in copies.items():
        assert copied.read_bytes() == open(uid, 'rb').read()
    assert query.copy_to(tmp_path / 'copies') == copies  # an interrupted copy goes on
    with pytest.raises(FileExistsError, match='holds other files'):
        copies[query[0]].write_text('notes')
        query.copy_to(tmp_path / 'copies')
    assert copies[query[0]].read_text() == 'notes'
    files[0].unlink()
    with pytest.raises(FileNotFoundError, match='1.png'):
        query.copy_to(tmp_path / 'others')
    assert not (tmp_path / 'others').exists()


def test_what_is_no_file_is_written_as_a_table(query, tmp_path):
    with pytest.raises(ValueError, match=r'4 of 4 items are not files.*to_csv'):
        query.copy_to(tmp_path)


def test_files_of_a_pool_are_found(tmp_path):
    pictures(tmp_path, [f'{c}/{i}.png' for c in 'ab' for i in range(4)])
    table = pd.DataFrame(dict(name=[f'{c}/{i}.png' for c in 'ab' for i in range(4)]))
    for pool in (Pool.from_folder(tmp_path), Pool.from_df(table, 'name', root=tmp_path)):
        held = pool.draw_holdout(2)
        pool.label(held, [uid[0] for uid in held])
        known = pool.sample(3)
        pool.label(known, [uid[0] for uid in known])
        block = DataBlock((ImageBlock(PILImageBW), CategoryBlock(vocab=['a', 'b'])))
        net = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
        learn = ActiveLearner(Learner(pool.dataloaders(block, bs=2, num_workers=0), net), pool)
        with learn.no_bar():
            query = learn.acquire(3, by='entropy')
        assert query.files == [tmp_path / uid for uid in query]
        assert len(query.copy_to(tmp_path / f'.{id(pool)}')) == 3
        figure = pickle.loads(pickle.dumps(query)).show()
        assert sum(bool(ax.images) for ax in figure.axes) == 3
    plt.close('all')


@pytest.mark.parametrize('items', ['list', 'frame', 'tuple'])
def test_items_are_taken_where_a_dataloader_is(learn, items, query):
    numbers = list(learn.dls.valid_ds.items)
    given = dict(list=numbers, tuple=tuple(numbers), frame=None)[items]
    if items == 'frame':
        pool = small_pool()
        learner = Learner(
            pool.dataloaders(BLOCK, bs=8, num_workers=0), mlp(), CrossEntropyLossFlat()
        )
        with learner.no_bar():
            found = learner.acquire(3, pool.unlabelled, 'entropy')
            assert (
                found.uids
                == learner.acquire(3, learner.dls.test_dl(pool.unlabelled), 'entropy').uids
            )
            assert learner.predict_proba(pool.unlabelled).uids == pool.unlabelled.index.tolist()
        return
    with learn.no_bar():
        assert learn.acquire(4, given, 'bald').uids == query.uids
        assert len(learn.predict_proba(given).probs) == len(numbers)
        with pytest.raises(ValueError, match='no items'):
            learn.acquire(4, type(given)(), 'bald')


class Vectors:
    "Getter of the features of an item"

    def __call__(self, i):
        return features_of(i)


@pytest.mark.parametrize('by', ['max_herding', 'uncertainty_herding'])
def test_reasons_are_what_draws_and_kernel_say(learn, by):
    items = list(range(100, 160))
    frame = pd.DataFrame(
        [features_of(i).tolist() for i in [*items, *learn.dls.train_ds.items]],
        index=[str(i) for i in [*items, *learn.dls.train_ds.items]],
    )
    with learn.no_bar():
        query = learn.acquire(6, items, by, features=frame)
        proba = learn.predict_proba(items)
    df, names = query.to_df(), [0, 1, 2]
    for i, row in enumerate(df.itertuples()):
        best = query.draws[i].exp().mean(0).double().topk(2)
        assert row.prediction == names[best.indices[0]] and row.second == names[best.indices[1]]
        assert row.margin == pytest.approx(float(best.values[0] - best.values[1]), abs=1e-6)
        assert f'margin {row.margin:.0%}' in row.why
    # the cover of the pool, with and without each item
    unit = torch.nn.functional.normalize(torch.tensor(frame.to_numpy()))
    pool, known = unit[:60], unit[60:]
    u = torch.ones(60).double()
    if by == 'uncertainty_herding':
        top = proba.probs.double().topk(2).values
        u = 1 - (top[:, 0] - top[:, 1])
    picks = torch.tensor([items.index(int(uid)) for uid in query])

    def cover(chosen):
        near = torch.cdist(pool, torch.cat([known, pool[chosen]]))
        return float(u @ (-((near / query.info['radius']) ** 2)).exp().amax(1))

    whole = cover(picks)
    for i, row in enumerate(df.itertuples()):
        without = cover(picks[torch.arange(6) != i])
        assert whole - without == pytest.approx(row.stands_for, abs=2e-4)
        count = f'{row.stands_for:,.0f}'
        assert ('stands for' in row.why or row.stands_for < 0.5) and (
            row.stands_for < 1.5 or f'stands for {count} similar items' in row.why
        )
    # how much of the pool is nearer to the training set
    apart = torch.cdist(pool, known).amin(1)
    for uid, row in zip(query, df.itertuples()):
        share = (apart < apart[items.index(int(uid))] * (1 - 1e-5)).double().mean().item()
        assert row.nearer == pytest.approx(share, abs=1e-6)
        assert f'{share:.0%} of the pool is nearer to the training set' in row.why


def test_reasons_cost_no_pass(learn, monkeypatch):
    passes = []
    for module in (acquire, context, request):

        def counted(*args, run=module.pool_pass, **kwargs):
            passes.append(args)
            return run(*args, **kwargs)

        monkeypatch.setattr(module, 'pool_pass', counted)
    with learn.no_bar():
        query = learn.acquire(3, as_pool(learn), 'random')
        assert len(passes) == 2 and query.columns['why'][0].startswith('drawn at random · ')
        learn.acquire(3, as_pool(learn), 'uncertainty_herding')
    assert len(passes) == 2 + 3  # the pool, the labelled items, the chosen ones


def texts_of(figure):
    found = [t for ax in figure.axes for t in (ax.title, ax.xaxis.label) if t.get_text()]
    return [*found, figure._suptitle]


@pytest.mark.parametrize('size', [None, (4, 6)])
def test_titles_name_the_file_and_never_overlap(tmp_path, size):
    learn = picture_learner(tmp_path, cbs=MCDropout(k=3))
    long = 'a-rather-long-folder-name/with-a-subfolder/IMG_20240501_123456_'
    names = [f'{long}{i}.png' for i in range(5)] + ['$x_1^2$ <b>&.png', '日本.png']
    files = pictures(tmp_path, names)
    with learn.no_bar():
        query = learn.acquire(7, files, 'uncertainty_herding')
    query.predictions[0] = 'greater white-fronted goose, true: lesser white-fronted goose'
    figure = query.show(figsize=size, ncols=4)
    figure.canvas.draw()
    boxes = [t.get_window_extent() for t in texts_of(figure)]
    overlapping = [
        (i, j) for i, a in enumerate(boxes) for j, b in enumerate(boxes[:i]) if a.overlaps(b)
    ]
    assert not overlapping
    assert all(0 <= b.x0 and b.x1 <= figure.bbox.x1 for b in boxes)
    titles = {ax.get_title() for ax in figure.axes if ax.get_title()}
    assert len(titles) == 7 and all('\n' in t for t in titles)
    assert sum('.png\n' in t for t in titles) == 7
    below = [ax.get_xlabel().replace('\n', ' ') for ax in figure.axes if ax.get_xlabel()]
    assert len(below) == 7 and all('margin' in t for t in below)
    plt.close('all')
