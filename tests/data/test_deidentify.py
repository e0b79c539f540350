"""What a DICOM header knows stays behind; what leaves is on the list, by value."""

import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("pydicom")

from medclip.data.deidentify import (
    header_labels,
    identifying_attributes,
    make_key,
    may_hold_text,
    pseudonym,
    read_key,
    redact_report,
)
from medclip.data.private_map import map_path
from medclip.errors import UserError
from support.dicom_files import dicom, dicom_bytes, sequence


def test_a_key_is_made_once_and_read_by_its_owner_alone(tmp_path):
    file = tmp_path / "config" / "key"
    make_key(file, tmp_path / "data")
    first = file.read_bytes()
    make_key(file, tmp_path / "data")
    assert file.read_bytes() == first
    assert file.stat().st_mode & 0o777 == 0o600
    assert read_key(file) == read_key(file)


def test_the_users_own_key_lies_in_the_config_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    make_key(None, tmp_path / "data")
    assert (tmp_path / "medclip" / "key").is_file()


def test_a_key_inside_the_dataset_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"lies inside .* and would be shared with the data"):
        make_key(tmp_path / "data" / "key", tmp_path / "data")


def test_a_short_key_is_refused(tmp_path):
    (tmp_path / "key").write_text("secret")
    with pytest.raises(UserError, match="is too short for a key"):
        read_key(tmp_path / "key")


def test_a_key_that_is_no_file_is_refused(tmp_path):
    """A temporary key stood in for it, so that no later run gave the same ids."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        for use in (read_key, map_path, lambda path: make_key(path, tmp_path / "out")):
            with pytest.raises(UserError, match="is not a file"):
                use(path)


def test_no_key_is_a_key_for_this_time_only(tmp_path):
    assert read_key(tmp_path / "absent") != read_key(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()


@given(st.text(), st.text())
def test_ids_depend_on_the_key_and_the_name(first, second):
    key, other_key = bytes(32), bytes([1] * 32)
    assert pseudonym(key, first) == pseudonym(key, first)
    assert (pseudonym(key, first) == pseudonym(key, second)) == (first == second)
    assert pseudonym(key, first) != pseudonym(other_key, first)
    assert pseudonym(key, first, second) != pseudonym(key, first + second)


def test_labels_are_standard_terms_and_a_decade():
    ds = dicom(None, Modality="DX", BodyPartExamined="chest", ViewPosition="PA", PatientAge="067Y", PatientSex="F")
    assert header_labels(ds) == {"modality": "DX", "body_part": "CHEST", "view": "PA", "age": "60-69"}


def test_a_term_that_is_not_standard_does_not_leave():
    assert header_labels(dicom(None, Modality="DOE JANE", BodyPartExamined="DOE JANE", ViewPosition="DOE")) == {}


@pytest.mark.parametrize(
    ("attributes", "band"),
    [
        ({"PatientAge": "009Y"}, "0-9"),
        ({"PatientAge": "006M"}, "0-9"),
        ({"PatientAge": "089Y"}, "80-89"),
        ({"PatientAge": "090Y"}, "90+"),
        ({"PatientAge": "103Y"}, "90+"),
        ({"PatientBirthDate": "19500615", "StudyDate": "20200614"}, "60-69"),
        ({"PatientBirthDate": "19500615", "StudyDate": "20200615"}, "70-79"),
        ({"PatientBirthDate": "20300101", "StudyDate": "20200101"}, None),
        ({"PatientAge": "old", "PatientBirthDate": "1950"}, None),
        ({}, None),
    ],
)
def test_age_is_a_band(attributes, band):
    assert header_labels(dicom(None, Modality="DOE", **attributes)).get("age") == band


def test_what_can_identify_is_named_without_its_value():
    ds = dicom(
        None, PatientName="Doe^Jane", PatientID="", RequestAttributesSequence=sequence(ScheduledProcedureStepID="77")
    )
    ds.private_block(0x0009, "DOE", create=True).add_new(1, "LO", "Jane")
    assert set(identifying_attributes(ds)) == {
        *("PatientName", "ScheduledProcedureStepID", "SOPClassUID", "SOPInstanceUID", "private attributes")
    }


def test_a_damaged_element_does_not_hide_the_others():
    ds = dicom(None, PatientName="Doe^Jane", PatientID="4711")
    ds.add_new("InstanceNumber", "IS", "1")
    from medclip.data.dicom import read_header

    damaged = read_header(io.BytesIO(dicom_bytes(ds).replace(b"IS\x02\x001 ", b"IS\x02\x001A")))
    assert {"PatientName", "PatientID"} <= set(identifying_attributes(damaged))


@pytest.mark.parametrize(
    ("attributes", "unsure"),
    [
        ({"Modality": "US"}, True),
        ({"Modality": "US", "BurnedInAnnotation": "NO"}, False),
        ({"Modality": "CT"}, False),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, True),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.2"}, True),
    ],
)
def test_where_text_is_usual(attributes, unsure):
    assert may_hold_text(dicom(None, **attributes)) == unsure


@pytest.mark.parametrize(
    ("report", "left"),
    [
        ("Mrs. Jane Doe has a fracture.", "Mrs. ___ has a fracture."),
        ("DOE, JANE: no fracture. doe's ribs.", "___: no fracture. ___'s ribs."),
        ("Doe was seen; does not cough.", "___ was seen; does not cough."),
        ("Seen by Dr. Wei Li; MR of the brain, li-ion device.", "Seen by Dr. ___; MR of the brain, li-ion device."),
        ("Patient 4711-A, not 47110.", "Patient ___, not 47110."),
        ("On 20200305, 2020-03-05, 5.3.2020, 03/05/20 and 05-03-2020.", "On ___, ___, ___, ___ and ___."),
        ("March 5, 2020; 5 Mar 2020; Mar. 5th, 2020; 5th of May 2020", "___; ___; ___; 5th of May 2020"),
        ("Compared with 2019-11-30.", "Compared with 2019-11-30."),
        ("No pneumothorax in St. Mary Hospital.", "No pneumothorax in ___."),
    ],
)
def test_what_the_header_names_is_taken_out_of_the_report(report, left):
    ds = dicom(
        None,
        PatientName="Doe^Jane^^MR^",
        PatientID="4711-A",
        StudyDate="20200305",
        ReferringPhysicianName="Li^Wei^^Dr",
        InstitutionName="St. Mary Hospital",
        StudyID="1",
    )
    assert redact_report(report, ds)[0] == left


def test_replacements_are_counted_by_attribute():
    ds = dicom(None, PatientName="Doe^Jane", PatientID="4711")
    assert redact_report("Jane Doe (4711). Doe: 4711.", ds)[1] == {"PatientName": 2, "PatientID": 2}


@pytest.mark.parametrize(
    "date",
    [
        *(
            "5. März 2020",
            "5.3.20",
            "5. 3. 2020",
            "05.Mär.2020",
            "5. Maerz 2020",
            "5 mars 2020",
            "05-MAR-2020",
            "05MAR2020",
        ),
        *(
            "5 de marzo de 2020",
            "5 de marzo del 2020",
            "5 de março de 2020",
            "5 marzo 2020",
            "5 maart 2020",
            "5 mrt. 2020",
        ),
        *(
            "5 marca 2020",
            "5. března 2020",
            "5 марта 2020",
            "5 Mart 2020",
            "2020年3月5日",
            "2020년 3월 5일",
            "5.\nMärz 2020",
        ),
    ],
)
def test_a_date_of_the_header_is_found_in_the_languages_of_hospitals(date):
    report = f"Vergleich mit {date}, Rundherd 5 mm; 6. März 2020."
    assert redact_report(report, dicom(None, StudyDate="20200305"))[0].startswith(
        "Vergleich mit ___, Rundherd 5 mm; 6."
    )


def test_the_first_of_a_month_and_other_months_are_found():
    ds = dicom(None, StudyDate="20190801", PatientBirthDate="19571231")
    report = "1er août 2019, né le 31 décembre 1957, 31 dez. 1957, 2019-08-01T10:15, IMG_20190801_2"
    assert redact_report(report, ds)[0] == "___, né le ___, ___, ___T10:15, IMG_____2"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        *(("00123456", written) for written in ("00123456", "123456", "0012-3456", "001 234 56", "12.34.56")),
        *((value, "120357-1234") for value in ("1203571234", "120357-1234")),
        ("ACC-2019-001234", "acc2019001234"),
        ("+49 221 478-1234", "+49 (221) 4781234"),
    ],
)
def test_a_long_number_of_the_header_is_found_however_it_is_grouped(value, written):
    ds = dicom(None, PatientID=value)
    assert redact_report(f"Pat. {written}: lesion of 12.3 x 4.5 mm", ds)[0] == "Pat. ___: lesion of 12.3 x 4.5 mm"


@pytest.mark.parametrize("value", ["000007", "0004711"])
def test_a_short_number_with_zeros_is_found_as_it_is_written_only(value):
    report = f"{value}: lesion of 7 mm, 47.11 ml, image 4711"
    assert redact_report(report, dicom(None, PatientID=value))[0] == "___: lesion of 7 mm, 47.11 ml, image 4711"
