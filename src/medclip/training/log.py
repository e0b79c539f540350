"""A run's record: `train_config.json`, `metrics.jsonl` and `curves.png`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from medclip.atomic_io import read_object, whole_file, write_errors, write_json, write_text
from medclip.bounded_files import read_bounded
from medclip.errors import UserError
from medclip.figure_style import default_style
from medclip.folder_locks import check_kind
from medclip.plain_text import is_unicode
from medclip.progress import console

CONFIG_FILE, METRICS_FILE, CURVES_FILE = "train_config.json", "metrics.jsonl", "curves.png"
SUMMARY_FILE = "summary.json"
"""Written when a run has ended."""
_MAX_LOG_BYTES = 2**28  # of a million steps

Callback = Callable[[int, Mapping[str, Any]], None]
"""Takes a step and its metrics, as a line of `metrics.jsonl` has them: an evaluation's has `validation_loss`."""


def open_run(out: Path, settings: dict[str, Any], software: dict[str, Any], resume: bool) -> None:
    """Write the settings of a new run; a UserError names those of a resumed one that differ.

    `software`, of this process, is added to that which made the run before, and what differs is shown.
    """
    if not is_unicode(str(out.resolve())):
        raise UserError(f"--out {out} is not Unicode; Orbax, which keeps the state of a run, cannot open it.")
    settings = json.loads(json.dumps(settings))  # as they come back
    if not resume:
        if (out / CONFIG_FILE).exists() and not (out / SUMMARY_FILE).exists():
            raise UserError(f"--out {out} holds a run that has not ended: go on with --resume, or choose another.")
        if (out / CONFIG_FILE).exists():
            raise UserError(f"--out {out} is already finished ({CONFIG_FILE} is there). Choose another or delete it.")
        check_kind(out, CONFIG_FILE)
        write_json(out / CONFIG_FILE, settings | {"software": [software]})
        return
    before = read_object(out / CONFIG_FILE, "a run to resume")
    sessions = before.pop("software", [])
    if not isinstance(sessions, list) or not all(isinstance(session, dict) for session in sessions):
        raise UserError(f"{out / CONFIG_FILE} is damaged: its software is not a list of objects.")
    *earlier, last = sessions or [{}]
    names = dict.fromkeys([*settings, *before])
    changed = [f"{n}: {before.get(n)} then, {settings.get(n)} now" for n in names if before.get(n) != settings.get(n)]
    if changed:
        raise UserError(f"--resume {out} with other settings ({'; '.join(changed)}). Repeat the run's own.")
    if differing := [f"{n} {last.get(n)} then, {value} now" for n, value in software.items() if last.get(n) != value]:
        console.print(
            f"warning: resumed by other software ({'; '.join(differing)}): the numbers may differ from those of a run "
            "that was not interrupted.",
            soft_wrap=True,
        )
        write_json(out / CONFIG_FILE, settings | {"software": [*earlier, last, software]})


class MetricsLog:
    """Append-only metrics log. With `writes` False (other processes than the first) it keeps records in memory only."""

    def __init__(self, out: Path, batch_size: int, writes: bool = True):
        self.out, self._batch_size, self._writes = out, batch_size, writes
        self.records: list[dict[str, Any]] = []
        self.callbacks: Sequence[Callback] = ()

    def rewind(self, step: int) -> None:
        """Keep what was logged up to `step`: a killed run may have logged beyond its last state."""
        path = self.out / METRICS_FILE
        self.records = [record for record in read_records(path) if record["step"] <= step]
        if self._writes:
            write_text(path, "".join(json.dumps(r) + "\n" for r in self.records))

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Append one line and call the callbacks; an evaluation redraws the curves."""
        record = {"step": step, **metrics}
        self.records.append(record)
        if not self._writes:
            return
        path = self.out / METRICS_FILE
        with write_errors(path), path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(record) + "\n")
        for callback in self.callbacks:
            callback(step, metrics)
        if is_evaluation(metrics):
            draw_curves(self.records, self.out / CURVES_FILE, self._batch_size)

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """The records of evaluations, in order."""
        return list(filter(is_evaluation, self.records))

    @property
    def evaluations_since_best(self) -> int:
        """How many evaluations there were after the best one; 0 before the first."""
        qualities = list(map(quality, self.evaluations))
        return len(qualities) - 1 - qualities.index(max(qualities)) if qualities else 0

    @property
    def best(self) -> dict[str, Any]:
        """The first evaluation of the best `quality`. ValueError before the first."""
        return max(self.evaluations, key=quality)


def quality(evaluation: Mapping[str, Any]) -> float:
    """What the saved model has the most of: mean recall, 0-1; with hard negatives the mean of it and `foil_accuracy`.

    Recall alone would take weights back to before the foils were learned: they are no other pair's captions.
    """
    parts = [evaluation[name] for name in ("mean_recall", "foil_accuracy") if name in evaluation]
    return sum(parts) / len(parts)


def is_evaluation(metrics: Mapping[str, Any]) -> bool:
    """Whether a line of `metrics.jsonl` is of validation, not of a training step."""
    return "validation_loss" in metrics


def read_records(path: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`, except a last one that a killed run left half-written.

    UserError for any other line that is not a record of a step.
    """
    lines = read_bounded(path, _MAX_LOG_BYTES).split(b"\n") if path.exists() else []
    records = [_parse_line(line) for line in lines]
    if None in records[:-1]:
        raise UserError(
            f"{path} is damaged: line {1 + records.index(None)} is not a record of a step. Delete the line to go on "
            "without it."
        )
    return [record for record in records if record is not None]


def _parse_line(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and type(record.get("step")) is int else None


@default_style()
def draw_curves(records: Sequence[Mapping[str, Any]], path: Path, batch_size: int) -> None:
    """Write losses and validation recall over steps as a PNG, from the records of `metrics.jsonl`."""
    steps = [r for r in records if "loss" in r]
    evaluations = list(filter(is_evaluation, records))
    eval_steps = [r["step"] for r in evaluations]
    figure = Figure(figsize=(11, 4), layout="constrained")
    losses, recalls = figure.subplots(1, 2)
    losses.plot([r["step"] for r in steps], [r["loss"] for r in steps], lw=0.8, alpha=0.7, label="training")
    losses.plot(eval_steps, [r["validation_loss"] for r in evaluations], "o-", label="validation")
    losses.set(xlabel="step", ylabel=f"loss in batches of {batch_size}", title="loss")
    losses.legend()
    for k in (1, 5, 10):
        recalls.plot(eval_steps, [100 * r[f"R@{k}"] for r in evaluations], "o-", label=f"R@{k}")
    if evaluations:
        best = max(evaluations, key=quality)
        recalls.axvline(best["step"], ls=":", c="grey", label="best")
        recalls.set(title=f"validation recall, both directions, {evaluations[0]['num_candidates']} candidates")
    recalls.set(xlabel="step", ylabel="percent", ylim=(0, None))
    recalls.legend()
    with whole_file(path) as partial:
        figure.savefig(partial, format="png", dpi=110)
