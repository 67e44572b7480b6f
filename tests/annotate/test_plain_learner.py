"""`annotate` of a learner that has no pool makes one, whose ledger lies in the learner's folder"""

import numpy as np
import pandas as pd
import pytest
from fastai.basics import CategoryBlock, CrossEntropyLossFlat, DataBlock, Learner
from fastai.data.transforms import ColReader, RandomSplitter
from fastai.vision.all import ImageBlock, PILImageBW
from PIL import Image
from torch import nn

from conftest import classes_learner, pool_learner, small_pool
from fastai_al.active_learner import ActiveLearner
from fastai_al.pool.pool import Pool

NET = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp('photos')
    for i in range(12):
        name = folder / ('ab'[i % 2]) / f'{i // 2}.png'
        name.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8), 20 * i, np.uint8)).save(name)
    return folder


def files_learner(photos, path):
    block = DataBlock(
        (ImageBlock(PILImageBW), CategoryBlock(vocab=['a', 'b'])),
        get_items=lambda folder: sorted(folder.rglob('*.png'))[:8],
        get_y=lambda f: f.parent.name,
        splitter=RandomSplitter(0.3, seed=0),
    )
    dls = block.dataloaders(photos, bs=2, num_workers=0)
    return Learner(dls, NET, CrossEntropyLossFlat(), path=path)


def answer(panel, place, value):
    (reply,) = panel.receive(
        dict(type='say', seq=1, place=place, kind='label', value=value, panel='p')
    )[:1]
    return reply


def test_a_query_of_files(photos, tmp_path, capsys):
    learn = files_learner(photos, tmp_path)
    files = sorted(photos.rglob('*.png'))[8:]
    with learn.no_bar():
        query = learn.acquire(3, files, 'entropy')
    panel = learn.annotate(query, annotator='anna')
    assert str(tmp_path / 'labels.db') in capsys.readouterr().out
    assert panel.session.uids == query.uids and panel.question.classes == ('a', 'b')
    ((item, _),) = panel.receive(dict(type='want', places=[0], panel='p'))
    assert item['view']['kind'] == 'image' and item['guessWords'] == query.predictions[0]
    answer(panel, 0, 1)
    panel.pool.close()
    again = Pool.open(tmp_path / 'labels.db')
    assert again.labelled['label'].to_dict() == {query[0]: 'b'}
    assert again.labelled['item'].tolist() == [files[files.index(type(files[0])(query[0]))]]
    again.close()
    more = learn.annotate(files, annotator='anna')  # the same ledger, with more items
    assert len(more.pool) == len(files) and len(more.pool.labelled) == 1
    more.pool.close()


def test_the_file_can_be_named(photos, tmp_path):
    learn = files_learner(photos, tmp_path)
    panel = learn.annotate(sorted(photos.rglob('*.png'))[:2], db=tmp_path / 'mine.db')
    assert panel.pool.ledger.path == str(tmp_path / 'mine.db')
    assert not (tmp_path / 'labels.db').exists()
    panel.pool.close()


def test_rows_of_a_frame(photos, tmp_path):
    df = pd.DataFrame(dict(name=[f'{c}/{i}' for c in 'ab' for i in range(4)]))
    block = DataBlock(
        (ImageBlock(PILImageBW), CategoryBlock(vocab=['a', 'b'])),
        get_x=ColReader('name', pref=photos, suff='.png'),
        get_y=lambda row: row['name'][0],
        splitter=RandomSplitter(0.3, seed=0),
    )
    dls = block.dataloaders(df, bs=2, num_workers=0)
    learn = Learner(dls, NET, CrossEntropyLossFlat(), path=tmp_path)
    new = pd.DataFrame(dict(name=['a/4', 'b/5'], label=[None, None]), index=[70, 71])
    with learn.no_bar():
        query = learn.acquire(2, new, 'entropy')
    panel = learn.annotate(query)
    ((item, _),) = panel.receive(dict(type='want', places=[0], panel='p'))
    assert item['view']['kind'] == 'image' and {*query} == {'70', '71'}
    answer(panel, 0, 0)
    assert panel.pool.labelled.index.tolist() == [query[0]]
    panel.pool.close()
    frame = learn.annotate(new, db=tmp_path / 'frame.db')
    assert frame.session.uids == ['70', '71']
    frame.pool.close()


def test_items_that_are_numbers(tmp_path):
    learn = classes_learner(path=tmp_path)
    with learn.no_bar():
        query = learn.acquire(2, list(range(50, 60)), 'entropy')
    panel = learn.annotate(query, show=lambda row: f'number {row["item"]}', classes=[0, 1, 2])
    answer(panel, 1, 2)
    assert panel.pool.labelled['label'].to_dict() == {query[1]: 2}
    panel.pool.close()


def test_a_learner_with_a_pool_uses_it(tmp_path):
    pool = small_pool(db=tmp_path / 'pool.db')
    learn = ActiveLearner(pool_learner(pool), pool)
    panel = learn.learn.annotate(pool.unlabelled.index[:2])
    assert panel.pool is pool
    with pytest.raises(ValueError, match='this learner has a pool'):
        learn.learn.annotate(['20'], db=tmp_path / 'other.db')
    with pytest.raises(TypeError):
        learn.annotate(['20'], db=tmp_path / 'other.db')
