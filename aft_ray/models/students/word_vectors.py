"""The word vectors of a language model's checkpoint, for students on laptops: its vocabulary, its first layer, no more.

Frozen, and reduced to their main directions, they cost a lookup. With some hundred labels they beat words that are learned
from nothing.
"""

from __future__ import annotations

import json
from typing import Any

import torch

from aft_ray.models.model_files import Directory, model_files
from aft_ray.models.text import Tokens
from aft_ray.models.weights_file import read_weights_file
from aft_ray.recipe.config import fingerprint
from aft_ray.recipe.errors import InputError

WIDTH = 128
"""Directions of the vectors to keep, the ones with the largest variance."""
NORM = 4.0
"""Length of each vector."""
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
NAMES = ("word_embeddings.weight", "wte.weight", "embed_tokens.weight", "shared.weight", "word_embedding.weight")
"""How libraries end the name of the tensor."""


def tokens(location: str, length: int) -> Tokens:
    """The checkpoint's tokenizer. Raises InputError if `location` is no directory of a checkpoint with weights."""
    files = _files(location)
    files.weights(WEIGHTS)
    return Tokens(str(files), None, length, fingerprint(files.tokenizer()))


def num_words(location: str) -> int:
    """Size of the vocabulary."""
    return int(_settings(location)["vocab_size"])


def word_vectors(location: str) -> torch.Tensor:
    """A vector (V, WIDTH) of each word, centred, turned to the main directions and of equal length."""
    files = _files(location)
    state = read_weights_file(files.fetch(files.first(*WEIGHTS) or WEIGHTS[0]))
    found = [tensor for name, tensor in state.items() if name.endswith(NAMES) and tensor.ndim == 2]
    if not found:
        raise InputError(f"{files} has no word vectors: a tensor that ends in {', '.join(NAMES)} is looked for.")
    centred = found[0].double() - found[0].double().mean(0)
    _, directions = torch.linalg.eigh(centred.T @ centred)  # the largest last
    main = directions.flip(1)[:, :WIDTH]
    main = main * main.gather(0, main.abs().argmax(0, keepdim=True)).sign()  # the same everywhere
    return torch.nn.functional.pad(
        NORM * torch.nn.functional.normalize(centred @ main, dim=1), (0, WIDTH - main.shape[1])
    ).float()


def _files(location: str) -> Directory:
    files = model_files(location)
    if not isinstance(files, Directory) or not files.path.is_dir():
        raise InputError(
            f"student.weights: {location} must be the directory of a language model's checkpoint, as transformers saves"
            " it; the student takes its word vectors."
        )
    return files


def _settings(location: str) -> dict[str, Any]:
    files = _files(location)
    try:
        settings = files.read_json("config.json")
    except json.JSONDecodeError as error:
        raise InputError(f"{files}/config.json is no JSON: {error}.") from error
    if not settings or not isinstance(settings.get("vocab_size"), int):
        raise InputError(f"{files} has no config.json with a vocab_size: it is no language model's checkpoint.")
    return settings
