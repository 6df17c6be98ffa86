"""SIGTERM (a spot node, SLURM, Kubernetes, `ray job stop`) and SIGHUP (a closed terminal) stop a command as Ctrl-C does."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))


def take_signals() -> None:
    """Turns the signals in `ENDING` into SIGINT. Needed after `ray.init`, whose own handler of SIGTERM dumps the stack."""
    if threading.current_thread() is threading.main_thread():
        for number in ENDING:
            if signal.getsignal(number) != signal.SIG_IGN or number == signal.SIGTERM:  # nohup asks to ignore SIGHUP
                signal.signal(number, _interrupt)


def end_with_parent() -> None:
    """Stops this command, as SIGTERM does, when the process at the other end of its standard input ends, however it ends."""

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def _interrupt(number: int, frame: FrameType | None) -> None:
    if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None):  # a shell's background job
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)


def _repeat_lost_interrupt(unraisable: sys.UnraisableHookArgs) -> None:
    """Python drops exceptions raised in a finalizer or a weak reference's callback, KeyboardInterrupt too."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        again = threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGTERM])  # by then the finalizer is over
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(unraisable)


@contextmanager
def signals_as_before() -> Iterator[None]:
    """Restores the earlier handlers on leaving: a command may run inside another program."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *ENDING)}
    hook, sys.unraisablehook = sys.unraisablehook, _repeat_lost_interrupt
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)
