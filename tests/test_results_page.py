"""docs/results.md says what the records of our studies say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from aft_ray.models.teachers import build_teacher
from aft_ray.study.config import load_study
from jobs.recipes.results.expect import situations_table
from jobs.recipes.results.methods import short_table
from jobs.recipes.results.page import HERE, RECORDS, STUDIES, put, read, write_page
from tests.helpers import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture
def studies(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict]:
    monkeypatch.chdir(ROOT)
    return {part: dict(read(*names)) for part, names in STUDIES.items()}


def test_the_page_is_what_its_records_give(studies: dict[str, dict], tmp_path: Path) -> None:
    write_page(tmp_path / "results.md", studies, "make results", RECORDS)
    assert (tmp_path / "results.md").read_text() == (ROOT / "docs" / "results.md").read_text()
    for page in (ROOT / "README.md", ROOT / "docs" / "methods.md"):
        (tmp_path / page.name).write_text(page.read_text())
    put(tmp_path / "README.md", "results", short_table(studies["protocol"]))
    put(tmp_path / "methods.md", "situations", situations_table(studies["protocol"]))
    assert (tmp_path / "README.md").read_text() == (ROOT / "README.md").read_text()
    assert (tmp_path / "methods.md").read_text() == (ROOT / "docs" / "methods.md").read_text()
    assert {path.name for path in tmp_path.glob("*.png")} == {"results-methods.png", "results-teachers.png"}


def test_a_setting_without_trials_and_methods_without_final_runs_are_named(
    studies: dict[str, dict], tmp_path: Path
) -> None:
    digits, spam = studies["earlier"]["digits-5"], studies["earlier"]["spam"]
    without_kd = replace(digits, entries=[entry for entry in digits.entries if entry.method != "kd"])
    empty = replace(spam, rows=[], entries=[])
    write_page(tmp_path / "page.md", {"protocol": {"digits-5": without_kd, "spam": empty}}, "make results", RECORDS)
    text = (tmp_path / "page.md").read_text()
    assert "Not run yet: `spam`, KD on `digits-5`." in text and "| `digits-5` | 20.1 | **0.75** |" in text
    write_page(tmp_path / "page.md", {"protocol": {"spam": empty}}, "make results", RECORDS)
    assert "Nothing has been run yet." in (tmp_path / "page.md").read_text()


def test_a_record_has_a_line_for_each_training() -> None:
    text = (ROOT / "docs" / "results" / "methods" / "digits-5.json").read_text()
    assert sum(line.startswith('  {"trial"') for line in text.splitlines()) == 111


@pytest.mark.parametrize("name", ["noise", "pixels"])
def test_teachers_that_know_little_give_the_same_features_for_the_same_picture(name: str) -> None:
    digits = load_study(HERE / "teachers.yaml").settings["digits"]
    teacher = build_teacher(next(t for t in digits.teachers if t.name == name), torch.device("cpu"))
    pictures = np.random.default_rng(0).integers(0, 255, (3, 8, 8, 3), np.uint8)
    features = teacher(pictures)
    assert features.shape == (3, teacher.feature_dim) and torch.equal(teacher(pictures[1:]), features[1:])
    assert not torch.equal(features[0], features[1])
