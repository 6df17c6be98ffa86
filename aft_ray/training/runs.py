"""A run's directory: its claim, its history and its last checkpoint."""

from __future__ import annotations

import json
from typing import Any

from aft_ray.recipe.config import Recipe, dump
from aft_ray.recipe.errors import InputError
from aft_ray.store.files import Directory
from aft_ray.training.checkpoint import COMMIT, differing_keys

STOP = "stop"
"""A file that asks a run to end at its next evaluation."""
FAULTS = "faults.json"
"""What one worker alone has met: it ends the run for all."""
SNAPSHOT = "checkpoint_manager_snapshot.json"
"""Ray Train's own list of checkpoints, which it does not write atomically."""


def read_history(run: Directory) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`; empty if there is none."""
    if not run.has("metrics.jsonl"):
        return []
    return [json.loads(line) for line in run.read("metrics.jsonl").splitlines()]


def claim(run: Directory, recipe: Recipe, facts: dict[str, Any]) -> None:
    """Writes the resolved recipe and what it is run on beside the run, or checks that they are those there."""
    if run.has("inputs.json"):
        if differing := differing_keys(json.loads(run.read("inputs.json")), facts):
            raise InputError(
                f"{run} holds a run with another {', '.join(differing)}. Give this one a name with run=NAME,"
                " or delete the directory."
            )
    run.write("config.yaml", dump(recipe).encode())
    run.write("inputs.json", json.dumps(facts, indent=1).encode())


def last_checkpoint(run: Directory) -> Directory | None:
    """The last whole checkpoint. Deletes what else a job that is over has left: other checkpoints, why it ended, and
    Ray's list of checkpoints, which is half-written if a kill came at the wrong moment."""
    for place, name in ((run, FAULTS), (run / "checkpoints", SNAPSHOT)):
        if place.has(name):
            place.filesystem.delete_file(f"{place}/{name}")
    saved = [run / "checkpoints" / name for name in (run / "checkpoints").names() if name.startswith("step-")]
    last = max((checkpoint for checkpoint in saved if checkpoint.has(COMMIT)), key=str, default=None)
    for checkpoint in saved:
        if checkpoint != last:
            checkpoint.delete()
    return last
