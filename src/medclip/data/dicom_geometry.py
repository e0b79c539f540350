"""Where slices lie in the patient: stacks of parallel slices, each sorted by position (PS3.3 C.7.6.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from medclip.data.dicom_display import items, numbers
from medclip.errors import MAX_ASPECT_RATIO, MAX_PIXELS

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Plane = tuple[np.ndarray, np.ndarray]
"""A unit normal and the position in mm of a slice's first pixel, each (3,)."""
_MIN_STRETCH = 1.01
"""Less is no shape that anybody sees, but how spacings are rounded."""
_MAX_ANGLE_COSINE = 0.999  # parallel within 2.6 degrees


def plane_of(*datasets: Dataset) -> Plane | None:
    """The plane of a slice, each attribute from the first dataset that holds it; None where it is not whole."""
    orientation, position = (
        next((values for dataset in datasets if (values := numbers(dataset, keyword)) and None not in values), [])
        for keyword in ("ImageOrientationPatient", "ImagePositionPatient")
    )
    if len(orientation) != 6 or len(position) != 3:
        return None
    directions = np.array(orientation, np.float64)
    normal = np.cross(directions[:3], directions[3:])
    length = float(np.linalg.norm(normal))
    return (normal / length, np.array(position, np.float64)) if length > 0.5 else None


def sorted_stacks(planes: Sequence[Plane | None]) -> list[list[int]]:
    """Indices of the slices of each stack of one orientation, by position; the largest stack first.

    Slices without a plane are one stack, in their order.
    """
    stacks: list[tuple[np.ndarray | None, list[tuple[float, int]]]] = []
    for index, plane in enumerate(planes):
        for normal, members in stacks:
            if plane is None and normal is None:
                members.append((0.0, index))
                break
            if plane is not None and normal is not None and plane[0] @ normal > _MAX_ANGLE_COSINE:
                members.append((float(plane[1] @ normal), index))
                break
        else:
            distance = 0.0 if plane is None else float(plane[1] @ plane[0])
            stacks.append((None if plane is None else plane[0], [(distance, index)]))
    ordered = sorted((members for _, members in stacks), key=len, reverse=True)
    return [[index for _, index in sorted(members)] for members in ordered]


def square_size(header: Dataset, width: int, height: int) -> tuple[int, int]:
    """Width and height of an image with pixels as wide as high, of which none is lost.

    The distances of pixels are those of the first attribute that holds two (PS3.3 10.7.1.3), else their ratio.
    """
    keywords = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")
    pairs = (numbers(header, keyword) for keyword in keywords)
    vertical, horizontal = next((pair for pair in pairs if len(pair) == 2 and min(n or 0 for n in pair) > 0), (1, 1))
    ratio = (vertical or 1) / (horizontal or 1)
    if not _MIN_STRETCH <= max(ratio, 1 / ratio) <= MAX_ASPECT_RATIO:
        return width, height
    size = (width, round(height * ratio)) if ratio > 1 else (round(width / ratio), height)
    return size if size[0] * size[1] <= MAX_PIXELS else (width, height)


def middle_frame(header: Dataset, num_frames: int) -> int:
    """The frame in the middle of the largest stack; by number where frames have no position."""
    groups = items(header, "PerFrameFunctionalGroupsSequence")
    if len(groups) != num_frames:
        return num_frames // 2
    shared = [
        item
        for group in items(header, "SharedFunctionalGroupsSequence")[:1]
        for macro in ("PlanePositionSequence", "PlaneOrientationSequence")
        for item in items(group, macro)[:1]
    ]
    planes = []
    for group in groups:
        macros = (items(group, "PlanePositionSequence")[:1], items(group, "PlaneOrientationSequence")[:1])
        planes.append(plane_of(*macros[0], *macros[1], *shared))
    stack = sorted_stacks(planes)[0]
    return stack[len(stack) // 2]
