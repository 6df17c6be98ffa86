"""Computes one feature vector per sample with a transformers model: its forward pass and the pooling of its tokens.

B samples, L tokens, H features; `mask_BL` is 1 for tokens and 0 for padding, which is on the right. Features do not depend on
padding, hence not on the other samples of the batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

from aft_ray.models.pooling import pool_tokens, token_at
from aft_ray.models.teachers.transformers_checkpoint import TWO_TOWERS
from aft_ray.recipe.errors import InputError

Encoder = Callable[..., torch.Tensor]
RESIZES_ALWAYS = ("dinov2", "dinov2_with_registers")
"""Models that resample their position embeddings to any image by themselves."""


def text_encoder(model: Any, family: str, pooling: str) -> Encoder:
    """(ids_BL, mask_BL) -> (B, H)."""
    if family == "siglip":  # trained without a mask, on texts that are padded to full length
        return lambda ids_BL, mask_BL: _features(model.get_text_features(input_ids=ids_BL))
    if family in TWO_TOWERS:
        return lambda ids_BL, mask_BL: _features(model.get_text_features(input_ids=ids_BL, attention_mask=mask_BL))
    if pooling == "eos":
        return lambda ids_BL, mask_BL: _decoded_eos(model, ids_BL, mask_BL)
    body = model.encoder if family == "t5" else model

    def encode(ids_BL: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
        output = body(input_ids=ids_BL, attention_mask=mask_BL)
        if pooling == "pooler":
            return _pooler_output(output, family)
        return pool_tokens(output.last_hidden_state, mask_BL, pooling)

    return encode


def image_encoder(model: Any, family: str, pooling: str, *, resized: bool) -> Encoder:
    """pixels (B, 3, size, size) -> (B, H). resized: the model was trained with another size.

    Raises InputError if the model cannot take another size.
    """
    forward = model.get_image_features if family in TWO_TOWERS else model
    extra = {}
    if resized and family not in RESIZES_ALWAYS:
        if "interpolate_pos_encoding" not in inspect.signature(model.forward).parameters:
            raise InputError(f"'image_size' cannot be changed for {family} models.")
        extra["interpolate_pos_encoding"] = True

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        output = forward(pixel_values=pixels, **extra)
        if family in TWO_TOWERS:
            return _features(output)
        if pooling == "pooler":
            return _pooler_output(output, family).flatten(1)
        patch = getattr(model.config, "patch_size", None)
        patches = (pixels.shape[-1] // patch) ** 2 if isinstance(patch, int) else None
        return pool_patches(output.last_hidden_state, patches, pooling)

    return encode


def pool_patches(hidden: torch.Tensor, patches: int | None, pooling: str) -> torch.Tensor:
    """(B, H) from (B, L, H), or from a convolution's (B, H, height, width): the first token, or the patches' mean.

    patches: how many of the last tokens are patches, the first ones being class and register tokens; None is all.
    """
    if hidden.dim() == 4:
        hidden = hidden.flatten(2).transpose(1, 2)
    if pooling == "cls":
        return hidden[:, 0]
    return hidden[:, max(0, hidden.shape[1] - (patches or hidden.shape[1])) :].float().mean(1)


def _decoded_eos(model: Any, ids_BL: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
    """The decoder's state at the last end-of-sequence token, the decoder reading the text shifted right by one.

    T5ForSequenceClassification classifies this state. The decoder is causal: padding after that token has no effect.
    """
    hidden_BLH = model(
        input_ids=ids_BL, attention_mask=mask_BL, decoder_input_ids=model._shift_right(ids_BL)
    ).last_hidden_state
    ends_BL = (ids_BL == model.config.eos_token_id) & (mask_BL == 1)
    positions_L = torch.arange(ids_BL.shape[1], device=ids_BL.device)
    return token_at(hidden_BLH, torch.where(ends_BL, positions_L, 0).amax(1))


def _pooler_output(output: Any, family: str) -> torch.Tensor:
    pooled: torch.Tensor | None = getattr(output, "pooler_output", None)
    if pooled is None:
        raise InputError(f"{family} models have no pooler; choose another 'pooling'.")
    return pooled


def _features(output: Any) -> torch.Tensor:
    """Vectors of the shared space: a tensor before version 5 of transformers, part of an output since."""
    features: torch.Tensor = output if isinstance(output, torch.Tensor) else output.pooler_output
    return features
