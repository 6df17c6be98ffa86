from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aft_ray.commands.check import open_setup
from aft_ray.commands.search import show_leaderboard
from aft_ray.recipe.config import override
from aft_ray.recipe.errors import InputError
from aft_ray.report.report import report
from aft_ray.search.check import task_faults
from aft_ray.search.rank import rank
from aft_ray.search.teacher_heads import (
    TeacherHead,
    _made_of,
    heads_on_test,
    read_heads,
    stores_of_heads,
    update_heads,
    write_heads,
)
from aft_ray.store.workspace import Workspace
from tests.helpers.report import recipe_at, write_everything
from tests.helpers.training import DATA, TEST, made_workspace

pytestmark = pytest.mark.slow

ASKED = {"search.final.teacher_heads": True}
HEADS = [TeacherHead("small", "linear", 0.71, 0.6944), TeacherHead("large", "neighbours", 0.5, 0.4321)]


def test_each_teacher_has_both_heads_fitted_as_rank_fits_them(tmp_path: Path) -> None:
    given = override(made_workspace(tmp_path), ASKED | {"search.teachers": "singles"})
    stores = stores_of_heads(given)
    assert stores is not None
    found = heads_on_test(given, stores)
    assert {(head.teacher, head.head) for head in found} == {
        (teacher, head) for teacher in ("one", "two") for head in ("linear", "neighbours")
    }
    assert [head.test_accuracy for head in found] == sorted((head.test_accuracy for head in found), reverse=True)
    assert all(head.test_accuracy * len(TEST) == pytest.approx(round(head.test_accuracy * len(TEST))) for head in found)
    ranked = {row["teachers"][0]: row for row in rank(open_setup(given, "rank")).rows}
    for head in found:
        key = "val_accuracy" if head.head == "linear" else "knn_accuracy"
        assert head.val_accuracy == ranked[head.teacher][key]


def test_a_test_split_without_labels_leaves_the_heads_accuracy_there_unknown(tmp_path: Path) -> None:
    unlabelled = replace(TEST, labels=np.full_like(TEST.labels, -1))
    given = override(made_workspace(tmp_path, data=replace(DATA, test=unlabelled)), ASKED)
    stores = stores_of_heads(given)
    assert stores is not None
    found = heads_on_test(given, stores)
    assert len(found) == 4 and all(math.isnan(head.test_accuracy) and head.val_accuracy > 0 for head in found)


def test_teachers_run_over_the_test_split_where_their_heads_are_asked_for(tmp_path: Path) -> None:
    given = made_workspace(tmp_path)
    assert given.extracted_splits() == ("train", "validation") and stores_of_heads(given) is None
    asked = override(given, ASKED)
    assert asked.extracted_splits() == ("train", "validation", "test")
    assert not open_setup(asked, "search").stores["test"].features, "students are tested on every sample, as before"
    without_finals = override(asked, {"search.final.seeds": 0})
    assert without_finals.extracted_splits() == ("train", "validation") and stores_of_heads(without_finals) is None


def test_heads_are_made_anew_where_features_or_labels_changed_or_the_file_is_damaged(tmp_path: Path) -> None:
    given = override(made_workspace(tmp_path), ASKED)
    search, stores = Workspace.at(tmp_path).search("main"), stores_of_heads(given)
    assert stores is not None
    update_heads(search, given, stores)
    heads = read_heads(search)

    file = tmp_path / "searches" / "main" / "teacher_heads.parquet"
    file.write_bytes(file.read_bytes()[:-1])
    update_heads(search, given, stores)
    assert read_heads(search) == heads

    update_heads(search, override(given, {"train.labels_per_class": 2}), stores)
    assert read_heads(search) != heads
    update_heads(search, given, stores)
    assert read_heads(search) == heads

    write_heads(search, HEADS, _made_of(search) or "")
    update_heads(search, given, stores)
    assert read_heads(search) == HEADS, "those that are there stay"
    stores["train"].feature_manifests[1]["shards"][0]["sha256"] = "of other features"
    update_heads(search, given, stores)
    assert read_heads(search) == heads


def test_missing_features_of_test_are_told_before_the_search_starts(tmp_path: Path) -> None:
    given = override(made_workspace(tmp_path), ASKED)
    shutil.rmtree(tmp_path / "features" / "two" / "test")
    with pytest.raises(InputError, match="No features of teacher 'two' for split 'test'.*Run 'aft-ray extract'"):
        stores_of_heads(given)


def test_heads_are_for_one_class_per_sample() -> None:
    asked = override(recipe_at(Path("unused")), ASKED)
    assert task_faults(asked, "classification") == []
    assert task_faults(asked, "regression") == [
        "search.final.teacher_heads needs one class per sample; the task is regression. Leave it out."
    ]


def test_the_table_of_methods_ends_with_the_teachers_own_heads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = recipe_at(tmp_path / "work")
    write_everything(given)
    search = Workspace.at(given.workspace).search(given.run)
    before = Path(report(given)).read_text()
    assert "teacher&#39;s" not in before and read_heads(search) == []
    write_heads(search, HEADS)
    assert read_heads(search) == HEADS

    page = Path(report(given)).read_text()
    methods = page[page.index("<tbody>") : page.index("</tbody>")]
    rows = [row for row in methods.split("</tr>") if "teacher&#39;s" in row]
    assert [("linear head" in row, "69.44" in row, "43.21" in row) for row in rows] == [
        (True, True, False),
        (False, False, True),
    ]
    assert f"{(1 - 0.6944) / (1 - 0.84):.2f}" in rows[0], "its error over the mean error of standard transfer"
    assert methods.index("standard transfer") < methods.index("teacher&#39;s linear head")
    assert (tmp_path / "work" / "report" / "teacher_heads.csv").read_text().splitlines()[
        1
    ] == "small,linear,0.71,0.6944"
    show_leaderboard(given)
    shown = capsys.readouterr().out
    assert "teacher's linear head" in shown and "69.44" in shown


def test_heads_of_another_search_are_refused(tmp_path: Path) -> None:
    given = recipe_at(tmp_path)
    searches = [Workspace.at(given.workspace).search(name) for name in ("one", "two")]
    for search in searches:
        write_heads(search, HEADS)
    searches[0].write("teacher_heads.parquet", searches[1].read("teacher_heads.parquet"))
    with pytest.raises(InputError, match="of another run or search"):
        read_heads(searches[0])
