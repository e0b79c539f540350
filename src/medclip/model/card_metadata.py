"""The head of a model card: the data that a model was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medclip.errors import UserError
from medclip.model.checkpoint import model_folder


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
    from huggingface_hub import metadata_load

    try:
        card = metadata_load(model_folder(name) / "README.md") or {}
    except (OSError, UserError, ValueError, RecursionError):
        return TrainingData()
    except Exception as error:  # YAML's own, whose library is the Hub client's
        if type(error).__module__.startswith("yaml"):
            return TrainingData()
        raise
    sources = [source for key in ("trained_on", "datasets") for source in _strings(card.get(key))]
    return TrainingData(tuple(dict.fromkeys(sources)), card.get("trained_on_nothing_else") is True)


def add_training_data(source: str, starts: Sequence[str]) -> TrainingData:
    """The datasets of a model that was trained on `source` from the models `starts`."""
    earlier = [read_training_data(start) for start in starts]
    sources = [name for data in earlier for name in data.sources]
    return TrainingData(tuple(dict.fromkeys([*sources, source])), all(data.is_complete for data in earlier))


def _strings(value: object) -> list[str]:
    values = [value] if isinstance(value, str) else value
    return [item for item in values if isinstance(item, str)] if isinstance(values, list) else []
