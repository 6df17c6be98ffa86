"""transformers models as teachers, of text or images: a directory or a repository of the model hub.

Text: bert, distilbert, roberta and xlm-roberta, t5, gpt2, llama and similar models, sentence-transformers checkpoints. Images:
vit, dinov2. Both: clip, siglip, whose half `tower` chooses. Other models run if the recipe sets `pooling`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from aft_ray.models.images import ImageTransform, normalise
from aft_ray.models.teachers.base import TeacherDescription
from aft_ray.models.teachers.device import arithmetic, to_device
from aft_ray.models.teachers.encoders import Encoder, image_encoder, text_encoder
from aft_ray.models.teachers.transformers_checkpoint import POOLER_OR_CLS, TWO_TOWERS, Checkpoint
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import TeacherConfig


class TransformersTeacher:
    """A model, and for texts its tokenizer, in evaluation mode."""

    @classmethod
    def describe(cls, config: TeacherConfig) -> TeacherDescription:
        checkpoint = Checkpoint.of(config)
        identity: dict[str, Any] = {"weights": checkpoint.weights(), "pooling": checkpoint.pooling}
        if checkpoint.modality == "image":
            return TeacherDescription("image", checkpoint.transform(config.image_size), identity | {"tower": "image"})
        tokenizer = checkpoint.files.tokenizer()
        if config.truncation_side and config.truncation_side != checkpoint.truncation_side:
            tokenizer["truncation_side"] = config.truncation_side
        identity |= {"tokenizer": tokenizer, "max_length": config.max_length, "tower": "text"}
        return TeacherDescription("text", None, identity)

    def __init__(self, config: TeacherConfig, device: torch.device) -> None:
        checkpoint = Checkpoint.of(config)
        model, pooling = _load(checkpoint)
        self.device = device
        self.precision = config.precision
        self.prepare: _Tokens | _Pixels
        if checkpoint.modality == "text":
            self.prepare = _Tokens(checkpoint, model, config)
            self.encode: Encoder = text_encoder(model, checkpoint.family, pooling)
        else:
            self.prepare = _Pixels(checkpoint.transform(config.image_size))
            self.encode = image_encoder(model, checkpoint.family, pooling, resized=config.image_size is not None)
        model.to(device)
        self.feature_dim = self(self.prepare.probe).shape[1]
        if config.compile:
            self.encode = torch.compile(self.encode)

    @torch.inference_mode()
    def __call__(self, inputs: np.ndarray | Sequence[str]) -> torch.Tensor:
        prepared = self.prepare(inputs, self.device)
        with arithmetic(self.device, self.precision):
            features = self.encode(*prepared)
        return features.float()


class _Pixels:
    """Turns crops into the model's pixels."""

    def __init__(self, transform: ImageTransform) -> None:
        self.transform = transform
        self.probe = np.zeros((1, transform.size, transform.size, 3), np.uint8)

    def __call__(self, inputs: Any, device: torch.device) -> tuple[torch.Tensor]:
        return (normalise(to_device(np.asarray(inputs), device), self.transform),)


class _Tokens:
    """Turns texts into ids and a mask, padded on the right with an id that every model has."""

    probe = ("a",)

    def __init__(self, checkpoint: Checkpoint, model: Any, config: TeacherConfig) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint.place, **checkpoint.pinned)
        if config.truncation_side:
            self.tokenizer.truncation_side = config.truncation_side
        self.limit = _longest(self.tokenizer, model, config.max_length)
        self.to_limit = checkpoint.family == "siglip"
        self.fill = int(self.tokenizer.pad_token_id or 0) if self.to_limit else 0
        self.empty = _stands_for_nothing(self.tokenizer)
        if checkpoint.pooling == "eos" and self.tokenizer("")["input_ids"][-1:] != [model.config.eos_token_id]:
            raise InputError(f"the tokenizer of {checkpoint.files} does not end texts; set 'pooling' to mean.")

    def __call__(self, inputs: Any, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        rows = self.tokenizer(list(inputs), truncation=self.limit is not None, max_length=self.limit)["input_ids"]
        rows = [row or self.empty for row in rows]
        length = self.limit if self.to_limit and self.limit else max(map(len, rows))
        ids = np.full((len(rows), length), self.fill, np.int64)
        mask = np.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            mask[index, : len(row)] = 1
        return to_device(ids, device), to_device(mask, device)


def _load(checkpoint: Checkpoint) -> tuple[Any, str]:
    """The model on the CPU without its unused half, and its pooling.

    Raises InputError if the checkpoint lacks weights that the features depend on.
    """
    model, report = AutoModel.from_pretrained(
        checkpoint.place, dtype=torch.float32, output_loading_info=True, **checkpoint.pinned
    )
    missing = set(report["missing_keys"])
    pooling = checkpoint.pooling
    if pooling == POOLER_OR_CLS:
        pooling = "cls" if any(name.startswith("pooler.") for name in missing) else "pooler"
    for part in _unused_parts(checkpoint, pooling):
        if hasattr(model, part):
            setattr(model, part, None)
    needed = {name for name in model.state_dict() if pooling == "pooler" or not name.startswith("pooler.")}
    lacking = sorted(missing & needed)
    if lacking:
        raise InputError(f"{checkpoint.files} lacks {len(lacking)} of the model's tensors, such as '{lacking[0]}'.")
    model.config.use_cache = False
    return model.eval().requires_grad_(False), pooling


def _unused_parts(checkpoint: Checkpoint, pooling: str) -> tuple[str, ...]:
    """Modules that need not go to the device."""
    if checkpoint.family in TWO_TOWERS:
        text = checkpoint.modality == "text"
        return ("vision_model", "visual_projection") if text else ("text_model", "text_projection")
    return ("decoder",) if checkpoint.family == "t5" and pooling != "eos" else ()


def _longest(tokenizer: Any, model: Any, max_length: int | None) -> int | None:
    """Most tokens that the model and the recipe allow; None without a limit."""
    positions = getattr(getattr(model.config, "text_config", model.config), "max_position_embeddings", None)
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            positions = module.num_embeddings - module.padding_idx - 1  # RoBERTa counts from there
    limits = [limit for limit in (tokenizer.model_max_length, positions, max_length) if limit and limit < 1e9]
    special = tokenizer.num_special_tokens_to_add()
    if limits and min(limits) <= special:
        raise InputError(f"'max_length' must be more than {special}, the tokenizer's special tokens.")
    return int(min(limits)) if limits else None


def _stands_for_nothing(tokenizer: Any) -> list[int]:
    """Ids of an empty text for a tokenizer that adds no special tokens."""
    tokens = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, 0)
    return [next(token for token in tokens if token is not None)]
