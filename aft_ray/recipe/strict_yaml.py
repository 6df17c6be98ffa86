"""Strict YAML for recipes: each key is a text and given once, and no value has two meanings."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from contextlib import suppress
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.error import MarkedYAMLError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from aft_ray.recipe.errors import InputError

MOST_NODES = 1_000_000
"""Most values in one document, where every alias counts in full."""
AMBIGUOUS = re.compile(r"[-+]?0\d[\d_]*|[-+]?\d[\d_]*(:[0-5]?\d)+(\.\d*)?")
"""YAML 1.1's octal (010) and base-60 numbers (1:30), which other parsers read as 10 and as a text."""
TEXT = "tag:yaml.org,2002:str"
MERGE = "tag:yaml.org,2002:merge"
PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map")}
COMMON = re.compile(r"[\n \"-=@-{}~]*")
"""Texts of these characters alone mean the same to both of PyYAML's parsers. A text with a tab, `!`, `?`, `|` or `>` may not."""
MOST_OPENINGS = 500
"""Texts with more signs that may begin a list or a mapping are for the parser in Python: in C, deep nesting would end the
process."""


def _construct_mapping(loader: Any, node: MappingNode, deep: bool = False) -> dict[Hashable, Any]:
    loader.flatten_mapping(node)
    return {key.value: loader.construct_object(value, deep=deep) for key, value in node.value}


def _strict(loader: type) -> Any:
    """`loader`, but dates stay texts, keys are texts as typed, and tags such as !!binary are refused."""
    resolvers = {
        first: [(tag, pattern) for tag, pattern in found if tag in PLAIN_TAGS | {MERGE}]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    constructors = {tag: own for tag, own in yaml.SafeLoader.yaml_constructors.items() if tag in {*PLAIN_TAGS, None}}
    own = {"yaml_implicit_resolvers": resolvers, "yaml_constructors": constructors}
    return type("Strict", (loader,), own | {"construct_mapping": _construct_mapping})


LOADER = _strict(yaml.SafeLoader)
QUICK_LOADER = _strict(getattr(yaml, "CSafeLoader", yaml.SafeLoader))
"""Ten times as fast. It words faults in its own way, so LOADER reads faulty texts again."""


def parse(text: str, what: str) -> tuple[Any, list[str]]:
    """The value of a YAML document, and a line for each fault that does not prevent reading it.

    what: begins each line. Raises InputError if the document has no readable value.
    """
    if COMMON.fullmatch(text) and sum(map(text.count, "[{-")) < MOST_OPENINGS:
        with suppress(yaml.YAMLError, ValueError, LookupError, RecursionError):
            return _read(QUICK_LOADER(text), what)
    try:
        return _read(LOADER(text), what)
    except yaml.YAMLError as error:
        raise InputError(f"{what} is not valid YAML: {_reason(error)}.") from error
    except RecursionError as error:
        raise InputError(f"{what} is nested too deeply.") from error
    except (ValueError, LookupError) as error:  # an integer of thousands of digits, or of none; !!bool maybe
        raise InputError(f"{what} has a value that cannot be read: {str(error).partition(';')[0]}.") from error


def _read(loader: Any, what: str) -> tuple[Any, list[str]]:
    root = loader.get_single_node()
    if root is None:
        return None, []
    _check_size(root)
    faults = [f"{what}: {fault}" for fault in dict.fromkeys(_faults(root, set()))]
    return loader.construct_document(root), faults


def _reason(error: yaml.YAMLError) -> str:
    if not isinstance(error, MarkedYAMLError) or error.problem_mark is None:
        return str(error).partition("\n")[0]
    problem = error.problem or ""
    problem = f"{error.context}, {problem}" if problem.startswith("but ") else problem
    return f"line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}: {problem}"


def _children(node: Node) -> list[Node]:
    if isinstance(node, MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, SequenceNode) else []


def _check_size(root: Node) -> None:
    """Raises ConstructorError, before anything is expanded, for an anchor inside itself and for aliases that multiply."""
    sizes: dict[int, int] = {}

    def size(node: Node, above: frozenset[int]) -> int:
        if id(node) in above:
            raise ConstructorError(None, None, "an anchor refers to itself", node.start_mark)
        if id(node) not in sizes:
            sizes[id(node)] = 1 + sum(size(child, above | {id(node)}) for child in _children(node))
        return sizes[id(node)]

    if size(root, frozenset()) > MOST_NODES:
        raise ConstructorError(None, None, f"its aliases make more than {MOST_NODES:,} values", root.start_mark)


def _faults(node: Node, seen: set[int]) -> Iterator[str]:
    """Keys given twice and ambiguous numbers, in `node` and below. seen: visited nodes, since aliases repeat nodes."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, MappingNode):
        yield from _key_faults(node)
        children = [value for _, value in node.value]
    else:
        children = _children(node)
    if isinstance(node, ScalarNode) and not node.style and AMBIGUOUS.fullmatch(node.value):
        node.tag = TEXT  # a key of type text then has this fault alone
        yield f"line {_line(node)}: {node.value} is ambiguous. Write a plain number, or put it in quotes."
    for child in children:
        yield from _faults(child, seen)


def _key_faults(node: MappingNode) -> Iterator[str]:
    lines: dict[str, list[int]] = {}
    for key, _ in node.value:
        if not isinstance(key, ScalarNode):
            raise ConstructorError(None, None, "a key must be a text", key.start_mark)
        lines.setdefault(key.value, []).append(_line(key))
    for name, found in lines.items():
        if len(found) > 1:
            first, *others = dict.fromkeys(found)
            places = f"lines {first} and {', '.join(map(str, others))}" if others else f"line {first}"
            yield f"{places}: key '{name}' is given {len(found)} times. Keep one."


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1
