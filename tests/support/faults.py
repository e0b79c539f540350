"""Faults of the environment: full and read-only disks, other users, other locales."""

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "medclip.cli.main"]
WRITERS = {
    "prepare": "prepare phantoms:4 --num-workers 1",
    "stats": "stats DATA",
    "leakage": "leakage DATA",
    "train": "train --data DATA --preset tiny --steps 1 --batch-size 4 --num-evals 1",
    "retrieval": "evaluate retrieval --model RUN --data DATA",
    "zero-shot": "evaluate zero-shot --model RUN --data DATA --label modality",
    "probe": "evaluate probe --model RUN --data DATA --label modality",
    "compositionality": "evaluate compositionality --model RUN --data DATA",
    "robustness": "evaluate robustness --model RUN --data DATA --max-samples 2",
    "compare": "compare EVALUATION EVALUATION",
    "explain": "explain --model RUN --image IMAGE --text chest",
    "embed": "embed --model RUN --data DATA",
    "index": "index build --model RUN --data DATA",
    "quickstart": "quickstart",
    "safetensors": "export RUN --to safetensors",
    "onnx": "export RUN --to onnx",
    "open_clip": "export RUN --to open_clip",
    "parquet": "export DATA --to parquet",
    "tar": "export DATA --to tar",
    "correct": "correct DATA --corrections CORRECTIONS",
    "map": "map --index INDEX --model RUN",
}
"""Every command that has an --out; tests/faults/test_outputs.py holds that none is missing."""


@contextlib.contextmanager
def file_size_limit(num_bytes: int) -> Iterator[None]:
    """No file of this process grows beyond so many bytes: what a full disk does, with EFBIG in place of ENOSPC."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # Python would keep the halves
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        sys.dont_write_bytecode = before
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def disk(folder: Path, *options: str) -> Iterator[Path]:
    """A file system of its own in memory; skips the test where this user may not mount one."""
    folder.mkdir(exist_ok=True)
    mount(folder, "-t", "tmpfs", "-o", ",".join(options), "tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)  # files may be mapped still


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[Path]:
    """The folder where nobody, root included, can write; skips the test where this user may not mount."""
    mount(folder, "--bind", str(folder))
    try:
        mount(folder, "-o", "remount,bind,ro")
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def mount(folder: Path, *arguments: str) -> None:
    """Call mount(8), or skip the test."""
    try:
        done = subprocess.run(["mount", *arguments, folder], capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"no mount here: {error}")
    if done.returncode:
        pytest.skip(f"this user may not mount: {done.stderr.strip()}")


def run_medclip(*arguments: object, env: dict[str, str | None] | None = None, **options) -> subprocess.CompletedProcess:
    """A command in a process of its own; a variable of `env` that is None is unset."""
    environment = {name: value for name, value in {**os.environ, **(env or {})}.items() if value is not None}
    words = [*COMMAND, *(os.fspath(a) if isinstance(a, os.PathLike | bytes) else str(a) for a in arguments)]
    return subprocess.run(words, env=environment, capture_output=True, check=False, **options)
