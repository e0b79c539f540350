"""Live open_clip: folders in its layout, filled by the gallery's rule, and embeddings of image files and strings.

The configs name towers of timm and of the Hub; `published_names` gives open_clip narrow ones under the same names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

from support.gallery import Embeddings, example_weight, peer_folder

ROWS = 512
"""Of the tables of tokens: more than any small vocabulary of the gallery has."""


def narrow_timm(name: str) -> dict[str, Any]:
    """Sizes of a narrow tower of timm's architecture `name`."""
    if name.startswith("convnext"):
        return {"dims": (16, 32, 64, 128), "depths": (1, 1, 1, 1)}
    if name.startswith("fastvit"):
        return {"embed_dims": (16, 32, 64, 128), "layers": (1, 1, 1, 1)}
    head_width = 72 if "so400m" in name else 64  # as in the published towers
    return {"embed_dim": 2 * head_width, "depth": 2, "num_heads": 2}


def _narrow_text(name: str) -> Any:
    """Config of a narrow tower of transformers' model `name`."""
    import transformers

    size = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2}
    roberta = {**size, "vocab_size": ROWS, "max_position_embeddings": 514, "type_vocab_size": 1, "pad_token_id": 1,
               "bos_token_id": 0, "eos_token_id": 2, "layer_norm_eps": 1e-5}  # fmt: skip
    if name == "xlm-roberta-base":
        return transformers.XLMRobertaConfig(**roberta)
    if name == "roberta-base":
        return transformers.RobertaConfig(**roberta)
    if name == "google/mt5-base":
        return transformers.MT5Config(vocab_size=ROWS, d_model=128, d_kv=64, d_ff=256, num_layers=2, num_heads=2)
    if name.startswith("facebook/nllb"):
        return transformers.M2M100Config(
            vocab_size=ROWS, d_model=128, encoder_layers=2, decoder_layers=1, encoder_ffn_dim=256,
            decoder_ffn_dim=64, encoder_attention_heads=2, decoder_attention_heads=2, max_position_embeddings=512,
        )  # fmt: skip
    return transformers.BertConfig(**size, vocab_size=ROWS)


@contextmanager
def published_names() -> Iterator[None]:
    """open_clip as it is, except that the towers which it takes from timm and the Hub are narrow and local."""
    import open_clip.hf_model
    import timm

    create = timm.create_model

    def narrow(name: str, **options: Any) -> Any:
        return create(name, **options, **narrow_timm(name))

    config = mock.Mock(from_pretrained=_narrow_text)
    with mock.patch.object(timm, "create_model", narrow), mock.patch.object(open_clip.hf_model, "AutoConfig", config):
        yield


def fill(module: Any) -> None:
    """Every tensor of a torch module by the gallery's rule, as its names and shapes have it."""
    import torch

    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            values = example_weight(name, tensor.shape)
            positive = 1 + np.abs(values) if name.endswith("running_var") else values
            tensor.copy_(torch.from_numpy(np.asarray(positive)))


def write_open_clip(
    folder: Path,
    model: Mapping[str, Any],
    preprocess: Mapping[str, Any],
    tokenizer: Callable[[Path], None] | None,
    weights: Sequence[str] = ("open_clip_model.safetensors",),
    extra: Mapping[str, np.ndarray] | None = None,
) -> None:
    """A folder in open_clip's layout; `extra` tensors are those that only older files still hold."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": model, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2))
    if tokenizer:
        tokenizer(folder)
    with published_names():
        module = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False)
    fill(module)
    tensors = module.state_dict() | {name: torch.from_numpy(value) for name, value in (extra or {}).items()}
    for name in weights:
        if name.endswith(".safetensors"):
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / name)
        else:
            torch.save(tensors, folder / name)


def embed_open_clip(folder: Path, images: Sequence[Path], texts: Sequence[str]) -> Embeddings:
    """Unit vectors of files and strings by open_clip: its transform of validation, its tokenizer, its towers."""
    import open_clip
    import torch

    name = f"local-dir:{peer_folder(folder)}"
    with published_names(), torch.no_grad():
        model, _, transform = open_clip.create_model_and_transforms(name)
        tokenizer = open_clip.get_tokenizer(name)
        pixels = torch.stack([transform(Image.open(file)) for file in images])
        model.eval()
        return {
            "images": model.encode_image(pixels, normalize=True).numpy(),
            "texts": model.encode_text(tokenizer(list(texts)), normalize=True).numpy(),
        }


def embed_transformers_clip(folder: Path, images: Sequence[Path], texts: Sequence[str]) -> Embeddings:
    """Unit vectors by transformers of a folder that holds a CLIPModel beside open_clip's layout."""
    import torch
    import transformers

    folder = folder / "model"
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    processor = transformers.CLIPImageProcessorPil.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    pixels = processor([Image.open(file) for file in images], return_tensors="pt")
    tokens = tokenizer(list(texts), padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    with torch.no_grad():
        out = model(**pixels, input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
    return {"images": out.image_embeds.numpy(), "texts": out.text_embeds.numpy()}
