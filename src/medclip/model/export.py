"""A model in other forms: ONNX, through transformers and torch, which open the folder as it is, and that of 2021."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from medclip.atomic_io import claim, write_json
from medclip.errors import UserError, WorkError
from medclip.model import flax2021
from medclip.model.checkpoint import Model, load, model_folder, save
from medclip.model.tokenizer import save_tokenizer
from medclip.model.towers import encode_image, encode_text

CLOSE = 1e-4
_CLASSES = {
    "clip": "CLIPModel",
    "siglip": "SiglipModel",
    "vision-text-dual-encoder": "VisionTextDualEncoderModel",
}
_OPSET = 20


def export_onnx(name: str | Path, out: Path) -> dict[str, float]:
    """Write `image_encoder.onnx` and `text_encoder.onnx` beside the model's folder files in `out`.

    pixel_values f32 (b, 3, s, s) gives image_embeds (b, p); input_ids i64 (b, t), with attention_mask i64 (b, t) but
    for SigLIP, gives text_embeds (b, p): unit vectors, b free. Returns the largest difference from our own vectors in
    ONNX Runtime. UserError where torch is not installed or the folder is open_clip's; WorkError where they differ by
    more than 1e-4, and then `export.json`, which says that all is whole, is not written.
    """
    model = load(name)
    if "model_cfg" in model.raw_config:
        raise UserError(f"{name} is open_clip's: transformers, which the export goes through, does not open it.")
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
        import torch
        import transformers
    except ImportError as error:
        raise UserError(f"{error}. The export needs: pip install torch transformers onnxscript onnxruntime") from None
    claim(out, "export.json")
    save(model, out)
    theirs = getattr(transformers, _CLASSES[model.raw_config["model_type"]]).from_pretrained(out).eval()
    image, text = _examples(model, 2)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        for library in ("torch.onnx", "onnxscript", "onnx_ir"):  # they tell of each optimization they leave out
            logging.getLogger(library).setLevel(logging.CRITICAL)
        for kind, given in (("image", image), ("text", text)):
            _write(theirs, kind, given, out / f"{kind}_encoder.onnx", torch)
    told = {kind: _difference(model, kind, out) for kind in ("image", "text")}
    if not max(told.values()) <= CLOSE:
        raise WorkError(f"the exported encoders differ from the model by {told}; they are not to be used.")
    write_json(out / "export.json", {"largest_difference": told, "opset": _OPSET})
    return told


def export_flax(name: str | Path, out: Path) -> None:
    """Write the folder of a FlaxHybridCLIP of 2021; UserError for a model that is no VisionTextDualEncoderModel."""
    model = load(name)
    if model.raw_config.get("model_type") != "vision-text-dual-encoder":
        raise UserError(f"{name} is no VisionTextDualEncoderModel, the only kind that FlaxHybridCLIP held.")
    claim(out, flax2021.WEIGHTS)
    write_json(out / "config.json", {**model.raw_config, "model_type": "hybrid-clip", "architectures": ["HybridCLIP"]})
    write_json(out / "preprocessor_config.json", model.preprocessor)
    save_tokenizer(model.tokenizer, out)
    towers = {tower.prefix: tower.model_type for tower in (model.config.vision, model.config.text)}
    flax2021.write(model.params, towers, out / flax2021.WEIGHTS)


def push(name: str | Path, repository: str) -> str:
    """Upload a model folder to a private repository on the Hub, made if absent; returns its address."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    folder = model_folder(name)
    load(folder)  # what does not load is not shared
    kept = ["*.json", "*.safetensors", "*.txt", "README.md"]
    try:
        HfApi().create_repo(repository, private=True, exist_ok=True)
        return str(HfApi().upload_folder(repo_id=repository, folder_path=folder, allow_patterns=kept))
    except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OSError) as error:
        raise WorkError(
            f"the Hub did not take {folder}: {str(error).splitlines()[0]} (HF_TOKEN must allow writing)"
        ) from None


def _examples(model: Model, b: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    side = model.config.vision.image_size
    pixels = np.random.default_rng(b).standard_normal((b, 3, side, side), np.float32)
    ids, valid = model.tokenizer.encode(["CT of the chest", "a fracture of the left wrist (arrow)", "T2"][:b])
    mask = {} if model.config.logit_bias else {"attention_mask": valid.astype(np.int64)}
    return {"pixel_values": pixels}, {"input_ids": ids.astype(np.int64), **mask}


def _write(theirs: Any, kind: str, given: dict[str, np.ndarray], path: Path, torch: Any) -> None:
    features = theirs.get_image_features if kind == "image" else theirs.get_text_features

    class Encoder(torch.nn.Module):
        """The tower whose features these are, to unit length."""

        def __init__(self) -> None:
            super().__init__()
            self.model = theirs

        def forward(self, *arrays: Any) -> Any:
            found = features(**dict(zip(given, arrays, strict=True)))
            return torch.nn.functional.normalize(getattr(found, "pooler_output", found), dim=-1)

    batch = torch.export.Dim("batch")
    torch.onnx.export(
        Encoder(),
        tuple(torch.from_numpy(array) for array in given.values()),
        path,
        input_names=list(given),
        output_names=[f"{kind}_embeds"],
        dynamic_shapes={"arrays": tuple({0: batch} for _ in given)},
        opset_version=_OPSET,
        external_data=False,
        dynamo=True,
        verbose=False,
    )


def _difference(model: Model, kind: str, out: Path) -> float:
    """The largest over batches of 1 and 3, sizes that the exporter did not see."""
    import onnxruntime

    session = onnxruntime.InferenceSession(out / f"{kind}_encoder.onnx", providers=["CPUExecutionProvider"])
    found = []
    for b in (1, 3):
        image, text = _examples(model, b)
        if kind == "image":
            ours = encode_image(model.params, image["pixel_values"].transpose(0, 2, 3, 1), model.config)
        else:
            ids = text["input_ids"]
            valid = text.get("attention_mask", np.ones_like(ids)).astype(bool)  # SigLIP attends to all
            ours = encode_text(model.params, ids, valid, model.config)
        theirs = session.run(None, image if kind == "image" else text)[0]
        found.append(float(np.abs(np.asarray(ours) - theirs).max()))
    return max(found)
