"""Rows of tables that may take more memory than there is, read in a process whose memory has an end.

A packed table of 200 kB can unpack to all there is, and JSON takes up to 25 times its size. The size is not told by the
bytes of a file: pages, dictionaries, lists and views unpack to more than any of them says. So the rows are made
elsewhere and come over a pipe, some at a time. What a URL names is opened by the caller, which has its libraries and
secrets; the worker asks it for bytes.
"""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, suppress
from multiprocessing import util
from multiprocessing.connection import Connection
from pathlib import PurePosixPath
from typing import Any, NamedTuple, cast

from medclip.data.parallel import WorkerContext
from medclip.data.paths import AnyPath, is_url, storage_errors
from medclip.data.worker_limits import MAX_MEMORY_BYTES, be_silent, limit_memory, working_folder
from medclip.errors import UserError

Row = dict[str, Any]
Reader = Callable[[AnyPath], Iterator[Row]]
MAX_UNPACKED_ROW_BYTES = 2**28
MAX_ROWS_PER_BYTE = 100  # a row of a useful table has an image that no other has: nearly a byte
_PART_ROWS, _PART_BYTES = 256, 2**24


def read_packed(read: Reader, path: AnyPath, is_mapped: bool = False) -> Iterator[Row]:
    """The rows that `read`, a function of an importable module, yields of a table, in order.

    Raises UserError as `read` does, and where the table takes more than MAX_MEMORY_BYTES at once (`is_mapped`: beyond
    its own size), has a row above MAX_UNPACKED_ROW_BYTES, more than MAX_ROWS_PER_BYTE rows a byte, or ends its process.
    """
    worker = _take_worker()
    try:
        yield from worker.read(read, path, is_mapped)
    finally:
        if worker.is_idle:
            _idle.append(worker)
        else:
            worker.end()


class _Task(NamedTuple):
    """A table as a worker gets it: without its path where the caller opens it."""

    read: Reader
    path: AnyPath | None
    name: str
    size: int
    max_bytes: int
    max_row_bytes: int
    folder: str | None


class _Worker:
    def __init__(self) -> None:
        context = WorkerContext()
        self._pipe, worker_pipe = context.Pipe()
        self._process = context.Process(target=_read_loop, args=(worker_pipe,), daemon=True, name="table reader")
        self._process.start()
        worker_pipe.close()
        self.is_idle = True

    def read(self, read: Reader, path: AnyPath, is_mapped: bool) -> Iterator[Row]:
        with ExitStack() as stack:
            file = None
            if is_url(path):
                with storage_errors(path):
                    file = stack.enter_context(path.open("rb"))
            self.is_idle = False
            try:
                size = _size(path, file)
                bounds = MAX_MEMORY_BYTES + is_mapped * size, MAX_UNPACKED_ROW_BYTES
                self._pipe.send(_Task(read, None if file else path, str(path), size, *bounds, working_folder()))
                while num_rows := self._receive(path, file):
                    part = pickle.Unpickler(io.BytesIO(self._pipe.recv_bytes()))
                    for _ in range(num_rows):
                        yield part.load()
                    self._pipe.send(True)
            except GeneratorExit:
                with suppress(OSError):
                    self._pipe.send(False)
                    self.is_idle = True
                raise
            except (EOFError, BrokenPipeError, ConnectionResetError):
                raise UserError(
                    f"{path} ends the process that reads it ({_size(path, file):,} bytes): it is damaged, or unpacks "
                    "to more than the memory. Fetch it again, or write it anew as CSV or JSON lines."
                ) from None

    def _receive(self, path: AnyPath, file: Any) -> int:
        """How many rows come next, 0 at the end. The worker's own questions for bytes are answered first."""
        while isinstance(answer := self._pipe.recv(), tuple):
            start, size = answer
            with storage_errors(path):
                file.seek(start)
                content = file.read(size)
            self._pipe.send_bytes(content)
        if isinstance(answer, MemoryError):  # what is left of its memory may not do for another table
            raise UserError(
                f"{path} ({_size(path, file):,} bytes) unpacks to more than {MAX_MEMORY_BYTES >> 30} GiB at once. If "
                "you trust it, write it anew as CSV or JSON lines, unpacked, or in smaller row groups or batches."
            )
        self.is_idle = not answer or isinstance(answer, Exception)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def is_alive(self) -> bool:
        return self._process.is_alive()

    def end(self) -> None:
        self._pipe.close()
        self._process.kill()
        self._process.join()


_idle: list[_Worker] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)  # two processes on one pipe would get each other's rows


def _take_worker() -> _Worker:
    with suppress(IndexError):  # none is idle
        while True:
            if (worker := _idle.pop()).is_alive():
                return worker
            worker.end()
    return _Worker()


def _end_idle() -> None:
    while _idle:
        _idle.pop().end()


util.Finalize(None, _end_idle, exitpriority=100)  # atexit is not for processes of multiprocessing


def _size(path: AnyPath, file: Any) -> int:
    """The bytes of a table; 0 where its server does not say."""
    with suppress(OSError):
        return int(path.stat().st_size if file is None else getattr(file, "size", 0) or file.seek(0, os.SEEK_END))
    return 0


def _read_loop(pipe: Connection) -> None:
    be_silent()
    with suppress(EOFError, OSError):
        while True:
            task: _Task = pipe.recv()
            if task.folder and task.folder != working_folder():
                os.chdir(task.folder)
            limit_memory(task.max_bytes)
            path: Any = task.path or _Asked(pipe, task.name, task.size)
            try:
                with closing(cast("Any", task.read(path))) as rows:
                    for num_rows, part in _parts(rows, task):
                        pipe.send(num_rows)
                        pipe.send_bytes(part)
                        if not pipe.recv():
                            break
                    else:
                        pipe.send(0)
            except MemoryError:
                pipe.send(MemoryError())
            except Exception as error:
                pipe.send(error)


def _parts(rows: Iterable[Row], task: _Task) -> Iterator[tuple[int, memoryview]]:
    """Rows, pickled, some at a time: the first alone, as of many tables no other is looked at."""
    most, num_rows, num_bytes = 1, 0, 0
    part, pickler = _new_part()
    for number, row in enumerate(rows, start=1):
        if task.size and number > MAX_ROWS_PER_BYTE * task.size:
            raise UserError(f"{task.name} claims over {number - 1:,} rows in {task.size:,} bytes. Fetch it again.")
        pickler.dump(row)
        row_bytes, num_bytes, num_rows = part.tell() - num_bytes, part.tell(), num_rows + 1
        if row_bytes > task.max_row_bytes:
            raise UserError(
                f"{task.name} ({task.size:,} bytes) unpacks to a row of {row_bytes:,} bytes, where "
                f"{task.max_row_bytes:,} are read. Leave out the columns that are no image and no caption."
            )
        if num_rows >= most or num_bytes >= _PART_BYTES:
            yield num_rows, part.getbuffer()
            most, num_rows, num_bytes = _PART_ROWS, 0, 0
            part, pickler = _new_part()
    if num_rows:
        yield num_rows, part.getbuffer()


def _new_part() -> tuple[io.BytesIO, pickle.Pickler]:
    part = io.BytesIO()
    return part, pickle.Pickler(part, pickle.HIGHEST_PROTOCOL)


class _Asked(io.RawIOBase):
    """A table behind a URL as its reader sees it: a path that opens to the bytes that the caller reads."""

    def __init__(self, pipe: Connection, name: str, size: int):
        self.name, self.suffix = PurePosixPath(name).name, PurePosixPath(name).suffix
        self._pipe, self._path, self._size, self._place = pipe, name, size, 0

    def __str__(self) -> str:
        return self._path

    def open(self, mode: str) -> _Asked:
        return _Asked(self._pipe, self._path, self._size)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any) -> int:
        self._pipe.send((self._place, len(buffer)))
        content = self._pipe.recv_bytes()
        buffer[: len(content)] = content
        self._place += len(content)
        return len(content)
