"""The patient, study or article that a row states, in columns of any usual name or in an object: {"id", "age"}."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any, TypedDict

from medclip.data.header_values import read_dates
from medclip.data.prepare_config import Columns
from medclip.data.sources.image_cells import cell_text, parse_literal
from medclip.data.sources.stated_splits import plain_name

_PERSON_NAMES = (
    *("patientid", "patient", "patientnumber", "patid", "pid", "personid", "person", "participantid", "participant"),
    *("subjectid", "subject", "mrn", "patientmrn", "patientidentifier", "patientcode", "patientname"),
    *(
        "patientenid",
        "patientennummer",
        "patientennr",
        "idpatient",
        "ipp",
        "paciente",
        "pacienteid",
        "idpaciente",
        "nhc",
    ),
    *("studyinstanceuid", "studyuid", "studyid", "study", "accessionnumber", "accession", "examid", "caseid", "uid"),
    *("fallnummer", "fallnr", "fallid"),
    "seriesinstanceuid",
)
"""Columns of patients and studies by `plain_name`: their values are pseudonymized."""
_NAME_NAMES = (
    *("patientname", "patientsname", "patientfullname", "patientenname", "radiologist"),
    *("physician", "physicianname", "referringphysician", "referringphysicianname", "performingphysicianname"),
    *("readingphysician", "operatorsname", "reportedby"),
)
_FAMILY_NAMES = ("lastname", "surname", "familyname", "nachname", "apellido", "apellidos")
_GIVEN_NAMES = ("firstname", "givenname", "vorname", "prenom")
_DATE_NAMES = (
    *("birthdate", "birthday", "dateofbirth", "dob", "patientbirthdate", "patientdob", "geburtsdatum"),
    *("datenaissance", "datedenaissance", "fechanacimiento", "fechadenacimiento", "studydate", "examdate"),
)
"""Columns of people's names and of dates by `plain_name`: what they hold is replaced in captions."""
_ARTICLE_NAMES = ("article", "articleid", "pmcid", "pmid", "doi", "group", "groupid")
GROUP_NAMES = (*_PERSON_NAMES, *_ARTICLE_NAMES)
"""Columns of groups by `plain_name`: patients, then studies, then articles. A row is of the first that it states."""
_OBJECT_NAMES = {*GROUP_NAMES, "exam", "case", "meta", "metadata", "info", "dicom", "header"}
"""Columns whose objects are read; those of captions and labels may call anything a study."""
_MAX_DEPTH = 4
_WHOLE_FLOAT = re.compile(r"\d+\.0+")
_ARTICLE_FILE = re.compile(r"(PMC\d+)_")
"""The file names of PubMed Central's figures: all figures and subfigures of an article are one group."""

_plain_name = lru_cache(1024)(plain_name)


def stated_group(row: Mapping[str, Any], column: str | None = None) -> str:
    """The group in the column of groups, whatever it is called, else in another one; "" where a row states none."""
    return (_first_group({"patient": row.get(column)}) if column else "") or _first_group(row)


def _first_group(cells: Mapping[str, Any]) -> str:
    stated: dict[str, str] = {}
    for name, value in _iter_named(cells, "", _MAX_DEPTH):
        if name in GROUP_NAMES and name not in stated and (text := cell_text(value).strip()):
            stated[name] = without_fraction(text)
    return next((stated[name] for name in GROUP_NAMES if name in stated), "")


def names_people(column: str) -> bool:
    """Whether a column is called as those of patients, studies, people and dates are."""
    names = (*_PERSON_NAMES, *_NAME_NAMES, *_FAMILY_NAMES, *_GIVEN_NAMES, *_DATE_NAMES)
    return _plain_name(column) in names


class PrivateFields(TypedDict):
    """Fields of a Pair or a dropped row that preparation uses and does not store."""

    private: tuple[str, ...]
    identifying: tuple[tuple[str, str], ...]


def private_fields(row: Mapping[str, Any], columns: Columns) -> PrivateFields:
    """What a row says of patients, studies and people."""
    cells, column = list(_iter_named(row, "", _MAX_DEPTH)), columns.group_column
    identifying = _identifying_values(cells)
    if column and _plain_name(column) not in GROUP_NAMES:  # one that is not of articles
        cells += _iter_named({"patient": row.get(column)}, "", _MAX_DEPTH)
    return {"private": _private_values(cells), "identifying": identifying}


def _private_values(cells: Iterable[tuple[str, Any]]) -> tuple[str, ...]:
    """What the cells of patients and studies hold."""
    values = (cell_text(value).strip() for name, value in cells if name in _PERSON_NAMES)
    return tuple(dict.fromkeys(text for value in values for text in (value, without_fraction(value)) if text))


def _identifying_values(cells: Iterable[tuple[str, Any]]) -> tuple[tuple[str, str], ...]:
    """What the cells of people's names (PN) and of dates (DA, as ISO 8601 has them) hold."""
    values: dict[tuple[str, str], None] = {}
    parts: dict[str, str] = {}
    for name, value in cells:
        if name in _DATE_NAMES:
            values |= dict.fromkeys(("DA", date) for date in read_dates(cell_text(value)))
        elif name in _NAME_NAMES and (text := cell_text(value).strip()):
            values["PN", text] = None
        elif name in _FAMILY_NAMES or name in _GIVEN_NAMES:
            parts.setdefault("family" if name in _FAMILY_NAMES else "given", cell_text(value).strip())
    if any(parts.values()):
        values["PN", f"{parts.get('family', '')}^{parts.get('given', '')}"] = None
    return tuple(values)


def _iter_named(cells: Mapping[str, Any], parent: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Every cell by its `plain_name`, outer ones first; one of an object also after it, as patient.id is patientid."""
    objects = []
    for key, value in cells.items():
        name = _plain_name(str(key))
        if name in _OBJECT_NAMES or parent:
            value = _parse_object(value)
        if isinstance(value, Mapping):
            objects += [(value, name)] * (name in _OBJECT_NAMES)
            continue
        yield name, value
        if parent:
            yield parent + name, value
    for value, name in objects if depth else ():
        yield from _iter_named(value, name, depth - 1)


def _parse_object(value: Any) -> Any:
    """The object that a cell, a list of one or a text in the spelling of JSON or Python is; others as they are."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str) or not (value.startswith("{") and value.endswith("}")):
        return value
    for parse in (json.loads, parse_literal):
        try:
            return parse(value)
        except (ValueError, RecursionError):
            continue
    return value


def without_fraction(text: str) -> str:
    """A number as it was before a missing value beside it made pandas write its column as floats: 17.0 is 17."""
    return text.partition(".")[0] if _WHOLE_FLOAT.fullmatch(text) else text


def article_of_file(name: str) -> str:
    """The article in the file name of a figure of PubMed Central (PMC212319_Fig3_4.jpg); "" where there is none."""
    match = _ARTICLE_FILE.match(PurePosixPath(name).name)
    return match.group(1) if match else ""
