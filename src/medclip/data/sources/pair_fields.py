"""What a row of an exchange form says beside image, caption and group: as `medclip export` writes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def extra_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a Pair that `row` has in our own form; what has another form is someone else's and left."""
    found: dict[str, Any] = {name: as_strings(row.get(name)) for name in ("keywords", "semantic_types")}
    source = row.get("source")
    return found | {"labels": _labels(row.get("labels"))} | ({"source": source} if isinstance(source, str) else {})


def as_strings(value: Any) -> tuple[str, ...]:
    """A list of strings; anything else is none."""
    return tuple(value) if isinstance(value, list) and all(isinstance(one, str) for one in value) else ()


def _labels(value: Any) -> dict[str, str]:
    """From {name: value} or, where a format has no maps, [{"name": name, "value": value}]."""
    if isinstance(value, list) and all(isinstance(one, Mapping) and {"name", "value"} == one.keys() for one in value):
        value = {one["name"]: one["value"] for one in value}
    if not isinstance(value, Mapping) or not all(isinstance(text, str) for text in (*value, *value.values())):
        return {}
    return dict(value)
