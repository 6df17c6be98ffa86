"""Weights files: where they are, their hash, and loading them without ever executing code from them.

A file is a path, a URL, or `package://MODULE/FILE`, a file inside an installed Python package.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from aft_ray.models.fetched import local_copy
from aft_ray.models.weights_file import check_weights_file, read_weights_file
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.places import filesystem_of, is_url

if TYPE_CHECKING:
    import torch

PACKAGE_SCHEME = "package://"
SHOWN = 3
"""Names that a message shows."""

State: TypeAlias = "dict[str, torch.Tensor]"


def locate(location: str) -> Path:
    """The file or directory that `location` names; of a URL, a copy on this machine.

    Raises FileNotFoundError that names the missing package, or the missing file in it.
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
    elif is_url(location):
        return local_copy(location)
    else:
        path = Path(filesystem_of(location)[1])
    if not path.exists():
        where = "" if str(path) == location else f" ({path})"
        raise FileNotFoundError(f"{location} does not exist{where}.")
    return path


def sha256(path: Path) -> str:
    """Hash of the file's content, cached until the file changes."""
    status = path.stat()
    return _sha256(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _sha256(path: Path, size: int, modified_ns: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def weights_file(location: str) -> Path:
    """The weights file that `location` names.

    Raises FileNotFoundError if it is missing, InputError if its first and last bytes show that it holds no weights.
    """
    path = locate(location)
    check_weights_file(path)
    return path


def load_state_dict(
    location: str, wanted: Iterable[str] = (), rename: Callable[[State], State] = dict
) -> dict[str, torch.Tensor]:
    """Tensors by name, on the CPU, from a weights file or a training script's checkpoint.

    wanted: the model's names; prefixes before them in the file are removed. rename: turns foreign names into the model's.
    Raises InputError for a file that holds no tensors or needs unpickling.
    """
    from aft_ray.models.state_dicts import best_state

    path = weights_file(location)
    state = best_state(read_weights_file(path), frozenset(wanted), rename, f"Weights file {location}")
    if not state:
        raise InputError(f"Weights file {location} holds no tensors.")
    return state


def check_fit(wanted: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor], location: str) -> None:
    """Raises InputError if `state`, read from `location`, lacks wanted tensors or has them in other shapes."""
    if missing := sorted(wanted.keys() - state.keys()):
        raise InputError(
            f"{location} lacks {len(missing)} (of {len(wanted)}) of the model's tensors, such as {_some(missing)}; it has"
            f" {_some(sorted(state.keys() - wanted.keys()) or sorted(state))}."
        )
    for name, tensor in wanted.items():
        if state[name].shape != tensor.shape:
            shapes = f"{tuple(state[name].shape)} there, {tuple(tensor.shape)} in the model"
            raise InputError(f"{location} holds another model's weights: '{name}' is {shapes}.")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(f"'{name}'" for name in names[:SHOWN]) + more
