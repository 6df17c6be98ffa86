"""Which cluster a command works on. This module imports neither Ray nor torch: Ray reads its environment when imported."""

from __future__ import annotations

import os

LOCAL = "local"


def address() -> str:
    """The address of RAY_ADDRESS, or `local`."""
    return os.environ.get("RAY_ADDRESS", LOCAL)


def names_cluster() -> bool:
    """Whether RAY_ADDRESS names a cluster. Without one a command starts its own on this machine where it needs Ray."""
    return address() != LOCAL
