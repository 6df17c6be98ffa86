"""The student on one part of the samples, in any process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from aft_ray.cluster.attempts import Watch
from aft_ray.export.prediction_files import Staged
from aft_ray.export.predictions import PredictionTable
from aft_ray.export.student import Classifier

BATCH_SIZE = 64


class PredictPart:
    """The student on one device: predicts the samples of a part that could be read, and writes the part's file."""

    def __init__(
        self, student: Classifier, device: torch.device, new: Staged, all_probabilities: bool, watch: Watch
    ) -> None:
        self.student, self.device = student.to(device), device
        self.new, self.watch = new, watch
        self.form = PredictionTable(student.task, student.classes, all_probabilities, with_errors=True)

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        errors = dict(part["errors"])
        inputs = [np.asarray(part[f"inputs{k}"]) for k in range(len(self.student.transforms))]
        place = {number: k for k, number in enumerate(n for n in range(len(part["id"])) if n not in errors)}

        def alone(number: int | None) -> None:
            self._logits([np.zeros_like(a[:1]) if number is None else a[[place[number]]] for a in inputs])

        name, ids = f"part {part['shard']}", part["id"]
        quarantined = {number: {"sample_id": ids[number], "reason": reason} for number, reason in errors.items()}
        for number in self.watch.begin(name, ids, quarantined, alone):
            errors[number] = quarantined[number]["reason"]
        good = [number for number in place if number not in errors]
        logits = self._logits([array[[place[number] for number in good]] for array in inputs])
        table = self.form.rows(ids, logits, errors=errors)
        sha256 = self.new.write(part["shard"], table)
        self.watch.done(name)
        result = {"num_samples": len(table), "num_errors": len(errors), "counts": _counts(table), "sha256": sha256}
        return {"shard": part["shard"], "result": result}

    @torch.inference_mode()
    def _logits(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """(n, C) float32."""
        blocks = [np.empty((0, len(self.student.classes)), np.float32)]
        for start in range(0, len(inputs[0]), BATCH_SIZE):
            tensors = tuple(torch.tensor(array[start : start + BATCH_SIZE], device=self.device) for array in inputs)
            blocks.append(self.student(tensors if len(tensors) > 1 else tensors[0]).float().cpu().numpy())
        return np.concatenate(blocks)


def _counts(table: pa.Table) -> dict[str, int]:
    """How often each class was predicted; empty for numbers."""
    predicted = table["predicted"].combine_chunks()
    if pa.types.is_list(predicted.type):
        predicted = predicted.flatten()
    return dict(Counter(predicted.drop_null().to_pylist())) if pa.types.is_string(predicted.type) else {}
