"""A retrieval evaluation measures every pair in both directions and records what it measured."""

import json
import math
import shutil
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from medclip.atomic_io import sha256, write_with_checksum
from medclip.data.dataset import Split
from medclip.data.prepare import prepare
from medclip.encode.encoder import embed_images, embed_texts
from medclip.errors import UserError
from medclip.evaluation.compare import compare
from medclip.evaluation.config import EvalConfig
from medclip.evaluation.results import Kind, Results, read_results
from medclip.evaluation.retrieval import evaluate_retrieval
from medclip.metrics import DIRECTIONS, rank_metrics, ranks, recall_at_k
from medclip.model.checkpoint import model_hash
from medclip.named_metrics import name_parts
from support.handmade_datasets import change_rows
from support.material import draw_image


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluated")


@pytest.fixture(scope="module")
def results(run, data, out):
    return evaluate_retrieval(EvalConfig(model=str(run), data=str(data), out=out))


def test_what_is_returned_is_what_is_written(results, out):
    assert read_results(out, Kind.RETRIEVAL)[0] == results


def test_the_file_keeps_its_contract(results, out, run, roco):
    document = json.loads((out / "retrieval.json").read_text(encoding="utf-8"))
    assert (document["num_candidates"], document["split"], document["seed"]) == (12, "validation", 0)
    assert (document["model"], document["data"]) == (model_hash(run), roco.folder.name)
    for direction in DIRECTIONS:
        assert {"R@1", "R@5", "R@10", "median_rank"} <= document[direction].keys()
        leaf = document[direction]["R@10"]
        metric = results[f"{direction}/R@10"]
        assert (leaf["value"], leaf["low"], leaf["high"]) == (metric.value, metric.low, metric.high)
        assert (leaf["column"], leaf["statistic"]) == (f"{direction}/rank", "R@10")


def test_the_rank_of_every_pair_is_kept(results, out, data):
    _, items = read_results(out, Kind.RETRIEVAL)
    assert items.column("id").to_pylist() == Split(data, "validation").column("id")
    own = items.column("text_to_image/rank").to_numpy()
    assert results["text_to_image/R@5"].value == recall_at_k(own, 5)


def test_both_directions_are_what_the_embeddings_give(results, model, data):
    rows = Split(data, "validation")
    images = embed_images(model, [rows.image(i) for i in range(12)])
    texts = embed_texts(model, rows.column("caption"))
    for direction, own in zip(DIRECTIONS, ranks(images, texts), strict=True):
        for k in (1, 5, 10):
            assert results[f"{direction}/R@{k}"].value == recall_at_k(own, k)


def test_max_samples_makes_candidates_fewer(run, data):
    results = evaluate_retrieval(EvalConfig(model=str(run), data=str(data), max_samples=5))
    assert results.facts["num_candidates"] == 5
    with pytest.raises(UserError, match="max_samples at least 1"):
        EvalConfig(max_samples=0)


def test_a_model_that_does_not_exist_is_refused_by_a_sentence(tmp_path, data):
    with pytest.raises(UserError, match="model folder"):
        evaluate_retrieval(EvalConfig(model=str(tmp_path), data=str(data)))


@pytest.fixture(scope="module")
def embeddings(model, data, tmp_path_factory):
    """The model's own embeddings of the split, of other lengths than 1, in files."""
    rows, at = Split(data, "validation"), tmp_path_factory.mktemp("embeddings")
    np.save(at / "i.npy", 3 * embed_images(model, [rows.image(i) for i in range(12)]))
    np.save(at / "t.npy", embed_texts(model, rows.column("caption")).astype(np.float64) / 7)
    return at / "i.npy", at / "t.npy"


def without_origin(results):
    """Everything but what says which model it comes from."""
    origin = replace(
        results.provenance, model=None, contamination="unknown", contamination_reason="", embeddings_sha256=()
    )
    return replace(results, provenance=origin)


def test_embeddings_made_elsewhere_are_measured_by_the_same_code(results, embeddings, data, tmp_path):
    own = evaluate_retrieval(EvalConfig(data=str(data), out=tmp_path), embeddings)
    assert without_origin(own) == without_origin(results)
    assert (own.provenance.model, own.provenance.contamination) == (None, "unknown")
    assert [len(digest) for digest in own.provenance.embeddings_sha256] == [64, 64]
    assert Results.from_json(json.loads((tmp_path / "retrieval.json").read_text())) == own


def test_the_first_embeddings_belong_to_the_first_pairs(embeddings, run, data):
    limited = evaluate_retrieval(EvalConfig(data=str(data), max_samples=5), embeddings)
    wanted = evaluate_retrieval(EvalConfig(model=str(run), data=str(data), max_samples=5))
    assert without_origin(limited) == without_origin(wanted)


def test_embeddings_of_another_split_are_refused(embeddings, data):
    with pytest.raises(UserError, match=r"i\.npy has 12 rows and the split 25 pairs"):
        evaluate_retrieval(EvalConfig(data=str(data), split="train"), embeddings)


@pytest.fixture
def write_record(data, tmp_path):
    """Writes files of embeddings, each in a folder of its own with a record of where it comes from."""

    validation = Split(data, "validation").digest

    def write(name, data_sha256=validation, model_sha256="a" * 64):
        folder = tmp_path / name
        folder.mkdir()
        np.save(folder / "x.npy", np.random.default_rng(0).standard_normal((12, 4)))
        origin = {"data_sha256": data_sha256, "model_sha256": model_sha256}
        write_with_checksum(folder / "embedding.json", origin | {"sha256": {"x.npy": sha256(folder / "x.npy")}})
        return folder / "x.npy"

    return write


def test_recorded_embeddings_are_those_of_these_pairs(write_record, data):
    """Another split of as many pairs, or the same prepared in another order, has as many rows."""
    own, other = write_record("own"), write_record("other", Split(data, "train").digest)
    for limit in (None, 5):
        config = EvalConfig(data=str(data), max_samples=limit)
        assert evaluate_retrieval(config, (own, own)).facts["num_pairs"] == (limit or 12)
        for files in ((own, other), (other, other)):
            with pytest.raises(UserError, match=r"other/x.npy is of other pairs than split 'validation'"):
                evaluate_retrieval(config, files)


def test_recorded_embeddings_of_both_kinds_are_of_one_model_and_of_the_same_pairs(write_record):
    own, other_pairs, other_model = (
        write_record("own"),
        write_record("p", "b" * 64),
        write_record("m", model_sha256="b" * 64),
    )
    assert evaluate_retrieval(EvalConfig(), (own, own)).facts["num_pairs"] == 12
    for other, what in ((other_pairs, "pairs"), (other_model, "model")):
        with pytest.raises(UserError, match=f"own/x.npy and .*/x.npy are not of the same {what}"):
            evaluate_retrieval(EvalConfig(), (own, other))


def test_embeddings_alone_need_no_data(results, embeddings, tmp_path):
    alone = evaluate_retrieval(EvalConfig(out=tmp_path), embeddings)
    for direction in DIRECTIONS:
        assert alone[f"{direction}/R@5"].value == results[f"{direction}/R@5"].value
    assert {metric.name.partition("/")[0] for metric in alone.metrics} == set(DIRECTIONS)  # no groups, no concepts
    assert "each counts as its own article" in alone.provenance.ci_method
    assert (alone.provenance.data, alone.provenance.split) == (None, None)
    items = read_results(tmp_path, Kind.RETRIEVAL)[1]
    assert items.column("article").to_pylist() == [f"{row}" for row in range(12)]
    assert evaluate_retrieval(EvalConfig(max_samples=5), embeddings).facts["num_candidates"] == 5


def test_a_model_and_embeddings_exclude_each_other(embeddings, run, data):
    for config, files in ((EvalConfig(model=str(run), data=str(data)), embeddings), (EvalConfig(data=str(data)), None)):
        with pytest.raises(UserError, match="give either --model MODEL or --embeddings"):
            evaluate_retrieval(config, files)
    with pytest.raises(UserError, match="give --data DATA"):
        evaluate_retrieval(EvalConfig(model=str(run)))


def test_every_column_of_items_gives_its_metrics_again(results, out):
    items = read_results(out, Kind.RETRIEVAL)[1]
    columns = {metric.column for metric in results.metrics if metric.column}
    assert columns == set(items.column_names) - {"id", "article"}
    assert len(columns) == 4 + 4
    for metric in results.metrics:
        if metric.column:
            own = items.column(metric.column).to_numpy()
            own = own[~np.isnan(own)]
            again = own.mean() if metric.statistic == "mean" else rank_metrics(own.astype(int))[metric.statistic]
            assert again == pytest.approx(metric.value), metric.name


def test_other_candidates_and_measures_are_reported_too(results):
    facts = results.facts
    assert facts["article_disjoint/num_candidates"] == 11  # two images an article
    assert (facts["num_pairs"], facts["num_images"], facts["num_captions"], facts["concepts/num_pairs"]) == (12,) * 4
    assert results["text_to_image/R@5"].chance == pytest.approx(5 / 12)
    assert results.below("by_group") == []  # twelve pairs are too few for any


def test_a_repeated_caption_is_one(run, data, copy, tmp_path):
    captions = {1: "CT of the chest", 2: "ct of  the CHEST"}
    other = with_rows(copy(data), lambda row, i: {"caption": captions.get(i, row["caption"])})
    results = evaluate_retrieval(EvalConfig(model=str(run), data=str(other), out=tmp_path))
    facts = results.facts
    assert [facts[f"num_{name}"] for name in ("pairs", "images", "captions", "candidates")] == [12, 12, 11, 12]
    # Twelve images, of which two are right for one caption of eleven.
    assert results["text_to_image/R@1"].chance == pytest.approx((10 / 12 + 2 / 12) / 11)
    items = read_results(tmp_path, Kind.RETRIEVAL)[1]
    own = [items.column(f"{direction}/rank").to_numpy() for direction in DIRECTIONS]
    assert [np.flatnonzero(np.isnan(column)).tolist() for column in own] == [[], [2]]  # as the first one but for case


@pytest.fixture(scope="module")
def five_captions(tmp_path_factory):
    """Six images with five captions each, prepared from a table that names each file five times."""
    folder = tmp_path_factory.mktemp("five")
    lines = [f"{i}.png,CT of the chest: image {i} as reader {c} saw it,validation" for i in range(6) for c in range(5)]
    for i in range(6):
        draw_image(3 * i).save(folder / f"{i}.png")
    lines.append('0.png,"Chest X-ray of a training image",train')
    (folder / "pairs.csv").write_text("\n".join(["image,caption,split", *lines]), encoding="utf-8")
    prepare(str(folder / "pairs.csv"), folder / "data", num_workers=1)
    return folder


def test_an_image_with_five_captions_is_one_image(five_captions, run, model, tmp_path):
    """Against recall over the six files and thirty strings, with a matrix of positives."""
    results = evaluate_retrieval(EvalConfig(model=str(run), data=str(five_captions / "data"), out=tmp_path))
    captions = Split(five_captions / "data", "validation").column("caption")
    images = embed_images(model, [(five_captions / f"{i}.png").read_bytes() for i in range(6)]).astype(np.float64)
    texts = embed_texts(model, captions).astype(np.float64)
    positive = np.array([[f"image {i} " in caption for caption in captions] for i in range(6)])
    assert positive.sum(axis=1).tolist() == [5] * 6
    sides = (images @ texts.T, positive), (texts @ images.T, positive.T)
    for direction, (scores, right) in zip(DIRECTIONS, sides, strict=True):
        order = np.argsort(-scores, axis=1)
        for k in (1, 5, 10):
            expected = np.mean([right[i, top[:k]].any() for i, top in enumerate(order)])
            assert results[f"{direction}/R@{k}"].value == pytest.approx(expected)
    names = ("num_pairs", "num_images", "num_captions", "num_candidates")
    assert [results.facts[name] for name in names] == [30, 6, 30, 30]
    assert results["text_to_image/R@1"].chance == pytest.approx(1 / 6)
    assert results["image_to_text/R@1"].chance == pytest.approx(5 / 30)
    assert results["image_to_text/R@5"].chance == pytest.approx(1 - math.comb(25, 5) / math.comb(30, 5))
    items = read_results(tmp_path, Kind.RETRIEVAL)[1]
    assert np.flatnonzero(~np.isnan(items.column("image_to_text/rank").to_numpy())).tolist() == list(range(0, 30, 5))
    assert {row.id for row in results.nearest_images} <= set(items.column("id").to_pylist()[::5])


def test_perfect_embeddings_of_five_captions_an_image_are_perfect(five_captions, tmp_path, caplog):
    np.save(tmp_path / "i.npy", np.repeat(np.eye(6), 5, axis=0))
    files = (tmp_path / "i.npy", tmp_path / "i.npy")
    results = evaluate_retrieval(EvalConfig(data=str(five_captions / "data")), files, num_candidates=6, num_draws=2)
    for path in ("", "article_disjoint/", "fixed_pool/"):
        for direction in DIRECTIONS:
            assert results[f"{path}{direction}/R@1"].value == 1
    assert not results.misranked_pairs
    assert not caplog.records
    alone = evaluate_retrieval(EvalConfig(), files)  # nothing says that equal vectors are of one image
    assert alone["image_to_text/R@1"].value == 0
    assert "24 of 30 embeddings of images repeat another one. Each counts as a candidate of its own" in caplog.text
    assert "--data DATA" in caplog.text


@pytest.mark.slow
def test_captions_of_one_image_are_resampled_together(five_captions, run, tmp_path):
    """Also where the table gives each row an article of its own."""
    folder = shutil.copytree(five_captions / "data", tmp_path / "data")
    own = evaluate_retrieval(EvalConfig(model=str(run), data=str(folder)))
    apart = evaluate_retrieval(
        EvalConfig(model=str(run), data=str(with_rows(folder, lambda row, i: {"article": f"{i:02}"})), out=tmp_path)
    )
    for direction in DIRECTIONS:
        assert own[f"{direction}/R@1"] == apart[f"{direction}/R@1"]
    articles = read_results(tmp_path, Kind.RETRIEVAL)[1].column("article").to_pylist()
    assert articles == [f"{i - i % 5:02}" for i in range(30)]
    comparison = compare([tmp_path, Path(shutil.copytree(tmp_path, tmp_path.with_name("other")))])
    row = next(row for row in comparison.rows if row.name == "text_to_image/R@1")
    assert row.contrasts[0].difference.baseline == apart["text_to_image/R@1"].value


def test_without_concepts_nothing_is_graded(run, data, copy, tmp_path):
    other = with_rows(copy(data), lambda row, i: {"concepts": []})
    results = evaluate_retrieval(EvalConfig(model=str(run), data=str(other), out=tmp_path))
    assert not [metric for metric in results.metrics if "concepts" in name_parts(metric.name)]
    assert not [name for name in read_results(tmp_path, Kind.RETRIEVAL)[1].column_names if "concepts" in name]


def with_rows(folder, change):
    """The folder, rows of its validation split changed."""
    numbers = count()
    return change_rows(folder, lambda row: row | change(row, next(numbers)), "validation")


def test_fewer_candidates_are_drawn_on_request(run, data):
    config = EvalConfig(model=str(run), data=str(data))
    results = evaluate_retrieval(config, num_candidates=6, num_draws=3)
    assert (results.facts["fixed_pool/num_candidates"], results.facts["fixed_pool/num_draws"]) == (6, 3)
    assert results["fixed_pool/text_to_image/R@1"].chance == pytest.approx(1 / 6)
    assert len(results["fixed_pool/text_to_image/MRR"].draws) == 3
    with pytest.raises(UserError, match="--num-candidates 13 is more than the 12 pairs"):
        evaluate_retrieval(config, num_candidates=13)
    for too_few in ({"num_candidates": 1}, {"num_candidates": 6, "num_draws": 1}):
        with pytest.raises(UserError, match="--num-candidates and --num-draws must be at least 2"):
            evaluate_retrieval(config, **too_few)


def test_a_small_evaluation_worked_out_by_hand(tmp_path):
    """Three pairs at angles of which the cosines are known."""
    np.save(tmp_path / "i.npy", np.array([[1.0, 0], [0, 1.0], [0.6, 0.8]]))
    np.save(tmp_path / "t.npy", np.array([[0.8, 0.6], [1.0, 0], [0, 1.0]]))
    # cosines     t0   t1   t2
    #        i0   .8    1    0     own is second
    #        i1   .6    0    1     own is third
    #        i2  .96   .6   .8     own is second
    # of texts: t0 has i0 (.8) behind i2 (.96): second; t1 has i1 last: third; t2 has i2 (.8) behind i1 (1): second
    results = evaluate_retrieval(EvalConfig(), (tmp_path / "i.npy", tmp_path / "t.npy"))
    for direction in DIRECTIONS:
        values = {name: results[f"{direction}/{name}"].value for name in results.below(direction)}
        assert values == pytest.approx(
            {
                "R@1": 0,
                "R@5": 1,
                "R@10": 1,
                "median_rank": 2,
                "mean_rank": 7 / 3,
                "geometric_mean_rank": 12 ** (1 / 3),
                "MRR": (1 / 2 + 1 / 3 + 1 / 2) / 3,
            }
        )
    assert results["image_to_text/R@1"].chance == pytest.approx(1 / 3)
    assert results["image_to_text/mean_rank"].chance == pytest.approx(2)
    (widest, *_) = results.misranked_pairs
    assert (widest.direction, widest.id, widest.other, widest.margin) == ("image_to_text", "1", "2", 1)
    (nearest, *_) = results.nearest_images
    assert ({nearest.id, nearest.other}, nearest.score) == ({"1", "2"}, 0.8)
