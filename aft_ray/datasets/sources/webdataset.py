"""Tar files of samples: members that share a name up to its first dot are one sample (`0017.jpg`, `0017.txt`, `0017.cls`)."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import repeat
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa

from aft_ray.datasets.base import Content, Listing, Modality, raise_faults
from aft_ray.datasets.items import UNKNOWN, Coded, Items, Texts, splits_of
from aft_ray.datasets.parts import Facts, Head, Part, Plan, listing_of, scanned
from aft_ray.datasets.sources.classes import check_classes_of_splits
from aft_ray.datasets.sources.files import OTHER_SPLITS, DataFiles, find_files, splits_of_files
from aft_ray.datasets.sources.json_text import decode_text, is_unicode, parse_json
from aft_ray.datasets.sources.labels import Labels
from aft_ray.datasets.sources.pictures import SUFFIXES
from aft_ray.datasets.sources.tar_members import members
from aft_ray.datasets.sources.walk import is_hidden
from aft_ray.recipe.columns_section import ColumnsConfig
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.places import AnyPath, read_range, state_of
from aft_ray.recipe.sections import DatasetConfig
from aft_ray.store.prefetch import prefetched

IMAGES = tuple(suffix.removeprefix(".") for suffix in SUFFIXES)
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
TEXTS = ("txt",)
LABELS = ("cls", "json")
KINDS = ("image", "text")
KIND_OF = {**dict.fromkeys(IMAGES, "image"), **dict.fromkeys(TEXTS, "text")}
AS_JSON = json.JSONEncoder(ensure_ascii=False).encode
UNREAD = tuple(key for key in ColumnsConfig.model_fields if key != "label")
"""Keys of `dataset.columns` that tars have no use for."""
THREADS = 16
PLACE = ("start", "size")
"""Where a member lies in its tar."""


@dataclass(frozen=True)
class Sample:
    """Where a sample's members lie in their tar, by extension: start and size. key: the tar's name and their own up to the
    first dot. labels: contents of members that may be its label.
    """

    key: str
    members: dict[str, tuple[int, int]] = field(default_factory=dict)
    labels: dict[str, bytes] = field(default_factory=dict)


def list_webdataset(config: DatasetConfig) -> Listing:
    """The samples of every tar of `path`, with a picture, a text or both; `.cls` or a key of `.json` is the label.

    Raises FileNotFoundError if there are no tars, InputError naming damaged tars, members that lead out of one, and wrong
    labels.
    """
    plan = Tars.of(config)
    return listing_of(plan, scanned(plan))


def find_tars(config: DatasetConfig) -> tuple[DataFiles, dict[AnyPath, str | None]]:
    """The tars, and the split of each that is read."""
    found = find_files(config.path or "", (".tar",), COMPRESSED)
    return found, splits_of_files(found, config)


@dataclass(frozen=True)
class Tars(Plan):
    """The tars of a data set, each a part. names: below its root, without the suffix. left_out: files beside them."""

    config: DatasetConfig
    files: tuple[AnyPath, ...]
    names: tuple[str, ...]
    splits: tuple[str | None, ...]
    left_out: Counter[str]

    @classmethod
    def of(cls, config: DatasetConfig) -> Tars:
        raise_faults(
            f"dataset.columns.{key} has no effect in tars: suffixes say which file is picture, text and label. Leave it out."
            for key in UNREAD
            if getattr(config.columns, key) is not None
        )
        found, splits = find_tars(config)
        names = tuple(found.name(file).with_suffix("").as_posix() for file in splits)
        left_out = found.left_out + Counter({f"tars {OTHER_SPLITS}": len(found.files) - len(splits)})
        return cls(config, tuple(splits), names, tuple(splits.values()), left_out)

    @property
    def parts(self) -> list[tuple[Any, ...]]:
        tars = zip(self.files, self.names, self.splits, strict=True)
        return [(self.config, number, *tar) for number, tar in enumerate(tars)]

    @staticmethod
    def scan(config: DatasetConfig, number: int, file: AnyPath, name: str, split: str | None) -> Part:
        found = _Columns(config, number)
        for sample in _samples(file, name, found.left_out):
            found.add(sample)
        return found.part(split)

    def states(self) -> list[Any]:
        return list(prefetched(state_of, self.files, threads=THREADS))

    def name_of(self, part: int) -> str:
        return str(self.files[part])

    def head(self, whole: Facts, digest: str) -> Head:
        config, modality = self.config, _modality(whole.kinds)
        if not whole.labels.values:
            raise InputError(f"{config.path}: the tars are empty.")
        if modality is None:
            raise InputError(f"{config.path}: no member ends in .{', .'.join(IMAGES + TEXTS)}.")
        classes, labels = whole.labels.finish()
        if classes != config.label_names:
            check_classes_of_splits(whole.labels_of, labels.values, classes)
        return Head(
            modality,
            classes,
            labels.values,
            config.task or "classification",
            (config.truncation_side or "right") if "text" in modality else None,
            {"tars": digest},
            +(self.left_out + whole.left_out),
            whole.labels.notes,
        )

    def reader(self, modality: Modality, contents: pa.Table) -> Callable[[int], Content]:
        columns = {name: contents.column(name).to_numpy() for name in contents.column_names}

        def part(index: int, kind: str) -> bytes:
            start, size = int(columns[f"{kind}_start"][index]), int(columns[f"{kind}_size"][index])
            if size == UNKNOWN:
                raise ValueError("it has no .txt" if kind == "text" else "it has no picture")
            return read_range(self.files[columns["tar"][index]], start, size)

        def read(index: int) -> Content:
            image = part(index, "image") if "image" in modality else b""
            if "text" not in modality:
                return image
            text = decode_text(part(index, "text"))
            if not text.strip():
                raise ValueError("its text is empty")
            return (image, text) if "image" in modality else text

        return read


def _modality(kinds: frozenset[str]) -> Modality | None:
    if len(kinds) == 2:
        return "image+text"
    return "image" if "image" in kinds else "text" if "text" in kinds else None


class _Columns:
    """The samples of a tar as columns."""

    def __init__(self, config: DatasetConfig, tar: int) -> None:
        self.tar = tar
        self.labels = Labels(config.task or "classification", config.columns.labels, config.label_names)
        self.keys = Texts()
        self.places = {kind: (array("q"), array("q")) for kind in KINDS}
        self.notes: list[str] = []
        self.left_out: Counter[str] = Counter()

    def add(self, sample: Sample) -> None:
        self.labels.add(_label(sample, self.labels.columns), lambda: sample.key)
        self.keys.append(sample.key)
        found = {kind: place for extension, place in sample.members.items() if (kind := KIND_OF.get(extension))}
        for kind, (starts, sizes) in self.places.items():
            start, size = found.get(kind, (UNKNOWN, UNKNOWN))
            starts.append(start)
            sizes.append(size)
        key = AS_JSON(sample.key)
        self.notes += [f"[{key},{size}]" for _, size in sample.members.values()]

    def part(self, split: str | None) -> Part:
        columns = {
            f"{kind}_{of}": np.array(values, np.int64)
            for kind, place in self.places.items()
            for of, values in zip(PLACE, place, strict=True)
        }
        count = len(self.labels.codes)
        items = Items(
            self.keys.column(),
            Coded((), np.array(self.labels.codes, np.int32)),
            np.full(count, UNKNOWN, np.int64),
            splits_of(repeat(split, count)),
        )
        kinds = frozenset(kind for kind in KINDS if (columns[f"{kind}_size"] != UNKNOWN).any())
        contents = pa.table({"tar": np.full(count, self.tar, np.int32), **columns})
        facts = Facts(self.labels, items.labels_of(), kinds, self.left_out, ",".join(self.notes).encode())
        return Part(items, contents, facts)


def _samples(file: AnyPath, tar_name: str, left_out: Counter[str]) -> list[Sample]:
    """Every sample of a tar. Adds to `left_out` the members that are not read. Raises InputError, one line per fault."""
    samples: dict[str, Sample] = {}
    faults = []
    for member in members(file):
        folder, name = _split(member.name)
        if not folder.is_inside or not (member.is_file or member.is_folder):
            faults.append(
                f"{file.name}: member {member.name!r} is no plain file inside the tar. Leave it out,"
                " or pack what a link names, with tar -h."
            )
        elif member.is_file and (folder.is_hidden or is_hidden(name)):
            left_out["hidden members"] += 1
        elif member.is_file:
            stem, _, extension = name.partition(".")
            key, extension = f"{folder.prefix}{stem}", extension.lower()
            sample = samples.setdefault(key, Sample(f"{tar_name}/{key}"))
            if extension in sample.members:
                faults.append(f"{file.name}: member {member.name!r} is there twice.")
            sample.members[extension] = (member.start, member.size)
            if extension in LABELS:
                sample.labels[extension] = member.read()
            elif extension not in KIND_OF:
                left_out[f"members .{extension}" if extension else "members without a suffix"] += 1
    faults += [fault for sample in samples.values() for fault in _faults(sample)]
    raise_faults(faults)
    return list(samples.values())


@dataclass(frozen=True)
class _Folder:
    """A folder inside a tar. prefix: of the keys of its samples. is_inside: whether it leads out of the tar."""

    prefix: str
    is_inside: bool
    is_hidden: bool


def _split(name: str) -> tuple[_Folder, str]:
    """A member's folder and its own name."""
    folder, slash, own = name.rpartition("/")
    return (_folder(name), "") if own in (".", "..") else (_folder(folder + slash), own)


@lru_cache(maxsize=1 << 12)
def _folder(name: str) -> _Folder:
    path = PurePosixPath(name)
    prefix = "" if path == PurePosixPath() else f"{path.as_posix()}/"
    return _Folder(prefix, not path.is_absolute() and ".." not in path.parts, any(map(is_hidden, path.parts)))


def _faults(sample: Sample) -> Iterator[str]:
    images = [f".{extension}" for extension in IMAGES if extension in sample.members]
    if len(images) > 1:
        yield f"{sample.key} has several pictures: {', '.join(images)}. Leave one, or call the others .NAME{images[-1]}."
    if not is_unicode(sample.key):
        yield f"The name of {sample.key!r} is not Unicode; rename it."


def _label(sample: Sample, columns: tuple[str, ...]) -> list[Any]:
    if not columns:
        return []
    extension = next((extension for extension in LABELS if extension in sample.labels), None)
    if extension is None:
        return [None] * len(columns)
    content = sample.labels[extension]
    try:
        if extension == "cls":
            return [decode_text(content).strip()]
        found = parse_json(content)
    except ValueError as error:
        raise InputError(f"{sample.key}.{extension} cannot be read: {' '.join(str(error).split())}.") from error
    if not isinstance(found, Mapping):
        raise InputError(f"{sample.key}.json is no JSON object.")
    missing = [name for name in columns if name not in found]
    if missing:
        raise InputError(f"{sample.key}.json has no key {', '.join(missing)}. Keys: {', '.join(found)}.")
    return [found[name] for name in columns]
