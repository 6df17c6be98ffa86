"""A split that does not fit in memory: its rows are read from their shards while training, a few shards at a time."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np

from aft_ray.recipe.errors import WorkerError
from aft_ray.store.side_by_side import Store
from aft_ray.training.inputs.batches import InputTransform, Samples, decode, split_facts
from aft_ray.training.inputs.order import LANES, WINDOW_SHARDS, Shuffle, WindowShuffle

MOST_THREADS = 8
WAY_OUT = "A stream cannot leave samples out: mend or remove it and prepare again, or set train.streaming=false."


class ShardCache:
    """The shards that rows were taken from last, with the samples' content as it is stored."""

    def __init__(self, store: Store, columns: Sequence[str], capacity: int) -> None:
        self.store, self.columns, self.capacity = store, columns, capacity
        self.shards: OrderedDict[int, Future[dict[str, Any]]] = OrderedDict()
        self.lock = Lock()

    def __reduce__(self) -> tuple[type[ShardCache], tuple[Store, Sequence[str], int]]:
        return ShardCache, (self.store, self.columns, self.capacity)  # another process starts with an empty one

    def get(self, index: int) -> dict[str, Any]:
        """Shard `index`; other threads that need it wait until it has been read."""
        with self.lock:
            known = index in self.shards
            shard = self.shards.setdefault(index, Future())
            self.shards.move_to_end(index)
            if len(self.shards) > self.capacity:
                self.shards.popitem(last=False)
        if not known:
            try:
                shard.set_result(self.store.read_shard(index, self.columns, side_by_side=False))
            except BaseException as error:
                shard.set_exception(error)
        return shard.result()


@dataclass(frozen=True, kw_only=True)
class StreamedSplit(Samples):
    """Labels and ids in memory; inputs and features from the shards, decoded when they are asked for.

    bounds: (shards + 1,) the first row of each shard, then the number of rows. teachers: names, in the store's order.
    Labels that only few samples keep lie far apart: their batches then read many shards.
    """

    bounds: np.ndarray
    teachers: tuple[str, ...]
    transforms: tuple[InputTransform, ...]
    shards: ShardCache

    @property
    def feature_dims(self) -> dict[str, int]:
        return dict(zip(self.teachers, self.shards.store.teacher_dims, strict=True))

    @property
    def shuffle(self) -> Shuffle:
        return WindowShuffle(self.bounds)

    @property
    def reader_threads(self) -> int:
        return min(MOST_THREADS, os.cpu_count() or 1)

    def share(self, rank: int, world_size: int) -> np.ndarray:
        """Whole shards, every `world_size`-th."""
        ranges = list(zip(self.bounds, self.bounds[1:], strict=False))[rank::world_size]
        return np.concatenate([np.empty(0, int), *(np.arange(start, stop) for start, stop in ranges)])

    def features_of(self, indices: np.ndarray, teachers: Sequence[str]) -> np.ndarray:
        numbers = [self.teachers.index(teacher) for teacher in teachers]
        found = np.empty((len(indices), sum(self.feature_dims[teacher] for teacher in teachers)), np.float32)
        for where, shard, rows in self._by_shard(indices) if numbers else ():
            found[where] = np.concatenate([shard["features"][number][rows] for number in numbers], axis=1)
        return found

    def inputs_of(self, indices: np.ndarray) -> tuple[np.ndarray, ...]:
        """Raises WorkerError if a sample cannot be decoded."""
        inputs: list[np.ndarray] = []
        for where, shard, rows in self._by_shard(indices) if self.transforms else ():
            decoded, _, quarantined = decode(shard, self.transforms, rows)
            if quarantined:
                raise WorkerError(
                    [f"Sample {s['sample_id']} cannot be read: {s['reason']}. {WAY_OUT}" for s in quarantined]
                )
            inputs = inputs or [np.empty((len(indices), *array.shape[1:]), array.dtype) for array in decoded]
            for array, found in zip(inputs, decoded, strict=True):
                array[where] = found
        return tuple(inputs)

    def _by_shard(self, indices: np.ndarray) -> Iterator[tuple[np.ndarray, dict[str, Any], np.ndarray]]:
        """For each shard that holds some of `indices`: their places in `indices`, the shard, and their rows in it."""
        shard_of = np.searchsorted(self.bounds, indices, side="right") - 1
        for index in np.unique(shard_of):
            where = np.flatnonzero(shard_of == index)
            yield where, self.shards.get(int(index)), indices[where] - self.bounds[index]


def stream_split(
    store: Store, teachers: Sequence[str], transforms: Sequence[InputTransform], *, world_size: int
) -> StreamedSplit:
    """A split to be read while training by one of `world_size` workers; only its ids and labels are read at once."""
    shards = store.map_shards(lambda shard: (np.array(shard["sample_id"], str), shard["label"]), columns=())
    lanes = LANES if LANES % world_size else LANES // world_size
    return StreamedSplit(
        **split_facts(
            store, np.concatenate([ids for ids, _ in shards]), np.concatenate([labels for _, labels in shards])
        ),
        bounds=np.cumsum([0, *(len(labels) for _, labels in shards)]),
        input_teachers=() if transforms else tuple(teachers),
        teachers=tuple(teachers),
        transforms=tuple(transforms),
        shards=ShardCache(store, [t.column for t in transforms], capacity=lanes * (WINDOW_SHARDS + 2)),
    )


def decoded_bytes(store: Store, transforms: Sequence[InputTransform]) -> int:
    """Memory that a split takes once it is decoded."""
    shard = store.read_shard(0, [transform.column for transform in transforms], side_by_side=False)
    decoded: list[np.ndarray] = []
    for row in range(len(shard["sample_id"])):
        decoded, good, _ = decode(shard, transforms, [row])
        if len(good):
            break
    features = sum(block.shape[1] * block.itemsize for block in shard["features"])
    return store.num_samples * (sum(array.nbytes for array in decoded) + features)
