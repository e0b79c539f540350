"""Folders of every layout load, join, resize and come back; hostile ones get one sentence."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import jax.numpy as jnp
import msgpack
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from medclip.encoder import embed_pixels, embed_texts
from medclip.errors import UserError
from medclip.model import flax2021
from medclip.model.config import parse_config
from medclip.model.hub import Model, load, model_hash, save
from medclip.model.init import init, shapes
from medclip.model.join import join
from medclip.model.resize import with_side, with_tokens
from medclip.model.tokens import save_tokens, train_tokens
from medclip.model.weights import canonical
from model.references import CAPTIONS, FOLDER, WIDTH

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
CLOSE = 2e-6


def dual(vision: str, text: str, seed: int = 0) -> Model:
    """A random joined model of those families, as it would be loaded."""
    tokens, special = train_tokens(CAPTIONS, 300, 24)
    size = tokens.tokenizer.get_vocab_size()
    said = {
        "architectures": ["VisionTextDualEncoderModel"],
        "model_type": "vision-text-dual-encoder",
        "dtype": "float32",
        "projection_dim": 16,
        "vision_config": {"model_type": vision, **WIDTH, "num_hidden_layers": 1, "image_size": 32, "patch_size": 8},
        "text_config": {"model_type": text, **WIDTH, **special, "num_hidden_layers": 1, "vocab_size": size,
                        "max_position_embeddings": 24},
    }  # fmt: skip
    config = parse_config(said)
    rng = np.random.default_rng(seed)
    params = {
        name: value + 0.1 * rng.standard_normal(value.shape, np.float32) for name, value in init(config, seed).items()
    }
    return Model(params, config, tokens, load(FOLDER).preprocessor, said)


def vectors(model: Model) -> tuple[np.ndarray, np.ndarray]:
    return embed_pixels(model, PIXELS), embed_texts(model, CAPTIONS)


def assert_same_vectors(one: Model, other: Model) -> None:
    for a, b in zip(vectors(one), vectors(other), strict=True):
        np.testing.assert_allclose(a, b, atol=CLOSE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "model"))


@pytest.mark.parametrize(
    ("vision", "text"), [("vit", "bert"), ("dinov2", "clip_text_model"), ("siglip_vision_model", "bert")]
)
def test_a_joined_folder_survives_saving_bit_for_bit(tmp_path: Path, vision: str, text: str) -> None:
    model = dual(vision, text)
    save(model, tmp_path / "once")
    again = load(tmp_path / "once")
    save(again, tmp_path / "twice")
    for path in (tmp_path / "once").iterdir():
        assert path.read_bytes() == (tmp_path / "twice" / path.name).read_bytes()
    assert_same_vectors(model, again)


def test_shards_are_read_through_their_index(folder: Path) -> None:
    whole, tensors = load(folder), load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    places = {}
    for part in range(3):
        shard = f"model-{part + 1:05}-of-00003.safetensors"
        save_file({name: tensors[name] for name in names[part::3]}, folder / shard)
        places |= {name: shard for name in names[part::3]}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert_same_vectors(whole, load(folder))
    before, last = model_hash(folder), folder / "model-00003-of-00003.safetensors"
    save_file({name: value + 1 for name, value in load_file(last).items()}, last)
    assert model_hash(folder) != before


@pytest.mark.parametrize(
    ("name", "today"),
    [
        ("text_model.embeddings.LayerNorm.gamma", "text_model.embeddings.LayerNorm.weight"),
        ("text_model.embeddings.LayerNorm.beta", "text_model.embeddings.LayerNorm.bias"),
        ("vision_model.vision_model.post_layernorm.bias", "vision_model.post_layernorm.bias"),
        ("text_model.embeddings.position_ids", None),
        ("logit_scale", "logit_scale"),
    ],
)
def test_names_of_other_years(name: str, today: str | None) -> None:
    assert canonical(name) == today


# ---- joining


def single(model: Model, side: str, folder: Path, prefix: str = "") -> Path:
    """One tower of a joined model as a folder of its own."""
    folder.mkdir()
    tower = f"{side}_model."
    tensors = {prefix + n[len(tower) :]: np.asarray(v) for n, v in model.params.items() if n.startswith(tower)}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(model.said[f"{side}_config"]))
    (folder / "preprocessor_config.json").write_text(json.dumps(model.preprocessor))
    save_tokens(model.tokens, folder)
    return folder


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_towers_are_joined_with_fresh_projections(tmp_path: Path, prefix: str) -> None:
    model = dual("vit", "bert")
    vision, text = single(model, "vision", tmp_path / "v"), single(model, "text", tmp_path / "t", prefix)
    joined = join(vision, text, projection_dim=20, seed=3)
    assert joined.params["visual_projection.weight"].shape == (20, 32)
    assert joined.params["visual_projection.weight"].std() == pytest.approx(32**-0.5, rel=0.1)
    for name, value in model.params.items():
        if "_model." in name:
            np.testing.assert_array_equal(joined.params[name], value)
    assert joined.params["logit_scale"] == pytest.approx(np.log(1 / 0.07), abs=1e-4)
    again = join(vision, text, projection_dim=20, seed=3)
    np.testing.assert_array_equal(again.params["text_projection.weight"], joined.params["text_projection.weight"])


def test_towers_are_taken_out_of_dual_encoders_too(tmp_path: Path) -> None:
    save(dual("dinov2", "bert"), tmp_path / "dual")
    joined, clip = join(FOLDER, tmp_path / "dual", 16), load(FOLDER)
    name = "vision_model.encoder.layers.0.mlp.fc1.weight"
    np.testing.assert_array_equal(joined.params[name], clip.params[name])
    save(joined, tmp_path / "joined")
    assert_same_vectors(joined, load(tmp_path / "joined"))


def test_a_pooler_that_was_not_published_starts_fresh(tmp_path: Path) -> None:
    model = dual("vit", "bert")
    kept = {name: value for name, value in model.params.items() if not name.startswith("text_model.pooler")}
    text = single(Model(kept, model.config, model.tokens, {}, model.said), "text", tmp_path / "t", "bert.")
    joined = join(FOLDER, text)
    assert joined.params["text_model.pooler.dense.weight"].std() == pytest.approx(0.02, rel=0.1)


# ---- another resolution and context length


def test_a_resolution_is_changed_by_interpolating_positions() -> None:
    model = load(FOLDER)
    larger = with_side(model, 49)
    name = "vision_model.embeddings.position_embedding.weight"
    assert larger.params[name].shape == (50, 32)
    np.testing.assert_array_equal(larger.params[name][0], model.params[name][0])  # the class token's
    grid = np.asarray(model.params[name][1:]).reshape(4, 4, -1)
    assert larger.params[name][1:].mean(0) == pytest.approx(grid.reshape(16, -1).mean(0), abs=0.02)
    assert parse_config(larger.said) == larger.config
    assert embed_pixels(larger, np.zeros((1, 49, 49, 3), np.uint8)).shape == (1, 24)
    assert with_side(model, 32) is model


def test_a_flat_table_of_positions_stays_flat() -> None:
    model = dual("vit", "bert")
    name = "vision_model.embeddings.position_embeddings"
    flat = {**model.params, name: np.concatenate([model.params[name][:, :1], np.full((1, 16, 32), 0.5, np.float32)], 1)}
    larger = with_side(Model(flat, model.config, model.tokens, model.preprocessor, model.said), 56)
    assert larger.params[name].shape == (1, 50, 32)
    np.testing.assert_allclose(larger.params[name][:, 1:], 0.5, atol=1e-6)


def test_a_longer_context_interpolates_and_a_shorter_one_only_cuts() -> None:
    model = load(FOLDER)
    longer, shorter = with_tokens(model, 48), with_tokens(model, 12)
    name = "text_model.embeddings.position_embedding.weight"
    assert longer.params[name].shape == (48, 32) and longer.tokens.encode(CAPTIONS)[0].shape == (3, 48)
    assert parse_config(longer.said) == longer.config
    assert shorter.params[name].shape == (24, 32) and shorter.tokens.encode(CAPTIONS)[0].shape == (3, 12)
    np.testing.assert_allclose(embed_texts(shorter, ["T2"]), embed_texts(model, ["T2"]), atol=CLOSE)
    ids = shorter.tokens.encode(CAPTIONS)[0]
    assert ids[2, -1] == model.config.text.eos_token_id  # cut, its special tokens kept
    assert model.tokens.encode(CAPTIONS)[0].shape == (3, 24)  # the first is as it was


def test_a_context_that_the_tower_cannot_have_is_refused_with_a_reason() -> None:
    roberta = dual("vit", "bert")
    config = {**roberta.said["text_config"], "model_type": "roberta", "pad_token_id": 1}
    said = {**roberta.said, "text_config": config}
    roberta = Model(init(parse_config(said), 0), parse_config(said), roberta.tokens, {}, said)
    with pytest.raises(UserError, match="positions for 3 to 22 tokens"):
        with_tokens(roberta, 100)


# ---- the founding project's format


def leaf(value: np.ndarray) -> msgpack.ExtType:
    return msgpack.ExtType(1, msgpack.packb((value.shape, value.dtype.name, value.tobytes())))


def hybrid_folder(model: Model, folder: Path) -> Path:
    """A FlaxHybridCLIP folder after the published naming of transformers 4.x, by rules of this test's own."""
    tree: dict = {}
    for name, value in model.params.items():
        value = np.asarray(value)
        name = name.replace("vision_model.", "vision_model.vision_model.", 1)
        *path, last = name.split(".")
        if re.search(r"(word|position|token_type)_embeddings?\.weight$", name) and value.ndim == 2:
            last = "embedding"
        elif last == "weight" and value.ndim == 4:
            last, value = "kernel", np.moveaxis(value, (0, 1), (3, 2))
        elif last == "weight" and value.ndim == 2:
            last, value = "kernel", value.swapaxes(0, 1)
        elif last == "weight":
            last = "scale"
        at = tree
        for step in path:
            at = at.setdefault(step, {})
        at[last] = leaf(np.ascontiguousarray(value) if value.ndim else value)
    folder.mkdir()
    (folder / "flax_model.msgpack").write_bytes(msgpack.packb(tree))
    said = {**model.said, "architectures": ["HybridCLIP"], "model_type": "hybrid-clip", "seed": 42}
    (folder / "config.json").write_text(json.dumps(said))
    save_tokens(model.tokens, folder)
    return folder


def tree_of(path: Path) -> dict[tuple[str, ...], np.ndarray]:
    return dict(flax2021._leaves(msgpack.unpackb(path.read_bytes(), ext_hook=flax2021._array), ()))


def test_the_founding_projects_folder_loads_and_is_written_back(tmp_path: Path) -> None:
    model = dual("clip_vision_model", "bert")
    theirs = load(hybrid_folder(model, tmp_path / "2021"))
    assert_same_vectors(dataclasses.replace(model, preprocessor=theirs.preprocessor), theirs)
    assert theirs.said["model_type"] == "vision-text-dual-encoder"
    assert theirs.preprocessor["size"] == {"shortest_edge": 224}
    paths = [tmp_path / "2021" / "flax_model.msgpack", tmp_path / "back.msgpack"]
    flax2021.write(theirs.params, {"vision_model.": "clip_vision_model"}, paths[1])
    forth, back = map(tree_of, paths)
    assert forth.keys() == back.keys()
    for name, value in forth.items():
        np.testing.assert_array_equal(value, back[name])


# ---- open_clip


def open_clip_folder(model: Model, folder: Path) -> Path:
    """A CLIPModel's weights in open_clip's layout, by rules of this test's own."""
    found: dict[str, np.ndarray] = {"logit_scale": np.asarray(model.params["logit_scale"])}
    towers = [("vision_model.", "visual."), ("text_model.", "")]
    plain = {
        "embeddings.class_embedding": "class_embedding",
        "embeddings.patch_embedding.weight": "conv1.weight",
        "embeddings.position_embedding.weight": "positional_embedding",
        "embeddings.token_embedding.weight": "token_embedding.weight",
        "pre_layrnorm": "ln_pre", "post_layernorm": "ln_post", "final_layer_norm": "ln_final",
        "self_attn.out_proj": "attn.out_proj", "layer_norm1": "ln_1", "layer_norm2": "ln_2",
        "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj", "encoder.layers": "transformer.resblocks",
    }  # fmt: skip
    for prefix, theirs in towers:
        for name, value in model.params.items():
            if name.startswith(prefix) and not re.search(r"[qkv]_proj", name):
                for ours, other in plain.items():
                    name = name.replace(ours, other)
                found[name.replace(prefix, theirs)] = np.asarray(value)
        layers = {
            name[: name.index(".self_attn")]
            for name in model.params
            if name.startswith(prefix) and ".self_attn" in name
        }
        for layer in layers:
            at = layer.replace(prefix, theirs).replace("encoder.layers", "transformer.resblocks")
            for kind in ("weight", "bias"):
                parts = [model.params[f"{layer}.self_attn.{x}_proj.{kind}"] for x in "qkv"]
                found[f"{at}.attn.in_proj_{kind}"] = np.concatenate(parts)
    found["visual.proj"] = np.ascontiguousarray(model.params["visual_projection.weight"].T)
    found["text_projection"] = np.ascontiguousarray(model.params["text_projection.weight"].T)
    folder.mkdir()
    save_file(found, folder / "open_clip_model.safetensors")
    vision, text = model.config.vision, model.config.text
    said = {
        "model_cfg": {
            "embed_dim": model.config.projection_dim,
            "quick_gelu": True,
            "vision_cfg": {"image_size": 32, "layers": vision.num_hidden_layers, "width": 32, "patch_size": 7,
                           "head_width": 8, "mlp_ratio": 1.5},
            "text_cfg": {"context_length": 24, "vocab_size": text.vocab_size, "width": 32, "heads": 4,
                         "layers": text.num_hidden_layers, "mlp_ratio": 1.5},
        },
        "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    }  # fmt: skip
    (folder / "open_clip_config.json").write_text(json.dumps(said))
    save_tokens(model.tokens, folder)
    return folder


def test_open_clips_layout_loads_and_comes_back(tmp_path: Path, folder: Path) -> None:
    resaid(folder, "text_config", eos_token_id=2)  # open_clip takes the largest id for the end of text, as CLIP of 2021
    model = load(folder)
    theirs = load(open_clip_folder(model, tmp_path / "open_clip"))
    assert_same_vectors(model, theirs)
    save(theirs, tmp_path / "again")
    assert_same_vectors(model, load(tmp_path / "again"))


# ---- hostile folders


def rewritten(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def resaid(folder: Path, part: str, **fields) -> None:
    said = json.loads((folder / "config.json").read_text())
    said[part] |= fields
    (folder / "config.json").write_text(json.dumps(said))


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(UserError) as error:
        load(folder)
    for word in words:
        assert word in str(error.value)


def test_every_fault_of_the_tensors_is_named_at_once(folder: Path) -> None:
    def spoil(tensors):
        tensors["stranger"] = np.zeros(3, np.float32)
        del tensors["logit_scale"]
        tensors["text_projection.weight"] = np.zeros((2, 2), np.float32)

    rewritten(folder, spoil)
    refused(folder, "missing logit_scale", "unexpected stranger", "text_projection.weight has shape (2, 2)")


def test_a_nan_is_named(folder: Path) -> None:
    rewritten(folder, lambda tensors: tensors["visual_projection.weight"].__setitem__((0, 0), np.nan))
    refused(folder, "visual_projection.weight is not finite")


def test_a_truncated_file_is_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refused(folder, "model.safetensors is damaged")


@pytest.mark.parametrize(
    ("part", "fields", "word"),
    [
        ("text_config", {"hidden_size": 10**6, "vocab_size": 10**6}, "has shape"),  # 10^12 parameters
        ("vision_config", {"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000"),
        ("vision_config", {"image_size": -1}, "image_size is -1"),
        ("text_config", {"hidden_act": "swish"}, "hidden_act 'swish'"),
        ("text_config", {"num_attention_heads": 5}, "no multiple"),
        ("text_config", {"hidden_size": "32"}, "hidden_size is '32'"),
        ("text_config", {"position_embedding_type": "relative_key"}, "relative_key"),
        ("vision_config", {"model_type": "resnet"}, "'resnet'"),
    ],
)
def test_a_config_that_no_model_has_is_refused(folder: Path, part: str, fields: dict, word: str) -> None:
    resaid(folder, part, **fields)
    refused(folder, word)


@pytest.mark.parametrize("said", [[], {"model_type": "clip", "vision_config": "x"}, {"model_type": "clip"}])
def test_a_config_of_another_shape_is_refused(folder: Path, said: object) -> None:
    (folder / "config.json").write_text(json.dumps(said))
    refused(folder, "config")


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    (folder / "model.safetensors").symlink_to(tmp_path / "elsewhere.safetensors")
    refused(folder, "leads out of its folder")


def test_the_hubs_cache_links_to_its_blobs(folder: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "repo/blobs", tmp_path / "repo/snapshots/abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for path in folder.iterdir():
        path.rename(blobs / path.name)
        (snapshot / path.name).symlink_to(Path("../../blobs") / path.name)
    assert load(snapshot).config == load(FOLDER).config


@pytest.mark.parametrize("place", ["../../x", "/etc/passwd"])
def test_an_index_that_names_a_file_elsewhere_is_refused(folder: Path, place: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"logit_scale": place}}))
    (folder.parent.parent / "x").touch()
    refused(folder, "leads out of its folder")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pth"])
def test_a_pickle_is_never_opened(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / name)
    refused(folder, name, "a pickle", "safetensors.torch.save_file")


def test_a_damaged_msgpack_is_named(tmp_path: Path) -> None:
    folder = hybrid_folder(dual("clip_vision_model", "bert"), tmp_path / "2021")
    path = folder / "flax_model.msgpack"
    path.write_bytes(path.read_bytes()[:-50])
    refused(folder, "flax_model.msgpack is damaged")


def test_a_name_that_is_nothing_says_where_was_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(tmp_path / "absent", "looked for config.json")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused(Path("nobody/nothing-of-this-name"), "nobody/nothing-of-this-name", "HF_HUB_OFFLINE")


def test_shapes_are_those_of_the_file() -> None:
    there = load_file(FOLDER / "model.safetensors")
    assert shapes(load(FOLDER).config) == {name: value.shape for name, value in there.items()}
    assert jnp.shape(there["logit_scale"]) == ()
