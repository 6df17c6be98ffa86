"""A teacher's device: the arithmetic of its forward pass there, and the way of its inputs to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from aft_ray.models.teachers import LIBRARIES
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import TeacherConfig


def device_of(config: TeacherConfig) -> torch.device:
    """The device that `num_gpus` asks for, whatever torch finds: Ray leaves all GPUs in sight of an actor that is given none.

    A class of your own may have GPUs that only Ray knows of. Raises InputError for any other if torch finds none.
    """
    if config.num_gpus and config.model.partition(":")[0] in LIBRARIES and not torch.cuda.is_available():
        raise InputError(
            f"Teacher '{config.name}': num_gpus is {config.num_gpus:g}, and torch finds no GPU where it was to run."
            " Install a torch with CUDA there, or set num_gpus: 0."
        )
    return torch.device("cuda" if config.num_gpus else "cpu")


@contextmanager
def arithmetic(device: torch.device, precision: str) -> Iterator[None]:
    """That of `precision` (fp32, bf16, fp16) on `device`.

    fp32 has all its digits in convolutions too, for which torch takes ten bits of them (TF32) on a GPU unless told
    otherwise: features would be off by some 1e-4 there, about as much as in fp16, at a fraction of its speed.
    """
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32"):
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """A copy of `array` on `device`; for a GPU through page-locked memory, while the GPU goes on with what it has."""
    if device.type != "cuda":
        return torch.tensor(array, device=device)
    staged = torch.empty(array.shape, dtype=torch.tensor(array[:0]).dtype, pin_memory=True)
    np.copyto(staged.numpy(), array)
    return staged.to(device, non_blocking=True)
