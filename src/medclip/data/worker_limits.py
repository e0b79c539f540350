"""What holds of every process that reads what a stranger wrote: it is silent, and its memory has an end.

It is no sandbox: such a process has the rights of its caller.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from medclip.stop_signals import STOP_SIGNALS

MAX_MEMORY_BYTES = 4 * 2**30


def be_silent() -> None:
    """Print nothing, and leave signals to the caller: this process ends with its pipe, when nobody needs it."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(null, stream)  # libraries print what they read in a header


def limit_memory(num_bytes: int) -> None:
    """At most `num_bytes` beyond what the process has; without /proc or `resource`, no limit."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would put what is read on the disk
    with suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + num_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def working_folder() -> str | None:
    """Where relative paths start; None where the folder was removed."""
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        return None
