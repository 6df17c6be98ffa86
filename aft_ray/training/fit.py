"""The training loop, plain PyTorch: one worker of a process group, or the only one.

Everything random is a function of (seed, step): the samples of a batch, and dropout. A resumed run
therefore repeats an undisturbed one to the last digit on the same hardware; on a GPU with `train.deterministic`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from aft_ray.models.students import resolved
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.sections import TrainConfig
from aft_ray.regularizers.distributed import copy_from_main, declared_row_counts, rank, world_size
from aft_ray.store.files import Directory
from aft_ray.store.prefetch import prefetched
from aft_ray.training.best import best_line, score
from aft_ray.training.build import build_task, choose_algorithms, device_of
from aft_ray.training.checkpoint import Tensors, TrainingState, save_student
from aft_ray.training.closeness import closeness
from aft_ray.training.evaluations import write_evaluations
from aft_ray.training.gradients import Losses, backward, regularizer_backward
from aft_ray.training.inputs.batches import Samples, evaluation_batches
from aft_ray.training.inputs.data import Data
from aft_ray.training.inputs.feed import Feed, LossWatch, StepBatches
from aft_ray.training.inputs.order import row_counts
from aft_ray.training.metrics import Metrics, StepMeans
from aft_ray.training.optimise import Optimisation, learning_rate_factor
from aft_ray.training.owner import marked
from aft_ray.training.provenance import how_decoded, run_inputs
from aft_ray.training.runs import RunDirectory
from aft_ray.training.task import TransferTask
from aft_ray.training.trackers import open_trackers

EVALUATION_BATCH_SIZE = 512

Report = Callable[[dict[str, Any], TrainingState], bool | None]
"""Takes the metrics of an evaluation and a snapshot of the state. Every worker calls it as often; a main worker's True ends
the training there, without a student."""


def fit(
    recipe: Recipe,
    data: Data,
    *,
    directory: Directory,
    report: Report,
    resume: Directory | None = None,
    adopt: bool = False,
    evaluate_test: bool = True,
) -> list[dict[str, Any]]:
    """Trains the recipe's student and returns the lines of `metrics.jsonl`; all of them, unless `report` ends it early.

    The main worker writes `metrics.jsonl` and the trackers' files at every evaluation and at the end `student/`: the
    student as it was at the best evaluation. Only that student sees the test split, and only with `evaluate_test`.
    adopt: `resume` may be of a run with other settings, whose weights this one takes over.
    Raises InputError if the loss is not finite, or `resume` is a checkpoint of another run.
    """
    settings, device, owner = recipe.train, device_of(recipe.train), RunDirectory(directory).run_id
    choose_algorithms(settings)
    inputs = run_inputs(recipe, data.origin)
    state = TrainingState(0, [], inputs, {}, {}, {})
    if resume:
        state = replace(TrainingState.load(resume, None if adopt else inputs), inputs=inputs)
    data = data.of(recipe)
    task = build_task(recipe, data, device, weights_follow=resume is not None)
    feed = Feed(recipe, data.train, task.teachers, device, rank(), world_size())
    optimisation = Optimisation(task, recipe, device)
    if resume:
        task.load_state_dict(state.task)
        optimisation.load_state_dict(state.optimisation)
    trainee = DistributedDataParallel(task) if world_size() > 1 else task
    watch = LossWatch(feed, directory)

    with open_trackers(recipe, directory, state.history) as trackers, closing(feed.steps(state.step)) as batches:
        while not is_over(state.history, settings):
            interval = Interval()
            for step in range(state.step, next_evaluation(state.step, settings)):
                own = interval.next(batches)
                losses = train_step(trainee, optimisation, own, feed.num_rows, step, settings)
                interval.losses.add(losses)
                watch.see(step, losses["loss"], good_step=state.step)
            copy_from_main(task.buffers())  # DDP lets every worker keep its own statistics of batch norm
            means = interval.losses.result()  # waits for the GPU
            seconds = interval.seconds
            with optimisation.evaluated_weights():
                scores = validate(task, data.validation, device)
                kept = weights_of(task)
            metrics = {
                "step": step + 1,
                "epoch": (step + 1) * feed.num_rows / len(data.train),
                **means,
                **scores,
                "samples_per_s": (step + 1 - state.step) * feed.num_rows / seconds,
                "input_wait": interval.waited / seconds,
                "learning_rate": settings.learning_rate * learning_rate_factor(step, settings),
                **_named({**task.regularizer.diagnostics(), **task.facts}, recipe.teacher_names()),
            }
            if metrics["val_loss"] is not None:
                watch.see(step, torch.tensor(metrics["val_loss"], device=device), good_step=state.step)
            watch.check(good_step=state.step)  # a step whose own loss was fine may have spoilt the weights
            state = snapshot(state, metrics, task, optimisation, kept)
            if not is_over(state.history, settings):
                trackers.log(metrics)
                _write_metrics(directory, state.history, owner)
                if _agreed(report(metrics, state), device):
                    return state.history

        last = dict(state.history[-1])
        task.load_state_dict(state.best)
        if evaluate_test and "test_accuracy" not in last:
            last |= {"test_accuracy": None, **evaluate(task, data.test, device).result("test_")}
        trackers.log(last)
    state = replace(state, history=[*state.history[:-1], last])
    _write_metrics(directory, state.history, owner)
    if rank() == 0:
        near = {} if data.validation is None else closeness(task, data.validation, device)
        facts = _student_facts(recipe, task, data, state.history, near)
        save_student(directory / "student", state.best, marked(facts, owner))
    report(last, state)
    return state.history


def train_step(
    trainee: TransferTask | DistributedDataParallel,
    optimisation: Optimisation,
    batches: StepBatches,
    num_rows: int,
    step: int,
    settings: TrainConfig,
) -> Losses:
    """The regularizer's own steps, then one step of the student. num_rows: of the global batch.

    Returns the losses of the global batch, and `grad_norm`: the norm of the student's gradient before clipping.
    """
    task = trainee.module if isinstance(trainee, DistributedDataParallel) else trainee
    optimisation.start(step)
    with declared_row_counts(row_counts(num_rows, world_size())):
        for number, batch in enumerate(batches.regularizer):
            regularizer_backward(task, batch, seed=hash((settings.seed, step, rank(), number)))
            optimisation.regularizer_step()
        seed, parts = hash((settings.seed, step, rank())), settings.accumulation_steps
        losses = backward(trainee, batches.student, seed=seed, parts=parts, scale=optimisation.scaler.scale)
    return losses | {"grad_norm": optimisation.step()}


def next_evaluation(step: int, settings: TrainConfig) -> int:
    """The number of finished steps at which the next evaluation is due."""
    every = settings.evaluate_every or max(1, settings.steps // 10)
    return min(settings.steps, (step // every + 1) * every)


def is_over(history: Sequence[dict[str, Any]], settings: TrainConfig) -> bool:
    """Whether the last step is done, or too many evaluations were no better than the best before them."""
    if not history:
        return False
    patience = settings.early_stopping
    waited = len(history) - 1 - history.index(best_line(history))
    return history[-1]["step"] == settings.steps or (patience is not None and waited >= patience)


def _agreed(answer: bool | None, device: torch.device) -> bool:
    """The main worker's answer, on all."""
    said = torch.tensor(int(bool(answer)), device=device)
    copy_from_main([said])
    return bool(said)


def snapshot(
    state: TrainingState, metrics: dict[str, Any], task: TransferTask, optimisation: Optimisation, kept: Tensors
) -> TrainingState:
    """The state after an evaluation. Only the main worker has the parts that checkpoints alone need. kept: the weights that
    were evaluated."""
    better = not state.history or score(metrics) > score(best_line(state.history))
    return TrainingState(
        step=metrics["step"],
        history=[*state.history, metrics],
        inputs=state.inputs,
        task=weights_of(task) if optimisation.averages else kept,
        optimisation=optimisation.state_dict() if rank() == 0 else {},
        best=kept if better else state.best,
    )


def weights_of(task: TransferTask) -> Tensors:
    """A copy on the CPU."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in task.state_dict().items()}


def validate(task: TransferTask, split: Samples | None, device: torch.device) -> dict[str, float | None]:
    """`val_accuracy` and `val_loss`; None without a validation split, and the accuracy of a regression."""
    found = evaluate(task, split, device).result("val_") if split is not None else {}
    return {"val_accuracy": None, "val_loss": None, **found}


@torch.no_grad()
def evaluate(task: TransferTask, split: Samples, device: torch.device) -> Metrics:
    """`accuracy`, unless it is a regression, and `loss` over the split, each sample exactly once over all workers."""
    metrics = Metrics()
    no_labels = torch.from_numpy(split.labels[:0])
    metrics.add_task(split.task, torch.zeros(0, len(split.classes)), no_labels)  # a worker may have no share
    task.student.eval()
    shares = list(evaluation_batches(split, EVALUATION_BATCH_SIZE, rank(), world_size()))
    for batch in prefetched(lambda indices: split.rows(indices, ()), shares, threads=split.reader_threads):
        own = batch.to(device)
        metrics.add_task(split.task, task.run_student(own.inputs)[0], own.labels)
    task.student.train()
    return metrics.reduced()


class Interval:
    """The steps since the last evaluation: their losses, and where the time went."""

    def __init__(self) -> None:
        self.losses = StepMeans()
        self.started, self.waited = time.perf_counter(), 0.0

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def next(self, batches: Iterator[StepBatches]) -> StepBatches:
        """Yields the batches and counts the time spent waiting for them."""
        asked = time.perf_counter()
        found = next(batches)
        self.waited += time.perf_counter() - asked
        return found


def _named(numbers: Mapping[str, torch.Tensor | float], teachers: tuple[str, ...]) -> dict[str, float]:
    """A regularizer's numbers with teachers' names in place of `/k`."""
    named = {}
    for key, value in numbers.items():
        stem, _, number = key.partition("/")
        named[f"{stem}/{teachers[int(number)]}" if number else stem] = float(value)
    return named


def _write_metrics(directory: Directory, history: list[dict[str, Any]], owner: str | None) -> None:
    if rank() == 0:
        write_evaluations(directory, history, owner)


def _student_facts(
    recipe: Recipe, task: TransferTask, data: Data, history: list[dict[str, Any]], near: Mapping[str, float | None]
) -> dict[str, Any]:
    best = best_line(history)
    return {
        "student": resolved(recipe.student).model_dump(mode="json"),
        "feature_dim": task.student.feature_dim,
        "task": data.train.task,
        "classes": list(data.train.classes),
        "regularizer": recipe.regularizer.model_dump(mode="json"),
        "fitted": _named(task.facts, recipe.teacher_names()),
        "closeness": near,
        "teachers": [
            {"name": teacher.name, "model": teacher.model, "feature_dim": data.train.feature_dims[teacher.name]}
            for teacher in recipe.teachers
            if teacher.name in data.train.feature_dims
        ],
        "dataset": recipe.dataset.model_dump(mode="json") | how_decoded(data.origin),
        "num_evaluations": len(history),
        "step": best["step"],
        "val_accuracy": best["val_accuracy"],
        "val_loss": best["val_loss"],
        "test_accuracy": history[-1].get("test_accuracy"),
        "test_loss": history[-1].get("test_loss"),
    }
