"""A preparation that is killed, or whose disk fills, goes on to the very bytes of one that nothing disturbed."""

import json
import random
import subprocess
import sys

import pytest

from medclip.data import prepare as module
from medclip.data.prepare import prepare
from medclip.data.prepare_config import PrepareConfig
from medclip.data.resume import NOTES
from support.material import RocoFolder, draw_image, image_bytes
from support.touches import run_to_touch

PAIRS = 120
PREPARE = """
import json, resource, sys
from pathlib import Path
from medclip.data import prepare as module
from medclip.data.prepare_config import PrepareConfig
from medclip.errors import WorkError
source, out, workers, largest = json.loads(sys.argv[1])
if largest:
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
module.SHARD_PAIRS = 8
try:
    module.prepare(source, Path(out), PrepareConfig(shorter_side=64), num_workers=workers)
except WorkError as error:
    print("said:", error)
    sys.exit(1)
"""
PREPARE_OR_BE_KILLED = """
import json, sys
from pathlib import Path
from support.touches import count_touches
from medclip.data import prepare as module
from medclip.data.prepare_config import PrepareConfig
source, out, workers = json.loads(sys.argv[1])
module.SHARD_PAIRS = 8
touches, map_shards = count_touches(), module.map_shards
def counted(*arguments):
    for report in map_shards(*arguments):  # shards that other processes wrote
        touches.add()
        yield report
module.map_shards = counted
module.prepare(source, Path(out), PrepareConfig(shorter_side=64), num_workers=workers)
print(touches.count)
"""


def run_prepare(source, out, workers, largest=None):
    """Prepares in a process of its own whose files may grow so large: exit code and output."""
    words = [sys.executable, "-c", PREPARE, json.dumps([str(source), str(out), workers, largest])]
    process = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    return process.returncode, process.stdout


def contents(folder):
    """Bytes by file, but for the notes, which a kill between the last two lines of preparation would leave."""
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file() and NOTES not in path.parts}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    roco = RocoFolder(tmp_path_factory.mktemp("roco"))
    rows = [
        (f"R{n}", f"CT of the chest, number {n}", n % 40, image_bytes(draw_image(n % 40, (480, 400))))
        for n in range(PAIRS)
    ]
    roco.add_split("train", [*rows[:-10], ("R_absent", "CT of the knee", 1, None)], ("no tab",))
    roco.add_split("validation", rows[-10:])
    return roco.folder


@pytest.fixture(scope="module")
def expected_files(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SHARD_PAIRS", 8)
        prepare(str(source), out, PrepareConfig(shorter_side=64), num_workers=1)
    return contents(out)


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "kills"), [(1, 4), (3, 4)])
def test_kills_at_random_moments_change_nothing(source, expected_files, tmp_path, workers, kills):
    def prepare_until(out, kill_at):
        return run_to_touch(PREPARE_OR_BE_KILLED, out, kill_at, json.dumps([str(source), str(out), workers]))

    touches, chance = prepare_until(tmp_path / "0", kill_at=0), random.Random(workers)
    assert contents(tmp_path / "0") == expected_files
    out = tmp_path / "1"
    for kill in range(kills):
        prepare_until(out, chance.randint(1, touches))
        if (out / "dataset.json").exists():
            assert contents(out) == expected_files
            out = tmp_path / str(kill + 2)
    assert prepare_until(out, kill_at=0) is not None
    assert contents(out) == expected_files


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_disk_that_fills_leaves_whole_shards_and_a_sentence(source, expected_files, tmp_path, workers):
    """Files may grow to 16 kB: what a full disk does to the shards, of which those with few pairs still fit."""
    out = tmp_path / "data"
    code, output = run_prepare(source, out, workers, largest=16_000)
    assert (code, output.count("\n")) == (1, 1), output
    assert "the same command goes on from there" in output
    left = contents(out) if out.exists() else {}
    assert all(expected_files[name] == data for name, data in left.items())
    assert "dataset.json" not in left
    assert run_prepare(source, out, workers)[0] == 0
    assert contents(out) == expected_files
