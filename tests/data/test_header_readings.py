"""Names of headers whose character set is absent or wrong are found in reports all the same."""

import io

import pytest

from medclip.data.deidentify import redact_report
from medclip.data.dicom import read_header
from medclip.data.header_readings import other_readings
from support.dicom_files import dicom, dicom_bytes, sequence

JAPANESE = b"Yamada^Tarou=" + "山田^太郎".encode("iso2022_jp")
KOREAN = b"Hong^Gildong=\x1b$)C" + "洪^吉洞".encode("euc_kr")


def header_of(raw, charset=None, keyword="PatientName"):
    """A header that was read from a file in which the attribute has these bytes."""
    attributes = {"SpecificCharacterSet": charset} if charset else {}
    mark = b"X" * (len(raw) + len(raw) % 2)
    data = dicom_bytes(dicom(None, **attributes, **{keyword: mark.decode()}))
    return read_header(io.BytesIO(data.replace(mark, raw.ljust(len(mark)))))


@pytest.mark.parametrize(
    ("raw", "charset", "report"),
    [
        ("Müller^Jörg".encode(), None, "Herr Müller"),
        ("Müller^Jörg".encode("latin-1"), None, "Herr Müller"),
        ("Müller^Jörg".encode("latin-1"), "ISO_IR 192", "Herr Müller"),
        ("Müller^Jörg".encode("cp850"), "ISO_IR 192", "Herr Müller"),
        ("Müller^Jörg".encode(), "ISO_IR 100", "Herr Müller"),
        ("Wałęsa^Śliż".encode("cp1250"), None, "Pan Wałęsa"),
        ("Иванова^Анна".encode("cp1251"), None, "Пациентка Иванова"),
        ("Иванова^Анна".encode("iso8859-5"), "ISO_IR 100", "Пациентка Иванова"),
        ("Иванова^Анна".encode("cp1251"), "ISO_IR 192", "Пациентка Иванова"),
        ("王^小東".encode("gb18030"), None, "患者 王小東"),
        ("홍^길동".encode("euc_kr"), None, "환자 홍길동"),
        (JAPANESE, None, "患者 山田太郎"),
        (KOREAN, None, "환자 洪吉洞"),
    ],
)
def test_a_name_in_a_wrong_character_set_is_replaced(raw, charset, report):
    text, counts = redact_report(f"{report} normal", header_of(raw, charset))
    assert text == f"{report.rpartition(' ')[0]} ___ normal"
    assert counts == {"PatientName": 1}


def test_so_is_an_institution_and_a_name_in_a_sequence():
    header = header_of("Klinikum Würzburg".encode("latin-1"), "ISO_IR 192", "InstitutionName")
    assert redact_report("Am Klinikum Würzburg: normal", header)[0] == "Am ___: normal"
    mark = b"XXXXXX"
    ds = dicom(None, SpecificCharacterSet="ISO_IR 192", OriginalAttributesSequence=sequence(PatientName=mark.decode()))
    header = read_header(io.BytesIO(dicom_bytes(ds).replace(mark, "Müller".encode("latin-1"))))
    assert redact_report("Herr Müller normal", header)[0] == "Herr ___ normal"


@pytest.mark.parametrize(
    ("name", "charset"),
    [
        ("Doe^Jane", None),
        ("Müller^Jörg", "ISO_IR 100"),
        ("Иванова^Анна", "ISO_IR 144"),
        ("Иванова^Анна", "ISO_IR 192"),
        ("Yamada^Tarou=山田^太郎", ["", "ISO 2022 IR 87"]),
    ],
)
def test_a_set_that_fits_is_believed(name, charset):
    ds = dicom(None, **({"SpecificCharacterSet": charset} if charset else {}), PatientName=name)
    header = read_header(io.BytesIO(dicom_bytes(ds)))
    assert str(header.PatientName) == name
    assert other_readings(header.PatientName) == ()
