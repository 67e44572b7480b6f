"""Models that other people wrote: equal items have equal draws, or an error names the cause; and
the documentation says which"""

import json
from pathlib import Path

import pytest
import torch
from fastai.basics import Learner
from fastai.data.core import DataLoaders
from fastai.losses import CrossEntropyLossFlat

from fastai_al.inference.passes import pool_pass
from fastai_al.posterior.dropout import MCDropout
from models import MODELS, N, awake, item, loader, table


def learner_of(model):
    torch.manual_seed(0)
    net, dl = model.make().eval(), loader(model.items, range(N), 4)
    if model.items == 'pictures':
        awake(net, torch.stack([item(model.items, i) for i in range(N)]))
    learn = Learner(DataLoaders(dl, dl), net, CrossEntropyLossFlat())
    learn.remove_cb(learn.progress)
    return learn


def draws(learn, model, places, bs):
    return torch.cat(
        [
            batch.log_probs
            for batch in pool_pass(learn, loader(model.items, places, bs), MCDropout(k=3, seed=1))
        ]
    )


@pytest.mark.parametrize('model', MODELS, ids=[m.name for m in MODELS])
def test_equal_items_have_equal_draws_or_an_error_names_the_cause(model):
    learn = learner_of(model)
    if model.error is not None:
        with pytest.raises(ValueError, match=model.error):
            draws(learn, model, range(N), 4)
        return
    twins = [0, 5, N, 8, 2, N + 5, 3]  # the third is the first again, the last but one the second
    once = draws(learn, model, twins, 7)
    assert once.exp().std(1).max() > 1e-4, 'all draws are alike'
    exact = (
        dict(rtol=1e-3, atol=1e-4) if model.name != 'half precision' else dict(rtol=5e-2, atol=2e-2)
    )
    for a, b in ((0, 2), (1, 5)):
        torch.testing.assert_close(once[a], once[b], **exact)  # in one batch
    torch.testing.assert_close(
        draws(learn, model, twins, 2), once, **exact
    )  # in several, otherwise padded
    torch.testing.assert_close(draws(learn, model, twins[::-1], 1).flip(0), once, **exact)  # alone


def test_the_documentation_shows_the_table():
    cells = json.loads(
        (Path(__file__).parents[2] / 'nbs' / 'posterior/12_models.ipynb').read_text()
    )['cells']
    assert any(table() in ''.join(cell['source']) for cell in cells)


def test_at_least_thirty_models_and_none_twice():
    assert len({m.name for m in MODELS}) == len(MODELS) >= 30
