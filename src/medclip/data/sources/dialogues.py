"""Captions of dialogues about an image, as LLaVA, ShareGPT and chat templates hold them: what the model answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

COLUMNS = ("conversations", "conversation", "conversatons", "messages")
"""Plain names of their columns; the third is LLaVA-Med's own spelling."""
_TURNS = (("from", "value"), ("role", "content"))
_ASKING = ("human", "user", "system", "developer", "tool", "function", "observation")


def answers(turns: Sequence[Any] | np.ndarray) -> list[Any] | None:
    """What is said in answer, of a list of turns such as {"from": "gpt", "value": …} or {"role", "content"}.

    Questions and instructions say nothing of an image. None where it is no such list.
    """
    names = next((names for names in _TURNS if len(turns) and all(_is_turn(turn, *names) for turn in turns)), None)
    if names is None:
        return None
    speaker, content = names
    return [_spoken(turn[content]) for turn in turns if turn[speaker].strip().lower() not in _ASKING]


def _is_turn(turn: Any, speaker: str, content: str) -> bool:
    return isinstance(turn, Mapping) and isinstance(turn.get(speaker), str) and content in turn


def _spoken(content: Any) -> Any:
    """The texts of content that may hold images beside them, as [{"type": "text", "text": …}, {"type": "image"}]."""
    if isinstance(content, list | tuple | np.ndarray):
        return [part.get("text") if isinstance(part, Mapping) else part for part in content]
    return content
