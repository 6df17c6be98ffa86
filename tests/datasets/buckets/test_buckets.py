"""Samples that are sorted on disk, in buckets, are the same, byte for byte, as those that one process sorts in memory."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aft_ray.cluster.tasks import Helpers
from aft_ray.datasets import items
from aft_ray.datasets.buckets import bucket_edges
from aft_ray.datasets.buckets.files import MARK
from aft_ray.datasets.prepare import prepare
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError
from tests.helpers.hub_data import png
from tests.helpers.small_buckets import SMALL
from tests.helpers.small_data import samples_of, write_pictures, write_tables, write_tar, write_tars, write_to_store
from tests.helpers.tables import write_csv
from tests.helpers.tasks import elsewhere

pytestmark = pytest.mark.slow


def recipe(workspace: Path, **dataset: Any) -> Recipe:
    return Recipe.model_validate(
        {"workspace": str(workspace), "dataset": {"source": "webdataset", **dataset}, "student": {"model": "tiny:cnn"}}
    )


KEYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "fractions": {"validation_fraction": 0.3, "test_fraction": 0.05, "split_seed": 3},
    "few": {"max_samples": 61},
    "few of each class": {"max_samples": 90, "train_fraction": 0.4, "samples_per_shard": 5},
    "no rows a shard": {"samples_per_shard": None, "train_fraction": 0.01},
    "shares of each class": {"stratify": True, "split_seed": 2},
    "few shares": {"stratify": True, "max_samples": 70, "validation_fraction": 0.4, "train_fraction": 0.6},
    "no label": {"columns": {"label": []}, "max_samples": 100},
    "some splits": {"splits": {"train": "train"}},
    "one bucket": {"max_samples": 12, "validation_fraction": 0.4, "test_fraction": 0.3},
    "in place": {"copy": False, "max_samples": 80},
    "groups": {"columns": {"text": "text", "group": "page"}, "validation_fraction": 0.3},
    "few of some groups": {"columns": {"text": "text", "group": "page"}, "max_samples": 70, "validation_fraction": 0.3},
    "several": {"task": "multilabel", "columns": {"text": "text", "label": "several"}, "train_fraction": 0.5},
    "several by name": {"task": "multilabel", "columns": {"text": "text", "label": ["is_a", "is_b", "is_c"]}},
    "several of named": {
        "task": "multilabel",
        "columns": {"text": "text", "label": "several"},
        "label_names": ("a", "b", "c", "d", "none"),
        "max_samples": 70,
    },
    "several unknown": {
        "task": "multilabel",
        "columns": {"text": "text", "label": "several"},
        "label_names": ("a", "none"),
    },
    "a number": {"task": "regression", "columns": {"text": "text", "label": "size"}, "train_fraction": 0.6},
    "numbers of groups": {
        "task": "regression",
        "columns": {"text": "text", "label": ["size", "weight"], "group": "page"},
        "validation_fraction": 0.3,
    },
    "a list of numbers": {"task": "regression", "columns": {"text": "text", "label": "both"}},
    "lists of other lengths": {"task": "regression", "columns": {"text": "text", "label": "uneven"}},
    "column of splits": {
        "columns": {"text": "text", "split": "fold", "id": "text"},
        "splits": {"train": ("train",), "test": ("test",)},
        "validation_fraction": 0.4,
    },
}
KINDS: dict[str, tuple[tuple[str, ...], tuple[str | None, ...]]] = {
    "classes": (("",), ("a", "b", "c")),
    "numbers": (("",), ("1", "+1", "2", "-1")),
    "some without": (("",), ("a", None, "b", None)),
    "all without": (("",), (None,)),
    "own splits": (("train", "val", "test"), ("a", "b", None)),
    "own test": (("train", "test"), ("a", "b")),
}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("kind", "keys", "source"),
    [
        ("classes", "few of each class", "parquet"),
        ("numbers", "no rows a shard", "parquet"),
        ("some without", "groups", "parquet"),
        ("some without", "few of some groups", "parquet"),
        ("all without", "groups", "jsonl"),
        ("classes", "groups", "csv"),
        ("some without", "column of splits", "parquet"),
        ("some without", "few shares", "parquet"),
        ("own splits", "few of each class", "hub"),
        ("own test", "fractions", "hub"),
        ("own splits", "few shares", "csv"),
        *(
            ("classes", keys, source)
            for keys, source in (
                ("several", "parquet"),
                ("several", "jsonl"),
                ("several by name", "csv"),
                ("several of named", "jsonl"),
                ("several unknown", "parquet"),
                ("a number", "parquet"),
                ("numbers of groups", "csv"),
                ("a list of numbers", "jsonl"),
                ("lists of other lengths", "parquet"),
            )
        ),
        ("numbers", "few of each class", "image_folder"),
        ("classes", "in place", "image_folder"),
        ("own splits", "few shares", "image_folder"),
        ("numbers", "few of each class", "store"),
        ("classes", "in place", "store"),
        ("own splits", "few shares", "store"),
        ("own test", "some splits", "store"),
        *(
            (*case, "webdataset")
            for case in (
                ("classes", "few of each class"),
                ("classes", "no rows a shard"),
                ("classes", "one bucket"),
                ("numbers", "plain"),
                ("numbers", "few of each class"),
                ("some without", "fractions"),
                ("some without", "few"),
                ("all without", "plain"),
                ("all without", "no label"),
                ("own splits", "few"),
                ("own splits", "few of each class"),
                ("own test", "fractions"),
                ("classes", "shares of each class"),
                ("numbers", "shares of each class"),
                ("some without", "shares of each class"),
                ("own test", "few shares"),
                ("own splits", "few shares"),
                ("all without", "few shares"),
            )
        ),
    ],
)
def test_buckets_write_the_samples_that_one_process_writes(tmp_path: Path, kind: str, keys: str, source: str) -> None:
    if source == "webdataset":
        given: dict[str, Any] = {"path": write_tars(tmp_path / "tars", *KINDS[kind])}
    elif source in ("image_folder", "store"):
        given = (write_to_store if source == "store" else write_pictures)(tmp_path / "pictures", *KINDS[kind])
    else:
        given = write_tables(tmp_path / "tables", source, *KINDS[kind])
    given |= {"samples_per_shard": 7, "max_bad_samples": 3, **KEYS[keys]}
    here, there, called = here_and_there(tmp_path, given)
    assert here == there
    refused = (kind == "all without" and keys != "no label") or keys in ("several unknown", "lists of other lengths")
    assert isinstance(here, dict) != refused
    if isinstance(here, dict):
        assert samples_of(tmp_path / "here") == samples_of(tmp_path / "there")
        assert {"map_rows", "sort_bucket", "choose_bucket", "write_shards"} <= set(called)
        assert ("list_folders" in called) == (source == "store")
        assert not (tmp_path / "there" / "listing").exists()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("source", ["webdataset", "store"])
@pytest.mark.parametrize("keys", ["shares of each class", "few of each class"])
def test_samples_of_one_hash_lie_in_the_order_of_the_listing(
    tmp_path: Path, keys: str, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def coarse(salt: str, texts: pa.ChunkedArray) -> np.ndarray:
        return np.round(items.unit_hashes(salt, texts), 1)

    monkeypatch.setattr("aft_ray.datasets.held_out.unit_hashes", coarse)
    monkeypatch.setattr(items.Items, "hashes", property(lambda self: coarse("order", self.ids)))
    data = {"path": write_tars(tmp_path / "tars")} if source == "webdataset" else write_to_store(tmp_path / "data")
    given = {**data, "samples_per_shard": 7, "max_bad_samples": 1, **KEYS[keys]}
    here = prepare(recipe(tmp_path / "here", **given))
    there = prepare(recipe(tmp_path / "there", **given, distributed="always"), helpers=Helpers(elsewhere))
    assert here == there and samples_of(tmp_path / "here") == samples_of(tmp_path / "there")


def outcome(given: Recipe, helpers: Helpers | None = None) -> dict[str, Any] | list[str]:
    """The manifests, or the faults."""
    try:
        return prepare(given, helpers=helpers)
    except InputError as error:
        return error.faults


def here_and_there(place: Path, given: dict[str, Any]) -> tuple[Any, Any, list[str]]:
    """The outcomes of one process and of tasks, and the names of the tasks' functions."""
    called: list[str] = []

    def tasks(function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        called.append(function.__name__)
        return elsewhere(function, arguments)

    here = outcome(recipe(place / "here", **given))
    there = outcome(recipe(place / "there", **given, distributed="always"), Helpers(tasks))
    return here, there, called


@pytest.mark.usefixtures("small")
def test_ids_that_are_there_twice_are_told_as_one_process_tells_them(tmp_path: Path) -> None:
    path = Path(write_tars(tmp_path / "tars"))
    write_tar(path / "deep.tar", {f"{folder}/7/{sample}.txt": "a" for folder in "abcdefgh" for sample in range(3)})
    for folder in "hcb":
        write_tar(path / "deep" / f"{folder}.tar", {f"7/{sample}.txt": "b" for sample in range(3)})
    write_tar(path / "deep" / "c" / "7.tar", {"1.txt": "c", "2.txt": "d", "5.txt": "e"})
    keys: dict[str, Any] = {"path": str(path), "max_samples": 20}
    here = outcome(recipe(tmp_path / "here", **keys))
    there = outcome(recipe(tmp_path / "there", **keys, distributed="always"), Helpers(elsewhere))
    assert here == there
    assert isinstance(here, list) and "and 4 more" in here[0]
    assert "Sample ids must differ: 'deep/c/7/1' (3 times), 'deep/c/7/2' (3 times)" in here[0]
    assert not (tmp_path / "there" / "samples").exists()


@pytest.mark.usefixtures("small")
def test_a_tar_that_changes_while_samples_are_written_is_named_and_listed_again(tmp_path: Path) -> None:
    path = Path(write_tars(tmp_path / "tars"))
    keys: dict[str, Any] = {"path": str(path), "distributed": "always", "samples_per_shard": 7, "max_bad_samples": 1}
    mapped: list[str] = []

    def changing(function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        if function.__name__ == "sort_bucket":
            write_tar(path / "3.tar", {f"{sample}.{kind}": "a" for sample in range(40) for kind in ("txt", "cls")})
        return elsewhere(function, arguments)

    def watching(function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        given = [*arguments]
        if function.__name__ == "map_rows":
            mapped.extend(part[3] for _, _, _, parts, _ in given for part in parts)
        return elsewhere(function, given)

    with pytest.raises(InputError) as told:
        prepare(recipe(tmp_path / "there", **keys), helpers=Helpers(changing))
    changed = f"{path}/3.tar changed while its samples were written. Run 'aft-ray prepare --overwrite'."
    assert told.value.faults == [changed]
    assert not [*(tmp_path / "there" / "samples").rglob("manifest.json")]
    prepare(recipe(tmp_path / "there", **keys), overwrite=True, helpers=Helpers(watching))
    assert mapped == ["2", "3"]  # the group of the tar alone
    prepare(recipe(tmp_path / "here", **keys))
    assert samples_of(tmp_path / "here") == samples_of(tmp_path / "there")


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("source", ["parquet", "image_folder"])
def test_a_table_or_a_folder_that_changes_is_named_and_listed_again(tmp_path: Path, source: str) -> None:
    folder = tmp_path / "data"
    given = write_tables(folder, source) if source == "parquet" else write_pictures(folder)
    given |= {"samples_per_shard": 7, "max_bad_samples": 1}
    table = folder / "part-00003-of-00005.parquet"

    def change() -> None:
        if source == "parquet":
            pq.write_table(pq.read_table(table).slice(2), table)
        else:
            (folder / "b" / "deep" / "new.png").write_bytes(png(1))

    def changing(function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        if function.__name__ == "sort_bucket":
            change()
        return elsewhere(function, arguments)

    there = recipe(tmp_path / "there", **given, distributed="always")
    told = outcome(there, Helpers(changing))
    name = table if source == "parquet" else folder / "b" / "deep"
    assert told == [f"{name} changed while its samples were written. Run 'aft-ray prepare --overwrite'."]
    (folder / "b").is_dir() and (folder / "b" / "0.png").write_bytes(png(2) + b"in the same folder, larger than before")
    prepare(there, overwrite=True, helpers=Helpers(elsewhere))
    prepare(recipe(tmp_path / "here", **given))
    assert samples_of(tmp_path / "here") == samples_of(tmp_path / "there")


def in_store(folder: Path, **keys: Any) -> dict[str, Any]:
    return {**write_to_store(folder), "distributed": "always", "samples_per_shard": 7, "max_bad_samples": 1, **keys}


CHANGES: dict[str, Callable[[Path], object]] = {
    "b/deep": lambda root: (root / "b" / "deep" / "new.png").write_bytes(png(1)),
    "c": lambda root: (root / "c" / "0.png").write_bytes(png(2) + b"larger than before"),
    "a": lambda root: (root / "a" / "0.png").unlink(),
    "c/deep/er": lambda root: shutil.rmtree(root / "c" / "deep" / "er"),
    "b/new": lambda root: shutil.copytree(root / "b" / "deep" / "er", root / "b" / "new"),
}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("changed", CHANGES)
def test_a_folder_in_a_store_that_changes_is_named_and_listed_again(tmp_path: Path, changed: str) -> None:
    folder = tmp_path / "data"
    given = in_store(folder)
    began: list[str] = []

    def changing(function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        yield from elsewhere(function, arguments)
        began.append(function.__name__)
        if began[-3:] == ["write_shards"] * 3:  # the last split is written
            CHANGES[changed](folder)

    there = recipe(tmp_path / "there", **given)
    told = outcome(there, Helpers(changing))
    assert told == [
        f"fsspec+local://{folder}/{changed} changed while its samples were written. Run 'aft-ray prepare --overwrite'."
    ]
    assert not [*(tmp_path / "there" / "samples").rglob("manifest.json")]
    prepare(there, overwrite=True, helpers=Helpers(elsewhere))
    prepare(recipe(tmp_path / "here", **given | {"distributed": "never"}))
    assert samples_of(tmp_path / "here") == samples_of(tmp_path / "there")


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("new", [None, "aa/new.png"])
def test_a_store_s_parts_whose_folders_are_as_they_were_serve_the_next_command(tmp_path: Path, new: str | None) -> None:
    """A new class gives those after it other numbers."""
    given = in_store(tmp_path / "data")
    mapped: list[str] = []

    def failing(function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        if function.__name__ == "sort_bucket":
            raise InputError("as if killed")
        return elsewhere(function, arguments)

    def watching(function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        given = [*arguments]
        if function.__name__ == "map_rows":
            mapped.extend(rows.folder.name for _, _, _, parts, _ in given for _, group in parts for rows in group)
        return elsewhere(function, given)

    there = recipe(tmp_path / "there", **given)
    assert outcome(there, Helpers(failing)) == ["as if killed"]
    if new:
        (tmp_path / "data" / new).parent.mkdir(exist_ok=True)
        (tmp_path / "data" / new).write_bytes(png(3))
    prepare(there, helpers=Helpers(watching))
    assert {name.partition("/")[0] for name in mapped} == ({"a", "aa", "b", "c"} if new else set())
    prepare(recipe(tmp_path / "here", **given | {"distributed": "never"}))
    assert samples_of(tmp_path / "here") == samples_of(tmp_path / "there")


def test_few_pictures_of_a_store_are_listed_without_tasks_and_many_by_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, value in SMALL:
        monkeypatch.setattr(module, name, value)
    given = in_store(tmp_path / "data", distributed="auto")
    listed: dict[int, list[str]] = {}
    for least in (0, 50, 120, 121):
        called = listed.setdefault(least, [])

        def tasks(
            function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]], called: list[str] = called
        ) -> Iterator[Any]:
            for result in elsewhere(function, arguments):
                called.append(function.__name__)
                yield result

        prepare(recipe(tmp_path / str(least), **given), helpers=Helpers(tasks, least))
    assert samples_of(tmp_path / "0") == samples_of(tmp_path / "50") == samples_of(tmp_path / "121")
    counts = [called.count("list_folders") for called in listed.values()]
    assert counts[0] > counts[1] > counts[2] > counts[3] == 0
    assert ["map_rows" in called for called in listed.values()] == [True, True, True, False]


def test_tars_that_hold_the_workspace_are_refused_before_a_file_is_written(tmp_path: Path) -> None:
    path = write_tars(tmp_path / "tars")
    inside = recipe(tmp_path / "tars" / "work", path=path, distributed="always")
    with pytest.raises(InputError, match="must lie apart"):
        prepare(inside, helpers=Helpers(elsewhere))
    assert not (tmp_path / "tars" / "work").exists()


def test_files_of_somebody_else_are_not_replaced(tmp_path: Path) -> None:
    kinds = ("sorted", "chosen", "gathered", "ordered")
    names = [f"rows-{16 * 'a'}.facts", f"names-{16 * 'a'}.arrow", *(f"{kind}-00000.arrow" for kind in kinds)]
    place = tmp_path / "work" / "listing"
    place.mkdir(parents=True)
    for name in names:
        (place / name).write_text("mine")
    given = recipe(tmp_path / "work", path=write_tars(tmp_path / "tars"), distributed="always")
    with pytest.raises(InputError) as refused:
        prepare(given, helpers=Helpers(elsewhere))
    told = [f"{place / name} was not written by 'aft-ray prepare'. Move it away." for name in names]
    assert sorted(refused.value.faults) == sorted(told)
    assert {name: (place / name).read_text() for name in names} == dict.fromkeys(names, "mine")


@pytest.mark.parametrize("rest", [b"", b"ARROW1", MARK + b"the first bytes of a copy"])
def test_what_a_killed_process_has_not_finished_is_deleted_if_it_is_ours(tmp_path: Path, rest: bytes) -> None:
    unfinished = tmp_path / "work" / "listing" / f".sorted-00000.arrow.{8 * '0'}.tmp"
    unfinished.parent.mkdir(parents=True)
    unfinished.write_bytes(rest)
    given = {"path": write_tars(tmp_path / "tars"), "distributed": "always", "max_bad_samples": 1}
    prepare(recipe(tmp_path / "work", **given), helpers=Helpers(elsewhere))
    assert unfinished.exists() == (rest == b"ARROW1")  # a file of another program may begin so


@pytest.mark.parametrize("source", ["parquet", "webdataset"])
def test_samples_inside_files_that_shall_not_be_copied_are_refused_before_they_are(tmp_path: Path, source: str) -> None:
    path = tmp_path / "data"
    given = write_tables(path, source) if source == "parquet" else {"path": write_tars(path)}
    told = outcome(recipe(tmp_path / "work", **given, copy=False, distributed="always"), Helpers(elsewhere))
    assert told == [
        f"dataset.copy is false, but the samples of {path} are not files of their own, which can be read where they lie."
        " Leave dataset.copy out: then 'aft-ray prepare' copies them."
    ]
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("distributed", ["never", "always"])
@pytest.mark.parametrize("is_link", [False, True])
def test_pictures_that_a_table_names_and_that_lie_among_the_samples_are_refused(
    tmp_path: Path, image_folder: Path, distributed: str, is_link: bool
) -> None:
    inside = tmp_path / "work" / "samples" / "own.png"
    inside.parent.mkdir(parents=True)
    inside.write_bytes(png(1))
    (image_folder / "link.png").symlink_to(inside)
    own = "pictures/link.png" if is_link else "work/samples/own.png"
    names = [f"pictures/{name}.png" for name in ("top/00", "bottom/00", "bottom/01")]
    write_csv(tmp_path / "t" / "t.csv", [{"picture": name, "label": name[9:12]} for name in (*names, own)])
    columns = {"image": "picture", "label": "label", "image_root": str(tmp_path)}
    given = {"source": "csv", "path": str(tmp_path / "t" / "t.csv"), "columns": columns, "distributed": distributed}
    told = outcome(recipe(tmp_path / "work", **given), Helpers(elsewhere))
    assert isinstance(told, list) and len(told) == 1 and f"The raw data {inside} and" in told[0] and inside.exists()


def test_samples_that_stay_in_memory_are_told_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tars = {
        "source": "webdataset",
        "path": write_tars(tmp_path / "tars"),
        "max_bad_samples": 1,
        "distributed": "always",
    }
    cases: list[tuple[dict[str, Any], str]] = [
        (
            {"source": None, "name": "mnist5k", "max_samples": 100, "distributed": "always"},
            "mnist5k is not listed in parts",
        ),
        (tars, ""),
    ]
    for number, (dataset, reason) in enumerate(cases):
        prepare(recipe(tmp_path / f"work{number}", **dataset), helpers=Helpers(elsewhere))
        told = capsys.readouterr().err
        assert ("in its memory" in told) == bool(reason) and reason in told


@pytest.mark.parametrize(
    ("bins", "edges"),
    [
        ([3, 3, 3, 3], [0, 1, 2, 4]),
        ([0, 0, 5, 0], [0, 4]),
        ([1, 40, 1, 0, 2], [0, 1, 5]),
        ([0, 2, 0, 0, 2, 0], [0, 6]),
    ],
)
def test_buckets_have_about_as_many_samples_and_none_has_none(bins: list[int], edges: list[int]) -> None:
    found = bucket_edges(np.array(bins), 4)
    assert found.tolist() == edges
    assert all(sum(bins[start:stop]) for start, stop in zip(found, found[1:], strict=False))
