"""medclip: from radiology image-caption pairs to a measured, searchable CLIP model. Not for clinical use.

>>> import medclip
>>> model = medclip.load("run")
>>> model.similarity(["a.png", "b.png"], ["CT of the chest", "MRI of the knee", "ultrasound"]).shape
(2, 3)

`load` opens a model folder, a run or a model of the Hub; `prepare`, `train`, `evaluate`, `compare` and `Index.build`
are the stages of the command line. `import medclip` alone loads none of them, nor JAX.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medclip.api import PreparedDataset as PreparedDataset
    from medclip.api import TrainedRun as TrainedRun
    from medclip.api import compare as compare
    from medclip.api import evaluate as evaluate
    from medclip.api import prepare as prepare
    from medclip.api import train as train
    from medclip.data.prepare_config import Columns as Columns
    from medclip.data.prepare_config import PrepareConfig as PrepareConfig
    from medclip.dual_encoder import DualEncoder as DualEncoder
    from medclip.dual_encoder import load as load
    from medclip.search.index import Index as Index
    from medclip.search.query import Query as Query
    from medclip.training.config import TrainConfig as TrainConfig

__version__ = "0.2.0"
NOT_CLINICAL = "Research software. Not a medical device, not for clinical use."
_MODULES = {
    "load": "dual_encoder",
    "DualEncoder": "dual_encoder",
    "prepare": "api",
    "PrepareConfig": "data.prepare_config",
    "Columns": "data.prepare_config",
    "PreparedDataset": "api",
    "train": "api",
    "TrainConfig": "training.config",
    "TrainedRun": "api",
    "evaluate": "api",
    "compare": "api",
    "Index": "search.index",
    "Query": "search.query",
}
"""The public names, and where each is defined below this package."""


if not TYPE_CHECKING:  # which would take any misspelt name for one of these

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module 'medclip' has no attribute {name!r}")
        from medclip import jax_setup

        jax_setup.start()  # before anything imports JAX
        value = globals()[name] = getattr(import_module(f"medclip.{_MODULES[name]}"), name)
        return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
