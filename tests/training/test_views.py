"""Views of a teacher: the student sees the part of a picture that its target features were made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aft_ray.commands.check import open_setup
from aft_ray.datasets.prepare import prepare
from aft_ray.extraction.plan import plan_extraction
from aft_ray.models.teachers import describe_views
from aft_ray.models.views import WHOLE, View, all_numbers
from aft_ray.recipe.config import Recipe, override
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import TeacherConfig
from aft_ray.store.workspace import Workspace
from aft_ray.training.augment import Augmentation
from aft_ray.training.check import setting_faults
from aft_ray.training.fit import fit
from aft_ray.training.inputs.data import Data, load_data
from aft_ray.training.inputs.feed import Feed
from tests.datasets.named.test_hub_tasks import extract_here
from tests.helpers import extraction
from tests.helpers.training import TEACHERS, TEST, TRAIN, VALIDATION, recipe, run, timeless

CPU = torch.device("cpu")


def data(views: int) -> Data:
    """The made splits; every view's features are those of the whole plus ten times its number."""
    splits = []
    for split in (TRAIN, VALIDATION):
        features = dict(split.features)
        for name in TEACHERS:
            features |= {f"{name}.view{n}": split.features[name] + np.float16(10 * n) for n in range(1, views)}
        splits.append(replace(split, features=features))
    return Data(splits[0], splits[1], TEST)


def feeds(given: Recipe, workers: int = 1) -> list[Feed]:
    return [Feed(given, data(given.train.views).train, TEACHERS, CPU, rank, workers) for rank in range(workers)]


def test_a_teacher_s_view_and_the_student_s_show_the_same_part() -> None:
    side = torch.linspace(0, 1, 64)
    picture = torch.stack([side[:, None].expand(64, 64), side[None].expand(64, 64), side[:, None] * side[None]], 2)
    pictures = (255 * picture).round().to(torch.uint8).expand(20, 64, 64, 3)
    ids = [f"s{number}" for number in range(20)]
    augment = Augmentation(recipe(augment="light").train, ["image"])
    numbers = torch.from_numpy(all_numbers(ids, [3] * 20))
    students = augment.pictures(pictures, torch.rand(20, 16), numbers)
    teachers = np.stack([View(3, flip=True).of(p.numpy(), name) for p, name in zip(pictures, ids, strict=True)])
    errors = np.abs(students.numpy().astype(int) - teachers.astype(int))
    assert errors.max() <= 8 and errors.mean() < 1
    assert len({view.tobytes() for view in teachers}) == 20
    whole = torch.tensor([WHOLE]).expand(20, 5)
    assert (augment.pictures(pictures, torch.rand(20, 16), whole).int() - pictures.int()).abs().max() <= 1


def test_each_row_has_the_features_of_the_view_that_its_picture_shows() -> None:
    (feed,) = feeds(recipe(augment="light", views=3))
    (batch,) = feed._rows(2)
    indices = feed.indices(2)
    assert batch.views is not None
    chosen = ((batch.teacher_features[:, 0] - torch.from_numpy(TRAIN.features["one"][indices, 0])) / 10).round().int()
    assert set(chosen.tolist()) == {0, 1, 2}
    np.testing.assert_array_equal(batch.views.numpy(), all_numbers(TRAIN.sample_ids[indices], chosen.tolist()))


def test_two_workers_draw_the_views_that_one_draws() -> None:
    given = recipe(augment="strong", views=4)
    (one,), two = feeds(given), feeds(given, 2)
    whole, parts = next(one.steps(5)).student, [next(feed.steps(5)).student for feed in two]
    for rank, part in enumerate(parts):
        assert torch.equal(part.teacher_features, whole.teacher_features[rank::2])
        assert torch.equal(part.inputs, whole.inputs[rank::2])  # type: ignore[arg-type]


def test_a_resumed_run_draws_the_same_views(tmp_path: Path) -> None:
    given = recipe(augment="light", views=2, steps=6)
    options: dict[str, Any] = {"data": data(2)}
    expected = run(given, tmp_path / "undisturbed", **options)
    assert timeless(run(override(given, {"train.views": 1}), tmp_path / "one", **options)) != timeless(expected)

    states: list[Any] = []
    fit(given, data(2), directory=Workspace.at(tmp_path / "cut"), report=lambda m, state: states.append(state))
    states[2].save(Workspace.at(tmp_path / "kept"))
    resumed = run(given, tmp_path / "resumed", resume=Workspace.at(tmp_path / "kept"), **options)
    assert timeless(resumed) == timeless(expected)


def test_extract_adds_views_beside_the_features_that_are_there(tmp_path: Path, image_folder: Path) -> None:
    one = extraction.recipe(tmp_path, image_folder, "vit", "resnet")
    prepare(one)
    extract_here(one)
    features = tmp_path / "work" / "features"
    before = {path: path.read_bytes() for path in features.rglob("*") if path.is_file()}
    two = override(one, {"train.views": 2, "train.augment": "light", "train.global_batch_size": 8})
    with pytest.raises(InputError, match="No features of teacher 'vit.view1' for split 'train'"):
        open_setup(two, "train")
    assert {name for shard in plan_extraction(two).missing for name in shard.teachers} == {"vit.view1", "resnet.view1"}
    extract_here(two)
    assert not plan_extraction(two).missing and not plan_extraction(one).missing
    assert {path: path.read_bytes() for path in before} == before
    samples = load_data(two, open_setup(two, "train").stores).train
    assert list(samples.feature_dims) == ["vit", "vit.view1", "resnet", "resnet.view1"]
    first = np.arange(5)
    assert not np.allclose(samples.features_of(first, ["vit"]), samples.features_of(first, ["vit.view1"]))
    with pytest.raises(InputError, match="vit.view1"):
        open_setup(override(two, {"train.flip": False}), "train")


def test_what_has_no_views_is_refused() -> None:
    assert setting_faults(recipe(views=2)) == [
        "train.views has no use without train.augment: set augment to light or strong, or views to 1."
    ]
    words = TeacherConfig(name="words", model="jobs.benchmarks.own_models:HashedWords")
    assert list(describe_views([words], None, 1, flip=True)) == ["words"]
    with pytest.raises(InputError, match="Teacher 'words' reads texts, which have no views: set train.views to 1."):
        describe_views([words], None, 2, flip=True)
