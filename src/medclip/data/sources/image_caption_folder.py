"""Reads a folder of images, each with its caption in a text file of the same name beside it."""

from __future__ import annotations

from collections.abc import Iterator

from medclip.data.normalize import SPLITS, canonical_split, split_of
from medclip.data.paths import AnyPath, relative_path
from medclip.data.schema import Dropped, Pair
from medclip.data.sources.reports import OTHER_SECTIONS, select_reading

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".gif", ".webp")


def has_caption_files(folder: AnyPath) -> bool:
    """Whether any image under `folder` has a text file beside it."""
    return any(image.with_suffix(".txt").is_file() for image in list_images(folder))


def list_images(folder: AnyPath) -> Iterator[AnyPath]:
    """Every image file under `folder`, in the order of their paths; only the names of one folder are in memory."""
    for path in sorted(folder.iterdir(), key=str):
        if path.is_dir() and not path.is_symlink():
            yield from list_images(path)
        elif path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
            yield path


def read_image_folder(folder: AnyPath) -> Iterator[Pair | Dropped]:
    """Every image under `folder`; its id is its relative path without suffix.

    A top folder named train, validation or test is the split. Below it, images of one folder (a patient, a study) form
    one group; each image directly in `folder` is its own group.
    """
    for image in list_images(folder):
        path = relative_path(image, folder)
        id = path.with_suffix("").as_posix()
        split = canonical_split(path.parts[0]) if len(path.parts) > 1 else ""
        split = split if split in SPLITS else ""
        group = "/".join(path.parent.parts[1 if split else 0 :]) or id
        split = split or split_of(group)
        try:
            caption = image.with_suffix(".txt").read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            yield Dropped(id, split, "no caption beside the image", path.name)
        except UnicodeDecodeError:
            yield Dropped(id, split, "caption is not UTF-8", path.with_suffix(".txt").name)
        else:
            reading = select_reading(caption)
            removed = (OTHER_SECTIONS,) if reading != caption else ()
            yield Pair(id, image, reading, split, group, source=folder.name, removed=removed)
