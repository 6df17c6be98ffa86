"""How near a trained student came to its teachers, on validation rows that it never saw.

Three kernels of the same rows are compared: the student's, its target (the teachers' kernel as the method looks at it) and the
labels'. Heads are ridge probes, each row predicted by a head that was fitted without it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from aft_ray.regularizers.alignment import kernel_alignment
from aft_ray.regularizers.fitted_probes import as_targets
from aft_ray.regularizers.kernels import cosine_kernel, product_kernel
from aft_ray.regularizers.probe import fit_probe
from aft_ray.store.schema import UNLABELED
from aft_ray.training.inputs.batches import Samples
from aft_ray.training.task import TransferTask

MOST_ROWS = 500
"""They go through the student at once, like a batch of an evaluation."""
FEWEST_ROWS = 20


@torch.no_grad()
def closeness(task: TransferTask, split: Samples, device: torch.device) -> dict[str, float | None]:
    """Numbers on the labelled rows of a split, evenly chosen where there are more than `MOST_ROWS`. Empty for fewer than
    `FEWEST_ROWS`, or for infinite features.

    student_head, teachers_head: leave-one-out R2 of a ridge head on the features of each, the teachers side by side.
    student_labels, target_labels: debiased alignment (CKA) of the student's kernel, and of its target, with the labels'.
    student_target, kernel_distance: alignment and root-mean-square difference of the student's kernel and its target; where all
    teachers are of one tower, of this tower's kernel. The numbers of teachers and target are missing where the method has no
    teachers, and None where nothing can be compared.
    """
    rows = np.flatnonzero(_is_labelled(split.labels))
    if len(rows) < FEWEST_ROWS:
        return {}
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), MOST_ROWS)).astype(int)]
    targets_nC = as_targets(split.labels[rows], len(split.classes))
    student, teachers_nT = _features(task, split, rows, device)
    if not all(part.isfinite().all() for part in (*student, teachers_nT)):
        return {}  # the student is as it is: no reason to lose the run
    student_nn = _kernel(student)
    labels_nn = _label_kernel(targets_nC)
    found = {
        "student_head": _head(student, targets_nC),
        "student_labels": kernel_alignment(_array(student_nn), labels_nn),
    }
    if task.teachers:
        target_nn = task.regularizer.target_kernel(teachers_nT)
        if task.towers.only is not None:
            student_nn = _kernel((student[task.towers.only],))
        found |= {
            "teachers_head": _head(teachers_nT.split(task.regularizer.teacher_dims, dim=1), targets_nC),
            "target_labels": kernel_alignment(_array(target_nn), labels_nn),
            "student_target": kernel_alignment(_array(student_nn), _array(target_nn)),
            "kernel_distance": float((student_nn - target_nn).square().mean().sqrt()),
        }
    return {"rows": len(rows), **{key: value if math.isfinite(value) else None for key, value in found.items()}}


def _is_labelled(labels: np.ndarray) -> np.ndarray:
    """(N,) whether every target is known. Targets of all rows would take gigabytes where there are thousands of classes."""
    return labels != UNLABELED if labels.ndim == 1 else ~np.isnan(labels).any(1)


def _features(
    task: TransferTask, split: Samples, rows: np.ndarray, device: torch.device
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """The student's features (n, S) per modality and the teachers' (n, T), in float32."""
    task.student.eval()
    batch = split.batch(rows, task.teachers, device)
    features = task.run_student(batch.inputs)[1]
    task.student.train()
    student = features if isinstance(features, tuple) else (features,)
    return tuple(part.float() for part in student), batch.teacher_features


def _kernel(student: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return product_kernel(student) if len(student) > 1 else cosine_kernel(student[0])


def _head(parts: Sequence[torch.Tensor], targets_nC: np.ndarray) -> float:
    """R2 of a head on features side by side, every part with the same say."""
    features = np.concatenate([_array(part) for part in parts], 1)
    return fit_probe(lambda: [(features, targets_nC)], [part.shape[1] for part in parts], targets_nC.shape[1]).r2


def _label_kernel(targets_nC: np.ndarray) -> np.ndarray:
    """Products of centred columns. Of classes this is, for the alignment, the kernel that is 1 for rows of one class."""
    centred_nC = targets_nC - targets_nC.mean(0)
    return centred_nC @ centred_nC.T


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.double().cpu().numpy()
