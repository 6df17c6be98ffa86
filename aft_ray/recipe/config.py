"""The recipe: typed, frozen and checked before anything starts.

`load(path, overrides)` is the only way in; `override(recipe, {"train.learning_rate": 3e-4})` the only way to change a
value, shared by the command line, the search and the tests. Every fault of a recipe is reported at once, one line each.
"""

from __future__ import annotations

import hashlib
import json
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError, field_validator, model_validator

from aft_ray.recipe.errors import InputError
from aft_ray.recipe.fault_lines import fault_lines, section_at, types_of
from aft_ray.recipe.files import read
from aft_ray.recipe.model import Model, checked_name, is_own_class, is_view_name, view_name
from aft_ray.recipe.presets import resolve_preset
from aft_ray.recipe.search_section import SearchConfig
from aft_ray.recipe.sections import (
    DatasetConfig,
    RegularizerConfig,
    ResourcesConfig,
    StudentConfig,
    TeacherConfig,
    TrainConfig,
)
from aft_ray.recipe.strict_yaml import parse


class Recipe(Model):
    shorthands = ("base",)

    workspace: str
    """Directory or object-store URL that holds everything about one data set."""
    dataset: DatasetConfig
    """The samples: a named data set, or a source of your own."""
    teachers: tuple[TeacherConfig, ...] = ()
    """Frozen models whose features guide the student: names, or sections with a name's settings."""
    student: StudentConfig
    """The model to train."""
    regularizer: RegularizerConfig = RegularizerConfig()
    """The method that compares the student's features with the teachers'."""
    train: TrainConfig = TrainConfig()
    """Steps, batches, rates and workers of one training."""
    search: SearchConfig = SearchConfig()
    """Settings to try, and how to choose among them."""
    resources: ResourcesConfig = ResourcesConfig()
    """CPUs, and waiting for a cluster to grow."""
    run: str = "main"
    """Name of the run of `train` under `runs/`, and of the search under `searches/`."""

    _run_is_a_directory = field_validator("run")(checked_name)

    @field_validator("workspace")
    @classmethod
    def _workspace_is_a_place(cls, workspace: str) -> str:
        if not workspace.strip() or workspace.endswith("://"):
            raise ValueError(f"must name a directory, or a bucket and a place in it, got {workspace!r}")
        return workspace

    @field_validator("teachers")
    @classmethod
    def _names_differ(cls, teachers: tuple[TeacherConfig, ...]) -> tuple[TeacherConfig, ...]:
        names = [teacher.name for teacher in teachers]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two teachers have the same name: {', '.join(twice)}; give each its own 'name'")
        views = [name for name in names if is_view_name(name)]
        if views:
            raise ValueError(
                f"names ending in .viewN belong to the views of a teacher: {', '.join(views)}; choose another 'name'"
            )
        return teachers

    @model_validator(mode="after")
    def _searched_teachers_exist(self) -> Recipe:
        known = [teacher.name for teacher in self.teachers]
        for subset in () if isinstance(self.search.teachers, str) else self.search.teachers:
            for name in subset:
                if name not in known:
                    raise ValueError(f"search.teachers names {name!r}; teachers: {', '.join(known) or 'none'}")
            if not subset:
                raise ValueError("search.teachers has an empty combination; name at least one teacher in each")
        return self

    def teacher_names(self) -> tuple[str, ...]:
        return tuple(teacher.name for teacher in self.teachers)

    def used_teachers(self) -> tuple[str, ...]:
        """The teachers whose features a training reads: standard transfer reads none, a linear probe always all."""
        reads_none = self.regularizer.name == "none" and self.student.model != "linear_probe"
        return () if reads_none else self.teacher_names()

    def with_views(self, teachers: Sequence[str]) -> tuple[str, ...]:
        """The directories of these teachers' features: of whole pictures, and of the other views that `train.views` asks for."""
        return tuple(view_name(teacher, number) for teacher in teachers for number in range(self.train.views))

    def own_classes(self) -> tuple[str, ...]:
        """The classes of the user's own that the recipe names, `module:Class`."""
        searched = self.search.space.get("student.model", ())
        students = (self.student.model, *(searched if isinstance(searched, tuple) else ()))
        teachers = (teacher.model for teacher in self.teachers)
        methods = (self.regularizer.name, *self.search.compare)
        names = (*teachers, *students, *methods, self.dataset.source, self.search.searcher, self.search.scheduler)
        return tuple(name for name in names if isinstance(name, str) and is_own_class(name))

    def worker_resources(self) -> dict[str, float]:
        """CPUs and GPUs that one training worker reserves."""
        return {"CPU": self.resources.cpus_per_worker} | ({"GPU": 1.0} if self.train.use_gpu else {})

    @property
    def tests_heads(self) -> bool:
        """Whether the teachers' own heads are to be tested: when a search has no final runs, nothing sees the test split."""
        return bool(self.search.final.teacher_heads and self.search.final.seeds and self.teachers)

    def splits_with_features(self) -> tuple[str, ...]:
        """Splits whose features a training reads: a student needs train, ranking validation, a linear probe test too."""
        return ("train", "validation", "test") if self.student.model == "linear_probe" else ("train", "validation")

    def extracted_splits(self) -> tuple[str, ...]:
        """Splits that teachers run on."""
        return ("train", "validation", "test") if self.tests_heads else self.splits_with_features()


def load(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in the YAML file at a path or URL, changed by `key=value` overrides with dotted keys and YAML values.

    `base: other.yaml` reads another file first, at a URL or relative to this one's folder. This file's keys then replace the
    base's: sections merge level by level, a list or a number replaces the whole value. A base may be a part of a recipe.
    Raises InputError with one line for every unknown, missing or wrong key.
    """
    content, faults = read(str(path))
    if "settings" in content:
        raise InputError([*faults, f"{path} has 'settings': it is a study. Run it with 'aft-ray study'."])
    return _overridden(content, faults, overrides)


def load_content(content: Mapping[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """The recipe with the content of a file as plain values; a `base` is a file's alone."""
    return _overridden(dict(content), [], overrides)


def _overridden(content: dict[str, Any], faults: list[str], overrides: Sequence[str]) -> Recipe:
    changes, found = parsed_overrides(overrides)
    faults += found
    return recipe_of(changed(content, changes, faults), faults)


def parsed_overrides(overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The dotted keys and values of `key=value` overrides, and a line for each fault."""
    changes: dict[str, Any] = {}
    faults: list[str] = []
    for text in overrides:
        key, separator, value = text.partition("=")
        if not separator or not key:
            faults.append(f"Override {text!r} must have the form key=value, such as train.steps=100.")
            continue
        try:
            changes[key], found = _typed(key, value)
            faults += found
        except InputError as error:
            faults += error.faults
    return changes, faults


def _typed(key: str, text: str) -> tuple[Any, list[str]]:
    """The value of an override, and its faults: YAML, but where the key takes a text, the text as it was typed."""
    *parents, leaf = key.split(".")
    section = section_at(parents, Recipe)
    annotation = typing.get_type_hints(section).get(leaf) if section else None
    is_mapping = typing.get_origin(annotation) is dict  # its keys are no value
    types = set() if is_mapping else set(types_of(annotation))
    if str not in types or text[:1] in ("'", '"') or (text in ("", "~", "null") and type(None) in types):
        return parse(text, f"Override {key}={text}")
    if types <= {str, type(None)}:
        return text, []
    try:
        value, faults = parse(text, key)
    except InputError:
        return text, []
    return (value, faults) if isinstance(value, list) else (text, [])


def load_text(text: str) -> Recipe:
    """Reads the output of `dump`."""
    content, faults = parse(text, "The recipe")
    if not isinstance(content, dict):
        raise InputError("The recipe must be a mapping of keys.")
    return recipe_of(changed(content, {}, faults), faults)


def override(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """`recipe` with the dotted keys of `changes` replaced and everything checked again."""
    faults: list[str] = []
    return recipe_of(changed(recipe.model_dump(mode="json"), changes, faults), faults)


def dump(recipe: Recipe) -> str:
    """The resolved recipe as YAML; `load` reads it back."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def fingerprint(part: Any) -> str:
    """A short stable hash of a plain JSON value."""
    text = json.dumps(part, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def changed(content: Mapping[str, Any], changes: Mapping[str, Any], faults: list[str]) -> dict[str, Any]:
    """The plain values of a recipe with dotted keys and a preset in place. What cannot be replaced adds a line to `faults`."""
    whole: dict[str, Any] = json.loads(json.dumps(content))
    for key, value in changes.items():
        *parents, leaf = key.split(".")
        node = whole
        for parent in parents:
            node = node.setdefault(parent, {}) if isinstance(node, dict) else None
        if not isinstance(node, dict):
            faults.append(f"Override {key}={value}: '{'.'.join(parents)}' is not a section.")
            continue
        node[leaf] = value
    faults += resolve_preset(whole, changes)
    return whole


def recipe_of(content: Any, faults: Sequence[str] = ()) -> Recipe:
    """The recipe of plain values. Raises InputError with `faults`, which were found before, and its own."""
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        raise InputError([*faults, *fault_lines(error, Recipe)]) from error
    if faults:
        raise InputError(faults)
    return recipe
