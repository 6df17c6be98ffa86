"""The shards of a large manifest: a file for each range of them, whose digests stand in `manifest.json`.

A part's name holds its digest: a manifest that is written again does not change the parts of the one before it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import eq
from typing import Annotated, Any, overload

from pydantic import ConfigDict, Field, StringConstraints, with_config
from typing_extensions import NotRequired, TypedDict

from aft_ray.recipe.json_files import damaged, sealed
from aft_ray.store.files import Directory
from aft_ray.store.unknown_files import json_object

PART_SHARDS = 100_000
"""Shards of a part. Manifests of no more have no parts: 15 MB."""
WAY_OUT = "Delete manifest.json beside it and run the command that writes it again: whole shards are kept."
PART = re.compile(r"shards-\d{5}-[0-9a-f]{16}\.json")
OPEN = ConfigDict(strict=True, extra="allow")

Count = Annotated[int, Field(ge=0)]
Hash = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


@with_config(OPEN)
class ShardEntry(TypedDict):
    """What a manifest says of a shard. content: of samples, the digest of all that a teacher sees. num_pictures: of pairs, where
    some share one."""

    file: str
    num_bytes: Count
    sha256: Hash
    num_samples: Count
    content: NotRequired[Hash]
    num_pictures: NotRequired[Count]


@with_config(OPEN)
class PartEntry(TypedDict):
    """What a manifest says of a part."""

    file: Annotated[str, StringConstraints(pattern=f"^{PART.pattern}$")]
    sha256: Hash
    num_shards: Annotated[int, Field(ge=1)]
    num_samples: Count


@with_config(OPEN)
class _Part(TypedDict):
    shards: list[ShardEntry]


def shards_text(shards: Sequence[Mapping[str, Any]]) -> str:
    """The last key of a manifest or a part: a line for each shard. Millions would be indented in minutes and gigabytes."""
    lines = ",\n  ".join(map(json.dumps, shards))
    return f'"shards": [\n  {lines}\n ]\n}}'


def write_parts(directory: Directory, shards: Sequence[Mapping[str, Any]]) -> list[PartEntry]:
    """Writes the parts, and returns what the manifest says of them."""
    found: list[PartEntry] = []
    for number, start in enumerate(range(0, len(shards), PART_SHARDS)):
        own = shards[start : start + PART_SHARDS]
        content = sealed("{\n " + shards_text(own))
        digest = hashlib.sha256(content).hexdigest()
        name = f"shards-{number:05d}-{digest[:16]}.json"
        directory.write(name, content)
        total = sum(shard["num_samples"] for shard in own)
        found.append(PartEntry(file=name, sha256=digest, num_shards=len(own), num_samples=total))
    return found


def delete_other_parts(directory: Directory, parts: Sequence[PartEntry]) -> None:
    """Deletes the parts of manifests of before."""
    kept = {part["file"] for part in parts}
    for name in directory.names():
        if PART.fullmatch(name) and name not in kept and is_own_part(directory, name):
            directory.delete_file(name)


def is_own_part(directory: Directory, name: str) -> bool:
    """Whether a file with the name of a part has the content of one."""
    return json_object(directory, name).keys() == {"shards", "digest"}


@dataclass(frozen=True, eq=False)
class PartedShards(Sequence[dict[str, Any]]):
    """The entries of all shards, read from a part when one of it is asked for. Raises InputError if the part is damaged.

    check: finds a fault of the entries of a part, given the number of its first shard.
    """

    directory: Directory
    parts: tuple[PartEntry, ...]
    check: Callable[[Sequence[Mapping[str, Any]], int], list[str]]
    _read: dict[int, list[dict[str, Any]]] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(part["num_shards"] for part in self.parts)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Keeps no part in memory."""
        for number in range(len(self.parts)):
            yield from self._read.get(number) or self._part(number)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        left = range(len(self))[index]  # raises IndexError, and counts from the end
        for number, part in enumerate(self.parts):
            if left < part["num_shards"]:
                if number not in self._read:
                    self._read[number] = self._part(number)
                return self._read[number][left]
            left -= part["num_shards"]
        raise IndexError(index)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(eq, self, other))

    __hash__ = None  # type: ignore[assignment]

    def _part(self, number: int) -> list[dict[str, Any]]:
        part = self.parts[number]
        where, fault = f"{self.directory}/{part['file']}", ""
        if not self.directory.has(part["file"]):
            fault = "it is missing"
        elif hashlib.sha256(self.directory.buffer(part["file"])).hexdigest() != part["sha256"]:
            fault = "it is not the part that the manifest lists, as its digest shows"
        if fault:
            raise damaged(where, [fault], WAY_OUT)
        shards: list[dict[str, Any]] = self.directory.read_json(part["file"], _Part, WAY_OUT)["shards"]
        start = sum(before["num_shards"] for before in self.parts[:number])
        faults = self.check(shards, start)
        if len(shards) != part["num_shards"] or sum(shard["num_samples"] for shard in shards) != part["num_samples"]:
            faults.append("its shards are others than the manifest says")
        if faults:
            raise damaged(where, faults, WAY_OUT)
        return shards


def part_names(manifest: Mapping[str, Any]) -> list[str]:
    """The files that list a manifest's shards beside it."""
    shards = manifest["shards"]
    return [part["file"] for part in shards.parts] if isinstance(shards, PartedShards) else []
