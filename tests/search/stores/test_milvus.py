"""The Milvus store: a lost server or collection, a kill, secrets."""

import time
from functools import partial

import numpy as np
import pymilvus
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.errors import UserError
from medclip.search import curate
from medclip.search.curate import add, build_index, delete, migrate, purge
from medclip.search.filters import ADDED_KEY, Filter, make_filter
from medclip.search.reader import IndexReader
from medclip.search.stores import milvus
from medclip.search.stores.base import ExactStore
from support.made_indexes import DIM, make_index, matches_brute_force, random_units, varied_metadata


def test_a_server_that_does_not_answer_is_one_sentence_before_any_work(tmp_path, run, data, capfd):
    folder, uri = make_index(tmp_path / "i", random_units(10)), "milvus://127.0.0.1:1"
    start = time.monotonic()
    for work in (
        lambda: migrate(folder, uri),
        lambda: build_index(run, data, tmp_path / "new", "validation", vector_store=uri),
    ):
        with pytest.raises(UserError, match=r"^the Milvus server at 127\.0\.0\.1:1 does not answer"):
            work()
    assert time.monotonic() - start < 120  # its library tries again for minutes
    assert IndexReader(folder).manifest.vector_store == "exact" and not (tmp_path / "new").exists()
    assert capfd.readouterr() == ("", "")  # what its library would log


@pytest.mark.slow
def test_a_lost_server_is_named_and_can_be_left(tmp_path, start_server, capfd):
    server = start_server(tmp_path / "data")
    folder = make_index(tmp_path / "i", random_units(20))
    migrate(folder, server.uri)
    reader = IndexReader(folder)
    assert matches_brute_force(reader)
    server.stop()
    start = time.monotonic()
    with pytest.raises(UserError, match=f"127.0.0.1:{server.port} does not answer"):
        reader.nearest_rows(random_units(1), 3)
    assert time.monotonic() - start < milvus.QUERY_TIMEOUT_S + 120
    with pytest.raises(UserError, match="does not answer"):
        IndexReader(folder)
    capfd.readouterr()
    migrate(folder, "exact")
    assert f"{server.uri} keeps its copy of the index" in capfd.readouterr().err.replace("\n", " ")
    assert matches_brute_force(IndexReader(folder))


@pytest.mark.slow
def test_a_lost_or_changed_collection_is_repaired_by_migrate(tmp_path, server):
    folder = make_index(tmp_path / "i", random_units(60), metadata=varied_metadata)
    migrate(folder, server.uri)
    name, client = IndexReader(folder).manifest.collection, milvus.connect(server.uri)
    remedy = f"medclip index migrate --index {folder} {server.uri}"
    client.delete(name, ids=list(range(7, 20)))
    with pytest.raises(UserError, match=f"has 47 rows and the index 60; bring it up to date: {remedy}"):
        IndexReader(folder).nearest_rows(random_units(1), 3)
    migrate(folder, server.uri)
    assert matches_brute_force(IndexReader(folder))
    client.drop_collection(name)
    with pytest.raises(UserError, match=f"has no collection {name}; bring it up to date: {remedy}"):
        IndexReader(folder).nearest_rows(random_units(1), 3)
    migrate(folder, server.uri)
    assert matches_brute_force(IndexReader(folder), make_filter({"organ": ["chest"]}))


def test_each_difference_of_a_collection_is_found(tmp_path, server):
    folder = make_index(tmp_path / "i", random_units(60), metadata=varied_metadata)
    migrate(folder, server.uri)
    name, client = IndexReader(folder).manifest.collection, milvus.connect(server.uri)
    assert [*IndexReader(folder).store.differences()] == []
    rows = {row["row_id"]: row for row in client.get(name, ids=[20, 21, 22], output_fields=["*"])}
    client.delete(name, ids=[7, 8])
    rows[20]["embedding"] = -np.array(rows[20]["embedding"], np.float32)
    rows[21]["terms"] = [*rows[21]["terms"], 5]
    client.upsert(name, [*rows.values(), {**rows[22], "row_id": 1000}])
    differences = [(d.name, d.problem, d.rows.tolist()) for d in IndexReader(folder).store.differences()]
    collection = f"{server.uri}/{name}"
    assert differences == [
        (collection, "lacks rows of the index", [7, 8]),
        (collection, "has 1 rows that the index has not", []),
        (collection, "holds rows that differ from those of the index", [20, 21]),
    ]
    client.drop_collection(name)
    (absent,) = IndexReader(folder).store.differences()
    assert (absent.problem, len(absent.rows)) == ("is absent", 60)


def test_a_collection_that_the_server_does_not_hold_loaded_is_loaded(tmp_path, server):
    folder = make_index(tmp_path / "i", random_units(60), metadata=varied_metadata)
    migrate(folder, server.uri)
    reader, client = IndexReader(folder), milvus.connect(server.uri)
    release = partial(client.release_collection, reader.manifest.collection)  # as milvus-lite does when it starts
    release()
    assert matches_brute_force(reader)
    release()
    with pytest.raises(UserError, match="does not answer as it should"):
        reader.nearest_rows(random_units(1), 3)
    assert matches_brute_force(reader)  # the query after it
    release()
    assert [*IndexReader(folder).store.differences()] == []
    release()
    delete(folder, ["r1"])
    assert matches_brute_force(IndexReader(folder))


def test_rows_sent_before_a_kill_are_not_sent_again(tmp_path, server, monkeypatch):
    folder = make_index(tmp_path / "i", random_units(90), metadata=varied_metadata)
    monkeypatch.setattr(milvus, "UPSERT_BYTES", 10 * 4 * DIM)
    upsert, batch_sizes, max_batches = pymilvus.MilvusClient.upsert, [], 4

    def interrupted_upsert(self, name, entities, **options):
        if len(batch_sizes) == max_batches:
            raise KeyboardInterrupt
        batch_sizes.append(len(entities))
        return upsert(self, name, entities, **options)

    monkeypatch.setattr(pymilvus.MilvusClient, "upsert", interrupted_upsert)
    with pytest.raises(KeyboardInterrupt):
        migrate(folder, server.uri)
    assert IndexReader(folder).manifest.vector_store == "exact"
    assert matches_brute_force(IndexReader(folder))
    max_batches = 100
    migrate(folder, server.uri)
    migrate(folder, server.uri)
    assert batch_sizes == [10] * 9
    assert matches_brute_force(IndexReader(folder))


def matches_exact_store(reader):
    queries = reader.embeddings_at(np.arange(0, 12, 3))
    answers, reader.store = reader.nearest_rows(queries, 5), ExactStore(reader)
    return answers == reader.nearest_rows(queries, 5)


@pytest.mark.slow
def test_what_a_killed_change_sent_is_neither_searched_nor_left(tmp_path, server, data, run, monkeypatch):
    upsert, write_manifest = pymilvus.MilvusClient.upsert, curate.write_manifest
    collections = set(milvus.connect(server.uri).list_collections())

    def die(*_):
        raise KeyboardInterrupt

    def build():
        build_index(run, data, tmp_path / "i", "validation", vector_store=server.uri)

    monkeypatch.setattr(curate, "write_manifest", die)
    with pytest.raises(KeyboardInterrupt):
        build()
    monkeypatch.setattr(curate, "write_manifest", write_manifest)
    build()
    folder = tmp_path / "i"
    collection = IndexReader(folder).manifest.collection
    assert set(milvus.connect(server.uri).list_collections()) - collections == {collection}

    def send_and_be_killed(*arguments, **options):
        upsert(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(pymilvus.MilvusClient, "upsert", send_and_be_killed)
    reader = IndexReader(folder)
    with pytest.raises(KeyboardInterrupt):
        add(folder, data, "train", 20, None)
    assert matches_exact_store(reader) and matches_exact_store(IndexReader(folder))  # the server has rows beyond it
    monkeypatch.setattr(pymilvus.MilvusClient, "upsert", upsert)
    assert add(folder, data, "train", None, None)[0] == 13
    monkeypatch.delattr(milvus, "scan")
    assert matches_exact_store(IndexReader(folder))


def test_the_server_finds_also_where_row_ids_do_not_ascend(tmp_path, server, monkeypatch):
    folder = make_index(tmp_path / "i", random_units(60), random_units(60, 1))
    migrate(folder, server.uri)
    delete(folder, ids=["r3", "r4"])
    purge(folder)
    reader = IndexReader(folder)
    assert (np.diff(reader.row_ids) < 0).any()
    monkeypatch.delattr(milvus, "scan")
    assert matches_brute_force(reader)


def test_the_server_holds_no_text_and_the_index_no_token(tmp_path, server, monkeypatch):
    monkeypatch.setenv("MILVUS_TOKEN", "root:secret-token")
    folder = make_index(tmp_path / "i", random_units(30), metadata=varied_metadata)
    migrate(folder, server.uri)
    assert "secret" not in (folder / "index.json").read_text()
    name = IndexReader(folder).manifest.collection
    entities = milvus.connect(server.uri).query(name, "row_id >= 0", output_fields=["*"], limit=9)
    assert {frozenset(entity) for entity in entities} == {frozenset(("row_id", "embedding", "added", "terms"))}
    with pytest.raises(UserError, match="credentials do not go into an index"):
        migrate(folder, "milvus://root:secret@127.0.0.1:1")


@given(st.dictionaries(st.text(min_size=1), st.lists(st.text(), min_size=1), max_size=4))
def test_an_expression_quotes_no_value(conditions):
    filter = Filter(tuple((key, tuple(values)) for key, values in conditions.items() if key != ADDED_KEY))
    tokens = milvus.filter_expression(filter).translate(str.maketrans("()[],", "     ")).split()
    assert all(token in {"array_contains_any", "terms", "and"} or token.isdecimal() for token in tokens)
