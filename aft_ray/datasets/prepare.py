"""prepare: any source -> aligned shards of samples, with splits that depend on the sample ids alone."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from aft_ray.cluster.lease import lease
from aft_ray.cluster.progress import Progress
from aft_ray.datasets import Listing, list_samples
from aft_ray.datasets.base import Label, raise_faults
from aft_ray.datasets.overlap import check_apart
from aft_ray.datasets.replacement import check_folders, clean, replacing
from aft_ray.datasets.sources.pictures import check_picture
from aft_ray.models.images import open_picture
from aft_ray.recipe.config import Recipe, fingerprint
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.printable import tell
from aft_ray.recipe.sections import DatasetConfig
from aft_ray.store.files import Directory
from aft_ray.store.own_files import delete_own_files, foreign_shards
from aft_ray.store.prefetch import prefetched
from aft_ray.store.quarantine import UNREADABLE, bad_sample, check_bad_samples
from aft_ray.store.sample_recipe import check_sample_recipe, sample_recipe
from aft_ray.store.schema import SPLITS, UNLABELED, samples_schema
from aft_ray.store.shards import ShardDirectory, without_place
from aft_ray.store.workspace import Workspace, split_directory

SHARD_BYTES = 32 << 20
SHARD_SAMPLES = (16, 512)
"""What a shard has when the recipe leaves it open: this much content, and between so many samples.

A shard travels through extraction as one decoded object: 512 pictures of 224 pixels are 77 MB, 300 of 518 pixels 240 MB.
"""
PROBED = 64
THREADS = 4


def prepare(recipe: Recipe, *, overwrite: bool = False) -> dict[str, dict[str, Any]]:
    """Writes `samples/<split>/` and returns the manifest of each split. Splits that are complete are left alone.

    With `overwrite`, new samples replace the old ones when all are there; until then the old ones are valid.
    A sample that cannot be read, has no text, or does not begin as a picture does is put aside and named in the manifest.
    Raises InputError if the raw data lies where the samples do, the workspace holds the samples of another data set, a
    split would be empty, or more than `dataset.max_bad_samples` would be put aside.
    """
    config, workspace = recipe.dataset, Workspace.at(recipe.workspace)
    check_folders(workspace)
    there = {} if overwrite else _manifests(workspace)
    for manifest in there.values():
        check_sample_recipe(config, manifest, workspace)
    try:
        listing = list_samples(config)
    except InputError as error:
        if len(there) < len(SPLITS) or not _need_no_source(config, there):
            raise
        tell(
            f"The samples in {workspace} are whole, and kept. They were not compared with the raw data: {error.faults[0]}"
        )
        return there
    check_apart(listing, config, workspace)
    tell_left_out(listing)
    check_ids(listing)
    chosen = choose_splits(listing, config)
    empty = [split for split in SPLITS if not chosen[split]]
    if empty:
        raise InputError(
            f"No samples fall into split {', '.join(empty)}: {len(listing.items)} samples are too few for"
            f" validation_fraction {config.validation_fraction} and test_fraction {config.test_fraction}."
        )
    if not config.copy_content and listing.uri is None:
        raise InputError("dataset.copy is false, but these samples are not files of their own. Leave it out.")
    with lease(workspace, "samples"):
        if overwrite:
            with replacing(workspace) as place:
                return _prepare(listing, chosen, config, place)
        clean(workspace)
        return _prepare(listing, chosen, config, workspace.samples_place())


def _manifests(workspace: Workspace) -> dict[str, dict[str, Any]]:
    """Of the splits that are complete."""
    found = {split: workspace.samples(split).manifest() for split in SPLITS}
    return {split: manifest for split, manifest in found.items() if manifest is not None}


def _need_no_source(config: DatasetConfig, manifests: Mapping[str, dict[str, Any]]) -> bool:
    """Whether whole samples of this data set have copies of all that they need."""
    made_from = without_place(manifests["train"]["fingerprint"])
    return made_from["dataset"] == _source_of(config) and config.copy_content and made_from["copy"]


def _source_of(config: DatasetConfig) -> str | None:
    """The data set's name or the kind of its source. Its place is no part of the samples' identity."""
    return config.name or config.source


def _prepare(
    listing: Listing, chosen: dict[str, list[int]], config: DatasetConfig, place: Directory
) -> dict[str, dict[str, Any]]:
    directories = {split: split_directory(place, split) for split in SPLITS}
    rows = (
        config.samples_per_shard
        or _rows_on_disk(directories[SPLITS[-1]])
        or samples_per_shard(listing, [index for split in SPLITS for index in chosen[split]])
    )
    splits = [_Split(directories[split], split, listing, chosen[split], config, rows) for split in SPLITS]
    missing = [split.missing_shards() for split in splits]
    bad: list[dict[str, str]] = []
    with Progress("prepare", sum(map(len, missing)), "shards") as progress:
        for split, shards in zip(splits, missing, strict=True):
            for put_aside in split.write(shards):
                bad += put_aside
                progress.advance(1)
    check_bad_samples(bad, config.max_bad_samples)
    return {split.name: split.finish(made=bool(shards)) for split, shards in zip(splits, missing, strict=True)}


def tell_left_out(listing: Listing) -> None:
    """Says which files beside the samples were not read."""
    if listing.left_out:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(listing.left_out.items()))
        count = sum(listing.left_out.values())
        print(f"prepare: left out {count} files that are no samples: {kinds}", file=sys.stderr)


def check_ids(listing: Listing) -> None:
    """Raises InputError naming some of the ids that are there twice or are no Unicode."""
    faults = []
    counts = Counter(item.sample_id for item in listing.items)
    if len(counts) < len(listing.items):
        twice = [f"{sample_id!r} ({count} times)" for sample_id, count in counts.most_common(5) if count > 1]
        extra = sum(count > 1 for count in counts.values()) - len(twice)
        faults.append(f"Sample ids must differ: {', '.join(twice)}{f' and {extra} more' if extra else ''}.")
    for sample_id in counts:
        try:
            sample_id.encode()
        except UnicodeEncodeError:
            faults.append(f"The name of {sample_id!r} is not Unicode; rename the file.")
    raise_faults(faults)


def _rows_on_disk(directory: ShardDirectory) -> int | None:
    """Samples of a shard in a split that is prepared: a change since then shows in its fingerprint."""
    manifest = directory.manifest()
    return manifest["fingerprint"]["samples_per_shard"] if manifest else None


def choose_splits(listing: Listing, config: DatasetConfig) -> dict[str, list[int]]:
    """Indices into `listing.items` per split, in the order of their hash: every shard is a random sample.

    A split that the data set brings stays as it is; the others are held out of the rest by the hash of a sample's id (of
    its group, where it has one), so a sample stays in its split when others come or go.
    """
    order = sorted(range(len(listing.items)), key=lambda index: _unit_hash("order", listing.items[index].sample_id))
    brought = {item.split for item in listing.items}
    test_fraction = 0.0 if "test" in brought else config.test_fraction
    held_out = test_fraction + (0.0 if "validation" in brought else config.validation_fraction)
    splits: dict[str, list[int]] = {split: [] for split in SPLITS}
    for index in order[: config.max_samples]:
        item = listing.items[index]
        split = item.split or "train"
        if split == "train":
            place = _unit_hash("split", item.sample_id if item.group is None else item.group)
            split = "test" if place < test_fraction else "validation" if place < held_out else "train"
        splits[split].append(index)
    splits["train"] = _fraction_of_each(listing, splits["train"], config.train_fraction)
    return splits


def _fraction_of_each(listing: Listing, indices: list[int], fraction: float) -> list[int]:
    """The first of each class among `indices`, at least one; of all alike where a label is no single class."""
    if fraction == 1:
        return indices
    classes = [label if isinstance(label := listing.items[index].label, int) else None for index in indices]
    wanted = {name: max(1, round(fraction * count)) for name, count in Counter(classes).items()}
    seen: Counter[int | None] = Counter()
    kept = []
    for index, name in zip(indices, classes, strict=True):
        seen[name] += 1
        if seen[name] <= wanted[name]:
            kept.append(index)
    return kept


def _unit_hash(salt: str, sample_id: str) -> float:
    """A number in [0, 1) that depends on the id alone."""
    digest = hashlib.sha256(f"{salt}:{sample_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def samples_per_shard(listing: Listing, indices: Sequence[int]) -> int:
    """How many of the samples `indices` make a shard, from the mean size of some of them."""
    sizes = [_num_bytes(listing, index) for index in indices[:: max(1, len(indices) // PROBED)]]
    least, most = SHARD_SAMPLES
    return max(least, min(most, int(SHARD_BYTES * len(sizes) / max(1, sum(sizes)))))


def _num_bytes(listing: Listing, index: int) -> int:
    """Size of a sample's content; nothing where it cannot be read."""
    known = listing.items[index].num_bytes
    if known is not None:
        return known
    try:
        content = listing.read(index)
    except UNREADABLE:
        return 0
    return sum(map(len, content)) if isinstance(content, tuple) else len(content)


def samples_table(listing: Listing, indices: Sequence[int], *, copy: bool) -> tuple[pa.Table, list[dict[str, str]]]:
    """A samples shard of some items of a listing, and the id and reason of those that cannot be read."""
    rows, bad = [], []
    for index in indices:
        item = listing.items[index]
        try:
            rows.append((item.sample_id, item.label, *_content(listing, index, copy)))
        except InputError:  # of the whole source: it would be said of every sample
            raise
        except UNREADABLE as error:
            bad.append(bad_sample(item.sample_id, error))
    schema = samples_schema(listing.modality, listing.task, len(listing.classes), copy)
    columns = [pa.array([row[k] for row in rows], field.type) for k, field in enumerate(schema)]
    return pa.table(columns, schema=schema), bad


def _content(listing: Listing, index: int, copy: bool) -> tuple[Any, ...]:
    """The content columns of a sample. Raises one of UNREADABLE if it has none."""
    size = listing.items[index].num_bytes
    stays = not copy and listing.modality == "image" and size is not None  # nothing but its size has to be known
    content = b"" if stays else listing.read(index)
    image, text = content if isinstance(content, tuple) else (content, content)
    columns: list[Any] = []
    if isinstance(image, bytes) and copy:
        open_picture(image).close()  # reads the head only
        columns.append(image)
    elif isinstance(image, bytes):
        assert listing.uri is not None, "prepare checked it"
        if stays and "://" not in listing.uri(index):
            check_picture(listing.uri(index))
        columns += [listing.uri(index), len(image) if size is None else size]
        if columns[-1] == 0:
            raise ValueError("the file is empty")
    if isinstance(text, str):
        if not text.strip():
            raise ValueError("its text is empty")
        text.encode()  # raises ValueError where it is not Unicode
        columns.append(text)
    return tuple(columns)


@dataclass(frozen=True)
class _Split:
    """One split on its way to disk: `indices` into the listing, `rows` of them to a shard."""

    directory: ShardDirectory
    name: str
    listing: Listing
    indices: list[int]
    config: DatasetConfig
    rows: int

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        digest = hashlib.sha256()
        for item in (self.listing.items[index] for index in self.indices):
            digest.update(f"{item.sample_id}\t{item.label}\t{item.num_bytes}\n".encode())
        side = self.listing.truncation_side
        return {
            "dataset": _source_of(self.config),
            "split": self.name,
            "samples": digest.hexdigest()[:16],
            "samples_per_shard": self.rows,
            "copy": self.config.copy_content,
            "task": self.listing.task,
            **self.listing.facts,
            **({"truncation_side": side} if side else {}),
            "recipe": fingerprint(sample_recipe(self.config)),
        }

    @cached_property
    def stamp(self) -> dict[str, Any]:
        """The fingerprint that shards get: one that is made again in a split of before gets that split's."""
        manifest = self.directory.manifest()
        return manifest["fingerprint"] if manifest else self.fingerprint

    @property
    def num_shards(self) -> int:
        return -(-len(self.indices) // self.rows)

    def missing_shards(self) -> list[int]:
        try:
            missing = self.directory.missing_shards(self.num_shards, self.fingerprint)
            self._check_places(missing)
            return missing
        except InputError as error:
            if self.directory.manifest() is not None:
                raise InputError(f"The workspace holds samples of another setting: {error}") from error
        if foreign := foreign_shards(self.directory):
            raise InputError(
                f"{self.directory} holds {', '.join(foreign[:3])}{', ...' if len(foreign) > 3 else ''}, damaged or not"
                " written by aft-ray. Move that away and run again."
            )
        delete_own_files(self.directory)  # left by a command that never finished, of samples no longer asked for
        return list(range(self.num_shards))

    def _check_places(self, missing: Sequence[int]) -> None:
        """Raises InputError if pictures that were not copied lie elsewhere now."""
        shard = next((shard for shard in range(self.num_shards) if shard not in missing), None)
        if self.config.copy_content or self.listing.uri is None or shard is None:
            return
        places = {self.listing.items[index].sample_id: self.listing.uri(index) for index in self._indices(shard)}
        for row in self.directory.read_shard(shard, ["sample_id", "image_uri"]).slice(0, 1).to_pylist():
            if row["image_uri"] != places[row["sample_id"]]:
                raise InputError(
                    f"with copy: false they are read from where they lay, {row['image_uri']}, and lie in"
                    f" {places[row['sample_id']]} now. Run 'aft-ray prepare --overwrite'"
                )

    def write(self, shards: Sequence[int]) -> Iterator[list[dict[str, str]]]:
        """Writes each of the shards and yields what of it was put aside: id and reason."""
        return prefetched(self._write_shard, shards, threads=THREADS)

    def _write_shard(self, shard: int) -> list[dict[str, str]]:
        table, bad = samples_table(self.listing, self._indices(shard), copy=self.config.copy_content)
        if len(bad) <= self.config.max_bad_samples:
            self.directory.write_shard(shard, table, self.stamp, quarantined=bad)
        return bad

    def _indices(self, shard: int) -> list[int]:
        return self.indices[shard * self.rows : (shard + 1) * self.rows]

    def finish(self, *, made: bool) -> dict[str, Any]:
        """The split's manifest, written if it is not there yet or a shard was `made` again."""
        manifest = self.directory.manifest()
        if manifest is not None and not made:
            return manifest
        labels = [self.listing.items[index].label for index in self.indices]
        return self.directory.write_manifest(
            self.num_shards,
            self.stamp,
            modality=self.listing.modality,
            task=self.listing.task,
            classes=list(self.listing.classes),
            samples_per_class=samples_per_class(labels, self.listing.classes),
            num_unlabelled=sum(label is None or label == UNLABELED for label in labels),
            truncation_side=self.listing.truncation_side,
            recipe=sample_recipe(self.config),
        )


def samples_per_class(labels: Sequence[Label], classes: Sequence[str]) -> dict[str, int]:
    """How many samples are of each class; with numbers to predict, how many have each."""
    counts: Counter[int] = Counter()
    for label, count in Counter(labels).items():
        if isinstance(label, int):
            counts[label] += count
        elif label is not None:
            counts.update({index: count for index, value in enumerate(label) if value})
    return {name: counts[index] for index, name in enumerate(classes)}
