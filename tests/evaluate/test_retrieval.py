"""A retrieval evaluation measures every pair both ways and records what it measured."""

import json

import pytest

from medclip.data.shards import Split
from medclip.encoder import embed_images, embed_texts
from medclip.errors import UserError
from medclip.evaluate.metrics import ranks, recall_at
from medclip.evaluate.results import read_results
from medclip.evaluate.retrieval import evaluate_retrieval
from medclip.evaluate.subject import Subject
from medclip.model.hub import model_hash


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluated")


@pytest.fixture(scope="module")
def results(run, data, out):
    said = evaluate_retrieval(Subject(model=str(run), data=str(data), out=out))
    return said, json.loads((out / "results.json").read_text(encoding="utf-8"))


def test_what_is_returned_is_what_is_written(results):
    assert results[0] == results[1]


def test_the_rank_of_every_pair_is_kept(results, out, data):
    said, items = read_results(out, "retrieval")
    assert said == results[0]
    assert items.column("id").to_pylist() == Split(data, "validation").column("id")
    found = items.column("rank_text_to_image").to_numpy()
    assert said["text_to_image"]["R@5"]["value"] == recall_at(found, 5)


def test_the_record_names_pool_model_and_data(results, run, roco):
    said = results[0]
    assert (said["pool"], said["split"], said["seed"]) == (12, "validation", 0)
    assert (said["model"], said["data"]) == (model_hash(run), roco.folder.name)


def test_both_directions_are_what_the_vectors_say(results, model, data):
    rows = Split(data, "validation")
    images = embed_images(model, [rows.image(i) for i in range(12)])
    texts = embed_texts(model, rows.column("caption"))
    for way, found in (("image_to_text", ranks(images, texts)), ("text_to_image", ranks(texts, images))):
        for k in (1, 5, 10):
            assert results[0][way][f"R@{k}"]["value"] == recall_at(found, k)


def test_limit_makes_the_pool_smaller(run, data):
    assert evaluate_retrieval(Subject(model=str(run), data=str(data), limit=5))["pool"] == 5


def test_a_model_that_is_not_there_is_refused_by_a_sentence(tmp_path, data):
    with pytest.raises(UserError, match="is no model folder"):
        evaluate_retrieval(Subject(model=str(tmp_path), data=str(data)))
