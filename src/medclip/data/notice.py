"""NOTICE.txt: whose the images are, which is what most of their licenses ask to be said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from medclip.atomic_io import whole_file
from medclip.data.dataset import open_shard

_HEAD = """The images and captions of this dataset are the work of others, each under the license stated below.
Images were resized and encoded anew, captions cleaned by stated rules. Who passes on the data, or an image from
them, passes on this file. Where no license is stated none was granted: ask the source.
"""


def write_notice(folder: Path, files: Mapping[str, Sequence[str]]) -> None:
    """Write `folder`/NOTICE.txt: pairs of each license, then split, id, license and attribution of every pair.

    `files` are the shards of each split. Memory is that of one shard; lines are tab-separated.
    """
    counts = Counter(license or "no license stated" for _, _, license, _ in _rows(folder, files))
    with whole_file(folder / "NOTICE.txt") as partial, partial.open("w", encoding="utf-8") as out:
        out.write(_HEAD + "\n")
        out.writelines(f"{count}\t{license}\n" for license, count in counts.most_common())
        out.write("\nsplit\tid\tlicense\tattribution\n")
        out.writelines("\t".join(row) + "\n" for row in _rows(folder, files))


def _rows(folder: Path, files: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, ...]]:
    """Split, id, license and attribution (or article) of every pair."""
    for split, names in files.items():
        for name in names:
            for row in open_shard(folder / name).select(["id", "license", "attribution", "article"]).to_pylist():
                said = (split, row["id"], row["license"], row["attribution"] or row["article"])
                yield tuple(" ".join(text.split()) for text in said)
