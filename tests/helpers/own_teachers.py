"""Teachers of a user's own, as recipes name them: `tests.helpers.own_teachers:Means`."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from aft_ray.models.teachers.base import TeacherDescription
from aft_ray.recipe.sections import TeacherConfig
from tests.helpers.deadly import Crop, end_at

SIZE = 8


class Means:
    """The pixels of an 8 x 8 crop as 192 features.

    Options: `log`, a file that gets a line `pid samples` per batch; `beside`, the number of processes that must be in the
    log before a batch goes on; `pause_s` per batch; `room`, the batch size that the device's memory has room for;
    `largest_file`, the bytes after which the disk is full; `deadly` and `deadly_to_crop`, the pixels of a crop, as
    hexadecimal, that ends this process or the one that makes it. None changes the features.
    """

    def __init__(self, config: TeacherConfig, device: torch.device) -> None:
        self.options = config.options
        self.feature_dim = SIZE * SIZE * 3
        if "largest_file" in self.options:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.options["largest_file"],) * 2)

    @classmethod
    def describe(cls, config: TeacherConfig) -> TeacherDescription:
        return TeacherDescription("image", Crop(SIZE, deadly=config.options.get("deadly_to_crop")), {"options": {}})

    def __call__(self, inputs: np.ndarray | Sequence[str]) -> torch.Tensor:
        if len(inputs) > self.options.get("room", len(inputs)):
            raise torch.OutOfMemoryError("no room")
        if "log" in self.options:
            with Path(self.options["log"]).open("a") as log:
                log.write(f"{os.getpid()} {len(inputs)}\n")
        while "beside" in self.options and self._at_work() < self.options["beside"]:
            time.sleep(0.05)
        time.sleep(self.options.get("pause_s", 0))
        for crop in np.array(inputs):
            end_at(crop, self.options.get("deadly"))
        return torch.from_numpy(np.array(inputs)).flatten(1).float() / 255

    def _at_work(self) -> int:
        return len({pid for pid, _ in calls(Path(self.options["log"]))})


class Place(Means):
    """One feature: 1 on a GPU, 0 on the CPU."""

    def __init__(self, config: TeacherConfig, device: torch.device) -> None:
        self.place, self.feature_dim = torch.zeros(1, device=device), 1

    def __call__(self, inputs: np.ndarray | Sequence[str]) -> torch.Tensor:
        return torch.full((len(inputs), 1), float(self.place.is_cuda))


class Tight(Means):
    """Takes 64 MiB of the GPU for each picture, of which its process may have 200."""

    def __init__(self, config: TeacherConfig, device: torch.device) -> None:
        super().__init__(config, device)
        torch.cuda.set_per_process_memory_fraction(200 * 2**20 / torch.cuda.get_device_properties(0).total_memory)

    def __call__(self, inputs: np.ndarray | Sequence[str]) -> torch.Tensor:
        torch.empty(len(inputs), 64 * 2**20, dtype=torch.uint8, device="cuda")
        return super().__call__(inputs)


def calls(log: Path) -> list[tuple[int, int]]:
    """What `log` tells: (pid, samples) of every batch so far."""
    if not log.exists():
        return []
    lines = (line.split() for line in log.read_text().splitlines())
    return [(int(pid), int(samples)) for pid, samples in lines]
