"""The faiss file of an index beside autofaiss and faiss alone: whole commands on the same vectors, and their recall.

autofaiss's default is a graph (HNSW), which keeps the vectors themselves; it tunes and measures its search too. Its
smaller, quantized indexes fail with faiss 1.15, whose `OPQMatrix` has other names for its arguments.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from performance.record import MEDCLIP, Bounds, Comparison, Result, Usage, in_new_process, in_turn, ratios, run

ROWS, WIDTH, QUERIES = 100_000, 384, 200
TAIL_BYTES = 96
"""Digests that end our file."""
AUTOFAISS = """
import json, sys
import faiss
from autofaiss import build_index
vectors, out = sys.argv[1:]
index, infos = build_index(vectors, metric_type="ip", nb_cores=1, verbose=40, save_on_disk=False)
faiss.write_index(index, f"{out}/made.faiss")  # by itself it fails at JSON of numbers of numpy 2
json.dump({name: infos[name] for name in ("index_key", "index_param")}, open(f"{out}/infos.json", "w"))
"""
FAISS = """
import sys
import faiss, numpy
vectors, out = sys.argv[1:]
vectors = numpy.load(f"{vectors}/embeddings.npy", mmap_mode="r")
rows, width = vectors.shape
lists = round(rows**0.5)
index = faiss.index_factory(width, f"RR{width},IVF{lists},RaBitQ2", faiss.METRIC_INNER_PRODUCT)
clustering = faiss.extract_index_ivf(index).cp
clustering.max_points_per_centroid, clustering.min_points_per_centroid = 64, 1
index.train(numpy.ascontiguousarray(vectors[:: max(1, rows // (64 * lists))]))
for start in range(0, rows, 65536):
    index.add(numpy.ascontiguousarray(vectors[start : start + 65536]))
faiss.write_index(index, f"{out}/made.faiss")
"""
AUTOFAISS_RECALL = """
import json, sys
import faiss, numpy
vectors, queries, out = sys.argv[1:]
vectors, queries = numpy.load(f"{vectors}/embeddings.npy"), numpy.load(queries)["texts"]
exact = numpy.argsort(-(queries @ vectors.T), axis=1)[:, :10]
index, infos = faiss.read_index(f"{out}/made.faiss"), json.load(open(f"{out}/infos.json"))
faiss.ParameterSpace().set_index_parameters(index, infos["index_param"])
found = index.search(queries, 10)[1]
recall = numpy.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, exact)])
print(json.dumps([infos["index_key"], float(recall)]))
"""
OUR_RECALL = """
import sys
from pathlib import Path
import numpy
from medclip.search.curate import migrate
from medclip.search.reader import IndexReader
folder, queries = Path(sys.argv[1]), numpy.load(sys.argv[2])["texts"]
found = IndexReader(folder).nearest_rows(queries, 10)
migrate(folder, "exact")
exact = IndexReader(folder).nearest_rows(queries, 10)
print(numpy.mean([len({row for row, _ in a} & {row for row, _ in b}) / 10 for a, b in zip(found, exact)]))
"""


def measure(bounds: Bounds) -> Iterator[Result]:
    folder, vectors, rows = bounds.folder / "index", bounds.folder / "vectors", bounds.size(ROWS)
    in_new_process(_write_index, folder, rows)
    vectors.mkdir()
    (vectors / "embeddings.npy").symlink_to(next(folder.rglob("embeddings.npy")))
    equal = _check(bounds, folder, vectors)
    runs = {
        "ours": lambda: _ours(folder),
        "autofaiss": lambda: _theirs(bounds, vectors, AUTOFAISS),
        "faiss alone, the same lists and codes": lambda: _theirs(bounds, vectors, FAISS),
    }
    usages = in_turn(bounds.rounds, runs)
    work = f"`index migrate` to faiss, {rows:,} × {WIDTH}, whole command"
    for peer, goal, checked in zip(list(runs)[1:], (1, None), equal, strict=True):
        for cost, field, goal_of_cost in (("processor time", "seconds", goal), ("peak memory", "peak_mb", None)):
            shares = ratios(usages[peer], usages["ours"], field)
            yield Comparison(work, peer, shares, cost, goal=goal_of_cost, checked=checked)


def _check(bounds: Bounds, folder: Path, vectors: Path) -> tuple[str, str]:
    """Recall beside autofaiss's; that faiss alone writes the same bytes."""
    queries = folder / "queries.npz"
    _ours(folder)
    ours = next(folder.rglob("*.faiss")).read_bytes()
    recall = float(run([sys.executable, "-c", OUR_RECALL, folder, queries]).output)
    with tempfile.TemporaryDirectory(dir=bounds.folder) as out:
        made = Path(out) / "made.faiss"
        run([bounds.peers, "-c", FAISS, vectors, out])
        assert made.read_bytes() == ours[:-TAIL_BYTES], "other bytes than faiss's"
        made.unlink()
        run([bounds.peers, "-c", AUTOFAISS, vectors, out])
        kind, other = json.loads(run([bounds.peers, "-c", AUTOFAISS_RECALL, vectors, queries, out]).output)
        sizes = f"{len(ours) / 1e6:.0f} MB beside {made.stat().st_size / 1e6:.0f}"
    return f"R@10 of {QUERIES} texts: {recall:.3f} beside {other:.3f} of {kind}; {sizes}", "the file's bytes"


def _write_index(folder: Path, rows: int) -> None:
    from stores import write_index

    write_index(folder, rows, QUERIES, WIDTH)


def _ours(folder: Path) -> Usage:
    """Back to the exact store, which removes the file, and then what is measured."""
    run([*MEDCLIP, "index", "migrate", "--index", folder, "exact"])
    return run([*MEDCLIP, "index", "migrate", "--index", folder, "faiss"])


def _theirs(bounds: Bounds, vectors: Path, script: str) -> Usage:
    with tempfile.TemporaryDirectory(dir=bounds.folder) as out:
        return run([bounds.peers, "-c", script, vectors, out])
