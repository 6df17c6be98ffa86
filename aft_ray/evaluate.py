"""evaluate: a finished run's student on one split, class by class."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch

from aft_ray.batches import evaluation_batches, load_split
from aft_ray.config import InputError, Recipe
from aft_ray.export import load_student
from aft_ray.schema import SPLITS, UNLABELED
from aft_ray.store import Workspace, open_store

BATCH_SIZE = 512


def evaluate(recipe: Recipe, split: str = "test") -> dict[str, Any]:
    """Accuracy of `runs/<run>` over every labelled sample of `split`: in all, per class, and the confusion matrix.

    Also written to the run's `evaluation-<split>.json`. `confusion[i][j]` counts samples of class i taken for class j.
    Raises InputError if the split is unknown, or the run has no student.
    """
    if split not in SPLITS:
        raise InputError(f"Unknown split '{split}'. Known: {', '.join(SPLITS)}.")
    workspace = Workspace.at(recipe.workspace)
    run = workspace.run(recipe.run)
    student = load_student(run)
    data = load_split(open_store(workspace, split), (), student.transform)
    if tuple(student.classes) != data.classes:
        raise InputError(f"{run} knows {len(student.classes)} classes, the samples have {len(data.classes)} others.")
    confusion = np.zeros((len(data.classes), len(data.classes)), int)
    with torch.inference_mode():
        for indices in evaluation_batches(data, BATCH_SIZE, rank=0, world_size=1):
            predicted = student(torch.from_numpy(data.inputs[indices])).argmax(1).numpy()
            labeled = data.labels[indices] != UNLABELED
            np.add.at(confusion, (data.labels[indices][labeled], predicted[labeled]), 1)
    result = {
        "split": split,
        "num_samples": int(confusion.sum()),
        "accuracy": float(confusion.trace() / max(1, confusion.sum())),
        "accuracy_per_class": {
            name: float(confusion[k, k] / max(1, confusion[k].sum())) for k, name in enumerate(data.classes)
        },
        "confusion": confusion.tolist(),
    }
    run.write(f"evaluation-{split}.json", json.dumps(result, indent=1).encode())
    return result
