"""The first pass: each task reads a few parts of a plan and writes their samples, sorted by the hash of their ids."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from aft_ray.cluster.progress import Progress
from aft_ray.cluster.tasks import Tasks
from aft_ray.datasets.buckets.copies import FILE, copying, spans
from aft_ray.datasets.buckets.files import read_table, read_whole, write_bytes, write_table
from aft_ray.datasets.buckets.labels import LabelRows, in_rows, recoded
from aft_ray.datasets.items import Items
from aft_ray.datasets.parts import Facts, Part, Plan, Whole, gathered
from aft_ray.datasets.sources.labels import Labels
from aft_ray.recipe.config import fingerprint
from aft_ray.recipe.sections import DatasetConfig
from aft_ray.store.files import Directory

FORMAT = 4
"""Of the files: a version that writes others raises it, and finds none of those before."""
BINS = 4096
"""Equal ranges of hashes, whose samples are counted. A bucket is one or several of them."""
TASKS = 256
PARTS_OF_TASK = 64
"""From so many tasks on, a task reads several parts; never more than these."""
HASH, ROW, LABEL, SIZE, SPLIT, ID, GROUP = ".hash", ".row", ".label", ".num_bytes", ".split", ".sample_id", ".group"
"""Columns before those of the samples' contents. row: a sample's place among those of its task. There are no groups where no
sample has one."""


@dataclass(frozen=True)
class MappedFile:
    """What is known of a file of samples. bins: samples in each of the BINS. brought: as in `Items.splits`. has_groups: whether
    a sample has a group.
    """

    name: str
    bins: np.ndarray
    brought: frozenset[int]
    facts: Facts
    has_groups: bool


def map_parts(plan: Plan, config: DatasetConfig, states: Sequence[Any], place: Directory, tasks: Tasks) -> list[str]:
    """Names of the files with the samples of all parts, in their order. Files of an earlier command stay, unless the plan cannot
    tell whether they are right.

    states: of each part. A file's name tells the parts and their states: after a change it has another one.
    """
    arguments = plan.parts
    size = max(1, min(PARTS_OF_TASK, len(arguments) // TASKS))
    groups = [range(start, min(start + size, len(arguments))) for start in range(0, len(arguments), size)]
    made_of = [FORMAT, config.model_dump(mode="json")]
    names = [
        f"rows-{fingerprint([*made_of, [[plan.name_of(part), states[part]] for part in group]])}" for group in groups
    ]
    there = set(place.names()) if plan.is_lasting else set()
    todo = [(name, group) for name, group in zip(names, groups, strict=True) if f"{name}.facts" not in there]
    given = ((place, name, plan.scan, arguments[group.start : group.stop], plan.copied) for name, group in todo)
    with Progress("list", len(names), "files of rows", len(names) - len(todo)) as progress:
        for _ in tasks(map_rows, given):
            progress.advance(1)
    return names


def map_rows(
    place: Directory,
    name: str,
    scan: Callable[..., Part],
    parts: Sequence[tuple[Any, ...]],
    copied: Sequence[str] = (),
) -> None:
    """Writes the samples of some parts, then what is known of them, which makes the file valid. copied: as of their plan."""
    whole, notes = Whole(), list[bytes]()

    def scanned(arguments: tuple[Any, ...]) -> Part:
        part = scan(*arguments, spools) if copied else scan(*arguments)
        notes.append(part.facts.note)
        return part

    with copying(place, name, copied) as spools:
        items, contents = gathered(map(scanned, parts), whole)
    if copied:
        contents = spans(spools, copied, contents)
    order = np.argsort(items.hashes, kind="stable")
    facts = whole.facts()
    labels, column = in_rows(facts.labels, items.labels.codes)
    own = {ID: items.ids, HASH: items.hashes, LABEL: column, SIZE: items.sizes, SPLIT: items.splits}
    own |= {} if items.groups is None else {GROUP: items.groups}
    table = pa.table({**own, ROW: np.arange(len(items)), **dict(zip(contents.column_names, contents, strict=True))})
    write_table(place, f"{name}.arrow", table.take(pa.array(order)))
    places = np.minimum((items.hashes * BINS).astype(np.int64), BINS - 1)
    labels_of = {} if labels.of_parts else facts.labels_of  # of several classes no split needs any
    head = {
        "bins": np.bincount(places, minlength=BINS).tolist(),
        "brought": np.unique(items.splits).tolist(),
        "has_groups": items.groups is not None,
        "form": [labels.task, labels.columns, labels.names, labels.numbered, labels.of_parts],
        "labels": [*labels.values],
        "places": labels.places,
        "faults": labels.faults,
        "num_faults": labels.num_faults,
        "labels_of": {split: sorted(codes) for split, codes in labels_of.items()},
        "kinds": sorted(facts.kinds),
        "left_out": facts.left_out,
        "outside": facts.outside,
        "num_outside": facts.num_outside,
        "files": facts.files,
    }
    note = b",".join(filter(None, notes))
    write_bytes(place, f"{name}.facts", json.dumps(head).encode() + b"\n" + note)


def mapped_file(place: Directory, name: str) -> MappedFile:
    text, _, note = read_whole(place, f"{name}.facts").partition(b"\n")
    head = json.loads(text)
    task, columns, names, numbered, of_parts = head["form"]
    labels = Labels(task, tuple(columns), tuple(names), numbered, of_parts)
    values = (tuple(value) if isinstance(value, list) else value for value in head["labels"])
    labels.values.update((value, code) for code, value in enumerate(values))
    labels.places, labels.faults, labels.num_faults = head["places"], head["faults"], head["num_faults"]
    labels_of = {int(split): set(codes) for split, codes in head["labels_of"].items()}
    outside = {key: head[key] for key in ("outside", "num_outside", "files")}
    facts = Facts(labels, labels_of, frozenset(head["kinds"]), Counter(head["left_out"]), note, **outside)
    return MappedFile(name, np.array(head["bins"], np.int32), frozenset(head["brought"]), facts, head["has_groups"])


@dataclass(frozen=True)
class Mapped:
    """All samples in files. codes: for each file, the place of its labels in `labels`. bounds: for each file, where its samples
    of each bucket begin, then their number. starts: how many samples the files before have. has_groups: whether a sample has a
    group. has_copies: whether content is copied beside the files.
    """

    place: Directory
    files: tuple[str, ...]
    codes: tuple[np.ndarray, ...]
    bounds: np.ndarray
    starts: np.ndarray
    has_groups: bool
    has_copies: bool

    @property
    def sizes(self) -> np.ndarray:
        """Samples of each bucket."""
        return np.diff(self.bounds.sum(axis=0))

    def rows(self, bucket: int) -> pa.Table:
        """The samples of a bucket by the hash of their ids, and where that is the same, by their place in the listing."""
        tables = []
        files = zip(self.files, self.codes, self.bounds, self.starts, strict=True)
        for number, (name, codes, bounds, start) in enumerate(files):
            first, last = int(bounds[bucket]), int(bounds[bucket + 1])
            if first == last:
                continue
            table = read_table(self.place, f"{name}.arrow", first, last)
            for column, values in (
                (LABEL, recoded(table.column(LABEL), codes)),
                (ROW, pa.array(table.column(ROW).to_numpy() + start)),
            ):
                table = table.set_column(table.schema.get_field_index(column), column, values)
            if self.has_copies:
                table = table.append_column(FILE, pa.array(np.full(len(table), number, np.int32)))
            tables.append(table)
        whole = pa.concat_tables(tables, promote_options="default").combine_chunks()
        return whole.take(pa.array(np.argsort(whole.column(HASH).to_numpy(), kind="stable")))


def contents_of(rows: pa.Table) -> pa.Table:
    """The columns of samples' contents."""
    return rows.select([name for name in rows.column_names if not name.startswith(".")])


def items_of(rows: pa.Table, labels: LabelRows) -> Items:
    columns = {name: rows.column(name).to_numpy() for name in (SIZE, SPLIT)}
    groups = rows.column(GROUP) if GROUP in rows.column_names else None
    return Items(rows.column(ID), labels.coded(rows.column(LABEL)), columns[SIZE], columns[SPLIT], groups)
