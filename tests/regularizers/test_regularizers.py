"""Every regularizer: equal to the authors' code, with the right invariances, lean, compilable, and clear about bad input."""

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import normalize, smooth_l1_loss
from torch.utils._python_dispatch import TorchDispatchMode

from aft_ray.regularizers import REGULARIZERS, FeatureEncoder, Regularizer, build_regularizer, log_me
from tests.helpers import DATA
from tests.helpers.probes import made_probes, with_logits

GOLDEN = np.load(DATA / "reference_losses.npz")
GOLDEN_CASES = sorted(key.rsplit("/", 1)[0] for key in GOLDEN if key.endswith("/loss"))
TEACHER_DIMS = [10, 9]
STUDENT_DIM, MODALITY_DIMS = 12, (6, 7)
PRODUCTS = ["aft product", "kd product", "aft_probe product", "probe_kd product"]
VARIANTS = [*REGULARIZERS, *PRODUCTS, "aft per_teacher"]
seeds = st.integers(0, 2**31 - 1)
fast = settings(max_examples=20, deadline=None)


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


# ---- parity with the authors' code ---------------------------------------------------------------------------------


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


# ---- properties ----------------------------------------------------------------------------------------------------


@fast
@given(seed=seeds, scale=st.floats(1e-2, 1e2))
@pytest.mark.parametrize("name", ["aft", "aft_rbf", "aft_dense", "aft_probe"])
def test_kernel_methods_ignore_rotation_scaling_and_shift_of_the_student(name: str, seed: int, scale: float) -> None:
    student, teacher = inputs(name, seed=seed % 10_000)
    rotation = torch.linalg.qr(features(seed, STUDENT_DIM, STUDENT_DIM)).Q
    regularizer = build(name)
    moved = regularizer(scale * student @ rotation + features(seed + 1, STUDENT_DIM), teacher)
    assert moved.item() == pytest.approx(regularizer(student, teacher).item(), rel=1e-5)


@fast
@given(seed=seeds)
@pytest.mark.parametrize("variant", VARIANTS)
def test_order_of_rows_does_not_matter(variant: str, seed: int) -> None:
    student, teacher = inputs(variant, seed=seed % 10_000)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(seed))
    shuffled = tuple(part[order] for part in tensors(student))
    regularizer = build(variant)
    value = regularizer(shuffled if len(shuffled) > 1 else shuffled[0], teacher[order])
    torch.testing.assert_close(value, regularizer(student, teacher), atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("name", ["aft", "aft_rbf", "rkd"])
def test_comparison_is_symmetric_and_lowest_at_equality(name: str) -> None:
    ours, theirs = features(0, 8, 5), features(1, 8, 5)
    regularizer = build_regularizer(name, student_dim=5, teacher_dims=[5]).double()
    torch.testing.assert_close(regularizer(ours, theirs), regularizer(theirs, ours))
    floor = 1e-4 if name != "rkd" else 0  # the square root of the 1e-8 under it
    assert regularizer(ours, ours).item() == pytest.approx(floor, abs=1e-12)


@fast
@given(seed=seeds)
def test_aft_product_equals_aft_on_the_explicit_outer_products(seed: int) -> None:
    student, teacher = inputs("aft product", seed=seed % 10_000)
    product = build("aft product")
    nn.init.normal_(product.gate_logits)  # type: ignore[arg-type]
    gated = (teacher * product.gate_logits.sigmoid()).split(TEACHER_DIMS, dim=1)  # type: ignore[operator]
    outer, teacher_outer = ((a[:, :, None] * c[:, None, :]).flatten(1) for a, c in (student, gated))
    explicit = build_regularizer("aft", student_dim=outer.shape[1], teacher_dims=[90]).double()
    value, expected = product(student, teacher), explicit(outer, 2 * teacher_outer)  # whose gates are all one half
    torch.testing.assert_close(value, expected, atol=1e-12, rtol=1e-9)
    for ours, theirs in zip(torch.autograd.grad(value, student), torch.autograd.grad(expected, student), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-7)


@pytest.mark.parametrize("name", ["aft", "aft_rbf"])
def test_gates_shut_out_noise_dimensions(name: str) -> None:
    """Half of the teacher is a rotation of the student, half is noise: descent lowers the gates of the noise only."""
    student = features(0, 64, 8)
    teacher = torch.cat([student @ torch.linalg.qr(features(1, 8, 8)).Q, features(2, 64, 8)], dim=1)
    regularizer = build_regularizer(name, student_dim=8, teacher_dims=[8, 8]).double()
    regularizer(student, teacher).backward()
    grad = regularizer.gate_logits.grad
    assert isinstance(grad, Tensor)
    assert (grad[8:] > 0).all() and (grad[:8] < 0).all()
    optimizer = torch.optim.Adam(regularizer.parameters(), lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        regularizer(student, teacher).backward()
        optimizer.step()
    scalars = regularizer.diagnostics()
    assert scalars["gate_mean/1"] < 0.1 < 0.5 < scalars["gate_mean/0"]


def test_normalize_per_teacher_ignores_the_norm_of_a_teacher() -> None:
    student, teacher = inputs("aft")
    louder = torch.cat([teacher[:, :10] * 1000, teacher[:, 10:]], dim=1)
    plain, equalised = build("aft"), build("aft per_teacher")
    torch.testing.assert_close(equalised(student, louder), equalised(student, teacher), rtol=1e-7, atol=0)
    assert abs(plain(student, louder) - plain(student, teacher)) > 1e-3


def test_gates_are_learned_unless_told_otherwise() -> None:
    assert [parameter.requires_grad for parameter in build("aft").parameters()] == [True]
    assert [parameter.requires_grad for parameter in build("aft", learn_gates=False).parameters()] == [False]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_and_the_student_get_a_gradient_and_the_teacher_none(variant: str) -> None:
    regularizer = build(variant)
    student, teacher = inputs(variant)
    teacher.requires_grad_()
    value = regularizer(student, teacher)
    assert value.dim() == 0 and value >= 0
    value.backward()
    assert all(parameter.grad is not None for parameter in [*regularizer.parameters(), *tensors(student)])
    assert teacher.grad is None


@pytest.mark.parametrize("num_rows", [1, 4])
@pytest.mark.parametrize("variant", VARIANTS)
def test_batches_of_one_and_of_equal_rows_have_finite_values_and_gradients(variant: str, num_rows: int) -> None:
    regularizer = build(variant)
    student, teacher = inputs(variant, num_rows=1)
    repeated = tuple(part.expand(num_rows, -1) for part in tensors(student))
    value = regularizer(repeated if len(repeated) > 1 else repeated[0], teacher.expand(num_rows, -1))
    value.backward()
    grads = [tensor.grad for tensor in [*regularizer.parameters(), *tensors(student)]]
    assert value.isfinite() and all(grad is not None and grad.isfinite().all() for grad in grads)


def test_none_is_zero() -> None:
    assert build("none")(*inputs("none")).item() == 0


# ---- stages: B-Tuning from LogME, factor transfer from its encoder -----------------------------------------------------


def test_btune_is_zero_for_the_pretrained_student_that_is_its_own_teacher() -> None:
    labels = np.arange(40) % 3
    pretrained = features(0, 40, 6) + torch.tensor(labels)[:, None]
    score, weights = log_me(pretrained, labels)
    regularizer = build_regularizer(
        "btune", student_dim=6, teacher_dims=[6], student_weights=weights, teacher_weights=[weights], scores=[score]
    )
    assert regularizer(pretrained, pretrained).item() == pytest.approx(0, abs=1e-12)
    assert regularizer(pretrained + features(1, 40, 6), pretrained) > 1e-3


def test_ft_compares_with_the_codes_of_its_encoder() -> None:
    encoder = FeatureEncoder(TEACHER_DIMS)
    student, teacher = inputs("ft")
    encoded, direct = (
        build("ft", encoder=encoder),
        build_regularizer("ft", student_dim=STUDENT_DIM, teacher_dims=[5, 4]),
    )
    own = {name: value for name, value in encoded.state_dict().items() if not name.startswith("encoder.")}
    direct.double().load_state_dict(own)
    torch.testing.assert_close(encoded(student, teacher), direct(student, encoder(teacher)))
    assert all(name.startswith("translator.") for name, p in encoded.named_parameters() if p.requires_grad)


def test_ft_starts_from_a_zero_last_layer_with_the_usual_bias() -> None:
    last = dict(build("ft").named_parameters())
    assert not last["translator.4.weight"].any() and last["translator.4.bias"].all()


# ---- precision, compilation, memory, synchronisation -----------------------------------------------------------------


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


# ---- diagnostics and bad input -----------------------------------------------------------------------------------------


def test_diagnostics_name_the_kernel_distance_and_the_gates_of_each_teacher() -> None:
    regularizer = build("aft")
    gates = {"gate_mean/0", "gate_std/0", "gate_mean/1", "gate_std/1"}
    assert regularizer.diagnostics().keys() == gates
    value = regularizer(*inputs("aft"))
    scalars = regularizer.diagnostics()
    assert scalars.keys() == gates | {"kernel_distance"}
    assert not any(scalar.requires_grad for scalar in scalars.values())
    assert scalars["kernel_distance"] == value
    assert [scalars["gate_mean/1"].item(), scalars["gate_std/1"].item()] == [0.5, 0.0]
    assert build("kd").diagnostics() == {}


def test_every_regularizer_describes_itself_in_one_line() -> None:
    lines = [(regularizer.__doc__ or "").partition("\n")[0] for regularizer in REGULARIZERS.values()]
    assert all(line.endswith(".") for line in lines) and len(set(lines)) == len(lines)


@pytest.fixture
def good() -> Iterator[tuple[Tensor, Tensor]]:
    yield torch.ones(4, STUDENT_DIM), torch.ones(4, sum(TEACHER_DIMS))


def test_helpful_errors_about_features(good: tuple[Tensor, Tensor]) -> None:
    student, teacher = good
    with pytest.raises(ValueError, match=r"student_features must have shape \(rows, 12\), got \(4, 11\)\."):
        build("aft")(student[:, 1:], teacher)
    with pytest.raises(ValueError, match=r"teacher_features must have shape \(rows, 19\), got \(4, 18\)\."):
        build("kd")(student, teacher[:, 1:])
    with pytest.raises(ValueError, match=r"teacher_features must have shape \(rows, 19\), got \(19,\)\."):
        build("kd")(student[:1], teacher[0])
    with pytest.raises(ValueError, match=r"student_features must have as many rows as teacher_features, 4, got 3\."):
        build("rkd")(student[1:], teacher)
    with pytest.raises(ValueError, match=r"must have at least one row, got an empty batch\."):
        build("ft")(student[:0], teacher[:0])
    with pytest.raises(ValueError, match=r"student_features must be 2 tensor\(s\), one per modality, got 1\."):
        build("aft product")(student, teacher)


def test_values_are_checked_on_the_first_call_only(good: tuple[Tensor, Tensor]) -> None:
    student, teacher = good
    bad = teacher.clone()
    bad[2:, 0] = torch.nan
    regularizer = build("aft")
    with pytest.raises(ValueError, match=r"teacher_features must be finite, got NaN or infinity in 2 of 4 rows\."):
        regularizer(student, bad)
    with pytest.raises(ValueError, match=r"student_features must be finite, got NaN or infinity in 4 of 4 rows\."):
        regularizer(student / 0, teacher)
    regularizer(student, teacher)
    assert regularizer(student, bad).isnan()


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("afta", {}, r"Unknown regularizer 'afta'\. Known: none, aft, aft_rbf, .*, btune\."),
        (
            "aft",
            {"learn_gate": True},
            r"Unknown option 'learn_gate' for regularizer 'aft'\. Known: combine, normalize, learn_gates, scope\.",
        ),
        ("aft_rbf", {"combine": "product"}, r"Unknown option 'combine' for regularizer 'aft_rbf'\."),
        ("btune", {}, r"Regularizer 'btune' needs the options student_weights, teacher_weights, scores\."),
        ("aft", {"normalize": "yes"}, r"normalize must be one of none, per_teacher, got 'yes'\."),
        ("rkd", {"scope": "node"}, r"scope must be one of global, worker, got 'node'\."),
        ("kd", {"combine": "sum"}, r"combine must be one of concat, product, got 'sum'\."),
        ("aft", {"teacher_dims": []}, r"teacher_dims must be positive integers, at least one, got \[\]\."),
        ("aft", {"student_dim": 0}, r"student_dim must be positive integers, at least one, got \[0\]\."),
        ("aft", {"student_dim": (3, 4)}, r"student_dim must be an int unless combine='product', got \(3, 4\)\."),
        (
            "aft",
            {"combine": "product"},
            r"combine='product' needs a student_dim and a teacher dim per modality, got student_dim=3 and",
        ),
        (
            "kd",
            {"combine": "product", "student_dim": (3, 4, 5)},
            r"kd with combine='product' needs one teacher per student modality",
        ),
        ("ft", {"encoder": FeatureEncoder([4])}, r"encoder must be fitted to teachers of widths \[2, 2\], got \[4\]\."),
        (
            "btune",
            {"student_weights": np.ones((5, 3)), "teacher_weights": [np.ones((5, 2))] * 2, "scores": [1.0]},
            r"scores must be one per teacher, 2, got 1\.",
        ),
        (
            "btune",
            {"student_weights": np.ones((5, 3)), "teacher_weights": [np.ones((4, 2))] * 2, "scores": [1.0, 1.0]},
            r"teacher_weights must have shape\(s\) \[\(5, 2\), \(5, 2\)\], \(classes, width\), got \[\(4, 2\), \(4, 2\)\]\.",
        ),
    ],
)
def test_helpful_errors_about_options(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_regularizer(name, **{"student_dim": 3, "teacher_dims": [2, 2], **changes})
