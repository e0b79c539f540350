"""Embedding while warm: one text, one image, many image files; beside transformers on the same weights.

Where openvino is installed beside us, files also by its bfloat16, `--backend openvino-bf16`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np

from performance.models import TRANSFORMERS, choose_images, write_model
from performance.record import Bounds, Comparison, Result, worker

OURS = """
import functools, json, sys, time
from medclip import jax_setup
jax_setup.start()
from pathlib import Path
import numpy
from medclip.data.decode_workers import isolate
from medclip.encode.decode import decode_pixels
from medclip.encode.encoder import embed_images, embed_texts, stream_images
from medclip.encode.inference_backends import make_backend
from medclip.model.checkpoint import load
model = load(Path(sys.argv[1]))
openvino = functools.cache(lambda: make_backend("openvino-bf16", model))
def read(file):
    return file, isolate(decode_pixels, Path(file), model.image_processor)
def embed_by_openvino(files):
    batches = stream_images(openvino(), files, read)
    return numpy.concatenate([openvino().project(features, model.config.vision) for features in batches])
embed = {"text": lambda texts: embed_texts(model, texts),
         "image": lambda files: embed_images(model, list(map(Path, files))), "image by openvino": embed_by_openvino}
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


class Task(NamedTuple):
    """Items to embed `times` in a round."""

    kind: str
    items: list[str]
    times: int
    limit: str
    ours: str = ""
    """What ours does in place of `kind`."""


TEXT = "CT of the chest with a small pleural effusion"


def measure(bounds: Bounds) -> Iterator[Result]:
    model = write_model(bounds, "base")
    files = [str(path) for path in choose_images(bounds, bounds.size(64))]
    few, many = (f"{count} JPEG files to vectors, warm: CLIP ViT-B/32" for count in (5, len(files)))
    flops = f"{8.8 * len(files):.0f} GFLOP"
    tasks = {
        "one text query, warm: BERT-base": Task("text", [TEXT], 20, "170 MFLOP a token"),
        "one image query, warm: JPEG to vector, CLIP ViT-B/32": Task("image", files[:1], 5, "8.8 GFLOP"),
        few: Task("image", files[:5], 2, "44 GFLOP"),
        many: Task("image", files, 1, flops),
    }
    if find_spec("openvino"):
        tasks[f"{few}, `--backend openvino-bf16`"] = Task("image", files[:5], 2, "44 GFLOP", "image by openvino")
        tasks[f"{many}, `--backend openvino-bf16`"] = Task("image", files, 1, flops, "image by openvino")
    with (
        worker(sys.executable, "-c", OURS + ANSWER, model) as ours,
        worker(bounds.peers, "-c", THEIRS + ANSWER, model) as peer,
    ):
        for work, task in tasks.items():
            reference = np.array(ours.ask([task.kind, task.items, 1, "float32"])[1])
            costs: dict[str, list[float]] = {"ours": [], "float32": [], "bfloat16": []}
            differences = {}
            for number in range(bounds.rounds + 1):
                for name in list(costs)[:: 1 if number % 2 else -1]:
                    process, kind, precision = (
                        (ours, task.ours or task.kind, "float32") if name == "ours" else (peer, task.kind, name)
                    )
                    seconds, embeddings = process.ask([kind, task.items, task.times, precision])
                    differences[name] = float(np.abs(np.array(embeddings) - reference).max())
                    costs[name] += [seconds] if number else []
            assert differences["float32"] < 1e-4, differences
            for name in ("float32", "bfloat16"):
                ratios = (np.array(costs[name]) / np.array(costs["ours"])).tolist()
                checked = f"vectors, within {max(differences['ours'], differences[name]):.0e}"
                yield Comparison(work, f"transformers, {name}", ratios, goal=1.0, checked=checked, limit=task.limit)
