"""Vector stores side by side: build time, memory, speed and recall against the exact store, in one run.

    python benchmarks/stores.py --rows 1000000 [--dimensions 512] [--milvus-rows 100000] [--queries 200]

Draws embeddings like a model's: images in clusters of clusters with a falling spectrum, all around one direction, and
texts around another, which share a part with their images. Writes index folders of them and migrates them from store
to store, each build and each search in a process of its own. Milvus is a milvus-lite server on this machine: one
process in Python, no cluster, and by default with fewer rows. Needs 2.5 GB of disk per million rows, with Milvus 8.
"""

from __future__ import annotations

import argparse
import hashlib
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

from medclip.data.shards import write_batches
from medclip.search.curate import migrate
from medclip.search.filters import NO_FILTER, make_filter
from medclip.search.manifest import EMBEDDINGS_FILE, ROWS_FILE, Manifest, Segment, segment_folder, write_manifest
from medclip.search.reader import IndexReader
from medclip.search.segments import FINGERPRINT_FIELDS, ROW_SCHEMA

CHUNK_ROWS, K, RARE_EVERY = 65_536, 10, 100
COLUMNS = ("queries", "p50 ms", "p99 ms", "queries/s", "recall@10")


def draw_embeddings(rows: int, queries: int, dim: int) -> Iterator[np.ndarray]:
    """Unit vectors of query images, of query texts, and then of the images of an index, in chunks."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.standard_normal((dim, dim)))[0].astype(np.float32)
    spectrum = np.arange(1, dim + 1, dtype=np.float32) ** -0.5
    spectrum /= np.linalg.norm(spectrum)
    num_topics = max(1, rows // 100)
    num_groups = max(1, num_topics // 100)

    def noise(n: int) -> np.ndarray:
        return rng.standard_normal((n, dim), dtype=np.float32)

    centers = 0.7 * noise(num_groups)[rng.integers(num_groups, size=num_topics)] + 0.7 * noise(num_topics)

    def latents(topics: np.ndarray) -> np.ndarray:
        return (0.8 * centers[topics] + 0.6 * noise(len(topics))) * spectrum

    def unit(vectors: np.ndarray) -> np.ndarray:
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    topics = rng.integers(num_topics, size=queries)
    yield unit(axes[0] + latents(topics) @ axes)
    yield unit(0.2 * axes[0] + 0.98 * axes[1] + (0.3 * latents(topics) + 0.6 * noise(queries) * spectrum) @ axes)
    for start in range(0, rows, CHUNK_ROWS):
        yield unit(axes[0] + latents(rng.integers(num_topics, size=min(CHUNK_ROWS, rows - start))) @ axes)


def write_index(folder: Path, rows: int, queries: int, dim: int) -> None:
    """An index without a model or images; one row in a hundred is rare."""
    chunks = draw_embeddings(rows, queries, dim)
    segment = Segment("00000", 0, rows, "2026-11-25", "drawn", "validation", True)
    path = segment_folder(folder, segment)
    path.mkdir(parents=True)
    np.savez(folder / "queries.npz", images=next(chunks), texts=next(chunks))
    with (path / EMBEDDINGS_FILE).open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (rows, dim)}
        np.lib.format.write_array_header_1_0(file, header)
        for chunk in chunks:
            file.write(chunk.astype("<f4").tobytes())
    write_batches(path / ROWS_FILE, ROW_SCHEMA, draw_rows(rows))
    manifest = Manifest("model", "0" * 64, dim, "exact", f"medclip_benchmark_{rows}")
    write_manifest(folder, manifest.with_segment(segment))


def draw_rows(rows: int) -> Iterator[pa.RecordBatch]:
    constants = {"image": b"", "width": 1, "height": 1, "caption": "", "license": "CC BY", "attribution": ""}
    constants |= {"source": "drawn", "sha256": hashlib.sha256(b"").hexdigest()}
    constants |= {name: bytes(kind.byte_width) for name, kind in FINGERPRINT_FIELDS.items()}
    for start in range(0, rows, CHUNK_ROWS):
        chunk = range(start, min(start + CHUNK_ROWS, rows))
        columns = {
            name: pa.repeat(pa.scalar(value, ROW_SCHEMA.field(name).type), len(chunk))
            for name, value in constants.items()
        }
        columns["id"] = pa.array([f"r{row}" for row in chunk])
        columns["article"] = pa.array([f"a{row // 3}" for row in chunk])
        labels = [[("rare", "no" if row % RARE_EVERY else "yes")] for row in chunk]
        columns["labels"] = pa.array(labels, ROW_SCHEMA.field("labels").type)
        yield pa.RecordBatch.from_arrays([columns[name] for name in ROW_SCHEMA.names], schema=ROW_SCHEMA)


def measure_build(folder: Path, store: str) -> dict[str, float]:
    """Time and memory of migrating an index to a store, in this process."""
    start = time.perf_counter()
    migrate(folder, store)
    files = sum(path.stat().st_size for path in folder.rglob("*.faiss"))
    return {"build s": time.perf_counter() - start, "build peak MB": memory_mb("VmHWM"), "file MB": files / 2**20}


def measure_search(folder: Path, store: str) -> dict[str, object]:
    """Speed and recall of an index, in this process. The exact store's rankings are saved as the reference."""
    reader, results = IndexReader(folder), {}
    for name, embeddings in np.load(folder / "queries.npz").items():
        for rare in (False, True):
            filter = make_filter({"rare": ["yes"]}) if rare else NO_FILTER
            reference = folder / f"reference-{name}-{rare}.npy"
            reader.nearest_rows(embeddings[:2], K, filter)
            seconds, rankings = [], []
            for embedding in embeddings:
                start = time.perf_counter()
                rankings.append([row for row, _ in reader.nearest_rows(embedding[None], K, filter)[0]])
                seconds.append(time.perf_counter() - start)
            start = time.perf_counter()
            reader.nearest_rows(embeddings, K, filter)
            queries_per_s = len(embeddings) / (time.perf_counter() - start)
            if store == "exact":
                np.save(reference, np.array(rankings))
            expected = np.load(reference).tolist()
            recall = np.mean([len(set(a) & set(b)) / K for a, b in zip(rankings, expected, strict=True)])
            p50, p99 = (1000 * np.quantile(seconds, q) for q in (0.5, 0.99))
            results[f"{name}, 1 % of the rows" if rare else name] = [p50, p99, queries_per_s, recall]
    return {"results": results, "own MB": memory_mb("RssAnon"), "mapped MB": memory_mb("RssFile")}


def memory_mb(kind: str, process_id: int | str = "self") -> float:
    """Memory of a process, as Linux counts it; getrusage would include the parent's."""
    status = Path(f"/proc/{process_id}/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith(f"{kind}:")).split()[1]) / 2**10


def in_new_process(command: str, folder: Path, store: str) -> dict:
    """`measure_build` or `measure_search` in a new process."""
    arguments = [sys.executable, __file__, command, str(folder), store]
    return json.loads(subprocess.run(arguments, stdout=subprocess.PIPE, check=True).stdout)


def report(rows: int, store: str, folder: Path, server: subprocess.Popen | None = None) -> None:
    build, search = in_new_process("build", folder, store), in_new_process("search", folder, store)
    print(f"\n{store.split(':')[0]}, {rows:,} rows: " + ", ".join(f"{k} {v:.0f}" for k, v in build.items()), end="; ")
    print(f"searching: own memory {search['own MB']:.0f} MB, mapped files {search['mapped MB']:.0f} MB", end="")
    if server:
        print(f"; the server {memory_mb('VmRSS', server.pid):.0f} MB", end="")
    print(f"\n| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for name, (p50, p99, queries_per_s, recall) in search["results"].items():
        print(f"| {name} | {p50:.2f} | {p99:.2f} | {queries_per_s:.0f} | {recall:.4f} |", flush=True)


def start_milvus(folder: Path) -> tuple[str, subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = ("--host", "127.0.0.1", "--port", str(port), "--data-dir", str(folder / "milvus"))
    with (folder / "milvus.log").open("wb") as log:
        server = subprocess.Popen([sys.executable, "-m", "milvus_lite", "server", *address], stdout=log, stderr=log)
    for _ in range(600):
        with socket.socket() as trial:
            if trial.connect_ex(("127.0.0.1", port)) == 0:
                return f"milvus://127.0.0.1:{port}", server
        time.sleep(0.1)
    raise SystemExit((folder / "milvus.log").read_text())


def main() -> None:
    if sys.argv[1:2] in (["build"], ["search"]):
        command, folder, store = sys.argv[1:]
        measure = {"build": measure_build, "search": measure_search}[command]
        print(json.dumps(measure(Path(folder), store)))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rows", 1_000_000), ("dimensions", 512), ("milvus-rows", 100_000), ("queries", 200)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    print(f"{vars(args)}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_index(folder / "all", args.rows, args.queries, args.dimensions)
        for store in ("exact", "faiss"):
            report(args.rows, store, folder / "all")
        few = min(args.rows, args.milvus_rows)
        write_index(folder / "few", few, args.queries, args.dimensions)
        report(few, "exact", folder / "few")
        uri, server = start_milvus(folder)
        try:
            report(few, uri, folder / "few", server)
        finally:
            server.terminate()
            server.wait()
    print(f"\nload {os.getloadavg()[0]:.1f} at the end; queries/s: {args.queries} at once, else one after another")


if __name__ == "__main__":
    main()
