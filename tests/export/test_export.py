"""Exported students are loaded by their own libraries alone, in a fresh process, and give the same logits."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from aft_ray.cluster.lease import lease
from aft_ray.export import onnx_file
from aft_ray.export.export import export
from aft_ray.export.onnx_file import write_onnx
from aft_ray.export.student import load_student
from aft_ray.models.images import ImageTransform, normalise
from aft_ray.models.students import LibraryStudent
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError
from aft_ray.store.workspace import Workspace
from aft_ray.training.checkpoint import save_student
from tests.helpers import hub
from tests.helpers.small_students import TEACHER_DIMS, batch, small_config, small_student

pytestmark = pytest.mark.slow

CLASSES = ["cat", "dog", "bird: [/small]", "fish", "newt"]
ALONE = r"""
import pathlib, re, sys, torch
from safetensors.torch import load_file, save_file

def timm(place, inputs):
    import timm
    model = timm.create_model(f"local-dir:{place}", pretrained=True).eval()
    assert model.pretrained_cfg["label_names"][1] == "dog"
    changed = timm.create_model(f"local-dir:{place}", pretrained=True, num_classes=3)
    assert changed(inputs["pixels"]).shape == (4, 3)
    return model(inputs["pixels"])

def transformers(place, inputs):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(place), AutoTokenizer.from_pretrained(place)
    assert model.config.id2label[1] == "dog" and model.config.problem_type == "single_label_classification"
    return model.eval()(**tokenizer(TEXTS, return_tensors="pt", padding=True, truncation=True)).logits

def pooled(place, inputs):
    (usage,) = re.findall(r"```python\n(.*?)```", pathlib.Path(place, "README.md").read_text(), re.DOTALL)
    found = {}
    exec(usage.replace("DIRECTORY", place).replace('["a text"]', repr(TEXTS)), found)
    assert found["model"].config.id2label[1] == "dog"
    return found["logits"]

def open_clip(place, inputs):
    import open_clip
    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{place}")
    head = load_file(f"{place}/product_head.safetensors")
    ids = open_clip.get_tokenizer(f"local-dir:{place}")(TEXTS)
    image, text = model.eval().encode_image(inputs["pixels"]), model.encode_text(ids)
    return torch.einsum("bi,cij,bj->bc", image, head["weight"], text) + head["bias"]

for kind, (library, place) in STUDENTS.items():
    with torch.no_grad():
        logits = globals()[library](place, load_file(f"{kind}.inputs"))
    save_file({"logits": logits}, f"{kind}.logits")
assert not any(name.startswith("aft_ray") for name in sys.modules)
"""
OF_LIBRARIES: dict[str, tuple[str, dict[str, str]]] = {kind: (kind, {}) for kind in ("timm", "open_clip")}
OF_LIBRARIES |= {kind: (kind, {"pooling": "head"}) for kind in ("bert", "distilbert", "roberta", "gpt2")}
POOLED = (
    ("bert", "mean"),
    ("bert", "pooler"),
    ("distilbert", "mean"),
    ("roberta", "cls"),
    ("gpt2", "last"),
    ("t5", "mean"),
)
OF_LIBRARIES |= {f"{kind} {pooling}": (kind, {"pooling": pooling}) for kind, pooling in POOLED}
"""Students by name: their kind, and their options."""


def trained(kind: str, tmp_path: Path, **options: Any) -> Recipe:
    """A recipe whose run is finished, with a student of random weights."""
    config, student = small_config(kind, tmp_path / kind, **options), small_student(kind, tmp_path / kind, **options)
    recipe = Recipe.model_validate(
        {
            "workspace": str(tmp_path / "work"),
            "dataset": {"name": "mnist5k"},
            "student": config.model_dump(mode="json"),
            "run": "best",
        }
    )
    run = Workspace.at(recipe.workspace).run("best")
    facts = {
        "student": config.model_dump(mode="json"),
        "classes": CLASSES,
        "task": "classification",
        "teachers": [{"name": f"t{k}", "model": f"timm:t{k}", "feature_dim": d} for k, d in enumerate(TEACHER_DIMS)],
        "regularizer": {"name": "aft", "beta": 3.0},
        "dataset": recipe.dataset.model_dump(mode="json"),
        "step": 70,
        "val_accuracy": 0.75,
        "val_loss": 0.5,
        "test_accuracy": None,
    }
    save_student(run / "student", {f"student.{name}": t.clone() for name, t in student.state_dict().items()}, facts)
    samples = {"train": {"dataset": "mnist5k", "samples": "abc"}}
    read = {"student": facts["student"], "train": {"steps": 100, "global_batch_size": 16}, "teachers": ["t0"]}
    started = {"recipe": read, "samples": samples, "teachers": {"t0": {}}}
    run.write("inputs.json", json.dumps(started).encode())
    return recipe


@pytest.fixture(scope="module")
def logits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, torch.Tensor]]:
    """Of every student of a library: logits before the export, of `load_student` where only the export is left, and in a
    process that has no aft_ray.
    """
    root = tmp_path_factory.mktemp("alone")
    found: dict[str, dict[str, torch.Tensor]] = {}
    students = {}
    for name, (kind, options) in OF_LIBRARIES.items():
        (root / name).mkdir()
        place = export(trained(kind, root / name, **options))
        model = load_student(root / name / "work" / "runs" / "best")
        assert isinstance(model.student, LibraryStudent)
        inputs = batch(model.student, hub.TEXTS)
        shutil.rmtree(root / name / kind, ignore_errors=True)
        again = load_student(place)
        assert again.classes == model.classes
        with torch.no_grad():
            found[name] = {"run": model(inputs), "export": again(batch(again.student, hub.TEXTS))}
            prepared = dict(zip(model.student.axes, model.student.prepare(inputs), strict=True))
        save_file({key: tensor.contiguous() for key, tensor in prepared.items()}, root / f"{name}.inputs")
        way = "pooled" if options.get("pooling", "head") != "head" else model.student.library
        students[name] = (way, str(place))
    script = f"TEXTS, STUDENTS = {hub.TEXTS!r}, {students!r}\n{ALONE}"
    subprocess.run([sys.executable, "-c", script], cwd=root, check=True)
    return {name: {**own, "library": load_file(root / f"{name}.logits")["logits"]} for name, own in found.items()}


@pytest.mark.processes
@pytest.mark.parametrize("name", OF_LIBRARIES)
def test_the_library_alone_gives_the_same_logits(name: str, logits: dict[str, dict[str, torch.Tensor]]) -> None:
    assert logits[name]["run"].abs().max() > 0.01
    torch.testing.assert_close(logits[name]["library"], logits[name]["run"], rtol=0, atol=1e-6)


@pytest.mark.processes
@pytest.mark.parametrize("name", OF_LIBRARIES)
def test_load_student_needs_nothing_but_the_export(name: str, logits: dict[str, dict[str, torch.Tensor]]) -> None:
    assert torch.equal(logits[name]["export"], logits[name]["run"])


def test_an_export_that_was_changed_is_not_loaded(tmp_path: Path) -> None:
    place = export(trained("timm", tmp_path))
    config = Path(place.path, "config.json")
    config.write_text(config.read_text().replace("dog", "cow"))
    with pytest.raises(
        InputError, match=r"config.json is damaged: its checksum is not the one in student.json. Run 'aft"
    ):
        load_student(place)
    config.unlink()
    with pytest.raises(InputError, match="config.json is damaged: it is missing"):
        load_student(place)


@pytest.mark.parametrize("kind", ["timm", "open_clip"])
def test_the_library_s_transform_is_ours(kind: str, tmp_path: Path) -> None:
    import open_clip
    import timm

    place = export(trained(kind, tmp_path, image_size=96))
    (transform, *_) = load_student(tmp_path / "work" / "runs" / "best").transforms
    pixels = np.random.default_rng(0).integers(0, 256, (140, 111, 3)).astype(np.uint8)
    picture, encoded = Image.fromarray(pixels), io.BytesIO()
    picture.save(encoded, format="PNG")
    ours = normalise(torch.tensor(transform(encoded.getvalue()))[None], transform)  # type: ignore[arg-type]
    if kind == "timm":
        model = timm.create_model(f"local-dir:{place}", pretrained=True)
        theirs = timm.data.create_transform(**timm.data.resolve_data_config(model=model))(picture)
    else:
        model, evaluation = open_clip.create_model_from_pretrained(f"local-dir:{place}")
        theirs = evaluation(picture)
    torch.testing.assert_close(ours[0], theirs)
    assert model.eval()(ours) is not None


@pytest.mark.parametrize("kind", ["tiny:cnn", "tiny:text", "linear_probe"])
def test_a_student_of_no_library_is_loaded_by_load_student(kind: str, tmp_path: Path) -> None:
    place = export(trained(kind, tmp_path))
    student, run = load_student(place), load_student(tmp_path / "work" / "runs" / "best")
    inputs = batch(student.student, hub.TEXTS)
    assert torch.equal(student(inputs), run(inputs))
    (usage,) = re.findall(r"```python\n(.*?)```", place.read("README.md").decode(), re.DOTALL)
    loaded: dict[str, Any] = {}
    exec("\n".join(usage.replace("DIRECTORY", str(place)).splitlines()[:2]), loaded)
    assert torch.equal(loaded["model"](inputs), run(inputs))


@pytest.mark.parametrize("kind", ["timm", "tiny:text", "bert", "gpt2", "open_clip", "linear_probe"])
def test_onnx_agrees_with_torch(kind: str, tmp_path: Path) -> None:
    import onnxruntime

    student = small_student(kind, tmp_path / kind).eval()
    assert write_onnx(student, tmp_path / "model.onnx") < 1e-5
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    prepared = student.prepare(batch(student, hub.TEXTS))
    arrays = dict(zip(student.axes, (tensor.numpy() for tensor in prepared), strict=True))
    (logits,) = session.run(["logits"], arrays)
    with torch.no_grad():
        np.testing.assert_allclose(logits, student.run(*prepared)[0].numpy(), atol=1e-4)


def test_an_onnx_file_names_its_classes_and_how_a_picture_becomes_its_input(tmp_path: Path) -> None:
    import onnxruntime

    place = export(trained("tiny:cnn", tmp_path), onnx=True)
    session = onnxruntime.InferenceSession(f"{place}/model.onnx")
    facts = {name: json.loads(value) for name, value in session.get_modelmeta().custom_metadata_map.items()}
    student = load_student(place)
    assert facts["classes"] == student.classes and facts["task"] == "classification"
    (transform,) = student.transforms
    assert isinstance(transform, ImageTransform)
    assert (tuple(facts["mean"]), tuple(facts["std"])) == (transform.mean, transform.std)
    assert facts["image_transform"]["size"] == transform.size
    assert "`classes`, `mean`, `std`" in place.read("README.md").decode()


def test_an_onnx_file_that_does_not_agree_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = trained("tiny:cnn", tmp_path)
    monkeypatch.setattr(onnx_file, "TOLERANCE", -1.0)
    with pytest.raises(InputError, match="The ONNX file's logits differ from torch's by .*: it was not kept"):
        export(recipe, onnx=True)
    assert not (tmp_path / "work" / "runs" / "best" / "export").exists()
    monkeypatch.setattr(onnx_file, "NEEDED", ("onnx", "no_such_package"))
    with pytest.raises(
        InputError, match="ONNX needs the Python package no_such_package: pip install 'aft-ray\\[onnx\\]'."
    ):
        export(recipe, onnx=True)


def test_the_card_says_what_the_model_is(tmp_path: Path) -> None:
    recipe = trained("timm", tmp_path)
    run = Workspace.at(recipe.workspace).run("best")
    evaluation = {"split": "test", "accuracy": 0.8125, "macro_f1": 0.79, "nll": 0.6, "top5_accuracy": None}
    run.write("evaluation-test.json", json.dumps(evaluation).encode())
    place = export(recipe, onnx=True)
    assert {"README.md", "config.json", "lineage.json", "model.onnx", "model.safetensors", "student.json"} == set(
        place.names()
    )
    _, header, body = place.read("README.md").decode().split("---\n", 2)
    facts = yaml.safe_load(header)
    assert facts["library_name"] == "timm" and facts["pipeline_tag"] == "image-classification"
    (result,) = facts["model-index"][0]["results"]
    assert result["metrics"][0] == {"type": "accuracy", "value": 0.8125, "name": "accuracy (test)"}
    for line in (
        "| student | `timm:test_vit` |",
        "| method | aft, beta 3.0 |",
        "| teacher | `timm:t1`, 3 features |",
        "| data set | mnist5k |",
        "| steps | 70 of 100, batches of 16 |",
        "| macro F1 (test) | 0.7900 |",
        "| accuracy (validation) | 0.7500 |",
        "- `pixels` (batch, ...): float32 NCHW, cropped and normalised as described below",
        "Outputs, in order: cat, dog, bird: [/small], fish, newt",
        "- samples, train: `",
        "- features of t0: `",
    ):
        assert line in body, body
    assert "\n\n\n" not in body


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        ({"name": "spam"}, "Text: the column `text`, as it is."),
        (
            {"source": "csv", "path": "private/x.csv", "columns": {"text": ["a", "b"]}},
            "the columns `a` and `b`, one per line: `aft-ray predict` does so,",
        ),
        (
            {"source": "csv", "path": "x", "columns": {"text": "review"}, "prompt": "Good?\n{review} Answer:"},
            "Text: `Good?\\n{review} Answer:`, with the column `review` put in: `aft-ray predict` does so,",
        ),
        ({"name": "sst2"}, 'Text: `Review: "{sentence}"\\nSentiment: `, with the column `sentence` put in: '),
    ],
)
def test_the_card_says_how_a_row_becomes_the_text(dataset: dict[str, Any], said: str, tmp_path: Path) -> None:
    recipe = trained("tiny:text", tmp_path)
    path = tmp_path / "work" / "runs" / "best" / "student" / "student.json"
    facts = json.loads(path.read_text()) | {"dataset": dataset}
    del facts["digest"]
    path.write_text(json.dumps(facts))
    card = export(recipe).read("README.md").decode()
    assert said in card and "private" not in card


def test_of_two_exports_at_once_one_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = trained("tiny:cnn", tmp_path)
    monkeypatch.setattr("aft_ray.cluster.claims.LOOKED_EVERY_S", 0.01)
    second = threading.Thread(target=export, args=(recipe,))
    with lease(Workspace.at(recipe.workspace), "exports/best"):
        second.start()
        second.join(1.0)
        assert second.is_alive() and not (tmp_path / "work" / "runs" / "best" / "export").exists()
    second.join(60)
    assert (tmp_path / "work" / "runs" / "best" / "export" / "README.md").exists()


def test_what_cannot_be_exported_is_named(tmp_path: Path) -> None:
    recipe = trained("tiny:cnn", tmp_path)
    with pytest.raises(InputError, match="holds no trained student"):
        export(recipe.model_copy(update={"run": "other"}))
