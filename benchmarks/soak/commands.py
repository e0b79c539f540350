"""Commands of medclip as processes that can be killed: forks of one that has imported the libraries, not started them.

So a kill falls into the work, not into imports. The moment is a share of the processor time that a whole run takes,
which a busy machine does not move.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from medclip import jax_setup
from medclip.cli.main import main
from medclip.model.config import PRESETS, Preset
from support.handmade_datasets import dataset, row
from support.material import RocoFolder, draw_image, image_bytes

LIBRARIES = ("cli.evaluate", "cli.index", "cli.share", "cli.train", "evaluation.retrieval", "search.curate",
             "search.embed", "training.loop", "data.stats.report", "verify")  # fmt: skip
jax_setup.start()  # before anything imports JAX
for name in LIBRARIES:
    importlib.import_module(f"medclip.{name}")
PRESETS["tiny"] = Preset(64, 128, 1, 1, 32, 16, 32)  # a step in milliseconds
TICKS_S = os.sysconf("SC_CLK_TCK")
TIMEOUT_S = 1800


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    """Negative: the signal that killed it."""
    output: str
    cpu_s: float
    peak_mb: float


class Command:
    """A command that runs."""

    def __init__(self, words: str | list[str], log: Path):
        self.log = log
        self.words = words.split() if isinstance(words, str) else words
        self.pid = os.fork()
        if self.pid == 0:
            self._run()

    def _run(self) -> None:
        descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for standard in (1, 2):
            os.dup2(descriptor, standard)
        code: object = 70
        try:
            sys.argv = ["medclip", *self.words]
            main()
            code = 0
        except SystemExit as end:
            code = end.code
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code if isinstance(code, int) else 0)

    def wait_for(self, cpu_s: float) -> None:
        """Wait until it has used so much processor time, or has ended."""
        while self._cpu_s() < cpu_s and self._runs():
            time.sleep(0.002)

    def kill_at(self, cpu_s: float) -> None:
        """Kill it when it has used so much processor time, unless it ends before."""
        self.wait_for(cpu_s)
        os.kill(self.pid, signal.SIGKILL)

    def _runs(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def _cpu_s(self) -> float:
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / TICKS_S

    def wait(self) -> Ended:
        """How it ends; killed after half an hour."""
        deadline = time.monotonic() + TIMEOUT_S
        while self._runs():
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.005)
        _, status, usage = os.wait4(self.pid, 0)
        output = self.log.read_text(errors="replace")
        cpu_s, peak_mb = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
        return Ended(os.waitstatus_to_exitcode(status), output, cpu_s, peak_mb)


def run(words: str | list[str], folder: Path) -> Ended:
    """A command to its end."""
    return Command(words, folder / "log").wait()


def run_whole(words: str | list[str], folder: Path) -> Ended:
    """A command that must succeed."""
    ended = run(words, folder)
    if ended.code:
        raise SystemExit(f"medclip {words} ended with {ended.code}:\n{ended.output[-2000:]}")
    return ended


def in_fork(work: Callable[[], str], log: Path) -> str:
    """What `work` returns in a process of its own; how that ended where it returns nothing."""
    pid = os.fork()
    if pid == 0:
        try:
            log.write_text(work())
        except BaseException as error:
            log.write_text(f"{type(error).__name__}: {error}")
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    return f"died of signal {status}" if status else log.read_text()


def digest(folder: Path, patterns: str) -> str:
    """A hash of the files that match, by their names."""
    paths = sorted({path for pattern in patterns.split() for path in folder.glob(pattern) if path.is_file()})
    content = hashlib.sha256()
    for path in paths:
        content.update(f"{path.relative_to(folder)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return content.hexdigest() if paths else ""


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def write_roco(folder: Path, num_train: int = 48, num_validation: int = 24) -> Path:
    """A source in ROCO's layout."""
    made = RocoFolder(folder)
    for split, count, first in (("train", num_train, 0), ("validation", num_validation, 100)):
        organs = random.Random(first).choices(("chest", "abdomen", "brain", "knee"), k=count)
        numbers = range(first, first + count)
        made.add_split(
            split,
            [
                (f"ROCO_{n:05}", f"CT of the {organ}, image number {n}", n, image_bytes(draw_image(n % 40, (96, 80))))
                for n, organ in zip(numbers, organs, strict=True)
            ],
        )
    return folder


def write_rows(data: Path, count: int) -> str:
    """A prepared dataset of small images, a tenth of them for validation."""
    rng, splits = np.random.default_rng(0), {"train": [], "validation": []}
    for number in range(count):
        image = image_bytes(Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)), "PNG", compress_level=1)
        splits["train" if number % 10 else "validation"].append(row(number, image=image, article=f"PMC{number // 3}"))
    return str(dataset(data, splits, shard=50_000))


def leftovers(folder: Path) -> list[str]:
    """Half-written files and notes of unfinished work."""
    return [str(path.relative_to(folder)) for path in folder.rglob(".*") if "partial" in path.name or path.is_dir()]
