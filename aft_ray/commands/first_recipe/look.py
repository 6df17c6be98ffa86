"""A look at the data: what it is, how much, and all faults that would stop a pipeline."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from aft_ray.commands.first_recipe.columns import guess
from aft_ray.commands.first_recipe.form import forms_at
from aft_ray.datasets import list_samples
from aft_ray.datasets.base import Listing, raise_faults
from aft_ray.datasets.held_out import choose_splits
from aft_ray.datasets.samples import check_ids
from aft_ray.datasets.sources.tables import Table, open_tables, read_rows
from aft_ray.models.images import open_picture
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.places import AnyPath, place_at
from aft_ray.recipe.printable import counted
from aft_ray.recipe.sections import DatasetConfig
from aft_ray.store.quarantine import UNREADABLE, quarantined_sample

PEEKED = 2000
"""First rows of a table that are looked at to find its columns."""
SPREAD, EVERY = 100_000, 50
"""Further rows that one in EVERY of is looked at: many tables are sorted by their label."""
TRIED = 500
"""Samples that are read."""
CALLED = {"image": "pictures", "text": "texts", "image+text": "pictures with texts"}
SMALL = 5_000
"""Samples of a data set, below which each class gets its share of every split."""
FEW = 10
"""Samples of a class below which its score means little."""
NUMBER = re.compile(r"[+-]?\d+")


SHARES = {"validation": 0.15, "test": 0.2}
"""Of the samples, held out of a data set that has no such split."""


@dataclass(frozen=True)
class Found:
    """section: the recipe's `dataset`. sizes: samples by split. counts: samples by class, most first; None is no label.
    side: median of the pictures' shorter sides. words: mean number of words of a text. examples: contents of a few samples.
    guessed: a line on the columns that the user did not name, where there are some.
    """

    section: Mapping[str, Any]
    listing: Listing
    sizes: Mapping[str, int]
    counts: Mapping[str | None, int]
    side: int
    words: int
    examples: tuple[Any, ...]
    guessed: Sequence[str] = ()

    @property
    def task(self) -> str:
        return self.listing.task

    def notes(self) -> list[str]:
        """What a user should know before training, a line each."""
        listing = self.listing
        parts = ", ".join(f"{count:,} {split}" for split, count in self.sizes.items())
        lines = [*self.guessed, f"{len(listing.items):,} {CALLED[listing.modality]}: {parts}"]
        classes = [(name, count) for name, count in self.counts.items() if name is not None]
        if listing.task == "classification":
            shown = ", ".join(f"{name} {count:,}" for name, count in classes[:8])
            lines.append(f"{len(classes)} classes: {shown}{', ...' if len(classes) > 8 else ''}")
            if rare := [name for name, count in classes if count < FEW]:
                shown = ", ".join(map(str, rare[:5])) + (", ..." if len(rare) > 5 else "")
                lines.append(
                    f"{counted(len(rare), 'class', 'classes')} with fewer than {FEW} samples, too few to be tested: {shown}"
                )
            if 2 * len(rare) > len(classes) and all(NUMBER.fullmatch(name) for name, _ in classes):
                lines.append("the classes are numbers, most of them rare: --task regression predicts the number itself")
        else:
            lines.append(f"task {listing.task}, {counted(len(listing.classes), 'output')}")
        if unlabelled := self.counts.get(None, 0):
            lines.append(
                f"{counted(unlabelled, 'sample')} without a label: the methods that use teachers learn from them too"
            )
        if listing.left_out:
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(listing.left_out.items()))
            lines.append(f"left out, as no samples: {kinds}")
        return lines


def look(path: str, given: Mapping[str, str], task: str | None = None) -> Found:
    """given: columns that the user named, by key of `dataset.columns`. task: guessed by default.

    Raises InputError with all faults: of labels, ids, splits, and of the samples that were tried.
    """
    faults: list[str] = []
    for form in forms_at(path):
        guessed: list[str] = []
        try:
            section = {"source": form, "path": path} | _columns(form, path, given, task)
            guessed = _guessed(section.get("columns", {}), given)
            return replace(_found(section), guessed=guessed)
        except InputError as error:  # the next form may read the path: pictures beside a table that is none of samples
            faults += [*error.faults, *guessed]
    raise InputError(faults)


def _guessed(columns: Mapping[str, Any], given: Mapping[str, str]) -> list[str]:
    """A line on the columns that were guessed, for a user who means others."""
    found = {key: name for key, name in columns.items() if key not in given and key != "image_root"}
    if not found:
        return []
    told = ", ".join(f"{key} {' and '.join([name] if isinstance(name, str) else name)}" for key, name in found.items())
    return [f"columns, as their names and values suggest: {told}. Others are named by --{', --'.join(found)}."]


def _peeked(table: Table, names: Sequence[str]) -> list[Mapping[str, Any]]:
    """The first rows of a table, and some of the later ones without the bytes of pictures."""
    rows: list[Mapping[str, Any]] = list(islice(read_rows(table, names), PEEKED))
    light = [name for name in names if not any(isinstance(row[name], (bytes, dict)) for row in rows)]
    if len(rows) < PEEKED or not light:
        return rows
    return [*rows, *islice(read_rows(table, light), PEEKED, SPREAD, EVERY)]


def _is_unique(tables: Sequence[Table], column: str) -> bool:
    """Whether no two rows of some tables have the same value in a column."""
    seen = set[str]()
    values = (str(row[column]) for table in tables for row in read_rows(table, [column]))
    return all(value not in seen and not seen.add(value) for value in values)  # type: ignore[func-returns-value]


def _columns(form: str, path: str, given: Mapping[str, str], task: str | None) -> dict[str, Any]:
    """Columns and task of the tables at `path`. Tars have a column for labels in JSON alone, pictures none."""
    named = {"task": task} if task else {}
    if form == "webdataset":
        return ({"columns": dict(given)} if given else {}) | named
    if form == "image_folder":
        raise_faults(
            f"--{key} {name} {'says how to read' if key == 'task' else 'names'} a column of a table, but {path} is read as"
            f" pictures, with the names of their folders as labels. Leave --{key} out, or name a table."
            for key, name in {**given, **named}.items()
        )
        return {}
    tables = open_tables(
        DatasetConfig.model_validate({"source": form, "path": path, "columns": {"text": "any"}})
    ).tables
    names = [name for name in tables[0].columns if all(name in table.columns for table in tables)]
    rows = _peeked(tables[0], names)
    if not rows:
        raise InputError(f"{tables[0].name} has no rows.")
    try:
        found = guess(names, rows, given, partial(_is_unique, tables)) | named
    except InputError as error:
        raise InputError([f"{tables[0].name}: {fault}" for fault in error.faults]) from error
    columns = found["columns"]
    if (root := _image_root(path, [row.get(columns["image"]) for row in rows])) if "image" in columns else None:
        columns["image_root"] = root
    return found


def _image_root(path: str, pictures: list[Any]) -> str | None:
    """The folder that the pictures' paths start from, where it is not the table's own."""
    place = place_at(path)
    own = place.parent if place.is_file() else place
    first = next((value for value in pictures if isinstance(value, str)), None)
    if first is None or (own / first).exists():
        return None
    children: list[AnyPath] = sorted(own.iterdir(), key=lambda child: child.name)
    inside = next((folder for folder in children if folder.is_dir() and (folder / first).exists()), None)
    near: tuple[AnyPath, ...] = (Path(), own.parent)
    root = inside or next((folder for folder in near if (folder / first).exists()), None)
    return None if root is None else str(root)


def _found(section: Mapping[str, Any]) -> Found:
    listing = list_samples(DatasetConfig.model_validate(section))
    check_ids(listing)
    section = {**section, **_held_out(listing)}
    config = DatasetConfig.model_validate(section)
    splits = choose_splits(listing, config)
    raise_faults(
        f"No samples fall into split {split}: {len(listing.items)} samples are too few. Add samples."
        for split, indices in splits.items()
        if not len(indices)
    )
    step = max(1, len(listing.items) // TRIED)
    contents, faults = [], []
    for index in range(0, len(listing.items), step):
        try:
            contents.append(_checked(listing.read(index)))
        except UNREADABLE as error:
            sample = listing.items[index].sample_id
            reason = quarantined_sample(sample, error)["reason"]
            faults.append(f"{config.path}: sample {sample} cannot be read: {reason}. Mend it or leave it out.")
    raise_faults(faults)
    counts = Counter(_label(listing, item.label) for item in listing.items)
    sides = [min(open_picture(picture).size) for picture, _ in contents if picture is not None]
    texts = [text for _, text in contents if text is not None]
    return Found(
        section,
        listing,
        {split: len(indices) for split, indices in splits.items()},
        dict(counts.most_common()),
        int(median(sides)) if sides else 0,
        round(sum(len(text.split()) for text in texts) / len(texts)) if texts else 0,
        tuple(contents[:8]),
    )


def _held_out(listing: Listing) -> dict[str, Any]:
    """The keys of `dataset` that make the splits which the data does not bring. Groups decide their splits themselves."""
    brought = {item.split for item in listing.items}
    keys: dict[str, Any] = {f"{split}_fraction": share for split, share in SHARES.items() if split not in brought}
    grouped = any(item.group is not None for item in listing.items)
    if keys and listing.task == "classification" and len(listing.items) < SMALL and not grouped:
        keys["stratify"] = True
    return keys


def _checked(content: Any) -> tuple[bytes | None, str | None]:
    """The picture and the text of a sample; the picture's header is read."""
    picture, text = (
        content if isinstance(content, tuple) else (content, None) if isinstance(content, bytes) else (None, content)
    )
    if picture is not None:
        open_picture(picture)
    if text is not None and not text.strip():
        raise ValueError("its text is empty")
    return picture, text


def _label(listing: Listing, label: Any) -> str | None:
    if isinstance(label, int):
        return listing.classes[label] if label >= 0 else None
    return None if label is None else "with a label"
