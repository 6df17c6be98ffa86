"""The evaluations of a run: the lines of `metrics.jsonl`, which a checkpoint holds too."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field, with_config
from typing_extensions import NotRequired, TypedDict

from aft_ray.recipe.json_files import damaged, parsed_json
from aft_ray.store.files import Directory

METRICS = "metrics.jsonl"

Share = Annotated[float, Field(ge=0, le=1)] | None
"""None where there is none, as in a regression."""


@with_config(ConfigDict(extra="allow"))
class Evaluation(TypedDict):
    """One line. The last one also has the scores on test."""

    step: Annotated[int, Field(ge=0)]
    epoch: float
    loss: float
    task_loss: float
    regularization: float
    samples_per_s: float
    val_accuracy: Share
    val_loss: float | None
    test_accuracy: NotRequired[Share]
    test_loss: NotRequired[float | None]


def read_evaluations(run: Directory) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`; empty if there is none. Raises InputError that names the line."""
    if not run.has(METRICS):
        return []
    way_out = f"Restore it from a copy, or delete the directory {run} and train again."
    lines = [
        parsed_json(line, Evaluation, f"{run}/{METRICS}, line {number},", way_out)
        for number, line in enumerate(run.read(METRICS).splitlines(), 1)
    ]
    steps = [line["step"] for line in lines]
    if steps != sorted(set(steps)):
        raise damaged(f"{run}/{METRICS}", ["its steps do not rise from line to line"], way_out)
    return lines
