"""A tower that interpolates its positions trains at the size of its processor, and keeps its own grid."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medclip.model.checkpoint import load, save
from medclip.model.image_processor import ShortestEdge, parse_image_processor
from medclip.saliency import saliency_map
from medclip.training.loop import train
from support.material import draw_image
from support.model_folders import dual_encoder

pytestmark = pytest.mark.slow  # each of these compiles a step of its own
POSITIONS = "vision_model.embeddings.position_embeddings"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """DINOv2 as the Hub has it, smaller: 4 x 4 positions of 8 px, and a processor that crops 24 of 27."""
    raw = {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 27},
           "crop_size": {"height": 24, "width": 24}}  # fmt: skip
    model = dataclasses.replace(dual_encoder("dinov2", "bert"), image_processor=parse_image_processor(raw))
    folder = tmp_path_factory.mktemp("dinov2") / "model"
    save(model, folder)
    return folder


@pytest.mark.parametrize(
    ("fields", "side", "edge", "moves"),
    [
        ({}, 24, 27, True),
        ({"patch_dropout": 0.5, "gradient_checkpointing": True}, 24, 27, True),
        ({"image_size": 48, "patch_dropout": 0.25}, 48, 54, True),
        ({"freeze": ("vision_model.*",)}, 24, 27, False),
    ],
)
def test_dinov2_is_trained_as_the_hub_has_it(data, train_config, folder, tmp_path, fields, side, edge, moves) -> None:
    config = dataclasses.replace(train_config, preset=None, init=str(folder), steps=2, lr=1e-2, **fields)
    train(data, tmp_path / "run", config)
    before, after = load(folder), load(tmp_path / "run")
    assert (after.image_processor.resize, after.image_processor.side) == (ShortestEdge(edge), side)
    assert after.config == before.config and after.config.vision.image_size == 32
    assert np.array_equal(after.params[POSITIONS], before.params[POSITIONS]) != moves
    image = Image.fromarray(np.asarray(draw_image(3)))
    assert saliency_map(after, image, "CT").shape == (image.height, image.width)
