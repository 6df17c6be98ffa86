"""The section `dataset.columns` of a recipe: which columns of a table are what."""

from __future__ import annotations

from aft_ray.recipe.model import Model


class ColumnsConfig(Model):
    """Names of a table's columns, or of a JSON object's keys."""

    label: str | tuple[str, ...] = "label"
    """The label's column. A list names 0/1 columns for task multilabel, numbers for task regression; an empty list, no label."""
    text: str | tuple[str, ...] | None = None
    """The text's column, or several that `prompt` joins; without a prompt each becomes a line."""
    image: str | None = None
    """The picture's column: encoded bytes, a file's path relative to the table's folder, or the hub's pair of both."""
    image_root: str | None = None
    """Folder or URL that the pictures' paths start from and must stay inside; null is the table's own folder."""
    id: str | None = None
    """Column of the samples' unique names; null numbers the rows of each file from 1."""
    split: str | None = None
    """Column that names each row's split; null takes the split from the names of files and folders."""
    group: str | None = None
    """Column whose equal values (one patient, one document) stay in the same split; a blank cell is no group. The pictures' own
    column keeps equal pictures together; those inside a table are then read twice. Pairs of a group lie side by side: a picture
    that they share is stored, decoded and embedded once."""

    @property
    def labels(self) -> tuple[str, ...]:
        return (self.label,) if isinstance(self.label, str) else self.label

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.text,) if isinstance(self.text, str) else self.text or ()
