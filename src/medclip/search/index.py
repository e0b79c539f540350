"""An opened index: memory-mapped vectors beside the rows they stand for, and the nearest of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from medclip.errors import UserError
from medclip.model.checkpoint import model_hash
from medclip.search.filters import EVERYTHING, Filter, counts, matches
from medclip.search.manifest import ABOUT, Manifest, read_manifest, segment_folder
from medclip.search.stores import open_store

KEPT = ("id", "image", "width", "height", "caption", "article", "license", "attribution", "labels", "source", "sha256")
FINGERPRINT_FIELDS = {"hash": pa.binary(32), "thumbnail": pa.binary(1024)}  # a row of `likeness.Sketches`
SAMPLE = 4096
FILTERS_KEPT = 64


@dataclass(frozen=True)
class Hit:
    """One answer. `score` is the cosine with the query, in [-1, 1]; `image` is an encoded JPEG."""

    id: str
    score: float
    caption: str
    image: bytes
    article: str
    license: str
    attribution: str
    labels: dict[str, str]
    source: str
    added: str
    """The day it came into the index."""
    copies: tuple[str, ...] = ()
    """Ids of images further down that look the same as this one and are left out."""


class Index:
    """An index as it was when it was opened: what others add or delete is seen by opening it again."""

    def __init__(self, folder: Path):
        """Open `folder`; UserError where it is no whole index, or its store cannot be reached."""
        self.folder = folder
        self.state = _state(folder)
        self.contents: Manifest = read_manifest(folder)
        self.vectors: list[tuple[int, np.ndarray]] = []
        """Of each segment its first row, counted from 0, and its unit vectors, f32 (rows, p)."""
        tables = []
        for segment in self.contents.segments:
            at = segment_folder(folder, segment)
            try:
                vectors = np.load(at / "vectors.npy", mmap_mode="r")
                table = pa.ipc.open_file(pa.memory_map(str(at / "rows.arrow"))).read_all()
            except (FileNotFoundError, ValueError, EOFError, pa.ArrowInvalid) as error:
                raise UserError(f"{folder} is damaged ({error}). Make the index anew.") from None
            if vectors.shape != (segment.rows, self.contents.dimensions) or len(table) != segment.rows:
                raise UserError(f"{at} is damaged: vectors, rows and {ABOUT} disagree. Make the index anew.")
            self.vectors.append((sum(map(len, tables)), vectors))
            tables.append(table)
        self.rows: pa.Table = pa.concat_tables(tables)
        segments = self.contents.segments
        self.numbers = np.concatenate([np.arange(s.first, s.first + s.rows) for s in segments])
        """Of each row its number, i64 (n,), by which a store elsewhere goes; not in order after a purge."""
        self.added = np.repeat(np.array([s.added for s in segments], "datetime64[D]"), [s.rows for s in segments])
        self.live = ~np.isin(self.numbers, np.array(self.contents.deleted, np.int64))
        """Which rows count: bool (n,)."""
        self.allowed = lru_cache(FILTERS_KEPT)(self._allowed)
        self.store = open_store(self, self.contents.store)

    def __len__(self) -> int:
        """The rows that count."""
        return self.contents.pairs

    def is_current(self) -> bool:
        """Whether nobody changed the index since it was opened."""
        return _state(self.folder) == self.state

    def model(self, override: Path | None = None) -> Path:
        """The folder of the model that made this index; UserError where it is gone or another."""
        path = override or (self.folder / self.contents.model).resolve()
        if not path.exists():
            raise UserError(f"the model of index {self.folder} is not at {path}; say where with --model.")
        if model_hash(path) != self.contents.model_sha256:
            raise UserError(
                f"index {self.folder} was made by another model than {path}: their vectors cannot be compared. "
                "Give the model that made it with --model, or make the index anew."
            )
        return path

    def search(self, vectors: np.ndarray, k: int, asked: Filter = EVERYTHING) -> list[list[tuple[int, float]]]:
        """For each unit vector of f32 (q, p) the k nearest rows and their cosines, best first, ties in row order."""
        allowed = self.allowed(asked)
        found = self.store.candidates(vectors, k, allowed, asked)
        return [self._best(vector, rows, k) for vector, rows in zip(vectors, found, strict=True)]

    def vectors_of(self, rows: np.ndarray) -> np.ndarray:
        """The unit vectors of rows, f32 (len(rows), p)."""
        found = np.empty((len(rows), self.contents.dimensions), np.float32)
        for first, segment in self.vectors:
            here = (rows >= first) & (rows < first + len(segment))
            found[here] = segment[rows[here] - first]
        return found

    def row(self, id: str) -> int:
        """The row of an image; UserError where the index has none of that id."""
        found = np.flatnonzero(pc.equal(self.rows.column("id"), id).to_numpy() & self.live)
        if not len(found):
            raise UserError(f"index {self.folder} has no image {id!r}.")
        return int(found[0])

    def hit(self, row: int, score: float, copies: tuple[str, ...] = ()) -> Hit:
        """A row as an answer."""
        names = ("id", "caption", "image", "article", "license", "attribution", "source")
        said = {name: self.rows.column(name)[row].as_py() for name in names}
        labels = dict(self.rows.column("labels")[row].as_py())
        return Hit(**said, score=score, labels=labels, added=str(self.added[row]), copies=copies)

    @cached_property
    def sample(self) -> np.ndarray:
        """Vectors of up to SAMPLE rows that count, evenly spread over them: f32 (m, p)."""
        live = np.flatnonzero(self.live)
        return self.vectors_of(live[:: max(1, len(live) // SAMPLE)][:SAMPLE])

    @cached_property
    def counts(self) -> dict[str, dict[str, int]]:
        """How many images have each value of each label and license."""
        return counts(self.rows, self.live)

    @property
    def synthetic(self) -> bool:
        """Whether every image was drawn by a program."""
        return all(segment.synthetic for segment in self.contents.segments)

    def _allowed(self, asked: Filter) -> np.ndarray:
        return self.live & matches(self.rows, self.added, asked) if asked.keys else self.live

    def _best(self, vector: np.ndarray, rows: np.ndarray, k: int) -> list[tuple[int, float]]:
        # float64, row by row: equal vectors get equal scores wherever they lie, in every store
        scores = np.einsum("np,p->n", self.vectors_of(rows).astype(np.float64), vector.astype(np.float64))
        best = np.lexsort((rows, -scores))[:k]
        return [(int(rows[at]), float(scores[at])) for at in best]


def _state(folder: Path) -> tuple[int, int]:
    try:
        about = (folder / ABOUT).stat()
    except OSError:
        return 0, 0
    return about.st_mtime_ns, about.st_ino
