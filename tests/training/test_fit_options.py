"""What a recipe's `train` section can ask for: other tasks, precisions, ways to get gradients, and reasons to stop."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from aft_ray.recipe.config import override
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.presets import PRESETS
from aft_ray.training.best import best_line
from aft_ray.training.build import build_task
from aft_ray.training.fit import is_over
from aft_ray.training.inputs.data import Data
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


def losses(history: list[dict[str, Any]]) -> list[float]:
    return [line["loss"] for line in history]


# ---- tasks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_other_tasks_learn_and_keep_their_best_student(task: str, tmp_path: Path) -> None:
    data = Data(made_split(60, 0, task), made_split(30, 1, task), made_split(20, 2, task))
    history = run(recipe(steps=60, evaluate_every=20), tmp_path, data)
    best = best_line(history)
    facts = json.loads((tmp_path / "student" / "student.json").read_text())
    assert (facts["step"], facts["task"], facts["classes"]) == (best["step"], task, ["top", "bottom"])
    if task == "multilabel":
        assert best["val_accuracy"] > 0.85 and history[-1]["test_accuracy"] > 0.85  # a guess has half of them right
    else:
        assert all(line["val_accuracy"] is None for line in history) and history[-1]["test_accuracy"] is None
        assert data.validation is not None
        spread = np.var(data.validation.labels)  # what a constant guess would reach
        assert best["val_loss"] == min(line["val_loss"] for line in history) < 0.3 * spread
        assert "null" in (tmp_path / "metrics.jsonl").read_text()


def test_a_sample_with_no_numbers_takes_part_in_the_regularizer_only(tmp_path: Path) -> None:
    split = made_split(60, 0, "regression")
    labels = split.labels.copy()
    labels[::2] = np.nan
    hidden = replace(split, labels=labels)
    elsewhere = np.where(np.isnan(labels), 1e6, split.labels).astype(np.float32)
    assert losses(run(recipe(), tmp_path, Data(hidden, made_split(30, 1, "regression"), hidden)))[0] < 10
    with_them = Data(replace(split, labels=elsewhere), made_split(30, 1, "regression"), hidden)
    assert losses(run(recipe(), tmp_path, with_them))[0] > 1e6


# ---- gradients ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_a_batch_in_parts_gives_the_curve_of_the_batch_in_one_piece(preset: str, tmp_path: Path) -> None:
    """With everything that a preset brings, and balanced classes."""
    options = {**PRESETS[preset], "class_weights": "balanced", "learning_rate": 1e-4}
    whole, parts = (run(recipe(accumulation_steps=n, **options), tmp_path) for n in (1, 3))
    for key in ("loss", "regularization", "grad_norm", "val_loss"):
        np.testing.assert_allclose([line[key] for line in parts], [line[key] for line in whole], rtol=1e-5)


def test_more_steps_of_the_regularizer_leave_the_student_s_batches_as_they_are(tmp_path: Path) -> None:
    once = recipe(steps=2)
    often = override(once, {"regularizer.steps_per_student_step": 5})
    curves = {k: run(given, tmp_path / str(k)) for k, given in ((1, once), (5, often))}
    assert curves[1][0]["task_loss"] == curves[5][0]["task_loss"], "the student's first batch is another"
    gates = [torch.tensor(curve[-1][f"gate_std/{name}"]) for curve in curves.values() for name in TEACHERS]
    assert max(gates[2:]) > 2 * max(gates[:2]), "the gates have not moved further"

    resumed = run(often, tmp_path / "cut", resume=killed_after(1, often, tmp_path / "cut"))
    assert timeless(resumed) == timeless(curves[5])


def test_the_student_rests_while_the_regularizer_trains(tmp_path: Path) -> None:
    """With a student that cannot learn, k steps at a time are just as many steps of the gates."""
    still = recipe("aft", steps=2, learning_rate=1e-30, optimizer="sgd")
    before = build_task(still, DATA, CPU, weights_follow=False).student.state_dict()
    run(override(still, {"regularizer.steps_per_student_step": 4, "regularizer.learning_rate": 1.0}), tmp_path)
    after = load_file(tmp_path / "student" / "student.safetensors")
    assert all(torch.allclose(value, after[name], rtol=0, atol=1e-20) for name, value in before.items())


def test_bf16_runs_the_student_in_bf16_and_the_losses_in_float32(tmp_path: Path) -> None:
    given = recipe(precision="bf16")
    task = build_task(given, DATA, CPU, weights_follow=False)
    batch = TRAIN.rows(np.arange(20), TEACHERS)
    logits, features = task.run_student(batch.inputs)
    assert logits.dtype == torch.bfloat16
    assert all(value.dtype == torch.float32 for value in task.losses(logits, features, batch).values())
    exact, rough = (run(override(r, {"train.learning_rate": 3e-4}), tmp_path) for r in (recipe(), given))
    assert losses(rough) == pytest.approx(losses(exact), rel=0.02) and losses(rough) != losses(exact)


def test_a_compiled_student_has_the_same_curve_and_the_same_file(tmp_path: Path) -> None:
    plain, compiled = (run(recipe(steps=2, compile=flag), tmp_path / str(flag)) for flag in (False, True))
    assert losses(compiled) == pytest.approx(losses(plain), rel=1e-4)
    from aft_ray.export.student import load_student

    student = load_student(tmp_path / "True")
    right = student(torch.tensor(TEST.inputs)).argmax(1).numpy() == TEST.labels
    assert compiled[-1]["test_accuracy"] == pytest.approx(right.mean())


# ---- stopping -------------------------------------------------------------------------------------------------------


def test_a_run_stops_when_patience_is_over_and_stays_stopped_when_resumed(tmp_path: Path) -> None:
    given = recipe(steps=300, evaluate_every=5, early_stopping=3)
    history = run(given, tmp_path / "whole")
    best = history.index(best_line(history))
    assert history[-1]["step"] < 300 and len(history) == best + 1 + 3
    assert "test_accuracy" in history[-1]
    rates = [line["learning_rate"] for line in run(recipe(steps=300, evaluate_every=5), tmp_path / "patient")]
    assert [line["learning_rate"] for line in history] == rates[: len(history)], "the schedule has changed"
    resumed = run(given, tmp_path / "cut", resume=killed_after(5 * (best + 2), given, tmp_path / "cut"))
    assert timeless(resumed) == timeless(history)


def test_patience_counts_evaluations_since_the_best() -> None:
    settings = recipe(early_stopping=2, steps=100).train
    lines = [{"step": step, "val_accuracy": a, "val_loss": 1.0} for step, a in enumerate([0.1, 0.5, 0.5, 0.4], 1)]
    assert [is_over(lines[:n], settings) for n in range(5)] == [False, False, False, False, True]


@pytest.mark.parametrize("parts", [1, 2])
def test_a_loss_that_is_not_finite_names_the_first_step_and_its_samples(parts: int, tmp_path: Path) -> None:
    features = TRAIN.features["one"].astype(np.float32)
    sick = 7
    features[sick] = 3e38  # finite as it is stored, not when it is squared
    data = Data(replace(TRAIN, features={**TRAIN.features, "one": features}), VALIDATION, TEST)
    given = recipe("kd", steps=12, evaluate_every=2, accumulation_steps=parts)
    from aft_ray.training.inputs.order import BatchOrder

    order = BatchOrder(TRAIN.labels, 20, 0.5, 0)
    first = next(step for step in range(12) if sick in order.all(step))
    with pytest.raises(InputError) as stopped:
        run(given, tmp_path, data)
    told = str(stopped.value)
    assert f"not finite at step {first + 1}. Its batch has samples" in told and "Lower train.learning_rate" in told
    written = json.loads((tmp_path / "bad_batch.json").read_text())
    assert written == {"step": first + 1, "sample_ids": TRAIN.sample_ids[order.all(first)].tolist()}
    assert f"s{sick}" in written["sample_ids"]
    good = 2 * (first // 2)
    assert (f"The last good evaluation was at step {good}." if good else "Nothing was evaluated before.") in told


def test_a_checkpoint_of_another_run_is_refused_by_name(tmp_path: Path) -> None:
    given = recipe(evaluate_every=4)
    kept = killed_after(4, given, tmp_path)
    with pytest.raises(InputError, match="a checkpoint of a run with another regularizer.beta"):
        run(override(given, {"regularizer.beta": 3}), tmp_path, resume=kept)
    turned = [teacher.model_dump(mode="json") for teacher in reversed(given.teachers)]
    with pytest.raises(InputError, match="a checkpoint of a run with another teachers"):
        run(override(given, {"teachers": turned}), tmp_path, resume=kept)
    run(override(given, {"train.num_workers": 2}), tmp_path, resume=kept)
    (Path(kept.path) / "checkpoint.json").unlink()
    with pytest.raises(InputError, match="is no whole checkpoint"):
        run(given, tmp_path, resume=kept)


def test_a_gpu_that_is_not_there_is_a_fault_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="torch finds no GPU here. Set train.use_gpu=false"):
        run(recipe(use_gpu=True), tmp_path)


# ---- what a baseline needs before it starts ---------------------------------------------------------------------------


def test_the_autoencoder_of_factor_transfer_is_trained_once_for_all_runs_on_the_same_features(tmp_path: Path) -> None:
    data = replace(
        DATA, origin={"samples": {"train": {"made": "for a test"}}, "teachers": {"one": "its weights", "two": "others"}}
    )
    given = override(recipe("ft", steps=2), {"workspace": str(tmp_path)})
    alone = run(given, tmp_path / "alone")
    assert not (tmp_path / "encoders").exists()  # of features that nobody identifies nothing is kept
    first = run(given, tmp_path / "first", data)
    (kept,) = (tmp_path / "encoders").glob("*.safetensors")
    written = kept.stat().st_mtime_ns
    again = run(override(given, {"train.global_batch_size": 20}), tmp_path / "again", data)
    assert timeless(alone) == timeless(first) == timeless(again)
    assert kept.stat().st_mtime_ns == written
    run(override(given, {"teachers": [{"name": "one", "model": "timm:one"}]}), tmp_path / "other", data)
    assert len([*(tmp_path / "encoders").glob("*.safetensors")]) == 2
