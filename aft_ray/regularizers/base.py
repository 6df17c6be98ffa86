"""What every regularizer shares: checked inputs, precision, and the choice of the batch it is about."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from aft_ray.regularizers.distributed import Rows, global_rows
from aft_ray.regularizers.kernels import at_least_float32

Scope: TypeAlias = Literal["global", "worker"]
Combine: TypeAlias = Literal["concat", "product"]
StudentDim: TypeAlias = int | tuple[int, ...]
StudentFeatures: TypeAlias = Tensor | tuple[Tensor, ...]


class Regularizer(nn.Module, ABC):
    """A loss that draws student features towards teacher features: a scalar >= 0, not yet weighted by beta.

    Under a process group the value and the gradients (after DDP's averaging) are those of one process on the concatenated
    batch; with ``scope="worker"`` they are those of this worker's rows alone. Everything runs in float32 or better, also
    under autocast. Teacher features are constants. Call it inside the forward that DDP wraps: its parameters need that.
    """

    needs_teachers = True
    """Whether there is anything to compute without teacher features."""

    def __init__(
        self,
        student_dim: StudentDim,
        teacher_dims: Sequence[int],
        *,
        combine: Combine = "concat",
        scope: Scope = "global",
    ) -> None:
        """``student_dim`` is S, or one width per modality with ``combine="product"``; ``teacher_dims`` sum to T."""
        super().__init__()
        check_choice("combine", combine, Combine)
        check_choice("scope", scope, Scope)
        self.student_dims = _checked_dims("student_dim", [student_dim] if isinstance(student_dim, int) else student_dim)
        self.teacher_dims = _checked_dims("teacher_dims", teacher_dims, at_least=1 if self.needs_teachers else 0)
        self.teacher_dim = sum(self.teacher_dims)
        self.combine: Combine = combine
        self.scope: Scope = scope
        self._saw_finite_features = False
        if combine == "product" and min(len(self.student_dims), len(self.teacher_dims)) < 2:
            raise ValueError(
                f"combine='product' needs a student_dim and a teacher dim per modality, got student_dim={student_dim} and "
                f"teacher_dims={list(teacher_dims)}."
            )
        if combine == "concat" and not isinstance(student_dim, int):
            raise ValueError(f"student_dim must be an int unless combine='product', got {student_dim}.")

    def forward(self, student_features: StudentFeatures, teacher_features: Tensor) -> Tensor:
        """The unweighted regularizer of a batch, a scalar.

        ``student_features`` is (b, S), or with ``combine="product"`` a tuple of (b, S_m); ``teacher_features`` is (b, T),
        all teachers side by side; both floating. Shapes are checked on every call, finite values on the first eager one.
        """
        student = (student_features,) if isinstance(student_features, Tensor) else tuple(student_features)
        self._check(student, teacher_features)
        num_rows = teacher_features.shape[0]
        rows = Rows((num_rows,), 0) if self.scope == "worker" else global_rows(num_rows, teacher_features.device)
        if rows.total == 0:
            raise ValueError("student_features and teacher_features must have at least one row, got an empty batch.")
        student, teacher_features = tuple(map(at_least_float32, student)), at_least_float32(teacher_features.detach())
        if not torch.is_autocast_enabled(teacher_features.device.type):
            return self._value(student, teacher_features, rows)
        with torch.autocast(teacher_features.device.type, enabled=False):  # which asks the driver for GPUs each time
            return self._value(student, teacher_features, rows)

    @abstractmethod
    def _value(self, student: tuple[Tensor, ...], teacher_bT: Tensor, rows: Rows) -> Tensor:
        """The regularizer of the batch laid out by ``rows``; ``student`` holds a (b, S_m) per modality, most have one."""

    def diagnostics(self) -> dict[str, Tensor]:
        """Detached scalars on the device for logging, of the last forward; reading them does not wait for it."""
        return {}

    def _check(self, student: tuple[Tensor, ...], teacher_features: Tensor) -> None:
        _check_shape("teacher_features", teacher_features, self.teacher_dim)
        if len(student) != len(self.student_dims):
            raise ValueError(
                f"student_features must be {len(self.student_dims)} tensor(s), one per modality, got {len(student)}."
            )
        for features, dim in zip(student, self.student_dims, strict=True):
            _check_shape("student_features", features, dim)
            if features.shape[0] != teacher_features.shape[0]:
                raise ValueError(
                    f"student_features must have as many rows as teacher_features, {teacher_features.shape[0]}, "
                    f"got {features.shape[0]}."
                )
        # Reading a tensor's values waits for the device and breaks a compiled graph, hence once and only eagerly.
        if not self._saw_finite_features and not torch.compiler.is_compiling():
            for features in student:
                _check_finite("student_features", features)
            _check_finite("teacher_features", teacher_features)
            self._saw_finite_features = True


def check_choice(name: str, value: object, choices: object) -> None:
    """Refuse a ``value`` of option ``name`` that is not in the ``Literal`` type ``choices``."""
    known = choices.__args__  # type: ignore[attr-defined]
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}.")


def _checked_dims(name: str, dims: Sequence[int], *, at_least: int = 1) -> tuple[int, ...]:
    if len(dims) < at_least or not all(isinstance(dim, int) and dim > 0 for dim in dims):
        raise ValueError(f"{name} must be positive integers{', at least one' if at_least else ''}, got {dims!r}.")
    return tuple(dims)


def _check_shape(name: str, features: Tensor, dim: int) -> None:
    if features.dim() != 2 or features.shape[1] != dim:
        raise ValueError(f"{name} must have shape (rows, {dim}), got {tuple(features.shape)}.")


def _check_finite(name: str, features: Tensor) -> None:
    bad = int((~torch.isfinite(features)).any(1).sum())
    if bad:
        raise ValueError(f"{name} must be finite, got NaN or infinity in {bad} of {features.shape[0]} rows.")
