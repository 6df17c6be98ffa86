"""Training state and trained students as directories of safetensors and JSON; the JSON is written last.

No teacher weights, and nothing that executes code when it is read.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load, save

from aft_ray.recipe.errors import InputError
from aft_ray.store.files import Directory
from aft_ray.training.provenance import differing_inputs

Tensors = dict[str, torch.Tensor]
COMMIT = "checkpoint.json"


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
        directory.write("task.safetensors", save(_contiguous(self.task)))
        directory.write("best.safetensors", save(_contiguous(self.best)))
        content = io.BytesIO()
        torch.save(self.optimisation, content)
        directory.write("optimisation.pt", content.getvalue())
        position = {"step": self.step, "history": self.history, "inputs": self.inputs}
        directory.write(COMMIT, json.dumps(position).encode())

    @classmethod
    def load(cls, directory: Directory, inputs: Mapping[str, Any] | None) -> TrainingState:
        """What `save` wrote. Raises InputError if it is not whole, or of a run that was started with other `inputs`.

        inputs: None takes the checkpoint of any run.
        """
        if not directory.has(COMMIT):
            raise InputError(f"{directory} is no whole checkpoint: {COMMIT} is missing. Resume from another.")
        position = json.loads(directory.read(COMMIT))
        if inputs is not None and (differing := differing_inputs(position["inputs"], inputs)):
            raise InputError(
                f"{directory} is a checkpoint of a run with another {', '.join(differing)}. Give this run a name with"
                " run=NAME."
            )
        return cls(
            **position,
            task=load(directory.read("task.safetensors")),
            optimisation=torch.load(
                io.BytesIO(directory.read("optimisation.pt")), map_location="cpu", weights_only=True
            ),
            best=load(directory.read("best.safetensors")),
        )


def history_of(directory: Directory) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl that a checkpoint holds."""
    return json.loads(directory.read(COMMIT))["history"]


def save_student(directory: Directory, task: Tensors, facts: Mapping[str, Any]) -> None:
    """Writes a trained task as `student.safetensors`, `regularizer.safetensors` and, with their checksums, `student.json`."""
    checksums = {}
    for part in ("student", "regularizer"):
        tensors = {name.removeprefix(f"{part}."): t for name, t in task.items() if name.startswith(f"{part}.")}
        content = save(_contiguous(tensors))
        directory.write(f"{part}.safetensors", content)
        checksums[f"{part}.safetensors"] = hashlib.sha256(content).hexdigest()
    directory.write("student.json", json.dumps({**facts, "sha256": checksums}, indent=1).encode())


def _contiguous(tensors: Tensors) -> Tensors:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
