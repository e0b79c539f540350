"""A frozen tower runs once for each image and caption: for all steps, all evaluations and all later runs."""

import dataclasses

import numpy as np
import pytest

from medclip.data.dataset import Split
from medclip.encode.encoder import jax_backend, run_in_batches, split_pixels
from medclip.errors import UserError
from medclip.model.config import PRESETS
from medclip.training import frozen_features, validation
from medclip.training.config import resolve
from medclip.training.frozen_features import frozen_views
from medclip.training.loop import train
from training.test_loop import Killed, assert_same_run, killer, records

FROZEN = ("vision_model.*", "text_model.*")


@pytest.fixture
def only_before(monkeypatch):
    """Evaluations that may run no tower; the run's end may, for first words of captions."""
    embed_captions, embed_excerpts = validation.embed_captions, validation.embed_excerpts

    def never(*arguments):
        raise AssertionError("a frozen tower ran in an evaluation")

    monkeypatch.setattr("medclip.training.validation.embed_pixels", never)
    monkeypatch.setattr("medclip.training.validation.embed_captions", never)

    def at_the_end(*arguments):
        with monkeypatch.context() as allowed:
            allowed.setattr("medclip.training.validation.embed_captions", embed_captions)
            return embed_excerpts(*arguments)

    monkeypatch.setattr("medclip.training.validation.embed_excerpts", at_the_end)


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


def all_views(*arguments):
    """Every view of every image: (n, v, …)."""
    views, num_views = frozen_views(*arguments), arguments[2].cached_views
    numbers = np.tile(np.arange(num_views, dtype=np.uint32), (len(views), 1))
    return views.draw(np.repeat(np.arange(len(views))[:, None], num_views, axis=1), numbers)


@pytest.mark.slow
def test_views_are_the_tower_on_augmented_images_and_are_kept(model, data, train_config, cache, monkeypatch):
    split, scales = Split(data, "train", 6), dict.fromkeys(model.params, 0.0)
    config = resolve(dataclasses.replace(train_config, batch_size=4, cached_views=3), 6)
    views = all_views(jax_backend(model), split, config, scales)
    assert views.shape == (6, 3, model.config.vision.hidden_size)
    assert len(np.unique(views.reshape(18, -1), axis=0)) == 18
    plain = np.stack([split_pixels(split, row, model.image_processor) for row in range(6)])
    unchanged = dataclasses.replace(config, min_crop_scale=1.0, color_jitter=0.0)
    same = all_views(jax_backend(model), split, unchanged, scales)
    np.testing.assert_allclose(same, np.repeat(jax_backend(model).image_features(plain)[:, None], 3, axis=1), atol=1e-5)
    other = all_views(jax_backend(model), split, dataclasses.replace(config, seed=1), scales)
    assert not np.isclose(other, views).all(axis=2).any()

    few = Split(data, "train", 2)
    assert np.array_equal(all_views(jax_backend(model, True), few, config, scales), views[:2])
    assert np.array_equal(all_views(jax_backend(model, True), split, config, scales), views)
    batches = []
    monkeypatch.setattr(frozen_features, "run_in_batches", lambda *a, **k: batches.append(a) or run_in_batches(*a, **k))
    assert np.array_equal(all_views(jax_backend(model, True), split, config, scales), views)
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


@pytest.fixture
def half_frozen(train_config, monkeypatch):
    """A tower of two layers whose first is frozen, trained on images as they are."""
    monkeypatch.setitem(PRESETS, "deep", PRESETS["test"]._replace(vision_layers=2))
    freeze = tuple(f"vision_model.{name}.*" for name in ("embeddings", "pre_layrnorm", "encoder.layers.0"))
    return dataclasses.replace(
        train_config, preset="deep", freeze=freeze, hard_negatives=(), min_crop_scale=1.0, color_jitter=0.0
    )


@pytest.mark.slow
def test_frozen_first_layers_run_once_and_training_is_the_same(data, half_frozen, tmp_path, cache, monkeypatch):
    train(data, tmp_path / "plain", half_frozen)
    monkeypatch.setattr("medclip.training.validation.embed_pixels", None)  # runs the whole tower
    cached = dataclasses.replace(half_frozen, cached_views=1)
    train(data, tmp_path / "cached", cached)
    for own, plain in zip(records(tmp_path / "cached"), records(tmp_path / "plain"), strict=True):
        assert own == {name: pytest.approx(value, rel=1e-4) for name, value in plain.items()}

    monkeypatch.setattr(frozen_features, "run_in_batches", None)  # all is on the disk
    with pytest.raises(Killed):
        train(data, tmp_path / "killed", cached, callbacks=[killer(3)])
    train(data, tmp_path / "killed", cached, resume=True)
    assert_same_run(tmp_path / "killed", tmp_path / "cached")
    train(data, tmp_path / "dropped", dataclasses.replace(cached, patch_dropout=0.5))
    assert records(tmp_path / "dropped")[1]["loss"] != records(tmp_path / "cached")[1]["loss"]


@pytest.mark.slow
def test_views_that_have_no_room_in_the_cache_are_refused(data, half_frozen, tmp_path, cache, monkeypatch):
    monkeypatch.setenv("MEDCLIP_FEATURE_CACHE_GB", "0.00009")
    config = dataclasses.replace(half_frozen, cached_views=3)
    with pytest.raises(UserError, match="CACHE_GB, now 9e-05"):  # 75 views of 5 tokens of 64 numbers
        train(data, tmp_path / "run", config)
    train(data, tmp_path / "in-memory", config, cache=False)


def test_views_without_frozen_layers_are_refused(data, train_config, tmp_path):
    for name in ("text_model", "vision_model.embeddings"):
        config = dataclasses.replace(train_config, freeze=(f"{name}.*",), cached_views=2)
        with pytest.raises(UserError, match="--cached-views are of frozen layers"):
            train(data, tmp_path / name, config)


@pytest.mark.parametrize("option", ["patch_dropout", "rotation"])
def test_an_option_that_changes_nothing_of_a_frozen_towers_images_is_refused(data, train_config, tmp_path, option):
    config = dataclasses.replace(train_config, freeze=("vision_model.*",), **{option: 0.5})
    with pytest.raises(UserError, match=f"--{option.replace('_', '-')} .* frozen"):
        train(data, tmp_path / "run", config)
    assert not (tmp_path / "run").exists()
