"""`metrics.jsonl` and `curves.png` of a run, its settings and its clock."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medclip.atomic_io import claim, read_json, whole_file, write_json
from medclip.errors import UserError
from medclip.train.curves import draw_curves


def open_run(out: Path, settings: dict[str, Any], resume: bool) -> None:
    """Write the settings of a new run; those of a resumed one must be the same, or a UserError names the others."""
    settings = json.loads(json.dumps(settings))  # as they come back
    if not resume:
        claim(out, "config.json")
        write_json(out / "config.json", settings)
        return
    before = read_json(out / "config.json", "a run to resume")
    changed = [f"{k}: {before.get(k)} then, {v} now" for k, v in settings.items() if before.get(k) != v]
    if changed:
        raise UserError(f"--resume {out} with other settings ({'; '.join(changed)}). Repeat the run's own.")


class Log:
    """What a run said of itself, on disk and, by `track`, elsewhere. Where `writes` is False, it only remembers."""

    def __init__(
        self, out: Path, batch: int, writes: bool = True, track: Callable[[dict[str, Any]], None] | None = None
    ):
        self.out, self._batch, self._path, self._writes = out, batch, out / "metrics.jsonl", writes
        self.track = track
        self.records: list[dict[str, Any]] = []

    def rewind(self, step: int) -> None:
        """Keep what was logged up to `step`: a killed run may have logged beyond its last state."""
        self.records = [record for record in read_records(self._path) if record["step"] <= step]
        if self._writes:
            with whole_file(self._path) as partial:
                partial.write_text("".join(json.dumps(r) + "\n" for r in self.records), encoding="utf-8")

    def write(self, record: dict[str, Any]) -> None:
        """Append one line; an evaluation redraws the curves."""
        self.records.append(record)
        if not self._writes:
            return
        with self._path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(record) + "\n")
        if self.track:
            self.track(record)
        if "validation_loss" in record:
            draw_curves(self.records, self.out / "curves.png", self._batch)

    @property
    def measured(self) -> list[dict[str, Any]]:
        """The evaluations, in order."""
        return [r for r in self.records if "mean_recall" in r]

    @property
    def best(self) -> dict[str, Any] | None:
        """The first evaluation of the best mean recall."""
        return max(self.measured, key=lambda r: r["mean_recall"], default=None)


class Clock:
    """How fast steps go and how long they wait for data, since the last evaluation; the first step compiles."""

    def __init__(self, batch: int):
        self._batch, self._at, self._start, self.waited = batch, -1, 0.0, 0.0

    def restart(self, at: int) -> None:
        """Count from the end of step `at`."""
        self._at, self._start, self.waited = at, time.monotonic(), 0.0

    def read(self, at: int) -> dict[str, float]:
        """Pairs per second and share of the time spent waiting for data, up to step `at`; nothing before a restart."""
        if self._at < 0:
            return {}
        seconds = time.monotonic() - self._start
        rate = (at - self._at) * self._batch / seconds
        return {"pairs_per_s": round(rate, 1), "waiting": round(self.waited / seconds, 3)}


def read_records(path: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`, but for one that a killed run left half-written."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [record for record in map(_whole_line, lines) if record]


def _whole_line(line: str) -> dict[str, Any] | None:
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None
