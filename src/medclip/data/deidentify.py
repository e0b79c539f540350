"""De-identifies DICOM studies: keyed pseudonyms, an allow-list of labels, reports without the names in their headers.

Works on datasets that pydicom read, and does not import it.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medclip.atomic_io import whole_file
from medclip.bounded_files import MAX_TEXT_BYTES, read_bounded
from medclip.data.header_readings import other_readings
from medclip.data.header_values import anchor_text, find_value
from medclip.data.name_matching import Span, find_name, index_words, is_ordinary
from medclip.data.normalize import MAX_CAPTION_CHARACTERS, normalize_text
from medclip.data.ordinary_words import FACILITY
from medclip.data.schema import NUMBERED, Dropped, Pair, is_running_number
from medclip.errors import ImageError, UserError
from medclip.folder_locks import LOCK_WAIT_S, lock_folder
from medclip.progress import console
from medclip.user_folders import config_folder

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

DICOM_SOURCE = "DICOM"
"""The `source` of pairs from studies and of datasets of them: folders are often named after patients."""
KEY_BYTES = 32
REDACTED = "___"  # as MIMIC writes it
NOT_REPLACED = " (ordinary word, not replaced)"
"""The end of a count's name for words of a header that a report uses as ordinary ones."""
MIN_FREQUENT_STUDIES = 10
FREQUENT_FRACTION = 0.1
"""A value replaced in so many reports, and in this part of them, is worth a warning."""
MIN_HIDDEN_CHARACTERS = 5
"""A shorter value of a table is hidden only as a word of its own: the patient 7 is not in 2017.png."""

# The allow-list is one of values, as anything can be typed into a field: PS3.3 C.7.3.1.1.1, PS3.16 Annex L, and the
# views of PS3.3 C.8.1.1 and of mammography.
_ALLOWED_LABELS = {
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
_IDENTIFYING_VRS = {"AE", "AS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UN", "UR", "UT"}
"""Value representations of free text, names, dates, identifiers. Codes and numbers are removed too, uncounted."""
_ID_KEYWORDS = {
    *("PatientID", "OtherPatientIDs", "AccessionNumber", "StudyID", "AdmissionID", "RequestedProcedureID"),
    *("ScheduledProcedureStepID", "PerformedProcedureStepID", "ServiceEpisodeID", "MedicalRecordLocator"),
    *(f"{party}OrderNumberImagingServiceRequest" for party in ("Placer", "Filler")),
    *("InsurancePlanIdentification", "ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID"),
    *("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "DeviceSerialNumber"),
    *("PatientTelephoneNumbers", "PersonTelephoneNumbers", "OrderCallbackPhoneNumber"),
    *("ReferringPhysicianTelephoneNumbers", "ReferringPhysicianAddress", "PersonAddress", "PatientAddress"),
    *("InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName", "StationName"),
    *("PatientInstitutionResidence",),
}
_PATH_SEPARATORS = str.maketrans("_/\\", "   ")
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@dataclass(frozen=True, kw_only=True)
class DicomConfig:
    """What is read from a folder of DICOM studies: flags of `medclip prepare`."""

    frames: Literal["middle", "all"] = "middle"
    """DICOM: the middle frame of a file and the middle slice of a series (CT, MR, PET, NM), or all of them."""
    mask_borders: bool = False
    """DICOM: paint a tenth of each side black where text is burned in or common, instead of dropping such images."""
    pseudonym_key: Path | None = None
    """The file of the key that turns patients, studies and DICOM files into ids, created if absent; default: one in
    your config folder."""


def key_path(path: Path | None) -> Path:
    """The file of the key: `path`, or the user's own. UserError where neither is known, or it is not a file."""
    if path is None and (folder := config_folder()):
        path = folder / "key"
    if path is None:
        raise UserError("this user has no home folder to keep a key in: name its file with --pseudonym-key.")
    if path.exists() and not path.is_file():
        raise UserError(f"the key {path} is not a file: it is read several times. Keep the key in a file.")
    return path


def make_key(path: Path | None, out: Path) -> None:
    """Create the key unless it exists, readable by its owner only. Raises UserError where it would lie inside `out`."""
    file = key_path(path)
    if file.resolve().is_relative_to(out.resolve()):
        raise UserError(f"the key {file} lies inside {out} and would be shared with the data. Keep it elsewhere.")
    if file.exists():
        return
    try:
        with lock_folder(file.parent, wait_s=LOCK_WAIT_S):
            if file.exists():  # made by another process meanwhile
                return
            with whole_file(file, mode=0o600) as partial:
                partial.write_text(secrets.token_hex(KEY_BYTES) + "\n")
    except OSError as error:
        raise UserError(
            f"the key {file} cannot be made ({error.strerror}): name its file with --pseudonym-key."
        ) from None
    console.print(f"created a new key, {file}: keep it, as another key gives other ids", soft_wrap=True)


def read_key(path: Path | None) -> bytes:
    """The key, or a temporary one where none was created (a dry run). Raises UserError for one that is too short."""
    file = key_path(path)
    secret = read_bounded(file, MAX_TEXT_BYTES) if file.is_file() else secrets.token_bytes(KEY_BYTES)
    if len(secret) < KEY_BYTES:
        raise UserError(f"{file} is too short for a key: it needs {KEY_BYTES} bytes or more. Let medclip create one.")
    return hashlib.blake2b(secret, digest_size=KEY_BYTES).digest()


def pseudonym(key: bytes, *names: str) -> str:
    """16 hexadecimal digits for `names`; without the key they can be neither reversed nor reproduced."""
    return hashlib.blake2b("\0".join(names).encode(errors="surrogatepass"), key=key, digest_size=8).hexdigest()


def group_pseudonym(key: bytes, issuer: str, group: str) -> str:
    """The pseudonym of a patient or study of `issuer`, marked where it stands for a running number."""
    return (NUMBERED if is_running_number(group) else "") + pseudonym(key, issuer, group)


def pseudonymize(row: Pair | Dropped, key: bytes) -> Pair | Dropped:
    """A row of a table without its private values: keyed pseudonyms for an article and an id that hold one.

    An id that a study or patient begins, ends or interrupts (4711_2) goes as a whole. In captions, of those that can be
    nothing else, and in details, such as the names of files that are missing, "___" stands for the value; also for
    `identifying` ones.
    """
    if not (row.private or row.identifying):
        return row
    id = pseudonym(key, row.id) if hide(row.id, row) != row.id else row.id
    if isinstance(row, Dropped):
        return replace(row, id=id, detail=hide(row.detail, row), private=(), identifying=())
    article = group_pseudonym(key, "", row.article) if hide(row.article, row) != row.article else row.article
    article = id if row.article == row.id else article
    caption = _hide_people(row.caption, row)
    removed = (*row.removed, *(["table/patient or study"] if article != row.article else []))
    removed += ("caption/name or date",) if caption != row.caption else ()
    anonymous = _hide_identifiers(caption, row.private)
    removed += ("caption/patient or study",) if anonymous != caption else ()
    return replace(
        row, id=id, article=article, caption=anonymous, removed=removed, if_missing=hide(row.if_missing, row)
    )


def _hide_people(text: str, row: Pair | Dropped) -> str:
    """The text with "___" for the names and dates of people that a row states; as it is where it holds none."""
    if not row.identifying or len(text) > MAX_CAPTION_CHARACTERS:  # preparation drops it
        return text
    plain = normalize_text(text)
    words, anchors = index_words(plain.translate(_PATH_SEPARATORS)), anchor_text(plain)
    spans: list[Span] = []
    for kind, value in row.identifying:
        dates = (Span(*match.span()) for match in find_value("D", value, plain, anchors)) if kind == "DA" else ()
        spans += dates if kind == "DA" else find_name(words, value)[0]
    return replace_spans(plain, spans) if spans else text


def _hide_identifiers(text: str, values: tuple[str, ...]) -> str:
    """The text with "___" for those of the values that are long, hold a digit and are no phrase: CT of 2019 stays."""
    for value in values:
        if len(value) >= MIN_HIDDEN_CHARACTERS and re.fullmatch(r"\S*\d\S*", value):
            text = _hide_value(text, value, is_word=True)
    return text


def hide(text: str, row: Pair | Dropped) -> str:
    """The text with "___" for each private and identifying value of a row; a short one only as a word of its own."""
    text = _hide_people(text, row)
    for value in sorted(row.private, key=len, reverse=True):
        text = _hide_value(text, value, is_word=len(value) < MIN_HIDDEN_CHARACTERS)
    return text


def _hide_value(text: str, value: str, *, is_word: bool) -> str:
    part = re.escape(value)
    return re.sub(rf"(?<![^\W_]){part}(?![^\W_])" if is_word else part, REDACTED, text) if value in text else text


def header_labels(header: Dataset) -> dict[str, str]:
    """All that leaves a header: modality, body part and view where they are standard terms, and the decade of age."""
    labels = {}
    for name, (keyword, terms) in _ALLOWED_LABELS.items():
        value = str(header.get(keyword) or "").strip().upper()
        if value in terms.split():
            labels[name] = value
    age = _age(header)
    if age is not None:
        labels["age"] = "90+" if age >= 90 else f"{age // 10 * 10}-{age // 10 * 10 + 9}"
    return labels


def identifying_attributes(header: Dataset) -> list[str]:
    """Keywords of the attributes that can identify somebody and have a value, nested ones included."""
    keywords = dict.fromkeys(_keyword(element) for element in _iter_elements(header) if element.VR in _IDENTIFYING_VRS)
    return [keyword for keyword in keywords if keyword]


def may_hold_text(header: Dataset) -> bool:
    """Whether text is common in such images (secondary capture, ultrasound) and the header does not deny it."""
    is_common = str(header.get("Modality")).upper() in ("ES", "IVUS", "OT", "US", "XC")
    is_common |= str(header.get("SOPClassUID")).startswith(_SECONDARY_CAPTURE)
    return is_common and str(header.get("BurnedInAnnotation")).upper() != "NO"


def redact_report(
    report: str, *headers: Dataset, on_replacement: Callable[[str, str], None] | None = None
) -> tuple[str, Counter[str]]:
    """A report with the values of its headers replaced by "___", and the number of replacements by attribute.

    Values are names of people (see `name_matching`), identifiers and dates (see `header_values`); of a text in a
    doubtful character set, each of its `other_readings` too. Names that no header holds stay. An ordinary word of a
    report that is also such a value is replaced only where the words beside it or its letter case say that it is a
    name; the others are counted as KEYWORD + NOT_REPLACED. `on_replacement` gets the keyword and the value of each that
    was replaced. Raises ImageError for a report that is too long for a caption.
    """
    if len(report) > MAX_CAPTION_CHARACTERS:
        raise ImageError(f"over {MAX_CAPTION_CHARACTERS:,} characters")
    values: dict[tuple[str, str], tuple[str, tuple[str, ...]]] = {}
    for header in headers:
        for element in _iter_elements(header):
            kind = element.VR if element.VR in ("PN", "DA", "DT") else "ID" if element.keyword in _ID_KEYWORDS else ""
            for value in element.value if kind and element.VM > 1 else [element.value] if kind else []:
                readings = other_readings(value) if kind in ("PN", "ID") else ()
                values.setdefault((kind[0], str(value).strip()), (_keyword(element), readings))
    report = normalize_text(report)  # as the caption will be: what the rules drop or decode cannot part a name
    words = index_words(report)
    plain = anchor_text(report)
    covered: list[Span] = []
    counts: Counter[str] = Counter()
    for (kind, value), (keyword, readings) in values.items():
        if kind == "P":
            spans, num_ordinary = find_name(words, value, *readings)
        else:
            matches = (match for text in (value, *readings) for match in find_value(kind, text, report, plain))
            spans = list(dict.fromkeys(Span(*match.span()) for match in matches))
            num_ordinary = len(spans) if kind == "I" and _is_ordinary_text(value) else 0
            spans = [] if num_ordinary else spans
        if spans and on_replacement:
            on_replacement(keyword, value)
        counts[keyword] += len(spans)
        counts[keyword + NOT_REPLACED] += num_ordinary
        covered += spans
    return replace_spans(report, covered), +counts


class ValueFrequencies:
    """In the reports of how many studies each value was replaced; holds keyed hashes, no value."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._num_studies = 0
        self._counts: dict[tuple[str, str], int] = {}
        self._of_study: set[tuple[str, str]] = set()

    def start_study(self) -> None:
        """What is added next belongs to another study."""
        self._num_studies += 1
        self._of_study.clear()

    def add(self, keyword: str, value: str) -> None:
        """A value was replaced in a report of the study."""
        entry = keyword, pseudonym(self._key, value)
        if entry not in self._of_study:
            self._of_study.add(entry)
            self._counts[entry] = self._counts.get(entry, 0) + 1

    def warn(self) -> None:
        """Name on the terminal the attributes of which one value was replaced in many reports."""
        highest: dict[str, int] = {}
        for (keyword, _), count in self._counts.items():
            highest[keyword] = max(count, highest.get(keyword, 0))
        for keyword, count in highest.items():
            if count >= max(MIN_FREQUENT_STUDIES, FREQUENT_FRACTION * self._num_studies):
                console.print(
                    f"warning: one value of {keyword} was replaced in the reports of {count:,} of "
                    f"{self._num_studies:,} studies: look whether captions lost a word that names nobody",
                    soft_wrap=True,
                )


def replace_spans(text: str, spans: list[Span]) -> str:
    """The text with `REDACTED` for each span, once for those that overlap."""
    pieces, position = [], 0
    for start, end in sorted(spans):
        if start >= position:
            pieces += [text[position:start], REDACTED]
        position = max(position, end)
    return "".join([*pieces, text[position:]])


def _is_ordinary_text(value: str) -> bool:
    """Whether a value consists of words of every report and room numbers: CHEST, CT 1; but Heart Hospital is a name."""
    words = re.findall(r"[^\W\d_]+", value.casefold())
    numbers = re.findall(r"\d+", value)
    if not words or any(len(number) > 2 for number in numbers):
        return False
    facility = [word for word in words if word in FACILITY]
    return all(is_ordinary(word) for word in words if word not in FACILITY) and (not facility or len(words) == 1)


def _iter_elements(header: Dataset) -> Iterator[Any]:
    """Every element with a value, nested ones included; one that cannot be read is skipped."""
    for tag in header.keys():  # noqa: SIM118 (a Dataset iterates over elements, and raises at the first damaged one)
        try:
            element = header[tag]
        except Exception:
            continue
        if element.VR == "SQ":
            for item in element.value:
                yield from _iter_elements(item)
        elif element.value not in (None, "", b""):
            yield element


def _keyword(element: Any) -> str:
    return "private attributes" if element.tag.is_private else element.keyword


def _age(header: Dataset) -> int | None:
    """Age in years, 0 below one, from PatientAge or the two dates; None where it is absent or implausible."""
    years = re.fullmatch(r"(\d{3})([DWMY])", str(header.get("PatientAge") or "").strip())
    if years:
        return int(years[1]) if years[2] == "Y" else 0
    birth, study = (str(header.get(name) or "") for name in ("PatientBirthDate", "StudyDate"))
    if not (re.fullmatch(r"\d{8}", birth) and re.fullmatch(r"\d{8}", study)):
        return None
    age = int(study[:4]) - int(birth[:4]) - (study[4:] < birth[4:])
    return age if 0 <= age < 130 else None
