"""DATA/report.html is self-contained, escapes what it shows, and exists for any dataset."""

import json
import re

import numpy as np
import pytest

from medclip import NOT_CLINICAL
from medclip.data.stats.report import IMAGES_PER_SPLIT, write_report
from medclip.errors import UserError
from support.handmade_datasets import dataset, row
from support.material import draw_image, image_bytes
from support.pages import check

HOSTILE = '</figcaption><script>alert("x")</script><img src=https://evil.example/x onerror=1> & mass'


def page_of(data, seed=0):
    write_report(data, seed)
    return check((data / "report.html").read_text(encoding="utf-8"))


def table(page, title):
    """The cells of the table of that title, in a line."""
    start = page.text.index(title)
    return " ".join(page.text[start : start + 3000].split())


def test_the_page_states_what_the_dataset_holds(data, roco):
    page = page_of(data)
    assert page.text.count(NOT_CLINICAL) == 2
    for reason in roco.dropped["train"]:
        assert f"dropped: {reason}" in page.text
    assert table(page, "Licenses \n").startswith("Licenses train validation CC BY 25 100.0 % 12 100.0 %")
    assert len(page.images) >= 2 * IMAGES_PER_SPLIT
    assert "ROCO_00003" in page.text


def test_captions_and_all_else_are_text_never_markup(tmp_path):
    fields = {"caption": HOSTILE, "id": HOSTILE, "article": HOSTILE, "license": HOSTILE, "source": HOSTILE}
    lists = {"keywords": [HOSTILE], "concepts": [HOSTILE], "labels": [(HOSTILE, HOSTILE)]}
    rows = [row(n, **fields, **lists) for n in range(6)]
    data = dataset(tmp_path / "data", {"train": rows}, source=HOSTILE, dropped={"x": {HOSTILE: 1}})
    page = page_of(data)
    assert page.text.count("alert(") > 10
    assert page.tags.count("img") == len(page.images)
    assert all(image.startswith("data:image/jpeg;base64,") for image in page.images)


def test_an_article_is_linked_only_by_a_name_of_pubmed_central(tmp_path):
    rows = [row(1, article="PMC123"), row(2, article="PMC12/../x"), row(3, article="javascript:PMC1")]
    page = page_of(dataset(tmp_path / "data", {"train": rows}))
    outside = {link for link in page.links if not link.startswith("#")}
    assert outside == {"https://pmc.ncbi.nlm.nih.gov/articles/PMC123/"}


@pytest.mark.parametrize(
    "splits",
    [
        {"train": []},
        {"train": [], "validation": []},
        {},
        {"test": [1]},
        {f"fold-{n}": [n, n + 10] for n in range(7)},
    ],
    ids=["no pairs", "two empty splits", "no split", "one pair", "seven splits"],
)
def test_any_dataset_has_a_page(tmp_path, splits):
    rows = {name: [row(n) for n in numbers] for name, numbers in splits.items()}
    page = page_of(dataset(tmp_path / "data", rows))
    for name in rows:
        assert name in page.text


def test_empty_fields_are_shown_as_empty(tmp_path):
    rows = [row(n, caption="", article="", license="", source="") for n in range(3)]
    page = page_of(dataset(tmp_path / "data", {"train": rows}))
    assert table(page, "Licenses \n").startswith("Licenses train unknown 3 100.0 %")
    assert "license unknown" in page.text
    assert "No keywords are given." in page.text
    assert "The dataset has no labels." in page.text


def test_rules_and_privacy_are_shown_where_they_were_counted(tmp_path):
    data = dataset(
        tmp_path / "data",
        {"train": [row(1)], "validation": [row(2)]},
        caption_rules={"train": {"panel letters removed": 1234}},
        privacy={"validation": {"burned-in text masked": 77}},
        leakage_removed={"near image": 5},
    )
    page = page_of(data)
    cells = table(page, "Rows of the source")
    assert "caption rule: panel letters removed 1,234 0" in cells
    assert "privacy: burned-in text masked 0 77" in cells
    assert "near image 5" in cells


def test_images_are_sampled_by_the_seed_and_come_from_every_split(tmp_path):
    rows = [row(n, image=image_bytes(draw_image(n))) for n in range(40)]
    data = dataset(tmp_path / "data", {"train": rows, "validation": [row(90), row(91)]})
    pages = [(write_report(data, seed), (data / "report.html").read_bytes())[1] for seed in (0, 0, 1)]
    assert pages[0] == pages[1] != pages[2]
    chosen = sorted(np.random.default_rng(0).choice(40, IMAGES_PER_SPLIT, replace=False))
    page = check(pages[0].decode())
    ids = re.findall(r"\bid(\d+) ", page.text[page.text.index("A random sample") :])
    assert [int(n) for n in ids] == [*chosen, 90, 91]


def test_what_is_shared_is_shown_side_by_side(tmp_path):
    data = dataset(tmp_path / "data", {"train": [row(1), row(2)], "validation": [row(3, image=row(2)["image"])]})
    page = page_of(data)
    cells = table(page, "Examples")
    assert re.search(r"same image.*id3 · validation.*id2 · train", cells)


def test_an_unreadable_image_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("medclip.data.stats.statistics.MAX_NEAR_PAIRS", 0)
    page = page_of(dataset(tmp_path / "data", {"train": [row(1, image=b"no image"), row(2)]}))
    assert page.text.count("The image cannot be read.") == 1
    assert "Near images were not compared" in page.text


def test_the_page_is_whole_or_absent(data, copy, monkeypatch):
    copied = copy(data)
    write_report(copied)
    before = (copied / "report.html").read_bytes()
    monkeypatch.setattr("medclip.html_page.render", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(copied)
    assert (copied / "report.html").read_bytes() == before
    assert not list(copied.glob(".*partial"))


def test_a_damaged_dataset_is_a_clear_error(data, copy):
    copied = copy(data)
    (copied / "train-00000.arrow").write_bytes(b"")
    with pytest.raises(UserError, match="is not a whole Arrow file"):
        write_report(copied)


def test_counts_stay_what_dataset_json_says(data):
    stats = write_report(data)
    content = json.loads((data / "dataset.json").read_text())
    assert {name: split.pairs for name, split in stats.splits.items()} == {
        name: split["pairs"] for name, split in content["splits"].items()
    }
