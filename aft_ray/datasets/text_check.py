"""Part of the data check: texts that the student reads only in part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from aft_ray.recipe.errors import InputError
from aft_ray.recipe.model import is_own_class
from aft_ray.recipe.sections import StudentConfig
from aft_ray.store.shards import ShardDirectory

LOOKED_AT = 500
"""Texts of the train split."""
CUT_OFTEN = 0.01
"""Share of cut texts from which a user is told."""


def text_lines(student: StudentConfig, train: ShardDirectory, manifest: Mapping[str, Any]) -> Iterator[str]:
    """A line if the student cuts many texts; none if it cannot be looked at here, which its own check tells."""
    if "text" not in manifest["modality"] or is_own_class(student.model):
        return
    from aft_ray.models.students import student_transforms
    from aft_ray.models.text import PADDING

    try:
        transforms: list[Any] = [each for each in student_transforms(student) if each.column == "text"]
    except InputError:
        return
    texts = train.read_shard(0, ["text"]).column("text").to_pylist()[:LOOKED_AT]
    for transform in transforms:
        length = transform.length
        longer = replace(transform, length=length + 1)
        cut = sum(np.count_nonzero(longer(text) != PADDING) > length for text in texts)
        if cut > CUT_OFTEN * len(texts):
            unit = "words" if student.model.startswith("tiny:") and student.weights is None else "tokens"
            yield (
                f"Texts longer than the {length} {unit} that {student.model} reads: {cut:,} of {len(texts):,} that were looked"
                " at; it does not see the rest. student.max_length sets how much it reads."
            )
