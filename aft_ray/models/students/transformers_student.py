"""transformers language models as students: a directory (also in a package), or a repository of the model hub."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)
from transformers.utils import logging

from aft_ray.models.model_files import ModelFiles, Repository, model_files
from aft_ray.models.pooling import pool_tokens
from aft_ray.models.students.base import Inputs, LibraryStudent, Student, load_weights, refuse, trimmed
from aft_ray.models.students.pooled_text import HEAD, encoder_of, keep_encoder, save_pooled
from aft_ray.models.text import PADDING, Tokens
from aft_ray.models.weights import load_state_dict
from aft_ray.recipe.config import fingerprint
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import StudentConfig

MOST_TOKENS, FEWEST_TOKENS = 512, 4
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
COUNT_FROM_PADDING = ("camembert", "data2vec-text", "longformer", "roberta", "roberta-prelayernorm", "xlm-roberta")
"""Families that count positions from the padding id on."""
PROBLEMS = {
    "classification": "single_label_classification",
    "multilabel": "multi_label_classification",
    "regression": "regression",
}
USAGE = """\
from transformers import AutoModelForSequenceClassification, AutoTokenizer
model = AutoModelForSequenceClassification.from_pretrained("DIRECTORY").eval()  # or NAME, once it is on the hub
tokenizer = AutoTokenizer.from_pretrained("DIRECTORY")
"""


@dataclass(frozen=True)
class Source:
    """A checkpoint's files, and its `config.json`."""

    files: ModelFiles
    settings: dict[str, Any]

    @classmethod
    def of(cls, config: StudentConfig) -> Source:
        """Raises InputError if it is no sequence classifier, or the recipe wants weights that do not exist."""
        files = model_files(config.model.partition(":")[2])
        settings = files.read_json("config.json")
        if settings is None:
            raise InputError(f"{files} has no config.json.{files.way_out}")
        family = str(settings.get("model_type"))
        if family not in CONFIG_MAPPING or CONFIG_MAPPING[family] not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
            raise InputError(f"transformers has no sequence classifier for {files}, whose model type is '{family}'.")
        if config.pretrained and config.weights is None:
            files.weights(WEIGHTS)
        return cls(files, settings)

    @property
    def place(self) -> str:
        return self.files.name if isinstance(self.files, Repository) else str(self.files)

    @property
    def revision(self) -> str | None:
        return self.files.commit if isinstance(self.files, Repository) else None

    def tokens(self, max_length: int | None) -> Tokens:
        """The tokenizer, limited to `max_length` and to the tokens that the model can read."""
        positions = self.settings.get("max_position_embeddings") or self.settings.get("n_positions")
        if positions and self.settings["model_type"] in COUNT_FROM_PADDING:
            positions -= self.settings.get("pad_token_id", 1) + 1
        known = (self.files.read_json("tokenizer_config.json") or {}).get("model_max_length")
        longest = min(limit for limit in (positions, known, int(1e9)) if limit)
        if max_length is not None and not FEWEST_TOKENS <= max_length <= longest:
            raise InputError(f"student.max_length must be from {FEWEST_TOKENS} to {longest} for {self.files}.")
        length = max_length or int(min(longest, MOST_TOKENS))
        return Tokens(self.place, self.revision, length, fingerprint(self.files.tokenizer()))

    def model(self, num_outputs: int, *, pretrained: bool) -> Any:
        """The sequence classifier on the CPU. Raises InputError if the checkpoint lacks weights of the encoder."""
        pinned = {"revision": self.revision, "trust_remote_code": False}
        if not pretrained:
            config = AutoConfig.from_pretrained(self.place, num_labels=num_outputs, **pinned)
            return AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
        with _quietly():
            model, report = AutoModelForSequenceClassification.from_pretrained(
                self.place,
                num_labels=num_outputs,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                dtype=torch.float32,
                **pinned,
            )
        if lacking := sorted(name for name in report["missing_keys"] if _in_encoder(name, model)):
            raise InputError(f"{self.files} lacks {len(lacking)} of the model's tensors, such as '{lacking[0]}'.")
        return model


def transforms(config: StudentConfig) -> tuple[Tokens]:
    refuse(config, "image_size", why="transformers models, which read text")
    return (Source.of(config).tokens(config.max_length),)


def default_pooling(config: StudentConfig) -> str:
    """`head` for a pretrained classifier, `mean` for any other model."""
    architectures = Source.of(config).settings.get("architectures") or []
    is_classifier = any(str(name).endswith("ForSequenceClassification") for name in architectures)
    return "head" if is_classifier and config.pretrained and config.weights is None else "mean"


def build(config: StudentConfig, num_outputs: int, teacher_dims: tuple[int, ...], *, for_inference: bool) -> Student:
    return TransformersStudent(config, num_outputs, for_inference=for_inference)


class TransformersStudent(LibraryStudent):
    """A language model with a fresh linear layer; features are the pooled tokens that this layer takes.

    With `pooling: head` the features are the output of the sequence classifier's head, whose last layer is an identity here;
    `save` replaces it by the trained layer.
    """

    library = "transformers"
    axes = {"input_ids": ("batch", "length"), "attention_mask": ("batch", "length")}

    def __init__(self, config: StudentConfig, num_outputs: int, *, for_inference: bool) -> None:
        super().__init__()
        source = Source.of(config)
        (self.tokens,) = self.transforms = (source.tokens(config.max_length),)
        own = config.weights is not None
        self.model = source.model(num_outputs, pretrained=config.pretrained and not own and not for_inference)
        if config.weights is not None and not for_inference:
            _load_encoder(self.model, config.weights)
        self.model.config.use_cache = False
        if self.model.config.pad_token_id is None:  # decoders find a text's end by it
            self.model.config.pad_token_id = self.model.config.eos_token_id or 0
        self.padding_id = int(self.model.config.pad_token_id)
        self.pooling, self.num_outputs = config.pooling or default_pooling(config), num_outputs
        self.has_pipeline = self.pooling == "head"  # a head on pooled tokens has no place in transformers' classifiers
        if self.has_pipeline:
            self.last = _last_layer(self.model, num_outputs)
            last = self.model.get_submodule(self.last)
            width, has_bias = int(last.in_features), last.bias is not None
            self.model.set_submodule(self.last, torch.nn.Identity())
        else:
            keep_encoder(self.model, self.pooling, config.model)
            width, has_bias = int(self.model.config.hidden_size), True
        self.feature_dim = width
        self.head = torch.nn.Linear(width, num_outputs, bias=has_bias)
        if config.gradient_checkpointing:
            if not self.model.supports_gradient_checkpointing:
                raise InputError(
                    f"{config.model} has no gradient checkpointing: set student.gradient_checkpointing=false."
                )
            enable = getattr(self.model, "activation_checkpointing_enable", None)  # its name from version 5 on
            (enable or self.model.gradient_checkpointing_enable)({"use_reentrant": False})
        self.train()

    def prepare(self, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
        assert isinstance(inputs, torch.Tensor)
        ids_BL = trimmed(inputs)
        mask_BL = ids_BL != PADDING
        return ids_BL.where(mask_BL, self.padding_id), mask_BL.long()

    def run(self, *prepared: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        ids_BL, mask_BL = prepared
        features = self._features(ids_BL, mask_BL)
        return self.head(features), features

    def _features(self, ids_BL: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
        if self.has_pipeline:
            logits: torch.Tensor = self.model(input_ids=ids_BL, attention_mask=mask_BL).logits
            return logits
        output = encoder_of(self.model)(input_ids=ids_BL, attention_mask=mask_BL)
        if self.pooling == "pooler":
            pooled: torch.Tensor = output.pooler_output
            return pooled
        return pool_tokens(output.last_hidden_state, mask_BL, self.pooling)

    def save(self, directory: Path, classes: Sequence[str], task: str) -> str:
        """Writes the model with its head, class names and tokenizer in transformers' format.

        A head on pooled tokens is a separate file: transformers' own classifiers have no place for it.
        """
        config = self.model.config
        config.id2label, config.problem_type = dict(enumerate(classes)), PROBLEMS[task]
        config.label2id = {name: number for number, name in enumerate(classes)}
        self._save_tokenizer(directory)
        with _quietly():
            if not self.has_pipeline:
                return save_pooled(self.model, self.head, self.pooling, directory)
            with self._whole():
                self.model.save_pretrained(directory)
        return USAGE

    def load(self, directory: Path) -> None:
        kind = AutoModelForSequenceClassification if self.has_pipeline else AutoModel
        with _quietly():
            state = kind.from_pretrained(directory, dtype=torch.float32, trust_remote_code=False).state_dict()
        if not self.has_pipeline:
            load_weights(self.model.base_model, state, str(directory))
            load_weights(self.head, load_file(directory / HEAD), str(directory / HEAD))
            return
        with self._whole():
            load_weights(self.model, state, str(directory))

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """The model as transformers has it, with the trained layer as its last."""
        self.model.set_submodule(self.last, self.head)
        try:
            yield
        finally:
            self.model.set_submodule(self.last, torch.nn.Identity())

    def _save_tokenizer(self, directory: Path) -> None:
        tokenizer = AutoTokenizer.from_pretrained(self.tokens.place, revision=self.tokens.revision)
        tokenizer.model_max_length = self.tokens.length
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.convert_ids_to_tokens(self.padding_id)
        tokenizer.padding_side = "right"
        tokenizer.save_pretrained(directory)


@contextmanager
def _quietly() -> Iterator[None]:
    """Silences the library's report on the fresh head, and its progress bars."""
    before, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bar:
            logging.enable_progress_bar()


def _last_layer(model: Any, num_outputs: int) -> str:
    """Name of the layer that makes the logits. Raises InputError if it is not linear."""
    linear = [name for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)]
    if not linear or model.get_submodule(linear[-1]).out_features != num_outputs or _in_encoder(linear[-1], model):
        raise InputError(f"{type(model).__name__} does not end in a linear layer: it cannot be a student.")
    return linear[-1]


def _in_encoder(name: str, model: Any) -> bool:
    """Whether a weight belongs to the encoder without its pooler, which is trained with the head if a checkpoint lacks it."""
    return name.startswith(f"{model.base_model_prefix}.") and ".pooler." not in name


def _load_encoder(model: Any, location: str) -> None:
    """Loads the encoder's weights, from an encoder alone or from a model with any head."""
    encoder = model.base_model
    state = load_state_dict(location, encoder.state_dict())
    fresh = {name: tensor for name, tensor in encoder.state_dict().items() if name.startswith("pooler.")}
    load_weights(encoder, fresh | state, location)
