"""From encoded bytes to the uint8 crop that a model sees, with Pillow alone.

Decoding and resizing run in many light CPU processes that should not have to import torch; what follows on the device
(`normalise`) is arithmetic on the crop. The result equals the timm/torchvision evaluation transform of the same model.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from aft_ray.config import InputError

if TYPE_CHECKING:
    import torch

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class ImageTransform:
    """A model's evaluation transform.

    size: side of the square crop in pixels. crop_fraction: crop side over the resized image's shorter side.
    crop_mode: `center` keeps the aspect ratio; `squash` resizes to a square first.
    interpolation: a key of RESAMPLING. mean, std: per channel, for values in [0, 1].
    """

    size: int
    crop_fraction: float = 1.0
    crop_mode: str = "center"
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __call__(self, encoded: bytes) -> np.ndarray:
        """(size, size, 3) uint8: shorter side (`squash`: both) resized to size / crop_fraction, then the centre."""
        image = Image.open(io.BytesIO(encoded)).convert("RGB")
        shorter = int(self.size / self.crop_fraction)
        width, height = image.size
        if self.crop_mode == "squash":
            image = image.resize((shorter, shorter), RESAMPLING[self.interpolation])
        elif min(width, height) != shorter:
            if width <= height:
                resized = (shorter, int(shorter * height / width))
            else:
                resized = (int(shorter * width / height), shorter)
            image = image.resize(resized, RESAMPLING[self.interpolation])
        left = int(round((image.width - self.size) / 2.0))
        top = int(round((image.height - self.size) / 2.0))
        return np.asarray(image.crop((left, top, left + self.size, top + self.size)))

    @classmethod
    def from_data_config(cls, data: Mapping[str, Any], size: int | None) -> ImageTransform:
        """The transform that timm's resolved data config describes, at `size` pixels if given.

        Raises InputError for a way of cropping that is not known here.
        """
        if data["crop_mode"] not in ("center", "squash"):
            raise InputError(f"images are cropped by '{data['crop_mode']}'. Known: center, squash.")
        return cls(
            size=size or data["input_size"][-1],
            crop_fraction=data["crop_pct"],
            crop_mode=data["crop_mode"],
            interpolation=data["interpolation"],
            mean=tuple(data["mean"]),
            std=tuple(data["std"]),
        )

    def fingerprint(self) -> dict[str, Any]:
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def normalise(images: torch.Tensor, transform: ImageTransform) -> torch.Tensor:
    """(B, 3, height, width) float32 from (B, height, width, 3) uint8, on the device where the images are."""
    pixels = images.permute(0, 3, 1, 2).float().div(255)
    mean = pixels.new_tensor(transform.mean).view(1, 3, 1, 1)
    std = pixels.new_tensor(transform.std).view(1, 3, 1, 1)
    return (pixels - mean) / std
