"""Evaluations of the same items are held against each other; others are refused in a sentence."""

import json
import os

import numpy as np
import pytest

from medclip.errors import UserError
from medclip.evaluation import significance
from medclip.evaluation.compare import as_json, compare
from medclip.evaluation.report import comparison_page
from medclip.evaluation.results import Kind, Results, read_results, write_results
from support.handmade_results import PROVENANCE, articles_of, classes, metric, retrieval
from support.pages import check

N = 200
GOOD = np.random.default_rng(0).integers(1, 40, N)
BAD = GOOD + np.random.default_rng(1).integers(0, 60, N)


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch):
    monkeypatch.setattr(significance, "RESAMPLES", 1000)


@pytest.fixture
def good(tmp_path):
    return retrieval(tmp_path / "good", GOOD, GOOD)


@pytest.fixture
def bad(tmp_path):
    return retrieval(tmp_path / "bad", BAD, GOOD)


def by_name(comparison):
    return {row.name: row for row in comparison.rows}


def test_what_fell_is_worse_and_what_stayed_is_exactly_the_same(good, bad):
    rows = by_name(compare([good, bad]))
    (fell,), (stayed,) = rows["image_to_text/R@10"].contrasts, rows["text_to_image/R@10"].contrasts
    assert (fell.verdict, stayed.verdict) == ("worse", "within noise")
    assert (stayed.difference.difference, stayed.difference.low, stayed.difference.high) == (0, 0, 0)
    assert fell.difference.difference == pytest.approx((BAD <= 10).mean() - (GOOD <= 10).mean())
    assert rows["image_to_text/median_rank"].contrasts[0].verdict == "worse"
    assert rows["image_to_text/geometric_mean_rank"].contrasts[0].difference.difference > 1


def test_the_figures_of_the_files_keep_their_intervals(good, bad):
    row = by_name(compare([good, bad]))["image_to_text/R@5"]
    assert [one.value for one in row.metrics] == [(GOOD <= 5).mean(), (BAD <= 5).mean()]
    assert row.metrics[0].low is not None


def test_the_order_of_items_is_no_matter(good, tmp_path):
    order = np.random.default_rng(0).permutation(N)
    ids, articles = [f"item {i}" for i in order], [articles_of(N)[i] for i in order]
    shuffled = retrieval(tmp_path / "shuffled", GOOD[order], GOOD[order], ids, articles)
    for row in compare([good, shuffled]).rows:
        assert row.contrasts[0].difference.difference == (1 if row.statistic.ratio else 0)
        assert row.contrasts[0].difference.p == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"image_to_text": GOOD[:50], "text_to_image": GOOD[:50]}, "items 200 against 50"),
        ({"split": "test", "ids": [f"other {i}" for i in range(N)]}, "split validation against test"),
        (
            {"data_sha256": "e" * 64, "ids": [f"x{i}" for i in range(N)]},
            "SHA-256 of the data dddddddddddd against eeee",
        ),
        ({"articles": ["one"] * N}, "other ids"),
    ],
    ids=["limit", "split", "data", "articles"],
)
def test_other_items_are_refused_by_what_differs(good, tmp_path, changed, message):
    other = retrieval(tmp_path / "other", **{"image_to_text": GOOD, "text_to_image": GOOD} | changed)
    with pytest.raises(UserError, match=message) as error:
        compare([good, other])
    assert "good and other did not measure retrieval on the same items" in str(error.value)


def test_the_same_items_prepared_otherwise_are_compared_and_told_of(good, tmp_path):
    other = retrieval(tmp_path / "other", GOOD, GOOD, data_sha256="e" * 64)
    (note,) = compare([good, other]).notes
    assert "other has the items of good, but their images or captions are not the same" in note


def test_accuracy_and_balanced_accuracy_are_made_of_what_was_right(tmp_path):
    labels = ["ct"] * 90 + ["mri"] * 10
    one = classes(tmp_path / "one", labels, [1] * 90 + [0] * 10)
    other = classes(tmp_path / "other", labels, [1] * 80 + [0] * 10 + [1] * 10)
    rows = by_name(compare([one, other]))
    assert rows["accuracy"].contrasts[0].difference.difference == pytest.approx(0)
    assert rows["balanced_accuracy"].contrasts[0].difference.difference == pytest.approx((80 / 90 + 1) / 2 - 0.5)
    assert rows["balanced_accuracy"].contrasts[0].difference.p > 0.03  # 10 images of 5 articles: 2/2^5 at the least
    assert rows["auroc"].contrasts == ()  # not compared item by item: side by side
    assert "probability" not in rows


def test_the_same_images_among_more_classes_are_refused(tmp_path):
    """A class that no image shows leaves the items as they are, and makes the choice harder."""
    one = classes(tmp_path / "one", ["ct", "mri"] * 20, [1] * 40)
    other = classes(tmp_path / "other", ["ct", "mri"] * 20, [1] * 40, num_absent=1)
    with pytest.raises(
        UserError, match=r"accuracy of zero-shot among the same candidates or classes \(chance 50.0.*33.3"
    ):
        compare([one, other])


def test_a_probe_that_learned_from_other_images_is_told_of(tmp_path):
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        own = metric("nearest_neighbors/accuracy", 1.0, column="correct", statistic="mean", role="gated")
        facts = {"label": "modality", "trained_on/sha256": folder.name}
        results = Results(kind=Kind.PROBE, metrics=(own,), facts=facts, provenance=PROVENANCE)
        write_results(folder, results, {"id": ["a", "b"], "article": ["a", "b"], "correct": np.ones(2)})
    assert compare(folders).notes == ("probe: other learned from other images or labels than one",)


def test_other_labels_of_the_same_images_are_other_items(tmp_path):
    one = classes(tmp_path / "one", ["ct", "mri"] * 20, [1] * 40)
    other = classes(tmp_path / "other", ["lung", "brain"] * 20, [1] * 40, label="organ")
    with pytest.raises(UserError, match="label modality against organ"):
        compare([one, other])


def compositionality(out, **right):
    """A compositionality evaluation: each test's answers, 1 or 0, for the same items."""
    n = len(next(iter(right.values())))
    items = {"id": [f"item {i}" for i in range(n)], "article": articles_of(n)}
    for test, values in right.items():
        items |= {f"tests/{test}/correct": np.asarray(values, float), f"tests/{test}/margin": np.zeros(n)}
    metrics = [
        metric(
            f"tests/{test}/accuracy",
            float(np.nanmean(values)),
            column=f"tests/{test}/correct",
            statistic="mean",
            role="gated",
        )
        for test, values in right.items()
    ]
    facts = {f"tests/{test}/num_captions": n for test in right}
    results = Results(kind=Kind.COMPOSITIONALITY, metrics=tuple(metrics), facts=facts, provenance=PROVENANCE)
    write_results(out, results, items)
    return out


def test_parts_of_the_items_are_compared_each_for_itself(tmp_path):
    one = compositionality(tmp_path / "one", sides=[0] * 60, negation=[1] * 60)
    other = compositionality(tmp_path / "other", sides=[1] * 60, negation=[1] * 60)
    rows = by_name(compare([one, other]))
    assert rows["tests/sides/accuracy"].contrasts[0].difference.difference == 1
    assert rows["tests/negation/accuracy"].contrasts[0].difference.difference == 0
    assert len(rows) == 2  # the margin is no figure


def test_corruptions_are_compared_and_gate_nothing(tmp_path):
    for name, ranks in (("one", GOOD), ("other", BAD)):
        columns = {"clean/text_to_image/rank": GOOD, "corruptions/blur/3/text_to_image/rank": ranks}
        write(tmp_path / name, Kind.ROBUSTNESS, {column: ("R@10", "compared", own) for column, own in columns.items()})
    comparison = compare([tmp_path / "one", tmp_path / "other"])
    with pytest.raises(UserError, match="name others with --metric"):
        comparison.regressions(0.01)
    verdicts = {row.name: row.contrasts[0].verdict for row in comparison.rows if row.contrasts}
    assert verdicts == {
        "clean/text_to_image/R@10": "within noise",
        "corruptions/blur/3/text_to_image/R@10": "worse",
    }


def test_other_candidates_are_compared_by_r_at_10_and_gate_nothing(tmp_path):
    for name, ranks in (("one", GOOD), ("other", BAD)):
        columns = {
            "text_to_image/rank": ("R@10", "gated", GOOD),
            "article_disjoint/text_to_image/rank": ("R@10", "compared", ranks),
            "concepts/text_to_image/mAP": ("mean", "gated", np.full(N, 0.5)),
        }
        write(tmp_path / name, Kind.RETRIEVAL, columns)
    comparison = compare([tmp_path / "one", tmp_path / "other"])
    verdicts = {row.name: row.contrasts[0].verdict for row in comparison.rows if row.contrasts}
    assert verdicts["article_disjoint/text_to_image/R@10"] == "worse"
    assert verdicts["concepts/text_to_image/mAP"] == "within noise"
    assert sum(name.startswith("article_disjoint") for name in verdicts) == 1
    assert comparison.regressions(0.01) == []
    assert len(compare([tmp_path / "one", tmp_path / "other"], ["R@10"]).regressions(0.01)) == 1


def write(out, kind, columns):
    """Results with a metric for each column of values of items: its statistic, its role and the values."""
    items = {"id": [f"item {i}" for i in range(N)], "article": articles_of(N)}
    metrics = [
        metric(
            column.removesuffix("rank") + (statistic if column.endswith("rank") else ""),
            0.5,
            column=column,
            statistic=statistic,
            role=role,
        )
        for column, (statistic, role, _) in columns.items()
    ]
    results = Results(kind=kind, metrics=tuple(metrics), facts={}, provenance=PROVENANCE)
    write_results(out, results, items | {column: values for column, (*_, values) in columns.items()})


def test_equal_numbers_of_other_columns_or_statistics_are_not_compared(tmp_path):
    write(tmp_path / "one", Kind.RETRIEVAL, {"a/rank": ("R@10", "gated", GOOD), "b/rank": ("R@5", "gated", GOOD)})
    write(tmp_path / "other", Kind.RETRIEVAL, {"a/rank": ("R@10", "gated", GOOD), "b/rank": ("R@1", "gated", GOOD)})
    comparison = compare([tmp_path / "one", tmp_path / "other"])
    assert [row.name for row in comparison.rows] == ["a/R@10"]
    with pytest.raises(UserError, match="cannot judge what is absent: b/R@5 of other"):
        comparison.regressions(0.01)


def test_three_evaluations_are_corrected_together(good, bad, tmp_path):
    third = retrieval(tmp_path / "third", BAD, BAD)
    two, three = compare([good, bad]), compare([good, bad, third])
    name = "image_to_text/R@5"
    assert [len(row.contrasts) for row in three.rows] == [2] * len(three.rows)
    assert by_name(three)[name].contrasts[0].difference == by_name(two)[name].contrasts[0].difference
    assert by_name(three)[name].contrasts[0].p_holm >= by_name(two)[name].contrasts[0].p_holm


def test_chosen_figures_are_corrected_for_themselves_alone(good, bad):
    (row, other) = (row for row in compare([good, bad], ["R@10"]).rows if row.contrasts)
    assert (row.name, other.name) == ("image_to_text/R@10", "text_to_image/R@10")
    (only,) = (row for row in compare([good, bad], ["image_to_text/R@10"]).rows if row.contrasts)
    assert only.contrasts[0].p_holm == only.contrasts[0].difference.p
    with pytest.raises(UserError, match="no metric of single items is named 'R@7'"):
        compare([good, bad], ["R@7"])


def test_what_only_some_have_is_told(good, bad):
    classes(good, ["ct", "mri"] * 10, [1] * 20)
    comparison = compare([good, bad])
    assert comparison.notes == ("zero-shot is only in good",)
    assert {row.kind for row in comparison.rows} == {"retrieval"}
    with pytest.raises(UserError, match="cannot judge what is absent: zero-shot of bad"):
        comparison.regressions(0.01)
    assert len(compare([good, bad], ["R@10"]).regressions(0.01)) == 1  # what was named is there
    classes(bad.parent / "alone", ["ct", "mri"] * 10, [1] * 20)
    with pytest.raises(UserError, match="no kind in common"):
        compare([bad, bad.parent / "alone"])


def test_a_fall_beyond_noise_is_named_with_its_numbers(good, bad):
    comparison = compare([good, bad])
    (sentence,) = comparison.regressions(0.02)
    assert sentence.startswith("image_to_text/R@10 of bad is ")
    assert "a fall by more than 2." in sentence
    assert comparison.regressions(0.5) == []
    (sentence,) = compare([good, bad], ["R@5"]).regressions(0.02)  # what was chosen judges, whatever its role
    assert sentence.startswith("image_to_text/R@5 of bad is ")
    assert compare([bad, good]).regressions(0.0) == []
    assert compare([good, good]).regressions(0.0) == []


def test_only_shares_can_fall_by_points(good, bad):
    comparison = compare([good, bad], ["median_rank"])
    with pytest.raises(UserError, match="median_rank is not one"):
        comparison.regressions(0.1)
    for below in (-0.1, 1.0, float("nan")):
        with pytest.raises(UserError, match="is not a share"):
            comparison.regressions(below)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("retrieval.json", b"{", "damaged"),
        ("retrieval.json", b"[1]", "does not hold results"),
        ("retrieval.arrow", b"", "absent or damaged"),
        ("retrieval.arrow", None, "absent or damaged"),
        ("retrieval.json", None, "retrieval.json is absent, though it was written"),
    ],
)
def test_damage_is_told_in_a_sentence(good, bad, name, content, message):
    (bad / name).unlink()
    if content is not None:
        (bad / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        compare([good, bad])


def test_items_without_names_or_named_twice_are_told(good, tmp_path):
    ids = ["same"] * N
    twice = retrieval(tmp_path / "twice", GOOD, GOOD, ids, ["one"] * N)
    with pytest.raises(UserError, match="has no items, or one of them twice"):
        compare([good, twice])
    results, _ = read_results(good, Kind.RETRIEVAL)
    write_results(tmp_path / "nameless", results, {"text_to_image/rank": GOOD, "image_to_text/rank": GOOD})
    with pytest.raises(UserError, match="have no id and article"):
        compare([good, tmp_path / "nameless"])
    holes = np.where(np.arange(N) < 5, np.nan, GOOD)
    with pytest.raises(UserError, match="was not judged for the same items by all"):
        compare([good, retrieval(tmp_path / "holes", holes, GOOD)])


def test_items_of_one_article_say_nothing_of_a_difference(tmp_path):
    """Its only resample is itself: an interval without width would claim to be certain."""
    one, other = (
        retrieval(tmp_path / name, ranks, ranks, articles=["patient 1"] * 4)
        for name, ranks in (("one", [1, 1, 9, 2]), ("other", [20, 30, 40, 50]))
    )
    comparison = compare([one, other])
    (fell,) = by_name(comparison)["image_to_text/R@10"].contrasts
    assert (fell.difference.difference, fell.difference.p, fell.verdict) == (-1, 1, "within noise")
    assert np.isnan([fell.difference.low, fell.difference.high]).all()
    assert comparison.notes == (
        "retrieval: all items are of one article or patient, so nothing says whether a difference is noise",
    )
    assert comparison.regressions(0.0) == []
    document = json.loads(json.dumps(as_json(comparison), allow_nan=False))
    assert document["metrics"][0]["contrasts"][0]["low"] is None
    page = comparison_page(comparison)
    assert "−100.0" in page and "nan" not in page


def test_the_json_is_json_and_says_everything(good, bad):
    document = json.loads(json.dumps(as_json(compare([good, bad]))))
    assert [one["name"] for one in document["evaluations"]] == ["good", "bad"]
    (row,) = (row for row in document["metrics"] if row["metric"] == "image_to_text/R@10")
    assert set(row["contrasts"][0]) == {"baseline", "value", "difference", "low", "high", "p", "p_holm", "verdict"}


def test_the_page_stands_alone_and_escapes_names(tmp_path):
    hostile = '<script>alert("x")</script>&'
    one = retrieval(tmp_path / "one", GOOD, GOOD, data=hostile)
    other = retrieval(tmp_path / "<img src=x>", BAD, GOOD, data=hostile)
    classes(one, ["ct", "mri"] * 10, [1] * 20)
    comparison = compare([one, other])
    page = check(comparison_page(comparison, ["<b>fell</b>"]))
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert "zero-shot is only in one".capitalize() in page.text
    assert "<b>fell</b>" in page.text
    assert page.text.count("worse") >= 1
    assert "corrected by Holm" in page.text


def test_a_folder_may_have_a_name_that_is_not_unicode(tmp_path):
    comparison = compare([retrieval(tmp_path / os.fsdecode(name), GOOD, BAD) for name in (b"a\xff", b"b\xff")])
    assert "a\\udcff" in comparison_page(comparison).encode().decode()


def test_same_names_of_folders_are_told_apart_by_their_paths(tmp_path):
    folders = [retrieval(tmp_path / place / "out", GOOD, GOOD) for place in ("a", "b")]
    assert [one.name for one in compare(folders).evaluations] == [str(folder) for folder in folders]
