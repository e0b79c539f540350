"""Prompts for classes: templates filled with names of a class, from a file that people can read."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medclip.errors import UserError

DEFAULT_PROMPTS = Path(__file__).with_name("radiology.toml")
PLACEHOLDER = "{}"
TEMPLATE_KEYS = ("templates", "negated_templates")


@dataclass(frozen=True)
class Prompts:
    """The prompts for the classes of one label."""

    templates: tuple[str, ...]
    """Each holds {} once, where a name of the class goes."""
    negated_templates: tuple[str, ...]
    """Those of the absence of a finding; none where classes exclude each other."""
    names: Mapping[str, tuple[str, ...]]
    """The names of a class; one that is not among them goes by its own."""

    def affirm(self, label: str) -> list[str]:
        """Every template with every name of the class."""
        return self._fill(self.templates, label)

    def deny(self, label: str) -> list[str]:
        """The same with the negated templates."""
        return self._fill(self.negated_templates, label)

    def _fill(self, templates: tuple[str, ...], label: str) -> list[str]:
        names = self.names.get(label) or (" ".join(label.replace("_", " ").split()),)
        return [template.replace(PLACEHOLDER, name) for template in templates for name in names]


def read_prompts(path: Path | None, label: str, multilabel: bool) -> Prompts:
    """The section of a label, in `path` or the package's own file.

    A label without a section of its own takes "finding" where an image can have several values, "default" otherwise.
    UserError names the file and what is wrong in it.
    """
    path = path or DEFAULT_PROMPTS
    sections = _read(path)
    name = label if label in sections else "finding" if multilabel else "default"
    if name not in sections:
        listed = ", ".join(sections) or "none"
        raise UserError(f"{path} has neither a section [{label}] nor [{name}]; it has: {listed}.")
    section = sections[name]
    if multilabel and not section.get("negated_templates"):
        raise UserError(f"{path}: [{name}] needs negated_templates: images of this label can have several values.")
    names = {**sections.get("default", {}).get("names", {}), **section.get("names", {})}
    return Prompts(
        tuple(section["templates"]),
        tuple(section.get("negated_templates", ())),
        {class_name: tuple(texts) for class_name, texts in names.items()},
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        sections = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); --prompts takes a file like {DEFAULT_PROMPTS}."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
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
    return sections
