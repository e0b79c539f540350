"""A folder of JPEG files to a file of vectors: whole commands, beside transformers and sentence-transformers.

Ours are `medclip prepare`, which encodes each image anew, and `medclip embed`, with no feature cached; the peers read
the files themselves. clip-retrieval 2.45 is not among them: it wants numpy below 2, pyarrow below 16 and open_clip
below 3. sentence-transformers runs these models in torch alone: what its other backends need, optimum-onnx 0.1 and
optimum-intel 2.2, wants an older transformers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from medclip.model.sentence_modules import write_modules
from performance.models import TRANSFORMERS, choose_images, write_model, write_pairs
from performance.record import MEDCLIP, Bounds, Comparison, Result, Usage, in_new_process, in_turn, ratios, run

IMAGES, FEW = 256, 8
GFLOP = {"small": 11.0, "base": 8.8}
NAMES = {"small": "DINOv2-S", "base": "CLIP ViT-B/32"}
FOLDER = """
files = sorted(Path(sys.argv[2]).glob("*.jpg"), key=lambda path: int(path.stem))
"""
BY_TRANSFORMERS = (
    TRANSFORMERS
    + "from pathlib import Path\n"
    + FOLDER
    + """
with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=sys.argv[4] == "bfloat16"):
    numpy.save(sys.argv[3], numpy.concatenate([embed_images(files[i : i + 64]) for i in range(0, len(files), 64)]))
"""
)
BY_SENTENCE_TRANSFORMERS = (
    """
import sys
from pathlib import Path
import numpy, torch
from PIL import Image
from sentence_transformers import SentenceTransformer
"""
    + FOLDER
    + """
settings = {"torch_dtype": torch.bfloat16} if sys.argv[4] == "bfloat16" else {}
model = SentenceTransformer(sys.argv[1], device="cpu", model_kwargs=settings)
images = [Image.open(file).convert("RGB") for file in files]
numpy.save(sys.argv[3], model.encode(images, batch_size=64, normalize_embeddings=True, convert_to_numpy=True))
"""
)


def measure(bounds: Bounds) -> Iterator[Result]:
    files = choose_images(bounds, bounds.size(IMAGES))
    source, few = (write_pairs(files[:n], bounds.folder / f"source{n}").parent for n in (len(files), FEW))
    for size in NAMES:
        model = write_model(bounds, size)
        in_new_process(write_modules, model, False)  # sentence-transformers opens it by these
        commands = _commands(bounds, model)
        for command in commands.values():
            command(few)  # compiles modules and programs
        usages = in_turn(bounds.rounds, {name: partial(command, source) for name, command in commands.items()})
        yield from _compare(bounds.folder, size, len(files), usages)


def _commands(bounds: Bounds, model: Path) -> dict[str, Callable[[Path], Usage]]:
    """Each writes the vectors of a folder to NAME.npy."""
    commands: dict[str, Callable[[Path], Usage]] = {"ours": partial(_ours, bounds, model, "ours", "jax")}
    if find_spec("openvino"):
        commands["ours by openvino-bf16"] = partial(_ours, bounds, model, "ours by openvino-bf16", "openvino-bf16")
    for peer, script in (("transformers", BY_TRANSFORMERS), ("sentence-transformers", BY_SENTENCE_TRANSFORMERS)):
        for precision in ("float32", "bfloat16"):
            name = f"{peer}, {precision}"
            commands[name] = partial(_theirs, bounds, model, name, script, precision)
    return commands


def _ours(bounds: Bounds, model: Path, name: str, backend: str, source: Path) -> Usage:
    """Both commands; one backend runs whatever it is, with its programs compiled before."""
    with tempfile.TemporaryDirectory(dir=bounds.folder) as folder:
        data, out = Path(folder) / "data", Path(folder) / "out"
        prepared = run([*MEDCLIP, "prepare", source / "pairs.csv", "--out", data, "--num-workers", 1])
        flags = ("--split", "train", "--kinds", "images", "--no-cache", "--backend", backend)
        embedded = run([*MEDCLIP, "embed", "--model", model, "--data", data, "--out", out, *flags])
        order = np.argsort(list(map(int, (out / "ids.txt").read_text().split())))
        np.save(bounds.folder / f"{name}.npy", np.load(out / "images.npy")[order])
    return Usage(prepared.seconds + embedded.seconds, max(prepared.peak_mb, embedded.peak_mb), "")


def _theirs(bounds: Bounds, model: Path, name: str, script: str, precision: str, source: Path) -> Usage:
    out = bounds.folder / f"{name}.npy"
    return run([bounds.peers, "-c", script, model, source / "images", out, precision])


def _compare(folder: Path, size: str, count: int, usages: dict[str, list[Usage]]) -> Iterator[Result]:
    vectors = {name: np.load(folder / f"{name}.npy") for name in usages}
    reference = vectors["transformers, float32"]
    spread = float(np.abs(reference - reference.mean(axis=0)).max())
    differences = {name: float(np.abs(own - reference).max()) for name, own in vectors.items()}
    assert all(difference < spread / 2 for difference in differences.values()), (spread, differences)
    for ours in (name for name in usages if name.startswith("ours")):
        for peer in (name for name in usages if not name.startswith("ours")):
            difference = float(np.abs(vectors[ours] - vectors[peer]).max())
            yield Comparison(
                f"{count} JPEG files to a file of vectors, whole command: {NAMES[size]}{ours.removeprefix('ours')}",
                peer, ratios(usages[peer], usages[ours]), goal=1,
                checked=f"vectors, within {difference:.0e} of numbers that differ by {spread:.0e} between images",
                limit=f"{GFLOP[size] * count / 1e3:.1f} TFLOP",
            )  # fmt: skip
