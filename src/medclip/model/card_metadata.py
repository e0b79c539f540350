"""What a model says of the data it was trained on: the head of its card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medclip.errors import UserError
from medclip.model.checkpoint import model_folder


@dataclass(frozen=True)
class TrainedOn:
    """Names of the data that a model was trained on."""

    sources: tuple[str, ...] = ()
    nothing_else: bool = False
    """Whether these are known to be all, from the first step of the first training on."""


def trained_on(name: str | Path) -> TrainedOn:
    """What the card of a model (folder, run or OWNER/NAME) says: our `trained_on` and the Hub's `datasets`.

    A model without a card, or that cannot be found, says nothing.
    """
    from huggingface_hub import metadata_load

    try:
        said = metadata_load(model_folder(name) / "README.md") or {}
    except (OSError, UserError, ValueError):
        return TrainedOn()
    except Exception as error:  # YAML's own, whose library is the Hub client's
        if type(error).__module__.startswith("yaml"):
            return TrainedOn()
        raise
    sources = [source for key in ("trained_on", "datasets") for source in _strings(said.get(key))]
    return TrainedOn(tuple(dict.fromkeys(sources)), said.get("trained_on_nothing_else") is True)


def joined(source: str, starts: list[str]) -> TrainedOn:
    """What a model has seen that went on from `starts` with data of the name `source`."""
    before = [trained_on(start) for start in starts]
    sources = [name for one in before for name in one.sources]
    return TrainedOn(tuple(dict.fromkeys([*sources, source])), all(one.nothing_else for one in before))


def _strings(said: object) -> list[str]:
    said = [said] if isinstance(said, str) else said
    return [one for one in said if isinstance(one, str)] if isinstance(said, list) else []
