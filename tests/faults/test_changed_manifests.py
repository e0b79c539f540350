"""A digit of a manifest, or a bit of an image, that is not as it was written: nothing that opens it counts on it."""

import re

import numpy as np
import pytest

from medclip.atomic_io import write_with_checksum
from medclip.cli.info import info
from medclip.data.corrections import correct_data, pair_keys
from medclip.data.dataset import Split
from medclip.data.export import export_data
from medclip.data.images import decode
from medclip.errors import UserError, WorkError
from medclip.model.checkpoint import model_hash
from medclip.search.curate import delete
from medclip.search.embed import embed, read_image_embeddings
from medclip.search.reader import IndexReader
from medclip.verify import verify
from support.made_indexes import make_index, random_units

CHANGED = "is damaged: it is not as it was written"


def change(path, before, after):
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after, 1), encoding="utf-8")


def test_of_an_index_it_would_bring_a_deleted_image_back(tmp_path):
    folder = make_index(tmp_path / "i", random_units(10))
    delete(folder, ["r5"])
    change(folder / "index.json", "    5\n", "    7\n")
    with pytest.raises(UserError, match=re.escape(f"{folder / 'index.json'} {CHANGED}")):
        IndexReader(folder)
    assert "index.json" in {finding.file for finding in verify(folder).findings}


def test_of_an_index_it_hides_no_other_damage(tmp_path):
    folder = make_index(tmp_path / "i", random_units(10))
    change(folder / "index.json", '"added": "2026-11-01"', '"added": "2026-11-02"')
    (folder / "segments/00000/embeddings.npy").unlink()
    files = [finding.file for finding in verify(folder).findings]
    assert "index.json" in files and "segments/00000/embeddings.npy" in files


def test_of_a_dataset_it_would_be_another_count_or_source(data, copy):
    folder = copy(data)
    change(folder / "dataset.json", '"synthetic": false', '"synthetic": true')
    with pytest.raises(UserError, match=re.escape(CHANGED)):
        Split(folder, "train")


def test_of_embeddings_it_would_take_their_hashes_away(run, data, tmp_path):
    embed(run, data, folder := tmp_path / "e", "validation")
    change(folder / "embedding.json", '"split": "validation"', '"split": "validatiom"')
    with pytest.raises(UserError, match=re.escape(CHANGED)):
        read_image_embeddings(folder, model_hash(run), Split(data, "validation"))
    with pytest.raises(UserError, match=re.escape(CHANGED)):
        info(str(folder))


def test_of_an_export_it_would_be_another_count(data, tmp_path):
    export_data(data, folder := tmp_path / "e", "parquet")
    change(folder / "export.json", '"validation": 1', '"validation": 3')
    with pytest.raises(UserError, match=re.escape(CHANGED)):
        info(str(folder))


def test_one_that_another_program_wrote_has_no_checksum(tmp_path):
    folder = make_index(tmp_path / "i", random_units(10))
    write_with_checksum(folder / "index.json", {})
    with pytest.raises(UserError, match="segments"):
        IndexReader(folder)


def test_a_letter_of_a_caption_is_not_another_text(data, copy, tmp_path):
    """Also in a corrected copy, whose own hashes would vouch for it."""
    folder, key = copy(data), pair_keys(Split(data, "train").table)[0]
    path = folder / "validation-00000.arrow"
    path.write_bytes(path.read_bytes().replace(b"CT", b"MR", 1))
    for read in (
        lambda: Split(folder, "validation"),
        lambda: export_data(folder, tmp_path / "export", "parquet"),
        lambda: correct_data(folder, tmp_path / "corrected", {key: None}),
    ):
        with pytest.raises(UserError, match=f"{path} is not as it was written. Prepare the dataset again."):
            read()
    assert not (tmp_path / "corrected").exists() and not (tmp_path / "export" / "export.json").exists()


def test_a_bit_of_an_image_that_decodes_all_the_same_is_not_another_number(data, copy, tmp_path):
    folder, image = copy(data), Split(data, "validation").image(4)
    changed = bytearray(image)
    changed[-20] ^= 1
    path = folder / "validation-00000.arrow"
    path.write_bytes(path.read_bytes().replace(image, bytes(changed)))
    split = Split(folder, "validation")
    assert split.image(3) == Split(data, "validation").image(3)
    for read in (
        lambda: split.read_image(4, decode),
        lambda: [*split.iter_images(range(12))],
        lambda: [*split.iter_batches(["id", "image"], np.arange(len(split)) > 2)],
    ):
        with pytest.raises(WorkError, match=r"the image of ROCO_00004 in split .* is not the one that was written"):
            read()
