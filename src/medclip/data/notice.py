"""NOTICE.txt: whose the pictures are, which is what most of their licences ask to be said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medclip.data.shards import Split
from medclip.files import whole_file

_HEAD = """The pictures and captions of this data set are the work of others, each under the licence stated below.
Pictures were resized and encoded anew, captions cleaned by stated rules. Who passes on the data, or a picture from
them, passes on this file. Where no licence is stated none was granted: ask the source.
"""


def write_notice(folder: Path, splits: dict[str, Any]) -> None:
    """Write `folder`/NOTICE.txt: pairs of each licence, then split, id, licence and attribution of every pair.

    `splits` is what `dataset.json` says of them. Memory is that of one shard, and lines are tab-separated.
    """
    names = [name for name, about in splits.items() if about["pairs"]]
    counts = Counter(licence or "no licence stated" for name in names for _, licence, _ in _rows(folder, name))
    with whole_file(folder / "NOTICE.txt") as partial, partial.open("w", encoding="utf-8") as out:
        out.write(_HEAD + "\n")
        out.writelines(f"{count}\t{licence}\n" for licence, count in counts.most_common())
        out.write("\nsplit\tid\tlicence\tattribution\n")
        for name in names:
            out.writelines(f"{name}\t{id}\t{licence}\t{whose}\n" for id, licence, whose in _rows(folder, name))


def _rows(folder: Path, name: str) -> Iterator[tuple[str, str, str]]:
    """Id, licence and attribution (or article) of each pair of a split."""
    for batch in Split(folder, name).table.select(["id", "licence", "attribution", "article"]).to_batches():
        for row in batch.to_pylist():
            said = (row["id"], row["licence"], row["attribution"] or row["article"])
            yield tuple(" ".join(text.split()) for text in said)
