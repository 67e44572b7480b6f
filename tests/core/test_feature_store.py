"""Rows on disk are those that were written, or missing, with any number
of writers and whatever happens to the files"""

import errno
import json
import os

import numpy as np
import pytest

from conftest import forked
from fastai_al import FastaiALWarning
from fastai_al.core.feature_store import (
    FeatureStore,
    digest,
    erase_features,
    features_folder,
    name_digest,
)


def names(n, first=0):
    return [name_digest(str(i)) for i in range(first, first + n)]


def rows_of(n, first=0, columns=4):
    return np.arange(first, first + n, dtype='float32')[:, None] + np.arange(columns) / 8


def put(store, n, first=0, columns=4, content=b'x'):
    rows = rows_of(n, first, columns)
    store.put(names(n, first), [digest(content)] * n, [(1, 2)] * n, rows)
    return rows


def whole(store, n):
    "Whether a new reader finds items 0 to n - 1, each with its own row"
    fresh = FeatureStore(store.folder)
    assert fresh.check() == 0 and len(fresh) == n
    matrix = fresh.matrix()
    slots = [fresh.get(name).slot for name in names(n)]
    np.testing.assert_array_equal(matrix[slots], rows_of(n))
    return True


def test_rows_are_kept_replaced_and_mapped(tmp_path):
    store = FeatureStore(tmp_path / 'a')
    assert not len(store) and store.columns is None and store.check() == 0
    assert store.matrix().shape == (0, 0) and not (tmp_path / 'a').exists()
    put(store, 3)
    put(store, 3, 3)
    assert whole(store, 6)
    other = FeatureStore(store.folder)
    put(store, 2, 6)
    assert name_digest('7') not in other
    other.refresh()
    assert name_digest('7') in other and isinstance(other.matrix(), np.memmap)
    with pytest.raises(ValueError, match='has 5 features, but earlier items have 4'):
        put(store, 1, 9, columns=5)
    store.put(names(1), [digest(b'new')], [(3, 4)], np.full((1, 4), 9.0))
    assert store.get(names(1)[0]).content == digest(b'new') and store.gaps == 0
    np.testing.assert_array_equal(FeatureStore(store.folder).matrix()[0], 9)


def test_half_precision_is_kept(tmp_path):
    store = FeatureStore(tmp_path)
    store.put(names(2), [b'\0' * 16] * 2, [(-1, 0)] * 2, rows_of(2).astype('float16'))
    assert FeatureStore(tmp_path).matrix().dtype == np.float16


@pytest.mark.parametrize('file', ['rows-0.bin', 'index-0.bin'])
@pytest.mark.parametrize('place', [0, 40, -1])
def test_a_damaged_byte_costs_its_row(tmp_path, file, place):
    store = FeatureStore(tmp_path)
    put(store, 5)
    data = bytearray((tmp_path / file).read_bytes())
    data[place] ^= 255
    (tmp_path / file).write_bytes(data)
    damaged = FeatureStore(tmp_path)
    assert damaged.check() == 1 and len(damaged) == 4 and damaged.gaps == 1
    missing = next(i for i, name in enumerate(names(5)) if name not in damaged)
    put(damaged, 1, missing)
    assert len(damaged) == 5
    damaged.keep(names(5))
    assert whole(damaged, 5)


@pytest.mark.parametrize(
    'file, left', [('rows-0.bin', 37), ('index-0.bin', 130), ('rows-0.bin', 0)]
)
def test_a_file_that_was_cut(tmp_path, file, left):
    store = FeatureStore(tmp_path)
    put(store, 5)
    os.truncate(tmp_path / file, left)
    cut = FeatureStore(tmp_path)
    cut.check()
    found = len(cut)
    assert found == {37: 2, 130: 2, 0: 0}[left]
    put(cut, 5 - found, found)
    cut.keep(names(5))
    assert whole(cut, 5)


@pytest.mark.parametrize('text', ['', '{', '{"format": 9}', '[]', '{"format": 1, "columns": 0}'])
def test_a_damaged_description_starts_again(tmp_path, text):
    store = FeatureStore(tmp_path)
    put(store, 5)
    (tmp_path / 'about.json').write_text(text)
    with pytest.warns(FastaiALWarning, match='damaged or of another version'):
        again = FeatureStore(tmp_path)
    assert not len(again)
    with pytest.warns(FastaiALWarning):
        put(again, 3)
    assert whole(again, 3)


def test_a_full_disk(tmp_path, monkeypatch):
    resource = pytest.importorskip('resource')
    store = FeatureStore(tmp_path)
    put(store, 5)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # five rows have 80 bytes
    try:
        with pytest.raises(OSError, match='could not be written to .*call again') as error:
            put(store, 5, 5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert error.value.__cause__.errno == errno.EFBIG
    assert os.path.getsize(tmp_path / 'rows-0.bin') == 100 and whole(store, 5)
    put(store, 5, 5)
    assert whole(store, 10)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(OSError, match='could not be written'):
        put(FeatureStore(tmp_path / 'file' / 'folder'), 1)


def _dies(folder):
    "Write rows but not their entries"
    from fastai_al.core import feature_store

    write = feature_store._write_at

    def once(file, *args):
        write(file, *args)
        os._exit(1)

    feature_store._write_at = once
    put(FeatureStore(folder), 5, 5)


def test_a_writer_that_dies_leaves_nothing_half_written(tmp_path):
    put(store := FeatureStore(tmp_path), 5)
    child = forked().Process(target=_dies, args=(tmp_path,))
    child.start()
    child.join()
    assert child.exitcode == 1 and whole(store, 5)  # and its lock is gone
    put(store, 5, 5)
    assert whole(store, 10)


def _fills(folder, order):
    store = FeatureStore(folder)
    for i in order:
        put(store, 1, i)


def test_two_processes_fill_one_store(tmp_path):
    children = [
        forked().Process(target=_fills, args=(tmp_path, order))
        for order in (range(40), range(39, -1, -1))
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert whole(FeatureStore(tmp_path), 40)


def test_a_reader_follows_when_rows_are_dropped(tmp_path):
    reader, writer = FeatureStore(tmp_path), FeatureStore(tmp_path)
    put(writer, 6)
    reader.refresh()
    mapped = reader.matrix()
    writer.keep(names(3))
    np.testing.assert_array_equal(mapped, rows_of(6))  # the old file, as long as it is used
    put(reader, 3, 3)
    assert whole(writer, 6) and reader.get(names(1, 5)[0]).slot == 5
    assert len(list(tmp_path.glob('rows-*'))) == 1
    assert json.loads((tmp_path / 'about.json').read_text())['files'] == 1
    writer.keep(())
    assert whole(writer, 0)


def test_erasing_deletes_the_bytes_of_an_item_from_every_network(tmp_path):
    ledger = tmp_path / 'labels.db'
    assert features_folder(ledger) == tmp_path / 'labels.features'
    assert features_folder(':memory:') is None
    erase_features(ledger, ['1'])  # there is nothing yet
    stores = [FeatureStore(features_folder(ledger) / name) for name in 'ab']
    for store in stores:
        put(store, 3)
    erase_features(ledger, ['1'])
    for store in stores:
        store.refresh()
        assert len(store) == 2 and name_digest('1') not in store
        left = b''.join(f.read_bytes() for f in store.folder.iterdir())
        assert rows_of(1, 1).tobytes() not in left and name_digest('1') not in left
