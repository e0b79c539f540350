"""The files of a model folder: none leads out of it, none never ends."""

from __future__ import annotations

import re
import stat
from pathlib import Path

from medclip.atomic_io import MAX_JSON_BYTES
from medclip.bounded_files import MAX_CARD_BYTES
from medclip.errors import UserError

SMALL_FILES = re.compile(r"[^/]+\.(json|txt|model)|README\.md")
"""Names of config, processor and tokenizer files, of indexes of shards and of the card."""


def check_small_files(folder: Path) -> None:
    """Raise UserError for a small file that leads out of the folder, is a pipe or a device, or is too large.

    What a link names would be read as a vocabulary or a card, and written into every copy of the model.
    """
    for path in folder.iterdir():
        if SMALL_FILES.fullmatch(path.name) and (path.is_symlink() or not path.is_dir()):
            _check_small_file(folder, path)


def _check_small_file(folder: Path, path: Path) -> None:
    try:
        state = path.stat()
    except OSError as error:  # a link to nothing or to itself
        raise UserError(f"{path} is not a file that can be read ({error.strerror}).") from None
    if stat.S_ISDIR(state.st_mode) or not stat.S_ISREG(state.st_mode):
        raise UserError(f"{path} is not a file that can be read.")
    most = MAX_CARD_BYTES if path.suffix == ".md" else MAX_JSON_BYTES
    if state.st_size > most:
        raise UserError(f"{path} has {state.st_size:,} bytes, where {most:,} are read.")
    check_inside(folder, path)


def check_inside(folder: Path, path: Path) -> None:
    """Raise UserError where a file or folder, by a link, leads out of the model folder that it lies in.

    A link may lead to the blobs of the Hub's cache, where a snapshot's files are.
    """
    target = folder.resolve()
    snapshot = next((step for step in (target, *target.parents) if step.parent.name == "snapshots"), None)
    roots = [target, snapshot.parents[1] / "blobs"] if snapshot else [target]
    if not any(path.resolve().is_relative_to(root) for root in roots):
        raise UserError(f"{path} leads out of its folder.")
