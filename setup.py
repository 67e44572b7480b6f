"""Pass on what settings.ini says: version, requirements and extras. pyproject.toml has the rest."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

config = ConfigParser(delimiters=['='])
config.read(Path(__file__).parent / 'settings.ini', encoding='utf-8')
settings = dict(config['DEFAULT'])
extras = {
    key.removesuffix('_requirements'): value.split()
    for key, value in settings.items()
    if key.endswith('_requirements')
}

setup(
    version=settings['version'],
    install_requires=settings['requirements'].split(),
    extras_require=extras,
)
