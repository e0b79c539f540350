"""A model in other places: as ONNX, through torch and the library whose folder it is, or on the Hub."""

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int32

from medclip.errors import UserError, WorkError
from medclip.folder_locks import claim
from medclip.hosts import check_hub_endpoint
from medclip.model.checkpoint import Model, load, model_folder, model_hash, save, weight_names
from medclip.model.convert import EXPORT_FILE, export_safetensors, record_export
from medclip.model.towers import encode_image, encode_text
from medclip.model.weights.weight_files import find_weights
from medclip.require import require

MAX_DIFFERENCE = 1e-4
Inputs = dict[str, np.ndarray]
_CLASSES = {
    "clip": "CLIPModel",
    "metaclip_2": "MetaClip2Model",
    "siglip": "SiglipModel",
    "vision-text-dual-encoder": "VisionTextDualEncoderModel",
}
_PACKAGES = "torch transformers onnxscript onnxruntime"
_OPSET = 20


def export_onnx(name: str | Path, out: Path) -> dict[str, float]:
    """Write `image_encoder.onnx` and `text_encoder.onnx` beside the model's folder files in `out`.

    pixel_values f32 (b, 3, s, s) gives image_embeds (b, p); input_ids i64 (b, t), with attention_mask i64 (b, t) except
    for SigLIP and open_clip's folders, gives text_embeds (b, p): unit vectors, b free. Returns the largest difference
    from our own embeddings in ONNX Runtime, by encoder. Raises UserError where a package is absent, WorkError where
    they differ by more than MAX_DIFFERENCE; then `export.json`, which marks the export as complete, is absent.
    """
    model = load(name)
    model_hash(name)  # or it is damaged
    if not model.config.text.opens_in_transformers:
        raise UserError(
            f"{name} pools text as sentence-transformers does ({model.config.text.model_type}): transformers, which "
            "the export goes through, does not open it."
        )
    for package in ("onnxruntime", "onnxscript"):
        require(package, install=_PACKAGES)
    torch = require("torch", install=_PACKAGES)
    with claim(out, EXPORT_FILE):
        save(model, out)
        image_features, text_features = _torch_encoders(model, out)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter's own deprecations
            for library in ("torch.onnx", "onnxscript", "onnx_ir"):  # they tell of each optimization they leave out
                logging.getLogger(library).setLevel(logging.CRITICAL)
            _write(image_features, "image", _image_inputs(model, 2), out, torch)
            _write(text_features, "text", text_encoder_inputs(model, *_tokens(model, 2)), out, torch)
        differences = {"image": _image_difference(model, out), "text": _text_difference(model, out)}
        if not max(differences.values()) <= MAX_DIFFERENCE:
            raise WorkError(f"the exported encoders differ from the model by {differences}; do not use them.")
        record_export(out, form="onnx", largest_difference=differences, opset=_OPSET)
    return differences


def text_encoder_inputs(model: Model, ids: Int32[np.ndarray, "b t"], valid: Bool[np.ndarray, "b t"]) -> Inputs:
    """The inputs of `text_encoder.onnx` for token ids."""
    if "model_cfg" in model.raw_config or model.config.text.family.reads_padding:
        return {"input_ids": ids.astype(np.int64)}
    return {"input_ids": ids.astype(np.int64), "attention_mask": valid.astype(np.int64)}


def push(name: str | Path, repository: str) -> str:
    """Upload a model folder to a private repository on the Hub, created if absent; returns its address.

    Weights of another form are sent as safetensors.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    check_hub_endpoint()
    folder = model_folder(name)
    load(folder)  # what does not load is not shared
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


def _image_inputs(model: Model, b: int) -> Inputs:
    side = model.image_processor.side
    return {"pixel_values": np.random.default_rng(b).standard_normal((b, 3, side, side), np.float32)}


def _tokens(model: Model, b: int) -> tuple[Int32[np.ndarray, "b t"], Bool[np.ndarray, "b t"]]:
    return model.tokenizer.encode(["CT of the chest", "a fracture of the left wrist (arrow)", "T2"][:b])


def _torch_encoders(model: Model, folder: Path) -> tuple[Any, Any]:
    """What gives image and text features in torch, as methods of the model that the folder's own library opens."""
    if "model_cfg" in model.raw_config:
        create_model = require("open_clip", install=f"open_clip_torch {_PACKAGES}").create_model
        try:
            torch_model = create_model(f"local-dir:{folder.resolve()}").eval()
        except (OSError, RuntimeError, ValueError, AssertionError) as error:
            raise WorkError(f"open_clip does not open the model: {str(error).strip().splitlines()[0]}") from None
        return torch_model.encode_image, torch_model.encode_text
    transformers = require("transformers", install=_PACKAGES)
    torch_model = getattr(transformers, _CLASSES[model.raw_config["model_type"]]).from_pretrained(folder).eval()
    return torch_model.get_image_features, torch_model.get_text_features


def _write(get_features: Any, kind: Literal["image", "text"], inputs: Inputs, out: Path, torch: Any) -> None:
    by_name = get_features.__name__.startswith("get")  # transformers'

    class Encoder(torch.nn.Module):
        """A tower with its projection, to unit length."""

        def __init__(self) -> None:
            super().__init__()
            self.model = get_features.__self__

        def forward(self, *arrays: Any) -> Any:
            features = get_features(**dict(zip(inputs, arrays, strict=True))) if by_name else get_features(*arrays)
            return torch.nn.functional.normalize(getattr(features, "pooler_output", features), dim=-1)

    batch = torch.export.Dim("batch")
    torch.onnx.export(
        Encoder(),
        tuple(torch.from_numpy(array) for array in inputs.values()),
        out / f"{kind}_encoder.onnx",
        input_names=list(inputs),
        output_names=[f"{kind}_embeds"],
        dynamic_shapes={"arrays": tuple({0: batch} for _ in inputs)},
        opset_version=_OPSET,
        external_data=False,
        dynamo=True,
        verbose=False,
    )


def _image_difference(model: Model, out: Path) -> float:
    """The largest over batches of 1 and 3, sizes that the exporter did not see."""
    difference = 0.0
    for b in (1, 3):
        inputs = _image_inputs(model, b)
        ours = encode_image(model.params, inputs["pixel_values"].transpose(0, 2, 3, 1), model.config)
        difference = max(difference, float(np.abs(_run(out / "image_encoder.onnx", inputs) - ours).max()))
    return difference


def _text_difference(model: Model, out: Path) -> float:
    difference = 0.0
    for b in (1, 3):
        ids, valid = _tokens(model, b)
        ours = encode_text(model.params, ids, valid, model.config)
        theirs = _run(out / "text_encoder.onnx", text_encoder_inputs(model, ids, valid))
        difference = max(difference, float(np.abs(theirs - ours).max()))
    return difference


def _run(path: Path, inputs: Inputs) -> np.ndarray:
    onnxruntime = require("onnxruntime", install=_PACKAGES)
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, inputs)[0]
