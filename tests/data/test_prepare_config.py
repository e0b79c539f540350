"""Settings of a preparation: licenses, splits of its own, captions by rule, a notice."""

import csv
from collections import Counter

import pytest

from medclip.data.dataset import Split
from medclip.data.normalize import split_of
from medclip.data.prepare import prepare
from medclip.data.prepare_config import PrepareConfig
from support.material import draw_image, image_bytes
from support.prepared import dropped_rows

LICENSES = ("CC BY", "CC-BY-4.0", "https://creativecommons.org/licenses/by/3.0/", "CC BY-NC", "CC0", "")
CAPTIONS = (
    "Figure 1: CT of the chest",
    "CT  of the\thead &amp; neck",
    "(a) MRI of the left knee",
    "(a) CT of the liver, (b) MRI of it",
    "An X-ray of the pelvis",
    "Fig. 2",
)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Six pairs of six articles, all of a split called test."""
    folder = tmp_path_factory.mktemp("licensed")
    with (folder / "pairs.csv").open("w", newline="", encoding="utf-8") as handle:
        out = csv.writer(handle)
        out.writerow(["id", "image", "caption", "article", "split", "license", "attribution"])
        for n, (license, caption) in enumerate(zip(LICENSES, CAPTIONS, strict=True)):
            (folder / f"{n}.jpg").write_bytes(image_bytes(draw_image(n)))
            attribution = "Jones\tet al." if n == 3 else ""
            out.writerow([n, f"{n}.jpg", caption, f"article {n}", "test", license, attribution])
    return str(folder / "pairs.csv")


def ids(data, split="test"):
    return Split(data, split).column("id")


@pytest.mark.parametrize(
    ("licenses", "expected"),
    [("cc-by", ["0", "1", "2"]), ("CC BY 4.0, cc0", ["0", "1", "2", "4"]), ("cc-by-nc", ["3"])],
)
def test_pairs_of_other_licenses_are_counted_and_named(table, tmp_path, licenses, expected):
    dataset = prepare(table, tmp_path / "data", PrepareConfig(licenses=licenses), num_workers=1)
    assert ids(tmp_path / "data") == expected
    assert dataset["licenses"] == licenses
    dropped = dropped_rows(tmp_path / "data")
    assert {(row["id"], row["detail"]) for row in dropped if row["reason"] == "license not in --licenses"} == {
        (str(n), license) for n, license in enumerate(LICENSES) if str(n) not in expected
    }
    assert dataset["dropped"]["test"]["license not in --licenses"] == 6 - len(expected)


def test_every_caption_says_by_which_rules_it_was_cleaned(table, tmp_path):
    dataset = prepare(table, tmp_path / "data", num_workers=1)
    rows = Split(tmp_path / "data", "test").table.to_pylist()
    assert [row["caption"] for row in rows] == [
        "CT of the chest", "CT of the head & neck", "MRI of the left knee", CAPTIONS[3], CAPTIONS[4],
    ]  # fmt: skip
    assert [row["caption_original"] for row in rows] == list(CAPTIONS[:5])
    assert dataset["caption_rules"]["test"] == Counter(rule for row in rows for rule in row["caption_rules"])
    assert dataset["caption_rules"]["test"] == {
        "figure label dropped": 1,
        "HTML entities decoded": 1,
        "white space made one space": 1,
        "panel label dropped": 1,
    }
    assert dataset["dropped"]["test"] == {"caption under 10 characters": 1}


def test_the_sources_own_splits_can_be_ignored(table, tmp_path):
    dataset = prepare(table, tmp_path / "data", PrepareConfig(resplit=True), num_workers=1)
    assert dataset["resplit"]
    assert set(dataset["splits"]) <= {"train", "validation"}
    for split in dataset["splits"]:
        assert all(split_of(article) == split for article in Split(tmp_path / "data", split).column("article"))
    assert sum(len(ids(tmp_path / "data", split)) for split in dataset["splits"]) == 5


def test_the_notice_says_whose_every_image_is(table, tmp_path):
    prepare(table, tmp_path / "data", num_workers=1)
    head, counts, rows = (tmp_path / "data" / "NOTICE.txt").read_text(encoding="utf-8").split("\n\n")
    assert "the work of others" in head
    assert dict(reversed(line.split("\t")) for line in counts.splitlines()) == dict.fromkeys(LICENSES[:5], "1")
    assert rows.splitlines() == [
        "split\tid\tlicense\tattribution",
        *(f"test\t{n}\t{LICENSES[n]}\t" + ("Jones et al." if n == 3 else f"article {n}") for n in range(5)),
    ]
