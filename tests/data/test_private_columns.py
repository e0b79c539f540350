"""Patients and studies of tables leave as keyed pseudonyms; articles stay."""

import csv
import json

import pytest

from medclip.data.deidentify import DicomConfig, pseudonymize
from medclip.data.leakage import leakage
from medclip.data.prepare import prepare, preview
from medclip.data.prepare_config import Columns, PrepareConfig
from medclip.data.schema import Pair, is_made_up
from medclip.data.sources.memory import read_memory
from support.material import bytes_on_disk, draw_image, image_bytes
from support.prepared import prepared_rows


def write_source(folder, header, *rows):
    folder.mkdir(parents=True)
    with (folder / "pairs.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    for row in rows:
        (folder / row[0]).write_bytes(image_bytes(draw_image(0), "PNG"))
    return folder / "pairs.csv"


def prepare_table(table, out, key, **columns):
    config = PrepareConfig(columns=Columns(**columns), studies=DicomConfig(pseudonym_key=key))
    return prepare(str(table), out, config, num_workers=1)


def column(out, name):
    return [row[name] for row in prepared_rows(out)]


CAPTION = "Frontal radiograph of the chest"


@pytest.mark.parametrize(
    "name", ["PatientID", "patient_id", "subject id", "Patienten-ID", "StudyInstanceUID", "Accession", "MRN"]
)
def test_no_byte_of_a_dataset_holds_the_patient_or_study_of_a_table(tmp_path, name):
    rows = [[f"{number}.png", f"{CAPTION} {number}", f"PATIENT{number // 2:04}"] for number in range(12)]
    table = write_source(tmp_path / "in", ["image", "caption", name], *rows)
    out = tmp_path / "out"
    dataset = prepare_table(table, out, tmp_path / "key")
    articles = column(out, "article")
    assert sorted(articles.count(article) for article in set(articles)) == [2] * 6
    assert b"PATIENT0" not in bytes_on_disk(out)
    counts = [counts.get("table/patient or study", 0) for counts in dataset["privacy"].values()]
    assert sum(counts) == 12


@pytest.mark.parametrize(("name", "value"), [("pmcid", "PMC12345"), ("doi", "10.1000/182"), ("article", "A1")])
def test_articles_stay_and_make_no_key(tmp_path, name, value):
    table = write_source(tmp_path / "in", ["image", "caption", name], ["a.png", CAPTION, value])
    dataset = prepare_table(table, tmp_path / "out", tmp_path / "key")
    assert column(tmp_path / "out", "article") == [value]
    assert "privacy" not in dataset
    assert not (tmp_path / "key").exists()


def test_a_group_column_of_another_name_is_no_article(tmp_path):
    table = write_source(tmp_path / "in", ["image", "caption", "Kennung"], ["a.png", CAPTION, "F-4711"])
    prepare_table(table, tmp_path / "out", tmp_path / "key", group_column="Kennung")
    assert "F-4711" not in (tmp_path / "out" / "NOTICE.txt").read_text()
    assert column(tmp_path / "out", "article") != ["F-4711"]


@pytest.mark.parametrize(
    ("id", "hidden"), [("4711", True), ("4711_2", True), ("CT-4711", True), ("47110", False), ("a", False)]
)
def test_an_id_that_holds_the_patient_is_a_pseudonym_too(tmp_path, id, hidden):
    table = write_source(tmp_path / "in", ["image", "caption", "PatientID", "id"], ["a.png", CAPTION, "4711", id])
    prepare_table(table, tmp_path / "out", tmp_path / "key")
    (stored,) = column(tmp_path / "out", "id")
    assert (stored != id) == hidden


def test_an_id_column_of_accession_numbers_is_pseudonymized(tmp_path):
    rows = [["a.png", CAPTION, "ACC0815"], ["b.png", f"{CAPTION} b", "ACC0816"]]
    table = write_source(tmp_path / "in", ["image", "caption", "AccessionNumber"], *rows)
    prepare_table(table, tmp_path / "out", tmp_path / "key", id_column="AccessionNumber")
    ids = column(tmp_path / "out", "id")
    assert len(set(ids)) == 2
    assert b"ACC081" not in bytes_on_disk(tmp_path / "out")


@pytest.mark.parametrize("file", ["missing", "broken"])
def test_dropped_rows_do_not_name_the_patient(tmp_path, file):
    rows = [[f"PAT4711_{number}.png", CAPTION, "PAT4711"] for number in range(2)]
    table = write_source(tmp_path / "in", ["image", "caption", "PatientID"], *rows)
    image = tmp_path / "in" / "PAT4711_0.png"
    image.unlink() if file == "missing" else image.write_bytes(b"no image")
    prepare_table(table, tmp_path / "out", tmp_path / "key")
    dropped = (tmp_path / "out" / "dropped.jsonl").read_text()
    assert "___" in dropped
    assert "PAT4711" not in dropped


def test_one_patient_has_one_pseudonym_under_one_key(tmp_path):
    """Leakage between datasets is found with the same key, and with another there is no link."""
    folders = []
    for name, key, split in (("a", "key", "train"), ("b", "key", "test"), ("c", "other", "test")):
        row = [f"{name}.png", f"{CAPTION} {name}", "PAT4711", split]
        table = write_source(tmp_path / name, ["image", "caption", "PatientID", "split"], row)
        prepare_table(table, tmp_path / f"out-{name}", tmp_path / key)
        folders.append(tmp_path / f"out-{name}")
    first, same_key, other_key = folders
    assert leakage(first, same_key)["held_out"]["test"]["shared"]["article"] == 1
    assert leakage(first, other_key)["held_out"]["test"]["shared"]["article"] == 0


def test_a_table_and_a_dicom_study_name_a_patient_alike(tmp_path):
    pytest.importorskip("pydicom")
    from support.dicom_files import dicom, gray_ramp, write_dicom

    write_dicom(dicom(gray_ramp(), PatientID="PAT4711"), tmp_path / "studies" / "x.dcm")
    (tmp_path / "studies" / "x.txt").write_text(CAPTION)
    table = write_source(tmp_path / "in", ["image", "caption", "PatientID"], ["a.png", CAPTION, "PAT4711"])
    sources = ((table, tmp_path / "a"), (tmp_path / "studies", tmp_path / "b"))
    for source, out in sources:
        prepare_table(source, out, tmp_path / "key")
    first, second = (column(out, "article") for _, out in sources)
    assert first == second


def test_a_look_at_a_table_writes_no_key_and_shows_no_patient(tmp_path):
    table = write_source(tmp_path / "in", ["image", "caption", "PatientID"], ["a.png", CAPTION, "PAT4711"])
    (row,) = preview(str(table), PrepareConfig(studies=DicomConfig(pseudonym_key=tmp_path / "key")))
    assert isinstance(row, dict)
    assert "PAT4711" not in str(row)
    assert not (tmp_path / "key").exists()


def test_a_look_at_a_row_without_a_caption_shows_no_patient(tmp_path, medclip):
    table = write_source(tmp_path / "in", ["image", "caption", "PatientID"], ["PAT4711.png", "", "PAT4711"])
    code, out, err = medclip("prepare", table, "--dry-run", "--json", "--pseudonym-key", tmp_path / "key")
    assert code == 0
    assert json.loads(out).keys() == {"dropped", "id", "split", "reason", "detail"}
    assert "PAT4711" not in out + err


def test_rows_in_memory_are_no_exception(tmp_path):
    rows = [{"image": image_bytes(draw_image(0), "PNG"), "caption": CAPTION, "PatientID": "PAT4711"}]
    config = PrepareConfig(studies=DicomConfig(pseudonym_key=tmp_path / "key"))
    prepare(rows, tmp_path / "out", config, num_workers=1)
    assert column(tmp_path / "out", "article") != ["PAT4711"]


def test_a_row_without_private_values_stays():
    pair = Pair("a", b"", CAPTION, "train", "PMC1")
    assert pseudonymize(pair, b"") is pair


@pytest.mark.parametrize(
    ("value", "caption", "stored"),
    [
        ("12345678", "CT of patient 12345678, normal", "CT of patient ___, normal"),
        ("12345678.0", "CT of patient 12345678, normal", "CT of patient ___, normal"),
        ("ACC-0815/2", "CT of the chest (ACC-0815/2)", "CT of the chest (___)"),
        ("12345", "CT of the chest, 1234567 and x12345", "CT of the chest, 1234567 and x12345"),
        ("12", "CT of the chest, 12 nodules", "CT of the chest, 12 nodules"),
        ("chest", "CT of the chest is normal", "CT of the chest is normal"),
    ],
)
def test_a_caption_does_not_hold_the_identifier_of_its_row(tmp_path, value, caption, stored):
    table = write_source(tmp_path / "in", ["image", "caption", "MRN"], ["a.png", caption, value])
    dataset = prepare_table(table, tmp_path / "out", tmp_path / "key")
    assert column(tmp_path / "out", "caption") == column(tmp_path / "out", "caption_original") == [stored]
    counts = [counts.get("caption/patient or study", 0) for counts in dataset["privacy"].values()]
    assert sum(counts) == (stored != caption)


def test_a_patient_that_became_a_float_is_the_same_patient(tmp_path):
    rows = [["a.png", f"{CAPTION} a", "10000032"], ["b.png", f"{CAPTION} b", "10000032.0"]]
    table = write_source(tmp_path / "in", ["image", "caption", "subject_id"], *rows)
    prepare_table(table, tmp_path / "out", tmp_path / "key")
    assert len(set(column(tmp_path / "out", "article"))) == 1
    assert b"10000032" not in bytes_on_disk(tmp_path / "out")


@pytest.mark.parametrize("as_text", [lambda value: value, json.dumps, str], ids=["object", "JSON", "Python"])
def test_an_object_of_a_patient_is_one_group_whatever_else_it_holds(tmp_path, as_text):
    """Two ages of one patient, a study that names its patient, one without, and a patient without id."""
    patients = [{"id": "PAT-77", "age": 63}, {"id": "PAT-77", "age": 64}, {"mrn": "PAT-78", "note": None}, {"age": 63}]
    rows = [
        {"image": f"{number}.png", "caption": f"{CAPTION} of PAT-77 {number}", "patient": as_text(patient)}
        for number, patient in enumerate(patients)
    ]
    rows += [{"image": "4.png", "caption": CAPTION, "study": as_text({"id": "S-1", "patient": {"id": "PAT-77"}})}]
    rows += [{"image": "5.png", "caption": {"study": "CT of the chest"}, "labels": {"study": "chest"}}]
    pairs = list(read_memory(rows, Columns()))
    groups = ["-" if is_made_up(pair.article) else pair.article for pair in pairs]
    assert groups == ["PAT-77", "PAT-77", "PAT-78", "-", "PAT-77", "-"]
    assert "PAT-77" not in pseudonymize(pairs[0], b"key").caption


@pytest.mark.parametrize(
    ("columns", "values"),
    [
        (["PatientID", "PatientName", "PatientBirthDate"], ["P1", "Mustermann^Max", "19500201"]),
        (["Patienten-ID", "Nachname", "Vorname", "Geburtsdatum"], ["P1", "Mustermann", "Max", "01.02.1950"]),
        (["study_id", "Patient's Name", "DOB"], ["P1", "MUSTERMANN, MAX", "2/1/1950"]),
    ],
)
def test_no_byte_of_a_dataset_holds_the_name_or_the_birth_date_of_a_table(tmp_path, columns, values):
    texts = [
        "CT des Thorax von Herrn Max Mustermann, geb. 1. Februar 1950: Rundherd",
        "Mustermann, M., *01.02.50: unauffällig, Maximum 5 mm",
        "CT of the chest on 3 March 2019",
    ]
    files = ["mustermann_max_1950-02-01.png", "2.png", "3.png"]
    rows = [[file, text, *values] for file, text in zip(files, texts, strict=True)]
    rows += [[files[0], "short", *values], ["Max Mustermann.png", texts[2], *values]]
    table = write_source(tmp_path / "in", ["image", "caption", *columns], *rows)
    (tmp_path / "in" / "Max Mustermann.png").write_bytes(b"broken")
    dataset = prepare_table(table, tmp_path / "out", tmp_path / "key", id_column="image")
    stored = bytes_on_disk(tmp_path / "out").lower()
    dates = (b"19500201", b"1950-", b" 1950", b".1950", b"/1950", b"01.02.50")  # a hash may hold 1950
    assert not [secret for secret in (b"mustermann", b" max ", *dates) if secret in stored]
    captions = sorted(column(tmp_path / "out", "caption"))
    assert captions == [
        "CT des Thorax von Herrn ___, geb. ___: Rundherd",
        texts[2],
        "___., *___: unauffällig, Maximum 5 mm",
    ]
    assert sum(counts["caption/name or date"] for counts in dataset["privacy"].values()) == 2
