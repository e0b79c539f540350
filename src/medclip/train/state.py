"""The state that resumes a run, through Orbax: atomic, pruned, restored bit for bit."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import jax
import orbax.checkpoint as ocp

from medclip.train.step import State


class StateFolder:
    """`RUN/state`: the newest states of a run. A context manager: leaving it waits for writes under way."""

    def __init__(self, run: Path):
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager((run / "state").resolve(), options=options)

    def __enter__(self) -> StateFolder:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._manager.wait_until_finished()
        self._manager.close()

    def save(self, state: State) -> None:
        """Write the state of its step; returns before the write is done."""
        self._manager.save(int(state.step), args=ocp.args.StandardSave(state._asdict()))

    def latest(self, like: State) -> State | None:
        """The newest whole state, or None where there is none; `like` gives shapes and types."""
        step = self._manager.latest_step()
        if step is None:
            return None
        shape = jax.tree.map(ocp.utils.to_shape_dtype_struct, like._asdict())
        return State(**self._manager.restore(step, args=ocp.args.StandardRestore(shape)))
