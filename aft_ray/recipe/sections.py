"""The sections of a recipe: every key with its type, its default and its meaning.

A section whose keys contradict each other raises ValueError, which `fault_lines` turns into lines for the user.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from aft_ray.recipe.actors import MOST_PROCESSES, Actors
from aft_ray.recipe.columns_section import ColumnsConfig
from aft_ray.recipe.model import Model, checked_name, is_own_class, named_or_own
from aft_ray.recipe.places import is_url
from aft_ray.recipe.task import Task

LARGEST_IMAGE, LONGEST_TEXT = 8192, 1_000_000
LARGEST_BATCH, MOST_PIXELS = 1_000_000, 2**31 - 1
"""Larger numbers are slips of the hand: pixels per side, tokens, samples of a batch."""

WARMUP_STEPS, WARMUP_SHARE = 50, 0.25
"""Steps of a warm-up that the recipe leaves open; at most this share, so that a short training has its learning rate for long."""


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
"""Keys of `dataset` that each source reads; its other keys are refused."""
ALL_SOURCE_KEYS = set().union(*SOURCE_KEYS.values())


class DatasetConfig(Model):
    name: str | None = None
    """A named data set (`aft-ray list datasets`)."""
    source: str | None = None
    """The form of your own data: `image_folder` (one folder per class), `parquet`, `csv` and `jsonl` (one row per sample),
    `webdataset` (tars), `hub` (a repository of the Hugging Face hub), `torchvision` (one of its classes), or `module:Class`,
    a class of your own."""
    options: dict[str, Any] = {}
    """Arguments of a source of your own."""
    path: str | None = None
    """Folder, file or glob (`data/*.parquet`) of `source`, here or behind a URL: `s3://`, `gs://`, `abfss://`, `hf://`, which
    is only read. For the hub or a named data set, a copy."""
    repo: str | None = None
    """Repository of the hub, OWNER/NAME."""
    subset: str | None = None
    """Configuration of the repository; null where there is only one."""
    revision: str | None = None
    """Branch, tag or commit of the repository; null takes the newest."""
    dataset_class: str | None = None
    """Name of torchvision's class, such as CIFAR10."""
    columns: ColumnsConfig = ColumnsConfig()
    """Names of the columns of a table."""
    splits: dict[Literal["train", "validation", "test"], tuple[str, ...]] = {}
    """The data set's own splits that make up train, validation and test, such as `test: validation_matched`; splits that are
    not named are left out. Empty recognises usual names: train, val, dev, test."""
    task: Task | None = None
    """`classification` (one class per sample), `multilabel` (any number of classes) or `regression` (numbers); null is
    classification, or the task of a named data set."""
    label_names: tuple[str, ...] = ()
    """Names of the classes in the order of their numbers; empty takes the data set's own names, or its sorted labels."""
    prompt: str | None = None
    """Template that joins texts, such as "Premise: {premise}\\nHypothesis: {hypothesis}"; null takes the named data set's own,
    `reference` the template of the AFT authors' code."""
    truncation_side: Literal["left", "right"] | None = None
    """Side on which a tokenizer cuts a long text; null is right, or the side that suits the named data set's prompt."""
    validation_fraction: float = Field(default=0.1, gt=0, lt=1)
    """Share of the samples for validation, where the data set has no validation split."""
    test_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share of the samples for test, where the data set has no test split."""
    stratify: bool = False
    """Give each class these shares, for small data sets; false decides by each sample's id alone, so that a sample stays in its
    split when others come or go."""
    split_seed: int = Field(default=0, ge=0, le=2**62)
    """Another number holds out other samples, to see how much a result depends on the split."""
    max_samples: int | None = Field(default=None, gt=0)
    """Number of samples to keep, the ids with the lowest hashes; null keeps all."""
    train_fraction: float = Field(default=1.0, gt=0, le=1)
    """Share of each class of the train split to keep, the ids with the lowest hashes, at least one sample."""
    samples_per_shard: int | None = Field(default=None, gt=0)
    """Samples of one Parquet shard, the unit of extraction and of restart; null fills 32 MiB, at most 512 samples."""
    distributed: Literal["auto", "never", "always"] = "auto"
    """Whether `prepare` works in many processes, on the cluster of RAY_ADDRESS or on this machine; its result is the same. `auto`
    does from 250,000 samples on. Named data sets and streams of the hub are listed by one process."""
    copy_content: bool = Field(default=True, alias="copy")
    """Copy the samples' files into the workspace; false stores their paths or URLs and reads the originals every time."""
    background: Literal["white", "grey", "black"] | None = "white"
    """Colour behind the transparent parts of pictures; null shows the colours that these parts hide, mostly black."""
    max_pixels: int | None = Field(default=None, gt=0, le=MOST_PIXELS)
    """Most pixels of a picture; larger ones are quarantined before they fill the memory. Null is 89,478,485."""
    max_bad_samples: int = Field(default=0, ge=0)
    """Most samples to quarantine when they cannot be used; each is listed with its reason."""

    def urls(self) -> tuple[str, ...]:
        """The places of the raw data that are URLs."""
        return tuple(place for place in (self.path, self.columns.image_root) if place is not None and is_url(place))

    def paths(self) -> tuple[str, ...]:
        """The paths of the raw data, without patterns of names."""
        places = (place for place in (self.path, self.columns.image_root) if place and not is_url(place))
        return tuple(os.path.abspath(os.path.expanduser(place)) for place in places if not glob.has_magic(place))

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
        faults = [*self._origin_faults(), *self._column_faults(), *self._stratify_faults()]
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

    def _stratify_faults(self) -> list[str]:
        """Faults that show before the samples are read."""
        if not self.stratify:
            return []
        faults = (
            [] if self.task in (None, "classification") else ["stratify needs one class per sample; set it to false"]
        )
        if self.columns.group is not None:
            faults.append("stratify and columns.group cannot both decide a sample's split; leave one out")
        return faults

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
    """Directory of the features under `features/`; derived from `model` when left out."""
    model: str
    """`timm:NAME`, `open_clip:ARCHITECTURE/TAG`, `transformers:REPO_OR_DIRECTORY`, or a class of your own, `module:Class`.
    timm and open_clip also take `hf-hub:REPO` and `local-dir:DIRECTORY`, models saved in their own format. A directory may
    be a URL."""
    weights: str | None = None
    """Weights file instead of the published weights: a path, a URL, or `package://MODULE/FILE`. A checkpoint's weights are
    found inside it, averaged ones first."""
    tower: Literal["image", "text"] | None = None
    """Half of a two-tower model (CLIP, SigLIP) to run; null runs the image tower."""
    image_size: int | None = Field(default=None, gt=0, le=LARGEST_IMAGE)
    """Input pixels per side; null takes the size that the teacher was trained with."""
    max_length: int | None = Field(default=None, gt=0, le=LONGEST_TEXT)
    """Tokens to read of a text; null reads as many as the teacher can."""
    truncation_side: Literal["left", "right"] | None = None
    """Side on which a transformers tokenizer cuts a long text; null takes the data set's `truncation_side`."""
    pooling: Literal["cls", "mean", "last", "eos", "pooler"] | None = None
    """How token features become one vector; null pools as the model was trained."""
    batch_size: int = Field(default=64, gt=0, le=LARGEST_BATCH)
    """Samples per forward pass on one device; if its memory is too small, half the size is tried and logged."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the forward pass. On a GPU bf16 and fp16 are several times faster than full-precision fp32."""
    compile: bool = False
    """Compile the model with `torch.compile`; worth its start-up time on long extractions."""
    features_dtype: Literal["float16", "float32"] = "float16"
    """Type of the stored features."""
    options: dict[str, Any] = {}
    """Arguments of a class of your own, handed over as they are."""
    num_actors: Actors = 1
    """Copies of this teacher that run at the same time: a number, or `{min, max}` for a number that grows."""
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

    @property
    def min_actors(self) -> int:
        return self.num_actors if isinstance(self.num_actors, int) else self.num_actors.min

    @property
    def max_actors(self) -> int:
        return self.num_actors if isinstance(self.num_actors, int) else self.num_actors.max

    def reading(self, samples: Mapping[str, Any]) -> TeacherConfig:
        """The config for the samples of this manifest, whose prompt may decide the truncation side."""
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
    """Start from this weights file: a path, a URL, or `package://MODULE/FILE`. A checkpoint's weights are found inside it,
    averaged ones first. For `tiny:text` and `tiny:pair` the directory of a language model, whose word vectors they take."""
    image_size: int | None = Field(default=None, gt=0, le=LARGEST_IMAGE)
    """Input pixels per side; null takes the model's own size."""
    max_length: int | None = Field(default=None, gt=0, le=LONGEST_TEXT)
    """Tokens to read of a text; null reads as many as the model can, at most 512; tiny models read 128 words."""
    pooling: Literal["mean", "cls", "pooler", "last", "head"] | None = None
    """How a transformers model's tokens become features: the mean of all tokens, the first token (`cls`), BERT's `pooler`, the
    last token, or the model's own classification `head` without its last layer. Null is `head` for a pretrained sequence
    classifier and `mean` for any other model, whose head is not trained."""
    options: dict[str, Any] = {}
    """Arguments of a class of your own, handed over as they are."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    """Largest share of the samples of a batch for which a block of a timm model is left out in training (stochastic depth); the
    share grows from the first block to the last."""


class RegularizerConfig(Model):
    model_config = ConfigDict(extra="allow")

    name: str = "aft"
    """The method (`aft-ray list regularizers`); `none` is standard transfer learning."""
    beta: float = Field(default=10.0, ge=0)
    """Strength: loss = task_loss + beta * regularization."""
    learning_rate: float = Field(default=0.01, gt=0)
    """Learning rate of the regularizer's parameters (gates, projections)."""
    steps_per_student_step: int = Field(default=1, gt=0)
    """Steps of the regularizer's parameters for each step of the student, each on its own batch."""

    @property
    def options(self) -> dict[str, Any]:
        """The section's other keys, such as `learn_gates: false`; `build_regularizer` knows which exist."""
        return dict(self.model_extra or {})


class TrainConfig(Model):
    shorthands = ("preset",)

    steps: int = Field(default=1000, gt=0, le=10**9)
    """Optimizer steps."""
    global_batch_size: int = Field(default=128, gt=1, le=LARGEST_BATCH)
    """Samples per step over all workers; kernels are computed over this whole batch."""
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    """Optimizer of the student; `sgd` has momentum 0.9."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak learning rate of the student; `schedule` says how it changes, step by step."""
    schedule: Literal["cosine", "linear", "constant", "warmup_stable_decay"] = "cosine"
    """Course of the learning rates after the warm-up: along a cosine or a line to zero, none, or constant and along a line to
    zero in the last fifth of the steps."""
    head_learning_rate: float | None = Field(default=None, gt=0)
    """Peak learning rate of the student's last layer; null takes `learning_rate`."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Factor of the learning rate from each block of the student to the block before it; below 1, early layers of a pretrained
    student change less."""
    frozen_steps: int = Field(default=0, ge=0)
    """Steps at the start in which only the student's last layer and the regularizer learn."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Weight decay of the student; the regularizer's parameters do not decay."""
    warmup_steps: int | None = Field(default=0, ge=0)
    """Steps of linear warm-up; null takes 50, at most a quarter of `steps`, also where a search or a study changes `steps`."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Maximum norm of the student's gradient; null disables clipping."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of each target's probability that is spread evenly over all classes."""
    class_weights: Literal["none", "balanced"] = "none"
    """Weight of a sample in the training's task loss: equal, or `balanced`, inverse to the number of labelled samples of its
    class."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay of an exponential moving average of the student's weights, such as 0.999. The average is evaluated, kept and
    exported. Null keeps the weights of the last step."""
    augment: Literal["none", "light", "strong"] = "none"
    """Random changes of the student's view of each sample: crops and flips of pictures, with `strong` also turns, colours and an
    erased patch; dropped words of texts. Teachers' features stay those of the whole sample."""
    views: int = Field(default=1, gt=0, le=100)
    """Views of each picture that teachers see: the whole, and crops of at least half its area. With `augment`, the student sees
    at each step a part that its target features were made of. `extract` takes this many times as long, and as much room."""
    flip: bool = True
    """Let `augment` mirror pictures; false for digits, letters and other pictures with a left and a right."""
    accumulation_steps: int = Field(default=1, gt=0, le=LARGEST_BATCH)
    """Parts of a worker's rows that go through the student one by one, to save memory; kernels still cover the whole batch."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the student's forward pass; losses are always float32. On a GPU torch computes fp32 convolutions in
    TF32."""
    compile: bool = False
    """Compile the student with `torch.compile`."""
    deterministic: bool = False
    """Use deterministic algorithms on a GPU, which may be slower; a CPU always does."""
    early_stopping: int | None = Field(default=None, gt=0)
    """Evaluations without a better validation score after which training stops; null trains all steps."""
    streaming: bool | None = None
    """Read samples from their shards during training instead of holding a split in memory; null decides by its size."""
    trackers: tuple[Literal["mlflow", "wandb"], ...] = ()
    """Services that receive metrics besides `metrics.jsonl` and TensorBoard."""
    labels_per_class: int | None = Field(default=None, gt=0)
    """Labels to keep per class of the train split; the other samples take part in the regularizer only."""
    labeled_fraction: float = Field(default=0.5, gt=0, le=1)
    """Share of labelled samples in each batch, if some samples have no label."""
    evaluate_every: int | None = Field(default=None, gt=0)
    """Steps between two evaluations; null evaluates ten times in a run."""
    seed: int = Field(default=0, ge=0, le=2**62)
    """Seed of the student's initial weights, the order of samples and the choice of labels to keep."""
    num_workers: int = Field(default=1, gt=0, le=MOST_PROCESSES)
    """DDP workers; their number does not change the result."""
    use_gpu: bool = False
    """One GPU per worker."""
    max_failures: int = Field(default=3, ge=0)
    """Times that killed workers are replaced; training continues from the last checkpoint."""

    @property
    def num_warmup_steps(self) -> int:
        """`warmup_steps`, or the number that null stands for."""
        return int(min(WARMUP_STEPS, self.steps * WARMUP_SHARE)) if self.warmup_steps is None else self.warmup_steps


class ResourcesConfig(Model):
    """Resource settings not covered by `teachers[].num_gpus`, `num_actors`, `train.num_workers` and `use_gpu`."""

    decode_cpus: int | None = Field(default=None, gt=0, le=MOST_PROCESSES)
    """CPUs that read and crop samples for extraction and prediction. Null takes a quarter of the cluster's CPUs for teachers on
    CPUs; for teachers on GPUs, the share of its CPUs that equals their share of its GPUs, without the actors' own CPUs."""
    cpus_per_worker: float = Field(default=1.0, gt=0, le=MOST_PROCESSES)
    """CPUs and threads of each training worker; fractions share one CPU."""
    min_workers: int | None = Field(default=None, gt=0)
    """Fewest workers to start training with, if there is no room for `train.num_workers`; others join as room comes. Null waits
    for all workers. The result is the same."""
    wait_s: float = Field(default=0.0, ge=0)
    """Seconds to wait for nodes that an autoscaler starts; 0 refuses at once if the cluster lacks resources."""
