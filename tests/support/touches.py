"""A process that is killed at a touch of its folder, counted, as no clock can tell how far it is on another machine."""

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

_EVENTS = ("open", "os.mkdir", "os.rename", "os.remove")
_FOLDER, _KILL_AT = "MEDCLIP_TEST_FOLDER", "MEDCLIP_TEST_KILL_AT"


class Touches:
    """Counts the uses of files in a folder by this process; SIGKILL before the one of a number."""

    def __init__(self, folder: str, kill_at: int):
        self._folder, self._kill_at, self._process = folder, kill_at, os.getpid()
        self._numbers = itertools.count(1)  # its steps are whole, in whatever thread
        sys.addaudithook(self._see)

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _EVENTS and str(arguments[0]).startswith(self._folder):
            self.add()

    def add(self) -> None:
        """Count a touch more: a step that no file of this process tells."""
        if os.getpid() == self._process and next(self._numbers) == self._kill_at:
            os.kill(self._process, signal.SIGKILL)

    @property
    def count(self) -> int:
        """How many there were."""
        return next(self._numbers) - 1


def count_touches() -> Touches:
    """In a process of `run_to_touch`: those of its folder."""
    return Touches(os.environ[_FOLDER], int(os.environ[_KILL_AT]))


def run_to_touch(script: str, folder: Path, kill_at: int, *arguments: object) -> int | None:
    """Run a script that prints its `count_touches().count` at its end: that number, None where it was killed."""
    tests = str(Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, (tests, os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PYTHONPATH": path, _FOLDER: str(folder), _KILL_AT: str(kill_at)}
    words = [sys.executable, "-c", script, *map(str, arguments)]
    ended = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    assert ended.returncode in (0, -signal.SIGKILL)
    return int(ended.stdout) if ended.returncode == 0 else None
