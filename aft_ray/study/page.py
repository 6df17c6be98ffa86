"""The study's page: its figure, its table of relative errors, and the student against its teachers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from aft_ray.recipe.printable import counted
from aft_ray.report.page import template
from aft_ray.report.plots import COLOURS, Bar, Dot, draw_bars, draw_dots
from aft_ray.report.results import method_title
from aft_ray.report.words import CLEAR, chance
from aft_ray.study.averages import OURS, Mean, Quality, relative_errors
from aft_ray.study.config import Study
from aft_ray.study.found import STANDARD, Found
from aft_ray.study.grids import remarks
from aft_ray.study.splits import over_splits
from aft_ray.study.tables import against, fact_row, mark, set_rows, time_rows


def render_study(
    study: Study, found: Sequence[Found], averages: Sequence[Mean], quality: Sequence[Quality], files: Sequence[str]
) -> str:
    """The page as HTML. files: beside the page, to link to."""
    methods, settings = [STANDARD, *(mean.method for mean in averages)], over_splits(found)
    return template("study.html.j2", "aft_ray.study").render(
        name=study.name,
        headline=headline(averages, found),
        remarks=_remarks(found),
        num_finished=sum(one.is_finished for one in found),
        found=found,
        settings=settings,
        averages=averages,
        errors=_draw_means(averages),
        titles=[method_title(method) for method in methods],
        mark=mark,
        relative={mean.method: relative_errors(settings, mean.method) for mean in averages},
        against=against(settings, methods) if averages else [],
        facts=[fact_row(one) for one in found],
        sets=[row for one in found for row in set_rows(one)],
        times=time_rows(found, methods),
        quality=quality,
        dots=[_draw_quality(number, one) for number, one in enumerate(quality)],
        study=study,
        files=files,
        colours=COLOURS,
        chance=chance,
    )


def headline(averages: Sequence[Mean], found: Sequence[Found]) -> str:
    """The study's result in a sentence or two."""
    if not averages:
        done = sum(one.is_finished for one in found)
        return f"{done} of {len(found)} settings are finished; no method can be compared with standard transfer yet."
    best = averages[0]
    sentences = [_compared(best)]
    sentences += [_compared(mean) for mean in averages if mean.method == OURS and mean is not best]
    ahead = best.against_aft
    if not math.isnan(ahead.p_value):
        clear = "more" if ahead.p_value < CLEAR else "no more"
        sentences.append(f"The two differ by {clear} than the spread of settings explains (p {chance(ahead.p_value)}).")
    return " ".join(sentences)


def _compared(mean: Mean) -> str:
    spread = "" if math.isnan(mean.se) else f" ± {mean.se:.3f}"
    test = mean.against_standard.p_value
    told = "" if math.isnan(test) else f", p {chance(test)}"
    return (
        f"{mean.title}: {mean.relative_error:.3f}{spread} of the test error of {method_title(STANDARD)}, mean of"
        f" {counted(mean.num_settings, 'setting')}{told}; clearly better in {mean.better}, clearly worse in"
        f" {mean.worse}."
    )


def _remarks(found: Sequence[Found]) -> list[str]:
    """How far to trust the table: settings that are missing, keys that were tuned, choices at the end of their grid."""
    missing = [one.name for one in found if not one.is_finished]
    told = [f"Not finished: {', '.join(missing)}. The same command goes on."] if missing else []
    return [*told, *remarks(found)]


def _draw_means(averages: Sequence[Mean]) -> str:
    """The paper's Figure 1b: the mean relative error of every method."""
    bars = [Bar(mean.title, mean.method, mean.relative_error, _with_error(mean), mean.se) for mean in averages]
    if not bars:
        return ""
    heading = f"test error relative to {method_title(STANDARD)}"
    return draw_bars("means", heading, bars, reference=1.0, reference_label=method_title(STANDARD))


def _with_error(mean: Mean) -> str:
    return f"{mean.relative_error:.3f}" if math.isnan(mean.se) else f"{mean.relative_error:.3f} ± {mean.se:.3f}"


def _draw_quality(number: int, quality: Quality) -> str:
    """The paper's Figure 1c for one setting and method; sets of teachers are numbered as in the table."""
    dots = [Dot(str(quality.numbers[teachers]), x, y) for teachers, (x, y) in quality.points.items()]
    values = [dot.y for dot in dots]
    margin = 0.1 * (max(values) - min(values)) or 1.0
    told = "" if math.isnan(quality.r) else f"; r = {quality.r:.2f}"
    return draw_dots(
        f"quality-{number}",
        f"{quality.setting}, {method_title(quality.method)}: test, %{told}",
        dots,
        method=quality.method,
        x_label="linear head on the teachers, validation, %",
        y_range=(min(values) - margin, max(values) + margin),
        description=f"{len(dots)} sets of teachers{told}.",
    )
