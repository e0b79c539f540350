"""The client gives what the API gives, in its forms."""

import inspect
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from medclip.data.dataset import Split
from medclip.errors import UserError
from medclip.serve import schemas
from medclip.serve.client import ApiError, Client
from support.material import draw_image, image_bytes
from support.served import open_client, start_server

KEY = "k" * 16


@pytest.fixture(scope="module")
def http(index_folder):
    with open_client(index_folder, keys=[KEY.encode()], warm_up=False) as http:
        yield http


@pytest.fixture(scope="module")
def client(http):
    return Client(str(http.base_url), KEY, http)


@pytest.fixture(scope="module")
def ids(data):
    return Split(data, "validation").column("id")


def test_it_has_a_method_for_every_operation_with_its_arguments(client, http):
    paths = http.get("/openapi.json", headers={"X-API-Key": KEY}).json()["paths"]
    operations = {op["operationId"]: op for methods in paths.values() for op in methods.values()}
    methods = {name for name, _ in inspect.getmembers(client, inspect.ismethod) if not name.startswith("_")}
    assert methods == {*operations, "close", "search"}
    for name, operation in operations.items():
        arguments = inspect.signature(getattr(client, name)).parameters
        assert {parameter["name"] for parameter in operation.get("parameters", [])} <= arguments.keys(), name


def test_searches_give_the_forms_of_the_service(client, ids):
    result = client.search("CT of the left chest", k=3, filter={"added": ["2020-01-01.."]})
    assert isinstance(result, schemas.SearchResult) and len(result.hits) == 3
    assert client.search("CT of the left chest", k=3, filter={"added": "2020-01-01.."}) == result
    request = schemas.SearchRequest(queries=[schemas.SearchQuery(texts=["CT of the left chest"])], k=3)
    assert client.search_by_text(request).results == [result]
    image = image_bytes(draw_image(3))
    by_image = client.search_by_image([image, image], texts=["knee"], negative_texts=["chest"], k=2, group_by="article")
    assert len(by_image.hits) == 2 and by_image.probabilities is None
    assert ids[0] not in [hit.id for hit in client.similar(ids[0], k=4, filter=["added=2020-01-01.."]).hits]


def test_images_and_texts_are_classified_embedded_and_shown(client, ids):
    image, labels = image_bytes(draw_image(3)), ["chest", "knee"]
    scores = client.classify(labels, image).scores
    assert [score.label for score in scores] == labels and sum(s.probability for s in scores) == pytest.approx(1)
    assert client.classify(labels, id=ids[0]).best in labels
    assert client.explain("chest", image)[:2] == client.explain("chest", id=ids[0])[:2] == b"\xff\xd8"
    texts, images = client.embed_texts(labels), client.embed_images([image])
    assert (len(texts.embeddings), len(images.embeddings)) == (2, 1) and texts.model_sha256 == images.model_sha256
    assert client.thumbnail(ids[0], side=16).startswith(b"\xff\xd8")
    assert client.info().num_images == client.facets().num_images == len(ids)
    assert client.health().status == client.ready().status == "ok" and "medclip_requests" in client.prometheus()


def test_errors_are_the_sentences_of_the_service(client, http):
    for call, status, sentence in (
        (lambda: client.thumbnail("no/such"), 404, "the index has no such image."),
        (lambda: client.embed_images([b"no image"]), 422, "the image: image unreadable."),
        (lambda: client.search("x" * 2000), 422, None),
        (lambda: Client(str(http.base_url), "wrong" * 5, http).info(), 401, None),
    ):
        with pytest.raises((ApiError, ValueError)) as error:
            call()
        if isinstance(error.value, ApiError):
            assert error.value.status == status and (sentence is None or error.value.sentence == sentence)


def test_its_key_does_not_leave_over_clear_text():
    with pytest.raises(UserError, match="the API key is not sent over clear text"):
        Client("http://search.example:8000", KEY)
    for address in ("https://search.example", "http://127.0.0.1:8000", "http://[::1]:8000"):
        Client(address, KEY).close()


def test_a_proxy_of_the_environment_carries_no_clear_text(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with Client(f"http://127.0.0.1:{server.server_address[1]}", KEY) as client, pytest.raises(ApiError) as error:
            client.health()
        server.shutdown()
    assert error.value.status == 501  # of a server that knows no method, and not a connection that is refused


@pytest.mark.slow
def test_it_asks_a_server_in_a_process_of_its_own(index_folder, tmp_path, ids):
    with start_server(index_folder, tmp_path / "log") as server, Client(server.url + "/") as client:
        assert {hit.id for hit in client.search("CT of the left chest", k=2).hits} < set(ids)
        assert client.classify(["chest", "knee"], image_bytes(draw_image(3))).best in ("chest", "knee")
