"""What the tests of training share: tiny made splits, in memory and on disk, and a recipe for them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from aft_ray.models.teachers import describe_teacher
from aft_ray.recipe.config import Recipe, override
from aft_ray.store.workspace import Workspace
from aft_ray.training.checkpoint import TrainingState
from aft_ray.training.fit import fit
from aft_ray.training.inputs.batches import Split
from aft_ray.training.inputs.data import Data
from jobs.benchmarks.made_store import made_store

TEACHERS = ("one", "two")
WIDTHS = (5, 3)
TIMES = ("samples_per_s", "input_wait", "run_id", "digest")
"""Metrics that are not the same twice."""


def made_split(num_samples: int, seed: int, task: str = "classification") -> Split:
    """Pictures whose brightness tells the label, and features that say so too.

    multilabel: whether the top and whether the bottom is bright. regression: how bright both are, from 0 to 1.
    """
    random = np.random.default_rng(seed)
    classes = random.integers(0, 3, num_samples)
    signal = classes[:, None].astype(float)
    inputs = (random.integers(0, 150, (num_samples, 28, 28, 3)) + 40 * classes[:, None, None, None]).astype(np.uint8)
    labels: np.ndarray = classes
    names: tuple[str, ...] = ("a", "b", "c")
    if task != "classification":
        brightness = random.random((num_samples, 2))
        halves = np.repeat(brightness * 200, 14, axis=1)[:, :, None, None] + random.integers(0, 50, inputs.shape)
        halves[:, :, :7] = 200  # what to compare them with: group norm forgets how bright a whole picture is
        inputs = halves.astype(np.uint8)
        signal = brightness.mean(1, keepdims=True) * 3
        labels = (brightness if task == "regression" else brightness > 0.5).astype(np.float32)
        names = ("top", "bottom")
    features = {
        name: (random.normal(size=(num_samples, width)) + signal).astype(np.float16)
        for name, width in zip(TEACHERS, WIDTHS, strict=True)
    }
    ids = np.array([f"s{index}" for index in range(num_samples)])
    return Split(sample_ids=ids, labels=labels, inputs=inputs, features=features, classes=names, task=task)


TRAIN, VALIDATION, TEST = made_split(60, 0), made_split(31, 1), made_split(17, 2)
DATA = Data(TRAIN, VALIDATION, TEST)


def recipe(method: str = "aft", **train: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "workspace": str(Path(tempfile.gettempdir(), "aft-ray-unused")),
            "dataset": {"name": "mnist5k"},
            "teachers": [{"name": name, "model": f"timm:{name}"} for name in TEACHERS],
            "student": {"model": "tiny:cnn"},
            "regularizer": {"name": method, "beta": 2.0, "learning_rate": 0.02},
            "train": {"steps": 12, "global_batch_size": 20, "evaluate_every": 1, "learning_rate": 0.003, **train},
        }
    )


def run(given: Recipe, place: Path, data: Data = DATA, **options: Any) -> list[dict[str, Any]]:
    return fit(given, data, directory=Workspace.at(place), report=lambda metrics, state: None, **options)


class Killed(Exception):
    """What `killed_after` raises."""


def killed_after(step: int, given: Recipe, place: Path, data: Data = DATA) -> Workspace:
    """A run that dies when it has saved its checkpoint of `step`; returns that."""
    kept = Workspace.at(place / f"kept-{step}")

    def keep_then_die(metrics: dict[str, Any], state: TrainingState) -> None:
        if state.step == step:
            state.save(kept)
            raise Killed

    try:
        fit(given, data, directory=Workspace.at(place), report=keep_then_die)
    except Killed:
        return kept
    raise AssertionError(f"nothing was reported at step {step}")


def timeless(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key not in TIMES} for line in history]


def made_workspace(place: Path, changes: Mapping[str, Any] | None = None, data: Data = DATA) -> Recipe:
    """A recipe with its samples and features on disk, under the names of teachers that could have made them."""
    teachers = [
        {"name": name, "model": f"timm:test_{model}", "weights": str(saved_weights(model, place))}
        for name, model in zip(TEACHERS, ("efficientnet", "resnet"), strict=True)
    ]
    few = override(recipe(), {"search": {"max_concurrent_trials": 2}})  # each process of a trial imports torch anew
    made = override(few, {"workspace": str(place), "teachers": teachers, **(changes or {})})
    fingerprints = {teacher.name: describe_teacher(teacher).fingerprint for teacher in made.teachers}
    for split, samples in (("train", data.train), ("validation", data.validation), ("test", data.test)):
        assert isinstance(samples, Split)
        made_store(place, split, samples, shard_size=20, fingerprints=fingerprints)
    return made


def saved_weights(model: str, place: Path) -> Path:
    """Random weights of a small timm model, in a file."""
    import timm  # with it torch's compiler, which a training does without

    path = place / f"{model}.safetensors"
    place.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    save_file(timm.create_model(f"test_{model}").state_dict(), path)
    return path
