"""`medclip verify`: whole folders pass; every damaged file is named, with the ids that it touches."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from medclip import recorded_files
from medclip.atomic_io import json_text, with_checksum, write_text
from medclip.data.dataset import Split
from medclip.data.leakage import decontaminate
from medclip.data.stats.report import write_report as write_data_report
from medclip.errors import UserError
from medclip.evaluation.report import write_report
from medclip.model.image_processor import square_image_processor
from medclip.recorded_files import write_recorded
from medclip.search.curate import add, delete, snapshot
from medclip.search.embed import embed
from medclip.search.reader import IndexReader
from medclip.training.data import SplitImages, cache_pixels, pixel_cache_file
from medclip.verify import _CHECKS, verify
from medclip.verify.hashes import Finding
from support.handmade_results import retrieval
from support.made_indexes import make_index, random_units
from support.writers import lock_elsewhere


def flip(path, byte, bit=0):
    """Invert one bit of a file."""
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)


def problems(folder):
    return {finding.file: finding.problem for finding in verify(folder).findings}


@pytest.fixture
def copied_data(data, tmp_path):
    """A dataset to damage, without the pixel caches that other tests made of it."""
    return shutil.copytree(data, tmp_path / "data", ignore=shutil.ignore_patterns("cache"))


@pytest.fixture(scope="module")
def embeddings(run, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("embedded") / "embeddings"
    embed(run, data, out, "validation")
    return out


def test_what_was_written_is_whole(medclip, data, index_folder, embeddings):
    for kind, folder in (("dataset", data), ("index", index_folder), ("embeddings", embeddings)):
        code, out, _ = medclip("verify", folder, "--json")
        report = json.loads(out)
        assert (code, report["kind"], report["damaged"]) == (0, kind, [])
    code, out, _ = medclip("verify", data, "--table")
    assert code == 0 and "nothing damaged" in out


def test_a_folder_of_something_else_is_a_wrong_command(medclip, tmp_path):
    code, _, err = medclip("verify", tmp_path)
    assert code == 2 and "nothing that medclip verifies" in err


def test_the_page_and_the_flags_of_a_command_are_checked_too(medclip, roco, tmp_path):
    """They are written after the manifest, so `checksums.json` holds their hashes."""
    folder = tmp_path / "data"
    assert medclip("prepare", roco.folder, "--num-workers", 1, "--out", folder)[0] == 0
    for name in ("report.html", "prepare.toml"):
        assert verify(folder).findings == ()
        whole = (folder / name).read_bytes()
        for damaged in (b"", whole[:-1], whole[:-5], whole[:100], whole.replace(b"e", b"f", 1), whole + b"\n", b"\xff"):
            (folder / name).write_bytes(damaged)
            assert [finding.file for finding in verify(folder).findings] == [name]
        (folder / name).write_bytes(whole)


def test_files_that_come_after_the_manifest_are_missed_and_known_from_others(copied_data):
    write_data_report(copied_data, near_images=False)
    write_recorded(copied_data / "prepare.toml", "seed = 0\n")
    assert problems(copied_data) == {}
    page = (copied_data / "report.html").read_bytes()
    (copied_data / "report.html").unlink()
    (copied_data / "notes.txt").write_text("")
    (copied_data / "prepare.toml").write_text("seed = 1\n")
    assert problems(copied_data) == {
        "notes.txt": "is in no manifest",
        "prepare.toml": "is not as it was written",
        "report.html": "is absent",
    }
    (copied_data / "notes.txt").unlink()
    (copied_data / "report.html").write_bytes(page)
    (copied_data / "checksums.json").unlink()
    assert problems(copied_data).keys() == {"prepare.toml", "report.html"}


@pytest.mark.parametrize("written", [False, True])
def test_a_kill_while_a_file_is_replaced_is_not_damage(tmp_path, monkeypatch, written):
    folder = retrieval(tmp_path / "evaluation", [1, 2, 3], [1, 1, 1])

    def write_until_a_kill(path, text):
        if written:
            write_text(path, text)
        raise KeyboardInterrupt

    monkeypatch.setattr(recorded_files, "write_text", write_until_a_kill)
    results = json.loads((folder / "retrieval.json").read_text()) | {"seed": 7}
    for name, text in (("evaluate-retrieval.toml", "new"), ("retrieval.json", json_text(with_checksum(results)))):
        with pytest.raises(KeyboardInterrupt):
            write_recorded(folder / name, text)
    assert (folder / "evaluate-retrieval.toml").exists() == written
    assert problems(folder) == {}
    monkeypatch.undo()
    write_recorded(folder / "evaluate-retrieval.toml", "last")
    (folder / "evaluate-retrieval.toml").write_text("new")
    assert problems(folder) == {"evaluate-retrieval.toml": "is not as it was written"}


def test_a_manifest_is_known_from_another_and_missed(index_folder, copy, embeddings, tmp_path):
    folder = copy(index_folder)
    write_recorded(folder / "index-build.toml", "split = 1\n")
    snapshot(folder, "one")
    assert problems(folder) == {}
    whole = {path: path.read_bytes() for path in (folder / "index.json", folder / "snapshots" / "one.json")}
    (folder / "index.json").write_bytes(whole[folder / "snapshots" / "one.json"])
    assert problems(folder) == {"snapshots/one.json": "is in no manifest"}
    (folder / "index.json").write_bytes(whole[folder / "index.json"][:-1])
    assert problems(folder) == {"index.json": "is not as it was written"}
    (folder / "index.json").unlink()
    assert problems(folder).keys() == {"checksums.json"}
    (folder / "index.json").write_bytes(whole[folder / "index.json"])
    (folder / "snapshots" / "one.json").unlink()
    assert problems(folder) == {"snapshots/one.json": "is absent"}
    other = shutil.copytree(embeddings, tmp_path / "embeddings")
    write_recorded(other / "embed.toml", "")
    (other / "embedding.json").rename(other / "moved")
    (other / "checksums.json").rename(other / "embedding.json")
    (other / "moved").rename(other / "checksums.json")
    assert problems(other)["checksums.json"] == "is another manifest"


def test_a_manifest_of_another_index_does_not_hide_behind_a_snapshot(tmp_path):
    mine, theirs = (make_index(tmp_path / name, random_units(20, seed)) for seed, name in enumerate(("a", "b")))
    for folder in (mine, theirs):
        snapshot(folder, "one")
    shutil.copy(theirs / "index.json", mine / "index.json")
    assert {"segments/00000/embeddings.npy", "snapshots/one.json"} <= problems(mine).keys()


def test_a_flipped_image_is_named_by_its_id(medclip, data, copied_data):
    shard, split = copied_data / "train-00000.arrow", Split(data, "train")
    flip(shard, shard.read_bytes().index(split.image(7)) + 40)
    code, out, err = medclip("verify", copied_data, "--json")
    (finding,) = json.loads(out)["damaged"]
    assert finding["file"] == "train-00000.arrow" and finding["ids"] == [split.column("id")[7]]
    assert code == 1 and "is damaged: train-00000.arrow" in err.replace("\n", " ")


def test_a_caption_that_changed_touches_any_pair_of_its_shard(data, copied_data):
    shard, split = copied_data / "train-00000.arrow", Split(data, "train")
    flip(shard, shard.read_bytes().index(b"upper brain"))
    (finding,) = verify(copied_data).findings
    assert finding.problem == "is not as it was written" and finding.ids == tuple(split.column("id"))


def test_a_shard_that_cannot_be_read_has_its_ids_from_the_notice(data, copied_data):
    (copied_data / "validation-00000.arrow").write_bytes(b"")
    (finding,) = verify(copied_data).findings
    assert "not a whole Arrow file" in finding.problem
    assert finding.ids == tuple(Split(data, "validation").column("id"))


def test_pixels_of_a_cache_are_compared_with_their_images(copied_data):
    split = Split(copied_data, "validation", 5)
    images = SplitImages(split, square_image_processor(16))
    cache_pixels(images)
    assert problems(copied_data) == {}
    cache = pixel_cache_file(images)
    for byte, row in ((0, 0), (-1, 4), (2 * (16 * 16 * 3 + 4) - 1, 1)):
        flip(cache, byte, 7)
        (finding,) = verify(copied_data).findings
        assert finding.file == f"cache/{cache.name}" and finding.ids == (split.column("id")[row],)
        flip(cache, byte, 7)
    (copied_data / "cache" / "validation-old.npy").write_bytes(b"")
    with cache.open("ab") as file:
        file.write(b"more")
    assert problems(copied_data) == {
        f"cache/{cache.name}": "has 3,864 bytes, not those of 5 images",
        "cache/validation-old.npy": "is in no manifest",
    }


def test_pixels_of_another_cache_of_the_same_images_are_known_from_its_own(copied_data):
    split = Split(copied_data, "validation", 5)
    files = []
    for mean in (0.25, 0.5):
        images = SplitImages(split, replace(square_image_processor(16), mean=(mean, 0.5, 0.5)))
        cache_pixels(images)
        files.append(pixel_cache_file(images))
    assert problems(copied_data) == {} and files[0] != files[1]
    shutil.copy(*files)
    assert problems(copied_data).keys() == {f"cache/{files[1].name}"}


def test_a_copy_without_leaked_pairs_is_whole(data, tmp_path):
    decontaminate(data, tmp_path / "clean")
    assert problems(tmp_path / "clean") == {}
    flip(tmp_path / "clean" / "NOTICE.txt", 5)
    assert problems(tmp_path / "clean") == {"NOTICE.txt": "is not as it was written"}


def test_items_that_changed_are_named_with_their_ids(medclip, tmp_path):
    folder = retrieval(tmp_path / "evaluation", [1, 2, 3], [1, 1, 1])
    write_report(folder)
    code, out, _ = medclip("verify", folder, "--json")
    assert (code, json.loads(out)["kind"]) == (0, "evaluations")
    items = folder / "retrieval.arrow"
    flip(items, items.read_bytes().index(b"article 1"))
    (finding,) = verify(folder).findings
    assert (finding.file, finding.ids) == ("retrieval.arrow", ("item 0", "item 1", "item 2"))
    flip(folder / "retrieval.json", (folder / "retrieval.json").read_bytes().index(b"chance"))
    assert problems(folder).keys() == {"retrieval.json", "retrieval.arrow"}


@pytest.mark.parametrize("form", ["safetensors", "parquet"])
def test_an_export_is_whole_and_each_of_its_files_is_checked(medclip, run, data, tmp_path, form):
    out = tmp_path / "export"
    assert medclip("export", data if form == "parquet" else run, "--to", form, "--out", out)[0] == 0
    code, text, _ = medclip("verify", out, "--json")
    assert (code, json.loads(text)["kind"]) == (0, "export")
    for path in [path for path in out.rglob("*") if path.is_file()]:
        flip(path, path.stat().st_size // 2)
        assert path.relative_to(out).as_posix() in problems(out)
        flip(path, path.stat().st_size // 2)
    (out / "stray").write_bytes(b"")
    assert problems(out) == {"stray": "is in no manifest"}


def test_what_is_being_written_is_not_called_damaged(medclip, data):
    with lock_elsewhere(data):
        code, _, err = medclip("verify", data)
    assert code == 1 and "another process is writing" in err and "is damaged" not in err


def test_absent_unlisted_and_partial_files_are_named(copied_data):
    (copied_data / "dropped.jsonl").unlink()
    (copied_data / "train-00009.arrow").write_bytes(b"")
    (copied_data / ".NOTICE.txt.17.partial").write_bytes(b"")
    assert problems(copied_data) == {
        "dropped.jsonl": "is absent",
        "train-00009.arrow": "is in no manifest",
        ".NOTICE.txt.17.partial": "is partial: a killed command left it",
    }


@pytest.mark.parametrize("change", [{"seed": 1}, {"checksum": "0" * 64}])
def test_a_manifest_that_changed_is_named(copied_data, change):
    content = json.loads((copied_data / "dataset.json").read_text())
    (copied_data / "dataset.json").write_text(json.dumps(content | change))
    assert problems(copied_data) == {"dataset.json": "is not as it was written"}


def test_a_row_that_is_not_a_unit_vector_is_named_by_its_id(embeddings, copy):
    folder = copy(embeddings)
    rows = np.load(folder / "images.npy")
    rows[3, 1] = 1.6e36
    np.save(folder / "images.npy", rows)
    (finding,) = verify(folder).findings
    assert (finding.file, finding.problem) == ("images.npy", "holds rows that are not unit vectors")
    assert finding.ids == ((folder / "ids.txt").read_text().splitlines()[3],)


def test_embeddings_that_changed_are_not_used(medclip, embeddings, run, data, copy, tmp_path):
    folder = copy(embeddings)
    evaluate = ("evaluate", "retrieval", "--embeddings", folder / "images.npy", folder / "texts.npy")
    assert medclip(*evaluate)[0] == 0
    flip(folder / "images.npy", -1, 7)  # a sign
    build = ("index", "build", "--model", run, "--data", data, "--out", tmp_path / "index", "--embeddings", folder)
    for words in (evaluate, build):
        code, _, err = medclip(*words)
        assert code == 2 and "images.npy is not the file whose hash is recorded" in err.replace("\n", " ")


def test_an_index_with_a_snapshot_and_two_segments_is_whole(index_folder, copy, again, run):
    folder = copy(index_folder)
    shutil.copytree(run, folder.parent / "run")
    snapshot(folder, "before")
    add(folder, again, "validation", 3, run)
    delete(folder, [Split(again, "validation").column("id")[0]])
    assert problems(folder) == {}
    flip(folder / "snapshots" / "before.json", 20)
    (folder / "segments" / "00007").mkdir()
    (folder / "segments" / "00007" / "rows.arrow").write_bytes(b"left")
    names = problems(folder).keys()
    assert {"snapshots/before.json", "segments/00007/rows.arrow"} == names


@pytest.mark.parametrize("objection", [Finding("segments/00001/rows.arrow", "is cut"), UserError("is no index")])
def test_half_of_a_change_is_no_damage(index_folder, copy, monkeypatch, objection):
    """A partial file of `index add` beside which it was read was "damaged"."""
    folder, tries, (manifest, check) = copy(index_folder), [], _CHECKS["index"]

    def check_beside_a_change(path):
        tries.append(path)
        if len(tries) == 1:
            delete(path, [IndexReader(path).id(0)])
            if isinstance(objection, UserError):
                raise objection
            yield objection
        yield from check(path)

    monkeypatch.setitem(cast("Any", _CHECKS), "index", (manifest, check_beside_a_change))
    assert problems(folder) == {} and len(tries) == 2


def test_a_sign_in_the_vectors_of_an_index_is_damage(index_folder, copy):
    folder = copy(index_folder)
    flip(folder / "segments" / "00000" / "embeddings.npy", -1, 7)
    (finding,) = verify(folder).findings
    assert (finding.file, finding.problem) == ("segments/00000/embeddings.npy", "is not as it was written")
    assert len(finding.ids) == 12


def test_a_cosine_beyond_one_is_not_answered(medclip, index_folder, copy, run):
    folder = copy(index_folder)
    path = folder / "segments" / "00000" / "embeddings.npy"
    rows = np.load(path)
    rows[0, 0] = 1.6e36
    np.save(path, rows)
    code, out, err = medclip("search", "--index", folder, "--model", run, "a chest", "--json")
    assert code == 2 and out == "" and "is not a unit vector" in err.replace("\n", " ")


def test_a_faiss_file_is_checked_against_the_vectors(tmp_path, monkeypatch):
    faiss = pytest.importorskip("medclip.search.stores.faiss")
    from medclip.search.curate import migrate

    monkeypatch.setattr(faiss, "MIN_SEGMENT_ROWS", 100)
    first, second = (make_index(tmp_path / name, random_units(300, seed)) for seed, name in enumerate("ab"))
    for folder in (first, second):
        migrate(folder, "faiss")
    file = "segments/00000/quantized.faiss"
    store = _differences(first)
    assert store == []
    whole = (first / file).read_bytes()
    (first / file).write_bytes((second / file).read_bytes())
    assert _differences(first) == [(file, "was made from other embeddings", 300)]
    (first / file).write_bytes(whole)
    for byte in (10, len(whole) // 2, -1, -40):
        flip(first / file, byte)
        assert [name for name, *_ in _differences(first)] == [file]
        (first / file).write_bytes(whole)


def _differences(folder):
    from medclip.search.reader import IndexReader

    return [(d.name, d.problem, len(d.rows)) for d in IndexReader(folder).store.differences()]


def test_a_run_is_whole_and_each_of_its_files_is_checked(medclip, run, copy):
    code, out, _ = medclip("verify", run, "--json")
    assert (code, json.loads(out)["damaged"]) == (0, [])
    folder = copy(run)
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and "tfevents" not in path.name):
        whole, name = path.read_bytes(), path.relative_to(folder).as_posix()
        flip(path, len(whole) // 2, 1)
        assert name in problems(folder), name
        path.write_bytes(whole)
    (folder / "model" / "stray.bin").write_bytes(b"")
    assert problems(folder) == {"model/stray.bin": "is in no manifest"}
