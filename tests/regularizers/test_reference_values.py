"""Every regularizer has the values and gradients of the authors' code, or of its formula."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, smooth_l1_loss

from aft_ray.regularizers import build_regularizer
from tests.helpers.reference_losses import GOLDEN_CASES, assert_gradient, golden_case, golden_parameter
from tests.helpers.regularizers import MODALITY_DIMS, TEACHER_DIMS, build, features, inputs


# RKD divides distances by the mean of the positive ones. For more than 25 rows the reference computes them in a way that
# leaves a rounding error of some 1e-8 on the diagonal, where it is positive it counts as a distance: see the next test.
@pytest.mark.parametrize("case", [case for case in GOLDEN_CASES if case != "case1/rkd"])
def test_value_and_gradients_equal_the_reference(case: str) -> None:
    regularizer, student, teacher, array = golden_case(case)
    value = regularizer(student, teacher)
    value.backward()
    assert value.item() == pytest.approx(float(array("loss")), rel=1e-9)
    for name, parameter in regularizer.named_parameters():
        assert_gradient(parameter.grad, array(f"grad{golden_parameter(name)}"))
    if isinstance(student, Tensor):
        assert_gradient(student.grad, array("grad_student"))
    else:  # the file has the gradient of the outer product f = a (x) c: a gets it times c, c gets it times a
        (a_BS, c_BS), grad_BSS = student, torch.tensor(array("grad_student")).unflatten(1, MODALITY_DIMS)
        assert_gradient(a_BS.grad, (grad_BSS * c_BS.detach()[:, None, :]).sum(2).numpy())
        assert_gradient(c_BS.grad, (grad_BSS * a_BS.detach()[:, :, None]).sum(1).numpy())


def explicit_rkd(student: Tensor, teacher: Tensor, spurious: tuple[int, int] = (0, 0)) -> Tensor:
    """The formula, B x B x B and B x B x D; ``spurious`` pairs of a point with itself count as positive distances."""

    def scaled_distances(x_BD: Tensor, num_spurious: int) -> Tensor:
        distance_BB = torch.cdist(x_BD, x_BD, compute_mode="donot_use_mm_for_euclid_dist")
        return distance_BB / (distance_BB.sum() / (len(x_BD) * (len(x_BD) - 1) + num_spurious))

    def cosines(x_BD: Tensor) -> Tensor:
        direction_BBD = normalize(x_BD[None] - x_BD[:, None], dim=2)
        return direction_BBD @ direction_BBD.transpose(1, 2)

    distance_term = smooth_l1_loss(scaled_distances(student, spurious[0]), scaled_distances(teacher, spurious[1]))
    return (distance_term + 2 * smooth_l1_loss(cosines(student), cosines(teacher))) / 2


def test_rkd_of_32_rows_equals_the_reference_but_for_its_rounding_errors_on_the_diagonal() -> None:
    """The reference counted 11 and 8 of the 32 self-distances; without them the formula is ours."""
    regularizer, student, teacher, array = golden_case("case1/rkd")
    noisy = explicit_rkd(student, teacher, spurious=(11, 8))
    assert noisy.item() == pytest.approx(float(array("loss")), rel=1e-9)
    assert_gradient(torch.autograd.grad(noisy, student)[0], array("grad_student"))
    clean, ours = explicit_rkd(student, teacher), regularizer(student, teacher)
    assert ours.item() == pytest.approx(clean.item(), rel=1e-9)
    assert_gradient(torch.autograd.grad(ours, student)[0], torch.autograd.grad(clean, student)[0].numpy())


def test_rkd_does_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher = inputs("rkd", num_rows=11)
    whole = build("rkd")(student, teacher)
    (whole_grad,) = torch.autograd.grad(whole, student)
    monkeypatch.setattr("aft_ray.regularizers.rkd.BLOCK_SIZE", 3 * 11**2)
    blocks = build("rkd")(student, teacher)
    torch.testing.assert_close(blocks, whole)
    torch.testing.assert_close(torch.autograd.grad(blocks, student)[0], whole_grad)


def test_rkd_in_float32_is_close_to_the_formula() -> None:
    student, teacher = features(0, 64, 384) + 2, features(1, 64, 1024) + 2
    regularizer = build_regularizer("rkd", student_dim=384, teacher_dims=[1024])
    assert regularizer(student.float(), teacher.float()).item() == pytest.approx(
        explicit_rkd(student, teacher).item(), rel=1e-4
    )


def test_kd_product_averages_the_error_of_each_modality() -> None:
    regularizer = build("kd product")
    student, teacher = inputs("kd product")
    assert isinstance(regularizer.projection, nn.ModuleList)
    errors = [
        (part @ layer.weight.T + layer.bias - target).square().mean()
        for part, layer, target in zip(student, regularizer.projection, teacher.split(TEACHER_DIMS, dim=1), strict=True)
    ]
    torch.testing.assert_close(regularizer(student, teacher), sum(errors) / 2)
