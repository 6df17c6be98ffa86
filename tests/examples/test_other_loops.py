"""The examples of other people's training loops, run as they stand."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Any

import pytest

from aft_ray.datasets.prepare import prepare
from aft_ray.extraction.extract import extract
from aft_ray.recipe.config import Recipe
from tests.helpers.hub import save_text_model
from tests.helpers.training import TEACHERS, made_workspace

EXAMPLES = Path(__file__).parents[2] / "examples"
LONGEST = 60
"""Lines of an example, with its imports: one page."""


def example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.py")), ids=lambda file: file.stem)
def test_an_example_is_read_at_a_glance(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= LONGEST


def test_lightning_trains_a_student_and_its_gates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    workspace = made_workspace(tmp_path / "work").workspace
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = example("lightning_module").main(workspace, *TEACHERS, steps=4)
    assert trainer.global_step == 4 and trainer.callback_metrics["regularization"] > 0
    fresh = example("lightning_module").Student(3, [5, 3])
    before, after = fresh.aft.state_dict(), trainer.model.aft.state_dict()
    assert any(not after[name].equal(before[name]) for name in before)


@pytest.mark.ray
def test_transformers_trainer_trains_and_saves_a_student(cluster: None, tmp_path: Path) -> None:
    model = save_text_model("bert", tmp_path / "bert")
    words = {"pets": "the cat sits", "money": "stock market"}
    rows = [f"{label},{text} {'dog ' * (n % 5)}" for n in range(40) for label, text in words.items()]
    (tmp_path / "texts.csv").write_text("label,text\n" + "\n".join(rows) + "\n")
    recipe = Recipe.model_validate(
        {
            "workspace": str(tmp_path / "work"),
            "dataset": {
                "source": "csv",
                "path": str(tmp_path / "texts.csv"),
                "columns": {"text": "text", "label": "label"},
            },
            "teachers": [{"name": "bert", "model": f"transformers:{model}"}],
            "student": {"model": "tiny:text"},
        }
    )
    prepare(recipe)
    extract(recipe)
    found = example("transformers_trainer").main(
        recipe.workspace, str(model), "bert", beta=0.1, epochs=20, learning_rate=1e-3, output=str(tmp_path / "trainer")
    )
    assert found["eval_accuracy"] > 0.9  # the words tell it
    assert (tmp_path / "trainer" / "model.safetensors").exists()
