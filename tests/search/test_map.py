"""The map of an index: its numbers against their definitions, and the file that other tools open."""

import json
import os
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from medclip import NOT_CLINICAL
from medclip.data.dataset import Split
from medclip.data.prepare import prepare
from medclip.errors import UserError, WorkError
from medclip.search import map as embedding_map
from medclip.search import segments
from medclip.search.curate import delete, migrate
from medclip.search.filters import make_filter
from medclip.search.index import Index
from medclip.search.map import export_map, lay_out, make_map, nearest_neighbors
from medclip.search.reader import IndexReader
from support.made_indexes import DIM, make_index, random_units, unit, varied_metadata

N = 60


@pytest.fixture
def reader(tmp_path):
    """Two segments, of which rows 0, 7 and 30 show the same image and row 3 is deleted."""

    def metadata(row):
        same = {"hash": b"\1" * 32, "thumbnail": bytes(range(256)) * 4} if row in (0, 7, 30) else {}
        return varied_metadata(row) | same

    embeddings = random_units(N)
    folder = make_index(tmp_path / "index", embeddings[:25], embeddings[25:], metadata=metadata)
    delete(folder, ids=["r3"])
    return IndexReader(folder)


def live_embeddings():
    return np.delete(random_units(N), 3, axis=0).astype(np.float64)


def test_pca_is_that_of_the_singular_values_its_largest_weights_positive(reader):
    points = make_map(reader)
    centered = live_embeddings() - live_embeddings().mean(axis=0)
    _, values, axes = np.linalg.svd(centered, full_matrices=False)
    signs = np.sign(axes[[0, 1], np.abs(axes[:2]).argmax(axis=1)])
    np.testing.assert_allclose(points.layout.xy, centered @ (axes[:2] * signs[:, None]).T, atol=1e-6)
    np.testing.assert_allclose(points.layout.variance_shares, (values**2 / (values**2).sum())[:2], rtol=1e-9)
    np.testing.assert_array_equal(points.layout.xy, make_map(reader).layout.xy)
    assert [reader.id(int(row)) for row in points.rows] == [f"r{row}" for row in range(N) if row != 3]


def test_neighbors_and_outlier_scores_are_those_of_a_full_sort(reader, monkeypatch):
    monkeypatch.setattr(embedding_map, "QUERY_ROWS", 7)
    points = make_map(reader)
    distances = 1 - live_embeddings() @ live_embeddings().T
    np.fill_diagonal(distances, np.inf)
    order = np.argsort(distances, axis=1)[:, :10]
    np.testing.assert_array_equal(points.neighbors.points, order)
    scores = np.take_along_axis(distances, order, axis=1).mean(axis=1)
    np.testing.assert_allclose(points.neighbors.outlier_scores, scores, atol=1e-6)
    np.testing.assert_array_equal(points.neighbors.farthest[:5], np.argsort(-scores)[:5])


def test_one_far_from_all_is_the_outlier():
    crowd = unit(np.eye(DIM)[0] + 0.05 * random_units(40))
    neighbors = nearest_neighbors(np.concatenate([crowd, -crowd[:1]]))
    assert neighbors.outlier_scores.argmax() == 40 and neighbors.outlier_scores[40] > 1.9


def test_of_more_equal_images_than_neighbors_none_is_its_own():
    neighbors = nearest_neighbors(np.repeat(random_units(1), 30, axis=0))
    assert not (neighbors.points == np.arange(30)[:, None]).any()
    assert all(len(set(points)) == 10 for points in neighbors.points.tolist())
    np.testing.assert_allclose(neighbors.distances, 0, atol=1e-6)


def test_near_duplicates_are_groups_of_points(reader):
    points = make_map(reader)
    groups = {reader.id(int(points.rows[a])): [reader.id(int(points.rows[b])) for b in others]
              for a, others in points.duplicates.items()}  # fmt: skip
    assert groups == {"r0": ["r7", "r30"]}


def test_captions_are_ranked_and_the_most_confused_image_comes_first(tmp_path):
    """Images and texts of the plane: 0 and 1 were exchanged, 2 is right, 3 repeats the image and the caption of 2."""
    images = unit(np.array([[1, 0], [0, 1], [-1, 0], [-1, 0]], float))
    captions = {"a": [0.0, 1.0], "b": [0.8, 0.6], "c": [-1.0, 0.0]}
    texts, files = ["a", "b", "c", "C "], [b"0", b"1", b"2", b"2"]
    folder = make_index(tmp_path / "index", images, metadata=lambda row: {"caption": texts[row], "image": files[row]})

    def encode(words, advance):
        advance(len(words))
        return np.array([captions[word] for word in words], np.float32)

    ranks = make_map(IndexReader(folder), encode).captions
    assert ranks is not None
    assert ranks.ranks.tolist() == [2, 2, 1, 1]
    np.testing.assert_allclose(ranks.cosines, [0, 0.6, 1, 1], atol=1e-6)
    assert ranks.others.tolist() == [1, 0, 0, 0]
    np.testing.assert_allclose(ranks.other_cosines, [0.8, 1, 0, 0], atol=1e-6)
    assert ranks.most_confused.tolist() == [0, 1]


def test_a_filter_and_an_even_sample_choose_the_points(reader, monkeypatch):
    with_chest = make_map(reader, filter=make_filter({"organ": ["chest"]})).rows
    assert [int(row) for row in with_chest] == [row for row in range(N) if row % 3 == 0 and row % 7 and row != 3]
    monkeypatch.setattr(embedding_map, "MAX_POINTS", 10)
    rows = make_map(reader).rows
    live = [row for row in range(N) if row != 3]
    assert rows.tolist() == [live[int(i * 5.9)] for i in range(10)]


@pytest.mark.parametrize(("method", "count"), [("pca", 1), ("umap", 3), ("pca", 0)])
def test_too_few_images_are_refused(method, count):
    with pytest.raises(UserError, match=f"images or more; these are {count}"):
        lay_out(random_units(4)[:count], method, 0)


def test_a_damaged_embedding_is_named(tmp_path, monkeypatch):
    """Of a large index under faiss, embeddings are not read when it is opened."""
    pytest.importorskip("faiss", reason="the extra faiss is not installed")
    folder = make_index(tmp_path / "index", random_units(9))
    migrate(folder, "faiss")
    embeddings = np.load(folder / "segments" / "00000" / "embeddings.npy", mmap_mode="r+")
    embeddings[4] = np.nan
    embeddings.flush()
    monkeypatch.setattr(segments, "CHUNK_ROWS", 5)
    with pytest.raises(WorkError, match="the embedding of r4 is not a unit vector"):
        make_map(IndexReader(folder))


def test_equal_images_are_one_place():
    layout = lay_out(np.repeat(random_units(1), 5, axis=0), "pca", 0)
    np.testing.assert_allclose(layout.xy, np.zeros((5, 2)), atol=1e-6)
    assert layout.variance_shares is not None and np.isfinite(layout.variance_shares).all()


def test_umap_gives_the_same_points_for_a_seed():
    pytest.importorskip("umap", reason="the extra umap is not installed")
    embeddings = random_units(40)
    first, again, other = (lay_out(embeddings, "umap", seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.xy, again.xy)
    assert first.xy.shape == (40, 2) and not np.array_equal(first.xy, other.xy) and first.variance_shares is None


def test_umap_that_is_absent_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(UserError, match=r"umap is not installed: pip install .*the extra umap"):
        lay_out(random_units(40), "umap", 0)


def test_the_file_holds_what_the_map_shows(reader, tmp_path):
    out = tmp_path / "map.parquet"
    points = export_map(reader, out, lambda captions, advance: random_units(len(captions), 5))
    table = pq.read_table(out)
    rows = table.to_pylist()
    assert [row["id"] for row in rows] == [reader.id(int(row)) for row in points.rows]
    np.testing.assert_array_equal([(row["x"], row["y"]) for row in rows], points.layout.xy)
    np.testing.assert_array_equal([row["embedding"] for row in rows], np.float32(live_embeddings()))
    assert [row["duplicate_of"] for row in rows if row["duplicate_of"]] == ["r0", "r0"]
    first = rows[1]
    assert first["label_modality"] == "ct" and {"name": "modality", "value": "ct"} in first["labels"]
    assert rows[0]["label_modality"] is None
    assert first["neighbors"] == {
        "ids": points.neighbors.points[1].tolist(),
        "distances": points.neighbors.distances[1].tolist(),
    }
    assert points.captions is not None
    assert [row["caption_rank"] for row in rows] == points.captions.ranks.tolist()
    assert [row["other_caption_of"] for row in rows] == [rows[i]["id"] for i in points.captions.others]
    facts = json.loads(table.schema.metadata[b"medclip"])
    assert facts["num_points"] == 59 and facts["notice"] == NOT_CLINICAL
    assert json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]["image"] == {"_type": "Image"}
    with pytest.raises(UserError, match="is there already"):
        export_map(reader, out)


def test_the_file_may_have_a_name_that_is_not_unicode(reader, tmp_path):
    out = tmp_path / os.fsdecode(b"a\xff.parquet")
    export_map(reader, out)
    assert out.read_bytes()[:4] == b"PAR1"


def test_without_captions_their_columns_are_empty(reader, tmp_path):
    export_map(reader, tmp_path / "map.parquet")
    table = pq.read_table(tmp_path / "map.parquet", columns=["caption_rank", "other_caption_of"])
    assert all(column.null_count == len(table) for column in table.columns)


def test_the_file_is_a_source_of_pairs(index_folder, tmp_path):
    reader = IndexReader(index_folder)
    export_map(reader, tmp_path / "map.parquet")
    prepare(tmp_path / "map.parquet", tmp_path / "data")
    (name,) = json.loads((tmp_path / "data" / "dataset.json").read_text())["splits"]
    split = Split(tmp_path / "data", name)
    assert split.column("id") == reader.table.column("id").to_pylist()
    assert split.column("caption") == reader.table.column("caption").to_pylist()


def test_an_open_index_writes_the_file_of_the_command(medclip, index_folder, tmp_path):
    index = Index.open(index_folder)
    medclip("map", "--index", index_folder, "--out", tmp_path / "command.parquet")
    points = index.export_map(str(tmp_path / "python.parquet"))
    tables = [pq.read_table(tmp_path / f"{name}.parquet") for name in ("command", "python")]
    assert len(points.rows) == 12 and tables[0].equals(tables[1], check_metadata=True)
    with pytest.raises(UserError, match="no image of the index has 'color'"):
        index.export_map(tmp_path / "red.parquet", filter={"color": "red"})
    assert index.export_map(tmp_path / "images.parquet", captions=False).captions is None


def test_a_map_that_was_written_meanwhile_stays(index_folder, tmp_path, monkeypatch):
    """Of two at once the second waited for the first, and put its own in its place."""
    out, make_map = tmp_path / "map.parquet", embedding_map.make_map

    def make_slowly(*args):
        points = make_map(*args)
        out.write_bytes(b"of another process")
        return points

    monkeypatch.setattr(embedding_map, "make_map", make_slowly)
    with pytest.raises(UserError, match="is there already"):
        export_map(IndexReader(index_folder), out)
    assert out.read_bytes() == b"of another process"


def test_the_command_writes_the_map_and_names_the_worst(medclip, index_folder, tmp_path):
    out = tmp_path / "map.parquet"
    code, printed, _ = medclip("map", "--index", index_folder, "--out", out)
    assert code == 0
    result, rows = json.loads(printed), pq.read_table(out).to_pylist()
    assert (result["points"], result["images"]) == (12, 12)
    worst = max(rows, key=lambda row: row["outlier_score"])
    assert result["outliers"][0] == {"id": worst["id"], "score": round(worst["outlier_score"], 4)}
    confused = max(rows, key=lambda row: row["other_caption_cosine"] - row["caption_cosine"])
    assert result["confused"][0]["id"] == confused["id"] and result["confused"][0]["rank"] == confused["caption_rank"]
    code, _, err = medclip("map", "--index", index_folder, "--out", out)
    assert code == 2 and "is there already" in err
    code, _, err = medclip("map", "--index", index_folder, "--out", tmp_path / "new.parquet", "--filter", "color=red")
    assert code == 2 and "no image of the index has 'color'" in err
    code, _, err = medclip("map", "--index", index_folder, "--out", tmp_path / "new.parquet", "--filter", "source=mars")
    assert code == 2 and "meets source=mars: source is ROCO." in err
    assert [path.name for path in tmp_path.iterdir()] == ["map.parquet"]
