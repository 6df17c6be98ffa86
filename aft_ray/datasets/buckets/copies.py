"""Copies of content that cannot be read in any order where it lies, as a table's: a file for each kind beside the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from aft_ray.datasets.base import Content, Modality
from aft_ray.datasets.buckets.files import new_copy, read_bytes
from aft_ray.datasets.parts import Plan
from aft_ray.datasets.sources.contents import Spools, checked
from aft_ray.store.files import Directory

FILE = "copy"
"""Column with the number of the file of rows beside which a sample's content lies."""


@contextmanager
def copying(place: Directory, name: str, kinds: Sequence[str]) -> Iterator[Spools]:
    """The files of a task's copies. They are there when the context ends without an error."""
    with ExitStack() as stack:
        yield Spools([stack.enter_context(new_copy(place, f"{name}.{kind}")) for kind in kinds])


def spans(spools: Spools, kinds: Sequence[str], contents: pa.Table) -> pa.Table:
    """Where the content of each sample lies, in the files and as `contents` tells."""
    columns: dict[str, Any] = {name: contents.column(name) for name in contents.column_names}
    for kind, spool in zip(kinds, spools.spools, strict=True):
        columns[f"{kind}_start"], columns[f"{kind}_size"] = spool.spans()
    return pa.table(columns)


@dataclass(frozen=True)
class CopyReader:
    """Makes a function that reads samples' copies. files: names of the files of rows."""

    place: Directory
    files: tuple[str, ...]
    plan: Plan
    modality: Modality

    def __call__(self, references: pa.Table) -> Callable[[int], Content]:
        columns = {name: references.column(name).to_numpy() for name in references.column_names}

        def part(index: int, kind: str) -> bytes:
            start, size = int(columns[f"{kind}_start"][index]), int(columns[f"{kind}_size"][index])
            return read_bytes(self.place, f"{self.files[columns[FILE][index]]}.{kind}", start, size)

        kinds = self.plan.copied
        return self.plan.joiner(self.modality, references, lambda index: checked(part(index, kind) for kind in kinds))
