"""A workspace with a damaged file gives a line that names it, and no page with wrong numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aft_ray.cli import main
from aft_ray.recipe.config import Recipe, dump
from tests.helpers.report import write_everything

pytestmark = pytest.mark.slow


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def line(**changes: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        lines = [json.loads(text) for text in path.read_text().splitlines()]
        path.write_text("\n".join(json.dumps(line | changes) for line in lines))

    return change


def column(name: str, values: Callable[[int], list[Any]] | None) -> Callable[[Path], None]:
    """Replaces a column of the table of trials; None removes it."""

    def change(path: Path) -> None:
        table = pq.read_table(path)
        place = table.column_names.index(name)
        table = table.remove_column(place)
        pq.write_table(table if values is None else table.append_column(name, [values(len(table))]), path)

    return change


RUN, TRIALS = "runs/alone", "searches/main/trials.parquet"
DAMAGES: list[tuple[str, Callable[[Path], Any], str]] = [
    (TRIALS, cut, "trials.parquet is damaged: "),
    (
        TRIALS,
        lambda path: path.write_bytes(b""),
        "Run 'aft-ray search' again: it writes the table anew.",
    ),
    (
        TRIALS,
        lambda path: pq.write_table(pa.table({"text": ["a"]}), path),
        "column 'regularizer.beta' is missing",
    ),
    (TRIALS, column("status", None), "trials.parquet is damaged: column 'status' is missing"),
    (TRIALS, column("val_accuracy", lambda count: ["high"] * count), "trials.parquet is damaged: "),
    (TRIALS, column("teachers", lambda count: ["a"] * count), "trials.parquet is damaged: "),
    (f"{RUN}/metrics.jsonl", cut, "metrics.jsonl, line 2, is damaged: Invalid JSON"),
    (
        f"{RUN}/metrics.jsonl",
        line(val_accuracy="high"),
        "metrics.jsonl, line 1, is damaged: val_accuracy: Input should be a valid",
    ),
    (f"{RUN}/metrics.jsonl", lambda path: path.write_text("3\n"), "metrics.jsonl, line 1, is damaged: "),
    (f"{RUN}/config.yaml", cut, "config.yaml is damaged: "),
    (f"{RUN}/config.yaml", lambda path: path.write_text("a: [b"), "config.yaml is damaged: it is not valid YAML"),
    (f"{RUN}/config.yaml", lambda path: path.unlink(), "config.yaml is damaged: it is missing."),
    (f"{RUN}/student/student.json", cut, "student.json is damaged: Invalid JSON"),
    (
        f"{RUN}/student/student.json",
        lambda path: path.write_text("{}"),
        "student.json is damaged: teachers: Field required",
    ),
    (f"{RUN}/student/regularizer.safetensors", cut, "regularizer.safetensors is damaged: "),
    (f"{RUN}/student/regularizer.safetensors", lambda path: path.unlink(), "regularizer.safetensors is damaged: "),
    ("rank.json", cut, "Delete it and run 'aft-ray rank' again."),
    ("rank.json", lambda path: path.write_text('{"rows": [3]}'), "rank.json is damaged: rows.0: "),
]


@pytest.mark.parametrize("number", range(len(DAMAGES)))
def test_a_damaged_file_is_named_with_the_way_out(
    number: int, recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_everything(recipe)
    (tmp_path / "recipe.yaml").write_text(dump(recipe))
    name, damage, fault = DAMAGES[number]
    damage(tmp_path / name)
    assert main(["report", str(tmp_path / "recipe.yaml")]) == 2
    said = capsys.readouterr().err
    assert fault in said and "Traceback" not in said
    assert not (tmp_path / "report").exists()


def test_gates_of_another_run_are_told(recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_everything(recipe)
    (tmp_path / "recipe.yaml").write_text(dump(recipe))
    other = next((tmp_path / "searches" / "main" / "trials").glob("*-aft-*")) / "student" / "regularizer.safetensors"
    (tmp_path / RUN / "student" / "regularizer.safetensors").write_bytes(other.read_bytes())
    assert main(["report", str(tmp_path / "recipe.yaml")]) == 2
    assert "its gates do not fit the teachers in student.json" in capsys.readouterr().err
