"""A study's file: a recipe, and beside its sections the key `settings`, axes along which the recipe differs.

    run: figure-1b                     the study's name
    workspace: work/paper              everything of the study lies below it
    search: {compare: [none, aft]}     methods, teachers and budget of every setting, as in any recipe
    settings:
      data: {dtd: {dataset.name: dtd}, food: {dataset.name: food101}}
      student: {vit: {student: {model: ...}}, mixer: {student.model: ...}}

The settings are all combinations of the axes, here `dtd-vit` to `food-mixer`. Settings that read the same samples share a
workspace below the study's, so each teacher runs once over each data set. A setting may have a `base` of its own, a recipe's
file, over which the study's keys hold. Two more keys are the study's:

    records: docs/results/figure-1b    a directory that keeps the findings of finished settings, as text
    reference: dtd-vit                 settings without standard transfer are compared with this setting's
"""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from aft_ray.recipe.config import Recipe, changed, fingerprint, parsed_overrides, recipe_of
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.files import merged, read
from aft_ray.recipe.model import checked_name, shown
from aft_ray.recipe.places import AnyPath, place_at
from aft_ray.recipe.sections import DatasetConfig
from aft_ray.store.files import Directory
from aft_ray.store.workspace import Workspace

KEY, BASE = "settings", "base"
MOST_SETTINGS = 1000
OF_STUDY = ("run", "workspace", "records", "reference", KEY)
"""Keys of the file that are the study's own; the others are of every setting."""
OURS = ("run", KEY)
"""Keys that a setting cannot have: the study names its searches."""


@dataclass(frozen=True)
class Study:
    """name: of the study. root: the workspace of the file, below which everything lies. settings: recipes by name.
    content: the file over its base. overrides: what the command line changes in every setting. records_at: the key `records`.
    reference: the setting whose standard transfer settings without their own are compared with."""

    name: str
    root: str
    settings: Mapping[str, Recipe]
    content: Mapping[str, Any]
    overrides: tuple[str, ...] = ()
    records_at: str | None = None
    reference: str | None = None

    @property
    def place(self) -> Workspace:
        """The directory of the study's page and tables."""
        root = Workspace.at(self.root)
        return Workspace(root.filesystem, f"{root.path}/studies/{self.name}")

    @property
    def records(self) -> Directory:
        """The directory of the findings of finished settings."""
        return Workspace.at(self.records_at) if self.records_at else self.place / "records"

    @cached_property
    def workspaces(self) -> dict[str, list[str]]:
        """Names of the settings of each workspace."""
        found: dict[str, list[str]] = {}
        for name, recipe in self.settings.items():
            found.setdefault(recipe.workspace, []).append(name)
        return found

    def text(self) -> str:
        """The study's file over its base, as YAML; `load_study` reads it back, with the overrides."""
        return as_yaml(dict(self.content))


def as_yaml(content: Any) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def load_study(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Study:
    """The study in a file, or its content, each setting changed by `key=value` overrides of the recipe.

    Raises InputError with one line for every fault of every setting.
    """
    path: AnyPath = Path("study") if isinstance(source, Mapping) else place_at(str(source))
    content, faults = (copy.deepcopy(dict(source)), []) if isinstance(source, Mapping) else read(str(source))
    last, found_in_overrides = parsed_overrides(overrides)
    faults += found_in_overrides
    of_study = {key: last.pop(key) for key in list(last) if key.partition(".")[0] in OF_STUDY}
    content = changed(content, of_study, faults)
    name, root = content.setdefault("run", path.stem), content.get("workspace")
    if not isinstance(root, str) or not root.strip():
        faults.append(f"{path}: workspace must name the directory or URL below which the study lies, got {root!r}.")
        root = "unknown"
    axes = _axes(content, faults)
    _read_bases(axes, path, faults)
    records, reference = content.get("records"), content.get("reference")
    if records is not None and (not isinstance(records, str) or not records.strip()):
        faults.append(f"{path}: records must name a directory or URL, got {shown(records)}.")
    base = {key: value for key, value in content.items() if key not in (KEY, "records", "reference")}
    settings: dict[str, Recipe] = {}
    found: dict[str, list[str]] = {}
    faults += [] if faults else _name_faults(axes)
    for label, changes in _combinations(axes) if not faults else ():
        try:
            settings[label] = _setting(base, f"{name}.{label}", root, changes, last)
        except InputError as error:
            found[label] = error.faults
    faults += in_settings(found, len(found) + len(settings))
    if reference is not None and reference not in {*settings, *found} and settings:
        faults.append(
            f"{path}: reference must name a setting, got {shown(reference)}. Settings: {', '.join(settings)}."
        )
    own = tuple(text for text in overrides if text.partition("=")[0] in last)
    study = Study(str(name), root, settings, content, own, records, reference)
    if faults := faults or _sharing_faults(study):
        raise InputError(faults)
    return study


def in_settings(faults: Mapping[str, Sequence[str]], num_settings: int) -> list[str]:
    """One line for each fault, with the settings that have it. faults: of each setting."""
    having: dict[str, list[str]] = {}
    for label, lines in faults.items():
        for line in lines:
            having.setdefault(line, []).append(label)
    return [
        line if len(labels) == num_settings else f"Setting {', '.join(labels)}: {line}"
        for line, labels in having.items()
    ]


def _axes(content: Mapping[str, Any], faults: list[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """The axes of `settings`; adds a line to `faults` for each that is none."""
    axes = content.get(KEY)
    if not isinstance(axes, dict) or not axes:
        faults.append(
            "A study needs 'settings': axes, each a mapping from names to dotted keys of the recipe, such as"
            " settings: {data: {dtd: {dataset.name: dtd}}}."
        )
        return {}
    for axis, choices in axes.items():
        if not isinstance(choices, dict) or not choices:
            faults.append(f"settings.{axis} must map names to dotted keys and their values, got {shown(choices)}.")
            continue
        for label, changes in choices.items():
            try:
                checked_name(label)
            except ValueError as error:
                faults.append(f"settings.{axis}: {error}.")
            if not isinstance(changes, dict):
                faults.append(f"settings.{axis}.{label} must map dotted keys to values, got {shown(changes)}.")
            else:
                faults += [
                    f"settings.{axis}.{label} cannot have {key}: the study names it." for key in changes if key in OURS
                ]
    count = 1
    for choices in axes.values():
        count *= len(choices) if isinstance(choices, dict) else 1
    if count > MOST_SETTINGS:
        faults.append(
            f"settings has {count:,} combinations, the most is {MOST_SETTINGS:,}. Leave out some, or split the study."
        )
    return axes


def _read_bases(axes: Mapping[str, Any], path: AnyPath, faults: list[str]) -> None:
    """Puts the content of the recipe's file in place of its name wherever a setting has a base. path: of the study."""
    for axis, choices in axes.items():
        for label, changes in choices.items() if isinstance(choices, dict) else ():
            name = changes.get(BASE) if isinstance(changes, dict) else None
            if isinstance(name, str):
                changes[BASE], found = read(name, (path,))
                faults += found
            elif name is not None and not isinstance(name, dict):
                faults.append(f"settings.{axis}.{label}: base must be the name of a file, got {shown(name)}.")


def _name_faults(axes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line for each name that several settings would have: `a-b` with `c`, and `a` with `b-c`."""
    having: dict[str, list[str]] = {}
    for chosen in itertools.product(*axes.values()):
        told = ", ".join(f"{axis} {name}" for axis, name in zip(axes, chosen, strict=True))
        having.setdefault("-".join(chosen), []).append(told)
    return [
        f"Several settings would be called {label}: {'; '.join(those)}. Give a part of one another name."
        for label, those in having.items()
        if len(those) > 1
    ]


def _combinations(axes: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each setting's name, and its changes; where two axes have the same key, the later one's value holds."""
    for chosen in itertools.product(*(choices.items() for choices in axes.values())):
        label = "-".join(name for name, _ in chosen)
        yield label, {key: value for _, changes in chosen for key, value in _dotted(changes).items()}


def _dotted(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The changes with each section's keys dotted: `dataset: {path: x}` changes one key of the data set, as in a recipe over
    its base."""
    found: dict[str, Any] = {}
    for key, value in changes.items():
        is_section = key != BASE and "." not in key and isinstance(value, Mapping)
        found |= {f"{key}.{name}": each for name, each in value.items()} if is_section else {key: value}
    return found


def _setting(
    base: Mapping[str, Any], run: str, root: str, changes: Mapping[str, Any], last: Mapping[str, Any]
) -> Recipe:
    """The recipe of one setting, in its own workspace or in the workspace of its samples. last: overrides of all else."""
    faults: list[str] = []
    own = {key: value for key, value in changes.items() if key != BASE}
    content = changed(merged(changes.get(BASE, {}), dict(base)), own, faults)
    content = changed(content, {**last, "run": run}, faults)
    recipe = recipe_of(content, faults)
    if "workspace" in changes:
        return recipe
    return recipe.model_copy(update={"workspace": f"{root.rstrip('/')}/{_place_of(recipe.dataset)}"})


def _place_of(dataset: DatasetConfig) -> str:
    """A directory's name for these samples: readable, and the same for every study that reads them."""
    origin = dataset.name or dataset.repo or PurePosixPath(dataset.path or "").name or str(dataset.source)
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", origin).strip("-._")[:60] or "samples"
    own = dataset.model_dump(mode="json", exclude_defaults=True)  # a key that a later version adds moves nothing
    return f"{readable}-{fingerprint(own)[:8]}"


def _sharing_faults(study: Study) -> list[str]:
    """Settings of one workspace must mean the same by its samples and by each teacher's name."""
    faults = []
    for place, names in study.workspaces.items():
        recipes = {name: study.settings[name] for name in names}
        if len({fingerprint(recipe.dataset.model_dump(mode="json")) for recipe in recipes.values()}) > 1:
            faults.append(f"Settings {', '.join(names)} have one workspace, {place}, and different data sets.")
        teachers: dict[str, dict[str, list[str]]] = {}
        for name, recipe in recipes.items():
            for teacher in recipe.teachers:
                kind = fingerprint(teacher.model_dump(mode="json"))
                teachers.setdefault(teacher.name, {}).setdefault(kind, []).append(name)
        faults += [
            f"Teacher '{teacher}' is not the same in settings {' and '.join(n[0] for n in kinds.values())}, which share the"
            f" workspace {place}. Give one another name."
            for teacher, kinds in teachers.items()
            if len(kinds) > 1
        ]
    return faults
