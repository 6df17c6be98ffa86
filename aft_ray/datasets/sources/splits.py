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

WORDS = {**USUAL, "trainval": "train", "eval": "validation", "evaluation": "validation", "holdout": "test"}
"""Words that tell of a split inside longer names: `train_set`, `Holdout`, `evalData`."""

FILLERS = frozenset(
    "all data dataset file files fold folder full image images img imgs part photo photos picture pictures pics sample samples"
    " set sets split splits subset text texts".split()
)
"""Words that say nothing about the content of a folder or file."""

WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|[^\W\d_]+")
HELD_OUT = re.compile(r"h[eo]ld[-_. ]?out", re.IGNORECASE)

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


def look_alikes(names: Iterable[str]) -> dict[str, str]:
    """The names that look like splits, and the split that each looks like: `train_set`, `test1`, `Holdout`, `trainset`.

    A name with other words (`steam_train`) is one if another name differs from it by the split alone (`steam_test`).
    """
    found = {name: look for name in names if (look := _split_and_rest(name))}
    of_rest: dict[tuple[str, ...], set[str]] = {}
    for split, rest in found.values():
        of_rest.setdefault(rest, set()).add(split)
    return {name: split for name, (split, rest) in found.items() if not rest or len(of_rest[rest]) > 1}


def _split_and_rest(name: str) -> tuple[str, tuple[str, ...]] | None:
    """The split that a name tells of and its other words; None if it tells of none or of several."""
    words = [part for word in WORD.findall(HELD_OUT.sub("holdout", name)) for part in _unglued(word.casefold())]
    splits = {WORDS[word] for word in words if word in WORDS}
    if splits == {"train", "validation"}:
        splits = {"train"}  # as in `train_val`
    rest = tuple(word for word in words if word not in WORDS and word not in FILLERS)
    return (splits.pop(), rest) if len(splits) == 1 else None


def _unglued(word: str) -> tuple[str, ...]:
    """`trainset` as `train` and `set`."""
    starts = (split for split in WORDS if word.startswith(split) and word.removeprefix(split) in FILLERS)
    split = next(starts, None)
    return (split, word.removeprefix(split)) if split else (word,)


def example_of_splits(alike: Mapping[str, str]) -> str:
    """The key `dataset.splits` for names that look like splits, as a recipe has it."""
    given: dict[str, list[str]] = {} if "train" in alike.values() else {"train": ["NAME"]}
    for name, split in alike.items():
        given.setdefault(split, []).append(name)
    return "{" + ", ".join(f"{split}: [{', '.join(names)}]" for split, names in given.items()) + "}"
