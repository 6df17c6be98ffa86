"""Which column of a table is the label, the text, the picture: from its name and from its first rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from aft_ray.datasets.sources.pictures import SUFFIXES as PICTURES
from aft_ray.datasets.sources.splits import USUAL
from aft_ray.recipe.errors import InputError

Row = Mapping[str, Any]

LABELS = (
    "label",
    "labels",
    "class",
    "target",
    "category",
    "sentiment",
    "y",
    "kind",
    "type",
    "group",
    "topic",
    "answer",
)
TEXTS = (
    "text",
    "sentence",
    "review",
    "content",
    "body",
    "description",
    "comment",
    "caption",
    "message",
    "title",
    "name",
    "question",
)
IDS = ("id", "sample_id", "uid", "uuid", "key", "index", "idx")
SPLITS = ("split", "set", "subset", "partition", "fold")
PAIRS = (("premise", "hypothesis"), ("sentence1", "sentence2"), ("question1", "question2"), ("text1", "text2"))
MOST_CLASSES = 1000
REPEATED = 0.5
"""Distinct values of a label's column, at most, as a share of the rows."""
OFTEN, NEARLY_ALL = 10, 0.95
"""Rows of half of a usual label's classes, at least, and of its largest, at most, as a share: the others are ids and amounts."""
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
"""A number that has to be written with a point; the fault at its row says so."""
TEXTS_AMONG = 0.9
"""Texts of a column of texts, at least, as a share: in JSON the title 1984 is a number."""


@dataclass(frozen=True)
class Column:
    """A column and the values of the first rows, without the empty ones."""

    name: str
    values: tuple[Any, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """The column's name in parts: `review_text` is a review and a text."""
        return tuple(re.split(r"[^a-z0-9]+|(?<=[a-z])(?=[A-Z])", self.name.lower()))

    def called(self, names: Sequence[str]) -> int:
        """How well the name is one of `names`: 2 as a whole, 1 in a part, 0 not."""
        return 2 if self.name.lower() in names else 1 if set(self.words) & set(names) else 0

    @property
    def distinct(self) -> int:
        return len({str(value) for value in self.values})

    @property
    def is_text(self) -> bool:
        """Mostly texts with letters: in a CSV numbers and dates are texts too."""
        texts = sum(isinstance(value, str) and any(map(str.isalpha, value)) for value in self.values)
        return texts > TEXTS_AMONG * len(self.values)

    @property
    def has_booleans(self) -> bool:
        """Whether its values are booleans, which without names would be the classes 0 and 1."""
        return bool(self.values) and all(isinstance(value, bool) for value in self.values)

    @property
    def is_caption(self) -> bool:
        """Whether it is the text of a picture beside it, and not one more fact about that."""
        blanks = median(str(value).strip().count(" ") for value in self.values) if self.values else 0
        return self.called(TEXTS) > 0 or (blanks > 0 and self.distinct >= REPEATED * len(self.values))

    @property
    def length(self) -> float:
        return sum(len(str(value)) for value in self.values) / max(1, len(self.values))

    @property
    def is_picture(self) -> bool:
        """Paths of pictures, their bytes, or the hub's pair of both."""
        return bool(self.values) and all(_is_picture(value) for value in self.values[:20])

    def is_split(self) -> bool:
        return self.called(SPLITS) == 2 and all(str(value).casefold() in USUAL for value in self.values)

    def is_id(self) -> bool:
        return self.called(IDS) > 0 and self.distinct == len(self.values) and not self.is_picture

    def can_be_label(self) -> bool:
        """Whether its values repeat, as a label's do."""
        few = 1 < self.distinct <= max(2, min(MOST_CLASSES, int(REPEATED * len(self.values))))
        return few or (self.called(LABELS) == 2 and self.distinct > 1)

    def is_usual_label(self) -> bool:
        """Whether most classes have several rows, and none has nearly all."""
        counts = Counter(map(str, self.values)).values()
        return median(counts) >= OFTEN and max(counts) <= NEARLY_ALL * len(self.values)


def _is_picture(value: Any) -> bool:
    if isinstance(value, dict):
        return "bytes" in value
    return isinstance(value, bytes) or (isinstance(value, str) and Path(value).suffix.lower() in PICTURES)


def guess(
    names: Sequence[str],
    rows: Sequence[Row],
    given: Mapping[str, str],
    is_unique: Callable[[str], bool] = lambda name: True,
) -> dict[str, Any]:
    """The section `dataset.columns`, `task` where it is not classification, and `label_names` of booleans.

    rows: some, mostly the first. given: columns that the user named, by key. is_unique: whether all rows differ in a column.
    Raises InputError, naming the columns, if no label or no content is found.
    """
    columns = [Column(name, tuple(row[name] for row in rows if row.get(name) not in (None, ""))) for name in names]
    if unknown := sorted(set(given.values()) - set(names)):
        raise InputError([f"There is no column {name!r}. Columns: {', '.join(names)}." for name in unknown])
    found: dict[str, Any] = {key: value for key, value in given.items() if key != "label"}
    rest = [column for column in columns if column.name not in given.values()]
    for key, fits in (
        ("split", Column.is_split),
        ("image", lambda column: column.is_picture),
        ("id", lambda column: column.is_id() and is_unique(column.name)),
    ):
        match = next((column for column in rest if fits(column)), None)
        if key not in found and match:
            found[key] = match.name
            rest.remove(match)
    label = given.get("label") or _label(rest, names)
    rest = [column for column in rest if column.name != label]
    if "image" in found:
        rest = [column for column in rest if column.is_caption]
    if "text" not in found and (text := _text(rest)):
        found["text"] = text
    if not {"text", "image"} & set(found):
        raise InputError(f"No column holds texts or pictures. Name one with --text or --image: {', '.join(names)}.")
    of_label = next(column for column in columns if column.name == label)
    task = _task(of_label)
    names_of_booleans = {"label_names": ["False", "True"]} if of_label.has_booleans else {}
    return {"columns": {"label": label, **found}} | ({"task": task} if task else names_of_booleans)


def _label(columns: Sequence[Column], names: Sequence[str]) -> str:
    fitting = [column for column in columns if column.can_be_label()]
    if not fitting:
        raise InputError(
            f"No column looks like a label: none repeats its values. Name it with --label: {', '.join(names)}."
        )
    order = [(column.called(LABELS), column.is_usual_label(), -column.length, -column.distinct) for column in fitting]
    return fitting[order.index(max(order))].name


def _text(columns: Sequence[Column]) -> str | list[str] | None:
    """The text's column, or both of a pair that belongs together."""
    texts = {column.name: column for column in columns if column.is_text}
    for pair in PAIRS:
        if set(pair) <= {name.lower() for name in texts}:
            return [name for name in texts if name.lower() in pair]
    best = max(texts.values(), key=lambda column: (column.called(TEXTS) > 0, column.length), default=None)
    return best.name if best else None


def _task(label: Column) -> str | None:
    """What the label's values are; None for one class per sample."""
    if any(isinstance(value, (list, tuple)) for value in label.values):
        return "multilabel"
    if any(_is_fraction(value) for value in label.values) and label.distinct > 2:
        return "regression"
    return None


def _is_fraction(value: Any) -> bool:
    if isinstance(value, str) and DECIMAL_COMMA.fullmatch(value.strip()):
        return True
    try:
        return not isinstance(value, bool) and float(value) != int(float(value))
    except (TypeError, ValueError, OverflowError):
        return False
