"""`RUN/checksums.json`: SHA-256 of a run's files, by which a resume and `medclip verify` know damage."""

from __future__ import annotations

from pathlib import Path

from medclip.atomic_io import sha256
from medclip.errors import UserError
from medclip.match_calibration import CALIBRATION_FILE
from medclip.model.checkpoint import Model, save
from medclip.progress import console
from medclip.recorded_files import changed_files, read_checksums, replace_hashes
from medclip.training.distributed import is_first
from medclip.training.log import CONFIG_FILE, CURVES_FILE, METRICS_FILE, MetricsLog

WRITTEN_LAST = {"model/README.md", f"model/{CALIBRATION_FILE}"}
"""What a run writes into its model's folder when it ends, from the model itself."""


def record(run: Path, name: str, source: Path | None = None) -> None:
    """Note the hash of RUN/`name`, a file or all files of a folder; they are read from `source` where not there yet."""
    path = source or run / name
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    hashes = {(Path(name) / file.relative_to(path)).as_posix(): sha256(file) for file in files}
    replace_hashes(run, name, hashes)


def forget(run: Path, name: str) -> None:
    """Drop what is noted of RUN/`name`, a file or a folder that is about to change."""
    replace_hashes(run, name, {})


def noted_steps(run: Path) -> set[int]:
    """The steps whose state is noted, be it there or not."""
    parts = (name.split("/") for name in _read(run) if name.startswith("state/"))
    return {int(part[1]) for part in parts if part[1].isdecimal()}


def save_model(model: Model, run: Path) -> None:
    """Save the best model so far, and note its hashes."""
    forget(run, "model")  # while it is being written
    save(model, run / "model")
    record(run, "model")


def record_ended(run: Path) -> None:
    """Note the hashes of all that no longer changes in a run that has ended; its weights are noted already."""
    noted = _read(run).keys() - WRITTEN_LAST
    model = (f"model/{path.name}" for path in sorted((run / "model").iterdir()))
    for name in (CONFIG_FILE, METRICS_FILE, CURVES_FILE, *(name for name in model if name not in noted)):
        record(run, name)


def damaged_best_step(log: MetricsLog) -> int | None:
    """The step of the saved model, where that is damaged: a resumed run must save it again.

    What a run writes last into its folder does not count: its end writes that anew. None too where the log is lost.
    """
    damaged = [file for file in changed_files(log.out, "model") if file not in WRITTEN_LAST]
    if not damaged or not log.evaluations:
        return None
    step = log.best["step"]
    if is_first():
        console.print(f"warning: the best model, of step {step}, is damaged ({damaged[0]}).", soft_wrap=True)
    return step


def _read(run: Path) -> dict[str, str]:
    """The hashes; none where the file cannot be read, which `medclip verify` tells."""
    try:
        return read_checksums(run)
    except UserError:
        return {}
