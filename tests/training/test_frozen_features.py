"""A frozen tower runs once for each image and caption: for all steps, all evaluations and all later runs."""

import dataclasses

import numpy as np
import pytest

from medclip.data.dataset import Split
from medclip.encode.encoder import jax_backend, run_in_batches, split_pixels
from medclip.errors import UserError
from medclip.training import frozen_features
from medclip.training.config import resolve
from medclip.training.frozen_features import frozen_views
from medclip.training.loop import train
from training.test_loop import Killed, assert_same_run, killer, records

FROZEN = ("vision_model.*", "text_model.*")


@pytest.fixture
def only_before(monkeypatch):
    """Evaluations that may run no tower."""

    def never(*arguments):
        raise AssertionError("a frozen tower ran in an evaluation")

    monkeypatch.setattr("medclip.training.validation.embed_pixels", never)
    monkeypatch.setattr("medclip.training.validation.embed_captions", never)


@pytest.mark.slow
def test_frozen_towers_run_once_for_all_evaluations_and_runs(
    data, train_config, tmp_path, cache, tower_runs, only_before
):
    frozen = dataclasses.replace(train_config, freeze=FROZEN, hard_negatives=(), num_evals=4)
    train(data, tmp_path / "cold", frozen)
    assert tower_runs["images"] == 25  # the 12 of validation are among those of training
    before = dict(tower_runs)
    train(data, tmp_path / "warm", frozen)
    assert tower_runs == before
    train(data, tmp_path / "without", frozen, cache=False)
    assert tower_runs["images"] == 25 + 25 + 12
    assert_same_run(tmp_path / "warm", tmp_path / "cold")
    assert_same_run(tmp_path / "without", tmp_path / "cold")


def test_views_are_the_tower_on_augmented_images_and_are_kept(model, data, train_config, cache, monkeypatch):
    split = Split(data, "train", 6)
    config = resolve(dataclasses.replace(train_config, batch_size=4, cached_views=3), 6)
    views = frozen_views(jax_backend(model), split, config)
    assert views.shape == (6, 3, model.config.vision.hidden_size)
    assert len(np.unique(views.reshape(18, -1), axis=0)) == 18
    plain = np.stack([split_pixels(split, row, model.image_processor) for row in range(6)])
    unchanged = dataclasses.replace(config, min_crop_scale=1.0, color_jitter=0.0)
    same = frozen_views(jax_backend(model), split, unchanged)
    np.testing.assert_allclose(same, np.repeat(jax_backend(model).image_features(plain)[:, None], 3, axis=1), atol=1e-5)
    other = frozen_views(jax_backend(model), split, dataclasses.replace(config, seed=1))
    assert not np.isclose(other, views).all(axis=2).any()

    few = Split(data, "train", 2)
    assert np.array_equal(frozen_views(jax_backend(model, True), few, config), views[:2])
    assert np.array_equal(frozen_views(jax_backend(model, True), split, config), views)
    batches = []
    monkeypatch.setattr(frozen_features, "run_in_batches", lambda *a, **k: batches.append(a) or run_in_batches(*a, **k))
    assert np.array_equal(frozen_views(jax_backend(model, True), split, config), views)
    assert batches == []


@pytest.mark.slow
def test_a_run_draws_among_the_views_and_resumes_bit_for_bit(data, train_config, tmp_path, cache):
    config = dataclasses.replace(train_config, freeze=FROZEN, hard_negatives=(), cached_views=2)
    train(data, tmp_path / "whole", config)
    with pytest.raises(Killed):
        train(data, tmp_path / "killed", config, callbacks=[killer(3)])
    train(data, tmp_path / "killed", config, resume=True)
    assert_same_run(tmp_path / "killed", tmp_path / "whole")
    train(data, tmp_path / "one", dataclasses.replace(config, cached_views=1))
    assert records(tmp_path / "one") != records(tmp_path / "whole")


def test_views_without_a_frozen_vision_tower_are_refused(data, train_config, tmp_path):
    config = dataclasses.replace(train_config, freeze=("text_model.*",), cached_views=2)
    with pytest.raises(UserError, match="--cached-views are of a frozen vision tower"):
        train(data, tmp_path / "run", config)
