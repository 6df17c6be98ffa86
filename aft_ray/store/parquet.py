"""Tables of samples and features as Parquet files. Features are laid out so that reading them is a view of the file's bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from aft_ray.recipe.errors import InputError
from aft_ray.store.schema import features_schema

FINGERPRINT_KEY, NOTES_KEY, PLAIN_KEY = b"aft_ray.fingerprint", b"aft_ray.notes", b"aft_ray.plain_features"
FEATURES_PATH = "features.list.element"
COMPRESSED = ("sample_id", "text", "image_uri")
"""Columns worth compressing; pictures are compressed already, and float16 features shrink by less than a tenth."""
LARGEST_PAGE = 1 << 30


def content_digest(table: pa.Table) -> str:
    """Hash of everything a teacher may see of a samples shard: ids and content, not the labels."""
    digest = hashlib.sha256()
    for name in table.column_names:
        if name != "label":
            for value in table.column(name).to_pylist():
                raw = value if isinstance(value, bytes) else str(value).encode()
                digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()


def features_table(
    sample_ids: Sequence[str] | pa.Array, features: np.ndarray, dtype: str = "float16", bad: Iterable[int] = ()
) -> pa.Table:
    """A features shard from n ids and (n, T) float features, stored as `dtype`.

    bad: rows of samples that were put aside; they hold NaN.
    Raises InputError where another row has a value that is not finite, or too large for `dtype`.
    """
    with np.errstate(over="ignore"):  # found and named below
        stored = np.array(features, dtype)  # a copy: rows are blanked below
    left_out = list(bad)
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


def features_array(table: pa.Table) -> np.ndarray:
    """(n, T) of a features table in the stored type, without a copy."""
    column = table.column("features").combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=True).reshape(len(column), column.type.list_size)


def plain_features(file: pq.ParquetFile, buffer: pa.Buffer) -> np.ndarray | None:
    """The features as a view of the file's bytes, or None if they are not laid out so.

    Decoding a list column costs more than a nanosecond per number. `write_shard` leaves the numbers uncompressed in a
    single page, where they end the column's bytes; it marks a shard so only after it has compared them.
    """
    if PLAIN_KEY not in (file.metadata.metadata or {}):
        return None
    group = file.metadata.row_group(0)
    column = next(group.column(i) for i in range(group.num_columns) if group.column(i).path_in_schema == FEATURES_PATH)
    kind = file.schema_arrow.field("features").type
    dtype = np.dtype(kind.value_type.to_pandas_dtype()).newbyteorder("<")
    count = group.num_rows * kind.list_size
    end = column.data_page_offset + column.total_compressed_size
    return np.frombuffer(buffer, dtype, count, end - count * dtype.itemsize).reshape(group.num_rows, kind.list_size)


def encode_table(table: pa.Table, metadata: Mapping[bytes, bytes]) -> pa.Buffer:
    """A table as a Parquet file."""
    if "features" in table.column_names and table.num_rows:
        content = _write_parquet(table, {**metadata, PLAIN_KEY: b"1"})
        found = plain_features(pq.ParquetFile(pa.BufferReader(content)), content)
        if np.array_equal(cast(np.ndarray, found).view(np.uint8), features_array(table).view(np.uint8)):
            return content
    return _write_parquet(table, metadata)


def _write_parquet(table: pa.Table, metadata: Mapping[bytes, bytes]) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata(metadata),
        sink,
        compression={name: "zstd" for name in COMPRESSED if name in table.column_names} or "none",
        use_dictionary=False,
        write_statistics=False,
        data_page_size=LARGEST_PAGE,
        row_group_size=max(1, table.num_rows),
    )
    return sink.getvalue()
