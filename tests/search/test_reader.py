"""A reader ranks the nearest rows first, remembers its model, and says when the folder is damaged."""

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.atomic_io import write_with_checksum
from medclip.errors import UserError, WorkError
from medclip.search.curate import build_index
from medclip.search.reader import IndexReader
from support.made_indexes import make_index, matches_brute_force, random_units, unit


def reader_of(*segments):
    """A reader of segments of embeddings; its files stay open when the folder is gone."""
    with tempfile.TemporaryDirectory() as folder:
        return IndexReader(make_index(Path(folder) / "i", *segments))


@given(st.integers(1, 30), st.integers(1, 10), st.integers(1, 50), st.integers(0, 1000))
def test_the_ranking_equals_a_full_sort(n, m, k, seed):
    rng = np.random.default_rng(seed)
    embeddings = unit(rng.standard_normal((n + m, 8)))
    queries = embeddings[rng.integers(n + m, size=2)]
    scores = embeddings.astype(np.float64) @ queries.T.astype(np.float64)
    rankings = reader_of(embeddings[:n], embeddings[n:]).nearest_rows(queries, k)
    for ranking, query_scores in zip(rankings, scores.T, strict=True):
        assert [row for row, _ in ranking] == np.argsort(-query_scores, kind="stable")[:k].tolist()
        assert [score for _, score in ranking] == pytest.approx(np.sort(query_scores)[::-1][:k], abs=1e-12)


@given(st.lists(st.integers(-2, 2), min_size=1, max_size=40), st.integers(1, 50))
def test_equal_scores_keep_row_order(scores, k):
    cosines = np.array(scores, np.float32) / 2
    embeddings = np.column_stack([cosines, np.sqrt(1 - cosines**2)])
    (ranking,) = reader_of(embeddings).nearest_rows(np.array([[1, 0]], np.float32), k)
    assert [row for row, _ in ranking] == sorted(range(len(scores)), key=lambda row: (-scores[row], row))[:k]


@pytest.mark.parametrize("dim", [3, 96, 512])
def test_equal_embeddings_have_equal_scores_wherever_they_lie(dim):
    embedding = unit(np.random.default_rng(0).standard_normal(dim))
    embeddings = np.tile(embedding, (1001, 1))  # kernels treat the last rows of a block in another way
    (ranking,) = reader_of(embeddings[:500], embeddings[500:]).nearest_rows(embeddings[:1], 1001)
    assert [row for row, _ in ranking] == list(range(1001))
    assert len({score for _, score in ranking}) == 1


def test_images_of_one_id_are_told_apart_by_their_hash(tmp_path):
    """Two datasets may number their images."""
    reader = IndexReader(make_index(tmp_path / "i", unit(np.eye(3)), metadata=lambda row: {"id": "1"}))
    hashes = [hashlib.sha256(str(row).encode()).hexdigest() for row in range(3)]
    assert [reader.find_rows("1"), *(reader.find_rows("1", sha256) for sha256 in hashes)] == [[0, 1, 2], [0], [1], [2]]
    assert reader.find_rows("1", "of another index") == reader.find_rows("2") == []
    assert [reader.hit(row, 0).sha256 for row in range(3)] == hashes


def test_another_model_is_refused(index_folder, run, copy):
    other = copy(run)
    weights = other / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"model.safetensors is damaged: it is not as it was written"):
        IndexReader(index_folder).model_path(other)
    (other / "checksums.json").unlink()
    with pytest.raises(UserError, match="was made by another model"):
        IndexReader(index_folder).model_path(other)
    assert IndexReader(index_folder).model_path(run) == run


def test_a_missing_model_is_asked_for(index_folder, tmp_path):
    copied = shutil.copytree(index_folder, tmp_path / "far" / "away" / "index")
    with pytest.raises(UserError, match="say where it is with --model"):
        IndexReader(copied).model_path()


def test_index_and_model_may_move_together(run, data, tmp_path):
    shutil.copytree(run / "model", tmp_path / "a" / "run" / "model")
    build_index(tmp_path / "a" / "run", data, tmp_path / "a" / "index", max_samples=3)
    (tmp_path / "a").rename(tmp_path / "b")
    assert IndexReader(tmp_path / "b" / "index").model_path() == tmp_path / "b" / "run" / "model"


@pytest.mark.parametrize("name", ["segments/00000/embeddings.npy", "segments/00000/rows.arrow"])
@pytest.mark.parametrize("size", [None, 0, 7, 100, 1000])
def test_a_damaged_file_is_reported(index_folder, copy, name, size):
    folder = copy(index_folder)
    if size is None:
        (folder / name).unlink()
    else:
        os.truncate(folder / name, size)
    with pytest.raises(UserError, match="is damaged"):
        IndexReader(folder)


def test_files_of_another_length_are_refused(index_folder, copy):
    folder = copy(index_folder)
    path = folder / "segments" / "00000" / "embeddings.npy"
    np.save(path, np.load(path)[:-1])
    with pytest.raises(UserError, match="disagree"):
        IndexReader(folder)


def test_a_file_that_is_written_over_while_it_is_open_answers_nothing(tmp_path):
    """It is mapped: a shorter one would end the process (SIGBUS), another of its length would answer for it."""
    folder = make_index(tmp_path / "i", random_units(30))
    for name in ("embeddings.npy", "rows.arrow"):
        path = folder / "segments" / "00000" / name
        content, reader = path.read_bytes(), IndexReader(folder)
        for written in (content[:100], content[::-1]):
            path.write_bytes(written)
            assert not reader.is_current()
            with pytest.raises(WorkError, match=f"{path} was written over while it was open"):
                reader.nearest_rows(random_units(1), 3)
        path.write_bytes(content)
        assert matches_brute_force(IndexReader(folder))


@pytest.mark.parametrize("change", [Path.unlink, lambda path: Path(shutil.copy(path, f"{path}.new")).replace(path)])
def test_a_file_that_is_removed_or_replaced_while_it_is_open_answers_as_it_was(tmp_path, change):
    folder = make_index(tmp_path / "i", random_units(30))
    reader = IndexReader(folder)
    for path in (folder / "segments" / "00000").iterdir():
        change(path)
    assert matches_brute_force(reader) and not reader.is_current()


@pytest.mark.parametrize(("name", "old"), [("embeddings.npy", None), ("rows.arrow", b"CT"), ("rows.arrow", b"PMC")])
def test_rows_that_are_not_those_that_were_written_are_refused(index_folder, copy, name, old):
    """Unit vectors and whole texts all the same."""
    path = copy(index_folder) / "segments" / "00000" / name
    content = path.read_bytes()
    path.write_bytes(content.replace(old, old[::-1]) if old else content[:-1] + bytes([content[-1] ^ 128]))
    with pytest.raises(UserError, match=f"{path} is not as it was written"):
        IndexReader(path.parents[2])


def test_an_image_that_is_another_than_was_written_is_never_shown(tmp_path, caplog):
    folder = make_index(tmp_path / "i", random_units(3), metadata=lambda row: {"image": b"image %d" % row})
    rows = folder / "segments" / "00000" / "rows.arrow"
    rows.write_bytes(rows.read_bytes().replace(b"image 1", b"image 2", 1))
    reader = IndexReader(folder)
    assert [reader.hit(row, 0).image for row in range(3)] == [b"image 0", b"", b"image 2"]
    assert "an image of the index is not the one that was written" in caplog.text
    with pytest.raises(WorkError, match="the image of r1 is not the one that was written"):
        reader.image(1)


def change_manifest(folder, change):
    fields = json.loads((folder / "index.json").read_text())
    change(fields)
    write_with_checksum(folder / "index.json", fields)


@pytest.mark.parametrize("name", ["num_pairs", "embedding_dim", "model", "model_sha256", "segments"])
def test_a_manifest_without_a_field_is_damaged(index_folder, copy, name):
    folder = copy(index_folder)
    change_manifest(folder, lambda fields: fields.pop(name))
    with pytest.raises(UserError, match="is damaged"):
        IndexReader(folder)


@pytest.mark.parametrize(
    "changes", [{"num_pairs": 11}, {"deleted": [1]}, {"segments": []}, {"segments": [{"name": "x"}]}]
)
def test_a_manifest_that_contradicts_itself_is_damaged(index_folder, copy, changes):
    folder = copy(index_folder)
    change_manifest(folder, lambda fields: fields.update(changes))
    with pytest.raises(UserError, match="is damaged"):
        IndexReader(folder)


def test_a_segment_never_lies_outside_the_index(index_folder, copy):
    folder = copy(index_folder)
    shutil.copytree(folder / "segments" / "00000", folder.parent / "elsewhere")
    change_manifest(folder, lambda fields: fields["segments"][0].update(name="../../elsewhere"))
    with pytest.raises(UserError, match="not the plain name"):
        IndexReader(folder)


def test_another_folder_is_not_an_index(tmp_path):
    with pytest.raises(UserError, match="is not an index"):
        IndexReader(tmp_path)
