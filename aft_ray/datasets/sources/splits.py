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
"""Names that data sets give their splits -> ours."""

PART = re.compile(r"[-_.]?\d+([-_]of[-_]\d+)?$")
"""The number of a file that is one of several: `train-00000-of-00005`, `train_3`."""

WORD_END = re.compile(r"[-_. ]")


def split_names(config: DatasetConfig) -> Mapping[str, str]:
    """The data set's names of splits -> ours: as the recipe says, else the usual ones."""
    if not config.splits:
        return USUAL
    return {name: ours for ours, names in config.splits.items() for name in names}


def named_split(token: str, names: Iterable[str]) -> str | None:
    """The one of `names` that the token is, whatever its capitals; the exact one first."""
    folded = {name.casefold(): name for name in names}
    return token if token in folded.values() else folded.get(token.casefold())


def own_split(path: PurePath, names: Iterable[str]) -> str | None:
    """The one of `names` that a path below the data set's root has in the file's name, or as a folder's."""
    known = tuple(names)
    return next((found for token in _tokens(path) if (found := named_split(token, known))), None)


def _tokens(path: PurePath) -> Iterator[str]:
    """The parts of a path that may name a split, the most specific first: `Train.csv`, `reviews_test.csv`, `split=train/`."""
    name = path.name.partition(".")[0]
    stem = PART.sub("", name)
    yield from (stem, *stem.split("-"))
    words = WORD_END.split(PART.sub("", PurePath(path.name.removesuffix(".gz")).stem))
    yield from (word for word in (words[0], words[-1]) if word.casefold() in USUAL)
    for folder in reversed(path.parent.parts):
        yield from (folder, folder.rpartition("=")[2])
