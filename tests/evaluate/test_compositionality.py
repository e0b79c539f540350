"""An image's choice between its caption and a changed one."""

import numpy as np
import pytest

from medclip.data.dataset import Split
from medclip.data.foils import foil_rules, swap_left_right
from medclip.encode.encoder import embed_images, embed_texts
from medclip.errors import UserError
from medclip.evaluate import compositionality
from medclip.evaluate.compositionality import BY_LABEL, PROMPTS, Question, evaluate_compositionality, questions
from medclip.evaluate.config import EvalConfig
from medclip.evaluate.results import read_results


@pytest.fixture
def subject(run, data, tmp_path, monkeypatch):
    monkeypatch.setattr(compositionality, "LEAST", 5)
    return EvalConfig(model=str(run), data=str(data), out=tmp_path)


def test_each_item_is_what_the_vectors_say(subject, model, data):
    said = evaluate_compositionality(subject)
    written, items = read_results(subject.out, "understanding")
    assert said == written
    rows = Split(data, "validation")
    own = [row for row in items.to_pylist() if row["test"] == "left or right"]
    captions = dict(zip(rows.column("id"), rows.column("caption"), strict=True))
    assert [row["id"] for row in own] == [id for id, caption in captions.items() if swap_left_right(caption)]
    for item in own:
        row = rows.column("id").index(item["id"])
        caption = rows.column("caption")[row]
        image, texts = (
            embed_images(model, [rows.image(row)])[0],
            embed_texts(model, [caption, swap_left_right(caption)]),
        )
        margin = float(image @ texts[0] - image @ texts[1])
        assert item["margin"] == pytest.approx(margin, abs=1e-6)
        assert item["correct"] == (margin > 0)
        assert item["article"] == rows.column("article")[row]
    told = said["tests"]["left or right"]
    assert (told["captions"], told["ties"]) == (8, 0)  # of every three captions of the split one says "upper"
    assert told["accuracy"]["value"] == np.mean([row["correct"] for row in own])


def test_every_test_is_asked_or_left_out_with_the_reason(subject):
    said = evaluate_compositionality(subject)
    assert set(said["tests"]) | set(said["left_out"]) == {*foil_rules(0), BY_LABEL}
    assert not set(said["tests"]) & set(said["left_out"])
    assert said["left_out"]["MRI weighting"] == "asked of 0 of 12 captions, fewer than 5"


def test_a_change_that_the_model_cannot_see_is_a_tie_and_fails(subject, monkeypatch):
    longer = "CT of the chest " * 40  # than any context

    def beyond(captions, labels, seed):
        return [Question("beyond", row, f"{longer}left", f"{longer}right") for row in range(len(captions))]

    monkeypatch.setattr(compositionality, "questions", beyond)
    said = evaluate_compositionality(subject)["tests"]["beyond"]
    assert (said["captions"], said["ties"], said["accuracy"]["value"]) == (12, 12, 0)


def test_a_split_on_which_nothing_can_be_asked_is_refused(run, data):
    with pytest.raises(UserError, match="fewer than 20 captions for each test"):
        evaluate_compositionality(EvalConfig(model=str(run), data=str(data)))


def test_labels_ask_for_one_of_two_prompts():
    labels = [{"organ": "brain_head"}, {"organ": "chest"}, {"organ": "knee"}, {}]
    brain, chest = PROMPTS
    assert list(questions(["x"] * 4, labels, 0)) == [
        Question(BY_LABEL, 0, brain, chest),
        Question(BY_LABEL, 1, chest, brain),
    ]
