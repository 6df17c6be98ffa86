"""Tar files of samples: members that share a name up to its first dot are one sample (`0017.jpg`, `0017.txt`, `0017.cls`)."""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from aft_ray.datasets.base import Content, Listing, Modality, raise_faults
from aft_ray.datasets.items import UNKNOWN, Items, Texts, splits_of
from aft_ray.datasets.sources.files import OTHER_SPLITS, DataFiles, find_files, splits_of_files
from aft_ray.datasets.sources.json_text import decode_text, is_unicode, parse_json
from aft_ray.datasets.sources.labels import Labels
from aft_ray.datasets.sources.pictures import SUFFIXES
from aft_ray.datasets.sources.tabular import check_classes_of_splits
from aft_ray.datasets.sources.walk import is_hidden
from aft_ray.recipe.config import fingerprint
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.places import AnyPath, read_range
from aft_ray.recipe.sections import DatasetConfig

IMAGES = tuple(suffix.removeprefix(".") for suffix in SUFFIXES)
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
BLOCK_BYTES = 1 << 20
TEXTS = ("txt",)
LABELS = ("cls", "json")


@dataclass(frozen=True)
class Member:
    """Where in a tar a file's bytes lie."""

    tar: AnyPath
    start: int
    size: int

    def read(self) -> bytes:
        return read_range(self.tar, self.start, self.size)


@dataclass(frozen=True)
class Sample:
    """A sample's members by extension. key: the tar's name and their own up to the first dot."""

    key: str
    split: str | None
    members: dict[str, Member] = field(default_factory=dict)

    def first(self, extensions: tuple[str, ...]) -> str | None:
        return next((extension for extension in extensions if extension in self.members), None)


def list_webdataset(config: DatasetConfig) -> Listing:
    """The samples of every tar of `path`, with a picture, a text or both; `.cls` or a key of `.json` is the label.

    Raises FileNotFoundError if there are no tars, InputError naming damaged tars, members that lead out of one, and wrong
    labels.
    """
    left_out = Counter[str]()
    samples = list(_samples(config, left_out))
    if not samples:
        raise InputError(f"{config.path}: the tars are empty.")
    has_image = any(sample.first(IMAGES) for sample in samples)
    has_text = any(sample.first(TEXTS) for sample in samples)
    wanted = [extensions for extensions, there in ((IMAGES, has_image), (TEXTS, has_text)) if there]
    if not wanted:
        raise InputError(f"{config.path}: no member ends in .{', .'.join(IMAGES + TEXTS)}.")
    labels = Labels(config.task or "classification", config.columns.labels, config.label_names)
    for sample in samples:
        labels.add(_label(sample, config.columns.labels), lambda key=sample.key: key)  # type: ignore[misc]
    classes, found = labels.finish()

    def read(index: int) -> Content:
        parts = [_content(samples[index], extensions) for extensions in wanted]
        if has_text and not str(parts[-1]).strip():
            raise ValueError("its text is empty")
        return parts[0] if len(parts) == 1 else (parts[0], parts[1])  # type: ignore[return-value]

    items = Items(
        Texts(sample.key for sample in samples).column(),
        found,
        np.full(len(samples), UNKNOWN, np.int64),
        splits_of(sample.split for sample in samples),
    )
    if classes != config.label_names:
        check_classes_of_splits(items, classes)
    modality: Modality = "image+text" if len(wanted) == 2 else "image" if has_image else "text"
    return Listing(
        modality=modality,
        classes=classes,
        items=items,
        read=read,
        task=config.task or "classification",
        truncation_side=(config.truncation_side or "right") if has_text else None,
        facts={
            "tars": fingerprint([[sample.key, member.size] for sample in samples for member in sample.members.values()])
        },
        left_out=+left_out,
    )


def find_tars(config: DatasetConfig) -> tuple[DataFiles, dict[AnyPath, str | None]]:
    """The tars, and the split of each that is read."""
    found = find_files(config.path or "", (".tar",), COMPRESSED)
    return found, splits_of_files(found, config)


def _samples(config: DatasetConfig, left_out: Counter[str]) -> Iterator[Sample]:
    """Every sample of every tar. Adds to `left_out` the files beside the tars, and the members, that are not read."""
    found, splits = find_tars(config)
    left_out.update(found.left_out)
    left_out[f"tars {OTHER_SPLITS}"] += len(found.files) - len(splits)
    for file, split in splits.items():
        tar_name = found.name(file).with_suffix("").as_posix()
        samples: dict[str, Sample] = {}
        faults = []
        for member in _members(file):
            path = PurePosixPath(member.name)
            if path.is_absolute() or ".." in path.parts or not (member.isfile() or member.isdir()):
                faults.append(f"{file.name}: member {member.name!r} is no plain file inside the tar. Leave it out.")
            elif member.isfile() and any(map(is_hidden, path.parts)):
                left_out["hidden members"] += 1
            elif member.isfile():
                stem, _, extension = path.name.partition(".")
                key = (path.parent / stem).as_posix()
                sample = samples.setdefault(key, Sample(f"{tar_name}/{key}", split))
                if extension.lower() in sample.members:
                    faults.append(f"{file.name}: member {member.name!r} is there twice.")
                sample.members[extension.lower()] = Member(file, member.offset_data, member.size)
                if extension.lower() not in IMAGES + TEXTS + LABELS:
                    left_out[f"members .{extension.lower()}" if extension else "members without a suffix"] += 1
        faults += [fault for sample in samples.values() for fault in _faults(sample)]
        raise_faults(faults)
        yield from samples.values()


def _faults(sample: Sample) -> Iterator[str]:
    images = [f".{extension}" for extension in IMAGES if extension in sample.members]
    if len(images) > 1:
        yield f"{sample.key} has several pictures: {', '.join(images)}. Leave one, or call the others .NAME{images[-1]}."
    if not is_unicode(sample.key):
        yield f"The name of {sample.key!r} is not Unicode; rename it."


def _members(file: AnyPath) -> Iterator[tarfile.TarInfo]:
    """Raises InputError if the tar is not whole: tarfile takes any damage behind the first member for the end."""
    try:
        with file.open("rb") as stream, tarfile.open(fileobj=stream, mode="r:") as opened:
            while (member := opened.next()) is not None:
                opened.members.clear()  # type: ignore[attr-defined]  # it would keep every one
                yield member
            end = opened.offset
    except tarfile.TarError as error:
        raise InputError(f"{file} is no plain tar ({error}). Compressed ones have to be unpacked.") from error
    _check_end(file, end)


def _check_end(file: AnyPath, end: int) -> None:
    """Raises InputError if the tar is cut off, damaged, or goes on after its end. end: the byte where tarfile stopped."""
    with file.open("rb") as stream:
        stream.seek(end)
        if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise InputError(f"{file} is cut off or damaged at byte {end:,}. Copy it again.")
        if any(any(block) for block in iter(lambda: stream.read(BLOCK_BYTES), b"")):
            raise InputError(
                f"{file} goes on after its end at byte {end:,}, as if two tars were glued. Keep them apart."
            )


def _content(sample: Sample, extensions: tuple[str, ...]) -> bytes | str:
    extension = sample.first(extensions)
    if extension is None:
        raise ValueError("it has no .txt" if extensions is TEXTS else "it has no picture")
    content = sample.members[extension].read()
    return decode_text(content) if extensions is TEXTS else content


def _label(sample: Sample, columns: tuple[str, ...]) -> list[Any]:
    if not columns:
        return []
    extension = sample.first(LABELS)
    if extension is None:
        return [None] * len(columns)
    content = sample.members[extension].read()
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
