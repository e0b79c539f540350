"""What the image processor says is what happens to a file: the pixels are those of transformers and open_clip."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from medclip.data.images import decode
from medclip.errors import ImageError, UserError
from medclip.model.checkpoint import load, save
from medclip.model.config import parse_vision
from medclip.model.image_processor import (
    Exact,
    ImageProcessor,
    LongestEdge,
    ShortestEdge,
    map_to_image,
    parse_image_processor,
    preprocess,
    read_image_processor,
    with_side,
)
from support.model_folders import dual_encoder, hybrid_folder, open_clip_folder, vectors
from support.references import FOLDER, random_images

CLIP = parse_image_processor({"size": {"shortest_edge": 32}, "crop_size": {"width": 32, "height": 32}})
SQUEEZE_FILE = {"size": {"height": 32, "width": 32}, "do_center_crop": False}
SQUEEZE = parse_image_processor(SQUEEZE_FILE)
FILES: dict[str, dict[str, Any]] = {
    "clip": {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 28}, "crop_size": 28},
    "clip without sizes": {"image_processor_type": "CLIPImageProcessor"},
    "clip with nulls": {"image_processor_type": "CLIPImageProcessor", "size": {"height": 28, "width": 28},
                        "crop_size": None, "do_center_crop": None, "do_normalize": None, "image_mean": None,
                        "default_to_square": None},
    "vit with nulls": {"image_processor_type": "ViTImageProcessor", "crop_size": None, "do_center_crop": None,
                       "do_convert_rgb": None, "resample": 2},
    "clip of 2021": {"feature_extractor_type": "CLIPFeatureExtractor", "size": 28, "crop_size": 28, "resample": 3},
    "clip, fast": {"image_processor_type": "CLIPImageProcessorFast", "size": 28, "crop_size": [28, 28]},
    "clip, squashed": {"image_processor_type": "CLIPImageProcessor", "size": {"height": 28, "width": 28},
                       "do_center_crop": False},
    "clip, a rectangle cropped": {"image_processor_type": "CLIPImageProcessor", "size": [31, 47], "crop_size": 28},
    "clip, numbers are squares": {"image_processor_type": "CLIPImageProcessor", "size": 30, "crop_size": 28,
                                  "default_to_square": True},
    "a longest edge beside the shortest": {"image_processor_type": "CLIPImageProcessor", "crop_size": 28,
                                           "size": {"shortest_edge": 30, "longest_edge": 41}},
    "chinese clip": {"image_processor_type": "ChineseCLIPImageProcessor", "crop_size": 28, "size": 28},
    "blip": {"image_processor_type": "BlipImageProcessor", "size": 28},
    "blip without sizes": {"image_processor_type": "BlipImageProcessor"},
    "vit": {"image_processor_type": "ViTImageProcessor", "size": {"height": 28, "width": 28}},
    "vit of 2021": {"feature_extractor_type": "ViTFeatureExtractor", "size": 28, "image_mean": [0.4, 0.5, 0.6]},
    "vit without sizes": {"image_processor_type": "ViTImageProcessor"},
    "vit, nearest": {"image_processor_type": "ViTImageProcessor", "size": [32, 32], "resample": 0},
    "vit, scalars": {"image_processor_type": "ViTImageProcessor", "image_mean": 0.25, "image_std": 0.125},
    "deit": {"image_processor_type": "DeiTImageProcessor", "size": {"height": 36, "width": 36}, "crop_size": 28},
    "deit of 2021": {"feature_extractor_type": "DeiTFeatureExtractor", "size": 36, "crop_size": 28, "resample": 3},
    "deit without sizes": {"image_processor_type": "DeiTImageProcessor"},
    "siglip": {"image_processor_type": "SiglipImageProcessor", "size": {"height": 28, "width": 28}},
    "siglip without sizes": {"image_processor_type": "SiglipImageProcessor"},
    "dinov2": {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 32},
               "crop_size": {"height": 28, "width": 28}},
    "rad-dino": {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 28}, "resample": 3,
                 "crop_size": {"height": 28, "width": 28}, "image_mean": [0.53] * 3, "image_std": [0.25] * 3},
    "no normalization": {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 28},
                         "crop_size": {"height": 28, "width": 28}, "do_normalize": False},
    "no rescaling": {"image_processor_type": "CLIPImageProcessor", "do_rescale": False, "image_mean": [120, 110, 100],
                     "image_std": [60, 61, 62]},
    "another factor": {"image_processor_type": "SiglipImageProcessor", "rescale_factor": 1 / 127.5},
    "a crop larger than the image": {"image_processor_type": "CLIPImageProcessor", "do_resize": False,
                                     "crop_size": {"height": 61, "width": 61}},
    "a crop larger than the resize": {"image_processor_type": "BitImageProcessor", "size": 25, "crop_size": 32},
}  # fmt: skip


def pixels(image: Image.Image, processor: ImageProcessor) -> np.ndarray:
    """What a tower gets, (s, s, 3)."""
    return (preprocess(image, processor) / 255 - np.array(processor.mean)) / np.array(processor.std)


def transformers_pixels(image: Image.Image, raw: dict[str, Any]) -> np.ndarray:
    """What the PIL processor of transformers makes of the image under that file, (h, w, 3)."""
    import transformers

    kind = raw.get("image_processor_type") or raw["feature_extractor_type"]
    kind = kind.replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast")
    theirs = getattr(transformers, f"{kind}Pil")(**{n: v for n, v in raw.items() if not n.endswith("_type")})
    return np.asarray(theirs(image, input_data_format="channels_last").pixel_values[0]).transpose(1, 2, 0)


def assert_same_pixels(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=3e-6 * max(1.0, np.abs(theirs).max()))


def random_image(width: int, height: int, gray: bool, seed: int) -> Image.Image:
    shape = (height, width) if gray else (height, width, 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


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


HALF, OPENAI = ((0.5,) * 3, (0.5,) * 3), ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize(
    ("kind", "resize", "resample", "crop", "normalization"),
    [
        ("CLIPImageProcessor", ShortestEdge(224), 3, 224, OPENAI),
        ("CLIPImageProcessorFast", ShortestEdge(224), 3, 224, OPENAI),
        ("CLIPImageProcessorPil", ShortestEdge(224), 3, 224, OPENAI),
        ("CLIPFeatureExtractor", ShortestEdge(224), 3, 224, OPENAI),
        ("BitImageProcessor", ShortestEdge(224), 3, 224, OPENAI),
        ("SiglipImageProcessor", Exact(224, 224), 3, None, HALF),
        ("ViTImageProcessor", Exact(224, 224), 2, None, HALF),
        ("ViTFeatureExtractor", Exact(224, 224), 2, None, HALF),
        ("DeiTImageProcessor", Exact(256, 256), 3, 224, HALF),
        ("BlipImageProcessor", Exact(384, 384), 3, None, OPENAI),
        ("DINOv3ViTImageProcessorFast", Exact(224, 224), 2, None, IMAGENET),
    ],
)
def test_a_silent_file_has_the_defaults_of_its_type(kind, resize, resample, crop, normalization) -> None:
    processor = parse_image_processor({"image_processor_type": kind})
    assert (processor.resize, processor.resample, processor.crop) == (resize, resample, crop)
    np.testing.assert_allclose((processor.mean, processor.std), normalization, rtol=1e-12)
    of_2021 = parse_image_processor({"feature_extractor_type": kind})
    assert of_2021 == processor
    assert "feature_extractor_type" not in of_2021.raw_config


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("image_processor_type", ["EfficientNetImageProcessor", "Siglip2ImageProcessor", 3, ["CLIPImageProcessor"]]),
        ("size", [None, 0, -224, 224.0, NAN, "224", True, 10**9, [224], [224, 224, 3], [0, 224], {},
                  {"shortest_edge": "x"}, {"height": 224}, {"longest_edge": 224}, {"shortest_edge": 0},
                  {"height": 224, "width": NAN},
                  {"max_height": 224, "max_width": 224}, {"height": 224, "width": 224, "depth": 224}]),
        ("crop_size", [None, 0, -1, "224", [224], [0, 0], {"shortest_edge": 224}, {"height": 224}, 10**9, [224, 200]]),
        ("resample", [None, -1, 60, 2.0, "bicubic", True, [3]]),
        ("image_mean", [None, "x", [0.5], [0.5, 0.5], [0.5, 0.5, "x"], [0.5, 0.5, NAN], INF, 10**400, {}, True]),
        ("image_std", [None, 0, [0.5, 0.5, 0.0], [0.5, 0.5, -0.5], NAN, "x", [0.5], 10**400]),
        ("rescale_factor", [None, 0, -1, "x", NAN, [1], 1e-300]),
        ("do_resize", ["yes", 1, [], {}]), ("do_center_crop", ["no", 0]), ("do_normalize", [2]), ("do_rescale", [""]),
        ("do_pad", [True]), ("use_square_size", [True]),
    ],
)  # fmt: skip
def test_a_value_that_is_none_is_refused_with_the_name_of_its_field(field: str, values: list) -> None:
    for value in values:
        with pytest.raises(UserError) as error:
            parse_image_processor({"image_processor_type": "CLIPImageProcessor", field: value}, file="DIR/file.json")
        assert str(error.value).startswith("DIR/file.json: ") and field in str(error.value), value
        assert str(error.value).count("\n") == 0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["height", "width", "x"]), inner),
    max_leaves=4,
)


fields = ("size", "crop_size", "image_mean", "image_std", "resample", "do_resize", "do_center_crop", "do_normalize",
          "rescale_factor", "do_rescale", "default_to_square")  # fmt: skip


@given(st.dictionaries(st.sampled_from(fields), json_values))
def test_whatever_a_file_says_is_a_processor_or_a_sentence(raw: dict) -> None:
    try:
        processor = parse_image_processor(raw)
    except UserError:
        return
    assert 1 <= processor.side <= 10_000
    assert np.isfinite(processor.mean).all() and np.isfinite(1 / np.array(processor.std)).all()


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"image_processor_type": "CLIPImageProcessor", "do_center_crop": False}, "without a center crop"),
        ({"image_processor_type": "SiglipImageProcessor", "size": 224}, "without a center crop"),
        ({"image_processor_type": "ViTImageProcessor", "do_resize": False}, "without a center crop"),
        ({"image_processor_type": "ViTImageProcessor", "size": {"height": 224, "width": 336}}, "only squares"),
        ({"image_processor_type": "CLIPImageProcessor", "crop_size": [224, 336]}, "only squares"),
    ],
)
def test_images_that_are_not_squares_of_one_size_are_refused(raw: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse_image_processor(raw)


def clip_folder(folder: Path) -> Path:
    """A folder of CLIP for images of 32 px without any processor."""
    save(load(FOLDER), folder)
    (folder / "preprocessor_config.json").unlink()
    return folder


def write(folder: Path, name: str, raw: Any) -> None:
    (folder / name).write_text(json.dumps(raw))


def clip_file(side: int) -> dict[str, Any]:
    return {"image_processor_type": "CLIPImageProcessor", "size": side, "crop_size": side}


OTHER = {"image_processor_type": "SiglipImageProcessor", "size": {"height": 32, "width": 32}, "image_mean": [0.1] * 3}


def test_the_nested_processor_of_transformers_5_wins(tmp_path: Path) -> None:
    folder = clip_folder(tmp_path / "model")
    write(
        folder, "preprocessor_config.json", {"image_processor_type": "CLIPImageProcessor", "size": 32, "crop_size": 32}
    )
    write(folder, "processor_config.json", {"processor_class": "CLIPProcessor"})  # of 4.x: it holds no processor
    assert load(folder).image_processor.resize == ShortestEdge(32)
    write(folder, "processor_config.json", {"processor_class": "SiglipProcessor", "image_processor": OTHER})
    assert load(folder).image_processor == parse_image_processor(OTHER)
    (folder / "preprocessor_config.json").unlink()
    save(load(folder), tmp_path / "saved")
    assert load(tmp_path / "saved").image_processor == parse_image_processor(OTHER)


def test_without_any_file_the_familys_published_processor_is_used_and_named(tmp_path: Path, caplog) -> None:
    folder = clip_folder(tmp_path / "clip")
    with caplog.at_level(logging.WARNING, "medclip.model"):
        processor = load(folder).image_processor
    assert "CLIPImageProcessor" in caplog.text and str(folder) in caplog.text
    assert "32 px" in caplog.text
    assert (processor.resize, processor.crop) == (ShortestEdge(32), 32)
    np.testing.assert_allclose(processor.mean, OPENAI[0])


DINOV2 = parse_image_processor({"image_processor_type": "BitImageProcessor", "size": 256, "crop_size": 224,
                                "image_mean": IMAGENET[0], "image_std": IMAGENET[1]})  # fmt: skip


@pytest.mark.parametrize(
    ("family", "wanted"),
    [
        ("siglip_vision_model", parse_image_processor({**OTHER, "image_mean": 0.5})),
        ("vit", parse_image_processor({"image_processor_type": "ViTImageProcessor", "size": 32})),
        ("deit", parse_image_processor({"image_processor_type": "DeiTImageProcessor", "size": 37, "crop_size": 32,
                                        "image_mean": IMAGENET[0], "image_std": IMAGENET[1]})),
        ("dinov2", DINOV2), ("dinov2_with_registers", DINOV2),
        ("dinov3_vit", parse_image_processor({"image_processor_type": "DINOv3ViTImageProcessor"})),
    ],
)  # fmt: skip
def test_each_family_has_its_published_processor(tmp_path: Path, family: str, wanted: ImageProcessor) -> None:
    raw = {"model_type": family, "hidden_size": 32, "num_attention_heads": 4, "image_size": 32, "patch_size": 8}
    vision = parse_vision(raw)
    assert read_image_processor(tmp_path, vision) == wanted


def test_without_any_file_an_unknown_familys_folder_is_refused(tmp_path: Path) -> None:
    vision = load(FOLDER).config.vision
    vision = dataclasses.replace(vision, family=dataclasses.replace(vision.family, image_processor=""))
    with pytest.raises(UserError, match=r"has no preprocessor_config\.json"):
        read_image_processor(tmp_path, vision)


def test_a_file_without_a_type_is_read_as_its_towers_family(tmp_path: Path) -> None:
    model = dual_encoder("vit", "bert")
    write(tmp_path, "preprocessor_config.json", {"size": model.config.vision.image_size})
    processor = read_image_processor(tmp_path, model.config.vision)
    side = model.config.vision.image_size
    assert processor.resize == Exact(side, side) and processor.resample == 2


@pytest.mark.parametrize("raw", ["text", 3, [1], None])
@pytest.mark.parametrize("name", ["preprocessor_config.json", "processor_config.json"])
def test_a_file_that_is_not_an_object_is_named(tmp_path: Path, raw: Any, name: str) -> None:
    folder = clip_folder(tmp_path / "model")
    write(folder, name, raw)
    with pytest.raises(UserError, match=name):
        load(folder)


def test_an_image_that_does_not_fit_the_tower_is_refused_at_load(tmp_path: Path) -> None:
    folder = clip_folder(tmp_path / "model")
    write(
        folder, "preprocessor_config.json", {"image_processor_type": "CLIPImageProcessor", "size": 48, "crop_size": 48}
    )
    with pytest.raises(UserError, match=r"crop_size makes images of 48 px, but the vision tower takes 32 px"):
        load(folder)
    write(folder, "preprocessor_config.json", {**OTHER, "size": [16, 16]})
    with pytest.raises(UserError, match=r"size makes images of 16 px, but the vision tower takes 32 px"):
        load(folder)


def test_the_folder_of_2021_has_clips_processor(tmp_path: Path) -> None:
    model = dual_encoder("clip_vision_model", "bert")
    processor = load(hybrid_folder(model, tmp_path / "2021")).image_processor
    side = model.config.vision.image_size
    assert processor == parse_image_processor(
        {"size": side, "crop_size": side, "feature_extractor_type": "CLIPFeatureExtractor"}
    )


@pytest.mark.parametrize(
    ("raw", "resize", "crop"),
    [
        ({"image_processor_type": "CLIPImageProcessor", "size": 224, "crop_size": 224}, ShortestEdge(336), 336),
        ({"image_processor_type": "CLIPImageProcessor", "size": [224, 224], "do_center_crop": False},
         Exact(336, 336), None),
        ({"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 256}}, ShortestEdge(384), 336),
        ({"image_processor_type": "ViTImageProcessor", "size": 224}, Exact(336, 336), None),
        ({"image_processor_type": "DeiTImageProcessor"}, Exact(384, 384), 336),
        ({"image_processor_type": "CLIPImageProcessor", "do_resize": False}, None, 336),
        ({"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 256, "longest_edge": 512}},
         ShortestEdge(384, 768), 336),
    ],
)  # fmt: skip
def test_another_size_scales_the_resize_by_its_own_rule(raw, resize, crop) -> None:
    larger = with_side(parse_image_processor(raw), 336)
    assert (larger.resize, larger.crop, larger.side) == (resize, crop, 336)
    assert parse_image_processor(larger.raw_config) == larger


@pytest.mark.parity
@pytest.mark.parametrize("raw", FILES.values(), ids=FILES)
def test_what_is_saved_opens_in_transformers_with_the_same_pixels(tmp_path: Path, raw: dict) -> None:
    import transformers

    image = random_image(97, 61, False, 0)
    for processor in (parse_image_processor(raw), with_side(parse_image_processor(raw), 50)):
        write(tmp_path, "preprocessor_config.json", processor.raw_config)
        theirs = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
        assert_same_pixels(pixels(image, processor), theirs(image).pixel_values[0].transpose(1, 2, 0))


@pytest.mark.parity
def test_transformers_takes_the_nested_processor_too(tmp_path: Path) -> None:
    import transformers

    folder = clip_folder(tmp_path / "model")
    write(folder, "preprocessor_config.json", clip_file(32))
    image = random_image(53, 40, False, 0)
    for nested in ({}, {"image_processor": OTHER}):
        write(folder, "processor_config.json", {"processor_class": "CLIPProcessor", **nested})
        theirs = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
        assert_same_pixels(
            pixels(image, load(folder).image_processor), theirs(image).pixel_values[0].transpose(1, 2, 0)
        )


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


def test_a_model_is_the_same_however_its_processor_is_filed(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save(load(FOLDER), folder)
    raw = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    write(folder, "processor_config.json", {"image_processor": raw, "processor_class": "CLIPProcessor"})
    for ours, theirs in zip(vectors(load(folder)), vectors(load(FOLDER)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
