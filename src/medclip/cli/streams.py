"""Standard streams that are closed, full, or that nobody reads any more."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def replace_closed_streams() -> None:
    """What is printed to a closed stream goes nowhere; without this a file that is opened would take its number."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, os.fdopen(number, mode))


@contextmanager
def print_errors() -> Iterator[None]:
    """Write out what the block prints; OSError on a full disk. A reader that has ended, as `head`, ends the process."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.filename is not None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        if isinstance(error, BrokenPipeError):
            raise SystemExit(1) from None
        raise OSError(error.errno, error.strerror, "standard output") from None
