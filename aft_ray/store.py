"""The aligned store: Parquet shards and the manifest that makes a directory of them complete.

`part-00017` of every teacher holds the same sample ids, in the same order, as `part-00017` of the samples, so joining
k teachers is reading k files side by side. A shard is written once, whole; the manifest is written last. Every shard
carries the fingerprint of what made it, so that a restart never mixes shards of two settings.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from aft_ray.config import InputError, checked_name
from aft_ray.schema import SPLITS, features_schema

MANIFEST = "manifest.json"
FINGERPRINT_KEY = b"aft_ray.fingerprint"


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

    def names(self) -> list[str]:
        """Names of the files and directories directly inside, sorted; empty if the directory does not exist."""
        selector = pafs.FileSelector(self.path, allow_not_found=True)
        return sorted(info.base_name for info in self.filesystem.get_file_info(selector))

    def has(self, name: str) -> bool:
        return self.filesystem.get_file_info(f"{self.path}/{name}").type != pafs.FileType.NotFound

    def read(self, name: str) -> bytes:
        with self.filesystem.open_input_stream(f"{self.path}/{name}", compression=None) as stream:
            return stream.read()

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


@dataclass(frozen=True)
class ShardDirectory(Directory):
    """`part-00000.parquet`, `part-00001.parquet`, ... and `manifest.json`."""

    @staticmethod
    def shard_name(index: int) -> str:
        return f"part-{index:05d}.parquet"

    def write_shard(self, index: int, table: pa.Table, fingerprint: Mapping[str, Any]) -> None:
        metadata = {**(table.schema.metadata or {}), FINGERPRINT_KEY: json.dumps(fingerprint, sort_keys=True)}
        sink = io.BytesIO()
        pq.write_table(table.replace_schema_metadata(metadata), sink, compression="zstd", compression_level=1)
        self.write(self.shard_name(index), sink.getbuffer())

    def read_shard(self, index: int) -> pa.Table:
        with self.filesystem.open_input_file(f"{self.path}/{self.shard_name(index)}") as file:
            return pq.read_table(file)

    def shard_fingerprint(self, index: int) -> dict[str, Any]:
        """What the shard was made with. Raises InputError if the file is not one whole shard of this store."""
        try:
            with self.filesystem.open_input_file(f"{self.path}/{self.shard_name(index)}") as file:
                metadata = pq.read_schema(file).metadata or {}
            return json.loads(metadata[FINGERPRINT_KEY])
        except (pa.ArrowInvalid, KeyError, OSError) as error:
            raise InputError(f"{self}/{self.shard_name(index)} is damaged or foreign: {error}. Delete it.") from error

    def missing_shards(self, num_shards: int, fingerprint: Mapping[str, Any]) -> list[int]:
        """Indices of the shards still to be made.

        Raises InputError naming the differing keys if a shard there was made with another fingerprint.
        """
        there = set(self.names())
        missing = []
        for index in range(num_shards):
            if self.shard_name(index) in there:
                _check_fingerprint(self, self.shard_fingerprint(index), fingerprint)
            else:
                missing.append(index)
        return missing

    def write_manifest(self, num_shards: int, fingerprint: Mapping[str, Any], **facts: Any) -> dict[str, Any]:
        """Makes the directory valid: counts and checksums of all its shards, and what they were made with."""
        with ThreadPoolExecutor(8) as threads:
            shards = list(threads.map(self._shard_entry, range(num_shards)))
        manifest = {
            "num_samples": sum(shard["num_samples"] for shard in shards),
            "fingerprint": dict(fingerprint),
            **facts,
            "shards": shards,
        }
        self.write(MANIFEST, json.dumps(manifest, indent=1).encode())
        return manifest

    def _shard_entry(self, index: int) -> dict[str, Any]:
        name = self.shard_name(index)
        content = self.read(name)
        num_samples = pq.read_metadata(io.BytesIO(content)).num_rows
        return {"file": name, "num_samples": num_samples, "sha256": hashlib.sha256(content).hexdigest()}

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
            found = hashlib.sha256(self.read(shard["file"])).hexdigest()
            if found != shard["sha256"]:
                return f"{self}/{shard['file']} is damaged: its checksum is {found[:12]}, not {shard['sha256'][:12]}."
            return None

        with ThreadPoolExecutor(8) as threads:
            found = [line for line in threads.map(fault, manifest["shards"]) if line]
        expected = {shard["file"] for shard in manifest["shards"]} | {MANIFEST}
        strangers = sorted(name for name in there - expected if not name.startswith("."))
        return found + [f"{self}/{name} does not belong here." for name in strangers]


@dataclass(frozen=True)
class Workspace(Directory):
    """Everything about one data set. `Workspace.at` takes a path or a URL (`s3://bucket/key`, `gs://...`)."""

    @classmethod
    def at(cls, location: str | Path) -> Workspace:
        text = str(location)
        if "://" in text:
            filesystem, path = pafs.FileSystem.from_uri(text)
            return cls(filesystem, path.rstrip("/"))
        return cls(pafs.LocalFileSystem(), str(Path(text).expanduser().resolve()))

    def samples(self, split: str) -> ShardDirectory:
        return ShardDirectory(self.filesystem, f"{self.path}/samples/{split}")

    def features(self, teacher: str, split: str) -> ShardDirectory:
        return ShardDirectory(self.filesystem, f"{self.path}/features/{checked_name(teacher)}/{split}")

    def run(self, name: str) -> Directory:
        return Directory(self.filesystem, f"{self.path}/runs/{checked_name(name)}")

    def search(self, name: str) -> Directory:
        return Directory(self.filesystem, f"{self.path}/searches/{checked_name(name)}")

    def stores(self) -> Iterator[ShardDirectory]:
        """Every shard directory there is."""
        for split in SPLITS:
            if split in (self / "samples").names():
                yield self.samples(split)
        for teacher in (self / "features").names():
            for split in (self / "features" / teacher).names():
                yield self.features(teacher, split)


def _check_fingerprint(where: Directory, on_disk: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    differing = [
        f"{key} is {on_disk.get(key)!r} on disk, {expected[key]!r} in this run"
        for key in sorted(expected)
        if on_disk.get(key) != expected[key]
    ]
    if differing:
        raise InputError(
            f"{where}: {'; '.join(differing)}. Give the teacher another name or delete the directory, then run again."
        )


def features_table(sample_ids: pa.Array, features: np.ndarray) -> pa.Table:
    """A features shard from (n,) ids and (n, T) float features, stored as float16.

    Raises InputError where a value is not finite or too large for float16.
    """
    with np.errstate(over="ignore"):  # found and named below
        halves = features.astype(np.float16)
    if not np.isfinite(halves).all():
        row, column = np.argwhere(~np.isfinite(halves))[0]
        raise InputError(
            f"Feature {column} of sample {sample_ids[int(row)]} is {features[row, column]:g}, which float16 cannot hold."
        )
    values = pa.FixedSizeListArray.from_arrays(pa.array(halves.reshape(-1)), halves.shape[1])
    return pa.table([sample_ids, values], schema=features_schema(halves.shape[1]))


def features_array(table: pa.Table) -> np.ndarray:
    """(n, T) float16 of a features shard, without a copy."""
    column = table.column("features").combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=True).reshape(len(column), column.type.list_size)


@dataclass(frozen=True)
class Store:
    """One split's samples and the features of some teachers, in the order given."""

    samples: ShardDirectory
    features: tuple[ShardDirectory, ...]

    @cached_property
    def manifest(self) -> dict[str, Any]:
        manifest = self.samples.manifest()
        assert manifest is not None, "open_store checked it"
        return manifest

    @property
    def num_shards(self) -> int:
        return len(self.manifest["shards"])

    @property
    def num_samples(self) -> int:
        return self.manifest["num_samples"]

    @cached_property
    def teacher_dims(self) -> list[int]:
        return [int((directory.manifest() or {})["feature_dim"]) for directory in self.features]

    def read_shard(self, index: int, columns: Sequence[str] | None = None) -> dict[str, Any]:
        """Columns of one shard: `sample_id` list of str, `label` (n,) int64, `image` or `text` list, and `features`
        (n, T) float32, the teachers side by side.

        Raises InputError if a teacher's shard does not hold the same samples in the same order.
        """
        samples = self.samples.read_shard(index)
        shard: dict[str, Any] = {"sample_id": samples.column("sample_id").to_pylist()}
        shard["label"] = samples.column("label").to_numpy()
        for name in samples.column_names[2:]:
            if columns is None or name in columns:
                shard[name] = samples.column(name).to_pylist()
        blocks = []
        for directory in self.features:
            table = directory.read_shard(index)
            if not table.column("sample_id").equals(samples.column("sample_id")):
                raise InputError(
                    f"{directory}/{directory.shard_name(index)} does not hold the samples of {self.samples}."
                    " Delete it and run 'aft-ray extract' again."
                )
            blocks.append(features_array(table))
        empty = np.zeros((len(shard["sample_id"]), 0), np.float32)
        shard["features"] = np.concatenate([empty, *blocks], axis=1, dtype=np.float32)
        return shard

    def map_shards(self, function: Callable[[dict[str, Any]], Any], columns: Sequence[str] | None = None) -> list[Any]:
        """`function` of every shard, in order, a few shards at a time."""
        with ThreadPoolExecutor(2) as threads:
            return list(threads.map(lambda index: function(self.read_shard(index, columns)), range(self.num_shards)))


def open_store(
    workspace: str | Path | Workspace,
    split: str,
    teachers: Sequence[str] = (),
    expected: Mapping[str, Mapping[str, Any]] | None = None,
) -> Store:
    """The samples of `split` and the features of `teachers` (names of directories under `features/`).

    expected: per teacher, the fingerprint's keys that must have these values.
    Raises InputError, with one line per fault, if something is missing, incomplete or made with another setting.
    """
    place = workspace if isinstance(workspace, Workspace) else Workspace.at(workspace)
    samples = place.samples(split)
    manifest = samples.manifest()
    if manifest is None:
        raise InputError(f"No samples of split '{split}' in {place}. Run 'aft-ray prepare' first.")
    faults = []
    directories = []
    for teacher in teachers:
        directory = place.features(teacher, split)
        features = directory.manifest()
        if features is None:
            faults.append(f"No features of teacher '{teacher}' for split '{split}' in {place}. Run 'aft-ray extract'.")
            continue
        try:
            required = {"samples": samples_fingerprint(manifest), **(expected or {}).get(teacher, {})}
            _check_fingerprint(directory, features["fingerprint"], required)
        except InputError as error:
            faults += error.faults
        directories.append(directory)
    if faults:
        raise InputError(faults)
    return Store(samples, tuple(directories))


def samples_fingerprint(manifest: Mapping[str, Any]) -> str:
    """The identity of a split's samples: their shards' checksums, in order."""
    checksums = "".join(shard["sha256"] for shard in manifest["shards"])
    return hashlib.sha256(checksums.encode()).hexdigest()[:16]
