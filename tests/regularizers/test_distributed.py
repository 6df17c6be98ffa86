"""Gathers and sums: identities in one process, true adjoints over spawned ones."""

import multiprocessing
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import start_processes

from aft_ray.regularizers.distributed import (
    Rows,
    copy_from_main,
    declared_row_counts,
    global_rows,
    rank,
    sum_of_losses,
    sum_over_workers,
    world_size,
)

COUNTS = (3, 0, 2)


def rows_of(worker: int) -> Tensor:
    generator = torch.Generator().manual_seed(worker)
    return torch.randn(COUNTS[worker], 4, generator=generator, dtype=torch.float64)


def gather_rows(x: Tensor) -> Tensor:
    return global_rows(x.shape[0], x.device).gather(x)


def weights_of(worker: int) -> Tensor:
    return torch.arange(sum(COUNTS) * 4, dtype=torch.float64).reshape(-1, 4) + 100.0 * worker


def run_worker(worker: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=(folder / "store").as_uri(), rank=worker, world_size=len(COUNTS))
    assert (world_size(), rank()) == (3, worker)
    own = rows_of(worker).requires_grad_()
    gathered = gather_rows(own)
    (gathered * weights_of(worker)).sum().backward()
    layout = global_rows(COUNTS[worker], torch.device("cpu"))
    assert layout == Rows(COUNTS, worker)
    summand = torch.full((2,), float(worker + 1), requires_grad=True)
    total = sum_over_workers(summand)
    (total * (worker + 1)).sum().backward()
    loss_share = torch.full((2,), float(worker + 1), requires_grad=True)
    own_value = sum_of_losses(loss_share).square().sum() + layout.mean_loss(own.detach()).sum()
    with mock.patch.object(dist, "all_reduce", side_effect=AssertionError("asked the others")):
        own_value.backward()
    constant, first, last = own.detach().float(), own.detach().requires_grad_(), own.detach()[:, :1].requires_grad_()
    firsts, constants, lasts = layout.gather_together(first, constant, last)
    assert constants.dtype == torch.float32 and not constants.requires_grad
    assert torch.equal(firsts, gathered) and torch.equal(constants, gathered.float()) and lasts.shape[1] == 1
    ((firsts * weights_of(worker)).sum() + (lasts * weights_of(worker)[:, :1]).sum()).backward()
    assert first.grad is not None and last.grad is not None and own.grad is not None
    assert torch.equal(first.grad, own.grad) and torch.equal(last.grad, own.grad[:, :1])
    vector = gather_rows(torch.full((2,), worker, dtype=torch.int64))
    with declared_row_counts(COUNTS):
        declared = gather_rows(own.detach())
        with mock.patch.object(dist, "all_gather_into_tensor", side_effect=AssertionError("asked the others")):
            assert global_rows(COUNTS[worker], torch.device("cpu")) == layout
    mean = layout.mean(own.detach())
    assert torch.equal(layout.keep(gathered), own)
    copied = torch.full((2,), float(worker))
    copy_from_main([copied])
    assert copied.tolist() == [0.0, 0.0]
    assert own.grad is not None and summand.grad is not None and loss_share.grad is not None
    record = {"gathered": gathered.detach(), "grad": own.grad, "declared": declared, "mean": mean, "vector": vector}
    record |= {
        "total": total.detach(),
        "summand grad": summand.grad,
        "loss grad": loss_share.grad,
        "loss": own_value.detach(),
    }
    torch.save(record, folder / f"{worker}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.processes
def test_gather_and_sum_over_unequal_workers_have_their_adjoints_as_backward(tmp_path: Path) -> None:
    # A server that has imported torch forks the workers: they need not import it each.
    multiprocessing.set_forkserver_preload(["torch._dynamo", "aft_ray.regularizers"])
    start_processes(run_worker, (tmp_path,), nprocs=len(COUNTS), start_method="forkserver")
    everyone = torch.cat([rows_of(worker) for worker in range(3)])
    grad_parts = torch.stack([weights_of(worker) for worker in range(3)]).sum(0).split(COUNTS)
    for worker, grad in enumerate(grad_parts):
        record = torch.load(tmp_path / f"{worker}.pt", weights_only=True)
        assert torch.equal(record["gathered"], everyone)
        assert torch.equal(record["declared"], everyone)
        assert torch.equal(record["grad"], grad)
        assert record["vector"].tolist() == [0, 0, 1, 1, 2, 2]
        assert record["total"].tolist() == [6.0, 6.0]
        assert record["summand grad"].tolist() == [6.0, 6.0]
        assert record["loss grad"].tolist() == [36.0, 36.0], "three times that of one process: DDP takes the mean"
        torch.testing.assert_close(record["loss"], 72 + everyone.mean(0).sum())
        torch.testing.assert_close(record["mean"], everyone.mean(0))


def test_without_a_process_group_everything_is_the_identity() -> None:
    x = torch.randn(3, 2)
    assert (world_size(), rank()) == (1, 0)
    assert gather_rows(x) is x
    assert sum_over_workers(x) is x and sum_of_losses(x) is x
    layout = global_rows(3, x.device)
    assert layout == Rows((3,), 0)
    assert layout.own == slice(0, 3)
    assert layout.gather(x) is x and layout.keep(x) is x
    torch.testing.assert_close(layout.mean(x), x.mean(0))


def test_own_rows_follow_those_of_lower_ranks() -> None:
    assert [Rows((4, 0, 2), rank).own for rank in range(3)] == [slice(0, 4), slice(4, 4), slice(4, 6)]
    assert Rows((4, 0, 2), 0).total == 6


def test_declared_row_counts_end_with_their_context_and_mean_nothing_in_one_process() -> None:
    with pytest.raises(RuntimeError, match="stop"), declared_row_counts([1, 2]):
        assert global_rows(5, torch.device("cpu")) == Rows((5,), 0)
        raise RuntimeError("stop")
