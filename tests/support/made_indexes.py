"""Index folders of any embeddings, without a model or real images, and what a search of them must give."""

import hashlib

import numpy as np
import pyarrow as pa

from medclip.data.shards import write_batches
from medclip.search.filters import NO_FILTER
from medclip.search.manifest import EMBEDDINGS_FILE, ROWS_FILE, Manifest, Segment, segment_folder, write_manifest
from medclip.search.segments import FINGERPRINT_FIELDS, ROW_SCHEMA

HOSTILE_VALUES = (
    '" or 1 == 1 or article == "',
    "' or true --",
    '\\") or (row_id >= 0',
    'a"],[1]) or array_contains(terms, 0',
    "ünïcode – \u202e\x00 ☃",
    "%_*?[]{}",
)
DIM = 24


def unit(vectors):
    """Vectors of length 1, f32."""
    return np.float32(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def random_units(rows, seed=0):
    return unit(np.random.default_rng(seed).standard_normal((rows, DIM)))


def make_index(folder, *segments, days=("2026-11-01", "2026-11-25"), metadata=lambda row: {}):
    """Write an index of segments of embeddings; `metadata` gives fields of a row, whose id is `r` and its number."""
    rng = np.random.default_rng(0)
    manifest = Manifest("model", "0" * 64, segments[0].shape[1], "exact", f"medclip_{folder.name}_{id(folder)}")
    for number, embeddings in enumerate(segments):
        first = manifest.next_row_id
        segment = Segment(f"{number:05}", first, len(embeddings), days[number % 2], "drawn", "validation", True)
        manifest = manifest.with_segment(segment)
        path = segment_folder(folder, segment)
        path.mkdir(parents=True)
        np.save(path / EMBEDDINGS_FILE, embeddings)
        rows = [
            {
                "id": f"r{row}",
                "image": str(row).encode(),
                "width": 1,
                "height": 1,
                "caption": f"row {row}",
                "article": f"a{row // 3}",
            }
            | {"license": "CC BY", "attribution": "", "labels": [], "source": "drawn"}
            | {name: rng.bytes(kind.byte_width) for name, kind in FINGERPRINT_FIELDS.items()}
            | metadata(row)
            for row in range(first, first + len(embeddings))
        ]
        rows = [row | {"sha256": hashlib.sha256(row["image"]).hexdigest()} for row in rows]
        write_batches(path / ROWS_FILE, ROW_SCHEMA, pa.Table.from_pylist(rows, ROW_SCHEMA).to_batches())
    write_manifest(folder, manifest)
    return folder


def varied_metadata(row):
    """Every kind of value that a filter takes; some rows lack labels, some values are hostile."""
    labels = [("modality", ("CT", "ct", "MRI", "X-Ray")[row % 4])] + [("organ", "chest")] * (row % 3 == 0)
    return {
        "labels": labels if row % 7 else [],
        "license": ("CC BY", "CC BY-NC")[row % 2],
        "source": ("roco", "Drawn")[row % 5 == 0],
        "article": HOSTILE_VALUES[row % 100] if row % 100 < len(HOSTILE_VALUES) else f"a{row // 3}",
    }


def brute_force(reader, queries, k, filter=NO_FILTER):
    """The definition of search: all scores in float64, sorted, ties in row order."""
    rows = np.flatnonzero(reader.allowed_mask(filter))
    embeddings = reader.embeddings_at(rows).astype(np.float64)
    rankings = []
    for query in queries.astype(np.float64):
        scores = np.einsum("np,p->n", embeddings, query)
        order = np.lexsort((rows, -scores))[:k]
        rankings.append([(int(rows[i]), float(scores[i])) for i in order])
    return rankings


def row_ids(reader, ranking):
    """Ids of the images of a ranking."""
    return [reader.id(row) for row, _ in ranking]


def matches_brute_force(reader, filter=NO_FILTER, k=10):
    """Whether the index answers some queries as the definition says."""
    queries = random_units(5, 9)
    return reader.nearest_rows(queries, k, filter) == brute_force(reader, queries, k, filter)
