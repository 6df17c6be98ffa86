"""The samples that a search's trials read: decoded when the first trial has to run, in Ray's shared memory for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from aft_ray.recipe.config import Recipe, fingerprint
from aft_ray.store.side_by_side import Store
from aft_ray.training.inputs.data import Data, load_data, transforms_of

if TYPE_CHECKING:
    import ray


class TrialData:
    """The splits by input of the student: students that read samples alike share one decoded copy."""

    def __init__(self, students: Sequence[Recipe], stores: Mapping[str, Store], start: Callable[[], None]) -> None:
        """students: the recipe with each searched student. start: starts the cluster, unless it runs."""
        self.students, self.stores, self.start = students, stores, start
        self.loaded: dict[str, Data] = {}
        self.kept: dict[bool, dict[str, ray.ObjectRef]] = {}

    def load(self) -> None:
        """Starts the cluster and decodes the samples, unless that is done. Raises InputError as `load_data`."""
        if self.loaded:
            return
        self.start()
        distinct = {data_key(student): student for student in self.students}
        self.loaded = {key: load_data(student, self.stores) for key, student in distinct.items()}

    def in_shared_memory(self, *, with_validation: bool) -> dict[str, ray.ObjectRef]:
        """The loaded splits. with_validation: the train split has the validation samples too."""
        import ray

        if with_validation not in self.kept:
            self.kept[with_validation] = {
                key: ray.put(data.with_validation_in_train() if with_validation else data)
                for key, data in self.loaded.items()
            }
        return self.kept[with_validation]


def data_key(recipe: Recipe) -> str:
    """The same for students that read samples alike."""
    return fingerprint([repr(transform) for transform in transforms_of(recipe)])
