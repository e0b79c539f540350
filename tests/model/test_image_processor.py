"""What the image processor says is what happens to a file: the pixels are those of transformers and open_clip."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from medclip.data.images import decode
from medclip.errors import ImageError
from medclip.model.checkpoint import load
from medclip.model.image_processor import (
    ImageProcessor,
    LongestEdge,
    map_to_image,
    parse_image_processor,
    preprocess,
    with_side,
)
from support.model_folders import open_clip_folder
from support.processors import FILES, assert_same_pixels, pixels, random_image, transformers_pixels
from support.references import FOLDER, random_images

CLIP = parse_image_processor({"size": {"shortest_edge": 32}, "crop_size": {"width": 32, "height": 32}})
SQUEEZE_FILE = {"size": {"height": 32, "width": 32}, "do_center_crop": False}
SQUEEZE = parse_image_processor(SQUEEZE_FILE)


@pytest.mark.parity
@pytest.mark.parametrize("raw", FILES.values(), ids=FILES)
def test_pixels_are_those_of_transformers(raw: dict) -> None:
    processor = parse_image_processor(raw)
    for width, height in [(25, 25), (53, 26), (30, 75), (97, 161), (300, 211), (1, 40), (401, 640)]:
        image = random_image(width, height, False, width)
        assert_same_pixels(pixels(image, processor), transformers_pixels(image, raw))


sides = st.integers(1, 90)
sizes = st.one_of(
    st.builds(lambda h, w: {"height": h, "width": w}, sides, sides),
    st.builds(lambda h, w: [h, w], sides, sides),
    st.builds(lambda n: {"shortest_edge": n}, sides),
    st.builds(lambda n, m: {"shortest_edge": n, "longest_edge": n + m}, sides, sides),
    sides,
)
raw_processors = st.fixed_dictionaries(
    {
        "image_processor_type": st.sampled_from(
            ["CLIPImageProcessor", "BitImageProcessor", "DeiTImageProcessor", "SiglipImageProcessor"]
        ),
        "size": sizes,
        "crop_size": st.one_of(sides, st.builds(lambda n: {"height": n, "width": n}, sides)),
        "do_center_crop": st.just(True),
        "resample": st.integers(0, 5),
    },
    optional={"do_resize": st.booleans(), "do_normalize": st.booleans(), "default_to_square": st.booleans()},
)


@pytest.mark.parity
@settings(max_examples=300, deadline=None)
@given(raw_processors, st.integers(1, 150), st.integers(1, 150), st.integers(0, 99))
def test_any_processor_and_image_give_the_pixels_of_transformers(raw: dict, width: int, height: int, seed: int) -> None:
    image = random_image(width, height, False, seed)
    try:
        theirs = transformers_pixels(image, raw)
    except ValueError:  # PIL refuses a side of 0 px, where ours is 1
        return
    assert_same_pixels(pixels(image, parse_image_processor(raw)), theirs)


@pytest.mark.parity
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(1, 70),
    st.fixed_dictionaries(
        {},
        optional={
            "resize_mode": st.sampled_from(["shortest", "longest", "squash"]),
            "interpolation": st.sampled_from(["bicubic", "bilinear", "random"]),
            "fill_color": st.integers(0, 255),
            "mean": st.just([0.4, 0.5, 0.6]),
            "std": st.just([0.2, 0.25, 0.3]),
        },
    ),
    st.integers(1, 150),
    st.integers(1, 150),
    st.booleans(),
)
def test_any_processor_and_image_give_the_pixels_of_open_clip(
    open_clip_processor, side: int, raw: dict, width: int, height: int, gray: bool
) -> None:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    image = random_image(width, height, gray, width + height)
    try:
        theirs = image_transform_v2(PreprocessCfg(size=side, **raw), is_train=False)(image).numpy().transpose(1, 2, 0)
    except ValueError:  # PIL refuses a side of 0 px, where ours is 1
        return
    assert_same_pixels(pixels(image, open_clip_processor(raw, side)), theirs)


@pytest.fixture(scope="module")
def open_clip_processor(tmp_path_factory):
    """The processor of an open_clip folder with that `preprocess_cfg`, made to another size."""
    folder = open_clip_folder(load(FOLDER), tmp_path_factory.mktemp("open_clip") / "model")
    config = json.loads((folder / "open_clip_config.json").read_text())

    def read(raw: dict[str, Any], side: int) -> ImageProcessor:
        (folder / "open_clip_config.json").write_text(json.dumps(config | {"preprocess_cfg": raw}))
        return with_side(load(folder).image_processor, side)

    return read


def test_open_clip_rounds_the_crop_to_even_and_transformers_down(open_clip_processor) -> None:
    columns = np.tile(np.arange(35, dtype=np.uint8), (32, 1))  # 3 columns too many: 1.5 on each side
    for processor, first in ((open_clip_processor({}, 32), 2), (CLIP, 1)):
        assert preprocess(Image.fromarray(columns), processor)[0, 0, 0] == first
    columns = np.tile(np.arange(33, dtype=np.uint8), (32, 1))  # 0.5 on each side
    for processor in (open_clip_processor({}, 32), CLIP):
        assert preprocess(Image.fromarray(columns), processor)[0, 0, 0] == 0


def test_open_clips_longest_shows_everything_on_its_fill_color(open_clip_processor) -> None:
    processor = open_clip_processor({"resize_mode": "longest", "fill_color": 77}, 32)
    assert processor.resize == LongestEdge(32)
    for mode in ("L", "RGB"):
        square = preprocess(Image.new(mode, (64, 31), "white"), processor)
        assert (square[:8] == 77).all() and (square[8:24] == 255).all() and (square[24:] == 77).all()


@pytest.mark.parametrize(
    ("size", "edge", "wanted"),
    [
        ((500, 375), 224, (298, 224)),  # 298.67
        ((1000, 999), 224, (224, 224)),
        ((49, 7), 3, (21, 3)),  # 49 * (3 / 7) is 20.999… in floats, 3 * 49 / 7 is 21
        ((3, 65000), 2, (2, 43333)),
    ],
)
def test_the_longer_side_is_truncated_after_one_division(size, edge, wanted) -> None:
    processor = parse_image_processor({"size": {"shortest_edge": edge}, "crop_size": edge, "resample": 0})
    image = Image.fromarray(np.arange(size[0] * size[1], dtype=np.int64).reshape(size[::-1]).astype(np.uint8))
    whole = image.resize(wanted, Image.Resampling.NEAREST)
    left, top = ((n - edge) // 2 for n in wanted)
    expected = np.asarray(whole)[top : top + edge, left : left + edge]
    assert np.array_equal(preprocess(image, processor)[..., 0], expected)


def test_the_interpolation_is_the_files_and_nearest_is_one() -> None:
    image = Image.fromarray(random_images(25, 1)[1])
    for number in Image.Resampling:  # NEAREST is 0
        resized = preprocess(image, parse_image_processor({**SQUEEZE_FILE, "resample": int(number)}))
        assert np.array_equal(resized, np.asarray(image.resize((32, 32), number).convert("RGB")))


def test_the_crop_takes_the_middle() -> None:
    thirds = np.repeat(np.array([0, 128, 255], np.uint8), 32)
    middle = preprocess(Image.fromarray(np.tile(thirds, (32, 1))), CLIP)
    assert middle.shape == (32, 32, 3)
    assert (middle == 128).all()


def test_the_squeeze_shows_everything() -> None:
    whole = preprocess(Image.fromarray(np.tile(np.linspace(0, 255, 128).astype(np.uint8), (64, 1))), SQUEEZE)
    assert whole.shape == (32, 32, 3)
    assert whole.dtype == np.uint8
    assert whole[:, 0].max() < 8  # the first and last columns stand for 1/32 of the gradient
    assert whole[:, -1].min() > 247


@given(st.integers(1, 100), st.integers(1, 100), st.sampled_from([CLIP, SQUEEZE]))
def test_every_image_fits_the_square(width, height, processor) -> None:
    assert preprocess(Image.new("L", (width, height)), processor).shape == (32, 32, 3)


@given(st.integers(1, 100), st.integers(1, 100), raw_processors)
def test_values_laid_back_over_the_image_lie_where_its_pixels_came_from(width, height, raw) -> None:
    processor = parse_image_processor({**raw, "resample": 2})
    back = map_to_image(np.ones((processor.side,) * 2, np.float32), (width, height), processor)
    assert back.shape == (height, width)
    assert back.min() >= 0 and 0 < back.max() <= 1 + 1e-6


@given(st.integers(1, 100), st.integers(1, 100), st.integers(0, 2**32 - 1), st.sampled_from([CLIP, SQUEEZE]))
def test_gray_fitted_in_one_channel_is_what_three_channels_give(width, height, seed, processor) -> None:
    gray = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    colored = Image.fromarray(np.stack([gray, gray, 255 - gray], axis=2))  # so that it is resized in three channels
    one, three = (preprocess(image, processor) for image in (Image.fromarray(gray), colored))
    for channel in range(3):
        assert np.array_equal(one[..., channel], three[..., 0])


def test_a_line_that_would_become_huge_is_refused() -> None:
    line = Image.new("L", (65_500, 1))
    with pytest.raises(ImageError, match=r"^image over 100 million pixels$"):
        preprocess(line, parse_image_processor({"size": {"shortest_edge": 224}}))
    assert preprocess(line, SQUEEZE).shape == (32, 32, 3)


@pytest.mark.parity
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1", "I;16"])
def test_files_of_every_kind_reach_the_tower_as_transformers_makes_them(tmp_path: Path, mode: str) -> None:
    colors = random_image(83, 61, False, 0)
    image = colors.convert("RGB" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(colors.convert("L")).astype(np.uint16) * 257)
    image.save(tmp_path / "image.png")
    decoded = decode(tmp_path / "image.png")
    for raw in FILES.values():
        theirs = transformers_pixels(decoded.convert("RGB"), raw)
        assert_same_pixels(pixels(decoded, parse_image_processor(raw)), theirs)
