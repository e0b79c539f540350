"""Datasets written row by row, of which every number is known."""

import hashlib
import json
from pathlib import Path

from medclip import NOT_CLINICAL
from medclip.atomic_io import write_json, write_with_checksum
from medclip.data.checked_files import columns_crc32
from medclip.data.shards import open_shard, write_shard
from support.material import draw_image, image_bytes


def row(number: int, **fields) -> dict:
    """A prepared row; fields that are not given follow from its number."""
    image = fields.pop("image", None) or image_bytes(draw_image(number % 40))
    own_word = "".join(chr(97 + int(digit, 16)) for digit in hashlib.sha256(b"%d" % number).hexdigest()[:9])
    caption = fields.get("caption", f"{own_word} of the chest on CT")
    defaults = {
        "id": f"id{number}",
        "width": 48,
        "height": 40,
        "caption": caption,
        "caption_original": caption,
        "article": f"PMC{number}",
        "license": "CC BY",
        "concepts": [],
        "keywords": [],
        "semantic_types": [],
        "labels": [],
        "source": "handmade",
    }
    return defaults | fields | {"image": image, "sha256": hashlib.sha256(image).hexdigest()}


def dataset(folder: Path, splits: dict[str, list[dict]], shard: int = 4, **fields) -> Path:
    """Write rows as a prepared dataset, in shards of `shard` rows."""
    entries = {}
    for name, rows in splits.items():
        shards = []
        for start in range(0, len(rows), shard):
            file = f"{name}-{len(shards):05d}.arrow"
            write_shard(folder / file, rows[start : start + shard], {"file": file})
            shards.append({"file": file, "pairs": len(rows[start : start + shard])})
        entries[name] = {"pairs": len(rows), "shards": shards}
    content = {
        "medclip_version": "0.1.0",
        "source": "handmade",
        "synthetic": False,
        "notice": NOT_CLINICAL,
        "seed": 0,
        "shorter_side": 256,
        "splits": entries,
        "dropped": {name: {} for name in splits},
    }
    write_json(folder / "dataset.json", content | fields)
    return folder


def change_rows(folder: Path, change, split: str = "*") -> Path:
    """A prepared dataset whose rows are changed in place: each becomes `change(row)`, and the manifest knows it."""
    content = json.loads((folder / "dataset.json").read_text())
    for shard in folder.glob(f"{split}-*.arrow"):
        write_shard(shard, [change(row) for row in open_shard(shard).to_pylist()], {})
        content["crc32"][shard.name] = columns_crc32(open_shard(shard))
    write_with_checksum(folder / "dataset.json", content)
    return folder
