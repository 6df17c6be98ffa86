"""Errors of other processes, as a command sees them."""

from __future__ import annotations

from typing import Any

import ray

from aft_ray.cluster.gang import GangLost
from aft_ray.recipe.errors import ClusterError, InputError

KNOWN = (InputError, OSError, ClusterError, GangLost)
"""Errors that the caller handles; a task's are raised as they were there."""

GONE = (
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.RayActorError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.LocalRayletDiedError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.OutOfMemoryError,
)
"""Errors of processes and nodes that have ended, and of what they held."""

LOST = (
    *GONE,
    ray.exceptions.OutOfDiskError,
    ray.exceptions.ObjectStoreFullError,
    ray.exceptions.TaskUnschedulableError,
)
"""Errors of processes, nodes and results that were lost more often than Ray repeats the work, or cannot be repeated."""


def is_gone(error: Exception) -> bool:
    """Whether the error, or that of a task that it tells of, is one of GONE."""
    cause = getattr(error, "cause", None)
    return isinstance(error, GONE) or (isinstance(cause, Exception) and is_gone(cause))


def known_cause(error: Exception) -> Exception:
    """The error of KNOWN that another process raised, a ClusterError for one of LOST, or else the error itself."""
    if isinstance(error, LOST):
        reason = str(error).strip().partition("\n")[0].rstrip(". ")
        return ClusterError(
            f"Ray gave up a part of the work: {reason}. See that the nodes stay up and have memory and disk left, and run the"
            " same command again."
        )
    cause: Any = getattr(error, "cause", None)
    return cause.with_traceback(None) if isinstance(cause, KNOWN) else error
