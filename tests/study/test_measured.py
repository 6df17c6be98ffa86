"""What a record says of the code that a study ran with."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import aft_ray
from aft_ray.study.measured import code


def git(place: Path, *arguments: str) -> str:
    author = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(place), *author, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_of_a_clone_around_the_package_is_not_the_package_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "project" / ".venv" / "aft_ray"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(aft_ray, "__file__", str(package / "__init__.py"))
    git(tmp_path, "init", "-q", "project")
    git(tmp_path / "project", "commit", "-qm", "theirs", "--allow-empty")
    assert code() == aft_ray.__version__
    git(tmp_path / "project", "add", "-A")
    git(tmp_path / "project", "commit", "-qm", "a clone of the package")
    assert code() == git(tmp_path / "project", "rev-parse", "--short", "HEAD")
