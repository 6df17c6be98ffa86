"""The two pictures of docs/results.md, in the colours that the report gives to methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aft_ray.report.plots import COLOURS
from aft_ray.report.results import method_title
from aft_ray.study.averages import mean_of, relative_errors
from aft_ray.study.found import Found


def draw_methods(path: Path, found: Sequence[Found], methods: Sequence[str]) -> None:
    """A row per method: the mean relative error with its standard error, and one small dot for each setting."""
    figure = Figure(figsize=(8, 0.5 * len(methods) + 1.2), layout="constrained", facecolor="white")
    axes = figure.subplots()
    others = [method for method in methods if method != "none"]
    for place, method in enumerate(others):
        values, mean = list(relative_errors(found, method).values()), mean_of(method, found)
        colour, low = COLOURS.get(method, COLOURS["none"])[0], np.full(len(values), place + 0.22)
        axes.plot(values, low, "|", markersize=8, color=colour, alpha=0.6)
        axes.errorbar(
            mean.relative_error, place, xerr=mean.over_seeds, fmt="o", color=colour, markersize=8, linewidth=2
        )
    axes.axvline(1, color=COLOURS["none"][0], linestyle="--")
    axes.set_yticks(range(len(others)), [method_title(method) for method in others])
    axes.invert_yaxis()
    axes.set_xlabel("test error relative to standard transfer: mean over the settings that have it, each a stroke")
    _finish(figure, axes, path)


def draw_teachers(
    path: Path,
    names: Sequence[str],
    probes: Sequence[float],
    accuracies: Mapping[str, Sequence[float]],
    standard: float,
) -> None:
    """Each teacher's own accuracy against that of its student, by method; `standard` is the student's without any."""
    figure = Figure(figsize=(8, 4.5), layout="constrained", facecolor="white")
    axes = figure.subplots()
    for method, values in accuracies.items():
        axes.plot(probes, values, "o-", color=COLOURS[method][0], label=method_title(method))
    axes.axhline(standard, color=COLOURS["none"][0], linestyle="--", label=method_title("none"))
    axes.set_xlabel(
        "linear head on the teacher with all labels, validation accuracy, %\nfrom left to right: " + ", ".join(names)
    )
    axes.set_ylabel("student with 10 labels per class, test accuracy, %")
    axes.legend(frameon=False)
    _finish(figure, axes, path)


def _finish(figure: Figure, axes: Axes, path: Path) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=130, metadata={"Software": None})
