"""medclip: from radiology image-caption pairs to a measured, searchable CLIP model. Not for clinical use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medclip.model.checkpoint import Model

__version__ = "0.2.0"
NOT_CLINICAL = "Research software. Not a medical device, not for clinical use."


def load(name: str | Path, revision: str | None = None) -> Model:
    """A dual encoder from a model folder, a run around one, or the Hub; see `medclip.model.checkpoint.load`."""
    from medclip.model import checkpoint  # `import medclip` alone stays without JAX

    return checkpoint.load(name, revision)
