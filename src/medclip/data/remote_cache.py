"""Prepared datasets behind URLs: copied to this machine once, as only a file on a disk can be memory-mapped."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from medclip.atomic_io import whole_file
from medclip.data.paths import AnyPath, storage_errors
from medclip.errors import UserError
from medclip.progress import progress


def mirror(url: AnyPath) -> Path:
    """The folder on this machine for the dataset at `url`, with its `dataset.json`, which is read anew each time.

    It lies below `$XDG_CACHE_HOME/medclip/data` (`~/.cache/medclip/data`) and is named by what `dataset.json` says: a
    dataset that was prepared again gets another. UserError where there is none, WorkError where it cannot be reached.
    """
    try:
        with storage_errors(url, but=(FileNotFoundError,)):
            said = (url / "dataset.json").read_bytes()
    except FileNotFoundError:
        raise UserError(f"{url} is not a prepared dataset (see medclip prepare): it has no dataset.json.") from None
    name = hashlib.sha256(str(url).encode() + said).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = cache / "medclip" / "data" / f"{url.name}-{name}"
    if not (folder / "dataset.json").exists():
        with whole_file(folder / "dataset.json") as partial:
            partial.write_bytes(said)
    return folder


def fetch(url: AnyPath, folder: Path, files: Sequence[str]) -> None:
    """Copy those files of the dataset at `url` that its mirror `folder` lacks, each whole or not at all.

    UserError where one is not there, WorkError where it cannot be reached.
    """

    def one(file: str) -> None:
        try:
            with storage_errors(url, but=(FileNotFoundError,)), whole_file(folder / file) as partial:
                url.fs.get_file((url / file).path, str(partial))
        except FileNotFoundError:
            raise UserError(f"{url / file} is listed in dataset.json but absent. Prepare the dataset again.") from None

    absent = [file for file in files if not (folder / file).exists()]
    if absent:
        with ThreadPoolExecutor(8) as pool, progress(f"copy {url}", len(absent), "shards") as advance:
            for _ in pool.map(one, absent):
                advance()
