"""Being asked to stop: by the keyboard, or by a scheduler's SIGTERM."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Yield a question: was Ctrl-C or SIGTERM received? A second one stops at once, as always.

    With several processes SIGTERM is JAX's own affair (`mesh.stop_asked`), since all must stop at the same step.
    """
    asked = threading.Event()
    if jax.process_count() > 1 or threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)}

    def hear(kind: int, frame: object) -> None:
        asked.set()
        signal.signal(kind, before[signal.Signals(kind)])

    for kind in before:
        signal.signal(kind, hear)
    try:
        yield asked.is_set
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
