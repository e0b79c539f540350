"""Prompts for classes: templates filled with names of a class, from a file that people can read."""

from __future__ import annotations

import functools
import re
import tomllib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from medclip.bounded_files import read_toml
from medclip.errors import UserError
from medclip.prompts.english import PLACEHOLDER, fill, phrase_of, positive_of, with_article, without_article

DEFAULT_PROMPTS = Path(__file__).with_name("radiology.toml")
REPORT_PHRASES = Path(__file__).with_name("report_phrases.toml")
TEMPLATE_KEYS = ("templates", "negated_templates")


@dataclass(frozen=True)
class Prompts:
    """The prompts for the classes of one label."""

    templates: tuple[str, ...]
    """Each holds {} once, where a name of the class goes."""
    negated_templates: tuple[str, ...]
    """Those of the absence of a finding; none where classes exclude each other."""
    names: Mapping[str, tuple[str, ...]]
    """The names of a class by its key (see `class_key`); one that is not among them goes by its own."""
    report_phrases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Severity × subtype × location of findings, by key; none with prompts of the user."""

    def affirm(self, label: str) -> list[str]:
        """Every template with every name of the class."""
        return self._fill(label, self.templates, self.negated_templates)

    def deny(self, label: str) -> list[str]:
        """The same with the negated templates."""
        return self._fill(label, self.negated_templates, self.templates)

    def phrases(self, label: str) -> list[str]:
        """The names of the class as noun phrases, with their articles."""
        return [with_article(name) for name in self.names.get(class_key(label), ())] or [phrase_of(label)]

    def combine(self, label: str) -> list[str]:
        """Severity × subtype × location of a finding, in words of a report; the names of another class."""
        phrases = list(map(without_article, self.phrases(label)))
        keys = map(class_key, (label, *phrases))
        return list(next((self.report_phrases[key] for key in keys if key in self.report_phrases), phrases))

    def _fill(self, label: str, templates: Sequence[str], opposite: Sequence[str]) -> list[str]:
        """What a negative name denies ("no finding") is put in the opposite templates, where there are any."""
        texts = []
        for phrase in self.phrases(label):
            denied = positive_of(phrase) if templates and opposite else None
            chosen, phrase = (opposite, denied) if denied else (templates, phrase)
            texts += [fill(template, phrase) for template in chosen]
        return list(dict.fromkeys(texts))


def class_key(label: str) -> str:
    """What all spellings of a class have in common: Pleural_Effusion, "pleural effusion" and PleuralEffusion."""
    return unicodedata.normalize("NFC", re.sub(r"[\s_/-]+", "", label)).casefold() or label


def read_prompts(path: Path | None, label: str, multilabel: bool) -> Prompts:
    """The section of a label, in `path` or the package's own file.

    A label without a section of its own takes "finding" where an image can have several values, "default" otherwise.
    Sections and classes are found whatever the case, spaces and underscores of their names.
    UserError names the file and what is wrong in it.
    """
    path = path or DEFAULT_PROMPTS
    sections = _read(path)
    own = next((name for name in sections if class_key(name) == class_key(label)), None)
    name = own or ("finding" if multilabel else "default")
    if name not in sections:
        listed = ", ".join(sections) or "none"
        raise UserError(f"{path} has neither a section [{label}] nor [{name}]; it has: {listed}.")
    section = sections[name]
    if multilabel and not section.get("negated_templates"):
        raise UserError(f"{path}: [{name}] needs negated_templates: images of this label can have several values.")
    names = [sections.get("default", {}).get("names", {}), section.get("names", {})]
    return Prompts(
        tuple(section["templates"]),
        tuple(section.get("negated_templates", ())),
        {class_key(class_name): tuple(texts) for mapping in names for class_name, texts in mapping.items()},
        _read_report_phrases() if path == DEFAULT_PROMPTS else {},
    )


@functools.cache
def _read_report_phrases() -> dict[str, tuple[str, ...]]:
    """The products of the package's lists; a prompt is "severity subtype location"."""
    sections = tomllib.loads(REPORT_PHRASES.read_text(encoding="utf-8"))
    axes = ("severity", "subtype", "location")
    return {
        class_key(name): tuple(" ".join(filter(None, parts)) for parts in product(*(lists[axis] for axis in axes)))
        for name, lists in sections.items()
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        sections = read_toml(path)
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); --prompts takes a file like {DEFAULT_PROMPTS}."
        ) from None
    except (ValueError, RecursionError) as error:  # also of text that is not UTF-8, of a number of 5,000 digits
        raise UserError(f"{path} is not TOML ({error}); a file of that form is {DEFAULT_PROMPTS}.") from None
    for name, section in sections.items():
        if not isinstance(section, dict) or not section.keys() <= {*TEMPLATE_KEYS, "names"}:
            raise UserError(
                f"{path}: [{name}] may hold {', '.join(TEMPLATE_KEYS)} and [{name}.names], and nothing else."
            )
        names = section.get("names", {})
        templates = {"templates": None} | {key: section[key] for key in TEMPLATE_KEYS if key in section}
        for key, texts in (templates | names if isinstance(names, dict) else {"names": names}).items():
            if not (isinstance(texts, list) and texts and all(isinstance(t, str) and t.strip() for t in texts)):
                raise UserError(f'{path}: {key} of [{name}] is not a list of texts, such as ["a", "b"].')
            if key in templates and (wrong := [t for t in texts if t.count(PLACEHOLDER) != 1]):
                raise UserError(f"{path}: template {wrong[0]!r} of [{name}] must hold {PLACEHOLDER} once.")
        spellings = {class_key(class_name): class_name for class_name in names}
        if twice := [class_name for class_name in names if spellings[class_key(class_name)] != class_name]:
            other = spellings[class_key(twice[0])]
            raise UserError(f"{path}: {twice[0]!r} and {other!r} of [{name}.names] are one class, only spelled apart.")
    return sections
