"""Errors of other processes, as a command sees them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from ray import exceptions

from aft_ray.cluster import pipelines
from aft_ray.cluster.causes import known_cause
from aft_ray.cluster.pipelines import _failure
from aft_ray.cluster.relay import Note
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


def test_lines_for_the_user_are_told_and_are_no_results(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pipelines.ray, "get", lambda rows: rows)
    given: Any = iter([["row", Note("Node 10.0.0.7 cannot join")], ["another"]])
    taken: list[Any] = []
    assert pipelines._failure(given, taken.append) is None
    assert taken == ["row", "another"] and capsys.readouterr().err == "aft-ray: Node 10.0.0.7 cannot join\n"
