"""What a folder of medclip is, by files that lie in it: for the message to who gave it in the place of another."""

from __future__ import annotations

from pathlib import Path

EXPORTED_DATASET = "an exported dataset, as medclip prepare takes"
EVALUATION_FILES = tuple(
    f"{kind}.json" for kind in ("retrieval", "zero_shot", "probe", "compositionality", "robustness")
)
_SIGNS = {
    ("dataset.json", "NOTICE.txt"): "a prepared dataset, as --data takes",
    ("index.json", "segments"): "an index, as --index takes",
    ("train_config.json",): "a run, as --model takes",
    ("embedding.json", "ids.txt"): "embeddings, as --embeddings takes",
    ("config.json", "preprocessor_config.json"): "a model folder, as --model takes",
    ("open_clip_config.json",): "a model folder, as --model takes",
    ("export.json", "data"): EXPORTED_DATASET,
    ("export.json",): "an exported model",
    **{(name, f"{Path(name).stem}.arrow"): "an evaluation, as medclip compare takes" for name in EVALUATION_FILES},
}
"""Files that lie together in folders of one kind, and how these are given. Others' folders have a dataset.json too."""
MARKERS = {"dataset.json", "index.json", "train_config.json", "embedding.json"}
"""The files without which a folder is not what it was given for."""


def folder_kind(folder: Path) -> str:
    """What a folder is, with the flag that takes it; "" for none of medclip's."""
    try:
        return next((kind for files, kind in _SIGNS.items() if all((folder / f).exists() for f in files)), "")
    except OSError:  # a name that no folder can have
        return ""


def what_instead(folder: Path, marker: str) -> str:
    """What a folder without the file `marker` is, or the folder in it that has one: a sentence after a space, or ""."""
    if kind := folder_kind(folder):
        return f" It is {kind}."
    try:
        inner = min(folder.glob(f"*/{marker}"), default=None)
    except OSError:
        return ""
    return f" {inner.parent} is one." if inner else ""
