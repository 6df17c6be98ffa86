"""The report's pictures, as inline SVG: which numbers of a search go into which plot."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aft_ray.report.plots import Bar, Dot, Line, draw_bars, draw_distributions, draw_dots, draw_lines
from aft_ray.report.results import Entry, Group, TrialRow, method_title
from aft_ray.training.best import ACCURACY, Measure, measure_of

STANDARD = method_title("none")
FEWEST_CORRELATED = 4
"""Three points have a high correlation by chance: |r| > 0.7 half of the time."""
MAX_TICKS = 8
MAX_LABEL = 18
"""Characters that fit beside a line; longer combinations get the number they have in the picture of gains."""


@dataclass(frozen=True)
class Point:
    """The best trial of the search at a beta with a combination of teachers. value: as in its picture, accuracy in percent."""

    beta: float
    teachers: tuple[str, ...]
    value: float
    stopped: bool


@dataclass(frozen=True)
class Searched:
    """The search's values on validation, per method; `standard` is the best of standard transfer, NaN without it."""

    measure: Measure

    points: dict[str, list[Point]]
    standard: float

    @classmethod
    def of(cls, trials: Iterable[TrialRow]) -> Searched:
        rows = [row for row in trials if row["stage"] == "search"]
        measure = measure_of(rows)
        best: dict[tuple[str, float, tuple[str, ...]], Point] = {}
        for row in rows:
            value = measure.of(row, "val")
            if value is not None and math.isfinite(value):
                stopped = row["status"] == "stopped"
                point = Point(row["regularizer.beta"], tuple(row["teachers"]), measure.factor * value, stopped)
                place = (row["regularizer.name"], point.beta, point.teachers)
                best[place] = max(best.get(place, point), point, key=lambda point: measure.sign * point.value)
        points: dict[str, list[Point]] = defaultdict(list)
        for (method, _, _), point in best.items():
            points[method].append(point)
        standard = [point.value for point in points.pop("none", [])]
        return cls(measure, dict(points), max(standard, key=lambda value: measure.sign * value, default=math.nan))

    def best(self, points: Iterable[Point]) -> Point:
        """The best of some points, the first of equals."""
        return max(points, key=lambda point: self.measure.sign * point.value)

    def ranked(self, method: str) -> dict[tuple[str, ...], float]:
        """The best value of each combination of teachers, the best combination first."""
        groups: dict[tuple[str, ...], list[Point]] = defaultdict(list)
        for point in self.points[method]:
            groups[point.teachers].append(point)
        best = {teachers: self.best(points).value for teachers, points in groups.items()}
        return dict(sorted(best.items(), key=lambda item: -self.measure.sign * item[1]))


def draw_errors(entries: Sequence[Entry]) -> str:
    """Test error per method, relative to standard transfer where there is one; empty for fewer than two methods."""
    tested = [entry for entry in entries if entry.finals]
    if len(tested) < 2:
        return ""
    measure = tested[0].measure
    relative = not math.isnan(tested[0].relative_error)
    bars = []
    for entry in tested:
        value, error = measure.factor * entry.test_error, measure.factor * entry.test_se
        if relative:
            value, error = entry.relative_error, entry.relative_error_se
        digits = ".2f" if relative else measure.digits
        text = f"{value:{digits}}" if math.isnan(error) else f"{value:{digits}} ± {error:{digits}}"
        bars.append(Bar(entry.title, entry.method, value, text, error))
    name = f"test {measure.error}"
    heading = f"{name} relative to {STANDARD}" if relative else measure.head(name, ",")
    return draw_bars("errors", heading, bars, reference=1.0 if relative else math.nan, reference_label=STANDARD)


def draw_betas(trials: Iterable[TrialRow], num_validation: float) -> list[str]:
    """Per method, validation accuracy (or loss) against beta: a line per combination of teachers, numbered as in `draw_gains`.

    All pictures have the scale of the trials that were not stopped; a stopped trial outside it is drawn at its edge. The band
    around standard transfer is one standard error of an accuracy measured on `num_validation` labelled samples.
    """
    searched = Searched.of(trials)
    measure, standard = searched.measure, searched.standard
    is_known = measure is ACCURACY and num_validation > 0
    half = math.sqrt(standard * (100 - standard) / num_validation) if is_known else math.nan
    everything = [point for points in searched.points.values() for point in points]
    finished = [point.value for point in everything if not point.stopped]
    y_range = _padded(finished, standard, searched.best(everything).value if everything else standard)
    pictures: list[str] = []
    for method, points in searched.points.items():
        places = _log_places({point.beta for point in points})
        lines = _beta_lines(searched, method, places, y_range)
        if not math.isnan(standard):
            x = list(places.values())
            lines.append(Line(STANDARD, "none", x, [standard] * len(x), dashed=True))
        best = searched.best(points)
        amount = measure.amount(best.value / measure.factor)
        pictures.append(
            draw_lines(
                f"beta-{len(pictures)}",
                f"{method_title(method)}: {measure.head(f'validation {measure.name}', ',')}",
                lines,
                x_label="beta",
                ticks={places[beta]: f"{beta:g}" for beta in list(places)[:: 1 + len(places) // MAX_TICKS]},
                y_range=y_range,
                band=(standard - half, standard + half),
                description=f"Best: {amount} at beta {best.beta:g} with {' + '.join(best.teachers)}.",
            )
        )
    return pictures


def _beta_lines(
    searched: Searched, method: str, places: dict[float, float], y_range: tuple[float, float]
) -> list[Line]:
    """A line per combination of teachers, the best one first; rings are trials that were stopped."""
    ranked = searched.ranked(method)
    fits = all(len(" + ".join(teachers)) <= MAX_LABEL for teachers in ranked)
    lines = []
    for number, teachers in enumerate(ranked, start=1):
        own = sorted((p for p in searched.points[method] if p.teachers == teachers), key=lambda point: point.beta)
        lines.append(
            Line(
                " + ".join(teachers) if fits else f"{number}",
                method,
                x=[places[point.beta] for point in own],
                y=[min(max(point.value, y_range[0]), y_range[1]) for point in own],
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


def draw_gains(trials: Iterable[TrialRow]) -> list[str]:
    """Per method, how much better the best trial of each combination of teachers is on validation than standard transfer;
    without standard transfer, its validation accuracy (or loss)."""
    searched = Searched.of(trials)
    measure, absolute = searched.measure, math.isnan(searched.standard)
    name = f"validation {measure.name}"
    what = f"best {measure.head(name, ',')}" if absolute else _gain_in(measure, name)
    gains = {
        method: {t: value if absolute else measure.gain(value, searched.standard) for t, value in best.items()}
        for method in searched.points
        if (best := searched.ranked(method))
    }
    reference = math.nan if absolute else 0.0
    x_range = _padded([value for values in gains.values() for value in values.values()], reference)
    pictures: list[str] = []
    for method, values in gains.items():
        bars = [
            Bar(
                f"{number}  {' + '.join(teachers)}",
                method,
                value,
                format(value, ("" if absolute else "+") + measure.short),
            )
            for number, (teachers, value) in enumerate(values.items(), start=1)
        ]
        heading = f"{method_title(method)}: {what}"
        pictures.append(
            draw_bars(
                f"gain-{len(pictures)}", heading, bars, reference=reference, reference_label=STANDARD, x_range=x_range
            )
        )
    return pictures


def _gain_in(measure: Measure, name: str) -> str:
    return f"gain in {name}, points" if measure is ACCURACY else f"reduction of {name}"


def draw_contributions(trials: Iterable[TrialRow]) -> list[str]:
    """Per method, each teacher's contribution: how much better the best trial of a combination is than the best one of the same
    combination without the teacher (standard transfer for a teacher alone), as mean and standard error over the
    combinations that the search tried both ways. Empty where no method has two combinations that differ in one teacher."""
    searched = Searched.of(trials)
    measure = searched.measure
    pictures: list[str] = []
    for method in searched.points:
        best = searched.ranked(method)
        if not math.isnan(searched.standard):
            best[()] = searched.standard
        bars = []
        for teacher in dict.fromkeys(name for teachers in best for name in teachers):
            without = {teachers: tuple(name for name in teachers if name != teacher) for teachers in best}
            added = [measure.gain(best[t], best[rest]) for t, rest in without.items() if teacher in t and rest in best]
            if added:
                error = float(np.std(added, ddof=1)) / math.sqrt(len(added)) if len(added) > 1 else math.nan
                mean = float(np.mean(added))
                bars.append(Bar(teacher, method, mean, format(mean, f"+{measure.short}"), error))
        if len(bars) > 1:
            what = "points that a teacher adds" if measure is ACCURACY else "what a teacher takes off the loss"
            bars.sort(key=lambda bar: -bar.value)
            name, heading = f"added-{len(pictures)}", f"{method_title(method)}: {what}"
            pictures.append(draw_bars(name, heading, bars, reference=0.0, reference_label="adds nothing"))
    return pictures


def draw_quality(trials: Iterable[TrialRow], probes: Mapping[tuple[str, ...], float]) -> list[str]:
    """Per method, the best validation accuracy of each combination of teachers against the validation accuracy of a linear
    probe on their features (the paper's Figure 1c). Empty with fewer than three combinations in common.

    probes: accuracies in [0, 1], by combination.
    """
    searched = Searched.of(trials)
    name = f"validation {searched.measure.name}"
    y_range = _padded([value for method in searched.points for value in searched.ranked(method).values()])
    pictures: list[str] = []
    for method in searched.points:
        dots = [
            Dot(str(number), 100 * probes[teachers], value)
            for number, (teachers, value) in enumerate(searched.ranked(method).items(), start=1)
            if teachers in probes
        ]
        if len(dots) < 3:
            continue
        told = _correlation(dots)
        heading = f"{method_title(method)}: {searched.measure.head(name, ',')}"
        pictures.append(
            draw_dots(
                f"quality-{len(pictures)}",
                f"{heading}; {told}" if told else heading,
                dots,
                method=method,
                x_label="linear probe on the teachers' features, %",
                y_range=y_range,
                description=f"{len(dots)} combinations of teachers: {told or 'too few for a correlation'}.",
            )
        )
    return pictures


def _correlation(dots: Sequence[Dot]) -> str:
    """Pearson's; empty for so few points that they nearly lie on a line by chance."""
    if len(dots) < FEWEST_CORRELATED:
        return ""
    x, y = np.array([dot.x for dot in dots]), np.array([dot.y for dot in dots])
    return f"r = {np.corrcoef(x, y)[0, 1]:.2f}" if x.std() and y.std() else "all alike"


def draw_curves(name: str, groups: Sequence[Group], measure: Measure) -> list[str]:
    """Validation accuracy (or loss) and task loss against the step: each group's mean, and faintly its trainings."""
    curves = (
        (f"val_{measure.name}", measure.head(f"validation {measure.name}", ","), measure.factor),
        ("task_loss", "task loss", 1.0),
    )
    pictures = []
    for key, heading, factor in curves:
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
