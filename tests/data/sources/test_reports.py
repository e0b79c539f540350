"""A caption that is a whole report is its findings and its impression."""

import json

import pytest

from medclip.data.deidentify import DicomConfig, make_key
from medclip.data.prepare_config import DEFAULT, Columns, PrepareConfig
from medclip.data.prepare_row import prepare_rows
from medclip.data.schema import Dropped, Pair
from medclip.data.sources.detect import open_source
from medclip.data.sources.reports import OTHER_SECTIONS, read_report, select_reading
from support.archives import tar_bytes
from support.material import draw_image, image_bytes

REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___ year old woman with ?pleural effusion

 COMPARISON:  None.

 FINDINGS:

 LUNGS: There is no focal consolidation; no comparison: ___.

 IMPRESSION:

 No acute process.

 NOTIFICATION:  Dr. ___ by phone.
"""
READING = "LUNGS: There is no focal consolidation; no comparison: ___.\nNo acute process."


@pytest.mark.parametrize(
    ("report", "reading"),
    [
        (REPORT, READING),
        (" ".join(REPORT.split()), READING),
        (REPORT.replace("\n", "\r\n"), READING),
        (
            "Exam: chest. Findings: clear lungs. Impression: normal. Electronically signed by A. B",
            "clear lungs.\nnormal.",
        ),
        ("Findings\nClear lungs.\nImpression\nNormal", "Clear lungs.\nNormal"),
        ("INDICATION: pain\nFINDINGS/IMPRESSION: a fracture\nRECOMMENDATION(S): CT", "a fracture"),
        ("INDICATION: pain FINDINGS: IMPRESSION: no fracture", "no fracture"),
        ("BEFUND: Lunge frei.\nBEURTEILUNG: unauffällig", "Lunge frei.\nunauffällig"),
        ("Finding: a mass. Examination: axial CT. Technique: dual energy", "a mass. Examination: axial CT."),
        ("FINDINGS: a mass. EXAMINATION: CT", "a mass."),
        ("Impression: a mass.\nExam: CT", "a mass."),
        ("HALLAZGOS: sin derrame.\nCONCLUSIÓN: normal", "sin derrame.\nnormal"),
    ],
)
def test_the_reading_of_a_report(report, reading):
    assert select_reading(report) == reading


@pytest.mark.parametrize(
    "text",
    [
        "",
        "CT of the chest. Findings: a mass. Technique: axial CT.",  # a figure's caption
        "EXAMINATION: chest\nCOMPARISON: none\n\nThe lungs are clear.",  # no section to select
        "FINDINGS: clear lungs",
        "Finding: a mass. Examination: axial CT of the chest.",
        "No findings: the impression: of a mass",
        "INDICATION: pain\nFINDINGS:\nIMPRESSION:",
    ],
)
def test_another_text_stays_whole(text):
    assert select_reading(text) == text


def write_image(folder, name):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(image_bytes(draw_image(1)))


def test_reports_are_read_wherever_captions_are_reports(tmp_path):
    write_image(tmp_path / "folder", "p/x.png")
    (tmp_path / "folder" / "p" / "x.txt").write_text(REPORT)
    (tmp_path / "x.jsonl").write_text(json.dumps({"image": "x.png", "report": REPORT}))
    for source in ("folder", "x.jsonl"):
        (pair,) = open_source(str(tmp_path / source))
        assert (pair.caption, pair.removed) == (READING, (OTHER_SECTIONS,))


@pytest.mark.parametrize(
    ("columns", "row", "captions"),
    [
        (("findings", "impression"), {"findings": "clear lungs", "impression": "normal"}, ["clear lungs\nnormal"]),
        (("impression", "findings"), {"findings": "clear lungs", "impression": "normal"}, ["normal\nclear lungs"]),
        (("findings", "impression"), {"findings": "  ", "impression": "normal"}, ["normal"]),
        (("findings", "impression"), {"findings": None, "impression": ["a", "b"]}, ["a\nb"]),
        ("findings", {"findings": "clear lungs", "impression": "normal"}, ["clear lungs"]),
        ((), {"caption": ["a", None, "b"]}, ["a", "b"]),
        ((), {"caption": '["a", "b"]'}, ["a", "b"]),
        ((), {"caption": "['a', \"b's\"]"}, ["a", "b's"]),
        ((), {"caption": "[a] lung window"}, ["[a] lung window"]),
        ((), {"caption": r'["a\/b", "\u00e9"]'}, ["a/b", "é"]),
        ((), {"caption": '[{"raw": "a"}, {"raw": "b"}]'}, ["a", "b"]),
        ((), {"caption": '{"findings": "a", "impression": null}'}, ["a"]),
        ((), {"caption": "{'findings': 'a', 'impression': None}"}, ["a"]),
        ((), {"caption": '{"a" of 3}'}, ['{"a" of 3}']),
        ((), {"captions": [{"raw": "a", "tokens": ["a"]}, {"raw": "b"}]}, ["a", "b"]),
        ((), {"caption": {"short": "a", "long": "b", "other": None}}, ["a", "b"]),
        ((), {"caption": {"caption": "a", "language": "en"}}, ["a"]),
    ],
)
def test_captions_in_several_columns_lists_and_objects(tmp_path, columns, row, captions):
    (tmp_path / "x.jsonl").write_text(json.dumps({"id": "1", "image": "x.png", **row}))
    pairs = list(open_source(str(tmp_path / "x.jsonl"), PrepareConfig(columns=Columns(caption_column=columns))))
    assert [pair.caption for pair in pairs if isinstance(pair, Pair)] == captions
    assert len({pair.id for pair in pairs}) == len(captions) and len({pair.article for pair in pairs}) == 1


def test_captions_of_an_archive_may_be_lists_of_objects_and_reports(tmp_path):
    fields = {"id": "a", "captions": [{"raw": "CT of the chest"}, REPORT, None]}
    members = [("a.png", image_bytes(draw_image(1), "PNG")), ("a.json", json.dumps(fields).encode())]
    (tmp_path / "x.tar").write_bytes(tar_bytes(members))
    pairs = list(open_source(str(tmp_path / "x.tar")))
    assert [(pair.id, pair.caption) for pair in pairs] == [("a-0", "CT of the chest"), ("a-1", READING)]


def test_the_sections_that_a_report_of_a_study_loses_are_counted(tmp_path):
    pytest.importorskip("pydicom")
    from support.dicom_files import dicom, gray_ramp, write_dicom

    (tmp_path / "study").mkdir()
    write_dicom(dicom(gray_ramp(), StudyInstanceUID="1.2", SeriesInstanceUID="1.3"), tmp_path / "study" / "x.dcm")
    (tmp_path / "study" / "x.txt").write_text(REPORT)
    key = tmp_path / "key"
    make_key(key, tmp_path / "out")
    (pair,) = open_source(str(tmp_path / "study"), PrepareConfig(studies=DicomConfig(pseudonym_key=key)))
    assert pair.caption == READING and OTHER_SECTIONS in pair.removed


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_a_report_is_read_in_the_encoding_that_it_begins_in(tmp_path, encoding):
    (tmp_path / "x.txt").write_bytes("Röntgen-Thorax".encode(encoding))
    assert read_report(tmp_path / "x.txt") == "Röntgen-Thorax"


def test_rtf_is_no_caption(tmp_path):
    report = r"{\rtf1\ansi FINDINGS: The lungs are clear.\par IMPRESSION: Normal.\par}"
    pair = Pair("1", b"", report, "train", "1")
    assert select_reading(report) == report
    assert next(prepare_rows([pair], DEFAULT)) == Dropped("1", "train", "caption is RTF, not plain text")
