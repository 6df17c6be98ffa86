"""`import aft_ray`: the verbs as functions, lazily, and results that show themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest

import aft_ray
from aft_ray.commands.functions.results import Result, Scores
from aft_ray.recipe.errors import InputError
from aft_ray.study.config import load_study
from tests.helpers import ROOT
from tests.study.test_config import written
from tests.study.test_report import finished

pytestmark = pytest.mark.slow

NAMES = {
    *("load", "prepare", "extract", "rank", "train", "search", "study", "evaluate", "export"),
    *("load_student", "build_regularizer", "Recipe"),
}
CONTENT = {"workspace": "w", "dataset": {"name": "mnist5k"}, "student": {"model": "tiny:cnn"}}


def run(code: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd, timeout=300)


def test_each_name_is_there_can_be_called_and_is_listed() -> None:
    assert NAMES <= set(aft_ray.__all__) and set(aft_ray.__all__) <= set(dir(aft_ray))
    assert all(callable(getattr(aft_ray, name)) for name in NAMES)
    with pytest.raises(AttributeError, match="has no attribute 'tarin'"):
        aft_ray.tarin  # noqa: B018


def test_nothing_is_imported_before_it_is_used() -> None:
    heavy = "{'torch', 'ray', 'pandas', 'pydantic', 'numpy'} & set(sys.modules)"
    done = run(f"import sys, aft_ray; print({heavy}); aft_ray.load, aft_ray.search; print({heavy})")
    assert done.stdout.splitlines() == ["set()", "{'pydantic'}"], done.stderr


def test_a_folder_that_was_imported_can_be_called_as_well() -> None:
    done = run("import aft_ray, aft_ray.search.space; from aft_ray.search import space; aft_ray.search(None)")
    assert "AttributeError: 'NoneType' object has no attribute" in done.stderr  # the verb was reached
    assert "TypeError" not in done.stderr


def test_a_recipe_comes_from_a_file_or_a_dictionary_with_changes(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("workspace: w\ndataset: {name: mnist5k}\nstudent: {model: 'tiny:cnn'}\n")
    of_file = aft_ray.load(tmp_path / "recipe.yaml", {"train.steps": 7})
    assert of_file == aft_ray.load(CONTENT, ["train.steps=7"]) == aft_ray.load(CONTENT, {"train.steps": 7})
    assert isinstance(of_file, aft_ray.Recipe) and of_file.train.steps == 7


def test_a_finished_study_is_read_without_a_cluster(tmp_path: Path) -> None:
    path = written(tmp_path)
    names = ("digits-few", "digits-all", "scans-few", "scans-all")
    finished(load_study(path), *names)
    found = aft_ray.study(path, {"resources.wait_s": 5})
    assert list(found.table()["method"]) == ["aft", "kd"] and set(found.settings()["setting"]) == {*names}
    assert found.remarks[0].startswith("AFT: 0.7") and "AFT: 0.7" in Path(found.page).read_text()
    with pytest.raises(InputError, match="Unknown key 'train.stepz'"):
        aft_ray.study(path, {"train.stepz": 5})
    for wrong in (-1, 0, 1.5):
        with pytest.raises(InputError, match=f"^at_once is {wrong}; it must be a whole number above 0"):
            aft_ray.study(path, at_once=cast(int, wrong))


def test_faults_come_as_one_error_with_a_line_each(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Unknown key 'trian'"):
        aft_ray.load(CONTENT | {"trian": {}})
    with pytest.raises(InputError, match="Run 'aft-ray prepare' first|no samples"):
        aft_ray.train(aft_ray.load(CONTENT | {"workspace": str(tmp_path)}, {"regularizer.name": "none"}))


def test_a_result_shows_its_title_and_rows_and_no_markup_of_the_data() -> None:
    result = Result("Samples in <w>", [{"class": "<b>", "train": 3}])
    assert result.table().shape == (1, 2)
    assert repr(result).splitlines()[0] == "Samples in <w>" and "<b>" in repr(result)
    assert "&lt;w&gt;" in result._repr_html_() and "&lt;b&gt;" in result._repr_html_()


def test_samples_and_a_run_are_made_and_read_in_this_process(tmp_path: Path, image_folder: Path) -> None:
    content = CONTENT | {
        "workspace": str(tmp_path / "work"),
        "dataset": {"source": "image_folder", "path": str(image_folder)},
        "regularizer": {"name": "none"},
        "train": {"steps": 4, "global_batch_size": 8},
    }
    recipe = aft_ray.load(content)
    samples = aft_ray.prepare(recipe)
    assert samples.table()[["train", "validation", "test"]].to_numpy().sum() == 60
    run = aft_ray.train(recipe)
    assert 0 <= run.score <= 1 and list(run.table()["step"])[-1] == 4 and "step" in repr(run)
    assert run.student().training is False
    scores = aft_ray.evaluate(recipe)
    assert scores.scores["accuracy"] == pytest.approx(run.score) and len(scores.table()) == 2
    exported = aft_ray.export(recipe)
    assert Path(exported.directory).is_dir() and len(exported.table())


def test_a_notebook_shows_what_a_result_says_below_its_table() -> None:
    scores = Scores("Run 'main'", [{"class": "a", "recall": 0.5}], {"accuracy": 0.25})
    assert repr(scores).endswith("accuracy 0.2500") and "<p>accuracy 0.2500</p>" in scores._repr_html_()


def test_a_recipe_comes_from_another_one() -> None:
    recipe = aft_ray.load(CONTENT, {"train.preset": "finetune"})
    changed = aft_ray.load(recipe, ["train.steps=7"])
    assert changed == aft_ray.load(recipe, {"train.steps": 7}) != recipe == aft_ray.load(recipe)
