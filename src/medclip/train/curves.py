"""The image of a run: losses and validation recall over steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from medclip.atomic_io import whole_file


def draw_curves(records: Sequence[dict[str, Any]], path: Path, batch: int) -> None:
    """Write `curves.png` from the lines of `metrics.jsonl`."""
    trained = [r for r in records if "loss" in r]
    measured = [r for r in records if "validation_loss" in r]
    figure = Figure(figsize=(11, 4), layout="constrained")
    losses, recalls = figure.subplots(1, 2)
    losses.plot([r["step"] for r in trained], [r["loss"] for r in trained], lw=0.8, alpha=0.7, label="training")
    losses.plot([r["step"] for r in measured], [r["validation_loss"] for r in measured], "o-", label="validation")
    losses.set(xlabel="step", ylabel=f"contrastive loss in batches of {batch}", title="loss")
    losses.legend()
    for k in (1, 5, 10):
        recalls.plot([r["step"] for r in measured], [100 * r[f"R@{k}"] for r in measured], "o-", label=f"R@{k}")
    if measured:
        best = max(measured, key=lambda r: r["mean_recall"])
        recalls.axvline(best["step"], ls=":", c="grey", label="kept")
        recalls.set(title=f"validation recall, both ways, pool of {measured[0]['pool']}")
    recalls.set(xlabel="step", ylabel="percent", ylim=(0, None))
    recalls.legend()
    with whole_file(path) as partial:
        figure.savefig(partial, format="png", dpi=110)
