"""Splits of one data set are one setting of a study, and the choice of the split is in its errors."""

from __future__ import annotations

import math
import statistics
from pathlib import Path

import pytest

from aft_ray.study.averages import mean_of, means
from aft_ray.study.config import Study, load_study
from aft_ray.study.found import read_study
from aft_ray.study.report import report_study
from aft_ray.study.splits import over_splits
from tests.study.test_config import written
from tests.study.test_report import ERRORS, SEEDS, finished


@pytest.fixture
def study(tmp_path: Path) -> Study:
    splits = "  split:\n    a: {}\n    b: {dataset.split_seed: 1}\n    c: {dataset.split_seed: 2}\n"
    return load_study(written(tmp_path, ("  labels:\n    few: {train.labels_per_class: 5}\n    all: {}\n", splits)))


def test_final_runs_are_paired_by_split_and_seed(study: Study) -> None:
    finished(study, "digits-a", "digits-b", "digits-c", "scans-a")
    digits, scans = over_splits(read_study(study))
    assert (digits.name, scans.name) == ("digits", "scans") and scans.missing and not digits.missing
    assert {*digits.chosen} == {*scans.chosen} == {*ERRORS} and (digits.splits, scans.splits) == (3, 1)
    entry = digits.chosen["aft"]
    assert entry.num_seeds == 3 * len(SEEDS) and entry.beta == 2.0
    gains = [0.1 + 0.01 + 0.001 * seed for _ in range(3) for seed in SEEDS]
    assert entry.gain == pytest.approx(statistics.fmean(gains))
    assert entry.relative_error_se == pytest.approx(statistics.stdev(gains) / math.sqrt(9) / 0.5)


def test_means_and_page_count_a_data_set_once_however_many_splits_it_has(study: Study) -> None:
    finished(study, *study.settings)
    (best, _) = means(over_splits(read_study(study)))
    assert (best.method, best.num_settings, best.better) == ("aft", 2, 2)
    page = Path(report_study(study)).read_text()
    assert f"{best.relative_error:.3f}" in page and ">digits</t" in page


def test_the_interval_over_data_sets_needs_some_and_holds_their_mean(tmp_path: Path) -> None:
    data = "".join(f"    d{n}: {{dataset: {{name: null, source: csv, path: {n}.csv}}}}\n" for n in range(6))
    study = load_study(
        written(
            tmp_path,
            ("    digits: {}\n    scans: {dataset.name: digits}\n", data),
            ("  labels:\n    few: {train.labels_per_class: 5}\n    all: {}\n", ""),
            ("dataset: {name: mnist5k, max_samples: 200}", "dataset: {columns: {text: text}, max_samples: 200}"),
            ("timm:test_vit", "transformers:x"),
            ("tiny:cnn", "tiny:text"),
        )
    )
    finished(study, *study.settings)
    found = read_study(study)
    mean, few = mean_of("aft", found), mean_of("aft", found[:3])
    assert mean.low < mean.over_data < mean.high and math.isnan(few.low) and math.isnan(few.high)
    assert (mean.low, mean.high) == (mean_of("aft", found).low, mean_of("aft", found).high), "drawn by a seed"
