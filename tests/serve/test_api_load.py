"""The command under load: no response is another's, and it ends when it is asked to."""

import json
import re
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import httpx2
import pytest

from medclip.serve.batching import Batcher
from support import hostile_requests as hostile
from support.material import draw_image, image_bytes
from support.served import start_server
from support.waiting import wait_until

TEXTS = [f"{side} {organ} in {kind}, number {n}" for n, (side, organ, kind) in enumerate(
    (side, organ, kind) for side in ("left", "right", "upper", "lower") for organ in ("chest", "knee", "brain", "liver")
    for kind in ("CT", "MRI", "x-ray", "ultrasound")
)]  # fmt: skip
THREADS = 64


def test_batches_answer_each_caller_and_take_together_what_waits():
    sizes, gate = [], threading.Event()

    def slow(items):
        gate.wait(60)
        return [item * 10 for item in items]

    def run(n):
        return batcher.run(slow, [n, n + 0.5], 60)

    batcher = Batcher((8, 64), sizes.append)
    with ThreadPoolExecutor(100) as pool:
        first = pool.submit(batcher.run, slow, [0], 60)
        wait_until(lambda: sizes)
        others = [pool.submit(run, n) for n in range(1, 41)]
        wait_until(lambda: sum(map(len, list(batcher._queues.values()))) == 80)
        gate.set()
        assert first.result() == [0]
        assert [other.result() for other in others] == [[n * 10, n * 10 + 5.0] for n in range(1, 41)]
    assert sizes == [1, 64, 8, 8]
    batcher.close()
    with pytest.raises(TimeoutError):
        batcher.run(slow, [1], 1)


def test_an_error_belongs_to_the_item_that_causes_it():
    gate = threading.Event()

    def fussy(items):
        gate.wait(60)
        if 3 in items:
            raise ValueError("three")
        return items

    batcher = Batcher((8,))
    with ThreadPoolExecutor(10) as pool:
        results = [pool.submit(batcher.run, fussy, [n], 60) for n in range(8)]
        gate.set()
        for n, result in enumerate(results):
            if n == 3:
                with pytest.raises(ValueError, match="three"):
                    result.result()
            else:
                assert result.result() == [n]
    batcher.close()


def test_what_nobody_waits_for_is_not_done():
    done, sizes, gate = [], [], threading.Event()

    def work(items):
        gate.wait(60)
        done.extend(items)
        return items

    batcher = Batcher((1,), sizes.append)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(batcher.run, work, ["first"], 60)
        wait_until(lambda: sizes)
        with pytest.raises(TimeoutError):
            batcher.run(work, ["late"], 0.01)
        gate.set()
        first.result()
    batcher.close()
    assert done == ["first"]


def test_many_items_have_one_time_limit_together():
    sizes = []
    batcher = Batcher((1,), sizes.append)
    with pytest.raises(TimeoutError):
        batcher.run(lambda items: time.sleep(0.05) or items, range(200), 0.1)
    assert len(sizes) < 200  # it was not waited for the last, which comes after ten seconds
    batcher.close()


@pytest.fixture(scope="module")
def server(index_folder, tmp_path_factory):
    with start_server(index_folder, tmp_path_factory.mktemp("load") / "log") as server:
        yield server


def make_requests():
    """Texts and images, each unlike the others: (path, arguments of a POST)."""
    for number, text in enumerate(TEXTS):
        if number % 4:
            body = {
                "queries": [{"texts": [text]}],
                "k": 5 + number % 3,
                "group_by": "article" if number % 2 == 0 else None,
            }
            yield "/search", {"json": body}
        else:
            files = [("images", image_bytes(draw_image(number % 12)))]
            yield "/search/image", {"files": files, "data": {"texts": text}}


def search(client, request):
    path, arguments = request
    response = client.post(path, **arguments)
    assert response.status_code == 200, response.text
    body = response.json()
    return [(hit["id"], hit["score"]) for hit in body.get("results", [body])[0]["hits"]]


def assert_same_hits(hits, expected):
    """But for the last digits, which follow the company in a batch, and for the order of hits that only these tell."""
    assert [score for _, score in hits] == pytest.approx([score for _, score in expected], abs=1e-5)
    for id, score in hits:
        assert id in {other for other, its_score in expected if abs(its_score - score) < 2e-5}


@pytest.mark.slow
def test_no_response_is_anothers(server):
    requests = list(make_requests())
    assert len(requests) == THREADS
    with httpx2.Client(base_url=server.url, timeout=60) as client:
        expected = [search(client, request) for request in requests]
    assert len({str(hits) for hits in expected}) == THREADS

    def search_six(start):
        with httpx2.Client(base_url=server.url, timeout=60) as client:
            return [(i % THREADS, search(client, requests[i % THREADS])) for i in range(start, start + 6)]

    with ThreadPoolExecutor(THREADS) as pool:
        for results in pool.map(search_six, range(THREADS)):
            for number, hits in results:
                assert_same_hits(hits, expected[number])


@pytest.mark.slow
def test_hostile_neighbors_change_no_response(server):
    requests = list(make_requests())[:8]
    with httpx2.Client(base_url=server.url, timeout=60) as client:
        expected = [search(client, request) for request in requests]
        hostile_files = [content for _, content, image in hostile.uploads() if not image][::4]

        def post(content):
            with httpx2.Client(base_url=server.url, timeout=60) as other:
                return other.post("/search/image", files=[("images", content)]).status_code

        with ThreadPoolExecutor(8) as pool:
            codes = pool.map(post, hostile_files)
            for _ in range(4):
                for request, hits in zip(requests, expected, strict=True):
                    assert_same_hits(search(client, request), hits)
            assert set(codes) <= {200, 422}
    assert not any(name in server.log() for name in hostile.NAMES)


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
def test_raw_requests_are_answered_or_refused(server, head, code):
    with server.connect() as raw:
        raw.sendall(head + b"\r\nHost: localhost\r\nConnection: close\r\n\r\n0\r\n\r\n")
        response = raw.recv(65536)
    status = int(re.match(rb"HTTP/1.1 (\d+)", response)[1])
    assert status in ((code,) if code else (200, 400, 404, 422)), response
    assert b"Traceback" not in response and b"root:" not in response


@pytest.mark.slow
def test_an_endless_body_over_a_socket_is_cut_off(server):
    sent = 0
    with server.connect() as raw:
        raw.sendall(b"POST /search/image HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
                    b"Content-Type: multipart/form-data; boundary=x\r\n\r\n")  # fmt: skip
        body = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'
        with pytest.raises(OSError):
            for _ in range(400):
                raw.sendall(f"{len(body):x}\r\n".encode() + body + b"\r\n")
                sent, body = sent + len(body), bytes(2**20)
    assert sent < 64 * 2**20


@pytest.mark.slow
def test_memory_stays_where_it_is(server):
    def resident():
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc")
    with httpx2.Client(base_url=server.url, timeout=60) as client:
        requests, marks = list(make_requests()), []
        for _ in range(3):
            for i in range(400):
                search(client, requests[i % THREADS])
            marks.append(resident())
    assert min(after - before for before, after in pairwise(marks)) < 20, marks  # megabytes; a leak is in each


@pytest.mark.slow
def test_several_workers_answer_alike_and_count_together(index_folder, tmp_path):
    key = "the key of this test"[:16].replace(" ", "-")
    with start_server(index_folder, tmp_path / "log", "--workers", "2", MEDCLIP_API_KEY=key) as server:
        assert key not in " ".join(Path(f"/proc/{server.process.pid}/cmdline").read_text().split("\0"))
        results = set()
        for _ in range(30):  # a connection each, so that both workers are met
            with httpx2.Client(base_url=server.url, headers={"X-API-Key": key}, timeout=60) as client:
                results.add(str([(id, round(score, 4)) for id, score in search(client, next(make_requests()))]))
        with httpx2.Client(base_url=server.url, headers={"X-API-Key": key}, timeout=60) as client:
            name = 'medclip_requests_total{route="/search/image",status="200"} '

            def count():
                return client.get("/metrics").text.split(name)[1].split("\n")[0]

            wait_until(lambda: count() == "30.0")  # the last one is counted once it has been answered
            counts = {count() for _ in range(4)}
            assert httpx2.get(f"{server.url}/facets").status_code == 401
        assert len(results) == 1 and counts == {"30.0"}
    assert server.process.returncode == 0


@pytest.mark.slow
def test_it_finishes_the_requests_in_progress_and_ends(index_folder, tmp_path):
    body = json.dumps({"queries": [{"texts": TEXTS[:32]}]}).encode()
    head = (b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body))  # fmt: skip
    with start_server(index_folder, tmp_path / "log", "--log-queries") as server, ExitStack() as stack:
        connections = [stack.enter_context(server.connect(60)) for _ in range(4)]
        for connection in connections:
            connection.sendall(head)
            assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")  # it waits for the body
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(OSError):
            for _ in range(300):
                server.connect(2).close()
                time.sleep(0.1)
        for connection in connections:
            connection.sendall(body)
        assert all(connection.recv(65536).startswith(b"HTTP/1.1 200 ") for connection in connections)
        assert server.process.wait(60) == 0
        assert json.dumps(TEXTS[0]) in server.log() and "Traceback" not in server.log()
