"""What fails inside the service: the client gets one sentence, and nothing else."""

import asyncio
import socket
import threading

import pytest

from medclip.errors import UserError, WorkError
from medclip.require import install_command
from medclip.serve import gate, run
from medclip.serve.api import create_app
from medclip.serve.service import Settings
from support.served import error_sentence, open_client, service_of
from support.waiting import wait_until


@pytest.fixture(scope="module")
def client(index_folder):
    with open_client(index_folder) as client:
        yield client


@pytest.mark.parametrize(
    ("error", "sentence"),
    [(WorkError("a row is damaged."), "a row is damaged."), (PermissionError(13, "Denied", "rows"), "rows: Denied.")],
)
def test_a_service_that_cannot_start_says_why(index_folder, monkeypatch, caplog, error, sentence):
    def fail(*_):
        raise error

    monkeypatch.setattr("medclip.serve.api.Service", fail)
    app = create_app(Settings(index_folder), []).app
    with pytest.raises(SystemExit):
        asyncio.run(app.router.lifespan_context(app).__aenter__())
    assert [record.message for record in caplog.records] == [sentence]


@pytest.fixture
def hold_similar(client, monkeypatch):
    """Holds /similar until it is released."""
    release = threading.Event()
    monkeypatch.setattr(service_of(client), "similar", lambda *_: release.wait(120) and [])
    yield release
    release.set()


def test_too_many_requests_are_asked_to_try_again(client, hold_similar, monkeypatch):
    monkeypatch.setattr(gate, "MAX_IN_FLIGHT", 2)
    waiting = [threading.Thread(target=client.get, args=("/similar/x",)) for _ in range(2)]
    for thread in waiting:
        thread.start()
    wait_until(lambda: client.app.num_in_flight == 2)
    response = client.get("/")
    assert response.status_code == 503 and response.headers["retry-after"] == "1"
    assert client.get("/health").status_code == 200
    hold_similar.set()
    for thread in waiting:
        thread.join()
    assert client.get("/").status_code == 200


@pytest.mark.parametrize(
    ("failure", "code"),
    [(UserError("milvus://secret:19530 does not response"), 503), (TimeoutError(), 504), (WorkError("secret"), 503)],
)
def test_a_failing_store_is_not_the_clients_fault(client, monkeypatch, failure, code):
    def fail(*_):
        raise failure

    monkeypatch.setattr(service_of(client).index().reader.store.store, "candidates", fail)
    for response in (client.get("/ready"), client.post("/search", json={"queries": [{"texts": ["chest"]}]})):
        assert response.status_code == code and response.headers["retry-after"] == "5"
        assert "secret" not in error_sentence(response)


def test_what_takes_too_long_is_given_up(client, hold_similar, monkeypatch):
    monkeypatch.setattr(gate, "REQUEST_TIMEOUT_S", 0.2)
    response = client.get("/similar/x")
    assert response.status_code == 504 and "0.2 seconds" in error_sentence(response)


def test_a_server_error_shows_nothing_of_itself(client, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("/srv/secret/path and a query")

    monkeypatch.setattr(service_of(client), "similar", fail)
    response = client.get("/similar/x")
    assert response.status_code == 500 and "secret" not in error_sentence(response) + caplog.text
    assert "RuntimeError at test_api_failures.py" in caplog.text


def test_what_cannot_be_served_is_one_sentence(medclip, index_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "_run", lambda *_: pytest.fail("it was server"))
    monkeypatch.setenv("MEDCLIP_SERVE", "")  # put back at the end
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, _, message = medclip("serve", "--index", index_folder, "--port", port)
    assert code == 1 and "cannot be listened on" in message and "another --port?" in message
    code, _, message = medclip("serve", "--index", index_folder, "--host", "192.0.2.1", "--port", "0")
    assert code == 1 and "another --host?" in message
    for flags, sentence in (
        (("--index", tmp_path), "is not an index"),
        (("--index", index_folder, "--workers", "0"), "--workers must be at least 1"),
        (("--index", index_folder, "--model", tmp_path), "is not a model folder"),
        (("--index", index_folder, "--api-key-file", tmp_path / "none"), "cannot be read"),
    ):
        code, _, message = medclip("serve", *flags)
        assert code == 2 and sentence in message and "Traceback" not in message
    monkeypatch.setattr(run, "REQUIRED_PACKAGES", ("a_library_that_nobody_has",))
    code, _, message = medclip("serve", "--index", index_folder)
    assert code == 2 and install_command("serve") in message
