"""Which tensors learn at which rate, which decay, and what is trained beside the model's own."""

import dataclasses

import jax
import numpy as np
import pytest

from medclip.errors import UserError
from medclip.model.checkpoint import load
from medclip.model.config import parse_vision
from medclip.model.families import VISION
from medclip.model.open_clip.to_open_clip import to_open_clip
from medclip.training.config import TrainConfig, resolve
from medclip.training.optim import initial_params, is_frozen, lr_scales, make_optimizer
from support.references import FOLDER
from training.test_step import CONFIG, MICRO, config_of


def test_rates_follow_towers_layers_and_names():
    settings = TrainConfig(lr=1e-3, vision_lr=1e-4, layerwise_lr_decay=0.5, freeze=("text_model.embeddings.*",))
    config = resolve(settings, 1000)
    scales = lr_scales(MICRO.params, CONFIG, config)
    assert scales["visual_projection.weight"] == scales["logit_scale"] == 1
    assert scales["vision_model.post_layernorm.weight"] == pytest.approx(0.1)
    assert scales["vision_model.encoder.layers.0.mlp.fc1.weight"] == pytest.approx(0.05)
    assert scales["vision_model.embeddings.class_embedding"] == pytest.approx(0.025)
    assert scales["text_model.final_layer_norm.bias"] == 1
    assert scales["text_model.encoder.layers.0.mlp.fc1.weight"] == 0.5
    assert scales["text_model.embeddings.token_embedding.weight"] == 0
    with pytest.raises(UserError, match="names no tensor"):
        lr_scales(MICRO.params, CONFIG, dataclasses.replace(config, freeze=("vision.*",)))
    with pytest.raises(UserError, match="nothing to train"):
        lr_scales(MICRO.params, CONFIG, dataclasses.replace(config, freeze=("*",)))


def test_rates_of_a_resnet_fall_from_bottleneck_to_bottleneck():
    resnet = parse_vision({"model_type": "open_clip_resnet", "num_hidden_layers": 5})
    vision = dataclasses.replace(resnet, stages=(2, 1, 1, 1))
    names = ["attnpool.positional_embedding", "layer4.0.conv1.weight", "layer2.0.bn1.bias", "layer1.1.conv2.weight",
             "layer1.0.conv1.weight", "conv1.weight", "bn3.weight"]  # fmt: skip
    names = [f"{vision.prefix}{name}" for name in names]
    scales = lr_scales(names, dataclasses.replace(CONFIG, vision=vision), config_of(layerwise_lr_decay=0.5))
    assert [np.log2(scales[name]) for name in names] == [0, -1, -3, -4, -5, -6, -6]


def test_only_matrices_decay():
    params = {"matrix": np.ones((2, 2)), "bias": np.ones(2), "logit_scale": np.ones(())}
    optimizer = make_optimizer(config_of(steps=10, lr=1e-2), {})
    state, update = jax.jit(optimizer.init)(params), jax.jit(optimizer.update)
    for _ in range(2):  # the first step of the warm-up has rate 0
        updates, state = update(jax.tree.map(np.zeros_like, params), state, params)
    moved = {name for name, update in updates.items() if (np.asarray(update) != 0).any()}
    assert moved == {"matrix"}


def test_without_a_warm_up_the_first_step_has_the_peak_rate():
    optimizer = make_optimizer(config_of(steps=10, lr=1e-2, weight_decay=0, warmup_ratio=0.0), {})
    params = {"matrix": np.ones((2, 2), np.float32)}
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    np.testing.assert_allclose(updates["matrix"], -1e-2, rtol=1e-5)  # Adam's first step is the rate, by the sign


def test_an_update_is_scaled_by_its_tensors_rate():
    params = {name: np.ones((2, 2)) for name in ("whole", "half", "frozen")}
    optimizer = make_optimizer(config_of(steps=10, lr=1e-2, weight_decay=0), {"whole": 1.0, "half": 0.5, "frozen": 0.0})
    state, update = jax.jit(optimizer.init)(params), jax.jit(optimizer.update)
    for _ in range(2):
        updates, state = update(params, state, params)
    sizes = {name: float(np.abs(value).max()) for name, value in updates.items()}
    assert sizes["half"] == pytest.approx(sizes["whole"] / 2)
    assert sizes["whole"] > sizes["frozen"] == 0


def test_lora_freezes_the_towers_and_trains_its_factors_at_their_matrices_rates():
    params, scales = initial_params(MICRO, config_of(lora_rank=2, lr=1e-3, vision_lr=1e-4))
    factors = {name: scale for name, scale in scales.items() if ".lora_" in name}
    assert factors.keys() | MICRO.params.keys() == params.keys() == scales.keys()
    assert all(scales[name] == 0 for name in MICRO.params if name.startswith(("vision_model.", "text_model.")))
    assert scales["visual_projection.weight"] == scales["logit_scale"] == 1
    for name, scale in factors.items():
        assert scale == pytest.approx(0.1 if name.startswith("vision_model.") else 1.0)


def test_a_text_tower_without_a_prefix_is_a_tower_alone():
    """open_clip's: what no name tells from it, the logit scale and the other tower's projection, has its own rate."""
    model = to_open_clip(load(FOLDER), "")
    assert model.config.text.prefix == ""
    own = ("logit_scale", "visual.proj", "text_projection")
    _, scales = initial_params(model, config_of(text_lr=0.0))
    assert is_frozen(model.config.text, scales) and not is_frozen(model.config.vision, scales)
    assert [scales[name] for name in own] == [1, 1, 1]
    _, scales = initial_params(model, config_of(lora_rank=2))
    assert [scales[name] for name in own] == [1, 1, 1]
    assert scales["token_embedding.weight"] == 0 < scales["transformer.resblocks.0.attn.in_proj_weight.lora_up"]


def test_the_sigmoid_loss_brings_its_bias():
    params, scales = initial_params(MICRO, config_of(loss="sigmoid"))
    assert params.keys() - MICRO.params.keys() == {"logit_bias"}
    assert (float(params["logit_bias"]), scales["logit_bias"]) == (-10, 1)


def test_a_tensor_that_the_tower_does_not_use_is_frozen():
    """DINOv2's mask token is (1, w): weight decay would shrink what no gradient ever reaches."""
    vision = dataclasses.replace(CONFIG.vision, family=VISION["dinov2"])
    names = [f"{vision.prefix}embeddings.{name}" for name in ("mask_token", "cls_token")]
    scales = lr_scales(names, dataclasses.replace(CONFIG, vision=vision), config_of())
    assert list(scales.values()) == [0, 1]
