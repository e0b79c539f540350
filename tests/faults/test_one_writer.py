"""One process at a time writes into a folder; a killed one leaves no lock."""

import errno
import fcntl
import json
import math
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from medclip import folder_locks
from medclip.data import deidentify
from medclip.data.corrections import pair_keys, write_corrections
from medclip.data.dataset import Split, read_dataset
from medclip.data.deidentify import make_key, read_key
from medclip.encode.feature_cache import FeatureStore
from medclip.errors import LockedError, UserError, WorkError
from medclip.folder_locks import NOTES, claim, lock_folder
from medclip.search import segments
from medclip.search.curate import delete, migrate, purge, snapshot
from medclip.search.reader import IndexReader
from medclip.search.stores import faiss
from medclip.training.data import SplitImages, cache_pixels, pixel_cache_file, read_images
from support.made_indexes import make_index, matches_brute_force, random_units
from support.waiting import wait_until
from support.writers import files_in, lock_elsewhere, partial_files, run_until, start_held

HOLD = """
import sys, time
from pathlib import Path
from medclip.folder_locks import lock_folder
with lock_folder(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that has locked the folder `out`."""
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "out"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_a_folder_has_one_writer_until_that_is_killed(tmp_path, holder):
    out = tmp_path / "out"
    for stopped in (False, True):
        if stopped:
            holder.send_signal(signal.SIGSTOP)
        start = time.monotonic()
        with pytest.raises(WorkError, match=f"another process is writing {out};"), lock_folder(out):
            pass
        assert time.monotonic() - start < 60
    assert list(out.iterdir()) == []
    holder.kill()
    holder.wait()
    with lock_folder(out):
        assert list(out.iterdir()) == []


def test_a_lock_is_taken_when_its_holder_lets_go(tmp_path):
    with ThreadPoolExecutor(1) as pool, lock_folder(tmp_path):
        with pytest.raises(LockedError):
            pool.submit(lambda: lock_folder(tmp_path).__enter__()).result()
        later = pool.submit(lambda: lock_folder(tmp_path, wait_s=120).__enter__() or "locked")
        time.sleep(0.1)
        assert not later.done()
    assert later.result() == "locked"


def test_a_writer_may_lock_again_and_an_unused_folder_is_not_left(tmp_path):
    with lock_folder(tmp_path / "new"), lock_folder(tmp_path / "new"):
        pass
    assert not (tmp_path / "new").exists()
    with pytest.raises(ZeroDivisionError), claim(tmp_path / "new", "marker"):
        raise ZeroDivisionError
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file; give a folder"), claim(tmp_path / "file", "marker"):
        pass


def test_a_file_system_without_locks_is_told_and_written(tmp_path, monkeypatch, caplog):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with lock_folder(tmp_path):
        pass
    assert f"{tmp_path} cannot be locked (No locks available)" in caplog.text


COMMANDS = {
    "prepare": "prepare {roco} --out {new}",
    "train": "train --data {data} --out {new} --steps 1 --batch-size 8",
    "resume": "train --data {data} --out {run} --steps 4 --batch-size 8 --resume",
    "retrieval": "evaluate retrieval --model {run} --data {data} --out {new}",
    "robustness": "evaluate robustness --model {run} --data {data} --out {new}",
    "embed": "embed --model {run} --data {data} --out {new}",
    "build": "index build --model {run} --data {data} --out {new}",
    "add": "index add --index {index} --data {data} --split train",
    "delete": "index delete --index {index} --ids {id}",
    "snapshot": "index snapshot --index {index} one",
    "restore": "index restore --index {index} zero",
    "purge": "index purge --index {index}",
    "migrate": "index migrate --index {index} exact",
    "correct-index": "index correct --index {index} --corrections {corrections}",
    "correct": "correct {data} --corrections {corrections} --out {new}",
    "leakage": "leakage {data} --out {new}",
    "parquet": "export {data} --to parquet --out {new}",
    "safetensors": "export {run} --to safetensors --out {new}",
    "open_clip": "export {run} --to open_clip --out {new}",
    "stats": "stats {data}",
    "stats-file": "stats {data} --out {new}/page.html",
    "map": "map --index {index} --no-captions --out {new}/map.parquet",
    "quickstart": "quickstart --no-app --out {new}",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_a_folder_that_another_process_writes(
    command, medclip, monkeypatch, roco, data, run, index_folder, copy, tmp_path
):
    monkeypatch.setattr(folder_locks, "LOCK_WAIT_S", 0.0)
    for module in ("html_page", "search.map"):
        monkeypatch.setattr(f"medclip.{module}.LOCK_WAIT_S", 0.0)
    folders = {"data": copy(data), "run": copy(run), "index": copy(index_folder), "new": tmp_path / "new"}
    snapshot(folders["index"], "zero")
    folders["new"].mkdir()
    locked = folders[next(name for name in ("new", "index", "run", "data") if f"{{{name}}}" in COMMANDS[command])]
    before = files_in(locked)
    id = Split(data, "validation").column("id")[0]
    corrections = tmp_path / "corrections.json"
    corrections.write_text(write_corrections(dict.fromkeys(pair_keys(Split(data, "validation").table)[:1])))
    names = folders | {"roco": roco.folder, "id": id, "corrections": corrections}
    words = [word.format(**names) for word in COMMANDS[command].split()]
    with lock_elsewhere(locked):
        code, _, error = medclip(*words)
    assert (code, f"another process is writing {locked}" in error) == (1, True), error
    assert files_in(locked) == before


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["prepare", "build", "resume"])
def test_of_two_writers_one_wins_and_one_is_refused(medclip, data, run, roco, tmp_path, kind):
    """Two that differ: by the size of images, by the model."""
    out, other = tmp_path / "out", tmp_path / "other"
    if kind == "prepare":
        calls = [["prepare", roco.folder, "--shorter-side", side, "--out", out] for side in (32, 64)]
    elif kind == "build":
        shutil.copytree(run / "model", other)
        config = json.loads((other / "config.json").read_text())
        (other / "config.json").write_text(json.dumps(config | {"logit_scale_init_value": 1.0}))
        models = run / "model", other
        calls = [["index", "build", "--model", model, "--data", data, "--out", out] for model in models]
    else:
        start = ["train", "--data", data, "--preset", "tiny", "--steps", 3, "--batch-size", 8, "--out", out]
        assert run_until("README.md", *start)
        calls = [[*start, "--resume"]] * 2
    processes = [start_held(out, tmp_path / "other ended", *call) for call in calls]
    wait_until(lambda: any(process.poll() is not None for process in processes))
    (tmp_path / "other ended").touch()
    outputs = [process.communicate() for process in processes]
    codes = [process.returncode for process in processes]
    assert sorted(codes) == [0, 1], outputs
    assert f"another process is writing {out}" in outputs[codes.index(1)][1].replace("\n", " ")
    winner = codes.index(0)
    if kind == "prepare":
        assert read_dataset(out)["shorter_side"] == (32, 64)[winner]
    if kind == "build":
        assert IndexReader(out).model_path() == models[winner].resolve()
    assert not (out / NOTES).exists() and partial_files(out) == []


def test_a_reader_in_the_middle_of_a_purge_sees_the_index_after_it(tmp_path, monkeypatch):
    folder = make_index(tmp_path / "i", random_units(30))
    delete(folder, ids=["r3"])
    read_manifest, purges = segments.read_manifest, []

    def read_before_a_purge(folder):
        manifest = read_manifest(folder)
        if not purges:
            purges.append(True)
            purge(folder)
        return manifest

    monkeypatch.setattr(segments, "read_manifest", read_before_a_purge)
    reader = IndexReader(folder)
    assert purges and len(reader) == 29 and reader.is_current() and matches_brute_force(reader)


def test_an_index_that_was_opened_before_a_purge_is_searched_after_it(tmp_path, monkeypatch):
    """The files of faiss are opened by the first search, when they are gone."""
    monkeypatch.setattr(faiss, "MIN_SEGMENT_ROWS", 100)
    folder = make_index(tmp_path / "i", random_units(120))
    migrate(folder, "faiss")
    delete(folder, ids=["r3"])
    reader = IndexReader(folder)
    purge(folder)
    assert matches_brute_force(reader)
    assert matches_brute_force(IndexReader(folder))


PURGE = """
import sys
from pathlib import Path
from medclip.search.curate import delete, purge
for row in range(40):
    delete(Path(sys.argv[1]), ids=[f"r{row}"])
    purge(Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_readers_beside_purges_never_see_damage(tmp_path):
    folder, sizes = make_index(tmp_path / "i", *(random_units(40, seed) for seed in range(4))), []
    with subprocess.Popen([sys.executable, "-c", PURGE, folder]) as changes:
        while changes.poll() is None:
            sizes.append(len(IndexReader(folder)))
    assert changes.returncode == 0
    assert sizes == sorted(sizes, reverse=True) and len(IndexReader(folder)) == 120


def test_two_that_make_a_key_have_the_same(tmp_path, monkeypatch):
    token_hex = deidentify.secrets.token_hex

    def slow(count):
        time.sleep(0.2)
        return token_hex(count)

    monkeypatch.setattr(deidentify.secrets, "token_hex", slow)
    key = tmp_path / "keys" / "key"

    def make(number):
        make_key(key, tmp_path / f"out-{number}")
        return read_key(key)

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(make, range(4)))) == 1
    assert key.stat().st_mode & 0o777 == 0o600


def test_a_cache_that_another_process_makes_is_not_waited_for(data, copy, model, capfd):
    split = Split(copy(data), "train")
    images = SplitImages(split, model.image_processor)
    shutil.rmtree(split.folder / "cache")
    (split.folder / "cache").mkdir()
    (split.folder / "cache" / ".train-other.npy.99.partial").write_bytes(b"65 MB of a killed run")
    with lock_elsewhere(split.folder / "cache"):
        assert not isinstance(read_images(split, model.image_processor, 8.0), np.ndarray)
    assert "not cached after all: another process is writing" in capfd.readouterr().err.replace("\n", " ")
    assert np.array_equal(cache_pixels(images)[:3], images[np.arange(3)])
    assert [path for path in (split.folder / "cache").iterdir()] == [pixel_cache_file(images)]


def test_rows_of_the_feature_cache_wait_for_another_writer(tmp_path, monkeypatch):
    monkeypatch.setattr("medclip.encode.feature_cache.LOCK_WAIT_S", 0.0)
    monkeypatch.setattr("medclip.encode.feature_cache.SAVE_EVERY_S", math.inf)  # by this test alone
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / ".x.npy.99.partial").touch()
    store = FeatureStore(folder, 10**9)
    key, row = b"k" * 32, np.ones(4, np.float32)
    store.complete([key], [None], lambda _: row[None])
    with lock_elsewhere(folder):
        store.save()
        assert not list(folder.glob("*[!l]"))
    store.save()
    assert key in FeatureStore(folder, 10**9) and partial_files(folder) == []
