"""Where everything about one data set lies, on disk or in an object store."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import StringConstraints
from typing_extensions import TypedDict

from aft_ray.recipe.model import checked_name
from aft_ray.recipe.places import filesystem_of
from aft_ray.store.files import Directory
from aft_ray.store.schema import SPLITS
from aft_ray.store.shards import ShardDirectory

CURRENT = "current.json"
"""Below samples/ of an object store: names the directory of the samples that are valid."""
SET = r"^set-[0-9a-f]{8}$"


class Current(TypedDict):
    directory: Annotated[str, StringConstraints(pattern=SET)]


def is_set(name: str) -> bool:
    """Whether a name below samples/ names a whole set of samples."""
    return re.fullmatch(SET, name) is not None


@dataclass(frozen=True)
class Workspace(Directory):
    """Everything about one data set. `Workspace.at` takes a path or a URL (`s3://bucket/key`, `gs://...`)."""

    @classmethod
    def at(cls, location: str | Path) -> Workspace:
        filesystem, path = filesystem_of(str(location))
        return cls(filesystem, path)

    def samples_place(self) -> Directory:
        """The directory of the splits. In an object store, replaced samples have one of their own that CURRENT names."""
        place = self / "samples"
        if self.is_local or not place.has(CURRENT):
            return place
        name = place.read_json(CURRENT, Current, "Delete it and run 'aft-ray prepare --overwrite'.")["directory"]
        return place / name

    def samples(self, split: str) -> ShardDirectory:
        return split_directory(self.samples_place(), split)

    def features(self, teacher: str, split: str) -> ShardDirectory:
        return ShardDirectory(
            self.filesystem, f"{self.path}/features/{checked_name(teacher)}/{split}", ("feature_dim",)
        )

    def run(self, name: str) -> Directory:
        return Directory(self.filesystem, f"{self.path}/runs/{checked_name(name)}")

    def search(self, name: str) -> Directory:
        return Directory(self.filesystem, f"{self.path}/searches/{checked_name(name)}")

    def stores(self) -> Iterator[ShardDirectory]:
        """Every shard directory there is."""
        prepared = self.samples_place().names()
        for split in SPLITS:
            if split in prepared:
                yield self.samples(split)
        for teacher in (self / "features").folders():
            for split in (self / "features" / teacher).folders():
                yield self.features(teacher, split)


def split_directory(place: Directory, split: str) -> ShardDirectory:
    """One split of the samples below `place`."""
    return ShardDirectory(place.filesystem, f"{place}/{split}", ("modality", "classes"))
