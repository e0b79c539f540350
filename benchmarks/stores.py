"""The stores of an index beside each other: build, memory, speed and recall against the exact one, in one run.

    python benchmarks/stores.py --rows 1000000 [--dimensions 512] [--milvus-rows 100000] [--queries 200]

Draws unit vectors as a model's are: images in clusters of clusters with a falling spectrum, all about one direction,
and words about another, that share a part with their images. Makes index folders of them and moves them from store
to store, each build and each search in a process of its own. Milvus is a milvus-lite server on this machine: one
process in Python, no cluster, and by default asked of fewer rows. Needs 2.5 GB of disk per million rows, with it 8.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from medclip.data.dataset import SCHEMA, write_batches
from medclip.search.curate import migrate
from medclip.search.filters import NO_FILTER, make_filter
from medclip.search.manifest import Manifest, Segment, segment_folder, write_manifest
from medclip.search.reader import FINGERPRINT_FIELDS, ROW_COLUMNS, IndexReader

CHUNK, K, RARE = 65_536, 10, 100
COLUMNS = ("queries", "p50 ms", "p99 ms", "queries/s", "recall@10")


def drawn(rows: int, queries: int, dimensions: int) -> Iterator[np.ndarray]:
    """Unit vectors of images to ask with, of words to ask with, and then of the images of an index, in parts."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.standard_normal((dimensions, dimensions)))[0].astype(np.float32)
    spread = np.arange(1, dimensions + 1, dtype=np.float32) ** -0.5
    spread /= np.linalg.norm(spread)
    topics = max(1, rows // 100)

    def noise(n: int) -> np.ndarray:
        return rng.standard_normal((n, dimensions), dtype=np.float32)

    centers = 0.7 * noise(max(1, topics // 100))[rng.integers(max(1, topics // 100), size=topics)] + 0.7 * noise(topics)

    def latent(of: np.ndarray) -> np.ndarray:
        return (0.8 * centers[of] + 0.6 * noise(len(of))) * spread

    def unit(vectors: np.ndarray) -> np.ndarray:
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    asked = rng.integers(topics, size=queries)
    yield unit(axes[0] + latent(asked) @ axes)
    yield unit(0.2 * axes[0] + 0.98 * axes[1] + (0.3 * latent(asked) + 0.6 * noise(queries) * spread) @ axes)
    for start in range(0, rows, CHUNK):
        yield unit(axes[0] + latent(rng.integers(topics, size=min(CHUNK, rows - start))) @ axes)


def make(folder: Path, rows: int, queries: int, dimensions: int) -> None:
    """An index without a model or images; one row in a hundred is rare."""
    parts = drawn(rows, queries, dimensions)
    segment = Segment("00000", 0, rows, "2026-11-25", "drawn", "validation", True)
    at = segment_folder(folder, segment)
    at.mkdir(parents=True)
    np.savez(folder / "queries.npz", pictures=next(parts), words=next(parts))
    with (at / "embeddings.npy").open("wb") as file:
        said = {"descr": "<f4", "fortran_order": False, "shape": (rows, dimensions)}
        np.lib.format.write_array_header_1_0(file, said)
        for part in parts:
            file.write(part.astype("<f4").tobytes())
    fields = [
        *(SCHEMA.field(name) for name in ROW_COLUMNS),
        *(pa.field(name, kind) for name, kind in FINGERPRINT_FIELDS.items()),
    ]
    write_batches(at / "rows.arrow", pa.schema(fields), described(pa.schema(fields), rows))
    contents = Manifest("model", "0" * 64, dimensions, "exact", f"medclip_benchmark_{rows}")
    write_manifest(folder, contents.with_segment(segment))


def described(schema: pa.Schema, rows: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, rows, CHUNK):
        at = range(start, min(start + CHUNK, rows))
        same = {"image": b"", "width": 1, "height": 1, "caption": "", "license": "CC BY", "attribution": ""}
        same |= {"source": "drawn", "sha256": ""} | {
            name: bytes(kind.byte_width) for name, kind in FINGERPRINT_FIELDS.items()
        }
        said = {name: pa.repeat(pa.scalar(value, schema.field(name).type), len(at)) for name, value in same.items()}
        said |= {"id": pa.array([f"r{row}" for row in at]), "article": pa.array([f"a{row // 3}" for row in at])}
        labels = [[("rare", "yes")] if row % RARE == 0 else [("rare", "no")] for row in at]
        said["labels"] = pa.array(labels, schema.field("labels").type)
        yield pa.RecordBatch.from_arrays([said[name] for name in schema.names], schema=schema)


def build(folder: Path, store: str) -> dict[str, float]:
    """What moving an index to a store takes, in this process."""
    start = time.perf_counter()
    migrate(folder, store)
    files = sum(path.stat().st_size for path in folder.rglob("*.faiss"))
    return {"build s": time.perf_counter() - start, "build peak MB": memory("VmHWM"), "file MB": files / 2**20}


def ask(folder: Path, store: str) -> dict[str, object]:
    """How fast and how well an index answers, in this process. The exact store's answers are kept as the right ones."""
    index, said = IndexReader(folder), {}
    for name, vectors in np.load(folder / "queries.npz").items():
        for rare in (False, True):
            asked, right = make_filter({"rare": ["yes"]}) if rare else NO_FILTER, folder / f"right-{name}-{rare}.npy"
            index.nearest_rows(vectors[:2], K, asked)
            took, found = [], []
            for vector in vectors:
                start = time.perf_counter()
                found.append([row for row, _ in index.nearest_rows(vector[None], K, asked)[0]])
                took.append(time.perf_counter() - start)
            start = time.perf_counter()
            index.nearest_rows(vectors, K, asked)
            together = len(vectors) / (time.perf_counter() - start)
            if store == "exact":
                np.save(right, np.array(found))
            recall = np.mean([len(set(a) & set(b)) / K for a, b in zip(found, np.load(right).tolist(), strict=True)])
            p50, p99 = (1000 * np.quantile(took, q) for q in (0.5, 0.99))
            said[f"{name}, 1 % of the rows" if rare else name] = [p50, p99, together, recall]
    return {"asked": said, "own MB": memory("RssAnon"), "mapped MB": memory("RssFile")}


def memory(kind: str, of: int | str = "self") -> float:
    """MB of a process, as Linux counts them; getrusage would tell of the parent too."""
    status = Path(f"/proc/{of}/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith(f"{kind}:")).split()[1]) / 2**10


def apart(what: str, folder: Path, store: str) -> dict:
    """`build` or `ask` in a new process."""
    done = subprocess.run([sys.executable, __file__, what, str(folder), store], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def show(rows: int, store: str, folder: Path, server: subprocess.Popen | None = None) -> None:
    built, asked = apart("build", folder, store), apart("ask", folder, store)
    print(f"\n{store.split(':')[0]}, {rows:,} rows: " + ", ".join(f"{k} {v:.0f}" for k, v in built.items()), end="; ")
    print(f"searching: own memory {asked['own MB']:.0f} MB, mapped files {asked['mapped MB']:.0f} MB", end="")
    if server:
        print(f"; the server {memory('VmRSS', server.pid):.0f} MB", end="")
    print(f"\n| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for name, (p50, p99, together, recall) in asked["asked"].items():
        print(f"| {name} | {p50:.2f} | {p99:.2f} | {together:.0f} | {recall:.4f} |", flush=True)


def served(folder: Path) -> tuple[str, subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where_to = ("--host", "127.0.0.1", "--port", str(port), "--data-dir", str(folder / "milvus"))
    with (folder / "milvus.log").open("wb") as log:
        server = subprocess.Popen([sys.executable, "-m", "milvus_lite", "server", *where_to], stdout=log, stderr=log)
    for _ in range(600):
        with socket.socket() as trial:
            if trial.connect_ex(("127.0.0.1", port)) == 0:
                return f"milvus://127.0.0.1:{port}", server
        time.sleep(0.1)
    raise SystemExit((folder / "milvus.log").read_text())


def main() -> None:
    if sys.argv[1:2] in (["build"], ["ask"]):
        what, folder, store = sys.argv[1:]
        print(json.dumps({"build": build, "ask": ask}[what](Path(folder), store)))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rows", 1_000_000), ("dimensions", 512), ("milvus-rows", 100_000), ("queries", 200)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    print(f"{vars(asked)}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make(folder / "all", asked.rows, asked.queries, asked.dimensions)
        for store in ("exact", "faiss"):
            show(asked.rows, store, folder / "all")
        few = min(asked.rows, asked.milvus_rows)
        make(folder / "few", few, asked.queries, asked.dimensions)
        show(few, "exact", folder / "few")
        said, server = served(folder)
        try:
            show(few, said, folder / "few", server)
        finally:
            server.terminate()
            server.wait()
    print(f"\nload {os.getloadavg()[0]:.1f} at the end; queries/s: {asked.queries} at once, else one after another")


if __name__ == "__main__":
    main()
