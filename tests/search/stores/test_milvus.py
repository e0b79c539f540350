"""What the Milvus store does for itself: a lost server or collection, a kill, secrets."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.errors import UserError
from medclip.search.curate import build_index, delete, move, purge
from medclip.search.filters import ADDED, Filter, where
from medclip.search.index import Index
from medclip.search.stores import milvus
from support.made_indexes import DIMENSIONS, about, is_right, make_index, random_units


def test_a_server_that_does_not_answer_is_one_sentence_before_any_work(tmp_path, run, data, capfd):
    folder = make_index(tmp_path / "i", random_units(10))
    start = time.monotonic()
    for work in (
        lambda: move(folder, "milvus://127.0.0.1:1"),
        lambda: build_index(run, data, tmp_path / "new", "validation", store="milvus://127.0.0.1:1"),
    ):
        with pytest.raises(UserError, match=r"^the Milvus server at 127\.0\.0\.1:1 does not answer"):
            work()
    assert time.monotonic() - start < 20
    assert Index(folder).contents.store == "exact" and not (tmp_path / "new").exists()
    assert capfd.readouterr() == ("", "")  # what its library would log


def test_a_server_that_was_lost_is_named_and_can_be_left(tmp_path, start_server, capfd):
    served = start_server(tmp_path / "data")
    folder = make_index(tmp_path / "i", random_units(20))
    move(folder, served.said)
    opened = Index(folder)
    assert is_right(opened)
    served.stop()
    start = time.monotonic()
    with pytest.raises(UserError, match=f"127.0.0.1:{served.port} does not answer"):
        opened.search(random_units(1), 3)
    assert time.monotonic() - start < milvus.ANSWER_S + 10
    with pytest.raises(UserError, match="does not answer"):
        Index(folder)
    capfd.readouterr()
    move(folder, "exact")
    assert f"{served.said} keeps what it has of the index" in capfd.readouterr().err.replace("\n", " ")
    assert is_right(Index(folder))


def test_a_collection_that_was_lost_or_changed_is_repaired_by_move(tmp_path, server):
    folder = make_index(tmp_path / "i", random_units(60), about=about)
    move(folder, server.said)
    name, client = Index(folder).contents.name, milvus.connected(server.said)
    remedy = f"medclip index migrate --index {folder} {server.said}"
    client.delete(name, ids=list(range(7, 20)))
    with pytest.raises(UserError, match=f"has 47 rows and the index 60; bring it up to date: {remedy}"):
        Index(folder).search(random_units(1), 3)
    move(folder, server.said)
    assert is_right(Index(folder))
    client.drop_collection(name)
    with pytest.raises(UserError, match=f"has no collection {name}; bring it up to date: {remedy}"):
        Index(folder).search(random_units(1), 3)
    move(folder, server.said)
    assert is_right(Index(folder), where({"organ": ["chest"]}))


def test_what_was_sent_before_a_kill_is_not_sent_again(tmp_path, server, monkeypatch):
    folder = make_index(tmp_path / "i", random_units(90), about=about)
    monkeypatch.setattr(milvus, "SENT", 10 * 4 * DIMENSIONS)
    sent, upsert = [], milvus.MilvusClient.upsert

    def until(self, name, entities, **said):
        if len(sent) == 4 and not said.get("again"):
            raise KeyboardInterrupt
        sent.append(len(entities))
        return upsert(self, name, entities, **said)

    monkeypatch.setattr(milvus.MilvusClient, "upsert", until)
    with pytest.raises(KeyboardInterrupt):
        move(folder, server.said)
    with pytest.raises(UserError, match="has 40 rows and the index 90"):
        Index(folder).search(random_units(1), 3)
    sent.append(0)
    move(folder, server.said)
    move(folder, server.said)
    assert sent == [10] * 4 + [0] + [10] * 5
    assert is_right(Index(folder))


def test_it_is_the_server_that_finds_also_where_numbers_do_not_ascend(tmp_path, server, monkeypatch):
    folder = make_index(tmp_path / "i", random_units(60), random_units(60, 1))
    move(folder, server.said)
    delete(folder, ids=["r3", "r4"])
    purge(folder)
    opened = Index(folder)
    assert (np.diff(opened.numbers) < 0).any()
    monkeypatch.delattr(milvus, "scan")
    assert is_right(opened)


def test_terms_and_tokens_stay_out_of_what_is_written(tmp_path, server, monkeypatch):
    monkeypatch.setenv("MILVUS_TOKEN", "root:secret-token")
    folder = make_index(tmp_path / "i", random_units(30), about=about)
    move(folder, server.said)
    assert "secret" not in (folder / "index.json").read_text()
    rows = milvus.connected(server.said).query(Index(folder).contents.name, "number >= 0", output_fields=["*"], limit=9)
    assert {frozenset(row) for row in rows} == {frozenset(("number", "vector", "added", "terms"))}
    with pytest.raises(UserError, match="credentials do not go into an index"):
        move(folder, "milvus://root:secret@127.0.0.1:1")


@given(st.dictionaries(st.text(min_size=1), st.lists(st.text(), min_size=1), max_size=4))
def test_an_expression_holds_nothing_of_what_was_asked(said):
    asked = Filter(tuple((key, tuple(of)) for key, of in said.items() if key != ADDED))
    names = {"array_contains_any", "terms", "and"}
    words = milvus.expression(asked).translate(str.maketrans("()[],", "     ")).split()
    assert all(word in names or word.isdecimal() for word in words)
