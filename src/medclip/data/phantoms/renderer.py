"""Draws synthetic radiology images: anatomy as lists of ellipses, each modality with its own physics.

Coordinates run from -1 to 1, x to the image's right and y down. A layout lists shapes, painted in order: "tissue x y
half-width half-height [degrees]"; `*` adds the mirror image, `v5/.2` stacks five, .2 apart, `h5/.2` sets them in a row.
Its last entry is the position of findings (on the patient's left) and how far they vary. Nothing here shows a patient.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
from jaxtyping import Bool, UInt8

IMAGE_SIZE = 128
MODALITIES = ("CT", "T1 MRI", "T2 MRI", "ultrasound", "radiograph", "PET")

# How each tissue shows, one column a modality: attenuation, signal, signal, echo, attenuation, uptake.
# The spleen and cerebellum are drawn as "liver", kidneys and bowel wall as "heart".
TISSUES = {
    "fat": (0.16, 0.92, 0.62, 0.20, 0.90, 0.10),
    "muscle": (0.48, 0.42, 0.26, 0.36, 1.00, 0.28),
    "brain": (0.52, 0.52, 0.48, 0.36, 1.00, 0.48),
    "liver": (0.60, 0.58, 0.36, 0.52, 1.20, 0.36),
    "heart": (0.56, 0.46, 0.40, 0.60, 1.30, 0.55),
    "blood": (0.70, 0.14, 0.16, 0.08, 1.20, 0.22),  # flowing blood leaves no MRI signal
    "fluid": (0.30, 0.10, 0.95, 0.04, 1.00, 0.08),
    "urine": (0.33, 0.10, 0.95, 0.02, 1.10, 0.80),  # the tracer leaves through the bladder
    "lung": (0.07, 0.07, 0.07, 0.14, 0.15, 0.05),
    "air": (0.00, 0.02, 0.02, 0.10, 0.05, 0.00),
    "bone": (1.00, 0.04, 0.04, 0.95, 3.50, 0.12),
    "marrow": (0.80, 0.74, 0.52, 0.70, 3.00, 0.30),
    # What findings are made of; a wall or nodule around each keeps it visible on any background.
    "rim": (0.86, 0.80, 0.95, 1.00, 5.00, 1.20),
    "core": (0.42, 0.22, 0.60, 0.08, 5.00, 1.20),
    "wall": (0.66, 0.60, 0.40, 0.70, 6.00, 0.65),
    "cyst": (0.30, 0.05, 1.00, 0.00, 0.00, 0.00),
    "effusion": (0.30, 0.20, 1.00, 0.01, 6.00, 0.00),
    "nodule": (0.50, 0.50, 0.55, 0.50, 2.50, 0.20),
    "calcium": (1.15, 0.00, 0.00, 1.60, 12.0, 0.00),
    "oedema": (0.30, 0.30, 0.90, 0.30, 1.00, 0.20),
    "clot": (0.90, 1.05, 0.06, 1.05, 1.00, 0.20),  # clotted blood: bright on CT, T1 and echo, dark on T2
}

_AXIS = ((np.arange(IMAGE_SIZE) + 0.5) * 2 / IMAGE_SIZE - 1).astype(np.float32)
_Y, _X = np.meshgrid(_AXIS, _AXIS, indexing="ij")
_APEX = -1.25  # where the ultrasound beams meet, above the image
_DEPTH, _ANGLE = np.hypot(_X, _Y - _APEX), np.arctan2(_X, _Y - _APEX)
_FAN = (_DEPTH > 0.35) & (_DEPTH < 2.2) & (np.abs(_ANGLE) < 0.76)
_RINGS = 0.012 * np.sin(55 * np.hypot(_X, _Y))  # uncalibrated CT detectors leave circles


@dataclass(frozen=True, slots=True)
class Shape:
    """An ellipse of one tissue; `lobes` makes its edge knobbly, `bite` leaves a crescent of it."""

    tissue: str
    x: float
    y: float
    a: float
    b: float
    degrees: float = 0.0
    lobes: float = 0.0
    bite: float = 0.0


def draw(
    layout: str, modality: str, finding: str, side: str, seed: np.random.SeedSequence
) -> UInt8[np.ndarray, "128 128"]:
    """The gray image of a layout from `cases.ANATOMY`.

    Body, finding and noise have separate random streams: one seed gives the same body whatever the finding.
    """
    body, lesion, noise = _pose_shapes(layout, finding, side, seed)
    gray = RENDERERS[modality]([*body, *lesion], noise)
    return (np.clip(gray, 0, 1) * 255).astype(np.uint8)


def finding_mask(layout: str, finding: str, side: str, seed: np.random.SeedSequence) -> Bool[np.ndarray, "128 128"]:
    """Pixels of the finding that `draw` paints; all False for a normal image."""
    mask = np.zeros((IMAGE_SIZE, IMAGE_SIZE), bool)
    for shape in _pose_shapes(layout, finding, side, seed)[1]:
        window, radius = _radius(shape)
        mask[window] |= radius < 1
    return mask


def _pose_shapes(
    layout: str, finding: str, side: str, seed: np.random.SeedSequence
) -> tuple[list[Shape], list[Shape], np.random.Generator]:
    """The posed shapes of a body and of its finding, and the random stream of the noise."""
    streams = [np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, i)) for i in range(3)]
    body, lesion, noise = (np.random.default_rng(stream) for stream in streams)
    shapes, location = _parse_layout(layout)
    pose = _random_pose(body)
    wobble = body.normal(0, (0.008, 0.008, 0.02, 0.02), (len(shapes), 4)).tolist()
    body_shapes = [pose(shape, *amounts) for shape, amounts in zip(shapes, wobble, strict=True)]
    return body_shapes, [pose(shape) for shape in _finding_shapes(finding, side, location, lesion)], noise


@cache
def _parse_layout(layout: str) -> tuple[tuple[Shape, ...], tuple[float, ...]]:
    """A layout's shapes in painting order; position (x, y) of its findings and how far they vary (x, y)."""
    *entries, location = layout.split(";")
    shapes = tuple(shape for entry in entries for shape in _parse_shapes(entry.strip()))
    return shapes, tuple(float(number) for number in location.split()[1:])


def _parse_shapes(entry: str) -> Iterator[Shape]:
    pattern = r"(\w+)(?: ([vh])(\d)/([\d.]+))?(\*?) (.*)"
    match = re.fullmatch(pattern, entry)
    if match is None:
        raise ValueError(f"not a shape of a layout: {entry!r}")
    tissue, direction, count, pitch, mirror, numbers = match.groups()
    first = Shape(tissue, *(float(number) for number in numbers.split()))
    for i in range(int(count or 1)):
        step = float(pitch or 0) * (i - (int(count or 1) - 1) / 2)
        shape = replace(first, x=first.x + step) if direction == "h" else replace(first, y=first.y + step)
        yield shape
        if mirror:
            yield replace(shape, x=-shape.x, degrees=-shape.degrees)


def _random_pose(rng: np.random.Generator) -> Callable[..., Shape]:
    """A random body size, shift and slight turn for all shapes of an image; takes a wobble for each."""
    low, high = (0.92, 0.92, -0.03, -0.03, -5), (1.05, 1.05, 0.03, 0.03, 5)
    wide, tall, shift_x, shift_y, turn = rng.uniform(low, high).tolist()
    c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))

    def pose(shape: Shape, dx: float = 0, dy: float = 0, da: float = 0, db: float = 0) -> Shape:
        x, y = (shape.x + dx) * wide, (shape.y + dy) * tall
        x, y = c * x - s * y + shift_x, s * x + c * y + shift_y
        a, b = shape.a * wide * (1 + da), shape.b * tall * (1 + db)
        return Shape(shape.tissue, x, y, a, b, shape.degrees + turn, shape.lobes, shape.bite)

    return pose


def _finding_shapes(finding: str, side: str, location: tuple[float, ...], rng: np.random.Generator) -> list[Shape]:
    """The finding's shapes, outermost first; the two sides differ only by mirroring."""
    x, y, range_x, range_y = location
    x, y = x + rng.uniform(-range_x, range_x), y + rng.uniform(-range_y, range_y)
    r, stretch, turn = rng.uniform(0.18, 0.23), rng.uniform(0.88, 1.14), rng.uniform(-30, 30)

    def blob(tissue: str, scale: float, lobes: float = 0.0) -> Shape:
        return Shape(tissue, x, y, scale * r * stretch, scale * r / stretch, turn, lobes)

    scatter = rng.uniform(-0.65 * r, 0.65 * r, (4, 2)).tolist()
    grains = [Shape("calcium", x + dx, y + dy, 0.05, 0.05) for dx, dy in scatter]
    shapes = {
        "normal": [],
        "mass": [blob("rim", 1, 0.1), blob("core", 0.55, 0.1)],
        "cyst": [blob("wall", 1), blob("cyst", 0.82)],
        "fluid collection": [
            Shape("wall", x, y, 0.30, 0.40, turn / 3, bite=0.21),
            Shape("effusion", x, y, 0.27, 0.36, turn / 3, bite=0.19),
        ],
        "calcification": [blob("nodule", 1), blob("calcium", 0.45), *grains],
        "haemorrhage": [blob("oedema", 1.1), blob("clot", 0.8, 0.05)],
    }[finding]
    half = -1 if side == "right" else 1  # the patient's left is on the image's right
    return [replace(s, x=half * s.x, degrees=half * s.degrees, bite=half * s.bite) for s in shapes]


def _to_local(shape: Shape, x: float | np.ndarray, y: float | np.ndarray) -> tuple:
    """Numbers or arrays x and y in the shape's own frame, where it is the unit circle."""
    c, s = math.cos(math.radians(shape.degrees)), math.sin(math.radians(shape.degrees))
    dx, dy = x - shape.x, y - shape.y
    return dx * (c / shape.a) + dy * (s / shape.a), dy * (c / shape.b) - dx * (s / shape.b)


def _radius(shape: Shape) -> tuple[tuple[slice, slice], np.ndarray]:
    """The window of pixels around a shape and, in it, the elliptical radius: below 1 is inside."""
    reach = max(shape.a, shape.b) * (1 + 1.7 * shape.lobes) + 2 / IMAGE_SIZE
    edges = [(center + 1 + end * reach) * IMAGE_SIZE / 2 for center in (shape.y, shape.x) for end in (-1, 1)]
    top, bottom, start, stop = (int(min(max(edge, 0), IMAGE_SIZE)) for edge in edges)
    window = slice(top, bottom + 1), slice(start, stop + 1)
    u, v = _to_local(shape, _AXIS[window[1]], _AXIS[window[0]][:, None])
    radius = np.sqrt(u * u + v * v)
    if shape.lobes:
        angle = np.arctan2(v, u) + shape.degrees  # the degrees serve as a random phase
        radius /= 1 + shape.lobes * (np.sin(3 * angle) + 0.7 * np.sin(5 * angle))
    if shape.bite:  # what the same ellipse, moved towards the midline, leaves uncovered
        radius = np.maximum(radius, 2 - np.hypot(u + shape.bite / shape.a, v))
    return window, radius


def _paint_slice(shapes: list[Shape], modality: str) -> np.ndarray:
    """The cut through the body: each shape painted over those before it, its edge softened by a pixel."""
    gray, column = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.float32), MODALITIES.index(modality)
    for shape in shapes:
        window, radius = _radius(shape)
        sharpness = min(shape.a, shape.b) * IMAGE_SIZE / 2
        cover = np.minimum(np.maximum((sharpness + 0.5) - sharpness * radius, 0), 1)
        gray[window] += cover * (TISSUES[shape.tissue][column] - gray[window])
    return gray


def _blur(gray: np.ndarray, sigma: float) -> np.ndarray:
    return _blur_matrix(sigma) @ gray @ _blur_matrix(sigma).T


@cache
def _blur_matrix(sigma: float) -> np.ndarray:
    kernel = np.exp(-0.5 * ((_AXIS[:, None] - _AXIS) * (IMAGE_SIZE / 2 / sigma)) ** 2)
    return kernel / kernel.sum(1, keepdims=True)


def _noise(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((IMAGE_SIZE, IMAGE_SIZE), np.float32)


def _ct(shapes: list[Shape], rng: np.random.Generator) -> np.ndarray:
    """Attenuation in a soft-tissue window, with quantum noise and faint rings."""
    return _blur(_paint_slice(shapes, "CT") + 0.06 * _noise(rng), 0.6) + _RINGS


def _mri(shapes: list[Shape], rng: np.random.Generator, modality: str) -> np.ndarray:
    """Signal under a coil's smooth sensitivity; the magnitude of complex noise makes it Rician."""
    tilt_x, tilt_y, bow = rng.uniform(-0.18, 0.18, 3).tolist()
    signal = _paint_slice(shapes, modality) * (1 + tilt_x * _X + tilt_y * _Y + bow * (_X * _X + _Y * _Y - 0.5))
    return np.hypot(signal + 0.03 * _noise(rng), 0.03 * _noise(rng))


def _ultrasound(shapes: list[Shape], rng: np.random.Generator) -> np.ndarray:
    """Echoes in a fan: interfaces, speckle, attenuation, shadows, enhancement; the root compresses them."""
    echo = _paint_slice(shapes, "ultrasound")
    echo[1:] += 0.5 * np.abs(np.diff(echo, axis=0))
    speckle = np.hypot(_blur(_noise(rng), 0.8), _blur(_noise(rng), 0.8)) * 2  # Rayleigh
    beam = np.exp(-0.28 * (_DEPTH - 0.35))
    for shape in shapes:
        if gain := {"calcium": 0.12, "cyst": 1.3, "urine": 1.1}.get(shape.tissue):  # of the beam behind it
            depth, angle = math.hypot(shape.x, shape.y - _APEX), math.atan2(shape.x, shape.y - _APEX)
            behind = (depth + 0.8 * shape.b < _DEPTH) & (np.abs(_ANGLE - angle) < 0.8 * shape.a / depth)
            beam[behind] = gain
    return np.where(_FAN, 0.95 * np.sqrt(echo * beam * (0.4 + 0.6 * speckle)), 0)


def _radiograph(shapes: list[Shape], rng: np.random.Generator) -> np.ndarray:
    """What X-rays lose on their way through ellipsoids, exposed for the thickest part; dense is white."""
    path, column = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.float32), MODALITIES.index("radiograph")
    for i, shape in enumerate(shapes):
        window, radius = _radius(shape)
        around = [s for s in shapes[:i] if math.hypot(*_to_local(s, shape.x, shape.y)) < 1]
        displaced = TISSUES[around[-1].tissue][column] if around else 0
        thickness = math.sqrt(shape.a * shape.b) * np.sqrt(np.maximum(1 - radius * radius, 0))
        path[window] += (TISSUES[shape.tissue][column] - displaced) * thickness
    exposure = max(math.sqrt(shape.a * shape.b) for shape in shapes)
    film = np.exp(-0.75 * (np.maximum(path, 0) / exposure) ** 1.6)  # the power is the film's own contrast
    return 1 - film + 0.015 * _noise(rng)


def _pet(shapes: list[Shape], rng: np.random.Generator) -> np.ndarray:
    """Tracer uptake, counted and blurred; shown inverted, so that uptake is dark on white."""
    uptake = _paint_slice(shapes, "PET")
    counts = uptake + 0.25 * np.sqrt(uptake + 0.02) * _noise(rng)
    return 1 - 0.95 * _blur(counts, 2.2)


RENDERERS = {
    "CT": _ct,
    "T1 MRI": partial(_mri, modality="T1 MRI"),
    "T2 MRI": partial(_mri, modality="T2 MRI"),
    "ultrasound": _ultrasound,
    "radiograph": _radiograph,
    "PET": _pet,
}
