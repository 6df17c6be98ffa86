"""Teachers of transformers, and the features that a plain loop computes for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from aft_ray.recipe.sections import TeacherConfig
from tests.helpers import hub

CPU = torch.device("cpu")


def config(place: Path | str, **values: object) -> TeacherConfig:
    return TeacherConfig.model_validate({"model": f"transformers:{place}", "name": "mine", **values})


def assert_equal(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Each feature vector to 1e-6 of its length."""
    assert found.dtype == torch.float32 and found.shape == expected.shape
    errors = (found - expected).norm(dim=1) / expected.norm(dim=1)
    assert errors.max() <= 1e-6, f"relative errors {errors.tolist()}"


def one_by_one(place: Path | str, features: Callable[[Any, Any], torch.Tensor], **tokenize: Any) -> torch.Tensor:
    """What a plain loop computes: one text at a time, no padding."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(place)
    model = transformers.AutoModel.from_pretrained(place).eval()
    with torch.no_grad():
        tokens = [tokenizer(text, return_tensors="pt", **tokenize) for text in hub.TEXTS]
        return torch.cat([features(model, {k: v for k, v in row.items() if k != "token_type_ids"}) for row in tokens])
