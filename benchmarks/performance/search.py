"""The exact store beside numpy and faiss's flat index, on the same vectors, and beside what memory gives."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from performance.record import Bounds, Comparison, Result, in_new_process, worker

ROWS, WIDTH, K = 1_000_000, 512, 10
READ = """
import json, sys, time
import numpy
queries = numpy.load(sys.argv[2])["texts"]
"""
OURS = (
    READ
    + """
from pathlib import Path
from medclip.search.reader import IndexReader
reader = IndexReader(Path(sys.argv[1]))
def search(queries):
    return [[row for row, _ in hits] for hits in reader.nearest_rows(queries, 10)]
"""
)
NUMPY = (
    READ
    + """
from glob import glob
vectors = numpy.load(glob(sys.argv[1] + "/**/embeddings.npy", recursive=True)[0], mmap_mode="r")
def search(queries):
    best = []
    for scores in queries @ vectors.T:
        rows = numpy.argpartition(-scores, 10)[:10]
        best.append(rows[numpy.argsort(-scores[rows])].tolist())
    return best
"""
)
FAISS = (
    READ
    + """
import faiss
from glob import glob
vectors = numpy.load(glob(sys.argv[1] + "/**/embeddings.npy", recursive=True)[0], mmap_mode="r")
index = faiss.IndexFlatIP(vectors.shape[1])
index.add(vectors)
def search(queries):
    return index.search(queries, 10)[1].tolist()
"""
)
MEMCPY = (
    READ
    + """
source = numpy.ones(2**28, numpy.uint8)
target = numpy.empty_like(source)
def search(queries):
    for _ in range(4):
        numpy.copyto(target, source)
    return []
"""
)
ANSWER = """
for line in sys.stdin:
    count = json.loads(line)
    start = time.process_time()
    best = search(queries[:count])
    print(json.dumps([time.process_time() - start, best]), flush=True)
"""
COPIED = 4 * 2**28
"""Bytes that MEMCPY reads, and writes as many."""


def _write_index(folder: Path, rows: int) -> None:
    from stores import write_index

    write_index(folder, rows, 32, WIDTH)


def measure(bounds: Bounds) -> Iterator[Result]:
    folder, rows = bounds.folder / "index", bounds.size(ROWS)
    in_new_process(_write_index, folder, rows)
    files = folder, folder / "queries.npz"
    scripts = {"numpy": (sys.executable, NUMPY), "faiss": (bounds.peers, FAISS), "memcpy": (sys.executable, MEMCPY)}
    names = {"numpy": "numpy's product and argpartition", "faiss": "faiss `IndexFlatIP`"}
    costs: dict[tuple[str, int], list[float]] = {}
    with worker(sys.executable, "-c", OURS + ANSWER, *files) as ours:
        expected = {count: ours.ask(count)[1] for count in (1, 32)}
        for name, (python, script) in scripts.items():
            with worker(python, "-c", script + ANSWER, *files) as peer:
                for count in (1,) if name == "memcpy" else (1, 32):
                    pairs = [(peer.ask(count), ours.ask(count)) for _ in range(bounds.rounds + 1)][1:]
                    costs[name, count] = [theirs[0] / own[0] for theirs, own in pairs]
                    assert name == "memcpy" or all(
                        np.mean(np.equal(theirs[1], expected[count])) > 0.99 for theirs, _ in pairs
                    ), (name, count)
    read = rows * WIDTH * 4
    for count in (1, 32):
        work = f"exact search, {rows:,} × {WIDTH}, warm, {count} {'query' if count == 1 else 'queries at once'}"
        flops = f"; {2 * count * rows * WIDTH / 1e9:.1f} GFLOP"
        for name, peer in names.items():
            yield Comparison(work, peer, costs[name, count], goal=1, checked="the ten rows of every query, in order",
                             limit=f"{read / 1e9:.1f} GB read{flops}")  # fmt: skip
        if count == 1:  # bytes/s of the scan over those of a copy
            share = (np.array(costs["memcpy", 1]) * read / COPIED).tolist()
            yield Comparison(work, "memcpy, by bytes read a second", share, goal=1, limit=f"{read / 1e9:.1f} GB read")
