"""Where labelled samples come from: named data sets, and the user's own files.

A source lists its samples without reading their content, so that splits and shards are decided first and the bytes of
one shard at a time are read when it is written.
"""

from __future__ import annotations

import difflib

from aft_ray.config import DatasetConfig, InputError
from aft_ray.datasets import bundled, image_folder
from aft_ray.datasets.base import Item, Listing, NamedDataset

__all__ = ["NAMED", "SOURCES", "Item", "Listing", "NamedDataset", "faults", "list_samples"]

NAMED: dict[str, NamedDataset] = {dataset.name: dataset for dataset in (bundled.MNIST_5K,)}
SOURCES = {"image_folder": image_folder.list_image_folder}


def faults(config: DatasetConfig) -> list[str]:
    """What is wrong with the recipe's `dataset`, one line each."""
    if config.name is not None and config.name not in NAMED:
        close = difflib.get_close_matches(config.name, NAMED, n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        return [f"Unknown data set '{config.name}' in dataset.name.{hint} Known: {', '.join(sorted(NAMED))}."]
    try:
        list_samples(config)
    except (InputError, FileNotFoundError) as error:
        return [f"dataset: {error}"]
    return []


def list_samples(config: DatasetConfig) -> Listing:
    """Every sample of the recipe's data set.

    Raises InputError or FileNotFoundError if there is nothing to read at the place it names.
    """
    if config.name is not None:
        return NAMED[config.name].list_samples()
    assert config.source is not None and config.path is not None, "the recipe was validated"
    return SOURCES[config.source](config.path)
