"""Transparent pictures stand on white wherever they are read; samples, features and students of before stay as they were."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from aft_ray.datasets.prepare import prepare
from aft_ray.export.student import load_student
from aft_ray.extraction.plan import plan_extraction
from aft_ray.extraction.reading import make_inputs
from aft_ray.models.images import ImageTransform, decode
from aft_ray.recipe.config import Recipe, dump, override
from aft_ray.recipe.errors import InputError
from aft_ray.store.workspace import Workspace
from aft_ray.training.inputs.data import load_data
from aft_ray.training.inputs.stores import open_stores
from aft_ray.training.provenance import how_decoded
from tests.helpers.small_students import small_config, small_student

pytestmark = pytest.mark.slow

CLEAR_ON_BLACK = (0, 0, 0, 0)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def disc(mode: str) -> bytes:
    """A red square on a clear ground that hides black, or blue."""
    image = Image.new("RGBA", (16, 16), CLEAR_ON_BLACK)
    image.paste((255, 0, 0, 255), (4, 4, 12, 12))
    if mode == "P":
        palette = image.convert("RGB").quantize(4)
        return encoded(palette, transparency=palette.getpixel((0, 0)))
    if mode == "P with bytes":
        return encoded(image.quantize(4))
    if mode == "RGB":
        return encoded(image.convert("RGB"), transparency=(0, 0, 0))
    if mode == "GIF":
        return encoded(image, "GIF")
    return encoded(
        image.convert(mode), "WEBP" if mode == "RGBA" else "PNG", **({"lossless": True} if mode == "RGBA" else {})
    )


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "P with bytes", "RGB", "GIF"])
def test_every_kind_of_transparency_shows_the_background(mode: str) -> None:
    for background, colour in (("white", 255), ("grey", 128), ("black", 0)):
        pixels = np.asarray(decode(disc(mode), background))
        assert (pixels[0, 0] == colour).all() and pixels[8, 8, 0] > 50


def test_half_clear_pixels_are_mixed_and_whole_pictures_stay_as_they_were() -> None:
    half = encoded(Image.new("RGBA", (8, 8), (200, 0, 0, 128)))
    assert np.asarray(decode(half, "white"))[0, 0].tolist() == pytest.approx([227, 127, 127], abs=1)
    assert np.asarray(decode(half))[0, 0].tolist() == [200, 0, 0]
    random = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    for image in (Image.fromarray(random), Image.fromarray(random[..., 0]), Image.fromarray(random).quantize(16)):
        assert np.array_equal(np.asarray(decode(encoded(image), "white")), np.asarray(decode(encoded(image))))
    deep = encoded(Image.fromarray(random[..., 0].astype(np.uint16) * 257))
    assert np.array_equal(np.asarray(decode(deep, "white")), np.asarray(decode(deep)))


def recipe(tmp_path: Path, **dataset: Any) -> Recipe:
    for number in range(40):
        place = tmp_path / "data" / ("a", "b")[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        image = Image.new("RGBA", (16, 16), CLEAR_ON_BLACK)
        image.paste((200, number, 0, 255), (2, 2, 6 + number % 8, 9))
        image.save(place)
    content = {
        "workspace": str(tmp_path / "work"),
        "dataset": {"source": "image_folder", "path": str(tmp_path / "data"), **dataset},
        "teachers": [{"name": "means", "model": "tests.helpers.own_teachers:Means", "options": {"log": "/dev/null"}}],
        "student": small_config("tiny:cnn", tmp_path / "student").model_dump(),
        "regularizer": {"name": "none"},
    }
    return Recipe.model_validate(content)


def on_white(recipe: Recipe) -> dict[str, bool]:
    """Whether each reader shows a sample's clear corner in white."""
    workspace, plan = Workspace.at(recipe.workspace), plan_extraction(recipe)
    crops, _ = make_inputs(workspace.samples("train").read_shard(0), plan.descriptions)
    data = load_data(override(recipe, {"teachers": []}), open_stores(recipe, ()))
    facts = {"dataset": recipe.dataset.model_dump(mode="json") | how_decoded(data.origin)}
    inputs = data.train.inputs_of(np.array([0]))[0]
    return {
        "teachers": bool(crops["means"][0, 0, 0, 0] > 128),
        "student": bool(inputs[0, 0, 0, 0] > 128),
        "facts": facts["dataset"]["background"] == "white",
    }


@pytest.mark.parametrize("copy", [True, False])
def test_teachers_and_students_see_the_samples_background(copy: bool, tmp_path: Path) -> None:
    given = recipe(tmp_path, copy=copy)
    manifests = prepare(given)
    assert all(manifest["fingerprint"]["background"] == "white" for manifest in manifests.values())
    assert on_white(given) == {"teachers": True, "student": True, "facts": True}
    fingerprint = plan_extraction(given).fingerprints["means"]["train"]
    assert fingerprint["transform"]["background"] == "white"

    hidden = override(given, {"dataset.background": None})
    with pytest.raises(InputError, match="dataset.background is 'white' on disk, None in this run"):
        prepare(hidden)
    prepare(hidden, overwrite=True)
    assert on_white(hidden) == {"teachers": False, "student": False, "facts": False}
    with pytest.raises(InputError, match="dataset.background is None on disk, 'white' in this run"):
        prepare(given)


def test_samples_of_before_show_what_they_showed_and_take_more_of_their_kind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their manifest has neither the key nor a trace of it in the fingerprint."""
    given = recipe(tmp_path, background=None, samples_per_shard=8)
    prepare(given)
    for split in ("train", "validation", "test"):
        path = Path(given.workspace, "samples", split, "manifest.json")
        manifest = json.loads(path.read_text())
        assert "background" not in manifest["fingerprint"]
        for key in ("background", "stratify", "max_pixels"):
            del manifest["recipe"][key]
        directory = Workspace.at(given.workspace).samples(split)
        facts = ("modality", "task", "classes", "samples_per_class", "num_unlabelled", "truncation_side", "recipe")
        kept: dict[str, Any] = {key: manifest[key] for key in facts}
        directory.write_manifest(len(manifest["shards"]), manifest["fingerprint"], **kept)
    now = override(given, {"dataset.background": "white"})
    assert on_white(now) == {"teachers": False, "student": False, "facts": False}
    assert "background" not in plan_extraction(now).fingerprints["means"]["train"]["transform"]
    Path(given.workspace, "samples", "test", "manifest.json").unlink()
    Path(given.workspace, "samples", "test", "part-00000.parquet").unlink()
    capsys.readouterr()
    manifests = prepare(now)
    assert "transparent parts show the colours that they hide" in capsys.readouterr().err
    assert {"background" in manifest["fingerprint"] for manifest in manifests.values()} == {False}
    with pytest.raises(InputError, match="dataset.stratify is False on disk, True in this run"):
        prepare(override(now, {"dataset.stratify": True}))


@pytest.mark.parametrize(("made_of", "value"), [({"background": "white"}, 255), ({"background": None}, 0), ({}, 0)])
def test_a_student_decodes_pictures_as_those_that_it_was_trained_on(
    made_of: dict[str, Any], value: int, tmp_path: Path
) -> None:
    from aft_ray.training.checkpoint import save_student

    config = small_config("tiny:cnn", tmp_path / "student")
    facts = {"student": config.model_dump(mode="json"), "classes": ["a", "b"], "teachers": [], "dataset": made_of}
    weights = small_student("tiny:cnn", tmp_path / "student", 2).state_dict()
    run = Workspace.at(tmp_path / "work").run("main")
    save_student(run / "student", {f"student.{name}": tensor for name, tensor in weights.items()}, facts)
    (transform,) = load_student(run).transforms
    assert isinstance(transform, ImageTransform) and transform(disc("RGBA"))[0, 0, 0] == value


def test_larger_pictures_are_taken_where_the_recipe_says_so(tmp_path: Path) -> None:
    given = recipe(tmp_path)
    Image.new("1", (14_000, 14_000), 1).save(tmp_path / "data" / "a" / "large.png")
    with pytest.raises(InputError, match=r"large.png cannot be read: it has more than .*dataset.max_pixels accepts"):
        prepare(given)
    large = override(given, {"dataset.max_pixels": 200_000_000})
    manifests = prepare(large, overwrite=True)
    assert sum(manifest["num_samples"] for manifest in manifests.values()) == 41
    assert {manifest["fingerprint"]["max_pixels"] for manifest in manifests.values()} == {200_000_000}


def test_no_warning_of_a_library_reaches_the_terminal(tmp_path: Path) -> None:
    given = recipe(tmp_path)
    palette = Image.new("RGBA", (8, 8), (1, 2, 3, 90)).quantize(4)
    palette.save(tmp_path / "data" / "a" / "palette.png")
    Image.new("1", (10_000, 10_000)).save(tmp_path / "data" / "a" / "bomb.png")
    (tmp_path / "recipe.yaml").write_text(dump(override(given, {"dataset.max_bad_samples": 1})))
    command = [sys.executable, "-m", "aft_ray.cli", "prepare", str(tmp_path / "recipe.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and "Warning" not in done.stderr, done.stderr
