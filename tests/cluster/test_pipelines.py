"""Errors of other processes, as a command sees them."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from ray import exceptions
from ray.util.placement_group import PlacementGroup

from aft_ray.cluster import pipelines
from aft_ray.cluster.gang import Gang, GangLost
from aft_ray.cluster.pipelines import Conductor, _failure, known_cause
from aft_ray.recipe.errors import ClusterError, InputError

LOST = [
    exceptions.WorkerCrashedError(),
    exceptions.ActorDiedError(),
    exceptions.NodeDiedError("The node died."),
    exceptions.LocalRayletDiedError(),
    exceptions.ObjectLostError("ab12", None, ""),
    exceptions.ObjectReconstructionFailedError("ab12", None, ""),
    exceptions.OwnerDiedError("ab12", None, ""),
    exceptions.OutOfMemoryError("Task was killed: the node is low on memory.\nMemory on the node: 4 GB."),
    exceptions.OutOfDiskError("The local disk is full."),
    exceptions.ObjectStoreFullError("The object store is full."),
    exceptions.TaskUnschedulableError("The node does not exist any more."),
]


@pytest.mark.parametrize("error", LOST, ids=lambda error: type(error).__name__)
def test_what_ray_could_not_repeat_is_an_error_of_one_line_with_the_way_out(error: Exception) -> None:
    told = known_cause(error)
    assert isinstance(told, ClusterError) and len(str(told).splitlines()) == 1
    assert str(error).strip().splitlines()[0].rstrip(".") in str(told)
    assert str(told).endswith("have memory and disk left, and run the same command again.")


def test_an_error_that_a_task_raised_is_raised_as_it_was_and_one_of_ours_stays_a_fault() -> None:
    told = InputError("a.csv is damaged.")
    assert known_cause(exceptions.RayTaskError("read", "Traceback ...", told)) is told
    ours = exceptions.RayTaskError("read", "Traceback ...", ZeroDivisionError("division by zero"))
    assert known_cause(ours) is ours


def test_a_pipeline_whose_process_ends_before_its_first_row_is_a_cluster_s_fault() -> None:
    def lists() -> Iterator[Any]:
        raise exceptions.ActorDiedError
        yield

    given: Any = lists()
    assert isinstance(_failure(given, lambda row: None), ClusterError)


@pytest.mark.parametrize(("joining", "expected"), [(1, GangLost), (0, ClusterError)])
def test_a_lost_actor_that_had_joined_lets_the_pipeline_begin_again_after_the_rows_that_are_done(
    joining: int, expected: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows() -> Iterator[dict[str, int]]:
        yield {"shard": 0}
        raise exceptions.ActorDiedError

    monkeypatch.setattr(pipelines, "_set_context", lambda place, patience_s: None)
    monkeypatch.setattr(pipelines, "SENT_EVERY_S", 100.0)
    pipeline: Any = SimpleNamespace(iter_rows=rows)
    gang = Gang(PlacementGroup.empty(), [({"CPU": 1.0}, range(1), joining)])
    lists = Conductor().run([0], lambda items, place: pipeline, gang, 1.0)
    assert next(lists) == [{"shard": 0}] and next(lists) == []
    with pytest.raises(expected):
        next(lists)
