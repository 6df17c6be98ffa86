"""A text student whose features are pooled tokens: the encoder alone, and its exported form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from aft_ray.recipe.errors import InputError

HEAD = "pooled_head.safetensors"
FEATURES = {
    "mean": "(tokens * mask).sum(1) / mask.sum(1)",
    "cls": "tokens[:, 0]",
    "last": "tokens[range(len(tokens)), mask.sum((1, 2)) - 1]",
    "pooler": "output.pooler_output",
}
USAGE = """\
import torch; from safetensors.torch import load_file; from transformers import AutoModel, AutoTokenizer
model = AutoModel.from_pretrained("DIRECTORY").eval(){encoder}  # or NAME, once it is on the hub
tokenizer, head = AutoTokenizer.from_pretrained("DIRECTORY"), load_file("DIRECTORY/pooled_head.safetensors")
batch = tokenizer(["a text"], padding=True, truncation=True, return_tensors="pt")
output, mask = model(**batch), batch["attention_mask"].unsqueeze(-1)
tokens = output.last_hidden_state
logits = torch.nn.functional.linear({features}, head["weight"], head["bias"])
"""


def keep_encoder(model: Any, pooling: str, name: str) -> None:
    """Removes the layers that `pooling` does not use: weights without a gradient would stop DDP.

    Raises InputError if the model cannot be pooled in this way.
    """
    base = model.base_model
    if model.config.is_encoder_decoder and pooling != "mean":
        raise InputError(f"{name} has an encoder and a decoder: student.pooling must be mean or head, not {pooling}.")
    if pooling == "pooler" and getattr(base, "pooler", None) is None:
        raise InputError(f"{name} has no pooler as a classifier: student.pooling must be mean, cls, last or head.")
    for part, module in list(model.named_children()):
        if module is not base:
            delattr(model, part)
    if model.config.is_encoder_decoder:
        base.decoder = None
    if pooling != "pooler" and hasattr(base, "pooler"):
        base.pooler = None


def encoder_of(model: Any) -> Any:
    """The module that reads the text: the encoder of an encoder-decoder, or the whole base model."""
    return model.base_model.encoder if model.config.is_encoder_decoder else model.base_model


def save_pooled(model: Any, head: torch.nn.Linear, pooling: str, directory: Path) -> str:
    """Writes the encoder as transformers' AutoModel loads it, and the head beside it. Returns the lines that use both."""
    model.base_model.save_pretrained(directory)
    save_file({name: tensor.contiguous() for name, tensor in head.state_dict().items()}, directory / HEAD)
    return USAGE.format(encoder=".encoder" * model.config.is_encoder_decoder, features=FEATURES[pooling])
