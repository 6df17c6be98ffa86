from __future__ import annotations

import subprocess
import sys

import pytest

from aft_ray.cluster.gang import Share, share_of
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import TeacherConfig
from tests.helpers import ROOT


def on_cpus(count: int) -> list[TeacherConfig]:
    return [TeacherConfig(name=f"t{index}", model="timm:x") for index in range(count)]


@pytest.mark.parametrize(
    ("num_actors", "cpus", "expected"),
    [
        (1, [1], Share(2, 0.25, 0.5)),
        (10, [1], Share(2, 0.25, 0.05)),
        (1, [2], Share(1, 1.0, 1.0)),
        (2, [2], Share(2, 0.5, 0.5)),
        (3, [2], Share(2, 0.5, 0.3333)),
        (2, [4], Share(2, 1.0, 1.0)),
        (2, [1, 1, 1], Share(1, 1.0, 1.0)),
        (2, [16], Share(4, 1.0, 6.0)),
        (4, [64], Share(16, 1.0, 12.0)),
        (1, [4, 4], Share(4, 1.0, 4.0)),
        (3, [4, 4], Share(2, 1.0, 2.0)),
        (4, [16, 8], Share(8, 1.0, 4.0)),
    ],
)
def test_teachers_on_cpus_leave_some_to_read_and_fit_on_the_nodes(
    num_actors: int, cpus: list[int], expected: Share
) -> None:
    share = share_of(on_cpus(num_actors), [{"CPU": count} for count in cpus])
    assert share == expected
    assert share.actor_cpus * num_actors + share.readers * share.reader_cpus <= sum(cpus)


@pytest.mark.parametrize(
    ("num_gpus", "num_actors", "readers"),
    [(1, 64, 448), (1, 8, 56), (1, 1, 7), (0.5, 2, 6), (0.25, 4, 4), (0.1, 10, 1)],
)
def test_teachers_on_gpus_take_as_large_a_part_of_the_cpus(num_gpus: float, num_actors: int, readers: int) -> None:
    teacher = TeacherConfig(name="t", model="timm:x", num_gpus=num_gpus, num_actors=num_actors)
    assert share_of([teacher], [{"CPU": 64, "GPU": 8}] * 8) == Share(readers, 1.0, 1.0)


def test_gpus_that_are_not_there_are_refused() -> None:
    teachers = [TeacherConfig(name="t", model="timm:x", num_gpus=0.5, num_actors=4)]
    assert share_of(teachers, [{"CPU": 4, "GPU": 1}] * 2) == Share(4, 1.0, 1.0)
    with pytest.raises(InputError, match="2 GPUs are asked for, the cluster has 1."):
        share_of(teachers, [{"CPU": 8, "GPU": 1}])


def test_actors_that_do_not_fit_on_the_nodes_are_refused() -> None:
    teachers = [TeacherConfig(name="t", model="timm:x", num_gpus=0.6, num_actors=3)]
    expected = "3 with 0.6 GPUs and 1 CPUs and 4 readers with 1 CPUs do not fit on the nodes of the cluster. Lower"
    with pytest.raises(InputError, match=expected):
        share_of(teachers, [{"CPU": 4, "GPU": 1}] * 2)


def test_a_cluster_without_cpus_is_refused() -> None:
    with pytest.raises(InputError, match="do not fit on the nodes of the cluster."):
        share_of(on_cpus(1), [{"CPU": 0}])


def test_decode_cpus_are_for_reading_or_refused() -> None:
    teachers = [TeacherConfig(name="a", model="timm:x"), TeacherConfig(name="b", model="timm:x", num_gpus=1)]
    assert share_of(teachers, [{"CPU": 16, "GPU": 1}], decode_cpus=10) == Share(10, 1.0, 5.0)
    assert share_of(teachers[1:], [{"CPU": 16, "GPU": 1}] * 2, decode_cpus=10) == Share(10, 1.0, 1.0)
    with pytest.raises(
        InputError, match="resources.decode_cpus is 15, and 1 actors beside GPUs take one CPU each; the"
    ):
        share_of(teachers, [{"CPU": 16, "GPU": 1}], decode_cpus=15)


ALL_OR_NONE = """
import os, threading
from aft_ray.commands.environment import set_environment
set_environment()
import ray
from aft_ray.cluster.gang import gang
from aft_ray.recipe.sections import TeacherConfig

ray.init("local", num_cpus=3, include_dashboard=False, log_to_driver=False)
teachers = [TeacherConfig(name=name, model="timm:x") for name in "ab"]
first_has, first_may_go, order = threading.Event(), threading.Event(), []

def first():
    with gang(teachers):
        first_has.set()
        first_may_go.wait()
        order.append("first")

thread = threading.Thread(target=first)
thread.start()
first_has.wait()
told = os.fdopen(os.dup(2), "w")

class Told:
    def write(self, text):
        told.write(text)
        if "waiting for" in text:
            first_may_go.set()
    def flush(self):
        told.flush()

import sys
sys.stderr = Told()
with gang(teachers):
    order.append("second")
thread.join()
print(order)
"""


@pytest.mark.ray
def test_a_gang_waits_for_another_and_says_so() -> None:
    done = subprocess.run([sys.executable, "-c", ALL_OR_NONE], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "['first', 'second']"
    assert "aft-ray: waiting for 3 CPUs; 0 CPUs are free. Other work holds the rest of this cluster." in done.stderr
