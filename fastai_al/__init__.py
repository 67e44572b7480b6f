"Active learning for fastai v2. Start with `from fastai_al.all import *`."

import sys
import warnings

__version__ = '0.15.0'


class FastaiALWarning(UserWarning):
    "The category of all warnings of fastai_al. Filter by it to silence or raise them."


def warn(message: str):
    """Issue a `FastaiALWarning` that points to the caller's line outside of this package.

    Parameters
    ----------
    message : str
        The cause, the value and the remedy.
    """
    frame, depth = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get('__name__', '').split('.')[0] == __name__:
        frame, depth = frame.f_back, depth + 1
    warnings.warn(message, FastaiALWarning, stacklevel=depth)
