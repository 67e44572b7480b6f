"One pass over a pool: when the learner is put back, what a GPU waits for, and reading ahead"

import math

import pytest
import torch
from fastai.basics import Callback
from torch.utils._python_dispatch import TorchDispatchMode

from conftest import assert_same, classes_learner, everything, features_of, mlp
from fastai_al.inference import passes
from fastai_al.inference.passes import pool_pass
from fastai_al.posterior.base import Point
from fastai_al.posterior.dropconnect import MCDropConnect
from fastai_al.posterior.dropout import MCDropout
from fastai_al.posterior.runner import Runner


def learner(**kwargs):
    learn = classes_learner(mlp(), cbs=MCDropout(k=5), **kwargs)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    learn.remove_cb(learn.progress)  # no bar
    return learn


class Items:
    "Rows that note when they are read, and fail where they are meant to"

    def __init__(self, n: int, events: list, broken: tuple = ()):
        self.n, self.events, self.broken = n, events, broken

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if i in self.broken:
            raise OSError(f'no row {i}')
        self.events.append('read')
        return features_of(i)


class Waits(TorchDispatchMode):
    "Notes operations whose result the host needs before it can go on"

    def __init__(self, events: list):
        super().__init__()
        self.events = events

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._schema.name in (
            'aten::_local_scalar_dense',
            'aten::equal',
            'aten::nonzero',
            'aten::is_nonzero',
        ):
            self.events.append('wait')
        return func(*args, **(kwargs or {}))


@pytest.fixture
def on_gpu(monkeypatch):
    "A pass takes the model's device for a GPU"
    monkeypatch.setattr(passes, 'device_of', lambda model: torch.device('cuda'))


def loader(events, n=12, bs=4, broken=()):
    return torch.utils.data.DataLoader(Items(n, events, broken), bs)


def test_a_batch_is_read_while_a_gpu_is_at_work(on_gpu):
    learn, events = learner(), []
    with Waits(events):
        for _ in pool_pass(learn, loader(events, 24)):
            events.append('batch')
    batches = ' '.join(events).split('batch')[1:]  # without the first, which a trial comes before
    assert (
        batches[:4] == [' read read read read wait wait wait '] * 4
    )  # the next but one is read; then NaN are looked for, and two kinds of buffers compared
    assert batches[4] == ' wait wait wait '  # nothing is left to be read


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
        assert a.indices == b.indices and torch.equal(a.outputs, b.outputs)


def test_items_that_fail_while_they_are_read_ahead_come_after_the_batch_before(on_gpu):
    learn, skipped = learner(), {}
    found = [b.indices for b in pool_pass(learn, loader([], 12, broken=(5, 9)), skipped=skipped)]
    assert (
        found[0] == [0, 1, 2, 3]
        and sum(found, []) == [i for i in range(12) if i not in (5, 9)]
        and list(skipped) == ['5', '9']
    )
    batches, before = pool_pass(learn, loader([], 12, broken=(5,))), everything(learn)
    assert next(batches).indices == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="'5' cannot be read, OSError: no row 5"):
        next(batches)
    assert_same(everything(learn), before)


def test_an_interruption_while_it_reads_ahead_leaves_nothing_behind(on_gpu):
    class Interrupted(Items):
        def __getitem__(self, i):
            if i == 6:
                raise KeyboardInterrupt
            return super().__getitem__(i)

    learn = learner()
    before = everything(learn)
    with pytest.raises(KeyboardInterrupt):
        list(pool_pass(learn, torch.utils.data.DataLoader(Interrupted(12, []), 4)))
    assert_same(everything(learn), before)


def test_a_layer_drops_what_it_has_cached_before_each_pass():
    class Cached(torch.nn.Module):
        "Keeps its weight while it evaluates, as merged adapters do"

        def __init__(self):
            super().__init__()
            self.weight, self.kept = torch.nn.Parameter(torch.randn(3, 6)), None

        def train(self, mode=True):
            if mode:
                self.kept = None
            return super().train(mode)

        def forward(self, x):
            if self.training:
                return x @ self.weight.T
            if self.kept is None:
                self.kept = self.weight.detach().clone()
            return x @ self.kept.T

    learn = classes_learner(Cached())
    learn.remove_cb(learn.progress)
    learn.model.eval()
    learn.model(torch.zeros(1, 6))
    with torch.no_grad():
        learn.model.weight.mul_(2)
    twice = torch.cat([b.outputs for b in pool_pass(learn, loader([]))])
    rows = torch.stack([features_of(i) for i in range(12)])
    torch.testing.assert_close(twice[:, 0], (rows @ learn.model.weight.T).detach().log_softmax(-1))
    for _ in range(3):
        found = torch.cat([batch.outputs for batch in pool_pass(learn, loader([]))])
        torch.testing.assert_close(
            found[:, 0], (rows @ learn.model.weight.T).detach().log_softmax(-1)
        )
        with torch.no_grad():
            learn.model.weight.mul_(0.5)


@pytest.mark.parametrize('own', [False, True], ids=['usual', 'with a train of its own'])
def test_a_pass_evaluates_as_eval_does(own):
    class Always(torch.nn.Module):
        def train(self, mode=True):
            super().train(True)  # nothing is returned

        def forward(self, x):
            return x * (1 + self.training)

    seen = []
    model = torch.nn.Sequential(
        torch.nn.Linear(6, 3),
        torch.nn.Sequential(torch.nn.BatchNorm1d(3), *([Always()] if own else [])),
    )
    model.register_forward_pre_hook(lambda m, x: seen.append([m.training for m in m.modules()]))
    learn = classes_learner(model)
    learn.remove_cb(learn.progress)
    learn.model[1].eval()
    before = [m.training for m in learn.model.modules()]
    list(pool_pass(learn, loader([])))
    assert [m.training for m in learn.model.modules()] == before
    learn.model.eval()
    assert (
        all(flags == [m.training for m in learn.model.modules()] for flags in seen)
        and any(seen[0]) == own
    )


def test_random_items_are_the_same_whenever_they_are_read(on_gpu, monkeypatch):
    class Random(Items):
        def __getitem__(self, i):
            return features_of(i) + torch.randn(6)

    learn = learner()

    def drawn():
        torch.manual_seed(3)
        return torch.cat(
            [b.outputs for b in pool_pass(learn, torch.utils.data.DataLoader(Random(12, []), 4))]
        )

    ahead = drawn()
    monkeypatch.undo()
    assert torch.equal(ahead, drawn())


class Hollow(Exception):
    def __bool__(self):
        return False


def test_an_error_that_is_false_is_raised(on_gpu):
    def collate(items):
        if 8 in items:
            raise Hollow('no batch of this')
        return torch.stack([features_of(i) for i in items])

    with pytest.raises(Hollow):
        list(pool_pass(learner(), torch.utils.data.DataLoader(range(12), 4, collate_fn=collate)))


def test_an_error_of_a_batch_holds_on_to_nothing():
    import gc
    import weakref

    class Rows(Items):
        def __getitem__(self, i):
            return features_of(i)

    def fails(items):
        raise ArithmeticError

    rows = Rows(8, [])
    alive, learn = weakref.ref(rows), learner()
    gc.collect()
    gc.disable()
    try:
        try:
            list(pool_pass(learn, torch.utils.data.DataLoader(rows, 4, collate_fn=fails)))
        except ArithmeticError:
            pass
        del rows
        assert alive() is None
    finally:
        gc.enable()


def test_a_pass_inside_a_callback_of_another_leaves_it_its_batch():
    class Watch(Callback):
        busy, order = False, 5

        def before_batch(self):
            if self.busy:
                return
            self.busy = True
            try:
                self.seen = torch.cat(
                    [b.outputs for b in pool_pass(self.learn, loader([], 8), Point())]
                )
            finally:
                self.busy = False

    learn = learner()
    alone = torch.cat([b.outputs for b in pool_pass(learn, loader([]))])
    learn.add_cb(Watch())
    assert torch.equal(torch.cat([b.outputs for b in pool_pass(learn, loader([]))]), alone)


# What is made once for a pass


class Sequences(torch.nn.Module):
    "Drops single numbers of rows of any length, twice"

    def __init__(self):
        super().__init__()
        self.drop, self.out = torch.nn.Dropout(0.4), torch.nn.Linear(6, 3)

    def forward(self, x):
        return self.out(self.drop(self.drop(x)).mean(1))


@pytest.mark.parametrize('room', [0, 1000, 2**25])
@pytest.mark.parametrize('k', [1, 4, 7])
def test_factors_that_are_looked_up_are_those_that_are_made(room, k, monkeypatch):
    model, posterior = Sequences().eval(), MCDropout(k=k)
    batches = [torch.randn(4, length, 6) for length in (5, 3, 5, 8)]  # new shapes after the trial

    def outputs():
        runner = Runner(model, posterior)
        found = []
        for x in batches:
            with torch.no_grad(), posterior.ready(model):
                found.append(runner(x)[0])
        return found, runner

    monkeypatch.setattr('fastai_al.posterior.masks.Lookup.max_bytes', -1)
    exact, without = outputs()
    monkeypatch.setattr('fastai_al.posterior.masks.Lookup.max_bytes', room)
    found, runner = outputs()
    for a, b in zip(found, exact, strict=True):
        assert torch.equal(a, b)
    tables = list(runner._pass_cache['lookup'].tables.values())
    assert not without._pass_cache['lookup'].tables and sum(t.nbytes for t in tables) <= room
    assert len(tables) == (6 if room == 2**25 else len(tables))  # three lengths, two calls
    assert not any(torch._C._functorch.is_functorch_wrapped_tensor(t) for t in tables)


def test_features_are_those_of_the_plain_network_where_factors_are_looked_up():
    model = torch.nn.Sequential(
        torch.nn.Dropout(0.5), torch.nn.Linear(6, 4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 3)
    ).eval()
    posterior, x = MCDropout(k=6), torch.randn(5, 6)
    with torch.no_grad(), posterior.ready(model):
        _, features = Runner(model, posterior, features=model[3])(x)
    torch.testing.assert_close(features, model[1](x).detach())


def head():
    return torch.nn.Sequential(
        torch.nn.Linear(6, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 3)
    ).eval()


def test_k_that_is_changed_during_a_pass_changes_none_of_its_draws():
    learn, posterior = learner(), MCDropout(k=6)
    whole = torch.cat([b.outputs for b in pool_pass(learn, loader([]), posterior, features=True)])
    for k in (2, 9):
        found, features, posterior.k = [], [], 6
        for batch in pool_pass(learn, loader([]), posterior, features=True):
            found.append(batch.outputs)
            features.append(batch.features)
            posterior.k = k
        assert torch.equal(torch.cat(found), whole)


class Later(MCDropout):
    def tensors(self, k):
        return super().tensors(k + 3)


class Twice(MCDropout):
    @property
    def networks(self):
        return 2 * self.k


@pytest.mark.parametrize(
    'posterior, draws', [(Later(5), range(3, 8)), (Twice(4), range(8))], ids=['tensors', 'networks']
)
def test_a_subclass_with_draws_of_its_own_gets_them(posterior, draws):
    model, x = head(), torch.randn(4, 6)
    with torch.no_grad(), posterior.ready(model):
        found = Runner(model, posterior)(x)[0]
    plain = MCDropout(10)
    with torch.no_grad(), plain.ready(model):
        exact = Runner(model, plain)(x)[0]
    torch.testing.assert_close(found, exact[:, list(draws)])


def test_a_probability_that_is_a_tensor_may_change():
    model, posterior, x = head(), MCDropout(8), torch.randn(4, 6)
    model[1].p = torch.tensor(0.2)
    runner = Runner(model, posterior)
    with torch.no_grad(), posterior.ready(model):
        before = runner(x)[0]
        model[1].p.fill_(0.9)
        after = runner(x)[0]
    model[1].p = 0.9
    with torch.no_grad(), posterior.ready(model):
        torch.testing.assert_close(after, Runner(model, posterior)(x)[0])
    assert not torch.equal(before, after)


def test_features_are_those_of_the_model_as_it_is_when_the_pass_begins():
    learn = classes_learner(mlp())
    learn.remove_cb(learn.progress)
    layer = learn.model[0]
    rows = torch.stack([features_of(i) for i in range(12)])
    for _ in range(3):
        found = torch.cat(
            [
                batch.features
                for batch in pool_pass(learn, loader([]), MCDropConnect(k=3), features=layer)
            ]
        )
        torch.testing.assert_close(found, layer(rows).detach())
        with torch.no_grad():
            layer.weight.mul_(2)


def by_hand(learn):
    with torch.no_grad():
        learn.model[0].weight.mul_(2)


def by_fit(learn):
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-2)


def by_load(learn):
    learn.model.load_state_dict(mlp().state_dict())


def by_another_model(learn):
    learn.model = mlp()


@pytest.mark.parametrize('posterior', [Point(), MCDropout(k=3), MCDropConnect(k=3)])
@pytest.mark.parametrize('change', [by_hand, by_fit, by_load, by_another_model])
def test_a_model_that_changes_between_two_batches_is_refused(change, posterior):
    learn = learner()
    batches = pool_pass(learn, loader([]), posterior)
    next(batches)
    change(learn)
    with pytest.raises(ValueError, match='changed between two batches'):
        next(batches)


def test_gradients_and_validation_between_two_batches_change_nothing():
    learn = learner()
    alone = torch.cat([b.outputs for b in pool_pass(learn, loader([]))])
    found = []
    for batch in pool_pass(learn, loader([])):
        found.append(batch.outputs)
        learn.model(torch.randn(4, 6)).sum().backward()
        with learn.no_bar(), learn.no_logging():
            learn.validate()
    assert torch.equal(torch.cat(found), alone)


def test_a_gpu_has_more_room_where_it_is_free(monkeypatch):
    from fastai_al.posterior.runner import _chunk_bytes

    assert _chunk_bytes(torch.device('cpu')) == 2**27
    for name, value in (('memory_reserved', 6 * 2**30), ('memory_allocated', 2 * 2**30)):
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    for free, room in ((100 * 2**30, 2**31), (0, 2**30), (2**31, 3 * 2**29)):
        monkeypatch.setattr(torch.cuda, 'mem_get_info', lambda device: (free, 0))
        assert _chunk_bytes(torch.device('cuda')) == room
    monkeypatch.setattr(torch.cuda, 'memory_allocated', lambda device: 6 * 2**30)
    monkeypatch.setattr(torch.cuda, 'mem_get_info', lambda device: (2**20, 0))
    assert _chunk_bytes(torch.device('cuda')) == 2**27


class Holed(Items):
    "Rows of which some hold NaN"

    def __init__(self, n: int, holes: tuple):
        self.n, self.holes, self.events, self.broken = n, holes, [], ()

    def __getitem__(self, i):
        return features_of(i) * (math.nan if i in self.holes else 1)


@pytest.mark.parametrize('gpu', [False, True])
@pytest.mark.parametrize('holes', [(0,), (5, 9), (4, 5, 6, 7), (11,)])
def test_items_that_hold_NaN_are_named_or_left_out_and_the_others_are_as_without_them(
    request, gpu, holes
):
    if gpu:
        request.getfixturevalue('on_gpu')
    learn, skipped = learner(), {}
    whole = torch.cat([b.outputs for b in pool_pass(learn, loader([], 12))])
    dl, rest = (
        torch.utils.data.DataLoader(Holed(12, holes), 4),
        [i for i in range(12) if i not in holes],
    )
    before = everything(learn)
    found = list(pool_pass(learn, dl, skipped=skipped))
    assert_same(everything(learn), before)
    assert sum((b.indices for b in found), []) == rest and skipped == {
        str(i): 'ValueError: it holds NaN or infinite numbers' for i in holes
    }
    torch.testing.assert_close(torch.cat([b.outputs for b in found]), whole[rest])
    with pytest.raises(
        ValueError, match=f"'{holes[0]}' cannot be read, ValueError: it holds NaN.*skip=True"
    ):
        list(pool_pass(learn, dl))


def test_no_item_is_to_blame_for_a_model_that_is_NaN():
    learn, skipped = learner(), {}
    with torch.no_grad():
        next(learn.model.parameters()).fill_(math.nan)
    with pytest.raises(ValueError, match='The model predicts NaN for 4 of 4'):
        list(pool_pass(learn, torch.utils.data.DataLoader(Holed(4, range(4)), 4), skipped=skipped))
    assert not skipped


def test_a_model_that_can_take_NaN_is_let():
    model = torch.nn.Sequential(Filled(), mlp())
    learn = classes_learner(model, cbs=MCDropout(k=5))
    learn.remove_cb(learn.progress)
    assert (
        sum(
            len(b.indices)
            for b in pool_pass(learn, torch.utils.data.DataLoader(Holed(12, (3,)), 4))
        )
        == 12
    )


class Filled(torch.nn.Module):
    def forward(self, x):
        return x.nan_to_num()
