"""Weights files: where they are, their hash, and loading them without ever executing code from them.

A file is a path or `package://MODULE/FILE`, a file inside an installed Python package. Some packages hold the weights
under the names of another implementation; `as_timm` renames those to timm's (same shapes, same numbers).
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PACKAGE_SCHEME = "package://"


def locate(location: str) -> Path:
    """The file or directory that `location` names.

    Raises FileNotFoundError that says what is missing: the package, or the file in it.
    """
    if location.startswith(PACKAGE_SCHEME):
        module, _, inside = location.removeprefix(PACKAGE_SCHEME).partition("/")
        spec = importlib.util.find_spec(module) if module.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            raise FileNotFoundError(f"{location}: the Python package '{module}' is not installed; pip install it.")
        root = Path(next(iter(spec.submodule_search_locations))).resolve()
        path = (root / inside).resolve()
        if not path.is_relative_to(root):
            raise FileNotFoundError(f"{location}: the path leaves the package '{module}'.")
    else:
        path = Path(location).expanduser().resolve()
    if not path.exists():
        where = "" if str(path) == location else f" ({path})"
        raise FileNotFoundError(f"{location} does not exist{where}.")
    return path


def sha256(path: Path) -> str:
    """Hash of the file's content, remembered while the file stays as it is."""
    status = path.stat()
    return _sha256(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _sha256(path: Path, size: int, modified_ns: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def load_state_dict(location: str) -> dict[str, torch.Tensor]:
    """Tensors by name, on the CPU. Files that would have to execute code (pickled objects) are refused."""
    import torch

    path = locate(location)
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    state = torch.load(path, map_location="cpu", weights_only=True)
    state = state.get("state_dict", state)
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def as_timm(state: Mapping[str, torch.Tensor], names: Iterable[str]) -> dict[str, torch.Tensor]:
    """`state` under timm's parameter names. `names` are those of the timm model that will take it.

    Known foreign layouts: efficientnet-pytorch's (`_conv_stem`, `_blocks.N`) and torchvision's MobileNetV2
    (`features.N.conv.M`). Anything else is returned as it is.
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
