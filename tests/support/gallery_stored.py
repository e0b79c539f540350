"""Layouts of the gallery stored without their weights, which follow from names and shapes; and the peers' embeddings.

cd tests && python -m support.gallery_stored   # in the parity environment: writes support/gallery
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from packaging.version import Version

from medclip.model.checkpoint import Model
from support.gallery import TEXTS, Embeddings, example_weight, peer_folder, write_images
from support.gallery_peer import write_msgpack
from support.gallery_tokenizers import write_json
from support.torch_files import write_state_dict

STORED = Path(__file__).parent / "gallery"
NAMES = (
    "openai-clip-b32", "clip-transformers-5", "clip-slow-tokenizer", "clip-rsicd", "siglip-b16",
    "siglip-transformers-5", "siglip2-b16", "siglip2-b16-lowercase", "join-transformers-5", "medclip-roco",
    "dinov2-small", "dinov2-giant", "dinov2-registers", "dinov3-s16", "vit-in21k", "bert-base", "scibert",
    "bio-clinicalbert", "bert-contradicting", "roberta-pooler",
    "biomedclip", "siglip-timm", "siglip2-so400m-timm", "metaclip2", "clipa", "xlm-roberta-b32", "minilm", "mpnet",
)  # fmt: skip
resized_by_pillow_13 = pytest.mark.skipif(
    Version(PIL.__version__) < Version("13"),
    reason="what is stored is of images that Pillow 13 resized; 12 differs in some pixels, by up to 9 of 255",
)
WEIGHTS_FILE = "tensors.json"
_SUFFIXES = (".safetensors", ".bin", ".msgpack")


def store(name: str, folder: Path) -> None:
    """Store one layout in `folder`, built by the live peer."""
    from support.gallery_build import LAYOUTS

    with tempfile.TemporaryDirectory() as scratch:
        built = Path(scratch)
        LAYOUTS[name].build(built)
        shutil.copytree(built / "model", folder, ignore=shutil.ignore_patterns(*(f"*{s}" for s in _SUFFIXES)))
        weights = sorted(path for path in (built / "model").iterdir() if path.suffix in _SUFFIXES)
        write_json(folder / WEIGHTS_FILE, {path.name: _tensors(path, built) for path in weights})
        embeddings = LAYOUTS[name].embed(built, write_images(built / "images"), TEXTS)
        np.savez_compressed(folder / "references.npz", **embeddings)


def restore(name: str, folder: Path) -> Embeddings:
    """Write the stored layout with its weights into `folder`/NAME/model; the peer's embeddings."""
    model = folder / name / "model"
    if not model.exists():
        ignored = shutil.ignore_patterns(WEIGHTS_FILE, "references.npz", "copies.json")
        shutil.copytree(STORED / name, model, ignore=ignored)
        copies = _read(STORED / name / "copies.json")
        for file, source in copies.items():
            shutil.copyfile(STORED / source, model / file)
        for file, tensors in _read(STORED / copies.get(WEIGHTS_FILE, f"{name}/{WEIGHTS_FILE}")).items():
            _write_weights(model / file, tensors)
    with np.load(STORED / name / "references.npz") as stored:
        return dict(stored)


def stored_model(name: str, folder: Path) -> Model:
    """The model of a stored layout, restored into `folder`; a tower is joined to its partner."""
    from support.gallery_build import LAYOUTS
    from support.gallery_ours import PARTNERS, open_layout

    for each in {name, *PARTNERS.values(), LAYOUTS[name].tokenizer} - {""}:
        restore(each, folder)
    return open_layout(LAYOUTS[name], folder)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _tensors(path: Path, built: Path) -> dict[str, Any]:
    """The shape of every tensor, or the name of the one whose values it repeats."""
    import torch
    from safetensors.torch import load_file

    if path.suffix == ".msgpack":  # whose names are those of the same weights elsewhere
        elsewhere = next(peer_folder(built).glob("*model.*n*"))
        return {name: shape for name, shape in _tensors(elsewhere, built).items() if not name.endswith("position_ids")}
    tensors = load_file(path) if path.suffix == ".safetensors" else torch.load(path)
    shapes: dict[str, Any] = {}
    for name, tensor in tensors.items():
        same = [other for other in shapes if tensors[other].data_ptr() == tensor.data_ptr()]
        shapes[name] = same[0] if same else list(tensor.shape)
        if not same:
            np.testing.assert_array_equal(tensor.numpy(), _values(name, shapes))
    return shapes


def _values(name: str, shapes: dict[str, Any]) -> np.ndarray:
    shape = shapes[name]
    if isinstance(shape, str):
        return _values(shape, shapes)
    return np.arange(shape[1])[None] if name.endswith("position_ids") else example_weight(name, shape)


def _write_weights(path: Path, shapes: dict[str, Any]) -> None:
    from safetensors.numpy import save_file

    tensors = {name: _values(name, shapes) for name in shapes}
    if path.suffix == ".msgpack":
        write_msgpack(tensors, path.parent, towers_twice="hybrid-clip" in (path.parent / "config.json").read_text())
    elif path.suffix == ".safetensors":
        save_file(tensors, path, metadata={"format": "pt"})
    else:
        write_state_dict(path, {name: value for name, value in tensors.items() if value.dtype == np.float32})


def _share_files() -> None:
    """Replace large files that are stored a second time by the name of the first."""
    first: dict[bytes, Path] = {}
    for path in filter(Path.is_file, sorted(STORED.glob("*/*"))):
        content = path.read_bytes()
        if path.name != "copies.json" and len(content) > 4000 and content in first:
            copies = path.parent / "copies.json"
            write_json(copies, {**_read(copies), path.name: str(first[content].relative_to(STORED))})
            path.unlink()
        first.setdefault(content, path)


if __name__ == "__main__":
    import transformers

    transformers.utils.logging.disable_progress_bar()
    shutil.rmtree(STORED, ignore_errors=True)
    for name in NAMES:
        store(name, STORED / name)
    _share_files()
    print(sum(path.stat().st_size for path in STORED.rglob("*")) // 1000, "kB")
