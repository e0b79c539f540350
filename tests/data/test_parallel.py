"""Work on shards: results in order, few tasks in flight, and an end in one sentence whatever becomes of a worker."""

import errno
import multiprocessing
import os
import re
import subprocess
import sys
import time
from functools import partial
from unittest.mock import Mock

import pytest

from medclip.data.parallel import TASKS_PER_WORKER, map_shards
from medclip.data.prepare import prepare
from medclip.errors import UserError, WorkError
from medclip.require import install_command
from medclip.search.curate import build_index
from medclip.search.embed import embed
from support.shard_work import be_killed, fill_disk, finish_late


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_tasks(workers):
    assert list(map_shards(finish_late, ((n,) for n in range(6)), workers)) == list(range(6))


@pytest.mark.parametrize("workers", [1, 2])
def test_tasks_are_drawn_as_they_are_needed(workers):
    drawn = []
    tasks = ((drawn.append(number) or 5,) for number in range(100))
    results = map_shards(finish_late, tasks, workers)
    for num_results in range(1, 11):
        next(results)
        assert len(drawn) <= num_results + TASKS_PER_WORKER * workers
    results.close()
    assert len(drawn) < 20


def test_a_killed_worker_is_a_sentence_that_says_how_to_go_on():
    before = set(multiprocessing.active_children())
    with pytest.raises(WorkError, match=r"memory ran out.* the same command goes on from there"):
        list(map_shards(be_killed, [(1,)] * 9, 2))
    assert set(multiprocessing.active_children()) == before


def test_what_a_task_raises_ends_the_work_and_its_processes():
    before = set(multiprocessing.active_children())
    with pytest.raises(OSError, match="No space left"):
        list(map_shards(fill_disk, [(1,)] * 9, 2))
    assert set(multiprocessing.active_children()) == before


ENDLESS = """
import os
from medclip.data.parallel import map_shards
for group in map_shards(os.getpgid, ((0,) for _ in iter(int, 1)), 2):
    print("at work", flush=True)
"""


@pytest.mark.slow
def test_workers_end_with_their_parent():
    parent = subprocess.Popen([sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, start_new_session=True)
    parent.stdout.readline()  # its workers are at work
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 120
    while time.monotonic() < until:
        try:
            os.killpg(parent.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("a worker outlived its parent by two minutes")


def test_without_shared_memory_one_process_does_the_work(monkeypatch, caplog):
    """Of a container without /dev/shm, or with one that is full or read-only: there are no semaphores."""
    monkeypatch.setattr("_multiprocessing.SemLock", Mock(side_effect=OSError(errno.EROFS, "Read-only file system")))
    assert list(map_shards(os.getpgid, ((0,) for _ in range(3)), 2)) == [os.getpgid(0)] * 3
    assert "one process works, not 2: /dev/shm, by which they would be joined: Read-only file system." in caplog.text


def test_an_absent_ray_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=re.escape(install_command("ray"))):
        list(map_shards(finish_late, [(1,)], ray=True))


@pytest.mark.parametrize(
    "command", [partial(prepare, "absent.csv"), partial(embed, "m", "d"), partial(build_index, "m", "d")]
)
def test_an_absent_ray_is_named_before_anything_is_opened_or_written(monkeypatch, tmp_path, command):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=re.escape(install_command("ray"))):
        command(tmp_path / "out", ray=True)
    assert not any(tmp_path.iterdir())
