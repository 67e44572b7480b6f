"One pass over a pool: when the learner is put back, what a GPU waits for, and reading ahead"
import pytest
import torch
from conftest import assert_same, classes_learner, everything, features_of, mlp
from torch.utils._python_dispatch import TorchDispatchMode

from fastai_al import passes
from fastai_al.passes import pool_pass, put_back_once, whole_pass
from fastai_al.posterior.dropout import MCDropout
from fastai_al.posterior.runner import Runner


def learner(**kwargs):
    learn = classes_learner(mlp(), cbs=MCDropout(k=5), **kwargs)
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    learn.remove_cb(learn.progress)   # no bar
    return learn


class Items:
    "Rows that note when they are read, and fail where they are told to"
    def __init__(self, n: int, events: list, broken: tuple = ()): self.n, self.events, self.broken = n, events, broken
    def __len__(self): return self.n
    def __getitem__(self, i):
        if i in self.broken: raise OSError(f'no row {i}')
        self.events.append('read')
        return features_of(i)


class Waits(TorchDispatchMode):
    "Notes operations whose result the host needs before it can go on"
    def __init__(self, events: list):
        super().__init__()
        self.events = events

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._schema.name in ('aten::_local_scalar_dense', 'aten::equal', 'aten::nonzero', 'aten::is_nonzero'): self.events.append('wait')
        return func(*args, **(kwargs or {}))


@pytest.fixture
def on_gpu(monkeypatch):
    "A pass takes the model's device for a GPU"
    monkeypatch.setattr(passes, 'device_of', lambda model: torch.device('cuda'))


def loader(events, n=12, bs=4, broken=()): return torch.utils.data.DataLoader(Items(n, events, broken), bs)


def test_a_batch_is_read_while_a_gpu_is_at_work_and_waited_for_once(on_gpu):
    learn, events = learner(), []
    with Waits(events):
        for _ in whole_pass(learn, loader(events, 24)): events.append('batch')
    batches = ' '.join(events).split('batch')[1:]   # without the first, which a trial comes before
    assert batches[:4] == [' read read read read wait '] * 4      # the next but one is read, then this one's numbers are looked at
    assert batches[4] == ' wait '                                 # nothing is left to be read


def test_without_a_gpu_nothing_is_read_ahead():
    learn, events = learner(), []
    batches = pool_pass(learn, loader(events))
    next(batches)
    batches.close()
    assert events == ['read'] * 4


def test_reading_ahead_changes_no_draw(on_gpu, monkeypatch):
    learn = learner()
    ahead = list(pool_pass(learn, loader([], 11)))
    monkeypatch.undo()
    for a, b in zip(ahead, pool_pass(learn, loader([], 11)), strict=True):
        assert a.indices == b.indices and torch.equal(a.drawn, b.drawn)


def test_items_that_fail_while_they_are_read_ahead_come_after_the_batch_before(on_gpu):
    learn, skipped = learner(), {}
    found = [b.indices for b in pool_pass(learn, loader([], 12, broken=(5, 9)), skipped=skipped)]
    assert found[0] == [0, 1, 2, 3] and sum(found, []) == [i for i in range(12) if i not in (5, 9)] and list(skipped) == ['5', '9']
    batches, before = pool_pass(learn, loader([], 12, broken=(5,))), everything(learn)
    assert next(batches).indices == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="'5' can not be read, OSError: no row 5"): next(batches)
    assert_same(everything(learn), before)


def test_an_interruption_while_it_reads_ahead_leaves_nothing_behind(on_gpu):
    class Interrupted(Items):
        def __getitem__(self, i):
            if i == 6: raise KeyboardInterrupt
            return super().__getitem__(i)
    learn = learner()
    before = everything(learn)
    with pytest.raises(KeyboardInterrupt): list(whole_pass(learn, torch.utils.data.DataLoader(Interrupted(12, []), 4)))
    assert_same(everything(learn), before)
    assert not passes._HELD


# Put back after each batch, or once

def test_a_whole_pass_puts_back_at_its_end():
    learn = learner()
    learn.model.train()
    before = everything(learn)
    for _ in whole_pass(learn, loader([])): assert not learn.model.training
    assert_same(everything(learn), before)
    for _ in pool_pass(learn, loader([])): assert_same(everything(learn), before)


@pytest.mark.parametrize('leave', ['error', 'break', 'close'])
def test_a_whole_pass_that_is_left_early_puts_back(leave):
    learn = learner()
    before = everything(learn)
    batches = whole_pass(learn, loader([]))
    next(batches)
    if leave == 'close': batches.close()
    elif leave == 'break': del batches
    else:
        del batches
        with pytest.raises(ArithmeticError):
            for _ in whole_pass(learn, loader([])): raise ArithmeticError
    assert_same(everything(learn), before)
    assert not passes._HELD


def test_passes_inside_one_another_are_put_back_by_the_outermost():
    learn = learner()
    before = everything(learn)
    with put_back_once(learn):
        inner = [torch.cat([b.drawn for b in whole_pass(learn, loader([]))]) for _ in range(2)]
        with put_back_once(learn): pass
        assert not learn.model.training and passes._HELD == {id(learn)}
    assert_same(everything(learn), before)
    assert not passes._HELD and torch.equal(*inner)
    assert torch.equal(inner[0], torch.cat([b.drawn for b in pool_pass(learn, loader([]))]))


def test_a_layer_drops_what_it_has_cached_before_each_pass_and_between_batches_where_the_user_may_train():
    class Cached(torch.nn.Module):
        "Keeps its weight while it evaluates, as merged adapters do"
        def __init__(self):
            super().__init__()
            self.weight, self.kept = torch.nn.Parameter(torch.randn(3, 6)), None
        def train(self, mode=True):
            if mode: self.kept = None
            return super().train(mode)
        def forward(self, x):
            if self.training: return x @ self.weight.T
            if self.kept is None: self.kept = self.weight.detach().clone()
            return x @ self.kept.T
    learn = classes_learner(Cached())
    learn.remove_cb(learn.progress)
    learn.model.eval()
    learn.model(torch.zeros(1, 6))
    with torch.no_grad(): learn.model.weight.mul_(2)
    twice = torch.cat([b.drawn for b in whole_pass(learn, loader([]))])
    rows = torch.stack([features_of(i) for i in range(12)])
    torch.testing.assert_close(twice[:, 0], (rows @ learn.model.weight.T).detach().log_softmax(-1))
    for i, batch in enumerate(pool_pass(learn, loader([]))):
        torch.testing.assert_close(batch.drawn[:, 0], (rows[4 * i:4 * i + 4] @ learn.model.weight.T).detach().log_softmax(-1))
        with torch.no_grad(): learn.model.weight.mul_(.5)


# What is made once for a pass

class Sequences(torch.nn.Module):
    "Drops single numbers of rows of any length, twice"
    def __init__(self):
        super().__init__()
        self.drop, self.out = torch.nn.Dropout(.4), torch.nn.Linear(6, 3)
    def forward(self, x): return self.out(self.drop(self.drop(x)).mean(1))


@pytest.mark.parametrize('room', [0, 1000, 2**25])
@pytest.mark.parametrize('k', [1, 4, 7])
def test_factors_that_are_looked_up_are_those_that_are_made(room, k, monkeypatch):
    model, posterior = Sequences().eval(), MCDropout(k=k)
    batches = [torch.randn(4, length, 6) for length in (5, 3, 5, 8)]   # new shapes after the trial
    def outputs():
        runner = Runner(model, posterior)
        found = []
        for x in batches:
            with torch.no_grad(), posterior.ready(model): found.append(runner(x)[0])
        return found, runner
    monkeypatch.setattr('fastai_al.posterior.dropout._ROOM', -1)
    exact, without = outputs()
    monkeypatch.setattr('fastai_al.posterior.dropout._ROOM', room)
    found, runner = outputs()
    for a, b in zip(found, exact, strict=True): assert torch.equal(a, b)
    assert not without._made and sum(t.nbytes for t in runner._made.values()) <= room
    if room == 2**25: assert len(runner._made) == 6     # three lengths, two calls
    assert all(type(t) is torch.Tensor and not torch._C._functorch.is_functorch_wrapped_tensor(t) for t in runner._made.values())


def test_features_are_those_of_the_plain_network_where_factors_are_looked_up():
    model = torch.nn.Sequential(torch.nn.Dropout(.5), torch.nn.Linear(6, 4), torch.nn.Dropout(.5), torch.nn.Linear(4, 3)).eval()
    posterior, x = MCDropout(k=6), torch.randn(5, 6)
    with torch.no_grad(), posterior.ready(model): _, features = Runner(model, posterior, features=model[3])(x)
    torch.testing.assert_close(features, model[1](x).detach())


def test_a_gpu_has_more_room_where_it_is_free(monkeypatch):
    from fastai_al.posterior.runner import _room
    assert _room(torch.device('cpu')) == 2**27
    for name, value in (('memory_reserved', 6 * 2**30), ('memory_allocated', 2 * 2**30)): monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    for free, room in ((100 * 2**30, 2**31), (0, 2**30), (2**31, 3 * 2**29)):
        monkeypatch.setattr(torch.cuda, 'mem_get_info', lambda device: (free, 0))
        assert _room(torch.device('cuda')) == room
    monkeypatch.setattr(torch.cuda, 'memory_allocated', lambda device: 6 * 2**30)
    monkeypatch.setattr(torch.cuda, 'mem_get_info', lambda device: (2**20, 0))
    assert _room(torch.device('cuda')) == 2**27
