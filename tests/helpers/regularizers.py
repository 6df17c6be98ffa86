"""Every regularizer in float64 at small widths, with features to compare."""

from typing import Any

import torch
from torch import Tensor

from aft_ray.regularizers import REGULARIZERS, Regularizer, build_regularizer
from tests.helpers.probes import made_probes, with_logits

TEACHER_DIMS = [10, 9]
STUDENT_DIM, MODALITY_DIMS = 12, (6, 7)
PRODUCTS = ["aft product", "kd product", "aft_probe product", "probe_kd product"]
VARIANTS = [*REGULARIZERS, *PRODUCTS, "aft per_teacher"]


def features(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(variant: str, **options: Any) -> Regularizer:
    """A float64 regularizer of the test's widths; ``variant`` is a name, perhaps with an option."""
    torch.manual_seed(0)
    name, _, option = variant.partition(" ")
    options |= {"product": {"combine": "product"}, "per_teacher": {"normalize": "per_teacher"}}.get(option, {})
    if name == "btune":
        options["student_weights"] = torch.randn(5, STUDENT_DIM)
        options["teacher_weights"] = [torch.randn(5, dim) for dim in TEACHER_DIMS]
        options["scores"] = [0.1, 0.2]
    if name in ("aft_probe", "probe_kd"):
        options.setdefault("probes", made_probes([sum(TEACHER_DIMS)] if option == "product" else TEACHER_DIMS))
    student_dim = MODALITY_DIMS if option == "product" else STUDENT_DIM
    built = build_regularizer(name, student_dim=student_dim, teacher_dims=TEACHER_DIMS, **options).double()
    return with_logits(built)


def inputs(variant: str, num_rows: int = 8, seed: int = 0) -> tuple[Any, Tensor]:
    """Student features that require grad, a tuple of them for products, and teacher features."""
    parts = tuple(features(seed + dim, num_rows, dim).requires_grad_() for dim in MODALITY_DIMS)
    student = parts if variant.endswith("product") else features(seed, num_rows, STUDENT_DIM).requires_grad_()
    return student, features(seed + 1, num_rows, sum(TEACHER_DIMS))


def tensors(student: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (student,) if isinstance(student, Tensor) else student
