"""Teachers' features by sample id, for training loops that read the samples themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aft_ray.recipe.errors import InputError
from aft_ray.store.side_by_side import Store, open_store

if TYPE_CHECKING:
    import torch


class FeaturesById(Mapping[str, np.ndarray]):
    """`features[sample_id]` is (T,) float32, the teachers side by side. In memory: 2 T bytes a sample where they are float16."""

    def __init__(self, store: Store) -> None:
        shards = store.map_shards(_ids_and_features, (), side_by_side=False)
        self.teacher_dims = store.teacher_dims
        """The width of each teacher's features, as `build_regularizer` takes them."""
        self._places = {name: row for row, name in enumerate(name for ids, _ in shards for name in ids)}
        self._features = np.concatenate([features for _, features in shards])

    def __getitem__(self, sample_id: str) -> np.ndarray:
        return self._features[self._places[sample_id]].astype(np.float32)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def rows(self, sample_ids: Sequence[str]) -> torch.Tensor:
        """(n, T) float32. Raises InputError that names the ids without features."""
        import torch

        if unknown := [name for name in sample_ids if name not in self._places]:
            raise InputError(f"No features of {', '.join(unknown[:5])}: {len(unknown)} of {len(sample_ids)} ids.")
        return torch.from_numpy(self._features[[self._places[name] for name in sample_ids]].astype(np.float32))

    def collator(self, collate: Callable[[list[Any]], Any]) -> Callable[[list[Any]], Any]:
        """A collate function of examples that are mappings with a `sample_id`: `collate` of the rest, with the samples'
        `teacher_features` beside it. Examples without an id, such as those to evaluate, are left to `collate`."""

        def with_features(examples: list[Mapping[str, Any]]) -> Any:
            ids = [example["sample_id"] for example in examples if "sample_id" in example]
            batch = collate([{key: value for key, value in e.items() if key != "sample_id"} for e in examples])
            if ids:
                batch["teacher_features"] = self.rows(ids)
            return batch

        return with_features


def features_by_id(workspace: str | Path, split: str, teachers: Sequence[str]) -> FeaturesById:
    """The features of `teachers` for every sample of `split` that all of them could read.

    Raises InputError, with one line per fault, if something is missing, incomplete or of other samples.
    """
    return FeaturesById(open_store(workspace, split, teachers))


def _ids_and_features(shard: Mapping[str, Any]) -> tuple[list[str], np.ndarray]:
    return shard["sample_id"], np.concatenate(shard["features"], axis=1)
