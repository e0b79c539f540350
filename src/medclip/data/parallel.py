"""One function over many shards, in processes of this machine or on a Ray cluster; results in the order of tasks."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from medclip.errors import WorkError
from medclip.require import require

LOG = logging.getLogger("medclip.data")
S = TypeVar("S")
T = TypeVar("T")
TASKS_PER_WORKER = 2  # in flight: one at work, one at hand
_WORKER_LOST = (
    "a worker ended at once: memory ran out, or a decoder crashed on a damaged image. What is whole is kept and the "
    "same command goes on from there; fewer --num-workers need less memory."
)
_SAFE_PATH = "PYTHONSAFEPATH"
_start_lock = threading.RLock()


@contextmanager
def safe_path() -> Iterator[None]:
    """Let a Python that is started within import nothing from the working folder, which may hold a stranger's files.

    Multiprocessing starts processes by `python -c`, which looks there for each module before any other folder.
    """
    with _start_lock:
        before = os.environ.get(_SAFE_PATH)
        if before:  # as `medclip` sets it: then no thread sees the environment change
            yield
            return
        os.environ[_SAFE_PATH] = "1"
        try:
            yield
        finally:
            del os.environ[_SAFE_PATH]
            if before is not None:
                os.environ[_SAFE_PATH] = before


class WorkerProcess(SpawnProcess):
    """A spawned process that does not run the caller's script again, which so needs no main guard; see `safe_path`."""

    def start(self) -> None:
        with safe_path():
            main = sys.modules["__main__"]
            sys.modules["__main__"] = ModuleType("__main__")  # of no file: nothing for the new process to import
            try:
                super().start()
            finally:
                sys.modules["__main__"] = main


class WorkerContext(SpawnContext):
    """The multiprocessing context of WorkerProcess. What is sent to its processes cannot come from `__main__`."""

    Process = WorkerProcess


def map_shards(
    work: Callable[..., T],
    tasks: Iterable[tuple[Any, ...]],
    num_workers: int | None = None,
    ray: bool = False,
    encodes: bool = False,
) -> Generator[T]:
    """Yield `work(*task)` for every task, in order. `work` must be idempotent and a function of an importable module.

    `num_workers` processes (1: this one; None: one per core, but at least two, so that a decoder that crashes ends only
    its own) or, with `ray`, a Ray cluster: the one at RAY_ADDRESS, or one of this machine. Tasks are drawn as they are
    needed, so that few are in memory. What a task raises is raised here; a lost worker is a WorkError, but on Ray
    another one does its task again. With `encodes` a task on Ray has a GPU, or all cores of a machine where none has
    one.
    """
    if ray:
        return _on_ray(work, tasks, num_workers, encodes)
    num_workers = num_workers or max(2, available_cores())
    return (work(*task) for task in tasks) if num_workers == 1 else _on_processes(work, tasks, num_workers)


def available_cores() -> int:
    """Cores that this process may use; on a shared machine fewer than it has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _on_processes(work: Callable[..., T], tasks: Iterable[tuple[Any, ...]], num_workers: int) -> Generator[T]:
    context = WorkerContext()
    parent, held = context.Pipe(duplex=False)
    try:
        with safe_path():  # it starts a process that looks after semaphores
            pool = ProcessPoolExecutor(num_workers, mp_context=context, initializer=_follow_parent, initargs=(parent,))
    except OSError as error:
        reason = error.strerror or error
        LOG.warning(f"one process works, not {num_workers}: /dev/shm, by which they would be joined: {reason}.")
        yield from (work(*task) for task in tasks)
        return
    try:
        yield from _in_order((pool.submit(work, *task) for task in tasks), Future.result, num_workers)
    except BrokenProcessPool:
        raise WorkError(_WORKER_LOST) from None
    except (KeyboardInterrupt, GeneratorExit):
        held.close()  # nobody waits for what the workers have at hand
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        held.close()
        parent.close()


def _follow_parent(parent: Connection) -> None:
    """Leave Ctrl-C to the parent process, and end when it closes its end of the pipe or is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Connection) -> None:
    with suppress(EOFError, OSError):
        parent.recv()  # nothing is ever sent
    os._exit(1)


def _on_ray(
    work: Callable[..., T], tasks: Iterable[tuple[Any, ...]], num_workers: int | None, encodes: bool
) -> Generator[T]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports its use to its makers otherwise
    ray = require("ray", extra="ray")
    address = os.environ.get("RAY_ADDRESS")
    local = {"address": "local", "num_cpus": num_workers, "include_dashboard": False}
    try:
        ray.init(**({"address": address} if address else local), log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # it raises nothing narrower where its processes do not come up
        raise WorkError(f"no Ray at {address or 'this machine'}: {str(error).splitlines()[0]}") from error
    try:
        options, total = (
            _encoder_resources(ray) if encodes else ({"num_cpus": 1}, ray.cluster_resources().get("CPU", 1))
        )
        # a worker has JAX's settings of the command from its start, before it imports what a task needs
        settings = {name: value for name, value in os.environ.items() if name.startswith(("JAX_", "XLA_"))}
        remote = ray.remote(_in_folder).options(runtime_env={"env_vars": settings}, **options)
        calls = (remote.remote(Path.cwd(), work, *task) for task in tasks)
        yield from _in_order(calls, ray.get, num_workers or int(total))
    except ray.exceptions.RayTaskError as error:  # its own text is the traceback of the worker
        raise error.cause from None
    except ray.exceptions.RayError:
        raise WorkError(_WORKER_LOST) from None
    finally:
        ray.shutdown()


def _encoder_resources(ray: ModuleType) -> tuple[dict[str, float], float]:
    """What Ray reserves for an encoder, and how many encoders the cluster has room for.

    Where any machine has a GPU those without one do not take part: their numbers would differ in the last bits.
    """
    if gpus := ray.cluster_resources().get("GPU"):
        return {"num_gpus": 1}, gpus
    cores = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    smallest = min(filter(None, cores), default=1)
    return {"num_cpus": smallest}, sum(count // smallest for count in cores)


def _in_folder(folder: Path, work: Callable[..., T], *task: Any) -> T:
    """On another machine relative paths mean the same only in the same folder."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise WorkError(f"every machine of the cluster must see the same folders: {error}.") from None
    return work(*task)


def _in_order(futures: Iterable[S], result: Callable[[S], T], num_workers: int) -> Iterator[T]:
    """Results in the order of `futures`, which are drawn, and so started, no more than a few before their turn."""
    waiting: deque[S] = deque()
    for future in futures:
        waiting.append(future)
        if len(waiting) > TASKS_PER_WORKER * num_workers:
            yield result(waiting.popleft())
    while waiting:
        yield result(waiting.popleft())
