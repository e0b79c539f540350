"""Progress on anything longer than two seconds: a live line on a terminal, JSON lines elsewhere."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

console = Console(stderr=True)
_SECONDS_BETWEEN_LINES = 15.0

Advance = Callable[..., None]


@contextmanager
def progress(what: str, total: int | None, unit: str, per_step: int = 1) -> Iterator[Advance]:
    """Show `total` steps of `what` (None: not known yet); yields `advance(steps=1, **notes)`. The rate is steps x per_step `unit`/s."""
    start, done = time.monotonic(), 0

    def rate() -> float:
        return done * per_step / max(time.monotonic() - start, 1e-9)

    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[notes]}"),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(what, total=total, notes="")

            def advance(steps: int = 1, **notes: float) -> None:
                nonlocal done
                done += steps
                said = "  ".join(f"{k} {v:.3g}" for k, v in notes.items())
                bar.update(task, advance=steps, notes=f"{rate():,.0f} {unit}/s  {said}")

            yield advance
        return

    last = start

    def advance(steps: int = 1, **notes: float) -> None:
        nonlocal done, last
        done += steps
        now = time.monotonic()
        if now - last >= _SECONDS_BETWEEN_LINES or (done == total and now - start > 2):
            last = now
            left = None if total is None else round((total - done) * (now - start) / done)
            line = {"progress": what, "done": done, "of": total, f"{unit}_per_s": round(rate(), 1)}
            print(json.dumps({**line, "seconds_left": left, **notes}), file=sys.stderr, flush=True)

    yield advance
