"""The exact store beside numpy, faiss's flat index and what memory gives; the faiss store beside faiss alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from medclip.search.curate import migrate
from performance.record import Bounds, Comparison, Result, in_new_process, worker

ROWS, WIDTH, COUNTS = 1_000_000, 512, (1, 32)
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
REFINED = (
    READ
    + """
import faiss
from glob import glob
index = faiss.read_index(glob(sys.argv[1] + "/**/quantized.faiss", recursive=True)[0])
flat = faiss.IndexFlatIP(queries.shape[1])
flat.add(numpy.load(glob(sys.argv[1] + "/**/embeddings.npy", recursive=True)[0], mmap_mode="r"))
refined = faiss.IndexRefine(index, flat)
probes = max(round(faiss.extract_index_ivf(index).nlist / 8), 64)
lists = faiss.SearchParametersPreTransform(index_params=faiss.SearchParametersIVF(nprobe=probes))
params = faiss.IndexRefineSearchParameters(k_factor=40, base_index_params=lists)
def search(queries):
    return refined.search(queries, 10, params=params)[1].tolist()
"""
)
"""The same file, lists and candidates as of the faiss store, ranked by their vectors in faiss too."""
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
    scripts = {"numpy": (sys.executable, NUMPY), "faiss": (bounds.peers, FAISS), "memcpy": (sys.executable, MEMCPY)}
    names = {"numpy": "numpy's product and argpartition", "faiss": "faiss `IndexFlatIP`"}
    costs = _measure_in_turn(folder, scripts, bounds.rounds)
    read = rows * WIDTH * 4
    for count in COUNTS:
        work = f"exact search, {_what(rows, count)}"
        flops = f"; {2 * count * rows * WIDTH / 1e9:.1f} GFLOP"
        for name, peer in names.items():
            yield Comparison(work, peer, costs[name, count], goal=1, checked="the ten rows of every query, in order",
                             limit=f"{read / 1e9:.1f} GB read{flops}")  # fmt: skip
        if count == 1:  # bytes/s of the scan over those of a copy
            share = (np.array(costs["memcpy", 1]) * read / COPIED).tolist()
            yield Comparison(work, "memcpy, by bytes read a second", share, goal=1, limit=f"{read / 1e9:.1f} GB read")
    in_new_process(migrate, folder, "faiss")
    costs = _measure_in_turn(folder, {"faiss": (bounds.peers, REFINED)}, bounds.rounds)
    for count in COUNTS:
        yield Comparison(f"search by the faiss store, {_what(rows, count)}", "faiss alone, same file and candidates",
                         costs["faiss", count], goal=1, checked="the ten rows of every query, in order")  # fmt: skip


def _what(rows: int, count: int) -> str:
    return f"{rows:,} × {WIDTH}, warm, {count} {'query' if count == 1 else 'queries at once'}"


def _measure_in_turn(
    folder: Path, scripts: dict[str, tuple[str, str]], rounds: int
) -> dict[tuple[str, int], list[float]]:
    """Each peer's time over ours by peer and number of queries, round by round; the answers are the same."""
    files, costs = (folder, folder / "queries.npz"), {}
    with worker(sys.executable, "-c", OURS + ANSWER, *files) as ours:
        expected = {count: ours.ask(count)[1] for count in COUNTS}
        for name, (python, script) in scripts.items():
            with worker(python, "-c", script + ANSWER, *files) as peer:
                for count in (1,) if name == "memcpy" else COUNTS:
                    pairs = [(peer.ask(count), ours.ask(count)) for _ in range(rounds + 1)][1:]
                    costs[name, count] = [theirs[0] / own[0] for theirs, own in pairs]
                    assert name == "memcpy" or all(
                        np.mean(np.equal(theirs[1], expected[count])) > 0.99 for theirs, _ in pairs
                    ), (name, count)
    return costs
