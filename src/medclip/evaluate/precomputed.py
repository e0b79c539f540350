"""Vectors made elsewhere, in place of a model: two .npy files, row i of both being pair i of the split."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medclip.errors import UserError


def read_vectors(images: Path, texts: Path, pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors f32 (pairs, p) of both files. UserError names the file, and the row, that is not as it should be."""
    both = _unit_rows(images, pairs), _unit_rows(texts, pairs)
    if both[0].shape != both[1].shape:
        raise UserError(f"{images} has vectors of {both[0].shape[1]} numbers and {texts} of {both[1].shape[1]}.")
    return both


def _unit_rows(path: Path, pairs: int) -> np.ndarray:
    try:
        rows = np.lib.format.open_memmap(path, mode="r")  # a header that claims too much takes no memory
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: --embeddings takes two .npy files, of images and of texts.") from None
    except (ValueError, EOFError, OSError) as error:
        raise UserError(f"{path} is no .npy file of numbers ({error}): write it with numpy.save.") from None
    if rows.ndim != 2 or rows.dtype.kind not in "fiu" or not rows.shape[1]:
        raise UserError(f"{path} is {rows.dtype} of shape {rows.shape}, not numbers with a row for each pair.")
    if len(rows) != pairs:
        raise UserError(f"{path} has {len(rows)} rows and the split {pairs} pairs: row i must be pair i of the split.")
    found = np.empty(rows.shape, np.float32)
    for row, vector in enumerate(rows):
        largest = np.abs(vector.astype(np.float64)).max()
        if not np.isfinite(largest) or not largest:
            what = "all zeros" if largest == 0 else "not all finite"
            raise UserError(f"{path}: row {row} (counted from 0) is {what}, so it has no direction.")
        scaled = vector / largest  # its square can neither overflow nor vanish
        found[row] = scaled / np.linalg.norm(scaled)
    return found
