"""export: a trained student as a plain model."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from aft_ray.checkpoint import read_student
from aft_ray.config import StudentConfig
from aft_ray.store import Directory, Workspace
from aft_ray.students import Student, build_student


class Classifier(nn.Module):
    """A trained student that gives logits alone: (B, C) from (B, height, width, 3) uint8 images.

    `transform` makes such an image from encoded bytes; `classes` names the columns.
    """

    def __init__(self, student: Student, classes: list[str]) -> None:
        super().__init__()
        self.student = student
        self.classes = classes
        self.transform = student.transform

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.student(inputs)[0]


def load_student(run_or_student_dir: str | Path | Directory) -> Classifier:
    """The student of a run, in evaluation mode on the CPU.

    Takes a run's directory or its `student/`, as a path or URL. Raises InputError if there is none.
    """
    place = run_or_student_dir if isinstance(run_or_student_dir, Directory) else Workspace.at(run_or_student_dir)
    facts, weights = read_student(place)
    student = build_student(StudentConfig(**facts["student"]), len(facts["classes"]), for_inference=True)
    student.load_state_dict(weights)
    return Classifier(student, facts["classes"]).eval()
