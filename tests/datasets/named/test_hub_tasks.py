"""Every named task from a copy in the hub's schema to the scores of a trained student, with tiny random teachers.

Three tasks, one per modality, go through Ray Data as a user's do, and the student of two towers through Ray Train with two
workers. A Ray job per task would cost minutes, so for the others what these call is called here in this process:
`plan_extraction`, `ReadShard`, `EmbedShard`, `write_manifests`, `load_data`, `fit`. `prepare`, `check` and `evaluate`
are the commands' own everywhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aft_ray.cluster.attempts import AttemptsHere, Watch
from aft_ray.commands.check import check, open_setup
from aft_ray.datasets.named import hub_tasks
from aft_ray.datasets.prepare import prepare
from aft_ray.export.evaluate import evaluate
from aft_ray.export.student import load_student
from aft_ray.extraction.extract import Entries, extract, write_manifests
from aft_ray.extraction.features import RESULT, EmbedShard
from aft_ray.extraction.plan import plan_extraction
from aft_ray.extraction.reading import ReadShard
from aft_ray.recipe.config import Recipe, override
from aft_ray.store.side_by_side import open_store
from aft_ray.store.workspace import Workspace
from aft_ray.training.fit import fit
from aft_ray.training.inputs.data import load_data
from aft_ray.training.inputs.stores import open_setup as open_samples
from aft_ray.training.runs import RunDirectory
from aft_ray.training.train import train
from tests.helpers import hub
from tests.helpers.hub_data import write_copy
from tests.helpers.small_students import small_config
from tests.models.teachers.test_open_clip_teacher import TINY, save

pytestmark = pytest.mark.slow

TASKS = {task.name: task for task in (*hub_tasks.IMAGES, *hub_tasks.TEXTS, *hub_tasks.PAIRS)}
THROUGH_RAY = ("cifar10", "rte", "snli_ve")
STUDENTS = {"image": "tiny:cnn", "text": "tiny:text", "image+text": "open_clip"}


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """By modality: random models of a library that fits."""
    root = tmp_path_factory.mktemp("teachers")
    clip = f"open_clip:local-dir:{save(root / 'clip', TINY)}"
    return {
        "image": [{"name": "vit", "model": f"transformers:{hub.save_image_model('vit', root / 'vit')}"}],
        "text": [{"name": "bert", "model": f"transformers:{hub.save_text_model('bert', root / 'bert')}"}],
        "image+text": [{"name": tower, "model": clip, "tower": tower} for tower in ("image", "text")],
    }


def recipe(tmp_path: Path, task: str, teachers: dict[str, list[dict[str, Any]]], **train: Any) -> Recipe:
    modality = TASKS[task].modality
    student = small_config(STUDENTS[modality], tmp_path / "student")
    return Recipe.model_validate(
        {
            "workspace": str(tmp_path / "work"),
            "dataset": {"name": task, "path": str(write_copy(tmp_path / "copy", task))},
            "teachers": teachers[modality],
            "student": student.model_dump(mode="json"),
            "regularizer": {"name": "aft", "beta": 3},
            "train": {"steps": 3, "global_batch_size": 12, "evaluate_every": 1, **train},
        }
    )


def extract_here(given: Recipe) -> None:
    """`extract` without Ray: its own stages, one after the other."""
    plan, entries = plan_extraction(given), Entries()
    watch = Watch(AttemptsHere(), "this test", 0)
    stages = [
        EmbedShard(config, plan.workspace, {v: plan.fingerprints[v] for v in plan.views[config.name]}, watch)
        for config in plan.teachers
    ]
    read = ReadShard(plan.workspace, plan.descriptions, watch)
    for missing in plan.missing:
        row = read(missing)
        split, shard = row["split"], row["shard"]
        for stage in stages:
            row = stage(row)
        for view in missing.teachers:
            result = row[RESULT + view]
            entries.setdefault((view, split), {})[shard] = result["entry"]
    write_manifests(given, plan, entries)


def assert_trained(given: Recipe) -> None:
    """Three steps whose losses are there and differ, a student that loads, and scores of every test sample."""
    run = Workspace.at(given.workspace).run(given.run)
    history = RunDirectory(run).history()
    assert [line["step"] for line in history] == [1, 2, 3]
    assert all(np.isfinite(line["loss"]) and line["regularization"] > 0 for line in history)
    assert len({line["task_loss"] for line in history}) == 3
    result = evaluate(given)
    num_classes = TASKS[given.dataset.name or ""].num_classes
    assert result["accuracy"] == pytest.approx(history[-1]["test_accuracy"])
    assert len(load_student(run).classes) == num_classes


def fit_here(given: Recipe) -> None:
    """`train` without Ray."""
    run = Workspace.at(given.workspace).run(given.run)
    fit(given, load_data(given, open_samples(given).stores), directory=run, report=lambda metrics, state: None)


@pytest.mark.parametrize("task", [task for task in TASKS if task not in THROUGH_RAY])
def test_a_named_task_is_prepared_extracted_trained_on_and_evaluated(
    task: str, tmp_path: Path, teachers: dict[str, list[dict[str, Any]]]
) -> None:
    given = recipe(tmp_path, task, teachers)
    check(given, "pipeline")
    prepare(given)
    extract_here(given)
    fit_here(given)
    assert_trained(given)


@pytest.mark.ray
@pytest.mark.parametrize("task", THROUGH_RAY)
def test_a_named_task_of_each_modality_goes_through_ray(
    task: str, cluster: None, tmp_path: Path, teachers: dict[str, list[dict[str, Any]]]
) -> None:
    given = recipe(tmp_path, task, teachers, num_workers=2)
    prepare(given)
    assert set(extract(given)) == {teacher["name"] for teacher in teachers[TASKS[task].modality]}
    store = open_store(given.workspace, "train", given.teacher_names())
    through_ray = store.read_shard(0)["features"]
    if TASKS[task].modality == "image+text":
        train(open_setup(given, "train"))
    else:
        fit_here(override(given, {"train.num_workers": 1}))
    assert_trained(given)
    for teacher in given.teachers:  # what this file calls by itself for the others makes the same features
        (Workspace.at(given.workspace) / "features" / teacher.name).delete()
    extract_here(given)
    np.testing.assert_array_equal(store.read_shard(0)["features"], through_ray)
