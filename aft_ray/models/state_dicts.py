"""Finds the weights in a checkpoint, beside other saved values and under any prefix of their names."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeAlias

import torch

State: TypeAlias = dict[str, torch.Tensor]

COMPILED = "_orig_mod."
"""Part that torch.compile adds to names."""
WRAPPER = "module."
"""Prefix that DDP adds to names."""
AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "params_ema", "ema", "teacher")
PARTS = (*AVERAGES, "state_dict", "model", "model_state_dict", "module", "student")
"""Parts of a checkpoint that may hold the weights, best first: averages over the training before the last step's, in
timm's order."""
DEEPEST = 6
MOST_PREFIXES = 8

logger = logging.getLogger(__name__)


def best_state(content: Any, wanted: frozenset[str], rename: Callable[[State], State], what: str) -> State:
    """The tensors under the prefix that leaves the most wanted names; empty if there are no tensors.

    content: a checkpoint. wanted: the model's names; if empty, prefixes stay. rename: turns foreign names into the model's;
    it may raise IndexError or KeyError for names that it does not know. what: names the file.
    """
    tensors = dict(_flat(content))
    found: dict[str, tuple[int, State]] = {}
    for prefix in _prefixes(content, tensors, wanted):
        state = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        with suppress(IndexError, KeyError):  # another model's; the message will show the file's own names
            state = rename(state)
        found[prefix] = (len(wanted & state.keys()), state)
    most = max((count for count, _ in found.values()), default=0)
    equal = sorted((prefix for prefix, (count, _) in found.items() if count == most), key=_preference)
    parts = list(dict.fromkeys(map(_part, equal)))
    if len(parts) > 1 and wanted:
        logger.warning("%s holds %s; %s is read.", what, ", ".join(parts), parts[0])
    return found[equal[0]][1] if equal else {}


def _flat(content: Any, above: str = "", depth: int = 0) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor by its dotted path."""
    if not isinstance(content, Mapping) or depth > DEEPEST:
        return
    for key, value in content.items():
        if not isinstance(key, str):
            continue
        if isinstance(value, torch.Tensor):
            yield (above + key).replace(COMPILED, ""), value
        else:
            yield from _flat(value, f"{above}{key}.", depth + 1)


def _prefixes(content: Any, tensors: Mapping[str, torch.Tensor], wanted: frozenset[str]) -> list[str]:
    """Prefixes that may stand before the model's own names."""
    counts = Counter(name[: len(name) - len(rest)] for name in tensors for rest in _rests(name) if rest in wanted)
    prefixes = [prefix for prefix, _ in counts.most_common(MOST_PREFIXES)]
    for place in _places(content):
        names = [name.removeprefix(place) for name in tensors if name.startswith(place)]
        if wanted:
            prefixes.append(place + _common(names))
        if wanted or not place or _part(place) in PARTS:
            prefixes.append(place + (WRAPPER if all(name.startswith(WRAPPER) for name in names) else ""))
    return list(dict.fromkeys(prefixes or [""]))


def _places(content: Any, above: str = "", depth: int = 0) -> Iterator[str]:
    """The dotted paths of the mappings that directly hold tensors."""
    if not isinstance(content, Mapping) or depth > DEEPEST:
        return
    if any(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in content.items()):
        yield above
    for key, value in content.items():
        if isinstance(key, str):
            yield from _places(value, f"{above}{key}.", depth + 1)


def _rests(name: str) -> Iterator[str]:
    """The name, and its remainder after each dot."""
    yield name
    while "." in name:
        name = name.partition(".")[2]
        yield name


def _common(names: list[str]) -> str:
    """The dotted prefix that all names share."""
    parts = [name.split(".")[:-1] for name in names]
    shared = []
    for column in zip(*parts, strict=False):
        if len(set(column)) > 1:
            break
        shared.append(column[0])
    return "".join(f"{part}." for part in shared)


def _part(prefix: str) -> str:
    return prefix.partition(".")[0]


def _preference(prefix: str) -> tuple[int, int, str]:
    part = _part(prefix)
    return (PARTS.index(part) if part in PARTS else len(PARTS), len(prefix), prefix)
