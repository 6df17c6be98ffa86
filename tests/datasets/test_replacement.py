"""Only files that aft_ray wrote are deleted, and a killed `prepare --overwrite` leaves the old samples or the new ones."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from PIL import Image

from aft_ray.cli import main
from aft_ray.datasets import replacement
from aft_ray.datasets.prepare import prepare
from aft_ray.recipe.config import Recipe, dump
from aft_ray.recipe.errors import InputError
from aft_ray.store.files import Directory
from aft_ray.store.schema import SPLITS
from aft_ray.store.side_by_side import open_store
from aft_ray.store.workspace import Workspace

pytestmark = pytest.mark.slow


def recipe(workspace: Path, path: Path | str, **dataset: Any) -> Recipe:
    given = {"source": "image_folder", "path": str(path), "samples_per_shard": 16, **dataset}
    return Recipe.model_validate({"workspace": str(workspace), "dataset": given, "student": {"model": "tiny:cnn"}})


def pictures(folder: Path, shade: int, count: int = 24) -> Path:
    for number in range(count):
        place = folder / ("light" if number % 2 else "dark")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), shade + number, np.uint8)).save(place / f"{number}.png")
    return folder


def contents(workspace: Workspace) -> dict[str, bytes]:
    """Every sample of every split, read as training reads them."""
    found: dict[str, bytes] = {}
    for split in SPLITS:
        store = open_store(workspace, split)
        for index in range(store.num_shards):
            shard = store.read_shard(index)
            found |= dict(zip(shard["sample_id"], shard["image"], strict=True))
    return found


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(params=["disk", "disk that cannot exchange", "object store"])
def workspace(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    if request.param == "object store":
        memory = fsspec.filesystem("memory")
        root = f"/{uuid.uuid4().hex}"
        found = Workspace(pafs.PyFileSystem(pafs.FSSpecHandler(memory)), f"{root}/work")
        monkeypatch.setattr(Workspace, "at", lambda location: found)
        yield found
        memory.rm(root, recursive=True)
        return
    if request.param == "disk that cannot exchange":
        monkeypatch.setattr(replacement, "exchange", lambda left, right: False)
    yield Workspace.at(tmp_path / "work")


class Killed(BaseException):
    pass


def kill_before(change: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lets `change` changes to the file system happen, and none after. Returns a list that tells how many did."""
    done = [0]

    def guarded(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if "/leases/" not in f"{args[0]}":
                if done[0] >= change:
                    raise Killed
                done[0] += 1
            return function(*args, **kwargs)

        return call

    for owner, name in ((Directory, "write"), (Directory, "delete_file"), (Path, "rename"), (os, "rmdir")):
        monkeypatch.setattr(owner, name, guarded(getattr(owner, name)))
    monkeypatch.setattr(replacement, "exchange", guarded(replacement.exchange))
    return done


def test_a_kill_at_any_change_leaves_the_old_samples_or_the_new(workspace: Workspace, tmp_path: Path) -> None:
    given = recipe(tmp_path / "work", pictures(tmp_path / "data", 0))
    prepare(given)
    valid = contents(workspace)
    outcomes = set()
    for change in range(100):
        new = files(pictures(tmp_path / "data", 1 + change))
        with pytest.MonkeyPatch.context() as patched:
            done = kill_before(change, patched)
            try:
                prepare(given, overwrite=True)
            except Killed:
                assert done[0] == change
            else:
                break
        try:
            found = contents(workspace)
        except InputError as error:  # between two renames, on a disk that cannot exchange: any prepare goes on
            assert "Run 'aft-ray prepare' first" in str(error)
            replacement.clean(workspace)
            found = contents(workspace)
        assert found in (valid, new)
        outcomes.add(found == new)
        valid = found
    assert contents(workspace) == new and outcomes == {False, True}
    assert {*workspace.names()} <= {"leases", "samples"}
    stored = workspace.filesystem.get_file_info(pafs.FileSelector(f"{workspace}/samples", recursive=True))
    assert sum(info.base_name == "manifest.json" for info in stored) == 3


def test_pictures_that_lie_where_prepare_writes_are_refused_and_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where it lies, through a link to a folder, to a file, and around the workspace."""
    monkeypatch.chdir(tmp_path)
    inside = tmp_path / "work" / "samples" / "train"
    pictures(inside, 0)
    (tmp_path / "link").symlink_to(inside)
    linked = pictures(tmp_path / "linked", 0)
    (linked / "dark" / "a.png").symlink_to(inside / "dark" / "0.png")
    before = files(tmp_path)
    path = tmp_path / "recipe.yaml"
    for place in (inside, "link", "work/samples/train/", linked, tmp_path):
        path.write_text(dump(recipe(tmp_path / "work", place)))
        for options in ([], ["--overwrite"]):
            assert main(["prepare", str(path), *options]) == 2
            assert len(capsys.readouterr().err.splitlines()) == 1, "a folder is named, not its pictures too"
        path.unlink()
        assert files(tmp_path) == before


@pytest.mark.parametrize("glob", ["", "*.parquet", "**/*.parquet"])
def test_tables_that_lie_where_prepare_writes_are_refused(
    glob: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(recipe(tmp_path / "made", pictures(tmp_path / "data", 0)))
    for manifest in (tmp_path / "made" / "samples").rglob("manifest.json"):
        manifest.unlink()
    shutil.copytree(tmp_path / "made" / "samples", tmp_path / "work" / "samples")
    columns = {"source": "parquet", "columns": {"image": "image", "label": "label"}, "samples_per_shard": 16}
    folder = tmp_path / "work" / "samples" / ("" if "**" in glob else "train")
    path = tmp_path / "recipe.yaml"
    path.write_text(dump(recipe(tmp_path / "work", folder / glob, **columns)))
    before = files(tmp_path)
    for options in ([], ["--overwrite"]):
        assert main(["prepare", str(path), *options]) == 2
        assert "must lie apart" in capsys.readouterr().err
    assert files(tmp_path) == before


def test_data_beside_the_samples_is_taken(tmp_path: Path) -> None:
    given = recipe(tmp_path / "work", pictures(tmp_path / "work" / "raw", 0))
    assert sum(found["num_samples"] for found in prepare(given, overwrite=True).values()) == 24


def test_files_that_are_not_ours_are_kept_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = recipe(tmp_path / "work", pictures(tmp_path / "data", 0))
    prepare(given)
    train = tmp_path / "work" / "samples" / "train"
    foreign = {
        "samples/notes.txt": b"mine",
        "samples/train/part-00007.parquet": b"",
        "samples/train/manifest.json.bak": b"{}",
    }
    pq.write_table(pq.read_table(train / "part-00000.parquet").replace_schema_metadata(), train / "part-00007.parquet")
    foreign["samples/train/part-00007.parquet"] = (train / "part-00007.parquet").read_bytes()
    for name, content in foreign.items():
        (tmp_path / "work" / name).write_bytes(content)
    prepare(given, overwrite=True)
    (kept,) = (tmp_path / "work").glob("samples-before-*")
    assert files(kept) == {name.removeprefix("samples/"): content for name, content in foreign.items()}
    assert f"it is kept in {kept}" in capsys.readouterr().err
    assert not {name for name in foreign if (tmp_path / "work" / name).exists()}


def test_an_unfinished_prepare_of_other_samples_is_cleared_without_touching_foreign_files(tmp_path: Path) -> None:
    given = recipe(tmp_path / "work", pictures(tmp_path / "data", 0))
    prepare(given)
    samples = tmp_path / "work" / "samples"
    for manifest in samples.rglob("manifest.json"):
        manifest.unlink()
    (samples / "train" / "0.png").write_bytes(b"mine")
    other = recipe(tmp_path / "work", tmp_path / "data", samples_per_shard=17)
    foreign = samples / "train" / "part-00000.parquet"
    own = foreign.read_bytes()
    foreign.write_bytes(b"a table of mine")
    with pytest.raises(InputError, match="holds part-00000.parquet, damaged or not written by aft-ray. Move that away"):
        prepare(other)
    assert foreign.read_bytes() == b"a table of mine"
    foreign.write_bytes(own)
    prepare(other)
    assert (samples / "train" / "0.png").read_bytes() == b"mine"
    assert contents(Workspace.at(other.workspace)) == files(tmp_path / "data")


def test_samples_behind_a_link_stay_on_their_disk(tmp_path: Path) -> None:
    given = recipe(tmp_path / "work", pictures(tmp_path / "data", 0))
    (tmp_path / "disk" / "samples").mkdir(parents=True)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "samples").symlink_to(tmp_path / "disk" / "samples")
    prepare(given)
    pictures(tmp_path / "data", 9)
    prepare(given, overwrite=True)
    assert (tmp_path / "work" / "samples").is_symlink() and os.listdir(tmp_path / "disk") == ["samples"]
    assert contents(Workspace.at(given.workspace)) == files(tmp_path / "data")


def test_bad_new_samples_leave_the_old_ones(tmp_path: Path) -> None:
    given = recipe(tmp_path / "work", pictures(tmp_path / "data", 0))
    prepare(given)
    before = files(tmp_path / "work")
    (tmp_path / "data" / "dark" / "0.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="it is not a picture"):
        prepare(given, overwrite=True)
    assert files(tmp_path / "work") == before


@pytest.mark.parametrize("options", [[], ["--overwrite"]])
@pytest.mark.parametrize("name", ["work", "work/samples", "work/samples/train", "work/.samples-new"])
@pytest.mark.parametrize("kind", ["file", "dangling", "loop"])
def test_a_file_or_a_broken_link_where_a_folder_is_needed_is_named(
    kind: str, name: str, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if (kind, name) == ("dangling", "work"):
        pytest.skip("a workspace is made where the link points to")
    data, place = pictures(tmp_path / "data", 0), tmp_path / name
    (tmp_path / "recipe.yaml").write_text(dump(recipe(tmp_path / "work", data)))
    place.parent.mkdir(parents=True, exist_ok=True)
    if kind == "file":
        place.write_text("mine")
    else:
        place.symlink_to(tmp_path / "nowhere" if kind == "dangling" else place)
    assert main(["prepare", str(tmp_path / "recipe.yaml"), *options]) == 2
    said = capsys.readouterr().err
    assert (
        "is no folder but a file or a broken link. Move it away" in said
        or "work is a file. Name a directory, or move that away." in said
        or "work cannot be opened: Symlink loop" in said
    )
    assert os.path.lexists(place)


@pytest.mark.parametrize("options", [[], ["--overwrite"]])
@pytest.mark.parametrize("place", [".samples-new", ".samples-new-old"])
def test_data_of_the_users_own_where_unfinished_samples_lie_is_neither_moved_nor_deleted(
    place: str, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = pictures(tmp_path / "work" / place, 0)
    (own / "train").mkdir()
    (own / "train" / "part-00000.parquet").write_bytes(b"a table of mine")
    before = files(tmp_path)
    for path in (own, pictures(tmp_path.with_name(f"{tmp_path.name}-data"), 0)):
        given = tmp_path.with_name(f"{tmp_path.name}.yaml")
        given.write_text(dump(recipe(tmp_path / "work", path)))
        assert main(["prepare", str(given), *options]) == 2
        said = capsys.readouterr().err
        assert f"{own} holds dark/0.png, which aft-ray did not write" in said and "Nothing was changed" in said
        assert files(tmp_path) == before


def test_raw_data_is_not_read_from_what_an_unfinished_prepare_has_left(tmp_path: Path) -> None:
    given = recipe(tmp_path / "work", pictures(tmp_path / "data", 0))
    prepare(given)
    shutil.copytree(tmp_path / "work" / "samples", tmp_path / "work" / ".samples-new")
    before = files(tmp_path)
    columns = {"source": "parquet", "columns": {"image": "image", "label": "label"}}
    with pytest.raises(InputError, match="must lie apart"):
        prepare(recipe(tmp_path / "work", tmp_path / "work" / ".samples-new", **columns), overwrite=True)
    assert files(tmp_path) == before
    prepare(given, overwrite=True)
    assert not (tmp_path / "work" / ".samples-new").exists()
