"""Order is a function of (seed, step): the same rows whatever the workers, restarts or machines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from medclip.data.images import fit
from medclip.data.shards import Split
from medclip.files import whole_file
from medclip.progress import progress


def rows_at(n: int, batch: int, seed: int, step: int) -> np.ndarray:
    """Row numbers i64 (batch,) of a step: each epoch is a fresh permutation of n rows, its remainder left out.

    Needs 1 <= batch <= n.
    """
    epoch, place = divmod(step, n // batch)
    order = np.random.default_rng((seed, epoch)).permutation(n)
    return order[place * batch : (place + 1) * batch]


def fitted_pixels(split: Split, preprocessor: Mapping[str, Any]) -> np.ndarray:
    """Every picture of a split fitted to the model's square, u8 (n, s, s, 3), as a memory map.

    Decoding costs far more than reading, so it is done once and kept in DATA/cache: s*s*3 bytes a pair.
    """
    said = json.dumps([preprocessor, split.digest], sort_keys=True)
    path = split.folder / "cache" / f"{split.name}-{hashlib.sha256(said.encode()).hexdigest()[:16]}.npy"
    if not path.exists():
        with whole_file(path) as partial, ThreadPoolExecutor() as pool:
            first = fit(split.image(0), preprocessor)
            shape = (len(split), *first.shape)
            kept = np.lib.format.open_memmap(partial, "w+", np.uint8, shape)
            with progress(f"decode {split.name}", len(split), "pairs") as advance:
                one = pool.map(lambda row: fit(split.image(row), preprocessor), range(len(split)))
                for row, pixels in enumerate(one):
                    kept[row] = pixels
                    advance()
            kept.flush()
    return np.load(path, mmap_mode="r")
