"""The data check at the end of `prepare`: a line for everything about the samples that may surprise.

Nothing here is an error. Contents are read again from the new shards; of large data sets a part, which is a random sample
since shards are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import numpy as np

from aft_ray.datasets.sources.classes import short_name
from aft_ray.models.images import decode, open_picture
from aft_ray.recipe.printable import counted
from aft_ray.store.contents import contents, rows_by_picture
from aft_ray.store.manifest import num_labelled
from aft_ray.store.prefetch import prefetched
from aft_ray.store.quarantine import UNREADABLE
from aft_ray.store.shards import ShardDirectory

FEWEST = 5
"""Samples of a class in a split, below which its score there is chance."""
FEWEST_TO_CHOOSE_BY = 100
"""Labelled validation samples."""
COMPARED = 20_000
"""Samples of a split that are compared by content."""
DECODED = 500
"""Pictures of a split that are decoded."""
FAR = 10.0
"""Mean or standard deviation of the numbers of a regression, above which a student needs many steps to reach them."""
SMALL = (64, 64)
"""Pixels to which a JPEG is decoded: quick, and enough to see whether it has one colour."""
NAMED = 3
THREADS = 4

Manifests = Mapping[str, Mapping[str, Any]]


def data_check(directories: Mapping[str, ShardDirectory], manifests: Manifests) -> list[str]:
    """Lines about the samples of these splits, which are whole."""
    found = _Contents()
    for split, directory in directories.items():
        _read(directory, manifests[split], split, found)
    numbers = _number_lines(directories["train"], manifests["train"])
    return [*_label_lines(manifests), *_small_split_lines(manifests), *numbers, *found.lines()]


def _label_lines(manifests: Manifests) -> Iterator[str]:
    alike: dict[str, list[str]] = {}
    for name in manifests["train"]["classes"]:
        alike.setdefault(" ".join(name.casefold().split()), []).append(short_name(repr(name)))
    groups = [" and ".join(names) for names in alike.values() if len(names) > 1]
    if groups:
        yield f"Classes that differ only in case or blanks: {'; '.join(groups[:NAMED])}{_more(groups)}. Are they one class?"


def _small_split_lines(manifests: Manifests) -> Iterator[str]:
    if manifests["train"]["task"] == "regression":
        return
    labelled = {split: num_labelled(manifest) for split, manifest in manifests.items()}
    few = [
        f"{short_name(name)} ({count} in {split})"
        for split, manifest in manifests.items()
        for name, count in manifest["samples_per_class"].items()
        if count < FEWEST and labelled[split]
    ]
    if few:
        is_stratified = manifests["train"].get("recipe", {}).get("stratify", False)
        hint = "" if is_stratified else " dataset.stratify gives every class its share of each split."
        yield f"Classes with fewer than {FEWEST} samples in a split: {', '.join(few[:NAMED])}{_more(few)}.{hint}"
    none = [split for split, count in labelled.items() if not count]
    if none:
        yield f"No sample of {' and '.join(none)} has a label: there is nothing to score there."
    count = labelled["validation"]
    if 0 < count < FEWEST_TO_CHOOSE_BY:
        yield (
            f"The validation split has {counted(count, 'labelled sample')}, too few to choose by: the standard error of an"
            f" accuracy of 50 % is {50 / count**0.5:.0f} points there. Raise dataset.validation_fraction, or add samples."
        )


def _number_lines(directory: ShardDirectory, manifest: Mapping[str, Any]) -> Iterator[str]:
    """Tells numbers of a regression that are far from where a student starts; of the first shard of train."""
    if manifest["task"] != "regression":
        return
    labels = directory.read_shard(0, ["label"]).column("label").drop_null().to_pylist()
    if not labels:
        return
    means, deviations = np.mean(labels, axis=0), np.std(labels, axis=0)
    worst = int(np.argmax(np.maximum(abs(means), deviations)))
    if max(abs(means[worst]), deviations[worst]) > FAR:
        which = f" of output {manifest['classes'][worst]}" if len(means) > 1 else ""
        yield (
            f"The numbers{which} have mean {means[worst]:.3g} and standard deviation {deviations[worst]:.3g}: a student starts"
            " at 0 and needs many steps to reach them. Scale the column to mean 0 and deviation 1."
        )


def _more(found: list[str]) -> str:
    return f" and {len(found) - NAMED} more" if len(found) > NAMED else ""


@dataclass
class _Contents:
    """Findings in the samples' contents. first: by digest, a sample and its split. copies: each sample with the same content in
    an earlier split, and the earlier sample.
    """

    first: dict[bytes, tuple[str, str]] = field(default_factory=dict)
    copies: list[tuple[str, str]] = field(default_factory=list)
    compared: int = 0
    decoded: int = 0
    transparent: list[str] = field(default_factory=list)
    flat: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    is_part: bool = False

    def compare(self, digest: bytes, sample_id: str, split: str) -> None:
        self.compared += 1
        other, other_split = self.first.setdefault(digest, (sample_id, split))
        if other_split != split:
            self.copies.append((f"{sample_id} ({split})", f"{other} ({other_split})"))

    def look(self, kinds: tuple[bool, bool, bool] | None, sample_id: str) -> None:
        """kinds: as `_kinds`; None of a picture that was not looked at."""
        if kinds is not None:
            self.decoded += 1
            for seen, is_so in zip((self.transparent, self.flat, self.broken), kinds, strict=True):
                if is_so:
                    seen.append(sample_id)

    def lines(self) -> Iterator[str]:
        looked_at = f"of {self.decoded:,} that were looked at"
        if self.broken:
            yield (
                f"Pictures that cannot be decoded: {len(self.broken):,} {looked_at}, such as {self.broken[0]}. Mend or remove"
                " them and run 'aft-ray prepare --overwrite', or allow so many with dataset.max_bad_samples."
            )
        if self.transparent:
            yield (
                f"Pictures with transparent parts: {len(self.transparent):,} {looked_at}, such as {self.transparent[0]}:"
                " dataset.background is the colour behind them."
            )
        if self.flat:
            yield f"Pictures of one colour: {len(self.flat):,} {looked_at}, such as {self.flat[0]}. Are they empty?"
        if self.copies:
            part = f" of {self.compared:,} that were compared" if self.is_part else ""
            yield (
                f"Exact copies of samples in another split: {len(self.copies):,}{part}, such as"
                f" {self.copies[0][0]} of {self.copies[0][1]}: scores on them are too good. Remove them, or in a table"
                " keep them together with dataset.columns.group."
            )


def _read(directory: ShardDirectory, manifest: Mapping[str, Any], split: str, found: _Contents) -> None:
    """Adds the samples of a split, the first COMPARED; of pictures DECODED are decoded."""
    starts, count = [], 0
    for shard in manifest["shards"]:
        starts.append(count)
        count += shard["num_samples"]
    found.is_part = found.is_part or count > COMPARED
    shards = [(index, start) for index, start in enumerate(starts) if start < COMPARED]
    background, max_pixels = (manifest["fingerprint"].get(key) for key in ("background", "max_pixels"))

    def looked_at(shard: tuple[int, int]) -> list[tuple[str, bytes, tuple[bool, bool, bool] | None]]:
        index, start = shard
        table = directory.read_shard(index)
        texts = table.column("text").to_pylist() if "text" in table.column_names else [""] * table.num_rows
        has_pictures = "image" in manifest["modality"]
        pictures = contents(table, range(table.num_rows)) if has_pictures else repeat(lambda: b"")
        first = {int(rows_of[0]) for rows_of in rows_by_picture(table)} if has_pictures else set()
        rows = []
        for row, (sample_id, picture) in enumerate(zip(table.column("sample_id").to_pylist(), pictures, strict=False)):
            image = picture()
            kinds = _kinds(image, background, max_pixels) if row in first and start + row < DECODED else None
            digest = hashlib.blake2b(image + b"\0" + texts[row].encode(), digest_size=16).digest()
            rows.append((sample_id, digest, kinds))
        return rows

    for rows in prefetched(looked_at, shards, threads=THREADS):
        for sample_id, digest, kinds in rows:
            found.compare(digest, sample_id, split)
            found.look(kinds, sample_id)


def _kinds(encoded: bytes, background: str | None, max_pixels: int | None) -> tuple[bool, bool, bool]:
    """Whether a picture has transparent parts, whether it has one colour, and whether it cannot be decoded."""
    try:
        image = open_picture(encoded, max_pixels)
        if image.format == "JPEG":
            image.draft("RGB", SMALL)
            return False, _is_flat(image.convert("RGB")), False
        is_flat = _is_flat(decode(encoded, background, max_pixels))
        has_alpha = image.has_transparency_data and image.mode[0] not in "IF"
        return has_alpha and min(image.convert("RGBA").getchannel("A").tobytes()) < 255, is_flat, False
    except UNREADABLE:
        return False, False, True


def _is_flat(image: Any) -> bool:
    return all(low == high for low, high in image.getextrema())
