"""The study's tables and page say what the searches of its settings say."""

from __future__ import annotations

import csv
import math
import statistics
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from aft_ray.recipe.errors import InputError
from aft_ray.study.averages import means, qualities
from aft_ray.study.config import Study, load_study
from aft_ray.study.found import read_study
from aft_ray.study.page import headline
from aft_ray.study.records import MethodRun, Probe, Record, Told, identity, write_record
from aft_ray.study.report import report_study
from tests.helpers.report import trial
from tests.study.test_config import written

SEEDS = (0, 1, 2)
ERRORS = {"none": 0.4, "kd": 0.42, "aft": 0.3}


def rows(shift: float, teachers: tuple[str, ...] = ("a",)) -> list[dict[str, Any]]:
    """A search and its final runs; AFT is better than standard transfer, KD worse, in every seed."""
    found = []
    for method, error in ERRORS.items():
        for name in teachers if method != "none" else ("",):
            own, better = (name,) if name else (), 0.01 * len(name)
            for beta in (1.0, 2.0):
                found.append(trial("search", method, beta, own, val_accuracy=0.5 + better + beta / 100))
            for seed in SEEDS:
                accuracy = 1 - error - shift + better + 0.001 * seed * (method == "aft")
                found.append(trial("final", method, 2.0, own, seed, test_accuracy=accuracy))
    return found


def finished(study: Study, *names: str, teachers: tuple[str, ...] = ("a",)) -> None:
    for number, name in enumerate(names):
        recipe = study.settings[name]
        methods = recipe.search.methods("aft")
        runs = [MethodRun(method=m, recipe=identity(recipe, m), date="2026-11-28", code="abc") for m in methods]
        probes = [Probe(teachers=[one], val_accuracy=0.6 + 0.05 * len(one), with_own_labels=0.5) for one in teachers]
        samples = {"train": 160, "validation": 20, "test": 20, "labels": 50}
        step_ms = {"none": 20.0, "aft": 25.0}
        found = rows(0.1 * number, teachers)
        told = [Told(teacher=one, r2=0.31, least_r2=0.02, alignment=0.22) for one in teachers]
        write_record(study.records, name, Record(runs, "2 cores", samples, step_ms, probes, found, told))


def test_the_mean_is_over_settings_and_tests_are_paired_by_setting(tmp_path: Path) -> None:
    study = load_study(written(tmp_path))
    finished(study, "digits-few", "digits-all", "scans-few")
    best, worst = means(read_study(study))
    assert (best.method, worst.method, best.num_settings) == ("aft", "kd", 3)
    relative = [(0.3 + shift - 0.01 - 0.001) / (0.4 + shift) for shift in (0.0, 0.1, 0.2)]
    assert best.relative_error == pytest.approx(statistics.fmean(relative))
    assert best.se == pytest.approx(statistics.stdev(relative) / math.sqrt(3))
    assert (best.better, best.worse, worst.better, worst.worse) == (3, 0, 0, 3)
    assert best.against_standard.p_value < 0.05 and worst.against_standard.gain < 0
    assert worst.against_aft.gain == pytest.approx(statistics.fmean(relative) - worst.relative_error)


def test_page_and_tables_have_the_same_numbers_and_name_what_is_missing(tmp_path: Path) -> None:
    study = load_study(written(tmp_path))
    finished(study, "digits-few", "digits-all", "scans-few")
    page = Path(report_study(study)).read_text()
    place = Path(study.place.path)
    with (place / "means.csv").open() as file:
        first = next(csv.DictReader(file))
    assert first["method"] == "aft" and f"{float(first['relative_error']):.3f}" in page
    results = pq.read_table(place / "results.parquet").to_pylist()
    assert len(results) == 9 and {row["setting"] for row in results} == {"digits-few", "digits-all", "scans-few"}
    assert pq.read_table(place / "trials.parquet").num_rows == 3 * len(rows(0))
    assert "Not finished: scans-all." in page and "3 finished" in page
    assert "beta of AFT (the highest in digits-few, digits-all, scans-few)" in page
    assert headline(means(read_study(study)), read_study(study)) in page
    assert "0.31" in page and "0.22" in page, "what rank says of the teacher"
    assert page == Path(report_study(study)).read_text(), "the same study gives the same page"


def test_an_empty_study_has_a_page(tmp_path: Path) -> None:
    study = load_study(written(tmp_path))
    assert "0 of 4 settings are finished" in Path(report_study(study)).read_text()


def test_a_study_with_comments_is_not_replaced_by_its_copy(tmp_path: Path) -> None:
    study = load_study(written(tmp_path))
    report_study(study)
    report_study(study)  # over its own copy
    copy = Path(study.place.path) / "study.yaml"
    copy.write_text("# mine\n" + copy.read_text())
    with pytest.raises(InputError, match=r"study.yaml was not written by 'aft-ray study'.*Move it away"):
        report_study(study)
    assert copy.read_text().startswith("# mine")


def test_students_are_correlated_with_their_teachers(tmp_path: Path) -> None:
    study = load_study(written(tmp_path))
    finished(study, "digits-few", teachers=("a", "bb", "ccc", "dddd"))
    found = {quality.method: quality for quality in qualities(read_study(study))}
    assert set(found) == {"kd", "aft"} and found["aft"].r == pytest.approx(1.0)
    assert found["kd"].points["bb",] == (pytest.approx(70.0), pytest.approx(60.0))
    assert "r = 1.00" in Path(report_study(study)).read_text()
    chosen = {entry.method: entry.teachers for entry in read_study(study)[0].chosen.values()}
    assert chosen["aft"] == ("dddd",), "validation chooses"


def test_a_setting_with_another_recipe_is_not_finished(tmp_path: Path) -> None:
    path = written(tmp_path)
    study = load_study(path)
    finished(study, "digits-few")
    states = [[one.is_finished for one in read_study(load_study(path, more))][0] for more in ([], ["train.steps=9"])]
    assert states == [True, False]
