"""Hits of a text come with the probability that the right image is among them, by the model's own calibration."""

import dataclasses
import math

import numpy as np
import pytest
from tokenizers import Tokenizer

from medclip.atomic_io import read_json, write_json
from medclip.data.dataset import Split
from medclip.encode.encoder import embed_images, embed_texts
from medclip.match_calibration import CALIBRATION_FILE, Calibration, read_calibration
from medclip.model.checkpoint import model_hash
from medclip.no_match import Threshold, Withheld
from medclip.search.filters import make_filter
from medclip.search.index import Index
from medclip.search.match import describe_model, to_percent
from medclip.search.query import Query, SearchOptions

TEXT = "CT of the left chest"


@pytest.fixture(scope="module")
def index(index_folder):
    return Index.open(index_folder)


@pytest.fixture(scope="module")
def cosines(model, data):
    """Of the text with the twelve images of the index, by the model alone, best first."""
    split = Split(data, "validation")
    images = embed_images(model, [split.image(row) for row in range(12)])
    return -np.sort(-(images.astype(np.float64) @ embed_texts(model, [TEXT])[0].astype(np.float64)))


@pytest.fixture
def model_copy(run, copy):
    """A copy of the model's folder, to change its calibration."""
    return copy(run / "model")


def answer(index, k=10, query=None, **only):
    (result,) = index.answer([query or Query((TEXT,))], SearchOptions(k, make_filter(only)))
    return result


def expected_probability(calibration: Calibration, cosines, k):
    weights = [math.exp(calibration.scale * cosine) for cosine in cosines]
    share, chance = sum(weights[:k]) / sum(weights), k / len(cosines)
    line = (
        calibration.share_slope * math.log(share / (1 - share))
        + calibration.chance_slope * math.log(chance / (1 - chance))
        + calibration.intercept
    )
    return 1 / (1 + math.exp(-line))


def test_training_leaves_the_calibration_of_the_weights_it_saved(run, data, model):
    calibration = read_calibration(run / "model", model_hash(run))
    assert calibration.data_sha256 == Split(data, "validation").digest
    recall = calibration.recall_at_10
    assert (recall.num_images, recall.num_captions, recall.chance) == (12, 12, pytest.approx(10 / 12))
    split = Split(data, "validation")
    images = embed_images(model, [split.image(row) for row in range(12)]).astype(np.float64)
    pairs = embed_texts(model, split.column("caption")).astype(np.float64) @ images.T
    own = pairs.diagonal()[:, None]
    assert recall.value == pytest.approx(((pairs >= own - 1e-9).sum(axis=1) <= 10).mean())

    def loss(scale):
        return np.mean(np.log(np.exp(scale * (pairs - own)).sum(axis=1)))

    assert all(loss(calibration.scale) <= loss(calibration.scale * factor) + 1e-9 for factor in (0.8, 0.95, 1.05, 1.2))
    assert (calibration.thresholds, calibration.withheld) == ((), ())  # twelve captions are too few
    assert "Not a medical device" in read_json(run / "model" / CALIBRATION_FILE, "a model")["notice"]


def test_probabilities_are_those_of_the_formula(index, run, cosines):
    calibration = read_calibration(run / "model", model_hash(run))
    result = answer(index)
    expected = [expected_probability(calibration, cosines, k) for k in range(1, 11)]
    assert result.probabilities == pytest.approx(expected, abs=1e-4)
    assert result.no_match is None
    assert "among these 10 with a probability of" in result.note
    assert answer(index, k=3).probabilities == pytest.approx(expected[:3], abs=1e-4)
    assert answer(index, k=12).probabilities[-1] == 1


def test_a_filter_makes_the_pool_smaller(index):
    result = answer(index, modality=["ct"])
    assert result.probabilities == (1.0,)  # one image passes, so the right one is it
    assert "among this one" in result.note


def test_more_images_than_validation_had_are_said_to_be_extrapolated(index):
    calibration = index.calibration
    few = dataclasses.replace(calibration, recall_at_10=dataclasses.replace(calibration.recall_at_10, num_images=11))
    result = answer(dataclasses.replace(index, calibration=few))
    assert result.note == f"{answer(index).note} It is extrapolated from 11 images of validation to 12."
    assert result.probabilities == answer(index).probabilities


def test_only_a_single_text_has_a_probability(index, data):
    image = Split(data, "validation").image(0)
    for query in (Query(images=(image,)), Query((TEXT,), (image,)), Query((TEXT,), (), ("knee",)), Query(("a", "b"))):
        result = answer(index, query=query)
        assert (result.probabilities, result.no_match) == (None, None)
        assert result.note == "No probability: only searches by a single text are calibrated."
        assert len(result.hits) == 10


def test_a_text_longer_than_the_model_reads_is_cut_and_the_note_says_so(index):
    room = index.model.tokenizer.context_length
    uncut = Tokenizer.from_str(index.model.tokenizer.tokenizer.to_str())
    uncut.no_truncation()
    uncut.no_padding()
    fits, cut = (Query((" ".join("a" * count),)) for count in (room - 2, room - 1))  # two tokens frame a text
    assert [len(uncut.encode(query.texts[0]).ids) for query in (fits, cut)] == [room, room + 1]
    note = f"A text has more than the {room} tokens that the model reads: the rest is left out."
    assert note not in answer(index, query=fits).note
    for query in (cut, Query((TEXT, cut.texts[0])), Query((TEXT,), (), cut.texts)):
        assert answer(index, query=query).note.endswith(note)
    assert answer(index, query=cut).hits == answer(index, query=Query((cut.texts[0] + " knee",))).hits


def test_an_index_takes_the_calibration_of_its_model_wherever_that_lies(index_folder, index, model_copy):
    assert answer(Index.open(index_folder, model_copy)).probabilities == answer(index).probabilities
    write_json(model_copy / CALIBRATION_FILE, read_json(model_copy / CALIBRATION_FILE, "") | {"model_sha256": "0" * 64})
    result = answer(Index.open(index_folder, model_copy))
    assert (result.probabilities, result.no_match) == (None, None) and "of other weights" in result.note
    (model_copy / CALIBRATION_FILE).write_text("{")
    assert "damaged" in answer(Index.open(index_folder, model_copy)).note
    (model_copy / CALIBRATION_FILE).unlink()
    result = answer(Index.open(index_folder, model_copy))
    assert result.note == "No probability: the model has no calibration.json, which medclip train writes at its end."
    assert result.hits == answer(index).hits


@pytest.mark.parametrize(("above", "no_match"), [(0.01, True), (-0.01, False)])
@pytest.mark.parametrize("k", [1, 10])
def test_there_is_no_match_where_the_five_nearest_are_too_far(index, cosines, above, no_match, k):
    """Whatever the number of hits that are shown. The text has five words: thresholds of other lengths are not its."""
    thresholds = (Threshold(1, 12, 2.0), Threshold(4, 12, float(cosines[:5].mean()) + above), Threshold(8, 12, 2.0))
    calibration = dataclasses.replace(index.calibration, thresholds=thresholds)
    result = answer(dataclasses.replace(index, calibration=calibration), k=k)
    assert result.no_match is no_match
    assert result.note.startswith("No match: of texts as long whose image is in the index, 5% at most have") is no_match
    assert len(result.hits) == k  # they are shown all the same


def test_a_model_near_chance_is_described_so(index):
    calibration = index.calibration
    assert "of 12 images; by chance for 83.3%. That is near chance" in describe_model(calibration)
    recall = dataclasses.replace(calibration.recall_at_10, value=0.28, low=0.25, high=0.31, chance=0.015)
    good = dataclasses.replace(calibration, recall_at_10=recall)
    text = "28.0% of 12 captions (95 % interval 25.0% to 31.0%), of 12 images; by chance for 1.5%."
    assert describe_model(good).endswith(text)
    rates = Withheld(1, 100, 0.4), Withheld(4, 100, 0.5), Withheld(16, 90, 0.6)
    ending = "words are told to have no match."
    for withheld, described in (
        (rates, f"40% of 1 to 3 words and 60% of 16 or more {ending}"),
        (rates[1:2], f"50% of 4 to 7 {ending}"),
    ):
        described = f"{text} Of texts about an organ that no image shows, {described}"
        assert describe_model(dataclasses.replace(good, withheld=withheld)).endswith(described)


@pytest.mark.parametrize(
    ("probability", "text"),
    [(1, "100%"), (0.998, "over 99%"), (0.99, "99%"), (0.424, "42%"), (0.01, "1%"), (0.002, "below 1%"), (0, "0%")],
)
def test_only_what_is_certain_is_all_or_nothing(probability, text):
    assert to_percent(probability) == text
