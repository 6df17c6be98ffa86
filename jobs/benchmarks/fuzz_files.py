"""Mutations of a workspace's files. Each takes the random numbers, the file and others of its kind, and returns the change."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from safetensors.numpy import load_file, save_file

Mutator = Callable[[Random, Path, Sequence[Path]], str]

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 10**6, 10**30, -(10**30), 0.5, 1e308, 1e-320, -0.0),
    *(
        float("nan"),
        float("inf"),
        float("-inf"),
        "",
        "x",
        "x" * 300,
        "ä\u202e\x1b[31m",
        "../../x",
        [],
        [1],
        {},
        {"a": 1},
    ),
)
"""Values that replace a field."""
SUFFIXES = (".json", ".jsonl", ".parquet", ".yaml", ".safetensors", ".pt")
STRAYS = ("notes.txt", "part-00099.parquet", "copy of it", "a\nb")
"""Files that somebody lays beside ours."""


def truncated(random: Random, path: Path, others: Sequence[Path]) -> str:
    size = random.randrange(max(1, path.stat().st_size))
    os.truncate(path, size)
    return f"cut to {size} bytes"


def flipped(random: Random, path: Path, others: Sequence[Path]) -> str:
    content = bytearray(path.read_bytes())
    places = [random.randrange(len(content)) for _ in range(random.choice((1, 1, 3)))] if content else []
    for place in places:
        content[place] ^= 1 << random.randrange(8)
    path.write_bytes(content)
    return f"bits flipped at {places}"


def emptied(random: Random, path: Path, others: Sequence[Path]) -> str:
    path.write_bytes(b"")
    return "emptied"


def garbage(random: Random, path: Path, others: Sequence[Path]) -> str:
    content = random.choice(
        (b"\0" * 64, b"<!DOCTYPE html>\n<html>404</html>\n", b"[" * 100_000, b"\xff\xfe{}", b"null", b"{}")
    )
    path.write_bytes(content)
    return f"holds {content[:20]!r} ... instead"


def deleted(random: Random, path: Path, others: Sequence[Path]) -> str:
    path.unlink()
    return "deleted"


def folder(random: Random, path: Path, others: Sequence[Path]) -> str:
    path.unlink()
    path.mkdir()
    return "a folder instead"


def fifo(random: Random, path: Path, others: Sequence[Path]) -> str:
    path.unlink()
    os.mkfifo(path)
    return "a FIFO instead"


def link(random: Random, path: Path, others: Sequence[Path]) -> str:
    path.unlink()
    target = random.choice(("diary.txt", "missing", "itself"))
    path.symlink_to(path if target == "itself" else _top(path) / "elsewhere" / target)
    return f"a link to {target}"


def unreadable(random: Random, path: Path, others: Sequence[Path]) -> str:
    path.chmod(0)
    return "unreadable"


def copied(random: Random, path: Path, others: Sequence[Path]) -> str:
    other = random.choice(others)
    shutil.copyfile(other, path)
    return f"a copy of {other.relative_to(_top(path))}"


def exchanged(random: Random, path: Path, others: Sequence[Path]) -> str:
    other = random.choice(others)
    own = path.read_bytes()
    shutil.copyfile(other, path)
    other.write_bytes(own)
    return f"exchanged with {other.relative_to(_top(path))}"


def parent_a_file(random: Random, path: Path, others: Sequence[Path]) -> str:
    shutil.rmtree(path.parent)
    path.parent.write_text("x")
    return "its folder is a file"


def stray(random: Random, path: Path, others: Sequence[Path]) -> str:
    name = random.choice((".DS_Store", *STRAYS))
    (path.parent / name).write_text("x")
    return f"{name!r} beside it"


def field(random: Random, path: Path, others: Sequence[Path]) -> str:
    """One field dropped, replaced, or with its elements in another order; the digest stays."""
    text = path.read_text()
    value = random.choice((*VALUES, ...))
    if path.suffix == ".yaml":
        content, told = _changed(random, yaml.safe_load(text), value)
        path.write_text(yaml.safe_dump(content))
    elif path.suffix == ".jsonl":
        lines = [json.loads(line) for line in text.splitlines()]
        number = random.randrange(len(lines))
        lines[number], told = _changed(random, lines[number], value)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    else:
        content, told = _changed(random, json.loads(text), value)
        path.write_text(json.dumps(content, indent=1) + "\n")
    return told


def field_of_before(random: Random, path: Path, others: Sequence[Path]) -> str:
    """The same in a file without a digest, as files of before are."""
    told = field(random, path, others)
    if path.suffix == ".json":
        content = json.loads(path.read_text())
        if isinstance(content, dict):
            content.pop("digest", None)
        path.write_text(json.dumps(content, indent=1))
    return f"{told}; no digest"


def _changed(random: Random, content: Any, value: Any) -> tuple[Any, str]:
    """A place in JSON is chosen and changed. value: `...` drops it."""
    node, keys = content, []
    while True:
        places = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not places:
            return content, "as it was"
        key = random.choice([place for place in places if place != "digest"] or places)
        keys.append(key)
        inner = node[key]
        if not isinstance(inner, (dict, list)) or not inner or random.random() < 0.3:
            break
        node = inner
    where = ".".join(map(str, keys))
    if value is ...:
        del node[key]
        return content, f"{where} dropped"
    if isinstance(inner, list) and len(inner) > 1 and random.random() < 0.5:
        inner[0], inner[-1] = inner[-1], inner[0]
        return content, f"{where}: two elements exchanged"
    node[key] = value
    return content, f"{where} is {value!r}"[:120]


def line_lost(random: Random, path: Path, others: Sequence[Path]) -> str:
    lines = path.read_bytes().splitlines(keepends=True)
    number = random.randrange(len(lines))
    change = random.choice(("lost", "there twice"))
    path.write_bytes(
        b"".join([*lines[:number], *([lines[number]] * 2 if change != "lost" else []), *lines[number + 1 :]])
    )
    return f"line {number + 1} {change}"


def other_codec(random: Random, path: Path, others: Sequence[Path]) -> str:
    codec = random.choice(("snappy", "gzip", "zstd", "none"))
    dictionary = random.random() < 0.5
    pq.write_table(pq.read_table(path), path, compression=codec, use_dictionary=dictionary, data_page_version="2.0")
    return f"written again with codec {codec}, dictionary {dictionary}"


def table(random: Random, path: Path, others: Sequence[Path]) -> str:
    """Values, rows or columns of a Parquet file changed; its metadata stay."""
    found = pq.read_table(path)
    name = random.choice(found.column_names)
    column = found.column_names.index(name)
    change = random.choice(
        ("dropped", "renamed", "as text", "empty", "rows in reverse", "a row less", "a value changed")
    )
    metadata = found.schema.metadata
    if change == "dropped":
        found = found.drop_columns([name])
    elif change == "renamed":
        found = found.rename_columns([f"{n}2" if n == name else n for n in found.column_names])
    elif change == "as text":
        found = found.set_column(column, name, pa.array([str(v) for v in found[name].to_pylist()]))
    elif change == "empty":
        found = found.set_column(column, name, pa.nulls(found.num_rows, found.schema.field(name).type))
    elif change == "rows in reverse":
        found = found.take(list(range(found.num_rows))[::-1])
    elif change == "a row less":
        found = found.slice(1)
    else:
        values = found[name].to_pylist()
        values[0] = _other(values[0])
        found = found.set_column(column, found.schema.field(name), pa.array(values, found.schema.field(name).type))
    pq.write_table(found.replace_schema_metadata(metadata), path)
    return f"column {name}: {change}"


def _other(value: Any) -> Any:
    """A value of the same type."""
    if isinstance(value, bool) or value is None:
        return None if value is None else not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, list):
        return [_other(value[0]), *value[1:]] if value else value
    return value + (b"x" if isinstance(value, bytes) else "x")


def tensors(random: Random, path: Path, others: Sequence[Path]) -> str:
    found = load_file(path)
    names = sorted(found)
    if not names:
        return "as it was"
    name, change = (
        random.choice(names),
        random.choice(("dropped", "NaN", "huge", "half", "a row less", "exchanged", "new")),
    )
    if change == "dropped":
        del found[name]
    elif change == "new":
        found["new"] = np.zeros(3, np.float32)
    elif change == "half":
        found[name] = found[name].astype(np.float16)
    elif change == "a row less":
        found[name] = np.ascontiguousarray(found[name][1:]) if found[name].ndim else found[name]
    elif change == "exchanged":
        other = random.choice(names)
        found[name], found[other] = found[other], found[name]
    else:
        found[name] = np.full_like(found[name], np.nan if change == "NaN" else 1e30, dtype=np.float32)
    save_file(found, path)
    return f"tensor {name}: {change}"


OF_ANY: tuple[Mutator, ...] = (
    *(truncated, flipped, flipped, emptied, garbage, deleted, folder, fifo, link, unreadable, copied, exchanged),
    *(parent_a_file, stray),
)
OF_SUFFIX: dict[str, tuple[Mutator, ...]] = {
    ".json": (field, field, field, field_of_before, field_of_before),
    ".jsonl": (field, field, line_lost),
    ".yaml": (field, field, field),
    ".parquet": (other_codec, table, table, table),
    ".safetensors": (tensors, tensors, tensors),
}
UNKNOWABLE = (field_of_before, deleted, parent_a_file)
"""After these a verb may have other results than before: no record tells of the missing or changed content."""


def mutate_file(random: Random, workspace: Path) -> tuple[Mutator, Path, str]:
    """Changes one file of the workspace. Returns the mutator, the file, and the change in words."""
    groups: dict[str, list[Path]] = {}
    for path in sorted(workspace.rglob("*")):
        if path.suffix in SUFFIXES and path.is_file():
            groups.setdefault(path.relative_to(workspace).parts[0], []).append(path)
    path = random.choice(groups[random.choice(sorted(groups))])
    named_alike = [
        other for found in groups.values() for other in found if other.suffix == path.suffix and other != path
    ]
    alike = [other for other in named_alike if other.name == path.name] or named_alike
    mutator = random.choice(OF_ANY if random.random() < 0.5 or path.suffix not in OF_SUFFIX else OF_SUFFIX[path.suffix])
    if mutator in (copied, exchanged) and not alike:
        mutator = emptied
    return mutator, path, mutator(random, path, alike)


def _top(path: Path) -> Path:
    """The subject's folder, which holds `elsewhere`."""
    return next(parent for parent in path.parents if (parent / "elsewhere").exists())
