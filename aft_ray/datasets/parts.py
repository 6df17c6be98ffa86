"""A data set that is read in parts, each by itself: one after the other here, or side by side in other processes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa

from aft_ray.cluster.tasks import Helpers
from aft_ray.datasets.base import Content, Listing, Modality, Task
from aft_ray.datasets.items import Coded, Items, Label
from aft_ray.datasets.lookup import Lookup
from aft_ray.datasets.sources.labels import Labels


@dataclass(frozen=True)
class Part:
    """The samples of a part.

    items: their labels' codes are places in `labels.values`. contents: where the content of each lies. kinds: the contents
    that some sample has. note: JSON values with commas between, for the digest of the whole.
    """

    items: Items
    labels: Labels
    contents: pa.Table
    kinds: frozenset[str]
    left_out: Counter[str] = field(default_factory=Counter)
    note: bytes = b""


@dataclass(frozen=True)
class Head:
    """A listing without its samples. labels: the label of each code."""

    modality: Modality
    classes: tuple[str, ...]
    labels: tuple[Label, ...]
    task: Task
    truncation_side: Literal["left", "right"] | None
    facts: Mapping[str, Any]
    left_out: Mapping[str, int]


class Plan(Protocol):
    """How a source is read in parts. It travels to other processes."""

    @property
    def parts(self) -> Sequence[tuple[Any, ...]]:
        """The arguments of `scan` for each part, in their order."""

    @staticmethod
    def scan(*arguments: Any) -> Part:
        """Raises InputError as the source does."""

    def head(self, whole: Part, digest: str) -> Head:
        """digest: of the notes. Raises InputError where the parts make no data set."""

    def reader(self, modality: Modality, contents: pa.Table) -> Callable[[int], Content]:
        """As `Listing.read`, of the samples with these contents."""


def gathered(parts: Iterable[Part]) -> tuple[Part, str]:
    """Parts in their order as one, and the `fingerprint` of the list that their notes make up."""
    labels: Labels | None = None
    found: list[Part] = []
    codes: list[np.ndarray] = []
    digest, between = hashlib.sha256(b"["), b""
    for part in parts:
        if labels is None:
            labels = part.labels.without_rows()
        codes.append(labels.join(part.labels)[part.items.labels.codes])
        if part.note:
            digest.update(between + part.note)
            between = b","
        found.append(Part(part.items, labels, part.contents, part.kinds, part.left_out))
    digest.update(b"]")
    assert labels is not None, "a plan has a part at least"
    items = Items.joined([part.items for part in found], Coded((), np.concatenate(codes)))
    contents = pa.concat_tables([part.contents for part in found])
    kinds = frozenset().union(*(part.kinds for part in found))
    left_out = sum((part.left_out for part in found), Counter[str]())
    return Part(items, labels, contents, kinds, left_out), digest.hexdigest()[:16]


def listing_of(plan: Plan, parts: Iterable[Part]) -> Listing:
    """The listing of a data set whose `parts` are all that the plan has, in their order."""
    whole, digest = gathered(parts)
    head = plan.head(whole, digest)
    return Listing(
        modality=head.modality,
        classes=head.classes,
        items=whole.items.labelled(head.labels),
        read=Lookup(Reader(plan, head.modality), whole.contents),
        task=head.task,
        truncation_side=head.truncation_side,
        facts=head.facts,
        left_out=head.left_out,
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
