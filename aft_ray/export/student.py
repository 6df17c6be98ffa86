"""A trained student, loaded for inference from the files that training wrote."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

from aft_ray.export.hub import SCHEME, downloaded
from aft_ray.export.run_files import EXPORT_AGAIN, TRAIN_AGAIN, damaged, student_facts
from aft_ray.models.images import ImageTransform
from aft_ray.models.students import LibraryStudent, Student, build_student, recorded, saved_in
from aft_ray.recipe.errors import InputError, in_a_line
from aft_ray.recipe.own_class import own_faults
from aft_ray.store.files import Directory
from aft_ray.store.workspace import Workspace
from aft_ray.training.runs import RunDirectory

FACTS, WEIGHTS = "student.json", "student.safetensors"
NAMED = 3
"""Tensors that a fault names."""


class Classifier(nn.Module):
    """A trained student that returns logits alone: (B, C) from the stacked outputs of its transforms for B samples.

    transforms: from a sample's encoded image or text to its input, one per modality; none for a linear probe.
    classes: names of the columns. task: classification, multilabel or regression. input_teachers: whose features a linear
    probe takes. facts: the content of `student.json`.
    """

    def __init__(self, student: Student, facts: dict[str, Any]) -> None:
        super().__init__()
        self.student = student
        self.facts = facts
        made_of = facts.get("dataset", {})
        self.transforms = tuple(t.reading(made_of) if isinstance(t, ImageTransform) else t for t in student.transforms)
        self.classes: list[str] = facts["classes"]
        self.task: str = facts.get("task", "classification")
        self.input_teachers = () if student.transforms else tuple(teacher["name"] for teacher in facts["teachers"])

    def forward(self, inputs: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
        with own_faults(str(self.facts["student"]["model"]), "student.model"):
            return self.student(inputs)[0]


def load_student(run_or_student_dir: str | Path | Directory) -> Classifier:
    """The student of a run, in evaluation mode on the CPU.

    Takes a run's directory, its `student/` or `export/`, as a path or URL, or `hf-hub:REPOSITORY[@REVISION]` of the model
    hub. Raises InputError if there is none, its files are damaged or do not belong together, or the model that it was made
    from is no longer there, which an export does not need.
    """
    place = _place(run_or_student_dir)
    directory = place if place.has(FACTS) else place / "student"
    if not directory.has(FACTS):
        raise InputError(f"{place} holds no trained student. Run 'aft-ray train' first, or name another run.")
    facts = student_facts(directory, None if directory == place else RunDirectory(place).run_id)
    student = _of_run(directory, facts) if facts.get("library") is None else _of_library(directory, facts)
    return Classifier(student, facts).eval()


def _of_run(directory: Directory, facts: Mapping[str, Any]) -> Student:
    """The student that training wrote, or an export of one that belongs to no library."""
    widths = [teacher["feature_dim"] for teacher in facts["teachers"]]
    config = recorded(facts["student"])
    try:
        student = build_student(config, len(facts["classes"]), teacher_dims=widths, for_inference=True)
    except (RuntimeError, MemoryError) as error:  # of torch, for sizes that cannot be
        raise damaged(directory, FACTS, f"no student can be made from it ({in_a_line(error)})", TRAIN_AGAIN) from error
    student.load_state_dict(_read_weights(directory, facts, student.state_dict()))
    return student


def _of_library(directory: Directory, facts: Mapping[str, Any]) -> Student:
    """The student from the files that its library loads."""
    if not directory.is_local:
        raise InputError(
            f"{directory} is an export for {facts['library']}, which reads files on a disk: copy it to one."
        )
    for name in facts.get("sha256", {}):
        _read(directory, name, facts, EXPORT_AGAIN)
    folder = Path(directory.path)
    student = build_student(saved_in(folder, recorded(facts["student"])), len(facts["classes"]), for_inference=True)
    assert isinstance(student, LibraryStudent)
    student.load(folder)
    return student


def _place(given: str | Path | Directory) -> Directory:
    if isinstance(given, Directory):
        return given
    if not str(given).startswith(SCHEME):
        return Workspace.at(given)
    folder = downloaded(str(given), (FACTS, WEIGHTS))
    if not folder.has(FACTS):
        raise InputError(
            f"{given} has no {FACTS}, which 'aft-ray export' writes: an earlier version did not for students of timm,"
            " open_clip or transformers. Push it again, or load it as its README.md says under 'Use'."
        )
    if student_facts(folder).get("library") is None:
        return folder
    commit = f"{str(given).partition('@')[0]}@{PurePath(folder.path).name}"  # the same, if another is pushed meanwhile
    return downloaded(commit, (FACTS, *student_facts(folder).get("sha256", {})))


def _read_weights(
    directory: Directory, facts: Mapping[str, Any], expected: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Loads the weights beside the facts. Raises InputError if they belong to another student."""
    try:
        found = load(_read(directory, WEIGHTS, facts, TRAIN_AGAIN))
    except SafetensorError as error:
        raise damaged(directory, WEIGHTS, str(error), TRAIN_AGAIN) from error
    shapes = {name: tuple(tensor.shape) for name, tensor in found.items()}
    wanted = {name: tuple(tensor.shape) for name, tensor in expected.items()}
    if differing := sorted(name for name in shapes.keys() | wanted.keys() if shapes.get(name) != wanted.get(name)):
        told = [
            f"{name} is {shapes.get(name, 'missing')}, not {wanted.get(name, 'there')}" for name in differing[:NAMED]
        ]
        raise damaged(directory, WEIGHTS, f"it is of another student than {FACTS} ({'; '.join(told)})", TRAIN_AGAIN)
    return found


def _read(directory: Directory, name: str, facts: Mapping[str, Any], way_out: str) -> bytes:
    """The content of a file. Raises InputError if it is missing, or its checksum is not the one in the facts."""
    if not directory.has(name):
        raise damaged(directory, name, "it is missing", way_out)
    content = directory.read(name)
    expected = facts.get("sha256", {}).get(name)
    if expected is not None and hashlib.sha256(content).hexdigest() != expected:
        raise damaged(directory, name, f"its checksum is not the one in {FACTS}", way_out)
    return content
