"""Each teacher's own linear head and nearest neighbours on test, to show beside the students: `teacher_heads.parquet`.

They are fitted to the train rows with the labels that training has, as `rank` does it. Like the final runs, and only where
these are wanted, they see the test split when nothing is left to choose.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

import aft_ray
from aft_ray.recipe.config import Recipe, fingerprint
from aft_ray.recipe.errors import InputError
from aft_ray.search.heads import Heads, columns_of, labelled_rows, rows_with
from aft_ray.search.knowledge import train_labels
from aft_ray.search.trials import read_sealed, write_sealed
from aft_ray.store.files import Directory
from aft_ray.store.schema import SPLITS
from aft_ray.store.side_by_side import Store
from aft_ray.training.inputs.stores import open_stores

FILE = "teacher_heads.parquet"
COLUMNS = {"teacher": pa.string(), "head": pa.string(), "val_accuracy": pa.float64(), "test_accuracy": pa.float64()}
MADE_OF = b"aft_ray.made_of"
"""Key in the file's metadata, whose value identifies the features and labels."""
TITLES = {"linear": "teacher's linear head", "neighbours": "teacher's neighbours"}


@dataclass(frozen=True)
class TeacherHead:
    """head: `linear` or `neighbours`, on the features of one teacher; no student is trained. An accuracy is NaN where no sample
    of the split has a label."""

    teacher: str
    head: str
    val_accuracy: float
    test_accuracy: float

    @property
    def title(self) -> str:
        return TITLES.get(self.head, self.head)


def stores_of_heads(recipe: Recipe) -> dict[str, Store] | None:
    """Every split with the features of all teachers; None where the recipe does not ask for their heads.

    Raises InputError, one line per fault, if features are missing or were made with other settings.
    """
    return open_stores(recipe, recipe.teacher_names(), SPLITS) if recipe.tests_heads else None


def heads_on_test(recipe: Recipe, stores: dict[str, Store]) -> list[TeacherHead]:
    """Both heads of every teacher, the best on test first. Keeps the features of validation and test in memory."""
    train, names = stores["train"], recipe.teacher_names()
    validation, val_labels = labelled_rows(stores["validation"])
    test, test_labels = labelled_rows(stores["test"])
    singles = [(name,) for name in names]
    held_out = np.concatenate([validation, test])
    heads = Heads(columns_of(names, train.teacher_dims), singles, len(train.manifest["classes"]), held_out)
    for features, labels in rows_with(train_labels(train, recipe.train), train):
        heads.update(features, labels)

    found = []
    for name in names:
        answers = heads.answers((name,))
        for head, classes in (("linear", answers.linear), ("neighbours", answers.neighbours)):
            right = classes == np.concatenate([val_labels, test_labels])
            parts = np.split(right, [len(val_labels)])
            scores = (float(part.mean()) if len(part) else math.nan for part in parts)
            found.append(TeacherHead(name, head, *scores))
    return sorted(found, key=lambda head: -head.test_accuracy)


def update_heads(search: Directory, recipe: Recipe, stores: dict[str, Store]) -> None:
    """Writes the heads of every teacher, unless those of the same features and labels are there."""
    parts = {
        "splits": {split: store.checksums() for split, store in stores.items()},
        "teachers": recipe.teacher_names(),
        "labels": [recipe.train.labels_per_class, recipe.train.seed],
        "version": aft_ray.__version__,
    }
    made_of = fingerprint(parts)
    if _made_of(search) != made_of:
        write_heads(search, heads_on_test(recipe, stores), made_of)


def _made_of(search: Directory) -> str | None:
    """The identity of what the heads in the search were made of; None where they cannot be read."""
    try:
        table = read_sealed(search, FILE, COLUMNS, COLUMNS)
    except InputError:
        return None
    return (table.schema.metadata or {}).get(MADE_OF, b"").decode() if table is not None else None


def write_heads(search: Directory, heads: list[TeacherHead], made_of: str = "") -> None:
    """made_of: see MADE_OF; heads without it are made anew."""
    schema = pa.schema(COLUMNS, metadata={MADE_OF: made_of})
    write_sealed(search, FILE, pa.Table.from_pylist([vars(head) for head in heads], schema=schema))


def read_heads(search: Directory) -> list[TeacherHead]:
    """Empty for a search without them. Raises InputError if the file is damaged or of another search."""
    table = read_sealed(search, FILE, COLUMNS, COLUMNS)
    return [TeacherHead(**{name: row[name] for name in COLUMNS}) for row in table.to_pylist()] if table else []
