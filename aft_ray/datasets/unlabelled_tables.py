"""Tables of samples without labels: read by the readers of `prepare`, each row put together as the run's recipe says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa

from aft_ray.datasets.sources.contents import RowContent
from aft_ray.datasets.sources.pictures import picture_path
from aft_ray.datasets.sources.table_rows import sample_id
from aft_ray.datasets.sources.tables import SUFFIXES, open_table, read_rows
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.places import AnyPath

IDS = ("id", "sample_id")
"""Columns that can name the rows, after the one in the recipe; rows are numbered where a table has none of them."""
ALL_SUFFIXES = tuple(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)


@dataclass(frozen=True)
class RowForm:
    """How a row becomes a sample. id: the column that names it."""

    content: RowContent
    id: str | None = None

    def reading(self, columns: Sequence[str]) -> RowForm:
        """The same for a student that reads only some of the contents `image` and `text`."""
        content = self.content
        texts, image = content.texts if "text" in columns else (), content.image if "image" in columns else None
        return replace(self, content=replace(content, texts=texts, image=image))

    def text(self, row: dict[str, Any]) -> str | None:
        """The text of a row, None for a form without texts. Raises ValueError if the row has none."""
        if not self.content.texts:
            return None
        text = self.content.text(row)
        text.encode()  # half a surrogate pair, which JSON can spell, is no text
        return text

    def image(self, row: dict[str, Any], folder: AnyPath) -> bytes | str | None:
        """The picture of a row: its encoded bytes, or its path below `folder`. Raises ValueError if the row has none."""
        if self.content.image is None:
            return None
        value = row[self.content.image]
        if isinstance(value, dict):  # the hub's pair
            value = value.get("bytes") or value.get("path")
        if isinstance(value, str) and value:
            picture_path(folder, value)
        elif not isinstance(value, bytes) or not value:
            raise ValueError(
                "it has no picture" if value in (None, b"", "") else f"a {type(value).__name__} is no picture"
            )
        return value


PLAIN = RowForm(RowContent(("text",), None, "image"))
"""Columns `image` and `text`, as they are."""


def table_kind(name: str) -> str | None:
    """The format of a table by its file's name."""
    return next((kind for kind, suffixes in SUFFIXES.items() if name.lower().endswith(suffixes)), None)


def list_table(file: AnyPath, kind: str, form: RowForm, folder: AnyPath) -> pa.Table:
    """Columns `id`, `image`, `text` and `fault`: why a row has no content, null for all others.

    Raises InputError if the file is no such table or lacks a column.
    """
    table = open_table(file, kind)
    content = form.content
    if missing := [name for name in content.columns if name not in table.columns]:
        raise InputError(
            f"{file} has no column {' and '.join(map(repr, missing))}, which the run reads. Its columns:"
            f" {', '.join(table.columns) or 'none'}."
        )
    named = next((name for name in (form.id, *IDS) if name in table.columns), None)
    wanted = list(dict.fromkeys([*([named] if named else []), *content.columns]))
    found: dict[str, list[Any]] = {"id": [], "image": [], "text": [], "fault": []}
    for number, row in enumerate(read_rows(table, wanted)):
        found["id"].append(
            sample_id(row[named], partial("{}, row {}".format, file, number + 1)) if named else str(number)
        )
        image = text = fault = None
        try:
            image, text = form.image(row, folder), form.text(row)
        except ValueError as error:
            fault = str(error)
        for key, value in (("image", image), ("text", text), ("fault", fault)):
            found[key].append(value)
    return pa.table({name: _column(name, values, file) for name, values in found.items()})


def _column(name: str, values: list[Any], file: AnyPath) -> pa.Array:
    kinds = {type(value) for value in values} - {type(None)}
    if len(kinds) > 1:
        raise InputError(f"{file}: the column of pictures holds both pictures and paths. Give one kind in each table.")
    try:
        return pa.array(values, pa.binary() if kinds == {bytes} else pa.string())
    except UnicodeEncodeError as error:
        raise InputError(f"{file}: {error.object[:60]!r} is no text: it holds half a surrogate pair.") from error
