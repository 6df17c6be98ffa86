"""Results of the verbs: small objects that show themselves as a table, in a script and in a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from aft_ray.recipe.config import Recipe

SHOWN, DIGITS = 20, "{:.4f}".format
"""Rows of a table in a `repr`, and the form of its fractions."""


@dataclass(frozen=True, repr=False)
class Result:
    """title: its kind and place, in a line. rows: of its table."""

    title: str
    rows: Sequence[Mapping[str, Any]]

    def table(self) -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame(list(self.rows))

    def _below(self) -> Sequence[str]:
        """Lines below the table."""
        return ()

    def __repr__(self) -> str:
        shown = self.table().to_string(max_rows=SHOWN, index=False, float_format=DIGITS)
        return "\n".join([self.title, shown, *self._below()])

    def _repr_html_(self) -> str:
        from html import escape

        shown = self.table().to_html(max_rows=SHOWN, index=False, border=0, na_rep="", float_format=DIGITS)
        lines = "".join(f"<p>{escape(line)}</p>" for line in self._below())
        return f"<p><b>{escape(self.title)}</b></p>{shown}{lines}"


@dataclass(frozen=True, repr=False)
class Run(Result):
    """A training. rows: its evaluations. directory: its files. score: on test, the accuracy, or the loss of a
    regression; None if no sample of the test split has a label."""

    directory: str
    score: float | None

    def student(self) -> nn.Module:
        """The trained student, in evaluation mode: uint8 images or texts' ids -> logits."""
        from aft_ray.export.student import load_student

        return load_student(self.directory)


@dataclass(frozen=True, repr=False)
class Search(Result):
    """A search. rows: each method at its best setting. remarks: conclusions, in sentences. best: the winner's recipe."""

    remarks: Sequence[str]
    best: Recipe
    _trials: Sequence[Mapping[str, Any]] = field(default=())

    def trials(self) -> pd.DataFrame:
        """Every trial and final run."""
        import pandas as pd

        return pd.DataFrame(list(self._trials))

    def _below(self) -> Sequence[str]:
        return self.remarks


@dataclass(frozen=True, repr=False)
class Study(Result):
    """A study. rows: each method's mean over the settings. remarks: conclusions, in sentences. page: its path or URL."""

    remarks: Sequence[str]
    page: str
    _settings: Sequence[Mapping[str, Any]] = field(default=())

    def settings(self) -> pd.DataFrame:
        """The results of every setting, a line for each method."""
        import pandas as pd

        return pd.DataFrame(list(self._settings))

    def __repr__(self) -> str:
        return "\n".join([super().__repr__(), *self.remarks])


@dataclass(frozen=True, repr=False)
class Scores(Result):
    """A student on one split. rows: class by class. scores: of the whole split, by name."""

    scores: Mapping[str, float]

    def _below(self) -> Sequence[str]:
        return (", ".join(f"{name} {value:.4f}" for name, value in self.scores.items()),)


@dataclass(frozen=True, repr=False)
class Exported(Result):
    """A student in its own library's format. rows: its files. directory: where they lie."""

    directory: str
