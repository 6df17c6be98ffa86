"""A command that is killed in any phase goes on when it is started again: the samples are those of one that was not."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from aft_ray.cli import main
from aft_ray.commands import prepare
from aft_ray.store.files import TEMPORARY
from tests.helpers import ROOT
from tests.helpers.small_buckets import SMALL, helpers_here
from tests.helpers.small_data import samples_of, write_pairs, write_tables, write_to_store


@dataclass(frozen=True)
class Given:
    """A recipe's data set, and the samples that one process makes of it in its memory."""

    dataset: dict[str, Any]
    samples: dict[str, bytes]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Given:
    return undisturbed(tmp_path_factory, write_tables(tmp_path_factory.mktemp("tables"), "parquet"))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Given:
    return undisturbed(tmp_path_factory, write_pairs(tmp_path_factory.mktemp("pairs"), "files"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Given:
    return undisturbed(tmp_path_factory, write_to_store(tmp_path_factory.mktemp("store")))


def undisturbed(tmp_path_factory: pytest.TempPathFactory, table: dict[str, Any]) -> Given:
    dataset = {**table, "samples_per_shard": 7, "max_bad_samples": 30, "train_fraction": 0.7, "stratify": True}
    place = tmp_path_factory.mktemp("undisturbed")
    assert main(["prepare", recipe(place, {**dataset, "distributed": "never"})]) == 0
    return Given(dataset, samples_of(place / "work"))


def recipe(place: Path, dataset: dict[str, Any]) -> str:
    content = {"workspace": str(place / "work"), "dataset": dataset, "student": {"model": "tiny:cnn"}}
    (place / "recipe.yaml").write_text(yaml.safe_dump(content))
    return str(place / "recipe.yaml")


@pytest.mark.processes
@pytest.mark.parametrize(
    ("data", "event", "pattern", "number", "whole"),
    [
        ("texts", "write", "rows-*.text", 2, "rows-*.facts"),
        ("texts", "write", "rows-*.facts", 2, "rows-*.facts"),
        ("texts", "write", "sorted-*.arrow", 2, "sorted-*.arrow"),
        ("texts", "write", "chosen-*.arrow", 2, "chosen-*.arrow"),
        ("pairs", "write", "gathered-*.arrow", 2, "gathered-*.arrow"),
        ("pairs", "write", "ordered-*.arrow", 2, "ordered-*.arrow"),
        ("texts", "write", "part-*.parquet", 3, "part-*.parquet"),
        ("pairs", "write", "manifest.json", 2, "manifest.json"),
        ("texts", "delete", "rows-*", 3, "manifest.json"),
        ("store", "write", "names-*.arrow", 3, "names-*.arrow"),
        ("store", "write", "rows-*.facts", 2, "rows-*.facts"),
        ("store", "write", "sorted-*.arrow", 2, "sorted-*.arrow"),
        ("store", "write", "part-*.parquet", 3, "part-*.parquet"),
        ("store", "delete", "names-*", 2, "manifest.json"),
    ],
    ids=[
        *("copying", "listing", "sorting", "choosing", "gathering", "ordering", "writing", "manifests", "deleting"),
        *("looking-at-a-store", "listing-a-store", "sorting-a-store", "writing-a-store", "deleting-a-store"),
    ],
)
def test_a_command_that_is_killed_in_any_phase_goes_on_when_it_is_started_again(
    tmp_path: Path,
    request: pytest.FixtureRequest,
    data: str,
    event: str,
    pattern: str,
    number: int,
    whole: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: Given = request.getfixturevalue(data)
    file = recipe(tmp_path, {**given.dataset, "distributed": "always"})
    killed = [sys.executable, "-m", "tests.helpers.small_buckets", event, pattern, str(number), file]
    ended = subprocess.run(killed, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == -9, ended.stderr
    before = [*(tmp_path / "work").rglob(whole)]
    assert len(before) == (number - 1 if event == "write" else 3) and (tmp_path / "work" / "listing").exists()
    for module, name, value in SMALL:
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(prepare, "helpers_of", helpers_here)
    assert main(["prepare", file]) == 0
    found = {name: content for name, content in samples_of(tmp_path / "work").items() if not is_temporary(name)}
    assert found == given.samples
    assert not (tmp_path / "work" / "listing").exists()


def is_temporary(name: str) -> bool:
    """Whether a killed process left it, as an hour shows; earlier a task may still write it."""
    return TEMPORARY.fullmatch(Path(name).name) is not None
