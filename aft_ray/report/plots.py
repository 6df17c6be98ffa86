"""Plots as inline SVG that follows the page's ink and colours, narrow enough for a phone.

A colour always means a method, everywhere. Lines and rows carry their names, so that no picture needs a legend or
relies on colour. The output depends on the data alone: no dates, no random ids.
"""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aft_ray.regularizers import REGULARIZERS

WIDTH, LINES_HEIGHT, ROW_HEIGHT = 360, 240, 38
FONT_SIZE, LABEL_WIDTH, MARGIN = 11, 112, 34
NUM_BINS = 40

INK = "#010203"
"""Stands for the page's text colour until the SVG is written."""

COLOURS = {name: kind.colours for name, kind in REGULARIZERS.items()}
"""Method to its colour on a light and on a dark page."""


@dataclass(frozen=True)
class Line:
    """Points (x, y) of a method, joined by a line. rings: indices of points that are drawn as rings and not joined."""

    label: str
    method: str
    x: Sequence[float]
    y: Sequence[float]
    rings: Sequence[int] = ()
    markers: bool = False
    dashed: bool = False
    faint: bool = False


@dataclass(frozen=True)
class Bar:
    """A dot at `value` with a bar of `error` to both sides (NaN for none). text: is written beside it."""

    label: str
    method: str
    value: float
    text: str
    error: float = math.nan


@dataclass(frozen=True)
class Dot:
    """A point with a short name beside it."""

    label: str
    x: float
    y: float


def draw_lines(
    name: str,
    heading: str,
    lines: Sequence[Line],
    *,
    x_label: str,
    description: str,
    ticks: Mapping[float, str] | None = None,
    band: tuple[float, float] = (math.nan, math.nan),
    y_range: tuple[float, float] | None = None,
) -> str:
    """Lines over a common x axis, each named at its right end. `band` shades a range of y; NaN for none.

    name: unique on the page; it keeps the ids of several pictures apart.
    """
    figure, axes = _canvas(LINES_HEIGHT, heading, left=MARGIN + 4, right=LABEL_WIDTH)
    lines = [line for line in lines if line.x]
    for line in lines:
        colour, alpha = _colour(line.method), 0.3 if line.faint else 1.0
        style, width = "--" if line.dashed else "-", 1.0 if line.faint else 1.8
        whole = [place for place in range(len(line.x)) if place not in line.rings]
        joined = [line.x[place] for place in whole], [line.y[place] for place in whole]
        marker = "o" if line.markers else ""
        axes.plot(*joined, style, marker=marker, markersize=5, color=colour, alpha=alpha, linewidth=width)
        apart = [line.x[place] for place in line.rings], [line.y[place] for place in line.rings]
        axes.plot(*apart, "o", markersize=5, color=colour, fillstyle="none", clip_on=False)
    if not math.isnan(band[0]):
        axes.axhspan(*band, color=_colour("none"), alpha=0.18, linewidth=0)
    if ticks:
        axes.set_xticks(list(ticks), list(ticks.values()))
    axes.margins(x=0.03, y=0.08)
    axes.set_ylim(y_range)
    axes.set_xlabel(x_label, fontsize=FONT_SIZE, color=INK)
    _name_ends(axes, [line for line in lines if line.label])
    return _svg(figure, name, heading, description)


def draw_bars(
    name: str,
    heading: str,
    bars: Sequence[Bar],
    *,
    reference: float,
    reference_label: str,
    x_range: tuple[float, float] | None = None,
) -> str:
    """One row per bar under its name; `reference` is marked in every row, NaN for none."""
    figure, axes = _canvas(ROW_HEIGHT * len(bars) + 2 * MARGIN, heading, left=8, right=14)
    _rows_only(axes, len(bars) - 0.2, -0.6)
    for number, bar in enumerate(bars):
        at, error = number + 0.12, None if math.isnan(bar.error) else bar.error
        axes.axhline(at, color=INK, alpha=0.12, linewidth=1, zorder=0)
        axes.errorbar(bar.value, at, xerr=error, fmt="o", color=_colour(bar.method), markersize=7, linewidth=2)
        axes.text(0, number - 0.24, _short(bar.label, 36), transform=axes.get_yaxis_transform(), **_text())
        axes.text(1, number - 0.24, bar.text, transform=axes.get_yaxis_transform(), **_text(ha="right"))
    if not math.isnan(reference):
        middle = np.arange(len(bars)) + 0.12
        axes.vlines(
            np.full(len(bars), reference), middle - 0.16, middle + 0.16, color=INK, alpha=0.6, linewidth=1.2, zorder=1
        )
        axes.set_xlabel(f"upright stroke: {reference_label}", fontsize=FONT_SIZE, color=INK)
    axes.margins(x=0.06)
    axes.set_xlim(x_range)
    return _svg(figure, name, heading, "; ".join(f"{bar.label} {bar.text}" for bar in bars))


def draw_dots(
    name: str,
    heading: str,
    dots: Sequence[Dot],
    *,
    method: str,
    x_label: str,
    y_range: tuple[float, float],
    description: str,
) -> str:
    """Points that carry their names."""
    figure, axes = _canvas(LINES_HEIGHT, heading, left=MARGIN + 4, right=24)
    axes.plot([dot.x for dot in dots], [dot.y for dot in dots], "o", markersize=6, color=_colour(method))
    for dot in dots:
        axes.annotate(dot.label, (dot.x, dot.y), xytext=(6, 5), textcoords="offset points", **_text())
    axes.margins(x=0.08)
    axes.set_ylim(y_range)
    axes.set_xlabel(x_label, fontsize=FONT_SIZE, color=INK)
    return _svg(figure, name, heading, description)


def draw_distributions(
    name: str, heading: str, values: Mapping[str, np.ndarray], *, method: str, reference: float, description: str
) -> str:
    """A histogram per name over a common axis, each scaled to the same height; `reference` is a vertical line."""
    figure, axes = _canvas(1.3 * ROW_HEIGHT * len(values) + 2 * MARGIN, heading, left=8, right=14)
    _rows_only(axes, len(values) - 0.05, -0.3)
    everything = np.concatenate([*values.values(), [reference]])
    edges = np.linspace(everything.min() - 0.01, everything.max() + 0.01, NUM_BINS + 1)
    axes.set_xlim(edges[0], edges[-1])
    for number, (label, sample) in enumerate(values.items()):
        counts = np.histogram(sample, edges)[0]
        floor = number + 0.85
        axes.stairs(
            floor - 0.6 * counts / counts.max(), edges, baseline=floor, fill=True, color=_colour(method), alpha=0.75
        )
        axes.axhline(floor, color=INK, alpha=0.3, linewidth=1)
        axes.text(0, number, _short(label, 40), transform=axes.get_yaxis_transform(), **_text())
    axes.axvline(reference, color=INK, alpha=0.5, linewidth=1, linestyle="--")
    return _svg(figure, name, heading, description)


def _canvas(height: float, heading: str, *, left: float, right: float) -> tuple[Figure, Axes]:
    """A figure whose units are CSS pixels, with one bare pair of axes."""
    figure = Figure(figsize=(WIDTH / 72, height / 72))
    box = (left / WIDTH, (MARGIN + 6) / height, 1 - (left + right) / WIDTH, 1 - (2 * MARGIN) / height)
    axes = figure.add_axes(box)
    figure.text(4 / WIDTH, 1 - 16 / height, heading, **_text(size=FONT_SIZE + 1), fontweight="bold")
    axes.patch.set_visible(False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set(color=INK, alpha=0.5)
    axes.tick_params(labelsize=FONT_SIZE, color=INK, labelcolor=INK, length=3)
    axes.ticklabel_format(useOffset=False)
    axes.locator_params(nbins=5)
    return figure, axes


def _rows_only(axes: Axes, bottom: float, top: float) -> None:
    """No y axis; rows are counted downwards."""
    axes.spines["left"].set_visible(False)
    axes.set_yticks([])
    axes.set_ylim(bottom, top)


def _name_ends(axes: Axes, lines: Sequence[Line]) -> None:
    """Each line's name beside its right end, moved up or down so that no two names overlap."""
    low, high = axes.get_ylim()
    gap = (FONT_SIZE + 2) / (axes.bbox.height * 72 / axes.figure.dpi)
    ends = sorted(((line.y[-1] - low) / (high - low), number) for number, line in enumerate(lines))
    places = spread([height for height, _ in ends], gap)
    right = axes.get_xlim()[1]
    for place, (height, number) in zip(places, ends, strict=True):
        line = lines[number]
        axes.annotate(
            _short(line.label, 18),
            xy=((line.x[-1] - axes.get_xlim()[0]) / (right - axes.get_xlim()[0]), height),
            xytext=(1.05, place),
            textcoords="axes fraction",
            xycoords="axes fraction",
            annotation_clip=False,
            **_text(),
            arrowprops={"arrowstyle": "-", "linewidth": 0.6, "color": _colour(line.method), "shrinkA": 2, "shrinkB": 4},
        )


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Moves sorted heights apart in one sweep until neighbours are `gap` apart; the middle of each group stays."""
    blocks: list[list[float]] = []  # [sum of the wanted heights, how many]
    for height in heights:
        blocks.append([height, 1])
        while len(blocks) > 1 and _bottom(blocks[-1], gap) < _bottom(blocks[-2], gap) + blocks[-2][1] * gap:
            total, count = blocks.pop()
            blocks[-1] = [blocks[-1][0] + total, blocks[-1][1] + count]
    return [_bottom(block, gap) + number * gap for block in blocks for number in range(int(block[1]))]


def _bottom(block: Sequence[float], gap: float) -> float:
    total, count = block
    return total / count - (count - 1) * gap / 2


def _colour(method: str) -> str:
    return COLOURS[method][0] if method in COLOURS else INK


def _short(label: str, length: int) -> str:
    """Shortens a label to `length` by leaving out its middle: models differ at both ends of their names."""
    if len(label) <= length:
        return label
    head = length // 2
    return f"{label[:head]}…{label[head + 1 - length :]}"


def _text(ha: str = "left", size: float = FONT_SIZE) -> dict[str, Any]:
    return {"fontsize": size, "color": INK, "ha": ha, "va": "center", "parse_math": False}


def _svg(figure: Figure, name: str, title: str, description: str) -> str:
    """The figure as an HTML element with page colours, unique ids, and a title and description for screen readers."""
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(stream, format="svg", transparent=True, metadata=metadata)
    svg = stream.getvalue()
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body)  # matplotlib counts these from 1 in every picture
    body = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", body)
    body = re.sub(r' transform="rotate\(-?0 [^)]*\)"', "", body).replace(INK, "currentColor")
    for method, (light, _) in COLOURS.items():
        body = body.replace(light, f"var(--{method})")
    width, height = (round(inches * 72) for inches in figure.get_size_inches())
    return (
        f'<svg role="img" aria-labelledby="{name}-title {name}-text" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}"><title id="{name}-title">{html.escape(title)}</title>'
        f'<desc id="{name}-text">{html.escape(description)}</desc>{body.strip()}\n'
    )
