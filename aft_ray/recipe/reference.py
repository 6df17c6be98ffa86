"""Every key of a recipe with its type, default and meaning, read from the models, for the terminal, docs and editors."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from aft_ray.recipe.config import Recipe
from aft_ray.recipe.model import Model
from aft_ray.recipe.presets import ABOUT, PRESETS

SCHEMA = Path(__file__).parent / "schema.json"
"""The schema of this installation, from which editors complete and check a recipe."""
WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null", Any: "anything"}
BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
BASE = "A recipe, named relative to this one's folder, that gives the keys this one does not."


@dataclass(frozen=True)
class Key:
    """A key of a recipe. name: with dots; `[]` stands for an item of a list, `NAME` for a key of your choice.
    default: in YAML; None if the recipe must give a value. section: the first part of its name.
    """

    name: str
    type: str
    default: str | None
    description: str
    is_section: bool = False

    @property
    def section(self) -> str:
        return self.name.rpartition(".")[0]


def recipe_keys() -> list[Key]:
    """All keys, sections before the keys inside them."""
    return [Key("base", "text", "null", BASE), *_keys(Recipe, "")]


def schema_line(schema: str | Path = SCHEMA) -> str:
    """The comment by which editors with a YAML language server find the schema."""
    return f"# yaml-language-server: $schema={schema}\n"


def json_schema() -> str:
    """The schema of a recipe's file as JSON: the models' schema, with the short forms that a recipe may use."""
    schema = Recipe.model_json_schema(by_alias=True)
    defs = schema["$defs"]
    _also(schema["properties"]["teachers"]["items"], {"type": "string"})
    defs["TeacherConfig"]["required"].remove("name")  # derived from `model`
    _also(defs["DatasetConfig"]["properties"]["splits"]["additionalProperties"], {"type": "string"})
    strength = {"type": "number", "minimum": 0}
    values: list[dict[str, Any]] = [{"$ref": "#/$defs/Range"}, {"type": "array", "items": strength}, strength]
    beta = defs["SearchConfig"]["properties"]["beta"]
    beta["additionalProperties"] = {"anyOf": values}
    _also(beta, *values)
    of_method = defs["SearchConfig"]["properties"]["per_method"]["additionalProperties"]["additionalProperties"]
    _also(of_method, {"type": ["number", "string", "boolean"]})
    preset = {"enum": [*PRESETS, None], "default": None, "description": ABOUT}
    defs["TrainConfig"]["properties"] = {"preset": preset, **defs["TrainConfig"]["properties"]}
    schema["properties"]["base"] = {"type": "string", "description": BASE}
    schema["anyOf"] = [{"required": schema.pop("required")}, {"required": ["base"]}]
    for part in (schema, *defs.values()):
        part.pop("title", None)
        for field in part["properties"].values():
            field.pop("title", None)
    top = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "aft_ray recipe"}
    return json.dumps(top | schema, indent=1, ensure_ascii=False) + "\n"


def as_json(keys: Sequence[Key]) -> str:
    return json.dumps([asdict(key) for key in keys], indent=1, ensure_ascii=False)


def markdown() -> str:
    """The page of all keys, docs/recipe.md."""
    keys = recipe_keys()
    lines = [
        "# Every key of a recipe",
        "",
        "Generated from the models by `make reference`; `aft-ray keys [SECTION|KEY]` shows the same on the terminal.",
        "A key without a default must be given. `[]` stands for an item of a list, `NAME` for a key of your choice.",
    ]
    for section in dict.fromkeys(key.section for key in keys):
        about = [key.description for key in keys if key.name == section]
        lines += ["", f"## {f'`{section}`' if section else 'Top level'}", "", *about, *([""] if about else [])]
        lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
        for key in keys:
            if key.section == section:
                default = "" if key.default is None else f"`{key.default}`"
                cells = (f"`{key.name}`", key.type, default, " ".join(key.description.split()))
                lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _also(part: dict[str, Any], *others: dict[str, Any]) -> None:
    """Lets a part of the schema accept other forms too."""
    about = {name: part.pop(name) for name in ("description", "default") if name in part}
    own = dict(part)
    part.clear()
    part |= about | {"anyOf": [own, *others]}


def _keys(model: type[Model], above: str) -> Iterator[Key]:
    hints = typing.get_type_hints(model, include_extras=True)
    for name, field in model.model_fields.items():
        own = above + (field.alias or name)
        inside = list(_sections(hints[name], own))
        yield Key(own, _type(hints[name], field), _default(field), field.description or "", bool(inside))
        if own == "train":
            yield Key("train.preset", ", ".join(f"`{preset}`" for preset in PRESETS) + " or null", "null", ABOUT)
        for place, section in inside:
            yield from _keys(section, f"{place}.")


def _sections(hint: Any, place: str) -> Iterator[tuple[str, type[Model]]]:
    """The sections inside a key, and their places."""
    if isinstance(hint, type) and issubclass(hint, Model):
        yield place, hint
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    below = {tuple: f"{place}[]", dict: f"{place}.NAME"}.get(origin, place) if origin else place
    for part in parts:
        yield from _sections(part, below)


def _type(hint: Any, field: FieldInfo | None = None) -> str:
    return f"{_type_words(hint)} {_limits(field)}".strip()


def _limits(field: Any) -> str:
    """`> 0 and <= 10`, of the bounds that a field of pydantic's has."""
    return " and ".join(
        f"{sign} {getattr(part, name):,}"
        for part in getattr(field, "metadata", ())
        for name, sign in BOUNDS.items()
        if hasattr(part, name)
    )


def _type_words(hint: Any) -> str:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return " ".join(filter(None, [_type_words(parts[0]), *map(_limits, parts[1:])]))
    if origin is typing.Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type_words(part) for part in parts)
    if origin is tuple:
        return f"list of {_type_words(parts[0])}"
    if origin is dict:
        return f"mapping to {_type_words(parts[1])}"
    if isinstance(hint, type) and issubclass(hint, Model):
        return "section"
    return WORDS[hint]


def _default(field: FieldInfo) -> str | None:
    value = field.default
    if field.is_required():
        return None
    if isinstance(value, Model):
        return "{}"
    if isinstance(value, str):
        return value
    return json.dumps(value)
