"""The recipe as a text with comments: each line that a user may want to change says why it is as it is."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from aft_ray.commands.first_recipe.look import Found
from aft_ray.commands.first_recipe.machine import Machine
from aft_ray.commands.first_recipe.models import Choice
from aft_ray.recipe.printable import printable
from aft_ray.recipe.reference import schema_line

METHODS = ("none", "aft", "aft_probe", "probe_kd")
"""Methods that helped most often on our data (docs/results.md), beside none, standard transfer learning."""
SEEDS = 3
PLAIN = re.compile(r"[A-Za-z]([\w./:@-]*\w)?", re.ASCII)
"""Texts that are the same to every reader of YAML without quotes, but for these words:"""
RESERVED = ("true", "false", "null", "yes", "no", "on", "off", "y", "n")


def recipe_text(found: Found, choice: Choice, machine: Machine, workspace: str, cost: str) -> str:
    """cost: a line on how long it takes."""
    return "".join(
        [
            schema_line(),
            *_comment("Made by aft-ray init. 'aft-ray keys KEY' explains a key; editors know them by the line above."),
            *_comment("Run it with: aft-ray pipeline FILE. A run that is stopped goes on with the same command."),
            *_comment(cost),
            f"workspace: {_yaml(workspace)}  # everything is written here\n\n",
            *(line for note in found.notes() for line in _comment(note)),
            *_dataset(found),
            "\n",
            *_teachers(choice, machine),
            "\n",
            *_comment("The small model to train: the only one that is needed in the end."),
            f"student: {_inline(choice.student)}\n",
            *_train(choice.train),
            "\n",
            *_search(found, choice),
        ]
    )


def _comment(text: str) -> list[str]:
    """Lines of at most 120 characters; names from the data cannot end the comment."""
    lines, line = [], "#"
    for word in printable(text).split(" "):
        if len(line) + len(word) > 118 and line != "#":
            lines.append(f"{line}\n")
            line = "#"
        line += f" {word}"
    return [*lines, f"{line}\n"]


def _yaml(value: Any) -> str:
    """JSON is YAML; a plain word needs no quotes."""
    if isinstance(value, str) and PLAIN.fullmatch(value) and value.lower() not in RESERVED:
        return value
    return json.dumps(value, ensure_ascii=False)


def _inline(section: Mapping[str, Any]) -> str:
    return f"{{{', '.join(f'{key}: {_value(value)}' for key, value in section.items())}}}"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return _inline(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]"
    return _yaml(value)


def _dataset(found: Found) -> list[str]:
    lines = ["dataset:\n", *(f"  {key}: {_value(value)}{_about(key, found)}\n" for key, value in found.section.items())]
    own = {item.split for item in found.listing.items} - {None}
    if own:
        lines.append("  # the data's own splits are used; what is missing is held out of train\n")
    if found.section["source"] not in ("image_folder", "webdataset"):
        lines.append("  # columns.group names a column whose equal values (a patient, a document) stay in one split\n")
    return lines


def _about(key: str, found: Found) -> str:
    """The comment behind a key of `dataset`."""
    if key.endswith("_fraction"):
        of = "each class" if "stratify" in found.section else "the samples"
        return f"  # of {of}, by the hash of the samples' ids"
    return "  # false: a sample stays in its split when others come or go" * (key == "stratify")


def _teachers(choice: Choice, machine: Machine) -> list[str]:
    lines = _comment(f"Large frozen models; they run once over the samples. This machine: {machine}.")
    lines.append("teachers:\n")
    for teacher in choice.teachers:
        first, *rest = (
            f"{key}: {_value(value)}{'  # copies: as many as GPUs have room for' * (key == 'num_actors')}\n"
            for key, value in teacher.items()
        )
        lines += [f"  - {first}", *(f"    {line}" for line in rest)]
    for package in choice.missing:
        lines += _comment(f"More: {package.install} brings {package.brings}; then run aft-ray init again.")
    return lines


def _train(train: Mapping[str, Any]) -> list[str]:
    return ["train:\n", *(f"  {key}: {_value(value)}\n" for key, value in train.items())]


def _search(found: Found, choice: Choice) -> list[str]:
    names = [teacher["name"] for teacher in choice.teachers]
    heads = ", teacher_heads: true" if found.task == "classification" else ""
    asha = "asha stops trials that fall behind"
    scheduler = f"asha  # {asha[5:]}" if choice.train.get("use_gpu") else f"none  # {asha}"
    return [
        *_comment(
            "Each method gets four strengths, chosen on validation; the best of each then sees test, with fresh seeds."
            + " The teachers' own heads are tested beside them." * bool(heads)
        ),
        "search:\n",
        f"  compare: {_value(METHODS)}  # none is standard transfer learning; aft-ray list regularizers\n",
        f"  teachers: {_value([names])}  # all at once; all_subsets tries every combination\n",
        f"  scheduler: {scheduler}\n",
        f"  final: {{seeds: {SEEDS}{heads}}}\n",
    ]
