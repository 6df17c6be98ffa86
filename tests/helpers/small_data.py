"""Tars, tables and folders of a hundred small samples, and the samples that are made of them."""

from __future__ import annotations

import io
import random
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.helpers.hub_data import png
from tests.helpers.tables import WRITERS


def samples_of(workspace: Path) -> dict[str, bytes]:
    found = [path for path in (workspace / "samples").rglob("*") if path.is_file()]
    return {path.relative_to(workspace).as_posix(): path.read_bytes() for path in found}


def write_tar(path: Path, members: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as opened:
        for name, text in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            opened.addfile(member, io.BytesIO(text.encode()))


def write_tars(folder: Path, splits: tuple[str, ...] = ("",), labels: tuple[str | None, ...] = ("a", "b", "c")) -> str:
    """Tars of texts. Each brings labels in another order, the last an empty text; None is a sample without a label."""
    for place, split in enumerate(splits):
        for number in range(5):
            chosen = random.Random(10 * place + number)
            members = {}
            for sample in range(30 if number else 3):
                label = chosen.choice(labels)
                members[f"{sample}.txt"] = f"text {sample}" if (number, sample) != (4, 7) else " "
                members |= {f"{sample}.cls": label} if label is not None else {}
            write_tar(folder / split / f"{number}.tar", members)
    return str(folder)


LISTS = ("both", "uneven")
"""Columns of lists of numbers."""


def labels_of_several(chosen: random.Random) -> dict[str, Any]:
    """Labels of many classes, or of numbers, that are mostly a row's own; some rows have none."""
    numbers = [chosen.choice([chosen.random(), 0.0, -0.0, 1e30, 1.0]) for _ in range(3)]
    classes = [name for name in ("b", "c", "a", "d", " a") if chosen.random() < 0.4]
    return {
        "several": chosen.choice([";".join(classes), ";".join(classes), "", None]),
        **{f"is_{name}": str(chosen.choice([0, 1, "1.0"])) for name in "abc"},
        "size": chosen.choice([str(numbers[0]), str(numbers[0]), None]),
        "weight": str(numbers[1]),
        "both": chosen.choice([numbers[:2], numbers[:2], None]),
        "uneven": numbers[: chosen.choice([1, 2, 2, 2, 3])],
    }


def write_tables(
    folder: Path, source: str, splits: tuple[str, ...] = ("",), labels: tuple[str | None, ...] = ("a", "b", "c")
) -> dict[str, Any]:
    """The same samples as rows, of which four follow one another in a group. Returns how a recipe reads them."""
    suffix = {"hub": "parquet"}.get(source, source)
    for place, split in enumerate(splits):
        for number in range(5):
            chosen, name = random.Random(10 * place + number), f"{split or 'part'}-{number:05d}-of-00005.{suffix}"
            rows = [
                {
                    "text": f"text {number} {sample}" if (number, sample) != (4, 7) else " ",
                    "label": chosen.choice(labels),
                    "page": f"{number} {sample // 4}" if sample % 9 else None,
                    "fold": ("train", "test", "spare")[sample % 3],
                    **labels_of_several(random.Random(1000 + 10 * place + number + sample)),
                }
                for sample in range(30 if number else 3)
            ]
            (folder / split).mkdir(parents=True, exist_ok=True)
            if suffix == "parquet":
                of_numbers = pa.list_(pa.float64())
                schema = pa.schema([(key, of_numbers if key in LISTS else pa.string()) for key in rows[0]])
                pq.write_table(pa.Table.from_pylist(rows, schema), folder / split / name, row_group_size=7)
            else:
                WRITERS[source](folder / split / name, rows)
    return {
        "source": source,
        "path": str(folder),
        "columns": {"text": "text"},
        **({"repo": "a/b"} if source == "hub" else {}),
    }


def write_pictures(
    folder: Path, splits: tuple[str, ...] = ("",), labels: tuple[str | None, ...] = ("a", "b", "c")
) -> dict[str, Any]:
    """Folders of classes, some with folders inside, and an empty file."""
    for place, split in enumerate(splits):
        for label in filter(None, labels):
            for sample in range(40):
                picture = folder / split / label / ("", "deep", "deep/er")[sample % 3] / f"{sample}.png"
                picture.parent.mkdir(parents=True, exist_ok=True)
                picture.write_bytes(png(1000 * place + sample) if (label, sample) != ("a", 7) else b"")
    (folder / "readme.md").write_text("none")
    return {"source": "image_folder", "path": str(folder)}


def write_to_store(folder: Path, *kind: tuple[Any, ...]) -> dict[str, Any]:
    """The same behind a URL, which is listed as that of an S3 server is."""
    return write_pictures(folder, *kind) | {"path": f"fsspec+local://{folder}"}


def write_pairs(
    folder: Path,
    place: str,
    splits: tuple[str, ...] = ("",),
    labels: tuple[str | None, ...] = ("a", "b", "c"),
    crowding: float = 3,
) -> dict[str, Any]:
    """Rows with a text and a picture that lies in the tables or in a file of its own, as `place` says. Some pictures have many
    rows, here and there, some have one, one is broken; a few rows have none. crowding: 1 gives each as many.
    """
    names = [f"{folder_of}/{number}.png" for number in range(20) for folder_of in "pq"]
    for number, name in enumerate(names):
        file = folder / "pictures" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(number) if number != 5 else b"none")
    for number, split in enumerate(splits):
        for part in range(4):
            chosen, rows = random.Random(10 * number + part), []
            for sample in range(30 if part else 3):
                name = names[int(chosen.random() ** crowding * len(names))]
                image: Any = f"pictures/{name}" if place == "files" else (folder / "pictures" / name).read_bytes()
                rows.append(
                    {
                        "image": image if sample != 11 else None,
                        "text": f"text {number} {part} {sample}" if (part, sample) != (2, 7) else " ",
                        "label": chosen.choice(labels),
                        "picture": name if sample != 11 else None,
                        "several": ";".join(label for label in "abc" if chosen.random() < 0.4),
                    }
                )
            types = {key: pa.string() for key in rows[0]} | ({} if place == "files" else {"image": pa.binary()})
            table = pa.Table.from_pylist(rows, pa.schema([*types.items()]))
            pq.write_table(table, folder / f"{split or 'part'}-{part:05d}-of-00004.parquet", row_group_size=7)
    return {"source": "parquet", "path": str(folder), "columns": {"image": "image", "text": "text"}}
