"""A teacher's device: choosing it, its arithmetic, and copying inputs to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from aft_ray.models.teachers import LIBRARIES
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import TeacherConfig


def device_of(config: TeacherConfig) -> torch.device:
    """The device that `num_gpus` requests, even if torch sees others: Ray hides no GPU from an actor without one.

    A class of your own may use GPUs that only Ray knows. For other teachers, raises InputError if torch finds no GPU.
    """
    if config.num_gpus and config.model.partition(":")[0] in LIBRARIES and not torch.cuda.is_available():
        raise InputError(
            f"Teacher '{config.name}': num_gpus is {config.num_gpus:g}, and torch finds no GPU on its machine."
            " Install a torch with CUDA there, or set num_gpus: 0."
        )
    return torch.device("cuda" if config.num_gpus else "cpu")


@contextmanager
def arithmetic(device: torch.device, precision: str) -> Iterator[None]:
    """Sets the arithmetic of `precision` (fp32, bf16, fp16) on `device`.

    fp32 has full precision in convolutions too. By default torch computes them in TF32 on a GPU, with ten bits: errors of
    about 1e-4, as large as in fp16, at a fraction of its speed.
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
    """A copy of `array` on `device`; the GPU keeps computing during the copy, which uses page-locked memory."""
    if device.type != "cuda":
        return torch.tensor(array, device=device)
    staged = torch.empty(array.shape, dtype=torch.tensor(array[:0]).dtype, pin_memory=True)
    np.copyto(staged.numpy(), array)
    return staged.to(device, non_blocking=True)
