"""open_clip models as teachers: the image or the text tower of a CLIP, up to the shared space, unnormalised.

`open_clip:ARCHITECTURE/TAG` has published weights; `open_clip:ARCHITECTURE[/TAG]` with `weights` a file of yours, and the
tag's preprocessing; `open_clip:hf-hub:REPOSITORY` and `open_clip:local-dir:DIRECTORY` are models in open_clip's format.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch

from aft_ray.models import open_clip_models
from aft_ray.models.images import ImageTransform, normalise
from aft_ray.models.model_files import Directory, ModelFiles, Repository, model_files, repository
from aft_ray.models.teachers.base import TeacherDescription, refuse
from aft_ray.models.teachers.device import arithmetic, to_device
from aft_ray.models.weights import locate, sha256
from aft_ray.recipe.config import fingerprint
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import TeacherConfig

WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


class OpenClipTeacher:
    """One tower of an open_clip model, in evaluation mode."""

    @classmethod
    def describe(cls, config: TeacherConfig) -> TeacherDescription:
        refuse(config, "pooling", "max_length", why="open_clip models, which read and pool as they were trained")
        source = _Source.of(config)
        identity = {
            "architecture": fingerprint(source.architecture),
            "quick_gelu": source.quick_gelu,
            "weights": source.weights(config),
            "tower": config.tower or "image",
        }
        if config.tower == "text":
            refuse(config, "image_size", why="the text tower")
            tokenizer = source.tokenizer_files
            return TeacherDescription("text", None, identity | {"tokenizer": tokenizer and tokenizer.tokenizer()})
        return TeacherDescription("image", source.transform(config.image_size), identity)

    def __init__(self, config: TeacherConfig, device: torch.device) -> None:
        source = _Source.of(config)
        model: Any = source.create(config)
        _keep_tower(model, config.tower or "image")
        self.model = model.eval().requires_grad_(False).to(device)
        self.device = device
        self.precision = config.precision
        self.prepare: Callable[[Any], torch.Tensor]
        if config.tower == "text":
            tokenizer = open_clip.get_tokenizer(source.name)
            self.encode = model.encode_text
            self.prepare = lambda texts: to_device(tokenizer(list(texts)).numpy(), device)
            self.feature_dim = self([""]).shape[1]
        else:
            transform = source.transform(config.image_size)
            self.encode = model.encode_image
            self.prepare = lambda images: normalise(to_device(np.asarray(images), device), transform)
            self.feature_dim = self(np.zeros((1, transform.size, transform.size, 3), np.uint8)).shape[1]
        if config.compile:
            self.encode = torch.compile(self.encode)

    @torch.inference_mode()
    def __call__(self, inputs: np.ndarray | Sequence[str]) -> torch.Tensor:
        prepared = self.prepare(inputs)
        with arithmetic(self.device, self.precision):
            features: torch.Tensor = self.encode(prepared, normalize=False)
        return features.float()


@dataclass(frozen=True)
class _Source:
    """Origin of a model.

    name: the architecture, or `hf-hub:` or `local-dir:` and a place. architecture: open_clip's `model_cfg`.
    preprocess: its `preprocess_cfg`. published: the tag's settings. files: place of the weights, if not the tag's URL.
    """

    name: str
    architecture: dict[str, Any]
    preprocess: dict[str, Any]
    published: dict[str, Any]
    files: ModelFiles | None

    @classmethod
    def of(cls, config: TeacherConfig) -> _Source:
        name = config.model.partition(":")[2]
        scheme, _, place = name.partition(":")
        if scheme in ("hf-hub", "local-dir"):
            refuse(config, "weights", why=f"{name}, which has its own")
            return cls._saved(scheme, repository(place) if scheme == "hf-hub" else Directory(locate(place)))
        return cls._listed(name, own_weights=config.weights is not None)

    @classmethod
    def _saved(cls, scheme: str, files: ModelFiles) -> _Source:
        """A model that was saved with an `open_clip_config.json`."""
        architecture, preprocess = open_clip_models.saved(files)
        place = files.name if isinstance(files, Repository) else files
        return cls(f"{scheme}:{place}", architecture, preprocess, {}, files)

    @classmethod
    def _listed(cls, name: str, *, own_weights: bool) -> _Source:
        """An architecture of open_clip's own list, with one of its tags."""
        architecture, _, tag = name.partition("/")
        settings, published = open_clip_models.listed(name)
        if not tag and not own_weights:
            known = open_clip_models.tags(architecture)
            raise InputError(
                f"{architecture} needs weights: open_clip:{architecture}/TAG (known: {known}) or 'weights'."
            )
        preprocess = open_clip_models.preprocess(published)
        place = published.get("hf_hub", "")
        files = repository(place.rpartition("/")[0]) if place else None
        return cls(architecture, settings, preprocess, published, files)

    @property
    def quick_gelu(self) -> bool:
        """Whether the tag was trained with a different GELU from its architecture's; open_clip only warns."""
        return bool(self.published.get("quick_gelu", False))

    @property
    def tokenizer_files(self) -> ModelFiles | None:
        """Files of the text tower's tokenizer; None for open_clip's own."""
        place = self.architecture["text_cfg"].get("hf_tokenizer_name")
        if place and isinstance(self.files, Directory):
            return self.files
        return model_files(place) if place else None

    def transform(self, size: int | None) -> ImageTransform:
        size = size or open_clip_models.image_size(self.name, self.architecture)
        return ImageTransform.from_preprocess_config(self.preprocess, size)

    def weights(self, config: TeacherConfig) -> dict[str, str] | str:
        """The identity of the weights. Raises InputError if there are none."""
        if config.weights is not None:
            return sha256(open_clip_models.weights_file(config.weights))
        return self.files.weights(self._weights_names()) if self.files else str(self.published["url"])

    def _weights_names(self) -> tuple[str, ...]:
        """Files that open_clip looks for, in its order."""
        if isinstance(self.files, Directory):
            return open_clip_models.WEIGHTS_OF_DIRECTORY
        named = self.published.get("hf_hub", "").rpartition("/")[2]
        if not named or named in WEIGHTS:
            return WEIGHTS
        return (str(Path(named).with_suffix(".safetensors")), named) if named.endswith((".bin", ".pth")) else (named,)

    def create(self, config: TeacherConfig) -> torch.nn.Module:
        """The whole model on the CPU with exactly the weights that were identified."""
        name, checkpoint = self.name, None
        if config.weights is not None:
            pass  # loaded below
        elif self.files is None:
            checkpoint = open_clip.download_pretrained(self.published)
        else:
            checkpoint = self.files.fetch(next(iter(self.files.weights(self._weights_names()))))
            if ":" in self.name:
                name, checkpoint = f"local-dir:{self.files.fetch('open_clip_config.json').parent}", None
        model: torch.nn.Module = open_clip.create_model(
            name,
            pretrained=str(checkpoint) if checkpoint else None,
            force_quick_gelu=self.quick_gelu,
            force_image_size=config.image_size,
            load_weights=config.weights is None,
            require_pretrained=config.weights is None,
            weights_only=True,
        )
        if config.weights is not None:
            open_clip_models.load_weights(model, config.weights)
        return model


def _keep_tower(model: torch.nn.Module, tower: str) -> None:
    """Removes the other tower, so that only this tower's parameters go to the device."""
    for name, _ in list(model.named_children()):
        if (name == "visual") != (tower == "image"):
            setattr(model, name, None)
