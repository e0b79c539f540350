"""Decoding in processes of its own: an image that crashes a decoder, hangs it or fills the memory ends nothing else.

A function and the arguments of one or many images go in, and each result comes out as soon as it is there, over a pipe:
an upload never touches the disk, and which image ended a worker is known. It is no sandbox: a worker has the rights of
its caller.
"""

from __future__ import annotations

import os
import queue
import signal
from collections.abc import Callable, Sequence
from functools import cache, partial
from multiprocessing import util
from multiprocessing.connection import Connection
from typing import Any, ParamSpec, TypeVar

from medclip.data.parallel import WorkerContext, available_cores
from medclip.data.worker_limits import MAX_MEMORY_BYTES, be_silent, limit_memory, working_folder
from medclip.errors import ImageError, UserError, WorkError

P = ParamSpec("P")
R = TypeVar("R")
CRASHED = "decoder crashed"
UNREADABLE = "image unreadable"
TOO_MUCH_MEMORY = f"image needs over {MAX_MEMORY_BYTES >> 30} GiB to decode"
KILLED = "decoder killed, as where the machine's memory runs out"
_SIGKILL = getattr(signal, "SIGKILL", 9)  # Windows has no name for it
TIMEOUT_S = 120.0
"""Of an image on this machine: 100 million pixels of JPEG 2000 take 20 s of an idle core."""


class DecodeWorkers:
    """At most `count` processes that each decode one image at a time; one starts when it is first needed."""

    def __init__(self, count: int, timeout_s: float):
        self._timeout_s = timeout_s
        self._workers = [_Worker() for _ in range(count)]
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()  # those that have started come first
        for worker in self._workers:
            self._idle.put(worker)

    def run(self, wait_s: float | None, decode: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """`decode(*args, **kwargs)`, a function of an importable module.

        Raises ImageError, also where decoding crashes, takes too long or too much memory; TimeoutError where no worker
        is idle within `wait_s` seconds (None: no limit).
        """
        (result,) = self.run_each(wait_s, partial(decode, **kwargs), [args])
        if isinstance(result, ImageError):
            raise result
        return result

    def run_each(
        self, wait_s: float | None, decode: Callable[..., R], images: Sequence[tuple[Any, ...]]
    ) -> list[R | ImageError]:
        """As `run`, for the arguments of many images, by one worker; an ImageError takes the place of a result.

        Each image has the time of one; they share the memory of one.
        """
        try:
            worker = self._idle.get(timeout=wait_s)
        except queue.Empty:
            raise TimeoutError from None
        try:
            return worker.run(decode, images, self._timeout_s)
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """End the processes, with what they decode."""
        for worker in self._workers:
            worker.end()


def isolate(decode: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """`decode(*args, **kwargs)` in a worker; see `DecodeWorkers.run`. In a worker it is called directly."""
    if _in_worker:
        return decode(*args, **kwargs)
    return _local_workers().run(None, decode, *args, **kwargs)


def isolate_each(decode: Callable[..., R], images: Sequence[tuple[Any, ...]]) -> list[R | ImageError]:
    """As `isolate`, for the arguments of many images: one message for all of them, and an answer for each."""
    return _local_workers().run_each(None, decode, images)


_in_worker = False


@cache
def _local_workers() -> DecodeWorkers:
    workers = DecodeWorkers(available_cores(), TIMEOUT_S)
    util.Finalize(None, workers.close, exitpriority=100)  # atexit is not for processes of multiprocessing
    return workers


class _Worker:
    def __init__(self) -> None:
        self._process: Any = None

    def run(
        self, decode: Callable[..., R], images: Sequence[tuple[Any, ...]], timeout_s: float
    ) -> list[R | ImageError]:
        results: list[R | ImageError] = []
        retried = None
        while len(results) < len(images):
            if self._process is None or not self._process.is_alive():
                self._start()
            try:
                self._receive(decode, images[len(results) :], timeout_s, results)
            except TimeoutError:
                self.end()
                results.append(ImageError(f"image takes over {timeout_s:.0f} s to decode"))
            except (EOFError, OSError):
                was_killed = self.end() == -_SIGKILL
                if was_killed and retried != len(results):  # it may be another process that needs the memory
                    retried = len(results)
                else:
                    results.append(ImageError(KILLED if was_killed else CRASHED))
        return results

    def _receive(
        self,
        decode: Callable[..., R],
        images: Sequence[tuple[Any, ...]],
        timeout_s: float,
        results: list[R | ImageError],
    ) -> None:
        """Add the result of each image, in order, until the worker ends."""
        self._pipe.send((decode, images, working_folder(), timeout_s))
        self._pipe.recv()  # the time of importing the function is not the image's
        for _ in images:
            if not self._pipe.poll(timeout_s):
                raise TimeoutError
            result, error = self._pipe.recv()
            if error is not None and not isinstance(error, ImageError):
                raise error
            results.append(result if error is None else error)

    def end(self) -> int | None:
        """Its exit code, where it ended by itself."""
        if self._process is None:
            return None
        self._pipe.close()
        self._process.join(1)
        exit_code = self._process.exitcode
        self._process.kill()
        self._process.join()
        self._process = None
        return exit_code

    def _start(self) -> None:
        self.end()
        context = WorkerContext()
        self._pipe, worker_pipe = context.Pipe()
        process = context.Process(target=_decode_loop, args=(worker_pipe,), daemon=True, name="decoder")
        process.start()
        self._process = process
        worker_pipe.close()
        try:
            self._pipe.recv()
        except (EOFError, OSError):
            raise WorkError("a process that decodes images does not start.") from None


def _decode_loop(pipe: Connection) -> None:
    global _in_worker
    _in_worker = True
    be_silent()
    try:
        pipe.send(None)
        while True:
            decode, images, folder, timeout_s = pipe.recv()
            pipe.send(None)
            if folder and folder != working_folder():
                os.chdir(folder)
            limit_memory(MAX_MEMORY_BYTES)
            for arguments in images:
                result, error = _run(decode, arguments, timeout_s)
                pipe.send((result, error))
                if error is not None and not isinstance(error, ImageError):
                    break  # the caller goes no further either
    except (EOFError, OSError):
        return


def _run(decode: Callable[..., R], arguments: tuple[Any, ...], timeout_s: float) -> tuple[R | None, Exception | None]:
    if hasattr(signal, "alarm"):  # a process that hangs ends even where its caller has ended before
        signal.alarm(int(timeout_s) + 60)
    try:
        return decode(*arguments), None
    except (ImageError, UserError, WorkError) as error:  # UserError: pydicom is not installed
        return None, error
    except MemoryError:
        return None, ImageError(TOO_MUCH_MEMORY)
    except Exception:  # crafted bytes make decoders raise nearly every class there is
        return None, ImageError(UNREADABLE)
    finally:
        if hasattr(signal, "alarm"):
            signal.alarm(0)
