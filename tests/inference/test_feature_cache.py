"""Passes with kept features of frozen layers equal those without, and notice what has changed"""

import numpy as np
import pytest
import torch
from fastai.basics import Callback, CategoryBlock, DataBlock, Learner
from fastai.callback.training import BnFreeze
from fastai.losses import CrossEntropyLossFlat
from fastai.vision.all import ImageBlock, Resize
from PIL import Image
from torch import nn

import fastai_al.inference.predict  # noqa: F401 (it adds methods)
from fastai_al import FastaiALWarning
from fastai_al.active_learner import ActiveLearner
from fastai_al.core.feature_store import FeatureStore
from fastai_al.inference import feature_cache
from fastai_al.inference.feature_cache import frozen_layers
from fastai_al.pool.pool import Pool
from fastai_al.posterior.base import Point
from fastai_al.posterior.dropout import MCDropout

N = 40


class Body(nn.Module):
    "Counts the items that it sees, where no pass restores the number"

    seen = [0]

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)

    def forward(self, x):
        self.seen[0] += len(x)
        return self.norm(self.conv(x)).relu().mean((2, 3))


def picture(folder, i):
    rng = np.random.default_rng(i)
    Image.fromarray((rng.random((12, 12, 3)) * 255).astype('uint8')).save(folder / f'{i:02}.png')


@pytest.fixture
def learn(tmp_path):
    torch.manual_seed(0)
    folder = tmp_path / 'pictures'
    folder.mkdir()
    for i in range(N):
        picture(folder, i)
    pool = Pool.from_folder(folder, db=tmp_path / 'labels.db')
    for uids in (pool.draw_holdout(6), pool.sample(8)):
        pool.label(uids, ['ab'[int(u[1]) % 2] for u in uids])
    block = DataBlock((ImageBlock, CategoryBlock(vocab=['a', 'b'])), item_tfms=Resize(10))
    model = nn.Sequential(Body(), nn.Sequential(nn.Dropout(0.4), nn.Linear(6, 2)))
    model[0].requires_grad_(False)
    made = Learner(
        pool.dataloaders(block, bs=8, num_workers=0),
        model,
        CrossEntropyLossFlat(),
        cbs=[BnFreeze(), MCDropout(k=5)],
    )
    made.remove_cb(made.progress)
    yield ActiveLearner(made, pool)
    pool.close()


def items_of(learn):
    return learn.dls.test_dl(learn.pool.unlabelled)


def predicted(learn, dl=None, **kwargs):
    "Draws of the unlabelled items, and how many items the body saw"
    Body.seen[0] = 0
    batch = learn.draws(items_of(learn) if dl is None else dl, **kwargs).collect()
    return batch, Body.seen[0]


def without(learn, **kwargs):
    cache = learn.feature_cache
    learn.remove_cb(cache)
    batch, _ = predicted(learn, **kwargs)
    learn.add_cb(cache)
    return batch


def test_kept_features_give_the_same_draws(learn):
    expected = without(learn)
    first, seen = predicted(learn)
    again, spared = predicted(learn)
    n = len(learn.pool.unlabelled)
    assert seen - spared == n and spared < 12
    for batch in (first, again):
        assert batch.uids == expected.uids and batch.indices == expected.indices
        torch.testing.assert_close(batch.outputs, expected.outputs, rtol=1e-6, atol=1e-6)
    features = learn.draws(items_of(learn), features=True).collect().features
    learn.remove_cb(learn.feature_cache)
    own = learn.draws(items_of(learn), features=True).collect().features
    torch.testing.assert_close(features, own, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('by', ['entropy', 'bald', 'kcenter', 'badge'])
def test_queries_are_the_same(learn, by):
    cache = learn.feature_cache
    with_cache = learn.learn.acquire(5, items_of(learn), by)
    learn.remove_cb(cache)
    assert learn.learn.acquire(5, items_of(learn), by).uids == with_cache.uids


def test_targets_come_without_the_pictures(learn):
    rows = learn.pool.labelled
    dl = learn.dls.test_dl(rows, with_labels=True)
    expected = without(learn, dl=dl)
    feature_cache._MIN_ITEMS, least = 4, feature_cache._MIN_ITEMS
    try:
        predicted(learn, dl)
        batch, seen = predicted(learn, dl)
    finally:
        feature_cache._MIN_ITEMS = least
    assert seen < 12 and torch.equal(batch.targets[0], expected.targets[0])
    torch.testing.assert_close(batch.outputs, expected.outputs, rtol=1e-6, atol=1e-6)


def test_a_changed_file_is_computed_again(learn):
    predicted(learn)
    uid = learn.pool.unlabelled.index[3]
    Image.new('RGB', (12, 12), 'red').save(learn.pool.root / uid)
    with pytest.warns(FastaiALWarning, match='1 items have changed'):
        batch, _ = predicted(learn)
    torch.testing.assert_close(batch.outputs, without(learn).outputs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('what', ['weights', 'statistics', 'transform'])
def test_changed_layers_and_transforms_are_noticed(learn, what):
    predicted(learn)
    with torch.no_grad():
        if what == 'weights':
            learn.model[0].conv.weight[0, 0, 0, 0] += 1
        elif what == 'statistics':
            learn.model[0].norm.running_mean += 1
    if what == 'transform':
        learn.dls.valid.after_item.fs[0].__dict__.update(size=(5, 5))
    expected = without(learn)
    noticed = 'have changed since features were kept|not those of the learner now'
    with pytest.warns(FastaiALWarning, match=noticed):  # by the versions of fastai
        batch, seen = predicted(learn)
    assert seen > 20
    torch.testing.assert_close(batch.outputs, expected.outputs, rtol=1e-6, atol=1e-6)


def test_what_names_do_not_show_is_found_by_the_spot_check(learn):
    predicted(learn)
    (folder,) = learn.feature_cache.folder.iterdir()
    store = FeatureStore(folder)
    names, rows = store.names(), store.matrix() + 1  # as if another transform had made them
    entries = [store.get(name) for name in names]
    store.put(names, [e.content for e in entries], [(e.size, e.time) for e in entries], rows)
    with pytest.warns(FastaiALWarning, match='not those of the learner now'):
        batch, _ = predicted(learn)
    torch.testing.assert_close(batch.outputs, without(learn).outputs, rtol=1e-6, atol=1e-6)


def test_a_damaged_row_is_computed_again(learn):
    predicted(learn)
    (rows,) = learn.feature_cache.folder.glob('*/rows-0.bin')
    data = bytearray(rows.read_bytes())
    data[30] ^= 255
    rows.write_bytes(data)
    with pytest.warns(FastaiALWarning, match='1 rows in .* are damaged'):
        batch, _ = predicted(learn)
    torch.testing.assert_close(batch.outputs, without(learn).outputs, rtol=1e-6, atol=1e-6)


class Shifts(Callback):
    "Changes inputs"

    def before_batch(self):
        self.learn.xb = tuple(x + 1 for x in self.xb)


@pytest.mark.parametrize(
    'change',
    [
        lambda learn: learn.model.requires_grad_(True),
        lambda learn: learn.remove_cb(BnFreeze),
        lambda learn: learn.add_cb(Shifts()),
    ],
    ids=['trained', 'statistics', 'inputs'],
)
def test_what_is_not_frozen_is_not_kept(learn, change):
    change(learn.learn)
    _, seen = predicted(learn)
    assert predicted(learn)[1] == seen and not learn.feature_cache.folder.exists()


def test_a_posterior_that_draws_pictures_reads_them(learn):
    class Twice(Point):
        def read(self, dl):
            return ([batch] for batch in dl)

    _, seen = predicted(learn, posterior=Twice())
    assert seen >= 26 and not learn.feature_cache.folder.exists()


def test_a_broken_file_is_reported_as_ever(learn):
    (learn.pool.root / learn.pool.unlabelled.index[2]).write_bytes(b'')
    with pytest.raises(ValueError, match='cannot be read'):
        predicted(learn)


def test_a_full_disk_does_not_stop_a_pass(learn, monkeypatch):
    def full(*args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('fastai_al.core.feature_store._write_at', full)
    with pytest.warns(FastaiALWarning, match='not kept this time'):
        batch, _ = predicted(learn)
    torch.testing.assert_close(batch.outputs, without(learn).outputs, rtol=1e-6, atol=1e-6)


def test_rounds_keep_features_of_a_frozen_body(learn):
    with learn.no_logging():
        learn.acquire(4, by='entropy')
        learn.fit(1)
        Body.seen[0] = 0
        learn.acquire(4, by='entropy', round=None)
    folders = [*learn.feature_cache.folder.iterdir()]
    assert len(folders) == 1 and Body.seen[0] < 60


def test_frozen_layers_that_are_shared_are_not_skipped():
    layer = nn.Linear(3, 3).requires_grad_(False)
    assert frozen_layers(nn.Sequential(layer, layer, nn.Linear(3, 2))) == []
    assert frozen_layers(nn.Sequential(layer, nn.Linear(3, 2), layer)) == []
    assert frozen_layers(nn.Sequential(layer, nn.Linear(3, 2))) == [layer]
    assert frozen_layers(nn.Sequential(layer)) == [] == frozen_layers(layer)
    assert frozen_layers(nn.Sequential(nn.Flatten(), nn.Linear(3, 2))) == []
