"""Weight files of every form: which one of a folder is read, under what names, checked before any tensor is.

Safetensors first, then Flax's msgpack, then torch's pickles, which are read as data (`torch_file`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from medclip.atomic_io import MAX_JSON_BYTES, file_name, read_json
from medclip.bounded_files import read_bounded, read_text
from medclip.errors import UserError
from medclip.model.folder_files import check_inside
from medclip.model.shapes_init import Shapes
from medclip.model.unsupported import describe_other_files
from medclip.model.weights import flax_file, torch_file
from medclip.model.weights.lazy_tensor import LazyTensor

LOG = logging.getLogger("medclip.model")
WEIGHTS_FILE, OPEN_CLIP_WEIGHTS_FILE = "model.safetensors", "open_clip_model.safetensors"
# In the order in which they are preferred.
TRANSFORMERS_FILES = (WEIGHTS_FILE, "flax_model.msgpack", "pytorch_model.bin")
OPEN_CLIP_FILES = (OPEN_CLIP_WEIGHTS_FILE, "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
_TORCH_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
_TRAINER_FILES = re.compile(r"optimizer|scheduler|scaler|rng_state|training_args")
_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
}  # fmt: skip
_FLOATS = ("float16", "bfloat16", "float32", "float64")
# Names that GPTQ, AWQ and bitsandbytes give to packed weights and their scales.
_QUANTIZED = re.compile(r"\.(SCB|qweight|qzeros|absmax|quant_map|nested_absmax|quant_state\..*|weight_scale(_inv)?)$")
_WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.")
_MAX_WRAPPERS = 4  # around each other
_MAX_NAMES, _MAX_NAME_CHARACTERS = 4, 200  # of a sentence


def choose_weights(files: Collection[str], names: Sequence[str] = TRANSFORMERS_FILES) -> str | None:
    """The first of `names` that is among the files of a folder, whole or as the index of its shards.

    Where there is none, a single checkpoint of another name in torch's format, as training runs leave it.
    """
    for name in names:
        if name in files or f"{name}.index.json" in files:
            return name
    others = [file for file in files if file.endswith(_TORCH_SUFFIXES[1:]) and not _TRAINER_FILES.search(file)]
    return others[0] if len(others) == 1 else None


def open_tensors(folder: Path, names: Sequence[str] = TRANSFORMERS_FILES) -> dict[str, LazyTensor]:
    """Every tensor of a folder's weights under its canonical name, of one file or of all its shards.

    Warns where they are not the folder's own safetensors. Raises UserError for absent, damaged or foreign files.
    """
    tensors: dict[str, LazyTensor] = {}
    weights = find_weights(folder, names)
    for path in weights.paths:
        for name, tensor in _open_file(path).items():
            if name in tensors:
                raise UserError(f"{path} holds {name} a second time.")
            tensors[name] = tensor
    if not weights.name.endswith(".safetensors"):
        LOG.warning(
            "%s: weights read from %s; `medclip export MODEL --to safetensors` copies them.", folder, weights.name
        )
    return _with_canonical_names(tensors, folder)


class Weights(NamedTuple):
    """The files that a model's weights are read from, and their name for the user."""

    paths: list[Path]
    name: str
    """Such as "model.safetensors", "pytorch_model.bin" or "model.safetensors of refs/pr/7"."""


def find_weights(folder: Path, names: Sequence[str] = TRANSFORMERS_FILES) -> Weights:
    """A folder's own weights; of a snapshot of the Hub without any, the conversion that lies beside it in the cache.

    Raises UserError where there are none, and as `path_inside` does.
    """
    name, origin = choose_weights(_file_names(folder), names), ""
    if name is None:
        conversions = find_conversions(folder, names)
        if len(conversions) != 1:
            several = f" The cache has those of {', '.join(conversions)}; give one as revision." if conversions else ""
            others = several or describe_other_files(path.name for path in (*folder.glob("*"), *folder.glob("*/*")))
            raise UserError(f"{folder} has no weights: looked for {', '.join(names)}.{others}")
        [(reference, folder)] = conversions.items()
        name, origin = str(choose_weights(_file_names(folder), names)), f" of {reference}"
    index = folder / f"{name}.index.json"
    files = [name] if (folder / name).exists() or not index.exists() else shard_names(index)
    return Weights([path_inside(folder, file) for file in files], name + origin)


def find_conversions(folder: Path, names: Sequence[str] = TRANSFORMERS_FILES) -> dict[str, Path]:
    """Snapshots of pull requests beside a snapshot in the Hub's cache that hold safetensors of the same config.

    By reference, such as "refs/pr/7".
    """
    snapshot = folder.resolve()
    if snapshot.parent.name != "snapshots":
        return {}
    conversions: dict[str, Path] = {}
    for reference in sorted(filter(Path.is_file, (snapshot.parents[1] / "refs/refs/pr").glob("*"))):
        other = snapshot.parent / Path(read_text(reference, errors="replace").strip()).name
        if other == snapshot or not other.is_dir():
            continue
        configs = [other / "config.json", folder / "config.json"]
        configs = [read_bounded(path, MAX_JSON_BYTES) for path in configs if path.is_file()]
        if len({*configs}) <= 1 and (choose_weights(_file_names(other), names) or "").endswith(".safetensors"):
            conversions[f"refs/pr/{reference.name}"] = other
    return conversions


def _file_names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def shard_names(index: Path) -> list[str]:
    """The files that an index of shards lists."""
    content = read_json(index, "a model folder")
    shards = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(shards, dict) or not shards:
        raise UserError(f"{index} is damaged: it has no weight_map.")
    return sorted({file_name(shard, f"{index}: weight_map.{name}") for name, shard in shards.items()})


def path_inside(folder: Path, name: str) -> Path:
    """The path of a folder's file. Raises UserError where it is absent or leads out of the folder."""
    path = folder / name
    if not path.is_file():  # a pipe or a device would never end
        raise UserError(f"{folder} has no {name}." if not path.exists() else f"{path} is not a file.")
    check_inside(folder, path)
    return path


def canonical(name: str) -> str | None:
    """Today's name of a tensor; None for buffers that are not weights.

    Older files call a norm's weight and bias gamma and beta, and repeat the name of a tower.
    """
    if name.endswith(("position_ids", "token_type_ids", "attn_mask", "num_batches_tracked")):
        return None
    name = re.sub(r"(?<=LayerNorm\.)(gamma|beta)$", lambda m: {"gamma": "weight", "beta": "bias"}[m[0]], name)
    return re.sub(r"^(vision_model|text_model)\.\1\.", r"\1.", name)


def _with_canonical_names(stored: Mapping[str, LazyTensor], folder: Path) -> dict[str, LazyTensor]:
    """The tensors without buffers and without the prefixes of wrappers (DataParallel, torch.compile, FSDP)."""
    for _ in range(_MAX_WRAPPERS):
        prefix = next((p for p in _WRAPPERS if all(name.startswith(p) for name in stored)), "")
        stored = {name.removeprefix(prefix): tensor for name, tensor in stored.items()}
    stored = without_attribute(stored, "logit_scale".__eq__)
    tensors: dict[str, LazyTensor] = {}
    for stored_name, tensor in stored.items():
        name = canonical(stored_name)
        if name in tensors:
            raise UserError(f"{folder} holds {name} a second time, as {stored_name}.")
        if name is not None:
            tensors[name] = tensor
    return tensors


def without_attribute(tensors: Mapping[str, LazyTensor], is_known: Callable[[str], bool]) -> Mapping[str, LazyTensor]:
    """Tensors without the name of the attribute that held the model in another one, as Lightning saves them (`model.`).

    Every name begins with it; a known one is behind it, and none is known as it is.
    """
    prefix = _common_prefix(tensors)
    bare = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return bare if any(map(is_known, bare)) and not any(map(is_known, tensors)) else tensors


def _open_file(path: Path) -> dict[str, LazyTensor]:
    with path.open("rb") as file:
        if file.read(24) == b"version https://git-lfs.":
            raise UserError(f"{path} is Git LFS's pointer to the weights, not the weights: git lfs pull fetches them.")
    if path.suffix == ".msgpack":
        return flax_file.open_tensors(path)
    return torch_file.open_tensors(path) if path.suffix in _TORCH_SUFFIXES else _open_safetensors(path)


def _open_safetensors(path: Path) -> dict[str, LazyTensor]:
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  no mapping
            kinds = {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged: {error}.") from None
    return {
        name: LazyTensor(shape, _DTYPES.get(str(dtype), str(dtype).lower()), partial(_read_safetensor, path, name))
        for name, (shape, dtype) in kinds.items()
    }


def _read_safetensor(path: Path, name: str) -> np.ndarray:
    # Opened for each: one file held open keeps every page that was read in memory, beside the arrays.
    with safe_open(path, framework="numpy") as file:
        return file.get_tensor(name)


def read_tensors(tensors: Mapping[str, LazyTensor], shapes: Shapes, source: Path | str) -> dict[str, np.ndarray]:
    """Exactly the tensors of `shapes` in float32.

    Raises one UserError that names what is missing, unexpected, misshapen, quantized, not of floats or not finite.
    """
    for name, tensor in tensors.items():
        if _QUANTIZED.search(name) or tensor.dtype.startswith(("float8", "float4", "f8", "f4", "int8")):
            raise UserError(
                f"{source} holds quantized weights ({name} is {tensor.dtype}), which medclip does not compute with; "
                "give the model that they were made from."
            )
    faults = _faults(tensors, shapes)
    arrays = {name: np.asarray(tensors[name].read(), np.float32).reshape(shapes[name]) for name in shapes if not faults}
    if infinite := [name for name, value in arrays.items() if not np.isfinite(value).all()]:
        faults.append(_some([f"{name} is not finite" for name in infinite], "; "))
    if faults:
        raise UserError(f"{source} does not fit its config: {'; '.join(faults)}.")
    return arrays


def _faults(tensors: Mapping[str, LazyTensor], shapes: Shapes) -> list[str]:
    """What is wrong with unread tensors: some names of every kind of fault."""
    missing, unexpected = sorted(shapes.keys() - tensors.keys()), sorted(tensors.keys() - shapes.keys())
    shared = sorted(tensors.keys() & shapes.keys())
    misshapen = [
        f"{name} has shape {tensors[name].shape}, its config asks for {shapes[name]}"
        for name in shared
        if tensors[name].shape != shapes[name] and not _are_scalars(tensors[name].shape, shapes[name])
    ]
    integers = [f"{name} holds {tensors[name].dtype}" for name in shared if tensors[name].dtype not in _FLOATS]
    prefix = _common_prefix(tensors)
    faults = [f"every name begins with {prefix!r}"] if any(prefix + name in tensors for name in missing) else []
    faults += [f"missing {_some(missing)}"] if missing else []
    faults += [f"unexpected {_some(unexpected)}"] if unexpected else []
    return faults + [_some(group, "; ") for group in (misshapen, integers) if group]


def _common_prefix(names: Collection[str]) -> str:
    """The longest beginning of all names that ends with a dot."""
    first, last = min(names, default=""), max(names, default="")  # of all, these have least in common
    end = next((i for i, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))
    return first[: first.rfind(".", 0, end) + 1]


def _are_scalars(*shapes: tuple[int, ...]) -> bool:
    """A logit scale is () in one library's files and (1,) in another's."""
    return all(prod(shape) == 1 and len(shape) <= 1 for shape in shapes)


def _some(names: Iterable[str], separator: str = ", ") -> str:
    names = [name[:_MAX_NAME_CHARACTERS] for name in names]
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return separator.join(names[:_MAX_NAMES]) + more
