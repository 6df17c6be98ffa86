"""Differentiable gathers, sums and means over the workers of the default process group; the identity without one.

Every operation here has its true adjoint as backward: a gather's gradient is summed over workers, and so is a sum's.
Each worker then computes the same global value, its backward yields `world_size` times the gradient, and the average that
DistributedDataParallel takes over workers makes it the gradient of one process that holds the concatenated batch, for the inputs
of the gathered rows and for parameters that every worker copies. Where a sum is the loss itself, all workers
differentiate the same number, and its adjoint is known without asking them: `sum_of_losses` and `Rows.mean_loss`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import pad

_declared_counts: ContextVar[tuple[int, ...] | None] = ContextVar("declared_row_counts", default=None)


def world_size() -> int:
    """Number of workers; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this worker, from 0; 0 without a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def sum_over_workers(x: Tensor) -> Tensor:
    """Elementwise sum of every worker's ``x`` (same shape everywhere), differentiable."""
    return x if world_size() == 1 else _SumOverWorkers.apply(x)


def sum_of_losses(x: Tensor) -> Tensor:
    """`sum_over_workers` for a term that every worker adds to its loss alike: backward exchanges nothing."""
    return begin_sum_of_losses(x)()[0]


def begin_sum_of_losses(x: Tensor, *constants: Tensor) -> Callable[[], tuple[Tensor, ...]]:
    """Begins `sum_of_losses`, and in the same exchange sums ``constants`` of the same shape, without a gradient. Call the result
    to wait for the end and get all sums."""
    if world_size() == 1:
        return lambda: (x, *constants)
    totals = torch.stack([x.detach(), *(constant.to(x) for constant in constants)])
    exchange = dist.all_reduce(totals, async_op=True)

    def finish() -> tuple[Tensor, ...]:
        exchange.wait()
        total, *others = totals.unbind()
        return _SumOfLosses.apply(x, total), *others

    return finish


def copy_from_main(tensors: Iterable[Tensor]) -> None:
    """Overwrites each tensor with the main worker's, in place."""
    if world_size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, 0)


@dataclass(frozen=True)
class Rows:
    """How the B rows of a batch lie over workers, with the operations a loss over the whole batch needs."""

    counts: tuple[int, ...]
    """Rows of each worker, in rank order."""
    rank: int
    """This worker, an index into ``counts``."""

    @property
    def total(self) -> int:
        """B."""
        return sum(self.counts)

    @property
    def own(self) -> slice:
        """Where this worker's rows are among the gathered ones."""
        start = sum(self.counts[: self.rank])
        return slice(start, start + self.counts[self.rank])

    def gather(self, x_bD: Tensor) -> Tensor:
        """``x`` (B, ...) of all rows, in rank order, from this worker's (b, ...)."""
        return x_bD if len(self.counts) == 1 else _GatherRows.apply(self.counts, self.rank, x_bD)[0]

    def gather_together(self, *xs_bD: Tensor) -> tuple[Tensor, ...]:
        """`gather` of several, (b, D_k) each, in one exchange."""
        return xs_bD if len(self.counts) == 1 else _GatherRows.apply(self.counts, self.rank, *xs_bD)

    def keep(self, x_BD: Tensor) -> Tensor:
        """This worker's rows (b, ...) of the gathered ``x`` (B, ...)."""
        return x_BD if len(self.counts) == 1 else x_BD[self.own]  # the gradient of a slice is a copy of the whole

    def mean(self, x_bD: Tensor) -> Tensor:
        """Mean of ``x`` over all B rows, from this worker's (b, ...)."""
        own_sum = x_bD.sum(0)
        return (own_sum if len(self.counts) == 1 else sum_over_workers(own_sum)) / self.total

    def total_loss(self, x: Tensor) -> Tensor:
        """``x`` summed over workers, for a term that every worker adds to its loss alike: backward exchanges nothing."""
        return x if len(self.counts) == 1 else sum_of_losses(x)

    def mean_loss(self, x_bD: Tensor) -> Tensor:
        """`mean` with the backward of `total_loss`."""
        return self.total_loss(x_bD.sum(0)) / self.total


def global_rows(num_rows: int, device: torch.device) -> Rows:
    """The layout of the global batch; this worker holds ``num_rows`` of its rows.

    The workers tell each other their counts, which copies W integers to the host and so waits for ``device``; inside
    `declared_row_counts` nothing is exchanged and nothing waits.
    """
    if world_size() == 1:
        return Rows((num_rows,), 0)
    counts = _declared_counts.get()
    if counts is None:
        own = torch.tensor([num_rows], device=device)
        gathered = own.new_empty(world_size())
        dist.all_gather_into_tensor(gathered, own)
        counts = tuple(gathered.tolist())
    elif len(counts) != world_size() or counts[rank()] != num_rows:
        raise ValueError(
            f"declared_row_counts must name the rows of each of the {world_size()} workers, {num_rows} of them on "
            f"worker {rank()}, got {list(counts)}."
        )
    return Rows(counts, rank())


@contextmanager
def declared_row_counts(counts: Sequence[int]) -> Iterator[None]:
    """Within this context batches have ``counts[r]`` rows on worker r, so that no worker has to ask the others.

    For a training loop that knows how its sampler divides the batch. All workers must enter it with the same counts; one
    that holds a different number of rows gets a ``ValueError``. Without a process group it has no effect.
    """
    token = _declared_counts.set(tuple(counts))
    try:
        yield
    finally:
        _declared_counts.reset(token)


class _SumOverWorkers(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _SumOverWorkers.apply(grad)


class _SumOfLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, total: Tensor) -> Tensor:
        return total.view_as(total)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * world_size(), None  # the others' gradients are the same


class _GatherRows(torch.autograd.Function):
    """All-gather whose backward reduce-scatters. Shares travel padded to the longest: collectives need equal shapes.

    Several tensors travel side by side; backward only tensors with a gradient travel.
    """

    @staticmethod
    def forward(ctx: Any, counts: tuple[int, ...], rank: int, *xs_bD: Tensor) -> tuple[Tensor, ...]:
        ctx.counts, ctx.rank = counts, rank
        share = _pad_rows(_side_by_side(xs_bD), max(counts)).contiguous()
        shares = share.new_empty(len(counts) * share.shape[0], *share.shape[1:])
        dist.all_gather_into_tensor(shares, share)
        if min(counts) < max(counts):
            padded = zip(shares.split(max(counts)), counts, strict=True)
            shares = torch.cat([rows[:count] for rows, count in padded])
        gathered = _apart(shares, xs_bD)
        ctx.mark_non_differentiable(*(y for y, x in zip(gathered, xs_bD, strict=True) if not x.requires_grad))
        return gathered

    @staticmethod
    def backward(ctx: Any, *grads_BD: Tensor) -> tuple[Tensor | None, ...]:
        longest, needed = max(ctx.counts), ctx.needs_input_grad[2:]
        asked = [grad for grad, wanted in zip(grads_BD, needed, strict=True) if wanted]
        packed = _side_by_side(asked)
        if min(ctx.counts) < longest:
            packed = torch.cat([_pad_rows(share, longest) for share in packed.split(ctx.counts)])
        own = packed.new_empty(longest, *packed.shape[1:])
        dist.reduce_scatter_tensor(own, packed.contiguous())
        of_asked = iter(_apart(own[: ctx.counts[ctx.rank]], asked))
        return None, None, *(next(of_asked) if wanted else None for wanted in needed)


def _side_by_side(xs: Sequence[Tensor]) -> Tensor:
    return xs[0] if len(xs) == 1 else torch.cat(list(xs), dim=1)


def _apart(packed: Tensor, like: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Splits the result of `_side_by_side` into the widths and types of `like`."""
    if len(like) == 1:
        return (packed,)
    parts = packed.split([x.shape[1] for x in like], dim=1)
    return tuple(part.to(x.dtype) for part, x in zip(parts, like, strict=True))


def _pad_rows(x_bD: Tensor, num_rows: int) -> Tensor:
    return pad(x_bD, (0, 0) * (x_bD.dim() - 1) + (0, num_rows - x_bD.shape[0]))
