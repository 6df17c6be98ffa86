"""What may join a pipeline, and how many actors a cluster has room for."""

from __future__ import annotations

from aft_ray.cluster.gang import Share, share_of
from aft_ray.cluster.growth import Addition, actors_with_room, additions
from aft_ray.recipe.actors import ActorsConfig
from aft_ray.recipe.sections import TeacherConfig

READER = {"CPU": 1.0}


def teacher(name: str, low: int, high: int, num_gpus: float = 0.0) -> TeacherConfig:
    return TeacherConfig(name=name, model="timm:x", num_actors=ActorsConfig(min=low, max=high), num_gpus=num_gpus)


def test_an_actor_joins_with_its_part_of_the_readers() -> None:
    share = Share(readers=7, reader_cpus=1.0, actor_cpus=1.0)
    found = additions([teacher("a", 4, 8, num_gpus=1)], share, [{"CPU": 11, "GPU": 4}], None, num_items=100)
    assert [addition.bundles[0] for addition in found] == [{"CPU": 1.0, "GPU": 1}] * 4
    assert sum(len(addition.bundles) - 1 for addition in found) == 7, "as many again as the first four have"
    assert max(len(addition.bundles) for addition in found) == 3


def test_teachers_take_turns_and_none_has_more_actors_than_shards() -> None:
    share = Share(readers=2, reader_cpus=1.0, actor_cpus=3.0)
    pools = [teacher("a", 1, 4), teacher("b", 1, 2)]
    of_a, of_b = {"CPU": 3.0}, {"CPU": 3.0}
    nodes = [{"CPU": 8}]
    assert additions(pools, share, nodes, None, num_items=3) == [
        Addition(1, [of_a, READER]),
        Addition(2, [of_b, READER]),
        Addition(1, [of_a, READER]),
    ]
    assert additions(pools, share, nodes, None, num_items=1) == []


def test_an_actor_and_its_readers_have_room_on_one_node_also_where_nodes_without_a_gpu_gave_the_first_many_readers() -> (
    None
):
    head, small = {"CPU": 16}, {"CPU": 4, "GPU": 1}
    pools = [teacher("a", 1, 4, num_gpus=1)]
    share = share_of(pools, [head, small])
    assert share.readers == 19
    found = additions(pools, share, [head, small], None, num_items=100)
    assert [addition.bundles for addition in found] == [[{"CPU": 1.0, "GPU": 1}, *[READER] * 3]] * 3
    assert [len(one.bundles) for one in additions(pools, share, [head, {"CPU": 1, "GPU": 1}], None, 100)] == [1, 1, 1]
    halves = additions([teacher("a", 1, 3, num_gpus=0.5)], share, [head, small], None, num_items=100)
    assert [len(addition.bundles) for addition in halves] == [2, 2]


def test_readers_that_were_asked_for_stay_as_many() -> None:
    share = Share(readers=4, reader_cpus=1.0, actor_cpus=1.0)
    found = additions([teacher("a", 1, 3)], share, [{"CPU": 8}], 4, 100)
    assert [len(addition.bundles) for addition in found] == [1, 1]


def test_a_fixed_number_does_not_grow() -> None:
    fixed = TeacherConfig(name="a", model="timm:x", num_actors=3)
    assert additions([fixed], Share(1, 1.0, 1.0), [{"CPU": 64}], None, 100) == []
    assert actors_with_room([fixed], [{"CPU": 64}]) == [3]


def test_a_cluster_has_room_for_actors_as_it_has_gpus_and_cpus() -> None:
    node = {"CPU": 64, "GPU": 8}
    growing = teacher("a", 1, 100, num_gpus=1)
    assert actors_with_room([growing], [node]) == [8]
    assert actors_with_room([growing], [node] * 8) == [64]
    assert actors_with_room([growing, teacher("b", 1, 3, num_gpus=1)], [node]) == [5, 3]
    assert actors_with_room([teacher("c", 2, 5, num_gpus=0.5)], [{"CPU": 4, "GPU": 1}, {"CPU": 2, "GPU": 1}]) == [4]
