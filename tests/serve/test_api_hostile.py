"""Whatever is sent, the response is an response: no fault, no traceback, no name of a patient, nothing on the disk."""

import asyncio
import json
import logging
import multiprocessing
import os
import re
import tempfile
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medclip.data import images
from medclip.data.dataset import Split
from medclip.search.reader import IndexReader
from medclip.serve import gate, service
from medclip.serve.gate import UPLOAD_PATHS
from support import hostile_requests as hostile
from support.dicom_files import crashing_dicom
from support.material import draw_image, image_bytes
from support.served import error_sentence, open_client, start_server

UPLOADS = list(hostile.uploads())


@pytest.fixture(scope="module")
def client(index_folder):
    with open_client(index_folder) as client:
        yield client


def upload(client, content, path="/search/image"):
    if path == "/classify":
        return client.post(path, data={"labels": ["ct", "mri"]}, files={"image": ("x.png", content, "image/png")})
    if path == "/explain":
        return client.post(path, data={"text": "ct"}, files={"image": ("x.png", content, "image/png")})
    return client.post(path, files=[("images", ("../../x.dcm", content, "text/html"))])


def test_there_are_a_hundred_hostile_uploads():
    assert len({name for name, *_ in UPLOADS}) == len(UPLOADS) > 100


@pytest.mark.parametrize(("number", "name"), [(number, name) for number, (name, *_) in enumerate(UPLOADS)])
def test_a_hostile_upload_is_answered_cleanly(client, number, name, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    _, content, image = UPLOADS[number]
    response = upload(client, content, UPLOAD_PATHS[number % len(UPLOAD_PATHS)])
    assert response.status_code in ((200, 422) if image is None else (200,) if image else (422,)), response.text
    if response.status_code == 422:
        assert error_sentence(response).startswith("the image: ")
    output = response.text + str(response.headers) + caplog.text + "".join(capfd.readouterr())
    assert not any(name in output for name in hostile.NAMES)
    assert "Traceback" not in output and os.fspath(tempfile.gettempdir()) not in response.text


@pytest.mark.slow
def test_a_decoder_that_crashes_takes_nothing_with_it(client):
    image = image_bytes(draw_image(3))
    before = upload(client, image).json()
    for _ in range(service.NUM_DECODE_WORKERS + 1):
        assert "decoder crashed" in error_sentence(upload(client, crashing_dicom()))
    assert upload(client, image).json() == before
    for process in multiprocessing.active_children():
        if process.name == "decoder":
            process.kill()
            process.join()
    assert upload(client, image).json() == before


def test_images_of_the_index_are_decoded_by_workers_too(client, data, monkeypatch):
    """The index may be from elsewhere."""
    id = Split(data, "validation").column("id")[0]
    monkeypatch.setattr(images, "_open_image", None)  # of this process alone
    assert client.get(f"/thumbnails/{id}", params={"side": 24}).status_code == 200
    for stored, reason in ((b"no image", "image unreadable"), (crashing_dicom(), "decoder crashed")):
        monkeypatch.setattr(IndexReader, "image", lambda reader, row, stored=stored: stored)
        response = client.get(f"/thumbnails/{id}")
        assert response.status_code == 422 and error_sentence(response) == f"the image: {reason}."


def test_an_upload_never_touches_the_disk(client, monkeypatch):
    rolled = []
    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", rolled.append)
    noise = image_bytes(Image.fromarray(np.random.default_rng(0).integers(0, 256, (2000, 2000), np.uint8)), "PNG")
    assert len(noise) > 3 * 2**20
    assert upload(client, noise).status_code == 200 and rolled == []


def test_too_much_is_refused(client):
    assert upload(client, bytes(gate.MAX_UPLOAD_BYTES)).status_code == 413
    response = client.post("/search", content=b" " * (gate.MAX_BODY_BYTES + 1))
    assert response.status_code == 413 and "more than 262144 bytes" in error_sentence(response)
    image = image_bytes(draw_image(1))
    for count, code in ((8, 200), (9, 400)):
        assert client.post("/embed/image", files=[("images", image)] * count).status_code == code
    response = client.post("/search/image", data={"texts": ["a"] * 33}, files={"images": image})
    assert response.status_code == 422 and "at most 32 items" in error_sentence(response)
    response = client.post("/search/image", data={"texts": "a" * 2**15}, files={"images": image})
    assert response.status_code == 400
    assert client.post("/classify", data={"labels": ["a"] * 65}, files={"image": image}).status_code == 422


class EndlessRequest:
    """A request below HTTP whose body does not end: what the gate reads of it, and what it sends."""

    def __init__(self, path="/search/image", chunk=bytes(2**20), pause=0.0, **headers):
        self.bytes_read, self.messages, self.chunk, self.pause = 0, [], chunk, pause
        headers = {"content-type": "multipart/form-data; boundary=x", **headers}
        self.scope = {
            "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
            "root_path": "", "scheme": "http", "server": ("x", 80), "client": ("1.2.3.4", 5), "http_version": "1.1",
            "asgi": {"version": "3.0"}, "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
        }  # fmt: skip

    async def receive(self):
        await asyncio.sleep(self.pause)
        self.bytes_read += len(self.chunk)
        return {"type": "http.request", "body": self.chunk, "more_body": True}

    async def send(self, message):
        self.messages.append(message)

    def send_to(self, client, app=None):
        """Status and body of the response, from the event loop of the client's own lifespan, as a server would."""
        client.portal.call(app or client.app, self.scope, self.receive, self.send)
        body = b"".join(message.get("body", b"") for message in self.messages[1:])
        return self.messages[0]["status"], json.loads(body)


FORM_START = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'


def test_an_endless_upload_is_cut_off(client):
    request = EndlessRequest(chunk=FORM_START + bytes(2**20))
    assert request.send_to(client)[0] == 413 and request.bytes_read < gate.MAX_UPLOAD_BYTES + 2 * 2**20
    request = EndlessRequest("/search", **{"content-type": "application/json"})
    assert request.send_to(client)[0] == 413 and request.bytes_read < 2 * 2**20


@pytest.mark.parametrize("length", ["99999999999", "9" * 400])
def test_a_huge_content_length_is_refused_unread(client, length):
    request = EndlessRequest(**{"content-length": length})
    assert request.send_to(client)[0] == 413 and request.bytes_read == 0


def test_without_the_key_no_byte_of_a_body_is_read(client):
    request = EndlessRequest()
    status, _ = request.send_to(client, gate.Gate(client.app.app, [b"a key of the operator"]))
    assert status == 401 and request.bytes_read == 0


def test_a_slow_upload_is_given_up(client, monkeypatch):
    monkeypatch.setattr(gate, "REQUEST_TIMEOUT_S", 0.3)
    request = EndlessRequest("/search", chunk=b" ", pause=0.05, **{"content-type": "application/json"})
    status, body = request.send_to(client)
    assert status == 408 and "0.3 seconds" in body["error"]
    assert client.app.num_in_flight == 0


def test_all_bodies_together_are_bounded(client, monkeypatch):
    monkeypatch.setattr(gate, "MAX_TOTAL_BODY_BYTES", 2**21)
    for _ in range(3):
        status, body = EndlessRequest(chunk=FORM_START + bytes(2**20)).send_to(client)
        assert status == 503 and "too many requests" in body["error"]
    image = image_bytes(draw_image(3)) + bytes(2**20)
    assert upload(client, image).status_code == 200  # a refused body counts no longer


@pytest.mark.parametrize(
    "id",
    ["../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd", "/etc/passwd", "....//etc/passwd", "%00",
     "..%5c..%5cwindows", "%ff%fe", "ROCO_00001%00.jpg", "file:///etc/passwd", "~", "%252e%252e%252f", "a" * 5000,
     "index.json", "segments/00000/embeddings.npy", "{id}", "' OR 1=1 --", "<script>alert(1)</script>", "\u202e"],
)  # fmt: skip
def test_no_path_leads_out_of_the_index(client, id):
    for path in (f"/thumbnails/{id}", f"/similar/{id}"):
        response = client.get(path)
        assert response.status_code in (404, 422)
        assert error_sentence(response) and "passwd" not in response.text and "script" not in response.text
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
    assert client.get("/search/", headers=headers).status_code == 404  # and no redirect to a host that was response


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b"[]", b"0", b'"x"', b"[" * 50_000, b'{"queries":' * 9000,
     b'{"queries":[{"texts":["\\ud800"]}]}', b'{"queries":[{"texts":["a"]}],"\\ud800":1}',
     b'{"queries":[{"texts":["a"]}],"filter":{"\\ud800":["a"]}}',
     b'{"queries":[{"texts":["\xff\xfe"]}]}', b'{"queries":[{"texts":["a"]}],"k":1e400}',
     b'{"queries":[{"texts":["a"]}],"k":NaN}', b'{"queries":[{"texts":["a"]}],"k":' + b"9" * 5000 + b"}",
     b'{"queries":[{"texts":[["a"]]}]}', b'{"queries":[{"texts":["a"]}],"filter":{"license":["\\u0000"],"":["x"]}}',
     b'{"__proto__":{"k":1}}',
     b'{"queries":[{"texts":["\\u0000\\u202e\\uffff"]}],"filter":{"added":["9999999-01-01"]}}'],
)  # fmt: skip
def test_no_json_is_a_fault(client, body):
    response = client.post("/search", content=body, headers={"content-type": "application/json"})
    assert response.status_code in (400, 422)
    assert not re.search(r"Traceback|site-packages|/src/", error_sentence(response))


@pytest.mark.parametrize("text", ["\u0000", "\U0010ffff" * 500, "🩻" * 1000, "\u202e<|endoftext|>", "a\n" * 500, "{}"])
def test_any_text_is_a_text(client, text):
    response = client.post("/search", json={"queries": [{"texts": [text]}]})
    assert response.status_code == 200 and len(response.json()["results"][0]["hits"]) == 10


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=", "text/plain", "",
                                  "application/json", "multipart/form-data; boundary=" + "x" * 300])  # fmt: skip
def test_a_form_that_is_none_is_refused(client, kind):
    response = client.post("/search/image", content=b"--x\r\nnothing\r\n", headers={"content-type": kind})
    assert response.status_code in (400, 422)
    error_sentence(response)


def test_one_bad_image_does_not_spoil_the_requests_of_others(client):
    good = image_bytes(draw_image(3))
    expected = upload(client, good, "/embed/image").json()["embeddings"][0]
    with ThreadPoolExecutor(16) as pool:
        images = [good if number % 2 else b"no image" for number in range(16)]
        for number, response in enumerate(pool.map(lambda image: upload(client, image, "/embed/image"), images)):
            assert response.status_code == (200 if number % 2 else 422)
            if number % 2:
                assert response.json()["embeddings"][0] == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the libraries of a process are read from /proc")
def test_gdcm_is_never_in_the_serving_process(index_folder, tmp_path):
    pytest.importorskip("gdcm")
    dicom_files = pytest.importorskip("support.dicom_files")
    with start_server(index_folder, tmp_path / "log") as server:
        for name in ("CT_small.dcm", "SC_rgb_jpeg_gdcm.dcm"):  # GDCM decodes the second
            content = (dicom_files.PACKAGED / name).read_bytes()
            body = (
                b'--x\r\nContent-Disposition: form-data; name="images"; filename="x"\r\n\r\n'
                + content
                + b"\r\n--x--\r\n"
            )
            form = {"Content-Type": "multipart/form-data; boundary=x"}
            request = urllib.request.Request(f"{server.url}/search/image", body, form)
            with urllib.request.urlopen(request, timeout=60) as response:
                assert response.status == 200
        libraries = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "python" in libraries and "gdcm" not in libraries.lower()
