"""Two towers joined: their weights kept, what was not published fresh."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medclip.model.adapt import join_towers
from medclip.model.checkpoint import Model, load, save
from support.model_folders import assert_same_vectors, dual, single
from support.references import FOLDER


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_towers_are_joined_with_fresh_projections(tmp_path: Path, prefix: str) -> None:
    model = dual("vit", "bert")
    vision, text = single(model, "vision", tmp_path / "v"), single(model, "text", tmp_path / "t", prefix)
    joined = join_towers(vision, text, projection_dim=20, seed=3)
    assert joined.params["visual_projection.weight"].shape == (20, 32)
    assert joined.params["visual_projection.weight"].std() == pytest.approx(32**-0.5, rel=0.1)
    for name, value in model.params.items():
        if "_model." in name:
            np.testing.assert_array_equal(joined.params[name], value)
    assert joined.params["logit_scale"] == pytest.approx(np.log(1 / 0.07), abs=1e-4)
    again = join_towers(vision, text, projection_dim=20, seed=3)
    np.testing.assert_array_equal(again.params["text_projection.weight"], joined.params["text_projection.weight"])


def test_towers_are_taken_out_of_dual_encoders_too(tmp_path: Path) -> None:
    save(dual("dinov2", "bert"), tmp_path / "dual")
    joined, clip = join_towers(FOLDER, tmp_path / "dual", 16), load(FOLDER)
    name = "vision_model.encoder.layers.0.mlp.fc1.weight"
    np.testing.assert_array_equal(joined.params[name], clip.params[name])
    save(joined, tmp_path / "joined")
    assert_same_vectors(joined, load(tmp_path / "joined"))


def test_a_pooler_that_was_not_published_starts_fresh(tmp_path: Path) -> None:
    model = dual("vit", "bert")
    kept = {name: value for name, value in model.params.items() if not name.startswith("text_model.pooler")}
    text = single(Model(kept, model.config, model.tokenizer, {}, model.raw_config), "text", tmp_path / "t", "bert.")
    joined = join_towers(FOLDER, text)
    assert joined.params["text_model.pooler.dense.weight"].std() == pytest.approx(0.02, rel=0.1)
