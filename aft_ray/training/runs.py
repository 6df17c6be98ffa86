"""A run's directory: its claim, its history and its checkpoints. `train` and a search's trials have the same one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from aft_ray.recipe.config import Recipe, dump
from aft_ray.recipe.errors import InputError
from aft_ray.store.files import Directory
from aft_ray.training.checkpoint import COMMIT
from aft_ray.training.provenance import differing_inputs

INPUTS = "inputs.json"
METRICS = "metrics.jsonl"
STUDENT = "student/student.json"
"""Written last: a run that has it is finished."""
STOP = "stop"
"""A file that asks a run to end at its next evaluation."""
FAULTS = "faults.json"
"""Errors seen by a single worker; they end the run for all."""
SNAPSHOT = "checkpoint_manager_snapshot.json"
"""Ray Train's own list of checkpoints, which it does not write atomically."""


@dataclass(frozen=True)
class RunDirectory:
    """config.yaml, inputs.json, metrics.jsonl, tensorboard/, checkpoints/step-*/ and, once finished, student/."""

    place: Directory
    kind: ClassVar[str] = "run"
    named: ClassVar[str] = "run"
    """The user's name, `run=NAME`, is of the run itself; of a trial it is the search's."""

    def check_claim(self, inputs: Mapping[str, Any]) -> bool:
        """Whether the directory is claimed already. Raises InputError if that is by a run with other `inputs`."""
        if not self.place.has(INPUTS):
            return False
        if differing := differing_inputs(json.loads(self.place.read(INPUTS)), inputs):
            raise InputError(
                f"{self.place} holds a {self.kind} with another {', '.join(differing)}. Give this {self.named} a name"
                " with run=NAME, or delete the directory."
            )
        return True

    def claim(self, recipe: Recipe, inputs: Mapping[str, Any]) -> None:
        """Writes the resolved recipe and the run's provenance. Raises InputError if another run is there."""
        self.check_claim(inputs)
        self.place.write("config.yaml", dump(recipe).encode())
        self.place.write(INPUTS, json.dumps(inputs, indent=1).encode())

    def inputs(self) -> dict[str, Any] | None:
        """The provenance that the run was claimed with."""
        return json.loads(self.place.read(INPUTS)) if self.place.has(INPUTS) else None

    def history(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`; empty if there is none."""
        if not self.place.has(METRICS):
            return []
        return [json.loads(line) for line in self.place.read(METRICS).splitlines()]

    @property
    def is_finished(self) -> bool:
        return self.place.has(STUDENT)

    def checkpoint(self) -> Directory | None:
        """The last whole checkpoint."""
        return max((found for found in self._checkpoints() if found.has(COMMIT)), key=str, default=None)

    def keep_last_checkpoint(self) -> Directory | None:
        """Deletes all checkpoints but the last whole one, and returns that."""
        last = self.checkpoint()
        for found in self._checkpoints():
            if found != last:
                found.delete()
        return last

    def recover(self) -> Directory | None:
        """Clears the traces of an ended job and returns the last whole checkpoint.

        Deleted are the reason it ended for, and Ray's list of checkpoints, which a kill may have left half-written.
        """
        for place, name in ((self.place, FAULTS), (self.place / "checkpoints", SNAPSHOT)):
            if place.has(name):
                place.delete_file(name)
        return self.keep_last_checkpoint()

    def _checkpoints(self) -> list[Directory]:
        checkpoints = self.place / "checkpoints"
        return [checkpoints / name for name in checkpoints.names() if name.startswith("step-")]
