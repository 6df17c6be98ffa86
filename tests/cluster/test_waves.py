"""Teachers that have no room together take turns; a teacher that has none even alone is told."""

from __future__ import annotations

import pytest

from aft_ray.cluster.waves import in_words, waves
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import TeacherConfig


def teacher(name: str, num_gpus: float, num_actors: int = 1) -> TeacherConfig:
    return TeacherConfig(name=name, model="timm:x", num_gpus=num_gpus, num_actors=num_actors)


def names(teachers: list[TeacherConfig], *nodes: dict[str, float]) -> list[str]:
    return ["".join(one.name for one in wave) for wave in waves(teachers, nodes)]


def test_the_largest_come_first_and_the_small_fill_the_room_beside_them() -> None:
    teachers = [teacher("a", 0.5), teacher("b", 1), teacher("c", 0.25), teacher("d", 1, num_actors=2), teacher("e", 0)]
    assert names(teachers, {"CPU": 16, "GPU": 8}) == ["abcde"]
    assert names(teachers, {"CPU": 16, "GPU": 2}) == ["de", "abc"]
    assert names(teachers[:3], {"CPU": 8, "GPU": 1}) == ["b", "ac"]
    assert in_words(waves(teachers[:3], [{"CPU": 8, "GPU": 1}])) == "2 waves: b | a, c"


def test_eleven_teachers_of_a_gpu_each_take_as_many_waves_as_gpus_leave() -> None:
    teachers = [teacher(f"t{number}", 1) for number in range(11)]
    assert [len(waves(teachers, [{"CPU": 8, "GPU": 1}] * nodes)) for nodes in (1, 2, 4, 8, 11)] == [11, 6, 3, 2, 1]


def test_every_teacher_that_fits_nowhere_is_told_with_its_name() -> None:
    with pytest.raises(InputError) as refused:
        waves([teacher("a", 1), teacher("b", 2), teacher("c", 1, num_actors=3)], [{"CPU": 8, "GPU": 1}])
    assert [fault.partition(" GPUs")[0] for fault in refused.value.faults] == ["Teacher 'b': 2", "Teacher 'c': 3"]
