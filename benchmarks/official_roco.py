"""What ROCO's official lists hold, and what the preparation of 2021 made of them; no image is needed.

    git clone https://github.com/razorx89/roco-dataset && python benchmarks/official_roco.py roco-dataset/data

The rules of 2021, as its notebook `tools/roco_dataset.ipynb` has them: captions are lower-cased, stripped at the end of
white space and full stops, dropped if any character is not ASCII, and dropped if fewer than 10 remain.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from medclip.data.normalize import MIN_CAPTION_CHARACTERS, clean_caption
from medclip.data.schema import Pair
from medclip.data.sources.roco import read_roco


def of_2021(caption: str) -> str | None:
    """The caption that was written in 2021, or None where it was thrown away."""
    caption = caption.lower().rstrip().replace("\\n", "").rstrip(".")
    return caption if caption.isascii() and len(caption) >= MIN_CAPTION_CHARACTERS else None


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("folder", type=Path, help="ROCO's lists: train/radiology/captions.txt and those beside it")
    splits: dict[str, list[Pair]] = {}
    for row in read_roco(ask.parse_args().folder):
        splits.setdefault(row.split, []).extend([row] if isinstance(row, Pair) else [])
    training = {pair.article for pair in splits.get("train", [])}
    for split, pairs in splits.items():
        captions = [pair.caption for pair in pairs]
        shared = sum(pair.article in training for pair in pairs)
        counts = {
            "listed": len(pairs),
            "under 10 characters": sum(len(clean_caption(caption)[0]) < MIN_CAPTION_CHARACTERS for caption in captions),
            "not ASCII": sum(not caption.isascii() for caption in captions),
            "left in 2021 at most": sum(of_2021(caption) is not None for caption in captions),
            "shares an article with train": None if split == "train" else f"{shared} ({shared / len(pairs):.1%})",
        }
        print(json.dumps({split: counts}))


if __name__ == "__main__":
    main()
