"""A service under load while its index changes, and a table of a million rows."""

from __future__ import annotations

import http.client
import json
import random
import re
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from medclip.data.dataset import Split
from medclip.data.prepare import chunks_by_split, drop_repeated_ids
from medclip.data.sources.detect import open_source
from soak.commands import in_fork, run, write_rows
from soak.hostile import UPLOAD
from soak.record import Bounds, Record, sentence
from soak.writing import Place
from support.served import start_server

CLIENTS, CHANGE_EVERY_S = 4, 2.0
MAX_MB = 4096


def load(bounds: Bounds) -> Iterator[Record]:
    """Texts, images and labels from several clients while splits are added, deleted and purged."""
    place, rng, seconds = Place(bounds.folder), random.Random(bounds.seed), bounds.seconds or 120
    index, train = place.paths["index"], Split(place.paths["data"], "train")
    ids, image = train.column("id"), train.image(0)
    always = set(Split(place.paths["data"], "validation").column("id"))
    codes, faults, memory, changes = Counter(), [], [], Counter()
    with start_server(index, place.folder / "served", "--model", str(place.paths["run"])) as server:
        end = time.monotonic() + seconds
        threads = [
            threading.Thread(target=_ask, args=(server.url, image, always | set(ids), end, codes, faults))
            for _ in range(CLIENTS)
        ]
        for thread in threads:
            thread.start()
        memory.append(_resident_mb(server.process.pid))  # a call may end before its first change
        while time.monotonic() < end:
            some = " ".join(rng.sample(ids, 5))
            words = rng.choice(
                (f"index add --index {index} --data {place.paths['data']} --split train",
                 f"index delete --index {index} --ids {some}", f"index purge --index {index}")
            )  # fmt: skip
            ended = run(words, place.folder)
            changes[words.split()[1]] += ended.code == 0
            if ended.code not in (0, 1, 2):
                faults.append(f"{words}: {sentence(ended.output)}")
            memory.append(_resident_mb(server.process.pid))
            time.sleep(CHANGE_EVERY_S)
        for thread in threads:
            thread.join()
        faults += ["a traceback in the log"] if "Traceback" in server.log() else []
    shown = ", ".join(f"{count} {name}" for name, count in sorted(changes.items()))
    answered = ", ".join(f"{count} answered {code}" for code, count in sorted(codes.items()))
    outcome = f"{answered}, each of the index before or after a change ({shown}); "
    outcome += f"{memory[0]:.0f} MB resident at first, {memory[-1]:.0f} at the end"
    yield Record("requests of four clients beside changes of the index", codes.total(), outcome, faults)


def _ask(url: str, image: bytes, known: set[str], end: float, codes: Counter, faults: list[str]) -> None:
    text = json.dumps({"queries": [{"texts": ["CT of the chest"]}], "k": 10}).encode()
    upload = UPLOAD + image + b"\r\n--b--\r\n"
    requests = [("/search", text, "application/json"), ("/search/image", upload, "multipart/form-data; boundary=b")]
    for number in range(10**9):
        if time.monotonic() > end:
            return
        path, body, kind = requests[number % 5 == 4]
        try:
            request = urllib.request.Request(f"{url}{path}", body, {"Content-Type": kind})
            with urllib.request.urlopen(request, timeout=120) as answer:
                codes[answer.status] += 1
                content = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            codes[error.code] += 1
            if error.code not in (429, 503):
                faults.append(f"{path}: {error.code}: {error.read()[:200]!r}")
            continue
        except (OSError, http.client.HTTPException) as error:
            faults.append(f"{path}: {error!r}")
            return
        hits = [hit for result in content.get("results", [content]) for hit in result["hits"]]
        scores = [hit["score"] for hit in hits]
        if len(hits) != 10 or {hit["id"] for hit in hits} - known or scores != sorted(scores, reverse=True):
            faults.append(f"{path}: {len(hits)} hits, {scores}")


def _resident_mb(pid: int) -> float:
    resident = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(resident[1]) / 1024 if resident else 0.0


def table(bounds: Bounds) -> Iterator[Record]:
    """A table of a million rows: planned as a preparation plans it; as many prepared rows counted and compared."""
    count, folder = bounds.count(1_000_000), bounds.folder
    with (folder / "x.csv").open("w") as file:
        file.write("id,image,caption,article,split\n")
        for number in range(count):
            split = "train" if number % 10 else "validation"
            file.write(f"id{number},images/{number}.png,CT of the chest number {number},PMC{number // 3},{split}\n")

    def plan() -> str:
        import resource

        chunks = Counter[str]()
        for split, _, rows in chunks_by_split(drop_repeated_ids(open_source(folder / "x.csv"))):
            chunks[split] += len(rows)
        return json.dumps([chunks.total(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024])

    result = in_fork(plan, folder / "log")
    num_planned, peak_mb = json.loads(result) if result.startswith("[") else (0, 0)
    faults = [] if num_planned == count and peak_mb < MAX_MB else [result[:300]]
    yield Record("a large table, planned", count, f"every row planned, {peak_mb:.0f} MB at most", faults)
    data = folder / "large"
    in_fork(lambda: write_rows(data, count), folder / "log")  # so that this process, whose forks follow, stays small
    for command in ("stats", "leakage"):
        if bounds.only in command:
            ended = run(f"{command} {data} --json", folder)
            faults = [] if not ended.code and ended.peak_mb < MAX_MB else [f"{ended.code}: {sentence(ended.output)}"]
            yield Record(f"a large dataset through `{command}`", count, f"exit 0, {ended.peak_mb:.0f} MB and "
                         f"{ended.cpu_s:.0f} s of processor time", faults, only=command)  # fmt: skip
