"""medclip: from radiology image-caption pairs to a measured, searchable CLIP model. Not for clinical use.

>>> import medclip
>>> model = medclip.load("openai/clip-vit-base-patch32")
>>> model.similarity(["a.png", "b.png"], ["CT of the chest", "MRI of the knee"])   # cosines (2, 2)

`load` opens a model; `prepare`, `train`, `evaluate` and `Index.build` are the stages of the command line. Importing
`medclip` alone loads none of them, nor JAX.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medclip.dual_encoder import DualEncoder as DualEncoder
    from medclip.dual_encoder import load as load

__version__ = "0.2.0"
NOT_CLINICAL = "Research software. Not a medical device, not for clinical use."
_MODULES = {"DualEncoder": "dual_encoder", "load": "dual_encoder"}
"""Where each public name is defined, below this package."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'medclip' has no attribute {name!r}")
    from medclip import jax_setup

    jax_setup.start()  # before anything imports JAX
    value = globals()[name] = getattr(import_module(f"medclip.{_MODULES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
