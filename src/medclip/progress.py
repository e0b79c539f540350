"""Progress of anything longer than two seconds: a live line on a terminal, JSON lines elsewhere."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.text import Text

from medclip.plain_text import printable


class PlainConsole(Console):
    """A console of text alone: brackets in a name are not markup, :x: is not an emoji, ESC is not a command."""

    def __init__(self, stderr: bool = False):
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """A string as rich measures and wraps it."""
        return super().render_str(printable(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What rich writes; its own cursor movements apart, no text holds a control character."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))


console = PlainConsole(stderr=True)
_LOG_EVERY_S, _BRIEF_S = 15.0, 2.0  # work that takes less gets no line

Advance = Callable[..., None]


@contextmanager
def progress(task: str, total: int | None, unit: str, per_step: int = 1, first: int = 0) -> Iterator[Advance]:
    """Show steps `first` to `total` (None: unknown) of `task`; yields `advance(steps=1, **notes)`.

    A step is `per_step` of `unit`. The rate counts the steps of this call, not those before `first`.
    """
    start, done = time.monotonic(), first

    def rate() -> float:
        return (done - first) * per_step / max(time.monotonic() - start, 1e-9)

    if console.is_terminal:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[notes]}", markup=False),
        )
        with Progress(*columns, console=console) as bar:
            task_id = bar.add_task(task, total=total, completed=first, notes="")

            def advance(steps: int = 1, **notes: float) -> None:
                nonlocal done
                done += steps
                text = "  ".join(f"{k} {v:.3g}" for k, v in notes.items())
                bar.update(task_id, advance=steps, notes=f"{rate():,.0f} {unit}/s  {text}")

            yield advance
        return

    last = start

    def advance(steps: int = 1, **notes: float) -> None:
        nonlocal done, last
        done += steps
        now = time.monotonic()
        if now - last >= _LOG_EVERY_S or (done == total and now - start > _BRIEF_S and steps):
            last = now
            left = round((total - done) * per_step / rate()) if total is not None and done > first else None
            line = {"progress": task, "done": done, "total": total, f"{unit}_per_s": round(rate(), 1)}
            print(json.dumps({**line, "seconds_left": left, **notes}), file=sys.stderr, flush=True)

    yield advance
