"""A setting's record: what it keeps, which methods it lacks, and how later methods join it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from aft_ray.recipe.config import override
from aft_ray.recipe.errors import InputError
from aft_ray.search.trials import write_table
from aft_ray.study.config import load_study
from aft_ray.study.found import place_of, read_study
from aft_ray.study.records import (
    MethodRun,
    Record,
    check_samples,
    identity,
    joined,
    read_record,
    write_record,
)
from tests.study.test_config import written
from tests.study.test_report import finished, rows

SAMPLES = {"train": 10, "validation": 2, "test": 2, "labels": 10}


def run(method: str, date: str = "2026-11-25") -> MethodRun:
    return MethodRun(method=method, recipe="1", date=date, code="abc")


def record(date: str = "2026-11-25", shift: float = 0.0, *methods: str) -> Record:
    own = [row for row in rows(shift) if row["regularizer.name"] in methods]
    return Record([run(method, date) for method in methods], "2 cores", SAMPLES, dict.fromkeys(methods, 20.0), [], own)


def test_a_record_is_a_line_a_training_and_reads_back(tmp_path: Path) -> None:
    study = load_study(written(tmp_path, more=f"records: {tmp_path / 'kept'}\n"))
    finished(study, "digits-few")
    text = (tmp_path / "kept" / "digits-few.json").read_text()
    assert sum(line.startswith('  {"trial"') for line in text.splitlines()) == len(rows(0))
    shutil.rmtree(tmp_path / "place", ignore_errors=True)
    found = read_study(study)[0]
    assert found.is_finished and set(found.chosen) == {"none", "kd", "aft"}
    assert [{key: row[key] for key in of} for row, of in zip(found.rows, rows(0), strict=True)] == rows(0)
    (tmp_path / "kept" / "digits-few.json").write_text(text.replace('"labels": 50', '"labels": 51'))
    with pytest.raises(InputError, match="digits-few.json is damaged: it was changed after it was written"):
        read_study(study)


def test_only_a_method_whose_part_of_the_recipe_changed_is_missing(tmp_path: Path) -> None:
    study = load_study(written(tmp_path))
    finished(study, "digits-few")
    recipe, known = study.settings["digits-few"], read_record(study.records, "digits-few")
    more = {"search.compare": ["none", "aft", "kd"], "search.beta": {"all": [1, 2], "kd": [3]}}
    assert known.missing(recipe) == []
    assert known.missing(override(recipe, {"search.compare": ["none", "aft", "kd"]})) == ["kd"]
    assert known.missing(override(recipe, {"workspace": "moved", "run": "other", "resources.wait_s": 9})) == []
    with_preset = override(recipe, {"train.preset": "finetune"})
    assert identity(with_preset, "aft") == identity(override(with_preset, {"train.warmup_steps": 50}), "aft")
    assert known.missing(override(recipe, {"search.per_method": {"aft": {"train.steps": 9}}})) == ["aft"]
    assert known.missing(override(recipe, {"train.steps": 9})) == ["none", "aft"]
    one, other = (override(recipe, {**more, "search.beta": {"all": [1, 2], "kd": [beta]}}) for beta in (3, 4))
    assert identity(one, "aft") == identity(other, "aft") and identity(one, "kd") != identity(other, "kd")


def test_later_methods_join_those_of_before_and_equal_scores_are_noted() -> None:
    before, now = record("2026-11-25", 0.0, "none", "aft"), record("2026-11-28", 0.0, "none", "kd")
    both = joined(before, now)
    assert {one["method"]: one.get("repeats") for one in both.runs} == {"aft": None, "none": "2026-11-25", "kd": None}
    assert {one["method"]: one["date"] for one in both.runs}["none"] == "2026-11-28"
    assert len(both.rows) == len(rows(0))
    assert "repeats" not in joined(before, record("2026-11-28", 0.1, "none")).of("none")[0], "other scores"
    elsewhere = Record(before.runs, "2 cores", {**SAMPLES, "labels": 7}, {}, [], before.rows)
    assert joined(elsewhere, now) == now, "other samples are not compared"


def test_times_of_two_machines_or_of_an_earlier_recipe_are_not_compared() -> None:
    before = record("2026-11-25", 0.0, "none", "aft")
    slower = dict.fromkeys(("none", "kd"), 60.0)
    beside = joined(before, replace(record("2026-11-28", 0.0, "none", "kd"), step_ms=slower))
    assert beside.step_ms == {"none": 20.0, "aft": 20.0, "kd": 60.0} and beside.machine == "2 cores"
    elsewhere = joined(before, replace(record("2026-11-28", 0.0, "kd"), step_ms={"kd": 5.0}, machine="64 cores"))
    assert elsewhere.step_ms == {"none": 20.0, "aft": 20.0} and elsewhere.machine == "2 cores; 64 cores"
    again = joined(elsewhere, replace(record("2026-11-29", 0.0, "rkd"), machine="64 cores"))
    assert again.machine == "2 cores; 64 cores" and "rkd" not in (again.step_ms or {})
    longer = replace(record("2026-11-28", 0.0, "aft"), runs=[{**run("aft"), "recipe": "2"}], step_ms={"aft": 40.0})
    assert joined(before, longer).step_ms == {"none": 20.0, "aft": 40.0}, "its recipe has changed"
    new = joined(record("2026-11-25", 0.0, "aft"), replace(longer, machine="64 cores"))
    assert (new.step_ms, new.machine) == ({"aft": 40.0}, "64 cores"), "nothing of before is left"


def test_findings_on_other_samples_are_refused_before_a_search_and_stay(tmp_path: Path) -> None:
    recipe = load_study(written(tmp_path)).settings["digits-few"]
    known = Record([{**run("aft"), "recipe": identity(recipe, "aft")}], "2 cores", SAMPLES)
    check_samples(known, recipe, SAMPLES, "digits-few.json")
    with pytest.raises(InputError) as refused:
        check_samples(known, recipe, {**SAMPLES, "train": 12}, "digits-few.json")
    (line,) = refused.value.faults
    assert line.startswith("digits-few.json has aft on other samples (train 10, now 12), which cannot be compared")
    check_samples(known, override(recipe, {"train.steps": 9}), {**SAMPLES, "train": 12}, "digits-few.json")


def test_methods_under_way_are_shown_beside_the_record(tmp_path: Path) -> None:
    path = written(tmp_path)
    finished(load_study(path), "digits-few")
    study = load_study(path, ["search.compare=[none, aft, kd]"])
    under_way = [row for row in rows(0.05) if row["regularizer.name"] == "kd"]
    write_record(study.records, "digits-few", record("2026-11-25", 0.0))
    write_table(place_of(study.settings["digits-few"]), under_way)
    found = read_study(study)[0]
    assert list(found.missing) == ["none", "aft", "kd"] and set(found.chosen) == {"kd"}


def test_findings_of_two_recipes_are_not_compared(tmp_path: Path) -> None:
    path = written(tmp_path)
    finished(load_study(path, ["search.compare=[none, kd, aft]"]), "digits-few")
    alone = load_study(path, ["search.compare=[aft]"])
    assert read_study(alone)[0].chosen.keys() == {"none", "kd", "aft"}, "none and kd have this very recipe"
    longer = load_study(path, ["search.compare=[aft]", "train.steps=9"])
    assert read_study(longer)[0].chosen.keys() == {"aft"}, "none and kd were trained with other steps"
    both = load_study(path, ["search.compare=[none, kd, aft]", "train.steps=9"])
    assert read_study(both)[0].chosen.keys() == {"none", "kd", "aft"}, "all are of before"
    write_table(place_of(both.settings["digits-few"]), [row for row in rows(0.05) if row["regularizer.name"] == "kd"])
    assert read_study(both)[0].chosen.keys() == {"kd"}, "the new search has begun"


def test_a_setting_without_standard_transfer_is_compared_with_the_reference(tmp_path: Path) -> None:
    few = "few: {train.labels_per_class: 5}"
    path = written(tmp_path, (few, few.replace("5", "5, search.compare: [aft]")), more="reference: digits-all\n")
    study = load_study(path)
    finished(study, "digits-all")
    alone = [row for row in rows(0.1) if row["regularizer.name"] == "aft"]
    write_record(study.records, "digits-few", Record([run("aft")], "2 cores", SAMPLES, {}, [], alone))
    found = {one.name: one for one in read_study(study)}
    assert found["digits-few"].chosen["aft"].relative_error == pytest.approx((0.4 - 0.01 - 0.001) / 0.4)
    assert len(found["digits-few"].rows) == len(alone), "the reference's trials are not its own"
    assert not found["scans-few"].rows and found["scans-all"].chosen.keys() == {"none"}
