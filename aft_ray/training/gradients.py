"""The gradients of a step: of a batch in one piece, in parts with the kernels still whole, or of the regularizer alone.

A kernel loss is not a sum over rows, so the gradients of parts cannot simply be added. But it depends on the rows only
through the student's logits and features, which are small. With these outputs z = f(x; w) and the loss L(z, v), where v are
the regularizer's parameters, dL/dw is the sum over the parts p of (dz_p/dw)' dL/dz_p. Hence, as in GradCache
(arXiv 2101.06983),

1. all parts go through the student without keeping activations, for the logits and features z of all rows;
2. the loss of the whole global batch gives dL/dz and dL/dv;
3. each part goes through the student again, keeping its activations, and backward with its rows of dL/dz.

Both passes draw the same random numbers, so they compute the same. The result equals one piece's up to the order of
additions, except where the student draws random numbers (other masks of dropout) or looks at several rows: batch norm
normalises each part by itself, and its running statistics follow the parts. The price is one more forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from aft_ray.regularizers.distributed import sum_over_workers, world_size
from aft_ray.training.inputs.batch import Batch
from aft_ray.training.task import TransferTask, flat

Losses = dict[str, torch.Tensor]


def backward(
    trainee: TransferTask | DistributedDataParallel,
    batch: Batch,
    *,
    seed: int,
    parts: int = 1,
    scale: Callable[[torch.Tensor], torch.Tensor],
) -> Losses:
    """Adds the gradients of `scale(loss)`, averaged over workers, to all parameters. Returns the losses.

    batch: this worker's rows, which go through the student in `parts` parts. seed: for the student's random numbers.
    """
    if parts == 1:
        _seed(seed, batch)
        losses: Losses = trainee(batch)
        scale(losses["loss"]).backward()
        return losses
    task = trainee.module if isinstance(trainee, DistributedDataParallel) else trainee
    pieces = batch.split(parts)
    outputs = list(zip(*(_outputs(task, piece, seed + part) for part, piece in enumerate(pieces)), strict=True))
    whole = [torch.cat(rows).float().requires_grad_() for rows in outputs]
    losses = task.losses(whole[0], whole[1] if len(whole) == 2 else tuple(whole[1:]), batch)
    leaves = [*whole, *task.own_parameters()]  # some regularizers do not look at all of the student's outputs
    gradients = torch.autograd.grad(scale(losses["loss"]), leaves, materialize_grads=True)
    of_outputs = zip(*(g.split([len(rows) for rows in outputs[0]]) for g in gradients[: len(whole)]), strict=True)
    for part, (piece, known) in enumerate(zip(pieces, of_outputs, strict=True)):
        last = part == len(pieces) - 1
        waits = isinstance(trainee, DistributedDataParallel) and not last
        with trainee.no_sync() if waits else nullcontext():  # type: ignore[operator]
            _seed(seed + part, piece)
            trainee(piece, [*known, *gradients[len(whole) :]] if last else known)["loss"].backward()
    return losses


def regularizer_backward(task: TransferTask, batch: Batch, *, seed: int) -> None:
    """Adds the gradients of the weighted regularizer, averaged over workers, to its own parameters; the student rests."""
    logits, *features = _outputs(task, batch, seed)
    regularization = task.regularization(logits, features[0] if len(features) == 1 else tuple(features), batch)
    own = task.own_parameters()
    for parameter, gradient in zip(own, torch.autograd.grad(task.beta * regularization, own), strict=True):
        parameter.grad = sum_over_workers(gradient) / world_size()


@torch.no_grad()
def _outputs(task: TransferTask, batch: Batch, seed: int) -> tuple[torch.Tensor, ...]:
    """Logits and features, without a trace in the student."""
    _seed(seed, batch)
    with _unchanged_buffers(task.student):
        return flat(*task.run_student(batch.inputs))


def _seed(seed: int, batch: Batch) -> None:
    """`torch.manual_seed` for the devices in use; for other devices it formats a stack trace, which takes half a millisecond."""
    torch.default_generator.manual_seed(seed)
    if batch.labels.is_cuda:
        torch.cuda.manual_seed(seed)


@contextmanager
def _unchanged_buffers(module: nn.Module) -> Iterator[None]:
    """Restores the buffers at the end: batch norm's statistics must not count these rows."""
    before = [buffer.clone() for buffer in module.buffers()]
    yield
    for buffer, value in zip(module.buffers(), before, strict=True):
        buffer.copy_(value)
