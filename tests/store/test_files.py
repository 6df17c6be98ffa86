"""Files of a workspace: whose error it is when one cannot be read."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.fs as pafs
import pytest
from fsspec.implementations.local import LocalFileOpener, LocalFileSystem
from PIL import UnidentifiedImageError

from aft_ray.cli import main
from aft_ray.recipe.errors import InputError, ObjectStoreError
from aft_ray.store.files import Directory
from aft_ray.store.parquet import features_table
from aft_ray.store.quarantine import quarantined_sample
from aft_ray.store.shards import ShardDirectory
from aft_ray.store.unknown_files import parquet_metadata

pytestmark = pytest.mark.slow

NOBODY = 65534
"""The user id of `nobody`."""

CLOSED = "127.0.0.1:9"
"""A port that nobody listens on."""


@pytest.fixture
def unreachable() -> pafs.FileSystem:
    return pafs.S3FileSystem(
        endpoint_override=CLOSED,
        scheme="http",
        access_key="a",
        secret_key="b",
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=1),
    )


OPERATIONS: dict[str, Callable[[Directory], object]] = {
    "names": lambda place: place.names(),
    "has": lambda place: place.has("a"),
    "read": lambda place: place.read("a"),
    "buffer": lambda place: place.buffer("a"),
    "metadata": lambda place: parquet_metadata(place, "a"),
    "write": lambda place: place.write("a", b"b"),
    "delete a file": lambda place: place.delete_file("a"),
    "delete": lambda place: place.delete(),
}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_an_object_store_out_of_reach_is_told_from_other_errors(
    operation: Callable[[Directory], object], unreachable: pafs.FileSystem
) -> None:
    with pytest.raises(ObjectStoreError, match="Could not connect") as raised:
        operation(Directory(unreachable, "bucket/place"))
    assert isinstance(pickle.loads(pickle.dumps(raised.value)), ObjectStoreError)  # it comes from other processes too


def test_a_shard_in_an_object_store_out_of_reach_is_not_called_damaged(unreachable: pafs.FileSystem) -> None:
    place = ShardDirectory(unreachable, "bucket/place")
    for read in (place.read_shard, place.read_features, place.shard_fingerprint):
        with pytest.raises(ObjectStoreError):
            read(0)


def test_a_sample_in_an_object_store_out_of_reach_is_not_called_bad() -> None:
    with pytest.raises(ObjectStoreError):
        quarantined_sample("a", ObjectStoreError("out of reach"))
    assert quarantined_sample("a", UnidentifiedImageError("cannot identify"))["reason"] == "it is not a picture"


def test_an_object_store_out_of_reach_ends_a_command_in_a_line(capsys: pytest.CaptureFixture) -> None:
    assert main(["verify", f"s3://bucket/work?endpoint_override={CLOSED}&scheme=http"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("aft-ray: ") and "Could not connect" in line and "Look whether this machine reaches" in line


@pytest.mark.parametrize("number", [1, 2])
def test_a_store_that_fails_once_in_the_midst_of_a_shard_is_not_told_as_damage(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = ShardDirectory(pafs.PyFileSystem(pafs.FSSpecHandler(LocalFileSystem())), str(tmp_path))
    features = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float16)
    shards.write_shard(0, features_table([f"s{index}" for index in range(40)], features), {"made": "so"})
    reads = 0

    def fail_once(file: Any, size: int = -1) -> Any:
        nonlocal reads
        reads += 1
        if reads == number:
            raise OSError("the connection is lost")
        return file.f.read(size)

    monkeypatch.setattr(LocalFileOpener, "read", fail_once)
    with pytest.raises(ObjectStoreError, match="part-00000.parquet: the connection is lost"):
        shards.read_shard(0)
    assert reads > number and shards.read_shard(0).num_rows == 40


@pytest.mark.parametrize("part", ["footer", "page"])
def test_bytes_overwritten_in_a_shard_are_told_as_damage_of_that_file(tmp_path: Path, part: str) -> None:
    shards = ShardDirectory(pafs.LocalFileSystem(), str(tmp_path))
    features = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float16)
    shards.write_shard(0, features_table([f"s{index}" for index in range(40)], features), {"made": "so"})
    file = tmp_path / "part-00000.parquet"
    content = bytearray(file.read_bytes())
    start = 4 if part == "page" else len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    content[start : start + 12] = b"\x13" * 12
    file.write_bytes(content)
    for read in (shards.read_shard, shards.read_features):
        with pytest.raises(InputError, match="part-00000.parquet is damaged or foreign: .* Delete it and run again"):
            read(0)


def a_folder(path: Path) -> None:
    (path / "mine").mkdir(parents=True)


def a_loop_above(path: Path) -> None:
    path.parent.symlink_to(path.parent)


def a_file_above(path: Path) -> None:
    path.parent.write_text("x")


@pytest.mark.parametrize("put", [a_folder, a_loop_above, a_file_above])
def test_something_else_in_a_file_s_place_is_named_and_kept(put: Callable[[Path], None], tmp_path: Path) -> None:
    put(tmp_path / "a" / "b.json")
    before = sorted(tmp_path.rglob("*"))
    directory = Directory(pafs.LocalFileSystem(), f"{tmp_path}/a")
    with pytest.raises(InputError, match="b.json cannot be written: .* Move it away"):
        directory.write("b.json", b"{}")
    with pytest.raises((InputError, FileNotFoundError), match="b.json"):
        directory.read("b.json")
    assert sorted(tmp_path.rglob("*")) == before


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Root reads and writes everything: inside, this process has the rights of a user who owns nothing."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_file_without_permission_is_named(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text("{}")
    (tmp_path / "b.json").chmod(0)
    _open_way_to(tmp_path)
    with (
        ordinary_user(),
        pytest.raises(InputError, match="b.json cannot be read: Permission denied. Change its permissions."),
    ):
        Directory(pafs.LocalFileSystem(), str(tmp_path)).read("b.json")


def _open_way_to(place: Path) -> None:
    """Lets every user pass through pytest's own folders, which are their owner's alone."""
    for folder in (place, *place.parents):
        if folder.stat().st_uid == os.geteuid() and folder.name.startswith(("pytest-", "test_")):
            folder.chmod(folder.stat().st_mode | 0o055)


def test_a_workspace_without_permission_is_wrong_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "work").mkdir(mode=0o555)
    (tmp_path / "data.csv").write_text("text,label\n" + "".join(f"text {row},{row % 2}\n" for row in range(40)))
    dataset = f"{{source: csv, path: {tmp_path}/data.csv, columns: {{text: text}}}}"
    recipe = f"workspace: {tmp_path}/work\ndataset: {dataset}\nstudent: {{model: 'tiny:text'}}\n"
    (tmp_path / "recipe.yaml").write_text(recipe)
    ready = ["prepare", str(tmp_path / "recipe.yaml"), f"workspace={tmp_path / 'own'}"]
    assert main(ready) == 0  # and every module that it needs is imported
    _open_way_to(tmp_path)
    capsys.readouterr()
    with ordinary_user():
        assert main(["prepare", str(tmp_path / "recipe.yaml")]) == 2
    assert "Permission denied" in capsys.readouterr().err


def test_a_file_that_another_process_deletes_while_it_is_read_is_gone_and_not_of_a_wrong_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a claim is whose owner leaves just then: who waits for it went on before, unless it looked at the wrong moment."""
    (tmp_path / "claim").write_text("mine")
    look = os.stat

    def then_deleted(path: Any, **options: Any) -> os.stat_result:
        found = look(path, **options)
        Path(tmp_path / "claim").unlink(missing_ok=True)
        return found

    monkeypatch.setattr(os, "stat", then_deleted)
    with pytest.raises(FileNotFoundError):
        Directory(pafs.LocalFileSystem(), str(tmp_path)).read("claim")
