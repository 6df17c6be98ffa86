"""The evaluations of a run: the lines of `metrics.jsonl`, which a checkpoint holds too.

Each line ends with a digest of the file up to there: no other file records the numbers of a run that is on its way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import ConfigDict, Field, with_config
from typing_extensions import NotRequired, TypedDict

from aft_ray.recipe.json_files import checked_json, damaged
from aft_ray.store.files import Directory
from aft_ray.training.owner import marked, unmarked

METRICS = "metrics.jsonl"
DIGEST = b', "digest": "'
"""Text before a line's digest, which is the last value of its object."""

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
    seal, lines = _Seal(), []
    for line in history:
        text = json.dumps(marked(line, owner)).encode().removesuffix(b"}")
        lines.append(text + seal.end_of(text))
    run.write(METRICS, b"".join(lines))


def read_evaluations(run: Directory, owner: str | None, way_out: str) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`; empty if there is none.

    Raises InputError that names the line and the `way_out`, a sentence, also where it is of another run than `owner`.
    """
    if not run.has(METRICS):
        return []
    seal, lines = _Seal(), []
    for number, line in enumerate(run.read(METRICS).splitlines(keepends=True), 1):
        what = f"{run}/{METRICS}, line {number},"
        text, has_digest, end = line.rpartition(DIGEST)
        value = checked_json(text + b"}" if has_digest else line, Evaluation, what, way_out)
        if has_digest and has_digest + end != seal.end_of(text):
            raise damaged(what, ["it or a line above was changed after it was written, as its digest shows"], way_out)
        lines.append(unmarked(value, owner, what, way_out))
    if not lines:
        raise damaged(f"{run}/{METRICS}", ["it is empty"], way_out)
    steps = [line["step"] for line in lines]
    if steps != sorted(set(steps)):
        raise damaged(f"{run}/{METRICS}", ["its steps do not rise from line to line"], way_out)
    return lines


class _Seal:
    """Digests of the lines of a file, one after the other."""

    def __init__(self) -> None:
        self.so_far = hashlib.sha256()

    def end_of(self, text: bytes) -> bytes:
        """The end of a line that begins with `text`."""
        self.so_far.update(text)
        end = DIGEST + self.so_far.hexdigest()[:16].encode() + b'"}\n'
        self.so_far.update(end)
        return end
