"""A folder of DICOM studies becomes pairs of images and reports, and nothing that names anybody arrives with them."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pydicom")

from pydicom.uid import BasicTextSRStorage, SecondaryCaptureImageStorage

from medclip.data.dataset import Split
from medclip.data.deidentify import DicomConfig, make_key
from medclip.data.dicom import read_header
from medclip.data.normalize import split_of
from medclip.data.prepare import prepare
from medclip.data.prepare_config import PrepareConfig
from medclip.data.schema import DicomFrame, Pair
from medclip.data.sources.detect import open_source
from medclip.data.sources.dicom_rows import LOCALIZER, OTHER_SLICE, UNUSED_REPORT, structured_report_text
from medclip.data.sources.dicom_studies import DIRECTORY, OTHER_FILE
from support.dicom_files import PACKAGED, count_removed, dicom, gray_ramp, sequence, without_meta, write_dicom
from support.material import draw_image, image_bytes

REPORT = "CT of the chest: no pleural effusion."


@pytest.fixture
def key(tmp_path):
    make_key(tmp_path / "key", tmp_path / "out")
    return tmp_path / "key"


def write_image(folder: Path, name: str, study: str = "1", number: int = 1, **attributes) -> Path:
    series = attributes.pop("series", f"1.2.{study}.1")
    patient = attributes.pop("PatientID", f"patient {study}")
    ds = dicom(gray_ramp(), StudyInstanceUID=f"1.2.{study}", SeriesInstanceUID=series, InstanceNumber=number)
    ds.PatientID = patient
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return write_dicom(ds, folder / name)


def structured_report(*texts: tuple[str, str], kind: str = BasicTextSRStorage, study: str = "1", **attributes):
    ds = dicom(None, StudyInstanceUID=f"1.2.{study}", SOPClassUID=kind, Modality="SR", **attributes)
    items = []
    for heading, text in texts:
        item = sequence(ValueType="TEXT", TextValue=text)[0]
        item.ConceptNameCodeSequence = sequence(CodeValue="1", CodingSchemeDesignator="X", CodeMeaning=heading)
        items += sequence(ValueType="CONTAINER", ContentSequence=[item])
    ds.ContentSequence = items
    return ds


def read(folder, **settings):
    return list(open_source(str(folder), PrepareConfig(studies=DicomConfig(**settings))))


def captions(folder, **settings):
    return [row.caption if isinstance(row, Pair) else row.reason for row in read(folder, **settings)]


def used_files(folder, key, **settings):
    return [row.image.file.name for row in read(folder, pseudonym_key=key, **settings) if isinstance(row, Pair)]


@pytest.mark.parametrize(
    "place",
    [
        "p/s/x/1.txt",
        "p/s/x/report.txt",
        "p/s/x/x.txt",
        "p/s/x.txt",
        "p/s/report.txt",
        "p/s.txt",
        "p/s/s.txt",
        "report.txt",
    ],
)
def test_a_report_lies_beside_the_image_or_in_the_folder_of_its_study(tmp_path, key, place):
    folder = tmp_path / "studies"
    write_image(folder, "p/s/x/1.dcm")
    (folder / place).write_text(REPORT, encoding="utf-8")
    assert captions(folder, pseudonym_key=key) == [REPORT]


def test_names_full_of_dots_keep_them(tmp_path, key):
    folder = tmp_path / "studies"
    write_image(folder, "1.2.3/1.2.840.5")
    write_image(folder, "1.2.4/1.2.840.6", study="2")
    (folder / "1.2.3" / "1.2.840.5.txt").write_text("The first report", encoding="utf-8")
    (folder / "1.2.4.txt").write_text("The second report", encoding="utf-8")
    assert captions(folder, pseudonym_key=key) == ["The first report", "The second report"]


def test_a_report_above_two_studies_belongs_to_neither(tmp_path, key):
    folder = tmp_path / "studies"
    write_image(folder, "p/a/1.dcm", study="1")
    write_image(folder, "p/b/1.dcm", study="2")
    (folder / "p" / "report.txt").write_text(REPORT, encoding="utf-8")
    assert captions(folder, pseudonym_key=key) == ["no report", "no report", UNUSED_REPORT]


def test_a_structured_report_is_found_by_its_study_wherever_it_lies(tmp_path, key):
    folder = tmp_path / "studies"
    write_image(folder, "images/1.dcm", study="1")
    write_image(folder, "images/2.dcm", study="2")
    texts = ("History", "Cough for a week."), ("Findings", "No effusion."), ("Impression", "Normal chest.")
    write_dicom(structured_report(*texts), folder / "reports" / "1.dcm")
    write_dicom(structured_report(("Procedure", "Only this."), study="2"), folder / "reports" / "2.dcm")
    dose = "1.2.840.10008.5.1.4.1.1.88.67"
    write_dicom(structured_report(("Findings", "Dose 3 mGy"), kind=dose, study="2"), folder / "reports" / "3.dcm")
    rows = captions(folder, pseudonym_key=key)
    assert rows == ["No effusion.\nNormal chest.", "Only this.", "DICOM object that is not an image: SR"]


def test_a_structured_report_in_german_is_its_reading(tmp_path, key):
    folder = tmp_path / "studies"
    write_image(folder, "images/1.dcm", study="1")
    texts = ("Klinische Angaben", "Husten."), ("Befund", "Lunge frei."), ("Beurteilung", "Normalbefund.")
    write_dicom(structured_report(*texts), folder / "reports" / "1.dcm")
    assert captions(folder, pseudonym_key=key) == ["Lunge frei.\nNormalbefund."]


@pytest.mark.parametrize(
    ("file", "start"), [("reportsi.dcm", "Enter text\nEnter text"), ("test-SR.dcm", "A mass of\nwas detected.\n")]
)
def test_pydicoms_own_reports_are_read(file, start):
    assert structured_report_text(read_header(PACKAGED / file)).startswith(start)


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "no report"), (b" \n", "no report"), (b"\xff\xfe\xff", "report is not UTF-8")]
)
def test_a_report_without_text_is_a_reason(tmp_path, key, content, reason):
    write_image(tmp_path / "studies", "1.dcm")
    (tmp_path / "studies" / "1.txt").write_bytes(content)
    assert captions(tmp_path / "studies", pseudonym_key=key) == [reason]


def test_a_series_of_slices_gives_its_middle_one_or_all(tmp_path, key):
    folder = tmp_path / "studies"
    for number in (3, 1, 2, 10, 11):  # by number, not by name
        write_image(folder, f"{number}.dcm", number=number)
    for number in (1, 2):  # views of a film are not slices
        write_image(folder, f"film-{number}.dcm", series="1.2.1.2", Modality="DX")
    (folder / "report.txt").write_text(REPORT, encoding="utf-8")
    assert used_files(folder, key) == ["3.dcm", "film-1.dcm", "film-2.dcm"]
    assert Counter(captions(folder, pseudonym_key=key)) == {REPORT: 3, OTHER_SLICE: 4}
    assert len(read(folder, pseudonym_key=key, frames="all")) == 7


AXIAL, SAGITTAL = [1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1]


@pytest.mark.parametrize("orientation", [AXIAL, SAGITTAL, [1, 0, 0, 0, 0.8, 0.6]])
def test_the_middle_slice_is_the_one_in_the_middle_of_the_patient(tmp_path, key, orientation):
    folder = tmp_path / "studies"
    normal = np.cross(orientation[:3], orientation[3:])
    for name, distance in zip("abcdefghi", (40, 10, 80, 0, 60, 70, 20, 50, 30), strict=True):
        position = [float(n) for n in 5 + normal * distance]
        write_image(
            folder, f"{name}.dcm", number="", ImageOrientationPatient=orientation, ImagePositionPatient=position
        )
    (folder / "report.txt").write_text(REPORT, encoding="utf-8")
    assert used_files(folder, key) == ["a.dcm"]  # 40 of 0 to 80
    assert used_files(folder, key, frames="all") == [f"{name}.dcm" for name in "dbgiahefc"]
    assert Counter(captions(folder, pseudonym_key=key)) == {REPORT: 1, OTHER_SLICE: 8}


def test_localizers_are_counted_and_the_largest_stack_has_the_middle(tmp_path, key):
    folder = tmp_path / "studies"
    for number in range(1, 4):
        write_image(folder, f"scout-{number}.dcm", number=number, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    for z in range(5):
        at = {"ImageOrientationPatient": AXIAL, "ImagePositionPatient": [0, 0, 10 * z]}
        write_image(folder, f"axial-{z}.dcm", number=9 - z, **at)
    for x in range(3):
        at = {"ImageOrientationPatient": SAGITTAL, "ImagePositionPatient": [x, 0, 0]}
        write_image(folder, f"sagittal-{x}.dcm", number=20 + x, **at)
    (folder / "report.txt").write_text(REPORT, encoding="utf-8")
    assert used_files(folder, key) == ["axial-2.dcm"]
    assert Counter(captions(folder, pseudonym_key=key)) == {REPORT: 1, OTHER_SLICE: 7, LOCALIZER: 3}


def test_slices_without_number_or_position_go_by_their_location(tmp_path, key):
    for name, location in zip("abc", (5, 9, 1), strict=True):
        write_image(tmp_path / "studies", f"{name}.dcm", number="", SliceLocation=location)
    (tmp_path / "studies" / "report.TXT").write_text(REPORT, encoding="utf-8")
    assert used_files(tmp_path / "studies", key) == ["a.dcm"]


def test_the_directory_of_a_cd_hides_no_report(tmp_path, key):
    folder = tmp_path / "cd"
    (folder / "IMAGES").mkdir(parents=True)
    (folder / "DICOMDIR").write_bytes((PACKAGED / "dicomdirtests" / "DICOMDIR").read_bytes())
    write_image(folder, "IMAGES/IM1", Modality="DX")
    write_image(folder, "IMAGES/IM2", Modality="DX")
    (folder / "report.txt").write_text(REPORT, encoding="utf-8")
    assert captions(folder, pseudonym_key=key) == [REPORT, REPORT, DIRECTORY]


def test_files_without_preamble_are_images_of_their_study(tmp_path, key):
    folder = tmp_path / "studies"
    write_image(folder, "whole.dcm", Modality="DX")
    bare = write_image(folder, "IM0002", Modality="DX")
    bare.write_bytes(without_meta(bare.read_bytes()))
    (folder / "report.txt").write_text(REPORT, encoding="utf-8")
    assert captions(folder, pseudonym_key=key) == [REPORT, REPORT]


def test_a_file_of_frames_gives_its_middle_one_or_all(tmp_path, key):
    folder = tmp_path / "studies"
    ds = dicom(np.stack([gray_ramp()] * 3), SOPInstanceUID="1.2.9", PatientID="4711", Modality="US")
    path = write_dicom(ds, folder / "1.dcm")
    (folder / "1.txt").write_text(REPORT, encoding="utf-8")
    assert [row.image for row in read(folder, pseudonym_key=key)] == [DicomFrame(path)]
    every = read(folder, pseudonym_key=key, frames="all")
    assert [row.image for row in every] == [DicomFrame(path, n) for n in range(3)]
    assert len({row.id for row in every}) == 3


def test_a_file_cannot_claim_more_frames_than_it_has_bytes(tmp_path, key):
    path = write_dicom(dicom(gray_ramp(), NumberOfFrames=2 * 10**9), tmp_path / "studies" / "1.dcm")
    path.with_suffix(".txt").write_text(REPORT, encoding="utf-8")
    assert len(read(path.parent, pseudonym_key=key, frames="all")) == path.stat().st_size


def test_only_images_are_rows_and_damage_is_one(tmp_path, key):
    folder = tmp_path / "studies"
    write_image(folder, "1.dcm")
    for name in ("rtdose.dcm", "rtplan.dcm", "liver_1frame.dcm", "waveform_ecg.dcm"):
        (folder / name).write_bytes((PACKAGED / name).read_bytes())
    (folder / "notes.pdf").write_bytes(b"%PDF")
    (folder / "cut.dcm").write_bytes((folder / "1.dcm").read_bytes()[:100])
    (folder / "1.txt").write_text(REPORT, encoding="utf-8")
    assert sorted(captions(folder, pseudonym_key=key)) == [
        REPORT,
        *(f"DICOM object that is not an image: {modality}" for modality in ("ECG", "RTDOSE", "RTPLAN", "SEG")),
        "image unreadable",
        OTHER_FILE,
    ]


def test_a_patient_has_one_split_and_the_key_decides_which(tmp_path, key):
    folder = tmp_path / "studies"
    for number in range(40):
        write_image(folder, f"{number}/1.dcm", study=str(number), PatientID=f"p{number // 2}")
        (folder / f"{number}.txt").write_text(REPORT, encoding="utf-8")
    rows = read(folder, pseudonym_key=key)
    assert len({row.article for row in rows}) == 20
    assert all(row.split == split_of(row.article) for row in rows)
    write_image(folder, "more/1.dcm", study="77", PatientID="p99")
    assert {row.id: row.split for row in rows}.items() <= {
        row.id: row.split for row in read(folder, pseudonym_key=key)
    }.items()
    make_key(tmp_path / "other", tmp_path / "out")
    assert not {row.id for row in rows} & {row.id for row in read(folder, pseudonym_key=tmp_path / "other")}


def test_text_in_the_image_is_refused_or_masked_and_counted(tmp_path, key):
    folder = tmp_path / "studies"
    write_image(folder, "flagged.dcm", study="1", BurnedInAnnotation="YES")
    write_image(folder, "capture.dcm", study="2", SOPClassUID=SecondaryCaptureImageStorage, Modality="OT")
    write_image(folder, "clean.dcm", study="3", BurnedInAnnotation="NO")
    for name in ("flagged", "capture", "clean"):
        (folder / f"{name}.txt").write_text(REPORT, encoding="utf-8")
    dataset = prepare(
        str(folder), tmp_path / "out", PrepareConfig(studies=DicomConfig(pseudonym_key=key)), num_workers=1
    )
    reasons = [reason for counts in dataset["dropped"].values() for reason in counts]
    assert reasons == ["burned-in annotation"]
    (warning,) = [what for what in count_removed(dataset) if what.startswith("pixels/")]
    assert "does not deny burned-in text" in warning
    masked = prepare(
        str(folder),
        tmp_path / "masked",
        PrepareConfig(studies=DicomConfig(pseudonym_key=key, mask_borders=True)),
        num_workers=1,
    )
    assert count_removed(masked)["pixels/border masked"] == 2
    assert sum(split["pairs"] for split in masked["splits"].values()) == 3


def test_a_table_of_dicom_files_just_works(tmp_path):
    write_image(tmp_path, "a/1.dcm", PatientName="Doe^Jane")
    (tmp_path / "pairs.csv").write_text(
        "path,report,patient\na/1.dcm,CT of the chest of Jane Doe,7\n", encoding="utf-8"
    )
    dataset = prepare(str(tmp_path / "pairs.csv"), tmp_path / "out", num_workers=1)
    (split,) = dataset["splits"]
    assert Split(tmp_path / "out", split).column("caption") == ["CT of the chest of ___"]
    assert dataset["privacy"][split]["report/PatientName"] == 1


def test_images_among_studies_do_not_make_it_an_image_folder(tmp_path, key):
    write_image(tmp_path / "studies", "1.dcm")
    (tmp_path / "studies" / "photo.jpg").write_bytes(image_bytes(draw_image(1)))
    (tmp_path / "studies" / "photo.txt").write_text("Jane Doe", encoding="utf-8")
    assert captions(tmp_path / "studies", pseudonym_key=key) == ["no report", OTHER_FILE, UNUSED_REPORT]


def test_a_value_in_many_reports_is_warned_of_without_being_printed(tmp_path, key, capsys):
    folder = tmp_path / "studies"
    for number in range(12):
        write_image(folder, f"{number}.dcm", study=str(number), OperatorsName="Kyste^A", StationName="CHEST")
        (folder / f"{number}.txt").write_text("CHEST: un kyste du foie.", encoding="utf-8")
    assert captions(folder, pseudonym_key=key) == ["CHEST: un ___ du foie."] * 12
    screen = " ".join(capsys.readouterr().err.split())
    assert "one value of OperatorsName was replaced in the reports of 12 of 12 studies" in screen
    assert "kyste" not in screen.lower()
    assert "StationName" not in screen


def test_reports_of_a_table_are_written_beside_their_images_as_the_page_says(tmp_path, monkeypatch, key):
    for number in ("1", "2"):
        write_image(tmp_path / "STUDIES", f"{number}/IM000001.dcm", study=number, AccessionNumber=f"ACC{number}")
    (tmp_path / "reports.csv").write_text(f"AccessionNumber,report\nACC2,{REPORT}\nACC3,of another\n", "utf-8-sig")
    page = (Path(__file__).parents[3] / "docs/pacs.md").read_text("utf-8")
    monkeypatch.chdir(tmp_path)
    exec(re.search("```python\n(.*?)```", page, re.S)[1], {})
    rows = read("STUDIES", pseudonym_key=key)
    assert [row.caption if isinstance(row, Pair) else row.reason for row in rows] == ["no report", REPORT]
