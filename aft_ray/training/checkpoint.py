"""Training state and trained students as directories of safetensors and JSON; the JSON is written last.

No teacher weights, and nothing that executes code when it is read.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import ConfigDict, Field, with_config
from safetensors import SafetensorError
from safetensors.torch import load, save
from typing_extensions import NotRequired, TypedDict

from aft_ray.recipe.errors import InputError
from aft_ray.recipe.json_files import damaged
from aft_ray.store.files import Directory
from aft_ray.training.evaluations import Evaluation
from aft_ray.training.provenance import Inputs, differing_inputs

Tensors = dict[str, torch.Tensor]
COMMIT = "checkpoint.json"
FILES = "files"
"""Key of the hashes of the files beside a JSON."""
OPEN = ConfigDict(extra="allow")


@with_config(OPEN)
class Position(TypedDict):
    """checkpoint.json. files: hashes of the files beside it."""

    step: Annotated[int, Field(ge=0)]
    history: list[Evaluation]
    inputs: Inputs
    files: NotRequired[dict[str, str]]


@dataclass(frozen=True)
class TrainingState:
    """Where a run is: all that is needed to go on with the next step. A snapshot on the CPU: training goes on beside it.

    step: finished optimizer steps; the learning rates and all random numbers follow from it. history: the lines of
    metrics.jsonl so far. task: weights of student and regularizer. optimisation: state of the optimizer and of fp16's
    scaling. best: weights at the best evaluation so far. inputs: the run's provenance.
    """

    step: int
    history: list[dict[str, Any]]
    inputs: dict[str, Any]
    task: Tensors
    optimisation: dict[str, Any]
    best: Tensors

    def save(self, directory: Directory) -> None:
        content = io.BytesIO()
        torch.save(self.optimisation, content)
        files = {
            "task.safetensors": save(_contiguous(self.task)),
            "best.safetensors": save(_contiguous(self.best)),
            "optimisation.pt": content.getvalue(),
        }
        position = {"step": self.step, "history": self.history, "inputs": self.inputs}
        directory.write_json(COMMIT, {**position, FILES: _write(directory, files)})

    @classmethod
    def load(cls, directory: Directory, inputs: Mapping[str, Any] | None) -> TrainingState:
        """What `save` wrote. Raises InputError if it is not whole, or of a run that was started with other `inputs`.

        inputs: None takes the checkpoint of any run.
        """
        if not directory.has(COMMIT):
            raise InputError(f"{directory} is no whole checkpoint: {COMMIT} is missing. Resume from another.")
        position = _position(directory)
        if inputs is not None and (differing := differing_inputs(position["inputs"], inputs)):
            raise InputError(
                f"{directory} is a checkpoint of a run with another {', '.join(differing)}. Give this run a name with"
                " run=NAME."
            )
        files = _Files(directory, position.pop(FILES, {}), f"Delete the directory {directory}.")
        return cls(
            **position,
            task=files.tensors("task.safetensors"),
            optimisation=files.pickled("optimisation.pt"),
            best=files.tensors("best.safetensors"),
        )


def history_of(directory: Directory) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl that a checkpoint holds."""
    return _position(directory)["history"]


def recipe_of(directory: Directory) -> dict[str, Any]:
    """The recorded recipe that a checkpoint was trained with."""
    return _position(directory)["inputs"]["recipe"]


def _position(directory: Directory) -> dict[str, Any]:
    return directory.read_json(COMMIT, Position, f"Delete the directory {directory}.")


def save_student(directory: Directory, task: Tensors, facts: Mapping[str, Any]) -> None:
    """Writes a trained task as `student.safetensors`, `regularizer.safetensors` and, with their checksums, `student.json`."""
    files = {}
    for part in ("student", "regularizer"):
        tensors = {name.removeprefix(f"{part}."): t for name, t in task.items() if name.startswith(f"{part}.")}
        files[f"{part}.safetensors"] = save(_contiguous(tensors))
    directory.write_json("student.json", {**facts, "sha256": _write(directory, files)})


def read_tensors(directory: Directory, name: str, way_out: str) -> Tensors:
    """A file of tensors that no JSON lists."""
    return _Files(directory, {}, way_out).tensors(name)


def _write(directory: Directory, files: Mapping[str, bytes]) -> dict[str, str]:
    """Writes the files and returns the hash of each."""
    for name, content in files.items():
        directory.write(name, content)
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


@dataclass(frozen=True)
class _Files:
    """Files of tensors, checked against the hashes in the JSON beside them; older versions recorded none."""

    directory: Directory
    hashes: Mapping[str, str]
    way_out: str

    def tensors(self, name: str) -> Tensors:
        try:
            return load(self._read(name))
        except SafetensorError as error:
            raise self._damaged(name, str(error)) from error

    def pickled(self, name: str) -> Any:
        """Read as tensors and plain values alone: nothing is executed."""
        content = io.BytesIO(self._read(name))
        try:
            return torch.load(content, map_location="cpu", weights_only=True)
        except (RuntimeError, ValueError, LookupError, EOFError, pickle.UnpicklingError) as error:
            raise self._damaged(name, "torch cannot read it") from error

    def _read(self, name: str) -> bytes:
        if not self.directory.has(name):
            raise self._damaged(name, "it is missing")
        content = self.directory.read(name)
        if name in self.hashes and hashlib.sha256(content).hexdigest() != self.hashes[name]:
            raise self._damaged(name, "it is not the file that was written here")
        return content

    def _damaged(self, name: str, reason: str) -> InputError:
        return damaged(f"{self.directory}/{name}", [reason], self.way_out)


def _contiguous(tensors: Tensors) -> Tensors:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
