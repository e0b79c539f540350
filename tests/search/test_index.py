"""An index answers with the nearest first, remembers its model, and says when it is damaged."""

import json
import os
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.data.shards import Split
from medclip.errors import UserError
from medclip.search.index import Hit, Index, build_index
from medclip.search.query import search


@pytest.fixture(scope="module")
def index(index_folder):
    return Index(index_folder)


def plain_index(vectors):
    """An index that is nothing but vectors; a hit's id is its row."""
    index = Index.__new__(Index)
    index.vectors = vectors
    index._hit = lambda row, score: Hit(str(row), score, "", "", "", b"")
    return index


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 1000))
def test_search_equals_a_full_sort(n, k, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((n, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    query = vectors[rng.integers(n)]
    scores = vectors @ query
    hits = plain_index(vectors).search(query, k)
    assert [int(hit.id) for hit in hits] == np.argsort(-scores, kind="stable")[:k].tolist()
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


@given(st.lists(st.integers(-2, 2), min_size=1, max_size=40), st.integers(1, 50))
def test_equal_scores_keep_row_order(scores, k):
    hits = plain_index(np.array(scores, np.float32)[:, None]).search(np.ones(1, np.float32), k)
    assert [int(hit.id) for hit in hits] == sorted(range(len(scores)), key=lambda row: (-scores[row], row))[:k]


def test_every_picture_finds_itself_first(index, data):
    rows = Split(data, "validation")
    for number, id in enumerate(rows.column("id")):
        best = search(index, rows.image(number), 3)[0]
        assert best.id == id
        assert best.score == pytest.approx(1, abs=1e-5)  # float32 through the tower, twice


def test_a_hit_carries_its_own_row(index, data):
    rows = Split(data, "validation")
    for hit in search(index, "CT of the chest", 12):
        row = rows.column("id").index(hit.id)
        assert (hit.caption, hit.article) == (rows.column("caption")[row], rows.column("article")[row])
        assert (hit.licence, hit.image) == ("CC BY", rows.image(row))
        assert -1 - 1e-6 <= hit.score <= 1 + 1e-6


def test_words_bring_hits_best_first_and_no_more_than_there_are(index):
    hits = search(index, "CT of the chest", 100)
    assert len({hit.id for hit in hits}) == len(hits) == 12
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert search(index, "CT of the chest", 3) == hits[:3]


@pytest.mark.parametrize("query", ["", "  \n"])
def test_an_empty_query_is_refused(index, query):
    with pytest.raises(UserError, match="the query is empty"):
        search(index, query, 3)


@pytest.mark.parametrize(("picture", "sentence"), [(b"no picture", "the picture: image unreadable"), (None, "missing")])
def test_a_picture_that_cannot_be_read_is_refused(index, tmp_path, picture, sentence):
    with pytest.raises(UserError, match=sentence):
        search(index, picture or tmp_path / "absent.png", 3)


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


@pytest.mark.parametrize("name", ["vectors.npy", "rows.arrow"])
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
    np.save(folder / "vectors.npy", np.load(folder / "vectors.npy")[:-1])
    with pytest.raises(UserError, match="disagree"):
        Index(folder)


@pytest.mark.parametrize("missing", ["pairs", "dimensions", "model", "model_sha256"])
def test_an_index_json_without_a_field_is_refused(index_folder, copy, missing):
    folder = copy(index_folder)
    about = json.loads((folder / "index.json").read_text())
    del about[missing]
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
