"""A study that is killed goes on, and settings that run side by side give the same table."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

import aft_ray
from aft_ray.cli import main
from aft_ray.recipe.errors import InputError
from aft_ray.study.config import load_study
from aft_ray.study.records import read_record
from tests.helpers.extraction import recipe
from tests.study.test_config import written
from tests.study.test_report import finished


def tiny(tmp_path: Path, pictures: Path) -> Path:
    """Two settings and two methods, each a few steps of a tiny student."""
    base = recipe(tmp_path, pictures, "efficientnet").model_dump(mode="json", exclude_defaults=True)
    search = {"compare": ["none", "aft"], "beta": [1], "final": {"seeds": 1, "train_on": "train"}, "scheduler": "none"}
    search["max_concurrent_trials"] = 1  # one process for all of a round
    settings = {"labels": {"few": {"train.labels_per_class": 5}, "all": {}}}
    train = {"steps": 4, "global_batch_size": 8, "evaluate_every": 2}
    study = {**base, "run": "tiny", "search": search, "train": train, "settings": settings}
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return path


@pytest.mark.ray
def test_a_killed_study_goes_on_and_gives_the_table_of_settings_side_by_side(
    cluster: None, image_folder: Path, tmp_path: Path
) -> None:
    import ray

    path = tiny(tmp_path, image_folder)
    records = load_study(path).records
    child = subprocess.Popen(
        [sys.executable, "-m", "aft_ray.cli", "study", str(path), "--at-once", "1"],
        env={**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address},
    )
    until = time.monotonic() + 300
    while not records.has("few.json") and time.monotonic() < until and child.poll() is None:
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert records.has("few.json") and not records.has("all.json")
    before = read_record(records, "few")
    (told,) = before.told
    assert (
        told["teacher"] == before.probes[0]["teachers"][0] and told["r2"] > told["least_r2"] and told["alignment"] > 0
    )
    went_on = aft_ray.study(path)
    assert read_record(records, "few") == before and records.has("all.json")
    assert before.samples == {"train": 41, "validation": 9, "test": 10, "labels": 10} and {*(before.step_ms or {})} == {
        "none",
        "aft",
    }
    other = aft_ray.study(path, ["run=other"], at_once=2)
    compared = [scores(found) for found in (went_on, other)]
    assert compared[0] == compared[1] and len(compared[0]) == 4


def scores(found: Any) -> list[tuple[Any, ...]]:
    rows = found.settings().to_dict("records")
    return sorted((row["setting"], row["method"], row["val_accuracy"], row["test_accuracy"]) for row in rows)


def test_only_settings_that_the_study_has_can_be_run_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", str(written(tmp_path)), "--only", "digits"]) == 2
    assert "No setting digits. Settings: digits-few, digits-all, scans-few, scans-all." in capsys.readouterr().err


@pytest.mark.parametrize("number", ["nan", "inf", "-3", "two"])
def test_a_simulated_cluster_has_a_number_of_devices(
    number: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in ("gpus", "cpus"):
        with pytest.raises(SystemExit) as ended:
            main(["study", str(written(tmp_path)), "--dry-run", f"--{kind}={number}"])
        assert ended.value.code == 2
        assert f"--{kind}: '{number}' must be a number, 0 or more" in capsys.readouterr().err


def test_settings_that_cannot_run_can_be_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(
        tmp_path, ("scans: {dataset.name: digits}", "scans: {dataset: {name: null, source: image_folder, path: none}}")
    )
    finished(load_study(path), "digits-few", "digits-all")
    with pytest.raises(InputError, match="Setting scans-few, scans-all: "):
        aft_ray.study(path)
    assert main(["study", str(path)]) == 2
    assert main(["study", str(path), "--skip-faulty"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "left out: Setting scans-few, scans-all: " in out and "page: " in out
