"""The signals that ask a process to end: Ctrl-C, a scheduler's SIGTERM, a terminal that closes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """One of STOP_SIGNALS was received: work unwinds as after Ctrl-C, and leaves nothing half-written."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def handle_stop_signals(handle: Callable[[int, FrameType | None], Any]) -> Iterator[dict[signal.Signals, Any]]:
    """Have `handle` called for STOP_SIGNALS; yields the handlers that these had before, which come back.

    A signal that is ignored from the start stays so: SIGHUP under nohup, Ctrl-C in a background job of a script.
    Handlers belong to the main thread: in any other this does nothing.
    """
    is_main = threading.current_thread() is threading.main_thread()
    before = {kind: signal.getsignal(kind) for kind in STOP_SIGNALS if is_main}
    before = {kind: handler for kind, handler in before.items() if handler != signal.SIG_IGN}
    for kind in before:
        signal.signal(kind, handle)
    try:
        yield before
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def raise_stopped(number: int, frame: FrameType | None) -> None:
    """A handler: raise `Stopped` in the main thread."""
    raise Stopped(number)


def end_at_once_from_now_on() -> None:
    """Let the next signal end the process: it has said why it ends, and a library's thread may hold up its end."""
    for kind in STOP_SIGNALS:
        if signal.getsignal(kind) != signal.SIG_IGN:
            signal.signal(kind, lambda number, frame: os._exit(128 + number))
