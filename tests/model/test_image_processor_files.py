"""The file of an image processor as a value: its type's defaults, refusals, which file counts, another size."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.errors import UserError
from medclip.model.checkpoint import load, save
from medclip.model.config import parse_vision
from medclip.model.image_processor import (
    Exact,
    ImageProcessor,
    ShortestEdge,
    parse_image_processor,
    read_image_processor,
    with_side,
)
from support.model_folders import dual_encoder, hybrid_folder, vectors
from support.processors import FILES, assert_same_pixels, pixels, random_image
from support.references import FOLDER

HALF, OPENAI = ((0.5,) * 3, (0.5,) * 3), ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = parse_image_processor({"size": {"shortest_edge": 32}, "crop_size": {"width": 32, "height": 32}})


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


def test_a_model_is_the_same_however_its_processor_is_filed(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save(load(FOLDER), folder)
    raw = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    write(folder, "processor_config.json", {"image_processor": raw, "processor_class": "CLIPProcessor"})
    for ours, theirs in zip(vectors(load(folder)), vectors(load(FOLDER)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
