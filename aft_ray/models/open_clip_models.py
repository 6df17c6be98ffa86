"""What open_clip says of a model's name, and what a saved model says of itself, for teachers and students alike."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import open_clip
from open_clip.transform import PreprocessCfg, merge_preprocess_dict

from aft_ray.models.model_files import ModelFiles
from aft_ray.recipe.errors import InputError


def saved(files: ModelFiles) -> tuple[dict[str, Any], dict[str, Any]]:
    """`model_cfg` and `preprocess_cfg` of a model that was saved with its `open_clip_config.json`.

    Raises InputError if there is no such file.
    """
    settings = files.read_json("open_clip_config.json")
    if settings is None or "model_cfg" not in settings:
        raise InputError(f"{files} has no open_clip_config.json with a 'model_cfg'.{files.way_out}")
    return settings["model_cfg"], preprocess(settings.get("preprocess_cfg", {}))


def listed(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """`model_cfg` of ARCHITECTURE[/TAG] in open_clip's list, and what it knows of the tag; nothing without a tag.

    Raises InputError with the names that come close, or the tags that there are.
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
    """The weights that are published for an architecture, for a message."""
    return ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "none"


def preprocess(settings: dict[str, Any]) -> dict[str, Any]:
    """`preprocess_cfg` with open_clip's defaults where `settings` leaves it open."""
    merged: dict[str, Any] = merge_preprocess_dict(PreprocessCfg(), settings)
    return merged


def image_size(name: str, architecture: dict[str, Any]) -> int:
    """Pixels per side that a `model_cfg` is made for. Raises InputError for pictures that are no squares."""
    size = architecture["vision_cfg"].get("image_size", 224)
    if not isinstance(size, Sequence):
        return int(size)
    if len(set(size)) != 1:
        raise InputError(f"{name} takes images of {size} pixels; only squares are known here.")
    return int(size[0])
