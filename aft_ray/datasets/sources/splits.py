"""Which split a file or a row belongs to, by its name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath

from aft_ray.recipe.sections import DatasetConfig

USUAL = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
"""What data sets call their splits, and what they are called here."""

PART = re.compile(r"[-_.]?\d+([-_]of[-_]\d+)?$")
"""The number of a file that is one of several: `train-00000-of-00005`, `train_3`."""


def split_names(config: DatasetConfig) -> Mapping[str, str]:
    """The data set's names of splits -> ours: as the recipe says, else the usual ones."""
    if not config.splits:
        return USUAL
    return {name: ours for ours, names in config.splits.items() for name in names}


def own_split(path: PurePath, names: Iterable[str]) -> str | None:
    """Which of `names` a path (relative to the data set's root) has: the file's name, or a folder's."""
    known = set(names)
    return next((token for token in _tokens(path) if token in known), None)


def _tokens(path: PurePath) -> Iterator[str]:
    """What in a path may name a split, the most specific first."""
    stem = PART.sub("", path.name.partition(".")[0])
    yield from (stem, *stem.split("-"))
    if stem.partition("_")[0] in USUAL:
        yield stem.partition("_")[0]
    yield from reversed(path.parent.parts)
