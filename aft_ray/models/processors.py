"""Turns the `preprocessor_config.json` of transformers' image processors into an ImageTransform.

The file is read, never run: only a few known processors are accepted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from PIL import Image

from aft_ray.models.images import ImageTransform, per_channel
from aft_ray.recipe.errors import InputError

NEEDED: dict[str, Any] = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_pad": False}
"""Settings that must have exactly this value."""

HALF = (0.5, 0.5, 0.5)
_ALL = {"do_center_crop": False, "do_normalize": True, "image_mean": HALF, "image_std": HALF, **NEEDED}
_CLIP = _ALL | {
    "size": {"shortest_edge": 224},
    "crop_size": 224,
    "do_center_crop": True,
    "resample": 3,
    "image_mean": (0.48145466, 0.4578275, 0.40821073),
    "image_std": (0.26862954, 0.26130258, 0.27577711),
}
PROCESSORS: dict[str, dict[str, Any]] = {
    "Bit": _CLIP,
    "CLIP": _CLIP,
    "DeiT": _ALL | {"size": 256, "crop_size": 224, "do_center_crop": True, "resample": 3},
    "Siglip": _ALL | {"size": {"height": 224, "width": 224}, "resample": 3},
    "ViT": _ALL | {"size": 224, "resample": 2},
}
"""Defaults of each known processor."""

SQUARES = ("DeiT", "ViT")
"""Processors that take a plain number as `size` for both sides; others take it for the shorter side."""


def processor_transform(config: Mapping[str, Any], default: str, size: int | None) -> ImageTransform:
    """The transform of a `preprocessor_config.json`, at `size` pixels if given.

    default: the key of PROCESSORS to use if the file names no processor.
    Raises InputError for a processor or a setting that cannot be reproduced.
    """
    name = config.get("image_processor_type") or config.get("feature_extractor_type") or default
    kind = re.sub(r"(ImageProcessor|FeatureExtractor)(Fast|Pil)?$", "", name)
    if kind not in PROCESSORS:
        raise InputError(f"image processor {name} is not known. Known: {', '.join(PROCESSORS)}.")
    settings = PROCESSORS[kind] | {key: value for key, value in config.items() if value is not None}
    for key, value in NEEDED.items():
        if settings[key] != value:
            raise InputError(f"an image processor with {key} = {settings[key]} cannot be reproduced, only {value}.")
    sides = _sides(settings["size"], square=kind in SQUARES)
    squash = sides.keys() == {"height", "width"}
    resized = _length(sides, "size", ("height", "width") if squash else ("shortest_edge",))
    cropped = resized
    if settings["do_center_crop"]:
        cropped = _length(_sides(settings["crop_size"], square=True), "crop_size", ("height", "width"))
    elif not squash:
        raise InputError(f"an image processor with size = {sides} and no crop makes images that are not square.")
    normalised = settings["do_normalize"]
    return ImageTransform(
        size=size or cropped,
        resized=round(size * resized / cropped) if size else resized,
        crop_mode="squash" if squash else "center",
        offset="floor",
        interpolation=Image.Resampling(settings["resample"]).name.lower(),
        mean=per_channel(settings["image_mean"] if normalised else 0.0),
        std=per_channel(settings["image_std"] if normalised else 1.0),
    )


def _sides(value: Any, *, square: bool) -> dict[str, int]:
    """Side lengths by name. Old files have a plain number."""
    if isinstance(value, Mapping):
        return {name: length for name, length in value.items() if length is not None}
    return {"height": value, "width": value} if square else {"shortest_edge": value}


def _length(sides: Mapping[str, int], key: str, names: tuple[str, ...]) -> int:
    """The common length of all `names`. Raises InputError if other sides are given, or lengths differ."""
    if sides.keys() != set(names) or len(set(sides.values())) != 1:
        raise InputError(f"an image processor with {key} = {dict(sides)} cannot be reproduced, only squares.")
    return next(iter(sides.values()))
