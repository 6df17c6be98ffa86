"""The picture of `aft-ray rank`: accuracy of every combination of teachers, and the teachers' similarity."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

SHOWN = 20
LINEAR, NEIGHBOURS, INK = "#0072b2", "#d55e00", "#222222"


def rank_picture(rows: Sequence[Mapping[str, Any]], names: Sequence[str], cka: np.ndarray) -> bytes:
    """A PNG: on the left the `SHOWN` best combinations, on the right linear CKA of the teachers."""
    from matplotlib.figure import Figure  # a search, which ranks teachers too, draws nothing

    shown = rows[:SHOWN]
    figure = Figure(figsize=(11, max(3.2, 0.36 * len(shown) + 1.2)), layout="constrained", facecolor="white")
    bars, matrix = figure.subplots(1, 2, width_ratios=[3, 2])
    places = np.arange(len(shown))[::-1]
    for key, colour, label in (
        ("val_accuracy", LINEAR, "linear head"),
        ("knn_accuracy", NEIGHBOURS, "nearest neighbours"),
    ):
        bars.plot([100 * row[key] for row in shown], places, "o", color=colour, label=label)
    bars.set_yticks(places, [f"{' + '.join(row['teachers'])}  ({row['log_me']:.3f})" for row in shown])
    bars.set_xlabel("validation accuracy, %")
    bars.set_title("Combinations of teachers, by a linear head (LogME in brackets)", loc="left", fontsize=11)
    bars.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower left", ncols=2, fontsize=9, frameon=False)
    bars.spines[["top", "right"]].set_visible(False)
    matrix.imshow(cka, vmin=0, vmax=1, cmap="Blues")
    matrix.set_xticks(range(len(names)), names, rotation=30, ha="right")
    matrix.set_yticks(range(len(names)), names)
    for (row, column), value in np.ndenumerate(cka):
        matrix.text(column, row, f"{value:.2f}", ha="center", va="center", color="white" if value > 0.6 else INK)
    matrix.set_title("Similarity (linear CKA): 1 for equal features", loc="left", fontsize=11)
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=130, metadata={"Software": None})
    return sink.getvalue()
