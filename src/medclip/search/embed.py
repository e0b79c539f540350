"""Vectors of any number of images or captions, written as they come: a killed call is gone on from."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medclip import NOT_CLINICAL
from medclip.atomic_io import claim, read_json, whole_file, write_json
from medclip.data.dataset import Split, default_split
from medclip.data.paths import AnyPath
from medclip.data.resume import ResumableFile, fingerprint, finish, remove_stale
from medclip.encode.encoder import Backend, Kind, stream_split
from medclip.encode.inference_backends import open_backend
from medclip.errors import UserError
from medclip.model.checkpoint import model_hash
from medclip.progress import progress

# as `medclip evaluate --embeddings` takes them
FILES: dict[Kind, str] = {"images": "images.npy", "captions": "texts.npy"}
ABOUT = "embedding.json"


def embed(
    model: str | Path, data: AnyPath, out: Path, split: str | None = None, limit: int | None = None,
    of: Sequence[Kind] = ("images", "captions"), engine: str = "jax",
) -> int:  # fmt: skip
    """Write the unit vectors of a split's images and captions (`of`) into `out`; row i is pair i. Returns the pairs.

    f32 (n, p) in `images.npy` and `texts.npy`, the pairs' ids in `ids.txt`, and what made them in `embedding.json`,
    which arrives last. The same call again goes on where one was killed.
    """
    opened, rows = open_backend(engine, model), Split(data, split or default_split(data), limit)
    claim(out, ABOUT)
    said = {"model_sha256": model_hash(model), "data_sha256": rows.digest, "engine": engine}
    for kind in of:
        write_vectors(out / FILES[kind], opened, rows, range(len(rows)), said, kind)
    remove_stale(out, [FILES[kind] for kind in of])
    with whole_file(out / "ids.txt") as partial:
        partial.write_text("".join(f"{id}\n" for id in rows.iter_column("id")), encoding="utf-8")
    write_json(
        out / ABOUT,
        {
            "pairs": len(rows),
            "dimensions": opened.model.config.projection_dim,
            "files": {kind: FILES[kind] for kind in of},
            "split": rows.name,
            **said,
            "notice": NOT_CLINICAL,
        },
    )
    finish(out)
    return len(rows)


def write_vectors(
    path: Path, engine: Backend, rows: Split, of: range | np.ndarray, said: dict[str, Any], kind: Kind
) -> None:
    """Write unit vectors f32 (n, p), as .npy, of the images or captions (`kind`) of a split's rows `of`.

    A file that a killed call left, complete or not, is gone on from where it is of the same inputs (`said`), until
    `finish`. WorkError names the pair whose image cannot be read.
    """
    file = ResumableFile(path, fingerprint(said, kind, len(of)))
    if file.is_complete:
        return
    done, header = file.rows_done, io.BytesIO()
    shape = (len(of), engine.model.config.projection_dim)
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    with progress(f"embed {kind}", len(of), kind, first=done) as advance:
        embeddings = stream_split(engine, rows, kind, of[done:], advance)
        file.append((batch.astype("<f4") for batch in embeddings), header.getvalue())


def read_embedding(folder: Path, model_sha256: str, rows: Split) -> np.ndarray:
    """The vectors of the images of a split, made by `embed`; UserError where another model or split made them."""
    said = read_json(folder / ABOUT, "a folder of vectors (see medclip embed)")
    if said.get("model_sha256") != model_sha256:
        raise UserError(f"the vectors of {folder} were made by another model: they cannot be compared with these.")
    if said.get("data_sha256") != rows.digest:
        raise UserError(f"the vectors of {folder} are of other pairs than split {rows.name!r} of {rows.folder}.")
    if "images" not in said.get("files", {}):
        raise UserError(f"{folder} holds no vectors of images: medclip embed --kinds images makes them.")
    vectors = np.load(folder / said["files"]["images"], mmap_mode="r")
    if vectors.shape != (said["pairs"], said["dimensions"]):
        raise UserError(f"{folder} is damaged: its vectors and {ABOUT} disagree. Make it anew.")
    return vectors
