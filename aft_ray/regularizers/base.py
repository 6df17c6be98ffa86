"""The base class of all regularizers: its description for the rest of the package, checked inputs, precision, and scope."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor, nn

from aft_ray.regularizers.distributed import Rows, global_rows
from aft_ray.regularizers.fitting import FittingData
from aft_ray.regularizers.kernels import at_least_float32, cosine_kernel, equalise_spread, product_kernel

Scope: TypeAlias = Literal["global", "worker"]
Combine: TypeAlias = Literal["concat", "product"]
StudentDim: TypeAlias = int | tuple[int, ...]
StudentFeatures: TypeAlias = Tensor | tuple[Tensor, ...]


class Regularizer(nn.Module, ABC):
    """A loss that draws student features towards teacher features: a scalar >= 0, not yet weighted by beta.

    Under a process group the value and the gradients (after DDP's averaging) equal one process's on the concatenated batch;
    with ``scope="worker"`` each worker regularizes its own rows. Everything runs in float32 or better, also under autocast.
    Teacher features are constants. Call it inside the forward that DDP wraps: its parameters need that.

    A method is one subclass, in a file of this folder or anywhere as ``module:Class``. Its constructor's keyword-only
    arguments are its options, the first line of its docstring is its summary, and the class attributes describe it.
    """

    name: ClassVar[str] = ""
    """Its name in a recipe; empty for an abstract class, and for a class that recipes name ``module:Class``."""
    title: ClassVar[str] = ""
    """The method in words; the class's name where it is empty."""
    colours: ClassVar[tuple[str, str]] = ("#444444", "#bbbbbb")
    """Colours of its lines in plots, on a light page and on a dark one."""
    betas: ClassVar[tuple[float, ...]] = (0.125, 0.5, 2.0, 8.0)
    """Strengths that a search tries where the recipe names none. Every method has as many."""
    needs_teachers: ClassVar[bool] = True
    """Whether it reads teacher features."""
    needs_classes: ClassVar[bool] = False
    """Whether every sample must have one class."""
    needs_logits: ClassVar[bool] = False
    """Whether it reads the student's logits besides its features."""

    def __init__(
        self,
        student_dim: StudentDim,
        teacher_dims: Sequence[int],
        *,
        combine: Combine = "concat",
        towers: Sequence[int] | None = None,
        scope: Scope = "global",
    ) -> None:
        """``student_dim`` is S, or one width per tower with ``combine="product"``; ``teacher_dims`` sum to T.

        ``towers``, with ``combine="product"``, has the number of each teacher's tower, from 0: teachers of one tower are side
        by side, and the towers are multiplied. None gives every teacher a tower of its own, in their order.
        """
        super().__init__()
        check_choice("combine", combine, Combine)
        check_choice("scope", scope, Scope)
        self.student_dims = _checked_dims("student_dim", [student_dim] if isinstance(student_dim, int) else student_dim)
        self.teacher_dims = _checked_dims("teacher_dims", teacher_dims, at_least=1 if self.needs_teachers else 0)
        self.teacher_dim = sum(self.teacher_dims)
        self.combine: Combine = combine
        self.towers = tuple(range(len(self.teacher_dims)) if towers is None else towers)
        self.scope: Scope = scope
        self._saw_finite_features = False
        if combine == "product" and min(len(self.student_dims), len(self.teacher_dims)) < 2:
            raise ValueError(
                f"combine='product' needs a student_dim and a teacher dim per modality, got student_dim={student_dim} and "
                f"teacher_dims={list(teacher_dims)}."
            )
        if combine == "concat" and not isinstance(student_dim, int):
            raise ValueError(f"student_dim must be an int unless combine='product', got {student_dim}.")
        if towers is not None:
            _check_towers(towers, combine, len(self.student_dims), len(self.teacher_dims))

    @classmethod
    def options(cls) -> dict[str, Any]:
        """The constructor's options with their defaults; a required option has `inspect.Parameter.empty`."""
        signature = inspect.signature(cls).parameters.values()
        return {option.name: option.default for option in signature if option.kind is option.KEYWORD_ONLY}

    @classmethod
    def recipe_options(cls, num_teachers: int) -> dict[str, Any]:
        """Defaults of a recipe, where they differ from the constructor's.

        ``num_teachers`` are side by side: where towers are multiplied, the most that one tower has.
        """
        return {}

    @classmethod
    def fitted_options(cls, data: FittingData) -> dict[str, Any]:
        """Options fitted to the data before training; a recipe cannot give them. Most methods have none."""
        return {}

    @property
    def is_off(self) -> bool:
        """Whether it found nothing in this data; training then goes on without it."""
        return False

    def facts(self) -> dict[str, float]:
        """Numbers fitted before training, for the metrics; ``name/k`` belongs to teacher k."""
        return {}

    def forward(
        self, student_features: StudentFeatures, teacher_features: Tensor, logits: Tensor | None = None
    ) -> Tensor:
        """The unweighted regularizer of a batch, a scalar.

        ``student_features`` is (b, S), or with ``combine="product"`` a tuple of (b, S_m); ``teacher_features`` is (b, T),
        all teachers side by side; ``logits`` (b, C) are for methods that need them; all floating. Shapes are checked on
        every call, finite values on the first eager one.
        """
        student = (student_features,) if isinstance(student_features, Tensor) else tuple(student_features)
        self._check(student, teacher_features)
        if self.needs_logits:
            if logits is None:
                raise ValueError(f"Regularizer '{self.name}' needs the student's logits as third argument.")
            student = (*student, logits)
        num_rows = teacher_features.shape[0]
        rows = Rows((num_rows,), 0) if self.scope == "worker" else global_rows(num_rows, teacher_features.device)
        if rows.total == 0:
            raise ValueError("student_features and teacher_features must have at least one row, got an empty batch.")
        student, teacher_features = tuple(map(at_least_float32, student)), at_least_float32(teacher_features.detach())
        if not torch.is_autocast_enabled(teacher_features.device.type):
            return self._value(student, teacher_features, rows)
        with torch.autocast(teacher_features.device.type, enabled=False):  # which asks the driver for GPUs each time
            return self._value(student, teacher_features, rows)

    def target_kernel(self, teacher_BT: Tensor) -> Tensor:
        """How similar (B, B) the teachers hold rows to be, as far as this method looks at that: a student is compared with it.

        By default the kernel of the features as they are, with the same say for every teacher.
        """
        teacher_BT = equalise_spread(teacher_BT, self.teacher_dims)
        if self.combine == "product":
            return product_kernel(self.by_tower(teacher_BT))
        return cosine_kernel(teacher_BT)

    @property
    def tower_dims(self) -> list[int]:
        """Width of the teacher features of each tower."""
        return [
            sum(dim for dim, own in zip(self.teacher_dims, self.towers, strict=True) if own == tower)
            for tower in sorted(set(self.towers))
        ]

    def by_tower(self, x: Tensor) -> list[Tensor]:
        """``x`` (..., T), a column for each teacher feature, in a block for each tower."""
        blocks = x.split(self.teacher_dims, dim=-1)
        of_tower = [
            [blocks[k] for k, own in enumerate(self.towers) if own == tower] for tower in sorted(set(self.towers))
        ]
        return [parts[0] if len(parts) == 1 else torch.cat(parts, -1) for parts in of_tower]

    @abstractmethod
    def _value(self, student: tuple[Tensor, ...], teacher_bT: Tensor, rows: Rows) -> Tensor:
        """The regularizer of the batch laid out by ``rows``; ``student`` holds a (b, S_m) per modality, most have one, and after
        them the logits (b, C) where the method needs them."""

    def diagnostics(self) -> dict[str, Tensor]:
        """Detached scalars on the device for logging, of the last forward; reading them does not wait for it."""
        return {}

    def _check(self, student: tuple[Tensor, ...], teacher_features: Tensor) -> None:
        check_shape("teacher_features", teacher_features, self.teacher_dim)
        if len(student) != len(self.student_dims):
            raise ValueError(
                f"student_features must be {len(self.student_dims)} tensor(s), one per modality, got {len(student)}."
            )
        for features, dim in zip(student, self.student_dims, strict=True):
            check_shape("student_features", features, dim)
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


def _check_towers(towers: Sequence[int], combine: Combine, num_towers: int, num_teachers: int) -> None:
    if combine != "product":
        raise ValueError(f"towers are for combine='product', got {list(towers)} with combine={combine!r}.")
    if len(towers) != num_teachers or set(towers) != set(range(num_towers)):
        raise ValueError(
            f"towers must be a number from 0 to {num_towers - 1} for each of the {num_teachers} teachers, every tower with a"
            f" teacher, got {list(towers)}."
        )


def check_shape(name: str, features: Tensor, dim: int) -> None:
    if features.dim() != 2 or features.shape[1] != dim:
        raise ValueError(f"{name} must have shape (rows, {dim}), got {tuple(features.shape)}.")


def _check_finite(name: str, features: Tensor) -> None:
    bad = int((~torch.isfinite(features)).any(1).sum())
    if bad:
        raise ValueError(f"{name} must be finite, got NaN or infinity in {bad} of {features.shape[0]} rows.")
