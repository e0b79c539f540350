"""Embeddings of several parts, and groups of near-duplicates, without a model."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.errors import UserError
from medclip.search.query import Query, SearchOptions, combine_embeddings, group_duplicates, search_embedding, similar
from medclip.search.reader import IndexReader
from support.made_indexes import make_index, random_units


@given(st.integers(0, 1000), st.floats(0.1, 10))
def test_a_single_part_keeps_its_direction(seed, weight):
    rng = np.random.default_rng(seed)
    sample, embedding = rng.standard_normal((20, 8)).astype(np.float32), rng.standard_normal(8).astype(np.float32)
    combined = combine_embeddings(sample, [(embedding, weight)])
    assert combined == pytest.approx(embedding / np.linalg.norm(embedding), abs=1e-6)


def test_a_part_that_varies_more_weighs_no_more():
    sample = random_units(200)
    embedding, other = random_units(2, 1)
    plain = combine_embeddings(sample, [(embedding, 1.0), (other, 1.0)])
    assert combine_embeddings(sample, [(5 * embedding, 1.0), (other, 1.0)]) == pytest.approx(plain, abs=1e-5)


def test_parts_that_cancel_are_refused():
    (embedding,) = random_units(1)
    with pytest.raises(UserError, match="cancel"):
        combine_embeddings(random_units(20, 1), [(embedding, 1.0), (-embedding, 1.0)])


def test_a_single_text_is_no_list_of_letters():
    for words in ({"texts": "effusion"}, {"texts": ("effusion",), "negative_texts": "arrow"}):
        with pytest.raises(TypeError, match="a single string, not a list of strings"):
            Query(**words)


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """Thirty rows, of which every three in a row are the same image."""
    rng = np.random.default_rng(0)
    prints = [{"hash": rng.bytes(32), "thumbnail": rng.bytes(1024)} for _ in range(10)]
    folder = tmp_path_factory.mktemp("duplicates") / "i"
    return IndexReader(make_index(folder, random_units(30), metadata=lambda row: prints[row // 3]))


@given(st.permutations(range(30)))
def test_each_group_is_headed_by_its_first_row(reader, rows):
    groups = group_duplicates(reader, rows)
    heads = list(dict.fromkeys(next(row for row in rows if row // 3 == image) for image in (r // 3 for r in rows)))
    assert list(groups) == heads
    assert {head: [row for row in rows if row // 3 == head // 3 and row != head] for head in heads} == groups


def test_no_rows_have_no_groups(reader):
    assert group_duplicates(reader, []) == {}


def test_hits_are_found_behind_many_duplicates(reader):
    hits = search_embedding(reader, random_units(1, 3)[0], SearchOptions(k=10))
    assert len(hits) == 10 and {int(hit.id[1:]) // 3 for hit in hits} == set(range(10))
    assert all(len(hit.duplicates) == 2 for hit in hits)


def test_patients_of_one_number_in_two_hospitals_are_two(tmp_path):
    """An article of a publication has one name everywhere, a running number has not."""
    rows = [("12", "a"), ("12", "a"), ("12", "b"), ("PMC1", "a"), ("PMC1", "b")]
    folder = make_index(
        tmp_path / "index",
        random_units(5),
        metadata=lambda row: dict(zip(("article", "source"), rows[row], strict=True)),
    )
    hits = search_embedding(IndexReader(folder), random_units(1, 3)[0], SearchOptions(group_by="article"))
    assert sorted((hit.article, hit.source if hit.article == "12" else "") for hit in hits) == [
        ("12", "a"), ("12", "b"), ("PMC1", ""),
    ]  # fmt: skip


def test_an_image_is_similar_neither_to_itself_nor_to_its_duplicates(reader):
    hits = similar(reader, 4, SearchOptions(k=30))
    assert len(hits) == 9 and all(int(hit.id[1:]) // 3 != 1 for hit in hits)
