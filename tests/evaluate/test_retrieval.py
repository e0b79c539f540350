"""A retrieval evaluation measures every pair both ways and records what it measured."""

import json

import numpy as np
import pyarrow as pa
import pytest

from medclip.data.dataset import Split, write_shard
from medclip.encode.encoder import embed_images, embed_texts
from medclip.errors import UserError
from medclip.evaluate.config import EvalConfig
from medclip.evaluate.results import read_results
from medclip.evaluate.retrieval import evaluate_retrieval
from medclip.metrics import WAYS, rank_metrics, ranks, recall_at_k
from medclip.model.checkpoint import model_hash


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluated")


@pytest.fixture(scope="module")
def results(run, data, out):
    said = evaluate_retrieval(EvalConfig(model=str(run), data=str(data), out=out))
    return said, json.loads((out / "results.json").read_text(encoding="utf-8"))


def test_what_is_returned_is_what_is_written(results):
    assert results[0] == results[1]


def test_the_rank_of_every_pair_is_kept(results, out, data):
    said, items = read_results(out, "retrieval")
    assert said == results[0]
    assert items.column("id").to_pylist() == Split(data, "validation").column("id")
    found = items.column("rank_text_to_image").to_numpy()
    assert said["text_to_image"]["R@5"]["value"] == recall_at_k(found, 5)


def test_the_record_names_pool_model_and_data(results, run, roco):
    said = results[0]
    assert (said["pool"], said["split"], said["seed"]) == (12, "validation", 0)
    assert (said["model"], said["data"]) == (model_hash(run), roco.folder.name)


def test_both_directions_are_what_the_vectors_say(results, model, data):
    rows = Split(data, "validation")
    images = embed_images(model, [rows.image(i) for i in range(12)])
    texts = embed_texts(model, rows.column("caption"))
    for way, found in zip(WAYS, ranks(images, texts), strict=True):
        for k in (1, 5, 10):
            assert results[0][way][f"R@{k}"]["value"] == recall_at_k(found, k)


def test_limit_makes_the_pool_smaller(run, data):
    assert evaluate_retrieval(EvalConfig(model=str(run), data=str(data), max_samples=5))["pool"] == 5


def test_a_model_that_is_not_there_is_refused_by_a_sentence(tmp_path, data):
    with pytest.raises(UserError, match="is not a model folder"):
        evaluate_retrieval(EvalConfig(model=str(tmp_path), data=str(data)))


@pytest.fixture(scope="module")
def vectors(model, data, tmp_path_factory):
    """The model's own vectors of the split, of other lengths than 1, in files."""
    rows, at = Split(data, "validation"), tmp_path_factory.mktemp("vectors")
    np.save(at / "i.npy", 3 * embed_images(model, [rows.image(i) for i in range(12)]))
    np.save(at / "t.npy", embed_texts(model, rows.column("caption")).astype(np.float64) / 7)
    return at / "i.npy", at / "t.npy"


def figures(said):
    """Everything but what says where it comes from."""
    of_model = ("model", "saw_source", "saw_source_why", "vectors")
    return {name: value for name, value in said.items() if name not in of_model}


def test_vectors_made_elsewhere_are_measured_by_the_same_code(results, vectors, data, tmp_path):
    said = evaluate_retrieval(EvalConfig(model="", data=str(data), out=tmp_path), vectors)
    assert figures(said) == figures(results[0])
    assert (said["model"], said["saw_source"]) == (None, "unknown")
    assert [len(digest) for digest in said["vectors"]] == [64, 64]
    assert json.loads((tmp_path / "results.json").read_text()) == said


def test_the_first_vectors_belong_to_the_first_pairs(vectors, run, data):
    limited = evaluate_retrieval(EvalConfig(model="", data=str(data), max_samples=5), vectors)
    assert figures(limited) == figures(evaluate_retrieval(EvalConfig(model=str(run), data=str(data), max_samples=5)))


def test_vectors_of_another_split_are_refused(vectors, data):
    with pytest.raises(UserError, match=r"i\.npy has 12 rows and the split 25 pairs"):
        evaluate_retrieval(EvalConfig(model="", data=str(data), split="train"), vectors)


def test_every_column_of_items_gives_its_figures_again(results, out):
    items = read_results(out, "retrieval")[1]
    for name in items.column_names[2:]:
        own = items.column(name).to_numpy()
        own, said = own[~np.isnan(own)], results[0]
        for part in name.removeprefix("rank_").split(" / "):
            said = said[part]
        if name.startswith("rank_"):
            made = rank_metrics(own)
            assert made == pytest.approx({n: said[n]["value"] for n in made}), name
        else:
            assert own.mean() == pytest.approx(said["value"]), name
    assert len(items.column_names) == 2 + 6 + 4


def test_other_pools_and_measures_stand_beside(results):
    said = results[0]
    assert said["article_disjoint"]["pool"] == 11  # two images an article
    assert said["duplicate_aware"]["image_to_text"]["pool"] == 12
    assert said["concepts"]["queries"] == 12
    assert said["chance"]["R@5"] == pytest.approx(5 / 12)
    assert said["by_group"] == {}  # twelve pairs are too few for any


def test_a_repeated_caption_is_one(run, data, copy):
    other = edited(copy(data), lambda row, i: {"caption": "CT of the chest" if i < 3 else row["caption"]})
    said = evaluate_retrieval(EvalConfig(model=str(run), data=str(other)))
    assert said["duplicate_aware"]["image_to_text"]["pool"] == said["duplicate_aware"]["text_to_image"]["queries"] == 10
    assert said["duplicate_aware"]["image_to_text"]["queries"] == 12
    # Twelve images, of which three are right for one caption of ten.
    assert said["duplicate_aware"]["text_to_image"]["chance"]["R@1"] == pytest.approx((9 / 12 + 3 / 12) / 10)


def test_without_concepts_nothing_is_graded(run, data, copy, tmp_path):
    other = edited(copy(data), lambda row, i: {"concepts": []})
    assert "concepts" not in evaluate_retrieval(EvalConfig(model=str(run), data=str(other), out=tmp_path))
    assert not [name for name in read_results(tmp_path, "retrieval")[1].column_names if "concepts" in name]


def edited(folder, change):
    """The folder, rows of its validation split changed."""
    (shard,) = folder.glob("validation-*.arrow")
    with pa.OSFile(str(shard)) as source:
        rows = pa.ipc.open_file(source).read_all().to_pylist()
    write_shard(shard, [row | change(row, i) for i, row in enumerate(rows)], {})
    return folder


def test_fixed_pools_are_measured_where_asked_for(run, data):
    said = evaluate_retrieval(EvalConfig(model=str(run), data=str(data)), pool=6, draws=3)["fixed_pool"]
    assert (said["pool"], said["draws"], said["chance"]["R@1"]) == (6, 3, pytest.approx(1 / 6))
    assert len(said["text_to_image"]["MRR"]["draws"]) == 3
    with pytest.raises(UserError, match="--num-candidates 13 is more than the 12 pairs"):
        evaluate_retrieval(EvalConfig(model=str(run), data=str(data)), pool=13)
