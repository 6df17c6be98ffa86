"""Maps names of weights in other implementations to timm's: same shapes, same numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def as_timm(state: Mapping[str, torch.Tensor], names: Iterable[str]) -> dict[str, torch.Tensor]:
    """`state` under timm's parameter names. names: the parameters of the timm model that will take it.

    Two foreign layouts are renamed: efficientnet-pytorch's (`_conv_stem`, `_blocks.N`) and torchvision's MobileNetV2
    (`features.N.conv.M`). Raises IndexError or KeyError if the layers of such a file are not the model's.
    """
    blocks = _timm_blocks(names)
    if "_conv_stem.weight" in state:
        return {_from_efficientnet(name, blocks): tensor for name, tensor in state.items()}
    if "features.0.0.weight" in state:
        return {_from_mobilenet_v2(name, blocks): tensor for name, tensor in state.items()}
    return dict(state)


def _timm_blocks(names: Iterable[str]) -> list[tuple[str, bool]]:
    """timm's blocks in order, as (prefix, whether the block starts with an expansion)."""
    expands: dict[tuple[int, int], bool] = {}
    for name in names:
        if found := re.match(r"blocks\.(\d+)\.(\d+)\.(\w+)", name):
            key = (int(found[1]), int(found[2]))
            expands[key] = expands.get(key, False) or found[3] == "conv_pwl"
    return [(f"blocks.{stage}.{block}", expand) for (stage, block), expand in sorted(expands.items())]


EFFICIENTNET_TOP = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
# One row per kind of block: (efficientnet-pytorch's part, timm's part).
EXPANDING = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def _from_efficientnet(name: str, blocks: list[tuple[str, bool]]) -> str:
    if found := re.match(r"_blocks\.(\d+)\.(\w+)\.(.+)", name):
        prefix, expands = blocks[int(found[1])]
        return f"{prefix}.{(EXPANDING if expands else SEPARABLE)[found[2]]}.{found[3]}"
    part, _, leaf = name.partition(".")
    return f"{EFFICIENTNET_TOP[part]}.{leaf}"


MOBILENET_V2_TOP = {
    "features.0.0": "conv_stem",
    "features.0.1": "bn1",
    "features.18.0": "conv_head",
    "features.18.1": "bn2",
}
MOBILENET_V2_EXPANDING = {"0": "conv_pw", "1": "bn1", "3": "conv_dw", "4": "bn2", "6": "conv_pwl", "7": "bn3"}
MOBILENET_V2_SEPARABLE = {"0": "conv_dw", "1": "bn1", "3": "conv_pw", "4": "bn2"}


def _from_mobilenet_v2(name: str, blocks: list[tuple[str, bool]]) -> str:
    if found := re.match(r"features\.(\d+)\.conv\.(\d+)\.(.+)", name):
        prefix, expands = blocks[int(found[1]) - 1]
        return f"{prefix}.{(MOBILENET_V2_EXPANDING if expands else MOBILENET_V2_SEPARABLE)[found[2]]}.{found[3]}"
    part, _, leaf = name.rpartition(".")
    return f"{MOBILENET_V2_TOP[part]}.{leaf}" if part in MOBILENET_V2_TOP else name
