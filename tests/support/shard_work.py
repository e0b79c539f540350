"""Work that is sent to other processes, which look it up in a module of its own."""

import os
import signal
import time

from medclip.errors import UserError


def finish_late(number):
    """Return the number: the smaller it is, the later."""
    time.sleep(0.02 * (5 - number))
    return number


def fill_disk(number):
    raise OSError(28, "No space left on device")


def be_killed(number):
    os.kill(os.getpid(), signal.SIGKILL)


def crash_after_a_row(path):
    yield {"image": "a.png"}
    os.kill(os.getpid(), signal.SIGSEGV)


def refuse_table(path):
    raise UserError(f"{path} is no table.")
    yield
