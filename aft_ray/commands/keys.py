"""aft-ray keys: the keys of a recipe and their meaning."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence

from aft_ray.commands.tables import console, print_table
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.reference import Key, as_json, json_schema, markdown, recipe_keys

SUMMARY = "explain the keys of a recipe"
FORMS = ("json", "markdown", "schema")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("key", nargs="?", default="", metavar="SECTION|KEY", help="such as train, or train.steps")
    about = "json for programs; all keys as a Markdown page, or as a JSON schema for editors"
    parser.add_argument("--as", dest="form", choices=FORMS, help=about)


def run(parsed: argparse.Namespace) -> None:
    if parsed.form in ("markdown", "schema"):
        print(markdown() if parsed.form == "markdown" else json_schema(), end="")
        return
    found = find(parsed.key, recipe_keys())
    if parsed.form == "json":
        print(as_json(found))
    elif not parsed.key:
        show_all(found)
    elif len(found) == 1:
        show_one(found[0])
    else:
        show_section(parsed.key, found)


def find(name: str, keys: Sequence[Key]) -> list[Key]:
    """The keys of a section, or the keys with this name, given with or without its section and `[]`.

    Raises InputError with the nearest names if there is none.
    """
    plain = {key: key.name.replace("[]", "").replace(".NAME", "") for key in keys}
    wanted = name.strip(".").replace("[]", "")
    inside = [key for key in keys if not wanted or plain[key].startswith(f"{wanted}.")]
    same = [key for key in keys if plain[key] == wanted or key.name.rpartition(".")[2] == wanted]
    if inside or same:
        return inside or same
    names = [*plain.values(), *(key.name.rpartition(".")[2] for key in keys)]
    close = difflib.get_close_matches(wanted, dict.fromkeys(names), n=3)
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    raise InputError(f"No section or key '{name}'.{hint} 'aft-ray keys' lists all.")


def show_all(keys: Sequence[Key]) -> None:
    """Prints one line per key, for reading and for `grep`."""
    width = max(len(key.name) for key in keys)
    for key in keys:
        first = key.description.replace("\n", " ").partition(". ")[0].rstrip(".")
        console.print(f"{key.name:{width}}  {first}", overflow="ellipsis", no_wrap=True)
    console.print()
    console.print("'aft-ray keys SECTION' or 'aft-ray keys KEY' explains more, such as: aft-ray keys train")


def show_section(name: str, keys: Sequence[Key]) -> None:
    short = len(keys[0].section) + 1 if all(key.name.startswith(keys[0].section) for key in keys) else 0
    rows = [[key.name[short:], shown_default(key), " ".join(key.description.split())] for key in keys]
    print_table(f"Keys of {name}", ["key", "default", "meaning"], rows)
    if name.partition(".")[0] == "regularizer":
        show_options()


def show_one(key: Key) -> None:
    console.print(key.name, style="bold")
    console.print(f"type     {key.type.replace('`', '')}")
    console.print(f"default  {shown_default(key)}")
    console.print()
    console.print(" ".join(key.description.split()))


def shown_default(key: Key) -> str:
    return "must be given" if key.default is None else key.default


def show_options() -> None:
    """Prints each method's options, further keys of the section `regularizer`, except options fitted to the data."""
    from inspect import Parameter

    from aft_ray.regularizers import REGULARIZERS

    rows = [
        [
            name,
            ", ".join(
                f"{option}={value}" for option, value in kind.options().items() if value not in (Parameter.empty, None)
            ),
        ]
        for name, kind in REGULARIZERS.items()
    ]
    print_table("Further keys of each method, with their defaults", ["name", "options"], [r for r in rows if r[1]])
