"""Index folders of any vectors, without a model or images, and what their answers must be."""

import numpy as np
import pyarrow as pa

from medclip.data.dataset import SCHEMA, write_batches
from medclip.search.filters import EVERYTHING
from medclip.search.index import FINGERPRINT_FIELDS, KEPT
from medclip.search.manifest import Manifest, Segment, segment_folder, write_manifest

ROWS = pa.schema(
    [*(SCHEMA.field(name) for name in KEPT), *(pa.field(name, kind) for name, kind in FINGERPRINT_FIELDS.items())]
)

HOSTILE = (
    '" or 1 == 1 or article == "',
    "' or true --",
    '\\") or (number >= 0',
    'a"],[1]) or array_contains(terms, 0',
    "ünïcode – \u202e\x00 ☃",
    "%_*?[]{}",
)
DIMENSIONS = 24


def unit(vectors):
    """Vectors of length 1, f32."""
    return np.float32(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def make_index(folder, *segments, days=("2026-11-01", "2026-11-25"), about=lambda row: {}):
    """Write an index of segments of vectors; `about` says what a row has beside its id, `r` and its number."""
    contents, rng = Manifest("model", "0" * 64, segments[0].shape[1], "exact", f"medclip_{folder.name}_{id(folder)}"), \
        np.random.default_rng(0)  # fmt: skip
    for number, vectors in enumerate(segments):
        segment = Segment(
            f"{number:05}", contents.next_row, len(vectors), days[number % 2], "drawn", "validation", True
        )
        contents = contents.with_segment(segment)
        at = segment_folder(folder, segment)
        at.mkdir(parents=True)
        np.save(at / "vectors.npy", vectors)
        rows = [
            {"id": f"r{row}", "image": b"", "width": 1, "height": 1, "caption": f"row {row}", "article": f"a{row // 3}"}
            | {"license": "CC BY", "attribution": "", "labels": [], "source": "drawn", "sha256": str(row)}
            | {name: rng.bytes(kind.byte_width) for name, kind in FINGERPRINT_FIELDS.items()}
            | about(row)
            for row in range(segment.first, segment.first + len(vectors))
        ]
        write_batches(at / "rows.arrow", ROWS, pa.Table.from_pylist(rows, ROWS).to_batches())
    write_manifest(folder, contents)
    return folder


def about(row):
    """Every kind of value that a filter asks for; some rows lack labels, some values are hostile."""
    labels = [("modality", ("CT", "ct", "MRI", "X-Ray")[row % 4])] + [("organ", "chest")] * (row % 3 == 0)
    return {
        "labels": labels if row % 7 else [],
        "license": ("CC BY", "CC BY-NC")[row % 2],
        "source": ("roco", "Drawn")[row % 5 == 0],
        "article": HOSTILE[row % 100] if row % 100 < len(HOSTILE) else f"a{row // 3}",
    }


def random_units(rows, seed=0):
    return unit(np.random.default_rng(seed).standard_normal((rows, DIMENSIONS)))


def sorted_whole(index, vectors, k, asked=EVERYTHING):
    """The definition of search: all scores in float64, sorted, ties in row order."""
    allowed = np.flatnonzero(index.allowed(asked))
    everything = index.vectors_of(allowed).astype(np.float64)
    found = []
    for vector in vectors.astype(np.float64):
        scores = np.einsum("np,p->n", everything, vector)
        best = np.lexsort((allowed, -scores))[:k]
        found.append([(int(allowed[at]), float(scores[at])) for at in best])
    return found


def ids(index, found):
    return [index.rows.column("id")[row].as_py() for row, _ in found]


def is_right(index, asked=EVERYTHING, k=10):
    """Whether the index answers some queries as the definition says."""
    queries = random_units(5, 9)
    return index.search(queries, k, asked) == sorted_whole(index, queries, k, asked)
