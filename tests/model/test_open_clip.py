"""open_clip's layout: what its config says is what happens, or it is refused; live open_clip gives the same."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from medclip.encode.encoder import embed_images, embed_texts
from medclip.errors import UserError
from medclip.model.checkpoint import load, save
from medclip.model.open_clip import open_clip_config
from medclip.model.towers import logits
from support.gallery import write_images
from support.gallery_open_clip import BERT_FILES, ROBERTA_FILES, ROWS
from support.gallery_open_clip_peer import embed_open_clip, write_open_clip
from support.model_folders import assert_same_embeddings, open_clip_folder, rewrite_config
from support.references import FOLDER

CLOSE = 2e-6
STRINGS = ["CT of the chest, axial view", "a", "lesion in the left lobe " * 30]
VIT = {"image_size": 32, "layers": 2, "width": 64, "head_width": 16, "patch_size": 8, "mlp_ratio": 1.5}
TEXT = {
    "context_length": 24,
    "vocab_size": ROWS,
    "width": 32,
    "heads": 4,
    "layers": 2,
    "mlp_ratio": 1.5,
    "hf_tokenizer_name": "a/b",
}
TIMM = {"timm_model_name": "vit_base_patch16_224", "timm_pool": "", "timm_proj": "linear"}
SIGLIP = {**TIMM, "timm_model_name": "vit_base_patch16_siglip_224", "timm_pool": "map", "timm_proj": "none"}
BERT = {
    "hf_model_name": "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract",
    "hf_tokenizer_name": "a/b",
    "context_length": 24,
}
PREPROCESS = {"resize_mode": "longest", "fill_color": 7, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}


def config(vision: dict[str, Any] = VIT, text: dict[str, Any] = TEXT, **options: Any) -> dict[str, Any]:
    return {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text, **options}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "model"))


def test_open_clips_layout_loads_and_comes_back(tmp_path: Path, folder: Path) -> None:
    # open_clip takes the largest id for the end of text, as CLIP of 2021
    rewrite_config(folder, "text_config", eos_token_id=2)
    model = load(folder)
    theirs = load(open_clip_folder(model, tmp_path / "open_clip"))
    assert_same_embeddings(model, theirs)
    save(theirs, tmp_path / "again")
    assert_same_embeddings(model, load(tmp_path / "again"))


CONFIGS = {
    **{f"vision {name}={value}": config({**VIT, name: value}) for name, value in [
        ("pool_type", "avg"), ("final_ln_after_pool", True), ("no_ln_pre", True), ("ls_init_value", 0.1),
        ("pos_embed_type", "sin_cos_2d"), ("patch_dropout", 0.5), ("norm_kwargs", {"eps": 1e-3}),
        ("act_kwargs", {"approximate": "tanh"}), ("image_size", [32, 32]), ("head_width", 32),
    ]},
    "mean, then norm": config({**VIT, "pool_type": "avg", "final_ln_after_pool": True}),
    **{f"text {name}={value}": config(text={**TEXT, name: value}, custom_text=True) for name, value in [
        ("pool_type", "first"), ("pool_type", "last"), ("no_causal_mask", True), ("proj_bias", True),
        ("ls_init_value", 0.1), ("norm_kwargs", {"eps": 1e-3}), ("act_kwargs", {"approximate": "tanh"}),
        ("pad_id", 3), ("final_ln_after_pool", True),
    ]},
    "MetaCLIP 2": config(text={**TEXT, "pool_type": "eos", "eos_id": 3}, quick_gelu=True),
    "bidirectional, last": config(text={**TEXT, "no_causal_mask": True, "pool_type": "last"}),
    "no text projection": config(text={**TEXT, "proj_type": "none"}, embed_dim=32),
    "bias, shapes (1,)": config(init_logit_bias=-10, nonscalar_logit_scale=True),
    "SigLIP": config(SIGLIP, {**TEXT, "width": 128, "no_causal_mask": True, "proj_bias": True, "pool_type": "last",
                              "norm_kwargs": {"eps": 1e-6}}, embed_dim=128, init_logit_bias=-10, custom_text=True),
    "SigLIP 2, tanh": config({**SIGLIP, "timm_model_name": "vit_so400m_patch16_siglip_256", "image_size": 256},
                             embed_dim=144, init_logit_bias=-10),
    "SigLIP, mean": config({**SIGLIP, "timm_model_name": "vit_base_patch16_siglip_gap_224", "timm_pool": "avg"},
                           embed_dim=128),
    **{f"timm {pool} {proj} {bias}": config({**TIMM, "timm_pool": pool, "timm_proj": proj, "timm_proj_bias": bias},
                                            embed_dim=128)
       for pool, proj, bias in [
        ("token", "mlp", True), ("avg", "linear", True), ("avg", "mlp", False), ("token", "none", False),
        ("avg", "none", False), ("token", None, False), ("avg", "", False),
    ]},
    "ResNet": config({"layers": [1, 2, 1, 1], "width": 16, "head_width": 32, "patch_size": None, "image_size": 224}),
    "ResNet, the first stage as wide as the stem": config({"layers": [1, 1, 1, 1], "width": 16, "image_size": 70}),
    "timm, CLIP's": config({**TIMM, "timm_model_name": "vit_base_patch16_clip_quickgelu_224.openai"}),
    "timm, DINOv2's": config({**TIMM, "timm_model_name": "vit_base_patch14_dinov2", "image_size": 518}),
}  # fmt: skip


@pytest.mark.parity
@pytest.mark.parametrize("name", CONFIGS)
def test_every_option_gives_what_open_clip_gives(tmp_path: Path, name: str) -> None:
    files = write_images(tmp_path / "images")[:3]
    write_open_clip(tmp_path / "model", CONFIGS[name], PREPROCESS, BERT_FILES)
    model, before = load(tmp_path / "model"), embed_open_clip(tmp_path, files, STRINGS)
    np.testing.assert_allclose(embed_images(model, files), before["images"], atol=CLOSE)
    np.testing.assert_allclose(embed_texts(model, STRINGS), before["texts"], atol=CLOSE)
    save(model, tmp_path / "saved" / "model")
    after = embed_open_clip(tmp_path / "saved", files, STRINGS)
    for kind in before:
        np.testing.assert_array_equal(after[kind], before[kind])


@pytest.mark.parity
def test_logits_are_open_clips(tmp_path: Path) -> None:
    import open_clip as peer
    import torch

    write_open_clip(tmp_path / "model", CONFIGS["bias, shapes (1,)"], PREPROCESS, BERT_FILES)
    files = write_images(tmp_path / "images")[:3]
    vectors = embed_open_clip(tmp_path, files, STRINGS)
    torch_model = peer.create_model(f"local-dir:{tmp_path / 'model'}")
    images, texts = (torch.from_numpy(vectors[kind]) for kind in ("images", "texts"))
    wanted = torch_model.logit_scale.exp() * images @ texts.T + torch_model.logit_bias
    ours = logits(load(tmp_path / "model").params, vectors["images"], vectors["texts"])
    np.testing.assert_allclose(ours, wanted.detach().numpy(), rtol=1e-6)


def hf_text(folder: Path, family: str) -> Path:
    """The config of a narrow text model: its fields are those of the published base models."""
    import transformers

    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96,
             "vocab_size": ROWS, "max_position_embeddings": 40}  # fmt: skip
    roberta = {} if family == "bert" else {"type_vocab_size": 1, "layer_norm_eps": 1e-5}
    transformers.AutoConfig.for_model(family, **{**sizes, **roberta}).save_pretrained(folder)
    return folder


@pytest.mark.parity
@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta"])
@pytest.mark.parametrize("pooler", ["mean_pooler", "cls_pooler", "cls_last_hidden_state_pooler", None])
@pytest.mark.parametrize("proj", ["linear", "mlp"])
def test_a_text_model_of_a_folder_is_what_its_config_says(tmp_path: Path, family: str, pooler, proj: str) -> None:
    text = {**BERT, "hf_model_name": str(hf_text(tmp_path / "text", family)), "hf_pooler_type": pooler,
            "hf_proj_type": proj}  # fmt: skip
    tokenizer = BERT_FILES if family == "bert" else ROBERTA_FILES
    folder = tmp_path / "model"
    with_local_configs(lambda: write_open_clip(folder, config(text=text), PREPROCESS, tokenizer))
    files = write_images(tmp_path / "images")[:2]
    ours = embed_texts(load(folder), STRINGS)
    theirs = with_local_configs(lambda: embed_open_clip(tmp_path, files, STRINGS))
    np.testing.assert_allclose(ours, theirs["texts"], atol=CLOSE)
    # moved elsewhere, with the text model's config beside it, as the refusal says
    (tmp_path / "text").rename(tmp_path / "gone")
    with pytest.raises(UserError, match=r"config\.json into the model folder"):
        load(folder)
    shutil.copy(tmp_path / "gone" / "config.json", folder / "config.json")
    np.testing.assert_array_equal(embed_texts(load(folder), STRINGS), ours)


def with_local_configs(call):
    """open_clip as it is, without the gallery's narrow stand-ins for models of the Hub."""
    from unittest import mock

    import transformers

    with mock.patch("support.gallery_open_clip_peer._narrow_text", transformers.AutoConfig.from_pretrained):
        return call()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"embed_dim": "many"}, "model_cfg.embed_dim is 'many'"),
        ({"unheard": 1}, "model_cfg.unheard is not known"),
        ({"multimodal_cfg": {"layers": 2}}, "CoCa"),
        ({"quick_gelu": "yes"}, "model_cfg.quick_gelu is 'yes'"),
        *(({"vision_cfg": {**VIT, name: value}}, f"vision_cfg.{name}") for name, value in [
            ("unheard", 1), ("pool_type", "none"), ("attentional_pool", True), ("output_tokens", True),
            ("qk_norm", True), ("block_type", "custom"), ("scale_fc", True), ("pos_embed_type", "rope"),
            ("norm_kwargs", {"elementwise_affine": False}), ("act_kwargs", {"alpha": 1}), ("width", -1),
            ("layers", 1e9), ("mlp_ratio", "4"), ("image_size", [32, 64]), ("patch_size", None), ("no_ln_pre", 1),
            ("norm_kwargs", []), ("global_average_pool", True), ("layers", [1, 2, 3]), ("layers", [1, 1, 1, "x"]),
        ]),
        *(({"text_cfg": {**TEXT, name: value}}, f"text_cfg.{name}") for name, value in [
            ("unheard", 1), ("embed_cls", True), ("pool_type", "none"), ("proj_type", "mlp"), ("heads", 0),
            ("tokenizer_mode", "clips"), ("scaled_cosine_attn", True), ("vocab_size", None),
        ]),
        *(({"text_cfg": {**BERT, name: value}}, f"text_cfg.{name}") for name, value in [
            ("hf_pooler_type", "max_pooler"), ("hf_proj_type", "attention"), ("output_tokens", True),
        ]),
        ({"text_cfg": {"hf_model_name": "google/mt5-base"}}, "mt5-base is not supported"),
        *(({"vision_cfg": {**TIMM, name: value}}, str(value)) for name, value in [
            ("timm_model_name", "convnext_base"), ("timm_model_name", "eva02_base_patch16_clip_224"),
            ("timm_model_name", "vit_relpos_base_patch16_224"), ("timm_model_name", "vit_giant_patch14_dinov2"),
            ("timm_pool", "abs_attn"), ("timm_proj", "attention"),
        ]),
        ({"vision_cfg": {**TIMM, "timm_model_name": ["vit_base_patch16_224"]}}, "timm_model_name"),
        ({"quick_gelu": True, "vision_cfg": {**VIT, "act_kwargs": {"approximate": "tanh"}}}, "act_kwargs"),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_refused_by_name_without_any_tensor(change: dict, words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        open_clip_config.check({"model_cfg": {**config(), **change}})


@pytest.mark.parametrize("preprocess", [
    {"resize_mode": "fold"}, {"interpolation": "nearest"}, {"mode": "L"}, {"fill_color": [9, 9, 9]},
    {"mean": [0.5, 0.5]}, {"std": "x"}, [1],
])  # fmt: skip
def test_a_preparation_that_is_not_open_clips_is_refused(tmp_path: Path, preprocess: Any) -> None:
    folder = open_clip_folder(load(FOLDER), tmp_path / "model")
    raw = json.loads((folder / "open_clip_config.json").read_text())
    (folder / "open_clip_config.json").write_text(json.dumps(raw | {"preprocess_cfg": preprocess}))
    with pytest.raises(UserError, match=r"open_clip_config\.json"):
        load(folder)


@pytest.mark.parametrize("raw", [{}, [], {"model_cfg": []}, {"model_cfg": {"embed_dim": 8}}])
def test_a_config_of_another_shape_is_refused(raw: object) -> None:
    with pytest.raises(UserError, match="is damaged: "):
        open_clip_config.check(raw)


@pytest.mark.parametrize("model", [config(), config(TIMM), config(text=BERT)], ids=["own", "timm", "transformers"])
def test_tensors_that_are_not_the_configs_are_a_sentence(tmp_path: Path, model: dict) -> None:
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": model}))
    save_file({"logit_scale": np.zeros(())}, tmp_path / "open_clip_model.safetensors")
    with pytest.raises(UserError, match=r"its tensors are not|missing"):
        load(tmp_path)


@pytest.mark.parity
def test_the_statistics_of_a_resnet_stay_as_they_are_in_training(tmp_path: Path) -> None:
    import jax
    import jax.numpy as jnp

    from medclip.model.towers import encode_image

    write_open_clip(tmp_path / "model", CONFIGS["ResNet"], PREPROCESS, BERT_FILES)
    model = load(tmp_path / "model")
    pixels = np.random.default_rng(0).standard_normal((2, 224, 224, 3)).astype(np.float32)
    gradient = jax.jit(jax.grad(lambda params: jnp.sum(encode_image(params, pixels, model.config)[:, 0])))
    gradients = gradient(model.params)
    statistics = [name for name in gradients if "running_" in name]
    assert statistics and not any(np.any(gradients[name]) for name in statistics)
    assert np.any(gradients["visual.layer2.0.bn1.weight"]) and np.any(gradients["visual.conv1.weight"])


def test_the_names_of_early_configs_are_read(tmp_path: Path) -> None:
    early = {**BERT, "proj": "linear", "pooler_type": "cls_pooler"}
    text = open_clip_config.check({"model_cfg": config(text=early)})["model_cfg"]["text_cfg"]
    assert text == {**BERT, "hf_proj_type": "linear", "hf_pooler_type": "cls_pooler"}
