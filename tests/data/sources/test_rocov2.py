"""ROCOv2 as Zenodo has it: every row of its tables, what is known of an image, and where the image may lie."""

import shutil

import pytest

from medclip.data.prepare import preview
from medclip.data.prepare_config import PrepareConfig
from medclip.data.schema import Dropped
from medclip.data.sources.detect import open_source
from medclip.data.sources.roco import read_rocov2
from medclip.errors import UserError
from support.material import draw_image, image_bytes

CAPTIONS = ("NA", 'A "quoted", comma\nand a new line', "Échographie: 5–10 mm")
SPLITS = {"train": "train", "valid": "validation", "test": "test"}


@pytest.fixture
def rocov2(tmp_path):
    folder = tmp_path / "rocov2"
    licenses = ["ID,PMCID,Attribution,Link"]
    for place, short in enumerate(SPLITS):
        (folder / short).mkdir(parents=True)
        captions, concepts, manual = ["ID,Caption"], ["ID,CUIs"], ["ID,CUIs"]
        for n, caption in enumerate(CAPTIONS):
            id, quoted = f"ROCOv2_2023_{short}_{n:06}", caption.replace('"', '""')
            captions.append(f'{id},"{quoted}"')
            concepts.append(f"{id},C0040405;C0817096")
            manual.append(f"{id},C0040405; C1306645")
            article = f"PMC{100 * place + n // 2}"
            licenses.append(f"{id},{article},CC BY-NC [Jones et al. (2020)],https://host/articles/{article}/")
            (folder / short / f"{id}.jpg").write_bytes(image_bytes(draw_image(n)))
        for name, lines in (("captions", captions), ("concepts", concepts), ("concepts_manual", manual)):
            (folder / f"{short}_{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "license_information.csv").write_text("\n".join(licenses), encoding="utf-8")
    names = 'CUI,Canonical name\nC0040405,X-Ray Computed Tomography\nC1306645,"Plain, x-ray"\n'
    (folder / "cui_mapping.csv").write_text(names, encoding="utf-8")
    return folder


def test_every_row_of_every_split(rocov2):
    read = list(open_source(str(rocov2)))
    assert [(row.split, row.caption) for row in read] == [(s, c) for s in SPLITS.values() for c in CAPTIONS]
    assert all(row.image.is_file() and row.image.stem == row.id for row in read)


def test_the_tables_reach_the_pair(rocov2):
    pair = next(read_rocov2(rocov2))
    assert pair.concepts == ("C0040405", "C0817096", "C1306645")
    assert pair.keywords == ("X-Ray Computed Tomography", "Plain, x-ray")
    assert (pair.article, pair.license) == ("PMC0", "CC BY-NC")
    assert pair.attribution == "CC BY-NC [Jones et al. (2020)] https://host/articles/PMC0/"


@pytest.mark.parametrize("place", ["train_images", "train_images/train"])
def test_images_are_read_from_where_the_archive_was_unpacked(rocov2, place):
    (rocov2 / place).parent.mkdir(exist_ok=True)
    shutil.move(rocov2 / "train", rocov2 / place)
    assert all(row.image.is_file() for row in read_rocov2(rocov2))


def test_the_other_tables_may_be_absent(rocov2):
    for path in rocov2.glob("*.csv"):
        if not path.name.endswith("captions.csv"):
            path.unlink()
    pair = next(read_rocov2(rocov2))
    assert (pair.article, pair.license, pair.concepts) == (pair.id, "", ())


def test_limit_takes_the_first_rows_of_each_split(rocov2):
    read = list(open_source(str(rocov2), PrepareConfig(max_samples=1)))
    assert [(row.split, row.id[-1]) for row in read] == [(split, "0") for split in SPLITS.values()]


def test_nothing_outside_the_image_folders_is_read(rocov2):
    (rocov2 / "secret.jpg").write_bytes(image_bytes(draw_image(9)))
    (rocov2 / "train_captions.csv").write_text("ID,Caption\n../secret,CT of the chest\n,CT\nx,\n")
    pair, *dropped = [row for row in read_rocov2(rocov2) if row.split == "train"]
    assert pair.image == rocov2 / "train" / "secret.jpg"
    assert [row.detail for row in dropped if isinstance(row, Dropped)] == [
        "train_captions.csv row 2",
        "train_captions.csv row 3",
    ]


def test_a_table_without_its_columns_is_named(rocov2):
    (rocov2 / "valid_captions.csv").write_text("name,words\nx,CT\n")
    with pytest.raises(UserError, match=r"valid_captions\.csv has no columns ID and Caption.*name, words"):
        list(read_rocov2(rocov2))
    (rocov2 / "license_information.csv").write_text("x,y\n1,2\n")
    with pytest.raises(UserError, match=r"license_information\.csv has no column 'id'"):
        list(read_rocov2(rocov2))


def test_license_and_attribution_reach_the_prepared_form(rocov2):
    short, *rows = preview(str(rocov2), num_rows=3)
    assert short.reason == "caption under 10 characters"
    assert [row["license"] for row in rows] == ["CC BY-NC"] * 2
    assert all("Jones" in row["attribution"] for row in rows)
