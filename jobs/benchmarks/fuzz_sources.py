"""Mutations of raw data, and independent readers that say which samples are there."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pyarrow.parquet as pq

from aft_ray.store.workspace import Workspace
from jobs.benchmarks.fuzz_files import (
    Mutator,
    emptied,
    fifo,
    flipped,
    folder,
    garbage,
    link,
    table,
    truncated,
    unreadable,
)

Samples = Counter[tuple[str, str]]
"""(content or its hash, class), and how often."""

SOURCES = {
    "texts.csv": "{source: csv, path: data/texts.csv, columns: {text: text}}",
    "texts.tsv": "{source: csv, path: data/texts.tsv, columns: {text: text}}",
    "texts.jsonl": "{source: jsonl, path: data/texts.jsonl, columns: {text: text}}",
    "texts.parquet": "{source: parquet, path: data/texts.parquet, columns: {text: text}}",
    "pictures.tar": "{source: webdataset, path: data/pictures.tar}",
    "pictures": "{source: image_folder, path: data/pictures}",
}
OTHERS = "validation_fraction: 0.25, test_fraction: 0.25"


def dataset(name: str) -> str:
    """The `dataset` of a recipe for one of SOURCES."""
    return f"dataset={SOURCES[name][:-1]}, {OTHERS}}}"


def line_changed(random: Random, path: Path, others: Sequence[Path]) -> str:
    """A line of a text file lost, doubled, or with other characters in it."""
    lines = path.read_bytes().splitlines(keepends=True)
    number = random.randrange(len(lines))
    change = random.choice(
        (b"", b'"', b"\t", b",", b"\0", b"\xff", b"\r", "\u2028".encode(), b"\xef\xbb\xbf", b"\n\n", b" ")
    )
    place = random.randrange(len(lines[number]))
    line = lines[number]
    path.write_bytes(
        b"".join([*lines[:number], line[:place] + change + line[place:] if change else b"", *lines[number + 1 :]])
    )
    return f"line {number + 1}: {change!r} at {place}" if change else f"line {number + 1} lost"


def encoded(random: Random, path: Path, others: Sequence[Path]) -> str:
    name = random.choice(("utf-8-sig", "utf-16", "utf-32", "cp1252"))
    path.write_bytes(path.read_text(encoding="utf-8").encode(name, "replace"))
    return f"in {name}"


def member(random: Random, path: Path, others: Sequence[Path]) -> str:
    """A tar's member renamed, doubled or of another kind."""
    with tarfile.open(path) as tar:
        found = [(m, (tar.extractfile(m) or io.BytesIO()).read()) for m in tar.getmembers()]
    number, change = random.randrange(len(found)), random.choice(("renamed", "twice", "a link", "lost", "empty"))
    info, content = found[number]
    if change == "renamed":
        info.name = random.choice(("x.png", "../x.png", "/x.png", "a/b.c.png", "x", ".png", "ä.cls"))
    elif change == "a link":
        info.type, info.linkname, info.size, content = tarfile.SYMTYPE, "/etc/passwd", 0, b""
    elif change == "empty":
        info.size, content = 0, b""
    found[number : number + 1] = {"lost": [], "twice": [(info, content)] * 2}.get(change, [(info, content)])
    with tarfile.open(path, "w") as tar:
        for entry, data in found:
            tar.addfile(entry, io.BytesIO(data))
    return f"member {number} {change}"


def picture(random: Random, path: Path, others: Sequence[Path]) -> str:
    """Something happens to one picture, or to its class's folder."""
    one = random.choice(sorted(path.rglob("*.png")))
    change = random.choice(
        (truncated, flipped, emptied, garbage, folder, fifo, link, unreadable, _renamed, _class_changed)
    )
    return f"{one.relative_to(path)}: {change(random, one, ())}"


def _renamed(random: Random, path: Path, others: Sequence[Path]) -> str:
    name = random.choice(
        (".hidden.png", "a\nb.png", "x.PNG", "x.jfif", "x.txt", "x.png.gz", "\udcff.png", "x" * 240 + ".png")
    )
    path.rename(path.parent / name)
    return f"renamed {name!r}"


def _class_changed(random: Random, path: Path, others: Sequence[Path]) -> str:
    place = path.parent
    change = random.choice((".hidden", "__MACOSX", "train", "a link", "nested", "unreadable", "a\x1b[31m", "emptied"))
    if change == "nested":
        (place / "inner").mkdir()
        path.rename(place / "inner" / path.name)
    elif change == "unreadable":
        place.chmod(0)
    elif change == "emptied":
        for one in place.iterdir():
            one.unlink()
    else:
        moved = place.parent.parent / "moved" if change == "a link" else place.parent / change
        place.rename(moved)
        if change == "a link":
            place.symlink_to(moved)
    return f"its folder {change!r}"


_FILE = (truncated, flipped, emptied, garbage, fifo, link, unreadable, folder)
MUTATORS: dict[str, tuple[Mutator, ...]] = {
    **dict.fromkeys(
        ("texts.csv", "texts.tsv", "texts.jsonl"), (*_FILE, line_changed, line_changed, line_changed, encoded)
    ),
    "texts.parquet": (*_FILE, table, table),
    "pictures.tar": (*_FILE, member, member, member),
    "pictures": (picture,),
}


def mutate_source(random: Random, data: Path) -> tuple[str, Mutator, str]:
    """Changes one source of `data`. Returns its name, the mutator, and the change in words."""
    name = random.choice(sorted(SOURCES))
    mutator = random.choice(MUTATORS[name])
    return name, mutator, mutator(random, data / name, ())


def reference(path: Path) -> Samples:
    """The samples that are there, as another reader sees them. Raises some error if it cannot read them."""
    if path.is_dir():
        return _of_folder(path)
    if not path.is_file():
        raise ValueError("it could be waited for without end")
    if path.suffix == ".tar":
        return _of_tar(path)
    if path.suffix == ".parquet":
        rows = pq.read_table(path).to_pylist()
    elif path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_bytes().decode("utf-8-sig").split("\n") if line.strip()]
    elif path.suffix == ".tsv":
        head, *lines = (
            line.rstrip("\r").split("\t") for line in path.read_bytes().decode("utf-8-sig").split("\n") if line
        )
        rows = [dict(zip(head, line, strict=True)) for line in lines]
    else:
        rows = list(csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""), strict=True))
    return Counter((row["text"], _label(row["label"])) for row in rows)


def _label(value: object) -> str:
    return "" if value is None else str(value).strip()


def _of_folder(path: Path) -> Samples:
    found: Samples = Counter()
    for root, _, names in os.walk(path, followlinks=True):
        for name in names:
            one = Path(root, name)
            if one.is_file() and one.suffix.lower() == ".png":
                found[_hash(one.read_bytes()), one.relative_to(path).parts[0]] += 1
    return found


def _of_tar(path: Path) -> Samples:
    parts: dict[str, dict[str, bytes]] = {}
    with tarfile.open(path, "r:") as tar:
        for info in tar:
            key, _, suffix = info.name.partition(".")
            parts.setdefault(key, {})[suffix] = (tar.extractfile(info) or io.BytesIO()).read()
    return Counter((_hash(part["png"]), _label(part["cls"].decode())) for part in parts.values())


def prepared(workspace: Path) -> Samples:
    """The samples that a workspace holds."""
    found: Samples = Counter()
    for split in ("train", "validation", "test"):
        directory = Workspace.at(workspace).samples(split)
        manifest = directory.manifest() or {}
        for index in range(len(manifest["shards"])):
            for row in directory.read_shard(index).to_pylist():
                content = row["text"] if "text" in row else _hash(row["image"])
                found[content, "" if row["label"] < 0 else manifest["classes"][row["label"]]] += 1
    return found


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
