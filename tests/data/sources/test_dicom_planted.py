"""What names somebody in a folder of DICOM studies reaches neither the dataset nor the screen."""

import json
import os
import subprocess
import sys
from collections import Counter

import pytest

pytest.importorskip("pydicom")

from pydicom.datadict import DicomDictionary, keyword_for_tag

from medclip.data.dataset import Split
from medclip.data.deidentify import DicomConfig, make_key
from medclip.data.prepare_config import PrepareConfig
from medclip.data.schema import Dropped
from medclip.data.sources.detect import open_source
from medclip.data.sources.dicom_rows import OTHER_SLICE, UNUSED_REPORT
from support.dicom_files import count_removed, dicom, gray_ramp, sequence, write_dicom

PLANTED = {  # a value for each representation of text; the number tells attributes apart
    **dict.fromkeys(("LO", "LT", "SH", "ST", "UC", "UT", "UR", "AE", "UN"), "Zqwvx{0}"),
    **{"CS": "ZQWVX{0}", "PN": "Zqwvx{0}^Qzjkw{0}", "UI": "1.2.77777.1{0}", "AS": "077Y"},
    **{"DA": "19330517", "DT": "19330517131313", "TM": "131313.77"},
}
LEAKS = (
    b"Zqwvx",
    b"ZQWVX",
    b"Qzjkw",
    b"77777",
    b"19330517",
    b"131313",
    b"PLANTED",
    b"17.05.",
    b"May 17",
    b"Kowal",
)
"""What may be found nowhere: what is planted, names of files and folders, and other forms in the report."""


def with_everything_planted(**attributes):
    """An image with a planted value in every attribute of text that pydicom knows, nested and private ones too."""
    ds = dicom(gray_ramp())
    planted = {"RequestAttributesSequence": sequence(RequestedProcedureDescription="Zqwvx")}
    for number, (tag, entry) in enumerate(DicomDictionary.items()):
        if entry[0] in PLANTED and tag >> 16 not in (0, 2, 0x28, 0xFFFE) and keyword_for_tag(tag):
            value = PLANTED[entry[0]].format(number)
            ds.add_new(tag, entry[0], value.encode() if entry[0] == "UN" else value)
    ds.private_block(0x0009, "Zqwvx", create=True).add_new(1, "LO", "Zqwvx")
    planted |= {"PatientName": "Kowalska^Anna", "PatientID": "1.2.77777.4711", "Modality": "CT", "PatientAge": "077Y"}
    planted |= {"SpecificCharacterSet": "ISO_IR 192", "BurnedInAnnotation": "NO", "RecognizableVisualFeatures": "NO"}
    for keyword, value in (planted | attributes).items():
        setattr(ds, keyword, value)
    return ds


@pytest.fixture(scope="module")
def planted_folder(tmp_path_factory):
    """A folder whose files, folders, headers and reports all name the patient."""
    folder = tmp_path_factory.mktemp("PLANTED") / "PLANTED_Kowalska_19330517"
    place = folder / "Kowalska^Anna_077Y"
    text = "CT of the chest of Anna Kowalska (1.2.77777.4711), seen on 17.05.1933 and May 17, 1933: no effusion."
    write_dicom(with_everything_planted(), place / "Kowalska.dcm")
    write_dicom(
        with_everything_planted(BurnedInAnnotation="YES", SOPInstanceUID="1.2.77777.1"), place / "Zqwvx-burned.dcm"
    )
    write_dicom(with_everything_planted(SOPInstanceUID="1.2.77777.2"), place / "Zqwvx-alone.dcm")
    for name in ("Kowalska", "Zqwvx-burned"):
        (place / f"{name}.txt").write_text(text, encoding="utf-8")
    (place / "Zqwvx-cut.dcm").write_bytes((place / "Kowalska.dcm").read_bytes()[:100])
    (place / "Zqwvx-noise.dcm").write_bytes(bytes(128) + b"DICM" + b"Kowalska" * 50)
    return folder


@pytest.mark.slow
def test_nothing_planted_reaches_the_dataset_or_the_screen(planted_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # so that the command itself names no path
    (tmp_path / "source").symlink_to(planted_folder)
    environment = os.environ | {"XDG_CONFIG_HOME": str(tmp_path), "COLUMNS": "5000"}
    command = [sys.executable, "-m", "medclip.cli.main", "prepare", "source"]
    dry = subprocess.run([*command, "--dry-run", "--frames", "all"], capture_output=True, env=environment, check=True)
    assert not (tmp_path / "medclip").exists()
    done = subprocess.run(
        [*command, "--out", "out", "--frames", "all", "--table"], capture_output=True, env=environment, check=True
    )
    out = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    files = {path.name: path.read_bytes() for path in out}
    outputs = {
        "dry run": dry.stdout + dry.stderr,
        "screen": done.stdout + done.stderr,
        "names": " ".join(files).encode(),
    }
    assert [(name, leak) for name, data in (files | outputs).items() for leak in LEAKS if leak in data] == []
    assert not any(str(tmp_path).encode() in data for data in files.values())

    dataset = json.loads(files["dataset.json"])
    assert dataset["source"] == "DICOM"
    assert count_removed(dataset)["header/PatientBirthDate"] == 1
    assert count_removed(dataset)["report/PatientName"] == 1
    assert count_removed(dataset)["report/PatientID"] == 1
    assert b"PatientBirthDate 1" in done.stdout
    reasons = Counter(json.loads(line)["reason"] for line in files["dropped.jsonl"].splitlines())
    assert reasons == {"burned-in annotation": 1, "no report": 1, "image unreadable": 2}  # one is cut, one is noise
    (split,) = (name for name, of_split in dataset["splits"].items() if of_split["pairs"])
    (row,) = Split(tmp_path / "out", split).table.to_pylist()
    assert row["caption"] == "CT of the chest of ___ (___), seen on ___ and ___: no effusion."
    assert row["labels"] == [("modality", "CT"), ("age", "70-79")]


def test_what_is_dropped_is_named_by_keyed_ids_alone(planted_folder, tmp_path):
    key = tmp_path / "key"
    make_key(key, tmp_path / "out")
    config = PrepareConfig(studies=DicomConfig(pseudonym_key=key))
    dropped = [row for row in open_source(str(planted_folder), config) if isinstance(row, Dropped)]
    assert {row.reason for row in dropped} == {"image unreadable", "no report", OTHER_SLICE, UNUSED_REPORT}
    assert all(len(row.id) == 16 and row.detail == "" for row in dropped)
