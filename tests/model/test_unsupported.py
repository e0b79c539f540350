"""What is not computed is refused in one sentence, or named; what published configs say besides raises no alarm."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from medclip.errors import UserError
from medclip.model.adapt import join_towers
from medclip.model.checkpoint import load, save
from medclip.model.config import parse_config, parse_text, parse_vision, tower_config
from medclip.model.unsupported import warn_unread
from support.model_folders import dual_encoder
from support.references import FOLDER, WIDTH

RAW = json.loads((FOLDER / "config.json").read_text())


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("align", "EfficientNet"),
        ("blip", "attend to the image"),
        ("chinese_clip", "without its pooler"),
        ("clipseg", "find regions"),
        ("siglip2", "NaFlex"),
        ("jina_clip", "its code comes with the repository"),
        ("bert", "--text-model"),
        ("never-heard-of", "'never-heard-of'"),
        (None, "it has no model_type"),
        (["clip"], "['clip']"),
    ],
)
def test_another_dual_encoder_is_refused_with_its_type_the_reason_and_what_to_do(kind: object, why: str) -> None:
    with pytest.raises(UserError) as error:
        parse_config({**RAW, "model_type": kind})
    assert repr(kind) in str(error.value) and why in str(error.value) and "--vision-model" in str(error.value)


@pytest.mark.parametrize(
    ("side", "kind", "why"),
    [
        ("vision", "convnext", "convolutional"),
        ("vision", "swin", "merges patches"),
        ("vision", "vit_mae", "at random"),
        ("vision", "beit", "relative positions"),
        ("vision", "bert", "supported: clip_vision_model"),
        ("text", "distilbert", "pools no token"),
        ("text", "modernbert", "pools no token"),
        ("text", "gpt2", "generates text"),
        ("text", "dinov2", "supported: clip_text_model"),
        ("text", "siglip_text_model", "no other library opens"),
        ("text", "siglip", "no other library opens"),
        ("text", ["bert"], "['bert']"),
        ("text", None, 'add "model_type": "bert"'),
    ],
)
def test_another_tower_is_refused_with_its_type_and_the_reason(side, kind: object, why: str) -> None:
    with pytest.raises(UserError, match=r"config\.json") as error:
        tower_config({**WIDTH, "model_type": kind}, side)
    assert why in str(error.value) and "pooled" not in str(error.value).replace("pools", "")


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"is_decoder": True}, "is_decoder"),
        ({"add_cross_attention": True}, "add_cross_attention"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads"),
        ({"embedding_size": 16}, "embedding_size"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling"),
    ],
)
def test_a_field_that_changes_numbers_is_refused_by_name(fields: dict, name: str) -> None:
    with pytest.raises(UserError, match=name):
        parse_text({**WIDTH, "model_type": "bert", **fields})


@pytest.mark.parametrize(
    ("kind", "fields", "name"),
    [
        ("vit", {"num_channels": 1}, "num_channels"),
        ("vit", {"pooler_act": "gelu"}, "pooler_act"),
        ("vit", {"pooler_output_size": 16}, "pooler_output_size"),
        ("vit", {"image_size": [224, 336]}, "only squares"),
        ("vit", {"patch_size": []}, "patch_size"),
        ("siglip_vision_model", {"vision_use_head": False}, "vision_use_head"),
        ("dinov2", {"mlp_ratio": "4"}, "mlp_ratio"),
        ("dinov3_vit", {"hidden_size": 24, "num_attention_heads": 4}, "multiple of 4"),
        ("dinov3_vit", {"rope_theta": 0}, "rope_theta"),
        ("dinov2_with_registers", {"num_register_tokens": -1}, "num_register_tokens"),
    ],
)
def test_a_vision_tower_that_is_not_computed_is_refused_by_name(kind: str, fields: dict, name: str) -> None:
    with pytest.raises(UserError, match=name):
        parse_vision({**WIDTH, "model_type": kind, **fields})


@pytest.mark.parametrize("fields", [{"pad_token_id": 0}, {"relative_attention_num_buckets": 16}])
def test_mpnet_that_transformers_computes_otherwise_than_it_says_is_refused(fields: dict) -> None:
    with pytest.raises(UserError, match=next(iter(fields))):
        parse_text({**WIDTH, "model_type": "mpnet", **fields})


def test_a_tower_of_a_square_given_twice_is_that_square() -> None:
    assert parse_vision({**WIDTH, "model_type": "vit", "image_size": [64, 64], "patch_size": [8, 8]}).image_size == 64


def test_a_width_of_another_head_is_not_the_poolers() -> None:  # CXR-BERT's projection_size is of the head left out
    assert parse_text({**WIDTH, "model_type": "bert", "projection_size": 128}).projection_size == 0


@pytest.mark.parametrize("beside", [True, False])
def test_an_adapter_is_refused_with_what_to_do(tmp_path: Path, beside: bool) -> None:
    if beside:
        save(load(FOLDER), tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="merge_and_unload"):
        load(tmp_path)


def test_a_classifier_of_timm_is_refused_by_its_architecture(tmp_path: Path) -> None:
    raw = {"architecture": "vit_base_patch16_224", "num_classes": 1000, "pretrained_cfg": {"tag": "augreg_in21k"}}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(UserError, match=r"timm's vit_base_patch16_224, .*that transformers saved") as error:
        join_towers(tmp_path, FOLDER)
    assert "BERT" not in str(error.value)


def test_a_field_that_nobody_knows_is_named_and_the_model_opens(tmp_path: Path, caplog) -> None:
    model = dual_encoder("vit", "bert")
    raw = {**model.raw_config, "text_config": {**model.raw_config["text_config"], "use_rms_norm": True, "x": 0}}
    with caplog.at_level(logging.WARNING, "medclip.model"):
        warn_unread(raw, tmp_path)
    assert "text_config.use_rms_norm" in caplog.text and str(tmp_path) in caplog.text and ".x" not in caplog.text


def test_a_known_config_raises_no_alarm(caplog) -> None:
    with caplog.at_level(logging.WARNING, "medclip.model"):
        load(FOLDER)
    assert not caplog.records


@pytest.mark.parity
def test_no_default_of_todays_transformers_raises_an_alarm(caplog) -> None:
    import transformers as hf

    join = hf.VisionTextDualEncoderConfig.from_vision_text_configs(hf.DINOv3ViTConfig(), hf.MPNetConfig())
    duals = [hf.CLIPConfig(), hf.SiglipConfig(), hf.MetaClip2Config(), join]
    vision = [hf.ViTConfig(), hf.DeiTConfig(), hf.Dinov2Config(), hf.Dinov2WithRegistersConfig(), hf.DINOv3ViTConfig()]
    text = [hf.BertConfig(), hf.RobertaConfig(), hf.XLMRobertaConfig(), hf.CamembertConfig(), hf.MPNetConfig()]
    for config in (*duals, *vision, *text):
        raw = config.to_dict()
        if "vision_config" in raw:
            parse_config(raw)
        else:
            tower_config(raw, "vision" if "patch_size" in raw else "text")
        warn_unread(raw, type(config).__name__)
    assert not caplog.records
