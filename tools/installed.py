"""Try a wheel or an sdist as its user gets it: installed, and away from the checkout

python -m build && python tools/installed.py dist/fastai_al-0.15.0-py3-none-any.whl

It is installed in a new environment, which sees the requirements of this one but not its
`fastai_al`. There every module is imported, and `python -m fastai_al` runs for a few seconds.
"""

import os
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
import zipfile
from argparse import ArgumentParser
from pathlib import Path

NEEDED = 'fastai_al/py.typed', 'fastai_al/annotate/panel/panel.js', 'fastai_al/posterior/dropout.py'
UNWANTED = 'tests/', 'nbs/', 'benchmarks/', 'tools/', '_docs/', '_proc/'
IMPORTS = """
import importlib, pathlib, pkgutil, sys
from importlib.metadata import version

import fastai_al

home = pathlib.Path(fastai_al.__file__).resolve()
assert home.is_relative_to(pathlib.Path(sys.prefix).resolve()), home
assert version('fastai_al') == fastai_al.__version__, version('fastai_al')
names = [m.name for m in pkgutil.walk_packages(fastai_al.__path__, 'fastai_al.')]
for name in names:
    importlib.import_module(name)
files = [f for f in home.parent.rglob('*.py') if f.name != '__init__.py']
packages = [f for f in home.parent.rglob('*') if f.is_dir() and (f / '__init__.py').exists()]
assert len(names) == len(files) + len(packages), (len(names), len(files), len(packages))
print(f'fastai_al {fastai_al.__version__}: {len(names)} modules imported')
"""
SHORT = '--rounds 1 --seeds 1 --n 5 --k 4 --steps 10 --out al_digits'.split()


def files_in(dist: Path) -> list[str]:
    "Paths in a wheel, or in an sdist below its folder"
    if dist.suffix == '.whl':
        with zipfile.ZipFile(dist) as file:
            return file.namelist()
    with tarfile.open(dist) as file:
        return [name.partition('/')[2] for name in file.getnames()]


def check_files(dist: Path):
    "An error if a file that is needed is missing, or one is there that has no place in it"
    names = files_in(dist)
    missing = [name for name in NEEDED if name not in names]
    wrong = [name for name in names if name.startswith(UNWANTED)]
    if missing or wrong:
        sys.exit(f'{dist.name} lacks {missing} and should not hold {wrong[:5]}')


def bare(folder: Path) -> Path:
    "The Python of a new environment that sees this one's requirements"
    venv.create(folder, with_pip=False)
    python = folder / ('Scripts/python.exe' if os.name == 'nt' else 'bin/python')
    paths = {'base': str(folder), 'platbase': str(folder)}
    own = Path(sysconfig.get_path('purelib', 'venv', vars=paths))
    # a path in a .pth is searched last, and .pth files in it (of editable installs) are not read
    (own / 'requirements.pth').write_text(f'{sysconfig.get_path("purelib")}\n', 'utf-8')
    return python


def run(*command, **kwargs) -> str:
    "What a command prints; an error with all of it if the command fails"
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding='utf-8', **kwargs
    )
    if done.returncode:
        sys.exit(f'{" ".join(map(str, command[:6]))} failed:\n{done.stdout}')
    return done.stdout


def main(dist: Path, work: Path | None):
    check_files(dist)
    without = {'PYTHONPATH', 'PYTHONHOME'}
    env = {k: v for k, v in os.environ.items() if k not in without} | {'PYTHONIOENCODING': 'utf-8'}
    with tempfile.TemporaryDirectory(dir=work, prefix='installed-') as name:
        folder = Path(name)
        python, away = bare(folder / 'env'), folder / 'away'
        away.mkdir()
        options = '--no-deps', '--quiet', '--disable-pip-version-check'
        run(
            *(sys.executable, '-m', 'pip', '--python', python, 'install'),
            *(*options, dist.resolve()),
            cwd=away,
            env=env,
        )
        print(run(python, '-c', IMPORTS, cwd=away, env=env).strip().splitlines()[-1])
        assert 'usage: ' in run(python, '-m', 'fastai_al', '--help', cwd=away, env=env)
        assert 'usage: ' in run(python.with_name('fastai_al'), '--help', cwd=away, env=env)
        run(python, '-m', 'fastai_al', *SHORT, cwd=away, env=env)
        left = {f.name for f in (away / 'al_digits').iterdir()}
        if not {'report.html', 'curves.csv', 'curves.png', 'ledgers'} <= left:
            sys.exit(f'python -m fastai_al wrote only {sorted(left)}')
    print(f'{dist.name}: installed, imported and run away from the checkout')


if __name__ == '__main__':
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('dist', type=Path, help='a wheel or an sdist')
    parser.add_argument('work', type=Path, nargs='?', help='where to make the environment')
    args = parser.parse_args()
    main(args.dist, args.work)
