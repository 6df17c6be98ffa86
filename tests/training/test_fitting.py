"""Methods that are fitted to the data before training: in every way of training, without a look at labels that are not kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aft_ray.recipe.config import Recipe, override
from aft_ray.regularizers import ridge_probe
from aft_ray.regularizers.aft_probe import AftProbe
from aft_ray.regularizers.fitted_probes import probes_in_words
from aft_ray.training.build import build_task
from aft_ray.training.inputs.batches import Split
from aft_ray.training.inputs.data import Data, load_data
from aft_ray.training.provenance import run_inputs, with_defaults
from jobs.benchmarks.made_store import made_store
from tests.helpers.training import (
    DATA,
    TEACHERS,
    TEST,
    TRAIN,
    VALIDATION,
    killed_after,
    made_split,
    recipe,
    run,
    timeless,
)

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
PROBE_METHODS = ("aft_probe", "probe_kd")
PAIR = {"one": "image", "two": "text"}
"""What the teachers of a student with two towers read."""


def with_noise(split: Split, *teachers: str) -> Split:
    noise = np.random.default_rng(9).normal(size=(len(split), 40)).astype(np.float16)
    return replace(split, features={**split.features, **dict.fromkeys(teachers, noise)})


def noisy(*teachers: str) -> Data:
    return Data(with_noise(TRAIN, *teachers), with_noise(VALIDATION, *teachers), TEST)


def fitted(given: Recipe, data: Data = DATA) -> Any:
    return build_task(given, data.of(given), CPU, weights_follow=False).regularizer


@pytest.mark.parametrize("method", PROBE_METHODS)
def test_the_probes_are_those_of_the_labels_that_training_keeps(method: str) -> None:
    given = recipe(method, labels_per_class=8)
    kept = TRAIN.keep_labels(8, seed=0).labels
    labelled = kept >= 0
    for k, name in enumerate(TEACHERS):
        features = TRAIN.features[name].astype(np.float64)
        scale = float(np.sqrt(np.square(features - features.mean(0)).sum(1).mean()))
        expected = ridge_probe(features[labelled], np.eye(3)[kept[labelled]], mean=features.mean(0), scale=scale)
        assert fitted(given).facts()[f"r2/{k}"] == pytest.approx(expected.r2, rel=1e-9)


@pytest.mark.parametrize("method", PROBE_METHODS)
def test_labels_that_are_not_kept_never_matter(method: str, tmp_path: Path) -> None:
    given = recipe(method, labels_per_class=8)
    kept = TRAIN.keep_labels(8, seed=0).labels
    hidden = replace(DATA, train=replace(TRAIN, labels=kept))
    whole, masked = (
        run(given, tmp_path / "whole"),
        run(override(given, {"train.labels_per_class": None}), tmp_path, hidden),
    )
    assert [line["loss"] for line in whole] == [line["loss"] for line in masked]


@pytest.mark.parametrize("method", PROBE_METHODS)
def test_a_teacher_of_noise_is_left_out_and_that_is_written_down(method: str, tmp_path: Path) -> None:
    last = run(recipe(method), tmp_path, noisy("two"))[-1]
    assert last["r2/two"] <= last["least_r2/two"] and last["r2/one"] > last["least_r2/one"]
    assert last.get("gate_mean/two", 0) == last.get("probe_gate_mean/two", 0) == 0 < last["regularization"]
    assert [sentence.partition(":")[0] for sentence in probes_in_words(last)] == ["one", "two"]
    assert [sentence.endswith("left out.") for sentence in probes_in_words(last)] == [False, True]
    facts = json.loads((tmp_path / "student" / "student.json").read_text())["fitted"]
    assert facts == {key: last[key] for key in ("r2/one", "r2/two", "least_r2/one", "least_r2/two")}


@pytest.mark.parametrize("method", PROBE_METHODS)
def test_teachers_of_noise_alone_are_standard_transfer(method: str, tmp_path: Path) -> None:
    data = noisy(*TEACHERS)
    ours = run(recipe(method, labels_per_class=8), tmp_path / "ours", data)
    plain = run(recipe("none", labels_per_class=8), tmp_path / "plain", data)
    assert probes_in_words(ours[-1])[-1].startswith("No teacher is left") and probes_in_words(plain[-1]) == []
    facts = ("r2/one", "r2/two", "least_r2/one", "least_r2/two")
    assert [{k: v for k, v in line.items() if k not in facts} for line in timeless(ours)] == timeless(plain)


@pytest.mark.parametrize("method", PROBE_METHODS)
@pytest.mark.parametrize("per_class", [5, 8, None])
def test_permuted_labels_leave_no_teacher(method: str, per_class: int | None) -> None:
    permuted = np.random.default_rng(3).permutation(TRAIN.labels)
    given, data = recipe(method, labels_per_class=per_class), replace(DATA, train=replace(TRAIN, labels=permuted))
    task = build_task(given, data, CPU, weights_follow=False)
    assert task.regularizer.name == "none" and {f"r2/{k}" for k in range(2)} < task.facts.keys()
    assert fitted(given).name == method, "with the labels in their places the teachers are kept"


@pytest.mark.parametrize("noise", [(), ("two",)])
@pytest.mark.parametrize("method", PROBE_METHODS)
def test_a_resumed_run_repeats_the_undisturbed_one(method: str, noise: tuple[str, ...], tmp_path: Path) -> None:
    given, data = recipe(method, evaluate_every=4, labels_per_class=8), noisy(*noise)
    whole = run(given, tmp_path / "whole", data)
    resumed = run(given, tmp_path / "cut", data, resume=killed_after(4, given, tmp_path / "cut", data))
    assert timeless(resumed) == timeless(whole)


@pytest.mark.parametrize("method", PROBE_METHODS)
def test_a_batch_in_parts_gives_the_curve_of_the_batch_in_one_piece(method: str, tmp_path: Path) -> None:
    given = recipe(method, learning_rate=1e-4)
    whole, parts = (run(override(given, {"train.accumulation_steps": n}), tmp_path) for n in (1, 3))
    for key in ("loss", "regularization", "grad_norm", "val_loss"):
        np.testing.assert_allclose([line[key] for line in parts], [line[key] for line in whole], rtol=1e-5)


@pytest.mark.parametrize("method", ["none", "aft", *PROBE_METHODS])
def test_two_modalities_go_through_the_student_in_parts_too(method: str, tmp_path: Path) -> None:
    data = Data(paired(60, 0), paired(31, 1), paired(17, 2))
    given = override(recipe(method, steps=3, learning_rate=1e-4), {"student.model": "tiny:pair"})
    whole, parts = (run(override(given, {"train.accumulation_steps": n}), tmp_path, data) for n in (1, 3))
    for key in ("loss", "regularization", "grad_norm", "val_loss"):
        np.testing.assert_allclose([line[key] for line in parts], [line[key] for line in whole], rtol=1e-5)


@pytest.mark.parametrize("method", PROBE_METHODS)
def test_bf16_gives_nearly_the_same_curve(method: str, tmp_path: Path) -> None:
    exact, rough = (run(recipe(method, learning_rate=3e-4, precision=p), tmp_path) for p in ("fp32", "bf16"))
    assert [line["loss"] for line in rough] == pytest.approx([line["loss"] for line in exact], rel=0.02)


@pytest.mark.parametrize("method", PROBE_METHODS)
@pytest.mark.parametrize("per_class", [2, 20])
def test_streamed_features_give_the_same_probes(method: str, per_class: int, tmp_path: Path) -> None:
    """In two passes over the shards: with fewer labelled rows than columns and with more."""
    splits = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
    stores = {name: made_store(tmp_path, name, split, shard_size=7) for name, split in splits.items()}
    given = recipe(method, labels_per_class=per_class)
    streamed = fitted(given, load_data(override(given, {"train.streaming": True}), stores))
    here = fitted(given)
    assert streamed.facts() == pytest.approx(here.facts(), abs=1e-9)
    for name, tensor in here.state_dict().items():
        torch.testing.assert_close(streamed.state_dict()[name], tensor)


@pytest.mark.parametrize("method", PROBE_METHODS)
def test_a_streamed_run_is_trained_and_resumed(method: str, tmp_path: Path) -> None:
    splits = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
    stores = {name: made_store(tmp_path / "work", name, split, shard_size=7) for name, split in splits.items()}
    given = recipe(method, streaming=True, labels_per_class=8, steps=8, evaluate_every=4)
    data = replace(load_data(given, stores), origin={})  # keeps nothing in the recipe's workspace
    whole = run(given, tmp_path / "whole", data)
    assert whole[-1]["regularization"] > 0 and whole[-1]["r2/one"] > whole[-1]["least_r2/one"]
    resumed = run(given, tmp_path / "cut", data, resume=killed_after(4, given, tmp_path / "cut", data))
    assert timeless(resumed) == timeless(whole)


@pytest.mark.parametrize("task", ["multilabel", "regression"])
@pytest.mark.parametrize("method", PROBE_METHODS)
def test_other_tasks_have_probes_too(method: str, task: str, tmp_path: Path) -> None:
    split = made_split(200, 0, task)
    labels = split.labels.copy()
    labels[::3] = np.nan
    data = Data(replace(split, labels=labels), made_split(30, 1, task), made_split(20, 2, task))
    given = recipe(method, steps=40, evaluate_every=20)
    history = run(given, tmp_path, data)
    assert history[-1]["r2/one"] > 0.05 and history[-1]["loss"] < history[0]["loss"]
    assert history[-1]["regularization"] > 0


def paired(num_samples: int, seed: int) -> Split:
    """Pictures with texts, and features of a teacher for each."""
    split, random = made_split(num_samples, seed), np.random.default_rng(seed)
    assert isinstance(split.inputs, np.ndarray)
    words = random.integers(1, 50, (num_samples, 8)) + 100 * split.labels[:, None]
    return replace(split, inputs=(split.inputs, words.astype(np.int32)), modalities=PAIR)


@pytest.mark.parametrize("method", PROBE_METHODS)
def test_two_modalities_share_one_probe_of_the_pair(method: str, tmp_path: Path) -> None:
    data = Data(paired(60, 0), paired(31, 1), paired(17, 2))
    given = override(recipe(method, steps=4, evaluate_every=2), {"student.model": "tiny:pair"})
    whole = run(given, tmp_path / "whole", data)
    assert whole[-1]["r2/one"] == whole[-1]["r2/two"] > 0.1
    assert whole[-1]["regularization"] > 0
    resumed = run(given, tmp_path / "cut", data, resume=killed_after(2, given, tmp_path / "cut", data))
    assert timeless(resumed) == timeless(whole)


def test_probes_are_fitted_once_for_all_runs_on_the_same_features_and_labels(tmp_path: Path) -> None:
    data = replace(
        DATA, origin={"samples": {"train": {"made": "for a test"}}, "teachers": {"one": "its weights", "two": "others"}}
    )
    given = override(recipe("aft_probe", steps=2, labels_per_class=8), {"workspace": str(tmp_path)})
    alone, first = run(given, tmp_path / "alone"), run(given, tmp_path / "first", data)
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "probes").glob("*.safetensors")}
    assert len(kept) == 2
    again = run(given, tmp_path / "again", data)
    run(override(given, {"teachers": [{"name": "one", "model": "timm:one"}]}), tmp_path / "subset", data)
    run(override(given, {"regularizer.name": "probe_kd"}), tmp_path / "other method", data)
    assert timeless(alone) == timeless(first) == timeless(again)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "probes").glob("*.safetensors")} == kept
    run(override(given, {"train.seed": 1}), tmp_path / "other labels", data)
    assert len([*(tmp_path / "probes").glob("*.safetensors")]) == 4


def test_a_search_can_vary_the_weight_of_the_raw_block() -> None:
    regularizer = fitted(override(recipe("aft_probe"), {"regularizer.raw_weight": 0.25}))
    assert isinstance(regularizer, AftProbe) and regularizer.raw_weight == 0.25


# ---- options that a recipe has by default -----------------------------------------------------------------------------


def test_several_teachers_of_aft_have_the_same_say_unless_the_recipe_says_otherwise() -> None:
    several = recipe("aft")
    assert with_defaults(several, None, PAIR).regularizer.options == {"normalize": "per_teacher"}
    papers = override(several, {"regularizer.normalize": "none"})
    assert with_defaults(papers, None, PAIR) == papers
    for one in (
        override(several, {"teachers": [{"name": "one", "model": "timm:one"}]}),
        override(several, {"student.model": "tiny:pair"}),
        recipe("none"),
        recipe("aft_rbf"),
        recipe("aft_probe"),
    ):
        assert with_defaults(one, None, PAIR) == one


def test_a_run_goes_on_with_the_options_that_it_was_started_with() -> None:
    given = recipe("aft")
    before = run_inputs(given, {})  # as the code before this default wrote it
    assert with_defaults(given, before, PAIR) == given
    started = with_defaults(given, None, PAIR)
    assert with_defaults(given, run_inputs(started, {}), PAIR) == started


def test_a_run_records_the_number_of_a_warm_up_that_follows_its_steps_and_keeps_it() -> None:
    given = recipe("none", steps=40, warmup_steps=None)
    assert with_defaults(given, None, {}).train.warmup_steps == 10
    before = run_inputs(override(given, {"train.warmup_steps": 30}), {})  # of its base's steps, as before
    assert with_defaults(given, before, {}).train.warmup_steps == 30
    assert with_defaults(override(given, {"train.steps": 80}), before, {}).train.warmup_steps == 20
