"""Approximate candidates from faiss: beside each large segment a file of inverted lists with two bits a dimension.

The codes are RaBitQ's (Gao and Long 2024; Gao et al. 2025), which learn nothing from the data: text embeddings lie far
from all images, and codes learned from images alone serve them badly. Vectors are rotated at random first, because the
codes treat all dimensions alike and the gap between texts and images lies in a few. The lists are learned, so many of
them are probed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int

from medclip.atomic_io import sha256, whole_file
from medclip.errors import UserError, WorkError
from medclip.progress import progress
from medclip.require import require
from medclip.search.filters import Filter
from medclip.search.manifest import FAISS, segment_folder
from medclip.search.stores.base import SCAN_FRACTION, Difference, Embeddings, IndexData, RowMask, scan

FAISS_FILE = "quantized.faiss"
OTHER_EMBEDDINGS = "was made from other embeddings"
MIN_SEGMENT_ROWS = 20_000  # a smaller segment has no file: it is scanned in a millisecond or two
ROWS_PER_LIST, CODE = 64, "RaBitQ2"  # training rows of a list
PROBE_FRACTION, MIN_PROBES = 1 / 8, 64  # of a segment's lists, which number the square root of its rows
CANDIDATES_PER_HIT, MIN_CANDIDATES = 8, 400
CHUNK_ROWS = 65_536
BLOCK_BYTES = 1 << 20
DIGEST_BYTES = 32  # of each SHA-256 at the end of a file: of what is before, of the embeddings, of some of their rows
LISTS_HEADER_BYTES = 20  # the type of the lists, their number and the bytes of a code
SAMPLE_ROWS = 256  # are read whenever a file is opened, to know one of other embeddings
DAMAGE_ERRORS = (MemoryError, OSError, RuntimeError, ValueError)


class OtherEmbeddingsError(ValueError):
    """A file was made from the embeddings of another segment."""


class FaissStore:
    """The faiss files of an index. UserError where faiss is not installed."""

    def __init__(self, index: IndexData):
        _max_threads()
        self.index = index
        segments = zip(index.manifest.segments, index.segments, strict=True)
        self.large_segments = [
            (first, embeddings, segment_folder(index.folder, segment) / FAISS_FILE)
            for segment, (first, embeddings) in segments
            if len(embeddings) >= MIN_SEGMENT_ROWS
        ]
        """For each segment with a file: its first row, its embeddings and the file."""

    def candidates(self, embeddings: Embeddings, count: int, mask: RowMask, filter: Filter) -> list[np.ndarray]:
        """Rows by their estimated cosines; by exact cosines in small segments and where the mask leaves few rows."""
        num_candidates = max(CANDIDATES_PER_HIT * count, MIN_CANDIDATES)
        estimates = []
        for first, segment, quantized in self._indexes:
            allowed = mask[first : first + len(segment)]
            num_allowed = int(np.count_nonzero(allowed))
            if num_allowed > max(SCAN_FRACTION * len(segment), num_candidates):
                rows = search_quantized(quantized, embeddings, num_candidates, allowed, num_allowed)
                if (np.count_nonzero(rows >= 0, axis=1) >= count).all():
                    estimates.append((first, len(segment), rows))
        candidates = self._scan_others(embeddings, count, mask, [(first, length) for first, length, _ in estimates])
        for first, _, rows in estimates:
            candidates = [
                np.concatenate([exact, first + estimated[estimated >= 0]])
                for exact, estimated in zip(candidates, rows, strict=True)
            ]
        return candidates

    def _scan_others(
        self, embeddings: Embeddings, count: int, mask: RowMask, spans: list[tuple[int, int]]
    ) -> list[np.ndarray]:
        """As `scan`, of the rows outside of spans; where these are all, nothing as long as the index is made."""
        if sum(length for _, length in spans) == len(mask):
            return [np.empty(0, np.int64)] * len(embeddings)
        others = mask.copy()
        for first, length in spans:
            others[first : first + length] = False
        return scan(self.index.segments, embeddings, count, others)

    def extend(self) -> None:
        """Write the files that are absent or damaged."""
        for _, embeddings, path in self.large_segments:
            try:
                open_quantized(path, embeddings)
            except DAMAGE_ERRORS:
                write_quantized(path, embeddings)

    def trim(self) -> None:
        """Nothing to do: a file goes with its segment."""

    def drop(self) -> None:
        """Remove the files."""
        for _, _, path in self.large_segments:
            path.unlink(missing_ok=True)

    def differences(self) -> Iterator[Difference]:
        """Files that are absent, damaged or of other embeddings."""
        for first, embeddings, path in self.large_segments:
            try:
                open_quantized(path, embeddings)
                problem = "" if is_of(path, embeddings) else OTHER_EMBEDDINGS
            except OtherEmbeddingsError:
                problem = OTHER_EMBEDDINGS
            except DAMAGE_ERRORS:
                problem = "is absent or damaged"
            if problem:
                name = path.relative_to(self.index.folder).as_posix()
                yield Difference(name, problem, np.arange(first, first + len(embeddings)))

    @cached_property
    def _indexes(self) -> list[tuple[int, np.ndarray, Quantized]]:
        """First row, embeddings and faiss index of each large segment; none once a later change erased their files."""
        try:
            return [(first, e, open_quantized(path, e)) for first, e, path in self.large_segments]
        except DAMAGE_ERRORS:
            folder = self.index.folder
            if not self.index.is_current():
                return []
            raise UserError(
                f"a {FAISS_FILE} of index {folder} is absent, damaged or of other embeddings; write it again: "
                f"medclip index migrate --index {folder} {FAISS}"
            ) from None


class Quantized(NamedTuple):
    """An open faiss file."""

    index: Any
    num_lists: int


def search_quantized(
    quantized: Quantized, embeddings: Embeddings, count: int, mask: RowMask, num_allowed: int
) -> Int[np.ndarray, "q count"]:
    """Rows of the mask by estimated cosine, for each query embedding; -1 where the probed lists hold fewer.

    The fewer rows the mask leaves, `num_allowed`, the more lists are probed.
    """
    faiss = _faiss()
    threads = min(len(embeddings), _max_threads())
    faiss.omp_set_num_threads(threads)  # of this thread: for a single query, waking others costs more
    probes = max(PROBE_FRACTION * quantized.num_lists * len(mask) / num_allowed, MIN_PROBES)
    num_probes = min(quantized.num_lists, round(probes))
    if num_allowed == len(mask):  # a selector of all rows takes half as long again: every code is checked by it
        params = _params_of_all(num_probes)
    else:
        params = _params(num_probes, faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little")))
    rows = quantized.index.search(np.ascontiguousarray(embeddings), count, params=params)[1]
    return np.where(rows < len(mask), rows, -1)  # a stranger's file holds any numbers


def _params(num_probes: int, selector: Any = None) -> Any:
    faiss = _faiss()
    lists = faiss.SearchParametersIVF(nprobe=num_probes, sel=selector)
    return faiss.SearchParametersPreTransform(index_params=lists)


@lru_cache(64)
def _params_of_all(num_probes: int) -> Any:
    return _params(num_probes)


def write_quantized(path: Path, embeddings: Float32[np.ndarray, "n p"]) -> None:
    """Quantize the embeddings of a segment into a faiss file, atomically."""
    faiss = _faiss()
    faiss.omp_set_num_threads(_max_threads())
    num_lists = _num_lists(embeddings)
    index = _new_index(embeddings.shape[1], num_lists)
    clustering = faiss.extract_index_ivf(index).cp
    clustering.max_points_per_centroid, clustering.min_points_per_centroid = ROWS_PER_LIST, 1
    index.train(np.ascontiguousarray(embeddings[:: max(1, len(embeddings) // (ROWS_PER_LIST * num_lists))]))
    with progress("quantize", len(embeddings), "embeddings") as advance, whole_file(path) as partial:
        for start in range(0, len(embeddings), CHUNK_ROWS):
            chunk = np.ascontiguousarray(embeddings[start : start + CHUNK_ROWS])
            index.add(chunk)
            advance(len(chunk))
        try:
            faiss.write_index(index, str(partial))
        except RuntimeError:  # of a full disk, by name of a line in its source
            raise WorkError(f"{path} could not be written. Is the disk full?") from None
        tail = bytes.fromhex(sha256(partial)) + _digest(embeddings) + _digest(_sample(embeddings))
        with partial.open("ab") as file:
            file.write(tail)


def open_quantized(path: Path, embeddings: Float32[np.ndarray, "n p"]) -> Quantized:
    """The faiss file, memory-mapped. One of DAMAGE_ERRORS where it is absent, cut or of other embeddings.

    Of the embeddings a sample is compared; `is_of` compares all.
    """
    faiss = _faiss()
    content, _, sample = _read_tail(path)
    if content != _content_digest(path):  # faiss maps a damaged file and reads beyond its end
        raise ValueError(f"{path} is damaged")
    if not _has_our_types(path, embeddings):
        raise ValueError(f"{path} is damaged: it holds another index than this version writes")
    size = path.stat().st_size  # no part of the file is larger, whatever it says: faiss makes room for it first
    faiss.set_deserialization_vector_byte_limit(size)
    faiss.set_deserialization_loop_limit(size)
    index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    if (index.ntotal, index.d) != embeddings.shape or sample != _digest(_sample(embeddings)):
        raise OtherEmbeddingsError(f"{path} {OTHER_EMBEDDINGS}")
    return Quantized(index, faiss.extract_index_ivf(index).nlist)


def _has_our_types(path: Path, embeddings: Float32[np.ndarray, "n p"]) -> bool:
    """Whether a file is, up to its lists, what `write_quantized` writes but for the numbers of rotation and centroids.

    Compared before faiss reads it: lists of other types name a file, which faiss opens to write.
    """
    expected, numbers = _frame(len(embeddings), embeddings.shape[1], _num_lists(embeddings))
    with path.open("rb") as file:
        content = bytearray(file.read(len(expected)))
    for span in numbers:
        content[span] = expected[span]
    return content == expected


@lru_cache(8)
def _frame(num_rows: int, dim: int, num_lists: int) -> tuple[bytes, tuple[slice, slice]]:
    """A file up to the sizes of its lists, and where in it the numbers of rotation and centroids are."""
    faiss = _faiss()
    index = _new_index(dim, num_lists)
    lists = faiss.extract_index_ivf(index)
    rotation = faiss.downcast_VectorTransform(index.chain.at(0))
    faiss.copy_array_to_vector(np.full(dim * dim, np.nan, np.float32), rotation.A)
    centroids = np.full((num_lists, dim), np.nan, np.float32)
    faiss.downcast_index(lists.quantizer).add(centroids)
    index.is_trained = rotation.is_trained = lists.is_trained = True
    index.ntotal = lists.ntotal = num_rows
    content = faiss.serialize_index(index).tobytes()
    first = content.index(centroids[0, :1].tobytes() * dim * dim)
    second = content.index(centroids.tobytes(), first + 4 * dim * dim)
    spans = slice(first, first + 4 * dim * dim), slice(second, second + centroids.nbytes)
    return content[: content.index(b"ilar", spans[1].stop) + LISTS_HEADER_BYTES], spans


def _new_index(dim: int, num_lists: int) -> Any:
    faiss = _faiss()
    return faiss.index_factory(dim, f"RR{dim},IVF{num_lists},{CODE}", faiss.METRIC_INNER_PRODUCT)


def _num_lists(embeddings: Float32[np.ndarray, "n p"]) -> int:
    return round(len(embeddings) ** 0.5)


def is_of(path: Path, embeddings: Float32[np.ndarray, "n p"]) -> bool:
    """Whether a file was made from these embeddings, bit for bit, as the file itself says."""
    return _read_tail(path)[1] == _digest(embeddings)


def _digest(embeddings: Float32[np.ndarray, "n p"]) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(embeddings).data).digest()


def _sample(embeddings: Float32[np.ndarray, "n p"]) -> Float32[np.ndarray, "m p"]:
    return embeddings[np.linspace(0, len(embeddings) - 1, min(len(embeddings), SAMPLE_ROWS), dtype=int)]


def _read_tail(path: Path) -> tuple[bytes, bytes, bytes]:
    with path.open("rb") as file:
        file.seek(-3 * DIGEST_BYTES, os.SEEK_END)
        return file.read(DIGEST_BYTES), file.read(DIGEST_BYTES), file.read()


def _content_digest(path: Path) -> bytes:
    digest, left = hashlib.sha256(), path.stat().st_size - 3 * DIGEST_BYTES
    with path.open("rb") as file:
        while left > 0 and (block := file.read(min(left, BLOCK_BYTES))):
            digest.update(block)
            left -= len(block)
    return digest.digest()


def _faiss() -> Any:
    return require("faiss", extra="faiss")


@cache
def _max_threads() -> int:
    return _faiss().omp_get_max_threads()  # first called before this process sets any number
