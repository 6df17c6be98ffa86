"""Which weights learn how fast, and the average of the weights."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from aft_ray.models.students import build_student
from aft_ray.models.students.linear_probe import LinearProbe
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import StudentConfig
from aft_ray.regularizers import build_regularizer
from aft_ray.training.averages import Averages
from aft_ray.training.build import build_task
from aft_ray.training.inputs.batch import Batch
from aft_ray.training.optimise import build_optimizer, layer_depths, learning_rate_factor
from aft_ray.training.task import TransferTask
from tests.helpers.training import DATA, TRAIN, recipe, run

CPU = torch.device("cpu")


def rates(model: str = "tiny:cnn", **train: Any) -> dict[str, float]:
    """The peak learning rate of every weight of the student, by name."""
    given = recipe(learning_rate=0.1, **train).model_copy(update={"student": StudentConfig(model=model)})
    task = build_task(given, DATA, CPU, weights_follow=False)
    names = {id(parameter): name for name, parameter in task.student.named_parameters()}
    groups = build_optimizer(task, given).param_groups[:-1]
    return {names[id(weight)]: group["peak_lr"] for group in groups for weight in group["params"]}


def test_early_blocks_learn_slower_and_the_head_at_its_own_rate() -> None:
    found = rates("timm:test_vit", layer_decay=0.5, head_learning_rate=0.7)
    depths = layer_depths(build_student(StudentConfig(model="timm:test_vit"), 3))
    top = max(depths.values())
    assert top >= 2 and set(depths.values()) == set(range(top + 1))
    for name, rate in found.items():
        assert rate == pytest.approx(0.7 if name.startswith("head.") else 0.1 * 0.5 ** (top - depths[name])), name
    first = next(name for name in found if "patch_embed" in name)
    last = next(name for name in reversed(found) if f"blocks.{top - 1}." in name)
    assert found[first] == pytest.approx(0.1 * 0.5**top) and found[last] == pytest.approx(0.1)


def test_without_such_settings_all_weights_learn_alike() -> None:
    assert set(rates().values()) == {0.1}


def test_frozen_steps_change_the_head_alone(tmp_path: Path) -> None:
    given = recipe(steps=4, frozen_steps=3, evaluate_every=3)
    torch.manual_seed(given.train.seed)
    before = build_student(given.student, len(TRAIN.classes)).state_dict()
    kept: dict[str, torch.Tensor] = {}

    def keep(metrics: dict[str, Any], state: Any) -> None:
        if metrics["step"] == 3:
            kept.update(state.task)

    from aft_ray.store.workspace import Workspace
    from aft_ray.training.fit import fit

    fit(given, DATA, directory=Workspace.at(tmp_path), report=keep)
    same = {name: torch.equal(before[name], kept[f"student.{name}"]) for name in before}
    assert {name for name, is_same in same.items() if not is_same} == {"head.weight", "head.bias"}


def test_a_student_without_a_head_is_told() -> None:
    from aft_ray.training.optimise import _student_groups

    student = build_student(StudentConfig(model="tiny:cnn"), 3)
    student.last, student.head = student.head, torch.nn.Identity()
    with pytest.raises(InputError, match="last layer by its name, `head`; this student has none"):
        _student_groups(student, recipe(layer_decay=0.9).train)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("cosine", [0.5, 1.0, 1.0, 0.5, 0.0]),
        ("linear", [0.5, 1.0, 1.0, 0.5, 0.0]),
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0]),
        ("warmup_stable_decay", [0.5, 1.0, 1.0, 1.0, 0.0]),
    ],
)
def test_schedules_at_the_start_after_warm_up_half_way_and_at_the_end(schedule: str, expected: list[float]) -> None:
    settings = recipe(schedule=schedule, warmup_steps=2, steps=102).train
    found = [learning_rate_factor(step, settings) for step in (0, 1, 2, 52, 102)]
    assert found == pytest.approx(expected, abs=1e-9)


def test_an_average_follows_its_formula_and_swaps_with_the_weights() -> None:
    student = torch.nn.Linear(1, 1, bias=False)
    averages = Averages(student, decay=0.5)
    expected = float(student.weight.item())
    for step, value in enumerate((1.0, 3.0, -2.0)):
        with torch.no_grad():
            student.weight.fill_(value)
        averages.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    averages.swap()
    assert student.weight.item() == pytest.approx(expected)
    averages.swap()
    assert student.weight.item() == -2.0


def test_the_average_is_evaluated_and_kept_and_training_goes_on_with_the_weights(tmp_path: Path) -> None:
    plain, averaged = recipe(steps=8), recipe(steps=8, ema=0.99)
    one, two = run(plain, tmp_path / "plain"), run(averaged, tmp_path / "averaged")
    assert [line["loss"] for line in one] == [line["loss"] for line in two]
    assert [line["val_loss"] for line in one] != [line["val_loss"] for line in two]
    steps = [json.loads((tmp_path / n / "student" / "student.json").read_text())["step"] for n in ("plain", "averaged")]
    weights = [load_file(tmp_path / n / "student" / "student.safetensors") for n in ("plain", "averaged")]
    assert steps[0] != steps[1] or not torch.equal(weights[0]["head.weight"], weights[1]["head.weight"])


def test_balanced_weights_count_rare_classes_as_much_as_common_ones() -> None:
    task = build_task(recipe(class_weights="balanced"), DATA, CPU, weights_follow=False)
    counts = torch.bincount(torch.from_numpy(TRAIN.labels))
    assert task.class_weights is not None
    assert (task.class_weights * counts).tolist() == pytest.approx([len(TRAIN) / 3] * 3)
    assert "class_weights" not in task.state_dict()


def test_a_batch_whose_weights_add_up_to_less_than_one_has_their_mean_all_the_same() -> None:
    """As torch's own cross-entropy: rows of a common class alone weigh less than one row together."""
    weights, none = torch.tensor([0.1, 3.0, 3.0]), build_regularizer("none", student_dim=3, teacher_dims=())
    task = TransferTask(LinearProbe(3, 3), none, 0.0, class_weights=weights)
    inputs, labels = torch.randn(4, 3), torch.zeros(4, dtype=torch.long)
    found = task(Batch(inputs, labels, torch.zeros(4, 0)))["task_loss"]
    expected = torch.nn.functional.cross_entropy(task.student(inputs)[0], labels, weight=weights)
    torch.testing.assert_close(found, expected)


@pytest.mark.processes
@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_a_step_does_not_import_torch_s_compiler(optimizer: str, deterministic: bool) -> None:
    """Two seconds of every process that trains. Where torch changes so that it does, this test tells."""
    code = f"""
import sys, torch
from aft_ray.training.build import build_task, choose_algorithms
from aft_ray.training.optimise import Optimisation
from tests.helpers.training import DATA, recipe

given = recipe(optimizer={optimizer!r}, deterministic={deterministic})
choose_algorithms(given.train)
task = build_task(given, DATA, torch.device("cpu"), weights_follow=False)
optimisation = Optimisation(task, given, torch.device("cpu"))
before = [weight.clone() for weight in task.student.parameters()]
for step in range(2):
    optimisation.start(step)
    sum(weight.square().sum() for weight in task.student.parameters()).backward()
    optimisation.step()
optimisation.load_state_dict(optimisation.state_dict())
assert not all(map(torch.equal, before, task.student.parameters()))
assert torch.are_deterministic_algorithms_enabled() is {deterministic}
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_the_optimizer_is_torch_s_to_the_last_digit(optimizer: str) -> None:
    given = recipe(optimizer=optimizer, weight_decay=0.1)
    ours, theirs = (build_task(given, DATA, CPU, weights_follow=False) for _ in range(2))
    own = build_optimizer(ours, given)
    kinds: dict[str, Any] = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "sgd": partial(torch.optim.SGD, momentum=0.9),
    }
    plain = kinds[optimizer](theirs.student.parameters(), lr=0.01, weight_decay=0.1, fused=True)
    own.param_groups[0]["lr"] = 0.01
    for _ in range(3):
        for task, used in ((ours, own), (theirs, plain)):
            used.zero_grad()
            torch.stack([weight.sin().sum() for weight in task.student.parameters()]).sum().backward()
            used.step()
    assert all(map(torch.equal, ours.student.parameters(), theirs.student.parameters()))
