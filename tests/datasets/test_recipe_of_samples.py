"""Samples know the recipe that they were made with. The place of the raw data is no part of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aft_ray.cli import main
from aft_ray.commands.check import check, open_setup
from aft_ray.datasets.prepare import prepare
from aft_ray.export.evaluate import evaluate
from aft_ray.export.predict import predict
from aft_ray.extraction.plan import plan_extraction
from aft_ray.recipe.config import Recipe, dump, override
from aft_ray.recipe.errors import InputError
from aft_ray.store.side_by_side import open_store
from aft_ray.store.workspace import Workspace
from aft_ray.training.checkpoint import save_student
from aft_ray.training.inputs.stores import open_stores
from aft_ray.training.provenance import differing_inputs, origin, run_inputs
from tests.helpers.small_students import small_config, small_student

pytestmark = pytest.mark.slow


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and "leases" not in path.parts}


def recipe(tmp_path: Path, path: Path | str, **dataset: Any) -> Recipe:
    content = {
        "workspace": str(tmp_path / "work"),
        "dataset": {"source": "image_folder", "path": str(path), "samples_per_shard": 16, **dataset},
        "teachers": [{"name": "means", "model": "tests.helpers.own_teachers:Means", "options": {"log": "/dev/null"}}],
        "student": small_config("tiny:cnn", tmp_path / "student").model_dump(),
        "regularizer": {"name": "none"},
    }
    return Recipe.model_validate(content)


@pytest.fixture
def prepared(tmp_path: Path, image_folder: Path) -> Recipe:
    """Samples, and a run with a student of random weights."""
    given = recipe(tmp_path, image_folder)
    prepare(given)
    facts = {"student": given.student.model_dump(mode="json"), "classes": ["bottom", "top"], "teachers": []}
    weights = small_student("tiny:cnn", tmp_path / "student", 2).state_dict()
    run = Workspace.at(given.workspace).run("main")
    save_student(run / "student", {f"student.{name}": tensor for name, tensor in weights.items()}, facts)
    return given


VERBS: dict[str, Callable[[Recipe], object]] = {
    "prepare": prepare,
    "train": lambda given: open_setup(given, "train"),
    "rank": lambda given: open_setup(override(given, {"teachers": []}), "rank"),
    "search": lambda given: open_setup(override(given, {"teachers": [], "search.compare": ["none"]}), "search"),
    "extract": plan_extraction,
    "evaluate": evaluate,
    "predict": lambda given: predict(given, str(Path(given.workspace).parent / "pictures" / "top" / "00.png")),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_changed_key_is_named_with_both_values(verb: str, prepared: Recipe) -> None:
    changed = override(prepared, {"dataset.max_samples": 30, "dataset.test_fraction": 0.25})
    with pytest.raises(InputError) as caught:
        VERBS[verb](changed)
    (line,) = caught.value.faults
    assert "dataset.test_fraction is 0.2 on disk, 0.25 in this run; dataset.max_samples is None on disk, 30" in line
    assert "Set the keys back, or make new samples with 'aft-ray prepare --overwrite'" in line
    if verb == "prepare":
        prepare(changed, overwrite=True)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "mnist5k"),
        ("train_fraction", 0.5),
        ("validation_fraction", 0.3),
        ("splits", {"train": "top", "test": "bottom"}),
    ],
)
def test_each_key_counts(key: str, value: object, prepared: Recipe) -> None:
    changes = {f"dataset.{key}": value} | ({"dataset.source": None, "dataset.path": None} if key == "name" else {})
    with pytest.raises(InputError, match=rf"dataset\.{key} is .* on disk, .* in this run"):
        open_setup(override(prepared, changes), "train")


@pytest.mark.parametrize(("key", "value"), [("max_bad_samples", 3), ("samples_per_shard", 8), ("path", "/elsewhere")])
def test_keys_that_change_no_sample_may_change(key: str, value: object, prepared: Recipe) -> None:
    open_setup(override(prepared, {f"dataset.{key}": value}), "train")


def test_another_column_is_noticed_even_before_all_shards_are_there(tmp_path: Path) -> None:
    """Shards of two texts must not end up under one manifest."""
    rows = "".join(f"{n % 2},first {n},second {n}\n" for n in range(60))
    (tmp_path / "a.csv").write_text(f"label,one,two\n{rows}")
    one, two = (recipe(tmp_path, tmp_path / "a.csv", source="csv", columns={"text": name}) for name in ("one", "two"))
    prepare(one)
    with pytest.raises(InputError, match="dataset.columns.text is 'one' on disk, 'two' in this run"):
        prepare(two)
    for found in Path(one.workspace).rglob("manifest.json"):
        found.unlink()
    for found in Path(one.workspace).rglob("part-00000.parquet"):
        found.unlink()
    prepare(two)
    store = open_store(two.workspace, "train")
    assert store.num_shards > 1
    for index in range(store.num_shards):
        assert all(text.startswith("second") for text in store.read_shard(index)["text"])


def test_raw_data_may_move(
    prepared: Recipe, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(Path(prepared.workspace))
    image_folder.rename(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    for path in ("data", "./data", "data/", str(tmp_path / "data")):
        prepare(override(prepared, {"dataset.path": path}))
    assert files(Path(prepared.workspace)) == before


def test_raw_data_may_go_once_samples_are_whole(
    prepared: Recipe, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(Path(prepared.workspace))
    shutil.rmtree(image_folder)
    (tmp_path / "recipe.yaml").write_text(dump(prepared))
    assert main(["prepare", str(tmp_path / "recipe.yaml")]) == 0
    assert "are whole, and kept. They were not compared with the raw data: the folder" in capsys.readouterr().err
    for verb in ("plan", "pipeline"):
        check(override(prepared, {"search.compare": ["none"]}), verb)
    assert main(["prepare", str(tmp_path / "recipe.yaml"), "--overwrite"]) == 2
    assert files(Path(prepared.workspace)) == before
    (Path(prepared.workspace) / "samples" / "test" / "manifest.json").unlink()
    assert main(["prepare", str(tmp_path / "recipe.yaml")]) == 2


def test_pictures_that_were_not_copied_must_stay(tmp_path: Path, image_folder: Path) -> None:
    given = recipe(tmp_path, image_folder, copy=False)
    prepare(given)
    image_folder.rename(tmp_path / "moved")
    with pytest.raises(InputError, match="does not exist"):
        prepare(given)
    moved = override(given, {"dataset.path": str(tmp_path / "moved")})
    with pytest.raises(InputError, match=r"read from where they lay, .*pictures/.*moved/.*--overwrite"):
        prepare(moved)
    prepare(moved, overwrite=True)
    assert open_store(moved.workspace, "train").read_shard(0)["image"]


def test_samples_of_before_are_kept_and_new_ones_continue_their_runs(before: Recipe, tmp_path: Path) -> None:
    """A workspace of before has the place of its raw data in manifests, shards and runs, and no recipe."""
    workspace = Workspace.at(before.workspace)
    pictures = Path("data") if (known := Path(before.dataset.path or "").name) == "data" else Path(known)
    stored: dict[str, bytes] = {}
    for split in ("train", "validation", "test"):
        store = open_store(workspace, split)
        for index in range(store.num_shards):
            shard = store.read_shard(index)
            stored |= dict(zip(shard["sample_id"], shard["image"], strict=True))
    for name, content in stored.items():
        (tmp_path / "elsewhere" / pictures / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "elsewhere" / pictures / name).write_bytes(content)
    moved = override(before, {"dataset.path": str(tmp_path / "elsewhere" / pictures)})
    untouched = files(Path(before.workspace))
    prepare(moved)
    assert files(Path(before.workspace)) == untouched

    Path(before.workspace, "samples", "train", "part-00001.parquet").unlink()
    prepare(moved)
    assert main(["verify", before.workspace]) == 0

    prepare(override(moved, {"dataset.background": None}), overwrite=True)
    manifest = workspace.samples("train").manifest()
    assert manifest is not None and manifest["fingerprint"]["dataset"] == "image_folder"
    inputs = json.loads((workspace.run("main")).read("inputs.json"))
    before = override(before, {"train.streaming": inputs["recipe"]["train"]["streaming"]})
    now = run_inputs(before, origin(open_stores(before, before.used_teachers())))
    assert inputs["samples"] != now["samples"] and differing_inputs(inputs, now) == []

    prepare(moved, overwrite=True)
    differing = differing_inputs(inputs, run_inputs(before, origin(open_stores(before, ()))))
    assert {f"samples.{split}.background" for split in ("train", "validation", "test")} <= {*differing}
