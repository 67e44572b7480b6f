"Active learning for fastai v2. Start with `from fastai_al.all import *`."

import sys
import warnings

__version__ = '0.13.0'


class FastaiALWarning(UserWarning):
    "Something a user of fastai_al should know, where work can honestly go on"


def warn(message: str):
    "A `FastaiALWarning` at the line outside of this package that led to it"
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get('__name__', '').split('.')[0] == __name__:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, FastaiALWarning, stacklevel=level)
