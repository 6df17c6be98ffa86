"""The facts of a student as others may see them: an export is published, and must not tell where things lie on a machine.

Of a place only its last part stays, its name. `package://` is a place of everybody's and stays whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from aft_ray.recipe.errors import InputError
from aft_ray.recipe.places import is_url
from aft_ray.store.shards import without_place

PLACE = re.compile(r"(?<![^:])(?<!package:)([/~.]|(?!package:)[\w+]+://).*", re.DOTALL)
"""A path or a URL, whole or after a library's name and a colon."""
NEEDED_WEIGHTS = ("tiny:text", "tiny:pair")
"""Students whose `weights` name a directory that is read whenever they are loaded: it has their tokenizer."""


def public(name: str) -> str:
    """The name of a model or of weights without the folder of a machine, the bucket or the store."""
    found = PLACE.search(name)
    return name if found is None else name[: found.start()] + _last(found[0])


def _last(place: str) -> str:
    path = place.partition("?")[0] if "://" in place else place
    return PurePosixPath(path).name or "unknown"


def public_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The content of `student.json`: all that `load_student` needs."""
    student = _student(facts["student"])
    if student["model"] in NEEDED_WEIGHTS:
        student["weights"] = facts["student"].get("weights")
    teachers = [{**teacher, "model": public(teacher.get("model", ""))} for teacher in facts["teachers"]]
    return {**facts, "student": student, "teachers": teachers, "dataset": _dataset(facts.get("dataset", {}))}


def public_inputs(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The content of `inputs.json`."""
    found = dict(inputs)
    if "recipe" in inputs:
        found["recipe"] = {**inputs["recipe"], "student": _student(inputs["recipe"]["student"])}
    found["samples"] = _samples(inputs.get("samples"))
    found["teachers"] = {name: _teacher(teacher) for name, teacher in (inputs.get("teachers") or {}).items()}
    return found


def check_loads_elsewhere(facts: Mapping[str, Any]) -> None:
    """Raises InputError if a pushed student could be loaded on this machine alone."""
    student = facts["student"]
    weights = student.get("weights")
    if student["model"] in NEEDED_WEIGHTS and weights and not is_url(weights) and not weights.startswith("package://"):
        raise InputError(
            f"--push-to-hub: {student['model']} reads its words from student.weights, {weights}, which others do not have."
            " Train it with weights at a URL or in a package, or export it without a push."
        )


def _student(student: Mapping[str, Any]) -> dict[str, Any]:
    weights = student.get("weights")
    return {**student, "model": public(student["model"]), "weights": weights and _unless_packaged(weights)}


def _unless_packaged(place: str) -> str:
    return place if place.startswith("package://") else _last(place)


def _dataset(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """path: its name says which data it was. The arguments of a source of the user's own may be places."""
    found = dict(dataset)
    if found.get("path"):
        found["path"] = _last(found["path"])
    if found.get("options"):
        found["options"] = {}
    if found.get("columns", {}).get("image_root"):
        found["columns"] = {**found["columns"], "image_root": None}
    return found


def _samples(fingerprint: Any) -> Any:
    """The fingerprint of each split, or of two that were joined; older ones name the place of the raw data."""
    if isinstance(fingerprint, list):
        return [_samples(part) for part in fingerprint]
    if not isinstance(fingerprint, dict):
        return fingerprint
    if "dataset" in fingerprint:
        return without_place(fingerprint)
    return {key: _samples(part) for key, part in fingerprint.items()}


def _teacher(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {key: public(value) for key, value in fingerprint.items() if key == "model"}
    options = fingerprint.get("options")
    if isinstance(options, dict):
        found["options"] = {key: public(value) if isinstance(value, str) else value for key, value in options.items()}
    return {**fingerprint, **found}
