"""Where samples come from: named data sets, and the user's own files.

A source lists its samples without keeping their content, so that splits and shards are decided first and the bytes of
one shard at a time are read when it is written.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from aft_ray.cluster.tasks import Helpers
from aft_ray.datasets.base import Item, Listing, NamedDataset, Source
from aft_ray.datasets.named import hub_tasks
from aft_ray.datasets.named.bundled import BUNDLED_IMAGES
from aft_ray.datasets.named.bundled_texts import BUNDLED_TEXTS
from aft_ray.datasets.named.emoji import EMOJI
from aft_ray.datasets.named.hub_task import KEYS
from aft_ray.datasets.parts import Plan, listing_of, scanned
from aft_ray.datasets.sources.contents import RowContent
from aft_ray.datasets.sources.hub import check_hub, hub_tables
from aft_ray.datasets.sources.image_folder import check_image_folder, image_folder_in_parts, list_image_folder
from aft_ray.datasets.sources.store_folders import ALONE, Lister
from aft_ray.datasets.sources.tables import open_tables
from aft_ray.datasets.sources.tabular import check_columns, list_tables, tables_in_parts
from aft_ray.datasets.sources.torchvision_source import check_torchvision, list_torchvision
from aft_ray.datasets.sources.webdataset import Tars, find_tars, list_webdataset
from aft_ray.datasets.unlabelled_tables import PLAIN, RowForm
from aft_ray.recipe.errors import InputError, ObjectStoreError
from aft_ray.recipe.own_class import import_class, own_faults
from aft_ray.recipe.places import reached, unreachable
from aft_ray.recipe.sections import DatasetConfig

__all__ = [
    "NAMED",
    "SOURCES",
    "Item",
    "Listing",
    "NamedDataset",
    "faults",
    "list_samples",
    "one_line",
    "plan_of",
    "row_form",
]

NAMED: dict[str, NamedDataset] = {
    dataset.name: dataset
    for dataset in (
        *(task.named() for task in (*hub_tasks.IMAGES, *hub_tasks.TEXTS, *hub_tasks.PAIRS)),
        *BUNDLED_IMAGES,
        *BUNDLED_TEXTS,
        EMOJI,
    )
}
TABLES = Source(
    lambda config: list_tables(open_tables(config), config),
    lambda config: check_columns(open_tables(config).tables, config),
    lambda config, _: tables_in_parts(open_tables(config), config),
)
SOURCES = {
    "image_folder": Source(list_image_folder, check_image_folder, image_folder_in_parts),
    "parquet": TABLES,
    "csv": TABLES,
    "jsonl": TABLES,
    "webdataset": Source(list_webdataset, find_tars, lambda config, _: Tars.of(config)),
    "hub": Source(
        lambda config: list_tables(hub_tables(config), config),
        lambda config: check_columns(check_hub(config), config),
        lambda config, _: tables_in_parts(hub_tables(config), config),
    ),
    "torchvision": Source(list_torchvision, check_torchvision),
}
NAMED_KEYS = KEYS | {"task", "dataset_class"}
"""Keys of the recipe's `dataset` that only some named data sets take."""


def faults(config: DatasetConfig) -> list[str]:
    """Faults of the recipe's `dataset` that show without reading every sample, one line each."""
    try:
        with one_line(config):
            if config.name is None:
                _source(config).check(config)
            else:
                _named(config)
    except InputError as error:
        return [line if line.startswith("Unknown data set") else f"dataset: {line}" for line in error.faults]
    return []


def list_samples(config: DatasetConfig, helpers: Helpers | None = None) -> Listing:
    """Every sample of the recipe's data set; `helpers` read a part of a large one.

    Raises InputError if there is nothing to read at the place it names, or a row is wrong.
    """
    with one_line(config):
        if config.name is None:
            plan = plan_of(config)
            if plan is not None:
                return listing_of(plan, scanned(plan, helpers))
            return _checked(_source(config).list(config), config)
        return _named(config).list_samples(config)


def plan_of(config: DatasetConfig, lister: Lister = ALONE) -> Plan | None:
    """How the recipe's data set is read in parts; None where it is read as a whole. lister: lists a store."""
    plan = _source(config).plan if config.name is None else None
    return plan(config, lister) if plan else None


@contextmanager
def one_line(config: DatasetConfig) -> Iterator[None]:
    """Raises InputError for files that are not there, and for a store that refuses, which is asked before anything is listed."""
    for url in config.urls():
        reached(url, f"raw data {url}")
    try:
        with own_faults(config.source or "", "dataset.source") if config.name is None else nullcontext():
            yield
    except FileNotFoundError as error:
        raise InputError(str(error)) from error
    except ObjectStoreError as error:
        raise unreachable(f"raw data {config.path}", config.path or "", error) from error


def _checked(listing: Any, config: DatasetConfig) -> Listing:
    if not isinstance(listing, Listing):
        raise InputError(f"{config.source}.list_samples must return a Listing, got {type(listing).__name__}.")
    return listing


def row_form(config: DatasetConfig) -> RowForm:
    """How a row of a table becomes a sample of the recipe's data set; columns `image` and `text` where it names none."""
    named = NAMED.get(config.name or "")
    resolved = named.resolve(config) if named and named.resolve else config
    columns = resolved.columns
    prompt = resolved.prompt if columns.texts else None
    content = RowContent(columns.texts or PLAIN.content.texts, prompt, columns.image or PLAIN.content.image)
    return RowForm(content, columns.id)


def _source(config: DatasetConfig) -> Source:
    """The source that `config` names, which may be a class of the user's own."""
    name = config.source or ""
    if name in SOURCES:
        return SOURCES[name]
    own: Any = import_class(name, "dataset.source", ("list_samples",))
    plan = getattr(own, "plan", None)
    return Source(own.list_samples, getattr(own, "check", own.list_samples), plan and (lambda config, _: plan(config)))


def _named(config: DatasetConfig) -> NamedDataset:
    """The data set that `config` names. Raises InputError if there is none, or it does not take the keys that are set."""
    if config.name not in NAMED:
        close = difflib.get_close_matches(config.name or "", NAMED, n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        raise InputError(f"Unknown data set '{config.name}' in dataset.name.{hint} Known: {', '.join(sorted(NAMED))}.")
    dataset = NAMED[config.name]
    defaults = {key: type(config).model_fields[key].default for key in NAMED_KEYS - dataset.keys}
    given = sorted(key for key, default in defaults.items() if getattr(config, key) != default)
    if given:
        raise InputError([f"'{key}' has no effect with data set '{dataset.name}'. Leave it out." for key in given])
    if dataset.check is not None:
        dataset.check(config)
    elif where := dataset.missing(config):
        raise FileNotFoundError(f"{dataset.name} is not here. {where}.")
    return dataset
