"""Folders of sentence-transformers, which serve as text towers, built and embedded by sentence-transformers itself."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from support import gallery_tokenizers as tokenizers
from support.gallery import Embeddings, Layout
from support.gallery_open_clip import BERT_FILES, CLIP_FILES, OPENAI
from support.gallery_open_clip_peer import ROWS, fill
from support.gallery_peer import pixel_values, token_inputs, unit

CONTEXT_LENGTH = 128
"""Of a join: medclip reads captions up to here; the peer is given the same."""
SIZE = {"hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 3}


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizers.write_json(path, value)


def write_sentence_transformer(
    folder: Path,
    tower: Any,
    tokenizer: Callable[[Path], None],
    pooling: str = "mean_tokens",
    steps: Sequence[str] = ("Transformer", "Pooling", "Normalize"),
    inside: str = "",
    max_length: int = 256,
) -> None:
    """A folder as sentence-transformers 2 to 4 saved it, which is how the Hub holds them.

    `inside` is the folder of the tower ("" or "0_Transformer"), `steps` are the modules in order.
    """
    import torch

    paths = [inside, *(f"{i}_{step}" for i, step in enumerate(steps[1:], start=1))]
    kinds = [f"sentence_transformers.models.{step}" for step in steps]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": kind}
        for i, (path, kind) in enumerate(zip(paths, kinds, strict=True))
    ]
    _write(folder / "modules.json", modules)
    versions = {"sentence_transformers": "2.0.0", "transformers": "4.6.1", "pytorch": "1.8.1"}
    _write(folder / "config_sentence_transformers.json", {"__version__": versions})
    at, width = folder / inside, SIZE["hidden_size"]
    at.mkdir(parents=True, exist_ok=True)
    fill(tower)
    tower.save_pretrained(at)
    tokenizer(at)
    _write(at / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    for path, step in zip(paths, steps, strict=True):
        if step == "Pooling":
            chosen = {f"pooling_mode_{mode}": mode == pooling for mode in modes}
            _write(folder / path / "config.json", {"word_embedding_dimension": width, **chosen})
        if step == "Dense":
            options = {"in_features": width, "out_features": 64, "bias": True,
                       "activation_function": "torch.nn.modules.activation.Tanh"}  # fmt: skip
            _write(folder / path / "config.json", options)
            dense = torch.nn.Linear(width, 64)
            fill(dense)
            torch.save({f"linear.{name}": value for name, value in dense.state_dict().items()},
                       folder / path / "pytorch_model.bin")  # fmt: skip
        if step == "Normalize":
            (folder / path).mkdir()


def embed_sentences(folder: Path, images: Sequence[Path], texts: Sequence[str]) -> Embeddings:
    """Features of strings by sentence-transformers, divided by their length; the towers see no images."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder / "model"), device="cpu")
    model.max_seq_length = min(model.max_seq_length, CONTEXT_LENGTH)
    return {"texts": model.encode(list(texts), normalize_embeddings=True)}


def open_pooled_join(folder: Path) -> tuple[Any, str]:
    """transformers' model of a join whose text tower pools as sentence-transformers does, and that pooling.

    Such a tower has a type of its own, which transformers refuses. Here it is called what its tensors are, and the
    caller pools.
    """
    import transformers

    raw = json.loads((folder / "config.json").read_text())
    kind, pooling, _ = raw["text_config"]["model_type"].rsplit("-", 2)
    raw["text_config"]["model_type"] = kind
    with tempfile.TemporaryDirectory() as scratch:
        renamed = Path(shutil.copytree(folder, Path(scratch) / "model"))
        _write(renamed / "config.json", raw)
        return transformers.VisionTextDualEncoderModel.from_pretrained(renamed).eval(), pooling


def embed_joined_sentences(folder: Path, images: Sequence[Path], texts: Sequence[str]) -> Embeddings:
    """Unit vectors of a trained join: transformers' towers and projections, the texts pooled here."""
    import torch

    path = folder / "model"
    model, pooling = open_pooled_join(path)
    tokens = token_inputs(path, texts, CONTEXT_LENGTH, False)
    with torch.no_grad():
        features = model.vision_model(pixel_values=pixel_values(path, images)).pooler_output
        states, mask = model.text_model(**tokens).last_hidden_state, tokens["attention_mask"][:, :, None]
        pooled = states[:, 0] if pooling == "cls" else (states * mask).sum(1) / mask.sum(1)
        return {"images": unit(model.visual_projection(features)), "texts": unit(model.text_projection(pooled))}


def embed_sentence_clip(folder: Path, images: Sequence[Path], texts: Sequence[str]) -> Embeddings:
    """Unit vectors of both kinds by sentence-transformers' CLIP."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder / "model"), device="cpu", processor_kwargs={"backend": "pil"})
    opened: list[Any] = [Image.open(file).convert("RGB") for file in images]
    return {
        "images": np.asarray(model.encode(opened, normalize_embeddings=True)),
        "texts": np.asarray(model.encode(list(texts), normalize_embeddings=True)),
    }


def _bert(folder: Path, **options: Any) -> None:
    import transformers

    config = transformers.BertConfig(**SIZE, vocab_size=ROWS)
    write_sentence_transformer(folder / "model", transformers.BertModel(config), BERT_FILES, **options)


def _saved_today(folder: Path) -> None:
    """MiniLM's layout as sentence-transformers 6 writes it: other names of modules and of the pooling."""
    from sentence_transformers import SentenceTransformer

    _bert(folder)
    model = SentenceTransformer(str(folder / "model"), device="cpu")
    shutil.rmtree(folder / "model")
    model.save(str(folder / "model"))


def _mpnet(folder: Path) -> None:
    import transformers

    config = transformers.MPNetConfig(**SIZE, vocab_size=ROWS, max_position_embeddings=514, layer_norm_eps=1e-5)
    write_sentence_transformer(
        folder / "model", transformers.MPNetModel(config), tokenizers.mpnet_files, max_length=384
    )


def _sentence_clip(folder: Path) -> None:
    """clip-ViT-B-32: one module, whose folder 0_CLIPModel holds a CLIPModel of transformers."""
    import transformers

    model, size = folder / "model", {"num_hidden_layers": 2, "projection_dim": 64}
    inside = model / "0_CLIPModel"
    vision = {**size, "hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 2, "patch_size": 32}
    text = {**size, "hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 4, "eos_token_id": 2,
            "bos_token_id": 0}  # fmt: skip
    clip = transformers.CLIPModel(transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=64))
    fill(clip)
    clip.save_pretrained(inside)
    CLIP_FILES(inside)
    processor = {"crop_size": 224, "do_center_crop": True, "do_normalize": True, "do_resize": True, "resample": 3,
                 "feature_extractor_type": "CLIPFeatureExtractor", "size": 224,
                 "image_mean": OPENAI["mean"], "image_std": OPENAI["std"]}  # fmt: skip
    _write(inside / "preprocessor_config.json", processor)
    module = {"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}
    _write(model / "modules.json", [module])


def _text(name: str, repository: str, build: Callable[[Path], None], **options: Any) -> Layout:
    return Layout(name, repository, "text", build, embed_sentences, embed_joined_sentences, **options)


LAYOUTS = (
    _text("minilm", "sentence-transformers/all-MiniLM-L6-v2", _bert),
    _text("sentence-transformers-6", "all-MiniLM-L6-v2, saved by sentence-transformers 6", _saved_today),
    _text("mpnet", "sentence-transformers/all-mpnet-base-v2", _mpnet),
    _text("pubmedbert-marco", "pritamdeka/S-PubMedBert-MS-MARCO",
          lambda folder: _bert(folder, steps=("Transformer", "Pooling"), max_length=350)),
    _text("bge", "BAAI/bge-small-en-v1.5", lambda folder: _bert(folder, pooling="cls_token", max_length=512)),
    _text("old-sentence-bert", "sentence-transformers of 2019: 0_Transformer",
          lambda folder: _bert(folder, steps=("Transformer", "Pooling"), inside="0_Transformer", max_length=128)),
    _text("dense", "sentence-transformers/distiluse-base-multilingual-cased-v2 (Dense)",
          lambda folder: _bert(folder, steps=("Transformer", "Pooling", "Dense")), refused=("Dense",)),
    _text("max-pooled", "sentence-transformers' max pooling", lambda folder: _bert(folder, pooling="max_tokens"),
          refused=("max",)),
    Layout("sentence-clip", "sentence-transformers/clip-ViT-B-32", "model", _sentence_clip, embed_sentence_clip),
)  # fmt: skip
