"""timm image models as teachers: the pooled output before the classifier.

`timm:NAME` is a model of timm's own list, `timm:hf-hub:REPOSITORY[@REVISION]` and `timm:local-dir:DIRECTORY` are models
saved in timm's format.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import timm
import torch
from timm.data import resolve_data_config
from timm.models._hub import load_model_config_from_path

from aft_ray.models import timm_models
from aft_ray.models.images import ImageTransform, normalise
from aft_ray.models.key_maps import as_timm
from aft_ray.models.model_files import Directory, ModelFiles, Repository, repository
from aft_ray.models.teachers.base import TeacherDescription, refuse
from aft_ray.models.teachers.device import arithmetic, to_device
from aft_ray.models.weights import check_fit, load_state_dict, locate, sha256, weights_file
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import TeacherConfig


class TimmTeacher:
    """A timm model without its classifier, in evaluation mode."""

    @classmethod
    def describe(cls, config: TeacherConfig) -> TeacherDescription:
        refuse(config, "max_length", "pooling", why="timm models, which read images and pool them their own way")
        if config.tower == "text":
            raise InputError("'tower: text' has no meaning for timm models, which read images.")
        source = _Source.of(config)
        return TeacherDescription("image", source.transform(config.image_size), {"weights": source.weights(config)})

    def __init__(self, config: TeacherConfig, device: torch.device) -> None:
        source = _Source.of(config)
        model: Any = source.create(config)
        if config.weights is not None:
            _load(model, config.weights)
        self.transform = source.transform(config.image_size)
        self.device = device
        self.precision = config.precision
        self.feature_dim = int(model.num_features if not hasattr(model, "head_hidden_size") else model.head_hidden_size)
        model = model.eval().requires_grad_(False).to(device)
        self.model = torch.compile(model) if config.compile else model

    @torch.inference_mode()
    def __call__(self, inputs: np.ndarray | Sequence[str]) -> torch.Tensor:
        images = normalise(to_device(np.asarray(inputs), self.device), self.transform)
        with arithmetic(self.device, self.precision):
            features: torch.Tensor = self.model(images)
        return features.float()


@dataclass(frozen=True)
class _Source:
    """Origin of a model.

    name: its name in timm. settings: timm's `pretrained_cfg`. files: place of published weights, if they are files.
    """

    name: str
    settings: dict[str, Any]
    files: ModelFiles | None

    @classmethod
    def of(cls, config: TeacherConfig) -> _Source:
        name = config.model.partition(":")[2]
        scheme, identifier = timm_models.parsed(name)
        if scheme is not None:
            files = repository(identifier) if scheme == "hf-hub" else Directory(locate(identifier))
            place = _pinned(files) if isinstance(files, Repository) else files.path
            settings, _, _ = load_model_config_from_path(files.fetch("config.json").parent)
            return cls(f"{scheme}:{place}", settings, files)
        settings = timm_models.listed(name)
        return cls(name, settings, repository(settings["hf_hub_id"]) if settings.get("hf_hub_id") else None)

    def transform(self, size: int | None) -> ImageTransform:
        return ImageTransform.from_data_config(resolve_data_config(pretrained_cfg=self.settings, verbose=False), size)

    def weights(self, config: TeacherConfig) -> dict[str, str] | str:
        """The identity of the weights. Raises InputError if there are none."""
        if config.weights is not None:
            return sha256(weights_file(config.weights))
        if self.files is not None:
            saved = self.files.digests("config.json") if ":" in self.name else {}
            return saved | self.files.weights(self._weights_names())
        if self.settings.get("url"):
            return str(self.settings["url"])
        raise InputError(f"{self.name} has no published weights in timm; set 'weights' to a file.")

    def _weights_names(self) -> tuple[str, ...]:
        """Files that timm looks for, in its order."""
        if not isinstance(self.files, Repository):
            return timm_models.WEIGHTS_OF_DIRECTORY
        named = self.settings.get("hf_hub_filename")
        return (named.removesuffix(".bin") + ".safetensors", named) if named else timm_models.WEIGHTS

    def create(self, config: TeacherConfig) -> torch.nn.Module:
        """The model without its classifier, with its published weights unless the recipe names others."""
        extra: dict[str, Any] = {}
        if config.image_size is not None and self.settings.get("fixed_input_size"):
            extra["img_size"] = config.image_size  # position embeddings are resampled; convolutions take any size
        if isinstance(self.files, Repository) and ":" not in self.name:
            extra["pretrained_cfg_overlay"] = {"hf_hub_id": _pinned(self.files)}
        model: torch.nn.Module = timm.create_model(self.name, pretrained=config.weights is None, num_classes=0, **extra)
        return model


def _pinned(files: Repository) -> str:
    """The repository in timm's notation, at the identified commit."""
    return f"{files.name}@{files.commit}" if files.commit else files.name


def _load(model: torch.nn.Module, location: str) -> None:
    """Loads the weights file into the model; only the tensors of a classifier may be left over."""
    wanted = model.state_dict()
    state = load_state_dict(location, wanted, lambda state: as_timm(state, wanted))
    check_fit(wanted, state, location)
    classifier = getattr(model, "pretrained_cfg", {}).get("classifier", ())
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier or ())
    left_over = sorted(key for key in state.keys() - wanted.keys() if key.rpartition(".")[0] not in names)
    if left_over:
        raise InputError(f"{location} has tensors that the model does not have, such as '{left_over[0]}'.")
    model.load_state_dict({key: state[key] for key in wanted})
