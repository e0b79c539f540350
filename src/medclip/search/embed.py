"""Embeddings of a dataset split as .npy files, written as they come: a killed call resumes."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from medclip import NOT_CLINICAL
from medclip.atomic_io import (
    check_as_written,
    file_name,
    read_object,
    recorded_hashes,
    sha256,
    write_text,
    write_with_checksum,
)
from medclip.data.checked_files import EMBEDDINGS_MANIFEST, DamageError, check_hash, damaged_rows, open_array
from medclip.data.dataset import Split, default_split
from medclip.data.parallel import map_shards
from medclip.data.paths import AnyPath
from medclip.data.resume import ResumableFile, fingerprint, remove_stale
from medclip.encode.encoder import Backend, Kind, embed_split, stream_split
from medclip.encode.inference_backends import open_backend
from medclip.errors import UserError, WorkError
from medclip.folder_locks import claim
from medclip.model.checkpoint import model_hash
from medclip.plain_text import printable
from medclip.progress import Advance, progress
from medclip.require import require
from medclip.versions import library_versions

# as `medclip evaluate --embeddings` takes them
EMBEDDING_FILES: dict[Kind, str] = {"images": "images.npy", "captions": "texts.npy"}
IDS_FILE = "ids.txt"
LIBRARIES = ("jax", "jaxlib", "numpy", "pillow", "tokenizers", "ftfy", "onnxruntime", "openvino")
"""What decides an embedding besides its model."""
TASK_ROWS = 4096
"""That a worker of a Ray cluster embeds at a time: more leave less padding, and more to do again."""


@dataclass(frozen=True)
class RayJob:
    """The work of `embed` on a Ray cluster, each worker of which opens the model and the rows of a task for itself."""

    model: str | Path
    model_sha256: str
    data: AnyPath
    split: str
    backend: str = "jax"
    cache: bool = True
    libraries: tuple[tuple[str, str], ...] = field(default_factory=lambda: tuple(library_versions(*LIBRARIES).items()))

    def stream(self, kind: Kind, rows: range, advance: Advance) -> Iterator[Float32[np.ndarray, "n p"]]:
        """Embeddings of rows of the split, task after task in order; errors as in `stream_split` and `map_shards`."""
        tasks = ((self, kind, part.start, len(part)) for part in task_rows(rows))
        with closing(map_shards(_embed_rows, tasks, ray=True, encodes=True)) as results:
            for embeddings in results:
                yield embeddings
                advance(len(embeddings))


def task_rows(rows: range) -> Iterator[range]:
    """The rows of each task."""
    return (rows[start : start + TASK_ROWS] for start in range(0, len(rows), TASK_ROWS))


def _embed_rows(job: RayJob, kind: Kind, first: int, num_rows: int) -> Float32[np.ndarray, "n p"]:
    return embed_split(_worker_backend(job), Split(job.data, job.split, num_rows, first), kind)


@lru_cache(maxsize=1)
def _worker_backend(job: RayJob) -> Backend:
    """The backend of this worker, for all of its tasks. WorkError where its numbers would be other ones."""
    for library, version in job.libraries:
        if (here := library_versions(*LIBRARIES).get(library)) != version:
            raise WorkError(f"a machine of the cluster has {library} {here}, not {version}: embeddings would differ.")
    if model_hash(job.model) != job.model_sha256:
        raise WorkError(f"a machine of the cluster sees another model at {job.model}.")
    return open_backend(job.backend, job.model, job.cache)


def embed(
    model: str | Path,
    data: AnyPath,
    out: Path,
    split: str | None = None,
    max_samples: int | None = None,
    kinds: Sequence[Kind] = ("images", "captions"),
    backend: str = "jax",
    cache: bool = True,
    ray: bool = False,
) -> int:
    """Write embeddings of the images and captions (`kinds`) of a split; returns the number of pairs. Row i is pair i.

    f32 (n, p) in `images.npy` and `texts.npy`, the pairs' ids in `ids.txt`, and their origin in `embedding.json`, which
    is written last and names what `backend` was: "auto" chooses one, see `open_backend`. A killed call resumes where it
    was. `cache`: as in `EvalConfig`. `ray`: as in `map_shards`.
    """
    if ray:
        require("ray", extra="ray")  # before the model is opened
    opened_backend, rows = open_backend(backend, model, cache), Split(data, split or default_split(data), max_samples)
    backend = opened_backend.name
    origin = {"model_sha256": model_hash(model), "data_sha256": rows.digest, "backend": backend}
    job = RayJob(model, origin["model_sha256"], data, rows.name, backend, cache) if ray else None
    files = [EMBEDDING_FILES[kind] for kind in kinds]
    with claim(out, EMBEDDINGS_MANIFEST):
        for kind in kinds:
            write_embeddings(out / EMBEDDING_FILES[kind], opened_backend, rows, range(len(rows)), origin, kind, job)
        remove_stale(out, files)
        lines = (printable(id).replace("\n", "\\n") for id in rows.iter_column("id"))
        write_text(out / IDS_FILE, "".join(f"{line}\n" for line in lines))
        write_with_checksum(
            out / EMBEDDINGS_MANIFEST,
            {
                "num_pairs": len(rows),
                "embedding_dim": opened_backend.model.config.projection_dim,
                "files": {kind: EMBEDDING_FILES[kind] for kind in kinds},
                "split": rows.name,
                **origin,
                "notice": NOT_CLINICAL,
                "sha256": {name: sha256(out / name) for name in (*files, IDS_FILE)},
            },
        )
    return len(rows)


def write_embeddings(
    path: Path,
    backend: Backend,
    split: Split,
    rows: range | np.ndarray,
    origin: dict[str, Any],
    kind: Kind,
    job: RayJob | None = None,
) -> None:
    """Write embeddings f32 (n, p), as .npy, of the images or captions of rows of a split; with a `job`, of its first.

    A file of the same `origin` that a killed call left is resumed. Errors as in `stream_split`.
    """
    file = ResumableFile(path, fingerprint(library_versions(*LIBRARIES), origin, kind, len(rows)))
    if file.is_complete:
        return
    done, header = file.rows_done, io.BytesIO()
    shape = (len(rows), backend.model.config.projection_dim)
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    with progress(f"embed {kind}", len(rows), kind, first=done) as advance:
        if job is None:
            embeddings = stream_split(backend, split, kind, rows[done:], advance)
        else:
            embeddings = job.stream(kind, range(done, len(rows)), advance)
        file.append((batch.astype("<f4") for batch in embeddings), header.getvalue())


def read_image_embeddings(folder: Path, model_sha256: str, split: Split) -> tuple[Float32[np.ndarray, "n p"], str]:
    """Image embeddings of a split from the files of `embed`, and the backend that computed them.

    UserError where they are of another model or split.
    """
    origin = read_object(folder / EMBEDDINGS_MANIFEST, "a folder of embeddings (medclip embed makes one)")
    if origin.get("model_sha256") != model_sha256:
        raise UserError(f"the embeddings of {folder} were made by another model: they cannot be compared with these.")
    if origin.get("data_sha256") != split.digest:
        raise UserError(f"the embeddings of {folder} are of other pairs than split {split.name!r} of {split.folder}.")
    files = origin.get("files")
    if not isinstance(files, dict) or "images" not in files:
        raise UserError(f"{folder} holds no embeddings of images: medclip embed --kinds images makes them.")
    field = f"{folder / EMBEDDINGS_MANIFEST}: files.images"
    name = file_name(files["images"], field, re.escape(EMBEDDING_FILES["images"]))
    check_as_written(folder / EMBEDDINGS_MANIFEST, origin)
    try:
        embeddings = open_embeddings(folder / name, (len(split), origin.get("embedding_dim", 0)))
        check_hash(folder / name, recorded_hashes(origin).get(name))
        return embeddings, str(origin.get("backend"))
    except (FileNotFoundError, DamageError) as error:
        reason = error if isinstance(error, DamageError) else "is absent"
        raise UserError(f"{folder} is damaged: {name} {reason}. Make it again.") from None


def open_embeddings(path: Path, shape: tuple[int, int]) -> Float32[np.ndarray, "n p"]:
    """Unit vectors of a .npy file, memory-mapped; errors as in `open_array`, DamageError for any other row too."""
    embeddings = open_array(path, "<f4", shape)
    if rows := damaged_rows(embeddings):
        raise DamageError(f"has a row, {rows[0]} counted from 0, that is not a unit vector")
    return embeddings
