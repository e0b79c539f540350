"""Whether what medclip wrote is as it was written: every file against the hashes in its manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from medclip.errors import LockedError, UserError
from medclip.evaluation.results import kinds_in
from medclip.folder_locks import check_unlocked
from medclip.recorded_files import CHECKSUMS_FILE, EXPORT_FILE
from medclip.verify.artifacts import check_dataset, check_embeddings, check_evaluations, check_index
from medclip.verify.hashes import Finding, check_hashes, check_manifest, check_recorded, left_over, partial_files

_TRIES = 5
_SUMMARY = "summary.json"
_RECORDED_AT_THE_END = ("metrics.jsonl", "curves.png", "tracking.json")
"""Files that change while a run trains."""


@dataclass(frozen=True)
class Report:
    """What `verify` read, and what it found."""

    kind: str
    num_files: int
    findings: tuple[Finding, ...]


def verify(folder: Path) -> Report:
    """Check a dataset, a run, an index, embeddings, an export or evaluations, by the manifest that the folder holds.

    UserError where it holds none, LockedError where another process is writing into it.
    """
    if not folder.is_dir():
        return _verify_once(folder)
    for _ in range(_TRIES):
        check_unlocked(folder)
        before = _state(folder)
        try:
            report = _verify_once(folder)
            if not report.findings:
                return report
        except UserError:
            if not _was_written(folder, before):
                raise
        else:
            if not _was_written(folder, before):
                return report
    raise LockedError(f"{folder} was written each time it was verified; try again when that has ended.")


def _state(folder: Path) -> dict[str, tuple[int, int, int]]:
    """What any change of a file of the folder changes, by path."""
    states = {}
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            state = path.lstat()
            states[str(path)] = state.st_ino, state.st_size, state.st_mtime_ns
    return states


def _was_written(folder: Path, before: dict[str, tuple[int, int, int]]) -> bool:
    """Whether what looked damaged was half of a change. LockedError where that goes on."""
    check_unlocked(folder)
    return _state(folder) != before


def _verify_once(folder: Path) -> Report:
    for kind, (manifest, check) in _CHECKS.items():
        if (folder / manifest).is_file():
            return _report(kind, folder, check)
    if folder.is_dir() and kinds_in(folder):
        return _report("evaluations", folder, check_evaluations)
    if (folder / CHECKSUMS_FILE).is_file():
        return _report("output without its manifest", folder, _check_remains)
    raise UserError(
        f"{folder} is nothing that medclip verifies: it holds none of {_manifest_names()}, and no evaluation. A run's "
        "model is verified with its run."
    )


def _report(kind: str, folder: Path, check: Callable[[Path], Iterator[Finding]]) -> Report:
    findings = (*check(folder), *partial_files(folder))
    return Report(kind, sum(path.is_file() for path in folder.rglob("*")), findings)


def _check_run(folder: Path) -> Iterator[Finding]:
    """Settings, log, model and states against `checksums.json`."""
    hashes = yield from check_recorded(folder, _RECORDED_AT_THE_END)
    # while it trains, a kill may precede the record of what lies beside a state's arrays
    others = ("state/**/*", "tensorboard/**/*") if _SUMMARY in hashes else ("state/*/*/**/*",)
    yield from left_over(folder, hashes, "model/**/*", *others)


def _check_remains(folder: Path) -> Iterator[Finding]:
    """What is left of an output whose manifest is absent."""
    yield Finding(CHECKSUMS_FILE, f"lies beside none of {_manifest_names()}")
    yield from check_recorded(folder)


def _manifest_names() -> str:
    return ", ".join(manifest for manifest, _ in _CHECKS.values())


def _check_export(folder: Path) -> Iterator[Finding]:
    """The files of an exported dataset or model, and no others."""
    hashes = yield from check_manifest(folder, EXPORT_FILE)
    yield from check_hashes(folder, hashes)
    yield from left_over(folder, {*hashes, EXPORT_FILE}, "**/*")


_CHECKS: Mapping[str, tuple[str, Callable[[Path], Iterator[Finding]]]] = {
    "dataset": ("dataset.json", check_dataset),
    "index": ("index.json", check_index),
    "embeddings": ("embedding.json", check_embeddings),
    "export": (EXPORT_FILE, _check_export),
    "run": ("train_config.json", _check_run),
}
