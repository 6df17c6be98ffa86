"""The subject of the mutations: a folder with raw data, a recipe and a workspace that holds everything the verbs write."""

from __future__ import annotations

import csv
import io
import json
import os
import tarfile
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from aft_ray import cli
from jobs.benchmarks.fuzz_without_ray import Killed, without_ray

RECIPE = """\
workspace: work
dataset: {source: image_folder, path: data/pictures, samples_per_shard: 10, validation_fraction: 0.25, test_fraction: 0.25}
teachers:
- {name: means, model: "brightness:Means"}
- {name: rows, model: "brightness:Rows"}
student: {model: "tiny:cnn", image_size: 8}
regularizer: {name: aft, beta: 1.0}
train: {steps: 6, evaluate_every: 2, global_batch_size: 8, learning_rate: 0.003, streaming: false}
search: {compare: [none, aft], beta: [1.0], teachers: [[means, rows]], scheduler: none, final: {seeds: 1}}
"""
TEACHERS = """\
import torch

from aft_ray.models.images import ImageTransform
from aft_ray.models.teachers import TeacherDescription

TRANSFORM = ImageTransform(8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


class Means:
    axes, feature_dim = (1, 2), 3

    @classmethod
    def describe(cls, config):
        return TeacherDescription("image", TRANSFORM, {"weights": cls.__name__})

    def __init__(self, config, device):
        pass

    def __call__(self, inputs):
        return torch.from_numpy(inputs.mean(self.axes)).flatten(1).float() / 255


class Rows(Means):
    axes, feature_dim = (2, 3), 8
"""
TEXTS = [(f"{word} number {index}, said twice", word) for index in range(20) for word in ("rain", "sun", "Schnee ä")]
MADE_BY = (
    ["prepare", "recipe.yaml"],
    ["extract", "recipe.yaml"],
    ["rank", "recipe.yaml"],
    ["search", "recipe.yaml"],
    ["train", "recipe.yaml"],
    ["evaluate", "recipe.yaml"],
    ["export", "recipe.yaml"],
    ["predict", "recipe.yaml", "data/new"],
    ["report", "recipe.yaml"],
)


def make_subject(place: Path) -> None:
    """Fills the folder `place`; its workspace is made by the verbs themselves, in this process."""
    write_data(place / "data")
    (place / "elsewhere").mkdir()
    (place / "elsewhere" / "diary.txt").write_text("Nobody's business.\n")
    (place / "brightness.py").write_text(TEACHERS)
    (place / "recipe.yaml").write_text(RECIPE)
    before = os.getcwd()
    os.chdir(place)
    try:
        for arguments in MADE_BY:
            _run(arguments)
        with suppress(Killed):
            _run(["train", "recipe.yaml", "run=cut"], killed_at=2)
    finally:
        os.chdir(before)


def _run(arguments: list[str], killed_at: int | None = None) -> None:
    told = io.StringIO()
    with without_ray(killed_at=killed_at), redirect_stdout(told), redirect_stderr(told):
        found = cli.main(arguments)
    assert not found, f"{arguments} ended with {found}:\n{told.getvalue()}"


def write_data(data: Path) -> None:
    """Pictures in class folders, the same in a tar, new ones without a class, and texts in four forms of tables."""
    random = np.random.default_rng(0)
    for number, name in enumerate(("dark", "light")):
        (data / "pictures" / name).mkdir(parents=True)
        for index in range(30):
            pixels = random.integers(0, 120, (9, 9, 3), dtype=np.uint8) + np.uint8(100 * number)
            Image.fromarray(pixels).save(data / "pictures" / name / f"{index:02d}.png")
    (data / "new").mkdir()
    for path in sorted((data / "pictures").rglob("0*.png")):
        os.link(path, data / "new" / f"{path.parent.name}-{path.name}")
    with tarfile.open(data / "pictures.tar", "w") as tar:
        for path in sorted((data / "pictures").rglob("*.png")):
            key = f"{path.parent.name}-{path.stem}"
            for suffix, content in (("png", path.read_bytes()), ("cls", path.parent.name.encode())):
                member = tarfile.TarInfo(f"{key}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    for name, delimiter in (("texts.csv", ","), ("texts.tsv", "\t")):
        with (data / name).open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream, delimiter=delimiter).writerows([("text", "label"), *TEXTS])
    rows = [{"text": text, "label": label} for text, label in TEXTS]
    (data / "texts.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), data / "texts.parquet", row_group_size=20)
