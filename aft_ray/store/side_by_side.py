"""The aligned store of a workspace: samples and the features of several teachers, read side by side.

`part-00017` of every teacher holds the same sample ids, in the same order, as `part-00017` of the samples, so joining k
teachers is reading k files and comparing one column of ids: no shuffle, no index, no memory that grows with the data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from aft_ray.recipe.errors import InputError
from aft_ray.store.contents import IMAGE_COLUMNS, contents, rows_by_picture
from aft_ray.store.manifest import MANIFEST
from aft_ray.store.parquet import numbers_of
from aft_ray.store.prefetch import prefetched
from aft_ray.store.schema import UNLABELED
from aft_ray.store.shards import ShardDirectory, check_fingerprint, samples_fingerprint, shard_identity
from aft_ray.store.workspace import Workspace


@dataclass(frozen=True)
class Store:
    """One split's samples and the features of some teachers, in the order given.

    modalities: what these teachers read, `image` or `text`, as far as whoever opened the store knows.
    """

    samples: ShardDirectory
    features: tuple[ShardDirectory, ...]
    modalities: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        manifest = self.samples.manifest()
        assert manifest is not None, "open_store checked it"
        return manifest

    @cached_property
    def feature_manifests(self) -> list[dict[str, Any]]:
        return [directory.manifest() or {} for directory in self.features]

    @property
    def names(self) -> tuple[str, ...]:
        """The directories of the features: of each teacher, and of its views."""
        return tuple(directory.path.split("/")[-2] for directory in self.features)

    @property
    def num_shards(self) -> int:
        return len(self.manifest["shards"])

    @cached_property
    def num_samples(self) -> int:
        """Samples with features of every teacher."""
        without = {bad["sample_id"] for manifest in self.feature_manifests for bad in manifest.get("quarantined", ())}
        return self.manifest["num_samples"] - len(without)

    @property
    def teacher_dims(self) -> list[int]:
        return [int(manifest["feature_dim"]) for manifest in self.feature_manifests]

    def checksums(self) -> dict[str, Any]:
        """Of all shards, the samples' and each teacher's: the same content has the same."""
        return {
            "samples": [shard["sha256"] for shard in self.manifest["shards"]],
            "features": [[shard["sha256"] for shard in manifest["shards"]] for manifest in self.feature_manifests],
        }

    def read_shard(
        self, index: int, columns: Sequence[str] | None = None, *, side_by_side: bool = True
    ) -> dict[str, Any]:
        """Columns of one shard: `sample_id` list of str; `label` (n,) int64, or (n, C) float32 with NaN for none;
        `image` (list of encoded bytes) and `text` (list of str) as far as `columns` names them, both if it is None; and
        `features` (n, T) float32, the teachers side by side.

        With `side_by_side=False`, `features` is a list with each teacher's (n, T_k) in its stored type, read-only; on a
        local disk it is a view of the file. Samples that a teacher quarantined are left out.
        Raises InputError if a shard differs from its manifest's entry, or a teacher's does not hold the same samples
        in the same order.
        """
        wanted = [name for name in ("image", "text") if columns is None or name in columns]
        identity = shard_identity(self.manifest, index)
        samples = self.samples.read_shard(index, self._stored_columns(wanted), identity)
        if fault := _sample_fault(samples, self.manifest):
            raise InputError(
                f"{self.samples}/{self.samples.shard_name(index)} is damaged: {fault}. Delete it and its manifest, and"
                " run 'aft-ray prepare' again."
            )
        ids = samples.column("sample_id")
        blocks = []
        for directory, manifest in zip(self.features, self.feature_manifests, strict=True):
            own_ids, block = directory.read_features(index, shard_identity(manifest, index))
            if not own_ids.equals(ids) or block.shape[1] != manifest["feature_dim"]:
                raise InputError(
                    f"{directory}/{directory.shard_name(index)} does not hold the samples of {self.samples} with"
                    f" {manifest['feature_dim']} features each. Delete it and run 'aft-ray extract' again."
                )
            directory.check_size(index, manifest)
            blocks.append(block)
        self.samples.check_size(index, self.manifest)
        there = ~np.any([np.isnan(block[:, 0]) for block in blocks], axis=0) if blocks else np.ones(len(ids), bool)
        if not there.all():
            samples, blocks = samples.filter(pa.array(there)), [block[there] for block in blocks]
        shard: dict[str, Any] = {"sample_id": samples.column("sample_id").to_pylist(), "label": _labels(samples)}
        if "image" in wanted and {"image", "image_uri"} & set(samples.column_names):
            shard["image"] = _pictures(samples)
        if "text" in wanted and "text" in samples.column_names:
            shard["text"] = samples.column("text").to_pylist()
        shard["features"] = _side_by_side(blocks, samples.num_rows) if side_by_side else blocks
        return shard

    def _stored_columns(self, wanted: Sequence[str]) -> list[str]:
        content = {"image": IMAGE_COLUMNS, "text": ("text",)}
        return ["sample_id", "label", *(column for name in wanted for column in content[name])]

    def map_shards(
        self,
        function: Callable[[dict[str, Any]], Any],
        columns: Sequence[str] | None = None,
        *,
        side_by_side: bool = True,
    ) -> list[Any]:
        """`function` of every shard, in order, a few shards at a time."""

        def read(index: int) -> Any:
            return function(self.read_shard(index, columns, side_by_side=side_by_side))

        return list(prefetched(read, range(self.num_shards), threads=2))


def _pictures(samples: pa.Table) -> list[bytes]:
    """The picture of each row; rows that share a picture share one object, which is read once."""
    found, rows_of = [b""] * samples.num_rows, rows_by_picture(samples)
    for rows, content in zip(rows_of, contents(samples, [int(rows[0]) for rows in rows_of]), strict=True):
        picture = content()
        for row in rows:
            found[row] = picture
    return found


def _sample_fault(samples: pa.Table, manifest: Mapping[str, Any]) -> str | None:
    """Why a table of samples is not one of the manifest's, None if it is: columns, their types, and labels out of range."""
    kinds = {field.name: field.type for field in samples.schema}
    if kinds.get("sample_id") != pa.string():
        return "it has no column 'sample_id' of texts"
    kind, num_classes = kinds.get("label"), len(manifest["classes"])
    if kind == pa.int64():
        column = samples.column("label").combine_chunks()
        labels = numbers_of(column) if not column.null_count else None
        wrong = labels is None or ((labels < UNLABELED) | (labels >= num_classes)).any()
        return f"a label is no number from {UNLABELED} to {num_classes - 1}" if wrong else None
    if kind is None or not pa.types.is_fixed_size_list(kind) or kind.list_size != num_classes:
        return f"it has no column 'label' of classes, or of {num_classes} numbers"
    return None


def _side_by_side(blocks: Sequence[np.ndarray], num_rows: int) -> np.ndarray:
    """(n, T) float32 of (n, T_k) blocks."""
    import torch  # turns float16 into float32 ten times as fast as NumPy; reading samples alone does not need it

    bounds = np.cumsum([0, *(block.shape[1] for block in blocks)])
    features = torch.empty(num_rows, int(bounds[-1]))
    for block, start, stop in zip(blocks, bounds, bounds[1:], strict=False):
        features[:, start:stop] = torch.from_numpy(np.asarray(_Writable(block)))
    return features.numpy()


class _Writable:
    """A view of an array whose memory is read-only, for torch, which warns of such; nothing may write to it."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array  # keeps the memory
        self.__array_interface__ = {**array.__array_interface__, "data": (array.__array_interface__["data"][0], False)}


def _labels(samples: pa.Table) -> np.ndarray:
    column = samples.column("label").combine_chunks()
    if pa.types.is_integer(column.type):
        return numbers_of(column)
    width = column.type.list_size
    return np.array([[np.nan] * width if label is None else label for label in column.to_pylist()], np.float32)


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
        try:
            features = directory.manifest()
            if features is None:
                raise InputError(
                    f"No features of teacher '{teacher}' for split '{split}' in {place}. Run 'aft-ray extract'."
                )
            required = {"samples": samples_fingerprint(manifest), **(expected or {}).get(teacher, {})}
            check_fingerprint(directory, features["fingerprint"], required)
            _check_alignment(directory, features, manifest)
        except InputError as error:
            faults += error.faults
        directories.append(directory)
    if faults:
        raise InputError(faults)
    store = Store(samples, tuple(directories))
    check_not_empty(store.num_samples, samples, [manifest, *store.feature_manifests])
    return store


def check_not_empty(num_samples: int, samples: ShardDirectory, manifests: Sequence[Mapping[str, Any]]) -> None:
    """Raises InputError if no sample of a split is left, with the first quarantined sample of these manifests."""
    if num_samples == 0:
        bad = next((bad for manifest in manifests for bad in manifest.get("quarantined", ())), None)
        first = f" ({bad['sample_id']}: {bad['reason']})" if bad else ""
        raise InputError(
            f"{samples} is empty: every sample is quarantined{first}. Mend the raw data and run 'aft-ray prepare --overwrite'."
        )


def _check_alignment(directory: ShardDirectory, features: Mapping[str, Any], samples: Mapping[str, Any]) -> None:
    """Raises InputError if a teacher's manifest lists other shards than the samples', before any is read."""
    num_rows = features["num_samples"] + len(features["quarantined"])
    if (len(features["shards"]), num_rows) != (len(samples["shards"]), samples["num_samples"]):
        raise InputError(
            f"{directory} holds {num_rows} samples in {len(features['shards'])} shards, of {samples['num_samples']} in"
            f" {len(samples['shards'])}. Delete its {MANIFEST} and run 'aft-ray extract' again."
        )
