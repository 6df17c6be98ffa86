"""Which source reads the files at a path or URL: a folder of pictures, tables, or tars."""

from __future__ import annotations

from aft_ray.datasets.sources.pictures import SUFFIXES as PICTURES
from aft_ray.datasets.sources.tables import SUFFIXES as TABLES
from aft_ray.datasets.sources.walk import find_below
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.places import reached

FORMS = {"parquet": TABLES["parquet"], "csv": TABLES["csv"], "jsonl": TABLES["jsonl"], "webdataset": (".tar",)}
"""Values of `dataset.source` for files, and their suffixes."""
WAYS_OUT = {
    (".zip", ".gz", ".tgz", ".xz", ".bz2", ".7z", ".rar"): "Unpack it",
    (".json",): "Write each object of its list on a line of its own, in a .jsonl",
    (".xlsx", ".xls", ".ods"): "Save its sheet as .csv",
}
"""What to do with other files that hold samples."""


def forms_at(path: str) -> list[str]:
    """The sources that can read `path`, the most telling first: tables name their samples, a folder may only hold them.

    Raises InputError, saying what is looked for, if there is none.
    """
    place = reached(path, path)
    known = "a folder with one folder of pictures per class, or .csv, .tsv, .jsonl, .parquet or .tar files"
    if not place.exists():
        raise InputError(f"{path} does not exist. Name {known}.")
    suffixes = tuple(suffix for kinds in FORMS.values() for suffix in kinds)
    files = [place] if place.is_file() else find_below(place, (*suffixes, *PICTURES)).files
    found = [form for form, kinds in FORMS.items() if any(file.name.lower().endswith(kinds) for file in files)]
    if place.is_dir() and any(file.name.lower().endswith(PICTURES) for file in files):
        found.append("image_folder")
    if not found:
        way_out = next((way for kinds, way in WAYS_OUT.items() if place.name.lower().endswith(kinds)), None)
        if way_out is not None and place.is_file():
            raise InputError(f"{path} is not read as it is. {way_out}, and name that.")
        raise InputError(f"{path} holds no samples that can be read. Name {known}.")
    return found
