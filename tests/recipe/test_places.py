"""A place behind a URL reads as the same place on a disk does; `fsspec+local://` gives both over the same files."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from aft_ray.recipe.config import load
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.places import below, filesystem_of, native_file, num_bytes, place_at, read_range
from aft_ray.recipe.remote import RemotePath
from aft_ray.study.config import load_study
from tests.recipe.test_config import MINIMAL

NAMES = ("a b.txt", "é#1.txt", "100%.txt", "who?.txt", "a+b=[c].txt", "plain.tar.gz")


def remote(folder: Path) -> RemotePath:
    place = place_at(f"fsspec+local://{folder}")
    assert isinstance(place, RemotePath)
    return place


@pytest.mark.parametrize("name", NAMES)
def test_a_url_reads_as_a_path_does_whatever_the_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(b"content")
    here, there = tmp_path / "in" / name, remote(tmp_path) / "in" / name
    assert (there.name, there.stem, there.suffix, there.parent.name) == (here.name, here.stem, here.suffix, "in")
    assert there.is_file() and there.exists() and not there.is_dir() and there.parent.is_dir()
    assert below(there, remote(tmp_path)).as_posix() == below(here, tmp_path).as_posix()
    assert there.read_bytes() == b"content" and num_bytes(there) == num_bytes(here) == 7
    assert read_range(there, 3, 2) == read_range(here, 3, 2) == b"te"
    assert native_file(there).read() == native_file(here).read()
    with there.open() as stream:
        assert stream.read(3) == b"con"
    (listed,) = remote(tmp_path).files_below()
    for same in (place_at(str(there)), pickle.loads(pickle.dumps(there)), listed, *there.parent.iterdir()):
        assert same == there


@pytest.mark.parametrize("scheme", ["s3://bucket", "fsspec+local:///data", "file:///data"])
@pytest.mark.parametrize("end", ["a?.csv", "a?", "??.csv", "a?.csv?region=us-east-1", "a?region=us-east-1?.csv"])
def test_a_question_mark_in_a_url_that_begins_no_options_is_refused(scheme: str, end: str) -> None:
    for read in (place_at, filesystem_of):
        with pytest.raises(
            InputError, match=r"'\?' begins a URL's options, .* write it as %3F, .* any one character\."
        ):
            read(f"{scheme}/{end}")


def test_names_are_sorted_as_paths_are(tmp_path: Path) -> None:
    for name in ("a/x", "a-b", "a.b/y", "B", "a/b/c"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert [below(file, remote(tmp_path)) for file in remote(tmp_path).files_below()] == [
        below(file, tmp_path) for file in files
    ]


def test_a_filesystem_that_keeps_its_listings_shows_what_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ls, kept = LocalFileSystem.ls, dict[str, Any]()

    def keeping(self: LocalFileSystem, path: str, **options: Any) -> Any:
        if path not in kept:
            kept[path] = ls(self, path, **options)
        return kept[path]

    monkeypatch.setattr(LocalFileSystem, "ls", keeping)
    monkeypatch.setattr(LocalFileSystem, "invalidate_cache", lambda self, path=None: kept.clear())
    (tmp_path / "a").write_bytes(b"")
    assert [file.name for file in remote(tmp_path).files_below()] == ["a"]
    (tmp_path / "b").write_bytes(b"")
    assert [file.name for file in remote(tmp_path).files_below()] == ["a", "b"]


def test_what_is_not_there_is_named_by_its_url(tmp_path: Path) -> None:
    gone = remote(tmp_path) / "gone.txt"
    assert not gone.exists() and gone.files_below() == []
    for ask in (gone.read_bytes, gone.num_bytes, gone.native):
        with pytest.raises(FileNotFoundError, match=f"there is no file fsspec\\+local://{tmp_path}/gone.txt"):
            ask()
    with pytest.raises(InputError, match="must not hold a secret"):
        place_at("s3://user:hunter2@bucket/key")
    with pytest.raises(InputError, match="~nobody-here/x cannot be opened"):
        place_at("~nobody-here/x")


def test_a_recipe_and_its_base_may_lie_behind_urls(tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    store.pipe("/team/shared/base.yaml", f"{MINIMAL}train: {{steps: 7, seed: 3}}\n".encode())
    store.pipe("/team/own/recipe.yaml", b"base: ../shared/base.yaml\ntrain: {steps: 8}\n")
    store.pipe("/team/own/loop.yaml", b"base: loop.yaml\n")
    (tmp_path / "recipe.yaml").write_text("base: fsspec+memory://team/shared/base.yaml\ntrain: {steps: 8}\n")
    expected = load(tmp_path / "recipe.yaml")
    assert (expected.train.steps, expected.train.seed) == (8, 3)
    assert load("fsspec+memory://team/own/recipe.yaml") == expected
    with pytest.raises(InputError, match="Recipe fsspec\\+memory://team/own/gone.yaml does not exist"):
        load("fsspec+memory://team/own/gone.yaml")
    with pytest.raises(InputError, match="is based on itself"):
        load("fsspec+memory://team/own/loop.yaml")
    store.pipe("/team/own/methods.yaml", f"{MINIMAL}settings: {{data: {{a: {{train.steps: 3}}}}}}\n".encode())
    assert load_study("fsspec+memory://team/own/methods.yaml").name == "methods"
