"""Re-reads trained students, their scores, exports and predictions: one line for each file that is damaged or foreign."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from typing import Any

from typing_extensions import NotRequired, TypedDict

from aft_ray.export.prediction_files import SUMMARY, is_own_summary
from aft_ray.export.replacement import RECORD, export_place
from aft_ray.export.run_files import EVALUATE_AGAIN, EXPORT_AGAIN, TRAIN_AGAIN, damaged, read_evaluation, student_facts
from aft_ray.recipe.errors import faults_of
from aft_ray.store.files import Directory
from aft_ray.store.schema import SPLITS
from aft_ray.training.checkpoint import read_tensors
from aft_ray.training.owner import check_owner
from aft_ray.training.runs import RunDirectory

PREDICT_AGAIN = "Run 'aft-ray predict' again."
WEIGHTS = ("student.safetensors", "regularizer.safetensors")


class _Record(TypedDict):
    """lineage.json, as far as it is read here. files: hash of each file of the export."""

    files: dict[str, str]
    run_id: NotRequired[str]


class _Predictions(TypedDict):
    """predictions.json, as far as it is read here."""

    files: list[str]
    sha256: NotRequired[dict[str, str]]


def student_faults(run: RunDirectory) -> list[str]:
    """Faults of the student, its scores on the splits and its export."""
    checks = [partial(_check_scores, run.place, split) for split in SPLITS]
    if run.is_finished:
        checks.insert(0, partial(_check_student, run))
    return faults_of(*checks, partial(_check_export, run))


def _check_student(run: RunDirectory) -> None:
    place = run.place / "student"
    facts = student_facts(place, run.run_id)
    for name in WEIGHTS:
        _check_hash(place, name, facts.get("sha256", {}), "student.json", TRAIN_AGAIN)
        read_tensors(place, name, TRAIN_AGAIN)
    lines = [line for line in run.history() if line["step"] == facts.get("step")]
    keys = ("val_accuracy", "val_loss")
    if "step" in facts and [line.get(key) for line in lines for key in keys] != [facts.get(key) for key in keys]:
        raise damaged(place, "student.json", "no evaluation of this run has its scores", TRAIN_AGAIN)


def _check_scores(run: Directory, split: str) -> None:
    facts, name = read_evaluation(run, split), f"predictions-{split}.parquet"
    if name in facts.get("sha256", {}):
        _check_hash(run, name, facts["sha256"], f"evaluation-{split}.json", EVALUATE_AGAIN)


def _check_export(run: RunDirectory) -> None:
    place = export_place(run.place)
    if place is None or not place.has(RECORD):
        return
    record = place.read_json(RECORD, _Record, EXPORT_AGAIN)
    check_owner(record.get("run_id"), run.run_id, f"{place}/{RECORD}", EXPORT_AGAIN)
    for name in record["files"]:
        _check_hash(place, name, record["files"], RECORD, EXPORT_AGAIN)


def prediction_faults(place: Directory) -> list[str]:
    """Faults of the predictions in a directory that `predict` has written."""
    return faults_of(partial(_check_predictions, place)) if place.has(SUMMARY) else []


def _check_predictions(place: Directory) -> None:
    if not is_own_summary(place):
        raise damaged(place, SUMMARY, "'aft-ray predict' did not write it so", PREDICT_AGAIN)
    facts: dict[str, Any] = place.read_json(SUMMARY, _Predictions, PREDICT_AGAIN)
    for name in facts["files"]:
        _check_hash(place, name, facts.get("sha256", {}), SUMMARY, PREDICT_AGAIN)


def _check_hash(place: Directory, name: str, hashes: Mapping[str, str], told_in: str, way_out: str) -> None:
    """Raises InputError if a file is missing, or its hash is not the recorded one. Files of before have none."""
    if not place.has(name):
        raise damaged(place, name, "it is missing", way_out)
    if name in hashes and hashlib.sha256(place.buffer(name)).hexdigest() != hashes[name]:
        raise damaged(place, name, f"its checksum is not the one in {told_in}", way_out)
