"Active learning for fastai v2. Start with `from fastai_al.all import *`."
__version__ = "0.9.0"


class FastaiALWarning(UserWarning):
    "Something a user of fastai_al should know, where work can honestly go on"
