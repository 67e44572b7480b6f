"""Who has to keep the contracts of the design. A new posterior, task or acquisition function joins by being named here

(acquisition functions join by being registered: `ACQUISITION` is the list)."""
import torch
from conftest import classes_learner, labels_learner, mlp, pixels_learner
from torch import nn

from fastai_al.posterior.base import Point
from fastai_al.posterior.dropout import MCDropout


class TwoBranches(nn.Module):
    "Dropout in two branches and around a residual, one module used twice"
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.drop, self.out = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 8), nn.Dropout(.4), nn.Linear(8, 3)

    def forward(self, x):
        h = self.drop(torch.relu(self.a(x))) + self.b(x)
        return self.out(h + self.drop(self.c(h)))


class Encoder(nn.Module):
    "A small transformer over the six features"
    def __init__(self):
        super().__init__()
        self.layers = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, dropout=.3, batch_first=True), 2, enable_nested_tensor=False)
        self.inp, self.out = nn.Linear(1, 4), nn.Linear(24, 3)

    def forward(self, x): return self.out(self.layers(self.inp(x[..., None])).flatten(1))


# name -> (a function that makes the posterior, a function that makes a learner it fits)
POSTERIORS = {
    'point': (Point, classes_learner),
    'dropout in the head (vmap)': (lambda: MCDropout(k=5, seed=3), lambda **kw: classes_learner(mlp(), **kw)),
    'dropout in the head, in small chunks': (lambda: MCDropout(k=5, seed=3, draw_batch=7), lambda **kw: classes_learner(mlp(), **kw)),
    'dropout first (loop)': (lambda: MCDropout(k=5, seed=3), lambda **kw: classes_learner(nn.Sequential(nn.Dropout(.2), mlp()), **kw)),
    'dropout in two branches': (lambda: MCDropout(k=5, seed=3), lambda **kw: classes_learner(TwoBranches(), **kw)),
    'dropout in a transformer': (lambda: MCDropout(k=5, seed=3), lambda **kw: classes_learner(Encoder(), **kw)),
}

# name -> a function that makes a learner with dropout
TASKS = {'classes': classes_learner, 'pixels': pixels_learner, 'labels': labels_learner}
