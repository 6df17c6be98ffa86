"""The samples of a listing as columns: tens of bytes each, where an object of its own takes hundreds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import eq
from typing import Any, overload

import numpy as np
import pyarrow as pa

from aft_ray.datasets.sources.json_text import is_unicode
from aft_ray.recipe.errors import InputError
from aft_ray.store.schema import SPLITS, UNLABELED

Label = int | tuple[float, ...] | None
CHUNK = 1 << 16
"""Values that `Texts` keeps as objects before they become a part of an Arrow column."""
UNKNOWN = -1
"""In the columns `sizes` and `splits`."""


@dataclass(frozen=True, slots=True)
class Item:
    """A sample before its content is read.

    sample_id: unique and stable, whatever the order or the number of samples.
    label: index into the listing's classes, schema.UNLABELED for none; a number per class, or None, for the other tasks.
    num_bytes: size of its content, where that is known without reading it.
    split: train, validation or test where the data set says so.
    group: samples of one group fall into the same split; None is a group of its own.
    """

    sample_id: str
    label: Label
    num_bytes: int | None = None
    split: str | None = None
    group: str | None = None


class Texts:
    """A column of texts that grows. Raises InputError for a text that is not Unicode."""

    def __init__(self, values: Iterable[str | None] = ()) -> None:
        self.chunks: list[pa.Array] = []
        self.last: list[str | None] = []
        for value in values:
            self.append(value)

    def append(self, value: str | None) -> None:
        self.last.append(value)
        if len(self.last) == CHUNK:
            self._flush()

    def extend(self, values: Sequence[str]) -> None:
        self.last += values
        if len(self.last) >= CHUNK:
            self._flush()

    def _flush(self) -> None:
        try:
            self.chunks.append(pa.array(self.last, pa.string()))
        except UnicodeEncodeError as error:
            wrong = [text for text in self.last if text is not None and not is_unicode(text)]
            raise InputError([f"The name of {text!r} is not Unicode; rename the file." for text in wrong]) from error
        self.last = []

    def column(self) -> pa.ChunkedArray:
        self._flush()
        return pa.chunked_array(self.chunks, pa.string())


@dataclass(frozen=True, eq=False)
class Coded:
    """Labels, each kept once. values: the different ones. codes: of each sample, the place of its label in `values`."""

    values: tuple[Label, ...]
    codes: np.ndarray

    @classmethod
    def of(cls, labels: Iterable[Label]) -> Coded:
        places: dict[tuple[type, str], int] = {}
        values: list[Label] = []
        codes = []
        for label in labels:
            code = places.setdefault((type(label), str(label)), len(values))
            if code == len(values):
                values.append(label)
            codes.append(code)
        return cls(tuple(values), np.array(codes, np.int32))

    @cached_property
    def known(self) -> np.ndarray:
        """Whether each of `values` is a label, not the lack of one."""
        return np.array([value not in (None, UNLABELED) for value in self.values], bool)


@dataclass(frozen=True, eq=False)
class Items(Sequence[Item]):
    """ids, groups: columns of texts; no groups where no sample has one. sizes, splits: UNKNOWN where an Item has None; a split is
    its place in SPLITS.
    """

    ids: pa.ChunkedArray
    labels: Coded
    sizes: np.ndarray
    splits: np.ndarray
    groups: pa.ChunkedArray | None = None

    @classmethod
    def of(cls, items: Sequence[Item]) -> Items:
        """Raises InputError for an id that is not Unicode, or a split that is none."""
        if isinstance(items, Items):
            return items
        return cls(
            Texts(item.sample_id for item in items).column(),
            Coded.of(item.label for item in items),
            sizes_of(item.num_bytes for item in items),
            splits_of(item.split for item in items),
            groups_of(Texts(item.group for item in items)),
        )

    @classmethod
    def joined(cls, parts: Sequence[Items], labels: Coded) -> Items:
        """The samples of all parts, with these labels."""
        groups = _joined(part.groups or pa.chunked_array([pa.nulls(len(part), pa.string())]) for part in parts)
        sizes, splits = (np.concatenate([getattr(part, name) for part in parts]) for name in ("sizes", "splits"))
        return cls(_joined(part.ids for part in parts), labels, sizes, splits, _or_none(groups))

    def __len__(self) -> int:
        return len(self.ids)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(eq, self, other))

    __hash__ = None  # type: ignore[assignment]

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Item, ...]: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return tuple(self[place] for place in range(*index.indices(len(self))))
        place = range(len(self))[index]  # raises IndexError, and counts from the end
        size, split = int(self.sizes[place]), int(self.splits[place])
        return Item(
            self.ids[place].as_py(),
            self.labels.values[self.labels.codes[place]],
            None if size == UNKNOWN else size,
            None if split == UNKNOWN else SPLITS[split],
            None if self.groups is None else self.groups[place].as_py(),
        )

    def labelled(self, values: tuple[Label, ...]) -> Items:
        """The same samples, the labels of whose codes are these."""
        return replace(self, labels=Coded(values, self.labels.codes))

    def take(self, places: np.ndarray) -> Items:
        """The samples at these places, in this order."""
        return Items(
            taken(self.ids, places),
            Coded(self.labels.values, self.labels.codes[places]),
            self.sizes[places],
            self.splits[places],
            None if self.groups is None else taken(self.groups, places),
        )

    @cached_property
    def hashes(self) -> np.ndarray:
        """Of each sample's id, for the order of the samples."""
        return unit_hashes("order", self.ids)

    def labels_of(self) -> dict[int, set[int]]:
        """By split, the codes of its labels; without a split of its own a sample is of train."""
        own = np.maximum(self.splits, 0)
        return {int(split): set(np.unique(self.labels.codes[own == split]).tolist()) for split in np.unique(own)}

    @property
    def brought(self) -> set[str | None]:
        """The splits that the data set itself brings; None where a sample has none."""
        return {None if split == UNKNOWN else SPLITS[split] for split in np.unique(self.splits)}


def taken(column: pa.ChunkedArray, places: np.ndarray) -> pa.ChunkedArray:
    """Values of a column. A gigabyte of texts has no room in one chunk, so the result may have several."""
    parts = [column.take(pa.array(places[start : start + CHUNK])) for start in range(0, len(places), CHUNK)]
    return _joined(parts)


def unit_hashes(salt: str, texts: pa.ChunkedArray) -> np.ndarray:
    """For each text a number in [0, 1) that depends on it alone."""
    start, sha256 = f"{salt}:".encode(), hashlib.sha256
    found = np.empty(len(texts))
    for first in range(0, len(texts), CHUNK):
        part = texts.slice(first, CHUNK).cast(pa.binary()).to_pylist()
        digests = b"".join([sha256(start + text).digest()[:8] for text in part])
        found[first : first + CHUNK] = np.frombuffer(digests, ">u8").astype(np.float64) / 2**64
    return found


def tally(labels: Coded, num_classes: int) -> np.ndarray:
    """How many samples each class has, for regression how many have another number than zero; then how many have no label.

    A label of no class, from a source of the user's own, is told when the samples are opened.
    """
    found = np.zeros(num_classes + 1, np.int64)
    counts = np.bincount(labels.codes, minlength=len(labels.values))
    for label, known, count in zip(labels.values, labels.known, counts, strict=True):
        if label is None or not known:
            found[-1] += count
        else:
            own = np.array([label]) if isinstance(label, int) else np.flatnonzero(label)
            found[own[(own >= 0) & (own < num_classes)]] += count
    return found


def sizes_of(sizes: Iterable[int | None]) -> np.ndarray:
    return np.fromiter((UNKNOWN if size is None else size for size in sizes), np.int64)


def splits_of(splits: Iterable[str | None]) -> np.ndarray:
    """Raises InputError for a split that is none."""
    places: dict[str | None, int] = {None: UNKNOWN, **{name: place for place, name in enumerate(SPLITS)}}
    try:
        return np.fromiter((places[split] for split in splits), np.int8)
    except KeyError as error:
        raise InputError(f"A sample's split must be {', '.join(SPLITS)} or None, not {error}.") from error


def groups_of(texts: Texts) -> pa.ChunkedArray | None:
    return _or_none(texts.column())


def _or_none(groups: pa.ChunkedArray) -> pa.ChunkedArray | None:
    return None if groups.null_count == len(groups) else groups


def _joined(columns: Iterable[pa.ChunkedArray]) -> pa.ChunkedArray:
    return pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string())
