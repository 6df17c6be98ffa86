"""A source of samples gives a listing: ids, labels, and a function that reads the content of one sample.

Your own class can be a source: `dataset.source: module:Class`. Slides with names that begin with their class:

    class Slides:
        @staticmethod
        def list_samples(config):
            paths = sorted(Path(config.path).glob("*.png"))
            names = [path.stem.partition("_")[0] for path in paths]
            classes = tuple(sorted(set(names)))
            items = [Item(path.stem, classes.index(name)) for path, name in zip(paths, names)]
            return Listing("image", classes, tuple(items), lambda index: paths[index].read_bytes())

`check(config)`, if there is one, finds faults without looking at every sample. `plan(config)`, if there is one, gives a
`parts.Plan`, with which tasks of a cluster list the samples; jobs/benchmarks/buckets.py has one. `config.options` holds
settings of its own.
Where `path` may be a URL, `find_below(place_at(config.path), (".png",)).files` of `sources.walk` and `recipe.places` lists both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from aft_ray.datasets.items import Item, Items, Label
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import DatasetConfig
from aft_ray.recipe.task import Task

Modality = Literal["image", "text", "image+text"]
Content = bytes | str | tuple[bytes, str]

__all__ = [
    "LISTED",
    "Content",
    "Item",
    "Label",
    "Listing",
    "Modality",
    "NamedDataset",
    "Source",
    "Task",
    "raise_faults",
]

LISTED = 20


@dataclass(frozen=True)
class Listing:
    """All samples of a data set.

    classes: names of the outputs. items: given as any sequence, kept as columns.
    read: the content of `items[i]`: encoded image bytes, a text, or both. Raises OSError or ValueError if there is none.
    uri: the path or URL of the picture of `items[i]`, where every one is a file of its own.
    truncation_side: where a tokenizer cuts a text that is too long.
    facts: other settings that the content depends on, as plain JSON types by name.
    left_out: how many files, members and rows beside the samples were not read, by suffix or reason.
    notes: lines of a source's own for the data check.
    """

    modality: Modality
    classes: tuple[str, ...]
    items: Sequence[Item]
    read: Callable[[int], Content]
    uri: Callable[[int], str] | None = None
    task: Task = "classification"
    truncation_side: Literal["left", "right"] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @cached_property
    def columns(self) -> Items:
        return Items.of(self.items)


@dataclass(frozen=True)
class Source:
    """A kind of place that samples come from.

    list: lists every sample. check: finds faults of the recipe without reading every row. Both raise InputError or
    FileNotFoundError. plan: how the source is read in parts, from which `list` is made; None if it is not. It gets a
    `store_folders.Lister` too, which lists a store.
    """

    list: Callable[..., Listing]
    check: Callable[[DatasetConfig], object]
    plan: Callable[[DatasetConfig, Any], Any] | None = None


@dataclass(frozen=True, kw_only=True)
class NamedDataset:
    """A data set that `dataset.name` finds.

    num_samples: in train and test, or in all where it has no splits of its own. num_pictures: the same where pairs share them.
    origin: the repository or package that
    brings it. keys: the keys of the recipe's `dataset` that it takes. missing: names the package or files to get and where
    to put it; None if the data is here.
    check: as a Source's; None if being here is enough. resolve: the recipe's `dataset` with the columns and the prompt that
    the data set brings itself; None if it does not lie in tables.
    """

    name: str
    modality: Modality
    num_classes: int
    num_samples: tuple[int, ...]
    licence: str
    origin: str
    keys: frozenset[str]
    missing: Callable[[DatasetConfig], str | None]
    list_samples: Callable[[DatasetConfig], Listing]
    check: Callable[[DatasetConfig], object] | None = None
    resolve: Callable[[DatasetConfig], DatasetConfig] | None = None
    num_pictures: tuple[int, ...] | None = None


def raise_faults(faults: Iterable[str], count: int | None = None) -> None:
    """Raises InputError with the first faults and the number of the rest. count: of all faults, where more were found."""
    lines = list(faults)
    if lines:
        more = (count or len(lines)) - len(lines[:LISTED])
        raise InputError(lines[:LISTED] + ([f"... and {more} more."] if more else []))
