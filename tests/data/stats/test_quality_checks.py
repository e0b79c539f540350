"""Each thing a careful colleague would say is said where it is so, and nothing where all is well."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.data.stats import quality_checks as module
from medclip.data.stats.quality_checks import quality_warnings
from medclip.data.stats.statistics import compute_statistics
from support.handmade_datasets import dataset, row
from support.material import draw_image, image_bytes

TRAIN, VALIDATION = range(24), range(24, 36)


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Advice on a small set whose rows are well but for what is changed: what, by split."""
    monkeypatch.setattr(module, "MIN_TRAINING_PAIRS", 20)
    monkeypatch.setattr(module, "MIN_HELD_OUT_PAIRS", 10)
    monkeypatch.setattr(module, "MIN_SHORTER_SIDE", 32)

    def tell(change=None, splits=None, **said):
        made = splits or {"train": [row(n) for n in TRAIN], "validation": [row(n) for n in VALIDATION]}
        if change:
            made = {
                name: [row(int(one["id"][2:]), **(change(int(one["id"][2:])) or {})) for one in rows]
                for name, rows in made.items()
            }
        return quality_warnings(compute_statistics(dataset(tmp_path / "data", made, **said)))

    return tell


def test_nothing_is_said_where_all_is_well(told):
    assert told() == []


@pytest.mark.parametrize(
    ("change", "said", "places"),
    [
        (lambda n: {"license": ["", "NO-CC CODE"][n % 2]} if n < 3 else {}, "without a known", (("train", 3, 24),)),
        (lambda n: {"article": "P1"} if n < 6 else {}, "one article or patient (P1)", (("train", 6, 24),)),
        (lambda n: {"caption": f"IMG_{n}.jpg"} if n == 2 else {}, "look like a file's name", (("train", 1, 24),)),
        (lambda n: {"caption": f"<i>A mass</i> {n}"} if n == 30 else {}, "markup", (("validation", 1, 12),)),
        (
            lambda n: {"caption": f"Radio du thorax, vue de face {n}"} if n in (1, 30) else {},
            "not English",
            (("train", 1, 24), ("validation", 1, 12)),
        ),
        (lambda n: {"caption": f"CT on 3 May 2014, no {n}"} if n == 5 else {}, "full date", (("train", 1, 24),)),
        (
            lambda n: {"caption": f"CT {n}: (a) before, {n * n} (b) after"} if n < 2 else {},
            "several panels",
            (("train", 2, 24),),
        ),
        (
            lambda n: {"caption": " ".join(f"finding{n}{m}" for m in range(60))} if n < 2 else {},
            "exceed 77 tokens",
            (("train", 2, 24),),
        ),
        (lambda n: {"width": 30} if n < 2 else {}, "shorter side under 32", (("train", 2, 24),)),
        (
            lambda n: (
                {"caption": f"{'abcdefgh'[n]} mass; reproduced with permission of the publisher"} if n < 5 else {}
            ),
            "the same end: “reproduced with permission of the publisher”",
            (("train", 5, 24),),
        ),
    ],
)
def test_what_is_odd_is_said_with_its_count(told, change, said, places):
    found = told(change)
    assert len(found) == 1, [one.message for one in found]
    assert said in found[0].message
    assert found[0].occurrences == places
    assert found[0].remedy.endswith((".", "?"))


@pytest.mark.parametrize(
    ("change", "way"),
    [
        (lambda n: {"article": "P"} if n in (0, 30) else {}, "article 1"),
        (lambda n: {"image": image_bytes(draw_image(0))} if n == 30 else {}, "same image 1"),
        (lambda n: {"caption": "The same of both"} if n in (0, 30) else {}, "caption 1"),
    ],
)
def test_what_train_shares_with_validation_comes_first(told, change, way):
    (found,) = told(change)
    assert found.message == f"pairs that share something with train ({way})"
    assert found.occurrences == (("validation", 1, 12),)
    assert "medclip leakage" in found.remedy


def test_repetitions_inside_a_split_are_said_when_they_are_many(told):
    found = told(lambda n: {"caption": "Chest X-ray at admission"} if n < 4 else {})
    assert found[0].message == "pairs that repeat an earlier one (caption 3)"
    assert found[0].occurrences == (("train", 3, 24),)


def test_missing_empty_and_small_splits(told):
    found = told(splits={"test": [row(1), row(2)], "empty": []})
    whats = {one.message: one.occurrences for one in found}
    assert "there is no split train, and so nothing that a model could be trained on" in whats
    assert any("no split validation" in what for what in whats)
    assert whats["a split is empty"] == (("empty", 0, 0),)
    assert whats["fewer than 10 pairs to measure on"] == (("test", 2, 0),)


def test_few_pairs_say_how_wide_intervals_are(told, monkeypatch):
    monkeypatch.setattr(module, "MIN_HELD_OUT_PAIRS", 200)
    assert "± 26 points" in told()[0].remedy  # 1.96 · sqrt(0.3 · 0.7 / 12)


def test_few_training_pairs(told, monkeypatch):
    monkeypatch.setattr(module, "MIN_TRAINING_PAIRS", 1000)
    (found,) = told()
    assert found.message == "fewer than 1,000 training pairs"
    assert (found.occurrences, "--init" in found.remedy) == ((("train", 24, 0),), True)


def test_rows_lost_for_one_reason(told):
    (found,) = told(dropped={"train": {"image missing": 24, "duplicate id": 2}, "validation": {}})
    assert found.message == "rows dropped: image missing"
    assert found.occurrences == (("train", 24, 50),)


def test_pairs_that_nothing_groups(told):
    (found,) = told(lambda n: {"article": f"id{n}"} if n in TRAIN else {})
    assert found.message == "no pair names its article or patient"


def test_phantoms_have_no_patients_to_group(told):
    assert told(lambda n: {"article": f"id{n}"}, synthetic=True) == []


@given(st.lists(st.text(min_size=1), min_size=1, max_size=6))
def test_any_captions_can_be_advised_on(tmp_path_factory, captions):
    rows = [row(n, caption=caption) for n, caption in enumerate(captions)]
    for one in quality_warnings(compute_statistics(dataset(tmp_path_factory.mktemp("any"), {"train": rows}))):
        assert all(0 <= n <= of or of == 0 for _, n, of in one.occurrences)
