"""The training loop, plain PyTorch: one worker of a process group, or the only one.

Everything random is a function of (seed, step): which samples make a batch, and what dropout draws. A resumed run
therefore repeats an undisturbed one to the last digit on the same hardware.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from aft_ray.batches import BatchOrder, Split, evaluation_batches, load_split, worker_rows
from aft_ray.checkpoint import TrainingState, save_student
from aft_ray.config import InputError, Recipe, TrainConfig
from aft_ray.distributed import copy_from_main, declared_row_counts, rank, world_size
from aft_ray.fitted import fitted_options
from aft_ray.metrics import Metrics
from aft_ray.regularizers import build_regularizer
from aft_ray.store import Directory, Store
from aft_ray.students import Student, build_student, student_transform
from aft_ray.task import TransferTask

EVALUATION_BATCH_SIZE = 512

Report = Callable[[dict[str, Any], TrainingState], None]
"""Takes the metrics of an evaluation and the state, which is valid during the call. Every worker calls it as often."""


@dataclass(frozen=True)
class Data:
    """The three splits in memory; test has no teacher features."""

    train: Split
    validation: Split
    test: Split


def load_data(recipe: Recipe, stores: Mapping[str, Store]) -> Data:
    """Reads and decodes the splits for the recipe's student."""
    transform = student_transform(recipe.student)
    names = recipe.teacher_names()
    return Data(
        train=load_split(stores["train"], names, transform),
        validation=load_split(stores["validation"], names, transform),
        test=load_split(stores["test"], (), transform),
    )


def fit(
    recipe: Recipe,
    data: Data,
    *,
    directory: Directory,
    report: Report,
    resume: Path | None = None,
    evaluate_test: bool = True,
) -> list[dict[str, Any]]:
    """Trains the recipe's student and returns the lines of `metrics.jsonl`.

    The main worker writes `metrics.jsonl` at every evaluation and at the end `student/`: the student as it was at the
    best validation accuracy. Only that student sees the test split, and only with `evaluate_test`.
    """
    settings = recipe.train
    device = torch.device("cuda", torch.cuda.current_device()) if settings.use_gpu else torch.device("cpu")
    train = data.train.keep_labels(settings.labels_per_class, settings.seed)
    order = BatchOrder(train.labels, settings.global_batch_size, settings.labeled_fraction, settings.seed)
    regularized = recipe.regularizer.name != "none"
    draw = order.all if regularized else order.labeled
    teachers = recipe.teacher_names() if regularized else ()

    task = build_task(recipe, train, data.validation, teachers, device, weights_follow=resume is not None)
    optimizer = build_optimizer(task, recipe)
    state = TrainingState.load(resume) if resume else TrainingState(0, [], {}, {}, {})
    if resume:
        task.load_state_dict(state.task)
        optimizer.load_state_dict(state.optimizer)
    wrapped = DistributedDataParallel(task) if world_size() > 1 else task
    evaluate_every = settings.evaluate_every or max(1, settings.steps // 10)
    interval, started, num_samples = Metrics(), time.perf_counter(), 0

    for step in range(state.step, settings.steps):
        indices = draw(step)
        batch = train.batch(worker_rows(indices, rank(), world_size()), teachers, device)
        torch.manual_seed(hash((settings.seed, step, rank())))
        set_learning_rates(optimizer, learning_rate_factor(step, settings))
        with declared_row_counts([len(worker_rows(indices, worker, world_size())) for worker in range(world_size())]):
            losses = wrapped(batch)
            optimizer.zero_grad(set_to_none=True)
            losses["loss"].backward()
        optimizer.step()
        interval.add_means(losses)
        num_samples += len(indices)

        if (step + 1) % evaluate_every and step + 1 != settings.steps:
            continue
        seconds = time.perf_counter() - started
        copy_from_main(task.buffers())  # batch norm's statistics, of which DDP lets every worker have its own
        metrics = {
            "step": step + 1,
            "epoch": (step + 1) * len(indices) / len(train),
            **interval.result(),
            **evaluate(task.student, data.validation, device).result("val_"),
            "samples_per_s": num_samples / seconds,
            "learning_rate": settings.learning_rate * learning_rate_factor(step, settings),
            **_named_diagnostics(task, teachers),
        }
        if not math.isfinite(metrics["loss"]):
            raise InputError(
                f"The loss is {metrics['loss']} between steps {step + 1 - evaluate_every} and {step + 1}."
                " Lower train.learning_rate or regularizer.beta."
            )
        better = metrics["val_accuracy"] > max((line["val_accuracy"] for line in state.history), default=-1.0)
        weights = {name: tensor.detach().cpu().clone() for name, tensor in task.state_dict().items()}
        history = [*state.history, metrics]
        state = TrainingState(step + 1, history, weights, optimizer.state_dict(), weights if better else state.best)
        if step + 1 < settings.steps:
            _write_metrics(directory, history)
            report(metrics, state)
            interval, started, num_samples = Metrics(), time.perf_counter(), 0

    last = state.history[-1]
    if evaluate_test and "test_accuracy" not in last:
        task.load_state_dict(state.best)
        last.update(evaluate(task.student, data.test, device).result("test_"))
    _write_metrics(directory, state.history)
    if rank() == 0:
        save_student(directory / "student", state.best, _student_facts(recipe, task, train, state.history))
    report(last, state)
    return state.history


def build_task(
    recipe: Recipe,
    train: Split,
    validation: Split,
    teachers: Sequence[str],
    device: torch.device,
    *,
    weights_follow: bool,
) -> TransferTask:
    """Student and regularizer on `device`, with initial weights that depend on the recipe's seed and data alone.

    weights_follow: a checkpoint will be loaded over them.
    """
    torch.manual_seed(recipe.train.seed)
    method = recipe.regularizer.name
    student = build_student(recipe.student, len(train.classes), for_inference=weights_follow)
    fitted = fitted_options(method, student, train, validation, teachers, device, weights_follow=weights_follow)
    regularizer = build_regularizer(
        method,
        student_dim=student.feature_dim,
        teacher_dims=[train.features[name].shape[1] for name in teachers],
        **recipe.regularizer.options,
        **fitted,
    )
    return TransferTask(student, regularizer, recipe.regularizer.beta).to(device)


def build_optimizer(task: TransferTask, recipe: Recipe) -> torch.optim.Optimizer:
    """Two groups: the student, and the regularizer with its own learning rate and no weight decay."""
    settings = recipe.train
    groups = [
        {"params": list(task.student.parameters()), "peak_lr": settings.learning_rate},
        {
            "params": list(task.regularizer.parameters()),
            "peak_lr": recipe.regularizer.learning_rate,
            "weight_decay": 0.0,
        },
    ]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=0.9, weight_decay=settings.weight_decay)
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=0.0, weight_decay=settings.weight_decay)


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor


def learning_rate_factor(step: int, settings: TrainConfig) -> float:
    """Linear warm-up to 1, then a cosine to 0 at the last step; a function of the step alone."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    progress = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * progress))


@torch.no_grad()
def evaluate(student: Student, split: Split, device: torch.device) -> Metrics:
    """Accuracy and cross-entropy over the whole split, each sample exactly once over all workers."""
    metrics = Metrics()
    student.eval()
    for indices in evaluation_batches(split, EVALUATION_BATCH_SIZE, rank(), world_size()):
        batch = split.batch(indices, (), device)
        metrics.add_classification(student(batch.inputs)[0], batch.labels)
    student.train()
    return metrics.reduced()


def _named_diagnostics(task: TransferTask, teachers: tuple[str, ...]) -> dict[str, float]:
    """The regularizer's diagnostics with teachers' names in place of their numbers."""
    named = {}
    for key, value in task.regularizer.diagnostics().items():
        stem, _, number = key.partition("/")
        named[f"{stem}/{teachers[int(number)]}" if number else stem] = float(value)
    return named


def _write_metrics(directory: Directory, history: list[dict[str, Any]]) -> None:
    if rank() == 0:
        directory.write("metrics.jsonl", "".join(json.dumps(line) + "\n" for line in history).encode())


def _student_facts(recipe: Recipe, task: TransferTask, train: Split, history: list[dict[str, Any]]) -> dict[str, Any]:
    best = max(history, key=lambda line: line["val_accuracy"])
    return {
        "student": recipe.student.model_dump(mode="json"),
        "feature_dim": task.student.feature_dim,
        "classes": list(train.classes),
        "regularizer": recipe.regularizer.model_dump(mode="json"),
        "teachers": [
            {"name": teacher.name, "model": teacher.model, "feature_dim": train.features[teacher.name].shape[1]}
            for teacher in recipe.teachers
        ],
        "step": best["step"],
        "val_accuracy": best["val_accuracy"],
        "test_accuracy": history[-1].get("test_accuracy"),
    }
