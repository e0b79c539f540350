"""The model card: what a stranger must know before using the folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medclip import NOT_CLINICAL, __version__
from medclip.atomic_io import whole_file
from medclip.data.dataset import Split
from medclip.model.card_metadata import add_training_data
from medclip.train.config import TrainConfig

_CARD = """---
library_name: transformers
pipeline_tag: zero-shot-image-classification
license: other
tags: [medical, radiology, clip, not-for-clinical-use]
trained_on: {trained_on}
trained_on_nothing_else: {nothing_else}
---

# {title}

**{notice}**

A dual encoder of radiology images and their captions, trained with medclip {version}: unit vectors whose cosines say
how well an image and a caption agree.

## Data

Source: {source}{synthetic}. {training} training pairs, {validation} validation pairs.

## Training

{start}.
{steps} steps of {batch} pairs, peak learning rate {lr:g}, weight decay {weight_decay:g}, seed {seed}.
Kept: {kept}, the best by mean validation recall.

## Evaluation

Retrieval on the validation split, which also chose the step kept: a pool of {pool} pairs; 95 % bootstrap intervals,
whole articles resampled.

| measure | text→image | image→text |
|---|---|---|
{rows}

## Limitations

Learnt from figures of publications, not from a hospital's archive: what is common in print is over-represented, and
captions tell more than the image shows. Numbers hold for this pool alone; a smaller pool gives higher ones. Findings,
laterality and rare modalities may be wrong with a high score. Not evaluated for any group of patients.

## License

The weights inherit the terms of the model they started from and of the pairs, whose images carry licenses of their
own; none is granted here.
"""


def write_card(
    folder: Path,
    recipe: TrainConfig,
    training: Split,
    validation: int,
    best: Mapping[str, Any],
    found: Mapping[str, Any],
) -> None:
    """Write `README.md`: `best` is the evaluation of the weights kept, `found` is as of `metrics.both_ways`."""
    rows = [
        "| " + " | ".join([name, *(_cell(found[way][name], name) for way in ("text_to_image", "image_to_text"))]) + " |"
        for name in found["text_to_image"]
    ]
    start = f"From scratch (preset {recipe.preset})"
    if recipe.init:
        start = f"Fine-tuned from {_public(recipe.init)}"
    elif recipe.vision_model and recipe.text_model:
        start = (
            f"Vision tower of {_public(recipe.vision_model)} joined with the text tower of {_public(recipe.text_model)}"
        )
    said = training.dataset
    seen = add_training_data(
        said["source"], [start for start in (recipe.init, recipe.vision_model, recipe.text_model) if start]
    )
    card = _CARD.format(
        title=folder.resolve().parent.name,
        notice=NOT_CLINICAL,
        version=__version__,
        trained_on=json.dumps(seen.sources),
        nothing_else=json.dumps(seen.is_complete),
        source=said["source"],
        synthetic=" (synthetic: drawn by a program, no patients)" if said["synthetic"] else "",
        training=len(training),
        validation=validation,
        start=start,
        steps=recipe.steps,
        batch=recipe.batch_size,
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        seed=recipe.seed,
        kept=_kept(best),
        pool=found["pool"],
        rows="\n".join(rows),
    )
    with whole_file(folder / "README.md") as partial:
        partial.write_text(card, encoding="utf-8")


def _kept(best: Mapping[str, Any]) -> str:
    if "share" in best:
        return f"{best['share']:.0%} of the weights of step {best['step']} and the rest of the first ones (WiSE-FT)"
    return f"the weights of step {best['step']}"


def _public(model: str) -> str:
    """A model's name without where it lies on this machine: a card is read by strangers."""
    return "/".join(Path(model).parts[-2:])


def _cell(found: Mapping[str, float], name: str) -> str:
    value, low, high = (found[key] for key in ("value", "low", "high"))
    if name.endswith("rank"):
        return f"{value:.1f} ({low:.1f}–{high:.1f})"
    return f"{value:.1%} ({low:.1%}–{high:.1%})"
