"""Dynamic batching: one thread works for many callers and batches the items that wait for the same work."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medclip.errors import UserError, WorkError
from medclip.search.filters import Filter
from medclip.search.stores.base import Difference, Embeddings, RowMask, Store

Work = Callable[[list[Any]], Iterable[Any]]
"""One result for each item, in order. Hashable: items of equal works may share a batch."""
Item = tuple[Any, "Future[Any]"]


class Batcher:
    """A thread that works in batches. It never waits for a batch to fill: a batch is what arrived meanwhile."""

    def __init__(self, sizes: Sequence[int], observe_size: Callable[[int], None] = lambda size: None):
        """`sizes`, ascending: a batch has the largest that can be filled, else fewer items than the smallest.

        `observe_size` is called with the size of each batch.
        """
        self._sizes, self._observe_size = sizes, observe_size
        self._queues: dict[Work, deque[Item]] = {}
        self._is_closing = False
        self._changes = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="batches", daemon=True)
        self._thread.start()

    def run(self, work: Work, items: Sequence[Any], timeout_s: float) -> list[Any]:
        """The result of each item. Raises what the work raises on that item alone, TimeoutError after `timeout_s`."""
        futures: list[Future[Any]] = [Future() for _ in items]
        with self._changes:
            if self._is_closing:
                raise TimeoutError
            self._queues.setdefault(work, deque()).extend(zip(items, futures, strict=True))
            self._changes.notify()
        try:
            wait(futures, timeout_s)
            return [future.result(0) for future in futures]
        finally:
            for future in futures:
                future.cancel()  # nobody waits for it any more

    def close(self) -> None:
        """End the thread when the queues are empty."""
        with self._changes:
            self._is_closing = True
            self._changes.notify()
        self._thread.join()

    def _work(self) -> None:
        while (batch := self._next_batch()) is not None:
            work, items = batch
            items = [(item, future) for item, future in items if future.set_running_or_notify_cancel()]
            if items:
                self._observe_size(len(items))
                _complete(work, items)

    def _next_batch(self) -> tuple[Work, list[Item]] | None:
        with self._changes:
            while not self._queues:
                if self._is_closing:
                    return None
                self._changes.wait()
            work, queue = next(iter(self._queues.items()))
            del self._queues[work]
            size = max((size for size in self._sizes if size <= len(queue)), default=min(len(queue), self._sizes[0]))
            batch = [queue.popleft() for _ in range(size)]
            if queue:
                self._queues[work] = queue  # last in line: other work comes first
            return work, batch


def _complete(work: Work, items: list[Item]) -> None:
    try:
        results = work([item for item, _ in items])
    except Exception as error:
        if len(items) == 1:
            items[0][1].set_exception(error)
        else:
            for item in items:  # an error belongs to the item that causes it, not to the rest of its batch
                _complete(work, [item])
        return
    for (_, future), result in zip(items, results, strict=True):
        future.set_result(result)


@dataclass(frozen=True)
class _Scan:
    store: Store
    count: int
    filter: Filter
    mask: np.ndarray = field(compare=False)  # follows from the store and the filter

    def __call__(self, embeddings: list[np.ndarray]) -> list[np.ndarray]:
        return self.store.candidates(np.stack(embeddings), self.count, self.mask, self.filter)


@dataclass(frozen=True)
class BatchedStore:
    """A store that answers the concurrent queries of many threads together."""

    store: Store
    batcher: Batcher
    timeout_s: float

    def candidates(self, embeddings: Embeddings, count: int, mask: RowMask, filter: Filter) -> list[np.ndarray]:
        """See `Store`. WorkError where the store fails, TimeoutError where it does not answer in time."""
        try:
            return self.batcher.run(_Scan(self.store, count, filter, mask), list(embeddings), self.timeout_s)
        except UserError as error:  # the operator's fault, not the client's
            raise WorkError(str(error)) from None

    def extend(self) -> None:
        """See `Store`."""
        self.store.extend()

    def trim(self) -> None:
        """See `Store`."""
        self.store.trim()

    def drop(self) -> None:
        """See `Store`."""
        self.store.drop()

    def differences(self) -> Iterator[Difference]:
        """See `Store`."""
        return self.store.differences()
