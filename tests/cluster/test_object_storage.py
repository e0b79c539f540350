"""Data that have no room here stream from an S3 server, and every result is that of a folder, byte for byte."""

from pathlib import Path

import pytest

from medclip.data.dataset import Split
from medclip.search.curate import build_index
from medclip.search.embed import embed
from medclip.training.loop import train

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]
"""Ray forks this process to start its own, of which JAX warns where nobody can catch it."""


@pytest.fixture
def no_images_here(storage, data):
    """At the end, no image of the dataset lies in this machine's cache."""
    yield
    folder = Split(storage, "train").folder
    content = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    for split in (Split(data, "train"), Split(data, "validation")):
        assert not any(split.image(row) in content for row in range(len(split)))


@pytest.mark.usefixtures("no_images_here")
def test_embeddings_and_an_index_are_the_same_bytes(storage, run, data, files_of, tmp_path):
    for name, source in (("folder", data), ("stored", storage)):
        embed(run, source, tmp_path / name / "embeddings", "train")
        build_index(run, source, tmp_path / name / "index", "train")
    assert files_of(tmp_path / "stored") == files_of(tmp_path / "folder")


@pytest.mark.usefixtures("no_images_here")
def test_a_training_is_the_same_bytes(storage, data, train_config, files_of, tmp_path):
    for name, source in (("folder", data), ("stored", storage)):
        train(source, tmp_path / name, train_config, image_cache_gb=0.0)
    made, wanted = (files_of(tmp_path / name / "model") for name in ("stored", "folder"))
    assert made == wanted and len(made) > 3


@pytest.mark.usefixtures("no_images_here")
def test_a_cluster_reads_storage_too(storage, cluster, run, data, run_command, files_of, tmp_path: Path):
    words = ("embed", "--model", run, "--split", "train")
    run_command(*words, "--data", data, "--out", tmp_path / "folder")
    run_command(*words, "--data", storage, "--out", tmp_path / "stored", "--ray", cluster=cluster)
    assert files_of(tmp_path / "stored") == files_of(tmp_path / "folder")
