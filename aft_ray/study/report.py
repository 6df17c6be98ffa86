"""The study's results on disk: one page that needs nothing else, and its tables as CSV and Parquet beside it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from aft_ray.recipe.errors import InputError
from aft_ray.recipe.strict_yaml import parse
from aft_ray.report.report import as_csv, entry_row
from aft_ray.report.results import TrialRow
from aft_ray.search.trials import as_table
from aft_ray.study.averages import Mean, means, qualities
from aft_ray.study.config import Study, as_yaml
from aft_ray.study.found import Found, read_study
from aft_ray.study.page import render_study
from aft_ray.study.splits import over_splits

COPY = "study.yaml"
"""The study as it was run, beside its page."""


def check_copy(study: Study) -> None:
    """Raises InputError if a file that somebody has written lies where the study's copy goes: with its comments, say."""
    if not study.place.has(COPY):
        return
    found = study.place.read(COPY)
    with suppress(InputError, UnicodeDecodeError):
        content, faults = parse(found.decode(), COPY)
        if not faults and as_yaml(content).encode() == found:
            return
    raise InputError(
        f"{study.place}/{COPY} was not written by 'aft-ray study', which would replace it by a copy of the study. Move it away,"
        " or give the study another name with run=NAME."
    )


def report_study(study: Study) -> str:
    """Writes `index.html`, the tables and the study itself to the study's directory; returns the page's path or URL.

    Raises InputError as `check_copy`.
    """
    check_copy(study)
    found = read_study(study)
    averages, quality = means(over_splits(found)), qualities(found)
    place = study.place
    trials = [{"setting": one.name, **row} for one in found for row in one.rows]
    results = [row for one in found for row in result_rows(one)]
    of_methods = [mean_row(mean) for mean in averages]
    tables = {
        "results": (results, _table(results)),
        "means": (of_methods, _table(of_methods)),
        "trials": (trials, as_table(trials)),
    }
    files = []
    for name, (rows, table) in tables.items():
        if rows:
            place.write(f"{name}.csv", as_csv(rows).encode())
            place.write(f"{name}.parquet", _parquet(table))
            files += [f"{name}.csv", f"{name}.parquet"]
    place.write(COPY, study.text().encode())
    place.write("index.html", render_study(study, found, averages, quality, [*files, COPY]).encode())
    return f"{place}/index.html" if place.is_local else f"{study.root.rstrip('/')}/studies/{study.name}/index.html"


def result_rows(one: Found) -> list[TrialRow]:
    """Lines of results: a setting's methods, with the accuracy of the teachers by themselves."""
    return [
        {
            "setting": one.name,
            "is_chosen": entry.is_chosen,
            "teachers_alone": one.probes.get(entry.teachers),
            **entry_row(entry),
        }
        for entry in one.entries
    ]


def mean_row(mean: Mean) -> TrialRow:
    return {
        "method": mean.method,
        "num_settings": mean.num_settings,
        "relative_error": mean.relative_error,
        "relative_error_se": mean.se,
        "relative_error_se_over_seeds": mean.over_seeds,
        "relative_error_over_data": mean.over_data,
        "relative_error_over_data_low": mean.low,
        "relative_error_over_data_high": mean.high,
        "better": mean.better,
        "better_by_holm": mean.holm,
        "worse": mean.worse,
        "p_value_against_standard": mean.against_standard.p_value,
        "p_value_against_aft": mean.against_aft.p_value,
    }


def _table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """A column for every key of the rows: a classification has other keys than a regression."""
    columns = dict.fromkeys(key for row in rows for key in row)
    return pa.table({column: [row.get(column) for row in rows] for column in columns})


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()
