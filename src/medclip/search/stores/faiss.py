"""faiss names the candidates, from a file beside each large segment: lists of like vectors, two bits a dimension.

The bits are RaBitQ's (Gao and Long 2024; Gao et al. 2025), which learn nothing: words lie far from all images, and
what is learnt from images alone serves them badly. Vectors are rotated at random before: the bits take all dimensions
for alike, and in those where words and images lie apart they are not. The lists are learnt, so many of them are
looked through.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

import numpy as np

from medclip.atomic_io import whole_file
from medclip.errors import UserError
from medclip.progress import progress
from medclip.search.filters import Filter
from medclip.search.manifest import FAISS, segment_folder
from medclip.search.stores.base import SCANNED, Rows, scan

try:
    import faiss
except ImportError:
    raise UserError("the store faiss needs faiss: pip install 'medclip[faiss]'.") from None

FILE = "quantized.faiss"
LEAST = 20_000  # rows of a segment that has a file; fewer are scanned in a millisecond or two
LISTED, CODE = 64, "RaBitQ2"
PROBED, LEAST_PROBED = 1 / 8, 64  # of a segment's lists, of which there are as many as the square root of its rows
TIMES, AT_LEAST = 8, 400  # candidates are TIMES as many as asked for, and no fewer than AT_LEAST
CHUNK = 65_536
THREADS = faiss.omp_get_max_threads()
TAIL = 8  # bytes at the end of a file that say how long it is
DAMAGED = (OSError, RuntimeError, ValueError)


class FaissStore:
    """The faiss files of an index."""

    def __init__(self, index: Rows):
        self.index = index
        segments = zip(index.contents.segments, index.vectors, strict=True)
        self.large = [
            (first, vectors, segment_folder(index.folder, segment) / FILE)
            for segment, (first, vectors) in segments
            if len(vectors) >= LEAST
        ]
        """Of each segment that has a file its first row, its vectors and the file."""

    def candidates(self, vectors: np.ndarray, count: int, allowed: np.ndarray, asked: Filter) -> list[np.ndarray]:
        """Rows by their estimated cosines; where few are allowed, or in a small segment, by the cosines themselves."""
        wanted, scanned, found = max(TIMES * count, AT_LEAST), allowed.copy(), []
        for (first, segment, _), opened in zip(self.large, self._opened, strict=True):
            here = slice(first, first + len(segment))
            if np.count_nonzero(allowed[here]) > max(SCANNED * len(segment), wanted):
                rows = _nearest(opened, vectors, wanted, allowed[here])
                if (np.count_nonzero(rows >= 0, axis=1) >= count).all():
                    found.append((first, rows))
                    scanned[here] = False
        exact = scan(self.index.vectors, vectors, count, scanned)
        near = [[first + of[of >= 0] for first, rows in found for of in rows[[query]]] for query in range(len(vectors))]
        return [np.concatenate([rows, *others]) for rows, others in zip(exact, near, strict=True)]

    def sync(self) -> None:
        """Make the files that are absent or damaged."""
        for _, vectors, path in self.large:
            try:
                _open(path, vectors)
            except DAMAGED:
                _make(path, vectors)

    def drop(self) -> None:
        """Remove the files."""
        for _, _, path in self.large:
            path.unlink(missing_ok=True)

    @cached_property
    def _opened(self) -> list[faiss.Index]:
        try:
            return [_open(path, vectors) for _, vectors, path in self.large]
        except DAMAGED:
            folder = self.index.folder
            raise UserError(
                f"a {FILE} of index {folder} is absent or damaged; make it anew: "
                f"medclip index migrate --index {folder} {FAISS}"
            ) from None


def _nearest(opened: faiss.Index, vectors: np.ndarray, count: int, allowed: np.ndarray) -> np.ndarray:
    """For each vector allowed rows, i64 (q, count); -1 where the lists have no more. The fewer are allowed, the more
    lists are looked through."""
    faiss.omp_set_num_threads(min(len(vectors), THREADS))  # of this thread: for one query, to wake others costs more
    lists = faiss.extract_index_ivf(opened).nlist
    probed = max(PROBED * lists * len(allowed) / np.count_nonzero(allowed), LEAST_PROBED)
    told = faiss.SearchParametersIVF(
        nprobe=min(lists, round(probed)),
        sel=faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little")),
    )
    rotated = faiss.SearchParametersPreTransform(index_params=told)
    return opened.search(np.ascontiguousarray(vectors), count, params=rotated)[1]


def _make(path: Path, vectors: np.ndarray) -> None:
    faiss.omp_set_num_threads(THREADS)
    lists, dimensions = round(len(vectors) ** 0.5), vectors.shape[1]
    made = faiss.index_factory(dimensions, f"RR{dimensions},IVF{lists},{CODE}", faiss.METRIC_INNER_PRODUCT)
    learning = faiss.extract_index_ivf(made).cp
    learning.max_points_per_centroid, learning.min_points_per_centroid = LISTED, 1
    made.train(np.ascontiguousarray(vectors[:: max(1, len(vectors) // (LISTED * lists))]))
    with progress("quantize", len(vectors), "vectors") as advance, whole_file(path) as partial:
        for start in range(0, len(vectors), CHUNK):
            part = vectors[start : start + CHUNK]
            made.add(np.ascontiguousarray(part))
            advance(len(part))
        faiss.write_index(made, str(partial))
        with partial.open("ab") as file:
            file.write((file.tell() + TAIL).to_bytes(TAIL))


def _open(path: Path, vectors: np.ndarray) -> faiss.Index:
    """One of DAMAGED where the file is absent, not whole or not of these vectors."""
    with path.open("rb") as file:
        size = file.seek(-TAIL, os.SEEK_END) + TAIL
        if int.from_bytes(file.read()) != size:  # faiss maps a file that was cut, and reads beyond it
            raise ValueError(f"{path} is not whole")
    opened = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    if (opened.ntotal, opened.d) != vectors.shape:
        raise ValueError(f"{path} is of other vectors")
    return opened
