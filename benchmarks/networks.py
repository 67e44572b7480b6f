"Small networks for digits, and how they are trained"
import copy
from collections.abc import Callable

import torch
from torch import nn

from arrays import whole


def paper_cnn() -> nn.Module:
    """The network of the BatchBALD paper (https://arxiv.org/abs/1906.08158). There dropout comes before pooling and ReLU; a mask of whole channels passes
    through both unchanged, and after them there is less to mask"""
    return nn.Sequential(nn.Conv2d(1, 32, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Dropout2d(.5), nn.Conv2d(32, 64, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Dropout2d(.5),
                         nn.Flatten(), nn.Linear(1024, 128), nn.ReLU(), nn.Dropout(.5), nn.Linear(128, 10))


def as_in_the_paper(draws: int = 5056, bs: int = 64, epochs: int = 30, patience: int = 3, between: Callable = lambda: None) -> Callable:
    "A fit: Adam at 1e-3, epochs of `draws` items drawn with replacement, until the accuracy on the hold-out has not risen for `patience` of them; the best weights. `between` is called after each"
    def fit(learn):
        (x,), y = whole(learn.dls.train)
        (xv,), yv = whole(learn.dls.valid)
        model = learn.model.to(memory_format=torch.channels_last)      # trains faster so
        opt, best, waited = torch.optim.Adam(model.parameters(), 1e-3), -1., 0
        for _ in range(epochs):
            model.train()
            for places in torch.randint(len(y), (draws,)).split(bs):
                loss = nn.functional.cross_entropy(model(x[places]), y[places])
                opt.zero_grad()
                loss.backward()
                opt.step()
            model.eval()
            with torch.inference_mode(): reached = torch.cat([model(b).argmax(1) for b in xv.split(512)]).eq(yv).float().mean().item()
            if reached > best: best, waited, weights = reached, 0, copy.deepcopy(model.state_dict())
            else: waited += 1
            if waited == patience: break
            between()
        model.load_state_dict(weights)
    return fit
