"""Embedding while warm: one text, one image, many image files; beside transformers on the same weights."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np

from performance.models import TRANSFORMERS, choose_images, write_model
from performance.record import Bounds, Comparison, Result, worker

OURS = """
import json, sys, time
from medclip import jax_setup
jax_setup.start()
from pathlib import Path
from medclip.encode.encoder import embed_images, embed_texts
from medclip.model.checkpoint import load
model = load(Path(sys.argv[1]))
embed = {"text": lambda texts: embed_texts(model, texts),
         "image": lambda files: embed_images(model, list(map(Path, files)))}
precisions = {"float32": lambda work: work()}
"""
THEIRS = (
    TRANSFORMERS
    + """
embed = {"text": embed_texts, "image": lambda files: numpy.concatenate(
    [embed_images(files[i : i + 64]) for i in range(0, len(files), 64)])}
def bfloat16(work):
    with torch.autocast("cpu", torch.bfloat16):
        return work()
precisions = {"float32": lambda work: work(), "bfloat16": bfloat16}
torch.set_grad_enabled(False)
"""
)
ANSWER = """
for line in sys.stdin:
    kind, items, times, precision = json.loads(line)
    start = time.process_time()
    for _ in range(times):
        embeddings = precisions[precision](lambda: embed[kind](items))
    print(json.dumps([time.process_time() - start, embeddings.tolist()]), flush=True)
"""
TEXT = "CT of the chest with a small pleural effusion"


def measure(bounds: Bounds) -> Iterator[Result]:
    model = write_model(bounds, "base")
    files = [str(path) for path in choose_images(bounds, bounds.size(64))]
    tasks = {
        "one text query, warm: BERT-base": ("text", [TEXT], 20, ("float32", "bfloat16"), 1.0, "170 MFLOP a token"),
        "one image query, warm: JPEG to vector, CLIP ViT-B/32": (
            "image", files[:1], 5, ("float32", "bfloat16"), 1.0, "8.8 GFLOP"),
        f"{len(files)} JPEG files to vectors, warm: CLIP ViT-B/32": (
            "image", files, 1, ("float32", "bfloat16"), 1.0, f"{8.8 * len(files):.0f} GFLOP"),
    }  # fmt: skip
    with (
        worker(sys.executable, "-c", OURS + ANSWER, model) as ours,
        worker(bounds.peers, "-c", THEIRS + ANSWER, model) as peer,
    ):
        for work, (kind, items, times, precisions, goal, limit) in tasks.items():
            reference = np.array(ours.ask([kind, items, 1, "float32"])[1])
            costs: dict[str, list[float]] = {"ours": [], **{name: [] for name in precisions}}
            differences = {}
            for number in range(bounds.rounds + 1):
                for name in list(costs)[:: 1 if number % 2 else -1]:
                    process, precision = (ours, "float32") if name == "ours" else (peer, name)
                    seconds, embeddings = process.ask([kind, items, times, precision])
                    differences[name] = float(np.abs(np.array(embeddings) - reference).max())
                    costs[name] += [seconds] if number else []
            assert differences["float32"] < 1e-4, differences
            for name in precisions:
                ratios = (np.array(costs[name]) / np.array(costs["ours"])).tolist()
                checked = f"vectors, within {differences[name]:.0e}"
                yield Comparison(work, f"transformers, {name}", ratios, goal=goal, checked=checked, limit=limit)
