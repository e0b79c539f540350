"""Runs in turn, what each cost, and the results that become lines of docs/performance.jsonl."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")
MEDCLIP = (sys.executable, "-m", "medclip.cli.main")
CORES = sorted(os.sched_getaffinity(0))
ROOT = Path(__file__).parents[2]
# modules are compiled once, as they are where someone installs them
ENVIRONMENT = {
    "PYTHONDONTWRITEBYTECODE": "", "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'benchmarks'}", "HF_HUB_OFFLINE": "1",
    "NO_ALBUMENTATIONS_UPDATE": "1", "TOKENIZERS_PARALLELISM": "false",
}  # fmt: skip


@dataclass(frozen=True)
class Bounds:
    """What every part is given."""

    folder: Path
    """Empty at first, and deleted afterwards."""
    peers: str
    """The Python in which the others are installed."""
    images: Path
    """A folder of images."""
    rounds: int = 5
    scale: float = 1.0
    """Of the sizes; below 1 for a quick look."""
    towers: Path | None = None
    """What real_towers.py wrote."""

    def size(self, usual: int) -> int:
        return max(8, round(usual * self.scale))


@dataclass(frozen=True)
class Comparison:
    """Ours beside a peer's. `ratios` are the peer's cost over ours of each round: above 1, ours is less."""

    work: str
    peer: str
    ratios: Sequence[float]
    cost: str = "processor time"
    goal: float | None = None
    """The median at least; None: none was set."""
    checked: str = ""
    """What was found equal before."""
    limit: str = ""
    """What the work cannot do without, counted."""


@dataclass(frozen=True)
class Growth:
    """Cost of ours by size, in processor time: medians of the rounds."""

    work: str
    size: str
    sizes: Sequence[int]
    costs: Sequence[float]
    expected: str
    """The exponent that counting operations gives."""


@dataclass(frozen=True)
class Clock:
    """Seconds by the clock of ours alone, of several runs one after another."""

    work: str
    seconds: Sequence[float]
    limit_s: float
    """What the median stays below."""


Result = Comparison | Growth | Clock


class Usage(NamedTuple):
    """What a process cost, with those that it waited for."""

    seconds: float
    """Of processor time, user and system."""
    peak_mb: float
    """The largest resident size of one of them."""
    output: str


def start(command: Sequence[object], cores: int) -> subprocess.Popen[str]:
    """A process on so many cores, chosen at random."""
    os.sched_setaffinity(0, random.sample(CORES, cores))
    words, environment = list(map(str, command)), os.environ | ENVIRONMENT
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def run(command: Sequence[object], cores: int = 1) -> Usage:
    """Run a command on so many cores. SystemExit where it fails.

    On one core no thread waits for another, so no time of waiting is counted; and a child's peak starts from this
    process's, which therefore stays small.
    """
    with start(command, cores) as process:
        assert process.stdout
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"failed: {' '.join(map(str, command))[:500]}\n{output[-2000:]}")
    return Usage(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, output)


def in_turn(rounds: int, runs: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """What each run gave, round after round, every other one backwards."""
    results: dict[str, list[T]] = {name: [] for name in runs}
    for number in range(rounds):
        for name in list(runs)[:: -1 if number % 2 else 1]:
            results[name].append(runs[name]())
    return results


def ratios(theirs: Sequence[Usage], ours: Sequence[Usage], cost: str = "seconds") -> list[float]:
    """The peer's cost over ours, round by round."""
    return [getattr(a, cost) / getattr(b, cost) for a, b in zip(theirs, ours, strict=True)]


def in_new_process(function: Callable[..., None], *arguments: Any) -> None:
    """Call a function where its memory is not this process's."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{function.__name__} failed")


class Worker:
    """A process that answers lines of JSON with lines of JSON: for what is warm."""

    def __init__(self, process: subprocess.Popen[str]):
        self.process = process

    def ask(self, request: Any = None) -> Any:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        if not (line := self.process.stdout.readline()):
            raise SystemExit(f"failed: {self.process.args}")
        return json.loads(line)


@contextmanager
def worker(*command: object, cores: int = 1) -> Iterator[Worker]:
    """Start one; it ends with the block."""
    with start(command, cores) as process:
        try:
            yield Worker(process)
        finally:
            process.kill()
