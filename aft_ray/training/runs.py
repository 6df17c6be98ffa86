"""A run's directory: its claim, its history and its checkpoints. `train` and a search's trials have the same one."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import ConfigDict, with_config
from typing_extensions import NotRequired, TypedDict

from aft_ray.recipe.config import Recipe, dump
from aft_ray.recipe.errors import InputError, faults_of
from aft_ray.recipe.json_files import damaged
from aft_ray.recipe.strict_yaml import parse
from aft_ray.store.files import Directory
from aft_ray.training.checkpoint import COMMIT
from aft_ray.training.evaluations import METRICS, read_evaluations
from aft_ray.training.owner import OF_BEFORE, RUN_ID, marked, new_id
from aft_ray.training.provenance import Inputs, differing_inputs, differing_keys

CHECKPOINT = re.compile(r"step-\d{8,}(-[0-9a-f]{4})?")
"""The name of a checkpoint's directory."""
SECTIONS = ("student", "regularizer", "train")
CONFIG = "config.yaml"
INPUTS = "inputs.json"
STUDENT = "student/student.json"
"""Written last: a run that has it is finished."""
STOP = "stop"
"""A file that asks a run to end at its next evaluation."""
FAULTS = "faults.json"
"""Errors seen by a single worker; they end the run for all."""
REPLACED = {CONFIG, METRICS, STOP, FAULTS, "checkpoints", "student", "tensorboard"}
"""Files and directories of a run whose content is replaced or deleted."""
SNAPSHOT = "checkpoint_manager_snapshot.json"
"""Ray Train's own list of checkpoints, which it does not write atomically."""


@with_config(ConfigDict(extra="allow"))
class _Finished(TypedDict):
    """student.json, as far as the history is concerned."""

    num_evaluations: NotRequired[int]


@dataclass(frozen=True)
class RunDirectory:
    """config.yaml, inputs.json, metrics.jsonl, tensorboard/, checkpoints/step-*/ and, once finished, student/."""

    place: Directory
    kind: ClassVar[str] = "run"
    named: ClassVar[str] = "run"
    """The user's name, `run=NAME`, is of the run itself; of a trial it is the search's."""

    @property
    def way_out(self) -> str:
        """Advice for a damaged file."""
        return f"Restore it from a copy, or delete the directory {self.place} and train again."

    def check_claim(self, inputs: Mapping[str, Any]) -> bool:
        """Whether the directory is claimed already.

        Raises InputError if that is by a run with other `inputs`, or if nobody has claimed it and it holds files which a run
        would replace or delete.
        """
        claimed = self.inputs()
        if claimed is None:
            self._check_is_free()
            return False
        if differing := differing_inputs(claimed, inputs):
            raise InputError(
                f"{self.place} holds a {self.kind} with another {', '.join(differing)}. Give this {self.named} a name"
                " with run=NAME, or delete the directory."
            )
        return True

    def _check_is_free(self) -> None:
        """Other programs call a directory `runs` too, and a file in it `config.yaml` or `checkpoints`."""
        theirs = sorted(REPLACED & set(self.place.names()))
        if theirs and faults_of(self.config):  # a recipe of ours shows a claim that was killed half-way, or of before
            raise InputError(
                f"{self.place} holds {', '.join(theirs)} and no {self.kind} of ours, which would replace or delete that. Move it"
                f" away, or give this {self.named} a name with run=NAME."
            )

    def claim(self, recipe: Recipe, inputs: Mapping[str, Any]) -> None:
        """Writes the resolved recipe and the run's provenance. Raises InputError if another run is there."""
        self.check_claim(inputs)
        run_id = self.run_id or new_id()
        self.place.write(CONFIG, dump(recipe).encode())
        self.place.write_json(INPUTS, marked(dict(inputs), run_id))

    def inputs(self) -> dict[str, Any] | None:
        """The provenance that the run was claimed with."""
        claimed = self._claimed()
        return {key: value for key, value in claimed.items() if key != RUN_ID} if claimed else None

    @property
    def run_id(self) -> str | None:
        """The id in the files of this run; None if nobody has claimed the directory."""
        claimed = self._claimed()
        return claimed.get(RUN_ID, OF_BEFORE) if claimed else None

    def _claimed(self) -> dict[str, Any] | None:
        if not self.place.has(INPUTS):
            return None
        way_out = f"Give this {self.named} a name with run=NAME, or delete the directory."
        return self.place.read_json(INPUTS, Inputs, way_out)

    def config(self) -> dict[str, Any]:
        """The resolved recipe in `config.yaml` as plain values: an old one may have keys that recipes no longer have.

        Raises InputError if it is not the recipe of the run's inputs.
        """
        what, way_out = f"{self.place}/{CONFIG}", self.way_out
        if not self.place.has(CONFIG):
            raise damaged(what, ["it is missing"], way_out)
        try:
            content, _ = parse(self.place.read(CONFIG).decode(), "it")
        except UnicodeDecodeError as error:
            raise damaged(what, ["it is no text"], way_out) from error
        except InputError as error:
            raise damaged(what, [fault.rstrip(".") for fault in error.faults], way_out) from error
        if not isinstance(content, dict) or not all(isinstance(content.get(name), dict) for name in SECTIONS):
            raise damaged(what, ["it is no recipe"], way_out)
        told = self._settings()
        differing = [
            key
            for name in SECTIONS
            for key in differing_keys(told.get(name, {}), content[name], name)
            if _is_known(told, key)
        ]
        if differing:
            raise damaged(what, [f"its {', '.join(differing)} differ from the run's own, in {INPUTS}"], way_out)
        return content

    def _settings(self) -> dict[str, Any]:
        """The sections of the recipe that the run was started with; empty if nobody has claimed the directory."""
        return (self.inputs() or {}).get("recipe", {})

    @property
    def is_streamed(self) -> bool | None:
        """Whether the training reads its samples from their shards; None if nobody has claimed the directory."""
        return self._settings().get("train", {}).get("streaming")

    def history(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`; empty if there is none. Raises InputError if a finished run's are not all there."""
        # First, since it is written last: a run that ends while its lines are read is not finished yet.
        finished = self.place.read_json(STUDENT, _Finished, self.way_out) if self.is_finished else {}
        history = read_evaluations(self.place, self.run_id, self.way_out)
        if finished.get("num_evaluations", len(history)) != len(history):
            fault = f"it has {len(history)} lines, the run made {finished['num_evaluations']} evaluations"
            raise damaged(f"{self.place}/{METRICS}", [fault], self.way_out)
        return history

    @property
    def is_finished(self) -> bool:
        return self.place.has(STUDENT)

    def checkpoint(self) -> Directory | None:
        """The last whole checkpoint."""
        return max((found for found in self.checkpoints() if found.has(COMMIT)), key=str, default=None)

    def new_checkpoint(self, step: int) -> Directory:
        """Where a checkpoint of `step` goes. A run that was started anew after a failure may save a step twice."""
        return self.place / "checkpoints" / f"step-{step:08d}-{uuid.uuid4().hex[:4]}"

    def keep_last_checkpoint(self) -> Directory | None:
        """Deletes all checkpoints but the last whole one, and returns that."""
        return self._keep_checkpoint(self.checkpoint())

    def _keep_checkpoint(self, kept: Directory | None) -> Directory | None:
        for found in self.checkpoints():
            if found != kept:
                found.delete()
        return kept

    def recover(self) -> Directory | None:
        """Clears the traces of an ended job and returns the checkpoint to go on from: the last whole one.

        Deleted are the reason it ended for, Ray's list of checkpoints, which a kill may have left half-written, and a
        finished run's checkpoints: nothing goes on from them, and each is several times as large as the student.
        """
        for place, name in ((self.place, FAULTS), (self.place / "checkpoints", SNAPSHOT)):
            if place.has(name):
                place.delete_file(name)
        if self.is_finished:
            return self._keep_checkpoint(None)
        return self.keep_last_checkpoint()

    def checkpoints(self) -> list[Directory]:
        """Its checkpoints, whole or not."""
        checkpoints = self.place / "checkpoints"
        return [checkpoints / name for name in checkpoints.names() if CHECKPOINT.fullmatch(name)]


def _is_known(told: Mapping[str, Any], key: str) -> bool:
    """Whether inputs record a dotted key: they leave out settings that do not change a run's numbers."""
    section, _, name = key.partition(".")
    return name.partition(".")[0] in told.get(section, {})
