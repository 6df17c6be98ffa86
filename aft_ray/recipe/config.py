"""The recipe: typed, frozen and checked before anything starts.

`load(path, overrides)` is the only way in; `override(recipe, {"train.learning_rate": 3e-4})` the only way to change a
value, shared by the command line, the search and the tests. Every fault of a recipe is reported at once, one line each.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError, field_validator, model_validator

from aft_ray.recipe.errors import InputError
from aft_ray.recipe.search_section import SearchConfig
from aft_ray.recipe.sections import (
    DatasetConfig,
    Model,
    RegularizerConfig,
    ResourcesConfig,
    StudentConfig,
    TeacherConfig,
    TrainConfig,
    checked_name,
)


class Recipe(Model):
    workspace: str
    """Directory or object-store URL that holds everything about one data set."""
    dataset: DatasetConfig
    teachers: tuple[TeacherConfig, ...] = ()
    student: StudentConfig
    regularizer: RegularizerConfig = RegularizerConfig()
    train: TrainConfig = TrainConfig()
    search: SearchConfig = SearchConfig()
    resources: ResourcesConfig = ResourcesConfig()
    run: str = "main"
    """Name of the run of `train` under `runs/`, and of the search under `searches/`."""

    _run_is_a_directory = field_validator("run")(checked_name)

    @field_validator("teachers")
    @classmethod
    def _names_differ(cls, teachers: tuple[TeacherConfig, ...]) -> tuple[TeacherConfig, ...]:
        names = [teacher.name for teacher in teachers]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two teachers have the same name: {', '.join(twice)}; give each its own 'name'")
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

    def worker_resources(self) -> dict[str, float]:
        """What one training worker takes of a node."""
        return {"CPU": self.resources.cpus_per_worker} | ({"GPU": 1.0} if self.train.use_gpu else {})

    def extracted_splits(self) -> tuple[str, ...]:
        """Where teachers are run: training needs them on train, ranking on validation, a probe of theirs on test too."""
        return ("train", "validation", "test") if self.student.model == "linear_probe" else ("train", "validation")


def load(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in the YAML file `path`, changed by `key=value` overrides with dotted keys and YAML values.

    `base: other.yaml` reads another file first, named relative to this one's folder. This file's keys then replace the
    base's: sections merge level by level, a list or a number replaces the whole value. A base may be a part of a recipe.
    Raises InputError with one line for every unknown, missing or wrong key.
    """
    content = _read(Path(path), ())
    changes, faults = {}, []
    for text in overrides:
        key, separator, value = text.partition("=")
        if not separator or not key:
            faults.append(f"Override {text!r} must have the form key=value, such as train.steps=100.")
            continue
        changes[key] = yaml.safe_load(value)
    return _validate(content, changes, faults)


def _read(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """The file's content merged over its base's. above: the files that it is a base of."""
    what = f"Base of {above[-1]}: {path}" if above else f"Recipe {path}"
    if not path.is_file():
        raise InputError(f"{what} does not exist.")
    if path.resolve() in {other.resolve() for other in above}:
        raise InputError(f"{what} is based on itself: {' -> '.join(map(str, (*above, path)))}.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise InputError(f"{what} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise InputError(f"{what} must be a mapping of keys, got {type(content).__name__}.")
    if "base" not in content:
        return content
    name = content.pop("base")
    if not isinstance(name, str):
        raise InputError(f"{what}: base must be the name of a file, got {name!r}.")
    return merged(_read(path.parent / name, (*above, path)), content)


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with the keys of `changes`, level by level where both have a section; anything else is replaced."""
    found = dict(base)
    for key, value in changes.items():
        found[key] = merged(found[key], value) if _are_sections(found.get(key), value) else value
    return found


def _are_sections(base: Any, value: Any) -> bool:
    """Whether both are mappings of one form: a range {min, max} replaces a mapping of methods, and the other way round."""
    if not (isinstance(base, dict) and isinstance(value, dict)):
        return False
    return bool({"min", "max"} & base.keys()) == bool({"min", "max"} & value.keys())


def load_text(text: str) -> Recipe:
    """The recipe that `dump` wrote."""
    return _validate(yaml.safe_load(text), {}, [])


def override(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """`recipe` with the dotted keys of `changes` replaced and everything checked again."""
    return _validate(recipe.model_dump(mode="json"), changes, [])


def dump(recipe: Recipe) -> str:
    """The resolved recipe as YAML; `load` reads it back."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def fingerprint(part: Any) -> str:
    """A short stable hash of a value made of plain JSON types."""
    text = json.dumps(part, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _validate(content: Mapping[str, Any], changes: Mapping[str, Any], faults: list[str]) -> Recipe:
    whole = json.loads(json.dumps(content, default=str))
    for key, value in changes.items():
        *parents, leaf = key.split(".")
        node = whole
        for parent in parents:
            node = node.setdefault(parent, {}) if isinstance(node, dict) else None
        if not isinstance(node, dict):
            faults.append(f"Override {key}={value}: '{'.'.join(parents)}' is not a section.")
            continue
        node[leaf] = value
    try:
        recipe = Recipe.model_validate(whole)
    except ValidationError as error:
        raise InputError([*faults, *map(_fault_line, _meant(error.errors()))]) from error
    if faults:
        raise InputError(faults)
    return recipe


def _meant(errors: Sequence[Any]) -> list[Any]:
    """Without what a value of several types is not, where another of the types says what is wrong inside."""
    inside = [error["loc"] for error in errors if error["type"] not in ("model_type", "tuple_type")]

    def is_told_inside(location: tuple[Any, ...]) -> bool:
        """Whether `location` is one of several types, whose names have brackets, and not the one that was meant."""
        of_several = bool(location) and "[" in str(location[-1]) and location not in inside
        return of_several and any(loc[: len(location) - 1] == location[:-1] for loc in inside)

    return [error for error in errors if not is_told_inside(error["loc"])]


def _fault_line(error: Mapping[str, Any]) -> str:
    location = error["loc"]
    key = ".".join(str(part) for part in location if "[" not in str(part))  # the others name a type of several
    if error["type"] == "extra_forbidden":
        section = _section(location[:-1])
        known = ", ".join(_keys(section)) if section else "none"
        close = difflib.get_close_matches(str(location[-1]), _keys(section) if section else [], n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        return f"Unknown key '{key}'.{hint} Known: {known}."
    if error["type"] == "missing":
        return f"Missing key '{key}'."
    if error["type"] == "model_type" and (section := _section(location)):
        return f"{key} must be a section with keys of {', '.join(_keys(section))}, got {error['input']!r}."
    if error["type"] == "tuple_type":
        return f"{key} must be a list, got {error['input']!r}."
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if error["type"] == "value_error":
        return f"{key}{' ' if message.startswith('must') else ': '}{message}." if key else f"{message}."
    return f"{key} must be {message}, got {error['input']!r}."


def _keys(section: type[Model]) -> list[str]:
    return [field.alias or name for name, field in section.model_fields.items()]


def _section(location: Sequence[Any]) -> type[Model] | None:
    """The model that describes the recipe's section at `location`."""
    model: Any = Recipe
    for part in location:
        if isinstance(part, int):
            continue
        annotation = typing.get_type_hints(model).get(part)
        candidates = typing.get_args(annotation) or (annotation,)
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, Model)), None)
        if model is None:
            return None
    return typing.cast("type[Model]", model)
