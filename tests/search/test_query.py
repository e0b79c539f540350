"""What is asked, in words, images and both, becomes hits: best first, each image once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.data.dataset import Split
from medclip.encode.encoder import embed_images, embed_texts
from medclip.errors import UserError
from medclip.search.curate import add, build_index
from medclip.search.filters import where
from medclip.search.index import Index
from medclip.search.query import (
    NEGATIVE_WEIGHT,
    Query,
    Searcher,
    SearchOptions,
    _together,
    query_embeddings,
    search,
    similar,
)


@pytest.fixture(scope="module")
def searcher(index_folder, model):
    return Searcher(Index(index_folder), model)


@pytest.fixture(scope="module")
def rows(data):
    return Split(data, "validation")


@pytest.fixture(scope="module")
def doubled(run, data, again, model, tmp_path_factory):
    """The twelve images of validation, each of them twice."""
    out = tmp_path_factory.mktemp("doubled") / "index"
    build_index(run, data, out)
    add(out, again, None, None, None)
    return Searcher(Index(out), model)


def ask(searcher, *texts, k=10, **wanted):
    return search(searcher, [Query(texts)], SearchOptions(k, **wanted))[0]


def test_every_picture_finds_itself_first(searcher, rows):
    for number, id in enumerate(rows.column("id")):
        best = search(searcher, [Query(images=(rows.image(number),))], SearchOptions(3))[0][0]
        assert best.id == id
        assert best.score == pytest.approx(1, abs=1e-5)  # float32 through the tower, twice


def test_a_hit_carries_its_own_row(searcher, rows):
    for hit in ask(searcher, "CT of the chest", k=12):
        row = rows.column("id").index(hit.id)
        assert (hit.caption, hit.article) == (rows.column("caption")[row], rows.column("article")[row])
        assert (hit.license, hit.image) == ("CC BY", rows.image(row))
        assert (hit.attribution, hit.labels) == (rows.column("attribution")[row], dict(rows.column("labels")[row]))
        assert -1 - 1e-6 <= hit.score <= 1 + 1e-6


def test_words_bring_hits_best_first_and_no_more_than_there_are(searcher):
    hits = ask(searcher, "CT of the chest", k=100)
    assert len({hit.id for hit in hits}) == len(hits) == 12
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert ask(searcher, "CT of the chest", k=3) == hits[:3]


def test_the_score_of_words_is_their_cosine(searcher, model, rows):
    cosines = embed_images(model, [rows.image(row) for row in range(12)]) @ embed_texts(model, ["left knee"])[0]
    for hit in ask(searcher, "left knee", k=12):
        assert hit.score == pytest.approx(cosines[rows.column("id").index(hit.id)], abs=1e-5)


def test_several_queries_are_answered_one_by_one(searcher, rows):
    queries = [Query(("chest",)), Query(images=(rows.image(3),)), Query(("left knee",), (rows.image(2),), ("brain",))]
    together = search(searcher, queries, SearchOptions(5))
    for query, hits in zip(queries, together, strict=True):
        alone = search(searcher, [query], SearchOptions(5))[0]
        assert [hit.id for hit in hits] == [hit.id for hit in alone]
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in alone], abs=1e-5)


def test_parts_weigh_by_how_much_their_cosines_vary(searcher, rows, model):
    """By hand: the sum of the standardized cosines orders the images as the one direction does."""
    query = Query(("the left chest",), (rows.image(5),), ("brain",))
    images = embed_images(model, [rows.image(row) for row in range(12)])
    parts = [embed_texts(model, ["the left chest"])[0], embed_texts(model, ["brain"])[0], images[5]]
    cosines = images @ np.stack(parts).T
    summed = (cosines - cosines.mean(axis=0)) / cosines.std(axis=0) @ np.array([1, NEGATIVE_WEIGHT, 1])
    order = [rows.column("id")[row] for row in np.argsort(-summed)]
    assert [hit.id for hit in search(searcher, [query], SearchOptions(12))[0]] == order


def test_what_is_not_wanted_falls(searcher):
    plain, without = (
        ask(searcher, "chest", k=12),
        search(searcher, [Query(("chest",), (), ("knee",))], SearchOptions(12))[0],
    )
    knees = {hit.id for hit in ask(searcher, "knee", k=3)}
    places = [sum(at for at, hit in enumerate(hits) if hit.id in knees) for hits in (plain, without)]
    assert places[1] > places[0]


@given(st.integers(0, 1000), st.floats(0.1, 10))
def test_one_part_alone_keeps_its_direction(seed, weight):
    rng = np.random.default_rng(seed)
    sample, vector = rng.standard_normal((20, 8)).astype(np.float32), rng.standard_normal(8).astype(np.float32)
    found = _together(sample, [(vector, weight)])
    assert found == pytest.approx(vector / np.linalg.norm(vector), abs=1e-6)


def test_an_ensemble_is_the_mean_of_ways_to_say_it(searcher, model):
    ways = ["{}", "a radiology image of {}", "a medical image showing {}", "{} of a patient", "an example of {}"]
    said = [way.replace("{}", "a {} knee") for way in ways]  # braces in the query are the user's own
    mean = embed_texts(model, said).mean(axis=0)
    found = query_embeddings(searcher, [Query(("a {} knee",))], ensemble=True)[0]
    assert found == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)


def test_a_picture_that_is_there_twice_is_shown_once(doubled, rows):
    hits = search(doubled, [Query(images=(rows.image(4),))], SearchOptions(30))[0]
    assert {hit.id for hit in hits} == set(rows.column("id"))
    assert all(hit.copies == (f"again-{hit.id}",) for hit in hits)


def test_similar_leaves_out_the_picture_and_its_copies(doubled, rows):
    first = search(doubled, [Query(images=(rows.image(4),))], SearchOptions(1))[0][0]
    for id in (first.id, *first.copies):
        hits = similar(doubled.index, id, SearchOptions(30))
        assert len(hits) == 11
        assert not {first.id, *first.copies} & {id for hit in hits for id in (hit.id, *hit.copies)}
    with pytest.raises(UserError, match="has no image 'absent'"):
        similar(doubled.index, "absent", SearchOptions(3))


def test_an_article_is_shown_once_where_that_is_wanted(searcher):
    hits, every = ask(searcher, "chest", k=12, one_per_article=True), ask(searcher, "chest", k=12)
    best = {}
    for hit in every:
        best.setdefault(hit.article, hit.id)
    assert [hit.id for hit in hits] == list(best.values())
    assert len(hits) == 6  # two images an article


def test_filters_are_obeyed(searcher, rows):
    article = rows.column("article")[0]
    hits = ask(searcher, "chest", where=where({"article": [article.lower()], "modality": ["CT"]}))
    assert [hit.id for hit in hits] == [rows.column("id")[0]]
    assert ask(searcher, "chest", where=where({"license": ["CC0"]})) == []


@pytest.mark.parametrize(
    "query", [Query(), Query(("",)), Query(("  \n",)), Query(("chest",), (), (" ",)), Query((), (), ("x",))]
)
def test_an_empty_query_is_refused(searcher, query):
    with pytest.raises(UserError, match="the query is empty"):
        search(searcher, [query], SearchOptions(3))


def test_parts_that_cancel_are_refused(searcher, model):
    vector = embed_texts(model, ["chest"])[0]
    with pytest.raises(UserError, match="cancel"):
        _together(searcher.index.sample, [(vector, 1.0), (-vector, 1.0)])


@pytest.mark.parametrize(("picture", "sentence"), [(b"no image", "the image: image unreadable"), (None, "missing")])
def test_a_picture_that_cannot_be_read_is_refused(searcher, tmp_path, picture, sentence):
    with pytest.raises(UserError, match=sentence):
        search(searcher, [Query(images=(picture or tmp_path / "absent.png",))], SearchOptions(3))
