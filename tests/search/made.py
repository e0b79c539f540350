"""Index folders of any vectors, without a model or pictures."""

import numpy as np
import pyarrow as pa

from medclip.data.shards import SCHEMA, write_batches
from medclip.search.contents import Contents, Segment, segment_folder, write_contents
from medclip.search.index import KEPT, LOOKS

ROWS = pa.schema([*(SCHEMA.field(name) for name in KEPT), *(pa.field(name, kind) for name, kind in LOOKS.items())])


def unit(vectors):
    """Vectors of length 1, f32."""
    return np.float32(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def make_index(folder, *segments, days=("2026-11-01", "2026-11-25"), about=lambda row: {}):
    """Write an index of segments of vectors; `about` says what a row has beside its id, `r` and its number."""
    contents, rng = Contents("model", "0" * 64, segments[0].shape[1], "exact", f"medclip_{folder.name}_{id(folder)}"), \
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
            | {"licence": "CC BY", "attribution": "", "labels": [], "source": "drawn", "sha256": str(row)}
            | {name: rng.bytes(kind.byte_width) for name, kind in LOOKS.items()}
            | about(row)
            for row in range(segment.first, segment.first + len(vectors))
        ]
        write_batches(at / "rows.arrow", ROWS, pa.Table.from_pylist(rows, ROWS).to_batches())
    write_contents(folder, contents)
    return folder
