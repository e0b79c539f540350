"""What else a text of a header may say: exports of hospitals often lack their character set, or state another's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_ESCAPE, _TO_ASCII, _TO_KOREAN = b"\x1b", b"\x1b(B", b"\x1b$)C"
_DELIMITER = re.compile(rb"(?=[\^=])")
_TEXT_VRS = ("LO", "LT", "PN", "SH", "ST", "UC", "UT")
_NO_SET = "iso8859"
_CODE_PAGES = (
    *("cp1252", "cp850", "cp1250", "cp1251", "iso8859-5", "koi8-r", "cp866", "cp1253", "cp1254", "cp1255", "cp1256"),
    *("tis-620", "gb18030", "big5", "cp932", "euc_jp", "cp949"),
)
"""What systems of Europe, Asia and the Near East write where DICOM's own sets were not set up."""


def other_readings(value: Any) -> tuple[str, ...]:
    """The texts that a value may stand for besides `str(value)`; () where its character set can be believed.

    Bytes that are UTF-8 are that. Others are read in every code page where most of their letters are accented Latin
    ones, as Latin-1 makes of Cyrillic, or where some are its control characters. `value` is a text or pydicom's
    PersonName, which keeps its bytes.
    """
    text = str(value)
    raw = getattr(value, "original_string", None)
    if not isinstance(raw, bytes):
        try:
            raw = text.encode("latin-1")  # what pydicom decodes with where no set is stated
        except UnicodeError:
            return ()
    if _ESCAPE in raw:
        return _read_escapes(raw) if _ESCAPE.decode() in text else ()
    if raw.isascii():
        return ()
    if as_utf8 := _decodings(raw, "", ("utf-8",)):
        return () if as_utf8 == (text,) else as_utf8
    letters = [character for character in text if character.isalpha()]
    num_accented = sum("\x80" <= character < "\u0180" for character in letters)
    is_doubtful = 2 * num_accented > len(letters) or any("\x80" <= character < "\xa0" for character in text)
    return _decodings(raw, text, _CODE_PAGES) if is_doubtful else ()


def _read_escapes(raw: bytes) -> tuple[str, ...]:
    """Japanese or Korean whose escape sequences no stated set explains; a delimiter of names ends one.

    PS3.5, 6.1.2.5.
    """
    if _TO_KOREAN in raw:
        return _decodings(raw.replace(_TO_KOREAN, b"").replace(_TO_ASCII, b""), "", ("euc_kr",))
    return _decodings(_DELIMITER.sub(_TO_ASCII, raw), "", ("iso2022_jp_2",))


def keep_bytes(header: Dataset) -> None:
    """Let a header that was just read take its texts for Latin-1 where the set that it states cannot decode one.

    pydicom would put signs of damage in the place of bytes that `other_readings` needs.
    """
    stated = header.original_character_set
    encoding = stated if isinstance(stated, str) else stated[0]
    values = [(tag, _representation(element), element.value) for tag, element in _raw_elements(header)]
    texts = (value for _, vr, value in values if vr in _TEXT_VRS and isinstance(value, bytes))
    if not all(_can_decode(text, encoding) for text in texts):
        header.set_original_encoding(*header.original_encoding, _NO_SET)
    for tag in (tag for tag, vr, _ in values if vr == "SQ"):
        try:
            items = list(header[tag].value)
        except Exception:  # of a damaged sequence, which has no text
            continue
        for item in items:
            keep_bytes(item)


def _raw_elements(header: Dataset) -> list[tuple[Any, Any]]:
    """The elements by tag, as they were read: a Dataset iterates over decoded ones."""
    return [(tag, header.get_item(tag, keep_deferred=True)) for tag in header.keys()]  # noqa: SIM118


def _representation(element: Any) -> str:
    """The value representation of an element, "" for a private one that does not state it."""
    from pydicom.datadict import dictionary_VR

    try:
        return element.VR or dictionary_VR(element.tag)
    except KeyError:
        return ""


def _can_decode(value: bytes, encoding: str) -> bool:
    try:
        value.decode(encoding)
    except (UnicodeError, LookupError):
        return _ESCAPE in value  # which changes to another of the sets that are stated
    return True


def _decodings(raw: bytes, text: str, encodings: tuple[str, ...]) -> tuple[str, ...]:
    """The different texts that the bytes are in encodings, but for `text`."""
    decoded = dict[str, None]()
    for encoding in encodings:
        try:
            decoded[raw.decode(encoding).rstrip(" \0")] = None
        except UnicodeError:
            continue
    decoded.pop(text, None)
    return tuple(decoded)
