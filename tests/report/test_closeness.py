"""Why a student does not follow, in words, from numbers of kinds that were seen in trials."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from aft_ray.report.closeness import closeness_of
from aft_ray.report.report import report
from aft_ray.report.results import Group, Training
from tests.helpers.report import chosen, recipe_at, trial, write_everything, write_training

pytestmark = pytest.mark.slow

SEEN = {"student_head": 0.5, "teachers_head": 0.68, "student_labels": 0.4, "target_labels": 0.4}
SEEN |= {"student_target": 0.5, "kernel_distance": 0.2}


def group(method: str = "aft", steps: tuple[int, ...] = (50, 100), fall: float = 0.0, **numbers: Any) -> Group:
    """A method's runs with two seeds; the regularization falls by `fall` from the one evaluation to the other."""
    values = (0.2, 0.2 * (1 - fall))
    history = [
        {"step": step, "val_accuracy": step / 1000, "regularization": value, "kernel_distance": value}
        for step, value in zip(steps, values, strict=True)
    ]
    recipe = {"regularizer": {"name": method}}
    known = {key: value for key, value in (SEEN | numbers).items() if value != "missing"}
    return Group("AFT", [Training(f"seed{seed}", recipe, history, {}, known) for seed in (1, 2)])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (group(teachers_head=0.01), "AFT: a target without labels. The teachers' features do not tell them at all"),
        (group(target_labels=0.07), "a target that hardly shows the labels (CKA 0.07), though a head reads R2 0.68"),
        (group(target_labels=0.07), "aft_probe puts them into the target."),
        (group(kernel_distance=0.41), "learnt by heart. Its distance to the target is 0.20 on training rows and 0.41"),
        (
            group(student_target=0.76),
            "the student follows its target (CKA 0.76). A head reads R2 0.50 from its features",
        ),
        (group(student_target=0.76, student_head=0.7), "(CKA 0.76), and little is left to learn from these teachers."),
        (group(student_head=0.7), "too small a student"),
        (group(fall=0.06), "too few steps. The last student was the best, and the regularization still fell by 1.2 %"),
        (group(fall=0.01), "too small a student, or too weak a beta. It came no nearer to its target than CKA 0.50"),
    ],
)
def test_each_kind_is_told_apart(given: Group, words: str) -> None:
    (found,) = closeness_of([given])
    assert words in found.sentence


def test_a_method_with_probes_is_not_sent_to_itself() -> None:
    (found,) = closeness_of([group("aft_probe", target_labels=0.07)])
    assert found.sentence.endswith("from the teachers' features.")


def test_a_student_that_was_best_before_the_end_had_steps_enough() -> None:
    falling = group(fall=0.06)
    for training in falling.trainings:
        training.history[0]["val_accuracy"] = 1.0
    (found,) = closeness_of([falling])
    assert "too small a student" in found.sentence


def test_standard_transfer_has_numbers_and_no_sentence() -> None:
    keys = ("teachers_head", "target_labels", "student_target", "kernel_distance")
    without: dict[str, Any] = dict.fromkeys(keys, "missing")
    (found,) = closeness_of([group("none", **without)])
    assert found.sentence == "" and found.numbers["student_head"] == 0.5


def test_runs_of_before_are_left_out_and_missing_numbers_stay_unknown() -> None:
    old, new = group(), group(student_labels=None)
    old.trainings[0].closeness.clear()
    old.trainings[1].closeness.clear()
    (found,) = closeness_of([old, new])
    assert found.numbers["student_labels"] != found.numbers["student_labels"] and found.sentence


def tell(directory: Path) -> None:
    """Adds the numbers to a student's facts, as `fit` writes them."""
    path = directory / "student" / "student.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "closeness": {"rows": 90, **SEEN}}))


def test_the_page_and_a_csv_show_the_numbers_and_the_sentence(tmp_path: Path) -> None:
    recipe = recipe_at(tmp_path)
    write_everything(recipe)
    page = Path(report(recipe)).read_text()
    assert "Does the student follow?" not in page and not Path(tmp_path, "report", "closeness.csv").exists()
    for directory in Path(tmp_path, "searches", recipe.run, "trials").glob("final-aft-*"):
        tell(directory)
    page = Path(report(recipe)).read_text()
    assert "Does the student follow?" in page and "AFT: too small a student, or too weak a beta." in page
    with Path(tmp_path, "report", "closeness.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["method"], float(row["student_head"])) == ("aft", 0.5) and row["in_words"].startswith("AFT: too small")


def test_where_final_runs_had_no_validation_the_trials_of_the_same_setting_tell(tmp_path: Path) -> None:
    recipe = recipe_at(tmp_path)
    write_everything(recipe)
    row = trial("search", "aft", *chosen("aft"))
    directory = Path(tmp_path, "searches", recipe.run, "trials", row["trial"])
    write_training(directory, recipe, row)
    tell(directory)
    assert "AFT: too small a student, or too weak a beta." in Path(report(recipe)).read_text()
