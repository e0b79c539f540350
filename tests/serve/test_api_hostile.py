"""Whatever is sent, the answer is an answer: no fault, no traceback, no name of a patient, nothing on the disk."""

import asyncio
import json
import logging
import os
import re
import tempfile
import threading

import numpy as np
import pytest
from PIL import Image

from medclip.serve import decode_workers, gate
from support import hostile_requests as hostile
from support.material import draw_image, image_bytes
from support.served import opened, problem, service_of

UPLOADS = list(hostile.uploads())


@pytest.fixture(scope="module")
def client(index_folder):
    with opened(index_folder) as client:
        yield client


def upload(client, content, path="/search/image"):
    if path == "/classify":
        return client.post(path, data={"labels": ["ct", "mri"]}, files={"image": ("x.png", content, "image/png")})
    return client.post(path, files=[("images", ("../../x.dcm", content, "text/html"))])


def test_there_are_a_hundred_hostile_uploads():
    assert len({name for name, *_ in UPLOADS}) == len(UPLOADS) > 100


@pytest.mark.parametrize(("number", "name"), [(number, name) for number, (name, *_) in enumerate(UPLOADS)])
def test_a_hostile_upload_is_answered_cleanly(client, number, name, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    _, content, picture = UPLOADS[number]
    answer = upload(client, content, ("/search/image", "/classify", "/embed/image")[number % 3])
    assert answer.status_code in ((200, 422) if picture is None else (200,) if picture else (422,)), answer.text
    if answer.status_code == 422:
        assert problem(answer).startswith("the image: ")
    said = answer.text + str(answer.headers) + caplog.text + "".join(capfd.readouterr())
    assert not any(person in said for person in hostile.NAMES)
    assert "Traceback" not in said and os.fspath(tempfile.gettempdir()) not in answer.text


def test_a_decoder_that_crashes_or_hangs_takes_nothing_with_it(client, monkeypatch):
    decoders, picture = service_of(client)._decoders, image_bytes(draw_image(3))
    before = upload(client, picture).json()
    for _ in range(decoding_count := service_of(client)._decoders._count):
        decoder = decoders._free.get()
        decoder._process.kill()
        decoder._process.join()
        decoders._free.put(decoder)
    for _ in range(decoding_count):
        assert "image unreadable" in problem(upload(client, picture))
    assert upload(client, picture).json() == before
    monkeypatch.setattr(decode_workers, "SECONDS", 0.0)
    assert upload(client, hostile.png(6000, 6000)).status_code == 422
    monkeypatch.undo()
    assert upload(client, picture).json() == before


def test_an_upload_never_touches_the_disk(client, monkeypatch):
    rolled = []
    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", rolled.append)
    noise = image_bytes(Image.fromarray(np.random.default_rng(0).integers(0, 256, (2000, 2000), np.uint8)), "PNG")
    assert len(noise) > 3 * 2**20
    assert upload(client, noise).status_code == 200 and rolled == []


def test_too_much_is_refused(client):
    assert upload(client, bytes(gate.MAX_UPLOAD)).status_code == 413
    answer = client.post("/search", content=b" " * (gate.MAX_BODY + 1))
    assert answer.status_code == 413 and "more than 262144 bytes" in problem(answer)
    picture = image_bytes(draw_image(1))
    for count, code in ((8, 200), (9, 400)):
        assert client.post("/embed/image", files=[("images", picture)] * count).status_code == code
    answer = client.post("/search/image", data={"texts": ["a"] * 33}, files={"images": picture})
    assert answer.status_code == 422 and "at most 32 items" in problem(answer)
    answer = client.post("/search/image", data={"texts": "a" * 2**15}, files={"images": picture})
    assert answer.status_code == 400
    assert client.post("/classify", data={"labels": ["a"] * 65}, files={"image": picture}).status_code == 422


class Asked:
    """A request below HTTP: what the gate takes in and lets out, however much is sent."""

    def __init__(self, path="/search/image", chunk=bytes(2**20), pause=0.0, **headers):
        self.taken, self.told, self.chunk, self.pause = 0, [], chunk, pause
        headers = {"content-type": "multipart/form-data; boundary=x", **headers}
        self.scope = {
            "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
            "root_path": "", "scheme": "http", "server": ("x", 80), "client": ("1.2.3.4", 5), "http_version": "1.1",
            "asgi": {"version": "3.0"}, "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
        }  # fmt: skip

    async def receive(self):
        await asyncio.sleep(self.pause)
        self.taken += len(self.chunk)
        return {"type": "http.request", "body": self.chunk, "more_body": True}

    async def send(self, message):
        self.told.append(message)

    def answered(self, client):
        # in the loop of the client's own lifespan, as a server would
        client.portal.call(client.app, self.scope, self.receive, self.send)
        return self.told[0]["status"], json.loads(b"".join(m.get("body", b"") for m in self.told[1:]))


def test_an_endless_upload_is_cut_off(client):
    asked = Asked(chunk=b'--x\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n' + bytes(2**20))
    assert asked.answered(client)[0] == 413 and asked.taken < gate.MAX_UPLOAD + 2 * 2**20
    asked = Asked("/search", **{"content-type": "application/json"})
    assert asked.answered(client)[0] == 413 and asked.taken < 2 * 2**20


@pytest.mark.parametrize("length", ["99999999999", "9" * 400])
def test_a_huge_content_length_is_refused_unread(client, length):
    asked = Asked(**{"content-length": length})
    assert asked.answered(client)[0] == 413 and asked.taken == 0


def test_without_the_key_no_byte_of_a_body_is_read(index_folder, client, monkeypatch):
    monkeypatch.setattr(client.app, "_keys", [b"a key of the operator"])
    asked = Asked()
    assert asked.answered(client)[0] == 401 and asked.taken == 0


def test_a_slow_upload_is_given_up_and_forgotten(client, monkeypatch):
    monkeypatch.setattr(gate, "REQUEST_S", 0.3)
    asked = Asked("/search", chunk=b" ", pause=0.05, **{"content-type": "application/json"})
    assert asked.answered(client)[0] == 408
    assert (client.app._in_flight, client.app._held) == (0, 0)


def test_all_bodies_together_are_bounded(client, monkeypatch):
    monkeypatch.setattr(gate, "MAX_HELD", 2**21)
    asked = Asked(chunk=b'--x\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n' + bytes(2**20))
    status, said = asked.answered(client)
    assert status == 503 and "too many requests" in said["error"]
    assert client.app._held == 0


@pytest.mark.parametrize(
    "id",
    ["../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd", "/etc/passwd", "....//etc/passwd", "%00",
     "..%5c..%5cwindows", "%ff%fe", "ROCO_00001%00.jpg", "file:///etc/passwd", "~", "%252e%252e%252f", "a" * 5000,
     "index.json", "segments/00000/vectors.npy", "{id}", "' OR 1=1 --", "<script>alert(1)</script>", "\u202e"],
)  # fmt: skip
def test_no_path_leads_out_of_the_index(client, id):
    for path in (f"/thumbnails/{id}", f"/similar/{id}"):
        answer = client.get(path)
        assert answer.status_code in (404, 422)
        assert problem(answer) and "passwd" not in answer.text and "script" not in answer.text
    assert client.post("/classify", data={"labels": ["a", "b"], "id": id}).status_code in (404, 422)


@pytest.mark.parametrize(
    "headers",
    [{"Host": "evil.example"}, {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"},
     {"X-Forwarded-For": "127.0.0.1"}, {"Forwarded": "host=evil.example"}, {"X-Original-URL": "/metrics"},
     {"X-Rewrite-URL": "/metrics"}, {"X-HTTP-Method-Override": "DELETE"}, {"Range": "bytes=0-10"},
     {"X-Forwarded-Prefix": "/evil"}, {"Origin": "https://evil.example"}],
)  # fmt: skip
def test_headers_change_nothing(client, headers):
    body = {"queries": [{"texts": ["chest"]}]}
    plain, tricked = (client.post("/search", json=body, headers=h) for h in ({}, headers))
    assert plain.json() == tricked.json() and plain.status_code == tricked.status_code == 200
    assert "evil" not in str(tricked.headers) and "access-control-allow-origin" not in tricked.headers
    assert client.get("/search/", headers=headers).status_code == 404  # and no redirect to a host that was told


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b"[]", b"0", b'"x"', b"[" * 50_000, b'{"queries":' * 9000,
     b'{"queries":[{"texts":["\\ud800"]}]}',
     b'{"queries":[{"texts":["\xff\xfe"]}]}', b'{"queries":[{"texts":["a"]}],"k":1e400}',
     b'{"queries":[{"texts":["a"]}],"k":NaN}', b'{"queries":[{"texts":["a"]}],"k":' + b"9" * 5000 + b"}",
     b'{"queries":[{"texts":[["a"]]}]}', b'{"queries":[{"texts":["a"]}],"where":{"license":["\\u0000"],"":["x"]}}',
     b'{"__proto__":{"k":1}}',
     b'{"queries":[{"texts":["\\u0000\\u202e\\uffff"]}],"where":{"added":["9999999-01-01"]}}'],
)  # fmt: skip
def test_no_json_is_a_fault(client, body):
    answer = client.post("/search", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    assert not re.search(r"Traceback|site-packages|/src/", problem(answer))


@pytest.mark.parametrize("text", ["\u0000", "\U0010ffff" * 500, "🩻" * 1000, "\u202e<|endoftext|>", "a\n" * 500, "{}"])
def test_any_words_are_words(client, text):
    for ensemble in (False, True):
        answer = client.post("/search", json={"queries": [{"texts": [text]}], "ensemble": ensemble})
        assert answer.status_code == 200 and len(answer.json()["answers"][0]["hits"]) == 10


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=", "text/plain", "",
                                  "application/json", "multipart/form-data; boundary=" + "x" * 300])  # fmt: skip
def test_a_form_that_is_none_is_refused(client, kind):
    answer = client.post("/search/image", content=b"--x\r\nnothing\r\n", headers={"content-type": kind})
    assert answer.status_code in (400, 422)
    problem(answer)


def test_one_bad_picture_does_not_spoil_the_questions_of_others(client):
    good, told = image_bytes(draw_image(3)), {}
    expected = upload(client, good, "/embed/image").json()["vectors"][0]

    def ask(number):
        told[number] = upload(client, good if number % 2 else b"no image", "/embed/image")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, answer in told.items():
        assert answer.status_code == (200 if number % 2 else 422)
        if number % 2:
            assert answer.json()["vectors"][0] == pytest.approx(expected, abs=1e-5)
