"""Mutations of a recipe: of its values and keys, of its text, and overrides on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import yaml

from aft_ray.recipe.config import dump, load

TEXTS = (
    *(
        "true",
        "no",
        "null",
        "~",
        "''",
        '"',
        "abc",
        "-1",
        "0",
        "1",
        "-0.0",
        "1e308",
        "1e400",
        ".inf",
        "-.inf",
        ".nan",
        "1:30",
    ),
    *(
        "010",
        "0x1F",
        "1_000",
        "10000000000000000000000000000000",
        "18446744073709551616",
        "-1e-9",
        "1e-320",
        "2026-11-28",
    ),
    *("[", "[]", "[1]", "[[]]", "{}", "{a: 1}", "*a", "&a [*a]", "!!python/object:os.system x", "!!binary aGk=", "? a"),
    *(
        "../../x",
        "s3://",
        "file:///dev/zero",
        "/dev/zero",
        "%41",
        "a:b",
        "- a",
        "x" * 300,
        "ä\u202e",
        "'\\e[31m'",
        "1 2",
    ),
)
"""Values as they are typed."""


class Changed(NamedTuple):
    """A mutation of a recipe. overrides: arguments that are given with it. key, text: of the changed value."""

    what: str
    overrides: tuple[str, ...] = ()
    key: str | None = None
    text: str | None = None


def keys_of(content: Any, prefix: str = "") -> list[str]:
    """Dotted keys of all sections."""
    if not isinstance(content, dict):
        return []
    own = [f"{prefix}{key}" for key in content]
    return own + [inner for key, value in content.items() for inner in keys_of(value, f"{prefix}{key}.")]


def override(random: Random, path: Path) -> Changed:
    """One to three `key=value`; the last one's value is known."""
    key, text = random.choice(_all_keys(path)), random.choice(TEXTS)
    if random.random() < 0.1:
        key = random.choice((f"{key}s", f"{key}.x", "", ".", "train.", "a=b", "student", "base", f"{key} "))
        return Changed(f"{key}={text}"[:100], (f"{key}={text}",))
    return Changed(f"{key}={text}"[:100], (f"{key}={text}",), key, text)


def value(random: Random, path: Path) -> Changed:
    """A value in the file."""
    key, text = random.choice(_all_keys(path)), random.choice(TEXTS)
    content = yaml.safe_load(path.read_text())
    _place(content, key)
    written = yaml.safe_dump(content, sort_keys=False).replace("MUTATED", text)
    path.write_text(written, encoding="utf-8")
    return Changed(f"{key}: {text}"[:100], (), key, text)


def dropped(random: Random, path: Path) -> Changed:
    content = yaml.safe_load(path.read_text())
    key = random.choice(keys_of(content))
    node, leaf = _node(content, key)
    del node[leaf]
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return Changed(f"{key} dropped")


def unknown(random: Random, path: Path) -> Changed:
    content = yaml.safe_load(path.read_text())
    key = random.choice(keys_of(content))
    node, leaf = _node(content, key)
    name = random.choice((f"{leaf}s", leaf.upper(), "", "x" * 200, "ä", "__class__"))
    node[name] = node.pop(leaf) if random.random() < 0.5 else 1
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return Changed(f"{key}: beside it {name!r}")


def text(random: Random, path: Path) -> Changed:
    """The text as a whole: cut, flipped, encoded otherwise, with repeated keys, aliases and bases."""
    content = path.read_bytes()
    bomb = "a0: &a0 [1]\n" + "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 12))
    changes: dict[str, Callable[[], bytes]] = {
        "cut": lambda: content[: random.randrange(len(content))],
        "a bit flipped": lambda: _flip(random, content),
        "UTF-16": lambda: content.decode().encode("utf-16"),
        "UTF-8 with BOM": lambda: b"\xef\xbb\xbf" + content,
        "Latin-1": lambda: content + b"run: \xe4\n",
        "NUL": lambda: content + b"\0",
        "CRLF": lambda: content.replace(b"\n", b"\r\n"),
        "tabs": lambda: content.replace(b" ", b"\t"),
        "a key twice": lambda: content + b"train: {steps: 5}\n",
        "an alias to itself": lambda: content + b"run: &a [*a]\n",
        "an alias bomb": lambda: content + bomb.encode(),
        "two documents": lambda: content + b"---\n" + content,
        "a list": lambda: b"- 1\n",
        "a text": lambda: b"hello\n",
        "deep": lambda: b"[" * 100_000,
        "based on itself": lambda: b"base: recipe.yaml\n" + content,
        "based on a folder": lambda: b"base: data\n" + content,
        "based on nothing": lambda: b"base: missing.yaml\n" + content,
        "a merge key": lambda: b"x: &x {steps: 3}\n" + content + b"<<: *x\n",
        "large": lambda: content + b"#" * (5 << 20),
        "empty": lambda: b"",
    }
    name = random.choice(sorted(changes))
    path.write_bytes(changes[name]())
    return Changed(f"its text: {name}")


MUTATORS: tuple[Callable[[Random, Path], Changed], ...] = (override, override, value, value, dropped, unknown, text)


def _flip(random: Random, content: bytes) -> bytes:
    place = random.randrange(len(content))
    return content[:place] + bytes([content[place] ^ (1 << random.randrange(8))]) + content[place + 1 :]


def _all_keys(path: Path) -> list[str]:
    return keys_of(yaml.safe_load(dump(load(path))))


def _node(content: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    *parents, leaf = key.split(".")
    for parent in parents:
        if not isinstance(content.get(parent), dict):
            content[parent] = {}
        content = content[parent]
    return content, leaf


def _place(content: dict[str, Any], key: str) -> None:
    node, leaf = _node(content, key)
    node[leaf] = "MUTATED"
