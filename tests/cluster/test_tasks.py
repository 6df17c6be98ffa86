"""Work in tasks of a cluster. tests/datasets/test_helpers.py has the work that `prepare` gives them."""

from __future__ import annotations

import os

import pytest

from aft_ray.cluster.tasks import in_tasks
from aft_ray.recipe.errors import ClusterError


def killed(number: int) -> int:
    if number:
        os._exit(1)
    return number


@pytest.mark.ray
def test_a_task_whose_process_is_lost_more_often_than_ray_repeats_it_is_told_in_a_line(cluster: None) -> None:
    found = in_tasks(killed, [(0,), (1,)])
    assert next(found) == 0
    with pytest.raises(ClusterError, match="^Ray gave up a part of the work: .*run the same command again.$"):
        next(found)
