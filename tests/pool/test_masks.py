"""Masks on disk: whole or not there, inside their folder whatever an item is called, and on the
picture they are of"""

from pathlib import Path

import numpy as np
import pytest
from fastai.data.core import TfmdDL
from fastai.vision.augment import CropPad, RandomResizedCrop, Resize, ResizeMethod
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fastai_al.pool import masks as module
from fastai_al.pool.masks import check_alignment, mask_label, read_mask, resize_mask, write_mask

PAINTED = np.arange(12, dtype=np.uint8).reshape(3, 4)


@pytest.mark.parametrize(
    'uid',
    [
        'x.png',
        'x.jpg',
        'sub/x.png',
        '../x.png',
        '/etc/x.png',
        'a/../../x.png',
        '..',
        '.',
        '',
        'a\0b',
        'y' * 300,
        'ä b#?.png',
        'x.png/',
        'C:\\x',
    ],
)
def test_a_mask_lies_in_its_folder_whatever_the_item_is_called(tmp_path, uid):
    root = tmp_path / 'root'
    path = write_mask(PAINTED, uid, root / '.masks')
    assert path.resolve().is_relative_to(root / '.masks') and np.array_equal(
        np.asarray(Image.open(path)), PAINTED
    )
    label = mask_label(path, root)
    assert label == path.relative_to(root).as_posix() and np.array_equal(
        read_mask(label, root, root / '.masks'), PAINTED
    )
    assert (
        write_mask(PAINTED, uid, root / '.masks') == path
        and len([f for f in root.rglob('*') if f.is_file()]) == 1
    )
    other = write_mask(PAINTED + 1, uid, root / '.masks')
    assert other != path and np.array_equal(
        np.asarray(Image.open(path)), PAINTED
    )  # the first version is as it was


def test_items_have_files_of_their_own(tmp_path):
    uids = ['x.png', 'x.jpg', 'sub/x.png', '../x.png', '/x.png', '..', 'y' * 300, 'y' * 301]
    assert len({write_mask(PAINTED, u, tmp_path) for u in uids}) == len(uids)


def test_a_mask_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(
        module.os, 'replace', lambda *a: (_ for _ in ()).throw(OSError('disk full'))
    )
    with pytest.raises(OSError):
        write_mask(np.zeros((2, 2)), '../../x.png', tmp_path / '.masks')
    assert not list(tmp_path.rglob('*.png'))


def test_nothing_from_elsewhere_is_read(tmp_path):
    root = tmp_path / 'root'
    root.mkdir()
    Image.new('L', (2, 2)).save(tmp_path / 'secret.png')
    (root / 'link.png').symlink_to(tmp_path / 'secret.png')
    (root / 'text.png').write_text('no picture')
    for label in (
        '../secret.png',
        str(tmp_path / 'secret.png'),
        'link.png',
        'text.png',
        'gone.png',
        '.',
        '',
        None,
        3,
        ['x'],
        'a\0b',
    ):
        assert read_mask(label, root, root / '.masks') is None
    assert read_mask(str(tmp_path / 'secret.png'), root, tmp_path).shape == (
        2,
        2,
    )  # the folder of masks may lie elsewhere
    assert (
        mask_label(tmp_path / 'secret.png', root)
        == (tmp_path / 'secret.png').as_posix()
        == mask_label(tmp_path / 'secret.png', None)
    )


def test_labels_of_masks_in_relative_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('root').mkdir()
    for folder in (Path('root/.masks'), Path('beside')):
        label = mask_label(write_mask(PAINTED, '1.png', folder), tmp_path / 'root')
        assert np.array_equal(read_mask(label, tmp_path / 'root', folder), PAINTED)
        assert label.startswith('.masks/' if folder.name == '.masks' else f'{tmp_path}/beside/')
    assert mask_label(Path('beside/1.png'), None) == f'{tmp_path}/beside/1.png'


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_a_mask_made_larger_repeats_its_pixels(height, width, times):
    mask = np.random.default_rng(height * width).integers(0, 5, (height, width), dtype=np.uint8)
    assert np.array_equal(
        resize_mask(mask, (width * times, height * times)), mask.repeat(times, 0).repeat(times, 1)
    )


@pytest.mark.parametrize(
    'tfms, size, why',
    [
        ([Resize(8, ResizeMethod.Squish)], (30, 20), None),
        ([Resize((8, 12), ResizeMethod.Crop)], (30, 20), None),
        ([], (12, 8), None),
        ([Resize(8, ResizeMethod.Crop)], (30, 20), 'was cropped'),
        ([Resize(8, ResizeMethod.Pad)], (20, 30), 'was cropped'),
        ([CropPad(8)], (20, 20), 'are cropped'),
        ([RandomResizedCrop(8)], (20, 20), 'are cropped'),
    ],
)
def test_predictions_fit_the_picture_or_are_refused(tfms, size, why):
    dl, shape = (
        TfmdDL([1], bs=1, after_item=tfms),
        (8, 12)
        if size != (20, 20)
        and why is None
        and tfms
        and tfms[0].method == ResizeMethod.Crop
        or not tfms
        else (8, 8),
    )
    if why is None:
        check_alignment(dl, {'x': size}, shape)
    else:
        with pytest.raises(ValueError, match=why):
            check_alignment(dl, {'x': size}, shape)
