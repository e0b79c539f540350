"""What many ask at once is done in one piece: one thread works, and takes together whatever waits for the same work."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from medclip.errors import UserError, WorkError
from medclip.search.filters import Filter
from medclip.search.stores.base import Store


class Work(Hashable, Protocol):
    """What is done with items; of equal works the items may be taken together."""

    def __call__(self, items: list[Any]) -> Sequence[Any]:
        """One result for each item, in their order."""


class Batcher:
    """A thread that does the work of many callers. Nobody waits for a batch to fill: it is what came meanwhile."""

    def __init__(self, sizes: Sequence[int], seen: Callable[[int], None] = lambda size: None):
        """`sizes`, ascending, are those that a batch may have: the largest that is filled, else up to the smallest.

        `seen` hears the size of each batch.
        """
        self._sizes, self._seen = sizes, seen
        self._waiting: dict[Work, deque[tuple[Any, Future]]] = {}
        self._closed = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="batches", daemon=True)
        self._thread.start()

    def run(self, work: Work, items: Sequence[Any], timeout_s: float) -> list[Any]:
        """The result of each item. Raises what the work raises on it alone, and TimeoutError."""
        futures = [Future() for _ in items]
        with self._change:
            if self._closed:
                raise TimeoutError
            self._waiting.setdefault(work, deque()).extend(zip(items, futures, strict=True))
            self._change.notify()
        try:
            return [future.result(timeout_s) for future in futures]
        finally:
            for future in futures:
                future.cancel()  # of one that nobody waits for any more

    def close(self) -> None:
        """End the thread when what waits is done."""
        with self._change:
            self._closed = True
            self._change.notify()
        self._thread.join()

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            work, taken = batch
            wanted = [(item, future) for item, future in taken if future.set_running_or_notify_cancel()]
            if wanted:
                self._seen(len(wanted))
                _answer(work, wanted)

    def _next(self) -> tuple[Work, list[tuple[Any, Future]]] | None:
        with self._change:
            while not self._waiting:
                if self._closed:
                    return None
                self._change.wait()
            work, queue = next(iter(self._waiting.items()))
            del self._waiting[work]
            size = max((size for size in self._sizes if size <= len(queue)), default=min(len(queue), self._sizes[0]))
            taken = [queue.popleft() for _ in range(size)]
            if queue:
                self._waiting[work] = queue  # at the end: other work comes first
            return work, taken


def _answer(work: Work, wanted: list[tuple[Any, Future]]) -> None:
    try:
        found = work([item for item, _ in wanted])
    except Exception as error:
        if len(wanted) == 1:
            wanted[0][1].set_exception(error)
        else:
            for one in wanted:  # an error belongs to the item that makes it, not to those that came with it
                _answer(work, [one])
        return
    for (_, future), result in zip(wanted, found, strict=True):
        future.set_result(result)


@dataclass(frozen=True)
class _Scan:
    store: Store
    count: int
    asked: Filter
    allowed: np.ndarray = field(compare=False)  # follows from the store and `asked`

    def __call__(self, vectors: list[np.ndarray]) -> list[np.ndarray]:
        return self.store.candidates(np.stack(vectors), self.count, self.allowed, self.asked)


@dataclass(frozen=True)
class JoinedStore:
    """A store that is asked by many threads and looks for all that they ask at once."""

    store: Store
    batcher: Batcher
    timeout_s: float

    def candidates(self, vectors: np.ndarray, count: int, allowed: np.ndarray, asked: Filter) -> list[np.ndarray]:
        """See `Store`. WorkError where it fails, TimeoutError where it does not answer in time."""
        try:
            return self.batcher.run(_Scan(self.store, count, asked, allowed), list(vectors), self.timeout_s)
        except UserError as error:  # of the operator, not of who asks
            raise WorkError(str(error)) from None

    def sync(self) -> None:
        """See `Store`."""
        self.store.sync()
