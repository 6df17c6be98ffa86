"""Which split a sample falls into: rows without a label train, and small data sets can be stratified."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from aft_ray.datasets.base import Item, Listing
from aft_ray.datasets.held_out import choose_splits
from aft_ray.datasets.prepare import prepare
from aft_ray.recipe.config import Recipe, override
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import DatasetConfig
from aft_ray.store.schema import SPLITS, UNLABELED


def listing(labels: list[Any], **more: list[Any]) -> Listing:
    splits, groups = (more.get(key, [None] * len(labels)) for key in ("splits", "groups"))
    rows = [Item(f"s{n}", label, None, splits[n], groups[n]) for n, label in enumerate(labels)]
    return Listing("text", ("a", "b", "c"), tuple(rows), lambda index: "x")


def chosen(found: Listing, *, before: bool = False, **keys: Any) -> dict[str, list[int]]:
    config = DatasetConfig.model_validate({"source": "csv", "path": "x", "columns": {"text": "text"}, **keys})
    splits = choose_splits(found, config, unlabelled_in_train=not before)
    return {split: indices.tolist() for split, indices in splits.items()}


def plainly(found: Listing, config: DatasetConfig) -> dict[str, list[int]]:
    """The rule sample by sample."""
    order = sorted(range(len(found.items)), key=lambda n: unit_hash("order", found.items[n].sample_id))
    order = order[: config.max_samples]
    free = [n for n in order if found.items[n].split in (None, "train")]
    labelled = [n for n in free if found.items[n].label not in (None, UNLABELED)]
    groups = {found.items[n].group for n in labelled} - {None}
    useful = [n for n in free if n in labelled or found.items[n].group in groups] if labelled else free
    brought = {item.split for item in found.items}
    shares = {"test": config.test_fraction, "validation": config.validation_fraction}
    shares = {split: 0.0 if split in brought else share for split, share in shares.items()}
    chosen = {}
    for n in useful:
        item = found.items[n]
        place = unit_hash("split", item.sample_id if item.group is None else item.group)
        if place < shares["test"] + shares["validation"]:
            chosen[n] = "test" if place < shares["test"] else "validation"
    splits: dict[str, list[int]] = {split: [] for split in SPLITS}
    for n in order:
        splits[chosen.get(n) or found.items[n].split or "train"].append(n)
    classes = Counter(found.items[n].label for n in splits["train"])
    wanted = {label: max(1, round(config.train_fraction * count)) for label, count in classes.items()}
    seen = Counter[Any]()
    kept = []
    for n in splits["train"]:
        seen[found.items[n].label] += 1
        if seen[found.items[n].label] <= wanted[found.items[n].label]:
            kept.append(n)
    return splits | {"train": kept}


def unit_hash(salt: str, text: str) -> float:
    return int.from_bytes(hashlib.sha256(f"{salt}:{text}".encode()).digest()[:8], "big") / 2**64


@pytest.mark.parametrize("groups", [False, True])
@pytest.mark.parametrize("brought", [(None,), (None, "train"), ("train", "test"), ("train", "validation", "test")])
@pytest.mark.parametrize("keys", [{}, {"max_samples": 150}, {"train_fraction": 0.3, "max_samples": 290}])
def test_columns_of_numbers_choose_the_samples_that_the_rule_chooses_one_by_one(
    groups: bool, brought: tuple[Any, ...], keys: dict[str, Any]
) -> None:
    drawn = random.Random(repr((groups, brought, keys)))
    labels = [drawn.choice((0, 1, 2, UNLABELED)) for _ in range(300)]
    members = [f"g{drawn.randrange(90)}" if groups and drawn.random() < 0.8 else None for _ in labels]
    found = listing(labels, splits=[drawn.choice(brought) for _ in labels], groups=members)
    config = DatasetConfig.model_validate({"source": "csv", "path": "x", "columns": {"text": "text"}, **keys})
    assert chosen(found, **keys) == plainly(found, config)


@pytest.mark.parametrize("stratify", [False, True])
def test_another_split_seed_holds_out_other_samples_of_the_same_set(stratify: bool) -> None:
    found = listing([n % 3 for n in range(900)])
    splits = [chosen(found, split_seed=seed, stratify=stratify, max_samples=600) for seed in (0, 1, 2)]
    assert splits[0] == chosen(found, stratify=stratify, max_samples=600)
    assert len({frozenset(n for own in split.values() for n in own) for split in splits}) == 1
    for split, other in ((splits[0], splits[1]), (splits[1], splits[2])):
        common = len({*split["test"]} & {*other["test"]})
        assert 0.1 < common / len(split["test"]) < 0.3, "a test share of 0.2 has a fifth in common by chance"


def test_rows_without_a_label_train_and_labelled_rows_stay_where_they_were() -> None:
    labels = [UNLABELED if n % 3 == 0 else n % 2 for n in range(300)]
    now, before = chosen(listing(labels)), chosen(listing(labels), before=True)
    for split in ("validation", "test"):
        assert any(labels[n] == UNLABELED for n in before[split])
        assert now[split] == [n for n in before[split] if labels[n] != UNLABELED]
    assert sum(map(len, now.values())) == 300


def test_data_without_any_label_is_held_out_as_before() -> None:
    found = listing([UNLABELED] * 100)
    assert chosen(found) == chosen(found, before=True) and all(chosen(found).values())


def test_a_group_stays_together_though_some_of_its_rows_have_no_label() -> None:
    labels = [UNLABELED if n % 3 == 0 else 0 for n in range(300)]
    groups = [f"g{n // 3}" for n in range(300)]
    splits = chosen(listing(labels, groups=groups), columns={"text": "text", "group": "g"})
    places: dict[str, set[str]] = {}
    for split, indices in splits.items():
        for index in indices:
            places.setdefault(groups[index], set()).add(split)
    assert {len(found) for found in places.values()} == {1}


def test_brought_splits_keep_their_rows_without_a_label() -> None:
    splits = ["train", "validation", "test"] * 20
    found = chosen(listing([UNLABELED if n % 2 else 0 for n in range(60)], splits=splits))
    assert {split: len(indices) for split, indices in found.items()} == {"train": 20, "validation": 20, "test": 20}


@pytest.mark.parametrize("sizes", [(100, 20, 10), (300, 8, 3)])
def test_stratify_gives_each_class_its_share_of_every_split(sizes: tuple[int, ...]) -> None:
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    splits = chosen(listing(labels), stratify=True)
    for split, fraction in (("validation", 0.1), ("test", 0.2)):
        counts = Counter(labels[n] for n in splits[split])
        assert all(abs(counts[label] - fraction * size) <= 1 for label, size in enumerate(sizes))
        assert min(counts[label] for label in range(3)) >= 1
    assert sorted(n for indices in splits.values() for n in indices) == list(range(len(labels)))
    assert chosen(listing(labels), stratify=True) == splits


def test_stratify_is_refused_where_it_means_nothing() -> None:
    for keys in ({"task": "regression"}, {"columns": {"text": "text", "group": "g"}}):
        with pytest.raises(ValueError, match="stratify"):
            chosen(listing([0]), stratify=True, **keys)


def test_stratify_is_a_key_of_the_samples(tmp_path: Path, image_folder: Path) -> None:
    dataset = {"source": "image_folder", "path": str(image_folder), "stratify": True}
    given = Recipe.model_validate(
        {"workspace": str(tmp_path / "work"), "dataset": dataset, "student": {"model": "tiny:cnn"}}
    )
    manifests = prepare(given)
    assert manifests["validation"]["samples_per_class"] == {"bottom": 3, "top": 3}
    assert manifests["test"]["samples_per_class"] == {"bottom": 6, "top": 6}
    with pytest.raises(InputError, match="dataset.stratify is True on disk, False in this run"):
        prepare(override(given, {"dataset.stratify": False}))
