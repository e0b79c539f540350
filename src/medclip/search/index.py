"""A folder of unit vectors beside the rows they stand for, searched exactly."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from medclip import NOT_CLINICAL
from medclip.data.places import Place
from medclip.data.shards import Split, only_split, write_arrow
from medclip.encoder import embed_images
from medclip.errors import UserError
from medclip.files import claim, read_json, whole_file, write_json
from medclip.model.hub import load, model_folder, model_hash
from medclip.progress import progress

_KEPT = ("id", "image", "caption", "article", "licence", "labels", "source")


@dataclass(frozen=True)
class Hit:
    """One answer. `score` is the cosine with the query, in [-1, 1]; `image` is an encoded JPEG."""

    id: str
    score: float
    caption: str
    article: str
    licence: str
    image: bytes


def build_index(model: str | Path, data: Place, out: Path, split: str | None = None, limit: int | None = None) -> int:
    """Embed every picture of a split into the new folder `out`; returns how many."""
    encoder = load(model)
    rows = Split(data, split or only_split(data), limit)
    claim(out, "index.json")
    with progress("index", len(rows), "images") as advance:
        vectors = embed_images(encoder, [rows.image(i) for i in range(len(rows))], advance)
    with whole_file(out / "vectors.npy") as partial, partial.open("wb") as handle:
        np.save(handle, vectors)
    write_arrow(out / "rows.arrow", rows.table.select(_KEPT))
    folder = model_folder(model).resolve()
    write_json(
        out / "index.json",
        {
            "pairs": len(rows),
            "dimensions": vectors.shape[1],
            "model": os.path.relpath(folder, out.resolve()),
            "model_sha256": model_hash(folder),
            "data": rows.dataset["source"],
            "split": rows.name,
            "synthetic": rows.dataset["synthetic"],
            "store": "exact",
            "notice": NOT_CLINICAL,
        },
    )
    return len(rows)


class Index:
    """An opened index: memory-mapped vectors and rows."""

    def __init__(self, folder: Path):
        """Open `folder`; UserError where it is no whole index."""
        self.folder = folder
        self.about: dict[str, Any] = read_json(folder / "index.json", "an index (see medclip index)")
        try:
            self.vectors = np.load(folder / "vectors.npy", mmap_mode="r")
            self.rows = pa.ipc.open_file(pa.memory_map(str(folder / "rows.arrow"))).read_all()
        except (FileNotFoundError, ValueError, EOFError, pa.ArrowInvalid) as error:
            raise UserError(f"{folder} is damaged ({error}). Make the index anew.") from None
        if absent := {"pairs", "dimensions", "model", "model_sha256"} - set(self.about):
            raise UserError(f"{folder}/index.json is damaged: no {', '.join(sorted(absent))}. Make the index anew.")
        shape = (self.about["pairs"], self.about["dimensions"])
        if self.vectors.shape != shape or len(self.rows) != shape[0]:
            raise UserError(f"{folder} is damaged: vectors, rows and index.json disagree. Make the index anew.")

    def model(self, override: Path | None = None) -> Path:
        """The folder of the model that made this index; UserError where it is gone or another."""
        path = override or (self.folder / self.about["model"]).resolve()
        if not path.exists():
            raise UserError(f"the model of index {self.folder} is not at {path}; say where with --model.")
        if model_hash(path) != self.about["model_sha256"]:
            raise UserError(
                f"index {self.folder} was made by another model than {path}: their vectors cannot be compared. "
                "Give the model that made it with --model, or make the index anew."
            )
        return path

    def search(self, vector: np.ndarray, k: int) -> list[Hit]:
        """The k nearest by cosine to a unit vector (p,), best first; equal scores keep row order."""
        scores = self.vectors @ vector
        k = min(k, len(scores))
        # every row that ties with the k-th stays in, so that the order does not depend on the partition
        threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
        near = np.flatnonzero(scores >= threshold)
        best = near[np.argsort(-scores[near], kind="stable")][:k]
        return [self._hit(int(row), float(scores[row])) for row in best]

    def _hit(self, row: int, score: float) -> Hit:
        fields = {name: self.rows.column(name)[row].as_py() for name in _KEPT if name not in ("labels", "source")}
        return Hit(score=score, **fields)
