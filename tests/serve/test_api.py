"""The API gives what the search gives, one endpoint after another."""

import io
import json
import logging
import os

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from medclip import NOT_CLINICAL
from medclip.data.dataset import Split
from medclip.encode.encoder import embed_images, embed_texts
from medclip.saliency import overlay_saliency, saliency_map
from medclip.search.curate import add, build_index, delete, restore, snapshot
from medclip.search.filters import make_filter
from medclip.search.index import Index
from medclip.search.query import Query, SearchOptions, similar
from medclip.search.reader import IndexReader
from medclip.serve.service import Settings
from medclip.zero_shot import classify
from support.material import draw_image, image_bytes
from support.served import error_sentence, open_client, service_of

TEXT = "CT of the left chest"
CLOSE = {"abs": 1e-5}  # float32, in batches of another shape


@pytest.fixture(scope="module")
def client(index_folder):
    with open_client(index_folder) as client:
        yield client


@pytest.fixture(scope="module")
def index(index_folder):
    return Index.open(index_folder)


@pytest.fixture(scope="module")
def split(data):
    return Split(data, "validation")


def assert_same(result: dict, hits) -> None:
    assert [hit["id"] for hit in result["hits"]] == [hit.id for hit in hits]
    for fields, hit in zip(result["hits"], hits, strict=True):
        assert fields.pop("score") == pytest.approx(hit.score, **CLOSE)
        assert fields.pop("thumbnail") == f"/thumbnails/{hit.id}?sha256={hit.sha256}"
        assert fields.pop("duplicates") == list(hit.duplicates)
        assert fields == {name: getattr(hit, name) for name in fields}
        names = {"id", "sha256", "caption", "article", "license", "attribution", "labels", "source", "added"}
        assert fields.keys() == names


def assert_same_match(result: dict, expected) -> None:
    if expected.probabilities is None:
        assert result["probabilities"] is None
    else:
        assert result["probabilities"] == pytest.approx(expected.probabilities, abs=1e-3)
    assert (result["no_match"], result["note"]) == (expected.no_match, expected.note)


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({}, SearchOptions()),
        ({"k": 3, "group_by": "article"}, SearchOptions(3, group_by="article")),
        ({"filter": {"license": ["CC BY"], "added": ["2020-01-01.."]}, "k": 4},
         SearchOptions(4, make_filter({"license": ["cc by"], "added": ["2020-01-01.."]}))),
    ],
)  # fmt: skip
def test_texts_give_the_hits_of_the_search(client, index, fields, options):
    queries = [Query((TEXT,)), Query(("brain", "knee"), negative_texts=("chest",))]
    body = {"queries": [{"texts": q.texts, "negative_texts": q.negative_texts} for q in queries], **fields}
    response = client.post("/search", json=body)
    assert response.status_code == 200
    for result, expected in zip(response.json()["results"], index.answer(queries, options), strict=True):
        assert_same(result, expected.hits)
        assert_same_match(result, expected)


def test_images_and_texts_give_the_hits_of_the_search(client, index, split):
    images = [split.image(0), split.image(5)]
    form = {"texts": ["knee"], "negative_texts": ["chest"], "k": 4, "filter": ["license=CC BY"]}
    response = client.post("/search/image", data=form, files=[("images", ("x", image)) for image in images])
    query = Query(("knee",), tuple(images), ("chest",))
    assert_same(response.json(), index.search_many([query], SearchOptions(4, make_filter({"license": ["cc by"]})))[0])


def test_similar_leaves_itself_out(client, index, split):
    id = split.column("id")[3]
    result = client.get(f"/similar/{id}", params={"k": 3}).json()
    assert_same(result, similar(index.reader, *index.reader.find_rows(id), SearchOptions(3)))
    assert (result["probabilities"], result["no_match"]) == (None, None)
    assert result["note"] == "No probability: only searches by a single text are calibrated."


def test_the_service_says_how_good_its_model_is_on_its_own_validation(client, index):
    recall = index.calibration.recall_at_10
    assert client.get("/").json()["validation"] == {
        "recall_at_10": recall.value,
        "low": recall.low,
        "high": recall.high,
        "chance": pytest.approx(10 / 12),
        "num_images": 12,
        "num_captions": 12,
        "near_chance": True,
        "false_no_match_rate": 0.05,
        "withheld": [],
    }


def test_without_a_calibration_the_service_says_why(index_folder, run, copy):
    model = copy(run / "model")
    (model / "calibration.json").unlink()
    with open_client(index_folder, model=model) as client:
        assert client.get("/").json()["validation"] is None
        (result,) = client.post("/search", json={"queries": [{"texts": [TEXT]}], "k": 2}).json()["results"]
    assert (result["probabilities"], result["no_match"], len(result["hits"])) == (None, None, 2)
    assert result["note"] == "No probability: the model has no calibration.json, which medclip train writes at its end."


def test_probabilities_are_those_of_classify(client, model, split):
    labels = ["CT of the chest", "MRI of the brain", "x-ray"]
    expected = classify(model, embed_images(model, [split.image(2)]), labels)[0]
    uploaded = client.post("/classify", data={"labels": labels}, files={"image": split.image(2)}).json()
    stored = client.post("/classify", data={"labels": labels, "id": split.column("id")[2]}).json()
    for body in (uploaded, stored):
        assert [score["label"] for score in body["scores"]] == labels
        assert [score["probability"] for score in body["scores"]] == pytest.approx(expected.tolist(), abs=1e-4)
        assert body["best"] == labels[int(expected.argmax())]


def test_a_classification_is_of_one_state_of_the_index(client, split, monkeypatch):
    states = iter([service_of(client).index()])  # the next one may be of another model
    monkeypatch.setattr(service_of(client), "index", lambda: next(states))
    assert client.post("/classify", data={"labels": ["CT", "x-ray"], "id": split.column("id")[2]}).status_code == 200


def test_an_explanation_is_the_image_with_the_models_saliency_over_it(client, model, split):
    content, id = split.image(2), split.column("id")[2]
    image = Image.open(io.BytesIO(content)).convert("RGB")
    expected = overlay_saliency(image, saliency_map(model, image, TEXT))
    for form, files in (({}, {"image": content}), ({"id": id}, None)):
        response = client.post("/explain", data={"text": TEXT, **form}, files=files)
        assert (response.status_code, response.headers["content-type"]) == (200, "image/jpeg")
        overlay = Image.open(io.BytesIO(response.content))
        assert overlay.size == image.size
        to_expected, to_bare = (np.abs(np.asarray(overlay, float) - other).mean() for other in (expected, image))
        assert to_expected < to_bare / 2  # JPEG changes a little


def test_embeddings_are_the_encoders(client, model, split, index_folder):
    texts = [f"image {number}" for number in range(11)]
    body = client.post("/embed", json={"texts": texts}).json()
    assert np.array(body["embeddings"]) == pytest.approx(embed_texts(model, texts), **CLOSE)
    assert body["model_sha256"] == IndexReader(index_folder).manifest.model_sha256
    images = [split.image(row) for row in range(3)]
    body = client.post("/embed/image", files=[("images", image) for image in images]).json()
    assert np.array(body["embeddings"]) == pytest.approx(embed_images(model, images), **CLOSE)
    assert body["embedding_dim"] == model.config.projection_dim


@pytest.mark.parametrize("lengths", [(8,), (16, 24), (12, 16, 24)])
def test_texts_without_their_padding_have_the_same_embeddings(model, lengths):
    texts = ["CT", "MRI of the left knee", "a " * 40]
    for few in ([texts[0]], texts[:2], texts):
        assert embed_texts(model, few, lengths=lengths) == pytest.approx(embed_texts(model, few), **CLOSE)


def test_a_thumbnail_is_the_image_and_never_larger(client, split):
    id = split.column("id")[0]
    whole = client.get(f"/thumbnails/{id}")
    assert whole.headers["content-type"] == "image/jpeg" and whole.content == split.image(0)
    small = Image.open(io.BytesIO(client.get(f"/thumbnails/{id}", params={"side": 24}).content))
    assert max(small.size) == 24
    assert abs(np.asarray(small).mean() - np.asarray(Image.open(io.BytesIO(split.image(0)))).mean()) < 2


def test_images_of_one_id_are_told_apart_by_their_hash(client, monkeypatch):
    """Two datasets may number their images: that of a hit is its own, and never another's of the same number."""
    reader = service_of(client).index().reader
    ids = pa.array(["1"] * len(reader.table))
    monkeypatch.setattr(reader, "table", reader.table.set_column(0, reader.table.field("id"), ids))
    (result,) = client.post("/search", json={"queries": [{"texts": [TEXT]}], "k": 12}).json()["results"]
    rows = {reader.sha256(row): row for row in range(len(reader))}
    assert {hit["id"] for hit in result["hits"]} == {"1"} and len(result["hits"]) == len(rows) == 12
    question = {"labels": ["chest", "knee"], "id": "1"}
    for hit in result["hits"]:
        image, form = reader.image(rows[hit["sha256"]]), {"sha256": hit["sha256"]}
        assert client.get(hit["thumbnail"]).content == image
        others = client.get("/similar/1", params=form | {"k": 12}).json()["hits"]
        assert {other["sha256"] for other in others} == rows.keys() - {hit["sha256"]}
        stored = client.post("/classify", data=question | form).json()
        uploaded = client.post("/classify", data={"labels": question["labels"]}, files={"image": image}).json()
        assert stored["scores"][0]["probability"] == pytest.approx(uploaded["scores"][0]["probability"], abs=1e-4)
    answers = [client.get("/thumbnails/1"), client.get("/similar/1"), client.post("/classify", data=question)]
    for response in (*answers, client.post("/explain", data={"text": "chest", "id": "1"})):
        assert response.status_code == 422 and "12 images of the index have that id" in error_sentence(response)
    assert client.get("/thumbnails/1", params={"sha256": "0" * 64}).status_code == 404


def test_facets_info_health_and_readiness(client, index):
    assert client.get("/facets").json() == {"num_images": 12, "facets": index.reader.value_counts}
    info = client.get("/").json()
    assert (info["num_images"], info["synthetic"], info["notice"]) == (12, False, NOT_CLINICAL)
    assert client.get("/health").json() == client.get("/ready").json() == {"status": "ok"}


def test_the_notice_is_everywhere(client):
    assert NOT_CLINICAL in client.get("/openapi.json").json()["info"]["description"]
    for path in ("/", "/nowhere", "/health", "/thumbnails/none"):
        assert client.get(path).headers["x-notice"] == NOT_CLINICAL


def test_metrics_count_and_hold_no_words(index_folder):
    """Of an index of its own: the process counts for all, and the number of images is of the last that was opened."""
    with open_client(index_folder) as client:
        client.post("/search", json={"queries": [{"texts": ["a very private tumour"]}]})
        client.get("/similar/a-very-private-id")
        metrics = client.get("/metrics").text
    assert 'medclip_requests_total{route="/search",status="200"}' in metrics
    assert 'medclip_requests_total{route="/similar/{id:path}",status="404"}' in metrics
    assert "medclip_batch_size_bucket" in metrics and "medclip_index_images 12.0" in metrics
    assert "private" not in metrics


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
        ({"queries": [{"texts": ["a"]}], "filter": {"planet": ["mars"]}}, "no image of the index has 'planet'"),
        ({"queries": [{"texts": ["a"]}], "filter": {"added": ["soon"]}}, "is not a day"),
    ],
)
def test_an_invalid_request_gives_one_sentence(client, body, sentence):
    response = client.post("/search", json=body)
    assert response.status_code == 422 and sentence in error_sentence(response)


def test_what_is_absent_is_404(client):
    for path in ("/similar/none", "/thumbnails/none", "/nowhere", "/redoc", "/search/"):
        assert client.get(path).status_code == 404
        error_sentence(client.get(path))
    assert client.post("/classify", data={"labels": ["a", "b"], "id": "none"}).status_code == 404
    assert client.post("/explain", data={"text": "a", "id": "none"}).status_code == 404
    assert client.put("/search").status_code == 405


@pytest.mark.parametrize(("path", "question"), [("/classify", {"labels": ["a", "b"]}), ("/explain", {"text": "a"})])
def test_a_question_takes_one_image(client, split, path, question):
    for form in ({}, {"id": split.column("id")[0]}, {"sha256": "0" * 64}):
        files = {"image": split.image(0)} if form else None
        response = client.post(path, data={**question, **form}, files=files)
        assert response.status_code == 422 and "give either an image or the id" in error_sentence(response)


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
    build_index(run, data, tmp_path / "index", max_samples=6)
    body = {"queries": [{"texts": [TEXT]}], "k": 100}
    with open_client(tmp_path / "index") as client:
        ids = [hit["id"] for hit in client.post("/search", json=body).json()["results"][0]["hits"]]
        snapshot(tmp_path / "index", "before")
        delete(tmp_path / "index", [ids[0]])
        left = [hit["id"] for hit in client.post("/search", json=body).json()["results"][0]["hits"]]
        assert left == ids[1:]
        assert client.get(f"/thumbnails/{ids[0]}").status_code == client.get(f"/similar/{ids[0]}").status_code == 404
        assert client.get("/facets").json()["num_images"] == 5
        add(tmp_path / "index", data, None, None, None)
        assert len(client.post("/search", json=body).json()["results"][0]["hits"]) == 12
        restore(tmp_path / "index", "before")
        assert [hit["id"] for hit in client.post("/search", json=body).json()["results"][0]["hits"]] == ids
        rows = tmp_path / "index" / "segments" / "00000" / "rows.arrow"
        content = rows.read_bytes()
        os.truncate(rows, 100)  # of what is mapped: to read it would end the process (SIGBUS)
        for response in (client.post("/search", json=body), client.get(f"/thumbnails/{ids[0]}")):
            assert response.status_code == 503 and str(tmp_path) not in error_sentence(response)
        rows.write_bytes(content)
        assert client.post("/search", json=body).status_code == client.get(f"/thumbnails/{ids[0]}").status_code == 200
        (tmp_path / "index" / "index.json").write_text("{")
        for response in (client.post("/search", json=body), client.get("/ready")):
            assert response.status_code == 503 and response.headers["retry-after"]
            assert str(tmp_path) not in error_sentence(response)
        assert client.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "form", "known"),
    [
        ("GET", "/similar/x?filters=modality%3Dct", None, "filter, group_by, k, sha256"),
        ("GET", "/thumbnails/x?size=64", None, "sha256, side"),
        ("GET", "/facets?k=3", None, "none"),
        ("POST", "/search?k=3", None, "none in the query"),
        ("POST", "/search/image", {"filters": "modality=ct"}, "filter, group_by, images, k, negative_texts, texts"),
        ("POST", "/classify", {"labels": ["a", "b"], "ids": "x"}, "id, image, labels, sha256"),
    ],
)
def test_a_misspelled_name_is_an_error_and_no_default(client, method, path, form, known):
    files = [("images" if "search" in path else "image", ("x", image_bytes(draw_image(1))))] if form else None
    json = None if form or method == "GET" else {"queries": [{"texts": ["x"]}]}
    response = client.request(method, path, data=form, files=files, json=json)
    assert response.status_code == 422 and known in error_sentence(response)


def test_a_probe_may_add_what_it_likes(client):
    assert client.get("/health?probe=1").status_code == 200
