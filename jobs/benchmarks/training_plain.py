"""A plain PyTorch script: a DataLoader, a student under DDP, Adam, and the AFT loss written from the paper."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.distributed.nn.functional import all_gather
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from aft_ray.models.students import build_student
from aft_ray.training.inputs.batches import Split
from jobs.benchmarks.training_processes import finish, group, peak_mib
from jobs.benchmarks.training_setting import Measured, Setting, made_data, recipe


class Images(Dataset[Any]):
    def __init__(self, split: Split) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int, np.ndarray]:
        assert isinstance(self.split.inputs, np.ndarray)
        return self.split.inputs[index], self.split.labels[index], self.split.features["teacher"][index]


def run_plain(setting: Setting, rank: int, folder: str) -> Measured:
    """A DataLoader in this process, a student under DDP, Adam and the AFT loss written from the paper.

    With `scope="worker"` each worker compares the kernels of its own rows, as in a script that is just wrapped in DDP; with
    "global" torch's own function gathers all rows. A teacher runs on the batch's images, without a gradient, instead of stored
    features.
    """
    with group(setting, rank, folder):
        given = recipe(setting)
        torch.manual_seed(0)
        student: torch.nn.Module = build_student(given.student, 10).to(setting.device)
        if setting.workers > 1:
            student = DistributedDataParallel(student)
        gates = torch.nn.Parameter(torch.zeros(setting.dim, device=setting.device))
        optimizer = torch.optim.Adam([{"params": student.parameters(), "lr": 1e-3}, {"params": [gates], "lr": 1e-2}])
        teacher = make_teacher(setting) if setting.teacher else None
        train = made_data(setting).train
        assert isinstance(train, Split)
        images = Images(train)
        sampler: DistributedSampler[Any] = DistributedSampler(images, setting.workers, rank, seed=0)
        size = setting.batch // setting.workers
        on_gpu = {"num_workers": 4, "persistent_workers": True, "pin_memory": True}
        more: dict[str, Any] = on_gpu if setting.device == "cuda" else {}
        loader = DataLoader(images, size, sampler=sampler, drop_last=True, **more)
        autocast = torch.autocast(setting.device, torch.bfloat16, enabled=setting.precision == "bf16")
        stamps = []
        for step, (inputs, labels, features) in enumerate(endless(loader, sampler)):
            if step % setting.steps == 0:
                finish(setting.device)
                stamps.append(time.perf_counter())
                if step == 4 * setting.steps:
                    break
            inputs, labels, features = (x.to(setting.device, non_blocking=True) for x in (inputs, labels, features))
            with autocast:
                if teacher is not None:
                    features = teacher(inputs)
                logits, own = student(inputs)
            loss = cross_entropy(logits.float(), labels)
            if setting.method == "aft":
                features = features.float()
                if setting.workers > 1 and setting.scope == "global":
                    own, features = (torch.cat(all_gather(x)) for x in (own, features))
                difference = kernel(own.float()) - kernel(features * gates.sigmoid())
                loss = loss + 10 * difference.square().mean().add(1e-8).sqrt()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    intervals = [end - start for start, end in zip(stamps[1:], stamps[2:], strict=False)]
    return Measured(setting.steps * setting.batch / statistics.median(intervals), peak_mib())


def run_teacher(setting: Setting, rank: int, folder: str) -> Measured:
    """The teacher on one batch after the other, as extraction runs it."""
    train = made_data(setting).train
    assert isinstance(train, Split)
    loader = DataLoader(Images(train), setting.batch)
    teacher = make_teacher(setting)
    stamps = [time.perf_counter()]
    for inputs, _, _ in loader:
        with torch.autocast(setting.device, torch.bfloat16, enabled=setting.precision == "bf16"):
            teacher(inputs.to(setting.device))
        finish(setting.device)
        stamps.append(time.perf_counter())
    intervals = [end - start for start, end in zip(stamps[1:], stamps[2:], strict=False)]
    return Measured(setting.batch / statistics.median(intervals), peak_mib())


def kernel(features: torch.Tensor) -> torch.Tensor:
    unit = torch.nn.functional.normalize(features - features.mean(0))
    return unit @ unit.T


def endless(loader: DataLoader[Any], sampler: DistributedSampler[Any]) -> Iterator[Any]:
    epoch = 0
    while True:
        sampler.set_epoch(epoch)
        yield from loader
        epoch += 1


def make_teacher(setting: Setting) -> Callable[[torch.Tensor], torch.Tensor]:
    import timm

    model = timm.create_model(setting.teacher, num_classes=0, img_size=setting.image).eval().to(setting.device)

    @torch.no_grad()
    def run(images: torch.Tensor) -> torch.Tensor:
        return model(images.permute(0, 3, 1, 2).float().div(255))

    return run
