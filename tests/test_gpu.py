"""What a GPU alone can show: the same numbers as the CPU, a device that runs out of memory, actors that have one and actors
that have none. Skipped where torch finds no GPU."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from aft_ray.commands.check import open_setup
from aft_ray.datasets.prepare import prepare
from aft_ray.export.evaluate import evaluate
from aft_ray.export.predict import predict
from aft_ray.export.student import load_student
from aft_ray.extraction.estimate import plan
from aft_ray.extraction.extract import extract
from aft_ray.extraction.features import embed
from aft_ray.models.images import normalise
from aft_ray.models.teachers import build_teacher, describe_teacher
from aft_ray.recipe.config import Recipe, override
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import TeacherConfig
from aft_ray.search.search import search
from aft_ray.store.side_by_side import open_store
from aft_ray.store.workspace import Workspace
from aft_ray.training.runs import RunDirectory
from aft_ray.training.train import train
from tests.helpers import hub
from tests.helpers.extraction import recipe as extraction_recipe
from tests.helpers.reference_losses import GOLDEN_CASES, assert_gradient, golden_case, golden_parameter
from tests.helpers.regularizers import tensors
from tests.helpers.training import killed_after, recipe, run, saved_weights, timeless

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")
CPU, GPU = torch.device("cpu"), torch.device("cuda")


def relative_error(found: Any, expected: Any) -> float:
    """The largest error of a row, relative to the row's length."""
    found, expected = (torch.as_tensor(x).double().cpu() for x in (found, expected))
    return float(((found - expected).norm(dim=1) / expected.norm(dim=1)).max())


# ---- the method -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [case for case in GOLDEN_CASES if case != "case1/rkd"])
def test_value_and_gradients_equal_the_reference(case: str) -> None:
    regularizer, student, teacher, array = golden_case(case)
    student = tuple(part.detach().to(GPU).requires_grad_() for part in tensors(student))
    regularizer = regularizer.to(GPU)
    value = regularizer(student if len(student) > 1 else student[0], teacher.to(GPU))
    value.backward()
    assert value.item() == pytest.approx(float(array("loss")), rel=1e-9)
    for name, parameter in regularizer.named_parameters():
        assert parameter.grad is not None
        assert_gradient(parameter.grad.cpu(), array(f"grad{golden_parameter(name)}"))
    if len(student) == 1:
        assert student[0].grad is not None
        assert_gradient(student[0].grad.cpu(), array("grad_student"))


# ---- teachers ---------------------------------------------------------------------------------------------------------


def small_teacher(model: str, place: Path, **values: object) -> TeacherConfig:
    given = {"name": model, "model": f"timm:test_{model}", "weights": str(saved_weights(model, place)), "num_gpus": 1}
    return TeacherConfig.model_validate(given | values)


def crops_for(config: TeacherConfig, count: int) -> np.ndarray:
    transform = describe_teacher(config).transform
    assert transform is not None
    return np.random.default_rng(0).integers(0, 256, (count, transform.size, transform.size, 3), dtype=np.uint8)


@pytest.fixture
def all_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of fp32, for convolutions in this process."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.parametrize("model", ["efficientnet", "resnet", "vit"])
@pytest.mark.parametrize(("precision", "error"), [("fp32", 1e-5), ("fp16", 1e-2), ("bf16", 5e-2)])
def test_features_are_those_of_the_cpu(model: str, precision: str, error: float, tmp_path: Path) -> None:
    config = small_teacher(model, tmp_path, precision=precision)
    crops = crops_for(config, 17)
    exact, _ = embed(build_teacher(config.model_copy(update={"precision": "fp32"}), CPU), crops, 17)
    found, _ = embed(build_teacher(config, GPU), crops, 5)
    assert relative_error(found, exact) < error


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_features_are_those_of_a_plain_loop_on_the_same_gpu(precision: str, tmp_path: Path, all_digits: None) -> None:
    config = small_teacher("efficientnet", tmp_path, precision=precision)
    crops, transform = crops_for(config, 16), describe_teacher(config).transform
    assert transform is not None
    torch.manual_seed(0)
    model = timm.create_model("test_efficientnet").eval()
    model.reset_classifier(0)
    images = normalise(torch.from_numpy(crops), transform)
    with torch.no_grad(), torch.autocast("cuda", torch.float16, enabled=precision == "fp16"):
        expected = torch.cat([model.to(GPU)(batch.to(GPU)) for batch in images.split(4)])
    found, _ = embed(build_teacher(config, GPU), crops, 4)
    assert relative_error(found, expected) < (1e-6 if precision == "fp32" else 1e-3)


@pytest.mark.parametrize("family", ["bert", "t5", "llama"])
def test_texts_have_the_cpu_s_features(family: str, tmp_path: Path) -> None:
    place = hub.save_text_model(family, tmp_path)
    config = TeacherConfig.model_validate({"name": "mine", "model": f"transformers:{place}", "num_gpus": 1})
    exact, _ = embed(build_teacher(config, CPU), hub.TEXTS, 3)
    found, _ = embed(build_teacher(config, GPU), hub.TEXTS, 2)
    assert relative_error(found, exact) < 1e-5


def test_a_compiled_teacher_has_the_same_features(tmp_path: Path) -> None:
    config = small_teacher("resnet", tmp_path)
    crops = crops_for(config, 9)
    plain, _ = embed(build_teacher(config, GPU), crops, 4)
    found, _ = embed(build_teacher(config.model_copy(update={"compile": True}), GPU), crops, 4)
    assert relative_error(found, plain) < 1e-4


@pytest.fixture
def little_memory() -> Iterator[None]:
    """This process may take some 700 MiB of the device, of which the library's own are no part."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(700 * 2**20 / torch.cuda.get_device_properties(0).total_memory)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_where_the_device_has_no_memory_left_the_batch_is_halved(little_memory: None, tmp_path: Path) -> None:
    config = small_teacher("resnet", tmp_path, image_size=256)
    crops = crops_for(config, 512)
    teacher = build_teacher(config, GPU)
    found, batch_size = embed(teacher, crops, 512)
    assert 1 <= batch_size < 512
    few, unchanged = embed(teacher, crops[-8:], 8)
    assert unchanged == 8 and relative_error(found[-8:], few) < 1e-4
    assert embed(teacher, crops, batch_size)[1] == batch_size


# ---- extraction -------------------------------------------------------------------------------------------------------


@pytest.mark.ray
def test_two_teachers_share_a_gpu_and_a_third_has_none(cluster: None, tmp_path: Path, image_folder: Path) -> None:
    given = extraction_recipe(tmp_path, image_folder, "efficientnet", "resnet")
    teachers = [teacher.model_dump() | {"num_gpus": 0.5, "batch_size": 100} for teacher in given.teachers]
    place = {"model": "tests.helpers.own_teachers:Place"}
    teachers += [{"name": "on-gpu", "num_gpus": 0.01, **place}, {"name": "on-cpu", **place}]
    given = override(given, {"teachers": [*teachers[:1], teachers[1] | {"num_gpus": 0.49}, *teachers[2:]]})
    prepare(given)
    assert plan(given).idle_gpus == 0
    extract(given)
    store = open_store(given.workspace, "train", given.teacher_names())
    directories = [Workspace.at(given.workspace).features(name, "train") for name in given.teacher_names()]
    widths = [directory.read_features(0)[1].shape[1] for directory in directories]
    shard = store.read_shard(0)
    half, exact, on_gpu, on_cpu = np.split(shard["features"], np.cumsum(widths)[:-1], axis=1)
    assert on_gpu.all() and not on_cpu.any()
    for config, found, error in zip(given.teachers, (half, exact), (1e-3, 1e-6), strict=False):
        transform = describe_teacher(config).transform
        assert transform is not None
        crops = np.stack([transform((image_folder / name).read_bytes()) for name in shard["sample_id"]])
        expected, _ = embed(build_teacher(config, GPU), crops, 100)
        assert relative_error(found, expected) < error
    last = json.loads(Path(given.workspace, "extract.jsonl").read_text().splitlines()[-1])
    assert all(0 < teacher["busy"] <= 1 for teacher in last["teachers"].values())


@pytest.mark.ray
def test_a_lowered_batch_is_recorded(cluster: None, tmp_path: Path, image_folder: Path) -> None:
    given = extraction_recipe(tmp_path, image_folder, "resnet")
    tight = {"model": "tests.helpers.own_teachers:Tight", "num_gpus": 1, "batch_size": 8}
    given = override(given, {"teachers": [{"name": "tight", **tight}]})
    prepare(given)
    extract(given)
    events = [json.loads(line) for line in Path(given.workspace, "extract.jsonl").read_text().splitlines()]
    assert [line["event"] for line in events] == ["start", "batch_size_lowered", "end"]
    assert events[-1]["teachers"]["tight"]["batch_size"] == 2


# ---- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["none", "aft", "aft_rbf", "kd", "rkd", "ft", "btune"])
def test_training_follows_the_cpu(method: str, tmp_path: Path, all_digits: None) -> None:
    given = recipe(method, steps=6, learning_rate=0.0005)
    there = run(override(given, {"train.use_gpu": True}), tmp_path / "gpu")
    here = run(given, tmp_path / "cpu")
    for key in ("loss", "task_loss", "regularization", "grad_norm", "val_loss"):
        np.testing.assert_allclose([x[key] for x in there], [x[key] for x in here], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "bf16"},
        {"precision": "fp16"},
        {"precision": "fp16", "accumulation_steps": 3, "clip_norm": 1.0},
        {"compile": True},
        {"optimizer": "sgd", "learning_rate": 0.02},
        {"optimizer": "adamw", "weight_decay": 0.01},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_every_way_to_train_learns(settings: dict[str, Any], tmp_path: Path) -> None:
    history = run(recipe(use_gpu=True, **{"steps": 60, "evaluate_every": 20, **settings}), tmp_path)
    assert history[-1]["val_accuracy"] > 0.6 and history[-1]["loss"] < history[0]["loss"]


@pytest.mark.parametrize("student", [{}, {"model": "timm:mobilenetv3_small_050", "image_size": 32}])
def test_a_resumed_run_repeats_an_undisturbed_one(student: dict[str, Any], tmp_path: Path) -> None:
    given = override(recipe(use_gpu=True, deterministic=True), {"student": student} if student else {})
    whole = run(given, tmp_path / "whole")
    kept = killed_after(5, given, tmp_path / "killed")
    assert timeless(run(given, tmp_path / "resumed", resume=kept)) == timeless(whole)


def test_a_loss_that_is_not_finite_is_found_at_its_step(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not finite at step \d+\. Its batch has samples s\d+"):
        run(recipe(use_gpu=True, learning_rate=1e18, steps=60, evaluate_every=60), tmp_path)
    assert (tmp_path / "bad_batch.json").exists()


@pytest.mark.ray
def test_a_run_on_a_gpu_serves_on_a_cpu(extracted: Recipe, image_folder: Path) -> None:
    given = override(
        extracted,
        {"train": {"use_gpu": True, "steps": 40, "evaluate_every": 20, "global_batch_size": 20}},
    )
    place = train(open_setup(given, "train"))
    assert [line["step"] for line in RunDirectory(place).history()] == [20, 40]
    student = load_student(place)
    assert {weight.device for weight in student.state_dict().values()} == {CPU}
    on_gpu = predict(given, str(image_folder), output=f"{given.workspace}/predictions/on-gpu")
    on_cpu = predict(
        override(given, {"train.use_gpu": False}), str(image_folder), output=f"{given.workspace}/predictions/on-cpu"
    )
    assert on_gpu["counts"] == on_cpu["counts"] and on_gpu["num_errors"] == 0
    there, here = evaluate(given), evaluate(override(given, {"train.use_gpu": False}))
    assert there["accuracy"] == here["accuracy"] and there["nll"] == pytest.approx(here["nll"], rel=1e-2)


@pytest.mark.ray
def test_trials_share_a_gpu(extracted: Recipe) -> None:
    given = override(
        extracted,
        {
            "train": {"use_gpu": True, "steps": 12, "evaluate_every": 4, "global_batch_size": 20},
            "search": {"compare": ["none", "aft"], "beta": [0.5, 5], "gpus_per_trial": 0.25, "final": {"seeds": 1}},
        },
    )
    rows = search(open_setup(given, "search"))
    assert {row["status"] for row in rows} <= {"finished", "stopped"} and {row["num_gpus"] for row in rows} == {0.25}
    assert Workspace.at(given.workspace).search(given.run).has("trials.parquet")


def test_no_step_waits_for_the_device(tmp_path: Path) -> None:
    """What waits is what evaluates, and every 50 steps the look whether the loss is finite."""
    given = recipe(use_gpu=True, steps=40, evaluate_every=40)
    run(given, tmp_path / "warm")
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            run(given, tmp_path / "watched", evaluate_test=False)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [f"{warning.filename}:{warning.lineno}" for warning in seen if "synchroniz" in str(warning.message)]
    assert not [place for place, count in Counter(waits).items() if count >= 40]
