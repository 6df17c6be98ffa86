"""The device stage of extraction: one teacher turns its inputs of a shard into a shard of features.

torch is imported where a teacher runs: the process that conducts the pipeline loads this module and does not need torch.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from aft_ray.cluster.attempts import Watch
from aft_ray.extraction.reading import CROPS, by_row
from aft_ray.models.teachers import Teacher, build_teacher
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.own_class import own_faults
from aft_ray.recipe.sections import TeacherConfig
from aft_ray.store.parquet import features_table
from aft_ray.store.workspace import Workspace

if TYPE_CHECKING:
    import torch

RESULT = "result/"
"""Prefix of a row's keys with a teacher's report on a shard."""
TOLD_EVERY_S = 1.0
"""Least seconds between two reports on the shard at work."""


class EmbedShard:
    """One teacher on one device: removes its crops from the row, writes its features shard, passes the row on.

    Two threads may call it, so that a GPU computes one shard while another is unpacked or written; it computes one at a
    time.
    """

    def __init__(
        self,
        config: TeacherConfig,
        workspace: Workspace,
        fingerprints: Mapping[str, dict[str, dict[str, Any]]],
        watch: Watch,
    ) -> None:
        """fingerprints: of the features, by directory, one for each view, and split."""
        from aft_ray.models.teachers.device import device_of

        self.config, self.workspace, self.fingerprints, self.watch = config, workspace, fingerprints, watch
        self.batch_size, self.actor = config.batch_size, f"{platform.node()} {os.getpid()}"
        self.computing = threading.Lock()
        self.teacher = build_teacher(config, device_of(config))

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        for view in self.fingerprints:
            inputs = row.pop(CROPS + view)
            directory = self.workspace.features(view, row["split"])
            # A task that Ray repeats after a crash may find its shard written.
            is_there = not len(inputs) or directory.has(directory.shard_name(row["shard"]))
            with own_faults(self.config.model, f"Teacher '{self.config.name}'"):
                result = {} if is_there else self._embed(row, inputs, view)
            row[RESULT + view] = result
        if not any(column.startswith(CROPS) for column in row):
            del row["sample_id"], row["picture"]  # this was the last teacher
        return row

    def _embed(self, row: dict[str, Any], inputs: Any, view: str) -> dict[str, Any]:
        directory, sample_ids = self.workspace.features(view, row["split"]), row["sample_id"]
        input_of = row["picture"] if len(inputs) < len(sample_ids) else np.arange(len(sample_ids))
        first_rows = np.unique(input_of, return_index=True)[1]

        def work_alone(index: int | None) -> None:
            embed(self.teacher, without(inputs[:1], [0]) if index is None else inputs[index : index + 1], 1)

        bad = {int(input_of[index]): sample for index, sample in row["quarantined"].items()}
        shard = f"shard {row['shard']} of {row['split']}" + (f", {view}" if view != self.config.name else "")
        with self.computing:
            culprits = self.watch.begin(shard, [sample_ids[index] for index in first_rows], bad, work_alone)
            started = time.perf_counter()
            told = self._teller(shard, len(inputs))
            features, self.batch_size = embed(self.teacher, without(inputs, culprits), self.batch_size, told)
            seconds, batch_size = time.perf_counter() - started, self.batch_size
        quarantined = by_row(bad, input_of, sample_ids)
        table = features_table(sample_ids, features[input_of], self.config.features_dtype, quarantined)
        entry = directory.write_shard(
            row["shard"], table, self.fingerprints[view][row["split"]], quarantined=list(quarantined.values())
        )
        self.watch.done(shard)
        return {
            "entry": entry,
            "seconds": seconds,
            "write_seconds": time.perf_counter() - started - seconds,
            "batch_size": batch_size,
            "actor": self.actor,
        }

    def _teller(self, shard: str, num_inputs: int) -> Callable[[int], None]:
        """A function that reports how many of the shard's inputs are done, the first time and then every TOLD_EVERY_S."""
        told_at = -TOLD_EVERY_S

        def tell(done: int) -> None:
            nonlocal told_at
            if time.monotonic() - told_at >= TOLD_EVERY_S:
                told_at = time.monotonic()
                self.watch.part(shard, done / num_inputs)

        return tell


def _checked(features: Any, teacher: Teacher, num_inputs: int) -> torch.Tensor:
    """The features of a batch. Raises InputError if they are not a row of `feature_dim` numbers for each input."""
    import torch

    found = torch.as_tensor(features) if isinstance(features, (np.ndarray, torch.Tensor)) else None
    wanted = (num_inputs, teacher.feature_dim)
    if found is None or tuple(found.shape) != wanted or not found.is_floating_point():
        shape = type(features).__name__ if found is None else f"{tuple(found.shape)} {found.dtype}"
        raise InputError(
            f"Class {type(teacher).__module__}:{type(teacher).__qualname__} must give floats of shape (inputs, feature_dim) ="
            f" {wanted}, got {shape}."
        )
    return found


def without(inputs: np.ndarray | Sequence[str], rows: Sequence[int]) -> np.ndarray | Sequence[str]:
    """The inputs with zeros, or an empty text, in these rows."""
    if not rows:
        return inputs
    if isinstance(inputs[0], str):
        return ["" if index in rows else text for index, text in enumerate(inputs)]
    emptied = np.array(inputs)
    emptied[list(rows)] = 0
    return emptied


def embed(
    teacher: Teacher,
    inputs: np.ndarray | Sequence[str],
    batch_size: int,
    told: Callable[[int], None] = lambda done: None,
) -> tuple[np.ndarray, int]:
    """(n, feature_dim) float32 features of n inputs, and the batch size that fitted in the device's memory.

    told: is called with the number of inputs done, after every batch.
    Texts are sorted by length, so that a batch has little padding. If memory runs out, the batch is halved and retried.
    """
    import torch

    order = np.argsort([len(text) for text in inputs], kind="stable") if isinstance(inputs[0], str) else None
    blocks, start = [], 0
    while start < len(inputs):
        rows = slice(start, start + batch_size)
        try:
            batch = inputs[rows] if order is None else [inputs[index] for index in order[rows]]
            blocks.append(_checked(teacher(batch), teacher, len(batch)))
            start += batch_size
            told(min(start, len(inputs)))
        except torch.OutOfMemoryError:
            if batch_size == 1:
                raise
            torch.cuda.empty_cache()
            batch_size //= 2
    features = torch.cat(blocks).float().cpu().numpy()
    if order is not None:
        in_order = np.empty_like(features)
        in_order[order] = features
        features = in_order
    return features, batch_size
