"""timm's models for teachers and students alike: their names, and the settings of published ones."""

from __future__ import annotations

import difflib
from typing import Any

import timm
import torch
from timm.models import parse_model_name

from aft_ray.recipe.errors import InputError

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
WEIGHTS_OF_DIRECTORY = (*WEIGHTS, "pytorch_model.pth", "model.pth")
"""The files that timm looks for in a repository and in a directory, in its order."""


def parsed(name: str) -> tuple[str | None, str]:
    """Splits a name into `hf-hub` or `local-dir` and its place, or None and a name of timm's list.

    Raises InputError for another scheme.
    """
    try:
        scheme, identifier = parse_model_name(name)
    except ValueError as error:
        raise InputError(str(error)) from error
    return scheme, identifier


def listed(name: str) -> dict[str, Any]:
    """timm's `pretrained_cfg` of a model in its list; empty if no weights are published.

    Raises InputError with similar names, or with the model's tags.
    """
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise InputError(f"timm knows no model '{name}'.{hint}")
    try:
        published = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        known = ", ".join(timm.list_models(f"{architecture}.*", pretrained=True))
        raise InputError(f"timm has no weights '{name}'. Known: {known or 'none'}.") from error
    return published.to_dict() if published else {}


def measured(name: str, image_size: int | None) -> tuple[int, int, int]:
    """Parameters, width of the features, and operations for one picture, counted on a model without memory.

    Raises InputError for a model that is not in timm's list.
    """
    from torch.utils.flop_counter import FlopCounterMode  # imports triton, which a teacher's process has no use for

    size = image_size or listed(name).get("input_size", (3, 224, 224))[-1]
    extra = {"img_size": size} if listed(name).get("fixed_input_size") else {}
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False, num_classes=0, **extra).eval().requires_grad_(False)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            width = model(torch.empty(1, 3, size, size)).shape[1]
    return sum(parameter.numel() for parameter in model.parameters()), width, counter.get_total_flops()
