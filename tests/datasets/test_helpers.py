"""Samples that other processes list and write are the same, byte for byte, as those that one process makes."""

from __future__ import annotations

import io
import os
import signal
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aft_ray.cluster.tasks import Helpers, in_tasks
from aft_ray.datasets.prepare import prepare
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError
from tests.helpers.hub_data import png
from tests.helpers.tasks import elsewhere

pytestmark = pytest.mark.slow


def recipe(workspace: Path, **dataset: Any) -> Recipe:
    return Recipe.model_validate({"workspace": str(workspace), "dataset": dataset, "student": {"model": "tiny:cnn"}})


def files(workspace: Path) -> dict[str, bytes]:
    found = [path for path in (workspace / "samples").rglob("*") if path.is_file()]
    return {path.relative_to(workspace).as_posix(): path.read_bytes() for path in found}


def tars(folder: Path) -> Path:
    folder.mkdir()
    for number in range(4):
        with tarfile.open(folder / f"{number}.tar", "w") as opened:
            for place in range(40):
                for suffix, content in (
                    (".png", png(number * 40 + place)),
                    (".cls", f"{(place + number) % 3}".encode()),
                ):
                    member = tarfile.TarInfo(f"{place}{suffix}")
                    member.size = len(content)
                    opened.addfile(member, io.BytesIO(content))
    return folder


def table(folder: Path, pictures: Path) -> Path:
    folder.mkdir()
    rows = [f"{path},{path.parent.name}" for path in sorted(pictures.rglob("*.png"))]
    (folder / "t.csv").write_text("\n".join(["picture,label", *rows]))
    return folder


def parquet(folder: Path, pictures: Path) -> Path:
    folder.mkdir()
    rows = [{"picture": path.read_bytes(), "label": path.parent.name} for path in sorted(pictures.rglob("*.png"))]
    pq.write_table(pa.Table.from_pylist(rows), folder / "t.parquet")
    return folder


@pytest.mark.parametrize("kind", ["image_folder", "uris", "webdataset", "csv", "parquet"])
@pytest.mark.parametrize("keys", [{}, {"max_samples": 50, "train_fraction": 0.5}, {"stratify": True}])
def test_tasks_write_the_samples_that_one_process_writes(
    tmp_path: Path, image_folder: Path, kind: str, keys: dict[str, Any]
) -> None:
    (image_folder / "top" / "03.png").write_bytes(b"no picture")
    if kind == "webdataset":
        keys = {**keys, "source": kind, "path": str(tars(tmp_path / "tars"))}
    elif kind == "csv":
        columns = {"image": "picture", "label": "label", "image_root": str(image_folder)}
        keys = {**keys, "source": kind, "path": str(table(tmp_path / "table", image_folder)), "columns": columns}
    elif kind == "parquet":
        path = parquet(tmp_path / "table", image_folder)
        keys = {**keys, "source": kind, "path": str(path), "columns": {"image": "picture"}}
    else:
        keys = {**keys, "source": "image_folder", "path": str(image_folder), "copy": kind == "image_folder"}
    keys |= {"samples_per_shard": 3, "max_bad_samples": 1}
    calls: list[str] = []

    def tasks(function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        calls.append(function.__name__)
        return elsewhere(function, arguments)

    here = prepare(recipe(tmp_path / "here", **keys))
    there = prepare(recipe(tmp_path / "there", **keys, distributed="always"), helpers=Helpers(tasks))
    assert here == there
    assert files(tmp_path / "here") == files(tmp_path / "there")
    listed = {"has_label", "map_rows", "sort_bucket", "choose_bucket"}
    listed |= {"count_places", "at_edges"} if keys.get("stratify") else set()
    assert set(calls) == {"write_shards"} | listed


def test_small_work_and_work_that_cannot_be_shared_start_no_task(tmp_path: Path, image_folder: Path) -> None:
    def never(function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        raise AssertionError(function)

    given: dict[str, Any] = {"source": "image_folder", "path": str(image_folder)}
    prepare(recipe(tmp_path / "small", **given), helpers=Helpers(never))
    prepare(recipe(tmp_path / "off", **given, distributed="never"), helpers=Helpers(never, 0))
    prepare(recipe(tmp_path / "rows", name="mnist5k", max_samples=100, distributed="always"), helpers=Helpers(never))


@pytest.mark.parametrize("lost", ["map_rows", "sort_bucket", "choose_bucket", "write_shards"])
def test_a_command_whose_tasks_fail_goes_on_where_it_ended(
    tmp_path: Path, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aft_ray.datasets.buckets.BUCKET_ROWS", 50)
    keys: dict[str, Any] = {"source": "webdataset", "path": str(tars(tmp_path / "tars")), "samples_per_shard": 2}
    keys["distributed"] = "always"

    def failing(function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        for number, done in enumerate(elsewhere(function, arguments)):
            if function.__name__ == lost and number == 1:
                raise OSError("the last process was killed")
            yield done

    workspace = tmp_path / "work"
    with pytest.raises(OSError, match="was killed"):
        prepare(recipe(workspace, **keys), helpers=Helpers(failing))
    found = [*workspace.rglob("*.parquet"), *workspace.rglob("rows-*.arrow")]
    assert any(path.suffix == ".parquet" for path in found) == (lost == "write_shards") and found
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}
    after: dict[Path, tuple[int, int]] = {}

    def watching(function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        yield from elsewhere(function, arguments)
        after.update({path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in before})

    prepare(recipe(workspace, **keys), helpers=Helpers(watching))
    prepare(recipe(tmp_path / "here", **keys))
    assert files(workspace) == files(tmp_path / "here")
    assert after == before


def test_bad_samples_that_tasks_find_are_told_as_one_process_tells_them(tmp_path: Path, image_folder: Path) -> None:
    for name in ("top/03.png", "top/05.png", "bottom/07.png"):
        (image_folder / name).write_bytes(b"")
    given: dict[str, Any] = {"source": "image_folder", "path": str(image_folder), "samples_per_shard": 4}
    with pytest.raises(InputError) as here:
        prepare(recipe(tmp_path / "here", **given))
    with pytest.raises(InputError) as there:
        prepare(recipe(tmp_path / "there", **given, distributed="always"), helpers=Helpers(elsewhere))
    assert here.value.faults == there.value.faults and len(here.value.faults) == 4


@pytest.mark.ray
def test_tasks_that_are_killed_run_again_and_the_samples_are_the_same(tmp_path: Path, cluster: None) -> None:
    keys: dict[str, Any] = {"source": "webdataset", "path": str(tars(tmp_path / "tars")), "samples_per_shard": 2}
    keys["distributed"] = "always"

    def deadly(function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        return in_tasks(DiesOnce(function, str(tmp_path)), arguments)

    prepare(recipe(tmp_path / "there", **keys), helpers=Helpers(deadly))
    prepare(recipe(tmp_path / "here", **keys))
    assert files(tmp_path / "there") == files(tmp_path / "here")
    for name in ("map_rows", "sort_bucket", "choose_bucket", "write_shards"):
        assert (tmp_path / name).exists()
    (tmp_path / "tars" / "1.tar").write_bytes(b"no tar" * 1000)
    with pytest.raises(InputError, match=r"1\.tar is no plain tar"):
        prepare(recipe(tmp_path / "damaged", **keys), helpers=Helpers(in_tasks))
    elsewhere = str(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=f"Node .* does not see the raw data {elsewhere}.* dataset.distributed=never"):
        list(in_tasks(len, [("",)], [str(tmp_path), elsewhere]))


class DiesOnce:
    """A function whose process is killed when it has worked for the first time."""

    def __init__(self, function: Callable[..., Any], folder: str) -> None:
        self.function, self.folder = function, folder

    def __call__(self, *arguments: Any) -> Any:
        done = self.function(*arguments)
        mark = Path(self.folder, self.function.__name__)
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return done
