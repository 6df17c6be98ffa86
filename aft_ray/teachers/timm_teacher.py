"""timm image models as teachers: the pooled output before the classifier."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np
import timm
import torch
from timm.data import resolve_data_config

from aft_ray.config import InputError, TeacherConfig
from aft_ray.images import ImageTransform, normalise
from aft_ray.teachers.base import TeacherDescription
from aft_ray.teachers.precision import autocast
from aft_ray.weights import as_timm, load_state_dict, locate, sha256


def describe(config: TeacherConfig) -> TeacherDescription:
    transform = _transform(config)
    published = timm.get_pretrained_cfg(_model_name(config))
    if config.weights is None and (published is None or not published.has_weights):
        raise InputError(f"Teacher '{config.model}' has no published weights in timm; set 'weights' to a file.")
    weights = sha256(locate(config.weights)) if config.weights else str(published.hf_hub_id or published.url)
    fingerprint = {
        "model": config.model,
        "weights": weights,
        "transform": transform.fingerprint(),
        "pooling": "model",
        "precision": config.precision,
    }
    return TeacherDescription("image", transform, fingerprint)


def build(config: TeacherConfig, device: torch.device) -> TimmTeacher:
    return TimmTeacher(config, device)


class TimmTeacher:
    """A timm model without its classifier, in evaluation mode.

    Call it with (n, size, size, 3) uint8 images; it gives (n, feature_dim) float32 on the CPU.
    """

    def __init__(self, config: TeacherConfig, device: torch.device) -> None:
        name = _model_name(config)
        own_weights = config.weights is not None
        extra: dict[str, Any] = {"img_size": config.image_size} if _takes_image_size(name, config) else {}
        model = timm.create_model(name, pretrained=not own_weights, num_classes=0, **extra)
        if config.weights is not None:
            _load(model, config.weights)
        self.transform = _transform(config)
        self.device = device
        self.precision = config.precision
        self.model = model.eval().requires_grad_(False).to(device)
        self.feature_dim = int(model.num_features if not hasattr(model, "head_hidden_size") else model.head_hidden_size)

    @torch.inference_mode()
    def __call__(self, inputs: np.ndarray | Sequence[str]) -> torch.Tensor:
        images = normalise(torch.tensor(inputs).to(self.device, non_blocking=True), self.transform)
        with autocast(self.device, self.precision):
            features = self.model(images)
        return features.float().cpu()


def _model_name(config: TeacherConfig) -> str:
    name = config.model.partition(":")[2]
    if not timm.is_model(name.partition(".")[0]):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise InputError(f"timm knows no model '{name}'.{hint}")
    return name


def _transform(config: TeacherConfig) -> ImageTransform:
    published = timm.get_pretrained_cfg(_model_name(config))
    data = resolve_data_config(pretrained_cfg=published.to_dict() if published else {}, verbose=False)
    return ImageTransform.from_data_config(data, config.image_size)


def _takes_image_size(name: str, config: TeacherConfig) -> bool:
    """Transformers have position embeddings of one size and resample them; convolutions take any size as it is."""
    published = timm.get_pretrained_cfg(name)
    return config.image_size is not None and bool(published and published.fixed_input_size)


def _load(model: torch.nn.Module, location: str) -> None:
    """The weights file into the model; only a classifier that the model does not have may be left over."""
    state = as_timm(load_state_dict(location), model.state_dict())
    wanted = model.state_dict()
    missing = sorted(wanted.keys() - state.keys())
    if missing:
        raise InputError(f"{location} lacks {len(missing)} of the model's tensors, such as '{missing[0]}'.")
    classifier = getattr(model, "pretrained_cfg", {}).get("classifier", ())
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier or ())
    left_over = sorted(key for key in state.keys() - wanted.keys() if key.rpartition(".")[0] not in names)
    if left_over:
        raise InputError(f"{location} has tensors that the model does not have, such as '{left_over[0]}'.")
    model.load_state_dict({key: state[key] for key in wanted})
