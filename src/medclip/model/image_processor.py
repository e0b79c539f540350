"""The image processor: what a model's folder says happens to an image before its vision tower.

Resize, center crop and normalization as transformers' PIL processors and open_clip's transforms compute them, to the
pixel. Parsed and checked once; then a value. Field names, defaults and rounding: transformers 5 and open_clip 3.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image

from medclip.atomic_io import read_optional
from medclip.errors import MAX_PIXELS, TOO_MANY_PIXELS, ImageError, UserError
from medclip.model.config import MAX_IMAGE_SIDE, VisionConfig

LOG = logging.getLogger("medclip.model")
Size = tuple[int, int]
"""Width and height."""
Channels = tuple[float, ...]
MAX_PATCHES = 64**2  # 1024 px in patches of 16; the memory of attention grows with the square
PROCESSOR_FILE, NESTED_FILE = "preprocessor_config.json", "processor_config.json"

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_IMAGENET = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}
_SQUARE = {"height": 224, "width": 224}
_BASE = {
    "do_resize": True, "size": _SQUARE, "default_to_square": True, "resample": 3, "do_center_crop": False,
    "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": 0.5, "image_std": 0.5,
}  # fmt: skip
_CLIP = {
    **_BASE, "size": {"shortest_edge": 224}, "default_to_square": False, "do_center_crop": True, "crop_size": _SQUARE,
    "image_mean": CLIP_MEAN, "image_std": CLIP_STD,
}  # fmt: skip
# What each type of processor does where its file is silent.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "CLIPImageProcessor": _CLIP,
    "ChineseCLIPImageProcessor": _CLIP,
    "BitImageProcessor": _CLIP,
    "SiglipImageProcessor": {**_BASE, "default_to_square": False},
    "ViTImageProcessor": {**_BASE, "resample": 2},
    "DeiTImageProcessor": {
        **_BASE, "size": {"height": 256, "width": 256}, "do_center_crop": True, "crop_size": _SQUARE,
    },
    "BlipImageProcessor": {
        **_BASE, "size": {"height": 384, "width": 384}, "image_mean": CLIP_MEAN, "image_std": CLIP_STD,
    },
    "DINOv3ViTImageProcessor": {**_BASE, "resample": 2, **_IMAGENET},
}  # fmt: skip
# What the files of a family say where they do not say what its type defaults to.
_PUBLISHED = {
    "BitImageProcessor": {"size": {"shortest_edge": 256}, **_IMAGENET},  # DINOv2
    "DeiTImageProcessor": _IMAGENET,
}
_FLAGS = ("do_resize", "default_to_square", "do_center_crop", "do_rescale", "do_normalize")
_UNSUPPORTED = ("do_pad", "use_square_size")


@dataclass(frozen=True)
class Exact:
    """Resize to this width and height, whatever the image's own."""

    width: int
    height: int


@dataclass(frozen=True)
class ShortestEdge:
    """Resize the shorter side to `edge` and the other in proportion, smaller where that passes `longest`."""

    edge: int
    longest: int | None = None


@dataclass(frozen=True)
class LongestEdge:
    """Resize the longer side to `edge`, the other in proportion (open_clip's resize_mode "longest")."""

    edge: int


@dataclass(frozen=True)
class ImageProcessor:
    """Resize, center crop and normalization of an image, in this order; what comes out is a square."""

    resize: Exact | ShortestEdge | LongestEdge | None
    resample: int
    """PIL's number of the interpolation; 0 is nearest."""
    crop: int | None
    """Side of the square in the middle; None where `resize` makes the square."""
    mean: Channels
    """Of pixels / 255, for each channel."""
    std: Channels
    raw_config: Mapping[str, Any] = field(compare=False, repr=False)
    """What `preprocessor_config.json` says, its type named; open_clip's `preprocess_cfg` in that layout."""
    crop_rule: Literal["transformers", "torchvision"] = "transformers"
    """Who rounds the corner of the crop, and of the padding."""
    fill: int = 0
    """Gray level of what lies outside the image, where the crop is the larger."""

    @property
    def side(self) -> int:
        """Width and height of what comes out."""
        return self.crop or getattr(self.resize, "width", 0)


def read_image_processor(folder: Path, vision: VisionConfig) -> ImageProcessor:
    """The processor of a model folder, checked against its vision tower.

    As in transformers, the `image_processor` of `processor_config.json` wins over `preprocessor_config.json`. Where
    both are absent, the published one of the tower's family is used, with a warning. Raises UserError.
    """
    kind, config = vision.family.image_processor, _read_config(folder)
    if config:
        file, raw = config
        processor = parse_image_processor(raw, kind, str(file))
        check_input(processor, vision, str(file))
        return processor
    if not kind:
        raise UserError(f"{folder} has no {PROCESSOR_FILE}: how images are prepared for its vision tower is not known.")
    processor = parse_image_processor(_PUBLISHED.get(kind, {}), kind)
    if not vision.family.takes_any_size:
        processor = with_side(processor, vision.image_size)
    LOG.warning(
        "%s has no %s: images are prepared by the %s that such towers are published with (%d px).",
        folder, PROCESSOR_FILE, kind, processor.side,
    )  # fmt: skip
    return processor


def check_input(processor: ImageProcessor, vision: VisionConfig, file: str) -> None:
    """Raise UserError where a processor's images do not fit a vision tower."""
    side, name = processor.side, "crop_size" if processor.crop else "size"
    if side < vision.patch_size:
        raise UserError(f"{file}: {name} makes images of {side} px, smaller than a patch ({vision.patch_size} px).")
    if (side // vision.patch_size) ** 2 > MAX_PATCHES:
        raise UserError(
            f"{file}: {name} makes images of {side} px: over {MAX_PATCHES:,} patches of {vision.patch_size} px, "
            "whose attention needs gigabytes for each image."
        )
    if side != vision.image_size and not vision.family.takes_any_size:
        raise UserError(
            f"{file}: {name} makes images of {side} px, but the vision tower takes {vision.image_size} px "
            f"(image_size in config.json): correct {name}."
        )


def parse_image_processor(raw: Any, kind: str = "", file: str = PROCESSOR_FILE) -> ImageProcessor:
    """A processor's config as a value; `kind` is its type where it names none. Raises UserError that names the field.

    A field that is absent has its type's default; null stands for false, not for the default. `size` is {"height",
    "width"}, [height, width], {"shortest_edge"}, {"shortest_edge", "longest_edge"}, or a number: a square or the
    shortest edge, by its type.
    """
    if not isinstance(raw, Mapping):
        raise UserError(f"{file}: the image processor is not an object.")
    kind = _type_name(raw) or kind or "CLIPImageProcessor"
    if kind not in _DEFAULTS:
        raise UserError(f"{file}: image_processor_type {kind[:80]!r} is not supported, only {', '.join(_DEFAULTS)}.")
    fields = {**_DEFAULTS[kind], **raw}
    for name in _UNSUPPORTED:
        if fields.get(name):
            raise UserError(f"{file}: {name} is not supported.")
    for name in _FLAGS:
        fields[name] = False if fields[name] is None else fields[name]
        if not isinstance(fields[name], bool):
            raise UserError(f"{file}: {name} is {fields[name]!r}, not true or false.")
    resize = _resize(fields["size"], fields["default_to_square"], file) if fields["do_resize"] else None
    crop = _crop(fields.get("crop_size"), file) if fields["do_center_crop"] else None
    if not (crop or isinstance(resize, Exact)):
        raise UserError(
            f"{file}: size is {fields['size']!r} without a center crop, so that each image would have another size: "
            "set do_center_crop and crop_size, or size to a height and a width."
        )
    if not crop and isinstance(resize, Exact) and resize.width != resize.height:
        raise UserError(f"{file}: size is {resize.height} x {resize.width}; only squares are supported.")
    if type(fields["resample"]) is not int or fields["resample"] not in list(Image.Resampling):
        known = ", ".join(f"{number.value} ({number.name.lower()})" for number in Image.Resampling)
        raise UserError(f"{file}: resample is {fields['resample']!r}, which is not among {known}.")
    mean, std = _normalization(fields, file)
    saved = {name: value for name, value in raw.items() if name != "feature_extractor_type"}
    return ImageProcessor(resize, fields["resample"], crop, mean, std, {**saved, "image_processor_type": kind})


def square_image_processor(side: int) -> ImageProcessor:
    """The processor of models trained from scratch: the whole image squeezed to a square, values in [-1, 1]."""
    return parse_image_processor(
        {
            "image_processor_type": "CLIPImageProcessor",
            "do_convert_rgb": True,
            "do_resize": True,
            "size": {"height": side, "width": side},
            "resample": 3,
            "do_center_crop": False,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
        }
    )


def with_side(processor: ImageProcessor, side: int) -> ImageProcessor:
    """The processor whose images are `side` wide: its resize is scaled, so that the crop takes the same share."""

    def scale(length: int) -> int:
        return max(1, round(length * side / processor.side))

    match processor.resize:
        case Exact(width, height):
            resize = Exact(scale(width), scale(height))
            size = {"height": resize.height, "width": resize.width}
        case ShortestEdge(edge, None):
            resize = ShortestEdge(scale(edge))
            size = {"shortest_edge": resize.edge}
        case ShortestEdge(edge, int(longest)):
            resize = ShortestEdge(scale(edge), scale(longest))
            size = {"shortest_edge": resize.edge, "longest_edge": resize.longest}
        case LongestEdge(edge):
            resize, size = LongestEdge(scale(edge)), None
        case _:
            resize, size = None, None
    raw, crop = dict(processor.raw_config), side if processor.crop else None
    if "image_processor_type" in raw:  # open_clip's config has no sizes of its own
        raw |= {"size": size} if size else {}
        raw |= {"crop_size": {"height": side, "width": side}} if crop else {}
    return dataclasses.replace(processor, resize=resize, crop=crop, raw_config=raw)


def preprocess(image: Image.Image, processor: ImageProcessor) -> UInt8[np.ndarray, "s s 3"]:
    """Resize and crop an image of mode L or RGB; normalization is left to the device.

    Raises ImageError where the resized image is too large.
    """
    size, (left, top) = _geometry(image.size, processor)
    if size[0] * size[1] > MAX_PIXELS:  # a line, whose shorter side becomes the model's
        raise ImageError(TOO_MANY_PIXELS)
    if processor.resize:
        image = image.resize(size, Image.Resampling(processor.resample))
    if processor.crop:
        fill = processor.fill if image.mode == "L" else (processor.fill,) * 3
        crop = Image.new(image.mode, (processor.crop, processor.crop), fill)
        crop.paste(image, (-left, -top))
        image = crop
    return np.asarray(image.convert("RGB"))  # last: resizing one channel gives what resizing three equal ones gives


def map_to_image(values: Float[np.ndarray, "s s"], size: Size, processor: ImageProcessor) -> Float32[np.ndarray, "h w"]:
    """Lay values over the pixels that `preprocess` gives back over the image of `size`; 0 where it crops."""
    (width, height), (left, top) = _geometry(size, processor)
    resized = np.zeros((height, width), np.float32)
    x, y = slice(max(left, 0), min(left + len(values), width)), slice(max(top, 0), min(top + len(values), height))
    resized[y, x] = values[y.start - top : y.stop - top, x.start - left : x.stop - left]
    return np.asarray(Image.fromarray(resized).resize(size, Image.Resampling.BILINEAR))


def _geometry(size: Size, processor: ImageProcessor) -> tuple[Size, tuple[int, int]]:
    """The size that an image of `size` is resized to, and the left and top of the crop; negative where it is larger."""
    width, height = _resized_size(size, processor.resize)
    if not processor.crop:
        return (width, height), (0, 0)
    margins = width - processor.crop, height - processor.crop
    if processor.crop_rule == "transformers":
        return (width, height), (margins[0] // 2, margins[1] // 2)
    left, top = (round(margin / 2) if margin > 0 else -(-margin // 2) for margin in margins)  # halves to even
    return (width, height), (left, top)


def _resized_size(size: Size, resize: Exact | ShortestEdge | LongestEdge | None) -> Size:
    """Truncated and rounded as the libraries do, in their order of operations: the crop shifts with each pixel."""
    short, long = min(size), max(size)
    match resize:
        case None:
            return size
        case Exact(width, height):
            return width, height
        case ShortestEdge(edge, int(longest)) if long / short * edge > longest:
            exact = longest * short / long
            new_short, new_long = round(exact), int(exact * long / short)
            if new_short == short:
                return size
        case ShortestEdge(edge):
            new_short, new_long = edge, int(edge * long / short)
        case LongestEdge(edge):
            ratio = long / edge
            new_short, new_long = round(short / ratio), round(long / ratio)
    new_short, new_long = max(new_short, 1), max(new_long, 1)
    return (new_short, new_long) if size[0] <= size[1] else (new_long, new_short)


def _read_config(folder: Path) -> tuple[Path, Any] | None:
    """A folder's processor config and the file that holds it."""
    nested, plain = folder / NESTED_FILE, folder / PROCESSOR_FILE
    processor = read_optional(nested, "a model folder").get("image_processor")
    if processor is not None:  # files of transformers 4 lack it
        return nested, processor
    return (plain, read_optional(plain, "a model folder")) if os.path.lexists(plain) else None


def _type_name(raw: Mapping[str, Any]) -> str:
    """The type of processor, without the names of its implementations; those of 2021 are feature extractors."""
    name = raw.get("image_processor_type") or raw.get("feature_extractor_type") or ""
    return str(name).replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast").removesuffix("Pil")


def _is_side(value: Any) -> bool:
    return type(value) is int and 1 <= value <= MAX_IMAGE_SIDE


def _resize(size: Any, default_to_square: bool, file: str) -> Exact | ShortestEdge:
    sides = _sides(size)
    match sides:
        case {"height": height, "width": width, **rest} if not rest:
            return Exact(width, height)
        case {"shortest_edge": edge, **rest} if not rest:
            return ShortestEdge(edge)
        case {"shortest_edge": edge, "longest_edge": longest, **rest} if not rest:
            return ShortestEdge(edge, longest)
        case int(edge):
            return Exact(edge, edge) if default_to_square else ShortestEdge(edge)
    raise UserError(
        f"{file}: size is {size!r}; a height and a width, a shortest_edge, or that with a longest_edge was expected, "
        f"each from 1 to {MAX_IMAGE_SIDE} px."
    )


def _crop(size: Any, file: str) -> int:
    match _sides(size):
        case int(side):
            return side
        case {"height": height, "width": width, **rest} if not rest:
            if height != width:
                raise UserError(f"{file}: crop_size is {height} x {width}; only squares are supported.")
            return height
    raise UserError(f"{file}: crop_size is {size!r}; a height and a width from 1 to {MAX_IMAGE_SIDE} px were expected.")


def _sides(size: Any) -> int | dict[str, int] | None:
    """A size with its sides checked and a list (height, width) named; None where it is not one."""
    if isinstance(size, list | tuple) and len(size) == 2:
        size = dict(zip(("height", "width"), size, strict=True))
    if isinstance(size, Mapping):
        sides = {name: side for name, side in size.items() if side is not None}
        return sides if all(map(_is_side, sides.values())) else None
    return size if isinstance(size, int) and _is_side(size) else None


def _normalization(fields: Mapping[str, Any], file: str) -> tuple[Channels, Channels]:
    """Mean and standard deviation of pixels / 255: the file's are those of pixels * rescale_factor."""
    factor = fields["rescale_factor"] if fields["do_rescale"] else 1
    mean, std = (0.0,) * 3, (1.0,) * 3
    if not _is_number(factor) or factor <= 0:
        raise UserError(f"{file}: rescale_factor is {factor!r}, not a number above 0.")
    if fields["do_normalize"]:
        mean, std = (_channels(name, fields[name], file) for name in ("image_mean", "image_std"))
    mean, std = (tuple(x / (255 * factor) for x in channels) for channels in (mean, std))
    if not (all(0 < x < 1e9 for x in std) and all(abs(x) < 1e9 for x in mean)):
        raise UserError(f"{file}: image_mean, image_std and rescale_factor do not normalize pixels.")
    return mean, std


def _channels(name: str, value: Any, file: str) -> Channels:
    values = tuple(value) if isinstance(value, list | tuple) else (value,) * 3
    if len(values) != 3 or not all(map(_is_number, values)) or (name == "image_std" and min(values) <= 0):
        sign = " above 0" if name == "image_std" else ""
        raise UserError(f"{file}: {name} is {value!r}, not a number{sign} for each of 3 channels.")
    return tuple(map(float, values))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e9 < value < 1e9
