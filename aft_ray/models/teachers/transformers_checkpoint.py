"""Describes a transformers checkpoint from its small files, without loading it: input, pooling, identity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import CONFIG_MAPPING
from typing_extensions import TypedDict

from aft_ray.models.images import ImageTransform
from aft_ray.models.model_files import ModelFiles, Repository, model_files
from aft_ray.models.processors import processor_transform
from aft_ray.models.teachers.base import refuse
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import TeacherConfig

TWO_TOWERS = ("clip", "siglip")

POOLER_OR_CLS = "pooler or cls"
"""BERT's tanh pooler; the first token if the checkpoint has no pooler."""

TEXT = {
    "bert": POOLER_OR_CLS,
    "distilbert": "cls",
    "roberta": "cls",
    "xlm-roberta": "cls",
    "t5": "eos",
    "gpt2": "last",
    "llama": "last",
    "mistral": "last",
    "qwen2": "last",
}
IMAGES = {"dinov2": "cls", "vit": "cls"}
"""The usual pooling of each family of models, by transformers' `model_type`."""

PROCESSORS = {"clip": "CLIP", "dinov2": "Bit", "siglip": "Siglip", "vit": "ViT"}
"""The image processor of a family, for files too old to name it."""

WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Files that transformers looks for, in its order."""


@dataclass(frozen=True)
class Checkpoint:
    """A model's files, and how to run the model according to them and the recipe."""

    files: ModelFiles
    settings: dict[str, Any]
    modality: str
    pooling: str

    @classmethod
    def of(cls, config: TeacherConfig) -> Checkpoint:
        refuse(config, "weights", why="transformers models; give their directory as the model")
        files = model_files(config.model.partition(":")[2])
        settings = files.read_json("config.json")
        if settings is None:
            raise InputError(f"{files} has no config.json.{files.way_out}")
        family = str(settings.get("model_type"))
        if family not in CONFIG_MAPPING:
            raise InputError(
                f"transformers has no model type '{family}', and code from {files} is not run."
                " Write a class of your own, MODULE:Class."
            )
        modality = _modality(config, files, family)
        refuse(config, "max_length" if modality == "image" else "image_size", why=f"a teacher of {modality}s")
        return cls(files, settings, modality, _pooling(config, files, family, modality))

    @property
    def family(self) -> str:
        return str(self.settings["model_type"])

    @property
    def place(self) -> str:
        return self.files.name if isinstance(self.files, Repository) else str(self.files)

    @property
    def pinned(self) -> dict[str, Any]:
        """Arguments that load exactly the identified revision, and no code."""
        revision = {"revision": self.files.commit} if isinstance(self.files, Repository) and self.files.commit else {}
        return {"trust_remote_code": False, **revision}

    @property
    def truncation_side(self) -> str:
        """Side on which the tokenizer itself cuts a text."""
        return str((self.files.read_json("tokenizer_config.json") or {}).get("truncation_side", "right"))

    def weights(self) -> dict[str, str]:
        """The identity of the weights. Raises InputError if there are none."""
        own = self.settings.get("transformers_weights")
        return self.files.digests("config.json") | self.files.weights((own,) if own else WEIGHTS)

    def transform(self, size: int | None) -> ImageTransform:
        """Raises InputError if the image processor cannot be reproduced."""
        processor = (self.files.read_json("processor_config.json") or {}).get("image_processor")
        processor = processor or self.files.read_json("preprocessor_config.json")
        if processor is None:
            raise InputError(f"{self.files} has no preprocessor_config.json.{self.files.way_out}")
        return processor_transform(processor, PROCESSORS.get(self.family, self.family), size)


def _modality(config: TeacherConfig, files: ModelFiles, family: str) -> str:
    """`image` or `text`. Raises InputError if the recipe chooses a tower that the model does not have."""
    if family in TWO_TOWERS:
        return config.tower or "image"
    image = family in IMAGES or (family not in TEXT and files.first("preprocessor_config.json") is not None)
    modality = "image" if image else "text"
    if config.tower not in (None, modality):
        raise InputError(f"'tower: {config.tower}' has no meaning for {family} models, which take {modality}s.")
    return modality


def _pooling(config: TeacherConfig, files: ModelFiles, family: str, modality: str) -> str:
    """How token features become one vector. Raises InputError if it is unknown or impossible."""
    if family in TWO_TOWERS:
        refuse(config, "pooling", why=f"{family} models, whose features come from the shared space")
        return "projection"
    known: tuple[str, ...] = ("eos", "mean") if family == "t5" else ("cls", "mean", "pooler")
    if modality == "text" and family != "t5":
        known += ("last",)
    pooling = config.pooling or _saved_pooling(files) or (IMAGES if modality == "image" else TEXT).get(family)
    if pooling is None:
        raise InputError(f"{family} models have no default pooling; set 'pooling' to one of {', '.join(known)}.")
    if pooling not in (*known, POOLER_OR_CLS):
        raise InputError(f"'pooling: {pooling}' has no meaning for {family} models. Known: {', '.join(known)}.")
    return pooling


class _Module(TypedDict):
    """The used keys of an entry of modules.json."""

    path: str
    type: str


def _saved_pooling(files: ModelFiles) -> str | None:
    """The pooling of a sentence-transformers checkpoint, whose later projections are ignored; None for others."""
    modules: Any = files.read_json("modules.json", list[_Module]) or []
    path = next((module["path"] for module in modules if module["type"].endswith(".Pooling")), None)
    settings = files.read_json(f"{path}/config.json") if path else None
    if not settings:
        return None
    modes = [name.removeprefix("pooling_mode_") for name, on in settings.items() if on is True and "_mode_" in name]
    modes = modes or [str(settings.get("pooling_mode"))]
    names = {"cls_token": "cls", "cls": "cls", "mean_tokens": "mean", "mean": "mean", "lasttoken": "last"}
    if len(modes) != 1 or modes[0] not in names:
        raise InputError(f"{files} pools by {' and '.join(modes)}, which is not supported; set 'pooling'.")
    return names[modes[0]]
