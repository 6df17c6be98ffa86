"""Teachers that have no room together take turns, and leave the store that they leave at once."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from aft_ray.datasets.prepare import prepare
from aft_ray.recipe.config import Recipe, dump
from tests.helpers import ROOT

EXTRACT = """
import sys
from aft_ray.commands.environment import set_environment
set_environment()
import ray
from aft_ray.extraction.extract import extract
from aft_ray.recipe.config import load

ray.init("local", num_cpus=6, num_gpus=2, include_dashboard=False, log_to_driver=False)
for recipe in sys.argv[1:]:
    print("recipe", recipe, file=sys.stderr)
    print(extract(load(recipe)))
"""
AT_ONCE = (0.5, 0.5, 0.5)
IN_TURNS = (1, 2, 1)
"""GPUs of each teacher on a cluster of two."""


def recipe(workspace: Path, images: Path, num_gpus: tuple[float, ...]) -> Recipe:
    model = {"model": "tests.helpers.own_teachers:Means"}
    teachers = [
        {"name": f"t{number}", "batch_size": 3 + number, "num_gpus": share, **model}
        for number, share in enumerate(num_gpus)
    ]
    return Recipe.model_validate(
        {
            "workspace": str(workspace),
            "dataset": {"source": "image_folder", "path": str(images), "samples_per_shard": 16},
            "teachers": teachers,
            "student": {"model": "tiny:cnn"},
        }
    )


def shards(given: Recipe) -> dict[str, str]:
    """The checksum of every shard of features."""
    features = Path(given.workspace, "features")
    return {str(p.relative_to(features)): hashlib.sha256(p.read_bytes()).hexdigest() for p in features.rglob("part-*")}


@pytest.mark.ray
def test_teachers_that_take_turns_leave_the_store_that_they_leave_at_once(tmp_path: Path, image_folder: Path) -> None:
    both = [recipe(tmp_path / "once", image_folder, AT_ONCE), recipe(tmp_path / "turns", image_folder, IN_TURNS)]
    files = [Path(given.workspace).with_suffix(".yaml") for given in both]
    for given, file in zip(both, files, strict=True):
        prepare(given)
        file.write_text(dump(given))
    command = [sys.executable, "-c", EXTRACT, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stderr
    counts, in_turns = (yaml.safe_load(line) for line in done.stdout.splitlines()[-2:])
    assert counts == in_turns
    quiet, told = done.stderr.split(f"recipe {files[1]}")
    assert "waves" not in quiet
    assert "extract: the cluster has no room for all teachers at once; 2 waves: t1 | t0, t2" in told
    assert shards(both[0]) == shards(both[1]) and len(shards(both[0])) == 3 * counts["t0"]
