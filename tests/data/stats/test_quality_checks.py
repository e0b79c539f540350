"""Each warning is given where it applies, and none for a good dataset."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.data.stats import quality_checks as module
from medclip.data.stats.quality_checks import quality_warnings, urgent_warnings
from medclip.data.stats.statistics import compute_statistics
from support.handmade_datasets import dataset, row
from support.material import draw_image, image_bytes

TRAIN, VALIDATION = range(24), range(24, 36)


@pytest.fixture
def warnings_of(tmp_path, monkeypatch):
    """Warnings about a small dataset without issues except in the rows that `change` alters."""
    monkeypatch.setattr(module, "MIN_TRAINING_PAIRS", 20)
    monkeypatch.setattr(module, "MIN_HELD_OUT_PAIRS", 10)
    monkeypatch.setattr(module, "MIN_SHORTER_SIDE", 32)

    def compute(change=lambda n: {}, splits=None, **fields):
        splits = splits or {
            "train": [row(n, **change(n)) for n in TRAIN],
            "validation": [row(n, **change(n)) for n in VALIDATION],
        }
        return quality_warnings(compute_statistics(dataset(tmp_path / "data", splits, **fields)))

    return compute


def counts(warning):
    return [(o.split, o.count, o.total) for o in warning.occurrences]


def test_a_good_dataset_has_no_warnings(warnings_of):
    assert warnings_of() == []


@pytest.mark.parametrize(
    ("change", "message", "places"),
    [
        (lambda n: {"license": ["", "NO-CC CODE"][n % 2]} if n < 3 else {}, "without a known", [("train", 3, 24)]),
        (lambda n: {"article": "P1"} if n < 6 else {}, "one article or patient (P1)", [("train", 6, 24)]),
        (lambda n: {"caption": f"IMG_{n}.jpg"} if n == 2 else {}, "look like a file's name", [("train", 1, 24)]),
        (lambda n: {"caption": f"<i>A mass</i> {n}"} if n == 30 else {}, "markup", [("validation", 1, 12)]),
        (
            lambda n: {"caption": f"Radio du thorax, vue de face {n}"} if n in (1, 30) else {},
            "not English",
            [("train", 1, 24), ("validation", 1, 12)],
        ),
        (lambda n: {"caption": f"CT on 3 May 2014, no {n}"} if n == 5 else {}, "full date", [("train", 1, 24)]),
        (
            lambda n: {"caption": f"CT {n}: (a) before, {n * n} (b) after"} if n < 2 else {},
            "several panels",
            [("train", 2, 24)],
        ),
        (
            lambda n: {"caption": " ".join(f"finding{n}{m}" for m in range(60))} if n < 2 else {},
            "exceed 77 tokens",
            [("train", 2, 24)],
        ),
        (lambda n: {"width": 30} if n < 2 else {}, "shorter side under 32", [("train", 2, 24)]),
        (
            lambda n: (
                {"caption": f"{'abcdefgh'[n]} mass; reproduced with permission of the publisher"} if n < 5 else {}
            ),
            "the same end: “reproduced with permission of the publisher”",
            [("train", 5, 24)],
        ),
    ],
)
def test_an_issue_is_reported_with_its_count(warnings_of, change, message, places):
    (warning,) = warnings_of(change)
    assert message in warning.message
    assert counts(warning) == places
    assert warning.remedy.endswith((".", "?"))


@pytest.mark.parametrize(
    ("change", "way"),
    [
        (lambda n: {"article": "P"} if n in (0, 30) else {}, "article 1"),
        (lambda n: {"image": image_bytes(draw_image(0))} if n == 30 else {}, "same image 1"),
        (lambda n: {"caption": "The same of both"} if n in (0, 30) else {}, "caption 1"),
    ],
)
def test_what_train_shares_with_validation_comes_first(warnings_of, change, way):
    (warning,) = warnings_of(change)
    assert warning.message == f"pairs that share something with train ({way})"
    assert counts(warning) == [("validation", 1, 12)]
    assert "medclip leakage" in warning.remedy


def test_many_duplicates_inside_a_split_are_reported(warnings_of):
    warnings = warnings_of(lambda n: {"caption": "Chest X-ray at admission"} if n < 4 else {})
    assert warnings[0].message == "pairs that repeat an earlier one (caption 3)"
    assert counts(warnings[0]) == [("train", 3, 24)]
    assert "as one" in warnings[0].remedy and "errors" not in warnings[0].remedy  # as DistinctPairs has it


def test_missing_empty_and_small_splits(warnings_of):
    warnings = warnings_of(splits={"test": [row(1), row(2)], "empty": []})
    places = {warning.message: counts(warning) for warning in warnings}
    assert "there is no split train, so nothing that a model could be trained on" in places
    assert any("no split validation" in message for message in places)
    assert places["a split is empty"] == [("empty", 0, 0)]
    assert places["fewer than 10 pairs to measure on"] == [("test", 2, 0)]


def test_few_pairs_say_how_wide_intervals_are(warnings_of, monkeypatch):
    monkeypatch.setattr(module, "MIN_HELD_OUT_PAIRS", 200)
    assert "± 26 points" in warnings_of()[0].remedy  # 1.96 · sqrt(0.3 · 0.7 / 12)


def test_few_training_pairs(warnings_of, monkeypatch):
    monkeypatch.setattr(module, "MIN_TRAINING_PAIRS", 1000)
    (warning,) = warnings_of()
    assert warning.message == "fewer than 1,000 training pairs"
    assert (counts(warning), "--init" in warning.remedy) == ([("train", 24, 0)], True)


def test_rows_lost_for_one_reason(warnings_of):
    (warning,) = warnings_of(dropped={"train": {"image missing": 24, "duplicate id": 2}, "validation": {}})
    assert warning.message == "rows dropped: image missing"
    assert counts(warning) == [("train", 24, 50)]


def test_pairs_that_nothing_groups(warnings_of):
    (warning,) = warnings_of(lambda n: {"article": f"id{n}"} if n in TRAIN else {})
    assert warning.message == "no pair names its article or patient"


def test_phantoms_have_no_patients_to_group(warnings_of):
    assert warnings_of(lambda n: {"article": f"id{n}"}, synthetic=True) == []


@given(st.lists(st.text(min_size=1), min_size=1, max_size=6))
def test_any_captions_can_be_advised_on(tmp_path_factory, captions):
    rows = [row(n, caption=caption) for n, caption in enumerate(captions)]
    for warning in quality_warnings(compute_statistics(dataset(tmp_path_factory.mktemp("any"), {"train": rows}))):
        assert all(0 <= count <= total or total == 0 for _, count, total in counts(warning))


@pytest.mark.parametrize(("num_pairs", "count"), [(24, 24), (24, 19), (8, 8)])
def test_one_group_for_most_pairs_is_said_at_once(tmp_path, num_pairs, count):
    rows = [row(n, article="unknown" if n < count else f"P{n}") for n in range(num_pairs)]
    warnings = urgent_warnings(compute_statistics(dataset(tmp_path / "data", {"train": rows})))
    assert [counts(warning) for warning in warnings] == [[("train", count, num_pairs)]] * (count >= 20)


def test_rows_lost_for_what_can_be_mended_are_said_at_once(tmp_path):
    rows = [row(n) for n in range(4)]
    data = dataset(tmp_path / "data", {"train": rows}, dropped={"train": {"duplicate id": 2, "localizer": 9}})
    (warning,) = urgent_warnings(compute_statistics(data))
    assert (warning.message, counts(warning)) == ("rows dropped: duplicate id", [("train", 2, 15)])
    assert "--id-column" in warning.remedy
