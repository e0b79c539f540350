"""The files of a source that none of its rows names: counted after the rows, each with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import PurePosixPath

from medclip.data.normalize import split_in
from medclip.data.paths import AnyPath, is_url, relative_path
from medclip.data.schema import Dropped, Pair
from medclip.data.sources.image_caption_folder import IMAGE_SUFFIXES, LINKED_FOLDER, is_output
from medclip.data.sources.image_cells import UsedFiles
from medclip.data.sources.table_files import TABLE_SUFFIXES, table_suffix
from medclip.recorded_files import EXPORT_FILE

UNLISTED_IMAGE = "image that no row names"
UNLISTED_TABLE = "table beside those that are read"
UNLISTED_FILE = "file that no row names"
UNLISTED_MEMBER = "archive member that no row names"


def count_unlisted(
    folder: AnyPath, rows: Iterable[Pair | Dropped], used: UsedFiles, image_root: AnyPath | None = None
) -> Iterator[Pair | Dropped]:
    """The rows of a folder, then every file below it that is not used, and every image of an `image_root` elsewhere."""
    splits: dict[str, None] = {}
    yield from _note_rows(rows, used, splits)
    yield from _unlisted_members(used, splits)
    for path in _list_files(folder, used):
        if path not in used and path != folder / EXPORT_FILE:  # our own, which says nothing of its own
            used.add(path)
            yield _drop(relative_path(path, folder), _reason(path), splits)
    if image_root is not None and not is_url(image_root):
        yield from _unlisted_images(image_root, used, splits, whole_root=True)


def count_unlisted_images(
    root: AnyPath, rows: Iterable[Pair | Dropped], used: UsedFiles, whole_root: bool
) -> Iterator[Pair | Dropped]:
    """The rows of a table, then the images beside those that it names.

    They are the images below those folders of `root` that hold used ones, and with `whole_root` also those directly in
    `root`: a table without a folder of images may lie among files that are not its own.
    """
    splits: dict[str, None] = {}
    yield from _note_rows(rows, used, splits)
    yield from _unlisted_members(used, splits)
    yield from _unlisted_images(root, used, splits, whole_root)


def _unlisted_images(root: AnyPath, used: UsedFiles, splits: dict[str, None], whole_root: bool) -> Iterator[Dropped]:
    beside = (path for path in root.iterdir() if path.is_file()) if whole_root else ()
    below = (_list_files(folder, used) for folder in used.top_folders(root))
    for path in chain(beside, chain.from_iterable(below)):
        if path.suffix.lower() in IMAGE_SUFFIXES and path not in used:
            yield _drop(relative_path(path, root), UNLISTED_IMAGE, splits)


def _note_rows(rows: Iterable[Pair | Dropped], used: UsedFiles, splits: dict[str, None]) -> Iterator[Pair | Dropped]:
    for row in rows:
        splits[row.split] = None  # in the order of their first rows
        if isinstance(row, Pair):
            used.add_image(row.image)
        yield row


def _list_files(folder: AnyPath, used: UsedFiles) -> Iterator[AnyPath]:
    """Every file below a folder, and links to folders that hold no used file, as links are not followed."""
    for path in sorted(folder.iterdir(), key=str):
        if not path.is_dir():
            yield path
        elif path.is_symlink():
            if not used.has_below(path):
                yield path
        elif not is_output(path):
            yield from _list_files(path, used)


def _unlisted_members(used: UsedFiles, splits: dict[str, None]) -> Iterator[Dropped]:
    for path, archive in used.archives.items():
        if archive.num_read:
            used.add(path)
            for name in archive.unread():
                yield _drop(PurePosixPath(name), UNLISTED_MEMBER, splits, path.name)


def _reason(path: AnyPath) -> str:
    if path.is_symlink() and path.is_dir():
        return LINKED_FOLDER
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return UNLISTED_IMAGE
    return UNLISTED_TABLE if table_suffix(path) in TABLE_SUFFIXES else UNLISTED_FILE


def _drop(path: PurePosixPath, reason: str, splits: dict[str, None], detail: str = "") -> Dropped:
    """A file as a dropped row: of the split that its path names, where the rows have that one, else of their last."""
    named = split_in(path.as_posix())
    split = named if named in splits else next(reversed(splits), "train")
    return Dropped(path.as_posix(), split, reason, detail or path.name)
