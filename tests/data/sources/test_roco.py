"""Every row of a ROCO folder is a pair or a named refusal, and nothing outside images/ is read."""

from collections import Counter

import pytest

from conftest import RocoFolder, drawn, encoded
from medclip.data.pairs import Dropped, Pair
from medclip.data.prepare import prepare
from medclip.data.sources.roco import read_roco
from medclip.errors import UserError


def pairs_of(folder):
    return {(row.split, row.id): row for row in read_roco(folder) if isinstance(row, Pair)}


@pytest.fixture
def one_row(tmp_path):
    """A folder of one row with this id and file name in the article."""

    def make(id, pmc_id="", caption="CT of the chest"):
        place = tmp_path / "one" / "train" / "radiology"
        (place / "images").mkdir(parents=True)
        (place / "captions.txt").write_text(f"{id}\t{caption}\n", encoding="utf-8")
        (place / "licences.txt").write_text(f"ROCO_ID,PMC_ID,CC\n{id},{pmc_id},CC BY\n", encoding="utf-8")
        return place.parents[1]

    return make


def test_every_line_is_a_pair_or_a_refusal(roco):
    rows = list(read_roco(roco.folder))
    assert len(rows) == roco.lines
    assert [row.reason for row in rows if isinstance(row, Dropped)] == ["row without id and caption"]


def test_captions_are_handed_over_as_written(roco):
    for key, pair in pairs_of(roco.folder).items():
        if key != ("train", "ROCO_00003"):  # listed twice
            assert pair.caption == f" {roco.captions[key]}"


def test_the_article_comes_from_the_links_or_the_licences(roco, copy):
    by_both = pairs_of(roco.folder)["train", "ROCO_00007"]
    assert (by_both.article, by_both.licence) == ("PMC1003", "CC BY")
    for name in ("dlinks.txt", "licences.txt"):
        folder = copy(roco.folder)
        (folder / "train" / "radiology" / name).unlink()
        assert pairs_of(folder)["train", "ROCO_00007"].article == "PMC1003"
        folder.rename(folder.with_name(f"without-{name}"))


def test_the_tables_beside_the_captions_reach_the_pair(roco):
    pair = pairs_of(roco.folder)["train", "ROCO_00000"]
    assert pair.concepts == ("C0000000", "C9")
    assert pair.semantic_types == ("Diagnostic Procedure",)
    assert pair.labels == {"modality": "ct"}


@pytest.mark.parametrize("without", ["dlinks.txt", "licences.txt"])
def test_a_picture_named_by_its_article_is_found(roco, copy, without):
    folder = copy(roco.folder)
    (folder / "train" / "radiology" / without).unlink()
    image = pairs_of(folder)["train", roco.pmc_named].image
    assert image.is_file()
    assert image.name.startswith("PMC")


@pytest.mark.parametrize(
    "name", ["../../secret", "/etc/hostname", "..", "images/../../secret", "../../../../one/secret", "a\x00b"]
)
@pytest.mark.parametrize("where", ["id", "article"])
def test_no_name_leaves_the_images_folder(one_row, name, where):
    folder = one_row(name if where == "id" else "ROCO_1", f"{name}.jpg" if where == "article" else "")
    (folder / "secret.jpg").write_bytes(encoded(drawn(1)))
    (folder / "train" / "secret.jpg").write_bytes(encoded(drawn(1)))
    (pair,) = read_roco(folder)
    assert pair.image.parent == folder / "train" / "radiology" / "images"
    assert pair.image.name != ".."


def test_another_folder_is_refused_by_a_sentence(tmp_path):
    with pytest.raises(UserError, match=r"is no ROCO folder: looked for one of train/radiology/captions\.txt"):
        list(read_roco(tmp_path))


def test_captions_in_another_encoding_are_refused_by_a_sentence(one_row):
    folder = one_row("ROCO_1")
    (folder / "train" / "radiology" / "captions.txt").write_bytes("ROCO_1\tÉchographie".encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8"):
        list(read_roco(folder))


def test_windows_line_ends_and_a_byte_order_mark_are_no_part_of_a_row(tmp_path):
    made = RocoFolder(tmp_path)
    made.add_split("test", [("ROCO_1", "CT of the chest", 1, None)])
    captions = tmp_path / "test" / "radiology" / "captions.txt"
    captions.write_bytes(b"\xef\xbb\xbf" + captions.read_bytes().replace(b"\n", b"\r\n"))
    (pair,) = read_roco(tmp_path)
    assert (pair.id, pair.caption.strip()) == ("ROCO_1", "CT of the chest")


@pytest.mark.slow
def test_the_real_rows_come_out_as_counted_by_hand(shared, tmp_path):
    about = prepare(str(shared / "roco"), tmp_path / "data", side=32)
    assert {split: s["pairs"] for split, s in about["splits"].items()} == {"train": 4684, "validation": 656}
    short = "caption under 10 characters"
    assert about["dropped"] == {
        "train": {"image missing": 79, short: 7},
        "validation": {"image missing": 12, short: 1},
    }
    lines = Counter(row.split for row in read_roco(shared / "roco"))
    assert lines == {"train": 4684 + 79 + 7, "validation": 656 + 12 + 1}
