"""Waves: teachers that have no room on the cluster together take turns, the largest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aft_ray.cluster.gang import share_of
from aft_ray.recipe.errors import InputError
from aft_ray.recipe.sections import TeacherConfig

Wave = tuple[TeacherConfig, ...]


def waves(
    teachers: Sequence[TeacherConfig], nodes: Sequence[Mapping[str, float]], decode_cpus: int | None = None
) -> list[Wave]:
    """The teachers in as few waves as they need: each, the largest first, in the first wave that has room for it. Inside a
    wave they keep their order.

    nodes: the resources of each. Raises InputError with a line for each teacher that has no room even alone.
    """
    alone = {teacher.name: _faults([teacher], nodes, decode_cpus) for teacher in teachers}
    if faults := [f"Teacher '{name}': {fault}" for name, found in alone.items() for fault in found]:
        raise InputError(faults)
    if not teachers:
        return []
    if not _faults(teachers, nodes, decode_cpus):
        return [tuple(teachers)]
    found: list[list[TeacherConfig]] = []
    for teacher in sorted(teachers, key=lambda teacher: -teacher.num_gpus * teacher.min_actors):
        room = next((wave for wave in found if not _faults([*wave, teacher], nodes, decode_cpus)), None)
        if room is None:
            found.append([teacher])
        else:
            room.append(teacher)
    return [tuple(teacher for teacher in teachers if teacher in wave) for wave in found]


def in_words(turns: Sequence[Wave]) -> str:
    """`3 waves: a, b | c | d`."""
    return f"{len(turns)} waves: {' | '.join(', '.join(teacher.name for teacher in wave) for wave in turns)}"


def _faults(
    teachers: Sequence[TeacherConfig], nodes: Sequence[Mapping[str, float]], decode_cpus: int | None
) -> list[str]:
    try:
        share_of(teachers, nodes, decode_cpus)
    except InputError as error:
        return error.faults
    return []
