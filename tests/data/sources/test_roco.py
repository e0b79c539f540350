"""Every row of a ROCO folder is a pair or a named refusal, and nothing outside images/ is read."""

import csv
from collections import Counter
from dataclasses import replace

import pytest

from medclip.data.prepare import prepare
from medclip.data.prepare_config import PrepareConfig
from medclip.data.schema import Dropped, Pair
from medclip.data.sources.roco import read_roco
from medclip.errors import UserError
from support.material import RocoFolder, draw_image, image_bytes


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


def test_the_article_comes_from_the_links_or_the_licenses(roco, copy):
    by_both = pairs_of(roco.folder)["train", "ROCO_00007"]
    assert (by_both.article, by_both.license) == ("PMC1003", "CC BY")
    assert by_both.attribution == "PMC1003, fig-7.jpg"
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
def test_an_image_named_by_its_article_is_located(roco, copy, without):
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
    (folder / "secret.jpg").write_bytes(image_bytes(draw_image(1)))
    (folder / "train" / "secret.jpg").write_bytes(image_bytes(draw_image(1)))
    (pair,) = read_roco(folder)
    assert pair.image.parent == folder / "train" / "radiology" / "images"
    assert pair.image.name != ".."


def as_tables(folder, where):
    """Turns captions.txt into ROCO's other form, with the names that the images have."""
    for split, short in (("train", "train"), ("validation", "val")):
        place = folder / split / "radiology"
        rows = [("id", "name", "caption")]
        for line in (place / "captions.txt").read_text(encoding="utf-8").splitlines():
            id, _, caption = line.partition("\t")
            names = (f"{id}.jpg", *(path.name for path in (place / "images").glob("PMC*") if id == "ROCO_90006"))
            rows.append((id, names[-1], caption))
        (place / "captions.txt").unlink()
        with (folder / split / where.format(short)).open("w", encoding="utf-8", newline="") as handle:
            csv.writer(handle).writerows(rows)


@pytest.mark.parametrize("where", ["radiology/{}data.csv", "radiology{}data.csv"])
def test_the_other_layout_holds_the_same(roco, copy, where):
    folder = copy(roco.folder)
    as_tables(folder, where)
    mine, theirs = ([_without_image(row) for row in read_roco(one)] for one in (folder, roco.folder))
    assert mine == [replace(row, detail=row.detail.replace("captions.txt", where.format("train").split("/")[-1]))
                    if isinstance(row, Dropped) else row for row in theirs]  # fmt: skip
    images = [[pair.image.relative_to(one) for pair in pairs_of(one).values()] for one in (folder, roco.folder)]
    assert images[0] == images[1]


def _without_image(row):
    return row if isinstance(row, Dropped) else replace(row, image=b"")


def test_the_name_of_an_image_gives_its_article(tmp_path):
    place = tmp_path / "test" / "radiology"
    (place / "images").mkdir(parents=True)
    (place / "images" / "PMC12_fig_1.jpg").write_bytes(image_bytes(draw_image(1)))
    (place / "testdata.csv").write_text("id,name,caption\nROCO_1,PMC12_fig_1.jpg,NA\nROCO_2,x.jpg,null\n")
    one, two = read_roco(tmp_path)
    assert (one.caption, one.article, one.attribution) == ("NA", "PMC12", "PMC12, fig_1.jpg")
    assert one.image == place / "images" / "PMC12_fig_1.jpg"
    assert (two.caption, two.article, two.attribution) == ("null", "ROCO_2", "")


def test_a_table_without_its_columns_is_named(tmp_path):
    (tmp_path / "train" / "radiology").mkdir(parents=True)
    (tmp_path / "train" / "radiology" / "traindata.csv").write_text("name,words\na,b\n")
    with pytest.raises(UserError, match=r"traindata\.csv has no columns id and caption.*name, words"):
        list(read_roco(tmp_path))


def test_limit_reads_no_more_than_the_first_rows_of_each_split(roco):
    read = list(read_roco(roco.folder, max_samples=2))
    assert [(row.split, row.id) for row in read] == [
        (split, f"ROCO_0000{n}") for split in ("train", "validation") for n in range(2)
    ]


def test_another_folder_is_refused_by_a_sentence(tmp_path):
    with pytest.raises(UserError, match=r"is not a ROCO folder: it has none of train/radiology/captions\.txt"):
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
def test_the_real_rows_come_out_as_counted_by_hand(shared_folder, tmp_path):
    dataset = prepare(str(shared_folder / "roco"), tmp_path / "data", PrepareConfig(shorter_side=32))
    assert {split: s["pairs"] for split, s in dataset["splits"].items()} == {"train": 4684, "validation": 656}
    short = "caption under 10 characters"
    assert dataset["dropped"] == {
        "train": {"image missing": 79, short: 7},
        "validation": {"image missing": 12, short: 1},
    }
    lines = Counter(row.split for row in read_roco(shared_folder / "roco"))
    assert lines == {"train": 4684 + 79 + 7, "validation": 656 + 12 + 1}
