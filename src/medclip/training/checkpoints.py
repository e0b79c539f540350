"""The state that resumes a run, through Orbax: atomic, pruned, restored bit for bit, checked against its hashes."""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import jax

from medclip.errors import WorkError
from medclip.progress import console
from medclip.recorded_files import changed_files
from medclip.require import require
from medclip.training import checksums, distributed
from medclip.training.step import State

if TYPE_CHECKING:
    import orbax.checkpoint as ocp
else:
    ocp = require("orbax.checkpoint", extra="train")

MAX_TO_KEEP = 2


class StateFolder:
    """`RUN/state`: the newest states of a run. A context manager: leaving it waits for writes under way."""

    def __init__(self, run: Path):
        options = ocp.CheckpointManagerOptions(
            max_to_keep=MAX_TO_KEEP,
            enable_async_checkpointing=True,
            cleanup_tmp_directories=True,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._record),
        )
        self._run, self._folder = run, (run / "state").resolve()
        self._step = 0
        """The state that is being written."""
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def __enter__(self) -> StateFolder:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        failure = None
        for finish in (self._wait, self._manager.close):  # both raise where a write failed
            try:
                finish()
            except Exception as storage_error:
                failure = failure or self._write_error(storage_error)
        if failure and error is None:
            raise failure

    def save(self, state: State) -> None:
        """Write a state; returns before the write is done. WorkError where this write or the one before fails."""
        try:
            self._wait()
            self._step = int(state.step)
            self._manager.save(self._step, args=ocp.args.StandardSave(state._asdict()))
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

    def _record(self) -> None:
        """Note the hashes of the state that is being written, all of which is there but for its final name."""
        if not distributed.is_first():
            return
        for step in sorted(ocp.utils.checkpoint_steps(self._folder))[: 1 - MAX_TO_KEEP]:
            checksums.forget(self._run, f"state/{step}")
        (partial,) = self._folder.glob(f"{self._step}.*tmp*")
        for part in partial.iterdir():
            if part.is_dir():
                checksums.record(self._run, f"state/{self._step}/{part.name}", part)

    def _wait(self) -> None:
        """Return when the last state is written, and note the files beside its arrays, which come with its name."""
        self._manager.wait_until_finished()
        if distributed.is_first():
            for part in (self._folder / str(self._step)).glob("*"):
                if part.is_file():
                    checksums.record(self._run, f"state/{self._step}/{part.name}")

    @property
    def newest(self) -> int:
        """The step of the newest state, be it whole or not; -1: there is none."""
        return max(self._manager.all_steps(), default=-1)

    def latest(self, like: State, before: float = math.inf) -> State | None:
        """The newest whole state, of a step below `before`; None if none was ever saved.

        `like` gives shapes, types and shardings. Newer states, damaged or from `before` on, are removed; a damaged one
        is named, and one that is absent though it was noted. WorkError where none is left.
        """
        shape = jax.tree.map(ocp.utils.to_shape_dtype_struct, like._asdict())
        steps = sorted(self._manager.all_steps(), reverse=True)
        newest = max([*steps, *self._forget_absent(set(steps))], default=0)
        for step in steps:
            if step < before and (state := self._restore(step, shape)):
                if step < newest:
                    self._print(f"the run goes on from step {step}.")
                    self._remove([later for later in steps if later > step])
                return state
        if steps:
            limit = f" of before step {before:.0f}" if before < math.inf else ""
            raise WorkError(f"{self._run} has no whole state{limit} to go on from: start again with another --out.")
        return None

    def _forget_absent(self, steps: Set[int]) -> list[int]:
        """Name and forget the noted states that are not there: they were removed, or a kill came before their name."""
        absent = sorted(checksums.noted_steps(self._run) - steps) if distributed.is_first() else []
        for step in absent:
            self._print(f"warning: the state of step {step} is absent.")
            checksums.forget(self._run, f"state/{step}")
        return absent

    def _restore(self, step: int, shape: Any) -> State | None:
        damaged = changed_files(self._run, f"state/{step}")
        if not damaged:
            try:
                return State(**self._manager.restore(step, args=ocp.args.StandardRestore(shape)))
            except Exception:  # what the storage library raises has no type of its own
                damaged = [f"state/{step}"]
        self._print(f"warning: the state of step {step} is damaged ({damaged[0]}).")
        return None

    def _remove(self, steps: Sequence[int]) -> None:
        distributed.barrier("damage")  # all have looked
        for step in steps:
            self._manager.delete(step)
            if distributed.is_first():
                checksums.forget(self._run, f"state/{step}")

    @staticmethod
    def _print(sentence: str) -> None:
        if distributed.is_first():
            console.print(sentence, soft_wrap=True)
