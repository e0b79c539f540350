"""A model in other places: as ONNX, or on the Hub."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.export import symbolic_shape

from medclip.atomic_io import whole_file
from medclip.errors import WorkError
from medclip.folder_locks import claim
from medclip.hosts import check_hub_endpoint
from medclip.model.checkpoint import Model, check_model, load, model_folder, model_hash, save, weight_names
from medclip.model.convert import export_safetensors, record_export
from medclip.model.onnx_graph import OPSET, onnx_bytes
from medclip.model.towers import AnyArray, Params, encode_image, encode_text
from medclip.model.weights.weight_files import find_weights
from medclip.recorded_files import EXPORT_FILE
from medclip.require import require

MAX_DIFFERENCE = 1e-5
_CAPTIONS = ["CT of the chest", "a fracture of the left wrist (arrow)", "T2"]
Inputs = dict[str, np.ndarray]


def export_onnx(name: str | Path, out: Path) -> dict[str, float]:
    """Write `image_encoder.onnx` and `text_encoder.onnx` beside the model's folder files in `out`.

    pixel_values f32 (b, 3, s, s) gives image_embeds (b, p); input_ids and attention_mask i64 (b, t) give text_embeds
    (b, p): unit vectors, b and t free. Returns the largest difference from our own embeddings in ONNX Runtime, by
    encoder. Raises UserError where a package is absent, WorkError where they differ by more than MAX_DIFFERENCE; then
    `export.json`, which marks the export as complete, is absent.
    """
    model = load(name)
    model_hash(name)  # or it is damaged
    onnxruntime = require("onnxruntime", extra="onnxruntime")
    require("onnx", extra="onnxruntime")
    differences = {}
    with claim(out, EXPORT_FILE):
        save(model, out)
        for kind, graph, ours in (
            ("image", _image_encoder(model), _embed_example_images),
            ("text", _text_encoder(model), _embed_example_texts),
        ):
            with whole_file(out / f"{kind}_encoder.onnx") as file:
                file.write_bytes(graph)
            session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
            differences[kind] = max(_difference(session, *ours(model, b)) for b in (1, 3))
        if not max(differences.values()) <= MAX_DIFFERENCE:
            raise WorkError(f"the exported encoders differ from the model by {differences}; do not use them.")
        record_export(out, form="onnx", largest_difference=differences, opset=OPSET)
    return differences


def push(name: str | Path, repository: str) -> str:
    """Upload a model folder to a private repository on the Hub, created if absent; returns its address.

    Weights of another form are sent as safetensors.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    check_hub_endpoint()
    folder = model_folder(name)
    load(folder)  # what does not load, or is not as it was written, is not shared
    check_model(folder)
    patterns = ["*.json", "*.safetensors", "*.txt", "*.model", "README.md"]
    try:
        with tempfile.TemporaryDirectory() as copy:
            if not find_weights(folder, weight_names(folder)).name.endswith(".safetensors"):
                export_safetensors(folder, Path(copy))
                folder = Path(copy)
            HfApi().create_repo(repository, private=True, exist_ok=True)
            address = HfApi().upload_folder(
                repo_id=repository, folder_path=folder, allow_patterns=patterns, ignore_patterns=EXPORT_FILE
            )
            return str(address)
    except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OSError) as error:
        raise WorkError(
            f"the Hub did not take {folder}: {str(error).splitlines()[0]} (HF_TOKEN must allow writing)"
        ) from None


def _image_encoder(model: Model) -> bytes:
    def embed(params: Params, pixels: AnyArray) -> AnyArray:
        return encode_image(params, pixels.transpose(0, 2, 3, 1), model.config)

    side = model.image_processor.side
    shape = (*symbolic_shape("b"), 3, side, side)
    return onnx_bytes(embed, model.params, {"pixel_values": jax.ShapeDtypeStruct(shape, np.float32)}, "image_embeds")


def _text_encoder(model: Model) -> bytes:
    def embed(params: Params, ids: AnyArray, mask: AnyArray) -> AnyArray:
        return encode_text(params, ids, mask != 0, model.config)

    shape = symbolic_shape("b, t", constraints=[f"t <= {model.tokenizer.context_length}"])
    tokens = jax.ShapeDtypeStruct(shape, np.int64)
    return onnx_bytes(embed, model.params, {"input_ids": tokens, "attention_mask": tokens}, "text_embeds")


def _embed_example_images(model: Model, b: int) -> tuple[Inputs, AnyArray]:
    """What the encoder is given for a batch of that many, and our embeddings of it."""
    side = model.image_processor.side
    pixels = np.random.default_rng(b).standard_normal((b, 3, side, side), np.float32)
    return {"pixel_values": pixels}, encode_image(model.params, pixels.transpose(0, 2, 3, 1), model.config)


def _embed_example_texts(model: Model, b: int) -> tuple[Inputs, AnyArray]:
    ids, valid = model.tokenizer.encode(_CAPTIONS[:b])
    inputs = {"input_ids": ids.astype(np.int64), "attention_mask": valid.astype(np.int64)}
    return inputs, encode_text(model.params, ids, valid, model.config)


def _difference(session: Any, inputs: Inputs, ours: AnyArray) -> float:
    return float(np.abs(session.run(None, inputs)[0] - ours).max())
