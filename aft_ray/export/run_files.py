"""The JSON files of a finished run, checked when they are read."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from aft_ray.export.scores import SCORES
from aft_ray.recipe import json_files
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.json_files import parsed_json
from aft_ray.recipe.sections import DatasetConfig, StudentConfig
from aft_ray.recipe.task import Task
from aft_ray.store.files import Directory
from aft_ray.training.owner import unmarked
from aft_ray.training.runs import RunDirectory

TRAIN_AGAIN = "Restore it from a copy, or train again under another name (run=NAME)."
EXPORT_AGAIN = "Run 'aft-ray export' again: it keeps a changed export beside the new one."
EVALUATE_AGAIN = "Delete it and run 'aft-ray evaluate' again."


class Form(BaseModel):
    """A JSON object with some checked keys; types are not converted."""

    model_config = ConfigDict(extra="allow", strict=True)


class Teacher(Form):
    name: str
    model: str = ""
    feature_dim: int = Field(gt=0)


class Method(Form):
    name: str
    beta: float


class _StudentFacts(Form):
    """student.json: the keys needed to load a student, and optional ones for its model card.

    library: in an export, whose format the files have that `sha256` lists; None in a run.
    """

    student: StudentConfig
    library: Literal["timm", "open_clip", "transformers"] | None = None
    classes: list[str] = Field(min_length=1)
    teachers: list[Teacher]
    task: Task = "classification"
    regularizer: Method | None = None
    dataset: dict[str, Any] = {}
    step: int = 0
    val_accuracy: float | None = None
    val_loss: float | None = None
    test_accuracy: float | None = None
    test_loss: float | None = None
    sha256: dict[str, str] = {}


class _Train(Form):
    steps: int
    global_batch_size: int


class _RunRecipe(Form):
    train: _Train | None = None


class _RunInputs(Form):
    recipe: _RunRecipe = _RunRecipe()
    samples: dict[str, Any] | None = None
    teachers: dict[str, Any] | None = None


class _Evaluation(Form):
    @model_validator(mode="after")
    def _scores_are_numbers(self) -> _Evaluation:
        found = self.model_extra or {}
        if wrong := [key for key in SCORES if not isinstance(found.get(key), (int, float, NoneType))]:
            raise ValueError(f"{', '.join(wrong)} must be numbers")
        return self


def read_checked(
    directory: Directory, name: str, form: type[Form], way_out: str, owner: str | None = None
) -> dict[str, Any]:
    """The JSON object in a file, without the id of its run.

    Raises InputError, one line per fault, if it is not as `form` says, or of another run than `owner`.
    """
    what = f"{directory}/{name}"
    return unmarked(parsed_json(directory.read(name), form, what, way_out), owner, what, way_out)


def damaged(directory: Directory, name: str, reason: str, way_out: str) -> InputError:
    """The error for a file that is not as it was written."""
    return json_files.damaged(f"{directory}/{name}", [reason], way_out)


def student_facts(directory: Directory, owner: str | None = None) -> dict[str, Any]:
    """`student.json` in `directory`. Raises InputError if it is damaged, or of another run than `owner`."""
    return read_checked(directory, "student.json", _StudentFacts, TRAIN_AGAIN, owner)


def run_inputs(run: Directory) -> dict[str, Any]:
    """`inputs.json`; empty for a run without one. Raises InputError if it is damaged."""
    return read_checked(run, "inputs.json", _RunInputs, TRAIN_AGAIN) if run.has("inputs.json") else {}


def read_evaluation(run: Directory, split: str) -> dict[str, Any]:
    """`evaluation-<split>.json`; empty for a run that was not evaluated on it.

    Raises InputError if it is damaged, or of another run or split.
    """
    name = f"evaluation-{split}.json"
    if not run.has(name):
        return {}
    found = read_checked(run, name, _Evaluation, EVALUATE_AGAIN, RunDirectory(run).run_id)
    if found.get("split", split) != split:
        raise damaged(run, name, f"it is of the split {found['split']}", EVALUATE_AGAIN)
    return found


def trained_on(facts: Mapping[str, Any], recipe: Recipe) -> DatasetConfig:
    """The `dataset` that a student was trained on, kept beside its weights: it says how a row becomes a sample."""
    if not (found := facts.get("dataset")):
        return recipe.dataset
    try:
        return DatasetConfig.model_validate(found)
    except ValidationError as error:
        fault = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InputError(f"student.json of run '{recipe.run}' is damaged: dataset: {fault}. {TRAIN_AGAIN}") from error
