"""A run's three splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from aft_ray.models.images import ImageTransform
from aft_ray.models.students import student_transforms
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError
from aft_ray.regularizers.distributed import world_size
from aft_ray.store.schema import SPLITS
from aft_ray.store.side_by_side import Store
from aft_ray.training.inputs.batches import InputTransform, Samples, Split, load_split
from aft_ray.training.inputs.machine_cache import ArrayCache
from aft_ray.training.inputs.order import has_label
from aft_ray.training.inputs.streaming import stream_split
from aft_ray.training.provenance import joined_origin, origin


@dataclass(frozen=True)
class Data:
    """The three splits. origin: fingerprints of the samples and of each teacher's features.

    Without a validation split nothing is chosen: the student of the last step is kept.
    """

    train: Samples
    validation: Samples | None
    test: Samples
    origin: Mapping[str, Any] = field(default_factory=dict)

    def of(self, recipe: Recipe) -> Data:
        """The same with the labels that the recipe keeps, and for a probe with its teachers' features as input."""
        splits: dict[str, Any] = {name: getattr(self, name) for name in SPLITS}
        if self.train.input_teachers:
            names = recipe.teacher_names()
            splits = {name: split and replace(split, input_teachers=names) for name, split in splits.items()}
        splits["train"] = splits["train"].keep_labels(recipe.train.labels_per_class, recipe.train.seed)
        return Data(**splits, origin=self.origin)

    def with_validation_in_train(self) -> Data:
        """The data of final runs: train and validation as one split. Both must be in memory."""
        assert isinstance(self.train, Split) and isinstance(self.validation, Split)
        joined = self.train.joined(self.validation)
        return Data(joined, validation=None, test=self.test, origin=joined_origin(self.origin))


def load_data(recipe: Recipe, stores: Mapping[str, Store], cache: ArrayCache | None = None) -> Data:
    """The splits for the recipe's student: read and decoded, or with `train.streaming` ready to be read while training.

    cache: shared by the processes of this machine. Raises InputError if there are too many undecodable samples.
    """
    samples = stores["train"].manifest["fingerprint"]
    transforms = [t.reading(samples) if isinstance(t, ImageTransform) else t for t in transforms_of(recipe)]
    splits: dict[str, Samples] = {}
    for split, store in stores.items():
        if recipe.train.streaming:
            splits[split] = stream_split(store, store.names, transforms, world_size=world_size())
        else:
            bad = recipe.dataset.max_bad_samples
            splits[split] = load_split(store, store.names, transforms, max_bad_samples=bad, cache=cache)
    _check_splits(splits)
    return Data(**splits, origin=origin(stores))


def transforms_of(recipe: Recipe) -> tuple[InputTransform, ...]:
    """How samples become the student's inputs; none for a probe."""
    return student_transforms(recipe.student)


def _check_splits(splits: Mapping[str, Samples]) -> None:
    """Raises InputError if the splits are not of one task, or validation has nothing to choose by."""
    faults = [
        f"The {name} split has other classes or another task than the train split. Run 'aft-ray prepare --overwrite'."
        for name, split in splits.items()
        if (split.classes, split.task) != (splits["train"].classes, splits["train"].task)
    ]
    if not has_label(splits["validation"].labels).any():
        faults.append("No sample of the validation split has a label: there is nothing to choose the best student by.")
    if faults:
        raise InputError(faults)
