"""The sections of a recipe: every key that there is, its type, its default, and what it means.

A section whose keys contradict each other raises ValueError, which `fault_lines` turns into lines for the user.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from aft_ray.recipe.model import Model, checked_name, is_own_class, named_or_own

LARGEST_IMAGE, LONGEST_TEXT = 8192, 1_000_000
LARGEST_BATCH = 1_000_000
MOST_PROCESSES = 10_000
"""Larger numbers are slips of the hand: pixels per side, tokens, samples of a batch, processes or CPUs."""


class ColumnsConfig(Model):
    """Which columns of a table, or keys of a JSON object, hold what."""

    label: str | tuple[str, ...] = "label"
    """One column; or a list of them: 0/1 columns with task multilabel, numbers with task regression. Empty: no label."""
    text: str | tuple[str, ...] | None = None
    """The text, or several that `prompt` puts together; without a prompt each has a line of its own."""
    image: str | None = None
    """Encoded bytes, the path of a file (relative to the table's folder), or the hub's pair of the two."""
    image_root: str | None = None
    """The folder from which paths of pictures start and which they must not leave; null is the table's own folder."""
    id: str | None = None
    """Names of the samples, each different; null numbers the rows of each file from 1."""
    split: str | None = None
    """Says of each row which split it belongs to; null goes by the names of files and folders."""
    group: str | None = None
    """Rows with the same value here (one patient, one document) fall into the same split."""

    @property
    def labels(self) -> tuple[str, ...]:
        return (self.label,) if isinstance(self.label, str) else self.label

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.text,) if isinstance(self.text, str) else self.text or ()


PROMPT_NAME = re.compile(r"\{([^{}]*)\}")
"""A column's place in a prompt."""

TABLE_KEYS = {"path", "columns", "splits", "task", "label_names", "prompt", "truncation_side"}
SOURCE_KEYS = {
    "image_folder": {"path", "splits"},
    "parquet": TABLE_KEYS,
    "csv": TABLE_KEYS,
    "jsonl": TABLE_KEYS,
    "webdataset": TABLE_KEYS - {"prompt"},
    "hub": {*TABLE_KEYS, "repo", "subset", "revision"},
    "torchvision": {"path", "splits", "dataset_class"},
}
"""The keys that have an effect, by source; the others of these are refused."""
ALL_SOURCE_KEYS = set().union(*SOURCE_KEYS.values())


class DatasetConfig(Model):
    name: str | None = None
    """A named data set (`aft-ray list datasets`)."""
    source: str | None = None
    """Where your own data lies: `image_folder` has a folder of images per class, `parquet`, `csv` and `jsonl` a sample per
    row, `webdataset` tars, `hub` a repository of the Hugging Face hub, `torchvision` one of its classes, `module:Class` a
    class of your own."""
    options: dict[str, Any] = {}
    """Settings of a source of your own."""
    path: str | None = None
    """The folder, file or glob (`data/*.parquet`) of `source`; of the hub, or of a named data set, a local copy."""
    repo: str | None = None
    """The hub's repository, OWNER/NAME."""
    subset: str | None = None
    """Which of the repository's configurations; null where it has one."""
    revision: str | None = None
    """Branch, tag or commit of the repository; null takes the newest."""
    dataset_class: str | None = None
    """torchvision's class, such as CIFAR10."""
    columns: ColumnsConfig = ColumnsConfig()
    """Which column holds what."""
    splits: dict[Literal["train", "validation", "test"], tuple[str, ...]] = {}
    """The data set's own splits that make up each of ours, such as `test: validation_matched`; what is not named is left
    out. Empty goes by their names: train, val, dev, test and the like."""
    task: Literal["classification", "multilabel", "regression"] | None = None
    """One class per sample, those that apply, or numbers; null is classification, or what a named data set is for."""
    label_names: tuple[str, ...] = ()
    """Classes in the order of their numbers; empty takes those that the data brings, else its different labels, sorted."""
    prompt: str | None = None
    """How texts become one, such as "Premise: {premise}\\nHypothesis: {hypothesis}"; null takes the named data set's own,
    `reference` that of the AFT authors' code."""
    truncation_side: Literal["left", "right"] | None = None
    """Where a tokenizer cuts a text that is too long; null is right, or what suits the named data set's prompt."""
    validation_fraction: float = Field(default=0.1, gt=0, lt=1)
    """Share of the samples held out to choose beta, teachers and the best epoch, where the data set brings no such split."""
    test_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share of the samples held out as test split where the data set brings none."""
    max_samples: int | None = Field(default=None, gt=0)
    """Keep this many samples in all (those whose ids hash lowest); null keeps all."""
    train_fraction: float = Field(default=1.0, gt=0, le=1)
    """Keep this share of each class of the train split (those whose ids hash lowest, at least one sample)."""
    samples_per_shard: int | None = Field(default=None, gt=0)
    """Samples in one Parquet shard, the unit of extraction and of restart; null chooses 32 MiB, at most 512 samples."""
    copy_content: bool = Field(default=True, alias="copy")
    """Copy the samples' files into the workspace; false stores where each lies, and reads it there every time."""
    max_bad_samples: int = Field(default=0, ge=0)
    """How many unreadable samples may be put aside, each named with its reason, before that is an error."""

    @field_validator("source")
    @classmethod
    def _is_a_source(cls, value: str | None) -> str | None:
        return value if value is None else named_or_own(value, SOURCE_KEYS)

    @field_validator("splits", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: (names,) if isinstance(names, str) else names for key, names in value.items()}
        return value

    @model_validator(mode="after")
    def _makes_sense(self) -> DatasetConfig:
        faults = [*self._origin_faults(), *self._column_faults()]
        if self.validation_fraction + self.test_fraction >= 1:
            faults.append("validation_fraction + test_fraction must leave samples to train on")
        if faults:
            raise ValueError("\n".join(faults))
        return self

    def _origin_faults(self) -> list[str]:
        if (self.name is None) == (self.source is None):
            return ["give exactly one of 'name' and 'source'"]
        if self.source is None:
            return []
        needed = {"hub": ["repo"], "torchvision": ["dataset_class", "path"]}.get(self.source, ["path"])
        if self.source == "hub" and self.path is not None:
            needed = []
        faults = [f"source '{self.source}' needs '{key}'" for key in needed if getattr(self, key) is None]
        known = set() if is_own_class(self.source) else {"options", *ALL_SOURCE_KEYS} - SOURCE_KEYS[self.source]
        given = sorted(key for key in known if getattr(self, key) != type(self).model_fields[key].default)
        return faults + [f"'{key}' has no effect with source '{self.source}'" for key in given]

    def _column_faults(self) -> list[str]:
        columns, faults = self.columns, []
        if not isinstance(columns.label, str) and columns.label and self.task not in ("multilabel", "regression"):
            faults.append("several columns.label need task multilabel or regression")
        if self.source in ("parquet", "csv", "jsonl", "hub") and not columns.texts and columns.image is None:
            faults.append(f"source '{self.source}' needs columns.text, columns.image or both")
        if self.splits and "train" not in self.splits:
            faults.append("splits must name train")
        twice = sorted({name for name in self.label_names if self.label_names.count(name) > 1})
        if twice:
            faults.append(f"label_names has {', '.join(twice)} twice")
        if self.prompt == "reference" and self.source is not None:
            faults.append("prompt 'reference' is for named data sets")
        elif self.prompt is not None and self.prompt != "reference" and (columns.texts or self.name is None):
            unknown = sorted(set(PROMPT_NAME.findall(self.prompt)) - set(columns.texts))
            if unknown:
                faults.append(
                    f"prompt names {', '.join(map(repr, unknown))}; columns.text: {', '.join(columns.texts) or 'none'}"
                )
            elif columns.texts and not PROMPT_NAME.search(self.prompt):
                faults.append("prompt has no place for a column, such as {" + columns.texts[0] + "}")
        return faults


class TeacherConfig(Model):
    name: str
    """Its directory under `features/`; made from `model` when left out."""
    model: str
    """`timm:NAME`, `open_clip:ARCHITECTURE/TAG`, `transformers:REPO_OR_DIRECTORY`, or a class of your own, `module:Class`.
    timm and open_clip also take `hf-hub:REPO` and `local-dir:DIRECTORY`, models saved in their own format."""
    weights: str | None = None
    """A weights file instead of the model's published ones: a path, or `package://MODULE/FILE`."""
    tower: Literal["image", "text"] | None = None
    """Which half of a two-tower model (CLIP, SigLIP) to run; null takes the image tower."""
    image_size: int | None = Field(default=None, gt=0, le=LARGEST_IMAGE)
    """Input pixels per side; null takes the size the teacher was trained with."""
    max_length: int | None = Field(default=None, gt=0, le=LONGEST_TEXT)
    """Tokens of a text that are read; null takes as many as the teacher can."""
    truncation_side: Literal["left", "right"] | None = None
    """Where a transformers model's tokenizer cuts a text that is too long; null takes the data set's `truncation_side`."""
    pooling: Literal["cls", "mean", "last", "eos", "pooler"] | None = None
    """How token features become one vector; null takes the model's own way."""
    batch_size: int = Field(default=64, gt=0, le=LARGEST_BATCH)
    """Samples per forward pass on one device; halved, and that recorded, where the device's memory is too small."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the forward pass. On a GPU bf16 and fp16 are several times faster than fp32, which has all its digits."""
    compile: bool = False
    """Run the model through `torch.compile`: worth its start-up time on long extractions."""
    features_dtype: Literal["float16", "float32"] = "float16"
    """Numbers as they are stored."""
    options: dict[str, Any] = {}
    """What a class of your own takes, handed to it as it is."""
    num_actors: int = Field(default=1, gt=0, le=MOST_PROCESSES)
    """Copies of this teacher that work at the same time."""
    num_gpus: float = Field(default=0, ge=0, le=MOST_PROCESSES)
    """GPUs per actor; fractions share one GPU."""

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"model": value}
        if isinstance(value, dict) and isinstance(value.get("model"), str) and "name" not in value:
            value = value | {"name": re.sub(r"[^A-Za-z0-9._-]+", "-", value["model"]).strip("-._")}
        return value

    _name_is_a_directory = field_validator("name")(checked_name)

    def reading(self, samples: Mapping[str, Any]) -> TeacherConfig:
        """The same for the samples of this manifest."""
        side = self.truncation_side or samples.get("truncation_side")
        return self.model_copy(update={"truncation_side": side})


class StudentConfig(Model):
    model: str
    """`tiny:cnn`, `tiny:text`, `tiny:pair` (laptops), `timm:NAME`, `open_clip:ARCHITECTURE[/TAG]`,
    `transformers:REPO_OR_DIRECTORY`, `linear_probe`, a linear head on the teachers' features, or a class of your own,
    `module:Class`."""
    pretrained: bool = False
    """Start from the model's published weights."""
    weights: str | None = None
    """Start from this weights file: a path, or `package://MODULE/FILE`."""
    image_size: int | None = Field(default=None, gt=0, le=LARGEST_IMAGE)
    """Input pixels per side; null takes the model's own."""
    max_length: int | None = Field(default=None, gt=0, le=LONGEST_TEXT)
    """Tokens of a text that are read; null takes as many as the model can, at most 512, and 128 words for the tiny ones."""
    pooling: Literal["mean", "cls", "pooler", "last", "head"] | None = None
    """How a transformers model's tokens become features: their mean, the first token, BERT's pooler after it, the last token,
    or the model's own classification head without its last layer. Null is `head` for a pretrained sequence classifier and
    `mean` for any other model, whose head is not trained."""
    options: dict[str, Any] = {}
    """Arguments of a class of your own, handed to it as they are."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, about a third more time."""


class RegularizerConfig(Model):
    model_config = ConfigDict(extra="allow")

    name: str = "aft"
    """The method (`aft-ray list regularizers`); `none` is standard transfer learning."""
    beta: float = Field(default=10.0, ge=0)
    """Strength: loss = task_loss + beta * regularization."""
    learning_rate: float = Field(default=0.01, gt=0)
    """Learning rate of the regularizer's own parameters (gates, projections)."""
    steps_per_student_step: int = Field(default=1, gt=0)
    """Steps of the regularizer's parameters for each step of the student, each on a batch of its own."""

    @property
    def options(self) -> dict[str, Any]:
        """The section's other keys, such as `learn_gates: false`; `build_regularizer` knows which exist."""
        return dict(self.model_extra or {})


class TrainConfig(Model):
    steps: int = Field(default=1000, gt=0, le=10**9)
    """Optimizer steps."""
    global_batch_size: int = Field(default=128, gt=1, le=LARGEST_BATCH)
    """Samples per step over all workers; the kernels are those of this whole batch."""
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    """`sgd` has momentum 0.9."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak learning rate of the student; cosine decay to zero, per step."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Weight decay of the student; the regularizer has none."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps of linear warm-up."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Longest gradient of the student's weights, as a norm over all of them; null leaves it as it is."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Probability that the target spreads evenly over all classes."""
    accumulation_steps: int = Field(default=1, gt=0, le=LARGEST_BATCH)
    """Parts in which a worker's rows go through the student, to save memory; the kernels remain those of the whole batch."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the student's forward pass; the losses are float32 always. On a GPU fp32 is what torch makes of it:
    convolutions in TF32."""
    compile: bool = False
    """Run the student through `torch.compile`."""
    deterministic: bool = False
    """On a GPU take the algorithms that give the same digits every time, which may be slower; a CPU has no others."""
    early_stopping: int | None = Field(default=None, gt=0)
    """Stop after this many evaluations without a better validation score; null trains all steps."""
    streaming: bool | None = None
    """Read samples from their shards while training, where a split does not fit in memory; null decides by its size."""
    trackers: tuple[Literal["mlflow", "wandb"], ...] = ()
    """Where metrics go besides `metrics.jsonl` and TensorBoard."""
    labels_per_class: int | None = Field(default=None, gt=0)
    """Keep this many labels per class in the train split; the other samples take part in the regularizer only."""
    labeled_fraction: float = Field(default=0.5, gt=0, le=1)
    """Share of each batch drawn from labelled samples when some samples have no label."""
    evaluate_every: int | None = Field(default=None, gt=0)
    """Steps between two evaluations; null makes ten evaluations in a run."""
    seed: int = Field(default=0, ge=0, le=2**62)
    """Seed of the student's initial weights, of the order of samples and of the choice of labels that are kept."""
    num_workers: int = Field(default=1, gt=0, le=MOST_PROCESSES)
    """DDP workers; the result is that of one worker on the whole batch."""
    use_gpu: bool = False
    """One GPU per worker."""
    max_failures: int = Field(default=3, ge=0)
    """How often a killed worker may be replaced, continuing from the last checkpoint."""


class ResourcesConfig(Model):
    """What has no key elsewhere: `teachers[].num_gpus` and `num_actors`, `train.num_workers` and `use_gpu`."""

    decode_cpus: int | None = Field(default=None, gt=0, le=MOST_PROCESSES)
    """CPUs that extraction and prediction take to read and crop with. Null: a quarter of the cluster's for teachers on CPUs;
    for those on GPUs, what they leave of as large a part of the cluster's CPUs as they take of its GPUs."""
    cpus_per_worker: float = Field(default=1.0, gt=0, le=MOST_PROCESSES)
    """CPUs of each training worker, and its threads; fractions share one."""
    min_workers: int | None = Field(default=None, gt=0)
    """Start training with as few workers as this where there is no room for `train.num_workers`, and add the others as it
    comes; null waits for all. The result is the same."""
    wait_s: float = Field(default=0.0, ge=0)
    """Seconds to wait for nodes that an autoscaler has to start; 0 refuses at once what the cluster does not have."""
