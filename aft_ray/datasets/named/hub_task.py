"""A named task that the hub has, as a record: what a recipe does not say itself, it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from aft_ray.datasets.base import Listing, Modality, NamedDataset
from aft_ray.datasets.sources.hub import check_hub, download_hint, hub_tables, local_folder
from aft_ray.datasets.sources.tabular import check_columns, list_tables
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import DatasetConfig

KEYS = frozenset(
    {"path", "repo", "subset", "revision", "columns", "splits", "label_names", "prompt", "truncation_side"}
)


@dataclass(frozen=True, kw_only=True)
class HubTask:
    """A named task.

    classes: their number, or their names in order. sizes: of train, before validation is held out, and of test. pictures: as
    sizes, where pairs share them.
    columns: what differs from ColumnsConfig's defaults. prompt: that of the authors' code with its faults mended;
    reference_prompt, reference_side: as they are there, where they differ.
    """

    name: str
    repo: str
    classes: int | tuple[str, ...]
    sizes: tuple[int, int]
    licence: str
    columns: Mapping[str, Any]
    splits: Mapping[str, str | tuple[str, ...]] = field(default_factory=lambda: {"train": "train", "test": "test"})
    subset: str | None = None
    revision: str | None = None
    prompt: str | None = None
    reference_prompt: str | None = None
    truncation_side: Literal["left", "right"] = "right"
    reference_side: Literal["left", "right"] | None = None
    pictures: tuple[int, int] | None = None

    @property
    def num_classes(self) -> int:
        return self.classes if isinstance(self.classes, int) else len(self.classes)

    @property
    def modality(self) -> Modality:
        if "image" in self.columns and "text" in self.columns:
            return "image+text"
        return "image" if "image" in self.columns else "text"

    def resolve(self, config: DatasetConfig) -> DatasetConfig:
        """The recipe's `dataset` as one of source hub: what it says itself goes before this record."""
        reference = config.prompt == "reference"
        known = {
            "repo": self.repo,
            "subset": self.subset,
            "revision": self.revision,
            "splits": self.splits,
            "prompt": (reference and self.reference_prompt) or self.prompt,
            "truncation_side": (reference and self.reference_side) or self.truncation_side,
        }
        given = {**_changed(config), "source": "hub"}
        given["columns"] = {**self.columns, **_changed(config.columns)}
        given.pop("name")
        if reference:
            given.pop("prompt")
        try:
            return DatasetConfig.model_validate({**known, **given})
        except ValidationError as error:
            raise InputError([f"{entry['msg'].removeprefix('Value error, ')}." for entry in error.errors()]) from error

    def missing(self, config: DatasetConfig) -> str | None:
        resolved = self.resolve(config)
        return None if local_folder(resolved, resolved.repo or self.repo) else download_hint(resolved)

    def list_samples(self, config: DatasetConfig) -> Listing:
        resolved = self.resolve(config)
        tables = hub_tables(resolved)
        if not isinstance(self.classes, int) and not resolved.label_names and not tables.tables[0].class_names:
            resolved = resolved.model_copy(update={"label_names": self.classes})
        listing = list_tables(tables, resolved)
        if len(listing.classes) != self.num_classes:
            raise InputError(
                f"{self.name} has {self.num_classes} classes, {resolved.path or resolved.repo} has"
                f" {len(listing.classes)}. Name them in dataset.label_names, or look at dataset.columns.label."
            )
        return listing

    def check(self, config: DatasetConfig) -> None:
        resolved = self.resolve(config)
        check_columns(check_hub(resolved), resolved)

    def named(self) -> NamedDataset:
        return NamedDataset(
            name=self.name,
            modality=self.modality,
            num_classes=self.num_classes,
            num_samples=self.sizes,
            licence=self.licence,
            origin=f"hub: {self.repo}",
            keys=KEYS,
            missing=self.missing,
            list_samples=self.list_samples,
            check=self.check,
            resolve=self.resolve,
            num_pictures=self.pictures,
        )


def _changed(config: BaseModel) -> dict[str, Any]:
    """The keys that are not as they are by default, under the names that a recipe gives them."""
    found = config.model_dump(mode="json")
    default = {field.alias or name: field.default for name, field in type(config).model_fields.items()}
    return {key: value for key, value in found.items() if getattr(config, ALIASES.get(key, key)) != default[key]}


ALIASES = {"copy": "copy_content"}
