"""Rows of one table -> columns of samples: ids, labels, splits, groups, the paths of pictures; every fault names its row."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import repeat
from typing import Any

import numpy as np
import pyarrow as pa

from aft_ray.datasets.items import UNKNOWN, Coded, Items, Texts, groups_of, sizes_of
from aft_ray.datasets.parts import Facts, Part
from aft_ray.datasets.sources.classes import short
from aft_ray.datasets.sources.contents import RowContent, Spools
from aft_ray.datasets.sources.files import OTHER_SPLITS
from aft_ray.datasets.sources.json_text import is_unicode
from aft_ray.datasets.sources.labels import Labels
from aft_ray.datasets.sources.pictures import in_each_folder, picture_path, picture_sizes
from aft_ray.datasets.sources.splits import named_split, split_names
from aft_ray.datasets.sources.tables import Row, Table, read_rows
from aft_ray.recipe.columns_section import ColumnsConfig
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.places import AnyPath, place_at
from aft_ray.recipe.remote import RemotePath
from aft_ray.recipe.sections import DatasetConfig
from aft_ray.store.schema import SPLITS

PART, ROW, URI = "part", "row", "uri"
"""Columns of a part's contents: its number, a row's place in it, and the path of its picture."""


@dataclass(frozen=True)
class Form:
    """How the rows of all tables of a data set become samples. names: the classes, if the recipe or the tables name them.
    has_paths: whether pictures lie in files of their own; else they are copied, as texts are.
    """

    config: DatasetConfig
    names: tuple[str, ...]
    has_paths: bool

    @classmethod
    def of(cls, tables: Sequence[Table], config: DatasetConfig) -> Form:
        """Raises InputError if the tables name different classes."""
        return cls(config, config.label_names or _names(tables, config.columns), _have_paths(tables, config))

    @property
    def content(self) -> RowContent:
        return RowContent(self.config.columns.texts, self.config.prompt, self.config.columns.image)

    @cached_property
    def copied(self) -> RowContent:
        return replace(self.content, image=None) if self.has_paths else self.content

    def folder(self, table: Table) -> AnyPath:
        """Where the paths of its pictures start."""
        root = self.config.columns.image_root
        return table.folder if root is None else image_root(root)

    def scan(self, number: int, table: Table, first: int, spools: Spools | None) -> Part:
        """The samples of a part. first: rows of the tables before that have the same name. spools: get the content that is
        copied; without them it is not read.
        """
        rows = _Rows(self, table, first)
        for row in rows.read(() if spools is None else self.copied.columns):
            if spools is not None:
                spools.append(self.copied.parts(row, rows.folder))
        return rows.part(None if spools is not None else number)


def _have_paths(tables: Sequence[Table], config: DatasetConfig) -> bool:
    """Whether pictures lie in files of their own: the first row that has one says so."""
    image = config.columns.image
    if not image or not tables[0].again:
        return False
    pictures = (row[image] for table in tables for row in read_rows(table, [image]))
    return isinstance(next(filter(None, pictures), None), str)


class _Rows:
    """The rows of a table as columns. outside: the first path that leads outside its folder; num_outside: how many do.
    num_left_out: rows of splits that the recipe does not name.
    """

    def __init__(self, form: Form, table: Table, first: int) -> None:
        config, self.columns = form.config, form.config.columns
        self.form, self.table, self.first, self.folder = form, table, first, form.folder(table)
        self.split_names = split_names(config)
        self.labels = Labels(
            config.task or "classification", self.columns.labels, form.names, numbered=not config.label_names
        )
        self.kept = array("q")
        self.ids, self.groups = Texts(), Texts()
        self.splits = array("b")
        self.paths: list[str] = []
        self.outside, self.num_outside, self.num_left_out = "", 0, 0

    def read(self, more: Sequence[str]) -> Iterator[Row]:
        """Reads all rows, and yields those that are samples, with the columns `more` too."""
        columns = self.columns
        own = [columns.id, columns.split, columns.group, columns.image if self.form.has_paths else None]
        wanted = list(dict.fromkeys([*columns.labels, *filter(None, own), *more]))
        for number, row in enumerate(read_rows(self.table, wanted)):
            if self._add(row, number):
                yield row

    def _add(self, row: Row, number: int) -> bool:
        """Whether the row is a sample."""
        columns = self.columns

        def where() -> str:
            return f"{self.table.name}, row {self.first + number + 1}"

        split = self.table.split
        if columns.split:
            names = self.split_names
            split = names.get(named_split(str(row[columns.split]), names) or "")
            if split is None and self.form.config.splits:
                self.num_left_out += 1
                return False
            if split is None:
                raise InputError(
                    f"{where()}: split {short(row[columns.split])} is none of {', '.join(names)}. Say in dataset.splits which"
                    " of the data set's own splits make up train, validation and test."
                )
        self.labels.add([row[name] for name in columns.labels], where)
        self.kept.append(number)
        self.ids.append(
            sample_id(row[columns.id], where) if columns.id else f"{self.table.name}/{self.first + number + 1}"
        )
        self.splits.append(UNKNOWN if split is None else SPLITS.index(split))
        self.groups.append(_group(row[columns.group], where) if columns.group else None)
        if self.form.has_paths:
            self.paths.append(self._path(row[columns.image or ""], where))
        return True

    def _path(self, value: Any, where: Callable[[], str]) -> str:
        """The place of a picture's file; empty if there is none, or if it is outside its folder."""
        try:
            return picture_path(self.folder, str(value)) if value else ""
        except ValueError as error:
            self.outside = self.outside or f"{where()}: {error}"
            self.num_outside += 1
            return ""

    def part(self, number: int | None) -> Part:
        """number: of the part whose rows have what `Form.copied` names; None where that is copied."""
        count = len(self.kept)
        items = Items(
            self.ids.column(),
            Coded((), np.array(self.labels.codes, np.int32)),
            sizes_of(picture_sizes(self.paths) if self.form.has_paths else repeat(None, count)),
            np.array(self.splits, np.int8),
            groups_of(self.groups),
        )
        contents: dict[str, Any] = {URI: Texts(self.paths).column()} if self.form.has_paths else {}
        if self.form.copied.kinds and number is not None:
            contents |= {PART: np.full(count, number, np.int32), ROW: np.array(self.kept, np.int64)}
        left_out = Counter({f"rows {OTHER_SPLITS}": self.num_left_out})
        facts = Facts(
            self.labels,
            items.labels_of(),
            frozenset(),
            +left_out,
            outside=self.outside,
            num_outside=self.num_outside,
            files=in_each_folder(self.paths),
        )
        return Part(items, pa.table(contents), facts)


def image_root(root: str) -> AnyPath:
    place = place_at(root)
    return place if isinstance(place, RemotePath) else place.absolute()


def sample_id(value: Any, where: Callable[[], str]) -> str:
    """The id in a column, as a text. Raises InputError if it is none."""
    if not isinstance(value, (str, int)) or value == "":
        raise InputError(f"{where()}: id {short(value)} is no text and no whole number.")
    return str(value)


def _group(value: Any, where: Callable[[], str]) -> str | None:
    """The group in a column, as a text; of a picture in the table its bytes' hash. Raises InputError if it is not Unicode.

    A blank cell is no group, as null is none: CSV has no other way to write that.
    """
    if isinstance(value, dict):  # the hub's pair of both
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if value is None or not str(value).strip():
        return None
    if not is_unicode(str(value)):
        raise InputError(f"{where()}: group {short(value)} is not Unicode.")
    return str(value)


def _names(tables: Sequence[Table], columns: ColumnsConfig) -> tuple[str, ...]:
    """The classes that the tables themselves name. Raises InputError if they differ from one to another."""
    if len(columns.labels) != 1:
        return ()
    found = {table.class_names.get(columns.labels[0], ()): table.name for table in tables}
    if len(found) > 1:
        (one, first), (other, second) = [*found.items()][:2]
        differing = sorted(set(one) ^ set(other))[:5] or ["their order"]
        raise InputError(f"The class names of {first} and {second} differ: {', '.join(differing)}.")
    return next(iter(found), ())
