"""Bad samples can empty a split: whoever needs it says so in one line, and nothing is trained or scored on nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aft_ray.cli import main
from aft_ray.commands.check import open_setup
from aft_ray.datasets.prepare import prepare
from aft_ray.export.evaluate import evaluate
from aft_ray.extraction.plan import plan_extraction
from aft_ray.models.images import ImageTransform
from aft_ray.recipe.config import Recipe, dump, override
from aft_ray.recipe.errors import InputError
from aft_ray.store.side_by_side import open_store
from aft_ray.store.workspace import Workspace
from aft_ray.training.checkpoint import save_student
from aft_ray.training.inputs.batches import load_split
from tests.helpers.small_students import small_config, small_student


@pytest.fixture
def folders(tmp_path: Path, image_folder: Path) -> Recipe:
    """The same pictures as train, validation and test, and a recipe that tolerates bad ones."""
    for split in ("train", "val", "test"):
        for picture in image_folder.rglob("*.png"):
            place = tmp_path / "data" / split / picture.relative_to(image_folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(picture.read_bytes() + split.encode())
    dataset = {"source": "image_folder", "path": str(tmp_path / "data"), "max_bad_samples": 100}
    student = small_config("tiny:cnn", tmp_path / "student").model_dump()
    content = {"workspace": str(tmp_path / "work"), "dataset": dataset, "student": student}
    return Recipe.model_validate({**content, "regularizer": {"name": "none"}})


def damage(recipe: Recipe, split: str, content: bytes = b"no picture") -> None:
    for picture in Path(recipe.dataset.path or "", split).rglob("*.png"):
        picture.write_bytes(content)


@pytest.mark.parametrize(("folder", "split"), [("val", "validation"), ("test", "test"), ("train", "train")])
def test_prepare_refuses_a_split_that_bad_samples_have_emptied_now_and_when_it_goes_on(
    folder: str, split: str, folders: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(folders, folder)
    (tmp_path / "recipe.yaml").write_text(dump(folders))
    for _ in range(2):
        assert main(["prepare", str(tmp_path / "recipe.yaml")]) == 2
        said = capsys.readouterr().err
        assert f"Split {split} would be empty: all its 60 samples are quarantined" in said
        assert "--overwrite" in said
    assert not list(Path(folders.workspace, "samples").rglob("manifest.json"))


def test_quarantined_samples_are_not_counted_as_of_their_class(folders: Recipe) -> None:
    for picture in Path(folders.dataset.path or "", "val", "top").glob("1*.png"):
        picture.write_bytes(b"no picture")
    found = prepare(folders)["validation"]
    assert found["samples_per_class"] == {"bottom": 30, "top": 20} and found["num_samples"] == 50


TEACHER = {"name": "means", "model": "tests.helpers.own_teachers:Means", "options": {"log": "/dev/null"}}
VERBS: dict[str, Callable[[Recipe], object]] = {
    "train": lambda given: open_setup(given, "train"),
    "rank": lambda given: open_setup(given, "rank"),
    "extract": lambda given: plan_extraction(override(given, {"teachers": [TEACHER]})),
    "evaluate": lambda given: evaluate(given, split="validation"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_workspace_with_an_empty_split_is_told_in_one_line(verb: str, folders: Recipe, tmp_path: Path) -> None:
    """As `prepare` once wrote it."""
    manifests = prepare(folders)
    facts_of_run = {"student": folders.student.model_dump(mode="json"), "classes": ["bottom", "top"], "teachers": []}
    weights = small_student("tiny:cnn", tmp_path / "student", 2).state_dict()
    run = Workspace.at(folders.workspace).run("main")
    save_student(run / "student", {f"student.{name}": tensor for name, tensor in weights.items()}, facts_of_run)
    validation = Workspace.at(folders.workspace).samples("validation")
    table, bad = validation.read_shard(0), [{"sample_id": "val/top/00.png", "reason": "it is not a picture"}]
    validation.write_shard(0, table.slice(0, 0), manifests["validation"]["fingerprint"], quarantined=bad)
    kept = ("modality", "task", "classes", "samples_per_class", "num_unlabelled", "truncation_side", "recipe")
    facts: dict[str, Any] = {key: manifests["validation"][key] for key in kept}
    validation.write_manifest(1, manifests["validation"]["fingerprint"], **facts)
    with pytest.raises(InputError) as caught:
        VERBS[verb](folders)
    (line,) = caught.value.faults
    assert "samples/validation is empty: every sample is quarantined" in line
    assert "val/top/00.png: it is not a picture" in line and "--overwrite" in line


def test_a_split_of_which_no_picture_can_be_decoded_is_told_in_one_line(folders: Recipe) -> None:
    picture = next(Path(folders.dataset.path or "", "train").rglob("*.png")).read_bytes()
    damage(folders, "val", picture[:60])  # the head is whole
    prepare(folders)
    store = open_store(folders.workspace, "validation")
    with pytest.raises(InputError, match="no sample can be decoded .the first, ") as caught:
        load_split(store, (), [ImageTransform(8)], max_bad_samples=100)
    assert len(caught.value.faults) == 1 and json.dumps(caught.value.faults[0])
