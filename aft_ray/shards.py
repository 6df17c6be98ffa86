"""Shards: Parquet files of a fixed range of samples each, and the manifest that makes a directory of them complete.

A file is written once, whole: a reader sees all of it or nothing. Every shard carries the fingerprint of what made it, so
that a restart never mixes shards of two settings; the manifest is written last. All are plain Arrow types that pyarrow,
pandas, polars and DuckDB read. Features are laid out so that reading them is a view of the file's bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from aft_ray.config import InputError
from aft_ray.config import fingerprint as short_hash
from aft_ray.prefetch import prefetched
from aft_ray.schema import features_schema

MANIFEST = "manifest.json"
FINGERPRINT_KEY, NOTES_KEY, PLAIN_KEY = b"aft_ray.fingerprint", b"aft_ray.notes", b"aft_ray.plain_features"
FEATURES_PATH = "features.list.element"
COMPRESSED = ("sample_id", "text", "image_uri")
"""Columns worth compressing; pictures are compressed already, and float16 features shrink by less than a tenth."""
LARGEST_PAGE = 1 << 30
STALE_AFTER_S = 3600.0
THREADS = 16


@dataclass(frozen=True)
class Directory:
    """A directory on any filesystem that pyarrow knows, written atomically: a reader sees a whole file or none."""

    filesystem: pafs.FileSystem
    path: str

    def __truediv__(self, name: str) -> Directory:
        return Directory(self.filesystem, f"{self.path}/{name}")

    def __str__(self) -> str:
        return self.path

    @property
    def is_local(self) -> bool:
        return isinstance(self.filesystem, pafs.LocalFileSystem)

    def sizes(self) -> dict[str, int]:
        """Bytes of each file directly inside, by name; 0 for a directory. Empty if this directory does not exist."""
        selector = pafs.FileSelector(self.path, allow_not_found=True)
        return {info.base_name: info.size or 0 for info in self.filesystem.get_file_info(selector)}

    def names(self) -> list[str]:
        """Names of the files and directories directly inside, sorted; empty if the directory does not exist."""
        return sorted(self.sizes())

    def has(self, name: str) -> bool:
        return self.filesystem.get_file_info(f"{self.path}/{name}").type != pafs.FileType.NotFound

    def read(self, name: str) -> bytes:
        with self.filesystem.open_input_stream(f"{self.path}/{name}", compression=None) as stream:
            return stream.read()

    def buffer(self, name: str) -> pa.Buffer:
        """The content of a file: mapped into memory where the disk is local, else read whole."""
        if self.is_local:
            with pa.memory_map(f"{self.path}/{name}") as file:
                return file.read_buffer()
        return pa.py_buffer(self.read(name))

    def write(self, name: str, content: bytes | pa.Buffer) -> None:
        """On local disk: a temporary file, synced, then renamed. On an object store: one upload, visible when whole."""
        if self.is_local:
            target = Path(self.path) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
            try:
                with temporary.open("wb") as stream:
                    stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
                os.replace(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)
        else:
            with self.filesystem.open_output_stream(f"{self.path}/{name}", compression=None) as stream:
                stream.write(content)

    def delete(self) -> None:
        if self.filesystem.get_file_info(self.path).type == pafs.FileType.Directory:
            self.filesystem.delete_dir(self.path)

    def delete_left_overs(self) -> None:
        """Removes what processes that were killed while writing have left, an hour ago or earlier."""
        if self.is_local:
            for path in Path(self.path).glob(".*.tmp"):
                if path.exists() and time.time() - path.stat().st_mtime > STALE_AFTER_S:
                    path.unlink(missing_ok=True)


@dataclass(frozen=True)
class ShardDirectory(Directory):
    """`part-00000.parquet`, `part-00001.parquet`, ... and `manifest.json`."""

    @staticmethod
    def shard_name(index: int) -> str:
        return f"part-{index:05d}.parquet"

    def write_shard(self, index: int, table: pa.Table, fingerprint: Mapping[str, Any], **notes: Any) -> dict[str, Any]:
        """Writes shard `index` and returns its entry in the manifest. `notes` become part of both.

        quarantined: a note that lists the samples put aside, as {sample_id, reason}; features keep a row for them.
        """
        notes["num_samples"] = table.num_rows
        if "label" in table.column_names:
            notes["content"] = content_digest(table)
        else:
            notes["num_samples"] -= len(notes.get("quarantined", ()))
        metadata = {
            **(table.schema.metadata or {}),
            FINGERPRINT_KEY: json.dumps(fingerprint, sort_keys=True).encode(),
            NOTES_KEY: json.dumps(notes, sort_keys=True).encode(),
        }
        content = _encode(table, metadata)
        self.write(self.shard_name(index), content)
        return self._entry(index, content, notes)

    def read_shard(self, index: int, columns: Sequence[str] | None = None, identity: str | None = None) -> pa.Table:
        """The shard's `columns`, as far as it has them; all if None.

        Raises InputError if the file is not the shard of this `identity`.
        """
        file = self._open(index)
        self._check_identity(index, file, identity)
        return file.read(columns=columns)

    def read_features(self, index: int, identity: str | None = None) -> tuple[pa.ChunkedArray, np.ndarray]:
        """Sample ids and (n, T) features in the stored type; read-only, and without a copy on a local disk.

        Raises InputError if the file is not the shard of this `identity`.
        """
        buffer = self.buffer(self.shard_name(index))
        file = self._parquet(index, buffer)
        self._check_identity(index, file, identity)
        features = plain_features(file, buffer)
        if features is None:
            features = features_array(file.read(columns=["features"]))
        return file.read(columns=["sample_id"]).column(0), features

    def shard_fingerprint(self, index: int) -> dict[str, Any]:
        """What the shard was made with. Raises InputError if the file is not one whole shard of this store."""
        metadata = self._metadata(index)
        if FINGERPRINT_KEY not in metadata:
            raise self._damaged(index, "it was not written by aft_ray")
        return json.loads(metadata[FINGERPRINT_KEY])

    def missing_shards(self, num_shards: int, fingerprint: Mapping[str, Any]) -> list[int]:
        """Indices of the shards still to be made.

        Raises InputError, one line per fault, naming the differing keys if what is there was made with another
        fingerprint, and the file if one is damaged.
        """
        sizes = self.sizes()
        manifest = self.manifest() if MANIFEST in sizes else None
        entries = {entry["file"]: entry for entry in manifest["shards"]} if manifest else {}
        if manifest:
            check_fingerprint(self, manifest["fingerprint"], fingerprint)

        def fault(index: int) -> str | None:
            name = self.shard_name(index)
            try:
                if name not in entries:
                    check_fingerprint(self, self.shard_fingerprint(index), fingerprint)
                elif entries[name]["num_bytes"] != sizes[name]:
                    raise self._damaged(index, f"{sizes[name]} bytes instead of {entries[name]['num_bytes']}")
            except InputError as error:
                return str(error)
            return None

        there = [index for index in range(num_shards) if self.shard_name(index) in sizes]
        faults = [line for line in prefetched(fault, there, threads=THREADS) if line]
        if faults:
            raise InputError(list(dict.fromkeys(faults)))
        return [index for index in range(num_shards) if self.shard_name(index) not in sizes]

    def write_manifest(
        self,
        num_shards: int,
        fingerprint: Mapping[str, Any],
        *,
        entries: Mapping[int, dict[str, Any]] | None = None,
        **facts: Any,
    ) -> dict[str, Any]:
        """Makes the directory valid: counts and checksums of all its shards, and what they were made with.

        entries: what `write_shard` returned, by shard, where it is known; the other shards are read again.
        `num_samples` counts what was written, `quarantined` names what was put aside: together, all that went in.
        """
        known = entries or {}
        unknown = [index for index in range(num_shards) if index not in known]
        read = dict(zip(unknown, prefetched(self._read_entry, unknown, threads=THREADS), strict=True))
        shards = [{**(known.get(index) or read[index])} for index in range(num_shards)]
        quarantined = [bad for shard in shards for bad in shard.pop("quarantined", ())]
        head = {
            "num_samples": sum(shard["num_samples"] for shard in shards),
            "quarantined": quarantined,
            "fingerprint": dict(fingerprint),
            **facts,
        }
        lines = ",\n  ".join(map(json.dumps, shards))  # millions of shards would be indented in minutes and gigabytes
        self.write(MANIFEST, f'{json.dumps(head, indent=1)[:-2]},\n "shards": [\n  {lines}\n ]\n}}\n'.encode())
        self.delete_left_overs()
        return {**head, "shards": shards}

    def manifest(self) -> dict[str, Any] | None:
        return json.loads(self.read(MANIFEST)) if self.has(MANIFEST) else None

    def faults(self) -> list[str]:
        """Re-reads every shard: one line for each that is missing, damaged, or not what the manifest says."""
        manifest = self.manifest()
        if manifest is None:
            return [f"{self} has no manifest: it is not complete. Run the command that writes it again."]
        there = set(self.names())

        def fault(shard: Mapping[str, Any]) -> str | None:
            if shard["file"] not in there:
                return f"{self}/{shard['file']} is missing."
            found = hashlib.sha256(self.buffer(shard["file"])).hexdigest()
            if found != shard["sha256"]:
                return f"{self}/{shard['file']} is damaged: its checksum is {found[:12]}, not {shard['sha256'][:12]}."
            return None

        found = [line for line in prefetched(fault, manifest["shards"], threads=THREADS) if line]
        expected = {shard["file"] for shard in manifest["shards"]} | {MANIFEST}
        strangers = sorted(name for name in there - expected if not name.startswith("."))
        return found + [f"{self}/{name} does not belong here." for name in strangers]

    def _entry(self, index: int, content: pa.Buffer, notes: Mapping[str, Any]) -> dict[str, Any]:
        checksum = hashlib.sha256(content).hexdigest()
        return {"file": self.shard_name(index), "num_bytes": content.size, "sha256": checksum, **notes}

    def _read_entry(self, index: int) -> dict[str, Any]:
        buffer = self.buffer(self.shard_name(index))
        file = self._parquet(index, buffer)
        return self._entry(index, buffer, json.loads((file.metadata.metadata or {})[NOTES_KEY]))

    def _metadata(self, index: int) -> Mapping[bytes, bytes]:
        return self._open(index).metadata.metadata or {}

    def _open(self, index: int) -> pq.ParquetFile:
        try:
            path = f"{self.path}/{self.shard_name(index)}"
            return pq.ParquetFile(pa.memory_map(path) if self.is_local else self.filesystem.open_input_file(path))
        except (pa.ArrowInvalid, OSError) as error:
            raise self._damaged(index, error) from error

    def _parquet(self, index: int, buffer: pa.Buffer) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(pa.BufferReader(buffer))
        except (pa.ArrowInvalid, OSError) as error:
            raise self._damaged(index, error) from error

    def _check_identity(self, index: int, file: pq.ParquetFile, identity: str | None) -> None:
        metadata = file.metadata.metadata or {}
        facts = [json.loads(metadata.get(key, b"{}")) for key in (FINGERPRINT_KEY, NOTES_KEY)]
        if identity is not None and _identity(*facts) != identity:
            raise self._damaged(index, "it is not the shard that the manifest lists")

    def _damaged(self, index: int, reason: object) -> InputError:
        return InputError(
            f"{self}/{self.shard_name(index)} is damaged or foreign: {reason}. Delete it and run again:"
            " only this shard is made anew."
        )


def check_fingerprint(where: Directory, on_disk: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raises InputError naming every key of `expected` that is another on disk."""
    differing = [
        f"{key} is {on_disk.get(key)!r} on disk, {expected[key]!r} in this run"
        for key in sorted(expected)
        if on_disk.get(key) != expected[key]
    ]
    if differing:
        raise InputError(f"{where}: {'; '.join(differing)}. Use another name, or replace it with --overwrite.")


def content_digest(table: pa.Table) -> str:
    """Hash of everything a teacher may see of a samples shard: ids and content, not the labels."""
    digest = hashlib.sha256()
    for name in table.column_names:
        if name != "label":
            for value in table.column(name).to_pylist():
                raw = value if isinstance(value, bytes) else str(value).encode()
                digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()


def shard_identity(manifest: Mapping[str, Any], index: int) -> str:
    """A hash of what a manifest says of a shard and the shard says of itself: one put in another's place differs."""
    return _identity(manifest["fingerprint"], manifest["shards"][index])


def _identity(fingerprint: Mapping[str, Any], notes: Mapping[str, Any]) -> str:
    return short_hash([fingerprint, notes.get("num_samples"), notes.get("content")])


def samples_fingerprint(manifest: Mapping[str, Any]) -> str:
    """The identity of a split's samples: their content in order, whatever wrote the files."""
    digests = "".join(shard["content"] for shard in manifest["shards"])
    return hashlib.sha256(digests.encode()).hexdigest()[:16]


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


def _encode(table: pa.Table, metadata: Mapping[bytes, bytes]) -> pa.Buffer:
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
