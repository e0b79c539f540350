"""Reads a folder of images, each with its caption in a text file of the same name beside it."""

from __future__ import annotations

from collections.abc import Iterator

from medclip.data.normalize import SPLITS, canonical_split, split_of
from medclip.data.paths import AnyPath
from medclip.data.schema import Dropped, Pair

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".gif", ".webp")


def has_caption_files(folder: AnyPath) -> bool:
    """Whether the first image under `folder` that can be found has a text file beside it."""
    return any(picture.with_suffix(".txt").is_file() for picture in list_images(folder))


def list_images(folder: AnyPath) -> Iterator[AnyPath]:
    """Every image file under `folder`, in the order of their paths; only the names of one folder are in memory."""
    for path in sorted(folder.iterdir(), key=str):
        if path.is_dir() and not path.is_symlink():
            yield from list_images(path)
        elif path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
            yield path


def read_image_folder(folder: AnyPath) -> Iterator[Pair | Dropped]:
    """Every image under `folder`; its id is its path without suffix.

    A first folder named train, validation or test is the split. Elsewhere images of one folder (a patient, a study)
    stay together; those that lie in `folder` itself are each their own group.
    """
    for picture in list_images(folder):
        place = picture.relative_to(folder)
        id = place.with_suffix("").as_posix()
        named = canonical_split(place.parts[0]) if len(place.parts) > 1 else ""
        named = named if named in SPLITS else ""
        inner = place.parts[1:] if named else place.parts
        group = "/".join(inner[:-1]) or id
        split = named or split_of(group)
        try:
            caption = picture.with_suffix(".txt").read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            yield Dropped(id, split, "no caption beside the image", place.name)
        except UnicodeDecodeError:
            yield Dropped(id, split, "caption is not UTF-8", place.with_suffix(".txt").name)
        else:
            yield Pair(id=id, image=picture, caption=caption, split=split, article=group, source=folder.name)
