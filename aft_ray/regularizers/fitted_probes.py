"""The probes of a run's teachers: fitted to its data before training, then constants of the regularizer that uses them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from aft_ray.regularizers.fitting import FittingData
from aft_ray.regularizers.logme import Float64
from aft_ray.regularizers.probe import Probe, fit_probe


class FittedProbes(nn.Module):
    """Teacher features (B, T) to the predictions of each probe, without the prior; buffers, so that checkpoints hold them."""

    weights: Tensor
    offsets: Tensor
    prior: Tensor

    def __init__(self, probes: Sequence[Probe], dims: Sequence[int]) -> None:
        """``dims`` are the columns of teacher features that each of ``probes`` is about, side by side."""
        super().__init__()
        found = [probe.weights.shape for probe in probes]
        num_outputs = found[0][1] if found else 0
        if found != (expected := [(dim, num_outputs) for dim in dims]):
            raise ValueError(f"probes must have weights of shapes {expected}, (width, outputs), got {found}.")
        self.dims, self.num_outputs = tuple(dims), num_outputs
        self.r2 = tuple(probe.r2 for probe in probes)
        self.least_r2 = tuple(probe.least_r2 for probe in probes)
        self.useful_r2 = tuple(probe.r2 if probe.is_useful else 0.0 for probe in probes)
        weights = [probe.weights / np.reshape(probe.scale, (-1, 1)) for probe in probes]
        offsets = [probe.mean @ own + probe.offset for probe, own in zip(probes, weights, strict=True)]
        for name, array in (("weights", np.concatenate(weights)), ("offsets", offsets), ("prior", probes[0].prior)):
            self.register_buffer(name, torch.as_tensor(np.array(array), dtype=torch.get_default_dtype()))

    def forward(self, teacher_BT: Tensor) -> list[Tensor]:
        parts = zip(teacher_BT.split(self.dims, dim=1), self.weights.split(self.dims), self.offsets, strict=True)
        return [part_BT @ weights_TC.to(part_BT) - offset_C.to(part_BT) for part_BT, weights_TC, offset_C in parts]

    @property
    def is_off(self) -> bool:
        """Whether no probe is useful."""
        return not any(self.useful_r2)

    def facts(self, num_teachers: int) -> dict[str, float]:
        """R2 of every teacher and the least R2 to believe; two towers share one probe."""
        blocks = range(num_teachers) if len(self.dims) == num_teachers else [0] * num_teachers
        numbers = {f"r2/{k}": self.r2[block] for k, block in enumerate(blocks)}
        return numbers | {f"least_r2/{k}": self.least_r2[block] for k, block in enumerate(blocks)}


def fit_probes(data: FittingData) -> list[Probe]:
    """One probe for each teacher; where towers are multiplied, one of all teachers side by side."""
    every = range(len(data.teacher_dims))
    return [_fit(data, block) for block in ([every] if data.towers else [[k] for k in every])]


def _fit(data: FittingData, teachers: Sequence[int]) -> Probe:
    def batches() -> Iterator[tuple[ArrayLike, ArrayLike]]:
        for features, labels in data.teacher_rows(teachers):
            yield features, as_targets(labels, data.num_outputs)

    def make() -> dict[str, Tensor]:
        probe = fit_probe(batches, [data.teacher_dims[k] for k in teachers], data.num_outputs)
        return {name: torch.as_tensor(np.asarray(value)) for name, value in asdict(probe).items()}

    tensors = data.kept("probes", teachers, make, with_labels=True)
    fields: dict[str, Any] = {
        name: tensor.numpy() if tensor.dim() else tensor.item() for name, tensor in tensors.items()
    }
    return Probe(**fields)


def as_targets(labels: np.ndarray, num_outputs: int) -> Float64:
    """Targets (n, C), NaN in rows without a label: classes as one-hot rows, several labels and numbers as they are."""
    if labels.ndim == 2:
        return labels.astype(np.float64)
    return np.where(labels[:, None] < 0, np.nan, np.eye(num_outputs)[labels])


def is_useful(facts: Mapping[str, Any], teacher: str) -> bool:
    """Whether a run used a teacher, from a line of its metrics."""
    return facts.get(f"r2/{teacher}", 0.0) > facts.get(f"least_r2/{teacher}", 0.0)


def probes_in_words(facts: Mapping[str, Any]) -> list[str]:
    """A sentence for each teacher on its probe, from a line of the run's metrics; empty for methods without probes."""
    names = [key.removeprefix("r2/") for key in facts if key.startswith("r2/")]
    sentences = []
    for name in names:
        r2, chance = (f"{100 * facts[f'{key}/{name}']:.1f} %" for key in ("r2", "least_r2"))
        verdict = "." if is_useful(facts, name) else f", which may be chance up to {chance}; left out."
        sentences.append(f"{name}: its probe explains {r2} of the labels{verdict}")
    if names and not any(is_useful(facts, name) for name in names):
        sentences.append("No teacher is left: this was standard transfer, without a regularizer.")
    return sentences
