"""open_clip's models for teachers and students alike: their names, their saved settings, their weights."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip import factory
from open_clip.transform import PreprocessCfg, merge_preprocess_dict

from aft_ray.models import weights
from aft_ray.models.model_files import ModelFiles
from aft_ray.models.weights import locate
from aft_ray.recipe.errors import InputError

WEIGHTS_OF_DIRECTORY = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
"""Files that open_clip looks for, in its order."""


def weights_file(location: str) -> Path:
    """A weights file for open_clip, which reads big_vision's NumPy archives too. Raises as `weights.weights_file` does."""
    path = locate(location)
    return path if path.suffix == ".npz" else weights.weights_file(location)


def load_weights(model: Any, location: str) -> None:
    """Loads a whole model's weights from any form of checkpoint. Raises InputError if they are another model's."""
    path = weights_file(location)
    if path.suffix == ".npz":
        open_clip.load_checkpoint(model, str(path))
        return

    def converted(state: weights.State) -> weights.State:
        state = factory.convert_state_dict(model, state)
        if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
            state = factory.convert_to_custom_text_state_dict(state)
        return state

    wanted = model.state_dict()
    state = weights.load_state_dict(location, wanted, converted)
    for name in ("logit_scale", "logit_bias"):
        if name in state and name in wanted:
            state[name] = state[name].reshape(wanted[name].shape)
    if wanted.get("logit_bias") is not None and "logit_bias" not in state:
        state["logit_bias"] = torch.zeros_like(wanted["logit_bias"])
    factory.resize_pos_embed(state, model)
    factory.resize_text_pos_embed(state, model)
    weights.check_fit(wanted, state, location)
    model.load_state_dict({name: state[name] for name in wanted})


def saved(files: ModelFiles) -> tuple[dict[str, Any], dict[str, Any]]:
    """`model_cfg` and `preprocess_cfg` of a model that was saved with its `open_clip_config.json`.

    Raises InputError if there is no such file.
    """
    settings = files.read_json("open_clip_config.json")
    if settings is None or "model_cfg" not in settings:
        raise InputError(f"{files} has no open_clip_config.json with a 'model_cfg'.{files.way_out}")
    return settings["model_cfg"], preprocess(settings.get("preprocess_cfg", {}))


def listed(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """`model_cfg` of ARCHITECTURE[/TAG] in open_clip's list, and the tag's settings, empty without a tag.

    Raises InputError with similar names, or with the architecture's tags.
    """
    architecture, _, tag = name.partition("/")
    settings = open_clip.get_model_config(architecture)
    if settings is None:
        close = difflib.get_close_matches(architecture, open_clip.list_models(), n=3)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise InputError(f"open_clip knows no architecture '{architecture}'.{hint}")
    published = open_clip.get_pretrained_cfg(architecture, tag)
    if tag and not published:
        raise InputError(f"open_clip has no weights '{tag}' for {architecture}. Known: {tags(architecture)}.")
    return settings, published


def tags(architecture: str) -> str:
    """Published weights of an architecture, for a message."""
    return ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "none"


def preprocess(settings: dict[str, Any]) -> dict[str, Any]:
    """`preprocess_cfg` of `settings`, completed with open_clip's defaults."""
    merged: dict[str, Any] = merge_preprocess_dict(PreprocessCfg(), settings)
    return merged


def image_size(name: str, architecture: dict[str, Any]) -> int:
    """Pixels per side of a `model_cfg`. Raises InputError if its pictures are not square."""
    size = architecture["vision_cfg"].get("image_size", 224)
    if not isinstance(size, Sequence):
        return int(size)
    if len(set(size)) != 1:
        raise InputError(f"{name} takes images of {size} pixels; only squares are supported.")
    return int(size[0])
