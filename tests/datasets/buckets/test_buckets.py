"""Samples that are sorted on disk, in buckets, are the same, byte for byte, as those that one process sorts in memory."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aft_ray.cluster.tasks import Helpers
from aft_ray.datasets import buckets
from aft_ray.datasets.buckets import files, mapping
from aft_ray.datasets.prepare import prepare
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError
from tests.helpers.tasks import elsewhere


def recipe(workspace: Path, **dataset: Any) -> Recipe:
    return Recipe.model_validate(
        {"workspace": str(workspace), "dataset": {"source": "webdataset", **dataset}, "student": {"model": "tiny:cnn"}}
    )


def samples_of(workspace: Path) -> dict[str, bytes]:
    found = [path for path in (workspace / "samples").rglob("*") if path.is_file()]
    return {path.relative_to(workspace).as_posix(): path.read_bytes() for path in found}


def write_tar(path: Path, members: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as opened:
        for name, text in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            opened.addfile(member, io.BytesIO(text.encode()))


def write_tars(folder: Path, splits: tuple[str, ...] = ("",), labels: tuple[str | None, ...] = ("a", "b", "c")) -> str:
    """Tars of texts. Each brings labels in another order, the last an empty text; None is a sample without a label."""
    for place, split in enumerate(splits):
        for number in range(5):
            chosen = random.Random(10 * place + number)
            members = {}
            for sample in range(30 if number else 3):
                label = chosen.choice(labels)
                members[f"{sample}.txt"] = f"text {sample}" if (number, sample) != (4, 7) else " "
                members |= {f"{sample}.cls": label} if label is not None else {}
            write_tar(folder / split / f"{number}.tar", members)
    return str(folder)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several buckets, batches, and tars of a task, for 120 samples."""
    monkeypatch.setattr(buckets, "BUCKET_ROWS", 17)
    monkeypatch.setattr(files, "ROWS_OF_BATCH", 4)
    monkeypatch.setattr(mapping, "TASKS", 2)


KEYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "fractions": {"validation_fraction": 0.3, "test_fraction": 0.05, "split_seed": 3},
    "few": {"max_samples": 61},
    "few of each class": {"max_samples": 90, "train_fraction": 0.4, "samples_per_shard": 5},
    "no rows a shard": {"samples_per_shard": None, "train_fraction": 0.01},
    "one bucket": {"max_samples": 12, "validation_fraction": 0.4, "test_fraction": 0.3},
}
SPLITS_AND_LABELS: dict[str, tuple[tuple[str, ...], tuple[str | None, ...]]] = {
    "classes": (("",), ("a", "b", "c")),
    "numbers": (("",), ("1", "+1", "2", "-1")),
    "some without": (("",), ("a", None, "b", None)),
    "own splits": (("train", "val", "test"), ("a", "b", None)),
    "own test": (("train", "test"), ("a", "b")),
}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize("kind", SPLITS_AND_LABELS)
def test_buckets_write_the_samples_that_one_process_writes(tmp_path: Path, kind: str, keys: str) -> None:
    given = {"path": write_tars(tmp_path / "tars", *SPLITS_AND_LABELS[kind]), "samples_per_shard": 7}
    given |= {"max_bad_samples": 3, **KEYS[keys]}
    called: list[str] = []

    def tasks(function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        called.append(function.__name__)
        return elsewhere(function, arguments)

    here = outcome(recipe(tmp_path / "here", **given))
    there = outcome(recipe(tmp_path / "there", **given, distributed="always"), Helpers(tasks))
    assert here == there
    if isinstance(here, dict):
        assert samples_of(tmp_path / "here") == samples_of(tmp_path / "there")
        assert {"map_rows", "sort_bucket", "choose_bucket", "write_shards"} <= set(called)
        assert not (tmp_path / "there" / "listing").exists()


def outcome(given: Recipe, helpers: Helpers | None = None) -> dict[str, Any] | list[str]:
    """The manifests, or the faults."""
    try:
        return prepare(given, helpers=helpers)
    except InputError as error:
        return error.faults
