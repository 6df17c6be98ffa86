"""From encoded bytes to the uint8 crop that a model sees, with Pillow alone.

Decoding and resizing run in many light CPU processes that should not import torch; the rest, `normalise`, is arithmetic on
the device. On an RGB picture the result equals the model's own evaluation transform: torchvision's for timm and open_clip,
the Pillow processors' for transformers.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from PIL import Image

from aft_ray.recipe.errors import InputError

if TYPE_CHECKING:
    import torch

# Pillow's warnings name no file. A picture that cannot be used is quarantined with its reason.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", module=r"PIL\.")

MAX_PIXELS = 89_478_485
"""Of a picture, unless the recipe accepts more: a small file can claim a picture that fills the memory."""
BACKGROUNDS = {"white": (255, 255, 255), "grey": (128, 128, 128), "black": (0, 0, 0)}

RESAMPLING = {method.name.lower(): method for method in Image.Resampling}

OFFSETS: dict[str, Callable[[int], int]] = {
    "round": lambda spare: int(round(spare / 2.0)),  # torchvision: a half goes to the even neighbour
    "floor": lambda spare: spare // 2,  # transformers
    "truncate": lambda spare: int(spare / 2.0),  # open_clip, where it pads
}
"""First pixel of the crop. `spare`: the image's length less the crop's; both are negative if the image is shorter."""


TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The operation that turns a picture upright, by the orientation that its camera recorded."""


def decode(encoded: bytes, background: str | None = None, max_pixels: int | None = None) -> Image.Image:
    """The whole picture in RGB, upright; an animation's first frame. Raises one of quarantine's UNREADABLE.

    background: a key of BACKGROUNDS, the colour behind transparent parts; None shows the colours that these parts hide.
    max_pixels: as for `open_picture`.
    """
    image = open_picture(encoded, max_pixels)
    turn = TURNS.get(_orientation(image))
    with _avif_errors():
        if image.mode[0] in "IF":
            image = _eight_bits(image)
        elif background is not None and image.has_transparency_data:
            image = _on(image, BACKGROUNDS[background])
        image = image.convert("RGB")
    return image if turn is None else image.transpose(turn)


def _on(image: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    plane = Image.new("RGBA", image.size, (*colour, 255))
    plane.alpha_composite(image.convert("RGBA"))
    return plane


def open_picture(encoded: bytes, max_pixels: int | None = None) -> Image.Image:
    """Opens a picture and reads only its header.

    Raises one of quarantine's UNREADABLE, also if it has more than `max_pixels`, by default MAX_PIXELS.
    """
    limit = max_pixels or MAX_PIXELS
    if Image.MAX_IMAGE_PIXELS is not None and limit > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = limit  # Pillow has one limit for the process, and refuses twice as many
    try:
        with _avif_errors():
            image = Image.open(io.BytesIO(encoded))
    except Image.DecompressionBombError as error:
        raise ValueError(f"it has more than {limit} pixels; dataset.max_pixels accepts larger pictures") from error
    if image.width * image.height > limit:
        raise ValueError(
            f"it has {image.width} x {image.height} pixels, more than {limit}; dataset.max_pixels accepts larger pictures"
        )
    return image


@contextmanager
def _avif_errors() -> Iterator[None]:
    """Turns the RuntimeError of Pillow's AVIF decoder into a ValueError, as other decoders raise."""
    try:
        yield
    except RuntimeError as error:
        raise ValueError(str(error)) from error


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(0x0112, 1)
    except (OSError, SyntaxError, ValueError, struct.error):
        return 1  # its metadata is damaged, the picture itself may be whole


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits, or of fractions, as 8 bits. 255 is 65,535, or the brightest pixel in pictures on other scales."""
    values = np.nan_to_num(np.asarray(image).astype(np.float32))
    highest = float(values.max(initial=1e-12))
    scale = highest if image.mode == "F" or highest > 65_535 else 65_535
    return Image.fromarray(np.round(values * (255 / scale)).clip(0, 255).astype(np.uint8))


@dataclass(frozen=True)
class ImageTransform:
    """A model's evaluation transform.

    size: side of the square crop in pixels. resized: side that the image is resized to before cropping; null is `size`.
    crop_mode: the side that this sets: `center` the shorter and `longest` the longer, keeping the aspect ratio; `squash`
        both.
    offset: a key of OFFSETS; a crop is black outside the image.
    interpolation: a key of RESAMPLING. mean, std: per channel, for values in [0, 1].
    background, max_pixels: as for `decode`; they come from the samples (`reading`).
    """

    column: ClassVar[str] = "image"

    size: int
    resized: int | None = None
    crop_mode: str = "center"
    offset: str = "round"
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    background: str | None = None
    max_pixels: int | None = None

    def __call__(self, encoded: bytes) -> np.ndarray:
        """(size, size, 3) uint8 crop of an encoded picture."""
        return self.crop(self.decode(encoded))

    def decode(self, encoded: bytes) -> Image.Image:
        return decode(encoded, self.background, self.max_pixels)

    def reading(self, samples: Mapping[str, Any]) -> ImageTransform:
        """The transform for samples whose fingerprint, or whose `dataset` in a recipe, says how pictures are decoded."""
        return replace(self, background=samples.get("background"), max_pixels=samples.get("max_pixels"))

    def crop(self, image: Image.Image) -> np.ndarray:
        """(size, size, 3) uint8 of an RGB picture: resized, then its centre."""
        resized = self._resized(*image.size)
        left, top = (OFFSETS[self.offset](length - self.size) for length in resized)
        if resized[0] * resized[1] > MAX_PIXELS:
            image, left, top = self._visible(image, resized, left, top)
        elif image.size != resized:
            image = image.resize(resized, RESAMPLING[self.interpolation])
        # A copy: torch warns of an array that it may not write to.
        return np.array(image.crop((left, top, left + self.size, top + self.size)))

    def _visible(
        self, image: Image.Image, resized: tuple[int, int], left: int, top: int
    ) -> tuple[Image.Image, int, int]:
        """The part of the resized picture that the crop shows, and where the crop starts in it.

        Resizing a whole picture of 30,000 x 1 pixels would take gigabytes. The results agree up to rounding.
        """
        start = (max(left, 0), max(top, 0))
        stop = (min(left + self.size, resized[0]), min(top + self.size, resized[1]))
        scale = (image.width / resized[0], image.height / resized[1])
        box = (start[0] * scale[0], start[1] * scale[1], stop[0] * scale[0], stop[1] * scale[1])
        size = (stop[0] - start[0], stop[1] - start[1])
        part = image.resize(size, RESAMPLING[self.interpolation], box=box)
        return part, left - start[0], top - start[1]

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height after resizing, rounded as by the transform's library."""
        side = self.resized or self.size
        if self.crop_mode == "squash":
            return side, side
        if self.crop_mode == "longest":
            ratio = max(width, height) / side
            return max(1, round(width / ratio)), max(1, round(height / ratio))
        return (side, int(side * height / width)) if width <= height else (int(side * width / height), side)

    @classmethod
    def from_data_config(cls, data: Mapping[str, Any], size: int | None) -> ImageTransform:
        """The transform that timm's resolved data config describes, at `size` pixels if given.

        Raises InputError for an unknown way of cropping.
        """
        if data["crop_mode"] not in ("center", "squash"):
            raise InputError(f"images are cropped by '{data['crop_mode']}'. Known: center, squash.")
        size = size or data["input_size"][-1]
        return cls(
            size=size,
            resized=int(size / data["crop_pct"]),
            crop_mode=data["crop_mode"],
            interpolation=data["interpolation"],
            mean=tuple(data["mean"]),
            std=tuple(data["std"]),
        )

    @classmethod
    def from_preprocess_config(cls, preprocess: Mapping[str, Any], size: int) -> ImageTransform:
        """The evaluation transform of open_clip's `preprocess_cfg`, at `size` pixels.

        Raises InputError for an unknown way of resizing or filling.
        """
        mode = preprocess["resize_mode"]
        if mode not in ("shortest", "longest", "squash"):
            raise InputError(f"images are resized by '{mode}'. Known: shortest, longest, squash.")
        if mode == "longest" and preprocess["fill_color"]:
            raise InputError(f"images are filled with colour {preprocess['fill_color']}; only black, 0, is supported.")
        return cls(
            size=size,
            crop_mode="center" if mode == "shortest" else mode,
            offset="truncate" if mode == "longest" else "round",
            interpolation="bilinear" if preprocess["interpolation"] == "bilinear" else "bicubic",
            mean=per_channel(preprocess["mean"]),
            std=per_channel(preprocess["std"]),
        )

    def fingerprint(self) -> dict[str, Any]:
        """Everything that changes the crop's values. A background of None is left out, as before there was any."""
        found = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        del found["max_pixels"]
        if self.background is None:
            del found["background"]
        return found


def per_channel(value: float | Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = value if isinstance(value, Sequence) else (value, value, value)
    return red, green, blue


def normalise(images: torch.Tensor, transform: ImageTransform) -> torch.Tensor:
    """(B, 3, height, width) float32 from (B, height, width, 3) uint8, on the device where the images are.

    In place from the second operation on: on a CPU, fresh memory for each takes five times as long.
    """
    import torch

    pixels = images.permute(0, 3, 1, 2).to(torch.float32, copy=True)
    # Made on the host and sent without waiting: making a tensor from numbers on a GPU waits until its queue is empty.
    mean, std = (
        torch.tensor(values).view(1, 3, 1, 1).to(pixels.device, non_blocking=True)
        for values in (transform.mean, transform.std)
    )
    return pixels.div_(255).sub_(mean).div_(std)
