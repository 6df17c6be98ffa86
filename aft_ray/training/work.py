"""One training as a value: everything that its process needs, whether this process or a worker of Ray Train."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from aft_ray.cluster.gauges import show_gauges
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError, WorkerError
from aft_ray.recipe.own_class import own_faults
from aft_ray.store.files import Directory
from aft_ray.store.side_by_side import Store
from aft_ray.training.fit import Report, fit
from aft_ray.training.inputs.data import load_data
from aft_ray.training.inputs.machine_cache import ArrayCache


@dataclass(frozen=True)
class Work:
    """evaluate_test: of the best student, at the end. with_validation: train on the validation split too."""

    recipe: Recipe
    stores: Mapping[str, Store]
    run: Directory
    evaluate_test: bool
    with_validation: bool

    def fit(self, report: Report, resume: Directory | None, latest: Callable[[], Directory | None]) -> None:
        """Trains this process's share. latest: the last checkpoint, which an error names.

        Raises WorkerError for a fault that this process alone has seen, and InputError.
        """
        with ExitStack() as stack:
            cache = stack.enter_context(ArrayCache()) if self.recipe.train.num_workers > 1 else None
            data = load_data(self.recipe, self.stores, cache)
            if self.with_validation:
                data = data.with_validation_in_train()
            student, regularizer = self.recipe.student.model, self.recipe.regularizer.name
            try:
                with own_faults(student, "student.model"), own_faults(regularizer, "regularizer.name"):
                    fit(
                        self.recipe,
                        data,
                        directory=self.run,
                        report=report,
                        resume=resume,
                        evaluate_test=self.evaluate_test,
                    )
            except WorkerError:
                raise
            except InputError as error:
                kept = [f"The last good checkpoint is {found}."] if (found := latest()) else []
                raise InputError([*error.faults, *kept]) from error

    def show(self, metrics: Mapping[str, Any]) -> None:
        """An evaluation's numbers, on Ray's dashboard."""
        step_s = self.recipe.train.global_batch_size / metrics["samples_per_s"]
        show_gauges("train", self.recipe.run, {"step_s": step_s, **metrics})
