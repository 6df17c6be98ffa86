"""What students learn to predict."""

from __future__ import annotations

from typing import Literal, TypeAlias

Task: TypeAlias = Literal["classification", "multilabel", "regression"]
"""A label is one class, any number of classes, or numbers."""
