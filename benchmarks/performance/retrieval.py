"""Evaluation of retrieval: the whole command, beside CLIP_benchmark's own function on the same vectors."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from medclip.atomic_io import write_json
from medclip.data.shards import SCHEMA, write_shard
from performance.record import Bounds, Comparison, Result, in_new_process, in_turn, ratios, run

PAIRS, WIDTH = 8176, 512
CLIP_BENCHMARK = """
import json, sys
import numpy, torch
from clip_benchmark.metrics.zeroshot_retrieval import evaluate
images, texts = (torch.from_numpy(numpy.load(path)) for path in sys.argv[1:])
class Model:
    encode_image = encode_text = staticmethod(lambda embeddings: embeddings)
batches = [(images[i : i + 64], [[row] for row in texts[i : i + 64]]) for i in range(0, len(images), 64)]
print(json.dumps(evaluate(Model, batches, torch.stack, "cpu", amp=False, recall_k_list=[1, 5, 10])))
"""


def write_inputs(folder: Path, pairs: int, width: int) -> None:
    """Embeddings of which most find their own, and a dataset without images: three pairs an article."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((pairs, width), dtype=np.float32)
    np.save(folder / "images.npy", images)
    np.save(folder / "texts.npy", images + 4 * rng.standard_normal((pairs, width), dtype=np.float32))
    empty = {field.name: [] if str(field.type).startswith(("list", "map")) else "" for field in SCHEMA}
    rows = [
        empty | {"id": str(i), "image": b"", "width": 0, "height": 0, "article": str(i // 3), "sha256": str(i),
                 "caption": f"caption {i}", "labels": [("modality", "abc"[i % 3])]}
        for i in range(pairs)
    ]  # fmt: skip
    write_shard(folder / "validation-00000.arrow", rows, {})
    split = {"pairs": pairs, "shards": [{"file": "validation-00000.arrow", "pairs": pairs}]}
    dataset = {"source": "drawn", "synthetic": True, "splits": {"validation": split}, "dropped": {}}
    write_json(folder / "dataset.json", dataset)


def evaluation(folder: Path, *flags: object) -> list[object]:
    """The command."""
    files = [folder / "images.npy", folder / "texts.npy"]
    command = [sys.executable, "-m", "medclip.cli.main", "evaluate", "retrieval", "--data", folder, *flags]
    return [*command, "--embeddings", *files, "--out", folder / "evaluation"]


def measure(bounds: Bounds) -> Iterator[Result]:
    folder, pairs = bounds.folder, bounds.size(PAIRS)
    in_new_process(write_inputs, folder, pairs, WIDTH)
    peer = [bounds.peers, "-c", CLIP_BENCHMARK, folder / "images.npy", folder / "texts.npy"]
    runs = in_turn(bounds.rounds, {"ours": partial(run, evaluation(folder)), "peer": partial(run, peer)})
    ours = json.loads((folder / "evaluation" / "retrieval.json").read_text())
    theirs = json.loads(runs["peer"][0].output)
    for direction, name in (("image_to_text", "text"), ("text_to_image", "image")):
        for k in (1, 5, 10):
            own, other = ours[direction][f"R@{k}"]["value"], theirs[f"{name}_retrieval_recall@{k}"]
            assert abs(own - other) < 1e-6, (direction, k, own, other)
    work = f"retrieval evaluation, {pairs:,} × {pairs:,}, whole command, with intervals"
    peer_name = "CLIP_benchmark's `evaluate`, without intervals"
    checked = "R@1, 5 and 10 of both directions"
    flops = f"{2 * pairs**2 * WIDTH / 1e9:.0f} GFLOP: one product of {WIDTH} numbers a score"
    seconds, megabytes = (ratios(runs["peer"], runs["ours"], cost) for cost in ("seconds", "peak_mb"))
    yield Comparison(work, peer_name, seconds, goal=5, checked=checked, limit=flops)
    bytes_ = f"{2 * pairs * WIDTH * 4 / 1e6:.0f} MB: the vectors"
    yield Comparison(work, peer_name, megabytes, "peak memory", goal=10, checked=checked, limit=bytes_)
