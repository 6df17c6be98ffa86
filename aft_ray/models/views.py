"""Views of a picture: crops, perhaps mirrored, that are functions of the sample and the view's number alone.

View 0 is the whole picture. A teacher's view and the student's show the same part, whatever the size of their inputs: both are
cut from the square that the model sees. Nothing here imports torch: views are made by the processes that decode.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
from PIL import Image

AREA, RATIO = 0.5, 4 / 3
"""Smallest share of the picture that a view shows, and the largest stretch of its sides."""
WHOLE = (1.0, 0.5, 0.5, 0.5, 0.5)
"""The numbers of view 0."""


@dataclass(frozen=True)
class View:
    """number: from 1 on. flip: whether views may be mirrored."""

    number: int
    flip: bool

    def fingerprint(self) -> dict[str, float]:
        return {**asdict(self), "area": AREA, "ratio": RATIO}

    def of(self, crop: np.ndarray, sample_id: str) -> np.ndarray:
        """The view of a (size, size, 3) uint8 crop, of the same size."""
        area, stretch, across, down, mirror = view_numbers(sample_id, self.number)
        share, factor = math.sqrt(AREA + (1 - AREA) * area), math.sqrt(RATIO ** (2 * stretch - 1))
        width, height = min(1.0, share * factor), min(1.0, share / factor)
        left, top, size = (1 - width) * across, (1 - height) * down, len(crop)
        box = (left * size, top * size, (left + width) * size, (top + height) * size)
        picture = Image.fromarray(crop).resize((size, size), Image.Resampling.BICUBIC, box=box)
        if self.flip and mirror < 0.5:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return np.asarray(picture)


def view_numbers(sample_id: str, number: int) -> tuple[float, ...]:
    """Uniform in [0, 1): area, stretch, place across and down, and mirrored if below one half."""
    if number == 0:
        return WHOLE
    digest = hashlib.blake2b(f"{number}/{sample_id}".encode(), digest_size=20).digest()
    return tuple(float(word) / 2**32 for word in np.frombuffer(digest, "<u4"))


def all_numbers(sample_ids: Iterable[str], chosen: Iterable[int]) -> np.ndarray:
    """(n, 5) float32 of the chosen view of each sample."""
    pairs = zip(sample_ids, chosen, strict=True)
    return np.array([view_numbers(str(sample), int(number)) for sample, number in pairs], np.float32).reshape(-1, 5)
