from __future__ import annotations

import pytest

from aft_ray.config import InputError
from aft_ray.ray_data import cpus_per_actor
from aft_ray.sections import TeacherConfig


@pytest.mark.parametrize(
    ("num_actors", "cpus", "expected"),
    [
        (1, [1], 0.1),
        (1, [2], 1.0),
        (2, [2], 0.5),
        (3, [2], 0.33),
        (2, [4], 1.0),
        (2, [16], 6.0),
        (4, [64], 12.0),
        (1, [4, 4], 3.0),
        (3, [4, 4], 1.0),
        (4, [16, 8], 4.0),
    ],
)
def test_actors_always_leave_cpus_to_read_and_fit_on_a_node(num_actors: int, cpus: list[int], expected: float) -> None:
    teachers = [TeacherConfig(name=f"t{index}", model="timm:x") for index in range(num_actors)]
    share = cpus_per_actor(teachers, [{"CPU": count} for count in cpus])
    assert share == pytest.approx(expected)
    assert share * num_actors <= max(sum(cpus) - 0.9, 0.1)


def test_gpus_that_are_not_there_are_refused() -> None:
    teachers = [TeacherConfig(name="t", model="timm:x", num_gpus=0.5, num_actors=4)]
    assert cpus_per_actor(teachers, [{"CPU": 4, "GPU": 1}] * 2) > 0
    with pytest.raises(InputError, match="2 GPUs are asked for, the cluster has 1."):
        cpus_per_actor(teachers, [{"CPU": 8, "GPU": 1}])


def test_decode_cpus_are_left_free_or_refused() -> None:
    teachers = [TeacherConfig(name="a", model="timm:x"), TeacherConfig(name="b", model="timm:x", num_gpus=1)]
    assert cpus_per_actor(teachers, [{"CPU": 16, "GPU": 1}], decode_cpus=10) == 5
    with pytest.raises(
        InputError, match="resources.decode_cpus is 15, and 1 actors beside GPUs take one CPU each; the"
    ):
        cpus_per_actor(teachers, [{"CPU": 16, "GPU": 1}], decode_cpus=15)
