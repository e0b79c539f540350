"""The model card: what a stranger must know before using the model folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from medclip import NOT_CLINICAL, __version__
from medclip.atomic_io import write_text
from medclip.data.dataset import Split
from medclip.metrics import Estimate
from medclip.model.card_metadata import add_training_data
from medclip.plain_text import printable
from medclip.training.config import FromModel, FromPreset, FromTowers, ResolvedTrainConfig

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

A dual encoder of radiology images and their captions, trained with medclip {version}. The cosine of an image's and a
caption's embedding says how well they match.

## Data

Source: {source}{synthetic}. {training} training pairs, {validation} validation pairs.

## Training

{start}.
{steps} steps of {batch_size} pairs, peak learning rate {lr:g}, weight decay {weight_decay:g}, seed {seed}.
Saved: {weights}, the best by mean validation recall.

## Evaluation

Retrieval among {num_images} images and {num_captions} captions of the validation split, which also chose the weights;
a repeated image or caption counts once. 95 % bootstrap intervals, whole articles resampled.

| metric | text→image | image→text |
|---|---|---|
{rows}

## Limitations

Trained on figures of publications, not on a hospital's archive: what is common in print is over-represented, and
captions tell more than the image shows. Metrics hold for these candidates alone; fewer candidates give higher ones.
Findings, laterality and rare modalities may be wrong with a high score. Not evaluated for any group of patients.

## License

The weights inherit the terms of the model they started from and of the pairs, whose images carry licenses of their
own; none is granted here.
"""


class ValidationCounts(NamedTuple):
    """The size of the validation split, and the distinct images and captions of its pairs that are ranked."""

    num_pairs: int
    num_images: int
    num_captions: int


def write_card(
    folder: Path,
    config: ResolvedTrainConfig,
    training: Split,
    counts: ValidationCounts,
    best: Mapping[str, Any],
    metrics: Mapping[str, Mapping[str, Estimate]],
) -> None:
    """Write `README.md`: `best` is the evaluation of the saved weights, `metrics` are of both directions."""
    to_image, to_text = metrics["text_to_image"], metrics["image_to_text"]
    rows = [f"| {name} | {_cell(to_image[name], name)} | {_cell(to_text[name], name)} |" for name in to_image]
    match config.start:
        case FromPreset(preset):
            start, parents = f"From scratch (preset {preset})", []
        case FromModel(model):
            start, parents = f"Fine-tuned from {_public_name(model)}", [model]
        case FromTowers(vision, text):
            parents = [vision, text]
            start = f"Vision tower of {_public_name(vision)} joined with the text tower of {_public_name(text)}"
    dataset = training.dataset
    trained_on = add_training_data(dataset["source"], parents)
    card = _CARD.format(
        title=folder.resolve().parent.name,
        notice=NOT_CLINICAL,
        version=__version__,
        trained_on=json.dumps(trained_on.sources),
        nothing_else=json.dumps(trained_on.is_complete),
        source=dataset["source"],
        synthetic=" (synthetic: drawn by a program, no patients)" if dataset["synthetic"] else "",
        training=len(training),
        validation=counts.num_pairs,
        start=start,
        steps=config.steps,
        batch_size=config.batch_size,
        lr=config.lr,
        weight_decay=config.weight_decay,
        seed=config.seed,
        weights=_weights(best),
        num_images=counts.num_images,
        num_captions=counts.num_captions,
        rows="\n".join(rows),
    )
    write_text(folder / "README.md", printable(card))


def _weights(best: Mapping[str, Any]) -> str:
    if "alpha" in best:
        return f"{best['alpha']:.0%} of the weights of step {best['step']} and the rest of the first ones (WiSE-FT)"
    return f"the weights of step {best['step']}"


def _public_name(model: str) -> str:
    """A model's name without where it lies on this machine: a card is read by strangers."""
    return "/".join(Path(model).parts[-2:])


def _cell(estimate: Estimate, name: str) -> str:
    value, low, high = estimate.value, estimate.low, estimate.high
    if name.endswith("rank"):
        return f"{value:.1f} ({low:.1f}–{high:.1f})"
    return f"{value:.1%} ({low:.1%}–{high:.1%})"
