"""Pictures that a table names by their path."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aft_ray.datasets import faults, list_samples
from aft_ray.datasets.prepare import prepare
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import DatasetConfig
from tests.helpers.hub_data import png


def table_of(paths: Sequence[object], file: Path) -> Path:
    """A CSV whose column `file` has these paths."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([["file", "label"], *([path, index % 2] for index, path in enumerate(paths))])
    return file


def config(file: Path, **columns: object) -> DatasetConfig:
    source = "parquet" if file.suffix == ".parquet" else "csv"
    return DatasetConfig.model_validate(
        {"source": source, "path": str(file), "columns": {"image": "file", "label": "label", **columns}}
    )


def pictures(folder: Path, count: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{index}.png" for index in range(count)]
    for index, file in enumerate(files):
        file.write_bytes(png(index))
    return files


@pytest.mark.parametrize("outside", ["../secret/0.png", "a/../../secret/0.png", "{absolute}", "../t2/0.png", ".."])
def test_paths_that_lead_outside_the_folder_of_the_table_are_refused(tmp_path: Path, outside: str) -> None:
    pictures(tmp_path / "t", 2), pictures(tmp_path / "t2", 1)
    (absolute, _) = pictures(tmp_path / "secret", 2)
    names = ["0.png", "1.png", *[outside.format(absolute=absolute)] * 150]
    with pytest.raises(InputError) as error:
        list_samples(config(table_of(names, tmp_path / "t" / "t.csv")))
    (line,) = error.value.faults
    assert line.startswith(f"t.csv, row 3: the path {names[-1]!r} leads outside the folder {tmp_path}/t,")
    assert "149 more rows" in line and "dataset.columns.image_root" in line


def test_absolute_and_roundabout_paths_inside_the_folder_are_read(tmp_path: Path) -> None:
    absolute, *_ = pictures(tmp_path / "real" / "t", 3)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    file = table_of([absolute, "./1.png", "gone/../2.png"], tmp_path / "real" / "t" / "t.csv")
    for place in (file, tmp_path / "link" / "t" / "t.csv", tmp_path / "real" / ".." / "real" / "t" / "t.csv"):
        listing = list_samples(config(place))
        assert [listing.read(index) for index in range(3)] == [png(index) for index in range(3)]


def test_image_root_is_where_paths_start_and_what_they_must_not_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures(tmp_path / "pictures", 2), pictures(tmp_path, 2)
    file = table_of(["0.png", tmp_path / "pictures" / "1.png"], tmp_path / "tables" / "t.csv")
    monkeypatch.chdir(tmp_path)
    for root in (tmp_path / "pictures", "pictures", "./tables/../pictures/"):
        listing = list_samples(config(file, image_root=str(root)))
        assert [listing.read(index) for index in range(2)] == [png(index) for index in range(2)]
    table_of(["../0.png"], file)
    with pytest.raises(InputError, match=r"row 1: the path '\.\./0\.png' leads outside the folder .*pictures\."):
        list_samples(config(file, image_root="pictures"))


def test_a_link_below_the_folder_is_the_users_own_and_followed(tmp_path: Path) -> None:
    pictures(tmp_path / "elsewhere", 2)
    file = table_of(["here/0.png", "here/1.png"], tmp_path / "t" / "t.csv")
    (tmp_path / "t" / "here").symlink_to(tmp_path / "elsewhere")
    assert list_samples(config(file)).read(1) == png(1)


def test_the_hubs_pair_of_bytes_and_path_reads_nothing_outside_either(tmp_path: Path) -> None:
    (secret,) = pictures(tmp_path / "secret", 1)
    pairs: list[dict[str, Any]] = [{"bytes": png(0), "path": "../x"}, {"bytes": None, "path": str(secret)}]
    (tmp_path / "t").mkdir()
    rows = [{"file": pair, "label": index} for index, pair in enumerate(pairs)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t" / "t.parquet")
    listing = list_samples(config(tmp_path / "t" / "t.parquet"))
    assert listing.read(0) == png(0)
    with pytest.raises(ValueError, match="leads outside the folder"):
        listing.read(1)


def test_a_path_that_no_file_can_have_is_quarantined(tmp_path: Path) -> None:
    files = pictures(tmp_path / "t", 40)
    names = [*(file.name for file in files), "a\0b.png", "x" * 300 + ".png", "", "gone.png"]
    file = tmp_path / "t" / "t.parquet"
    pq.write_table(pa.table({"file": names, "label": [index % 2 for index in range(len(names))]}), file)
    given = Recipe.model_validate(
        {
            "workspace": str(tmp_path / "work"),
            "dataset": {**config(file).model_dump(exclude_defaults=True), "max_bad_samples": 4},
            "student": {"model": "tiny:cnn"},
        }
    )
    manifests = prepare(given)
    assert sum(len(manifest["quarantined"]) for manifest in manifests.values()) == 4


def prepared(tmp_path: Path, file: Path, **keys: Any) -> None:
    dataset = {**config(file, **keys.pop("columns", {})).model_dump(exclude_defaults=True, by_alias=True), **keys}
    content = {"workspace": str(tmp_path / "work"), "dataset": dataset, "student": {"model": "tiny:cnn"}}
    prepare(Recipe.model_validate(content))


@pytest.mark.parametrize("copy", [True, False])
def test_hundreds_of_missing_files_are_one_line_with_the_count_the_first_and_the_rule(
    copy: bool, tmp_path: Path
) -> None:
    pictures(tmp_path / "elsewhere", 300)
    file = table_of([f"{index}.png" for index in range(300)], tmp_path / "t" / "t.csv")
    with pytest.raises(InputError) as refused:
        prepared(tmp_path, file, copy=copy)
    missing, allowed = refused.value.faults
    assert missing.startswith("Sample t.csv/") and "and 299 more cannot be read: there is no file '" in missing
    assert "start from the table's folder, or from dataset.columns.image_root" in missing
    assert "300 samples quarantined, 0 allowed" in allowed
    prepared(tmp_path, file, copy=copy, columns={"image_root": str(tmp_path / "elsewhere")})


def test_faults_of_different_kinds_keep_a_line_each(tmp_path: Path) -> None:
    files = pictures(tmp_path / "t", 60)
    for path in files[:12]:
        path.write_bytes(b"no picture")
    file = table_of(
        [*(path.name for path in files), *(f"gone{index}.png" for index in range(20))], tmp_path / "t" / "t.csv"
    )
    with pytest.raises(InputError) as refused:
        prepared(tmp_path, file)
    told = [fault.partition(" cannot be read: ")[::2] for fault in refused.value.faults[:-1]]
    assert len(told) == 2 and {start[-7:] for start, _ in told} == {"11 more", "19 more"}


def test_an_image_root_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    pictures(tmp_path / "t", 2)
    file = table_of(["0.png", "1.png"], tmp_path / "t" / "t.csv")
    given = config(file, image_root=str(tmp_path / "nowhere"))
    for fault in (*faults(given), *raised(given)):
        assert f"dataset.columns.image_root: there is no folder {tmp_path}/nowhere" in fault
        assert "a relative path starts from the directory in which aft-ray runs" in fault


def raised(given: DatasetConfig) -> list[str]:
    with pytest.raises(InputError) as error:
        list_samples(given)
    return error.value.faults


@pytest.mark.parametrize("as_pair", [True, False])
def test_rows_of_one_picture_inside_the_table_stay_in_one_split(tmp_path: Path, as_pair: bool) -> None:
    encoded = [png(number // 5) for number in range(100)]
    values = [{"bytes": content, "path": None} for content in encoded] if as_pair else encoded
    pq.write_table(pa.table({"file": values, "label": [n % 2 for n in range(100)]}), tmp_path / "t.parquet")
    listing = list_samples(config(tmp_path / "t.parquet", group="file"))
    groups = [item.group for item in listing.items]
    assert len(set(groups)) == 20 and all(len(str(group)) == 64 for group in groups)
    assert [groups[n] == groups[n + 1] for n in range(99)] == [encoded[n] == encoded[n + 1] for n in range(99)]
