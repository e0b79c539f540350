"""One flipped bit, 200 times for each artifact: `medclip verify` names a file, and opening is never a crash."""

import contextlib
import random
import shutil

import pytest

from medclip.data.dataset import Split
from medclip.errors import UserError, WorkError
from medclip.model.checkpoint import model_hash
from medclip.search.embed import embed, read_image_embeddings
from medclip.search.reader import IndexReader
from medclip.verify import verify

NUM_FLIPS = 200


def open_dataset(folder):
    for split in ("train", "validation"):
        Split(folder, split).column("caption")


def open_index(folder):
    reader = IndexReader(folder)
    reader.nearest_rows(reader.sample_embeddings[:1], 5)
    reader.hit(0, 1.0)


def flip_bits(folder, open_again):
    """Flip a bit of a random file, verify and open, and put it back; a file is drawn as often as another."""
    rng = random.Random(0)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    for _ in range(NUM_FLIPS):
        path = rng.choice(files)
        whole = path.read_bytes()
        content = bytearray(whole)
        byte, bit = rng.randrange(len(content)), rng.randrange(8)
        content[byte] ^= 1 << bit
        path.write_bytes(content)
        where = f"{path.relative_to(folder)} byte {byte} bit {bit}"
        assert verify(folder).findings, f"{where} is silent"
        with contextlib.suppress(UserError, WorkError):
            open_again(folder)
        path.write_bytes(whole)
    assert not verify(folder).findings


@pytest.mark.slow
def test_no_flip_of_a_dataset_is_silent(data, tmp_path):
    folder = shutil.copytree(data, tmp_path / "data")
    flip_bits(folder, open_dataset)


@pytest.mark.slow
def test_no_flip_of_an_index_is_silent(index_folder, tmp_path):
    flip_bits(shutil.copytree(index_folder, tmp_path / "index"), open_index)


@pytest.mark.slow
def test_no_flip_of_embeddings_is_silent(run, data, tmp_path):
    embed(run, data, tmp_path / "embeddings", "validation")
    identity, split = model_hash(run), Split(data, "validation")
    flip_bits(tmp_path / "embeddings", lambda folder: read_image_embeddings(folder, identity, split))


@pytest.mark.slow
def test_no_flip_of_a_run_is_silent(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    flip_bits(folder, lambda folder: None)
