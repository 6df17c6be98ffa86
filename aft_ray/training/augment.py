"""Random changes of the student's view, made for whole batches on the training device.

The random numbers of a row are a function of (seed, step, row of the global batch), so any number of workers sees the same
pictures, and so does a resumed run. A picture is changed after the student's transform has cropped it. With `train.views` its
crop is the crop that the teachers saw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn.functional import affine_grid, grid_sample

from aft_ray.models.students import student_transforms
from aft_ray.models.text import PADDING
from aft_ray.models.views import AREA, RATIO
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.sections import TrainConfig
from aft_ray.training.inputs.batch import Batch

NUMBERS = 16
"""Random numbers of a row, uniform in [0, 1)."""
USE = 7
"""Keeps these random numbers apart from the numbers that order the samples."""


@dataclass(frozen=True)
class Strength:
    """area: smallest share of the picture that a crop shows. turn: degrees.
    colour: largest change of brightness, contrast and saturation, as a factor from 1. erased: how often a patch is erased.
    dropped: share of words.
    """

    area: float
    turn: float = 0.0
    colour: float = 0.0
    erased: float = 0.0
    dropped: float = 0.0


STRENGTHS = {
    "light": Strength(area=0.64, dropped=0.1),
    "strong": Strength(area=0.35, turn=15.0, colour=0.4, erased=0.25, dropped=0.2),
}


def augmentation_of(recipe: Recipe) -> Augmentation | None:
    """The augmentation that the recipe's `train.augment` names; None for `none`."""
    if recipe.train.augment == "none":
        return None
    return Augmentation(recipe.train, [transform.column for transform in student_transforms(recipe.student)])


class Augmentation:
    """Changes the inputs of a student's batch."""

    def __init__(self, settings: TrainConfig, columns: Sequence[str]) -> None:
        """columns: `image` or `text`, one for each of the student's inputs."""
        self.strength = STRENGTHS[settings.augment]
        self.flip, self.seed, self.columns = settings.flip, settings.seed, tuple(columns)

    def __call__(self, batch: Batch, step: int, rows: np.ndarray) -> Batch:
        """The batch with changed inputs. rows: places of its rows in the global batch of `step`."""
        inputs = batch.inputs if isinstance(batch.inputs, tuple) else (batch.inputs,)
        changed = []
        for number, (column, one) in enumerate(zip(self.columns, inputs, strict=True)):
            random = np.random.default_rng((self.seed, USE, step, number))
            if column == "image":
                numbers = random.random((int(rows.max(initial=-1)) + 1, NUMBERS), np.float32)[rows]
                changed.append(self.pictures(one, torch.from_numpy(numbers).to(one.device), batch.views))
            else:
                numbers = random.random((int(rows.max(initial=-1)) + 1, one.shape[1]), np.float32)[rows]
                changed.append(drop_words(one, torch.from_numpy(numbers).to(one.device), self.strength.dropped))
        return replace(batch, inputs=tuple(changed) if isinstance(batch.inputs, tuple) else changed[0])

    def pictures(
        self, images_bHWC: torch.Tensor, numbers: torch.Tensor, views: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(b, height, width, 3) uint8 from such, and (b, NUMBERS) random numbers. views: the parts to show, as in Batch."""
        if not len(images_bHWC):
            return images_bHWC
        pixels = images_bHWC.permute(0, 3, 1, 2).float()
        area, turn = self.strength.area, self.strength.turn
        if views is not None:
            area, turn, numbers = AREA, 0.0, torch.cat([views, numbers[:, views.shape[1] :]], 1)
        grid = affine_grid(self._views(numbers, area, turn), list(pixels.shape), align_corners=False)
        pixels = grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
        if self.strength.colour:
            pixels = recoloured(pixels, 1 + self.strength.colour * (2 * numbers[:, 6:9] - 1))
        pixels = pixels.round_().clamp_(0, 255)
        if self.strength.erased:
            pixels = erased(pixels, numbers[:, 9:14], self.strength.erased)
        return pixels.to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    def _views(self, numbers: torch.Tensor, least: float, turn: float) -> torch.Tensor:
        """(b, 2, 3) maps from a view's coordinates in [-1, 1] to the picture's: a crop of random area, ratio and place, as in
        training on ImageNet (arXiv 1409.4842), mirrored and turned."""
        area = least + (1 - least) * numbers[:, 0]
        stretch = torch.exp(math.log(RATIO) * (2 * numbers[:, 1] - 1)).sqrt()
        width, height = (area.sqrt() * stretch).clamp(max=1), (area.sqrt() / stretch).clamp(max=1)
        right, down = (1 - width) * (2 * numbers[:, 2] - 1), (1 - height) * (2 * numbers[:, 3] - 1)
        mirror = torch.where(numbers[:, 4] < 0.5, -1.0, 1.0) if self.flip else torch.ones_like(width)
        angle = math.radians(turn) * (2 * numbers[:, 5] - 1)
        cos, sin = angle.cos(), angle.sin()
        first = torch.stack([cos * width * mirror, -sin * height, right], 1)
        return torch.stack([first, torch.stack([sin * width * mirror, cos * height, down], 1)], 1)


def recoloured(pixels_bCHW: torch.Tensor, factors_b3: torch.Tensor) -> torch.Tensor:
    """Pictures with other brightness, contrast and saturation, by a factor each."""
    brightness, contrast, saturation = factors_b3.T[:, :, None, None, None]
    pixels = pixels_bCHW * brightness
    grey = pixels.mean(1, keepdim=True)
    pixels = torch.lerp(grey, pixels, saturation)
    return torch.lerp(grey.mean((2, 3), keepdim=True), pixels, contrast)


def erased(pixels_bCHW: torch.Tensor, numbers_b5: torch.Tensor, share: float) -> torch.Tensor:
    """In a `share` of the pictures, a rectangle of 2 to 20 % of the area is grey (arXiv 1708.04896)."""
    chosen, area, ratio, left, top = numbers_b5.T
    side = (0.02 + 0.18 * area).sqrt()
    stretch = torch.exp(math.log(3.3) * (2 * ratio - 1)).sqrt()
    inside = None
    for axis, (length, start) in enumerate(((side / stretch, top), (side * stretch, left))):
        length = length.clamp(max=1)
        count = pixels_bCHW.shape[2 + axis]
        places = (torch.arange(count, device=pixels_bCHW.device) + 0.5) / count
        begin = ((1 - length) * start)[:, None]
        along = (places >= begin) & (places < begin + length[:, None])
        inside = along[:, :, None] if inside is None else inside & along[:, None, :]
    mask = inside & (chosen < share)[:, None, None]
    return torch.where(mask[:, None], 127.0, pixels_bCHW)


def drop_words(ids_bL: torch.Tensor, numbers_bL: torch.Tensor, share: float) -> torch.Tensor:
    """(b, L) token ids without a `share` of the words, the others moved together; the first and the last stay, which are
    special tokens of many models."""
    length = (ids_bL != PADDING).sum(1, keepdim=True)
    place = torch.arange(ids_bL.shape[1], device=ids_bL.device)
    gone = (numbers_bL < share) & (place > 0) & (place < length - 1)
    order = gone.to(torch.uint8).argsort(dim=1, stable=True)
    left = length - gone.sum(1, keepdim=True)
    kept = ids_bL.masked_fill(gone, PADDING).gather(1, order)
    return kept.where(place < left, PADDING)
