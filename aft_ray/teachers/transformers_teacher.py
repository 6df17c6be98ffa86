"""transformers text encoders as teachers: token features pooled to one vector per text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer

from aft_ray.config import InputError, TeacherConfig
from aft_ray.teachers.base import TeacherDescription
from aft_ray.teachers.precision import autocast
from aft_ray.weights import PACKAGE_SCHEME, locate, sha256


def describe(config: TeacherConfig) -> TeacherDescription:
    place = _place(config)
    if config.weights is not None or config.image_size is not None:
        raise InputError(f"Teacher '{config.name}': 'weights' and 'image_size' have no meaning for a text model.")
    directory = locate(place) if _is_directory(place) else None
    fingerprint = {
        "model": config.model,
        "weights": sha256(directory) if directory else place,
        "pooling": config.pooling or "mean",
        "precision": config.precision,
    }
    return TeacherDescription("text", None, fingerprint)


def build(config: TeacherConfig, device: torch.device) -> TransformersTeacher:
    return TransformersTeacher(config, device)


class TransformersTeacher:
    """A text encoder and its tokenizer, in evaluation mode. Call it with n texts; it gives (n, feature_dim) float32.

    `mean` averages the tokens that are not padding; `cls` takes the first token. Neither depends on the other texts.
    """

    def __init__(self, config: TeacherConfig, device: torch.device) -> None:
        place = _place(config)
        source = str(locate(place)) if _is_directory(place) else place
        self.tokenizer = AutoTokenizer.from_pretrained(source)
        self.model = AutoModel.from_pretrained(source).eval().requires_grad_(False).to(device)
        self.feature_dim = int(self.model.config.hidden_size)
        self.max_length = min(int(self.tokenizer.model_max_length), int(self.model.config.max_position_embeddings))
        self.pooling = config.pooling or "mean"
        self.precision = config.precision
        self.device = device

    @torch.inference_mode()
    def __call__(self, inputs: np.ndarray | Sequence[str]) -> torch.Tensor:
        tokens = self.tokenizer(
            list(inputs), padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
        ).to(self.device)
        with autocast(self.device, self.precision):
            hidden = self.model(**tokens).last_hidden_state.float()
        if self.pooling == "cls":
            return hidden[:, 0].cpu()
        mask = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        return ((hidden * mask).sum(1) / mask.sum(1)).cpu()


def _place(config: TeacherConfig) -> str:
    place = config.model.partition(":")[2]
    if not _is_directory(place):
        try:
            AutoConfig.from_pretrained(place)
        except OSError as error:
            raise InputError(
                f"Teacher '{config.model}': no such directory, and the model hub does not give it"
                f" ({str(error).splitlines()[0]})."
            ) from error
    return place


def _is_directory(place: str) -> bool:
    return place.startswith((PACKAGE_SCHEME, "/", "./", "../", "~"))
