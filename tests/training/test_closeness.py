"""How near a student came to its teachers: known answers for students made to fit, in every way of training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aft_ray.recipe.config import override
from aft_ray.regularizers import REGULARIZERS
from aft_ray.regularizers.fitted_probes import as_targets
from aft_ray.training.build import build_task
from aft_ray.training.closeness import MOST_ROWS, closeness
from aft_ray.training.inputs.batches import Split
from aft_ray.training.inputs.data import Data, load_data
from jobs.benchmarks.made_store import made_store
from tests.helpers.training import DATA, TEACHERS, TEST, TRAIN, VALIDATION, made_split, recipe, run

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
OF_STUDENT = {"rows", "student_head", "student_labels"}
OF_TEACHERS = {"teachers_head", "target_labels", "student_target", "kernel_distance"}


def near(place: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads((place / "student" / "student.json").read_text())["closeness"]
    return found


def of_probe(method: str, split: Split, **changes: Any) -> Mapping[str, Any]:
    """Of a student whose features are those of the teachers, as it is before training."""
    given = override(recipe(method), {"student.model": "linear_probe", **changes})
    train, validation = (replace(s, inputs=(), input_teachers=TEACHERS) for s in (TRAIN, split))
    data = Data(train, validation, TEST).of(given)
    assert data.validation is not None
    return closeness(build_task(given, data, CPU, weights_follow=False), data.validation, CPU)


def test_a_student_that_is_its_teacher_has_no_distance_to_it() -> None:
    one = [{"name": "one", "model": "timm:one"}]
    found = of_probe("aft", VALIDATION, teachers=one, **{"regularizer.learn_gates": False})
    assert found["student_target"] == pytest.approx(1) and found["kernel_distance"] == pytest.approx(0, abs=1e-6)
    assert found["student_head"] == found["teachers_head"] > 0.2
    assert found["student_labels"] == pytest.approx(found["target_labels"]) and found["target_labels"] > 0.2


def test_noise_tells_nothing_of_the_labels() -> None:
    random = np.random.default_rng(0)
    split = replace(
        made_split(400, 3), features={name: random.normal(size=(400, 30)).astype(np.float16) for name in TEACHERS}
    )
    wide = replace(TRAIN, features={name: random.normal(size=(60, 30)).astype(np.float16) for name in TEACHERS})
    given = recipe("aft")
    task = build_task(given, Data(wide, split, TEST).of(given), CPU, weights_follow=False)
    found = closeness(task, split, CPU)
    assert found["teachers_head"] is not None and found["teachers_head"] <= 0.02
    assert abs(found["target_labels"] or 0) < 0.05 and abs(found["student_target"] or 0) < 0.05


def test_targets_are_made_of_the_compared_rows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all rows they would take gigabytes where there are thousands of classes."""
    made: list[int] = []

    def counted(labels: np.ndarray, num_outputs: int) -> np.ndarray:
        made.append(len(labels))
        return as_targets(labels, num_outputs)

    monkeypatch.setattr("aft_ray.training.closeness.as_targets", counted)
    split = made_split(2 * MOST_ROWS, 3)
    assert of_probe("aft", split)["rows"] == MOST_ROWS and made == [MOST_ROWS]


@pytest.mark.parametrize("method", [name for name in REGULARIZERS])
def test_every_method_leaves_the_numbers_beside_its_student(method: str, tmp_path: Path) -> None:
    run(recipe(method, steps=2), tmp_path)
    found = near(tmp_path)
    assert found.keys() == OF_STUDENT | (OF_TEACHERS if method != "none" else set())
    assert found["rows"] == len(VALIDATION) and all(value is not None for value in found.values())


@pytest.mark.parametrize("method", ["aft", "aft_probe", "probe_kd"])
@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_other_tasks_have_them_too(method: str, task: str, tmp_path: Path) -> None:
    data = Data(made_split(60, 0, task), made_split(40, 1, task), made_split(20, 2, task))
    run(recipe(method, steps=2), tmp_path, data)
    assert near(tmp_path)["teachers_head"] > 0.05 and near(tmp_path)["target_labels"] > 0.05


@pytest.mark.parametrize("method", ["aft", "aft_probe", "none"])
def test_a_student_with_two_towers_has_them_too(method: str, tmp_path: Path) -> None:
    def paired(num_samples: int, seed: int) -> Split:
        split = made_split(num_samples, seed)
        assert isinstance(split.inputs, np.ndarray)
        words = np.random.default_rng(seed).integers(1, 50, (num_samples, 8)) + 100 * split.labels[:, None]
        modalities = {"one": "image", "two": "text"}
        return replace(split, inputs=(split.inputs, words.astype(np.int32)), modalities=modalities)

    given = override(recipe(method, steps=2), {"student.model": "tiny:pair"})
    run(given, tmp_path, Data(paired(60, 0), paired(31, 1), paired(17, 2)))
    assert all(value is not None for value in near(tmp_path).values()) and near(tmp_path)["rows"] == 31


def test_a_streamed_run_has_the_numbers_of_one_in_memory(tmp_path: Path) -> None:
    splits = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
    stores = {name: made_store(tmp_path / "work", name, split, shard_size=7) for name, split in splits.items()}
    given = recipe("aft", steps=1)
    task = build_task(given, DATA.of(given), CPU, weights_follow=False)
    streamed = load_data(override(given, {"train.streaming": True}), stores).validation
    assert streamed is not None
    assert closeness(task, streamed, CPU) == pytest.approx(closeness(task, VALIDATION, CPU))


def test_only_rows_with_a_label_count_and_a_few_are_too_few() -> None:
    labels = VALIDATION.labels.copy()
    labels[:9] = -1
    assert of_probe("aft", replace(VALIDATION, labels=labels))["rows"] == 22
    labels[:15] = -1
    assert of_probe("aft", replace(VALIDATION, labels=labels)) == {}


def test_infinite_features_end_no_run() -> None:
    features = {name: np.full((len(VALIDATION), 5), np.inf, np.float16) for name in TEACHERS}
    one = [{"name": "one", "model": "timm:one"}]
    assert of_probe("aft", replace(VALIDATION, features=features), teachers=one) == {}


def test_of_many_rows_some_are_taken_from_all_over_the_split(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = of_probe("aft", made_split(300, 4))
    monkeypatch.setattr("aft_ray.training.closeness.MOST_ROWS", 150)
    part = of_probe("aft", made_split(300, 4))
    assert (whole["rows"], part["rows"]) == (300, 150)
    assert part["student_target"] == pytest.approx(whole["student_target"], abs=0.1)


def test_a_run_without_a_validation_split_has_none(tmp_path: Path) -> None:
    run(recipe("aft", steps=1), tmp_path, DATA.with_validation_in_train())
    assert near(tmp_path) == {}
