"""The exact store, faiss and a Milvus server over gRPC give the same results."""

import json
import re
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medclip.data.dataset import Split
from medclip.errors import UserError
from medclip.require import install_command
from medclip.search.curate import add, build_index, delete, migrate, purge, restore, snapshot
from medclip.search.filters import ADDED_KEY, make_filter
from medclip.search.index import Index
from medclip.search.query import Query, SearchOptions, search_embedding, similar
from medclip.search.reader import IndexReader
from medclip.search.stores import faiss, milvus
from support.made_indexes import (
    HOSTILE_VALUES,
    brute_force,
    make_index,
    matches_brute_force,
    random_units,
    row_ids,
    varied_metadata,
)

SEGMENT_ROWS = (400, 200)


@pytest.fixture(scope="module", params=["exact", "faiss", "milvus"])
def store(request):
    """The value of `--vector-store`. The small segments of these tests use the faiss file too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(faiss, "MIN_SEGMENT_ROWS", 100)
        patch.setattr(faiss, "SCAN_FRACTION", 0)
        patch.setattr(milvus, "SCAN_FRACTION", 0)
        patch.setattr(milvus, "CONNECT_TIMEOUT_S", 20)  # milvus-lite ends idle connections; a busy machine is slow
        patch.setattr(faiss, "MIN_CANDIDATES", 100)
        yield request.getfixturevalue("server").uri if request.param == "milvus" else request.param


@pytest.fixture(scope="module")
def shared_reader(store, tmp_path_factory):
    """An index that no test changes."""
    segments = map(random_units, SEGMENT_ROWS, (1, 2))
    folder = make_index(tmp_path_factory.mktemp("shared") / "i", *segments, metadata=varied_metadata)
    migrate(folder, store)
    return IndexReader(folder)


@pytest.fixture
def folder(store, tmp_path):
    """An index for a test to change."""
    folder = make_index(tmp_path / "i", *map(random_units, (150, 120), (3, 4)), metadata=varied_metadata)
    migrate(folder, store)
    return folder


FILTER_VALUES = {
    "modality": ["ct", "MRI", "x-ray", "pet"],
    "organ": ["chest", "Brain"],
    "license": ["cc by", "CC BY-NC", "none"],
    "source": ["ROCO", "drawn"],
    "article": [*HOSTILE_VALUES, "a50", "A51", ""],
    ADDED_KEY: ["2026-11-01", "2026-11-02..", "..2026-11-25", "2026-11-03..2026-11-20"],
}
conditions = st.dictionaries(st.sampled_from(list(FILTER_VALUES)), st.none(), max_size=3).flatmap(
    lambda keys: st.fixed_dictionaries(
        {key: st.lists(st.sampled_from(FILTER_VALUES[key]), min_size=1, max_size=3) for key in keys}
    )
)


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), queries=st.integers(1, 4), k=st.integers(1, 80), conditions=conditions)
def test_every_store_gives_what_brute_force_gives(shared_reader, store, seed, queries, k, conditions):
    embeddings, filter = random_units(queries, seed), make_filter(conditions)
    rankings, expected = (
        shared_reader.nearest_rows(embeddings, k, filter),
        brute_force(shared_reader, embeddings, k, filter),
    )
    if store != "faiss":
        assert rankings == expected
        return
    # its two-bit estimates may rank a hit behind all candidates: a row can be absent, never wrong or out of order
    everything = brute_force(shared_reader, embeddings, sum(SEGMENT_ROWS), filter)
    for ranking, best, every in zip(rankings, expected, everything, strict=True):
        assert len(ranking) == len(best)
        assert ranking == [row for row in every if row in set(ranking)]


@pytest.mark.slow
def test_few_rows_are_missed(shared_reader):
    queries = random_units(1000, 5)
    rankings, expected = shared_reader.nearest_rows(queries, 10), brute_force(shared_reader, queries, 10)
    missing = sum(len(set(best) - set(ranking)) for ranking, best in zip(rankings, expected, strict=True))
    assert missing <= (5 if shared_reader.manifest.vector_store == "faiss" else 0)  # of 10,000


def test_rows_find_themselves_and_more_than_all_are_all(shared_reader):
    rows = np.arange(0, sum(SEGMENT_ROWS), 37)
    rankings = shared_reader.nearest_rows(shared_reader.embeddings_at(rows), 1)
    assert [ranking[0][0] for ranking in rankings] == rows.tolist()
    assert matches_brute_force(shared_reader, k=599) and matches_brute_force(shared_reader, k=10**6)


@pytest.mark.parametrize(
    "value", [*HOSTILE_VALUES, *(f"{key}{sign}{key}" for key in ("row_id", "terms") for sign in "><")]
)
@pytest.mark.parametrize("key", ["article", "modality"])
def test_no_value_of_a_filter_breaks_out_of_it(shared_reader, key, value):
    rankings = shared_reader.nearest_rows(random_units(3, 5), 50, make_filter({key: [value]}))
    rows = map(varied_metadata, range(sum(SEGMENT_ROWS)))
    values = [row["article"] if key == "article" else dict(row["labels"]).get(key) for row in rows]
    expected = {f"r{row}" for row, own in enumerate(values) if own and own.strip().lower() == value.strip().lower()}
    assert all(set(row_ids(shared_reader, ranking)) == expected for ranking in rankings)


def test_a_key_that_no_image_has_is_refused(shared_reader):
    for key in ("row_id", "terms", 'modality"] or labels["x', "embedding"):
        with pytest.raises(UserError, match="no image of the index has"):
            shared_reader.nearest_rows(random_units(1), 3, make_filter({key: ["1"]}))


def test_the_best_image_of_each_article(shared_reader):
    hits = search_embedding(shared_reader, random_units(1, 6)[0], SearchOptions(k=30, group_by="article"))
    best = {}
    for row, score in brute_force(shared_reader, random_units(1, 6), sum(SEGMENT_ROWS))[0]:
        best.setdefault(shared_reader.table.column("article")[row].as_py(), (f"r{row}", score))
    assert [(hit.id, hit.score) for hit in hits] == list(best.values())[:30]


def best_ids(folder, k):
    reader = IndexReader(folder)
    return row_ids(reader, reader.nearest_rows(random_units(1, 8), k)[0])


def test_deleted_rows_are_gone_and_a_snapshot_brings_them_back(folder):
    snapshot(folder, "before")
    best = best_ids(folder, 5)
    assert delete(folder, best[:2], [varied_metadata(100)["article"]]) == 5  # such an article has three images
    assert matches_brute_force(IndexReader(folder)) and not set(best[:2]) & set(best_ids(folder, 300))
    assert restore(folder, "before") == 270
    assert best_ids(folder, 5) == best
    assert matches_brute_force(IndexReader(folder))


def test_an_open_index_answers_as_it_was_opened(folder):
    reader = IndexReader(folder)
    best = row_ids(reader, reader.nearest_rows(random_units(1, 8), 3)[0])
    delete(folder, best[:1])
    later = row_ids(reader, reader.nearest_rows(random_units(1, 8), 3)[0])
    assert later in (best, [*best[1:], later[-1]])  # a server no longer has the row
    assert not reader.is_current()
    assert best[0] not in best_ids(folder, 300)


def test_purged_rows_are_gone_and_the_rest_is_complete(folder):
    delete(folder, ids=[f"r{row}" for row in range(0, 150, 2)])
    assert purge(folder) == 75
    reader = IndexReader(folder)
    assert matches_brute_force(reader, make_filter({"modality": ["ct", "mri"]})) and len(reader) == 195


@pytest.mark.parametrize("other", ["exact", "faiss", "milvus"])
def test_an_index_migrates_between_stores_and_leaves_nothing_behind(folder, other, server):
    vector_store = server.uri if other == "milvus" else other
    migrate(folder, vector_store)
    assert matches_brute_force(IndexReader(folder), make_filter({"license": ["cc by"]}))
    assert json.loads((folder / "index.json").read_text())["vector_store"] == vector_store
    assert bool(list(folder.rglob("*.faiss"))) == (vector_store == "faiss")
    collection = IndexReader(folder).manifest.collection
    assert milvus.connect(server.uri).has_collection(collection) == (other == "milvus")


def test_the_whole_pipeline_gives_the_same_with_every_store(run, data, tmp_path, store, model):
    results = []
    for out, vector_store in ((tmp_path / "exact", "exact"), (tmp_path / "other", store)):
        build_index(run, data, out, "validation", vector_store=vector_store)
        assert add(out, data, "train", None, None)[0] == 13
        assert delete(out, articles=[IndexReader(out).table.column("article")[0].as_py()]) == 2
        index = Index(IndexReader(out), model)
        image = Split(data, "train").image(3)
        queries = [Query(("CT of the chest",)), Query(images=(image,)), Query(("left", "knee"), (), ("CT",))]
        hits = [index.search_many(queries, SearchOptions(k)) for k in (3, 100)]
        results.append((hits, similar(index.reader, 5, SearchOptions(4))))
    assert results[0] == results[1]


def test_another_model_is_refused(run, data, copy, tmp_path, store):
    build_index(run, data, tmp_path / "index", "validation", max_samples=3, vector_store=store)
    other = copy(run)
    (other / "checksums.json").unlink()
    weights = other / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(UserError, match="another model"):
        add(tmp_path / "index", data, "train", None, other)


@pytest.mark.parametrize(
    ("package", "extra", "vector_store"),
    [("faiss", "faiss", "faiss"), ("pymilvus", "milvus", "milvus://127.0.0.1:1")],
)
def test_a_package_that_is_not_installed_is_named_before_a_change(monkeypatch, tmp_path, package, extra, vector_store):
    monkeypatch.setitem(sys.modules, package, None)
    folder = make_index(tmp_path / "i", random_units(10))
    before = (folder / "index.json").read_bytes()
    with pytest.raises(UserError, match=re.escape(install_command(extra))):
        migrate(folder, vector_store)
    assert (folder / "index.json").read_bytes() == before


@pytest.mark.slow
def test_an_index_does_not_change_while_its_store_is_down(tmp_path, start_server):
    server = start_server(tmp_path / "data")
    folder = make_index(tmp_path / "i", random_units(10))
    migrate(folder, server.uri)
    server.stop()
    before = (folder / "index.json").read_bytes()
    with pytest.raises(UserError, match="does not answer"):
        delete(folder, ["r1"])
    assert (folder / "index.json").read_bytes() == before
