"""Training state and trained students as directories of safetensors and JSON; the JSON is written last.

No teacher weights, and nothing that executes code when it is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, load_file, save, save_file

from aft_ray.config import InputError
from aft_ray.store import Directory

Tensors = dict[str, torch.Tensor]


@dataclass
class TrainingState:
    """Where a run is: all that is needed to go on with the next step.

    step: finished optimizer steps. history: the lines of metrics.jsonl so far. task: weights of student and regularizer.
    optimizer: the optimizer's state_dict. best: weights at the best evaluation so far.
    """

    step: int
    history: list[dict[str, Any]]
    task: Tensors
    optimizer: dict[str, Any]
    best: Tensors

    def save(self, directory: Path) -> None:
        save_file(_contiguous(self.task), directory / "task.safetensors")
        save_file(_contiguous(self.best), directory / "best.safetensors")
        torch.save(self.optimizer, directory / "optimizer.pt")
        (directory / "checkpoint.json").write_text(json.dumps({"step": self.step, "history": self.history}))

    @classmethod
    def load(cls, directory: Path) -> TrainingState:
        position = json.loads((directory / "checkpoint.json").read_text())
        return cls(
            **position,
            task=load_file(directory / "task.safetensors"),
            optimizer=torch.load(directory / "optimizer.pt", map_location="cpu", weights_only=True),
            best=load_file(directory / "best.safetensors"),
        )


def save_student(directory: Directory, task: Tensors, facts: Mapping[str, Any]) -> None:
    """Writes a trained task as `student.safetensors`, `regularizer.safetensors` and `student.json`."""
    for part in ("student", "regularizer"):
        tensors = {name.removeprefix(f"{part}."): t for name, t in task.items() if name.startswith(f"{part}.")}
        directory.write(f"{part}.safetensors", save(_contiguous(tensors)))
    directory.write("student.json", json.dumps(dict(facts), indent=1).encode())


def read_student(directory: Directory) -> tuple[dict[str, Any], Tensors]:
    """What `save_student` wrote: the facts and the student's weights. Takes a run's directory or its `student/`."""
    place = directory if directory.has("student.json") else directory / "student"
    if not place.has("student.json"):
        raise InputError(f"{directory} holds no trained student. Run 'aft-ray train' first, or name another run.")
    return json.loads(place.read("student.json")), load(place.read("student.safetensors"))


def _contiguous(tensors: Tensors) -> Tensors:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
