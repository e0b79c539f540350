"""What another thread or process will have done: waited for, as long as a busy machine may take."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(find: Callable[[], T]) -> T:
    """What is found, once it is true or not empty; an error after ten minutes, which are enough on any machine."""
    deadline = time.monotonic() + 600
    while not (value := find()):
        assert time.monotonic() < deadline, "ten minutes have passed"
        time.sleep(0.01)
    return value
