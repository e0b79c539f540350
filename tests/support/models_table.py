"""docs/models.md: every layout of the gallery, what it opens as and how far from its peer it is.

cd tests && ../.venv-parity/bin/python -m support.models_table > ../docs/models.md
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from medclip.errors import UserError
from medclip.model.checkpoint import load as open_run
from support import (
    gallery_clip,
    gallery_joins,
    gallery_open_clip,
    gallery_refused,
    gallery_sentence,
    gallery_text,
    gallery_vision,
    real_towers,
)
from support.gallery import TEXTS, Embeddings, Layout, write_images
from support.gallery_ours import few_pairs, open_layout, our_embeddings, train_two_steps
from support.gallery_peer import embed_dual_encoder, embed_vision_tower

INTRODUCTION = """# Models

A model is a folder, a run, or a repository of the Hub. A dual encoder is fine-tuned, evaluated and searched as it is;
two towers are joined by fresh projections; a folder without a tokenizer borrows one. Commands: [train.md](train.md);
from other libraries: [migrate.md](migrate.md).

Weights are read from safetensors; where there are none, from the conversion that the Hub keeps in a pull request, from
`flax_model.msgpack`, or from `.bin`, by a reader that builds nothing but tensors. The image processor, the tokenizer
and the context length are those of the folder. `medclip export MODEL --to safetensors` writes any of them as
safetensors, `--to open_clip` as a folder of open_clip.

## How the tables were made

Each folder is built with the files, the names and the settings of its repository, but with narrow towers, small
vocabularies and weights drawn at random. Image files (color and gray, ragged sizes) and strings (accents, upper case,
literal special tokens, longer than the context) go through medclip and through the library that the folder belongs to:
{versions}.

- *images*, *texts*: the largest absolute difference between components of unit vectors. A tower is compared by its
  pooled features. "fresh": the repository holds no pooler, so a join starts with a random one.
- *trained*: the same after two training steps, where the library opens what medclip saved.
- Images go through the library's Pillow processor, since medclip decodes and resizes with Pillow. torchvision's
  processors move the embeddings by {torchvision}.
- Random narrow towers test files and formulas; the last table has real weights.

Made by `make parity; cd tests && ../.venv-parity/bin/python -m support.models_table > ../docs/models.md`.
"""
SECTIONS: tuple[tuple[str, Sequence[Layout]], ...] = (
    ("Dual encoders of transformers", (*gallery_clip.LAYOUTS, *gallery_joins.LAYOUTS)),
    ("Vision towers", gallery_vision.LAYOUTS),
    ("Text towers", gallery_text.LAYOUTS),
    ("open_clip and timm", gallery_open_clip.LAYOUTS),
    ("sentence-transformers, as text towers", gallery_sentence.LAYOUTS),
    ("Others", gallery_refused.LAYOUTS),
)
ROCO = Path(__file__).parents[3] / "shared" / "roco"
PEERS = ("transformers", "torch", "open_clip_torch", "timm", "sentence-transformers")


def difference(ours: Embeddings, theirs: Embeddings, *kinds: str) -> str:
    return f"{max(np.abs(ours[kind] - theirs[kind]).max() for kind in kinds):.0e}"


def row(layout: Layout, gallery: Path, data: Path, images: Sequence[Path]) -> str:
    """One line of the table of what opens."""
    theirs = layout.embed(gallery / layout.name, images, TEXTS)
    ours = our_embeddings(open_layout(layout, gallery), images, TEXTS)
    cells = {kind: difference(ours, theirs, kind) for kind in theirs}
    if not layout.pooler:
        cells = {f"{layout.opens}s".replace("visions", "images"): "fresh"}
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        train_two_steps(layout, gallery, data, run)
        ours = our_embeddings(open_run(run), images, TEXTS)
        theirs = (layout.embed_trained or layout.embed)(run, images, TEXTS)
    trained = difference(ours, theirs, "images", "texts")
    return f"| {layout.repository} | {cells.get('images', '')} | {cells.get('texts', '')} | {trained} |"


def refusal(layout: Layout, gallery: Path) -> str:
    """One line of the table of what is refused: the sentence that a user reads."""
    try:
        open_layout(layout, gallery)
    except UserError as error:
        sentence = str(error).replace(str(gallery / layout.name / "model"), layout.name)
        return f"| {layout.repository} | {sentence} |"
    raise AssertionError(f"{layout.name} opens")


def torchvision_differences(gallery: Path, images: Sequence[Path]) -> str:
    """How far the embeddings of torchvision's processors are from those of Pillow's."""
    parts = []
    towers = {"CLIP": "clip-transformers-5", "SigLIP": "siglip-b16", "DINOv2": "dinov2-small", "DINOv3": "dinov3-s16"}
    for title, name in towers.items():
        embed = embed_vision_tower if title.startswith("DINO") else embed_dual_encoder
        model = gallery / name / "model"
        pillow, torchvision = (embed(model, images, TEXTS, backend) for backend in ("pil", "torchvision"))
        parts.append(f"{difference(pillow, torchvision, 'images')} ({title})")
    return ", ".join(parts)


def real_rows(folder: Path) -> list[str]:
    """Two lines, of the towers that install from packages; ROCO lies beside the repository."""
    towers, samples = real_towers.open_towers(folder), real_towers.read_samples(ROCO)
    vision = real_towers.image_differences(towers, samples.files)
    text = real_towers.caption_differences(towers, samples.captions)
    return [
        f"| facebook/dinov2-small, {len(samples.files)} images of ROCO | {vision['features']:.0e} "
        f"| {vision['embeddings']:.0e} |",
        f"| sentence-transformers/all-MiniLM-L6-v2, {len(samples.captions)} captions of ROCO | {text['features']:.0e} "
        f"| {text['embeddings']:.0e} |",
    ]


def table(title: str, header: str, lines: Sequence[str]) -> None:
    if lines:
        print(f"\n## {title}\n\n| {header} |\n|{'---|' * (header.count('|') + 1)}", *lines, sep="\n", flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        gallery = Path(scratch)
        layouts = {layout.name: layout for _, section in SECTIONS for layout in section}
        for layout in layouts.values():
            layout.build(gallery / layout.name)
        images, data = write_images(gallery / "images"), few_pairs(gallery / "data")
        versions = ", ".join(f"{name} {version(name)}" for name in PEERS)
        print(INTRODUCTION.format(versions=versions, torchvision=torchvision_differences(gallery, images)), end="")
        for title, section in SECTIONS:
            lines = [row(layout, gallery, data, images) for layout in section if not layout.refused]
            table(title, "repository or layout | images | texts | trained", lines)
        lines = [refusal(layout, gallery) for layout in layouts.values() if layout.refused]
        table("Refused", "repository or layout | answer", lines)
        if ROCO.is_dir():
            table("Real weights", "tower | features | embeddings of a join", real_rows(gallery / "real"))


if __name__ == "__main__":
    import jax
    import transformers

    jax.config.update("jax_disable_most_optimizations", True)  # compilation is most of the time, as in the tests
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    main()
