"""Which source reads the files at a path or URL: a folder of pictures, tables, or tars."""

from __future__ import annotations

from collections import Counter

from aft_ray.datasets.sources.pictures import SUFFIXES as PICTURES
from aft_ray.datasets.sources.tables import SUFFIXES as TABLES
from aft_ray.datasets.sources.walk import Found, find_below, kind_of
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.places import reached

FORMS = {"parquet": TABLES["parquet"], "csv": TABLES["csv"], "jsonl": TABLES["jsonl"], "webdataset": (".tar",)}
"""Values of `dataset.source` for files, and their suffixes."""
WAYS_OUT = {
    (".zip", ".gz", ".tgz", ".xz", ".bz2", ".7z", ".rar"): "Unpack it",
    (".json",): "Write each object of its list on a line of its own, in a .jsonl",
    (".xlsx", ".xls", ".ods"): "Save its sheet as .csv",
    (".txt",): "Write texts into a table, a row for each, with its label",
    (".svg",): "Draw it as .png",
}
"""What to do with files of other kinds that hold samples."""
SHOWN = 3
"""Kinds of other files that a fault names."""


def forms_at(path: str) -> list[str]:
    """The sources that can read `path`, the most telling first: tables name their samples, a folder may only hold them.

    Raises InputError, saying what is looked for, if there is none.
    """
    place = reached(path, path)
    known = "a folder with one folder of pictures per class, or .csv, .tsv, .jsonl, .parquet or .tar files"
    if not place.exists():
        raise InputError(f"{path} does not exist. Name {known}.")
    suffixes = tuple(suffix for kinds in FORMS.values() for suffix in kinds)
    below = (
        Found(place, [], Counter([kind_of(place)])) if place.is_file() else find_below(place, (*suffixes, *PICTURES))
    )
    files = [place] if place.is_file() else below.files
    found = [form for form, kinds in FORMS.items() if any(file.name.lower().endswith(kinds) for file in files)]
    if place.is_dir() and any(file.name.lower().endswith(PICTURES) for file in files):
        found.append("image_folder")
    if not found:
        others = ", ".join(f"{count} {kind}" for kind, count in below.left_out.most_common(SHOWN))
        told = f" but {others}" if others and place.is_dir() else ""
        ways = "".join(f"{way}. " for kinds, way in WAYS_OUT.items() if below.left_out.keys() & {*kinds})
        raise InputError(f"{path} holds no samples that can be read{told}. {ways}Name {known}.")
    return found
