"""Evaluations of the same items are held against each other; others are refused in a sentence."""

import json

import numpy as np
import pytest

from medclip.errors import UserError
from medclip.evaluate import significance
from medclip.evaluate.compare import as_json, compare, regressions
from medclip.evaluate.comparison_report import comparison_page
from medclip.evaluate.results import write_results
from support.handmade_results import FROM, articles_of, classes, figure, retrieval
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
    (fell,), (stayed,) = rows["image_to_text / R@10"].against, rows["text_to_image / R@10"].against
    assert (fell.verdict, stayed.verdict) == ("worse", "within noise")
    assert (stayed.found.difference, stayed.found.low, stayed.found.high) == (0, 0, 0)
    assert fell.found.difference == pytest.approx((BAD <= 10).mean() - (GOOD <= 10).mean())
    assert rows["image_to_text / median_rank"].against[0].verdict == "worse"
    assert rows["image_to_text / geometric_mean_rank"].against[0].found.difference > 1


def test_the_figures_of_the_files_keep_their_intervals(good, bad):
    row = by_name(compare([good, bad]))["image_to_text / R@5"]
    assert [one["value"] for one in row.figures] == [(GOOD <= 5).mean(), (BAD <= 5).mean()]
    assert row.figures[0]["low"] is not None


def test_the_order_of_items_is_no_matter(good, tmp_path):
    order = np.random.default_rng(0).permutation(N)
    ids, articles = [f"item {i}" for i in order], [articles_of(N)[i] for i in order]
    shuffled = retrieval(tmp_path / "shuffled", GOOD[order], GOOD[order], ids, articles)
    for row in compare([good, shuffled]).rows:
        assert row.against[0].found.difference == (1 if row.kind.ratio else 0)
        assert row.against[0].found.p == 1


@pytest.mark.parametrize(
    ("changed", "said"),
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
def test_other_items_are_refused_by_what_differs(good, tmp_path, changed, said):
    other = retrieval(tmp_path / "other", **{"image_to_text": GOOD, "text_to_image": GOOD} | changed)
    with pytest.raises(UserError, match=said) as error:
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
    assert rows["accuracy"].against[0].found.difference == pytest.approx(0)
    assert rows["balanced_accuracy"].against[0].found.difference == pytest.approx((80 / 90 + 1) / 2 - 0.5)
    assert rows["balanced_accuracy"].against[0].found.p > 0.03  # 10 images of 5 articles: 2 / 2^5 at the least
    assert rows["auroc"].against == ()  # of no single item: side by side
    assert "probability" not in rows


def test_other_labels_of_the_same_pictures_are_other_items(tmp_path):
    one = classes(tmp_path / "one", ["ct", "mri"] * 20, [1] * 40)
    other = classes(tmp_path / "other", ["lung", "brain"] * 20, [1] * 40, label="organ")
    with pytest.raises(UserError, match="label modality against organ"):
        compare([one, other])


def understood(out, **right):
    """An evaluation of understanding: each test's answers, 1 or 0, for the same items."""
    n = len(next(iter(right.values())))
    items = {
        "id": [f"item {i}" for i in range(n)] * len(right),
        "article": articles_of(n) * len(right),
        "test": [name for name in right for _ in range(n)],
        "correct": np.concatenate([np.asarray(of, float) for of in right.values()]),
        "margin": np.zeros(n * len(right)),
    }
    said = {name: {"captions": n, "accuracy": figure(float(np.mean(of)))} for name, of in right.items()}
    write_results(out, "understanding", {"pool": n, "chance": 0.5, "tests": said, **FROM}, items)
    return out


def test_parts_of_the_items_are_compared_each_for_itself(tmp_path):
    one = understood(tmp_path / "one", sides=[0] * 60, negation=[1] * 60)
    other = understood(tmp_path / "other", sides=[1] * 60, negation=[1] * 60)
    rows = by_name(compare([one, other]))
    assert rows["tests / sides / accuracy"].against[0].found.difference == 1
    assert rows["tests / negation / accuracy"].against[0].found.difference == 0
    assert len(rows) == 2  # the margin is no figure


def test_corruptions_are_compared_by_their_main_figure(tmp_path):
    for name, ranks in (("one", GOOD), ("other", BAD)):
        items = {
            "id": [f"item {i}" for i in range(N)] * 2,
            "article": articles_of(N) * 2,
            "corruption": ["none"] * N + ["blur"] * N,
            "severity": [0] * N + [3] * N,
            "rank_text_to_image": np.concatenate([GOOD, ranks]),
        }
        write_results(tmp_path / name, "robustness", {"clean": {"R@10": figure(0.1)}, **FROM}, items)
    comparison = compare([tmp_path / "one", tmp_path / "other"])
    with pytest.raises(UserError, match="name others with --metric"):
        regressions(comparison, 0.01)
    found = {row.name: row.against[0].verdict for row in comparison.rows if row.kind}
    assert found == {"none / 0 / text_to_image / R@10": "within noise", "blur / 3 / text_to_image / R@10": "worse"}


def test_other_pools_are_compared_by_their_main_figure_and_gate_nothing(tmp_path):
    for name, ranks in (("one", GOOD), ("other", BAD)):
        items = {"id": [f"item {i}" for i in range(N)], "article": articles_of(N), "rank_text_to_image": GOOD}
        pools = {"text_to_image": {"R@10": figure(float((GOOD <= 10).mean()))}, "concepts": {"mAP": figure(0.5)}}
        items |= {"rank_article_disjoint / text_to_image": ranks, "concepts / mAP": np.full(N, 0.5)}
        write_results(tmp_path / name, "retrieval", {**pools, **FROM}, items)
    comparison = compare([tmp_path / "one", tmp_path / "other"])
    found = {row.name: row.against[0].verdict for row in comparison.rows if row.kind}
    assert found["article_disjoint / text_to_image / R@10"] == "worse"
    assert found["concepts / mAP"] == "within noise"
    assert sum(name.startswith("article_disjoint") for name in found) == 1
    assert regressions(comparison, 0.01) == []
    assert len(regressions(compare([tmp_path / "one", tmp_path / "other"], ["R@10"]), 0.01, ["R@10"])) == 1


def test_three_evaluations_are_corrected_together(good, bad, tmp_path):
    third = retrieval(tmp_path / "third", BAD, BAD)
    two, three = compare([good, bad]), compare([good, bad, third])
    name = "image_to_text / R@5"
    assert [len(row.against) for row in three.rows] == [2] * len(three.rows)
    assert by_name(three)[name].against[0].found == by_name(two)[name].against[0].found
    assert by_name(three)[name].against[0].corrected >= by_name(two)[name].against[0].corrected


def test_chosen_figures_are_corrected_for_themselves_alone(good, bad):
    (row, other) = (row for row in compare([good, bad], ["R@10"]).rows if row.kind)
    assert (row.name, other.name) == ("image_to_text / R@10", "text_to_image / R@10")
    (only,) = (row for row in compare([good, bad], ["image_to_text/R@10"]).rows if row.kind)
    assert only.against[0].corrected == only.against[0].found.p
    with pytest.raises(UserError, match="no figure of single items is named 'R@7'"):
        compare([good, bad], ["R@7"])


def test_what_only_some_have_is_told(good, bad):
    classes(good, ["ct", "mri"] * 10, [1] * 20)
    comparison = compare([good, bad])
    assert comparison.notes == ("zero-shot is only in good",)
    assert {row.measure for row in comparison.rows} == {"retrieval"}
    with pytest.raises(UserError, match="cannot judge what is absent: zero-shot of bad"):
        regressions(comparison, 0.01)
    assert len(regressions(compare([good, bad], ["R@10"]), 0.01, ["R@10"])) == 1  # what was named is there
    classes(bad.parent / "alone", ["ct", "mri"] * 10, [1] * 20)
    with pytest.raises(UserError, match="no measure in common"):
        compare([bad, bad.parent / "alone"])


def test_a_fall_beyond_noise_is_named_with_its_numbers(good, bad):
    comparison = compare([good, bad])
    (sentence,) = regressions(comparison, 0.02)
    assert sentence.startswith("image_to_text / R@10 of bad is ")
    assert "a fall by more than 2." in sentence
    assert regressions(comparison, 0.5) == []
    assert regressions(compare([bad, good]), 0.0) == []
    assert regressions(compare([good, good]), 0.0) == []


def test_only_shares_can_fall_by_points(good, bad):
    comparison = compare([good, bad], ["median_rank"])
    with pytest.raises(UserError, match="median_rank is none"):
        regressions(comparison, 0.1, ["median_rank"])
    for below in (-0.1, 1.0, float("nan")):
        with pytest.raises(UserError, match="is no share"):
            regressions(comparison, below)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("results.json", b"{", "damaged"),
        ("results.json", b"[1]", "holds no results"),
        ("results.arrow", b"", "absent or damaged"),
        ("results.arrow", None, "absent or damaged"),
        ("results.json", None, "holds no evaluation"),
    ],
)
def test_damage_is_told_in_a_sentence(good, bad, name, content, said):
    (bad / name).unlink()
    if content is not None:
        (bad / name).write_bytes(content)
    with pytest.raises(UserError, match=said):
        compare([good, bad])


def test_items_without_names_or_named_twice_are_told(good, tmp_path):
    ids = ["same"] * N
    twice = retrieval(tmp_path / "twice", GOOD, GOOD, ids, ["one"] * N)
    with pytest.raises(UserError, match="has no items, or one of them twice"):
        compare([good, twice])
    write_results(tmp_path / "nameless", "retrieval", {}, {"rank_text_to_image": GOOD})
    with pytest.raises(UserError, match="have no id and article"):
        compare([good, tmp_path / "nameless"])
    holes = np.where(np.arange(N) < 5, np.nan, GOOD)
    with pytest.raises(UserError, match="was not judged for the same items by all"):
        compare([good, retrieval(tmp_path / "holes", holes, GOOD)])


def test_the_json_is_json_and_says_everything(good, bad):
    said = json.loads(json.dumps(as_json(compare([good, bad]))))
    assert [one["name"] for one in said["evaluations"]] == ["good", "bad"]
    (row,) = (row for row in said["figures"] if row["figure"] == "image_to_text / R@10")
    assert set(row["against"][0]) == {"baseline", "value", "difference", "low", "high", "p", "p_holm", "verdict"}


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


def test_same_names_of_folders_are_told_apart_by_their_paths(tmp_path):
    folders = [retrieval(tmp_path / place / "out", GOOD, GOOD) for place in ("a", "b")]
    assert [one.name for one in compare(folders).evaluations] == [str(folder) for folder in folders]
