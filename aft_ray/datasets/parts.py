"""A data set that is read in parts, each by itself: one after the other here, or side by side in other processes."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from aft_ray.cluster.tasks import Helpers, Tasks
from aft_ray.datasets.base import Content, Listing, Modality, Task
from aft_ray.datasets.items import Coded, Items, Label
from aft_ray.datasets.lookup import Lookup
from aft_ray.datasets.sources.contents import content_of
from aft_ray.datasets.sources.labels import Labels


@dataclass(frozen=True)
class Facts:
    """What some samples have in common. labels: without their rows. labels_of: as `Items.labels_of`. kinds: the contents that
    some sample has. note: JSON values with commas between, for the digest of the whole. outside: the first picture of a table
    whose path leads outside its folder; num_outside: how many do. files: as `in_each_folder` of the paths that a table names.
    """

    labels: Labels
    labels_of: Mapping[int, set[int]]
    kinds: frozenset[str]
    left_out: Counter[str] = field(default_factory=Counter)
    note: bytes = b""
    outside: str = ""
    num_outside: int = 0
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """The samples of a part. items: their labels' codes are places in `facts.labels.values`. contents: where the content of
    each lies.
    """

    items: Items
    contents: pa.Table
    facts: Facts


@dataclass(frozen=True)
class Head:
    """A listing without its samples. labels: the label of each code; the class of each code of a part, see `Labels.in_parts`."""

    modality: Modality
    classes: tuple[str, ...]
    labels: tuple[Label, ...]
    task: Task
    truncation_side: Literal["left", "right"] | None
    facts: Mapping[str, Any]
    left_out: Mapping[str, int]
    notes: tuple[str, ...] = ()


class Plan(ABC):
    """How a source is read in parts. It travels to other processes."""

    @property
    def copied(self) -> tuple[str, ...]:
        """The contents, `image` or `text`, that cannot be read in any order. A task that lists a part gives `scan` `Spools` too,
        which get them sample by sample; in this process `reader` finds another way."""
        return ()

    @property
    def is_lasting(self) -> bool:
        """Whether `states` tell every change, so that the next command can use the samples which this one has listed."""
        return True

    def joiner(
        self, modality: Modality, contents: pa.Table, copied: Callable[[int], list[bytes]]
    ) -> Callable[[int], Content]:
        """As `reader`. copied: reads what is copied of a sample."""
        return lambda index: content_of(copied(index), modality)

    @property
    def why_in_memory(self) -> str | None:
        """The reason why this process must hold all samples, if there is one."""
        return None

    @property
    def uris(self) -> Callable[[pa.Table], Callable[[int], str]] | None:
        """Makes `Listing.uri` of the samples with some contents, if every sample is a file of its own."""
        return None

    @property
    @abstractmethod
    def parts(self) -> Sequence[tuple[Any, ...]]:
        """The arguments of `scan` for each part, in their order."""

    @staticmethod
    @abstractmethod
    def scan(*arguments: Any) -> Part:
        """Raises InputError as the source does."""

    @abstractmethod
    def states(self) -> Sequence[Any]:
        """For each part a JSON value that changes when its data does."""

    @abstractmethod
    def name_of(self, part: int) -> str:
        """Names the place of a part for a person."""

    def changed(self, before: Sequence[Any], tasks: Tasks) -> Iterator[str]:
        """Names places whose data has changed since `states` told `before`."""
        for part, (state, now) in enumerate(zip(before, self.states(), strict=True)):
            if state != now:
                yield self.name_of(part)

    @abstractmethod
    def head(self, whole: Facts, digest: str) -> Head:
        """digest: of the notes. Raises InputError where the parts make no data set."""

    @abstractmethod
    def reader(self, modality: Modality, contents: pa.Table) -> Callable[[int], Content]:
        """As `Listing.read`, of the samples with these contents."""


class Whole:
    """The facts of all parts, added one after the other in their order."""

    def __init__(self) -> None:
        self.labels: Labels | None = None
        self.labels_of: dict[int, set[int]] = {}
        self.kinds: frozenset[str] = frozenset()
        self.left_out = Counter[str]()
        self.outside, self.num_outside = "", 0
        self.files: dict[str, str] = {}
        self._digest, self._between = hashlib.sha256(b"["), b""

    def add(self, part: Facts) -> np.ndarray:
        """The code that each label of the part has in the whole."""
        if self.labels is None:
            self.labels = part.labels.without_rows()
        codes = self.labels.join(part.labels)
        for split, own in part.labels_of.items():
            self.labels_of.setdefault(split, set()).update(codes[[*own]].tolist())
        self.kinds |= part.kinds
        self.left_out += part.left_out
        self.outside = self.outside or part.outside
        self.num_outside += part.num_outside
        self.files = {**part.files, **self.files}
        if part.note:
            self._digest.update(self._between + part.note)
            self._between = b","
        return codes

    def facts(self) -> Facts:
        assert self.labels is not None, "a plan has a part at least"
        found = (self.labels, self.labels_of, self.kinds, self.left_out)
        return Facts(*found, outside=self.outside, num_outside=self.num_outside, files=self.files)

    def digest(self) -> str:
        """The `fingerprint` of the list that the parts' notes make up."""
        whole = self._digest.copy()
        whole.update(b"]")
        return whole.hexdigest()[:16]


def gathered(parts: Iterable[Part], whole: Whole) -> tuple[Items, pa.Table]:
    """The samples of parts in their order, and their contents. whole: gets their facts."""
    items: list[Items] = []
    contents: list[pa.Table] = []
    codes: list[np.ndarray] = []
    for part in parts:
        codes.append(whole.add(part.facts)[part.items.labels.codes])
        items.append(part.items)
        contents.append(part.contents)
    return Items.joined(items, Coded((), np.concatenate(codes))), pa.concat_tables(contents)


def listing_of(plan: Plan, parts: Iterable[Part], read: Callable[[int], Content] | None = None) -> Listing:
    """The listing of a data set whose `parts` are all that the plan has, in their order. read: instead of the plan's."""
    whole = Whole()
    items, contents = gathered(parts, whole)
    head = plan.head(whole.facts(), whole.digest())
    if read is None:
        read = plan.reader(head.modality, contents) if plan.copied else Lookup(Reader(plan, head.modality), contents)
    return listing_with(plan, head, items.labelled(head.labels), contents, read)


def listing_with(plan: Plan, head: Head, items: Items, contents: pa.Table, read: Callable[[int], Content]) -> Listing:
    """A listing of some samples of a plan."""
    return Listing(
        modality=head.modality,
        classes=head.classes,
        items=items,
        read=read,
        uri=None if plan.uris is None else Lookup(plan.uris, contents),
        task=head.task,
        truncation_side=head.truncation_side,
        facts=head.facts,
        left_out=head.left_out,
        notes=head.notes,
    )


@dataclass(frozen=True)
class Reader:
    """Makes a plan's reader from references."""

    plan: Plan
    modality: Modality

    def __call__(self, references: pa.Table) -> Callable[[int], Content]:
        return self.plan.reader(self.modality, references)


def scanned(plan: Plan, helpers: Helpers | None = None) -> Iterator[Part]:
    """All parts, read one after the other. Once these have as many samples as are work for helpers, they read the others."""
    count = 0
    for number, arguments in enumerate(plan.parts):
        if helpers is not None and (tasks := helpers.of(count)) is not None:
            yield from tasks(plan.scan, plan.parts[number:])
            return
        part = plan.scan(*arguments)
        count += len(part.items)
        yield part
