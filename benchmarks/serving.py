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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medclip.search.index import Index

K = 10
LOOP = """
import io, json, sys, time
import numpy as np, torch
from PIL import Image
from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel
model = CLIPModel.from_pretrained(sys.argv[1]).eval()
tokens, images = AutoTokenizer.from_pretrained(sys.argv[1]), CLIPImageProcessor.from_pretrained(sys.argv[1])
vectors = np.load(sys.argv[2])
def features(said):
    return getattr(said, "pooler_output", said)[0].numpy()
def text(said):
    return features(model.get_text_features(**tokens([said], truncation=True, return_tensors="pt")))
def image(said):
    image = Image.open(io.BytesIO(bytes.fromhex(said))).convert("RGB")
    return features(model.get_image_features(**images(image, return_tensors="pt")))
print("ready", flush=True)
for line in sys.stdin:
    asked, taken = json.loads(line), []
    with torch.inference_mode():
        for said in asked["queries"]:
            start = time.perf_counter()
            query = {"text": text, "image": image}[asked["kind"]](said)
            scores = vectors @ (query / np.linalg.norm(query))
            best = np.argpartition(-scores, 9)[:10]
            best = best[np.argsort(-scores[best])]
            taken.append(time.perf_counter() - start)
    print(json.dumps(taken), flush=True)
"""
CLIP_BACK = """
import sys, flask
run = flask.Flask.run
flask.Flask.run = lambda self, **said: run(self, host="127.0.0.1", port=said["port"], threaded=True)
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
Ask = Callable[[http.client.HTTPConnection, str, int], list[str] | None]


@contextmanager
def ours(index: Path) -> Iterator[tuple[int, int]]:
    command = [sys.executable, "-m", "medclip.cli.main", "serve", "--index", str(index), "--port", "0"]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            while True:
                log.seek(0)
                if (found := re.search(r"http://127.0.0.1:(\d+)", said := log.read())) and answers(
                    int(found[1]), "/ready"
                ):
                    break
                if process.poll() is not None:
                    raise SystemExit(said)
                time.sleep(0.2)
            yield int(found[1]), process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


@contextmanager
def clip_retrieval(python: str, index: Index, folder: Path, model: Path) -> Iterator[int]:
    (folder / "metadata").mkdir()
    np.save(folder / "vectors.npy", index.vectors_of(np.flatnonzero(index.live)))
    captions = index.rows.column("caption").filter(pa.array(index.live))
    pq.write_table(pa.table({"caption": captions}), folder / "metadata" / "metadata_0.parquet")
    subprocess.run([python, "-c", FAISS, str(folder / "vectors.npy"), str(folder / "image.index")], check=True)
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


class Asked:
    """The questions: texts and images of the index itself, so that they are what such an index is asked."""

    def __init__(self, index: Index, count: int):
        rows = np.flatnonzero(index.live)[:count]
        self.texts = [index.rows.column("caption")[row].as_py()[:200] for row in rows]
        self.images = [index.rows.column("image")[row].as_py() for row in rows]

    def ours(self, connection: http.client.HTTPConnection, kind: str, number: int) -> list[str]:
        if kind == "text":
            body = json.dumps({"queries": [{"texts": [self.texts[number]]}], "k": K}).encode()
            connection.request("POST", "/search", body, {"Content-Type": "application/json"})
        else:
            head = b'--b\r\nContent-Disposition: form-data; name="images"; filename="x"\r\n\r\n'
            body = head + self.images[number] + b"\r\n--b--\r\n"
            connection.request("POST", "/search/image", body, {"Content-Type": "multipart/form-data; boundary=b"})
        answer = connection.getresponse()
        said = json.loads(answer.read())
        assert answer.status == 200, said
        return [hit["id"] for hit in said.get("answers", [said])[0]["hits"]]

    def theirs(self, connection: http.client.HTTPConnection, kind: str, number: int) -> None:
        asked = {"text": self.texts[number]} if kind == "text" else {
            "image": base64.b64encode(self.images[number]).decode()}  # fmt: skip
        asked |= {
            "modality": "image",
            "num_images": K,
            "num_result_ids": K,
            "indice_name": "index",
            "deduplicate": True,
        }
        connection.request("POST", "/knn-service", json.dumps(asked), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        said = answer.read()
        assert answer.status == 200, said[:300]


def load(port: int, ask: Ask, kind: str, clients: int, count: int, expected: list | None) -> tuple[float, list[float]]:
    """Requests/s and the seconds of each."""
    taken, numbers, wrong = [], iter(range(count)), []
    lock = threading.Lock()

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            start = time.perf_counter()
            found = ask(connection, kind, number)
            taken.append(time.perf_counter() - start)
            if expected is not None and found != expected[number]:
                wrong.append(number)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    assert len(taken) == count and not wrong, f"{count - len(taken)} unanswered, {len(wrong)} wrong answers"
    return count / seconds, taken


def memory(index: Path, asked: Asked, total: int) -> None:
    """Resident megabytes of the process while it answers texts, an image in ten, from 8 clients."""
    with ours(index) as (port, pid):
        done = 0
        for mark in (total // 10, total // 2, total):
            while done < mark:
                count = min(len(asked.texts), mark - done)
                load(port, asked.ours, "image" if done % 10 == 9 else "text", 8, count, None)
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
    index = Index(args.index)
    asked = Asked(index, args.requests)
    if args.memory:
        return memory(args.index, asked, args.memory)
    count, model = len(asked.texts), index.model()
    told: dict[tuple[str, str, int], list[tuple[float, list[float]]]] = {}
    with tempfile.TemporaryDirectory() as at, ours(args.index) as (port, _):
        vectors = Path(at) / "vectors.npy"
        np.save(vectors, index.vectors_of(np.flatnonzero(index.live)))
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        alone = {kind: [asked.ours(connection, kind, n) for n in range(count)] for kind in ("text", "image")}
        loop = reference(args.reference, model, vectors) if args.reference else None
        for turn in range(args.turns):
            for kind in ("text", "image"):
                for clients in (1, 8, 32):
                    told.setdefault(("medclip serve", kind, clients), []).append(
                        load(port, asked.ours, kind, clients, count, alone[kind])
                    )
                if loop:
                    queries = asked.texts if kind == "text" else [picture.hex() for picture in asked.images]
                    loop.stdin.write(json.dumps({"kind": kind, "queries": queries}) + "\n")
                    loop.stdin.flush()
                    taken = json.loads(loop.stdout.readline())
                    told.setdefault(("plain loop", kind, 1), []).append((count / sum(taken), taken))
            if args.clip_retrieval:
                folder = Path(at) / f"theirs{turn}"
                folder.mkdir()
                with clip_retrieval(args.clip_retrieval, index, folder, model) as theirs:
                    load(theirs, asked.theirs, "text", 1, 3, None)
                    for kind in ("text", "image"):
                        for clients in (1, 8, 32):
                            told.setdefault(("clip-retrieval", kind, clients), []).append(
                                load(theirs, asked.theirs, kind, clients, count, None)
                            )
        if loop:
            loop.kill()
    show(told)


def reference(python: str, model: Path, vectors: Path) -> subprocess.Popen:
    command = [python, "-c", LOOP, str(model), str(vectors)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def show(told: dict[tuple[str, str, int], list[tuple[float, list[float]]]]) -> None:
    for (name, kind, clients), turns in sorted(told.items(), key=lambda one: (one[0][1], one[0][2], one[0][0])):
        taken = np.concatenate([seconds for _, seconds in turns]) * 1000
        rates = [rate for rate, _ in turns]
        line = f"{kind:5} {clients:2} clients  {name:14} {statistics.median(rates):7.1f}/s"
        line += f"  p50 {np.percentile(taken, 50):7.1f} ms  p99 {np.percentile(taken, 99):7.1f} ms"
        base = told[("medclip serve", kind, clients)]
        if name != "medclip serve":
            ratios = [mine / rate for (mine, _), (rate, _) in zip(base, turns, strict=True)]
            line += f"  ours {statistics.median(ratios):.2f} times ({min(ratios):.2f}–{max(ratios):.2f})"
        print(line, flush=True)


if __name__ == "__main__":
    main()
