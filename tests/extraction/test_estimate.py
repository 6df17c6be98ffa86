from __future__ import annotations

from pathlib import Path

import pytest

from aft_ray.datasets.prepare import prepare
from aft_ray.extraction.estimate import plan
from aft_ray.extraction.extract import extract
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError

pytestmark = pytest.mark.ray


def recipe(tmp_path: Path, image_folder: Path, **teacher: object) -> Recipe:
    means = {
        "name": "means",
        "model": "tests.helpers.own_teachers:Means",
        "options": {"pause_s": 0.02},
        "batch_size": 10,
    }
    return Recipe.model_validate(
        {
            "workspace": str(tmp_path / "work"),
            "dataset": {"source": "image_folder", "path": str(image_folder), "samples_per_shard": 8},
            "teachers": [means | teacher],
            "student": {"model": "tiny:cnn"},
        }
    )


def test_what_is_left_and_what_it_takes(cluster: None, tmp_path: Path, image_folder: Path) -> None:
    given = recipe(tmp_path, image_folder)
    before = plan(given)
    assert not Path(given.workspace).exists()
    (teacher,) = before.teachers
    total = sum(before.samples.values())
    assert set(before.samples) == {"train", "validation"} and teacher.samples == total
    assert (teacher.feature_dim, teacher.feature_bytes, teacher.crop_bytes) == (192, 2 * 192 * total, 192)
    assert teacher.shards_missing is None and 0 < teacher.samples_per_s < 10 / 0.02
    assert before.hours >= teacher.hours > total / 500 / 3600 and teacher.gpu_hours == 0
    assert before.free_bytes and before.decode_s > 0 and before.content_bytes > 0

    manifests = prepare(given)
    (ready,) = plan(given).teachers
    assert ready.shards_missing == sum(len(manifests[split]["shards"]) for split in before.samples)
    extract(given)
    done = plan(given)
    assert (done.teachers[0].shards_missing, done.teachers[0].samples, done.teachers[0].hours) == (0, 0, 0.0)


def test_gpus_that_are_not_there_are_refused_before_any_trial(
    cluster: None, tmp_path: Path, image_folder: Path
) -> None:
    with pytest.raises(InputError, match="1 GPUs are asked for, the cluster has 0"):
        plan(recipe(tmp_path, image_folder, num_gpus=1))
