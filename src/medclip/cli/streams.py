"""Standard streams that are closed, full, or that nobody reads any more; what is logged to them."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from medclip.plain_text import PlainFormatter

QUIET = ("absl", "matplotlib")
"""Loggers of libraries that tell of a damaged state, which the run does itself, and of a home that is none."""
_SAID_ONCE = ("medclip.model", "medclip.encode")
"""A command may open a model several times, and each of its towers has a feature cache."""


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


@contextmanager
def plain_terminal_log() -> Iterator[None]:
    """Write each warning as one plain line to stderr, also where a library sets up logging as it is imported (Orbax).

    Where logging is set up already, as by a caller from Python, its handlers stay as they are.
    """
    root, handler, is_new = logging.getLogger(), logging.lastResort, _only_once()
    for name in _SAID_ONCE:
        logging.getLogger(name).addFilter(is_new)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if handler and not root.handlers:
        handler.setFormatter(PlainFormatter())
        root.addHandler(handler)
    try:
        yield
    finally:
        if handler:
            root.removeHandler(handler)
        for name in _SAID_ONCE:
            logging.getLogger(name).removeFilter(is_new)


def _only_once() -> Callable[[logging.LogRecord], bool]:
    """Lets each warning through once."""
    sentences: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        sentence = record.getMessage()
        is_repeated = sentence in sentences
        sentences.add(sentence)
        return not is_repeated

    return is_new
