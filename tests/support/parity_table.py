"""The table of docs/parity.md: the largest differences from live transformers, per family, over seeds and sides.

cd tests && ../.venv-parity/bin/python -m support.parity_table > ../docs/parity.md
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import jax
import numpy as np
import torch
import transformers

from medclip.encode.encoder import embed_images, embed_texts
from medclip.model.checkpoint import load
from medclip.model.towers import logits
from support.parity import batch_loss, gradients, png
from support.references import CAPTIONS, FAMILIES, random_folder, random_images, transformers_outputs

SEEDS = ((1, 28), (2, 33), (3, 30))


def differences(families: tuple[str, str], seed: int, side: int, folder: Path) -> dict[str, float]:
    """Largest absolute differences: vectors, logits, loss, gradients of the loss."""
    random_folder(folder, seed, families, side)
    images, model = random_images(side, seed), load(folder)
    theirs = transformers_outputs(folder, images, CAPTIONS)
    ours = embed_images(model, [png(image) for image in images]), embed_texts(model, CAPTIONS)
    largest = {
        "image vectors": np.abs(ours[0] - theirs["images"]).max(),
        "text vectors": np.abs(ours[1] - theirs["texts"]).max(),
        "logits": np.abs(logits(model.params, *ours) - theirs["logits"]).max(),
        "loss": np.abs(batch_loss(model, *ours, model.params) - theirs["loss"]).max(),
        "gradients": max(np.abs(a - b).max(initial=0) for _, a, b in gradients(folder, families, side, seed)),
    }
    return {name: float(value) for name, value in largest.items()}


def main() -> None:
    print("# Parity with transformers\n")
    print(
        f"Largest absolute differences in float32 from transformers {transformers.__version__} "
        f"(torch {torch.__version__}), jax {jax.__version__}: random models, seeds and\nsides {SEEDS}, three images "
        "and captions of ragged length.\n\n"
        "Made by `make parity; cd tests && ../.venv-parity/bin/python -m support.parity_table`.\n"
    )
    for i, families in enumerate(FAMILIES):
        with tempfile.TemporaryDirectory() as folder:
            runs = [differences(families, seed, side, Path(folder) / str(seed)) for seed, side in SEEDS]
        if i == 0:
            print("| vision + text | " + " | ".join(runs[0]) + " |\n|---" + "|---" * len(runs[0]) + "|")
        worst = (max(run[name] for run in runs) for name in runs[0])
        print(f"| {' + '.join(families)} | " + " | ".join(f"{value:.0e}" for value in worst) + " |", flush=True)


if __name__ == "__main__":
    main()
