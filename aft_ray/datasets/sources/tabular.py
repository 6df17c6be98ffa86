"""Tables -> samples: ids, labels and splits are read at once, content when it is asked for. A part is a file of rows, or some
row groups of a large Parquet file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from aft_ray.datasets.base import Content, Listing, Modality, raise_faults
from aft_ray.datasets.parts import Facts, Head, Part, Plan, listing_of, scanned
from aft_ray.datasets.sources.classes import check_classes_of_splits
from aft_ray.datasets.sources.contents import Contents, Spools, content_of
from aft_ray.datasets.sources.pictures import check_image_root, read_named_picture
from aft_ray.datasets.sources.table_rows import PART, ROW, URI, Form, image_root
from aft_ray.datasets.sources.tables import Table, Tables, open_table, read_rows
from aft_ray.recipe.config import fingerprint
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.places import AnyPath, state_of
from aft_ray.recipe.sections import DatasetConfig
from aft_ray.store.prefetch import prefetched

PART_ROWS = 50_000
"""Rows of the row groups that make a part together, at least."""
THREADS = 16


def check_columns(tables: Sequence[Table], config: DatasetConfig) -> None:
    """Raises InputError, one line per table, naming the missing columns and the existing ones."""
    columns = config.columns
    wanted = {
        **{name: "columns.label" for name in columns.labels},
        **{name: "columns.text" for name in columns.texts},
        **{name: f"columns.{key}" for key in ("image", "id", "split", "group") if (name := getattr(columns, key))},
    }
    faults = []
    for table in tables:
        missing = [f"{name!r} ({key})" for name, key in wanted.items() if name not in table.columns]
        if missing:
            known = ", ".join(table.columns) or "none"
            faults.append(f"{table.name} has no column {', '.join(missing)}. Columns: {known}.")
    raise_faults(faults)
    if columns.image_root is not None:
        check_image_root(image_root(columns.image_root))


def list_tables(opened: Tables, config: DatasetConfig) -> Listing:
    """Every row of some tables as a sample.

    Raises InputError, one line per fault: missing columns; rows with a wrong label, id, split or path of a picture.
    """
    plan = TableParts.of(opened, config)
    if all(table.again for table in opened.tables):
        return listing_of(plan, scanned(plan))
    spools = Spools.temporary(len(plan.copied))  # a second reading would cost much
    parts = [plan.scan(*(*arguments, spools)) for arguments in plan.parts]
    spools.finish()
    return listing_of(plan, parts, lambda index: content_of(spools.read(index), plan.form.content.modality))


def tables_in_parts(opened: Tables, config: DatasetConfig) -> TableParts | None:
    """How tables are read in parts; None where one is no file, and other processes cannot open it."""
    return TableParts.of(opened, config) if all(table.file is not None for table in opened.tables) else None


@dataclass(frozen=True)
class Piece:
    """A table, or some row groups of a Parquet file. first: rows before it in the tables of its name. table: where it is open
    and cannot be opened again.
    """

    name: str
    split: str | None
    file: AnyPath | None
    kind: str
    groups: range | None
    first: int
    table: Table | None = None

    def open(self) -> Table:
        if self.table is not None:
            return self.table
        assert self.file is not None, "a table is open or in a file"
        return replace(open_table(self.file, self.kind, self.groups), name=self.name, split=self.split)


@dataclass(frozen=True)
class TableParts(Plan):
    """The tables of a data set. sizes: name and bytes of each. left_out: files beside them."""

    form: Form
    pieces: tuple[Piece, ...]
    sizes: tuple[tuple[str, int | None], ...]
    left_out: Mapping[str, int]

    @classmethod
    def of(cls, opened: Tables, config: DatasetConfig) -> TableParts:
        check_columns(opened.tables, config)
        sizes = tuple((table.name, table.num_bytes) for table in opened.tables)
        return cls(Form.of(opened.tables, config), tuple(_pieces(opened.tables)), sizes, opened.left_out)

    @property
    def copied(self) -> tuple[str, ...]:
        return self.form.copied.kinds

    @property
    def is_lasting(self) -> bool:
        """The state of a table does not tell the sizes of pictures in files of their own."""
        return not self.form.has_paths

    @property
    def uris(self) -> Callable[[pa.Table], Callable[[int], str]] | None:
        return _uri if self.form.has_paths else None

    @property
    def parts(self) -> list[tuple[Any, ...]]:
        return [(self.form, number, piece) for number, piece in enumerate(self.pieces)]

    @staticmethod
    def scan(form: Form, number: int, piece: Piece, spools: Spools | None = None) -> Part:
        return form.scan(number, piece.open(), piece.first, spools)

    def states(self) -> list[Any]:
        form = fingerprint([self.form.names, self.form.has_paths])
        files = [piece.file for piece in self.pieces if piece.file is not None]
        found = prefetched(state_of, files, threads=THREADS)
        return [[*state, piece.first, str(piece.groups), form] for state, piece in zip(found, self.pieces, strict=True)]

    def name_of(self, part: int) -> str:
        return str(self.pieces[part].file)

    def head(self, whole: Facts, digest: str) -> Head:
        config, content = self.form.config, self.form.content
        if whole.outside:
            more = whole.num_outside - 1
            raise InputError(
                f"{whole.outside}{f', and so do {more} more rows' if more else ''}. Set"
                " dataset.columns.image_root to the folder that has the pictures; paths start from it and stay inside."
            )
        if not whole.labels.values:
            raise InputError(f"{', '.join(name for name, _ in self.sizes[:5])}: there are no rows to read.")
        classes, labels = whole.labels.finish()
        if classes != self.form.names:
            check_classes_of_splits(whole.labels_of, labels.values, classes)
        return Head(
            content.modality,
            classes,
            labels.values,
            config.task or "classification",
            (config.truncation_side or "right") if content.texts else None,
            {"prompt": config.prompt, "tables": fingerprint([[*size] for size in self.sizes])},
            Counter(self.left_out) + whole.left_out,
            whole.labels.notes,
        )

    def reader(self, modality: Modality, contents: pa.Table) -> Callable[[int], Content]:
        """What is copied is read a second time, as a whole, at the first read."""
        if not self.copied:
            return self.joiner(modality, contents, lambda index: [])
        return self.joiner(modality, contents, Contents(lambda: self._kept(contents), len(self.copied)).read)

    def joiner(
        self, modality: Modality, contents: pa.Table, copied: Callable[[int], list[bytes]]
    ) -> Callable[[int], Content]:
        if not self.form.has_paths:
            return lambda index: content_of(copied(index), modality)
        uri = _uri(contents)

        def read(index: int) -> Content:
            parts = copied(index)
            return content_of([_picture(uri(index)), *parts], modality)

        return read

    def _kept(self, contents: pa.Table) -> Iterator[list[bytes]]:
        """The content of the rows that are samples."""
        parts, rows = (contents.column(name).to_numpy() for name in (PART, ROW))
        copied = self.form.copied
        for number, piece in enumerate(self.pieces):
            kept = iter(rows[parts == number].tolist())
            wanted, table = next(kept, None), piece.open()
            folder = self.form.folder(table)
            for place, row in enumerate(read_rows(table, copied.columns)):
                if place == wanted:
                    yield copied.parts(row, folder)
                    wanted = next(kept, None)


def _pieces(tables: Sequence[Table]) -> Iterator[Piece]:
    of_name = Counter(table.name for table in tables)
    before = Counter[str]()
    for table in tables:
        for groups, count in _row_groups(table):
            is_open = None if table.file is not None else table
            first = before[table.name] + count
            yield Piece(table.name, table.split, table.file, table.kind, groups, first, is_open)
        if of_name[table.name] > 1 and table.count is not None:
            before[table.name] += table.count()


def _row_groups(table: Table) -> Iterator[tuple[range | None, int]]:
    """The row groups of each part of a table, and how many rows are before it; the table as a whole where it is small."""
    if sum(table.groups) <= PART_ROWS:
        yield None, 0
        return
    start, first, rows = 0, 0, 0
    for group, count in enumerate(table.groups, 1):
        rows += count
        if rows - first >= PART_ROWS or group == len(table.groups):
            yield range(start, group), first
            start, first = group, rows


def _uri(contents: pa.Table) -> Callable[[int], str]:
    uris = contents.column(URI)
    return lambda index: uris[index].as_py()


def _picture(path: str) -> bytes:
    if not path:
        raise ValueError("it has no picture")
    return read_named_picture(path)
