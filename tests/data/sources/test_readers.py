"""Readers of people's own pairs: tables, folders and archives yield the same pairs, whatever the captions."""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.data.dataset import Split
from medclip.data.normalize import split_of
from medclip.data.prepare import prepare
from medclip.data.prepare_config import Columns, PrepareConfig
from medclip.data.schema import Dropped, Pair, is_made_up
from medclip.data.sources.detect import open_source
from medclip.errors import UserError
from support.archives import tar_bytes
from support.material import draw_image, image_bytes

CAPTIONS = ["NA", "None", "null", 'A "quoted", comma\nand a new line', "Échographie: 5–10 mm", "left knee, lateral"]
VALIDATION_GROUPS = ["p11", "p15", "p31", "p35", "p36", "p37", "p39"]
TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40).filter(str.strip)


@pytest.fixture
def image_folder(tmp_path):
    """A folder with an image for each caption."""
    for number in range(len(CAPTIONS)):
        (tmp_path / f"{number}.jpg").write_bytes(image_bytes(draw_image(number)))
    return tmp_path


def write(folder: Path, suffix: str, rows: list[dict]) -> Path:
    path = folder / f"pairs{suffix}"
    if suffix in (".csv", ".tsv"):
        with path.open("w", encoding="utf-8-sig", newline="") as handle:
            out = csv.DictWriter(handle, list(rows[0]), delimiter="\t" if suffix == ".tsv" else ",")
            out.writeheader()
            out.writerows(rows)
    elif suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows(**changes):
    return [
        {"image": f"{number}.jpg", "caption": caption, "patient": f"p{number // 2}", "license": "CC BY", **changes}
        for number, caption in enumerate(CAPTIONS)
    ]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_table_yields_its_rows_as_written(image_folder, suffix):
    read = list(open_source(str(write(image_folder, suffix, rows()))))
    assert [pair.caption for pair in read] == CAPTIONS
    assert [pair.image for pair in read] == [image_folder / f"{number}.jpg" for number in range(len(CAPTIONS))]
    assert len({pair.id for pair in read if is_made_up(pair.id)}) == len(CAPTIONS)
    assert {(pair.article, pair.split) for pair in read} == {(p, split_of(p)) for p in ("p0", "p1", "p2")}
    assert {pair.license for pair in read} == {"CC BY"}


@given(st.lists(TEXT, min_size=1, max_size=5))
def test_any_caption_comes_back_from_a_csv(tmp_path_factory, captions):
    folder = tmp_path_factory.mktemp("csv")
    path = write(folder, ".csv", [{"image": "x.jpg", "caption": caption} for caption in captions])
    assert [pair.caption for pair in open_source(str(path))] == captions


def test_named_columns_are_taken_before_usual_ones(image_folder):
    table = [{"image": "x", "file": f"{n}.jpg", "caption": "", "findings": c} for n, c in enumerate(CAPTIONS)]
    path = write(image_folder, ".csv", table)
    read = list(open_source(str(path), PrepareConfig(columns=Columns(image_column="file", caption_column="findings"))))
    assert [pair.caption for pair in read] == CAPTIONS


def test_columns_of_a_table_become_labels(image_folder):
    cells = [("CT", 2.0), ("MRI", None), ("", 1.0)]
    table = [{**row, "Modality": m, "grade": g} for row, (m, g) in zip(rows(), cells, strict=False)]
    columns = Columns(label_column=("Modality", "grade"))
    for suffix in (".csv", ".jsonl", ".parquet"):
        read = list(open_source(str(write(image_folder, suffix, table)), PrepareConfig(columns=columns)))
        assert [pair.labels for pair in read] == [{"Modality": "CT", "grade": "2"}, {"Modality": "MRI"}, {"grade": "1"}]
    findings = [{**rows()[0], "findings": ["mass", "edema"]}]
    columns = Columns(label_column="findings")  # as a labels.csv holds several
    for suffix in (".csv", ".parquet"):
        (pair,) = open_source(str(write(image_folder, suffix, findings)), PrepareConfig(columns=columns))
        assert pair.labels == {"findings": "mass;edema;"}


def test_a_label_names_nobody(image_folder):
    path = write(image_folder, ".csv", rows())
    with pytest.raises(UserError, match="--label-column patient: a label is stored as it is"):
        list(open_source(str(path), PrepareConfig(columns=Columns(label_column=("license", "patient")))))


@pytest.mark.parametrize("flag", ["image_column", "caption_column", "group_column", "label_column"])
def test_a_column_is_not_named_in_vain(image_folder, flag):
    config = PrepareConfig(columns=Columns(**{flag: "x"}))
    (image_folder / "0.txt").write_text("CT of the chest")
    (image_folder / "tar").mkdir()
    (image_folder / "tar" / "x.tar").write_bytes(tar_bytes([("0.txt", b"CT of the chest")]))
    for source in (str(image_folder), str(image_folder / "tar"), str(image_folder / "tar" / "x.tar"), "phantoms:4"):
        with pytest.raises(UserError, match=f"--{flag.replace('_', '-')} names a column of a table, but"):
            list(open_source(source, config))


@pytest.mark.parametrize("place", [".", "images"])
def test_rocos_own_csv_is_a_table(image_folder, place):
    (image_folder / "images").mkdir()
    (image_folder / "1.jpg").rename(image_folder / place / "1.jpg")
    path = write(image_folder, ".csv", [{"id": "ROCO_1", "name": "1.jpg", "caption": "CT of the chest"}])
    (pair,) = open_source(str(path))
    assert (pair.id, pair.image, pair.caption) == ("ROCO_1", image_folder / place / "1.jpg", "CT of the chest")


def test_images_may_be_in_the_table(image_folder):
    data = [image_bytes(draw_image(0)), {"bytes": image_bytes(draw_image(1)), "path": "1.jpg"}]
    for image in data:
        path = write(image_folder, ".parquet", [{"image": image, "text": "CT of the chest"}])
        (pair,) = open_source(str(path))
        assert pair.image == (image if isinstance(image, bytes) else image["bytes"])


def test_several_captions_are_several_pairs_of_one_image(image_folder):
    path = write(
        image_folder, ".jsonl", [{"id": "a", "image": "0.jpg", "captions": ["CT of the chest", "A thorax in CT"]}]
    )
    read = list(open_source(str(path)))
    assert [(pair.id, pair.caption) for pair in read] == [("a-0", "CT of the chest"), ("a-1", "A thorax in CT")]
    assert len({(pair.image, pair.article, pair.split) for pair in read}) == 1


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("b' axial ct of the caf\\xc3\\xa9 '", " axial ct of the café "),
        ('b" the patient\'s knee "', " the patient's knee "),
        ("b'not closed", "b'not closed"),
        ("b flat", "b flat"),
    ],
)
def test_the_founding_projects_lines_lose_their_wrapper(image_folder, written, wanted):
    path = write(image_folder, ".json", [{"image_path": "0.jpg", "captions": [written]}])
    (pair,) = open_source(str(path))
    assert pair.caption == wanted


def test_only_the_founding_projects_layout_is_unwrapped(image_folder):
    (pair,) = open_source(str(write(image_folder, ".jsonl", [{"image": "0.jpg", "caption": "b' as written '"}])))
    assert pair.caption == "b' as written '"


def test_a_row_without_image_or_caption_is_dropped_by_number(image_folder):
    path = write(image_folder, ".csv", [*rows()[:2], {**rows()[2], "caption": ""}, {**rows()[3], "image": ""}])
    dropped = [row for row in open_source(str(path)) if isinstance(row, Dropped)]
    assert [(d.reason, d.detail) for d in dropped] == [
        ("row without image or caption", "pairs.csv row 3"),
        ("row without image or caption", "pairs.csv row 4"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", b"image,caption\na,b,c\n", r"x\.csv line 2 has more cells"),
        ("x.csv", b"image,caption\n\xff\xfe,b\n", "is not UTF-8"),
        ("x.csv", b"name,words\na,b\n", "which column is the caption.*name, words"),
        ("x.csv", b"Export of 12 March;;\n;;\nimage;caption;x\n", r"\(Export of 12 March\) names one column"),
        ("x.csv", b"image:caption\na:b\n", r"\(image:caption\) names one column.*commas, semicolons, tabs or bars"),
        (
            "x.csv",
            b"file;words;;\na;b;;\n",
            r"which column is the caption\? Name it with --caption-column: file, words\.$",
        ),
        ("x.jsonl", b'{"image": "a", "caption": "b"}\n{"image"\n', r"x\.jsonl line 2 is not JSON"),
        ("x.jsonl", b"[1]\n", r"line 1 is not a JSON object"),
        ("x.parquet", b"PAR1 and no more", "is not a complete Parquet file"),
        ("x.tar", b"no archive at all", "is damaged after its beginning"),
        ("x.csv", "image,caption\n1.jpg,Échographie\n".encode("latin-1"), "is not UTF-8"),
        ("x.csv", b"image;caption\n1.jpg;CT;MRI\n", r"line 2 has more cells.*Quote the cells that hold semicolons"),
        ("x.csv", b"image,caption\n1.jpg,caf\xe9\n", r"iconv -f WINDOWS-1252 -t UTF-8 \S+/x\.csv"),
        ("x.json", b'[{"image": "1.jpg"', "is not a JSON list"),
        ("x.json", b"[1, 2]", "a list, but not of JSON objects"),
        ("x.arrow", b"ARROW1\0\0 and no more", "is not a complete Arrow file"),
        ("x.arrow", b"", "is not a complete Arrow file"),
        ("x.tar", b"", "is damaged after its beginning"),
    ],
)
def test_a_damaged_source_is_a_mistake_in_words(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        list(open_source(str(tmp_path / name)))


def test_a_column_that_is_not_there_is_named(image_folder):
    with pytest.raises(UserError, match="has no column 'findings'; it has: image, caption"):
        list(
            open_source(
                str(write(image_folder, ".csv", rows())), PrepareConfig(columns=Columns(caption_column="findings"))
            )
        )


def test_a_folder_of_images_with_captions_beside_them(tmp_path):
    for number, place in enumerate(("train/a/1", "train/a/2", "val/b/3", "c/4", "5")):
        path = tmp_path / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_bytes(draw_image(number), "PNG"))
        if place != "train/a/2":
            path.with_suffix(".txt").write_text(f"CT of the chest {number}", encoding="utf-8")
    read = {row.id: row for row in open_source(str(tmp_path))}
    assert {(row.id, row.split, row.article) for row in read.values() if isinstance(row, Pair)} == {
        ("train/a/1", "train", "a"),
        ("val/b/3", "validation", "b"),
        ("c/4", split_of("c"), "c"),
        ("5", split_of("5"), "5"),
    }
    assert read["train/a/2"].reason == "no caption beside the image"


def write_archive(path: Path, files: dict[str, bytes]) -> Path:
    path.write_bytes(tar_bytes(files.items()))
    return path


def test_archives_of_webdataset(tmp_path):
    fields = json.dumps({"caption": "MRI of the brain", "article": "PMC1", "split": "train", "license": "CC0"}).encode()
    image = image_bytes(draw_image(0))
    write_archive(
        tmp_path / "a.tar", {"d/1.jpg": image, "d/1.txt": b"CT of the chest", "d/2.jpg": image, "d/2.json": fields}
    )
    write_archive(tmp_path / "b.tar", {"3.txt": b"no image here", "4.png": image, "4.json": b"{"})
    one, two, three, four = open_source(str(tmp_path))
    assert (one.id, one.caption, one.image, one.split) == ("d/1", "CT of the chest", image, split_of("d/1"))
    assert (two.caption, two.article, two.split, two.license) == ("MRI of the brain", "PMC1", "train", "CC0")
    assert (three.reason, four.reason) == ("sample without image or caption", "caption unreadable")


def test_a_cut_archive_names_its_last_whole_sample(tmp_path):
    files = {f"{number}.{kind}": image_bytes(draw_image(number)) for number in range(4) for kind in ("jpg", "txt")}
    path = write_archive(tmp_path / "a.tar", files)
    path.write_bytes(path.read_bytes()[:6000])
    with pytest.raises(UserError, match=r"a\.tar is damaged after (sample \d|its beginning).*Fetch it again"):
        list(open_source(str(path)))


def test_a_group_keeps_its_split_however_the_data_grow(image_folder):
    def splits_by_group(count):
        table = [{"image": "0.jpg", "caption": "CT of the chest", "patient": f"p{n}"} for n in range(count)]
        return {pair.article: pair.split for pair in open_source(str(write(image_folder, ".csv", table)))}

    few, more = splits_by_group(40), splits_by_group(200)
    assert few.items() <= more.items()
    assert [group for group, split in few.items() if split == "validation"] == VALIDATION_GROUPS  # on every machine


def test_a_tenth_of_the_groups_is_validation():
    share = sum(split_of(f"PMC{number}") == "validation" for number in range(10_000)) / 10_000
    assert share == pytest.approx(0.1, abs=0.012)  # four standard errors


def test_splits_that_are_mixed_in_a_source_are_whole_in_its_shards(image_folder, monkeypatch):
    monkeypatch.setattr("medclip.data.prepare.SHARD_PAIRS", 2)
    table = [
        {"image": f"{n % 6}.jpg", "caption": f"CT of the chest, number {n}", "split": ("train", "validation")[n % 2]}
        for n in range(11)
    ]
    out = image_folder / "data"
    dataset = prepare(str(write(image_folder, ".jsonl", table)), out, num_workers=1)
    assert {split: len(split_info["shards"]) for split, split_info in dataset["splits"].items()} == {
        "train": 3,
        "validation": 3,
    }
    for split, first in (("train", 0), ("validation", 1)):
        assert Split(out, split).column("caption") == [f"CT of the chest, number {n}" for n in range(first, 11, 2)]
