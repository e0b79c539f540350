"""An index grows, shrinks, goes back and forgets without being made anew, and a killed change is no change."""

import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from filelock import FileLock

from medclip.data.dataset import Split
from medclip.errors import UserError
from medclip.search import curate
from medclip.search.curate import add, build_index, delete, move, purge, restore, snapshot
from medclip.search.embed import embed
from medclip.search.index import Index
from medclip.search.query import Query, Searcher, SearchOptions, search


@pytest.fixture
def folder(index_folder, copy, run):
    """An index of twelve images to change."""
    made = copy(index_folder)
    about = json.loads((made / "index.json").read_text())
    (made / "index.json").write_text(json.dumps(about | {"model": str(run / "model")}))
    return made


def ids(folder):
    index = Index(folder)
    return [index.hit(int(row), 0.0).id for row in np.flatnonzero(index.live)]


def answers(folder, model):
    return [
        hit.id for hit in search(Searcher(Index(folder), model), [Query(("the left chest",))], SearchOptions(100))[0]
    ]


def test_what_is_added_is_found_and_not_added_twice(folder, data, model):
    there = set(ids(folder))
    expected = [id for id in Split(data, "train").column("id") if id not in there]
    assert add(folder, data, "train", None, None) == (len(expected), 25 - len(expected))
    assert ids(folder)[12:] == expected
    assert sorted(answers(folder, model)) == sorted(ids(folder))
    assert add(folder, data, "train", None, None) == (0, 25)
    assert len(Index(folder).contents.segments) == 2


def test_adding_equals_building_at_once(folder, data, run, model, again, tmp_path):
    add(folder, again, None, 5, None)
    build_index(run, data, tmp_path / "one")
    build_index(run, again, tmp_path / "two", limit=5)
    vectors = [
        Index(at).vectors_of(np.arange(n)) for at, n in ((folder, 17), (tmp_path / "one", 12), (tmp_path / "two", 5))
    ]
    assert vectors[0] == pytest.approx(np.concatenate(vectors[1:]), abs=1e-6)


def test_what_is_deleted_never_answers(folder, model):
    gone, article = ids(folder)[3], Index(folder).hit(6, 0.0).article
    assert delete(folder, [gone], [article]) == 3
    left = ids(folder)
    assert len(left) == len(Index(folder)) == 9 and gone not in left
    assert sorted(answers(folder, model)) == sorted(left)
    with pytest.raises(UserError, match="no image of id"):
        delete(folder, [gone])


def test_a_deletion_with_an_unknown_id_deletes_nothing(folder):
    with pytest.raises(UserError, match="no image of id 'absent': nothing was deleted"):
        delete(folder, [ids(folder)[0], "absent"])
    with pytest.raises(UserError, match="that is every image"):
        delete(folder, ids(folder))
    assert len(ids(folder)) == 12


def test_a_deleted_picture_can_be_added_again(folder, data):
    gone = ids(folder)[3]
    delete(folder, [gone])
    assert add(folder, data, "validation", None, None) == (1, 11)
    assert ids(folder)[-1] == gone
    assert Index(folder).hit(Index(folder).row(gone), 0.0).id == gone


def test_a_snapshot_comes_back_after_anything(folder, data, model):
    before = answers(folder, model)
    assert snapshot(folder, "before") == 12
    delete(folder, before[:2])
    add(folder, data, "train", None, None)
    assert restore(folder, "before") == 12
    assert answers(folder, model) == before
    with pytest.raises(UserError, match="has a snapshot 'before' already"):
        snapshot(folder, "before")
    with pytest.raises(UserError, match="has no snapshot 'after'; it has: before"):
        restore(folder, "after")


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b"])
def test_a_snapshot_has_a_plain_name(folder, name):
    with pytest.raises(UserError, match="is no name of a snapshot"):
        snapshot(folder, name)


def test_numbers_are_given_once(folder, data):
    """A store elsewhere goes by them: a number that came back as another image would be a wrong answer."""
    snapshot(folder, "before")
    add(folder, data, "train", None, None)
    seen = set(Index(folder).numbers.tolist())
    restore(folder, "before")
    add(folder, data, "train", None, None)
    numbers = Index(folder).numbers
    assert not seen & set(numbers[12:].tolist())
    assert (np.diff(numbers) > 0).all()


def test_purging_leaves_nothing_of_a_deleted_picture_on_the_disk(folder, data, model):
    index = Index(folder)
    add(folder, data, "train", None, None)
    snapshot(folder, "with-it")
    gone = ids(folder)[3]
    hit, vector = index.hit(3, 0.0), np.array(index.vectors[0][1][3])
    delete(folder, [gone])
    before = answers(folder, model)
    assert purge(folder) == 1
    left = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert hit.image not in left and hit.caption.encode() not in left and vector.tobytes() not in left
    assert answers(folder, model) == before
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
    with FileLock(folder / ".lock"), pytest.raises(UserError, match="another process is changing"):
        delete(folder, ids(folder)[:1])


def test_a_change_that_fails_changes_nothing(folder, data, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    before = (folder / "index.json").read_bytes()
    monkeypatch.setattr(curate, "write_batches", fail)
    with pytest.raises(OSError, match="No space"):
        add(folder, data, "train", None, None)
    assert (folder / "index.json").read_bytes() == before
    monkeypatch.undo()
    assert add(folder, data, "train", None, None)[0] > 0


def test_a_reader_sees_the_index_before_or_after(folder, data, model):
    index = Index(folder)
    before = ids(folder)
    delete(folder, before[:2])
    purge(folder)
    assert not index.is_current()
    assert [index.hit(row, 0.0).id for row in range(12)] == before  # its files are still open
    assert Index(folder).is_current()


def test_vectors_made_before_make_the_same_index(run, data, again, tmp_path):
    embed(run, data, tmp_path / "vectors", None, None, ("images",))
    build_index(run, data, tmp_path / "taken", vectors=tmp_path / "vectors")
    build_index(run, data, tmp_path / "made")
    names = ["segments/00000/vectors.npy", "segments/00000/rows.arrow"]
    assert [(tmp_path / "taken" / n).read_bytes() == (tmp_path / "made" / n).read_bytes() for n in names] == [
        True,
        True,
    ]
    with pytest.raises(UserError, match="are of other pairs"):
        build_index(run, data, tmp_path / "other", split="train", vectors=tmp_path / "vectors")


def test_vectors_of_another_model_are_refused(run, data, tmp_path):
    embed(run, data, tmp_path / "vectors", None, None, ("images",))
    about = json.loads((tmp_path / "vectors" / "embedding.json").read_text())
    (tmp_path / "vectors" / "embedding.json").write_text(json.dumps(about | {"model_sha256": "0" * 64}))
    with pytest.raises(UserError, match="made by another model"):
        build_index(run, data, tmp_path / "index", vectors=tmp_path / "vectors")
    assert not (tmp_path / "index" / "index.json").exists()


@pytest.mark.slow
def test_an_index_is_whole_or_absent_wherever_it_is_killed(run, data, tmp_path):
    words = [
        sys.executable,
        "-m",
        "medclip.cli.main",
        *map(str, ["index", "build", "--model", run, "--data", data, "--out"]),
    ]
    subprocess.run([*words, tmp_path / "whole"], check=True)
    killed = tmp_path / "killed"
    for after in np.random.default_rng(0).uniform(0, 0.3, 4):
        shutil.rmtree(killed, ignore_errors=True)  # the first file that is new says that the work has begun
        process = subprocess.Popen([*words, killed], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while process.poll() is None and not list(killed.rglob("*")) and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(after)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (killed / "index.json").exists() or len(Index(killed)) == 12
    if not (killed / "index.json").exists():
        subprocess.run([*words, killed], check=True)
    for name in ("segments/00000/vectors.npy", "segments/00000/rows.arrow"):
        assert (killed / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_moving_to_a_store_that_there_is_not(folder):
    with pytest.raises(UserError, match="credentials do not go into an index"):
        move(folder, "milvus://root:secret@host:19530")
    with pytest.raises(UserError, match="there are exact, faiss and milvus"):
        move(folder, "milvus://")
    assert move(folder, "exact") == 12
