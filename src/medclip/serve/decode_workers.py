"""Uploaded images are decoded in processes of their own: one that crashes a decoder, or keeps it, ends nothing else.

Bytes go in and pixels come out, over a pipe: an image never touches the disk, and nothing of it but pixels comes back.
"""

from __future__ import annotations

import json
import math
import os
import queue
import signal
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from medclip.data.images import header_size
from medclip.data.parallel import WorkerContext
from medclip.encode.decode import decode_pixels
from medclip.errors import ImageError, UserError

MAX_PIXELS = 40_000_000  # a full mammogram has about 30 million
MEMORY = 4 * 2**30
SECONDS = 10.0
UNREADABLE = "image unreadable"
_PIXELS, _REASON = b"+", b"-"


class Decoders:
    """Processes that decode, each one image at a time; one that does not answer is replaced."""

    def __init__(self, count: int):
        self._free: queue.SimpleQueue[_Decoder] = queue.SimpleQueue()
        self._count = count
        for _ in range(count):
            self._free.put(_Decoder())

    def fit(self, image: bytes, preprocessor: Mapping[str, Any], timeout_s: float) -> np.ndarray:
        """Pixels u8 (s, s, 3) of an encoded image; see `medclip.data.images.fit`.

        Raises ImageError, also where decoding crashed or took more than SECONDS; TimeoutError where none was free.
        """
        try:
            decoder = self._free.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError from None
        try:
            answer = decoder.ask(image, preprocessor)
        except (EOFError, OSError, TimeoutError):
            decoder.end()
            decoder = _Decoder()
            raise ImageError(UNREADABLE) from None
        finally:
            self._free.put(decoder)
        if answer[:1] == _REASON:
            raise ImageError(answer[1:].decode())
        side = math.isqrt((len(answer) - 1) // 3)
        return np.frombuffer(answer, np.uint8, offset=1).reshape(side, side, 3)

    def close(self) -> None:
        """End the processes, when each has done what it is at."""
        for _ in range(self._count):
            self._free.get(timeout=2 * SECONDS).end()


class _Decoder:
    def __init__(self) -> None:
        context = WorkerContext()
        self._here, there = context.Pipe()
        self._process = context.Process(target=_decode, args=(there,), daemon=True, name="decoder")
        self._process.start()
        there.close()
        self._started = False

    def ask(self, image: bytes, preprocessor: Mapping[str, Any]) -> bytes:
        if not self._started:  # its imports are not the image's fault
            self._here.recv_bytes()
            self._started = True
        self._here.send_bytes(json.dumps(preprocessor).encode())
        self._here.send_bytes(image)
        if not self._here.poll(SECONDS):
            raise TimeoutError
        return self._here.recv_bytes()

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self._here.close()


def _decode(pipe: Connection) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # it ends with the pipe, when no request needs it any more
    _limit_memory()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)  # libraries write what they read in a header
    try:
        pipe.send_bytes(b"")
        while True:
            preprocessor = json.loads(pipe.recv_bytes())
            pipe.send_bytes(_decoded(pipe.recv_bytes(), preprocessor))
    except (EOFError, OSError):
        return


def _decoded(image: bytes, preprocessor: Mapping[str, Any]) -> bytes:
    try:
        width, height = header_size(image)
        if width * height > MAX_PIXELS:
            return _REASON + f"image over {MAX_PIXELS // 10**6} million pixels".encode()
        return _PIXELS + decode_pixels(image, preprocessor).tobytes()
    except (ImageError, UserError) as error:  # the latter where pydicom is not installed
        return _REASON + str(error).encode()
    except Exception:  # MemoryError, and whatever else a decoder raises on bytes that were made to break it
        return _REASON + UNREADABLE.encode()


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would put the image on the disk
