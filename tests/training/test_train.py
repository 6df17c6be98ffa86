"""Real Ray Train: several workers, a killed worker, a second call."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from aft_ray.commands.check import open_setup
from aft_ray.export.student import load_student
from aft_ray.models.teachers import describe_teacher
from aft_ray.recipe.config import Recipe, dump, override
from aft_ray.recipe.errors import InputError
from aft_ray.store.manifest import write_manifest
from aft_ray.store.workspace import Workspace
from aft_ray.training.inputs.data import load_data
from aft_ray.training.runs import SNAPSHOT, RunDirectory
from aft_ray.training.train import train
from tests.helpers.extraction import recipe as extract_recipe
from tests.helpers.training import TEST, TRAIN, VALIDATION, made_store, run, timeless


@pytest.fixture
def ready(extracted: Recipe) -> Recipe:
    return override(
        extracted.model_copy(update={"teachers": extracted.teachers[:1]}),
        {
            "train.steps": 20,
            "train.global_batch_size": 31,  # rounding stays small: in one process, weights moved by 1e-7 move losses by 6e-7
            "train.evaluate_every": 1,
            "train.labels_per_class": 5,
            "regularizer.beta": 3,
            "train.learning_rate": 0.003,
        },
    )


def curve(recipe: Recipe, run: str) -> list[dict]:
    return RunDirectory(Workspace.at(recipe.workspace).run(run)).history()


def worker_pids() -> list[int]:
    """Ray Train workers of the cluster that this process started."""
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                command = (directory / "cmdline").read_bytes().replace(b"\0", b" ")
            except OSError:
                continue
            if (
                command.startswith(b"ray::")
                and b"RayTrainWorker" in command
                and os.getpid() in ancestors(directory.name)
            ):
                found.append(int(directory.name))
    return found


def ancestors(pid: str) -> list[int]:
    found = []
    while pid != "0":
        try:
            pid = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            break
        found.append(int(pid))
    return found


@pytest.mark.ray
def test_workers_agree_with_one_and_a_killed_worker_leaves_no_trace_in_the_curve(ready: Recipe) -> None:
    one = train(open_setup(ready, "train"))
    # The cluster has room for two of the three workers that are asked for, and two are enough.
    elastic = {"train.num_workers": 3, "resources": {"min_workers": 2, "cpus_per_worker": 2}}
    two = train(open_setup(override(ready, {"run": "two", **elastic}), "train"))

    # 31 rows on two workers are 16 and 15: the objective is still that of the whole batch.
    keys = ("loss", "task_loss", "regularization", "val_loss", "val_accuracy")
    for left, right in zip(RunDirectory(one).history(), RunDirectory(two).history(), strict=True):
        assert {key: left[key] for key in keys} == pytest.approx({key: right[key] for key in keys}, rel=0, abs=1e-5)
    assert RunDirectory(one).history()[-1]["test_accuracy"] == pytest.approx(
        RunDirectory(two).history()[-1]["test_accuracy"]
    )
    assert len(load_student(two).classes) == 2

    # A finished run is left as it is; another recipe does not get its directory.
    before = Path(one.path, "metrics.jsonl").stat().st_mtime_ns
    train(open_setup(ready, "train"))
    assert Path(one.path, "metrics.jsonl").stat().st_mtime_ns == before
    with pytest.raises(
        InputError, match="holds a run with another regularizer.beta. Give this run a name with run=NAME"
    ):
        train(open_setup(override(ready, {"regularizer.beta": 4}), "train"))

    # SIGKILL one of two workers after the first evaluation; the rest is as if nothing had happened.
    killed = override(ready, {"run": "killed", "train.num_workers": 2})
    done = threading.Event()
    victims: list[int] = []

    def kill_one() -> None:
        while not done.wait(0.05):
            if curve(killed, "killed") and (pids := worker_pids()):
                victims.append(pids[-1])
                os.kill(pids[-1], signal.SIGKILL)
                return

    killer = threading.Thread(target=kill_one)
    killer.start()
    try:
        train(open_setup(killed, "train"))
    finally:
        done.set()
        killer.join()
    assert victims, "the run was over before a worker could be killed"
    assert timeless(curve(ready, "killed")) == timeless(curve(ready, "two"))
    assert not list(Path(ready.workspace, "runs", "killed", "checkpoints").glob("step-*")), "a finished run needs none"


@pytest.mark.ray
def test_a_diverged_run_ends_at_once_and_names_its_last_good_checkpoint(ready: Recipe, tmp_path: Path) -> None:
    """Knowledge distillation whose projection takes steps that are too long: its error grows for some steps, then overflows."""
    changes = {"optimizer": "sgd", "evaluate_every": 1, "num_workers": 2}
    given = override(ready, {**{f"train.{key}": value for key, value in changes.items()}, "run": "diverged"})
    given = override(given, {"regularizer.name": "kd", "regularizer.learning_rate": 1e4})
    with pytest.raises(InputError) as stopped:
        train(open_setup(given, "train"))
    told = str(stopped.value)
    assert "The loss is not finite at step" in told and "Lower train.learning_rate or regularizer.beta" in told
    step = curve(given, "diverged")[-1]["step"]
    assert f"The last good checkpoint is {given.workspace}/runs/diverged/checkpoints/step-{step:08d}-" in told


@pytest.mark.ray
def test_a_picture_that_one_worker_cannot_decode_ends_a_streamed_run_for_all(ready: Recipe) -> None:
    directory = Workspace.at(ready.workspace).samples("train")
    shard = directory.read_shard(1)
    images = shard.column("image").to_pylist()
    images[2] = images[2][:-40]
    place = shard.schema.get_field_index("image")
    damaged = shard.set_column(place, shard.schema.field("image"), pa.array(images, pa.binary()))
    file = Path(directory.path, directory.shard_name(1))
    pq.write_table(damaged, file)
    manifest = directory.manifest() or {}
    manifest["shards"][1]["num_bytes"] = file.stat().st_size  # as if `prepare` had written it so
    head = {key: value for key, value in manifest.items() if key != "shards"}
    write_manifest(directory, head, manifest["shards"])
    changes = {"train.streaming": True, "train.num_workers": 2, "run": "streamed"}
    with pytest.raises(InputError, match=f"{shard.column('sample_id')[2]} cannot be read: image file is truncated"):
        train(open_setup(override(ready, changes), "train"))


@pytest.mark.ray
def test_what_the_cluster_does_not_have_is_refused(ready: Recipe) -> None:
    with pytest.raises(
        InputError, match="num_workers is 1, the cluster has room for 0 of 1 CPUs and a GPU. .*use_gpu=false"
    ):
        train(open_setup(override(ready, {"train.use_gpu": True}), "train"))
    with pytest.raises(
        InputError, match="num_workers is 5, the cluster has room for 4 of 1 CPUs. Lower it or resources"
    ):
        train(open_setup(override(ready, {"train.num_workers": 5}), "train"))
    with pytest.raises(InputError, match="resources.min_workers is 2, the cluster has room for 1 of 3 CPUs"):
        changes = {"train.num_workers": 4, "resources": {"min_workers": 2, "cpus_per_worker": 3}}
        train(open_setup(override(ready, changes), "train"))
    with pytest.raises(InputError, match="resources.min_workers is 3: it must be at most train.num_workers, 2"):
        train(open_setup(override(ready, {"train.num_workers": 2, "resources.min_workers": 3}), "train"))


@pytest.mark.ray
@pytest.mark.parametrize("on_cluster", [False, True], ids=["in this process", "on Ray Train"])
def test_a_killed_command_goes_on_with_the_same_curve(
    on_cluster: bool, cluster: None, tmp_path: Path, image_folder: Path
) -> None:
    """SIGKILL of `aft-ray train`, here or on a cluster, then the same command here: the curve of a run that nobody
    disturbed, to the last digit."""
    given = override(
        extract_recipe(tmp_path, image_folder, "efficientnet"),
        {"train": {"steps": 300, "global_batch_size": 20, "evaluate_every": 15, "learning_rate": 0.003}},
    )
    name = given.teachers[0].name
    fingerprints = {name: describe_teacher(given.teachers[0]).fingerprint}
    stores = {
        split: made_store(
            Path(given.workspace), split, replace(s, features={name: s.features["one"]}), 20, fingerprints
        )
        for split, s in (("train", TRAIN), ("validation", VALIDATION), ("test", TEST))
    }
    recipe_file = tmp_path / "recipe.yaml"
    recipe_file.write_text(dump(given))
    command = [sys.executable, "-m", "aft_ray.cli", "train", str(recipe_file)]

    address = {"RAY_ADDRESS": ray.get_runtime_context().gcs_address} if on_cluster else {}
    first = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True, env=os.environ | address)
    checkpoints = Path(given.workspace, "runs", given.run, "checkpoints")
    while len(curve(given, given.run)) < 3 or not list(checkpoints.glob("step-*/checkpoint.json")):
        assert first.poll() is None, "it was over before it could be killed"
        time.sleep(0.02)
    first.kill()
    first.communicate()
    before = len(curve(given, given.run))
    assert 3 <= before < 20
    if on_cluster:
        (checkpoints / SNAPSHOT).write_bytes(b"")  # as if the kill had come while Ray wrote it

    # Two at once: one goes on from there, the other waits and finds it done.
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [job.communicate() for job in both]
    assert [job.returncode for job in both] == [0, 0], outputs
    assert [f"waiting for runs/{given.run}: process" in errors for _, errors in outputs].count(True) == 1
    assert [f"{given.train.steps}/{given.train.steps} steps" in errors for _, errors in outputs].count(True) == 1
    assert outputs[0][0] == outputs[1][0]
    expected = run(override(given, {"train.streaming": False}), tmp_path / "undisturbed", load_data(given, stores))
    assert timeless(curve(given, given.run)) == timeless(expected)
    assert (checkpoints.parent / "tensorboard").is_dir()
