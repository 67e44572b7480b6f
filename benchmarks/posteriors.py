"""What draws cost:

`python benchmarks/posteriors.py` prints it and rewrites its part of benchmarks/RESULTS.md

All figures are ratios of times measured in one run. Against Baal where it is installed: pip install
'fastai_al[benchmarks]'.
`--device cuda` runs on a GPU, `--only draws baal` some of the parts."""

import argparse
import contextlib
import io
import warnings

from results import once, write_section

warnings.filterwarnings('ignore')  # of other packages

import torch  # noqa: E402
from fastai.basics import DataLoaders, Learner, TfmdDL  # noqa: E402
from fastai.losses import CrossEntropyLossFlat  # noqa: E402
from fastai.vision.all import (  # noqa: E402
    TensorImage,
    aug_transforms,
    create_body,
    create_head,
    resnet18,
)
from torch import nn  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from fastai_al.all import (  # noqa: E402
    SWAG,
    TTA,
    BayesByBackprop,
    DeepEnsemble,
    LastLayerLaplace,
    MCDropConnect,
    MCDropout,
    pool_pass,
)
from fastai_al.posterior.base import Point  # noqa: E402
from fastai_al.posterior.bayes import make_bayesian  # noqa: E402
from fastai_al.posterior.runner import Runner  # noqa: E402


class Images:
    "Pictures in memory, so that reading them costs nothing"

    def __init__(self, n: int, side: int, channels: int = 3):
        self.n, self.images, self.split_idx = n, torch.rand(min(n, 64), channels, side, side), 1

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return TensorImage(self.images[i % len(self.images)]), torch.tensor(i % 10)

    @contextlib.contextmanager
    def set_split_idx(self, i):
        old, self.split_idx = self.split_idx, i
        try:
            yield self
        finally:
            self.split_idx = old


def learner(model: nn.Module, dataset, device, bs: int = 64, **kwargs) -> Learner:
    dl = TfmdDL(dataset, bs=bs, num_workers=0, device=torch.device(device), **kwargs)
    learn = Learner(DataLoaders(dl, dl), model.to(device).eval(), CrossEntropyLossFlat())
    learn.remove_cbs(list(learn.cbs)[1:])  # no bar
    return learn


def resnet() -> nn.Module:
    "resnet18 with fastai's head, as `vision_learner` makes it"
    return nn.Sequential(create_body(resnet18(weights=None)), create_head(512, 10))


class BatchBALDNet(nn.Sequential):
    "The network of the BatchBALD paper"

    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 32, 5),
            nn.Dropout2d(),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(32, 64, 5),
            nn.Dropout2d(),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(1024, 128),
            nn.Dropout(),
            nn.ReLU(),
            nn.Linear(128, 10),
        )


def sync():
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def plain(learn: Learner, passes: int = 1, dropout: bool = False) -> float:
    "Seconds of repeated passes over the DataLoader, deterministic or with the modules' own dropout"

    def go():
        for m in learn.model.modules():
            m.training = dropout and 'Drop' in type(m).__name__ and type(m).__name__ != 'LinBnDrop'
        with torch.no_grad():
            for xb, *_ in learn.dls.valid:
                for _ in range(passes):
                    learn.model(xb.as_subclass(torch.Tensor))
        sync()
        learn.model.eval()

    return once(go)


def ours(learn: Learner, posterior) -> float:
    "Seconds of a pool pass"

    def go():
        for _ in pool_pass(learn, learn.dls.valid, posterior):
            pass
        sync()

    return once(go)


RUNS = 2  # of each timing; `--runs` sets it


def best(*timings) -> list[float]:
    "The least of some runs of each, taken in turn"
    runs = [[f() for f in timings] for _ in range(RUNS)]
    return [min(times) for times in zip(*runs)]


def row(what: str, ratio: str, limit: str, note: str = '') -> str:
    return f'| {what} | {ratio} | {limit} | {note} |'


def size(n: int, device: str) -> int:
    "A GPU gets more items: what a pass costs before its first batch is no matter of draws"
    return n if device == 'cpu' else 32 * n


def draws(device: str) -> list[str]:
    n = size(512, device)
    learn = learner(resnet(), Images(n, 224), device)
    one, hundred, thousand = best(
        lambda: plain(learn),
        lambda: ours(learn, MCDropout(100)),
        lambda: ours(learn, MCDropout(1000)),
    )
    what = f'draws of head dropout, resnet18, {n:,} images at 224 px'
    return [
        row(
            f'100 {what}',
            f'{hundred / one:.2f} passes',
            'at most 1.15',
            f'one pass over the same DataLoader: {one:.1f} s',
        ),
        row(f'1000 {what}', f'{thousand / one:.2f} passes', 'at most 2'),
    ]


def batchbald(device: str) -> list[str]:
    n = size(512, device)
    learn = learner(BatchBALDNet(), Images(n, 28, 1), device)
    repeated, thin = best(lambda: plain(learn, 100), lambda: ours(learn, MCDropout(100)))
    return [
        row(
            f'100 draws of the BatchBALD network, {n:,} images at 28 px',
            f'{thin / repeated:.2f} of 100 passes',
            'below 0.5',
            f'100 passes: {repeated:.1f} s',
        )
    ]


def baal(device: str) -> list[str]:
    try:
        from baal.bayesian.dropout import patch_module
        from baal.modelwrapper import ModelWrapper, TrainingArgs
    except ImportError:
        return [
            row(
                "against Baal's ModelWrapper",
                'not measured',
                '',
                "Baal is not installed: pip install 'fastai_al[benchmarks]'",
            )
        ]
    import copy

    n = size(16, device)
    learn = learner(resnet(), Images(n, 224), device, bs=16)
    args = TrainingArgs(
        batch_size=16, use_cuda=device == 'cuda', workers=0, replicate_in_memory=False
    )  # its faster way; replicating 1,600 images needs 5 GB
    wrapper = ModelWrapper(patch_module(copy.deepcopy(learn.model), inplace=False), args)
    data = torch.utils.data.TensorDataset(torch.rand(n, 3, 224, 224), torch.zeros(n))

    def theirs():
        with contextlib.redirect_stdout(io.StringIO()):
            wrapper.predict_on_dataset(data, iterations=100, verbose=False)
        sync()

    ours(learn, MCDropout(100))
    mine, other = min(ours(learn, MCDropout(100)) for _ in range(2)), once(theirs)
    from importlib.metadata import version

    return [
        row(
            f"Baal {version('baal')}'s ModelWrapper against ours, the same resnet18, 100 draws, "
            f'{n} images',
            f'{other / mine:.0f} times as long',
            'at least 20',
            f'{other:.0f} s, {mine:.2f} s',
        )
    ]


def awd_lstm(device: str) -> list[str]:
    from fastai.text.all import AWD_LSTM, get_text_classifier

    torch.manual_seed(0)
    model = get_text_classifier(AWD_LSTM, 5000, 10)

    class Texts:
        def __len__(self):
            return size(64, device)

        def __getitem__(self, i):
            return torch.randint(
                2, 5000, (60,), generator=torch.Generator().manual_seed(i)
            ), torch.tensor(0)

    learn = learner(model, Texts(), device, bs=32)
    from fastai.callback.rnn import RNNCallback

    learn.add_cb(RNNCallback())
    without, repeated, mine = best(
        lambda: plain(learn, 20),
        lambda: plain(learn, 20, dropout=True),
        lambda: ours(learn, MCDropout(20)),
    )
    return [
        row(
            f'20 draws of AWD-LSTM (1152 hidden, all its dropouts), {size(64, device):,} texts of '
            '60 tokens',
            f'{mine / repeated:.2f} of 20 passes',
            'at most 1',
            f'20 passes with its own dropout: {repeated:.1f} s; of 20 without any: '
            f'{mine / without:.2f}',
        )
    ]


def every_posterior(device: str) -> list[str]:
    n, rows = size(64, device), []
    learn = learner(resnet(), Images(n, 224), device, bs=32)
    one = min(plain(learn) for _ in range(3))
    swag = SWAG(k=5)
    swag.learn = learn
    for _ in range(3):
        swag._gather()
    cases = [
        ('Point()', Point(), learn),
        ('MCDropout(100)', MCDropout(100), learn),
        ("MCDropConnect(20, layers='1')", MCDropConnect(20, layers='1'), learn),
        ('MCDropConnect(5)', MCDropConnect(5), learn),
        ('DeepEnsemble of 5', DeepEnsemble([learn.model] * 5), learn),
        ('LastLayerLaplace(1000), with its fit to as many items', LastLayerLaplace(1000), learn),
        ('SWAG(k=5), with batch norms renewed on as many items', swag, learn),
    ]
    for name, posterior, on in cases:
        rows.append(row(name, f'{ours(on, posterior) / one:.2f} passes', ''))
    turned = learner(
        learn.model, Images(n, 224), device, bs=32, after_batch=aug_transforms(size=224)
    )
    rows.append(
        row('TTA(5), with its augmentations', f'{ours(turned, TTA(5)) / one:.2f} passes', '')
    )
    make_bayesian(learn.model)
    rows.append(
        row('BayesByBackprop(5)', f'{ours(learn, BayesByBackprop(5)) / one:.2f} passes', '')
    )
    return rows


MEMORY = r"""
import re, sys, warnings; warnings.filterwarnings('ignore'); sys.path.insert(0, 'benchmarks')
from pathlib import Path
from posteriors import *
learn = learner(resnet(), Images(64, 224), 'cpu', bs=64)
def peak():  # MB
    status = Path('/proc/self/status').read_text()
    return int(re.search(r'VmHWM:\s+(\d+)', status)[1]) / 1024
ours(learn, Point())
Path('/proc/self/clear_refs').write_text('5')
ours(learn, Point())
before = peak()
Path('/proc/self/clear_refs').write_text('5')
ours(learn, MCDropout(int(sys.argv[1])))
print(peak() - before)
"""


class Launches(TorchDispatchMode):
    "Counts operations that compute, and those whose result the host waits for"

    def __init__(self):
        super().__init__()
        self.computed, self.waited = 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, returns = func._schema.name.removeprefix('aten::'), func._schema.returns
        view = (
            name == '_unsafe_view'
            or returns
            and returns[0].alias_info is not None
            and not returns[0].alias_info.is_write
        )
        self.computed += not view and not name.startswith('empty')
        self.waited += name in ('_local_scalar_dense', 'equal', 'nonzero', 'is_nonzero')
        return func(*args, **(kwargs or {}))


def of_a_batch(run, model: nn.Module, *picture) -> list[int]:
    "What `Launches` counts for three batches less that for two"
    found = []
    for batches in (2, 2, 3):  # the first fills caches
        learn = learner(model, Images(64 * batches, *picture), 'cpu')
        with Launches() as count:
            run(learn)
        found.append((count.computed, count.waited))
    return [b - a for a, b in zip(*found[1:])]


def launches(device: str) -> list[str]:
    "What a GPU would be asked to do for a batch, counted without one"
    if device != 'cpu':
        return []
    rows, settings = [], (Runner.memory, Runner.small)
    Runner.memory, Runner.small = 2**31, dict(cpu=Runner.small['cuda'])
    try:
        for what, passes, *of in (
            ('head dropout, resnet18', 1, resnet(), 64),
            ('the BatchBALD network', 100, BatchBALDNet(), 28, 1),
        ):
            once, _ = of_a_batch(lambda learn: plain(learn, passes), *of)
            computed, waited = of_a_batch(lambda learn: ours(learn, MCDropout(100)), *of)
            rows.append(
                row(
                    f'operations a GPU would be sent for a batch of 64, 100 draws of {what}',
                    f'{computed}; waits for it: {waited}',
                    '',
                    f'{passes} pass{"es" * (passes > 1)}: {once}',
                )
            )
    finally:
        Runner.memory, Runner.small = settings
    return rows


def memory(device: str) -> list[str]:
    "Peak resident memory that draws add to a pass with one draw"
    if device != 'cpu':
        return []
    import subprocess
    import sys
    from pathlib import Path

    added = [
        float(
            subprocess.run(
                [sys.executable, '-c', MEMORY, str(k)],
                capture_output=True,
                text=True,
                check=True,
                cwd=Path(__file__).parents[1],
            ).stdout.split()[-1]
        )
        for k in (100, 1000)
    ]
    return [
        row(
            'memory that 100 and 1000 draws of head dropout add to one pass, 64 images at once',
            f'{max(0, added[0]):.0f} and {max(0, added[1]):.0f} MB',
            'at most 256',
            'the automatic `draw_batch`',
        )
    ]


PARTS = dict(
    draws=draws,
    batchbald=batchbald,
    baal=baal,
    awd_lstm=awd_lstm,
    launches=launches,
    memory=memory,
    every_posterior=every_posterior,
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--runs', type=int, default=RUNS)
    parser.add_argument('--only', nargs='+', choices=PARTS, default=list(PARTS))
    args = parser.parse_args()
    globals()['RUNS'] = args.runs
    title, rows = 'Posteriors' + (' on a GPU' if args.device != 'cpu' else ''), []
    for part in args.only:  # written after each part, so that nothing measured is lost
        rows += PARTS[part](args.device)
        write_section(
            title,
            f'posteriors.py --device {args.device} --runs {args.runs} --only '
            f'{" ".join(args.only[: args.only.index(part) + 1])}',
            rows,
            '| what | measured | limit | |',
        )


if __name__ == '__main__':
    main()
