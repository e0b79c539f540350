"""A tensor of a file, known by shape and type before it is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LazyTensor:
    """A tensor that has not been read yet."""

    shape: tuple[int, ...]
    dtype: str
    """NumPy's or ml_dtypes' name, such as float32, bfloat16 or float8_e4m3fn."""
    read: Callable[[], np.ndarray]
