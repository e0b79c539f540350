"""A dataset made of rows of another: what a copy without some of them, or with others changed, has in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from medclip.atomic_io import sha256, write_with_checksum
from medclip.data.checked_files import columns_crc32
from medclip.data.dataset import Split, nonempty_splits, read_dataset
from medclip.data.paths import AnyPath
from medclip.data.prepare import NOTICE_FILE, write_notice
from medclip.data.resume import ResumableFile, remove_stale
from medclip.data.shards import open_shard, write_table
from medclip.errors import UserError

Edit = Callable[[pa.Table], pa.Table]


def copy_splits(
    data: AnyPath,
    out: Path,
    rows_of: Callable[[Split], Sequence[int]],
    facts: Mapping[str, Any],
    edit: Edit = lambda table: table,
) -> None:
    """Write `rows_of` each split of `data`, edited, into `out`, which the caller has claimed.

    `facts` go into its `dataset.json`, which is written last. UserError where a split would be left empty, or a shard
    is not as it was written; then nothing is written.
    """
    dataset = read_dataset(data)
    splits: dict[str, dict[str, Any]] = {name: {"pairs": 0, "shards": []} for name in dataset["splits"]}
    rows_by_split: list[tuple[Split, Sequence[int]]] = []
    for name in nonempty_splits(dataset):
        split = Split(data, name)
        rows_by_split.append((split, rows := rows_of(split)))
        if not rows:
            raise UserError(f"no pair of split {name!r} of {data} would be left, so nothing is written.")
    for split, rows in rows_by_split:
        splits[split.name] = {"pairs": len(rows), "shards": _copy_rows(split, rows, out, edit)}
    files = {name: [shard["file"] for shard in entry["shards"]] for name, entry in splits.items()}
    shards = list(chain.from_iterable(files.values()))
    remove_stale(out, shards)
    write_notice(out, files)
    changes = {
        "splits": splits,
        "derived_from": dataset["source"],
        **facts,
        "sha256": {name: sha256(out / name) for name in (*shards, NOTICE_FILE)},
        "crc32": {name: columns_crc32(open_shard(out / name)) for name in shards},
    }
    write_with_checksum(out / "dataset.json", {**dataset, **changes})


def _copy_rows(split: Split, rows: Sequence[int], out: Path, edit: Edit) -> list[dict[str, Any]]:
    """Write rows of a split as one shard for each of its record batches that has any; returns the shards' entries."""
    shards, start = [], 0
    row_numbers = np.asarray(rows, np.int64)
    for batch in split.iter_batches():
        in_batch = row_numbers[(row_numbers >= start) & (row_numbers < start + len(batch))] - start
        start += len(batch)
        if not len(in_batch):
            continue
        file = f"{split.name}-{len(shards):05d}.arrow"
        with ResumableFile(out / file, "").rewrite():
            table = edit(pa.Table.from_batches([batch]).take(in_batch))
            write_table(out / file, table, {"file": file, "pairs": len(in_batch)})
        shards.append({"file": file, "pairs": len(in_batch)})
    return shards
