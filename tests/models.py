"""Models that other people wrote, or might: each has equal draws for equal items, or is refused
with an error that names the cause

None of them is in architectures.py. All are small and have random weights. `MODELS` is the list,
`table()` the table in the documentation."""

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.utils.checkpoint import checkpoint

EQUAL = 'equal draws'
N = 9  # different items


@dataclass
class Model:
    name: str
    # 'pictures', 'rows', 'series', 'texts', 'texts, padded left', 'sounds', 'graphs' or 'videos'
    items: str
    make: Callable
    error: str | None = None  # the cause that the error names; None: equal draws

    @property
    def outcome(self) -> str:
        return EQUAL if self.error is None else f'refused: {self.error}'


# Items


def item(kind: str, i: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(i % N)
    if kind == 'pictures':
        return torch.rand(3, 32, 32, generator=g)
    if kind == 'large pictures':
        return torch.rand(3, 64, 64, generator=g)
    if kind == 'rows':
        return torch.randn(6, generator=g)
    if kind == 'series':
        return torch.randn(3 + 2 * (i % N), 6, generator=g)
    if kind == 'sounds':
        return torch.randn(800, generator=g)
    if kind == 'graphs':
        return torch.cat(
            [torch.randn(5, 6, generator=g), (torch.rand(5, 5, generator=g) > 0.5).float()], 1
        )
    if kind == 'videos':
        return torch.rand(3, 4, 12, 12, generator=g)
    return torch.randint(3, 30, (3 + 2 * (i % N),), generator=g)


def collate(kind: str, items: list) -> tuple:
    longest = max(len(t) for t in items)

    def pad(t):
        return F.pad(
            t,
            (0, 0) * (t.ndim - 1)
            + ((longest - len(t), 0) if 'left' in kind else (0, longest - len(t))),
        )

    return (torch.stack([pad(t) for t in items]),)


def loader(kind: str, places: list, bs: int):
    return torch.utils.data.DataLoader(
        [item(kind, i) for i in places],
        bs,
        collate_fn=functools.partial(collate, kind)
        if kind.split(',')[0] in ('texts', 'series')
        else None,
    )


# Small networks of our own


class Fn(nn.Module):
    "A forward pass written as a function of modules"

    def __init__(self, forward: Callable, **modules):
        super().__init__()
        self.f, self.m = forward, nn.ModuleDict(modules)

    def forward(self, x):
        return self.f(self.m, x)


def drop(p=0.3, **kwargs):
    return nn.Dropout(p, **kwargs)


def head(inp=6, **kwargs):
    return nn.Sequential(nn.Linear(inp, 16), nn.ReLU(), drop(**kwargs), nn.Linear(16, 3))


def with_layer(*layers):
    return nn.Sequential(nn.Linear(6, 8), *layers, nn.ReLU(), drop(), nn.Linear(8, 3))


def present(x):
    return (x != 0).any(-1) if x.ndim == 3 else x != 0


def mean_of(h, keep):
    return (h * keep[..., None]).sum(1) / keep.sum(1, keepdim=True)


def packed(m, x):
    lengths = present(x).sum(1)
    h = nn.utils.rnn.pack_padded_sequence(
        m['drop'](x), lengths, batch_first=True, enforce_sorted=False
    )
    return m['out'](m['rnn'](h)[1][-1])


def unmasked(m, x):
    return m['out'](m['drop'](m['rnn'](x)[0].mean(1)))


def stepwise(m, x):
    h, keep = x.new_zeros(len(x), 8), present(x)
    for t in range(x.shape[1]):
        h = torch.where(keep[:, t, None], m['drop'](m['cell'](x[:, t], h)), h)
    return m['out'](h)


def convolved(m, x):
    keep = present(x)
    h = m['drop'](m['conv'](x.transpose(1, 2)).relu()).transpose(1, 2)
    return m['out'](h.masked_fill(~keep[..., None], -1e4).amax(1))


def graph(m, x):
    nodes, edges = x[..., :6], x[..., 6:] + torch.eye(5)
    for layer in (m['a'], m['b']):
        nodes = m['drop'](torch.relu(layer(edges @ nodes / edges.sum(-1, keepdim=True))))
    return m['out'](nodes.mean(1))


def experts(m, x):
    h, which, out = m['inp'](x), m['gate'](x).argmax(-1), 0
    for e, expert in enumerate((m['a'], m['b'])):
        mine = (which == e)[:, None]
        if mine.any():
            out = out + torch.where(
                mine, F.dropout(expert(h), 0.3, m.training), torch.zeros_like(h)
            )
    return m['out'](out)


def early_exit(m, x):
    h = m['drop'](m['a'](x))
    if h.detach().std() > 0.3 * len(x) ** 0.5:
        h = m['drop'](m['b'](h))
    return m['out'](h)


def branch_on_mean(m, x):
    return m['out'](m['drop'](F.dropout(m['a'](x), 0.3, m.training) if x.mean() > 0 else m['a'](x)))


def checkpointed(m, x):
    return m['out'](checkpoint(m['body'], x, use_reentrant=False))


def noise_in_training(m, x):
    return m['out'](m['drop'](m['a'](x) + (torch.randn(8) if m.training else 0)))


def noise_always(m, x):
    return m['out'](m['drop'](m['a'](x) + torch.randn(8)))


def centred(m, x):
    return m['out'](m['drop'](m['a'](x) - m['a'](x).mean(0)))


def sequence_first(m, x):
    return m['out'](m['drop'](m['rnn'](x)[0]).mean(0))


def tied():
    a, b = nn.Linear(8, 8), nn.Linear(8, 8)
    b.weight = a.weight
    return with_layer(a, drop(), b)


def twice():
    return with_layer(*[nn.Sequential(nn.Linear(8, 8), drop(), nn.ReLU())] * 2)


def quantised():
    from torch.ao.quantization import quantize_dynamic

    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return quantize_dynamic(head().eval(), {nn.Linear})


def half_scripted(part):
    return nn.Sequential(nn.Linear(6, 6), drop(), torch.jit.script(part), nn.Linear(6, 3))


def linear(*names, inp=6, out=8):
    return {name: nn.Linear(inp, out) for name in names}


def text_transformer():
    return Fn(
        lambda m, x: m['out'](
            mean_of(m['layers'](m['emb'](x), src_key_padding_mask=~present(x)), present(x))
        ),
        emb=nn.Embedding(30, 8),
        out=nn.Linear(8, 3),
        layers=nn.TransformerEncoder(
            nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, batch_first=True),
            2,
            enable_nested_tensor=False,
        ),
    )


def causal(m, x):
    "A decoder: each word looks at those before it, the last one is read"
    keep, L = present(x), x.shape[1]
    h = m['emb'](x)
    q, k, v = m['qkv'](h).chunk(3, -1)
    seen = keep[:, None, :] & torch.ones(L, L, dtype=torch.bool).tril()
    weights = m['drop']((q @ k.transpose(1, 2)).masked_fill(~seen, -1e4).softmax(-1))
    h = h + m['drop'](weights @ v)
    last = torch.where(keep, torch.arange(L), -1).amax(1)
    return m['out'](h[torch.arange(len(x)), last])


def decoder():
    return Fn(
        causal, emb=nn.Embedding(30, 8), qkv=nn.Linear(8, 24), drop=drop(0.2), out=nn.Linear(8, 3)
    )


# Hugging Face


class HF(nn.Module):
    "A model of Hugging Face, from padded numbers of words to scores"

    def __init__(self, model, attends=True):
        super().__init__()
        self.model, self.attends = model, attends

    def forward(self, x):
        return (
            self.model(x, attention_mask=(x != 0).long()) if self.attends else self.model(x)
        ).logits


SMALL = dict(
    vocab_size=30,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=64,
    num_labels=3,
    pad_token_id=0,
)


def hf(
    name: str,
    eager: bool = True,
    attends: bool = True,
    kind: str = 'ForSequenceClassification',
    wide: float = 8,
    **config,
):
    import transformers

    if eager:
        config['attn_implementation'] = 'eager'
    model = getattr(transformers, f'{name}{kind}')(getattr(transformers, f'{name}Config')(**config))
    with torch.no_grad():  # sure of something: with fresh weights all draws are nearly alike
        for n, p in model.named_parameters():
            if p.ndim > 1 and 'norm' not in n.lower():
                p.mul_(wide)
    return HF(model, attends)


def lora(model: nn.Module) -> nn.Module:
    "Low-rank adapters with dropout in front of each query, as peft adds them"

    class Adapter(nn.Module):
        def __init__(self, base):
            super().__init__()
            self.base, self.drop, self.a, self.b = (
                base,
                drop(0.2),
                nn.Linear(base.in_features, 4, bias=False),
                nn.Linear(4, base.out_features, bias=False),
            )

        def forward(self, x):
            return self.base(x) + self.b(self.a(self.drop(x)))

    for m in list(model.modules()):
        if isinstance(getattr(m, 'q_proj', None), nn.Linear):
            m.q_proj = Adapter(m.q_proj)
    return model


T = functools.partial
vision, tm = torchvision.models, timm.create_model
LLAMA = dict(
    vocab_size=30,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    intermediate_size=24,
    max_position_embeddings=64,
    num_labels=3,
    pad_token_id=0,
)

MODELS = [
    # torchvision
    Model(
        'torchvision MobileNetV2',
        'pictures',
        T(vision.mobilenet_v2, width_mult=0.25, num_classes=3, dropout=0.3),
    ),
    Model(
        'torchvision MobileNetV3',
        'pictures',
        T(vision.mobilenet_v3_small, width_mult=0.5, num_classes=3, dropout=0.3),
    ),
    Model('torchvision SqueezeNet', 'pictures', T(vision.squeezenet1_1, num_classes=3)),
    Model(
        'torchvision ShuffleNet',
        'pictures',
        T(vision.shufflenet_v2_x0_5, num_classes=3),
        'no dropout',
    ),
    Model(
        'torchvision DenseNet',
        'pictures',
        T(vision.DenseNet, 8, (2, 2), 8, drop_rate=0.3, num_classes=3),
    ),
    Model('torchvision MNASNet', 'pictures', T(vision.mnasnet0_5, num_classes=3, dropout=0.3)),
    Model(
        'torchvision ViT',
        'pictures',
        T(
            vision.VisionTransformer,
            32,
            8,
            2,
            2,
            16,
            32,
            dropout=0.2,
            attention_dropout=0.2,
            num_classes=3,
        ),
    ),
    Model(
        'torchvision Swin',
        'pictures',
        T(
            vision.SwinTransformer,
            [4, 4],
            8,
            [1, 1],
            [2, 2],
            [2, 2],
            dropout=0.2,
            attention_dropout=0.2,
            stochastic_depth_prob=0.2,
            num_classes=3,
        ),
    ),
    Model(
        'torchvision ConvNeXt',
        'pictures',
        T(
            vision.ConvNeXt,
            [vision.convnext.CNBlockConfig(8, 16, 1), vision.convnext.CNBlockConfig(16, None, 1)],
            stochastic_depth_prob=0.5,
            layer_scale=1,
            num_classes=3,
        ),
    ),
    # timm
    Model(
        'timm ViT, attention not fused',
        'pictures',
        lambda: unfused(
            tm(
                'vit_tiny_patch16_224',
                img_size=32,
                patch_size=8,
                depth=2,
                embed_dim=24,
                num_classes=3,
                proj_drop_rate=0.2,
                attn_drop_rate=0.2,
            )
        ),
    ),
    Model(
        'timm ViT, fused attention with dropout',
        'pictures',
        T(
            tm,
            'vit_tiny_patch16_224',
            img_size=32,
            patch_size=8,
            depth=2,
            embed_dim=24,
            num_classes=3,
            attn_drop_rate=0.2,
        ),
        'fused attention',
    ),
    Model(
        'timm ConvNeXt with drop path',
        'pictures',
        T(tm, 'test_convnext', num_classes=3, drop_path_rate=0.3, drop_rate=0.2),
    ),
    Model(
        'timm EfficientNet',
        'pictures',
        T(tm, 'test_efficientnet', num_classes=3, drop_rate=0.3, drop_path_rate=0.3),
    ),
    Model(
        'timm NFNet',
        'pictures',
        T(tm, 'test_nfnet', num_classes=3, drop_rate=0.3, drop_path_rate=0.3),
    ),
    Model(
        'timm MLP-Mixer',
        'pictures',
        T(
            timm.models.mlp_mixer.MlpMixer,
            3,
            32,
            patch_size=8,
            num_blocks=2,
            embed_dim=16,
            proj_drop_rate=0.3,
            drop_rate=0.2,
        ),
    ),
    Model(
        'timm ResNet with DropBlock',
        'pictures',
        T(tm, 'resnet10t', num_classes=3, drop_block_rate=0.3, drop_rate=0.2),
        'DropBlock2d',
    ),
    Model(
        'timm ViT with patch dropout',
        'pictures',
        T(
            tm,
            'vit_tiny_patch16_224',
            img_size=32,
            patch_size=8,
            depth=2,
            embed_dim=24,
            num_classes=3,
            patch_drop_rate=0.5,
            drop_rate=0.2,
        ),
        'PatchDropout',
    ),
    # Hugging Face
    Model('Hugging Face BERT', 'texts', T(hf, 'Bert', **SMALL)),
    Model(
        'Hugging Face BERT, fused attention',
        'texts',
        T(hf, 'Bert', eager=False, **SMALL),
        'fused attention',
    ),
    Model('Hugging Face RoBERTa', 'texts', T(hf, 'Roberta', **SMALL)),
    Model(
        'Hugging Face ALBERT (one layer, used again)',
        'texts',
        T(
            hf,
            'Albert',
            **SMALL,
            embedding_size=8,
            hidden_dropout_prob=0.1,
            attention_probs_dropout_prob=0.1,
            classifier_dropout_prob=0.1,
        ),
    ),
    Model('Hugging Face ELECTRA', 'texts', T(hf, 'Electra', **SMALL, embedding_size=8)),
    Model(
        'Hugging Face DistilBERT',
        'texts',
        T(
            hf,
            'DistilBert',
            vocab_size=30,
            dim=16,
            n_layers=2,
            n_heads=2,
            hidden_dim=24,
            max_position_embeddings=64,
            num_labels=3,
            pad_token_id=0,
        ),
    ),
    Model(
        'Hugging Face DeBERTa v2',
        'texts',
        T(
            hf,
            'DebertaV2',
            eager=False,
            **SMALL,
            relative_attention=True,
            pos_att_type=['p2c', 'c2p'],
        ),
    ),
    Model(
        'Hugging Face GPT-2',
        'texts',
        T(
            hf,
            'GPT2',
            vocab_size=30,
            n_embd=16,
            n_layer=2,
            n_head=2,
            n_positions=64,
            num_labels=3,
            pad_token_id=0,
        ),
    ),
    Model(
        'Hugging Face GPT-2, positions padded',
        'texts, padded left',
        T(
            hf,
            'GPT2',
            vocab_size=30,
            n_embd=16,
            n_layer=2,
            n_head=2,
            n_positions=64,
            num_labels=3,
            pad_token_id=0,
        ),
        'padded',
    ),
    Model('Hugging Face Llama with adapters', 'texts', lambda: lora(hf('Llama', **LLAMA))),
    Model(
        'Hugging Face Llama with adapters, padded first',
        'texts, padded left',
        lambda: lora(hf('Llama', **LLAMA)),
    ),
    Model(
        'Hugging Face Llama, attention dropout',
        'texts, padded left',
        T(hf, 'Llama', **LLAMA, attention_dropout=0.2),
    ),
    Model(
        'Hugging Face ViT',
        'pictures',
        T(
            hf,
            'ViT',
            kind='ForImageClassification',
            attends=False,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=24,
            image_size=32,
            patch_size=8,
            num_labels=3,
            hidden_dropout_prob=0.2,
            attention_probs_dropout_prob=0.2,
        ),
    ),
    Model(
        'Hugging Face wav2vec 2.0',
        'sounds',
        T(
            hf,
            'Wav2Vec2',
            attends=False,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=24,
            conv_dim=(8, 8),
            conv_stride=(5, 4),
            conv_kernel=(10, 4),
            num_feat_extract_layers=2,
            num_conv_pos_embeddings=8,
            num_conv_pos_embedding_groups=2,
            classifier_proj_size=8,
            num_labels=3,
            layerdrop=0.0,
            apply_spec_augment=False,
        ),
    ),
    # recurrent and other sequences
    Model(
        'packed GRU',
        'series',
        lambda: Fn(packed, drop=drop(), rnn=nn.GRU(6, 8, batch_first=True), out=nn.Linear(8, 3)),
    ),
    Model(
        'bidirectional LSTM, dropout between its layers',
        'series',
        lambda: Fn(
            unmasked,
            drop=drop(),
            rnn=nn.LSTM(6, 8, 2, dropout=0.3, batch_first=True),
            out=nn.Linear(8, 3),
        ),
        'inside LSTM',
    ),
    Model(
        'LSTM that averages over padding',
        'series',
        lambda: Fn(unmasked, drop=drop(), rnn=nn.LSTM(6, 8, batch_first=True), out=nn.Linear(8, 3)),
        'padded',
    ),
    Model(
        'LSTM with the batch on the second axis',
        'series',
        lambda: Fn(sequence_first, drop=drop(), rnn=nn.LSTM(6, 8), out=nn.Linear(8, 3)),
        'axis',
    ),
    Model(
        'GRU cell with dropout at each step',
        'series',
        lambda: Fn(stepwise, drop=drop(), cell=nn.GRUCell(6, 8), out=nn.Linear(8, 3)),
    ),
    Model(
        'one-dimensional convolutions over masked series',
        'series',
        lambda: Fn(convolved, drop=drop(), conv=nn.Conv1d(6, 8, 3, padding=1), out=nn.Linear(8, 3)),
    ),
    Model('TransformerEncoder with a padding mask', 'texts', text_transformer),
    Model(
        'TransformerEncoder with a padding mask, padded first',
        'texts, padded left',
        text_transformer,
    ),
    Model('causal attention, padded first', 'texts, padded left', decoder),
    # graphs, videos, branches
    Model(
        'graph convolutions',
        'graphs',
        lambda: Fn(graph, a=nn.Linear(6, 8), b=nn.Linear(8, 8), drop=drop(), out=nn.Linear(8, 3)),
    ),
    Model(
        'three-dimensional convolutions',
        'videos',
        lambda: nn.Sequential(
            nn.Conv3d(3, 8, 3),
            nn.ReLU(),
            nn.Dropout3d(0.3),
            nn.Conv3d(8, 8, 2),
            nn.AdaptiveAvgPool3d(1),
            nn.Flatten(),
            drop(),
            nn.Linear(8, 3),
        ),
    ),
    Model(
        'mixture of experts',
        'rows',
        lambda: Fn(
            experts,
            inp=nn.Linear(6, 8),
            gate=nn.Linear(6, 2),
            a=nn.Linear(8, 8),
            b=nn.Linear(8, 8),
            out=nn.Linear(8, 3),
        ),
    ),
    Model(
        'a branch on the mean of the batch',
        'rows',
        lambda: Fn(branch_on_mean, **linear('a'), drop=drop(), out=nn.Linear(8, 3)),
        'its batch',
    ),
    Model(
        'an exit that the whole batch takes',
        'rows',
        lambda: Fn(early_exit, **linear('a'), b=nn.Linear(8, 8), drop=drop(), out=nn.Linear(8, 3)),
        'its batch',
    ),
    Model(
        'features less the mean of the batch',
        'rows',
        lambda: Fn(centred, **linear('a'), drop=drop(), out=nn.Linear(8, 3)),
        'its batch',
    ),
    Model(
        'noise in training',
        'rows',
        lambda: Fn(noise_in_training, **linear('a'), drop=drop(), out=nn.Linear(8, 3)),
        'random in training',
    ),
    Model(
        'noise always',
        'rows',
        lambda: Fn(noise_always, **linear('a'), drop=drop(), out=nn.Linear(8, 3)),
        'random numbers',
    ),
    Model(
        'fractional max pooling',
        'pictures',
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.FractionalMaxPool2d(2, 8),
            nn.Flatten(),
            drop(),
            nn.Linear(256, 3),
        ),
        'FractionalMaxPool2d',
    ),
    Model('randomised ReLU', 'rows', lambda: with_layer(nn.RReLU())),
    # normalisation
    Model(
        'group norm',
        'pictures',
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.GroupNorm(2, 8),
            nn.Dropout2d(0.3),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 3),
        ),
    ),
    Model('layer norm', 'rows', lambda: with_layer(nn.LayerNorm(8))),
    Model(
        'instance norm',
        'pictures',
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.InstanceNorm2d(8),
            nn.ReLU(),
            nn.Dropout2d(0.3),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 3),
        ),
    ),
    Model('batch norm', 'rows', lambda: with_layer(nn.BatchNorm1d(8))),
    Model(
        'batch norm by the statistics of the batch',
        'rows',
        lambda: with_layer(nn.BatchNorm1d(8, track_running_stats=False)),
        'BatchNorm1d',
    ),
    Model(
        'spectral norm',
        'rows',
        lambda: with_layer(nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8))),
    ),
    Model(
        'weight norm',
        'rows',
        lambda: with_layer(nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))),
    ),
    # compiled, scripted, quantised, lazy, tied, checkpointed
    Model('torch.compile', 'rows', lambda: torch.compile(head())),
    Model('DataParallel', 'rows', lambda: nn.DataParallel(head())),
    Model('TorchScript', 'rows', lambda: torch.jit.script(head()), 'scripted'),
    Model(
        'TorchScript in a part without dropout',
        'rows',
        lambda: half_scripted(nn.Sequential(nn.Linear(6, 6), nn.ReLU())),
    ),
    Model(
        'TorchScript in a part with dropout',
        'rows',
        lambda: half_scripted(nn.Sequential(nn.Linear(6, 6), drop())),
        'scripted',
    ),
    Model('dynamically quantised', 'rows', quantised, 'its batch'),
    Model(
        'lazy layers that have not been called',
        'rows',
        lambda: nn.Sequential(nn.LazyLinear(8), drop(), nn.LazyLinear(3)),
        'no weights yet',
    ),
    Model('tied weights', 'rows', tied),
    Model('a block used twice', 'rows', twice),
    Model(
        'checkpointed activations',
        'rows',
        lambda: Fn(
            checkpointed,
            body=nn.Sequential(nn.Linear(6, 8), nn.ReLU(), drop()),
            out=nn.Linear(8, 3),
        ),
    ),
    Model('dropout in place', 'rows', lambda: head(inplace=True)),
    Model(
        'alpha dropout',
        'rows',
        lambda: nn.Sequential(nn.Linear(6, 16), nn.SELU(), nn.AlphaDropout(0.3), nn.Linear(16, 3)),
    ),
    Model(
        'half precision',
        'rows',
        lambda: nn.Sequential(
            Fn(lambda m, x: m['net'](x.bfloat16()).float(), net=head().bfloat16())
        ),
    ),
    Model(
        'dropout that drops everything',
        'rows',
        lambda: nn.Sequential(nn.Linear(6, 8), drop(1.0), nn.Linear(8, 3)),
        'draws are the same',
    ),
]


def awake(model: nn.Module, items: torch.Tensor) -> nn.Module:
    """Weights as after some training: no branch that begins with zeros, and batch norms that
    have seen the items"""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if not isinstance(p, nn.UninitializedParameter) and not p.any() and 'bias' not in name:
                nn.init.normal_(p, 1.0 if p.ndim == 1 else 0, 0.3)
        norms = [
            m
            for m in model.modules()
            if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats
        ]
        for m in norms:
            m.train()
            m.momentum = 1.0
        if norms:
            model(items)
    return model


def unfused(model: nn.Module) -> nn.Module:
    for m in model.modules():
        if hasattr(m, 'fused_attn'):
            m.fused_attn = False
    return model


def table() -> str:
    "The list as a table, in Markdown"
    return '\n'.join(
        [
            '| model | items | draws |',
            '|---|---|---|',
            *(f'| {m.name} | {m.items} | {m.outcome} |' for m in MODELS),
        ]
    )
