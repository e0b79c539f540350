"""Row numbers are not ids, and what names no group shares none: made-up ids mean nothing outside their dataset."""

import csv
import json

import pytest

from medclip.data.dataset import Split
from medclip.data.leakage import decontaminate, leakage
from medclip.data.normalize import split_of
from medclip.data.prepare import drop_repeated_ids, prepare
from medclip.data.schema import Dropped, Pair, is_made_up, is_row_number
from medclip.data.sources.detect import open_source
from support.material import draw_image, image_bytes

CAPTIONS = ["CT of the chest", "MRI of the left knee", "radiograph of the hand"]


def write_site(folder, first, header=("image", "caption", "split"), split="train"):
    """A table of three images without ids in a folder of its own."""
    folder.mkdir()
    with (folder / "pairs.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(header)
        for number, caption in enumerate(CAPTIONS):
            (folder / f"{number}.png").write_bytes(image_bytes(draw_image(first + number, (200, 160)), "PNG"))
            out.writerow([f"{number}.png", f"{caption}, {first}", split])
    return folder


@pytest.fixture
def sites(tmp_path):
    """Two datasets with equal names of tables and of images, and not one image in common."""
    data = []
    for first, name in ((0, "berlin"), (40, "paris")):
        site = write_site(tmp_path / name, first, split="train" if name == "berlin" else "validation")
        prepare(str(site / "pairs.csv"), tmp_path / f"{name}-data", num_workers=1)
        data.append(tmp_path / f"{name}-data")
    return data


def test_two_tables_without_ids_share_nothing(sites, tmp_path):
    berlin, paris = sites
    ids = [Split(berlin, "train").column("id"), Split(paris, "validation").column("id")]
    assert all(map(is_made_up, ids[0] + ids[1])) and not set(ids[0]) & set(ids[1])
    assert leakage(berlin, paris)["held_out"]["validation"]["shared"]["article"] == 0
    assert decontaminate(berlin, tmp_path / "clean", paris) == {}
    assert Split(tmp_path / "clean", "train").table.to_pylist() == Split(berlin, "train").table.to_pylist()


def test_the_copy_without_leaks_keeps_the_notice(sites, tmp_path):
    decontaminate(sites[0], tmp_path / "clean", sites[1])
    assert (tmp_path / "clean" / "NOTICE.txt").read_text() == (sites[0] / "NOTICE.txt").read_text()


def test_the_order_of_rows_decides_no_id(tmp_path):
    rows = [f"{n}.png,CT of the chest {n % 3}" for n in range(8)]
    ids = []
    for order in (rows, rows[::-1]):
        (tmp_path / "x.csv").write_text("\n".join(["image,caption", *order]))
        ids.append({pair.image.name: pair.id for pair in open_source(str(tmp_path / "x.csv"))})
    assert ids[0] == ids[1] and len(set(ids[0].values())) == 8


def test_equal_rows_without_ids_are_both_kept(tmp_path):
    (tmp_path / "x.csv").write_text("image,caption\n1.png,CT\n2.png,CT\n1.png,CT\n1.png,MRI\n1.png,CT\n")
    rows = list(drop_repeated_ids(open_source(str(tmp_path / "x.csv"))))
    assert len(rows) == len({row.id for row in rows}) == 5 and all(isinstance(row, Pair) for row in rows)
    assert len({row.article for row in rows if row.image.name == "1.png"}) == 1


def test_a_stated_id_that_repeats_is_dropped(tmp_path):
    (tmp_path / "x.csv").write_text("id,image,caption\na,1.png,CT\nb,2.png,CT\na,3.png,CT\n")
    rows = list(drop_repeated_ids(open_source(str(tmp_path / "x.csv"))))
    assert [row.reason for row in rows if isinstance(row, Dropped)] == ["duplicate id"]


def test_an_article_that_is_only_the_id_is_not_shared(tmp_path):
    for name, first, split in (("a", 0, "train"), ("b", 40, "test")):
        site = write_site(tmp_path / name, first)
        (site / "pairs.csv").write_text(
            "id,image,caption,split\n" + "".join(f"{n},{n}.png,{c} {first},{split}\n" for n, c in enumerate(CAPTIONS))
        )
        prepare(str(site / "pairs.csv"), tmp_path / f"{name}-data", num_workers=1)
    assert leakage(tmp_path / "a-data", tmp_path / "b-data")["held_out"]["test"]["any"] == 0


NUMBERED = {
    "one caption": lambda n, caption: {"id": n, "image": f"{n}.png", "caption": caption},
    "several captions": lambda n, caption: {"id": n, "image": f"{n}.png", "captions": [caption, f"{caption} again"]},
    "several images": lambda n, caption: {"id": n, "image": [f"{n}.png", f"{n}.png"], "caption": caption},
    "floats": lambda n, caption: {"id": f"{n}.0", "image": f"{n}.png", "caption": caption},
    "padded": lambda n, caption: {"id": f"{n:06}", "image": f"{n}.png", "caption": caption},
    "patients": lambda n, caption: {"id": n, "patient": n + 1, "image": f"{n}.png", "caption": caption},
}


@pytest.mark.parametrize("kind", NUMBERED)
def test_row_numbers_in_a_column_of_ids_share_nothing(tmp_path, kind):
    data = []
    for first, name in ((0, "train"), (40, "test")):
        site = write_site(tmp_path / name, first)
        rows = (NUMBERED[kind](n, f"{caption}, {first}") | {"split": name} for n, caption in enumerate(CAPTIONS))
        (site / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
        prepare(str(site / "pairs.jsonl"), tmp_path / f"{name}-data", num_workers=1)
        data.append(tmp_path / f"{name}-data")
    assert leakage(*data)["held_out"]["test"]["shared"]["article"] == 0
    assert decontaminate(data[0], tmp_path / "clean", data[1]) == {}


def test_a_numbered_patient_in_two_splits_of_one_dataset_leaks(tmp_path):
    site = write_site(tmp_path / "site", 0)
    rows = "".join(f"{n}.png,{caption},7,{'train' if n else 'test'}\n" for n, caption in enumerate(CAPTIONS))
    (site / "pairs.csv").write_text(f"image,caption,PatientID,split\n{rows}")
    prepare(str(site / "pairs.csv"), tmp_path / "data", num_workers=1)
    assert leakage(tmp_path / "data")["held_out"]["test"]["shared"]["article"] == 1


def test_a_long_number_is_the_same_patient_in_another_dataset(tmp_path):
    for first, name in ((0, "train"), (40, "test")):
        site = write_site(tmp_path / name, first)
        (site / "pairs.csv").write_text(f"image,caption,subject_id,split\n0.png,CT of the chest,10000032,{name}\n")
        prepare(str(site / "pairs.csv"), tmp_path / f"{name}-data", num_workers=1)
    assert leakage(tmp_path / "train-data", tmp_path / "test-data")["held_out"]["test"]["shared"]["article"] == 1


@pytest.mark.parametrize(
    ("id", "is_number"),
    [("1", True), ("000017", True), ("17.0", True), ("17-1", True), ("ROCO_00017", False), ("1.2.840.5", False),
     ("auto:1", False), ("", False), ("00000001_000", False)],
)  # fmt: skip
def test_numbers_are_told_from_names(id, is_number):
    assert is_row_number(id) == is_number


@pytest.mark.parametrize(
    "column",
    ["PatientID", "patient id", "subject_id", "uid", "StudyInstanceUID", "Patient_Id", "PATIENT-ID", "Subject ID",
     "patientId", "study_id", "Study Instance UID", "pmcid", "PMC_ID", "article", "AccessionNumber"],
)  # fmt: skip
def test_a_column_of_groups_is_recognized_however_it_is_written(tmp_path, column):
    rows = "".join(f"{n}.png,CT of the chest {n},p{n // 2}\n" for n in range(6))
    (tmp_path / "x.csv").write_text(f"image,caption,{column}\n{rows}")
    read = list(open_source(str(tmp_path / "x.csv")))
    assert [(row.article, row.split) for row in read] == [(f"p{n // 2}", split_of(f"p{n // 2}")) for n in range(6)]


def test_a_patient_goes_before_a_study_and_a_study_before_an_article(tmp_path):
    (tmp_path / "x.csv").write_text(
        "image,caption,Article,StudyInstanceUID,PatientID\n1.png,CT,PMC1,1.2,p1\n2.png,CT,PMC1,1.2,\n3.png,CT,PMC1,,\n"
    )
    assert [row.article for row in open_source(str(tmp_path / "x.csv"))] == ["p1", "1.2", "PMC1"]


def test_subfigures_of_an_article_are_one_group(tmp_path):
    names = ("PMC212319_Fig3_4.jpg", "PMC212319_Fig3_5.jpg", "a/PMC212319_Fig1_0.jpg", "PMC99_Fig3_4.jpg")
    (tmp_path / "x.csv").write_text("image,caption\n" + "".join(f"{name},CT of the chest\n" for name in names))
    read = list(open_source(str(tmp_path / "x.csv")))
    assert [row.article for row in read] == ["PMC212319"] * 3 + ["PMC99"]


@pytest.mark.slow
def test_what_names_no_group_is_said_on_the_terminal(tmp_path, medclip):
    site = write_site(tmp_path / "site", 0)
    code, out, err = medclip("prepare", site / "pairs.csv", "--out", tmp_path / "data")
    assert code == 0 and "without a patient, study or article" in " ".join((out + err).split())
    text = (site / "pairs.csv").read_text()
    (site / "pairs.csv").write_text(text.replace("split", "PatientID"))
    code, out, err = medclip("prepare", site / "pairs.csv", "--out", tmp_path / "grouped")
    assert code == 0 and "without a patient" not in " ".join((out + err).split())


@pytest.mark.parametrize(
    ("rows", "reason", "remedy"),
    [
        ("absent.png,CT of the chest\n", "1 × image missing", "--image-root"),
        ("0.png,CT\n", "1 × caption under 10 characters", "caption column"),
        ("0.png,\n", "1 × row without image or caption", "--caption-column"),
        ("../x.png,CT of the chest\n", "1 × image outside the table's folder", "--image-root"),
    ],
)
def test_zero_pairs_is_a_failure_with_its_reason_and_remedy(tmp_path, medclip, rows, reason, remedy):
    site = write_site(tmp_path / "site", 0)
    (site / "pairs.csv").write_text(f"image,caption\n{rows}")
    code, out, err = medclip("prepare", site / "pairs.csv", "--out", tmp_path / "data")
    text = " ".join((out + err).split())
    assert code == 1 and reason in text and remedy in text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent", "does not exist"),
        ("x.xlsx", "save its sheet as CSV"),
        ("x.zst", "unpack it"),
        ("x.txt", "call it .csv or .tsv"),
        ("x.JPG", "It is one image"),
        ("x.dcm", "It is one DICOM file"),
        ("x.pkl", "as Parquet"),
        ("folder", "befunde.xlsx: It is a spreadsheet"),
        ("images", "1 × file of a kind that is not read: .xlsx (first: befunde.xlsx). It is a spreadsheet"),
    ],
)
def test_a_source_that_cannot_be_read_says_why(tmp_path, medclip, name, message):
    if name in ("folder", "images"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "befunde.xlsx").write_bytes(b"PK\3\4")
        if name == "images":
            (tmp_path / name / "x.png").write_bytes(b"")
    elif name != "absent":
        (tmp_path / name).write_bytes(bytes(128) + b"DICM" if name == "x.dcm" else b"PK\3\4")
    code, out, err = medclip("prepare", tmp_path / name, "--out", tmp_path / "data")
    text = " ".join((out + err).split())
    assert code in (1, 2) and message in text and ("Sources are" in text) == (name == "absent")
