"""A point-in-time view of an index folder: memory-mapped embeddings beside their rows, and the nearest of them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32

from medclip.data.checked_files import damaged_rows
from medclip.data.perceptual_hash import Fingerprints
from medclip.errors import UserError, WorkError
from medclip.model.checkpoint import model_hash
from medclip.require import require
from medclip.search.filters import NO_FILTER, Filter, explain_no_match, filter_mask, id_mask, value_counts
from medclip.search.manifest import (
    FAISS,
    MILVUS_SCHEME,
    Manifest,
)
from medclip.search.segments import FINGERPRINT_FIELDS, index_version, open_segments, rewritten_file
from medclip.search.stores.base import Embeddings, ExactStore, IndexData, Rows, SegmentEmbeddings, Store, nearest

LOG = logging.getLogger("medclip.search")
SAMPLE_SIZE = 4096
FILTER_CACHE_SIZE = 64
SAMPLE_CACHE_SIZE = 4  # of 8 MB each at 512 dimensions


@dataclass(frozen=True)
class Hit:
    """A search result. `score` is the cosine with the query, in [-1, 1]; `image` is an encoded JPEG."""

    id: str
    score: float
    caption: str
    image: bytes = field(repr=False)
    """Empty where the index holds another than was written, which `medclip verify` names."""
    article: str
    license: str
    attribution: str
    labels: dict[str, str]
    source: str
    sha256: str
    """Of the image as it came: names it where several have one id, as `1`."""
    added: str
    """The day the row was added to the index."""
    duplicates: tuple[str, ...] = ()
    """Ids of near-duplicate images that rank lower and are left out."""


class IndexReader:
    """An index as it was when it was opened; open it again to see later changes."""

    def __init__(self, folder: Path, manifest: Manifest | None = None):
        """Open `folder`, or what it will be with a `manifest` that is not in force yet.

        UserError where it is not a complete index, or its store is not available.
        """
        self.folder = folder
        self.version, self.manifest, opened = open_segments(folder, manifest)
        self.segments: list[SegmentEmbeddings] = []
        tables: list[pa.Table] = []
        for embeddings, table in opened:
            self.segments.append((sum(map(len, tables)), embeddings))
            tables.append(table)
        self.table: pa.Table = pa.concat_tables(tables)
        segments = self.manifest.segments
        self.row_ids = np.concatenate([np.arange(s.first_row_id, s.first_row_id + s.num_rows) for s in segments])
        """Id of each row, i64 (n,), the key in an external store; not ascending after a purge."""
        days = np.array([segment.added for segment in segments], "datetime64[D]")
        self.added_days = np.repeat(days, [segment.num_rows for segment in segments])
        self.live_mask = ~np.isin(self.row_ids, np.array(self.manifest.deleted, np.int64))
        """Rows that are not deleted: bool (n,)."""
        self.allowed_mask = lru_cache(FILTER_CACHE_SIZE)(self._allowed_mask)
        """Live rows that match a filter: bool (n,)."""
        self.sample_allowed = lru_cache(SAMPLE_CACHE_SIZE)(self._sample_allowed)
        """As `sample_embeddings`, of live rows that match a filter: f32 (m, p)."""
        self.store: Store = open_store(self, self.manifest.vector_store)

    def __len__(self) -> int:
        """Number of live rows."""
        return self.manifest.num_pairs

    def is_current(self) -> bool:
        """Whether the index is unchanged since it was opened, each of its files too."""
        return index_version(self.folder, self.manifest) == self.version

    def check_unchanged(self) -> None:
        """WorkError where a file that is mapped here was written again in its place.

        What is mapped would then be other rows, or end the process where the file is shorter (SIGBUS). A file that was
        removed or replaced stays as it was for who has it open.
        """
        if path := rewritten_file(self.folder, self.manifest, self.version):
            raise WorkError(
                f"index {self.folder} is damaged: {path} was written over while it was open. Restore it from a backup, "
                "or build the index again."
            )

    def model_path(self, override: Path | None = None) -> Path:
        """The folder of the model that made this index. UserError where it is absent or another."""
        try:
            path = override or (self.folder / self.manifest.model).resolve()
            is_absent = not path.exists()
        except (OSError, ValueError, RuntimeError):  # a name that no folder can have, a link to itself
            path, is_absent = self.folder / self.manifest.model, True
        if is_absent:
            raise UserError(f"the model of index {self.folder} is not at {path}; say where it is with --model.")
        if model_hash(path) != self.manifest.model_sha256:
            raise UserError(
                f"index {self.folder} was made by another model than {path}: their embeddings cannot be compared. "
                "Give the model that made it with --model, or build the index again."
            )
        return path

    def nearest_rows(self, embeddings: Embeddings, k: int, filter: Filter = NO_FILTER) -> list[list[tuple[int, float]]]:
        """For each query embedding the `k` nearest rows and their cosines, best first, ties in row order."""
        self.check_unchanged()
        candidates = self.store.candidates(embeddings, k, self.allowed_mask(filter), filter)
        return [self._rank(embedding, rows, k) for embedding, rows in zip(embeddings, candidates, strict=True)]

    def check_embeddings(self, rows: Rows) -> None:
        """WorkError where the embedding of a row is damaged."""
        self.check_unchanged()
        self._checked_embeddings(rows)

    def _checked_embeddings(self, rows: Rows) -> Float32[np.ndarray, "r p"]:
        embeddings = self.embeddings_at(rows)
        if damaged := damaged_rows(embeddings):
            raise WorkError(
                f"index {self.folder} is damaged: the embedding of {self.id(int(rows[damaged[0]]))} is not a unit "
                "vector. Build the index again."
            )
        return embeddings

    def embeddings_at(self, rows: Rows) -> Float32[np.ndarray, "r p"]:
        """Embeddings of rows."""
        embeddings = np.empty((len(rows), self.manifest.embedding_dim), np.float32)
        for first, segment in self.segments:
            inside = (rows >= first) & (rows < first + len(segment))
            if inside.all():  # copied once
                return np.asarray(segment)[rows - first]
            embeddings[inside] = segment[rows[inside] - first]
        return embeddings

    def find_rows(self, id: str, sha256: str | None = None) -> list[int]:
        """The rows of an id, which several images may have, as `1`; with `sha256` of the one with that hash."""
        rows = np.flatnonzero(id_mask(self.table, id) & self.live_mask).tolist()
        return [row for row in rows if sha256 in (None, self.sha256(row))]

    def hit(self, row: int, score: float, duplicates: tuple[str, ...] = ()) -> Hit:
        """A row as a search result."""

        def value(column: str) -> str:
            return self.table.column(column)[row].as_py()

        return Hit(
            id=self.id(row),
            score=min(1.0, max(-1.0, score)),  # unit vectors in float32 are so but for rounding
            caption=value("caption"),
            image=self._image_or_nothing(row),
            article=value("article"),
            license=value("license"),
            attribution=value("attribution") or "",
            labels=dict(self.table.column("labels")[row].as_py()),
            source=value("source"),
            sha256=self.sha256(row),
            added=str(self.added_days[row]),
            duplicates=duplicates,
        )

    def id(self, row: int) -> str:
        """The id of a row's image."""
        return self.table.column("id")[row].as_py()

    def sha256(self, row: int) -> str:
        """The hash of a row's image as it came."""
        return self.table.column("sha256")[row].as_py()

    def fingerprints(self, rows: Sequence[int]) -> Fingerprints:
        """Fingerprints of the images of rows, at least one."""
        columns = [[self.table.column(name)[row].as_py() for row in rows] for name in FINGERPRINT_FIELDS]
        hashes, thumbnails = columns
        return Fingerprints(
            np.stack([np.frombuffer(hash, np.uint64) for hash in hashes]),
            np.stack([np.frombuffer(thumbnail, np.uint8) for thumbnail in thumbnails]),
        )

    def image(self, row: int) -> bytes:
        """The encoded image of a row. WorkError where it is not the one that was written: it may well be decoded."""
        self.check_unchanged()
        if image := self._image_or_nothing(row):
            return image
        raise WorkError(
            f"index {self.folder} is damaged: the image of {self.id(row)} is not the one that was written. "
            "Restore it from a backup, or build the index again."
        )

    def _image_or_nothing(self, row: int) -> bytes:
        """The encoded image of a row; empty where it is another: a hit's score and caption are right all the same."""
        image = self.table.column("image")[row].as_py()
        if hashlib.sha256(image).hexdigest() == self.sha256(row):
            return image
        LOG.warning("an image of the index is not the one that was written: medclip verify names it")
        return b""

    @cached_property
    def sample_embeddings(self) -> Float32[np.ndarray, "m p"]:
        """Embeddings of up to SAMPLE_SIZE live rows, evenly spread."""
        return self._sample(self.live_mask)

    def _sample_allowed(self, filter: Filter) -> Float32[np.ndarray, "m p"]:
        return self._sample(self.allowed_mask(filter)) if filter.conditions else self.sample_embeddings

    def _sample(self, mask: Bool[np.ndarray, " n"]) -> Float32[np.ndarray, "m p"]:
        rows = np.flatnonzero(mask)
        return self.embeddings_at(
            rows[np.linspace(0, len(rows), min(len(rows), SAMPLE_SIZE), endpoint=False, dtype=int)]
        )

    @cached_property
    def value_counts(self) -> dict[str, dict[str, int]]:
        """Number of live images with each value of each label and license."""
        return value_counts(self.table, self.live_mask)

    @property
    def synthetic(self) -> bool:
        """Whether a program drew every image."""
        return all(segment.synthetic for segment in self.manifest.segments)

    def explain_no_match(self, filter: Filter) -> str:
        """Why no live row matches a filter, in a sentence."""
        if not len(self):
            return f"index {self.folder} holds no image any more: all are deleted."
        condition = ", ".join(f"{key}={value}" for key, values in filter.conditions for value in values)
        reason = explain_no_match(self.table, self.live_mask, self.added_days, filter)
        return f"no image of index {self.folder} meets {condition}: {reason}."

    def _allowed_mask(self, filter: Filter) -> Bool[np.ndarray, " n"]:
        if not filter.conditions:
            return self.live_mask
        return self.live_mask & filter_mask(self.table, self.added_days, filter)

    def _rank(self, embedding: np.ndarray, rows: np.ndarray, k: int) -> list[tuple[int, float]]:
        embeddings = self._checked_embeddings(rows)
        best = nearest(embeddings @ embedding, k)
        # float64, row by row: equal vectors get equal scores wherever they lie, in every store
        scores = np.einsum("np,p->n", embeddings[best].astype(np.float64), embedding.astype(np.float64))
        rows = rows[best]
        order = np.lexsort((rows, -scores))[:k]
        return [(int(rows[i]), float(scores[i])) for i in order]


def open_store(index: IndexData, vector_store: str) -> Store:
    """The vector store of an index. UserError where its library is not installed or its server does not answer."""
    if vector_store == FAISS:
        from medclip.search.stores.faiss import FaissStore

        return FaissStore(index)
    if vector_store.startswith(MILVUS_SCHEME):
        from medclip.search.stores.milvus import MilvusStore

        return MilvusStore(index, vector_store)
    return ExactStore(index)


def check_available(vector_store: str) -> None:
    """UserError where a store's library is not installed or its server does not answer."""
    if vector_store == FAISS:
        require("faiss", extra="faiss")
    if vector_store.startswith(MILVUS_SCHEME):
        from medclip.search.stores.milvus import connect

        connect(vector_store)
