"""The faiss store: recall of text queries, exact filters, any dimension, damaged files."""

import hashlib
import os
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest

from medclip.errors import UserError
from medclip.search.curate import migrate
from medclip.search.filters import make_filter
from medclip.search.reader import IndexReader
from medclip.search.stores import faiss
from support.made_indexes import brute_force, make_index, matches_brute_force, random_units, unit


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """The index of 20,000 images in clusters, and texts that lie elsewhere but for a part."""
    rng = np.random.default_rng(0)
    centers, modality_gap = rng.standard_normal((400, 64)), np.eye(64)[0] * 8
    clusters = rng.integers(400, size=20_000)
    images = unit(modality_gap + centers[clusters] + 0.7 * rng.standard_normal((20_000, 64)))
    texts = unit(np.eye(64)[1] * 8 + 0.3 * centers[clusters[:200]] + 0.6 * rng.standard_normal((200, 64)))
    folder = make_index(
        tmp_path_factory.mktemp("large") / "i",
        images,
        unit(random_units(10)[:, [0] * 64]),
        metadata=lambda row: {"labels": [("rare", "yes")]} if row < 20_000 and row % 500 == 0 else {},
    )
    migrate(folder, "faiss")
    return IndexReader(folder), texts


@pytest.mark.slow
def test_recall_of_texts_that_lie_far_from_all_images(large):
    reader, texts = large
    assert [path.parent.name for path in reader.folder.rglob(faiss.FAISS_FILE)] == ["00000"]
    rankings, expected = reader.nearest_rows(texts, 10), brute_force(reader, texts, 10)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rankings, expected, strict=True)])
    assert recall >= 0.98


def test_a_filter_that_leaves_few_rows_is_exact(large):
    reader, texts = large
    rare = make_filter({"rare": ["yes"]})
    assert reader.nearest_rows(texts, 50, rare) == brute_force(reader, texts, 50, rare)


def test_a_large_segment_is_answered_from_its_file(large, tmp_path):
    reader, texts = large
    candidates = reader.store.candidates(texts[:2], 10, reader.live_mask, make_filter({}))
    for rows in candidates:
        assert len(rows) == faiss.MIN_CANDIDATES + 10  # estimates of the large segment, a scan of the small one
        assert set(range(20_000, 20_010)) <= set(rows.tolist())


def test_a_file_takes_no_more_memory_than_it_has_bytes(tmp_path):
    """Of 400 kB whose rotation is said to have 2**28 numbers faiss made a gigabyte of zeros before it read any."""
    embeddings, path = unit(np.random.default_rng(0).standard_normal((800, 30))), tmp_path / "x.faiss"
    faiss.write_quantized(path, embeddings)
    content = bytearray(path.read_bytes())
    place = content.index((30 * 30).to_bytes(8, "little"))
    content[place : place + 8] = (2**28).to_bytes(8, "little")
    content[-96:-64] = hashlib.sha256(content[:-96]).digest()
    path.write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(faiss.DAMAGE_ERRORS):
        faiss.open_quantized(path, embeddings)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**17  # kB


@pytest.mark.parametrize("wrap", ["as ours", "IndexPreTransform", "IndexRefine"])
def test_a_file_names_no_other_file(tmp_path, wrap):
    """Lists of faiss can lie in a file that theirs names, which it opens to read and write."""
    library = pytest.importorskip("faiss")
    embeddings, path, other = random_units(300), tmp_path / "x.faiss", tmp_path / "other"
    faiss.write_quantized(path, embeddings)
    index = library.read_index(str(path))
    lists = library.extract_index_ivf(index)
    elsewhere = library.OnDiskInvertedLists(lists.nlist, lists.code_size, str(other))
    elsewhere.merge_from_1(lists.invlists)
    lists.replace_invlists(elsewhere)
    flat = library.IndexFlatIP(index.d)
    flat.add(embeddings)
    outer = index
    if wrap != "as ours":
        outer = library.IndexRefine(index, flat) if wrap == "IndexRefine" else library.IndexPreTransform(index)
    library.write_index(outer, str(path))
    _append_digests(path, embeddings)
    maps = Path("/proc/self/maps")
    before = maps.read_text().count(str(other))
    with pytest.raises(ValueError, match="is damaged"):
        faiss.open_quantized(path, embeddings)
    assert maps.read_text().count(str(other)) <= before


def test_rows_that_are_none_are_no_candidates(tmp_path):
    library = pytest.importorskip("faiss")
    embeddings, path = random_units(300), tmp_path / "x.faiss"
    faiss.write_quantized(path, embeddings)
    content = path.read_bytes()
    ids = library.read_index(str(path))
    lists = library.extract_index_ivf(ids).invlists
    first = library.rev_swig_ptr(lists.get_ids(0), lists.list_size(0)).tobytes()
    path.write_bytes(content[:-96].replace(first, (10**6).to_bytes(8, "little") * (len(first) // 8)))
    _append_digests(path, embeddings)
    quantized = faiss.open_quantized(path, embeddings)
    rows = faiss.search_quantized(quantized, embeddings[:1], 300, np.ones(300, bool), 300)
    assert rows.max() < 300 and (rows == -1).sum() == len(first) // 8


def _append_digests(path, embeddings):
    digests = path.read_bytes(), embeddings.tobytes(), faiss._sample(embeddings).tobytes()
    with path.open("ab") as file:
        file.writelines(hashlib.sha256(content).digest() for content in digests)


@pytest.mark.parametrize("dim", [3, 7, 30, 96])
def test_any_dimension_can_be_quantized(tmp_path, dim):
    embeddings = unit(np.random.default_rng(0).standard_normal((900, dim)))
    faiss.write_quantized(tmp_path / "x.faiss", embeddings)
    quantized = faiss.open_quantized(tmp_path / "x.faiss", embeddings)
    rows = faiss.search_quantized(quantized, embeddings[:9], 40, np.ones(900, bool), 900)
    assert (rows >= 0).all() and all(row in rows[row] for row in range(9))


def test_the_file_of_another_index_is_reported_and_written_again(tmp_path, monkeypatch):
    """It is whole, of as many rows and dimensions; its candidates would be any."""
    monkeypatch.setattr(faiss, "MIN_SEGMENT_ROWS", 100)
    folder, other = (make_index(tmp_path / name, random_units(300, seed)) for seed, name in enumerate("ab"))
    for each in (folder, other):
        migrate(each, "faiss")
    shutil.copy(next(other.rglob(faiss.FAISS_FILE)), next(folder.rglob(faiss.FAISS_FILE)))
    with pytest.raises(UserError, match=rf"of other embeddings; write it again: .* --index {folder} faiss"):
        IndexReader(folder).nearest_rows(random_units(1), 3)
    migrate(folder, "faiss")
    assert matches_brute_force(IndexReader(folder))


@pytest.mark.parametrize("size", [None, 0, 3, 50, 1000, 0.5, -1])
def test_a_damaged_file_is_reported_and_written_again(tmp_path, monkeypatch, size):
    monkeypatch.setattr(faiss, "MIN_SEGMENT_ROWS", 100)
    folder = make_index(tmp_path / "i", random_units(300))
    migrate(folder, "faiss")
    path = next(folder.rglob(faiss.FAISS_FILE))
    if size is None:
        path.unlink()
    else:
        num_bytes = path.stat().st_size
        os.truncate(path, num_bytes + size if size < 0 else int(num_bytes * size) if isinstance(size, float) else size)
    with pytest.raises(UserError, match=rf"write it again: medclip index migrate --index {folder} faiss"):
        IndexReader(folder).nearest_rows(random_units(1), 3)
    migrate(folder, "faiss")
    assert matches_brute_force(IndexReader(folder))
