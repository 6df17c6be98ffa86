"""Two ranges in one cluster, a part of it each, leave the store of one `extract`, also if one of them is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aft_ray.datasets.prepare import prepare
from aft_ray.extraction.extract import extract
from aft_ray.recipe.config import Recipe, dump
from jobs.benchmarks.fuzz_without_ray import without_ray
from tests.helpers import ROOT


def recipe(place: Path, pictures: Path, num_gpus: int = 0, **options: object) -> Recipe:
    model = {"model": "tests.helpers.own_teachers:Means", "batch_size": 1, "num_gpus": num_gpus, "options": options}
    return Recipe.model_validate(
        {
            "workspace": str(place),
            "dataset": {"source": "image_folder", "path": str(pictures), "samples_per_shard": 3},
            "teachers": [{"name": "means", **model}],
            "student": {"model": "tiny:cnn"},
        }
    )


def features(place: Path) -> dict[str, bytes]:
    root = place / "features"
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.ray
def test_ranges_work_side_by_side_in_one_cluster_and_the_shards_of_a_killed_one_are_left_to_the_next_extract(
    tmp_path: Path, image_folder: Path
) -> None:
    log, two, one = tmp_path / "log", tmp_path / "two", tmp_path / "one"
    given = recipe(two, image_folder, num_gpus=1, log=str(log), beside=2, pause_s=0.2)
    prepare(given)
    path = tmp_path / "two.yaml"
    path.write_text(dump(given))
    command = [sys.executable, "-m", "tests.helpers.ranges_drill", str(path), str(log)]
    # Ray's workers have the lowest priority by default: beside other work on this machine they take minutes to start.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_worker_niceness": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ended with [-9, 0]" in done.stdout
    assert "means/train" in done.stdout and "shards of other ranges are still missing" in done.stdout

    before = features(two)
    whole = recipe(one, image_folder)
    prepare(whole)
    with without_ray():
        extract(whole)
        made = extract(recipe(two, image_folder))
    found = features(two)
    assert 0 < made["means"] and {name for name in before if name.endswith(".parquet")} < found.keys()
    assert found == features(one)
