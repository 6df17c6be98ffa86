"""Extraction under real faults: whatever is killed, the store becomes that of an undisturbed run, and little is repeated."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
import ray
import yaml

from aft_ray.datasets.prepare import prepare
from aft_ray.extraction.extract import extract
from aft_ray.recipe.config import Recipe, override
from aft_ray.recipe.errors import InputError
from aft_ray.store.workspace import Workspace
from tests.conftest import draw_pictures
from tests.helpers import ROOT
from tests.helpers.node_drill import SHARD
from tests.helpers.own_teachers import Means, calls

pytestmark = pytest.mark.ray

KILLS = 3
"""Of one job: the first meets no work of before, the second that of one killed job, the third that of several."""

ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    # A node counts as dead after two seconds of silence, so that the drill need not wait for a minute.
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "500",
    "RAY_health_check_failure_threshold": "4",
}


def recipe(
    tmp_path: Path, image_folder: Path, workspace: str, num_actors: int | dict[str, int] = 1, **options: object
) -> Recipe:
    teacher = {
        "name": "means",
        "model": "tests.helpers.own_teachers:Means",
        "batch_size": 1,
        "num_actors": num_actors,
        "options": {"log": str(tmp_path / f"{workspace}.log"), **options},
    }
    return Recipe.model_validate(
        {
            "workspace": str(tmp_path / workspace),
            "dataset": {"source": "image_folder", "path": str(image_folder), "samples_per_shard": SHARD},
            "teachers": [teacher],
            "student": {"model": "tiny:cnn"},
        }
    )


def log_of(given: Recipe) -> Path:
    return Path(given.teachers[0].options["log"])


def checksums(given: Recipe) -> dict[str, list[str]]:
    workspace = Workspace.at(given.workspace)
    manifests = {split: workspace.features("means", split).manifest() or {} for split in ("train", "validation")}
    return {split: [shard["sha256"] for shard in manifest["shards"]] for split, manifest in manifests.items()}


def files(given: Recipe) -> list[str]:
    return sorted(path.name for path in Path(given.workspace, "features").rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def undisturbed(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """What every drill must end with; no test changes it."""
    place = tmp_path_factory.mktemp("undisturbed")
    given = recipe(place, draw_pictures(place / "pictures"), "undisturbed")
    prepare(given)
    extract(given)
    return given


def num_samples(given: Recipe) -> int:
    return sum(samples for _, samples in calls(log_of(given)))


def when_calls(given: Recipe, count: int, act: Callable[[list[tuple[int, int]]], None]) -> threading.Thread:
    """Calls `act` with the log of the teacher's calls as soon as it has `count` lines."""

    def wait() -> None:
        while len(found := calls(log_of(given))) < count:
            time.sleep(0.02)
        act(found)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_a_teacher_s_actor_is_killed(undisturbed: Recipe, tmp_path: Path, image_folder: Path) -> None:
    given = recipe(tmp_path, image_folder, "killed", pause_s=0.05)
    prepare(given)
    killer = when_calls(given, 5, lambda found: os.kill(found[-1][0], signal.SIGKILL))
    extract(given)
    killer.join()
    assert len({pid for pid, _ in calls(log_of(given))}) == 2
    assert checksums(given) == checksums(undisturbed) and files(given) == files(undisturbed)
    assert num_samples(given) <= num_samples(undisturbed) + SHARD


AGAIN = "the process that ran the pipeline ended: starting again"


@pytest.mark.parametrize(
    ("title", "begins_again"),
    [("ray::Conductor", True), ("ray::MapWorker(Map(Relay))", False)],
    ids=["conductor", "relay"],
)
def test_a_process_that_leads_the_pipeline_is_killed(
    title: str,
    begins_again: bool,
    undisturbed: Recipe,
    tmp_path: Path,
    image_folder: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    given = recipe(tmp_path, image_folder, "killed", pause_s=0.05)
    prepare(given)

    def kill(found: list[tuple[int, int]]) -> None:
        own = {process.pid for process in psutil.Process().children(recursive=True)}
        named = ((process.pid, process.info["name"] or "") for process in psutil.process_iter(["name"]))
        (leader,) = (pid for pid, name in named if pid in own and name.startswith(title))
        os.kill(leader, signal.SIGKILL)

    # Late enough for its first row to have reached the driver: one that dies before is not started again.
    killer = when_calls(given, 8 * SHARD + 1, kill)
    extract(given)
    killer.join()
    assert (AGAIN in capsys.readouterr().err) is begins_again
    assert checksums(given) == checksums(undisturbed) and files(given) == files(undisturbed)
    assert num_samples(given) <= num_samples(undisturbed) + 2 * SHARD


def write_recipe(given: Recipe, tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(given.model_dump(mode="json")))
    return path


def start(given: Recipe, tmp_path: Path) -> subprocess.Popen:
    """`aft-ray extract` as a job of the session's cluster."""
    command = [sys.executable, "-m", "aft_ray.cli", "extract", str(write_recipe(given, tmp_path))]
    environment = {**ENVIRONMENT, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _kill(job: subprocess.Popen, found: list[tuple[int, int]]) -> None:
    job.send_signal(signal.SIGKILL)


def test_the_job_is_killed_again_and_again(undisturbed: Recipe, tmp_path: Path, image_folder: Path) -> None:
    given = recipe(tmp_path, image_folder, "killed", pause_s=0.1)
    prepare(given)
    seeded = random.Random(0)
    for _ in range(KILLS):
        enough = len(calls(log_of(given))) + seeded.randint(2, 9)
        job = start(given, tmp_path)
        killer = when_calls(given, enough, partial(_kill, job))
        job.communicate()
        killer.join()
        assert job.returncode == -signal.SIGKILL
    extract(given)
    assert checksums(given) == checksums(undisturbed)
    # A killed job loses the shard that its one actor was at, and its actor may outlive it by another.
    assert num_samples(given) <= num_samples(undisturbed) + KILLS * 2 * SHARD


def drilled(kind: str, given: Recipe, tmp_path: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Extraction on local nodes of its own, which come and go."""
    arguments = (str(write_recipe(given, tmp_path)), str(log_of(given)), *more)
    command = [sys.executable, "-m", f"tests.helpers.{kind}", *arguments]
    job = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, cwd=ROOT, timeout=240)
    assert job.returncode == 0, job.stdout + job.stderr
    return job


@pytest.mark.parametrize("cpus", [("1", "2", "2"), ("1", "1")], ids=["others have its kind of work", "no others have"])
def test_a_node_is_killed(undisturbed: Recipe, tmp_path: Path, image_folder: Path, cpus: tuple[str, ...]) -> None:
    given = recipe(tmp_path, image_folder, "killed", num_actors=len(cpus) - 1, pause_s=0.2)
    prepare(given)
    job = drilled("node_drill", given, tmp_path, *cpus)
    assert f"nodes alive: {len(cpus) - 1}" in job.stdout
    assert "nodes are gone and were not replaced: starting again" in job.stderr
    assert checksums(given) == checksums(undisturbed) and files(given) == files(undisturbed)
    assert num_samples(given) <= num_samples(undisturbed) + 2 * SHARD


def test_actors_join_on_nodes_that_come_and_one_of_those_nodes_is_killed(
    undisturbed: Recipe, tmp_path: Path, image_folder: Path
) -> None:
    growing = {"min": 1, "max": 3}
    given = recipe(tmp_path, image_folder, "growing", num_actors=growing, beside=3, pause_s=0.8)
    prepare(given)
    job = drilled("growth_drill", given, tmp_path)
    assert "processes when a node was killed: 3" in job.stdout and "processes at the end: 4" in job.stdout
    assert "starting again" not in job.stderr
    assert checksums(given) == checksums(undisturbed) and files(given) == files(undisturbed)
    assert num_samples(given) <= num_samples(undisturbed) + SHARD


def test_the_disk_is_full(undisturbed: Recipe, tmp_path: Path, image_folder: Path) -> None:
    given = recipe(tmp_path, image_folder, "full", largest_file=1000)
    prepare(given)
    job = start(given, tmp_path)
    output, _ = job.communicate()
    assert job.returncode == 1
    assert "File too large" in output and "run the same command again" in output and "Traceback" not in output
    assert not [name for name in files(given) if not name.endswith(".jsonl")]

    enough = recipe(tmp_path, image_folder, "full")
    extract(enough)
    assert checksums(enough) == checksums(undisturbed)


def test_a_truncated_shard_is_named_and_only_it_is_made_anew(
    undisturbed: Recipe, tmp_path: Path, image_folder: Path
) -> None:
    given = recipe(tmp_path, image_folder, "truncated")
    shutil.copytree(undisturbed.workspace, given.workspace)
    shard = Path(given.workspace, "features", "means", "train", "part-00002.parquet")
    shard.write_bytes(shard.read_bytes()[:-200])
    with pytest.raises(InputError, match="part-00002.parquet is damaged or foreign.*Delete it and run again"):
        extract(given)
    shard.unlink()
    assert extract(given) == {"means": 1}
    assert checksums(given) == checksums(undisturbed) and num_samples(given) == SHARD


def test_samples_that_cannot_be_decoded_or_end_a_process_each_time_are_quarantined_and_the_rest_is_the_same(
    undisturbed: Recipe, tmp_path: Path, image_folder: Path
) -> None:
    transform = Means.describe(undisturbed.teachers[0]).transform
    assert transform is not None
    samples = [Workspace.at(undisturbed.workspace).samples("train").read_shard(shard) for shard in (1, 3, 5)]
    chosen = [shard.column("sample_id")[1].as_py() for shard in samples]
    to_crop, deadly = [transform((image_folder / name).read_bytes()).tobytes().hex() for name in chosen[1:]]
    corrupt = image_folder / chosen[0]
    corrupt.write_bytes(corrupt.read_bytes()[:-500])

    given = recipe(tmp_path, image_folder, "bad", deadly_to_crop=to_crop, deadly=deadly)
    given = override(given, {"dataset.max_bad_samples": 3})
    prepare(given)
    extract(given)
    # Four deaths, none of them by the picture that cannot be decoded: that happens in another process.
    assert len({pid for pid, _ in calls(log_of(given))}) == 5
    lines = [json.loads(line) for line in Path(given.workspace, "extract.jsonl").read_text().splitlines()]
    assert lines[-1]["event"] == "end" and lines[-1]["teachers"]["means"]["shards_left"] == 0

    manifest = Workspace.at(given.workspace).features("means", "train").manifest() or {}
    rows = Workspace.at(given.workspace).samples("train").manifest() or {}
    assert [bad["sample_id"] for bad in manifest["quarantined"]] == chosen
    of = [bad["reason"].removeprefix("it crashes the process of ") for bad in manifest["quarantined"]]
    assert of[0].startswith("image file is truncated") and of[1:] == ["decoding", "teacher 'means'"]
    assert manifest["num_samples"] + 3 == rows["num_samples"]
    for split, num_shards in (("train", len(manifest["shards"])), ("validation", 1)):
        for shard in range(num_shards):
            ids, found = Workspace.at(given.workspace).features("means", split).read_features(shard)
            _, expected = Workspace.at(undisturbed.workspace).features("means", split).read_features(shard)
            kept = [sample_id.as_py() not in chosen for sample_id in ids]
            np.testing.assert_array_equal(found[kept], expected[kept])
            assert np.isnan(found[~np.array(kept)]).all()

    # Also where an earlier run has allowed more.
    with pytest.raises(InputError, match="3 samples quarantined, 2 allowed"):
        extract(override(given, {"dataset.max_bad_samples": 2}))
