"""A workspace behind the S3 API: `moto` serves it on this machine."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow.fs as pafs
import pytest
import yaml

from aft_ray.cli import main
from aft_ray.cluster.lease import lease
from aft_ray.datasets.prepare import prepare
from aft_ray.extraction.extract import extract
from aft_ray.recipe.config import Recipe, override
from aft_ray.recipe.errors import InputError
from aft_ray.store.side_by_side import open_store
from aft_ray.store.workspace import Workspace

pytestmark = pytest.mark.ray


def recipe(location: str, image_folder: Path) -> Recipe:
    return Recipe.model_validate(
        {
            "workspace": location,
            "dataset": {"source": "image_folder", "path": str(image_folder), "samples_per_shard": 9},
            "teachers": [
                {"name": "means", "model": "tests.helpers.own_teachers:Means", "options": {"log": "/dev/null"}}
            ],
            "student": {"model": "tiny:cnn"},
        }
    )


def test_the_store_is_the_same_on_s3_and_on_disk(
    cluster: None, s3: str, tmp_path: Path, image_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    local = recipe(str(tmp_path / "work"), image_folder)
    remote = recipe(f"s3://bucket/a/work?{s3}", image_folder)
    for given in (local, remote):
        prepare(given)
        extract(given)
    assert extract(remote) == {"means": 0}
    for split in ("train", "validation"):
        ours, theirs = (Workspace.at(given.workspace).features("means", split) for given in (local, remote))
        assert (ours.manifest() or {})["shards"] == (theirs.manifest() or {})["shards"]
        np.testing.assert_array_equal(ours.read_features(0)[1], theirs.read_features(0)[1])
    assert open_store(remote.workspace, "train", ["means"]).read_shard(1)["features"].shape == (9, 192)

    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(remote.model_dump(mode="json")))
    assert main(["verify", str(path)]) == 0
    directory = Workspace.at(remote.workspace).features("means", "train")
    directory.write("part-00001.parquet", directory.read("part-00001.parquet")[:-100])
    assert main(["verify", str(path)]) == 1
    assert "part-00001.parquet is damaged" in capsys.readouterr().err
    with pytest.raises(InputError, match="part-00001.parquet is damaged or foreign: .* bytes instead of"):
        extract(remote)
    directory.filesystem.delete_file(f"{directory.path}/part-00001.parquet")
    assert extract(remote) == {"means": 1} and main(["verify", str(path)]) == 0


def test_teachers_read_pictures_that_stay_in_a_bucket(
    cluster: None, s3: str, tmp_path: Path, image_folder: Path
) -> None:
    place = Workspace.at(f"s3://bucket/pictures?{s3}")
    for path in image_folder.rglob("*.png"):
        place.write(path.relative_to(image_folder).as_posix(), path.read_bytes())
    local = recipe(str(tmp_path / "local"), image_folder)
    changes = {
        "workspace": str(tmp_path / "remote"),
        "dataset.path": f"s3://bucket/pictures?{s3}",
        "dataset.copy": False,
    }
    for given in (local, override(local, changes)):
        prepare(given)
        extract(given)
    ours, theirs = (Workspace.at(tmp_path / name).features("means", "train") for name in ("local", "remote"))
    np.testing.assert_array_equal(ours.read_features(0)[1], theirs.read_features(0)[1])
    assert (ours.manifest() or {})["num_samples"] == (theirs.manifest() or {})["num_samples"] > 0


def test_a_bucket_that_is_not_there_is_one_line(
    s3: str, tmp_path: Path, image_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe(f"s3://nowhere/work?{s3}", image_folder).model_dump(mode="json")))
    assert main(["prepare", str(path)]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("aft-ray")]
    assert "workspace s3://nowhere/work" in line and "cannot be reached" in line and "NO_SUCH_BUCKET" in line


def test_turns_are_kept_on_s3(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aft_ray.cluster.claims.LOOKED_EVERY_S", 0.01)
    place, inside, counts = Workspace.at(f"s3://bucket/turns?{s3}"), [], []

    def come() -> None:
        for _ in range(3):
            with lease(place, "searches/main"):
                inside.append(1)
                time.sleep(0.01)
                counts.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=come) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [1] * 9


def test_a_writer_that_dies_leaves_nothing_on_s3(s3: str) -> None:
    """SIGKILL in the middle of an upload: the object is not there, because an upload is visible when it is whole."""
    location = f"s3://bucket/dying?{s3}"
    code = (
        "import os, signal\nfrom aft_ray.store.workspace import Workspace\n"
        f"place = Workspace.at({location!r})\n"
        "stream = place.filesystem.open_output_stream(place.path + '/shard')\n"
        "stream.write(b'x' * (12 << 20)); stream.flush()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert not Workspace.at(location).has("shard")


def test_new_samples_replace_the_old_ones_on_s3(s3: str, image_folder: Path) -> None:
    given = recipe(f"s3://bucket/replaced/work?{s3}", image_folder)
    prepare(given)
    (image_folder / "top" / "07.png").unlink()
    prepare(given, overwrite=True)
    prepare(given)
    workspace = Workspace.at(given.workspace)
    assert sum(open_store(workspace, split).num_samples for split in ("train", "validation", "test")) == 59
    assert main(["verify", given.workspace]) == 0
    stored = workspace.filesystem.get_file_info(pafs.FileSelector(f"{workspace}/samples", recursive=True))
    assert sum(info.base_name == "manifest.json" for info in stored) == 3
