"""Where the numbers of a run are shown beside its own files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter


@contextmanager
def tracking(out: Path, first: int) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yield `track(record)`, which shows a line of `metrics.jsonl` in TensorBoard; anew from step `first` on."""
    with SummaryWriter(str(out / "tensorboard"), purge_step=first) as board:

        def track(record: Mapping[str, Any]) -> None:
            for name, value in record.items():
                if name != "step":
                    board.add_scalar(name, value, record["step"])

        yield track
