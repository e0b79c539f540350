"""A second net for free text: people, calendar dates and numbers that Presidio detects in captions, in English.

As it comes, Presidio takes ages, vertebrae, modalities and words such as "arrow" for somebody's data. What it detects
is replaced only where the rules here allow it; docs/privacy.md says what they cost. Needs the extra `presidio`.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import entry_points, version
from typing import Any, NamedTuple

from medclip.data.deidentify import REDACTED, replace_spans
from medclip.data.name_matching import APOSTROPHES, Span, is_ordinary
from medclip.data.normalize import normalize_text
from medclip.data.ordinary_words import ABBREVIATIONS, CLINICAL, CUES, SUFFIXES, TITLES
from medclip.errors import UserError
from medclip.require import require

PRIVACY_PREFIX = "presidio/"
"""The start of a count's name in `dataset.json`: presidio/PERSON."""
MIN_SCORE = 0.4
"""Of Presidio: a pattern that its checksum or a word before it confirms, or its language model's constant 0.85."""
_MODELS = ("en_core_web_lg", "en_core_web_trf", "en_core_web_md", "en_core_web_sm")
_NUMBERS = {
    *("PHONE_NUMBER", "EMAIL_ADDRESS", "US_SSN", "UK_NHS", "MEDICAL_LICENSE"),
    *("IP_ADDRESS", "MAC_ADDRESS", "CREDIT_CARD", "IBAN_CODE"),
}
_RELATIVES = {"mother", "father", "sister", "brother", "wife", "husband", "son", "daughter", "aunt", "uncle"}
_BEFORE_NAMES = TITLES | CUES | _RELATIVES | {REDACTED}  # the part of a name that a header holds is already replaced
_TERMS = CLINICAL | {
    *("doppler", "color", "colour", "flow", "power", "cine", "fig", "figs", "figure"),
    *("arrow", "arrows", "urography", "emphysema"),
}
"""CLINICAL, and what the model takes for people again and again in ROCO and `ordinary_words` does not have."""
_WORD = re.compile(r"[^\W\d_]+(?:['’‐-][^\W\d_]+)*")
_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|"
    r"nov(?:ember)?|dec(?:ember)?)\b\.?"
)
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_MONTH_NUMBER = r"(?:0?[1-9]|1[0-2])"
_DATE = re.compile(
    rf"(?<!\d)(?:\d{{4}}([-/.]){_MONTH_NUMBER}\1{_DAY}"
    rf"|(?:{_DAY}([-/.]){_MONTH_NUMBER}|{_MONTH_NUMBER}([-/.]){_DAY})(?(2)\2|\3)(?:\d{{4}}|\d{{2}})"
    rf"|{_DAY}(?:st|nd|rd|th)?(?: of)?[ -]{_MONTH}(?:,?[ -]\d{{4}})?"
    rf"|\b{_MONTH} {_DAY}(?:st|nd|rd|th)?(?:,? \d{{4}})?)(?!\d)",
    re.IGNORECASE,
)


class Detection(NamedTuple):
    """What an analyzer reports: an entity of Presidio (PERSON, DATE_TIME, …) and where it is in the text."""

    kind: str
    start: int
    end: int


def deidentify_caption(caption: str) -> tuple[str, Counter[str]]:
    """A caption of at most MAX_CAPTION_CHARACTERS without what is detected in it; the number of replacements by entity.

    The language model is loaded once a process. Where nothing is replaced the caption is returned as it was given.
    """
    text = re.sub(r"\s", " ", normalize_text(caption))  # a model reads over other spaces within a name
    results = load_analyzer().analyze(text, "en", score_threshold=MIN_SCORE)
    detections = [Detection(result.entity_type, result.start, result.end) for result in results]
    redacted, counts = replace_detections(text, detections)
    return (redacted, counts) if counts else (caption, counts)


def replace_detections(text: str, detections: Iterable[Detection]) -> tuple[str, Counter[str]]:
    """The text with "___" for each detection that the rules allow; the number of replacements by entity.

    A PERSON is capitalized words, none of them clinical or an abbreviation: two or more that are not all ordinary, or
    what stands beside a title, a degree or a word such as *by*. Of a DATE_TIME, dates with day and month go. Numbers
    and addresses go as detected, other entities stay.
    """
    allowed = {(span, kind) for kind, start, end in detections for span in _allowed_spans(text, kind, start, end)}
    counts: Counter[str] = Counter()
    spans: list[Span] = []
    for span, kind in sorted(allowed, key=lambda item: (item[0].start, -item[0].end, item[1])):
        if not spans or span.start >= spans[-1].end:
            counts[kind] += 1
        spans.append(span)
    return replace_spans(text, spans), counts


def filter_versions(tool: str | None) -> dict[str, str]:
    """Versions of Presidio and spaCy, and the name and version of the language model that is used; {} for None.

    Raises UserError where one is missing, with the command that installs it: nothing is downloaded unasked.
    """
    if tool is None:
        return {}
    require("presidio_analyzer", extra="presidio")
    model, model_version = _installed_model()
    return {
        "tool": tool,
        "presidio_analyzer": version("presidio-analyzer"),
        "spacy": version("spacy"),
        "model": model,
        "model_version": model_version,
    }


@lru_cache(1)
def load_analyzer() -> Any:
    """Presidio's AnalyzerEngine with the recognizers whose entities can be replaced, once a process."""
    model = filter_versions("presidio")["model"]
    presidio = require("presidio_analyzer", extra="presidio")
    recognizers = require("presidio_analyzer.predefined_recognizers", extra="presidio")
    nlp_engine = require("presidio_analyzer.nlp_engine", extra="presidio")
    logging.getLogger("presidio-analyzer").disabled = True  # it logs values that it cannot validate
    configuration = {"nlp_engine_name": "spacy", "models": [{"lang_code": "en", "model_name": model}]}
    registry = presidio.RecognizerRegistry(
        recognizers=[
            recognizers.SpacyRecognizer(supported_entities=["PERSON", "DATE_TIME"]),
            recognizers.DateRecognizer(),
            # EmailRecognizer itself downloads the list of the Internet's domains to check an address
            presidio.PatternRecognizer("EMAIL_ADDRESS", patterns=recognizers.EmailRecognizer.PATTERNS),
            recognizers.PhoneRecognizer(),
            recognizers.UsSsnRecognizer(),
            recognizers.NhsRecognizer(),
            recognizers.MedicalLicenseRecognizer(),
            recognizers.IpRecognizer(),
            recognizers.MacAddressRecognizer(),
            recognizers.CreditCardRecognizer(),
            recognizers.IbanRecognizer(),
        ]
    )
    engine = nlp_engine.NlpEngineProvider(nlp_configuration=configuration).create_engine()
    return presidio.AnalyzerEngine(registry=registry, nlp_engine=engine)


def _installed_model() -> tuple[str, str]:
    """Name and version of the preferred one of the English pipelines of spaCy that are installed."""
    models = {
        point.name: point.dist.version if point.dist else ""
        for point in entry_points(group="spacy_models")
        if point.name.startswith("en_")
    }
    if not models:
        raise UserError(
            "--deidentify presidio needs an English model of spaCy: python -m spacy download en_core_web_lg."
        )
    name = next((name for name in _MODELS if name in models), min(models))
    return name, models[name]


def _allowed_spans(text: str, kind: str, start: int, end: int) -> list[Span]:
    """The parts of a detection that are replaced."""
    if kind == "DATE_TIME":
        dates = (Span(*match.span()) for match in _DATE.finditer(text))  # of 12 Mar 2019 a model may see the year alone
        return [date for date in dates if date.start < end and date.end > start]
    if kind == "PERSON":
        return _name_spans(text, start, end)
    return [Span(start, end)] if kind in _NUMBERS else []


def _name_spans(text: str, start: int, end: int) -> list[Span]:
    """The name in a PERSON, without title, degree, possessive s or a word such as *by* before it."""
    words = list(_WORD.finditer(text, start, end))
    while words and words[0][0].casefold() in _BEFORE_NAMES | SUFFIXES:  # also II of "type II Hangman"
        del words[0]
    while words and words[-1][0].casefold() in SUFFIXES:
        del words[-1]
    if not words or re.search(r"\d", text[words[0].start() : words[-1].end() + 1]):  # T of T2
        return []
    spellings = [re.sub(f"[{APOSTROPHES}]s$", "", word[0]) for word in words]
    names = [word for word in spellings if len(word) > 1]  # an initial says nothing alone
    if not names or not all(word[0].isupper() for word in spellings) or any(map(_is_term, names)):
        return []
    start, end = words[0].start(), words[-1].start() + len(spellings[-1])
    if len(words) == 1:
        start, end = _extend_over_comma(text, start, end)
    before = re.search(r"(\w+)[.:\s]*$", text[max(0, start - 24) : start])
    after = re.match(r"\W{1,3}([A-Z]\w*)", text[end : end + 24])
    is_announced = before is not None and before[1].casefold() in _BEFORE_NAMES
    is_announced |= after is not None and after[1].casefold() in SUFFIXES
    has_parts = len(words) > 1 or end - start > len(spellings[0])
    return [Span(start, end)] if is_announced or (has_parts and not all(map(is_ordinary, names))) else []


def _extend_over_comma(text: str, start: int, end: int) -> Span:
    """A name with the other part of "Whitfield, Jonathan", of which a model may see one or see two people."""
    before = re.search(r"(?<![\w-])([^\W\d_]{2,}), $", text[max(0, start - 24) : start])
    after = re.match(r", ([^\W\d_]{2,})(?![\w-])", text[end : end + 24])
    for match in (before, after):
        if match and match[1][0].isupper() and not (is_ordinary(match[1]) or _is_term(match[1])):
            return Span(start - len(match[0]), end) if match is before else Span(start, end + len(match[0]))
    return Span(start, end)


def _is_term(word: str) -> bool:
    """Whether a capitalized word, or a part of it at a hyphen, is a clinical one or an abbreviation."""
    parts = re.split("[-‐]", word.casefold())
    is_abbreviation = word.isupper() and (len(word) < 3 or parts[0] in ABBREVIATIONS)
    return is_abbreviation or any(part in _TERMS for part in parts)
