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
from aft_ray.datasets.buckets.files import read_table, write_table
from aft_ray.datasets.items import Coded, Items
from aft_ray.datasets.parts import Facts, Part, Plan, Whole, gathered
from aft_ray.datasets.sources.labels import Labels
from aft_ray.recipe.config import fingerprint
from aft_ray.recipe.sections import DatasetConfig
from aft_ray.store.files import Directory

FORMAT = 1
"""Of the files: a version that writes others raises it, and finds none of those before."""
BINS = 4096
"""Equal ranges of hashes, whose samples are counted. A bucket is one or several of them."""
TASKS = 256
PARTS_OF_TASK = 64
"""From so many tasks on, a task reads several parts; never more than these."""
HASH, ROW, CODE, SIZE, SPLIT, ID = ".hash", ".row", ".code", ".num_bytes", ".split", ".sample_id"
"""Columns before those of the samples' contents. row: a sample's place among those of its task."""


@dataclass(frozen=True)
class MappedFile:
    """What is known of a file of samples. bins: samples in each of the BINS. brought: as in `Items.splits`."""

    name: str
    bins: np.ndarray
    brought: frozenset[int]
    facts: Facts


def map_parts(plan: Plan, config: DatasetConfig, states: Sequence[Any], place: Directory, tasks: Tasks) -> list[str]:
    """Names of the files with the samples of all parts, in their order. Files of an earlier command stay.

    states: of each part. A file's name tells the parts and their states: after a change it has another one.
    """
    arguments = plan.parts
    size = max(1, min(PARTS_OF_TASK, len(arguments) // TASKS))
    groups = [range(start, min(start + size, len(arguments))) for start in range(0, len(arguments), size)]
    made_of = [FORMAT, config.model_dump(mode="json")]
    names = [
        f"rows-{fingerprint([*made_of, [[plan.name_of(part), states[part]] for part in group]])}" for group in groups
    ]
    there = set(place.names())
    todo = [(name, group) for name, group in zip(names, groups, strict=True) if f"{name}.facts" not in there]
    given = ((place, name, plan.scan, arguments[group.start : group.stop]) for name, group in todo)
    with Progress("list", len(names), "files of rows", len(names) - len(todo)) as progress:
        for _ in tasks(map_rows, given):
            progress.advance(1)
    return names


def map_rows(place: Directory, name: str, scan: Callable[..., Part], parts: Sequence[tuple[Any, ...]]) -> None:
    """Writes the samples of some parts, then what is known of them, which makes the file valid."""
    whole, notes = Whole(), []

    def scanned(arguments: tuple[Any, ...]) -> Part:
        part = scan(*arguments)
        notes.append(part.facts.note)
        return part

    items, contents = gathered(map(scanned, parts), whole)
    assert items.groups is None, "no source with groups is listed in parts"
    order = np.argsort(items.hashes, kind="stable")
    own = {ID: items.ids, HASH: items.hashes, CODE: items.labels.codes, SIZE: items.sizes, SPLIT: items.splits}
    table = pa.table({**own, ROW: np.arange(len(items)), **dict(zip(contents.column_names, contents, strict=True))})
    write_table(place, f"{name}.arrow", table.take(pa.array(order)))
    places = np.minimum((items.hashes * BINS).astype(np.int64), BINS - 1)
    facts = whole.facts()
    labels = facts.labels
    head = {
        "bins": np.bincount(places, minlength=BINS).tolist(),
        "brought": np.unique(items.splits).tolist(),
        "form": [labels.task, labels.columns, labels.names, labels.numbered],
        "labels": [*labels.values],
        "places": labels.places,
        "faults": labels.faults,
        "num_faults": labels.num_faults,
        "labels_of": {split: sorted(codes) for split, codes in facts.labels_of.items()},
        "kinds": sorted(facts.kinds),
        "left_out": facts.left_out,
    }
    note = b",".join(filter(None, notes))
    place.write(f"{name}.facts", json.dumps(head).encode() + b"\n" + note)


def mapped_file(place: Directory, name: str) -> MappedFile:
    text, _, note = place.read(f"{name}.facts").partition(b"\n")
    head = json.loads(text)
    task, columns, names, numbered = head["form"]
    labels = Labels(task, tuple(columns), tuple(names), numbered)
    labels.values.update((value, code) for code, value in enumerate(head["labels"]))
    labels.places, labels.faults, labels.num_faults = head["places"], head["faults"], head["num_faults"]
    labels_of = {int(split): set(codes) for split, codes in head["labels_of"].items()}
    facts = Facts(labels, labels_of, frozenset(head["kinds"]), Counter(head["left_out"]), note)
    return MappedFile(name, np.array(head["bins"], np.int32), frozenset(head["brought"]), facts)


@dataclass(frozen=True)
class Mapped:
    """All samples in files. codes: for each file, the place of its labels in `labels`. bounds: for each file, where its samples
    of each bucket begin, then their number. starts: how many samples the files before have.
    """

    place: Directory
    files: tuple[str, ...]
    codes: tuple[np.ndarray, ...]
    bounds: np.ndarray
    starts: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """Samples of each bucket."""
        return np.diff(self.bounds.sum(axis=0))

    def rows(self, bucket: int) -> pa.Table:
        """The samples of a bucket by the hash of their ids, and where that is the same, by their place in the listing."""
        tables = []
        for name, codes, bounds, start in zip(self.files, self.codes, self.bounds, self.starts, strict=True):
            first, last = int(bounds[bucket]), int(bounds[bucket + 1])
            if first == last:
                continue
            table = read_table(self.place, f"{name}.arrow", first, last)
            for column, values in (
                (CODE, codes[table.column(CODE).to_numpy()]),
                (ROW, table.column(ROW).to_numpy() + start),
            ):
                table = table.set_column(table.schema.get_field_index(column), column, pa.array(values))
            tables.append(table)
        whole = pa.concat_tables(tables).combine_chunks()
        return whole.take(pa.array(np.argsort(whole.column(HASH).to_numpy(), kind="stable")))


def items_of(rows: pa.Table, labels: tuple[Any, ...]) -> Items:
    """labels: what the codes of labels mean."""
    columns = {name: rows.column(name).to_numpy() for name in (CODE, SIZE, SPLIT)}
    return Items(rows.column(ID), Coded(labels, columns[CODE]), columns[SIZE], columns[SPLIT])
