"""Where everything about one data set lies, on disk or in an object store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs

from aft_ray.recipe.errors import InputError
from aft_ray.recipe.model import checked_name
from aft_ray.recipe.secrets import WITHOUT_SECRETS, has_secret
from aft_ray.store.files import Directory
from aft_ray.store.schema import SPLITS
from aft_ray.store.shards import ShardDirectory


@dataclass(frozen=True)
class Workspace(Directory):
    """Everything about one data set. `Workspace.at` takes a path or a URL (`s3://bucket/key`, `gs://...`)."""

    @classmethod
    def at(cls, location: str | Path) -> Workspace:
        filesystem, path = filesystem_of(str(location))
        return cls(filesystem, path)

    def samples(self, split: str) -> ShardDirectory:
        return ShardDirectory(self.filesystem, f"{self.path}/samples/{split}", ("modality", "classes"))

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
        for split in SPLITS:
            if split in (self / "samples").names():
                yield self.samples(split)
        for teacher in (self / "features").names():
            for split in (self / "features" / teacher).names():
                yield self.features(teacher, split)


def filesystem_of(location: str) -> tuple[pafs.FileSystem, str]:
    """The filesystem of a path or URL, and the path on it.

    Raises InputError if pyarrow does not know the URL's scheme, cannot reach the place, or the URL holds a secret.
    """
    if has_secret(location):
        raise InputError(f"A place's URL must not hold a secret: {WITHOUT_SECRETS}.")
    if "://" not in location:
        return pafs.LocalFileSystem(), str(Path(location).expanduser().resolve())
    try:
        filesystem, path = pafs.FileSystem.from_uri(location)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{location} cannot be opened: {error}") from error
    return filesystem, path.rstrip("/")
