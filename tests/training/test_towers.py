"""Students with two towers: teachers of one tower alone, several of a tower, and what a run does with them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aft_ray.commands.check import open_setup
from aft_ray.datasets.prepare import prepare
from aft_ray.export.evaluate import evaluate
from aft_ray.recipe.config import Recipe, override
from aft_ray.recipe.sections import StudentConfig
from aft_ray.regularizers import REGULARIZERS, build_regularizer
from aft_ray.training.build import build_task
from aft_ray.training.inputs.batches import Split
from aft_ray.training.inputs.data import Data
from aft_ray.training.provenance import with_defaults
from aft_ray.training.runs import RunDirectory
from aft_ray.training.task import TransferTask
from aft_ray.training.towers import Towers, towers_of
from aft_ray.training.train import train
from tests.datasets.named.test_hub_tasks import extract_here
from tests.helpers.pairs import LENGTHS, MEANS, encoded, write_pairs
from tests.helpers.pairs import recipe as recipe_of_pairs
from tests.helpers.training import killed_after, made_split, recipe, run, timeless

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
PAIR = StudentConfig(model="tiny:pair")
READS = {"one": "image", "two": "image", "words": "text"}


def paired(num_samples: int, seed: int) -> Split:
    """Pictures with texts, features of two teachers of the pictures and of one of the texts."""
    split, random = made_split(num_samples, seed), np.random.default_rng(seed)
    assert isinstance(split.inputs, np.ndarray)
    ids = random.integers(1, 50, (num_samples, 8)) + 100 * split.labels[:, None]
    words = (random.normal(size=(num_samples, 4)) + split.labels[:, None]).astype(np.float16)
    inputs = (split.inputs, ids.astype(np.int32))
    return replace(split, inputs=inputs, features={**split.features, "words": words}, modalities=READS)


DATA = Data(paired(60, 0), paired(31, 1), paired(17, 2))


def of(method: str, *teachers: str, **settings: Any) -> Recipe:
    named = [{"name": name, "model": f"timm:{name}"} for name in teachers]
    return override(recipe(method, **settings), {"student.model": "tiny:pair", "teachers": named})


def built(given: Recipe) -> TransferTask:
    return build_task(given, DATA.of(given), CPU, weights_follow=False)


@pytest.mark.parametrize(
    ("student", "teachers", "expected"),
    [
        (PAIR, ("one", "words"), Towers(of_teachers=(0, 1))),
        (PAIR, ("words", "one", "two"), Towers(of_teachers=(1, 0, 0))),
        (PAIR, ("one", "two"), Towers(only=0)),
        (PAIR, ("words",), Towers(only=1)),
        (PAIR, (), Towers(only=0)),
        (StudentConfig(model="tiny:cnn"), ("one", "words"), Towers()),
    ],
)
def test_teachers_belong_to_the_tower_that_reads_what_they_read(
    student: StudentConfig, teachers: tuple[str, ...], expected: Towers
) -> None:
    assert towers_of(student, teachers, READS) == expected


@pytest.mark.parametrize(("teachers", "tower"), [(("one", "two"), 0), (("words",), 1)])
def test_teachers_of_one_tower_are_compared_with_that_tower_and_the_other_is_left_to_the_task(
    teachers: tuple[str, ...], tower: int
) -> None:
    task = built(of("aft", *teachers))
    rows = DATA.train.batch(np.arange(30), teachers, CPU)
    logits, features = task.run_student(rows.inputs)
    value = task.regularization(logits, features, rows)
    alone = build_regularizer("aft", student_dim=256, teacher_dims=[DATA.train.feature_dims[name] for name in teachers])
    torch.testing.assert_close(value, alone(features[tower], rows.teacher_features))
    value.backward()
    for number, part in enumerate((task.student.image, task.student.text)):
        slopes = [p.grad.abs().sum() for p in part.parameters() if p.grad is not None]  # type: ignore[union-attr]
        assert bool(slopes) == (number == tower)


@pytest.mark.parametrize("method", [name for name in REGULARIZERS if name != "none"])
def test_every_method_takes_teachers_of_one_tower(method: str, tmp_path: Path) -> None:
    history = run(of(method, "one", steps=2, evaluate_every=1), tmp_path, DATA)
    assert history[-1]["regularization"] > 0 and history[-1]["test_accuracy"] is not None
    near = json.loads((tmp_path / "student" / "student.json").read_text())["closeness"]
    assert near["student_head"] > 0.1 and near["kernel_distance"] > 0 and near["teachers_head"] > 0.1


@pytest.mark.parametrize("method", ["aft", "aft_probe", "kd", "probe_kd"])
def test_several_teachers_of_a_tower_are_trained_with_resumed_and_named(method: str, tmp_path: Path) -> None:
    given = of(method, "words", "one", "two", steps=4, evaluate_every=2)
    whole = run(given, tmp_path / "whole", DATA)
    resumed = run(given, tmp_path / "cut", DATA, resume=killed_after(2, given, tmp_path / "cut", DATA))
    assert timeless(resumed) == timeless(whole) and whole[-1]["regularization"] > 0
    if "gate_mean/words" in whole[-1]:
        sizes = built(given).regularizer.gate_logits
        assert sizes.shape == (4 + 5 + 3,) and {"gate_mean/one", "gate_mean/two"} < whole[-1].keys()
    if "r2/words" in whole[-1]:
        assert whole[-1]["r2/words"] == whole[-1]["r2/one"] == whole[-1]["r2/two"], "one probe of all"


@pytest.mark.parametrize("teachers", [("one",), ("one", "words", "two")])
@pytest.mark.parametrize("method", ["aft", "probe_kd"])
def test_a_batch_in_parts_gives_the_curve_of_the_batch_in_one_piece(
    method: str, teachers: tuple[str, ...], tmp_path: Path
) -> None:
    given = override(of(method, *teachers, steps=3, learning_rate=1e-4), {"regularizer.steps_per_student_step": 1})
    whole, parts = (run(override(given, {"train.accumulation_steps": n}), tmp_path, DATA) for n in (1, 3))
    for key in ("loss", "regularization", "grad_norm"):
        np.testing.assert_allclose([line[key] for line in parts], [line[key] for line in whole], rtol=1e-5)


def test_further_steps_of_the_regularizer_read_one_tower_too(tmp_path: Path) -> None:
    given = override(of("aft", "words", steps=2), {"regularizer.steps_per_student_step": 2})
    assert run(given, tmp_path, DATA)[-1]["regularization"] > 0


@pytest.mark.parametrize("method", ["aft_probe", "probe_kd"])
def test_teachers_of_one_tower_have_a_probe_each(method: str) -> None:
    facts = built(of(method, "one", "two")).facts
    assert facts["r2/0"] != facts["r2/1"] and min(facts["r2/0"], facts["r2/1"]) > 0.1
    noise = np.random.default_rng(9).normal(size=(60, 40)).astype(np.float16)
    train = paired(60, 0)
    data = replace(DATA, train=replace(train, features={**train.features, "two": noise}))
    regularizer: Any = build_task(of(method, "one", "two"), data, CPU, weights_follow=False).regularizer
    assert regularizer.probes.useful_r2[1] == 0 < regularizer.probes.useful_r2[0]


def test_teachers_side_by_side_have_the_same_say_unless_the_recipe_says_otherwise() -> None:
    for teachers, several in [
        (("one", "words"), False),
        (("words",), False),
        (("one", "two"), True),
        (("one", "two", "words"), True),
    ]:
        options = with_defaults(of("aft", *teachers), None, READS).regularizer.options
        assert options == ({"normalize": "per_teacher"} if several else {})


# ---- from files to a run ----------------------------------------------------------------------------------------------


IN_FILES: list[dict[str, Any]] = [LENGTHS, MEANS, {**MEANS, "name": "others"}]
"""A teacher of texts, and then two of pictures."""


def made_pairs(place: Path, image_folder: Path) -> Recipe:
    """A recipe of pairs with its samples and features on disk."""
    file = write_pairs(place / "raw" / "pairs.parquet", encoded(image_folder), pairs=4)
    given = recipe_of_pairs(place / "work", file, IN_FILES, validation_fraction=0.3, test_fraction=0.2)
    settings = {"steps": 2, "global_batch_size": 16, "evaluate_every": 1}
    given = override(given, {"train": settings, "student.max_length": 8})
    prepare(given)
    extract_here(given)
    return given


def test_a_run_learns_from_its_store_which_tower_a_teacher_belongs_to(tmp_path: Path, image_folder: Path) -> None:
    """Trained from memory and from shards, and evaluated without any teacher."""
    whole = made_pairs(tmp_path, image_folder)
    for names in (["lengths", "means", "others"], ["means", "others"], ["lengths"]):
        own = [teacher for teacher in IN_FILES if teacher["name"] in names]
        for streaming in (False, True):
            changes = {"teachers": own, "train.streaming": streaming, "run": f"{'-'.join(names)}-{streaming}"}
            given = override(whole, changes)
            place = train(open_setup(given, "train"))
            last = RunDirectory(place).history()[-1]
            assert last["regularization"] > 0 and {f"gate_mean/{name}" for name in names} < last.keys()
            started = RunDirectory(place).inputs()
            assert started is not None and ("normalize" in started["recipe"]["regularizer"]) == (len(names) > 1)
            assert evaluate(given)["accuracy"] == pytest.approx(last["test_accuracy"])
