"""The embeddings of a pool: their place beside the ledger, who uses them, and duplicates"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import fastai_al.acquire.cold_start  # noqa: F401 (they add methods)
import fastai_al.acquire.duplicates  # noqa: F401
from conftest import features_of, pool_learner, small_pool
from fastai_al.acquire.embeddings import values_of
from fastai_al.active_learner import ActiveLearner
from fastai_al.pool.pool import Pool

TEXTS = [f'a message about {what} {i}' for i in range(4) for what in ('cats', 'dogs', 'cars')]


def rows(items):
    "The features of the items of `small_pool`"
    return np.stack([features_of(i).numpy() for i in items])


def mean_colour(files):
    return np.stack([np.asarray(Image.open(f), dtype=float).mean((0, 1)) for f in files])


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / 'pictures'
    folder.mkdir()
    for i in range(6):
        Image.new('RGB', (4, 4), (40 * i, 255 - 40 * i, 10)).save(folder / f'{i}.png')
    return folder


def test_a_store_beside_the_ledger(tmp_path, pictures):
    pool = Pool.from_folder(pictures, db=tmp_path / 'labels.db')
    frame = pool.embed(mean_colour)
    assert frame.index.tolist() == pool.rows.index.tolist() and frame.shape == (6, 3)
    (folder,) = (tmp_path / 'labels.features').iterdir()
    assert folder.name.startswith('mean_colour-')
    pool.forget(['2.png'])
    assert (folder / 'index-1.bin').stat().st_size == 5 * 56
    pool.close()
    (pictures / '2.png').unlink()
    Image.new('RGB', (4, 4)).save(pictures / '7.png')
    pool = Pool.from_folder(pictures, db=tmp_path / 'labels.db')
    assert pool.embed(mean_colour).loc['7.png'].tolist() == [0, 0, 0]
    pool.ignore('7.png', annotator='me')
    (pictures / '7.png').write_bytes(b'')
    assert len(pool.embed(mean_colour)) >= 5  # not computed, so not an error
    pool.close()


def test_a_ledger_in_memory_leaves_nothing_behind():
    pool = Pool(TEXTS)
    assert pool.embed().shape[0] == 12
    folder = Path(pool.session.notes['features'].name)
    assert folder.exists()
    del pool
    assert not folder.exists()


def test_what_items_are(tmp_path, pictures):
    assert values_of(Pool(TEXTS)) == TEXTS
    assert values_of(Pool([1, 2])) == [1, 2]
    assert values_of(Pool.from_folder(pictures))[0] == pictures / '0.png'
    table = pd.DataFrame(dict(name=['a', 'b'], age=[1, 2], sex=['f', 'm']))
    assert values_of(Pool.from_df(table, ['age', 'sex'], uid='name')) == [(1, 'f'), (2, 'm')]
    two = pd.DataFrame(dict(name=['a'], title=['On the growth of trees'], text=['Trees do grow.']))
    assert values_of(Pool.from_df(two, ['title', 'text'], uid='name')) == [
        'On the growth of trees\nTrees do grow.'
    ]
    paths = pd.DataFrame(dict(file=[str(pictures / '1.png')]))
    assert values_of(Pool.from_df(paths, 'file')) == [pictures / '1.png']
    (pictures / '0.png').rename(pictures / '9.png')
    with pytest.raises(FileNotFoundError, match='no file'):
        values_of(Pool.from_df(pd.DataFrame(dict(file=['0.png'])), 'file', root=pictures))


def test_refusals():
    with pytest.raises(ValueError, match='nothing to embed'):
        Pool([]).embed()
    with pytest.raises(ValueError, match='items that are int'):
        Pool([1, 2]).embed()
    learn = pool_learner(small_pool())
    dl = learn.dls.test_dl(learn.dls.valid_ds.items)
    with pytest.raises(ValueError, match='no pool to embed'):
        learn.acquire(2, dl, 'kcenter', features='auto')
    with pytest.raises(ValueError, match="features='pixels'"):
        learn.acquire(2, dl, 'kcenter', features='pixels')


def test_typical_items_take_embeddings_by_default(tmp_path):
    pool = Pool(range(60), db=tmp_path / 'labels.db')
    frame = pool.embed(rows)
    chosen = pool.typical(5)
    assert chosen == pool.typical(5, pd.DataFrame(frame)) != pool.typical(5, by='kcenter')
    pool.label(chosen, [0] * 5)
    pool.close()
    again = Pool(range(60), db=tmp_path / 'labels.db')  # the same cell after a restart
    again.embed(rows)
    assert again.typical(5) == chosen
    again.close()


def test_acquire_and_triage_take_embeddings(recwarn):
    pool = small_pool()
    learn = ActiveLearner(pool_learner(pool), pool)
    frame = pd.DataFrame(pool.embed(rows))
    with learn.no_bar(), learn.no_logging():
        query = learn.acquire(4, by='kcenter', features='auto')
        assert query.info['features'] == '6 columns of a frame'
        same = learn.learn.acquire(4, learn.dls.test_dl(pool.unlabelled), 'kcenter', features=frame)
        assert query.uids == same.uids
        assert learn.acquire(4, by='kcenter', features='auto').uids == query.uids
        found = learn.triage(0.5, features='auto')
        given = learn.triage(0.5, features=frame)
    assert found.frame.equals(given.frame)


# Duplicates


def test_duplicates_of_files(pictures):
    (pictures / '8.png').write_bytes((pictures / '1.png').read_bytes())
    (pictures / '9.png').write_bytes((pictures / '1.png').read_bytes())
    Image.new('RGB', (4, 4), (121, 135, 10)).save(pictures / '7.png')  # nearly that of 3.png
    pool = Pool.from_folder(pictures)
    pool.embed(mean_colour)
    pairs = pool.duplicates(0.9999)
    assert pairs[['uid', 'other', 'exact']].values.tolist() == [
        ['1.png', '8.png', True],
        ['1.png', '9.png', True],
        ['3.png', '7.png', False],
    ]
    assert pairs.similarity[:2].tolist() == [1, 1] and 0.9999 <= pairs.similarity[2] < 1
    pool.ignore('8.png', annotator='me')
    assert len(pool.duplicates(0.9999)) == 2
    assert len(pool.duplicates(1)) == 1


def test_leaks_come_first_and_training_items_are_named_first():
    texts = ['once more', 'one of a kind', 'twice and again', 'the last of all', 'nothing else']
    pool = Pool(texts * 4, uids=[f'{t[:4]}{i}' for i in range(4) for t in texts])
    held = pool.draw_holdout(6)
    pool.label(pool.sample(8), ['x'] * 8)
    pairs = pool.duplicates()
    assert len(pairs) == 15 and pairs.exact.all()
    of = {u: pool.state(u).status for u in pool.rows.index}
    assert pairs.status.tolist() == [of[u] for u in pairs.uid]
    assert pairs.other_status.tolist() == [of[u] for u in pairs.other]
    leaks = pairs[pairs.leak]
    assert set(leaks.other) == {
        u for u in held if any(of[f'{u[:4]}{i}'] == 'labelled' for i in range(4))
    }
    assert pairs.leak.tolist() == sorted(pairs.leak, reverse=True) and len(leaks)


def test_no_duplicates_and_too_many(monkeypatch):
    apart = Pool(range(6))
    apart.embed(lambda items: np.eye(6)[list(items)])
    assert apart.duplicates().empty and list(apart.duplicates().columns)[:2] == ['uid', 'status']
    monkeypatch.setattr(fastai_al.acquire.duplicates, '_MAX_PAIRS', 1000)
    alike = Pool(range(100))
    alike.embed(lambda items: np.ones((len(items), 2)))
    with pytest.raises(ValueError, match='More than 1,000 pairs'):
        alike.duplicates()
    for similarity in (0, 1.5, 'x'):
        with pytest.raises(ValueError, match='similarity='):
            apart.duplicates(similarity)
    one = Pool(['a single text'])
    assert one.duplicates().empty
