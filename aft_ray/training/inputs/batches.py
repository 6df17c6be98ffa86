"""Training input: a split whose rows can be had in any order, held in memory here, read from its shards in `streaming`.

In memory, samples are decoded once, at the student's size, as uint8: 50,000 images of 224 pixels are 7.5 GB, of 28 pixels
0.1 GB. A batch is then one indexing operation per array, made by a thread while the step before it runs.
"""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from aft_ray.recipe.config import fingerprint
from aft_ray.recipe.errors import InputError
from aft_ray.store.prefetch import prefetched
from aft_ray.store.quarantine import UNREADABLE, check_quarantined, quarantined_sample
from aft_ray.store.side_by_side import Store
from aft_ray.training.inputs.batch import Batch
from aft_ray.training.inputs.machine_cache import ArrayCache
from aft_ray.training.inputs.order import Shuffle, kept_labels, shuffled

logger = logging.getLogger(__name__)


class InputTransform(Protocol):
    """Turns a stored sample into a student's input. column: the one it reads, `image` or `text`."""

    @property
    def column(self) -> str: ...

    def __call__(self, content: Any, /) -> np.ndarray:
        """An array of one fixed shape and type."""


@dataclass(frozen=True, kw_only=True)
class Samples(ABC):
    """One split.

    sample_ids: N strings. labels: (N,) int64, or (N, C) float32 unless `task` is classification. classes: names of the C
    outputs. modalities: what each teacher reads, `image` or `text`; students with two towers need it. input_teachers: whose
    features are the student's input, where it takes no image and no text.
    """

    sample_ids: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    task: str = "classification"
    modalities: Mapping[str, str] = field(default_factory=dict)
    input_teachers: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    @abstractmethod
    def feature_dims(self) -> dict[str, int]:
        """Width of the features of every teacher there is."""

    @property
    def shuffle(self) -> Shuffle:
        """An order of an epoch that the rows can be read in."""
        return shuffled

    @property
    def reader_threads(self) -> int:
        """How many threads it takes to have rows in time."""
        return 1

    def share(self, rank: int, world_size: int) -> np.ndarray:
        """Indices of a worker's share: over all workers every sample exactly once."""
        return np.arange(rank, len(self), world_size)

    @abstractmethod
    def features_of(self, indices: np.ndarray, teachers: Sequence[str]) -> np.ndarray:
        """(n, T) features of `teachers` side by side, in the widest of their stored types."""

    @abstractmethod
    def inputs_of(self, indices: np.ndarray) -> tuple[np.ndarray, ...]:
        """The student's input per modality; empty for a student that reads teachers' features."""

    def rows(self, indices: np.ndarray, teachers: Sequence[str]) -> Batch:
        """The batch of rows `indices`, on the CPU, with the features of `teachers`."""
        inputs = self.inputs_of(indices) or (self.features_of(indices, self.input_teachers).astype(np.float32),)
        tensors = tuple(map(torch.from_numpy, inputs))
        return Batch(
            inputs=tensors if len(tensors) > 1 else tensors[0],
            labels=torch.from_numpy(self.labels[indices]),
            teacher_features=torch.from_numpy(self.features_of(indices, teachers).astype(np.float32, copy=False)),
        )

    def batch(self, indices: np.ndarray, teachers: Sequence[str], device: torch.device) -> Batch:
        """The same on `device`."""
        return self.rows(indices, teachers).to(device)

    def keep_labels(self: S, per_class: int | None, seed: int) -> S:
        """The same samples; a random `per_class` of each class keep their label, all if it is None."""
        return self if per_class is None else replace(self, labels=kept_labels(self.labels, per_class, seed))


S = TypeVar("S", bound=Samples)


@dataclass(frozen=True, kw_only=True)
class Split(Samples):
    """One split in memory, or in files mapped into it.

    inputs: (N, ...) of the student's modality, a tuple of two for two, of none where it takes the teachers' features.
    features: teacher -> (N, T_k) in the stored type.
    """

    inputs: np.ndarray | tuple[np.ndarray, ...]
    features: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def feature_dims(self) -> dict[str, int]:
        return {name: features.shape[1] for name, features in self.features.items()}

    def joined(self, other: Split) -> Split:
        """The samples of both, these first."""

        def both(left: np.ndarray, right: np.ndarray) -> np.ndarray:
            return np.concatenate([left, right])

        pairs = zip(as_tuple(self.inputs), as_tuple(other.inputs), strict=True)
        inputs = tuple(both(left, right) for left, right in pairs)
        return replace(
            self,
            sample_ids=both(self.sample_ids, other.sample_ids),
            labels=both(self.labels, other.labels),
            inputs=inputs if isinstance(self.inputs, tuple) else inputs[0],
            features={name: both(features, other.features[name]) for name, features in self.features.items()},
        )

    def features_of(self, indices: np.ndarray, teachers: Sequence[str]) -> np.ndarray:
        blocks = [self.features[teacher][indices] for teacher in teachers]
        return np.concatenate([np.zeros((len(indices), 0), np.float16), *blocks], axis=1)

    def inputs_of(self, indices: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(array[indices] for array in as_tuple(self.inputs))


def as_tuple(inputs: np.ndarray | tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """One array per modality."""
    return inputs if isinstance(inputs, tuple) else (inputs,)


def evaluation_batches(split: Samples, batch_size: int, rank: int, world_size: int) -> Iterator[np.ndarray]:
    """Indices of this worker's share of a split: over all workers every sample exactly once."""
    own = split.share(rank, world_size)
    return (own[start : start + batch_size] for start in range(0, len(own), batch_size))


def load_split(
    store: Store,
    teachers: Sequence[str],
    transforms: Sequence[InputTransform],
    *,
    max_bad_samples: int = 0,
    cache: ArrayCache | None = None,
) -> Split:
    """Reads every shard of a split, decodes its samples for the student and takes the features of `teachers`.

    cache: where other processes of this machine find the result, or have left it.
    Raises InputError, one line each, if more than `max_bad_samples` cannot be decoded; fewer are quarantined.
    """

    def read() -> dict[str, np.ndarray]:
        return _read_arrays(store, transforms, max_bad_samples)

    made_of = {
        **store.checksums(),
        "transforms": [repr(transform) for transform in transforms],
        "max_bad_samples": max_bad_samples,
    }
    arrays = cache.get(fingerprint(made_of), read) if cache else read()
    inputs = tuple(arrays[f"inputs{number}"] for number in range(len(transforms)))
    return Split(
        **split_facts(store, arrays["sample_ids"], arrays["labels"]),
        input_teachers=() if transforms else tuple(teachers),
        inputs=inputs[0] if len(inputs) == 1 else inputs,
        features={name: arrays[f"features{number}"] for number, name in enumerate(teachers)},
    )


def split_facts(store: Store, sample_ids: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """The fields of `Samples`. Raises InputError if labels and the manifest's classes do not agree."""
    classes, task = tuple(store.manifest["classes"]), store.manifest.get("task", "classification")
    found = labels.max(initial=-1) + 1 if task == "classification" else labels.shape[1]
    if found > len(classes) or (task != "classification" and found != len(classes)):
        raise InputError(
            f"{store.samples}: the labels are of {found} classes, its manifest names {len(classes)}."
            " Run 'aft-ray prepare --overwrite'."
        )
    facts = {"sample_ids": sample_ids, "labels": labels, "classes": classes, "task": task}
    return facts | {"modalities": store.modalities}


def _read_arrays(store: Store, transforms: Sequence[InputTransform], max_bad_samples: int) -> dict[str, np.ndarray]:
    """The arrays of a split by name, whole; shards are decoded by as many threads as there are cores."""
    columns = [transform.column for transform in transforms]

    def read(index: int) -> tuple[dict[str, np.ndarray], list[dict[str, str]]]:
        shard = store.read_shard(index, columns, side_by_side=False)
        decoded, good, quarantined = decode(shard, transforms, range(len(shard["sample_id"])))
        arrays = {"sample_ids": np.array(shard["sample_id"], str)[good], "labels": shard["label"][good]}
        arrays |= {f"inputs{number}": rows for number, rows in enumerate(decoded)}
        arrays |= {f"features{number}": block[good] for number, block in enumerate(shard["features"])}
        return arrays, quarantined

    shards = list(prefetched(read, range(store.num_shards), threads=os.cpu_count() or 1))
    quarantined = [sample for _, found in shards for sample in found]
    check_quarantined(quarantined, max_bad_samples)
    for sample in quarantined:
        logger.warning("Sample %s is quarantined: %s.", sample["sample_id"], sample["reason"])
    filled = [arrays for arrays, _ in shards if len(arrays["labels"])]
    if not filled:
        raise InputError(
            f"{store.samples}: no sample can be decoded (the first, {quarantined[0]['sample_id']}: {quarantined[0]['reason']})."
            " Mend the raw data and run 'aft-ray prepare --overwrite'."
        )
    return {name: np.concatenate([arrays[name] for arrays in filled]) for name in filled[0]}


def decode(
    shard: dict[str, Any], transforms: Sequence[InputTransform], rows: Iterable[int]
) -> tuple[list[np.ndarray], np.ndarray, list[dict[str, str]]]:
    """The inputs of the decodable `rows`, one array per transform; which rows these are; and the others."""
    decoded: list[list[np.ndarray]] = [[] for _ in transforms]
    good, quarantined = [], []
    once = [cache(transform.__call__) for transform in transforms]  # rows may share a picture
    for row in rows:
        try:
            arrays = [one(shard[transform.column][row]) for one, transform in zip(once, transforms, strict=True)]
        except UNREADABLE as error:
            quarantined.append(quarantined_sample(shard["sample_id"][row], error))
            continue
        good.append(row)
        for inputs, array in zip(decoded, arrays, strict=True):
            inputs.append(array)
    return [np.stack(inputs) if inputs else np.empty(0) for inputs in decoded], np.array(good, int), quarantined
