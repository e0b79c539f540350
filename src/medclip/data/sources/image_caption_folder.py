"""Reads a folder of images, each with its caption in a text file of the same name beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from medclip.data.dropped_rows import DROPPED_FILE
from medclip.data.normalize import SPLITS, canonical_split, split_of
from medclip.data.paths import LEAVES_FOLDER, AnyPath, fold_name, is_url, leaves_folder, relative_path, special_kind
from medclip.data.schema import Dropped, Pair
from medclip.data.sources.reports import read_report, split_reading
from medclip.data.sources.stated_groups import article_of_file
from medclip.folder_locks import NOTES

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".tif", ".tiff", ".bmp", ".dib", ".gif", ".webp"),
    *(".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc", ".avif", ".avifs", ".pgm", ".ppm", ".pbm", ".pnm", ".mpo"),
    *(".tga", ".pcx", ".sgi"),
)
CAPTION_SUFFIX = ".txt"
IMAGE_FOLDERS = ("images", "image", "imgs", "img", "pictures", "figures", "png", "jpg", "jpeg")
NO_CAPTION = "no caption beside the image"
NO_IMAGE = "caption without image"
NOT_READ = "file of a kind that is not read"
UNREACHABLE = "link to a file that is absent"
LINKED_FOLDER = "link to a folder, which is not followed"


def has_caption_files(folder: AnyPath) -> bool:
    """Whether any image under `folder` has a text file beside it."""
    return any(caption is not None for _, caption in _image_files(folder))


def has_images(folder: AnyPath) -> bool:
    """Whether there is any image file under `folder`."""
    return next(list_images(folder), None) is not None


def list_images(folder: AnyPath) -> Iterator[AnyPath]:
    """Every image file under `folder`, in the order of their paths; only the names of one folder are in memory."""
    return (image for image, _ in _image_files(folder))


def _image_files(folder: AnyPath) -> Iterator[tuple[AnyPath, AnyPath | None]]:
    """Also links that leave the folder: whoever reads images counts them."""
    for path, caption, reason in _walk(folder, folder):
        if not reason or (reason == LEAVES_FOLDER and path.suffix.lower() in IMAGE_SUFFIXES):
            yield path, caption


def _walk(folder: AnyPath, root: AnyPath) -> Iterator[tuple[AnyPath, AnyPath | None, str]]:
    """Every image with its caption file, and every other file with the reason why it is not used."""
    paths = []
    for path in sorted(folder.iterdir(), key=str):
        if path.is_dir() or not (reason := LEAVES_FOLDER if leaves_folder(path, root) else special_kind(path)):
            paths.append(path)
        else:
            yield path, None, reason
    texts = [path for path in paths if path.suffix.lower() == CAPTION_SUFFIX]
    captions = {fold_name(path.name): path for path in texts}
    captions |= {path.stem + CAPTION_SUFFIX: path for path in texts}  # a.TXT is of a.png before it is of A.png
    captions |= {path.name: path for path in texts}
    unused = set(texts)
    for path in paths:
        if path.is_dir():
            if path.is_symlink():
                yield path, None, LINKED_FOLDER
            elif not is_output(path):
                yield from _walk(path, root)
        elif path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
            names = (path.with_suffix(CAPTION_SUFFIX).name, path.name + CAPTION_SUFFIX)
            keys = (key for name in names for key in (name, fold_name(name)))  # the very name before another spelling
            caption = next((captions[key] for key in keys if key in captions), None)
            unused.discard(caption or path)
            yield path, caption, ""
        elif path.suffix.lower() != CAPTION_SUFFIX:
            reason = UNREACHABLE if path.suffix.lower() in IMAGE_SUFFIXES else NOT_READ
            yield path, None, f"{reason}: {path.suffix.lower()[:12] or 'no suffix'}"
    yield from ((path, None, NO_IMAGE) for path in texts if path in unused)


def read_image_folder(folder: AnyPath) -> Iterator[Pair | Dropped]:
    """Every image under `folder`; its id is its relative path without suffix.

    Its caption is x.txt or x.png.txt beside x.png, in any letter case. A top folder named train, validation or test is
    the split. Below it, images of one folder (a patient, a study) form one group; each image directly in `folder`, or
    in the one folder that holds all of them (images/), is its own group. Files that are not used are counted.
    """
    other_split, roots = "", _find_roots(folder)
    for image, caption, reason in _walk(folder, folder):
        path = relative_path(image, folder)
        root = next(parent for parent in path.parents if parent in roots)
        id, group, split = _identify(path, root, roots[root])
        if reason:  # a file that belongs to no image makes no split of its own
            yield Dropped(path.as_posix(), roots[root] or other_split or split, reason, path.name)
            continue
        other_split = split
        if caption is None:
            yield Dropped(id, split, NO_CAPTION, path.name)
            continue
        try:
            text = read_report(caption)
        except UnicodeDecodeError:
            yield Dropped(id, split, "caption is not UTF-8", caption.name)
        except OSError:
            yield Dropped(id, split, "caption unreadable", caption.name)
        else:
            reading, removed = split_reading(text)
            yield Pair(id, image, reading, split, group, source=folder.name, removed=removed)


def is_output(folder: AnyPath) -> bool:
    """Whether a folder holds a prepared dataset, whole or on the way: what a source becomes is not part of it."""
    if is_url(folder):
        return False
    return (folder / NOTES).is_dir() or all((folder / name).is_file() for name in ("dataset.json", DROPPED_FILE))


def _find_roots(folder: AnyPath) -> dict[PurePosixPath, str]:
    """The folders, relative to `folder`, that are no group but hold groups, each with its split ("": none)."""
    base = _find_base(folder)
    roots = {PurePosixPath(): "", relative_path(base, folder): ""}
    for path in _list_folders(base):
        if (split := canonical_split(path.name)) in SPLITS:
            below = (path / name for name in IMAGE_FOLDERS)  # a folder of another name may be a patient in two splits
            roots |= {relative_path(root, folder): split for root in (path, *below)}
    return roots


def _find_base(folder: AnyPath) -> AnyPath:
    """The folder itself, or the one far below it that holds all of its images, as those of an archive may lie."""
    while not any(path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() for path in folder.iterdir()):
        with_images = [path for path in _list_folders(folder) if has_images(path)]
        if len(with_images) != 1 or canonical_split(with_images[0].name) in SPLITS:
            break
        folder = with_images[0]
    return folder


def _list_folders(folder: AnyPath) -> list[AnyPath]:
    """The folders in a folder that are walked."""
    return [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink() and not is_output(path)]


def _identify(path: PurePosixPath, root: PurePosixPath, split: str) -> tuple[str, str, str]:
    """Id, group and split of a path that lies below a root, which may have a split."""
    id = path.with_suffix("").as_posix()
    group = "/".join(path.parent.relative_to(root).parts) or article_of_file(path.name) or id
    return id, group, split or split_of(group)
