"""The same work on every shard, by the processes of this machine or a Ray cluster; results in the order of tasks."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

from medclip.errors import UserError, WorkError

S = TypeVar("S")
T = TypeVar("T")
AHEAD = 2  # tasks in flight for each worker: one at work, one at hand
_LOST = (
    "a worker ended at once: memory ran out, or a decoder crashed on a damaged image. What is whole is kept and the "
    "same command goes on from there; fewer --workers need less memory."
)


def map_shards(
    work: Callable[..., T], tasks: Iterable[tuple[Any, ...]], workers: int | None = None, cluster: bool = False
) -> Iterator[T]:
    """Yield `work(*task)` for every task, in order. `work` must be idempotent and found by its name in its module.

    `workers` processes (1: this one; None: one a core, but two at least, so that a decoder that crashes ends none but
    its own) or, with `cluster`, a Ray cluster: the one at RAY_ADDRESS, or one of this machine. Tasks are drawn as they
    are needed, so that few are in memory. What a task raises is raised here; a worker that ended is a WorkError.
    """
    if cluster:
        return _on_ray(work, tasks, workers)
    workers = workers or max(2, cores())
    return (work(*task) for task in tasks) if workers == 1 else _on_processes(work, tasks, workers)


def cores() -> int:
    """Cores that this process may use, which on a shared machine are fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _on_processes(work: Callable[..., T], tasks: Iterable[tuple[Any, ...]], workers: int) -> Iterator[T]:
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_follow_parent)
    try:
        yield from _in_order((pool.submit(work, *task) for task in tasks), Future.result, AHEAD * workers)
    except BrokenProcessPool:
        raise WorkError(_LOST) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _follow_parent() -> None:
    """A worker leaves Ctrl-C to its parent, and ends when that is killed; it would wait for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _on_ray(work: Callable[..., T], tasks: Iterable[tuple[Any, ...]], workers: int | None) -> Iterator[T]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports its use to its makers otherwise
    try:
        import ray
    except ImportError:
        raise UserError("--ray needs Ray: pip install 'medclip[ray]'.") from None
    address = os.environ.get("RAY_ADDRESS")
    where = {"address": address} if address else {"address": "local", "num_cpus": workers, "include_dashboard": False}
    try:
        ray.init(**where, log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # it raises nothing narrower where its processes do not come up
        raise WorkError(f"no Ray at {address or 'this machine'}: {str(error).splitlines()[0]}") from error
    try:
        at_work = workers or int(ray.cluster_resources().get("CPU", 1))
        remote = ray.remote(_in_folder)
        yield from _in_order((remote.remote(Path.cwd(), work, *task) for task in tasks), ray.get, AHEAD * at_work)
    except ray.exceptions.RayTaskError as error:  # its own text is the traceback of the worker
        raise error.cause from None
    except ray.exceptions.RayError:
        raise WorkError(_LOST) from None
    finally:
        ray.shutdown()


def _in_folder(folder: Path, work: Callable[..., T], *task: Any) -> T:
    """On another machine relative paths mean the same only in the same folder."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise WorkError(f"every machine of the cluster must see the same folders: {error}.") from None
    return work(*task)


def _in_order(started: Iterable[S], result: Callable[[S], T], ahead: int) -> Iterator[T]:
    """Results in the order of the tasks, of which at most `ahead` and one more are started and not yet told."""
    waiting: deque[S] = deque()
    for one in started:
        waiting.append(one)
        if len(waiting) > ahead:
            yield result(waiting.popleft())
    while waiting:
        yield result(waiting.popleft())
