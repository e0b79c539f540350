"""What goes wrong outside of a process: another one that writes, or that is killed at a chosen moment."""

import fcntl
import os
import signal
import subprocess
import sys
from contextlib import contextmanager


@contextmanager
def lock_elsewhere(folder):
    """Lock a folder as another process would: by a descriptor that is not ours."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


_KILLED = """
import os, signal, sys
from pathlib import Path
name, *words = sys.argv[1:]
replace = Path.replace
def replace_or_die(self, target):
    if Path(target).name == name:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)
Path.replace = replace_or_die
from medclip.cli.main import run
run(words)
"""


def run_until(name, *words):
    """Run a command in a process of its own that is killed when it would give a file its name; whether it was."""
    process = subprocess.run([sys.executable, "-c", _KILLED, name, *map(str, words)], capture_output=True, check=False)
    return process.returncode == -signal.SIGKILL


_HELD = """
import sys, time
from pathlib import Path
folder, event, *words = sys.argv[1:]
replace = Path.replace
def replace_after_event(self, target):
    while str(target).startswith(folder) and not Path(event).exists():
        time.sleep(0.02)
    return replace(self, target)
Path.replace = replace_after_event
sys.argv = ["medclip", *words]
from medclip.cli.main import main
main()
"""


def start_held(folder, event, *words):
    """Start a command in a process of its own that gives no file of a folder its name before another file is there."""
    command = [sys.executable, "-c", _HELD, *map(str, (folder, event, *words))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def partial_files(folder):
    """Files that a killed process left half-written."""
    return [str(path.relative_to(folder)) for path in folder.rglob(".*.partial")]


def files_in(folder):
    """Bytes by path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
