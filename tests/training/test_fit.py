"""The training loop against a plain script, against itself when resumed, and on partly labelled data."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, linear, mse_loss, normalize

from aft_ray.models.students import build_student
from aft_ray.recipe.config import override
from aft_ray.recipe.errors import InputError
from aft_ray.regularizers import REGULARIZERS
from aft_ray.store.workspace import Workspace
from aft_ray.training.checkpoint import TrainingState
from aft_ray.training.fit import fit
from aft_ray.training.inputs.data import Data
from aft_ray.training.inputs.order import BatchOrder
from aft_ray.training.optimise import learning_rate_factor
from aft_ray.training.runs import RunDirectory
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

PLAIN = {"learning_rate": 0.0005}
"""So low that rounding stays rounding: Adam makes a whole step of a gradient that is nothing else."""
EXTRAS = {"optimizer": "sgd", "learning_rate": 0.05, "clip_norm": 0.5, "label_smoothing": 0.1, "warmup_steps": 3}


def plain_script(method: str, steps: int, extras: bool) -> list[tuple[float, float]]:
    """(loss, validation accuracy) after each step, written from the paper's formulas with nothing but torch.

    extras: those of EXTRAS.
    """
    given = recipe(method)
    torch.manual_seed(0)
    student = build_student(given.student, 3)
    teacher_dim = 8
    head, gate_logits = torch.nn.Linear(256, teacher_dim), torch.nn.Parameter(torch.zeros(teacher_dim))
    extra = {"kd": list(head.parameters()), "aft": [gate_logits], "none": []}[method]
    rate = 0.05 if extras else 0.0005
    groups: list[dict[str, Any]] = [{"params": list(student.parameters()), "lr": rate}, {"params": extra, "lr": 0.02}]
    optimizer = torch.optim.SGD(groups, momentum=0.9) if extras else torch.optim.Adam(groups)

    def factor(step: int) -> float:
        if extras:
            return (step + 1) / 3 if step < 3 else 0.5 * (1 + math.cos(math.pi * (step - 3) / 9))
        return 0.5 * (1 + math.cos(math.pi * step / 12))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    order = BatchOrder(TRAIN.labels, 20, 0.5, 0)
    curve = []
    for step in range(steps):
        indices = order.all(step)
        batch = TRAIN.rows(indices, TEACHERS)
        images, labels, teacher = batch.inputs, batch.labels, batch.teacher_features
        logits, features = student(images)
        if extras:
            targets = 0.9 * torch.eye(3)[labels] + 0.1 / 3
            loss = -(targets * logits.log_softmax(1)).sum(1).mean()
        else:
            loss = cross_entropy(logits, labels)
        if method == "kd":
            loss = loss + 2 * mse_loss(linear(features, head.weight, head.bias), teacher)
        if method == "aft":
            gated = teacher * gate_logits.sigmoid()
            rows = [normalize(x - x.mean(0), eps=1e-8) for x in (features, gated)]
            loss = loss + 2 * ((rows[0] @ rows[0].T - rows[1] @ rows[1].T).square().mean() + 1e-8).sqrt()
        optimizer.zero_grad()
        loss.backward()
        if extras:
            gradients = [weight.grad for weight in student.parameters() if weight.grad is not None]
            length = torch.cat([gradient.flatten() for gradient in gradients]).norm().item()
            for gradient in gradients:
                gradient *= min(1.0, 0.5 / (length + 1e-6))
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            everything = VALIDATION.rows(np.arange(len(VALIDATION)), ())
            right = student(everything.inputs)[0].argmax(1) == everything.labels
        curve.append((loss.item(), right.float().mean().item()))
    return curve


@pytest.mark.parametrize("method", [*REGULARIZERS, "tests.helpers.own_regularizers:Means"])
def test_every_method_trains_and_resumes(method: str, tmp_path: Path) -> None:
    given = recipe(method, steps=4, evaluate_every=2, labels_per_class=6)
    kept = Workspace.at(tmp_path / "kept")

    def keep(metrics: dict[str, Any], state: TrainingState) -> None:
        if state.step == 2:
            state.save(kept)

    whole = fit(given, DATA, directory=Workspace.at(tmp_path), report=keep)
    assert all(line["regularization"] > 0 for line in whole) or method == "none"
    assert run(given, tmp_path, resume=kept)[-1]["loss"] == whole[-1]["loss"]


@pytest.mark.parametrize("extras", [False, True])
@pytest.mark.parametrize("method", ["none", "aft", "kd"])
def test_every_step_equals_a_plain_script(method: str, extras: bool, tmp_path: Path) -> None:
    history = run(recipe(method, **EXTRAS if extras else PLAIN), tmp_path)
    expected = plain_script(method, 12, extras)
    np.testing.assert_allclose([line["loss"] for line in history], [loss for loss, _ in expected], rtol=1e-5)
    assert [line["val_accuracy"] for line in history] == pytest.approx([accuracy for _, accuracy in expected])
    assert not extras or max(line["grad_norm"] for line in history) > 0.5, "nothing was clipped"


def test_a_resumed_run_repeats_the_undisturbed_one_to_the_last_digit(tmp_path: Path) -> None:
    given = recipe(evaluate_every=4)
    whole = run(given, tmp_path / "whole")
    resumed = run(given, tmp_path / "cut", resume=killed_after(4, given, tmp_path / "cut"))
    assert timeless(resumed) == timeless(whole)
    lines = (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [4, 8, 12]


def test_metrics_have_the_contract_s_keys_and_gates_by_teacher(tmp_path: Path) -> None:
    history = run(recipe(), tmp_path)
    contract = {"step", "epoch", "loss", "task_loss", "regularization", "val_accuracy", "val_loss", "samples_per_s"}
    assert all(contract <= line.keys() for line in history)
    assert [("test_accuracy" in line) for line in history] == [False] * 11 + [True]
    last = history[-1]
    assert last["loss"] == pytest.approx(last["task_loss"] + 2.0 * last["regularization"])
    assert {"kernel_distance", "gate_mean/one", "gate_std/two"} <= last.keys()


def test_the_labels_that_are_not_kept_never_matter(tmp_path: Path) -> None:
    given = recipe(labels_per_class=4, labeled_fraction=0.4)
    kept = TRAIN.keep_labels(4, seed=0).labels
    scrambled = np.where(kept < 0, (TRAIN.labels + 1) % 3, TRAIN.labels)
    masked = replace(TRAIN, labels=kept)
    assert (scrambled != TRAIN.labels).any()
    partly = run(given, tmp_path / "partly")
    fully_hidden = run(
        override(given, {"train.labels_per_class": None}), tmp_path / "hidden", replace(DATA, train=masked)
    )
    assert [line["loss"] for line in partly] == [line["loss"] for line in fully_hidden]
    assert partly[-1]["test_accuracy"] == fully_hidden[-1]["test_accuracy"]


def test_unlabelled_samples_change_the_regularized_student_only(tmp_path: Path) -> None:
    def weights(method: str, inputs: np.ndarray) -> bytes:
        data = replace(DATA, train=replace(TRAIN, inputs=inputs))
        run(recipe(method, labels_per_class=4), tmp_path, data)
        return (tmp_path / "student" / "student.safetensors").read_bytes()

    unlabelled = TRAIN.keep_labels(4, seed=0).labels < 0
    assert isinstance(TRAIN.inputs, np.ndarray)
    changed = TRAIN.inputs.copy()
    changed[unlabelled] = 255 - changed[unlabelled]
    assert weights("none", TRAIN.inputs) == weights("none", changed)
    assert weights("aft", TRAIN.inputs) != weights("aft", changed)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_test_split_without_labels_leaves_a_run_that_can_be_read(task: str, tmp_path: Path) -> None:
    train, validation, test = (made_split(40, seed, task) for seed in range(3))
    none = np.full_like(test.labels, -1 if task == "classification" else np.nan)
    run(recipe("none", steps=2), tmp_path, Data(train, validation, replace(test, labels=none)))
    last = RunDirectory(Workspace.at(tmp_path)).history()[-1]
    assert last["test_accuracy"] is None and last["test_loss"] is None
    assert last["val_loss"] > 0


def test_the_kept_student_is_the_one_of_the_best_validation_accuracy(tmp_path: Path) -> None:
    history = run(recipe(steps=30), tmp_path)
    facts = json.loads((tmp_path / "student" / "student.json").read_text())
    best = max(line["val_accuracy"] for line in history)
    assert facts["val_accuracy"] == best
    assert facts["step"] == next(line["step"] for line in history if line["val_accuracy"] == best)
    from aft_ray.export.student import load_student

    student = load_student(tmp_path)
    right = student(torch.tensor(TEST.inputs)).argmax(1).numpy() == TEST.labels
    assert history[-1]["test_accuracy"] == pytest.approx(right.mean())
    assert facts["test_accuracy"] == history[-1]["test_accuracy"]
    right = student(torch.tensor(VALIDATION.inputs)).argmax(1).numpy() == VALIDATION.labels
    assert best == pytest.approx(right.mean())


def test_a_diverged_run_stops_and_says_what_to_lower(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="The loss is not finite at step .* Lower train.learning_rate or regularizer.beta"
    ):
        run(recipe(optimizer="sgd", learning_rate=1e20, evaluate_every=3), tmp_path)


def test_the_learning_rate_warms_up_then_follows_a_cosine_to_zero() -> None:
    settings = recipe(steps=110, warmup_steps=10).train
    factors = [learning_rate_factor(step, settings) for step in range(111)]
    assert factors[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert factors[10] == 1.0 and factors[60] == pytest.approx(0.5) and factors[110] == pytest.approx(0.0)
