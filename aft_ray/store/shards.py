"""Shards: Parquet files of a fixed range of samples each, and the manifest that makes a directory of them complete.

A file is written once, whole: a reader sees all of it or nothing. Every shard carries the fingerprint of what made it, so
that a restart never mixes shards of two settings; the manifest is written last. All are plain Arrow types that pyarrow,
pandas, polars and DuckDB read. Features are laid out so that reading them is a view of the file's bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from aft_ray.recipe.config import fingerprint as short_hash
from aft_ray.recipe.errors import InputError, ObjectStoreError
from aft_ray.recipe.json_files import damaged
from aft_ray.recipe.sections import SOURCE_KEYS
from aft_ray.store.files import Directory
from aft_ray.store.manifest import MANIFEST, WAY_OUT, read_manifest, write_manifest
from aft_ray.store.manifest_parts import part_names
from aft_ray.store.parquet import (
    FINGERPRINT_KEY,
    NOTES_KEY,
    content_digest,
    encode_table,
    features_array,
    is_whole,
    open_parquet,
    plain_features,
)
from aft_ray.store.prefetch import prefetched

THREADS = 16
LATER = ("recipe",)
"""Keys of fingerprints that older versions did not write."""


@dataclass(frozen=True)
class ShardDirectory(Directory):
    """`part-00000.parquet`, `part-00001.parquet`, ... and `manifest.json`."""

    facts: tuple[str, ...] = ()
    """Keys that the manifest of this kind of shards must have."""

    @staticmethod
    def shard_name(index: int) -> str:
        return f"part-{index:05d}.parquet"

    def write_shard(self, index: int, table: pa.Table, fingerprint: Mapping[str, Any], **notes: Any) -> dict[str, Any]:
        """Writes shard `index` and returns its entry in the manifest. `notes` become part of both.

        quarantined: a note that lists the quarantined samples as {sample_id, reason}; features keep a row for them.
        """
        notes["num_samples"] = table.num_rows
        if "label" in table.column_names:
            notes["content"] = content_digest(table)
        else:
            notes["num_samples"] -= len(notes.get("quarantined", ()))
        stored = json.dumps(notes, sort_keys=True)
        metadata = {
            **(table.schema.metadata or {}),
            FINGERPRINT_KEY: json.dumps(fingerprint, sort_keys=True).encode(),
            NOTES_KEY: stored.encode(),
        }
        content = encode_table(table, metadata)
        self.write(self.shard_name(index), content)
        return self._entry(index, content, json.loads(stored))  # in the order that a reader of the shard finds

    def read_shard(self, index: int, columns: Sequence[str] | None = None, identity: str | None = None) -> pa.Table:
        """The shard's `columns`, as far as it has them; all if None.

        Raises InputError if the file is not the shard of this `identity`, or damaged.
        """
        with self._opened(index, identity=identity) as (file, _):
            return file.read(columns=columns)

    def read_features(self, index: int, identity: str | None = None) -> tuple[pa.ChunkedArray, np.ndarray]:
        """Sample ids and (n, T) features in the stored type; read-only, and without a copy on a local disk.

        Raises InputError if the file is not the shard of this `identity`, or damaged.
        """
        with self._opened(index, whole=True, identity=identity) as (file, buffer):
            features = plain_features(file, buffer)
            if features is None:
                features = features_array(file.read(columns=["features"]))
            return file.read(columns=["sample_id"]).column("sample_id"), features

    def shard_fingerprint(self, index: int) -> dict[str, Any]:
        """What the shard was made with. Raises InputError if the file is not one whole shard of this store."""
        with self._opened(index) as (file, _):
            return _records(file)[0]

    def missing_shards(self, indices: Sequence[int], fingerprint: Mapping[str, Any]) -> list[int]:
        """The shards of these `indices` that are still to be made.

        Raises InputError, one line per fault, naming the differing keys if the shards there have another
        fingerprint, and the file if one is damaged.
        """
        sizes = self.sizes()
        manifest = self.manifest() if MANIFEST in sizes else None
        entries = {entry["file"]: entry for entry in manifest["shards"]} if manifest else {}
        if manifest:
            check_fingerprint(self, as_now(manifest["fingerprint"], fingerprint), fingerprint)

        def fault(index: int) -> str | None:
            name = self.shard_name(index)
            try:
                if name not in entries:
                    check_fingerprint(self, self.shard_fingerprint(index), fingerprint)
                else:
                    self._check_size(index, sizes[name], entries[name])
            except InputError as error:
                return str(error)
            return None

        there = [index for index in indices if self.shard_name(index) in sizes]
        faults = [line for line in prefetched(fault, there, threads=THREADS) if line]
        if faults:
            raise InputError(list(dict.fromkeys(faults)))
        return [index for index in indices if self.shard_name(index) not in sizes]

    def check_size(self, index: int, manifest: Mapping[str, Any]) -> None:
        """Raises InputError if the shard's file has another size than its manifest says.

        A shard that another program wrote again can be read, and nothing proves its values; its size differs.
        """
        self._check_size(index, self.size(self.shard_name(index)), manifest["shards"][index])

    def _check_size(self, index: int, num_bytes: int, entry: Mapping[str, Any]) -> None:
        if num_bytes != entry["num_bytes"]:
            raise self._damaged(index, f"{num_bytes} bytes instead of {entry['num_bytes']}")

    def entries(self, num_shards: int, known: Mapping[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
        """What `write_shard` returned for each shard: as `known`, else read again from the shard."""
        unknown = [index for index in range(num_shards) if index not in known]
        return {**known, **dict(zip(unknown, prefetched(self._read_entry, unknown, threads=THREADS), strict=True))}

    def write_manifest(
        self,
        num_shards: int,
        fingerprint: Mapping[str, Any],
        *,
        entries: Mapping[int, dict[str, Any]] | None = None,
        **facts: Any,
    ) -> dict[str, Any]:
        """Makes the directory valid: counts and checksums of all its shards, and their fingerprint.

        entries: the known results of `write_shard`, by shard; the other shards are read again.
        `num_samples` counts the written samples, `quarantined` names the others: together, all that went in.
        """
        found = self.entries(num_shards, entries or {})
        shards = [{**found[index]} for index in range(num_shards)]
        quarantined = [sample for shard in shards for sample in shard.pop("quarantined", ())]
        head = {
            "num_samples": sum(shard["num_samples"] for shard in shards),
            "quarantined": quarantined,
            "fingerprint": dict(fingerprint),
            **facts,
        }
        write_manifest(self, head, shards)
        self.delete_left_overs()
        return {**head, "shards": shards}

    def manifest(self) -> dict[str, Any] | None:
        """The manifest, None if there is none. Raises InputError, one line per fault, if it is damaged."""
        return read_manifest(self, self.shard_name, self.facts)

    def own_manifest(self) -> dict[str, Any] | None:
        """The manifest. Raises InputError if its fingerprint is not the first shard's: it is another directory's."""
        manifest = self.manifest()
        if manifest and self.has(self.shard_name(0)) and self.shard_fingerprint(0) != manifest["fingerprint"]:
            raise damaged(
                f"{self}/{MANIFEST}", ["it is of another directory: its shards have another fingerprint"], WAY_OUT
            )
        return manifest

    def faults(self) -> list[str]:
        """Re-reads every shard: one line for each that is missing, damaged, or differs from the manifest."""
        try:
            manifest = self.manifest()
        except InputError as error:
            return error.faults
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

        try:
            shards = [*manifest["shards"]]
        except InputError as error:
            return error.faults
        found = [line for line in prefetched(fault, shards, threads=THREADS) if line]
        expected = {shard["file"] for shard in shards} | {MANIFEST, *part_names(manifest)}
        strangers = sorted(name for name in there - expected if not name.startswith("."))
        return found + [f"{self}/{name} does not belong here." for name in strangers]

    def _entry(self, index: int, content: pa.Buffer, notes: Mapping[str, Any]) -> dict[str, Any]:
        checksum = hashlib.sha256(content).hexdigest()
        return {"file": self.shard_name(index), "num_bytes": content.size, "sha256": checksum, **notes}

    def _read_entry(self, index: int) -> dict[str, Any]:
        with self._opened(index, whole=True) as (file, buffer):
            return self._entry(index, buffer, _records(file)[1])

    @contextmanager
    def _opened(
        self, index: int, whole: bool = False, identity: str | None = None
    ) -> Iterator[tuple[pq.ParquetFile, pa.Buffer | None]]:
        """A shard for reading, and its bytes where they are at hand: on a local disk, or asked for with `whole`.

        The one place that turns pyarrow's errors about a damaged file into an InputError.
        """
        name = self.shard_name(index)
        try:
            buffer = self.buffer(name) if whole or self.is_local else None
            source = (
                self.filesystem.open_input_file(f"{self.path}/{name}") if buffer is None else pa.BufferReader(buffer)
            )
            file = open_parquet(source)
            if identity is not None and _identity(*_records(file)) != identity:
                raise ValueError("it is not the shard that the manifest lists")
            yield file, buffer
        except (InputError, ObjectStoreError):
            raise
        except FileNotFoundError as error:
            raise InputError(f"{self}/{name} is missing. Run the command that writes it again.") from error
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            if isinstance(error, OSError):
                if error.errno:
                    raise
                self._check_is_reached(name, error)
            raise self._damaged(index, " ".join(str(error).split()).rstrip(".")) from error

    def _check_is_reached(self, name: str, error: OSError) -> None:
        """Raises if the place failed, not the content: pyarrow's error of both is a bare OSError."""
        content = self.read(name)
        if not self.is_local and is_whole(content):
            raise ObjectStoreError(f"{self}/{name}: {' '.join(str(error).split())}") from error

    def _damaged(self, index: int, reason: object) -> InputError:
        return InputError(
            f"{self}/{self.shard_name(index)} is damaged or foreign: {reason}. Delete it and run again:"
            " only this shard is made anew."
        )


def _records(file: pq.ParquetFile) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fingerprint and the notes of a shard. Raises ValueError if `write_shard` did not write it."""
    metadata = file.metadata.metadata or {}
    if not {FINGERPRINT_KEY, NOTES_KEY} <= metadata.keys():
        raise ValueError("it was not written by aft_ray")
    fingerprint, notes = json.loads(metadata[FINGERPRINT_KEY]), json.loads(metadata[NOTES_KEY])
    if not (isinstance(fingerprint, dict) and isinstance(notes, dict)):
        raise ValueError("its metadata were not written by aft_ray")
    return fingerprint, notes


def check_fingerprint(where: Directory, on_disk: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raises InputError naming every key of `expected` that is another on disk."""
    differing = [
        f"{key} is {on_disk.get(key)!r} on disk, {expected[key]!r} in this run"
        for key in sorted(expected)
        if on_disk.get(key) != expected[key]
    ]
    if differing:
        raise InputError(f"{where}: {'; '.join(differing)}. Use another name, or replace it with --overwrite.")


def without_place(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """Once `dataset` named the place of the raw data too, `csv:data/all.csv`; raw data that was moved is the same."""
    dataset = str(fingerprint.get("dataset", ""))
    kind = next((kind for kind in SOURCE_KEYS if dataset.startswith(f"{kind}:")), dataset)
    return {**fingerprint, "dataset": kind} if kind != dataset else dict(fingerprint)


def as_now(on_disk: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest's fingerprint as it would be written today; a key that came later is as expected."""
    return {**{key: expected[key] for key in LATER if key in expected}, **without_place(on_disk)}


def shard_identity(manifest: Mapping[str, Any], index: int) -> str:
    """A hash of a shard's facts, the same from its manifest and from the shard itself: a shard in another's place differs."""
    return _identity(manifest["fingerprint"], manifest["shards"][index])


def _identity(fingerprint: Mapping[str, Any], notes: Mapping[str, Any]) -> str:
    return short_hash([fingerprint, notes.get("num_samples"), notes.get("content")])


def samples_fingerprint(manifest: Mapping[str, Any]) -> str:
    """The identity of a split's samples: their content in order, whatever wrote the files."""
    digest = hashlib.sha256()
    for shard in manifest["shards"]:
        digest.update(shard["content"].encode())
    return digest.hexdigest()[:16]
