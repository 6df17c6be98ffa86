"""The rows of tables become samples, whatever the format and the columns."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aft_ray import datasets
from aft_ray.datasets import list_samples
from aft_ray.datasets.held_out import choose_splits
from aft_ray.datasets.prepare import prepare
from aft_ray.recipe.errors import InputError
from aft_ray.store.side_by_side import open_store
from tests.helpers.hub_data import png
from tests.helpers.tables import TEXT, WRITERS, dataset, recipe, sentences, write_csv, write_jsonl, write_parquet


@pytest.mark.parametrize("source", WRITERS)
def test_rows_become_samples(tmp_path: Path, source: str) -> None:
    file = WRITERS[source](tmp_path / f"daten-ä.{source}", sentences())
    given = recipe(tmp_path, source=source, path=str(file), columns=TEXT, samples_per_shard=16)
    assert datasets.faults(given.dataset) == []
    manifests = prepare(given)
    seen = {}
    for split, manifest in manifests.items():
        assert (manifest["modality"], manifest["task"], manifest["classes"]) == (
            "text",
            "classification",
            ["even", "odd"],
        )
        assert manifest["truncation_side"] == "right"
        store = open_store(given.workspace, split)
        for shard in map(store.read_shard, range(store.num_shards)):
            for sample_id, label, text in zip(shard["sample_id"], shard["label"], shard["text"], strict=True):
                row = int(sample_id.rpartition("/")[2]) - 1
                assert (text, label) == (sentences()[row]["text"], row % 2)
                seen[sample_id] = split
    assert len(seen) == 60 and f"{file.name}/1" in seen
    assert sum(sum(manifest["samples_per_class"].values()) for manifest in manifests.values()) == 60


def test_files_and_folders_name_splits(tmp_path: Path) -> None:
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test", "dev/part"):
        write_csv(tmp_path / "data" / f"{name}.csv", sentences(20))
    config = dataset(source="csv", path=str(tmp_path / "data"), columns=TEXT)
    found = {split: len(indices) for split, indices in choose_splits(list_samples(config), config).items()}
    assert found == {"train": 40, "validation": 20, "test": 20}
    held_out = dataset(
        source="csv", path=str(tmp_path / "data"), columns=TEXT, splits={"train": "train", "test": "dev"}
    )
    chosen = choose_splits(list_samples(held_out), held_out)
    assert len(chosen["test"]) == 20 and 0 < len(chosen["validation"]) < 15 and sum(map(len, chosen.values())) == 60
    globbed = dataset(source="csv", path=str(tmp_path / "data" / "*.csv"), columns=TEXT)
    assert {item.split for item in list_samples(globbed).items} == {"train", "test"}
    write_csv(tmp_path / "data" / "more.csv", sentences(2))
    (line,) = datasets.faults(config)
    assert "more.csv in" in line and "name no split, other files do" in line


def test_a_column_names_splits_and_groups(tmp_path: Path) -> None:
    rows = [{**row, "fold": "dev" if i % 3 else "train", "page": i // 5} for i, row in enumerate(sentences(300))]
    file = write_jsonl(tmp_path / "a.jsonl", rows)
    config = dataset(
        source="jsonl",
        path=str(file),
        columns={"text": "text", "split": "fold", "group": "page"},
        validation_fraction=0.3,
    )
    listing = list_samples(config)
    chosen = choose_splits(listing, config)
    assert len(chosen["validation"]) == 200 and len(chosen["train"]) + len(chosen["test"]) == 100
    pages = {split: {listing.items[i].group for i in chosen[split]} for split in ("train", "test")}
    assert not pages["train"] & pages["test"]
    write_jsonl(file, [{**sentences(1)[0], "fold": "holdout", "page": 1}])
    with pytest.raises(InputError, match="a.jsonl, row 1: split 'holdout' is none of train, training"):
        list_samples(config)


def test_rows_with_a_blank_group_are_no_group_together(tmp_path: Path) -> None:
    rows = [{**row, "page": "7" if i < 4 else " " * (i % 2)} for i, row in enumerate(sentences(100))]
    for source, write in (("csv", write_csv), ("jsonl", write_jsonl)):
        config = dataset(
            source=source, path=str(write(tmp_path / f"a.{source}", rows)), columns={"text": "text", "group": "page"}
        )
        listing = list_samples(config)
        assert [item.group for item in listing.items] == ["7"] * 4 + [None] * 96
        assert all(len(numbers) > 2 for numbers in choose_splits(listing, config).values())


def test_pictures_by_path_bytes_and_pair(tmp_path: Path) -> None:
    (tmp_path / "bilder ü").mkdir()
    for index in range(40):
        (tmp_path / "bilder ü" / f"{index}.png").write_bytes(png(index))
    paths = [{"file": f"bilder ü/{index}.png", "label": index % 2} for index in range(40)]
    inside = [{"file": {"bytes": png(index), "path": None}, "label": index % 2} for index in range(40)]
    tables = {
        "csv": write_csv(tmp_path / "a.csv", paths),
        "jsonl": write_jsonl(tmp_path / "a.jsonl", paths),
        "parquet": write_parquet(tmp_path / "a.parquet", inside),
    }
    for source, file in tables.items():
        listing = list_samples(dataset(source=source, path=str(file), columns={"image": "file"}))
        assert listing.classes == ("0", "1") and listing.modality == "image"
        assert [listing.read(index) for index in (0, 39)] == [png(0), png(39)]
        assert (listing.uri is None) == (source == "parquet")
    given = recipe(tmp_path, source="csv", path=str(tables["csv"]), columns={"image": "file"}, copy=False)
    prepare(given)
    shard = open_store(given.workspace, "train").read_shard(0)
    assert shard["image"][0] == png(int(shard["sample_id"][0].partition("/")[2]) - 1)


def test_pictures_with_texts(tmp_path: Path) -> None:
    rows = [{"image": png(i), "caption": f"a {i}", "place": "here", "label": i % 3} for i in range(60)]
    file = write_parquet(tmp_path / "a.parquet", rows)
    columns = {"image": "image", "text": ["caption", "place"]}
    given = recipe(tmp_path, source="parquet", path=str(file), columns=columns, prompt="{place}: {caption}?{place}")
    manifests = prepare(given)
    assert manifests["train"]["modality"] == "image+text" and manifests["test"]["truncation_side"] == "right"
    shard = open_store(given.workspace, "test").read_shard(0)
    row = int(shard["sample_id"][0].partition("/")[2]) - 1
    assert (shard["text"][0], shard["image"][0]) == (f"here: a {row}?here", png(row))
    without = dataset(source="parquet", path=str(file), columns=columns)
    assert list_samples(without).read(0) == (png(0), "a 0\nhere")


def test_odd_texts_are_quarantined_or_kept(tmp_path: Path) -> None:
    rows = [{"text": f"t{index}", "label": index % 2} for index in range(60)]
    rows[3]["text"], rows[4]["text"], rows[5]["text"], rows[6]["text"] = "  \n", "ä" * 100_000, None, 3.5
    rows[7]["text"] = "\ud800"
    file = write_jsonl(tmp_path / "a.jsonl", rows)
    with pytest.raises(InputError) as caught:
        prepare(recipe(tmp_path / "strict", source="jsonl", path=str(file), columns=TEXT))
    assert "Sample a.jsonl/4 cannot be read: its text is empty." in caught.value.faults
    given = recipe(tmp_path, source="jsonl", path=str(file), columns=TEXT, max_bad_samples=4)
    manifests = prepare(given)
    reasons = {bad["sample_id"]: bad["reason"] for manifest in manifests.values() for bad in manifest["quarantined"]}
    assert set(reasons) == {"a.jsonl/4", "a.jsonl/6", "a.jsonl/7", "a.jsonl/8"}
    assert reasons["a.jsonl/7"] == "column text holds 3.5, which is of type float, not a text"
    texts = [open_store(given.workspace, split).read_shard(0)["text"] for split in manifests]
    assert max(len(text) for found in texts for text in found) == 100_000


def test_one_empty_column_of_two_is_no_fault(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "a.csv", [{"q1": "what?", "q2": "", "label": 1}, {"q1": "", "q2": "", "label": 0}])
    config = dataset(source="csv", path=str(file), columns={"text": ["q1", "q2"]}, prompt="1: {q1} 2: {q2} same?")
    listing = list_samples(config)
    assert listing.read(0) == "1: what? 2:  same?"
    with pytest.raises(ValueError, match="its text is empty"):
        listing.read(1)


def test_another_prompt_is_noticed(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "a.csv", sentences())
    prepare(recipe(tmp_path, source="csv", path=str(file), columns=TEXT))
    with pytest.raises(InputError, match="prompt is None on disk, 'Say {text}' in this run"):
        prepare(recipe(tmp_path, source="csv", path=str(file), columns=TEXT, prompt="Say {text}"))


def test_train_fraction_keeps_a_share_of_each_class_of_train_only(tmp_path: Path) -> None:
    rows = [{"text": f"t{index}", "label": "rare" if index % 50 == 0 else "b"} for index in range(1000)]
    file = write_csv(tmp_path / "a.csv", rows)

    def chosen(fraction: float) -> dict[str, list[int]]:
        config = dataset(source="csv", path=str(file), columns=TEXT, train_fraction=fraction)
        return {split: kept.tolist() for split, kept in choose_splits(list_samples(config), config).items()}

    whole, tenth, least = chosen(1), chosen(0.1), chosen(0.001)
    assert tenth["test"] == whole["test"] and tenth["validation"] == whole["validation"]
    rare = [index for index in whole["train"] if index % 50 == 0]
    assert len([index for index in tenth["train"] if index % 50 == 0]) == round(len(rare) / 10)
    assert len(tenth["train"]) == pytest.approx(len(whole["train"]) / 10, abs=1)
    assert set(least["train"]) < set(tenth["train"]) < set(whole["train"]) and len(least["train"]) == 2


MEMORY = """
import sys
from pathlib import Path
from aft_ray.recipe.config import Recipe
from aft_ray.datasets.prepare import prepare
import aft_ray.datasets, pyarrow.parquet, PIL.PngImagePlugin

def peak():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024

recipe = lambda name: Recipe.model_validate({
    "workspace": sys.argv[1] + "/work-" + name, "student": {"model": "tiny:cnn"},
    "dataset": {"source": "parquet", "path": sys.argv[1] + f"/{name}.parquet", "samples_per_shard": 16,
                "columns": {"image": "image"}},
})
prepare(recipe("small"))
before = peak()
prepare(recipe("large"))
print(peak() - before)
"""


@pytest.mark.processes
def test_a_large_table_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)

    def write(name: str, count: int, row_group: int) -> None:
        schema = pa.schema([("image", pa.binary()), ("label", pa.int64())])
        with pq.ParquetWriter(tmp_path / f"{name}.parquet", schema, compression="snappy") as writer:
            for start in range(0, count, row_group):
                images = [png(0) + noise.bytes(250_000) for _ in range(row_group)]
                writer.write_table(pa.table([images, [(start + i) % 2 for i in range(row_group)]], schema=schema))

    write("small", 200, 100)
    write("large", 800, 100)
    assert (tmp_path / "large.parquet").stat().st_size > 190e6
    done = subprocess.run([sys.executable, "-c", MEMORY, str(tmp_path)], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 60, f"{done.stdout} MB more than for a small table"
