"""Every layout of the gallery opens as its own library opens it, is trained and reloads there; or it is refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from medclip.errors import UserError
from medclip.model.checkpoint import load as load_run
from support import gallery_stored
from support.benchmarks import ROOT
from support.gallery import CLOSE, TEXTS, Embeddings, write_images
from support.gallery_build import LAYOUTS
from support.gallery_ours import PARTNERS, few_pairs, open_layout, our_embeddings, train_two_steps, write_partners

OPENED = [name for name, layout in LAYOUTS.items() if not layout.refused]
REFUSED = [name for name, layout in LAYOUTS.items() if layout.refused]
TRAINED = (
    "clip-transformers-5", "siglip-transformers-5", "siglip2-b16-lowercase", "join-transformers-5", "medclip-roco",
    "dinov2-small", "dinov2-giant", "dinov2-registers", "dinov3-s16", "vit-in21k", "deit-distilled", "clip-as-text",
    "bert-contradicting", "cxr-bert", "roberta-pooler", "xlm-roberta-base", "minilm", "mpnet", "biomedclip",
    "laion-b32-open-clip", "siglip-timm",
)  # fmt: skip
"""One layout of each architecture and of each form that medclip writes; docs/models.md has them all."""
TRAINED_CLOSE = 5e-6  # the same weights, after float32 sums in another order through a whole tower


@pytest.fixture(scope="session")
def gallery(tmp_path_factory) -> Path:
    """A folder for layouts, with those that others need beside them."""
    folder = tmp_path_factory.mktemp("gallery")
    write_partners(folder, LAYOUTS)
    return folder


@pytest.fixture(scope="session")
def pairs(tmp_path_factory) -> Path:
    return few_pairs(tmp_path_factory.mktemp("pairs") / "data")


def build(name: str, gallery: Path) -> Path:
    if not (gallery / name).exists():
        LAYOUTS[name].build(gallery / name)
    return gallery / name


def assert_close(ours: Embeddings, theirs: Embeddings, image_tolerance: float, text_tolerance: float) -> None:
    for kind, tolerance in (("images", image_tolerance), ("texts", text_tolerance)):
        if kind in theirs:
            np.testing.assert_allclose(ours[kind], theirs[kind], atol=tolerance, rtol=0, err_msg=kind)


@pytest.fixture(scope="session")
def stored_gallery(tmp_path_factory) -> Path:
    """A folder for stored layouts, with those that others need beside them."""
    folder = tmp_path_factory.mktemp("stored")
    for name in {*PARTNERS.values(), *(LAYOUTS[name].tokenizer for name in gallery_stored.NAMES)} - {""}:
        gallery_stored.restore(name, folder)
    write_images(folder / "images")
    return folder


@gallery_stored.resized_by_pillow_13
@pytest.mark.parametrize("name", gallery_stored.NAMES)
def test_embeddings_of_files_and_strings_are_the_stored_ones(name: str, stored_gallery: Path) -> None:
    theirs, layout = gallery_stored.restore(name, stored_gallery), LAYOUTS[name]
    images = sorted((stored_gallery / "images").iterdir())
    ours = our_embeddings(open_layout(layout, stored_gallery), images, TEXTS, tuple(theirs))
    assert_close(ours, theirs, layout.image_tolerance, layout.text_tolerance)


def read_file(path: Path) -> bytes:
    """Its content, but for transformers' note of whether it was offline when it wrote the file."""
    return re.sub(rb'("local_files_only": )(true|false)', rb"\1null", path.read_bytes())


@pytest.mark.parity
@pytest.mark.parametrize("name", gallery_stored.NAMES)
def test_the_stored_layouts_are_todays(name: str, stored_gallery: Path, tmp_path: Path) -> None:
    stored = gallery_stored.restore(name, stored_gallery)
    gallery_stored.store(name, tmp_path / name)
    with np.load(tmp_path / name / "references.npz") as today:
        assert_close(dict(today), stored, CLOSE, CLOSE)
    for path in (stored_gallery / name / "model").iterdir():
        if path.suffix in (".json", ".txt", ".model"):
            assert read_file(path) == read_file(tmp_path / name / path.name), path.name


@pytest.mark.parity
@pytest.mark.parametrize("name", [name for name in OPENED if LAYOUTS[name].pooler])
def test_embeddings_of_files_and_strings_are_the_peers(name: str, gallery: Path, tmp_path: Path) -> None:
    layout, folder, images = LAYOUTS[name], build(name, gallery), write_images(tmp_path)
    ours = our_embeddings(open_layout(layout, gallery), images, TEXTS)
    assert_close(ours, layout.embed(folder, images, TEXTS), layout.image_tolerance, layout.text_tolerance)


@pytest.mark.parity
@pytest.mark.parametrize("name", TRAINED)
def test_a_trained_model_reloads_in_the_peer(name: str, gallery: Path, pairs: Path, tmp_path: Path) -> None:
    layout, images = LAYOUTS[name], write_images(tmp_path / "images")
    build(name, gallery)
    train_two_steps(layout, gallery, pairs, tmp_path / "run")
    ours = our_embeddings(load_run(tmp_path / "run"), images, TEXTS)
    theirs = (layout.embed_trained or layout.embed)(tmp_path / "run", images, TEXTS)
    assert theirs.keys() == {"images", "texts"}
    assert_close(ours, theirs, TRAINED_CLOSE, TRAINED_CLOSE)


@pytest.mark.parity
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_read_is_refused_in_one_sentence(name: str, gallery: Path) -> None:
    layout = LAYOUTS[name]
    build(name, gallery)
    with pytest.raises(UserError) as error:
        open_layout(layout, gallery)
    sentence = str(error.value).replace(str(gallery / name), "FOLDER").lower()
    for word in layout.refused:
        assert word.lower() in sentence
    published = (ROOT / "docs/models.md").read_text(encoding="utf-8")
    assert f"| {layout.repository} | {str(error.value).replace(str(gallery / name / 'model'), name)} |" in published
