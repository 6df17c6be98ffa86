"""The page shows the numbers of the workspace and needs nothing but itself."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aft_ray.recipe.config import Recipe, fingerprint
from aft_ray.report import pictures
from aft_ray.report.report import report
from tests.helpers.page import Page
from tests.helpers.report import (
    as_regression,
    finals,
    searched,
    trial,
    write_everything,
    write_manifest,
    write_samples,
    write_search,
    write_training,
)

pytestmark = pytest.mark.slow


def test_page_and_csv_show_the_same_numbers(recipe: Recipe) -> None:
    write_everything(recipe)
    page = Page(report(recipe))
    assert "AFT 91.00 ± 0.58 0.56 ± 0.06 7.00 (p 0.020) 86.00 3 10 small + large" in page.words
    assert "other keys" not in page.words
    assert "alone AFT small 3 7 30 76.67 80.00 100" in page.words
    with Path(recipe.workspace, "report", "leaderboard.csv").open() as file:
        best = next(csv.DictReader(file))
    assert (best["method"], best["teachers"]) == ("aft", "small+large")
    assert float(best["test_accuracy"]) == pytest.approx(0.91)
    with Path(recipe.workspace, "report", "trials.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(searched() + finals())


def test_other_searched_keys_are_on_the_page_and_in_the_csv(recipe: Recipe) -> None:
    write_search(recipe, [row | {"train.learning_rate": 0.003, "student.model": "tiny:cnn"} for row in searched()])
    assert "small + large student.model tiny:cnn, train.learning_rate 0.003" in Page(report(recipe)).words
    with Path(recipe.workspace, "report", "leaderboard.csv").open() as file:
        assert next(csv.DictReader(file))["others"] == "student.model=tiny:cnn+train.learning_rate=0.003"


def test_page_tells_outcomes_reasons_gates_and_lineage(recipe: Recipe) -> None:
    write_everything(recipe)
    page = Page(report(recipe))
    assert "AFT search 5 1 1 12.0 s" in page.words
    assert "<img src=x> out of memory" in page.words
    gates = 1 / (1 + np.exp(-np.linspace(-1, 1, 16)))
    assert (
        f"small 6 {gates[:6].mean():.3f} {gates[:6].std():.3f} {100 * gates[:6].sum() / gates.sum():.1f} 37.5"
        in page.words
    )
    assert "small timm:small 0123456789ab" in page.words
    assert "torch 2.9.0, timm 1.0.20" in page.words
    assert "10 labels per class" in page.words


def test_teachers_of_texts_and_of_one_s_own_are_described(recipe: Recipe) -> None:
    write_everything(recipe)
    files = {"config.json": "ab" * 32, "model.safetensors": "cd" * 32}
    described: dict[str, dict[str, Any]] = {
        "text": {"weights": files, "transform": None},
        "own": {"seed": 3, "transform": None},
    }
    for name, made_by in described.items():
        manifest = {
            "feature_dim": 384,
            "fingerprint": {"model": f"m:{name}", **made_by},
            "made_with": {"torch": "2.9.0"},
        }
        write_manifest(Path(recipe.workspace, "features", name, "train"), manifest)
    words = Page(report(recipe)).words
    assert f"text m:text {fingerprint(files)[:12]}" in words and "own m:own" in words and "torch 2.9.0 – 384" in words


def test_report_is_deterministic(recipe: Recipe) -> None:
    write_everything(recipe)
    assert Page(report(recipe)).source == Page(report(recipe)).source


def test_page_needs_nothing_but_itself(recipe: Recipe) -> None:
    write_everything(recipe)
    page = Page(report(recipe))
    assert not page.open
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in page.seen}
    assert not re.search(r"@import|url\((?!#)", page.source)
    targets = [a[k] for _, a in page.seen for k in ("src", "href", "xlink:href") if k in a]
    beside = {path.name for path in Path(recipe.workspace, "report").iterdir()}
    assert all(target and (target[0] == "#" or target in beside) for target in targets)


def test_a_regression_has_a_leaderboard_pictures_and_runs_of_its_losses(recipe: Recipe) -> None:
    write_samples(recipe.workspace, ["stars"])
    rows = [as_regression(row) for row in searched() + finals()]
    write_search(recipe, rows)
    run = as_regression(trial("final", "aft", 3.0, ("small",), seed=7, test_accuracy=0.8))
    write_training(Path(recipe.workspace, "runs", "alone"), recipe, run)
    page = Page(report(recipe))
    assert (
        "AFT: 0.09 test loss against 0.16 of standard transfer (3 seeds). The difference of 0.07, paired" in page.words
    )
    assert "test loss relative loss gain validation seeds" in page.words
    assert "AFT 0.09 ± 0.005774 0.56 ± 0.06 0.07 (p 0.020) 0.14 3 10 small + large" in page.words
    assert "alone AFT small 3 7 30 0.2333 0.2 100" in page.words
    assert "accuracy" not in page.words and "nan" not in page.words and not page.open
    with Path(recipe.workspace, "report", "leaderboard.csv").open() as file:
        best = next(csv.DictReader(file))
    assert float(best["test_loss"]) == pytest.approx(0.09) and float(best["val_loss"]) == pytest.approx(0.14)
    with Path(recipe.workspace, "report", "runs.csv").open() as file:
        assert float(next(csv.DictReader(file))["test_loss"]) == pytest.approx(0.2)


def test_hostile_names_are_escaped(recipe: Recipe) -> None:
    write_samples(recipe.workspace, ["<script>alert(1)</script>", "&amp;", "\x1b[8mhidden"])
    hostile = {"regularizer.name": "<script>", "teachers": ["$x_1$ <b>"]}
    write_search(recipe, [row | hostile for row in searched()])
    page = Page(report(recipe))
    assert "<script>alert(1)</script>, &amp;, \\x1b[8mhidden" in page.words and "\x1b" not in page.source
    assert "$x_1$ <b>" in page.words
    assert not page.attributes("script") and not page.attributes("b")


def test_the_band_around_standard_transfer_counts_the_labelled_validation_samples(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_everything(recipe)
    path = Path(recipe.workspace, "samples", "validation", "manifest.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_unlabelled": 75}))
    counted: list[float] = []

    def draw(trials: Any, num_validation: float) -> list[str]:
        counted.append(num_validation)
        return []

    monkeypatch.setattr(pictures, "draw_betas", draw)
    report(recipe)
    assert counted == [25]
