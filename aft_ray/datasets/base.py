"""What every source of samples gives: a listing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Item:
    """A sample before its content is read.

    sample_id: unique and stable, whatever the order or the number of samples.
    label: index into the listing's classes.
    """

    sample_id: str
    label: int


@dataclass(frozen=True)
class Listing:
    """All samples of a data set. `read(i)` gives the content of `items[i]`: encoded image bytes, or a text."""

    modality: Literal["image", "text"]
    classes: tuple[str, ...]
    items: tuple[Item, ...]
    read: Callable[[int], bytes | str]


@dataclass(frozen=True)
class NamedDataset:
    """A data set that `dataset.name` finds; `needs` is the Python package that brings the data, if one does."""

    name: str
    modality: Literal["image", "text"]
    num_classes: int
    num_samples: int
    licence: str
    needs: str
    list_samples: Callable[[], Listing]
