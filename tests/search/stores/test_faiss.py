"""What faiss does for itself: words find their images, filters lose none, files that are damaged are made anew."""

import os

import numpy as np
import pytest

from medclip.errors import UserError
from medclip.search.curate import move
from medclip.search.filters import where
from medclip.search.index import Index
from medclip.search.stores import base, faiss
from support.made_indexes import is_right, make_index, random_units, sorted_whole, unit


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """20,000 images in clusters, words that lie elsewhere but for a part, and the index of the images."""
    rng = np.random.default_rng(0)
    centers, gap = rng.standard_normal((400, 64)), np.eye(64)[0] * 8
    of = rng.integers(400, size=20_000)
    pictures = unit(gap + centers[of] + 0.7 * rng.standard_normal((20_000, 64)))
    words = unit(np.eye(64)[1] * 8 + 0.3 * centers[of[:200]] + 0.6 * rng.standard_normal((200, 64)))
    rare = {row: {"labels": [("rare", "yes")]} for row in range(0, 20_000, 500)}
    folder = make_index(
        tmp_path_factory.mktemp("large") / "i",
        pictures,
        random_units(10)[:, [0] * 64],
        about=lambda row: rare.get(row, {}),
    )
    move(folder, "faiss")
    return Index(folder), words


def test_faiss_finds_what_words_are_nearest_to(large):
    index, words = large
    assert [path.parent.name for path in index.folder.rglob(faiss.FILE)] == ["00000"]
    found, right = index.search(words, 10), sorted_whole(index, words, 10)
    recall = np.mean([len(set(some) & set(all_of)) / 10 for some, all_of in zip(found, right, strict=True)])
    assert recall >= 0.98


def test_a_filter_that_leaves_few_loses_none(large):
    index, words = large
    rare = where({"rare": ["yes"]})
    assert index.search(words, 50, rare) == sorted_whole(index, words, 50, rare)


def test_a_large_segment_is_answered_from_its_file(large, monkeypatch):
    index, words = large
    scanned = []
    monkeypatch.setattr(faiss, "scan", lambda *given: scanned.append(given[3].sum()) or base.scan(*given))
    index.search(words[:2], 10)
    assert scanned == [10]  # the small segment


@pytest.mark.parametrize("dimensions", [3, 7, 30, 96])
def test_any_dimensions_can_be_quantized(tmp_path, dimensions):
    vectors = unit(np.random.default_rng(0).standard_normal((900, dimensions)))
    faiss._make(tmp_path / "x.faiss", vectors)
    found = faiss._nearest(faiss._open(tmp_path / "x.faiss", vectors), vectors[:9], 40, np.ones(900, bool))
    assert (found >= 0).all() and all(row in found[row] for row in range(9))


@pytest.mark.parametrize("size", [None, 0, 3, 50, 1000, 0.5, -1])
def test_a_damaged_file_of_faiss_is_named_and_made_anew(tmp_path, monkeypatch, size):
    monkeypatch.setattr(faiss, "LEAST", 100)
    folder = make_index(tmp_path / "i", random_units(300))
    move(folder, "faiss")
    path = next(folder.rglob(faiss.FILE))
    if size is None:
        path.unlink()
    else:
        whole = path.stat().st_size
        os.truncate(path, whole + size if size < 0 else int(whole * size) if isinstance(size, float) else size)
    with pytest.raises(UserError, match=rf"make it anew: medclip index migrate --index {folder} faiss"):
        Index(folder).search(random_units(1), 3)
    move(folder, "faiss")
    assert is_right(Index(folder))
