"""How busy this machine is, beside times that were estimated on it."""

from __future__ import annotations

import os

from aft_ray.commands.tables import console

BUSY = 1.2
"""Processes per core; above it a measured time says little."""


def busy_line(load: float, num_cores: int) -> str:
    """Empty on a machine that is not busy."""
    if load <= BUSY * num_cores:
        return ""
    return (
        f"busy      {load:.0f} processes want {num_cores} cores now: these times are longer than on an idle machine,"
        f" up to {load / num_cores + 1:.0f} times"
    )


def show_if_busy() -> None:
    """Prints a line if other work makes this machine's times too long."""
    if hasattr(os, "getloadavg") and (line := busy_line(os.getloadavg()[0], os.cpu_count() or 1)):
        console.print(line, soft_wrap=True, highlight=False)
