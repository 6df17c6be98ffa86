"""Values and gradients that the authors' code computed, read as cases of a test."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aft_ray.regularizers import Regularizer, build_regularizer
from tests.helpers import DATA

GOLDEN = np.load(DATA / "reference_losses.npz")
GOLDEN_CASES = sorted(key.rsplit("/", 1)[0] for key in GOLDEN if key.endswith("/loss"))


def golden_parameter(name: str) -> str:
    """The key of a parameter in the golden file: `projection.weight` is `param_weight`, `translator.0.bias` `param_0.bias`."""
    return "param_s" if name in ("gate_logits", "projection") else f"param_{name.partition('.')[2]}"


def golden_case(case: str) -> tuple[Regularizer, Any, Tensor, Callable[[str], Any]]:
    """The regularizer with the reference's parameters, its inputs, and the lookup of this case's arrays."""
    name = case.split("/")[1]

    def array(what: str) -> Any:
        return GOLDEN[f"{case}/{what}"]

    student: Any = torch.tensor(array("student"), requires_grad=True)
    student_dim: Any = student.shape[1]
    dims, options = array("dims").tolist(), {}
    if name == "kkd":
        dims = [student_dim]
    if name == "btune":
        teacher_weights = [array(f"teacher_mu_{k}") for k in range(len(dims))]
        scores = array("logme_scores").tolist()
        options = {"student_weights": array("student_mu"), "teacher_weights": teacher_weights, "scores": scores}
    if name == "aft_tensor_product":
        name, options = "aft", {"combine": "product"}
        student = tuple(torch.tensor(array(f"student_{part}"), requires_grad=True) for part in ("image", "text"))
        student_dim = tuple(part.shape[1] for part in student)
    regularizer = build_regularizer(name, student_dim=student_dim, teacher_dims=dims, **options).double()
    with torch.no_grad():
        for key, parameter in regularizer.named_parameters():
            parameter.copy_(torch.tensor(array(golden_parameter(key))))
    return regularizer, student, torch.tensor(array("teacher")), array


def assert_gradient(ours: Tensor | None, expected: Any) -> None:
    assert ours is not None
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-7, atol=1e-7 * np.abs(expected).max() + 1e-15)
