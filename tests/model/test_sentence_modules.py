"""sentence-transformers' folders become text towers that pool as they say, and ours open there with unit vectors."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medclip.encode.encoder import embed_images, embed_texts
from medclip.errors import UserError
from medclip.model.adapt import join_towers
from medclip.model.checkpoint import load, save
from support.compiled import text_features
from support.model_folders import CLOSE, assert_same_embeddings, dual_encoder, save_tower
from support.parity import png
from support.references import CAPTIONS, FOLDER, random_folder, random_images, transformers_outputs


def sentence_folder(folder: Path, pooling: object, *kinds: str, **options: object) -> Path:
    """A BERT with modules after it; `pooling` is the config of Pooling, `options` those of the Transformer."""
    save_tower(dual_encoder("vit", "bert"), "text", folder)
    paths = ["", *(f"{i}_{kind}" for i, kind in enumerate(kinds, 1))]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(zip(paths, ("Transformer", *kinds), strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps(options))
    if "Pooling" in kinds:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


MEAN = {"word_embedding_dimension": 32, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}


@pytest.mark.parametrize("pooling", [MEAN, {"pooling_mode": "mean"}, {"pooling_mode": ["mean"]}, {},
                                     {"pooling_mode": "mean_sqrt_len_tokens"}])  # fmt: skip
def test_a_mean_is_the_mean_of_the_last_states_of_real_tokens(tmp_path: Path, pooling: dict) -> None:
    joined = join_towers(FOLDER, sentence_folder(tmp_path / "t", pooling, "Pooling", "Normalize"))
    first = join_towers(FOLDER, sentence_folder(tmp_path / "c", {"pooling_mode": "cls"}, "Pooling"))
    ids, valid = joined.tokenizer.encode(["T2"])
    n = int(valid.sum())
    # the state of a token is what "cls" gives where that token is first: by turns, without positions
    flat = {name: value * (0 if "position_embeddings" in name else 1) for name, value in first.params.items()}
    turns = [np.roll(ids[:, :n], -i, axis=1) for i in range(n)]
    states = [text_features(flat, turn, valid[:, :n], first.config) for turn in turns]
    features = text_features(flat, ids, valid, joined.config)
    np.testing.assert_allclose(features, np.mean(states, axis=0), atol=1e-5)


def test_a_join_that_pools_otherwise_survives_saving_and_packs_no_pooler(tmp_path: Path, caplog) -> None:
    with caplog.at_level(logging.WARNING, "medclip.model"):
        joined = join_towers(FOLDER, sentence_folder(tmp_path / "t", MEAN, "Pooling", "Normalize"))
    assert "pooler" not in caplog.text  # sentence-transformers leaves it out, too: no news
    assert not any("text_model.pooler" in name for name in joined.params)
    save(joined, tmp_path / "joined")
    assert_same_embeddings(joined, load(tmp_path / "joined"))
    assert not (tmp_path / "joined" / "modules.json").exists()
    again = join_towers(FOLDER, tmp_path / "joined")
    assert again.config.text == joined.config.text


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_padding_on_the_left_gives_a_caption_the_vector_it_has_alone(tmp_path: Path, pooling: str) -> None:
    """sentence-transformers pads to the longest of a batch, so a caption alone not at all: its positions begin at 0."""
    folder = sentence_folder(tmp_path / "t", {"pooling_mode": pooling}, "Pooling", "Normalize")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "padding_side": "left"}))
    joined = join_towers(FOLDER, folder)
    ids, valid = joined.tokenizer.encode(["T2"])
    real = ids[valid][None]
    alone = text_features(joined.params, real, np.ones(real.shape, bool), joined.config)
    np.testing.assert_allclose(text_features(joined.params, ids, valid, joined.config), alone, atol=1e-6)
    save(joined, tmp_path / "joined")
    assert_same_embeddings(joined, load(tmp_path / "joined"))


def test_the_length_of_captions_is_the_folders(tmp_path: Path) -> None:
    folder = sentence_folder(tmp_path / "t", MEAN, "Pooling", max_seq_length=9)
    assert join_towers(FOLDER, folder).tokenizer.context_length == 9
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": 5}))
    assert join_towers(FOLDER, folder).tokenizer.context_length == 9  # which wins over the tokenizer's
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 4000}))
    joined = join_towers(FOLDER, folder)
    assert joined.tokenizer.context_length == joined.config.text.max_length  # all that has positions


@pytest.mark.parametrize(
    ("pooling", "kinds", "options", "words"),
    [
        (MEAN, ("Pooling", "Dense"), {}, ("Dense", "Pooling and Normalize alone")),
        (MEAN, ("Pooling", "LayerNorm"), {}, ("LayerNorm",)),
        ({"pooling_mode_max_tokens": True}, ("Pooling",), {}, ("max", "mean")),
        ({"pooling_mode": ["mean", "max"]}, ("Pooling",), {}, ("mean and max",)),
        ({"pooling_mode": "lasttoken"}, ("Pooling",), {}, ("lasttoken",)),
        ([], ("Pooling",), {}, ("1_Pooling", "not an object")),
        (MEAN, ("Pooling",), {"max_seq_length": "128"}, ("max_seq_length is '128'",)),
    ],
)
def test_what_is_not_computed_is_refused_by_name(tmp_path: Path, pooling, kinds, options, words) -> None:
    folder = sentence_folder(tmp_path / "t", pooling, *kinds, **options)
    with pytest.raises(UserError) as error:
        join_towers(FOLDER, folder)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("modules", [{}, [], [{"path": "", "type": 3}], [{"path": "../x", "type": "a.Transformer"}],
                                     [{"path": "/etc", "type": "a.Transformer"}], ["Transformer"]])  # fmt: skip
def test_damaged_modules_are_refused(tmp_path: Path, modules: object) -> None:
    folder = sentence_folder(tmp_path / "t", MEAN, "Pooling")
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UserError, match=r"is damaged|not the plain name"):
        join_towers(FOLDER, folder)


def test_a_setting_that_is_not_followed_is_named(tmp_path: Path, caplog) -> None:
    folder = sentence_folder(tmp_path / "t", MEAN, "Pooling")
    prompts = {"default_prompt_name": "query", "prompts": {"query": "query: "}, "truncate_dim": 8}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    with caplog.at_level(logging.WARNING, "medclip.model"):
        join_towers(FOLDER, folder)
    assert "'query: '" in caplog.text and "the first 8 of its truncate_dim" in caplog.text


@pytest.mark.parity
@pytest.mark.parametrize("families", [("clip", "clip"), ("siglip", "siglip"), ("dinov3", "mpnet")], ids="+".join)
def test_what_we_save_opens_in_sentence_transformers_with_unit_vectors(tmp_path: Path, families) -> None:
    from sentence_transformers import SentenceTransformer

    random_folder(tmp_path / "theirs", 5, families, 28)
    model = load(tmp_path / "theirs")
    save(model, tmp_path / "ours")
    peer = SentenceTransformer(str(tmp_path / "ours"), device="cpu")
    np.testing.assert_allclose(peer.encode(CAPTIONS), embed_texts(model, CAPTIONS), atol=CLOSE)
    images = [random_images(28, seed)[0] for seed in range(3)]  # not resized, which torchvision rounds otherwise
    theirs = peer.encode([Image.fromarray(image) for image in images])
    np.testing.assert_allclose(theirs, embed_images(model, [png(image) for image in images]), atol=CLOSE)
    np.testing.assert_allclose(np.linalg.norm(theirs, axis=1), 1, atol=1e-6)


@pytest.mark.parity
def test_a_join_that_pools_otherwise_is_refused_by_transformers_not_pooled_its_own_way(tmp_path: Path) -> None:
    save(join_towers(FOLDER, sentence_folder(tmp_path / "t", MEAN, "Pooling")), tmp_path / "joined")
    with pytest.raises(ValueError, match="bert-mean-pooled"):
        transformers_outputs(tmp_path / "joined", random_images(32, 0), CAPTIONS)


@pytest.mark.parametrize("processor", ["preprocessor_config.json", "processor_config.json"])
def test_a_clip_in_a_folder_of_its_own_opens_as_it_is(tmp_path: Path, processor: str) -> None:
    save(load(FOLDER), tmp_path / "t" / "0_CLIPModel")
    old = tmp_path / "t" / "0_CLIPModel" / "preprocessor_config.json"
    content = json.loads(old.read_text())
    old.unlink()
    content = content if processor == old.name else {"image_processor": content, "processor_class": "CLIPProcessor"}
    old.with_name(processor).write_text(json.dumps(content))
    (tmp_path / "t" / "0_CLIPModel" / "modules.json").unlink()
    module = {"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}
    (tmp_path / "t" / "modules.json").write_text(json.dumps([module]))
    assert_same_embeddings(load(tmp_path / "t"), load(FOLDER))
