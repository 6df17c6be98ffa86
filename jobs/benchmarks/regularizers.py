"""Time and peak memory of the regularizers against a plain translation of the formulas.

    python jobs/benchmarks/regularizers.py            the whole grid, some minutes and 16 GiB
    python jobs/benchmarks/regularizers.py --quick    B = 128 only, without the training step
    python jobs/benchmarks/regularizers.py --device cuda

Every measurement has a separate process, forked from a server that has imported torch. Time is the median of repeated
forward + backward passes. Peak memory is how much the first of them raises the process's high-water mark of resident memory
(ru_maxrss) after a pass over a tiny batch has loaded the libraries, so it counts whatever the operators allocate inside; on
a GPU, by how much it raises the peak of torch's allocator.
"""

import argparse
import multiprocessing
import platform
import resource
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize, smooth_l1_loss

from aft_ray.regularizers import build_regularizer

STUDENT_DIM = 384  # ViT-S
TARGET_STEP_SHARE = 0.03
MIB = 2**20


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    name: str
    batch_size: int
    student_dims: tuple[int, ...]
    teacher_dims: tuple[int, ...]

    @property
    def straightforward_bytes(self) -> int:
        """A rough guess of the plain version's memory: four copies of its largest tensor, in float32."""
        b, width = self.batch_size, sum(self.teacher_dims)
        largest = {
            "aft": b * width,
            "aft_rbf": b * b * width,
            "rkd": max(b * b * width, b**3),
            "aft product": 2 * b * self.teacher_dims[0] * self.teacher_dims[-1],
        }
        return 4 * 4 * largest[self.name]


@dataclass(frozen=True)
class Cost:
    """Of one forward + backward pass. seconds: the median of several. fastest: of them, the least disturbed by other work."""

    seconds: float
    fastest: float
    peak_bytes: int
    value: float


# ---- straight from the formulas ---------------------------------------------------------------------------------------


def unit(x_BD: Tensor) -> Tensor:
    x_BD = x_BD - x_BD.mean(0)
    return x_BD / (x_BD.norm(dim=1, keepdim=True) + 1e-8)


def rms(difference: Tensor) -> Tensor:
    return (difference.square().mean() + 1e-8).sqrt()


def plain_aft(student: tuple[Tensor, ...], gated: tuple[Tensor, ...]) -> Tensor:
    ours, theirs = unit(student[0]), unit(torch.cat(gated, dim=1))
    return rms(ours @ ours.T - theirs @ theirs.T)


def plain_aft_rbf(student: tuple[Tensor, ...], gated: tuple[Tensor, ...]) -> Tensor:
    def kernel(x_BD: Tensor) -> Tensor:
        return torch.exp(-(x_BD[:, None] - x_BD[None]).square().sum(2))

    return rms(kernel(unit(student[0])) - kernel(unit(torch.cat(gated, dim=1))))


def plain_aft_product(student: tuple[Tensor, ...], gated: tuple[Tensor, ...]) -> Tensor:
    ours, theirs = (unit((x[:, :, None] * y[:, None, :]).flatten(1)) for x, y in (student, gated))
    return rms(ours @ ours.T - theirs @ theirs.T)


def plain_rkd(student: tuple[Tensor, ...], teacher: tuple[Tensor, ...]) -> Tensor:
    def distances(x_BD: Tensor) -> Tensor:
        distance_BB = torch.cdist(x_BD, x_BD, compute_mode="donot_use_mm_for_euclid_dist")
        return distance_BB / distance_BB[distance_BB > 0].mean()

    def cosines(x_BD: Tensor) -> Tensor:
        direction_BBD = normalize(x_BD[None] - x_BD[:, None], dim=2)
        return direction_BBD @ direction_BBD.transpose(1, 2)

    ours, theirs = student[0], torch.cat(teacher, dim=1)
    distance_term = smooth_l1_loss(distances(ours), distances(theirs))
    return (distance_term + 2 * smooth_l1_loss(cosines(ours), cosines(theirs))) / 2


PLAIN: dict[str, Callable[[tuple[Tensor, ...], tuple[Tensor, ...]], Tensor]] = {
    "aft": plain_aft,
    "aft_rbf": plain_aft_rbf,
    "aft product": plain_aft_product,
    "rkd": plain_rkd,
}


# ---- measuring ----------------------------------------------------------------------------------------------------


def regularizer_pass(device: str, case: Case, batch_size: int, plain: bool) -> Callable[[], float]:
    """A forward + backward pass over fixed random features, returning the value."""
    torch.manual_seed(0)
    student = tuple(torch.randn(batch_size, dim, device=device, requires_grad=True) for dim in case.student_dims)
    teacher = torch.randn(batch_size, sum(case.teacher_dims), device=device)
    name, _, combine = case.name.partition(" ")
    options = {"combine": combine} if combine else {}
    regularizer = build_regularizer(name, student_dim=student_dim(case), teacher_dims=case.teacher_dims, **options)
    regularizer.to(device)

    def step() -> float:
        for tensor in (*student, *regularizer.parameters()):
            tensor.grad = None
        if plain:
            gates = regularizer.gate_logits.sigmoid() if name.startswith("aft") else 1  # type: ignore[operator]
            value = PLAIN[case.name](student, (teacher * gates).split(list(case.teacher_dims), dim=1))
        else:
            value = regularizer(student if len(student) > 1 else student[0], teacher)
        value.backward()
        return value.item()

    return step


def student_dim(case: Case) -> Any:
    return case.student_dims if len(case.student_dims) > 1 else case.student_dims[0]


def training_pass(device: str, batch_size: int) -> Callable[[], float]:
    """Forward + backward of a ViT-S/16 at 224 pixels with its cross-entropy."""
    import timm

    model = timm.create_model("vit_small_patch16_224", num_classes=100).to(device)
    images = torch.randn(batch_size, 3, 224, 224, device=device)
    labels = torch.randint(100, (batch_size,), device=device)

    def step() -> float:
        model.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        return loss.item()

    return step


def measure(
    build: Callable[..., Callable[[], float]],
    device: str,
    arguments: tuple[Any, ...],
    tiny: tuple[Any, ...],
    threads: int,
) -> Cost:
    """A pass ends with its value on the host, so that a clock there is right for a GPU too."""
    torch.set_num_threads(threads)
    build(device, *tiny)()
    step = build(device, *arguments)
    before = peak_bytes(device)
    started = time.perf_counter()
    value = step()
    durations = [time.perf_counter() - started]
    peak = peak_bytes(device) - before
    if durations[0] < 2:
        durations = []  # the first pass also paid for fresh memory
    while len(durations) < 2 or (sum(durations) < 1 and len(durations) < 50):
        started = time.perf_counter()
        step()
        durations.append(time.perf_counter() - started)
    return Cost(statistics.median(durations), min(durations), peak, value)


def peak_bytes(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def in_own_process(*arguments: Any) -> Cost:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch._dynamo", "timm", "aft_ray.regularizers"])
    with context.Pool(1) as pool:
        return pool.apply(measure, arguments)


# ---- the table ----------------------------------------------------------------------------------------------------


def grid(quick: bool) -> list[Case]:
    cases = []
    for batch_size in (128,) if quick else (128, 512, 2048):
        for teacher_dim in (1024, 3072):
            cases += [Case(name, batch_size, (STUDENT_DIM,), (teacher_dim,)) for name in ("aft", "aft_rbf")]
        cases.append(Case("aft product", batch_size, (1024, 1024), (1024, 1024)))
        if batch_size <= 512:
            cases.append(Case("rkd", batch_size, (STUDENT_DIM,), (1024,)))
    return cases


def row(case: Case, device: str, threads: int, memory_limit: float) -> tuple[str, Cost]:
    ours = in_own_process(regularizer_pass, device, (case, case.batch_size, False), (case, 4, False), threads)
    cells = [
        case.name,
        str(case.batch_size),
        "x".join(map(str, case.student_dims)),
        "x".join(map(str, case.teacher_dims)),
    ]
    cells += [f"{ours.seconds * 1e3:.2f}", f"{ours.peak_bytes / MIB:.1f}"]
    if case.straightforward_bytes > memory_limit:
        cells += ["-", f"~{case.straightforward_bytes / MIB:.0f} (not run)", "-", "-", "-"]
    else:
        plain = in_own_process(regularizer_pass, device, (case, case.batch_size, True), (case, 4, True), threads)
        cells += [f"{plain.seconds * 1e3:.2f}", f"{plain.peak_bytes / MIB:.1f}"]
        cells += [f"{plain.seconds / ours.seconds:.1f}", f"{plain.peak_bytes / max(ours.peak_bytes, 1):.1f}"]
        cells.append(f"{abs(plain.value - ours.value) / plain.value:.0e}")
    return "| " + " | ".join(cells) + " |", ours


def named(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()} CPU"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="B = 128 only, without the training step")
    parser.add_argument(
        "--threads", type=int, default=1, help="threads per measurement; one is least disturbed by others"
    )
    parser.add_argument(
        "--memory-limit-gib", type=float, default=14, help="do not run straightforward versions that need more"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    arguments = parser.parse_args()
    print(f"$ python {shlex.join(sys.argv)}")
    print(f"torch {torch.__version__}, float32, {arguments.threads} threads, {named(arguments.device)}\n")
    header = [
        "method",
        "B",
        "S",
        "T",
        "ms",
        "MiB",
        "plain ms",
        "plain MiB",
        "times faster",
        "times leaner",
        "difference",
    ]
    print("| " + " | ".join(header) + " |\n|" + "---|" * len(header), flush=True)
    costs: dict[Case, Cost] = {}
    for case in grid(arguments.quick):
        line, costs[case] = row(case, arguments.device, arguments.threads, arguments.memory_limit_gib * 2**30)
        print(line, flush=True)
    if not arguments.quick:
        step = in_own_process(training_pass, arguments.device, (128,), (2,), arguments.threads)
        print(f"\nViT-S/16 forward + backward, B = 128: {step.seconds:.4g} s, {step.peak_bytes / MIB:.0f} MiB.")
        for case, cost in costs.items():
            if case.batch_size == 128:
                print(f"{case.name} with T = {sum(case.teacher_dims)}: {cost.seconds / step.seconds:.3%} of it")
        print(f"Target for aft: less than {TARGET_STEP_SHARE:.0%}.")


if __name__ == "__main__":
    main()
