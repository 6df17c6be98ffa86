"""The lines of `metrics.jsonl` and the rows of `trials.parquet` are those that were written, or the file is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aft_ray.recipe.errors import InputError
from aft_ray.search.trials import COLUMNS, TrialDirectory, read_table, write_table
from aft_ray.store.workspace import Workspace
from aft_ray.training.evaluations import METRICS
from aft_ray.training.runs import RunDirectory
from tests.helpers.training import recipe, run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    place = tmp_path_factory.mktemp("run")
    run(recipe(steps=4), place)
    return (place / METRICS).read_bytes()


def changed(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    return lambda content: content.replace(old, new, 1)


def without_line(number: int) -> Callable[[bytes], bytes]:
    return lambda content: b"".join(line for k, line in enumerate(content.splitlines(keepends=True), 1) if k != number)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (changed(b'"step": 2', b'"step": 02'), 2),
        (changed(b'"epoch": ', b'"epoch": 1'), 1),
        (without_line(1), 1),
        (without_line(3), 3),
    ],
)
def test_a_line_that_was_changed_or_lost_is_found(
    change: Callable[[bytes], bytes], line: int, trained: bytes, tmp_path: Path
) -> None:
    (tmp_path / METRICS).write_bytes(change(trained))
    with pytest.raises(InputError, match=f"{METRICS}, line {line}, is damaged"):
        RunDirectory(Workspace.at(tmp_path)).history()


def test_the_last_lines_of_a_finished_run_cannot_be_lost(tmp_path: Path) -> None:
    run(recipe(steps=4), tmp_path)
    (tmp_path / METRICS).write_bytes(without_line(4)((tmp_path / METRICS).read_bytes()))
    with pytest.raises(InputError, match="it has 3 lines, the run made 4 evaluations"):
        RunDirectory(Workspace.at(tmp_path)).history()


def test_a_history_of_before_has_no_digests_and_is_read(trained: bytes, tmp_path: Path) -> None:
    lines = [line.partition(b', "digest"')[0] + b"}\n" for line in trained.splitlines()]
    (tmp_path / METRICS).write_bytes(b"".join(lines))
    assert [line["step"] for line in RunDirectory(Workspace.at(tmp_path)).history()] == [1, 2, 3, 4]


ROW = {
    "trial": "search-aft-beta1-one-seed0",
    "stage": "search",
    "regularizer.name": "aft",
    "regularizer.beta": 1.0,
    "teachers": ["one"],
    "val_accuracy": 0.5,
    "status": "finished",
}


def test_a_value_of_the_trials_table_that_was_changed_is_found_and_another_codec_is_not(tmp_path: Path) -> None:
    search = Workspace.at(tmp_path)
    write_table(search, [dict.fromkeys(COLUMNS) | ROW])
    path = tmp_path / "trials.parquet"
    table = pq.read_table(path)
    pq.write_table(table, path, compression="gzip")
    assert read_table(search)[0]["val_accuracy"] == 0.5
    column = table.column_names.index("val_accuracy")
    pq.write_table(table.set_column(column, "val_accuracy", pa.array([0.75])), path)
    with pytest.raises(InputError, match="its values were changed after it was written"):
        read_table(search)


def test_a_trial_s_damaged_history_says_that_the_search_makes_it_anew(trained: bytes, tmp_path: Path) -> None:
    (tmp_path / METRICS).write_bytes(trained[: len(trained) // 2])
    for kind, way_out in ((RunDirectory, "and train again"), (TrialDirectory, "the search runs this trial again")):
        with pytest.raises(InputError, match=f"{METRICS}, line [0-9]+, is damaged: .*{way_out}"):
            kind(Workspace.at(tmp_path)).history()
