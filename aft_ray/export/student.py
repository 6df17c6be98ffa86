"""A trained student, loaded for inference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from aft_ray.models.students import Student, build_student
from aft_ray.recipe.sections import StudentConfig
from aft_ray.store.files import Directory
from aft_ray.store.workspace import Workspace
from aft_ray.training.checkpoint import read_student


class Classifier(nn.Module):
    """A trained student that gives logits alone: (B, C) from what its transforms make of B samples, stacked.

    transforms: from a sample's encoded image or text to its input, one per modality; none for a linear probe.
    classes: names of the columns. task: classification, multilabel or regression. input_teachers: whose features a linear
    probe takes. facts: all that is known of the training.
    """

    def __init__(self, student: Student, facts: dict[str, Any]) -> None:
        super().__init__()
        self.student = student
        self.facts = facts
        self.transforms = student.transforms
        self.classes: list[str] = facts["classes"]
        self.task: str = facts.get("task", "classification")
        self.input_teachers = () if student.transforms else tuple(teacher["name"] for teacher in facts["teachers"])

    def forward(self, inputs: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
        return self.student(inputs)[0]


def load_student(run_or_student_dir: str | Path | Directory) -> Classifier:
    """The student of a run, in evaluation mode on the CPU.

    Takes a run's directory or its `student/`, as a path or URL. Raises InputError if there is none, or the model that it
    was made from is no longer there.
    """
    place = run_or_student_dir if isinstance(run_or_student_dir, Directory) else Workspace.at(run_or_student_dir)
    facts, weights = read_student(place)
    widths = [teacher["feature_dim"] for teacher in facts["teachers"]]
    config = StudentConfig(**facts["student"])
    student = build_student(config, len(facts["classes"]), teacher_dims=widths, for_inference=True)
    student.load_state_dict(weights)
    return Classifier(student, facts).eval()
