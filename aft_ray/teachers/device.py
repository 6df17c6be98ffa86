"""A teacher's device: the arithmetic of its forward pass there, and the way of its inputs to it."""

from __future__ import annotations

import numpy as np
import torch


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The arithmetic of `precision` (fp32, bf16, fp16) on `device`."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32")


def to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """A copy of `array` on `device`; for a GPU through page-locked memory, while the GPU goes on with what it has."""
    if device.type != "cuda":
        return torch.tensor(array, device=device)
    staged = torch.empty(array.shape, dtype=torch.tensor(array[:0]).dtype, pin_memory=True)
    np.copyto(staged.numpy(), array)
    return staged.to(device, non_blocking=True)
