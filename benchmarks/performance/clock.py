"""What a person waits for, by the clock: only on a quiet machine does this say anything. Ours alone, on all cores."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from performance.cold_search import QUERY
from performance.models import choose_images, write_model, write_pairs
from performance.record import CORES, ENVIRONMENT, MEDCLIP, Bounds, Clock, Result, in_new_process, run
from performance.training import write_pairs as write_training_pairs

RUNS = 7


def measure(bounds: Bounds) -> Iterator[Result]:
    folder, model = bounds.folder, write_model(bounds, "small")
    pairs = write_pairs(choose_images(bounds, 16), folder / "source")
    run([*MEDCLIP, "prepare", pairs, "--out", folder / "data", "--num-workers", 1])
    index = ("--model", model, "--data", folder / "data", "--split", "train", "--out", folder / "index")
    run([*MEDCLIP, "index", "build", *index])
    search = [*MEDCLIP, "search", "--index", folder / "index", QUERY, "--json"]
    yield Clock("`medclip --help`, new process", _seconds([*MEDCLIP, "--help"]), 0.4)
    yield Clock("`medclip search`, new process, DINOv2-S with MiniLM", _seconds(search), 2)
    starts = {
        "frozen DINOv2-S and MiniLM": ("--init", model, "--freeze", "vision_model.*", "text_model.*"),
        "the small preset": ("--preset", "small"),
    }
    in_new_process(write_training_pairs, folder / "pairs", 64)
    for name, flags in starts.items():
        work = f"second start of `medclip train` up to its first step, {name}, 64 pairs"
        yield Clock(work, _starts(folder / "pairs", folder / flags[0].strip("-"), flags), 10)


def _seconds(command: Sequence[object]) -> list[float]:
    """Of runs on all cores after one that fills caches."""
    seconds = []
    for _ in range(RUNS + 1):
        start = time.perf_counter()
        with _start(command) as process:
            process.communicate()
        if process.returncode:
            raise SystemExit(f"failed: {command}")
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def _starts(data: Path, out: Path, flags: Sequence[object]) -> list[float]:
    """From the start of the process to its first step, of runs after a first one."""
    seconds = []
    for number in range(RUNS + 1):
        run_folder = out / str(number)
        steps = ("--batch-size", 32, "--steps", 100, "--num-evals", 1, "--on-regression", "warn")
        start = time.perf_counter()
        with _start([*MEDCLIP, "train", "--data", data, "--out", run_folder, *flags, *steps]) as process:
            _wait_for_step(process, run_folder / "metrics.jsonl")
            seconds.append(time.perf_counter() - start)
            process.kill()
    return seconds[1:]


def _wait_for_step(process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the log has a line of a step that was taken."""
    while not (log.exists() and any("loss" in json.loads(line) for line in _whole_lines(log))):
        if process.poll() is not None:
            raise SystemExit(f"ended before its first step: {process.args}")
        time.sleep(0.01)


def _whole_lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()


def _start(command: Sequence[object]) -> subprocess.Popen[bytes]:
    os.sched_setaffinity(0, CORES)
    environment = os.environ | ENVIRONMENT
    return subprocess.Popen(
        list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    )
