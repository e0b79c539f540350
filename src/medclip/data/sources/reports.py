"""The findings and the impression of a free-text report, without its other sections."""

from __future__ import annotations

import codecs
import re

from medclip.data.normalize import MAX_CAPTION_CHARACTERS, is_rtf
from medclip.data.paths import AnyPath
from medclip.data.sources.table_files import text_encoding

OTHER_SECTIONS = "report/sections other than findings, impression, conclusion"
"""What a pair has lost (`Pair.removed`) whose caption is a part of its report."""
_READINGS = (
    r"findings?|impressions?|conclusions?|opinion|interpretation|befunde?|beurteilung|hallazgos"
    r"|impresión(?: diagnóstica)?|conclusión|conclusiones|résultats?"
)
READING = re.compile(rf"\b(?:{_READINGS})\b", re.IGNORECASE)
"""The name of a section that is what a reader saw or concluded, in a heading."""
_READING = (
    rf"(?:final |preliminary |radiological |radiographic )?(?:{_READINGS})(?: ?(?:and|und|y|et|/|&) ?(?:{_READINGS}))?"
)
_OTHERS = (
    r"(?P<exam>(?:type of )?exam(?:ination)?s?)|date of exam(?:ination)?s?|study|procedure|views?"
    r"|(?:clinical )?(?:indications?|history|information|data)"
    r"|reason for (?:exam(?:ination)?|study|this exam(?:ination)?)|comparisons?|(?:comparison )?technique|contrast|dose"
    r"|recommendations?|notifications?|wet read|final report|addendum|accession(?: number)?|attestation|signed"
    r"|indikation|klinische angaben|fragestellung|technik|datos clínicos|indicación|técnica|renseignements cliniques"
)
_HEADING = re.compile(
    rf"(?<![^\W_])(?:(?P<reading>{_READING})|{_OTHERS})(?:\(s\))?(?:[ \t]*:|[ \t]*(?=\r?\n))"
    r"|(?:electronically signed|dictated (?:by|on)|transcribed (?:by|on)|attending radiologist)\b",
    re.IGNORECASE,
)
_SENTENCE_ENDS = ("", ".", ":", ";", "!", "?", "_", ")")


def read_report(path: AnyPath) -> str:
    """The text of a file in UTF-8, or UTF-16 or UTF-32 as it begins, as far as a caption may be long and a little more.

    Raises UnicodeDecodeError and OSError.
    """
    limit = 4 * (MAX_CAPTION_CHARACTERS + 1)  # UTF-8 has at most four bytes for each
    with path.open("rb") as file:
        data = file.read(limit)
    return decode_report(data, is_whole=len(data) < limit)


def decode_report(data: bytes, is_whole: bool = True) -> str:
    """The text of a file's bytes, as `read_report`. Raises UnicodeDecodeError."""
    return codecs.getincrementaldecoder(text_encoding(data[:4]))().decode(data, final=is_whole)


def select_reading(text: str) -> str:
    """The findings, impression and conclusion of a report; the whole text where it has no such sections.

    A report is a text with at least two headings ("FINDINGS:", also alone on a line), of which the first opens a line
    or is in capitals. A later one within a line counts after the end of a sentence or in capitals, so that "no
    comparison: …" is not a heading; headings inside the findings ("LUNGS:") stay. So does what was examined where it
    follows what was found ("Finding: a nodule. Examination: axial CT.").
    """
    if len(text) > MAX_CAPTION_CHARACTERS or is_rtf(text):  # preparation drops it
        return text
    headings: list[re.Match[str]] = []
    for match in _HEADING.finditer(text):
        if _is_heading(match) and not (headings and _names_exam_of(headings[-1], match)):
            headings.append(match)
    if len(headings) < 2 or not (headings[0].group().isupper() or not _line_before(headings[0])):
        return text
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    sections = [
        text[heading.end() : end].strip(" \t\r\n_")
        for heading, end in zip(headings, ends, strict=True)
        if heading.group("reading")
    ]
    return "\n".join(filter(None, sections)) or text


def split_reading(text: str) -> tuple[str, tuple[str, ...]]:
    """The caption that a text becomes, as `select_reading`, and what was withheld of it (`Pair.removed`)."""
    reading = select_reading(text)
    return reading, () if reading == text else (OTHER_SECTIONS,)


def _is_heading(match: re.Match[str]) -> bool:
    heading, line = match.group(), _line_before(match)
    if not heading.endswith(":") and match.group("reading"):
        return not line  # a heading without a colon is alone on its line
    return heading.isupper() or (heading[0].isupper() and line[-1:] in _SENTENCE_ENDS)


def _names_exam_of(reading: re.Match[str], match: re.Match[str]) -> bool:
    """Whether a match, not in capitals, says what was examined in the line in which a reading begins."""
    is_exam = match.group("exam") and not match.group().isupper() and reading.group("reading")
    return bool(is_exam) and "\n" not in match.string[reading.end() : match.start()]


def _line_before(match: re.Match[str]) -> str:
    """What precedes a match on its line."""
    return match.string[match.string.rfind("\n", 0, match.start()) + 1 : match.start()].strip()
