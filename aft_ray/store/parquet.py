"""Tables of samples and features as Parquet files. Features are laid out so that reading them is a view of the file's bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from aft_ray.recipe.errors import InputError
from aft_ray.recipe.json_files import SHOWN_FAULTS, damaged
from aft_ray.store.pages import plain_values
from aft_ray.store.schema import features_schema

FINGERPRINT_KEY, NOTES_KEY, PLAIN_KEY = b"aft_ray.fingerprint", b"aft_ray.notes", b"aft_ray.plain_features"
DIGEST_KEY = b"aft_ray.digest"
"""Metadata of a small table: a digest of its values, whatever the codec. Tables of before have none."""
FEATURES_PATH = "features.list.element"
COMPRESSED = ("sample_id", "text", "image_uri")
"""Columns worth compressing; pictures are compressed already, and float16 features shrink by less than a tenth."""
LARGEST_PAGE = 1 << 30


def content_digest(table: pa.Table) -> str:
    """Hash of everything a teacher may see of a samples shard: ids and content, not the labels."""
    digest = hashlib.sha256()
    for name in table.column_names:
        if name != "label":
            for scalar in table.column(name):
                value = scalar.as_py()  # one at a time: many rows may share a picture
                raw = value if isinstance(value, bytes) else str(value).encode()
                digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()


def features_table(
    sample_ids: Sequence[str] | pa.Array, features: np.ndarray, dtype: str = "float16", quarantined: Iterable[int] = ()
) -> pa.Table:
    """A features shard from n ids and (n, T) float features, stored as `dtype`.

    quarantined: rows of quarantined samples; they hold NaN.
    Raises InputError where another row has a value that is not finite, or too large for `dtype`.
    """
    with np.errstate(over="ignore"):  # found and named below
        stored = np.array(features, dtype)  # a copy: rows are blanked below
    left_out = list(quarantined)
    stored[left_out] = 0
    if not np.isfinite(stored).all():
        row, column = np.argwhere(~np.isfinite(stored))[0]
        value = features[row, column]
        way_out = (
            "Store this teacher with features_dtype: float32."
            if np.isfinite(value)
            else "Run this teacher with precision: fp32, or look at the sample."
        )
        raise InputError(
            f"Feature {column} of sample {sample_ids[int(row)]} is {value:g}, no number of {dtype}. {way_out}"
        )
    stored[left_out] = np.nan
    schema = features_schema(stored.shape[1], dtype)
    values = pa.FixedSizeListArray.from_arrays(pa.array(stored.reshape(-1)), type=schema.field("features").type)
    return pa.table([pa.array(sample_ids, pa.string()), values], schema=schema)


def numbers_of(column: pa.Array) -> np.ndarray:
    """A read-only view of a column of numbers, none of which is missing. pyarrow's own `to_numpy` would import pandas."""
    return np.from_dlpack(column)


def features_array(table: pa.Table) -> np.ndarray:
    """(n, T) of a features table in the stored type, without a copy. Raises ValueError if they are no such features."""
    column = table.column("features").combine_chunks()
    kind = column.type
    if not pa.types.is_fixed_size_list(kind) or kind.value_type not in (pa.float16(), pa.float32()):
        raise ValueError(f"its features are {kind}, not vectors of one width in float16 or float32")
    numbers = column.flatten()
    if column.null_count or numbers.null_count:
        raise ValueError("features are missing in it")
    return numbers_of(numbers).reshape(len(column), kind.list_size)


def sealed_table(table: pa.Table, metadata: Mapping[bytes, bytes]) -> bytes:
    """A small table as a Parquet file with a digest of its values, which `parsed_table` checks."""
    sink = pa.BufferOutputStream()
    sealed = table.replace_schema_metadata({**metadata, DIGEST_KEY: _values_digest(table)})
    pq.write_table(sealed, sink, write_page_checksum=True)
    return bytes(sink.getvalue())


def _values_digest(table: pa.Table) -> bytes:
    values = [table.column_names, *(repr(row) for row in table.to_pylist())]
    return hashlib.sha256(repr(values).encode()).hexdigest().encode()


def parsed_table(
    content: bytes, columns: Mapping[str, pa.DataType], needed: Iterable[str], what: str, way_out: str
) -> pa.Table:
    """A table that is read whole. columns: the type of each known column. needed: columns that must be there.

    Raises InputError, one line per fault; `what` names the file, and `way_out` is a sentence.
    """
    try:
        table = open_parquet(pa.BufferReader(content)).read()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise damaged(what, [" ".join(str(error).split()).rstrip(".")], way_out) from error
    kinds = {field.name: field.type for field in table.schema}
    faults = [
        f"column '{name}' is {kinds.get(name, 'missing')}, not {kind}"
        for name, kind in columns.items()
        if kinds.get(name, None if name in needed else kind) not in (kind, pa.null())
    ]
    if faults:
        raise damaged(what, faults[:SHOWN_FAULTS], way_out)
    digest = (table.schema.metadata or {}).get(DIGEST_KEY)
    if digest is not None and digest != _values_digest(table):
        raise damaged(what, ["its values were changed after it was written, as its digest shows"], way_out)
    return table


def open_parquet(source: pa.NativeFile | pa.Buffer) -> pq.ParquetFile:
    """A Parquet file whose pages are checked against their checksums when they are read."""
    return pq.ParquetFile(source, page_checksum_verification=True)


def is_whole(content: bytes) -> bool:
    """Whether the bytes are a Parquet file without damage."""
    try:
        open_parquet(pa.BufferReader(content)).read()
    except (pa.ArrowException, OSError):
        return False
    return True


def plain_features(file: pq.ParquetFile, buffer: pa.Buffer) -> np.ndarray | None:
    """The features as a view of the file's bytes, or None if they are not laid out so.

    Decoding a list column costs more than a nanosecond per number. `encode_table` leaves the numbers in one plain page; it
    marks a shard so only after it has compared them. Another program that rewrites the shard keeps the mark, not the layout.
    """
    kind = file.schema_arrow.field("features").type
    if PLAIN_KEY not in (file.metadata.metadata or {}) or not pa.types.is_fixed_size_list(kind):
        return None
    if kind.value_type not in (pa.float16(), pa.float32()):
        return None
    num_rows, width = file.metadata.num_rows, kind.list_size
    dtype = np.dtype(kind.value_type.to_pandas_dtype()).newbyteorder("<")
    values = plain_values(file, buffer, FEATURES_PATH, dtype, num_rows * width)
    return None if values is None else values.reshape(num_rows, width)


def encode_table(table: pa.Table, metadata: Mapping[bytes, bytes]) -> pa.Buffer:
    """A table as a Parquet file."""
    if "features" in table.column_names and table.num_rows:
        content = _write_parquet(table, {**metadata, PLAIN_KEY: b"1"})
        found = plain_features(open_parquet(pa.BufferReader(content)), content)
        if found is not None and np.array_equal(found.view(np.uint8), features_array(table).view(np.uint8)):
            return content
    return _write_parquet(table, metadata)


def _write_parquet(table: pa.Table, metadata: Mapping[bytes, bytes]) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata(metadata),
        sink,
        compression={name: "zstd" for name in COMPRESSED if name in table.column_names} or "none",
        use_dictionary=[field.name for field in table.schema if pa.types.is_dictionary(field.type)],
        dictionary_pagesize_limit=LARGEST_PAGE,
        write_statistics=False,
        write_page_checksum=True,
        data_page_size=LARGEST_PAGE,
        row_group_size=max(1, table.num_rows),
    )
    return sink.getvalue()
