"""Every regularizer on 1, 2 and 3 real processes: same value, same gradients after DDP, same parameters after two steps."""

import copy
import multiprocessing
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import start_processes
from torch.nn.parallel import DistributedDataParallel

from aft_ray.regularizers import REGULARIZERS, FeatureEncoder, build_regularizer
from aft_ray.regularizers.distributed import declared_row_counts
from tests.helpers.probes import made_probes, with_logits

NUM_ROWS = 9
SHARES: dict[int, list[tuple[int, ...]]] = {2: [(6, 3)], 3: [(4, 3, 2), (5, 0, 4)]}
TEACHER_DIMS = [10, 9]
INPUT_DIM, STUDENT_DIM, MODALITY_DIMS = 4, 12, (6, 7)
CASES: dict[str, dict[str, Any]] = {name: {"name": name} for name in REGULARIZERS} | {
    "aft product": {"name": "aft", "combine": "product"},
    "aft per teacher": {"name": "aft", "normalize": "per_teacher"},
    "aft fixed gates": {"name": "aft", "learn_gates": False},
    "aft of two and one teacher": {"name": "aft", "combine": "product", "teacher_dims": [4, 9, 6], "towers": [0, 1, 0]},
    "kd product": {"name": "kd", "combine": "product"},
    "kd of two and one teacher": {"name": "kd", "combine": "product", "teacher_dims": [4, 9, 6], "towers": [0, 1, 0]},
    "ft encoder": {"name": "ft"},
    "aft_probe product": {"name": "aft_probe", "combine": "product"},
    "aft_probe with noise": {"name": "aft_probe"},
    "probe_kd product": {"name": "probe_kd", "combine": "product"},
    "probe_kd with noise": {"name": "probe_kd"},
    "probe_kd of several labels": {"name": "probe_kd", "task": "multilabel"},
    "probe_kd of numbers": {"name": "probe_kd", "task": "regression"},
}
Record: TypeAlias = dict[str, Tensor]
WorkerRecords: TypeAlias = dict[int, list[dict[str, Record]]]


class Model(nn.Module):
    """A linear student with its regularizer: all that trains runs in the forward that DDP wraps, as in `task.py`."""

    def __init__(self, case: str, scope: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        options = dict(CASES[case])
        if options["name"] == "btune":
            options["student_weights"] = torch.randn(5, STUDENT_DIM)
            options["teacher_weights"] = [torch.randn(5, dim) for dim in TEACHER_DIMS]
            options["scores"] = [0.1, 0.2]
        if case == "ft encoder":
            options["encoder"] = FeatureEncoder(TEACHER_DIMS)
        if options["name"] in ("aft_probe", "probe_kd"):
            dims, noise = TEACHER_DIMS, [0] if "noise" in case else []
            options["probes"] = made_probes([sum(dims)] if "combine" in options else dims, noise=noise)
        self.dims = MODALITY_DIMS if "combine" in options else (STUDENT_DIM,)
        self.student = nn.Linear(INPUT_DIM, sum(self.dims))
        student_dim = self.dims if len(self.dims) > 1 else self.dims[0]
        built = build_regularizer(student_dim=student_dim, scope=scope, **{"teacher_dims": TEACHER_DIMS, **options})
        self.regularizer = with_logits(built)
        for parameter in self.parameters():  # no zeros: the last layer of ft would hide the others' gradients
            with torch.no_grad():  # but a gate that is closed for good stays so
                parameter.copy_(torch.where(parameter.isinf(), parameter, 0.5 * torch.randn_like(parameter)))
        self.double()

    def forward(self, inputs: Tensor, teacher_features: Tensor) -> Tensor:
        parts = self.student(inputs).split(self.dims, dim=1)
        value: Tensor = self.regularizer(parts if len(parts) > 1 else parts[0], teacher_features)
        return value


def batches(num: int = 2) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    widths = (INPUT_DIM, sum(TEACHER_DIMS))
    return [
        tuple(torch.randn(NUM_ROWS, width, generator=generator, dtype=torch.float64) for width in widths)  # type: ignore
        for _ in range(num)
    ]


def train(model: nn.Module, parts: list[tuple[Tensor, Tensor]]) -> Record:
    """Values, gradients of the first step, and parameters after one Adam step per batch."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    record: Record = {}
    for step, (inputs, teacher_features) in enumerate(parts):
        optimizer.zero_grad()
        inputs.requires_grad_()
        value = model(inputs, teacher_features)
        value.backward()
        record[f"value {step}"] = value.detach()
        if step == 0:
            assert inputs.grad is not None
            record["grad inputs"] = inputs.grad.clone()
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    assert parameter.grad is not None, name
                    record[f"grad {name.removeprefix('module.')}"] = parameter.grad.clone()
        optimizer.step()
    for name, parameter in model.named_parameters():
        record[f"final {name.removeprefix('module.')}"] = parameter.detach().clone()
    return record


def shares_of(batch: tuple[Tensor, Tensor], counts: tuple[int, ...], rank: int) -> tuple[Tensor, Tensor]:
    inputs, teacher_features = (x.split(list(counts))[rank].clone() for x in batch)
    return inputs, teacher_features


def run_worker(rank: int, folder: Path) -> None:
    """One process takes part in every group it has a place in, so that each is started once."""
    torch.set_num_threads(1)
    for world_size in SHARES:
        if rank < world_size:
            run_group(rank, world_size, folder)


def run_group(rank: int, world_size: int, folder: Path) -> None:
    store = (folder / f"store-{world_size}").as_uri()
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world_size)
    records: dict[str, Record] = {}
    for counts in SHARES[world_size]:
        parts = [shares_of(batch, counts, rank) for batch in batches()]
        for case in CASES:
            records[f"{case} {counts}"] = train(DistributedDataParallel(Model(case, "global")), parts_copy(parts))
    counts = SHARES[world_size][0]
    parts = [shares_of(batch, counts, rank) for batch in batches()]
    with declared_row_counts(counts):
        records["declared"] = train(DistributedDataParallel(Model("aft", "global")), parts_copy(parts))
    records["worker scope"] = {"value": Model("aft", "worker")(*parts[0]).detach()}
    with declared_row_counts([1] * world_size):
        with pytest.raises(ValueError, match="declared_row_counts must name the rows of each of the"):
            Model("aft", "global")(*parts[0])
    torch.save(records, folder / f"{world_size}-{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def parts_copy(parts: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    return [(inputs.clone(), teacher_features.clone()) for inputs, teacher_features in parts]


@pytest.fixture(scope="module")
def worker_records(tmp_path_factory: pytest.TempPathFactory) -> WorkerRecords:
    """What each worker recorded, by world size: processes are started once for all cases."""
    folder = tmp_path_factory.mktemp("workers")
    # A server that has imported torch forks the workers: they need not import it each.
    multiprocessing.set_forkserver_preload(["torch._dynamo", "aft_ray.regularizers"])
    start_processes(run_worker, (folder,), nprocs=max(SHARES), start_method="forkserver")
    return {n: [torch.load(folder / f"{n}-{rank}.pt", weights_only=True) for rank in range(n)] for n in SHARES}


def assert_equal(ours: Tensor, expected: Tensor, key: str) -> None:
    torch.testing.assert_close(ours, expected, atol=1e-9, rtol=1e-9, msg=lambda text: f"{key}: {text}")


@pytest.mark.processes
@pytest.mark.parametrize("case", CASES)
def test_workers_agree_with_one_process_on_the_concatenated_batch(case: str, worker_records: WorkerRecords) -> None:
    expected = train(Model(case, "global"), batches())
    for world_size, records in worker_records.items():
        for counts in SHARES[world_size]:
            ours = [record[f"{case} {counts}"] for record in records]
            gathered = torch.cat([record.pop("grad inputs") for record in map(copy.copy, ours)])
            assert_equal(gathered / world_size, expected["grad inputs"], "grad inputs")
            for record in ours:
                for key in expected.keys() - {"grad inputs"}:
                    assert_equal(record[key], expected[key], key)


@pytest.mark.processes
def test_declared_row_counts_change_nothing(worker_records: WorkerRecords) -> None:
    for world_size, records in worker_records.items():
        for record in records:
            exchanged = record[f"aft {SHARES[world_size][0]}"]
            assert all(torch.equal(value, exchanged[key]) for key, value in record["declared"].items())


@pytest.mark.processes
def test_worker_scope_is_about_the_workers_own_rows(worker_records: WorkerRecords) -> None:
    for world_size, records in worker_records.items():
        for rank, record in enumerate(records):
            part = shares_of(batches()[0], SHARES[world_size][0], rank)
            torch.testing.assert_close(record["worker scope"]["value"], Model("aft", "global")(*part).detach())
