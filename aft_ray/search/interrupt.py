"""Ctrl-C while Ray Tune runs: Tune takes it for the end of its trials and returns as if all were over.

Tune replaces the handler of SIGINT by its own. At Ctrl-C its handler puts the earlier one back; otherwise it stays, and
would swallow the next Ctrl-C, long after the trials.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupted_by_ctrl_c() -> Iterator[None]:
    """Raises KeyboardInterrupt at the end if Tune was interrupted inside, and restores the handler of SIGINT."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or os.environ.get("TUNE_DISABLE_SIGINT_HANDLER", "0") != "0":  # Tune leaves SIGINT alone
        yield
        return
    before = signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
        if signal.getsignal(signal.SIGINT) is _interrupt:
            raise KeyboardInterrupt
    finally:
        signal.signal(signal.SIGINT, before or signal.default_int_handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
