"""The exact store, faiss and a Milvus server over gRPC answer alike; what each does for itself."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medclip.data.shards import Split
from medclip.errors import UserError
from medclip.search import build, milvus, quantised, stores
from medclip.search.build import add, build_index, delete, move, purge, restore, snapshot
from medclip.search.index import Index
from medclip.search.query import Answers, Query, Searcher, nearest, search, similar
from medclip.search.where import ADDED, EVERYTHING, Where, where
from search.made import make_index, unit

HOSTILE = (
    '" or 1 == 1 or article == "',
    "' or true --",
    '\\") or (number >= 0',
    'a"],[1]) or array_contains(terms, 0',
    "ünïcode – \u202e\x00 ☃",
    "%_*?[]{}",
)
ROWS, DIMENSIONS = (400, 200), 24


class Server:
    """A milvus-lite server in a process of its own, on a free port of this machine."""

    def __init__(self, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.said, self.folder = f"milvus://127.0.0.1:{self.port}", folder
        self.start()

    def start(self):
        address = ("--host", "127.0.0.1", "--port", str(self.port), "--data-dir", str(self.folder))
        with (self.folder.parent / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "milvus_lite", "server", *address], stdout=log, stderr=log
            )
        until = time.monotonic() + 60
        while time.monotonic() < until and self.process.poll() is None:
            try:
                return socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.05)
        raise AssertionError(f"milvus-lite did not start: {(self.folder.parent / 'server.log').read_text()}")

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait(20)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    served = Server(tmp_path_factory.mktemp("milvus") / "data")
    yield served
    served.stop()


@pytest.fixture(scope="module", params=["exact", "faiss", "milvus"])
def store(request):
    """What `--store` says. The faiss file is used for the small segments of these tests too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantised, "LEAST", 100)
        patch.setattr(quantised, "SCANNED", 0)
        patch.setattr(milvus, "SCANNED", 0)
        patch.setattr(quantised, "AT_LEAST", 100)
        yield request.getfixturevalue("server").said if request.param == "milvus" else request.param


def about(row):
    """Every kind of value that a filter asks for; some rows lack labels, some values are hostile."""
    labels = [("modality", ("CT", "ct", "MRI", "X-Ray")[row % 4])] + [("organ", "chest")] * (row % 3 == 0)
    return {
        "labels": labels if row % 7 else [],
        "licence": ("CC BY", "CC BY-NC")[row % 2],
        "source": ("roco", "Drawn")[row % 5 == 0],
        "article": HOSTILE[row % 100] if row % 100 < len(HOSTILE) else f"a{row // 3}",
    }


def random_units(rows, seed=0):
    return unit(np.random.default_rng(seed).standard_normal((rows, DIMENSIONS)))


@pytest.fixture(scope="module")
def kept(store, tmp_path_factory):
    """An index that no test changes."""
    folder = make_index(tmp_path_factory.mktemp("kept") / "i", *map(random_units, ROWS, (1, 2)), about=about)
    move(folder, store)
    return Index(folder)


@pytest.fixture
def folder(store, tmp_path):
    """An index for a test to change."""
    made = make_index(tmp_path / "i", *map(random_units, (150, 120), (3, 4)), about=about)
    move(made, store)
    return made


def sorted_whole(index, vectors, k, asked=EVERYTHING):
    """The definition of search: all scores in float64, sorted, ties in row order."""
    allowed = np.flatnonzero(index.allowed(asked))
    everything = index.vectors_of(allowed).astype(np.float64)
    found = []
    for vector in vectors.astype(np.float64):
        scores = np.einsum("np,p->n", everything, vector)
        best = np.lexsort((allowed, -scores))[:k]
        found.append([(int(allowed[at]), float(scores[at])) for at in best])
    return found


def ids(index, found):
    return [index.rows.column("id")[row].as_py() for row, _ in found]


def is_right(index, asked=EVERYTHING, k=10):
    """Whether the index answers some queries as the definition says."""
    queries = random_units(5, 9)
    return index.search(queries, k, asked) == sorted_whole(index, queries, k, asked)


asked_values = {
    "modality": ["ct", "MRI", "x-ray", "pet"],
    "organ": ["chest", "Brain"],
    "licence": ["cc by", "CC BY-NC", "none"],
    "source": ["ROCO", "drawn"],
    "article": [*HOSTILE, "a50", "A51", ""],
    ADDED: ["2026-11-01", "2026-11-02..", "..2026-11-25", "2026-11-03..2026-11-20"],
}
filters = st.dictionaries(st.sampled_from(list(asked_values)), st.none(), max_size=3).flatmap(
    lambda keys: st.fixed_dictionaries(
        {key: st.lists(st.sampled_from(asked_values[key]), min_size=1, max_size=3) for key in keys}
    )
)


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), queries=st.integers(1, 4), k=st.integers(1, 80), said=filters)
def test_every_store_answers_as_a_whole_sort_does(kept, seed, queries, k, said):
    vectors, asked = random_units(queries, seed), where(said)
    assert kept.search(vectors, k, asked) == sorted_whole(kept, vectors, k, asked)


def test_rows_find_themselves_and_more_than_all_are_all(kept):
    rows = np.arange(0, sum(ROWS), 37)
    assert [found[0][0] for found in kept.search(kept.vectors_of(rows), 1)] == rows.tolist()
    assert is_right(kept, k=599) and is_right(kept, k=10**6)


@pytest.mark.parametrize("value", [*HOSTILE, *(f"{key}{sign}{key}" for key in ("number", "terms") for sign in "><")])
@pytest.mark.parametrize("key", ["article", "modality"])
def test_no_value_of_a_filter_breaks_out_of_it(kept, key, value):
    asked = where({key: [value]})
    found = [ids(kept, hits) for hits in kept.search(random_units(3, 5), 50, asked)]
    said = [
        row["article"] if key == "article" else dict(row["labels"]).get(key) for row in map(about, range(sum(ROWS)))
    ]
    right = {f"r{row}" for row, has in enumerate(said) if has and has.strip().lower() == value.strip().lower()}
    assert all(set(hits) == right for hits in found)


def test_a_key_that_no_picture_has_is_refused(kept):
    for key in ("number", "terms", 'modality"] or labels["x', "vector"):
        with pytest.raises(UserError, match="no picture of the index has"):
            kept.search(random_units(1), 3, where({key: ["1"]}))


def test_one_of_an_article(kept):
    hits = nearest(kept, random_units(1, 6)[0], Answers(k=30, one_per_article=True))
    best = {}
    for row, score in sorted_whole(kept, random_units(1, 6), sum(ROWS))[0]:
        best.setdefault(kept.rows.column("article")[row].as_py(), (f"r{row}", score))
    assert [(hit.id, hit.score) for hit in hits] == list(best.values())[:30]


def test_what_is_deleted_is_gone_and_a_snapshot_brings_it_back(folder):
    snapshot(folder, "before")
    best = ids(Index(folder), Index(folder).search(random_units(1, 8), 5)[0])
    assert delete(folder, best[:2], [about(100)["article"]]) == 5  # such an article has three pictures
    after = Index(folder)
    assert is_right(after) and not set(best[:2]) & set(ids(after, after.search(random_units(1, 8), 300)[0]))
    assert restore(folder, "before") == 270
    assert ids(Index(folder), Index(folder).search(random_units(1, 8), 5)[0]) == best
    assert is_right(Index(folder))


def test_an_index_that_was_open_answers_from_what_it_knew(folder):
    opened = Index(folder)
    assert is_right(opened)
    best = ids(opened, opened.search(random_units(1, 8), 3)[0])
    delete(folder, best[:1])
    assert ids(opened, opened.search(random_units(1, 8), 3)[0]) == best
    assert not opened.is_current() and best[0] not in ids(
        Index(folder), Index(folder).search(random_units(1, 8), 300)[0]
    )


def test_purged_rows_are_gone_and_the_rest_is_found(folder):
    delete(folder, ids=[f"r{row}" for row in range(0, 150, 2)])
    assert purge(folder) == 75
    assert is_right(Index(folder), where({"modality": ["ct", "mri"]})) and len(Index(folder)) == 195


@pytest.mark.parametrize("other", ["exact", "faiss", "milvus"])
def test_an_index_moves_between_stores_and_leaves_nothing(folder, store, other, request):
    said = request.getfixturevalue("server").said if other == "milvus" else other
    move(folder, said)
    assert is_right(Index(folder), where({"licence": ["cc by"]}))
    assert json.loads((folder / "index.json").read_text())["store"] == said
    assert bool(list(folder.rglob("*.faiss"))) == (said == "faiss")
    name = Index(folder).contents.name
    assert milvus.connected(request.getfixturevalue("server").said).has_collection(name) == (other == "milvus")


def test_commands_give_the_same_with_every_store(run, data, tmp_path, store, model):
    made = {}
    for out, each in ((tmp_path / "one", "exact"), (tmp_path / "two", store)):
        build_index(run, data, out, "validation", store=each)
        assert add(out, data, "train", None, None)[0] == 13
        assert delete(out, articles=[Index(out).rows.column("article")[0].as_py()]) == 2
        searcher = Searcher(Index(out), model)
        picture = Split(data, "train").image(3)
        queries = [Query(("CT of the chest",)), Query(images=(picture,)), Query(("left", "knee"), without=("CT",))]
        made[out.name] = [search(searcher, queries, Answers(k)) for k in (3, 100)]
        made[out.name].append(similar(searcher.index, searcher.index.rows.column("id")[5].as_py(), Answers(4)))
    assert made["one"] == made["two"]


def test_another_model_is_refused(run, data, copy, tmp_path, store):
    build_index(run, data, tmp_path / "index", "validation", limit=3, store=store)
    other = copy(run)
    weights = other / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(UserError, match="another model"):
        add(tmp_path / "index", data, "train", None, other)


# faiss alone


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """20,000 pictures in clusters, words that lie elsewhere but for a part, and the index of the pictures."""
    rng = np.random.default_rng(0)
    centres, gap = rng.standard_normal((400, 64)), np.eye(64)[0] * 8
    of = rng.integers(400, size=20_000)
    pictures = unit(gap + centres[of] + 0.7 * rng.standard_normal((20_000, 64)))
    words = unit(np.eye(64)[1] * 8 + 0.3 * centres[of[:200]] + 0.6 * rng.standard_normal((200, 64)))
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
    assert [path.parent.name for path in index.folder.rglob(quantised.FILE)] == ["00000"]
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
    monkeypatch.setattr(quantised, "scan", lambda *given: scanned.append(given[3].sum()) or stores.scan(*given))
    index.search(words[:2], 10)
    assert scanned == [10]  # the small segment


@pytest.mark.parametrize("dimensions", [3, 7, 30, 96])
def test_any_dimensions_can_be_quantised(tmp_path, dimensions):
    vectors = unit(np.random.default_rng(0).standard_normal((900, dimensions)))
    quantised._make(tmp_path / "x.faiss", vectors)
    found = quantised._nearest(quantised._open(tmp_path / "x.faiss", vectors), vectors[:9], 40, np.ones(900, bool))
    assert (found >= 0).all() and all(row in found[row] for row in range(9))


@pytest.mark.parametrize("size", [None, 0, 3, 50, 1000, 0.5, -1])
def test_a_damaged_file_of_faiss_is_named_and_made_anew(tmp_path, monkeypatch, size):
    monkeypatch.setattr(quantised, "LEAST", 100)
    folder = make_index(tmp_path / "i", random_units(300))
    move(folder, "faiss")
    path = next(folder.rglob(quantised.FILE))
    if size is None:
        path.unlink()
    else:
        whole = path.stat().st_size
        os.truncate(path, whole + size if size < 0 else int(whole * size) if isinstance(size, float) else size)
    with pytest.raises(UserError, match=rf"make it anew: medclip curate move --index {folder} faiss"):
        Index(folder).search(random_units(1), 3)
    move(folder, "faiss")
    assert is_right(Index(folder))


@pytest.mark.parametrize(("name", "library"), [("quantised", "faiss"), ("milvus", "pymilvus")])
def test_a_library_that_is_not_installed_is_named(monkeypatch, tmp_path, name, library):
    monkeypatch.delitem(sys.modules, f"medclip.search.{name}")
    monkeypatch.delattr(f"medclip.search.{name}")
    monkeypatch.setitem(sys.modules, library, None)
    folder = make_index(tmp_path / "i", random_units(10))
    before = (folder / "index.json").read_bytes()
    with pytest.raises(UserError, match=rf"pip install 'medclip\[{name if name == 'milvus' else 'faiss'}\]'"):
        move(folder, {"quantised": "faiss", "milvus": "milvus://127.0.0.1:1"}[name])
    assert (folder / "index.json").read_bytes() == before


# Milvus alone


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


def test_a_server_that_was_lost_is_named_and_can_be_left(tmp_path, capfd):
    served = Server(tmp_path / "data")
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
    remedy = f"medclip curate move --index {folder} {server.said}"
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
    asked = Where(tuple((key, tuple(of)) for key, of in said.items() if key != ADDED))
    names = {"array_contains_any", "terms", "and"}
    words = milvus.expression(asked).translate(str.maketrans("()[],", "     ")).split()
    assert all(word in names or word.isdecimal() for word in words)


def test_build_module_reaches_a_store_before_it_changes_an_index(tmp_path, monkeypatch):
    folder = make_index(tmp_path / "i", random_units(10))
    before = (folder / "index.json").read_bytes()
    monkeypatch.setattr(build, "reach", lambda said: (_ for _ in ()).throw(UserError("down")))
    with pytest.raises(UserError, match="down"):
        delete(folder, ["r1"])
    assert (folder / "index.json").read_bytes() == before
