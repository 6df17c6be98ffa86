"""open_clip models as students of image and text: both towers, and a head on the product of their features.

`open_clip:ARCHITECTURE[/TAG]` names an architecture of open_clip's list and published weights; `open_clip:hf-hub:REPOSITORY`
and `open_clip:local-dir:DIRECTORY` are models in open_clip's format.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

import numpy as np
import open_clip
import torch
from safetensors.torch import load_file, save_file

from aft_ray.models import open_clip_models
from aft_ray.models.images import ImageTransform, normalise
from aft_ray.models.model_files import Directory, repository
from aft_ray.models.students.base import Inputs, LibraryStudent, Student, load_weights
from aft_ray.models.students.product_head import ProductHead
from aft_ray.models.weights import locate
from aft_ray.recipe.config import fingerprint
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import StudentConfig

WORDS_READ = 77
MODEL, HEAD = "open_clip_model.safetensors", "product_head.safetensors"
"""Files of an export."""
USAGE = """\
import open_clip, torch; from safetensors.torch import load_file
model, transform = open_clip.create_model_from_pretrained("local-dir:DIRECTORY")  # or hf-hub:NAME, once it is there
tokenizer, head = open_clip.get_tokenizer("local-dir:DIRECTORY"), load_file("DIRECTORY/product_head.safetensors")
image, text = model.eval().encode_image(pixels), model.encode_text(ids)  # pixels, ids: from transform and tokenizer
logits = torch.einsum("bi,cij,bj->bc", image, head["weight"], text) + head["bias"]
"""


@dataclass(frozen=True)
class OpenClipTokens:
    """A model's own tokenizer, which pads ids as the model was trained to read them.

    name: the model's name in open_clip. length: tokens to read. digest: identifies the tokenizer.
    """

    column: ClassVar[str] = "text"

    name: str
    length: int
    digest: str

    def __call__(self, text: str) -> np.ndarray:
        tokenizer, lock = _tokenizer(self.name, self.length)
        with lock:
            ids: np.ndarray = tokenizer(text)[0].numpy().astype(np.int32)
        return ids


@lru_cache(maxsize=8)
def _tokenizer(name: str, length: int) -> tuple[Any, Lock]:
    """The tokenizer, and a lock, since each call changes its padding settings."""
    return open_clip.get_tokenizer(name, context_length=length), Lock()


@dataclass(frozen=True)
class Source:
    """Origin of a model.

    name: the architecture, or `hf-hub:` or `local-dir:` and a place. architecture: open_clip's `model_cfg`.
    preprocess: its `preprocess_cfg`. published: tag of its published weights; None without one, or with its own weights.
    """

    name: str
    architecture: dict[str, Any]
    preprocess: dict[str, Any]
    published: str | None = None

    @classmethod
    def of(cls, config: StudentConfig) -> Source:
        """Raises InputError if open_clip has no such model, or the recipe wants weights that do not exist."""
        name = config.model.partition(":")[2]
        needs_published = config.pretrained and config.weights is None
        scheme, _, place = name.partition(":")
        if scheme in ("hf-hub", "local-dir"):
            return cls._saved(scheme, place, needs_weights=needs_published)
        return cls._listed(name, needs_tag=needs_published)

    @classmethod
    def _saved(cls, scheme: str, place: str, *, needs_weights: bool) -> Source:
        files = repository(place) if scheme == "hf-hub" else Directory(locate(place))
        if needs_weights and isinstance(files, Directory):
            files.weights(open_clip_models.WEIGHTS_OF_DIRECTORY)
        architecture, preprocess = open_clip_models.saved(files)
        return cls(f"{scheme}:{place if scheme == 'hf-hub' else files}", architecture, preprocess)

    @classmethod
    def _listed(cls, name: str, *, needs_tag: bool) -> Source:
        architecture, _, tag = name.partition("/")
        settings, published = open_clip_models.listed(name)
        if not tag and needs_tag:
            known = open_clip_models.tags(architecture)
            raise InputError(f"student.pretrained needs a tag: open_clip:{architecture}/TAG. Known: {known}.")
        if published.get("quick_gelu"):
            settings["quick_gelu"] = True  # the tag was trained with it; open_clip itself only warns
        return cls(architecture, settings, open_clip_models.preprocess(published), tag or None)

    def sized(self, config: StudentConfig) -> dict[str, Any]:
        """The architecture with the recipe's image size and text length."""
        vision, text = dict(self.architecture["vision_cfg"]), dict(self.architecture["text_cfg"])
        if config.image_size is not None:
            vision["image_size"] = config.image_size
        if config.max_length is not None:
            text["context_length"] = config.max_length
        return self.architecture | {"vision_cfg": vision, "text_cfg": text}

    def create(self, config: StudentConfig, *, for_inference: bool) -> Any:
        """The whole model on the CPU, with the recipe's weights."""
        published = config.pretrained and config.weights is None and not for_inference
        logging.disable(logging.WARNING)  # open_clip warns of random weights, which the recipe asks for
        try:
            model = open_clip.create_model(
                self.name,
                pretrained=self.published if published and ":" not in self.name else None,
                load_weights=published,
                pretrained_text=False,
                force_quick_gelu=bool(self.architecture.get("quick_gelu")),
                force_image_size=config.image_size,
                force_context_length=config.max_length,
                require_pretrained=published,
                weights_only=True,
            )
        finally:
            logging.disable(logging.NOTSET)
        if config.weights is not None and not for_inference:
            open_clip_models.load_weights(model, config.weights)
        return model


def transforms(config: StudentConfig) -> tuple[ImageTransform, OpenClipTokens]:
    source = Source.of(config)
    architecture = source.sized(config)
    text, size = architecture["text_cfg"], open_clip_models.image_size(source.name, architecture)
    tokens = OpenClipTokens(source.name, text.get("context_length", WORDS_READ), fingerprint(text))
    return ImageTransform.from_preprocess_config(source.preprocess, size), tokens


def build(config: StudentConfig, num_outputs: int, teacher_dims: tuple[int, ...], *, for_inference: bool) -> Student:
    return OpenClipStudent(config, num_outputs, for_inference=for_inference)


class OpenClipStudent(LibraryStudent):
    """Both towers of a CLIP; features are their outputs before normalisation, the image's first."""

    library = "open_clip"
    has_pipeline = False
    axes = {"pixels": ("batch",), "ids": ("batch",)}

    def __init__(self, config: StudentConfig, num_outputs: int, *, for_inference: bool) -> None:
        super().__init__()
        self.source = Source.of(config)
        self.architecture = self.source.sized(config)
        self.transform, self.tokens = self.transforms = transforms(config)
        self.model = self.source.create(config, for_inference=for_inference)
        for unused in ("logit_scale", "logit_bias"):
            if getattr(self.model, unused, None) is not None:
                getattr(self.model, unused).requires_grad_(False)
        size = self.transform.size
        with torch.no_grad():
            self.eval()
            image, text = self._towers(torch.zeros(1, 3, size, size), torch.from_numpy(self.tokens("a")[None]).long())
        self.feature_dim, self.num_outputs = (image.shape[1], text.shape[1]), num_outputs
        self.head = ProductHead(*self.feature_dim, num_outputs)
        if config.gradient_checkpointing:
            self.model.set_grad_checkpointing(True)
        self.train()

    def prepare(self, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
        images, ids_BL = inputs
        return normalise(images, self.transform), ids_BL.long()

    def run(self, *prepared: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        features = self._towers(*prepared)
        return self.head(*features), features

    def _towers(self, pixels: torch.Tensor, ids_BL: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.model.encode_image(pixels), self.model.encode_text(ids_BL)

    def save(self, directory: Path, classes: Sequence[str], task: str) -> str:
        """Writes `open_clip_config.json`, `open_clip_model.safetensors`, the tokenizer if it is not open_clip's own, and
        `product_head.safetensors` (weight (C, S1, S2), bias (C,)), since open_clip's format has no head.
        """
        tensors = {name: tensor.contiguous() for name, tensor in self.model.state_dict().items()}
        save_file(tensors, directory / MODEL)
        save_file(
            {name: tensor.contiguous() for name, tensor in self.head.state_dict().items()},
            directory / HEAD,
            metadata={"classes": json.dumps(list(classes))},
        )
        tokenizer, _ = _tokenizer(self.tokens.name, self.tokens.length)
        if hasattr(tokenizer, "save_pretrained"):
            tokenizer.save_pretrained(directory)
        config = {"model_cfg": self.architecture, "preprocess_cfg": self.source.preprocess}
        (directory / "open_clip_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
        return USAGE

    def load(self, directory: Path) -> None:
        for part, name in ((self.model, MODEL), (self.head, HEAD)):
            load_weights(part, load_file(directory / name), str(directory / name))
