"""Ends processes sooner."""

from __future__ import annotations

import atexit
import gc


def exit_quickly() -> None:
    """Spares this process the search for cycles among all objects at its end: 0.9 s where torch and timm are loaded."""
    atexit.register(gc.freeze)
