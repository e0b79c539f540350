"""The API answers what the search answers, one endpoint after another."""

import io
import json
import logging
import socket
import threading
import time

import numpy as np
import pytest
from PIL import Image

from medclip import NOT_CLINICAL
from medclip.data.dataset import Split
from medclip.encode.encoder import embed_images, embed_texts
from medclip.errors import UserError, WorkError
from medclip.search.curate import add, build_index, delete, restore, snapshot
from medclip.search.filters import where
from medclip.search.index import Index
from medclip.search.query import Query, SearchOptions, open_searcher, search, similar
from medclip.serve import gate, run
from medclip.serve.service import Settings
from medclip.zero_shot import classify
from support.served import opened, problem, service_of

WORDS = "CT of the left chest"
CLOSE = {"abs": 1e-5}  # float32, in batches of another shape


@pytest.fixture(scope="module")
def client(index_folder):
    with opened(index_folder) as client:
        yield client


@pytest.fixture(scope="module")
def searcher(index_folder):
    return open_searcher(index_folder)


@pytest.fixture(scope="module")
def rows(data):
    return Split(data, "validation")


def assert_same(told: dict, hits) -> None:
    assert [hit["id"] for hit in told["hits"]] == [hit.id for hit in hits]
    for said, hit in zip(told["hits"], hits, strict=True):
        assert said.pop("score") == pytest.approx(hit.score, **CLOSE)
        assert said.pop("thumbnail") == f"/thumbnails/{hit.id}"
        assert said.pop("copies") == list(hit.copies)
        assert said == {name: getattr(hit, name) for name in said}
        assert said.keys() == {"id", "caption", "article", "license", "attribution", "labels", "source", "added"}


@pytest.mark.parametrize(
    ("asked", "wanted", "ensemble"),
    [
        ({}, SearchOptions(), False),
        ({"k": 3, "one_per_article": True}, SearchOptions(3, one_per_article=True), False),
        ({"where": {"license": ["CC BY"], "added": ["2020-01-01.."]}, "k": 4},
         SearchOptions(4, where({"license": ["cc by"], "added": ["2020-01-01.."]})), False),
        ({"ensemble": True, "k": 5}, SearchOptions(5), True),
    ],
)  # fmt: skip
def test_words_find_what_the_search_finds(client, searcher, asked, wanted, ensemble):
    queries = [Query((WORDS,)), Query(("brain", "knee"), without=("chest",))]
    said = [{"texts": q.texts, "without": q.without} for q in queries]
    told = client.post("/search", json={"queries": said, **asked})
    assert told.status_code == 200
    for answer, hits in zip(told.json()["answers"], search(searcher, queries, wanted, ensemble), strict=True):
        assert_same(answer, hits)


def test_pictures_and_words_find_what_the_search_finds(client, searcher, rows):
    pictures = [rows.image(0), rows.image(5)]
    form = {"texts": ["knee"], "without": ["chest"], "k": 4, "where": ["license=CC BY"]}
    told = client.post("/search/image", data=form, files=[("images", ("x", picture)) for picture in pictures])
    query = Query(("knee",), tuple(pictures), ("chest",))
    assert_same(told.json(), search(searcher, [query], SearchOptions(4, where({"license": ["cc by"]})))[0])


def test_similar_leaves_itself_out(client, searcher, rows):
    id = rows.column("id")[3]
    assert_same(client.get(f"/similar/{id}", params={"k": 3}).json(), similar(searcher.index, id, SearchOptions(3)))


def test_classes_are_those_of_classify(client, model, rows):
    labels = ["CT of the chest", "MRI of the brain", "x-ray"]
    expected = classify(model, embed_images(model, [rows.image(2)]), labels)[0]
    uploaded = client.post("/classify", data={"labels": labels}, files={"image": rows.image(2)}).json()
    stored = client.post("/classify", data={"labels": labels, "id": rows.column("id")[2]}).json()
    for told in (uploaded, stored):
        assert [one["label"] for one in told["labels"]] == labels
        assert [one["probability"] for one in told["labels"]] == pytest.approx(expected.tolist(), abs=1e-4)
        assert told["best"] == labels[int(expected.argmax())]


def test_vectors_are_the_encoders(client, model, rows, index_folder):
    texts = [f"image {number}" for number in range(11)]
    told = client.post("/embed", json={"texts": texts}).json()
    assert np.array(told["vectors"]) == pytest.approx(embed_texts(model, texts), **CLOSE)
    assert told["model_sha256"] == Index(index_folder).contents.model_sha256
    pictures = [rows.image(row) for row in range(3)]
    told = client.post("/embed/image", files=[("images", picture) for picture in pictures]).json()
    assert np.array(told["vectors"]) == pytest.approx(embed_images(model, pictures), **CLOSE)
    assert told["dimensions"] == model.config.projection_dim


@pytest.mark.parametrize("lengths", [(8,), (16, 24), (12, 16, 24)])
def test_texts_without_their_padding_have_the_same_vectors(model, lengths):
    texts = ["CT", "MRI of the left knee", "a " * 40]
    for few in ([texts[0]], texts[:2], texts):
        assert embed_texts(model, few, lengths=lengths) == pytest.approx(embed_texts(model, few), **CLOSE)


def test_a_thumbnail_is_the_picture_and_never_larger(client, rows):
    id = rows.column("id")[0]
    whole = client.get(f"/thumbnails/{id}")
    assert whole.headers["content-type"] == "image/jpeg" and whole.content == rows.image(0)
    small = Image.open(io.BytesIO(client.get(f"/thumbnails/{id}", params={"side": 24}).content))
    assert max(small.size) == 24
    assert abs(np.asarray(small).mean() - np.asarray(Image.open(io.BytesIO(rows.image(0)))).mean()) < 2


def test_facets_about_health_and_readiness(client, searcher):
    assert client.get("/facets").json() == {"pictures": 12, "facets": searcher.index.counts}
    about = client.get("/").json()
    assert (about["pictures"], about["synthetic"], about["notice"]) == (12, False, NOT_CLINICAL)
    assert client.get("/health").json() == client.get("/ready").json() == {"status": "ok"}


def test_the_notice_is_everywhere(client):
    assert NOT_CLINICAL in client.get("/openapi.json").json()["info"]["description"]
    for path in ("/", "/nowhere", "/health", "/thumbnails/none"):
        assert client.get(path).headers["x-notice"] == NOT_CLINICAL


def test_metrics_count_and_hold_no_words(client):
    client.post("/search", json={"queries": [{"texts": ["a very private tumour"]}]})
    client.get("/similar/a-very-private-id")
    told = client.get("/metrics").text
    assert 'medclip_requests_total{route="/search",status="200"}' in told
    assert 'medclip_requests_total{route="/similar/{id:path}",status="404"}' in told
    assert "medclip_batch_size_bucket" in told and "medclip_pictures 12.0" in told
    assert "private" not in told


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"queries": [{"texts": ["  "]}]}, "the query is empty"),
        ({"queries": []}, "queries: List should have at least 1 item"),
        ({"queries": [{"texts": ["a"], "words": 1}]}, "words: Extra inputs"),
        ({"queries": [{"texts": ["a"]}], "k": 0}, "k: Input should be greater than"),
        ({"queries": [{"texts": ["a"]}], "k": 101}, "k: Input should be less than"),
        ({"queries": [{"texts": ["a" * 1001]}]}, "at most 1000 characters"),
        ({"queries": [{"texts": ["a"] * 20}] * 2}, "more than 32 texts"),
        ({"queries": [{"texts": ["a"]}], "where": {"planet": ["mars"]}}, "no image of the index has 'planet'"),
        ({"queries": [{"texts": ["a"]}], "where": {"added": ["soon"]}}, "is no day"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(client, body, sentence):
    answer = client.post("/search", json=body)
    assert answer.status_code == 422 and sentence in problem(answer)


def test_what_is_not_there_is_404(client):
    for path in ("/similar/none", "/thumbnails/none", "/nowhere", "/docs", "/search/"):
        assert client.get(path).status_code == 404
        problem(client.get(path))
    assert client.post("/classify", data={"labels": ["a", "b"], "id": "none"}).status_code == 404
    assert client.put("/search").status_code == 405


def test_classify_takes_one_picture(client, rows):
    for said in ({}, {"id": rows.column("id")[0]}):
        files = {"image": rows.image(0)} if said else None
        answer = client.post("/classify", data={"labels": ["a", "b"], **said}, files=files)
        assert answer.status_code == 422 and "one of both" in problem(answer)


def test_a_key_opens_everything_but_health(index_folder):
    keys = [b"0123456789abcdef", "schlüssel-schlüssel".encode()]
    with opened(index_folder, keys) as client:
        assert client.get("/health").status_code == client.get("/ready").status_code == 200
        for headers in ({}, {"X-API-Key": "0123456789abcdeX"}, {"X-API-Key": ""}, {"Authorization": "Bearer"},
                        {"Authorization": "Basic 0123456789abcdef"}, {"X-API-Key": "ÿ" * 16}):  # fmt: skip
            headers = {name: value.encode("latin-1") for name, value in headers.items()}
            for path in ("/", "/metrics", "/openapi.json", "/nowhere", "/facets", "/health/"):
                answer = client.get(path, headers=headers)
                assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
        for headers in ({"X-API-Key": keys[0]}, {"X-API-Key": keys[1]}, {"Authorization": b"bearer " + keys[0]}):
            assert client.get("/", headers=headers).status_code == 200
        schemes = client.get("/openapi.json", headers={"X-API-Key": keys[0]}).json()["components"]["securitySchemes"]
        assert {scheme["type"] for scheme in schemes.values()} == {"apiKey", "http"}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [("", "holds no key"), ("short", "at least 16 characters"), (None, "cannot be read"), (b"\xff\xfe", "cannot be")],
)
def test_a_file_without_keys_is_refused(tmp_path, content, sentence):
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=sentence):
        gate.read_keys(file)


def test_keys_come_from_a_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDCLIP_API_KEY", "of-the-environment")
    assert gate.read_keys(None) == [b"of-the-environment"]
    (tmp_path / "keys").write_text("the-first-of-two-keys\nthe-second-of-two-keys\n")
    assert gate.read_keys(tmp_path / "keys") == [b"the-first-of-two-keys", b"the-second-of-two-keys"]


def test_queries_are_logged_only_when_asked(client, index_folder, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "medclip.serve")
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # of the client, which tells what it asks
    body = {"queries": [{"texts": ["Mrs Secret\nforged line"]}]}
    client.post("/search", json=body)
    client.get("/similar/Secret?k=1")
    client.get("/Secret")
    assert "Secret" not in caplog.text and "/similar/{id:path} 404" in caplog.text
    monkeypatch.setattr(service_of(client), "settings", Settings(index_folder, log_queries=True))
    client.post("/search", json=body)
    assert json.dumps("Mrs Secret\nforged line") in caplog.text


def test_a_changed_index_answers_as_it_is(run, data, tmp_path):
    build_index(run, data, tmp_path / "index", limit=6)
    body = {"queries": [{"texts": [WORDS]}], "k": 100}
    with opened(tmp_path / "index") as client:
        ids = [hit["id"] for hit in client.post("/search", json=body).json()["answers"][0]["hits"]]
        snapshot(tmp_path / "index", "before")
        delete(tmp_path / "index", [ids[0]])
        left = [hit["id"] for hit in client.post("/search", json=body).json()["answers"][0]["hits"]]
        assert left == ids[1:]
        assert client.get(f"/thumbnails/{ids[0]}").status_code == client.get(f"/similar/{ids[0]}").status_code == 404
        assert client.get("/facets").json()["pictures"] == 5
        add(tmp_path / "index", data, None, None, None)
        assert len(client.post("/search", json=body).json()["answers"][0]["hits"]) == 12
        restore(tmp_path / "index", "before")
        assert [hit["id"] for hit in client.post("/search", json=body).json()["answers"][0]["hits"]] == ids
        (tmp_path / "index" / "index.json").write_text("{")
        for answer in (client.post("/search", json=body), client.get("/ready")):
            assert answer.status_code == 503 and answer.headers["retry-after"]
            assert str(tmp_path) not in problem(answer)
        assert client.get("/health").status_code == 200


@pytest.fixture
def held(client, monkeypatch):
    """Lets /similar wait until it is told to go on."""
    release = threading.Event()
    monkeypatch.setattr(service_of(client), "similar", lambda *_: release.wait(20) and [])
    yield release
    release.set()


def test_too_many_at_once_are_told_to_come_again(client, held, monkeypatch):
    monkeypatch.setattr(gate, "IN_FLIGHT", 2)
    waiting = [threading.Thread(target=client.get, args=("/similar/x",)) for _ in range(2)]
    for one in waiting:
        one.start()
    while client.app._in_flight < 2:
        time.sleep(0.01)
    answer = client.get("/")
    assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
    assert client.get("/health").status_code == 200
    held.set()
    for one in waiting:
        one.join()
    assert client.get("/").status_code == 200


@pytest.mark.parametrize(
    ("failure", "code"),
    [(UserError("milvus://secret:19530 does not answer"), 503), (TimeoutError(), 504), (WorkError("secret"), 503)],
)
def test_a_store_that_fails_is_no_fault_of_who_asks(client, monkeypatch, failure, code):
    def fail(*_):
        raise failure

    monkeypatch.setattr(service_of(client).searcher().index.store.store, "candidates", fail)
    for answer in (client.get("/ready"), client.post("/search", json={"queries": [{"texts": [WORDS]}]})):
        assert answer.status_code == code and answer.headers["retry-after"] == "5"
        assert "secret" not in problem(answer)


def test_what_takes_too_long_is_given_up(client, held, monkeypatch):
    monkeypatch.setattr(gate, "REQUEST_S", 0.2)
    answer = client.get("/similar/x")
    assert answer.status_code == 504 and "0.2 seconds" in problem(answer)


def test_a_fault_of_ours_shows_nothing_of_itself(client, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("/srv/secret/path and a query")

    monkeypatch.setattr(service_of(client), "similar", fail)
    answer = client.get("/similar/x")
    assert answer.status_code == 500 and "secret" not in problem(answer) + caplog.text
    assert "RuntimeError at test_api.py" in caplog.text


def test_what_cannot_be_served_is_one_sentence(medclip, index_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "_run", lambda *_: pytest.fail("it was served"))
    monkeypatch.setenv("MEDCLIP_SERVE", "")  # put back at the end
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, _, said = medclip("serve", "--index", index_folder, "--port", port)
    assert code == 1 and "cannot be listened on" in said
    for flags, sentence in (
        (("--index", tmp_path), "is not an index"),
        (("--index", index_folder, "--workers", "0"), "--workers must be at least 1"),
        (("--index", index_folder, "--model", tmp_path), "is not a model folder"),
        (("--index", index_folder, "--api-key-file", tmp_path / "none"), "cannot be read"),
    ):
        code, _, said = medclip("serve", *flags)
        assert code == 2 and sentence in said and "Traceback" not in said
    monkeypatch.setattr(run, "NEEDED", ("a_library_that_nobody_has",))
    code, _, said = medclip("serve", "--index", index_folder)
    assert code == 2 and "pip install 'medclip[serve]'" in said


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True)])
def test_an_open_address_without_a_key_is_warned_of(medclip, index_folder, monkeypatch, host, warned):
    monkeypatch.setattr(run, "_run", lambda *_: None)
    monkeypatch.setenv("MEDCLIP_SERVE", "")
    code, _, said = medclip("serve", "--index", index_folder, "--host", host, "--port", "0")
    assert code == 0 and ("give --api-key-file" in said) == warned
    monkeypatch.setenv("MEDCLIP_API_KEY", "a key of sixteen".replace(" ", "-"))
    assert "give --api-key-file" not in medclip("serve", "--index", index_folder, "--host", host, "--port", "0")[2]
