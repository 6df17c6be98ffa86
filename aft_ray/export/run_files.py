"""The JSON files of a finished run, checked when they are read: a file may be truncated, edited, or of another run."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from aft_ray.export.scores import SCORES
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import StudentConfig
from aft_ray.store.files import Directory

TRAIN_AGAIN = "Restore it from a copy, or train again under another name (run=NAME)."
EVALUATE_AGAIN = "Delete it and run 'aft-ray evaluate' again."
NAMED = 3
"""Faults of one file that are told."""


class _Form(BaseModel):
    """A JSON object of which some keys are checked."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Teacher(_Form):
    name: str
    model: str = ""
    feature_dim: int = Field(gt=0)


class _Method(_Form):
    name: str
    beta: float


class _StudentFacts(_Form):
    """What a student is loaded from, and what its model card shows if it is there."""

    student: StudentConfig
    classes: list[str] = Field(min_length=1)
    teachers: list[_Teacher]
    task: Literal["classification", "multilabel", "regression"] = "classification"
    regularizer: _Method | None = None
    dataset: dict[str, Any] = {}
    step: int = 0
    val_accuracy: float | None = None
    val_loss: float | None = None
    test_accuracy: float | None = None
    test_loss: float | None = None
    sha256: dict[str, str] = {}


class _Train(_Form):
    steps: int
    global_batch_size: int


class _RunRecipe(_Form):
    train: _Train | None = None


class _RunInputs(_Form):
    recipe: _RunRecipe = _RunRecipe()
    samples: dict[str, Any] | None = None
    teachers: dict[str, Any] | None = None


_SCORE_FIELDS: dict[str, Any] = {key: (float | None, None) for key in SCORES}
_Evaluation = create_model("_Evaluation", __base__=_Form, **_SCORE_FIELDS)


def student_facts(directory: Directory) -> dict[str, Any]:
    """`student.json` in `directory`. Raises InputError if it is damaged."""
    return _read(directory, "student.json", _StudentFacts, TRAIN_AGAIN)


def run_inputs(run: Directory) -> dict[str, Any]:
    """`inputs.json`; empty for a run without one. Raises InputError if it is damaged."""
    return _read(run, "inputs.json", _RunInputs, TRAIN_AGAIN) if run.has("inputs.json") else {}


def evaluation_on_test(run: Directory) -> dict[str, Any]:
    """`evaluation-test.json`; empty for a run that was not evaluated. Raises InputError if it is damaged."""
    name = "evaluation-test.json"
    return _read(run, name, _Evaluation, EVALUATE_AGAIN) if run.has(name) else {}


def damaged(directory: Directory, name: str, reason: str, way_out: str = TRAIN_AGAIN) -> InputError:
    return InputError(f"{directory}/{name} is damaged: {reason}. {way_out}")


def _read(directory: Directory, name: str, form: type[BaseModel], way_out: str) -> dict[str, Any]:
    """The JSON object in a file. Raises InputError, one line per fault, if it is not as `form` says."""
    try:
        found = json.loads(directory.read(name))
        form.model_validate(found)
    except ValidationError as error:
        faults = [(".".join(map(str, entry["loc"])) or "all of it", entry["msg"]) for entry in error.errors()[:NAMED]]
        raise InputError(
            [str(damaged(directory, name, f"{key}: {fault}", way_out)) for key, fault in faults]
        ) from error
    except (ValueError, RecursionError) as error:
        raise damaged(directory, name, f"it is no whole JSON ({error})", way_out) from error
    return found
