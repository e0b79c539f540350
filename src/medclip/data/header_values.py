"""The forms that dates and identifiers of a header have in a report."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

from medclip.data.name_matching import APOSTROPHES
from medclip.data.name_spelling import fold
from medclip.data.unspaced_names import UNSPACED

_MONTH_STEMS = (
    *("jan jän jen ene gen sty led янв січ oca", "feb fev fév lut úno uno фев лют şub sub"),
    *("mar mär mae maa mrt bře bre мар бер", "apr avr abr kwi dub апр кві nis"),
    *("may mai mei mag maj kvě kve май мая тра", "jun jui giu cze čer cer июн чер haz"),
    *("jul jui lug lip čer cer июл лип tem", "aug aou aoû ago sie srp авг сер ağu agu"),
    *("sep set wrz zář zar сен вер eyl", "oct okt ott out paź paz říj rij окт жов eki"),
    *("nov lis ноя лис kas", "dec déc dez des dic gru pro дек гру ara"),
)
"""How the names of the months begin: in English, German, French, Spanish, Portuguese, Italian, Dutch, the Scandinavian
languages, Polish, Czech, Russian, Ukrainian and Turkish."""
ANY_MONTH = "|".join(" ".join(_MONTH_STEMS).split())
_SEPARATOR = r"[\s./()+-]{0,2}"
_MIN_ID_CHARACTERS = 4
_MIN_SEPARABLE_DIGITS = 6
"""An identifier of so many digits is found however they are grouped."""


def anchor_text(report: str) -> str:
    """A report in lower case, also without what may group an identifier: what `find_value` looks for anchors in."""
    plain = _lower(report)
    return f"{plain}\n{re.sub(_SEPARATOR, '', plain)}"


def find_value(kind: str, value: str, report: str, anchors: str) -> Iterator[re.Match[str]]:
    """Where a D(ate) or an I(dentifier) stands in a report, of which `anchors` is the `anchor_text`."""
    pattern = _compile_value(kind, value) if all(part in anchors for part in _anchors(kind, value)) else None
    return pattern.finditer(report) if pattern else iter(())


def _lower(text: str) -> str:
    """Text in lower case, with the four letters that `re.IGNORECASE` takes for ASCII ones as these."""
    for letter, plain in ("ıi", "İi", "ſs", "Kk"):
        text = text.replace(letter, plain)
    return text.lower()


@lru_cache(1024)
def _anchors(kind: str, value: str) -> tuple[str, ...]:
    """What a lower-case text holds wherever it holds a value: comparing is faster than compiling a pattern."""
    if kind == "D":
        return (date[2:4], date[-1]) if (date := _date_digits(value)) else ()
    if characters := _separable(value):
        return ("".join(characters).lower(),)
    runs = re.findall("[a-z0-9]+", unicodedata.normalize("NFC", value).lower())
    return (max(runs, key=len),) if runs else ()


@lru_cache(256)
def _compile_value(kind: str, value: str) -> re.Pattern[str] | None:
    """The forms that a value of kind D(ate) or I(dentifier) has in running text."""
    if kind == "D":
        forms = _date_forms(value)
        return re.compile(rf"(?<!\d)(?:{'|'.join(forms)})(?!\d)", re.IGNORECASE) if forms else None
    if len(value) < _MIN_ID_CHARACTERS:
        return None
    characters = _separable(value)
    form = "[+]?0*" + _SEPARATOR.join(characters) if characters else _any_spelling(value)
    bounds = ("" if UNSPACED.match(end) else rf"(?{look}\w)" for end, look in ((value[:1], "<!"), (value[-1:], "!")))
    before, after = bounds
    return re.compile(f"{before}(?:{form}){after}", re.IGNORECASE)


def _separable(value: str) -> list[str]:
    """The characters, without zeros in front, of an identifier that may be grouped in any way; [] of another."""
    if not re.fullmatch(r"[A-Za-z0-9\s./()+-]+", value):
        return []
    characters = re.sub("[^A-Za-z0-9]", "", value).lstrip("0")  # 000007 is no 7
    return list(characters) if sum(map(str.isdigit, characters)) >= _MIN_SEPARABLE_DIGITS else []


_PARTS = re.compile(rf"[\s{APOSTROPHES}]+|[aàáâãäåāăą]{{2,}}|.", re.DOTALL | re.IGNORECASE)


def _any_spelling(value: str) -> str:
    """A pattern of a text with any apostrophe, any white space, and letters with or without their accents."""
    pieces = []
    for part in _PARTS.findall(unicodedata.normalize("NFC", value)):
        num_blanks = sum(map(str.isspace, part))
        if num_blanks or part[0] in APOSTROPHES:  # one class for a run of both: several would try every way to share
            kinds = (r"\s" if num_blanks else "") + (APOSTROPHES if num_blanks < len(part) else "")
            pieces.append(f"[{kinds}]{{{min(num_blanks, 1)},{2 * num_blanks + len(part)}}}")
        elif len(part) > 1 and (num_doubled := len(re.findall("[äå]", part, re.IGNORECASE))):  # as ae, aa
            pieces.append(f"[{part}ae]{{{len(part)},{len(part) + num_doubled}}}")
        else:
            pieces += map(_any_accent, part)
    return "".join(pieces)


def _any_accent(character: str) -> str:
    if character.isascii() or not character.isalpha():
        return re.escape(character)
    return f"(?:{'|'.join(map(re.escape, dict.fromkeys([character, *fold(character)])))})"


def _date_digits(value: str) -> str:
    """Year, month and day of a DICOM date, "" for another value."""
    match = re.match(r"(\d{4})[-.]?(0[1-9]|1[0-2])[-.]?(0[1-9]|[12]\d|3[01])", value)
    return "".join(match.groups()) if match else ""


def read_dates(text: str) -> tuple[str, ...]:
    """The dates that a cell may mean, as DICOM writes them: 2.3.1950 and 02/03/1950 are of March or of February."""
    if date := _date_digits(text.strip()):
        return (date,)
    match = re.match(r"(\d{1,2})[./-]\s?(\d{1,2})[./-]\s?(\d{4})", text.strip())
    days = {f"{match[3]}{int(m):02}{int(d):02}" for d, m in (match.group(1, 2), match.group(2, 1))} if match else set()
    return tuple(sorted(filter(_date_digits, days)))


def _date_forms(value: str) -> list[str]:
    if not (date := _date_digits(value)):
        return []
    year, month, day = date[:4], date[4:6], date[6:]
    m, d, y = f"0?{int(month)}", f"0?{int(day)}", f"(?:{year}|{year[2:]})"
    orders = ((year, m, d), (d, m, y), (m, d, y))
    numbers = [f"{year}{month}{day}", *(between.join(order) for between in ("-", "/", r"\.\s?") for order in orders)]
    asian = rf"{year}\s?[年년]\s?{m}\s?[月월]\s?{d}\s?[日일]"
    stems = "|".join(dict.fromkeys(_MONTH_STEMS[int(month) - 1].split()))
    return [*numbers, asian, *dates_in_words(d, stems, y)]


def dates_in_words(day: str, stems: str, year: str) -> tuple[str, str]:
    """Patterns of dates with the name of a month, which begins with one of the `stems`, day or month first."""
    word, ordinal = rf"(?:{stems})[^\W\d_]{{0,9}}\.?", "(?:st|nd|rd|th|er|[º°ª.])?"
    genitive = r"(?:(?:of|de|del|di|do)\s)?"
    return (
        rf"{day}{ordinal}[\s-]?{genitive}{word},?[\s-]?{genitive}{year}",
        rf"\b{word}\s{day}{ordinal},?\s{year}",
    )
