"""Raw data behind a URL makes the samples that the same files make on a disk, bit for bit, and stays as it is."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileOpener

from aft_ray.cluster.tasks import Helpers
from aft_ray.datasets import faults, list_samples
from aft_ray.datasets.prepare import prepare
from aft_ray.datasets.shard_writing import samples_table
from aft_ray.datasets.sources import store_folders
from aft_ray.datasets.sources.tables import open_table, read_rows
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError, ObjectStoreError
from aft_ray.recipe.places import place_at
from aft_ray.recipe.remote import BUFFER_BYTES, RemotePath
from aft_ray.recipe.sections import DatasetConfig
from aft_ray.store.contents import READERS, content_reader, contents
from aft_ray.store.workspace import Workspace
from tests.conftest import draw_pictures
from tests.helpers.tasks import elsewhere

pytestmark = pytest.mark.slow


@dataclass
class Bucket:
    """A bucket of raw data. query: of its URLs."""

    client: Any
    name: str
    query: str

    def url(self, key: str) -> str:
        return f"s3://{self.name}/{key}?{self.query}"

    def put(self, folder: Path) -> None:
        for file in folder.rglob("*"):
            if file.is_file():
                self.client.put_object(
                    Bucket=self.name, Key=file.relative_to(folder).as_posix(), Body=file.read_bytes()
                )

    def state(self) -> dict[str, tuple[str, str]]:
        found = self.client.list_objects_v2(Bucket=self.name).get("Contents", [])
        return {entry["Key"]: (entry["ETag"], str(entry["LastModified"])) for entry in found}


@pytest.fixture
def bucket(s3: str, tmp_path: Path) -> Iterator[Bucket]:
    import boto3

    host = s3.partition("&")[0].partition("=")[2]
    client = boto3.client("s3", endpoint_url=f"http://{host}", region_name="us-east-1")
    client.create_bucket(Bucket="raw")
    found = Bucket(client, "raw", s3)
    yield found
    for key in found.state():
        client.delete_object(Bucket="raw", Key=key)
    client.delete_bucket(Bucket="raw")


def pictures(root: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted(draw_pictures(root).rglob("*.png"))]


def as_folder(root: Path) -> dict[str, Any]:
    draw_pictures(root / "my pets")
    (root / "my pets/top/.hidden.png").write_bytes(b"")
    (root / "my pets/notes.txt").write_text("no sample")
    return {"source": "image_folder", "path": "my pets"}


def as_splits(root: Path) -> dict[str, Any]:
    for number, file in enumerate(sorted(draw_pictures(root.with_name("drawn")).rglob("*.png"))):
        folder = root / ("train", "train", "val", "test")[number % 4] / file.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        file.rename(folder / file.name)
    return {"source": "image_folder", "path": ""}


def as_parquet(root: Path) -> dict[str, Any]:
    rows = [{"image": content, "label": number % 2} for number, content in enumerate(pictures(root.with_name("drawn")))]
    root.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), root / "rows.parquet", row_group_size=7)
    return {"source": "parquet", "path": "*.parquet", "columns": {"image": "image"}}


def as_csv_beside_pictures(root: Path) -> dict[str, Any]:
    names = [file.relative_to(root).as_posix() for file in sorted(draw_pictures(root / "images").rglob("*.png"))]
    with (root / "rows.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["image", "label"], *([name, name.split("/")[1]] for name in names)])
    return {"source": "csv", "path": "rows.csv", "columns": {"image": "image"}}


def as_texts(root: Path) -> dict[str, Any]:
    root.mkdir()
    lines = [json.dumps({"text": f"number {number} é", "label": number % 3}) for number in range(60)]
    (root / "rows.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))
    return {"source": "jsonl", "path": "rows.jsonl.gz", "columns": {"text": "text"}}


def as_tars(root: Path) -> dict[str, Any]:
    root.mkdir()
    with tarfile.open(root / "pets-0.tar", "w") as packed:
        for number, content in enumerate(pictures(root.with_name("drawn"))):
            for suffix, part in (("png", content), ("cls", str(number % 2).encode())):
                member = tarfile.TarInfo(f"{number:03}.{suffix}")
                member.size = len(part)
                packed.addfile(member, io.BytesIO(part))
    return {"source": "webdataset", "path": ""}


def as_saved_to_disk(root: Path) -> dict[str, Any]:
    for split in ("train", "test"):
        (root / "texts" / split).mkdir(parents=True)
        table = pa.table({"text": [f"{split} {number}" for number in range(40)], "label": [0, 1] * 20})
        with pa.ipc.new_stream(root / "texts" / split / "data-00000-of-00001.arrow", table.schema) as stream:
            stream.write_table(table)
        (root / "texts" / split / "cache-1.arrow").write_bytes(b"of an earlier map")
        (root / "texts" / split / "state.json").write_text(
            json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]})
        )
    return {"source": "hub", "repo": "somebody/texts", "path": "", "columns": {"text": "text"}}


FORMS = (as_folder, as_splits, as_parquet, as_csv_beside_pictures, as_texts, as_tars, as_saved_to_disk)


@pytest.mark.parametrize("make", FORMS, ids=lambda make: make.__name__)
def test_every_source_gives_the_same_samples_from_a_url(
    bucket: Bucket, tmp_path: Path, make: Callable[[Path], dict[str, Any]]
) -> None:
    dataset = make(tmp_path / "raw")
    bucket.put(tmp_path / "raw")
    before = bucket.state()
    places = {
        str(tmp_path / "work"): str(tmp_path / "raw" / dataset["path"]),
        f"s3://bucket/{make.__name__}?{bucket.query}": bucket.url(dataset["path"]),
    }
    here, there = (
        prepare(
            Recipe.model_validate(
                {"workspace": workspace, "dataset": {**dataset, "path": path}, "student": {"model": "tiny:cnn"}}
            )
        )
        for workspace, path in places.items()
    )
    assert here == there
    assert bucket.state() == before


def config(path: str, **more: Any) -> DatasetConfig:
    return DatasetConfig.model_validate({"source": "image_folder", "path": path, **more})


def test_samples_that_are_not_copied_name_urls_and_are_read_from_them(bucket: Bucket, tmp_path: Path) -> None:
    as_folder(tmp_path / "raw")
    bucket.put(tmp_path / "raw")
    dataset = {"source": "image_folder", "path": bucket.url("my%20pets"), "copy": False}
    workspace = Workspace.at(tmp_path / "work")
    prepare(Recipe.model_validate({"workspace": str(workspace), "dataset": dataset, "student": {"model": "tiny:cnn"}}))
    shard = workspace.samples("train").read_shard(0)
    (first, *_), read = shard.column("image_uri").to_pylist(), content_reader(shard)
    own = shard.column("sample_id")[0].as_py()
    assert first == bucket.url(f"my%20pets/{own}")
    assert read(0) == (tmp_path / "raw/my pets" / own).read_bytes()
    bucket.client.delete_object(Bucket="raw", Key=f"my pets/{own}")
    with pytest.raises(FileNotFoundError, match=f"there is no file s3://raw/my%20pets/{own}"):
        read(0)


def counting(answer: Callable, requests: list[str]) -> Callable:
    """The server's function, with a note of each call."""

    def counted(*arguments: Any) -> Any:
        requests.append(answer.__name__)
        return answer(*arguments)

    return counted


def test_a_folder_is_listed_without_a_request_for_each_file(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moto.s3.responses import S3Response

    as_csv_beside_pictures(tmp_path / "raw")
    bucket.put(tmp_path / "raw")
    requests: list[str] = []
    for name in ("_bucket_response", "_key_response"):
        monkeypatch.setattr(S3Response, name, counting(getattr(S3Response, name), requests))
    assert len(list_samples(config(bucket.url("images"))).items) == 60
    assert 0 < len(requests) < 10
    table = config(bucket.url("rows.csv"), source="csv", columns={"image": "image"})
    assert all(item.num_bytes for item in list_samples(table).items)
    assert len(requests) < 40


@pytest.mark.parametrize(("enough", "listings"), [(64, 1 + 3 + 6 + 1), (3, 1 + 3)])
def test_tasks_list_pictures_in_a_bucket_once_and_once_more_at_the_end(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enough: int, listings: int
) -> None:
    from moto.s3.responses import S3Response

    monkeypatch.setattr(store_folders, "ENOUGH", enough)
    dataset = as_splits(tmp_path / "raw")
    (tmp_path / "raw/train/top/.hidden").mkdir()
    (tmp_path / "raw/train/top/.hidden/00.png").write_bytes(b"")
    bucket.put(tmp_path / "raw")
    bucket.client.put_object(Bucket="raw", Key="train/top/empty/", Body=b"")  # as consoles make folders; listed too
    requests: list[str] = []
    of_tasks: list[int] = []
    monkeypatch.setattr(S3Response, "_bucket_response", counting(S3Response._bucket_response, requests))

    def tasks(function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        for given in arguments:
            before = len(requests)
            yield from elsewhere(function, [given])
            of_tasks.append(len(requests) - before)

    def made(path: str, **keys: Any) -> dict[str, Any]:
        given = {**dataset, "path": path, **keys}
        work = str(tmp_path / keys.get("distributed", "local"))
        recipe = {"workspace": work, "dataset": given, "student": {"model": "tiny:cnn"}}
        return prepare(Recipe.model_validate(recipe), helpers=Helpers(tasks))

    alone = made(bucket.url(""), distributed="never")
    assert not of_tasks
    assert made(bucket.url(""), distributed="always") == alone == made(str(tmp_path / "raw"))
    assert sum(of_tasks) == 2 * listings
    requests.clear()
    assert faults(config(bucket.url(""))) == [] and len(requests) < listings


@pytest.mark.parametrize("enough", [64, 1])
def test_keys_that_no_folder_has_are_left_out_and_told(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, enough: int
) -> None:
    monkeypatch.setattr(store_folders, "ENOUGH", enough)
    for key in ("a/1.png", "b/2.png", "a//3.png", "a//deep/4.png", "/5.png", "a/../6.png", "a/x.png/7.png", "b//8.png"):
        bucket.client.put_object(Bucket="raw", Key=f"odd/{key}", Body=b"x")
    listing = list_samples(config(bucket.url("odd")))
    assert [item.sample_id for item in listing.items] == ["a/1.png", "a/x.png/7.png", "b/2.png"]
    assert listing.left_out == {"folders without a name": 3, "hidden": 1}


def test_a_glob_in_a_bucket_matches_as_on_a_disk(bucket: Bucket, tmp_path: Path) -> None:
    for name in ("a/1.csv", "a/b/2.csv", "c/3.csv", "c/.4.csv", "c/5.tsv"):
        (tmp_path / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "raw" / name).write_text("text\tlabel\nx\t1\ny\t2\n" if "tsv" in name else "text,label\nx,1\ny,2\n")
    bucket.put(tmp_path / "raw")
    for pattern in ("*/*.csv", "**/*.csv", "a/**/*.csv", "c/[35].?sv", "c/3.csv"):
        here, there = (
            [item.sample_id for item in list_samples(config(path, source="csv", columns={"text": "text"})).items]
            for path in (str(tmp_path / "raw" / pattern), bucket.url(pattern.replace("?", "%3F")))
        )
        assert here == there, pattern


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("nowhere/pets", "dataset: raw data s3://nowhere/pets.* cannot be reached: .*NO_SUCH_BUCKET"),
        ("raw/nothing", "dataset: the folder s3://raw/nothing.* does not exist; set dataset.path"),
        ("raw/file.zip", "dataset: s3://raw/file.zip.* is a file, not a folder"),
    ],
)
def test_a_wrong_bucket_and_a_missing_key_are_one_line_that_names_them(bucket: Bucket, name: str, line: str) -> None:
    bucket.client.put_object(Bucket="raw", Key="file.zip", Body=b"x")
    (fault,) = faults(config(f"s3://{name}?{bucket.query}"))
    assert re.match(line, fault), fault


def test_a_table_in_a_bucket_cannot_make_samples_of_other_places(bucket: Bucket, tmp_path: Path) -> None:
    as_folder(tmp_path / "raw")
    bucket.put(tmp_path / "raw")
    for path in ("../my pets/top/00.png", "/etc/hosts", "s3://bucket/x.png", "file:///etc/hosts"):
        bucket.client.put_object(Bucket="raw", Key="tables/a.csv", Body=f"image,label\n{path},1\n{path},2\n".encode())
        with pytest.raises(InputError, match="leads outside the folder s3://raw/tables"):
            list_samples(config(bucket.url("tables"), source="csv", columns={"image": "image"}))


def test_raw_data_and_workspace_in_one_bucket_lie_apart(bucket: Bucket, tmp_path: Path) -> None:
    as_folder(tmp_path / "raw")
    bucket.put(tmp_path / "raw")
    before = bucket.state()
    recipe = {
        "workspace": bucket.url("my%20pets/work"),
        "dataset": {"source": "image_folder", "path": bucket.url("my%20pets")},
        "student": {"model": "tiny:cnn"},
    }
    with pytest.raises(InputError, match="The raw data s3://raw/my%20pets.* must lie apart"):
        prepare(Recipe.model_validate(recipe))
    assert bucket.state() == before


def test_a_store_that_refuses_is_one_line_at_once(tmp_path: Path) -> None:
    """403, as without credentials: a server of ten lines gives it, since moto takes any."""
    import http.server
    import threading
    import time

    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(403)

        do_HEAD = do_GET

        def log_message(self, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        begun = time.monotonic()
        url = f"s3://private/pets?endpoint_override=127.0.0.1:{server.server_port}&scheme=http&region=us-east-1"
        (fault,) = faults(config(url))
        server.shutdown()
    assert "raw data s3://private/pets" in fault and "ACCESS_DENIED" in fault and "has credentials for it" in fault
    assert time.monotonic() - begun < 5


def test_pictures_behind_urls_are_read_several_at_a_time(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `prepare`, and by `extract` where they are not copied: a reader waits for the store most of the time."""
    as_folder(tmp_path / "raw")
    bucket.put(tmp_path / "raw")
    read_bytes, now, most = RemotePath.read_bytes, Counter[str](), Counter[str]()

    def slow(place: RemotePath, *arguments: Any) -> bytes:
        now["reading"] += 1
        most[step] = max(most[step], now["reading"])
        time.sleep(0.01)
        content = read_bytes(place, *arguments)
        now["reading"] -= 1
        return content

    monkeypatch.setattr(RemotePath, "read_bytes", slow)
    dataset = config(bucket.url("my%20pets"))
    listing = list_samples(dataset)
    step = "prepare"
    table, _ = samples_table(listing, range(20), dataset)
    step = "extract"
    kept, _ = samples_table(listing, range(20), dataset.model_copy(update={"copy_content": False}))
    assert [content() for content in contents(kept, range(20))] == table.column("image").to_pylist()
    assert 2 < most["prepare"] <= READERS and 2 < most["extract"] <= READERS


@pytest.mark.parametrize("kind", ["webdataset", "jsonl", "csv"])
def test_a_store_that_fails_in_the_midst_of_a_file_is_told_in_one_line(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "webdataset":
        with tarfile.open(tmp_path / "a.tar", "w") as opened:
            for number in range(2):
                member = tarfile.TarInfo(f"{number}.txt")
                member.size = 2 * BUFFER_BYTES
                opened.addfile(member, io.BytesIO(bytes(member.size)))
    else:
        row = '{"text": "a", "label": 1}' if kind == "jsonl" else "a,1"
        (tmp_path / f"a.{kind}").write_text(
            "text,label\n" * (kind == "csv") + f"{row}\n" * (2 * BUFFER_BYTES // len(row))
        )
    reads = []

    def fail_later(file: Any, size: int = -1) -> bytes:
        reads.append(size)
        if len(reads) > 1:
            raise OSError("the connection is lost")
        return cast(bytes, file.f.read(size))

    monkeypatch.setattr(LocalFileOpener, "read", fail_later)
    config = {"source": kind, "path": f"fsspec+local://{tmp_path}"} | (
        {} if kind == "webdataset" else {"columns": {"text": "text"}}
    )
    with pytest.raises(InputError, match=r"raw data .* cannot be reached: .*/a\.\w+: the connection is lost"):
        list_samples(DatasetConfig.model_validate(config))


TABLES: dict[str, Callable[[pa.Table, Path], object]] = {
    "parquet": lambda table, path: pq.write_table(table, path, row_group_size=10),
    "arrow file": lambda table, path: write_arrow(pa.ipc.new_file, table, path),
    "arrow stream": lambda table, path: write_arrow(pa.ipc.new_stream, table, path),
}


def write_arrow(new: Callable[..., Any], table: pa.Table, path: Path) -> None:
    with new(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=10)


@pytest.mark.parametrize("kind", TABLES)
def test_whichever_read_of_a_table_fails_is_told_as_the_store_s_failure(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"text": f"{number} " * 5000, "label": number % 2} for number in range(40)]
    TABLES[kind](pa.Table.from_pylist(rows), tmp_path / "a.table")
    left = 1000

    def fail_later(file: Any, size: int = -1) -> bytes:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError("the connection is lost")
        return cast(bytes, file.f.read(size))

    monkeypatch.setattr(LocalFileOpener, "read", fail_later)
    place = place_at(f"fsspec+local://{tmp_path}/a.table")

    def read() -> list[Any]:
        return list(read_rows(open_table(place, kind.partition(" ")[0]), ["text", "label"]))

    assert read() == rows
    for number in range(num_reads := 1000 - left):
        left = number
        with pytest.raises(ObjectStoreError, match="a.table: the connection is lost"):
            read()
    assert num_reads > 8
