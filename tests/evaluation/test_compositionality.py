"""An image's choice between its caption and a changed one."""

import numpy as np
import pytest

from medclip.data.dataset import Split
from medclip.data.foils import foil_rules, swap_left_right
from medclip.encode.encoder import embed_images, embed_texts
from medclip.errors import UserError
from medclip.evaluation import compositionality
from medclip.evaluation.compositionality import BY_LABEL, PROMPTS, Question, evaluate_compositionality, questions
from medclip.evaluation.config import EvalConfig
from medclip.evaluation.results import Kind, read_results


@pytest.fixture
def config(run, data, tmp_path, monkeypatch):
    monkeypatch.setattr(compositionality, "MIN_CAPTIONS", 5)
    return EvalConfig(model=str(run), data=str(data), out=tmp_path)


def test_each_item_is_what_the_embeddings_give(config, model, data):
    results = evaluate_compositionality(config)
    written, items = read_results(config.out, Kind.COMPOSITIONALITY)
    assert results == written
    rows = Split(data, "validation")
    columns = ("tests/left or right/margin", "tests/left or right/correct")
    own = [row for row in items.to_pylist() if not np.isnan(row[columns[0]])]
    captions = dict(zip(rows.column("id"), rows.column("caption"), strict=True))
    assert [row["id"] for row in own] == [id for id, caption in captions.items() if swap_left_right(caption)]
    for item in own:
        row = rows.column("id").index(item["id"])
        caption = rows.column("caption")[row]
        image = embed_images(model, [rows.image(row)])[0]
        texts = embed_texts(model, [caption, swap_left_right(caption)])
        margin = float(image @ texts[0] - image @ texts[1])
        assert item[columns[0]] == pytest.approx(margin, abs=1e-6)
        assert item[columns[1]] == (margin > 0)
        assert item["article"] == rows.column("article")[row]
    facts = {name: results.facts[f"tests/left or right/{name}"] for name in ("num_captions", "num_ties")}
    assert facts == {"num_captions": 8, "num_ties": 0}  # of every three captions of the split one says "upper"
    accuracy = results["tests/left or right/accuracy"]
    assert accuracy.value == np.mean([row[columns[1]] for row in own])
    assert (accuracy.column, accuracy.statistic, accuracy.chance) == (columns[1], "mean", 0.5)


def test_every_test_is_measured_or_excluded_with_the_reason(config):
    results = evaluate_compositionality(config)
    measured, excluded = set(results.below("tests")), set(results.below("excluded"))
    assert measured | excluded == {*foil_rules(0), BY_LABEL}
    assert not measured & excluded
    assert results.facts["excluded/MRI weighting"] == "applies to 0 of 12 captions, fewer than 5"


def test_a_change_that_the_model_cannot_see_is_a_tie_and_fails(config, monkeypatch):
    longer = "CT of the chest " * 40  # than any context

    def beyond(captions, labels, seed):
        return [Question("beyond", row, f"{longer}left", f"{longer}right") for row in range(len(captions))]

    monkeypatch.setattr(compositionality, "questions", beyond)
    results = evaluate_compositionality(config)
    assert results["tests/beyond/accuracy"].value == 0
    assert results.facts["tests/beyond/num_captions"] == results.facts["tests/beyond/num_ties"] == 12


def test_a_split_that_allows_no_test_is_refused(run, data):
    with pytest.raises(UserError, match="fewer than 20 captions for each test"):
        evaluate_compositionality(EvalConfig(model=str(run), data=str(data)))


def test_labels_ask_for_one_of_two_prompts():
    labels = [{"organ": "brain_head"}, {"organ": "chest"}, {"organ": "knee"}, {}]
    brain, chest = PROMPTS
    assert list(questions(["x"] * 4, labels, 0)) == [
        Question(BY_LABEL, 0, brain, chest),
        Question(BY_LABEL, 1, chest, brain),
    ]
