"""Which cluster a command works on. This module imports neither Ray nor torch: Ray reads its environment when imported."""

from __future__ import annotations

import os
import re
import socket
import sys
from types import ModuleType

from aft_ray.recipe.errors import InputError

LOCAL = "local"
ANSWERS_WITHIN_S = 5.0


def address() -> str:
    """The address of RAY_ADDRESS, or `local`."""
    return os.environ.get("RAY_ADDRESS", LOCAL)


def names_cluster() -> bool:
    """Whether RAY_ADDRESS names a cluster. Without one a command starts its own on this machine where it needs Ray."""
    return address() != LOCAL


def check_answers() -> None:
    """Raises InputError if nothing listens at the HOST:PORT of RAY_ADDRESS. Ray itself would try for minutes."""
    place = re.fullmatch(r"(?:ray://)?(.+):(\d+)", address())
    if not place:
        return
    try:
        socket.create_connection((place[1].strip("[]"), int(place[2])), ANSWERS_WITHIN_S).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"No cluster answers at RAY_ADDRESS={address()}: {error}. Start one there with 'ray start --head', correct the"
            " address, or unset RAY_ADDRESS to work on this machine."
        ) from error


def connected_ray() -> ModuleType | None:
    """Ray, if this process is connected to a cluster. To find that out, nobody has to wait for its import."""
    ray = sys.modules.get("ray")
    return ray if ray is not None and ray.is_initialized() else None
