"""A retrieval evaluation measures every pair both ways and records what it measured."""

import json

import pytest

from medclip.data.shards import Split
from medclip.encoder import embed_images, embed_texts
from medclip.errors import UserError
from medclip.evaluate.metrics import ranks, recall_at
from medclip.evaluate.retrieval import evaluate_retrieval
from medclip.model.hub import model_hash


@pytest.fixture(scope="module")
def results(run, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluated")
    return evaluate_retrieval(run, data, out=out), json.loads((out / "results.json").read_text(encoding="utf-8"))


def test_what_is_returned_is_what_is_written(results):
    assert results[0] == results[1]


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
    assert evaluate_retrieval(run, data, limit=5)["pool"] == 5


def test_a_model_that_is_not_there_is_refused_by_a_sentence(tmp_path, data):
    with pytest.raises(UserError, match="is no model folder"):
        evaluate_retrieval(tmp_path, data)
