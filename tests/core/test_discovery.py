"""A module is known by its place in a folder, and draws of a name are the same in every process"""

import subprocess
import sys
from pathlib import Path

import pytest

import fastai_al
from fastai_al.core.discovery import import_modules
from fastai_al.core.rng import generator, key_of, mix, uniform

PACKAGE = Path(fastai_al.__file__).parent


@pytest.mark.parametrize('package', ['acquisition', 'posterior', 'tasks', 'loop'])
def test_every_module_of_a_package_is_imported(package):
    files = {f.stem for f in (PACKAGE / package).glob('*.py')} - {'__init__'}
    names = import_modules(f'fastai_al.{package}')
    assert {name.rpartition('.')[2] for name in names} == files
    assert all(name in sys.modules for name in names)


def test_an_error_of_a_module_is_shown(tmp_path, monkeypatch):
    folder = tmp_path / 'unfinished'
    folder.mkdir()
    (folder / '__init__.py').touch()
    (folder / 'broken.py').write_text('1 / 0')
    monkeypatch.syspath_prepend(tmp_path)
    for _ in range(2):  # also when it is called again
        with pytest.raises(ZeroDivisionError):
            import_modules('unfinished')


def test_keys_are_the_same_in_every_process():
    code = 'from fastai_al.core.rng import key_of; print(key_of("a/1.png", 7))'
    told = [
        subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', code],
            capture_output=True,
            text=True,
            cwd=PACKAGE.parent,
            check=True,
        ).stdout
        for _ in range(2)
    ]
    assert {int(line) for line in told} == {key_of('a/1.png', 7)}
    assert key_of('a/1.png', 7) != key_of('a/1.png', 8) != key_of('a/2.png', 8)


def test_uniform_numbers_are_uniform():
    import torch

    numbers = uniform(torch.arange(100_000))
    assert 0 <= numbers.min() and numbers.max() < 1
    counts = torch.histc(numbers, 20, 0, 1)
    assert ((counts - 5000).abs() < 5 * 5000**0.5).all()
    assert len(mix(torch.arange(100_000)).unique()) == 100_000
    one, again = (torch.rand(5, generator=generator('draw', 3)) for _ in range(2))
    assert torch.equal(one, again)
