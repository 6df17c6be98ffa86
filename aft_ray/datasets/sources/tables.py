"""Files of rows (Parquet, Arrow, CSV, JSON lines), read a few rows at a time."""

from __future__ import annotations

import csv
import gzip
import io
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from aft_ray.datasets.sources.files import OTHER_SPLITS, find_files, splits_of_files
from aft_ray.datasets.sources.json_text import HEAD_BYTES, encoding_of, parse_json, told_undecodable
from aft_ray.recipe.errors import InputError, ObjectStoreError
from aft_ray.recipe.places import AnyPath, native_file, num_bytes
from aft_ray.recipe.sections import DatasetConfig

Row = dict[str, Any]

BATCH_ROWS = 32
"""Rows decoded at once: bounds the memory that large pictures take."""
BUFFER_BYTES = 1 << 20
ARROW_FILE = b"ARROW1"
"""How an Arrow file begins; a stream does not."""
PEEKED = 100
"""How many JSON objects are read to find the columns."""
SUFFIXES = {
    "parquet": (".parquet", ".pq"),
    "arrow": (".arrow",),
    "csv": (".csv", ".tsv", ".csv.gz", ".tsv.gz"),
    "jsonl": (".jsonl", ".ndjson", ".jsonl.gz"),
}

DAMAGED = (pa.ArrowException, UnicodeError, OSError, EOFError, zlib.error)
"""Errors of the libraries that read files, if a file is damaged or of another kind than its name says."""


@dataclass(frozen=True)
class Table:
    """Rows that can be read again and again, always in the same order.

    name: begins the ids of its rows. split: one of ours. read: rows with (at least) the columns that are named.
    folder: where relative paths start. class_names: by column, where the format brings them. num_bytes: identifies the
    file, where it is one. again: whether reading twice costs little.
    file, kind: how `open_table` opens it; None where there is no file. groups: rows of each of its row groups, where it has
    some. count: its rows, where that is known without reading them.
    """

    name: str
    split: str | None
    columns: tuple[str, ...]
    read: Callable[[Sequence[str]], Iterator[Row]]
    folder: AnyPath = Path()
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    num_bytes: int | None = None
    again: bool = True
    file: AnyPath | None = None
    kind: str = ""
    groups: tuple[int, ...] = ()
    count: Callable[[], int] | None = None


@dataclass(frozen=True)
class Tables:
    """The tables of a data set. left_out: how many files beside them were not read, by kind."""

    tables: list[Table]
    left_out: Mapping[str, int]


def open_tables(config: DatasetConfig) -> Tables:
    """The files of `dataset.path` in the format `dataset.source`.

    Raises FileNotFoundError if there are none, InputError if one cannot be read or their splits are not clear.
    """
    assert config.source is not None and config.path is not None, "the recipe was validated"
    found = find_files(config.path, SUFFIXES[config.source])
    splits = splits_of_files(found, config)
    tables = [
        replace(open_table(file, config.source), name=found.name(file).as_posix(), split=split)
        for file, split in splits.items()
    ]
    return Tables(tables, +(found.left_out + Counter({OTHER_SPLITS: len(found.files) - len(splits)})))


def open_table(file: AnyPath, kind: str, groups: range | None = None) -> Table:
    """A file as a table with no split. Raises InputError if it is damaged, or of another kind than its name says.

    groups: of a Parquet file, the row groups to read.
    """
    readers: dict[str, Callable[[AnyPath], Table]] = {
        "parquet": partial(_parquet, groups=groups),
        "arrow": _arrow,
        "csv": _csv,
        "jsonl": _jsonl,
    }
    try:
        table = readers[kind](file)
    except ObjectStoreError:
        raise
    except DAMAGED as error:
        raise InputError(f"{file} cannot be read as {kind}: {_one_line(error)}.") from error
    twice = sorted({name for name in table.columns if name.strip() and table.columns.count(name) > 1})
    if twice:
        raise InputError(f"{file}: column {', '.join(twice)} is there twice.")
    return replace(table, folder=file.parent, num_bytes=num_bytes(file), file=file, kind=kind)


def _one_line(error: BaseException) -> str:
    if isinstance(error, UnicodeDecodeError):
        return told_undecodable(error)
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _parquet(file: AnyPath, groups: range | None = None) -> Table:
    """A Parquet file, or some of its row groups. It takes the memory of a few pages; a page of the hub's has 100 pictures."""

    def read(columns: Sequence[str]) -> Iterator[Row]:
        with native_file(file) as source:
            opened = pq.ParquetFile(source, buffer_size=BUFFER_BYTES, pre_buffer=False)
            wanted = range(opened.num_row_groups) if groups is None else groups
            for batch in opened.iter_batches(BATCH_ROWS, list(wanted), list(columns), use_threads=False):
                yield from batch.to_pylist()

    with native_file(file) as source:
        opened = pq.ParquetFile(source)
        found = tuple(opened.metadata.row_group(group).num_rows for group in range(opened.num_row_groups))
        table = _from_schema(file, opened.schema_arrow, read)
    return replace(table, groups=found, count=lambda: sum(found))


def _arrow(file: AnyPath) -> Table:
    """An Arrow stream, as the hub's library writes them, or an Arrow file."""

    def batches() -> Iterator[pa.RecordBatch]:
        with native_file(file) as source:
            if source.read(len(ARROW_FILE)) == ARROW_FILE:
                opened = pa.ipc.open_file(source)
                yield from (opened.get_batch(index) for index in range(opened.num_record_batches))
            else:
                source.seek(0)
                yield from pa.ipc.open_stream(source)

    def read(columns: Sequence[str]) -> Iterator[Row]:
        for batch in batches():
            wanted = batch.select(list(columns))
            for start in range(0, wanted.num_rows, BATCH_ROWS):
                yield from wanted.slice(start, BATCH_ROWS).to_pylist()

    first = next(batches(), None)
    table = _from_schema(file, first.schema if first is not None else pa.schema([]), read)
    return replace(table, count=lambda: sum(batch.num_rows for batch in batches()))


def _from_schema(file: AnyPath, schema: pa.Schema, read: Callable[[Sequence[str]], Iterator[Row]]) -> Table:
    try:
        class_names = hub_class_names(schema.metadata or {})
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    return Table(file.name, None, tuple(schema.names), read, class_names=class_names)


def hub_class_names(metadata: Mapping[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """Names of classes by column, as the hub's library notes them in a schema. Raises InputError if the note is damaged."""
    found = {}
    try:
        features = parse_json(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        for column, feature in features.items():
            inner = feature.get("feature", feature) if isinstance(feature, dict) else {}  # of a list's elements
            if inner.get("_type") == "ClassLabel" and inner.get("names"):
                found[column] = tuple(inner["names"])
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(
            "Its schema has names of classes that cannot be read. Write it again without the key"
            " 'huggingface' in the schema's metadata, or with the hub's library."
        ) from error
    return found


@contextmanager
def _text_stream(file: AnyPath) -> Iterator[TextIO]:
    with file.open("rb") as raw:
        unpacked = gzip.open(raw) if file.suffix.lower() == ".gz" else raw
        stream = cast(BinaryIO, unpacked)
        encoding = encoding_of(stream.read(HEAD_BYTES))
        stream.seek(0)
        with io.TextIOWrapper(stream, encoding=encoding, newline="") as text:
            yield text


def _csv(file: AnyPath) -> Table:
    """Values with a header, separated by what `_delimiter` finds, or by tabs if the name ends in .tsv, where a quote is a
    character like others. Every value is a text."""
    csv.field_size_limit(sys.maxsize)
    is_tsv = file.name.lower().endswith((".tsv", ".tsv.gz"))
    dialect: dict[str, Any] = (
        {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if is_tsv else {"delimiter": _delimiter(file), "strict": True}
    )

    def lines() -> Iterator[list[str]]:
        rows = 0
        with _text_stream(file) as stream:
            try:
                for row in csv.reader(stream, **dialect):
                    yield row
                    rows += 1
            except csv.Error as error:
                raise InputError(_broken_quotes(file, rows, error)) from error

    def filled() -> Iterator[list[str]]:
        return (row for row in lines() if row)

    def read(columns: Sequence[str]) -> Iterator[Row]:
        for number, row in enumerate(islice(filled(), 1, None), 1):
            if len(row) != len(header):
                raise InputError(f"{file.name}, row {number}: {len(row)} values, the header has {len(header)}.")
            yield dict(zip(header, row, strict=True))

    header = tuple(next(filled(), ()))
    return Table(file.name, None, header, read)


def _delimiter(file: AnyPath) -> str:
    """A comma, or what spreadsheets write where a comma is the decimal point: then the header is one value with semicolons, tabs
    or bars."""
    with _text_stream(file) as stream, suppress(csv.Error):
        header = next(filter(None, csv.reader(stream)), [])
        if len(header) == 1:
            return next((mark for mark in ";\t|" if mark in header[0]), ",")
    return ","


def _broken_quotes(file: AnyPath, rows: int, error: csv.Error) -> str:
    """rows: lines of the table that were read before, the header among them."""
    where = f"{file.name}, row {rows}" if rows else f"{file.name}, header"
    return (
        f"{where}: {_one_line(error)}. A quoted field must end with a quote before the next comma or semicolon, and a quote"
        " inside it must be doubled. Where quotes mean nothing, separate the fields by tabs and call the file .tsv."
    )


def _jsonl(file: AnyPath) -> Table:
    """A JSON object per line; a key that an object lacks is null."""

    def objects() -> Iterator[Row]:
        number = 0
        with _text_stream(file) as stream:
            for line in stream:
                if line.strip():
                    number += 1
                    yield _json_object(line, f"{file.name}, row {number}")

    def read(columns: Sequence[str]) -> Iterator[Row]:
        for found in objects():
            yield {name: found.get(name) for name in columns}

    keys = dict.fromkeys(key for found in islice(objects(), PEEKED) for key in found)
    return Table(file.name, None, tuple(keys), read)


def _json_object(line: str, where: str) -> Row:
    try:
        found = parse_json(line)
    except ValueError as error:
        raise InputError(f"{where}: not JSON: {_one_line(error)}.") from error
    if not isinstance(found, dict):
        raise InputError(f"{where}: a {type(found).__name__}, not a JSON object.")
    return found


def read_rows(table: Table, columns: Sequence[str]) -> Iterator[Row]:
    """Rows of a table. Raises InputError, naming the table, if it is damaged."""
    try:
        yield from table.read(columns)
    except ObjectStoreError:
        raise
    except DAMAGED as error:
        raise InputError(f"{table.name} cannot be read: {_one_line(error)}.") from error
