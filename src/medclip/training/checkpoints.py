"""The state that resumes a run, through Orbax: atomic, pruned, restored bit for bit."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import jax
import orbax.checkpoint as ocp

from medclip.errors import WorkError
from medclip.training.step import State


class StateFolder:
    """`RUN/state`: the newest states of a run. A context manager: leaving it waits for writes under way."""

    def __init__(self, run: Path):
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2, enable_async_checkpointing=True, cleanup_tmp_directories=True
        )
        self._folder = (run / "state").resolve()
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def __enter__(self) -> StateFolder:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        failure = None
        for finish in (self._manager.wait_until_finished, self._manager.close):  # both raise where a write failed
            try:
                finish()
            except Exception as storage_error:
                failure = failure or self._write_error(storage_error)
        if failure and error is None:
            raise failure

    def save(self, state: State) -> None:
        """Write a state; returns before the write is done. WorkError where this write or the one before fails."""
        try:
            self._manager.save(int(state.step), args=ocp.args.StandardSave(state._asdict()))
        except Exception as storage_error:  # what the storage library raises has no type of its own
            raise self._write_error(storage_error) from None

    def _write_error(self, error: Exception) -> WorkError:
        step = max(ocp.utils.checkpoint_steps(self._folder), default=None)
        remedy = (
            "no state is whole yet"
            if step is None
            else f"the state of step {step} is whole, and --resume goes on from it"
        )
        return WorkError(
            f"{self._folder} could not be written; {remedy}. Is the disk full? ({str(error).splitlines()[0][:300]})"
        )

    def latest(self, like: State) -> State | None:
        """The newest whole state, or None; `like` gives shapes, types and shardings."""
        step = self._manager.latest_step()
        if step is None:
            return None
        shape = jax.tree.map(ocp.utils.to_shape_dtype_struct, like._asdict())
        return State(**self._manager.restore(step, args=ocp.args.StandardRestore(shape)))
