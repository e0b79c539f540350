"""Live transformers and torch: weights in every form of file, and embeddings of image files and strings."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from PIL import Image

from support.gallery import Embed, Embeddings, Layout, Opens, example_weight, peer_folder

TINY = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
HALVES = [0.5, 0.5, 0.5]
LEGACY = {
    "add_cross_attention": False, "bad_words_ids": None, "chunk_size_feed_forward": 0, "decoder_start_token_id": None,
    "diversity_penalty": 0.0, "do_sample": False, "early_stopping": False, "finetuning_task": None,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "is_decoder": False, "is_encoder_decoder": False,
    "label2id": {"LABEL_0": 0, "LABEL_1": 1}, "length_penalty": 1.0, "max_length": 20, "num_beams": 1,
    "output_attentions": False, "output_hidden_states": False, "prefix": None, "problem_type": None,
    "pruned_heads": {}, "return_dict": True, "sep_token_id": None, "task_specific_params": None, "temperature": 1.0,
    "tie_encoder_decoder": False, "tie_word_embeddings": True, "tokenizer_class": None, "top_k": 50, "top_p": 1.0,
    "torch_dtype": None, "torchscript": False, "transformers_version": "4.16.0.dev0", "use_bfloat16": False,
}  # fmt: skip
"""What configs of 2021 and 2022 repeat for each tower."""
BERT = {
    "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "initializer_range": 0.02,
    "layer_norm_eps": 1e-12, "max_position_embeddings": 512, "model_type": "bert", "pad_token_id": 0,
    "type_vocab_size": 2, **TINY,
}  # fmt: skip
JOINED_LENGTH = 128  # medclip's longest caption of a fresh join
Tensors = dict[str, np.ndarray]


def published_names(model: Any) -> dict[str, tuple[int, ...]]:
    """Tensor names and shapes as transformers writes them, which are not those in memory."""
    from safetensors import safe_open

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        with safe_open(Path(folder) / "model.safetensors", "np") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def tensors_of(model: Any) -> Tensors:
    return {name: example_weight(name, shape) for name, shape in published_names(model).items()}


def write_safetensors(tensors: Tensors, folder: Path, dtype: str = "float32") -> None:
    import torch
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    cast = {name: torch.from_numpy(value).to(getattr(torch, dtype)) for name, value in tensors.items()}
    save_file(cast, folder / "model.safetensors", metadata={"format": "pt"})


def write_bin(
    tensors: Mapping[str, np.ndarray], folder: Path, tied: Mapping[str, str] = {}, legacy: bool = False,
    dtype: str = "float32", file: str = "pytorch_model.bin",
) -> None:  # fmt: skip
    """torch.save of a state dict; `tied` names share another's storage; `legacy` is the format before torch 1.6."""
    from collections import OrderedDict

    import torch

    state = OrderedDict()
    for name, value in tensors.items():
        tensor = torch.from_numpy(np.array(value))
        state[name] = tensor.to(getattr(torch, dtype)) if tensor.is_floating_point() else tensor
    for name, other in tied.items():
        state[name] = state[other]
    folder.mkdir(exist_ok=True)
    torch.save(state, folder / file, _use_new_zipfile_serialization=not legacy)


def write_shards(tensors: Tensors, folder: Path, kind: str) -> None:
    """Three shards and their index, safetensors or bin."""
    stem, suffix = ("model", "safetensors") if kind == "safetensors" else ("pytorch_model", "bin")
    weight_map = {}
    for i in range(3):
        part = dict(list(tensors.items())[i::3])
        file = f"{stem}-{i + 1:05}-of-00003.{suffix}"
        if kind == "safetensors":
            write_safetensors(part, folder)
            (folder / "model.safetensors").rename(folder / file)
        else:
            write_bin(part, folder, file=file)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": weight_map}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index, indent=2))


def write_msgpack(tensors: Tensors, folder: Path, towers_twice: bool = False) -> None:
    """flax_model.msgpack as transformers 4 wrote it: a tree with kernels (in, out), scales and embeddings."""
    tree: dict[str, Any] = {}
    for name, value in tensors.items():
        if towers_twice and name.startswith("vision_model."):
            name = f"vision_model.{name}"
        *path, leaf = name.split(".")
        if leaf == "weight":
            table = path[-1].endswith(("_embedding", "_embeddings")) and value.ndim == 2
            leaf = "embedding" if table else "scale" if value.ndim == 1 else "kernel"
        if leaf == "kernel":
            value = value.T if value.ndim == 2 else value.transpose(2, 3, 1, 0)
        layer = tree
        for step in path:
            layer = layer.setdefault(step, {})
        value = np.asarray(value, order="C")
        layer[leaf] = msgpack.ExtType(1, msgpack.packb((value.shape, value.dtype.name, value.tobytes())))
    (folder / "flax_model.msgpack").write_bytes(msgpack.packb(tree))


def pixel_values(folder: Path, images: Sequence[Path], backend: str = "pil") -> Any:
    """Pixels as the folder's image processor makes them, in Pillow where the processor exists there."""
    import torch
    from transformers import AutoImageProcessor, ViTImageProcessorPil

    processor = AutoImageProcessor.from_pretrained(folder, backend=backend)
    if backend == "pil" and "DINOv3" in type(processor).__name__:  # exists for torchvision alone; the same steps
        fields = {name: getattr(processor, name) for name in ("resample", "image_mean", "image_std", "size")}
        processor = ViTImageProcessorPil(**fields)
    pixels = []
    for path in images:
        with Image.open(path) as image:
            pixels.append(processor(image.convert("RGB"), return_tensors="pt").pixel_values)
    return torch.cat(pixels)


def token_inputs(folder: Path, texts: Sequence[str], longest: int, to_length: bool) -> dict[str, Any]:
    """Ids and mask of the folder's tokenizer, cut at its own length or at the longest the tower holds."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    length = min(tokenizer.model_max_length, longest)
    padding = "max_length" if to_length else True
    return dict(tokenizer(list(texts), padding=padding, truncation=True, max_length=length, return_tensors="pt"))


def unit(features: Any) -> np.ndarray:
    values = np.asarray(features.detach().numpy(), np.float64)
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


def open_model(kind: Any, folder: Path) -> Any:
    """The folder's model in float32; every weight comes from its files."""
    import torch

    model, info = kind.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    if info["missing_keys"]:
        raise AssertionError(f"{folder} lacks {info['missing_keys']}")
    return model.eval()


def embed_dual_encoder(folder: Path, images: Sequence[Path], texts: Sequence[str], backend: str = "pil") -> Embeddings:
    """Of a CLIPModel, SiglipModel or VisionTextDualEncoderModel."""
    import torch
    import transformers

    raw = json.loads((folder / "config.json").read_text())
    model = open_model(getattr(transformers, raw["architectures"][0]), folder)
    siglip = raw["model_type"] == "siglip"
    tokens = token_inputs(folder, texts, _longest(model.config.text_config), siglip)
    if siglip:  # which attends to its padding
        tokens.pop("attention_mask", None)
    with torch.no_grad():
        out = model(pixel_values=pixel_values(folder, images, backend), **tokens)
    return {"images": unit(out.image_embeds), "texts": unit(out.text_embeds)}


def embed_vision_tower(folder: Path, images: Sequence[Path], texts: Sequence[str], backend: str = "pil") -> Embeddings:
    """The pooled output of AutoModel."""
    import torch
    from transformers import AutoModel

    model = open_model(AutoModel, folder)
    with torch.no_grad():
        return {"images": unit(model(pixel_values=pixel_values(folder, images, backend)).pooler_output)}


def embed_text_tower(folder: Path, images: Sequence[Path], texts: Sequence[str]) -> Embeddings:
    """The pooled output of AutoModel, of captions as long as a fresh join takes."""
    import torch
    from transformers import AutoModel

    model = open_model(AutoModel, folder)
    tokens = token_inputs(folder, texts, min(_longest(model.config), JOINED_LENGTH), False)
    with torch.no_grad():
        return {"texts": unit(model(**tokens).pooler_output)}


def embed_side(folder: Path, images: Sequence[Path], texts: Sequence[str], side: Opens) -> Embeddings:
    """The features of one tower of a CLIPModel or SiglipModel, before its projection."""
    import torch
    import transformers

    raw = json.loads((folder / "config.json").read_text())
    model = open_model(getattr(transformers, raw["architectures"][0]), folder)
    with torch.no_grad():
        if side == "vision":
            return {"images": unit(model.vision_model(pixel_values=pixel_values(folder, images)).pooler_output)}
        longest = _longest(model.config.text_config)
        return {"texts": unit(model.text_model(**token_inputs(folder, texts, longest, False)).pooler_output)}


def _longest(config: Any) -> int:
    after_padding = config.model_type in ("roberta", "xlm-roberta")
    return config.max_position_embeddings - (config.pad_token_id + 1 if after_padding else 0)


def copy_beside(folder: Path, *left_out: str) -> Path:
    """`model/` copied to `peer/`, but for some files."""
    return Path(shutil.copytree(folder / "model", folder / "peer", ignore=shutil.ignore_patterns(*left_out)))


def model_folder(folder: Path) -> Path:
    model = folder / "model"
    model.mkdir(parents=True)
    return model


def position_ids(tensors: Tensors) -> Tensors:
    """With the buffers that files before 2023 hold."""
    buffers = {}
    for name, value in tensors.items():
        if name.endswith(("position_embedding.weight", "position_embeddings.weight")):
            buffers[name[: name.rindex(".position_")] + ".position_ids"] = np.arange(len(value))[None]
    return buffers | tensors


def layout(name: str, repository: str, opens: Opens, build: Callable[[Path], None], **fields: Any) -> Layout:
    """A layout that transformers opens as a whole or as a tower."""
    default = {"model": embed_dual_encoder, "vision": embed_vision_tower, "text": embed_text_tower}[opens]
    embed = fields.pop("embed", default)
    if fields.get("refused") or not fields.get("pooler", True):
        embed = _nothing

    return Layout(name, repository, opens, build, _of_built(embed), _of_built(embed_dual_encoder), **fields)


def _of_built(embed: Embed) -> Embed:
    return lambda folder, images, texts: embed(peer_folder(folder), images, texts)


def _nothing(folder: Path, images: Sequence[Path], texts: Sequence[str]) -> Embeddings:
    """Of a refused folder; or of one without a pooler, which the peer would draw at random."""
    return {}
