"""What can never have room is told before a sample is read, on this machine as on a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from aft_ray.cluster.preflight import check_room, least, wanted
from aft_ray.recipe.config import Recipe, override
from aft_ray.recipe.errors import InputError
from tests.helpers.training import made_workspace


def on_gpus(given: Recipe, *num_gpus: float) -> Recipe:
    teachers = [{"name": f"t{number}", "model": "timm:x", "num_gpus": count} for number, count in enumerate(num_gpus)]
    return override(given, {"teachers": teachers, "train.use_gpu": True})


def test_teachers_and_trainings_without_room_are_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aft_ray.cluster.preflight.nodes_resources", lambda: [{"CPU": 4.0}])
    given = made_workspace(tmp_path)
    check_room([given], "pipeline")
    with pytest.raises(InputError) as refused:
        check_room([on_gpus(given, 1, 2), on_gpus(given, 1)], "pipeline")
    assert [fault.partition(",")[0] for fault in refused.value.faults] == [
        "Teacher 't0': 1 GPUs are asked for",
        "Teacher 't1': 2 GPUs are asked for",
        "train.use_gpu is true",
    ]
    finished = override(given, {"teachers": [t | {"num_gpus": 1} for t in given.model_dump(mode="json")["teachers"]]})
    check_room([finished], "extract")  # its features are there: it needs no GPU any more


def test_the_largest_teacher_alone_is_enough_of_a_cluster(tmp_path: Path) -> None:
    given = override(on_gpus(made_workspace(tmp_path), 1, 1, 2), {"train.use_gpu": False})
    assert sum(bundle.get("GPU", 0) for bundle in wanted(given, "extract")) == 4
    assert sum(bundle.get("GPU", 0) for bundle in least(given, "extract")) == 2
