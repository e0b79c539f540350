"""How fast `medclip serve` answers on loopback, beside a plain loop over transformers and clip-retrieval's back end.

    python benchmarks/serving.py --index INDEX [--reference PYTHON] [--clip-retrieval PYTHON] [--turns 3]
    python benchmarks/serving.py --index INDEX --memory 10000

PYTHON is the interpreter of an environment with torch and transformers (`make parity` makes one), and of one with
clip-retrieval. All have the same weights and the same vectors of images. The loop has no HTTP and one caller: tokens,
tower, unit vector, product with all vectors in numpy, best ten. clip-retrieval's tokens are OpenAI's, whatever the
folder says, so that its answers are not compared, and its model needs their vocabulary of 49,408 (and setuptools < 70,
for its `clip` imports pkg_resources). In each turn every
service runs alone, one after another; clients are threads of this process, which shares the cores. Every answer of ours
is compared with the one that was given alone. Ratios are of requests/s in the same turn: median (range).
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medclip.search.reader import IndexReader

K = 10
LOOP = """
import io, json, sys, time
import numpy as np, torch
from PIL import Image
from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel
model = CLIPModel.from_pretrained(sys.argv[1]).eval()
tokens, images = AutoTokenizer.from_pretrained(sys.argv[1]), CLIPImageProcessor.from_pretrained(sys.argv[1])
embeddings = np.load(sys.argv[2])
def features(output):
    return getattr(output, "pooler_output", output)[0].numpy()
def text(query):
    return features(model.get_text_features(**tokens([query], truncation=True, return_tensors="pt")))
def image(query):
    image = Image.open(io.BytesIO(bytes.fromhex(query))).convert("RGB")
    return features(model.get_image_features(**images(image, return_tensors="pt")))
print("ready", flush=True)
for line in sys.stdin:
    request, seconds = json.loads(line), []
    with torch.inference_mode():
        for query in request["queries"]:
            start = time.perf_counter()
            embedding = {"text": text, "image": image}[request["kind"]](query)
            scores = embeddings @ (embedding / np.linalg.norm(embedding))
            best = np.argpartition(-scores, 9)[:10]
            best = best[np.argsort(-scores[best])]
            seconds.append(time.perf_counter() - start)
    print(json.dumps(seconds), flush=True)
"""
CLIP_BACK = """
import sys, flask
run = flask.Flask.run
flask.Flask.run = lambda self, **options: run(self, host="127.0.0.1", port=options["port"], threaded=True)
from clip_retrieval.clip_back import clip_back
clip_back(indices_paths=sys.argv[1], port=int(sys.argv[2]), clip_model="hf_clip:" + sys.argv[3], use_jit=False,
          enable_mclip_option=False, provide_aesthetic_embeddings=False, columns_to_return=["caption"])
"""
FAISS = """
import sys, faiss, numpy
vectors = numpy.load(sys.argv[1])
index = faiss.IndexFlatIP(vectors.shape[1])
index.add(vectors)
faiss.write_index(index, sys.argv[2])
"""
SendRequest = Callable[[http.client.HTTPConnection, str, int], list[str] | None]
Timings = dict[tuple[str, str, int], list[tuple[float, list[float]]]]


@contextmanager
def medclip_serve(index: Path) -> Iterator[tuple[int, int]]:
    """Port and process id of the service."""
    command = [sys.executable, "-m", "medclip.cli.main", "serve", "--index", str(index), "--port", "0"]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            while True:
                log.seek(0)
                text = log.read()
                match = re.search(r"http://127.0.0.1:(\d+)", text)
                if match and answers(int(match[1]), "/ready"):
                    break
                if process.poll() is not None:
                    raise SystemExit(text)
                time.sleep(0.2)
            yield int(match[1]), process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


@contextmanager
def clip_retrieval(python: str, reader: IndexReader, folder: Path, model: Path) -> Iterator[int]:
    (folder / "metadata").mkdir()
    np.save(folder / "embeddings.npy", reader.embeddings_at(np.flatnonzero(reader.live_mask)))
    captions = reader.table.column("caption").filter(pa.array(reader.live_mask))
    pq.write_table(pa.table({"caption": captions}), folder / "metadata" / "metadata_0.parquet")
    subprocess.run([python, "-c", FAISS, str(folder / "embeddings.npy"), str(folder / "image.index")], check=True)
    (folder / "paths.json").write_text(json.dumps({"index": str(folder)}))
    command = [python, "-c", CLIP_BACK, str(folder / "paths.json"), "18765", str(model)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    try:
        for _ in range(300):
            if process.poll() is not None:
                raise SystemExit((folder / "log").read_text())
            if answers(18765, "/indices-list"):
                break
            time.sleep(0.5)
        yield 18765
    finally:
        process.kill()
        process.wait()


def answers(port: int, path: str) -> bool:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False


class Requests:
    """Texts and images of the index itself, so that they are what such an index is searched for."""

    def __init__(self, reader: IndexReader, count: int):
        rows = np.flatnonzero(reader.live_mask)[:count]
        self.texts = [reader.table.column("caption")[row].as_py()[:200] for row in rows]
        self.images = [reader.image(int(row)) for row in rows]

    def search(self, connection: http.client.HTTPConnection, kind: str, number: int) -> list[str]:
        if kind == "text":
            body = json.dumps({"queries": [{"texts": [self.texts[number]]}], "k": K}).encode()
            connection.request("POST", "/search", body, {"Content-Type": "application/json"})
        else:
            head = b'--b\r\nContent-Disposition: form-data; name="images"; filename="x"\r\n\r\n'
            body = head + self.images[number] + b"\r\n--b--\r\n"
            connection.request("POST", "/search/image", body, {"Content-Type": "multipart/form-data; boundary=b"})
        response = connection.getresponse()
        body = json.loads(response.read())
        assert response.status == 200, body
        return [hit["id"] for hit in body.get("results", [body])[0]["hits"]]

    def search_clip_retrieval(self, connection: http.client.HTTPConnection, kind: str, number: int) -> None:
        query = {"text": self.texts[number]} if kind == "text" else {
            "image": base64.b64encode(self.images[number]).decode()}  # fmt: skip
        query |= {
            "modality": "image",
            "num_images": K,
            "num_result_ids": K,
            "indice_name": "index",
            "deduplicate": True,
        }
        connection.request("POST", "/knn-service", json.dumps(query), {"Content-Type": "application/json"})
        response = connection.getresponse()
        body = response.read()
        assert response.status == 200, body[:300]


def load(
    port: int, send: SendRequest, kind: str, clients: int, count: int, expected: list | None
) -> tuple[float, list[float]]:
    """Requests/s and the seconds of each."""
    seconds, numbers, wrong = [], iter(range(count)), []
    lock = threading.Lock()

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            start = time.perf_counter()
            ids = send(connection, kind, number)
            seconds.append(time.perf_counter() - start)
            if expected is not None and ids != expected[number]:
                wrong.append(number)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = time.perf_counter() - start
    assert len(seconds) == count and not wrong, f"{count - len(seconds)} unanswered, {len(wrong)} wrong answers"
    return count / total, seconds


def memory(index: Path, requests: Requests, total: int) -> None:
    """Resident megabytes of the process while it answers texts, an image in ten, from 8 clients."""
    with medclip_serve(index) as (port, pid):
        done = 0
        for mark in (total // 10, total // 2, total):
            while done < mark:
                count = min(len(requests.texts), mark - done)
                load(port, requests.search, "image" if done % 10 == 9 else "text", 8, count, None)
                done += count
            resident = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
            print(f"{done} requests: {int(resident[1]) / 1024:.1f} MB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--reference")
    parser.add_argument("--clip-retrieval")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--requests", type=int, default=160)
    parser.add_argument("--memory", type=int)
    args = parser.parse_args()
    reader = IndexReader(args.index)
    requests = Requests(reader, args.requests)
    if args.memory:
        return memory(args.index, requests, args.memory)
    count, model = len(requests.texts), reader.model_path()
    timings: Timings = defaultdict(list)
    with tempfile.TemporaryDirectory() as scratch, medclip_serve(args.index) as (port, _):
        embeddings = Path(scratch) / "embeddings.npy"
        np.save(embeddings, reader.embeddings_at(np.flatnonzero(reader.live_mask)))
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        alone = {kind: [requests.search(connection, kind, n) for n in range(count)] for kind in ("text", "image")}
        loop = reference(args.reference, model, embeddings) if args.reference else None
        for turn in range(args.turns):
            for kind in ("text", "image"):
                for clients in (1, 8, 32):
                    timings["medclip serve", kind, clients].append(
                        load(port, requests.search, kind, clients, count, alone[kind])
                    )
                if loop:
                    queries = requests.texts if kind == "text" else [image.hex() for image in requests.images]
                    loop.stdin.write(json.dumps({"kind": kind, "queries": queries}) + "\n")
                    loop.stdin.flush()
                    seconds = json.loads(loop.stdout.readline())
                    timings["plain loop", kind, 1].append((count / sum(seconds), seconds))
            if args.clip_retrieval:
                folder = Path(scratch) / f"clip-retrieval-{turn}"
                folder.mkdir()
                with clip_retrieval(args.clip_retrieval, reader, folder, model) as other_port:
                    send = requests.search_clip_retrieval
                    load(other_port, send, "text", 1, 3, None)
                    for kind in ("text", "image"):
                        for clients in (1, 8, 32):
                            timings["clip-retrieval", kind, clients].append(
                                load(other_port, send, kind, clients, count, None)
                            )
        if loop:
            loop.kill()
    show(timings)


def reference(python: str, model: Path, embeddings: Path) -> subprocess.Popen:
    command = [python, "-c", LOOP, str(model), str(embeddings)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def show(timings: Timings) -> None:
    for (name, kind, clients), turns in sorted(timings.items(), key=lambda item: (item[0][1], item[0][2], item[0][0])):
        milliseconds = np.concatenate([seconds for _, seconds in turns]) * 1000
        rates = [rate for rate, _ in turns]
        line = f"{kind:5} {clients:2} clients  {name:14} {statistics.median(rates):7.1f}/s"
        line += f"  p50 {np.percentile(milliseconds, 50):7.1f} ms  p99 {np.percentile(milliseconds, 99):7.1f} ms"
        base = timings[("medclip serve", kind, clients)]
        if name != "medclip serve":
            ratios = [own_rate / rate for (own_rate, _), (rate, _) in zip(base, turns, strict=True)]
            line += f"  ours {statistics.median(ratios):.2f} times ({min(ratios):.2f}–{max(ratios):.2f})"
        print(line, flush=True)


if __name__ == "__main__":
    main()
