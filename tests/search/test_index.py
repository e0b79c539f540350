"""Build, open, search: queries of texts, images and both give hits, best first, each image once."""

import io

import numpy as np
import pytest
from PIL import Image

import medclip
from medclip.data.dataset import Split
from medclip.encode.encoder import embed_images, embed_texts
from medclip.errors import UserError
from medclip.search.curate import add
from medclip.search.filters import make_filter
from medclip.search.index import Index
from medclip.search.query import NEGATIVE_WEIGHT, Query, SearchOptions, similar


@pytest.fixture(scope="module")
def index(index_folder):
    return Index.open(index_folder)


@pytest.fixture(scope="module")
def split(data):
    return Split(data, "validation")


@pytest.fixture(scope="module")
def duplicated_index(run, data, again, tmp_path_factory):
    """The twelve images of validation, each of them twice."""
    folder = tmp_path_factory.mktemp("duplicated_index") / "index"
    Index.build(run, data, folder)
    add(folder, again, None, None, None)
    return Index.open(folder)


def ids(hits):
    return [hit.id for hit in hits]


def test_an_index_is_built_open(run, data, tmp_path, index):
    built = Index.build(run, data, tmp_path / "index")
    assert len(built) == len(index) == 12
    assert built.search("CT of the chest") == index.search("CT of the chest")
    assert repr(built) == f"Index('{tmp_path / 'index'}', 12 images, exact)"
    few = Index.build(run, data, tmp_path / "few", split="train", max_samples=5)
    assert len(few) == 5 and few.reader.manifest.segments[0].split == "train"


def test_a_model_that_has_moved_is_given_in_any_form(index_folder, run, index):
    for model in (run, str(run), medclip.load(run)):
        assert Index.open(str(index_folder), model).search("chest") == index.search("chest")


def test_a_finished_index_is_never_overwritten(index_folder, run, data):
    with pytest.raises(UserError, match="already finished"):
        Index.build(run, data, index_folder)


def test_every_image_finds_itself_in_any_form(index, split, tmp_path):
    for row, id in enumerate(split.column("id")):
        image = split.image(row)
        file = tmp_path / f"{row}.jpg"
        file.write_bytes(image)
        opened = Image.open(io.BytesIO(image))
        for form in (image, file, opened, np.asarray(opened)):
            (best,) = index.search(form, k=1)
            assert best.id == id
            assert best.score == pytest.approx(1, abs=1e-5)  # float32 through the tower, twice


def test_a_hit_carries_its_own_row(index, split):
    for hit in index.search("CT of the chest", k=12):
        row = split.column("id").index(hit.id)
        assert (hit.caption, hit.article) == (split.column("caption")[row], split.column("article")[row])
        assert (hit.license, hit.image) == ("CC BY", split.image(row))
        assert (hit.attribution, hit.labels) == (split.column("attribution")[row], dict(split.column("labels")[row]))


def test_hits_come_best_first_and_no_more_than_there_are(index):
    hits = index.search("CT of the chest", k=100)
    assert len(set(ids(hits))) == len(hits) == 12
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert index.search("CT of the chest", k=3) == hits[:3]


def test_the_score_of_a_text_is_its_cosine(index, model, split):
    cosines = embed_images(model, [split.image(row) for row in range(12)]) @ embed_texts(model, ["left knee"])[0]
    for hit in index.search("left knee", k=12):
        assert hit.score == pytest.approx(cosines[split.column("id").index(hit.id)], abs=1e-5)


def test_each_query_is_answered_on_its_own(index, split):
    queries = [Query(("chest",)), Query(images=(split.image(3),)), Query(("left knee",), (split.image(2),), ("brain",))]
    for query, hits in zip(queries, index.search_many(queries, SearchOptions(5)), strict=True):
        alone = index.search(query, 5)
        assert ids(hits) == ids(alone)
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in alone], abs=1e-5)


def test_parts_weigh_by_how_much_their_cosines_vary(index, split, model):
    """By hand: the sum of the standardized cosines orders the images as the combined embedding does."""
    query = Query(("the left chest",), (split.image(5),), ("brain",))
    images = embed_images(model, [split.image(row) for row in range(12)])
    parts = [embed_texts(model, ["the left chest"])[0], embed_texts(model, ["brain"])[0], images[5]]
    cosines = images @ np.stack(parts).T
    total = (cosines - cosines.mean(axis=0)) / cosines.std(axis=0) @ np.array([1, NEGATIVE_WEIGHT, 1])
    assert ids(index.search(query, 12)) == [split.column("id")[row] for row in np.argsort(-total)]


def test_a_negative_text_lowers_what_it_describes(index):
    knees = set(ids(index.search("knee", k=3)))
    rankings = [ids(index.search(query, k=12)) for query in (Query(("chest",)), Query(("chest",), (), ("knee",)))]
    ranks = [sum(rank for rank, id in enumerate(ranking) if id in knees) for ranking in rankings]
    assert ranks[1] > ranks[0]


def test_braces_of_a_query_are_the_users_own(index, model):
    (embedding,) = index.embed_queries([Query(("a {} knee",))])
    assert embedding == pytest.approx(embed_texts(model, ["a {} knee"])[0], abs=1e-6)


def test_near_duplicates_are_merged(duplicated_index, split):
    hits = duplicated_index.search(split.image(4), k=30)
    assert set(ids(hits)) == set(split.column("id"))
    assert all(hit.duplicates == (f"again-{hit.id}",) for hit in hits)


def test_similar_leaves_out_the_image_and_its_duplicates(duplicated_index, split):
    (first,) = duplicated_index.search(split.image(4), k=1)
    for id in (first.id, *first.duplicates):
        hits = similar(duplicated_index.reader, *duplicated_index.reader.find_rows(id), SearchOptions(30))
        assert len(hits) == 11
        assert not {first.id, *first.duplicates} & {id for hit in hits for id in (hit.id, *hit.duplicates)}


def test_grouped_by_article_only_the_best_image_of_each_is_a_hit(index):
    best = {}
    for hit in index.search("chest", k=12):
        best.setdefault(hit.article, hit.id)
    assert ids(index.search("chest", k=12, group_by="article")) == list(best.values())
    assert len(best) == 6  # two images an article


def test_a_filter_that_chooses_nothing_is_refused(index):
    with pytest.raises(UserError, match="filter 'modality' chooses none of its values"):
        index.search("chest", filter={"modality": []})


def test_filters_take_one_value_or_several(index, split):
    article = split.column("article")[0]
    only = ids(index.search("chest", filter={"article": article.lower(), "modality": ["CT", "mri"]}))
    assert only == ids(
        index.search_many(
            [Query(("chest",))],
            SearchOptions(filter=make_filter({"article": [article], "modality": ["ct", "mri"]})),
        )[0]
    )
    assert split.column("id")[0] in only and len(only) < 3
    assert index.search("chest", filter={"license": "CC0"}) == []


@pytest.mark.parametrize("parts", [((),), (("",),), (("  \n",),), (("chest",), (), (" ",)), ((), (), ("x",))], ids=str)
def test_an_empty_query_is_refused(parts):
    with pytest.raises(UserError, match="the query is empty"):
        Query(*parts)


def test_no_results_cannot_be_asked_for(index):
    with pytest.raises(UserError, match="at least 1"):
        index.search("chest", k=0)


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (b"no image", r"images\[1\]: image unreadable"),
        ("absent.png", r"^absent\.png: image missing"),
        ("photo.HEIC", r"^photo\.HEIC: image unreadable\. .* save it as PNG or JPEG"),
        (".", r"^\.: a folder, not an image file"),
    ],
)
def test_the_image_that_cannot_be_read_is_named(index, split, image, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(200))
    with pytest.raises(UserError, match=sentence):
        index.search(Query(images=(split.image(0), image)), k=3)
