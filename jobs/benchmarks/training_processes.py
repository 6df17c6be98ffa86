"""Runs a trainer in separate processes, one for each worker, and measures their memory."""

from __future__ import annotations

import multiprocessing
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

from jobs.benchmarks.training_setting import Measured, Setting

MIB = 2**20


@contextmanager
def group(setting: Setting, rank: int, folder: str) -> Iterator[None]:
    """A gloo process group of the setting's workers, where there are several."""
    if setting.workers == 1:
        yield
        return
    store = Path(folder, "store").as_uri()
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=setting.workers)
    yield
    dist.destroy_process_group()


def finish(device: str) -> None:
    """Waits until the GPU has finished."""
    if device == "cuda":
        torch.cuda.synchronize()


def peak_mib() -> float:
    """Peak memory of this process; of the device if it has used a GPU."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / MIB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak / 1024


def worker(function: Callable[..., Measured], setting: Setting, rank: int, folder: str, threads: int) -> Measured:
    torch.set_num_threads(threads)
    return function(setting, rank, folder)


def in_processes(function: Callable[..., Measured], setting: Setting, threads: int) -> Measured:
    """Runs each of the setting's workers in a process with `threads` threads. Returns the slowest worker's result."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch._dynamo", "timm", "aft_ray.training.fit"])
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(setting.workers, context) as pool:
        calls = [pool.submit(worker, function, setting, rank, folder, threads) for rank in range(setting.workers)]
        found = [call.result() for call in calls]
    slowest = min(found, key=lambda measured: measured.samples_per_s)
    return replace(slowest, memory_mib=max(measured.memory_mib for measured in found))
