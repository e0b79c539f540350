"""Really pretrained towers out of packages, on real ROCO pairs: how far medclip is from their libraries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medclip.encode.decode import decode_pixels
from medclip.encode.encoder import caption_features, embed_images, embed_texts, jax_backend
from medclip.model.adapt import join_towers
from medclip.model.checkpoint import Model, save
from support.benchmarks import load_benchmark
from support.gallery_peer import unit
from support.gallery_sentence import open_pooled_join

NUM_SAMPLES = 100


@dataclass(frozen=True)
class Samples:
    """Real images, as files, and their captions."""

    files: list[Path]
    captions: list[str]


@dataclass(frozen=True)
class Towers:
    """DINOv2-small and MiniLM as folders, their join, and the join saved and opened by transformers."""

    vision: Path
    text: Path
    model: Model
    joined: Any


def read_samples(roco: Path) -> Samples:
    """The first pairs of ROCO's validation split whose images are there."""
    folder = roco / "validation" / "radiology"
    lines = (folder / "captions.txt").read_text(encoding="utf-8").splitlines()
    fields = [line.partition("\t") for line in lines]
    pairs = [(folder / "images" / f"{key.strip()}.jpg", caption.strip()) for key, _, caption in fields]
    present = [(file, caption) for file, caption in pairs if file.is_file()][:NUM_SAMPLES]
    return Samples([file for file, _ in present], [caption for _, caption in present])


def open_towers(folder: Path) -> Towers:
    """Both towers written into `folder` and joined. Raises UserError where a package is absent."""
    benchmark = load_benchmark("real_towers")
    vision, text = folder / "dinov2-small", folder / "all-MiniLM-L6-v2"
    benchmark.write_dinov2_small(vision)
    benchmark.write_minilm(text)
    model = join_towers(vision, text, projection_dim=256)
    save(model, folder / "join")
    return Towers(vision, text, model, open_pooled_join(folder / "join")[0])


def largest_difference(ours: Any, theirs: Any) -> float:
    """Of the components of unit vectors."""
    import torch

    ours, theirs = (unit(torch.from_numpy(np.asarray(values))) for values in (ours, theirs))
    return float(np.abs(ours - theirs).max())


def in_batches(run: Callable[[Any], Any], values: Any, size: int = 20) -> Any:
    import torch

    with torch.no_grad():
        return torch.cat([run(values[i : i + size]) for i in range(0, len(values), size)])


def transformers_pixels(folder: Path, files: list[Path]) -> Any:
    import transformers

    processor = transformers.BitImageProcessorPil.from_pretrained(folder)
    return processor([Image.open(file) for file in files], return_tensors="pt").pixel_values


def assert_same_tensors(module: Any, other: Any) -> None:
    """Without the pooler, of which a mean has no use."""
    tensors, others = (
        {name: tensor for name, tensor in x.state_dict().items() if not name.startswith("pooler.")}
        for x in (module, other)
    )
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, others[name], err_msg=name)


def extraction_difference(vision: Path, files: list[Path]) -> float:
    """Of all states of the extracted DINOv2 from those in the graph that the package runs."""
    import onnx
    import onnxruntime
    import transformers

    pixels = transformers_pixels(vision, files)
    graph = onnx.load(str(load_benchmark("real_towers").onnx_file()))
    name = next(node.output[0] for node in graph.graph.node if node.name == "/backbone/layernorm/Add_1")
    graph.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    (theirs,) = session.run([name], {"input_image": pixels.numpy()})
    tower = transformers.Dinov2Model.from_pretrained(vision).eval()
    return largest_difference(in_batches(lambda x: tower(x).last_hidden_state, pixels), theirs)


def image_differences(towers: Towers, files: list[Path]) -> dict[str, float]:
    """Of features and embeddings of image files from transformers'; the join has the tower's tensors bit for bit."""
    import torch
    import transformers

    tower = transformers.Dinov2Model.from_pretrained(towers.vision).eval()
    assert_same_tensors(towers.joined.vision_model, tower)
    features = in_batches(lambda x: tower(x).pooler_output, transformers_pixels(towers.vision, files))
    with torch.no_grad():
        embeddings = towers.joined.visual_projection(features)
    pixels = np.stack([decode_pixels(file, towers.model.image_processor) for file in files])
    return {
        "features": largest_difference(jax_backend(towers.model).image_features(pixels), features),
        "embeddings": largest_difference(embed_images(towers.model, files), embeddings),
    }


def caption_differences(towers: Towers, captions: list[str]) -> dict[str, float]:
    """Of features of captions from sentence-transformers', and of embeddings by the join's projection of those."""
    import torch
    from sentence_transformers import SentenceTransformer

    tower = SentenceTransformer(str(towers.text), device="cpu")
    assert_same_tensors(towers.joined.text_model, tower[0].auto_model)
    tower.max_seq_length = towers.model.tokenizer.context_length
    features = tower.encode(captions)
    with torch.no_grad():
        embeddings = towers.joined.text_projection(torch.from_numpy(features))
    return {
        "features": largest_difference(caption_features(jax_backend(towers.model), captions), features),
        "embeddings": largest_difference(embed_texts(towers.model, captions), embeddings),
    }
