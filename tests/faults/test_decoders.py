"""A decoder that crashes, hangs or fills the memory costs its image, and nothing else."""

import importlib
import multiprocessing
import operator
import os
import signal
import struct
import time
import zlib

import numpy as np
import pytest

from medclip.data.decode_workers import DecodeWorkers, isolate
from medclip.data.images import decode
from medclip.data.prepare import prepare
from medclip.data.prepare_config import PrepareConfig
from medclip.encode.encoder import embed_images, jax_backend
from medclip.errors import ImageError, UserError
from medclip.evaluation.labeled_features import LabeledImage, _read_image
from medclip.require import require
from medclip.saliency import saliency_map
from support.dicom_files import crashing_dicom
from support.handmade_datasets import dataset, row
from support.material import bytes_on_disk, draw_image, image_bytes
from support.prepared import dropped_rows
from support.served import open_client

CRASHED = "decoder crashed"


@pytest.mark.parametrize(
    ("timeout_s", "work", "reason"),
    [
        (60.0, (os.abort,), CRASHED),
        (60.0, (signal.raise_signal, signal.SIGSEGV), CRASHED),
        (60.0, (os._exit, 3), CRASHED),
        (60.0, (signal.raise_signal, signal.SIGKILL), "decoder killed"),
        (60.0, (bytearray, 2**36), "image needs over 4 GiB"),
        (1.0, (time.sleep, 60), "image takes over 1 s"),
    ],
)
def test_the_reason_names_what_the_decoder_did_and_the_next_image_is_decoded(timeout_s, work, reason):
    workers = DecodeWorkers(1, timeout_s)
    try:
        with pytest.raises(ImageError, match=reason):
            workers.run(None, *work)
        assert workers.run(None, np.sum, [1, 2]) == 3
    finally:
        workers.close()


def test_of_many_images_each_that_ends_a_worker_costs_itself():
    calls = [(np.sum, [1, 2]), (os.abort,), (np.sum, [3, 4]), (time.sleep, 60), (os._exit, 3), (np.sum, [5, 6])]
    workers = DecodeWorkers(1, 1.0)
    try:
        results = workers.run_each(None, operator.call, calls)
        assert list(map(str, results)) == ["3", CRASHED, "7", "image takes over 1 s to decode", CRASHED, "11"]
    finally:
        workers.close()


def test_an_error_of_the_request_ends_it_and_no_later_answer_is_taken_for_another():
    workers = DecodeWorkers(1, 60.0)
    try:
        with pytest.raises(UserError, match="no_such_package is not installed"):
            workers.run_each(None, operator.call, [(np.sum, [1]), (require, "no_such_package"), (np.sum, [2])])
        assert workers.run(None, np.sum, [3, 4]) == 7
    finally:
        workers.close()


@pytest.mark.slow
def test_the_time_of_imports_is_not_the_images(tmp_path, monkeypatch):
    code = "import multiprocessing, time\nif multiprocessing.parent_process(): time.sleep(3)\ndef decode(): return 1\n"
    (tmp_path / "slowly_imported.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    workers = DecodeWorkers(1, 2.0)
    try:
        assert workers.run(None, importlib.import_module("slowly_imported").decode) == 1
    finally:
        workers.close()


@pytest.mark.slow
def test_a_service_starts_though_its_first_image_is_not_decoded_in_time(index_folder, monkeypatch):
    monkeypatch.setattr("medclip.serve.service.DECODE_TIMEOUT_S", 0.0)
    with open_client(index_folder, warm_up=True) as client:
        assert client.get("/ready").status_code == 200


def test_a_worker_that_was_killed_while_idle_is_replaced():
    isolate(os.getpid)
    for process in multiprocessing.active_children():
        if process.name == "decoder":
            process.kill()
            process.join()
    assert isolate(os.getpid) != os.getpid()


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """The start of a PNG with these chunks."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in ((b"IHDR", header), *chunks)
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


UNREADABLE = {
    "no image": b"no image",
    "a file that is cut": image_bytes(draw_image(1))[:200],
    "a size of 60,000 by 60,000": png(60_000, 60_000, (b"IDAT", b"")),
    "a text of 10 MB": png(16, 16, (b"zTXt", b"a\0\0" + zlib.compress(bytes(10**7))), (b"IDAT", b"")),
}


@pytest.mark.parametrize("image", UNREADABLE.values(), ids=UNREADABLE)
def test_an_image_of_a_foreign_dataset_is_named_by_every_command_that_compares_images(image, tmp_path, medclip):
    rows = {"train": [row(0), row(1, image=image)], "validation": [row(2)]}
    dataset(tmp_path / "data", rows)
    for command in (["leakage"], ["stats", "--out", tmp_path / "stats.html"]):
        code, _, error = medclip(command[0], tmp_path / "data", *command[1:])
        assert code == 1 and "the image of id1 in split 'train'" in " ".join(error.split())


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    images = {f"{n}.jpg": image_bytes(draw_image(n)) for n in range(4)} | {"4.dcm": crashing_dicom()}
    lines = [f"{name},{split},CT of the chest number {name}" for name in images for split in ("train", "test")]
    for name, image in images.items():
        (folder / name).write_bytes(image)
    (folder / "pairs.csv").write_text("\n".join(["image,split,caption", *lines]))
    return folder


@pytest.mark.slow
def test_a_preparation_counts_the_image_and_goes_on(source, tmp_path):
    outs = [tmp_path / name for name in ("one", "two", "again")]
    for out, workers in zip(outs, (1, 2, 2), strict=True):
        dataset = prepare(source / "pairs.csv", out, PrepareConfig(shorter_side=32), num_workers=workers)
        assert dataset["dropped"] == {split: {CRASHED: 1} for split in ("train", "test")}
        assert {row["detail"] for row in dropped_rows(out)} == {"4.dcm"}
    assert bytes_on_disk(outs[0] / "train-00000.arrow") == bytes_on_disk(outs[1] / "train-00000.arrow")
    assert (outs[0] / "dataset.json").read_bytes() == (outs[2] / "dataset.json").read_bytes()


@pytest.mark.slow
def test_a_query_an_embedding_and_a_labeled_image_name_it(source, model):
    image = source / "4.dcm"
    for query in (image, str(image), image.read_bytes()):
        with pytest.raises(UserError, match=CRASHED):
            embed_images(model, [query])
    with pytest.raises(UserError, match=CRASHED):
        saliency_map(model, image, "a fracture")
    with pytest.raises(ImageError, match=CRASHED):
        decode(image.read_bytes())  # as of a shard that another wrote
    labeled = LabeledImage(image, "x", "4", "4")
    assert _read_image(labeled, model.image_processor, [jax_backend(model).image_store]) == CRASHED


def test_a_search_by_that_image_is_a_sentence(source, index_folder, medclip):
    code, _, error = medclip("search", "--index", index_folder, "--image", source / "4.dcm")
    assert code == 2 and f"{source / '4.dcm'}: {CRASHED}" in " ".join(error.split())
