"""What ends the process that works on one picture, as a segmentation fault would. Without torch, so that it begins soon."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from PIL import Image

from aft_ray.models.images import ImageTransform


def end_at(crop: np.ndarray, deadly: str | None) -> None:
    """deadly: the pixels of a crop, as hexadecimal."""
    if crop.tobytes().hex() == deadly:
        os._exit(1)


@dataclass(frozen=True)
class Crop(ImageTransform):
    deadly: str | None = None

    def crop(self, image: Image.Image) -> np.ndarray:
        cropped = super().crop(image)
        end_at(cropped, self.deadly)
        return cropped
