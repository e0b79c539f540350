"""What may leave a DICOM study: keyed names, an allow-list of labels, reports without the header's own names.

Works on datasets as pydicom reads them and does not import it.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.markup import escape

from medclip.atomic_io import whole_file
from medclip.errors import UserError
from medclip.progress import console

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

DICOM_SOURCE = "DICOM"
"""What pairs of studies, and datasets of them, say they come from: folders are often named after patients."""
KEY_BYTES = 32
REDACTED = "___"  # as MIMIC writes it

# The allow-list is one of values, since anything can be typed into a field: PS3.3 C.7.3.1.1.1, PS3.16 Annex L, and the
# views of PS3.3 C.8.1.1 and of mammography.
_ALLOWED = {
    "modality": ("Modality", "BI BMD CR CT DX ES GM IO IVOCT IVUS MG MR NM OCT OP OPT OT PT PX RF RG SM TG US XA XC"),
    "body_part": (
        "BodyPartExamined",
        "ABDOMEN ABDOMENPELVIS ADRENAL ANKLE AORTA ARM AXILLA BACK BLADDER BRAIN BREAST BRONCHUS BUTTOCK CALCANEUS "
        "CALF CAROTID CEREBELLUM CERVIX CHEST CHESTABDOMEN CHESTABDPELVIS CIRCLEOFWILLIS CLAVICLE COCCYX COLON CSPINE "
        "CTSPINE DUODENUM EAR ELBOW ESOPHAGUS EXTREMITY EYE FACE FEMUR FINGER FOOT FOREARM GALLBLADDER HAND HEAD "
        "HEADNECK HEART HIP HUMERUS IAC ILEUM ILIUM JAW JEJUNUM KIDNEY KNEE LARYNX LEG LIVER LSPINE LSSPINE LUNG "
        "MANDIBLE MAXILLA MEDIASTINUM NECK NECKCHEST NECKCHESTABDOMEN NECKCHESTABDPELV NOSE ORBIT OVARY PANCREAS "
        "PAROTID PATELLA PELVIS PENIS PHARYNX PROSTATE RADIUS RADIUSULNA RECTUM RIB SACRUM SCALP SCAPULA SCROTUM "
        "SHOULDER SIJOINT SINUS SKULL SPINE SPLEEN SSPINE STERNUM STOMACH TESTIS THIGH THUMB THYMUS THYROID TIBIA "
        "TIBIAFIBULA TLSPINE TMJOINT TOE TONGUE TRACHEA TSPINE ULNA URETER URETHRA UTERUS VAGINA WHOLEBODY WRIST "
        "ZYGOMA",
    ),
    "view": ("ViewPosition", "AP PA LL RL RLD LLD RLO LLO LATERAL LAT CC MLO ML LM XCC XCCL XCCM LMO FB SIO ISO"),
}
_IDENTIFYING = {"AE", "AS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UN", "UR", "UT"}
"""Value representations of free text, names, dates, identifiers. Codes and numbers stay behind too, uncounted."""
_IDS = {
    *("PatientID", "OtherPatientIDs", "AccessionNumber", "StudyID", "AdmissionID", "RequestedProcedureID"),
    *("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "DeviceSerialNumber", "PatientTelephoneNumbers"),
    *("InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName", "StationName", "PatientAddress"),
}
_TITLES = {"dr", "mr", "mrs", "ms", "md", "phd", "prof"}
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@dataclass(frozen=True, kw_only=True)
class DicomConfig:
    """What is taken from a folder of DICOM studies, and how: flags of `medclip prepare`."""

    frames: Literal["middle", "all"] = "middle"
    """DICOM: the middle frame of a file and the middle slice of a series (CT, MR, PET, NM), or all of them."""
    mask_borders: bool = False
    """DICOM: paint a tenth of each side black where text is burned in or usual, instead of refusing such images."""
    pseudonym_key: Path | None = None
    """DICOM: the file of the key that turns patients and files into ids, made if absent; by default one in your config
    folder."""


def key_path(path: Path | None) -> Path:
    """The key's file: as given, or the user's own."""
    return path or Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "medclip" / "key"


def make_key(path: Path | None, out: Path) -> None:
    """Make the key unless it is there, readable by its owner alone. UserError where it would lie inside `out`."""
    file = key_path(path)
    if file.resolve().is_relative_to(out.resolve()):
        raise UserError(f"the key {file} lies inside {out}, and would leave with the data. Keep it elsewhere.")
    if not file.exists():
        with whole_file(file) as partial:
            partial.touch(0o600)
            partial.write_text(secrets.token_hex(KEY_BYTES) + "\n")
        console.print(f"made a new key, {escape(str(file))}: keep it, for other keys give other ids", soft_wrap=True)


def read_key(path: Path | None) -> bytes:
    """The key, or one for this time only where none was made (a dry run). UserError for one that can be guessed."""
    file = key_path(path)
    said = file.read_bytes() if file.is_file() else secrets.token_bytes(KEY_BYTES)
    if len(said) < KEY_BYTES:
        raise UserError(f"{file} is too short for a key: it needs {KEY_BYTES} bytes or more. Let medclip make one.")
    return hashlib.blake2b(said, digest_size=KEY_BYTES).digest()


def pseudonym(key: bytes, *names: str) -> str:
    """16 hexadecimal digits that stand for names; who lacks the key can neither undo nor repeat them."""
    return hashlib.blake2b("\0".join(names).encode(errors="surrogatepass"), key=key, digest_size=8).hexdigest()


def header_labels(said: Dataset) -> dict[str, str]:
    """All that leaves a header: modality, body part and view where they are standard terms, and the decade of age."""
    found = {}
    for name, (keyword, terms) in _ALLOWED.items():
        value = str(said.get(keyword) or "").strip().upper()
        if value in terms.split():
            found[name] = value
    age = _age(said)
    if age is not None:
        found["age"] = "90+" if age >= 90 else f"{age // 10 * 10}-{age // 10 * 10 + 9}"
    return found


def identifying_attributes(said: Dataset) -> list[str]:
    """Keywords of the attributes that can identify somebody and have a value, items of sequences included."""
    found = dict.fromkeys(_keyword(element) for element in _elements(said) if element.VR in _IDENTIFYING)
    return [name for name in found if name]


def may_hold_text(said: Dataset) -> bool:
    """Whether text is usual in such images (secondary capture, ultrasound) and the header does not deny it."""
    usual = str(said.get("Modality")).upper() in ("ES", "IVUS", "OT", "US", "XC")
    usual |= str(said.get("SOPClassUID")).startswith(_SECONDARY_CAPTURE)
    return usual and str(said.get("BurnedInAnnotation")).upper() != "NO"


def redact_report(report: str, *headers: Dataset) -> tuple[str, Counter[str]]:
    """A report without the values its headers hold themselves, and how often each attribute occurred in it.

    Names of people (as whole words, two words or more together, alone from three letters on), identifiers from four
    characters on, and dates in the usual numeric and English forms are replaced by "___". What no header says stays.
    """
    values = {}
    for said in headers:
        for element in _elements(said):
            kind = element.VR if element.VR in ("PN", "DA", "DT") else "ID" if element.keyword in _IDS else ""
            for value in element.value if kind and element.VM > 1 else [element.value] if kind else []:
                values.setdefault((kind[0], str(value).strip()), _keyword(element))
    counts: Counter[str] = Counter()
    for (kind, value), keyword in values.items():
        if pattern := _pattern(kind, value):
            report, times = pattern.subn(REDACTED, report)
            counts[keyword] += times
    return report, +counts


@lru_cache(256)
def _pattern(kind: str, value: str) -> re.Pattern[str] | None:
    """What a value of kind P(erson), D(ate) or I(dentifier) looks like in running text."""
    if kind == "P":
        # family, given and middle names in each script; prefixes and suffixes are words of every report (MR, II)
        parts = (part for script in value.split("=") for part in script.split("^")[:3])
        words = {word.strip(".,") for part in parts for word in part.split()}
        words = sorted((w for w in words if len(w) > 1 and w.lower() not in _TITLES), key=len, reverse=True)
        any_word, alone = ("|".join(map(re.escape, some)) for some in (words, [w for w in words if len(w) > 2]))
        forms = [rf"(?:{any_word})(?:[\s,.^]+(?:{any_word}))+"] if len(words) > 1 else []
        forms += [alone] if alone else []
    elif kind == "D":
        forms = _dates(value)
    else:
        forms = [re.escape(value)] if len(value) > 3 else []
    return re.compile(rf"(?<!\w)(?:{'|'.join(forms)})(?!\w)", re.IGNORECASE) if forms else None


def _dates(value: str) -> list[str]:
    found = re.match(r"(\d{4})[-.]?(0[1-9]|1[0-2])[-.]?(0[1-9]|[12]\d|3[01])", value)
    if not found:
        return []
    year, month, day = found.groups()
    name = _MONTHS[int(month) - 1]
    m, d, y = f"0?{int(month)}", f"0?{int(day)}", f"(?:{year}|{year[2:]})"
    word, th = rf"(?:{name}|{name[:3]}\.?)", "(?:st|nd|rd|th)?"
    orders = ((year, m, d), (d, m, y), (m, d, y))
    numbers = [f"{year}{month}{day}", *(between.join(order) for between in ("-", "/", r"\.") for order in orders)]
    return [*numbers, rf"{d}{th}[ -]{word},?[ -]{y}", rf"{word} {d}{th},? {y}"]


def _elements(said: Dataset) -> Iterator[Any]:
    """Every element with a value, sequences opened; one that cannot be read has no value to find."""
    for tag in said.keys():  # noqa: SIM118 (a Dataset iterates over elements, and raises at the first damaged one)
        try:
            element = said[tag]
        except Exception:
            continue
        if element.VR == "SQ":
            for item in element.value:
                yield from _elements(item)
        elif element.value not in (None, "", b""):
            yield element


def _keyword(element: Any) -> str:
    return "private attributes" if element.tag.is_private else element.keyword


def _age(said: Dataset) -> int | None:
    years = re.fullmatch(r"(\d{3})([DWMY])", str(said.get("PatientAge") or "").strip())
    if years:
        return int(years[1]) if years[2] == "Y" else 0
    born, seen = (str(said.get(name) or "") for name in ("PatientBirthDate", "StudyDate"))
    if not (re.fullmatch(r"\d{8}", born) and re.fullmatch(r"\d{8}", seen)):
        return None
    age = int(seen[:4]) - int(born[:4]) - (seen[4:] < born[4:])
    return age if 0 <= age < 130 else None
