"""Small local copies of the hub's data sets, in its files and with its columns, types and names of classes.

How the schemas were checked, against copies of public documents, never against the hub itself (there is no network here):

- The `dataset_info` of the repository's own card (columns, types, names of classes, splits): CoLA's in nyu-mll/glue;
  timm/oxford-iiit-pet; ethz/food101; SNLI-VE_train (its test repository is taken to be alike); SuperGLUE's boolq.
- The repository's `dataset_infos.json`: uoft-cs/cifar100.
- The loading script that the repository's files were made by: GLUE's other tasks (huggingface/datasets,
  `datasets/glue/glue.py`; of wnli only the splits and their sizes, in the hub's viewer).
- Lists of files and splits only: stanfordnlp/imdb, dpdl-benchmark/oxford_flowers102, ethz/food101, nyu-mll/glue.
- In part: FGVC-Aircraft's card shows image, bbox and family, its columns `variant` and `manufacturer` and DTD's and
  flowers102's `label` are from public code that reads them. IMDB's neg and pos, cifar10's names and wnli's are from memory.

Columns that nothing here reads are left out where they are lists or structs (bbox; SNLI-VE's tags). Where a task has many
classes, made-up names stand for the hub's.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

NLI = ("entailment", "neutral", "contradiction")
TWO_SENTENCES = ("sentence1", "sentence2")
GLUE_SPLITS = ("train", "validation", "test")
MNLI_SPLITS = ("train", *(f"{split}_{kind}" for split in ("validation", "test") for kind in ("matched", "mismatched")))


@dataclass(frozen=True)
class Schema:
    """A repository on the hub.

    folder: of its Parquet files. file: of a split. texts, images: columns. classes: of `label`, names or their number.
    more: other columns, by their type. unlabelled: splits whose labels are -1.
    """

    splits: tuple[str, ...]
    classes: int | tuple[str, ...]
    folder: str = ""
    file: str = "{split}-00000-of-00001.parquet"
    texts: tuple[str, ...] = ()
    image: str | None = None
    label: str = "label"
    more: Mapping[str, str] | None = None
    unlabelled: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        if isinstance(self.classes, int):
            return [f"class {index:03d}" for index in range(self.classes)]
        return [*self.classes]


def glue(name: str, classes: tuple[str, ...], *texts: str, splits: tuple[str, ...] = GLUE_SPLITS) -> Schema:
    unlabelled = tuple(split for split in splits if split.startswith("test"))
    return Schema(splits, classes, name, texts=texts, more={"idx": "int32"}, unlabelled=unlabelled)


CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PAIRS = Schema(
    (),
    NLI,
    "data",
    "{split}-00000-of-00001-82935ef474d76a35.parquet",  # pushed by a version of the hub's library that added a hash
    texts=("premise", "hypothesis"),
    image="image",
    more={"filename": "string", "id": "int64", "id_image": "int64", "blip_caption": "string"},
)
REPOSITORIES: dict[str, dict[str, Schema]] = {
    "cifar10": {"": Schema(("train", "test"), CIFAR10, "plain_text", image="img")},
    "cifar100": {
        "": Schema(("train", "test"), 100, "cifar100", image="img", label="fine_label", more={"coarse_label": "int64"})
    },
    "flowers102": {"": Schema(("train", "validation", "test"), 102, "data", image="image")},
    "oxford_pets": {
        "": Schema(("train", "test"), 37, "data", image="image", more={"image_id": "string", "label_cat_dog": "int64"})
    },
    "fgvc_aircraft": {
        "": Schema(
            ("train", "validation", "test"),
            100,
            "default",
            "{split}/0000.parquet",
            image="image",
            label="variant",
            more={"family": "int64", "manufacturer": "int64"},
        )
    },
    "dtd": {"": Schema(("train", "validation", "test"), 47, "partition_1", "{split}/0000.parquet", image="image")},
    "food101": {"": Schema(("train", "validation"), 101, "data", image="image")},
    "imdb": {
        "": Schema(
            ("train", "test", "unsupervised"),
            ("neg", "pos"),
            "plain_text",
            texts=("text",),
            unlabelled=("unsupervised",),
        )
    },
    "boolq": {"": glue("boolq", ("False", "True"), "question", "passage")},
    "mnli": {"": glue("mnli", NLI, "premise", "hypothesis", splits=MNLI_SPLITS)},
    "mnli_mismatched": {"": glue("mnli", NLI, "premise", "hypothesis", splits=MNLI_SPLITS)},
    "mrpc": {"": glue("mrpc", ("not_equivalent", "equivalent"), *TWO_SENTENCES)},
    "sst2": {"": glue("sst2", ("negative", "positive"), "sentence")},
    "cola": {"": glue("cola", ("unacceptable", "acceptable"), "sentence")},
    "qnli": {"": glue("qnli", ("entailment", "not_entailment"), "question", "sentence")},
    "rte": {"": glue("rte", ("entailment", "not_entailment"), *TWO_SENTENCES)},
    "qqp": {"": glue("qqp", ("not_duplicate", "duplicate"), "question1", "question2")},
    "wnli": {"": glue("wnli", ("not_entailment", "entailment"), *TWO_SENTENCES)},
    "snli_ve": {
        "SNLI-VE_train": Schema(("train",), NLI, "data", PAIRS.file, PAIRS.texts, "image", more=PAIRS.more),
        "SNLI-VE_test": Schema(("test",), NLI, "data", PAIRS.file, PAIRS.texts, "image", more=PAIRS.more),
    },
}
"""For each named task, the repositories it needs, by the folder of a local copy that holds several."""


def png(seed: int, size: int = 8) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, format="PNG")
    return encoded.getvalue()


def rows_of(schema: Schema, split: str, count: int) -> dict[str, list[Any]]:
    classes = len(schema.names)
    labels = [-1] * count if split in schema.unlabelled else [index % classes for index in range(count)]
    rows: dict[str, list[Any]] = {schema.label: labels}
    for name in schema.texts:
        rows[name] = [f"{name} {index} of {split}, class {label}" for index, label in enumerate(labels)]
    if schema.image:
        rows[schema.image] = [{"bytes": png(index), "path": None} for index in range(count)]
    for name, kind in (schema.more or {}).items():
        rows[name] = [str(index) if kind == "string" else index for index in range(count)]
    return rows


def as_dataset(schema: Schema, split: str, count: int) -> Any:
    """A split as the hub's own library holds it."""
    import datasets

    features: dict[str, Any] = {schema.label: datasets.ClassLabel(names=schema.names)}
    features |= {name: datasets.Value("string") for name in schema.texts}
    features |= {name: datasets.Value(kind) for name, kind in (schema.more or {}).items()}
    if schema.image:
        features[schema.image] = datasets.Image()
    return datasets.Dataset.from_dict(rows_of(schema, split, count), features=datasets.Features(features))


def write_copy(root: Path, task: str, count: int | None = None) -> Path:
    """A local copy of what the named task needs, `count` rows per split (twice the classes, at least 40)."""
    for folder, schema in REPOSITORIES[task].items():
        number = count or max(40, 2 * len(schema.names))
        for split in schema.splits:
            file = root / folder / schema.folder / schema.file.format(split=split)
            file.parent.mkdir(parents=True, exist_ok=True)
            as_dataset(schema, split, number).to_parquet(file)
    return root
