"""Decoding of uploads in worker processes: an image that crashes or hangs a decoder ends nothing else.

Encoded images go in and pixels come out, over a pipe: an upload never touches the disk.
"""

from __future__ import annotations

import math
import os
import queue
import signal
from multiprocessing.connection import Connection

import numpy as np
from jaxtyping import UInt8

from medclip.data.images import header_size
from medclip.data.parallel import WorkerContext
from medclip.encode.decode import decode_pixels
from medclip.errors import ImageError, UserError
from medclip.model.image_processor import ImageProcessor

MAX_PIXELS = 40_000_000  # a full mammogram has about 30 million
MAX_MEMORY_BYTES = 4 * 2**30
DECODE_TIMEOUT_S = 10.0
UNREADABLE = "image unreadable"
_PIXELS, _REASON = b"+", b"-"


class DecodeWorkers:
    """Processes that decode one image at a time each; one that does not answer is replaced."""

    def __init__(self, count: int):
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._count = count
        for _ in range(count):
            self._idle.put(_Worker())

    def decode(self, image: bytes, processor: ImageProcessor, timeout_s: float) -> UInt8[np.ndarray, "s s 3"]:
        """Pixels of an encoded image; see `medclip.encode.decode.decode_pixels`.

        Raises ImageError, also where decoding crashes or takes more than DECODE_TIMEOUT_S; TimeoutError where no worker
        is idle within `timeout_s`.
        """
        try:
            worker = self._idle.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError from None
        try:
            answer = worker.decode(image, processor)
        except (EOFError, OSError, TimeoutError):
            worker.end()
            worker = _Worker()
            raise ImageError(UNREADABLE) from None
        finally:
            self._idle.put(worker)
        if answer[:1] == _REASON:
            raise ImageError(answer[1:].decode())
        side = math.isqrt((len(answer) - 1) // 3)
        return np.frombuffer(answer, np.uint8, offset=1).reshape(side, side, 3)

    def close(self) -> None:
        """End each process when its image is done."""
        for _ in range(self._count):
            self._idle.get(timeout=2 * DECODE_TIMEOUT_S).end()


class _Worker:
    def __init__(self) -> None:
        context = WorkerContext()
        self._pipe, worker_pipe = context.Pipe()
        self._process = context.Process(target=_decode_loop, args=(worker_pipe,), daemon=True, name="decoder")
        self._process.start()
        worker_pipe.close()
        self._is_started = False

    def decode(self, image: bytes, processor: ImageProcessor) -> bytes:
        if not self._is_started:  # the time of its imports is not the image's
            self._pipe.recv_bytes()
            self._is_started = True
        self._pipe.send(processor)
        self._pipe.send_bytes(image)
        if not self._pipe.poll(DECODE_TIMEOUT_S):
            raise TimeoutError
        return self._pipe.recv_bytes()

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _decode_loop(pipe: Connection) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # it ends with the pipe, when no request needs it any more
    _limit_memory()
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(null, stream)  # libraries print what they read in a header
    try:
        pipe.send_bytes(b"")
        while True:
            processor = pipe.recv()
            pipe.send_bytes(_decode(pipe.recv_bytes(), processor))
    except (EOFError, OSError):
        return


def _decode(image: bytes, processor: ImageProcessor) -> bytes:
    try:
        width, height = header_size(image)
        if width * height > MAX_PIXELS:
            return _REASON + f"image over {MAX_PIXELS // 10**6} million pixels".encode()
        return _PIXELS + decode_pixels(image, processor).tobytes()
    except (ImageError, UserError) as error:  # the latter where pydicom is not installed
        return _REASON + str(error).encode()
    except Exception:  # MemoryError, or anything else that crafted bytes make a decoder raise
        return _REASON + UNREADABLE.encode()


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would put the image on the disk
