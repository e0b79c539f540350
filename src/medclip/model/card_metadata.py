"""The head of a model card: the data that a model was trained on, and the models that it started from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medclip.errors import UserError
from medclip.model.checkpoint import is_local, model_folder


@dataclass(frozen=True)
class TrainingData:
    """Names of the datasets that a model was trained on."""

    sources: tuple[str, ...] = ()
    is_complete: bool = False
    """Whether these are known to be all, from the first step of the first training on."""


def read_training_data(name: str | Path) -> TrainingData:
    """The datasets on the card of a model (folder, run or OWNER/NAME): our `trained_on` and the Hub's `datasets`.

    Empty and not complete where there is no card or no model.
    """
    head = _read_head(name)
    sources = [source for key in ("trained_on", "datasets") for source in _strings(head.get(key))]
    return TrainingData(tuple(dict.fromkeys(sources)), head.get("trained_on_nothing_else") is True)


def add_training_data(source: str, starts: Sequence[str]) -> TrainingData:
    """The datasets of a model that was trained on `source` from the models `starts`."""
    earlier = [read_training_data(start) for start in starts]
    sources = [name for data in earlier for name in data.sources]
    return TrainingData(tuple(dict.fromkeys([*sources, source])), all(data.is_complete for data in earlier))


def base_models(starts: Sequence[str]) -> list[str]:
    """The Hub's names of models; of one in a folder, those on its own card."""
    names = [[name] if (name := hub_name(start)) else _strings(_read_head(start).get("base_model")) for start in starts]
    return list(dict.fromkeys(name for of_start in names for name in of_start if is_repository_name(name)))


def license_of(name: str) -> str:
    """The license on a model's card; "" where it names none."""
    license = _read_head(name).get("license")
    return license if isinstance(license, str) and re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,39}", license) else ""


def hub_name(model: str) -> str | None:
    """OWNER/NAME of a model that is named so, None for a path on this machine."""
    name = model.removeprefix("hf-hub:").partition("@")[0]
    return name if is_repository_name(name) and not is_local(name) else None


def is_repository_name(name: str) -> bool:
    """Whether a name has the form OWNER/NAME of the Hub's repositories."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return "/" in name


def _read_head(name: str | Path) -> Mapping[str, Any]:
    """The metadata of a model's card; empty where there is no card that can be read, or no model."""
    from huggingface_hub import metadata_load

    try:
        return metadata_load(model_folder(name) / "README.md") or {}
    except (OSError, UserError, ValueError, RecursionError):
        return {}
    except Exception as error:  # YAML's own, whose library is the Hub client's
        if type(error).__module__.startswith("yaml"):
            return {}
        raise


def _strings(value: object) -> list[str]:
    values = [value] if isinstance(value, str) else value
    return [item for item in values if isinstance(item, str)] if isinstance(values, list) else []
