"""An index answers with the nearest first, remembers its model, and says when it is damaged."""

import json
import os
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.errors import UserError
from medclip.search.curate import build_index
from medclip.search.index import Index
from medclip.search.stores.base import ExactStore


def plain_index(*segments):
    """An index that is nothing but segments of vectors, all rows counting."""
    index = Index.__new__(Index)
    firsts = np.cumsum([0, *map(len, segments)])
    index.vectors = list(zip(firsts.tolist(), segments, strict=False))
    index.contents = type("Contents", (), {"dimensions": segments[0].shape[1]})
    live = np.ones(firsts[-1], bool)
    index.allowed = lambda asked: live
    index.store = ExactStore(index)
    return index


@given(st.integers(1, 30), st.integers(1, 10), st.integers(1, 50), st.integers(0, 1000))
def test_search_equals_a_full_sort(n, m, k, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((n + m, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = vectors[rng.integers(n + m, size=2)]
    scores = vectors.astype(np.float64) @ queries.T.astype(np.float64)
    for found, said in zip(plain_index(vectors[:n], vectors[n:]).search(queries, k), scores.T, strict=True):
        assert [row for row, _ in found] == np.argsort(-said, kind="stable")[:k].tolist()
        assert [score for _, score in found] == pytest.approx(np.sort(said)[::-1][:k], abs=1e-12)


@given(st.lists(st.integers(-2, 2), min_size=1, max_size=40), st.integers(1, 50))
def test_equal_scores_keep_row_order(scores, k):
    found = plain_index(np.array(scores, np.float32)[:, None]).search(np.ones((1, 1), np.float32), k)[0]
    assert [row for row, _ in found] == sorted(range(len(scores)), key=lambda row: (-scores[row], row))[:k]


@pytest.mark.parametrize("dimensions", [3, 96, 512])
def test_equal_vectors_have_equal_scores_wherever_they_lie(dimensions):
    rng = np.random.default_rng(0)
    one = rng.standard_normal(dimensions).astype(np.float32)
    vectors = np.tile(one / np.linalg.norm(one), (1001, 1))  # kernels treat the last rows of a block in another way
    found = plain_index(vectors[:500], vectors[500:]).search(vectors[:1], 1001)[0]
    assert [row for row, _ in found] == list(range(1001))
    assert len({score for _, score in found}) == 1


def test_another_model_is_refused(index_folder, run, copy):
    other = copy(run)
    weights = other / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(UserError, match="was made by another model"):
        Index(index_folder).model(other)
    assert Index(index_folder).model(run) == run


def test_a_model_that_moved_is_asked_for(index_folder, tmp_path):
    moved = shutil.copytree(index_folder, tmp_path / "far" / "away" / "index")
    with pytest.raises(UserError, match="say where with --model"):
        Index(moved).model()


@pytest.mark.parametrize("name", ["segments/00000/vectors.npy", "segments/00000/rows.arrow"])
@pytest.mark.parametrize("size", [None, 0, 7, 100, 1000])
def test_a_damaged_file_is_refused_by_a_sentence(index_folder, copy, name, size):
    folder = copy(index_folder)
    if size is None:
        (folder / name).unlink()
    else:
        os.truncate(folder / name, size)
    with pytest.raises(UserError, match="is damaged"):
        Index(folder)


def test_files_of_another_length_are_refused(index_folder, copy):
    folder = copy(index_folder)
    vectors = folder / "segments" / "00000" / "vectors.npy"
    np.save(vectors, np.load(vectors)[:-1])
    with pytest.raises(UserError, match="disagree"):
        Index(folder)


@pytest.mark.parametrize("missing", ["pairs", "dimensions", "model", "model_sha256", "segments"])
def test_an_index_json_without_a_field_is_refused(index_folder, copy, missing):
    folder = copy(index_folder)
    about = json.loads((folder / "index.json").read_text())
    del about[missing]
    (folder / "index.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match="is damaged"):
        Index(folder)


@pytest.mark.parametrize("wrong", [{"pairs": 11}, {"deleted": [1]}, {"segments": []}, {"segments": [{"name": "x"}]}])
def test_an_index_json_that_contradicts_itself_is_refused(index_folder, copy, wrong):
    folder = copy(index_folder)
    about = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(about | wrong))
    with pytest.raises(UserError, match="is damaged"):
        Index(folder)


def test_a_segment_never_lies_outside_the_index(index_folder, copy):
    folder = copy(index_folder)
    about = json.loads((folder / "index.json").read_text())
    about["segments"][0]["name"] = "../../elsewhere"
    (folder / "index.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match="is damaged"):
        Index(folder)


def test_another_folder_is_refused_by_a_sentence(tmp_path):
    with pytest.raises(UserError, match="is not an index"):
        Index(tmp_path)


def test_a_finished_index_is_never_overwritten(index_folder, run, data):
    with pytest.raises(UserError, match="already finished"):
        build_index(run, data, index_folder)


def test_index_and_model_may_move_together(index_folder, run, data, tmp_path):
    shutil.copytree(run / "model", tmp_path / "a" / "run" / "model")
    build_index(tmp_path / "a" / "run", data, tmp_path / "a" / "index", limit=3)
    (tmp_path / "a").rename(tmp_path / "b")
    assert Index(tmp_path / "b" / "index").model() == tmp_path / "b" / "run" / "model"
