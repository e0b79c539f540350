"""What is said for a class: templates filled with its words, from a file that people can read."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medclip.errors import UserError

SHIPPED = Path(__file__).with_name("radiology.toml")
PLACE = "{}"


@dataclass(frozen=True)
class Prompts:
    """How the classes of one label are said."""

    templates: tuple[str, ...]
    """Each holds {} once, where the words of a class go."""
    absent: tuple[str, ...]
    """Those that say that a finding is not there; none where classes exclude each other."""
    words: Mapping[str, tuple[str, ...]]
    """The ways to name a class; one that is not among them goes by its own name."""

    def of(self, name: str) -> list[str]:
        """Every template with every one of the class's words."""
        return self._filled(self.templates, name)

    def against(self, name: str) -> list[str]:
        """The same with the templates that deny it."""
        return self._filled(self.absent, name)

    def _filled(self, templates: tuple[str, ...], name: str) -> list[str]:
        words = self.words.get(name) or (" ".join(name.replace("_", " ").split()),)
        return [template.replace(PLACE, word) for template in templates for word in words]


def read_prompts(path: Path | None, label: str, several: bool) -> Prompts:
    """The section of a label, in `path` or the file that comes with this program.

    A label without a section of its own takes "finding" where an image can have `several` values, "default" where not.
    UserError names the file and what is wrong in it.
    """
    path = path or SHIPPED
    said = _read(path)
    name = label if label in said else "finding" if several else "default"
    if name not in said:
        raise UserError(f"{path} has neither a section [{label}] nor [{name}]; it has: {', '.join(said) or 'none'}.")
    section = said[name]
    if several and not section.get("absent"):
        raise UserError(f"{path}: [{name}] needs absent = [...], for images of this label can have several values.")
    words = {**said.get("default", {}).get("words", {}), **section.get("words", {})}
    return Prompts(
        tuple(section["templates"]),
        tuple(section.get("absent", ())),
        {name: tuple(ways) for name, ways in words.items()},
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); --prompts takes a file like {SHIPPED}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no TOML ({error}); a file of that form is {SHIPPED}.") from None
    for name, section in said.items():
        if not isinstance(section, dict) or not section.keys() <= {"templates", "absent", "words"}:
            raise UserError(f"{path}: [{name}] may hold templates, absent and [{name}.words], and nothing else.")
        words = section.get("words", {})
        lists = {
            "templates": section.get("templates"),
            **({"absent": section["absent"]} if "absent" in section else {}),
        }
        for key, texts in (lists | words if isinstance(words, dict) else {"words": words}).items():
            if not (isinstance(texts, list) and texts and all(isinstance(t, str) and t.strip() for t in texts)):
                raise UserError(f'{path}: {key} of [{name}] is no list of texts, such as ["a", "b"].')
            if key in lists and (wrong := [t for t in texts if t.count(PLACE) != 1]):
                raise UserError(f"{path}: template {wrong[0]!r} of [{name}] must hold {PLACE} once.")
    return said
