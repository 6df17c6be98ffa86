"""An export names no place of the machine that it was made on, and keeps all that loading it needs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from aft_ray.export.export import export
from aft_ray.export.published import public, public_facts, public_inputs
from aft_ray.export.student import load_student
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError
from aft_ray.store.workspace import Workspace
from tests.export.test_export import trained
from tests.helpers import hub
from tests.helpers.small_students import batch

PRIVATE = "s3://lab/private?endpoint_override=10.0.0.5:9000"


def with_places(recipe: Recipe, home: Path) -> None:
    """Changes the files of a run so that they name a place wherever they can."""
    run = Workspace.at(recipe.workspace).run("best")
    facts = json.loads(run.read("student/student.json"))
    del facts["digest"]
    columns = {**facts["dataset"]["columns"], "text": "text", "image_root": f"{home}/pictures"}
    facts["dataset"] |= {"name": None, "source": "csv", "path": f"{home}/flowers.csv", "columns": columns}
    facts["teachers"][0]["model"] = f"transformers:{home}/bert"
    facts["teachers"][1]["model"] = f"timm:local-dir:{PRIVATE}"
    run.write("student/student.json", json.dumps(facts).encode())
    inputs = json.loads(run.read("inputs.json"))
    inputs["recipe"]["student"] = {**inputs["recipe"]["student"], "weights": PRIVATE}
    inputs["samples"] = {"train+validation": [{"dataset": f"csv:{home}/flowers.csv"}] * 2, "test": None}
    inputs["teachers"]["t0"] = {"model": f"transformers:{home}/bert", "options": {"depth": 24, "table": f"{home}/t"}}
    run.write("inputs.json", json.dumps(inputs).encode())


@pytest.mark.parametrize("kind", ["tiny:cnn", "linear_probe", "bert", "open_clip"])
def test_no_file_of_an_export_names_a_place(kind: str, tmp_path: Path) -> None:
    recipe = trained(kind, tmp_path)
    with_places(recipe, tmp_path)
    place = Path(str(export(recipe)))
    run = load_student(tmp_path / "work" / "runs" / "best")
    expected = run(inputs := batch(run.student, hub.TEXTS))
    content = {path.name: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    for told in (str(tmp_path), "lab/private", "10.0.0.5"):
        assert [name for name, found in content.items() if told.encode() in found] == []
    assert (
        b"| data set | flowers.csv |" in content["README.md"]
        and b"| teacher | `transformers:bert`," in content["README.md"]
    )
    shutil.rmtree(tmp_path / kind, ignore_errors=True)
    found = load_student(place)
    assert torch.equal(found(inputs), expected) and found.transforms is not None and found.classes == run.classes


def test_an_export_of_before_is_read(tmp_path: Path) -> None:
    """It had a copy of the run's own student.json."""
    recipe = trained("tiny:cnn", tmp_path)
    with_places(recipe, tmp_path)
    run = tmp_path / "work" / "runs" / "best"
    (tmp_path / "old").mkdir()
    for name in ("student.json", "student.safetensors"):
        shutil.copy(run / "student" / name, tmp_path / "old" / name)
    old, new = load_student(tmp_path / "old"), load_student(run)
    inputs = batch(new.student, hub.TEXTS)
    assert torch.equal(old(inputs), new(inputs))


def test_pictures_are_decoded_as_in_training(tmp_path: Path) -> None:
    facts: dict[str, Any] = {"student": {"model": "tiny:cnn"}, "teachers": [], "classes": ["a"]}
    dataset = {
        "name": "x",
        "path": "/home/ann/x",
        "background": "grey",
        "max_pixels": 100,
        "columns": {},
        "options": {},
    }
    found = public_facts({**facts, "dataset": dataset})["dataset"]
    assert found == dataset | {"path": "x", "options": {}}
    assert public_inputs({}) == {"samples": None, "teachers": {}}


def test_a_student_whose_words_lie_on_this_machine_is_not_pushed(tmp_path: Path) -> None:
    hub.save_text_model("bert", tmp_path / "words")
    recipe = trained("tiny:text", tmp_path, weights=str(tmp_path / "words"))
    assert load_student(export(recipe)).transforms
    with pytest.raises(InputError) as refused:
        export(recipe, repository="me/reviews")
    assert refused.value.faults == [
        f"--push-to-hub: tiny:text reads its words from student.weights, {tmp_path}/words, which others do not have. Train it"
        " with weights at a URL or in a package, or export it without a push."
    ]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("transformers:/home/ann/models/bert", "transformers:bert"),
        ("timm:local-dir:~/vit", "timm:local-dir:vit"),
        ("s3://lab/private/w.pt", "w.pt"),
        ("timm:hf-hub:me/vit", "timm:hf-hub:me/vit"),
        ("transformers:me/bert", "transformers:me/bert"),
        ("transformers:package://words/model", "transformers:package://words/model"),
        ("package://words/w.pt", "package://words/w.pt"),
        ("open_clip:ViT-B-32/openai", "open_clip:ViT-B-32/openai"),
        ("s3://lab/w.pt?endpoint_override=10.0.0.5:9000&scheme=http", "w.pt"),
        ("transformers:fsspec+sftp://host/home/ann/bert", "transformers:bert"),
    ],
)
def test_a_model_is_named_without_the_folder_that_it_lies_in(name: str, shown: str) -> None:
    assert public(name) == shown
