from __future__ import annotations

import os
from pathlib import Path

import pytest

from aft_ray.recipe.own_folder import make_own_folder


def test_a_folder_is_made_for_its_user_alone_and_found_again(tmp_path: Path) -> None:
    place = tmp_path / "temporary" / "own"
    assert make_own_folder(place) and (place.stat().st_mode & 0o777) == 0o700
    assert make_own_folder(place)


@pytest.mark.parametrize("has_target", [True, False])
def test_a_link_is_never_followed(has_target: bool, tmp_path: Path) -> None:
    if has_target:
        (tmp_path / "other").mkdir()
    (tmp_path / "own").symlink_to(tmp_path / "other")
    assert not make_own_folder(tmp_path / "own") and (tmp_path / "other").exists() == has_target


def test_a_file_and_another_user_s_folder_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("somebody's")
    assert not make_own_folder(tmp_path / "file") and (tmp_path / "file").read_text() == "somebody's"
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: (tmp_path / "folder").stat().st_uid + 1)
    assert not make_own_folder(tmp_path / "folder")
