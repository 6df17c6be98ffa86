"""What the trials of a search share besides their data, in the command's process and in their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aft_ray.recipe.config import Recipe, override
from aft_ray.search.space import Trial
from aft_ray.search.trials import TrialDirectory
from aft_ray.store.files import Directory
from aft_ray.store.side_by_side import Store
from aft_ray.training.provenance import joined_origin, origin, run_inputs, with_defaults
from aft_ray.training.runs import STOP


@dataclass(frozen=True)
class Shared:
    """with_validation: the trials train on the validation samples too."""

    recipe: Recipe
    stores: Mapping[str, Store]
    place: Directory
    with_validation: bool = False

    def recipe_of(self, trial: Trial) -> Recipe:
        """The recipe of a trial: all of its workers at once, each with the search's share of CPUs."""
        resources = {"cpus_per_worker": self.recipe.search.cpus_per_trial}
        changes = {"train.streaming": self.recipe.train.streaming, "resources": resources}
        recipe = override(trial.recipe(self.recipe), changes)
        return with_defaults(recipe, self.directory(trial.name).inputs(), self.stores["train"].modalities)

    def inputs_of(self, recipe: Recipe) -> dict[str, Any]:
        """Everything that determines a trial's numbers."""
        made_of = origin(self.stores)
        return run_inputs(recipe, joined_origin(made_of) if self.with_validation else made_of)

    def directory(self, name: str) -> TrialDirectory:
        return TrialDirectory(self.place / "trials" / name)

    def ask_to_stop(self, name: str) -> None:
        """The trial ends at its next evaluation."""
        self.directory(name).place.write(STOP, b"")


def needed(recipe: Recipe) -> dict[str, float]:
    """CPUs and GPUs of a trial, all workers together."""
    search = recipe.search
    gpus = search.gpus_per_trial if search.gpus_per_trial is not None else float(recipe.train.use_gpu)
    per_worker = {"CPU": search.cpus_per_trial, "GPU": gpus}
    return {kind: count * search.workers_per_trial for kind, count in per_worker.items() if count}
