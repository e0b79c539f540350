"""Random pools of images that a text is searched among, always with its right one: smaller indexes than validation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float64

NUM_DRAWS = 16  # of pools of each size

Pool = tuple[np.ndarray, np.ndarray]
"""The cosine of each text's right image (q,), and those of the pool's other images (q, m), -inf where there is none."""


def pool_sizes(num_images: int) -> list[int]:
    """Powers of two, and the number itself."""
    return [2**i for i in range(num_images.bit_length()) if 2**i < num_images] + [num_images]


def draw_pools(
    cosines: Float64[np.ndarray, "q n"], right: Bool[np.ndarray, "q n"], size: int, rng: np.random.Generator
) -> Iterator[Pool]:
    """Pools of so many images, each text's best right one always among them. Of all images there is one."""
    own, n = np.where(right, cosines, -np.inf).max(axis=1), cosines.shape[1]
    for _ in range(1 if size == n else NUM_DRAWS):
        columns = rng.permutation(n)[:size]
        right_columns = right[:, columns]
        others = np.where(right_columns, -np.inf, cosines[:, columns])
        others[~right_columns.any(axis=1), -1] = -np.inf  # the place of the right one, which was not drawn
        yield own, others


def highest(values: np.ndarray, count: int) -> np.ndarray:
    """The `count` highest values of each row, or all of fewer, best first."""
    if values.shape[1] > count:
        values = np.partition(values, -count, axis=1)[:, -count:]
    return -np.sort(-values, axis=1)
