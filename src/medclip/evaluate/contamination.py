"""Whether a model has seen the source of the data it is measured on."""

from __future__ import annotations

import json
from pathlib import Path

from medclip.data.dataset import Split
from medclip.evaluate.labeled import Labeled
from medclip.model.card_metadata import read_training_data
from medclip.model.checkpoint import model_folder


def saw_source(model: str, rows: Split | Labeled) -> dict[str, str]:
    """`saw_source` is "yes", "no" or "unknown", and `saw_source_why` says by what.

    Yes: the run's own record has these very pairs, or the card names this source among the training data. No: the card
    claims to name all data from the first step on, and this source is not among them. All else is unknown: BiomedCLIP's
    PMC-15M probably holds ROCO's figures, and its folder does not say so. Sources are compared by name, so the same
    images under another name are not recognized; and a "yes" is of the source, not of the split.
    """
    source = str(rows.dataset["source"])
    if part := _digests(model_folder(model)).get(rows.digest):
        return _said("yes", f"its run had these very pairs as {part}")
    said = read_training_data(model)
    if source.casefold() in (name.casefold() for name in said.sources):
        return _said("yes", f"its card names {source} among its training data")
    if said.is_complete:
        return _said("no", f"its card says that it was trained on nothing but {', '.join(said.sources)}")
    return _said("unknown", "its folder does not name all that it was trained on")


def _said(answer: str, why: str) -> dict[str, str]:
    return {"saw_source": answer, "saw_source_why": why}


def _digests(folder: Path) -> dict[str, str]:
    """The splits of the run around a model folder, by their digests; none where there is no run."""
    try:
        data = json.loads((folder.parent / "train_config.json").read_text(encoding="utf-8"))["data"]
        return {digest: split for split, digest in data.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
