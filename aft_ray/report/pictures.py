"""The report's pictures, as inline SVG: which numbers of a search go into which plot."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aft_ray.report.plots import Bar, Dot, Line, draw_bars, draw_distributions, draw_dots, draw_lines
from aft_ray.report.results import Entry, Group, Row, method_title

CURVES: tuple[tuple[str, str, float], ...] = (
    ("val_accuracy", "validation accuracy, %", 100.0),
    ("task_loss", "task loss", 1.0),
)
"""Key in metrics.jsonl, heading, factor."""

STANDARD = method_title("none")
MAX_TICKS = 8
MAX_LABEL = 18
"""Characters that fit beside a line; longer combinations get the number they have in the picture of gains."""


@dataclass(frozen=True)
class Point:
    """The best trial of the search at a beta with a combination of teachers: validation accuracy in percent."""

    beta: float
    teachers: tuple[str, ...]
    score: float
    stopped: bool


@dataclass(frozen=True)
class Scores:
    """What the search saw, per method; `standard` is the best of standard transfer, NaN without it."""

    points: dict[str, list[Point]]
    standard: float

    @classmethod
    def of(cls, trials: Iterable[Row]) -> Scores:
        best: dict[tuple[str, float, tuple[str, ...]], Point] = {}
        for row in trials:
            if row["stage"] == "search" and row["val_accuracy"] is not None:
                stopped = row["status"] == "stopped"
                point = Point(row["regularizer.beta"], tuple(row["teachers"]), 100 * row["val_accuracy"], stopped)
                place = (row["regularizer.name"], point.beta, point.teachers)
                best[place] = max(best.get(place, point), point, key=lambda point: point.score)
        points: dict[str, list[Point]] = defaultdict(list)
        for (method, _, _), point in best.items():
            points[method].append(point)
        standard = max((point.score for point in points.pop("none", [])), default=math.nan)
        return cls(dict(points), standard)

    def ranked(self, method: str) -> dict[tuple[str, ...], float]:
        """The best score of each combination of teachers, the best combination first."""
        best: dict[tuple[str, ...], float] = {}
        for point in self.points[method]:
            best[point.teachers] = max(best.get(point.teachers, 0.0), point.score)
        return dict(sorted(best.items(), key=lambda item: -item[1]))


def draw_errors(entries: Sequence[Entry]) -> str:
    """Test error per method, relative to standard transfer where there is one; empty for fewer than two methods."""
    tested = [entry for entry in entries if entry.num_seeds]
    if len(tested) < 2:
        return ""
    relative = not math.isnan(tested[0].relative_error)
    bars = []
    for entry in tested:
        value, error = 100 * entry.test_error, 100 * entry.test_accuracy_se
        if relative:
            value, error = entry.relative_error, entry.relative_error_se
        text = f"{value:.2f}" if math.isnan(error) else f"{value:.2f} ± {error:.2f}"
        bars.append(Bar(entry.title, entry.method, value, text, error))
    heading = f"test error / that of {STANDARD}" if relative else "test error, %"
    return draw_bars("errors", heading, bars, reference=1.0 if relative else math.nan, reference_label=STANDARD)


def draw_betas(trials: Iterable[Row], num_validation: float) -> list[str]:
    """Per method, validation accuracy against beta: a line per combination of teachers, numbered as in `draw_gains`.

    All pictures have one scale, that of the trials that were not stopped; a stopped trial below it is drawn at its edge.
    The band around standard transfer is one standard error of an accuracy measured on `num_validation` samples.
    """
    scores = Scores.of(trials)
    standard = scores.standard
    half = math.sqrt(standard * (100 - standard) / num_validation)
    everything = [point for points in scores.points.values() for point in points]
    finished = [point.score for point in everything if not point.stopped]
    y_range = _padded(finished, standard, max((point.score for point in everything), default=standard))
    pictures: list[str] = []
    for method, points in scores.points.items():
        places = _log_places({point.beta for point in points})
        lines = _beta_lines(scores, method, places, floor=y_range[0])
        if not math.isnan(standard):
            x = list(places.values())
            lines.append(Line(STANDARD, "none", x, [standard] * len(x), dashed=True))
        best = max(points, key=lambda point: point.score)
        pictures.append(
            draw_lines(
                f"beta-{len(pictures)}",
                f"{method_title(method)}: validation accuracy, %",
                lines,
                x_label="beta",
                ticks={places[beta]: f"{beta:g}" for beta in list(places)[:: 1 + len(places) // MAX_TICKS]},
                y_range=y_range,
                band=(standard - half, standard + half),
                description=f"Best: {best.score:.1f} % at beta {best.beta:g} with {' + '.join(best.teachers)}.",
            )
        )
    return pictures


def _beta_lines(scores: Scores, method: str, places: dict[float, float], floor: float) -> list[Line]:
    """A line per combination of teachers, the best one first; rings are trials that were stopped."""
    ranked = scores.ranked(method)
    fits = all(len(" + ".join(teachers)) <= MAX_LABEL for teachers in ranked)
    lines = []
    for number, teachers in enumerate(ranked, start=1):
        own = sorted((p for p in scores.points[method] if p.teachers == teachers), key=lambda point: point.beta)
        lines.append(
            Line(
                " + ".join(teachers) if fits else f"{number}",
                method,
                x=[places[point.beta] for point in own],
                y=[max(point.score, floor) for point in own],
                rings=[place for place, point in enumerate(own) if point.stopped],
                markers=True,
            )
        )
    return lines


def _padded(values: Iterable[float], *more: float) -> tuple[float, float]:
    """A range a little wider than all the numbers that are not NaN."""
    numbers = [value for value in (*values, *more) if not math.isnan(value)] or [0.0, 100.0]
    margin = 0.08 * (max(numbers) - min(numbers)) or 1.0
    return min(numbers) - margin, max(numbers) + margin


def _log_places(betas: set[float]) -> dict[float, float]:
    """Where to draw each beta, in increasing order: at its logarithm, and 0 half a decade below the lowest."""
    lowest = min((math.log10(beta) for beta in betas if beta), default=0.0)
    return {beta: math.log10(beta) if beta else lowest - 0.5 for beta in sorted(betas)}


def draw_gains(trials: Iterable[Row]) -> list[str]:
    """Per method, the best validation accuracy of each combination of teachers, less that of standard transfer."""
    scores = Scores.of(trials)
    absolute = math.isnan(scores.standard)
    start, form = (0.0, ".1f") if absolute else (scores.standard, "+.1f")
    what = "best validation accuracy, %" if absolute else "gain in validation accuracy, points"
    gains = {method: {t: score - start for t, score in scores.ranked(method).items()} for method in scores.points}
    reference = math.nan if absolute else 0.0
    x_range = _padded([value for values in gains.values() for value in values.values()], reference)
    pictures: list[str] = []
    for method, values in gains.items():
        bars = [
            Bar(f"{number}  {' + '.join(teachers)}", method, value, format(value, form))
            for number, (teachers, value) in enumerate(values.items(), start=1)
        ]
        name, heading = f"gain-{len(pictures)}", f"{method_title(method)}: {what}"
        pictures.append(draw_bars(name, heading, bars, reference=reference, reference_label=STANDARD, x_range=x_range))
    return pictures


def draw_contributions(trials: Iterable[Row]) -> list[str]:
    """Per method, what each teacher adds: the best score of a combination less that of the same one without the teacher
    (standard transfer for a teacher alone), as mean and standard error over the combinations that the search tried both
    ways. Empty where no method has two combinations that differ in one teacher."""
    scores = Scores.of(trials)
    pictures: list[str] = []
    for method in scores.points:
        best = scores.ranked(method)
        if not math.isnan(scores.standard):
            best[()] = scores.standard
        bars = []
        for teacher in dict.fromkeys(name for teachers in best for name in teachers):
            without = {teachers: tuple(name for name in teachers if name != teacher) for teachers in best}
            added = [best[t] - best[rest] for t, rest in without.items() if teacher in t and rest in best]
            if added:
                error = float(np.std(added, ddof=1)) / math.sqrt(len(added)) if len(added) > 1 else math.nan
                bars.append(Bar(teacher, method, float(np.mean(added)), f"{np.mean(added):+.1f}", error))
        if len(bars) > 1:
            heading = f"{method_title(method)}: points that a teacher adds"
            bars.sort(key=lambda bar: -bar.value)
            name = f"added-{len(pictures)}"
            pictures.append(draw_bars(name, heading, bars, reference=0.0, reference_label="adds nothing"))
    return pictures


def draw_quality(trials: Iterable[Row], probes: Mapping[tuple[str, ...], float]) -> list[str]:
    """Per method, the best validation accuracy of each combination of teachers against that of a linear probe on their
    features, with Pearson's correlation (the paper's Figure 1c). Empty with fewer than three combinations in common.

    probes: accuracies in [0, 1], by combination.
    """
    scores = Scores.of(trials)
    y_range = _padded([score for method in scores.points for score in scores.ranked(method).values()])
    pictures: list[str] = []
    for method in scores.points:
        dots = [
            Dot(str(number), 100 * probes[teachers], score)
            for number, (teachers, score) in enumerate(scores.ranked(method).items(), start=1)
            if teachers in probes
        ]
        if len(dots) < 3:
            continue
        x, y = np.array([dot.x for dot in dots]), np.array([dot.y for dot in dots])
        told = f"r = {np.corrcoef(x, y)[0, 1]:.2f}" if x.std() and y.std() else "all alike"
        pictures.append(
            draw_dots(
                f"quality-{len(pictures)}",
                f"{method_title(method)}: validation accuracy, %; {told}",
                dots,
                method=method,
                x_label="linear probe on the teachers' features, %",
                y_range=y_range,
                description=f"Correlation over {len(dots)} combinations of teachers: {told}.",
            )
        )
    return pictures


def draw_curves(name: str, groups: Sequence[Group]) -> list[str]:
    """Validation accuracy and task loss against the step: each group's mean, and faintly its trainings."""
    pictures = []
    for key, heading, factor in CURVES:
        lines, endings = [], []
        for group in groups:
            steps, values = group.mean_curve(key)
            if not steps:  # a final run on train and validation has no validation accuracy
                continue
            for training in group.trainings if len(group.trainings) > 1 else ():
                known = [line for line in training.history if line.get(key) is not None]
                x, y = [line["step"] for line in known], [factor * line[key] for line in known]
                lines.append(Line("", group.method, x, y, faint=True))
            lines.append(Line(group.title, group.method, steps, [factor * value for value in values]))
            endings.append(f"{group.title} {factor * values[-1]:.3g}")
        if not lines:
            continue
        description = f"At the last step: {'; '.join(endings)}."
        pictures.append(draw_lines(f"{name}-{key}", heading, lines, x_label="step", description=description))
    return pictures


def describe_gates(name: str, group: Group) -> dict[str, Any]:
    """The gates of a group, its trainings together: a table and pictures of their distribution and of their growth."""
    teachers = list(group.trainings[0].gates)
    gates = {teacher: np.concatenate([training.gates[teacher] for training in group.trainings]) for teacher in teachers}
    everything = np.concatenate(list(gates.values()))
    table = [
        {
            "teacher": teacher,
            "dimensions": len(group.trainings[0].gates[teacher]),
            "mean": float(values.mean()),
            "std": float(values.std()),
            "share": float(values.sum() / everything.sum()),
            "share_of_dimensions": len(values) / len(everything),
        }
        for teacher, values in gates.items()
    ]
    text = "; ".join(f"{teacher}: mean {values.mean():.3f}" for teacher, values in gates.items())
    lines = [Line(t, group.method, *group.mean_curve(f"gate_mean/{t}")) for t in teachers]
    heading = f"{group.title}: gates"
    pictures = [
        draw_distributions(f"{name}-values", heading, gates, method=group.method, reference=0.5, description=text),
        draw_lines(f"{name}-means", f"{group.title}: mean gate", lines, x_label="step", description=text),
    ]
    return {"title": group.title, "num_trainings": len(group.trainings), "table": table, "pictures": pictures}
