"""A Ray cluster makes the same bytes as one process, though a machine is lost or the command is killed half-way."""

import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]


def test_a_preparation_makes_the_same_bytes(cluster, roco, data, run_command, files_of, tmp_path):
    run_command("prepare", roco.folder, "--out", tmp_path / "data", "--ray", cluster=cluster)
    made = files_of(tmp_path / "data")
    assert {name: made[name] for name in files_of(data)} == files_of(data)


EMBED_IN_STEPS = """
import importlib, sys
from pathlib import Path
from medclip import jax_setup
jax_setup.start()
embed = importlib.import_module("medclip.search.embed")
embed.TASK_ROWS = 1
stream = embed.RayJob.stream

def pause_half_way(*arguments):
    for number, embeddings in enumerate(stream(*arguments)):
        if number == 8:
            print("half-way", flush=True)
            sys.stdin.readline()
        yield embeddings

embed.RayJob.stream = pause_half_way
embed.embed(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), "train", ray=True)
"""


def start_to_embed(cluster, *paths):
    """Embed row by row on the cluster: the process, which waits for a line at its ninth row."""
    process = subprocess.Popen(
        [sys.executable, "-c", EMBED_IN_STEPS, *map(str, paths)],
        env=os.environ | {"RAY_ADDRESS": cluster.address},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "half-way\n"
    return process


@pytest.fixture(scope="module")
def embeddings(run, data, run_command, tmp_path_factory):
    """What one process makes of the training split."""
    out = tmp_path_factory.mktemp("embeddings") / "out"
    run_command("embed", "--model", run, "--data", data, "--split", "train", "--out", out)
    return out


def test_embeddings_are_the_same_bytes_after_a_lost_machine(
    cluster, one_core, run, data, embeddings, files_of, tmp_path
):
    process = start_to_embed(cluster, run, data, tmp_path / "out")
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    process.communicate("\n\n")
    assert process.returncode == 0
    cluster.add_node(**one_core())
    assert files_of(tmp_path / "out") == files_of(embeddings)


def test_a_killed_command_goes_on_to_the_same_bytes(cluster, run, data, embeddings, run_command, files_of, tmp_path):
    process = start_to_embed(cluster, run, data, tmp_path / "out")
    process.kill()
    process.communicate()
    assert not (tmp_path / "out" / "embedding.json").exists()
    words = ("embed", "--model", run, "--data", data, "--split", "train", "--out", tmp_path / "out", "--ray")
    run_command(*words, cluster=cluster)
    assert files_of(tmp_path / "out") == files_of(embeddings)


def test_an_index_is_the_same_bytes(cluster, run, data, run_command, files_of, tmp_path):
    words = ("index", "build", "--model", run, "--data", data, "--out")
    run_command(*words, tmp_path / "one")
    run_command(*words, tmp_path / "ray", "--ray", cluster=cluster)
    assert files_of(tmp_path / "ray") == files_of(tmp_path / "one")
