"""Every regularizer is safe under autocast, compiles, and makes no large tensor."""

import shutil
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from aft_ray.regularizers import Regularizer
from tests.helpers.regularizers import TEACHER_DIMS, VARIANTS, build, inputs, tensors

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("variant", VARIANTS)
def test_autocast_does_not_change_the_value(variant: str, dtype: torch.dtype) -> None:
    regularizer = build(variant).float()
    student, teacher = inputs(variant)
    narrow = tuple(part.detach().to(dtype) for part in tensors(student))
    wide = tuple(part.float() for part in narrow)
    with torch.autocast("cpu", dtype=dtype):
        value = regularizer(narrow if len(narrow) > 1 else narrow[0], teacher.to(dtype))
    expected = regularizer(wide if len(wide) > 1 else wide[0], teacher.to(dtype).float())
    assert value.dtype == torch.float32
    assert torch.equal(value, expected)


def test_a_second_derivative_is_refused_not_wrong() -> None:
    student, teacher = inputs("aft")
    (gradient,) = torch.autograd.grad(build("aft")(student, teacher), student, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("variant", VARIANTS)
def test_compiles_without_graph_breaks(variant: str) -> None:
    torch._dynamo.reset()
    regularizer = build(variant)
    student, teacher = inputs(variant)
    compiled = torch.compile(regularizer, fullgraph=True, backend="aot_eager")
    leaves = [*tensors(student), *regularizer.parameters()]
    value, expected = compiled(student, teacher), regularizer(student, teacher)
    torch.testing.assert_close(value, expected)
    for ours, theirs in zip(torch.autograd.grad(value, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.skipif(shutil.which("g++") is None, reason="the default compiler backend needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:.*torch._prims_common.check.*:FutureWarning")  # from inside torch 2.15
def test_rkd_compiled_to_machine_code_has_the_same_gradient() -> None:
    """Torch 2.15 overwrote the inner products while their diagonal was still read, which no other test would notice."""
    torch._dynamo.reset()
    student, teacher = inputs("rkd", num_rows=16)
    student, regularizer = student.detach().float().requires_grad_(), build("rkd").float()
    (ours,) = torch.autograd.grad(torch.compile(regularizer, fullgraph=True)(student, teacher.float()), student)
    torch.testing.assert_close(ours, torch.autograd.grad(regularizer(student, teacher.float()), student)[0])


class Watch(TorchDispatchMode):
    """Records every operator and the size of the largest tensor made, in forward and in backward."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: set[str] = set()
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.operators.add(func.overloadpacket.__name__)
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self.largest = max(self.largest, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


def watched(regularizer: Regularizer, student: Any, teacher: Tensor) -> Watch:
    regularizer(student, teacher)  # the first call may read values
    with Watch() as watch:
        regularizer(student, teacher).backward()
        regularizer.diagnostics()
    return watch


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_is_read_back_to_the_host_after_the_first_call(variant: str) -> None:
    watch = watched(build(variant), *inputs(variant))
    assert watch.operators.isdisjoint({"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero"})


@pytest.mark.parametrize(
    ("variant", "num_rows"),
    [("aft", 40), ("aft_rbf", 40), ("aft product", 40), ("aft_probe product", 40), ("aft", 6), ("aft_rbf", 6)],
)
def test_no_tensor_is_larger_than_a_kernel_or_the_teacher_features(variant: str, num_rows: int) -> None:
    watch = watched(build(variant), *inputs(variant, num_rows=num_rows))
    assert watch.largest <= num_rows * max(num_rows, sum(TEACHER_DIMS))


def test_rkd_holds_one_block_of_angles_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aft_ray.regularizers.rkd.BLOCK_SIZE", 40**2)
    assert watched(build("rkd"), *inputs("rkd", num_rows=40)).largest <= 40**2
