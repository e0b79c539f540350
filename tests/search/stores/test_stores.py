"""The exact store, faiss and a Milvus server over gRPC answer alike."""

import json
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medclip.data.dataset import Split
from medclip.errors import UserError
from medclip.search import curate
from medclip.search.curate import add, build_index, delete, move, purge, restore, snapshot
from medclip.search.filters import ADDED, where
from medclip.search.index import Index
from medclip.search.query import Query, Searcher, SearchOptions, search, search_embedding, similar
from medclip.search.stores import faiss, milvus
from support.made_indexes import HOSTILE, about, ids, is_right, make_index, random_units, sorted_whole

ROWS = (400, 200)


@pytest.fixture(scope="module", params=["exact", "faiss", "milvus"])
def store(request):
    """What `--vector-store` says. The faiss file is used for the small segments of these tests too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(faiss, "LEAST", 100)
        patch.setattr(faiss, "SCANNED", 0)
        patch.setattr(milvus, "SCANNED", 0)
        patch.setattr(faiss, "AT_LEAST", 100)
        yield request.getfixturevalue("server").said if request.param == "milvus" else request.param


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


asked_values = {
    "modality": ["ct", "MRI", "x-ray", "pet"],
    "organ": ["chest", "Brain"],
    "license": ["cc by", "CC BY-NC", "none"],
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
        with pytest.raises(UserError, match="no image of the index has"):
            kept.search(random_units(1), 3, where({key: ["1"]}))


def test_one_of_an_article(kept):
    hits = search_embedding(kept, random_units(1, 6)[0], SearchOptions(k=30, one_per_article=True))
    best = {}
    for row, score in sorted_whole(kept, random_units(1, 6), sum(ROWS))[0]:
        best.setdefault(kept.rows.column("article")[row].as_py(), (f"r{row}", score))
    assert [(hit.id, hit.score) for hit in hits] == list(best.values())[:30]


def test_what_is_deleted_is_gone_and_a_snapshot_brings_it_back(folder):
    snapshot(folder, "before")
    best = ids(Index(folder), Index(folder).search(random_units(1, 8), 5)[0])
    assert delete(folder, best[:2], [about(100)["article"]]) == 5  # such an article has three images
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
    left = ids(opened, opened.search(random_units(1, 8), 3)[0])
    assert left in (best, [*best[1:], left[-1]])  # a server has the row no longer
    assert not opened.is_current()
    assert best[0] not in ids(Index(folder), Index(folder).search(random_units(1, 8), 300)[0])


def test_purged_rows_are_gone_and_the_rest_is_found(folder):
    delete(folder, ids=[f"r{row}" for row in range(0, 150, 2)])
    assert purge(folder) == 75
    assert is_right(Index(folder), where({"modality": ["ct", "mri"]})) and len(Index(folder)) == 195


@pytest.mark.parametrize("other", ["exact", "faiss", "milvus"])
def test_an_index_moves_between_stores_and_leaves_nothing(folder, store, other, request):
    said = request.getfixturevalue("server").said if other == "milvus" else other
    move(folder, said)
    assert is_right(Index(folder), where({"license": ["cc by"]}))
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
        made[out.name] = [search(searcher, queries, SearchOptions(k)) for k in (3, 100)]
        made[out.name].append(similar(searcher.index, searcher.index.rows.column("id")[5].as_py(), SearchOptions(4)))
    assert made["one"] == made["two"]


def test_another_model_is_refused(run, data, copy, tmp_path, store):
    build_index(run, data, tmp_path / "index", "validation", limit=3, store=store)
    other = copy(run)
    weights = other / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(UserError, match="another model"):
        add(tmp_path / "index", data, "train", None, other)


@pytest.mark.parametrize(("name", "library"), [("faiss", "faiss"), ("milvus", "pymilvus")])
def test_a_library_that_is_not_installed_is_named(monkeypatch, tmp_path, name, library):
    monkeypatch.delitem(sys.modules, f"medclip.search.stores.{name}")
    monkeypatch.delattr(f"medclip.search.stores.{name}")
    monkeypatch.setitem(sys.modules, library, None)
    folder = make_index(tmp_path / "i", random_units(10))
    before = (folder / "index.json").read_bytes()
    with pytest.raises(UserError, match=rf"pip install 'medclip\[{name if name == 'milvus' else 'faiss'}\]'"):
        move(folder, {"faiss": "faiss", "milvus": "milvus://127.0.0.1:1"}[name])
    assert (folder / "index.json").read_bytes() == before


def test_build_module_reaches_a_store_before_it_changes_an_index(tmp_path, monkeypatch):
    folder = make_index(tmp_path / "i", random_units(10))
    before = (folder / "index.json").read_bytes()
    monkeypatch.setattr(curate, "check_available", lambda said: (_ for _ in ()).throw(UserError("down")))
    with pytest.raises(UserError, match="down"):
        delete(folder, ["r1"])
    assert (folder / "index.json").read_bytes() == before
