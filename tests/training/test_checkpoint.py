"""A checkpoint and a trained student are taken back whole, or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import StudentConfig
from aft_ray.store.workspace import Workspace
from aft_ray.training.checkpoint import TrainingState

STUDENT = StudentConfig(model="tiny:cnn").model_dump(mode="json")
INPUTS = {"recipe": {"teachers": ["one"], "student": STUDENT}, "samples": None, "teachers": {}}
LINE = {
    **{"step": 2, "epoch": 0.5, "loss": 1.0, "task_loss": 1.0, "regularization": 0.0, "samples_per_s": 9.0},
    **{"val_accuracy": 0.5, "val_loss": 1.0},
}


def state(seed: int) -> TrainingState:
    weights = {"student.weight": torch.full((2, 2), float(seed))}
    return TrainingState(2, [LINE], INPUTS, weights, {"scale": torch.ones(1) * seed}, weights)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    state(1).save(Workspace.at(tmp_path / "mine"))
    state(2).save(Workspace.at(tmp_path / "other"))
    return tmp_path


def load(place: Path) -> TrainingState:
    return TrainingState.load(Workspace.at(place), INPUTS)


def test_a_checkpoint_comes_back_as_it_was(saved: Path) -> None:
    found = load(saved / "mine")
    assert (found.step, found.history, found.inputs) == (2, [LINE], INPUTS)
    assert torch.equal(found.task["student.weight"], torch.ones(2, 2)) and found.optimisation["scale"] == 1


@pytest.mark.parametrize("name", ["task.safetensors", "best.safetensors", "optimisation.pt"])
def test_tensors_of_another_run_are_refused(saved: Path, name: str) -> None:
    shutil.copy(saved / "other" / name, saved / "mine" / name)
    with pytest.raises(InputError) as refused:
        load(saved / "mine")
    assert refused.value.faults == [
        f"{saved}/mine/{name} is damaged: it is not the file that was written here. Delete the directory {saved}/mine."
    ]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "binary": lambda content: bytes(range(256)) * 4,
}


@pytest.mark.parametrize("listed", [True, False], ids=["with hashes", "as before"])
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["task.safetensors", "optimisation.pt", "checkpoint.json"])
def test_a_damaged_file_is_refused_by_name(saved: Path, name: str, damage: str, listed: bool) -> None:
    place = saved / "mine"
    if not listed:
        position = json.loads((place / "checkpoint.json").read_text())
        (place / "checkpoint.json").write_text(json.dumps({k: position[k] for k in ("step", "history", "inputs")}))
        assert load(place).step == 2
    path = place / name
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    with pytest.raises(InputError, match=f"{path} is damaged: .* Delete the directory {place}"):
        load(place)


def test_a_file_that_is_missing_is_named(saved: Path) -> None:
    (saved / "mine" / "best.safetensors").unlink()
    with pytest.raises(InputError, match="best.safetensors is damaged: it is missing"):
        load(saved / "mine")
