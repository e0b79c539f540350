"""An index grows, shrinks, goes back and forgets without being built again, and a killed change is no change."""

import json
import shutil

import numpy as np
import pytest

from medclip.atomic_io import write_with_checksum
from medclip.data.corrections import pair_keys
from medclip.data.dataset import Split
from medclip.data.prepare import prepare
from medclip.errors import UserError, WorkError
from medclip.search import curate, segment_writer
from medclip.search.curate import add, build_index, correct, delete, migrate, purge, restore, snapshot
from medclip.search.embed import embed
from medclip.search.index import Index
from medclip.search.manifest import read_manifest
from medclip.search.reader import IndexReader
from medclip.verify import verify
from support.made_indexes import make_index, random_units, varied_metadata
from support.material import bytes_on_disk, draw_image, image_bytes
from support.touches import run_to_touch
from support.writers import lock_elsewhere

COMMAND = """
import contextlib, io, sys
from support.touches import count_touches
touches = count_touches()
from medclip.cli.main import run
with contextlib.redirect_stdout(io.StringIO()):
    run(sys.argv[1:])
print(touches.count)
"""
SEGMENT_FILES = ("segments/00000/embeddings.npy", "segments/00000/rows.arrow")


@pytest.fixture
def folder(index_folder, copy, run):
    """An index of twelve images to change."""
    folder = copy(index_folder)
    manifest = json.loads((folder / "index.json").read_text())
    write_with_checksum(folder / "index.json", manifest | {"model": str(run / "model")})
    return folder


def ids(folder):
    reader = IndexReader(folder)
    return [reader.id(int(row)) for row in np.flatnonzero(reader.live_mask)]


def search_ids(folder, model):
    return [hit.id for hit in Index(IndexReader(folder), model).search("the left chest", k=100)]


def test_what_is_added_is_found_and_not_added_twice(folder, data, model):
    present = set(ids(folder))
    expected = [id for id in Split(data, "train").column("id") if id not in present]
    assert add(folder, data, "train", None, None) == (len(expected), 25 - len(expected))
    assert ids(folder)[12:] == expected
    assert sorted(search_ids(folder, model)) == sorted(ids(folder))
    assert add(folder, data, "train", None, None) == (0, 25)
    assert len(IndexReader(folder).manifest.segments) == 2


@pytest.mark.parametrize("form", ["image,caption,split", "image,caption,split,id", "folder"])
def test_images_without_ids_of_another_dataset_are_new(tmp_path, run, form):
    """Neither a row number in a column of ids nor the number that names a file is the identity of an image."""
    for first, name in ((0, "one"), (40, "other")):
        (tmp_path / name / "site").mkdir(parents=True)
        for number in range(6):
            image = image_bytes(draw_image(first + number), "PNG")
            (tmp_path / name / "site" / f"{number}.png").write_bytes(image)
            if form == "folder":
                (tmp_path / name / "site" / f"{number}.txt").write_text("CT of the chest")
        source = tmp_path / name / "site"
        if form != "folder":
            end = ",{}" if form.endswith("id") else ""
            rows = "".join(f"{number}.png,CT of the chest,train{end.format(number)}\n" for number in range(6))
            source /= "pairs.csv"
            source.write_text(f"{form}\n{rows}")
        prepare(str(source), tmp_path / name / "data", num_workers=1)
    build_index(run, tmp_path / "one" / "data", tmp_path / "index")
    assert add(tmp_path / "index", tmp_path / "other" / "data", None, None, None) == (6, 0)
    assert add(tmp_path / "index", tmp_path / "other" / "data", None, None, None) == (0, 6)


def test_adding_equals_building_at_once(folder, data, run, model, again, tmp_path):
    add(folder, again, None, 5, None)
    build_index(run, data, tmp_path / "one")
    build_index(run, again, tmp_path / "two", max_samples=5)
    embeddings, *parts = (
        IndexReader(path).embeddings_at(np.arange(rows))
        for path, rows in ((folder, 17), (tmp_path / "one", 12), (tmp_path / "two", 5))
    )
    assert embeddings == pytest.approx(np.concatenate(parts), abs=1e-6)


def test_a_deleted_image_is_never_a_hit(folder, model):
    deleted, article = ids(folder)[3], IndexReader(folder).hit(6, 0.0).article
    assert delete(folder, [deleted], [article]) == 3
    rest = ids(folder)
    assert len(rest) == len(IndexReader(folder)) == 9 and deleted not in rest
    assert sorted(search_ids(folder, model)) == sorted(rest)
    with pytest.raises(UserError, match="no image of id"):
        delete(folder, [deleted])


def test_a_deletion_with_an_unknown_id_deletes_nothing(folder):
    with pytest.raises(UserError, match="no image of id 'absent': nothing was deleted"):
        delete(folder, [ids(folder)[0], "absent"])
    with pytest.raises(UserError, match="that is every image"):
        delete(folder, ids(folder))
    assert len(ids(folder)) == 12


def test_what_does_not_say_which_image_is_meant_deletes_nothing(tmp_path):
    """Two hospitals have an image 7 and a patient 12 each; an article of a publication is the same everywhere."""
    fields = [("7", "12", "a"), ("7", "12", "b"), ("8", "12", "a"), ("9", "PMC1", "a"), ("10", "PMC1", "b")]
    rows = [dict(zip(("id", "article", "source"), row, strict=True)) for row in fields]
    folder = make_index(tmp_path / "index", random_units(5), metadata=rows.__getitem__)
    with pytest.raises(UserError, match=r"2 images \(medclip index correct .* of id '7': nothing was deleted"):
        delete(folder, ["8", "7"])
    with pytest.raises(UserError, match=r"images of 2 sources .* of article '12': nothing was deleted"):
        delete(folder, [], ["12"])
    assert delete(folder, ["8"], ["PMC1"]) == 3
    assert ids(folder) == ["7", "7"]


def test_a_deleted_image_can_be_added_again(folder, data):
    deleted = ids(folder)[3]
    delete(folder, [deleted])
    assert add(folder, data, "validation", None, None) == (1, 11)
    assert ids(folder)[-1] == deleted
    assert IndexReader(folder).find_rows(deleted) == [12]  # not the deleted one


def test_a_snapshot_comes_back_after_anything(folder, data, model):
    before = search_ids(folder, model)
    assert snapshot(folder, "before") == 12
    delete(folder, before[:2])
    add(folder, data, "train", None, None)
    assert restore(folder, "before") == 12
    assert search_ids(folder, model) == before
    with pytest.raises(UserError, match="has a snapshot 'before' already"):
        snapshot(folder, "before")
    with pytest.raises(UserError, match="has no snapshot 'after'; it has: before"):
        restore(folder, "after")


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b"])
def test_a_snapshot_has_a_plain_name(folder, name):
    with pytest.raises(UserError, match="is not a name for a snapshot"):
        snapshot(folder, name)


def test_row_ids_are_never_reused(folder, data):
    """An external store keys by them: an id that came back as another image would be a wrong hit."""
    snapshot(folder, "before")
    add(folder, data, "train", None, None)
    before = set(IndexReader(folder).row_ids.tolist())
    restore(folder, "before")
    add(folder, data, "train", None, None)
    row_ids = IndexReader(folder).row_ids
    assert not before & set(row_ids[12:].tolist())
    assert (np.diff(row_ids) > 0).all()


def test_a_purge_leaves_nothing_of_a_deleted_image_on_the_disk(folder, data, model):
    reader = IndexReader(folder)
    add(folder, data, "train", None, None)
    snapshot(folder, "with-it")
    hit, embedding = reader.hit(3, 0.0), reader.embeddings_at(np.array([3]))
    traces = [hit.image, hit.caption.encode(), embedding.tobytes()]
    delete(folder, [hit.id])
    before = search_ids(folder, model)
    assert all(trace in bytes_on_disk(folder) for trace in traces)
    assert purge(folder) == 1
    assert not any(trace in bytes_on_disk(folder) for trace in traces)
    assert search_ids(folder, model) == before
    assert purge(folder) == 0
    with pytest.raises(UserError, match="it has: none"):
        restore(folder, "with-it")


def test_a_purge_erases_what_a_restore_left_behind(folder, data):
    snapshot(folder, "before")
    added, _ = add(folder, data, "train", None, None)
    restore(folder, "before")
    assert purge(folder) == added
    assert [path.name for path in (folder / "segments").iterdir()] == ["00000"]


def test_one_change_at_a_time(folder, data):
    deleted, before = ids(folder)[:1], (folder / "index.json").read_bytes()
    with lock_elsewhere(folder), pytest.raises(WorkError, match=f"another process is writing {folder}"):
        delete(folder, deleted)
    assert (folder / "index.json").read_bytes() == before
    assert delete(folder, deleted) == 1


def test_a_damaged_segment_is_not_written_anew(folder):
    """The new one would have hashes of its own, and `medclip verify` would find nothing."""
    delete(folder, ids(folder)[:1])
    reader, rows = IndexReader(folder), folder / SEGMENT_FILES[1]
    key, content, image = pair_keys(reader.table)[1], rows.read_bytes(), reader.image(2)
    rows.write_bytes(content.replace(image, image[:-1] + b"x"))
    for change in (lambda: correct(folder, {key: {"modality": "x"}}), lambda: purge(folder)):
        with pytest.raises(UserError, match=r"rows\.arrow is not the file whose hash is recorded"):
            change()
    assert [finding.file for finding in verify(folder).findings] == [SEGMENT_FILES[1]]


def test_a_change_that_fails_changes_nothing(folder, data, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    before = (folder / "index.json").read_bytes()
    monkeypatch.setattr(segment_writer, "write_batches", fail)
    with pytest.raises(OSError, match="No space"):
        add(folder, data, "train", None, None)
    assert (folder / "index.json").read_bytes() == before
    monkeypatch.undo()
    assert add(folder, data, "train", None, None)[0] > 0


def test_a_reader_sees_the_index_before_or_after(folder, data, model):
    reader = IndexReader(folder)
    before = ids(folder)
    delete(folder, before[:2])
    purge(folder)
    assert not reader.is_current()
    assert [reader.id(row) for row in range(12)] == before  # its files are still open
    assert IndexReader(folder).is_current()


def test_precomputed_embeddings_give_the_same_index(run, data, tmp_path):
    embed(run, data, tmp_path / "embeddings", None, None, ("images",))
    build_index(run, data, tmp_path / "precomputed", embeddings=tmp_path / "embeddings")
    build_index(run, data, tmp_path / "index")
    for name in SEGMENT_FILES:
        assert (tmp_path / "precomputed" / name).read_bytes() == (tmp_path / "index" / name).read_bytes()
    assert [segment.backend for segment in read_manifest(tmp_path / "precomputed").segments] == ["jax"]
    with pytest.raises(UserError, match="are of other pairs"):
        build_index(run, data, tmp_path / "other", split="train", embeddings=tmp_path / "embeddings")


def test_an_index_says_what_computed_the_embeddings_that_it_was_given(run, data, tmp_path):
    embed(run, data, tmp_path / "embeddings", None, 3, ("images",))
    file = tmp_path / "embeddings" / "embedding.json"
    write_with_checksum(file, json.loads(file.read_text()) | {"backend": "openvino-bf16"})
    build_index(run, data, tmp_path / "index", max_samples=3, embeddings=tmp_path / "embeddings")
    assert [segment.backend for segment in read_manifest(tmp_path / "index").segments] == ["openvino-bf16"]


def test_embeddings_of_another_model_are_refused(run, data, tmp_path):
    embed(run, data, tmp_path / "embeddings", None, None, ("images",))
    file = tmp_path / "embeddings" / "embedding.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_sha256": "0" * 64}))
    with pytest.raises(UserError, match="made by another model"):
        build_index(run, data, tmp_path / "index", embeddings=tmp_path / "embeddings")
    assert not (tmp_path / "index" / "index.json").exists()


def test_a_damaged_image_is_named_where_its_embedding_was_given(run, data, copy, tmp_path):
    """The shard was damaged after `embed` read it; the embeddings alone would not tell."""
    folder = copy(data)
    embed(run, folder, tmp_path / "embeddings", None, None, ("images",))
    path, split = folder / "validation-00000.arrow", Split(folder, "validation")
    damaged, (id,) = split.image(5), split.take("id", [5])
    path.write_bytes(path.read_bytes().replace(damaged, bytes(len(damaged))))
    with pytest.raises(WorkError, match=f"the image of {id} in split 'validation' .* is not the one that was written"):
        build_index(run, folder, tmp_path / "index", embeddings=tmp_path / "embeddings")
    assert not (tmp_path / "index" / "index.json").exists()


@pytest.mark.slow
def test_an_index_is_whole_or_absent_wherever_it_is_killed(run, data, tmp_path):
    command = ("index", "build", "--model", run, "--data", data, "--out")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    touches = run_to_touch(COMMAND, whole, 0, *command, whole)
    for kill_at in np.random.default_rng(0).choice(touches, 4, replace=False) + 1:
        shutil.rmtree(killed, ignore_errors=True)
        assert run_to_touch(COMMAND, killed, kill_at, *command, killed) is None
        assert not (killed / "index.json").exists() or len(IndexReader(killed)) == 12
    if not (killed / "index.json").exists():
        run_to_touch(COMMAND, killed, 0, *command, killed)
    for name in SEGMENT_FILES:
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


def test_an_unknown_store_is_refused(folder):
    with pytest.raises(UserError, match="credentials do not go into an index"):
        migrate(folder, "milvus://root:secret@host:19530")
    with pytest.raises(UserError, match="choose exact, faiss or milvus"):
        migrate(folder, "milvus://")
    assert migrate(folder, "exact") == 12


@pytest.mark.parametrize("vector_store", ["exact", "faiss"])
def test_corrections_delete_and_relabel_and_a_snapshot_goes_back(tmp_path, vector_store):
    if vector_store == "faiss":
        pytest.importorskip("faiss", reason="the extra faiss is not installed")
    vectors = random_units(20)
    folder = make_index(tmp_path / "index", vectors[:12], vectors[12:], metadata=varied_metadata)
    migrate(folder, vector_store)
    keys = pair_keys(IndexReader(folder).table)
    relabel = {keys[5]: {"modality": "xa"}, keys[15]: {"modality": "", "view": "ap"}}
    corrected = correct(folder, {keys[2]: None, keys[14]: None, **relabel})
    assert corrected == (2, 2, "before-corrections-1")
    reader = IndexReader(folder)
    assert len(reader) == 18 and sorted(ids(folder)) == sorted(f"r{i}" for i in range(20) if i not in (2, 14))
    hits = {id: reader.hit(*reader.find_rows(id), 0) for id in ("r5", "r15", "r6")}
    assert hits["r5"].labels == {"modality": "xa"}  # varied_metadata: ct alone
    assert hits["r15"].labels == {"organ": "chest", "view": "ap"}
    assert (hits["r5"].added, hits["r15"].added) == ("2026-11-01", "2026-11-25")
    for row in (5, 15, 6):
        (ranking,) = reader.nearest_rows(vectors[row : row + 1], 1)
        assert reader.id(ranking[0][0]) == f"r{row}"
    assert reader.value_counts["modality"]["xa"] == 1
    for absent in (keys[2], ("r3", keys[4][1])):  # deleted, and of another image
        with pytest.raises(UserError, match=f"no image of id '{absent[0]}'"):
            correct(folder, {absent: None, keys[4]: None})
    assert len(IndexReader(folder)) == 18
    assert correct(folder, {keys[4]: None}).snapshot == "before-corrections-2"
    assert restore(folder, "before-corrections-2") == 18 and IndexReader(folder).find_rows("r4")
    restore(folder, "before-corrections-1")
    reader = IndexReader(folder)
    assert len(reader) == 20 and reader.hit(*reader.find_rows("r5"), 0).labels == {"modality": "ct"}


def test_corrections_that_delete_everything_change_nothing(tmp_path):
    folder = make_index(tmp_path / "index", random_units(3))
    with pytest.raises(UserError, match="every image"):
        correct(folder, dict.fromkeys(pair_keys(IndexReader(folder).table)))
    assert len(IndexReader(folder)) == 3


def test_a_noted_collection_of_another_is_not_dropped(tmp_path, data, run, monkeypatch):
    (tmp_path / "index" / ".unfinished").mkdir(parents=True)
    (tmp_path / "index" / ".unfinished" / "collection.json").write_text('"patients"')
    monkeypatch.setattr(curate, "check_available", lambda store: store)
    monkeypatch.setattr(curate, "drop_collection", pytest.fail)
    with pytest.raises(UserError, match=r"collection\.json is 'patients'"):
        build_index(run, data, tmp_path / "index", vector_store="milvus://127.0.0.1:1")
