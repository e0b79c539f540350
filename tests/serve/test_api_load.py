"""The command under many at once: no answer is another's, and it ends when it is told to."""

import json
import re
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from medclip.serve.batching import Batcher
from support import hostile_requests as hostile
from support.material import draw_image, image_bytes
from support.served import running

NAMED = [f"{side} {organ} in {kind}, number {n}" for n, (side, organ, kind) in enumerate(
    (side, organ, kind) for side in ("left", "right", "upper", "lower") for organ in ("chest", "knee", "brain", "liver")
    for kind in ("CT", "MRI", "x-ray", "ultrasound")
)]  # fmt: skip
THREADS = 64


def test_batches_answer_each_for_itself_and_take_together_what_waits():
    sizes, gate = [], threading.Event()

    def slow(items):
        gate.wait(10)
        return [item * 10 for item in items]

    batcher = Batcher((8, 64), sizes.append)
    with ThreadPoolExecutor(100) as pool:
        first = pool.submit(batcher.run, slow, [0], 10)
        while not sizes:
            time.sleep(0.001)
        others = [pool.submit(batcher.run, slow, [n, n + 0.5], 10) for n in range(1, 41)]
        while sum(map(len, batcher._waiting.values())) < 80:
            time.sleep(0.001)
        gate.set()
        assert first.result() == [0]
        assert [one.result() for one in others] == [[n * 10, n * 10 + 5.0] for n in range(1, 41)]
    assert sizes == [1, 64, 8, 8]
    batcher.close()
    with pytest.raises(TimeoutError):
        batcher.run(slow, [1], 1)


def test_an_error_is_of_the_item_that_makes_it():
    gate = threading.Event()

    def fussy(items):
        gate.wait(10)
        if 3 in items:
            raise ValueError("three")
        return items

    batcher = Batcher((8,))
    with ThreadPoolExecutor(10) as pool:
        asked = [pool.submit(batcher.run, fussy, [n], 10) for n in range(8)]
        gate.set()
        for n, one in enumerate(asked):
            if n == 3:
                with pytest.raises(ValueError, match="three"):
                    one.result()
            else:
                assert one.result() == [n]
    batcher.close()


def test_what_nobody_waits_for_is_not_done():
    done, gate = [], threading.Event()

    def work(items):
        gate.wait(10)
        done.extend(items)
        return items

    batcher = Batcher((1,))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(batcher.run, work, ["first"], 10)
        time.sleep(0.05)
        with pytest.raises(TimeoutError):
            batcher.run(work, ["late"], 0.01)
        gate.set()
        first.result()
    batcher.close()
    assert done == ["first"]


@pytest.fixture(scope="module")
def served(index_folder, tmp_path_factory):
    with running(index_folder, tmp_path_factory.mktemp("load") / "log") as served:
        yield served


def questions():
    """Words and images, each unlike the others: (path, arguments of a POST)."""
    for number, words in enumerate(NAMED):
        if number % 4:
            body = {"queries": [{"texts": [words]}], "k": 5 + number % 3, "one_per_article": number % 2 == 0}
            yield "/search", {"json": body}
        else:
            yield (
                "/search/image",
                {"files": [("images", image_bytes(draw_image(number % 12)))], "data": {"texts": words}},
            )


def answer(client, question):
    path, said = question
    told = client.post(path, **said)
    assert told.status_code == 200, told.text
    told = told.json()
    return [(hit["id"], hit["score"]) for hit in told.get("answers", [told])[0]["hits"]]


@pytest.mark.slow
def test_no_answer_is_anothers(served):
    asked = list(questions())
    assert len(asked) == THREADS
    with httpx2.Client(base_url=served.url, timeout=60) as client:
        serial = [answer(client, question) for question in asked]
    assert len({str(one) for one in serial}) == THREADS

    def ask(start):
        with httpx2.Client(base_url=served.url, timeout=60) as client:
            return [(at % THREADS, answer(client, asked[at % THREADS])) for at in range(start, start + 6)]

    with ThreadPoolExecutor(THREADS) as pool:
        for told in pool.map(ask, range(THREADS)):
            for number, hits in told:
                assert [score for _, score in hits] == pytest.approx([s for _, s in serial[number]], abs=1e-5)
                assert [id for id, _ in hits] == [id for id, _ in serial[number]]


@pytest.mark.slow
def test_hostile_neighbors_change_no_answer(served):
    asked = list(questions())[:8]
    with httpx2.Client(base_url=served.url, timeout=60) as client:
        serial = [answer(client, question) for question in asked]
        bad = [content for _, content, picture in hostile.uploads() if not picture][::4]

        def spoil(content):
            with httpx2.Client(base_url=served.url, timeout=60) as other:
                return other.post("/search/image", files=[("images", content)]).status_code

        with ThreadPoolExecutor(8) as pool:
            codes = pool.map(spoil, bad)
            for _ in range(4):
                for question, expected in zip(asked, serial, strict=True):
                    found = answer(client, question)
                    assert [id for id, _ in found] == [id for id, _ in expected]
            assert set(codes) <= {200, 422}
    assert not any(name in served.said() for name in hostile.NAMES)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "code"),
    [
        (b"POST /search/image HTTP/1.1\r\nContent-Length: 9999999999", 413),
        (b"POST /search HTTP/1.1\r\nContent-Length: -1", 400),
        (b"POST /search HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6", 400),
        (b"POST /search HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked", None),
        (b"GET /../../etc/passwd HTTP/1.1", 404),
        (b"GET http://evil.example/health HTTP/1.1", None),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 60_000, 200),
        (b"GET /\x00 HTTP/1.1", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ],
)
def test_raw_requests_are_answered_or_refused(served, head, code):
    with served.connect() as raw:
        raw.sendall(head + b"\r\nHost: x\r\nConnection: close\r\n\r\n0\r\n\r\n")
        told = raw.recv(65536)
    status = int(re.match(rb"HTTP/1.1 (\d+)", told)[1])
    assert status in ((code,) if code else (200, 400, 404, 422)), told
    assert b"Traceback" not in told and b"root:" not in told


@pytest.mark.slow
def test_an_endless_body_over_a_socket_is_cut_off(served):
    sent = 0
    with served.connect() as raw:
        raw.sendall(b"POST /search/image HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
                    b"Content-Type: multipart/form-data; boundary=x\r\n\r\n")  # fmt: skip
        body = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'
        with pytest.raises(OSError):
            for _ in range(400):
                raw.sendall(f"{len(body):x}\r\n".encode() + body + b"\r\n")
                sent, body = sent + len(body), bytes(2**20)
    assert sent < 64 * 2**20


@pytest.mark.slow
def test_memory_stays_where_it_is(served):
    def resident():
        said = Path(f"/proc/{served.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", said)[1]) / 1024

    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc")
    with httpx2.Client(base_url=served.url, timeout=60) as client:
        asked, marks = list(questions()), []
        for _ in range(3):
            for at in range(400):
                answer(client, asked[at % THREADS])
            marks.append(resident())
    assert marks[2] - marks[1] < 20, marks  # megabytes


@pytest.mark.slow
def test_several_workers_answer_alike_and_count_together(index_folder, tmp_path):
    key = "the key of this test"[:16].replace(" ", "-")
    with running(index_folder, tmp_path / "log", "--workers", "2", MEDCLIP_API_KEY=key) as served:
        assert key not in " ".join(Path(f"/proc/{served.process.pid}/cmdline").read_text().split("\0"))
        found = set()
        for _ in range(30):  # a connection each, so that both workers are met
            with httpx2.Client(base_url=served.url, headers={"X-API-Key": key}, timeout=60) as client:
                found.add(str([(id, round(score, 4)) for id, score in answer(client, next(questions()))]))
        with httpx2.Client(base_url=served.url, headers={"X-API-Key": key}, timeout=60) as client:
            told = {client.get("/metrics").text.split('medclip_requests_total{route="/search/image",status="200"} ')[1]
                    .split("\n")[0] for _ in range(4)}  # fmt: skip
            assert httpx2.get(f"{served.url}/facets").status_code == 401
        assert len(found) == 1 and told == {"30.0"}
    assert served.process.returncode == 0


@pytest.mark.slow
def test_it_finishes_what_it_is_at_and_ends(index_folder, tmp_path):
    body = json.dumps({"queries": [{"texts": NAMED[:32]}], "ensemble": True}).encode()
    head = (b"POST /search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body))  # fmt: skip
    with running(index_folder, tmp_path / "log", "--log-queries") as served, ExitStack() as opened:
        asked = [opened.enter_context(served.connect(60)) for _ in range(4)]
        for one in asked:
            one.sendall(head)
            assert one.recv(65536).startswith(b"HTTP/1.1 100 ")  # so it waits for the body: it is at this request
        served.process.send_signal(signal.SIGTERM)
        with pytest.raises(OSError):
            for _ in range(300):
                served.connect(2).close()
                time.sleep(0.1)
        for one in asked:
            one.sendall(body)
        assert all(one.recv(65536).startswith(b"HTTP/1.1 200 ") for one in asked)
        assert served.process.wait(30) == 0
        assert json.dumps(NAMED[0]) in served.said() and "Traceback" not in served.said()
