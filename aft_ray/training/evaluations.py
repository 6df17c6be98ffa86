"""The evaluations of a run: the lines of `metrics.jsonl`, which a checkpoint holds too."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import ConfigDict, Field, with_config
from typing_extensions import NotRequired, TypedDict

from aft_ray.recipe.json_files import damaged, parsed_json
from aft_ray.store.files import Directory
from aft_ray.training.owner import marked, unmarked

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
    run_id: NotRequired[str]
    val_accuracy: Share
    val_loss: float | None
    test_accuracy: NotRequired[Share]
    test_loss: NotRequired[float | None]


def write_evaluations(run: Directory, history: Iterable[dict[str, Any]], owner: str | None) -> None:
    """Writes `metrics.jsonl`; each line has the id of its run."""
    run.write(METRICS, "".join(json.dumps(marked(line, owner)) + "\n" for line in history).encode())


def read_evaluations(run: Directory, owner: str | None) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`; empty if there is none.

    Raises InputError that names the line, also where it is of another run than `owner`.
    """
    if not run.has(METRICS):
        return []
    way_out = f"Restore it from a copy, or delete the directory {run} and train again."
    lines = []
    for number, line in enumerate(run.read(METRICS).splitlines(), 1):
        what = f"{run}/{METRICS}, line {number},"
        lines.append(unmarked(parsed_json(line, Evaluation, what, way_out), owner, what, way_out))
    if not lines:
        raise damaged(f"{run}/{METRICS}", ["it is empty"], way_out)
    steps = [line["step"] for line in lines]
    if steps != sorted(set(steps)):
        raise damaged(f"{run}/{METRICS}", ["its steps do not rise from line to line"], way_out)
    return lines
