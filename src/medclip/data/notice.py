"""NOTICE.txt: whose the pictures are, which is what most of their licences ask to be said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from medclip.atomic_io import whole_file
from medclip.data.dataset import open_shard

_HEAD = """The pictures and captions of this data set are the work of others, each under the licence stated below.
Pictures were resized and encoded anew, captions cleaned by stated rules. Who passes on the data, or a picture from
them, passes on this file. Where no licence is stated none was granted: ask the source.
"""


def write_notice(folder: Path, files: Mapping[str, Sequence[str]]) -> None:
    """Write `folder`/NOTICE.txt: pairs of each licence, then split, id, licence and attribution of every pair.

    `files` are the shards of each split. Memory is that of one shard; lines are tab-separated.
    """
    counts = Counter(licence or "no licence stated" for _, _, licence, _ in _rows(folder, files))
    with whole_file(folder / "NOTICE.txt") as partial, partial.open("w", encoding="utf-8") as out:
        out.write(_HEAD + "\n")
        out.writelines(f"{count}\t{licence}\n" for licence, count in counts.most_common())
        out.write("\nsplit\tid\tlicence\tattribution\n")
        out.writelines("\t".join(row) + "\n" for row in _rows(folder, files))


def _rows(folder: Path, files: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, ...]]:
    """Split, id, licence and attribution (or article) of every pair."""
    for split, names in files.items():
        for name in names:
            for row in open_shard(folder / name).select(["id", "licence", "attribution", "article"]).to_pylist():
                said = (split, row["id"], row["licence"], row["attribution"] or row["article"])
                yield tuple(" ".join(text.split()) for text in said)
