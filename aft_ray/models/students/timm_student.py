"""timm image models as students: a name of timm's list, or `hf-hub:REPOSITORY` or `local-dir:DIRECTORY` in timm's format."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from timm.data import resolve_data_config
from timm.layers import DropPath
from timm.models._hub import load_model_config_from_hf, load_model_config_from_path

from aft_ray.models import timm_models
from aft_ray.models.images import ImageTransform, normalise
from aft_ray.models.key_maps import as_timm
from aft_ray.models.model_files import Directory
from aft_ray.models.students.base import Inputs, LibraryStudent, Student, load_weights, refuse
from aft_ray.models.weights import load_state_dict, locate
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import StudentConfig

WEIGHTS = "model.safetensors"
PLACES = ("url", "hf_hub_id", "file")
"""Keys of timm's settings that name the place of published weights."""
SAVED_SETTINGS = (
    "classifier",
    "first_conv",
    "fixed_input_size",
    "crop_mode",
    "crop_pct",
    "interpolation",
    "mean",
    "std",
)
TOLERANCE = 1e-5

USAGE = """\
import timm
model = timm.create_model("local-dir:DIRECTORY", pretrained=True).eval()  # or hf-hub:NAME, once it is there
transform = timm.data.create_transform(**timm.data.resolve_data_config(model=model))
"""


@dataclass(frozen=True)
class Source:
    """Origin of a model.

    name: its name in timm. architecture, arguments: rebuild it without this origin. settings: its `pretrained_cfg`.
    """

    name: str
    architecture: str
    arguments: dict[str, Any]
    settings: dict[str, Any]

    @classmethod
    def of(cls, config: StudentConfig) -> Source:
        """Raises InputError if timm has no such model, or the recipe wants weights that do not exist."""
        name = config.model.partition(":")[2]
        scheme, identifier = timm_models.parsed(name)
        if scheme is None:
            source = cls(name, name.partition(".")[0], {}, timm_models.listed(name))
        else:
            if scheme == "local-dir":
                identifier = str(locate(identifier))
                if config.pretrained and config.weights is None:
                    Directory(Path(identifier)).weights(timm_models.WEIGHTS_OF_DIRECTORY)
            read = load_model_config_from_hf if scheme == "hf-hub" else load_model_config_from_path
            settings, architecture, arguments = read(identifier)
            source = cls(f"{scheme}:{identifier}", architecture, dict(arguments), dict(settings))
        if config.pretrained and config.weights is None and not any(source.settings.get(place) for place in PLACES):
            raise InputError(
                f"{config.model} has no published weights: set student.pretrained=false or student.weights."
            )
        if config.image_size is not None and source.settings.get("fixed_input_size"):
            # Position embeddings have a fixed size and are resampled; convolutions accept any size.
            source = replace(source, arguments=source.arguments | {"img_size": config.image_size})
        return source

    @property
    def data(self) -> dict[str, Any]:
        return dict(resolve_data_config(pretrained_cfg=self.settings, verbose=False))


def transforms(config: StudentConfig) -> tuple[ImageTransform]:
    refuse(config, "max_length", why="timm models, which read images")
    if config.drop_path and not _has_drop_path(Source.of(config).architecture):
        raise InputError(f"{config.model} has no drop path in timm: set student.drop_path=0.")
    return (ImageTransform.from_data_config(Source.of(config).data, config.image_size),)


def build(config: StudentConfig, num_outputs: int, teacher_dims: tuple[int, ...], *, for_inference: bool) -> Student:
    return TimmStudent(config, num_outputs, for_inference=for_inference)


class TimmStudent(LibraryStudent):
    """A timm model with a fresh linear head; features are the classifier's input."""

    library = "timm"
    axes = {"pixels": ("batch",)}

    def __init__(self, config: StudentConfig, num_outputs: int, *, for_inference: bool) -> None:
        super().__init__()
        self.source = Source.of(config)
        (self.transform,) = self.transforms = transforms(config)
        published = config.pretrained and config.weights is None and not for_inference
        arguments = self.source.arguments | ({"drop_path_rate": config.drop_path} if config.drop_path else {})
        self.backbone = timm.create_model(self.source.name, pretrained=published, num_classes=0, **arguments)
        if config.weights is not None and not for_inference:
            wanted = self.backbone.state_dict().keys()
            state = load_state_dict(config.weights, wanted, lambda state: as_timm(state, wanted))
            load_weights(self.backbone, state, config.weights)
        size = self.transform.size
        with torch.no_grad():
            width = self.backbone.eval()(torch.zeros(1, 3, size, size)).shape[1]
        self.feature_dim, self.num_outputs = width, num_outputs
        self.head = torch.nn.Linear(width, num_outputs)
        if config.gradient_checkpointing:
            _checkpoint_gradients(self.backbone, config.model)
        self.train()

    def prepare(self, inputs: Inputs) -> tuple[torch.Tensor]:
        assert isinstance(inputs, torch.Tensor)
        return (normalise(inputs, self.transform),)

    def run(self, *prepared: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.backbone(*prepared)
        return self.head(features), features

    def save(self, directory: Path, classes: Sequence[str], task: str) -> str:
        """Writes `config.json` and `model.safetensors`, with the head as timm's classifier."""
        model = self._with_classifier()
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, directory / WEIGHTS)
        data = self.source.data | {"input_size": (3, self.transform.size, self.transform.size)}
        known = {**model.pretrained_cfg, **data}
        config = {
            "architecture": self.source.architecture,
            "num_classes": self.num_outputs,
            "num_features": self.feature_dim,
            "label_names": list(classes),
            "model_args": self.source.arguments,
            "pretrained_cfg": {
                "input_size": known["input_size"],
                "num_classes": self.num_outputs,
                **{key: known[key] for key in SAVED_SETTINGS if known.get(key) is not None},
            },
        }
        (directory / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
        return USAGE

    def load(self, directory: Path) -> None:
        whole = timm.create_model(f"local-dir:{directory}", pretrained=True)
        load_weights(self.backbone, whole.state_dict(), str(directory))
        classifier = next(_classifiers(whole, self.head))
        with torch.no_grad():
            self.head.weight.copy_(classifier.weight.view_as(self.head.weight))
            self.head.bias.copy_(classifier.bias)

    def _with_classifier(self) -> Any:
        """The student as one timm model. Raises InputError if its logits would differ."""
        model: Any = timm.create_model(
            self.source.architecture, pretrained=False, num_classes=self.num_outputs, **self.source.arguments
        )
        model.load_state_dict(self.backbone.state_dict(), strict=False)
        with torch.no_grad():
            for classifier in _classifiers(model, self.head):
                classifier.weight.copy_(self.head.weight.view_as(classifier.weight))
                classifier.bias.copy_(self.head.bias)
            pixels = torch.randn(2, 3, self.transform.size, self.transform.size)
            ours, own = self.eval().run(pixels)[0], model.eval()(pixels)
        if ours.shape != own.shape or (ours - own).abs().max() > TOLERANCE * ours.abs().max().clamp(min=1):
            raise InputError(
                f"timm's {self.source.architecture} does not end in one linear layer: it cannot be exported for timm."
                " load_student reads the run as it is."
            )
        return model


def _classifiers(model: Any, head: torch.nn.Linear) -> Iterator[Any]:
    """The layers of a whole timm model that can hold the head's weights: two in a distilled one."""
    found = model.get_classifier()
    for layer in found if isinstance(found, tuple) else (found,):
        weight = getattr(layer, "weight", None)
        if weight is not None and weight.numel() == head.weight.numel():
            yield layer


@lru_cache(maxsize=64)
def _has_drop_path(architecture: str) -> bool:
    """Whether timm's model can leave out blocks: asked of one without memory."""
    try:
        with torch.device("meta"):
            model = timm.create_model(architecture, pretrained=False, num_classes=0, drop_path_rate=0.1)
    except TypeError:  # it has no such argument
        return False
    return any(isinstance(layer, DropPath) for layer in model.modules())


def _checkpoint_gradients(model: Any, name: str) -> None:
    try:
        model.set_grad_checkpointing(True)
    except (AssertionError, AttributeError) as error:
        raise InputError(
            f"{name} has no gradient checkpointing in timm: set student.gradient_checkpointing=false."
        ) from (error)
