"""The report of a workspace that lacks a part, or has a part that failed or is unfinished."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from aft_ray.recipe.config import Recipe, override
from aft_ray.recipe.errors import InputError
from aft_ray.report.report import report
from tests.helpers.page import Page
from tests.helpers.report import finals, searched, trial, write_everything, write_search, write_training

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "parts, expected",
    [
        (["run"], "Run alone (AFT): 76.7 % validation accuracy, 20.0 % test error."),
        (["search"], "AFT (beta 10, small + large) has the best validation accuracy of the search, 86.0 %. Final runs"),
        (["finals"], "AFT: 9.0 % test error against 16.0 % of standard transfer"),
        (["search", "run"], "Final runs, the only ones that see the test split, are missing."),
        (["finals", "run"], "AFT: 9.0 % test error against 16.0 % of standard transfer"),
    ],
)
def test_report_works_on_partial_workspaces(recipe: Recipe, parts: list[str], expected: str) -> None:
    rows = (searched() if "search" in parts else []) + (finals() if "finals" in parts else [])
    if rows:
        write_search(recipe, rows)
    if "run" in parts:
        run = trial("final", "aft", 3.0, ("small",), test_accuracy=0.8)
        write_training(Path(recipe.workspace, "runs", "alone"), recipe, run)
    page = Page(report(recipe))
    assert not page.open
    assert expected in page.words
    assert "nan" not in page.words


def test_without_standard_transfer_errors_are_absolute(recipe: Recipe) -> None:
    rows = [row for row in searched() + finals() if row["regularizer.name"] != "none"]
    write_search(recipe, rows)
    page = Page(report(recipe))
    assert "AFT: 9.0 % test error against 13.0 % of KD" in page.words
    assert "AFT 91.00 ± 0.58 – – 86.00 3 10 small + large" in page.words
    assert "test error, %" in page.words and "nan" not in page.words


def test_every_trial_failed_is_a_report_too(recipe: Recipe) -> None:
    write_search(recipe, [row for row in searched() if row["status"] == "failed"])
    assert "No trial has a score" in Page(report(recipe)).words


def test_an_unfinished_run_is_shown(recipe: Recipe) -> None:
    directory = Path(recipe.workspace, "runs", "going")
    write_training(directory, recipe, trial("final", "aft", 3.0, ("small",), test_accuracy=0.8))
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    (directory / "metrics.jsonl").write_text(lines[0] + "\n")
    for file in (directory / "student").iterdir():
        file.unlink()
    assert "it has not reached the test split" in Page(report(recipe)).words


def test_an_empty_workspace_is_refused(recipe: Recipe) -> None:
    with pytest.raises(
        InputError, match="holds no run and no search 'main'. Run 'aft-ray train' or 'aft-ray search' first.$"
    ):
        report(recipe)
    assert not Path(recipe.workspace, "report").exists()


def test_a_file_in_the_place_of_searches_is_told(recipe: Recipe) -> None:
    write_everything(recipe)
    shutil.rmtree(Path(recipe.workspace) / "searches")
    (Path(recipe.workspace) / "searches").write_text("not a directory")
    with pytest.raises(InputError, match="searches cannot be read: Not a directory. Move it away"):
        report(recipe)


def test_the_search_of_another_name_is_offered(recipe: Recipe) -> None:
    write_search(override(recipe, {"run": "other"}), searched())
    with pytest.raises(InputError, match="Searches there: other; choose one with run=NAME"):
        report(recipe)


def test_a_page_of_another_program_is_not_replaced(recipe: Recipe) -> None:
    write_search(recipe, searched())
    theirs = Path(recipe.workspace, "report", "index.html")
    theirs.parent.mkdir()
    theirs.write_text("our quarter")
    with pytest.raises(InputError, match="report/index.html was not written by 'aft-ray report'.*another workspace"):
        report(recipe)
    assert [(path, path.read_text()) for path in theirs.parent.iterdir()] == [(theirs, "our quarter")]
    theirs.unlink()
    assert Page(report(recipe)).words == Page(report(recipe)).words, "its own page is replaced"
