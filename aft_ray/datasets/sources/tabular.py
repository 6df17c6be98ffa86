"""Rows of tables -> a listing: ids, labels and splits are read at once, content when it is asked for."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import repeat
from typing import Any

import numpy as np
import pyarrow as pa

from aft_ray.datasets.base import Content, Listing, Modality, raise_faults
from aft_ray.datasets.items import UNKNOWN, Items, Label, Texts, groups_of, sizes_of
from aft_ray.datasets.lookup import Lookup
from aft_ray.datasets.sources.classes import short, short_name
from aft_ray.datasets.sources.contents import Contents, RowContent
from aft_ray.datasets.sources.files import OTHER_SPLITS
from aft_ray.datasets.sources.json_text import is_unicode
from aft_ray.datasets.sources.labels import Labels
from aft_ray.datasets.sources.pictures import check_image_root, picture_path, picture_sizes, read_named_picture
from aft_ray.datasets.sources.splits import named_split, split_names
from aft_ray.datasets.sources.tables import Row, Table, Tables, read_rows
from aft_ray.recipe.config import fingerprint
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.places import AnyPath, place_at
from aft_ray.recipe.remote import RemotePath
from aft_ray.recipe.sections import ColumnsConfig, DatasetConfig
from aft_ray.store.schema import SPLITS


def row_content(config: DatasetConfig) -> RowContent:
    return RowContent(config.columns.texts, config.prompt, config.columns.image)


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
        check_image_root(_image_root(columns.image_root))


def list_tables(opened: Tables, config: DatasetConfig) -> Listing:
    """Every row of some tables as a sample.

    Raises InputError, one line per fault: missing columns; rows with a wrong label, id, split or path of a picture.
    """
    tables = opened.tables
    check_columns(tables, config)
    rows = _Rows(tables, config)
    rows.read()
    if not rows.kept:
        raise InputError(f"{', '.join(table.name for table in tables[:5])}: there are no rows to read.")
    classes, labels = rows.labels.finish()
    splits = np.array(rows.splits, np.int8)
    items = Items(rows.ids.column(), labels, rows.sizes(), splits, groups_of(rows.groups))
    if classes != rows.labels.names:
        check_classes_of_splits(items.labels_of(), labels.values, classes)
    content = rows.content
    uri = None if rows.paths is None else Lookup(_uris, pa.table({"uri": Texts(rows.paths).column()}))
    modality: Modality = "image+text" if content.image and content.texts else "image" if content.image else "text"
    return Listing(
        modality=modality,
        classes=classes,
        items=items,
        read=rows.content_of if uri is None or content.texts else Lookup(_pictures, uri.references),
        uri=uri,
        task=config.task or "classification",
        truncation_side=(config.truncation_side or "right") if content.texts else None,
        facts={"prompt": config.prompt, "tables": fingerprint([[t.name, t.num_bytes] for t in tables])},
        left_out={**opened.left_out, **({f"rows {OTHER_SPLITS}": rows.num_left_out} if rows.num_left_out else {})},
    )


def check_classes_of_splits(labels_of: Mapping[int, set[int]], labels: Sequence[Label], classes: Sequence[str]) -> None:
    """Raises InputError naming the classes of a split that the train split has not. labels_of: by split, codes of `labels`."""
    found = {
        split: {label for code in labels_of.get(number, ()) if isinstance(label := labels[code], int) and label >= 0}
        for number, split in enumerate(SPLITS)
    }
    raise_faults(
        f"Split {split} has classes that train has not: {', '.join(short_name(classes[label]) for label in strange[:5])}"
        f"{', ...' if len(strange) > 5 else ''}. Name all classes in dataset.label_names if that is meant."
        for split in SPLITS
        if (strange := sorted(found[split] - found["train"]))
    )


class _Rows:
    """Ids, labels, splits, groups and pictures' paths of the rows that a listing keeps; `read` fills them.

    kept: their places among all rows. paths: None if the pictures lie in the tables; these are copied, as texts are, into
    `contents`. outside: the first path that leads outside its folder; num_outside: how many do. num_left_out: rows
    of splits that the recipe does not name.
    """

    def __init__(self, tables: Sequence[Table], config: DatasetConfig) -> None:
        self.tables, self.config, self.columns = tables, config, config.columns
        names = config.label_names or _names(tables, config.columns)
        self.labels = Labels(config.task or "classification", config.columns.labels, names, not config.label_names)
        self.content = row_content(config)
        self.kept = array("q")
        self.ids, self.groups = Texts(), Texts()
        self.splits = array("b")
        self.paths: list[str] | None = [] if self._has_paths() else None
        self.outside, self.num_outside = "", 0
        self.num_left_out = 0
        self.copied = self.content if self.paths is None else replace(self.content, image=None)
        self.contents = Contents(self._parts, self.copied.num_parts)

    def _has_paths(self) -> bool:
        """Whether pictures lie in files of their own: the first row that has one says so."""
        image = self.columns.image
        if not image or not self.tables[0].again:
            return False
        pictures = (row[image] for table in self.tables for row in read_rows(table, [image]))
        return isinstance(next(filter(None, pictures), None), str)

    def read(self) -> None:
        """Reads all columns but the content; the content too if a second reading would cost much."""
        if all(table.again for table in self.tables):
            for _ in self._scan(()):
                pass
        else:
            scanned = self._scan(self.copied.columns)
            self.contents.fill(self.copied.parts(row, folder) for row, folder in scanned)
        if self.outside:
            more = self.num_outside - 1
            raise InputError(
                f"{self.outside}{f', and so do {more} more rows' if more else ''}. Set"
                " dataset.columns.image_root to the folder that has the pictures; paths start from it and stay inside."
            )

    def folder(self, table: Table) -> AnyPath:
        """Where the paths of its pictures start."""
        return table.folder if self.columns.image_root is None else _image_root(self.columns.image_root)

    def content_of(self, index: int) -> Content:
        """Content of the kept row `index`. Raises OSError or ValueError if it has none."""
        parts = self.contents.read(self.kept[index]) if self.copied.num_parts else []
        if self.paths is not None:
            parts = [_read(self.paths[index]), *parts]
        return self.content.content(parts)

    def sizes(self) -> np.ndarray:
        """Sizes of the pictures' files; not known if the pictures lie in the tables."""
        return sizes_of(picture_sizes(self.paths) if self.paths is not None else repeat(None, len(self.kept)))

    def _parts(self) -> Iterator[list[bytes]]:
        """The content of all rows, read a second time."""
        for table in self.tables:
            for row in read_rows(table, self.copied.columns):
                yield self.copied.parts(row, self.folder(table))

    def _scan(self, more: Sequence[str]) -> Iterator[tuple[Row, AnyPath]]:
        columns = self.columns
        own = [columns.id, columns.split, columns.group, columns.image if self.paths is not None else None]
        wanted = list(dict.fromkeys([*columns.labels, *filter(None, own), *more]))
        names, count = split_names(self.config), Counter[str]()
        number = 0
        for table in self.tables:
            for row in read_rows(table, wanted):
                count[table.name] += 1
                self._add(row, table, count[table.name], number, names)
                yield row, self.folder(table)
                number += 1

    def _add(self, row: Row, table: Table, count: int, number: int, names: Any) -> None:
        columns = self.columns

        def where() -> str:
            return f"{table.name}, row {count}"

        split = table.split
        if columns.split:
            split = names.get(named_split(str(row[columns.split]), names) or "")
            if split is None and self.config.splits:
                self.num_left_out += 1
                return
            if split is None:
                raise InputError(
                    f"{where()}: split {short(row[columns.split])} is none of {', '.join(names)}. Say in dataset.splits which"
                    " of the data set's own splits make up train, validation and test."
                )
        self.labels.add([row[name] for name in columns.labels], where)
        self.kept.append(number)
        self.ids.append(sample_id(row[columns.id], where) if columns.id else f"{table.name}/{count}")
        self.splits.append(UNKNOWN if split is None else SPLITS.index(split))
        self.groups.append(_group(row[columns.group], where) if columns.group else None)
        if self.paths is not None:
            self.paths.append(self._path(row[columns.image or ""], table, where))

    def _path(self, value: Any, table: Table, where: Callable[[], str]) -> str:
        """The place of a picture's file; empty if there is none, or if it is outside its folder."""
        try:
            return picture_path(self.folder(table), str(value)) if value else ""
        except ValueError as error:
            self.outside = self.outside or f"{where()}: {error}"
            self.num_outside += 1
            return ""


def _image_root(root: str) -> AnyPath:
    place = place_at(root)
    return place if isinstance(place, RemotePath) else place.absolute()


def _uris(references: pa.Table) -> Callable[[int], str]:
    uris = references.column("uri")
    return lambda index: uris[index].as_py()


def _pictures(references: pa.Table) -> Callable[[int], bytes]:
    uri = _uris(references)
    return lambda index: _read(uri(index))


def _read(path: str) -> bytes:
    if not path:
        raise ValueError("it has no picture")
    return read_named_picture(path)


def sample_id(value: Any, where: Callable[[], str]) -> str:
    """The id in a column, as a text. Raises InputError if it is none."""
    if not isinstance(value, (str, int)) or value == "":
        raise InputError(f"{where()}: id {short(value)} is no text and no whole number.")
    return str(value)


def _group(value: Any, where: Callable[[], str]) -> str | None:
    """The group in a column, as a text; of a picture in the table its bytes' hash. Raises InputError if it is not Unicode."""
    if isinstance(value, dict):  # the hub's pair of both
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if value is not None and not is_unicode(str(value)):
        raise InputError(f"{where()}: group {short(value)} is not Unicode.")
    return None if value is None else str(value)


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
