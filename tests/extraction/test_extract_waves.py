"""Eleven teachers on one GPU take turns, and leave the store that eleven GPUs would."""

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

ray.init("local", num_cpus=12, num_gpus=int(sys.argv[2]), include_dashboard=False, log_to_driver=False)
print(extract(load(sys.argv[1])))
"""


def eleven(workspace: Path, images: Path) -> Recipe:
    model = {"model": "tests.helpers.own_teachers:Means", "num_gpus": 1}
    return Recipe.model_validate(
        {
            "workspace": str(workspace),
            "dataset": {"source": "image_folder", "path": str(images), "samples_per_shard": 16},
            "teachers": [{"name": f"t{number}", "batch_size": 3 + number, **model} for number in range(11)],
            "student": {"model": "tiny:cnn"},
        }
    )


def extracted(given: Recipe, num_gpus: int) -> tuple[str, str, dict[str, str]]:
    """Output, errors, and the checksum of every shard of features."""
    prepare(given)
    path = Path(given.workspace).with_suffix(".yaml")
    path.write_text(dump(given))
    command = [sys.executable, "-c", EXTRACT, str(path), str(num_gpus)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stderr
    features = Path(given.workspace, "features")
    shards = {
        str(p.relative_to(features)): hashlib.sha256(p.read_bytes()).hexdigest() for p in features.rglob("part-*")
    }
    return done.stdout.splitlines()[-1], done.stderr, shards


@pytest.mark.ray
def test_eleven_teachers_on_one_gpu_leave_the_store_of_eleven_gpus(tmp_path: Path, image_folder: Path) -> None:
    counts, told, one_by_one = extracted(eleven(tmp_path / "one", image_folder), 1)
    assert "extract: the cluster has no room for all teachers at once; 11 waves: t0 | t1" in told
    at_once, quiet, together = extracted(eleven(tmp_path / "eleven", image_folder), 11)
    assert at_once == counts and "waves" not in quiet
    assert one_by_one == together and len(together) == 11 * yaml.safe_load(counts)["t0"]
